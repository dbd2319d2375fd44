package audit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kaizen-audit/kaizen-audit/archive"
	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/durable/durabletest"
	"github.com/kaizen-audit/kaizen-audit/kms"
	"github.com/kaizen-audit/kaizen-audit/policy"
)

func newPair(t *testing.T) (*kms.Public, *kms.Private) {
	t.Helper()
	k, err := kms.NewPair()
	if err != nil {
		t.Fatal(err)
	}
	return k.Public(), k
}

func personEvent(user, canary string) Event {
	return Event{EventType: ToolUse, AgentID: "a", TraceID: "trace-" + user, Action: "tool_use:x",
		Inputs: Of(map[string]any{"text": canary}), Metadata: Of(map[string]any{"user_id": user})}
}

// textsOf are the inputs of the entries about a user that somebody reads.
func textsOf(t *testing.T, trail *Trail, user string) (texts []string) {
	t.Helper()
	for e, err := range trail.Query(context.Background(), Query{User: user, EventTypes: []string{ToolUse}}) {
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, e.Inputs.Text("text"))
	}
	return texts
}

// A writer with the public key seals and appends over several openings, and reads
// nothing; who has the private key reads it all, exports it, and erases it, with every
// handle that a person ever got.
func TestWriteOnly(t *testing.T) {
	for _, encrypt := range []bool{false, true} {
		t.Run(fmt.Sprintf("encrypt=%v", encrypt), func(t *testing.T) {
			ctx := context.Background()
			dir := t.TempDir()
			path := filepath.Join(dir, "audit.jsonl")
			public, private := newPair(t)
			sealing := &Options{StateDir: filepath.Join(dir, "state"), Command: "test", KEK: public}
			opening := &Options{StateDir: sealing.StateDir, Command: "test", KEK: private}
			if _, err := Init(path, &InitOptions{Options: *sealing, Profile: "gdpr"}); encrypt {
				os.RemoveAll(dir + "/audit.trail")
				if err := errors.Join(os.Remove(path), err); err != nil {
					t.Fatal(err)
				}
				if _, err = Init(path, &InitOptions{Options: Options{StateDir: filepath.Join(dir, "state"), Command: "test", KEK: public, Encrypt: true}, ForgetPin: true}); err != nil {
					t.Fatal(err)
				}
			} else if err != nil {
				t.Fatal(err)
			}
			store, err := archive.OpenDir("file://" + t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			const openings = 2
			for n := range openings {
				trail := openWith(t, path, sealing)
				for i := range 3 {
					for _, user := range []string{"mia", "tom"} {
						if _, err := trail.Record(ctx, personEvent(user, fmt.Sprintf("canary-%s-%d-%d", user, n, i))); err != nil {
							t.Fatal(err)
						}
					}
				}
				// Who has the private key reads beside it, what comes later too.
				beside := openWith(t, path, &Options{StateDir: opening.StateDir, ReadOnly: true, KEK: private})
				if got := textsOf(t, beside, "tom"); len(got) != 3*(n+1) {
					t.Errorf("beside the writer: %q", got)
				}
				if _, err := trail.Record(ctx, personEvent(fmt.Sprint("later-", n), "canary-later")); err != nil {
					t.Fatal(err)
				}
				if got := textsOf(t, beside, fmt.Sprint("later-", n)); len(got) != 1 {
					t.Errorf("what came later: %q", got)
				}
				if err := beside.Close(); err != nil {
					t.Fatal(err)
				}
				// What it wrote a moment ago it does not show either.
				shown := 0
				for e, err := range trail.Query(ctx, Query{EventTypes: []string{ToolUse}}) {
					if encrypt {
						if !errors.Is(err, ErrNoKey) || !strings.Contains(err.Error(), "give the private key") {
							t.Fatalf("query: %v", err)
						}
						break
					}
					if err != nil {
						t.Fatal(err)
					}
					if text := string(objectText(e.Inputs)); strings.Contains(text, "canary") || !strings.Contains(text, "no key") {
						t.Fatalf("it shows %s", text)
					}
					shown++
				}
				if !encrypt && shown != 7*(n+1) {
					t.Errorf("%d entries", shown)
				}
				for what, err := range map[string]error{
					"erase":  second(trail.EraseUser(ctx, "mia", &EraseOptions{Reason: "x"})),
					"export": second(trail.ExportUser(ctx, "mia", &strings.Builder{})),
					"rekey":  trail.RotateKEK(ctx),
				} {
					if err == nil || what != "rekey" && !errors.Is(err, ErrNoKey) {
						t.Errorf("%s: %v", what, err)
					}
				}
				if _, err := trail.Rotate(ctx); err != nil {
					t.Fatal(err)
				}
				h, err := trail.AddHold(ctx, HoldRequest{Agent: "a", Reason: "a case"})
				if err == nil {
					err = trail.LiftHold(ctx, h.ID, "over")
				}
				if (err != nil) != encrypt || err != nil && !errors.Is(err, ErrNoKey) { // whose lines it covers can't be seen
					t.Errorf("a hold: %v", err)
				}
				if _, err := trail.AddHold(ctx, HoldRequest{User: "tom", Reason: "a case"}); !errors.Is(err, ErrNoKey) {
					t.Errorf("a hold for a user: %v", err)
				}
				if _, err := trail.BackupKeys(ctx, filepath.Join(t.TempDir(), "keys.tar"), time.Hour); err != nil {
					t.Errorf("a backup: %v", err)
				}
				if _, err := trail.Archive(ctx, store, nil); err != nil {
					t.Errorf("archive: %v", err)
				}
				if err = trail.RotateSigningKey(ctx, false); err == nil {
					err = trail.RetireSigningKey(ctx)
				}
				if err != nil {
					t.Errorf("a new signing key: %v", err)
				}
				if err := trail.RotateDEK(ctx); (err == nil) != encrypt {
					t.Errorf("a new key for lines: %v", err)
				}
				if err := trail.Close(); err != nil {
					t.Fatal(err)
				}
			}
			noCanary(t, dir)
			intact(t, path, "", sealing)
			reader := openWith(t, path, &Options{StateDir: sealing.StateDir, ReadOnly: true, KEK: public})
			for _, err := range reader.Query(ctx, Query{}) {
				if encrypt && !errors.Is(err, ErrNoKey) {
					t.Errorf("a reader with the public key: %v", err)
				}
				break
			}
			keys, err := reader.Keys(ctx)
			if err != nil || !strings.Contains(fmt.Sprint(keys), "hpke:p256") {
				t.Errorf("%+v, %v", keys, err)
			}

			trail := openWith(t, path, opening)
			if got := textsOf(t, trail, "mia"); len(got) != 3*openings {
				t.Fatalf("%q", got)
			}
			plan, err := trail.EraseUser(ctx, "mia", &EraseOptions{DryRun: true})
			// That somebody asked for mia is an entry about mia.
			if err != nil || plan.Entries != 3*openings+1 || len(plan.Subjects) < openings {
				t.Fatalf("%+v, %v", plan, err)
			}
			before := filepath.Join(dir, "before")
			if err := os.CopyFS(before, os.DirFS(filepath.Join(dir, "audit.trail", "keys"))); err != nil {
				t.Fatal(err)
			}
			if _, err := trail.EraseUser(ctx, "mia", &EraseOptions{Reason: "asked for it"}); err != nil {
				t.Fatal(err)
			}
			if got := textsOf(t, trail, "mia"); len(got) != 0 {
				t.Errorf("after the erasure: %q", got)
			}
			if got := textsOf(t, trail, "tom"); len(got) != 3*openings {
				t.Errorf("of the other: %q", got)
			}
			if _, err := trail.Record(ctx, personEvent("tom", "canary-tom-by-the-other")); err != nil {
				t.Fatal(err)
			}
			if err := trail.Close(); err != nil {
				t.Fatal(err)
			}
			// The limit, which info tells: a copy of keys/ from before opens with the key.
			copied := filepath.Join(dir, "copied")
			if err := os.Mkdir(copied, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := exec.Command("cp", "-a", path, filepath.Join(dir, "audit.trail"), copied).Run(); err != nil {
				t.Fatal(err)
			}
			old := filepath.Join(copied, "audit.trail", "keys")
			if err := errors.Join(os.RemoveAll(old), os.Rename(before, old)); err != nil {
				t.Fatal(err)
			}
			thief := openWith(t, filepath.Join(copied, "audit.jsonl"), &Options{StateDir: filepath.Join(copied, "state"), ReadOnly: true, KEK: private})
			if got := textsOf(t, thief, "mia"); len(got) != 3*openings || !strings.Contains(thief.erasure(), "from before still reads that copy") {
				t.Errorf("a copy of before: %q; %s", got, thief.erasure())
			}
			// The writer goes on, and still nobody reads who was erased.
			trail = openWith(t, path, sealing)
			if _, err := trail.Record(ctx, personEvent("mia", "canary-mia-again")); err != nil {
				t.Fatal(err)
			}
			if err := trail.Close(); err != nil {
				t.Fatal(err)
			}
			trail = openWith(t, path, opening)
			if got := textsOf(t, trail, "mia"); len(got) != 1 || got[0] != "canary-mia-again" {
				t.Errorf("%q", got)
			}
			if got := textsOf(t, trail, "tom"); len(got) != 3*openings+1 {
				t.Errorf("%q", got)
			}
			var out strings.Builder
			if _, err := trail.ExportUser(ctx, "tom", &out); err != nil || out.Len() == 0 {
				t.Errorf("export: %v", err)
			}
			// To another pair, and back to a key that is not one.
			if err := trail.Close(); err != nil {
				t.Fatal(err)
			}
			_, next := newPair(t)
			both := *opening
			both.NextKEK = next.Public()
			trail = openWith(t, path, &both)
			if err := trail.RotateKEK(ctx); !errors.Is(err, ErrOption) {
				t.Errorf("rotated to a public key: %v", err)
			}
			trail.Close()
			both.NextKEK = next
			trail = openWith(t, path, &both)
			if err := trail.RotateKEK(ctx); err != nil {
				t.Fatal(err)
			}
			trail.Close()
			if _, err := Open(path, sealing); !errors.Is(err, ErrNoKey) {
				t.Errorf("the former public key: %v", err)
			}
			trail = openWith(t, path, &Options{StateDir: sealing.StateDir, KEK: next})
			if got := textsOf(t, trail, "tom"); len(got) != 3*openings+1 {
				t.Errorf("%q", got)
			}
			intact(t, path, "", sealing)
		})
	}
}

func second[T any](_ T, err error) error { return err }

// Within an opening an idempotency key holds, over openings it does not; that is said.
func TestWriteOnlyIdempotency(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.jsonl")
	public, private := newPair(t)
	o := &Options{StateDir: filepath.Join(dir, "state"), Command: "test", KEK: public, Encrypt: true}
	trail := openWith(t, path, o)
	ev := personEvent("mia", "x")
	ev.IdempotencyKey = "k"
	first, err := trail.Record(ctx, ev)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := trail.Record(ctx, ev); err != nil || again.Index != first.Index {
		t.Errorf("%+v, %v", again, err)
	}
	other := personEvent("mia", "y")
	other.IdempotencyKey = "k"
	if _, err := trail.Record(ctx, other); !errors.Is(err, ErrConflict) {
		t.Errorf("another event: %v", err)
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	o.Encrypt = false
	trail = openWith(t, path, o)
	if again, err := trail.Record(ctx, ev); err != nil || again.Index == first.Index {
		t.Errorf("%+v, %v", again, err)
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	trail = openWith(t, path, &Options{StateDir: o.StateDir, KEK: private})
	if got := textsOf(t, trail, "mia"); len(got) != 2 {
		t.Errorf("%q", got)
	}
}

// A policy whose rules need a key that outlives an opening is refused, before a trail
// is made and after.
func TestWriteOnlyHashesNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.jsonl")
	public, private := newPair(t)
	p, err := policy.New(policy.Config{Fields: []policy.Field{{Path: "/metadata/user_id", Action: policy.Hash}}})
	if err != nil {
		t.Fatal(err)
	}
	o := &Options{StateDir: filepath.Join(dir, "state"), KEK: public, Encrypt: true, Policy: p}
	if _, err := Open(path, o); !errors.Is(err, ErrOption) {
		t.Errorf("make: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "audit.trail", "trail.json")); err == nil {
		t.Error("a trail was made")
	}
	o.KEK = private
	trail := openWith(t, path, o)
	trail.Close()
	if _, err := Open(path, &Options{StateDir: o.StateDir, KEK: public}); !errors.Is(err, ErrOption) {
		t.Errorf("open: %v", err)
	}
}

// An erasure that a crash cut off, or a backup that was put back, is for who has the
// private key: the writer does not go on before.
func TestWriteOnlyWaitsForAnErasure(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.jsonl")
	public, private := newPair(t)
	o := &Options{StateDir: filepath.Join(dir, "state"), KEK: public, Encrypt: true}
	trail := openWith(t, path, o)
	if _, err := trail.Record(context.Background(), personEvent("mia", "x")); err != nil {
		t.Fatal(err)
	}
	trail.Close()
	erasing := filepath.Join(dir, "audit.trail", "keys", "erasing.json")
	if err := os.WriteFile(erasing, []byte(`{"format":1,"event_id":"01890a5d-ac96-774b-bcce-b302099a8057","size":1,"epoch":1,"handles":["AAAAAAAAAAAA"]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, o); !errors.Is(err, ErrNoKey) || !strings.Contains(err.Error(), "an erasure is to be completed first") {
		t.Errorf("%v", err)
	}
	trail = openWith(t, path, &Options{StateDir: o.StateDir, KEK: private})
	trail.Close()
	trail = openWith(t, path, o)
	trail.Close()
}

// A power failure at any step of a creation and an opening to seal: the next one goes
// on, and what was acknowledged opens with the private key.
func TestWriteOnlySurvivesACrashAtEveryStep(t *testing.T) {
	ctx := context.Background()
	durabletest.EachCrash(t, 1, func(t *testing.T, r *durabletest.Run) {
		tryStep(t)
		public, private := newPair(t)
		if err := durable.MkdirAll(r.FS, "/log", 0o700); err != nil {
			t.Fatal(err)
		}
		o := Options{fs: r.FS, manual: true, quiet: true, ring: -1, KEK: public, Encrypt: true}
		acked := 0
		r.Inject(func() {
			for n := range 2 {
				trail, err := Open("/log/audit.jsonl", &o)
				if err != nil {
					return
				}
				if _, err := trail.Record(ctx, personEvent("mia", fmt.Sprint("text ", n))); err == nil {
					acked++
				}
				if trail.Close() != nil {
					return
				}
			}
		})
		o.fs = r.Restart()
		trail, err := Open("/log/audit.jsonl", &o)
		if err != nil {
			t.Fatalf("after the crash: %v", err)
		}
		if _, err := trail.Record(ctx, personEvent("mia", "after")); err != nil {
			t.Fatal(err)
		}
		if err := trail.Close(); err != nil {
			t.Fatal(err)
		}
		o.KEK, o.Encrypt = private, false
		if trail, err = Open("/log/audit.jsonl", &o); err != nil {
			t.Fatal(err)
		}
		defer trail.Close()
		view, err := trail.journal.View()
		if err != nil {
			t.Fatal(err)
		}
		defer view.Close()
		opened := 0
		for _, part := range view.Parts() {
			if _, err := view.Part(ctx, part, func(index int64, line []byte) error {
				v, err := trail.viewOf(line)
				if err != nil || len(v.Hidden) > 0 {
					return fmt.Errorf("entry %d: %v, %v", index, v.Hidden, err)
				}
				if strings.Contains(string(v.Line), `"mia"`) {
					opened++
				}
				return nil
			}); err != nil {
				t.Error(err)
			}
		}
		if opened < acked+1 {
			t.Errorf("%d open, %d were acknowledged", opened, acked+1)
		}
	})
}

// sealChild makes the test binary a writer that seals only and is killed.
const sealChild = "KAIZEN_TEST_SEAL_CHILD"

func init() {
	if path, key, ok := strings.Cut(os.Getenv(sealChild), "|"); ok {
		k, err := kms.Parse(key)
		if err == nil {
			var trail *Trail
			if trail, err = Open(path, &Options{KEK: k}); err == nil {
				for i := 0; err == nil; i++ {
					if _, err = trail.Record(context.Background(), personEvent(fmt.Sprint("user-", i%5), "x")); err == nil {
						fmt.Println("ack")
					}
				}
			}
		}
		fmt.Println("error", err)
		os.Exit(1)
	}
}

// A writer that seals only is killed again and again: what it acknowledged opens.
func TestCrashOfAWriteOnlyWriter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	public, private := newPair(t)
	if _, err := Init(path, &InitOptions{Options: Options{KEK: public, Encrypt: true}}); err != nil {
		t.Fatal(err)
	}
	acked := 0
	for range min(*crashRounds/50, 100) {
		cmd := exec.Command(os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), sealChild+"="+path+"|"+public.String())
		var out strings.Builder
		cmd.Stdout = &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(250 * time.Millisecond)
		_ = cmd.Process.Signal(syscall.SIGKILL)
		_ = cmd.Wait()
		if strings.Contains(out.String(), "error") {
			t.Fatal(out.String())
		}
		acked += strings.Count(out.String(), "ack")
	}
	trail := openWith(t, path, &Options{KEK: private})
	total := 0
	for i := range 5 {
		total += len(textsOf(t, trail, fmt.Sprint("user-", i)))
	}
	if total < acked || acked == 0 {
		t.Errorf("%d open of %d that were acknowledged", total, acked)
	}
}
