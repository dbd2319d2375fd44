package report

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/lifecycle"
)

// recentOperations is how many of an agent's operations the documented report
// names.
const recentOperations = 3

// Meta is what a report says that is not in the entries.
type Meta struct {
	// Generated is when the report was made; zero means now.
	Generated time.Time
	// RetentionDays is how long entries are to be kept.
	RetentionDays int
	// Pruned is how many entries retention has taken away.
	Pruned int64
	// AccessControl says whether reading needs a role; no entry tells.
	AccessControl bool
	// Erasure says what erasing a person's data would reach; empty: nothing is said.
	Erasure string
	// Unrecorded says that no entry tells of the report itself: it is of a copy.
	Unrecorded bool
	// Checkpoint is the trail's latest, nil when there is none.
	Checkpoint *Checkpoint
}

// Checkpoint is the signed checkpoint that a report names. The report does not
// verify it.
type Checkpoint struct {
	Origin string `json:"origin"`
	// Size is the number of entries that it covers, Root its base64 root hash.
	Size int64  `json:"size"`
	Root string `json:"root"`
	// AnchoredTo is the size of the last checkpoint known to be kept out of
	// the writer's reach; negative when none is known.
	AnchoredTo int64 `json:"anchored_to"`
}

// State says whether something holds for all lines.
type State string

// States of encryption and access control.
const (
	Enabled  State = "Enabled"
	Disabled State = "Disabled"
	Partly   State = "Partly"
)

// Report is the compliance report. Its JSON shape only grows.
type Report struct {
	Generated time.Time `json:"generated"`
	// Unrecorded says that no entry tells of the report itself.
	Unrecorded bool `json:"unrecorded,omitempty"`
	// TotalEntries counts the agents' own entries that were recorded here.
	TotalEntries  int64 `json:"total_entries"`
	RetentionDays int   `json:"retention_days"`
	// PrunedEntries are those whose period is over: they are gone, and no gap.
	PrunedEntries int64 `json:"pruned_entries,omitempty"`
	Encryption    State `json:"encryption"`
	// EncryptedFrom and EncryptedUntil bound by index what is encrypted where
	// Encryption is Partly: every line from there on, or none after there.
	EncryptedFrom  *int64 `json:"encrypted_from,omitempty"`
	EncryptedUntil *int64 `json:"encrypted_until,omitempty"`
	AccessControl  State  `json:"access_control"`
	// Erasure says what erasing a person's data would reach, where that is known.
	// Erasures counts those that were, ErasedEntries the entries that had fields of
	// them.
	Erasure       string `json:"erasure,omitempty"`
	Erasures      int64  `json:"erasures,omitempty"`
	ErasedEntries int64  `json:"erased_entries,omitempty"`
	// Agents are in the order of their first entry.
	Agents []Agent `json:"agents"`
	// OwnEntries counts the trail's own entries.
	OwnEntries int64 `json:"own_entries"`
	// ImportedEntries counts entries that another log had first. They are not
	// in TotalEntries: the trail vouches for them from their import on only.
	ImportedEntries int64 `json:"imported_entries"`
	// AdoptedLines counts the lines of an older log that the trail began with,
	// AdoptedBroken those of them that are no entries. They are in none of the
	// other numbers.
	AdoptedLines  int64 `json:"adopted_lines"`
	AdoptedBroken int64 `json:"adopted_broken_lines,omitempty"`
	// Telemetry counts the model and tool calls that came over OTLP,
	// WithoutContent those of them without content (see Content), Senders whose
	// they are and what turns it on there.
	Telemetry      int64    `json:"otlp_calls,omitempty"`
	WithoutContent int64    `json:"otlp_calls_without_content,omitempty"`
	Senders        []Sender `json:"otlp_senders_without_content,omitempty"`
	// Purposes are what the agents' entries were for, the most frequent first, at
	// most 100; PurposesMore counts entries for other purposes, WithoutPurpose
	// those that name none. All are absent where no entry names one.
	Purposes       []Purpose `json:"purposes,omitempty"`
	PurposesMore   int64     `json:"purposes_more,omitempty"`
	WithoutPurpose int64     `json:"without_purpose,omitempty"`
	// Unattributed counts entries that are encrypted as a whole, so that their
	// agent can't be read here. They are in TotalEntries.
	Unattributed int64 `json:"unattributed_entries"`
	// Broken counts lines that are no entries, the first at index BrokenFirst.
	// They are not in TotalEntries.
	Broken      int64  `json:"broken_lines"`
	BrokenFirst *int64 `json:"broken_first,omitempty"`
	// Missing are entries that could not be read, ascending: what they were is
	// not in the report.
	Missing    []Gap       `json:"missing,omitempty"`
	Checkpoint *Checkpoint `json:"checkpoint"`
}

