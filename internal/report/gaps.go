package report

import (
	"cmp"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"time"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/lifecycle"
)

// Limits of what a gap report judges.
const (
	// lateAfter is how long after it happened an entry is recorded late. Whatever
	// can record at once takes milliseconds; the spool is taken in about every
	// second while somebody holds the trail.
	lateAfter = time.Minute
	// backdatedAfter is how long after it happened it is backdated: PCI DSS 10.4.1
	// wants events reviewed daily, which this one was not.
	backdatedAfter = 24 * time.Hour
	// maxUsers is how many users, and maxOpen how many loops that have begun, are
	// told apart in all: some 50 MB. Past it the report says that there are more.
	maxUsers, maxOpen = 1 << 20, 1 << 20
	// maxNames is how many shared ids and tools are named for an agent.
	maxNames = 32
)

// Measures. Of the first four a high count is good, of the others a low one.
const (
	complete    = "complete"    // all six fields of PCI DSS 10.2.2
	uniqueUser  = "unique_user" // a user's own id or pseudonym
	withPurpose = "purpose"     // a purpose that policy did not flag
	withContent = "content"     // of calls: inputs or outputs, nothing left out

	noUser      = "no_user_id"
	noEventType = "no_event_type"
	noResult    = "no_result" // outcome unknown: begun, and nobody heard of the end
	noOrigin    = "no_origination"
	noResource  = "no_resource"
	sharedUser  = "shared_user_id"
	weakOrigin  = "origination_by_agent_only"
	notEnded    = "not_ended" // loops that have begun, without an end
	denied      = "denied"
	late        = "late"
	backdated   = "backdated"
	ahead       = "ahead" // it happened after it was recorded
	flagged     = "flagged"
)

// measures are all of them, in the report's order.
var measures = []string{
	complete, uniqueUser, withPurpose, withContent,
	noUser, noEventType, noResult, noOrigin, noResource, sharedUser, weakOrigin, notEnded, denied, late, backdated, ahead, flagged,
}

// shares are those of which a high count is good.
const shares = 4

// Gaps is the gap report: what the entries of each agent do not say. Its JSON
// shape only grows.
type Gaps struct {
	Generated time.Time `json:"generated"`
	// Unrecorded says that no entry tells of the report itself.
	Unrecorded bool `json:"unrecorded,omitempty"`
	// TotalEntries counts the agents' own entries that were recorded here, which
	// are those that are judged. FirstIndex and LastIndex bound them, -1 without
	// any.
	TotalEntries int64       `json:"total_entries"`
	FirstIndex   int64       `json:"first_index"`
	LastIndex    int64       `json:"last_index"`
	From         *time.Time  `json:"from,omitempty"` // bounds of their timestamps
	To           *time.Time  `json:"to,omitempty"`
	Agents       []AgentGaps `json:"agents"`
	// Not judged: the trail's own entries, those that another log had first, lines
	// that it began with, entries that are encrypted as a whole, and lines that
	// are no entries.
	OwnEntries      int64       `json:"own_entries"`
	ImportedEntries int64       `json:"imported_entries"`
	AdoptedLines    int64       `json:"adopted_lines"`
	Unreadable      int64       `json:"unreadable_entries"`
	Broken          int64       `json:"broken_lines"`
	BrokenFirst     *int64      `json:"broken_first,omitempty"`
	Missing         []Gap       `json:"missing,omitempty"`
	Checkpoint      *Checkpoint `json:"checkpoint"`
}

// AgentGaps is what the entries of one agent say, and don't.
type AgentGaps struct {
	AgentID string `json:"agent_id"`
	Entries int64  `json:"entries"`
	// Users is how many users' own ids and pseudonyms there are; at least so many
	// where UsersMore is set.
	Users     int64 `json:"users"`
	UsersMore bool  `json:"users_more,omitempty"`
	// SharedIDs are ids that are no one person's, at most 32.
	SharedIDs []string  `json:"shared_ids,omitempty"`
	Measures  []Measure `json:"measures"`
}

// Measure counts entries of an agent.
type Measure struct {
	Name  string `json:"measure"`
	Count int64  `json:"count"`
	// Of is how many could count.
	Of int64 `json:"of"`
	// First is the index of the first entry that is a gap: one that does not count
	// where a high count is good, else one that does. nil where there is none.
	First *int64 `json:"first,omitempty"`
	// Mend is the setting that would close the gap, "" where there is none.
	Mend string `json:"mend,omitempty"`
}

// gap tells whether there is something to mend.
func (m *Measure) gap(i int) bool { return m.First != nil || i >= shares && m.Count > 0 }

