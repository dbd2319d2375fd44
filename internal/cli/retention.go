package cli

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	audit "github.com/kaizen-audit/kaizen-audit"
)

// period is a number of days, or the name of a preset.
type period int

func (p *period) String() string {
	if *p == 0 {
		return ""
	}
	return strconv.Itoa(int(*p))
}

func (p *period) Set(s string) error {
	if days, ok := audit.RetentionPresets[s]; ok {
		*p = period(days)
		return nil
	}
	days, err := strconv.Atoi(strings.TrimSuffix(s, "d"))
	if err != nil || days < 1 {
		return fmt.Errorf("must be a number of days, or one of %s", strings.Join(slices.Sorted(maps.Keys(audit.RetentionPresets)), ", "))
	}
	*p = period(days)
	return nil
}

func (p *period) Type() string { return "days" }

// retentionText says how long entries are kept.
func retentionText(r audit.Retention) string {
	s := plural(int64(r.Days), "day", "days")
	switch {
	case !r.Set:
		s += ", not set: nothing is pruned"
	case r.Locked:
		s += ", locked"
	}
	if r.Floor > 0 {
		s += fmt.Sprintf(", the profile's least is %d", r.Floor)
	}
	return s
}

func (a *app) retentionCommand() *cobra.Command {
	format := newChoice("table", "json")
	cmd := &cobra.Command{
		Use:   "retention",
		Short: "Show, or set, how long entries are kept",
		Long: `Shows how long entries are kept at least. retention set changes it; what was
promised to entries that are there is kept.`,
		Example: `  kaizen-audit retention
  kaizen-audit retention set 2555`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if len(args) > 0 {
				return noSuchCommand(cmd, args[0])
			}
			trail, err := a.openReader(cmd)
			if err != nil {
				return err
			}
			defer a.closing(&err, trail)
			r, err := trail.Retention(cmd.Context())
			if err != nil {
				return err
			}
			return a.sayRetention(format.value, r)
		},
	}
	addFormat(cmd, format)
	var lock bool
	set := &cobra.Command{
		Use:   "set DAYS|PRESET",
		Short: "Set how many days entries are kept",
		Long: `Sets how many days after its newest entry a segment is kept, and records it. A
process that holds the trail prunes what is older. A shorter period than before
holds for what is recorded from now on. Presets: hipaa (2555), pci (1095), soc2
(2555), eu-ai-act (184). --lock has the period only grow from now on, for good.`,
		Example: `  kaizen-audit retention set 2555
  kaizen-audit retention set pci --lock --log cards.jsonl`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("one period is needed: a number of days, or a preset")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			var days period
			if err := days.Set(args[0]); err != nil {
				return usagef("period: %w", err)
			}
			trail, err := a.openHolder(cmd, a.settings.options())
			if err != nil {
				return err
			}
			defer a.closing(&err, trail)
			if err := trail.SetRetention(cmd.Context(), int(days), lock); err != nil {
				return err
			}
			r, err := trail.Retention(cmd.Context())
			if err != nil {
				return err
			}
			return a.sayRetention(format.value, r)
		},
	}
	set.Flags().BoolVar(&lock, "lock", false, "the period only grows from now on")
	a.settings.addWriter(set.Flags())
	addFormat(set, format)
	cmd.AddCommand(set)
	return cmd
}

func (a *app) sayRetention(format string, r audit.Retention) error {
	if format == "json" {
		return printJSON(a.stdout, r)
	}
	return facts(a.stdout, [2]string{"Retention", retentionText(r)})
}
