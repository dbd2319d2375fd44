package oteltrace_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/adapter/oteltrace"
	"github.com/kaizen-audit/kaizen-audit/hook"
)

// With the real SDK: sampled or not, entries are in the span's trace, and nested
// actions below each other.
func TestEntriesAreInTheTraceOfOpenTelemetry(t *testing.T) {
	for name, sampler := range map[string]sdk.Sampler{"sampled": sdk.AlwaysSample(), "not sampled": sdk.NeverSample()} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			trail, err := audit.Open(filepath.Join(dir, "audit.jsonl"), &audit.Options{StateDir: filepath.Join(dir, "state")})
			if err != nil {
				t.Fatal(err)
			}
			defer trail.Close()
			recorder, err := hook.NewAuditTrailHook(trail, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer recorder.Close()
			hooks := &hook.Manager{AgentID: "a", SpanContext: oteltrace.SpanContext}
			if err := hooks.RegisterHook(recorder, nil); err != nil {
				t.Fatal(err)
			}
			provider := sdk.NewTracerProvider(sdk.WithSampler(sampler))
			defer func() { _ = provider.Shutdown(context.Background()) }()
			tracer := provider.Tracer("test")
			ctx, request := tracer.Start(context.Background(), "request")
			var inner trace.SpanContext
			if _, err := hooks.Do(ctx, hook.ToolUse, hook.Data{Name: "outer"}, func(ctx context.Context) (any, error) {
				ctx, span := tracer.Start(ctx, "library")
				defer span.End()
				inner = span.SpanContext()
				return hooks.Do(ctx, hook.LLMCall, hook.Data{Name: "m"}, func(context.Context) (any, error) { return nil, nil })
			}); err != nil {
				t.Fatal(err)
			}
			request.End()
			if _, err := hooks.Do(context.Background(), hook.ToolUse, hook.Data{Name: "alone"}, func(context.Context) (any, error) { return nil, nil }); err != nil {
				t.Fatal(err)
			}
			var got []audit.Entry
			for e, err := range trail.Query(context.Background(), audit.Query{}) {
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, e)
			}
			if len(got) != 3 {
				t.Fatalf("%d entries", len(got))
			}
			call, outer, alone := got[0], got[1], got[2]
			sc := request.SpanContext()
			if outer.TraceID != sc.TraceID().String() || outer.ParentSpanID != sc.SpanID().String() {
				t.Errorf("%s", outer.Line())
			}
			if call.TraceID != outer.TraceID || call.ParentSpanID != outer.SpanID || call.Metadata.Text("otel_span_id") != inner.SpanID().String() {
				t.Errorf("%s", call.Line())
			}
			if alone.TraceID == outer.TraceID || alone.ParentSpanID != "" {
				t.Errorf("%s", alone.Line())
			}
		})
	}
}

func ExampleSpanContext() {
	sc := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}})
	fmt.Println(oteltrace.SpanContext(trace.ContextWithSpanContext(context.Background(), sc)))
	// Output: 01000000000000000000000000000000 0200000000000000
}
