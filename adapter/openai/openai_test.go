package openaiaudit_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/packages/ssestream"
	"github.com/openai/openai-go/v3/responses"

	audit "github.com/kaizen-audit/kaizen-audit"
	openaiaudit "github.com/kaizen-audit/kaizen-audit/adapter/openai"
	"github.com/kaizen-audit/kaizen-audit/hook"
)

// agent is a trail, hooks that record in it and a client of a server.
type agent struct {
	path   string
	trail  *audit.Trail
	hooks  *hook.Manager
	client openai.Client
}

func newAgent(t *testing.T, handler http.HandlerFunc, opts ...option.RequestOption) *agent {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	a := &agent{path: filepath.Join(t.TempDir(), "audit.jsonl"), hooks: &hook.Manager{AgentID: "a"}}
	var err error
	if a.trail, err = audit.Open(a.path, &audit.Options{Durability: audit.Written, StateDir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	recorder, err := hook.NewAuditTrailHook(a.trail, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.hooks.RegisterHook(recorder, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(recorder.Close(), a.trail.Close()); err != nil {
			t.Error(err)
		}
		files := 0
		_ = filepath.WalkDir(filepath.Dir(a.path), func(name string, d os.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				b, _ := os.ReadFile(name)
				if files++; bytes.Contains(b, []byte("hidden7")) {
					t.Errorf("%s has a credential", name)
				}
			}
			return nil
		})
		if files < 3 {
			t.Errorf("%d files were looked at", files)
		}
	})
	a.client = openai.NewClient(append([]option.RequestOption{
		option.WithBaseURL(server.URL + "/v1/"), option.WithAPIKey("hidden7-key"), option.WithHeader("Cookie", "session=hidden7"), openaiaudit.Record(a.hooks),
	}, opts...)...)
	return a
}

func (a *agent) entries(t *testing.T) (all []audit.Entry) {
	t.Helper()
	for e, err := range a.trail.Query(t.Context(), audit.Query{EventTypes: []string{audit.LLMCall}}) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

func value(t *testing.T, v any) (out any) {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, string(b))
}

func parse(t *testing.T, text string) (out any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// at is what stands at a path of names and indices.
func at(v any, path ...any) any {
	for _, p := range path {
		switch p := p.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[p]
		case int:
			l, _ := v.([]any)
			if p >= len(l) {
				return nil
			}
			v = l[p]
		}
	}
	return v
}

// exchange is a line of llm-http.jsonl.gz.
type exchange struct {
	File            string              `json:"file"`
	URI             string              `json:"uri"`
	RequestBody     string              `json:"request_body"`
	Status          int                 `json:"status"`
	ResponseHeaders map[string][]string `json:"response_headers"`
	ResponseBody    json.RawMessage     `json:"response_body"`
}

func recorded(t *testing.T) (all []exchange) {
	t.Helper()
	f, err := os.Open("../../internal/capture/testdata/llm-http.jsonl.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for d := json.NewDecoder(z); d.More(); {
		var e exchange
		if err := d.Decode(&e); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(e.URI, "api.openai.com") {
			all = append(all, e)
		}
	}
	return all
}

// TestRecordedCalls: the SDK makes the 75 recorded calls again, of a server that
// answers what was recorded. Each is an entry with the whole request as the SDK sent
// it and the whole response. The SDK is the judge: a stream is what its own
// accumulator makes of it, and tokens, model and finish are what it has read.
func TestRecordedCalls(t *testing.T) {
	all := recorded(t)
	var now *exchange
	var sent []byte
	a := newAgent(t, func(w http.ResponseWriter, req *http.Request) {
		if !strings.HasSuffix(now.URI, req.URL.Path) {
			t.Errorf("%s, not %s", req.URL.Path, now.URI)
		}
		sent, _ = io.ReadAll(req.Body)
		for name, values := range now.ResponseHeaders {
			if name := http.CanonicalHeaderKey(name); name != "Content-Length" && name != "Transfer-Encoding" && name != "Content-Encoding" {
				w.Header()[name] = values
			}
		}
		w.Header().Add("Set-Cookie", "session=hidden7")
		w.WriteHeader(now.Status)
		var text string
		if err := json.Unmarshal(now.ResponseBody, &text); err != nil {
			t.Error(err)
		}
		fmt.Fprint(w, text)
	}, option.WithMaxRetries(0))
	streams := 0
	for i := range all {
		now = &all[i]
		answer, usage, model, err := replay(t.Context(), t, a.client, now)
		if (err != nil) != (now.Status >= 400) {
			t.Errorf("%s: %v", now.File, err)
			continue
		}
		entries := a.entries(t)
		if len(entries) != i+1 {
			t.Fatalf("%s: %d entries after %d calls", now.File, len(entries), i+1)
		}
		e := entries[i]
		if in := value(t, e.Inputs); !reflect.DeepEqual(in, parse(t, string(sent))) {
			t.Errorf("%s: inputs are not the request", now.File)
		}
		// What is not said to stream may be left out, or be false.
		want := parse(t, now.RequestBody).(map[string]any)
		got := value(t, e.Inputs).(map[string]any)
		for _, m := range []map[string]any{want, got} {
			if m["stream"] == false {
				delete(m, "stream")
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: inputs\n%v\nwant\n%v", now.File, got, want)
		}
		meta := value(t, e.Metadata)
		words := at(meta, "gen_ai")
		if e.Action != "llm_call:"+want["model"].(string) || at(words, "request_model") != want["model"] || at(meta, "http_status") != float64(now.Status) || e.Outcome != "" || e.Success != (now.Status < 400) {
			t.Errorf("%s: %.400s", now.File, e.Line())
		}
		streamed := want["stream"] == true
		if streamed {
			streams++
		}
		if (at(words, "stream") == true) != streamed {
			t.Errorf("%s: %v", now.File, words)
		}
		if now.Status >= 400 {
			if *e.Error != fmt.Sprint(now.Status, " ", http.StatusText(now.Status)) || at(value(t, e.Outputs), "error", "message") == nil {
				t.Errorf("%s: %s", now.File, e.Line())
			}
			continue
		}
		if at(words, "response_model") != model {
			t.Errorf("%s: %v, not %s", now.File, words, model)
		}
		if usage != nil && (at(words, "input_tokens") != float64(usage[0]) || usage[1] >= 0 && at(words, "output_tokens") != float64(usage[1])) {
			t.Errorf("%s: %v, not %v", now.File, words, usage)
		}
		if out := value(t, e.Outputs); !contains(out, answer) {
			t.Errorf("%s: outputs\n%v\nlack of\n%v", now.File, out, answer)
		}
	}
	if len(all) != 75 || streams != 22 {
		t.Errorf("%d calls, %d streams", len(all), streams)
	}
}

// contains tells whether all that want says is said by have. The SDK writes zero
// values for what it has not got.
func contains(have, want any) bool {
	switch want := want.(type) {
	case map[string]any:
		m, _ := have.(map[string]any)
		for name, v := range want {
			if !contains(m[name], v) {
				return false
			}
		}
		return true
	case []any:
		l, _ := have.([]any)
		for i, v := range want {
			if i >= len(l) && !zero(v) || i < len(l) && !contains(l[i], v) {
				return false
			}
		}
		return true
	case float64:
		// A float64 loses digits of an embedding that was sent in base64.
		got, ok := have.(float64)
		return want == 0 || ok && (got == want || abs(got-want) <= 1e-6*abs(want))
	}
	return reflect.DeepEqual(have, want) || zero(want)
}

func abs(f float64) float64 { return max(f, -f) }

func zero(v any) bool {
	switch v := v.(type) {
	case map[string]any:
		for _, v := range v {
			if !zero(v) {
				return false
			}
		}
		return true
	case []any:
		return len(v) == 0
	}
	return v == nil || v == "" || v == false || v == 0.0
}

// replay makes a recorded call with the SDK. It gives the answer as the SDK has it,
// how many tokens went in and came out (-1 if that is not said), and the model.
func replay(ctx context.Context, t *testing.T, client openai.Client, e *exchange) (answer any, usage []int64, model string, err error) {
	t.Helper()
	streamed := at(parse(t, e.RequestBody), "stream") == true
	read := func(params any) {
		if err := json.Unmarshal([]byte(e.RequestBody), params); err != nil {
			t.Fatal(err)
		}
	}
	// Its unions of responses lose what they do not know when they read JSON.
	body := option.WithRequestBody("application/json", []byte(e.RequestBody))
	chat := func(c *openai.ChatCompletion) (any, []int64, string, error) {
		var usage []int64
		if u := c.Usage; u.TotalTokens > 0 {
			usage = []int64{u.PromptTokens, u.CompletionTokens}
		}
		choices := []any{}
		for _, choice := range c.Choices {
			m := map[string]any{"index": choice.Index, "finish_reason": choice.FinishReason, "message": map[string]any{
				"role": choice.Message.Role, "content": choice.Message.Content, "refusal": choice.Message.Refusal,
			}}
			calls := []any{}
			for _, call := range choice.Message.ToolCalls {
				calls = append(calls, map[string]any{"id": call.ID, "type": call.Type, "function": map[string]any{"name": call.Function.Name, "arguments": call.Function.Arguments}})
			}
			if len(calls) > 0 {
				m["message"].(map[string]any)["tool_calls"] = calls
			}
			choices = append(choices, m)
		}
		return value(t, map[string]any{"id": c.ID, "model": c.Model, "choices": choices}), usage, c.Model, nil
	}
	response := func(r *responses.Response) (any, []int64, string, error) {
		return parse(t, r.RawJSON()), []int64{r.Usage.InputTokens, r.Usage.OutputTokens}, r.Model, nil
	}
	switch {
	case strings.HasSuffix(e.URI, "/embeddings"):
		var params openai.EmbeddingNewParams
		read(&params)
		r, err := client.Embeddings.New(ctx, params)
		if err != nil {
			return nil, nil, "", err
		}
		return parse(t, r.RawJSON()), []int64{r.Usage.PromptTokens, -1}, r.Model, nil
	case strings.HasSuffix(e.URI, "/responses") && streamed:
		stream := client.Responses.NewStreaming(ctx, responses.ResponseNewParams{}, body)
		var last responses.Response
		for stream.Next() {
			if ev := stream.Current(); ev.Type == "response.completed" {
				last = ev.Response
			}
		}
		if err := errors.Join(stream.Err(), stream.Close()); err != nil {
			return nil, nil, "", err
		}
		return response(&last)
	case strings.HasSuffix(e.URI, "/responses"):
		r, err := client.Responses.New(ctx, responses.ResponseNewParams{}, body)
		if err != nil {
			return nil, nil, "", err
		}
		return response(r)
	case streamed:
		var params openai.ChatCompletionNewParams
		read(&params)
		var all openai.ChatCompletionAccumulator
		stream := client.Chat.Completions.NewStreaming(ctx, params)
		for stream.Next() {
			all.AddChunk(stream.Current())
		}
		if err := errors.Join(stream.Err(), stream.Close()); err != nil {
			return nil, nil, "", err
		}
		return chat(&all.ChatCompletion)
	default:
		var params openai.ChatCompletionNewParams
		read(&params)
		c, err := client.Chat.Completions.New(ctx, params)
		if err != nil {
			return nil, nil, "", err
		}
		return chat(c)
	}
}

func ask(what string) openai.ChatCompletionNewParams {
	return openai.ChatCompletionNewParams{Model: "m", Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(what)}}
}

// Each attempt of the SDK is an entry of the same action, with what the provider
// said of it, and how often it had been tried before.
func TestRetries(t *testing.T) {
	var n atomic.Int64
	a := newAgent(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch n.Add(1) {
		case 1:
			w.Header().Set("Retry-After-Ms", "1")
			w.WriteHeader(http.StatusTooManyRequests)
			fmt.Fprint(w, `{"error":{"message":"slow down","type":"rate_limit_error","code":"rate_limit_exceeded"}}`)
		case 2:
			panic(http.ErrAbortHandler)
		default:
			fmt.Fprint(w, `{"id":"c","object":"chat.completion","model":"m-1","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":2,"completion_tokens":1,"total_tokens":3}}`)
		}
	})
	_, err := a.hooks.Do(t.Context(), hook.AgentLoop, hook.Data{}, func(ctx context.Context) (any, error) {
		c, err := a.client.Chat.Completions.New(ctx, ask("hello"))
		if err == nil && c.Choices[0].Message.Content != "Hi" {
			t.Errorf("%s", c.RawJSON())
		}
		return nil, err
	})
	if err != nil {
		t.Fatal(err)
	}
	entries := a.entries(t)
	if len(entries) != 3 {
		t.Fatalf("%d entries", len(entries))
	}
	for i, e := range entries {
		retry := at(value(t, e.Metadata), "retry")
		if e.TraceID != entries[0].TraceID || e.ParentSpanID == "" || e.ParentSpanID != entries[0].ParentSpanID || i == 0 && retry != nil || i > 0 && retry != float64(i) {
			t.Errorf("%s", e.Line())
		}
		if at(value(t, e.Inputs), "messages", 0, "content") != "hello" {
			t.Errorf("%s", e.Line())
		}
	}
	if e := entries[0]; e.Success || *e.Error != "429 Too Many Requests" || at(value(t, e.Outputs), "error", "message") != "slow down" {
		t.Errorf("%s", e.Line())
	}
	if e := entries[1]; e.Success || e.Error == nil || !e.Outputs.IsZero() && string(must(e.Outputs.AppendJSON(nil))) != "{}" {
		t.Errorf("%s", e.Line())
	}
	if e := entries[2]; !e.Success || at(value(t, e.Metadata), "gen_ai", "output_tokens") != 1.0 {
		t.Errorf("%s", e.Line())
	}
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

// What is wrong with a request is the entry's error, and the SDK's still.
func TestErrors(t *testing.T) {
	status := 0
	a := newAgent(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Request-Id", "req_1")
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"error":{"message":"no: %d","type":"invalid_request_error"}}`, status)
	}, option.WithMaxRetries(0))
	for i, s := range []int{400, 401, 403, 500} {
		status = s
		_, err := a.client.Chat.Completions.New(t.Context(), ask("hello"))
		if e, ok := errors.AsType[*openai.Error](err); !ok || e.StatusCode != s || e.Message != fmt.Sprint("no: ", s) {
			t.Errorf("%v", err)
		}
		e := a.entries(t)[i]
		meta := value(t, e.Metadata)
		if e.Success || *e.Error != fmt.Sprint(s, " ", http.StatusText(s)) || at(value(t, e.Outputs), "error", "message") != fmt.Sprint("no: ", s) || at(meta, "http_status") != float64(s) || at(meta, "request_id") != "req_1" {
			t.Errorf("%s", e.Line())
		}
	}
}

const chunk = `data: {"id":"c","object":"chat.completion.chunk","model":"m-1","choices":[{"index":0,"delta":%s,"finish_reason":%s}]}` + "\n\n"

// A refusal is an answer that says so, whole or in pieces.
func TestRefusals(t *testing.T) {
	a := newAgent(t, func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		switch {
		case strings.HasSuffix(req.URL.Path, "/responses"):
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"id":"r","object":"response","status":"completed","model":"m-1","output":[{"type":"message","role":"assistant","status":"completed","content":[{"type":"refusal","refusal":"I won't."}]}]}`)
		case bytes.Contains(body, []byte(`"stream":true`)):
			w.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprintf(w, chunk+chunk+chunk+"data: [DONE]\n\n", `{"role":"assistant","content":null,"refusal":"I "}`, "null", `{"refusal":"won't."}`, "null", `{}`, `"stop"`)
		default:
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"id":"c","object":"chat.completion","model":"m-1","choices":[{"index":0,"message":{"role":"assistant","content":null,"refusal":"I won't."},"finish_reason":"stop"}]}`)
		}
	})
	c, err := a.client.Chat.Completions.New(t.Context(), ask("how?"))
	if err != nil || c.Choices[0].Message.Refusal != "I won't." {
		t.Errorf("%v", err)
	}
	var all openai.ChatCompletionAccumulator
	stream := a.client.Chat.Completions.NewStreaming(t.Context(), ask("how?"))
	for stream.Next() {
		all.AddChunk(stream.Current())
	}
	if err := stream.Err(); err != nil || all.Choices[0].Message.Refusal != "I won't." {
		t.Errorf("%v, %q", err, all.Choices[0].Message.Refusal)
	}
	if _, err := a.client.Responses.New(t.Context(), responses.ResponseNewParams{Model: "m", Input: responses.ResponseNewParamsInputUnion{OfString: openai.String("how?")}}); err != nil {
		t.Error(err)
	}
	entries := a.entries(t)
	for i, path := range [][]any{{"choices", 0, "message", "refusal"}, {"choices", 0, "message", "refusal"}, {"output", 0, "content", 0, "refusal"}} {
		e := entries[i]
		if !e.Success || at(value(t, e.Outputs), path...) != "I won't." || at(value(t, e.Metadata), "gen_ai", "refused") != true {
			t.Errorf("%s", e.Line())
		}
	}
}

// Of a stream that does not come to its end, the entry has what came, and says how
// it ended: lost by the network, cancelled by the caller's context, or closed.
func TestStreamsThatEndEarly(t *testing.T) {
	gate := make(chan struct{})
	defer close(gate)
	a := newAgent(t, func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		w.Header().Set("Content-Type", "text/event-stream")
		if strings.HasSuffix(req.URL.Path, "/responses") {
			fmt.Fprint(w, `data: {"type":"response.created","sequence_number":0,"response":{"id":"r","object":"response","status":"in_progress","model":"m-1","output":[]}}`+"\n\n"+
				`data: {"type":"response.output_item.added","sequence_number":1,"output_index":0,"item":{"id":"i","type":"message","role":"assistant","status":"in_progress","content":[]}}`+"\n\n"+
				`data: {"type":"response.content_part.added","sequence_number":2,"output_index":0,"content_index":0,"item_id":"i","part":{"type":"output_text","text":""}}`+"\n\n"+
				`data: {"type":"response.output_text.delta","sequence_number":3,"output_index":0,"content_index":0,"item_id":"i","delta":"Once"}`+"\n\n")
		} else {
			fmt.Fprintf(w, chunk+chunk, `{"role":"assistant","content":"On"}`, "null", `{"content":"ce"}`, "null")
		}
		w.(http.Flusher).Flush()
		if bytes.Contains(body, []byte("lost")) {
			panic(http.ErrAbortHandler)
		}
		select {
		case <-gate:
		case <-req.Context().Done():
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	first := a.client.Chat.Completions.NewStreaming(t.Context(), ask("lost"))
	drain(first)
	if first.Err() == nil {
		t.Error("a stream that broke off ended well")
	}
	second := a.client.Chat.Completions.NewStreaming(ctx, ask("cancelled"))
	for n := 0; n < 2 && second.Next(); n++ {
	}
	cancel()
	drain(second)
	if !errors.Is(second.Err(), context.Canceled) {
		t.Errorf("%v", second.Err())
	}
	third := a.client.Chat.Completions.NewStreaming(t.Context(), ask("closed"))
	for n := 0; n < 2 && third.Next(); n++ {
	}
	if err := third.Close(); err != nil {
		t.Error(err)
	}
	fourth := a.client.Responses.NewStreaming(t.Context(), responses.ResponseNewParams{Model: "m", Input: responses.ResponseNewParamsInputUnion{OfString: openai.String("closed")}})
	for n := 0; n < 4 && fourth.Next(); n++ {
	}
	if err := fourth.Close(); err != nil {
		t.Error(err)
	}
	entries := a.entries(t)
	if len(entries) != 4 {
		t.Fatalf("%d entries", len(entries))
	}
	for i, outcome := range []string{"", "cancelled", "cancelled", "cancelled"} {
		e := entries[i]
		out := value(t, e.Outputs)
		text := at(out, "choices", 0, "message", "content")
		if i == 3 {
			text = at(out, "output", 0, "content", 0, "text")
		}
		if e.Success || e.Outcome != outcome || text != "Once" || at(value(t, e.Metadata), "gen_ai", "response_model") != "m-1" {
			t.Errorf("%s", e.Line())
		}
	}
}

func drain[T any](s *ssestream.Stream[T]) {
	for s.Next() {
	}
}

// An agent's tool call in a conversation of two turns: the tool's arguments are in
// the first call's entry, its result in the second's, and tool and calls are below
// the same run.
func TestAConversationWithATool(t *testing.T) {
	a := newAgent(t, func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		w.Header().Set("Content-Type", "text/event-stream")
		if bytes.Contains(body, []byte(`"role":"tool"`)) {
			fmt.Fprintf(w, chunk+"data: [DONE]\n\n", `{"role":"assistant","content":"It rains."}`, `"stop"`)
			return
		}
		fmt.Fprintf(w, chunk+chunk+chunk+"data: [DONE]\n\n", `{"role":"assistant","tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":"weather","arguments":""}}]}`, "null",
			`{"tool_calls":[{"index":0,"function":{"arguments":"{\"city\":\"Oslo\"}"}}]}`, "null", `{}`, `"tool_calls"`)
	})
	_, err := a.hooks.Do(t.Context(), hook.AgentLoop, hook.Data{}, func(ctx context.Context) (any, error) {
		params := ask("the weather in Oslo?")
		for range 2 {
			var all openai.ChatCompletionAccumulator
			stream := a.client.Chat.Completions.NewStreaming(ctx, params)
			for stream.Next() {
				all.AddChunk(stream.Current())
			}
			if err := stream.Err(); err != nil {
				return nil, err
			}
			said := all.Choices[0].Message
			params.Messages = append(params.Messages, said.ToParam())
			for _, call := range said.ToolCalls {
				out, err := a.hooks.Do(ctx, hook.ToolUse, hook.Data{Name: call.Function.Name, Inputs: audit.Raw([]byte(call.Function.Arguments))}, func(context.Context) (any, error) { return "rain", nil })
				if err != nil {
					return nil, err
				}
				params.Messages = append(params.Messages, openai.ToolMessage(out.(string), call.ID))
			}
		}
		return nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	entries := a.entries(t)
	if len(entries) != 2 || entries[0].ParentSpanID != entries[1].ParentSpanID {
		t.Fatalf("%d entries", len(entries))
	}
	call := at(value(t, entries[0].Outputs), "choices", 0, "message", "tool_calls", 0)
	if at(call, "function", "name") != "weather" || at(call, "function", "arguments") != `{"city":"Oslo"}` || at(call, "id") != "call_1" {
		t.Errorf("%s", entries[0].Line())
	}
	if in := value(t, entries[1].Inputs); at(in, "messages", 2, "content") != "rain" || at(in, "messages", 2, "tool_call_id") != "call_1" {
		t.Errorf("%s", entries[1].Line())
	}
}

// With FailClosed the SDK's call fails when it can't be recorded, and is not tried
// again as if the network had failed.
func TestFailClosed(t *testing.T) {
	var asked atomic.Int64
	a := newAgent(t, func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		fmt.Fprint(w, `{}`)
	})
	if err := a.hooks.Register(hook.PreLLMCall, func(context.Context, *hook.Context) error { return hook.ErrFailClosed }, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := a.client.Chat.Completions.New(t.Context(), ask("hello"), option.WithMaxRetries(0)); !errors.Is(err, hook.ErrFailClosed) {
		t.Errorf("%v", err)
	}
	if asked.Load() != 0 {
		t.Errorf("the model was asked %d times", asked.Load())
	}
}
