package mcpaudit

import (
	"context"
	"errors"
	"strings"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/kaizen-audit/kaizen-audit/hook"
)

// NewClient is mcp.NewClient, and has recorded what the client sends and is asked
// for. Middleware that is added to it changes a request before it is recorded, as it
// is sent then.
//
// With hook.AuditOptions.FailClosed a request fails with hook.ErrFailClosed if it
// can't be recorded.
func NewClient(hooks *hook.Manager, impl *mcp.Implementation, opts *mcp.ClientOptions) *mcp.Client {
	r := &recorder{hooks}
	if opts != nil {
		// What an answer asks the client for goes to these, past all middleware.
		own := *opts
		//lint:ignore SA1019 sampling is deprecated, and works: what uses it is recorded.
		own.CreateMessageHandler = handler(r, methodSample, opts.CreateMessageHandler)
		//lint:ignore SA1019 likewise.
		own.CreateMessageWithToolsHandler = handler(r, methodSample, opts.CreateMessageWithToolsHandler)
		own.ElicitationHandler = handler(r, methodElicit, opts.ElicitationHandler)
		opts = &own
	}
	c := mcp.NewClient(impl, opts)
	c.AddSendingMiddleware(r.sending)
	c.AddReceivingMiddleware(r.receiving)
	return c
}

// RecordServer has recorded what a server is asked for and asks of its clients. It
// comes after other middleware, so that what that refuses is recorded too.
//
// With hook.AuditOptions.FailClosed a request that can't be recorded fails; its
// sender is not told more than that.
func RecordServer(hooks *hook.Manager, s *mcp.Server) {
	r := &recorder{hooks}
	s.AddReceivingMiddleware(r.receiving)
	s.AddSendingMiddleware(r.sending)
}

// recorder tells hooks of requests.
type recorder struct{ hooks *hook.Manager }

// sending records what this side sends.
func (r *recorder) sending(next mcp.MethodHandler) mcp.MethodHandler {
	return func(ctx context.Context, method string, req mcp.Request) (mcp.Result, error) {
		if !recorded(method) {
			return next(ctx, method, req)
		}
		return r.record(ctx, method, req, func(ctx context.Context) (mcp.Result, error) {
			return next(ctx, method, withParent(ctx, method, req))
		})
	}
}

// receiving records what this side is asked for.
func (r *recorder) receiving(next mcp.MethodHandler) mcp.MethodHandler {
	return func(ctx context.Context, method string, req mcp.Request) (mcp.Result, error) {
		if !recorded(method) {
			return next(ctx, method, req)
		}
		res, err := r.record(parent(ctx, req), method, req, func(ctx context.Context) (mcp.Result, error) {
			return next(context.WithValue(ctx, receivedKey{}, method), method, req)
		})
		if errors.Is(err, hook.ErrFailClosed) {
			err = hook.ErrFailClosed // what is wrong with the trail is no concern of the peer
		}
		return res, err
	}
}

// receivedKey finds the request that receiving records, until its handler has it.
type receivedKey struct{}

// handler has a handler's requests recorded that receiving has not seen.
func handler[Q mcp.Request, R mcp.Result](r *recorder, method string, f func(context.Context, Q) (R, error)) func(context.Context, Q) (R, error) {
	if f == nil {
		return nil
	}
	return func(ctx context.Context, req Q) (R, error) {
		if ctx.Value(receivedKey{}) == method {
			return f(context.WithValue(ctx, receivedKey{}, nil), req)
		}
		res, err := r.record(ctx, method, req, func(ctx context.Context) (mcp.Result, error) { return f(ctx, req) })
		if err != nil {
			var none R
			return none, err
		}
		return res.(R), nil
	}
}

// recorded tells which requests are entries: notifications have no answer, and pings
// say nothing.
func recorded(method string) bool {
	return method != "ping" && !strings.HasPrefix(method, "notifications/")
}

// record does a request as an action.
func (r *recorder) record(ctx context.Context, method string, req mcp.Request, do func(context.Context) (mcp.Result, error)) (res mcp.Result, err error) {
	kind, before := begins(method, req)
	inner, err := r.hooks.Trigger(ctx, kind.Pre(), before)
	if err != nil {
		return nil, err
	}
	after := hook.Data{Err: errPanic} // unless do returns
	defer func() {
		if _, failed := r.hooks.Trigger(inner, kind.Post(), after); failed != nil {
			res, err = nil, errors.Join(err, failed)
		}
	}()
	res, err = do(inner)
	after = ends(method, res, err)
	return res, err
}

var errPanic = errors.New("panic")
