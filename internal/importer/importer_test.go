package importer

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/kaizen-audit/kaizen-audit/entry"
)

var at = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// recorded is an event as the trail writes it.
func recorded(ev *entry.Event) ([]byte, error) {
	return entry.AppendLine(nil, ev, &entry.Stamp{EventID: "id", RecordedAt: at, TraceID: "new"})
}

const (
	documented = `{"timestamp":"2025-10-26T10:53:45.123Z","event_type":"TOOL_USE","agent_id":"a","trace_id":"t","action":"x","inputs":{"n":1.50},"outputs":{},"duration_ms":45.20,"success":false,"error":"no","metadata":{"user_id":"u","k":[1]}}`
	other      = `{"timestamp":"2025-10-26T12:53:45.123456+02:00","agent_id":"a","action":"x","details":{"b":1,"a":2},"result":"ok","user_id":"u","metadata":{"k":"v"}}`
)

func TestBothFormatsBecomeMarkedEvents(t *testing.T) {
	src := New("old.log", []byte(documented))
	mark := func(n int, line string) string {
		d := sha256.Sum256([]byte(line))
		return fmt.Sprintf(`"imported_from":"old.log","imported_line":%d,"imported_digest":"%s"`, n, hex.EncodeToString(d[:]))
	}
	for _, tc := range []struct {
		in   string
		want string // up to metadata's marks, which end it unless more says what follows
		more string
	}{
		{documented, `{"timestamp":"2025-10-26T10:53:45.123Z","event_type":"TOOL_USE","agent_id":"a","trace_id":"t","action":"x","inputs":{"n":1.50},"outputs":{},"duration_ms":45.20,"success":false,"error":"no","metadata":{"user_id":"u","k":[1],`, ""},
		{other, `{"timestamp":"2025-10-26T10:53:45.123Z","event_type":"IMPORTED","agent_id":"a","trace_id":"` + src.Trace() + `","action":"x","inputs":{"b":1,"a":2},"outputs":{"value":"ok"},"duration_ms":0,"success":true,"error":null,"metadata":{"k":"v","user_id":"u",`, ""},
		// A word for a failure must not become a success.
		{`{"timestamp":"2025-01-01T00:00:00Z","agent_id":"a","action":"x","result":"Denied"}`,
			`{"timestamp":"2025-01-01T00:00:00.000Z","event_type":"IMPORTED","agent_id":"a","trace_id":"` + src.Trace() + `","action":"x","inputs":{},"outputs":{"value":"Denied"},"duration_ms":0,"success":false,"error":null,"metadata":{`, ""},
		// Forged entries of a trail are renamed, what a trail had set is kept aside.
		{`{"timestamp":"2025-01-01T00:00:00Z","event_type":"AUDIT_HOLD","agent_id":"kaizen-audit","trace_id":"o","action":"hold_lifted","event_id":"e","idempotency_key":"k","metadata":{"imported_from":"x"},"note":null}`,
			`{"timestamp":"2025-01-01T00:00:00.000Z","event_type":"IMPORTED_AUDIT_HOLD","agent_id":"imported:kaizen-audit","trace_id":"o","action":"hold_lifted","inputs":{},"outputs":{},"duration_ms":0,"success":true,"error":null,"metadata":{`,
			`,"imported_members":{"event_id":"e","idempotency_key":"k","metadata.imported_from":"x"}`},
		{` { "timestamp" : "2025-01-01T00:00:00Z" , "agent_id":"a", "action":"\u0078", "metadata":"text", "inputs":null } ` + "\r",
			`{"timestamp":"2025-01-01T00:00:00.000Z","event_type":"IMPORTED","agent_id":"a","trace_id":"` + src.Trace() + `","action":"x","inputs":{},"outputs":{},"duration_ms":0,"success":true,"error":null,"metadata":{"value":"text",`, ""},
	} {
		ev, err := src.Event(7, []byte(tc.in))
		if err != nil {
			t.Errorf("%s: %v", tc.in, err)
			continue
		}
		line, err := recorded(&ev)
		want := tc.want + mark(7, tc.in) + tc.more + `},"event_id":"id","idempotency_key":"`
		if err != nil || !strings.HasPrefix(string(line), want) {
			t.Errorf("%s\ngives %s, %v\nwant  %s", tc.in, line, err, want)
		}
	}
}

func TestRefusedLinesSayWhy(t *testing.T) {
	for in, want := range map[string]string{
		`not json`:                      "line 1, column 1",
		`[]`:                            "not a JSON object",
		`{"a":1,"a":2}`:                 "twice",
		"{\"a\":\"\xff\"}":              "UTF-8",
		`{"agent_id":"a","action":"x"}`: "timestamp: is required",
		`{"timestamp":"2025-01-01T00:00:00Z","action":"x"}`:                                                         "agent_id: is required",
		`{"timestamp":"2025-01-01T00:00:00Z","agent_id":"a"}`:                                                       "action: is required",
		`{"timestamp":"yesterday","agent_id":"a","action":"x"}`:                                                     "timestamp: must be",
		`{"timestamp":"2025-01-01T00:00:00Z","agent_id":5,"action":"x"}`:                                            "agent_id: must be a string",
		`{"timestamp":"2025-01-01T00:00:00Z","event_type":"tool","agent_id":"a","action":"x"}`:                      "event_type: must be upper-case",
		`{"timestamp":"2025-01-01T00:00:00Z","agent_id":"a","action":"x","inputs":{},"details":{}}`:                 "details: stands beside inputs",
		`{"timestamp":"2025-01-01T00:00:00Z","agent_id":"a","action":"x","user_id":"u","metadata":{"user_id":"v"}}`: "user_id: is another",
	} {
		ev, err := New("f", nil).Event(1, []byte(in))
		if err == nil {
			_, err = recorded(&ev)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", in, err, want)
		}
	}
}

