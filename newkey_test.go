package audit

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kaizen-audit/kaizen-audit/archive"
	"github.com/kaizen-audit/kaizen-audit/internal/lifecycle"
	"github.com/kaizen-audit/kaizen-audit/internal/pin"
	"github.com/kaizen-audit/kaizen-audit/internal/verify"
)

// lostKeys is a trail that was archived, and of which nothing else is left but the
// key that it had.
func lostKeys(t *testing.T, o Options) (path, vkey string, want []string, store *archive.Dir) {
	t.Helper()
	dir := t.TempDir()
	path, store = filepath.Join(dir, "audit.jsonl"), dirStore(t)
	trail := archivedTrail(t, path, o)
	want, vkey = actionsOf(t, trail), trail.ids().VKey
	_, err := trail.Archive(t.Context(), store, nil)
	if err = errors.Join(err, trail.Close(), os.RemoveAll(filepath.Join(dir, "audit.trail")), os.Remove(path)); err != nil {
		t.Fatal(err)
	}
	return path, vkey, want, store
}

func TestATrailWhoseSigningKeyIsLostGoesOnWithANewOne(t *testing.T) {
	for _, kind := range []string{"plain", "encrypted", "in place", "lifecycle key apart"} {
		t.Run(kind, func(t *testing.T) {
			state := t.TempDir()
			o := Options{StateDir: state, Encrypt: kind == "encrypted"}
			if kind == "lifecycle key apart" {
				o.LifecycleKeyFile = filepath.Join(t.TempDir(), "lifecycle.key")
			}
			path, old, want, store := lostKeys(t, o)
			o.Encrypt = false
			if kind == "in place" {
				r, err := Restore(t.Context(), path, store, &RestoreOptions{StateDir: state})
				if err != nil || r.Writable {
					t.Fatalf("restored: %+v, %v", r, err)
				}
				if _, err := Open(path, &o); err == nil || !strings.Contains(err.Error(), "keys restore BACKUP") || !strings.Contains(err.Error(), "--new-key") {
					t.Errorf("opened to write without a key: %v", err)
				}
			}
			if o.LifecycleKeyFile != "" {
				if _, err := Restore(t.Context(), path, store, &RestoreOptions{StateDir: state, NewKey: true}); !errors.Is(err, errNoLifecycleKey) {
					t.Fatalf("without the lifecycle key: %v", err)
				}
			}
			r, err := Restore(t.Context(), path, store, &RestoreOptions{StateDir: state, NewKey: true, Successor: o})
			if err != nil {
				t.Fatal(err)
			}
			if !r.Writable || r.NewKey == "" || r.NewKey == old || r.Missing != nil || r.Size == 0 || r.Segments != 2 {
				t.Errorf("restored: %+v", r)
			}
			report := intactAt(t, path, state)
			if len(report.Replaced) != 1 || report.Replaced[0].VKey != r.NewKey || report.Replaced[0].From != r.Size+1 || report.Anchor != verify.AnchorPinned {
				t.Errorf("verify says %+v", report)
			}
			trail, err := Open(path, &o)
			if err != nil {
				t.Fatal(err)
			}
			if got := actionsOf(t, trail); !slices.Equal(got, want) {
				t.Errorf("%d entries, want %d", len(got), len(want))
			}
			if n := replacements(t, trail); n != 1 {
				t.Errorf("%d valid entries say that the key was replaced", n)
			}
			// What is permitted from here on is, by the key that is the lifecycle key now.
			if _, err := trail.AddHold(t.Context(), HoldRequest{Agent: "agent-1", Reason: "case"}); err != nil {
				t.Fatal(err)
			}
			recordSome(t, trail, 900, 5)
			if i, err := trail.Info(t.Context()); err != nil || i.KeyReplaced != r.Size+1 {
				t.Errorf("info: %+v, %v", i, err)
			}
			if keys, err := trail.Keys(t.Context()); err != nil || keys[0].State != "lost" || keys[1].State != "current" {
				t.Errorf("keys: %+v, %v", keys, err)
			}
			if _, err := trail.Rotate(t.Context()); err != nil {
				t.Fatal(err)
			}
			if holds, err := trail.Holds(t.Context()); err != nil || len(holds) != 1 {
				t.Errorf("holds: %v, %v", holds, err)
			}
			if s, err := trail.Archive(t.Context(), store, nil); err != nil || s.Exposed != 0 {
				t.Errorf("archived on: %+v, %v", s, err)
			}
			if err := trail.Close(); err != nil {
				t.Fatal(err)
			}
			intactAt(t, path, state)
			if v, err := VerifyArchive(t.Context(), store, &RestoreOptions{StateDir: state}); err != nil || v.Segments != 3 {
				t.Errorf("archive: %+v, %v", v, err)
			}
			if _, err := Restore(t.Context(), path, store, &RestoreOptions{StateDir: state, NewKey: true, Successor: o}); !errors.Is(err, ErrOption) {
				t.Errorf("another new key beside the one that is there: %v", err)
			}
			knowsTheOld(t, path, old, r)
		})
	}
}

