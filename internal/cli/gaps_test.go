package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	audit "github.com/kaizen-audit/kaizen-audit"
)

// What the gap report gives as a setting is one: pasted into a configuration file
// it is valid, and the same events have the gap no more.
func TestSettingsOfTheGapReportMend(t *testing.T) {
	t.Setenv("KAIZEN_AUDIT_STATE", t.TempDir())
	dir := t.TempDir()
	event := `{"event_type":"DATA_ACCESS","agent_id":"a","action":"tool_use:get_chart \"2\"","inputs":{"n":1,"patient_id":"P12345"},"metadata":{"user_id":"doctor123","ip_address":"192.0.2.1"}}`
	config := filepath.Join(dir, "mend.yaml")
	gaps := func(name string, flags ...string) audit.GapReport {
		t.Helper()
		log := filepath.Join(dir, name+".jsonl")
		if code, _, errs := main(t, event, append([]string{"record", "--log", log}, flags...)...); code != exitDone {
			t.Fatalf("record: %d, %s", code, errs)
		}
		code, out, errs := main(t, "", "report", "--gaps", "--format", "json", "--log", log)
		var r audit.GapReport
		if err := json.Unmarshal([]byte(out), &r); code != exitDone || err != nil || len(r.Agents) != 1 {
			t.Fatalf("report: %d, %s, %v", code, errs, err)
		}
		return r
	}
	measures := func(r audit.GapReport) map[string]int64 {
		m := map[string]int64{}
		for _, x := range r.Agents[0].Measures {
			m[x.Name] = x.Count
		}
		return m
	}
	before := gaps("before")
	if m := measures(before); m["no_resource"] != 1 || m["purpose"] != 0 || m["complete"] != 0 {
		t.Fatalf("before: %v", m)
	}
	tried := 0
	for _, m := range before.Agents[0].Measures {
		if !strings.HasPrefix(m.Mend, "policy: ") {
			continue
		}
		tried++
		if err := os.WriteFile(config, []byte(m.Mend+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if code, out, errs := main(t, "", "config", "check", config); code != exitDone {
			t.Errorf("%s: %s: %d\n%s%s", m.Name, m.Mend, code, out, errs)
		}
		if m.Name != "no_resource" {
			continue
		}
		after := measures(gaps("after", "--config", config))
		if after["no_resource"] != 0 || after["complete"] != 1 {
			t.Errorf("after %s: %v", m.Mend, after)
		}
	}
	if tried != 2 {
		t.Errorf("%d settings of the policy, want those of the purpose and of the resource", tried)
	}
}

// query --user finds a user in both forms, while another process holds the trail
// and when none does.
func TestQueryByUserFindsPseudonyms(t *testing.T) {
	state := t.TempDir()
	t.Setenv("KAIZEN_AUDIT_STATE", state)
	log := filepath.Join(t.TempDir(), "a.jsonl")
	trail, err := audit.Open(log, nil)
	if err != nil {
		t.Fatal(err)
	}
	p, err := trail.Pseudonymize(t.Context(), "user123")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []map[string]any{{"user_id": "user123"}, {"user_id_hash": p}, {"user_id": "user124"}} {
		if _, err := trail.Record(t.Context(), audit.Event{EventType: audit.ToolUse, AgentID: "a", Action: "tool_use:x", Metadata: audit.Of(m)}); err != nil {
			t.Fatal(err)
		}
	}
	ask := func() {
		t.Helper()
		for flag, want := range map[string]int{"--user": 2, "--subject": 2, "--text": 1} {
			code, out, errs := main(t, "", "query", flag, "user123", "--format", "jsonl", "--log", log)
			if n := strings.Count(out, "\n"); code != exitDone || n != want || errs != "" {
				t.Errorf("%s: %d, %d entries, want %d, %s", flag, code, n, want, errs)
			}
		}
		if _, out, _ := main(t, "", "query", "--user", "user123", "--log", log); !strings.Contains(out, p) {
			t.Errorf("the table does not show the pseudonym\n%s", out)
		}
	}
	ask()
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	ask()
}
