package cli

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// pipe makes a named pipe.
func pipe(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// A file that is named may be a pipe, as a shell's <(…) is. Where nothing ever
// comes, a signal ends the command.
func TestASignalEndsTheWaitForAPipe(t *testing.T) {
	const vkey = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
	log := filepath.Join(t.TempDir(), "a.jsonl")
	t.Setenv("KAIZEN_AUDIT_STATE", t.TempDir())
	if code := Main(t.Context(), []string{"init", "--log", log}, strings.NewReader(""), &bytes.Buffer{}, os.Stderr); code != exitDone {
		t.Fatal(code)
	}
	silent := pipe(t) // somebody has it open and says nothing
	keep, err := os.OpenFile(silent, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer keep.Close()
	for _, name := range []string{pipe(t), silent} {
		for _, args := range [][]string{
			{"verify", "--checkpoint", name}, {"prove", "--from", name}, {"import", name}, {"info", "--config", name}, {"config", "check", name},
			{"check-proof", name, "--digest", strings.Repeat("0", 64), "--key", vkey},
		} {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			stop, interrupt := context.WithCancel(context.Background())
			context.AfterFunc(ctx, interrupt) // as a signal does: canceled, not too late
			var stderr bytes.Buffer
			exit := make(chan int, 1)
			go func() {
				exit <- Main(stop, append(args, "--log", log), strings.NewReader(""), &bytes.Buffer{}, &stderr)
			}()
			select {
			case code := <-exit:
				if code != exitPartly || !strings.Contains(stderr.String(), "interrupted") && !strings.Contains(stderr.String(), "stopped by a signal") {
					t.Errorf("%v: exit code %d, %s", args, code, stderr.String())
				}
			case <-time.After(10 * time.Second):
				t.Fatalf("%v does not end", args)
			}
			cancel()
		}
	}
}

// What comes through a pipe counts as what a file has.
func TestOperandsMayBePipes(t *testing.T) {
	log, name := filepath.Join(t.TempDir(), "a.jsonl"), pipe(t)
	t.Setenv("KAIZEN_AUDIT_STATE", t.TempDir())
	feed := func(text string) {
		go func() { _ = os.WriteFile(name, []byte(text), 0) }()
	}
	for _, c := range []struct {
		text string
		args []string
	}{
		{"trail: {durability: written}\n", []string{"init", "--config", name}},
		{`{"timestamp":"2025-10-26T10:53:45Z","agent_id":"a","action":"x"}` + "\n", []string{"import", name}},
	} {
		feed(c.text)
		var stderr bytes.Buffer
		if code := Main(t.Context(), append(c.args, "--log", log), strings.NewReader(""), &bytes.Buffer{}, &stderr); code != exitDone {
			t.Errorf("%v: exit code %d, %s", c.args, code, stderr.String())
		}
	}
	checkpoint, err := os.ReadFile(strings.TrimSuffix(log, ".jsonl") + ".trail/checkpoint")
	if err != nil {
		t.Fatal(err)
	}
	feed(string(checkpoint))
	var stdout bytes.Buffer
	if code := Main(t.Context(), []string{"verify", "--checkpoint", name, "--log", log}, strings.NewReader(""), &stdout, os.Stderr); code != exitDone || !strings.Contains(stdout.String(), "an older one") {
		t.Errorf("exit code %d, %s", code, stdout.String())
	}
}
