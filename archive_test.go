package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kaizen-audit/kaizen-audit/archive"
	"github.com/kaizen-audit/kaizen-audit/internal/verify"
)

func dirStore(t testing.TB) *archive.Dir {
	t.Helper()
	d, err := archive.OpenDir("file://" + t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// archivedTrail is a trail with two sealed segments and a tail, open.
func archivedTrail(t testing.TB, path string, o Options) *Trail {
	t.Helper()
	o.Durability = Written // what is archived is synced first
	trail, err := Open(path, &o)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		recordSome(t, trail, i*300, 300)
		if i < 2 {
			if _, err := trail.Rotate(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	return trail
}

func recordSome(t testing.TB, trail *Trail, from, count int) {
	t.Helper()
	for i := range count {
		if _, err := trail.Record(context.Background(), Event{EventType: "TOOL_USE", AgentID: "agent-1", Action: fmt.Sprintf("tool_use:%d", from+i),
			TraceID: "trace-1", Metadata: Of(map[string]any{"user_id": fmt.Sprintf("user-%d", (from+i)%3)})}); err != nil {
			t.Fatal(err)
		}
	}
}

func intactAt(t testing.TB, path, state string) *VerifyReport {
	t.Helper()
	r, err := VerifyPath(context.Background(), path, &VerifyOptions{StateDir: state})
	if err != nil || r.Status != verify.Intact {
		t.Fatalf("verify: %+v, %v", r, err)
	}
	return r
}

func actionsOf(t testing.TB, trail *Trail) []string {
	t.Helper()
	var all []string
	for e, err := range trail.Query(context.Background(), Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e.Action)
	}
	return all
}

func TestWhatWasArchivedComesBackAndGoesOn(t *testing.T) {
	for _, kind := range []string{"plain", "encrypted"} {
		t.Run(kind, func(t *testing.T) {
			dir, state, store := t.TempDir(), t.TempDir(), dirStore(t)
			path, backup := filepath.Join(dir, "audit.jsonl"), filepath.Join(t.TempDir(), "keys.tar")
			o := Options{StateDir: state, Encrypt: kind == "encrypted"}
			trail := archivedTrail(t, path, o)
			want := actionsOf(t, trail)
			if _, err := trail.BackupKeys(t.Context(), backup, 0); err != nil {
				t.Fatal(err)
			}
			s, err := trail.Archive(t.Context(), store, nil)
			if err != nil {
				t.Fatal(err)
			}
			if s.Exposed != 0 || s.Lines == 0 || s.Sealed == 0 || s.Backlog != 0 {
				t.Errorf("after archiving: %+v", s)
			}
			recordSome(t, trail, 900, 5)
			if s, err = trail.ArchiveState(t.Context()); err != nil || s.Exposed < 5 || s.Backlog == 0 {
				t.Errorf("with five more: %+v, %v", s, err)
			}
			if s, err = trail.Archive(t.Context(), store, nil); err != nil || s.Exposed != 0 {
				t.Fatalf("archived again: %+v, %v", s, err)
			}
			want = append(want, "tool_use:900", "tool_use:901", "tool_use:902", "tool_use:903", "tool_use:904")
			if err := trail.Close(); err != nil {
				t.Fatal(err)
			}
			noSecrets(t, store)

			v, err := VerifyArchive(t.Context(), store, &RestoreOptions{StateDir: state})
			if err != nil || v.Lines != s.Lines || v.Size != s.Checkpoint || v.Segments != 2 || v.Anchor != verify.AnchorPinned || v.Missing != nil {
				t.Fatalf("verify archive: %+v, %v", v, err)
			}
			if err := errors.Join(os.RemoveAll(filepath.Join(dir, "audit.trail")), os.Remove(path)); err != nil {
				t.Fatal(err)
			}

			r, err := Restore(t.Context(), path, store, &RestoreOptions{StateDir: state})
			if err != nil {
				t.Fatal(err)
			}
			if r.Writable || r.Missing != nil || r.Lines != s.Lines {
				t.Errorf("restored: %+v", r)
			}
			report := intactAt(t, path, state)
			if report.Size != v.Size || report.Root != v.Root {
				t.Errorf("verify says %+v, the archive %+v", report, v)
			}
			if _, err := Open(path, &Options{StateDir: state}); err == nil || !strings.Contains(err.Error(), "can be read and verified") {
				t.Errorf("opened to write without a key: %v", err)
			}
			if _, err := RestoreKeys(path, backup); err != nil {
				t.Fatal(err)
			}
			if trail, err = Open(path, &Options{StateDir: state}); err != nil {
				t.Fatal(err)
			}
			if got := actionsOf(t, trail); !slices.Equal(got, want) {
				t.Errorf("%d entries came back of %d", len(got), len(want))
			}
			recordSome(t, trail, 905, 10)
			if s, err = trail.Archive(t.Context(), store, nil); err != nil || s.Exposed != 0 {
				t.Errorf("archived after a restore: %+v, %v", s, err)
			}
			if err := trail.Close(); err != nil {
				t.Fatal(err)
			}
			intactAt(t, path, state)
			if v, err = VerifyArchive(t.Context(), store, &RestoreOptions{StateDir: state}); err != nil || v.Lines != s.Lines {
				t.Errorf("verify archive: %+v, %v", v, err)
			}
		})
	}
}

// noSecrets looks into all that was archived.
func noSecrets(t testing.TB, store archive.Store) {
	t.Helper()
	err := store.List(t.Context(), "", func(i archive.Info) error {
		if strings.HasPrefix(i.Name, "keys/") && i.Name != "keys/deks.json" || strings.HasPrefix(i.Name, "identity/") {
			t.Errorf("%s is archived", i.Name)
		}
		r, err := store.Get(t.Context(), i.Name, 0)
		if err != nil {
			return err
		}
		data, err := io.ReadAll(r)
		if bytes.Contains(data, []byte("PRIVATE+KEY")) {
			t.Errorf("%s has a signing key", i.Name)
		}
		return errors.Join(err, r.Close())
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestRestoreGoesToAnEmptyPlaceOnly(t *testing.T) {
	dir, state, store := t.TempDir(), t.TempDir(), dirStore(t)
	path := filepath.Join(dir, "audit.jsonl")
	trail := archivedTrail(t, path, Options{StateDir: state})
	if _, err := trail.Archive(t.Context(), store, nil); err != nil {
		t.Fatal(err)
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(t.Context(), path, store, &RestoreOptions{StateDir: state}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("restored over a trail: %v", err)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the log was changed: %v", err)
	}
	if _, err := Restore(t.Context(), filepath.Join(dir, "other.jsonl"), dirStore(t), &RestoreOptions{StateDir: state}); !errors.Is(err, ErrNotFound) {
		t.Errorf("restored from nothing: %v", err)
	}
}

func TestAnInterruptedRestoreIsNoTrailAndGoesOn(t *testing.T) {
	dir, state, store := t.TempDir(), t.TempDir(), dirStore(t)
	path := filepath.Join(dir, "audit.jsonl")
	trail := archivedTrail(t, path, Options{StateDir: state})
	if _, err := trail.Archive(t.Context(), store, nil); err != nil {
		t.Fatal(err)
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), "audit.jsonl")
	for after := int64(0); ; after++ {
		ctx, cancel := context.WithCancel(t.Context())
		gets := &stopping{Store: store, stop: cancel}
		gets.left.Store(after)
		_, err := Restore(ctx, to, gets, &RestoreOptions{StateDir: state})
		cancel()
		if err == nil {
			if after < 5 {
				t.Errorf("only %d steps were interrupted", after)
			}
			break
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if _, err := os.Stat(strings.TrimSuffix(to, ".jsonl") + ".trail"); err != nil {
			continue // nothing was begun
		}
		if _, err := Open(to, &Options{StateDir: state}); !errors.Is(err, ErrDamaged) {
			t.Fatalf("half a restore was opened: %v", err)
		}
		if _, err := Open(to, &Options{StateDir: state, ReadOnly: true}); !errors.Is(err, ErrDamaged) {
			t.Fatalf("half a restore was read: %v", err)
		}
	}
	intactAt(t, to, state)
}

// stopping interrupts its caller after some objects.
type stopping struct {
	archive.Store
	left atomic.Int64
	stop func()
}

func (s *stopping) Get(ctx context.Context, name string, offset int64) (io.ReadCloser, error) {
	if s.left.Add(-1) < 0 {
		s.stop()
		return nil, ctx.Err()
	}
	return s.Store.Get(ctx, name, offset)
}

func TestWhatIsWrongWithAnArchiveIsNamed(t *testing.T) {
	state, whole := t.TempDir(), dirStore(t)
	trail := archivedTrail(t, filepath.Join(t.TempDir(), "audit.jsonl"), Options{StateDir: state})
	if _, err := trail.Archive(t.Context(), whole, nil); err != nil {
		t.Fatal(err)
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func(t *testing.T, root string){
		"a segment":            func(t *testing.T, root string) { flipIn(t, root, "segments/*") },
		"the digests":          func(t *testing.T, root string) { flipIn(t, root, "tile/packed/*") },
		"a line of the tail":   func(t *testing.T, root string) { flipIn(t, root, "tail/*") },
		"the checkpoint":       func(t *testing.T, root string) { flipIn(t, root, "checkpoint") },
		"a kept checkpoint":    func(t *testing.T, root string) { flipIn(t, root, "checkpoints/*") },
		"digests that are cut": func(t *testing.T, root string) { cutIn(t, root, "tile/packed/*") },
	} {
		t.Run(name, func(t *testing.T) {
			store := dirStore(t)
			root := strings.TrimPrefix(store.URL(), "file://")
			if err := os.CopyFS(root, os.DirFS(strings.TrimPrefix(whole.URL(), "file://"))); err != nil {
				t.Fatal(err)
			}
			damage(t, root)
			if v, err := VerifyArchive(t.Context(), store, &RestoreOptions{StateDir: state}); !errors.Is(err, ErrDamaged) {
				t.Errorf("verify archive: %+v, %v", v, err)
			}
			to := filepath.Join(t.TempDir(), "audit.jsonl")
			if _, err := Restore(t.Context(), to, store, &RestoreOptions{StateDir: state}); !errors.Is(err, ErrDamaged) {
				t.Errorf("restore: %v", err)
			}
			if _, err := Open(to, &Options{StateDir: state, ReadOnly: true}); err == nil {
				t.Error("what was damaged is a trail")
			}
		})
	}
}

func change(t *testing.T, root, pattern string, f func([]byte) []byte) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(pattern)))
	if err != nil || len(found) == 0 {
		t.Fatalf("%s: %v", pattern, err)
	}
	data, err := os.ReadFile(found[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(found[0]), os.WriteFile(found[0], f(data), 0o400)); err != nil {
		t.Fatal(err)
	}
}

func flipIn(t *testing.T, root, pattern string) {
	change(t, root, pattern, func(data []byte) []byte { data[len(data)/2] ^= 1; return data })
}

func cutIn(t *testing.T, root, pattern string) {
	change(t, root, pattern, func(data []byte) []byte { return data[:len(data)-32] })
}

func TestWhereTheArchiveLacksTheEndASuccessorBegins(t *testing.T) {
	dir, state, store := t.TempDir(), t.TempDir(), dirStore(t)
	path := filepath.Join(dir, "audit.jsonl")
	sent := filepath.Join(t.TempDir(), "checkpoints")
	trail := archivedTrail(t, path, Options{StateDir: state, CheckpointTo: []string{sent}})
	s, err := trail.Archive(t.Context(), store, nil)
	if err != nil {
		t.Fatal(err)
	}
	recordSome(t, trail, 900, 40)
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	anchors, err := os.ReadFile(sent)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.RemoveAll(filepath.Join(dir, "audit.trail")), os.Remove(path)); err != nil {
		t.Fatal(err)
	}
	r, err := Restore(t.Context(), path, store, &RestoreOptions{StateDir: state, Checkpoint: anchors, Successor: Options{StateDir: state}})
	if err != nil {
		t.Fatal(err)
	}
	if r.Missing == nil || r.Missing.First != s.Lines || r.Missing.Count < 40 || r.Successor == "" || r.Successor == r.Origin || !r.Writable {
		t.Errorf("%+v, missing %+v", r, r.Missing)
	}
	intactAt(t, path, state)
	old, err := filepath.Glob(filepath.Join(dir, "audit.*.jsonl"))
	if err != nil || len(old) != 1 {
		t.Fatalf("%v, %v", old, err)
	}
	if got := intactAt(t, old[0], state); got.Size != r.Size {
		t.Errorf("the old trail has %d entries under its checkpoint, want %d", got.Size, r.Size)
	}
	first, err := os.ReadFile(path)
	if err != nil || !bytes.Contains(first, fmt.Appendf(nil, `"missing":{"first":%d,"count":%d}`, r.Missing.First, r.Missing.Count)) {
		t.Errorf("entry 0 does not say what is missing: %v", err)
	}
}

func TestACopyOfATrailThatWentOnIsToldByTheArchive(t *testing.T) {
	dir, state, store := t.TempDir(), t.TempDir(), dirStore(t)
	path, other := filepath.Join(dir, "audit.jsonl"), filepath.Join(t.TempDir(), "audit.jsonl")
	trail := archivedTrail(t, path, Options{StateDir: state})
	if _, err := trail.Archive(t.Context(), store, nil); err != nil {
		t.Fatal(err)
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Dir(other), os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	for i, p := range []string{path, other} {
		trail, err := Open(p, &Options{StateDir: state})
		if err != nil {
			t.Fatal(err)
		}
		recordSome(t, trail, 1000*i, 10+i)
		_, err = trail.Archive(t.Context(), store, nil)
		if i == 0 && err != nil {
			t.Fatal(err)
		}
		if i == 1 && !errors.Is(err, ErrForked) {
			t.Errorf("the second of two copies was archived: %v", err)
		}
		if err := trail.Close(); err != nil {
			t.Fatal(err)
		}
	}
	// Another trail altogether.
	another := archivedTrail(t, filepath.Join(t.TempDir(), "another.jsonl"), Options{StateDir: state})
	if _, err := another.Archive(t.Context(), store, nil); !errors.Is(err, ErrForked) {
		t.Errorf("another trail was archived to the same place: %v", err)
	}
	if err := another.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := VerifyArchive(t.Context(), store, &RestoreOptions{StateDir: state}); err != nil {
		t.Error(err)
	}
}

func TestWhatWasPrunedFromAnArchiveLeavesItsProof(t *testing.T) {
	state, store := t.TempDir(), dirStore(t)
	trail := archivedTrail(t, filepath.Join(t.TempDir(), "audit.jsonl"), Options{StateDir: state})
	s, err := trail.Archive(t.Context(), store, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(strings.TrimPrefix(store.URL(), "file://"), "segments", "00000000000000000000.jsonl.zst")); err != nil {
		t.Fatal(err)
	}
	v, err := VerifyArchive(t.Context(), store, &RestoreOptions{StateDir: state})
	if err != nil || len(v.Pruned) != 1 || v.Pruned[0].First != 0 || v.Pruned[0].Count < 300 || v.Lines != s.Lines || v.Segments != 1 {
		t.Fatalf("%+v, %v", v, err)
	}
	to := filepath.Join(t.TempDir(), "audit.jsonl")
	if _, err := Restore(t.Context(), to, store, &RestoreOptions{StateDir: state}); err != nil {
		t.Fatal(err)
	}
	// No entry says that it was pruned: the trail says that it is missing.
	r, err := VerifyPath(t.Context(), to, &VerifyOptions{StateDir: state})
	if err != nil || r.Status != verify.Damaged || r.Problem != verify.Missing || r.FirstBad == nil || *r.FirstBad != 0 {
		t.Errorf("verify: %+v, %v", r, err)
	}
}

func TestTheRateIsKept(t *testing.T) {
	state, store := t.TempDir(), dirStore(t)
	trail := archivedTrail(t, filepath.Join(t.TempDir(), "audit.jsonl"), Options{StateDir: state})
	defer trail.Close()
	began := time.Now()
	if _, err := trail.Archive(t.Context(), store, &ArchiveOptions{Rate: 256 << 10}); err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	sent := int64(0)
	if err := store.List(t.Context(), "", func(i archive.Info) error { sent += i.Size; return nil }); err != nil {
		t.Fatal(err)
	}
	// The last piece is not waited for.
	if least := time.Duration(float64(sent-100_000) / (256 << 10) * float64(time.Second)); sent < 110_000 || took < least {
		t.Errorf("%d bytes went in %s, faster than in %s", sent, took, least)
	}
}
