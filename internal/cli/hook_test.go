package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	audit "github.com/kaizen-audit/kaizen-audit"
)

// runHook runs the program as an agent does.
func runHook(t *testing.T, program, log, state, hook string) (said string) {
	t.Helper()
	cmd := exec.Command(program, "hook", "claude-code", "--log", log)
	name := filepath.Join(t.TempDir(), "hook.json")
	if err := os.WriteFile(name, []byte(hook), 0o600); err != nil {
		t.Error(err)
	}
	in, err := os.Open(name)
	if err != nil {
		t.Error(err)
	}
	defer in.Close()
	cmd.Stdin = in // it is all there, as an agent's is
	cmd.Env = append(os.Environ(), "KAIZEN_AUDIT_STATE="+state)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil || stdout.Len() > 0 {
		t.Errorf("%v, stdout %q, stderr %q", err, stdout.String(), stderr.String())
	}
	return stderr.String()
}

// theProgram is the test binary under the name by which TestMain makes it the
// program.
func theProgram(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "kaizen-audit")
	if err := os.Symlink(self, program); err != nil {
		t.Fatal(err)
	}
	return program
}

// theRealProgram is built as users have it: 200 copies of the test binary, with the
// race detector in them, take minutes of processor time to start.
func theRealProgram(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "kaizen-audit")
	if out, err := exec.Command("go", "build", "-o", program, "../../cmd/kaizen-audit").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return program
}

// entriesOf gives the actions of an agent's entries, after the next opening.
func actionsOf(t *testing.T, log, state string) map[string]int {
	t.Helper()
	trail, err := audit.Open(log, &audit.Options{StateDir: state})
	if err != nil {
		t.Fatal(err)
	}
	defer trail.Close()
	seen := map[string]int{}
	for e, err := range trail.Query(context.Background(), audit.Query{Agent: "claude-code"}) {
		if err != nil {
			t.Fatal(err)
		}
		var in struct{ N int }
		if err := e.Inputs.Decode(&in); err != nil {
			t.Fatal(err)
		}
		seen[fmt.Sprint(e.Action, " ", in.N)]++
	}
	report, err := trail.Verify(context.Background(), nil)
	if err != nil || report.Status != "intact" {
		t.Errorf("%+v, %v", report, err)
	}
	return seen
}

func post(n int) string {
	return fmt.Sprintf(`{"session_id":"s","hook_event_name":"PostToolUse","tool_name":"Bash","tool_input":{"n":%d},"tool_response":"ok","tool_use_id":"t%d"}`, n, n)
}

func TestTwoHundredHooksAtOnceAreAllRecordedOnce(t *testing.T) {
	program, dir := theRealProgram(t), t.TempDir()
	log, state := filepath.Join(dir, "a.jsonl"), filepath.Join(dir, "state")
	const n = 200
	var mu sync.Mutex
	var took []time.Duration
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			begin := time.Now()
			if said := runHook(t, program, log, state, post(i)); said != "" {
				t.Errorf("call %d: %s", i, said)
			}
			mu.Lock()
			defer mu.Unlock()
			took = append(took, time.Since(begin))
		})
	}
	wg.Wait()
	slices.Sort(took)
	t.Logf("all at once: median %s, longest %s", took[n/2], took[n-1])
	seen := actionsOf(t, log, state)
	for i := range n {
		if got := seen[fmt.Sprint("tool_use:Bash ", i)]; got != 1 {
			t.Errorf("call %d is there %d times", i, got)
		}
	}
	if len(seen) != n {
		t.Errorf("%d entries", len(seen))
	}
}

func TestOneHookAfterAnother(t *testing.T) {
	program, dir := theProgram(t), t.TempDir()
	log, state := filepath.Join(dir, "a.jsonl"), filepath.Join(dir, "state")
	var took []time.Duration
	for i := range 20 {
		begin := time.Now()
		if said := runHook(t, program, log, state, post(i)); said != "" {
			t.Error(said)
		}
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	t.Logf("one after another: median %s, longest %s", took[10], took[19])
	if seen := actionsOf(t, log, state); len(seen) != 20 {
		t.Errorf("%v", seen)
	}
}

func TestAHookEndsWhereStandardInputDoesNot(t *testing.T) {
	program, dir := theProgram(t), t.TempDir()
	cmd := exec.Command(program, "hook", "claude-code", "--log", filepath.Join(dir, "a.jsonl"))
	cmd.Env = append(os.Environ(), "KAIZEN_AUDIT_STATE="+filepath.Join(dir, "state"))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if _, err := io.WriteString(in, `{"session_id":`); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := cmd.Process.Wait(); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(begin); d > 5*time.Second { // 2 s, and what a busy machine takes
		t.Errorf("it took %s", d)
	}
	if seen := actionsOf(t, filepath.Join(dir, "a.jsonl"), filepath.Join(dir, "state")); seen["hook:unknown 0"] != 1 {
		t.Errorf("%v", seen)
	}
}
