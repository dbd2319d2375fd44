package audit

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The documented test: record one event; the file exists; one entry by agent;
// its action.
func TestAuditTrailManager(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "test_audit.jsonl")
	manager, err := NewAuditTrailManager(ManagerOptions{AuditLogPath: path})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	if _, err := manager.RecordEvent(ctx, map[string]any{
		"timestamp": time.Now(), "event_type": "TOOL_USE", "agent_id": "test_agent", "trace_id": "trace_123",
		"action": "test_action", "inputs": map[string]any{"param": "value"}, "outputs": map[string]any{"result": "success"},
		"duration_ms": 100.0, "success": true, "error": nil, "metadata": map[string]any{},
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	entries, err := manager.QueryByAgent(ctx, "test_agent")
	if err != nil || len(entries) != 1 {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	if entries[0].Action != "test_action" {
		t.Fatalf("action %q", entries[0].Action)
	}
}

func TestManagerDefaultsAndQueries(t *testing.T) {
	ctx := context.Background()
	m, err := NewAuditTrailManager(ManagerOptions{AuditLogPath: filepath.Join(t.TempDir(), "a.jsonl"), RetentionDays: 2555})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	r, err := m.RecordEvent(ctx, map[string]any{"event_type": "TOOL_USE", "agent_id": "a", "action": "x",
		"inputs": "text", "metadata": map[string]any{"user_id": "u*1"}})
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2025, 10, 26, 10, 0, 0, 0, time.UTC)
	for i := range 3 {
		if _, err := m.RecordEvent(ctx, Event{EventType: ToolUse, AgentID: "b", TraceID: "t", Action: "y", Timestamp: at.Add(time.Duration(i) * time.Second),
			Metadata: Of(map[string]any{"user_id": "u11"})}); err != nil {
			t.Fatal(err)
		}
	}
	all, err := m.AuditEntries(ctx)
	if err != nil || len(all) != 4 {
		t.Fatalf("%d entries, %v", len(all), err)
	}
	e := all[0]
	if e.Index != r.Index || e.EventID != r.EventID || !e.Success || e.Error != nil || e.TraceID == "" || e.DurationMS != 0 ||
		e.Inputs.Text("value") != "text" || time.Since(e.Timestamp) > time.Minute {
		t.Errorf("defaults: %s", e.Line())
	}
	check := func(what string, want int, got []Entry, err error) {
		t.Helper()
		if err != nil || len(got) != want {
			t.Errorf("%s: %d entries, want %d, %v", what, len(got), want, err)
		}
	}
	got, err := m.QueryByTimeRange(ctx, at, at.Add(2*time.Second))
	check("time range, both ends", 3, got, err)
	got, err = m.QueryByTrace(ctx, "t")
	check("trace", 3, got, err)
	got, err = m.QueryByUser(ctx, "u*1") // a star of a user's id is a star
	check("user", 1, got, err)
	if got, err := m.QueryByUser(ctx, ""); err == nil {
		t.Errorf("an empty user means %d entries", len(got))
	}
	if _, err := m.ExportUserData(ctx, ""); err == nil {
		t.Error("an empty user's data are everybody's")
	}
	data, err := m.ExportUserData(ctx, "u*1")
	if err != nil || strings.Count(data, "event_id") != 1 {
		t.Errorf("export: %s, %v", data, err)
	}
	text, err := m.ExportComplianceReport(ctx)
	if err != nil || !strings.Contains(text, "Total entries: 4\n") || !strings.Contains(text, "Agent: b\n  Total operations: 3\n") {
		t.Errorf("report: %s, %v", text, err)
	}
}

// AccessControl has reading need a role, of those that are allowed.
func TestManagerControlsAccess(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	o := ManagerOptions{AuditLogPath: filepath.Join(dir, "a.jsonl"), AllowedRoles: []string{"auditor"}, Options: Options{StateDir: filepath.Join(dir, "state")}}
	if _, err := NewAuditTrailManager(o); err == nil || !strings.Contains(err.Error(), "AllowedRoles") {
		t.Errorf("%v", err)
	}
	o.AccessControl = true
	m, err := NewAuditTrailManager(o)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if _, err := m.AuditEntries(ctx); !errors.Is(err, ErrDenied) {
		t.Errorf("nobody reads: %v", err)
	}
	for role, may := range map[string]bool{"auditor": true, "security_admin": false} {
		if _, err := m.AuditEntries(WithPrincipal(ctx, Principal{ID: "x", Roles: []string{role}})); errors.Is(err, ErrDenied) == may {
			t.Errorf("%s: %v", role, err)
		}
	}
}

// EncryptAtRest makes a trail that seals, under the key that is given; what is no
// key is refused, and shown nowhere.
func TestManagerEncryptsAtRest(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	o := ManagerOptions{AuditLogPath: filepath.Join(dir, "a.jsonl"), EncryptAtRest: true, EncryptionKey: "hunter2", Options: Options{StateDir: filepath.Join(dir, "state")}}
	if _, err := NewAuditTrailManager(o); err == nil || !strings.Contains(err.Error(), "EncryptionKey") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("no key: %v", err)
	}
	o.EncryptionKey = strings.Repeat("0f", 32)
	m, err := NewAuditTrailManager(o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.RecordEvent(ctx, map[string]any{"event_type": "TOOL_USE", "agent_id": "a", "action": "b", "metadata": map[string]any{"user_id": "canary"}}); err != nil {
		t.Fatal(err)
	}
	if entries, err := m.QueryByUser(ctx, "canary"); err != nil || len(entries) != 1 || !m.Encrypts() {
		t.Errorf("%d entries, %v", len(entries), err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(o.AuditLogPath); err != nil || strings.Contains(string(text), "canary") {
		t.Errorf("in clear: %v", err)
	}
}
