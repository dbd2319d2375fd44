package hook_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/hook"
)

// inTrail runs f with hooks that record in a trail of its own, and prints the
// entries.
func inTrail(opts *hook.AuditOptions, f func(context.Context, *hook.Manager)) {
	dir, err := os.MkdirTemp("", "hook")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	trail, err := audit.Open(filepath.Join(dir, "audit.jsonl"), &audit.Options{StateDir: filepath.Join(dir, "state")})
	if err != nil {
		log.Fatal(err)
	}
	defer trail.Close()
	recorder, err := hook.NewAuditTrailHook(trail, opts)
	if err != nil {
		log.Fatal(err)
	}
	hooks := &hook.Manager{AgentID: "qa-agent-001"}
	if err := hooks.RegisterHook(recorder, nil); err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	f(ctx, hooks)
	if err := recorder.Close(); err != nil {
		log.Fatal(err)
	}
	for e, err := range trail.Query(ctx, audit.Query{}) {
		if err != nil {
			log.Fatal(err)
		}
		inputs, _ := e.Inputs.AppendJSON(nil)
		outputs, _ := e.Outputs.AppendJSON(nil)
		fmt.Printf("%s %s %s %s %s%s\n", e.AgentID, e.EventType, e.Action, inputs, outputs, or(e.Outcome))
	}
}

func or(outcome string) string {
	if outcome == "" {
		return ""
	}
	return " " + outcome
}

func Example() {
	inTrail(nil, func(ctx context.Context, hooks *hook.Manager) {
		ctx = hook.WithMetadata(ctx, map[string]any{"user_id": "user123"})
		answer, err := hooks.Do(ctx, hook.AgentLoop, hook.Data{Inputs: audit.Of(map[string]any{"question": "6*7?"})}, func(ctx context.Context) (any, error) {
			return hooks.Do(ctx, hook.ToolUse, hook.Data{Name: "calculator", Inputs: audit.Of(map[string]any{"expression": "6*7"})},
				func(context.Context) (any, error) { return map[string]any{"result": 42}, nil })
		})
		fmt.Println(answer, err)
	})
	// Output:
	// map[result:42] <nil>
	// qa-agent-001 AGENT_LOOP_START agent_execution_start {"question":"6*7?"} {}
	// qa-agent-001 TOOL_USE tool_use:calculator {"expression":"6*7"} {"result":42}
	// qa-agent-001 AGENT_LOOP_END agent_execution_end {} {"result":42}
}

// A model's answer that comes as a stream ends in another place than it began.
func ExampleManager_Trigger() {
	inTrail(nil, func(ctx context.Context, hooks *hook.Manager) {
		call, err := hooks.Trigger(ctx, hook.PreLLMCall, hook.Data{Name: "gpt-4o", Inputs: audit.Of(map[string]any{"prompt": "6*7?"})})
		if err != nil {
			log.Fatal(err)
		}
		text := ""
		for _, chunk := range []string{"4", "2"} {
			text += chunk
		}
		if _, err := hooks.Trigger(call, hook.PostLLMCall, hook.Data{Outputs: audit.Of(map[string]any{"text": text})}); err != nil {
			log.Fatal(err)
		}
	})
	// Output:
	// qa-agent-001 LLM_CALL llm_call:gpt-4o {"prompt":"6*7?"} {"text":"42"}
}

// A refusal and an approval, with what decided it.
func ExampleData() {
	inTrail(nil, func(ctx context.Context, hooks *hook.Manager) {
		for _, d := range []hook.Data{
			{Name: "delete_account", Outcome: "denied", Authority: audit.Of(map[string]any{"rule": "no-deletes"})},
			{Name: "send_mail", Authority: audit.Of(map[string]any{"approver": "user123", "method": "console"})},
		} {
			if _, err := hooks.Trigger(ctx, hook.PostPermissionCheck, d); err != nil {
				log.Fatal(err)
			}
		}
	})
	// Output:
	// qa-agent-001 PERMISSION_CHECK permission_check:delete_account {} {} denied
	// qa-agent-001 PERMISSION_CHECK permission_check:send_mail {} {}
}

func ExampleManager_Do() {
	inTrail(nil, func(ctx context.Context, hooks *hook.Manager) {
		ctx, cancel := context.WithCancel(ctx)
		_, err := hooks.Do(ctx, hook.ToolUse, hook.Data{Name: "search"}, func(ctx context.Context) (any, error) {
			cancel()
			return nil, ctx.Err()
		})
		fmt.Println(err)
	})
	// Output:
	// context canceled
	// qa-agent-001 TOOL_USE tool_use:search {} {} cancelled
}

