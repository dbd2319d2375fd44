package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The whole program with small segments. Its times mean nothing then.
func TestQuickRun(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "results.json")
	var out strings.Builder
	if err := run(&out, dir, file, quickly); err != nil {
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
	if res.Bytes == 0 || res.Archive <= 0 || res.Upload <= 0 || res.Ratio <= 0 || len(res.Ratios) == 0 {
		t.Errorf("%+v", res)
	}
	if !strings.Contains(out.String(), "of the upload's throughput") {
		t.Errorf("%s", &out)
	}
	left, err := filepath.Glob(filepath.Join(dir, "bench-archive-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
