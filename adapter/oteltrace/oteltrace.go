// Package oteltrace lets hooks find the OpenTelemetry trace that they are in:
//
//	hooks := &hook.Manager{SpanContext: oteltrace.SpanContext}
//
// It is a module of its own, so that programs without OpenTelemetry do without its
// API.
package oteltrace

import (
	"context"

	"go.opentelemetry.io/otel/trace"
)

// SpanContext gives the trace and span of ctx, 32 and 16 lower-case hex digits
// (W3C Trace Context), "" where there is none: for hook.Manager.SpanContext. It
// makes no difference whether the span is sampled.
func SpanContext(ctx context.Context) (traceID, spanID string) {
	sc := trace.SpanContextFromContext(ctx)
	if !sc.IsValid() {
		return "", ""
	}
	return sc.TraceID().String(), sc.SpanID().String()
}
