package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/advice"
	"github.com/kaizen-audit/kaizen-audit/internal/importer"
)

func (a *app) importCommand() *cobra.Command {
	format := newChoice("table", "json")
	var adopt bool
	cmd := &cobra.Command{
		Use:   "import FILE… | --adopt",
		Short: "Record the lines of old logs",
		Long: `Records the lines of old logs as entries. A line is a JSON object with the eleven
documented members, or {timestamp, agent_id, action, details, result, user_id,
metadata}, whose details become inputs and whose result becomes outputs.

Each entry is marked with its file, line and digest (metadata.imported_from,
imported_line, imported_digest), and reports count it apart: the trail vouches
for it from here on. A line that is refused is named on stderr by its number and
the reason, the rest goes on, and the exit code is 4.

A file can be imported again, also after it has grown: what is in the trail
already is not recorded twice.

--adopt is for a file at the log's own path that is no trail yet, whatever its
lines are. It begins a trail with them, byte for byte, right after entry 0, and
sets the file aside as X.adopted.jsonl, unchanged. Stop the program that writes
to it first. When it was interrupted, the same command finishes it.`,
		Example: `  kaizen-audit import old.jsonl
  kaizen-audit import --log audit.jsonl /var/log/agents/*.jsonl
  kaizen-audit import --adopt --log audit.jsonl`,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case adopt && len(args) > 0 && (len(args) > 1 || args[0] != a.settings.log):
				return usageError{hinted{errors.New("--adopt: the file is the one at the log's path"), "kaizen-audit import --adopt --log " + advice.Quote(args[0])}}
			case adopt && cmd.Flags().Changed("durability"):
				return usagef("--durability: --adopt returns when everything is on disk")
			case adopt:
				return a.adopt(cmd, format.value)
			case len(args) == 0:
				return usagef("the name of a file is needed")
			}
			return a.importFiles(cmd, args, format.value)
		},
	}
	cmd.Flags().BoolVar(&adopt, "adopt", false, "begin a trail with the lines of the file at the log's path")
	a.settings.addDurability(cmd.Flags())
	complete(cmd, "durability", "durable", "written", "queued")
	a.settings.addWriter(cmd.Flags())
	addFormat(cmd, format)
	cmd.AddCommand(a.importClaudeCodeCommand())
	return cmd
}

// adopt begins a trail with the lines of the file at the log's path.
func (a *app) adopt(cmd *cobra.Command, format string) error {
	opts := audit.InitOptions{Options: a.settings.options(), Adopt: true}
	opts.Command, opts.Warn, opts.StateDir = cmd.CommandPath(), a.warn, a.stateDir
	bar := newProgress(a.stderr, "adopt")
	opts.Progress = bar.bytes
	info, err := audit.Init(a.settings.log, &opts)
	bar.done()
	if err != nil {
		return err
	}
	if format == "json" {
		return printJSON(a.stdout, info)
	}
	rows := [][2]string{{"Log", info.Path}, {"Directory", info.Dir}}
	if old := info.Adopted; old != nil {
		rows = append(rows, [2]string{"Adopted", fmt.Sprintf("%d lines, entries %d to %d", old.Count, old.First, old.First+old.Count-1)},
			[2]string{"Old file", filepath.Join(filepath.Dir(info.Path), old.File)}, [2]string{"SHA-256", old.SHA256})
	}
	return facts(a.stdout, append(rows, [2]string{"Origin", info.Origin}, [2]string{"VKey", info.VKey}, [2]string{"Pin", info.Pin})...)
}

// imported is what became of a file. Its JSON shape only grows.
type imported struct {
	File string `json:"file"`
	// Lines are those read, Blank among them: white space only.
	Lines    int64 `json:"lines"`
	Blank    int64 `json:"blank"`
	Recorded int64 `json:"recorded"`
	// Known lines were in the trail already.
	Known   int64 `json:"known"`
	Refused int64 `json:"refused"`
	// TraceID is of the lines that had none.
	TraceID        string  `json:"trace_id"`
	Seconds        float64 `json:"seconds"`
	LinesPerSecond float64 `json:"lines_per_second"`
}

