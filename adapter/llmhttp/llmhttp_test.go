package llmhttp_test

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
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/adapter/llmhttp"
	"github.com/kaizen-audit/kaizen-audit/hook"
)

// exchange is a line of llm-http.jsonl.gz.
type exchange struct {
	File            string              `json:"file"`
	URI             string              `json:"uri"`
	RequestBody     *string             `json:"request_body"`
	Status          int                 `json:"status"`
	ResponseHeaders map[string][]string `json:"response_headers"`
	ResponseBody    json.RawMessage     `json:"response_body"`
}

func recorded(t *testing.T) (all []exchange) {
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
		all = append(all, e)
	}
	return all
}

// agent is a trail, hooks that record in it and a client of a server, whatever
// host a request names.
type agent struct {
	path   string
	trail  *audit.Trail
	hooks  *hook.Manager
	client *http.Client
}

func newAgent(t *testing.T, handler http.Handler) *agent {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	at, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	a := &agent{path: filepath.Join(t.TempDir(), "audit.jsonl"), hooks: &hook.Manager{AgentID: "a"}}
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
	})
	a.client = &http.Client{Transport: llmhttp.NewTransport(a.hooks, sendTo{at})}
	return a
}

type sendTo struct{ at *url.URL }

func (s sendTo) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.URL.Scheme, req.URL.Host = s.at.Scheme, s.at.Host
	return http.DefaultTransport.RoundTrip(req)
}

