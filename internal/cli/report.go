package cli

import (
	"bufio"

	"github.com/spf13/cobra"
)

func (a *app) reportCommand() *cobra.Command {
	format := newChoice("text", "json")
	cmd := &cobra.Command{
		Use:   "report",
		Short: "Write the compliance report",
		Long: `Writes the compliance report over the whole trail: how many entries, whether
they are encrypted, and for each agent how many operations, how many of them
succeeded, and the last three. The trail's own entries are counted apart.

The report does not verify the trail: verify does. The reading is recorded.`,
		Example: `  kaizen-audit report
  kaizen-audit report --format json > report.json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			trail, err := a.openReader(cmd)
			if err != nil {
				return err
			}
			defer trail.Close()
			r, err := trail.ComplianceReport(cmd.Context())
			if err != nil {
				return err
			}
			if r.Broken > 0 {
				a.incomplete("report: %s could not be read, the first at index %d", plural(r.Broken, "line", "lines"), *r.BrokenFirst)
			}
			if format.value == "json" {
				return printJSON(a.stdout, r)
			}
			out := bufio.NewWriter(a.stdout)
			if err := r.WriteText(out); err != nil {
				return err
			}
			return out.Flush()
		},
	}
	addFormat(cmd, format)
	return cmd
}
