package audit

import (
	"context"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"

	"github.com/kaizen-audit/kaizen-audit/internal/verify"
)

// A verification since the last one reads the segments that came after, is recorded,
// and finds what was changed there; in doubt it reads everything.
func TestVerifySinceLast(t *testing.T) {
	ctx := context.Background()
	for _, encrypt := range []bool{false, true} {
		path, o := profileTrail(t, "plain", Options{Encrypt: encrypt})
		o.Encrypt, o.Durability = false, Written // many entries, and no power failure
		trail := openWith(t, path, o)
		seal := func() {
			for range 300 { // more than a bundle
				mustRecord(t, trail, personalEvent("mia", "t"))
			}
			if _, err := trail.Rotate(ctx); err != nil {
				t.Fatal(err)
			}
			if err := trail.signer.sign(); err != nil {
				t.Fatal(err)
			}
		}
		since := func(want string, skipped bool) {
			t.Helper()
			if err := trail.signer.sign(); err != nil {
				t.Fatal(err)
			}
			r, err := trail.VerifySinceLast(ctx, &VerifyOptions{StateDir: o.StateDir})
			if err != nil || r.Status != want || (r.Since > 0) != skipped {
				t.Fatalf("encrypted %v: %+v, %v; want %s, since %v", encrypt, r, err, want, skipped)
			}
			if r.Status == verify.Intact && skipped && (r.Ranges[0].State != "checked before" || r.Ranges[0].Count != r.Since) {
				t.Errorf("%+v", r.Ranges)
			}
		}
		seal()
		seal()
		since(verify.Intact, false) // the first of all
		since(verify.Intact, true)
		seal()
		since(verify.Intact, true)
		entries := found(t, trail, Query{EventTypes: []string{"AUDIT_VERIFY"}})
		if len(entries) != 3 || entries[2].Outputs.Text("status") != verify.Intact {
			t.Fatalf("%d entries", len(entries))
		}
		for _, e := range entries { // which detectors would take for a secret now and then if it were base64
			if root, err := hex.DecodeString(e.Outputs.Text("root")); err != nil || len(root) != 32 {
				t.Errorf("the root is recorded as %q", e.Outputs.Text("root"))
			}
		}
		// A changed line in what is read is found, and then everything is read.
		seal()
		segments, err := filepath.Glob(filepath.Join(trail.dir, "segments", "*.zst"))
		if err != nil || len(segments) != 4 {
			t.Fatal(segments, err)
		}
		last := segments[3]
		b, err := os.ReadFile(last)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(last, 0o600); err != nil {
			t.Fatal(err)
		}
		good := append([]byte(nil), b...)
		b[len(b)/2] ^= 1
		if err := os.WriteFile(last, b, 0o600); err != nil {
			t.Fatal(err)
		}
		since(verify.Damaged, false)
		if err := os.WriteFile(last, good, 0o600); err != nil {
			t.Fatal(err)
		}
		since(verify.Intact, true) // a damaged one is no beginning for the next
		// A bundle before it is missing: nothing stands for the lines any more.
		bundle := filepath.Join(trail.dir, "tile", "entries", "001")
		if err := os.Remove(bundle); err != nil {
			t.Fatal(err)
		}
		since(verify.Damaged, false)
	}
}

// Where the oldest segments are pruned, lawfully, the lines since the last verification
// are enough too; where one more is gone, everything is read and it is missed.
func TestVerifySinceLastBehindWhatWasPruned(t *testing.T) {
	ctx := context.Background()
	c := newTimed(t, Options{RetentionDays: 6})
	since := func(want string) *VerifyReport {
		t.Helper()
		if err := c.signer.sign(); err != nil {
			t.Fatal(err)
		}
		r, err := c.VerifySinceLast(ctx, &VerifyOptions{StateDir: c.opts.StateDir})
		if err != nil || r.Status != want {
			t.Fatalf("%+v, %v; want %s", r, err, want)
		}
		next := int64(0)
		for _, x := range r.Ranges {
			if x.First != next && want == verify.Intact {
				t.Errorf("ranges do not join: %+v", r.Ranges)
			}
			next = x.First + x.Count
		}
		return r
	}
	c.bigDay(300)
	since(verify.Intact)
	for day := range 12 {
		c.bigDay(300)
		r, err := c.Prune(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		v := since(verify.Intact)
		if v.Since == 0 {
			t.Errorf("day %d: everything was read: %+v", day, v)
		}
		if pruned := r.Pruned.Segments > 0; pruned != (day >= 5) || pruned && v.Ranges[0].State != "pruned" {
			t.Errorf("day %d: %d segments were pruned, %+v", day, r.Pruned.Segments, v.Ranges)
		}
	}
	// The prune that permits it lies further back than the last verification.
	for range 4 {
		c.bigDay(300)
		if v := since(verify.Intact); v.Since == 0 || v.Ranges[0].State != "pruned" || v.Ranges[1].State != "checked before" {
			t.Errorf("%+v", v)
		}
	}
	names, err := filepath.Glob(filepath.Join(c.Dir(), "segments", "*.zst"))
	if err != nil || len(names) < 6 {
		t.Fatal(names, err)
	}
	if err := os.Remove(names[0]); err != nil {
		t.Fatal(err)
	}
	if v := since(verify.Damaged); v.Problem != "missing" || v.Since != 0 {
		t.Errorf("%+v", v)
	}
}
