package cli

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/internal/advice"
	"github.com/kaizen-audit/kaizen-audit/internal/report"
	"github.com/kaizen-audit/kaizen-audit/internal/verify"
)

func (a *app) verifyCommand() *cobra.Command {
	var checkpoint string
	var opts audit.VerifyOptions
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
fails where there is neither.`,
		Example: `  kaizen-audit verify
  kaizen-audit verify --log audit.jsonl --checkpoint /mnt/elsewhere/checkpoint --key "$VKEY"
  kaizen-audit verify --require-anchor --format json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if opts.Key != "" {
				if err := checkKey("key", opts.Key); err != nil {
					return err
				}
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
			opts.Anchors, opts.Warn = a.settings.anchors, a.warn
			r, err := audit.VerifyPath(cmd.Context(), a.settings.log, &opts)
			bar.done()
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
	f.StringVar(&checkpoint, "checkpoint", "", "an older signed checkpoint, kept elsewhere, or a file of --checkpoint-to")
	f.StringVar(&opts.Key, "key", "", "the trail's verifier key (vkey), from somewhere you trust")
	f.BoolVar(&opts.RequireAnchor, "require-anchor", false, "fail unless it is anchored outside the trail")
	addFormat(cmd, format)
	return cmd
}

// maxCheckpoints bounds a file of checkpoints: some 80,000, a day of one a second.
const maxCheckpoints = 16 << 20

// anchors say in words what an answer rests on.
var anchors = map[string]string{
	verify.AnchorNone:       "none: the key came from the trail itself, which is consistent with itself only",
	verify.AnchorPinned:     "pinned: the key was seen here before, or given",
	verify.AnchorCheckpoint: "checkpoint: an older one, kept elsewhere, is a prefix of it",
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
	add("Anchor", "%s", anchors[r.Anchor])
	for _, o := range r.Anchors {
		add("Anchored", "%s by %s %s, %s", plural(o.Size, "entry", "entries"), o.Kind, o.Name, o.Time.UTC().Format(time.RFC3339))
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
