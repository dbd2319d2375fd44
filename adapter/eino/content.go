package eino

import (
	"encoding/json"
	"reflect"
	"strings"

	"github.com/cloudwego/eino/callbacks"
	"github.com/cloudwego/eino/components"
	"github.com/cloudwego/eino/components/document"
	"github.com/cloudwego/eino/components/embedding"
	"github.com/cloudwego/eino/components/indexer"
	"github.com/cloudwego/eino/components/model"
	"github.com/cloudwego/eino/components/retriever"
	"github.com/cloudwego/eino/components/tool"
	"github.com/cloudwego/eino/schema"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/hook"
	"github.com/kaizen-audit/kaizen-audit/internal/capture"
)

// begins is what is said before an action. Of a call of a model it also gives
// what is known of it.
func begins(info *callbacks.RunInfo, input any) (d hook.Data, call *capture.Call) {
	switch info.Component {
	case components.ComponentOfChatModel:
		call = &capture.Call{Operation: "chat"}
		if in := model.ConvCallbackInput(input); in != nil {
			if in.Config != nil {
				call.RequestModel = in.Config.Model
			}
			d.Inputs = members(member{"messages", in.Messages}, member{"tools", definitions(in.Tools)}, member{"tool_choice", in.ToolChoice}, member{"config", in.Config})
		}
		// Whatever the node is called, it is the model that was asked.
		if d.Name = call.RequestModel; d.Name == "" {
			d.Name = info.Type
		}
		return d, call
	case components.ComponentOfEmbedding:
		call = &capture.Call{Operation: "embeddings"}
		if in := embedding.ConvCallbackInput(input); in != nil {
			if in.Config != nil {
				call.RequestModel = in.Config.Model
			}
			d.Inputs = members(member{"input", in.Texts})
		}
		if d.Name = call.RequestModel; d.Name == "" {
			d.Name = info.Type
		}
		return d, call
	case components.ComponentOfTool:
		if in := tool.ConvCallbackInput(input); in != nil {
			d.Inputs = text(in.ArgumentsInJSON)
		}
	case components.ComponentOfRetriever:
		if in := retriever.ConvCallbackInput(input); in != nil {
			d.Inputs = members(member{"query", in.Query}, member{"top_k", in.TopK}, member{"filter", in.Filter}, member{"score_threshold", in.ScoreThreshold})
		}
	case components.ComponentOfIndexer:
		if in := indexer.ConvCallbackInput(input); in != nil {
			d.Inputs = members(member{"documents", in.Docs})
		}
	case components.ComponentOfLoader:
		if in := document.ConvLoaderCallbackInput(input); in != nil {
			d.Inputs = members(member{"uri", in.Source.URI})
		}
	default:
		d.Inputs = value(input)
	}
	return d, nil
}

// ends is what came out, and completes what is known of a model's call.
func ends(info *callbacks.RunInfo, call *capture.Call, output any) audit.Object {
	switch info.Component {
	case components.ComponentOfChatModel:
		out := model.ConvCallbackOutput(output)
		if out == nil {
			return audit.Object{}
		}
		usage := out.TokenUsage
		if out.Message != nil && out.Message.ResponseMeta != nil {
			meta := out.Message.ResponseMeta
			if meta.FinishReason != "" {
				call.FinishReasons = []string{meta.FinishReason}
			}
			if u := meta.Usage; u != nil && usage == nil {
				usage = &model.TokenUsage{PromptTokens: u.PromptTokens, CompletionTokens: u.CompletionTokens}
				usage.PromptTokenDetails.CachedTokens = u.PromptTokenDetails.CachedTokens
				usage.CompletionTokensDetails.ReasoningTokens = u.CompletionTokensDetails.ReasoningTokens
			}
		}
		if usage != nil {
			call.Usage = capture.Usage{
				Input: int64(usage.PromptTokens), Output: int64(usage.CompletionTokens), CacheRead: int64(usage.PromptTokenDetails.CachedTokens),
				Reasoning: int64(usage.CompletionTokensDetails.ReasoningTokens), Known: true,
			}
		}
		return members(member{"message", out.Message})
	case components.ComponentOfEmbedding:
		out := embedding.ConvCallbackOutput(output)
		if out == nil {
			return audit.Object{}
		}
		if u := out.TokenUsage; u != nil {
			call.Usage = capture.Usage{Input: int64(u.PromptTokens), Output: int64(u.CompletionTokens), Known: true}
		}
		return members(member{"embeddings", out.Embeddings})
	case components.ComponentOfTool:
		if out := tool.ConvCallbackOutput(output); out != nil {
			if out.ToolOutput != nil {
				return audit.Of(out.ToolOutput)
			}
			return text(out.Response)
		}
	case components.ComponentOfRetriever:
		if out := retriever.ConvCallbackOutput(output); out != nil {
			return members(member{"documents", out.Docs})
		}
	case components.ComponentOfIndexer:
		if out := indexer.ConvCallbackOutput(output); out != nil {
			return members(member{"ids", out.IDs})
		}
	case components.ComponentOfLoader:
		if out := document.ConvLoaderCallbackOutput(output); out != nil {
			return members(member{"documents", out.Docs})
		}
	default:
		return value(output)
	}
	return audit.Object{}
}

