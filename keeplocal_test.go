package audit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kaizen-audit/kaizen-audit/archive"
	"github.com/kaizen-audit/kaizen-audit/internal/archiver"
	"github.com/kaizen-audit/kaizen-audit/internal/verify"
)

// setClock is a clock that a test moves.
type setClock struct{ ahead atomic.Int64 }

func (c *setClock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

func (c *setClock) add(d time.Duration) { c.ahead.Add(int64(d)) }

// awayTrail is a trail of which both sealed segments are in the archive only.
func awayTrail(t *testing.T, o Options) (trail *Trail, store *archive.Dir, want []string, path string) {
	t.Helper()
	store = dirStore(t)
	o.RetentionDays, o.NoSocket = 365, true
	path = filepath.Join(t.TempDir(), "audit.jsonl")
	trail = archivedTrail(t, path, o)
	want = actionsOf(t, trail)
	letAllGo(t, trail, store)
	return trail, store, want, path
}

// letAllGo archives a trail and lets go of all its sealed segments.
func letAllGo(t *testing.T, trail *Trail, store archive.Store) {
	t.Helper()
	_, err := trail.Archive(t.Context(), store, nil)
	trail.opts.ArchiveTo, trail.opts.ArchiveKeepLocal = store, time.Nanosecond
	if err = errors.Join(err, trail.letGo(t.Context(), store)); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(trail.dir, "segments", "*.zst")); len(left) > 0 {
		t.Fatalf("still here: %v", left)
	}
}

func cachedFiles(t *testing.T, dir string) (names []string) {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, "cache", "*.zst"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range all {
		fi, err := os.Stat(name)
		if err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, fi.Mode(), err)
		}
		names = append(names, filepath.Base(name))
	}
	return names
}

func TestWhatIsInTheArchiveOnlyIsReadThere(t *testing.T) {
	for _, kind := range []string{"plain", "encrypted", "gdpr"} {
		t.Run(kind, func(t *testing.T) {
			o := Options{StateDir: t.TempDir(), Encrypt: kind == "encrypted"}
			if kind == "gdpr" {
				o.profile = "gdpr"
			}
			trail, store, want, path := awayTrail(t, o)
			if got := actionsOf(t, trail); !slices.Equal(got, want) {
				t.Errorf("%d entries, want %d", len(got), len(want))
			}
			if names := cachedFiles(t, trail.dir); len(names) != 2 {
				t.Errorf("cached: %v", names)
			}
			if s, err := trail.ArchiveState(t.Context()); err != nil || s.Away.Segments != 2 || s.Local.Segments != 0 || s.Away.Bytes == 0 || s.Cached != s.Away.Bytes {
				t.Errorf("state: %+v, %v", s, err)
			}
			if _, err := trail.Prove(t.Context(), 5); err != nil {
				t.Errorf("prove: %v", err)
			}
			if kind == "gdpr" {
				if _, err := trail.EraseUser(t.Context(), "user-1", &EraseOptions{Reason: "asked"}); err != nil {
					t.Errorf("erase: %v", err)
				}
			}
			hold, err := trail.AddHold(t.Context(), HoldRequest{Agent: "agent-1", Reason: "case"})
			if err != nil || len(hold.Ranges) == 0 || hold.Ranges[0].First != 0 {
				t.Errorf("a hold on what is away: %+v, %v", hold, err)
			}
			if s, err := trail.Archive(t.Context(), store, nil); err != nil || s.Exposed != 0 {
				t.Errorf("archived on: %+v, %v", s, err)
			}
			// Another archive gets all of it, what is here only there included.
			if s, err := trail.Archive(t.Context(), dirStore(t), nil); err != nil || s.Exposed != 0 {
				t.Errorf("to another archive: %+v, %v", s, err)
			}
			if err := trail.Close(); err != nil {
				t.Fatal(err)
			}
			report := intactAt(t, path, o.StateDir)
			if len(report.FromArchive) != 2 || report.FromArchive[0] != 0 {
				t.Errorf("read from the archive: %v", report.FromArchive)
			}
			if r, err := VerifyPath(t.Context(), path, &VerifyOptions{StateDir: o.StateDir}); err != nil || r.Uncovered != 0 {
				t.Errorf("%+v, %v", r, err)
			}
			// Opened again, with manifest and cache gone, by a reader and by a writer.
			if err := errors.Join(os.Remove(filepath.Join(trail.dir, "manifest")), os.RemoveAll(filepath.Join(trail.dir, "cache"))); err != nil {
				t.Fatal(err)
			}
			for _, readOnly := range []bool{true, false} {
				o := Options{StateDir: o.StateDir, ReadOnly: readOnly, NoSocket: true}
				again, err := Open(path, &o)
				if err != nil {
					t.Fatal(err)
				}
				got := actionsOf(t, again)
				if kind != "gdpr" && !slices.Equal(got, want) || len(got) != len(want) {
					t.Errorf("opened again: %d entries, want %d", len(got), len(want))
				}
				if err := again.Close(); err != nil {
					t.Error(err)
				}
			}
			intactAt(t, path, o.StateDir)
		})
	}
}

