package audit

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
)

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "kaizen-audit-state")
	if err != nil {
		panic(err)
	}
	os.Setenv("KAIZEN_AUDIT_STATE", dir)
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

func event(agent, action string) Event {
	return Event{EventType: ToolUse, AgentID: agent, TraceID: "trace-1", Action: action,
		Inputs: Raw([]byte(`{"expression": "2 + 2"}`)), Outputs: Of(map[string]any{"result": 4}), DurationMS: 45.2,
		Metadata: Of(map[string]any{"user_id": "user123"})}
}

func TestRecordAndQuery(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	trail, err := Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		r, err := trail.Record(context.Background(), event("qa-agent-001", "tool_use:calculator"))
		if err != nil {
			t.Fatal(err)
		}
		if r.Index != int64(i)+1 || !r.Durable {
			t.Fatalf("receipt %+v", r)
		}
	}
	got, err := collect(trail.Query(context.Background(), Query{Agent: "qa-agent-001"}))
	if err != nil || len(got) != 1000 {
		t.Fatalf("%d entries, %v", len(got), err)
	}
	if _, err := trail.Rotate(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, err := trail.Record(context.Background(), event("other", "x")); err != nil {
		t.Fatal(err)
	}
	got, err = collect(trail.Query(context.Background(), Query{User: "user123"}))
	if err != nil || len(got) != 1001 {
		t.Fatalf("%d entries, %v", len(got), err)
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	trail, err = Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := trail.Record(context.Background(), event("third", "x"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := trail.Prove(context.Background(), 17)
	if err != nil {
		t.Fatal(err)
	}
	e, _, err := trail.entryAt(context.Background(), 17)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := CheckProof(p, e.Digest(), trail.VKey()); err != nil {
		t.Fatal(err)
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	data, _ := os.ReadFile(path)
	t.Logf("%d\n%s", r.Index, bytes.TrimSpace(data))
}
