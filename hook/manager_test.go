package hook

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	audit "github.com/kaizen-audit/kaizen-audit"
)

func TestAHookThatFailsPanicsOrBlocksStopsNeitherAnotherNorTheAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var order []string
		var told []*Error
		say := func(s string) {
			mu.Lock()
			defer mu.Unlock()
			order = append(order, s)
		}
		m := &Manager{OnError: func(e *Error) { told = append(told, e) }}
		release := make(chan struct{})
		bad := errors.New("bad")
		for _, h := range []struct {
			name string
			how  *Registration
			f    func(context.Context) error
		}{
			{"low", &Registration{Priority: Low}, func(context.Context) error { return nil }},
			{"blocks", &Registration{Priority: Critical, Timeout: time.Second}, func(context.Context) error { <-release; return nil }},
			{"waits", nil, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }},
			{"panics", &Registration{Priority: High}, func(context.Context) error { panic("a secret") }},
			{"fails", nil, func(context.Context) error { return bad }},
			{"exact", &Registration{Priority: 7}, func(context.Context) error { return nil }},
		} {
			if err := m.Register(PreToolUse, func(ctx context.Context, c *Context) error {
				say(h.name)
				if c.Name != "t" || c.Event != PreToolUse || ctx.Err() != nil {
					t.Errorf("%+v, %v", c, ctx.Err())
				}
				return h.f(ctx)
			}, h.how); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // an agent that was cancelled is audited too
		begin := time.Now()
		if _, err := m.Trigger(ctx, PreToolUse, Data{Name: "t"}); err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took != time.Second+DefaultTimeout {
			t.Errorf("it took %s", took)
		}
		if got := strings.Join(order, " "); got != "blocks panics waits fails low exact" {
			t.Error(got)
		}
		if len(told) != 4 || m.Failures() != 4 {
			t.Fatalf("%d were told: %v", len(told), told)
		}
		var panicked *PanicError
		if told[0].Err != ErrTimeout || !errors.As(told[1], &panicked) || panicked.Value != "a secret" || len(panicked.Stack) == 0 || !errors.Is(told[3], bad) {
			t.Errorf("%v", told)
		}
		if s := fmt.Sprint(told); strings.Contains(s, "secret") || !strings.Contains(s, "hook function: pre_tool_use: hook timed out") {
			t.Error(s)
		}
		close(release)
	})
}

func TestAHookThatNeverReturnsIsNotCalledForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var calls atomic.Int64
		m := &Manager{}
		if err := m.Register("x", func(context.Context, *Context) error { calls.Add(1); <-release; return nil }, &Registration{Timeout: time.Millisecond}); err != nil {
			t.Fatal(err)
		}
		var last error
		m.OnError = func(e *Error) { last = e.Err }
		for range maxStuck + 10 {
			if _, err := m.Trigger(context.Background(), "x", Data{}); err != nil {
				t.Error(err)
			}
		}
		synctest.Wait()
		if calls.Load() != maxStuck || last != ErrStuck {
			t.Errorf("%d calls, %v", calls.Load(), last)
		}
		close(release)
		synctest.Wait()
		if _, err := m.Trigger(context.Background(), "x", Data{}); err != nil || calls.Load() != maxStuck+1 {
			t.Errorf("%v, %d calls", err, calls.Load())
		}
	})
}

