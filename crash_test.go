package audit

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/durable/durabletest"
	"github.com/kaizen-audit/kaizen-audit/internal/journal"
	"github.com/kaizen-audit/kaizen-audit/internal/tree"
	"github.com/kaizen-audit/kaizen-audit/internal/trust"
)

const memLog = "/log/audit.jsonl"

// memOptions keep the signer from acting on its own, so that the order of file
// operations is the same in every round.
func memOptions(fsys durable.FS) *Options {
	return &Options{fs: fsys, manual: true, ring: -1, Command: "test"}
}

// ringOptions have a ring of two halves for some six entries each.
func ringOptions(fsys durable.FS) *Options {
	o := memOptions(fsys)
	o.ring, o.ringAfter = 12*4<<10, 1
	return o
}

func newMem(t testing.TB) *durabletest.Mem {
	t.Helper()
	m := durabletest.NewMem()
	if err := durable.MkdirAll(m, "/log", 0o700); err != nil {
		t.Fatal(err)
	}
	return m
}

// history is what a caller of the trail remembers across a crash.
type history struct {
	receipts    []Receipt
	checkpoints []tree.Checkpoint
}

func (h *history) record(trail *Trail, n int) error {
	for range n {
		r, err := trail.Record(context.Background(), event("agent", fmt.Sprint("action ", len(h.receipts))))
		if err != nil {
			return err
		}
		h.receipts = append(h.receipts, r)
	}
	return nil
}

func (h *history) sign(trail *Trail) error {
	err := trail.signer.sign()
	h.saw(trail)
	return err
}

func (h *history) saw(trail *Trail) {
	h.checkpoints = append(h.checkpoints, *trail.signer.latest.Load())
}

