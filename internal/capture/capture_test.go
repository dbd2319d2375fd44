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
		c := Request(u, body)
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
		{`data: {"type":"response.created","response":{"id":"r"}}` + "\n\n", `{"events":[{"response":{"id":"r"},"type":"response.created"}]}`},
		{"data: [DONE]\n\n", `{"events":[]}`},
	} {
		if got := (&Call{}).Response("text/event-stream", []byte(s.stream)); string(got) != s.want {
			t.Errorf("%s\n gives %s\n  want %s", s.stream, got, s.want)
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
		c := Request(&url.URL{Path: contentType}, body)
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
