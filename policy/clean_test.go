package policy

import (
	"bytes"
	"testing"
	"time"

	"github.com/kaizen-audit/kaizen-audit/entry"
)

// FuzzClean: what clean passes over, the walk finds nothing in. The line is the
// same with it and without, whatever was known of names and actions before.
func FuzzClean(f *testing.F) {
	for _, s := range []string{
		`{"order_id":"#W0012345","status":"delivered","items":3}`, `{"user_id":"u","session_id":[1]}`, `{"a":{"user_id":"4111111111111111"}}`,
		`{"user_id":4111111111111111,"ip_address":"192.0.2.1"}`, `{"n":4111111111111111,"e":4.111111111111111e15,"d":-4111111111111111}`,
		`{"\u0070assword":"x","4111111111111111":true}`, `{"a\\":"\\","b":"\"","c":"\\\"4111111111111111"}`, `{"j":"{\"cvv\":1}","k":" [1]","l":"\"x\""}`,
		`[[],{},"",{"":""},null,true,false,0,-0.5e-10]`, `{"auth":{"deep":[{"x":"y"}]}}`, `"text with \u0034111111111111111"`, `{"token":"a","cvv":"123"}`,
	} {
		f.Add([]byte(s), "tool_use:get_order_details")
		f.Add([]byte(s), "pay 4111 1111 1111 1111 \"\\")
	}
	var policies []*Policy
	for _, c := range []Config{{}, {Profile: "pci"}, {Actions: map[string]Action{"email": Keep, "ip": Drop}}, {Detectors: []Detector{{Name: "x", Class: "secret", Pattern: `[bc]\d`, Names: []string{"status"}}}}} {
		p, err := New(c)
		if err != nil {
			f.Fatal(err)
		}
		policies = append(policies, p)
	}
	st := entry.Stamp{EventID: "01a206d7-e571-79eb-a84a-6a407a3be418", RecordedAt: time.Unix(0, 0), TraceID: "t"}
	f.Fuzz(func(t *testing.T, value []byte, text string) {
		if len(value) > 64<<10 {
			return
		}
		ev := entry.Event{
			EventType: "TOOL_USE", AgentID: "a", Action: text, Inputs: entry.Raw(value), Outputs: entry.Of(map[string]any{text: string(value), "v": []any{text, entry.Raw(value)}}),
			Metadata: entry.Raw(value), Error: &text, Purpose: text, Outcome: text, Authority: entry.Raw(value), Resource: entry.Raw(value),
		}
		for i, p := range policies {
			w := new(walker)
			seen, err := w.begin(p, &ev, Run{KeepFact: true})
			if err != nil {
				t.Fatal(err)
			}
			want, places, err := entry.AppendLinePlaces(nil, nil, seen, &st)
			if err != nil {
				return
			}
			w.plain = false
			if err := w.run(want, places); err != nil {
				t.Fatal(err)
			}
			want = w.finish(want, 0)
			for range 2 { // with what is known from the first time
				if got, err := p.AppendLine(nil, &ev, &st, Run{KeepFact: true}); err != nil || !bytes.Equal(got, want) {
					t.Fatalf("policy %d:\n%s\n%s\n%v", i, got, want, err)
				}
			}
		}
	})
}
