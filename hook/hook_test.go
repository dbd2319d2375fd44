package hook

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	audit "github.com/kaizen-audit/kaizen-audit"
)

// openTrail gives a trail that is verified when the test ends, and closed unless
// it was before.
func openTrail(t testing.TB, d audit.Durability) *audit.Trail {
	t.Helper()
	dir := t.TempDir()
	trail, err := audit.Open(filepath.Join(dir, "audit.jsonl"), &audit.Options{Durability: d, StateDir: filepath.Join(dir, "state")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := trail.Close(); err != nil {
			t.Error(err)
		}
		report, err := audit.VerifyPath(context.Background(), trail.Path(), nil)
		if err != nil || report.Status != "intact" {
			t.Errorf("verify: %+v, %v", report, err)
		}
	})
	return trail
}

// recorder gives a manager that records in the trail.
func recorder(t testing.TB, trail *audit.Trail, opts *AuditOptions) (*Manager, *AuditTrailHook) {
	t.Helper()
	if opts == nil {
		opts = &AuditOptions{}
	}
	if opts.Warn == nil {
		opts.Warn = func(err error) { t.Error(err) }
	}
	h, err := NewAuditTrailHook(trail, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	m := &Manager{AgentID: "qa-agent-001", OnError: func(e *Error) { t.Error(e) }}
	if err := m.RegisterHook(h, nil); err != nil {
		t.Fatal(err)
	}
	return m, h
}

// entries gives what was recorded, oldest first, without the trail's own.
func entries(t testing.TB, trail *audit.Trail) []audit.Entry {
	t.Helper()
	var out []audit.Entry
	for e, err := range trail.Query(context.Background(), audit.Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
	}
	return out
}

// brief is what an entry is about.
func brief(e audit.Entry) string {
	s := e.EventType + " " + e.Action
	if !e.Success {
		s += " failed"
	}
	if e.Outcome != "" {
		s += " " + e.Outcome
	}
	return s
}

func briefs(entries []audit.Entry) string {
	var b strings.Builder
	for _, e := range entries {
		fmt.Fprintln(&b, brief(e))
	}
	return b.String()
}

func trigger(t testing.TB, m *Manager, ctx context.Context, e Event, d Data) context.Context {
	t.Helper()
	ctx, err := m.Trigger(ctx, e, d)
	if err != nil {
		t.Fatal(err)
	}
	return ctx
}

func object(v any) audit.Object { return audit.Of(v) }

func TestARunBecomesTheDocumentedEntries(t *testing.T) {
	trail := openTrail(t, audit.Durable)
	m, _ := recorder(t, trail, &AuditOptions{Metadata: map[string]any{"environment": "production"}})
	ctx := WithMetadata(context.Background(), map[string]any{"user_id": "user123", "session_id": "session456"})

	loop := trigger(t, m, ctx, PreAgentLoop, Data{Inputs: object(map[string]any{"question": "What is GDPR?"})})
	tool := trigger(t, m, loop, PreToolUse, Data{Name: "calculator", Inputs: object(map[string]any{"e": "6*7"}), Metadata: map[string]any{"cycle": 1}})
	time.Sleep(20 * time.Millisecond)
	if back := trigger(t, m, tool, PostToolUse, Data{Outputs: object(map[string]any{"result": 42})}); back != loop {
		t.Error("the end of an action does not give the context in which it began")
	}
	search := trigger(t, m, loop, PreToolUse, Data{Name: "search"})
	trigger(t, m, search, PostToolUse, Data{Err: errors.New("no network")})
	trigger(t, m, loop, PostPermissionCheck, Data{Name: "rm", Outcome: "denied", Authority: object(map[string]any{"rule": "no-deletes"})})
	trigger(t, m, loop, PostPermissionCheck, Data{Name: "rm", Authority: object(map[string]any{"approver": "user123", "method": "console"})})
	trigger(t, m, loop, PostCheckpointSave, Data{Outputs: object("c1"), Duration: 5 * time.Millisecond})
	trigger(t, m, loop, "post_new_thing", Data{Outputs: object(map[string]any{"x": 1})})
	trigger(t, m, loop, PostAgentLoop, Data{Outputs: object(map[string]any{"answer": "a law"})})

	got := entries(t, trail)
	const want = `AGENT_LOOP_START agent_execution_start
TOOL_USE tool_use:calculator
TOOL_USE tool_use:search failed
PERMISSION_CHECK permission_check:rm failed denied
PERMISSION_CHECK permission_check:rm
CHECKPOINT_SAVE checkpoint_save
NEW_THING new_thing
AGENT_LOOP_END agent_execution_end
`
	if briefs(got) != want {
		t.Fatalf("got\n%swant\n%s", briefs(got), want)
	}
	start, calc, end := got[0], got[1], got[len(got)-1]
	for i, e := range got {
		if e.TraceID != start.TraceID || len(e.TraceID) != 32 || e.AgentID != "qa-agent-001" || len(e.SpanID) != 16 {
			t.Errorf("%s", e.Line())
		}
		for name, v := range map[string]string{"environment": "production", "user_id": "user123", "session_id": "session456"} {
			if e.Metadata.Text(name) != v {
				t.Errorf("entry %d: %s is %q", i, name, e.Metadata.Text(name))
			}
		}
		if i > 0 && i < len(got)-1 && (e.ParentSpanID != start.SpanID || e.SpanID == start.SpanID) {
			t.Errorf("entry %d is not below the loop", i)
		}
	}
	if start.ParentSpanID != "" || end.SpanID != start.SpanID || end.ParentSpanID != "" {
		t.Error("the loop's two entries are not one span at the top")
	}
	if s := string(text(calc.Inputs)) + string(text(calc.Outputs)); s != `{"e":"6*7"}{"result":42}` {
		t.Error(s)
	}
	if cycle, _ := calc.Metadata.Get("cycle"); string(cycle.JSON()) != "1" {
		t.Errorf("%s", calc.Line())
	}
	if _, leaked := end.Metadata.Get("cycle"); leaked {
		t.Error("an action's metadata is the loop's")
	}
	if calc.DurationMS < 20 || calc.DurationMS > 10_000 || end.DurationMS < calc.DurationMS || start.DurationMS != 0 || got[5].DurationMS != 5 {
		t.Errorf("durations %v, %v, %v, %v", calc.DurationMS, end.DurationMS, start.DurationMS, got[5].DurationMS)
	}
	if d := end.Timestamp.Sub(start.Timestamp).Seconds()*1e3 - end.DurationMS; d < -2 || d > 2 {
		t.Errorf("the loop's end lies %v ms beside its duration", d)
	}
	if string(text(start.Inputs)) != `{"question":"What is GDPR?"}` || string(text(end.Inputs)) != "{}" || string(text(end.Outputs)) != `{"answer":"a law"}` {
		t.Errorf("%s\n%s", start.Line(), end.Line())
	}
	if got[2].Error == nil || *got[2].Error != "no network" || got[3].Authority.Text("rule") != "no-deletes" || got[4].Authority.Text("approver") != "user123" {
		t.Errorf("%s", briefs(got))
	}
}

func TestErrorsThatAreKnownHaveAnOutcome(t *testing.T) {
	trail := openTrail(t, audit.Written)
	m, _ := recorder(t, trail, nil)
	for _, err := range []error{fmt.Errorf("ask: %w", context.Canceled), context.DeadlineExceeded, &fs.PathError{Op: "open", Path: "x", Err: fs.ErrPermission}} {
		_, got := m.Do(context.Background(), ToolUse, Data{Name: "t"}, func(context.Context) (any, error) { return nil, err })
		if got != err {
			t.Errorf("%v became %v", err, got)
		}
	}
	func() {
		defer func() {
			if p := recover(); p != "oh" {
				t.Errorf("a panic became %v", p)
			}
		}()
		_, _ = m.Do(context.Background(), ToolUse, Data{Name: "t"}, func(context.Context) (any, error) { panic("oh") })
	}()
	const want = `TOOL_USE tool_use:t failed cancelled
TOOL_USE tool_use:t failed timeout
TOOL_USE tool_use:t failed denied
TOOL_USE tool_use:t failed
`
	if got := entries(t, trail); briefs(got) != want || got[3].Error == nil || *got[3].Error != "panic" {
		t.Errorf("got\n%swant\n%s", briefs(got), want)
	}
}

func TestAnActionEndsOnce(t *testing.T) {
	trail := openTrail(t, audit.Written)
	m, h := recorder(t, trail, nil)
	ctx := trigger(t, m, context.Background(), PreLLMCall, Data{Name: "m"})
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() { _, _ = m.Trigger(ctx, PostLLMCall, Data{}) })
	}
	wg.Wait()
	trigger(t, m, context.Background(), PostLLMCall, Data{Name: "never begun", Duration: time.Second})
	if got := briefs(entries(t, trail)); got != "LLM_CALL llm_call:m\nLLM_CALL llm_call:never begun\n" {
		t.Error(got)
	}
	if s := h.Stats(); s != (Stats{Recorded: 2}) {
		t.Errorf("%+v", s)
	}
}
