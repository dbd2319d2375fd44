package hook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	audit "github.com/kaizen-audit/kaizen-audit"
)

// apply is RFC 6902 by its text, for add, remove and replace.
func apply(doc any, patch []byte) (any, error) {
	var ops []map[string]json.RawMessage
	if err := json.Unmarshal(patch, &ops); err != nil {
		return nil, err
	}
	for _, op := range ops {
		var name, path string
		if err := errors.Join(json.Unmarshal(op["op"], &name), json.Unmarshal(op["path"], &path)); err != nil {
			return nil, err
		}
		var value any
		if name != "remove" {
			d := json.NewDecoder(bytes.NewReader(op["value"]))
			d.UseNumber()
			if err := d.Decode(&value); err != nil {
				return nil, fmt.Errorf("%s %s: %w", name, path, err)
			}
		}
		var err error
		if doc, err = applyAt(doc, strings.Split(path, "/")[1:], name, value); err != nil {
			return nil, fmt.Errorf("%s %s: %w", name, path, err)
		}
	}
	return doc, nil
}

func applyAt(doc any, path []string, op string, value any) (any, error) {
	if len(path) == 0 {
		if op != "replace" {
			return nil, errors.New("of the document itself")
		}
		return value, nil
	}
	name := strings.ReplaceAll(strings.ReplaceAll(path[0], "~1", "/"), "~0", "~")
	last := len(path) == 1
	switch d := doc.(type) {
	case map[string]any:
		_, there := d[name]
		if there == (last && op == "add") {
			return nil, errors.New("a member is there or missing")
		}
		switch {
		case last && op == "remove":
			delete(d, name)
		case last:
			d[name] = value
		default:
			v, err := applyAt(d[name], path[1:], op, value)
			if err != nil {
				return nil, err
			}
			d[name] = v
		}
		return d, nil
	case []any:
		i, err := strconv.Atoi(name)
		if err != nil || i < 0 || i > len(d) || i == len(d) && !(last && op == "add") {
			return nil, errors.New("no such element")
		}
		switch {
		case last && op == "remove":
			return append(d[:i:i], d[i+1:]...), nil
		case last && op == "add":
			return append(append(d[:i:i], value), d[i:]...), nil
		}
		v, err := applyAt(d[i], path[1:], op, value)
		d[i] = v
		return d, err
	}
	return nil, errors.New("neither object nor array")
}

func values(deep int) *rapid.Generator[any] {
	simple := rapid.OneOf(
		rapid.Just[any](nil), rapid.Map(rapid.Bool(), func(b bool) any { return b }),
		rapid.Map(rapid.SampledFrom([]string{"", "a", "b", "a/b", "~", "ä"}), func(s string) any { return s }),
		rapid.Map(rapid.IntRange(0, 3), func(i int) any { return json.Number(strconv.Itoa(i)) }),
	)
	if deep == 0 {
		return simple
	}
	inner := values(deep - 1)
	return rapid.OneOf(simple,
		rapid.Map(rapid.SliceOfN(inner, 0, 5), func(s []any) any { return s }),
		rapid.Map(rapid.MapOfN(rapid.SampledFrom([]string{"", "a", "b", "c", "a/b", "~1", "0"}), inner, 0, 5), func(m map[string]any) any { return m }))
}

func TestADiffMakesAfterOfBefore(t *testing.T) {
	objects := rapid.MapOfN(rapid.SampledFrom([]string{"a", "b", "c"}), values(3), 0, 3)
	rapid.Check(t, func(t *rapid.T) {
		before, after := objects.Draw(t, "before"), objects.Draw(t, "after")
		patch, err := Diff(audit.Of(before), audit.Of(after))
		if err != nil {
			t.Fatal(err)
		}
		doc, err := decoded(audit.Of(before))
		if err != nil {
			t.Fatal(err)
		}
		got, err := apply(doc, patch)
		if err != nil {
			t.Fatalf("%s: %v", patch, err)
		}
		want, err := decoded(audit.Of(after))
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%s gives %v, want %v", patch, got, want)
		}
	})
}

