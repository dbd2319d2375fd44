package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/kaizen-audit/kaizen-audit/internal/keys"
)

// countOf is how many entries of a user a reader sees.
func countOf(t *testing.T, path string, o Options, user string) (int, error) {
	t.Helper()
	o.ReadOnly, o.Encrypt = true, false
	r, err := Open(path, &o)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	n := 0
	for _, err := range r.Query(context.Background(), Query{User: user}) {
		if err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// Rotating the KEK changes no line and no subject's key: only what wraps them.
func TestRotateKEK(t *testing.T) {
	ctx := context.Background()
	path, o := encryptedTrail(t)
	trail := openWith(t, path, o)
	for n := range 5 {
		if _, err := trail.Record(ctx, canaryEvent(n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	lines, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(trail.Dir(), "keys", "subjects", "0-1.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	next := *o
	next.NextKEK = testKEK(t, 2)
	trail = openWith(t, path, &next)
	if err := trail.RotateKEK(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := trail.Record(ctx, canaryEvent(9)); err != nil { // it goes on under the new key
		t.Fatal(err)
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(path)
	if err != nil || !bytes.HasPrefix(after, lines) {
		t.Fatalf("lines changed: %v", err)
	}
	now, err := os.ReadFile(filepath.Join(trail.Dir(), "keys", "subjects", "0-1.jsonl"))
	if err != nil || !bytes.HasPrefix(now, page) {
		t.Errorf("a page changed: %v", err)
	}
	if _, err := countOf(t, path, *o, "canary-user-0"); !errors.Is(err, ErrNoKey) {
		t.Errorf("the former key reads: %v", err)
	}
	reader := *o
	reader.KEK = testKEK(t, 2)
	for _, user := range []string{"canary-user-0", "canary-user-9"} {
		if n, err := countOf(t, path, reader, user); n != 1 || err != nil {
			t.Errorf("the new key reads %d of %s, %v", n, user, err)
		}
	}
	if _, err := Open(path, o); !errors.Is(err, ErrNoKey) {
		t.Errorf("the former key opens to write: %v", err)
	}
}

func TestRotateSaysWhyItDoesNot(t *testing.T) {
	ctx := context.Background()
	path, o := encryptedTrail(t)
	trail := openWith(t, path, o)
	if err := trail.RotateKEK(ctx); err == nil {
		t.Error("a rotation to no key")
	}
	// Beside a holder it is for the holder.
	other := openWith(t, path, o)
	for name, err := range map[string]error{"kek": other.RotateKEK(ctx), "dek": other.RotateDEK(ctx)} {
		if !errors.Is(err, ErrLocked) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := other.BackupKeys(ctx, filepath.Join(t.TempDir(), "b"), 0); !errors.Is(err, ErrLocked) {
		t.Errorf("backup: %v", err)
	}
	if list, err := other.Keys(ctx); err != nil || len(list) < 6 {
		t.Errorf("%v, %v", list, err)
	}
}

// A backup of keys puts everything back, and brings nobody back who was erased
// since it was made.
func TestBackupOfKeysBringsNobodyBack(t *testing.T) {
	ctx := context.Background()
	path, o := encryptedTrail(t)
	trail := openWith(t, path, o)
	for n := range 4 {
		if _, err := trail.Record(ctx, canaryEvent(n)); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(t.TempDir(), "keys.tar")
	before := time.Now()
	b, err := trail.BackupKeys(ctx, file, 48*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(file); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi, err)
	}
	until, err := keys.BackedUpUntil(trail.opts.fs, filepath.Join(trail.Dir(), "keys"))
	if err != nil || until.Before(before.Add(47*time.Hour)) || !until.Equal(b.DeleteAfter.Truncate(time.Millisecond)) {
		t.Errorf("backed up until %v, %v: an erasure has to know", until, err)
	}
	// One of them is erased, as an entry says, and keys/ is lost.
	var handle string
	for _, h := range handlesIn(t, trail, "canary-user-1") {
		handle = h
	}
	if handle == "" {
		t.Fatal("no handle")
	}
	if err := trail.recordOwn(ctx, ownEntry{eventType: "AUDIT_ERASURE", action: "subject_erased", signed: true,
		outputs: map[string]any{"handles": []string{handle}}}); err != nil {
		t.Fatal(err)
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(trail.Dir(), "keys")); err != nil {
		t.Fatal(err)
	}
	if _, err := RestoreKeys(path, file); err != nil {
		t.Fatal(err)
	}
	trail = openWith(t, path, o)
	if _, err := trail.enc.Load().store.Key(handle); !errors.Is(err, keys.ErrNoSubject) {
		t.Errorf("the erased key is back: %v", err)
	}
	if n := len(handlesIn(t, trail, "canary-user-2")); n != 1 {
		t.Errorf("another's key is gone: %d", n)
	}
	if again, err := keys.Restored(trail.opts.fs, filepath.Join(trail.Dir(), "keys")); again || err != nil {
		t.Errorf("the mark is there still: %v", err)
	}
	report, err := trail.Verify(ctx, nil)
	if err != nil || report.Status != "intact" {
		t.Errorf("%+v, %v", report, err)
	}
}

// handlesIn are the handles of a user's subject.
func handlesIn(t *testing.T, trail *Trail, user string) []string {
	t.Helper()
	sub, err := trail.enc.Load().store.Subject(keys.Person, user)
	if err != nil {
		t.Fatal(err)
	}
	return []string{sub.Handle}
}

// Past its maximum age a backup is not put back, a changed or cut one never.
func TestBackupOfKeysIsCheckedBeforeItIsPutBack(t *testing.T) {
	ctx := context.Background()
	path, o := encryptedTrail(t)
	trail := openWith(t, path, o)
	dir := t.TempDir()
	file := filepath.Join(dir, "keys.tar")
	if _, err := trail.BackupKeys(ctx, file, time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if _, err := trail.BackupKeys(ctx, filepath.Join(dir, "x.tar"), 400*24*time.Hour); err == nil {
		t.Error("an age of more than a year")
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(trail.Dir(), "keys")); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Millisecond)
	if _, err := RestoreKeys(path, file); !errors.Is(err, keys.ErrExpired) {
		t.Errorf("expired: %v", err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(text, []byte("PRIVATE+KEY+"))
	if at < 0 {
		t.Fatal("no signing key in it")
	}
	changed := bytes.Clone(text)
	changed[at+40] ^= 1
	for name, b := range map[string][]byte{"changed": changed, "cut": text[:at+200], "empty": nil, "text": []byte("hello\n")} {
		bad := filepath.Join(dir, name)
		if err := os.WriteFile(bad, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := RestoreKeys(path, bad); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(filepath.Join(trail.Dir(), "keys")); err == nil {
			t.Fatalf("%s left something", name)
		}
	}
}

// Who records through a holder that has the key needs none, and can read nothing:
// the key is in another process, which may be another user's.
func TestWhoHasNoKeyWritesThroughTheHolderAndReadsNothing(t *testing.T) {
	ctx := context.Background()
	path, o := encryptedTrail(t)
	openWith(t, path, o) // the holder
	t.Setenv("AUDIT_LOG_ENCRYPTION_KEY", "")
	if err := os.Unsetenv("AUDIT_LOG_ENCRYPTION_KEY"); err != nil {
		t.Fatal(err)
	}
	writer, err := Open(path, &Options{StateDir: filepath.Join(t.TempDir(), "state"), Command: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	for n := range 3 {
		if _, err := writer.Record(ctx, canaryEvent(n)); err != nil {
			t.Fatal(err)
		}
	}
	seen := 0
	var refused error
	for _, err := range writer.Query(ctx, Query{}) {
		if err != nil {
			refused = err
			break
		}
		seen++
	}
	if seen > 0 || !errors.Is(refused, ErrNoKey) {
		t.Errorf("it reads %d, %v", seen, refused)
	}
	if err := writer.RotateKEK(ctx); !errors.Is(err, ErrLocked) {
		t.Errorf("%v", err)
	}
	noCanary(t, filepath.Dir(path))
	for n := range 3 {
		if got, err := countOf(t, path, *o, fmt.Sprint("canary-user-", n)); got != 1 || err != nil {
			t.Errorf("who has the key reads %d, %v", got, err)
		}
	}
}
