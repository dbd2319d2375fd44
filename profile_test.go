package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/policy"
)

// profileTrail makes a trail of a profile, and the options that open it.
func profileTrail(t *testing.T, profile string, o Options) (string, *Options) {
	t.Helper()
	dir := t.TempDir()
	if sealsFields[profile] || o.Encrypt {
		o.KEK = testKEK(t, 1)
	}
	o.StateDir, o.Command = filepath.Join(dir, "state"), "test"
	path := filepath.Join(dir, "audit.jsonl")
	if _, err := Init(path, &InitOptions{Options: o, Profile: profile}); err != nil {
		t.Fatal(err)
	}
	return path, &o
}

// sealedPointers are what a stored line says is sealed in it.
func sealedPointers(t *testing.T, e Entry) (pointers []string) {
	t.Helper()
	v, _ := e.Policy.Get("sealed")
	if len(v.JSON()) > 0 {
		if err := json.Unmarshal(v.JSON(), &pointers); err != nil {
			t.Fatal(err)
		}
	}
	return pointers
}

// What a profile seals is sealed, and nothing else; it is remembered, and answers
// like before to who has the key.
func TestProfilesSealFields(t *testing.T) {
	ctx := context.Background()
	want := []string{"/inputs", "/outputs", "/error", "/metadata/session_id", "/metadata/user_id", "/resource/id"}
	for _, profile := range []string{"gdpr", "hipaa"} {
		for _, encrypt := range []bool{false, true} {
			path, o := profileTrail(t, profile, Options{Encrypt: encrypt})
			o.Encrypt = false // it is remembered
			trail := openWith(t, path, o)
			if trail.id.Profile != profile || trail.Encrypts() != encrypt {
				t.Fatalf("%s: %+v", profile, trail.id)
			}
			if _, err := trail.Record(ctx, canaryEvent(1)); err != nil {
				t.Fatal(err)
			}
			again, err := trail.Record(ctx, canaryEvent(1))
			if err != nil {
				t.Fatalf("%s: a retry: %v", profile, err)
			}
			entries, err := collect(trail.Query(ctx, Query{User: "canary-user-1"}))
			if err != nil || len(entries) != 1 || again.Index != entries[0].Index || entries[0].Inputs.Text("canary-name-1") != "canary-input-1" {
				t.Fatalf("%s: %v, %v", profile, entries, err)
			}
			if got := sealedPointers(t, entries[0]); !slices.Equal(got, want) {
				t.Errorf("%s: sealed %v, want %v", profile, got, want)
			}
			trail.Close()
			// Who has no key sees what is in clear, where lines are.
			reader := *o
			reader.ReadOnly, reader.KEK = true, nil
			t.Setenv("AUDIT_LOG_ENCRYPTION_KEY", "")
			os.Unsetenv("AUDIT_LOG_ENCRYPTION_KEY")
			r := openWith(t, path, &reader)
			entries, err = collect(r.Query(ctx, Query{Agent: "canary-agent-1"}))
			switch {
			case encrypt && err == nil:
				t.Errorf("%s: whole lines are read without the key", profile)
			case !encrypt && (err != nil || len(entries) != 1 || entries[0].Inputs.Text("sealed") != "no key" || entries[0].Metadata.Text("user_id") != "[sealed: no key]"):
				t.Errorf("%s: without the key: %v, %v", profile, entries, err)
			}
			data, err := os.ReadFile(path)
			if err != nil || bytes.Contains(data, []byte("canary-input")) || bytes.Contains(data, []byte("canary-agent")) == encrypt {
				t.Errorf("%s: %v", profile, err)
			}
			verifyIntact(t, path, o)
		}
	}
}

func TestProfilePCIMasksCardsAndFlagsNoUser(t *testing.T) {
	ctx := context.Background()
	path, o := profileTrail(t, "pci", Options{})
	trail := openWith(t, path, o)
	number := strings.Repeat("4", 1) + "111111111111111"
	r, err := trail.Record(ctx, Event{EventType: CHDAccess, AgentID: "a", Action: "b", Resource: Of(map[string]any{"type": "card", "id": number})})
	if err != nil {
		t.Fatal(err)
	}
	e, _, err := trail.entryAt(ctx, r.Index)
	if err != nil || bytes.Contains(e.Line(), []byte(number)) || !bytes.Contains(e.Line(), []byte(`"flagged"`)) {
		t.Errorf("%s, %v", e.Line(), err)
	}
	if info, err := trail.Info(ctx); err != nil || info.Encryption != "Disabled" || !strings.HasPrefix(info.Erasure, "not possible: profile pci") {
		t.Errorf("%+v, %v", info, err)
	}
}

