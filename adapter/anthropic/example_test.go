package anthropicaudit_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"

	"github.com/anthropics/anthropic-sdk-go"
	"github.com/anthropics/anthropic-sdk-go/option"

	audit "github.com/kaizen-audit/kaizen-audit"
	anthropicaudit "github.com/kaizen-audit/kaizen-audit/adapter/anthropic"
	"github.com/kaizen-audit/kaizen-audit/hook"
)

func ExampleRecord() {
	dir, err := os.MkdirTemp("", "example-")
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

	// In place of api.anthropic.com.
	model := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"id":"msg_1","type":"message","role":"assistant","model":"claude-haiku-4-5","content":[{"type":"text","text":"It is 4."}],"stop_reason":"end_turn","usage":{"input_tokens":9,"output_tokens":6}}`)
	}))
	defer model.Close()

	client := anthropic.NewClient(anthropicaudit.Record(hooks), option.WithBaseURL(model.URL), option.WithAPIKey("a key that is not recorded"))
	ctx := hook.WithMetadata(context.Background(), map[string]any{"user_id": "user123"})
	if _, err := client.Messages.New(ctx, anthropic.MessageNewParams{
		Model: anthropic.ModelClaudeHaiku4_5, MaxTokens: 100, Messages: []anthropic.MessageParam{anthropic.NewUserMessage(anthropic.NewTextBlock("2+2?"))},
	}); err != nil {
		log.Fatal(err)
	}
	if err := recorder.Close(); err != nil {
		log.Fatal(err)
	}
	for e, err := range trail.Query(ctx, audit.Query{User: "user123"}) {
		if err != nil {
			log.Fatal(err)
		}
		content, _ := e.Outputs.Get("content")
		fmt.Println(e.EventType, e.Action, e.Success, string(content.JSON()))
	}
	// Output: LLM_CALL llm_call:claude-haiku-4-5 true [{"type":"text","text":"It is 4."}]
}
