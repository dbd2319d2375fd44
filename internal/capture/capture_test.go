package capture

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files")

// recordedCall is a line of llm-http.jsonl.gz.
type recordedCall struct {
	File            string              `json:"file"`
	URI             string              `json:"uri"`
	RequestBody     *string             `json:"request_body"`
	Status          int                 `json:"status"`
	ResponseHeaders map[string][]string `json:"response_headers"`
	ResponseBody    json.RawMessage     `json:"response_body"`
}

func (c *recordedCall) response(t testing.TB) (contentType string, body []byte) {
	for name, v := range c.ResponseHeaders {
		if strings.EqualFold(name, "Content-Type") {
			contentType = v[0]
		}
	}
	var s string
	if json.Unmarshal(c.ResponseBody, &s) == nil {
		return contentType, []byte(s)
	}
	var packed struct{ Base64 []byte }
	if err := json.Unmarshal(c.ResponseBody, &packed); err != nil {
		t.Fatal(err)
	}
	return contentType, packed.Base64
}

func unpack(t testing.TB, name string) io.Reader {
	f, err := os.Open(filepath.Join("testdata", name))
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

func recordedCalls(t testing.TB) (calls []recordedCall) {
	d := json.NewDecoder(unpack(t, "llm-http.jsonl.gz"))
	for d.More() {
		var c recordedCall
		if err := d.Decode(&c); err != nil {
			t.Fatal(err)
		}
		calls = append(calls, c)
	}
	return calls
}

func golden(t *testing.T, name string, got []byte) {
	name = filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(name, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what it was; see the difference after go test -update", name)
	}
}

// TestRecordedCalls: of 175 real calls the neutral words are as pinned; a response
// that was no stream is kept as it came, and a stream becomes one object of the
// API's own shape, with every text of the stream in it.
func TestRecordedCalls(t *testing.T) {
	var all bytes.Buffer
	streams := 0
	for _, r := range recordedCalls(t) {
		u, err := url.Parse(r.URI)
		if err != nil {
			t.Fatal(err)
		}
		if !Known(u) {
			t.Errorf("%s is not known", u.Path)
		}
		var body []byte
		if r.RequestBody != nil {
			body = []byte(*r.RequestBody)
		}
		c := Request(u, "application/json", body)
		contentType, answer := r.response(t)
		out := c.Response(contentType, answer)
		words, err := json.Marshal(c.Metadata())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&all, "%d %s %s %s\n", r.Status, filepath.Base(r.File), u.Path[strings.LastIndexAny(u.Path, "/:"):], words)

		if len(answer) == 0 {
			if out != nil {
				t.Errorf("%s: nothing becomes %s", r.File, out)
			}
			continue
		}
		got, ok := decode(out).(map[string]any)
		if !ok {
			t.Errorf("%s: not an object: %.80s", r.File, out)
			continue
		}
		switch {
		case strings.HasPrefix(contentType, "application/json"):
			if !reflect.DeepEqual(any(got), decode(answer)) {
				t.Errorf("%s: the response was changed", r.File)
			}
		case r.Status == 200:
			streams++
			if got["events"] != nil {
				t.Errorf("%s: the stream was not put together: %.200s", r.File, out)
			}
			if len(c.FinishReasons) == 0 {
				t.Errorf("%s: no finish reason", r.File)
			}
			have := strings.Join(texts(got), "")
			for _, piece := range streamedTexts(contentType, answer) {
				if !strings.Contains(have, piece) {
					t.Errorf("%s: %q of the stream is missing", r.File, piece)
				}
			}
		}
		if c.Usage.Known && (c.Usage.CacheRead > c.Usage.Input || c.Usage.Reasoning > c.Usage.Output) {
			t.Errorf("%s: parts are larger than the whole: %+v", r.File, c.Usage)
		}
	}
	if streams < 50 {
		t.Errorf("only %d streams", streams)
	}
	golden(t, "calls.golden", all.Bytes())
}

