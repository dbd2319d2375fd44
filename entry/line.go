package entry

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// DefaultMaxLine is the longest line in bytes, without its newline.
const DefaultMaxLine = 16 << 20

// MaxIdempotencyKey is the longest idempotency key in bytes.
const MaxIdempotencyKey = 256

const maxEventType = 128

// Stamp is what the trail adds to an event.
type Stamp struct {
	EventID    string
	RecordedAt time.Time
	// TraceID is used where the event has none.
	TraceID string
	// RecordedBy says who handed the event over; nil for the holder itself.
	RecordedBy []byte
	// Policy is the entry's policy member without zone_assumed; nil for none.
	Policy []byte
	// MaxLine is the longest line in bytes; 0 means DefaultMaxLine.
	MaxLine int
	// Trails allows the names that are the trail's own.
	Trails bool
}

// Member is one of an event's members whose values are the caller's words; and
// MemberPolicy.
type Member uint8

// The members, in their order in a line.
const (
	MemberAgentID Member = iota
	MemberTraceID
	MemberAction
	MemberInputs
	MemberOutputs
	MemberDuration
	MemberError
	MemberMetadata
	MemberIdempotencyKey
	MemberSpanID
	MemberParentSpanID
	MemberResource
	MemberOutcome
	MemberAuthority
	MemberPurpose
	MemberPolicy
)

var memberNames = [...]string{"agent_id", "trace_id", "action", "inputs", "outputs", "duration_ms", "error", "metadata", "idempotency_key",
	"span_id", "parent_span_id", "resource", "outcome", "authority", "purpose", "policy"}

// String is the member's name.
func (m Member) String() string { return memberNames[m] }

// Place is where the value of a member is in the text of an event or a line, as
// offsets from its first byte.
type Place struct {
	Member     Member
	Start, End int
}

// AppendLine appends the line of ev, without a newline. On an error dst is
// returned as it was, and the error is a *FieldError that holds a
// *SyntaxError where JSON text is at fault, or a *LineTooLongError.
func AppendLine(dst []byte, ev *Event, st *Stamp) ([]byte, error) {
	l := line{dst: dst, begin: len(dst)}
	err := l.line(ev, st)
	return l.dst, err
}

// AppendLinePlaces is AppendLine, and appends where the members are whose values
// are the caller's words, in their order, and policy.
func AppendLinePlaces(dst []byte, places []Place, ev *Event, st *Stamp) ([]byte, []Place, error) {
	l := line{dst: dst, begin: len(dst), told: true, places: places}
	err := l.line(ev, st)
	return l.dst, l.places, err
}

// line writes the line.
func (l *line) line(ev *Event, st *Stamp) error {
	if err := ev.check(st.Trails); err != nil {
		return err
	}
	l.members(ev, st)
	l.end()
	limit := st.MaxLine
	if limit == 0 {
		limit = DefaultMaxLine
	}
	if n := len(l.dst) - l.begin; l.err == nil && n > limit {
		l.err = &LineTooLongError{n, limit}
	}
	if l.err != nil {
		l.dst = l.dst[:l.begin]
	}
	return l.err
}

func (l *line) members(ev *Event, st *Stamp) {
	at := ev.Timestamp
	if at.IsZero() {
		at = st.RecordedAt
	}
	trace := ev.TraceID
	if trace == "" {
		trace = st.TraceID
	}
	l.dst = append(l.dst, `{"timestamp":`...)
	l.time("timestamp", at)
	l.dst = append(l.dst, `,"event_type":`...)
	l.dst = appendASCII(l.dst, ev.EventType)
	l.text(`,"agent_id":`, MemberAgentID, ev.AgentID)
	l.text(`,"trace_id":`, MemberTraceID, trace)
	l.text(`,"action":`, MemberAction, ev.Action)
	l.object(`,"inputs":`, MemberInputs, &ev.Inputs, true)
	l.object(`,"outputs":`, MemberOutputs, &ev.Outputs, true)
	l.dst = append(l.dst, `,"duration_ms":`...)
	l.duration(ev)
	if ev.Success == nil || *ev.Success {
		l.dst = append(l.dst, `,"success":true`...)
	} else {
		l.dst = append(l.dst, `,"success":false`...)
	}
	if ev.Error == nil {
		l.dst = append(l.dst, `,"error":null`...)
		l.place(MemberError, len(l.dst)-len("null"))
	} else {
		l.text(`,"error":`, MemberError, *ev.Error)
	}
	l.object(`,"metadata":`, MemberMetadata, &ev.Metadata, true)
	l.dst = append(l.dst, `,"event_id":`...)
	l.dst = appendASCII(l.dst, st.EventID)
	l.some(`,"idempotency_key":`, MemberIdempotencyKey, ev.IdempotencyKey)
	l.dst = append(l.dst, `,"recorded_at":`...)
	if ev.Timestamp.IsZero() { // the same as before
		from := l.begin + len(`{"timestamp":`)
		l.dst = append(l.dst, l.dst[from:from+len(TimeLayout)+len(`""`)]...)
	} else {
		l.time("recorded_at", st.RecordedAt)
	}
	if st.RecordedBy != nil {
		l.dst = append(l.dst, `,"recorded_by":`...)
		l.dst = append(l.dst, st.RecordedBy...)
	}
	l.some(`,"span_id":`, MemberSpanID, ev.SpanID)
	l.some(`,"parent_span_id":`, MemberParentSpanID, ev.ParentSpanID)
	l.object(`,"resource":`, MemberResource, &ev.Resource, false)
	l.some(`,"outcome":`, MemberOutcome, ev.Outcome)
	l.object(`,"authority":`, MemberAuthority, &ev.Authority, false)
	l.some(`,"purpose":`, MemberPurpose, ev.Purpose)
	l.policy(ev, st.Policy)
	l.dst = append(l.dst, '}')
}

