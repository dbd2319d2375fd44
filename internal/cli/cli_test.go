package cli

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kaizen-audit/kaizen-audit/entry"
)

// TestEveryCommandIsDocumented: help with an example, a section of
// docs/cli.md, and each of its flags there.
func TestEveryCommandIsDocumented(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "..", "docs", "cli.md"))
	if err != nil {
		t.Fatal(err)
	}
	a := &app{stdout: newTerminal(io.Discard), stderr: newTerminal(io.Discard)}
	commands := a.root().Commands()
	if len(commands) < 12 {
		t.Fatalf("%d commands", len(commands))
	}
	for _, c := range commands {
		if c.Long == "" || !strings.Contains(c.Example, programName+" "+c.Name()) {
			t.Errorf("%s: help lacks a text or an example", c.Name())
		}
		if !bytes.Contains(doc, []byte("### "+c.Name())) {
			t.Errorf("%s: docs/cli.md lacks it", c.Name())
		}
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Name != "help" && !regexp.MustCompile(`--`+f.Name+`\b`).Match(doc) {
				t.Errorf("%s: docs/cli.md lacks --%s", c.Name(), f.Name)
			}
		})
		ours := regexp.MustCompile(`(?m)^ *curl .*$`).ReplaceAllString(c.Example, "")
		for _, m := range regexp.MustCompile(`--([a-z-]+)`).FindAllStringSubmatch(ours, -1) {
			if !hasFlag(commands, m[1]) {
				t.Errorf("%s: the example names --%s, which no command has", c.Name(), m[1])
			}
		}
	}
}

func hasFlag(commands []*cobra.Command, name string) bool {
	for _, c := range commands {
		if c.Flags().Lookup(name) != nil || c.InheritedFlags().Lookup(name) != nil {
			return true
		}
	}
	return false
}

// main runs the program to its end.
func main(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = Main(t.Context(), args, strings.NewReader(stdin), &out, &errs)
	return code, out.String(), errs.String()
}

// TestReadingWhileAnotherWrites: readers are served, their readings wait in the
// spool and are entries once the next writer came, and a second writer is told
// who holds the trail.
func TestReadingWhileAnotherWrites(t *testing.T) {
	log := filepath.Join(t.TempDir(), "a.jsonl")
	in, out, stderr, exit := run(t, t.Context(), "record", "--log", log)
	within(t, "receipt", func() error {
		if _, err := io.WriteString(in, oneEvent); err != nil {
			return err
		}
		_, err := out.ReadString('\n')
		return err
	})
	code, stdout, errs := main(t, "", "query", "--log", log, "--format", "jsonl")
	if code != exitDone || strings.Count(stdout, "\n") != 1 || errs != "" {
		t.Errorf("query: exit code %d\n%s%s", code, stdout, errs)
	}
	code, stdout, errs = main(t, "", "info", "--log", log)
	if code != exitDone || !strings.Contains(stdout, fmt.Sprint(os.Getpid())) {
		t.Errorf("info: exit code %d\n%s%s", code, stdout, errs)
	}
	code, _, errs = main(t, oneEvent, "record", "--log", log)
	if code != exitDone || errs != "" {
		t.Errorf("second writer: exit code %d\n%s", code, errs)
	}
	code, _, errs = main(t, "", "keys", "rotate", "--signing", "--log", log)
	if code != exitIO || !strings.Contains(errs, "trail is written by another process") || !strings.Contains(errs, "\nhint: ") {
		t.Errorf("keys rotate: exit code %d\n%s", code, errs)
	}
	in.Close()
	within(t, "end", func() error {
		if code := <-exit; code != exitDone {
			return fmt.Errorf("exit code %d: %s", code, stderr)
		}
		return nil
	})
	code, stdout, errs = main(t, "", "query", "--log", log, "--event-type", "AUDIT_QUERY", "--format", "jsonl")
	if code != exitDone || !strings.Contains(stdout, `"via":"socket"`) {
		t.Errorf("the reading is no entry: exit code %d\n%s%s", code, stdout, errs)
	}
}

