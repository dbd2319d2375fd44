package entry_test

import (
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/kaizen-audit/kaizen-audit/entry"
)

var at = time.Date(2025, 10, 26, 10, 53, 45, 123_000_000, time.UTC)

// line is how a trail stores one event. The trail makes the stamp fresh for
// each entry; here it is fixed, so that the line is the same every time.
func line() []byte {
	ev := entry.Event{
		Timestamp: at, EventType: entry.ToolUse, AgentID: "qa-agent-001", TraceID: "run-1", Action: "tool_use:calculator",
		Inputs:  entry.Raw([]byte(`{"expression": "0.1+0.2", "digits": 1.50}`)),
		Outputs: entry.Of(map[string]any{"result": 0.3}), DurationMS: 45.2,
		Metadata: entry.Of(map[string]any{"user_id": "user123"}),
	}
	l, err := entry.AppendLine(nil, &ev, &entry.Stamp{EventID: "019a2027-1b23-7000-8000-000000000000", RecordedAt: at})
	if err != nil {
		log.Fatal(err)
	}
	return l
}

// White space goes; order and digits (1.50) stay.
func ExampleAppendLine() {
	fmt.Printf("%s\n", line())
	// Output: {"timestamp":"2025-10-26T10:53:45.123Z","event_type":"TOOL_USE","agent_id":"qa-agent-001","trace_id":"run-1","action":"tool_use:calculator","inputs":{"expression":"0.1+0.2","digits":1.50},"outputs":{"result":0.3},"duration_ms":45.2,"success":true,"error":null,"metadata":{"user_id":"user123"},"event_id":"019a2027-1b23-7000-8000-000000000000","recorded_at":"2025-10-26T10:53:45.123Z"}
}

// What can't be kept as it is, is refused, with where and why and never the
// value.
func ExampleAppendLine_refused() {
	for _, inputs := range []string{`{"card":"4111","card":""}`, `{"name":"\ud800"}`, `{"open":`} {
		ev := entry.Event{EventType: entry.ToolUse, AgentID: "a", Action: "x", Inputs: entry.Raw([]byte(inputs))}
		_, err := entry.AppendLine(nil, &ev, &entry.Stamp{RecordedAt: at})
		fmt.Println(err)
	}
	ev := entry.Event{EventType: entry.TrailPrefix + "SEAL", AgentID: "a", Action: "x"}
	_, err := entry.AppendLine(nil, &ev, &entry.Stamp{RecordedAt: at})
	fmt.Println(err)
	// Output:
	// inputs: line 1, column 16: this member name occurs twice in its object
	// inputs: line 1, column 10: lone surrogate
	// inputs: line 1, column 9: the text ends where a value is needed
	// event_type: names that begin with AUDIT_ are the trail's own
}

// Reading is tolerant: what others wrote is read as far as it can be.
func ExampleParse() {
	e, err := entry.Parse(line())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(e.Timestamp.Format(time.RFC3339), e.AgentID, e.Action, e.Success, e.Metadata.Text("user_id"))
	fmt.Println(e.Digest() == entry.Digest(line()))

	e, err = entry.Parse([]byte(`{"agent_id": "theirs", "success": "yes", "unknown": 1}`))
	fmt.Println(e.AgentID, e.Success, err)
	_, err = entry.Parse([]byte(`{"agent_id": "theirs"`))
	fmt.Println(err)
	// Output:
	// 2025-10-26T10:53:45Z qa-agent-001 tool_use:calculator true user123
	// true
	// theirs false <nil>
	// line 1, column 22: the text ends inside an object
}

// What comes from outside is read strictly.
func ExampleParseEvent() {
	ev, err := entry.ParseEvent([]byte(`{"event_type":"LLM_CALL","agent_id":"qa-agent-001","action":"llm_call","success":false,"error":"timeout"}`))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(ev.EventType, ev.Action, *ev.Success, *ev.Error)

	_, err = entry.ParseEvent([]byte(`{"event_type":"LLM_CALL","agent_id":"a","action":"llm_call","duration_ms":"12"}`))
	wrong, _ := errors.AsType[*entry.FieldError](err)
	fmt.Println(wrong.Field, "|", err)
	// Output:
	// LLM_CALL llm_call false timeout
	// duration_ms | duration_ms: must be a number of milliseconds, not negative
}

