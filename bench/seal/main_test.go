package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
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
	if len(res.Figures) != 2 || res.Segment != 1<<20 {
		t.Fatalf("%+v", res)
	}
	for _, f := range res.Figures {
		if len(f.Rounds) != 1 || f.Without.Commits == 0 || f.With.Commits == 0 || f.With.Max < f.With.P999 {
			t.Errorf("%+v", f)
		}
	}
	if !strings.Contains(out.String(), "8 writers: a seal adds ") {
		t.Errorf("%s", &out)
	}
	left, err := filepath.Glob(filepath.Join(dir, "bench-seal-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestPhaseOf(t *testing.T) {
	var took []time.Duration
	for n := range 2000 {
		took = append(took, time.Duration(2000-n)*time.Millisecond)
	}
	if p := phaseOf(took); p != (phase{2000, 1000, 1980, 1998, 2000}) {
		t.Errorf("%+v", p)
	}
	if p := phaseOf(nil); p != (phase{}) {
		t.Errorf("%+v", p)
	}
}
