package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/durable/durabletest"
	"github.com/kaizen-audit/kaizen-audit/internal/keys"
	"github.com/kaizen-audit/kaizen-audit/internal/seal"
	"github.com/kaizen-audit/kaizen-audit/kms"
)

// eraseOnMem is the trail of a crash test: mia and noah are in it.
func eraseOnMem(t *testing.T, fsys durable.FS) (*Trail, *Options, error) {
	t.Helper()
	o := memOptions(fsys)
	o.KEK, o.profile = testKEK(t, 1), "gdpr"
	trail, err := Open(memLog, o)
	return trail, o, err
}

// openAfterCrash opens what a crash left of a trail in memory, where no canary may be.
func openAfterCrash(t *testing.T, r *durabletest.Run, trail *Trail, o *Options) *Trail {
	t.Helper()
	trail.Close()
	o.fs = r.Restart()
	noCanaryOn(t, o.fs, "/log")
	next, err := Open(memLog, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { next.Close() })
	return next
}

// noCanaryOn reads every file of a file system in memory.
func noCanaryOn(t *testing.T, fsys durable.FS, dir string) {
	t.Helper()
	files, err := fsys.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		name := filepath.Join(dir, f.Name())
		if f.IsDir() {
			noCanaryOn(t, fsys, name)
			continue
		}
		data, err := durable.ReadFile(fsys, name, 1<<24)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(data, []byte("canary")) || strings.Contains(f.Name(), "canary") {
			t.Errorf("%s has a canary", name)
		}
	}
}

// erasesOrNot is one erasure, and what the next opening finds after it was cut short.
func erasesOrNot(t *testing.T, r *durabletest.Run) {
	ctx := context.Background()
	if err := durable.MkdirAll(r.FS, "/log", 0o700); err != nil {
		t.Fatal(err)
	}
	trail, o, err := eraseOnMem(t, r.FS)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := trail.Pseudonymize(ctx, "canary-mia"); err != nil {
		t.Fatal(err)
	}
	mustRecord(t, trail, personalEvent("canary-mia", "t1"), personalEvent("canary-noah", "t2"))
	if err := trail.signer.sign(); err != nil {
		t.Fatal(err)
	}
	done := false
	r.Inject(func() {
		e, err := trail.EraseUser(ctx, "canary-mia", &EraseOptions{Reason: "canary of the reason", Certificate: "/log/c.json"})
		done = err == nil && e.Done
	})
	next := openAfterCrash(t, r, trail, o)
	if _, some, err := next.enc.Load().store.Pending(); some || err != nil {
		t.Fatalf("an erasure is pending after an opening: %v", err)
	}
	entries := found(t, next, Query{})
	own := found(t, next, Query{EventTypes: []string{"AUDIT_ERASURE"}})
	erased := len(entries) > 0 && entries[0].Inputs.Text("sealed") == "erased"
	readable := len(entries) > 0 && entries[0].Inputs.Text("about") == "canary of canary-mia"
	switch {
	case len(entries) != 2 || entries[1].Inputs.Text("about") != "canary of canary-noah":
		t.Fatalf("%d entries", len(entries))
	case done && !erased:
		t.Errorf("it was done, and is readable: %s", entries[0].View())
	case erased == readable:
		t.Errorf("neither erased nor readable: %s", entries[0].View())
	}
	_, known, err := next.identities().Lookup("canary-mia")
	if err != nil || known == erased {
		t.Errorf("erased %v, and the identity store knows %v, %v", erased, known, err)
	}
	data, err := durable.ReadFile(o.fs, "/log/c.json", 1<<20)
	switch {
	case !erased && !errors.Is(err, fs.ErrNotExist):
		t.Errorf("a certificate of nothing: %v", err)
	case !erased:
		return
	case err != nil || len(own) == 0:
		t.Fatalf("%d entries about it, certificate: %v", len(own), err)
	}
	if _, err := CheckCertificate(data, "canary-mia", next.VKey(), ""); err != nil {
		t.Error(err)
	}
	// Who is erased stays so, and can be recorded again.
	mustRecord(t, next, personalEvent("canary-mia", "t3"))
	if again := found(t, next, Query{User: "canary-mia"}); len(again) != 1 {
		t.Errorf("%d", len(again))
	}
}

