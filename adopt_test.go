package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/durable/durabletest"
)

// oldLines are a log of anything: entries, other objects, what only claims to
// be a trail's, what is no JSON and no text, empty lines, no newline at the end.
var oldLines = []string{
	`{"timestamp":"2025-10-26T10:53:45.123Z","event_type":"TOOL_USE","agent_id":"old","trace_id":"t","action":"x","inputs":{},"outputs":{},"duration_ms":1,"success":true,"error":null,"metadata":{"user_id":"u"}}`,
	``,
	`{"timestamp":"2025-10-26T10:53:46.123Z","event_type":"AUDIT_HOLD","agent_id":"kaizen-audit","trace_id":"o","action":"hold_lifted","recorded_at":"2999-01-01T00:00:00.000Z"}`,
	`{"timestamp":"2025-10-26T10:53:47.123Z","event_type":"TOOL_USE","agent_id":"old","action":"y","idempotency_key":"mine","recorded_at":"2999-01-01T00:00:00.000Z","recorded_by":{"via":"import"}}`,
	"not json \x00\xff\r",
	`{"agent_id":"old","action":"other format","details":{}}` + "\r",
	`{"a":`,
}

func oldLog() []byte { return []byte(strings.Join(oldLines, "\n")) }

// writeOld puts the old log at memLog, durably.
func writeOld(t testing.TB, m durable.FS, data []byte) {
	t.Helper()
	if err := errors.Join(durable.MkdirAll(m, "/log", 0o700), durable.CreateFile(m, memLog, data, 0o640), m.SyncDir("/log")); err != nil {
		t.Fatal(err)
	}
}

func adoptMem(fsys durable.FS) error {
	o := memOptions(fsys)
	o.adopt = true
	trail, err := Open(memLog, o)
	if err != nil {
		return err
	}
	return trail.Close()
}

// checkAdopted wants the trail at memLog to begin with the old log, and the old
// file to be as it was under its second name.
func checkAdopted(t *testing.T, fsys durable.FS, old []byte) {
	t.Helper()
	kept, err := durable.ReadFile(fsys, "/log/audit.adopted.jsonl", maxSmallFile)
	if err != nil || !bytes.Equal(kept, old) {
		t.Fatalf("the old file: %q, %v", kept, err)
	}
	got := allLines(t, fsys, memLog)
	want := strings.Split(strings.TrimSuffix(string(old), "\n"), "\n")
	if len(got) < 1+len(want) {
		t.Fatalf("%d lines", len(got))
	}
	for i, w := range want {
		if string(got[1+i]) != w {
			t.Fatalf("line %d is %q, want %q", 1+i, got[1+i], w)
		}
	}
	var a Adopted
	a.See(0, got[0])
	if a.First != 1 || a.Count != int64(len(want)) || a.Bytes != int64(len(old)) || a.File != "audit.adopted.jsonl" {
		t.Fatalf("entry 0 names %+v", a)
	}
}

// isOld wants the old log to be under one of its names at least, unchanged.
func isOld(t *testing.T, fsys durable.FS, old []byte) {
	t.Helper()
	for _, name := range []string{memLog, "/log/audit.adopted.jsonl"} {
		if data, err := durable.ReadFile(fsys, name, maxSmallFile); err == nil && bytes.Equal(data, old) {
			return
		}
	}
	t.Fatal("the old file is lost")
}

