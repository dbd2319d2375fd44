package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/durable/durabletest"
	"github.com/kaizen-audit/kaizen-audit/internal/spool"
)

func openTemp(t *testing.T, opts *Options) *Trail {
	t.Helper()
	trail, err := Open(filepath.Join(t.TempDir(), "audit.jsonl"), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := trail.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		checkWhole(t, durable.OS, trail.path, &history{})
	})
	return trail
}

// Many writers at once, in every durability, with seals between: every receipt
// names the entry it is for, and each writer's own order is kept.
func TestManyWriters(t *testing.T) {
	for _, d := range []Durability{Durable, Written, Queued} {
		t.Run(d.String(), func(t *testing.T) {
			trail := openTemp(t, &Options{Durability: d, SegmentBytes: 64 << 10})
			h := make([]history, 16)
			var wg sync.WaitGroup
			for w := range h {
				wg.Go(func() {
					for i := range 100 {
						ctx := context.Background()
						if i%2 == 0 { // one that can be cancelled never leads
							var cancel context.CancelFunc
							ctx, cancel = context.WithCancel(ctx)
							defer cancel()
						}
						r, err := trail.Record(ctx, event(fmt.Sprint("agent-", w), fmt.Sprint(i)))
						if err != nil {
							t.Error(err)
							return
						}
						h[w].receipts = append(h[w].receipts, r)
					}
				})
			}
			wg.Wait()
			// The size of a segment is looked at when something is recorded, and
			// a queue may not have been written by then.
			if err := trail.journal.Flush(context.Background()); err != nil {
				t.Fatal(err)
			}
			if _, err := trail.Record(context.Background(), event("last", "last")); err != nil {
				t.Fatal(err)
			}
			if err := trail.Close(); err != nil {
				t.Fatal(err)
			}
			all := &history{}
			for w := range h {
				if !slices.IsSortedFunc(h[w].receipts, func(a, b Receipt) int { return int(a.Index - b.Index) }) {
					t.Errorf("writer %d: receipts out of order", w)
				}
				all.receipts = append(all.receipts, h[w].receipts...)
			}
			checkWhole(t, durable.OS, trail.path, all)
			if len(trail.journal.Segments()) == 0 {
				t.Error("nothing was sealed")
			}
		})
	}
}

func TestRecordBatch(t *testing.T) {
	trail := openTemp(t, nil)
	events := []Event{event("a", "0"), {}, event("a", "2"), event("a", "3")}
	events[3].IdempotencyKey = "k"
	receipts, err := trail.RecordBatch(context.Background(), events)
	var batch *BatchError
	if !errors.As(err, &batch) || batch.Errs[0] != nil || !errors.Is(batch.Errs[1], ErrRefused) || batch.Errs[2] != nil || batch.Errs[3] != nil {
		t.Fatalf("%v", err)
	}
	if receipts[0].Index != 1 || receipts[2].Index != 2 || receipts[3].Index != 3 {
		t.Errorf("%+v", receipts)
	}
	for i, want := range []string{"0", "", "2", "3"} {
		if want == "" {
			continue
		}
		e, _, err := trail.entryAt(context.Background(), receipts[i].Index)
		if err != nil || e.Action != want || e.Digest() != receipts[i].Digest {
			t.Errorf("event %d: %s, %v", i, e.Line(), err)
		}
	}
}

// slowSync is a file system whose syncs wait.
type slowSync struct {
	durable.FS
	wait func()
}

type slowFile struct {
	durable.File
	wait func()
}

func (s slowSync) OpenFile(name string, flag int, perm os.FileMode) (durable.File, error) {
	f, err := s.FS.OpenFile(name, flag, perm)
	if err != nil || name != memLog {
		return f, err
	}
	return slowFile{f, s.wait}, nil
}

func (s slowSync) Lock(f durable.File) error {
	if slow, ok := f.(slowFile); ok {
		f = slow.File
	}
	return s.FS.Lock(f)
}

func (f slowFile) Sync() error {
	f.wait()
	return f.File.Sync()
}

// A context bounds the wait, not the fate: the entry is there although its
// caller gave up, also when it was the only one.
func TestContextBoundsTheWait(t *testing.T) {
	var hang atomic.Bool
	release := make(chan struct{})
	m := newMem(t)
	trail, err := Open(memLog, memOptions(slowSync{m, func() {
		if hang.Load() {
			<-release
		}
	}}))
	if err != nil {
		t.Fatal(err)
	}
	hang.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err = trail.Record(ctx, event("patient", "x"))
	if !errors.Is(err, ErrUnknown) || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("%v", err)
	}
	if time.Since(start) > 5*time.Second {
		t.Error("the wait was not bounded")
	}
	// A context that has ended before hands nothing over.
	if _, err := trail.Record(ctx, event("nobody", "x")); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrUnknown) {
		t.Errorf("%v", err)
	}
	hang.Store(false)
	close(release)
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	got := string(bytes.Join(allLines(t, m, memLog), []byte("\n")))
	if strings.Count(got, `"agent_id":"patient"`) != 1 || strings.Contains(got, `"agent_id":"nobody"`) {
		t.Error(got)
	}
}

