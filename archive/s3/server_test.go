package s3_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/archive/s3"
	"github.com/kaizen-audit/kaizen-audit/archive/s3/s3test"
)

// comesBack restores what is archived and looks that every entry is there.
func comesBack(t *testing.T, store *s3.Store, state string, want int) {
	t.Helper()
	to := filepath.Join(t.TempDir(), "audit.jsonl")
	if _, err := audit.Restore(t.Context(), to, store, &audit.RestoreOptions{StateDir: state}); err != nil {
		t.Fatal(err)
	}
	intact(t, to, state)
	back, err := audit.Open(to, &audit.Options{ReadOnly: true, StateDir: state})
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	if got := len(entries(t, back)); got != want {
		t.Errorf("%d of %d entries came back", got, want)
	}
}

// TestAFullBucket fills the disk of a server: recording goes on, info says what is, and
// all of it is archived once there is space.
func TestAFullBucket(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("a file system can't be mounted here: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if err := exec.Command("umount", "-l", dir).Run(); err != nil {
			t.Errorf("umount: %v", err)
		}
	})
	server := s3test.StartIn(t, dir)
	store := server.Bucket(t, "full")
	path, state := filepath.Join(t.TempDir(), "audit.jsonl"), t.TempDir()
	trail, err := audit.Open(path, &audit.Options{StateDir: state, ArchiveTo: store, ArchiveEvery: 100 * time.Millisecond, Durability: audit.Written, NoSocket: true})
	if err != nil {
		t.Fatal(err)
	}
	record(t, trail, "ada", 0, 10)
	archived(t, trail)
	ballast, err := os.Create(filepath.Join(dir, "ballast"))
	if err != nil {
		t.Fatal(err)
	}
	for block := make([]byte, 4<<10); err == nil; {
		_, err = ballast.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if err := ballast.Close(); err != nil {
		t.Fatal(err)
	}
	record(t, trail, "ada", 10, 40)
	if _, err := trail.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	failing(t, trail, "the archive is full")
	if i, err := trail.Info(t.Context()); err != nil || i.Archive.Backlog == 0 || i.Archive.Exposed < 40 {
		t.Errorf("%+v, %v", i.Archive, err)
	}
	if err := os.Remove(ballast.Name()); err != nil {
		t.Fatal(err)
	}
	archived(t, trail)
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	comesBack(t, store, state, 50)
}

// resign signs a request anew (AWS Signature Version 4), as a client whose clock is off
// by so much does.
func resign(r *http.Request, server *s3test.Server, off time.Duration) {
	mac := func(key []byte, text string) []byte {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(text))
		return h.Sum(nil)
	}
	at := time.Now().UTC().Add(off)
	stamp, day := at.Format("20060102T150405Z"), at.Format("20060102")
	r.Header.Set("X-Amz-Date", stamp)
	r.Host = server.Address
	headers := map[string]string{"host": server.Address}
	for name, values := range r.Header {
		if name = strings.ToLower(name); strings.HasPrefix(name, "x-amz-") {
			headers[name] = strings.Join(values, ",")
		}
	}
	var names []string
	for name := range headers {
		names = append(names, name)
	}
	slices.Sort(names)
	lines := ""
	for _, name := range names {
		lines += name + ":" + headers[name] + "\n"
	}
	signed := strings.Join(names, ";")
	query := strings.ReplaceAll(r.URL.Query().Encode(), "+", "%20")
	request := strings.Join([]string{r.Method, (&url.URL{Path: r.URL.Path}).EscapedPath(), query, lines, signed, r.Header.Get("X-Amz-Content-Sha256")}, "\n")
	sum := sha256.Sum256([]byte(request))
	scope := day + "/us-east-1/s3/aws4_request"
	key := mac(mac(mac(mac([]byte("AWS4"+server.Secret), day), "us-east-1"), "s3"), "aws4_request")
	signature := hex.EncodeToString(mac(key, "AWS4-HMAC-SHA256\n"+stamp+"\n"+scope+"\n"+hex.EncodeToString(sum[:])))
	r.Header.Set("Authorization", fmt.Sprintf("AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%s", server.Key, scope, signed, signature))
}

// TestAClockThatIsOff has a client whose clock is off meet what the server really says
// to that: recording goes on, info names the clock, and all is made up for.
func TestAClockThatIsOff(t *testing.T) {
	server := s3test.Start(t)
	server.Bucket(t, "skew")
	proxy := newFaulty(t, server)
	store, err := s3.Open(s3test.URLAt(proxy.Listener.Addr().String(), "skew"), &s3.Options{Credentials: server.Credentials()})
	if err != nil {
		t.Fatal(err)
	}
	set := func(off time.Duration) {
		f := func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
			// An upload in chunks has a signature on each, which go on from the first.
			if r.Header.Get("X-Amz-Decoded-Content-Length") == "" || off != 0 {
				resign(r, server, off)
			}
			pass.ServeHTTP(w, r)
		}
		proxy.fault.Store((*func(http.ResponseWriter, *http.Request, http.Handler))(&f))
	}
	set(0) // what is signed anew is taken
	path, state := filepath.Join(t.TempDir(), "audit.jsonl"), t.TempDir()
	trail, err := audit.Open(path, &audit.Options{StateDir: state, ArchiveTo: store, ArchiveEvery: 100 * time.Millisecond, Durability: audit.Written, NoSocket: true})
	if err != nil {
		t.Fatal(err)
	}
	record(t, trail, "ada", 0, 10)
	archived(t, trail)
	for i, off := range []time.Duration{-time.Hour, time.Hour} {
		set(off)
		record(t, trail, "ada", 10+20*i, 20)
		if _, err := trail.Rotate(t.Context()); err != nil {
			t.Fatal(err)
		}
		failing(t, trail, "the clocks of this machine and of the server are too far apart")
		if _, err := store.Head(t.Context(), "trail.json"); err == nil || !strings.Contains(err.Error(), "clocks") {
			t.Errorf("a HEAD, whose answer has no body: %v", err)
		}
		set(0)
		archived(t, trail)
	}
	if c, err := store.Condition(t.Context()); err != nil || c.Lock != "compliance" || c.Ahead.Abs() > 5*time.Second {
		t.Errorf("%+v, %v", c, err)
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	comesBack(t, store, state, 50)
}
