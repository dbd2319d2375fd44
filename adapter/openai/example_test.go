package openaiaudit_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	audit "github.com/kaizen-audit/kaizen-audit"
	openaiaudit "github.com/kaizen-audit/kaizen-audit/adapter/openai"
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

	// In place of api.openai.com.
	model := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, `data: {"model":"gpt-5-mini-2025-08-07","choices":[{"index":0,"delta":{"role":"assistant","content":"It is "}}]}`+"\n\n"+
			`data: {"choices":[{"index":0,"delta":{"content":"4."},"finish_reason":"stop"}]}`+"\n\ndata: [DONE]\n\n")
	}))
	defer model.Close()

	client := openai.NewClient(openaiaudit.Record(hooks), option.WithBaseURL(model.URL), option.WithAPIKey("a key that is not recorded"))
	ctx := hook.WithMetadata(context.Background(), map[string]any{"user_id": "user123"})
	stream := client.Chat.Completions.NewStreaming(ctx, openai.ChatCompletionNewParams{
		Model: "gpt-5-mini", Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("2+2?")},
	})
	for stream.Next() {
	}
	if err := stream.Err(); err != nil {
		log.Fatal(err)
	}
	if err := recorder.Close(); err != nil {
		log.Fatal(err)
	}
	for e, err := range trail.Query(ctx, audit.Query{User: "user123"}) {
		if err != nil {
			log.Fatal(err)
		}
		choices, _ := e.Outputs.Get("choices")
		fmt.Println(e.EventType, e.Action, e.Success, string(choices.JSON()))
	}
	// Output: LLM_CALL llm_call:gpt-5-mini true [{"finish_reason":"stop","index":0,"message":{"content":"It is 4.","role":"assistant"}}]
}
