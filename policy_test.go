package audit

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kaizen-audit/kaizen-audit/policy"
)

func rules(t *testing.T, c policy.Config) *policy.Policy {
	t.Helper()
	p, err := policy.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestAPolicyIsTheTrailsFromThenOn: it is recorded when it changes, whole, and
// whoever opens the trail without one has it.
func TestAPolicyIsTheTrailsFromThenOn(t *testing.T) {
	dir := t.TempDir()
	path, state := filepath.Join(dir, "audit.jsonl"), filepath.Join(dir, "state")
	drop := rules(t, policy.Config{Fields: []policy.Field{{Path: "/inputs/name", Action: policy.Drop}}})
	record := func(p *policy.Policy) (line string, policies []Entry) {
		t.Helper()
		trail, err := Open(path, &Options{StateDir: state, Policy: p})
		if err != nil {
			t.Fatal(err)
		}
		defer trail.Close()
		r, err := trail.Record(context.Background(), Event{EventType: ToolUse, AgentID: "a", Action: "x", Inputs: Of(map[string]any{"name": "jane", "card": "4111111111111111"})})
		if err != nil {
			t.Fatal(err)
		}
		e, _, err := trail.entryAt(context.Background(), r.Index)
		if err != nil {
			t.Fatal(err)
		}
		policies, err = collect(trail.Query(context.Background(), Query{EventTypes: []string{"AUDIT_POLICY"}}))
		if err != nil {
			t.Fatal(err)
		}
		return string(e.Line()), policies
	}
	for i, c := range []struct {
		p     *policy.Policy
		named bool
		count int
	}{{nil, true, 0}, {policy.Default(), true, 0}, {drop, false, 1}, {nil, false, 1}, {drop, false, 1}, {policy.Default(), true, 2}, {nil, true, 2}} {
		line, policies := record(c.p)
		if strings.Contains(line, "jane") != c.named || strings.Contains(line, "4111") || len(policies) != c.count {
			t.Errorf("opening %d: %d entries about policies, %s", i, len(policies), line)
		}
		if i != 2 || len(policies) != 1 {
			continue
		}
		out, _ := policies[0].Outputs.AppendJSON(nil)
		if want := `{"digest":"` + drop.Digest() + `","policy":{"fields":[{"path":"/inputs/name","action":"drop"}]},"was":"` + policy.Default().Digest() + `"}`; string(out) != want {
			t.Errorf("%s, want %s", out, want)
		}
		if policies[0].Metadata.Text("signature") == "" {
			t.Error("it is not signed")
		}
	}
	// Who changes the file changes no policy: nobody opens the trail without one.
	name := filepath.Join(dir, "audit.trail", "policy")
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, changed := range []string{"", "x", strings.Replace(string(data), `"config":{`, `"config":{"profile":"pci"`, 1), strings.Replace(string(data), `"format":1`, `"format":2`, 1)} {
		if err := os.WriteFile(name, []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
		if trail, err := Open(path, &Options{StateDir: state}); err == nil {
			t.Errorf("opened with %q", changed)
			trail.Close()
		}
	}
	if _, policies := record(drop); len(policies) != 3 {
		t.Errorf("%d entries about policies", len(policies))
	}
}

// TestARetryIsComparedAfterThePolicy: a card number that is not in the trail does
// not make a retry another event, and other events stay others.
func TestARetryIsComparedAfterThePolicy(t *testing.T) {
	trail := openTemp(t, nil)
	ev := Event{EventType: ToolUse, AgentID: "a", Action: "x", TraceID: "t", Inputs: Of(map[string]any{"card": "4111111111111111", "cvv": "123"}), IdempotencyKey: "pay 4111111111111111"}
	ev.Timestamp = trail.clock.now()
	first, err := trail.Record(context.Background(), ev)
	if err != nil {
		t.Fatal(err)
	}
	again, err := trail.Record(context.Background(), ev)
	if err != nil || again != first {
		t.Errorf("%+v, %v, want %+v", again, err, first)
	}
	e, _, err := trail.entryAt(context.Background(), first.Index)
	if err != nil || e.IdempotencyKey != "pay ****1111" {
		t.Errorf("%s, %v", e.Line(), err)
	}
	ev.Inputs = Of(map[string]any{"card": "5500005555555559"})
	if _, err := trail.Record(context.Background(), ev); !errors.Is(err, ErrConflict) {
		t.Errorf("another event under the key: %v", err)
	}
}

// TestWhatPolicyRefuses is refused by Record, counted without a value, and kept as
// a fact by automatic capture.
func TestWhatPolicyRefuses(t *testing.T) {
	p := rules(t, policy.Config{Fields: []policy.Field{{Path: "/inputs/plan", Action: policy.Refuse}}, Purposes: &policy.Purposes{Declared: []string{"care"}, Otherwise: "refuse"}})
	trail := openTemp(t, &Options{Policy: p})
	ev := Event{EventType: ToolUse, AgentID: "a", Action: "x", Purpose: "care", Inputs: Of(map[string]any{"plan": "attack at dawn"})}
	_, err := trail.Record(context.Background(), ev)
	if refused, ok := errors.AsType[*policy.RefusedError](err); !errors.Is(err, ErrRefused) || !ok || refused.Rule != "/inputs/plan" || strings.Contains(err.Error(), "dawn") {
		t.Errorf("%v", err)
	}
	r, err := trail.Capture(context.Background(), ev)
	if err != nil {
		t.Fatal(err)
	}
	e, _, err := trail.entryAt(context.Background(), r.Index)
	if err != nil || bytes.Contains(e.Line(), []byte("dawn")) || !bytes.Contains(e.Line(), []byte(`"omitted":["/inputs/plan"]`)) {
		t.Errorf("%s, %v", e.Line(), err)
	}
	ev.Purpose, ev.Inputs = "ads", Object{}
	if _, err := trail.Record(context.Background(), ev); !errors.Is(err, ErrRefused) {
		t.Errorf("an undeclared purpose: %v", err)
	}
	if r, err = trail.Capture(context.Background(), ev); err != nil {
		t.Fatalf("captured: %v", err)
	}
	if e, _, err = trail.entryAt(context.Background(), r.Index); err != nil || !bytes.Contains(e.Line(), []byte(`"flagged":["/purpose"]`)) {
		t.Errorf("%s, %v", e.Line(), err)
	}
	err = trail.refused.tell(func(o ownEntry) error {
		if got := o.outputs.(map[string]any)["reasons"].(map[string]int64); got["inputs: refused by policy rule /inputs/plan"] == 0 {
			t.Errorf("%v", got)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(filepath.Join(t.TempDir(), "a.jsonl"), &Options{Policy: rules(t, policy.Config{Profile: "gdpr"})}); err == nil || !strings.Contains(err.Error(), "Policy") {
		t.Errorf("a policy that seals: %v", err)
	}
}

func TestTokensAreTheTrailsOwn(t *testing.T) {
	mine, other := &tokens{key: newTokenKey([]byte("k1"))}, &tokens{key: newTokenKey([]byte("k2"))}
	a, err := mine.Token("jane", false)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := mine.Token("jane", false)
	c, _ := mine.Token("joan", false)
	d, _ := other.Token("jane", false)
	if a != b || a == c || a == d || len(a) != 37 {
		t.Errorf("%s %s %s %s", a, b, c, d)
	}
	for text, want := range map[string]bool{a: true, c: true, d: false, "jane": false, a + "x": false, strings.ToUpper(a): false, "hmac:" + strings.Repeat("A", 32): false, "hmac:" + strings.Repeat("!", 32): false} {
		if mine.IsToken(text) != want {
			t.Errorf("%q: %v", text, !want)
		}
	}
}
