package cli

import (
	"strings"
	"time"

	"github.com/spf13/cobra"

	audit "github.com/kaizen-audit/kaizen-audit"
)

func (a *app) holdCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "hold",
		Short: "Put legal holds on entries, list and lift them",
		Long: `A legal hold keeps what it covers from being pruned or erased, also what is
recorded later, until it is lifted. Each is an entry of the trail.`,
		Example: `  kaizen-audit hold add --user user123 --reason "case 2026-17"
  kaizen-audit hold list`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return noSuchCommand(cmd, args[0])
			}
			return cmd.Help()
		},
	}
	cmd.AddCommand(a.holdAddCommand(), a.holdListCommand(), a.holdLiftCommand())
	return cmd
}

func (a *app) holdAddCommand() *cobra.Command {
	var h audit.HoldRequest
	var since, until string
	format := newChoice("table", "json")
	cmd := &cobra.Command{
		Use:   "add --reason TEXT",
		Short: "Put a legal hold on entries",
		Long: `Puts a legal hold on the entries that match all that is given: a user (as the one
who acted, and as the one whose data it is), an agent, a trace, times. Without
--until it also covers what is recorded from now on.`,
		Example: `  kaizen-audit hold add --user user123 --reason "case 2026-17"
  kaizen-audit hold add --agent claims-bot --since 2026-01-01 --until 2026-06-30 --reason "audit of H1"`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if strings.TrimSpace(h.Reason) == "" {
				return usagef("--reason is needed: why it is held")
			}
			if h.User == "" && h.Agent == "" && h.Trace == "" && since == "" && until == "" {
				return usagef("--user, --agent, --trace, --since or --until is needed: what is held")
			}
			for _, w := range []struct {
				flag, value string
				to          *time.Time
				end         bool
			}{{"since", since, &h.Since, false}, {"until", until, &h.Until, true}} {
				if w.value == "" {
					continue
				}
				if *w.to, err = parseTime(w.value, time.Now(), w.end); err != nil {
					return usagef("--%s: %w", w.flag, err)
				}
			}
			trail, err := a.openHolder(cmd, a.settings.options())
			if err != nil {
				return err
			}
			defer a.closing(&err, trail)
			held, err := trail.AddHold(cmd.Context(), h)
			if err != nil {
				return err
			}
			if format.value == "json" {
				return printJSON(a.stdout, held)
			}
			found := "none: nothing that is recorded matches"
			if len(held.Ranges) > 0 {
				found = "the segments of entries " + rangesText(held.Ranges)
			}
			return facts(a.stdout, [2]string{"Hold", held.ID}, [2]string{"Covers", holdText(held)}, [2]string{"Found in", found}, [2]string{"From now on", onText(held)})
		},
	}
	f := cmd.Flags()
	f.StringVar(&h.User, "user", "", "what this user did, and what is about this user")
	f.StringVar(&h.Agent, "agent", "", "what this agent did")
	f.StringVar(&h.Trace, "trace", "", "this run")
	f.StringVar(&since, "since", "", "not before this time, such as 2026-01-31 or 2026-01-31T12:00:00Z")
	f.StringVar(&until, "until", "", "not after this time")
	f.StringVar(&h.Reason, "reason", "", "why, such as a case's number; it is required")
	a.settings.addWriter(f)
	addFormat(cmd, format)
	return cmd
}

func (a *app) holdListCommand() *cobra.Command {
	format := newChoice("table", "json")
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the legal holds in force",
		Example: `  kaizen-audit hold list --format json`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			trail, err := a.openReader(cmd)
			if err != nil {
				return err
			}
			defer a.closing(&err, trail)
			holds, err := trail.Holds(cmd.Context())
			if err != nil {
				return err
			}
			if format.value == "json" {
				return printJSON(a.stdout, holds)
			}
			if len(holds) == 0 {
				a.say("no hold is in force")
				return nil
			}
			t := newTable(a.stdout, a.stdout, column{title: "HOLD"}, column{title: "ADDED"}, column{title: "BY"}, column{title: "COVERS", least: 12}, column{title: "REASON", least: 12})
			for _, h := range holds {
				if err := t.row(text(h.ID), text(h.Added), text(h.By), text(holdText(h)), text(h.Reason)); err != nil {
					return err
				}
			}
			return t.flush()
		},
	}
	addFormat(cmd, format)
	return cmd
}

// onText says what a hold does with what is recorded later.
func onText(h audit.LegalHold) string {
	if h.Open {
		return "held too, where it matches"
	}
	return "not held: --until is past"
}

// holdText says what a hold covers.
func holdText(h audit.LegalHold) string {
	var parts []string
	for _, p := range [][2]string{{"agent", h.Agent}, {"trace", h.Trace}, {"user", h.User}, {"since", h.Since}, {"until", h.Until}} {
		if p[1] != "" {
			parts = append(parts, p[0]+" "+p[1])
		}
	}
	if len(parts) == 0 {
		parts = append(parts, "what can't be read here")
	}
	return strings.Join(parts, ", ")
}

func (a *app) holdLiftCommand() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:     "lift ID --reason TEXT",
		Short:   "Lift a legal hold",
		Example: `  kaizen-audit hold lift 019b8660-0b80-7001-8001-000000000005 --reason "case closed"`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) != 1:
				return usagef("the id of one hold is needed: kaizen-audit hold list")
			case strings.TrimSpace(reason) == "":
				return usagef("--reason is needed: why it is lifted")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			trail, err := a.openHolder(cmd, a.settings.options())
			if err != nil {
				return err
			}
			defer a.closing(&err, trail)
			if err := trail.LiftHold(cmd.Context(), args[0], reason); err != nil {
				return err
			}
			return facts(a.stdout, [2]string{"Lifted", args[0]})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why; it is required")
	a.settings.addWriter(cmd.Flags())
	return cmd
}
