package audit_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/policy"
)

// A step of a real agent's run (testdata/runs/SOURCE.md).
type runStep struct {
	Source    string          `json:"source"`
	RunID     string          `json:"run_id"`
	Agent     string          `json:"agent"`
	Domain    string          `json:"domain"`
	Model     string          `json:"model"`
	UserID    string          `json:"user_id"`
	SubjectID string          `json:"subject_id"` // the patient whom the run is about
	Step      int             `json:"step"`
	Kind      string          `json:"kind"`
	Action    string          `json:"action"`
	Input     json.RawMessage `json:"input"`
	Output    json.RawMessage `json:"output"`
	Error     json.RawMessage `json:"error"`
}

// runSteps reads the runs of a source, of $KAIZEN_AUDIT_RUNS where that names a
// larger file of the same form.
func runSteps(t *testing.T, source string) []runStep {
	t.Helper()
	name := os.Getenv("KAIZEN_AUDIT_RUNS")
	if name == "" {
		name = filepath.Join("testdata", "runs", "runs.jsonl.gz")
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var steps []runStep
	lines := bufio.NewScanner(z)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var s runStep
		if err := json.Unmarshal(lines.Bytes(), &s); err != nil {
			t.Fatal(err)
		}
		if s.Source == source {
			steps = append(steps, s)
		}
	}
	if err := lines.Err(); err != nil || len(steps) == 0 {
		t.Fatalf("%d steps, %v", len(steps), err)
	}
	return steps
}

// event is a step as a hook records it, which knows the agent's session and tools
// and nothing of health data.
func (s *runStep) event() audit.Event {
	object := func(raw json.RawMessage) audit.Object {
		if raw = bytes.TrimSpace(raw); len(raw) == 0 || string(raw) == "null" {
			return audit.Object{}
		}
		return audit.Raw(raw)
	}
	meta := map[string]any{"service_name": s.Source, "user_id": s.UserID}
	if s.UserID == "" {
		meta["user_id"] = "session:" + s.RunID // the source names none: on whose session it was
	}
	for name, v := range map[string]string{"model": s.Model, "patient_id": s.SubjectID} {
		if v != "" {
			meta[name] = v
		}
	}
	ev := audit.Event{
		AgentID: s.Agent + "/" + s.Domain, TraceID: s.RunID, Inputs: object(s.Input), Outputs: object(s.Output), Metadata: audit.Of(meta),
	}
	switch s.Kind {
	case "run_start":
		ev.EventType, ev.Action = audit.AgentLoopStart, "agent_execution_start"
	case "llm_call":
		ev.EventType, ev.Action = audit.LLMCall, "llm_call"
	case "tool_call":
		ev.EventType, ev.Action = audit.ToolUse, "tool_use:"+s.Action
	case "run_end":
		ev.EventType, ev.Action = audit.AgentLoopEnd, "agent_execution_end"
	}
	if e := string(s.Error); e != "" && e != "null" {
		ev.Success, ev.Error = new(false), &e
	}
	return ev
}

// recordRuns records the runs of a source under a policy.
func recordRuns(t *testing.T, source string, config policy.Config) (*audit.Trail, []runStep) {
	t.Helper()
	p, err := policy.New(config)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	trail, err := audit.Open(filepath.Join(dir, "audit.jsonl"), &audit.Options{StateDir: filepath.Join(dir, "state"), Policy: p})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := trail.Close(); err != nil {
			t.Error(err)
		}
		if r, err := trail.Verify(context.Background(), nil); err != nil || r.Status != "intact" {
			t.Errorf("verify: %+v, %v", r, err)
		}
	})
	steps := runSteps(t, source)
	events := make([]audit.Event, len(steps))
	for i := range steps {
		events[i] = steps[i].event()
	}
	if _, err := trail.RecordBatch(t.Context(), events); err != nil {
		t.Fatal(err)
	}
	return trail, steps
}

