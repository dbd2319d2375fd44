package witness

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// inNamespace makes the test binary the child that has a /run of its own.
const inNamespace = "KAIZEN_TEST_SYSLOG"

// A checkpoint arrives at the local syslog as one line, with everything that is
// needed to make a file of it again.
func TestSyslogTakesACheckpoint(t *testing.T) {
	if _, err := os.Lstat("/dev/log"); !errors.Is(err, fs.ErrNotExist) {
		t.Skip("there is a syslog here, which is not ours to listen to")
	}
	if os.Getenv(inNamespace) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestSyslogTakesACheckpoint$", "-test.v")
		cmd.Env = append(os.Environ(), inNamespace+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
		out, err := cmd.CombinedOutput()
		switch {
		case errors.Is(err, fs.ErrPermission), strings.Contains(string(out), "--- SKIP"):
			t.Skip("a file system can't be mounted here")
		case err != nil || !strings.Contains(string(out), "--- PASS"):
			t.Errorf("%v: %s", err, out)
		}
		return
	}
	// What is mounted is only this process's.
	if err := syscall.Mount("tmpfs", "/var/run", "tmpfs", 0, ""); err != nil {
		t.Skip(err)
	}
	c, err := net.ListenPacket("unixgram", "/var/run/syslog")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sink, err := ParseSink("syslog:")
	if err != nil {
		t.Fatal(err)
	}
	const checkpoint = "example.com/trail\n7\nqqqq\n\n— example.com/trail AAAA\n"
	if err := sink.Send(context.Background(), []byte(checkpoint)); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4096)
	n, _, err := c.ReadFrom(b)
	if err != nil {
		t.Fatal(err)
	}
	_, said, ok := strings.Cut(string(b[:n]), ": checkpoint ")
	if !ok || !strings.Contains(string(b[:n]), "kaizen-audit") || strings.ReplaceAll(strings.TrimSuffix(said, "\n"), `\n`, "\n") != checkpoint {
		t.Errorf("%q", b[:n])
	}
}
