package archive_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/kaizen-audit/kaizen-audit/archive"
	"github.com/kaizen-audit/kaizen-audit/archive/archivetest"
)

func openDir(t *testing.T) (*archive.Dir, string) {
	t.Helper()
	root := filepath.Join(t.TempDir(), "archive")
	d, err := archive.OpenDir("file://" + root)
	if err != nil {
		t.Fatal(err)
	}
	// A disk that is not mounted is not begun anew.
	if err := d.Put(t.Context(), archivetest.Object("a", nil), bytes.NewReader(nil)); err == nil {
		t.Error("a directory that is not there took an object")
	}
	if _, err := d.Head(t.Context(), "a"); err == nil || errors.Is(err, os.ErrNotExist) {
		t.Errorf("a directory that is not there says of an object: %v", err)
	}
	if err := d.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	return d, root
}

func TestADirectoryIsAStore(t *testing.T) {
	d, root := openDir(t)
	archivetest.Run(t, d)
	if left, err := os.ReadDir(filepath.Join(root, ".new")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestADirectoryKeepsWhatHasADate(t *testing.T) {
	d, root := openDir(t)
	body := []byte("kept")
	o := archivetest.Object("segments/a", body)
	o.RetainUntil = time.Now().Add(time.Hour)
	if err := d.Put(t.Context(), o, bytes.NewReader(body)); err != nil {
		t.Fatal(err)
	}
	kept := func(what string) {
		t.Helper()
		replace := archivetest.Object("segments/a", body)
		replace.Replace = true
		if err := d.Put(t.Context(), replace, bytes.NewReader(body)); !errors.Is(err, archive.ErrKept) {
			t.Errorf("%s: replaced: %v", what, err)
		}
		if err := d.Remove(t.Context(), "segments/a"); !errors.Is(err, archive.ErrKept) {
			t.Errorf("%s: removed: %v", what, err)
		}
	}
	kept("before its date")
	if fi, err := os.Stat(filepath.Join(root, "segments", "a")); err != nil || fi.Mode().Perm() != 0o400 {
		t.Errorf("%v, %v", fi, err)
	}
	// A crash between the object's name and what is known of it.
	if err := os.Remove(filepath.Join(root, ".objects", "segments", "a.json")); err != nil {
		t.Fatal(err)
	}
	kept("with nothing known of it")
	if i, err := d.Head(t.Context(), "segments/a"); err != nil || i.SHA256 != o.SHA256 {
		t.Errorf("head: %+v, %v", i, err)
	}
}

func TestAHoldOutlivesTheDate(t *testing.T) {
	d, _ := openDir(t)
	body := []byte("held")
	o := archivetest.Object("segments/a", body)
	o.RetainUntil = time.Now().Add(-time.Hour)
	if err := d.Put(t.Context(), o, bytes.NewReader(body)); err != nil {
		t.Fatal(err)
	}
	if err := d.Hold(t.Context(), o.Name, true); err != nil {
		t.Fatal(err)
	}
	if err := d.Remove(t.Context(), o.Name); !errors.Is(err, archive.ErrKept) {
		t.Errorf("removed although held: %v", err)
	}
	if err := d.Hold(t.Context(), o.Name, false); err != nil {
		t.Fatal(err)
	}
	if err := d.Remove(t.Context(), o.Name); err != nil {
		t.Error(err)
	}
}

func TestOnlyAbsoluteFileURLsAreDirectories(t *testing.T) {
	for _, url := range []string{"", "/mnt", "file:mnt", "file://host/mnt", "file:///mnt?x=1", "s3://bucket"} {
		if _, err := archive.OpenDir(url); err == nil {
			t.Errorf("%q was opened", url)
		}
	}
}