// importFiles records the lines of old logs, one file after the other.
func (a *app) importFiles(cmd *cobra.Command, files []string, format string) (err error) {
	log, _ := os.Stat(a.settings.log)
	for _, name := range files { // before a trail is made for nothing
		info, err := os.Stat(name)
		switch {
		case err != nil:
			return err
		case info.IsDir():
			return usagef("%s: is a directory; name the files in it", name)
		case log != nil && os.SameFile(info, log):
			return usageError{hinted{fmt.Errorf("%s: is the trail's own log", name), "if it is an older log and no trail yet: kaizen-audit import --adopt --log " + advice.Quote(a.settings.log)}}
		}
	}
	opts := a.settings.options()
	opts.Command, opts.Warn, opts.StateDir, opts.MustHold = cmd.CommandPath(), a.warn, a.stateDir, true
	trail, err := audit.Open(a.settings.log, &opts)
	if err != nil {
		return err
	}
	defer a.closing(&err, trail)
	a.warnUnencrypted(trail)
	maxLine := opts.MaxLine
	if maxLine == 0 {
		maxLine = entry.DefaultMaxLine
	}
	results := []imported{}
	for _, name := range files {
		i := fileImport{app: a, trail: trail, maxLine: maxLine, result: imported{File: name}}
		if err = i.run(cmd.Context(), name); err != nil {
			err = fmt.Errorf("%s: %w", name, err)
		}
		results = append(results, i.result)
		if err != nil || cmd.Context().Err() != nil {
			break
		}
	}
	return errors.Join(err, a.showImported(results, format))
}

func (a *app) showImported(results []imported, format string) error {
	if format == "json" {
		return printJSON(a.stdout, results)
	}
	t := newTable(a.stdout, a.stdout, column{title: "FILE", least: 12}, column{title: "LINES", right: true}, column{title: "RECORDED", right: true},
		column{title: "KNOWN", right: true}, column{title: "REFUSED", right: true}, column{title: "LINES/S", right: true}, column{title: "TRACE"})
	number := func(n int64) cell { return cell{strconv.FormatInt(n, 10), ""} }
	for _, r := range results {
		if err := t.row(text(r.File), number(r.Lines), number(r.Recorded), number(r.Known), number(r.Refused),
			number(int64(r.LinesPerSecond)), text(r.TraceID)); err != nil {
			return err
		}
	}
	return t.flush()
}

// fileImport records the lines of one file. Lines are mapped while the batch
// before them is committed, which takes as long.
type fileImport struct {
	app     *app
	trail   *audit.Trail
	maxLine int
	source  importer.Source
	known   lineSet // what is in the trail already
	result  imported

	batch   importBatch
	batches chan importBatch
}

// importBatch are lines that are committed together.
type importBatch struct {
	events  []audit.Event
	numbers []int64   // their lines
	bytes   int       // of their lines
	refused []refusal // lines that came between them
}

// importBytes bounds a batch beside batchLines.
const importBytes = 2 << 20

func (f *fileImport) run(ctx context.Context, name string) error {
	file, err := openOperand(ctx, name)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	begun := time.Now()
	bar := newProgress(f.app.stderr, "import")
	defer bar.done()
	in := &counted{r: file, told: func(n int64) { bar.bytes(n, max(n, info.Size())) }}
	if info.Mode().IsRegular() {
		in.r = io.LimitReader(file, info.Size()) // what somebody appends meanwhile is the next import's
	}
	reading, stop := context.WithCancel(ctx)
	defer stop()
	lines := make(chan inputLines, 16)
	go readLines(reading, in, inputLimit(f.maxLine), lines)
	f.batches = make(chan importBatch, 1)
	committed := make(chan error, 1)
	go func() {
		var failed error
		for b := range f.batches {
			if failed == nil {
				failed = f.commit(b)
			}
			if failed != nil {
				stop() // what is mapped from here on is for nothing
			}
		}
		committed <- failed
	}()
	err = f.mapLines(ctx, lines)
	close(f.batches)
	err = errors.Join(<-committed, err)
	f.result.Seconds = time.Since(begun).Seconds()
	f.result.LinesPerSecond = float64(f.result.Lines) / f.result.Seconds
	if err == nil && ctx.Err() != nil {
		f.app.incomplete("import: %s: stopped by a signal; importing it again goes on", name)
	}
	return err
}

// mapLines maps all lines into batches.
func (f *fileImport) mapLines(ctx context.Context, lines <-chan inputLines) error {
	for {
		var m inputLines
		var more bool
		select {
		case m, more = <-lines:
		case <-ctx.Done(): // a pipe may bring nothing any more
		}
		if !more {
			break
		}
		for _, l := range m.lines {
			if err := f.take(ctx, l); err != nil {
				return err
			}
		}
		if m.err != nil {
			f.send()
			return m.err
		}
	}
	f.send()
	return nil
}

// send hands the batch at hand over.
func (f *fileImport) send() {
	f.batches <- f.batch
	f.batch = importBatch{}
}

