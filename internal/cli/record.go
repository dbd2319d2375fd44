package cli

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/spf13/cobra"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/kms"
)

func (a *app) recordCommand() *cobra.Command {
	var encrypt bool
	cmd := &cobra.Command{
		Use:   "record",
		Short: "Record events from standard input",
		Long: `Reads events from standard input, one JSON object a line, records them, and
writes a receipt for each once it is acknowledged, in the order of the input:

  {"index":0,"event_id":"…","digest":"<hex>"}

Required are event_type, agent_id and action. A line that is refused is named on
stderr by its number and the reason, the rest goes on, and the exit code is 4.
On SIGINT or SIGTERM no more is read; what was accepted is acknowledged.

A trail that is not there is made, with profile plain; with --encrypt it seals
every line, as init --encrypt makes it.`,
		Example: `  echo '{"event_type":"TOOL_USE","agent_id":"qa-agent-001","action":"tool_use:calculator"}' | kaizen-audit record
  kaizen-audit record --log audit.jsonl < events.jsonl > receipts.jsonl
  my-agent | kaizen-audit record --durability written --checkpoint-to /mnt/elsewhere/checkpoints`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			opts := a.settings.options()
			opts.Encrypt = encrypt
			opts.Command, opts.Warn, opts.StateDir = cmd.CommandPath(), a.warn, a.stateDir
			trail, err := audit.Open(a.settings.log, &opts)
			if err != nil {
				return err
			}
			defer a.closing(&err, trail)
			a.warnUnencrypted(trail)
			r := recorder{app: a, trail: trail, out: bufio.NewWriter(a.stdout), maxLine: opts.MaxLine}
			return r.run(cmd.Context(), a.stdin)
		},
	}
	cmd.Flags().BoolVar(&encrypt, "encrypt", false, "a trail that is made here seals every line; one that is there remembers")
	a.settings.addDurability(cmd.Flags())
	complete(cmd, "durability", "durable", "written", "queued")
	a.settings.addWriter(cmd.Flags())
	return cmd
}

// warnUnencrypted keeps anybody from thinking that what is recorded is
// encrypted.
func (a *app) warnUnencrypted(trail *audit.Trail) {
	if os.Getenv(kms.EnvironmentVariable) != "" && !trail.Encrypts() {
		a.warn(fmt.Errorf("%s is set, and this trail does not encrypt: entries are stored in clear; that is chosen when a trail is made, with --encrypt", kms.EnvironmentVariable))
	}
}

// recorder turns lines of input into receipts.
type recorder struct {
	app     *app
	trail   *audit.Trail
	out     *bufio.Writer
	maxLine int

	events   []audit.Event // of the batch at hand
	numbers  []int64       // their lines
	refused  []refusal     // of the batch's lines
	inputErr error         // what ended the input before its end
}

// batchLines bounds a batch: beyond it a commit costs more than its sync, and
// receipts wait for nothing.
const batchLines = 4096

// run records until the input or ctx ends. What has been handed to the trail
// is always waited for.
func (r *recorder) run(ctx context.Context, in io.Reader) error {
	if r.maxLine == 0 {
		r.maxLine = entry.DefaultMaxLine
	}
	lines := make(chan inputLines, 16)
	go readLines(ctx, in, inputLimit(r.maxLine), lines)
	for more := true; more; {
		select {
		case <-ctx.Done():
			r.app.say("record: stopped by a signal; what has a receipt is recorded")
			return nil
		case m, ok := <-lines:
			more = ok && r.takeAll(m)
		}
		// Whatever waits already shares the commit; nobody is waited for.
		for waiting := more; waiting && len(r.events) < batchLines; {
			select {
			case m, ok := <-lines:
				more = ok && r.takeAll(m)
				waiting = more
			default:
				waiting = false
			}
		}
		if err := r.commit(); err != nil {
			return err
		}
	}
	return r.inputErr
}

// takeAll takes lines that arrived together, and reports whether more can
// follow.
func (r *recorder) takeAll(m inputLines) bool {
	for _, l := range m.lines {
		r.take(l)
	}
	if m.err != nil {
		r.inputErr = fmt.Errorf("read events: %w", m.err)
	}
	return m.err == nil
}

// take parses a line into the batch, or refuses it.
func (r *recorder) take(l inputLine) {
	if l.bytes > 0 {
		r.refuse(l.number, &entry.LineTooLongError{Bytes: l.bytes, Max: r.maxLine}, true)
		return
	}
	if len(bytes.TrimSpace(l.text)) == 0 {
		return
	}
	ev, err := audit.ParseEvent(l.text)
	if err != nil {
		r.refuse(l.number, err, true)
		return
	}
	r.events, r.numbers = append(r.events, ev), append(r.numbers, l.number)
}

// refuse names a line that was not recorded. What the trail has not seen is
// told to it, so that the refusal becomes an entry.
func (r *recorder) refuse(number int64, err error, unseen bool) {
	if unseen {
		r.trail.NoteRefused(err)
	}
	r.refused = append(r.refused, refusal{number, refusalText(number, err)})
}

