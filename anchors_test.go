package audit

import (
	"context"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/verify"
	"github.com/kaizen-audit/kaizen-audit/internal/witness"
	"github.com/kaizen-audit/kaizen-audit/internal/witness/tsatest"
)

// witnessFor runs a witness of ours for a trail, on loopback.
func witnessFor(t *testing.T, vkey string) Anchor {
	t.Helper()
	text, err := witness.NewSignerKey("example.org/witness")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := witness.ParseSigner(text)
	if err != nil {
		t.Fatal(err)
	}
	w, err := witness.NewServer(durable.OS, t.TempDir(), signer, []string{vkey})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(w)
	t.Cleanup(server.Close)
	return Anchor{URL: server.URL, VKey: signer.Cosigner.String(), Every: time.Nanosecond}
}

// anchoredTrail makes a trail with an anchor of a kind, and its options.
func anchoredTrail(t *testing.T, kind string) (string, *Options) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.jsonl")
	o := &Options{StateDir: filepath.Join(dir, "state"), Command: "test", NoSocket: true}
	info, err := Init(path, &InitOptions{Options: *o})
	if err != nil {
		t.Fatal(err)
	}
	if kind == witness.KindWitness {
		o.Anchors = []Anchor{witnessFor(t, info.VKey)}
	} else {
		tsa := tsatest.New(t, "ecdsa")
		o.Anchors = []Anchor{{URL: tsa.URL, CAFile: tsa.CAFile, Every: time.Nanosecond}}
	}
	return path, o
}

// recordOne opens a trail, records something, and closes it.
func recordOne(t *testing.T, path string, o *Options) {
	t.Helper()
	trail, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	mustRecord(t, trail, personalEvent("mia", "t"))
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
}

