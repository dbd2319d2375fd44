package hook

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/kms"
)

// What an agent has begun waits in a file, sealed where the trail is; and is told
// as unknown after a crash all the same.
func TestWhatHasBegunWaitsSealed(t *testing.T) {
	dir := t.TempDir()
	kek, err := kms.NewLocal(bytes.Repeat([]byte{1}, 32))
	if err != nil {
		t.Fatal(err)
	}
	trail, err := audit.Open(filepath.Join(dir, "audit.jsonl"), &audit.Options{Encrypt: true, KEK: kek, StateDir: filepath.Join(dir, "state")})
	if err != nil {
		t.Fatal(err)
	}
	defer trail.Close()
	recorder, err := NewAuditTrailHook(trail, nil)
	if err != nil {
		t.Fatal(err)
	}
	hooks := &Manager{AgentID: "canary-agent"}
	if err := hooks.RegisterHook(recorder, nil); err != nil {
		t.Fatal(err)
	}
	ctx := WithMetadata(context.Background(), map[string]any{"user_id": "canary-user"})
	if _, err := hooks.Trigger(ctx, PreToolUse, Data{Name: "canary-tool", Inputs: audit.Of(map[string]any{"canary": "canary-input"})}); err != nil {
		t.Fatal(err)
	}
	notes := 0
	err = filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(name)
		if bytes.Contains(text, []byte("canary")) {
			t.Errorf("%s has it in clear", d.Name())
		}
		if filepath.Ext(name) == begunSuffix && bytes.Contains(text, []byte(`{"sealed":"v1"`)) {
			notes++
		}
		return err
	})
	if err != nil || notes != 1 {
		t.Fatalf("%d notes, %v", notes, err)
	}
	texts := begunTextsIn(t, dir)
	if len(texts) != 1 {
		t.Fatalf("%d notes", len(texts))
	}
	ev, known := abandonedEvent("f", 1, texts[0], trail.ParsePending)
	if !known || ev.Action != "tool_use:canary-tool" || ev.Inputs.Text("canary") != "canary-input" {
		t.Errorf("%v, %s", known, ev.Action)
	}
	if err := recorder.Close(); err != nil {
		t.Error(err)
	}
}

func begunTextsIn(t *testing.T, dir string) (texts [][]byte) {
	t.Helper()
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(name) != begunSuffix {
			return err
		}
		data, err := os.ReadFile(name)
		texts = append(texts, begunTexts(data)...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return texts
}
