package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/kaizen-audit/kaizen-audit/entry"
)

// gapLine makes an entry; more replaces or adds members.
func gapLine(t *testing.T, index int64, eventType, action, more string) entry.Entry {
	t.Helper()
	members := map[string]json.RawMessage{}
	base := fmt.Sprintf(`{"timestamp":"2026-01-02T03:04:05.000Z","event_type":%q,"agent_id":"a","trace_id":"t","action":%q,"inputs":{"q":1},"outputs":{},
		"duration_ms":1,"success":true,"error":null,"metadata":{"user_id":"u1","ip_address":"192.0.2.1"},"recorded_at":"2026-01-02T03:04:05.100Z","purpose":"service"}`, eventType, action)
	for _, text := range []string{base, more} {
		if text == "" {
			continue
		}
		if err := json.Unmarshal([]byte(text), &members); err != nil {
			t.Fatal(err)
		}
	}
	text, err := json.Marshal(members)
	if err != nil {
		t.Fatal(err)
	}
	e, err := entry.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	e.Index = index
	return e
}

// Each gap is counted where it is and nowhere else: beside a whole entry, one with
// the gap, and what must have changed.
func TestEachGapIsCounted(t *testing.T) {
	whole := map[string]int64{complete: 1, uniqueUser: 1, withPurpose: 1, withContent: 1}
	for name, tc := range map[string]struct {
		eventType, action, more string
		gaps                    map[string]int64 // what differs from a second whole entry
	}{
		"whole":         {"TOOL_USE", "tool_use:x", ``, nil},
		"pseudonym":     {"TOOL_USE", "tool_use:x", `{"metadata":{"user_id_hash":"0f","host":"h"}}`, nil},
		"no user":       {"TOOL_USE", "tool_use:x", `{"metadata":{"user_id":"","host":"h"}}`, map[string]int64{complete: -1, uniqueUser: -1, noUser: 1}},
		"user is null":  {"TOOL_USE", "tool_use:x", `{"metadata":{"user_id":null,"host":"h"}}`, map[string]int64{complete: -1, uniqueUser: -1, noUser: 1}},
		"shared user":   {"TOOL_USE", "tool_use:x", `{"metadata":{"user_id":"Admin","host":"h"}}`, map[string]int64{uniqueUser: -1, sharedUser: 1}},
		"agent as user": {"TOOL_USE", "tool_use:x", `{"metadata":{"user_id":"a","host":"h"}}`, map[string]int64{uniqueUser: -1, sharedUser: 1}},
		"no type":       {"UNSPECIFIED", "x", ``, map[string]int64{complete: -1, noEventType: 1, withContent: -1}},
		"unknown":       {"TOOL_USE", "tool_use:x", `{"outcome":"unknown","success":false}`, map[string]int64{complete: -1, noResult: 1}},
		"agent alone":   {"TOOL_USE", "tool_use:x", `{"metadata":{"user_id":"u1"}}`, map[string]int64{weakOrigin: 1}},
		"access":        {"PHI_ACCESS", "tool_use:x", `{"resource":{"type":"patient","id":"P1"}}`, nil},
		"number as id":  {"PHI_ACCESS", "tool_use:x", `{"resource":{"id":7}}`, nil},
		"null as id":    {"PHI_ACCESS", "tool_use:x", `{"resource":{"id":null}}`, map[string]int64{complete: -1, noResource: 1}},
		"whose record":  {"PHI_ACCESS", "tool_use:x", `{"resource":{"type":"patient","id":""}}`, map[string]int64{complete: -1, noResource: 1}},
		"from nowhere":  {"CHD_ACCESS", "pay", `{"resource":{"id":"****1"},"metadata":{"user_id":"u1"}}`, map[string]int64{complete: -1, noOrigin: 1}},
		"at a terminal": {"CHD_ACCESS", "pay", `{"resource":{"id":"****1"},"metadata":{"user_id":"u1","pos_terminal":"P"}}`, nil},
		"no tool":       {"TOOL_USE", "tool_use", ``, map[string]int64{complete: -1, noResource: 1}},
		"no model":      {"LLM_CALL", "llm_call", ``, map[string]int64{complete: -1, noResource: 1}},
		"a model":       {"LLM_CALL", "llm_call", `{"metadata":{"user_id":"u1","host":"h","model":"m"}}`, nil},
		"the agent":     {"CHECKPOINT_SAVE", "checkpoint_save", ``, map[string]int64{withContent: -1}},
		"no purpose":    {"TOOL_USE", "tool_use:x", `{"purpose":""}`, map[string]int64{withPurpose: -1}},
		"undeclared":    {"TOOL_USE", "tool_use:x", `{"policy":{"flagged":["/purpose"]}}`, map[string]int64{withPurpose: -1, flagged: 1}},
		"empty":         {"TOOL_USE", "tool_use:x", `{"inputs":{}}`, map[string]int64{withContent: -1}},
		"kept back":     {"LLM_CALL", "llm_call:m", `{"metadata":{"user_id":"u1","host":"h","content_missing":"outputs"}}`, map[string]int64{withContent: -1}},
		"left out":      {"TOOL_USE", "tool_use:x", `{"policy":{"omitted":["/outputs"]}}`, map[string]int64{withContent: -1}},
		"denied":        {"TOOL_USE", "tool_use:x", `{"outcome":"denied","success":false}`, map[string]int64{denied: 1}},
		"not permitted": {"PERMISSION_CHECK", "permission_check:x", `{"success":false}`, map[string]int64{denied: 1, withContent: -1}},
		"permitted":     {"PERMISSION_CHECK", "permission_check:x", ``, map[string]int64{withContent: -1}},
		"a minute":      {"TOOL_USE", "tool_use:x", `{"recorded_at":"2026-01-02T03:05:05.000Z"}`, nil},
		"late":          {"TOOL_USE", "tool_use:x", `{"recorded_at":"2026-01-02T03:05:05.001Z"}`, map[string]int64{late: 1}},
		"backdated":     {"TOOL_USE", "tool_use:x", `{"recorded_at":"2026-01-03T03:04:05.001Z"}`, map[string]int64{backdated: 1}},
		"ahead":         {"TOOL_USE", "tool_use:x", `{"recorded_at":"2026-01-02T03:03:04.000Z"}`, map[string]int64{ahead: 1}},
		"begun":         {"AGENT_LOOP_START", "agent_execution_start", ``, map[string]int64{notEnded: 1, withContent: -1}},
		"an end alone":  {"AGENT_LOOP_END", "agent_execution_end", ``, map[string]int64{withContent: -1}},
	} {
		b := NewGaps(Meta{Generated: generated})
		b.Add(gapLine(t, 5, "TOOL_USE", "tool_use:x", ""))
		b.Add(gapLine(t, 7, tc.eventType, tc.action, tc.more))
		r := b.Report()
		if len(r.Agents) != 1 || r.TotalEntries != 2 || r.FirstIndex != 5 || r.LastIndex != 7 {
			t.Fatalf("%s: %+v", name, r)
		}
		for i, m := range r.Agents[0].Measures {
			want := 2*whole[m.Name] + tc.gaps[m.Name]
			if m.Count != want {
				t.Errorf("%s: %s is %d, want %d", name, m.Name, m.Count, want)
			}
			if gap := tc.gaps[m.Name] != 0 && !(m.Name == withContent && m.Of == 1); gap != (m.First != nil) || gap && *m.First != 7 {
				t.Errorf("%s: %s: the first is %v", name, m.Name, m.First)
			}
			if m.Mend != "" && !m.gap(i) {
				t.Errorf("%s: %s needs no mending", name, m.Name)
			}
		}
	}
}