// refusalText says which line was refused, where and why.
func refusalText(number int64, err error) string {
	place := fmt.Sprintf("line %d", number)
	var syntax *entry.SyntaxError
	var field *entry.FieldError
	var long *entry.LineTooLongError
	reason := err.Error()
	switch {
	case errors.As(err, &syntax):
		place += fmt.Sprintf(", column %d", syntax.Column)
		reason = syntax.Reason
		if errors.As(err, &field) {
			reason = field.Field + ": " + reason
		}
	case errors.As(err, &field):
		reason = field.Error()
	case errors.As(err, &long):
		reason = long.Error()
	}
	return place + ": " + reason
}

// refusal is a line that was not recorded, and why.
type refusal struct {
	number int64
	text   string
}

// tellRefused names the refused lines of the batch in their order.
func (r *recorder) tellRefused() {
	for _, f := range sortedRefusals(r.refused) {
		r.app.incomplete("%s", f.text)
	}
	r.refused = r.refused[:0]
}

func sortedRefusals(list []refusal) []refusal {
	slices.SortFunc(list, func(a, b refusal) int { return cmp.Compare(a.number, b.number) })
	return list
}

// commit records the batch, writes its receipts and names what was refused.
func (r *recorder) commit() error {
	defer r.tellRefused()
	if len(r.events) == 0 {
		return nil
	}
	// The wait is not bounded by ctx: what is accepted is acknowledged.
	receipts, err := r.trail.RecordBatch(context.Background(), r.events)
	var failed *audit.BatchError
	if err != nil && !errors.As(err, &failed) {
		return fmt.Errorf("line %d and what follows was not recorded: %w", r.numbers[0], err)
	}
	var line []byte
	var stopped error
	for i := range r.events {
		if failed != nil && failed.Errs[i] != nil {
			switch err := failed.Errs[i]; {
			case errors.Is(err, audit.ErrRefused), errors.Is(err, audit.ErrConflict):
				r.refuse(r.numbers[i], err, false)
			case stopped == nil:
				stopped = fmt.Errorf("line %d and what follows without a receipt was not recorded: %w", r.numbers[i], err)
			}
			continue
		}
		line = append(receipts[i].AppendJSON(line[:0]), '\n')
		if _, err := r.out.Write(line); err != nil {
			return fmt.Errorf("receipts: %w", errNoPipe{err})
		}
	}
	r.events, r.numbers = r.events[:0], r.numbers[:0]
	if err := r.out.Flush(); err != nil {
		return fmt.Errorf("receipts: %w", errNoPipe{err})
	}
	return stopped
}

// errNoPipe hides that a pipe was closed: a reader of results may have had
// enough, but receipts that nobody takes are an error.
type errNoPipe struct{ err error }

func (e errNoPipe) Error() string { return e.err.Error() }

// inputLine is a line of input without its newline.
type inputLine struct {
	number int64 // from 1
	text   []byte
	bytes  int // not zero: the line is so long that it was not kept
}

// inputLines are lines that arrived together.
type inputLines struct {
	lines []inputLine
	err   error // what ended the input, unless it is its end
}

// inputLimit is how long a line of input may be for an entry of at most
// maxLine: \u00e9 is six bytes for a character of two.
func inputLimit(maxLine int) int { return 3 * maxLine }

// readChunk is what a pipe holds on Linux (pipe(7)): one read of it is what a
// producer has written by now.
const (
	readChunk = 64 << 10
	leastRead = 4 << 10 // less room than this is not worth a system call
)

// readLines sends the lines of in as they arrive, and closes to. Each message
// has memory of its own. It ends with the input, or at the next read after
// ctx has ended.
func readLines(ctx context.Context, in io.Reader, limit int, to chan<- inputLines) {
	defer close(to)
	var tail []byte // the beginning of a line whose end is not there yet
	var skipped int // bytes of a line that is too long, tail included
	number := int64(1)
	complete := func(text []byte) inputLine {
		l := inputLine{number: number, text: text}
		if skipped > 0 {
			l = inputLine{number: number, bytes: skipped + len(text)}
		} else if len(text) > limit {
			l = inputLine{number: number, bytes: len(text)}
		} else if number == 1 {
			l.text = bytes.TrimPrefix(text, []byte("\ufeff")) // as editors on Windows begin a file
		}
		number++
		skipped = 0
		return l
	}
	send := func(m inputLines) bool {
		select {
		case to <- m:
			return true
		case <-ctx.Done():
			return false
		}
	}
	var buf []byte // what is read goes behind what was: lines keep their memory
	for {
		if cap(buf)-len(buf) < leastRead {
			buf = make([]byte, 0, readChunk)
		}
		n, err := in.Read(buf[len(buf):cap(buf)])
		chunk := buf[len(buf) : len(buf)+n]
		buf = buf[:len(buf)+n]
		var m inputLines
		for {
			i := bytes.IndexByte(chunk, '\n')
			if i < 0 {
				break
			}
			text := chunk[:i:i]
			if len(tail) > 0 {
				text = append(tail, text...)
				tail = nil
			}
			m.lines = append(m.lines, complete(text))
			chunk = chunk[i+1:]
		}
		switch {
		case skipped > 0:
			skipped += len(chunk)
		case len(tail)+len(chunk) > limit:
			skipped, tail = len(tail)+len(chunk), nil
		default:
			tail = append(tail, chunk...)
		}
		if err != nil {
			if len(tail) > 0 || skipped > 0 {
				m.lines = append(m.lines, complete(tail))
			}
			if err != io.EOF {
				m.err = err
			}
			send(m)
			return
		}
		if len(m.lines) > 0 && !send(m) {
			return
		}
	}
}