func ExampleEventFromMap() {
	ev, err := entry.EventFromMap(map[string]any{
		"timestamp": at, "event_type": "TOOL_USE", "agent_id": "qa-agent-001", "action": "tool_use:calculator",
		"inputs": map[string]any{"expression": "2+2"}, "outputs": 4, "error": nil,
	})
	if err != nil {
		log.Fatal(err)
	}
	l, err := entry.AppendLine(nil, &ev, &entry.Stamp{RecordedAt: at, TraceID: "run-1"})
	if err != nil {
		log.Fatal(err)
	}
	e, err := entry.Parse(l)
	if err != nil {
		log.Fatal(err)
	}
	inputs, _ := e.Inputs.MarshalJSON()
	outputs, _ := e.Outputs.MarshalJSON()
	fmt.Printf("%s %s\n", inputs, outputs)
	// Output: {"expression":"2+2"} {"value":4}
}

func ExampleRaw() {
	o := entry.Raw([]byte(`{"b": 1.0, "a": 12345678901234567890123}`))
	text, err := o.MarshalJSON()
	fmt.Printf("%s %v\n", text, err)
	// Output: {"b":1.0,"a":12345678901234567890123} <nil>
}

func ExampleOf() {
	for _, v := range []any{map[string]any{"b": 1, "a": []string{"x"}}, struct{ Result int }{4}, "text", nil} {
		text, err := entry.Of(v).MarshalJSON()
		fmt.Printf("%s %v\n", text, err)
	}
	// Output:
	// {"a":["x"],"b":1} <nil>
	// {"Result":4} <nil>
	// {"value":"text"} <nil>
	// {} <nil>
}

func ExampleObject_All() {
	o := entry.Raw([]byte(`{"b": 1.0, "a": {"c": "d"}, "e": "f"}`))
	for name, v := range o.All() {
		fmt.Printf("%s=%s\n", name, v.JSON())
	}
	// Output:
	// b=1.0
	// a={"c": "d"}
	// e="f"
}

func ExampleObject_Get() {
	o := entry.Raw([]byte(`{"patient": {"id": "P12345"}, "n": 3}`))
	if v, ok := o.Get("patient"); ok {
		patient, _ := v.Object()
		fmt.Println(patient.Text("id"))
	}
	_, ok := o.Get("absent")
	fmt.Println(ok)
	// Output:
	// P12345
	// false
}

func ExampleObject_Decode() {
	var call struct {
		Expression string
		Digits     int
	}
	if err := entry.Raw([]byte(`{"expression":"2+2","digits":3}`)).Decode(&call); err != nil {
		log.Fatal(err)
	}
	fmt.Println(call.Expression, call.Digits)
	// Output: 2+2 3
}

// The digest is that of sha256sum over the line without its newline.
func ExampleDigest() {
	fmt.Printf("%x\n", entry.Digest([]byte(`{}`)))
	// Output: 44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a
}

func ExampleParseTime() {
	for _, s := range []string{"2025-10-26T12:53:45.123456+02:00", "2025-10-26T10:53:45.5Z", "26.10.2025"} {
		t, local, err := entry.ParseTime(s)
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Printf("%s %v\n", entry.AppendTime(nil, t.UTC()), local)
	}
	_, local, err := entry.ParseTime("2025-10-26T10:53:45.123456") // Python's datetime.now().isoformat()
	fmt.Println(local, err)
	// Output:
	// 2025-10-26T10:53:45.123Z false
	// 2025-10-26T10:53:45.500Z false
	// must be an RFC 3339 time such as 2025-10-26T10:53:45.123Z
	// true <nil>
}

func ExampleReceipt_AppendJSON() {
	r := entry.Receipt{Index: 42, EventID: "019a2027-1b23-7000-8000-000000000000", Digest: entry.Digest([]byte(`{}`))}
	fmt.Printf("%s\n", r.AppendJSON(nil))
	// Output: {"index":42,"event_id":"019a2027-1b23-7000-8000-000000000000","digest":"44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","durable":false}
}

// A query that stopped goes on after the entry's cursor.
func ExampleEntry_Cursor() {
	fmt.Println(entry.Entry{Index: 42}.Cursor())
	// Output: 42
}

func ExampleAppendString() {
	s, ok := entry.AppendString(nil, "line one\nline two\x07")
	fmt.Println(string(s), ok)
	s, ok = entry.AppendString(nil, "not UTF-8: \xff")
	fmt.Println(len(s), ok)
	// Output:
	// "line one\nline two\u0007" true
	// 0 false
}

// The first 48 bits are the time; the rest is fresh for every entry.
func ExampleNewEventID() {
	a, b := entry.NewEventID(at), entry.NewEventID(at)
	fmt.Println(a[:13], a[:13] == b[:13], a == b)
	// Output: 019a2027-1b23 true false
}
