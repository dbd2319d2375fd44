package agent_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cloudwego/eino-ext/components/model/openai"
	"github.com/cloudwego/eino/components/tool"
	"github.com/cloudwego/eino/components/tool/utils"
	"github.com/cloudwego/eino/compose"
	"github.com/cloudwego/eino/schema"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/agent"
	"github.com/kaizen-audit/kaizen-audit/hook"
)

const (
	question = "What's the weather in Seattle and San Francisco today?"
	dialogue = "test_chat_completion_tool_calls_with_content"
)

var answering = agent.Signature{
	Instructions: "You're a helpful assistant.",
	Inputs:       []agent.Field{{Name: "question"}},
	Outputs:      []agent.Field{{Name: "answer"}},
}

type place struct {
	Location string `json:"location" jsonschema_description:"The city and state, e.g. Boston, MA"`
}

func weather(_ context.Context, in place) (string, error) {
	if strings.HasPrefix(in.Location, "Seattle") {
		return "50 degrees and raining", nil
	}
	return "70 degrees and sunny", nil
}

type sum struct {
	A         float64 `json:"a"`
	B         float64 `json:"b"`
	Operation string  `json:"operation" jsonschema:"enum=add,enum=subtract"`
}

func calculate(_ context.Context, in sum) (map[string]float64, error) {
	if in.Operation == "subtract" {
		in.B = -in.B
	}
	return map[string]float64{"result": in.A + in.B}, nil
}

