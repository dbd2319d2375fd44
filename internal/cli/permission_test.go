//go:build unix

package cli

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// nobody is the user that owns nothing here.
const nobody = 65534

// asNobody gives a way to run the program as another user, and a folder whose
// every parent that user can pass.
func asNobody(t *testing.T) (dir string, run func(args ...string) (code int, stdout, stderr string)) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can run the program as another user")
	}
	dir = t.TempDir()
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, programName) // TestMain takes the name for the command
	if err := os.WriteFile(program, bin, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir, func(args ...string) (int, string, string) {
		var out, errs bytes.Buffer
		cmd := exec.CommandContext(t.Context(), program, args...)
		cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = dir, strings.NewReader(oneEvent), &out, &errs
		cmd.Env = []string{"HOME=/", "PATH=" + os.Getenv("PATH")}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
			t.Skipf("no program can be run as another user here: %v", err)
		}
		return cmd.ProcessState.ExitCode(), out.String(), errs.String()
	}
}

// TestPermissionDenied: who may not read or write a trail is told which file,
// and what to do, with exit code 3; nothing is called damaged, and where a part
// can be read that part is given.
func TestPermissionDenied(t *testing.T) {
	dir, run := asNobody(t)
	log := filepath.Join(dir, "a.jsonl")
	trail := filepath.Join(dir, "a.trail")
	t.Setenv("KAIZEN_AUDIT_STATE", filepath.Join(dir, "state"))
	for _, args := range [][]string{{"record", "--log", log}, {"rotate", "--log", log}, {"record", "--log", log}} {
		var out, errs bytes.Buffer
		if code := Main(t.Context(), args, strings.NewReader(oneEvent), &out, &errs); code != exitDone {
			t.Fatalf("%v: %d %s", args, code, &errs)
		}
	}
	open := func(name string) { // to be read by everybody
		t.Helper()
		err := filepath.WalkDir(name, func(name string, d os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() {
				return os.Chmod(name, 0o755)
			}
			return os.Chmod(name, 0o644)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	mode := func(name string, m os.FileMode) {
		t.Helper()
		if err := os.Chmod(name, m); err != nil {
			t.Fatal(err)
		}
	}
	reads := [][]string{{"query"}, {"report"}, {"info"}, {"trace", "--last"}, {"verify"}, {"prove", "1"}}
	writes := [][]string{{"record"}, {"rotate"}}
	refused := func(file string, commands ...[]string) {
		t.Helper()
		for _, args := range commands {
			code, out, errs := run(append(args, "--log", "a.jsonl")...)
			if code != exitIO || !strings.Contains(errs, file+": permission denied") || !strings.Contains(errs, "hint: this is user 65534; run it as the user who owns the trail") {
				t.Errorf("%v: exit code %d, want a refusal of %s\n%s", args, code, file, errs)
			}
			if strings.Contains(out+errs, "damaged") {
				t.Errorf("%v calls it damaged:\n%s%s", args, out, errs)
			}
		}
	}

	// The trail's directory is closed.
	refused("a.trail/trail.json", reads...)
	refused("a.trail/lock", writes...)

	// The log is closed.
	open(trail)
	refused("a.jsonl", reads...)

	// The keys are closed to a user who may write everything else.
	open(log)
	mode(filepath.Join(trail, "keys"), 0o700)
	mode(filepath.Join(trail, "lock"), 0o666)
	refused("a.trail/keys/signer.json", writes...)
	mode(filepath.Join(trail, "lock"), 0o644)
	refused("a.trail/lock", writes...)

	// To read, no key is needed; that the reading could not be recorded is told.
	for _, args := range reads {
		code, _, errs := run(append(args, "--log", "a.jsonl")...)
		if code != exitDone {
			t.Errorf("%v: exit code %d\n%s", args, code, errs)
		}
		if recorded := args[0] != "info" && args[0] != "verify"; recorded != strings.Contains(errs, "this reading could not be recorded") {
			t.Errorf("%v: %s", args, errs)
		}
	}

	// One segment is closed: the rest is given.
	segments, err := filepath.Glob(filepath.Join(trail, "segments", "*.zst"))
	if err != nil || len(segments) != 1 {
		t.Fatal(segments, err)
	}
	mode(segments[0], 0o600)
	code, out, errs := run("query", "--log", "a.jsonl", "--format", "jsonl")
	if code != exitPartly || strings.Count(out, "\n") != 1 || strings.Contains(errs, "damaged") ||
		!strings.Contains(errs, "are missing: segments/"+filepath.Base(segments[0])+" can't be read from entry 0 on: permission denied") {
		t.Errorf("exit code %d\n%s%s", code, out, errs)
	}
	refused(filepath.Base(segments[0]), []string{"verify"})

	// A directory above is closed: nobody knows whether there is a trail.
	mode(dir, 0o711)
	sub := filepath.Join(dir, "closed")
	if err := os.Mkdir(sub, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, args := range append(append([][]string{}, reads...), writes...) {
		code, out, errs := run(append(args, "--log", "closed/a.jsonl")...)
		if code != exitIO || !strings.Contains(errs, "permission denied") || strings.Contains(out+errs, "damaged") {
			t.Errorf("%v: exit code %d\n%s%s", args, code, out, errs)
		}
	}
}

// TestSessionsThatCannotBeReadAreNamed: one closed directory keeps nobody from
// importing the others.
func TestSessionsThatCannotBeReadAreNamed(t *testing.T) {
	dir, run := asNobody(t)
	const session = `{"type":"user","uuid":"u1","sessionId":"s","timestamp":"2026-02-01T10:00:00Z","message":{"content":"Hello"}}` + "\n"
	for _, d := range []struct {
		name string
		mode os.FileMode
	}{{"", 0o755}, {"closed", 0o700}, {"open", 0o755}} {
		if err := os.Mkdir(filepath.Join(dir, "projects", d.name), d.mode); err != nil {
			t.Fatal(err)
		}
	}
	for name, mode := range map[string]os.FileMode{"closed/a.jsonl": 0o644, "open/a.jsonl": 0o644, "open/b.jsonl": 0o600} {
		if err := os.WriteFile(filepath.Join(dir, "projects", name), []byte(session), mode); err != nil {
			t.Fatal(err)
		}
	}
	own := filepath.Join(dir, "own")
	if err := errors.Join(os.Mkdir(own, 0o700), os.Chown(own, nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	code, out, errs := run("import", "claude-code", "projects", "--log", "own/a.jsonl", "--format", "json")
	if code != exitPartly || !strings.Contains(out, `"recorded": 1,`) {
		t.Errorf("exit code %d\n%s%s", code, out, errs)
	}
	for _, name := range []string{"projects/closed", "projects/open/b.jsonl"} {
		if !strings.Contains(errs, name+": permission denied") {
			t.Errorf("%s is not named:\n%s", name, errs)
		}
	}
}