// AppendEvent appends ev as JSON text that ParseEvent reads as the same event,
// without a newline: for handing it to another process. Absent members are left
// out, and an absent timestamp stays absent. Errors are those of AppendLine,
// but for the length of the line.
func AppendEvent(dst []byte, ev *Event) ([]byte, error) {
	l := line{dst: dst, begin: len(dst)}
	err := l.event(ev)
	return l.dst, err
}

// AppendEventPlaces is AppendEvent, and appends where the members are whose values
// are the caller's words, in their order.
func AppendEventPlaces(dst []byte, places []Place, ev *Event) ([]byte, []Place, error) {
	l := line{dst: dst, begin: len(dst), told: true, places: places}
	err := l.event(ev)
	return l.dst, l.places, err
}

// event writes the event.
func (l *line) event(ev *Event) error {
	if err := ev.check(false); err != nil {
		return err
	}
	l.dst = append(l.dst, '{')
	l.dst = append(l.dst, `"event_type":`...)
	l.dst = appendASCII(l.dst, ev.EventType)
	switch {
	case ev.zoneAssumed:
		l.dst = append(l.dst, `,"timestamp":"`...)
		l.dst = ev.Timestamp.In(time.Local).AppendFormat(l.dst, localLayouts[0])
		l.dst = append(l.dst, '"')
	case !ev.Timestamp.IsZero():
		l.dst = append(l.dst, `,"timestamp":`...)
		l.time("timestamp", ev.Timestamp)
	}
	l.text(`,"agent_id":`, MemberAgentID, ev.AgentID)
	l.some(`,"trace_id":`, MemberTraceID, ev.TraceID)
	l.text(`,"action":`, MemberAction, ev.Action)
	l.object(`,"inputs":`, MemberInputs, &ev.Inputs, false)
	l.object(`,"outputs":`, MemberOutputs, &ev.Outputs, false)
	if ev.DurationMS != 0 || ev.number != nil {
		l.dst = append(l.dst, `,"duration_ms":`...)
		l.duration(ev)
	}
	if ev.Success != nil && !*ev.Success {
		l.dst = append(l.dst, `,"success":false`...)
	}
	if ev.Error != nil {
		l.text(`,"error":`, MemberError, *ev.Error)
	}
	l.object(`,"metadata":`, MemberMetadata, &ev.Metadata, false)
	l.some(`,"idempotency_key":`, MemberIdempotencyKey, ev.IdempotencyKey)
	l.some(`,"span_id":`, MemberSpanID, ev.SpanID)
	l.some(`,"parent_span_id":`, MemberParentSpanID, ev.ParentSpanID)
	l.object(`,"resource":`, MemberResource, &ev.Resource, false)
	l.some(`,"outcome":`, MemberOutcome, ev.Outcome)
	l.object(`,"authority":`, MemberAuthority, &ev.Authority, false)
	l.some(`,"purpose":`, MemberPurpose, ev.Purpose)
	l.dst = append(l.dst, '}')
	l.end()
	if l.err != nil {
		l.dst = l.dst[:l.begin]
	}
	return l.err
}

// check tells what can be told without encoding.
func (ev *Event) check(trails bool) error {
	switch {
	case ev.EventType == "":
		return fieldError("event_type", "is required")
	case ev.AgentID == "":
		return fieldError("agent_id", "is required")
	case ev.Action == "":
		return fieldError("action", "is required")
	case len(ev.EventType) > maxEventType:
		return fieldError("event_type", "is longer than %d bytes", maxEventType)
	case !validEventType(ev.EventType):
		return fieldError("event_type", "must be upper-case letters, digits and underscores, beginning with a letter, such as TOOL_USE")
	case len(ev.IdempotencyKey) > MaxIdempotencyKey:
		return fieldError("idempotency_key", "is longer than %d bytes", MaxIdempotencyKey)
	}
	if !trails {
		if len(ev.EventType) >= len(TrailPrefix) && ev.EventType[:len(TrailPrefix)] == TrailPrefix {
			return fieldError("event_type", "names that begin with %s are the trail's own", TrailPrefix)
		}
		if ev.AgentID == TrailAgent {
			return fieldError("agent_id", "%s is the trail's own", TrailAgent)
		}
	}
	return nil
}

