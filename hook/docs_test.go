package hook

import (
	"context"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/entry"
)

// Every row of the table is triggered, and nothing that is documented has no row.
func TestTheTableOfTheDocumentationIsWhatIsRecorded(t *testing.T) {
	doc, err := os.ReadFile("../docs/hooks.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(doc), "| events | entry's event type | action |\n| --- | --- | --- |\n")
	if !ok {
		t.Fatal("there is no table")
	}
	table, _, _ := strings.Cut(rest, "\n\n")
	trail := openTrail(t, audit.Written)
	m, _ := recorder(t, trail, nil)
	code := regexp.MustCompile("`([^`]+)`")
	var want []string
	seen := map[Event]bool{}
	loop := context.Background()
	for row := range strings.Lines(table) {
		cells := strings.Split(row, "|")
		var events []Event
		for _, e := range code.FindAllStringSubmatch(cells[1], -1) {
			events = append(events, Event(e[1]))
			seen[Event(e[1])] = true
		}
		want = append(want, code.FindStringSubmatch(cells[2])[1]+" "+strings.Replace(code.FindStringSubmatch(cells[3])[1], "NAME", "x", 1))
		ctx := loop
		for _, e := range events {
			ctx = trigger(t, m, ctx, e, Data{Name: "x"})
		}
		if events[0] == PreAgentLoop {
			loop = ctx
		}
	}
	if got := strings.TrimSuffix(briefs(entries(t, trail)), "\n"); got != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
	source, err := os.ReadFile("event.go")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range regexp.MustCompile(`Event = "([a-z_]+)"`).FindAllStringSubmatch(string(source), -1) {
		if n++; !seen[Event(e[1])] {
			t.Errorf("%s has no row", e[1])
		}
	}
	if n != 22 {
		t.Errorf("%d events", n)
	}
	for k := range kinds {
		if !seen[k.Post()] && !seen[Event(k)] {
			t.Errorf("%s has no row", k)
		}
	}
}

// With an entry before each action, these names.
func TestEntriesBeforeActions(t *testing.T) {
	trail := openTrail(t, audit.Durable)
	m, _ := recorder(t, trail, &AuditOptions{Before: true})
	for _, k := range []Kind{AgentLoop, ToolUse, "report_sent", "audit_thing", "9ball", "ünique"} {
		if _, err := m.Do(context.Background(), k, Data{Name: "x"}, func(context.Context) (any, error) {
			all := entries(t, trail)
			if !strings.Contains(all[len(all)-1].EventType, "_START") {
				t.Errorf("%s began before its entry", k)
			}
			return nil, nil
		}); err != nil {
			t.Error(err)
		}
	}
	const want = `AGENT_LOOP_START agent_execution_start
AGENT_LOOP_END agent_execution_end
TOOL_USE_START tool_use_start:x
TOOL_USE tool_use:x
REPORT_SENT_START report_sent_start:x
REPORT_SENT report_sent:x
HOOK_AUDIT_THING_START audit_thing_start:x
HOOK_AUDIT_THING audit_thing:x
HOOK_9BALL_START 9ball_start:x
HOOK_9BALL 9ball:x
HOOK__NIQUE_START ünique_start:x
HOOK__NIQUE ünique:x
`
	if got := briefs(entries(t, trail)); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// Whatever stands in a file of what was begun, its slots are read, and become
// entries that can be recorded.
func FuzzBegun(f *testing.F) {
	slot := func(s string) string { return s + strings.Repeat("\x00", slotBytes-len(s)) }
	f.Add([]byte(slot(begunHead+"\n") + slot(`{"event_type":"TOOL_USE","agent_id":"a","action":"x","span_id":"s","trace_id":"t"}`+"\n") + slot("")))
	f.Add([]byte(slot(begunHead+"\n") + "{\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		texts := begunTexts(data)
		if len(texts) > len(data)/slotBytes+1 {
			t.Fatalf("%d slots in %d bytes", len(texts), len(data))
		}
		for i, text := range texts {
			ev, _ := abandonedEvent("0123456789abcdef.begun", i, text, func(text, notes []byte) (audit.Event, error) {
				ev, err := entry.ParseEvent(text)
				ev.NotePolicy(notes)
				return ev, err
			})
			ev.Success, ev.Outcome = &no, unknown
			st := &entry.Stamp{EventID: "01a206d7-e571-79eb-a84a-6a407a3be418", RecordedAt: time.Unix(0, 0), TraceID: "t"}
			if err := entry.KeepFact(&ev, st, nil); err != nil {
				t.Fatal(err)
			}
		}
	})
}