func TestErasureIsCompletedAfterAPowerFailureAtEveryStep(t *testing.T) {
	durabletest.EachCrash(t, 1, erasesOrNot)
}

func TestErasureIsCompletedAfterAFailureOfEachOperation(t *testing.T) {
	durabletest.EachOp(t, erasesOrNot)
}

// An erasure that an error interrupted is completed by the next one in the same
// process, where that can go on.
func TestInterruptedErasureIsGoneOnWith(t *testing.T) {
	ctx := context.Background()
	path, o := profileTrail(t, "gdpr", Options{})
	trail := openWith(t, path, o)
	mustRecord(t, trail, personalEvent("mia", "t1"), personalEvent("noah", "t2"))
	certificate := filepath.Join(t.TempDir(), "gone", "c.json")
	if err := os.Mkdir(filepath.Dir(certificate), 0o700); err != nil {
		t.Fatal(err)
	}
	// Begun as far as step 2, as one does whose process ends there.
	who, err := trail.namesOf("mia")
	if err != nil {
		t.Fatal(err)
	}
	plan, err := trail.planErasure(ctx, who, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	salt := make([]byte, seal.CommitmentSalt)
	begun, err := trail.enc.Load().store.Begin(keys.Erasing{EventID: entry.NewEventID(time.Now()), Handles: []string{plan.out.Subjects[0].Handle},
		Salt: strings.Repeat("A", 43), Certificate: certificate}, who.is)
	if err != nil {
		t.Fatal(err)
	}
	if err := trail.recordErasure(ctx, plan, begun, salt, "mia", EraseOptions{Reason: "x"}, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := trail.EraseUser(ctx, "noah", &EraseOptions{Reason: "y"}); err != nil {
		t.Fatal(err)
	}
	for _, e := range found(t, trail, Query{}) {
		if e.Inputs.Text("sealed") != "erased" {
			t.Errorf("%s", e.View())
		}
	}
	data, err := os.ReadFile(certificate)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := CheckCertificate(data, "mia", trail.VKey(), ""); err != nil {
		t.Error(err)
	}
	verifyIntact(t, path, o)
}

// eraseChild makes the test binary the eraser that is killed; it is the log's path.
const eraseChild = "KAIZEN_TEST_ERASE_CHILD"

func init() {
	if path := os.Getenv(eraseChild); path != "" {
		eraseUntilKilled(path)
	}
}

// eraseUntilKilled records people and erases them, one after another.
func eraseUntilKilled(path string) {
	key, err := kms.NewLocal(bytes.Repeat([]byte{1}, 32))
	if err != nil {
		os.Exit(1)
	}
	t, err := Open(path, &Options{KEK: key, interval: 5 * time.Millisecond, StateDir: filepath.Join(filepath.Dir(path), "state"), MustHold: true})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	for n := 0; ; n++ {
		user := fmt.Sprintf("canary-%d-%d", os.Getpid(), n)
		_, err := t.Record(context.Background(), personalEvent(user, ""))
		if err == nil {
			_, err = t.EraseUser(context.Background(), user, &EraseOptions{Reason: "x"})
		}
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Println("erased", user)
	}
}

// An eraser is killed again and again. Whoever was said to be erased is, nobody is
// half so, and no name is in any file.
func TestCrashErasureKill(t *testing.T) {
	path, o := profileTrail(t, "gdpr", Options{Encrypt: true})
	o.Encrypt = false
	erased := map[string]bool{}
	rounds := max(3, min(*crashRounds/20, 40))
	for round := range rounds {
		cmd := exec.Command(os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), eraseChild+"="+path)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		kill := time.AfterFunc(time.Duration(60+37*(round%11))*time.Millisecond, func() { _ = cmd.Process.Signal(syscall.SIGKILL) })
		_ = cmd.Wait()
		kill.Stop()
		for line := range strings.Lines(out.String()) {
			user, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "erased ")
			switch {
			case strings.HasPrefix(line, "error"):
				t.Fatal(line)
			case ok && strings.HasSuffix(line, "\n"):
				erased[user] = true
			}
		}
		noCanary(t, filepath.Dir(path))
	}
	trail := openWith(t, path, o)
	readable := 0
	for _, e := range found(t, trail, Query{}) {
		user := e.Metadata.Text("user_id")
		if user == "[sealed: erased]" && e.Inputs.Text("sealed") == "erased" {
			continue
		}
		if readable++; erased[user] || e.Inputs.Text("about") != "canary of "+user {
			t.Errorf("entry %d: %s", e.Index, e.View())
		}
	}
	// In each round at most the last one was not erased.
	if t.Logf("%d erased, %d not", len(erased), readable); readable > rounds || len(erased) == 0 {
		t.Errorf("%d are erased, %d not, in %d rounds", len(erased), readable, rounds)
	}
	verifyIntact(t, path, o)
}

