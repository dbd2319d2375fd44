//go:build unix

package cli

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A signer of another user's: the writer's user records and verifies, can't read the
// key, and nobody else has anything signed.
func TestSignerOfAnotherUser(t *testing.T) {
	dir, run := asNobody(t)
	state, sock := filepath.Join(dir, "signer"), filepath.Join(dir, "run", "sock")
	for _, d := range []struct {
		name string
		mode os.FileMode
	}{{filepath.Dir(sock), 0o755}, {filepath.Join(dir, "t"), 0o700}} {
		if err := os.Mkdir(d.name, d.mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(filepath.Join(dir, "t"), nobody, nobody); err != nil {
		t.Fatal(err)
	}
	signer := exec.Command(filepath.Join(dir, programName), "signer", "--state", state, "--origin", "audit.example.org/agents", "--listen", "unix:"+sock, "--writer", "65534")
	said, err := signer.StderrPipe()
	if err == nil {
		err = signer.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(said)
	if !lines.Scan() || !strings.Contains(lines.Text(), "signer: of audit.example.org/agents") {
		t.Fatalf("it says %q", lines.Text())
	}
	log := filepath.Join(dir, "t", "audit.jsonl")
	asWriter := func(args ...string) string {
		t.Helper()
		code, out, errs := run(append(args, "--log", log)...)
		if code != exitDone {
			t.Fatalf("%v: exit code %d: %s%s", args, code, out, errs)
		}
		return out + errs
	}
	asWriter("init", "--signer", "unix:"+sock)
	asWriter("record")
	if out := asWriter("info"); !strings.Contains(out, "user 0 and root, with the signer at unix:"+sock) {
		t.Error(out)
	}
	if out := asWriter("keys", "list"); !strings.Contains(out, "audit.example.org/agents") || !strings.Contains(out, "unix:"+sock) {
		t.Error(out)
	}
	asWriter("verify")
	if out := asWriter("doctor"); !strings.Contains(out, "by the signer at unix:"+sock) {
		t.Error(out)
	}
	cat := exec.Command("cat", filepath.Join(state, "signer.key"))
	cat.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	if err := cat.Run(); err == nil {
		t.Error("the writer reads the key")
	}
	// A third user who gets as far as the socket.
	if err := os.Chmod(sock, 0o666); err != nil {
		t.Fatal(err)
	}
	stranger := exec.Command(filepath.Join(dir, programName), "init", "--log", filepath.Join(dir, "x", "audit.jsonl"), "--signer", "unix:"+sock)
	if err := os.Mkdir(filepath.Join(dir, "x"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "x"), 0o777); err != nil {
		t.Fatal(err)
	}
	stranger.Env = []string{"HOME=/", "PATH=" + os.Getenv("PATH")}
	stranger.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody - 1, Gid: nobody - 1}}
	out, err := stranger.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "user 65533 may not have this trail signed") {
		t.Errorf("%v: %s", err, out)
	}
	if !lines.Scan() || !strings.Contains(lines.Text(), "refused: user 65533") {
		t.Errorf("the signer says %q", lines.Text())
	}
	if err := signer.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() {
		t.Errorf("it says %q", lines.Text())
	}
	if err := signer.Wait(); err != nil {
		t.Error(err)
	}
}
