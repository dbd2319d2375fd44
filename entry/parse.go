package entry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"time"
)

// Parse reads a line that is already recorded, ours or anybody else's. It
// keeps line without copying it. It is tolerant: members that are unknown or
// of another type than documented are passed over, and what is missing is
// zero. An error, always a *SyntaxError, means that the line is no JSON
// object; the entry then has its bytes only.
func Parse(line []byte) (Entry, error) {
	e := Entry{line: line}
	s := scanners.Get().(*scanner)
	defer s.release()
	s.src, s.pos = line, 0
	if err := s.members(e.member); err != nil {
		return Entry{line: line}, err
	}
	return e, nil
}

// ParseView is Parse of what a reader sees of a line that is stored otherwise. It
// keeps both without copying them.
func ParseView(view, stored []byte) (Entry, error) {
	e, err := Parse(view)
	e.stored = stored
	return e, err
}

// Times reads a line's timestamp and recorded_at as Parse does, in two thirds
// of its time.
func Times(line []byte) (timestamp, recordedAt time.Time, err error) {
	s := scanners.Get().(*scanner)
	defer s.release()
	s.src, s.pos = line, 0
	err = s.members(func(name, v []byte) {
		switch string(name) {
		case "timestamp":
			asTime(v, &timestamp)
		case "recorded_at":
			asTime(v, &recordedAt)
		}
	})
	if err != nil {
		return time.Time{}, time.Time{}, err
	}
	return timestamp, recordedAt, nil
}

// byteOrderMark is U+FEFF, which no text in UTF-8 needs. RFC 8259 §8.1 forbids
// writing it and leaves reading it to the parser; a line of a trail has none.
const byteOrderMark = "\ufeff"

// members calls f for each member of the object that s.src must be. A name
// given to f is unescaped, and valid during the call only; a value is checked
// only for where it ends.
func (s *scanner) members(f func(name, value []byte)) error {
	s.space()
	if s.pos == len(s.src) || s.src[s.pos] != '{' {
		if bytes.HasPrefix(s.src[s.pos:], []byte(byteOrderMark)) {
			return s.fail("a byte order mark stands before the JSON object")
		}
		return s.fail("this is not a JSON object")
	}
	s.pos++
	s.space()
	if s.pos < len(s.src) && s.src[s.pos] == '}' {
		s.pos++
	} else {
		for more := true; more; {
			s.space()
			if s.pos == len(s.src) || s.src[s.pos] != '"' {
				return s.fail("a member name in double quotes is needed here")
			}
			start := s.pos
			if err := s.skipText(); err != nil {
				return err
			}
			name := unquote(s.src[start:s.pos])
			s.space()
			if s.pos == len(s.src) || s.src[s.pos] != ':' {
				return s.fail("a colon is needed after the member name")
			}
			s.pos++
			s.space()
			start = s.pos
			if err := s.skip(1); err != nil {
				return err
			}
			f(name, s.src[start:s.pos])
			s.space()
			if s.pos == len(s.src) {
				return s.fail("the text ends inside an object")
			}
			switch s.src[s.pos] {
			case ',':
			case '}':
				more = false
			default:
				return s.fail("a comma or } is needed here")
			}
			s.pos++
		}
	}
	s.space()
	if s.pos != len(s.src) {
		return s.fail("more text after the JSON value")
	}
	return nil
}

// skip passes over one value, checking its grammar. Unlike value it writes
// nothing and accepts duplicate names, lone surrogates and any depth that the
// stack of 10,000 allows: others wrote these lines.
func (s *scanner) skip(depth int) error {
	if s.pos == len(s.src) {
		return s.fail("the text ends where a value is needed")
	}
	switch c := s.src[s.pos]; c {
	case '"':
		return s.skipText()
	case '{', '[':
		return s.skipNested(depth)
	case 't':
		return s.skipWord("true")
	case 'f':
		return s.skipWord("false")
	case 'n':
		return s.skipWord("null")
	default:
		if c != '-' && (c < '0' || c > '9') {
			return s.fail("this is not the beginning of a JSON value")
		}
		end, reason := scanNumber(s.src, s.pos)
		s.pos = end
		if reason != "" {
			return s.fail(reason)
		}
		return nil
	}
}

const maxReadDepth = 10_000

func (s *scanner) skipWord(w string) error {
	if len(s.src)-s.pos < len(w) || string(s.src[s.pos:s.pos+len(w)]) != w {
		return s.fail("this is not the beginning of a JSON value")
	}
	s.pos += len(w)
	return nil
}