// texts are all texts below v, numbers and booleans as JSON.
func texts(v any) (all []string) {
	switch v := v.(type) {
	case map[string]any:
		for _, e := range v {
			all = append(all, texts(e)...)
		}
	case []any:
		for _, e := range v {
			all = append(all, texts(e)...)
		}
	case string:
		all = append(all, v)
	}
	return all
}

// streamedTexts finds the texts of a stream without understanding it: what
// stands behind "content", "text" and the like in each event.
func streamedTexts(contentType string, b []byte) (all []string) {
	var events []any
	if strings.HasPrefix(contentType, "text/event-stream") {
		for line := range strings.Lines(string(b)) {
			if data, ok := strings.CutPrefix(line, "data:"); ok {
				events = append(events, decode([]byte(data)))
			}
		}
	} else {
		for _, part := range bytes.Split(b, []byte(`{"bytes":"`))[1:] {
			text, _, _ := bytes.Cut(part, []byte(`"`))
			if chunk, err := base64.StdEncoding.DecodeString(string(text)); err == nil {
				events = append(events, decode(chunk))
			}
		}
	}
	for _, e := range events {
		for _, v := range []any{object(e)["delta"], e} {
			if s := text(v); s != "" {
				all = append(all, s)
			}
			if s := text(object(v)["text"]); s != "" {
				all = append(all, s)
			}
		}
		for _, c := range list(object(e)["choices"]) {
			if s := text(object(object(c)["delta"])["content"]); s != "" {
				all = append(all, s)
			}
		}
	}
	return all
}

// TestStreams: four real streams with tools, citations and reasoning are put
// together as pinned, every member.
func TestStreams(t *testing.T) {
	names, err := filepath.Glob("testdata/*.chunks.txt.gz")
	if err != nil || len(names) != 4 {
		t.Fatalf("%v, %v", names, err)
	}
	var all bytes.Buffer
	for _, name := range names {
		var stream bytes.Buffer
		lines := bufio.NewScanner(unpack(t, filepath.Base(name)))
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			fmt.Fprintf(&stream, "event: x\r\ndata: %s\r\n\r\n", lines.Bytes())
		}
		c := &Call{}
		out := c.Response("text/event-stream; charset=utf-8", stream.Bytes())
		if object(decode(out))["events"] != nil {
			t.Errorf("%s was not put together", name)
		}
		var pretty bytes.Buffer
		if err := json.Indent(&pretty, out, "", " "); err != nil {
			t.Fatal(err)
		}
		words, _ := json.Marshal(c.Metadata())
		fmt.Fprintf(&all, "%s\n%s\n%s\n", filepath.Base(name), words, pretty.Bytes())
	}
	golden(t, "streams.golden", all.Bytes())
}