func entries(t *testing.T, trail *audit.Trail, q audit.Query) []audit.Entry {
	t.Helper()
	var all []audit.Entry
	for e, err := range trail.Query(t.Context(), q) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

func measure(t *testing.T, trail *audit.Trail, name string) (count, of int64) {
	t.Helper()
	r, err := trail.GapReport(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range r.Agents {
		for _, m := range a.Measures {
			if m.Name == name {
				count, of = count+m.Count, of+m.Of
			}
		}
	}
	return count, of
}

// With a rule for its tools every FHIR access of the EHR runs is a PHI_ACCESS that
// says who, which patient and why, though nobody who recorded it knew: and nothing
// else is one.
func TestEveryFHIRAccessOfRealRunsIsAPHIAccess(t *testing.T) {
	ehr := policy.Config{Tools: []policy.Tool{{
		When: policy.When{Tools: []string{"fhir_get", "fhir_post"}}, PHI: true,
		Resource: &policy.Resource{Type: "patient", ID: []string{"/metadata/patient_id"}},
		Subjects: []string{"/inputs/payload/subject/reference"}, Reason: "treatment",
	}}}
	trail, steps := recordRuns(t, "medagentbench", ehr)
	accesses, other, failed := 0, 0, 0
	all := entries(t, trail, audit.Query{})
	for i, s := range steps {
		e := all[i]
		if s.Action != "fhir_get" && s.Action != "fhir_post" {
			if other++; e.EventType == audit.PHIAccess {
				t.Errorf("entry %d, %s, is a PHI_ACCESS", e.Index, e.Action)
			}
			continue
		}
		accesses++
		if !e.Success {
			failed++
		}
		if e.EventType != audit.PHIAccess || e.Resource.Text("type") != "patient" || e.Resource.Text("id") != s.SubjectID ||
			e.Metadata.Text("user_id") == "" || e.Metadata.Text("access_reason") != "treatment" || e.Action != "tool_use:"+s.Action {
			t.Errorf("entry %d is no access that says who, whose and why: %s", e.Index, e.Line()[:300])
		}
		found := entries(t, trail, audit.Query{Subject: s.SubjectID, EventTypes: []string{audit.PHIAccess}})
		if !slices.ContainsFunc(found, func(f audit.Entry) bool { return f.Index == e.Index }) {
			t.Errorf("entry %d is not found by its patient", e.Index)
		}
	}
	if accesses < 6 || other < accesses || failed < 1 {
		t.Errorf("%d accesses, %d of them failed, %d other entries", accesses, failed, other)
	}
	// The patient whom an order names is a subject too.
	orders := entries(t, trail, audit.Query{Subject: "Patient/*"})
	for _, e := range orders {
		if v, _ := e.At("/inputs/payload/subject/reference"); string(v.JSON()) != fmt.Sprintf(`"Patient/%s"`, e.Resource.Text("id")) {
			t.Errorf("entry %d is an order for %s in the record of %s", e.Index, v.JSON(), e.Resource.Text("id"))
		}
	}
	if len(orders) == 0 {
		t.Error("no order names its patient")
	}
	if missing, of := measure(t, trail, "no_resource"); missing != 0 || of != int64(len(steps)) {
		t.Errorf("%d of %d entries do not say what they were about", missing, of)
	}
	complete, _ := measure(t, trail, "complete")
	t.Logf("%d steps, %d FHIR accesses (%d failed), %d orders that name their patient; all six fields of PCI DSS 10.2.2 in %d", len(steps), accesses, failed, len(orders), complete)
}

// In the retail run the agent was declared to serve one customer and served
// another: the trail shows both, by their ids and under pseudonyms.
func TestWhoWasServedIsShownBesideWhoWasDeclared(t *testing.T) {
	const declared, served = "harper_moore_6183", "james_sanchez_3954"
	tools := []policy.Tool{{
		When:     policy.When{Tools: []string{"find_user_id_by_*"}},
		Resource: &policy.Resource{Type: "customer", ID: []string{"/outputs/value"}}, Subjects: []string{"/outputs/value"},
	}, {
		When:     policy.When{Tools: []string{"get_user_details"}},
		Resource: &policy.Resource{Type: "customer", ID: []string{"/inputs/user_id"}}, Subjects: []string{"/inputs/user_id"},
	}, {
		When:     policy.When{Tools: []string{"*order*"}},
		Resource: &policy.Resource{Type: "order", ID: []string{"/inputs/order_id"}}, Subjects: []string{"/outputs/user_id"},
	}}
	check := func(trail *audit.Trail, steps []runStep) {
		t.Helper()
		about := 0
		for _, s := range steps {
			if strings.HasSuffix(s.RunID, "/0064") && s.Kind == "tool_call" && s.Action != "get_product_details" {
				about++
			}
		}
		of := entries(t, trail, audit.Query{Subject: served, Trace: "*/0064"})
		both := entries(t, trail, audit.Query{Subject: served, User: declared})
		if len(of) != about || len(both) != about || about < 6 {
			t.Errorf("%d entries about who was served, %d of them by who was declared, want %d", len(of), len(both), about)
		}
		changed := false
		for _, e := range both {
			changed = changed || e.Action == "tool_use:modify_pending_order_items" && e.Success
		}
		if !changed {
			t.Error("that the other's order was changed is not among them")
		}
	}
	trail, steps := recordRuns(t, "tau-bench-retail", policy.Config{Tools: tools})
	check(trail, steps)
	m := audit.AuditTrailManager{Trail: trail}
	if all, err := m.QueryByUser(t.Context(), declared); err != nil || len(all) == 0 || all[0].Metadata.Text("user_id") != declared {
		t.Errorf("%d entries of who was declared, %v", len(all), err)
	}

	fields := []policy.Field{
		{Path: "/metadata/user_id", Action: policy.Pseudonymise}, {Path: "/outputs/**/user_id", Action: policy.Pseudonymise},
		{Path: "/inputs/user_id", Action: policy.Pseudonymise}, {Path: "/resource/id", Action: policy.Pseudonymise},
		{Path: "/outputs/value", Action: policy.Pseudonymise, When: policy.When{Tools: []string{"find_user_id_by_*"}}},
	}
	trail, steps = recordRuns(t, "tau-bench-retail", policy.Config{Tools: tools, Fields: fields})
	check(trail, steps)
	for _, e := range entries(t, trail, audit.Query{EventTypes: []string{entry.ToolUse}}) {
		if user := e.Metadata.Text("user_id"); len(user) != 64 {
			t.Errorf("entry %d has the user %q", e.Index, user)
		}
	}
	pseudonym, err := trail.Pseudonymize(t.Context(), declared)
	if found := entries(t, trail, audit.Query{User: pseudonym}); err != nil || len(found) == 0 {
		t.Errorf("%d entries under the pseudonym, %v", len(found), err)
	}
}
