package audit

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/kaizen-audit/kaizen-audit/internal/verify"
)

// expire has a directory's archive forget how long it keeps its segments.
func expire(t *testing.T, root string) {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(root, ".objects", "segments", "*.json"))
	if err != nil || len(all) == 0 {
		t.Fatal(all, err)
	}
	date := regexp.MustCompile(`"retain_until":"[^"]*"`)
	for _, name := range all {
		text, err := os.ReadFile(name)
		if err == nil {
			err = os.WriteFile(name, date.ReplaceAll(text, []byte(`"retain_until":"2020-01-01T00:00:00Z"`)), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// What the trail has pruned goes from the archive once its date is over there, no
// sooner, and not what is held; the archive still restores.
func TestAnArchiveIsPrunedWhenItsDatesAreOver(t *testing.T) {
	clock, state, store := &setClock{}, t.TempDir(), dirStore(t)
	root := strings.TrimPrefix(store.URL(), "file://")
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	o := Options{StateDir: state, now: clock.now, NoSocket: true, RetentionDays: 365, RotationInterval: RotateNever}
	trail := archivedTrail(t, path, o)
	if _, err := trail.Archive(t.Context(), store, nil); err != nil {
		t.Fatal(err)
	}
	reopen := func() {
		t.Helper()
		if err := trail.Close(); err != nil {
			t.Fatal(err)
		}
		var err error
		if trail, err = Open(path, &o); err != nil {
			t.Fatal(err)
		}
	}
	archived := func() int {
		t.Helper()
		all, err := filepath.Glob(filepath.Join(root, "segments", "*.zst"))
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	r, err := trail.PruneArchive(t.Context(), store, false)
	if err != nil || len(r.Segments) != 0 || r.Removed.Said >= 0 {
		t.Fatalf("nothing was pruned yet: %+v, %v", r, err)
	}
	for range 2 { // the second day agrees with the first
		clock.add(366 * 24 * time.Hour)
		reopen()
		recordSome(t, trail, 900, 1)
	}
	reopen()
	if p, err := trail.Prune(t.Context(), nil); err != nil || p.Pruned.Segments != 2 {
		t.Fatalf("%+v, %v", p, err)
	}
	// The trail's clock says that they are due; that of the archive does not.
	if r, err = trail.PruneArchive(t.Context(), store, false); err != nil || r.Removed.Segments != 0 || len(r.Segments) != 2 || r.Segments[0].Why == "" || archived() != 2 {
		t.Fatalf("before their date: %+v, %v", r, err)
	}
	expire(t, root)
	held := "segments/00000000000000000000.jsonl.zst"
	if err := store.Hold(t.Context(), held, true); err != nil {
		t.Fatal(err)
	}
	if r, err = trail.PruneArchive(t.Context(), store, true); err != nil || r.Removed.Segments != 0 || r.Segments[0].Why != "a legal hold is on it" || r.Segments[1].Why != "" || archived() != 2 {
		t.Fatalf("dry run: %+v, %v", r, err)
	}
	if r, err = trail.PruneArchive(t.Context(), store, false); err != nil || r.Removed.Segments != 1 || r.Removed.Entries != r.Segments[1].Count || archived() != 1 {
		t.Fatalf("one is held: %+v, %v", r, err)
	}
	view, err := trail.view()
	if err != nil {
		t.Fatal(err)
	}
	line, err := view.Line(t.Context(), r.Removed.Said)
	if err = errors.Join(err, view.Close()); err != nil || !strings.Contains(string(line), `"archive_pruned"`) || !strings.Contains(string(line), `"ranges":[{"first":301,"count":301}]`) {
		t.Errorf("%s, %v", line, err)
	}
	if err := store.Hold(t.Context(), held, false); err != nil {
		t.Fatal(err)
	}
	expire(t, root)
	// A holder that archives does it by itself.
	trail.opts.ArchiveTo = store
	trail.archiving = &archiving{pusher: trail.pusher(store, 0), stop: func() {}}
	if trail.pruneByItself(); archived() != 0 {
		t.Fatal("the hold is lifted, and it is still there")
	}
	if _, err := trail.Archive(t.Context(), store, nil); err != nil {
		t.Fatal(err)
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), "audit.jsonl")
	if _, err := Restore(t.Context(), to, store, &RestoreOptions{StateDir: state}); err != nil {
		t.Fatal(err)
	}
	v := intactAt(t, to, state)
	if len(v.Ranges) == 0 || v.Ranges[0].State != "pruned" || v.Status != verify.Intact {
		t.Errorf("restored: %+v", v.Ranges)
	}
	// Another trail's archive is left alone.
	other := archivedTrail(t, filepath.Join(t.TempDir(), "other.jsonl"), Options{StateDir: state, NoSocket: true})
	if _, err := other.PruneArchive(t.Context(), store, false); !errors.Is(err, ErrForked) {
		t.Errorf("another trail's archive: %v", err)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
}
