package policy_test

import (
	"encoding/hex"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/policy"
)

var stamp = entry.Stamp{EventID: "01a206d7-e571-79eb-a84a-6a407a3be418", RecordedAt: time.Unix(0, 0), TraceID: "t"}

func event(members string) entry.Event {
	ev, err := entry.ParseEvent([]byte(`{"event_type":"TOOL_USE","agent_id":"a","trace_id":"t",` + members + `}`))
	if err != nil {
		panic(err)
	}
	return ev
}

// line is the part of the line that members and policy are, after the policy.
func line(t *testing.T, p *policy.Policy, members string) string {
	t.Helper()
	ev := event(members)
	out, err := p.AppendLine(nil, &ev, &stamp, policy.Run{})
	if err != nil {
		return err.Error()
	}
	again, err := entry.ParseEvent(asEvent(t, out))
	if err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	e, err := entry.Parse(out)
	if err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	notes, _ := e.Policy.AppendJSON(nil)
	if !e.Policy.IsZero() {
		again.NotePolicy(notes)
	}
	twice, err := p.AppendLine(nil, &again, &stamp, policy.Run{})
	if err != nil || string(twice) != string(out) {
		t.Errorf("a second time:\n%s\n%s\n%v", out, twice, err)
	}
	return string(out)
}

// asEvent is a line as an event that a caller could give.
func asEvent(t *testing.T, line []byte) []byte {
	t.Helper()
	e, err := entry.Parse(line)
	if err != nil {
		t.Fatal(err)
	}
	ev := entry.Event{Timestamp: e.Timestamp, EventType: e.EventType, AgentID: e.AgentID, TraceID: e.TraceID, Action: e.Action, Inputs: e.Inputs, Outputs: e.Outputs,
		DurationMS: e.DurationMS, Success: &e.Success, Error: e.Error, Metadata: e.Metadata, IdempotencyKey: e.IdempotencyKey, SpanID: e.SpanID,
		ParentSpanID: e.ParentSpanID, Resource: e.Resource, Outcome: e.Outcome, Authority: e.Authority, Purpose: e.Purpose}
	out, err := entry.AppendEvent(nil, &ev)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestDefault(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{`"inputs":{"a":1}`, `"inputs":{"a":1}`},
		{`"inputs":{"card_number":"4532-1234-5678-9012"}`, `"inputs":{"card_number":"****9012"}|"masked":["/inputs/card_number"],"rules":{"card":["/inputs/card_number"]}`},
		{`"inputs":{"text":"pay 4111 1111 1111 1111 now"}`, `"inputs":{"text":"pay ****1111 now"}`},
		{`"inputs":{"n":4111111111111111}`, `"inputs":{"n":"****1111"}`},
		{`"inputs":{"card_number":"4111111111111111","cvv":123,"exp":"12/30"}`, `"inputs":{"card_number":"****1111","exp":"12/30"}|"dropped":["/inputs/cvv"]`},
		{`"inputs":{"cvv":"123","pin":"9876"}`, `"inputs":{}`},
		{`"inputs":{"a":1,"cvv":"123"}`, `"inputs":{"a":1}`},
		{`"inputs":{"cvv":"123","a":1}`, `"inputs":{"a":1}`},
		{`"inputs":{"a":1,"cvv":"123","cvc":"555","b":2,"cvv2":"333"}`, `"inputs":{"a":1,"b":2}`},
		{`"inputs":{"4111111111111111":1,"x 4111111111111111":2,"****1111":3}`, `"inputs":{"****1111#2":1,"x ****1111":2,"****1111":3}|"masked":["/inputs/****1111#2","/inputs/x ****1111"]`},
		{`"inputs":{"j":"{\"card\":{\"number\":\"4111111111111111\",\"cvv\":\"123\"},\"q\":\"\\u0034111111111111111\"}"}`, `"inputs":{"j":"{\"card\":{\"number\":\"****1111\"},\"q\":\"****1111\"}"}`},
		{`"error":"no such card 4111111111111111"`, `"error":"no such card ****1111"`},
		{`"duration_ms":4111111111111111`, `"duration_ms":0|"dropped":["/duration_ms"]`},
		{`"purpose":"4111111111111111"`, `"purpose":"****1111"`},
		{`"idempotency_key":"pay 4111111111111111"`, `"idempotency_key":"pay ****1111"`},
		{`"authority":{"token":"abc"}`, `"authority":{"token":"****"}`},
		{`"metadata":{"user_id":"4111111111111111","x":"4111111111111111"}`, `"metadata":{"user_id":"4111111111111111","x":"****1111"}`},
		{`"resource":{"id":"4111111111111111"}`, `"resource":{"id":"4111111111111111"}`},
		{`"inputs":{"mail":"a@example.com"}`, `"mail":"a@example.com"|"marked":["/inputs/mail"],"rules":{"email":["/inputs/mail"]}`},
		{`"inputs":{"s":"say \"hi\"\n4111111111111111"}`, `"say \"hi\"\n****1111"`},
	} {
		got := line(t, policy.Default(), `"action":"tool_use:pay",`+c.in)
		for _, want := range strings.Split(c.want, "|") {
			if !strings.Contains(got, want) {
				t.Errorf("%s gives\n%s, want\n%s", c.in, got, want)
			}
		}
	}
}

// A digest in hexadecimal digits is no secret and no number of anybody, whatever it is:
// the trail's own entries have some.
func TestDigestsPass(t *testing.T) {
	r := rand.NewChaCha8([32]byte{1})
	var b [32]byte
	for range 50_000 {
		_, _ = r.Read(b[:]) // never fails
		if text := hex.EncodeToString(b[:]); policy.Default().Text(text) != text {
			t.Fatalf("%s does not pass", text)
		}
	}
}
