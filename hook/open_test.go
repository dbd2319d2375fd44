package hook

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	audit "github.com/kaizen-audit/kaizen-audit"
)

// The agent runs all the same, and everything is in the trail in the end, once.
func TestATrailThatCannotBeOpenedYet(t *testing.T) {
	for _, c := range []struct {
		name  string
		block func(t *testing.T, path string, opts *audit.Options) (release func() error)
	}{
		{"locked", func(t *testing.T, path string, opts *audit.Options) func() error {
			deaf := *opts
			deaf.NoSocket = true
			holder, err := audit.Open(path, &deaf)
			if err != nil {
				t.Fatal(err)
			}
			return holder.Close
		}},
		{"gone", func(t *testing.T, path string, _ *audit.Options) func() error {
			if err := os.WriteFile(filepath.Dir(path), nil, 0o600); err != nil { // a file where a directory should be
				t.Fatal(err)
			}
			return func() error { return errors.Join(os.Remove(filepath.Dir(path)), os.Mkdir(filepath.Dir(path), 0o700)) }
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			path, opts := filepath.Join(dir, "logs", "audit.jsonl"), &audit.Options{StateDir: filepath.Join(dir, "state")}
			if c.name == "locked" {
				if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			release := c.block(t, path, opts)
			if h, err := OpenAuditTrailHook(path, opts, &AuditOptions{FailClosed: true}); err == nil {
				h.Close()
				t.Fatal("fail closed: no error")
			}
			h, err := OpenAuditTrailHook(path, opts, nil)
			if err != nil {
				t.Fatal(err)
			}
			m := &Manager{AgentID: "a"}
			if err := m.RegisterHook(h, nil); err != nil {
				t.Fatal(err)
			}
			n := 0
			one := func() {
				if _, err := m.Do(context.Background(), ToolUse, Data{Name: "t"}, func(context.Context) (any, error) { return n, nil }); err != nil {
					t.Error(err)
				}
				n++
			}
			for range 3 {
				one()
			}
			if s := h.Stats(); s.Spooled != 3 || s.Lost != 0 {
				t.Errorf("%+v", s)
			}
			if err := release(); err != nil {
				t.Fatal(err)
			}
			for deadline := time.Now().Add(20 * time.Second); h.Stats().Recorded == 0; time.Sleep(10 * time.Millisecond) {
				if one(); time.Now().After(deadline) {
					t.Fatalf("%+v", h.Stats())
				}
			}
			if err := h.Close(); err != nil {
				t.Error(err)
			}
			trail, err := audit.Open(path, opts) // nobody holds it any more
			if err != nil {
				t.Fatal(err)
			}
			defer trail.Close()
			if got := entries(t, trail); len(got) != n {
				t.Errorf("%d entries of %d", len(got), n)
			}
		})
	}
}
