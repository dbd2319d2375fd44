package s3_test

import (
	"bytes"
	"context"
	crand "crypto/rand"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/archive"
	"github.com/kaizen-audit/kaizen-audit/archive/s3"
	"github.com/kaizen-audit/kaizen-audit/archive/s3/s3test"
	"github.com/kaizen-audit/kaizen-audit/internal/cli"
	"github.com/kaizen-audit/kaizen-audit/internal/verify"
	"github.com/kaizen-audit/kaizen-audit/kms"
)

var rounds = flag.Int("crash.rounds", 50, "how often archiving is killed")

// The child of the crash test archives a trail, and is killed at it.
const (
	childURL = "ARCHIVE_TEST_URL"
	childLog = "ARCHIVE_TEST_LOG"
	childPin = "ARCHIVE_TEST_STATE"
)

func TestMain(m *testing.M) {
	if to := os.Getenv(childURL); to != "" {
		os.Exit(archiveAsChild(to))
	}
	os.Exit(m.Run())
}

func archiveAsChild(to string) int {
	store, err := s3.Open(to, nil)
	if err == nil {
		var trail *audit.Trail
		if trail, err = audit.Open(os.Getenv(childLog), &audit.Options{ReadOnly: true, StateDir: os.Getenv(childPin)}); err == nil {
			fmt.Println("begin")
			_, err = trail.Archive(context.Background(), store, nil)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func record(t testing.TB, trail *audit.Trail, user string, from, count int) {
	t.Helper()
	for i := range count {
		if _, err := trail.Record(context.Background(), audit.Event{EventType: "TOOL_USE", AgentID: "agent-1", Action: fmt.Sprintf("tool_use:%d", from+i), TraceID: "trace-" + user,
			Inputs: audit.Of(map[string]any{"question": "what " + user + " asked"}), Metadata: audit.Of(map[string]any{"user_id": user})}); err != nil {
			t.Fatal(err)
		}
	}
}

func entries(t testing.TB, trail *audit.Trail) []audit.Entry {
	t.Helper()
	var all []audit.Entry
	for e, err := range trail.Query(context.Background(), audit.Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

func intact(t testing.TB, path, state string) {
	t.Helper()
	if r, err := audit.VerifyPath(context.Background(), path, &audit.VerifyOptions{StateDir: state}); err != nil || r.Status != verify.Intact {
		t.Fatalf("verify: %+v, %v", r, err)
	}
}

func remove(t testing.TB, path string) {
	t.Helper()
	if err := errors.Join(os.RemoveAll(strings.TrimSuffix(path, ".jsonl")+".trail"), os.Remove(path)); err != nil {
		t.Fatal(err)
	}
}

func newKEK(t testing.TB) kms.KEK {
	t.Helper()
	key := make([]byte, 32)
	if _, err := crand.Read(key); err != nil {
		t.Fatal(err)
	}
	kek, err := kms.Parse(base64.StdEncoding.EncodeToString(key))
	if err != nil {
		t.Fatal(err)
	}
	return kek
}

// TestDisasterDrill loses a machine whose trail was archived as it was recorded.
func TestDisasterDrill(t *testing.T) {
	server := s3test.Start(t)
	store := server.Bucket(t, "drill")
	dir, state := t.TempDir(), t.TempDir()
	path, backup := filepath.Join(dir, "audit.jsonl"), filepath.Join(t.TempDir(), "keys.tar")
	o := audit.Options{StateDir: state, Encrypt: true, KEK: newKEK(t), ArchiveTo: store, ArchiveEvery: 100 * time.Millisecond, Durability: audit.Written}
	trail, err := audit.Open(path, &o)
	if err != nil {
		t.Fatal(err)
	}
	record(t, trail, "ada", 0, 50)
	if _, err := trail.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	record(t, trail, "bob", 50, 50)
	if _, err := trail.BackupKeys(t.Context(), backup, 0); err != nil {
		t.Fatal(err)
	}
	archived(t, trail)
	if i, err := trail.Info(t.Context()); err != nil || i.Archive == nil || i.Archive.To != store.URL() || i.Archive.Sealed == 0 {
		t.Errorf("info: %+v, %v", i.Archive, err)
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	remove(t, path)

	// Another machine: no pin, nothing but the bucket, the KEK and the backup.
	state = t.TempDir()
	path = filepath.Join(t.TempDir(), "audit.jsonl")
	r, err := audit.Restore(t.Context(), path, store, &audit.RestoreOptions{StateDir: state})
	if err != nil || r.Missing != nil || r.Writable {
		t.Fatalf("%+v, %v", r, err)
	}
	intact(t, path, state)
	if _, err := audit.RestoreKeys(path, backup); err != nil {
		t.Fatal(err)
	}
	o.StateDir, o.Encrypt = state, false
	if trail, err = audit.Open(path, &o); err != nil {
		t.Fatal(err)
	}
	if got := entries(t, trail); len(got) != 100 || !bytes.Contains(got[0].View(), []byte("what ada asked")) || !bytes.Contains(got[99].View(), []byte("what bob asked")) {
		t.Errorf("%d entries came back", len(got))
	}
	record(t, trail, "eve", 100, 10)
	if _, err := trail.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	archived(t, trail)

	// Who is erased now is readable from no archive, with the KEK and all that
	// the archive has.
	if _, err := trail.EraseUser(t.Context(), "ada", &audit.EraseOptions{Reason: "asked for it"}); err != nil {
		t.Fatal(err)
	}
	archived(t, trail)
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	intact(t, path, state)
	remove(t, path)
	if r, err = audit.Restore(t.Context(), path, store, &audit.RestoreOptions{StateDir: state}); err != nil || r.Missing != nil {
		t.Fatalf("%+v, %v", r, err)
	}
	intact(t, path, state)
	o.ArchiveTo, o.ArchiveEvery = nil, 0
	for _, keys := range []string{"the KEK alone", "the KEK and a backup of keys from before the erasure"} {
		o.ReadOnly = keys == "the KEK alone"
		if !o.ReadOnly {
			if _, err := audit.RestoreKeys(path, backup); err != nil {
				t.Fatal(err)
			}
		}
		if trail, err = audit.Open(path, &o); err != nil {
			t.Fatal(err)
		}
		got := entries(t, trail)
		if len(got) != 110 || !slices.ContainsFunc(got, func(e audit.Entry) bool { return e.Action == "tool_use:70" }) {
			t.Errorf("with %s: %d entries", keys, len(got))
		}
		bob := false
		for _, e := range got {
			if bytes.Contains(e.View(), []byte("what ada asked")) {
				t.Fatalf("with %s: an erased person's data is readable", keys)
			}
			bob = bob || bytes.Contains(e.View(), []byte("what bob asked"))
		}
		if bob == o.ReadOnly {
			t.Errorf("with %s: others readable: %v", keys, bob)
		}
		if err := trail.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// archived waits until all that was recorded is archived.
func archived(t testing.TB, trail *audit.Trail) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		s, err := trail.ArchiveState(t.Context())
		if err == nil && s.Exposed == 0 && s.Error == "" {
			return
		}
		if err != nil && !errors.Is(err, audit.ErrNotFound) {
			t.Fatal(err)
		}
		if time.Now().After(deadline) {
			t.Fatalf("not archived: %+v", s)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestCrashWhileArchiving kills a process that archives, each time at another
// moment, and archives again.
func TestCrashWhileArchiving(t *testing.T) {
	server := s3test.Start(t)
	server.Bucket(t, "crash")
	dir, state := t.TempDir(), t.TempDir()
	path := filepath.Join(dir, "audit.jsonl")
	trail, err := audit.Open(path, &audit.Options{StateDir: state, Durability: audit.Written})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		record(t, trail, "ada", i*20, 20)
		if i < 3 {
			if _, err := trail.Rotate(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// begin gives the child once it is about to archive.
	begin := func(to string) *exec.Cmd {
		cmd := exec.Command(exe)
		// The race detector sleeps for a second before it lets a program end.
		cmd.Env = append(os.Environ(), append(server.Environ(), childURL+"="+to, childLog+"="+path, childPin+"="+state, "GORACE=atexit_sleep_ms=0")...)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(out, make([]byte, len("begin\n"))); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	at := func(round int) string {
		return strings.Replace(server.URL("crash"), "s3://crash?", fmt.Sprintf("s3://crash/round-%d?", round), 1)
	}
	first := begin(at(0))
	whole := time.Now()
	if err := first.Wait(); err != nil {
		t.Fatal(err)
	}
	took := time.Since(whole)
	seed := uint64(time.Now().UnixNano())
	t.Logf("archiving takes %s; seed %d", took, seed)
	random := rand.New(rand.NewPCG(seed, 0))
	client, err := minio.New(server.Address, &minio.Options{Creds: server.Credentials(), Region: "us-east-1"})
	if err != nil {
		t.Fatal(err)
	}
	killed, partly := 0, map[int]bool{}
	for round := 1; round <= *rounds; round++ {
		child := begin(at(round))
		time.Sleep(time.Duration(random.Int64N(int64(took))))
		if err := child.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Fatal(err)
		}
		if child.Wait() != nil {
			killed++
		}
		store, err := s3.Open(at(round), &s3.Options{Credentials: server.Credentials()})
		if err != nil {
			t.Fatal(err)
		}
		there := 0
		if err := store.List(t.Context(), "", func(archive.Info) error { there++; return nil }); err != nil {
			t.Fatal(err)
		}
		partly[there] = true
		reader, err := audit.Open(path, &audit.Options{ReadOnly: true, StateDir: state})
		if err != nil {
			t.Fatal(err)
		}
		s, err := reader.Archive(t.Context(), store, nil)
		if err := errors.Join(err, reader.Close()); err != nil {
			t.Fatal(err)
		}
		v, err := audit.VerifyArchive(t.Context(), store, &audit.RestoreOptions{StateDir: state})
		if err != nil || v.Lines != s.Lines || v.Missing != nil || v.Segments != 3 || s.Exposed != 0 {
			t.Fatalf("round %d, killed with %d objects: %+v, %v", round, there, v, err)
		}
		versions := map[string]int{}
		for o := range client.ListObjects(t.Context(), "crash", minio.ListObjectsOptions{Prefix: fmt.Sprintf("round-%d/", round), Recursive: true, WithVersions: true}) {
			if o.Err != nil {
				t.Fatal(o.Err)
			}
			versions[o.Key]++
		}
		for name, n := range versions {
			if n != 1 {
				t.Errorf("round %d: %s was stored %d times", round, name, n)
			}
		}
	}
	t.Logf("%d of %d were killed, at %d different states", killed, *rounds, len(partly))
	// How many depends on how busy the machine is; none would be no test.
	if *rounds >= 50 && (killed < *rounds/5 || len(partly) < 3) {
		t.Errorf("%d of %d were killed, at %d different states: the test shows little", killed, *rounds, len(partly))
	}
}

// faulty stands in front of a server.
type faulty struct {
	*httptest.Server
	fault atomic.Pointer[func(w http.ResponseWriter, r *http.Request, pass http.Handler)]
	seen  atomic.Int64 // requests that the fault was asked for
}

func newFaulty(t *testing.T, server *s3test.Server) *faulty {
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: server.Address})
	proxy.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }
	f := &faulty{}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if fault := f.fault.Load(); fault != nil {
			f.seen.Add(1)
			(*fault)(w, r, proxy)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(f.Close)
	return f
}

// answer is an error as S3 says it.
func answer(status int, code string) func(http.ResponseWriter, *http.Request, http.Handler) {
	return func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
		if r.Method == http.MethodHead { // its answer has no body that could say why
			pass.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(status)
		fmt.Fprintf(w, "<Error><Code>%s</Code><Message>told by the test</Message></Error>", code)
	}
}

// TestNothingIsLostWhateverTheServerDoes records while the server fails, and looks
// what info says and what is archived once it is well.
func TestNothingIsLostWhateverTheServerDoes(t *testing.T) {
	server := s3test.Start(t)
	var odd atomic.Int64
	for name, f := range map[string]struct {
		fault func(http.ResponseWriter, *http.Request, http.Handler)
		says  string // by the state; empty: it gets through all the same
	}{
		"errors":        {answer(http.StatusInternalServerError, "InternalError"), "told by the test"},
		"slow-downs":    {answer(http.StatusServiceUnavailable, "SlowDown"), "told by the test"},
		"a full bucket": {answer(http.StatusForbidden, "QuotaExceeded"), "the archive is full"},
		"a clock skew":  {answer(http.StatusForbidden, "RequestTimeTooSkewed"), "the clocks of this machine and of the server are too far apart"},
		"a wrong key":   {answer(http.StatusForbidden, "SignatureDoesNotMatch"), "permission denied"},
		"no connection": {func(http.ResponseWriter, *http.Request, http.Handler) { panic(http.ErrAbortHandler) }, "Connection closed"},
		"half an upload": {func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
			// It arrived, and its answer did not: every third time.
			if odd.Add(1)%3 != 0 {
				pass.ServeHTTP(w, r)
				return
			}
			pass.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bucket := "fault-" + strings.ReplaceAll(name, " ", "-")
			server.Bucket(t, bucket)
			proxy := newFaulty(t, server)
			store, err := s3.Open(s3test.URLAt(proxy.Listener.Addr().String(), bucket), &s3.Options{Credentials: server.Credentials()})
			if err != nil {
				t.Fatal(err)
			}
			path, state := filepath.Join(t.TempDir(), "audit.jsonl"), t.TempDir()
			trail, err := audit.Open(path, &audit.Options{StateDir: state, ArchiveTo: store, ArchiveEvery: 100 * time.Millisecond, Durability: audit.Written})
			if err != nil {
				t.Fatal(err)
			}
			record(t, trail, "ada", 0, 10)
			archived(t, trail)
			proxy.fault.Store(&f.fault)
			record(t, trail, "ada", 10, 20)
			if _, err := trail.Rotate(t.Context()); err != nil {
				t.Fatal(err)
			}
			record(t, trail, "ada", 30, 20)
			if f.says == "" {
				archived(t, trail)
			} else {
				failing(t, trail, f.says)
			}
			if proxy.seen.Load() == 0 {
				t.Error("the server was not asked")
			}
			proxy.fault.Store(nil)
			archived(t, trail)
			want := len(entries(t, trail))
			if err := trail.Close(); err != nil {
				t.Fatal(err)
			}
			if want != 50 {
				t.Errorf("%d entries were recorded", want)
			}
			comesBack(t, store, state, want)
		})
	}
}

// failing waits until the trail's state says why nothing is archived.
func failing(t *testing.T, trail *audit.Trail, says string) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		i, err := trail.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if s := i.Archive; s != nil && strings.Contains(s.Error, says) && !s.Failing.IsZero() && s.Exposed > 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("info says %+v", i.Archive)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestAnswersThatAreCutShortAreReadOn reads an archive of which each answer breaks
// off in the middle.
func TestAnswersThatAreCutShortAreReadOn(t *testing.T) {
	server := s3test.Start(t)
	server.Bucket(t, "cut")
	proxy := newFaulty(t, server)
	store, err := s3.Open(s3test.URLAt(proxy.Listener.Addr().String(), "cut"), &s3.Options{Credentials: server.Credentials()})
	if err != nil {
		t.Fatal(err)
	}
	path, state := filepath.Join(t.TempDir(), "audit.jsonl"), t.TempDir()
	trail, err := audit.Open(path, &audit.Options{StateDir: state, Durability: audit.Written})
	if err != nil {
		t.Fatal(err)
	}
	record(t, trail, "ada", 0, 300)
	if _, err := trail.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	record(t, trail, "ada", 300, 100)
	if _, err := trail.Archive(t.Context(), store, nil); err != nil {
		t.Fatal(err)
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	var cut atomic.Int64
	fault := func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
		if r.Method != http.MethodGet || r.URL.Query().Has("list-type") || !strings.Contains(r.URL.Path, "/cut/") {
			pass.ServeHTTP(w, r)
			return
		}
		whole := httptest.NewRecorder()
		pass.ServeHTTP(whole, r)
		body := whole.Body.Bytes()
		for key, values := range whole.Header() {
			w.Header()[key] = values
		}
		w.WriteHeader(whole.Code)
		if len(body) < 2000 { // enough for its rest to come
			w.Write(body)
			return
		}
		cut.Add(1)
		w.Write(body[:len(body)/2])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	proxy.fault.Store(&fault)
	to := filepath.Join(t.TempDir(), "audit.jsonl")
	if _, err := audit.Restore(t.Context(), to, store, &audit.RestoreOptions{StateDir: state}); err != nil {
		t.Fatal(err)
	}
	intact(t, to, state)
	if cut.Load() < 5 {
		t.Errorf("only %d answers were cut", cut.Load())
	}
}

// TestTheCommandReachesABucket pushes, verifies and restores by the command line.
func TestTheCommandReachesABucket(t *testing.T) {
	server := s3test.Start(t)
	for _, kv := range server.Environ() {
		name, value, _ := strings.Cut(kv, "=")
		t.Setenv(name, value)
	}
	t.Setenv("KAIZEN_AUDIT_STATE", t.TempDir())
	log, to := filepath.Join(t.TempDir(), "audit.jsonl"), filepath.Join(t.TempDir(), "audit.jsonl")
	run := func(code int, in string, args ...string) string {
		t.Helper()
		var out, errs bytes.Buffer
		if got := cli.Main(t.Context(), args, strings.NewReader(in), &out, &errs); got != code {
			t.Fatalf("%q: exit code %d, want %d: %s", args, got, code, errs.String())
		}
		return out.String() + errs.String()
	}
	url := server.URL("command")
	run(0, `{"event_type":"TOOL_USE","agent_id":"a","action":"b"}`+"\n", "record", "--log", log)
	if said := run(3, "", "archive", "push", "--log", log, "--to", url); !strings.Contains(said, "hint: make it with object lock: kaizen-audit archive push --create-bucket") {
		t.Error(said)
	}
	run(0, "", "archive", "push", "--log", log, "--to", url, "--create-bucket")
	run(0, "", "archive", "verify", "--from", url)
	run(0, "", "restore", "--from", url, "--log", to)
	run(0, "", "verify", "--log", to)
	a, err1 := os.ReadFile(log)
	b, err2 := os.ReadFile(to)
	if err := errors.Join(err1, err2); err != nil || !slices.Equal(a, b) {
		t.Errorf("the log came back otherwise: %v", err)
	}
}

// TestTheDocumentedOptionsArchive uses BackupToS3 and S3Bucket.
func TestTheDocumentedOptionsArchive(t *testing.T) {
	server := s3test.Start(t)
	for _, kv := range server.Environ() {
		name, value, _ := strings.Cut(kv, "=")
		t.Setenv(name, value)
	}
	store := server.Bucket(t, "company-audit-logs")
	path, state := filepath.Join(t.TempDir(), "audit.jsonl"), t.TempDir()
	opts := audit.ManagerOptions{AuditLogPath: path, BackupToS3: true, Options: audit.Options{StateDir: state}}
	for name, wrong := range map[string]func(*audit.ManagerOptions){
		"no bucket":   func(*audit.ManagerOptions) {},
		"no opener":   func(o *audit.ManagerOptions) { o.S3Bucket = "company-audit-logs" },
		"no backup":   func(o *audit.ManagerOptions) { o.S3Bucket, o.BackupToS3 = "company-audit-logs", false },
		"no such URL": func(o *audit.ManagerOptions) { o.S3Bucket, o.OpenS3 = "a b", s3.OpenStore },
	} {
		o := opts
		wrong(&o)
		if m, err := audit.NewAuditTrailManager(o); err == nil {
			t.Errorf("%s: it was opened", name)
			m.Close()
		}
	}
	opts.S3Bucket, opts.OpenS3 = store.URL(), s3.OpenStore
	m, err := audit.NewAuditTrailManager(opts)
	if err != nil {
		t.Fatal(err)
	}
	record(t, m.Trail, "ada", 0, 10)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	v, err := audit.VerifyArchive(t.Context(), store, &audit.RestoreOptions{StateDir: state})
	if err != nil || v.Lines < 10 || v.Size != v.Lines {
		t.Errorf("after Close: %+v, %v", v, err)
	}
}

// TestHoldsAndRetentionReachTheArchive sets a hold and lifts it: object lock has it
// too, on the segments that it covers, and the date of each segment.
func TestHoldsAndRetentionReachTheArchive(t *testing.T) {
	server := s3test.Start(t)
	store := server.Bucket(t, "holds")
	path, state := filepath.Join(t.TempDir(), "audit.jsonl"), t.TempDir()
	trail, err := audit.Open(path, &audit.Options{StateDir: state, Durability: audit.Written, RetentionDays: 3000})
	if err != nil {
		t.Fatal(err)
	}
	defer trail.Close()
	for i, user := range []string{"ada", "bob", "ada"} {
		record(t, trail, user, i*10, 10)
		if _, err := trail.Rotate(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	push := func() (held []bool) {
		t.Helper()
		if _, err := trail.Archive(t.Context(), store, nil); err != nil {
			t.Fatal(err)
		}
		err := store.List(t.Context(), "segments/", func(i archive.Info) error {
			i, err := store.Head(t.Context(), i.Name)
			held = append(held, i.Held)
			if days := time.Until(i.RetainUntil).Hours() / 24; days < 2999 || days > 3000 {
				t.Errorf("%s is kept for %.1f days", i.Name, days)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return held
	}
	if got := push(); !slices.Equal(got, []bool{false, false, false}) {
		t.Errorf("without a hold: %v", got)
	}
	h, err := trail.AddHold(t.Context(), audit.HoldRequest{User: "bob", Reason: "a case"})
	if err != nil {
		t.Fatal(err)
	}
	if got := push(); !slices.Equal(got, []bool{false, true, false}) {
		t.Errorf("with a hold on bob: %v", got)
	}
	if err := trail.LiftHold(t.Context(), h.ID, "closed"); err != nil {
		t.Fatal(err)
	}
	if got := push(); !slices.Equal(got, []bool{false, false, false}) {
		t.Errorf("with the hold lifted: %v", got)
	}
}
