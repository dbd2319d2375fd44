package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// readerOf opens a copy of the sample for reading. What it reads goes to the
// spool at most, so that the lines stay as they are.
func (s *sample) readerOf(t *testing.T, log string) *Trail {
	t.Helper()
	reader, err := Open(log, &Options{ReadOnly: true, StateDir: s.state})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reader.Close() })
	return reader
}

// answer is what a scan gives: for each entry its index, for each gap its
// range.
type answer struct {
	indexes []int64
	gaps    []*GapError
}

func (s *sample) scan(t *testing.T, log string, q Query) (a answer) {
	t.Helper()
	for e, err := range s.readerOf(t, log).scan(context.Background(), q) {
		gap, ok := errors.AsType[*GapError](err)
		switch {
		case ok:
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("%v: not called damage", err)
			}
			a.gaps = append(a.gaps, gap)
		case err != nil:
			t.Fatal(err)
		default:
			a.indexes = append(a.indexes, e.Index)
		}
	}
	return a
}

// wantGap wants the one gap, and every entry outside it, under its own index.
func (s *sample) wantGap(t *testing.T, a answer, first, end int64) {
	t.Helper()
	if len(a.gaps) != 1 || a.gaps[0].First != first || a.gaps[0].Count != end-first {
		t.Fatalf("gaps %v, want entries %d to %d", a.gaps, first, end-1)
	}
	seen := map[int64]bool{}
	for _, i := range a.indexes {
		seen[i] = true
	}
	for i := range s.size {
		if in := i >= first && i < end; seen[i] == in {
			t.Fatalf("entry %d: given %v, missing %v", i, seen[i], in)
		}
	}
}

