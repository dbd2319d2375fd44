package mcpaudit

import (
	"encoding/json"
	"errors"
	"maps"
	"strings"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/hook"
	"github.com/kaizen-audit/kaizen-audit/internal/capture"
	"github.com/kaizen-audit/kaizen-audit/internal/genai"
)

// Methods that have a kind of action of their own, or a word to say.
const (
	methodCall   = "tools/call"
	methodSample = "sampling/createMessage"
	methodElicit = "elicitation/create" // asks a user
	methodRead   = "resources/read"
)

// begins is what is said of a request before it is done.
func begins(method string, req mcp.Request) (hook.Kind, hook.Data) {
	params := members(req.GetParams())
	d := hook.Data{Metadata: metadata(method, req, params)}
	delete(params, "_meta")
	kind := hook.MCPRequest
	switch method {
	case methodCall:
		kind = hook.ToolUse
		_ = json.Unmarshal(params["name"], &d.Name)
		delete(params, "name")
		if arguments, ok := params["arguments"]; ok && len(params) == 1 {
			d.Inputs = value(arguments)
			return kind, d
		}
	case methodSample:
		kind = hook.LLMCall
	case methodRead:
		kind = hook.Retrieval
	default:
		d.Name = method
	}
	d.Inputs = object(params)
	return kind, d
}

// ends is what is said of it after that.
func ends(method string, res mcp.Result, err error) (d hook.Data) {
	if err != nil {
		d.Err = err
		if said, ok := errors.AsType[*jsonrpc.Error](err); ok {
			d.Outputs = audit.Of(map[string]any{"error": said})
		}
		return d
	}
	out := members(res)
	trimMeta(out)
	d.Outputs = object(out)
	switch res := res.(type) {
	case *mcp.CallToolResult:
		if res.IsError {
			d.Err = errTool
		}
	case *mcp.ElicitResult:
		switch res.Action {
		case "decline":
			d.Outcome = "denied"
		case "cancel":
			d.Outcome = "cancelled"
		}
	}
	if method == methodSample {
		var model, stopReason string
		_, _ = json.Unmarshal(out["model"], &model), json.Unmarshal(out["stopReason"], &stopReason)
		d.Name, d.Metadata = model, answered(model, stopReason)
	}
	if asks, ok := res.(interface{ NeedsInput() bool }); ok && asks.NeedsInput() {
		d.Outcome = "input_required"
	}
	return d
}

// errTool: what the tool says about it is in the outputs.
var errTool = errors.New("the tool says that it failed")

// answered is what is known of a model's answer, in the words of all model calls.
func answered(model, stopReason string) map[string]any {
	call := capture.Call{Operation: "chat", ResponseModel: model}
	if stopReason != "" {
		call.FinishReasons = []string{stopReason}
	}
	return map[string]any{"gen_ai": call.Metadata()}
}

// metadata is what an entry says about a request.
func metadata(method string, req mcp.Request, params map[string]json.RawMessage) map[string]any {
	about := map[string]any{"method": method}
	m := map[string]any{"mcp": about}
	peer := func(i *mcp.Implementation, version string) {
		if i != nil {
			about["peer"] = map[string]any{"name": i.Name, "version": i.Version}
		}
		if version != "" {
			about["protocol_version"] = version
		}
	}
	switch s := req.GetSession().(type) {
	case *mcp.ClientSession:
		about["role"] = "client"
		if i := s.InitializeResult(); i != nil {
			peer(i.ServerInfo, i.ProtocolVersion)
		}
	case *mcp.ServerSession:
		about["role"] = "server"
		if i := s.InitializeParams(); i != nil {
			peer(i.ClientInfo, i.ProtocolVersion)
		}
	}
	if x := req.GetExtra(); x != nil {
		if x.TokenInfo != nil && x.TokenInfo.UserID != "" {
			m["user_id"] = x.TokenInfo.UserID
		}
		if agent := x.Header.Get("User-Agent"); agent != "" {
			m["user_agent"] = agent
		}
	}
	trimMeta(params)
	if meta, ok := params["_meta"]; ok {
		about["meta"] = value(meta)
	}
	return m
}

// trimMeta takes out of _meta what is the same in every request, or of no meaning
// after it.
func trimMeta(m map[string]json.RawMessage) {
	var meta map[string]json.RawMessage
	if json.Unmarshal(m["_meta"], &meta) != nil {
		return
	}
	maps.DeleteFunc(meta, func(name string, _ json.RawMessage) bool {
		return name == "progressToken" || name == traceparent || strings.HasPrefix(name, "io.modelcontextprotocol/")
	})
	delete(m, "_meta")
	if len(meta) > 0 {
		m["_meta"], _ = json.Marshal(meta)
	}
}

// members are those of params or of a result, as they go over the wire.
func members(v any) map[string]json.RawMessage {
	text, err := json.Marshal(v)
	if err != nil {
		text, _ = json.Marshal(map[string]string{"omitted": err.Error()})
	}
	m := map[string]json.RawMessage{}
	_ = json.Unmarshal(text, &m)
	return m
}

// object is an object without the credentials of headers.
func object(m map[string]json.RawMessage) audit.Object {
	if len(m) == 0 {
		return audit.Object{}
	}
	text, err := json.Marshal(m)
	if err != nil {
		return audit.Of(m) // its error says what is left out
	}
	return value(text)
}

func value(text json.RawMessage) audit.Object {
	if v, ok := genai.Parse(text); ok {
		return audit.Raw(v)
	}
	return audit.Raw(text) // what of it can't be kept is left out
}
