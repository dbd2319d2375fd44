package otlp

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploghttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/log"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	audit "github.com/kaizen-audit/kaizen-audit"
)

// numbered gives ids that count up; zero makes every span id one that is none.
type numbered struct {
	n    atomic.Uint64
	zero bool
}

func (g *numbered) NewIDs(ctx context.Context) (id trace.TraceID, span trace.SpanID) {
	binary.BigEndian.PutUint64(id[8:], g.n.Add(1))
	return id, g.NewSpanID(ctx, id)
}

func (g *numbered) NewSpanID(context.Context, trace.TraceID) (id trace.SpanID) {
	if n := g.n.Add(1); !g.zero {
		binary.BigEndian.PutUint64(id[:], n)
	}
	return id
}

// at is so many milliseconds after the run's beginning.
func at(ms int) time.Time {
	return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(ms) * time.Millisecond)
}

// sdk is the SDK for Go, sending traces and logs to a server.
type sdk struct {
	traces *sdktrace.TracerProvider
	logs   *sdklog.LoggerProvider
}

func newSDK(t *testing.T, s *server, ids *numbered) sdk {
	t.Helper()
	traces, err := otlptracehttp.New(t.Context(), otlptracehttp.WithEndpointURL(s.url+"/v1/traces"), otlptracehttp.WithCompression(otlptracehttp.GzipCompression))
	if err != nil {
		t.Fatal(err)
	}
	logs, err := otlploghttp.New(t.Context(), otlploghttp.WithEndpointURL(s.url+"/v1/logs"))
	if err != nil {
		t.Fatal(err)
	}
	of := resource.NewSchemaless(attribute.String("service.name", "go-agent"), attribute.String("service.version", "3.1.0"), attribute.Int("process.pid", 4711))
	return sdk{
		sdktrace.NewTracerProvider(sdktrace.WithBatcher(traces), sdktrace.WithIDGenerator(ids), sdktrace.WithResource(of)),
		sdklog.NewLoggerProvider(sdklog.WithProcessor(sdklog.NewBatchProcessor(logs)), sdklog.WithResource(of)),
	}
}

// shutdown sends what there is, and says whether the server has taken it.
func (s sdk) shutdown(t *testing.T) error {
	t.Helper()
	return errors.Join(s.traces.Shutdown(t.Context()), s.logs.Shutdown(t.Context()))
}

