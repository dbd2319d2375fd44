package entry

import (
	"crypto/sha256"
	"encoding/json"
	"time"
)

// Names that are the trail's own: no caller can record them.
const (
	// TrailAgent is the agent_id of the trail's own entries.
	TrailAgent = "kaizen-audit"
	// TrailPrefix begins the event_type of the trail's own entries.
	TrailPrefix = "AUDIT_"
)

// Documented event types. A caller may use its own: [A-Z][A-Z0-9_]*.
const (
	AgentLoopStart   = "AGENT_LOOP_START"
	AgentLoopEnd     = "AGENT_LOOP_END"
	ToolUse          = "TOOL_USE"
	LLMCall          = "LLM_CALL"
	MemoryLoad       = "MEMORY_LOAD"
	MemorySave       = "MEMORY_SAVE"
	MemoryDelete     = "MEMORY_DELETE"
	PermissionCheck  = "PERMISSION_CHECK"
	SpecialistInvoke = "SPECIALIST_INVOKE"
	PlanGeneration   = "PLAN_GENERATION"
	CheckpointSave   = "CHECKPOINT_SAVE"
	Interrupt        = "INTERRUPT"
	PHIAccess        = "PHI_ACCESS"
	CHDAccess        = "CHD_ACCESS"
	DataAccess       = "DATA_ACCESS"
	ConfigChange     = "CONFIG_CHANGE"
)

// Event is what a caller hands over to be recorded. EventType, AgentID and
// Action are required; every other field has the documented default.
type Event struct {
	// Timestamp is when it happened; zero means now. Stored in UTC, cut to
	// milliseconds.
	Timestamp time.Time
	EventType string
	AgentID   string
	// TraceID names the run or user journey; empty means a new one.
	TraceID string
	Action  string
	// Inputs and Outputs are stored whole; a value that is not an object is
	// stored as {"value":…}.
	Inputs, Outputs Object
	// DurationMS is in milliseconds, not negative.
	DurationMS float64
	// Success is true when nil: use new(false) for a failure.
	Success *bool
	// Error is null when nil.
	Error    *string
	Metadata Object

	// IdempotencyKey makes a retry safe: the same key with the same event
	// gives the first receipt again. At most 256 bytes.
	IdempotencyKey string
	SpanID         string
	ParentSpanID   string
	// Resource is what was acted on, such as {"type":"patient","id":"P12345"}.
	Resource Object
	// Outcome says more than Success: denied, cancelled, timeout, unknown.
	Outcome string
	// Authority is what allowed it: rule or approver, method, on whose behalf.
	Authority Object
	// Purpose is why the data is processed (GDPR Art. 5(1)(b)).
	Purpose string

	number      []byte   // the digits of DurationMS as they came, if from JSON
	zoneAssumed bool     // the timestamp came without a zone
	omitted     []string // the members that KeepFact replaced
	notes       []byte   // what a policy did before, as members of policy
}

// Entry is an event as stored. Its strings and objects share the memory of
// its line, which must not be changed.
type Entry struct {
	// Index is the position in the trail, from 0. It is not in the line.
	Index int64

	Timestamp       time.Time
	EventType       string
	AgentID         string
	TraceID         string
	Action          string
	Inputs, Outputs Object
	DurationMS      float64
	Success         bool
	Error           *string
	Metadata        Object

	EventID        string
	IdempotencyKey string
	RecordedAt     time.Time
	RecordedBy     Object
	SpanID         string
	ParentSpanID   string
	Resource       Object
	Outcome        string
	Authority      Object
	Purpose        string
	Policy         Object

	line   []byte
	stored []byte // where it is not line
}

// Line returns the entry's bytes exactly as recorded, without the newline.
// The caller must not change them.
func (e Entry) Line() []byte {
	if e.stored != nil {
		return e.stored
	}
	return e.line
}

// View returns the line as its reader may see it: Line, and where that is sealed,
// the line with what could be opened put back. The caller must not change it.
func (e Entry) View() []byte { return e.line }

// Digest returns the line digest: SHA-256 over Line.
func (e Entry) Digest() [32]byte { return sha256.Sum256(e.Line()) }

// IsTrails reports whether the entry claims to be one of the trail's own.
func (e Entry) IsTrails() bool { return e.AgentID == TrailAgent }

// IsImported reports whether the entry was recorded elsewhere first.
func (e Entry) IsImported() bool { return e.RecordedBy.Text("via") == "import" }

// MarshalJSON returns View, so that an entry is shown as it was recorded.
func (e Entry) MarshalJSON() ([]byte, error) {
	if e.line == nil {
		return []byte("null"), nil
	}
	return e.line, nil
}

// Receipt says that an event was acknowledged in the durability that was
// chosen. It is no evidence by itself: a proof is.
type Receipt struct {
	// Index is the entry's position in the trail, from 0.
	Index int64
	// EventID is the entry's UUIDv7.
	EventID string
	// Digest is the line digest.
	Digest [32]byte
	// Durable says that the line is on disk.
	Durable bool
}

// MarshalJSON gives {"index":0,"event_id":"…","digest":"<hex>"}, with
// "durable":false added when the line is not on disk yet.
func (r Receipt) MarshalJSON() ([]byte, error) { return r.AppendJSON(nil), nil }

// AppendJSON appends the receipt as MarshalJSON gives it.
func (r Receipt) AppendJSON(dst []byte) []byte {
	dst = append(dst, `{"index":`...)
	dst = appendInt(dst, r.Index)
	dst = append(dst, `,"event_id":`...)
	dst = appendASCII(dst, r.EventID)
	dst = append(dst, `,"digest":"`...)
	dst = appendHex(dst, r.Digest[:])
	dst = append(dst, '"')
	if !r.Durable {
		dst = append(dst, `,"durable":false`...)
	}
	return append(dst, '}')
}

// Object is a JSON object (or, on the way in, any JSON value) that keeps the
// order of its members and the digits of its numbers. The zero Object is
// absent and is stored as {}.
type Object struct {
	raw     []byte
	src     []byte // the text that raw is a part of, for the position in errors
	value   any
	checked bool // raw is an object's text, checked and in our spelling
}

// Raw is the JSON text b, without copying it; b must not change while the
// object is in use. It is checked when the event is recorded.
func Raw(b []byte) Object { return Object{raw: b} }

// Of is any Go value: a map[string]any, or what encoding/json can marshal.
// Members of a map are stored in the order of their names.
func Of(v any) Object {
	switch v := v.(type) {
	case nil:
		return Object{}
	case Object:
		return v
	case json.RawMessage:
		return Object{raw: v}
	}
	return Object{value: v}
}

// IsZero reports whether the object is absent.
func (o Object) IsZero() bool { return o.raw == nil && o.value == nil }

// Cursor is where a query that stopped at this entry goes on: give it as
// Query.Cursor, with the same order.
func (e Entry) Cursor() string { return string(appendInt(nil, e.Index)) }
