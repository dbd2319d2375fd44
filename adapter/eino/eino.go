package eino

import (
	"cmp"
	"context"
	"errors"
	"io"
	"sync"

	"github.com/cloudwego/eino/callbacks"
	"github.com/cloudwego/eino/components"
	"github.com/cloudwego/eino/compose"
	"github.com/cloudwego/eino/schema"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/hook"
	"github.com/kaizen-audit/kaizen-audit/internal/capture"
)

// Options say what a handler records. nil is a good default.
type Options struct {
	// Skip tells what to leave out; nil leaves out nothing. It is asked before
	// each action, so also about what runs inside of one that is left out.
	Skip func(context.Context, *callbacks.RunInfo) bool
}

// Kinds of action that only eino has.
const (
	loading  hook.Kind = "loader"
	indexing hook.Kind = "indexer"
)

// kinds are the components that are recorded.
var kinds = map[components.Component]hook.Kind{
	components.ComponentOfChatModel: hook.LLMCall,
	components.ComponentOfEmbedding: hook.LLMCall,
	components.ComponentOfTool:      hook.ToolUse,
	components.ComponentOfRetriever: hook.Retrieval,
	components.ComponentOfIndexer:   indexing,
	components.ComponentOfLoader:    loading,
	compose.ComponentOfGraph:        hook.Chain,
	compose.ComponentOfChain:        hook.Chain,
	compose.ComponentOfWorkflow:     hook.Chain,
}

var _ callbacks.Handler = (*Handler)(nil)

// Handler is a callbacks.Handler. It is safe for concurrent use, in one run or in
// many.
type Handler struct {
	hooks *hook.Manager
	skip  func(context.Context, *callbacks.RunInfo) bool

	mu      sync.Mutex
	quiet   *sync.Cond // streams has become 0
	streams int        // so many are being read
}

// NewHandler makes a handler that tells hooks.
func NewHandler(hooks *hook.Manager, opts *Options) *Handler {
	h := &Handler{hooks: hooks}
	h.quiet = sync.NewCond(&h.mu)
	if opts != nil {
		h.skip = opts.Skip
	}
	return h
}

// Wait returns when every stream that was handed out is recorded. That is when
// the component that makes it has ended it: whoever reads it may have closed it
// long before.
func (h *Handler) Wait() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.streams > 0 {
		h.quiet.Wait()
	}
}

// read runs f, which reads a stream: it ends with the stream, and Wait waits for
// it.
func (h *Handler) read(f func()) {
	h.mu.Lock()
	h.streams++
	h.mu.Unlock()
	go func() {
		defer func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			if h.streams--; h.streams == 0 {
				h.quiet.Broadcast()
			}
		}()
		f()
	}()
}

// run is an action that a handler has begun.
type run struct {
	ctx    context.Context // of the action; nil where a hook did not let it begin
	kind   hook.Kind
	call   *capture.Call     // of a model
	inputs chan audit.Object // what came as a stream, once it has ended; else nil
}

// runKey finds a handler's innermost action in a context.
type runKey struct{ *Handler }

// begin begins an action, unless it is one that is not recorded.
func (h *Handler) begin(ctx context.Context, info *callbacks.RunInfo, d hook.Data, call *capture.Call, inputs chan audit.Object) context.Context {
	kind := kinds[info.Component]
	if kind == hook.ToolUse && ctx.Value(toolKey{}) == h.hooks { // ToolMiddleware records it
		ctx = context.WithValue(ctx, toolKey{}, nil)
		return context.WithValue(ctx, runKey{h}, (*run)(nil))
	}
	if h.skip != nil && h.skip(ctx, info) {
		return context.WithValue(ctx, runKey{h}, (*run)(nil))
	}
	if _, span := hook.SpanOf(ctx); kind == hook.Chain && span == "" {
		kind = hook.AgentLoop
	}
	d.Name = cmp.Or(d.Name, info.Name, info.Type, string(info.Component))
	d.Metadata = metadata(info, call)
	if kind == hook.ToolUse {
		d.Metadata = mark(ctx, d.Metadata)
	}
	r := &run{kind: kind, call: call, inputs: inputs}
	next, err := h.hooks.Trigger(ctx, kind.Pre(), d)
	if err != nil {
		stopped, cancel := context.WithCancelCause(ctx)
		cancel(err)
		return context.WithValue(stopped, runKey{h}, r)
	}
	r.ctx = next
	return context.WithValue(next, runKey{h}, r)
}