type member struct {
	name  string
	value any
}

// members is an object of those that have a value.
func members(all ...member) audit.Object {
	m := map[string]any{}
	for _, f := range all {
		if v := reflect.ValueOf(f.value); v.IsValid() && !v.IsZero() {
			m[f.name] = f.value
		}
	}
	return audit.Of(m)
}

// definitions are tools as a model is told of them.
func definitions(tools []*schema.ToolInfo) (all []map[string]any) {
	for _, t := range tools {
		def := map[string]any{"name": t.Name, "description": t.Desc}
		if t.ParamsOneOf != nil {
			if s, err := t.ParamsOneOf.ToJSONSchema(); err == nil {
				def["parameters"] = s
			}
		}
		all = append(all, def)
	}
	return all
}

// text is what a tool was given or has given: JSON, or a text.
func text(s string) audit.Object {
	switch {
	case s == "":
		return audit.Object{}
	case json.Valid([]byte(s)):
		return audit.Raw([]byte(s))
	}
	return audit.Of(s)
}

// value is what a graph was given or has given.
func value(v any) audit.Object {
	switch v := v.(type) {
	case nil:
		return audit.Object{}
	case []*schema.Message:
		return members(member{"messages", v})
	}
	return audit.Of(v)
}

// together puts the pieces of a stream together as eino does: messages and texts
// become one, and of anything else there is the list.
func together(chunks []any) any {
	if len(chunks) == 0 {
		return nil
	}
	switch chunks[0].(type) {
	case *model.CallbackOutput:
		whole := &model.CallbackOutput{}
		var messages []*schema.Message
		for _, c := range of[*model.CallbackOutput](chunks) {
			if c.Message != nil {
				messages = append(messages, c.Message)
			}
			if c.TokenUsage != nil {
				whole.TokenUsage = c.TokenUsage
			}
		}
		if m, err := schema.ConcatMessages(messages); err == nil {
			whole.Message = m
		}
		return whole
	case *schema.Message:
		if m, err := schema.ConcatMessages(of[*schema.Message](chunks)); err == nil {
			return m
		}
	case *schema.ToolResult:
		if r, err := schema.ConcatToolResults(of[*schema.ToolResult](chunks)); err == nil {
			return r
		}
	case *tool.CallbackOutput:
		var s strings.Builder
		var results []*schema.ToolResult
		for _, c := range of[*tool.CallbackOutput](chunks) {
			s.WriteString(c.Response)
			if c.ToolOutput != nil {
				results = append(results, c.ToolOutput)
			}
		}
		whole := &tool.CallbackOutput{Response: s.String()}
		if r, err := schema.ConcatToolResults(results); err == nil && len(results) > 0 {
			whole.ToolOutput = r
		}
		return whole
	case string:
		return strings.Join(of[string](chunks), "")
	}
	if len(chunks) == 1 {
		return chunks[0]
	}
	return chunks
}

// of gives the pieces that have the type of the first.
func of[T any](chunks []any) (all []T) {
	for _, c := range chunks {
		if v, ok := c.(T); ok {
			all = append(all, v)
		}
	}
	return all
}