// A stream that broke off is kept as far as it came.
func TestAStreamThatBrokeOff(t *testing.T) {
	for _, s := range []struct{ stream, want string }{
		{
			`data: {"type":"message_start","message":{"type":"message","id":"m","content":[],"usage":{"input_tokens":3}}}` + "\n\n" +
				`data: {"type":"content_block_start","index":0,"content_block":{"type":"tool_use","name":"f","input":{}}}` + "\n\n" +
				`data: {"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"{\"a\":"}}` + "\n\n" +
				`data: {"type":"content_bl`,
			`{"content":[{"input":"{\"a\":","name":"f","type":"tool_use"}],"id":"m","type":"message","usage":{"input_tokens":3}}`,
		},
		{`data: {"choices":[{"index":0,"delta":{"role":"assistant","content":"He"}}]}` + "\n\n" + `data: {"choices":[{"index":0,"delta":{"content":"llo`, `{"choices":[{"index":0,"message":{"content":"He","role":"assistant"}}]}`},
		{`data: {"type":"response.created","response":{"id":"r"}}` + "\n\n", `{"id":"r","output":[]}`},
		{
			`data: {"type":"response.created","response":{"id":"r"}}` + "\n\n" +
				`data: {"type":"response.output_item.added","output_index":0,"item":{"type":"message","content":[]}}` + "\n\n" +
				`data: {"type":"response.content_part.added","output_index":0,"content_index":0,"part":{"type":"refusal","refusal":""}}` + "\n\n" +
				`data: {"type":"response.refusal.delta","output_index":0,"content_index":0,"delta":"I can"}` + "\n\n" +
				`data: {"type":"response.refusal.delta","output_index":0,"content_index":0,"delta":"'t"}` + "\n\n",
			`{"id":"r","output":[{"content":[{"refusal":"I can't","type":"refusal"}],"type":"message"}]}`,
		},
		{
			`data: {"type":"response.created","response":{"id":"r"}}` + "\n\n" + `data: {"type":"response.smell.delta","delta":"x"}` + "\n\n",
			`{"events":[{"response":{"id":"r"},"type":"response.created"},{"delta":"x","type":"response.smell.delta"}]}`,
		},
		{`data: {"type":"response.output_text.delta","output_index":0,"content_index":0,"delta":"x"}` + "\n\n", `{"events":[{"content_index":0,"delta":"x","output_index":0,"type":"response.output_text.delta"}]}`},
		{"data: [DONE]\n\n", `{"events":[]}`},
	} {
		if got := (&Call{}).Response("text/event-stream", []byte(s.stream)); string(got) != s.want {
			t.Errorf("%s\n gives %s\n  want %s", s.stream, got, s.want)
		}
	}
}

// All recorded streams of OpenAI's Responses API, without the event that has the
// whole, are put together from the others to the same output.
func TestResponsesWithoutTheirLastEvent(t *testing.T) {
	var streams [][]any
	for _, r := range recordedCalls(t) {
		if contentType, body := r.response(t); strings.HasPrefix(contentType, "text/event-stream") && strings.HasSuffix(r.URI, "/responses") {
			streams = append(streams, serverSentEvents(body))
		}
	}
	for _, name := range []string{"openai-mcp-tool.1", "openai-web-search-tool.1"} {
		var events []any
		lines := bufio.NewScanner(unpack(t, name+".chunks.txt.gz"))
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			events = append(events, decode(lines.Bytes()))
		}
		streams = append(streams, events)
	}
	if len(streams) != 11 {
		t.Errorf("%d streams", len(streams))
	}
	for i, events := range streams {
		whole := encode(events) // putting it together changes the events
		last := len(events) - 1
		if text(object(events[last])["type"]) != "response.completed" {
			t.Errorf("stream %d ends with %v", i, object(events[last])["type"])
			continue
		}
		want := object(object(events[last])["response"])["output"]
		got := decode(assemble(events[:last]))
		if object(got)["model"] == nil || !reflect.DeepEqual(object(got)["output"], want) {
			t.Errorf("stream %d\n gives %s\n want  %s", i, encode(object(got)["output"]), encode(want))
		}
		// Cut anywhere, it is still an object of the API's own.
		for n := 1; n < last; n += 1 + last/6 {
			if got := object(decode(assemble(list(decode(whole))[:n]))); got["events"] != nil || got["id"] == nil {
				t.Fatalf("stream %d, cut after %d events, gives %.200s", i, n, encode(got))
			}
		}
	}
}