// allLines reads every line of a trail that nobody writes.
func allLines(t testing.TB, fsys durable.FS, path string) [][]byte {
	t.Helper()
	view, err := journal.OpenView(fsys, path, trailDir(path), segmentAfterSeal, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer view.Close()
	var lines [][]byte
	for _, p := range view.Parts() {
		next, err := view.Part(context.Background(), p, func(index int64, line []byte) error {
			if index != int64(len(lines)) {
				return fmt.Errorf("line %d where %d is due", index, len(lines))
			}
			lines = append(lines, bytes.Clone(line))
			return nil
		})
		if err != nil || next != int64(len(lines)) {
			t.Fatalf("segment %d ends at %d of %d: %v", p.First, next, len(lines), err)
		}
	}
	return lines
}

// checkWhole is the consistency check that ends every crash test: all that was
// acknowledged is there, once, in order; the checkpoint covers it; tiles and
// bundles are those of the lines; no checkpoint that was ever seen
// contradicts it.
func checkWhole(t testing.TB, fsys durable.FS, path string, h *history) {
	t.Helper()
	lines := allLines(t, fsys, path)
	seen := map[string]int{}
	for i, l := range lines {
		e, err := entry.Parse(l)
		if err != nil {
			t.Fatalf("line %d: %v", i, err)
		}
		seen[e.EventID]++
	}
	for _, r := range h.receipts {
		if r.Index >= int64(len(lines)) {
			t.Fatalf("entry %d was acknowledged and is lost: %d lines", r.Index, len(lines))
		}
		if entry.Digest(lines[r.Index]) != r.Digest || seen[r.EventID] != 1 {
			t.Fatalf("entry %d was acknowledged and is another, or there %d times", r.Index, seen[r.EventID])
		}
	}
	dir := trailDir(path)
	data, err := durable.ReadFile(fsys, filepath.Join(dir, "trail.json"), maxSmallFile)
	if err != nil {
		t.Fatal(err)
	}
	_, verifier, err := parseIdentity(data)
	if err != nil {
		t.Fatal(err)
	}
	store := tree.NewStore(fsys, dir)
	latest, err := store.Checkpoint(trust.By(verifier))
	if err != nil {
		t.Fatal(err)
	}
	known := append([]tree.Checkpoint{latest}, h.checkpoints...)
	if kept, err := fsys.ReadDir(filepath.Join(dir, "checkpoints")); err == nil {
		for _, f := range kept {
			if strings.HasSuffix(f.Name(), ".tmp") {
				continue
			}
			signed, err := durable.ReadFile(fsys, filepath.Join(dir, "checkpoints", f.Name()), maxSmallFile)
			if err != nil {
				t.Fatal(err)
			}
			c, err := tree.ParseCheckpoint(signed, trust.By(verifier))
			if err != nil {
				t.Fatalf("checkpoints/%s: %v", f.Name(), err)
			}
			known = append(known, c)
		}
	}
	roots := map[int64]tree.Hash{0: tree.EmptyRoot}
	b := tree.NewBuilder()
	for i, l := range lines {
		if int64(i) == latest.Size {
			break
		}
		b.Append(entry.Digest(l))
		roots[b.Size()] = b.Root()
	}
	for _, c := range known {
		if c.Origin != verifier.Name() {
			continue // of a creation that did not come to an end
		}
		if root, ok := roots[c.Size]; !ok || root != c.Root {
			t.Fatalf("checkpoint of size %d contradicts the lines (latest covers %d of %d)", c.Size, latest.Size, len(lines))
		}
	}
	loaded, err := store.Load(latest.Size)
	if err != nil {
		t.Fatalf("tiles: %v", err)
	}
	if loaded.Root() != latest.Root {
		t.Fatal("tiles are not the checkpoint's")
	}
	for n := int64(0); n*tree.TileWidth < latest.Size; n++ {
		width := int(min(tree.TileWidth, latest.Size-n*tree.TileWidth))
		bundle, err := store.Tile(tree.Bundles, n, width)
		if err != nil {
			t.Fatalf("bundle: %v", err)
		}
		for i := range width {
			if d := entry.Digest(lines[n*tree.TileWidth+int64(i)]); !bytes.Equal(bundle[34*i+2:34*i+34], d[:]) {
				t.Fatalf("bundle %d has another digest for line %d", n, i)
			}
		}
	}
}

// reopen opens what a crash left, records once more, closes and checks.
func reopen(t *testing.T, fsys durable.FS, h *history) {
	t.Helper()
	trail, err := Open(memLog, memOptions(fsys))
	if err != nil {
		t.Fatalf("open after the crash: %v", err)
	}
	h.saw(trail)
	if err := h.record(trail, 2); err != nil {
		t.Fatal(err)
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	h.saw(trail)
	checkWhole(t, fsys, memLog, h)
}

// life is everything that a writer does to its files.
func life(fsys durable.FS, h *history) error { return lifeWith(memOptions(fsys), h) }

// ringLife is the same with a ring, which comes round.
func ringLife(fsys durable.FS, h *history) error { return lifeWith(ringOptions(fsys), h) }

// writtenLife is that in mode Written, whose ring has smaller frames.
func writtenLife(fsys durable.FS, h *history) error {
	o := ringOptions(fsys)
	o.Durability, o.ring = Written, 2*4<<10
	return lifeWith(o, h)
}

func lifeWith(o *Options, h *history) error {
	trail, err := Open(memLog, o)
	if err != nil {
		return err
	}
	few := 2
	if o.ring > 0 {
		few = 11
	}
	defer trail.Close()
	h.saw(trail)
	for _, step := range []func() error{
		func() error { return h.record(trail, 3) },
		func() error { return h.sign(trail) },
		func() error { return h.record(trail, 2*few-2) },
		func() error { _, err := trail.Rotate(context.Background()); h.saw(trail); return err },
		func() error { return h.record(trail, 2) },
		func() error { return h.sign(trail) },
		func() error { return h.record(trail, (few+1)/2) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	err = trail.Close()
	h.saw(trail)
	return err
}

// lives are what crash tests end at every operation.
var lives = map[string]func(durable.FS, *history) error{"plain": life, "ring": ringLife}

// Power fails before every operation of a trail's life, creation included.
func TestCrashPowerFailure(t *testing.T) {
	seeds := 3
	if raceEnabled || testing.Short() { // make simulate runs all of them
		seeds = 1
	}
	for name, life := range lives {
		t.Run(name, func(t *testing.T) {
			durabletest.EachCrash(t, seeds, func(t *testing.T, r *durabletest.Run) { liveAndReopen(t, r, life) })
		})
	}
}

// Every operation fails once: it did not happen, or it happened all the same.
func TestCrashEachOperationFails(t *testing.T) {
	all := maps.Clone(lives)
	all["written"] = writtenLife
	for name, life := range all {
		t.Run(name, func(t *testing.T) {
			if raceEnabled && name != "plain" {
				t.Skip("make simulate runs it")
			}
			durabletest.EachOp(t, func(t *testing.T, r *durabletest.Run) { liveAndReopen(t, r, life) })
		})
	}
}

// In mode Written a power failure takes what was acknowledged last, as far as it was
// not synced, and nothing else: the trail opens, and what a checkpoint covered is there.
func TestCrashPowerFailureWritten(t *testing.T) {
	if raceEnabled {
		t.Skip("make simulate runs it")
	}
	seeds := 3
	if testing.Short() {
		seeds = 1
	}
	var kept, lost int
	durabletest.EachCrash(t, seeds, func(t *testing.T, r *durabletest.Run) {
		if err := durable.MkdirAll(r.FS, "/log", 0o700); err != nil {
			t.Fatal(err)
		}
		h := &history{}
		r.Inject(func() { _ = writtenLife(r.FS, h) })
		trail, err := Open(memLog, memOptions(r.Restart()))
		if err != nil {
			t.Fatalf("open after the crash: %v", err)
		}
		if err := trail.Close(); err != nil {
			t.Fatal(err)
		}
		there := map[string]bool{}
		for _, l := range allLines(t, r.Restart(), memLog) {
			e, err := entry.Parse(l)
			if err != nil {
				t.Fatal(err)
			}
			there[e.EventID] = true
		}
		covered := int64(0)
		for _, c := range h.checkpoints {
			covered = max(covered, c.Size)
		}
		n := 0
		for n < len(h.receipts) && there[h.receipts[n].EventID] {
			n++
		}
		for i, r := range h.receipts[n:] {
			if r.Index < covered || there[r.EventID] {
				t.Fatalf("of %d entries the first %d are there; entry %d of them: covered up to %d, there %v", len(h.receipts), n, n+i, covered, there[r.EventID])
			}
		}
		kept, lost = kept+n, lost+len(h.receipts)-n
		h.receipts = h.receipts[:n]
		reopen(t, r.Restart(), h)
	})
	t.Logf("%d entries were there after the crashes, %d were not", kept, lost)
	if kept == 0 || lost == 0 {
		t.Error("nothing was lost, or nothing was there")
	}
}

func liveAndReopen(t *testing.T, r *durabletest.Run, life func(durable.FS, *history) error) {
	if err := durable.MkdirAll(r.FS, "/log", 0o700); err != nil {
		t.Fatal(err)
	}
	h := &history{}
	var err error
	r.Inject(func() { err = life(r.FS, h) })
	if err != nil && !r.Fired() {
		t.Fatal(err)
	}
	reopen(t, r.Restart(), h)
}

// The power fails while many write, two batches being on their way to the ring at
// once: what was acknowledged is there, in order, and nothing is damaged.
func TestCrashManyWritersPowerFailure(t *testing.T) {
	const writers = 40
	rounds := 60
	if raceEnabled || testing.Short() { // make simulate runs all of them
		rounds = 8
	}
	var slow slowRing
	for round := range rounds {
		rng := rand.New(rand.NewPCG(1, uint64(round)))
		m := newMem(t)
		var mu sync.Mutex // and under it:
		h := &history{}
		crashed, left := (*durabletest.Mem)(nil), 0
		slow.FS = durabletest.NewFaults(m, func(durabletest.Op) durabletest.Action {
			mu.Lock()
			defer mu.Unlock()
			if left--; left == 0 {
				// Receipts first: what was acknowledged by now is on the disk of now.
				h = &history{receipts: slices.Clone(h.receipts)}
				crashed = m.Crash(rng)
			}
			if crashed != nil {
				return durabletest.FailBefore(durabletest.ErrCrashed)
			}
			return durabletest.Pass
		})
		o := ringOptions(&slow)
		o.ring = 1 << 20
		trail, err := Open(memLog, o)
		if err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		left = int(o.ring/4096) + 150 + rng.IntN(150) // making the ring is a write for each block
		mu.Unlock()
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				for i := 0; ; i++ {
					r, err := trail.Record(context.Background(), event("agent", fmt.Sprint(w, " action ", i)))
					if err != nil {
						return
					}
					mu.Lock()
					if crashed == nil {
						h.receipts = append(h.receipts, r)
					}
					mu.Unlock()
				}
			})
		}
		for range 4 { // makes the ring after some commits
			time.Sleep(time.Millisecond)
			trail.journal.Quicken()
		}
		wg.Wait()
		_ = trail.Close()
		reopen(t, crashed, h)
	}
	if !slow.both.Load() {
		t.Error("there were never two batches on their way at once")
	}
}

// slowRing is a file system whose rings take their time to sync, and that sees
// whether two syncs of one overlap.
type slowRing struct {
	durable.FS
	syncing atomic.Int32
	both    atomic.Bool
}

type ringSyncs struct {
	durable.File
	of *slowRing
}

func (s *slowRing) OpenFile(name string, flag int, perm fs.FileMode) (durable.File, error) {
	f, err := s.FS.OpenFile(name, flag, perm)
	if err == nil && filepath.Base(name) == "ring" {
		f = ringSyncs{f, s}
	}
	return f, err
}

func (f ringSyncs) Sync() error {
	if f.of.syncing.Add(1) > 1 {
		f.of.both.Store(true)
	}
	defer f.of.syncing.Add(-1)
	time.Sleep(50 * time.Microsecond)
	return f.File.Sync()
}

// The order of file operations is pinned.
func TestGoldenOperations(t *testing.T) {
	trace := &durabletest.Trace{Root: "/log"}
	fsys := durabletest.NewFaults(newMem(t), func(op durabletest.Op) durabletest.Action {
		trace.Record(op)
		return durabletest.Pass
	})
	trace.Comment("create, append, sign, append, seal, append, sign, append, close")
	if err := life(fsys, &history{}); err != nil {
		t.Fatal(err)
	}
	fsys = durabletest.NewFaults(newMem(t), func(op durabletest.Op) durabletest.Action {
		trace.Record(op)
		return durabletest.Pass
	})
	trace.Comment("the same with a ring, which comes round")
	if err := ringLife(fsys, &history{}); err != nil {
		t.Fatal(err)
	}
	got := asideTimes.ReplaceAllString(trace.String(), "")
	golden := filepath.Join("testdata", "operations.golden")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the order of file operations changed; UPDATE_GOLDEN=1 writes it anew. Now:\n%s", got)
	}
}