// What the archive does not have as it is here, or does not keep as long as it is
// owed, stays.
func TestNothingIsLetGoThatTheArchiveDoesNotHave(t *testing.T) {
	trail := archivedTrail(t, filepath.Join(t.TempDir(), "audit.jsonl"), Options{StateDir: t.TempDir(), RetentionDays: 365, NoSocket: true})
	defer trail.Close()
	store := dirStore(t)
	trail.opts.ArchiveTo, trail.opts.ArchiveKeepLocal = store, time.Nanosecond
	stays := func(why string, want error) {
		t.Helper()
		if err := trail.letGo(t.Context(), store); !errors.Is(err, want) {
			t.Errorf("%s: %v", why, err)
		}
		if here, _ := filepath.Glob(filepath.Join(trail.dir, "segments", "*.zst")); len(here) != 2 {
			t.Fatalf("%s: %d files are here", why, len(here))
		}
	}
	stays("nothing is archived", os.ErrNotExist)
	if _, err := trail.Archive(t.Context(), store, nil); err != nil {
		t.Fatal(err)
	}
	// A longer period since, which the archive's date does not reach.
	if err := trail.SetRetention(t.Context(), 3650, false); err != nil {
		t.Fatal(err)
	}
	stays("it is owed longer", archiver.ErrNotKept)
	trail.opts.ArchiveKeepLocal = time.Hour
	stays("it is young", nil)
	// The machine dies between the reference and the file: the file counts.
	for _, s := range trail.journal.Segments() {
		r, _, err := trail.referTo(t.Context(), s)
		r.From = store.URL()
		if err = errors.Join(err, archiver.Refer(trail.dir, r)); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(actionsOf(t, trail)); got != 900 || len(cachedFiles(t, trail.dir)) > 0 {
		t.Errorf("%d entries; cached: %v", got, cachedFiles(t, trail.dir))
	}

	other := archivedTrail(t, filepath.Join(t.TempDir(), "audit.jsonl"), Options{StateDir: t.TempDir(), RetentionDays: 365, NoSocket: true})
	defer other.Close()
	trail, store = other, dirStore(t)
	if _, err := trail.Archive(t.Context(), store, nil); err != nil {
		t.Fatal(err)
	}
	trail.opts.ArchiveTo, trail.opts.ArchiveKeepLocal = store, time.Nanosecond
	flipIn(t, strings.TrimPrefix(store.URL(), "file://"), "segments/00000000000000000000*")
	stays("it was changed there", ErrDamaged)
}

// Whatever lies in the cache, or comes from the archive, is checked; what can't be
// reached is named.
func TestWhatIsFetchedIsChecked(t *testing.T) {
	state := t.TempDir()
	trail, store, want, path := awayTrail(t, Options{StateDir: state})
	root := strings.TrimPrefix(store.URL(), "file://")
	first := filepath.Join(trail.dir, "cache", fmt.Sprintf("%020d.jsonl.zst", 0))
	whole := func(why string) {
		t.Helper()
		if got := actionsOf(t, trail); !slices.Equal(got, want) {
			t.Errorf("%s: %d entries, want %d", why, len(got), len(want))
		}
	}
	whole("fetched")
	// A file of the cache that was changed, cut off, or is another segment's.
	for why, spoil := range map[string]func([]byte) []byte{
		"changed": func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"cut off": func(b []byte) []byte { return b[:len(b)/2] },
		"empty":   func([]byte) []byte { return nil },
	} {
		data, err := os.ReadFile(first)
		if err == nil {
			err = os.WriteFile(first, spoil(data), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		whole(why)
	}
	// What a fetch left that was killed is removed by the next one.
	left := filepath.Join(trail.dir, "cache", "123"+".part")
	if err := errors.Join(os.WriteFile(left, []byte("x"), 0o600), os.Remove(first)); err != nil {
		t.Fatal(err)
	}
	whole("after a fetch that was killed")
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
	// The archive is away: what is cached is read, the rest is named.
	if err := errors.Join(os.Rename(root, root+".away"), os.Remove(first)); err != nil {
		t.Fatal(err)
	}
	var gap *GapError
	n := 0
	for _, err := range trail.Query(context.Background(), Query{}) {
		if err == nil {
			n++
		} else if !errors.As(err, &gap) || errors.Is(err, ErrDamaged) {
			t.Fatal(err)
		}
	}
	if gap == nil || gap.First != 0 || n == 0 || !strings.Contains(gap.Error(), "is in the archive") || !strings.Contains(gap.Error(), store.URL()) || !strings.Contains(gap.Error(), "see to it that the archive can be reached") {
		t.Errorf("%d entries, and %v", n, gap)
	}
	if r, err := VerifyPath(t.Context(), path, &VerifyOptions{StateDir: state}); err == nil || r == nil || r.Status != verify.Unreadable || !strings.Contains(err.Error(), "segments/00000000000000000000.jsonl.zst") || strings.Contains(err.Error(), "create-bucket") {
		t.Errorf("verify without the archive: %+v, %v", r, err)
	}
	if err := os.Rename(root+".away", root); err != nil {
		t.Fatal(err)
	}
	again, err := Open(path, &Options{StateDir: state, ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := actionsOf(t, again); !slices.Equal(got, want) {
		t.Errorf("the archive is back: %d entries, want %d", len(got), len(want))
	}
	if err := errors.Join(again.Close(), os.Remove(first)); err != nil {
		t.Fatal(err)
	}
	// A reference that leaves an entry of the trail out.
	ref, err := archiver.ReadReference(trail.dir, 0)
	less := ref
	less.Own = ref.Own[:0]
	if err = errors.Join(err, archiver.Refer(trail.dir, less)); err != nil {
		t.Fatal(err)
	}
	if r, err := VerifyPath(t.Context(), path, &VerifyOptions{StateDir: state}); err != nil || r.Status != verify.Damaged || r.Artefact != verify.Segment || *r.FirstBad != 0 {
		t.Errorf("verify with a reference that lacks entry 0: %+v, %v", r, err)
	}
	if err := archiver.Refer(trail.dir, ref); err != nil {
		t.Fatal(err)
	}
	// What was exchanged there is damage.
	if err := os.Remove(first); err != nil {
		t.Fatal(err)
	}
	flipIn(t, root, "segments/00000000000000000000*")
	if r, err := VerifyPath(t.Context(), path, &VerifyOptions{StateDir: state}); err != nil || r.Status != verify.Damaged || *r.FirstBad != 0 {
		t.Errorf("verify with another archive: %+v, %v", r, err)
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
}

// The cache keeps what was used last, and never more than its limit.
func TestTheCacheIsBounded(t *testing.T) {
	state := t.TempDir()
	trail, _, want, _ := awayTrail(t, Options{StateDir: state})
	defer trail.Close()
	biggest := int64(0)
	for _, s := range trail.journal.Segments() {
		biggest = max(biggest, s.Stored)
	}
	for _, limit := range []int64{biggest, biggest - 1 - biggest/2} {
		trail.fetched.cache.Limit = limit
		for range 2 {
			if got := actionsOf(t, trail); !slices.Equal(got, want) {
				t.Fatalf("%d entries, want %d", len(got), len(want))
			}
			if n := archiver.Cached(trail.dir); n > limit {
				t.Errorf("%d bytes are cached, of %d", n, limit)
			}
		}
	}
}

func TestAPruneTakesWhatIsInTheArchiveOnly(t *testing.T) {
	clock := &setClock{}
	state := t.TempDir()
	trail, _, _, path := awayTrail(t, Options{StateDir: state, now: clock.now})
	actionsOf(t, trail)
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second day agrees with the first
		clock.add(366 * 24 * time.Hour)
		var err error
		if trail, err = Open(path, &Options{StateDir: state, now: clock.now, NoSocket: true}); err != nil {
			t.Fatal(err)
		}
		recordSome(t, trail, 900, 1)
		if err := trail.Close(); err != nil {
			t.Fatal(err)
		}
	}
	trail, err := Open(path, &Options{StateDir: state, now: clock.now, NoSocket: true})
	if err != nil {
		t.Fatal(err)
	}
	r, err := trail.Prune(t.Context(), nil)
	if err != nil || r.Pruned.Segments < 2 {
		t.Fatalf("%+v, %v", r, err)
	}
	if left, _ := filepath.Glob(filepath.Join(trail.dir, "segments", "*.archived")); len(left) > 0 {
		t.Errorf("still named: %v", left)
	}
	if left := cachedFiles(t, trail.dir); len(left) > 0 {
		t.Errorf("still cached: %v", left)
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	intactAt(t, path, state)
}
