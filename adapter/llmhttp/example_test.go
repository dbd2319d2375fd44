package llmhttp_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/adapter/llmhttp"
	"github.com/kaizen-audit/kaizen-audit/hook"
)

func Example() {
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	model := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"model":"m-2025","choices":[{"message":{"content":"Four."},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":2}}`)
	}))
	defer model.Close()

	recorder, err := hook.OpenAuditTrailHook(filepath.Join(dir, "audit.jsonl"), &audit.Options{StateDir: filepath.Join(dir, "known")}, nil)
	if err != nil {
		log.Fatal(err)
	}
	hooks := &hook.Manager{AgentID: "qa-agent-001"}
	if err := hooks.RegisterHook(recorder, nil); err != nil {
		log.Fatal(err)
	}

	client := &http.Client{Transport: llmhttp.NewTransport(hooks, nil)}
	resp, err := client.Post(model.URL+"/v1/chat/completions", "application/json", strings.NewReader(`{"model":"m","messages":[{"role":"user","content":"2+2?"}]}`))
	if err != nil {
		log.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	if err := recorder.Close(); err != nil {
		log.Fatal(err)
	}

	trail, err := audit.Open(filepath.Join(dir, "audit.jsonl"), &audit.Options{ReadOnly: true, StateDir: filepath.Join(dir, "known")})
	if err != nil {
		log.Fatal(err)
	}
	defer trail.Close()
	for e, err := range trail.Query(context.Background(), audit.Query{Agent: "qa-agent-001"}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(e.EventType, e.Action, e.Success)
	}
	// Output: LLM_CALL llm_call:m true
}

func ExampleMiddleware() {
	hooks := &hook.Manager{}
	middleware := llmhttp.Middleware(hooks)
	// openai.NewClient(option.WithMiddleware(middleware))
	// anthropic.NewClient(option.WithMiddleware(middleware))
	req := httptest.NewRequest(http.MethodPost, "https://api.openai.com/v1/chat/completions", strings.NewReader(`{"model":"m"}`))
	resp, err := middleware(req, func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(`{}`))}, nil
	})
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	fmt.Println(resp.StatusCode)
	// Output: 200
}
