package cli

import (
	"bufio"
	"encoding/csv"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/internal/export"
	"github.com/kaizen-audit/kaizen-audit/internal/report"
)

func (a *app) reportCommand() *cobra.Command {
	format := newChoice("text", "json", "csv")
	gaps := false
	cmd := &cobra.Command{
		Use:   "report",
		Short: "Write the compliance report, or the gap report",
		Long: `Writes the compliance report over the whole trail: how many entries, whether
they are encrypted, and for each agent how many operations, how many of them
succeeded, and the last three; and what the entries were for, where they say so.
The trail's own entries are counted apart.

With --gaps it is the gap report: for each agent how many entries have all six
fields of PCI DSS 10.2.2, a user of their own, a purpose and content, what has
begun and never ended, what was denied, late or backdated, and the setting that
would mend each. csv is for the gap report.

Entries that are missing are named on stderr and in the report, and the exit
code is 4. The report does not verify the trail: verify does. The reading is
recorded.`,
		Example: `  kaizen-audit report
  kaizen-audit report --format json > report.json
  kaizen-audit report --gaps
  kaizen-audit report --gaps --format csv > gaps.csv`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format.value == "csv" && !gaps {
				return usagef("--format csv is for --gaps")
			}
			trail, bar, err := a.openScan(cmd, "report")
			if err != nil {
				return err
			}
			defer trail.Close()
			var r any
			var text func(io.Writer) error
			if gaps {
				var g *audit.GapReport
				if g, err = trail.GapReport(cmd.Context()); err == nil {
					r, text = g, g.WriteText
					if format.value == "csv" {
						text = func(w io.Writer) error { return writeGapsCSV(w, g) }
					}
					bar.done()
					a.reportIncomplete(g.Broken, g.BrokenFirst, g.Missing)
				}
			} else {
				var c *audit.ComplianceReport
				if c, err = trail.ComplianceReport(cmd.Context()); err == nil {
					r, text = c, c.WriteText
					bar.done()
					a.reportIncomplete(c.Broken, c.BrokenFirst, c.Missing)
				}
			}
			bar.done()
			if err != nil {
				return err
			}
			if format.value == "json" {
				return printJSON(a.stdout, r)
			}
			out := bufio.NewWriter(a.stdout)
			if err := text(out); err != nil {
				return err
			}
			return out.Flush()
		},
	}
	cmd.Flags().BoolVar(&gaps, "gaps", false, "what entries do not say, by agent, and what would mend it")
	addFormat(cmd, format)
	a.addUnrecorded(cmd)
	return cmd
}

// reportIncomplete names what a report could not read.
func (a *app) reportIncomplete(broken int64, first *int64, missing []report.Gap) {
	if broken > 0 {
		a.incomplete("report: %s could not be read, the first at index %d", plural(broken, "line", "lines"), *first)
	}
	for _, gap := range missing {
		a.leaveOut("report", fmt.Errorf("%w: %s", audit.ErrDamaged, gap.Detail))
	}
}

// writeGapsCSV writes a row for each agent and measure.
func writeGapsCSV(w io.Writer, g *audit.GapReport) error {
	out := csv.NewWriter(w)
	rows := [][]string{{"agent_id", "measure", "count", "of", "first_index", "mend"}}
	for _, agent := range g.Agents {
		for _, m := range agent.Measures {
			first := ""
			if m.First != nil {
				first = strconv.FormatInt(*m.First, 10)
			}
			rows = append(rows, []string{
				export.CSVCell(agent.AgentID), m.Name, strconv.FormatInt(m.Count, 10), strconv.FormatInt(m.Of, 10), first, export.CSVCell(m.Mend),
			})
		}
	}
	return out.WriteAll(rows)
}