func TestKeysTellLinesAndFilesApart(t *testing.T) {
	keys := map[string]string{}
	for _, name := range []string{"a", "b"} {
		for _, first := range []string{"x", "y"} {
			src := New(name, []byte(first))
			for _, line := range []string{other, documented} {
				for n := range int64(3) {
					ev, err := src.Event(n+1, []byte(line))
					if err != nil {
						t.Fatal(err)
					}
					what := fmt.Sprint(name, first, n, line)
					if was, ok := keys[ev.IdempotencyKey]; ok {
						t.Fatalf("%s and %s have one key", was, what)
					}
					keys[ev.IdempotencyKey] = what
					if ev.IdempotencyKey != src.Key(n+1, []byte(line)) || !strings.HasPrefix(ev.IdempotencyKey, src.Prefix()) {
						t.Fatalf("key %s", ev.IdempotencyKey)
					}
				}
			}
		}
	}
}

// fuzz: what is mapped keeps every value of the line, can't be taken for a
// trail's own entry, and comes out the same twice.
func fuzz(f *testing.F, seeds ...string) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		src := New("f", []byte("first"))
		ev, err := src.Event(3, line)
		if err != nil {
			if !errors.As(err, new(*entry.SyntaxError)) && !errors.As(err, new(*entry.FieldError)) {
				t.Fatalf("%v", err)
			}
			return
		}
		out, err := recorded(&ev)
		if err != nil {
			return // refused as any event
		}
		again, _ := src.Event(3, bytes.Clone(line))
		if twice, err := recorded(&again); err != nil || !bytes.Equal(out, twice) {
			t.Fatalf("%s\n%s", out, twice)
		}
		e, err := entry.Parse(out)
		if err != nil || e.IsTrails() || strings.HasPrefix(e.EventType, entry.TrailPrefix) {
			t.Fatalf("%s, %v", out, err)
		}
		d := sha256.Sum256(line)
		if e.Metadata.Text("imported_from") != "f" || e.Metadata.Text("imported_digest") != hex.EncodeToString(d[:]) {
			t.Fatalf("not marked: %s", out)
		}
		var from map[string]json.RawMessage
		if err := json.Unmarshal(line, &from); err != nil {
			return // deeper or otherwise other than encoding/json takes
		}
		for name, v := range from {
			if string(v) == "null" || string(v) == `""` || name == "timestamp" || name == "event_type" || name == "agent_id" {
				continue
			}
			if !strings.ContainsRune(name, 0xfffd) && !holds(out, name, v) {
				t.Fatalf("%q is lost\n%s\n%s", name, line, out)
			}
		}
	})
}

// holds finds a member's value where the mapping puts it.
func holds(out []byte, name string, v json.RawMessage) bool {
	var e struct {
		M map[string]json.RawMessage `json:"metadata"`
	}
	var top map[string]json.RawMessage
	if json.Unmarshal(out, &e) != nil || json.Unmarshal(out, &top) != nil {
		return false
	}
	var kept map[string]json.RawMessage
	_ = json.Unmarshal(e.M["imported_members"], &kept)
	var want, got any
	if json.Unmarshal(v, &want) != nil {
		return true
	}
	same := func(raw json.RawMessage) bool {
		return raw != nil && json.Unmarshal(raw, &got) == nil && reflect.DeepEqual(got, want)
	}
	if m, ok := want.(map[string]any); ok && name == "metadata" {
		for k, v := range m {
			raw, _ := json.Marshal(v)
			if v != nil && !holdsIn(e.M, k, raw) && !holdsIn(kept, "metadata."+k, raw) {
				return false
			}
		}
		return true
	}
	to := name
	if mapped[name] != "" {
		to = mapped[name]
	}
	if same(top[to]) || same(kept[name]) || name == "user_id" && same(e.M[name]) {
		return true
	}
	var wrapped map[string]json.RawMessage
	return json.Unmarshal(top[to], &wrapped) == nil && same(wrapped["value"])
}

func holdsIn(m map[string]json.RawMessage, name string, v json.RawMessage) bool {
	var want, got any
	return m[name] != nil && json.Unmarshal(v, &want) == nil && json.Unmarshal(m[name], &got) == nil && reflect.DeepEqual(got, want)
}

func FuzzDocumentedFormat(f *testing.F) {
	fuzz(f, documented, strings.Replace(documented, `"t"`, `""`, 1), strings.Replace(documented, "TOOL_USE", "AUDIT_X", 1), strings.Replace(documented, `"a"`, `"kaizen-audit"`, 1),
		`{"timestamp":"2025-10-26 10:53:45.123456","event_type":"X","agent_id":"a","action":"x","inputs":[1],"error":null,"more":{"a":1}}`)
}

func FuzzDetailsResultFormat(f *testing.F) {
	fuzz(f, other, strings.Replace(other, `"ok"`, `"failure"`, 1), strings.Replace(other, `{"k":"v"}`, `{"user_id":"u","imported_from":"x"}`, 1),
		`{"timestamp":"2025-10-26T10:53:45-08:00","agent_id":"kaizen-audit","action":"x","details":"text","result":null,"user_id":7}`)
}
