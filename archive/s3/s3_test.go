package s3_test

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/kaizen-audit/kaizen-audit/archive"
	"github.com/kaizen-audit/kaizen-audit/archive/archivetest"
	"github.com/kaizen-audit/kaizen-audit/archive/s3"
	"github.com/kaizen-audit/kaizen-audit/archive/s3/s3test"
)

func TestABucketIsAStore(t *testing.T) {
	server := s3test.Start(t)
	archivetest.Run(t, server.Bucket(t, "suite"))
	below, err := s3.Open("s3://suite/a/prefix?endpoint=http://"+server.Address+"&region=us-east-1&path_style=true", &s3.Options{Credentials: server.Credentials()})
	if err != nil {
		t.Fatal(err)
	}
	archivetest.Run(t, below)

	t.Run("a large object goes in parts and is stored once", func(t *testing.T) {
		store := server.Bucket(t, "large")
		body := make([]byte, 33<<20+17)
		if _, err := rand.Read(body); err != nil {
			t.Fatal(err)
		}
		o := archivetest.Object("segments/large", body)
		o.RetainUntil = time.Now().Add(48 * time.Hour).Truncate(time.Second)
		if err := store.Put(t.Context(), o, bytes.NewReader(body)); err != nil {
			t.Fatal(err)
		}
		if err := store.Put(t.Context(), o, bytes.NewReader(body)); !errors.Is(err, archive.ErrExists) {
			t.Errorf("put again: %v", err)
		}
		if i, err := store.Head(t.Context(), o.Name); err != nil || i.SHA256 != o.SHA256 || !i.RetainUntil.Equal(o.RetainUntil) {
			t.Errorf("head: %+v, %v", i, err)
		}
		r, err := store.Get(t.Context(), o.Name, 0)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil || !bytes.Equal(got, body) {
			t.Errorf("%d other bytes came back: %v", len(got), err)
		}
		changed := o
		changed.Name, changed.SHA256[0] = "segments/changed", changed.SHA256[0]^1
		if err := store.Put(t.Context(), changed, bytes.NewReader(body)); err == nil {
			t.Error("a body with another digest was stored")
		}
	})

	t.Run("parts that are not what was hashed are not stored", func(t *testing.T) {
		store := server.Bucket(t, "parts")
		body := make([]byte, archive.PartBytes+1000)
		o := archivetest.Object("segments/parts", body)
		o.Parts = [][sha256.Size]byte{sha256.Sum256(body[:archive.PartBytes]), sha256.Sum256(body[archive.PartBytes:])}
		body[archive.PartBytes+7] = 1 // it changed since
		if err := store.Put(t.Context(), o, bytes.NewReader(body)); err == nil {
			t.Error("it was stored")
		}
		if _, err := store.Head(t.Context(), o.Name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("head after it: %v", err)
		}
		body[archive.PartBytes+7] = 0
		if err := store.Put(t.Context(), o, bytes.NewReader(body)); err != nil {
			t.Error(err)
		}
		if err := store.Put(t.Context(), o, bytes.NewReader(body)); !errors.Is(err, archive.ErrExists) {
			t.Errorf("put again: %v, want ErrExists", err)
		}
		o.Parts = o.Parts[:1]
		if err := store.Put(t.Context(), o, bytes.NewReader(body)); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("with too few digests: %v", err)
		}
	})

	t.Run("nobody deletes or overwrites a locked version", func(t *testing.T) {
		for _, mode := range []string{"compliance", "governance"} {
			server.Bucket(t, "locked")
			store, err := s3.Open(server.URL("locked")+"&lock="+mode, &s3.Options{Credentials: server.Credentials()})
			if err != nil {
				t.Fatal(err)
			}
			body := []byte("locked in mode " + mode)
			o := archivetest.Object("segments/"+mode, body)
			o.RetainUntil = time.Now().Add(48 * time.Hour).Truncate(time.Second)
			if err := store.Put(t.Context(), o, bytes.NewReader(body)); err != nil {
				t.Fatal(err)
			}
			// As the root user of the server, past our own code.
			client, err := minio.New(server.Address, &minio.Options{Creds: server.Credentials(), Region: "us-east-1"})
			if err != nil {
				t.Fatal(err)
			}
			i, err := client.StatObject(t.Context(), "locked", o.Name, minio.StatObjectOptions{})
			if err != nil || i.VersionID == "" {
				t.Fatalf("%+v, %v", i, err)
			}
			bypass := []bool{false}
			if mode == "compliance" {
				bypass = append(bypass, true)
			}
			for _, b := range bypass {
				err := client.RemoveObject(t.Context(), "locked", o.Name, minio.RemoveObjectOptions{VersionID: i.VersionID, GovernanceBypass: b})
				if err == nil {
					t.Errorf("%s, bypass %v: the locked version was deleted", mode, b)
				}
				sooner := time.Now().Add(time.Hour)
				kind := minio.RetentionMode("COMPLIANCE")
				if mode == "governance" {
					kind = minio.Governance
				}
				if err := client.PutObjectRetention(t.Context(), "locked", o.Name, minio.PutObjectRetentionOptions{Mode: &kind, RetainUntilDate: &sooner, VersionID: i.VersionID, GovernanceBypass: b}); err == nil {
					t.Errorf("%s, bypass %v: the retention was shortened", mode, b)
				}
			}
			// What is put on top is another version; the first one is still there.
			over := []byte("over it")
			if _, err := client.PutObject(t.Context(), "locked", o.Name, bytes.NewReader(over), int64(len(over)), minio.PutObjectOptions{}); err != nil {
				t.Logf("put on top: %v", err)
			}
			old, err := client.GetObject(t.Context(), "locked", o.Name, minio.GetObjectOptions{VersionID: i.VersionID})
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(old); err != nil || !bytes.Equal(got, body) {
				t.Errorf("the locked version has become %q, %v", got, err)
			}
		}
	})

	t.Run("a bucket without object lock is told", func(t *testing.T) {
		client, err := minio.New(server.Address, &minio.Options{Creds: server.Credentials(), Region: "us-east-1"})
		if err != nil {
			t.Fatal(err)
		}
		if err := client.MakeBucket(t.Context(), "open", minio.MakeBucketOptions{}); err != nil {
			t.Fatal(err)
		}
		store, err := s3.Open(server.URL("open"), &s3.Options{Credentials: server.Credentials()})
		if err != nil {
			t.Fatal(err)
		}
		if err := store.Create(t.Context()); err == nil {
			t.Error("a bucket without object lock was taken")
		}
		o := archivetest.Object("segments/a", nil)
		o.RetainUntil = time.Now().Add(time.Hour)
		if err := store.Put(t.Context(), o, bytes.NewReader(nil)); err == nil || !strings.Contains(err.Error(), "has no object lock") {
			t.Errorf("an object without its lock: %v", err)
		}
	})
}

