package agent_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The README's quick start, pasted into an empty module, runs and is recorded. Its
// provider is a server that gives a recorded answer.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	source := ""
	for _, m := range regexp.MustCompile("(?ms)^```go\n(.*?)^```$").FindAllStringSubmatch(string(readme), -1) {
		if strings.Contains(m[1], `kaizen-audit/agent"`) {
			source = m[1]
		}
	}
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	const module = "github.com/kaizen-audit/kaizen-audit"
	gomod := "module try\n\ngo 1.26.0\n"
	for _, dir := range []string{"", "/agent", "/adapter/eino"} { // what is not released yet is here
		gomod += "\nreplace " + module + dir + " => " + root + dir + "\n"
	}
	sums, err := os.ReadFile("go.sum")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"main.go": source, "go.mod": gomod, "go.sum": string(sums)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	model := serve(t, recordings(t, "test_chat_completion_with_content")...)
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "KAIZEN_") && !strings.HasPrefix(v, "OPENAI_") {
			env = append(env, v)
		}
	}
	state := filepath.Join(dir, "state")
	run := exec.Command("go", "run", ".")
	run.Dir = dir
	run.Env = append(env, "GOWORK=off", "GOFLAGS=-mod=mod -buildvcs=false", "OPENAI_BASE_URL="+model.URL+"/v1", "OPENAI_API_KEY=a-key", "KAIZEN_AUDIT_STATE="+state, "KAIZEN_ENVIRONMENT=production")
	out, err := run.CombinedOutput()
	if err != nil || !strings.HasSuffix(string(out), "This is a test.\n") {
		t.Fatalf("%v\n%s", err, out)
	}
	all := entries(t, filepath.Join(dir, "audit.jsonl"), state, "qa-agent-001")
	const want = `qa-agent-001 AGENT_LOOP_START agent_execution_start
  qa-agent-001 LLM_CALL llm_call:gpt-4o-mini
qa-agent-001 AGENT_LOOP_END agent_execution_end
`
	if got := brief(all); got != want {
		t.Errorf("%s", got)
	}
	for _, e := range all {
		if e.Metadata.Text("service_name") != "my-agent" || e.Metadata.Text("environment") != "production" {
			t.Errorf("%s", e.Line())
		}
	}
}
