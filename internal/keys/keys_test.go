package keys_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/durable/durabletest"
	"github.com/kaizen-audit/kaizen-audit/internal/keys"
	"github.com/kaizen-audit/kaizen-audit/internal/seal"
	"github.com/kaizen-audit/kaizen-audit/kms"
)

var ctx = context.Background()

var mac = bytes.Repeat([]byte{9}, 32)

func kek(t testing.TB, b byte) *kms.Local {
	t.Helper()
	k, err := kms.NewLocal(bytes.Repeat([]byte{b}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func options(t testing.TB, fsys durable.FS) keys.Options {
	return keys.Options{FS: fsys, Dir: "/keys", Origin: "example.com/log", KEK: kek(t, 1)}
}

// create makes a store on a file system in memory and opens it.
func create(t testing.TB, fsys durable.FS) *keys.Store {
	t.Helper()
	o := options(t, fsys)
	if err := fsys.Mkdir(o.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := keys.Create(ctx, o, mac); err != nil {
		t.Fatal(err)
	}
	return open(t, o)
}

func open(t testing.TB, o keys.Options) *keys.Store {
	t.Helper()
	s, err := keys.Open(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func subject(t testing.TB, s *keys.Store, kind keys.Kind, id string) seal.Subject {
	t.Helper()
	sub, err := s.Subject(kind, id)
	if err == nil {
		err = s.Sync()
	}
	if err != nil {
		t.Fatal(err)
	}
	return sub
}

func TestSubjectKeepsItsHandleAcrossOpenings(t *testing.T) {
	fsys := durabletest.NewMem()
	s := create(t, fsys)
	mia, trace := subject(t, s, keys.Person, "mia"), subject(t, s, keys.Trace, "mia")
	if mia.Handle == trace.Handle || bytes.Equal(mia.Key, trace.Key) {
		t.Error("a person and a trace of the same name are one subject")
	}
	if again := subject(t, s, keys.Person, "mia"); again.Handle != mia.Handle {
		t.Error("another handle in the same process")
	}
	s.Close()
	s = open(t, options(t, fsys))
	if again := subject(t, s, keys.Person, "mia"); again.Handle != mia.Handle || !bytes.Equal(again.Key, mia.Key) {
		t.Error("another handle after the opening")
	}
	if key, err := s.Key(trace.Handle); err != nil || !bytes.Equal(key, trace.Key) {
		t.Errorf("by handle: %v", err)
	}
	if _, err := s.Key("AAAAAAAAAAAA"); !errors.Is(err, keys.ErrNoSubject) {
		t.Errorf("an unknown handle: %v", err)
	}
	for _, id := range []string{"", "a\xff"} {
		if _, err := s.Subject(keys.Person, id); err == nil {
			t.Errorf("%q was taken", id)
		}
	}
}

// Many subjects fill pages; each is found, by its handle and by its name, by the
// writer, by a reader that was there before, and by one that comes later.
func TestManySubjectsOverPages(t *testing.T) {
	fsys := durabletest.NewMem()
	s := create(t, fsys)
	o := options(t, fsys)
	o.ReadOnly = true
	early := open(t, o)
	const n = 2*4096 + 100
	handles := make([]string, n)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := w; i < n; i += 4 {
				sub, err := s.Subject(keys.Trace, fmt.Sprint("trace-", i))
				if err == nil && i%512 == 0 {
					err = s.Sync()
				}
				if err != nil {
					t.Error(err)
					return
				}
				handles[i] = sub.Handle
			}
		})
	}
	wg.Wait()
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	files, err := fsys.ReadDir("/keys/subjects")
	if err != nil || len(files) != 3 {
		t.Fatalf("%d pages, %v", len(files), err)
	}
	late := open(t, o)
	for _, r := range []*keys.Store{s, early, late} {
		for i := 0; i < n; i += 97 {
			want, err := s.Key(handles[i])
			if err != nil {
				t.Fatal(err)
			}
			if got, err := r.Key(handles[i]); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("subject %d: %v", i, err)
			}
			if hs, err := r.Find(is(keys.Trace, fmt.Sprint("trace-", i))); i%1000 == 0 && (err != nil || len(hs) != 1 || hs[0].Handle != handles[i]) {
				t.Fatalf("subject %d: %v, %v", i, hs, err)
			}
		}
	}
	if _, err := late.Subject(keys.Person, "mia"); !errors.Is(err, keys.ErrReadOnly) {
		t.Errorf("a reader makes subjects: %v", err)
	}
}

func TestDEKs(t *testing.T) {
	fsys := durabletest.NewMem()
	s := create(t, fsys)
	o := options(t, fsys)
	o.ReadOnly = true
	reader := open(t, o)
	first, key, created, err := s.DEK(ctx)
	if err != nil || created.IsZero() {
		t.Fatal(err)
	}
	second, err := s.RotateDEK(ctx)
	if err != nil || second == first {
		t.Fatalf("%s, %v", second, err)
	}
	if id, other, _, err := s.DEK(ctx); err != nil || id != second || bytes.Equal(key, other) {
		t.Errorf("after the rotation %s, %v", id, err)
	}
	for _, id := range []string{first, second} {
		want, err := s.DEKOf(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := reader.DEKOf(ctx, id); err != nil || !bytes.Equal(got, want) {
			t.Errorf("reader: %v", err)
		}
	}
	if _, err := reader.DEKOf(ctx, "AAAAAAAAAAAA"); !errors.Is(err, keys.ErrNoDEK) {
		t.Errorf("unknown id: %v", err)
	}
}

func TestWrongKEK(t *testing.T) {
	fsys := durabletest.NewMem()
	create(t, fsys)
	o := options(t, fsys)
	o.KEK = kek(t, 2)
	if _, err := keys.Open(ctx, o); !errors.Is(err, kms.ErrWrongKey) {
		t.Errorf("another KEK: %v", err)
	}
	o = options(t, fsys)
	o.Origin = "example.com/other"
	if _, err := keys.Open(ctx, o); !errors.Is(err, kms.ErrWrongKey) {
		t.Errorf("another trail's keys: %v", err)
	}
}

// snapshot gives all files below keys/.
func snapshot(t *testing.T, fsys durable.FS) map[string]string {
	t.Helper()
	all := map[string]string{}
	var walk func(dir string)
	walk = func(dir string) {
		files, err := fsys.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			name := filepath.Join(dir, f.Name())
			if f.IsDir() {
				walk(name)
				continue
			}
			text, err := durable.ReadFile(fsys, name, 1<<30)
			if err != nil {
				t.Fatal(err)
			}
			all[name] = string(text)
		}
	}
	walk("/keys")
	return all
}

func TestErasureDestroysOneSubjectAndNoOther(t *testing.T) {
	fsys := durabletest.NewMem()
	s := create(t, fsys)
	mia, noah := subject(t, s, keys.Person, "mia"), subject(t, s, keys.Person, "noah")
	o := options(t, fsys)
	o.ReadOnly = true
	reader := open(t, o)
	if _, err := reader.Key(mia.Handle); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Begin(keys.Erasing{EventID: "e1", Size: 5, Handles: []string{mia.Handle}}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Begin(keys.Erasing{EventID: "e2", Handles: []string{noah.Handle}}, nil); !errors.Is(err, fs.ErrExist) {
		t.Errorf("two at once: %v", err)
	}
	if err := s.Destroy(ctx); err != nil {
		t.Fatal(err)
	}
	if err := s.Destroy(ctx); err != nil {
		t.Errorf("a second time: %v", err)
	}
	if err := s.End(); err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]*keys.Store{"the writer": s, "an opening": open(t, options(t, fsys)), "a later reader": open(t, o)} {
		if _, err := r.Key(mia.Handle); !errors.Is(err, keys.ErrNoSubject) {
			t.Errorf("%s has the erased key: %v", name, err)
		}
		if key, err := r.Key(noah.Handle); err != nil || !bytes.Equal(key, noah.Key) {
			t.Errorf("%s lost another's key: %v", name, err)
		}
		if hs, err := r.Find(is(keys.Person, "mia")); err != nil || len(hs) > 0 {
			t.Errorf("%s: %v, %v", name, hs, err)
		}
	}
	again := subject(t, s, keys.Person, "mia")
	if again.Handle == mia.Handle || bytes.Equal(again.Key, mia.Key) {
		t.Error("what is new about the person is sealed under the destroyed key")
	}
	for name, text := range snapshot(t, fsys) {
		if strings.Contains(text, mia.Handle) {
			t.Errorf("%s still has the handle", name)
		}
	}
	if s.Epoch() != 2 {
		t.Errorf("epoch %d", s.Epoch())
	}
}

// Old pages beside the new table do not open: what an erasure destroyed stays so
// for whoever kept the pages, and has the KEK and the table of after.
func TestOldPagesDoNotOpenUnderTheNewEpoch(t *testing.T) {
	fsys := durabletest.NewMem()
	s := create(t, fsys)
	mia := subject(t, s, keys.Person, "mia")
	before := snapshot(t, fsys)
	if _, err := s.Begin(keys.Erasing{EventID: "e1", Handles: []string{mia.Handle}}, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Destroy(ctx); err != nil {
		t.Fatal(err)
	}
	// The old page under the new page's name.
	if err := durable.WriteFile(fsys, "/keys/subjects/0-2.jsonl", []byte(before["/keys/subjects/0-1.jsonl"]), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, options(t, fsys)).Key(mia.Handle); !errors.Is(err, keys.ErrDamaged) {
		t.Errorf("the old record: %v", err)
	}
}

// An erasure that is cut off at any operation has not begun, or is completed; and
// nobody else's key is ever lost.
func TestErasureSurvivesPowerFailureAtEveryStep(t *testing.T) {
	durabletest.EachCrash(t, 3, func(t *testing.T, r *durabletest.Run) {
		s := create(t, r.FS)
		mia, noah := subject(t, s, keys.Person, "mia"), subject(t, s, keys.Person, "noah")
		recorded := false
		r.Inject(func() {
			if _, err := s.Begin(keys.Erasing{EventID: "e1", Handles: []string{mia.Handle}}, nil); err != nil {
				return
			}
			recorded = true // the entry would be
			if s.Destroy(ctx) == nil {
				s.End()
			}
		})
		after := r.Restart()
		s2 := open(t, options(t, after))
		e, pending, err := s2.Pending()
		if err != nil {
			t.Fatal(err)
		}
		if pending {
			if e.EventID != "e1" || len(e.Handles) != 1 || e.Handles[0] != mia.Handle {
				t.Errorf("%+v", e)
			}
			if err := s2.Destroy(ctx); err != nil {
				t.Fatal(err)
			}
			if err := s2.End(); err != nil {
				t.Fatal(err)
			}
		}
		if recorded || pending {
			if _, err := s2.Key(mia.Handle); !errors.Is(err, keys.ErrNoSubject) {
				t.Errorf("pending %v: %v", pending, err)
			}
			for name, text := range snapshot(t, after) {
				if strings.Contains(text, mia.Handle) {
					t.Errorf("%s still has the handle", name)
				}
			}
		}
		if key, err := s2.Key(noah.Handle); err != nil || !bytes.Equal(key, noah.Key) {
			t.Errorf("another's key is lost: %v", err)
		}
	})
}

// A subject that was synced is there after any crash, and a store that was being
// made is whole or can be made again.
func TestSyncedSubjectSurvivesPowerFailure(t *testing.T) {
	durabletest.EachCrash(t, 3, func(t *testing.T, r *durabletest.Run) {
		if err := r.FS.Mkdir("/keys", 0o700); err != nil {
			t.Fatal(err)
		}
		if err := r.FS.SyncDir("/"); err != nil {
			t.Fatal(err)
		}
		o := options(t, r.FS)
		made := false
		synced := map[string][]byte{}
		dek := ""
		r.Inject(func() {
			if keys.Create(ctx, o, mac) != nil {
				return
			}
			made = true
			s, err := keys.Open(ctx, o)
			if err != nil {
				return
			}
			for i := range 3 {
				sub, err := s.Subject(keys.Person, fmt.Sprint(i))
				if err != nil || s.Sync() != nil {
					return
				}
				synced[sub.Handle] = sub.Key
			}
			if id, err := s.RotateDEK(ctx); err == nil {
				dek = id
			}
		})
		after := options(t, r.Restart())
		s, err := keys.Open(ctx, after)
		if !made && err != nil {
			if err := keys.Create(ctx, after, mac); err != nil {
				t.Fatal(err)
			}
			s, err = keys.Open(ctx, after)
		}
		if err != nil {
			t.Fatal(err)
		}
		for h, want := range synced {
			if key, err := s.Key(h); err != nil || !bytes.Equal(key, want) {
				t.Errorf("%v", err)
			}
		}
		if dek != "" {
			if _, err := s.DEKOf(ctx, dek); err != nil {
				t.Error(err)
			}
		}
		subject(t, s, keys.Person, "later")
	})
}

// After an operation that failed, whether it happened or not, the store says so
// and takes no more; the next opening has all that was synced.
func TestEachOperationFails(t *testing.T) {
	durabletest.EachOp(t, func(t *testing.T, r *durabletest.Run) {
		s := create(t, r.FS)
		mia := subject(t, s, keys.Person, "mia")
		var synced *seal.Subject
		var errs []error
		r.Inject(func() {
			sub, err := s.Subject(keys.Person, "noah")
			if err == nil {
				err = s.Sync()
			}
			if err == nil {
				synced = &sub
			}
			errs = append(errs, err)
			_, err = s.RotateDEK(ctx)
			_, err2 := s.Begin(keys.Erasing{EventID: "e1", Handles: []string{mia.Handle}}, nil)
			errs = append(errs, err, err2)
			errs = append(errs, s.Destroy(ctx), s.End())
		})
		if r.Fired() && errors.Join(errs...) == nil {
			t.Error("a failure was not told")
		}
		s2 := open(t, options(t, r.Restart()))
		if _, pending, err := s2.Pending(); err != nil {
			t.Fatal(err)
		} else if pending {
			if err := errors.Join(s2.Destroy(ctx), s2.End()); err != nil {
				t.Fatal(err)
			}
		}
		if synced != nil {
			if key, err := s2.Key(synced.Handle); err != nil || !bytes.Equal(key, synced.Key) {
				t.Errorf("%v", err)
			}
		}
		subject(t, s2, keys.Person, "later")
	})
}

func TestRewrapChangesWrapsAndNothingElse(t *testing.T) {
	durabletest.EachCrash(t, 1, func(t *testing.T, r *durabletest.Run) {
		s := create(t, r.FS)
		mia := subject(t, s, keys.Person, "mia")
		if _, err := s.RotateDEK(ctx); err != nil {
			t.Fatal(err)
		}
		page := snapshot(t, r.FS)["/keys/subjects/0-1.jsonl"]
		s.Close()
		o := options(t, r.FS)
		o.Former, o.KEK = o.KEK, kek(t, 2)
		done := false
		s, err := keys.Open(ctx, o)
		if err != nil {
			t.Fatal(err)
		}
		r.Inject(func() { done = s.Rewrap(ctx) == nil })
		o.FS = r.Restart()
		if !done { // both are needed, and it is run again
			s = open(t, o)
			if err := s.Rewrap(ctx); err != nil {
				t.Fatal(err)
			}
		}
		o.Former = nil
		s = open(t, o)
		if key, err := s.Key(mia.Handle); err != nil || !bytes.Equal(key, mia.Key) {
			t.Errorf("%v", err)
		}
		if key, err := s.MAC(ctx); err != nil || !bytes.Equal(key, mac) {
			t.Errorf("the MAC key: %v", err)
		}
		if got := snapshot(t, o.FS)["/keys/subjects/0-1.jsonl"]; got != page {
			t.Error("a page changed")
		}
		o.KEK = kek(t, 1)
		if _, err := keys.Open(ctx, o); !errors.Is(err, kms.ErrWrongKey) {
			t.Errorf("the former KEK still opens it: %v", err)
		}
	})
}

// What a crash left half written of a record is cut; what is broken inside is
// left, and loses nothing else.
func TestTornAndBrokenRecords(t *testing.T) {
	fsys := durabletest.NewMem()
	s := create(t, fsys)
	mia := subject(t, s, keys.Person, "mia")
	s.Close()
	name := "/keys/subjects/0-1.jsonl"
	text, err := durable.ReadFile(fsys, name, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	torn := append(bytes.Clone(text), "broken\n{\"handle\":\"AAAAAAAA"...)
	if err := durable.WriteFile(fsys, name, torn, 0o600); err != nil {
		t.Fatal(err)
	}
	s = open(t, options(t, fsys))
	noah := subject(t, s, keys.Person, "noah")
	s.Close()
	s = open(t, options(t, fsys))
	for _, sub := range []seal.Subject{mia, noah} {
		if key, err := s.Key(sub.Handle); err != nil || !bytes.Equal(key, sub.Key) {
			t.Errorf("%v", err)
		}
	}
}

// Files are 0600, and hold neither a key nor an identifier.
func TestNothingInClear(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	o := options(t, durable.OS)
	o.Dir = dir
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := keys.Create(ctx, o, mac); err != nil {
		t.Fatal(err)
	}
	s := open(t, o)
	mia := subject(t, s, keys.Person, "mia_li_3668")
	if _, err := s.Begin(keys.Erasing{EventID: "e", Handles: []string{mia.Handle}}, nil); err != nil {
		t.Fatal(err)
	}
	seen := 0
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		seen++
		fi, err := d.Info()
		if err != nil {
			return err
		}
		if fi.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v", d.Name(), fi.Mode())
		}
		text, err := os.ReadFile(name)
		if bytes.Contains(text, []byte("mia_li")) || strings.Contains(d.Name(), "mia") {
			t.Errorf("%s has the identifier", d.Name())
		}
		return err
	})
	if err != nil || seen != 5 {
		t.Errorf("%d files, %v", seen, err)
	}
}

// is looks for one subject.
func is(kind keys.Kind, id string) func(keys.Kind, string) bool {
	return func(k keys.Kind, i string) bool { return k == kind && i == id }
}

// From the beginning of an erasure on nothing more is sealed under a key that is to
// be destroyed, whatever becomes of the erasure.
func TestWhoIsErasedGetsANewKeyAtOnce(t *testing.T) {
	s := create(t, durabletest.NewMem())
	mia, err := s.Subject(keys.Person, "mia")
	if err != nil {
		t.Fatal(err)
	}
	noah, err := s.Subject(keys.Person, "noah")
	if err != nil {
		t.Fatal(err)
	}
	// The handle is found by who it is, as one that came just now would be.
	e, err := s.Begin(keys.Erasing{EventID: "e", Handles: []string{noah.Handle}}, is(keys.Person, "mia"))
	if err != nil || len(e.Handles) != 2 {
		t.Fatalf("%+v, %v", e, err)
	}
	again, err := s.Subject(keys.Person, "mia")
	if err != nil || again.Handle == mia.Handle {
		t.Errorf("%+v, %v", again, err)
	}
	if who, err := s.Who(again.Handle); err != nil || who.ID != "mia" {
		t.Errorf("%+v, %v", who, err)
	}
	if err := s.Destroy(context.Background()); err != nil {
		t.Fatal(err)
	}
	for _, gone := range []string{mia.Handle, noah.Handle} {
		if _, err := s.Key(gone); !errors.Is(err, keys.ErrNoSubject) {
			t.Error(err)
		}
	}
	if key, err := s.Key(again.Handle); err != nil || string(key) != string(again.Key) {
		t.Error(err)
	}
	if last, err := s.Subject(keys.Person, "mia"); err != nil || last.Handle != again.Handle {
		t.Errorf("%+v, %v", last, err)
	}
}

// Who a subject is stays what it was when the caller uses the text's memory again.
func TestSubjectsKeepTheirOwnNames(t *testing.T) {
	s := create(t, durabletest.NewMem())
	line := []byte("noah")
	noah, err := s.Subject(keys.Person, unsafe.String(&line[0], len(line)))
	if err != nil {
		t.Fatal(err)
	}
	copy(line, "miah")
	if who, err := s.Who(noah.Handle); err != nil || who.ID != "noah" {
		t.Errorf("%+v, %v", who, err)
	}
	if again := subject(t, s, keys.Person, "noah"); again.Handle != noah.Handle {
		t.Error("a second handle")
	}
}