func (a *agent) entries(t *testing.T) (all []audit.Entry) {
	t.Helper()
	for e, err := range a.trail.Query(t.Context(), audit.Query{EventTypes: []string{"LLM_CALL"}}) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

func value(t *testing.T, o audit.Object) (v any) {
	t.Helper()
	b, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// TestRecordedCallsAreEntries: 175 recorded calls, replayed by a server that
// speaks what was recorded, give an entry each, with the whole request and the
// whole response, and no credential or cookie.
func TestRecordedCallsAreEntries(t *testing.T) {
	all := recorded(t)
	var at atomic.Int64
	a := newAgent(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		e := all[at.Load()]
		for name, values := range e.ResponseHeaders {
			if name := http.CanonicalHeaderKey(name); name != "Content-Length" && name != "Transfer-Encoding" {
				w.Header()[name] = values
			}
		}
		w.Header().Add("Set-Cookie", "session=cookie-in-the-answer")
		w.WriteHeader(e.Status)
		_, _ = w.Write(e.body(t))
	}))
	for i, e := range all {
		at.Store(int64(i))
		var body io.Reader
		if e.RequestBody != nil {
			body = strings.NewReader(*e.RequestBody)
		}
		req, err := http.NewRequest(http.MethodPost, e.URI+"?key=key-in-the-query", body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer token-in-a-header")
		req.Header.Set("X-Api-Key", "key-in-a-header")
		req.Header.Set("Cookie", "session=cookie-in-the-request")
		resp, err := a.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		if err != nil || !bytes.Equal(got, e.body(t)) {
			t.Fatalf("%s: the client got something else: %v", e.File, err)
		}
		resp.Body.Close()
	}
	entries := a.entries(t)
	if len(entries) != len(all) {
		t.Fatalf("%d entries of %d calls", len(entries), len(all))
	}
	streams := 0
	for i, e := range all {
		got := entries[i]
		var want any
		if e.RequestBody != nil {
			if err := json.Unmarshal([]byte(*e.RequestBody), &want); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(value(t, got.Inputs), want) {
				t.Errorf("%s: inputs are not the request", e.File)
			}
		}
		if json.Unmarshal(e.body(t), &want) == nil && !reflect.DeepEqual(value(t, got.Outputs), want) {
			t.Errorf("%s: outputs are not the response", e.File)
		}
		meta := value(t, got.Metadata).(map[string]any)
		if kind := http.Header(e.ResponseHeaders).Get("Content-Type"); strings.Contains(kind, "event") && e.Status < 400 {
			streams++
			words, _ := meta["gen_ai"].(map[string]any)
			if out, _ := value(t, got.Outputs).(map[string]any); len(out) == 0 || out["events"] != nil || words["stream"] != true || words["finish_reasons"] == nil {
				t.Errorf("%s: the stream is not put together: %v", e.File, words)
			}
		}
		if got.Success != (e.Status < 400) || meta["http_status"] != float64(e.Status) || got.Outcome != "" {
			t.Errorf("%s: success %v, outcome %q, %v", e.File, got.Success, got.Outcome, meta)
		}
		if words := meta["gen_ai"].(map[string]any); words["request_model"] == nil || got.Action != "llm_call:"+words["request_model"].(string) {
			t.Errorf("%s: %s, %v", e.File, got.Action, words)
		}
	}
	if len(all) != 175 || streams < 50 {
		t.Errorf("%d calls, %d streams", len(all), streams)
	}
	files := 0
	if err := filepath.WalkDir(filepath.Dir(a.path), func(name string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		files++
		text, err := os.ReadFile(name)
		for _, secret := range []string{"-in-a-header", "-in-the-query", "cookie-in"} {
			if bytes.Contains(text, []byte(secret)) {
				t.Errorf("%s has %q", name, secret)
			}
		}
		return err
	}); err != nil || files < 3 {
		t.Errorf("%d files, %v", files, err)
	}
}

func (e *exchange) body(t *testing.T) []byte {
	var s string
	if json.Unmarshal(e.ResponseBody, &s) == nil {
		return []byte(s)
	}
	var packed struct{ Base64 []byte }
	if err := json.Unmarshal(e.ResponseBody, &packed); err != nil {
		t.Fatal(err)
	}
	return packed.Base64
}

const openAI = "https://api.openai.com/v1/chat/completions"

func post(ctx context.Context, t *testing.T, client *http.Client, url string, body io.Reader) (*http.Response, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	return client.Do(req)
}

// What ended a call, or broke it off, is said: a stream that its reader closed
// before its end and one that the context ended are cancelled, one that was read
// to the stream's own end is not.
func TestHowACallEnded(t *testing.T) {
	gate := make(chan struct{})
	defer close(gate)
	a := newAgent(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}]}\n\n")
		switch {
		case bytes.Contains(body, []byte("whole")):
			fmt.Fprint(w, "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n")
			w.(http.Flusher).Flush()
		case bytes.Contains(body, []byte("lost")):
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
		w.(http.Flusher).Flush()
		select { // the body stays open
		case <-gate:
		case <-req.Context().Done():
		}
	}))
	read := func(resp *http.Response, until string) {
		t.Helper()
		var got []byte
		for !bytes.Contains(got, []byte(until)) {
			b := make([]byte, 64)
			n, err := resp.Body.Read(b)
			if got = append(got, b[:n]...); err != nil {
				t.Fatalf("%v after %q", err, got)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	for _, c := range []struct {
		body  string
		until string
		end   func(*http.Response)
	}{
		{`{"model":"m","x":"whole"}`, "[DONE]", func(r *http.Response) { r.Body.Close() }},
		{`{"model":"m","x":"closed"}`, "Hi", func(r *http.Response) { r.Body.Close() }},
		{`{"model":"m","x":"context"}`, "Hi", func(r *http.Response) {
			cancel()
			if _, err := io.ReadAll(r.Body); !errors.Is(err, context.Canceled) {
				t.Errorf("%v", err)
			}
			r.Body.Close()
		}},
	} {
		use := t.Context()
		if strings.Contains(c.body, "context") {
			use = ctx
		}
		resp, err := post(use, t, a.client, openAI, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		read(resp, c.until)
		c.end(resp)
	}
	resp, err := post(t.Context(), t, a.client, openAI, strings.NewReader(`{"model":"m","x":"lost"}`))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Error("a broken response was read to its end")
	}
	resp.Body.Close()

	entries := a.entries(t)
	if len(entries) != 4 {
		t.Fatalf("%d entries", len(entries))
	}
	for i, want := range []struct {
		success bool
		outcome string
	}{{true, ""}, {false, "cancelled"}, {false, "cancelled"}, {false, ""}} {
		e := entries[i]
		if e.Success != want.success || e.Outcome != want.outcome || !strings.Contains(string(e.Line()), `"content":"Hi"`) {
			t.Errorf("%d: success %v, outcome %q\n%s", i, e.Success, e.Outcome, e.Line())
		}
	}
}

// An error of the network is the entry's, without the URL; each attempt of a
// client that tries again is an entry below the same action.
func TestAttempts(t *testing.T) {
	n := 0
	a := newAgent(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if n++; n == 1 {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusTooManyRequests)
			fmt.Fprint(w, `{"error":{"type":"rate_limit"}}`)
			return
		}
		if n == 2 {
			panic(http.ErrAbortHandler)
		}
		fmt.Fprint(w, `{"id":"x","model":"m-1","choices":[]}`)
	}))
	_, err := a.hooks.Do(t.Context(), hook.AgentLoop, hook.Data{}, func(ctx context.Context) (any, error) {
		for try := range 3 {
			req, _ := http.NewRequestWithContext(ctx, http.MethodPost, openAI+"?key=secret", strings.NewReader(`{"model":"m"}`))
			req.Header.Set("X-Stainless-Retry-Count", fmt.Sprint(try))
			if resp, err := a.client.Do(req); err == nil {
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		}
		return nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	entries := a.entries(t)
	if len(entries) != 3 {
		t.Fatalf("%d entries", len(entries))
	}
	if e := entries[0]; e.Success || e.Error == nil || *e.Error != "429 Too Many Requests" || e.Outputs.Text("error") == "" && !strings.Contains(string(e.Line()), "rate_limit") {
		t.Errorf("%s", e.Line())
	}
	if e := entries[1]; e.Success || e.Error == nil || strings.Contains(*e.Error, "secret") || !strings.Contains(string(e.Line()), `"retry":1`) {
		t.Errorf("%s", e.Line())
	}
	if e := entries[2]; !e.Success || !strings.Contains(string(e.Line()), `"response_model":"m-1"`) {
		t.Errorf("%s", e.Line())
	}
	for _, e := range entries {
		if e.ParentSpanID == "" || e.ParentSpanID != entries[0].ParentSpanID || e.TraceID != entries[0].TraceID {
			t.Errorf("not below the run: %s", e.Line())
		}
	}
}

// What can't be kept is told in its place: bodies that are too long, not JSON, or
// compressed in a way that is not known. The client gets them all the same.
func TestBodiesThatAreNotKept(t *testing.T) {
	long := strings.Repeat("x", 33<<20)
	answers := []func(w http.ResponseWriter){
		func(w http.ResponseWriter) { fmt.Fprint(w, `{"long":"`+long+`"}`) },
		func(w http.ResponseWriter) { w.Header().Set("Content-Encoding", "br"); fmt.Fprint(w, "???") },
		func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "audio/mpeg")
			_, _ = w.Write([]byte{0xff, 0xfb, 0})
		},
		func(w http.ResponseWriter) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			fmt.Fprint(z, `{"packed":true}`)
			z.Close()
		},
	}
	i := 0
	a := newAgent(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if n, _ := io.Copy(io.Discard, req.Body); i == 0 && n < 33<<20 {
			t.Errorf("%d bytes arrived", n)
		}
		answers[i](w)
	}))
	for i = range answers {
		body := `{"model":"m"}`
		if i == 0 {
			body = `{"model":"m","x":"` + long + `"}`
		}
		req, _ := http.NewRequest(http.MethodPost, openAI, strings.NewReader(body))
		req.Header.Set("Accept-Encoding", "gzip") // so that nobody unpacks it on the way
		resp, err := a.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, resp.Body); err != nil || n == 0 {
			t.Fatal(n, err)
		}
		resp.Body.Close()
	}
	entries := a.entries(t)
	for i, want := range []string{`"outputs":{"bytes":34603019,"omitted":"longer than`, `"omitted":"its Content-Encoding`, `"base64":"//sA","content_type":"audio/mpeg"`, `"outputs":{"packed":true}`} {
		if !strings.Contains(string(entries[i].Line()), want) {
			t.Errorf("%.300s has no %s", entries[i].Line(), want)
		}
	}
	if !strings.Contains(string(entries[0].Line()), `"inputs":{"bytes":34603`) {
		t.Errorf("%.300s", entries[0].Line())
	}
}