// An answer from a trail that lacks lines never looks complete: the range that
// is missing is named, in its place, and everything else is given under its own
// index, with a manifest and without.
func TestQueryNamesWhatIsMissing(t *testing.T) {
	s := getSample(t)
	cut := func(name string, size int64) error { return os.Truncate(name, size) }
	for _, c := range []struct {
		name       string
		damage     func(log string) error
		first, end int64 // end -1: where a frame ends
	}{
		{"first segment gone", func(log string) error { return os.Remove(s.file(log, 0)) }, 0, s.ends[0]},
		{"last sealed segment gone", func(log string) error { return os.Remove(s.file(log, 1)) }, s.ends[0], s.ends[1]},
		{"all sealed segments gone", func(log string) error { return os.RemoveAll(filepath.Join(trailDir(log), "segments")) }, 0, s.ends[1]},
		{"first segment cut", func(log string) error { return cut(s.file(log, 0), 100) }, 0, s.ends[0]},
		{"last sealed segment cut", func(log string) error { return cut(s.file(log, 1), 100) }, s.ends[0], s.ends[1]},
		{"sealed segment empty", func(log string) error { return cut(s.file(log, 1), 0) }, s.ends[0], s.ends[1]},
		{"sealed segment is garbage", func(log string) error {
			return os.WriteFile(s.file(log, 0), []byte("no zstd, and nothing else either"), 0o600)
		}, 0, s.ends[0]},
		{"directory for a segment", func(log string) error {
			return errors.Join(os.Remove(s.file(log, 1)), os.Mkdir(s.file(log, 1), 0o700))
		}, s.ends[0], s.ends[1]},
		{"pipe for a segment", func(log string) error {
			return errors.Join(os.Remove(s.file(log, 1)), syscall.Mkfifo(s.file(log, 1), 0o600))
		}, s.ends[0], s.ends[1]},
		{"newest lines gone", func(log string) error {
			lines, err := readLines(log)
			if err != nil {
				return err
			}
			return writeLines(log, lines[:10])
		}, s.ends[1] + 10, s.size},
		{"open segment gone", os.Remove, s.ends[1], s.size},
	} {
		for _, manifest := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, manifest %v", c.name, manifest), func(t *testing.T) {
				log := s.copyOf(t, filepath.Join(t.TempDir(), "copy"))
				if err := c.damage(log); err != nil {
					t.Fatal(err)
				}
				if !manifest {
					if err := os.Remove(filepath.Join(trailDir(log), "manifest")); err != nil {
						t.Fatal(err)
					}
				}
				s.wantGap(t, s.scan(t, log, Query{Trails: true}), c.first, c.end)
				s.wantGap(t, s.scan(t, log, Query{Trails: true, Order: Newest}), c.first, c.end)

				// A page that ends before the gap lacks nothing; one that spans
				// it does.
				if c.first > 0 {
					if a := s.scan(t, log, Query{Trails: true, Limit: int(c.first)}); len(a.gaps) > 0 {
						t.Errorf("entries before the gap: %v", a.gaps)
					}
				}
				cursor := Entry{Index: c.first + 1}.Cursor()
				a := s.scan(t, log, Query{Trails: true, Cursor: cursor})
				if len(a.gaps) != 1 || a.gaps[0].First != c.first+2 || a.gaps[0].First+a.gaps[0].Count != c.end {
					t.Errorf("after entry %s: %v", cursor, a.gaps)
				}
				if a := s.scan(t, log, Query{Trails: true, Cursor: cursor, Order: Newest}); len(a.gaps) != 1 || a.gaps[0].First != c.first || a.gaps[0].Count != 1 {
					t.Errorf("before entry %s: %v", cursor, a.gaps)
				}

				reader := s.readerOf(t, log)
				i, err := reader.Info(context.Background())
				if err != nil || len(i.Missing) != 1 && c.end != s.ends[0] && c.end != s.ends[1] {
					t.Fatalf("info: %+v, %v", i, err)
				}
				if strings.HasSuffix(c.name, " gone") && (len(i.Missing) != 1 || i.Missing[0].First != c.first || i.Entries != s.size-(c.end-c.first)) {
					t.Errorf("info: %d entries, missing %v, warnings %v", i.Entries, i.Missing, i.Warnings)
				}
				r, err := reader.ComplianceReport(context.Background())
				if err != nil || len(r.Missing) != 1 || r.Missing[0].First != c.first || r.Missing[0].Count < c.end-c.first {
					t.Fatalf("report: %+v, %v", r, err)
				}
				var text bytes.Buffer
				if err := r.WriteText(&text); err != nil || !strings.Contains(text.String(), "Incomplete: ") {
					t.Errorf("the report looks complete: %v\n%s", err, &text)
				}
			})
		}
	}
}

// The names of files that are left can hide that one is gone between them; its
// neighbour's lines do not.
func TestQueryNamesAMissingMiddle(t *testing.T) {
	log := filepath.Join(t.TempDir(), "audit.jsonl")
	trail, err := Open(log, nil)
	if err != nil {
		t.Fatal(err)
	}
	var ends []int64
	for range 3 {
		if _, err := trail.Record(context.Background(), event("a", "x")); err != nil {
			t.Fatal(err)
		}
		info, err := trail.Rotate(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, info.First+info.Count)
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	s := &sample{ends: append(ends, trail.journal.Next()), size: trail.journal.Next()}
	if err := os.Remove(s.file(log, 1)); err != nil {
		t.Fatal(err)
	}
	for _, manifest := range []bool{true, false} {
		s.wantGap(t, s.scan(t, log, Query{Trails: true}), ends[0], ends[1])
		i, err := s.readerOf(t, log).Info(context.Background())
		if err != nil || len(i.Missing) != 1 || i.Missing[0].First != ends[0] || i.Missing[0].Count != ends[1]-ends[0] {
			t.Errorf("manifest %v: info: %+v, %v", manifest, i, err)
		}
		if manifest {
			if _, err := Open(log, nil); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "missing") {
				t.Errorf("it is extended: %v", err)
			}
		}
		os.Remove(filepath.Join(trailDir(log), "manifest"))
	}
}

