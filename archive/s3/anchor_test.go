package s3_test

import (
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/archive"
	"github.com/kaizen-audit/kaizen-audit/archive/s3/s3test"
	"github.com/kaizen-audit/kaizen-audit/internal/verify"

	"bytes"
)

// TestALockedCheckpointIsAnAnchor rolls a trail back with all that lies on its machine,
// and has whoever did that, who has the writer's credentials too, put the old
// checkpoint into the bucket and delete what came after: the locked version tells.
func TestALockedCheckpointIsAnAnchor(t *testing.T) {
	server := s3test.Start(t)
	store := server.Bucket(t, "anchor")
	dir := t.TempDir()
	path, before := filepath.Join(dir, "trail", "audit.jsonl"), filepath.Join(dir, "before")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	session := func() {
		t.Helper()
		trail, err := audit.Open(path, &audit.Options{StateDir: t.TempDir(), Durability: audit.Written, RetentionDays: 3000, ArchiveTo: store, NoSocket: true})
		if err != nil {
			t.Fatal(err)
		}
		record(t, trail, "ada", 0, 5)
		if _, err := trail.Rotate(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := trail.Close(); err != nil {
			t.Fatal(err)
		}
	}
	session()
	if err := os.CopyFS(before, os.DirFS(filepath.Dir(path))); err != nil {
		t.Fatal(err)
	}
	old, err := os.ReadFile(filepath.Join(before, "audit.trail", "checkpoint"))
	if err != nil {
		t.Fatal(err)
	}
	session()
	vo := &audit.VerifyOptions{StateDir: t.TempDir(), Archive: store, RequireAnchor: true}
	r, err := audit.VerifyPath(t.Context(), path, vo)
	if err != nil || r.Status != verify.Intact || r.Anchor != verify.AnchorArchive || len(r.Anchors) != 1 || r.Anchors[0].Time.IsZero() {
		t.Fatalf("%+v, %v", r, err)
	}
	if err := errors.Join(os.RemoveAll(filepath.Dir(path)), os.CopyFS(filepath.Dir(path), os.DirFS(before))); err != nil {
		t.Fatal(err)
	}
	// In the bucket: the old checkpoint on top, and delete markers over what is locked.
	if err := store.Put(t.Context(), archive.Object{Name: "checkpoint", Size: int64(len(old)), SHA256: sha256.Sum256(old), Replace: true}, bytes.NewReader(old)); err != nil {
		t.Fatal(err)
	}
	for _, prefix := range []string{"checkpoints/", "segments/", "tail/"} {
		err := store.List(t.Context(), prefix, func(i archive.Info) error { return store.Remove(t.Context(), i.Name) })
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := audit.Open(path, &audit.Options{StateDir: t.TempDir(), ArchiveTo: store, NoSocket: true}); !errors.Is(err, audit.ErrForked) || !strings.Contains(err.Error(), "the archive") {
		t.Errorf("opened: %v", err)
	}
	if r, err := audit.VerifyPath(t.Context(), path, vo); err != nil || r.Status != verify.Damaged || r.Problem != verify.Truncated {
		t.Errorf("%+v, %v", r, err)
	}
}