// asideTimes is what differs from run to run.
var asideTimes = regexp.MustCompile(`-\d{8}T\d{6}\.\d{3}Z`)

// A last line torn at every length is set aside and named; what was before is
// whole.
func TestCrashTornLastLine(t *testing.T) {
	m := newMem(t)
	trail, err := Open(memLog, memOptions(m))
	if err != nil {
		t.Fatal(err)
	}
	h := &history{}
	if err := h.record(trail, 3); err != nil {
		t.Fatal(err)
	}
	if err := h.sign(trail); err != nil {
		t.Fatal(err)
	}
	if err := h.record(trail, 1); err != nil {
		t.Fatal(err)
	}
	whole := m.Crash(nil)
	lines := allLines(t, whole, memLog)
	last := lines[len(lines)-1]
	for cut := 0; cut <= len(last); cut++ {
		fsys := whole.Crash(nil)
		f, err := fsys.OpenFile(memLog, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		fi, _ := f.Stat()
		if err := errors.Join(f.Truncate(fi.Size()-int64(len(last))-1+int64(cut)), f.Sync(), f.Close()); err != nil {
			t.Fatal(err)
		}
		// The torn entry is not acknowledged in this history.
		short := &history{h.receipts[:3], h.checkpoints}
		reopen(t, fsys, short)
		aside, err := fsys.ReadDir("/log/audit.trail/aside")
		if cut == 0 {
			if !errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("nothing was torn, and aside/ is there: %v", err)
			}
			continue
		}
		if err != nil || len(aside) != 1 {
			t.Fatalf("cut at %d: %d files set aside, %v", cut, len(aside), err)
		}
		kept, err := durable.ReadFile(fsys, "/log/audit.trail/aside/"+aside[0].Name(), maxSmallFile)
		if err != nil || !bytes.Equal(kept, last[:cut]) {
			t.Fatalf("cut at %d: %d bytes set aside, %v", cut, len(kept), err)
		}
		found := false
		for _, l := range allLines(t, fsys, memLog) {
			found = found || bytes.Contains(l, []byte(`"AUDIT_RECOVERY"`)) && bytes.Contains(l, []byte(aside[0].Name()))
		}
		if !found {
			t.Fatal("no AUDIT_RECOVERY names the file")
		}
	}
}