// Gap is a range of entries that are missing.
type Gap struct {
	First  int64  `json:"first"`
	Count  int64  `json:"count"` // -1: not known
	Detail string `json:"detail"`
}

// Agent is what one agent did.
type Agent struct {
	AgentID    string `json:"agent_id"`
	Operations int64  `json:"total_operations"`
	Successful int64  `json:"successful_operations"`
	// Imported operations, adopted ones among them, are in none of the other
	// numbers.
	Imported int64 `json:"imported_operations,omitempty"`
	// Recent are the last operations by index, at most three, the oldest of
	// them first.
	Recent []Operation `json:"recent_operations"`
}

// Operation is one entry of an agent.
type Operation struct {
	Index      int64     `json:"index"`
	Timestamp  time.Time `json:"timestamp"`
	Action     string    `json:"action"`
	DurationMS float64   `json:"duration_ms"`
	Success    bool      `json:"success"`
}

// Purpose counts the entries for one purpose.
type Purpose struct {
	Purpose string `json:"purpose"`
	Entries int64  `json:"entries"`
}

// maxPurposes is how many purposes are named: who declares more than some dozen
// limits nothing.
const maxPurposes = 100

// Builder makes a report of entries.
type Builder struct {
	report   Report
	agents   map[string]int // place in report.Agents
	purposes map[string]int64
	noneFor  int64

	content        Content
	adopted        lifecycle.Adopted
	adoptedEntries int64

	// Of the lines counted, the trail's own apart: those are plain also where
	// the trail is encrypted.
	encrypted   int64
	suffixFrom  int64 // where the run of encrypted lines that reaches the newest one begins
	newestIs    bool  // the newest line is encrypted
	lastCovered int64 // the newest encrypted line
}

// New begins a report.
func New(m Meta) *Builder {
	if m.Generated.IsZero() {
		m.Generated = time.Now()
	}
	access := Disabled
	if m.AccessControl {
		access = Enabled
	}
	return &Builder{
		report: Report{
			Generated: m.Generated.UTC().Truncate(time.Millisecond), RetentionDays: m.RetentionDays, PrunedEntries: m.Pruned,
			Unrecorded: m.Unrecorded, AccessControl: access, Erasure: m.Erasure, Checkpoint: m.Checkpoint, Agents: []Agent{},
		},
		agents: map[string]int{}, purposes: map[string]int64{},
	}
}