func TestAHookCanFailAnActionBeforeItBegins(t *testing.T) {
	m := &Manager{}
	var heard []string
	for _, e := range []Event{PreToolUse, PostToolUse} {
		if err := m.Register(e, func(_ context.Context, c *Context) error {
			heard = append(heard, fmt.Sprint(c.Event, " ", c.Err))
			return nil
		}, &Registration{Priority: Low}); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Register(PreToolUse, func(context.Context, *Context) error {
		return fmt.Errorf("not on a Sunday: %w", ErrFailClosed)
	}, nil); err != nil {
		t.Fatal(err)
	}
	ran := false
	_, err := m.Do(context.Background(), ToolUse, Data{}, func(context.Context) (any, error) { ran = true; return nil, nil })
	if ran || !errors.Is(err, ErrFailClosed) || !strings.Contains(err.Error(), "not on a Sunday") {
		t.Errorf("ran %v: %v", ran, err)
	}
	// Who was told that it begins is told that it did not.
	if got := strings.Join(heard, ", "); got != "pre_tool_use <nil>, post_tool_use hook function: pre_tool_use: not on a Sunday: "+ErrFailClosed.Error() {
		t.Error(got)
	}
}

func TestRegistrationsThatMeanNothingAreErrors(t *testing.T) {
	m := &Manager{}
	f := func(context.Context, *Context) error { return nil }
	trail := openTrail(t, audit.Written)
	h, err := NewAuditTrailHook(trail, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	o := &other{}
	for name, err := range map[string]error{
		"no event":    m.Register("", f, nil),
		"no function": m.Register(PreToolUse, nil, nil),
		"no hook":     m.RegisterHook(nil, nil),
		"timeout":     m.Register(PreToolUse, f, &Registration{Timeout: -1}),
		"twice":       errors.Join(m.RegisterHook(o, nil), m.RegisterHook(o, nil)),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	for name, o := range map[string]AuditOptions{
		"pattern": {Tools: []string{"["}}, "except": {ExceptTools: []string{"["}}, "event": {Events: []Event{""}},
		"size": {MaxValue: -1}, "timeout": {Timeout: -1},
	} {
		if _, err := NewAuditTrailHook(trail, &o); err == nil || !strings.HasPrefix(err.Error(), "audit trail hook: option ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := NewAuditTrailHook(nil, nil); err == nil {
		t.Error("no trail: no error")
	}
}

type other struct{ _ int }

func (*other) Name() string                           { return "other" }
func (*other) Events() []Event                        { return nil }
func (*other) Handle(context.Context, *Context) error { return nil }

func TestOfTwoAuditTrailHooksForOneTrailOneRecords(t *testing.T) {
	trail := openTrail(t, audit.Written)
	m, first := recorder(t, trail, &AuditOptions{Metadata: map[string]any{"from": "observability"}})
	h, err := NewAuditTrailHook(trail, &AuditOptions{Metadata: map[string]any{"from": "the user"}})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	ctx := trigger(t, m, context.Background(), PreToolUse, Data{Name: "t"})
	if err := m.RegisterHook(h, nil); err != nil {
		t.Fatal(err)
	}
	trigger(t, m, ctx, PostToolUse, Data{})
	trigger(t, m, context.Background(), PostToolUse, Data{Name: "t"})
	// What has ended is not told as unknown by the one that noted it.
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	got := entries(t, trail)
	if len(got) != 2 || got[0].Metadata.Text("from") != "the user" {
		t.Errorf("%s", briefs(got))
	}
}

func TestAManagerWithoutHooksDoesNothing(t *testing.T) {
	for _, m := range []*Manager{nil, {}} {
		ctx := context.Background()
		if got, err := m.Trigger(ctx, PreToolUse, Data{}); got != ctx || err != nil {
			t.Errorf("%v, %v", got, err)
		}
		out, err := m.Do(ctx, ToolUse, Data{}, func(context.Context) (any, error) { return 42, nil })
		if out != 42 || err != nil {
			t.Errorf("%v, %v", out, err)
		}
	}
}

func TestIdsOfOthersAreTakenOver(t *testing.T) {
	trail := openTrail(t, audit.Written)
	m, _ := recorder(t, trail, nil)
	type spanKey struct{}
	otel := func(span string) context.Context { return context.WithValue(context.Background(), spanKey{}, span) }
	const trace, outer, inner = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "00f067aa0ba902b7"
	m.SpanContext = func(ctx context.Context) (string, string) {
		if span, ok := ctx.Value(spanKey{}).(string); ok {
			return trace, span
		}
		return "", ""
	}
	loop := trigger(t, m, otel(outer), PreAgentLoop, Data{})
	trigger(t, m, loop, PostToolUse, Data{Name: "same"})
	trigger(t, m, context.WithValue(loop, spanKey{}, inner), PostToolUse, Data{Name: "other"})
	if tr, span := SpanOf(loop); tr != trace || len(span) != 16 {
		t.Error(tr, span)
	}
	trigger(t, m, WithParent(context.Background(), trace, outer), PostToolUse, Data{Name: "remote"})
	trigger(t, m, context.Background(), PostToolUse, Data{Name: "alone"})
	got := entries(t, trail)
	start, same, other, remote, alone := got[0], got[1], got[2], got[3], got[4]
	if start.TraceID != trace || start.ParentSpanID != outer || same.ParentSpanID != start.SpanID || same.TraceID != trace || !same.Metadata.IsZero() && same.Metadata.Text("otel_span_id") != "" {
		t.Errorf("%s\n%s", start.Line(), same.Line())
	}
	if other.ParentSpanID != start.SpanID || other.Metadata.Text("otel_span_id") != inner {
		t.Errorf("%s", other.Line())
	}
	if remote.TraceID != trace || remote.ParentSpanID != outer {
		t.Errorf("%s", remote.Line())
	}
	if alone.TraceID == trace || len(alone.TraceID) != 32 || alone.ParentSpanID != "" {
		t.Errorf("%s", alone.Line())
	}
}

func TestTwoTrailsEachHaveTheirOwn(t *testing.T) {
	one, two := openTrail(t, audit.Written), openTrail(t, audit.Written)
	m, _ := recorder(t, one, &AuditOptions{Metadata: map[string]any{"trail": "one"}})
	h, err := NewAuditTrailHook(two, &AuditOptions{Metadata: map[string]any{"trail": "two"}, OmitInputs: true})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if err := m.RegisterHook(h, nil); err != nil {
		t.Fatal(err)
	}
	ctx := WithMetadata(context.Background(), map[string]any{"user_id": "user123"})
	for range 2 {
		if _, err := m.Do(ctx, ToolUse, Data{Name: "t", Inputs: object("in")}, func(context.Context) (any, error) { return nil, nil }); err != nil {
			t.Error(err)
		}
	}
	for name, trail := range map[string]*audit.Trail{"one": one, "two": two} {
		got := entries(t, trail)
		if len(got) != 2 {
			t.Fatalf("%d entries", len(got))
		}
		for _, e := range got {
			if e.Metadata.Text("trail") != name || e.Metadata.Text("user_id") != "user123" || (e.Inputs.Text("value") == "in") != (name == "one") {
				t.Errorf("%s: %s", name, e.Line())
			}
		}
	}
}