// GapBuilder makes a gap report of entries. It is not safe for concurrent use.
type GapBuilder struct {
	report  Gaps
	agents  map[string]*agentGaps
	order   []*agentGaps
	adopted lifecycle.Adopted
	seed    maphash.Seed
	users   int
	open    map[uint64]openLoop
}

// agentGaps is an AgentGaps that is being made.
type agentGaps struct {
	AgentGaps

	calls    int64
	counts   [17]int64
	first    [17]int64 // index + 1
	users    map[uint64]struct{}
	lacking  map[string]*lacking // by tool or event type
	overOTLP bool                // an entry without content, or without a user, came that way
	leftOut  bool                // a value was, being too long say
}

// lacking is a tool or event type whose entries do not name their resource.
type lacking struct {
	count   int64
	tool    bool
	pointer string // to what may be its id
}

// openLoop is a loop that has begun.
type openLoop struct {
	agent *agentGaps
	count int64
	first int64
}

// NewGaps begins a gap report.
func NewGaps(m Meta) *GapBuilder {
	if m.Generated.IsZero() {
		m.Generated = time.Now()
	}
	return &GapBuilder{
		report: Gaps{Generated: m.Generated.UTC().Truncate(time.Millisecond), Unrecorded: m.Unrecorded, Checkpoint: m.Checkpoint, FirstIndex: -1, LastIndex: -1},
		agents: map[string]*agentGaps{}, seed: maphash.MakeSeed(), open: map[uint64]openLoop{},
	}
}

// AddBroken counts a line that is no entry.
func (b *GapBuilder) AddBroken(index int64) {
	if b.report.Broken++; b.report.BrokenFirst == nil {
		b.report.BrokenFirst = &index
	}
}

// AddMissing notes entries that are missing.
func (b *GapBuilder) AddMissing(g Gap) { b.report.Missing = append(b.report.Missing, g) }

// Add judges an entry. Entries come by ascending index; e's line can go
// afterwards.
func (b *GapBuilder) Add(e entry.Entry) {
	r := &b.report
	b.adopted.See(e.Index, e.Line())
	switch {
	case b.adopted.Has(e.Index):
		r.AdoptedLines++
		return
	case e.IsTrails() && strings.HasPrefix(e.EventType, entry.TrailPrefix):
		r.OwnEntries++
		return
	case e.IsImported():
		r.ImportedEntries++
		return
	case sealedWhole(e.View()):
		r.Unreadable++
		return
	}
	if r.TotalEntries++; r.FirstIndex < 0 {
		r.FirstIndex = e.Index
	}
	r.LastIndex = e.Index
	at := e.Timestamp.UTC()
	if r.From == nil || at.Before(*r.From) {
		r.From = &at
	}
	if r.To == nil || at.After(*r.To) {
		r.To = &at
	}
	b.judge(b.agent(e.AgentID), &e)
}

func (b *GapBuilder) agent(id string) *agentGaps {
	a, ok := b.agents[id]
	if !ok {
		id = strings.Clone(id)
		a = &agentGaps{AgentGaps: AgentGaps{AgentID: id}, users: map[uint64]struct{}{}, lacking: map[string]*lacking{}}
		b.agents[id], b.order = a, append(b.order, a)
	}
	return a
}

// measured is the place of a measure.
func measured(name string) int { return slices.Index(measures, name) }

// note counts an entry for a measure, or as one that lacks it.
func (a *agentGaps) note(name string, counts bool, index int64) {
	i := measured(name)
	if counts {
		a.counts[i]++
	}
	if counts == (i >= shares) && a.first[i] == 0 {
		a.first[i] = index + 1
	}
}

