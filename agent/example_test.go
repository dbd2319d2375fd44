package agent_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"

	"github.com/cloudwego/eino/components/tool"
	"github.com/cloudwego/eino/components/tool/utils"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/agent"
	"github.com/kaizen-audit/kaizen-audit/hook"
)

// provider answers the first question with a call of a tool.
func provider() *httptest.Server {
	answers := []string{
		`{"role":"assistant","tool_calls":[{"id":"call_1","type":"function","function":{"name":"calculator","arguments":"{\"expression\":\"6*7\"}"}}]},"finish_reason":"tool_calls"`,
		`{"role":"assistant","content":"42"},"finish_reason":"stop"`,
	}
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"model":"m","choices":[{"index":0,"message":%s}]}`, answers[0])
		answers = answers[1:]
	}))
}

// An agent with a tool and a memory.
func Example() {
	dir, err := os.MkdirTemp("", "agent")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	server := provider()
	defer server.Close()

	calculator, err := utils.InferTool("calculator", "Works out an expression", func(_ context.Context, in struct {
		Expression string `json:"expression"`
	}) (map[string]any, error) {
		return map[string]any{"result": 42}, nil
	})
	if err != nil {
		log.Fatal(err)
	}
	qa, err := agent.New(agent.Config{
		AgentID: "qa-agent-001", Model: "m", BaseURL: server.URL,
		Tools: []tool.BaseTool{calculator}, Memory: agent.NewBufferMemory(10),
	}, agent.Signature{
		Instructions: "Answer the question.",
		Inputs:       []agent.Field{{Name: "question"}},
		Outputs:      []agent.Field{{Name: "answer"}},
	})
	if err != nil {
		log.Fatal(err)
	}
	path, options := filepath.Join(dir, "audit.jsonl"), &audit.Options{StateDir: filepath.Join(dir, "state")}
	if err := qa.EnableObservability(agent.Observability{ServiceName: "my-agent", EnableAudit: true, AuditLogPath: path, TrailOptions: options}); err != nil {
		log.Fatal(err)
	}

	ctx := hook.WithMetadata(context.Background(), map[string]any{"user_id": "user123"})
	result, err := qa.Run(ctx, agent.Inputs{"question": "6*7?", "session_id": "session456"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(result["answer"])
	if err := qa.DeleteMemory(ctx, "session456"); err != nil {
		log.Fatal(err)
	}
	if err := qa.Close(); err != nil {
		log.Fatal(err)
	}

	trail, err := audit.Open(path, options)
	if err != nil {
		log.Fatal(err)
	}
	defer trail.Close()
	for e, err := range trail.Query(ctx, audit.Query{User: "user123"}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(e.AgentID, e.EventType, e.Action, e.Metadata.Text("service_name"))
	}
	// Output:
	// 42
	// qa-agent-001 AGENT_LOOP_START agent_execution_start my-agent
	// qa-agent-001 MEMORY_LOAD memory_load my-agent
	// qa-agent-001 LLM_CALL llm_call:m my-agent
	// qa-agent-001 TOOL_USE tool_use:calculator my-agent
	// qa-agent-001 LLM_CALL llm_call:m my-agent
	// qa-agent-001 MEMORY_SAVE memory_save my-agent
	// qa-agent-001 AGENT_LOOP_END agent_execution_end my-agent
	// qa-agent-001 MEMORY_DELETE memory_delete my-agent
}

// Other hooks hear of the same.
func ExampleBaseAgent_HookManager() {
	server := provider()
	defer server.Close()
	qa, err := agent.New(agent.Config{Model: "m", BaseURL: server.URL}, agent.Signature{Inputs: []agent.Field{{Name: "question"}}, Outputs: []agent.Field{{Name: "answer"}}})
	if err != nil {
		log.Fatal(err)
	}
	say := func(_ context.Context, c *hook.Context) error {
		fmt.Println(c.Event, c.Name)
		return nil
	}
	for _, e := range []hook.Event{hook.PreLLMCall, hook.PostToolUse} {
		if err := qa.HookManager().Register(e, say, nil); err != nil {
			log.Fatal(err)
		}
	}
	if _, err := qa.Run(context.Background(), agent.Inputs{"question": "6*7?"}); err != nil {
		log.Fatal(err)
	}
	// Output:
	// pre_llm_call m
	// post_tool_use calculator
	// pre_llm_call m
}
