package mcpaudit_test

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	mcpaudit "github.com/kaizen-audit/kaizen-audit/adapter/mcp"
	"github.com/kaizen-audit/kaizen-audit/internal/canary"
)

// What must not enter a trail is in no file of it, on neither side of a session.
func TestNothingLeaks(t *testing.T) {
	client, server := newSide(t, "client", nil), newSide(t, "server", nil)
	s := mcp.NewServer(&mcp.Implementation{Name: "desk", Version: "1"}, nil)
	mcp.AddTool(s, &mcp.Tool{Name: "pay"}, func(_ context.Context, _ *mcp.CallToolRequest, in map[string]any) (*mcp.CallToolResult, any, error) {
		return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: canary.Text()}}}, in, nil
	})
	mcp.AddTool(s, &mcp.Tool{Name: "fail"}, func(context.Context, *mcp.CallToolRequest, map[string]any) (*mcp.CallToolResult, any, error) {
		return nil, nil, errors.New(canary.Text())
	})
	s.AddResource(&mcp.Resource{Name: "note", URI: "file:///note.txt"}, func(_ context.Context, req *mcp.ReadResourceRequest) (*mcp.ReadResourceResult, error) {
		return &mcp.ReadResourceResult{Contents: []*mcp.ResourceContents{{URI: req.Params.URI, Text: canary.Text()}}}, nil
	})
	mcpaudit.RecordServer(server.hooks, s)
	ct, st := mcp.NewInMemoryTransports()
	if _, err := s.Connect(t.Context(), st, nil); err != nil {
		t.Fatal(err)
	}
	cs, err := mcpaudit.NewClient(client.hooks, &mcp.Implementation{Name: "agent", Version: "1"}, nil).Connect(t.Context(), ct, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer cs.Close()
	for _, tool := range []string{"pay", "fail"} {
		if _, err := cs.CallTool(t.Context(), &mcp.CallToolParams{Name: tool, Arguments: canary.Object()}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := cs.ReadResource(t.Context(), &mcp.ReadResourceParams{URI: "file:///note.txt"}); err != nil {
		t.Fatal(err)
	}
	for _, side := range []*side{client, server} {
		masked := 0
		for _, e := range entries(t, side.path) {
			masked += min(1, bytes.Count(e.Line(), []byte("****")))
		}
		var s canary.Searched
		if s.Dir(t, side.hooks.AgentID, filepath.Dir(side.path)); masked < 3 || s.Files < 3 {
			t.Errorf("%s: %d masked entries, %d files were searched", side.hooks.AgentID, masked, s.Files)
		}
	}
}