func (b *GapBuilder) judge(a *agentGaps, e *entry.Entry) {
	a.Entries++
	user := cmp.Or(e.Metadata.Text("user_id"), e.Metadata.Text("user_id_hash"))
	origin := entry.Origination(e.Metadata)
	access := isAccess(e.EventType)
	flags := pointers(e, "flagged")
	resource := hasResource(e)
	missing := map[string]bool{
		noUser:      user == "",
		noEventType: e.EventType == "UNSPECIFIED",
		noResult:    e.Outcome == "unknown",
		// An agent's name tells where an ordinary event came from; of an access one
		// wants to know more (PCI DSS 10.2.2, origination).
		noOrigin:   e.AgentID == "unspecified" || access && origin == "",
		noResource: !resource,
	}
	whole := true
	for name, is := range missing {
		a.note(name, is, e.Index)
		whole = whole && !is
	}
	a.note(complete, whole, e.Index)
	if !resource {
		a.noteLacking(e)
	}
	a.note(weakOrigin, origin == "" && !missing[noOrigin], e.Index)

	shared := user != "" && isShared(user, e.AgentID)
	a.note(sharedUser, shared, e.Index)
	a.note(uniqueUser, user != "" && !shared, e.Index)
	switch {
	case shared:
		if len(a.SharedIDs) < maxNames && !slices.Contains(a.SharedIDs, user) {
			a.SharedIDs = append(a.SharedIDs, strings.Clone(user))
		}
	case user != "":
		b.noteUser(a, user)
	}

	a.note(withPurpose, e.Purpose != "" && !slices.Contains(flags, "/purpose"), e.Index)
	a.note(flagged, len(flags) > 0, e.Index)
	if isCall(e.EventType) {
		a.calls++
		content := hasContent(e)
		a.note(withContent, content, e.Index)
		a.leftOut = a.leftOut || len(pointers(e, "omitted")) > 0
		a.overOTLP = a.overOTLP || (!content || user == "") && e.RecordedBy.Text("via") == "otlp"
	}
	a.note(denied, e.Outcome == "denied" || e.EventType == entry.PermissionCheck && !e.Success, e.Index)
	after := e.RecordedAt.Sub(e.Timestamp)
	a.note(late, after > lateAfter && after <= backdatedAfter, e.Index)
	a.note(backdated, after > backdatedAfter, e.Index)
	a.note(ahead, after < -lateAfter, e.Index)
	b.noteLoop(a, e)
}

func isAccess(eventType string) bool {
	return eventType == entry.PHIAccess || eventType == entry.CHDAccess || eventType == entry.DataAccess
}

// hasResource tells whether an event names the data, component, resource or
// service that it concerns: an access the record's id, a tool's or model's call
// the tool or model. What else an agent does concerns the agent.
func hasResource(e *entry.Entry) bool {
	id, ok := e.Resource.Get("id")
	if text := string(id.JSON()); ok && text != `""` && text != "null" { // a number names too
		return true
	}
	_, name, _ := strings.Cut(e.Action, ":")
	switch {
	case isAccess(e.EventType):
		return false
	case e.EventType == entry.ToolUse:
		return name != ""
	case e.EventType == entry.LLMCall:
		return name != "" || e.Metadata.Text("model") != "" || e.Inputs.Text("model") != ""
	}
	return true
}

func (a *agentGaps) noteLacking(e *entry.Entry) {
	_, name, tool := strings.Cut(e.Action, ":")
	if !tool {
		name = e.EventType
	}
	l, ok := a.lacking[name]
	if !ok {
		if len(a.lacking) >= maxNames {
			return
		}
		l = &lacking{tool: tool}
		a.lacking[strings.Clone(name)] = l
	}
	l.count++
	if l.pointer == "" {
		for name := range e.Inputs.All() {
			if name == "id" || strings.HasSuffix(name, "_id") || strings.HasSuffix(name, "Id") {
				l.pointer = "/inputs/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
				break
			}
		}
	}
}

// sharedIDs are ids that name no one person, as PCI DSS 8.2.2 and HIPAA
// 164.312(a)(2)(i) want them named.
var sharedIDs = []string{
	"admin", "administrator", "agent", "anonymous", "bot", "default", "guest", "n/a", "na", "nobody", "none", "null", "root",
	"service", "shared", "system", "test", "undefined", "unknown", "unspecified", "user",
}

func isShared(user, agent string) bool {
	if user == agent {
		return true
	}
	_, yes := slices.BinarySearch(sharedIDs, strings.ToLower(user))
	return yes
}

func (b *GapBuilder) noteUser(a *agentGaps, user string) {
	h := maphash.String(b.seed, user)
	if _, known := a.users[h]; known {
		return
	}
	if b.users >= maxUsers {
		a.UsersMore = true
		return
	}
	b.users++
	a.users[h] = struct{}{}
}

// isCall tells the events whose inputs and outputs are what happened.
func isCall(eventType string) bool {
	switch eventType {
	case entry.LLMCall, entry.ToolUse, entry.SpecialistInvoke, entry.MemoryLoad, entry.MemorySave, entry.MemoryDelete:
		return true
	}
	return isAccess(eventType)
}

func hasContent(e *entry.Entry) bool {
	if e.Metadata.Text("content_missing") != "" {
		return false
	}
	for _, p := range pointers(e, "omitted") {
		if p == "/inputs" || p == "/outputs" {
			return false
		}
	}
	for _, o := range []entry.Object{e.Inputs, e.Outputs} {
		for range o.All() {
			return true
		}
	}
	return false
}

// pointers gives a list out of policy.
func pointers(e *entry.Entry, name string) []string {
	v, ok := e.Policy.Get(name)
	var list []string
	if !ok || json.Unmarshal(v.JSON(), &list) != nil {
		return nil
	}
	return list
}

