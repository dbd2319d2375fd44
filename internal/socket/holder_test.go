package socket_test

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/query"
	"github.com/kaizen-audit/kaizen-audit/internal/socket"
)

// memoryHolder keeps lines in memory, for tests of the transport: nothing is
// durable, and the same key with another event is a conflict.
type memoryHolder struct {
	maxLine int
	keep    bool
	gate    chan struct{} // when not nil, Record waits for it
	reached chan struct{} // when not nil, it gets an element for each Record

	mu       sync.Mutex
	lines    [][]byte
	by       []socket.Peer
	keys     map[string]entry.Receipt
	count    int64
	refused  int
	readings []socket.Reading
}

func newMemoryHolder() *memoryHolder {
	return &memoryHolder{maxLine: 1 << 20, keep: true, keys: map[string]entry.Receipt{}}
}

func (h *memoryHolder) Info(context.Context) (socket.Info, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return socket.Info{Origin: "example.com/memory", VKey: "none", Path: "/m.jsonl", Version: "test", PID: 1, Durability: "written", MaxLine: h.maxLine, Size: h.count}, nil
}

func (h *memoryHolder) Record(_ context.Context, by socket.Peer, events []entry.Event, d socket.Durability, results []socket.Result) {
	if h.reached != nil {
		h.reached <- struct{}{}
	}
	if h.gate != nil {
		<-h.gate
	}
	now := time.Now()
	var line []byte
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range events {
		ev := &events[i]
		if r, ok := h.keys[ev.IdempotencyKey]; ok && ev.IdempotencyKey != "" {
			results[i].Receipt = r
			continue
		}
		st := entry.Stamp{EventID: entry.NewEventID(now), RecordedAt: now, TraceID: "t", MaxLine: h.maxLine + 1024, RecordedBy: by.RecordedBy()}
		var err error
		if line, err = entry.AppendLine(line[:0], ev, &st); err != nil {
			results[i].Err = &socket.Error{Code: socket.Refused, Message: err.Error()}
			continue
		}
		results[i].Receipt = entry.Receipt{Index: h.count, EventID: st.EventID, Digest: entry.Digest(line), Durable: d == "durable"}
		h.count++
		if h.keep {
			h.lines = append(h.lines, append([]byte(nil), line...))
			h.by = append(h.by, by)
			if ev.IdempotencyKey != "" {
				h.keys[string([]byte(ev.IdempotencyKey))] = results[i].Receipt
			}
		}
	}
}

func (h *memoryHolder) NoteRefused(socket.Peer, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.refused++
}

func (h *memoryHolder) NoteReading(_ context.Context, _ socket.Peer, r socket.Reading) (entry.Receipt, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if r.EventType != "AUDIT_QUERY" {
		return entry.Receipt{}, &socket.Error{Code: socket.Refused, Message: "event_type is that of no reading"}
	}
	h.readings = append(h.readings, r)
	return entry.Receipt{Index: h.count, EventID: entry.NewEventID(time.Now())}, nil
}

