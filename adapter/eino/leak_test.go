package eino_test

import (
	"bytes"
	"context"
	"encoding/json"
	"path/filepath"
	"testing"

	"github.com/cloudwego/eino/components/tool"
	"github.com/cloudwego/eino/components/tool/utils"
	"github.com/cloudwego/eino/compose"
	"github.com/cloudwego/eino/schema"

	"github.com/kaizen-audit/kaizen-audit/adapter/eino"
	"github.com/kaizen-audit/kaizen-audit/internal/canary"
)

// What must not enter a trail is in no file of it, though tools and retrievers take
// it and give it.
func TestNothingLeaks(t *testing.T) {
	r := record(t)
	object, err := json.Marshal(canary.Object())
	if err != nil {
		t.Fatal(err)
	}
	pay, err := utils.InferTool("pay", "Pays", func(_ context.Context, in map[string]any) (map[string]any, error) { return in, nil })
	if err != nil {
		t.Fatal(err)
	}
	node, err := compose.NewToolNode(t.Context(), &compose.ToolsNodeConfig{
		Tools: []tool.BaseTool{pay}, ToolCallMiddlewares: []compose.ToolMiddleware{eino.ToolMiddleware(r.hooks)},
	})
	if err != nil {
		t.Fatal(err)
	}
	call := schema.AssistantMessage(canary.Text(), []schema.ToolCall{{ID: "call_1", Function: schema.FunctionCall{Name: "pay", Arguments: string(object)}}})
	if _, err := node.Invoke(t.Context(), call); err != nil {
		t.Fatal(err)
	}
	library := &shelf{docs: []*schema.Document{{ID: "1", Content: canary.Text()}}}
	chain, err := compose.NewChain[string, []*schema.Document]().AppendRetriever(library, compose.WithNodeName("library")).Compile(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	handler := eino.NewHandler(r.hooks, nil)
	if _, err := chain.Invoke(t.Context(), canary.Text(), compose.WithCallbacks(handler)); err != nil {
		t.Fatal(err)
	}
	handler.Wait()
	masked := 0
	for _, e := range r.entries(t) {
		masked += min(1, bytes.Count(e.Line(), []byte("****")))
	}
	var s canary.Searched
	if s.Dir(t, "eino", filepath.Dir(r.trail.Path())); masked < 4 || s.Files < 3 {
		t.Errorf("%d masked entries, %d files were searched", masked, s.Files)
	}
}
