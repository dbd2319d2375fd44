package mcpaudit_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	audit "github.com/kaizen-audit/kaizen-audit"
	mcpaudit "github.com/kaizen-audit/kaizen-audit/adapter/mcp"
	"github.com/kaizen-audit/kaizen-audit/hook"
)

// recording is hooks that record in a trail, and that trail.
func recording(agent, dir string) (*hook.Manager, *hook.AuditTrailHook, *audit.Trail) {
	trail, err := audit.Open(filepath.Join(dir, agent+".jsonl"), &audit.Options{StateDir: filepath.Join(dir, "state")})
	if err != nil {
		log.Fatal(err)
	}
	recorder, err := hook.NewAuditTrailHook(trail, nil)
	if err != nil {
		log.Fatal(err)
	}
	hooks := &hook.Manager{AgentID: agent}
	if err := hooks.RegisterHook(recorder, nil); err != nil {
		log.Fatal(err)
	}
	return hooks, recorder, trail
}

// printTools prints the tools that were used, according to a trail.
func printTools(recorder *hook.AuditTrailHook, trail *audit.Trail) {
	if err := recorder.Close(); err != nil {
		log.Fatal(err)
	}
	defer trail.Close()
	for e, err := range trail.Query(context.Background(), audit.Query{EventTypes: []string{audit.ToolUse}}) {
		if err != nil {
			log.Fatal(err)
		}
		result, _ := e.Outputs.Get("structuredContent")
		in, _ := e.Inputs.AppendJSON(nil)
		fmt.Println(e.AgentID, e.Action, string(in), string(result.JSON()))
	}
}

func ExampleNewClient() {
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	hooks, recorder, trail := recording("agent", dir)

	client := mcpaudit.NewClient(hooks, &mcp.Implementation{Name: "agent", Version: "1"}, nil)

	ctx := context.Background()
	here, there := mcp.NewInMemoryTransports()
	if _, err := calculator().Connect(ctx, there, nil); err != nil {
		log.Fatal(err)
	}
	session, err := client.Connect(ctx, here, nil)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := session.CallTool(ctx, &mcp.CallToolParams{Name: "add", Arguments: map[string]any{"a": 2, "b": 2}}); err != nil {
		log.Fatal(err)
	}
	if err := session.Close(); err != nil {
		log.Fatal(err)
	}
	printTools(recorder, trail)
	// Output: agent tool_use:add {"a":2,"b":2} {"sum":4}
}

func ExampleRecordServer() {
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	hooks, recorder, trail := recording("calculator", dir)

	server := calculator()
	mcpaudit.RecordServer(hooks, server)

	ctx := context.Background()
	here, there := mcp.NewInMemoryTransports()
	if _, err := server.Connect(ctx, there, nil); err != nil {
		log.Fatal(err)
	}
	session, err := mcp.NewClient(&mcp.Implementation{Name: "agent"}, nil).Connect(ctx, here, nil)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := session.CallTool(ctx, &mcp.CallToolParams{Name: "add", Arguments: map[string]any{"a": 2, "b": 2}}); err != nil {
		log.Fatal(err)
	}
	if err := session.Close(); err != nil {
		log.Fatal(err)
	}
	printTools(recorder, trail)
	// Output: calculator tool_use:add {"a":2,"b":2} {"sum":4}
}

// calculator is a server that can add.
func calculator() *mcp.Server {
	type numbers struct {
		A int `json:"a"`
		B int `json:"b"`
	}
	s := mcp.NewServer(&mcp.Implementation{Name: "calculator", Version: "1"}, nil)
	mcp.AddTool(s, &mcp.Tool{Name: "add"}, func(_ context.Context, _ *mcp.CallToolRequest, in numbers) (*mcp.CallToolResult, map[string]int, error) {
		return nil, map[string]int{"sum": in.A + in.B}, nil
	})
	return s
}