func TestURLsOfBuckets(t *testing.T) {
	for _, url := range []string{"s3://bucket", "s3://bucket/a/b", "s3://bucket?endpoint=https://minio.example.com:9000&path_style=true",
		"s3://bucket?endpoint=http://127.0.0.1:9000", "s3://bucket?endpoint=http://[::1]:9000&lock=governance", "s3://bucket?endpoint=http://localhost&lock=none&region=eu-central-1"} {
		if s, err := s3.Open(url, nil); err != nil || s.URL() != url {
			t.Errorf("%s: %v, %v", url, s, err)
		}
	}
	for _, url := range []string{"", "s3:", "s3:///a", "https://bucket", "s3://bucket?endpoint=http://10.0.0.1", "s3://bucket?endpoint=ftp://a", "s3://bucket?lock=maybe",
		"s3://bucket?path_style=perhaps", "s3://bucket?secret=x", "s3://bucket/../a", "s3://bucket?endpoint=https://host/path"} {
		if _, err := s3.Open(url, nil); err == nil {
			t.Errorf("%q was opened", url)
		}
	}
	if _, err := s3.Open("s3://bucket?endpoint=http://10.0.0.1", &s3.Options{AllowHTTP: true}); err != nil {
		t.Error(err)
	}
	name, word := "user", fmt.Sprint(time.Now().UnixNano())
	if _, err := s3.Open("s3://"+name+":"+word+"@bucket", nil); err == nil || bytes.Contains([]byte(err.Error()), []byte(word)) {
		t.Errorf("credentials in the URL: %v", err)
	}
}