// Lines written after a clean close are somebody else's: they are set aside,
// not signed.
func TestLinesAfterCleanClose(t *testing.T) {
	m := newMem(t)
	h := &history{}
	if err := life(m, h); err != nil {
		t.Fatal(err)
	}
	f, err := m.OpenFile(memLog, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	forged := `{"timestamp":"2026-01-01T00:00:00.000Z","event_type":"TOOL_USE","agent_id":"forged"}` + "\n"
	if _, err := io.WriteString(f, forged); err != nil {
		t.Fatal(err)
	}
	f.Close()
	reopen(t, m, h)
	for _, l := range allLines(t, m, memLog) {
		if bytes.Contains(l, []byte("forged")) {
			t.Fatal("a line from outside was adopted")
		}
	}
}

// A trail without its checkpoint, with another one, or with fewer or other
// lines is not extended.
func TestDamagedIsNotExtended(t *testing.T) {
	base := newMem(t)
	if err := life(base, &history{}); err != nil {
		t.Fatal(err)
	}
	other := newMem(t)
	if err := life(other, &history{}); err != nil {
		t.Fatal(err)
	}
	edit := func(m *durabletest.Mem, name string, f func([]byte) []byte) error {
		data, err := durable.ReadFile(m, name, maxSmallFile)
		if err != nil {
			return err
		}
		return durable.WriteFile(m, name, f(data), 0o600)
	}
	for name, damage := range map[string]func(*durabletest.Mem) error{
		"checkpoint removed": func(m *durabletest.Mem) error { return m.Remove("/log/audit.trail/checkpoint") },
		"checkpoint of another trail": func(m *durabletest.Mem) error {
			c, err := durable.ReadFile(other, "/log/audit.trail/checkpoint", maxSmallFile)
			if err != nil {
				return err
			}
			return edit(m, "/log/audit.trail/checkpoint", func([]byte) []byte { return c })
		},
		"a byte changed": func(m *durabletest.Mem) error {
			return edit(m, memLog, func(b []byte) []byte { return bytes.Replace(b, []byte("user123"), []byte("user124"), 1) })
		},
		"last line removed": func(m *durabletest.Mem) error {
			return edit(m, memLog, func(b []byte) []byte { return b[:bytes.LastIndexByte(b[:len(b)-1], '\n')+1] })
		},
		"log removed":     func(m *durabletest.Mem) error { return m.Remove(memLog) },
		"trail.json gone": func(m *durabletest.Mem) error { return m.Remove("/log/audit.trail/trail.json") },
		"a lock that lies": func(m *durabletest.Mem) error {
			return errors.Join(durable.WriteFile(m, "/log/audit.trail/lock", []byte("{}"), 0o600),
				edit(m, memLog, func(b []byte) []byte { return b[:bytes.LastIndexByte(b[:len(b)-1], '\n')+1] }))
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := base.Crash(nil)
			if err := damage(m); err != nil {
				t.Fatal(err)
			}
			before, _ := durable.ReadFile(m, memLog, maxSmallFile)
			_, err := Open(memLog, memOptions(m))
			if !errors.Is(err, ErrDamaged) {
				t.Fatalf("opened: %v", err)
			}
			after, _ := durable.ReadFile(m, memLog, maxSmallFile)
			if !bytes.Equal(before, after) {
				t.Fatal("the log was changed")
			}
		})
	}
}