func validEventType(s string) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case 'A' <= c && c <= 'Z':
		case i > 0 && ('0' <= c && c <= '9' || c == '_'):
		default:
			return false
		}
	}
	return s != ""
}

// line is a line being written, from begin on; the first error sticks.
type line struct {
	dst    []byte
	begin  int
	told   bool // places are wanted
	places []Place
	s      *scanner // for all objects; nil before the first
	err    error
}

// end gives the scanner back.
func (l *line) end() {
	if l.s != nil {
		l.s.release()
		l.s = nil
	}
}

// place notes where a member's value is that ends here.
func (l *line) place(m Member, start int) {
	if l.told {
		l.places = append(l.places, Place{m, start - l.begin, len(l.dst) - l.begin})
	}
}

func (l *line) fail(field string, err error) {
	if l.err == nil {
		l.err = &FieldError{field, err}
	}
}

var errUTF8 = errors.New("is not valid UTF-8")

func (l *line) text(prefix string, m Member, s string) {
	l.dst = append(l.dst, prefix...)
	start := len(l.dst)
	var ok bool
	if l.dst, ok = AppendString(l.dst, s); !ok {
		l.fail(m.String(), errUTF8)
	}
	l.place(m, start)
}

func (l *line) some(prefix string, m Member, s string) {
	if s != "" {
		l.text(prefix, m, s)
	}
}

func (l *line) time(field string, t time.Time) {
	var ok bool
	l.dst = append(l.dst, '"')
	if l.dst, ok = appendTime(l.dst, t.UTC()); !ok {
		l.fail(field, errors.New("the year is outside 0000 to 9999"))
	}
	l.dst = append(l.dst, '"')
}

func (l *line) duration(ev *Event) {
	start, d := len(l.dst), ev.DurationMS
	switch {
	case ev.number != nil && isNumber(ev.number, d):
		l.dst = append(l.dst, ev.number...)
	case math.IsNaN(d) || math.IsInf(d, 0) || d < 0:
		l.fail("duration_ms", errors.New("must be a number of milliseconds, not negative"))
	default:
		l.dst = appendFloat(l.dst, d)
	}
	l.place(MemberDuration, start)
}

// isNumber tells whether a JSON number is still what is meant.
func isNumber(text []byte, f float64) bool {
	was, err := strconv.ParseFloat(bytesAsString(text), 64)
	return err == nil && was == f
}

// object writes a member that is an object; anything else is wrapped. An
// absent one is {} or, unless required, left out.
func (l *line) object(prefix string, m Member, o *Object, required bool) {
	if o.IsZero() && !required {
		return
	}
	l.dst = append(l.dst, prefix...)
	start := len(l.dst)
	var err error
	switch {
	case o.IsZero():
		l.dst = append(l.dst, '{', '}')
	case o.checked:
		l.dst = append(l.dst, o.raw...)
	case len(o.raw) > 0 && o.raw[0] == '{':
		if l.s == nil {
			l.s = scanners.Get().(*scanner)
		}
		if l.dst, err = l.s.compact(l.dst, o.raw, 1); err != nil {
			l.fail(m.String(), o.where(err))
		}
	default:
		if l.dst, err = appendObject(l.dst, *o); err != nil {
			l.fail(m.String(), err)
		}
	}
	l.place(m, start)
}

func appendObject(dst []byte, o Object) ([]byte, error) {
	begin := len(dst)
	dst, err := o.appendValue(dst, 1)
	if err != nil {
		return dst[:begin], err
	}
	if dst[begin] == '{' {
		return dst, nil
	}
	// A value that is no object, seldom: written again one level deeper, so
	// that the limit on nesting counts the wrapping.
	if string(dst[begin:]) == "null" {
		return append(dst[:begin], '{', '}'), nil
	}
	dst = append(dst[:begin], `{"value":`...)
	if dst, err = o.appendValue(dst, 2); err != nil {
		return dst[:begin], err
	}
	return append(dst, '}'), nil
}

