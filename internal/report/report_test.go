package report

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/kaizen-audit/kaizen-audit/entry"
)

var update = flag.Bool("update", false, "write the golden files")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s:\ngot\n%s\nwant\n%s", name, got, want)
	}
}

// line makes an entry as a trail stores it, with more members where given.
func line(t *testing.T, index int64, agent, eventType, action, at string, ms float64, ok bool, more string) entry.Entry {
	t.Helper()
	text := func(s string) string {
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	e, err := entry.Parse(fmt.Appendf(nil,
		`{"timestamp":%s,"event_type":%s,"agent_id":%s,"trace_id":"t","action":%s,"inputs":{},"outputs":{},"duration_ms":%v,"success":%v,"error":null,"metadata":{}%s}`,
		text(at), text(eventType), text(agent), text(action), ms, ok, more))
	if err != nil {
		t.Fatal(err)
	}
	e.Index = index
	return e
}

var generated = time.Date(2025, 10, 26, 10, 53, 45, 123_999_999, time.UTC)

// documented adds what the documented example was made of, 1,234 agents' entries.
func documented(t *testing.T, b *Builder) {
	index := int64(0)
	add := func(agent, eventType, action, at string, ms float64, ok bool) {
		b.Add(line(t, index, agent, eventType, action, at, ms, ok, ""))
		index++
	}
	add("kaizen-audit", "AUDIT_CREATED", "trail_created", "2025-10-26T10:00:00.000Z", 0, true)
	for i := range 153 {
		add("qa-agent-001", "LLM_CALL", "plan", "2025-10-26T10:40:00.000Z", 1, i >= 2)
	}
	for i := range 1078 {
		add("bulk-agent", "TOOL_USE", "tool_use:copy", "2025-10-26T10:44:00.000Z", 1234.56, i%7 != 0)
	}
	add("qa-agent-001", "AGENT_LOOP_START", "agent_execution_start", "2025-10-26T10:45:12.999Z", 234.5, true)
	add("qa-agent-001", "TOOL_USE", "tool_use:calculator", "2025-10-26T12:45:13.000+02:00", 45.2, true)
	add("kaizen-audit", "AUDIT_QUERY", "query", "2025-10-26T10:50:00.000Z", 0, true)
	add("qa-agent-001", "AGENT_LOOP_END", "agent_execution_end", "2025-10-26T10:45:14.000Z", 289.7, true)
}

func TestTextIsTheDocumentedReport(t *testing.T) {
	b := New(Meta{Generated: generated, RetentionDays: 2555, Checkpoint: &Checkpoint{Origin: "example.org/trail", Size: 1236, Root: "cm9vdA==", AnchoredTo: -1}})
	documented(t, b)
	var out bytes.Buffer
	if err := b.Report().WriteText(&out); err != nil {
		t.Fatal(err)
	}
	golden(t, "documented.txt", out.Bytes())
	for _, want := range []string{
		"======================================================================\nAUDIT TRAIL COMPLIANCE REPORT\n======================================================================\n" +
			"Generated: 2025-10-26T10:53:45.123Z\nTotal entries: 1,234\nRetention period: 2555 days (7 years)\nEncryption: Disabled\nAccess control: Disabled\n\n",
		"Agent: qa-agent-001\n  Total operations: 156\n  Success rate: 154/156 (98.7%)\n  Recent operations:\n" +
			"    - 2025-10-26T10:45:12: agent_execution_start (234.5ms)\n" +
			"    - 2025-10-26T10:45:13: tool_use:calculator (45.2ms)\n" +
			"    - 2025-10-26T10:45:14: agent_execution_end (289.7ms)\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the report lacks\n%s", want)
		}
	}
}