// TestTheSDKForGo: a run with two tools at once and an agent inside one of them,
// traces in zipped protobuf and logs.
func TestTheSDKForGo(t *testing.T) {
	s := serve(t)
	kit := newSDK(t, s, &numbered{})
	tracer, logger := kit.traces.Tracer("example-agent", trace.WithInstrumentationVersion("1.2.3")), kit.logs.Logger("example-agent")
	begin := func(ctx context.Context, name string, ms int, kind trace.SpanKind, attributes ...attribute.KeyValue) (context.Context, trace.Span) {
		return tracer.Start(ctx, name, trace.WithTimestamp(at(ms)), trace.WithSpanKind(kind), trace.WithAttributes(attributes...))
	}
	end := func(span trace.Span, ms int) { span.End(trace.WithTimestamp(at(ms))) }
	text := attribute.String

	inRun, agent := begin(t.Context(), "invoke_agent planner", 0, trace.SpanKindInternal,
		text("gen_ai.operation.name", "invoke_agent"), text("gen_ai.agent.name", "planner"), text("gen_ai.conversation.id", "conv-1"), text("user.id", "user123"))
	inChat, chat := begin(inRun, "chat claude-sonnet-5", 10, trace.SpanKindClient,
		text("gen_ai.operation.name", "chat"), text("gen_ai.provider.name", "anthropic"), text("gen_ai.request.model", "claude-sonnet-5"), text("gen_ai.agent.name", "planner"),
		text("gen_ai.input.messages", `[{"role":"user","parts":[{"type":"text","content":"Grüße, 東京 🗼?"}]}]`),
		text("gen_ai.output.messages", `[{"role":"assistant","parts":[{"type":"text","content":"Hai."}],"finish_reason":"stop"}]`),
		attribute.StringSlice("gen_ai.response.finish_reasons", []string{"stop"}), attribute.Int("gen_ai.usage.input_tokens", 21), attribute.Int64("gen_ai.usage.output_tokens", 9),
		attribute.Float64("gen_ai.request.temperature", 0.2), attribute.Bool("gen_ai.request.stream", true))
	var details log.Record
	details.SetTimestamp(at(12))
	details.SetObservedTimestamp(at(12))
	details.SetEventName("gen_ai.client.inference.operation.details")
	details.AddAttributes(text("gen_ai.request.model", "claude-sonnet-5"), attribute.KeyValue{Key: "gen_ai.input.messages", Value: attribute.SliceValue(attribute.MapValue(text("role", "user")))})
	logger.Emit(inChat, details)
	end(chat, 60)
	inWeather, weather := begin(inRun, "execute_tool weather", 70, trace.SpanKindInternal,
		text("gen_ai.operation.name", "execute_tool"), text("gen_ai.tool.name", "weather"), text("gen_ai.tool.call.id", "c1"), text("gen_ai.tool.call.arguments", `{"city":"Tokyo"}`))
	inSearch, search := begin(inRun, "execute_tool search", 71, trace.SpanKindInternal, text("gen_ai.operation.name", "execute_tool"), text("gen_ai.tool.name", "search"))
	inSub, sub := begin(inWeather, "invoke_agent meteo", 75, trace.SpanKindClient, text("gen_ai.operation.name", "invoke_agent"), text("gen_ai.agent.name", "meteo"))
	_, http := tracer.Start(inSub, "GET", trace.WithTimestamp(at(76)), trace.WithSpanKind(trace.SpanKindClient), trace.WithLinks(trace.Link{SpanContext: chat.SpanContext(), Attributes: []attribute.KeyValue{text("why", "asked by")}}),
		trace.WithAttributes(text("http.request.method", "GET"), text("url.full", "https://u:secret-word@weather.example/v1?key=secret-word&q=Tokyo"),
			attribute.StringSlice("http.request.header.authorization", []string{"Bearer secret-word"}), attribute.Float64Slice("sizes", []float64{1, 2.5}), attribute.BoolSlice("flags", []bool{true, false}), attribute.Int64("big", 1<<62)))
	end(http, 90)
	end(sub, 95)
	search.RecordError(errors.New("no network"), trace.WithTimestamp(at(96)))
	search.SetStatus(codes.Error, "no network")
	var down log.Record
	down.SetTimestamp(at(98))
	down.SetObservedTimestamp(at(98))
	down.SetSeverity(log.SeverityWarn)
	down.SetSeverityText("WARN")
	down.SetBody(attribute.MapValue(text("text", "search is down"), attribute.Int("tries", 3), attribute.KeyValue{Key: "raw", Value: attribute.ByteSliceValue([]byte{0, 255})}))
	logger.Emit(inSearch, down)
	end(search, 97)
	weather.SetAttributes(text("gen_ai.tool.call.result", `{"celsius":21}`))
	end(weather, 100)
	end(agent, 120)
	if err := kit.shutdown(t); err != nil {
		t.Fatal(err)
	}

	entries, _ := s.end(t)
	const want = `agent_execution_end
  llm_call:claude-sonnet-5
    llm_call_details:claude-sonnet-5
  tool_use:search
    log
  tool_use:weather
    specialist_invoke:meteo
      GET
`
	// The two exporters send at the same time: traces first, as the other SDK.
	if entries[0].EventType == "LLM_CALL_DETAILS" {
		entries = append(entries[2:], entries[:2]...)
	}
	if got := tree(t, entries); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	for _, e := range entries {
		if strings.Contains(string(e.Line()), "secret-word") {
			t.Errorf("%s", e.Line())
		}
	}
	golden(t, "go", entries)
}

