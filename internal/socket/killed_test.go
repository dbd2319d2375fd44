package socket_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/socket"
)

// dyingHolder answers the first event of every stream and is gone in the same
// moment, as one that is killed: without an end of its answers.
func dyingHolder(t *testing.T) (dir string) {
	// With one processor nobody looks between the answer and the end.
	procs := runtime.GOMAXPROCS(1)
	t.Cleanup(func() { runtime.GOMAXPROCS(procs) })
	dir = t.TempDir()
	l, err := socket.Listen(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	s := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Kaizen-Audit-Protocol", strconv.Itoa(socket.Version))
		if r.URL.Path != "/v1/events" {
			_ = json.NewEncoder(w).Encode(socket.Info{Protocol: socket.Version, Durability: "durable", MaxLine: 1 << 20})
			return
		}
		conn, in, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nKaizen-Audit-Protocol: 1\r\nTransfer-Encoding: chunked\r\n\r\n")
		time.Sleep(time.Millisecond) // until the client waits for an answer, and no longer for the head
		for range 2 {                // the chunk's head, and the event
			if _, err := in.ReadString('\n'); err != nil {
				t.Error(err)
				return
			}
		}
		if _, err := io.CopyN(io.Discard, in, 2); err != nil { // or the kernel tells of what was not read
			t.Error(err)
			return
		}
		receipt := append(entry.Receipt{EventID: entry.NewEventID(time.Now()), Durable: true}.AppendJSON(nil), '\n')
		_, _ = conn.Write(socket.Chunk(receipt))
	})}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return dir
}

// TestAHolderThatIsKilledAfterAnAnswerIsNoticedAtOnce: its answer and its end
// may arrive together.
func TestAHolderThatIsKilledAfterAnAnswerIsNoticedAtOnce(t *testing.T) {
	c, err := socket.Dial(t.Context(), dyingHolder(t), "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	answered := 0
	for i := range 400 {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		begun := time.Now()
		_, err := c.Record(ctx, event("k"+strconv.Itoa(i)))
		cancel()
		switch {
		case err == nil:
			answered++
		case !errors.Is(err, socket.ErrGone):
			t.Fatalf("event %d: %v", i, err)
		}
		if took := time.Since(begun); took > 800*time.Millisecond {
			t.Fatalf("event %d took %v: %v", i, took, err)
		}
	}
	if answered < 200 { // at least every other one meets a new stream
		t.Errorf("%d answered", answered)
	}
}

// TestSeveralWaitAtAHolderThatIsKilled: whose answers did not come with the
// end are told so.
func TestSeveralWaitAtAHolderThatIsKilled(t *testing.T) {
	c, err := socket.Dial(t.Context(), dyingHolder(t), "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	answered := 0
	for i := range 100 {
		results := c.RecordBatch(ctx, [][]byte{event("a"), event("b"), event("c")})
		first := results[0].Err
		if first == nil {
			answered++
		}
		// The first may have gone to the stream before, whose end was not known.
		if first != nil && !errors.Is(first, socket.ErrGone) || !errors.Is(results[1].Err, socket.ErrGone) || !errors.Is(results[2].Err, socket.ErrGone) {
			t.Fatalf("round %d: %v, %v, %v", i, results[0].Err, results[1].Err, results[2].Err)
		}
	}
	if answered < 50 {
		t.Errorf("%d answered", answered)
	}
}