func TestJSONHasTheSameFacts(t *testing.T) {
	b := New(Meta{Generated: generated, RetentionDays: 2555})
	documented(t, b)
	b.AddBroken(1300)
	b.AddBroken(1301)
	got, err := json.MarshalIndent(b.Report(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "documented.json", append(got, '\n'))
}

func TestEmptyTrailHasAReport(t *testing.T) {
	b := New(Meta{Generated: generated, RetentionDays: 365, AccessControl: true})
	var out bytes.Buffer
	if err := b.Report().WriteText(&out); err != nil {
		t.Fatal(err)
	}
	golden(t, "empty.txt", out.Bytes())
	got, err := json.Marshal(b.Report())
	if err != nil || !strings.Contains(string(got), `"agents":[]`) {
		t.Errorf("json: %s, %v", got, err)
	}
}

// TestEncryptionIsWhatTheLinesSay: an option never decides it, and the trail's
// own entries, always plain, don't count.
func TestEncryptionIsWhatTheLinesSay(t *testing.T) {
	const plain, inPart, empty, whole, own = 'p', 's', 'e', 'w', 'o'
	for _, tc := range []struct {
		lines string
		want  string
	}{
		{"", "Disabled"},
		{"ooo", "Disabled"},
		{"ppo", "Disabled"},
		{"oee", "Disabled"},
		{"oss", "Enabled"},
		{"owoswo", "Enabled"},
		{"oppsos", "Partly (from index 3)"},
		{"ospwww", "Partly (from index 3)"},
		{"osspo", "Partly (until index 2)"},
	} {
		b := New(Meta{Generated: generated, RetentionDays: 1})
		for i, kind := range tc.lines {
			index := int64(i)
			switch kind {
			case plain:
				b.Add(line(t, index, "a", "TOOL_USE", "x", "2025-10-26T10:00:00Z", 1, true, ""))
			case inPart:
				b.Add(line(t, index, "a", "TOOL_USE", "x", "2025-10-26T10:00:00Z", 1, true, `,"policy":{"sealed":["/inputs"]}`))
			case empty:
				b.Add(line(t, index, "a", "TOOL_USE", "x", "2025-10-26T10:00:00Z", 1, true, `,"policy":{"sealed":[]}`))
			case whole:
				e, err := entry.Parse([]byte(`{"sealed":"v1","key":"k","data":"AAAA"}`))
				if err != nil {
					t.Fatal(err)
				}
				e.Index = index
				b.Add(e)
			case own:
				b.Add(line(t, index, "kaizen-audit", "AUDIT_QUERY", "query", "2025-10-26T10:00:00Z", 0, true, ""))
			}
		}
		r := b.Report()
		if got := r.encryption(); got != tc.want {
			t.Errorf("%q: %s, want %s", tc.lines, got, tc.want)
		}
		if want := int64(strings.Count(tc.lines, "w")); r.Unattributed != want {
			t.Errorf("%q: %d entries without a readable agent, want %d", tc.lines, r.Unattributed, want)
		}
	}
}

// TestOnlyTheTrailsOwnAreApart: an agent's name alone makes no entry the
// trail's own, nor a type alone.
func TestOnlyTheTrailsOwnAreApart(t *testing.T) {
	b := New(Meta{Generated: generated})
	b.Add(line(t, 0, "kaizen-audit", "TOOL_USE", "x", "2025-10-26T10:00:00Z", 1, true, ""))
	b.Add(line(t, 1, "someone", "AUDIT_QUERY", "x", "2025-10-26T10:00:00Z", 1, true, ""))
	b.Add(line(t, 2, "kaizen-audit", "AUDIT_QUERY", "x", "2025-10-26T10:00:00Z", 1, true, ""))
	if r := b.Report(); r.TotalEntries != 2 || r.OwnEntries != 1 || len(r.Agents) != 2 {
		t.Errorf("%d entries, %d own, %d agents; want 2, 1, 2", r.TotalEntries, r.OwnEntries, len(r.Agents))
	}
}

// What senders of OTLP have kept to themselves is counted among the calls that
// came that way, and the report says where the switch is.
func TestCallsWithoutContentAreCounted(t *testing.T) {
	missing := func(scope string) string {
		return `,"recorded_by":{"via":"otlp"},"metadata":{"scope":{"name":"` + scope + `"},"content_missing":"inputs,outputs"}`
	}
	b := New(Meta{Generated: generated, RetentionDays: 2555})
	for i, e := range []struct{ eventType, more string }{
		{"LLM_CALL", missing("opentelemetry.instrumentation.openai_v2")}, {"TOOL_USE", missing("opentelemetry.instrumentation.openai_v2")},
		{"LLM_CALL", missing("openinference.instrumentation.langchain")}, {"LLM_CALL", missing("ai")}, {"LLM_CALL", missing("opentelemetry.instrumentation.openai.v1")},
		{"TOOL_USE", missing("someone\\nelse")}, {"LLM_CALL", `,"recorded_by":{"via":"otlp"},"metadata":{"content_missing":"inputs"}`},
		{"LLM_CALL", `,"recorded_by":{"via":"otlp"}`}, {"SPAN", `,"recorded_by":{"via":"otlp"}`}, {"LLM_CALL", `,"metadata":{"content_missing":"inputs"}`}, {"LLM_CALL", ""},
	} {
		b.Add(line(t, int64(i), "a", e.eventType, "x", "2025-10-26T10:00:00Z", 1, true, e.more))
	}
	var out bytes.Buffer
	r := b.Report()
	if err := r.WriteText(&out); err != nil {
		t.Fatal(err)
	}
	const want = `
Calls without content: 7 of 8 that came over OTLP (87.5%)
  2 by opentelemetry.instrumentation.openai_v2: turned on by OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=SPAN_AND_EVENT with OTEL_SEMCONV_STABILITY_OPT_IN=gen_ai_latest_experimental
  1 by a sender without a name: its switch is not known here; docs/otlp.md names those of others
  1 by ai: turned on by recordInputs: true and recordOutputs: true in experimental_telemetry
  1 by openinference.instrumentation.langchain: turned on by OPENINFERENCE_HIDE_INPUTS=false and OPENINFERENCE_HIDE_OUTPUTS=false
  1 by opentelemetry.instrumentation.openai.v1: turned on by OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=SPAN_AND_EVENT with OTEL_SEMCONV_STABILITY_OPT_IN=gen_ai_latest_experimental; of OpenLLMetry TRACELOOP_TRACE_CONTENT=true
`
	if r.WithoutContent != 7 || r.Telemetry != 8 || !strings.Contains(out.String(), want) {
		t.Errorf("%d of %d\n%s", r.WithoutContent, r.Telemetry, out.String())
	}
}

// Each switch that a report names stands in the documentation.
func TestSwitchesAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/otlp.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, scope := range []string{"ai", "openinference.instrumentation.langchain", "@traceloop/instrumentation-openai", "opentelemetry.util.genai.handler", "opentelemetry.instrumentation.vertexai"} {
		for _, word := range regexp.MustCompile(`[A-Za-z_]+[=:] ?[A-Za-z_]+`).FindAllString(contentSwitch(scope), -1) {
			if !strings.Contains(string(doc), word) {
				t.Errorf("%s is not in docs/otlp.md", word)
			}
		}
	}
}

