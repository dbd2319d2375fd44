package audit

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kaizen-audit/kaizen-audit/internal/verify"
)

// A trail that was taken back together with its checkpoint, and all that lies beside
// it, meets what was archived: at the opening, and in verify.
func TestRollbackIsCaughtByTheArchive(t *testing.T) {
	dir, store := t.TempDir(), dirStore(t)
	path, before := filepath.Join(dir, "audit.jsonl"), filepath.Join(t.TempDir(), "audit.jsonl")
	o := &Options{StateDir: t.TempDir(), ArchiveTo: store, NoSocket: true}
	recordOne(t, path, o)
	copyTrail(t, path, before)
	recordOne(t, path, o)
	vo := &VerifyOptions{StateDir: o.StateDir, Archive: store}
	r, err := VerifyPath(t.Context(), path, vo)
	if err != nil || r.Status != verify.Intact || r.Anchor != verify.AnchorPinned {
		t.Fatalf("%+v, %v", r, err) // a directory is within the writer's reach
	}
	copyTrail(t, before, path)
	if _, err := Open(path, o); !errors.Is(err, ErrForked) || !strings.Contains(err.Error(), store.URL()) {
		t.Errorf("opened: %v", err)
	}
	if r, err := VerifyPath(t.Context(), path, vo); err != nil || r.Status != verify.Damaged || r.Problem != verify.Truncated {
		t.Errorf("%+v, %v", r, err)
	}
	// Another history of the same length and more.
	recordOne(t, path, &Options{StateDir: o.StateDir, NoSocket: true})
	recordOne(t, path, &Options{StateDir: o.StateDir, NoSocket: true})
	if _, err := Open(path, o); !errors.Is(err, ErrForked) {
		t.Errorf("opened with another history: %v", err)
	}
	if r, err := VerifyPath(t.Context(), path, vo); err != nil || r.Status != verify.Damaged {
		t.Errorf("%+v, %v", r, err)
	}
	// An archive that is away keeps nothing from being recorded.
	copyTrail(t, before, path)
	root := strings.TrimPrefix(store.URL(), "file://")
	if err := os.Rename(root, root+".away"); err != nil {
		t.Fatal(err)
	}
	var warned error
	trail, err := Open(path, &Options{StateDir: o.StateDir, ArchiveTo: store, NoSocket: true, Warn: func(err error) { warned = errors.Join(warned, err) }})
	if err != nil {
		t.Fatal(err)
	}
	if trail.Close(); warned == nil || !strings.Contains(warned.Error(), "archive") {
		t.Errorf("warned: %v", warned)
	}
}

// Of a trail and a copy of it that both go on, one at least stops.
func TestACloneThatRunsIsStoppedByTheArchive(t *testing.T) {
	store, state := dirStore(t), t.TempDir()
	path, clone := filepath.Join(t.TempDir(), "audit.jsonl"), filepath.Join(t.TempDir(), "audit.jsonl")
	o := Options{StateDir: state, ArchiveTo: store, ArchiveEvery: 100 * time.Millisecond, NoSocket: true, RotationInterval: RotateNever}
	recordOne(t, path, &o)
	copyTrail(t, path, clone)
	var both [2]*Trail
	// Neither can compare when it opens: the archive is away.
	root := strings.TrimPrefix(store.URL(), "file://")
	if err := os.Rename(root, root+".away"); err != nil {
		t.Fatal(err)
	}
	for i, p := range []string{path, clone} {
		trail, err := Open(p, &o)
		if err != nil {
			t.Fatal(err)
		}
		defer trail.Close()
		both[i] = trail
	}
	if err := os.Rename(root+".away", root); err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); time.Since(began) < 20*time.Second; time.Sleep(20 * time.Millisecond) {
		for i, trail := range both {
			_, err := trail.Record(t.Context(), personalEvent("mia", []string{"here", "there"}[i]))
			if errors.Is(err, ErrForked) {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Error("both go on")
}

// What a witness has seen beyond the archive makes a restored trail end there.
func TestARestoreAsksTheAnchors(t *testing.T) {
	path, o := anchoredTrail(t, "witness")
	store := dirStore(t)
	trail, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	recordSome(t, trail, 0, 20)
	s, err := trail.Archive(t.Context(), store, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), "audit.jsonl")
	v, err := VerifyArchive(t.Context(), store, &RestoreOptions{StateDir: t.TempDir(), Anchors: o.Anchors})
	if err != nil || v.Missing == nil || v.Missing.First != s.Lines {
		t.Fatalf("%+v, %v", v, err)
	}
	r, err := Restore(t.Context(), to, store, &RestoreOptions{StateDir: t.TempDir(), Anchors: o.Anchors, NewKey: true, Successor: Options{StateDir: t.TempDir(), NoSocket: true}})
	if err != nil || r.Missing == nil || r.Successor == "" || r.NewKey != "" {
		t.Errorf("%+v, %v", r, err)
	}
	// Once all of it is archived, the witness vouches for it.
	if trail, err = Open(path, o); err != nil {
		t.Fatal(err)
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	if trail, err = Open(path, &Options{StateDir: o.StateDir, ReadOnly: true}); err != nil {
		t.Fatal(err)
	}
	if _, err = trail.Archive(t.Context(), store, nil); err != nil {
		t.Fatal(err)
	}
	if v, err = VerifyArchive(t.Context(), store, &RestoreOptions{StateDir: t.TempDir(), Anchors: o.Anchors}); err != nil || v.Missing != nil || v.Anchor != verify.AnchorWitness {
		t.Errorf("%+v, %v", v, err)
	}
}
