package agent_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	audit "github.com/kaizen-audit/kaizen-audit"
)

var update = flag.Bool("update", false, "write the golden files")

// recording is a line of llm-http.jsonl.gz, a call of a model that was recorded.
type recording struct {
	File         string              `json:"file"`
	N            int                 `json:"n"`
	RequestBody  string              `json:"request_body"`
	Status       int                 `json:"status"`
	ResponseBody any                 `json:"response_body"`
	Headers      map[string][]string `json:"response_headers"`
}

// recordings gives those of a file, in order.
func recordings(t testing.TB, file string) (all []recording) {
	t.Helper()
	f, err := os.Open("../internal/capture/testdata/llm-http.jsonl.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for d := json.NewDecoder(z); d.More(); {
		var line json.RawMessage
		if err := d.Decode(&line); err != nil {
			t.Fatal(err)
		}
		var r recording
		if err := json.Unmarshal(line, &r); err == nil && strings.TrimSuffix(filepath.Base(r.File), ".yaml") == file {
			all = append(all, r)
		}
	}
	if len(all) == 0 {
		t.Fatalf("there is no recording %s", file)
	}
	return all
}

// composed are the answers of testdata/composed.json, which nobody has recorded.
func composed(t testing.TB) (all []recording) {
	t.Helper()
	b, err := os.ReadFile("testdata/composed.json")
	if err != nil {
		t.Fatal(err)
	}
	var bodies []json.RawMessage
	if err := json.Unmarshal(b, &bodies); err != nil {
		t.Fatal(err)
	}
	for _, body := range bodies {
		all = append(all, recording{Status: http.StatusOK, ResponseBody: string(body), Headers: map[string][]string{"Content-Type": {"application/json"}}})
	}
	return all
}

// replay is a server that gives recorded answers, one after the other, and keeps
// what it was asked.
type replay struct {
	URL string

	mu      sync.Mutex
	answers []recording
	asked   [][]byte
	headers []http.Header
	paths   []string
}

func serve(t testing.TB, answers ...recording) *replay {
	t.Helper()
	r := &replay{answers: answers}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			t.Error(err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.asked, r.headers, r.paths = append(r.asked, body), append(r.headers, req.Header), append(r.paths, req.URL.Path)
		if len(r.asked) > len(r.answers) {
			t.Error("the model is asked too often")
			w.WriteHeader(http.StatusTeapot)
			return
		}
		a := r.answers[len(r.asked)-1]
		w.Header()["Content-Type"] = a.Headers["Content-Type"]
		w.Header().Set("Set-Cookie", "session=a-cookie")
		w.WriteHeader(a.Status)
		_, _ = io.WriteString(w, a.ResponseBody.(string))
	}))
	t.Cleanup(server.Close)
	r.URL = server.URL
	return r
}

// sameMessages compares what two requests say to the model.
func sameMessages(t *testing.T, got []byte, want string) {
	t.Helper()
	var requests [2]struct {
		Messages []map[string]any `json:"messages"`
	}
	for i, b := range [][]byte{got, []byte(want)} {
		if err := json.Unmarshal(b, &requests[i]); err != nil {
			t.Fatal(err)
		}
		for _, m := range requests[i].Messages {
			if m["content"] == nil || m["content"] == "" { // beside tool calls: null, "" or left out
				delete(m, "content")
			}
		}
	}
	if !reflect.DeepEqual(requests[0], requests[1]) {
		t.Errorf("the model was told\n%s\nand when it was recorded\n%s", got, want)
	}
}

// entries are an agent's in a trail, all of them with "".
func entries(t testing.TB, path, state, agent string) (all []audit.Entry) {
	t.Helper()
	trail, err := audit.Open(path, &audit.Options{ReadOnly: true, StateDir: state})
	if err != nil {
		t.Fatal(err)
	}
	defer trail.Close()
	for e, err := range trail.Query(context.Background(), audit.Query{Agent: agent}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.AgentID != "kaizen-audit" { // the trail's own
			all = append(all, e)
		}
	}
	return all
}

// brief is what entries are, one a line, each below its parent.
func brief(entries []audit.Entry) string {
	parent := map[string]string{}
	for _, e := range entries {
		parent[e.SpanID] = e.ParentSpanID
	}
	var b strings.Builder
	for _, e := range entries {
		for p := e.ParentSpanID; p != ""; p = parent[p] {
			b.WriteString("  ")
		}
		fmt.Fprintf(&b, "%s %s %s", e.AgentID, e.EventType, e.Action)
		if !e.Success {
			b.WriteString(" failed")
		}
		if e.Outcome != "" {
			b.WriteString(" " + e.Outcome)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

var (
	randomID = regexp.MustCompile(`"(trace|span|parent_span)_id":"([0-9a-f]+)"`)
	clocks   = regexp.MustCompile(`"(timestamp|recorded_at|event_id)":"[^"]*"`)
	lasted   = regexp.MustCompile(`"duration_ms":[0-9.]+`)
	address  = regexp.MustCompile(`"server_address":"[^"]*"`)
)

// golden compares entries, every field of them, with a file: times are zero,
// random ids are numbered, and tools that ran side by side stand in the order of
// their inputs.
func golden(t *testing.T, file string, entries []audit.Entry) {
	t.Helper()
	slices.SortStableFunc(entries, func(a, b audit.Entry) int {
		if a.EventType != audit.ToolUse || b.EventType != audit.ToolUse || a.ParentSpanID != b.ParentSpanID {
			return 0
		}
		x, _ := a.Inputs.AppendJSON(nil)
		y, _ := b.Inputs.AppendJSON(nil)
		return bytes.Compare(x, y)
	})
	var got bytes.Buffer
	names := map[string]string{}
	for _, e := range entries {
		line := randomID.ReplaceAllStringFunc(string(e.Line()), func(s string) string {
			m := randomID.FindStringSubmatch(s)
			if names[m[2]] == "" {
				names[m[2]] = fmt.Sprint(strings.TrimPrefix(m[1], "parent_"), "-", len(names)+1)
			}
			return fmt.Sprintf(`"%s_id":%q`, m[1], names[m[2]])
		})
		line = clocks.ReplaceAllString(line, `"$1":""`)
		line = lasted.ReplaceAllString(line, `"duration_ms":0`)
		line = address.ReplaceAllString(line, `"server_address":"127.0.0.1"`)
		if err := json.Indent(&got, []byte(line), "", " "); err != nil {
			t.Fatal(err)
		}
		got.WriteByte('\n')
	}
	file = filepath.Join("testdata", file)
	if *update {
		if err := os.WriteFile(file, got.Bytes(), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("%s is other (-update writes it):\n%s", file, got.Bytes())
	}
}