func copyTrail(t *testing.T, from, to string) {
	t.Helper()
	for _, p := range [][2]string{{from, to}, {trailDir(from), trailDir(to)}} {
		if err := os.RemoveAll(p[1]); err != nil {
			t.Fatal(err)
		}
		err := filepath.WalkDir(p[0], func(name string, d os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			dst := p[1] + strings.TrimPrefix(name, p[0])
			if d.IsDir() {
				return os.MkdirAll(dst, 0o700)
			}
			b, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			return os.WriteFile(dst, b, 0o600)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Rolling back lines and checkpoint together, all that lies beside them included, is
// caught by each kind of anchor: at the opening, and by verify.
func TestRollbackIsCaughtByAnchors(t *testing.T) {
	ctx := context.Background()
	for _, kind := range []string{witness.KindWitness, witness.KindTimestamp} {
		t.Run(kind, func(t *testing.T) {
			path, o := anchoredTrail(t, kind)
			recordOne(t, path, o)
			before := filepath.Join(t.TempDir(), "audit.jsonl")
			copyTrail(t, path, before)
			recordOne(t, path, o)
			vo := &VerifyOptions{StateDir: o.StateDir, Anchors: o.Anchors, RequireAnchor: true}
			r, err := VerifyPath(ctx, path, vo)
			if err != nil || r.Status != verify.Intact || r.Anchor != kind || len(r.Anchors) == 0 || r.Anchors[0].Size != r.Size {
				t.Fatalf("%+v, %v", r, err)
			}
			copyTrail(t, before, path)
			if _, err := Open(path, o); !errors.Is(err, ErrForked) {
				t.Errorf("opened: %v", err)
			}
			if r, err := VerifyPath(ctx, path, vo); err != nil || r.Status != verify.Damaged || r.Problem != verify.Truncated {
				t.Errorf("%+v, %v", r, err)
			}
			warned := ""
			reader := openWith(t, path, &Options{ReadOnly: true, StateDir: o.StateDir, Anchors: o.Anchors, Warn: func(err error) { warned = err.Error() }})
			if _, err := reader.Info(ctx); err != nil || !strings.Contains(warned, ErrForked.Error()) {
				t.Errorf("a reader is told %q, %v", warned, err)
			}
			// Nothing else knows.
			if r, err := VerifyPath(ctx, path, &VerifyOptions{StateDir: o.StateDir}); err != nil || r.Status != verify.Intact {
				t.Errorf("without anchors: %+v, %v", r, err)
			}
			// The witness alone, on a machine that has seen nothing.
			if kind == witness.KindWitness {
				fresh := *o
				fresh.StateDir = t.TempDir()
				if _, err := Open(path, &fresh); !errors.Is(err, ErrForked) {
					t.Errorf("opened elsewhere: %v", err)
				}
			}
		})
	}
}

// Of two copies of a trail that go on, the second to come to the anchor is stopped:
// when it is opened, or while it runs.
func TestCloneIsCaughtByAnchors(t *testing.T) {
	ctx := context.Background()
	for _, kind := range []string{witness.KindWitness, witness.KindTimestamp} {
		t.Run(kind, func(t *testing.T) {
			path, o := anchoredTrail(t, kind)
			recordOne(t, path, o)
			clone := filepath.Join(t.TempDir(), "audit.jsonl")
			copyTrail(t, path, clone)
			recordOne(t, path, o)
			if _, err := Open(clone, o); !errors.Is(err, ErrForked) {
				t.Errorf("the clone: %v", err)
			}
			// One that went on without an anchor has as much, and other lines.
			alone := *o
			alone.Anchors = nil
			recordOne(t, clone, &alone)
			recordOne(t, clone, &alone)
			if _, err := Open(clone, o); !errors.Is(err, ErrForked) {
				t.Errorf("the clone that went on: %v", err)
			}
			if r, err := VerifyPath(ctx, clone, &VerifyOptions{StateDir: o.StateDir, Anchors: o.Anchors}); err != nil || r.Status != verify.Damaged {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
	t.Run("both run", func(t *testing.T) {
		path, o := anchoredTrail(t, witness.KindWitness)
		recordOne(t, path, o)
		clone := filepath.Join(t.TempDir(), "audit.jsonl")
		copyTrail(t, path, clone)
		first, err := Open(path, o)
		if err != nil {
			t.Fatal(err)
		}
		defer first.Close()
		// The other one compared too, before the first one had anything new.
		blind := *o
		blind.Anchors = nil
		second, err := Open(clone, &blind)
		if err != nil {
			t.Fatal(err)
		}
		defer second.Close()
		if second.anchors, err = makeAnchors(o.Anchors); err != nil {
			t.Fatal(err)
		}
		sink := &anchorSink{t: second, a: second.anchors[0]}
		mustRecord(t, first, personalEvent("mia", "t"))
		c, _, err := second.latest()
		if err != nil {
			t.Fatal(err)
		}
		deadline := time.Now().Add(10 * time.Second)
		for first.anchoredTo() <= c.Size && time.Now().Before(deadline) {
			time.Sleep(5 * time.Millisecond)
		}
		if err := sink.Send(ctx, c.Signed); !errors.Is(err, ErrForked) {
			t.Fatalf("the second: %v", err)
		}
		if _, err := second.Record(ctx, personalEvent("mia", "t")); !errors.Is(err, ErrForked) || !errors.Is(err, ErrStopped) {
			t.Errorf("it goes on: %v", err)
		}
	})
}

// An anchor that does not answer, or refuses, holds nobody up; its state is shown,
// and what it has vouched for is kept and counts again.
func TestAnchorThatDoesNotAnswer(t *testing.T) {
	path, o := anchoredTrail(t, witness.KindWitness)
	recordOne(t, path, o)
	dead := httptest.NewServer(nil)
	dead.Close()
	o.Anchors[0].URL = dead.URL
	o.Warn = func(error) {}
	trail, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	mustRecord(t, trail, personalEvent("mia", "t"))
	i, err := trail.Info(context.Background())
	if err != nil || len(i.Anchors) != 1 || i.Anchors[0].Size <= 0 || i.AnchoredTo != i.Anchors[0].Size {
		t.Errorf("%+v, %v", i.Anchors, err)
	}
	if err := trail.Close(); !errors.Is(err, ErrNotSent) {
		t.Errorf("closed: %v", err)
	}
	for _, a := range []Anchor{{}, {URL: "ftp://x", VKey: "k"}, {URL: "https://example.org"}, {URL: "https://u:p@example.org", CAFile: "x"}, {URL: "https://example.org", VKey: trail.VKey()}} {
		if err := CheckAnchor(a); err == nil {
			t.Errorf("%+v is taken", a)
		}
	}
}

// What is kept of an anchor and was changed proves nothing, and is said.
func TestChangedStatementIsFound(t *testing.T) {
	path, o := anchoredTrail(t, witness.KindWitness)
	recordOne(t, path, o)
	files, err := filepath.Glob(filepath.Join(trailDir(path), "anchors", "*", "*.checkpoint"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	// Its cosignature is taken off.
	cut := b[:strings.LastIndex(strings.TrimSpace(string(b)), "\n")+1]
	if err := os.WriteFile(files[0], cut, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := VerifyPath(context.Background(), path, &VerifyOptions{StateDir: o.StateDir, Anchors: o.Anchors})
	if err != nil || r.Status != verify.Damaged || r.Artefact != verify.AnchorFile {
		t.Errorf("%+v, %v", r, err)
	}
}