// TestLifecycleWhileAnotherWrites: what only the holder may do is done by it, with the
// same words and exit codes as if nobody held the trail.
func TestLifecycleWhileAnotherWrites(t *testing.T) {
	t.Setenv("KAIZEN_AUDIT_STATE", t.TempDir())
	log := filepath.Join(t.TempDir(), "a.jsonl")
	in, out, stderr, exit := run(t, t.Context(), "record", "--log", log)
	within(t, "receipt", func() error {
		if _, err := io.WriteString(in, oneEvent); err != nil {
			return err
		}
		_, err := out.ReadString('\n')
		return err
	})
	held := []struct {
		args   []string
		code   int
		stdout string
		stderr string
	}{
		{[]string{"prune"}, exitIO, "", "no retention period was set, so nothing may be pruned\nhint: kaizen-audit retention set 2555 --log "},
		{[]string{"retention", "set", "400"}, exitDone, "Retention: 400 days\n", ""},
		{[]string{"retention", "set", "300", "--lock"}, exitDone, "Retention: 300 days, locked\n", ""},
		{[]string{"retention", "set", "200"}, exitUsage, "", "option RetentionDays: 200 days instead of 300: the period is locked: it only grows\n"},
		{[]string{"rotate"}, exitDone, "segments/00000000000000000000.jsonl.zst\n", ""},
		{[]string{"prune", "--dry-run"}, exitDone, "not old enough", ""},
		{[]string{"prune"}, exitDone, "", "nothing is due"},
		{[]string{"hold", "add", "--agent", "qa-agent-001", "--reason", "case 17"}, exitDone, "agent qa-agent-001\n", ""},
		{[]string{"hold", "list"}, exitDone, "agent qa-agent-001", ""},
		{[]string{"hold", "lift", "019b8660-0b80-7001-8001-000000000005", "--reason", "x"}, exitIO, "", "not found: no hold of this id is in force\nhint: kaizen-audit hold list --log "},
		{[]string{"erase-user", "user123", "--dry-run"}, exitIO, "", "the trail seals nothing: profile plain keeps what it records in clear\nhint: "},
	}
	for _, c := range held {
		code, stdout, errs := main(t, "", append(c.args, "--log", log)...)
		if code != c.code || !strings.Contains(stdout, c.stdout) || !strings.Contains(errs, c.stderr) {
			t.Errorf("%q: exit code %d\n%s%s", c.args, code, stdout, errs)
		}
	}
	_, dry, _ := main(t, "", "prune", "--dry-run", "--log", log)
	in.Close()
	within(t, "end", func() error {
		if code := <-exit; code != exitDone {
			return fmt.Errorf("exit code %d: %s", code, stderr)
		}
		return nil
	})
	if code, alone, errs := main(t, "", "prune", "--dry-run", "--log", log); code != exitDone || alone != dry {
		t.Errorf("exit code %d, through the holder:\n%s\nalone:\n%s%s", code, dry, alone, errs)
	}
	if code, stdout, errs := main(t, "", "verify", "--log", log); code != exitDone {
		t.Errorf("exit code %d\n%s%s", code, stdout, errs)
	}
}

// TestReaderThatHasEnoughIsNoError: kaizen-audit query | head.
func TestReaderThatHasEnoughIsNoError(t *testing.T) {
	t.Setenv("KAIZEN_AUDIT_STATE", t.TempDir())
	log := filepath.Join(t.TempDir(), "a.jsonl")
	if code, _, errs := main(t, oneEvent, "record", "--log", log); code != exitDone {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	for _, args := range [][]string{{"query"}, {"query", "--format", "json"}, {"trace", "--last"}, {"report"}, {"info"}} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		var errs bytes.Buffer
		if code := Main(t.Context(), append(args, "--log", log), strings.NewReader(""), w, &errs); code != exitDone || errs.Len() != 0 {
			t.Errorf("%v: exit code %d, %s", args, code, &errs)
		}
		w.Close()
	}
}

// TestSampleIsWholeRuns: every run begins and ends, is one tree, and nothing in
// it is refused.
func TestSampleIsWholeRuns(t *testing.T) {
	events, err := replay(demoRuns)
	if err != nil {
		t.Fatal(err)
	}
	if len(demoRuns) > 200<<10 || len(events) != 70 {
		t.Errorf("%d bytes, %d events", len(demoRuns), len(events))
	}
	runs := map[string][]entry.Entry{}
	for i := range events {
		line, err := entry.AppendLine(nil, &events[i], &entry.Stamp{EventID: entry.NewEventID(now), RecordedAt: now})
		if err != nil {
			t.Fatalf("event %d: %v", i, err)
		}
		e, err := entry.Parse(line)
		if err != nil {
			t.Fatalf("event %d: %v", i, err)
		}
		e.Index = int64(i)
		runs[e.TraceID] = append(runs[e.TraceID], e)
	}
	if len(runs) != 6 {
		t.Errorf("%d runs", len(runs))
	}
	for id, entries := range runs {
		last := entries[len(entries)-1]
		if entries[0].EventType != entry.AgentLoopStart || last.EventType != entry.AgentLoopEnd {
			t.Errorf("%s: from %s to %s", id, entries[0].EventType, last.EventType)
		}
		if last.Timestamp.Before(entries[0].Timestamp) {
			t.Errorf("%s: ends before it begins", id)
		}
		if roots := buildTree(entries); len(roots) != 1 {
			t.Errorf("%s: %d roots", id, len(roots))
		}
	}
	licences, err := filepath.Glob(filepath.Join("demo", "LICENSE-*.txt"))
	if err != nil || len(licences) != 5 {
		t.Errorf("licences: %v, %v", licences, err)
	}
}
