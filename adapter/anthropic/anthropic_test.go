package anthropicaudit_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
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

	"github.com/anthropics/anthropic-sdk-go"
	"github.com/anthropics/anthropic-sdk-go/option"

	audit "github.com/kaizen-audit/kaizen-audit"
	anthropicaudit "github.com/kaizen-audit/kaizen-audit/adapter/anthropic"
	"github.com/kaizen-audit/kaizen-audit/hook"
)

// agent is a trail, hooks that record in it and a client of a server.
type agent struct {
	path   string
	trail  *audit.Trail
	hooks  *hook.Manager
	client anthropic.Client
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
	a.client = anthropic.NewClient(append([]option.RequestOption{
		option.WithBaseURL(server.URL), option.WithAPIKey("hidden7-key"), option.WithHeader("Cookie", "session=hidden7"), option.WithHeader("X-Goog-Api-Key", "hidden7"), anthropicaudit.Record(a.hooks),
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
	File         string          `json:"file"`
	URI          string          `json:"uri"`
	RequestBody  string          `json:"request_body"`
	ResponseBody json.RawMessage `json:"response_body"`
}

func unpack(t *testing.T, name string) *gzip.Reader {
	t.Helper()
	f, err := os.Open("../../internal/capture/testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

// call is a recorded call of one of Anthropic's models: request, and answer or the
// events of its stream.
type call struct {
	name, request, answer string
	events                []string
}

// recorded are the calls that were made through Amazon Bedrock's InvokeModel, which
// hands Anthropic's own messages through, and a long stream with the execution of
// code.
func recorded(t *testing.T) (all []call) {
	t.Helper()
	for d := json.NewDecoder(unpack(t, "llm-http.jsonl.gz")); d.More(); {
		var e exchange
		if err := d.Decode(&e); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(e.URI, "anthropic.claude") || !strings.Contains(e.URI, "/invoke") {
			continue
		}
		c := call{name: e.File, request: e.RequestBody}
		var packed struct{ Base64 []byte }
		if json.Unmarshal(e.ResponseBody, &c.answer) != nil {
			if err := json.Unmarshal(e.ResponseBody, &packed); err != nil {
				t.Fatal(err)
			}
			// Each message of Amazon's has one event, in base64.
			for _, part := range bytes.Split(packed.Base64, []byte(`{"bytes":"`))[1:] {
				text, _, _ := strings.Cut(string(part), `"`)
				event, err := base64.StdEncoding.DecodeString(text)
				if err != nil {
					t.Fatal(err)
				}
				c.events = append(c.events, string(event))
			}
		}
		all = append(all, c)
	}
	long := call{name: "code execution", request: `{"max_tokens":1000,"messages":[{"role":"user","content":"Run it"}]}`}
	lines := bufio.NewScanner(unpack(t, "anthropic-code-execution-20250825.2.chunks.txt.gz"))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		long.events = append(long.events, lines.Text())
	}
	return append(all, long)
}

func sendEvents(t *testing.T, w http.ResponseWriter, events ...string) {
	t.Helper()
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	for _, e := range events {
		fmt.Fprintf(w, "event: %s\ndata: %s\n\n", at(parse(t, e), "type"), e)
	}
	w.(http.Flusher).Flush()
}

// TestRecordedCalls: the SDK makes recorded calls again, of a server that answers
// what was recorded. Each is an entry with the whole request and the whole response.
// The SDK is the judge: a stream is what its own accumulator makes of it.
func TestRecordedCalls(t *testing.T) {
	var now call
	var sent []byte
	a := newAgent(t, func(w http.ResponseWriter, req *http.Request) {
		sent, _ = io.ReadAll(req.Body)
		w.Header().Add("Set-Cookie", "session=hidden7")
		w.Header().Set("Request-Id", "req_1")
		if now.events != nil {
			sendEvents(t, w, now.events...)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, now.answer)
	})
	all := recorded(t)
	streams := 0
	for i := range all {
		now = all[i]
		body, opts := []byte(`{"model":"claude",`+strings.TrimPrefix(strings.TrimSpace(now.request), "{")), []option.RequestOption(nil)
		opts = append(opts, option.WithRequestBody("application/json", body))
		var got string
		var usage [2]int64
		switch {
		case now.name == "code execution":
			var m anthropic.BetaMessage
			stream := a.client.Beta.Messages.NewStreaming(t.Context(), anthropic.BetaMessageNewParams{}, opts...)
			for stream.Next() {
				if err := m.Accumulate(stream.Current()); err != nil {
					t.Fatal(err)
				}
			}
			if err := stream.Err(); err != nil {
				t.Fatal(err)
			}
			got, usage = m.RawJSON(), [2]int64{m.Usage.InputTokens + m.Usage.CacheReadInputTokens + m.Usage.CacheCreationInputTokens, m.Usage.OutputTokens}
			streams++
		case now.events != nil:
			var m anthropic.Message
			stream := a.client.Messages.NewStreaming(t.Context(), anthropic.MessageNewParams{}, opts...)
			for stream.Next() {
				if err := m.Accumulate(stream.Current()); err != nil {
					t.Fatal(err)
				}
			}
			if err := stream.Err(); err != nil {
				t.Fatal(err)
			}
			got, usage = m.RawJSON(), [2]int64{m.Usage.InputTokens, m.Usage.OutputTokens}
			streams++
		default:
			m, err := a.client.Messages.New(t.Context(), anthropic.MessageNewParams{}, opts...)
			if err != nil {
				t.Fatal(err)
			}
			got, usage = m.RawJSON(), [2]int64{m.Usage.InputTokens, m.Usage.OutputTokens}
		}
		entries := a.entries(t)
		if len(entries) != i+1 {
			t.Fatalf("%d entries after %d calls", len(entries), i+1)
		}
		e := entries[i]
		in := value(t, e.Inputs)
		if !reflect.DeepEqual(in, parse(t, string(sent))) || !reflect.DeepEqual(at(in, "messages"), at(parse(t, now.request), "messages")) {
			t.Errorf("%s: inputs are not the request: %s", now.name, e.Line())
		}
		if out := value(t, e.Outputs); !reflect.DeepEqual(out, parse(t, got)) {
			t.Errorf("%s: outputs\n%s\nwant\n%s", now.name, must(e.Outputs.AppendJSON(nil)), got)
		}
		meta := value(t, e.Metadata)
		words := at(meta, "gen_ai")
		if e.Action != "llm_call:claude" || !e.Success || e.Outcome != "" || at(meta, "http_status") != 200.0 || at(meta, "request_id") != "req_1" ||
			at(words, "response_model") != at(parse(t, got), "model") || at(words, "finish_reasons", 0) != at(parse(t, got), "stop_reason") ||
			at(words, "input_tokens") != float64(usage[0]) || at(words, "output_tokens") != float64(usage[1]) || (at(words, "stream") == true) != (now.events != nil) {
			t.Errorf("%s: %v, not %v", now.name, meta, usage)
		}
	}
	if len(all) != 20 || streams != 10 {
		t.Errorf("%d calls, %d streams", len(all), streams)
	}
}

func ask(what string) anthropic.MessageNewParams {
	return anthropic.MessageNewParams{Model: "m", MaxTokens: 100, Messages: []anthropic.MessageParam{anthropic.NewUserMessage(anthropic.NewTextBlock(what))}}
}

const answer = `{"id":"msg_1","type":"message","role":"assistant","model":"m-1","content":[{"type":"text","text":"Hi"}],"stop_reason":"%s","stop_sequence":null,"usage":{"input_tokens":2,"output_tokens":1}}`

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
			fmt.Fprint(w, `{"type":"error","error":{"type":"rate_limit_error","message":"slow down"}}`)
		case 2:
			w.Header().Set("Retry-After-Ms", "1")
			w.WriteHeader(529)
			fmt.Fprint(w, `{"type":"error","error":{"type":"overloaded_error","message":"overloaded"}}`)
		default:
			fmt.Fprintf(w, answer, "end_turn")
		}
	})
	_, err := a.hooks.Do(t.Context(), hook.AgentLoop, hook.Data{}, func(ctx context.Context) (any, error) {
		m, err := a.client.Messages.New(ctx, ask("hello"))
		if err == nil && m.Content[0].Text != "Hi" {
			t.Errorf("%s", m.RawJSON())
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
	for i, want := range []struct{ err, said string }{{"429 Too Many Requests", "slow down"}, {"529", "overloaded"}, {}} {
		e := entries[i]
		retry := at(value(t, e.Metadata), "retry")
		if e.TraceID != entries[0].TraceID || e.ParentSpanID == "" || e.ParentSpanID != entries[0].ParentSpanID || i == 0 && retry != nil || i > 0 && retry != float64(i) {
			t.Errorf("%s", e.Line())
		}
		if e.Success != (want.err == "") || !e.Success && (*e.Error != want.err || at(value(t, e.Outputs), "error", "message") != want.said) {
			t.Errorf("%s", e.Line())
		}
	}
}

// What is wrong with a request is the entry's error, and the SDK's still; a refusal
// is an answer that says so; what of a request is a credential is left out.
func TestErrorsAndRefusals(t *testing.T) {
	status := 0
	a := newAgent(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		if status < 400 {
			fmt.Fprintf(w, answer, "refusal")
			return
		}
		fmt.Fprintf(w, `{"type":"error","error":{"type":"some_error","message":"no: %d"}}`, status)
	}, option.WithMaxRetries(0))
	for i, s := range []int{400, 401, 404, 500} {
		status = s
		_, err := a.client.Messages.New(t.Context(), ask("hello"))
		if e, ok := errors.AsType[*anthropic.Error](err); !ok || e.StatusCode != s {
			t.Errorf("%v", err)
		}
		if e := a.entries(t)[i]; e.Success || *e.Error != fmt.Sprint(s, " ", http.StatusText(s)) || at(value(t, e.Outputs), "error", "message") != fmt.Sprint("no: ", s) {
			t.Errorf("%s", e.Line())
		}
	}
	status = 200
	if _, err := a.client.Messages.New(t.Context(), ask("how?"), option.WithJSONSet("mcp_servers", []map[string]string{{"url": "https://example.com", "authorization_token": "hidden7"}})); err != nil {
		t.Error(err)
	}
	e := a.entries(t)[4]
	if !e.Success || at(value(t, e.Metadata), "gen_ai", "refused") != true || at(value(t, e.Inputs), "mcp_servers", 0, "url") != "https://example.com" {
		t.Errorf("%s", e.Line())
	}
}

// Of a stream that does not come to its end, the entry has what came, and says how
// it ended: lost by the network, cancelled by the caller's context, or closed; an
// error that comes in the stream is the call's.
func TestStreamsThatEndEarly(t *testing.T) {
	gate := make(chan struct{})
	defer close(gate)
	a := newAgent(t, func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		sendEvents(t, w,
			`{"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"m-1","content":[],"stop_reason":null,"usage":{"input_tokens":2,"output_tokens":1}}}`,
			`{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}`,
			`{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"On"}}`,
			`{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"ce"}}`)
		switch {
		case bytes.Contains(body, []byte("lost")):
			panic(http.ErrAbortHandler)
		case bytes.Contains(body, []byte("broken")):
			sendEvents(t, w, `{"type":"error","error":{"type":"overloaded_error","message":"overloaded"}}`)
			return
		}
		select {
		case <-gate:
		case <-req.Context().Done():
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, how := range []string{"lost", "cancelled", "closed", "broken"} {
		use := t.Context()
		if how == "cancelled" {
			use = ctx
		}
		stream := a.client.Messages.NewStreaming(use, ask(how))
		for n := 0; n < 4 && stream.Next(); n++ {
		}
		switch how {
		case "cancelled":
			cancel()
		case "closed":
			if err := stream.Close(); err != nil {
				t.Error(err)
			}
			continue
		}
		for stream.Next() {
		}
		if stream.Err() == nil {
			t.Errorf("%s: it ended well", how)
		}
		stream.Close()
	}
	entries := a.entries(t)
	if len(entries) != 4 {
		t.Fatalf("%d entries", len(entries))
	}
	for i, outcome := range []string{"", "cancelled", "cancelled", ""} {
		e := entries[i]
		out := value(t, e.Outputs)
		if e.Success || e.Outcome != outcome || at(out, "content", 0, "text") != "Once" || at(value(t, e.Metadata), "gen_ai", "response_model") != "m-1" {
			t.Errorf("%s", e.Line())
		}
		if i == 3 && (at(out, "error", "message") != "overloaded" || *e.Error != "the answer tells of an error: overloaded_error") {
			t.Errorf("%s", e.Line())
		}
	}
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}
