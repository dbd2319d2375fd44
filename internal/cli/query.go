package cli

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/advice"
	"github.com/kaizen-audit/kaizen-audit/internal/report"
)

func (a *app) queryCommand() *cobra.Command {
	var f filter
	format := entryFormats()
	cmd := &cobra.Command{
		Use:   "query",
		Short: "Show entries",
		Long: `Shows the entries that match every flag, oldest first. Text flags match
exactly; * stands for any characters and \* for a star. The trail's own entries
are left out unless --audit or their type asks for them. --user, --subject and
--resource, named whole, are also found under their pseudonyms.

A time is RFC 3339 (2025-10-26T10:53:45Z), a date (that day in UTC) or how long
ago (24h, 7d). Times are compared with timestamp, both ends included.

The query is itself recorded. Lines that can't be read and entries that are
missing are named on stderr, the others are shown, and the exit code is 4.`,
		Example: `  kaizen-audit query --agent qa-agent-001 --since 24h
  kaizen-audit query --user user123 --since 2025-10-26 --until 2025-10-26 --format csv
  kaizen-audit query --subject P12345 --event-type PHI_ACCESS --purpose treatment
  kaizen-audit query --event-type TOOL_USE,LLM_CALL --failed --limit 20 --order newest
  kaizen-audit query --meta environment=production --text refund --format jsonl`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			q, err := f.query(cmd.Flags(), time.Now())
			if err != nil {
				return err
			}
			trail, bar, err := a.openScan(cmd, "query")
			if err != nil {
				return err
			}
			defer trail.Close()
			defer bar.done()
			out := a.entryWriter(format.value)
			shown := 0
			var last audit.Entry
			for e, err := range trail.Query(cmd.Context(), q) {
				if leftOut(err) {
					a.leaveOut("query", err)
					continue
				}
				if err != nil && shown == 0 {
					return err // nothing is shown, no head of a table either
				}
				if err != nil {
					return errors.Join(err, out.Close())
				}
				if a.stdout.isTerminal() && shown == 0 {
					bar.stop()
				}
				if err := out.Write(e); err != nil {
					return err
				}
				shown, last = shown+1, e
			}
			bar.done()
			if err := out.Close(); err != nil {
				return err
			}
			if format.value == "table" {
				switch {
				case shown == 0 && !a.partly:
					a.say("query: no entry matches")
				case shown == q.Limit:
					a.say("query: the limit is reached; --cursor %s goes on", last.Cursor())
				}
			}
			return nil
		},
	}
	f.add(cmd)
	addFormat(cmd, format)
	a.addUnrecorded(cmd)
	return cmd
}

// leftOut tells a line that is no entry and entries that are missing, after
// which others follow, from an error that ends the reading.
func leftOut(err error) bool {
	return errors.As(err, new(*entry.SyntaxError)) || errors.As(err, new(*audit.GapError))
}

// leaveOut names what was left out.
func (a *app) leaveOut(operation string, err error) {
	a.incomplete("%s: %v", operation, err)
	if errors.Is(err, audit.ErrDamaged) && !a.hintedDamage {
		a.hintedDamage = true
		a.advise(fmt.Sprintf("the answer is not complete; to see what is wrong: kaizen-audit verify --log %s", advice.Quote(a.settings.log)))
	}
}

// openScan opens the trail for reading all of it, with a progress line for who
// waits; the caller ends both.
func (a *app) openScan(cmd *cobra.Command, verb string) (*audit.Trail, *progress, error) {
	bar := newProgress(a.stderr, verb)
	trail, err := audit.Open(a.settings.log, &audit.Options{
		KeyFile: a.settings.keyFile, OpenKEK: a.settings.openKEK, Access: a.settings.access,
		ReadOnly: true, Unrecorded: a.unrecorded, MustExist: true, Command: cmd.CommandPath(), Warn: a.warn, StateDir: a.stateDir, Progress: bar.bytes,
	})
	return trail, bar, err
}

// filter is a query as flags.
type filter struct {
	q                           audit.Query
	since, until, recordedSince string
	failed, success             bool
	metadata                    []string
	order                       *choice
}

