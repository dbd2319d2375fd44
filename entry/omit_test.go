package entry_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/kaizen-audit/kaizen-audit/entry"
)

// stamp is what a test's lines are written with.
func stamp(maxLine int) *entry.Stamp {
	return &entry.Stamp{EventID: "01a206d7-e571-79eb-a84a-6a407a3be418", RecordedAt: time.Unix(0, 0), TraceID: "t", MaxLine: maxLine}
}

func TestAFactIsKeptWhereItsValueCannotBe(t *testing.T) {
	long := entry.Of(map[string]any{"text": strings.Repeat("x", 5000)})
	for _, c := range []struct {
		name    string
		ev      entry.Event
		omitted string
	}{
		{"a member twice", entry.Event{Inputs: entry.Raw([]byte(`{"a":1,"a":2}`))}, "inputs"},
		{"no JSON", entry.Event{Outputs: entry.Raw([]byte(`{"a":`))}, "outputs"},
		{"half a surrogate pair", entry.Event{Metadata: entry.Raw([]byte(`{"a":"\ud800"}`))}, "metadata"},
		{"not UTF-8", entry.Event{Resource: entry.Raw([]byte("{\"a\":\"\xff\"}"))}, "resource"},
		{"a Go value that is none of JSON", entry.Event{Authority: entry.Of(func() {})}, "authority"},
		{"too long", entry.Event{Inputs: entry.Of(map[string]any{"a": 1}), Outputs: long}, "outputs"},
	} {
		ev := c.ev
		ev.EventType, ev.AgentID, ev.Action = "TOOL_USE", "a", "x\xff"
		if _, err := entry.AppendLine(nil, &ev, stamp(2000)); err == nil {
			t.Fatalf("%s: it can be recorded as it is", c.name)
		}
		mac := func(v []byte) []byte { return []byte{1, 2} }
		if err := entry.KeepFact(&ev, stamp(2000), mac); err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		line, err := entry.AppendLine(nil, &ev, stamp(2000))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		e, err := entry.Parse(line)
		if err != nil {
			t.Fatal(err)
		}
		want := `{"omitted":["/` + c.omitted + `"]}`
		if got, _ := e.Policy.AppendJSON(nil); string(got) != want {
			t.Errorf("%s: policy %s, want %s", c.name, got, want)
		}
		for _, has := range []string{`"omitted":"`, `"mac":"0102"`, `"bytes":`, "x\ufffd"} {
			if !bytes.Contains(line, []byte(has)) {
				t.Errorf("%s: %s lacks %s", c.name, line, has)
			}
		}
	}
	whole := entry.Event{EventType: "TOOL_USE", AgentID: "a", Action: "x", Inputs: long}
	if err := entry.KeepFact(&whole, stamp(0), nil); err != nil || whole.Omitted() != nil || len(whole.Inputs.Text("text")) != 5000 {
		t.Errorf("a value that can be kept was not: %v, %v", whole.Omitted(), err)
	}
	failed := entry.Event{EventType: "TOOL_USE", AgentID: "a", Action: "x", Error: new(strings.Repeat("e", 5000))}
	if err := entry.KeepFact(&failed, stamp(2000), nil); err != nil || *failed.Error != "longer than an entry may be" {
		t.Errorf("%v", err)
	}
	forged := entry.Event{EventType: "AUDIT_SEAL", AgentID: "a", Action: "x"}
	if err := entry.KeepFact(&forged, stamp(0), nil); err == nil {
		t.Error("a name that is the trail's own was taken")
	}
}
