package audit

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

var benchEvent = Event{
	EventType: ToolUse, AgentID: "qa-agent-001", TraceID: "0af7651916cd43dd8448eb211c80319c", Action: "tool_use:get_reservation_details",
	Inputs: Raw([]byte(`{"reservation_id":"ZFA04Y"}`)), Outputs: Raw([]byte(`{"status":"ok","cabin":"economy","passengers":2}`)),
	DurationMS: 45.2, Metadata: Raw([]byte(`{"user_id":"user123","session_id":"session456","ip_address":"192.0.2.1"}`)),
}

func benchTrail(b testing.TB, d Durability) *Trail {
	t, err := Open(filepath.Join(b.TempDir(), "audit.jsonl"), &Options{Durability: d, StateDir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := t.Close(); err != nil {
			b.Error(err)
		}
	})
	return t
}

func percentiles(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	for _, p := range []struct {
		name string
		at   float64
	}{{"p50-µs", 0.5}, {"p95-µs", 0.95}, {"p99-µs", 0.99}} {
		b.ReportMetric(float64(took[int(float64(len(took)-1)*p.at)].Nanoseconds())/1e3, p.name)
	}
}

func BenchmarkRecord(b *testing.B) {
	ctx := context.Background()
	for _, d := range []Durability{Durable, Written, Queued} {
		b.Run(d.String()+"/1", func(b *testing.B) {
			t := benchTrail(b, d)
			b.ReportAllocs()
			var took []time.Duration
			for b.Loop() {
				start := time.Now()
				if _, err := t.Record(ctx, benchEvent); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(start))
			}
			percentiles(b, took)
		})
		b.Run(d.String()+"/64", func(b *testing.B) {
			t := benchTrail(b, d)
			b.ReportAllocs()
			const writers = 64
			var wg sync.WaitGroup
			each := b.N/writers + 1
			start := time.Now()
			for range writers {
				wg.Go(func() {
					for range each {
						if _, err := t.Record(ctx, benchEvent); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(each*writers)/time.Since(start).Seconds(), "entries/s")
		})
	}
}

// What is recorded costs two allocations: the event's id, and the batch.
func TestRecordAllocatesLittle(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates too")
	}
	for _, d := range []Durability{Durable, Written, Queued} {
		trail := benchTrail(t, d)
		record := func() {
			if _, err := trail.Record(context.Background(), benchEvent); err != nil {
				t.Error(err)
			}
		}
		for range 100 { // there is a ring then
			record()
		}
		if n := testing.AllocsPerRun(500, record); n > 2 {
			t.Errorf("%s: %v allocations", d, n)
		}
	}
}

// BenchmarkRaw is the limit: write and fdatasync of a ready-made line.
func BenchmarkRaw(b *testing.B) {
	for _, sync := range []bool{true, false} {
		name := "written"
		if sync {
			name = "durable"
		}
		b.Run(name, func(b *testing.B) {
			f, err := os.OpenFile(filepath.Join(b.TempDir(), "raw"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			line := make([]byte, 450)
			var took []time.Duration
			for b.Loop() {
				start := time.Now()
				if _, err := f.Write(line); err != nil {
					b.Fatal(err)
				}
				if sync {
					if err := syscall.Fdatasync(int(f.Fd())); err != nil {
						b.Fatal(err)
					}
				}
				took = append(took, time.Since(start))
			}
			percentiles(b, took)
		})
	}
}