func TestNamesCannotForgeTheReport(t *testing.T) {
	b := New(Meta{Generated: generated, RetentionDays: 2555})
	b.Add(line(t, 0, "evil\n  Total operations: 9\x1b[2J", "TOOL_USE", "act\u202egnp\r\u0085", "2025-10-26T10:00:00Z", 1, true, ""))
	var out bytes.Buffer
	if err := b.Report().WriteText(&out); err != nil {
		t.Fatal(err)
	}
	golden(t, "hostile.txt", out.Bytes())
	for _, c := range out.String() {
		if c < 0x20 && c != '\n' || c >= 0x7f {
			t.Errorf("the report holds %U", c)
		}
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"":                      "",
		"plain text, with = 1":  "plain text, with = 1",
		"Grüße 你好 🙂":            "Grüße 你好 🙂",
		"a\nb\tc\r":             `a\nb\tc\r`,
		"\x1b[31mred\x1b[0m":    `\x1b[31mred\x1b[0m`,
		"\x00\x07\x7f":          `\x00\a\x7f`,
		"bad \xff\xc0\xaf utf8": `bad \xff\xc0\xaf utf8`,
		"csi \u009b2J":          `csi \u009b2J`,
		"bidi \u202e \u2066":    `bidi \u202e \u2066`,
		"line \u2028 sep":       `line \u2028 sep`,
		"\uFFFD stays":          "\uFFFD stays",
		`it's "quoted" \ here`:  `it's "quoted" \ here`,
	} {
		if got := Printable(in); got != want {
			t.Errorf("Printable(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestRetentionInYears(t *testing.T) {
	for days, want := range map[int]string{
		2555: "2555 days (7 years)", 365: "365 days (1 year)", 90: "90 days (0.2 years)", 400: "400 days (1.1 years)", 0: "0 days (0 years)",
	} {
		if got := retention(days); got != want {
			t.Errorf("%d: %s, want %s", days, got, want)
		}
	}
}

// TestMemoryDoesNotGrowWithTheTrail: what a builder holds of an entry is not
// its line.
func TestMemoryDoesNotGrowWithTheTrail(t *testing.T) {
	b := New(Meta{Generated: generated})
	padding := strings.Repeat("x", 4096)
	e := line(t, 0, "a", "TOOL_USE", "x", "2025-10-26T10:00:00Z", 1, true, `,"purpose":"`+padding+`"`)
	allocated := testing.AllocsPerRun(1000, func() {
		e.Index++
		b.Add(e)
	})
	if allocated > 1 { // the action's copy
		t.Errorf("%v allocations an entry, want at most 1", allocated)
	}
	if r := b.Report(); len(r.Agents) != 1 || len(r.Agents[0].Recent) != 3 || cap(r.Agents[0].Recent) != 3 {
		t.Errorf("%d agents, want one with three operations", len(r.Agents))
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("plain")
	f.Add("\x1b]0;title\a\u202e\xff\u2028")
	f.Fuzz(func(t *testing.T, s string) {
		out := Printable(s)
		for _, r := range out {
			if r < 0x20 || r >= 0x7f && r < 0xa0 || r == 0x202e || r == 0x2028 {
				t.Errorf("Printable(%q) holds %U", s, r)
			}
		}
		if again := Printable(out); again != out {
			t.Errorf("Printable(%q) = %q, again %q", s, out, again)
		}
	})
}

// What another log had first is in none of the documented numbers.
func TestImportedAndAdoptedAreApart(t *testing.T) {
	b := New(Meta{Generated: generated})
	const at = "2025-10-26T10:40:00.000Z"
	created, err := entry.Parse([]byte(`{"event_type":"AUDIT_CREATED","agent_id":"kaizen-audit","outputs":{"adopted":{"first":1,"count":4}}}`))
	if err != nil {
		t.Fatal(err)
	}
	b.Add(created)
	b.Add(line(t, 1, "a", "TOOL_USE", "x", at, 1, false, ""))
	b.Add(line(t, 3, "kaizen-audit", "AUDIT_HOLD", "hold_lifted", at, 1, true, ""))
	b.Add(line(t, 5, "a", "TOOL_USE", "x", at, 1, true, ""))
	b.Add(line(t, 6, "a", "TOOL_USE", "x", at, 1, false, `,"recorded_by":{"via":"import"}`))
	b.Add(line(t, 7, "b", "TOOL_USE", "x", at, 1, true, `,"recorded_by":{"via":"socket"}`))
	r := b.Report()
	if r.TotalEntries != 2 || r.OwnEntries != 1 || r.ImportedEntries != 1 || r.AdoptedLines != 4 || r.AdoptedBroken != 2 || r.Broken != 0 {
		t.Errorf("%+v", r)
	}
	if a := r.Agents[0]; a.AgentID != "a" || a.Operations != 1 || a.Successful != 1 || a.Imported != 2 || len(a.Recent) != 1 {
		t.Errorf("%+v", a)
	}
}
