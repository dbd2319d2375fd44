// Package archivetest is the one suite that every driver of package archive
// passes.
package archivetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kaizen-audit/kaizen-audit/archive"
)

// Object is an object with its digest.
func Object(name string, body []byte) archive.Object {
	return archive.Object{Name: name, Size: int64(len(body)), SHA256: sha256.Sum256(body)}
}

// Run runs the suite on an empty store.
func Run(t *testing.T, s archive.Store) {
	ctx := t.Context()
	retain := time.Now().Add(48 * time.Hour).Truncate(time.Second)
	put := func(t *testing.T, o archive.Object, body []byte) {
		t.Helper()
		if err := s.Put(ctx, o, bytes.NewReader(body)); err != nil {
			t.Fatal(err)
		}
	}
	get := func(t *testing.T, name string, offset int64) []byte {
		t.Helper()
		r, err := s.Get(ctx, name, offset)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil {
			t.Fatal(err)
		}
		return data
	}

	t.Run("what is stored is given back, from any offset", func(t *testing.T) {
		for n, size := range []int{0, 1, 4096, 300_000} {
			body := make([]byte, size)
			rand.Read(body)
			o := Object("whole/"+strings.Repeat("a", 1+n), body)
			o.RetainUntil = retain
			put(t, o, body)
			if got := get(t, o.Name, 0); !bytes.Equal(got, body) {
				t.Errorf("%d bytes came back as %d others", size, len(got))
			}
			if size > 1 {
				if got := get(t, o.Name, int64(size/3)); !bytes.Equal(got, body[size/3:]) {
					t.Errorf("from offset %d came %d other bytes", size/3, len(got))
				}
			}
			i, err := s.Head(ctx, o.Name)
			if err != nil || i.Size != int64(size) || i.SHA256 != o.SHA256 || !i.RetainUntil.Equal(retain) || i.Held {
				t.Errorf("head: %+v, %v", i, err)
			}
		}
	})

	t.Run("a name that is there is not given to another object", func(t *testing.T) {
		first, second := []byte("the first"), []byte("the second")
		o := Object("once/a", first)
		o.RetainUntil = retain
		put(t, o, first)
		for _, again := range [][]byte{second, first} {
			o := Object("once/a", again)
			o.RetainUntil = retain
			if err := s.Put(ctx, o, bytes.NewReader(again)); !errors.Is(err, archive.ErrExists) {
				t.Errorf("put again: %v, want ErrExists", err)
			}
		}
		if got := get(t, "once/a", 0); !bytes.Equal(got, first) {
			t.Error("the object was changed")
		}
	})

	t.Run("of many at once exactly one stores", func(t *testing.T) {
		const writers = 8
		var wg sync.WaitGroup
		var mu sync.Mutex
		var won [][]byte
		for i := range writers {
			body := bytes.Repeat([]byte{byte('a' + i)}, 10_000)
			wg.Go(func() {
				err := s.Put(ctx, Object("race/a", body), bytes.NewReader(body))
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					won = append(won, body)
				case !errors.Is(err, archive.ErrExists):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if len(won) != 1 || !bytes.Equal(get(t, "race/a", 0), won[0]) {
			t.Errorf("%d of %d stored", len(won), writers)
		}
	})

	t.Run("what is not what it says is not stored", func(t *testing.T) {
		body := []byte("the body")
		o := Object("wrong/a", []byte("another"))
		o.Size = int64(len(body))
		if err := s.Put(ctx, o, bytes.NewReader(body)); err == nil {
			t.Error("a body with another digest was stored")
		}
		if _, err := s.Head(ctx, "wrong/a"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("head after it: %v", err)
		}
	})

	t.Run("what may be replaced is, and what is kept is not", func(t *testing.T) {
		o := func(body string) archive.Object {
			o := Object("tail/a", []byte(body))
			o.Replace = true
			return o
		}
		for _, body := range []string{"one", "one and two", "short"} {
			put(t, o(body), []byte(body))
			if got := get(t, "tail/a", 0); string(got) != body {
				t.Errorf("%q, want %q", got, body)
			}
			if i, err := s.Head(ctx, "tail/a"); err != nil || i.SHA256 != sha256.Sum256([]byte(body)) {
				t.Errorf("head: %+v, %v", i, err)
			}
		}
		if err := s.Remove(ctx, "tail/a"); err != nil {
			t.Error(err)
		}
		if err := s.Remove(ctx, "tail/a"); err != nil {
			t.Errorf("remove what is gone: %v", err)
		}
		if _, err := s.Get(ctx, "tail/a", 0); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("get what is gone: %v", err)
		}
		put(t, o("again"), []byte("again"))
	})

	t.Run("a hold is set and lifted", func(t *testing.T) {
		body := []byte("held")
		o := Object("held/a", body)
		o.RetainUntil = retain
		put(t, o, body)
		for _, on := range []bool{true, false} {
			if err := s.Hold(ctx, o.Name, on); err != nil {
				t.Fatal(err)
			}
			i, err := s.Head(ctx, o.Name)
			if err != nil || i.Held != on || !i.RetainUntil.Equal(retain) || i.SHA256 != o.SHA256 {
				t.Errorf("after hold %v: %+v, %v", on, i, err)
			}
		}
	})

	t.Run("what is expired is gone, every version, and nothing before", func(t *testing.T) {
		body := []byte("expired")
		o := Object("expired/a", body)
		o.RetainUntil = time.Now().Add(2 * time.Second).Truncate(time.Second).Add(time.Second)
		put(t, o, body)
		if err := s.Expire(ctx, o.Name); !errors.Is(err, archive.ErrKept) {
			t.Errorf("before its date: %v", err)
		}
		held := Object("expired/held", body)
		held.RetainUntil = o.RetainUntil
		put(t, held, body)
		if err := s.Hold(ctx, held.Name, true); err != nil {
			t.Fatal(err)
		}
		old := Object("expired/tail", []byte("one"))
		old.Replace = true
		put(t, old, []byte("one"))
		if err := s.Remove(ctx, old.Name); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Until(o.RetainUntil.Add(50 * time.Millisecond)))
		for _, name := range []string{o.Name, o.Name, old.Name} {
			if err := s.Expire(ctx, name); err != nil {
				t.Errorf("after its date: %v", err)
			}
			if _, err := s.Head(ctx, name); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s is there: %v", name, err)
			}
		}
		if err := s.Expire(ctx, held.Name); !errors.Is(err, archive.ErrKept) {
			t.Errorf("under a hold: %v", err)
		}
		if err := s.Hold(ctx, held.Name, false); err != nil {
			t.Fatal(err)
		}
		if err := s.Expire(ctx, held.Name); err != nil {
			t.Errorf("with the hold lifted: %v", err)
		}
		if h, ok := s.(archive.History); ok {
			err := h.First(ctx, "expired/", func(i archive.Info, _ func(context.Context) (io.ReadCloser, error)) error {
				t.Errorf("a version of %s is left", i.Name)
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		}
	})

	t.Run("a list is complete and in order", func(t *testing.T) {
		var want []string
		for _, name := range []string{"list/b", "list/a", "list/c/d", "list/c/a"} {
			put(t, Object(name, []byte(name)), []byte(name))
			want = append(want, name)
		}
		slices.Sort(want)
		var got []string
		err := s.List(ctx, "list/", func(i archive.Info) error {
			if i.Size != int64(len(i.Name)) {
				t.Errorf("%s: %d bytes", i.Name, i.Size)
			}
			got = append(got, i.Name)
			return nil
		})
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q, %v", got, err)
		}
		if err := s.List(ctx, "nothing/", func(i archive.Info) error { return errors.New(i.Name) }); err != nil {
			t.Error(err)
		}
		stop := errors.New("stop")
		if err := s.List(ctx, "list/", func(archive.Info) error { return stop }); !errors.Is(err, stop) {
			t.Errorf("%v, want the caller's error", err)
		}
	})

	t.Run("names that lead elsewhere are refused", func(t *testing.T) {
		for _, name := range []string{"", "/a", "a/", "../a", "a/../b", ".objects/a", "a b", "a\x00"} {
			if err := s.Put(ctx, Object(name, nil), bytes.NewReader(nil)); !errors.Is(err, fs.ErrInvalid) {
				t.Errorf("%q: %v", name, err)
			}
		}
	})

	t.Run("who gives up is told", func(t *testing.T) {
		ctx, cancel := context.WithCancel(ctx)
		cancel()
		if err := s.Put(ctx, Object("late/a", []byte("late")), strings.NewReader("late")); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}
