package eino_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/cloudwego/eino/components/tool"
	"github.com/cloudwego/eino/components/tool/utils"
	"github.com/cloudwego/eino/compose"
	"github.com/cloudwego/eino/schema"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/adapter/eino"
	"github.com/kaizen-audit/kaizen-audit/hook"
)

// inTrail runs f with hooks that record in a trail of its own, and prints the
// entries.
func inTrail(f func(context.Context, *hook.Manager)) {
	dir, err := os.MkdirTemp("", "eino")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	trail, err := audit.Open(filepath.Join(dir, "audit.jsonl"), &audit.Options{StateDir: filepath.Join(dir, "state")})
	if err != nil {
		log.Fatal(err)
	}
	defer trail.Close()
	recorder, err := hook.NewAuditTrailHook(trail, nil)
	if err != nil {
		log.Fatal(err)
	}
	hooks := &hook.Manager{AgentID: "qa-agent-001"}
	if err := hooks.RegisterHook(recorder, nil); err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	f(ctx, hooks)
	if err := recorder.Close(); err != nil {
		log.Fatal(err)
	}
	for e, err := range trail.Query(ctx, audit.Query{Agent: "qa-agent-001"}) {
		if err != nil {
			log.Fatal(err)
		}
		inputs, _ := e.Inputs.AppendJSON(nil)
		outputs, _ := e.Outputs.AppendJSON(nil)
		fmt.Printf("%s %s %s %s\n", e.EventType, e.Action, inputs, outputs)
	}
}

func half(_ context.Context, in struct {
	N float64 `json:"n"`
}) (float64, error) {
	return in.N / 2, nil
}

// A chain with a retriever.
func Example() {
	inTrail(func(ctx context.Context, hooks *hook.Manager) {
		library := &shelf{docs: []*schema.Document{{ID: "1", Content: "Go was announced in November 2009."}}}
		chain, err := compose.NewChain[string, []*schema.Document]().AppendRetriever(library, compose.WithNodeName("library")).Compile(ctx)
		if err != nil {
			log.Fatal(err)
		}
		handler := eino.NewHandler(hooks, nil)
		if _, err := chain.Invoke(ctx, "November", compose.WithCallbacks(handler)); err != nil {
			log.Fatal(err)
		}
		handler.Wait()
	})
	// Output:
	// AGENT_LOOP_START agent_execution_start {"value":"November"} {}
	// DATA_ACCESS retriever:library {"query":"November"} {"documents":[{"id":"1","content":"Go was announced in November 2009.","meta_data":null}]}
	// AGENT_LOOP_END agent_execution_end {} {"value":[{"id":"1","content":"Go was announced in November 2009.","meta_data":null}]}
}

// A tool that does not run when that can't be recorded.
func ExampleToolMiddleware() {
	inTrail(func(ctx context.Context, hooks *hook.Manager) {
		t, err := utils.InferTool("half", "Half of a number", half)
		if err != nil {
			log.Fatal(err)
		}
		node, err := compose.NewToolNode(ctx, &compose.ToolsNodeConfig{
			Tools:               []tool.BaseTool{t},
			ToolCallMiddlewares: []compose.ToolMiddleware{eino.ToolMiddleware(hooks)},
		})
		if err != nil {
			log.Fatal(err)
		}
		call := schema.AssistantMessage("", []schema.ToolCall{{ID: "call_1", Function: schema.FunctionCall{Name: "half", Arguments: `{"n":84}`}}})
		if _, err := node.Invoke(ctx, call); err != nil {
			log.Fatal(err)
		}
	})
	// Output:
	// TOOL_USE tool_use:half {"n":84} {"value":42}
}