// running is the action that a component's end belongs to, nil where there is
// none.
func (h *Handler) running(ctx context.Context, info *callbacks.RunInfo) *run {
	if !recorded(info) {
		return nil
	}
	if r, _ := ctx.Value(runKey{h}).(*run); r != nil && r.ctx != nil {
		return r
	}
	return nil
}

// end ends an action.
func (h *Handler) end(r *run, info *callbacks.RunInfo, d hook.Data) {
	if r.inputs != nil {
		d.Inputs = <-r.inputs
	}
	if r.call != nil {
		d.Metadata = metadata(info, r.call)
	}
	_, _ = h.hooks.Trigger(r.ctx, r.kind.Post(), d) // there is nobody to tell
}

func recorded(info *callbacks.RunInfo) bool { return info != nil && kinds[info.Component] != "" }

// metadata is what an entry says about the component.
func metadata(info *callbacks.RunInfo, call *capture.Call) map[string]any {
	m := map[string]any{"eino": map[string]any{"component": info.Component, "type": info.Type, "name": info.Name}}
	if call != nil {
		m["gen_ai"] = call.Metadata()
	}
	return m
}

// mark adds the id by which the model's answer calls a tool.
func mark(ctx context.Context, m map[string]any) map[string]any {
	if id := compose.GetToolCallID(ctx); id != "" {
		m["tool_call_id"] = id
	}
	return m
}

// OnStart begins an action.
func (h *Handler) OnStart(ctx context.Context, info *callbacks.RunInfo, input callbacks.CallbackInput) context.Context {
	if !recorded(info) {
		return ctx
	}
	d, call := begins(info, input)
	return h.begin(ctx, info, d, call, nil)
}

// OnStartWithStreamInput begins an action whose input comes piece by piece. What
// it was is said at its end.
func (h *Handler) OnStartWithStreamInput(ctx context.Context, info *callbacks.RunInfo, input *schema.StreamReader[callbacks.CallbackInput]) context.Context {
	if !recorded(info) {
		input.Close()
		return ctx
	}
	d, call := begins(info, nil)
	inputs := make(chan audit.Object, 1)
	h.read(func() {
		chunks, _ := drain(input)
		d, _ := begins(info, together(chunks))
		inputs <- d.Inputs
	})
	return h.begin(ctx, info, d, call, inputs)
}

// OnEnd ends an action.
func (h *Handler) OnEnd(ctx context.Context, info *callbacks.RunInfo, output callbacks.CallbackOutput) context.Context {
	if r := h.running(ctx, info); r != nil {
		h.end(r, info, hook.Data{Outputs: ends(info, r.call, output)})
	}
	return ctx
}

// OnEndWithStreamOutput ends an action when its stream has ended.
func (h *Handler) OnEndWithStreamOutput(ctx context.Context, info *callbacks.RunInfo, output *schema.StreamReader[callbacks.CallbackOutput]) context.Context {
	r := h.running(ctx, info)
	if r == nil {
		output.Close()
		return ctx
	}
	if r.call != nil {
		r.call.Streamed = true
	}
	h.read(func() {
		chunks, err := drain(output)
		h.end(r, info, hook.Data{Outputs: ends(info, r.call, together(chunks)), Err: err})
	})
	return ctx
}

// OnError ends an action that has failed. One that waits for a person has not.
func (h *Handler) OnError(ctx context.Context, info *callbacks.RunInfo, err error) context.Context {
	r := h.running(ctx, info)
	if r == nil {
		return ctx
	}
	d := hook.Data{Err: err}
	if interrupted(err) {
		d = hook.Data{Outcome: "interrupted"}
	}
	h.end(r, info, d)
	return ctx
}

func interrupted(err error) bool {
	if _, ok := compose.ExtractInterruptInfo(err); ok {
		return true
	}
	_, ok := compose.IsInterruptRerunError(err)
	return ok
}

// drain reads a stream to its end.
func drain[T any](s *schema.StreamReader[T]) (chunks []any, err error) {
	defer s.Close()
	for {
		chunk, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return chunks, nil
		}
		if err != nil {
			return chunks, err
		}
		chunks = append(chunks, chunk)
	}
}
