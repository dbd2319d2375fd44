package verify

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// panics is for helpers on other goroutines than the test's.
type panics struct{}

func (panics) Helper()        {}
func (panics) Fatal(a ...any) { panic(fmt.Sprint(a...)) }

// writer writes a trail in the order of docs/format.md, as another process
// would: lines in pieces, then bundles and tiles, then the checkpoint, then
// what is not needed any more goes. Seals are begun in between and compressed
// in the background.
type writer struct {
	*trail
	file      *os.File
	compress  sync.WaitGroup
	manifest  sync.Mutex
	sealed    []map[string]any
	seals     atomic.Int64
	signed    atomic.Int64
	partials  []string // that can go once their full tile is covered
	remaining []string
}

func (w *writer) append(l string) {
	for _, piece := range []string{l[:len(l)/2], l[len(l)/2:], "\n"} {
		_, err := w.file.WriteString(piece)
		must(w.t, err)
	}
	last := len(w.segments) - 1
	w.segments[last] = append(w.segments[last], l)
}

func (w *writer) sign() {
	w.size = int64(len(w.lines()))
	for name, data := range proofFiles(w.lines(), bundles, 9) {
		if _, err := os.Stat(w.path(name)); err == nil {
			continue
		}
		w.put(name, data) // in place: nothing signed needs it yet
		if strings.Contains(name, ".p/") {
			w.partials = append(w.partials, name)
		}
	}
	w.replace("checkpoint", w.trail.sign(w.size))
	w.signed.Store(w.size)
	w.remaining = w.remaining[:0]
	for _, name := range w.partials {
		full, _, _ := strings.Cut(name, ".p/")
		if _, err := os.Stat(w.path(full)); err != nil {
			w.remaining = append(w.remaining, name)
			continue
		}
		w.remove(name)
	}
	w.partials, w.remaining = w.remaining, w.partials
}

func (w *writer) replace(name string, data []byte) {
	w.put(name+".tmp", data)
	must(w.t, os.Rename(w.path(name+".tmp"), w.path(name)))
}

func (w *writer) seal() {
	last := len(w.segments) - 1
	first, count, text := w.first(last), len(w.segments[last]), w.text(last)
	plain := strings.TrimSuffix(w.sealedName(last), ".zst")
	successor := w.log + ".next"
	l := fmt.Sprintf(`{"seal":%d}`, first)
	must(w.t, os.WriteFile(successor, []byte(l+"\n"), 0o600))
	next, err := os.OpenFile(successor, os.O_WRONLY|os.O_APPEND, 0)
	must(w.t, err)
	must(w.t, os.MkdirAll(w.path("segments"), 0o700))
	must(w.t, os.Link(w.log, w.path(plain)))
	time.Sleep(time.Millisecond)
	must(w.t, os.Rename(successor, w.log))
	must(w.t, w.file.Close())
	w.file = next
	w.segments = append(w.segments, []string{l})
	w.sign()
	w.replace(fmt.Sprint("checkpoints/", w.size), w.get("checkpoint"))
	zst := plain + ".zst"
	w.compress.Go(func() {
		time.Sleep(2 * time.Millisecond)
		w.manifest.Lock()
		defer w.manifest.Unlock()
		w.replace(zst, compress(w.t, text))
		w.sealed = append(w.sealed, map[string]any{"first": first, "count": count, "file": filepath.Base(zst), "bytes": len(text)})
		b, err := json.Marshal(map[string]any{"format": 1, "segments": w.sealed})
		must(w.t, err)
		w.replace("manifest", b)
		w.remove(plain)
	})
	w.seals.Add(1)
}

// A trail that is written, signed, sealed and compressed meanwhile is never
// accused, and what was signed before a look at it is covered by that look.
func TestLiveTrailIsNeverAccused(t *testing.T) {
	w := &writer{trail: newTrail(panics{}, t.TempDir(), 1)}
	w.write()
	old := w.get("checkpoint")
	var err error
	w.file, err = os.OpenFile(w.log, os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		defer w.compress.Wait()
		for n := 1; !stop.Load(); n++ {
			w.append(line(n))
			switch {
			case n%97 == 0:
				w.seal()
			case n%7 == 0:
				w.sign()
			}
		}
	})
	rounds, uncovered, torn := 0, 0, 0
	for until := time.Now().Add(2 * time.Second); time.Now().Before(until); rounds++ {
		signed := w.signed.Load()
		r, err := Verify(context.Background(), Options{LogPath: w.log, Checkpoint: old, RequireAnchor: true, Workers: 1 + rounds%3})
		if err != nil || r.Status != Intact || r.Size < signed || len(r.Also) > 0 {
			stop.Store(true)
			wg.Wait()
			t.Fatalf("round %d: %s, %v", rounds, show(r), err)
		}
		if r.Uncovered > 0 {
			uncovered++
		}
		if r.Torn > 0 {
			torn++
		}
	}
	stop.Store(true)
	wg.Wait()
	w.sign()
	isIntact(t, w.verify(Options{}), w.trail)
	t.Logf("%d looks at up to %d entries, %d seals; %d saw uncovered lines, %d torn ones", rounds, w.size, w.seals.Load(), uncovered, torn)
	if rounds < 10 || w.seals.Load() < 3 || uncovered == 0 {
		t.Error("too little happened")
	}
	must(t, w.file.Close())
}
