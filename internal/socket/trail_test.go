package socket_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/entry"
)

// openTrail opens a real trail, which listens in the directory that it gives.
func openTrail(t testing.TB) (*audit.Trail, served) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	trail, err := audit.Open(path, &audit.Options{StateDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := trail.Close(); err != nil {
			t.Error(err)
		}
	})
	return trail, served{dir: strings.TrimSuffix(path, ".jsonl") + ".trail"}
}

func TestWhatIsAcknowledgedIsInTheTrailOnce(t *testing.T) {
	trail, s := openTrail(t)
	const clients, each = 8, 40
	receipts := make([][]entry.Receipt, clients)
	var wg sync.WaitGroup
	for i := range clients {
		c := dial(t, s)
		wg.Go(func() {
			for k := range each {
				key := fmt.Sprintf("%d-%d", i, k)
				r, err := c.Record(t.Context(), event(key))
				if err != nil {
					t.Error(err)
					return
				}
				receipts[i] = append(receipts[i], r)
				if k%10 == 0 { // as after a broken connection
					if again, err := c.Record(t.Context(), event(key)); err != nil || again != r {
						t.Errorf("sent again: %+v, %v; the first was %+v", again, err, r)
					}
				}
			}
		})
	}
	wg.Wait()
	seen := 0
	for e, err := range trail.Query(t.Context(), audit.Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		var i, k int
		if _, err := fmt.Sscanf(e.IdempotencyKey, "%d-%d", &i, &k); err != nil {
			t.Fatal(err)
		}
		if r := receipts[i][k]; r.Index != e.Index || r.Digest != e.Digest() || r.EventID != e.EventID || !r.Durable {
			t.Errorf("entry %d is not that of receipt %+v", e.Index, r)
		}
		if via := e.RecordedBy.Text("via"); via != "socket" {
			t.Errorf("entry %d came by %q", e.Index, via)
		}
		seen++
	}
	if seen != clients*each {
		t.Errorf("%d entries, want %d", seen, clients*each)
	}
}

// BenchmarkTrail is a real trail, durable, every event with a key of its own.
func BenchmarkTrail(b *testing.B) {
	_, s := openTrail(b)
	benchServed(b, s)
}

// BenchmarkTrailWithoutKeys shows what the keys cost.
func BenchmarkTrailWithoutKeys(b *testing.B) {
	_, s := openTrail(b)
	noKeys = true
	defer func() { noKeys = false }()
	benchServed(b, s)
}
