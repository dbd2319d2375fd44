package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/adapter/llmhttp"
	"github.com/kaizen-audit/kaizen-audit/adapter/slogaudit"
	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/hook"
	"github.com/kaizen-audit/kaizen-audit/internal/canary"
)

// TestNothingLeaks hands canaries in by every way there is, and looks into every
// file that came of it, while it waits and after it was recorded.
func TestNothingLeaks(t *testing.T) {
	dir := t.TempDir()
	log, state := filepath.Join(dir, "out", "audit.jsonl"), filepath.Join(dir, "out", "state")
	if err := os.MkdirAll(filepath.Dir(log), 0o700); err != nil {
		t.Fatal(err)
	}
	opts := &audit.Options{StateDir: state}
	program := theProgram(t)
	var s canary.Searched
	run := func(in string, args ...string) string {
		t.Helper()
		cmd := exec.Command(program, append(args, "--log", log)...)
		cmd.Env = append(os.Environ(), "KAIZEN_AUDIT_STATE="+state)
		cmd.Stdin = strings.NewReader(in)
		var out, complaints bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &complaints
		_ = cmd.Run() // what is refused makes another exit code
		s.In(t, strings.Join(args, " ")+": stderr", complaints.Bytes())
		s.In(t, strings.Join(args, " ")+": stdout", out.Bytes())
		return out.String()
	}
	ev := audit.Event{
		EventType: "TOOL_USE", AgentID: "canary", Action: "tool_use:pay " + canary.All[0].Text, Inputs: audit.Of(canary.Object()), Outputs: audit.Of([]any{canary.Text()}),
		Error: new(canary.Text()), Metadata: audit.Of(canary.Object()), Authority: audit.Of(canary.Object()), Purpose: canary.All[1].Text, Outcome: canary.All[2].Text,
		IdempotencyKey: "key " + canary.All[0].Text, DurationMS: 4111111111111111,
	}
	text, err := json.Marshal(canary.Object())
	if err != nil {
		t.Fatal(err)
	}
	line := func(action, inputs string) string {
		return fmt.Sprintf(`{"timestamp":"2026-01-02T03:04:05Z","event_type":"TOOL_USE","agent_id":"canary","action":%q,"inputs":%s,"duration_ms":4111111111111111}`, action, inputs) + "\n"
	}
	ctx := context.Background()

	// The command line, with lines that are refused; an old log; readings.
	run(line("record", string(text))+line("escapes", canary.EscapedObject())+`{"event_type":"`+canary.All[0].Text+`"}`+"\n"+`{"`+canary.All[0].Text+`":1}`+"\n"+canary.Text(), "record")
	s.Dir(t, "recorded", dir+"/out")
	old := filepath.Join(dir, "old.jsonl")
	if err := os.WriteFile(old, []byte(line("old", string(text))+canary.All[0].Text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run("", "import", old)
	run("", "query", "--text", canary.All[0].Text)
	run("", "query", "--action", canary.All[3].Text)

	// The library, while it holds the trail, through its socket, and past it.
	trail, err := audit.Open(log, opts)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := trail.Record(ctx, ev); err != nil {
		t.Fatal(err)
	}
	if _, err := trail.Record(ctx, ev); err != nil {
		t.Errorf("a retry: %v", err)
	}
	other, err := audit.Open(log, opts)
	if err != nil {
		t.Fatal(err)
	}
	through := ev
	through.IdempotencyKey = "through"
	if _, err := other.Record(ctx, through); err != nil {
		t.Error(err)
	}
	broken := through
	broken.IdempotencyKey, broken.Inputs = "broken", audit.Raw([]byte(`{"card":"`+canary.All[0].Text+`","card":1}`))
	if _, err := other.Capture(ctx, broken); err != nil {
		t.Error(err)
	}

	// A hook, at the moment at which a crash would leave what has begun.
	recorder, err := hook.NewAuditTrailHook(trail, nil)
	if err != nil {
		t.Fatal(err)
	}
	hooks := &hook.Manager{AgentID: "canary"}
	if err := hooks.RegisterHook(recorder, nil); err != nil {
		t.Fatal(err)
	}
	small, _ := json.Marshal(map[string]any{"card_number": canary.All[2].Text, "n": json.Number(canary.All[0].Core), "say": canary.All[3].Text})
	begun, err := hooks.Trigger(ctx, hook.PreToolUse, hook.Data{Name: "pay", Inputs: audit.Raw(small)})
	if err != nil {
		t.Fatal(err)
	}
	noted, _ := filepath.Glob(filepath.Join(state, "*", "*", "*.begun"))
	if len(noted) != 1 {
		t.Errorf("%d files of what has begun", len(noted))
	} else if data, _ := os.ReadFile(noted[0]); !bytes.Contains(data, []byte("****0005")) {
		t.Errorf("what has begun is not noted: %.300q", bytes.Trim(data, "\x00"))
	}
	s.Dir(t, "begun", dir+"/out")
	if _, err := hooks.Trigger(begun, hook.PostToolUse, hook.Data{Outputs: audit.Raw(text)}); err != nil {
		t.Fatal(err)
	}
	// The adapters that need no SDK: a model call and its answer, a logger.
	adapters := &hook.Manager{AgentID: "adapters"}
	if err := adapters.RegisterHook(recorder, nil); err != nil {
		t.Fatal(err)
	}
	model := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"model":"m","choices":[{"message":{"role":"assistant","content":` + string(text) + `}}]}`))
	}))
	defer model.Close()
	asked, err := http.NewRequestWithContext(ctx, http.MethodPost, model.URL+"/v1/chat/completions", strings.NewReader(`{"model":"m","messages":[{"role":"user","content":`+string(text)+`}]}`))
	if err != nil {
		t.Fatal(err)
	}
	asked.Header.Set("Authorization", "Bearer "+canary.All[4].Core)
	answer, err := (&http.Client{Transport: llmhttp.NewTransport(adapters, nil)}).Do(asked)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		t.Error(err)
	}
	answer.Body.Close()
	slog.New(slogaudit.NewHandler(adapters, nil)).Info(canary.All[0].Text, "card_number", canary.All[2].Text, "say", canary.All[3].Text)
	s.Dir(t, "adapters", dir+"/out")
	if err := recorder.Close(); err != nil {
		t.Error(err)
	}

	// The Python client.
	if python, err := exec.LookPath("python3"); err == nil {
		cmd := exec.Command(python, "-c", `import json,sys
from kaizen_audit import AuditTrailManager
m = AuditTrailManager(audit_log_path=sys.argv[1])
e = json.load(sys.stdin); m.record_event(e); m.close()`, log)
		client, err := filepath.Abs("../../clients/python")
		if err != nil {
			t.Fatal(err)
		}
		cmd.Env = append(os.Environ(), "PYTHONPATH="+client, "PYTHONDONTWRITEBYTECODE=1", "KAIZEN_AUDIT_STATE="+state, "KAIZEN_AUDIT_BIN="+program)
		cmd.Stdin = strings.NewReader(strings.Replace(line("python", string(text)), "canary", "python", 1))
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("python: %v\n%.500s", err, out)
		}
		s.In(t, "python", out)
	}
	if err := other.Close(); err != nil {
		t.Error(err)
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}

	// What waits in the spool, since nobody listens who holds the trail.
	alone, err := audit.Open(log, &audit.Options{StateDir: state, NoSocket: true})
	if err != nil {
		t.Fatal(err)
	}
	spooled := ev
	spooled.IdempotencyKey = "spooled " + canary.All[0].Text
	if err := audit.Capture(ctx, log, opts, spooled); err != nil {
		t.Fatal(err)
	}
	// On a busy machine the holder may take it in before anybody looks again.
	waiting, _ := filepath.Glob(filepath.Join(dir, "out", "audit.trail", "spool", "*.json"))
	run(`{"session_id":"s1","hook_event_name":"UserPromptSubmit","prompt":"pay with `+canary.All[0].Text+`"}`, "hook", "claude-code")
	also, _ := filepath.Glob(filepath.Join(dir, "out", "audit.trail", "spool", "*.json"))
	if len(waiting)+len(also) == 0 {
		t.Error("nothing waits in the spool")
	}
	s.Dir(t, "spooled", dir+"/out")
	if err := alone.Close(); err != nil {
		t.Fatal(err)
	}

	// Claude Code's hooks: a call that is never answered, one that is.
	call := `"session_id":"s1","tool_name":"Bash","tool_input":` + string(text) + `,"tool_use_id":"t`
	run(`{"hook_event_name":"PreToolUse",`+call+`1"}`, "hook", "claude-code")
	run(`{"hook_event_name":"PreToolUse",`+call+`2"}`, "hook", "claude-code")
	calls, _ := filepath.Glob(filepath.Join(state, "*", "*", "*.pending"))
	if len(calls) != 2 {
		t.Errorf("%d calls wait", len(calls))
	}
	s.Dir(t, "begun by Claude Code", dir+"/out")
	run(`{"hook_event_name":"PostToolUse",`+call+`2","tool_response":`+string(text)+`}`, "hook", "claude-code")
	run(canary.Text(), "hook", "claude-code") // no JSON at all
	run(`{"session_id":"s1","hook_event_name":"SessionEnd"}`, "hook", "claude-code")

	// OpenTelemetry, whole and broken.
	serve := exec.Command(program, "serve", "--otlp", "127.0.0.1:0", "--log", log)
	serve.Env = append(os.Environ(), "KAIZEN_AUDIT_STATE="+state)
	complaints, err := os.Create(filepath.Join(dir, "serve.out"))
	if err != nil {
		t.Fatal(err)
	}
	defer complaints.Close()
	serve.Stderr, serve.Stdout = complaints, complaints
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	address := ""
	for until := time.Now().Add(20 * time.Second); address == "" && time.Now().Before(until); time.Sleep(10 * time.Millisecond) {
		said, _ := os.ReadFile(complaints.Name())
		address = regexp.MustCompile(`127\.0\.0\.1:\d+`).FindString(string(said))
	}
	quoted, _ := json.Marshal(string(text))
	for _, body := range []string{
		`{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","name":"chat","startTimeUnixNano":"1700000000000000000","endTimeUnixNano":"1700000001000000000","attributes":[{"key":"gen_ai.operation.name","value":{"stringValue":"chat"}},{"key":"gen_ai.input.messages","value":{"stringValue":` + string(quoted) + `}},{"key":"x","value":{"intValue":"` + canary.All[0].Core + `"}}]}]}]}]}`,
		`{"resourceSpans":` + string(text),
	} {
		res, err := http.Post("http://"+address+"/v1/traces", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		answer, _ := io.ReadAll(res.Body)
		res.Body.Close()
		s.In(t, "answer", answer)
	}
	if err := serve.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = serve.Wait()
	s.Dir(t, "serve", dir+"/serve.out")

	// Everything again: lines, a report, a sealed segment.
	run("", "report", "--format", "json")
	run("", "trace", "--last")
	entries := run("", "query", "--format", "jsonl")
	s.Dir(t, "in the end", dir+"/out")
	run("", "rotate")
	s.Dir(t, "sealed", dir+"/out")
	counts := map[string]int{}
	for l := range strings.Lines(entries) {
		e, err := entry.Parse([]byte(strings.TrimRight(l, "\n")))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(l, "****") {
			counts[e.AgentID+" "+e.RecordedBy.Text("via")]++
		}
	}
	if _, err := exec.LookPath("python3"); err == nil && counts["python socket"] == 0 {
		t.Error("no masked entry of the Python client")
	}
	t.Logf("%d files and %d bytes were searched; masked entries: %v", s.Files, s.Bytes, counts)
	for _, who := range []string{"canary ", "adapters ", "canary socket", "canary spool", "canary import", "claude-code ", "claude-code spool", "unknown otlp"} {
		if counts[who] == 0 {
			t.Errorf("no masked entry of %q", who)
		}
	}
}