// A refusal is told from an answer, whoever refused.
func TestRefusals(t *testing.T) {
	for body, want := range map[string]bool{
		`{"choices":[{"message":{"content":null,"refusal":"No."},"finish_reason":"stop"}]}`:                           true,
		`{"choices":[{"message":{"content":"Yes.","refusal":null},"finish_reason":"stop"}]}`:                          false,
		`{"choices":[{"message":{"content":""},"finish_reason":"content_filter"}]}`:                                   true,
		`{"object":"response","status":"completed","output":[{"content":[{"type":"refusal","refusal":"No."}]}]}`:      true,
		`{"object":"response","status":"completed","output":[{"content":[{"type":"output_text","text":"refusal"}]}]}`: false,
		`{"object":"response","status":"incomplete","incomplete_details":{"reason":"content_filter"},"output":[]}`:    true,
		`{"type":"message","content":[],"stop_reason":"refusal"}`:                                                     true,
		`{"type":"message","content":[],"stop_reason":"end_turn"}`:                                                    false,
		`{"candidates":[{"finishReason":"SAFETY"}]}`:                                                                  true,
		`{"promptFeedback":{"blockReason":"PROHIBITED_CONTENT"}}`:                                                     true,
		`{"output":{"message":{"content":[]}},"stopReason":"guardrail_intervened"}`:                                   true,
	} {
		c := &Call{}
		c.Response("application/json", []byte(body))
		if c.Refused != want || (c.Metadata()["refused"] == true) != want {
			t.Errorf("%s: %v", body, c.Refused)
		}
	}
	stream := `data: {"choices":[{"index":0,"delta":{"role":"assistant","refusal":"I "}}]}` + "\n\n" +
		`data: {"choices":[{"index":0,"delta":{"refusal":"won't."},"finish_reason":"stop"}]}` + "\n\n"
	c := &Call{}
	if out := c.Response("text/event-stream", []byte(stream)); !c.Refused || !strings.Contains(string(out), `"refusal":"I won't."`) {
		t.Errorf("%s", out)
	}
}

// Credentials of headers that a body carries, to let a model use a server, are not
// kept; a form names its model.
func TestBodies(t *testing.T) {
	const request = `{"model":"m", "tools":[{"type":"mcp","server_url":"https://example.com","authorization":"secret","headers":{"X-Api-Key":"secret","Accept":"x"}}],"mcp_servers":[{"authorization_token":"secret"}]}`
	const kept = `{"model":"m","tools":[{"type":"mcp","server_url":"https://example.com","authorization":{"omitted":"credential"},"headers":{"X-Api-Key":{"omitted":"credential"},"Accept":"x"}}],"mcp_servers":[{"authorization_token":{"omitted":"credential"}}]}`
	if got := Body("application/json", []byte(request)); string(got) != kept {
		t.Errorf("%s", got)
	}
	stream := "data: {\"type\":\"response.completed\",\"response\":" + request + "}\n\n"
	if got := (&Call{}).Response("text/event-stream", []byte(stream)); strings.Contains(string(got), "secret") {
		t.Errorf("%s", got)
	}
	if got := Body("application/json", []byte(`{"author":"x", "a":1}`)); string(got) != `{"author":"x","a":1}` {
		t.Errorf("%s", got)
	}
	if got := Body("application/json", []byte(`{"a": 1}`)); string(got) != `{"a": 1}` {
		t.Errorf("%s", got)
	}
	form := "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.mp3\"\r\n\r\n\xff\xfb\r\n--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n--b--\r\n"
	u := &url.URL{Path: "/v1/audio/transcriptions"}
	if c := Request(u, "multipart/form-data; boundary=b", []byte(form)); c.Model() != "whisper-1" || c.Operation != "transcription" {
		t.Errorf("%+v", c)
	}
	for _, broken := range []string{form[:40], "", "--b--"} {
		if c := Request(u, "multipart/form-data; boundary=b", []byte(broken)); c.Model() != "" {
			t.Errorf("%+v", c)
		}
	}
}

// Whatever comes, what is made of it is JSON, and an object where it was none of
// JSON's own.
func FuzzResponse(f *testing.F) {
	for i, r := range recordedCalls(f) {
		if i%9 == 0 {
			contentType, body := r.response(f)
			if len(body) < 700 {
				f.Add(contentType, body)
			}
		}
	}
	f.Add("text/event-stream", []byte("data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"a\"}]}},null]}\n\ndata: {\"candidates\":[{},{\"index\":1}]}"))
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		c := Request(&url.URL{Path: contentType}, contentType, body)
		out := c.Response(contentType, body)
		if out != nil && !json.Valid(out) {
			t.Fatalf("%q gives %q", body, out)
		}
		if _, err := json.Marshal(c.Metadata()); err != nil {
			t.Fatal(err)
		}
		c.Model()
	})
}
