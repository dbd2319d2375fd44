package verify_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/internal/verify"
)

// BenchmarkVerify checks a trail of 200,000 entries of about 450 bytes.
func BenchmarkVerify(b *testing.B) {
	path := filepath.Join(b.TempDir(), "audit.jsonl")
	trail, err := audit.Open(path, &audit.Options{Durability: audit.Queued, StateDir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	const entries = 200_000
	for i := range entries {
		if _, err := trail.Record(context.Background(), audit.Event{
			EventType: audit.ToolUse, AgentID: "qa-agent-001", TraceID: "0af7651916cd43dd8448eb211c80319c", Action: "tool_use:get_reservation_details",
			Inputs: audit.Raw(fmt.Appendf(nil, `{"reservation_id":"ZFA%d"}`, i)), Outputs: audit.Raw([]byte(`{"status":"ok","cabin":"economy","passengers":2}`)),
			DurationMS: 45.2, Metadata: audit.Raw([]byte(`{"user_id":"user123","session_id":"session456","ip_address":"192.0.2.1"}`)),
		}); err != nil {
			b.Fatal(err)
		}
	}
	if err := trail.Close(); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		r, err := verify.Verify(context.Background(), verify.Options{LogPath: path})
		if err != nil || r.Status != verify.Intact {
			b.Fatal(r, err)
		}
	}
	b.ReportMetric(entries*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
}