// Add counts an entry. Entries come by ascending index. What it keeps of e is
// copied, so that e's line can go.
func (b *Builder) Add(e entry.Entry) {
	r := &b.report
	b.adopted.See(e.Index, e.Line())
	if b.adopted.Has(e.Index) {
		b.adoptedEntries++
		if e.AgentID != "" {
			b.agent(e.AgentID).Imported++
		}
		return
	}
	if e.IsTrails() && strings.HasPrefix(e.EventType, entry.TrailPrefix) {
		r.OwnEntries++
		if e.EventType == lifecycle.Erasure && e.Action == "subject_erased" {
			var o struct{ Entries int64 }
			_ = e.Outputs.Decode(&o) // the trail's own
			r.Erasures, r.ErasedEntries = r.Erasures+1, r.ErasedEntries+o.Entries
		}
		return
	}
	if e.IsImported() {
		r.ImportedEntries++
		b.agent(e.AgentID).Imported++
		return
	}
	r.TotalEntries++
	b.addEncryption(e.Index, sealedWhole(e.Line()) || sealedInPart(e.Policy))
	if sealedWhole(e.View()) { // nobody has opened it
		r.Unattributed++
		return
	}
	b.content.Add(&e)
	b.addPurpose(e.Purpose)
	a := b.agent(e.AgentID)
	a.Operations++
	if e.Success {
		a.Successful++
	}
	if len(a.Recent) == recentOperations {
		copy(a.Recent, a.Recent[1:])
		a.Recent = a.Recent[:recentOperations-1]
	}
	a.Recent = append(a.Recent, Operation{
		Index: e.Index, Timestamp: e.Timestamp.UTC(), Action: strings.Clone(e.Action), DurationMS: e.DurationMS, Success: e.Success,
	})
}

// agent is what is known of an agent so far.
func (b *Builder) agent(id string) *Agent {
	r := &b.report
	at, ok := b.agents[id]
	if !ok {
		at = len(r.Agents)
		id = strings.Clone(id)
		r.Agents = append(r.Agents, Agent{AgentID: id, Recent: make([]Operation, 0, recentOperations)})
		b.agents[id] = at
	}
	return &r.Agents[at]
}

// AddBroken counts a line that is no entry.
func (b *Builder) AddBroken(index int64) {
	if b.report.Broken++; b.report.BrokenFirst == nil {
		b.report.BrokenFirst = &index
	}
}

// AddMissing notes entries that are missing.
func (b *Builder) AddMissing(g Gap) { b.report.Missing = append(b.report.Missing, g) }

func (b *Builder) addPurpose(purpose string) {
	_, known := b.purposes[purpose]
	switch {
	case purpose == "":
		b.noneFor++
	case known:
		b.purposes[purpose]++
	case len(b.purposes) < maxPurposes:
		b.purposes[strings.Clone(purpose)] = 1
	default:
		b.report.PurposesMore++
	}
}

func (b *Builder) addEncryption(index int64, encrypted bool) {
	if encrypted {
		if !b.newestIs {
			b.suffixFrom = index
		}
		b.encrypted++
		b.lastCovered = index
	}
	b.newestIs = encrypted
}

// sealedWhole tells whether a line is encrypted as a whole: its first member
// is "sealed":"v1" (docs/format.md). No entry begins so.
func sealedWhole(line []byte) bool { return bytes.HasPrefix(line, []byte(`{"sealed":"v1"`)) }

// sealedInPart tells whether any field of an entry is sealed.
func sealedInPart(policy entry.Object) bool {
	v, ok := policy.Get("sealed")
	return ok && len(v.JSON()) > len("[]")
}

// Report gives the report of the entries so far; the builder is then done.
func (b *Builder) Report() *Report {
	r := b.report
	r.Telemetry, r.WithoutContent, r.Senders = b.content.Calls, b.content.Without, b.content.Senders()
	for purpose, n := range b.purposes {
		r.Purposes = append(r.Purposes, Purpose{purpose, n})
	}
	slices.SortFunc(r.Purposes, func(x, y Purpose) int {
		return cmp.Or(cmp.Compare(y.Entries, x.Entries), strings.Compare(x.Purpose, y.Purpose))
	})
	if len(r.Purposes) > 0 {
		r.WithoutPurpose = b.noneFor
	}
	r.AdoptedLines, r.AdoptedBroken = b.adopted.Count, b.adopted.Count-b.adoptedEntries
	switch {
	case b.encrypted == 0:
		r.Encryption = Disabled
	case b.encrypted == r.TotalEntries:
		r.Encryption = Enabled
	default:
		r.Encryption = Partly
		if b.newestIs {
			r.EncryptedFrom = &b.suffixFrom
		} else {
			r.EncryptedUntil = &b.lastCovered
		}
	}
	return &r
}
