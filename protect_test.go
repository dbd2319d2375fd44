package audit

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
)

// Users and groups that nobody has.
const (
	shipperUID  = 64711
	shipperGID  = 64712
	strangerGID = 64713
)

// openFolder gives a folder that others may pass through, as /var/log is.
func openFolder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(name, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// as runs a program as another user.
func as(gid uint32, name string, args ...string) ([]byte, error) {
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: shipperUID, Gid: gid}}
	return cmd.Output()
}

// A group reads the lines of every segment, those made later too, and nothing
// else; what is set is told by an entry.
func TestGroupReadsTheLinesAndNothingElse(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root gives files to a group it is not in")
	}
	defer syscall.Umask(syscall.Umask(0o077)) // the modes are ours, not the shell's
	dir := openFolder(t)
	path := filepath.Join(dir, "audit.jsonl")
	ctx := context.Background()
	state := t.TempDir()
	var warned []string
	session := func(group string) *Trail {
		t.Helper()
		warned = nil
		trail, err := Open(path, &Options{StateDir: state, Group: group, Warn: func(err error) { warned = append(warned, err.Error()) }})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := trail.Record(ctx, event("a", "x")); err != nil {
				t.Fatal(err)
			}
			if _, err := trail.Rotate(ctx); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := trail.Record(ctx, event("a", "x")); err != nil {
			t.Fatal(err)
		}
		if err := trail.Close(); err != nil {
			t.Fatal(err)
		}
		return trail
	}
	check := func(shared func(name string) bool) {
		t.Helper()
		for _, root := range []string{path, filepath.Join(dir, "audit.trail")} {
			err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
				if err != nil {
					return err
				}
				fi, err := d.Info()
				if err != nil {
					return err
				}
				rel, _ := filepath.Rel(dir, name)
				want := fs.FileMode(0)
				switch lines := shared(rel); {
				case d.IsDir() && (rel == "audit.trail" || rel == "audit.trail/segments" || rel == "audit.trail/aside") && lines:
					want = 0o750
				case d.IsDir():
					want = 0o700
				case lines && (strings.HasSuffix(name, ".zst") || filepath.Dir(rel) == "audit.trail/aside"):
					want = 0o440
				case lines && strings.HasSuffix(name, ".jsonl"):
					want = 0o640
				case strings.HasSuffix(name, ".zst"):
					want = 0o400
				default:
					want = 0o600
				}
				if fi.Mode().Perm() != want {
					t.Errorf("%s: mode %v, want %v", rel, fi.Mode().Perm(), want)
				}
				_, err = as(shipperGID, "cat", name)
				if may := err == nil; !d.IsDir() && may != (want&0o040 != 0) {
					t.Errorf("%s: the group reads it: %v", rel, may)
				}
				if _, err := as(strangerGID, "cat", name); err == nil {
					t.Errorf("%s: anybody can read it", rel)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	started := func() []byte {
		t.Helper()
		trail, err := Open(path, &Options{StateDir: state, ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		defer trail.Close()
		var last []byte
		for e, err := range trail.Query(ctx, Query{EventTypes: []string{"AUDIT_CREATED", "AUDIT_START"}}) {
			if err != nil {
				t.Fatal(err)
			}
			last = bytes.Clone(e.Line())
		}
		return last
	}

	session("64712")
	check(func(string) bool { return true })
	if line := started(); !bytes.Contains(line, []byte(`"AUDIT_CREATED"`)) || !bytes.Contains(line, []byte(`"group":{"gid":64712,"name":"64712"}`)) {
		t.Errorf("%s", line)
	}
	lines, err := as(shipperGID, "cat", path)
	if err != nil || !bytes.Contains(lines, []byte(`"AUDIT_SEAL"`)) {
		t.Errorf("%v\n%s", err, lines)
	}
	info := must(VerifyPath(ctx, path, &VerifyOptions{StateDir: state}))
	if info.Status != "intact" {
		t.Errorf("%+v", info)
	}

	// Without the group nothing is taken away, and nothing more is given: that
	// is told.
	before := map[string]bool{}
	files, _ := filepath.Glob(filepath.Join(dir, "audit.trail/segments/*"))
	for _, name := range files {
		rel, _ := filepath.Rel(dir, name)
		before[rel] = true
	}
	trail := session("")
	if len(warned) != 1 || !strings.Contains(warned[0], "group 64712 can read") {
		t.Errorf("%q", warned)
	}
	// The open segment of before is a sealed one now, and was compressed anew.
	check(func(rel string) bool {
		return before[rel] || rel == "audit.trail" || rel == "audit.trail/segments"
	})
	if bytes.Contains(started(), []byte(`"group"`)) {
		t.Errorf("%s", started())
	}

	// With it again everything is given, what was set aside too.
	f, err := os.OpenFile(trail.Path(), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(f, "{\"torn"); err != nil {
		t.Fatal(err)
	}
	f.Close()
	session("64712")
	check(func(string) bool { return true })
	if aside, _ := filepath.Glob(filepath.Join(dir, "audit.trail/aside/*.jsonl")); len(aside) != 1 {
		t.Errorf("%v", aside)
	}
	if line := started(); !bytes.Contains(line, []byte(`"AUDIT_START"`)) || !bytes.Contains(line, []byte(`"group":{"gid":64712`)) {
		t.Errorf("%s", line)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestGroupThatIsNotThere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	if _, err := Open(path, &Options{Group: "no such group"}); err == nil || !strings.Contains(err.Error(), `option Group: there is no group "no such group"`) {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(path), "audit.trail")); err == nil {
		t.Error("something was made")
	}
}

// flagsWork skips where the append-only flag can't be set, and lifts all that
// a test leaves, or its folder could not be removed.
func flagsWork(t *testing.T, dir string) {
	t.Helper()
	name := filepath.Join(dir, "flag")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := durable.OS.SetAppendOnly(name, true); errors.Is(err, errors.ErrUnsupported) || errors.Is(err, fs.ErrPermission) {
		t.Skipf("the flag can't be set here: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				err = durable.OS.SetAppendOnly(name, false)
			}
			return err
		})
	})
}

// With the flag on, a trail goes through all that it does: seals, recovery, a
// successor. Nobody else changes or removes what is flagged.
func TestAppendOnly(t *testing.T) {
	for _, mode := range []string{"sealed", "all"} {
		t.Run(mode, func(t *testing.T) {
			dir := t.TempDir()
			flagsWork(t, dir)
			path := filepath.Join(dir, "audit.jsonl")
			ctx, state := context.Background(), t.TempDir()
			session := func(opts Options) {
				t.Helper()
				opts.StateDir = state
				opts.Warn = func(err error) { t.Errorf("warned: %v", err) }
				trail, err := Open(path, &opts)
				if err != nil {
					t.Fatal(err)
				}
				for range 2 {
					if _, err := trail.Record(ctx, event("a", "x")); err != nil {
						t.Fatal(err)
					}
					if _, err := trail.Rotate(ctx); err != nil {
						t.Fatal(err)
					}
				}
				if _, err := trail.Record(ctx, event("a", "x")); err != nil {
					t.Fatal(err)
				}
				if got := must(trail.Info(ctx)).AppendOnly; got != mode {
					t.Errorf("append-only %s, want %s", got, mode)
				}
				if err := trail.Close(); err != nil {
					t.Fatal(err)
				}
				if r := must(VerifyPath(ctx, path, &VerifyOptions{StateDir: state})); r.Status != "intact" {
					t.Errorf("%+v", r)
				}
			}
			check := func(log, trail string) {
				t.Helper()
				names, _ := filepath.Glob(filepath.Join(trail, "segments", "*"))
				more, _ := filepath.Glob(filepath.Join(trail, "aside", "*"))
				if names = append(names, more...); len(names) < 2 {
					t.Fatal(names)
				}
				for _, name := range append(names, log) {
					want := name != log || mode == "all"
					if on, err := durable.OS.AppendOnly(name); on != want || err != nil {
						t.Errorf("%s: flag %v, %v", name, on, err)
					}
					if !want {
						continue
					}
					if err := os.Remove(name); !errors.Is(err, fs.ErrPermission) {
						t.Errorf("%s: removed: %v", name, err)
					}
					if err := os.Truncate(name, 0); !errors.Is(err, fs.ErrPermission) {
						t.Errorf("%s: cut: %v", name, err)
					}
				}
			}
			session(Options{AppendOnly: mode})
			check(path, filepath.Join(dir, "audit.trail"))
			created := allLines(t, durable.OS, path)
			if !bytes.Contains(bytes.Join(created, nil), []byte(`"append_only":"`+mode+`"`)) {
				t.Error("the flag is in no entry")
			}

			// What a stranger appended is cut off again, and kept.
			f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(f, "{\"torn"); err != nil {
				t.Fatal(err)
			}
			f.Close()
			session(Options{AppendOnly: mode})
			check(path, filepath.Join(dir, "audit.trail"))

			// Lines that a crash left are written again under the flag.
			lines, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "audit.trail", "lock"), []byte("{\"pid\":1}\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			f, err = os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.Write(lines[:bytes.IndexByte(lines, '\n')+1]); err != nil {
				t.Fatal(err)
			}
			f.Close()
			session(Options{AppendOnly: mode})
			check(path, filepath.Join(dir, "audit.trail"))

			if mode == "all" { // the flag of the open segment is remembered by itself
				trail := must(Open(path, &Options{StateDir: state}))
				if _, err := trail.Rotate(ctx); err != nil {
					t.Fatal(err)
				}
				if err := trail.Close(); err != nil {
					t.Fatal(err)
				}
				if on, err := durable.OS.AppendOnly(path); !on || err != nil {
					t.Errorf("the new open segment: flag %v, %v", on, err)
				}
			}

			info, err := Init(path, &InitOptions{Options: Options{StateDir: state}, SuccessorOf: path})
			if err != nil {
				t.Fatal(err)
			}
			if info.AppendOnly != "off" {
				t.Errorf("the successor: %s", info.AppendOnly)
			}
			logs, _ := filepath.Glob(filepath.Join(dir, "audit.*.jsonl"))
			if len(logs) != 1 {
				t.Fatal(logs)
			}
			if mode == "sealed" {
				check(logs[0], strings.TrimSuffix(logs[0], ".jsonl")+".trail")
			} else if on, _ := durable.OS.AppendOnly(logs[0]); !on {
				t.Error("the old log has lost its flag")
			}
		})
	}
}

// The batches that a killed writer left in its ring are written to their
// places in a segment that has the flag.
func TestAppendOnlySegmentTakesTheRing(t *testing.T) {
	dir := t.TempDir()
	flagsWork(t, dir)
	ctx, state := context.Background(), t.TempDir()
	live := filepath.Join(dir, "live")
	if err := os.Mkdir(live, 0o700); err != nil {
		t.Fatal(err)
	}
	opts := Options{StateDir: state, AppendOnly: "all", ring: 1 << 20, ringAfter: 1, manual: true, NoSocket: true}
	trail := must(Open(filepath.Join(live, "audit.jsonl"), &opts))
	defer trail.Close()
	must(trail.Record(ctx, event("a", "x")))
	if err := trail.signer.sign(); err != nil { // from here on there is a ring
		t.Fatal(err)
	}
	for range 20 {
		must(trail.Record(ctx, event("a", "x")))
	}
	killed := filepath.Join(dir, "killed") // as a kill would leave the files now
	if err := os.CopyFS(killed, os.DirFS(live)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(killed, "audit.jsonl")
	if _, err := os.Stat(filepath.Join(killed, "audit.trail", "ring")); err != nil {
		t.Fatalf("there is no ring to be restored: %v", err)
	}
	// What the ring has is not all in the segment: a power failure.
	lines := must(os.ReadFile(path))
	if err := os.WriteFile(path, lines[:bytes.LastIndexByte(lines[:len(lines)-1], '\n')+1], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := durable.OS.SetAppendOnly(path, true); err != nil {
		t.Fatal(err)
	}
	again, err := Open(path, &opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	if got := must(os.ReadFile(path)); !bytes.HasPrefix(got, lines) {
		t.Errorf("not all of the lines that were acknowledged are there:\n%s", got)
	}
	if on, err := durable.OS.AppendOnly(path); !on || err != nil {
		t.Errorf("flag %v, %v", on, err)
	}
	if r := must(VerifyPath(ctx, path, &VerifyOptions{StateDir: state})); r.Status != "intact" {
		t.Errorf("%+v", r)
	}
}

const notPermittedEnv = "KAIZEN_TEST_NOT_PERMITTED"

// An option that can't be kept is an error, before anything is made.
func TestAppendOnlyThatIsNotPermitted(t *testing.T) {
	if dir := os.Getenv(notPermittedEnv); dir != "" { // the child, who is not root
		path := filepath.Join(dir, "audit.jsonl")
		_, err := Open(path, &Options{StateDir: dir, AppendOnly: "sealed"})
		if err == nil || !strings.Contains(err.Error(), "option AppendOnly") || !strings.Contains(err.Error(), "leave the option out") {
			t.Errorf("%v", err)
		}
		if _, err := os.Stat(path); err == nil {
			t.Error("a log was made")
		}
		// Where another one set the flag on the log, that is said too.
		_, err = Open(filepath.Join(dir, "flagged.jsonl"), &Options{StateDir: dir})
		if err == nil || !strings.Contains(err.Error(), "has the append-only flag, and a seal must lift it") {
			t.Errorf("%v", err)
		}
		return
	}
	if os.Getuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	dir := openFolder(t)
	flagsWork(t, dir)
	flagged := filepath.Join(dir, "flagged.jsonl")
	if err := must(Open(flagged, nil)).Close(); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(dir, func(name string, _ fs.DirEntry, err error) error {
		if filepath.Base(name) == "flag" {
			return nil
		}
		return errors.Join(err, os.Chown(name, shipperUID, shipperGID))
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := durable.OS.SetAppendOnly(flagged, true); err != nil {
		t.Fatal(err)
	}
	self, err := os.ReadFile(must(os.Executable()))
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "test")
	if err := os.WriteFile(program, self, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(program, 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "-test.run=^TestAppendOnlyThatIsNotPermitted$")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), notPermittedEnv+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: shipperUID, Gid: shipperGID}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
