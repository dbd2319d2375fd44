package audit

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/durable/durabletest"
	"github.com/kaizen-audit/kaizen-audit/internal/pin"
)

// signedTimes is how many signatures the trail's checkpoint has, and whether vkey's
// is one of them.
func signedTimes(t *testing.T, trail *Trail, vkey string) (int, bool) {
	t.Helper()
	text, err := durable.ReadFile(trail.opts.fs, filepath.Join(trail.Dir(), "checkpoint"), maxSmallFile)
	if err != nil {
		t.Fatal(err)
	}
	v, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	_, err = note.Open(text, note.VerifierList(v))
	return strings.Count(string(text), "\n— "), err == nil
}

func intact(t *testing.T, path, key string, o *Options) {
	t.Helper()
	r, err := VerifyPath(context.Background(), path, &VerifyOptions{Key: key, StateDir: o.StateDir})
	if err != nil || r.Status != "intact" {
		t.Errorf("with key %q: %+v, %v", key, r, err)
	}
}

// The signing key is rotated: both keys verify while they overlap, the former one
// follows to the new one afterwards, and so do pins and proofs.
func TestRotateSigningKey(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.jsonl")
	o := &Options{StateDir: filepath.Join(dir, "state"), Command: "test"}
	trail := openWith(t, path, o)
	record := func() Receipt {
		t.Helper()
		r, err := trail.Record(ctx, Event{EventType: ToolUse, AgentID: "a", Action: "tool_use:x"})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	first := record()
	if err := trail.signer.sign(); err != nil {
		t.Fatal(err)
	}
	old, err := os.ReadFile(filepath.Join(trail.Dir(), "checkpoint"))
	if err != nil {
		t.Fatal(err)
	}
	was := trail.VKey()
	elsewhere := filepath.Join(dir, "elsewhere") // another machine, which knows the former key
	if err := pin.Put(elsewhere, trail.Path(), trail.Origin(), was); err != nil {
		t.Fatal(err)
	}
	reader := openWith(t, path, &Options{ReadOnly: true, StateDir: o.StateDir}) // open throughout
	if err := trail.RotateSigningKey(ctx, true); err != nil {
		t.Fatal(err)
	}
	now := trail.VKey()
	if now == was || trail.ids().LifecycleVKey != now {
		t.Fatalf("%s after %s", now, was)
	}
	for _, key := range []string{was, now} {
		if n, ok := signedTimes(t, trail, key); n != 2 || !ok {
			t.Errorf("%d signatures, %v", n, ok)
		}
	}
	if err := trail.RotateSigningKey(ctx, false); err == nil {
		t.Error("a third key while two sign")
	}
	last := record()
	if _, err := trail.Rotate(ctx); err != nil { // a seal in between
		t.Fatal(err)
	}
	for _, key := range []string{was, now, ""} {
		intact(t, path, key, o)
	}
	proof, err := trail.Prove(ctx, first.Index)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{was, now} {
		if _, err := CheckProof(proof, first.Digest, key); err != nil {
			t.Errorf("proof of before: %v", err)
		}
	}
	if _, err := trail.ProveConsistency(ctx, old); err != nil { // signed by the former key
		t.Error(err)
	}
	// It goes on after a restart, with both.
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	trail = openWith(t, path, o)
	record()
	if err := trail.RetireSigningKey(ctx); err != nil {
		t.Fatal(err)
	}
	if err := trail.RetireSigningKey(ctx); err == nil {
		t.Error("retired twice")
	}
	record()
	if err := trail.signer.sign(); err != nil {
		t.Fatal(err)
	}
	if n, ok := signedTimes(t, trail, now); n != 1 || !ok {
		t.Errorf("%d signatures, %v", n, ok)
	}
	if _, err := reader.Prove(ctx, last.Index); err != nil {
		t.Errorf("a reader of before the rotation: %v", err)
	}
	for _, key := range []string{was, now, ""} {
		intact(t, path, key, o)
	}
	intact(t, path, "", &Options{StateDir: elsewhere})
	follower := openWith(t, path, &Options{ReadOnly: true, StateDir: elsewhere})
	if p, _, err := pin.Origin(elsewhere, trail.Origin()); err != nil || p.VKey != now {
		t.Errorf("the pin does not follow: %+v, %v", p, err)
	}
	follower.Close()
	// The former key is nowhere in keys/.
	text, err := os.ReadFile(filepath.Join(trail.Dir(), "keys", "signing.key"))
	if err != nil || strings.Count(string(text), "\n") != 1 {
		t.Errorf("%d keys, %v", strings.Count(string(text), "\n"), err)
	}
	// And once more.
	if err := trail.RotateSigningKey(ctx, false); err != nil {
		t.Fatal(err)
	}
	if err := trail.RetireSigningKey(ctx); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{was, now, trail.VKey(), ""} {
		intact(t, path, key, o)
	}
	var kinds []string
	for e, err := range trail.Query(ctx, Query{EventTypes: []string{"AUDIT_KEY"}}) {
		if err != nil {
			t.Fatal(err)
		}
		kinds = append(kinds, e.Outputs.Text("kind")+" "+e.Action)
	}
	// Each is signed by the key of its index, as those judge who know no more than vkeys.
	state, err := trail.says(ctx, trail.signer.latest.Load().Size)
	if err != nil || len(state.NotValid) > 0 || state.LifecycleVKey != trail.VKey() {
		t.Errorf("%+v, %v", state, err)
	}
	want := []string{"signing key_rotated", "lifecycle key_rotated", "signing key_retired"}
	if !slices.Equal(kinds, append(want, want...)) {
		t.Errorf("%q", kinds)
	}
}

// Whoever changes trail.json links no key of theirs to the trail's.
func TestNobodyElseRotates(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.jsonl")
	o := &Options{StateDir: filepath.Join(dir, "state"), Command: "test"}
	trail := openWith(t, path, o)
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(trail.Dir(), "trail.json")
	good, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	_, evil, err := note.GenerateKey(nil, trail.Origin())
	if err != nil {
		t.Fatal(err)
	}
	forged := bytes.Replace(good, []byte(`"vkey":"`+trail.VKey()), []byte(`"vkey":"`+evil), 1)
	forged = bytes.Replace(forged, []byte(`"from":0}]`), []byte(`"from":0},{"vkey":"`+evil+`","from":2,"rotation":"x"}]`), 1)
	if err := os.WriteFile(name, forged, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, o); !errors.Is(err, ErrPinned) {
		t.Errorf("open: %v", err)
	}
	r, err := VerifyPath(context.Background(), path, &VerifyOptions{StateDir: o.StateDir})
	if err != nil || r.Status != "damaged" || r.Artefact != "trail.json" {
		t.Errorf("%+v, %v", r, err)
	}
}

// A lifecycle key that is kept elsewhere is needed for a rotation, and stays.
func TestLifecycleKeyApart(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.jsonl")
	key := filepath.Join(dir, "lifecycle.key")
	o := &Options{StateDir: filepath.Join(dir, "state"), Command: "test", LifecycleKeyFile: key}
	trail := openWith(t, path, o)
	id := trail.ids()
	if id.LifecycleVKey == id.VKey || id.LifecycleVKey == "" {
		t.Fatalf("%+v", id)
	}
	if fi, err := os.Stat(key); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi, err)
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	without := *o
	without.LifecycleKeyFile = ""
	trail = openWith(t, path, &without)
	if err := trail.RotateSigningKey(ctx, false); err == nil || !strings.Contains(err.Error(), "lifecycle key is not at hand") {
		t.Errorf("%v", err)
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	trail = openWith(t, path, o)
	if err := trail.RotateSigningKey(ctx, false); err != nil {
		t.Fatal(err)
	}
	if now := trail.ids(); now.LifecycleVKey != id.LifecycleVKey || now.VKey == id.VKey {
		t.Errorf("%+v", now)
	}
	intact(t, path, id.VKey, o)
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	other := *o
	other.LifecycleKeyFile = filepath.Join(dir, "other.key")
	if err := os.WriteFile(other.LifecycleKeyFile, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, &other); err == nil || !strings.Contains(err.Error(), "not a signing key") {
		t.Errorf("%v", err)
	}
}

// A power failure at any step of a rotation: it has not begun, or the next opening
// completes it, and everything stays verifiable by whoever knows the former key.
func TestRotationOfSigningKeySurvivesACrashAtEveryStep(t *testing.T) {
	ctx := context.Background()
	var rotated, kept atomic.Int32
	durabletest.EachCrash(t, 1, func(t *testing.T, r *durabletest.Run) {
		o := &Options{fs: r.FS, manual: true, quiet: true, ring: -1}
		trail, err := Open("/log/audit.jsonl", withDir(t, r.FS, o))
		if err != nil {
			t.Fatal(err)
		}
		was := trail.VKey()
		if _, err := trail.Record(ctx, Event{EventType: ToolUse, AgentID: "a", Action: "x"}); err != nil {
			t.Fatal(err)
		}
		if err := trail.signer.sign(); err != nil {
			t.Fatal(err)
		}
		done := false
		r.Inject(func() { done = trail.RotateSigningKey(ctx, false) == nil })
		trail.Close() // of a process that is gone, where the power failed
		fsys := r.Restart()
		trail, err = Open("/log/audit.jsonl", &Options{fs: fsys, manual: true, quiet: true, ring: -1})
		if err != nil {
			t.Fatalf("after the crash: %v", err)
		}
		now := trail.VKey()
		if done && now == was {
			t.Error("a rotation that returned is gone")
		}
		if now == was {
			kept.Add(1)
		} else {
			rotated.Add(1)
		}
		if _, err := trail.Record(ctx, Event{EventType: ToolUse, AgentID: "a", Action: "y"}); err != nil {
			t.Fatal(err)
		}
		if err := trail.signer.sign(); err != nil {
			t.Fatal(err)
		}
		want := 1
		if now != was {
			want = 2
		}
		if n, ok := signedTimes(t, trail, was); n != want || !ok {
			t.Errorf("%d signatures, %v", n, ok)
		}
		// A key that is kept says so nowhere, one that was rotated in an entry.
		says := false
		view, err := trail.journal.View()
		if err != nil {
			t.Fatal(err)
		}
		var adopted []adoptedRange
		for _, part := range view.Parts() {
			if _, err := view.Part(ctx, part, func(index int64, line []byte) error {
				e, err := entry.Parse(line)
				if err != nil {
					return err
				}
				var facts struct{ Adopted []adoptedRange }
				if e.EventType == "AUDIT_RECOVERY" && e.Outputs.Decode(&facts) == nil {
					adopted = append(adopted, facts.Adopted...)
				}
				says = says || e.EventType == "AUDIT_KEY" && e.Outputs.Text("id") == now
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		}
		view.Close()
		if says != (now != was) {
			t.Errorf("the entry says %v; the key is another: %v", says, now != was)
		}
		if err := trail.RotateSigningKey(ctx, false); (now == was) != (err == nil) { // it can be done again, or has to be retired
			t.Error(err)
		}
		trail.Close()
	})
	if rotated.Load() == 0 || kept.Load() == 0 {
		t.Errorf("%d rotated, %d kept: one of the two never happens", rotated.Load(), kept.Load())
	}
}

func withDir(t *testing.T, fsys durable.FS, o *Options) *Options {
	t.Helper()
	if err := fsys.Mkdir("/log", 0o700); err != nil {
		t.Fatal(err)
	}
	return o
}
