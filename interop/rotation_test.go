package interop

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/mod/sumdb/note"

	audit "github.com/kaizen-audit/kaizen-audit"
)

// While two signing keys overlap, whoever knows one of them opens the checkpoint by
// the notes of golang.org/x/mod, as every tlog client does, and is told nothing of the
// other.
func TestEitherKeyOpensTheCheckpoint(t *testing.T) {
	dir := t.TempDir()
	a, err := audit.Open(filepath.Join(dir, "audit.jsonl"), &audit.Options{StateDir: filepath.Join(dir, "known")})
	if err != nil {
		t.Fatal(err)
	}
	was := a.VKey()
	if err := a.RotateSigningKey(context.Background(), false); err != nil {
		t.Fatal(err)
	}
	now := a.VKey()
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	signed, err := os.ReadFile(filepath.Join(a.Dir(), "checkpoint"))
	if err != nil {
		t.Fatal(err)
	}
	for _, vkey := range []string{was, now} {
		v, err := note.NewVerifier(vkey)
		if err != nil {
			t.Fatal(err)
		}
		n, err := note.Open(signed, note.VerifierList(v))
		if err != nil || len(n.Sigs) != 1 || len(n.UnverifiedSigs) != 1 {
			t.Errorf("%s: %+v, %v", vkey, n, err)
		}
	}
}