// noteLoop pairs the beginnings and ends of an agent's loops, by trace.
func (b *GapBuilder) noteLoop(a *agentGaps, e *entry.Entry) {
	begins := e.EventType == entry.AgentLoopStart
	if !begins && e.EventType != entry.AgentLoopEnd {
		return
	}
	var h maphash.Hash
	h.SetSeed(b.seed)
	h.WriteString(e.AgentID)
	h.WriteByte(0)
	h.WriteString(e.TraceID)
	key := h.Sum64()
	loop, known := b.open[key]
	switch {
	case begins && !known && len(b.open) < maxOpen:
		b.open[key] = openLoop{a, 1, e.Index}
	case begins && known:
		loop.count++
		b.open[key] = loop
	case !begins && known && loop.count > 1:
		loop.count--
		b.open[key] = loop
	case !begins && known:
		delete(b.open, key)
	}
}

// Report gives the report of the entries so far; the builder is then done.
func (b *GapBuilder) Report() *Gaps {
	for _, loop := range b.open {
		i := measured(notEnded)
		loop.agent.counts[i] += loop.count
		if f := &loop.agent.first[i]; *f == 0 || loop.first+1 < *f {
			*f = loop.first + 1
		}
	}
	r := b.report
	r.Agents = make([]AgentGaps, 0, len(b.order))
	for _, a := range b.order {
		a.Users = int64(len(a.users))
		for i, name := range measures {
			m := Measure{Name: name, Count: a.counts[i], Of: a.Entries}
			if name == withContent {
				m.Of = a.calls
			}
			if a.first[i] > 0 {
				m.First = new(a.first[i] - 1)
			}
			if m.gap(i) {
				m.Mend = a.mend(name)
			}
			a.Measures = append(a.Measures, m)
		}
		r.Agents = append(r.Agents, a.AgentGaps)
	}
	return &r
}

// mend is the setting that would close a gap of this agent.
func (a *agentGaps) mend(name string) string {
	switch name {
	case noUser, sharedUser:
		if a.overOTLP {
			return "span attribute user.id at the sender (docs/otlp.md)"
		}
		return `metadata: {"user_id": ID} in every event; hook.WithMetadata(ctx, map[string]any{"user_id": ID}); AuditTrailHook(manager, metadata={"user_id": ID})`
	case withPurpose:
		return "policy: {purposes: {declared: [PURPOSE], otherwise: refuse}}"
	case withContent:
		if a.overOTLP {
			return "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=true at the sender, or its own switch (docs/otlp.md)"
		}
		if a.leftOut {
			return "trail: {max_line: 64MiB}"
		}
		return "inputs and outputs in every call"
	case noEventType:
		return "event_type: TOOL_USE, or what it was, in every event"
	case noOrigin, weakOrigin:
		return `metadata: {"ip_address": ADDRESS} in every event; hook.WithMetadata(ctx, map[string]any{"ip_address": ADDRESS})`
	case noResource:
		return a.mendResource()
	case noResult, notEnded:
		return "hook.Manager.Do, or the end recorded with defer: what a crash leaves open is then told at the next start"
	case late:
		return "kaizen-audit serve, so that somebody always holds the trail and takes events at once"
	case backdated:
		return "kaizen-audit import FILE for what another log had first; else timestamp left out, which is then now"
	case ahead:
		return "timedatectl set-ntp true on the machine of the agent"
	}
	return "" // denied and flagged are findings, no gaps of a setting; complete and uniqueUser are mended by what they lack
}

// mendResource is the tool rule for the tool that most often names no resource.
func (a *agentGaps) mendResource() string {
	most, name := (*lacking)(nil), ""
	for n, l := range a.lacking {
		if most == nil || l.count > most.count || l.count == most.count && n < name {
			most, name = l, n
		}
	}
	if most == nil {
		return ""
	}
	if !most.tool && name == entry.LLMCall {
		return `metadata: {"model": MODEL} in every event`
	}
	by := "event_types"
	if most.tool {
		by = "tools"
	}
	kind, pointer := "TYPE", cmp.Or(most.pointer, "/inputs/ID")
	if s, ok := strings.CutSuffix(pointer, "_id"); ok {
		kind = strings.TrimPrefix(s, "/inputs/")
	}
	quote := func(s string) string {
		b, _ := json.Marshal(s) // a string always can be; YAML reads it
		return string(b)
	}
	return fmt.Sprintf("policy: {tools: [{%s: [%s], resource: {type: %s, id: [%s]}}]}", by, quote(name), quote(kind), quote(pointer))
}
