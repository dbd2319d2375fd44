package interop

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/transparency-dev/tessera/client"
	"github.com/transparency-dev/tessera/fsck"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/tree"
)

// TestTesseraFsckAcceptsAPrunedTrail once its packed tiles are served as docs/format.md
// says, by the program that stands there.
func TestTesseraFsckAcceptsAPrunedTrail(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	text, err := os.ReadFile(filepath.Join("..", "docs", "format.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, program, _ := strings.Cut(string(text), "```python\n")
	program, _, ok := strings.Cut(program, "```\n")
	if !ok {
		t.Fatal("there is no program in docs/format.md")
	}
	c := intact.copy(t)
	check := func() error {
		return fsck.New(c.origin, c.verifier(t), client.FileFetcher{Root: c.dir}, leafHashes, fsck.Opts{N: 16}).Check(bounded(t))
	}
	store := tree.NewStore(durable.OS, c.dir)
	for _, r := range [][2]int64{{0, 1000}, {1000, 40_000}, {40_100, 99_999}} {
		if err := store.Pack(r[0], r[1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := check(); err == nil {
		t.Error("tiles that are packed are not missed")
	}
	if out, err := exec.CommandContext(bounded(t), "python3", "-c", program, c.dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := check(); err != nil {
		t.Error(err)
	}
	// As files again they are what is packed.
	if err := store.Sweep(); err != nil {
		t.Error(err)
	}
}
