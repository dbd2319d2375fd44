package cli

import (
	"bufio"
	"fmt"

	"github.com/spf13/cobra"

	audit "github.com/kaizen-audit/kaizen-audit"
)

func (a *app) reportCommand() *cobra.Command {
	format := newChoice("text", "json")
	cmd := &cobra.Command{
		Use:   "report",
		Short: "Write the compliance report",
		Long: `Writes the compliance report over the whole trail: how many entries, whether
they are encrypted, and for each agent how many operations, how many of them
succeeded, and the last three. The trail's own entries are counted apart.

Entries that are missing are named on stderr and in the report, and the exit
code is 4. The report does not verify the trail: verify does. The reading is
recorded.`,
		Example: `  kaizen-audit report
  kaizen-audit report --format json > report.json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			trail, bar, err := a.openScan(cmd, "report")
			if err != nil {
				return err
			}
			defer trail.Close()
			r, err := trail.ComplianceReport(cmd.Context())
			bar.done()
			if err != nil {
				return err
			}
			if r.Broken > 0 {
				a.incomplete("report: %s could not be read, the first at index %d", plural(r.Broken, "line", "lines"), *r.BrokenFirst)
			}
			for _, gap := range r.Missing {
				a.leaveOut("report", fmt.Errorf("%w: %s", audit.ErrDamaged, gap.Detail))
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