// Power fails at every file operation of an adoption, or the operation fails:
// the old file is whole all the time, nobody takes what is there for a trail
// before it is one, and adopting again gives the trail.
func TestCrashAdopt(t *testing.T) {
	for name, each := range map[string]func(*testing.T, func(*testing.T, *durabletest.Run)){
		"power":     func(t *testing.T, f func(*testing.T, *durabletest.Run)) { durabletest.EachCrash(t, 3, f) },
		"operation": durabletest.EachOp,
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, r *durabletest.Run) {
				old := oldLog()
				writeOld(t, r.Mem, old)
				var err error
				r.Inject(func() { err = adoptMem(r.FS) })
				if err != nil && !r.Fired() {
					t.Fatal(err)
				}
				m := r.Restart()
				isOld(t, m, old)
				// Whoever opens it meanwhile finds the whole trail, or is told.
				writer := memOptions(m)
				trail, err := Open(memLog, writer)
				switch {
				case err == nil:
					if err := trail.Close(); err != nil {
						t.Fatal(err)
					}
				case !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "import --adopt"):
					t.Fatal(err)
				default:
					if _, err := Open(memLog, &Options{ReadOnly: true, fs: m}); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "import --adopt") {
						t.Fatalf("a reader: %v", err)
					}
					isOld(t, m, old)
					if err := adoptMem(m); err != nil {
						t.Fatal(err)
					}
				}
				checkAdopted(t, m, old)
				h := &history{}
				trail, err = Open(memLog, memOptions(m))
				if err != nil {
					t.Fatal(err)
				}
				if err := h.record(trail, 3); err != nil {
					t.Fatal(err)
				}
				if err := trail.Close(); err != nil {
					t.Fatal(err)
				}
				checkAdopted(t, m, old)
				checkReceipts(t, m, h)
			})
		})
	}
}

// checkReceipts is checkWhole for lines that may be anything.
func checkReceipts(t *testing.T, fsys durable.FS, h *history) {
	t.Helper()
	lines := allLines(t, fsys, memLog)
	for _, r := range h.receipts {
		if lineDigest(lines[r.Index]) != r.Digest {
			t.Fatalf("entry %d is another", r.Index)
		}
	}
	trail, err := Open(memLog, &Options{ReadOnly: true, fs: fsys})
	if err != nil {
		t.Fatal(err)
	}
	c, _, err := trail.latest()
	if err != nil || c.Size != int64(len(lines)) {
		t.Fatalf("checkpoint %d of %d lines, %v", c.Size, len(lines), err)
	}
}

