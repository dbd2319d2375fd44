package cli

import (
	"errors"
	"time"

	"github.com/spf13/cobra"
)

// tailDefault is how many entries tail(1) shows too.
const tailDefault = 10

// followWidths are those of the columns from the beginning, as far as they can
// be known: rows that come one by one are not aligned with later ones.
var followWidths = []int{6, len("2025-10-26T10:53:45.123Z"), len("AGENT_LOOP_START"), 20, 28, 8, 3}

func (a *app) tailCommand() *cobra.Command {
	var f filter
	var number int
	var follow bool
	format := entryFormats()
	cmd := &cobra.Command{
		Use:   "tail",
		Short: "Show the newest entries, and those that come",
		Long: `Shows the newest entries that match every flag, oldest first; the flags are those
of query. With -f it goes on with those that come, across seals and whoever
writes, until SIGINT or SIGTERM, with exit code 0. An entry is followed once a
checkpoint covers it, some half a second after it was recorded: what was shown
is never taken back.

The whole session is recorded as one reading.`,
		Example: `  kaizen-audit tail
  kaizen-audit tail -f --agent qa-agent-001
  kaizen-audit tail -f -n 0 --failed --format jsonl`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case number < 0:
				return usagef("-n: must not be negative")
			case number == 0 && !follow:
				return usagef("-n: must be at least 1, unless with -f")
			case follow && format.value == "json":
				return usageError{hinted{errors.New("--format json: an array has an end, and -f has none"), "--format jsonl"}}
			}
			q, err := f.query(cmd.Flags(), time.Now())
			if err != nil {
				return err
			}
			trail, err := a.openReader(cmd)
			if err != nil {
				return err
			}
			defer trail.Close()
			out := a.entryWriter(format.value)
			flush := func() error { return nil }
			if follow {
				flush = out.Flush
				if t, ok := out.(*tableEntries); ok {
					t.table.atLeast(followWidths)
				}
			}
			shown := false
			for e, err := range trail.Tail(cmd.Context(), q, number, follow) {
				if leftOut(err) {
					a.leaveOut("tail", err)
					continue
				}
				if err != nil && follow && cmd.Context().Err() != nil {
					break // a signal came before the first entry
				}
				if err != nil && !shown {
					return err // nothing is shown, no head of a table either
				}
				if err != nil {
					return errors.Join(err, out.Close())
				}
				if err := errors.Join(out.Write(e), flush()); err != nil {
					return err
				}
				shown = true
			}
			if err := out.Close(); err != nil {
				return err
			}
			if !shown && !follow && format.value == "table" {
				a.say("tail: no entry matches")
			}
			return nil
		},
	}
	f.addMatch(cmd)
	cmd.Flags().IntVarP(&number, "lines", "n", tailDefault, "so many of the newest entries first")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with the entries that come")
	addFormat(cmd, format)
	a.addUnrecorded(cmd)
	return cmd
}
