package s3_test

import (
	"context"
	crand "crypto/rand"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/archive/s3"
	"github.com/kaizen-audit/kaizen-audit/archive/s3/s3test"
)

// BenchmarkArchive sends two sealed segments of some 45 MB each to a server of this
// machine: as an archive, with all that belongs to it, and as plain uploads of the two
// files by the same client with its defaults.
func BenchmarkArchive(b *testing.B) {
	server := s3test.Start(b)
	server.Bucket(b, "bench")
	path, state := filepath.Join(b.TempDir(), "audit.jsonl"), b.TempDir()
	trail, err := audit.Open(path, &audit.Options{StateDir: state, Durability: audit.Written})
	if err != nil {
		b.Fatal(err)
	}
	defer trail.Close()
	random := make([]byte, 12<<10) // what does not compress
	stored := int64(0)
	for range 2 {
		for i := range 4000 {
			if _, err := crand.Read(random); err != nil {
				b.Fatal(err)
			}
			if _, err := trail.Record(context.Background(), audit.Event{EventType: "TOOL_USE", AgentID: "agent-1", Action: fmt.Sprintf("tool_use:%d", i),
				Inputs: audit.Of(map[string]any{"data": base64.StdEncoding.EncodeToString(random)})}); err != nil {
				b.Fatal(err)
			}
		}
		s, err := trail.Rotate(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		stored += s.Stored
	}
	files, err := filepath.Glob(filepath.Join(trail.Dir(), "segments", "*.zst"))
	if err != nil || len(files) != 2 {
		b.Fatal(files, err)
	}
	n := 0
	b.Run("archive", func(b *testing.B) {
		b.SetBytes(stored)
		for b.Loop() {
			n++
			store, err := s3.Open(strings.Replace(server.URL("bench"), "s3://bench?", fmt.Sprintf("s3://bench/%d?", n), 1), &s3.Options{Credentials: server.Credentials()})
			if err != nil {
				b.Fatal(err)
			}
			if _, err := trail.Archive(b.Context(), store, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("upload", func(b *testing.B) {
		client, err := minio.New(server.Address, &minio.Options{Creds: server.Credentials(), Region: "us-east-1"})
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(stored)
		for b.Loop() {
			n++
			for _, file := range files {
				f, err := os.Open(file)
				if err != nil {
					b.Fatal(err)
				}
				fi, err := f.Stat()
				if err != nil {
					b.Fatal(err)
				}
				_, err = client.PutObject(b.Context(), "bench", fmt.Sprintf("plain/%d/%s", n, filepath.Base(file)), f, fi.Size(), minio.PutObjectOptions{})
				if err != nil {
					b.Fatal(err)
				}
				if err := f.Close(); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}