// Slices come with an error that names the gap, and with what is there; nothing
// of an incomplete export looks complete.
func TestSlicesOfADamagedTrail(t *testing.T) {
	s := getSample(t)
	log := s.copyOf(t, filepath.Join(t.TempDir(), "copy"))
	if err := os.Remove(s.file(log, 1)); err != nil {
		t.Fatal(err)
	}
	m := &AuditTrailManager{s.readerOf(t, log)}
	wantGap := func(what string, given int, err error) {
		t.Helper()
		gap, ok := errors.AsType[*GapError](err)
		if !ok || !errors.Is(err, ErrDamaged) || gap.First != s.ends[0] || given == 0 {
			t.Errorf("%s: %d, %v", what, given, err)
		}
	}
	entries, err := m.AuditEntries(context.Background())
	wantGap("entries", len(entries), err)
	entries, err = m.QueryByAgent(context.Background(), "agent-1")
	wantGap("by agent", len(entries), err)
	entries, err = m.QueryByTimeRange(context.Background(), time.Unix(0, 0), time.Now())
	wantGap("by time", len(entries), err)
	entries, err = m.Trace(context.Background(), entries[0].TraceID)
	wantGap("trace", len(entries), err)
	text, err := m.ExportUserData(context.Background(), "nobody")
	wantGap("export", len(text), err)
	if !json.Valid([]byte(text)) {
		t.Errorf("export: %q", text)
	}
}

// Without a checkpoint nobody can say how many lines there should be, and the
// answer says so.
func TestQueryWithoutACheckpoint(t *testing.T) {
	s := getSample(t)
	for name, damage := range map[string]func(string) error{
		"missing": os.Remove,
		"garbage": func(name string) error { return os.WriteFile(name, []byte("x"), 0o600) },
	} {
		log := s.copyOf(t, filepath.Join(t.TempDir(), "copy"))
		if err := damage(filepath.Join(trailDir(log), "checkpoint")); err != nil {
			t.Fatal(err)
		}
		a := s.scan(t, log, Query{Trails: true})
		if len(a.gaps) != 1 || a.gaps[0].First != s.size || a.gaps[0].Count != -1 || int64(len(a.indexes)) != s.size {
			t.Errorf("%s: %d entries, %v", name, len(a.indexes), a.gaps)
		}
	}
}

