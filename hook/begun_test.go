package hook

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	audit "github.com/kaizen-audit/kaizen-audit"
)

// noted gives what stands in the file of what was begun.
func notedText(t *testing.T, trail *audit.Trail) []byte {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(begunDir(trail), "*"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	if fi, err := os.Stat(files[0]); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
	data, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestWhatHasEndedIsWipedFromTheNote(t *testing.T) {
	trail := openTrail(t, audit.Written)
	m, _ := recorder(t, trail, nil)
	open := trigger(t, m, context.Background(), PreToolUse, Data{Name: "open", Inputs: object("still here")})
	for i := range 3 { // the second is shorter than what it overwrites
		ctx := trigger(t, m, context.Background(), PreToolUse, Data{Name: "t", Inputs: object(strings.Repeat("secret", 20-5*i))})
		if !bytes.Contains(notedText(t, trail), []byte(`"secretsecret`)) {
			t.Error("what has begun is not noted")
		}
		trigger(t, m, ctx, PostToolUse, Data{})
	}
	for deadline := time.Now().Add(10 * time.Second); bytes.Contains(notedText(t, trail), []byte("secret")); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it is still there")
		}
	}
	if texts := begunTexts(notedText(t, trail)); len(texts) != 1 || !bytes.Contains(texts[0], []byte("still here")) {
		t.Errorf("%q", texts)
	}
	trigger(t, m, open, PostToolUse, Data{})
}

// A disk that is slow to take the note of a beginning: the action ends, and its end
// is recorded, before the note is made.
func TestANoteThatComesAfterTheEndIsNotMade(t *testing.T) {
	trail := openTrail(t, audit.Written)
	m, h := recorder(t, trail, &AuditOptions{Timeout: 10 * time.Millisecond, Warn: func(err error) { t.Log(err) }})
	h.begun.mu.Lock()
	ctx := trigger(t, m, context.Background(), PreToolUse, Data{Name: "t"})
	trigger(t, m, ctx, PostToolUse, Data{})
	for deadline := time.Now().Add(10 * time.Second); h.Stats().Recorded == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%+v", h.Stats())
		}
	}
	h.begun.mu.Unlock()
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	if got := briefs(entries(t, trail)); got != "TOOL_USE tool_use:t\n" {
		t.Errorf("%s", got)
	}
}

func TestWhatDoesNotFitIntoANoteIsNotedWithoutItsInputs(t *testing.T) {
	trail := openTrail(t, audit.Written)
	m, h := recorder(t, trail, nil)
	ctx := trigger(t, m, context.Background(), PreToolUse, Data{Name: "t", Inputs: object(strings.Repeat("x", slotBytes))})
	texts := begunTexts(notedText(t, trail))
	if len(texts) != 1 || !bytes.Contains(texts[0], []byte(`"omitted"`)) || !bytes.Contains(texts[0], []byte("tool_use:t")) {
		t.Errorf("%q", texts)
	}
	trigger(t, m, ctx, PostToolUse, Data{})
	if got := entries(t, trail); len(got) != 1 || len(got[0].Inputs.Text("value")) != slotBytes || h.Stats().Unnoted != 0 {
		t.Errorf("%d entries, %+v", len(got), h.Stats())
	}
}

func TestAnAgentThatNeverTellsOfEndsFillsNothing(t *testing.T) {
	trail := openTrail(t, audit.Written)
	h, err := NewAuditTrailHook(trail, nil)
	if err != nil {
		t.Fatal(err)
	}
	m := &Manager{AgentID: "a"}
	if err := m.RegisterHook(h, nil); err != nil {
		t.Fatal(err)
	}
	for i := range maxBegun + 10 {
		trigger(t, m, context.Background(), PreToolUse, Data{Name: fmt.Sprint(i)})
	}
	if s := h.Stats(); s.Unnoted != 10 || len(notedText(t, trail)) > maxBegunFile {
		t.Errorf("%+v", s)
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	if s := h.Stats(); s.Recorded != maxBegun || s.Lost != 0 {
		t.Errorf("%+v", s)
	}
}
