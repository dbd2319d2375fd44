package otlp

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files")

// exports are what real agents and libraries have sent; testdata/exports/README.md
// says where each is from.
func exports(t *testing.T) map[string][][]byte {
	files, err := os.ReadDir("testdata/exports")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][][]byte{}
	for _, f := range files {
		name, form, _ := strings.Cut(f.Name(), ".")
		if strings.HasSuffix(form, ".md") || f.IsDir() || name == "metrics" {
			continue
		}
		b := readTestdata(t, "exports/"+f.Name())
		switch strings.TrimSuffix(form, ".gz") {
		case "jaeger.json":
			all[name] = [][]byte{fromJaeger(t, b)}
		case "sdk.json":
			all[name] = [][]byte{fromSDK(t, b)}
		case "monocle.json":
			all[name] = [][]byte{fromPython(t, b)}
		case "otlp.json":
			all[name] = [][]byte{b}
		case "otlp.jsonl":
			all[name] = bytes.Split(bytes.TrimSpace(b), []byte("\n"))
		}
	}
	if len(all) != 13 {
		t.Fatalf("%d exports", len(all))
	}
	return all
}

// long is text that a golden file has by its length and digest only.
var long = regexp.MustCompile(`"(?:[^"\\]|\\.){241,}"`)

func shortened(s string) string {
	return long.ReplaceAllStringFunc(s, func(text string) string {
		return fmt.Sprintf("%s… %d bytes, SHA-256 %.16x\"", strings.TrimRight(text[:81], `\`), len(text)-2, sha256.Sum256([]byte(text)))
	})
}

// TestRealExportsGiveTheExpectedEntries: every field of every entry whose kind is
// known, and of the others which span they are; the second sending adds nothing.
func TestRealExportsGiveTheExpectedEntries(t *testing.T) {
	for name, bodies := range exports(t) {
		t.Run(name, func(t *testing.T) {
			h, trail := newIntake(t, nil)
			path := "/v1/traces"
			if name == "proto-logs" || name == "proto-events" {
				path = "/v1/logs"
			}
			sent := 0
			for range 2 {
				for _, body := range bodies {
					if w := post(h, path, jsonType, body); w.Code != http.StatusOK || w.Body.String() != "{}" {
						t.Fatalf("%d %s", w.Code, w.Body)
					}
				}
			}
			want := map[string]jsonObject{}
			for _, body := range bodies {
				for _, s := range spansOf(t, body) {
					want[strings.ToLower(fmt.Sprint(s["spanId"]))] = s
					sent++
				}
			}
			if path == "/v1/logs" {
				sent = 1
			}
			entries := entriesOf(t, trail)
			if c := h.Counts(); len(entries) != sent || c.Spans != int64(2*sent) || c.Mapped+c.Kept != c.Spans || c.Refused != 0 {
				t.Errorf("%d sent twice, %d entries, %+v", sent, len(entries), c)
			}
			var golden strings.Builder
			for _, e := range entries {
				if span := want[e.SpanID]; path == "/v1/traces" {
					checkSpan(t, e.Line(), span)
				}
				if e.EventType == "SPAN" {
					fmt.Fprintf(&golden, "%s %s %s %s %s\n", e.SpanID, orNone(e.ParentSpanID), e.EventType, e.AgentID, e.Action)
					continue
				}
				var line bytes.Buffer
				if err := json.Indent(&line, e.Line(), "", " "); err != nil {
					t.Fatal(err)
				}
				text := shortened(line.String())
				text = regexp.MustCompile(`(?m)^ "(event_id|recorded_at)": .*\n`).ReplaceAllString(text, "")
				if path == "/v1/logs" && !strings.Contains(string(bodies[0]), "traceId") {
					text = strings.Replace(text, e.TraceID, "made here", 1)
				}
				golden.WriteString(text + "\n")
			}
			file := filepath.Join("testdata/golden", name+".txt")
			if *update {
				if err := os.WriteFile(file, []byte(golden.String()), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			wanted, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if golden.String() != string(wanted) {
				got, want := strings.Split(golden.String(), "\n"), strings.Split(string(wanted), "\n")
				for i := range got {
					if i >= len(want) || got[i] != want[i] {
						t.Fatalf("line %d of %s: %s", i+1, file, got[i])
					}
				}
				t.Fatalf("%s has more", file)
			}
		})
	}
}

// TestTheCountsOfAllExportsAreReconciled: all of them into one trail, with spans
// among them that have no ids. Every span that their sources say there is was
// mapped, kept or refused, and the entries and the answers name each of them.
func TestTheCountsOfAllExportsAreReconciled(t *testing.T) {
	// As testdata/exports/README.md has them, but for the specification's own.
	said := map[string]int{"tempo": 86, "helm": 96, "helm_2": 72, "vercel-v6": 10, "open-agent-traces": 2, "proto-trace": 1}
	const monocle = 99
	h, trail := newIntake(t, nil)
	want, kinds := map[string]bool{}, map[bool]int64{}
	agents, records := 0, 0
	for name, bodies := range exports(t) {
		if name == "proto-logs" || name == "proto-events" {
			for _, body := range bodies {
				post(h, "/v1/logs", jsonType, body)
				records++
			}
			continue
		}
		n := 0
		for _, body := range bodies {
			spans := spansOf(t, body)
			n += len(spans)
			for _, s := range spans {
				want[strings.ToLower(fmt.Sprint(s["traceId"], s["spanId"]))] = true
			}
			if w := post(h, "/v1/traces", jsonType, body); w.Code != http.StatusOK || w.Body.String() != "{}" {
				t.Fatalf("%s: %d %s", name, w.Code, w.Body)
			}
		}
		if known, ok := said[name]; !ok {
			agents += n
		} else if n != known {
			t.Errorf("%s has %d spans, not %d", name, n, known)
		}
	}
	if agents != monocle {
		t.Errorf("Monocle's have %d spans, not %d", agents, monocle)
	}
	spans := len(want)
	w := post(h, "/v1/traces", jsonType, jsonSpans(`{"traceId":"","spanId":"00000000000000a1"}`, `{"traceId":"00","spanId":"00000000000000a2"}`, `{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"a3"}`))
	for _, id := range []string{"00000000000000a1", "00000000000000a2", `\"a3\"`} {
		if !strings.Contains(w.Body.String(), id) {
			t.Errorf("%s is not named: %s", id, w.Body)
		}
	}
	for _, e := range entriesOf(t, trail) {
		if e.SpanID != "" {
			delete(want, e.TraceID+e.SpanID)
		}
		kinds[e.EventType == "SPAN" || e.EventType == "LOG"]++
	}
	c := h.Counts()
	if len(want) > 0 || c.Spans != int64(spans+records+3) || c != (Counts{c.Spans, kinds[false], kinds[true], 3}) {
		t.Errorf("%d spans have no entry; %+v, entries %v", len(want), c, kinds)
	}
	t.Logf("%d spans and %d records: %d mapped, %d kept, %d refused", spans+3, records, c.Mapped, c.Kept, c.Refused)
}

func orNone(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// spansOf are the spans in a request, read without our code.
func spansOf(t *testing.T, body []byte) []jsonObject {
	t.Helper()
	var in struct {
		ResourceSpans []struct {
			ScopeSpans []struct{ Spans []jsonObject }
		}
	}
	mustDecode(t, body, &in)
	var out []jsonObject
	for _, r := range in.ResourceSpans {
		for _, s := range r.ScopeSpans {
			out = append(out, s.Spans...)
		}
	}
	return out
}

// checkSpan: an entry is the span that it is of, in its place of the tree, and
// has everything that the span says.
func checkSpan(t *testing.T, line []byte, span jsonObject) {
	t.Helper()
	var e jsonObject
	mustDecode(t, line, &e)
	text := func(v any) string { return strings.ToLower(fmt.Sprint(v)) }
	if e["trace_id"] != text(span["traceId"]) || e["span_id"] != text(span["spanId"]) {
		t.Fatalf("entry %s of span %s", e["span_id"], span["spanId"])
	}
	if parent, _ := span["parentSpanId"].(string); parent == "" && e["parent_span_id"] != nil || parent != "" && e["parent_span_id"] != strings.ToLower(parent) {
		t.Errorf("%s: parent %v, not %s", e["span_id"], e["parent_span_id"], parent)
	}
	var kept []string
	allText(e, &kept)
	all := strings.Join(kept, "\x00")
	has := func(v any) {
		var said []string
		allText(v, &said)
		for _, s := range said {
			var inside any
			if json.Unmarshal([]byte(s), &inside) == nil {
				var parts []string
				allText(inside, &parts)
				for _, p := range parts {
					if !strings.Contains(all, p) {
						t.Errorf("%s: %.60q is lost", e["span_id"], p)
					}
				}
			} else if !strings.Contains(all, s) {
				t.Errorf("%s: %.60q is lost", e["span_id"], s)
			}
		}
	}
	if attributes, ok := span["attributes"].([]any); ok {
		for _, a := range attributes {
			switch key := a.(jsonObject)["key"].(string); key {
			case "gen_ai.operation.name", "openinference.span.kind", "traceloop.span.kind", "ai.operationId", "llm.request.type":
				// that is the event type
			default:
				has(a.(jsonObject)["value"])
			}
		}
	}
	if events, ok := span["events"].([]any); ok {
		for _, ev := range events {
			if attributes, ok := ev.(jsonObject)["attributes"].([]any); ok {
				for _, a := range attributes {
					has(a.(jsonObject)["value"])
				}
			}
		}
	}
	if e["action"] != span["name"] {
		has(span["name"])
	}
}

// allText collects the texts and numbers of a value.
func allText(v any, to *[]string) {
	switch v := v.(type) {
	case string:
		*to = append(*to, v)
		var inside any // the same text may stand in another as JSON
		if strings.HasPrefix(v, "{") || strings.HasPrefix(v, "[") {
			if json.Unmarshal([]byte(v), &inside) == nil {
				allText(inside, to)
			}
		}
	case json.Number:
		*to = append(*to, v.String())
	case []any:
		for _, e := range v {
			allText(e, to)
		}
	case jsonObject:
		for _, e := range v {
			allText(e, to)
		}
	}
}

// TestMetricsAreRefused for good: a sender drops them, and goes on.
func TestMetricsAreRefused(t *testing.T) {
	h := memoryHandler(&memoryTrail{}, DefaultLimits)
	w := post(h, "/v1/metrics", jsonType, readTestdata(t, "exports/metrics.otlp.json.gz"))
	if w.Code != http.StatusNotFound || !strings.Contains(w.Body.String(), "OTEL_METRICS_EXPORTER=none") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
