package cli

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/internal/report"
)

func (a *app) eraseUserCommand() *cobra.Command {
	var o audit.EraseOptions
	var w waitingErasures
	var yes bool
	format := newChoice("table", "json")
	cmd := &cobra.Command{
		Use:   "erase-user USER --reason TEXT | --list | --due | --cancel ID",
		Short: "Make a person's data unreadable, for good",
		Long: `Destroys the keys under which a person's fields are sealed (GDPR Art. 17), and
removes whose the person's pseudonym is. Entries stay, say that they are erased,
and verify as before. USER is what user_id or the identifier of a resource (a
patient's, say) is called; TYPE/ID names a resource of one type.

It shows first what it covers, which other subjects lose fields that they share,
and what is kept: accesses to other people's records in which the person was the
actor. --dry-run shows it and does nothing. Where a legal hold or a duty that the
policy declares stands against it, nothing is erased, and the exit code is 5;
with --schedule the erasure waits for the end of that instead. The process that
holds the trail (serve) carries it out then, or --due does, from a timer, say.
--list shows what waits, --cancel takes one back.

Text with no declared subject belongs to its trace: --trace ID erases it too, for
a trace of the person's entries, --trace '*' for all of them.

The certificate, for the person, is written to --certificate (by default
erasure-TIME.json here); check-proof checks it. What remains after an
erasure, and what it means for copies, is in docs/erasure.md.`,
		Example: `  kaizen-audit erase-user user123 --dry-run
  kaizen-audit erase-user user123 --reason "request of 2026-05-04" --certificate user123.json
  kaizen-audit erase-user patient/P12345 --reason "case 17" --yes
  kaizen-audit erase-user user123 --reason "request of 2026-05-04" --schedule --yes
  kaizen-audit erase-user --list
  kaizen-audit erase-user --due`,
		Args: func(cmd *cobra.Command, args []string) error {
			if w.asked() {
				return w.check(cmd, args, o.Reason)
			}
			switch {
			case len(args) != 1 || args[0] == "":
				return usagef("one user is needed")
			case strings.TrimSpace(o.Reason) == "" && !o.DryRun:
				return usagef("--reason is needed: why the data is erased")
			case o.DryRun && (o.Certificate != "" || yes):
				return usagef("--dry-run does nothing: --yes and --certificate don't go with it")
			case o.BackupDays < 0:
				return usagef("--backup-days: must be at least 0")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if w.asked() {
				return a.runWaiting(cmd, &w, o.Reason, format.value)
			}
			if !o.DryRun && o.Certificate == "" {
				o.Certificate = time.Now().UTC().Format("erasure-20060102T150405Z.json")
			}
			opts := a.settings.options()
			bar := newProgress(a.stderr, "erase-user")
			defer bar.done()
			opts.Progress = bar.bytes
			opts.MustExist, opts.Command, opts.Warn, opts.StateDir = true, cmd.CommandPath(), a.warn, a.stateDir
			trail, err := audit.Open(a.settings.log, &opts)
			if err != nil {
				return err
			}
			defer a.closing(&err, trail)
			if !o.DryRun && !yes {
				plan, err := trail.EraseUser(cmd.Context(), args[0], &audit.EraseOptions{DryRun: true, Traces: o.Traces})
				if err != nil {
					return err
				}
				bar.stop()
				if err := a.sayErasure(plan); err != nil {
					return err
				}
				if len(plan.Blocked) == 0 || o.Schedule {
					if err := a.confirmErasure(cmd.Context()); err != nil {
						return err
					}
				}
			}
			e, err := trail.EraseUser(cmd.Context(), args[0], &o)
			if err != nil {
				return err
			}
			bar.done()
			if e.Done && len(e.Unreadable) > 0 {
				a.incomplete("erase-user: %s can't be read, and whether they are this person's can't be told: %s; nobody reads what is sealed under them, unless an older copy of keys/ is put back: then erase again",
					plural(int64(len(e.Unreadable)), "key", "keys"), strings.Join(e.Unreadable, ", "))
			}
			switch {
			case format.value == "json":
				return printJSON(a.stdout, e)
			case o.DryRun:
				return a.sayErasure(e)
			case e.Scheduled != nil:
				s := e.Scheduled
				return facts(a.stdout, [2]string{"Scheduled", s.ID}, [2]string{"Carried out", whenText(*s)}, [2]string{"Entry", fmt.Sprint(s.Index)}, [2]string{"Certificate", s.Certificate})
			}
			return facts(a.stdout, [2]string{"Erased", fmt.Sprintf("%s in %s", plural(e.Fields, "field", "fields"), plural(e.Entries, "entry", "entries"))},
				[2]string{"Kept", plural(e.Kept.Entries, "entry", "entries")}, [2]string{"Entry", fmt.Sprint(*e.Index)}, [2]string{"Certificate", o.Certificate})
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Reason, "reason", "", "why, in your words; kept sealed in the trail's entry about it")
	f.BoolVar(&o.DryRun, "dry-run", false, "show what would be erased, and do nothing")
	f.BoolVar(&o.Schedule, "schedule", false, "where a hold or a duty stands against it, let it wait for the end of that")
	f.BoolVar(&w.list, "list", false, "list the erasures that wait")
	f.BoolVar(&w.due, "due", false, "carry out the erasures that waited and that nothing stands against any more")
	f.StringVar(&w.cancel, "cancel", "", "take back the erasure that waits under this `ID`")
	f.BoolVar(&yes, "yes", false, "don't ask")
	f.StringArrayVar(&o.Traces, "trace", nil, "also erase the text with no declared subject of this trace, '*' for all of the person's (repeatable)")
	f.StringVar(&o.Certificate, "certificate", "", "write the certificate to this file")
	f.IntVar(&o.BackupDays, "backup-days", 0, "after how many days the last backup of keys/ that keys backup did not make is gone, for the certificate")
	a.settings.addWriter(f)
	addFormat(cmd, format)
	return cmd
}

// confirmErasure asks whoever sits at the terminal.
func (a *app) confirmErasure(ctx context.Context) error {
	if f, ok := a.stdin.(*os.File); !ok || terminalWidth(f) == 0 {
		return usagef("nobody can be asked here: --yes, after a look at --dry-run")
	}
	a.say("this can't be undone; type yes to erase:")
	answer := make(chan string, 1)
	go func() {
		text, _ := bufio.NewReader(a.stdin).ReadString('\n')
		answer <- strings.TrimSpace(text)
	}()
	select {
	case text := <-answer:
		if text == "yes" {
			return nil
		}
		return usagef("nothing was erased")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// sayErasure shows what an erasure covers.
func (a *app) sayErasure(e *audit.Erasure) error {
	rows := [][2]string{
		{"Covers", fmt.Sprintf("%s in %s", plural(e.Fields, "field", "fields"), plural(e.Entries, "entry", "entries"))},
		{"Entries", rangesText(e.Ranges)},
	}
	for _, s := range e.Subjects {
		rows = append(rows, [2]string{"Key destroyed", subjectText(s)})
	}
	for _, s := range e.Others {
		rows = append(rows, [2]string{"Also touches", subjectText(s)})
	}
	for _, t := range e.Traces {
		does := "stays; --trace erases it"
		if t.Erased {
			does = "erased"
		}
		rows = append(rows, [2]string{"Trace", fmt.Sprintf("%s, %s of no declared subject: %s", report.Printable(t.ID), plural(t.Fields, "field", "fields"), does)})
	}
	rows = append(rows, [2]string{"Kept", fmt.Sprintf("%s: %s", plural(e.Kept.Entries, "entry", "entries"), cmp.Or(rangesText(e.Kept.Ranges), "none"))})
	for _, b := range e.Blocked {
		text := fmt.Sprintf("%s %s, %s", b.Kind, report.Printable(b.Name), plural(b.Entries, "entry", "entries"))
		if b.Until != nil {
			text += ", until " + b.Until.UTC().Format(time.RFC3339)
		}
		rows = append(rows, [2]string{"Stands against it", text})
	}
	if n := len(e.Unreadable); n > 0 {
		rows = append(rows, [2]string{"Can't be read", plural(int64(n), "key", "keys") + ", whose they are can't be told"})
	}
	if s := e.Scheduled; s != nil {
		rows = append(rows, [2]string{"Scheduled", fmt.Sprintf("%s, %s", s.ID, whenText(*s))})
	}
	return facts(a.stdout, rows...)
}

func subjectText(s audit.ErasedSubject) string {
	who := "already erased"
	if s.Kind != "" {
		who = s.Kind + " " + report.Printable(s.ID)
	}
	return fmt.Sprintf("%s, %s (%s)", who, plural(s.Fields, "field", "fields"), s.Handle)
}

// shownRanges is how many ranges a line of people's text has.
const shownRanges = 20

func rangesText(ranges []audit.Range) string {
	var parts []string
	for i, r := range ranges {
		if i == shownRanges {
			parts = append(parts, fmt.Sprintf("and %d more ranges", len(ranges)-i))
			break
		}
		if r.Count == 1 {
			parts = append(parts, fmt.Sprint(r.First))
		} else {
			parts = append(parts, fmt.Sprintf("%d to %d", r.First, r.First+r.Count-1))
		}
	}
	return strings.Join(parts, ", ")
}
