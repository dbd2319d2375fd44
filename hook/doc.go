// Package hook tells, while an agent runs, what it is about to do and what it
// has done, to whoever has asked to hear of it; and it has a hook that records
// all of that in an audit trail.
//
//	hooks := &hook.Manager{}
//	recorder, err := hook.NewAuditTrailHook(trail, nil)
//	…
//	defer recorder.Close()
//	hooks.RegisterHook(recorder, nil)
//
//	ctx = hook.WithMetadata(ctx, map[string]any{"user_id": "user123"})
//	out, err := hooks.Do(ctx, hook.ToolUse, hook.Data{Name: "calculator", Inputs: audit.Of(args)},
//		func(ctx context.Context) (any, error) { return calculate(ctx, args) })
//
// [Manager.Trigger] is the one way in; [Manager.Do] is two calls of it around a
// function. An event before an action begins a span: the context that Trigger
// returns carries it, what is triggered below that context is its child, and the
// event after the action ends it. So trees are right across sub-agents, parallel
// tools and retries as long as contexts are passed on, and nothing is shared
// between two runs.
//
// What is always true: hooks of one event run one after the other, by priority,
// each for as long as its timeout allows; one that fails, panics or blocks stops
// neither another nor the agent, and is counted and told ([Manager.OnError]). The
// one exception is asked for: an error that wraps [ErrFailClosed] fails the
// agent's action.
//
// [AuditTrailHook] makes one entry of a pair of events, with the real duration,
// and two of an agent's loop; docs/hooks.md has the table. What was begun is noted
// in a file as long as it lasts, so that after a crash it is told as unknown.
//
// Everything here is safe for concurrent use.
package hook