// After a sync has failed nothing is taken any more, and every call says the
// first error, until the trail is opened again.
func TestFailedSyncStops(t *testing.T) {
	m := newMem(t)
	var fail atomic.Bool
	f := durabletest.NewFaults(m, func(op durabletest.Op) durabletest.Action {
		if fail.Load() && op.Kind == "sync" && op.Name == memLog {
			fail.Store(false) // only once: the next sync would succeed
			return durabletest.FailBefore(errors.New("the disk is ill"))
		}
		return durabletest.Pass
	})
	trail, err := Open(memLog, memOptions(f))
	if err != nil {
		t.Fatal(err)
	}
	h := &history{}
	if err := h.record(trail, 2); err != nil {
		t.Fatal(err)
	}
	fail.Store(true)
	first := h.record(trail, 1)
	if !errors.Is(first, ErrStopped) || !strings.Contains(first.Error(), "the disk is ill") {
		t.Fatalf("%v", first)
	}
	if again := h.record(trail, 1); again == nil || again.Error() != first.Error() {
		t.Errorf("then %v", again)
	}
	if _, err := trail.Rotate(context.Background()); !errors.Is(err, ErrStopped) {
		t.Errorf("rotate: %v", err)
	}
	if size := trail.signer.latest.Load().Size; size > 3 {
		t.Errorf("%d lines signed", size)
	}
	if err := trail.Close(); err == nil {
		t.Error("closed without a word")
	}
	reopen(t, m, h)
}

// The same with a ring, whose sync fails, or whose lines the log can't take: what was
// acknowledged before is there after the next opening, and if the log takes it, for
// those who read until then.
func TestFailedRingStops(t *testing.T) {
	for _, test := range []struct {
		kind, name string
		mode       Durability
	}{{"sync", "/log/audit.trail/ring", Durable}, {"write", memLog, Written}} {
		t.Run(test.kind, func(t *testing.T) {
			m := newMem(t)
			var fail atomic.Bool
			f := durabletest.NewFaults(m, func(op durabletest.Op) durabletest.Action {
				if fail.Load() && op.Kind == test.kind && op.Name == test.name {
					fail.Store(false)
					return durabletest.FailBefore(errors.New("the disk is ill"))
				}
				return durabletest.Pass
			})
			o := ringOptions(f)
			o.ring, o.Durability = 1<<20, test.mode
			trail, err := Open(memLog, o)
			if err != nil {
				t.Fatal(err)
			}
			h := &history{}
			if err := h.record(trail, 2); err != nil {
				t.Fatal(err)
			}
			if err := h.sign(trail); err != nil { // from here on there is a ring
				t.Fatal(err)
			}
			if err := h.record(trail, 20); err != nil {
				t.Fatal(err)
			}
			fail.Store(true)
			if test.kind == "write" { // a reading has the log catch up
				if _, _, err := trail.entryAt(context.Background(), h.receipts[21].Index); err == nil {
					t.Error("the last entry is there")
				}
			}
			if first := h.record(trail, 1); !errors.Is(first, ErrStopped) || !strings.Contains(first.Error(), "the disk is ill") {
				t.Fatalf("%v", first)
			}
			if _, _, err := trail.entryAt(context.Background(), h.receipts[21].Index); (err == nil) != (test.kind == "sync") {
				t.Errorf("the last entry: %v", err)
			}
			view, err := trail.view()
			if err != nil {
				t.Fatal(err)
			}
			gaps, err := view.Gaps(context.Background())
			if err := errors.Join(err, view.Close()); err != nil {
				t.Fatal(err)
			}
			if last := h.receipts[21].Index; (len(gaps) == 0) != (test.kind == "sync") || len(gaps) > 0 && gaps[0].First+gaps[0].Count-1 != last {
				t.Errorf("what a reading lacks: %v, up to entry %d", gaps, last)
			}
			if err := trail.Close(); err == nil {
				t.Error("closed without a word")
			}
			if n := len(allLines(t, m, memLog)); test.kind == "sync" && int64(n) <= h.receipts[21].Index {
				t.Errorf("the log has %d lines", n)
			}
			reopen(t, m, h)
		})
	}
}

