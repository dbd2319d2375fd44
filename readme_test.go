package audit_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// blocks gives the fenced blocks of a language in the README, in order; there
// must be want of them.
func blocks(t *testing.T, language string, want int) []string {
	t.Helper()
	data, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	// Both fences stand alone on their lines, so that the end of one block is
	// not taken for the start of another.
	var found []string
	for _, m := range regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```$").FindAllStringSubmatch(string(data), -1) {
		if m[1] == language {
			found = append(found, m[2])
		}
	}
	if len(found) != want {
		t.Fatalf("%d blocks of %q in README.md, want %d", len(found), language, want)
	}
	return found
}

// program builds a main package into a folder of its own.
func program(t *testing.T, name, source string) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), name)
	if out, err := exec.Command("go", "build", "-o", bin, source).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return bin
}

// environment is the caller's without settings of ours, with what is given
// and a temporary folder of the test's.
func environment(t *testing.T, more ...string) []string {
	t.Helper()
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "KAIZEN_AUDIT_") {
			env = append(env, v)
		}
	}
	return append(append(env, "TMPDIR="+t.TempDir()), more...)
}

// What the README shows first is what the demo says.
func TestReadmeResult(t *testing.T) {
	cmd := exec.Command(program(t, "kaizen-audit", "./cmd/kaizen-audit"), "demo")
	cmd.Env = environment(t)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	clock := regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z`)
	said := clock.ReplaceAllString(string(out), "TIME")
	checked := 0
	for line := range strings.Lines(clock.ReplaceAllString(blocks(t, "", 5)[0], "TIME")) {
		if strings.HasPrefix(line, "$") || line == "\n" {
			continue // a command, or the space before it
		}
		if checked++; !strings.Contains(said, line) {
			t.Errorf("the demo does not say %q:\n%s", line, out)
		}
	}
	if checked < 5 {
		t.Errorf("%d lines of a result in README.md", checked)
	}
}

// The quick start for the shell, and the check by other tools after it, work
// when they are pasted.
func TestReadmeShell(t *testing.T) {
	bin := program(t, "kaizen-audit", "./cmd/kaizen-audit")
	sh := blocks(t, "sh", 3)
	others := true
	for _, tool := range []string{"sha256sum", "python3", "zstd"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Logf("the check by other tools is left out: %v", err)
			others = false
		}
	}
	script := sh[0]
	_, err := exec.LookPath("curl")
	if err == nil {
		script += sh[1]
	} else {
		t.Logf("recording with curl is left out: %v", err)
	}
	shared := err == nil
	if others {
		script += "echo OTHERS\n" + sh[2] + "cat audit.trail/checkpoint\n"
	}
	cmd := exec.Command("bash", "-eu", "-o", "pipefail", "-c", script)
	cmd.Env = environment(t, "PATH="+filepath.Dir(bin)+string(os.PathListSeparator)+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	ours, theirs, _ := strings.Cut(string(out), "OTHERS\n")
	for _, want := range []string{
		"tool_use:calculator", "failed: timeout", "Total entries: 2", "audit.jsonl: intact", "Anchor:     checkpoint",
		"Proved: the line is entry 2", "segments/00000000000000000000.jsonl.zst", "Segments:                1 sealed",
	} {
		if !strings.Contains(ours, want) {
			t.Errorf("the output lacks %q:\n%s", want, out)
		}
	}
	if through := regexp.MustCompile(`\{"index":\d+,"event_id":"[^"]+","digest":"[0-9a-f]{64}"\}`).FindAllString(ours, -1); shared && len(through) != 3 {
		t.Errorf("%d receipts, want two of record and one through the socket:\n%s", len(through), out)
	}
	receipt := regexp.MustCompile(`\{"index":2,"event_id":"[^"]+","digest":"([0-9a-f]{64})"\}`).FindStringSubmatch(ours)
	if receipt == nil {
		t.Fatalf("there is no receipt of entry 2:\n%s", out)
	}
	if !others {
		return
	}
	if !strings.HasPrefix(theirs, receipt[1]+" ") {
		t.Errorf("sha256sum gives another digest than the receipt %s:\n%s", receipt[1], theirs)
	}
	root := regexp.MustCompile(`(?m)^(\S+): (\d+) lines, root (\S+)\n(\S+)\n(\d+)\n(\S+)$`).FindStringSubmatch(theirs)
	if root == nil || root[1] != root[4] || root[2] != root[5] || root[3] != root[6] {
		t.Errorf("the program in Python gives another root than the checkpoint:\n%s", theirs)
	}
}

// The quick starts for Go compile and do what they say. The third, of the agent,
// is tested in its own module.
func TestReadmeGo(t *testing.T) {
	for i, want := range []string{
		`^on disk as entry 1\ntool_use:calculator true\n$`,
		`^1 entry of qa-agent-001\n={70}\nAUDIT TRAIL COMPLIANCE REPORT\n(?s:.*)  Success rate: 1/1 \(100\.0%\)\n`,
	} {
		// Inside the module, so that nothing has to be fetched; a name that
		// the go command passes over otherwise.
		dir, err := os.MkdirTemp("testdata", "readme")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		source := filepath.Join(dir, "main.go")
		if err := os.WriteFile(source, []byte(blocks(t, "go", 3)[i]), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(program(t, "program", source))
		cmd.Dir = t.TempDir()
		cmd.Env = environment(t, "KAIZEN_AUDIT_STATE="+t.TempDir())
		out, err := cmd.CombinedOutput()
		if err != nil || !regexp.MustCompile(want).Match(out) {
			t.Errorf("program %d: %v\n%s", i+1, err, out)
		}
	}
}
