package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/spf13/cobra"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/internal/advice"
	"github.com/kaizen-audit/kaizen-audit/internal/report"
	"github.com/kaizen-audit/kaizen-audit/internal/verify"
)

func (a *app) verifyCommand() *cobra.Command {
	var checkpoint, onFailure string
	var sinceLast bool
	opts := audit.VerifyOptions{OpenArchive: readArchive}
	format := newChoice("table", "json")
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check a trail against its signed checkpoint",
		Long: `Checks every line, tile and checkpoint of a trail from its files alone. It needs
no secret and writes nothing. The exit code is 0 when the trail is intact, 1 for
any damage, and 3 only when the system refuses a file or there is no trail. A
--checkpoint that is none is exit code 2, another trail's is 1.

What was checked is as good as what it is anchored on: with none, the key came
from the trail itself. --checkpoint names an older checkpoint of the trail that
was kept elsewhere, --key the vkey that its owner published; --require-anchor
fails where there is neither. The anchors of the configuration file are asked too
(docs/anchors.md).

--since-last is for a timer: it does not read again the lines that the last one has
found intact, and is recorded (AUDIT_VERIFY). Let one without it run now and then,
which reads everything. --on-failure runs a command, words split at spaces, with the
report as JSON on its standard input; the exit code stays 1.`,
		Example: `  kaizen-audit verify
  kaizen-audit verify --log audit.jsonl --checkpoint /mnt/elsewhere/checkpoint --key "$VKEY"
  kaizen-audit verify --require-anchor --format json
  kaizen-audit verify --since-last --on-failure "/usr/local/bin/page-somebody audit"`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if opts.Key != "" {
				if err := checkKey("key", opts.Key); err != nil {
					return err
				}
			}
			if cmd.Flags().Changed("on-failure") && strings.TrimSpace(onFailure) == "" {
				return usagef("--on-failure is empty")
			}
			if checkpoint != "" {
				var err error
				if opts.Checkpoint, err = readOperand(cmd.Context(), checkpoint, nil, maxCheckpoints); err != nil {
					return err
				}
				if len(opts.Checkpoint) > maxCheckpoints {
					return usagef("--checkpoint %s: longer than %d bytes; give its newest checkpoints alone", report.Printable(checkpoint), maxCheckpoints)
				}
			}
			bar := newProgress(a.stderr, "verify")
			opts.Progress, opts.StateDir = bar.bytes, a.stateDir
			opts.Anchors, opts.Archive, opts.Warn = a.settings.anchors, a.settings.archiveStore(), a.warn
			r, err := a.verify(cmd, sinceLast, &opts)
			bar.done()
			if failed := err != nil || r.Status != verify.Intact; failed && onFailure != "" && cmd.Context().Err() == nil {
				a.tellFailure(cmd.Context(), onFailure, r, err)
			}
			switch {
			case errors.Is(err, audit.ErrNoCheckpoint):
				return usageError{hinted{fmt.Errorf("--checkpoint %s: %w", report.Printable(checkpoint), err),
					"give a copy of the trail's file checkpoint, kept elsewhere; the trail itself was not checked"}}
			case errors.Is(err, audit.ErrOtherTrail):
				return failedError{hinted{fmt.Errorf("--checkpoint %s: %w", report.Printable(checkpoint), err),
					"give a checkpoint of this trail; the trail itself was not checked"}}
			case r == nil:
				return err
			}
			shown := a.showVerified(r, format.value)
			switch {
			case err != nil || shown != nil:
				return errors.Join(err, shown)
			case r.Status != verify.Intact:
				return failedError{hinted{errors.New(r.Detail), "leave the files as they are, and look who could change them; to set them aside and go on in a new trail: kaizen-audit init --successor-of " +
					advice.Quote(a.settings.log) + " --log " + advice.Quote(a.settings.log)}}
			}
			return nil
		},
	}
	f := cmd.Flags()
	a.settings.addArchiveTo(f)
	f.StringVar(&checkpoint, "checkpoint", "", "an older signed checkpoint, kept elsewhere, or a file of --checkpoint-to")
	f.StringVar(&opts.Key, "key", "", "the trail's verifier key (vkey), from somewhere you trust")
	f.BoolVar(&sinceLast, "since-last", false, "read only what came after the last recorded verification, and record this one")
	f.StringVar(&onFailure, "on-failure", "", "a command to run where the trail is not intact, the report as JSON on its standard input")
	f.BoolVar(&opts.RequireAnchor, "require-anchor", false, "fail unless it is anchored outside the trail")
	addFormat(cmd, format)
	return cmd
}

// verify verifies all of the trail, or what came since the last time. A trail that
// can't be opened is verified as a whole, and that is not recorded.
func (a *app) verify(cmd *cobra.Command, sinceLast bool, opts *audit.VerifyOptions) (*audit.VerifyReport, error) {
	if sinceLast {
		trail, err := a.openReader(cmd)
		if err == nil {
			defer trail.Close()
			return trail.VerifySinceLast(cmd.Context(), opts)
		}
		a.warn(fmt.Errorf("the trail can't be opened, so that all of it is verified and nothing recorded: %w", err))
	}
	return audit.VerifyPath(cmd.Context(), a.settings.log, opts)
}

