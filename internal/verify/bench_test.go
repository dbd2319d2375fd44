package verify

import (
	"context"
	"fmt"
	"testing"
)

// BenchmarkVerify checks 100,000 entries of about 450 bytes, open and sealed.
func BenchmarkVerify(b *testing.B) {
	const entries, segments = 100_000, 4
	lines := make([]string, entries)
	var bytes int64
	for i := range lines {
		lines[i] = fmt.Sprintf(`{"timestamp":"2026-01-02T03:04:05.%03dZ","event_type":"TOOL_USE","agent_id":"qa-agent-%03d","trace_id":"0af7651916cd43dd8448eb211c80319c","action":"tool_use:get_reservation_details","inputs":{"reservation_id":"ZFA%d"},"outputs":{"status":"ok","cabin":"economy","passengers":2},"duration_ms":45.2,"success":true,"error":null,"metadata":{"user_id":"user%d","session_id":"session456","ip_address":"192.0.2.1"},"event_id":"019c0000-0000-7000-8000-%012x","recorded_at":"2026-01-02T03:04:05.678Z"}`,
			i%1000, i%7, i*7919, i%100, i*2654435761)
		bytes += int64(len(lines[i]) + 1)
	}
	open := newTrail(b, b.TempDir(), 0)
	open.segments = [][]string{lines}
	sealed := newTrail(b, b.TempDir(), 0)
	sealed.segments = nil
	for i := range segments {
		sealed.segments = append(sealed.segments, lines[i*entries/segments:(i+1)*entries/segments])
	}
	sealed.segments = append(sealed.segments, nil)
	for _, w := range []*trail{open, sealed} {
		w.size = entries
		w.write()
		name := "open"
		if len(w.segments) > 1 {
			name = "sealed"
		}
		b.Run(name, func(b *testing.B) {
			b.SetBytes(bytes)
			b.ReportAllocs()
			for b.Loop() {
				r, err := Verify(context.Background(), Options{LogPath: w.log})
				if err != nil || r.Status != Intact {
					b.Fatal(show(r), err)
				}
			}
			b.ReportMetric(entries*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
		})
	}
}
