package main

import (
	"os"
	"strings"
	"testing"
)

func TestLimitIsHeld(t *testing.T) {
	for _, mode := range []string{"written", "queued"} {
		dir := t.TempDir()
		if err := run(500, 4, 4000, mode, dir); err != nil {
			t.Error(err)
		}
		// One MB is less than any Go program has.
		if err := run(500, 4, 1, mode, dir); err == nil || !strings.Contains(err.Error(), "limit") {
			t.Errorf("%s, above the limit: error %v", mode, err)
		}
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("%d files are left behind", len(left))
		}
	}
	if err := run(1, 1, 100, "durable", t.TempDir()); err == nil {
		t.Error("mode durable is not refused")
	}
}
