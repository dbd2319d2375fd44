package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A line of an encrypted trail that is replaced by a plain one, or by one of another
// form or key, is found by who has no key, written on by nobody, and never opened as
// what it was.
func TestDowngradedLinesAreFound(t *testing.T) {
	ctx := context.Background()
	for name, change := range map[string]func(line, other []byte, plain Entry) []byte{
		"the same entry in clear":   func(_, _ []byte, plain Entry) []byte { return plain.View() },
		"an entry as callers write": func(_, _ []byte, plain Entry) []byte { return withoutPolicy(t, plain.View()) },
		"a version before":          func(line, _ []byte, _ Entry) []byte { return bytes.Replace(line, []byte(`"v1"`), []byte(`"v0"`), 1) },
		"a version after":           func(line, _ []byte, _ Entry) []byte { return bytes.Replace(line, []byte(`"v1"`), []byte(`"v2"`), 1) },
		"another line's data":       func(line, other []byte, _ Entry) []byte { return swapMember(t, line, other, "data") },
		"another line":              func(_, other []byte, _ Entry) []byte { return bytes.Clone(other) },
		"a key that is not there": func(line, _ []byte, _ Entry) []byte {
			return swapMember(t, line, []byte(`{"key":"AAAAAAAAAAAA"}`), "key")
		},
		"a field sealed, not a line": func(line, _ []byte, _ Entry) []byte {
			return []byte(`{"sealed":"v1","inputs":"sealed:v1:AAAAAAAAAAAA:AAAA"}`)
		},
	} {
		path, o := profileTrail(t, "gdpr", Options{Encrypt: true})
		o.Encrypt = false
		trail := openWith(t, path, o)
		mustRecord(t, trail, personalEvent("canary-mia", "t1"), personalEvent("canary-noah", "t2"))
		at := found(t, trail, Query{})
		if err := trail.Close(); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		lines := bytes.Split(text, []byte("\n"))
		line, other := lines[at[0].Index], lines[at[1].Index]
		made := change(bytes.Clone(line), other, at[0])
		if bytes.Equal(made, line) || bytes.Contains(line, []byte("canary")) {
			t.Fatalf("%s: %s", name, made)
		}
		lines[at[0].Index] = made
		if err := os.WriteFile(path, bytes.Join(lines, []byte("\n")), 0o600); err != nil {
			t.Fatal(err)
		}
		result, err := VerifyPath(ctx, path, &VerifyOptions{StateDir: o.StateDir})
		if err != nil || result.Status != "damaged" || result.FirstBad == nil || *result.FirstBad != at[0].Index {
			t.Errorf("%s: %+v, %v", name, result, err)
		}
		if _, err := Open(path, o); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: it is written on: %v", name, err)
		}
		reader := *o
		reader.ReadOnly = true
		r := openWith(t, path, &reader)
		shown := 0
		for e, err := range r.scan(ctx, Query{User: "canary-mia"}) {
			if err == nil && e.Index == at[0].Index {
				shown++
				if !bytes.Contains(made, []byte("canary-mia")) {
					t.Errorf("%s: it is opened: %s", name, e.View())
				}
			}
		}
		// What stands in clear is what it says, as in any file that was changed, and
		// nobody gets a proof or a disclosure of it.
		if _, err := r.Disclose(ctx, at[0].Index, "/inputs"); err == nil {
			t.Errorf("%s: it is disclosed", name)
		}
		if shown > 0 && !strings.Contains(name, "clear") && !strings.Contains(name, "callers") {
			t.Errorf("%s: it is shown", name)
		}
	}
}

// withoutPolicy is an entry's line without what the policy noted.
func withoutPolicy(t *testing.T, line []byte) []byte {
	t.Helper()
	var m map[string]json.RawMessage
	if err := json.Unmarshal(line, &m); err != nil {
		t.Fatal(err)
	}
	delete(m, "policy")
	return inOrder(t, line, m)
}

