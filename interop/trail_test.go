package interop

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/mod/sumdb/note"

	audit "github.com/kaizen-audit/kaizen-audit"
)

// entries is more than the 100,000 that the promise names: bundles and tiles
// of three levels, full and partial.
const entries = 101_000

// intact is one trail for all tests, which only read it.
var intact trail

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "interop-")
	if err == nil {
		intact, err = makeTrail(filepath.Join(dir, "log.jsonl"))
	}
	code := 1
	if err != nil {
		fmt.Fprintln(os.Stderr, "make trail:", err)
	} else {
		code = m.Run()
	}
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// trail is a trail's files and what its judges must be told.
type trail struct {
	log, dir     string // X.jsonl and X.trail
	origin, vkey string
	size         int64 // of the checkpoint
}

func makeTrail(log string) (t trail, err error) {
	ctx := context.Background()
	a, err := audit.Open(log, &audit.Options{
		Durability:   audit.Written,
		SegmentBytes: 8 << 20,
		StateDir:     filepath.Join(filepath.Dir(log), "known"),
	})
	if err != nil {
		return t, err
	}
	defer func() {
		if a != nil {
			a.Close()
		}
	}()
	batch := make([]audit.Event, 0, 500)
	record := func(from, to int) error {
		for n := from; n < to; {
			for batch = batch[:0]; n < to && len(batch) < cap(batch); n++ {
				batch = append(batch, event(n))
			}
			if _, err := a.RecordBatch(ctx, batch); err != nil {
				return err
			}
		}
		return nil
	}
	for n := 0; n < 100_000; n += 20_000 {
		if err := record(n, n+20_000); err != nil {
			return t, err
		}
		if _, err := a.Rotate(ctx); err != nil {
			return t, err
		}
	}
	if err := record(100_000, entries); err != nil { // the open segment has lines too
		return t, err
	}
	info, err := a.Info(ctx)
	if err != nil {
		return t, err
	}
	err = a.Close()
	a = nil
	if err != nil {
		return t, err
	}
	if len(info.Segments) < 3 {
		return t, fmt.Errorf("%d sealed segments, at least 3 are wanted", len(info.Segments))
	}
	return openFiles(log)
}

// event is different for every n, and the larger ones keep the segments from
// being all alike.
func event(n int) audit.Event {
	return audit.Event{
		EventType:  audit.ToolUse,
		AgentID:    fmt.Sprintf("agent-%03d", n%17),
		TraceID:    fmt.Sprintf("%032x", n/10),
		Action:     "tool_use:get_order_details",
		Inputs:     audit.Raw(fmt.Appendf(nil, `{"order_id":"#W%07d"}`, n)),
		Outputs:    audit.Raw(fmt.Appendf(nil, `{"status":"delivered","note":"ünïcode \" %s"}`, strings.Repeat("x", n%97))),
		DurationMS: float64(n%1000) / 10,
		Metadata:   audit.Raw(fmt.Appendf(nil, `{"user_id":"user-%d","environment":"test"}`, n%53)),
	}
}

// openFiles reads what a stranger would: trail.json and the checkpoint.
func openFiles(log string) (t trail, err error) {
	t.log, t.dir = log, strings.TrimSuffix(log, ".jsonl")+".trail"
	b, err := os.ReadFile(filepath.Join(t.dir, "trail.json"))
	if err != nil {
		return t, err
	}
	var about struct{ Origin, VKey string }
	if err := json.Unmarshal(b, &about); err != nil {
		return t, err
	}
	t.origin, t.vkey = about.Origin, about.VKey
	b, err = os.ReadFile(filepath.Join(t.dir, "checkpoint"))
	if err != nil {
		return t, err
	}
	_, err = fmt.Fscan(bytes.NewReader(b), new(string), &t.size)
	if err == nil && t.size < entries {
		err = fmt.Errorf("the checkpoint covers %d entries of %d", t.size, entries)
	}
	return t, err
}

func (t trail) verifier(tb testing.TB) note.Verifier {
	tb.Helper()
	v, err := note.NewVerifier(t.vkey)
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

func (t trail) checkpoint(tb testing.TB) []byte { return t.read(tb, "checkpoint") }

func (t trail) read(tb testing.TB, name string) []byte {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join(t.dir, name))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// copy gives the test a trail of its own to damage.
func (t trail) copy(tb testing.TB) trail {
	tb.Helper()
	c := t
	to := tb.TempDir()
	if err := os.CopyFS(to, os.DirFS(filepath.Dir(t.log))); err != nil {
		tb.Fatal(err)
	}
	c.log = filepath.Join(to, filepath.Base(t.log))
	c.dir = filepath.Join(to, filepath.Base(t.dir))
	return c
}

// change rewrites a file of the trail's directory.
func (t trail) change(tb testing.TB, name string, do func([]byte) []byte) {
	tb.Helper()
	rewrite(tb, filepath.Join(t.dir, name), do)
}

func rewrite(tb testing.TB, path string, do func([]byte) []byte) {
	tb.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	if err := os.Remove(path); err != nil { // sealed files are read-only
		tb.Fatal(err)
	}
	if err := os.WriteFile(path, do(b), 0o600); err != nil {
		tb.Fatal(err)
	}
}

// flip gives a change of one bit.
func flip(at int) func([]byte) []byte {
	return func(b []byte) []byte {
		if at < 0 {
			at += len(b)
		}
		b[at] ^= 1
		return b
	}
}

// segments are the sealed files in order.
func (t trail) segments(tb testing.TB) []string {
	tb.Helper()
	files, err := filepath.Glob(filepath.Join(t.dir, "segments", "*.jsonl.zst"))
	if err != nil || len(files) < 3 {
		tb.Fatalf("%d sealed segments, %v; at least 3 are wanted", len(files), err)
	}
	slices.Sort(files)
	return files
}

// resealed lets do change the lines of a sealed segment.
func resealed(tb testing.TB, path string, do func([]byte) []byte) {
	tb.Helper()
	rewrite(tb, path, func(b []byte) []byte {
		r, err := zstd.NewReader(nil)
		if err != nil {
			tb.Fatal(err)
		}
		defer r.Close()
		plain, err := r.DecodeAll(b, nil)
		if err != nil {
			tb.Fatal(err)
		}
		w, err := zstd.NewWriter(nil)
		if err != nil {
			tb.Fatal(err)
		}
		return w.EncodeAll(do(plain), nil)
	})
}

// digests are the line digests in order, computed from the lines.
func (t trail) digests(tb testing.TB) (out [][sha256.Size]byte) {
	tb.Helper()
	for _, path := range append(t.segments(tb), t.log) {
		f, err := os.Open(path)
		if err != nil {
			tb.Fatal(err)
		}
		defer f.Close()
		var in io.Reader = f
		if strings.HasSuffix(path, ".zst") {
			d, err := zstd.NewReader(f)
			if err != nil {
				tb.Fatal(err)
			}
			defer d.Close()
			in = d
		}
		lines := bufio.NewScanner(in)
		for lines.Scan() {
			out = append(out, sha256.Sum256(lines.Bytes()))
		}
		if err := lines.Err(); err != nil {
			tb.Fatal(err)
		}
	}
	return out
}

// bounded is a context that ends before the test run would: some judges hang
// on a damaged log.
func bounded(tb testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(tb.Context(), 2*time.Minute)
	tb.Cleanup(cancel)
	return ctx
}
