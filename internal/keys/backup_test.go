package keys_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/durable/durabletest"
	"github.com/kaizen-audit/kaizen-audit/internal/keys"
)

// backedUp makes a store in /keys with one subject, and a backup of it.
func backedUp(t testing.TB, fsys durable.FS) []byte {
	t.Helper()
	s := create(t, fsys)
	subject(t, s, keys.Person, "mia")
	if err := durable.WriteFile(fsys, "/trail.json", []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	now := time.Now()
	err := s.Frozen(func() error {
		_, err := keys.WriteBackup(fsys, "/", "example.com/log", now, now.Add(time.Hour), &out)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	return out.Bytes()
}

// A restoring that is cut off leaves no keys, or all of them.
func TestRestoreIsAllOrNothing(t *testing.T) {
	backup := backedUp(t, durabletest.NewMem())
	durabletest.EachCrash(t, 1, func(t *testing.T, r *durabletest.Run) {
		r.Inject(func() {
			_, _ = keys.RestoreBackup(r.FS, bytes.NewReader(backup), "/", "example.com/log", time.Now())
		})
		fsys := r.Restart()
		if _, err := fsys.Stat("/keys"); err != nil {
			if _, err := keys.RestoreBackup(fsys, bytes.NewReader(backup), "/", "example.com/log", time.Now()); err != nil {
				t.Fatal(err)
			}
		}
		s := open(t, options(t, fsys))
		if hs := subject(t, s, keys.Person, "mia"); len(hs.Key) != 32 {
			t.Error("a subject without a key")
		}
		if again, err := keys.Restored(fsys, "/keys"); !again || err != nil {
			t.Errorf("nothing says that they came from a backup: %v", err)
		}
	})
}

// FuzzBackup: whatever is given as a backup is put back whole or not at all.
func FuzzBackup(f *testing.F) {
	whole := backedUp(f, durabletest.NewMem())
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add([]byte("backup.json"))
	changed := bytes.Clone(whole)
	changed[700] ^= 1
	f.Add(changed)
	f.Fuzz(func(t *testing.T, text []byte) {
		b, files, err := keys.ReadBackup(bytes.NewReader(text))
		if err != nil {
			if b.Format != 0 && b.Origin == "" || files != nil {
				t.Errorf("%+v beside %v", b, err)
			}
			return
		}
		if len(files) != len(b.Files) {
			t.Errorf("%d files where it names %d", len(files), len(b.Files))
		}
		fsys := durabletest.NewMem()
		if _, err := keys.RestoreBackup(fsys, bytes.NewReader(text), "/", "", time.Now()); err != nil {
			if _, there := fsys.Stat("/keys"); there == nil && !errors.Is(err, keys.ErrExpired) {
				t.Error("something was left")
			}
		}
	})
}
