//go:build unix

package cli

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
)

// asRoot runs the same program as asNobody does, as root, whose pins are in a
// folder of its own.
func asRoot(t *testing.T, dir string) func(args ...string) (code int, stdout, stderr string) {
	return func(args ...string) (int, string, string) {
		t.Helper()
		var out, errs bytes.Buffer
		cmd := exec.CommandContext(t.Context(), filepath.Join(dir, programName), args...)
		cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &errs
		cmd.Env = []string{"HOME=/", "PATH=" + os.Getenv("PATH"), "KAIZEN_AUDIT_STATE=" + filepath.Join(dir, "roots-pins")}
		if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
			t.Fatal(err)
		}
		return cmd.ProcessState.ExitCode(), out.String(), errs.String()
	}
}

// TestInitForAServiceUser: root makes the trail of a service by one command;
// the user records at the documented path, owns all that is there, and others
// can write none of it.
func TestInitForAServiceUser(t *testing.T) {
	dir, asUser := asNobody(t)
	root := asRoot(t, dir)
	data, link := filepath.Join(dir, "lib"), filepath.Join(dir, "kaizen-audit.jsonl")
	init := []string{"init", "--user", "nobody", "--data-dir", data, "--log", link, "--origin", "example.org/agents"}
	code, first, errs := root(init...)
	if code != exitDone || errs != "" || !strings.Contains(first, "example.org/agents") {
		t.Fatalf("exit code %d\n%s%s", code, first, errs)
	}
	if to, err := os.Readlink(link); err != nil || to != filepath.Join(data, "kaizen-audit.jsonl") {
		t.Errorf("the log's path leads to %q, %v", to, err)
	}
	for i := range 2 {
		code, out, errs := asUser("record", "--log", link)
		if code != exitDone || errs != "" || strings.Count(out, "\n") != 1 {
			t.Errorf("record %d: exit code %d\n%s%s", i, code, out, errs)
		}
	}
	n := 0
	err := filepath.WalkDir(data, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		n++
		want := fs.FileMode(0o600)
		if d.IsDir() {
			want = 0o700
		}
		if durable.UserOf(fi) != nobody || fi.Mode().Perm() != want {
			t.Errorf("%s: user %d, mode %04o", name, durable.UserOf(fi), fi.Mode().Perm())
		}
		return nil
	})
	if err != nil || n < 10 {
		t.Errorf("%d files, %v", n, err)
	}

	// Again: the same trail, and nothing is made anew.
	code, again, errs := root(init...)
	fact := func(out, name string) string {
		_, after, _ := strings.Cut(out, name+":")
		value, _, _ := strings.Cut(after, "\n")
		return strings.TrimSpace(value)
	}
	if code != exitDone || errs != "" || fact(again, "Pin") != "known" || fact(again, "VKey") == "" || fact(again, "VKey") != fact(first, "VKey") {
		t.Errorf("again: exit code %d\n%s%s", code, again, errs)
	}
	code, out, errs := root("verify", "--log", link)
	if code != exitDone || !strings.Contains(out, "intact") {
		t.Errorf("verify: exit code %d\n%s%s", code, out, errs)
	}

	// A link that was lost comes back.
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	if code, _, errs = root(init...); code != exitDone {
		t.Errorf("without the link: exit code %d\n%s", code, errs)
	}
	if _, err := os.Readlink(link); err != nil {
		t.Error(err)
	}

	// With a group, others can pass to what the group may have.
	data = filepath.Join(dir, "shared")
	code, _, errs = root("init", "--user", "nobody", "--data-dir", data, "--log", filepath.Join(dir, "shared.jsonl"), "--group", "65534")
	if code != exitDone || errs != "" {
		t.Errorf("exit code %d\n%s", code, errs)
	}
	if fi, err := os.Stat(data); err != nil || fi.Mode().Perm() != 0o711 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
	if fi, err := os.Stat(filepath.Join(data, "shared.jsonl")); err != nil || fi.Mode().Perm() != 0o640 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
}

// TestInitForAServiceUserRefuses: what is refused is named with what to do, and
// nothing has been made or given away.
func TestInitForAServiceUserRefuses(t *testing.T) {
	dir, asUser := asNobody(t)
	root := asRoot(t, dir)
	data, link := filepath.Join(dir, "lib"), filepath.Join(dir, "a.jsonl")
	in := func(name string) string { return filepath.Join(dir, name) }
	mkdir := func(name string, mode fs.FileMode, uid int) {
		t.Helper()
		if err := os.Mkdir(name, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(name, uid, uid); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
	}
	write := func(name string) {
		t.Helper()
		if err := os.WriteFile(name, []byte("{}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(in("old.jsonl"))
	if err := os.Symlink(in("elsewhere.jsonl"), in("link.jsonl")); err != nil {
		t.Fatal(err)
	}
	mkdir(in("full"), 0o700, 0)
	write(in("full/precious"))
	mkdir(in("others"), 0o700, 1234)
	mkdir(in("open"), 0o777, 0)
	if err := os.Symlink(in("full"), in("linked")); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		code int
		says string
		args []string
	}{
		{exitUsage, `there is no user "no-such-user"`, []string{"--user", "no-such-user"}},
		{exitUsage, "root is root", []string{"--user", "root"}},
		{exitUsage, "--user is empty", []string{"--user", ""}},
		{exitUsage, "goes with neither", []string{"--user", "nobody", "--forget-pin"}},
		{exitIO, in("old.jsonl") + " is there and is no link", []string{"--user", "nobody", "--log", in("old.jsonl")}},
		{exitIO, "is a link to " + in("elsewhere.jsonl"), []string{"--user", "nobody", "--log", in("link.jsonl")}},
		{exitIO, "no such file or directory", []string{"--user", "nobody", "--log", in("missing/a.jsonl")}},
		{exitIO, "belongs to root and is not empty", []string{"--user", "nobody", "--data-dir", in("full")}},
		{exitIO, "belongs to user 1234", []string{"--user", "nobody", "--data-dir", in("others")}},
		{exitIO, "others than root may change " + in("open"), []string{"--user", "nobody", "--data-dir", in("open/lib")}},
		{exitIO, in("linked"), []string{"--user", "nobody", "--data-dir", in("linked")}},
		{exitIO, "as nobody: ", []string{"--user", "nobody", "--group", "1"}}, // it is no member
	} {
		args := append([]string{"init", "--data-dir", data, "--log", link}, test.args...)
		code, out, errs := root(args...)
		if code != test.code || out != "" || !strings.Contains(errs, test.says) {
			t.Errorf("%v: exit code %d\n%s%s", test.args, code, out, errs)
		}
		if _, err := os.Lstat(link); err == nil {
			t.Errorf("%v made a link", test.args)
		}
	}
	if fi, err := os.Stat(in("full")); err != nil || durable.UserOf(fi) != 0 {
		t.Errorf("root's folder was given away: %v", err)
	}
	if code, _, errs := asUser("init", "--user", "nobody", "--log", "b.jsonl"); code != exitUsage || !strings.Contains(errs, "only root makes a trail for another") {
		t.Errorf("exit code %d\n%s", code, errs)
	}
}
