package query

import (
	"maps"
	"slices"
	"testing"
)

// Who did it, whose data an entry holds and what was acted on are found by name
// and by pseudonym, and the reading's entry has the pseudonym.
func TestNamesAndPseudonyms(t *testing.T) {
	const tail = `"trace_id":"t","action":"x","inputs":{"customer":"C9","n":7},"outputs":{},"duration_ms":1,"success":true,"error":null,`
	lines := map[string]string{
		"tool of u":       `{"event_type":"TOOL_USE","agent_id":"a",` + tail + `"metadata":{"user_id":"u"}}`,
		"tool of hash":    `{"event_type":"TOOL_USE","agent_id":"a",` + tail + `"metadata":{"user_id_hash":"h(u)"}}`,
		"tool in place":   `{"event_type":"TOOL_USE","agent_id":"a",` + tail + `"metadata":{"user_id":"h(u)"},"resource":{"type":"order","id":"h(P1)"}}`,
		"phi by u of P1":  `{"event_type":"PHI_ACCESS","agent_id":"a",` + tail + `"metadata":{"user_id":"u"},"resource":{"type":"patient","id":"P1"}}`,
		"phi by v of hP1": `{"event_type":"PHI_ACCESS","agent_id":"a",` + tail + `"metadata":{"user_id":"v"},"resource":{"type":"patient","id":"h(P1)"}}`,
		"two subjects":    `{"event_type":"TOOL_USE","agent_id":"a",` + tail + `"metadata":{"user_id":"v"},"policy":{"subjects":["/inputs/customer","/inputs/n","/inputs/none"]}}`,
		"escaped":         `{"event_type":"TOOL_USE","agent_id":"a",` + tail + `"metadata":{"user_id":"\u0075"}}`,
		"nobody":          `{"event_type":"TOOL_USE","agent_id":"h(u)","resource":{"type":"u","id":"P1x"},` + tail + `"metadata":{}}`,
	}
	for name, tc := range map[string]struct {
		q     Query
		facts map[string]any
		want  []string
	}{
		"user":            {Query{User: "u"}, map[string]any{"user": "h(u)"}, []string{"escaped", "phi by u of P1", "tool in place", "tool of hash", "tool of u"}},
		"by pseudonym":    {Query{User: "h(u)"}, map[string]any{"user": "h(u)"}, []string{"tool in place", "tool of hash"}},
		"no pseudonym":    {Query{User: "v"}, map[string]any{"user": "v"}, []string{"phi by v of hP1", "two subjects"}},
		"users by a star": {Query{User: "*"}, map[string]any{"user": "*"}, []string{"escaped", "phi by u of P1", "phi by v of hP1", "tool in place", "tool of hash", "tool of u", "two subjects"}},
		"actor subject":   {Query{Subject: "u"}, map[string]any{"subject": "h(u)"}, []string{"escaped", "tool in place", "tool of hash", "tool of u"}},
		"patient":         {Query{Subject: "P1"}, map[string]any{"subject": "h(P1)"}, []string{"phi by u of P1", "phi by v of hP1"}},
		"pointed at":      {Query{Subject: "C9"}, map[string]any{"subject": "C9"}, []string{"two subjects"}},
		"a number":        {Query{Subject: "7"}, map[string]any{"subject": "7"}, []string{"two subjects"}},
		"resource":        {Query{Resource: "P1"}, map[string]any{"resource": "h(P1)"}, []string{"phi by u of P1", "phi by v of hP1", "tool in place"}},
		"typed resource":  {Query{Resource: "patient/P1"}, map[string]any{"resource": "patient/h(P1)"}, []string{"phi by u of P1", "phi by v of hP1"}},
		"both":            {Query{User: "v", Subject: "P1"}, map[string]any{"user": "v", "subject": "h(P1)"}, []string{"phi by v of hP1"}},
	} {
		q := WithPseudonyms(tc.q, func(id string) string {
			if id == "u" || id == "P1" {
				return "h(" + id + ")"
			}
			return ""
		})
		if facts := q.Facts(); !maps.Equal(facts, tc.facts) {
			t.Errorf("%s: the reading says %v, want %v", name, facts, tc.facts)
		}
		match := Match(q, nil)
		var got []string
		for name, line := range lines {
			_, ok, err := match(0, []byte(line))
			if err != nil {
				t.Fatal(err)
			}
			if ok {
				got = append(got, name)
			}
		}
		if slices.Sort(got); !slices.Equal(got, tc.want) {
			t.Errorf("%s: got  %q\nwant %q", name, got, tc.want)
		}
	}
}
