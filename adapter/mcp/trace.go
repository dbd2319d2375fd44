package mcpaudit

import (
	"context"
	"maps"
	"reflect"
	"strings"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/kaizen-audit/kaizen-audit/hook"
)

// traceparent is the member of _meta that says to which action a request belongs,
// as the header of W3C Trace Context does: "00-<trace>-<span>-01".
const traceparent = "traceparent"

// absent are the params of requests that may have none. Nobody changes them.
var absent = map[string]mcp.Params{
	"tools/list":               &mcp.ListToolsParams{},
	"prompts/list":             &mcp.ListPromptsParams{},
	"resources/list":           &mcp.ListResourcesParams{},
	"resources/templates/list": &mcp.ListResourceTemplatesParams{},
	//lint:ignore SA1019 roots are deprecated, and work.
	"roots/list": &mcp.ListRootsParams{},
}

// withParent adds to a request which action it belongs to, unless it says so. Its
// params are the caller's, so they are copied.
func withParent(ctx context.Context, method string, req mcp.Request) mcp.Request {
	trace, span := hook.SpanOf(ctx)
	if !hexOf(trace, 32) || !hexOf(span, 16) {
		return req
	}
	given := req.GetParams()
	if given == nil {
		given = absent[method]
	}
	of := reflect.ValueOf(given)
	if of.Kind() != reflect.Pointer || of.IsNil() {
		return req
	}
	meta := maps.Clone(given.GetMeta())
	if _, there := meta[traceparent]; there {
		return req
	}
	if meta == nil {
		meta = map[string]any{}
	}
	meta[traceparent] = "00-" + trace + "-" + span + "-01"
	own := reflect.New(of.Type().Elem())
	own.Elem().Set(of.Elem())
	params := own.Interface().(mcp.Params)
	params.SetMeta(meta)
	switch s := req.GetSession().(type) {
	case *mcp.ClientSession:
		return &mcp.ClientRequest[mcp.Params]{Session: s, Params: params}
	case *mcp.ServerSession:
		return &mcp.ServerRequest[mcp.Params]{Session: s, Params: params, Extra: req.GetExtra()}
	}
	return req
}

// parent is ctx with the action of the peer that a request belongs to.
func parent(ctx context.Context, req mcp.Request) context.Context {
	if trace, _ := hook.SpanOf(ctx); trace != "" {
		return ctx
	}
	of := reflect.ValueOf(req.GetParams())
	if of.Kind() != reflect.Pointer || of.IsNil() {
		return ctx
	}
	said, _ := req.GetParams().GetMeta()[traceparent].(string)
	part := strings.Split(said, "-")
	// Later versions may add parts (W3C Trace Context §3.2.4).
	if len(part) < 4 || !hexOf(part[0], 2) || part[0] == "ff" || !hexOf(part[1], 32) || !hexOf(part[2], 16) || !hexOf(part[3], 2) {
		return ctx
	}
	return hook.WithParent(ctx, part[1], part[2])
}

// hexOf tells whether s is an id of n lower-case hex digits, not all of them zero
// where it is longer than a byte.
func hexOf(s string, n int) bool {
	return len(s) == n && strings.Trim(s, "0123456789abcdef") == "" && (n == 2 || strings.Trim(s, "0") != "")
}
