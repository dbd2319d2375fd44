package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/archive"
	"github.com/kaizen-audit/kaizen-audit/internal/durable"
)

// made is a trail with one entry, in a folder of its own.
func made(t *testing.T) (log string, opts audit.Options) {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	log, opts = filepath.Join(dir, "a.jsonl"), audit.Options{StateDir: t.TempDir()}
	trail, err := audit.Open(log, &opts)
	if err != nil {
		t.Fatal(err)
	}
	_, err = trail.Record(t.Context(), audit.Event{EventType: audit.ToolUse, AgentID: "a", Action: "tool_use:x"})
	if err := errors.Join(err, trail.Close()); err != nil {
		t.Fatal(err)
	}
	return log, opts
}

func examine(t *testing.T, log string, opts audit.Options) map[string]Check {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := Examine(ctx, log, opts)
	if err != nil {
		t.Fatal(err)
	}
	checks, worst := map[string]Check{}, OK
	for _, c := range r.Checks {
		checks[c.Name] = c
		if c.State == Fail || c.State == Warn && worst == OK {
			worst = c.State
		}
		if c.State != OK && c.State != Warn && c.State != Fail || c.Detail == "" {
			t.Errorf("%+v", c)
		}
	}
	if r.Status != worst {
		t.Errorf("status %s, worst is %s", r.Status, worst)
	}
	return checks
}

// want wants states of checks, and words in their details.
func want(t *testing.T, checks map[string]Check, wants map[string]string) {
	t.Helper()
	for name, w := range wants {
		state, words, _ := strings.Cut(w, ": ")
		if c, there := checks[name]; !there || string(c.State) != state || !strings.Contains(c.Detail, words) {
			t.Errorf("%s: %+v, want %s", name, c, w)
		}
	}
}

// probes are what the examinations left in the trail.
func probes(t *testing.T, log string, opts audit.Options) (ways []string) {
	t.Helper()
	opts.ReadOnly = true
	trail, err := audit.Open(log, &opts)
	if err != nil {
		t.Fatal(err)
	}
	defer trail.Close()
	for e, err := range trail.Query(t.Context(), audit.Query{Agent: ProbeAgent, EventTypes: []string{ProbeType}}) {
		if err != nil {
			t.Fatal(err)
		}
		ways = append(ways, e.Action+" via "+e.RecordedBy.Text("via"))
	}
	return ways
}

