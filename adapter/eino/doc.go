// Package eino records what programs built with github.com/cloudwego/eino do:
//
//	handler := eino.NewHandler(hooks, nil)
//	answer, err := runnable.Invoke(ctx, input, compose.WithCallbacks(handler))
//	handler.Wait()
//
// Calls of models and embedders, tools, retrievers, indexers and loaders are
// entries, each a child of the graph that it runs in; the outermost graph is the
// agent's loop, one inside another action a step of it (CHAIN_RUN). What only
// carries values from one to the other has no entry: prompts, lambdas, splitters,
// the node around tools. A stream is put together to what the same call gives
// without streaming, and recorded when it has ended.
//
// Callbacks can't make a component fail. So with hook.AuditOptions.FailClosed an
// action that must not begin gets a context that is cancelled, with the hook's
// error as its cause: components that look at their context do not run. Tools
// that go through [ToolMiddleware] do not run in any case.
//
// A call of a model is recorded once: by this package as eino sees it, or by
// adapter/llmhttp as it went over the wire, and then Options.Skip leaves it out
// here.
package eino
