package policy_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/policy"
)

// FuzzPipeline: whatever an event holds, what is left of it is a line that can be
// recorded, without the canary that was put into it, and running the policy over
// that changes nothing.
func FuzzPipeline(f *testing.F) {
	for _, s := range []string{
		`{"a":1}`, `{"card_number":"4111-1111-1111-1111","cvv":"1"}`, `{"a":"{\"b\":\"{\\\"cvv\\\":1,\\\"x\\\":[4111111111111111]}\"}"}`,
		`[4111111111111111,{"4111111111111111":1,"****1111":2}]`, `{"password":{"a":[1,"x",null,true]},"b":"token=abc"}`, `"x"`, `{"":"","\u0000":"\ud83d\ude00"}`,
		`{"p":"{\"a\":1","q":"[[[]]]","r":"\"\\\"\\\\\\\"\\\"\"","cvv":[1,2,{"a":"123"}],"cvc":{}}`, `{"omitted":"refused by policy","bytes":1}`,
	} {
		f.Add([]byte(s), "x 4111111111111111 y", uint8(0))
		f.Add([]byte(s), "a@example.com {\"pin\":\"1234\"}", uint8(3))
	}
	f.Add([]byte(`{"":"{\"b\":\"\\\bCvC\\\":0\\\"\\\b+000000000000000\"}"}`), "0@0.pin", uint8(3))
	policies := []*policy.Policy{
		policy.Default(),
		mustNew(f, policy.Config{Profile: "pci", Fields: []policy.Field{{Path: "/inputs/**/a", Action: policy.Drop}, {Path: "/outputs", Action: policy.Mask}, {Path: "/metadata/*", Action: policy.Hash}}}),
		mustNew(f, policy.Config{Profile: "gdpr", Only: []policy.Only{{Paths: []string{"/inputs/a", "/inputs/*/b", "/outputs/**/x"}}}, Actions: map[string]policy.Action{"personal": policy.Drop, "secret": policy.Drop, "card": policy.Hash}}),
		mustNew(f, policy.Config{Actions: map[string]policy.Action{"card": policy.Refuse, "email": policy.Pseudonymise}, Fields: []policy.Field{{Path: "/**/b", Action: policy.Refuse}, {Path: "/inputs/p", Action: policy.Keep}},
			Tools: []policy.Tool{{When: policy.When{EventTypes: []string{"*"}}, PHI: true, Resource: &policy.Resource{Type: "x", ID: []string{"/inputs/a", "/outputs/0/b/c"}}, Subjects: []string{"/inputs/b"}, Reason: "/metadata/a"}}}),
	}
	f.Fuzz(func(t *testing.T, value []byte, text string, which uint8) {
		if len(value) > 64<<10 {
			return
		}
		p := policies[int(which)%len(policies)]
		canary, _ := json.Marshal(map[string]string{"x": "5500005555555559", text: "say 5500 0055 5555 5559."})
		ev := entry.Event{
			EventType: "TOOL_USE", AgentID: "a", Action: "tool_use:" + text, TraceID: "t", Inputs: entry.Raw(value), Outputs: entry.Of([]any{entry.Raw(value), entry.Raw(canary), string(value), string(canary)}),
			Metadata: entry.Of(map[string]any{"a": text, text: entry.Raw(value)}), Error: &text, IdempotencyKey: text, Purpose: text, Resource: entry.Raw(value),
		}
		run := policy.Run{Tokens: &tokens{}, KeepFact: true}
		out, err := p.AppendLine(nil, &ev, &stamp, run)
		if err != nil {
			if _, plain := entry.AppendLine(nil, &ev, &stamp); plain == nil {
				t.Fatalf("policy %d: %v", which, err)
			}
			return
		}
		if !json.Valid(out) {
			t.Fatalf("policy %d: %s", which, out)
		}
		// A duplicate name, broken text, anything that no entry may hold.
		if _, err := entry.AppendCompact(nil, out, 0); err != nil {
			t.Fatalf("policy %d: %v: %s", which, err, out)
		}
		for _, s := range []string{"5500005555555559", "5500 0055 5555 5559"} {
			if bytes.Contains(out, []byte(s)) && !strings.Contains(text+string(value), s[:4]) {
				t.Fatalf("policy %d: the canary is in %s", which, out)
			}
		}
		first, err := p.Event(&ev, run)
		if err != nil {
			t.Fatalf("policy %d: as an event: %v", which, err)
		}
		again, err := p.AppendLine(nil, &first, &stamp, run)
		if err != nil || !bytes.Equal(again, out) {
			t.Fatalf("policy %d: a second time\n%s\n%s\n%v", which, out, again, err)
		}
	})
}
