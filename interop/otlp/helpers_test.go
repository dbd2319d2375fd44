package otlp

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	audit "github.com/kaizen-audit/kaizen-audit"
)

var update = flag.Bool("update", false, "write the golden files")

// program is the command, built from this checkout.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "interop-otlp-")
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, "kaizen-audit")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", name, "./cmd/kaizen-audit")
	build.Dir = filepath.Join("..", "..")
	build.Env = append(os.Environ(), "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return name, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if name, err := program(); err == nil {
		if err := os.RemoveAll(filepath.Dir(name)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// server is a process that is kaizen-audit serve --otlp.
type server struct {
	url, log, state string
	cmd             *exec.Cmd
	said            chan []string // on stderr, once it has ended
}

func serve(t *testing.T) *server {
	t.Helper()
	name, err := program()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := &server{log: filepath.Join(dir, "audit.jsonl"), state: filepath.Join(dir, "state"), said: make(chan []string, 1)}
	s.cmd = exec.Command(name, "serve", "--log", s.log, "--otlp", "127.0.0.1:0")
	s.cmd.Env = append(os.Environ(), "KAIZEN_AUDIT_STATE="+s.state)
	out, err := s.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make(chan string, 1)
	go func() {
		var said []string
		for lines := bufio.NewScanner(out); lines.Scan(); {
			said = append(said, lines.Text())
			if _, url, ok := strings.Cut(lines.Text(), "OTLP at "); ok {
				ready <- url
			}
		}
		s.said <- said
	}()
	t.Cleanup(func() {
		if s.cmd.ProcessState == nil {
			_ = s.cmd.Process.Kill()
			_ = s.cmd.Wait()
		}
	})
	select {
	case s.url = <-ready:
	case said := <-s.said:
		t.Fatalf("it has ended: %s", strings.Join(said, "\n"))
	case <-time.After(time.Minute):
		t.Fatal("it does not listen")
	}
	return s
}

// end ends the server, verifies its trail, and gives what came over OTLP, oldest
// first, and what the server has said.
func (s *server) end(t *testing.T) (entries []audit.Entry, said []string) {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	said = <-s.said
	if err := s.cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, strings.Join(said, "\n"))
	}
	report, err := audit.VerifyPath(t.Context(), s.log, nil)
	if err != nil || report.Status != "intact" {
		t.Fatalf("verify: %+v, %v", report, err)
	}
	trail, err := audit.Open(s.log, &audit.Options{ReadOnly: true, StateDir: s.state})
	if err != nil {
		t.Fatal(err)
	}
	defer trail.Close()
	for e, err := range trail.Query(t.Context(), audit.Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.RecordedBy.Text("via") == "otlp" {
			entries = append(entries, e)
		}
	}
	return entries, said
}

// golden compares every field of every entry with testdata/NAME.txt, but for those
// that the trail gives by chance, and the digest of what was sent, which is
// another in another encoding.
func golden(t *testing.T, name string, entries []audit.Entry) {
	t.Helper()
	chance := regexp.MustCompile(`(?m)^ "(event_id|recorded_at)": .*\n`)
	digest := regexp.MustCompile(`(?m)^( "idempotency_key": "otlp:.*:)[0-9a-f]{32}",$`)
	var got strings.Builder
	for _, e := range entries {
		var line bytes.Buffer
		if err := json.Indent(&line, e.Line(), "", " "); err != nil {
			t.Fatal(err)
		}
		got.WriteString(digest.ReplaceAllString(chance.ReplaceAllString(line.String(), ""), "${1}DIGEST\",") + "\n")
	}
	file := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(file, []byte(got.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("not as in %s (-update writes it):\n%s", file, got.String())
	}
}

// tree writes the spans of a trace as they hang from one another, each by its
// action; it fails where one hangs from nothing.
func tree(t *testing.T, entries []audit.Entry) string {
	t.Helper()
	spans := map[string]bool{}
	for _, e := range entries {
		if e.SpanID != "" {
			if spans[e.SpanID] {
				t.Errorf("span %s is there twice", e.SpanID)
			}
			spans[e.SpanID] = true
		}
		if e.TraceID != entries[0].TraceID {
			t.Errorf("%s is of another trace", e.Action)
		}
	}
	var out strings.Builder
	placed := 0
	var below func(parent, indent string)
	below = func(parent, indent string) {
		for _, e := range entries {
			if e.ParentSpanID == parent {
				placed++
				fmt.Fprintf(&out, "%s%s\n", indent, e.Action)
				if e.SpanID != "" {
					below(e.SpanID, indent+"  ")
				}
			}
		}
	}
	below("", "")
	if placed != len(entries) {
		t.Errorf("%d of %d entries are in the tree:\n%s", placed, len(entries), out.String())
	}
	return out.String()
}

// run runs a command that must end in time, and gives what it says.
func run(t *testing.T, dir, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	return string(out), errors.Join(err, ctx.Err())
}
