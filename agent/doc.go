// Package agent is the documented quick start: an agent that has all that it
// does in an audit trail.
//
//	qa, err := agent.New(config, signature)
//	…
//	err = qa.EnableObservability(agent.Observability{ServiceName: "my-agent", EnableAudit: true})
//	…
//	defer qa.Close()
//	result, err := qa.Run(ctx, agent.Inputs{"question": "test"})
//
// A [BaseAgent] is a thin layer over the ReAct agent of github.com/cloudwego/eino,
// which asks the model, uses the tools that the answer calls, side by side, and
// asks again. This package gives it a model, turns a [Signature] into a prompt and
// an answer into outputs, keeps the conversation in a [Memory], and tells hooks.
//
// What is always true: a run is one trace. Its loop, each call of the model, each
// use of a tool, each memory operation and each specialist is one entry (the loop
// two), below the one that it is part of. A call of the model is recorded as it
// goes over the wire, by adapter/llmhttp, or, of a model that the caller has made
// (Config.ChatModel), as eino sees it; never both. Where a hook does not let an
// action begin (hook.ErrFailClosed) it does not, and the run fails.
//
// Everything here is safe for concurrent use. docs/agent.md shows how the sections
// of the Python guide look in Go.
package agent
