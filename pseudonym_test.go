package audit

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kaizen-audit/kaizen-audit/internal/durable/durabletest"
	"github.com/kaizen-audit/kaizen-audit/policy"
)

// under is an event of a user, under the id or under a pseudonym.
func under(member, user string) Event {
	ev := event("agent", "read")
	ev.Metadata = Of(map[string]any{member: user})
	return ev
}

func record(t *testing.T, trail *Trail, events ...Event) {
	t.Helper()
	if _, err := trail.RecordBatch(t.Context(), events); err != nil {
		t.Fatal(err)
	}
}

func pseudonymize(t *testing.T, trail *Trail, user string) string {
	t.Helper()
	p, err := trail.Pseudonymize(t.Context(), user)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A user is found in both forms, by every way of asking, and the identifier of
// who stands in the trail under a pseudonym only is in none of its files.
func TestAUserIsFoundInBothForms(t *testing.T) {
	ctx := t.Context()
	trail := openTemp(t, nil)
	plain64 := strings.Repeat("0", 64)
	const user, never = "user*123", "mia.li@example.org"
	p, q := pseudonymize(t, trail, user), pseudonymize(t, trail, never)
	plain := sha256.Sum256([]byte(user))
	if len(p) != 64 || p == hex.EncodeToString(plain[:]) || p == q || p != pseudonymize(t, trail, user) {
		t.Fatalf("%s, %s", p, q)
	}
	record(t, trail, under("user_id", user), under("user_id_hash", p), under("user_id_hash", q),
		under("user_id", "user-and-123"), under("user_id", p), under("user_id_hash", plain64))

	// A second opening goes through the first one's socket and is asked last, when
	// it has become the holder.
	second, err := Open(trail.Path(), &Options{StateDir: trail.opts.StateDir})
	if err != nil {
		t.Fatal(err)
	}
	if got := pseudonymize(t, second, user); got != p {
		t.Errorf("through the holder: %s, want %s", got, p)
	}
	if _, err := second.Pseudonymize(ctx, ""); !errors.Is(err, ErrRefused) {
		t.Errorf("an empty id through the holder: %v", err)
	}
	other := pseudonymize(t, second, "made through the socket")
	if got := pseudonymize(t, trail, "made through the socket"); got != other {
		t.Errorf("the holder has %s, and gave %s", got, other)
	}
	reader, err := Open(trail.Path(), &Options{ReadOnly: true, StateDir: trail.opts.StateDir})
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if _, err := reader.Pseudonymize(ctx, user); !errors.Is(err, ErrReadOnly) {
		t.Errorf("a reader makes pseudonyms: %v", err)
	}
	ask := func(who string, trail *Trail) {
		t.Helper()
		m := AuditTrailManager{trail}
		if got, err := m.QueryByUser(ctx, user); err != nil || len(got) != 3 {
			t.Errorf("%s: %d entries, %v", who, len(got), err)
		}
		if got, err := m.QueryByUser(ctx, never); err != nil || len(got) != 1 {
			t.Errorf("%s: %d entries, %v", who, len(got), err)
		}
		if data, err := m.ExportUserData(ctx, user); err != nil || strings.Count(data, "event_id") != 3 {
			t.Errorf("%s: %s, %v", who, data, err)
		}
		if got, err := collect(trail.Tail(ctx, Query{User: `user\*123`}, 9, false)); err != nil || len(got) != 3 {
			t.Errorf("%s: tail: %d entries, %v", who, len(got), err)
		}
		if got, err := collect(trail.Query(ctx, Query{User: p})); err != nil || len(got) != 2 {
			t.Errorf("%s: by the pseudonym: %d entries, %v", who, len(got), err)
		}
		if got, err := collect(trail.Query(ctx, Query{User: "user*123"})); err != nil || len(got) != 2 {
			t.Errorf("%s: a glob finds %d entries, want the two whose user_id fits, %v", who, len(got), err)
		}
	}
	ask("holder", trail)
	ask("through the holder", second)
	ask("reader", reader)
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := trail.Pseudonymize(ctx, user); !errors.Is(err, ErrClosed) {
		t.Errorf("a closed trail: %v", err)
	}
	if got := pseudonymize(t, second, user); got != p || !second.holds() {
		t.Errorf("the next holder has %s, want %s", got, p)
	}
	ask("next holder", second)
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	// Also not in the entries about the readings.
	for name, data := range allFiles(t, filepath.Dir(trail.Path())) {
		if bytes.Contains(data, []byte(never)) || strings.Contains(name, never) {
			t.Errorf("%s holds the identifier", name)
		}
	}
	if data, err := os.ReadFile(trail.Path()); err != nil || bytes.Count(data, []byte(`"user":"`+q+`"`)) < 4 {
		t.Errorf("the readings do not say whose entries were read: %v", err)
	}
}

func allFiles(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		files[name], err = os.ReadFile(name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// A store that can't be read is told: the answer is not whole. What is there is
// given.
func TestAnIdentityStoreThatCannotBeReadIsTold(t *testing.T) {
	var told []error
	trail := openTemp(t, &Options{Warn: func(err error) { told = append(told, err) }})
	p := pseudonymize(t, trail, "user123")
	record(t, trail, under("user_id", "user123"), under("user_id_hash", p))
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(trail.Dir(), "keys", "identity.key")); err != nil {
		t.Fatal(err)
	}
	again, err := Open(trail.Path(), &Options{StateDir: trail.opts.StateDir, Warn: func(err error) { told = append(told, err) }})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if _, err := again.Pseudonymize(t.Context(), "user123"); err == nil || !strings.Contains(err.Error(), "identity.key is missing") {
		t.Errorf("%v", err)
	}
	got, err := collect(again.Query(t.Context(), Query{User: "user123"}))
	if err != nil || len(got) != 1 || len(told) != 1 || !strings.Contains(told[0].Error(), "entries under a pseudonym are not found") {
		t.Errorf("%d entries, %v, told %v", len(got), err, told)
	}
}

// An entry that uses a pseudonym is never acknowledged before the identity is on
// disk: at every power failure, who has the entry finds it by the user.
func TestAnAcknowledgedPseudonymIsFoundAfterAPowerFailure(t *testing.T) {
	durabletest.EachCrash(t, 1, func(t *testing.T, r *durabletest.Run) {
		trail, err := Open("/a.jsonl", &Options{fs: r.FS, quiet: true})
		if err != nil {
			t.Fatal(err)
		}
		acknowledged := false
		r.Inject(func() {
			p, err := trail.Pseudonymize(context.Background(), "user123")
			if err == nil {
				_, err = trail.Record(context.Background(), under("user_id_hash", p))
			}
			acknowledged = err == nil
			_ = trail.Close()
		})
		again, err := Open("/a.jsonl", &Options{fs: r.Restart(), quiet: true})
		if err != nil {
			t.Fatal(err)
		}
		defer again.Close()
		got, err := collect(again.Query(context.Background(), Query{User: "user123"}))
		if err != nil || acknowledged && len(got) != 1 {
			t.Errorf("acknowledged %v, found %d, %v", acknowledged, len(got), err)
		}
	})
}

func TestAFullDiskMakesNoPseudonym(t *testing.T) {
	mem := durabletest.NewMem()
	trail, err := Open("/a.jsonl", &Options{fs: mem, quiet: true})
	if err != nil {
		t.Fatal(err)
	}
	defer trail.Close()
	mem.SetCapacity(mem.Used())
	if _, err := trail.Pseudonymize(t.Context(), "user123"); !errors.Is(err, ErrFull) {
		t.Errorf("%v", err)
	}
	mem.SetCapacity(0)
	if p := pseudonymize(t, trail, "user123"); p != pseudonymize(t, trail, "user123") {
		t.Error("two pseudonyms")
	}
}

// A rule that pseudonymises does so for whoever records through the holder, once,
// and what it stands for is in no file; who hands over what waits in a file uses
// the pseudonyms that there are, and masks the rest.
func TestARulePseudonymisesIntoTheIdentityStore(t *testing.T) {
	ctx := t.Context()
	rules, err := policy.New(policy.Config{Fields: []policy.Field{
		{Path: "/metadata/user_id", Action: policy.Pseudonymise}, {Path: "/inputs/to", Action: policy.Pseudonymise},
	}})
	if err != nil {
		t.Fatal(err)
	}
	trail := openTemp(t, &Options{Policy: rules})
	const user = "mia.li@example.org"
	ev := under("user_id", user)
	ev.Inputs = Of(map[string]any{"to": user})
	record(t, trail, ev)
	second, err := Open(trail.Path(), &Options{StateDir: trail.opts.StateDir, Policy: rules})
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	ev.IdempotencyKey = "once"
	first, err := second.Record(ctx, ev)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := second.Record(ctx, ev); err != nil || again != first {
		t.Errorf("sent again: %+v, %v; the first was %+v", again, err, first)
	}
	p := pseudonymize(t, trail, user)
	record(t, trail, under("user_id", p)) // as it came out of the trail: not done twice
	got, err := collect(second.Query(ctx, Query{User: user}))
	if err != nil || len(got) != 3 {
		t.Fatalf("%d entries, %v", len(got), err)
	}
	for i, e := range got {
		if e.Metadata.Text("user_id") != p || i < 2 && e.Inputs.Text("to") != p {
			t.Errorf("entry %d: %s", e.Index, e.Line())
		}
	}
	if v, ok := got[1].At("/policy/pseudonymised/0"); !ok || !strings.HasPrefix(string(v.JSON()), `"/`) {
		t.Errorf("the entry does not say what was done: %s", got[1].Line())
	}

	text, _, err := second.AppendPending(nil, &ev)
	if err != nil || bytes.Contains(text, []byte(user)) || !bytes.Contains(text, []byte(p)) {
		t.Errorf("waiting: %s, %v", text, err)
	}
	stranger := under("user_id", "nobody.yet@example.org")
	text, _, err = second.AppendPending(nil, &stranger)
	if err != nil || bytes.Contains(text, []byte("nobody.yet")) || !bytes.Contains(text, []byte(`"user_id":"****"`)) {
		t.Errorf("waiting, without a pseudonym: %s, %v", text, err)
	}
	for name, data := range allFiles(t, filepath.Dir(trail.Path())) {
		if bytes.Contains(data, []byte(user)) || bytes.Contains(data, []byte("mia.li")) {
			t.Errorf("%s holds the identifier", name)
		}
	}
}