func (s *scanner) skipNested(depth int) error {
	if depth > maxReadDepth {
		return s.fail("nested deeper than 10000 levels")
	}
	object := s.src[s.pos] == '{'
	closing := s.src[s.pos] + 2 // ']' follows '[' and '}' follows '{' by two
	s.pos++
	s.space()
	if s.pos < len(s.src) && s.src[s.pos] == closing {
		s.pos++
		return nil
	}
	for {
		s.space()
		if object {
			if s.pos == len(s.src) || s.src[s.pos] != '"' {
				return s.fail("a member name in double quotes is needed here")
			}
			if err := s.skipText(); err != nil {
				return err
			}
			s.space()
			if s.pos == len(s.src) || s.src[s.pos] != ':' {
				return s.fail("a colon is needed after the member name")
			}
			s.pos++
			s.space()
		}
		if err := s.skip(depth + 1); err != nil {
			return err
		}
		s.space()
		switch {
		case s.pos == len(s.src):
			return s.fail("the text ends inside an object or array")
		case s.src[s.pos] == ',':
			s.pos++
		case s.src[s.pos] == closing:
			s.pos++
			return nil
		default:
			return s.fail("a comma or a closing bracket is needed here")
		}
	}
}

func (s *scanner) skipText() error {
	src := s.src
	i := s.pos + 1
	for {
		i += plainPrefix(src[i:])
		if i == len(src) {
			s.pos = i
			return s.fail("the text ends inside a string")
		}
		switch c := src[i]; {
		case c == '"':
			s.pos = i + 1
			return nil
		case c == '\\':
			n, _, reason := unescape(src[i:])
			switch {
			case reason == "lone surrogate":
				n = 6
			case reason != "":
				s.pos = i
				return s.fail(reason)
			}
			i += n
		case c < 0x20:
			s.pos = i
			return s.fail("a control character inside a string must be escaped")
		default:
			n := validRune(src[i:])
			if n == 0 {
				s.pos = i
				return s.fail("this is not valid UTF-8")
			}
			i += n
		}
	}
}

// unquote gives the text of a string that skipText passed. Without an escape
// it is a part of quoted itself.
func unquote(quoted []byte) []byte {
	b := quoted[1 : len(quoted)-1]
	i := bytes.IndexByte(b, '\\')
	if i < 0 {
		return b
	}
	out := append(make([]byte, 0, len(b)), b[:i]...)
	for i < len(b) {
		if b[i] != '\\' {
			out = append(out, b[i])
			i++
			continue
		}
		n, r, reason := unescape(b[i:])
		if reason != "" { // a lone surrogate, as encoding/json reads it
			n, r = 6, '\uFFFD'
		}
		out = appendPlainRune(out, r)
		i += n
	}
	return out
}

func appendPlainRune(dst []byte, r rune) []byte {
	return append(dst, string(r)...)
}

func asText(v []byte) (string, bool) {
	if len(v) < 2 || v[0] != '"' {
		return "", false
	}
	return bytesAsString(unquote(v)), true
}

// asTime sets to where v is a time.
func asTime(v []byte, to *time.Time) {
	if s, ok := asText(v); ok {
		if t, _, err := ParseTime(s); err == nil {
			*to = t
		}
	}
}

func (e *Entry) member(name, v []byte) {
	text := func(to *string) {
		if s, ok := asText(v); ok {
			*to = s
		}
	}
	object := func(to *Object) {
		if v[0] == '{' {
			*to = Object{raw: v}
		}
	}
	switch string(name) {
	case "timestamp":
		asTime(v, &e.Timestamp)
	case "event_type":
		text(&e.EventType)
	case "agent_id":
		text(&e.AgentID)
	case "trace_id":
		text(&e.TraceID)
	case "action":
		text(&e.Action)
	case "inputs":
		object(&e.Inputs)
	case "outputs":
		object(&e.Outputs)
	case "duration_ms":
		if f, err := strconv.ParseFloat(bytesAsString(v), 64); err == nil {
			e.DurationMS = f
		}
	case "success":
		e.Success = string(v) == "true"
	case "error":
		if s, ok := asText(v); ok {
			e.Error = &s
		}
	case "metadata":
		object(&e.Metadata)
	case "event_id":
		text(&e.EventID)
	case "idempotency_key":
		text(&e.IdempotencyKey)
	case "recorded_at":
		asTime(v, &e.RecordedAt)
	case "recorded_by":
		object(&e.RecordedBy)
	case "span_id":
		text(&e.SpanID)
	case "parent_span_id":
		text(&e.ParentSpanID)
	case "resource":
		object(&e.Resource)
	case "outcome":
		text(&e.Outcome)
	case "authority":
		object(&e.Authority)
	case "purpose":
		text(&e.Purpose)
	case "policy":
		object(&e.Policy)
	}
}