// failureTimeout bounds the command that is told of a failure.
const failureTimeout = time.Minute

// tellFailure runs the command of --on-failure, with the report on its stdin. Its
// words are split at spaces; no shell is asked.
func (a *app) tellFailure(ctx context.Context, command string, r *audit.VerifyReport, failure error) {
	words := strings.Fields(command)
	ctx, cancel := context.WithTimeout(ctx, failureTimeout)
	defer cancel()
	c := exec.CommandContext(ctx, words[0], words[1:]...)
	if r == nil {
		r = &audit.VerifyReport{Status: verify.Unreadable, Ranges: []verify.Range{}, Unproven: []string{}}
	}
	if failure != nil && r.Detail == "" {
		r.Detail = failure.Error()
	}
	text, err := json.Marshal(r)
	if err == nil {
		c.Stdin, c.WaitDelay = bytes.NewReader(append(text, '\n')), time.Second
		c.Stdout, c.Stderr = a.stderr, a.stderr
		err = c.Run()
	}
	if err != nil {
		a.warn(fmt.Errorf("--on-failure %s: %w", words[0], err))
	}
}

// maxCheckpoints bounds a file of checkpoints: some 80,000, a day of one a second.
const maxCheckpoints = 16 << 20

// anchors say in words what an answer rests on.
var anchors = map[string]string{
	verify.AnchorNone:       "none: the key came from the trail itself, which is consistent with itself only",
	verify.AnchorPinned:     "pinned: the key was seen here before, or given",
	verify.AnchorCheckpoint: "checkpoint: an older one, kept elsewhere, is a prefix of it",
	verify.AnchorArchive:    "archive: a checkpoint that it keeps under lock is a prefix of it",
	verify.AnchorWitness:    "witness: what it has cosigned is a prefix of it",
	verify.AnchorTimestamp:  "timestamp: what an authority has put its time to is a prefix of it",
}

func (a *app) showVerified(r *audit.VerifyReport, format string) error {
	if format == "json" {
		return printJSON(a.stdout, r)
	}
	status := r.Status
	if status == verify.Intact {
		status = a.stdout.paint(green, status)
	} else {
		status = a.stdout.paint(red, status)
	}
	if _, err := fmt.Fprintf(a.stdout, "%s: %s\n", report.Printable(a.settings.log), status); err != nil {
		return err
	}
	return facts(a.stdout, verified(r)...)
}

// verified are the lines of a report for people.
func verified(r *audit.VerifyReport) [][2]string {
	var lines [][2]string
	add := func(name, format string, args ...any) {
		lines = append(lines, [2]string{name, fmt.Sprintf(format, args...)})
	}
	if r.Status == verify.Damaged {
		switch {
		case r.FirstBad == nil:
		case r.Exact:
			add("First bad", "entry %d", *r.FirstBad)
		default:
			add("First bad", "entry %d or one after it", *r.FirstBad)
		}
		add("Artefact", "%s", r.Artefact)
		add("File", "%s", r.File)
		add("Problem", "%s", r.Problem)
	}
	add("Detail", "%s", r.Detail)
	if r.Since > 0 {
		add("Read", "from entry %d on; what was before is checked since an earlier verification", r.Since)
	}
	for _, g := range r.Ranges {
		if r.Status == verify.Damaged {
			add("Entries", "%s: %s", entryRange(g.First, g.Count), g.State)
		}
	}
	for _, also := range r.Also {
		add("Also", "%s", also.Detail)
	}
	add("Origin", "%s", r.Origin)
	if r.Root != "" {
		add("Size", "%s under the checkpoint", plural(r.Size, "entry", "entries"))
	}
	add("Root", "%s", r.Root)
	for i, first := range r.FromArchive {
		if i == 10 {
			add("From the archive", "and %d more segments", len(r.FromArchive)-i)
			break
		}
		add("From the archive", "the segment from entry %d on", first)
	}
	add("Anchor", "%s", anchors[r.Anchor])
	for _, o := range r.Anchors {
		add("Anchored", "%s by %s %s, %s", plural(o.Size, "entry", "entries"), o.Kind, o.Name, o.Time.UTC().Format(time.RFC3339))
	}
	for _, k := range r.Replaced {
		add("New key", "from %s on, since the one before was lost", plural(k.From, "entry", "entries"))
	}
	if r.Uncovered > 0 {
		add("Uncovered", "%s past the checkpoint", plural(r.Uncovered, "line", "lines"))
	}
	if r.Torn > 0 {
		add("Torn", "%s after the last line", plural(r.Torn, "byte", "bytes"))
	}
	for _, what := range r.Unproven {
		add("Not proved", "%s", what)
	}
	return lines
}

// entryRange names a range of entries.
func entryRange(first, count int64) string {
	if count <= 1 {
		return fmt.Sprint(first)
	}
	return fmt.Sprintf("%d to %d", first, first+count-1)
}
