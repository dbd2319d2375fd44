package lifecycle

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// The types of lifecycle entries (docs/format-lifecycle.md §7.1).
const (
	Created  = "AUDIT_CREATED"
	Recovery = "AUDIT_RECOVERY"
	Seal     = "AUDIT_SEAL"
	Clock    = "AUDIT_CLOCK"
	Key      = "AUDIT_KEY"
	Policy   = "AUDIT_POLICY"
	Hold     = "AUDIT_HOLD"
	Erasure  = "AUDIT_ERASURE"
	Prune    = "AUDIT_PRUNE"
)

var types = map[string]bool{Created: true, Recovery: true, Seal: true, Clock: true, Key: true, Policy: true, Hold: true, Erasure: true, Prune: true}

// Line is a line and its index.
type Line struct {
	Index int64
	Text  []byte // without newline
}

// beforeType is what stands before the type in every line of a writer: of the
// time between only the length is looked at.
const (
	beforeTime = `{"timestamp":"`
	timeLength = len("2026-01-02T03:04:05.678Z")
	beforeType = `","event_type":"`
)

// Is tells whether a line says that it is a lifecycle entry. Nothing is verified.
func Is(line []byte) bool {
	at := len(beforeTime) + timeLength
	if len(line) < at+len(beforeType) || string(line[at:at+len(beforeType)]) != beforeType {
		return false
	}
	rest := line[at+len(beforeType):]
	if len(rest) < 6 || string(rest[:6]) != "AUDIT_" {
		return false
	}
	end := bytes.IndexByte(rest[:min(len(rest), 32)], '"')
	return end > 0 && types[string(rest[:end])]
}

// saying is what is read of a lifecycle entry.
type saying struct {
	index int64
	line  []byte

	EventType  string          `json:"event_type"`
	AgentID    string          `json:"agent_id"`
	TraceID    string          `json:"trace_id"`
	Action     string          `json:"action"`
	Outputs    json.RawMessage `json:"outputs"`
	EventID    string          `json:"event_id"`
	RecordedAt string          `json:"recorded_at"`
	Metadata   struct {
		Principal string `json:"principal"`
		Signature string `json:"signature"`
	} `json:"metadata"`
}

var errForm = errors.New("it has not the form of a lifecycle entry")

// read reads a line; its signature is looked at by signedBy.
func read(l Line) (*saying, error) {
	s := &saying{index: l.Index, line: l.Text}
	if json.Unmarshal(l.Text, s) != nil || !types[s.EventType] || s.AgentID != "kaizen-audit" || s.EventID == "" || len(s.Metadata.Signature) != signatureLength {
		return nil, errForm
	}
	var tight bytes.Buffer
	if json.Compact(&tight, l.Text) != nil || !bytes.Equal(tight.Bytes(), l.Text) {
		return nil, errForm
	}
	return s, nil
}

// ToSign tells whether a text is a lifecycle entry of the trail of that origin, without
// its signature.
func ToSign(line []byte, origin string) bool {
	if !Is(line) || bytes.ContainsAny(line, "\n\r") {
		return false
	}
	var s saying
	if json.Unmarshal(line, &s) != nil || !types[s.EventType] || s.AgentID != "kaizen-audit" || s.TraceID != origin || s.EventID == "" || s.Metadata.Signature != "" {
		return false
	}
	var tight bytes.Buffer
	return bytes.Contains(line, []byte(`"signature":""`)) && json.Compact(&tight, line) == nil && bytes.Equal(tight.Bytes(), line)
}

// signatureLength is that of 64 bytes in padded base64.
const signatureLength = 88

// signedBy tells whether the entry's signature is the key's: Ed25519 over the line
// with the member metadata.signature empty (§7.1).
func (s *saying) signedBy(vkey string) bool {
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return false
	}
	sig, err := base64.StdEncoding.Strict().DecodeString(s.Metadata.Signature)
	if err != nil {
		return false
	}
	member := []byte(`"signature":"` + s.Metadata.Signature + `"`)
	at := bytes.LastIndex(s.line, member)
	if at < 0 {
		return false
	}
	at += len(member) - 1 - signatureLength
	text := make([]byte, 0, len(s.line)-signatureLength)
	text = append(append(text, s.line[:at]...), s.line[at+signatureLength:]...)
	return v.Verify(text, sig)
}

