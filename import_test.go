package audit

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/durable/durabletest"
)

func importEvents(from, to int) []Event {
	var events []Event
	for i := from; i < to; i++ {
		ev := event("old", fmt.Sprint(i))
		ev.Timestamp = time.Date(2025, 1, 1, 0, 0, i, 0, time.UTC)
		ev.IdempotencyKey = fmt.Sprintf("import:file:%d", i)
		events = append(events, ev)
	}
	return events
}

// What is imported again gives the receipts that it had, in batches that are
// partly known, and an event without a key or with another's is refused alone.
func TestImportedAgainIsRecordedOnce(t *testing.T) {
	trail := openTemp(t, nil)
	ctx := context.Background()
	first, err := trail.Import(ctx, importEvents(0, 600))
	if err != nil {
		t.Fatal(err)
	}
	again := importEvents(300, 900)
	again = append(again, again[599], event("old", "no key"), again[0])
	again[602].Action = "another"
	second, err := trail.Import(ctx, again)
	var failed *BatchError
	if !errors.As(err, &failed) || !errors.Is(failed.Errs[601], ErrRefused) || !errors.Is(failed.Errs[602], ErrConflict) {
		t.Fatalf("%v", err)
	}
	if i := slices.IndexFunc(failed.Errs[:601], func(err error) bool { return err != nil }); i >= 0 {
		t.Fatalf("event %d: %v", i, failed.Errs[i])
	}
	if !slices.Equal(first[300:], second[:300]) || second[599] != second[600] {
		t.Fatal("the receipts are others")
	}
	entries, err := collect(trail.Query(ctx, Query{Agent: "old"}))
	if err != nil || len(entries) != 900 {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	for i, e := range entries {
		if e.Action != fmt.Sprint(i) || !e.IsImported() || e.RecordedBy.Text("principal") != principal() {
			t.Fatalf("entry %d: %s", i, e.Line())
		}
	}
}

// Keys of what was imported are found in the lines when the trail has long
// forgotten them; a caller's own keys are not among them.
func TestImportedKeysOutliveTheWindow(t *testing.T) {
	ctx := context.Background()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	opts := &Options{now: func() time.Time { return now }, SegmentBytes: 64 << 10}
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	for range 3 {
		trail, err := Open(path, opts)
		if err != nil {
			t.Fatal(err)
		}
		known := map[string]bool{}
		for key, err := range trail.ImportedKeys(ctx, "import:file:") {
			if err != nil || known[key] {
				t.Fatal(key, err)
			}
			known[key] = true
		}
		if len(known) != 0 && len(known) != 300 {
			t.Fatalf("%d keys", len(known))
		}
		var fresh []Event
		for _, ev := range importEvents(0, 300) {
			if !known[ev.IdempotencyKey] {
				fresh = append(fresh, ev)
			}
		}
		if _, err := trail.Import(ctx, fresh); err != nil {
			t.Fatal(err)
		}
		own := event("new", "x")
		own.IdempotencyKey = "import:file:own"
		if _, err := trail.Record(ctx, own); err != nil {
			t.Fatal(err)
		}
		if _, err := trail.Rotate(ctx); err != nil {
			t.Fatal(err)
		}
		if err := trail.Close(); err != nil {
			t.Fatal(err)
		}
		now = now.AddDate(0, 0, 30)
	}
	trail := openReadOnly(t, path)
	entries, err := collect(trail.Query(ctx, Query{Agent: "old"}))
	if err != nil || len(entries) != 300 {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
}

func openReadOnly(t *testing.T, path string) *Trail {
	t.Helper()
	trail, err := Open(path, &Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { trail.Close() })
	return trail
}

// Power fails at every file operation of an import; doing it again completes
// it, every event once.
func TestCrashImport(t *testing.T) {
	durabletest.EachCrash(t, 2, func(t *testing.T, r *durabletest.Run) {
		if err := durable.MkdirAll(r.Mem, "/log", 0o700); err != nil {
			t.Fatal(err)
		}
		work := func(opts *Options) error {
			trail, err := Open(memLog, opts)
			if err != nil {
				return err
			}
			for from := 0; from < 30; from += 10 {
				if _, err := trail.Import(context.Background(), importEvents(from, from+10)); err != nil {
					return errors.Join(err, trail.Close())
				}
			}
			return trail.Close()
		}
		var err error
		r.Inject(func() { err = work(memOptions(r.FS)) })
		if err != nil && !r.Fired() {
			t.Fatal(err)
		}
		m := r.Restart()
		if err := work(memOptions(m)); err != nil {
			t.Fatal(err)
		}
		trail, err := Open(memLog, memOptions(m))
		if err != nil {
			t.Fatal(err)
		}
		entries, err := collect(trail.Query(context.Background(), Query{Agent: "old"}))
		if err != nil || len(entries) != 30 {
			t.Fatalf("%d entries, %v", len(entries), err)
		}
		if err := trail.Close(); err != nil {
			t.Fatal(err)
		}
		checkWhole(t, m, memLog, &history{})
	})
}
