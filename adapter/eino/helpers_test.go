package eino_test

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
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudwego/eino-ext/components/model/openai"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/hook"
)

var update = flag.Bool("update", false, "write the golden files")

// trailed is a trail and hooks that record in it.
type trailed struct {
	hooks *hook.Manager
	trail *audit.Trail
}

func record(t *testing.T) *trailed {
	t.Helper()
	dir := t.TempDir()
	trail, err := audit.Open(filepath.Join(dir, "audit.jsonl"), &audit.Options{StateDir: filepath.Join(dir, "state"), Durability: audit.Written})
	if err != nil {
		t.Fatal(err)
	}
	// It waits for a disk that is busy with something else: entries are then in the
	// order of what they tell.
	recorder, err := hook.NewAuditTrailHook(trail, &hook.AuditOptions{Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := recorder.Close(); err != nil {
			t.Error(err)
		}
		if err := trail.Close(); err != nil {
			t.Error(err)
		}
	})
	hooks := &hook.Manager{AgentID: "qa-agent-001", OnError: func(e *hook.Error) { t.Log(e) }}
	if err := hooks.RegisterHook(recorder, nil); err != nil {
		t.Fatal(err)
	}
	return &trailed{hooks, trail}
}

func (r *trailed) entries(t *testing.T) (all []audit.Entry) {
	t.Helper()
	for e, err := range r.trail.Query(context.Background(), audit.Query{Agent: "qa-agent-001"}) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

// brief is what the entries are, one a line, each below its parent.
func brief(entries []audit.Entry) string {
	var b strings.Builder
	parent := map[string]string{}
	for _, e := range entries {
		parent[e.SpanID] = e.ParentSpanID
	}
	for _, e := range entries {
		n := 0
		for p := e.ParentSpanID; p != ""; p = parent[p] {
			n++
		}
		fmt.Fprintf(&b, "%s%s %s", strings.Repeat("  ", n), e.EventType, e.Action)
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

// inOrder puts tools that ran side by side into the order of their inputs.
func inOrder(entries []audit.Entry) []audit.Entry {
	slices.SortStableFunc(entries, func(a, b audit.Entry) int {
		if a.EventType != audit.ToolUse || b.EventType != audit.ToolUse || a.ParentSpanID != b.ParentSpanID {
			return 0
		}
		x, _ := a.Inputs.AppendJSON(nil)
		y, _ := b.Inputs.AppendJSON(nil)
		return bytes.Compare(x, y)
	})
	return entries
}

// golden compares entries, every field of them, with a file: times are zero,
// random ids are numbered.
func golden(t *testing.T, file string, entries []audit.Entry) {
	t.Helper()
	var got bytes.Buffer
	names := map[string]string{}
	id := regexp.MustCompile(`"(trace_id|span_id|parent_span_id)":"([0-9a-f]+)"`)
	clock := regexp.MustCompile(`"(timestamp|recorded_at|event_id)":"[^"]*"`)
	for _, e := range inOrder(entries) {
		line := id.ReplaceAllStringFunc(string(e.Line()), func(s string) string {
			m := id.FindStringSubmatch(s)
			if names[m[2]] == "" {
				names[m[2]] = fmt.Sprintf("%s-%d", strings.TrimSuffix(strings.TrimPrefix(m[1], "parent_"), "_id"), len(names)+1)
			}
			return fmt.Sprintf("%q:%q", m[1], names[m[2]])
		})
		line = clock.ReplaceAllString(line, `"$1":""`)
		line = regexp.MustCompile(`"duration_ms":[0-9.]+`).ReplaceAllString(line, `"duration_ms":0`)
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

// recording is a line of llm-http.jsonl.gz, a call that was recorded.
type recording struct {
	File         string              `json:"file"`
	N            int                 `json:"n"`
	RequestBody  *string             `json:"request_body"`
	Status       int                 `json:"status"`
	ResponseBody any                 `json:"response_body"`
	Headers      map[string][]string `json:"response_headers"`
}

func recorded(t *testing.T) map[string]recording {
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
	all := map[string]recording{}
	for d := json.NewDecoder(z); d.More(); {
		var r recording
		if err := d.Decode(&r); err != nil {
			t.Fatal(err)
		}
		all[fmt.Sprintf("%s/%d", strings.TrimSuffix(filepath.Base(r.File), ".yaml"), r.N)] = r
	}
	return all
}

// openAI is a model whose server gives recorded answers, one after the other.
func openAI(t *testing.T, answers ...string) *openai.ChatModel {
	t.Helper()
	all := recorded(t)
	var n atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		_, _ = io.Copy(io.Discard, req.Body)
		i := int(n.Add(1)) - 1
		if i >= len(answers) {
			t.Error("the model is asked too often")
			w.WriteHeader(http.StatusTeapot)
			return
		}
		r, ok := all[answers[i]]
		if !ok {
			t.Errorf("there is no recording %s", answers[i])
		}
		w.Header()["Content-Type"] = r.Headers["Content-Type"]
		w.WriteHeader(r.Status)
		_, _ = io.WriteString(w, r.ResponseBody.(string))
	}))
	t.Cleanup(server.Close)
	m, err := openai.NewChatModel(t.Context(), &openai.ChatModelConfig{BaseURL: server.URL + "/v1", APIKey: "none", Model: "gpt-4o-mini"})
	if err != nil {
		t.Fatal(err)
	}
	return m
}