func (s *saying) recordedAt() (time.Time, bool) { return parseTime(s.RecordedAt) }

func parseTime(s string) (time.Time, bool) {
	t, err := time.Parse("2006-01-02T15:04:05.000Z", s)
	return t, err == nil
}

// Range is entries First to First+Count-1.
type Range struct {
	First int64 `json:"first"`
	Count int64 `json:"count"`
}

// End is the index after the last one.
func (r Range) End() int64 { return r.First + r.Count }

// Meets tells whether two ranges have an entry in common.
func (r Range) Meets(o Range) bool { return r.First < o.End() && o.First < r.End() }

// maxIndex is the greatest integer that every JSON reader keeps.
const maxIndex = 1<<53 - 1

func (r Range) possible() bool {
	return r.First >= 0 && r.Count >= 1 && r.First <= maxIndex && r.Count <= maxIndex && r.First <= math.MaxInt64-r.Count
}

// ranges tells whether they ascend, and neither overlap nor touch.
func possible(all []Range) bool {
	for i, r := range all {
		if !r.possible() || i > 0 && r.First <= all[i-1].End() {
			return false
		}
	}
	return true
}

// Contains tells whether one of the ranges, ascending and not touching, has all of r.
func Contains(all []Range, r Range) bool {
	for _, a := range all {
		if a.First <= r.First && r.End() <= a.End() {
			return true
		}
	}
	return false
}

// Join is the ranges and r, ascending, those that touch made one.
func Join(all []Range, r Range) []Range {
	var out []Range
	for _, a := range all {
		switch {
		case a.End() < r.First:
			out = append(out, a)
		case r.End() < a.First:
			out = append(out, r)
			r = a
		default:
			first, end := min(a.First, r.First), max(a.End(), r.End())
			r = Range{first, end - first}
		}
	}
	return append(out, r)
}

// KeyFrom is a verifier key and the first tree size that it signs.
type KeyFrom struct {
	VKey string `json:"vkey"`
	From int64  `json:"from"`
	// Replaces says that the key before was lost: a lifecycle key that was the same
	// goes with it (§7.10).
	Replaces bool `json:"-"`
}

// Terms are the policy of a trail: what is promised of how long it keeps its entries
// (§7.6).
type Terms struct {
	Profile string `json:"profile"`
	// RetentionDays is how many days a segment is kept at least; nil: it was never
	// set, nothing may be pruned, and what is recorded is owed DefaultDays.
	RetentionDays *int64 `json:"retention_days"`
	Version       int64  `json:"version,omitempty"`
	Encrypt       bool   `json:"encrypt,omitempty"`
	Locked        bool   `json:"locked,omitempty"`
}

// DefaultDays is what is owed where no period was set.
const DefaultDays = 2555

// Floors are the least days of the profiles that have such.
var Floors = map[string]int64{"hipaa": 2190, "pci": 365}

// MaxDays is the longest period: durations of more days would overflow.
const MaxDays = 100_000

func (t Terms) equal(o Terms) bool {
	a, b := t.RetentionDays, o.RetentionDays
	t.RetentionDays, o.RetentionDays = nil, nil
	return t == o && (a == nil) == (b == nil) && (a == nil || *a == *b)
}

// owed is how long something is kept whose period is days.
func owed(days *int64) int64 {
	if days == nil {
		return DefaultDays
	}
	return *days
}

// May says why the terms can't be replaced by others, nil if they can.
func (t Terms) May(next Terms) error {
	switch {
	case next.Profile != t.Profile || next.Encrypt != t.Encrypt:
		return errors.New("a trail's profile and encryption never change")
	case next.Version != t.Version+1:
		return errors.New("it is not the next version")
	case next.RetentionDays == nil:
		return errors.New("a period that was set can't be unset")
	case *next.RetentionDays < 1 || *next.RetentionDays > MaxDays:
		return errors.New("a period is 1 to 100000 days")
	case *next.RetentionDays < Floors[t.Profile]:
		return errors.New("the profile " + t.Profile + " keeps entries for longer")
	case t.Locked && !next.Locked:
		return errors.New("a lock stays")
	case t.Locked && *next.RetentionDays < owed(t.RetentionDays):
		return errors.New("the period is locked: it only grows")
	}
	return nil
}

