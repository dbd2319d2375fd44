package export_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/export"
)

func mia() export.Person {
	return export.Person{ID: "mia", Names: map[string]bool{"mia": true}, Resources: map[string]bool{"mia": true}}
}

// Whatever a line holds: what is shown of it is JSON, a masked entry has nothing of
// what stands for another person or for the line, and a proved one is the line.
func FuzzFor(f *testing.F) {
	const id = "019b8656-e3c0-7001-8001-000000000007"
	for _, line := range []string{
		`{"timestamp":"2026-01-01T00:00:00.000Z","event_type":"TOOL_USE","agent_id":"a","trace_id":"t","action":"x","inputs":{"n":1},"outputs":{},"duration_ms":1,"success":true,"error":null,"metadata":{"user_id":"mia"},"event_id":"` + id + `"}`,
		`{"event_type":"PHI_ACCESS","agent_id":"a","action":"x","inputs":{"secret":"canary-1"},"outputs":{},"error":"canary-2","metadata":{"user_id":"mia","note":"canary-3","imported_from":"canary-4"},"event_id":"` + id + `","idempotency_key":"canary-5","span_id":"canary-6","resource":{"type":"patient","id":"canary-7"},"authority":{"by":"canary-8"}}`,
		`{"event_type":"TOOL_USE","inputs":{"for":"mia"},"metadata":{"user_id":"canary-9","ip_address":"canary-10"},"event_id":"` + id + `","policy":{"subjects":["/inputs/for"]}}`,
		`{"metadata":{"user_id":"mia"},"metadata":{"user_id":"noah"},"inputs":"\ud800"}`,
		`{"event_type":"PHI_ACCESS","resource":"mia","metadata":[],"inputs":7}`,
	} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		e, err := entry.Parse(line)
		if err != nil || bytes.IndexByte(line, '\n') >= 0 {
			return
		}
		item, ok := mia().For("example.com/trail", export.Source{Entry: e}, 1<<20)
		if !ok {
			return
		}
		if !json.Valid(item.AppendJSON(nil)) {
			t.Fatalf("no JSON: %s", item.AppendJSON(nil))
		}
		if item.Proved {
			if !bytes.Equal(item.View.View(), line) {
				t.Fatalf("proved, and shown as %s", item.View.View())
			}
			return
		}
		text := string(item.AppendJSON(nil))
		if strings.Contains(text, `"event_id"`) && item.View.EventID != "" || strings.Contains(text, `"digest":"`) && item.View.IdempotencyKey != "" {
			t.Fatalf("masked, with what tells the line: %s", text)
		}
		if len(item.Keys) > 0 || item.LineKey != nil {
			t.Fatal("masked, with keys")
		}
	})
}

// Of an access to somebody else's record nothing is left that says whose or what.
func TestMaskedAccessSaysNothingOfThePatient(t *testing.T) {
	line := `{"timestamp":"2026-01-01T00:00:00.000Z","event_type":"PHI_ACCESS","agent_id":"emr","trace_id":"t","action":"read","inputs":{"a":"canary"},"outputs":{"b":"canary"},"duration_ms":1,"success":false,"error":"canary","metadata":{"user_id":"mia","note":"canary","imported_from":"canary","environment":"test"},"event_id":"canary","idempotency_key":"canary","recorded_at":"2026-01-01T00:00:00.000Z","span_id":"canary","parent_span_id":"canary","resource":{"type":"patient","id":"canary"},"authority":{"by":"canary"},"policy":{"omitted":["/canary"]}}`
	e, err := entry.Parse([]byte(line))
	if err != nil {
		t.Fatal(err)
	}
	item, ok := mia().For("example.com/trail", export.Source{Entry: e}, 1<<20)
	if !ok || item.Proved || strings.Join(item.Roles, " ") != "actor" {
		t.Fatalf("%+v", item)
	}
	text := string(item.AppendJSON(nil))
	if strings.Contains(text, "canary") {
		t.Error(text)
	}
	for _, want := range []string{`"user_id":"mia"`, `"action":"read"`, `"type":"patient"`, `"environment":"test"`, `"success":false`} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is not in %s", want, text)
		}
	}
}
