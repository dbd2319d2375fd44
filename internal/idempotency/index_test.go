package idempotency

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/kaizen-audit/kaizen-audit/internal/durable/durabletest"
)

// The index against a map: hundreds of thousands of keys, spilled, merged,
// flushed, opened again.
func TestIndexAgainstMap(t *testing.T) {
	fsys := durabletest.NewMem()
	key := make([]byte, 32)
	x, err := Open(fsys, "/idempotency", key)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	const keys = 5 * inMemory
	name := func(i int64) string { return fmt.Sprint("key-", i) }
	check := func(when string, upTo int64) {
		t.Helper()
		for range 2000 {
			i := rand.Int64N(upTo + 100)
			index, ok, err := x.Lookup(x.Hash(name(i)))
			if err != nil || ok != (i < upTo) || ok && index != i {
				t.Fatalf("%s: key %d: %d, %v, %v", when, i, index, ok, err)
			}
		}
	}
	for i := range int64(keys) {
		if err := x.Add(x.Hash(name(i)), i, at.Add(time.Duration(i)*time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if len(x.recent) > 2*inMemory {
			t.Fatalf("%d keys in memory", len(x.recent))
		}
		if i == keys/2 {
			check("half way", i+1)
		}
	}
	check("at the end", keys)
	if err := x.Flush(keys); err != nil {
		t.Fatal(err)
	}
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	if x, err = Open(fsys.Crash(nil), "/idempotency", key); err != nil {
		t.Fatal(err)
	}
	if x.Covered() != keys || len(x.runs) > 8 {
		t.Errorf("covers %d, %d runs", x.Covered(), len(x.runs))
	}
	check("after a crash", keys)
	// Runs that are older than the window go.
	if err := x.Add(x.Hash("new"), keys, at.Add(2*Window)); err != nil {
		t.Fatal(err)
	}
	if err := x.Flush(keys + inMemory); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := x.Lookup(x.Hash(name(0))); ok || err != nil {
		t.Errorf("a key of two weeks ago: %v, %v", ok, err)
	}
}

func FuzzParseRun(f *testing.F) {
	x := &Index{fs: durabletest.NewMem(), dir: "/r"}
	r, err := x.writeRun(0, 5, time.UnixMilli(7), make([]record, 2))
	if err != nil {
		f.Fatal(err)
	}
	data := make([]byte, headBytes+2*recordSize+32)
	if _, err := r.file.ReadAt(data, 0); err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := parseRun(data); err == nil && (r.from < 0 || r.to < r.from || r.n < 0) {
			t.Fatalf("%+v", r)
		}
	})
}