func ExampleManager_Register() {
	hooks := &hook.Manager{OnError: func(e *hook.Error) { fmt.Println(e) }}
	say := func(_ context.Context, c *hook.Context) error {
		fmt.Println(c.Event, c.Name)
		return nil
	}
	broken := func(context.Context, *hook.Context) error { return errors.New("no connection") }
	if err := errors.Join(
		hooks.Register(hook.PreToolUse, say, &hook.Registration{Priority: hook.Low}),
		hooks.Register(hook.PreToolUse, broken, &hook.Registration{Timeout: time.Second}),
	); err != nil {
		log.Fatal(err)
	}
	_, err := hooks.Trigger(context.Background(), hook.PreToolUse, hook.Data{Name: "calculator"})
	fmt.Println(err, hooks.Failures())
	// Output:
	// hook function: pre_tool_use: no connection
	// pre_tool_use calculator
	// <nil> 1
}

// guard lets nobody delete anything.
type guard struct{}

func (guard) Name() string         { return "guard" }
func (guard) Events() []hook.Event { return []hook.Event{hook.PreToolUse} }

func (guard) Handle(_ context.Context, c *hook.Context) error {
	if c.Name == "delete_account" {
		return fmt.Errorf("%s is not for agents: %w", c.Name, hook.ErrFailClosed)
	}
	return nil
}

func ExampleManager_RegisterHook() {
	inTrail(nil, func(ctx context.Context, hooks *hook.Manager) {
		if err := hooks.RegisterHook(guard{}, &hook.Registration{Priority: hook.High}); err != nil {
			log.Fatal(err)
		}
		_, err := hooks.Do(ctx, hook.ToolUse, hook.Data{Name: "delete_account"}, func(context.Context) (any, error) { panic("it must not run") })
		fmt.Println(err)
	})
	// Output:
	// hook guard: pre_tool_use: delete_account is not for agents: the action must not go on
	// qa-agent-001 TOOL_USE tool_use:delete_account {} {}
}

func ExampleManager_RecordChange() {
	inTrail(nil, func(ctx context.Context, hooks *hook.Manager) {
		err := hooks.RecordChange(ctx, hook.Change{
			Name: "retention", Before: audit.Of(map[string]any{"days": 30}), After: audit.Of(map[string]any{"days": 90}),
		})
		if err != nil {
			log.Fatal(err)
		}
	})
	// Output:
	// qa-agent-001 CONFIG_CHANGE config_change:retention {"before":{"days":30}} {"after":{"days":90},"diff":[{"op":"replace","path":"/days","value":90}]}
}

func ExampleDiff() {
	patch, err := hook.Diff(audit.Of(map[string]any{"tools": []any{"a", "b"}, "model": "m-1"}), audit.Of(map[string]any{"tools": []any{"b"}, "model": "m-1"}))
	fmt.Println(string(patch), err)
	// Output: [{"op":"remove","path":"/tools/0"}] <nil>
}

// The second start finds another model than the first.
func ExampleSetup() {
	dir, err := os.MkdirTemp("", "hook")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	trail, err := audit.Open(filepath.Join(dir, "audit.jsonl"), &audit.Options{StateDir: filepath.Join(dir, "state")})
	if err != nil {
		log.Fatal(err)
	}
	defer trail.Close()
	for _, model := range []string{"gpt-4o", "gpt-5"} {
		recorder, err := hook.NewAuditTrailHook(trail, nil)
		if err != nil {
			log.Fatal(err)
		}
		hooks := &hook.Manager{AgentID: "qa-agent-001"}
		if err := hooks.RegisterHook(recorder, nil); err != nil {
			log.Fatal(err)
		}
		setup := &hook.Setup{Model: model, Prompt: "You are helpful.", Tools: []string{"calculator"}, Version: "1.2.0"}
		if _, err := hooks.Do(context.Background(), hook.AgentLoop, hook.Data{Setup: setup}, func(context.Context) (any, error) { return nil, nil }); err != nil {
			log.Fatal(err)
		}
		if err := recorder.Close(); err != nil {
			log.Fatal(err)
		}
	}
	for e, err := range trail.Query(context.Background(), audit.Query{EventTypes: []string{audit.ConfigChange}}) {
		if err != nil {
			log.Fatal(err)
		}
		diff, _ := e.Outputs.Get("diff")
		fmt.Println(e.Action, string(diff.JSON()))
	}
	// Output: config_change:agent_setup [{"op":"replace","path":"/model","value":"gpt-5"}]
}

func ExampleNewAuditTrailHook() {
	opts := &hook.AuditOptions{Before: true, OmitInputs: true, ExceptTools: []string{"clock_*"}}
	inTrail(opts, func(ctx context.Context, hooks *hook.Manager) {
		for _, tool := range []string{"clock_now", "calculator"} {
			if _, err := hooks.Do(ctx, hook.ToolUse, hook.Data{Name: tool}, func(context.Context) (any, error) { return 42, nil }); err != nil {
				log.Fatal(err)
			}
		}
	})
	// Output:
	// qa-agent-001 TOOL_USE_START tool_use_start:calculator {} {}
	// qa-agent-001 TOOL_USE tool_use:calculator {} {"value":42}
}

