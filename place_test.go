package audit

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/pin"
)

// TestUnfitFileSystemIsRefused: no trail is made where locks do not hold unless
// that is asked for, nothing is left behind, and entry 0 says what was accepted;
// a trail that is there is opened all the same.
func TestUnfitFileSystemIsRefused(t *testing.T) {
	kind := ""
	opts := Options{StateDir: t.TempDir(), fsKind: func(string) (durable.FileSystem, error) { return durable.FileSystem{Name: kind}, nil }}
	dir := t.TempDir()
	log := filepath.Join(dir, "a.jsonl")
	for _, kind = range []string{"nfs", "cifs", "9p", "vfat"} {
		_, err := Open(log, &opts)
		if err == nil || !strings.Contains(err.Error(), "file system of type "+kind) || !strings.Contains(err.Error(), "--any-file-system") {
			t.Fatalf("%s: %v", kind, err)
		}
		if _, err := Init(log, &InitOptions{Options: opts}); err == nil {
			t.Fatalf("%s: init made a trail", kind)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	// Nor in a directory that is there already.
	if err := os.Mkdir(filepath.Join(dir, "a.trail"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(log, &opts); err == nil || !strings.Contains(err.Error(), "vfat") {
		t.Errorf("with an empty directory: %v", err)
	}

	accepted := opts
	accepted.AnyFileSystem = true
	mustClose(t, log, &accepted)
	line, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	if first, _, _ := strings.Cut(string(line), "\n"); !strings.Contains(first, `"file_system":"vfat"`) {
		t.Errorf("entry 0 does not say it: %s", first)
	}
	mustClose(t, log, &opts) // it is there: opened wherever it is

	for _, kind = range []string{"ext4", "tmpfs", "overlay", "fuse", "0x1234"} {
		log := filepath.Join(dir, kind+".jsonl")
		mustClose(t, log, &opts)
		if line, err := os.ReadFile(log); err != nil || strings.Contains(string(line), "file_system") {
			t.Errorf("%s: %v\n%s", kind, err, line)
		}
	}
	failing := opts
	failing.fsKind = func(string) (durable.FileSystem, error) { return durable.FileSystem{}, errors.ErrUnsupported }
	mustClose(t, filepath.Join(dir, "unknown.jsonl"), &failing)
}

func mustClose(t *testing.T, log string, opts *Options) {
	t.Helper()
	trail, err := Open(log, opts)
	if err == nil {
		err = trail.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestRootWritesNobodyElsesTrail: what root would write there its owner could
// not read. It may read and verify, and its files stay as they were.
func TestRootWritesNobodyElsesTrail(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a trail away")
	}
	dir := t.TempDir()
	log := filepath.Join(dir, "a.jsonl")
	var warned []string
	opts := &Options{StateDir: t.TempDir(), Warn: func(err error) { warned = append(warned, err.Error()) }}
	mustClose(t, log, opts)
	const other = 65534
	err := filepath.WalkDir(dir, func(name string, _ os.DirEntry, err error) error {
		return errors.Join(err, os.Chown(name, other, other))
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(log, opts); err == nil || !strings.Contains(err.Error(), "belongs to user 65534") || !strings.Contains(err.Error(), "sudo -u '#65534'") {
		t.Errorf("%v", err)
	}
	reader, err := Open(log, &Options{ReadOnly: true, StateDir: opts.StateDir, Warn: opts.Warn})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, err := range reader.Query(t.Context(), Query{Trails: true}) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if err := reader.Close(); err != nil || n == 0 {
		t.Errorf("%d entries, %v", n, err)
	}
	if len(warned) != 1 || !strings.Contains(warned[0], "this reading could not be recorded") {
		t.Errorf("warned: %q", warned)
	}
	// What root captures waits where root's next opening finds it: a spool of
	// root's beside the trail would keep its owner from opening it.
	if err := Capture(t.Context(), log, opts, event("captured", "by root")); err != nil {
		t.Error(err)
	}
	if items := spooledFiles(t, pin.Below(opts.StateDir, "spool", log)); len(items) != 1 {
		t.Errorf("in root's own spool: %q", items)
	}
	err = filepath.WalkDir(filepath.Join(dir, "a.trail"), func(name string, _ os.DirEntry, err error) error {
		if owner, statErr := durable.OwnerOf(durable.OS, name); err != nil || statErr != nil || owner != other {
			t.Errorf("%s: user %d, %v, %v", name, owner, err, statErr)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