// With FailClosed a model is not asked when that can't be recorded, and an answer
// that can't be recorded is not given out whole.
func TestFailClosed(t *testing.T) {
	asked := 0
	a := newAgent(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked++
		fmt.Fprint(w, `{}`)
	}))
	fail := hook.PostLLMCall
	refuse := func(_ context.Context, c *hook.Context) error {
		if c.Event == fail {
			return hook.ErrFailClosed
		}
		return nil
	}
	for _, e := range []hook.Event{hook.PreLLMCall, hook.PostLLMCall} {
		if err := a.hooks.Register(e, refuse, nil); err != nil {
			t.Fatal(err)
		}
	}
	resp, err := post(t.Context(), t, a.client, openAI, strings.NewReader(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(resp.Body); !errors.Is(err, hook.ErrFailClosed) {
		t.Errorf("%v", err)
	}
	resp.Body.Close()
	fail = hook.PreLLMCall
	if _, err := post(t.Context(), t, a.client, openAI, strings.NewReader(`{}`)); !errors.Is(err, hook.ErrFailClosed) {
		t.Errorf("%v", err)
	}
	if asked != 1 {
		t.Errorf("the model was asked %d times", asked)
	}
}

// Other requests pass by.
func TestOtherRequestsAreNotRecorded(t *testing.T) {
	a := newAgent(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") }))
	for _, url := range []string{"https://api.openai.com/v1/models", "https://api.openai.com/v1/files"} {
		resp, err := post(t.Context(), t, a.client, url, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	resp, err := a.client.Get(openAI)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if got := a.entries(t); len(got) > 0 {
		t.Errorf("%s", got[0].Line())
	}
}

// An error that its reader closes unread is kept all the same, as far as it comes
// soon; and a body may be closed by one goroutine while another reads it.
func TestBodiesThatAreClosedUnread(t *testing.T) {
	gate := make(chan struct{})
	defer close(gate)
	a := newAgent(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		stalls, _ := io.ReadAll(req.Body)
		w.Header().Set("Content-Type", "application/json")
		if bytes.Contains(stalls, []byte("stream")) {
			w.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprint(w, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}]}\n\n")
		} else {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprint(w, `{"error":"try`)
		}
		w.(http.Flusher).Flush()
		if bytes.Contains(stalls, []byte("whole")) {
			fmt.Fprint(w, ` later"}`)
			return
		}
		select {
		case <-gate:
		case <-req.Context().Done():
		}
	}))
	for _, body := range []string{`{"model":"whole"}`, `{"model":"stalls"}`, `{"model":"stream"}`} {
		resp, err := post(t.Context(), t, a.client, openAI, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(body, "stream") {
			got := make(chan struct{})
			go func() {
				_, _ = io.ReadFull(resp.Body, make([]byte, 10))
				close(got)
				_, _ = io.Copy(io.Discard, resp.Body)
			}()
			<-got
		}
		resp.Body.Close()
	}
	entries := a.entries(t)
	for i, want := range []string{`"outputs":{"error":"try later"}`, `"text":"{\"error\":\"try"`, `"content":"Hi"`} {
		if e := entries[i]; e.Success || !strings.Contains(string(e.Line()), want) {
			t.Errorf("%s has no %s", e.Line(), want)
		}
	}
}
