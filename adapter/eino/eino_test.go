package eino_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/cloudwego/eino/callbacks"
	"github.com/cloudwego/eino/components"
	"github.com/cloudwego/eino/components/document"
	"github.com/cloudwego/eino/components/embedding"
	"github.com/cloudwego/eino/components/indexer"
	"github.com/cloudwego/eino/components/prompt"
	"github.com/cloudwego/eino/components/retriever"
	"github.com/cloudwego/eino/components/tool"
	"github.com/cloudwego/eino/components/tool/utils"
	"github.com/cloudwego/eino/compose"
	"github.com/cloudwego/eino/flow/agent"
	"github.com/cloudwego/eino/flow/agent/react"
	"github.com/cloudwego/eino/schema"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/adapter/eino"
	"github.com/kaizen-audit/kaizen-audit/hook"
)

type place struct {
	Location string `json:"location" jsonschema:"description=The city and state"`
}

func weather(_ context.Context, in place) (string, error) {
	if strings.HasPrefix(in.Location, "Seattle") {
		return "50 degrees and raining", nil
	}
	return "70 degrees and sunny", nil
}

func weatherTool(t *testing.T, f func(context.Context, place) (string, error)) tool.BaseTool {
	t.Helper()
	w, err := utils.InferTool("get_current_weather", "Get the current weather in a given location", f)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

const (
	toolCalls = "test_chat_completion_tool_calls_with_content/0"
	answer    = "test_chat_completion_tool_calls_with_content/1"
	streamed  = "test_chat_completion_multiple_tools_streaming_with_content/0"
	stream    = "test_chat_completion_streaming/0"
)

var question = []*schema.Message{schema.SystemMessage("You're a helpful assistant."), schema.UserMessage("What's the weather in Seattle and San Francisco today?")}

// A ReAct agent, its model answering as was recorded. Streams give the same
// entries but for what differs in the recordings.
func TestAReActAgent(t *testing.T) {
	for _, middleware := range []bool{false, true} {
		r := record(t)
		config := &react.AgentConfig{ToolCallingModel: openAI(t, toolCalls, answer), ToolsConfig: compose.ToolsNodeConfig{Tools: []tool.BaseTool{weatherTool(t, weather)}}}
		if middleware {
			config.ToolsConfig.ToolCallMiddlewares = []compose.ToolMiddleware{eino.ToolMiddleware(r.hooks)}
		}
		a, err := react.NewAgent(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		ctx := hook.WithMetadata(t.Context(), map[string]any{"user_id": "user123"})
		h := eino.NewHandler(r.hooks, nil)
		out, err := a.Generate(ctx, question, agent.WithComposeOptions(compose.WithCallbacks(h)))
		if err != nil || !strings.Contains(out.Content, "Seattle") {
			t.Fatal(out, err)
		}
		h.Wait()
		if middleware { // the same, but for what only callbacks know
			if got := brief(r.entries(t)); got != wantReact {
				t.Errorf("with ToolMiddleware:\n%s", got)
			}
			continue
		}
		golden(t, "react.golden", r.entries(t))
	}
}

const wantReact = `AGENT_LOOP_START agent_execution_start
  LLM_CALL llm_call:gpt-4o-mini
  TOOL_USE tool_use:get_current_weather
  TOOL_USE tool_use:get_current_weather
  LLM_CALL llm_call:gpt-4o-mini
AGENT_LOOP_END agent_execution_end
`

func TestAStreamingReActAgent(t *testing.T) {
	r := record(t)
	a, err := react.NewAgent(t.Context(), &react.AgentConfig{ToolCallingModel: openAI(t, streamed, stream), ToolsConfig: compose.ToolsNodeConfig{Tools: []tool.BaseTool{weatherTool(t, weather)}}})
	if err != nil {
		t.Fatal(err)
	}
	h := eino.NewHandler(r.hooks, nil)
	out, err := a.Stream(t.Context(), question, agent.WithComposeOptions(compose.WithCallbacks(h)))
	if err != nil {
		t.Fatal(err)
	}
	whole, err := schema.ConcatMessageStream(out)
	if err != nil {
		t.Fatal(err)
	}
	h.Wait()
	entries := r.entries(t)
	if len(entries) != 6 {
		t.Fatalf("%s", brief(entries))
	}
	calls := 0
	for _, e := range entries {
		var out struct {
			Message schema.Message `json:"message"`
			Content string         `json:"content"`
		}
		if err := e.Outputs.Decode(&out); err != nil && e.EventType != audit.ToolUse {
			t.Fatal(err)
		}
		switch e.EventType {
		case audit.LLMCall:
			calls++
			var meta struct {
				GenAI struct {
					Stream bool  `json:"stream"`
					Input  int64 `json:"input_tokens"`
				} `json:"gen_ai"`
			}
			if err := e.Metadata.Decode(&meta); err != nil || !meta.GenAI.Stream {
				t.Errorf("%v: %s", err, e.Line())
			}
			if len(out.Message.ToolCalls) == 2 {
				if out.Message.ToolCalls[0].Function.Arguments != `{"location": "Seattle, WA"}` || meta.GenAI.Input != 75 {
					t.Errorf("%s", e.Line())
				}
			} else if out.Message.Content != whole.Content {
				t.Errorf("%s", e.Line())
			}
		case audit.AgentLoopEnd:
			if out.Content != whole.Content || whole.Content == "" {
				t.Errorf("%s", e.Line())
			}
		}
		if e.Outcome != "" || !e.Success || e.TraceID != entries[0].TraceID || e.EventType != audit.AgentLoopStart && e.EventType != audit.AgentLoopEnd && e.ParentSpanID != entries[0].SpanID {
			t.Errorf("%s", e.Line())
		}
	}
	if calls != 2 {
		t.Errorf("%s", brief(entries))
	}
}

// shelf is a store of documents, embedded by their length.
type shelf struct{ docs []*schema.Document }

func (s *shelf) GetType() string { return "Shelf" }
func (s *shelf) Store(_ context.Context, docs []*schema.Document, _ ...indexer.Option) (ids []string, err error) {
	s.docs = append(s.docs, docs...)
	for _, d := range docs {
		ids = append(ids, d.ID)
	}
	return ids, nil
}

func (s *shelf) Retrieve(_ context.Context, query string, _ ...retriever.Option) (found []*schema.Document, err error) {
	for _, d := range s.docs {
		if strings.Contains(d.Content, query) {
			found = append(found, d)
		}
	}
	return found, nil
}

type lengths struct{}

func (lengths) EmbedStrings(_ context.Context, texts []string, _ ...embedding.Option) (all [][]float64, err error) {
	for _, t := range texts {
		all = append(all, []float64{float64(len(t))})
	}
	return all, nil
}

type file struct{}

func (file) Load(_ context.Context, src document.Source, _ ...document.LoaderOption) ([]*schema.Document, error) {
	if src.URI == "" {
		return nil, errors.New("there is no file")
	}
	return []*schema.Document{{ID: "1", Content: "Go was announced in November 2009."}}, nil
}

// Whatever a graph is made of: a graph in a graph, and every component that is
// recorded.
func TestGraphs(t *testing.T) {
	r := record(t)
	ctx := t.Context()
	s := &shelf{}
	load, err := compose.NewChain[document.Source, []string]().AppendLoader(file{}, compose.WithNodeName("file")).AppendIndexer(s).Compile(ctx, compose.WithGraphName("ingest"))
	if err != nil {
		t.Fatal(err)
	}
	ask := compose.NewChain[map[string]any, *schema.Message]().
		AppendChatTemplate(prompt.FromMessages(schema.FString, schema.UserMessage("{found}"))).
		AppendChatModel(openAI(t, "test_chat_completion_with_content/0"))
	find, err := compose.NewChain[string, *schema.Message]().
		AppendRetriever(s, compose.WithNodeName("library")).
		AppendLambda(compose.InvokableLambda(func(_ context.Context, docs []*schema.Document) (map[string]any, error) {
			return map[string]any{"found": docs[0].Content}, nil
		})).
		AppendGraph(ask, compose.WithNodeName("ask")).
		Compile(ctx, compose.WithGraphName("answer"))
	if err != nil {
		t.Fatal(err)
	}
	embed, err := compose.NewChain[[]string, [][]float64]().AppendEmbedding(lengths{}, compose.WithNodeName("lengths")).Compile(ctx)
	if err != nil {
		t.Fatal(err)
	}
	with := compose.WithCallbacks(eino.NewHandler(r.hooks, nil))
	_, err = r.hooks.Do(ctx, hook.AgentLoop, hook.Data{}, func(ctx context.Context) (any, error) {
		if _, err := load.Invoke(ctx, document.Source{URI: "go.txt"}, with); err != nil {
			return nil, err
		}
		_, err := embed.Invoke(ctx, []string{"a", "bc"}, with)
		return nil, err
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := find.Invoke(ctx, "November", with); err != nil {
		t.Fatal(err)
	}
	if _, err := load.Invoke(ctx, document.Source{}, with); err == nil {
		t.Error("a file without a name was loaded")
	}
	golden(t, "graphs.golden", r.entries(t))
}

// What fails is told as failed, what was broken off as cancelled, what waits for
// a person as interrupted.
func TestHowThingsEnd(t *testing.T) {
	r := record(t)
	h := eino.NewHandler(r.hooks, nil)
	with := agent.WithComposeOptions(compose.WithCallbacks(h))
	run := func(model string, f func(context.Context, place) (string, error)) error {
		a, err := react.NewAgent(t.Context(), &react.AgentConfig{ToolCallingModel: openAI(t, model), ToolsConfig: compose.ToolsNodeConfig{Tools: []tool.BaseTool{weatherTool(t, f)}, ExecuteSequentially: true}})
		if err != nil {
			t.Fatal(err)
		}
		_, err = a.Generate(t.Context(), question, with)
		return err
	}
	if err := run("test_chat_completion_404/0", weather); err == nil {
		t.Error("404 is no error")
	}
	if err := run(toolCalls, func(_ context.Context, in place) (string, error) {
		if strings.HasPrefix(in.Location, "Seattle") {
			return "", errors.New("no such place")
		}
		return "", context.DeadlineExceeded
	}); err == nil {
		t.Error("tools that fail are no error")
	}
	if err := run(toolCalls, func(ctx context.Context, _ place) (string, error) { return "", tool.Interrupt(ctx, "ask a person") }); err == nil {
		t.Error("an interrupt is no error")
	}
	h.Wait()
	want := `AGENT_LOOP_START agent_execution_start
  LLM_CALL llm_call:gpt-4o-mini failed
AGENT_LOOP_END agent_execution_end failed
AGENT_LOOP_START agent_execution_start
  LLM_CALL llm_call:gpt-4o-mini
  TOOL_USE tool_use:get_current_weather failed
  TOOL_USE tool_use:get_current_weather failed timeout
AGENT_LOOP_END agent_execution_end failed
AGENT_LOOP_START agent_execution_start
  LLM_CALL llm_call:gpt-4o-mini
  TOOL_USE tool_use:get_current_weather interrupted
  TOOL_USE tool_use:get_current_weather interrupted
AGENT_LOOP_END agent_execution_end interrupted
`
	if got := brief(r.entries(t)); got != want {
		t.Errorf("%s", got)
	}
}

// A tool that streams is recorded when its stream has ended, whoever records it;
// its reader has it as it comes.
func TestStreamingTools(t *testing.T) {
	for _, middleware := range []bool{false, true} {
		r := record(t)
		f, err := utils.InferStreamTool("count", "counts", func(ctx context.Context, _ struct{}) (*schema.StreamReader[string], error) {
			out, w := schema.Pipe[string](1)
			go func() {
				defer w.Close()
				for _, s := range []string{"one ", "two ", "three"} {
					if w.Send(s, nil) {
						return
					}
				}
			}()
			return out, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		config := &compose.ToolsNodeConfig{Tools: []tool.BaseTool{f}}
		if middleware {
			config.ToolCallMiddlewares = []compose.ToolMiddleware{eino.ToolMiddleware(r.hooks)}
		}
		node, err := compose.NewToolNode(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		chain, err := compose.NewChain[*schema.Message, []*schema.Message]().AppendToolsNode(node).Compile(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		h := eino.NewHandler(r.hooks, nil)
		call := schema.AssistantMessage("", []schema.ToolCall{{ID: "call_1", Function: schema.FunctionCall{Name: "count", Arguments: "{}"}}})
		out, err := chain.Stream(t.Context(), call, compose.WithCallbacks(h))
		if err != nil {
			t.Fatal(err)
		}
		pieces := 0
		for {
			if _, err := out.Recv(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			pieces++
		}
		if pieces != 3 {
			t.Errorf("%d pieces", pieces)
		}
		h.Wait()
		n := 0
		for _, e := range r.entries(t) {
			if e.EventType != audit.ToolUse {
				continue
			}
			if n++; e.Outputs.Text("value") != "one two three" || !e.Success || e.Metadata.Text("tool_call_id") != "call_1" {
				t.Errorf("%s", e.Line())
			}
		}
		if n != 1 {
			t.Errorf("middleware %v: %d entries of the tool", middleware, n)
		}
	}
}

// A graph that is given a stream: what it was is in its entry, in the only one
// that such an action has.
func TestAStreamIntoAGraph(t *testing.T) {
	r := record(t)
	inner := compose.NewChain[*schema.Message, string]().AppendLambda(compose.TransformableLambda(func(_ context.Context, in *schema.StreamReader[*schema.Message]) (*schema.StreamReader[string], error) {
		return schema.StreamReaderWithConvert(in, func(m *schema.Message) (string, error) { return strings.ToUpper(m.Content), nil }), nil
	}))
	chain, err := compose.NewChain[[]*schema.Message, string]().AppendChatModel(openAI(t, stream)).AppendGraph(inner, compose.WithNodeName("shout")).Compile(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	h := eino.NewHandler(r.hooks, nil)
	out, err := chain.Stream(t.Context(), question, compose.WithCallbacks(h))
	if err != nil {
		t.Fatal(err)
	}
	whole := ""
	for {
		s, err := out.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		whole += s
	}
	h.Wait()
	found := false
	for _, e := range r.entries(t) {
		if e.Action != "chain:shout" {
			continue
		}
		found = true
		if whole == "" || strings.ToUpper(e.Inputs.Text("content")) != whole || e.Outputs.Text("value") != whole {
			t.Errorf("%s", e.Line())
		}
	}
	if !found {
		t.Errorf("%s", brief(r.entries(t)))
	}
}

// Whoever reads no further ends a stream that ToolMiddleware watches.
func TestAStreamThatIsClosedEarlyIsCancelled(t *testing.T) {
	r := record(t)
	ended := make(chan struct{})
	endless := func(context.Context, *compose.ToolInput) (*compose.StreamToolOutput, error) {
		out, w := schema.Pipe[string](1)
		go func() {
			defer close(ended)
			for !w.Send("x", nil) {
			}
		}()
		return &compose.StreamToolOutput{Result: out}, nil
	}
	out, err := eino.ToolMiddleware(r.hooks).Streamable(endless)(t.Context(), &compose.ToolInput{Name: "endless", Arguments: "{}"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := out.Result.Recv(); err != nil {
		t.Fatal(err)
	}
	out.Result.Close()
	<-ended
	for deadline := time.Now().Add(5 * time.Second); len(r.entries(t)) == 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if got := brief(r.entries(t)); got != "TOOL_USE tool_use:endless failed cancelled\n" {
		t.Errorf("%s", got)
	}
}

// A hook that does not let a tool begin is obeyed: by ToolMiddleware always, by a
// handler as far as the component looks at its context.
func TestAToolThatMustNotBegin(t *testing.T) {
	for _, middleware := range []bool{false, true} {
		r := record(t)
		if err := r.hooks.Register(hook.PreToolUse, func(context.Context, *hook.Context) error { return hook.ErrFailClosed }, nil); err != nil {
			t.Fatal(err)
		}
		config := &react.AgentConfig{ToolCallingModel: openAI(t, toolCalls)}
		config.ToolsConfig.Tools = []tool.BaseTool{weatherTool(t, func(ctx context.Context, _ place) (string, error) {
			if middleware || context.Cause(ctx) == nil {
				t.Error("it ran")
			}
			return "", context.Cause(ctx)
		})}
		if middleware {
			config.ToolsConfig.ToolCallMiddlewares = []compose.ToolMiddleware{eino.ToolMiddleware(r.hooks)}
		}
		a, err := react.NewAgent(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		_, err = a.Generate(t.Context(), question, agent.WithComposeOptions(compose.WithCallbacks(eino.NewHandler(r.hooks, nil))))
		if !errors.Is(err, hook.ErrFailClosed) {
			t.Errorf("%v", err)
		}
		for _, e := range r.entries(t) {
			if e.EventType == audit.ToolUse && e.Success {
				t.Errorf("%s", e.Line())
			}
		}
	}
}

// What is skipped has no entry; what runs inside of it has.
func TestSkip(t *testing.T) {
	r := record(t)
	a, err := react.NewAgent(t.Context(), &react.AgentConfig{ToolCallingModel: openAI(t, toolCalls, answer), ToolsConfig: compose.ToolsNodeConfig{Tools: []tool.BaseTool{weatherTool(t, weather)}}})
	if err != nil {
		t.Fatal(err)
	}
	skip := func(_ context.Context, info *callbacks.RunInfo) bool {
		return info.Component == components.ComponentOfChatModel || info.Component == compose.ComponentOfGraph
	}
	if _, err := a.Generate(t.Context(), question, agent.WithComposeOptions(compose.WithCallbacks(eino.NewHandler(r.hooks, &eino.Options{Skip: skip})))); err != nil {
		t.Fatal(err)
	}
	if got := brief(r.entries(t)); got != strings.Repeat("TOOL_USE tool_use:get_current_weather\n", 2) {
		t.Errorf("%s", got)
	}
}