// A rule of the policy seals more than the profile does, or keeps something in clear.
func TestPolicySealsMoreAndKeepsClear(t *testing.T) {
	ctx := context.Background()
	p := rules(t, policy.Config{
		Fields: []policy.Field{
			{Path: "/purpose", Action: policy.Seal},
			{Path: "/authority/by", Action: policy.Seal},
			{Path: "/inputs/public", Action: policy.Keep},
			{Path: "/metadata/session_id", Action: policy.Keep, When: policy.When{Agents: []string{"canary-*"}}},
		},
		Actions: map[string]policy.Action{"personal": policy.Seal},
	})
	for _, o := range []Options{{}, {Encrypt: true}} {
		profile := "gdpr"
		if o.Encrypt {
			profile = "plain"
		}
		o.Policy = p
		path, opts := profileTrail(t, profile, o)
		trail := openWith(t, path, opts)
		ev := canaryEvent(1)
		ev.Inputs = Of(map[string]any{"public": "canary-public", "private": map[string]any{"public": "x"}})
		ev.Metadata = Of(map[string]any{"user_id": "u", "session_id": "s"})
		ev.Authority = Of(map[string]any{"by": "x", "note": "mia@example.com"})
		ev.Action = "call mia@example.com"
		r, err := trail.Record(ctx, ev)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := trail.Record(ctx, ev); err != nil || again.Index != r.Index {
			t.Errorf("a retry: %+v, %v", again, err)
		}
		e, _, err := trail.entryAt(ctx, r.Index)
		if err != nil {
			t.Fatal(err)
		}
		got := sealedPointers(t, e)
		want := []string{"/inputs/private", "/outputs", "/error", "/metadata/user_id", "/resource/id", "/authority/by", "/authority/note", "/purpose"}
		slices.Sort(want)
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("sealed %v,\n want %v\n%s", got, want, e.View())
		}
		// Where nothing can be sealed it is masked.
		if strings.Contains(e.Action, "mia@") || e.Inputs.Text("public") != "canary-public" || e.Purpose != "canary-purpose-1" {
			t.Errorf("%s", e.View())
		}
	}
}

// What waits in the spool of a trail that seals fields is sealed whole.
func TestSpoolOfAProfileIsSealed(t *testing.T) {
	ctx := context.Background()
	path, o := profileTrail(t, "gdpr", Options{})
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
	noCanary(t, trailDir(path))
	hold.Close()
	trail := openWith(t, path, o)
	if entries, err := collect(trail.Query(ctx, Query{User: "canary-user-51"})); err != nil || len(entries) != 1 {
		t.Fatalf("%v, %v", entries, err)
	}
}

// trail.json can't be changed into that of a trail that seals less.
func TestSealingCantBeTakenBack(t *testing.T) {
	for _, o := range []Options{{}, {Encrypt: true}} {
		path, opts := profileTrail(t, "gdpr", o)
		opts.Encrypt = false
		name := filepath.Join(trailDir(path), "trail.json")
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for from, to := range map[string]string{`"profile":"gdpr"`: `"profile":"plain"`, `"encrypt":true,`: ``} {
			changed := bytes.Replace(text, []byte(from), []byte(to), 1)
			if bytes.Equal(changed, text) {
				continue
			}
			if err := os.WriteFile(name, changed, 0o600); err != nil {
				t.Fatal(err)
			}
			if trail, err := Open(path, opts); err == nil {
				t.Errorf("%s is taken away", from)
				trail.Close()
			}
		}
	}
}

// Who follows a trail that seals seals too, whatever is left of the old one, unless
// something else is said.
func TestSuccessorSealsWhatTheOldOneDid(t *testing.T) {
	for _, lost := range []string{"", "trail.json", "keys"} {
		path, o := profileTrail(t, "gdpr", Options{Encrypt: true})
		o.Encrypt = false
		if lost != "" {
			if err := os.RemoveAll(filepath.Join(trailDir(path), lost)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := Init(path, &InitOptions{Options: *o, SuccessorOf: path}); err != nil {
			t.Fatal(err)
		}
		trail := openWith(t, path, o)
		if trail.id.Profile != "gdpr" || !trail.Encrypts() {
			t.Errorf("without %q: %+v", lost, trail.id)
		}
		trail.Close()
		if _, err := Init(path, &InitOptions{Options: *o, SuccessorOf: path, Profile: "plain"}); err != nil {
			t.Fatal(err)
		}
		if trail := openWith(t, path, o); trail.id.Profile != "plain" || trail.Encrypts() {
			t.Errorf("plain: %+v", trail.id)
		}
	}
}