// HeldBy is a legal hold (§7.8).
type HeldBy struct {
	ID    string // the event_id of its entry
	Index int64  // of its entry
	// Ranges are what it covers already; Open that it covers what comes too, as far
	// as its filter says.
	Ranges []Range
	Open   bool
	// What follows is known where its entry was read.
	Handles    []string
	Filter     json.RawMessage // agent_id, trace_id, user_id; or an envelope
	Reason     json.RawMessage // a string, or an envelope's
	Since      string
	Until      string
	RecordedAt string
	Principal  string
}

// Sealed is what an AUDIT_SEAL says of the segment before it (§7.4).
type Sealed struct {
	Index   int64 // of the entry
	Segment Range
	// Newest is the latest time of the trail's clock while it was open.
	Newest time.Time
	// RetentionDays is the longest period in force while it was open; nil counts as
	// DefaultDays.
	RetentionDays *int64
	Line          []byte
}

// Days is how many days the segment is owed by what was in force while it was open.
func (s Sealed) Days() int64 { return owed(s.RetentionDays) }

// Pruned is a prune (§7.11).
type Pruned struct {
	Index  int64
	Range  Range
	Gaps   []Range
	At     time.Time
	Rule   string
	Proven bool
	Why    string // it is not
	By     string // the principal
}

// Erased is an erasure (§7.9).
type Erased struct {
	Index   int64
	Handles []string
}

// Scheduled is an erasure that waits for what stands against it (§7.9). Its JSON form
// is that of the restatement.
type Scheduled struct {
	ID    string `json:"schedule"` // the event_id of its entry
	Index int64  `json:"index"`    // of its entry
	At    string `json:"at"`       // when it was asked for
	By    string `json:"by"`       // the principal who did
	// Subject is the handle whose key seals Request: once it is erased, nothing is
	// scheduled any more. Handles are all that were found then.
	Subject string   `json:"subject"`
	Handles []string `json:"handles"`
	Request string   `json:"request"` // an envelope, of pointer /outputs/request in the entry ID
	// Blocked is what stood against it when it was last looked at.
	Blocked []Blocking `json:"blocked"`
}

// Blocking is what stands against an erasure: a hold, by its id, or a duty, by its
// basis, until it ends.
type Blocking struct {
	Kind    string  `json:"kind"`
	Name    string  `json:"name"`
	Entries int64   `json:"entries"`
	Until   *string `json:"until"` // null: nobody knows
}

// Ready tells whether what stood against it has ended at a time, as far as holds in
// force and the times that were told then say.
func (s Scheduled) Ready(at time.Time, holds []HeldBy) bool {
	for _, b := range s.Blocked {
		if b.Until == nil {
			if slices.ContainsFunc(holds, func(h HeldBy) bool { return h.ID == b.Name }) {
				return false
			}
		} else if until, ok := parseTime(*b.Until); ok && until.After(at) {
			return false
		}
	}
	return true
}

// NotValid is a line that has the form of a lifecycle entry and says nothing.
type NotValid struct {
	Index int64
	Type  string
	Why   string
}

// WasInForce is the period that a change of policy replaces, in days. Nothing is
// verified.
func WasInForce(line []byte) (days int64, ok bool) {
	s := saying{}
	var o struct{ Was *Terms }
	if !bytes.Contains(line, []byte(Policy)) || json.Unmarshal(line, &s) != nil || s.EventType != Policy || s.Action != "policy_set" ||
		json.Unmarshal(s.Outputs, &o) != nil || o.Was == nil {
		return 0, false
	}
	return owed(o.Was.RetentionDays), true
}

// ClaimedGaps are the gaps that a line names. Nothing is verified.
func ClaimedGaps(line []byte) []Range {
	var s struct {
		Outputs struct {
			Gaps []Range `json:"gaps"`
		} `json:"outputs"`
	}
	if json.Unmarshal(line, &s) != nil || !possible(s.Outputs.Gaps) {
		return nil
	}
	return s.Outputs.Gaps
}

// SealsUpTo is the end of the segment that a line seals, -1 where it seals none.
// Nothing is verified.
func SealsUpTo(line []byte) int64 {
	var s struct {
		EventType string `json:"event_type"`
		Outputs   struct {
			Segment Range `json:"segment"`
		} `json:"outputs"`
	}
	if json.Unmarshal(line, &s) != nil || s.EventType != Seal || !s.Outputs.Segment.possible() {
		return -1
	}
	return s.Outputs.Segment.End()
}
