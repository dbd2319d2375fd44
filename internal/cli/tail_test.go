package cli

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
)

// TestTailFollows: what another process records appears, through a rotation,
// each entry once, and a signal ends it with exit code 0.
func TestTailFollows(t *testing.T) {
	log := filepath.Join(t.TempDir(), "a.jsonl")
	t.Setenv("KAIZEN_AUDIT_STATE", t.TempDir())
	ctx, signal := context.WithCancel(t.Context())
	record := func(from, n int) {
		var in strings.Builder
		for i := from; i < from+n; i++ {
			fmt.Fprintf(&in, `{"event_type":"TOOL_USE","agent_id":"a","action":"x","metadata":{"n":%d}}`+"\n", i)
		}
		if code, _, errs := main(t, in.String(), "record", "--log", log); code != exitDone {
			t.Fatalf("record: exit code %d\n%s", code, errs)
		}
	}
	record(0, 4)
	_, out, stderr, exit := run(t, ctx, "tail", "-f", "-n", "2", "--agent", "a", "--format", "jsonl", "--log", log)
	next := 2
	read := func(to int) {
		within(t, "followed entries", func() error {
			for ; next < to; next++ {
				line, err := out.ReadString('\n')
				if err != nil {
					return err
				}
				if !strings.Contains(line, fmt.Sprintf(`"metadata":{"n":%d}`, next)) {
					return fmt.Errorf("%s where %d is due", line, next)
				}
			}
			return nil
		})
	}
	read(4)
	record(4, 3)
	read(7)
	if code, _, errs := main(t, "", "rotate", "--log", log); code != exitDone {
		t.Fatalf("rotate: exit code %d\n%s", code, errs)
	}
	record(7, 2000)
	read(2007)
	signal()
	within(t, "its end", func() error {
		rest, err := io.ReadAll(out)
		if err == nil && len(rest) > 0 {
			err = fmt.Errorf("more output: %s", rest)
		}
		return err
	})
	if code := <-exit; code != exitDone || stderr.Len() > 0 {
		t.Errorf("exit code %d\n%s", code, stderr)
	}
	code, stdout, errs := main(t, "", "query", "--event-type", "AUDIT_QUERY", "--action", "tail", "--format", "jsonl", "--log", log)
	if code != exitDone || strings.Count(stdout, "\n") != 1 || !strings.Contains(stdout, `"follow":true`) {
		t.Errorf("%d\n%s%s", code, stdout, errs)
	}
}
