package hook

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	audit "github.com/kaizen-audit/kaizen-audit"
)

// explosive panics wherever it is asked for a text.
type explosive struct{}

func (*explosive) MarshalJSON() ([]byte, error) { panic("not today") }
func (*explosive) Error() string                { panic("nor tomorrow") }

// Whatever an agent hands over, and whatever its own callbacks do, the agent goes
// on and the action is an entry.
func TestWhatPanicsWhenItIsReadStopsNobody(t *testing.T) {
	trail := openTrail(t, audit.Written)
	var told atomic.Int64
	h, err := NewAuditTrailHook(trail, &AuditOptions{Warn: func(error) { panic("warn") }, Metadata: map[string]any{"bad": &explosive{}}})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	m := &Manager{AgentID: "a", SpanContext: func(context.Context) (string, string) { panic("span") }, OnError: func(*Error) { told.Add(1); panic("error") }}
	if err := m.RegisterHook(h, nil); err != nil {
		t.Fatal(err)
	}
	if err := m.Register(PreToolUse, func(context.Context, *Context) error { return errors.New("no") }, nil); err != nil {
		t.Fatal(err)
	}
	ctx := WithMetadata(context.Background(), map[string]any{"user_id": "user123", "worse": &explosive{}})
	_, err = m.Do(ctx, ToolUse, Data{Name: "t", Inputs: audit.Of(map[string]any{"x": &explosive{}}), Metadata: map[string]any{"own": &explosive{}}}, func(context.Context) (any, error) {
		return &explosive{}, &explosive{}
	})
	if _, ok := err.(*explosive); !ok {
		t.Errorf("%T", err)
	}
	h.warn(errors.New("x")) // its callback panics, wherever it is called from
	got := entries(t, trail)
	if len(got) != 1 || got[0].Success || got[0].Error == nil || got[0].Metadata.Text("user_id") != "user123" || got[0].Inputs.Text("omitted") == "" || got[0].Outputs.Text("omitted") == "" {
		t.Fatalf("%d entries:\n%s", len(got), briefs(got))
	}
	if s := string(got[0].Line()); strings.Contains(s, "not today") || strings.Contains(s, "nor tomorrow") {
		t.Error(s)
	}
	if told.Load() == 0 || m.Failures() < 2 {
		t.Errorf("%d told, %d failures", told.Load(), m.Failures())
	}
}

// A service whose agents have a name for each request keeps no memory of all of
// them: the trail has it.
func TestAgentsWithoutNumberAreForgotten(t *testing.T) {
	trail := openTrail(t, audit.Written)
	_, h := recorder(t, trail, nil)
	for i := range 3 * maxAgents {
		h.setups.starts(fmt.Sprint("agent-", i), "s", []byte(`{}`))
	}
	if n := len(h.setups.agents); n > maxAgents {
		t.Errorf("%d agents are remembered", n)
	}
	// One that was forgotten is compared with the trail.
	m := &Manager{AgentID: "a"}
	if err := m.RegisterHook(h, nil); err != nil {
		t.Fatal(err)
	}
	run := func(model string) {
		ctx := trigger(t, m, context.Background(), PreAgentLoop, Data{AgentID: "forgotten", Setup: &Setup{Model: model, Version: "1"}})
		trigger(t, m, ctx, PostAgentLoop, Data{})
		for deadline := time.Now().Add(10 * time.Second); h.busy.Load() > 0 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		}
	}
	run("one")
	h.setups.mu.Lock()
	delete(h.setups.agents, "forgotten")
	h.setups.mu.Unlock()
	run("two")
	if got := briefs(entries(t, trail)); strings.Count(got, "CONFIG_CHANGE config_change:agent_setup") != 1 {
		t.Error(got)
	}
}
