package peer

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/hook"

	"github.com/kaizen-audit/kaizen-audit/bench/internal/measure"
)

// The tool call: what a model has sent, and what the tool makes of it.
var (
	toolArguments = []byte(`{"reservation_id":"ZFA04Y","cabin":"economy"}`)
	toolResult    = []byte(`{"status":"ok","cabin":"economy","passengers":2,"price":412.5}`)
)

// tool reads its arguments, as a tool does.
func tool(context.Context) (any, error) {
	var in struct {
		ID    string `json:"reservation_id"`
		Cabin string `json:"cabin"`
	}
	if err := json.Unmarshal(toolArguments, &in); err != nil {
		return nil, err
	}
	return json.RawMessage(toolResult), nil
}

// ToolCall is a call of a tool, without a hook.
func ToolCall() measure.Contestant {
	return measure.Contestant{Name: "without the hook", Open: func(string) (measure.Recorder, error) { return bareCall{}, nil }}
}

type bareCall struct{}

func (bareCall) Record(int) error {
	_, err := tool(context.Background())
	return err
}

func (bareCall) Close() error { return nil }

// HookedToolCall is the same call, recorded by the hook inside an agent's loop.
func HookedToolCall(name string, d audit.Durability) measure.Contestant {
	return measure.Contestant{Name: name, Open: func(dir string) (measure.Recorder, error) {
		trail, err := audit.Open(filepath.Join(dir, "log.jsonl"), &audit.Options{Durability: d, StateDir: filepath.Join(dir, "known")})
		if err != nil {
			return nil, err
		}
		h, err := hook.NewAuditTrailHook(trail, nil)
		if err != nil {
			return nil, errors.Join(err, trail.Close())
		}
		c := &hookedCall{trail: trail, hook: h, hooks: &hook.Manager{AgentID: "qa-agent-001"}}
		if err := c.hooks.RegisterHook(h, nil); err != nil {
			return nil, errors.Join(err, c.Close())
		}
		ctx := hook.WithMetadata(context.Background(), map[string]any{"user_id": "user123", "session_id": "session456", "ip_address": "192.0.2.1"})
		if c.loop, err = c.hooks.Trigger(ctx, hook.PreAgentLoop, hook.Data{}); err != nil {
			return nil, errors.Join(err, c.Close())
		}
		return c, nil
	}}
}

type hookedCall struct {
	trail *audit.Trail
	hook  *hook.AuditTrailHook
	hooks *hook.Manager
	loop  context.Context
}

func (c *hookedCall) Record(int) error {
	_, err := c.hooks.Do(c.loop, hook.ToolUse, hook.Data{Name: "get_reservation_details", Inputs: audit.Raw(toolArguments)}, tool)
	return err
}

func (c *hookedCall) Close() error {
	lost := error(nil)
	if s := c.hook.Stats(); s.Lost+s.Spooled+s.Late > 0 {
		lost = errors.New("not every call was recorded at once")
	}
	return errors.Join(lost, c.hook.Close(), c.trail.Close())
}
