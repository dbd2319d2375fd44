package durable_test

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
)

// lockEnv names the file that a child of this test locks.
const lockEnv = "DURABLE_TEST_LOCK"

func TestMain(m *testing.M) {
	if name := os.Getenv(lockEnv); name != "" {
		holdLock(name)
	}
	os.Exit(m.Run())
}

// holdLock is the child: it takes the lock, says so, and waits to be killed,
// or for its parent to go away.
func holdLock(name string) {
	f, err := durable.OS.OpenFile(name, os.O_RDWR, 0)
	if err == nil {
		err = durable.OS.Lock(f)
	}
	if err != nil {
		os.Stdout.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
	os.Stdout.WriteString("locked\n")
	io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

func TestLockOfAKilledProcessIsFree(t *testing.T) {
	name := filepath.Join(t.TempDir(), "a")
	check(t, durable.CreateFile(durable.OS, name, nil, 0o600))
	f, err := durable.OS.OpenFile(name, os.O_RDWR, 0)
	check(t, err)
	defer f.Close()

	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), lockEnv+"="+name)
	child.Stderr = os.Stderr
	stdin, err := child.StdinPipe()
	check(t, err)
	defer stdin.Close()
	stdout, err := child.StdoutPipe()
	check(t, err)
	check(t, child.Start())
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || line != "locked\n" {
		child.Process.Kill()
		child.Wait()
		t.Fatalf("child: %q, %v", line, err)
	}
	if err := durable.OS.Lock(f); !errors.Is(err, durable.ErrLocked) {
		t.Errorf("while the child has it: %v", err)
	}
	check(t, child.Process.Signal(syscall.SIGKILL))
	child.Wait()
	if got := child.ProcessState.Sys().(syscall.WaitStatus).Signal(); got != syscall.SIGKILL {
		t.Errorf("the child ended by %v", got)
	}
	check(t, durable.OS.Lock(f))
}

// tinyDisk mounts a file system of 1 MiB.
func tinyDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m,mode=0700"); err != nil {
		t.Skipf("no tmpfs can be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
			syscall.Unmount(dir, syscall.MNT_DETACH)
		}
	})
	return dir
}

func TestFullDiskIsMetAtReserveAndWrite(t *testing.T) {
	dir := tinyDisk(t)
	name := filepath.Join(dir, "a")
	f, err := durable.OS.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	check(t, err)
	defer f.Close()
	if err := f.Reserve(2 << 20); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("reserve: %v, want ENOSPC", err)
	}
	check(t, f.Reserve(512<<10))

	// What is reserved is there, whatever others do.
	g, err := durable.OS.OpenFile(filepath.Join(dir, "b"), os.O_WRONLY|os.O_CREATE, 0o600)
	check(t, err)
	defer g.Close()
	n, err := g.Write(make([]byte, 2<<20))
	if !errors.Is(err, syscall.ENOSPC) || n == 0 || n > 512<<10 {
		t.Errorf("write: %d bytes, %v, want a part and ENOSPC", n, err)
	}
	_, err = f.Write(make([]byte, 512<<10))
	check(t, err)
	n, err = f.Write([]byte("x"))
	if !errors.Is(err, syscall.ENOSPC) || n != 0 {
		t.Errorf("write beyond the reservation: %d bytes, %v, want ENOSPC", n, err)
	}

	// Cutting back gives the space to whoever comes next.
	check(t, g.Truncate(0))
	_, err = f.Write([]byte("x"))
	check(t, err)
	check(t, f.Sync())
}

func TestWriteFileOnAFullDiskKeepsTheOldContent(t *testing.T) {
	dir := tinyDisk(t)
	name := filepath.Join(dir, "a")
	check(t, durable.WriteFile(durable.OS, name, oldContent, 0o600))
	if err := durable.WriteFile(durable.OS, name, make([]byte, 2<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("got %v, want ENOSPC", err)
	}
	if replaced(t, durable.OS, name) {
		t.Error("new content from nowhere")
	}
	check(t, durable.WriteFile(durable.OS, name, newContent, 0o600)) // there is room again
}

// With the flag a file can be appended to and nothing else, until the flag is
// lifted.
func TestAppendOnlyFlag(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "a")
	check(t, durable.CreateFile(durable.OS, name, oldContent, 0o600))
	err := durable.OS.SetAppendOnly(name, true)
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.EPERM) {
		t.Skipf("the flag can't be set here: %v", err)
	}
	check(t, err)
	t.Cleanup(func() { durable.OS.SetAppendOnly(name, false) }) // or the folder could not be removed
	if on, err := durable.OS.AppendOnly(name); !on || err != nil {
		t.Errorf("flag %v, %v", on, err)
	}
	for what, do := range map[string]func() error{
		"write": func() error { return durable.CreateFile(durable.OS, name, newContent, 0o600) },
		"truncate": func() error {
			f, err := durable.OS.OpenFile(name, os.O_RDWR|os.O_APPEND, 0)
			if err != nil {
				return nil
			}
			return errors.Join(f.Truncate(0), f.Close())
		},
		"rename":       func() error { return durable.OS.Rename(name, name+"2") },
		"link":         func() error { return durable.OS.Link(name, name+"2") },
		"replace":      func() error { return durable.WriteFile(durable.OS, name, newContent, 0o600) },
		"remove":       func() error { return durable.OS.Remove(name) },
		"chmod":        func() error { return durable.OS.Chmod(name, 0o400) },
		"open, no app": func() error { _, err := durable.OS.OpenFile(name, os.O_RDWR, 0); return err },
	} {
		if err := do(); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s: %v, want a refusal", what, err)
		}
	}
	if replaced(t, durable.OS, name) {
		t.Error("the file was changed")
	}
	f, err := durable.OS.OpenFile(name, os.O_RDWR|os.O_APPEND, 0)
	check(t, err)
	_, err = f.Write([]byte("more"))
	check(t, errors.Join(err, f.Sync(), f.Close()))
	check(t, durable.OS.SetAppendOnly(name, false))
	if on, err := durable.OS.AppendOnly(name); on || err != nil {
		t.Errorf("lifted: flag %v, %v", on, err)
	}
	check(t, durable.OS.Remove(name))
}

func TestLookupGroup(t *testing.T) {
	for in, want := range map[string]int{"0": 0, "4711": 4711} {
		if got, err := durable.LookupGroup(in); got != want || err != nil {
			t.Errorf("%s: %d, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "-1", "no such group", "99999999999"} {
		if got, err := durable.LookupGroup(in); err == nil {
			t.Errorf("%q: %d", in, got)
		}
	}
	name := durable.GroupName(0)
	if got, err := durable.LookupGroup(name); got != 0 || err != nil {
		t.Errorf("%s: %d, %v", name, got, err)
	}
}
