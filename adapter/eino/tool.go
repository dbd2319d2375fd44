package eino

import (
	"context"
	"errors"
	"io"

	"github.com/cloudwego/eino/compose"
	"github.com/cloudwego/eino/schema"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/hook"
)

// toolKey is set in the context of a tool that ToolMiddleware records, to the
// manager that is told of it.
type toolKey struct{}

// ToolMiddleware records the use of tools around the tools, where it can fail:
// with hook.AuditOptions.FailClosed a tool does not run when that can't be
// recorded, and a result that can't be recorded is not given out. A Handler of
// the same hooks leaves those tools to it.
func ToolMiddleware(hooks *hook.Manager) compose.ToolMiddleware {
	return compose.ToolMiddleware{
		Invokable: func(next compose.InvokableToolEndpoint) compose.InvokableToolEndpoint {
			return once(hooks, next, func(out *compose.ToolOutput) audit.Object { return text(out.Result) })
		},
		EnhancedInvokable: func(next compose.EnhancedInvokableToolEndpoint) compose.EnhancedInvokableToolEndpoint {
			return once(hooks, next, func(out *compose.EnhancedInvokableToolOutput) audit.Object { return audit.Of(out.Result) })
		},
		Streamable: func(next compose.StreamableToolEndpoint) compose.StreamableToolEndpoint {
			return streamed(hooks, next, func(out *compose.StreamToolOutput) **schema.StreamReader[string] { return &out.Result },
				func(whole any) audit.Object { s, _ := whole.(string); return text(s) })
		},
		EnhancedStreamable: func(next compose.EnhancedStreamableToolEndpoint) compose.EnhancedStreamableToolEndpoint {
			return streamed(hooks, next, func(out *compose.EnhancedStreamableToolOutput) **schema.StreamReader[*schema.ToolResult] {
				return &out.Result
			},
				func(whole any) audit.Object { return value(whole) })
		},
	}
}

func begin(ctx context.Context, hooks *hook.Manager, in *compose.ToolInput) (context.Context, error) {
	d := hook.Data{Name: in.Name, Inputs: text(in.Arguments), Metadata: mark(ctx, map[string]any{})}
	ctx, err := hooks.Trigger(ctx, hook.PreToolUse, d)
	return context.WithValue(ctx, toolKey{}, hooks), err
}

// after is what is said of a tool that has failed, or is waiting for a person.
func after(err error) hook.Data {
	if err != nil && interrupted(err) {
		return hook.Data{Outcome: "interrupted"}
	}
	return hook.Data{Err: err}
}

var errPanic = errors.New("panic")

func once[Out any](hooks *hook.Manager, next func(context.Context, *compose.ToolInput) (*Out, error), outputs func(*Out) audit.Object) func(context.Context, *compose.ToolInput) (*Out, error) {
	return func(ctx context.Context, in *compose.ToolInput) (out *Out, err error) {
		if ctx, err = begin(ctx, hooks, in); err != nil {
			return nil, err
		}
		err = errPanic
		defer func() {
			d := after(err)
			if out != nil {
				d.Outputs = outputs(out)
			}
			if _, failed := hooks.Trigger(ctx, hook.PostToolUse, d); failed != nil {
				out, err = nil, errors.Join(err, failed)
			}
		}()
		out, err = next(ctx, in)
		return out, err
	}
}

func streamed[Out, Chunk any](hooks *hook.Manager, next func(context.Context, *compose.ToolInput) (*Out, error), stream func(*Out) **schema.StreamReader[Chunk], outputs func(any) audit.Object) func(context.Context, *compose.ToolInput) (*Out, error) {
	return func(ctx context.Context, in *compose.ToolInput) (out *Out, err error) {
		if ctx, err = begin(ctx, hooks, in); err != nil {
			return nil, err
		}
		started := false
		defer func() {
			if !started {
				if err == nil {
					err = errPanic
				}
				_, failed := hooks.Trigger(ctx, hook.PostToolUse, after(err))
				err = errors.Join(err, failed)
			}
		}()
		if out, err = next(ctx, in); err != nil {
			return nil, err
		}
		started = true
		from := stream(out)
		*from = watch(*from, func(chunks []any, err error) error {
			d := after(err)
			d.Outputs = outputs(together(chunks))
			_, failed := hooks.Trigger(ctx, hook.PostToolUse, d)
			return failed
		})
		return out, nil
	}
}

// watch hands a stream on, and calls ended before its reader is told of the end.
func watch[T any](from *schema.StreamReader[T], ended func(chunks []any, err error) error) *schema.StreamReader[T] {
	to, w := schema.Pipe[T](0)
	go func() { // it ends with the stream, or when its reader closes that
		defer w.Close()
		defer from.Close()
		var none T
		var chunks []any
		for {
			chunk, err := from.Recv()
			if err != nil {
				end := err
				if errors.Is(err, io.EOF) {
					end = nil
				}
				if failed := ended(chunks, end); failed != nil || end != nil {
					w.Send(none, errors.Join(end, failed))
				}
				return
			}
			chunks = append(chunks, chunk)
			if w.Send(chunk, nil) {
				_ = ended(chunks, context.Canceled) // its reader wants no more of it
				return
			}
		}
	}()
	return to
}