// TestManyAgentsOfTheSDKForGo at once: every trace is the tree that was meant, and
// every span is there once.
func TestManyAgentsOfTheSDKForGo(t *testing.T) {
	const agents, tools = 50, 4
	s := serve(t)
	kit := newSDK(t, s, &numbered{})
	tracer := kit.traces.Tracer("example-agent")
	var mu sync.Mutex
	parents := map[string][3]string{} // of a span: its trace, its parent, its name
	var run func(ctx context.Context, name string, deep int)
	run = func(ctx context.Context, name string, deep int) {
		above := trace.SpanContextFromContext(ctx)
		ctx, span := tracer.Start(ctx, name)
		defer span.End()
		own, parent := span.SpanContext(), ""
		if above.IsValid() {
			parent = above.SpanID().String()
		}
		mu.Lock()
		parents[own.SpanID().String()] = [3]string{own.TraceID().String(), parent, name}
		mu.Unlock()
		if deep == 0 {
			return
		}
		var wg sync.WaitGroup
		for i := range tools {
			wg.Go(func() { run(ctx, name+"."+string(rune('a'+i)), deep-1) })
		}
		wg.Wait()
	}
	var wg sync.WaitGroup
	for i := range agents {
		wg.Go(func() { run(context.Background(), "agent-"+string(rune('A'+i)), 2) })
	}
	wg.Wait()
	if err := kit.shutdown(t); err != nil {
		t.Fatal(err)
	}
	entries, _ := s.end(t)
	for _, e := range entries {
		if want := parents[e.SpanID]; [3]string{e.TraceID, e.ParentSpanID, e.Action} != want || e.EventType != "SPAN" {
			t.Errorf("want %v: %s", want, e.Line())
		}
		delete(parents, e.SpanID)
	}
	if want := agents * (1 + tools + tools*tools); len(entries) != want || len(parents) > 0 {
		t.Errorf("%d entries of %d spans, %d are missing", len(entries), want, len(parents))
	}
}

// TestTheSDKForGoIsToldOfWhatIsRefused, by name, does not send it again, and the
// trail knows it too.
func TestTheSDKForGoIsToldOfWhatIsRefused(t *testing.T) {
	s := serve(t)
	var mu sync.Mutex
	var told []string
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		mu.Lock()
		told = append(told, err.Error())
		mu.Unlock()
	}))
	kit := newSDK(t, s, &numbered{zero: true})
	for range 3 {
		_, span := kit.traces.Tracer("t").Start(t.Context(), "no id")
		span.End()
	}
	err := kit.shutdown(t)
	if err != nil {
		told = append(told, err.Error())
	}
	entries, said := s.end(t)
	if all := strings.Join(told, "\n"); !strings.Contains(all, "3 spans rejected") || !strings.Contains(all, "span_id must be 8 bytes") || len(entries) > 0 {
		t.Errorf("the SDK was told %q; %d entries", all, len(entries))
	}
	if all := strings.Join(said, "\n"); strings.Count(all, "3 refused") != 1 {
		t.Errorf("the server has said\n%s", all)
	}
	trail, err := audit.Open(s.log, &audit.Options{ReadOnly: true, StateDir: s.state})
	if err != nil {
		t.Fatal(err)
	}
	defer trail.Close()
	var refused int64
	for e, err := range trail.Query(t.Context(), audit.Query{Trails: true, EventTypes: []string{"AUDIT_REFUSED"}}) {
		if err != nil {
			t.Fatal(err)
		}
		var out struct{ Count int64 }
		if err := e.Outputs.Decode(&out); err != nil {
			t.Fatal(err)
		}
		refused += out.Count
	}
	if refused != 3 {
		t.Errorf("the trail counts %d refused", refused)
	}
}
