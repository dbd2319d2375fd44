package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestQuickRunGivesTableAndJSON: the whole program, a few entries each.
func TestQuickRunGivesTableAndJSON(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "results.json")
	var out strings.Builder
	if err := run(&out, dir, file, "", true); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var res results
	if err := json.Unmarshal(b, &res); err != nil {
		t.Fatal(err)
	}
	want := 0
	for _, c := range comparisons() {
		want += len(c.Contestants)
	}
	if len(res.Rows) != want {
		t.Fatalf("%d rows, want %d", len(res.Rows), want)
	}
	for _, r := range res.Rows {
		if r.Entries == 0 || r.P95 <= 0 || r.Rate <= 0 || r.Bytes <= 0 || r.Ratio <= 0 {
			t.Errorf("a value is missing: %+v", r)
		}
		if !strings.Contains(out.String(), "  "+r.Name+" ") {
			t.Errorf("%s is not in the table", r.Name)
		}
	}
	left, err := filepath.Glob(filepath.Join(dir, "bench-append-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
