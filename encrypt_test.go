package audit

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/durable/durabletest"
	"github.com/kaizen-audit/kaizen-audit/internal/seal"
	"github.com/kaizen-audit/kaizen-audit/kms"
)

func testKEK(t testing.TB, b byte) kms.KEK {
	t.Helper()
	k, err := kms.NewLocal(bytes.Repeat([]byte{b}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// encryptedTrail makes a trail that seals, and its options.
func encryptedTrail(t *testing.T) (string, *Options) {
	t.Helper()
	dir := t.TempDir()
	o := &Options{Encrypt: true, KEK: testKEK(t, 1), StateDir: filepath.Join(dir, "state"), Command: "test"}
	if _, err := Init(filepath.Join(dir, "audit.jsonl"), &InitOptions{Options: *o}); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "audit.jsonl"), o
}

func openWith(t *testing.T, path string, o *Options) *Trail {
	t.Helper()
	trail, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { trail.Close() })
	return trail
}

// canaryEvent has a canary in every member that can hold text.
func canaryEvent(n int) Event {
	c := func(what string) string { return fmt.Sprintf("canary-%s-%d", what, n) }
	return Event{
		EventType: "CANARY_TYPE", AgentID: c("agent"), TraceID: c("trace"), Action: c("action"), SpanID: c("span"), ParentSpanID: c("parent"),
		Inputs: Of(map[string]any{c("name"): c("input")}), Outputs: Of(map[string]any{"v": []any{c("output")}}), Error: new(c("error")),
		Metadata: Of(map[string]any{"user_id": c("user"), "session_id": c("session"), "environment": c("environment")}),
		Resource: Of(map[string]any{"type": c("type"), "id": c("resource")}), Authority: Of(map[string]any{"by": c("authority")}),
		Purpose: c("purpose"), Outcome: c("outcome"), IdempotencyKey: c("key"),
	}
}

// noCanary reads every file below the directories, compressed ones too, and its
// name.
func noCanary(t *testing.T, dirs ...string) {
	t.Helper()
	files := 0
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			files++
			data, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			if strings.HasSuffix(name, ".zst") {
				r, err := zstd.NewReader(bytes.NewReader(data))
				if err != nil {
					return err
				}
				var all bytes.Buffer
				if _, err := all.ReadFrom(r); err != nil {
					return err
				}
				r.Close()
				data = all.Bytes()
			}
			for _, clue := range [][]byte{
				[]byte("canary"), []byte("CANARY"), []byte(hex.EncodeToString([]byte("canary"))),
				[]byte(base64.RawStdEncoding.EncodeToString([]byte("canary"))), []byte(base64.RawStdEncoding.EncodeToString([]byte("xcanary"))[2:8]),
			} {
				if bytes.Contains(data, clue) || strings.Contains(d.Name(), "canary") {
					t.Errorf("%s has %q", name, clue)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if files < 8 {
		t.Fatalf("%d files looked at", files)
	}
}

func TestEncryptedTrailHoldsNothingInClear(t *testing.T) {
	ctx := context.Background()
	path, o := encryptedTrail(t)
	o.Durability = Durable
	trail := openWith(t, path, o)
	for n := range 50 {
		if _, err := trail.Record(ctx, canaryEvent(n)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := trail.Rotate(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := trail.Record(ctx, canaryEvent(50)); err != nil {
		t.Fatal(err)
	}
	// Readings name what they looked for.
	if entries, err := collect(trail.Query(ctx, Query{User: "canary-user-7", Text: "canary"})); err != nil || len(entries) != 1 {
		t.Fatalf("%d, %v", len(entries), err)
	}
	noCanary(t, filepath.Dir(path))
	// What waits in the spool, put there while nothing can be recorded.
	lock, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	hold, err := durable.OS.OpenFile(filepath.Join(trailDir(path), "lock"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := durable.OS.Lock(hold); err != nil {
		t.Fatal(err)
	}
	if err := Capture(ctx, path, o, canaryEvent(51)); err != nil {
		t.Fatal(err)
	}
	reader := *o
	reader.ReadOnly, reader.Encrypt = true, false
	r := openWith(t, path, &reader)
	if entries, err := collect(r.Query(ctx, Query{User: "canary-user-8"})); err != nil || len(entries) != 1 {
		t.Fatalf("%d, %v", len(entries), err)
	}
	if items, err := os.ReadDir(filepath.Join(trailDir(path), "spool")); err != nil || len(items) != 2 {
		t.Fatalf("%d items wait, %v", len(items), err)
	}
	noCanary(t, filepath.Dir(path))
	hold.Close()
	again := openWith(t, path, o)
	entries, err := collect(again.Query(ctx, Query{Agent: "canary-agent-51"}))
	if err != nil || len(entries) != 1 || entries[0].Inputs.Text("canary-name-51") != "canary-input-51" {
		t.Fatalf("%v, %v", entries, err)
	}
	noCanary(t, filepath.Dir(path))
	verifyIntact(t, path, o)
}

func verifyIntact(t *testing.T, path string, o *Options) {
	t.Helper()
	result, err := VerifyPath(context.Background(), path, &VerifyOptions{StateDir: o.StateDir})
	if err != nil || result.Status != "intact" {
		t.Errorf("%+v, %v", result, err)
	}
}

// Without the key, or with another, nothing is shown and nothing is written; that
// nothing was changed can be told all the same.
func TestEncryptedTrailWithoutItsKey(t *testing.T) {
	ctx := context.Background()
	path, o := encryptedTrail(t)
	trail := openWith(t, path, o)
	if _, err := trail.Record(ctx, canaryEvent(1)); err != nil {
		t.Fatal(err)
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	for name, k := range map[string]kms.KEK{"another key": testKEK(t, 2), "no key": nil} {
		without := *o
		without.KEK, without.Encrypt = k, false
		if _, err := Open(path, &without); !errors.Is(err, ErrNoKey) {
			t.Errorf("%s: to write: %v", name, err)
		}
		without.ReadOnly = true
		r := openWith(t, path, &without)
		n := 0
		var last error
		for e, err := range r.Query(ctx, Query{}) {
			if last = err; err == nil {
				n++
				_ = e
			}
		}
		if n > 0 || !errors.Is(last, ErrNoKey) {
			t.Errorf("%s: %d entries, %v", name, n, last)
		}
		verifyIntact(t, path, o)
	}
	// Keys that are gone are no reason to write in clear.
	if err := os.Remove(filepath.Join(trailDir(path), "keys", "deks.json")); err != nil {
		t.Fatal(err)
	}
	plain := *o
	plain.Encrypt = false
	if _, err := Open(path, &plain); err == nil {
		t.Error("a trail that seals is written in clear")
	}
}

func TestEncryptIsChosenWhenATrailIsMade(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	o := &Options{StateDir: filepath.Join(t.TempDir(), "state")}
	openWith(t, path, o).Close()
	o.Encrypt, o.KEK = true, testKEK(t, 1)
	if _, err := Open(path, o); err == nil || !strings.Contains(err.Error(), "Encrypt") {
		t.Errorf("%v", err)
	}
	// It is remembered: nobody has to say it again.
	path, o = encryptedTrail(t)
	o.Encrypt = false
	trail := openWith(t, path, o)
	if _, err := trail.Record(context.Background(), canaryEvent(1)); err != nil {
		t.Fatal(err)
	}
	lines := allLines(t, durable.OS, trail.Path())
	if !seal.IsLine(lines[len(lines)-1]) {
		t.Error("a line in clear")
	}
}

// The key file is made outside the trail's directory, and told.
func TestKeyFileIsMadeAndTold(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.jsonl")
	var told []string
	o := &Options{Encrypt: true, StateDir: filepath.Join(dir, "state"), Warn: func(err error) { told = append(told, err.Error()) }}
	t.Setenv(kms.EnvironmentVariable, "")
	os.Unsetenv(kms.EnvironmentVariable)
	trail := openWith(t, path, o)
	if _, err := trail.Record(context.Background(), canaryEvent(1)); err != nil {
		t.Fatal(err)
	}
	trail.Close()
	files, err := os.ReadDir(filepath.Join(o.StateDir, "kek"))
	if err != nil || len(files) != 1 || len(told) != 1 || !strings.Contains(told[0], files[0].Name()) {
		t.Fatalf("%v, %v, %v", files, told, err)
	}
	if fi, err := files[0].Info(); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
	if n := len(told); openWith(t, path, o) == nil || len(told) > n {
		t.Errorf("told again: %v", told)
	}
}

// A trail that seals answers like one that does not.
func TestEncryptedTrailAnswersLikeAPlainOne(t *testing.T) {
	ctx := context.Background()
	path, o := encryptedTrail(t)
	sealed := openWith(t, path, o)
	plainOptions := Options{StateDir: o.StateDir, Command: "test"}
	plainPath := filepath.Join(t.TempDir(), "plain.jsonl")
	if _, err := Init(plainPath, &InitOptions{Options: plainOptions}); err != nil {
		t.Fatal(err)
	}
	plain := openWith(t, plainPath, &plainOptions)
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for n := range 30 {
		for _, trail := range []*Trail{sealed, plain} {
			ev := canaryEvent(n % 10)
			ev.Timestamp, ev.IdempotencyKey = at.Add(time.Duration(n)*time.Hour), fmt.Sprint("key", n)
			if n%3 == 0 {
				ev.EventType = PHIAccess
			}
			if n%4 == 0 {
				ev.Success = new(false)
			}
			if _, err := trail.Record(ctx, ev); err != nil {
				t.Fatal(err)
			}
			if n == 12 {
				if _, err := trail.Rotate(ctx); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for i, q := range []Query{
		{}, {Agent: "canary-agent-3"}, {Trace: "canary-trace-*"}, {User: "canary-user-4"}, {Session: "canary-session-4"}, {EventTypes: []string{PHIAccess}},
		{Action: "canary-action-5"}, {Success: new(false)}, {Outcome: "canary-outcome-6"}, {Resource: "canary-type-1/canary-resource-1"},
		{Purpose: "canary-purpose-2"}, {Metadata: map[string]string{"environment": "canary-environment-8"}}, {Text: "OUTPUT-9"},
		{Since: at.Add(10 * time.Hour), Until: at.Add(20 * time.Hour)}, {Order: Newest, Limit: 5}, {Cursor: "9", Limit: 4},
	} {
		a, err := collect(sealed.Query(ctx, q))
		if err != nil {
			t.Fatalf("query %d: %v", i, err)
		}
		b, err := collect(plain.Query(ctx, q))
		if err != nil {
			t.Fatalf("query %d: %v", i, err)
		}
		if len(a) != len(b) || len(b) == 0 && i != 15 {
			t.Errorf("query %d: %d and %d entries", i, len(a), len(b))
			continue
		}
		for k := range a {
			if a[k].Action != b[k].Action || !a[k].Timestamp.Equal(b[k].Timestamp) || *a[k].Error != *b[k].Error || a[k].Metadata.Text("user_id") != b[k].Metadata.Text("user_id") {
				t.Errorf("query %d, entry %d: %s and %s", i, k, a[k].View(), b[k].View())
			}
			if a[k].Digest() == b[k].Digest() || !seal.IsLine(a[k].Line()) || seal.IsLine(b[k].Line()) {
				t.Errorf("query %d, entry %d: the stored line is not what it should be", i, k)
			}
		}
	}
	ra, err := sealed.ComplianceReport(ctx)
	if err != nil {
		t.Fatal(err)
	}
	rb, err := plain.ComplianceReport(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(ra.Encryption); got != "Enabled" || ra.Unattributed > 0 || len(ra.Agents) != len(rb.Agents) || len(rb.Agents) != 10 {
		t.Errorf("report: %s, %d agents and %d in clear, %d entries of nobody", got, len(ra.Agents), len(rb.Agents), ra.Unattributed)
	}
	gaps, err := sealed.GapReport(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if gaps.Unreadable > 0 || gaps.TotalEntries != 30 {
		t.Errorf("gap report: %d entries, %d not read", gaps.TotalEntries, gaps.Unreadable)
	}
}

// A retry gives the first receipt, over restarts and when the keys' files are lost;
// another event with the key is refused.
func TestEncryptedTrailKnowsItsIdempotencyKeys(t *testing.T) {
	ctx := context.Background()
	path, o := encryptedTrail(t)
	trail := openWith(t, path, o)
	first, err := trail.Record(ctx, canaryEvent(1))
	if err != nil {
		t.Fatal(err)
	}
	check := func(trail *Trail) {
		t.Helper()
		if r, err := trail.Record(ctx, canaryEvent(1)); err != nil || r.Index != first.Index || r.Digest != first.Digest {
			t.Errorf("again: %+v, %v", r, err)
		}
		other := canaryEvent(1)
		other.Action = "another"
		if _, err := trail.Record(ctx, other); !errors.Is(err, ErrConflict) {
			t.Errorf("another event: %v", err)
		}
	}
	check(trail)
	if _, err := trail.Rotate(ctx); err != nil {
		t.Fatal(err)
	}
	check(trail)
	trail.Close()
	if err := os.RemoveAll(filepath.Join(trailDir(path), "idempotency")); err != nil {
		t.Fatal(err)
	}
	check(openWith(t, path, o))
}

// Another process's events come through the holder and are sealed by it; its
// readings open what it may.
func TestEncryptedTrailIsShared(t *testing.T) {
	ctx := context.Background()
	path, o := encryptedTrail(t)
	holder := openWith(t, path, o)
	second := *o
	client := openWith(t, path, &second)
	if client.holds() {
		t.Fatal("two holders")
	}
	if _, err := client.Record(ctx, canaryEvent(1)); err != nil {
		t.Fatal(err)
	}
	if entries, err := collect(client.Query(ctx, Query{User: "canary-user-1"})); err != nil || len(entries) != 1 {
		t.Errorf("%d, %v", len(entries), err)
	}
	if err := holder.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Record(ctx, canaryEvent(2)); err != nil || !client.holds() {
		t.Fatalf("take-over: %v", err)
	}
	noCanary(t, filepath.Dir(path))
}

func TestEncryptedTrailSurvivesPowerFailure(t *testing.T) {
	options := func(fsys durable.FS) *Options {
		o := memOptions(fsys)
		o.Encrypt, o.KEK = true, testKEK(t, 1)
		return o
	}
	durabletest.EachCrash(t, 0, func(t *testing.T, r *durabletest.Run) {
		if err := durable.MkdirAll(r.FS, "/log", 0o700); err != nil {
			t.Fatal(err)
		}
		h := &history{}
		r.Inject(func() {
			trail, err := Open(memLog, options(r.FS))
			if err != nil {
				return
			}
			if h.record(trail, 2) == nil && h.sign(trail) == nil {
				h.record(trail, 1)
			}
			trail.Close()
		})
		after := r.Restart()
		trail, err := Open(memLog, options(after))
		if err != nil {
			t.Fatalf("open after the crash: %v", err)
		}
		h.saw(trail)
		if err := h.record(trail, 1); err != nil {
			t.Fatal(err)
		}
		entries, err := collect(trail.Query(context.Background(), Query{Agent: "agent"}))
		if err != nil || len(entries) < len(h.receipts) {
			t.Errorf("%d of %d entries can be read: %v", len(entries), len(h.receipts), err)
		}
		if err := trail.Close(); err != nil {
			t.Fatal(err)
		}
		for i, l := range allLines(t, after, memLog) {
			if !seal.IsLine(l) && !bytes.Contains(l, []byte(`"agent_id":"kaizen-audit"`)) {
				t.Errorf("line %d is in clear", i)
			}
		}
	})
}

// All of it runs with Go's FIPS 140-3 module and nothing else.
func TestEncryptedTrailWithFIPSOnly(t *testing.T) {
	if os.Getenv("GODEBUG") == "fips140=only" {
		t.Skip("this is the inner run")
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^Test(EncryptedTrailAnswersLikeAPlainOne|EncryptedTrailWithoutItsKey|WriteOnly)$", "-test.v")
	cmd.Env = append(os.Environ(), "GODEBUG=fips140=only")
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: TestEncryptedTrailAnswersLikeAPlainOne")) || !bytes.Contains(out, []byte("--- PASS: TestWriteOnly")) {
		t.Errorf("%v\n%s", err, out)
	}
}

// Whose pseudonyms they are is sealed under the trail's key as well.
func TestPseudonymsOfAnEncryptedTrail(t *testing.T) {
	ctx := context.Background()
	path, o := encryptedTrail(t)
	trail := openWith(t, path, o)
	hash, err := trail.Pseudonymize(ctx, "canary-user-1")
	if err != nil {
		t.Fatal(err)
	}
	ev := Event{EventType: ToolUse, AgentID: "a", Action: "b", Metadata: Of(map[string]any{"user_id_hash": hash})}
	if _, err := trail.Record(ctx, ev); err != nil {
		t.Fatal(err)
	}
	if key, err := os.ReadFile(filepath.Join(trailDir(path), "keys", "identity.key")); err != nil || !bytes.Contains(key, []byte(`"wrap"`)) {
		t.Errorf("the identities' key lies there as it is: %v", err)
	}
	trail.Close()
	trail = openWith(t, path, o)
	if again, err := trail.Pseudonymize(ctx, "canary-user-1"); err != nil || again != hash {
		t.Errorf("%s, %v", again, err)
	}
	if entries, err := collect(trail.Query(ctx, Query{User: "canary-user-1"})); err != nil || len(entries) != 1 {
		t.Errorf("%d, %v", len(entries), err)
	}
	noCanary(t, filepath.Dir(path))
}
