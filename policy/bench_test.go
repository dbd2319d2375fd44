package policy_test

import (
	"os"
	"strings"
	"testing"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/policy"
)

// benchEvent is an entry of about 500 bytes, of a documented tool call.
func benchEvent() entry.Event {
	return event(`"action":"tool_use:get_reservation_details","inputs":{"reservation_id":"ZFA04Y","include":["passengers","flights"]},"outputs":{"status":"confirmed","cabin":"economy","flights":[{"number":"HAT136","from":"JFK","to":"SEA"}],"note":"two bags, paid by gift card"},"duration_ms":45.2,"metadata":{"user_id":"james_patel_9828","session_id":"5c4a1d2e","environment":"production","service_name":"airline"}`)
}

func BenchmarkEntry(b *testing.B) {
	ev := benchEvent()
	dst := make([]byte, 0, 2048)
	b.Run("without", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if out, err := entry.AppendLine(dst, &ev, &stamp); err != nil || len(out) < 450 {
				b.Fatal(len(out), err)
			}
		}
	})
	b.Run("with", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if out, err := policy.Default().AppendLine(dst, &ev, &stamp, policy.Run{}); err != nil || len(out) < 450 {
				b.Fatal(len(out), err)
			}
		}
	})
}

func BenchmarkProse(b *testing.B) {
	text := prose(b)
	ev := event(`"action":"x"`)
	ev.Outputs = entry.Of(map[string]any{"text": text})
	dst := make([]byte, 0, 2*len(text))
	b.Run("without", func(b *testing.B) {
		b.SetBytes(int64(len(text)))
		for b.Loop() {
			if _, err := entry.AppendLine(dst, &ev, &stamp); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("with", func(b *testing.B) {
		b.SetBytes(int64(len(text)))
		for b.Loop() {
			if _, err := policy.Default().AppendLine(dst, &ev, &stamp, policy.Run{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// prose is 64 KiB of this repository's own documents.
func prose(tb testing.TB) string {
	text, err := os.ReadFile("../docs/threat-model.md")
	if err != nil {
		tb.Fatal(err)
	}
	return strings.Repeat(string(text), 64<<10/len(text)+1)[:64<<10]
}

// The part of the bars that does not depend on the machine.
func TestNothingIsAllocatedWhereNothingChanges(t *testing.T) {
	if underRace {
		t.Skip("the race detector allocates too")
	}
	ev := benchEvent()
	dst := make([]byte, 0, 4096)
	run := func() {
		if _, err := policy.Default().AppendLine(dst, &ev, &stamp, policy.Run{}); err != nil {
			t.Error(err)
		}
	}
	run()
	if n := testing.AllocsPerRun(200, run); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
