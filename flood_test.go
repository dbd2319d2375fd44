package audit

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/durable/durabletest"
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

// Refusals that can't be recorded on a full disk are told when there is room.
func TestRefusalsOutlastAFullDisk(t *testing.T) {
	m := newMem(t)
	trail, err := Open(memLog, memOptions(m))
	if err != nil {
		t.Fatal(err)
	}
	refuse := func() {
		if _, err := trail.Record(context.Background(), Event{AgentID: "a"}); !errors.Is(err, ErrRefused) {
			t.Fatal(err)
		}
	}
	refuse()
	m.SetCapacity(m.Used())
	for err = nil; err == nil; { // what is reserved is used up
		ev := event("a", "step")
		ev.Inputs = Of(map[string]any{"v": strings.Repeat("x", 1<<20)})
		_, err = trail.Record(context.Background(), ev)
	}
	for err = nil; err == nil; {
		_, err = trail.Record(context.Background(), event("a", "step"))
	}
	if err := trail.flushRefusals(context.Background()); !errors.Is(err, ErrFull) {
		t.Fatal(err)
	}
	refuse()
	m.SetCapacity(0)
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	lines := allLines(t, m, memLog)
	if !slices.ContainsFunc(lines, func(l []byte) bool {
		return bytes.Contains(l, []byte(`"count":2,"reasons":{"event_type: is required":2}`))
	}) {
		t.Errorf("%s", bytes.Join(lines[max(0, len(lines)-3):], nil))
	}
}

// A trail that was closed, after its holder had gone, does not become the holder.
func TestClosedMeansThatTheLockIsLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	opts := &Options{StateDir: t.TempDir()}
	holder, err := Open(path, opts)
	if err != nil {
		t.Fatal(err)
	}
	other, err := Open(path, opts)
	if err != nil {
		t.Fatal(err)
	}
	r := other.remote.Load()
	if err := errors.Join(holder.Close(), other.Close()); err != nil {
		t.Fatal(err)
	}
	r.client = nil // whoever looked for a holder last had found that it was gone
	for range 20 { // a Record that began before Close
		if c, err := r.holder(context.Background(), nil); !errors.Is(err, ErrClosed) {
			t.Fatalf("%v, %v", c, err)
		}
	}
}

// An opening that fails leaves nothing running.
func TestAnOpeningThatFailsLeavesNoGoroutine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	trail, err := Open(path, &Options{StateDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	f := durabletest.NewFaults(durable.OS, func(op durabletest.Op) durabletest.Action {
		if op.Kind == "write" && op.Name == path { // its AUDIT_START
			return durabletest.FailBefore(syscall.ENOSPC)
		}
		return durabletest.Pass
	})
	before := runtime.NumGoroutine()
	for range 5 {
		if _, err := Open(path, &Options{fs: f, CheckpointTo: []string{filepath.Join(t.TempDir(), "to")}}); !errors.Is(err, ErrFull) {
			t.Fatal(err)
		}
	}
	for end := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
		}
	}
}