// Whatever is in the manifest's place, it is harmless: readers read all, the
// next writer makes it again, byte for byte, and nothing warns.
func TestManifestIsMadeAgain(t *testing.T) {
	s := getSample(t)
	write := func(text string) func(string) error {
		return func(name string) error { return os.WriteFile(name, []byte(text), 0o600) }
	}
	was, err := os.ReadFile(filepath.Join(s.dir, "audit.trail", "manifest"))
	if err != nil {
		t.Fatal(err)
	}
	count := fmt.Sprintf(`"count":%d`, s.ends[1]-s.ends[0])
	for name, damage := range map[string]func(string) error{
		"missing":        os.Remove,
		"garbage":        write("garbage"),
		"empty":          write(""),
		"half":           write(string(was[:len(was)/2])),
		"no segments":    write(`{"format":1,"segments":[]}`),
		"another format": write(`{"format":2,"segments":[]}`),
		"impossible":     write(`{"format":1,"segments":[{"first":-1}]}`),
		"too few lines":  write(strings.Replace(string(was), count, `"count":3`, 1)),
		"too many lines": write(strings.Replace(string(was), count, fmt.Sprintf(`"count":%d`, s.ends[1]), 1)),
		"far too many":   write(strings.Replace(string(was), count, fmt.Sprintf(`"count":%d`, math.MaxInt64-s.ends[0]), 1)),
		"first shorter":  write(strings.Replace(string(was), fmt.Sprintf(`"count":%d`, s.ends[0]), `"count":1`, 1)),
		"first longer":   write(strings.Replace(string(was), fmt.Sprintf(`"count":%d`, s.ends[0]), fmt.Sprintf(`"count":%d`, s.ends[0]+1), 1)),
		"older": func(name string) error {
			var m struct {
				Format   int               `json:"format"`
				Segments []json.RawMessage `json:"segments"`
			}
			if err := json.Unmarshal(was, &m); err != nil {
				return err
			}
			m.Segments = m.Segments[:1]
			old, err := json.Marshal(m)
			return errors.Join(err, os.WriteFile(name, old, 0o600))
		},
		"pipe":      func(name string) error { return errors.Join(os.Remove(name), syscall.Mkfifo(name, 0o600)) },
		"left over": func(name string) error { return os.WriteFile(name+".tmp", []byte("half"), 0o400) },
		"half compressed": func(name string) error {
			return os.WriteFile(s.file(strings.TrimSuffix(filepath.Dir(name), ".trail")+".jsonl", 1)+".tmp", []byte("half"), 0o400)
		},
	} {
		t.Run(name, func(t *testing.T) {
			log := s.copyOf(t, filepath.Join(t.TempDir(), "copy"))
			manifest := filepath.Join(trailDir(log), "manifest")
			if err := damage(manifest); err != nil {
				t.Fatal(err)
			}
			if a := s.scan(t, log, Query{Trails: true}); len(a.gaps) > 0 || int64(len(a.indexes)) != s.size || a.indexes[s.size-1] != s.size-1 {
				t.Errorf("a reader: %d entries, %v", len(a.indexes), a.gaps)
			}
			trail, err := Open(log, &Options{StateDir: s.state, Warn: func(err error) { t.Errorf("warned: %v", err) }})
			if err != nil {
				t.Fatal(err)
			}
			if err := trail.Close(); err != nil {
				t.Fatal(err)
			}
			if now, err := os.ReadFile(manifest); err != nil || !bytes.Equal(now, was) {
				t.Errorf("%v\n%s\nwas\n%s", err, now, was)
			}
			if left, _ := filepath.Glob(filepath.Join(trailDir(log), "segments", "*.tmp")); len(left) > 0 {
				t.Errorf("left over: %v", left)
			}
			if r := check(t, log, VerifyOptions{StateDir: s.state}); r.Status != "intact" {
				t.Errorf("%+v", r)
			}
		})
	}
}