// copyTree copies files and directories, and leaves sockets.
func copyTree(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		if d.IsDir() {
			return os.MkdirAll(target, 0o700)
		}
		if !d.Type().IsRegular() {
			return nil
		}
		in, err := os.Open(name)
		if err != nil {
			return err
		}
		defer in.Close()
		out, err := os.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(out, in)
		return errors.Join(err, out.Close())
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Erasure is real: whoever has the lines of whenever, the keys of today and the KEK
// reads nothing of who was erased. What a KEK in one's own hands still opens, a copy
// of keys/ from before, is shown here and said by Info.
func TestErasureIsReal(t *testing.T) {
	ctx := context.Background()
	for _, encrypt := range []bool{false, true} {
		path, o := profileTrail(t, "gdpr", Options{Encrypt: encrypt})
		o.Encrypt = false
		trail := openWith(t, path, o)
		mustRecord(t, trail, personalEvent("mia", "t1"), personalEvent("noah", "t2"))
		if _, err := trail.Rotate(ctx); err != nil {
			t.Fatal(err)
		}
		mustRecord(t, trail, personalEvent("mia", "t3"))
		if err := trail.Close(); err != nil {
			t.Fatal(err)
		}
		before := t.TempDir()
		copyTree(t, filepath.Dir(path), before)
		trail = openWith(t, path, o)
		if _, err := trail.EraseUser(ctx, "mia", &EraseOptions{Reason: "x"}); err != nil {
			t.Fatal(err)
		}
		info, err := trail.Info(ctx)
		if err != nil || !strings.Contains(info.Erasure, "a copy of keys/ from before still reads that copy") {
			t.Errorf("%+v, %v", info, err)
		}
		if err := trail.Close(); err != nil {
			t.Fatal(err)
		}
		after := t.TempDir()
		copyTree(t, filepath.Dir(path), after)

		// Nothing of the old pages is anywhere.
		pages, err := filepath.Glob(filepath.Join(trailDir(filepath.Join(before, "audit.jsonl")), "keys", "subjects", "*.jsonl"))
		if err != nil || len(pages) == 0 {
			t.Fatal(err)
		}
		for _, page := range pages {
			text, err := os.ReadFile(page)
			if err != nil {
				t.Fatal(err)
			}
			for record := range bytes.Lines(text) {
				data := record[bytes.LastIndex(record, []byte(`"data":"`))+8:][:40]
				if file := fileWith(t, after, data); file != "" {
					t.Errorf("%s has a key's record from before", file)
				}
			}
		}
		states := func(dir string) (out []string) {
			reader := *o
			reader.ReadOnly = true
			reader.StateDir = filepath.Join(t.TempDir(), "state")
			r := openWith(t, filepath.Join(dir, "audit.jsonl"), &reader)
			for e, err := range r.scan(ctx, Query{}) {
				if err != nil {
					t.Fatal(err)
				}
				out = append(out, e.Inputs.Text("sealed")+e.Inputs.Text("about"))
			}
			return out
		}
		if got := strings.Join(states(after), "|"); got != "erased|canary of noah|erased" {
			t.Errorf("a copy from after: %s", got)
		}
		// The lines of before, and the keys of after.
		mixed := t.TempDir()
		copyTree(t, before, mixed)
		if err := os.RemoveAll(filepath.Join(mixed, "audit.trail", "keys")); err != nil {
			t.Fatal(err)
		}
		copyTree(t, filepath.Join(after, "audit.trail", "keys"), filepath.Join(mixed, "audit.trail", "keys"))
		if got := strings.Join(states(mixed), "|"); got != "no key|canary of noah|no key" {
			t.Errorf("lines of before with the keys of after: %s", got)
		}
		// The limit: lines and keys of before, and the KEK.
		if got := strings.Join(states(before), "|"); got != "canary of mia|canary of noah|canary of mia" {
			t.Errorf("a whole copy from before: %s", got)
		}
		for _, dir := range []string{before, after} {
			verifyIntact(t, filepath.Join(dir, "audit.jsonl"), o)
		}
	}
}

// fileWith is a file below dir that has some bytes.
func fileWith(t *testing.T, dir string, text []byte) (found string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(name)
		if bytes.Contains(data, text) {
			found = name
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// Of who is erased nothing is in any file in clear, before, while and after: lines,
// sealed segments, keys, identities, spool, certificate.
func TestNothingInClearAroundAnErasure(t *testing.T) {
	ctx := context.Background()
	for _, encrypt := range []bool{false, true} {
		path, o := profileTrail(t, "hipaa", Options{Encrypt: encrypt})
		o.Encrypt = false
		trail := openWith(t, path, o)
		user := "canary-user"
		personal := func(n int) Event {
			ev := canaryEvent(n)
			if !encrypt { // what profiles leave in clear
				ev = Event{EventType: ToolUse, AgentID: "agent", Action: "a", Inputs: ev.Inputs, Outputs: ev.Outputs, Error: ev.Error}
			}
			ev.Metadata = Of(map[string]any{"user_id": user, "canary": "canary"})
			if !encrypt {
				ev.Metadata = Of(map[string]any{"user_id": user, "session_id": "canary"})
			}
			return ev
		}
		if _, err := trail.Pseudonymize(ctx, user); err != nil {
			t.Fatal(err)
		}
		for n := range 20 {
			mustRecord(t, trail, personal(n))
			if n == 10 {
				if _, err := trail.Rotate(ctx); err != nil {
					t.Fatal(err)
				}
			}
		}
		noCanary(t, filepath.Dir(path))
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
		if err := Capture(ctx, path, o, personal(21)); err != nil {
			t.Fatal(err)
		}
		noCanary(t, filepath.Dir(path))
		hold.Close()
		trail = openWith(t, path, o)
		e, err := trail.EraseUser(ctx, user, &EraseOptions{Reason: "canary", Certificate: filepath.Join(filepath.Dir(path), "c.json")})
		if err != nil || e.Entries != 21 {
			t.Fatalf("%+v, %v", e, err)
		}
		noCanary(t, filepath.Dir(path))
		if left := found(t, trail, Query{User: user}); len(left) > 0 {
			t.Errorf("%d are found", len(left))
		}
		if _, err := trail.Rotate(ctx); err != nil {
			t.Fatal(err)
		}
		noCanary(t, filepath.Dir(path))
		verifyIntact(t, path, o)
	}
}

func FuzzCheckCertificate(f *testing.F) {
	dir := f.TempDir()
	key, err := kms.NewLocal(bytes.Repeat([]byte{1}, 32))
	if err != nil {
		f.Fatal(err)
	}
	o := Options{KEK: key, StateDir: filepath.Join(dir, "state")}
	path := filepath.Join(dir, "audit.jsonl")
	if _, err := Init(path, &InitOptions{Options: o, Profile: "gdpr"}); err != nil {
		f.Fatal(err)
	}
	trail, err := Open(path, &o)
	if err != nil {
		f.Fatal(err)
	}
	if _, err := trail.Record(context.Background(), personalEvent("mia", "t")); err != nil {
		f.Fatal(err)
	}
	e, err := trail.EraseUser(context.Background(), "mia", &EraseOptions{Reason: "x"})
	if err != nil {
		f.Fatal(err)
	}
	vkey := trail.VKey()
	if err := trail.Close(); err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(e.Certificate))
	f.Add([]byte(`{"format":"kaizen-audit/erasure-certificate/v1"}`))
	f.Add([]byte("null"))
	whole, err := CheckCertificate(e.Certificate, "mia", vkey, "")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := CheckCertificate(data, "mia", vkey, "")
		if err == nil && (c.EventID != whole.EventID || c.Fields != whole.Fields) {
			t.Errorf("another erasure is proved: %+v", c)
		}
	})
}
