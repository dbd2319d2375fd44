package interop

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/witness"
)

// smallTrail makes a trail, and its options.
func smallTrail(t *testing.T) (log, vkey string, o *audit.Options) {
	t.Helper()
	dir := t.TempDir()
	log = filepath.Join(dir, "audit.jsonl")
	o = &audit.Options{StateDir: filepath.Join(dir, "state"), NoSocket: true}
	info, err := audit.Init(log, &audit.InitOptions{Options: *o})
	if err != nil {
		t.Fatal(err)
	}
	return log, info.VKey, o
}

func recordOne(t *testing.T, log string, o *audit.Options) {
	t.Helper()
	a, err := audit.Open(log, o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Record(context.Background(), audit.Event{EventType: audit.ToolUse, AgentID: "a", Action: "tool_use:x"}); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
}

// cosigned is what is kept of the only anchor.
func cosigned(t *testing.T, log string) []byte {
	t.Helper()
	files, err := filepath.Glob(strings.TrimSuffix(log, ".jsonl") + ".trail/anchors/witness-*/*.checkpoint")
	if err != nil || len(files) != 1 {
		t.Fatalf("%q, %v", files, err)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestTorchwoodTakesOurCosignatures: what our witness signs is what others read.
func TestTorchwoodTakesOurCosignatures(t *testing.T) {
	log, vkey, o := smallTrail(t)
	text, err := witness.NewSignerKey("example.org/ours")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := witness.ParseSigner(text)
	if err != nil {
		t.Fatal(err)
	}
	w, err := witness.NewServer(durable.OS, t.TempDir(), signer, []string{vkey})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(w)
	defer server.Close()
	o.Anchors = []audit.Anchor{{URL: server.URL, VKey: signer.Cosigner.String(), Every: time.Nanosecond}}
	recordOne(t, log, o)
	theirs, err := torchwood.NewCosignatureVerifier(signer.Cosigner.String())
	if err != nil {
		t.Fatal(err)
	}
	n, err := note.Open(cosigned(t, log), note.VerifierList(theirs))
	if err != nil || len(n.Sigs) != 1 {
		t.Fatal(err)
	}
	if at, err := torchwood.CosignatureTimestamp(n.Sigs[0]); err != nil || time.Since(time.Unix(at, 0)) > time.Minute {
		t.Errorf("%d, %v", at, err)
	}
}

// TestLitewitnessIsAnAnchor runs torchwood's litewitness, a public witness, as the
// anchor of a trail: it cosigns what goes on, and a rollback of the whole directory
// is caught by it alone.
func TestLitewitnessIsAnAnchor(t *testing.T) {
	log, vkey, o := smallTrail(t)
	url, key := litewitness(t, vkey)
	o.Anchors = []audit.Anchor{{URL: url, VKey: key, Every: time.Nanosecond}}
	recordOne(t, log, o)
	before := t.TempDir()
	copyAll(t, filepath.Dir(log), before)
	recordOne(t, log, o)
	recordOne(t, log, o)
	theirs, err := torchwood.NewCosignatureVerifier(key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := note.Open(cosigned(t, log), note.VerifierList(theirs)); err != nil {
		t.Fatal(err)
	}
	// All of it goes back, what is kept below the state directory too.
	rolled := filepath.Join(before, "audit.jsonl")
	back := *o
	back.StateDir = filepath.Join(before, "state")
	if _, err := audit.Open(rolled, &back); !errors.Is(err, audit.ErrForked) {
		t.Errorf("rolled back, and opened: %v", err)
	}
	recordOne(t, log, o) // the trail itself goes on
}

func copyAll(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	// CopyFS adds permissions; a trail's are its owner's alone.
	err := filepath.WalkDir(to, func(name string, d os.DirEntry, err error) error {
		mode := os.FileMode(0o600)
		if d.IsDir() {
			mode = 0o700
		}
		return errors.Join(err, os.Chmod(name, mode))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// litewitness starts one that knows a trail, and gives its address and key. Its own
// key lives in an SSH agent, its logs in a database of SQLite, which Python fills:
// the command for it is in a module that can't be had.
func litewitness(t *testing.T, vkey string) (url, key string) {
	t.Helper()
	for _, tool := range []string{"ssh-agent", "ssh-add", "ssh-keygen", "python3"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("skipped: no %s on this machine; litewitness was not run", tool)
		}
	}
	dir, err := os.MkdirTemp("", "lw") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	run := func(name string, args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(bounded(t), name, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		return string(out)
	}
	install := exec.CommandContext(bounded(t), "go", "install", "filippo.io/torchwood/cmd/litewitness@v0.9.0")
	install.Env = append(os.Environ(), "GOBIN="+dir, "GOWORK=off", "GOFLAGS=")
	install.Dir = dir
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	private, sock, db := filepath.Join(dir, "key"), filepath.Join(dir, "s"), filepath.Join(dir, "db")
	run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", private)
	agent := exec.Command("ssh-agent", "-D", "-a", sock)
	start(t, agent)
	waitFor(t, func() bool { _, err := os.Stat(sock); return err == nil })
	add := exec.CommandContext(bounded(t), "ssh-add", "-q", private)
	add.Env = append(os.Environ(), "SSH_AUTH_SOCK="+sock)
	if out, err := add.CombinedOutput(); err != nil {
		t.Fatalf("ssh-add: %v\n%s", err, out)
	}
	fingerprint := strings.Fields(run("ssh-keygen", "-lf", private+".pub"))[1]
	origin, _, _ := strings.Cut(vkey, "+")
	run("python3", "-c", `import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.executescript("""CREATE TABLE log (origin TEXT PRIMARY KEY, tree_size INTEGER NOT NULL, tree_hash TEXT NOT NULL);
CREATE TABLE key (origin TEXT NOT NULL, key TEXT NOT NULL, FOREIGN KEY(origin) REFERENCES log(origin));""")
db.execute("INSERT INTO log VALUES (?, 0, '47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=')", (sys.argv[2],))
db.execute("INSERT INTO key VALUES (?, ?)", (sys.argv[2], sys.argv[3]))
db.commit()`, db, origin, vkey)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	server := exec.Command(filepath.Join(dir, "litewitness"), "-db", db, "-ssh-agent", sock, "-listen", address, "-key", fingerprint, "-name", "example.com/lite", "-obscurity")
	said, err := server.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	start(t, server)
	keys := make(chan string, 1)
	go func() {
		defer close(keys)
		for lines := bufio.NewScanner(said); lines.Scan(); {
			if m := regexp.MustCompile(`vkey="?(example\.com/lite\+[^ "]+)`).FindStringSubmatch(lines.Text()); m != nil {
				keys <- m[1]
			}
		}
	}()
	select {
	case key = <-keys:
	case <-time.After(20 * time.Second):
	}
	if key == "" {
		t.Fatal("litewitness does not say its key")
	}
	go func() {
		for range keys {
		}
	}()
	waitFor(t, func() bool {
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return fmt.Sprintf("http://%s", address), key
}

// start starts a process that ends with the test.
func start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

func waitFor(t *testing.T, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it did not come to pass")
		}
	}
}
