package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSmallTrailIsVerifiedByBoth: rootOf must give the checkpoint's root for
// the run to succeed.
func TestSmallTrailIsVerifiedByBoth(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "results.json")
	var out strings.Builder
	if err := run(&out, 3000, 2, dir, file); err != nil {
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
	if len(res.Rows) != 2 || res.Rows[1].Bytes >= res.Rows[0].Bytes {
		t.Errorf("rows %+v: want the open and the smaller sealed one", res.Rows)
	}
	for _, r := range res.Rows {
		if r.Entries <= 3000 || r.Ours <= 0 || r.Peer <= 0 || !strings.Contains(out.String(), r.Files) {
			t.Errorf("%+v in\n%s", r, out.String())
		}
	}
}

// TestPeerSeesEveryByte: otherwise its rate would mean nothing.
func TestPeerSeesEveryByte(t *testing.T) {
	log := filepath.Join(t.TempDir(), "trail", "log.jsonl")
	if err := makeTrail(log, 1000, 1<<40, false); err != nil {
		t.Fatal(err)
	}
	h, err := readHead(log)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	for _, threads := range []int{1, 2, 7} {
		parts, err := split(log, h.size, threads)
		if err != nil {
			t.Fatal(err)
		}
		root, err := rootOf(parts)
		if err != nil || root != h.root {
			t.Fatalf("%d threads: root %x, %v; the checkpoint has %x", threads, root, err, h.root)
		}
		for _, at := range []int{10, len(b) / 2, len(b) - 10} {
			changed := append([]byte(nil), b...)
			changed[at] ^= 1
			if err := os.WriteFile(log, changed, 0o600); err != nil {
				t.Fatal(err)
			}
			if root, err := rootOf(parts); err == nil && root == h.root {
				t.Errorf("%d threads: a change at byte %d is not seen", threads, at)
			}
		}
		if err := os.WriteFile(log, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