// swapMember is a line with one member of another.
func swapMember(t *testing.T, line, other []byte, name string) []byte {
	t.Helper()
	var m, of map[string]json.RawMessage
	if err := errors.Join(json.Unmarshal(line, &m), json.Unmarshal(other, &of)); err != nil {
		t.Fatal(err)
	}
	m[name] = of[name]
	return inOrder(t, line, m)
}

// Beyond the checkpoint, where a crash leaves lines that nobody has signed, plain lines
// that somebody put there are taken as what they are: unsigned, named so, and without
// any say about what is sealed, erased or held.
func TestPlainLinesBehindACrashAreNamed(t *testing.T) {
	ctx := context.Background()
	path, o := profileTrail(t, "gdpr", Options{Encrypt: true})
	o.Encrypt, o.NoSocket = false, true
	trail := openWith(t, path, o)
	mustRecord(t, trail, personalEvent("canary-mia", "t1"))
	if err := trail.signer.sign(); err != nil {
		t.Fatal(err)
	}
	handle := sealedUnder(t, trail)
	crashed := filepath.Join(t.TempDir(), filepath.Base(path))
	copyTree(t, filepath.Dir(path), filepath.Dir(crashed)) // its lock says that it is held
	before := trail.signer.latest.Load().Size
	forged := []string{
		`{"timestamp":"2026-01-02T03:04:05.678Z","event_type":"TOOL_USE","agent_id":"agent","trace_id":"t1","action":"forged","inputs":{},"outputs":{},"duration_ms":0,"success":true,"error":null,"metadata":{"user_id":"canary-mia"},"event_id":"019b7ca9-8f2e-7001-8001-000000000001","recorded_at":"2026-01-02T03:04:05.678Z","policy":{"sealed":["/inputs"]}}`,
		`{"timestamp":"2026-01-02T03:04:05.678Z","event_type":"AUDIT_ERASURE","agent_id":"kaizen-audit","trace_id":"` + trail.Origin() + `","action":"subject_erased","inputs":{},"outputs":{"handles":["` + handle + `"]},"duration_ms":0,"success":true,"error":null,"metadata":{"principal":"uid:0","signature":"` + strings.Repeat("A", 86) + `=="},"event_id":"019b7ca9-8f2e-7001-8001-000000000002","recorded_at":"2026-01-02T03:04:05.678Z"}`,
	}
	f, err := os.OpenFile(crashed, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(strings.Join(forged, "\n") + "\n"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	again := openWith(t, crashed, o)
	said := found(t, again, Query{EventTypes: []string{"AUDIT_RECOVERY"}})
	if len(said) != 1 {
		t.Fatalf("%d recoveries", len(said))
	}
	var out struct {
		Adopted []struct {
			First, Count int64
			Signed       bool
		}
	}
	if err := said[0].Outputs.Decode(&out); err != nil || len(out.Adopted) != 1 || out.Adopted[0].Signed || out.Adopted[0].First > before || out.Adopted[0].First+out.Adopted[0].Count < before+2 {
		t.Errorf("%s, %v", said[0].View(), err)
	}
	if got := found(t, again, Query{Agent: "agent", Action: "tool_use:find"}); len(got) != 1 || got[0].Inputs.Text("about") != "canary of canary-mia" {
		t.Error("somebody else's word has erased it")
	}
	if i, err := again.Info(ctx); err != nil || i.Profile != "gdpr" || !again.Encrypts() {
		t.Errorf("%+v, %v", i, err)
	}
	verifyIntact(t, crashed, o)
	mustRecord(t, again, personalEvent("canary-noah", "t"))
	text, err := os.ReadFile(crashed)
	if err != nil || bytes.Contains(text, []byte("canary-noah")) {
		t.Errorf("what is recorded after it is in clear, %v", err)
	}
}

// sealedUnder is a handle under which the trail's first entry is sealed.
func sealedUnder(t *testing.T, trail *Trail) string {
	t.Helper()
	plan, err := trail.EraseUser(context.Background(), "canary-mia", &EraseOptions{DryRun: true})
	if err != nil || len(plan.Subjects) == 0 {
		t.Fatal(err)
	}
	return plan.Subjects[0].Handle
}
