package hook

import (
	"context"
	"encoding/json"
	"slices"
	"testing"
	"time"

	audit "github.com/kaizen-audit/kaizen-audit"
)

// BenchmarkToolCall is one tool call with the hook, in written mode, beside the
// same call without. The bar: 15 µs at p95 more, and at most 10 allocations.
func BenchmarkToolCall(b *testing.B) {
	args := []byte(`{"reservation_id":"ZFA04Y"}`)
	result := []byte(`{"status":"ok","cabin":"economy","passengers":2}`)
	run := func(b *testing.B, m *Manager) {
		ctx := WithMetadata(context.Background(), map[string]any{"user_id": "user123", "session_id": "session456", "ip_address": "192.0.2.1"})
		loop, err := m.Trigger(ctx, PreAgentLoop, Data{})
		if err != nil {
			b.Fatal(err)
		}
		took := make([]time.Duration, 0, 1<<20)
		b.ReportAllocs()
		for b.Loop() {
			start := time.Now()
			ctx, err := m.Trigger(loop, PreToolUse, Data{Name: "get_reservation_details", Inputs: audit.Raw(args)})
			if err != nil {
				b.Fatal(err)
			}
			if _, err = m.Trigger(ctx, PostToolUse, Data{Outputs: audit.Raw(result)}); err != nil {
				b.Fatal(err)
			}
			took = append(took, time.Since(start))
		}
		b.StopTimer()
		slices.Sort(took)
		for _, p := range []struct {
			name string
			at   float64
		}{{"p50-µs", 0.5}, {"p95-µs", 0.95}, {"p99-µs", 0.99}} {
			b.ReportMetric(float64(took[int(float64(len(took)-1)*p.at)].Nanoseconds())/1e3, p.name)
		}
	}
	b.Run("without", func(b *testing.B) { run(b, nil) })
	b.Run("written", func(b *testing.B) {
		m, _ := recorder(b, openTrail(b, audit.Written), nil)
		run(b, m)
	})
}

// The bar of BenchmarkToolCall that does not depend on the machine.
func TestAToolCallWithTheHookAllocatesAtMostTenTimes(t *testing.T) {
	if underRace {
		t.Skip("the race detector allocates too")
	}
	m, _ := recorder(t, openTrail(t, audit.Written), nil)
	args := audit.Raw([]byte(`{"a":1}`))
	for _, c := range []struct {
		name     string
		metadata map[string]any
		result   any
	}{
		{"nothing to note", map[string]any{"user_id": "user123"}, json.RawMessage(`{"b":2}`)},
		{"an address that is marked", map[string]any{"user_id": "user123", "session_id": "session456", "ip_address": "192.0.2.1"}, json.RawMessage(`{"b":2}`)},
		{"another in the result", map[string]any{"ip_address": "192.0.2.1"}, json.RawMessage(`{"to":"a@example.com"}`)},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx := WithMetadata(context.Background(), c.metadata)
			tool := func(context.Context) (any, error) { return c.result, nil }
			call := func() {
				if _, err := m.Do(ctx, ToolUse, Data{Name: "t", Inputs: args}, tool); err != nil {
					t.Error(err)
				}
			}
			if n := testing.AllocsPerRun(2000, call); n > 10 {
				t.Errorf("%v allocations", n)
			}
		})
	}
}
