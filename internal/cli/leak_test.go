package cli

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/adapter/llmhttp"
	"github.com/kaizen-audit/kaizen-audit/adapter/slogaudit"
	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/hook"
)

// canaries are what must not be found anywhere, and how a caller writes them.
// They are put together here, so that no scanner takes this file for a leak.
var canaries = []struct{ core, text string }{
	{"4111111111111111", "4111111111111111"},
	{"5500005555555559", "5500-0055-5555-5559"},
	{"378282246310005", "3782 822463 10005"},
	{"XQ7canaryPassw0rd", "password=XQ7canary" + "Passw0rd"},
	{"k2JcanaryToken9aQ4wErT6yUi8", "Authorization: Bearer k2Jcanary" + "Token9aQ4wErT6yUi8"},
	{"AKIA" + "Q7CANARY3XWDPLM2", "AKIA" + "Q7CANARY3XWDPLM2"},
	{"MC4CAQAwBQYDK2VwBCIEIcanary", "-----BEGIN " + "PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIcanary7Wt1cXn0\n-----END " + "PRIVATE KEY-----"},
}

// canaryText is all of them, and one across each border of the usual buffers.
func canaryText() string {
	var b strings.Builder
	for _, c := range canaries {
		b.WriteString("said: " + c.text + "\n")
	}
	for _, border := range []int{4 << 10, 32 << 10, 64 << 10} {
		b.WriteString(strings.Repeat("lorem ipsum ", (border-b.Len())/12))
		b.WriteString(" " + canaries[0].text + " " + canaries[3].text + " ")
	}
	return b.String()
}

// canaryObject has them in every form that JSON has.
func canaryObject() map[string]any {
	inner, _ := json.Marshal(map[string]any{"card": map[string]any{"number": canaries[1].text, "cvv": "908"}, "why": canaries[4].text})
	nested, _ := json.Marshal(map[string]any{"payload": string(inner)})
	return map[string]any{
		"text": canaryText(), "number": json.Number(canaries[0].core), "list": []any{canaries[1].text, 1}, canaries[0].text: 1,
		"json": string(inner), "nested": string(nested), "password": "XQ7canary" + "Passw0rd", "card_number": canaries[2].text,
		"escaped": "x " + canaries[0].text + "\u2028 \"quoted\"",
	}
}

// escapedObject is the same with every character of strings as an escape.
func escapedObject() string {
	return `{"escaped":"` + regexp.MustCompile(`.`).ReplaceAllStringFunc(canaries[0].text, func(s string) string { return fmt.Sprintf(`\u%04x`, s[0]) }) + `"}`
}

type needle struct{ what, text string }

// needles are the canaries' encodings.
func needles() []needle {
	var out []needle
	add := func(what, s string) { out = append(out, needle{what, strings.ToLower(s)}) }
	for _, c := range canaries {
		for _, s := range []string{c.core, strings.TrimPrefix(c.text, "password=")} {
			add("plain", s)
			add("hex", hex.EncodeToString([]byte(s)))
			add("URL", url.QueryEscape(s))
			var u strings.Builder
			for _, b := range []byte(s) {
				fmt.Fprintf(&u, `\u%04x`, b)
			}
			add("JSON escapes", u.String())
			for shift := range 3 { // base64 has three forms, by where it begins
				e := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", shift) + s))
				add("base64", strings.TrimRight(e, "=")[4:len(strings.TrimRight(e, "="))-2])
			}
		}
	}
	return out
}

// searched counts what was looked into.
type searched struct{ files, bytes int }

