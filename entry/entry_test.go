package entry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

var testStamp = Stamp{
	EventID: "01a206d7-e571-79eb-a84a-6a407a3be418", RecordedAt: time.Date(2026, 1, 2, 3, 4, 5, 678_900_000, time.UTC),
	TraceID: "0af7651916cd43dd8448eb211c80319c",
}

func minimal() Event { return Event{EventType: ToolUse, AgentID: "a", Action: "x"} }

// The line of a minimal event: every documented key, in order, with its
// default.
func TestMinimalLine(t *testing.T) {
	ev := minimal()
	line, err := AppendLine(nil, &ev, &testStamp)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"timestamp":"2026-01-02T03:04:05.678Z","event_type":"TOOL_USE","agent_id":"a","trace_id":"0af7651916cd43dd8448eb211c80319c",` +
		`"action":"x","inputs":{},"outputs":{},"duration_ms":0,"success":true,"error":null,"metadata":{},` +
		`"event_id":"01a206d7-e571-79eb-a84a-6a407a3be418","recorded_at":"2026-01-02T03:04:05.678Z"}`
	if string(line) != want {
		t.Errorf("got  %s\nwant %s", line, want)
	}
}

// Every member is written in the documented place and read back.
func TestFullLine(t *testing.T) {
	text := "line\nbreak \"quoted\" \\ \x00 \u2028 é"
	ev := Event{
		Timestamp: time.Date(2025, 10, 26, 12, 53, 45, 123_999_999, time.FixedZone("", 7200)), EventType: "X9_Y", AgentID: text, TraceID: text,
		Action: text, Inputs: Raw([]byte(` { "b" : 1.50 , "a" : [ 1e400 , "\u00e9\/" ] } `)), Outputs: Of([]any{1, "two", nil, true}),
		DurationMS: 45.25, Success: new(false), Error: &text, Metadata: Of(map[string]any{"z": 1, "a": map[string]any{"n": json.Number("1.10")}}),
		IdempotencyKey: "k", SpanID: "s", ParentSpanID: "p", Resource: Raw([]byte(`{"type":"patient","id":"P12345"}`)), Outcome: "denied",
		Authority: Of(map[string]any{"rule": "r"}), Purpose: "billing",
	}
	st := testStamp
	st.RecordedBy = []byte(`{"via":"spool"}`)
	line, err := AppendLine([]byte("before"), &ev, &st)
	if err != nil {
		t.Fatal(err)
	}
	line = bytes.TrimPrefix(line, []byte("before"))
	for _, want := range []string{
		`{"timestamp":"2025-10-26T10:53:45.123Z","event_type":"X9_Y"`, `"inputs":{"b":1.50,"a":[1e400,"é/"]},"outputs":{"value":[1,"two",null,true]}`,
		`"duration_ms":45.25,"success":false,"error":"line\nbreak \"quoted\" \\ \u0000 ` + "\u2028" + ` é","metadata":{"a":{"n":1.10},"z":1},"event_id":`,
		`,"idempotency_key":"k","recorded_at":"2026-01-02T03:04:05.678Z","recorded_by":{"via":"spool"},"span_id":"s","parent_span_id":"p",` +
			`"resource":{"type":"patient","id":"P12345"},"outcome":"denied","authority":{"rule":"r"},"purpose":"billing"}`,
	} {
		if !bytes.Contains(line, []byte(want)) {
			t.Errorf("%s\nlacks %s", line, want)
		}
	}
	if bytes.ContainsAny(line, "\n\x00") {
		t.Error("a newline or NUL in the line")
	}
	e, err := Parse(line)
	if err != nil {
		t.Fatal(err)
	}
	if e.AgentID != text || *e.Error != text || e.Success || e.DurationMS != 45.25 || e.Purpose != "billing" || e.Resource.Text("id") != "P12345" ||
		!e.Timestamp.Equal(ev.Timestamp.Truncate(time.Millisecond)) || e.RecordedBy.Text("via") != "spool" || e.IdempotencyKey != "k" {
		t.Errorf("read back: %+v", e)
	}
}

func TestRefused(t *testing.T) {
	bad := "bad \xff"
	for name, c := range map[string]struct {
		change func(*Event)
		want   string
	}{
		"no type":            {func(e *Event) { e.EventType = "" }, "event_type: is required"},
		"no agent":           {func(e *Event) { e.AgentID = "" }, "agent_id: is required"},
		"no action":          {func(e *Event) { e.Action = "" }, "action: is required"},
		"lower case":         {func(e *Event) { e.EventType = "tool_use" }, "event_type: must be upper-case"},
		"forged type":        {func(e *Event) { e.EventType = "AUDIT_SEAL" }, "the trail's own"},
		"forged agent":       {func(e *Event) { e.AgentID = "kaizen-audit" }, "the trail's own"},
		"invalid UTF-8":      {func(e *Event) { e.Action = bad }, "action: is not valid UTF-8"},
		"invalid in a map":   {func(e *Event) { e.Inputs = Of(map[string]any{"a": bad}) }, "inputs: is not valid UTF-8"},
		"invalid name":       {func(e *Event) { e.Inputs = Of(map[string]any{bad: 1}) }, "inputs: a member name"},
		"NaN":                {func(e *Event) { e.Outputs = Of(map[string]any{"a": nan()}) }, "outputs: a number is not finite"},
		"negative":           {func(e *Event) { e.DurationMS = -1 }, "duration_ms: must be"},
		"duplicate":          {func(e *Event) { e.Inputs = Raw([]byte(`{"a":1,"\u0061":2}`)) }, "inputs: line 1, column 8: this member name occurs twice"},
		"lone surrogate":     {func(e *Event) { e.Inputs = Raw([]byte(`{"a":"\ud800"}`)) }, "inputs: line 1, column 7: lone surrogate"},
		"broken":             {func(e *Event) { e.Metadata = Raw([]byte("{\n \"a\": nul}")) }, "metadata: line 2, column 7:"},
		"long key":           {func(e *Event) { e.IdempotencyKey = strings.Repeat("k", 257) }, "idempotency_key: is longer"},
		"year":               {func(e *Event) { e.Timestamp = time.Date(12000, 1, 1, 0, 0, 0, 0, time.UTC) }, "timestamp: the year"},
		"deep":               {func(e *Event) { e.Inputs = Raw([]byte(strings.Repeat("[", 128) + strings.Repeat("]", 128))) }, "nested deeper"},
		"deep map":           {func(e *Event) { e.Inputs = Of(nest(128)) }, "nested deeper"},
		"a type too long":    {func(e *Event) { e.EventType = strings.Repeat("A", 129) }, "event_type: is longer"},
		"a value that can't": {func(e *Event) { e.Inputs = Of(map[string]any{"f": func() {}}) }, "inputs: a value can't"},
	} {
		ev := minimal()
		c.change(&ev)
		out, err := AppendLine([]byte("keep"), &ev, &testStamp)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if string(out) != "keep" {
			t.Errorf("%s: the buffer was changed", name)
		}
	}
}

func nan() float64 { z := 0.0; return z / z }

func nest(n int) any {
	var v any = 1
	for range n {
		v = []any{v}
	}
	return v
}

// The deepest nesting that is allowed, and the longest line, are.
func TestLimitsAreReached(t *testing.T) {
	ev := minimal()
	ev.Inputs = Raw([]byte(strings.Repeat(`{"a":`, 127) + "1" + strings.Repeat("}", 127)))
	line, err := AppendLine(nil, &ev, &testStamp)
	if err != nil {
		t.Fatal(err)
	}
	st := testStamp
	st.MaxLine = len(line)
	if _, err := AppendLine(nil, &ev, &st); err != nil {
		t.Error(err)
	}
	st.MaxLine--
	var long *LineTooLongError
	if _, err := AppendLine(nil, &ev, &st); !errors.As(err, &long) {
		t.Error(err)
	}
}

// corpusExceptions are the documented exceptions to the corpus's verdicts:
// texts that JSON allows and a trail refuses, and why.
var corpusExceptions = map[string]string{
	"y_object_duplicated_key.json":           "occurs twice",
	"y_object_duplicated_key_and_value.json": "occurs twice",
}

// Every file of the parsing corpus is given as inputs.v. What is accepted
// comes back equal in value; what is refused says where and why.
func TestJSONParsingCorpus(t *testing.T) {
	files, err := filepath.Glob("testdata/JSONTestSuite/*.json")
	if err != nil || len(files) != 318 {
		t.Fatalf("%d files of the corpus, want 318; %v", len(files), err)
	}
	accepted, refused := 0, 0
	for _, file := range files {
		name := filepath.Base(file)
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		ev := minimal()
		ev.Inputs = Raw(append(append([]byte(`{"v":`), data...), '}'))
		line, err := AppendLine(nil, &ev, &testStamp)
		if err != nil {
			refused++
			if why := corpusExceptions[name]; name[0] == 'y' && (why == "" || !strings.Contains(err.Error(), why)) {
				t.Errorf("%s: refused: %v", name, err)
			}
			if at, ok := errors.AsType[*SyntaxError](err); !ok || at.Line < 1 || at.Column < 1 || at.Reason == "" {
				t.Errorf("%s: refused without a place: %v", name, err)
			}
			continue
		}
		accepted++
		if name[0] == 'n' {
			t.Errorf("%s: accepted", name)
			continue
		}
		e, err := Parse(line)
		if err != nil {
			t.Errorf("%s: the line can't be read: %v", name, err)
			continue
		}
		v, ok := e.Inputs.Get("v")
		if !ok || !equalJSON(t, data, v.JSON()) {
			t.Errorf("%s: came back as another value: %.200s", name, v.JSON())
		}
	}
	t.Logf("%d accepted, %d refused", accepted, refused)
}

// equalJSON compares two texts by value, numbers by their digits' exact value.
func equalJSON(t *testing.T, a, b []byte) bool {
	t.Helper()
	var va, vb any
	for _, p := range []struct {
		text []byte
		to   *any
	}{{a, &va}, {b, &vb}} {
		d := json.NewDecoder(bytes.NewReader(p.text))
		d.UseNumber()
		if err := d.Decode(p.to); err != nil {
			t.Logf("encoding/json: %v", err)
			return false
		}
	}
	return reflect.DeepEqual(va, vb)
}

// An exact value survives: numbers beyond float64 keep their digits.
func TestNumbersKeepTheirDigits(t *testing.T) {
	for _, n := range []string{"1e400", "-0", "-0.0", "1.10", "123456789012345678901234567890.5", "1E+2", "0.1e-7"} {
		ev, err := ParseEvent([]byte(`{"event_type":"T","agent_id":"a","action":"x","inputs":{"n":` + n + `}}`))
		if err != nil {
			t.Fatal(err)
		}
		line, err := AppendLine(nil, &ev, &testStamp)
		if err != nil || !bytes.Contains(line, []byte(`{"n":`+n+`}`)) {
			t.Errorf("%s: %s, %v", n, line, err)
		}
		if _, _, err := new(big.Float).Parse(n, 10); err != nil {
			t.Error(err)
		}
	}
	for _, n := range []string{"234.50", "0", "1e3", "1.7e308", "0.1e-400"} {
		ev, err := ParseEvent([]byte(`{"event_type":"T","agent_id":"a","action":"x","duration_ms":` + n + `}`))
		if err != nil {
			t.Fatal(err)
		}
		if line, err := AppendLine(nil, &ev, &testStamp); err != nil || !bytes.Contains(line, []byte(`"duration_ms":`+n+`,`)) {
			t.Errorf("%s: %s, %v", n, line, err)
		}
	}
}

func TestParseEventIsStrict(t *testing.T) {
	for text, want := range map[string]string{
		``:                                      "line 1, column 1: this is not a JSON object",
		`[]`:                                    "this is not a JSON object",
		`{"agent_id":1}`:                        "agent_id: must be a string",
		`{"success":"yes"}`:                     "success: must be true or false",
		`{"error":{}}`:                          "error: must be a string or null",
		`{"timestamp":"soon"}`:                  "timestamp: must be an RFC 3339 time",
		`{"timestamp":5}`:                       "timestamp: must be a string",
		`{"duration_ms":-1}`:                    "duration_ms: must be a number",
		`{"duration_ms":"1"}`:                   "duration_ms: must be a number",
		`{"duration_ms":1e400}`:                 "duration_ms: is more than 1.8e308",
		`{"duration_ms":-1e400}`:                "duration_ms: must be a number",
		"\ufeff{}":                              "line 1, column 1: a byte order mark stands before the JSON object",
		`{"recorded_at":"x"}`:                   "recorded_at: is set by the trail",
		`{"policy":{}}`:                         "policy: is set by the trail",
		`{"event_id":"x"}`:                      "event_id: is set by the trail",
		`{"user_id":"x"}`:                       `"user_id": is not a member of an event; put it under metadata`,
		`{"Jane Doe, born 1970":"x"}`:           "member: is not a member of an event",
		`{"action":"a","action":"b"}`:           "action: occurs twice",
		`{"action":"\ud800"}`:                   "action: line 1, column 12: lone surrogate",
		"{\"action\":\"a\"\n,\n  \"inputs\":x}": "line 3, column 12: this is not the beginning of a JSON value",
		"{\"action\":\"a\"} x":                  "more text after the JSON value",
	} {
		_, err := ParseEvent([]byte(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "Jane") {
			t.Errorf("a personal value in an error: %v", err)
		}
	}
	// Broken text deep inside is placed in the whole line.
	ev, err := ParseEvent([]byte(`{"event_type":"T","agent_id":"a","action":"x","inputs":{"a":1,"a":2}}`))
	if err != nil {
		t.Fatal(err)
	}
	if _, err = AppendLine(nil, &ev, &testStamp); err == nil || !strings.Contains(err.Error(), "inputs: line 1, column 63: ") {
		t.Error(err)
	}
}

// A time without a zone is taken as local time, and noted.
func TestTimeWithoutZone(t *testing.T) {
	local := time.Local
	time.Local = time.FixedZone("", 2*3600)
	defer func() { time.Local = local }()
	for text, want := range map[string]struct {
		time  string
		noted bool
	}{
		"2025-10-26T10:53:45.123456":       {"2025-10-26T08:53:45.123Z", true},
		"2025-10-26 10:53:45":              {"2025-10-26T08:53:45.000Z", true},
		"2025-10-26T10:53:45.9999Z":        {"2025-10-26T10:53:45.999Z", false},
		"2025-10-26T10:53:45+05:30":        {"2025-10-26T05:23:45.000Z", false},
		"2025-10-26T10:53:45.123456+00:00": {"2025-10-26T10:53:45.123Z", false},
	} {
		ev, err := ParseEvent([]byte(`{"timestamp":"` + text + `","event_type":"T","agent_id":"a","action":"x"}`))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		line, err := AppendLine(nil, &ev, &testStamp)
		if err != nil || !bytes.HasPrefix(line, []byte(`{"timestamp":"`+want.time+`"`)) ||
			bytes.HasSuffix(line, []byte(`,"policy":{"zone_assumed":["/timestamp"]}}`)) != want.noted {
			t.Errorf("%s: %s, %v", text, line, err)
		}
	}
}

func TestEventFromMapEqualsParseEvent(t *testing.T) {
	text := `{"timestamp":"2025-10-26T10:53:45.123Z","event_type":"T","agent_id":"a","trace_id":"t","action":"x","inputs":{"a":[1,2.5,"s",null,true]},"outputs":"text","duration_ms":1.5,"success":false,"error":"e","metadata":{"user_id":"u"},"idempotency_key":"k","span_id":"s","parent_span_id":"p","resource":{"id":"r"},"outcome":"o","authority":{"a":1},"purpose":"why"}`
	var m map[string]any
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		t.Fatal(err)
	}
	a, err := ParseEvent([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	b, err := EventFromMap(m)
	if err != nil {
		t.Fatal(err)
	}
	la, err := AppendLine(nil, &a, &testStamp)
	if err != nil {
		t.Fatal(err)
	}
	lb, err := AppendLine(nil, &b, &testStamp)
	if err != nil || !bytes.Equal(la, lb) {
		t.Errorf("%s\n%s\n%v", la, lb, err)
	}
	for name, v := range map[string]any{"agent_id": 5, "success": "true", "duration_ms": "1", "timestamp": 7, "nonce": "x", "other": 1} {
		if _, err := EventFromMap(map[string]any{name: v}); err == nil {
			t.Errorf("%s: %v was taken", name, v)
		}
	}
}

// What others wrote is read: unknown members, other types, escapes, order.
func TestParseIsTolerant(t *testing.T) {
	e, err := Parse([]byte(`{ "x" : [ 1 , {"y":[]} ] , "agent_id" : "\u0061\ud83d\ude00\n" , "success" : "yes", "inputs": 5, "timestamp": "2025-10-26T10:53:45", "error": "\udc00" } `))
	if err != nil || e.AgentID != "a😀\n" || e.Success || !e.Inputs.IsZero() || e.Timestamp.IsZero() || *e.Error != "\uFFFD" {
		t.Errorf("%+v, %v", e, err)
	}
	if e, err = Parse([]byte(`{"sealed":"v1","key":"k","data":"d"}`)); err != nil || e.AgentID != "" {
		t.Error(err)
	}
	for _, bad := range []string{"", "{", "null", `{"a":}`, `{"a":1}}`, "{\"a\":\"\x01\"}", "{\"a\":\"\xff\"}", strings.Repeat("[", 20_000)} {
		if e, err := Parse([]byte(bad)); err == nil || string(e.Line()) != bad {
			t.Errorf("%.20q was read", bad)
		}
	}
}

func TestNewEventID(t *testing.T) {
	at := time.UnixMilli(0x0123456789ab)
	seen := map[string]bool{}
	for range 10_000 {
		id := NewEventID(at)
		if seen[id] || len(id) != 36 || id[:13] != "01234567-89ab" || id[14] != '7' || !strings.ContainsRune("89ab", rune(id[19])) {
			t.Fatalf("%s", id)
		}
		seen[id] = true
	}
}

func TestPlainPrefix(t *testing.T) {
	for c := range 256 {
		for at := range 20 {
			b := []byte(strings.Repeat("x", 20))
			b[at] = byte(c)
			want := 20
			if c < 0x20 || c >= 0x80 || c == '"' || c == '\\' {
				want = at
			}
			if got := plainPrefix(b); got != want {
				t.Fatalf("byte %#x at %d: %d", c, at, got)
			}
		}
	}
}

// Whatever text comes: no panic, the error has a place, and what is accepted
// is JSON in one spelling that is its own.
func FuzzAppendCompact(f *testing.F) {
	files, err := filepath.Glob("testdata/JSONTestSuite/*.json")
	if err != nil || len(files) == 0 {
		f.Fatal("no seeds")
	}
	for _, file := range files {
		if data, err := os.ReadFile(file); err == nil && len(data) < 4096 {
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		out, err := AppendCompact(nil, data, 1)
		if err != nil {
			if at, ok := errors.AsType[*SyntaxError](err); !ok || at.Offset > len(data) || at.Column < 1 {
				t.Fatalf("no place: %v", err)
			}
			return
		}
		if !json.Valid(out) || !utf8.Valid(out) || bytes.ContainsAny(out, "\n\r\t\x00") {
			t.Fatalf("%q became %q", data, out)
		}
		again, err := AppendCompact(nil, out, 1)
		if err != nil || !bytes.Equal(again, out) {
			t.Fatalf("%q is written again as %q: %v", out, again, err)
		}
		if !json.Valid(data) {
			t.Fatalf("%q was accepted, encoding/json refuses it", data)
		}
	})
}

func FuzzParse(f *testing.F) {
	ev := minimal()
	line, err := AppendLine(nil, &ev, &testStamp)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(line)
	f.Add([]byte(`{"timestamp":"x","error":"\ud800","metadata":{"a":"\\\""}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := Parse(data)
		if (err == nil) != (json.Valid(data) && bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{"))) && utf8.Valid(data) && len(data) < 5000 {
			t.Fatalf("%q: %v", data, err)
		}
		timestamp, recordedAt, timesErr := Times(data)
		if (err == nil) != (timesErr == nil) || err == nil && (!timestamp.Equal(e.Timestamp) || !recordedAt.Equal(e.RecordedAt)) {
			t.Fatalf("%q: Parse gives %v and %v, Times %v and %v, %v", data, e.Timestamp, e.RecordedAt, timestamp, recordedAt, timesErr)
		}
		for range e.Metadata.All() {
		}
		_ = e.Metadata.Text("user_id")
	})
}

