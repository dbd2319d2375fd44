package journal

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/durable/durabletest"
)

// Flush waits for what was accepted, and not for what a full disk has kept from
// being written: its callers were told.
func TestFlushDoesNotWaitForWhatWasGivenUp(t *testing.T) {
	m := durabletest.NewMem()
	for _, dir := range []string{"/t", "/t/a.trail"} {
		if err := m.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := durable.WriteFile(m, "/t/a.jsonl", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	j, err := Open(Options{FS: m, Path: "/t/a.jsonl", Dir: "/t/a.trail", Mode: Written})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := j.Replay(0, func(int64, []byte) error { return nil }); err != nil {
		t.Fatal(err)
	}
	j.Start()
	j.commit.Lock()
	full, flushed := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := j.Append(context.Background(), make([]byte, 32<<20), make([]Digest, 3))
		full <- err
	}()
	accepted := func() int64 {
		j.mu.Lock()
		defer j.mu.Unlock()
		return j.accepted
	}
	for accepted() != 3 {
		time.Sleep(time.Millisecond)
	}
	go func() { flushed <- j.Flush(context.Background()) }()
	time.Sleep(10 * time.Millisecond) // it waits for the three
	m.SetCapacity(4096)
	j.commit.Unlock()
	if err := <-full; !errors.Is(err, ErrFull) {
		t.Fatal(err)
	}
	select {
	case err := <-flushed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it waits for lines that nobody writes")
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
}
