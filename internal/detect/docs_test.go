package detect_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/kaizen-audit/kaizen-audit/internal/detect"
)

// TestDocumentedDetectors holds the table of docs/detectors.md against the code:
// every rule with its class and what it finds, in the code's order, and no other.
func TestDocumentedDetectors(t *testing.T) {
	doc, err := os.ReadFile("../../docs/detectors.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(doc), "| rule | class | finds |")
	table, _, _ = strings.Cut(table, "\n\n")
	rows := strings.Split(strings.TrimSpace(table), "\n")[2:]
	all := detect.Rules()
	if len(rows) != len(all) {
		t.Fatalf("%d rows, %d rules", len(rows), len(all))
	}
	for i, r := range all {
		if want := fmt.Sprintf("| `%s` | %s | %s |", r.Rule, r.Class, r.Finds); !strings.HasPrefix(rows[i], want) {
			t.Errorf("row %d is\n%s\nand should begin\n%s", i, rows[i], want)
		}
	}
}