func infer[In, Out any](t testing.TB, name, description string, f func(context.Context, In) (Out, error)) tool.BaseTool {
	t.Helper()
	made, err := utils.InferTool(name, description, f)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func tools(t testing.TB) []tool.BaseTool {
	return []tool.BaseTool{
		infer(t, "get_current_weather", "Get the current weather in a given location", weather),
		infer(t, "calculator", "Add or subtract two numbers", calculate),
	}
}

// trailAt is where a test's trail is.
type trailAt struct{ path, state string }

func newTrail(t testing.TB) trailAt {
	dir := t.TempDir()
	return trailAt{filepath.Join(dir, "audit.jsonl"), filepath.Join(dir, "state")}
}

func (p trailAt) observability() agent.Observability {
	return agent.Observability{
		ServiceName: "my-agent", EnableAudit: true, AuditLogPath: p.path, TrailOptions: &audit.Options{StateDir: p.state},
		Recording: patient(),
	}
}

// patient waits for a disk that is busy with something else: entries are then in
// the order of what they tell.
func patient() *hook.AuditOptions { return &hook.AuditOptions{Timeout: time.Minute} }

func (p trailAt) entries(t testing.TB) []audit.Entry { return entries(t, p.path, p.state, "") }

// start makes an agent that is observed and closed when the test ends.
func start(t testing.TB, config agent.Config, signature agent.Signature, o agent.Observability) *agent.BaseAgent {
	t.Helper()
	a, err := agent.New(config, signature)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.EnableObservability(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

// An agent with two tools and a memory. The first question and its answers are
// recorded, the second's are composed (testdata/SOURCE.md).
func TestTwoToolsAndMemory(t *testing.T) {
	calls := recordings(t, dialogue)
	model := serve(t, append(calls, composed(t)...)...)
	p := newTrail(t)
	o := p.observability()
	o.Environment = "test"
	o.AuditMetadata = map[string]any{"ip_address": "192.0.2.1", "user_id": "nobody"}
	a := start(t, agent.Config{
		AgentID: "qa-agent-001", Model: "gpt-4o-mini", BaseURL: model.URL + "/v1", APIKey: "a-key", Version: "1",
		Tools: tools(t), Memory: agent.NewBufferMemory(10),
	}, answering, o)
	ctx := hook.WithMetadata(t.Context(), map[string]any{"user_id": "user123"})
	for _, ask := range []struct{ question, want string }{
		{question, "Today, the weather in Seattle is 50 degrees and raining, while in San Francisco, it's 70 degrees and sunny."},
		{"How much warmer is it in San Francisco?", "It is 20 degrees warmer in San Francisco."},
	} {
		out, err := a.Run(ctx, agent.Inputs{"question": ask.question, "session_id": "session456"})
		if err != nil || out["answer"] != ask.want {
			t.Fatal(out, err)
		}
	}
	if err := a.DeleteMemory(ctx, "session456"); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	for i, c := range calls {
		sameMessages(t, model.asked[i], c.RequestBody)
	}
	if said := string(model.asked[2]); !strings.Contains(said, question) || !strings.Contains(said, "70 degrees and sunny.") || strings.Contains(said, "call_") {
		t.Errorf("the second question came with %s", said)
	}
	golden(t, "agent.golden", p.entries(t))
	log, err := os.ReadFile(p.path)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"a-key", "a-cookie"} {
		if strings.Contains(string(log), secret) {
			t.Errorf("the trail has %q", secret)
		}
	}
}

// Anthropic's API, with the answers that Claude gave by way of Bedrock, which
// have the same form.
func TestAnthropic(t *testing.T) {
	calls := recordings(t, "test_invoke_model_with_content_tool_call[anthropic.claude]")
	model := serve(t, calls...)
	p := newTrail(t)
	a := start(t, agent.Config{
		AgentID: "qa-agent-001", LLMProvider: "anthropic", Model: "claude-3-5-sonnet", BaseURL: model.URL, APIKey: "a-key", Version: "1", Tools: tools(t)[:1],
	}, answering, p.observability())
	out, err := a.Run(t.Context(), agent.Inputs{"question": "What is the weather in Seattle and San Francisco today? Please expect one tool call for Seattle and one for San Francisco"})
	if err != nil || !strings.Contains(out["answer"].(string), "Seattle") {
		t.Fatal(out, err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if model.paths[0] != "/v1/messages" || model.headers[0].Get("X-Api-Key") != "a-key" {
		t.Errorf("%s %v", model.paths[0], model.headers[0])
	}
	golden(t, "anthropic.golden", p.entries(t))
}

// A hook of the user's on the same trail, before or after: everything is recorded
// once, with what was said to EnableObservability.
func TestAHookBesideIt(t *testing.T) {
	for _, first := range []bool{true, false} {
		t.Run(fmt.Sprintf("first %v", first), func(t *testing.T) {
			model := serve(t, recordings(t, dialogue)...)
			p := newTrail(t)
			manager, err := audit.NewAuditTrailManager(audit.ManagerOptions{AuditLogPath: p.path, Options: audit.Options{StateDir: p.state}})
			if err != nil {
				t.Fatal(err)
			}
			defer manager.Close()
			recorder, err := hook.NewAuditTrailHook(manager.Trail, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer recorder.Close()
			a, err := agent.New(agent.Config{AgentID: "a", Model: "gpt-4o-mini", BaseURL: model.URL + "/v1", Tools: tools(t)}, answering)
			if err != nil {
				t.Fatal(err)
			}
			register := func() {
				if err := a.HookManager().RegisterHook(recorder, nil); err != nil {
					t.Fatal(err)
				}
			}
			if first {
				register()
			}
			o := p.observability()
			o.AuditMetadata = map[string]any{"user_id": "user123"}
			if err := a.EnableObservability(o); err != nil {
				t.Fatal(err)
			}
			if !first {
				register()
			}
			if _, err := a.Run(t.Context(), agent.Inputs{"question": question}); err != nil {
				t.Fatal(err)
			}
			if err := a.Close(); err != nil {
				t.Fatal(err)
			}
			all := p.entries(t)
			if got := brief(all); got != wantDialogue {
				t.Errorf("%s", got)
			}
			for _, e := range all {
				if e.Metadata.Text("service_name") != "my-agent" || e.Metadata.Text("user_id") != "user123" {
					t.Errorf("%s", e.Line())
				}
			}
		})
	}
}

const wantDialogue = `a AGENT_LOOP_START agent_execution_start
  a LLM_CALL llm_call:gpt-4o-mini
  a TOOL_USE tool_use:get_current_weather
  a TOOL_USE tool_use:get_current_weather
  a LLM_CALL llm_call:gpt-4o-mini
a AGENT_LOOP_END agent_execution_end
`

// The environment says what the options do not.
func TestTheEnvironment(t *testing.T) {
	model := serve(t, recordings(t, "test_chat_completion_with_content")...)
	t.Setenv("KAIZEN_ENVIRONMENT", "staging")
	t.Setenv("OPENAI_BASE_URL", model.URL+"/v1")
	t.Setenv("OPENAI_API_KEY", "from-the-environment")
	p := newTrail(t)
	o := p.observability()
	o.ServiceName = ""
	a := start(t, agent.Config{AgentID: "a", Model: "gpt-4o-mini"}, answering, o)
	if _, err := a.Run(t.Context(), agent.Inputs{"question": "Say this is a test"}); err != nil {
		t.Fatal(err)
	}
	if model.headers[0].Get("Authorization") != "Bearer from-the-environment" {
		t.Error("another key was sent")
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	for _, e := range p.entries(t) {
		if e.Metadata.Text("environment") != "staging" || e.Metadata.Text("service_name") != "a" {
			t.Errorf("%s", e.Line())
		}
	}
}

// A run that fails is recorded as one: what it was given, and why.
func TestRunsThatFail(t *testing.T) {
	bad := infer(t, "get_current_weather", "d", func(context.Context, place) (string, error) { return "", errors.New("no such place") })
	two := agent.Signature{Inputs: []agent.Field{{Name: "question"}, {Name: "context", Default: "none"}}, Outputs: []agent.Field{{Name: "answer", Description: "the answer"}, {Name: "confidence"}}}
	calls := recordings(t, dialogue)
	for _, c := range []struct {
		name      string
		signature agent.Signature
		tools     []tool.BaseTool
		answers   []recording
		cycles    int
		inputs    agent.Inputs
		err, want string
	}{
		{name: "the provider's error", answers: recordings(t, "test_chat_completion_404"), err: "404", want: "  a LLM_CALL llm_call:m failed\n"},
		{name: "an input is missing", inputs: agent.Inputs{"other": 1}, err: "run a: input question: it is missing"},
		{name: "an input too many", inputs: agent.Inputs{"question": "?", "other": 1}, err: "run a: input other: the signature has no such input"},
		{name: "no JSON", cycles: 1, signature: two, answers: recordings(t, "test_chat_completion_with_content"), err: "run a: the model's answer is not what the signature wants: it is no JSON object", want: "  a LLM_CALL llm_call:m\n"},
		{name: "no end", tools: tools(t), answers: calls[:1], cycles: 1, err: "run a: there is no answer after 1 cycles", want: "  a LLM_CALL llm_call:m\n" + strings.Repeat("  a TOOL_USE tool_use:get_current_weather\n", 2)},
		{name: "a tool that fails", tools: []tool.BaseTool{bad}, answers: calls, want: "  a LLM_CALL llm_call:m\n" + strings.Repeat("  a TOOL_USE tool_use:get_current_weather failed\n", 2) + "  a LLM_CALL llm_call:m\n"},
		{name: "a tool that is not there", answers: calls, tools: tools(t)[1:], want: "  a LLM_CALL llm_call:m\n" + strings.Repeat("  a TOOL_USE tool_use:get_current_weather failed\n", 2) + "  a LLM_CALL llm_call:m\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.signature.Inputs == nil {
				c.signature = answering
			}
			if c.inputs == nil {
				c.inputs = agent.Inputs{"question": question}
			}
			model := serve(t, c.answers...)
			p := newTrail(t)
			a := start(t, agent.Config{AgentID: "a", Model: "m", BaseURL: model.URL, Tools: c.tools, MaxCycles: c.cycles}, c.signature, p.observability())
			out, err := a.Run(t.Context(), c.inputs)
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) || err != nil && strings.Contains(err.Error(), "NodeRunError") {
				t.Errorf("%v", err)
			}
			if errors.Is(err, agent.ErrAnswer) && out["answer"] != "This is a test." {
				t.Errorf("%v", out)
			}
			if err := a.Close(); err != nil {
				t.Fatal(err)
			}
			all := p.entries(t)
			end := "a AGENT_LOOP_END agent_execution_end"
			if c.err != "" {
				end += " failed"
			}
			if got := brief(all); got != "a AGENT_LOOP_START agent_execution_start\n"+c.want+end+"\n" {
				t.Errorf("%s", got)
			}
			for _, e := range all {
				if e.EventType == audit.ToolUse && !e.Success && !strings.Contains(string(model.asked[1]), "error: "+*e.Error) {
					t.Errorf("the model was not told of %q: %s", *e.Error, model.asked[1])
				}
			}
		})
	}
}

// What the signature wants of the model, and what is made of its answer.
func TestSeveralOutputs(t *testing.T) {
	body := `{"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"` + "```json\\n{\\\"answer\\\":\\\"four\\\",\\\"confidence\\\":0.9,\\\"more\\\":1}\\n```" + `"},"finish_reason":"stop"}]}`
	model := serve(t, recording{Status: 200, ResponseBody: body, Headers: map[string][]string{"Content-Type": {"application/json"}}})
	a, err := agent.New(agent.Config{Model: "m", BaseURL: model.URL}, agent.Signature{
		Instructions: "Count.",
		Inputs:       []agent.Field{{Name: "question"}, {Name: "context", Default: ""}},
		Outputs:      []agent.Field{{Name: "answer", Description: "in words"}, {Name: "confidence", Description: "from 0 to 1"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	out, err := a.Run(t.Context(), agent.Inputs{"question": "2+2?"})
	if err != nil || len(out) != 2 || out["answer"] != "four" || out["confidence"] != 0.9 {
		t.Errorf("%v %v", out, err)
	}
	sameMessages(t, model.asked[0], `{"messages":[{"role":"system","content":"Count.\n\nAnswer with a JSON object and nothing else. Its members:\n- \"answer\": in words\n- \"confidence\": from 0 to 1"},{"role":"user","content":"question: 2+2?\ncontext: "}]}`)
}

// With FailClosed nothing is done that can't be recorded.
func TestFailClosed(t *testing.T) {
	p := newTrail(t)
	model := serve(t, recordings(t, dialogue)...)
	o := p.observability()
	o.Recording.FailClosed = true
	ran := 0
	a := start(t, agent.Config{AgentID: "a", Model: "m", BaseURL: model.URL, Tools: []tool.BaseTool{
		infer(t, "get_current_weather", "d", func(context.Context, place) (string, error) { ran++; return "", nil }),
	}}, answering, o)
	refuse := func(_ context.Context, c *hook.Context) error { return fmt.Errorf("not today: %w", hook.ErrFailClosed) }
	if err := a.HookManager().Register(hook.PreToolUse, refuse, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Run(t.Context(), agent.Inputs{"question": question}); !errors.Is(err, hook.ErrFailClosed) || ran != 0 {
		t.Errorf("%d ran: %v", ran, err)
	}
	// A trail that can't be opened: then it does not begin at all.
	blocked := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := agent.New(agent.Config{Model: "m", BaseURL: model.URL}, answering)
	if err != nil {
		t.Fatal(err)
	}
	o.AuditLogPath = filepath.Join(blocked, "audit.jsonl")
	if err := b.EnableObservability(o); err == nil {
		t.Error("a trail below a file was opened")
	}
}

func TestWhatNewRefuses(t *testing.T) {
	t.Setenv("OPENAI_API_KEY", "")
	t.Setenv("OPENAI_BASE_URL", "")
	for want, c := range map[string]agent.Config{
		"option Model":       {APIKey: "k"},
		"set OPENAI_API_KEY": {Model: "m"},
		"option LLMProvider": {Model: "m", LLMProvider: "other", APIKey: "k"},
		"option AgentID":     {Model: "m", APIKey: "k", AgentID: "a b"},
		"option MaxCycles":   {Model: "m", APIKey: "k", MaxCycles: -1},
		"option MaxTokens":   {Model: "m", APIKey: "k", MaxTokens: -1},
		"there are two":      {Model: "m", APIKey: "k", Tools: append(tools(t), tools(t)...)},
	} {
		if _, err := agent.New(c, answering); err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "agent: ") {
			t.Errorf("%s: %v", want, err)
		}
	}
	for _, s := range []agent.Signature{{}, {Inputs: []agent.Field{{Name: "a"}}}, {Inputs: []agent.Field{{Name: "a"}, {Name: "a"}}, Outputs: []agent.Field{{Name: "b"}}}} {
		if _, err := agent.New(agent.Config{Model: "m", APIKey: "k"}, s); err == nil {
			t.Errorf("%+v", s)
		}
	}
	a := start(t, agent.Config{Model: "m", APIKey: "k"}, answering, newTrail(t).observability())
	if err := a.EnableObservability(agent.Observability{}); err == nil {
		t.Error("it was enabled twice")
	}
	if err := a.DeleteMemory(t.Context(), "s"); err == nil {
		t.Error("what is not there was forgotten")
	}
}

// What a memory keeps is the last turns of each session, whole.
func TestBufferMemory(t *testing.T) {
	m, ctx := agent.NewBufferMemory(2), t.Context()
	say := func(session string, n int) {
		if err := m.Save(ctx, session, schema.UserMessage(fmt.Sprint("q", n)), schema.AssistantMessage(fmt.Sprint("a", n), nil)); err != nil {
			t.Fatal(err)
		}
	}
	said := func(session string) (s string) {
		all, err := m.Load(ctx, session)
		if err != nil {
			t.Fatal(err)
		}
		for _, msg := range all {
			s += msg.Content + " "
			msg.Content = "changed"
		}
		return s
	}
	for n := range 3 {
		say("one", n)
	}
	say("two", 7)
	for range 2 {
		if got := said("one"); got != "q1 a1 q2 a2 " {
			t.Error(got)
		}
	}
	if err := m.Delete(ctx, "one"); err != nil || said("one") != "" || said("two") != "q7 a7 " {
		t.Error(err, said("one"), said("two"))
	}
}

// broken is a memory that fails.
type broken struct{ load, save error }

func (b broken) Load(context.Context, string) ([]*schema.Message, error) { return nil, b.load }
func (b broken) Save(context.Context, string, ...*schema.Message) error  { return b.save }
func (b broken) Delete(context.Context, string) error                    { return b.save }

// A memory that fails is told, and the answer is not lost to it.
func TestAMemoryThatFails(t *testing.T) {
	failed := errors.New("no space")
	p := newTrail(t)
	for _, m := range []broken{{load: failed}, {save: failed}} {
		model := serve(t, recordings(t, "test_chat_completion_with_content")...)
		a := start(t, agent.Config{AgentID: "a", Model: "m", BaseURL: model.URL, Memory: m}, answering, p.observability())
		out, err := a.Run(t.Context(), agent.Inputs{"question": "?", "session_id": "s"})
		if !errors.Is(err, failed) || (m.save != nil) != (out["answer"] == "This is a test.") {
			t.Errorf("%v %v", out, err)
		}
		if err := a.DeleteMemory(t.Context(), "s"); (err != nil) != (m.save != nil) {
			t.Error(err)
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
	}
	want := `a AGENT_LOOP_START agent_execution_start
  a MEMORY_LOAD memory_load failed
a AGENT_LOOP_END agent_execution_end failed
a MEMORY_DELETE memory_delete
a AGENT_LOOP_START agent_execution_start
  a MEMORY_LOAD memory_load
  a LLM_CALL llm_call:m
  a MEMORY_SAVE memory_save failed
a AGENT_LOOP_END agent_execution_end failed
a MEMORY_DELETE memory_delete failed
`
	if got := brief(p.entries(t)); got != want {
		t.Errorf("%s", got)
	}
}

// A model that the caller has made is recorded as eino sees it, and a model that a
// tool uses besides; the agent's own model on the wire; each once.
func TestModelsAreRecordedOnce(t *testing.T) {
	ctx := t.Context()
	p := newTrail(t)
	plain := func(file string) *openai.ChatModel {
		m, err := openai.NewChatModel(ctx, &openai.ChatModelConfig{BaseURL: serve(t, recordings(t, file)...).URL, APIKey: "k", Model: "gpt-4o-mini"})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	for _, own := range []bool{true, false} {
		inner, err := compose.NewChain[[]*schema.Message, *schema.Message]().AppendChatModel(plain("test_chat_completion_with_content")).Compile(ctx)
		if err != nil {
			t.Fatal(err)
		}
		asked := false
		config := agent.Config{AgentID: "a", Model: "gpt-4o-mini", Tools: []tool.BaseTool{infer(t, "get_current_weather", "d", func(ctx context.Context, in place) (string, error) {
			if strings.HasPrefix(in.Location, "San") {
				return "", nil
			}
			asked = true
			msg, err := inner.Invoke(ctx, []*schema.Message{schema.UserMessage("Say this is a test")})
			return msg.Content, err
		})}}
		if own {
			config.ChatModel = plain(dialogue)
		} else {
			config.BaseURL = serve(t, recordings(t, dialogue)...).URL
		}
		a := start(t, config, answering, p.observability())
		if _, err := a.Run(ctx, agent.Inputs{"question": question}); err != nil || !asked {
			t.Fatal(asked, err)
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
	}
	all := p.entries(t)
	counts := map[string]int{}
	for _, e := range all {
		counts[e.EventType]++
		if wire := e.Metadata.Text("server_address") != ""; e.EventType == audit.LLMCall && wire && !strings.Contains(string(e.Line()), `"choices"`) {
			t.Errorf("%s", e.Line())
		}
	}
	// Of each run: two calls of the agent's model and one of the tool's, which is
	// in a graph of its own.
	if counts[audit.LLMCall] != 6 || counts[audit.ToolUse] != 4 || counts["CHAIN_RUN"] != 2 || counts[audit.AgentLoopStart] != 2 {
		t.Errorf("%v\n%s", counts, brief(all))
	}
}
