package socket_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"sync"
	"testing"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/query"
	"github.com/kaizen-audit/kaizen-audit/internal/socket"
)

// trailHolder is a real trail behind the socket, through the public API.
type trailHolder struct {
	trail    *audit.Trail
	stripKey bool // record without idempotency keys
}

func openTrail(t testing.TB) *trailHolder {
	t.Helper()
	trail, err := audit.Open(filepath.Join(t.TempDir(), "audit.jsonl"), &audit.Options{StateDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := trail.Close(); err != nil {
			t.Error(err)
		}
	})
	return &trailHolder{trail: trail}
}

func (h *trailHolder) Info(ctx context.Context) (socket.Info, error) {
	i, err := h.trail.Info(ctx)
	if err != nil {
		return socket.Info{}, err
	}
	return socket.Info{Origin: i.Origin, Path: i.Path, Durability: "durable", MaxLine: entry.DefaultMaxLine, Size: i.Entries}, nil
}

func coded(err error) error {
	for _, c := range []struct {
		is   error
		code socket.Code
	}{{audit.ErrRefused, socket.Refused}, {audit.ErrConflict, socket.Conflict}, {audit.ErrClosed, socket.Closed}} {
		if errors.Is(err, c.is) {
			return &socket.Error{Code: c.code, Message: err.Error()}
		}
	}
	return err
}

func (h *trailHolder) Record(ctx context.Context, _ socket.Peer, events []entry.Event, _ socket.Durability, results []socket.Result) {
	if h.stripKey {
		for i := range events {
			events[i].IdempotencyKey = ""
		}
	}
	if len(events) == 1 {
		var err error
		if results[0].Receipt, err = h.trail.Record(ctx, events[0]); err != nil {
			results[0].Err = coded(err)
		}
		return
	}
	receipts, err := h.trail.RecordBatch(ctx, events)
	var failed *audit.BatchError
	errors.As(err, &failed)
	for i := range results {
		switch {
		case failed != nil && failed.Errs[i] != nil:
			results[i].Err = coded(failed.Errs[i])
		case failed == nil && err != nil:
			results[i].Err = coded(err)
		default:
			results[i].Receipt = receipts[i]
		}
	}
}

func (h *trailHolder) NoteRefused(_ socket.Peer, err error) { h.trail.NoteRefused(err) }

func (h *trailHolder) NoteReading(context.Context, socket.Peer, socket.Reading) (entry.Receipt, error) {
	return entry.Receipt{}, errors.ErrUnsupported // the public API has no such call
}

func (h *trailHolder) Query(ctx context.Context, _ socket.Peer, q query.Query) iter.Seq2[entry.Entry, error] {
	return h.trail.Query(ctx, q)
}

func (h *trailHolder) Report(context.Context, socket.Peer, string) ([]byte, error) {
	return nil, errors.ErrUnsupported
}

func (h *trailHolder) ExportUser(context.Context, socket.Peer, string) ([]byte, error) {
	return nil, errors.ErrUnsupported
}

func TestWhatIsAcknowledgedIsInTheTrailOnce(t *testing.T) {
	h := openTrail(t)
	s := serve(t, h)
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
	for e, err := range h.trail.Query(t.Context(), audit.Query{}) {
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
		seen++
	}
	if seen != clients*each {
		t.Errorf("%d entries, want %d", seen, clients*each)
	}
}

// BenchmarkTrail is a real trail, durable. Keys cost a look-up each; keyed=false
// shows what the rest costs.
func BenchmarkTrail(b *testing.B) {
	for _, keyed := range []bool{true, false} {
		b.Run(fmt.Sprintf("keyed=%v", keyed), func(b *testing.B) {
			h := openTrail(b)
			h.stripKey = !keyed
			benchServed(b, serve(b, h))
		})
	}
}
