package otlp

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// oldestNode is the oldest version of Node.js that the SDK runs on.
const oldestNode = 18

// javascript is a folder with the SDK for JavaScript in it, as its lock file has
// it. The test is skipped where there is no Node.js or no registry; with CI set
// both must be there.
func javascript(t *testing.T) string {
	t.Helper()
	missing := t.Skipf
	if os.Getenv("CI") != "" {
		missing = t.Fatalf
	}
	for _, command := range []string{"node", "npm"} {
		if _, err := exec.LookPath(command); err != nil {
			missing("the SDK for JavaScript is not tried: %v", err)
		}
	}
	version, err := run(t, "", "node", "--version")
	major, _, _ := strings.Cut(strings.TrimPrefix(version, "v"), ".")
	if n, numeric := strconv.Atoi(major); err != nil || numeric != nil || n < oldestNode {
		missing("the SDK for JavaScript is not tried: it needs Node.js %d, this is %s", oldestNode, version)
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata", "js"))); err != nil {
		t.Fatal(err)
	}
	if out, err := run(t, dir, "npm", "ci", "--prefer-offline"); err != nil {
		missing("the SDK for JavaScript is not tried: npm can't install it: %v\n%s", err, out)
	}
	return dir
}

// TestTheSDKForJavaScript: in JSON and in zipped protobuf the same entries.
func TestTheSDKForJavaScript(t *testing.T) {
	dir := javascript(t)
	for _, encoding := range []string{"json", "proto"} {
		t.Run(encoding, func(t *testing.T) {
			s := serve(t)
			if out, err := run(t, dir, "node", "send.mjs", encoding, s.url); err != nil || out != "sent\n" {
				t.Fatalf("%v: %s", err, out)
			}
			entries, _ := s.end(t)
			const want = `agent_execution_end
  llm_call:gpt-4.1-mini
    llm_call_details:gpt-4.1-mini
  tool_use:search
    log
  tool_use:weather
    specialist_invoke:meteo
      GET
`
			if got := tree(t, entries); got != want {
				t.Errorf("got\n%swant\n%s", got, want)
			}
			for _, e := range entries {
				if strings.Contains(string(e.Line()), "secret-word") {
					t.Errorf("%s", e.Line())
				}
			}
			golden(t, "javascript", entries)
		})
	}
}
