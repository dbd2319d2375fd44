package cli

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	audit "github.com/kaizen-audit/kaizen-audit"
)

// startWitness runs the command witness until the test ends; it gives its address and
// its verifier key.
func startWitness(t *testing.T, state, name, trail string) (url, key string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	stderr, said := io.Pipe()
	var stdout bytes.Buffer
	ended := make(chan int, 1)
	go func() {
		ended <- Main(ctx, []string{"witness", "--state", state, "--name", name, "--trail", trail, "--listen", "127.0.0.1:0"}, strings.NewReader(""), &stdout, said)
		said.Close()
	}()
	lines := bufio.NewScanner(stderr)
	for url == "" && lines.Scan() {
		if m := regexp.MustCompile(`witness: at (http://\S+)`).FindStringSubmatch(lines.Text()); m != nil {
			url = m[1]
		}
	}
	go io.Copy(io.Discard, stderr)
	t.Cleanup(func() {
		cancel()
		select {
		case code := <-ended:
			if code != exitDone {
				t.Errorf("the witness ended with %d", code)
			}
		case <-time.After(10 * time.Second):
			t.Error("the witness does not end")
		}
	})
	if url == "" {
		t.Fatal("the witness does not start")
	}
	return url, strings.TrimSpace(stdout.String()) // it was written before the address
}

// Two installations cosign each other's trails: each verifies with the other as its
// anchor, and a directory that is rolled back is not opened any more.
func TestTwoInstallationsCosignEachOther(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("KAIZEN_AUDIT_STATE", filepath.Join(dir, "state"))
	run := func(want int, stdin string, args ...string) string {
		t.Helper()
		var stdout, stderr bytes.Buffer
		if code := Main(context.Background(), args, strings.NewReader(stdin), &stdout, &stderr); code != want {
			t.Fatalf("%q: exit code %d, want %d\n%s%s", args, code, want, stdout.String(), stderr.String())
		}
		return stdout.String() + stderr.String()
	}
	const event = `{"event_type":"TOOL_USE","agent_id":"a","action":"tool_use:x"}` + "\n"
	logs, vkeys := map[string]string{}, map[string]string{}
	for _, side := range []string{"here", "there"} {
		logs[side] = filepath.Join(dir, side+".jsonl")
		info, err := audit.Init(logs[side], &audit.InitOptions{Options: audit.Options{StateDir: filepath.Join(dir, "state")}})
		if err != nil {
			t.Fatal(err)
		}
		vkeys[side] = info.VKey
	}
	for side, other := range map[string]string{"here": "there", "there": "here"} {
		url, key := startWitness(t, filepath.Join(dir, other+"-witness"), other+".example.org/witness", vkeys[side])
		config := fmt.Sprintf("anchors:\n  - witness: %s\n    key: %s\n    every: 1ms\n", url, key)
		if err := os.WriteFile(filepath.Join(dir, side+".yaml"), []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for side, other := range map[string]string{"here": "there", "there": "here"} {
		with := []string{"--log", logs[side], "--config", filepath.Join(dir, side+".yaml")}
		run(exitDone, event, append([]string{"record"}, with...)...)
		before, err := os.ReadFile(logs[side])
		if err != nil {
			t.Fatal(err)
		}
		signed, err := os.ReadFile(filepath.Join(dir, side+".trail", "checkpoint"))
		if err != nil {
			t.Fatal(err)
		}
		run(exitDone, event, append([]string{"record"}, with...)...)
		said := run(exitDone, "", append([]string{"verify", "--require-anchor"}, with...)...)
		if !strings.Contains(said, "by witness "+other+".example.org/witness") {
			t.Errorf("%s: %s", side, said)
		}
		if said = run(exitDone, "", append([]string{"info"}, with...)...); !strings.Contains(said, "witness "+other+".example.org/witness: ") || strings.Contains(said, "nothing yet") {
			t.Errorf("%s: %s", side, said)
		}
		if said = run(exitDone, "", append([]string{"doctor"}, with...)...); !strings.Contains(said, "witness "+other+".example.org/witness: ") {
			t.Errorf("%s: %s", side, said)
		}
		// Lines and checkpoint go back to what they were.
		if err := os.WriteFile(logs[side], before, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, side+".trail", "checkpoint"), signed, 0o600); err != nil {
			t.Fatal(err)
		}
		if said = run(exitFailed, event, append([]string{"record"}, with...)...); !strings.Contains(said, "another history of this trail is known outside") || !strings.Contains(said, "hint: find out who has the other history") {
			t.Errorf("%s: %s", side, said)
		}
	}
}