// setByTrail are the members that only the trail writes.
var setByTrail = map[string]bool{
	"event_id": true, "recorded_at": true, "recorded_by": true, "policy": true,
}

// ParseEvent reads one event from JSON text, such as a line on standard
// input. It keeps b without copying it. It is strict: an unknown member, a
// member of the wrong type, one that only the trail writes and a duplicate
// are errors. The objects inside are checked when the event is recorded. The
// error is a *SyntaxError or a *FieldError.
func ParseEvent(b []byte) (Event, error) {
	var ev Event
	var firstErr error
	var names [32][]byte // more than an event has members: any other name is refused
	seen := names[:0]
	s := scanners.Get().(*scanner)
	defer s.release()
	s.src, s.pos = b, 0
	err := s.members(func(name, v []byte) {
		if firstErr != nil {
			return
		}
		for _, before := range seen {
			if bytes.Equal(before, name) {
				firstErr = fieldError(knownName(string(name)), "occurs twice")
				return
			}
		}
		seen = append(seen, name)
		s.member = jsonMember{v, b}
		firstErr = ev.set(memberName(name), &s.member)
	})
	switch {
	case err != nil:
		return Event{}, err
	case firstErr != nil:
		return Event{}, firstErr
	}
	return ev, nil
}

// EventFromMap makes an event of a map with the documented names: strings,
// numbers and bools as they are, a time.Time or text for timestamp, any value
// for the objects. It is as strict as ParseEvent; nil is absent.
func EventFromMap(m map[string]any) (Event, error) {
	var ev Event
	for name, v := range m {
		if err := ev.set(name, goMember{v}); err != nil {
			return Event{}, err
		}
	}
	return ev, nil
}

// member is the value of one member of an event on its way in.
type member interface {
	isNull() bool
	text() (string, bool, error)
	boolean() (value, ok bool)
	number() (f float64, digits []byte, ok bool)
	object() Object
	moment() (t time.Time, ok bool)
}

// members are the names that an event can have.
var members = map[string]string{}

func init() {
	for _, name := range []string{"timestamp", "event_type", "agent_id", "trace_id", "action", "inputs", "outputs", "duration_ms",
		"success", "error", "metadata", "idempotency_key", "span_id", "parent_span_id", "resource", "outcome", "authority", "purpose"} {
		members[name] = name
	}
}

// memberName is a name as a string, without a copy where it is ours.
func memberName(name []byte) string {
	if known, ok := members[string(name)]; ok {
		return known
	}
	return string(name)
}

// knownName hides a name that is not ours: it may be anything.
func knownName(name string) string {
	if _, ours := members[name]; ours || setByTrail[name] {
		return name
	}
	for i := range len(name) {
		if c := name[i]; c != '_' && (c < 'a' || c > 'z') || i >= 32 {
			return "member"
		}
	}
	return strconv.Quote(name)
}

