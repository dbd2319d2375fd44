package claudecode

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/policy"
)

var update = flag.Bool("update", false, "write the golden files")

// line is an event as it is stored, with what the trail adds held fixed.
func line(t *testing.T, ev entry.Event) []byte {
	t.Helper()
	st := &entry.Stamp{EventID: "01a206d7-e571-79eb-a84a-6a407a3be418", RecordedAt: time.Unix(0, 0), TraceID: "made-here"}
	if err := entry.KeepFact(&ev, st, nil); err != nil {
		t.Fatal(err)
	}
	text, err := entry.AppendLine(nil, &ev, st)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
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
	g, w := bytes.Split(got, []byte("\n")), bytes.Split(want, []byte("\n"))
	for i := range max(len(g), len(w)) {
		switch {
		case i >= len(g) || i >= len(w):
			t.Fatalf("%s: %d lines, want %d", name, len(g), len(w))
		case !bytes.Equal(g[i], w[i]):
			t.Errorf("%s:%d:\n got %s\nwant %s", name, i+1, g[i], w[i])
		}
	}
}

// A session of a real agent run, told in the documented shapes of hooks, gives
// these entries.
func TestASessionOfHooksGivesTheseEntries(t *testing.T) {
	file, err := os.Open(filepath.Join("testdata", "hooks.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	pending := Pending{Dir: t.TempDir()}
	var got bytes.Buffer
	record := func(ev entry.Event) { got.Write(append(line(t, ev), '\n')) }
	in := bufio.NewScanner(file)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var l struct {
			At   time.Time
			Hook json.RawMessage
		}
		if err := json.Unmarshal(in.Bytes(), &l); err != nil {
			t.Fatal(err)
		}
		h := Parse(l.Hook)
		switch {
		case h.Begins():
			if err := pending.Put(h, l.At, left); err != nil {
				t.Fatal(err)
			}
			continue
		case h.EndsSession():
			for b := range pending.Unanswered(l.At, h.SessionID) {
				record(b.Unknown())
				if err := b.Done(); err != nil {
					t.Fatal(err)
				}
			}
		}
		var begun *Begun
		if h.Answers() {
			begun = pending.Find(h)
		}
		record(h.Event(l.At, begun))
		if begun != nil {
			if err := begun.Done(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if files, _ := os.ReadDir(pending.Dir); len(files) != 0 {
		t.Errorf("%d calls wait on", len(files))
	}
	golden(t, "hooks.golden", got.Bytes())
}

// The same session, from Claude Code's own file.
func TestASessionFileGivesTheseEntries(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "session.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	read := func(now time.Time) *Session {
		s, err := ReadSession(bytes.NewReader(data), "file", now)
		if err != nil || len(s.Passed) > 0 {
			t.Fatalf("%v, %v", s.Passed, err)
		}
		return s
	}
	later := read(time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC))
	var got bytes.Buffer
	keys := map[string]bool{}
	for _, ev := range later.Events {
		if keys[ev.IdempotencyKey] {
			t.Errorf("%s twice", ev.IdempotencyKey)
		}
		keys[ev.IdempotencyKey] = true
		got.Write(append(line(t, ev), '\n'))
	}
	golden(t, "session.golden", got.Bytes())
	// While it goes on, a call without a result is none yet.
	now := read(time.Date(2026, 3, 4, 9, 1, 30, 0, time.UTC))
	if now.Running == 0 || len(now.Events)+now.Running != len(later.Events) || later.Running != 0 {
		t.Errorf("%d events and %d that run, %d later", len(now.Events), now.Running, len(later.Events))
	}
}

func TestACallWaitsUnderANameThatSaysNothing(t *testing.T) {
	p := Pending{Dir: filepath.Join(t.TempDir(), "a", "b")}
	at := time.Now().Add(-time.Minute)
	h := Parse([]byte(`{"session_id":"jane","hook_event_name":"PreToolUse","tool_name":"Secret","tool_input":{"a":1},"tool_use_id":"toolu_1"}`))
	if err := p.Put(h, at, left); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(p.Dir)
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	if fi, _ := files[0].Info(); fi.Mode() != 0o600 {
		t.Errorf("mode %s", fi.Mode())
	}
	for _, s := range []string{"jane", "Secret", "toolu_1"} {
		if strings.Contains(files[0].Name(), s) {
			t.Errorf("%s is in %s", s, files[0].Name())
		}
	}
	none := func(session string, now time.Time) int {
		n := 0
		for range p.Unanswered(now, session) {
			n++
		}
		return n
	}
	if n := none("", time.Now()); n != 0 {
		t.Errorf("%d are overdue", n)
	}
	if n := none("joe", time.Now()); n != 0 {
		t.Errorf("%d of another session", n)
	}
	if none("jane", time.Now()) != 1 || none("", time.Now().Add(Overdue+time.Minute)) != 1 {
		t.Error("it is not found")
	}
	answer := Parse([]byte(`{"session_id":"jane","hook_event_name":"PostToolUse","tool_name":"Secret","tool_use_id":"toolu_1","tool_response":[1]}`))
	begun := p.Find(answer)
	if begun == nil || !begun.At.Equal(at) {
		t.Fatalf("%+v", begun)
	}
	ev := answer.Event(at.Add(1500*time.Millisecond), begun)
	if ev.DurationMS != 1500 || !ev.Timestamp.Equal(at) || !bytes.Contains(line(t, ev), []byte(`"inputs":{"a":1},"outputs":{"value":[1]}`)) {
		t.Errorf("%s", line(t, ev))
	}
	// Cut short by a crash: there was a call.
	if err := os.Truncate(filepath.Join(p.Dir, files[0].Name()), 5); err != nil {
		t.Fatal(err)
	}
	if p.Find(answer) != nil {
		t.Error("a broken file answers")
	}
	for b := range p.Unanswered(time.Now(), "jane") {
		if ev := b.Unknown(); ev.Action != "tool_use:unknown" || ev.Outcome != "unknown" || ev.TraceID == "" {
			t.Errorf("%+v", ev)
		}
	}
}

// Whatever a hook is given, there is an event of it that can be recorded, with
// its session as its trace.
func FuzzHook(f *testing.F) {
	data, err := os.ReadFile(filepath.Join("testdata", "hooks.jsonl"))
	if err != nil {
		f.Fatal(err)
	}
	for l := range bytes.Lines(data) {
		var hook struct{ Hook json.RawMessage }
		if err := json.Unmarshal(l, &hook); err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(hook.Hook))
	}
	for _, s := range []string{``, `[]`, `{"session_id":1}`, `{"a":1,"a":2}`, `{"hook_event_name":"PostToolUse","duration_ms":1e300}`, "{\"hook_event_name\":\"\xff\",\"tool_input\":{\"a\":1,\"a\":2}}"} {
		f.Add([]byte(s))
	}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text []byte) {
		h := Parse(text)
		for _, begun := range []*Begun{nil, {At: now.Add(-time.Second), Event: h.Event(now, nil)}} {
			ev := h.Event(now, begun)
			e, err := entry.Parse(line(t, ev))
			if err != nil {
				t.Fatal(err)
			}
			if h.SessionID != "" && (e.TraceID != h.SessionID || e.Metadata.Text("session_id") != h.SessionID) {
				t.Errorf("session %q, trace %q, metadata %q", h.SessionID, e.TraceID, e.Metadata.Text("session_id"))
			}
			if e.AgentID != Agent || e.DurationMS < 0 {
				t.Errorf("%s", e.Line())
			}
		}
	})
}

func FuzzPending(f *testing.F) {
	f.Add([]byte("{\"format\":1,\"at\":\"2026-01-02T03:04:05Z\"}\n{\"session_id\":\"s\"}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if b, err := (Pending{}).parse(data); err == nil {
			line(t, b.Unknown())
		}
	})
}

func FuzzSession(f *testing.F) {
	data, err := os.ReadFile(filepath.Join("testdata", "session.jsonl"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"type":"assistant","message":{"content":[1,{"type":"tool_use"}]}}`))
	now := time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := ReadSession(bytes.NewReader(data), "file", now)
		if err != nil {
			t.Fatal(err)
		}
		for _, ev := range s.Events {
			line(t, ev)
		}
	})
}

// left is what the default policy leaves.
func left(ev *entry.Event) (text, notes []byte, err error) {
	return policy.Default().AppendEvent(nil, ev, policy.Run{KeepFact: true})
}