func TestLoopsArePairedByTrace(t *testing.T) {
	b := NewGaps(Meta{Generated: generated})
	for i, e := range []struct{ eventType, trace string }{
		{"AGENT_LOOP_START", "t1"}, {"AGENT_LOOP_START", "t2"}, {"AGENT_LOOP_START", "t2"}, {"AGENT_LOOP_END", "t1"}, {"AGENT_LOOP_END", "t2"},
		{"AGENT_LOOP_END", "t3"}, {"AGENT_LOOP_START", "t3"}, {"AGENT_LOOP_START", "t1"}, {"AGENT_LOOP_END", "t1"},
	} {
		b.Add(gapLine(t, int64(i), e.eventType, "x", fmt.Sprintf(`{"trace_id":%q}`, e.trace)))
	}
	m := b.Report().Agents[0].Measures[measured(notEnded)]
	if m.Count != 2 || *m.First != 1 {
		t.Errorf("%d, the first %d, want one of t2 and t3's", m.Count, *m.First)
	}
}

// The whole report, as text and JSON, over every kind of line.
func TestGapReport(t *testing.T) {
	b := NewGaps(Meta{Generated: generated, Checkpoint: &Checkpoint{Origin: "example.org/trail", Size: 12, Root: "cm9vdA==", AnchoredTo: -1}})
	for i, e := range []struct{ eventType, action, more string }{
		{"AUDIT_CREATED", "trail_created", `{"agent_id":"kaizen-audit"}`},
		{"AGENT_LOOP_START", "agent_execution_start", ``},
		{"TOOL_USE", "tool_use:calculator", `{"metadata":{"user_id":"user2"},"purpose":""}`},
		{"PHI_ACCESS", "tool_use:get_chart\n", `{"inputs":{"n":1,"patient_id":"P1"},"metadata":{"user_id":"unknown"}}`},
		{"PHI_ACCESS", "tool_use:get_chart\n", `{"inputs":{"patient_id":"P2"},"outcome":"denied","success":false}`},
		{"LLM_CALL", "llm_call", `{"agent_id":"evil\nMeasure: 9\u001b[2J","metadata":{"content_missing":"inputs,outputs"},"recorded_by":{"via":"otlp"},"recorded_at":"2026-02-02T03:04:05.000Z"}`},
		{"TOOL_USE", "tool_use:x", `{"recorded_by":{"via":"import"}}`},
		{"TOOL_USE", "tool_use:x", `{"agent_id":"whole","timestamp":"2026-01-01T00:00:00.000Z"}`},
	} {
		b.Add(gapLine(t, int64(i), e.eventType, e.action, e.more))
	}
	b.AddBroken(8)
	b.AddMissing(Gap{First: 9, Count: 2, Detail: "entries 9 to 10 are missing"})
	r := b.Report()
	var out bytes.Buffer
	if err := r.WriteText(&out); err != nil {
		t.Fatal(err)
	}
	golden(t, "gaps.txt", out.Bytes())
	for _, c := range out.String() {
		if c < 0x20 && c != '\n' || c >= 0x7f {
			t.Errorf("the report holds %U", c)
		}
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "gaps.json", append(text, '\n'))
}

