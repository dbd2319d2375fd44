package audit

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// A flood is slowed down to what the tree can be written at. What the trail has to
// say itself meanwhile, and a ring that is made, come between all the same.
func TestAFloodWaitsForTheTreeAndForNothingElse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	trail, err := Open(path, &Options{backlog: 64, interval: 5 * time.Millisecond, ring: 16 << 10, ringAfter: 4, StateDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	const rounds, batch = 40, 50
	done := make(chan struct{})
	go func() {
		defer close(done)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range rounds {
					events := make([]Event, batch)
					for i := range events {
						events[i] = event("a", "step")
					}
					trail.NoteRefused(ErrRefused)
					if _, err := trail.RecordBatch(context.Background(), events); err != nil {
						t.Error(err)
						return
					}
					trail.signer.pendingMu.Lock()
					if n := len(trail.signer.pending); n > 64+4*batch+10 {
						t.Errorf("%d lines wait for the tree", n)
					}
					trail.signer.pendingMu.Unlock()
				}
			})
		}
		wg.Wait()
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("the flood does not end")
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	report, err := VerifyPath(context.Background(), path, nil)
	if err != nil || report.Status != "intact" || report.Size < 4*rounds*batch {
		t.Fatalf("%+v, %v", report, err)
	}
}

// A caller that waits for the tree waits no longer than it said, and its event is
// not recorded.
func TestAContextBoundsTheWaitForTheTree(t *testing.T) {
	trail, err := Open(filepath.Join(t.TempDir(), "audit.jsonl"), &Options{backlog: 1, interval: time.Hour, StateDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer trail.Close()
	trail.signer.signing.Lock() // a disk that is busy with tiles
	for range 3 {
		if err := trail.recordOwn(context.Background(), ownEntry{eventType: "AUDIT_QUERY", action: "query"}); err != nil {
			t.Fatal(err)
		}
	}
	size := trail.journal.Next()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err = trail.Record(ctx, event("a", "step"))
	if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrUnknown) || trail.journal.Next() != size {
		t.Errorf("%v, %d entries", err, trail.journal.Next()-size)
	}
	trail.signer.signing.Unlock()
	if _, err := trail.Record(context.Background(), event("a", "step")); err != nil {
		t.Error(err)
	}
}