// search looks for the canaries in every file and name below dir.
func (s *searched) search(t *testing.T, when, dir string) {
	t.Helper()
	look := needles()
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Type()&fs.ModeSocket != 0 {
			return nil // it may go meanwhile
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return nil
		}
		s.files++
		if strings.HasSuffix(name, ".zst") {
			r, err := zstd.NewReader(bytes.NewReader(data))
			if err != nil {
				return err
			}
			defer r.Close()
			plain, err := io.ReadAll(r)
			if err != nil {
				return err
			}
			data = append(data, plain...)
		}
		s.bytes += len(data)
		s.look(t, when+": "+strings.TrimPrefix(name, dir), look, append(data, filepath.Base(name)...))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (s *searched) look(t *testing.T, where string, look []needle, data []byte) {
	t.Helper()
	data = bytes.ToLower(data)
	for _, n := range look {
		if at := bytes.Index(data, []byte(n.text)); at >= 0 {
			t.Errorf("%s: %s of %q: %.200q", where, n.what, n.text, data[max(0, at-80):])
			return
		}
	}
}

// TestNothingLeaks hands canaries in by every way there is, and looks into every
// file that came of it, while it waits and after it was recorded.
func TestNothingLeaks(t *testing.T) {
	dir := t.TempDir()
	log, state := filepath.Join(dir, "out", "audit.jsonl"), filepath.Join(dir, "out", "state")
	if err := os.MkdirAll(filepath.Dir(log), 0o700); err != nil {
		t.Fatal(err)
	}
	opts := &audit.Options{StateDir: state}
	program, look := theProgram(t), needles()
	var s searched
	run := func(in string, args ...string) string {
		t.Helper()
		cmd := exec.Command(program, append(args, "--log", log)...)
		cmd.Env = append(os.Environ(), "KAIZEN_AUDIT_STATE="+state)
		cmd.Stdin = strings.NewReader(in)
		var out, complaints bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &complaints
		_ = cmd.Run() // what is refused makes another exit code
		s.look(t, strings.Join(args, " ")+": stderr", look, complaints.Bytes())
		s.look(t, strings.Join(args, " ")+": stdout", look, out.Bytes())
		return out.String()
	}
	ev := audit.Event{
		EventType: "TOOL_USE", AgentID: "canary", Action: "tool_use:pay " + canaries[0].text, Inputs: audit.Of(canaryObject()), Outputs: audit.Of([]any{canaryText()}),
		Error: new(canaryText()), Metadata: audit.Of(canaryObject()), Authority: audit.Of(canaryObject()), Purpose: canaries[1].text, Outcome: canaries[2].text,
		IdempotencyKey: "key " + canaries[0].text, DurationMS: 4111111111111111,
	}
	text, err := json.Marshal(canaryObject())
	if err != nil {
		t.Fatal(err)
	}
	line := func(action, inputs string) string {
		return fmt.Sprintf(`{"timestamp":"2026-01-02T03:04:05Z","event_type":"TOOL_USE","agent_id":"canary","action":%q,"inputs":%s,"duration_ms":4111111111111111}`, action, inputs) + "\n"
	}
	ctx := context.Background()

	// The command line, with lines that are refused; an old log; readings.
	run(line("record", string(text))+line("escapes", escapedObject())+`{"event_type":"`+canaries[0].text+`"}`+"\n"+`{"`+canaries[0].text+`":1}`+"\n"+canaryText(), "record")
	s.search(t, "recorded", dir+"/out")
	old := filepath.Join(dir, "old.jsonl")
	if err := os.WriteFile(old, []byte(line("old", string(text))+canaries[0].text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run("", "import", old)
	run("", "query", "--text", canaries[0].text)
	run("", "query", "--action", canaries[3].text)

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
	broken.IdempotencyKey, broken.Inputs = "broken", audit.Raw([]byte(`{"card":"`+canaries[0].text+`","card":1}`))
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
	small, _ := json.Marshal(map[string]any{"card_number": canaries[2].text, "n": json.Number(canaries[0].core), "say": canaries[3].text})
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
	s.search(t, "begun", dir+"/out")
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
	asked.Header.Set("Authorization", "Bearer "+canaries[4].core)
	answer, err := (&http.Client{Transport: llmhttp.NewTransport(adapters, nil)}).Do(asked)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		t.Error(err)
	}
	answer.Body.Close()
	slog.New(slogaudit.NewHandler(adapters, nil)).Info(canaries[0].text, "card_number", canaries[2].text, "say", canaries[3].text)
	s.search(t, "adapters", dir+"/out")
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
		s.look(t, "python", look, out)
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
	spooled.IdempotencyKey = "spooled " + canaries[0].text
	if err := audit.Capture(ctx, log, opts, spooled); err != nil {
		t.Fatal(err)
	}
	// On a busy machine the holder may take it in before anybody looks again.
	waiting, _ := filepath.Glob(filepath.Join(dir, "out", "audit.trail", "spool", "*.json"))
	run(`{"session_id":"s1","hook_event_name":"UserPromptSubmit","prompt":"pay with `+canaries[0].text+`"}`, "hook", "claude-code")
	also, _ := filepath.Glob(filepath.Join(dir, "out", "audit.trail", "spool", "*.json"))
	if len(waiting)+len(also) == 0 {
		t.Error("nothing waits in the spool")
	}
	s.search(t, "spooled", dir+"/out")
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
	s.search(t, "begun by Claude Code", dir+"/out")
	run(`{"hook_event_name":"PostToolUse",`+call+`2","tool_response":`+string(text)+`}`, "hook", "claude-code")
	run(canaryText(), "hook", "claude-code") // no JSON at all
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
		`{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","name":"chat","startTimeUnixNano":"1700000000000000000","endTimeUnixNano":"1700000001000000000","attributes":[{"key":"gen_ai.operation.name","value":{"stringValue":"chat"}},{"key":"gen_ai.input.messages","value":{"stringValue":` + string(quoted) + `}},{"key":"x","value":{"intValue":"` + canaries[0].core + `"}}]}]}]}]}`,
		`{"resourceSpans":` + string(text),
	} {
		res, err := http.Post("http://"+address+"/v1/traces", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		answer, _ := io.ReadAll(res.Body)
		res.Body.Close()
		s.look(t, "answer", look, answer)
	}
	if err := serve.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = serve.Wait()
	s.search(t, "serve", dir+"/serve.out")

	// Everything again: lines, a report, a sealed segment.
	run("", "report", "--format", "json")
	run("", "trace", "--last")
	entries := run("", "query", "--format", "jsonl")
	s.search(t, "in the end", dir+"/out")
	run("", "rotate")
	s.search(t, "sealed", dir+"/out")
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
	t.Logf("%d files and %d bytes were searched; masked entries: %v", s.files, s.bytes, counts)
	for _, who := range []string{"canary ", "adapters ", "canary socket", "canary spool", "canary import", "claude-code ", "claude-code spool", "unknown otlp"} {
		if counts[who] == 0 {
			t.Errorf("no masked entry of %q", who)
		}
	}
}
