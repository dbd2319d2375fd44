//go:build unix

package detect_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/kaizen-audit/kaizen-audit/internal/detect"
	"github.com/kaizen-audit/kaizen-audit/internal/detect/corpus"
)

// cpuTime is what the process has used, which on a shared machine says more
// than the clock.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkProse is 64 KiB of dialogues and notes.
func BenchmarkProse(b *testing.B) {
	text := corpus.Prose(64 << 10)
	s := detect.Default()
	dst := make([]detect.Match, 0, 1024)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	cpu := cpuTime()
	for b.Loop() {
		dst = s.Text(dst[:0], text)
	}
	b.ReportMetric(float64(cpuTime()-cpu)/float64(b.N), "cpu-ns/op")
}

// entry is the members of an entry of some 500 bytes: what a policy looks at.
var entry = []struct{ name, text string }{
	{"timestamp", "2025-10-26T10:53:45.123Z"}, {"event_type", "TOOL_USE"}, {"agent_id", "qa-agent-001"},
	{"trace_id", "018f3c1e-7b2a-7c4d-9e8f-1a2b3c4d5e6f"}, {"action", "tool_use:update_reservation_flights"},
	{"reservation_id", "3RK2T9"}, {"cabin", "business"}, {"flight_number", "HAT170"}, {"date", "2024-05-22"},
	{"payment_id", "gift_card_8190333"}, {"message", "Your flights were changed, and the difference of $ 1,286 is charged to the gift card."},
	{"user_id", "omar_rossi_1241"}, {"session_id", "sess_01HV8Z"}, {"environment", "production"}, {"service_name", "airline-desk"},
}

// BenchmarkEntry is the names and strings of one entry of 500 bytes.
func BenchmarkEntry(b *testing.B) {
	type member struct{ name, text []byte }
	var members []member
	for _, m := range entry {
		members = append(members, member{[]byte(m.name), []byte(m.text)})
	}
	s := detect.Default()
	dst := make([]detect.Match, 0, 16)
	b.ReportAllocs()
	cpu := cpuTime()
	for b.Loop() {
		dst = dst[:0]
		for _, m := range members {
			if k, ok := s.Name(m.name); ok {
				dst = s.Value(dst, k, m.text)
			} else {
				dst = s.Text(dst, m.text)
			}
		}
	}
	b.ReportMetric(float64(cpuTime()-cpu)/float64(b.N), "cpu-ns/op")
	if len(dst) > 0 {
		b.Fatal(dst)
	}
}