func (l *line) policy(ev *Event, notes []byte) {
	if !ev.zoneAssumed && len(ev.omitted) == 0 && len(notes) <= 2 {
		return
	}
	l.dst = append(l.dst, `,"policy":`...)
	start := len(l.dst)
	next := byte('{')
	add := func(text string) {
		l.dst = append(append(l.dst, next), text...)
		next = ','
	}
	if ev.zoneAssumed {
		add(`"zone_assumed":["/timestamp"]`)
	}
	if len(ev.omitted) > 0 {
		add(`"omitted":["/` + strings.Join(ev.omitted, `","/`) + `"]`)
	}
	if len(notes) > 2 {
		add(string(notes[1 : len(notes)-1]))
	}
	l.dst = append(l.dst, '}')
	l.place(MemberPolicy, start)
}

// appendValue appends whatever the object holds, checked and in our spelling.
func (o Object) appendValue(dst []byte, depth int) ([]byte, error) {
	if o.raw != nil {
		out, err := AppendCompact(dst, o.raw, depth)
		return out, o.where(err)
	}
	return appendAny(dst, o.value, depth)
}

// where says of an error in the object's text where in all of the text it is.
func (o Object) where(err error) error {
	if at, ok := err.(*SyntaxError); ok && o.src != nil {
		return syntaxError(o.src, offsetIn(o.src, o.raw)+at.Offset, at.Reason)
	}
	return err
}

// appendAny appends a Go value. What programs hand over most is written
// without reflection; the rest goes through encoding/json.
func appendAny(dst []byte, v any, depth int) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return append(dst, "null"...), nil
	case string:
		out, ok := AppendString(dst, v)
		if !ok {
			return dst, errUTF8
		}
		return out, nil
	case bool:
		return strconv.AppendBool(dst, v), nil
	case int:
		return strconv.AppendInt(dst, int64(v), 10), nil
	case int64:
		return strconv.AppendInt(dst, v, 10), nil
	case int32:
		return strconv.AppendInt(dst, int64(v), 10), nil
	case uint64:
		return strconv.AppendUint(dst, v, 10), nil
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return dst, errors.New("a number is not finite")
		}
		return appendFloat(dst, v), nil
	case map[string]any:
		return appendMap(dst, v, depth+1)
	case []any:
		if depth+1 > MaxDepth {
			return dst, errors.New("nested deeper than 128 levels")
		}
		dst = append(dst, '[')
		var err error
		for i, e := range v {
			if i > 0 {
				dst = append(dst, ',')
			}
			if dst, err = appendAny(dst, e, depth+1); err != nil {
				return dst, err
			}
		}
		return append(dst, ']'), nil
	case Object:
		if v.IsZero() {
			return append(dst, "{}"...), nil
		}
		return v.appendValue(dst, depth)
	case json.RawMessage:
		return AppendCompact(dst, v, depth)
	}
	b, err := json.Marshal(v)
	if err != nil {
		return dst, errors.New("a value can't be written as JSON")
	}
	return AppendCompact(dst, b, depth)
}

func appendMap(dst []byte, m map[string]any, depth int) ([]byte, error) {
	if depth > MaxDepth {
		return dst, errors.New("nested deeper than 128 levels")
	}
	var few [16]string
	names := few[:0]
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	dst = append(dst, '{')
	for i, name := range names {
		if i > 0 {
			dst = append(dst, ',')
		}
		var ok bool
		if dst, ok = AppendString(dst, name); !ok {
			return dst, errors.New("a member name is not valid UTF-8")
		}
		dst = append(dst, ':')
		var err error
		if dst, err = appendAny(dst, m[name], depth); err != nil {
			return dst, err
		}
	}
	return append(dst, '}'), nil
}

// appendFloat writes a float as encoding/json does.
func appendFloat(dst []byte, f float64) []byte {
	if f == math.Trunc(f) && math.Abs(f) < 1<<53 {
		return strconv.AppendInt(dst, int64(f), 10)
	}
	// A few decimals, as measured durations have them: with at most 15 digits there
	// is one decimal of a float, and this is it.
	if n := math.Round(f * 1000); 1 <= n && n < 1e12 && n/1000 == f {
		i := int64(n)
		dst = strconv.AppendInt(dst, i/1000, 10)
		dst = append(dst, '.', byte('0'+i/100%10), byte('0'+i/10%10), byte('0'+i%10))
		return bytes.TrimRight(dst, "0")
	}
	format := byte('f')
	if a := math.Abs(f); a < 1e-6 || a >= 1e21 {
		format = 'e'
	}
	return strconv.AppendFloat(dst, f, format, -1, 64)
}

func appendInt(dst []byte, n int64) []byte { return strconv.AppendInt(dst, n, 10) }

// appendASCII quotes text that is known to need no escape.
func appendASCII(dst []byte, s string) []byte {
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"')
}

func appendHex(dst, b []byte) []byte {
	for _, c := range b {
		dst = append(dst, hexDigits[c>>4], hexDigits[c&15])
	}
	return dst
}

// Digest is the digest of a line without its newline.
func Digest(line []byte) [sha256.Size]byte { return sha256.Sum256(line) }
