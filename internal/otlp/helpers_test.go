package otlp

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/entry"
)

// openTrail opens a trail that is verified when the test ends.
func openTrail(t *testing.T, opts *audit.Options) *audit.Trail {
	t.Helper()
	dir := t.TempDir()
	if opts == nil {
		opts = &audit.Options{}
	}
	opts.StateDir = filepath.Join(dir, "state")
	trail, err := audit.Open(filepath.Join(dir, "audit.jsonl"), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := trail.Close(); err != nil {
			t.Error(err)
		}
		report, err := audit.VerifyPath(context.Background(), trail.Path(), nil)
		if err != nil || report.Status != "intact" {
			t.Errorf("verify: %+v, %v", report, err)
		}
	})
	return trail
}

// newIntake is a handler before a real trail.
func newIntake(t *testing.T, limits *Limits) (*Handler, *audit.Trail) {
	t.Helper()
	trail := openTrail(t, nil)
	if limits == nil {
		limits = &DefaultLimits
	}
	return newHandler(intake{trail}, address("127.0.0.1:4318"), nil, *limits, func(error) {}), trail
}

type address string

func (a address) Network() string { return "tcp" }
func (a address) String() string  { return string(a) }

// post sends a body to a handler as a sender on this machine does.
func post(h http.Handler, path, contentType string, body []byte, change ...func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, path, bytes.NewReader(body))
	r.Host = "127.0.0.1:4318"
	r.Header.Set("Content-Type", contentType)
	for _, c := range change {
		c(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// entriesOf are the entries that came over OTLP, oldest first.
func entriesOf(t *testing.T, trail *audit.Trail) []audit.Entry {
	t.Helper()
	var all []audit.Entry
	for e, err := range trail.Query(t.Context(), audit.Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.RecordedBy.Text("via") != "otlp" {
			t.Errorf("entry %d did not come over OTLP", e.Index)
		}
		all = append(all, e)
	}
	return all
}

// memoryTrail takes events, or says the error that it has.
type memoryTrail struct {
	mu      sync.Mutex
	events  []entry.Event
	refused []error
	err     error
	block   chan struct{}
}

func (m *memoryTrail) ingest(_ context.Context, _ string, events []entry.Event) []error {
	if m.block != nil {
		<-m.block
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	errs := make([]error, len(events))
	for i := range events {
		if errs[i] = m.err; m.err == nil {
			m.events = append(m.events, events[i])
		}
	}
	return errs
}

func (m *memoryTrail) noteRefused(err error) {
	m.mu.Lock()
	m.refused = append(m.refused, err)
	m.mu.Unlock()
}

func memoryHandler(m *memoryTrail, limits Limits) *Handler {
	return newHandler(m, address("127.0.0.1:4318"), nil, limits, func(error) {})
}

// line is the entry of an event, without what the trail gives it by chance.
func line(t *testing.T, ev *entry.Event) string {
	t.Helper()
	st := entry.Stamp{EventID: "-", RecordedAt: time.Unix(0, 0), TraceID: "new"}
	b, err := entry.AppendLine(nil, ev, &st)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func readTestdata(t testing.TB, name string) []byte {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	in := io.Reader(f)
	if strings.HasSuffix(name, ".gz") {
		if in, err = gzip.NewReader(f); err != nil {
			t.Fatal(err)
		}
	}
	b, err := io.ReadAll(in)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The other formats of the exports, as OTLP's JSON. What they lack is lacking.

type jsonObject = map[string]any

func mustDecode(t testing.TB, b []byte, v any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(v); err != nil {
		t.Fatal(err)
	}
}

func anyValue(v any) jsonObject {
	switch v := v.(type) {
	case string:
		return jsonObject{"stringValue": v}
	case bool:
		return jsonObject{"boolValue": v}
	case json.Number:
		if strings.ContainsAny(v.String(), ".eE") {
			return jsonObject{"doubleValue": v}
		}
		return jsonObject{"intValue": v.String()}
	case []any:
		values := make([]any, len(v))
		for i := range v {
			values[i] = anyValue(v[i])
		}
		return jsonObject{"arrayValue": jsonObject{"values": values}}
	case jsonObject:
		return jsonObject{"kvlistValue": jsonObject{"values": keyValues(v)}}
	}
	return jsonObject{}
}

func keyValues(m jsonObject) []any {
	names := make([]string, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	out := make([]any, 0, len(m))
	for _, n := range names {
		out = append(out, jsonObject{"key": n, "value": anyValue(m[n])})
	}
	return out
}

func requestOf(t testing.TB, resourceSpans []any) []byte {
	t.Helper()
	b, err := json.Marshal(jsonObject{"resourceSpans": resourceSpans})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func resourceSpans(resource jsonObject, scope jsonObject, span jsonObject) jsonObject {
	return jsonObject{"resource": jsonObject{"attributes": keyValues(resource)}, "scopeSpans": []any{jsonObject{"scope": scope, "spans": []any{span}}}}
}

// fromJaeger: the exporter to Jaeger has put scope, kind and status into tags
// (opentelemetry-specification, trace/sdk_exporters/jaeger.md).
func fromJaeger(t testing.TB, b []byte) []byte {
	type tag struct {
		Key   string
		Value any
	}
	var in struct {
		Data []struct {
			Spans []struct {
				TraceID, SpanID, OperationName, ProcessID string
				References                                []struct{ RefType, SpanID string }
				StartTime, Duration                       int64
				Tags                                      []tag
				Logs                                      []struct {
					Timestamp int64
					Fields    []tag
				}
			}
			Processes map[string]struct {
				ServiceName string
				Tags        []tag
			}
		}
	}
	mustDecode(t, b, &in)
	kinds := map[string]int{"internal": 1, "server": 2, "client": 3, "producer": 4, "consumer": 5}
	var out []any
	for _, d := range in.Data {
		for _, s := range d.Spans {
			p := d.Processes[s.ProcessID]
			resource := jsonObject{"service.name": p.ServiceName}
			for _, g := range p.Tags {
				resource[g.Key] = g.Value
			}
			span := jsonObject{
				"traceId": s.TraceID, "spanId": s.SpanID, "name": s.OperationName,
				"startTimeUnixNano": fmt.Sprint(s.StartTime * 1000), "endTimeUnixNano": fmt.Sprint((s.StartTime + s.Duration) * 1000),
			}
			for _, r := range s.References {
				if r.RefType == "CHILD_OF" {
					span["parentSpanId"] = r.SpanID
				}
			}
			attributes, scope, status := jsonObject{}, jsonObject{}, jsonObject{}
			for _, g := range s.Tags {
				switch g.Key {
				case "span.kind":
					span["kind"] = kinds[fmt.Sprint(g.Value)]
				case "otel.scope.name":
					scope["name"] = g.Value
				case "otel.scope.version":
					scope["version"] = g.Value
				case "otel.status_code":
					status["code"] = map[any]int{"OK": 1, "ERROR": 2}[g.Value]
				case "otel.status_description":
					status["message"] = g.Value
				case "error":
				default:
					attributes[g.Key] = g.Value
				}
			}
			var events []any
			for _, l := range s.Logs {
				e, fields := jsonObject{"timeUnixNano": fmt.Sprint(l.Timestamp * 1000)}, jsonObject{}
				for _, f := range l.Fields {
					if f.Key == "event" {
						e["name"] = f.Value
					} else {
						fields[f.Key] = f.Value
					}
				}
				e["attributes"] = keyValues(fields)
				events = append(events, e)
			}
			span["attributes"], span["status"], span["events"] = keyValues(attributes), status, events
			out = append(out, resourceSpans(resource, scope, span))
		}
	}
	return requestOf(t, out)
}

// fromSDK: what the JavaScript SDK has in memory.
func fromSDK(t testing.TB, b []byte) []byte {
	var in []struct {
		Name        string
		SpanContext struct{ TraceID, SpanID string }
		Attributes  jsonObject
		Status      struct {
			Code    int
			Message string
		}
		StartTime, EndTime [2]int64
		Events             []struct {
			Name       string
			Time       [2]int64
			Attributes jsonObject
		}
	}
	mustDecode(t, b, &in)
	nano := func(at [2]int64) string { return fmt.Sprint(at[0]*1e9 + at[1]) }
	var out []any
	for _, s := range in {
		var events []any
		for _, e := range s.Events {
			events = append(events, jsonObject{"name": e.Name, "timeUnixNano": nano(e.Time), "attributes": keyValues(e.Attributes)})
		}
		out = append(out, resourceSpans(jsonObject{"service.name": "vercel-test"}, jsonObject{"name": "ai"}, jsonObject{
			"traceId": s.SpanContext.TraceID, "spanId": s.SpanContext.SpanID, "name": s.Name, "kind": 1,
			"startTimeUnixNano": nano(s.StartTime), "endTimeUnixNano": nano(s.EndTime),
			"attributes": keyValues(s.Attributes), "events": events, "status": jsonObject{"code": s.Status.Code, "message": s.Status.Message},
		}))
	}
	return requestOf(t, out)
}

// fromPython: ReadableSpan.to_json of the Python SDK.
func fromPython(t testing.TB, b []byte) []byte {
	var in []struct {
		Name    string
		Context struct {
			TraceID string `json:"trace_id"`
			SpanID  string `json:"span_id"`
		}
		ParentID   string    `json:"parent_id"`
		StartTime  time.Time `json:"start_time"`
		EndTime    time.Time `json:"end_time"`
		Attributes jsonObject
		Status     struct {
			Code        string `json:"status_code"`
			Description string
		}
		Events []struct {
			Name       string
			Timestamp  time.Time
			Attributes jsonObject
		}
		Resource struct{ Attributes jsonObject }
	}
	mustDecode(t, b, &in)
	var out []any
	for _, s := range in {
		var events []any
		for _, e := range s.Events {
			events = append(events, jsonObject{"name": e.Name, "timeUnixNano": fmt.Sprint(e.Timestamp.UnixNano()), "attributes": keyValues(e.Attributes)})
		}
		out = append(out, resourceSpans(s.Resource.Attributes, jsonObject{}, jsonObject{
			"traceId": strings.TrimPrefix(s.Context.TraceID, "0x"), "spanId": strings.TrimPrefix(s.Context.SpanID, "0x"),
			"parentSpanId": strings.TrimPrefix(s.ParentID, "0x"), "name": s.Name, "kind": 1,
			"startTimeUnixNano": fmt.Sprint(s.StartTime.UnixNano()), "endTimeUnixNano": fmt.Sprint(s.EndTime.UnixNano()),
			"attributes": keyValues(s.Attributes), "events": events,
			"status": jsonObject{"code": map[string]int{"OK": 1, "ERROR": 2}[s.Status.Code], "message": s.Status.Description},
		}))
	}
	return requestOf(t, out)
}