// A manifest that is made again says nothing good of lines that were exchanged:
// the segment is not listed, and the writer says why.
func TestManifestListsNoDamagedSegment(t *testing.T) {
	s := getSample(t)
	log := s.copyOf(t, filepath.Join(t.TempDir(), "copy"))
	name := s.file(log, 0)
	lines, err := readLines(name)
	if err != nil {
		t.Fatal(err)
	}
	lines[5] = bytes.Replace(lines[5], []byte("action 0"), []byte("action 9"), 1)
	if err := errors.Join(writeLines(name, lines), os.Remove(filepath.Join(trailDir(log), "manifest"))); err != nil {
		t.Fatal(err)
	}
	warned := make(chan error, 10)
	trail, err := Open(log, &Options{StateDir: s.state, Warn: func(err error) { warned <- err }})
	if err != nil {
		t.Fatal(err)
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-warned; !strings.Contains(err.Error(), "entry 5 is not what its entry bundle says") {
		t.Error(err)
	}
	manifest, err := os.ReadFile(filepath.Join(trailDir(log), "manifest"))
	if err != nil || bytes.Contains(manifest, []byte(filepath.Base(name))) || !bytes.Contains(manifest, []byte(filepath.Base(s.file(log, 1)))) {
		t.Errorf("%v: %s", err, manifest)
	}
}

// No word of a manifest makes a writer remove lines: of a plain and a
// compressed file the plain one goes only after it was compressed and compared.
func TestManifestRemovesNoLines(t *testing.T) {
	s := getSample(t)
	log := s.copyOf(t, filepath.Join(t.TempDir(), "copy"))
	sealed := s.file(log, 1)
	lines, err := readLines(sealed)
	if err != nil {
		t.Fatal(err)
	}
	plain := strings.TrimSuffix(sealed, ".zst")
	if err := errors.Join(writeLines(plain, lines), os.WriteFile(sealed, []byte("garbage"), 0o600)); err != nil {
		t.Fatal(err)
	}
	trail, err := Open(log, &Options{StateDir: s.state})
	if err != nil {
		t.Fatal(err)
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	if again, err := readLines(sealed); err != nil || len(again) != len(lines) {
		t.Errorf("%d of %d lines, %v", len(again), len(lines), err)
	}
	if r := check(t, log, VerifyOptions{StateDir: s.state}); r.Status != "intact" {
		t.Errorf("%+v", r)
	}
}

// What is given as a checkpoint from outside and is none, or is not this
// trail's, accuses nobody; a good one of this origin that the trail does not
// extend does.
func TestCheckpointOfAnotherTrailIsNoDamage(t *testing.T) {
	s := getSample(t)
	other := openTemp(t, nil)
	elsewhere, err := os.ReadFile(filepath.Join(other.Dir(), "checkpoint"))
	if err != nil {
		t.Fatal(err)
	}
	spoiled := bytes.Replace(s.old, []byte("\n7"), []byte("\n8"), 1) // another size, the same signature
	if bytes.Equal(spoiled, s.old) {
		t.Fatal("the size was not found")
	}
	for name, c := range map[string]struct {
		checkpoint []byte
		want       error
	}{
		"empty":         {[]byte{}, ErrNoCheckpoint},
		"text":          {[]byte("hello\n"), ErrNoCheckpoint},
		"no signature":  {s.old[:bytes.Index(s.old, []byte("\n\n"))+2], ErrNoCheckpoint},
		"half":          {s.old[:len(s.old)/2], ErrNoCheckpoint},
		"changed":       {spoiled, ErrNoCheckpoint},
		"another trail": {elsewhere, ErrOtherTrail},
		"good":          {s.old, nil},
	} {
		r, err := VerifyPath(context.Background(), filepath.Join(s.dir, "audit.jsonl"), &VerifyOptions{Checkpoint: c.checkpoint, StateDir: s.state})
		if !errors.Is(err, c.want) || (r == nil) != (c.want != nil) || r != nil && r.Status != "intact" {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
}

// Nothing at a path is no damage; a trail that was seen there and is gone is.
func TestVerifyWhereThereIsNoTrail(t *testing.T) {
	state := t.TempDir()
	log := filepath.Join(t.TempDir(), "audit.jsonl")
	if r, err := VerifyPath(context.Background(), log, &VerifyOptions{StateDir: state}); r != nil || !errors.Is(err, ErrNotFound) {
		t.Errorf("%+v, %v", r, err)
	}
	trail, err := Open(log, &Options{StateDir: state})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(trail.Close(), os.Remove(log), os.RemoveAll(trail.Dir())); err != nil {
		t.Fatal(err)
	}
	if r := check(t, log, VerifyOptions{StateDir: state}); r.Status != "damaged" || r.Problem != "missing" {
		t.Errorf("%+v", r)
	}
}

// What is no file at the log's path, or in the trail, is refused by its name
// and never waited for.
func TestIrregularFilesAreRefused(t *testing.T) {
	bounded := func(t *testing.T, what string, f func() error) error {
		t.Helper()
		done := make(chan error, 1)
		go func() { done <- f() }()
		select {
		case err := <-done:
			return err
		case <-time.After(30 * time.Second):
			t.Fatalf("%s hangs", what)
			return nil
		}
	}
	kinds := map[string]func(name string) error{
		"a named pipe":   func(name string) error { return syscall.Mkfifo(name, 0o600) },
		"is a directory": func(name string) error { return os.Mkdir(name, 0o700) },
		"a socket": func(name string) error {
			fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
			if err != nil {
				return err
			}
			defer syscall.Close(fd)
			t.Chdir(filepath.Dir(name)) // a socket's address is short
			return syscall.Bind(fd, &syscall.SockaddrUnix{Name: filepath.Base(name)})
		},
		"a device": func(name string) error { return os.Symlink("/dev/null", name) },
	}
	for kind, put := range kinds {
		t.Run(kind, func(t *testing.T) {
			state := t.TempDir()
			log := filepath.Join(t.TempDir(), "audit.jsonl")
			if err := put(log); err != nil {
				t.Fatal(err)
			}
			for what, f := range map[string]func() error{
				"write": func() error { _, err := Open(log, &Options{StateDir: state}); return err },
				"read":  func() error { _, err := Open(log, &Options{StateDir: state, ReadOnly: true}); return err },
				"verify": func() error {
					_, err := VerifyPath(context.Background(), log, &VerifyOptions{StateDir: state})
					return err
				},
			} {
				err := bounded(t, what, f)
				if err == nil || errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "not a regular file: "+kind) {
					t.Errorf("%s: %v", what, err)
				}
			}
			if _, err := os.Stat(trailDir(log)); err == nil {
				t.Error("a trail was begun")
			}
		})
	}
	s := getSample(t)
	for _, file := range []string{"trail.json", "checkpoint", "lock", "keys/signing.key", "keys/mac.key", "manifest", "creating"} {
		t.Run(file, func(t *testing.T) {
			log := s.copyOf(t, filepath.Join(t.TempDir(), "copy"))
			name := filepath.Join(trailDir(log), file)
			os.Remove(name)
			if err := syscall.Mkfifo(name, 0o600); err != nil {
				t.Fatal(err)
			}
			harmless := file == "manifest" || file == "creating"
			err := bounded(t, "read", func() error {
				reader, err := Open(log, &Options{ReadOnly: true, StateDir: s.state})
				if err != nil {
					return err
				}
				defer reader.Close()
				if _, err := reader.Info(context.Background()); err != nil {
					return err
				}
				_, err = collect(reader.scan(context.Background(), Query{Limit: 3}))
				return err
			})
			if err != nil && file != "trail.json" || err == nil && file == "trail.json" {
				t.Errorf("read: %v", err)
			}
			err = bounded(t, "write", func() error {
				trail, err := Open(log, &Options{StateDir: s.state})
				if err != nil {
					return err
				}
				return trail.Close()
			})
			if (err == nil) != harmless || err != nil && (!strings.Contains(err.Error(), "a named pipe") || !strings.Contains(err.Error(), filepath.Base(file))) {
				t.Errorf("write: %v", err)
			}
			bounded(t, "verify", func() error {
				_, err := VerifyPath(context.Background(), log, &VerifyOptions{StateDir: s.state})
				return err
			})
		})
	}
}

// Whoever removes the log of a running agent, or moves it away, is heard: what is
// acknowledged must be where it is looked for.
func TestALogThatIsGoneStopsItsTrail(t *testing.T) {
	for name, take := range map[string]func(log string) error{
		"moved":             func(log string) error { return os.Rename(log, log+".1") },
		"removed":           os.Remove,
		"its directory too": func(log string) error { return os.RemoveAll(filepath.Dir(log)) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "logs")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			var told atomic.Int64
			trail, err := Open(filepath.Join(dir, "audit.jsonl"), &Options{Warn: func(error) { told.Add(1) }})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := trail.Record(context.Background(), event("a", "x")); err != nil {
				t.Fatal(err)
			}
			if err := take(trail.Path()); err != nil {
				t.Fatal(err)
			}
			for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
				_, err := trail.Record(context.Background(), event("a", "x"))
				if errors.Is(err, ErrStopped) && errors.Is(err, fs.ErrNotExist) {
					break
				}
				if err != nil || time.Now().After(deadline) {
					t.Fatalf("%v", err)
				}
			}
			if err := trail.Close(); !errors.Is(err, ErrStopped) || told.Load() == 0 {
				t.Errorf("%v, told %d times", err, told.Load())
			}
		})
	}
}
