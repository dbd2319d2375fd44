package cli

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/claudecode"
)

func (a *app) importClaudeCodeCommand() *cobra.Command {
	format := newChoice("table", "json")
	cmd := &cobra.Command{
		Use:   "claude-code DIR|FILE…",
		Short: "Record Claude Code's session files",
		Long: `Records the session files (*.jsonl) that Claude Code keeps below a directory,
usually ~/.claude/projects: each tool call with its result and duration, each
answer of the model and each prompt. The session is the trace, so that
kaizen-audit trace --last shows the latest one.

Entries are marked (metadata.imported_from, imported_line, imported_digest) and
counted apart in reports. Sessions can be imported again, also after they have
gone on: what is in the trail already is not recorded twice. What hooks have
recorded of a session is not known here: import what was before them.`,
		Example: `  kaizen-audit import claude-code ~/.claude/projects
  kaizen-audit trace --last`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("the directory of the sessions is needed, such as ~/.claude/projects")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.importSessions(cmd, args, format.value) },
	}
	a.settings.addDurability(cmd.Flags())
	complete(cmd, "durability", "durable", "written", "queued")
	a.settings.addWriter(cmd.Flags())
	addFormat(cmd, format)
	return cmd
}

// importedSessions is what became of session files. Its JSON shape only grows.
type importedSessions struct {
	Files    int `json:"files"`
	Recorded int `json:"recorded"`
	// Known were in the trail already.
	Known   int `json:"known"`
	Refused int `json:"refused"`
	// PassedOver are lines that could not be read.
	PassedOver int `json:"passed_over"`
	// Running are tool calls whose result is still awaited: a later import
	// takes them.
	Running int `json:"running"`
}

func (a *app) importSessions(cmd *cobra.Command, names []string, format string) (err error) {
	files, err := a.sessionFiles(names)
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return usagef("%s: there are no session files (*.jsonl)", names[0])
	}
	opts := a.settings.options()
	opts.Command, opts.Warn, opts.StateDir, opts.MustHold = cmd.CommandPath(), a.warn, a.stateDir, true
	trail, err := audit.Open(a.settings.log, &opts)
	if err != nil {
		return err
	}
	defer a.closing(&err, trail)
	known := map[string]bool{}
	for key, err := range trail.ImportedKeys(cmd.Context(), claudecode.KeyPrefix) {
		if err != nil {
			return err
		}
		known[key] = true
	}
	var result importedSessions
	for _, f := range files {
		if cmd.Context().Err() != nil {
			a.incomplete("stopped by a signal; importing again goes on")
			break
		}
		if err := a.importSession(trail, f.name, known, &result); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		result.Files++
	}
	if format == "json" {
		return printJSON(a.stdout, result)
	}
	return facts(a.stdout, [2]string{"Session files", fmt.Sprint(result.Files)}, [2]string{"Recorded", fmt.Sprint(result.Recorded)},
		[2]string{"Known before", fmt.Sprint(result.Known)}, [2]string{"Refused", some(result.Refused)},
		[2]string{"Still running", some(result.Running)}, [2]string{"Lines passed over", some(result.PassedOver)})
}

// some is a number that is only told when there is one.
func some(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

// importSession records one session file.
func (a *app) importSession(trail *audit.Trail, name string, known map[string]bool, result *importedSessions) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	session, err := claudecode.ReadSession(file, strings.TrimSuffix(filepath.Base(name), ".jsonl"), time.Now())
	if err != nil {
		return err
	}
	result.Running += session.Running
	result.PassedOver += len(session.Passed)
	for _, line := range session.Passed {
		a.incomplete("%s: line %d can't be read", name, line)
	}
	events := session.Events[:0]
	for _, ev := range session.Events {
		if known[ev.IdempotencyKey] {
			result.Known++
			continue
		}
		known[ev.IdempotencyKey] = true
		err := entry.KeepFact(&ev, &entry.Stamp{EventID: entry.NewEventID(ev.Timestamp), RecordedAt: ev.Timestamp, RecordedBy: make([]byte, 128), MaxLine: int(a.settings.maxLine.bytes)}, nil)
		if err != nil {
			return err
		}
		events = append(events, ev)
	}
	for batch := range slices.Chunk(events, batchLines) {
		// The wait is not bounded by the command's context: what is accepted is
		// acknowledged.
		_, err := trail.Import(context.Background(), batch)
		var failed *audit.BatchError
		if err != nil && !errors.As(err, &failed) {
			return err
		}
		for i, ev := range batch {
			switch {
			case failed == nil || failed.Errs[i] == nil:
				result.Recorded++
			case errors.Is(failed.Errs[i], audit.ErrRefused), errors.Is(failed.Errs[i], audit.ErrConflict):
				result.Refused++
				line, _ := ev.Metadata.Get("imported_line")
				a.incomplete("%s: line %s: %v", name, line.JSON(), failed.Errs[i])
			default:
				return fmt.Errorf("importing again goes on: %w", failed.Errs[i])
			}
		}
	}
	return nil
}

// sessionFile is a session file and when it ended.
type sessionFile struct {
	name string
	last time.Time
}

// sessionFiles finds the session files below names, the one that ended last at
// the end: the newest entry is then the newest session's. What can't be read
// below a directory is named, and the rest goes on.
func (a *app) sessionFiles(names []string) ([]sessionFile, error) {
	var files []sessionFile
	for _, name := range names {
		root, err := filepath.EvalSymlinks(name) // a walk follows no links
		if err != nil {
			return nil, err
		}
		err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			var last time.Time
			if err == nil {
				if !d.Type().IsRegular() || path != root && filepath.Ext(path) != ".jsonl" {
					return nil
				}
				last, err = lastTime(path)
			}
			switch {
			case err == nil:
				files = append(files, sessionFile{path, last})
			case path == root:
				return err
			default:
				a.incomplete("%v", err)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(files, func(a, b sessionFile) int { return cmp.Or(a.last.Compare(b.last), strings.Compare(a.name, b.name)) })
	return files, nil
}

// tailBytes is how much of a file's end is looked at for its last time.
const tailBytes = 256 << 10

// lastTime is the last timestamp in a session file, else when it was written.
func lastTime(name string) (time.Time, error) {
	f, err := os.Open(name)
	if err != nil {
		return time.Time{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return time.Time{}, err
	}
	tail, err := io.ReadAll(io.NewSectionReader(f, max(0, info.Size()-tailBytes), tailBytes))
	if err != nil {
		return time.Time{}, err
	}
	const mark = `"timestamp":"`
	if i := bytes.LastIndex(tail, []byte(mark)); i >= 0 {
		text, _, _ := bytes.Cut(tail[i+len(mark):], []byte{'"'})
		if t, err := time.Parse(time.RFC3339, string(text)); err == nil {
			return t, nil
		}
	}
	return info.ModTime(), nil
}
