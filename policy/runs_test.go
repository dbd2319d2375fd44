package policy_test

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/policy"
)

// TestEveryAccessOfARealRunNamesItsPatient: the calls of FHIR in the demo's real
// runs become PHI_ACCESS with patient, actor and reason, none of which the agent
// gave as such.
func TestEveryAccessOfARealRunNamesItsPatient(t *testing.T) {
	runs, err := os.ReadFile("../internal/cli/demo/runs.jsonl") // SOURCE.md and licences beside it
	if err != nil {
		t.Fatal(err)
	}
	p := mustNew(t, policy.Config{Tools: []policy.Tool{{
		When: policy.When{Tools: []string{"fhir_*"}}, PHI: true, Reason: "clinical task",
		Resource: &policy.Resource{Type: "patient", ID: []string{"/inputs/url", "/inputs/subject/reference", "/metadata/subject_id"}, Pattern: `(?:[?&]patient=|Patient/)?(S\d+)`},
	}}})
	seen := 0
	for l := range bytes.Lines(runs) {
		var step struct {
			Kind, Action, Agent string
			Subject             string `json:"subject_id"`
			Input, Output       json.RawMessage
		}
		if err := json.Unmarshal(l, &step); err != nil {
			t.Fatal(err)
		}
		if step.Kind != "tool_call" || step.Subject == "" {
			continue
		}
		seen++
		ev := entry.Event{
			EventType: "TOOL_USE", AgentID: step.Agent, Action: "tool_use:" + step.Action, TraceID: "t", Inputs: entry.Raw(step.Input), Outputs: entry.Raw(step.Output),
			Metadata: entry.Of(map[string]any{"user_id": "clinician", "subject_id": step.Subject, "service_name": "ehr"}),
		}
		out, err := p.AppendLine(nil, &ev, &stamp, policy.Run{})
		if err != nil {
			t.Fatal(err)
		}
		e, err := entry.Parse(out)
		if err != nil {
			t.Fatal(err)
		}
		if e.EventType != "PHI_ACCESS" || e.Resource.Text("type") != "patient" || e.Resource.Text("id") != step.Subject || e.Metadata.Text("access_reason") != "clinical task" || bytes.Contains(out, []byte(`"flagged"`)) {
			t.Errorf("%.400s", out)
		}
	}
	if seen == 0 {
		t.Error("no access was seen")
	}
	t.Logf("%d accesses", seen)
}

// The customer a real run was for, and the one whom the agent served
// (tau-bench-retail, run 0064): the entry shows both.
func TestAnEntryShowsWhoElseWasServed(t *testing.T) {
	p := mustNew(t, policy.Config{Tools: []policy.Tool{{When: policy.When{Tools: []string{"*"}}, Subjects: []string{"/inputs/user_id"}}}})
	got := line(t, p, `"action":"tool_use:get_user_details","inputs":{"user_id":"james_sanchez_3954"},"metadata":{"user_id":"harper_moore_6183"}`)
	for _, want := range []string{`"user_id":"james_sanchez_3954"`, `"user_id":"harper_moore_6183"`, `"subjects":["/inputs/user_id"]`} {
		if !bytes.Contains([]byte(got), []byte(want)) {
			t.Errorf("%s lacks %s", got, want)
		}
	}
}
