package audit_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// block gives the one fenced block of a language in the README.
func block(t *testing.T, language string) string {
	t.Helper()
	data, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllSubmatch(data, -1)
	if len(found) != 1 {
		t.Fatalf("%d blocks of %s in README.md, want 1", len(found), language)
	}
	return string(found[0][1])
}

// The quick start for the shell works when it is pasted.
func TestReadmeShell(t *testing.T) {
	bin := t.TempDir()
	build := exec.Command("go", "build", "-o", filepath.Join(bin, "kaizen-audit"), "./cmd/kaizen-audit")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.Command("bash", "-eu", "-o", "pipefail", "-c", block(t, "sh"))
	cmd.Env = append(os.Environ(), "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"), "TMPDIR="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{`{"index":1,`, "tool_use:calculator", "Total entries: 2", "audit.jsonl: intact", "Proved: the line is entry 1", "segments/00000000000000000000.jsonl.zst"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the output lacks %q:\n%s", want, out)
		}
	}
}

// The quick start for Go compiles and does what it says.
func TestReadmeGo(t *testing.T) {
	// Inside the module, so that nothing has to be fetched; a name that the
	// go command passes over otherwise.
	dir, err := os.MkdirTemp("testdata", "readme")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	main := filepath.Join(dir, "main.go")
	if err := os.WriteFile(main, []byte(block(t, "go")), 0o600); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "program")
	if out, err := exec.Command("go", "build", "-o", program, main).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.Command(program)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "KAIZEN_AUDIT_STATE="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if want := "on disk as entry 1\ntool_use:calculator true\n"; err != nil || string(out) != want {
		t.Errorf("%v\n%s", err, out)
	}
}
