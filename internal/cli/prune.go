package cli

import (
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/internal/advice"
)

func (a *app) pruneCommand() *cobra.Command {
	var o audit.PruneOptions
	format := newChoice("table", "json")
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Delete the segments whose retention period is over",
		Long: `Deletes sealed segments whose period is over and on which no legal hold is. The
trail says so first, in an entry that a checkpoint covers; then the files are
deleted, and looked for. Proofs of what remains verify, and verify tells what was
pruned from what is missing.

A process that holds the trail does this by itself once a day, where a period was
set (kaizen-audit retention). --dry-run shows each segment, when it is due and why
it is kept; KEPT FOR names two periods where the segment alone would ask for less.`,
		Example: `  kaizen-audit prune --dry-run
  kaizen-audit prune --log audit.jsonl --format json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			trail, err := a.openHolder(cmd, a.settings.options())
			if err != nil {
				return err
			}
			defer a.closing(&err, trail)
			r, err := trail.Prune(cmd.Context(), &o)
			if err != nil {
				return err
			}
			switch {
			case format.value == "json":
				return printJSON(a.stdout, r)
			case o.DryRun:
				return a.sayPrune(r)
			case r.Pruned.Segments == 0:
				a.say("nothing is due")
				return nil
			}
			return facts(a.stdout, [2]string{"Pruned", fmt.Sprintf("%s, %s", plural(int64(r.Pruned.Segments), "segment", "segments"), plural(r.Pruned.Entries, "entry", "entries"))},
				[2]string{"Stored", formatBytes(r.Pruned.Bytes)}, [2]string{"Entries about it", fmt.Sprint(r.Pruned.Said)})
		},
	}
	cmd.Flags().BoolVar(&o.DryRun, "dry-run", false, "show what would be deleted, and delete nothing")
	a.settings.addWriter(cmd.Flags())
	addFormat(cmd, format)
	return cmd
}

// sayPrune shows what is due.
func (a *app) sayPrune(r *audit.PruneReport) error {
	if len(r.Segments) == 0 {
		a.say("nothing is sealed, and only sealed segments are pruned")
		return nil
	}
	prunes := 0
	t := newTable(a.stdout, a.stdout, column{title: "FIRST", right: true}, column{title: "ENTRIES", right: true}, column{title: "NEWEST"}, column{title: "KEPT FOR"}, column{title: "DUE"}, column{title: "PRUNED NOW", least: 12})
	for _, s := range r.Segments {
		newest, due := "", ""
		if !s.Newest.IsZero() {
			newest = s.Newest.UTC().Format(time.DateOnly)
		}
		if !s.Due.IsZero() {
			due = s.Due.UTC().Format(time.DateOnly)
		}
		days := plural(s.Days, "day", "days")
		if s.Days != s.OwnDays && s.OwnDays > 0 {
			days += fmt.Sprintf(" (%d)", s.OwnDays)
		}
		now := "yes"
		if !s.Prune {
			now = "no: " + s.Why
		} else {
			prunes++
		}
		if err := t.row(text(strconv.FormatInt(s.First, 10)), text(strconv.FormatInt(s.Count, 10)), text(newest), text(days), text(due), text(now)); err != nil {
			return err
		}
	}
	if err := t.flush(); err != nil {
		return err
	}
	a.say("%d of %s would be pruned", prunes, plural(int64(len(r.Segments)), "sealed segment", "sealed segments"))
	if !r.Retention.Set {
		a.advise(fmt.Sprintf("nothing is pruned before somebody says how long entries are kept: kaizen-audit retention set DAYS --log %s", advice.Quote(a.settings.log)))
	}
	return nil
}