func TestEmptyGapReport(t *testing.T) {
	text, err := json.Marshal(NewGaps(Meta{Generated: generated}).Report())
	if err != nil || !strings.Contains(string(text), `"agents":[]`) || !strings.Contains(string(text), `"first_index":-1`) {
		t.Errorf("%s, %v", text, err)
	}
}

// Users past the limit are said to be more, and are held no more.
func TestUsersAreBounded(t *testing.T) {
	b := NewGaps(Meta{Generated: generated})
	b.users = maxUsers - 1
	for i := range 5 {
		b.Add(gapLine(t, int64(i), "TOOL_USE", "tool_use:x", fmt.Sprintf(`{"metadata":{"user_id":"u%d"}}`, i/2)))
	}
	a := b.Report().Agents[0]
	if a.Users != 1 || !a.UsersMore || a.users() != "1 users or more" {
		t.Errorf("%d users, %v, %s", a.Users, a.UsersMore, a.users())
	}
}

// What entries were for is counted, and is not in the report where none says it.
func TestPurposesAreCounted(t *testing.T) {
	b := New(Meta{Generated: generated, RetentionDays: 2555})
	for i, p := range []string{"billing", "treatment", "", "treatment", "\x1b[2J"} {
		more, _ := json.Marshal(p)
		b.Add(line(t, int64(i), "a", "TOOL_USE", "x", "2025-10-26T10:00:00Z", 1, true, `,"purpose":`+string(more)))
	}
	for i := range maxPurposes {
		b.Add(line(t, int64(5+i), "a", "TOOL_USE", "x", "2025-10-26T10:00:00Z", 1, true, fmt.Sprintf(`,"purpose":"p%d"`, i)))
	}
	r := b.Report()
	var out bytes.Buffer
	if err := r.WriteText(&out); err != nil {
		t.Fatal(err)
	}
	if len(r.Purposes) != maxPurposes || r.PurposesMore != 3 || r.WithoutPurpose != 1 || r.Purposes[0] != (Purpose{"treatment", 2}) {
		t.Errorf("%d purposes, %d others, %d without, first %+v", len(r.Purposes), r.PurposesMore, r.WithoutPurpose, r.Purposes[0])
	}
	for _, want := range []string{"\nPurpose: treatment: 2\nPurpose: \\x1b[2J: 1\n", "\nPurpose: others: 3\nPurpose: none: 1\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("lacks %q\n%s", want, out.String())
		}
	}
}