// Tiles that are lost are rebuilt from lines; they never decide.
func TestLostTilesAreRebuilt(t *testing.T) {
	m := newMem(t)
	h := &history{}
	trail, err := Open(memLog, memOptions(m))
	if err != nil {
		t.Fatal(err)
	}
	if err := h.record(trail, 700); err != nil {
		t.Fatal(err)
	}
	if _, err := trail.Rotate(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := h.record(trail, 300); err != nil {
		t.Fatal(err)
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"tile/0/000", "tile/0/002", "tile/entries/001"} {
		if err := m.Remove("/log/audit.trail/" + name); err != nil {
			t.Fatal(err)
		}
	}
	if err := durable.WriteFile(m, "/log/audit.trail/tile/0/001", make([]byte, 8192), 0o600); err != nil {
		t.Fatal(err)
	}
	entries, err := m.ReadDir("/log/audit.trail/tile/1")
	if err != nil || len(entries) == 0 {
		t.Fatal(err)
	}
	if err := m.Remove("/log/audit.trail/tile/1/000.p/3"); err != nil {
		t.Fatal(err)
	}
	reopen(t, m, h)
}

// A ring that somebody wrote gives back what was acknowledged and changes
// nothing that a checkpoint covers; one that goes on behind missing lines is
// no crash's.
func TestRingIsNotTrusted(t *testing.T) {
	m := newMem(t)
	h := &history{}
	trail, err := Open(memLog, ringOptions(m))
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []error{h.record(trail, 2), h.sign(trail), h.record(trail, 4)} {
		if step != nil {
			t.Fatal(step)
		}
	}
	crashed := m.Crash(nil) // only what is in the ring is left of the last four
	before := len(allLines(t, crashed, memLog))
	if before != 3 {
		t.Fatalf("%d lines were synced", before)
	}
	ringPath := "/log/audit.trail/ring"
	whole, err := durable.ReadFile(crashed, ringPath, 1<<20)
	if err != nil {
		t.Fatal(err)
	}

	then := func() *history { return &history{slices.Clone(h.receipts), slices.Clone(h.checkpoints)} }
	t.Run("whole", func(t *testing.T) {
		fsys, h := crashed.Crash(nil), then()
		reopen(t, fsys, h)
		if _, err := fsys.Stat(ringPath); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("the ring is still there: %v", err)
		}
	})
	t.Run("of covered lines", func(t *testing.T) {
		// The trail signs all that it has; the ring of before is put beside it.
		fsys, h := crashed.Crash(nil), then()
		reopen(t, fsys, h)
		log, _ := durable.ReadFile(fsys, memLog, maxSmallFile)
		forged := bytes.ReplaceAll(whole, []byte("user123"), []byte("user124"))
		forged = resum(forged)
		if err := errors.Join(durable.WriteFile(fsys, ringPath, forged, 0o600), durable.WriteFile(fsys, "/log/audit.trail/lock", []byte("{}"), 0o600)); err != nil {
			t.Fatal(err)
		}
		reopen(t, fsys, h)
		after, _ := durable.ReadFile(fsys, memLog, maxSmallFile)
		if !bytes.HasPrefix(after, log) {
			t.Fatal("covered lines were changed")
		}
	})
	t.Run("behind missing lines", func(t *testing.T) {
		fsys := crashed.Crash(nil)
		second := bytes.Index(whole[8:], []byte("kzring1\n")) + 8
		if err := durable.WriteFile(fsys, ringPath, whole[second:], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(memLog, memOptions(fsys)); !errors.Is(err, ErrDamaged) {
			t.Fatalf("opened: %v", err)
		}
	})
}

// resum makes the sums of a ring's frames right again (docs/format.md §8).
func resum(ring []byte) []byte {
	table := crc32.MakeTable(crc32.Castagnoli)
	for at := 0; at+44 < len(ring) && bytes.HasPrefix(ring[at:], []byte("kzring1\n")); {
		end := at + 44 + int(binary.BigEndian.Uint64(ring[at+32:]))
		sum := crc32.Update(crc32.Checksum(ring[at:at+40], table), table, ring[at+44:end])
		binary.BigEndian.PutUint32(ring[at+40:], sum)
		at = (end + 4095) / 4096 * 4096
	}
	return ring
}
