package s3_test

import (
	"errors"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/archive"
	"github.com/kaizen-audit/kaizen-audit/archive/s3"
	"github.com/kaizen-audit/kaizen-audit/archive/s3/s3test"
	"github.com/kaizen-audit/kaizen-audit/internal/verify"
)

// TestSegmentsThatAreInTheBucketOnlyAreReadThere has a holder let go of what it has
// archived, and reads, verifies, holds and erases on.
func TestSegmentsThatAreInTheBucketOnlyAreReadThere(t *testing.T) {
	server := s3test.Start(t)
	server.Bucket(t, "away")
	proxy := newFaulty(t, server)
	url := s3test.URLAt(proxy.Listener.Addr().String(), "away")
	open := func(string) (archive.Store, error) {
		return s3.Open(url, &s3.Options{Credentials: server.Credentials()})
	}
	store, err := open(url)
	if err != nil {
		t.Fatal(err)
	}
	path, state := filepath.Join(t.TempDir(), "audit.jsonl"), t.TempDir()
	trail, err := audit.Open(path, &audit.Options{StateDir: state, Durability: audit.Written, RetentionDays: 3000, NoSocket: true,
		ArchiveTo: store, ArchiveEvery: 100 * time.Millisecond, ArchiveKeepLocal: time.Nanosecond})
	if err != nil {
		t.Fatal(err)
	}
	for i, user := range []string{"ada", "bob"} {
		record(t, trail, user, i*10, 10)
		if _, err := trail.Rotate(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		s, err := trail.ArchiveState(t.Context())
		if err == nil && s.Away.Segments == 2 && s.Local.Segments == 0 {
			break
		}
		if err != nil && !errors.Is(err, audit.ErrNotFound) || time.Since(began) > 20*time.Second {
			t.Fatalf("it does not let go: %+v, %v", s, err)
		}
	}
	if here, _ := filepath.Glob(strings.TrimSuffix(path, ".jsonl") + ".trail/segments/*.zst"); len(here) > 0 {
		t.Errorf("still here: %v", here)
	}
	if got := len(entries(t, trail)); got != 20 {
		t.Errorf("%d entries", got)
	}
	if _, err := trail.AddHold(t.Context(), audit.HoldRequest{User: "bob", Reason: "a case"}); err != nil {
		t.Fatal(err)
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	held := 0
	err = store.List(t.Context(), "segments/", func(i archive.Info) error {
		i, err := store.Head(t.Context(), i.Name)
		if i.Held {
			held++
		}
		return err
	})
	if err != nil || held != 1 {
		t.Errorf("%d segments are held in the bucket, %v", held, err)
	}
	opts := &audit.VerifyOptions{StateDir: state, OpenArchive: open}
	r, err := audit.VerifyPath(t.Context(), path, opts)
	if err != nil || r.Status != verify.Intact || len(r.FromArchive) != 2 {
		t.Errorf("verify: %+v, %v", r, err)
	}
	// Without a cache and without a server each segment is named, with what to do.
	trail, err = audit.Open(path, &audit.Options{StateDir: state, ReadOnly: true, OpenArchive: open, ArchiveCache: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer trail.Close()
	if got := len(entries(t, trail)); got != 20 { // which empties the cache
		t.Errorf("%d entries without a cache", got)
	}
	down := func(http.ResponseWriter, *http.Request, http.Handler) { panic(http.ErrAbortHandler) }
	proxy.fault.Store((*func(http.ResponseWriter, *http.Request, http.Handler))(&down))
	missing := 0
	for _, err := range trail.Query(t.Context(), audit.Query{}) {
		var gap *audit.GapError
		if errors.As(err, &gap) {
			missing++
			if errors.Is(err, audit.ErrDamaged) || !strings.Contains(err.Error(), url) || !strings.Contains(err.Error(), "see to it that the archive can be reached") {
				t.Error(err)
			}
		}
	}
	if missing != 2 {
		t.Errorf("%d gaps", missing)
	}
	opts.ArchiveCache = 1
	if r, err := audit.VerifyPath(t.Context(), path, opts); err == nil || r.Status != verify.Unreadable {
		t.Errorf("verify without the server: %+v, %v", r, err)
	}
}