// take maps a line into the batch, or refuses it.
func (f *fileImport) take(ctx context.Context, l inputLine) error {
	if l.number == 1 {
		f.source = importer.New(filepath.Base(f.result.File), l.text)
		f.result.TraceID = f.source.Trace()
		if err := f.load(ctx); err != nil {
			return err
		}
	}
	f.result.Lines++
	switch {
	case l.bytes > 0:
		f.refuse(l.number, &entry.LineTooLongError{Bytes: l.bytes, Max: f.maxLine})
		return nil
	case len(bytes.TrimSpace(l.text)) == 0:
		f.result.Blank++
		return nil
	case f.known.has(l.number, f.source.Key(l.number, l.text)):
		f.result.Known++
		return nil
	}
	ev, err := f.source.Event(l.number, l.text)
	if err != nil {
		f.refuse(l.number, err)
		return nil
	}
	b := &f.batch
	b.events, b.numbers, b.bytes = append(b.events, ev), append(b.numbers, l.number), b.bytes+len(l.text)
	if len(b.events) >= batchLines || b.bytes >= importBytes {
		f.send()
	}
	return nil
}

// load finds which lines of the file the trail has.
func (f *fileImport) load(ctx context.Context) error {
	for key, err := range f.trail.ImportedKeys(ctx, f.source.Prefix()) {
		if err != nil {
			return err
		}
		number, _, _ := strings.Cut(strings.TrimPrefix(key, f.source.Prefix()), ":")
		if n, err := strconv.ParseInt(number, 10, 64); err == nil && n > 0 {
			f.known.add(n, key)
		}
	}
	return nil
}

// refuse keeps a line that can't be an event, to be named. The trail has not
// seen it and is told, so that the refusal becomes an entry.
func (f *fileImport) refuse(number int64, err error) {
	f.trail.NoteRefused(err)
	f.batch.refused = append(f.batch.refused, refusal{number, refusalText(number, err)})
	if len(f.batch.refused) >= batchLines {
		f.send() // a file of nothing else is named as it goes
	}
}

// commit records a batch and names what was refused.
func (f *fileImport) commit(b importBatch) error {
	defer func() {
		f.result.Refused += int64(len(b.refused))
		for _, r := range sortedRefusals(b.refused) {
			f.app.incomplete("%s: %s", f.result.File, r.text)
		}
	}()
	if len(b.events) == 0 {
		return nil
	}
	// The wait is not bounded by the command's context: what is accepted is
	// acknowledged.
	receipts, err := f.trail.Import(context.Background(), b.events)
	var failed *audit.BatchError
	if err != nil && !errors.As(err, &failed) {
		return fmt.Errorf("line %d and what follows was not recorded: %w", b.numbers[0], err)
	}
	for i := range receipts {
		var err error
		if failed != nil {
			err = failed.Errs[i]
		}
		switch {
		case err == nil:
			f.result.Recorded++
		case errors.Is(err, audit.ErrRefused), errors.Is(err, audit.ErrConflict):
			b.refused = append(b.refused, refusal{b.numbers[i], refusalText(b.numbers[i], err)})
		default:
			return fmt.Errorf("line %d was not recorded; importing the file again goes on: %w", b.numbers[i], err)
		}
	}
	return nil
}

// counted tells how many bytes were read.
type counted struct {
	r    io.Reader
	n    int64
	told func(n int64)
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	c.told(c.n)
	return n, err
}

// lineSet remembers the keys of lines by their number, in some 8 bytes a line
// where the numbers lie close together.
type lineSet struct {
	pages map[int64]*[linesPerPage]uint64 // the end of one key of each line
	more  map[string]struct{}             // further keys of a line that has changed
}

const linesPerPage = 1024

// keyEnd is 64 bits of the line's digest, which ends a key; never 0.
func keyEnd(key string) uint64 {
	n, _ := strconv.ParseUint(key[max(0, len(key)-16):], 16, 64)
	return n | 1
}

func (s *lineSet) add(number int64, key string) {
	if s.pages == nil {
		s.pages, s.more = map[int64]*[linesPerPage]uint64{}, map[string]struct{}{}
	}
	page := s.pages[number/linesPerPage]
	if page == nil {
		page = new([linesPerPage]uint64)
		s.pages[number/linesPerPage] = page
	}
	if at := &page[number%linesPerPage]; *at == 0 {
		*at = keyEnd(key)
	} else {
		s.more[key] = struct{}{}
	}
}

func (s *lineSet) has(number int64, key string) bool {
	page := s.pages[number/linesPerPage]
	if page == nil || page[number%linesPerPage] == 0 {
		return false
	}
	_, ok := s.more[key]
	return ok || page[number%linesPerPage] == keyEnd(key)
}