func ExampleAuditTrailHook_Stats() {
	dir, err := os.MkdirTemp("", "hook")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	trail, err := audit.Open(filepath.Join(dir, "audit.jsonl"), &audit.Options{StateDir: filepath.Join(dir, "state")})
	if err != nil {
		log.Fatal(err)
	}
	recorder, err := hook.NewAuditTrailHook(trail, &hook.AuditOptions{Warn: func(err error) { fmt.Println(err) }})
	if err != nil {
		log.Fatal(err)
	}
	defer recorder.Close()
	hooks := &hook.Manager{}
	if err := hooks.RegisterHook(recorder, nil); err != nil {
		log.Fatal(err)
	}
	if err := trail.Close(); err != nil { // as if it were gone
		log.Fatal(err)
	}
	_, err = hooks.Do(context.Background(), hook.ToolUse, hook.Data{Name: "calculator"}, func(context.Context) (any, error) { return 42, nil })
	fmt.Printf("%v %+v\n", err, recorder.Stats())
	// Output:
	// the trail does not take it: an entry waits in the spool
	// <nil> {Recorded:0 Spooled:1 Late:0 Lost:0 Unnoted:0}
}

func ExampleMetadataOf() {
	ctx := hook.WithMetadata(context.Background(), map[string]any{"user_id": "user123"})
	fmt.Println(hook.MetadataOf(ctx)["user_id"])
	// Output: user123
}

// What the caller says about itself is in everything below.
func ExampleWithMetadata() {
	ctx := hook.WithMetadata(context.Background(), map[string]any{"user_id": "user123", "ip_address": "192.0.2.1"})
	hooks := &hook.Manager{}
	if err := hooks.Register(hook.PreToolUse, func(_ context.Context, c *hook.Context) error {
		fmt.Println(c.Name, c.Metadata)
		return nil
	}, nil); err != nil {
		log.Fatal(err)
	}
	tool, err := hooks.Trigger(ctx, hook.PreToolUse, hook.Data{Name: "outer", Metadata: map[string]any{"attempt": 1}})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := hooks.Trigger(tool, hook.PreToolUse, hook.Data{Name: "inner"}); err != nil {
		log.Fatal(err)
	}
	// Output:
	// outer map[attempt:1 ip_address:192.0.2.1 user_id:user123]
	// inner map[ip_address:192.0.2.1 user_id:user123]
}

// A request that another process has made goes on in its trace.
func ExampleWithParent() {
	ctx := hook.WithParent(context.Background(), "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
	fmt.Println(hook.SpanOf(ctx))
	// Output: 0af7651916cd43dd8448eb211c80319c b7ad6b7169203331
}

func ExampleSpanOf() {
	hooks := &hook.Manager{}
	if err := hooks.Register(hook.PostToolUse, func(context.Context, *hook.Context) error { return nil }, nil); err != nil {
		log.Fatal(err)
	}
	ctx, err := hooks.Trigger(context.Background(), hook.PreToolUse, hook.Data{})
	if err != nil {
		log.Fatal(err)
	}
	trace, span := hook.SpanOf(ctx)
	fmt.Println(len(trace), len(span))
	// Output: 32 16
}

func ExampleKind() {
	const reportSent hook.Kind = "report_sent"
	inTrail(nil, func(ctx context.Context, hooks *hook.Manager) {
		fmt.Println(reportSent.Pre(), reportSent.Post(), hook.PostToolUse.Kind())
		if _, err := hooks.Do(ctx, reportSent, hook.Data{Name: "monthly"}, func(context.Context) (any, error) { return nil, nil }); err != nil {
			log.Fatal(err)
		}
	})
	// Output:
	// pre_report_sent post_report_sent tool_use
	// qa-agent-001 REPORT_SENT report_sent:monthly {} {}
}

// An agent runs, whatever state its trail is in.
func ExampleOpenAuditTrailHook() {
	dir, err := os.MkdirTemp("", "hook")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	recorder, err := hook.OpenAuditTrailHook(filepath.Join(dir, "audit.jsonl"), &audit.Options{StateDir: filepath.Join(dir, "state")}, nil)
	if err != nil {
		log.Fatal(err)
	}
	hooks := &hook.Manager{AgentID: "qa-agent-001"}
	if err := hooks.RegisterHook(recorder, nil); err != nil {
		log.Fatal(err)
	}
	out, err := hooks.Do(context.Background(), hook.ToolUse, hook.Data{Name: "calculator"}, func(context.Context) (any, error) { return 42, nil })
	fmt.Println(out, err, recorder.Stats().Recorded, recorder.Close())
	// Output: 42 <nil> 1 <nil>
}