// TestEachWayIn: the probes go in as the holder, through a holder's socket and
// through the spool, and come out proved; the trail is intact afterwards.
func TestEachWayIn(t *testing.T) {
	log, opts := made(t)
	healthy := map[string]string{
		"trail": "ok", "permissions": "ok", "key": "ok", "spool": "ok: taken in", "read": "ok", "checkpoint": "ok: is proved", "clock": "ok", "pin": "ok: known", "disk": "ok",
	}
	checks := examine(t, log, opts)
	want(t, checks, healthy)
	want(t, checks, map[string]string{"lock": "ok: free", "record": "ok: as its holder", "anchors": "warn: none is configured"})

	holder, err := audit.Open(log, &opts)
	if err != nil {
		t.Fatal(err)
	}
	// Within one process the socket is what a second Open goes through too.
	checks = examine(t, log, opts)
	if err := holder.Close(); err != nil {
		t.Fatal(err)
	}
	want(t, checks, healthy)
	want(t, checks, map[string]string{"lock": "ok: held by process", "record": "ok: through its holder's socket"})

	got := strings.Join(probes(t, log, opts), ", ")
	if want := "doctor_probe:spool via spool, doctor_probe:direct via , doctor_probe:socket via socket, doctor_probe:spool via spool"; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	r, err := audit.VerifyPath(t.Context(), log, &audit.VerifyOptions{StateDir: opts.StateDir})
	if err != nil || r.Status != "intact" {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestNothingToExamine: a trail that is not there, and one that is damaged, are
// findings with what to do.
func TestNothingToExamine(t *testing.T) {
	log, opts := made(t)
	checks := examine(t, log+".none.jsonl", opts)
	want(t, checks, map[string]string{"trail": "fail: there is no trail", "disk": "ok"})
	if !strings.Contains(checks["trail"].Advice, "kaizen-audit init") {
		t.Errorf("%+v", checks["trail"])
	}
	if err := os.Truncate(log, 10); err != nil {
		t.Fatal(err)
	}
	want(t, examine(t, log, opts), map[string]string{"trail": "fail: missing", "record": "fail: damaged"})
}

// TestOpenFiles: each file and directory that others may use is named, and an
// open key is said to be one.
func TestOpenFiles(t *testing.T) {
	log, opts := made(t)
	dir := strings.TrimSuffix(log, ".jsonl") + ".trail"
	chmod := func(name string, mode fs.FileMode) {
		t.Helper()
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
	}
	for name, mode := range map[string]fs.FileMode{
		log: 0o604, filepath.Join(dir, "trail.json"): 0o620, filepath.Join(dir, "keys"): 0o750, filepath.Join(dir, "keys", "signing.key"): 0o640,
	} {
		fi, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		chmod(name, mode)
		rel := filepath.Base(name)
		if strings.Contains(name, "/keys/") {
			rel = "keys/" + rel
		}
		checks := examine(t, log, opts)
		want(t, checks, map[string]string{"permissions": "fail: " + rel + " is 0"})
		if rel == "keys/signing.key" {
			want(t, checks, map[string]string{"key": "fail: its owner and its group"})
		}
		chmod(name, fi.Mode().Perm())
	}
	chmod(filepath.Dir(log), 0o777)
	want(t, examine(t, log, opts), map[string]string{"folder": "fail: anybody can exchange the log"})
	chmod(filepath.Dir(log), 0o700)

	// What a group was given is no finding.
	opts.Group = "65534"
	if os.Geteuid() == 0 {
		want(t, examine(t, log, opts), map[string]string{"permissions": "ok"})
		want(t, examine(t, log, opts), map[string]string{"permissions": "ok"})
	}
}

func TestAllowed(t *testing.T) {
	for _, test := range []struct {
		rel  string
		dir  bool
		most fs.FileMode
	}{
		{".", true, 0o750}, {"segments", true, 0o750}, {"aside", true, 0o750}, {"keys", true, 0o700}, {"spool", true, 0o700}, {"tile/0", true, 0o700},
		{"segments/00000000000000000000.jsonl.zst", false, 0o640}, {"segments/00000000000000000000.jsonl", false, 0o640}, {"segments/manifest", false, 0o600},
		{"aside/0-x.jsonl", false, 0o640}, {"keys/x.jsonl", false, 0o600}, {"keys/signing.key", false, 0o600}, {"sock", false, 0o660}, {"spool/sock", false, 0o600},
		{"checkpoint", false, 0o600},
	} {
		if got := allowed(test.rel, test.dir); got != test.most {
			t.Errorf("%s: %04o, want %04o", test.rel, got, test.most)
		}
	}
}

// TestWaysThatAreClosed: a trail whose holder does not share it, and a spool
// that can't be written, fail alone; the rest is still looked at.
func TestWaysThatAreClosed(t *testing.T) {
	log, opts := made(t)
	alone := opts
	alone.NoSocket = true
	holder, err := audit.Open(log, &alone)
	if err != nil {
		t.Fatal(err)
	}
	checks := examine(t, log, opts)
	want(t, checks, map[string]string{"lock": "ok: held by", "record": "fail: written by another process", "spool": "warn: waits there", "clock": "ok"})
	if err := holder.Close(); err != nil {
		t.Fatal(err)
	}

	log, opts = made(t)
	dir := strings.TrimSuffix(log, ".jsonl") + ".trail"
	if err := os.RemoveAll(filepath.Join(dir, "spool")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "spool"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if c := examine(t, log, opts)["spool"]; c.State != Fail {
		t.Errorf("spool: %+v", c)
	}
}

// TestAnotherUsersTrail: root is told as whom to run, and leaves nothing there
// that the owner can't read.
func TestAnotherUsersTrail(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a trail away")
	}
	log, opts := made(t)
	const other = 65534
	walk := func(f func(name string) error) {
		t.Helper()
		err := filepath.WalkDir(filepath.Dir(log), func(name string, _ fs.DirEntry, err error) error { return errors.Join(err, f(name)) })
		if err != nil {
			t.Fatal(err)
		}
	}
	walk(func(name string) error { return os.Chown(name, other, other) })
	checks := examine(t, log, opts)
	want(t, checks, map[string]string{"record": "fail: belongs to user 65534", "spool": "warn: not tried", "permissions": "ok"})
	walk(func(name string) error {
		if owner, err := durable.OwnerOf(durable.OS, name); err != nil || owner != other {
			t.Errorf("%s: user %d, %v", name, owner, err)
		}
		return nil
	})
	// One file of root's is what would stop its owner.
	if err := os.Chown(filepath.Join(strings.TrimSuffix(log, ".jsonl")+".trail", "checkpoint"), 0, 0); err != nil {
		t.Fatal(err)
	}
	want(t, examine(t, log, opts), map[string]string{"permissions": "fail: checkpoint belongs to user 0, the trail to 65534"})
}

// TestContent: calls over OTLP that came without content are a warning that names
// the sender's switch; where there are none nothing is said.
func TestContent(t *testing.T) {
	log, opts := made(t)
	if c, said := examine(t, log, opts)["content"]; said {
		t.Errorf("%+v", c)
	}
	trail, err := audit.Open(log, &opts)
	if err != nil {
		t.Fatal(err)
	}
	call := func(n int, metadata string) audit.Event {
		return audit.Event{EventType: audit.LLMCall, AgentID: "a", Action: "llm_call:m", IdempotencyKey: fmt.Sprint(n), Metadata: audit.Raw([]byte(metadata))}
	}
	_, err = trail.Ingest(t.Context(), "", []audit.Event{call(1, `{}`), call(2, `{"scope":{"name":"openinference.instrumentation.openai"},"content_missing":"outputs"}`)})
	if err := errors.Join(err, trail.Close()); err != nil {
		t.Fatal(err)
	}
	checks := examine(t, log, opts)
	want(t, checks, map[string]string{"content": "warn: 1 of 2 that came over OTLP (50.0%)"})
	if a := checks["content"].Advice; !strings.Contains(a, "OPENINFERENCE_HIDE_INPUTS=false") {
		t.Error(a)
	}
}

// TestAnchors: what a checkpoint sink has, as far as a file tells.
func TestAnchors(t *testing.T) {
	log, opts := made(t)
	file := filepath.Join(t.TempDir(), "checkpoints")
	sent := opts
	sent.CheckpointTo = []string{file, "exec:true"}
	want(t, examine(t, log, sent), map[string]string{"anchors": "ok: exec: took the latest"})
	sent.CheckpointTo = []string{file}
	want(t, examine(t, log, sent), map[string]string{"anchors": "ok: entries"})

	// Its holder does not send there, and the trail goes on.
	for range 2 {
		examine(t, log, opts)
	}
	holder, err := audit.Open(log, &opts)
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close()
	want(t, examine(t, log, sent), map[string]string{"anchors": "warn: the last checkpoint has"})

	if err := os.WriteFile(file, []byte("something else\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	want(t, examine(t, log, sent), map[string]string{"anchors": "fail: no checkpoint of this trail"})
	sent.CheckpointTo = []string{file + ".none"}
	want(t, examine(t, log, sent), map[string]string{"anchors": "fail: no such file"})
}

// TestSinkThatTakesNothing fails where this process is the one that sends.
func TestSinkThatTakesNothing(t *testing.T) {
	log, opts := made(t)
	opts.CheckpointTo = []string{"exec:false"}
	want(t, examine(t, log, opts), map[string]string{"anchors": "fail: was not sent", "record": "ok"})
}

// TestClock: an entry from the future is one; small differences are clamped by
// the trail itself.
func TestClock(t *testing.T) {
	for _, test := range []struct {
		last time.Duration // of the newest entry, after the examination's beginning
		want string
	}{
		{-time.Hour, "ok"}, {time.Second, "ok"}, {time.Hour, "fail: the newest entry is 1h0m0s ahead"},
	} {
		e := &exam{report: &Report{Status: OK}, began: time.Now()}
		e.last = e.began.Add(test.last)
		e.clock()
		want(t, map[string]Check{"clock": e.report.Checks[0]}, map[string]string{"clock": test.want})
	}
}

func TestSpace(t *testing.T) {
	for _, test := range []struct {
		free  uint64
		files int64
		want  State
	}{
		{10 << 30, -1, OK}, {10 << 30, 1e6, OK}, {lowSpace - 1, -1, Warn}, {noSpace - 1, 1e6, Fail}, {10 << 30, lowInodes - 1, Warn}, {10 << 30, noInodes - 1, Fail},
		{lowSpace - 1, noInodes - 1, Fail},
	} {
		e := &exam{report: &Report{Status: OK}}
		e.space(durable.FileSystem{Free: test.free, Size: 20 << 30, FreeFiles: test.files})
		if got := e.report.Checks[0].State; got != test.want || e.report.Status != test.want {
			t.Errorf("%+v: %s", test, got)
		}
	}
}

func TestArchive(t *testing.T) {
	log, opts := made(t)
	root := filepath.Join(t.TempDir(), "archive")
	store, err := archive.OpenDir("file://" + root)
	if err != nil {
		t.Fatal(err)
	}
	opts.ArchiveTo = store
	checks := examine(t, log, opts)
	want(t, checks, map[string]string{"archive": "fail: can't be used"})
	for _, c := range checks {
		if c.Name == "archive" && c.State == Fail && !strings.Contains(c.Advice, "--create-bucket") {
			t.Errorf("%+v", c)
		}
	}
	if err := store.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	want(t, examine(t, log, opts), map[string]string{"archive": "ok: entries are there, 0 on this disk only"})
}
