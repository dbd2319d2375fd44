package agent_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// prelude has what the blocks of the guide take for granted.
const prelude = `package guide

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/cloudwego/eino/components/tool"
	"github.com/cloudwego/eino/components/tool/utils"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/agent"
	"github.com/kaizen-audit/kaizen-audit/hook"
)

var (
	_ = fmt.Sprint
	_ = time.Now
	_ tool.BaseTool
	_ = utils.InferTool[any, any]
	_ = audit.Of
	_ = agent.New
	_ hook.Event
)
`

// Every block of Go in docs/agent.md compiles.
func TestTheGuideCompiles(t *testing.T) {
	guide, err := os.ReadFile("../docs/agent.md")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString(prelude)
	blocks := regexp.MustCompile("(?ms)^```go\n(.*?)^```$").FindAllStringSubmatch(string(guide), -1)
	for _, m := range blocks {
		b.WriteString(`
func _(ctx context.Context, r *http.Request, userID, sessionID, traceID string, qa *agent.BaseAgent, manager *audit.AuditTrailManager, config agent.Config, signature agent.Signature) (err error) {
	{
` + m[1])
		// What a block ends with is for what follows it.
		for _, name := range regexp.MustCompile(`(?m)^(\w+)(?:, err)? := `).FindAllStringSubmatch(m[1], -1) {
			b.WriteString("_ = " + name[1] + "\n")
		}
		if regexp.MustCompile(`(?m)^\w+, err := `).MatchString(m[1]) {
			b.WriteString("_ = err\n")
		}
		b.WriteString("}\nreturn err\n}\n")
	}
	if len(blocks) < 8 {
		t.Fatalf("%d blocks", len(blocks))
	}
	// Inside the module, so that nothing has to be fetched.
	dir, err := os.MkdirTemp("testdata", "guide")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "guide.go"), []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("go", "build", "./"+dir).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s\n%s", err, out, b.String())
	}
}