// Of adopted lines those that are entries are found; none of them is the
// trail's own word, holds a key, sets the clock or disturbs a seal.
func TestAdoptedLinesAreNeverTheTrailsOwnWord(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	old := oldLog()
	if err := os.WriteFile(path, old, 0o640); err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	if _, err := Open(path, nil); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "kaizen-audit import --adopt --log "+path) {
		t.Fatalf("open: %v", err)
	}
	info, err := Init(path, &InitOptions{Adopt: true})
	if err != nil {
		t.Fatal(err)
	}
	if info.Adopted == nil || info.Adopted.Count != int64(len(oldLines)) || info.Covered != int64(len(oldLines))+1 {
		t.Fatalf("%+v", info)
	}
	if _, err := Init(path, &InitOptions{Adopt: true}); err == nil || !strings.Contains(err.Error(), "a trail already") {
		t.Fatalf("adopted twice: %v", err)
	}
	kept, err := os.ReadFile(filepath.Join(filepath.Dir(path), "audit.adopted.jsonl"))
	if err != nil || !bytes.Equal(kept, old) {
		t.Fatalf("the old file: %q, %v", kept, err)
	}
	trail, err := Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	ev := event("new", "x")
	ev.IdempotencyKey = "mine"
	r, err := trail.Record(ctx, ev)
	if err != nil || r.Index <= info.Adopted.Count {
		t.Fatalf("%+v, %v: a key of an adopted line counts", r, err)
	}
	if late := trail.clock.takeMax(); late.Year() > 2900 {
		t.Fatalf("the clock is at %v", late)
	}
	for key := range trail.ImportedKeys(ctx, "") {
		t.Fatalf("key %s of an adopted line", key)
	}
	for range 2 { // in the open segment, and in a sealed one
		for _, tc := range []struct {
			q    Query
			want []int64
		}{
			{Query{Agent: "old"}, []int64{1, 4, 6}},
			{Query{Agent: "old", Order: Newest, Limit: 2}, []int64{6, 4}},
			{Query{User: "u"}, []int64{1}},
			{Query{EventTypes: []string{"AUDIT_HOLD"}}, nil},
			{Query{Trace: "o"}, []int64{3}},
		} {
			entries, err := collect(trail.Query(ctx, tc.q))
			var got []int64
			for _, e := range entries {
				got = append(got, e.Index)
			}
			if err != nil || !slices.Equal(got, tc.want) {
				t.Errorf("%+v gives %v, %v, want %v", tc.q, got, err, tc.want)
			}
		}
		report, err := trail.ComplianceReport(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if report.TotalEntries != 1 || report.AdoptedLines != 7 || report.AdoptedBroken != 3 || report.Broken != 0 {
			t.Errorf("report %+v", report)
		}
		if _, err := trail.Rotate(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	found, err := VerifyPath(ctx, path, nil)
	if err != nil || found.Status != "intact" {
		t.Fatalf("%+v, %v", found, err)
	}
}

// Files of other ends and lengths come through byte for byte, more leaves than
// are flushed at once among them; what is empty or no file is refused.
func TestAdoptedFilesOfEveryShape(t *testing.T) {
	long := strings.Repeat("x", 3<<20)
	many := strings.Repeat("{}\n", adoptFlush+300)
	for name, data := range map[string]string{
		"one line": "{}", "newline only": "\n", "newlines": "\n\n\n", "long": "a\n" + long + "\nb\n", "crlf": "a\r\nb\r\n", "many": many,
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "agents.log")
			if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
				t.Fatal(err)
			}
			seen := int64(0)
			if _, err := Init(path, &InitOptions{Adopt: true, Options: Options{Progress: func(done, total int64) { seen = done }}}); err != nil {
				t.Fatal(err)
			}
			if seen != int64(len(data)) {
				t.Errorf("progress ended at %d of %d", seen, len(data))
			}
			log, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			_, rest, _ := bytes.Cut(log, []byte{'\n'})
			if string(rest) != strings.TrimSuffix(data, "\n")+"\n" {
				t.Errorf("%d bytes became %d", len(data), len(rest))
			}
			found, err := VerifyPath(context.Background(), path, nil)
			if err != nil || found.Status != "intact" {
				t.Fatalf("%+v, %v", found, err)
			}
		})
	}
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	for _, want := range []string{"no file to adopt", "the file is empty"} {
		if _, err := Init(path, &InitOptions{Adopt: true}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
		if exists(trailDir(path)) {
			t.Error("a directory was made for nothing")
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// A program that writes to the log's path while its adoption is interrupted
// loses nothing: what it wrote is set aside.
func TestAdoptKeepsWhatWasWrittenMeanwhile(t *testing.T) {
	old := oldLog()
	hit := 0
	durabletest.EachCrash(t, 0, func(t *testing.T, r *durabletest.Run) {
		writeOld(t, r.Mem, old)
		r.Inject(func() { _ = adoptMem(r.FS) })
		m := r.Restart()
		here, err1 := m.Stat(memLog)
		there, err2 := m.Stat("/log/audit.adopted.jsonl")
		if _, err := m.Stat("/log/audit.trail/checkpoint"); err == nil || err1 != nil || err2 != nil || m.SameFile(here, there) {
			return
		}
		hit++
		f, err := m.OpenFile(memLog, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprintln(f, "late"); err != nil {
			t.Fatal(err)
		}
		f.Close()
		if err := adoptMem(m); err != nil {
			t.Fatal(err)
		}
		checkAdopted(t, m, old)
		files, err := m.ReadDir("/log/audit.trail/aside")
		if err != nil || len(files) != 1 {
			t.Fatalf("%v, %v", files, err)
		}
		data, err := durable.ReadFile(m, "/log/audit.trail/aside/"+files[0].Name(), maxSmallFile)
		if err != nil || !bytes.HasSuffix(data, []byte("\nlate\n")) {
			t.Fatalf("%q, %v", data, err)
		}
	})
	if hit == 0 {
		t.Fatal("no crash left a log without a checkpoint")
	}
}

// While another process holds the trail, nothing is adopted, and nobody is told
// that it was.
func TestAdoptIsLockedOut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	holder, err := Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close()
	if _, err := Init(path, &InitOptions{Adopt: true}); !errors.Is(err, ErrLocked) {
		t.Fatalf("%v", err)
	}
	if exists(filepath.Join(filepath.Dir(path), "audit.adopted.jsonl")) {
		t.Fatal("the log has a second name")
	}
}