// knowsTheOld is an auditor who has pinned the key that was lost.
func knowsTheOld(t *testing.T, path, old string, r *Restored) {
	t.Helper()
	v, err := VerifyPath(t.Context(), path, &VerifyOptions{StateDir: t.TempDir(), Key: old})
	if err != nil || v.Status != verify.Damaged || v.Artefact != verify.TrailJSON || !strings.Contains(v.Detail, "was lost") {
		t.Fatalf("with the former key: %+v, %v", v, err)
	}
	if v.Size == 0 || v.Size > r.Size {
		t.Errorf("the former key vouches for %d entries, of %d that it has signed", v.Size, r.Size)
	}
	state := t.TempDir()
	if err := pin.Put(state, path, r.Origin, old); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, &Options{StateDir: state, ReadOnly: true}); !errors.Is(err, ErrPinned) || !strings.Contains(err.Error(), "was lost") || !strings.Contains(err.Error(), r.NewKey) {
		t.Errorf("opened where the former key is pinned: %v", err)
	}
	if err := acceptReplaced(state, path, trailDir(path)); err != nil {
		t.Fatal(err)
	}
	intactAt(t, path, state)
	if v, err := VerifyPath(t.Context(), path, &VerifyOptions{StateDir: t.TempDir(), Key: r.NewKey}); err != nil || v.Status != verify.Intact {
		t.Errorf("with the new key: %+v, %v", v, err)
	}
}

// Wherever a machine dies while the key is replaced, the same command again makes it
// whole, with one new key and one valid entry.
func TestANewKeyIsWholeWhereverTheMachineDied(t *testing.T) {
	for _, at := range []string{"keys made", "trail.json written", "entry written"} {
		t.Run(at, func(t *testing.T) {
			state := t.TempDir()
			path, _, _, store := lostKeys(t, Options{StateDir: state})
			dir := trailDir(path)
			if _, err := Restore(t.Context(), path, store, &RestoreOptions{StateDir: state}); err != nil {
				t.Fatal(err)
			}
			n, err := newKeyFor(path, dir, state, Options{})
			if err != nil {
				t.Fatal(err)
			}
			var made string
			if at == "keys made" {
				c, _, err := n.t.latest()
				if err != nil {
					t.Fatal(err)
				}
				if _, err := n.replace(t.Context(), n.t.id, c.Size); err != nil {
					t.Fatal(err)
				}
			} else if _, err := n.inPlace(t.Context(), store); err != nil {
				t.Fatal(err)
			}
			made = n.t.id.VKey
			if at == "entry written" {
				// The entry is in the file, and its checkpoint is not.
				before, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
				if err != nil {
					t.Fatal(err)
				}
				trail, err := Open(path, &Options{StateDir: t.TempDir()})
				if err != nil {
					t.Fatal(err)
				}
				trail.journal.Stop(errors.New("the machine dies"))
				_ = trail.Close()
				if err := os.WriteFile(filepath.Join(dir, "checkpoint"), before, 0o600); err != nil {
					t.Fatal(err)
				}
				if err := os.RemoveAll(filepath.Join(dir, "checkpoints")); err != nil {
					t.Fatal(err)
				}
			}
			r, err := Restore(t.Context(), path, store, &RestoreOptions{StateDir: state, NewKey: true})
			if err != nil {
				t.Fatal(err)
			}
			if r.NewKey != made {
				t.Errorf("the key is %s, and %s was made before", r.NewKey, made)
			}
			report := intactAt(t, path, state)
			if len(report.Replaced) != 1 {
				t.Errorf("verify says %+v", report)
			}
			trail, err := Open(path, &Options{StateDir: state})
			if err != nil {
				t.Fatal(err)
			}
			defer trail.Close()
			if n := replacements(t, trail); n != 1 {
				t.Errorf("%d valid entries say so", n)
			}
		})
	}
}

// replacements counts the valid entries that say that the signing key was replaced.
func replacements(t *testing.T, trail *Trail) (valid int) {
	t.Helper()
	covered, err := trail.covered()
	if err != nil {
		t.Fatal(err)
	}
	s, err := trail.says(context.Background(), covered)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range trail.said.lines {
		if strings.Contains(string(l.Text), `"key_replaced"`) && !slices.ContainsFunc(s.NotValid, func(n lifecycle.NotValid) bool { return n.Index == l.Index }) {
			valid++
		}
	}
	return valid
}