func TestDiffs(t *testing.T) {
	for _, c := range []struct{ before, after, want string }{
		{`{}`, `{}`, `[]`},
		{`{"a":1,"b":2}`, `{"b":2,"a":1}`, `[]`},
		{`{"a":1}`, `{"a":null}`, `[{"op":"replace","path":"/a","value":null}]`},
		{`{"a":null}`, `{}`, `[{"op":"remove","path":"/a"}]`},
		{`{}`, `{"a/~":[1]}`, `[{"op":"add","path":"/a~1~0","value":[1]}]`},
		{`{"n":1.0}`, `{"n":1}`, `[{"op":"replace","path":"/n","value":1}]`},
		{`{"n":12345678901234567890}`, `{"n":12345678901234567891}`, `[{"op":"replace","path":"/n","value":12345678901234567891}]`},
		{`{"t":["a","b","c"]}`, `{"t":["a","x","b","c"]}`, `[{"op":"add","path":"/t/1","value":"x"}]`},
		{`{"t":["a","b","c","d"]}`, `{"t":["a","d"]}`, `[{"op":"remove","path":"/t/2"},{"op":"remove","path":"/t/1"}]`},
		{`{"t":[{"a":1,"b":2}]}`, `{"t":[{"a":1,"b":3}]}`, `[{"op":"replace","path":"/t/0/b","value":3}]`},
		{`1`, `2`, `[{"op":"replace","path":"/value","value":2}]`},
	} {
		got, err := Diff(audit.Raw([]byte(c.before)), audit.Raw([]byte(c.after)))
		if err != nil || string(got) != c.want {
			t.Errorf("%s to %s: got %s, %v, want %s", c.before, c.after, got, err, c.want)
		}
	}
	if _, err := Diff(audit.Raw([]byte(`{"a":1,"a":2}`)), audit.Object{}); err == nil {
		t.Error("a name twice is no error")
	}
}