// An event that is accepted gives a line that Parse reads to the same event.
func FuzzParseEvent(f *testing.F) {
	f.Add([]byte(`{"event_type":"T","agent_id":"a","action":"x","inputs":{"a":1},"error":"e","duration_ms":1.50}`))
	f.Add([]byte(`{"event_type":"T","agent_id":"\u0061","action":"\n","outputs":[1],"timestamp":"2025-10-26T10:53:45"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		ev, err := ParseEvent(data)
		if err != nil {
			return
		}
		line, err := AppendLine(nil, &ev, &testStamp)
		if err != nil {
			return
		}
		e, err := Parse(line)
		if err != nil || e.AgentID != ev.AgentID || e.Action != ev.Action || e.EventType != ev.EventType || bytes.IndexByte(line, '\n') >= 0 {
			t.Fatalf("%q became %q: %v", data, line, err)
		}
	})
}

// typical is an event as programs record them.
func typical() Event {
	ev := minimal()
	ev.EventType, ev.AgentID, ev.TraceID, ev.Action = "TOOL_USE", "airline-agent-7", "4bf92f3577b34da6a3ce929d0e0e4736", "tool_use:get_reservation_details"
	ev.Inputs = Raw([]byte(`{"reservation_id":"ZFA04Y"}`))
	ev.Outputs = Raw([]byte(`{"status":"ok","cabin":"economy","passengers":2}`))
	ev.Metadata = Raw([]byte(`{"user_id":"user123","session_id":"session456","ip_address":"192.0.2.1"}`))
	ev.IdempotencyKey, ev.DurationMS = "6mQkWb0H1J0hZ3m2pXy7Qg", 45.2
	return ev
}

func BenchmarkAppendLine(b *testing.B) {
	ev := typical()
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if buf, err = AppendLine(buf[:0], &ev, &testStamp); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(int64(len(buf)))
}

func BenchmarkParseEvent(b *testing.B) {
	ev := typical()
	text, err := AppendEvent(nil, &ev)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseEvent(text); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	benchmarkLine(b, func(line []byte) error {
		_, err := Parse(line)
		return err
	})
}

func BenchmarkTimes(b *testing.B) {
	benchmarkLine(b, func(line []byte) error {
		_, _, err := Times(line)
		return err
	})
}

func benchmarkLine(b *testing.B, do func(line []byte) error) {
	ev := minimal()
	ev.Inputs = Raw([]byte(`{"reservation_id":"ZFA04Y"}`))
	line, err := AppendLine(nil, &ev, &testStamp)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.SetBytes(int64(len(line)))
	for b.Loop() {
		if err := do(line); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCompactKeys finds manyKeys.
func BenchmarkCompactKeys(b *testing.B) {
	for _, n := range []int{4, 16, 24, 48, 1000} {
		var o []byte
		for i := range n {
			o = fmt.Appendf(o, `,"member_%04d":1`, i)
		}
		o[0] = '{'
		o = append(o, '}')
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			var dst []byte
			for b.Loop() {
				dst, _ = AppendCompact(dst[:0], o, 1)
			}
		})
	}
}

// A name that is no member is refused, whatever its value: a text of millions of
// them would take its time otherwise.
func TestUnknownMembersAreRefusedAlsoWhenNull(t *testing.T) {
	for _, text := range []string{`{"event_type":"X","nothing":null}`, `{"nothing":null,"nothing":null}`} {
		if _, err := ParseEvent([]byte(text)); err == nil || !strings.Contains(err.Error(), "is not a member of an event") {
			t.Errorf("%s: %v", text, err)
		}
	}
	if _, err := ParseEvent([]byte(`{"event_type":"X","agent_id":"a","action":"b","error":null,"event_id":null}`)); err != nil {
		t.Error(err)
	}
	if _, err := EventFromMap(map[string]any{"nothing": nil}); err == nil {
		t.Error("a map's unknown key was passed over")
	}
}

// What is handed to another process is the same event there.
func TestAppendEventIsReadBackAsTheSameEvent(t *testing.T) {
	for _, text := range []string{
		`{"event_type":"X","agent_id":"a","action":"b"}`,
		`{"event_type":"X","agent_id":"a","action":"b","timestamp":"2026-01-02T03:04:05.678Z","trace_id":"t","inputs":{"n":1.50},"outputs":[1],"duration_ms":1.50,"success":false,"error":"e","metadata":{"user_id":"u"},"idempotency_key":"k","span_id":"s","parent_span_id":"p","resource":{"id":"r"},"outcome":"denied","authority":{"rule":"x"},"purpose":"care"}`,
		`{"event_type":"X","agent_id":"a","action":"b","timestamp":"2026-01-02T03:04:05.678","success":true,"error":""}`,
	} {
		ev, err := ParseEvent([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		again, err := AppendEvent(nil, &ev)
		if err != nil {
			t.Fatal(err)
		}
		back, err := ParseEvent(again)
		if err != nil {
			t.Fatalf("%s: %v", again, err)
		}
		st := Stamp{EventID: "01a207ae-7a4f-7bcd-81a2-b1039c325e2d", RecordedAt: time.UnixMilli(0), TraceID: "made"}
		want, err1 := AppendLine(nil, &ev, &st)
		got, err2 := AppendLine(nil, &back, &st)
		if err1 != nil || err2 != nil || !bytes.Equal(got, want) {
			t.Errorf("%s (%v)\nwant %s (%v)", got, err2, want, err1)
		}
	}
}