func (ev *Event) set(name string, v member) error {
	if v.isNull() && (members[name] != "" || setByTrail[name]) {
		return nil
	}
	text := func(to *string) error {
		s, ok, err := v.text()
		if err != nil {
			return &FieldError{name, err}
		}
		if !ok {
			return fieldError(name, "must be a string")
		}
		*to = s
		return nil
	}
	object := func(to *Object) error {
		*to = v.object()
		return nil
	}
	switch name {
	case "timestamp":
		if t, ok := v.moment(); ok {
			ev.Timestamp = t
			return nil
		}
		var s string
		if err := text(&s); err != nil {
			return err
		}
		t, local, err := ParseTime(s)
		if err != nil {
			return &FieldError{name, err}
		}
		ev.Timestamp, ev.zoneAssumed = t, local
	case "event_type":
		return text(&ev.EventType)
	case "agent_id":
		return text(&ev.AgentID)
	case "trace_id":
		return text(&ev.TraceID)
	case "action":
		return text(&ev.Action)
	case "inputs":
		return object(&ev.Inputs)
	case "outputs":
		return object(&ev.Outputs)
	case "duration_ms":
		f, digits, ok := v.number()
		if !ok || math.IsNaN(f) || f < 0 {
			return fieldError(name, "must be a number of milliseconds, not negative")
		}
		if math.IsInf(f, 1) {
			// No reader could show or add it up: a binary64 ends before it.
			return fieldError(name, "is more than 1.8e308, the greatest number that readers hold")
		}
		ev.DurationMS, ev.number = f, digits
	case "success":
		b, ok := v.boolean()
		if !ok {
			return fieldError(name, "must be true or false")
		}
		ev.Success = &b
	case "error":
		var s string
		if err := text(&s); err != nil {
			return fieldError(name, "must be a string or null")
		}
		ev.Error = &s
	case "metadata":
		return object(&ev.Metadata)
	case "idempotency_key":
		return text(&ev.IdempotencyKey)
	case "span_id":
		return text(&ev.SpanID)
	case "parent_span_id":
		return text(&ev.ParentSpanID)
	case "resource":
		return object(&ev.Resource)
	case "outcome":
		return text(&ev.Outcome)
	case "authority":
		return object(&ev.Authority)
	case "purpose":
		return text(&ev.Purpose)
	default:
		if setByTrail[name] {
			return fieldError(name, "is set by the trail and can't be given")
		}
		return fieldError(knownName(name), "is not a member of an event; put it under metadata, inputs or outputs")
	}
	return nil
}

// jsonMember is a value in JSON text.
type jsonMember struct{ v, src []byte }

func (m *jsonMember) isNull() bool { return string(m.v) == "null" }

// text checks the string as a line would: a lone surrogate is no text.
func (m *jsonMember) text() (string, bool, error) {
	if m.v[0] != '"' {
		return "", false, nil
	}
	if bytes.IndexByte(m.v, '\\') < 0 {
		return bytesAsString(m.v[1 : len(m.v)-1]), true, nil
	}
	for i := 0; i < len(m.v); i++ {
		if m.v[i] != '\\' {
			continue
		}
		n, _, reason := unescape(m.v[i:])
		if reason != "" {
			return "", true, syntaxError(m.src, offsetIn(m.src, m.v)+i, reason)
		}
		i += n - 1
	}
	return bytesAsString(unquote(m.v)), true, nil
}

func (m *jsonMember) boolean() (value, ok bool) {
	s := string(m.v)
	return s == "true", s == "true" || s == "false"
}

func (m *jsonMember) number() (float64, []byte, bool) {
	if c := m.v[0]; c != '-' && (c < '0' || c > '9') {
		return 0, nil, false
	}
	f, _ := strconv.ParseFloat(bytesAsString(m.v), 64) // out of range is ±Inf
	return f, m.v, true
}

func (m *jsonMember) object() Object            { return Object{raw: m.v, src: m.src} }
func (m *jsonMember) moment() (time.Time, bool) { return time.Time{}, false }

// offsetIn is where part, a subslice of whole, begins in it.
func offsetIn(whole, part []byte) int { return cap(whole) - cap(part) }

// goMember is a Go value.
type goMember struct{ v any }

func (m goMember) isNull() bool { return m.v == nil }

func (m goMember) text() (string, bool, error) {
	switch v := m.v.(type) {
	case string:
		return v, true, nil
	case *string:
		if v == nil {
			return "", true, nil
		}
		return *v, true, nil
	case fmt.Stringer:
		return v.String(), true, nil
	case error:
		return v.Error(), true, nil
	}
	return "", false, nil
}

func (m goMember) boolean() (value, ok bool) {
	b, ok := m.v.(bool)
	return b, ok
}

func (m goMember) number() (float64, []byte, bool) {
	switch v := m.v.(type) {
	case float64:
		return v, nil, true
	case float32:
		return float64(v), nil, true
	case int:
		return float64(v), nil, true
	case int64:
		return float64(v), nil, true
	case int32:
		return float64(v), nil, true
	case time.Duration:
		return float64(v) / float64(time.Millisecond), nil, true
	case json.Number:
		if end, reason := scanNumber([]byte(v), 0); reason != "" || end != len(v) {
			return 0, nil, false
		}
		f, _ := v.Float64()
		return f, []byte(v), true
	}
	return 0, nil, false
}

func (m goMember) object() Object { return Of(m.v) }

func (m goMember) moment() (time.Time, bool) {
	t, ok := m.v.(time.Time)
	return t, ok
}
