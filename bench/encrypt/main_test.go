package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The whole program, a few entries each. Times mean nothing then; bytes do.
func TestQuickRunKeepsTheBarsOfBytes(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "results.json")
	var out strings.Builder
	if err := run(&out, dir, file, true); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var res results
	if err := json.Unmarshal(text, &res); err != nil {
		t.Fatal(err)
	}
	if len(res.Rows) != 8 || len(res.Figures) != 12 {
		t.Fatalf("%d rows, %d figures", len(res.Rows), len(res.Figures))
	}
	for _, f := range res.Figures {
		// The bar of segments is not kept (docs/encryption.md), and says so.
		if strings.Contains(f.Name, "bytes") && !strings.Contains(f.Name, "segment") && f.Value > f.Bar || f.Value == 0 {
			t.Errorf("%+v", f)
		}
		if !strings.Contains(out.String(), f.Name) {
			t.Errorf("%s is not shown", f.Name)
		}
	}
	left, err := filepath.Glob(filepath.Join(dir, "bench-encrypt-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