// add adds all flags of a query.
func (f *filter) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	f.addMatch(cmd)
	fs.IntVar(&f.q.Limit, "limit", 0, "at most so many entries")
	fs.Var(f.order, "order", "which come first")
	complete(cmd, "order", f.order.choices...)
	fs.StringVar(&f.q.Cursor, "cursor", "", "go on after the entry where an earlier query ended")
}

// addMatch adds those that say which entries are wanted.
func (f *filter) addMatch(cmd *cobra.Command) {
	fs := cmd.Flags()
	f.order = newChoice("oldest", "newest")
	fs.StringVar(&f.q.Agent, "agent", "", "agent_id")
	fs.StringVar(&f.q.Trace, "trace", "", "trace_id")
	fs.StringVar(&f.q.User, "user", "", "who did it: metadata.user_id, or user_id_hash")
	fs.StringVar(&f.q.Subject, "subject", "", "whose data it holds: the patient of a PHI_ACCESS, else who did it")
	fs.StringVar(&f.q.Session, "session", "", "metadata.session_id")
	fs.StringSliceVar(&f.q.EventTypes, "event-type", nil, "any of these event types, separated by commas")
	fs.StringVar(&f.q.Action, "action", "", "action, such as tool_use:*")
	fs.BoolVar(&f.failed, "failed", false, "only what failed")
	fs.BoolVar(&f.success, "success", false, "only what succeeded")
	fs.StringVar(&f.q.Outcome, "outcome", "", "outcome: denied, cancelled, timeout, unknown")
	fs.StringVar(&f.q.Resource, "resource", "", "what was acted on: ID or TYPE/ID")
	fs.StringArrayVar(&f.metadata, "meta", nil, "a member of metadata: KEY=VALUE (repeatable)")
	fs.StringVar(&f.q.Purpose, "purpose", "", "purpose")
	fs.StringVar(&f.since, "since", "", "timestamp not before this time")
	fs.StringVar(&f.until, "until", "", "timestamp not after this time")
	fs.StringVar(&f.recordedSince, "recorded-since", "", "recorded_at not before this time")
	fs.StringVar(&f.q.Text, "text", "", "these characters anywhere in the entry, in any case")
	fs.BoolVar(&f.q.Trails, "audit", false, "show the trail's own entries too")
}

// query checks the flags. A flag that was given and is empty is an error:
// --user "$UNSET" must not show everybody's entries.
func (f *filter) query(flags *pflag.FlagSet, now time.Time) (audit.Query, error) {
	var empty string
	flags.Visit(func(fl *pflag.Flag) {
		if v := fl.Value.String(); v == "" || v == "[]" {
			empty = fl.Name
		}
	})
	if empty != "" {
		return audit.Query{}, usagef("--%s is empty", empty)
	}
	q := f.q
	for _, t := range []struct {
		flag, value string
		to          *time.Time
		end         bool
	}{
		{"since", f.since, &q.Since, false}, {"until", f.until, &q.Until, true}, {"recorded-since", f.recordedSince, &q.RecordedSince, false},
	} {
		if t.value == "" {
			continue
		}
		var err error
		if *t.to, err = parseTime(t.value, now, t.end); err != nil {
			return q, usagef("--%s %s: %w", t.flag, report.Printable(t.value), err)
		}
	}
	switch {
	case f.failed && f.success:
		return q, usagef("--failed or --success, not both")
	case f.failed, f.success:
		q.Success = &f.success
	}
	for _, t := range q.EventTypes {
		if t == "" {
			return q, usagef("--event-type: one of the types is empty")
		}
	}
	for _, kv := range f.metadata {
		k, v, ok := strings.Cut(kv, "=")
		if !ok || k == "" {
			return q, usagef("--meta: must be KEY=VALUE")
		}
		if q.Metadata == nil {
			q.Metadata = map[string]string{}
		}
		if _, twice := q.Metadata[k]; twice {
			return q, usagef("--meta: %s is given twice", report.Printable(k))
		}
		q.Metadata[k] = v
	}
	if f.order.value == "newest" {
		q.Order = audit.Newest
	}
	if flags.Changed("limit") && q.Limit < 1 {
		return q, usagef("--limit: must be at least 1")
	}
	if err := q.Check(); err != nil {
		return q, usageError{fmt.Errorf("filter: %w", err)}
	}
	return q, nil
}

// noArgs refuses operands.
func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("%q: there is nothing to be named here", args[0])
	}
	return nil
}