func (h *memoryHolder) Query(_ context.Context, _ socket.Peer, q query.Query) iter.Seq2[entry.Entry, error] {
	return func(yield func(entry.Entry, error) bool) {
		h.mu.Lock()
		lines := h.lines
		h.mu.Unlock()
		for i, line := range lines {
			e, err := entry.Parse(line)
			e.Index = int64(i)
			if q.Agent != "" && e.AgentID != q.Agent {
				continue
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

func (h *memoryHolder) Report(_ context.Context, _ socket.Peer, format string) ([]byte, error) {
	return fmt.Appendf(nil, "a report as %s of %d entries\n", format, h.count), nil
}

func (h *memoryHolder) Erase(_ context.Context, by socket.Peer, user string, options json.RawMessage) ([]byte, error) {
	if user == "held" {
		return nil, &socket.Error{Code: socket.Held, Message: "kept by a duty"}
	}
	return json.Marshal(map[string]any{"user": user, "options": options, "by": by.Principal()})
}

// did answers a call with what was asked and by whom; "slow" takes a while, unless the
// peer leaves.
func (h *memoryHolder) did(ctx context.Context, call string, by socket.Peer, asked json.RawMessage) ([]byte, error) {
	switch {
	case string(asked) == `{"slow":true}`:
		select {
		case <-time.After(300 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	case string(asked) == `{"wrong":true}`:
		return nil, &socket.Error{Code: socket.Option, Message: "it is wrong", Hint: `say "right"`}
	}
	return json.Marshal(map[string]any{"did": call, "asked": asked, "by": by.Principal()})
}

func (h *memoryHolder) Prune(ctx context.Context, by socket.Peer, asked json.RawMessage) ([]byte, error) {
	return h.did(ctx, "prune", by, asked)
}

func (h *memoryHolder) Rotate(ctx context.Context, by socket.Peer, asked json.RawMessage) ([]byte, error) {
	return h.did(ctx, "rotate", by, asked)
}

func (h *memoryHolder) AddHold(ctx context.Context, by socket.Peer, asked json.RawMessage) ([]byte, error) {
	return h.did(ctx, "add hold", by, asked)
}

func (h *memoryHolder) LiftHold(ctx context.Context, by socket.Peer, asked json.RawMessage) ([]byte, error) {
	return h.did(ctx, "lift hold", by, asked)
}

func (h *memoryHolder) Controlled() bool { return false }

func (h *memoryHolder) SetRetention(ctx context.Context, by socket.Peer, asked json.RawMessage) ([]byte, error) {
	return h.did(ctx, "set retention", by, asked)
}

func (h *memoryHolder) EraseDue(ctx context.Context, by socket.Peer, asked json.RawMessage) ([]byte, error) {
	return h.did(ctx, "erase due", by, asked)
}

func (h *memoryHolder) CancelErasure(ctx context.Context, by socket.Peer, asked json.RawMessage) ([]byte, error) {
	return h.did(ctx, "cancel erasure", by, asked)
}

func (h *memoryHolder) Pseudonym(_ context.Context, user string) (string, error) {
	if user == "" {
		return "", &socket.Error{Code: socket.Refused, Message: "user: is empty"}
	}
	return "pseudonym of " + user, nil
}

func (h *memoryHolder) ExportUser(_ context.Context, _ socket.Peer, user string) ([]byte, error) {
	if user == "nobody" {
		return nil, &socket.Error{Code: socket.NotFound, Message: "no such user"}
	}
	return fmt.Appendf(nil, "[%q]\n", user), nil
}

// served is a server of a holder in a directory of its own.
type served struct {
	*socket.Server
	dir string
}

// serve serves h until the test ends.
func serve(t testing.TB, h socket.Holder, tune ...func(*socket.Server)) served {
	t.Helper()
	s, err := socket.NewServer(h, func(err error) { t.Log(err) })
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range tune {
		f(s)
	}
	dir := t.TempDir()
	l, err := socket.Listen(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return served{s, dir}
}

func dial(t testing.TB, s served) *socket.Client {
	t.Helper()
	c, err := socket.Dial(t.Context(), s.dir, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// connect gives a bare connection.
func connect(t testing.TB, s served) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", filepath.Join(s.dir, socket.Name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

func event(key string) []byte {
	return fmt.Appendf(nil, `{"event_type":"TOOL_USE","agent_id":"qa-agent-001","action":"tool_use:calculator","trace_id":"0af7651916cd43dd8448eb211c80319c","inputs":{"reservation_id":"ZFA04Y"},"outputs":{"status":"ok","cabin":"economy","passengers":2},"duration_ms":45.2,"metadata":{"user_id":"user123","session_id":"session456","ip_address":"192.0.2.1"},"idempotency_key":%q}`, key)
}
