package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/internal/report"
)

// waitingErasures is what erase-user does with the erasures that wait.
type waitingErasures struct {
	list, due bool
	cancel    string
}

func (w *waitingErasures) asked() bool { return w.list || w.due || w.cancel != "" }

func (w *waitingErasures) check(cmd *cobra.Command, args []string, reason string) error {
	if len(args) > 0 {
		return usagef("a user does not go with --list, --due and --cancel")
	}
	asked := 0
	for _, yes := range []bool{w.list, w.due, w.cancel != ""} {
		if yes {
			asked++
		}
	}
	if asked > 1 {
		return usagef("one of --list, --due and --cancel")
	}
	for _, name := range []string{"dry-run", "schedule", "yes", "trace", "certificate", "backup-days"} {
		if cmd.Flags().Changed(name) {
			return usagef("--%s is about a user: it does not go with --list, --due and --cancel", name)
		}
	}
	switch {
	case w.cancel != "" && strings.TrimSpace(reason) == "":
		return usagef("--reason is needed: why it is cancelled")
	case w.cancel == "" && reason != "":
		return usagef("--reason does not go with --list and --due")
	}
	return nil
}

// runWaiting lists, cancels or carries out erasures that wait.
func (a *app) runWaiting(cmd *cobra.Command, w *waitingErasures, reason, format string) (err error) {
	if w.list {
		return a.listErasures(cmd, format)
	}
	opts := a.settings.options()
	bar := newProgress(a.stderr, "erase-user")
	defer bar.done()
	opts.Progress = bar.bytes
	trail, err := a.openHolder(cmd, opts)
	if err != nil {
		return err
	}
	defer a.closing(&err, trail)
	if w.cancel != "" {
		if err := trail.CancelErasure(cmd.Context(), w.cancel, reason); err != nil {
			return err
		}
		if format == "json" {
			return printJSON(a.stdout, map[string]string{"cancelled": w.cancel})
		}
		return facts(a.stdout, [2]string{"Cancelled", w.cancel})
	}
	due, err := trail.EraseDue(cmd.Context())
	if err != nil {
		return err
	}
	bar.stop()
	for _, f := range due.Failed {
		a.partly = true
		a.warn(fmt.Errorf("%s: %s", f.Schedule, f.Problem))
	}
	if format == "json" {
		return printJSON(a.stdout, due)
	}
	rows := [][2]string{}
	for _, d := range due.Done {
		rows = append(rows, [2]string{"Erased", fmt.Sprintf("%s: %s in %s, entry %d", d.Schedule, plural(d.Fields, "field", "fields"), plural(d.Entries, "entry", "entries"), d.Index)})
	}
	rows = append(rows, [2]string{"Carried out", fmt.Sprint(len(due.Done))}, [2]string{"Waiting", fmt.Sprint(due.Waiting)})
	return facts(a.stdout, rows...)
}

func (a *app) listErasures(cmd *cobra.Command, format string) (err error) {
	trail, err := a.openReader(cmd)
	if err != nil {
		return err
	}
	defer a.closing(&err, trail)
	all, err := trail.ScheduledErasures(cmd.Context())
	if err != nil {
		return err
	}
	if format == "json" {
		return printJSON(a.stdout, all)
	}
	t := newTable(a.stdout, a.stdout, column{title: "ID"}, column{title: "SCHEDULED"}, column{title: "BY"}, column{title: "USER", least: 8}, column{title: "CARRIED OUT", least: 12}, column{title: "REASON", least: 12})
	for _, s := range all {
		user := s.User
		if user == "" {
			user = "sealed"
		}
		if err := t.row(text(s.ID), text(s.Scheduled.UTC().Format(time.RFC3339)), text(s.By), text(user), text(whenText(s)), text(s.Reason)); err != nil {
			return err
		}
	}
	return t.flush()
}

// whenText says when an erasure that waits is carried out.
func whenText(s audit.ScheduledErasure) string {
	if s.Ready {
		return "now due"
	}
	var after []string
	for _, b := range s.Blocked {
		switch {
		case b.Until == nil:
			after = append(after, b.Kind+" "+report.Printable(b.Name)+" is lifted")
		case b.Until.After(time.Now()):
			after = append(after, b.Until.UTC().Format(time.RFC3339)+" ("+report.Printable(b.Name)+")")
		}
	}
	return "once over: " + strings.Join(after, ", ")
}