func TestAModificationIsAnEntryWithItsDiff(t *testing.T) {
	trail := openTrail(t, audit.Written)
	m, _ := recorder(t, trail, nil)
	ctx := WithMetadata(context.Background(), map[string]any{"user_id": "admin"})
	err := m.RecordChange(ctx, Change{
		Name: "retention", Before: audit.Of(map[string]any{"days": 30, "on": true}), After: audit.Of(map[string]any{"days": 90, "on": true}),
		Data: Data{Authority: audit.Of(map[string]any{"approver": "officer"})},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.RecordChange(ctx, Change{Before: audit.Of(func() {})}); err == nil {
		t.Error("a function has no text")
	}
	got := entries(t, trail)
	if len(got) != 1 || brief(got[0]) != "CONFIG_CHANGE config_change:retention" || got[0].Metadata.Text("user_id") != "admin" || got[0].Authority.Text("approver") != "officer" {
		t.Fatal(briefs(got))
	}
	if s := string(text(got[0].Inputs)) + string(text(got[0].Outputs)); s != `{"before":{"days":30,"on":true}}{"after":{"days":90,"on":true},"diff":[{"op":"replace","path":"/days","value":90}]}` {
		t.Error(s)
	}
}

// start runs one loop of an agent with a setup, in a process of its own as far as
// hooks can tell.
func start(t *testing.T, trail *audit.Trail, agent string, s Setup) {
	t.Helper()
	h, err := NewAuditTrailHook(trail, &AuditOptions{Warn: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	m := &Manager{AgentID: agent}
	if err := m.RegisterHook(h, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Do(context.Background(), AgentLoop, Data{Setup: &s}, func(context.Context) (any, error) { return nil, nil }); err != nil {
		t.Error(err)
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
}

func changes(t *testing.T, trail *audit.Trail) []audit.Entry {
	t.Helper()
	var out []audit.Entry
	for _, e := range entries(t, trail) {
		if e.EventType == audit.ConfigChange {
			out = append(out, e)
		}
	}
	return out
}

func TestAnAgentThatIsNotWhatItWasIsAConfigChange(t *testing.T) {
	trail := openTrail(t, audit.Durable)
	// Another process, which records through this one.
	remote, err := audit.Open(trail.Path(), &audit.Options{StateDir: trail.StateDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer remote.Close()
	one := Setup{Model: "m-1", Prompt: "be good", Tools: []string{"b", "a"}, Version: "1"}
	two := one
	two.Model, two.Tools = "m-2", []string{"a", "c", "b"}
	start(t, trail, "agent", one)
	start(t, trail, "other", two) // another agent is none of its business
	start(t, remote, "agent", Setup{Model: "m-1", Prompt: "be good", Tools: []string{"a", "b"}, Version: "1"})
	if got := changes(t, trail); len(got) != 0 {
		t.Fatalf("%s", briefs(got))
	}
	start(t, remote, "agent", two)
	got := changes(t, trail)
	if len(got) != 1 || got[0].Action != "config_change:agent_setup" || got[0].AgentID != "agent" || got[0].ParentSpanID == "" {
		t.Fatalf("%s", briefs(got))
	}
	var in struct{ Before map[string]any }
	if err := got[0].Inputs.Decode(&in); err != nil || in.Before["model"] != "m-1" {
		t.Errorf("%s", got[0].Line())
	}
	if s := string(text(got[0].Outputs)); !strings.Contains(s, `"diff":[{"op":"replace","path":"/model","value":"m-2"},{"op":"add","path":"/tools/2","value":"c"}]`) || strings.Contains(s, "be good") {
		t.Error(s)
	}
	start(t, trail, "agent", two)
	three := two
	three.Prompt = "be better"
	start(t, trail, "agent", three)
	if got = changes(t, trail); len(got) != 2 || !strings.Contains(string(text(got[1].Outputs)), `"path":"/prompt_digest"`) {
		t.Errorf("%s", briefs(got))
	}
}

func TestAnAgentThatChangesWhileItRunsIsAConfigChange(t *testing.T) {
	trail := openTrail(t, audit.Written)
	start(t, trail, "qa-agent-001", Setup{Model: "m-0", Version: "1"})
	m, h := recorder(t, trail, nil)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := m.Do(context.Background(), AgentLoop, Data{Setup: &Setup{Model: "m-1", Version: "1"}}, func(context.Context) (any, error) { return nil, nil }); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for deadline := time.Now().Add(10 * time.Second); len(changes(t, trail)) == 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if _, err := m.Do(context.Background(), AgentLoop, Data{Setup: &Setup{Model: "m-2", Version: "1"}}, func(context.Context) (any, error) { return nil, nil }); err != nil {
		t.Error(err)
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	got := changes(t, trail)
	if len(got) != 2 || !strings.Contains(string(text(got[0].Outputs)), `"value":"m-1"`) || !strings.Contains(string(text(got[1].Outputs)), `"value":"m-2"`) {
		t.Errorf("%s", briefs(got))
	}
}

func FuzzDiff(f *testing.F) {
	f.Add([]byte(`{"a":[1,2,{"b":null}]}`), []byte(`{"a":[2,{"b":1}],"c":{}}`))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		before, after := audit.Raw(a), audit.Raw(b)
		patch, err := Diff(before, after)
		if err != nil {
			return
		}
		doc, _ := decoded(before)
		got, err := apply(doc, patch)
		if err != nil {
			t.Fatalf("%s: %v", patch, err)
		}
		if want, _ := decoded(after); !reflect.DeepEqual(got, want) {
			t.Fatalf("%s gives %v, want %v", patch, got, want)
		}
	})
}