// In mode Written the log does without a ring that somebody has cut short, or that can't
// be written to.
func TestWrittenWithoutItsRing(t *testing.T) {
	ctx, dir, state := context.Background(), t.TempDir(), t.TempDir()
	path := filepath.Join(dir, "audit.jsonl")
	trail := must(Open(path, &Options{Durability: Written, StateDir: state, ring: 64 << 10, ringAfter: 1, manual: true, NoSocket: true}))
	h := &history{}
	if err := h.record(trail, 2); err != nil {
		t.Fatal(err)
	}
	if err := h.sign(trail); err != nil { // from here on there is a ring
		t.Fatal(err)
	}
	for range 3 {
		if err := h.record(trail, 20); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(filepath.Join(dir, "audit.trail", "ring"), 0); err != nil {
			t.Fatal(err)
		}
	}
	killed := filepath.Join(t.TempDir(), "killed") // as a kill would leave the files now
	if err := os.CopyFS(killed, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := trail.Close(); err != nil {
		t.Error(err)
	}
	checkWhole(t, durable.OS, path, h)
	again := must(Open(filepath.Join(killed, "audit.jsonl"), &Options{StateDir: state, NoSocket: true}))
	if _, _, err := again.entryAt(ctx, h.receipts[len(h.receipts)-1].Index); err != nil {
		t.Error(err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
	checkWhole(t, durable.OS, filepath.Join(killed, "audit.jsonl"), h)
}

// The same key with the same event gives the first receipt; another event is a
// conflict and an entry. Across seals, restarts, crashes.
func TestIdempotencyKeys(t *testing.T) {
	ctx := context.Background()
	m := newMem(t)
	trail, err := Open(memLog, memOptions(m))
	if err != nil {
		t.Fatal(err)
	}
	keyed := func(i int) Event {
		ev := event("agent", fmt.Sprint("action ", i))
		ev.IdempotencyKey = fmt.Sprint("key-", i)
		if i%2 == 0 {
			ev.TraceID = "" // made by the trail: a retry still is the same event
		}
		return ev
	}
	receipts := map[int]Receipt{}
	for i := range 100 {
		if receipts[i], err = trail.Record(ctx, keyed(i)); err != nil {
			t.Fatal(err)
		}
		if i == 50 {
			if _, err := trail.Rotate(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	check := func(when string, trail *Trail) {
		t.Helper()
		for i, want := range receipts {
			got, err := trail.Record(ctx, keyed(i))
			if err != nil || got != want {
				t.Fatalf("%s: key %d: %+v, want %+v, %v", when, i, got, want, err)
			}
		}
		other := keyed(7)
		other.Action = "something else"
		if _, err := trail.Record(ctx, other); !errors.Is(err, ErrConflict) {
			t.Fatalf("%s: %v", when, err)
		}
	}
	check("at once", trail)
	trail, err = Open(memLog, memOptions(m.Crash(nil)))
	if err != nil {
		t.Fatal(err)
	}
	check("after a crash", trail)
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	trail, err = Open(memLog, memOptions(trail.opts.fs))
	if err != nil {
		t.Fatal(err)
	}
	check("after a close", trail)
	n := 0
	for e, err := range trail.Query(ctx, Query{EventTypes: []string{"AUDIT_CONFLICT"}}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Success {
			t.Error("a conflict that succeeded")
		}
		n++
	}
	if n != 3 {
		t.Errorf("%d conflicts recorded, want 3", n)
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
}

// One key at the same time from many: one entry.
func TestIdempotencyKeyRace(t *testing.T) {
	trail := openTemp(t, nil)
	ev := event("agent", "x")
	ev.IdempotencyKey = "once"
	var wg sync.WaitGroup
	var seen sync.Map
	for range 32 {
		wg.Go(func() {
			r, err := trail.Record(context.Background(), ev)
			if err != nil {
				t.Error(err)
			}
			seen.Store(r, true)
		})
	}
	wg.Wait()
	n := 0
	seen.Range(func(any, any) bool { n++; return true })
	if n != 1 {
		t.Errorf("%d receipts", n)
	}
}

// A context bounds the wait of an event with a key too. Its fate is another
// matter: a retry finds it.
func TestContextBoundsTheWaitOfAKeyedEvent(t *testing.T) {
	hang, free := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var hanging atomic.Bool
	fsys := durabletest.NewFaults(newMem(t), func(op durabletest.Op) durabletest.Action {
		if hanging.Load() && op.Kind == "sync" && strings.HasSuffix(op.Name, ".jsonl") {
			once.Do(func() { close(hang) })
			<-free
		}
		return durabletest.Pass
	})
	trail, err := Open(memLog, memOptions(fsys))
	if err != nil {
		t.Fatal(err)
	}
	hanging.Store(true)
	ev := event("a", "x")
	ev.IdempotencyKey = "once"
	inputs := []byte(`{"n":1}`)
	ev.Inputs = Raw(inputs)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-hang
		cancel()
	}()
	if _, err := trail.Record(ctx, ev); !errors.Is(err, ErrUnknown) {
		t.Fatalf("%v", err)
	}
	inputs[5] = '2' // it is the caller's again
	hanging.Store(false)
	close(free)
	ev.Inputs = Raw([]byte(`{"n":1}`))
	r, err := trail.Record(context.Background(), ev)
	if err != nil {
		t.Fatal(err)
	}
	e, _, err := trail.entryAt(context.Background(), r.Index)
	if err != nil || e.EventID != r.EventID || !bytes.Contains(e.Line(), []byte(`"inputs":{"n":1}`)) {
		t.Errorf("%s, %v", e.Line(), err)
	}
	if next := trail.journal.Next(); next != r.Index+1 {
		t.Errorf("%d entries, and the event is entry %d", next, r.Index)
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
}

// What is taken out of the spool is in the log before its file goes, also where
// a queue stands between the two: a process can be killed there.
func TestASpooledItemGoesAfterItsEntryIsThere(t *testing.T) {
	m := newMem(t)
	if trail, err := Open(memLog, memOptions(m)); err != nil {
		t.Fatal(err)
	} else if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	item := spool.Item{Format: spool.Format, ID: spool.NewID(now), At: formatTime(now), Event: []byte(`{"event_type":"TOOL_USE","agent_id":"a","action":"spooled"}`)}
	if err := spool.Put(m, "/log/audit.trail/spool", item); err != nil {
		t.Fatal(err)
	}
	removed, there := false, false
	fsys := durabletest.NewFaults(m, func(op durabletest.Op) durabletest.Action {
		switch {
		case op.Kind == "remove" && strings.Contains(op.Name, "/spool/"+item.ID):
			log, err := durable.ReadFile(m, memLog, maxSmallFile)
			removed, there = true, err == nil && bytes.Contains(log, []byte(`"spooled"`))
		case op.Kind == "write" && op.Name == memLog:
			time.Sleep(5 * time.Millisecond) // the queue is behind
		}
		return durabletest.Pass
	})
	o := memOptions(fsys)
	o.Durability = Queued
	trail, err := Open(memLog, o)
	if err != nil {
		t.Fatal(err)
	}
	if !removed || !there {
		t.Errorf("the item was removed: %v, its entry was there: %v", removed, there)
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
}

// Without a socket a second writer is told who holds the trail; readers are
// not held up.
func TestOneWriter(t *testing.T) {
	trail := openTemp(t, &Options{Command: "the first", NoSocket: true})
	if _, err := trail.Record(context.Background(), event("a", "x")); err != nil {
		t.Fatal(err)
	}
	_, err := Open(trail.Path(), nil)
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), fmt.Sprint("process ", os.Getpid())) || !strings.Contains(err.Error(), "the first") {
		t.Errorf("%v", err)
	}
	reader, err := Open(trail.Path(), &Options{ReadOnly: true, Command: "a reader"})
	if err != nil {
		t.Fatal(err)
	}
	got, err := collect(reader.Query(context.Background(), Query{}))
	if err != nil || len(got) != 1 {
		t.Errorf("%d entries, %v", len(got), err)
	}
	if _, err := reader.Record(context.Background(), event("a", "x")); !errors.Is(err, ErrReadOnly) {
		t.Errorf("%v", err)
	}
	if err := reader.Close(); err != nil {
		t.Fatal(err)
	}
	// What it read waits in the spool, and the next opening takes it in, once.
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		again, err := Open(trail.Path(), nil)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for e, err := range again.Query(context.Background(), Query{EventTypes: []string{"AUDIT_QUERY"}}) {
			if err != nil {
				t.Fatal(err)
			}
			if e.RecordedBy.Text("via") == "spool" {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%d readings out of the spool", n)
		}
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if files, _ := os.ReadDir(filepath.Join(trail.Dir(), "spool")); len(files) != 0 {
		t.Error("the spool is not empty")
	}
	// Nobody holds it: a reader records through the lock.
	reader, err = Open(trail.Path(), &Options{ReadOnly: true, Command: "a reader"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := collect(reader.Query(context.Background(), Query{})); err != nil {
		t.Fatal(err)
	}
	got, err = collect(reader.scan(context.Background(), Query{Trails: true, Order: Newest, Limit: 1}))
	if err != nil || len(got) != 1 || got[0].EventType != "AUDIT_QUERY" || got[0].Metadata.Text("command") != "a reader" {
		t.Errorf("%v, %v", got, err)
	}
}

// Many that create one trail at once: one makes it, each other is told that it
// is held, or opens it after.
func TestCreateAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	var wg sync.WaitGroup
	var opened atomic.Int64
	for range 8 {
		wg.Go(func() {
			trail, err := Open(path, nil)
			if errors.Is(err, ErrLocked) {
				return
			}
			if err != nil {
				t.Error(err)
				return
			}
			opened.Add(1)
			if err := trail.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if opened.Load() == 0 {
		t.Error("nobody opened it")
	}
	n := 0
	for _, l := range allLines(t, durable.OS, path) {
		n += bytes.Count(l, []byte("AUDIT_CREATED"))
	}
	if n != 1 {
		t.Errorf("made %d times", n)
	}
}

// A query gives what a filter over all entries gives, in every combination,
// both orders, page by page; while sealing goes on.
func TestQueryAgainstNaive(t *testing.T) {
	ctx := context.Background()
	trail := openTemp(t, &Options{SegmentBytes: 64 << 10, Durability: Written})
	rng := rand.New(rand.NewPCG(1, 2))
	start := time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)
	pick := func(s ...string) string { return s[rng.IntN(len(s))] }
	for i := range 800 {
		ev := Event{
			Timestamp: start.Add(time.Duration(i) * time.Minute), EventType: pick(ToolUse, LLMCall, PHIAccess), AgentID: pick("a-1", "a-2", "é\"\\"),
			TraceID: pick("t1", "t2"), Action: pick("tool_use:x", "tool_use:y", "read"), Inputs: Of(map[string]any{"text": pick("Hello\nWorld", "tea", "über")}),
			Success: new(rng.IntN(3) > 0), Outcome: pick("", "denied"),
			Metadata: Of(map[string]any{"user_id": pick("u1", "u2"), "session_id": pick("s1", "s2"), "n": rng.IntN(2)}),
			Resource: Of(map[string]any{"type": "patient", "id": pick("P1", "P2")}), Purpose: pick("", "care"),
		}
		if _, err := trail.Record(ctx, ev); err != nil {
			t.Fatal(err)
		}
	}
	all, err := collect(trail.scan(ctx, Query{Trails: true}))
	if err != nil {
		t.Fatal(err)
	}
	naive := func(q Query, e Entry) bool {
		var in struct {
			Text string
			N    json.Number
		}
		line := string(e.Line())
		switch {
		case strings.HasPrefix(e.EventType, "AUDIT_") && len(q.EventTypes) == 0,
			len(q.EventTypes) > 0 && !slices.Contains(q.EventTypes, e.EventType),
			q.Agent != "" && q.Agent != e.AgentID && !(q.Agent == "a-*" && strings.HasPrefix(e.AgentID, "a-")),
			q.Trace != "" && q.Trace != e.TraceID,
			q.Action != "" && q.Action != e.Action && !(q.Action == "tool_use:*" && strings.HasPrefix(e.Action, "tool_use:")),
			q.User != "" && !strings.Contains(line, `"user_id":"`+q.User+`"`),
			q.Session != "" && !strings.Contains(line, `"session_id":"`+q.Session+`"`),
			q.Success != nil && *q.Success != e.Success, q.Outcome != "" && q.Outcome != e.Outcome,
			q.Resource != "" && !strings.Contains(line, `"id":"`+strings.TrimPrefix(q.Resource, "patient/")+`"`),
			q.Purpose != "" && q.Purpose != e.Purpose,
			!q.Since.IsZero() && e.Timestamp.Before(q.Since), !q.Until.IsZero() && e.Timestamp.After(q.Until):
			return false
		}
		if n, ok := q.Metadata["n"]; ok && !strings.Contains(line, `"n":`+n) {
			return false
		}
		_ = e.Inputs.Decode(&in)
		return q.Text == "" || strings.Contains(strings.ToLower(in.Text), strings.ToLower(q.Text))
	}
	rapid.Check(t, func(rt *rapid.T) {
		maybe := func(name string, s ...string) string { return rapid.SampledFrom(append(s, "", "", "")).Draw(rt, name) }
		q := Query{
			Agent: maybe("agent", "a-1", "a-*", "é\"\\", "none"), Trace: maybe("trace", "t1"), User: maybe("user", "u1"), Session: maybe("session", "s2"),
			Action: maybe("action", "read", "tool_use:*"), Outcome: maybe("outcome", "denied"), Resource: maybe("resource", "P1", "patient/P2"),
			Purpose: maybe("purpose", "care"), Text: maybe("text", "hello\nw", "TEA", "ÜBER"),
		}
		if rapid.Bool().Draw(rt, "newest") {
			q.Order = Newest
		}
		if s := maybe("types", ToolUse, "AUDIT_CREATED", ToolUse+","+LLMCall); s != "" {
			q.EventTypes = strings.Split(s, ",")
		}
		if s := maybe("success", "true", "false"); s != "" {
			q.Success = new(s == "true")
		}
		if s := maybe("n", "0", "1"); s != "" {
			q.Metadata = map[string]string{"n": s}
		}
		if rapid.Bool().Draw(rt, "since") {
			q.Since = start.Add(time.Duration(rapid.IntRange(0, 800).Draw(rt, "from")) * time.Minute)
		}
		if rapid.Bool().Draw(rt, "until") {
			q.Until = q.Since.Add(time.Duration(rapid.IntRange(0, 800).Draw(rt, "to")) * time.Minute)
			if q.Since.IsZero() {
				q.Until = start.Add(100 * time.Minute)
			}
		}
		var want []int64
		for _, e := range all {
			if naive(q, e) {
				want = append(want, e.Index)
			}
		}
		if q.Order == Newest {
			slices.Reverse(want)
		}
		var got []int64
		page := q
		page.Limit = rapid.SampledFrom([]int{0, 0, 7, 100}).Draw(rt, "page")
		for {
			n := 0
			for e, err := range trail.scan(ctx, page) {
				if err != nil {
					rt.Fatal(err)
				}
				got = append(got, e.Index)
				page.Cursor = e.Cursor()
				n++
			}
			if page.Limit == 0 || n < page.Limit {
				break
			}
		}
		if !slices.Equal(got, want) {
			rt.Fatalf("%+v\ngot  %v\nwant %v", q, got, want)
		}
	})
}

// What is refused becomes an entry, counted by reason, without any value.
func TestRefusalsAreEntries(t *testing.T) {
	trail := openTemp(t, nil)
	ctx := context.Background()
	for _, ev := range []Event{
		{AgentID: "a", Action: "x"}, {EventType: ToolUse, Action: "x"}, {AgentID: "b", Action: "x"},
		{EventType: "AUDIT_SEAL", AgentID: "forger", Action: "x"}, {EventType: ToolUse, AgentID: "kaizen-audit", Action: "x"},
		{EventType: ToolUse, AgentID: "a", Action: "x", Inputs: Raw([]byte(`{"secret":"\ud800"}`))},
	} {
		if _, err := trail.Record(ctx, ev); !errors.Is(err, ErrRefused) {
			t.Errorf("%+v: %v", ev, err)
		}
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	for _, l := range allLines(t, durable.OS, trail.Path()) {
		e, err := entry.Parse(l)
		if err != nil {
			t.Fatal(err)
		}
		if e.EventType != "AUDIT_REFUSED" {
			continue
		}
		for _, want := range []string{`"count":6`, `"event_type: is required":2`, `"agent_id: is required":1`, `"inputs: lone surrogate":1`} {
			if !bytes.Contains(l, []byte(want)) {
				t.Errorf("%s lacks %s", l, want)
			}
		}
		return
	}
	t.Error("no AUDIT_REFUSED")
}

// 20 MiB are refused by default and taken where they are allowed.
func TestLongEntries(t *testing.T) {
	big := Event{EventType: ToolUse, AgentID: "a", Action: "x", Inputs: Of(map[string]any{"v": strings.Repeat("x", 20<<20)})}
	for _, d := range []Durability{Durable, Queued} {
		trail := openTemp(t, &Options{Durability: d})
		if _, err := trail.Record(context.Background(), big); !errors.Is(err, ErrRefused) {
			t.Errorf("%v", err)
		}
		trail = openTemp(t, &Options{MaxLine: 64 << 20, Durability: d})
		r, err := trail.Record(context.Background(), big)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := trail.Record(context.Background(), event("a", "after")); err != nil {
			t.Fatal(err)
		}
		if _, err := trail.Rotate(context.Background()); err != nil {
			t.Fatal(err)
		}
		e, _, err := trail.entryAt(context.Background(), r.Index)
		if err != nil || e.Digest() != r.Digest {
			t.Errorf("%v", err)
		}
	}
}

// One entry a second for 100,000 seconds leaves no litter of partial tiles, a
// checkpoint for every one within a second, and one kept an hour.
func TestManySecondsLeaveNoLitter(t *testing.T) {
	seconds := 100_000
	if raceEnabled || testing.Short() { // make simulate runs all of them
		seconds = 20_000
	}
	synctest.Test(t, func(t *testing.T) {
		m := newMem(t)
		trail, err := Open(memLog, &Options{fs: m, Command: "test", RotationInterval: RotateNever})
		if err != nil {
			t.Fatal(err)
		}
		for i := range seconds {
			if _, err := trail.Record(context.Background(), event("a", "x")); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			if i%1000 == 0 {
				synctest.Wait()
				if c := trail.signer.latest.Load(); c.Size != int64(i)+2 {
					t.Fatalf("after a second the checkpoint covers %d of %d", c.Size, i+2)
				}
			}
		}
		if err := trail.Close(); err != nil {
			t.Fatal(err)
		}
		size := trail.journal.Next()
		var walk func(dir string) (full, partial int)
		walk = func(dir string) (full, partial int) {
			files, err := m.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range files {
				switch name := filepath.Join(dir, f.Name()); {
				case f.IsDir():
					a, b := walk(name)
					full, partial = full+a, partial+b
				case strings.HasSuffix(dir, ".p"):
					partial++
				default:
					full++
				}
			}
			return full, partial
		}
		full, partial := walk("/log/audit.trail/tile")
		tiles := int(size/256)*2 + int(size/65536)
		if full != tiles {
			t.Errorf("%d full tiles, want %d", full, tiles)
		}
		// Partial ones only where the tile is not full yet, one for each
		// checkpoint since it was begun.
		if most := 2*int(size%256) + int(size/256%256)*256 + 256; partial > most {
			t.Errorf("%d partial tiles, at most %d", partial, most)
		}
		kept, err := m.ReadDir("/log/audit.trail/checkpoints")
		if hours := seconds / 3600; err != nil || len(kept) < hours || len(kept) > hours+3 {
			t.Errorf("%d kept checkpoints in %d hours, %v", len(kept), hours, err)
		}
	})
}

// A small step back of the clock is clamped; a large one is followed and
// noted.
func TestClockSteps(t *testing.T) {
	at := time.Date(2026, 1, 1, 0, 0, 10, 0, time.UTC)
	m := newMem(t)
	o := memOptions(m)
	o.now = func() time.Time { return at }
	trail, err := Open(memLog, o)
	if err != nil {
		t.Fatal(err)
	}
	stamp := func() string {
		r, err := trail.Record(context.Background(), event("a", "x"))
		if err != nil {
			t.Fatal(err)
		}
		e, _, err := trail.entryAt(context.Background(), r.Index)
		if err != nil {
			t.Fatal(err)
		}
		return formatTime(e.RecordedAt)
	}
	at = at.Add(-time.Second)
	if got := stamp(); got != "2026-01-01T00:00:10.000Z" {
		t.Errorf("a small step: %s", got)
	}
	at = at.Add(-24 * time.Hour)
	if got := stamp(); got != "2025-12-31T00:00:09.000Z" {
		t.Errorf("a large step: %s", got)
	}
	trail.noteSteps()
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	lines := bytes.Join(allLines(t, m, memLog), []byte("\n"))
	if bytes.Count(lines, []byte("AUDIT_CLOCK")) != 1 || !bytes.Contains(lines, []byte(`"direction":"back"`)) {
		t.Errorf("%s", lines)
	}
}

// The pin notices a trail that was made anew at a path.
func TestPin(t *testing.T) {
	state := t.TempDir()
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	opts := &Options{StateDir: state}
	trail, err := Open(path, opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(path), os.RemoveAll(trail.Dir())); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, opts); !errors.Is(err, ErrPinned) || !strings.Contains(err.Error(), "init --forget-pin") {
		t.Fatalf("%v", err)
	}
	// Made anew elsewhere and put there: refused too, and verify says so.
	other, err := Open(path, &Options{StateDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	for _, ro := range []bool{false, true} {
		if _, err := Open(path, &Options{StateDir: state, ReadOnly: ro}); !errors.Is(err, ErrPinned) {
			t.Fatalf("read only %v: %v", ro, err)
		}
	}
	if _, err := Init(path, &InitOptions{Options: Options{StateDir: state}, ForgetPin: true}); err != nil {
		t.Fatal(err)
	}
	trail, err = Open(path, opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
}

// A successor commits to the old trail, which stays readable.
func TestSuccessor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	trail, err := Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := trail.Record(context.Background(), event("a", "x")); err != nil {
		t.Fatal(err)
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	size := trail.journal.Next()
	if err := os.Remove(filepath.Join(trail.Dir(), "checkpoint")); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, nil); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "init --successor-of") {
		t.Fatalf("%v", err)
	}
	old, err := os.ReadFile(filepath.Join(trail.Dir(), "checkpoints", "1"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(trail.Dir(), "checkpoint"), old, 0o600); err != nil {
		t.Fatal(err)
	}
	info, err := Init(path, &InitOptions{SuccessorOf: path})
	if err != nil {
		t.Fatal(err)
	}
	if info.Origin == trail.Origin() {
		t.Error("the same origin")
	}
	lines := allLines(t, durable.OS, path)
	if !bytes.Contains(lines[0], []byte(`"successor_of":{"origin":"`+trail.Origin()+`","size":1,"root":"`)) {
		t.Errorf("%s", lines[0])
	}
	before := allLines(t, durable.OS, strings.TrimSuffix(path, ".jsonl")+".1.jsonl")
	if int64(len(before)) != size {
		t.Errorf("%d lines of the old trail, want %d", len(before), size)
	}
	if _, err := Init(path, nil); err == nil {
		t.Error("init over a trail")
	}
	if _, err := Init(filepath.Join(t.TempDir(), "b.jsonl"), &InitOptions{Profile: "secret"}); err == nil {
		t.Error("a profile of any name")
	}
}

// A log that is no trail is not touched.
func TestForeignLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	if err := os.WriteFile(path, []byte("{\"a\":1}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, nil); err == nil || !strings.Contains(err.Error(), "another program's log") {
		t.Errorf("%v", err)
	}
	if files, _ := os.ReadDir(filepath.Dir(path)); len(files) != 1 {
		t.Error("something was made")
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none.jsonl"), &Options{ReadOnly: true}); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none.jsonl"), &Options{MustExist: true}); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}
}

// Modes: files 0600, directories 0700, sealed files read-only.
func TestFileModes(t *testing.T) {
	trail := openTemp(t, nil)
	if _, err := trail.Record(context.Background(), event("a", "x")); err != nil {
		t.Fatal(err)
	}
	if _, err := trail.Rotate(context.Background()); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(filepath.Dir(trail.Path()), func(name string, d os.DirEntry, err error) error {
		if err != nil || name == filepath.Dir(trail.Path()) {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		want := os.FileMode(0o600)
		switch {
		case d.IsDir():
			want = 0o700
		case strings.HasSuffix(name, ".zst"):
			want = 0o400
		}
		if fi.Mode().Perm() != want {
			t.Errorf("%s: %v, want %v", name, fi.Mode().Perm(), want)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Checkpoints arrive at a file, a command and, where there is none, a syslog
// that is missing becomes an entry.
func TestCheckpointTo(t *testing.T) {
	dir := t.TempDir()
	file, byCommand := filepath.Join(dir, "file"), filepath.Join(dir, "command")
	trail, err := Open(filepath.Join(dir, "audit.jsonl"), &Options{CheckpointTo: []string{file, "exec:tee -a " + byCommand, "exec:false"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := trail.Record(context.Background(), event("a", "x")); err != nil {
		t.Fatal(err)
	}
	time.Sleep(checkpointInterval + 200*time.Millisecond)
	if _, err := trail.Rotate(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := trail.Close(); !errors.Is(err, ErrNotSent) || !strings.Contains(err.Error(), "checkpoint sink") {
		t.Errorf("a sink that failed is not told: %v", err)
	}
	last, err := os.ReadFile(filepath.Join(trail.Dir(), "checkpoint"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{file, byCommand} {
		got, err := os.ReadFile(name)
		if err != nil || !bytes.Contains(got, last) {
			t.Errorf("%s: the last checkpoint did not arrive: %v\n%s", filepath.Base(name), err, got)
		}
		if r, err := VerifyPath(context.Background(), trail.Path(), &VerifyOptions{Checkpoint: got}); err != nil || r.Status != "intact" || r.Anchor != "checkpoint" {
			t.Errorf("%s: verified with all that arrived: %+v, %v", filepath.Base(name), r, err)
		}
	}
	if !bytes.Contains(bytes.Join(allLines(t, durable.OS, trail.Path()), nil), []byte("AUDIT_LOSS")) {
		t.Error("no AUDIT_LOSS")
	}
	for _, bad := range []string{"exec:", "syslog:x", ""} {
		if _, err := Open(filepath.Join(t.TempDir(), "a.jsonl"), &Options{CheckpointTo: []string{bad}}); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

// A link at the log's path is followed, to a log that is there or not yet; it
// stays a link through seals, and the directory lies beside the target.
func TestLinkedLog(t *testing.T) {
	dir := t.TempDir()
	link, target := filepath.Join(dir, "link.jsonl"), filepath.Join(dir, "data", "real.jsonl")
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "data"), 0o700), os.Symlink("data/real.jsonl", link)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		trail, err := Open(link, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := trail.Record(context.Background(), event("a", "x")); err != nil {
			t.Fatal(err)
		}
		if _, err := trail.Rotate(context.Background()); err != nil {
			t.Fatal(err)
		}
		if err := trail.Close(); err != nil {
			t.Fatal(err)
		}
		if got, err := filepath.EvalSymlinks(target); err != nil || trail.Path() != got || trail.Dir() != strings.TrimSuffix(got, ".jsonl")+".trail" {
			t.Errorf("%s, %s, %v", trail.Path(), trail.Dir(), err)
		}
		if fi, err := os.Lstat(link); err != nil || fi.Mode()&os.ModeSymlink == 0 {
			t.Error("the link is gone")
		}
	}
	if r := check(t, link, VerifyOptions{}); r.Status != "intact" {
		t.Errorf("%+v", r)
	}
}

// Close while others record, rotate and query: each gets an answer, what was
// acknowledged is there, and the trail is closed cleanly.
func TestCloseWhileBusy(t *testing.T) {
	for round := range 20 {
		trail, err := Open(filepath.Join(t.TempDir(), "audit.jsonl"), &Options{SegmentBytes: 64 << 10, interval: time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		h := make([]history, 4)
		for w := range h {
			wg.Go(func() {
				for {
					if err := h[w].record(trail, 1); err != nil {
						if !errors.Is(err, ErrClosed) {
							t.Error(err)
						}
						return
					}
				}
			})
		}
		wg.Go(func() {
			for {
				if _, err := trail.Rotate(context.Background()); err != nil {
					if !errors.Is(err, ErrClosed) {
						t.Error(err)
					}
					return
				}
			}
		})
		time.Sleep(time.Duration(round) * time.Millisecond)
		if err := trail.Close(); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		all := &history{}
		for w := range h {
			all.receipts = append(all.receipts, h[w].receipts...)
		}
		checkWhole(t, durable.OS, trail.path, all)
		if fi, err := os.Stat(filepath.Join(trail.Dir(), "lock")); err != nil || fi.Size() != 0 {
			t.Errorf("not closed cleanly: %v", err)
		}
		if r := check(t, trail.Path(), VerifyOptions{}); r.Status != "intact" || r.Uncovered != 0 {
			t.Errorf("%+v", r)
		}
	}
}
