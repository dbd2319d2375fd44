package main

import (
	"os"
	"testing"
)

func TestItRuns(t *testing.T) {
	dir := t.TempDir()
	if err := run(1, 3, dir); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("%d files are left behind", len(left))
	}
}
