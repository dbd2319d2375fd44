package cli

import (
	"bufio"
	"fmt"

	"github.com/spf13/cobra"

	audit "github.com/kaizen-audit/kaizen-audit"
)

func (a *app) traceCommand() *cobra.Command {
	var last bool
	format := entryFormats()
	cmd := &cobra.Command{
		Use:   "trace ID | --last",
		Short: "Show one run as a tree",
		Long: `Shows the entries of one trace as a tree with their times: by span_id and
parent_span_id where the entries have them, else by AGENT_LOOP_START and
AGENT_LOOP_END, else one after another. --last is the run of the newest entry.

The first column is the index, the second how many seconds after the run's
beginning, the third how long it took in milliseconds. The reading is recorded.`,
		Example: `  kaizen-audit trace --last
  kaizen-audit trace 4bf92f3577b34da6a3ce929d0e0e4736
  kaizen-audit trace 4bf92f3577b34da6a3ce929d0e0e4736 --format json`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case last && len(args) > 0:
				return usagef("an id or --last, not both")
			case !last && (len(args) != 1 || args[0] == ""):
				return usagef("one trace id is needed, or --last")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			trail, bar, err := a.openScan(cmd, "trace")
			if err != nil {
				return err
			}
			defer trail.Close()
			id := ""
			if !last {
				id = args[0]
			}
			entries, err := trail.Trace(cmd.Context(), id)
			bar.done()
			for _, err := range apart(err) {
				if !leftOut(err) || len(entries) == 0 {
					return err
				}
				a.leaveOut("trace", err)
			}
			if format.value == "table" {
				out := bufio.NewWriter(a.stdout)
				writeTree(out, a.stdout, entries)
				return out.Flush()
			}
			out := a.entryWriter(format.value)
			for _, e := range entries {
				if err := out.Write(e); err != nil {
					return err
				}
			}
			return out.Close()
		},
	}
	cmd.Flags().BoolVar(&last, "last", false, "the run of the newest entry")
	addFormat(cmd, format)
	a.addUnrecorded(cmd)
	return cmd
}

// apart gives the errors that were joined.
func apart(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	if err == nil {
		return nil
	}
	return []error{err}
}

// summary says in a line what a run was.
func summary(entries []audit.Entry) string {
	agents := map[string]bool{}
	failed := 0
	first, last := entries[0].Timestamp, entries[0].Timestamp
	for _, e := range entries {
		agents[e.AgentID] = true
		if !e.Success {
			failed++
		}
		if e.Timestamp.Before(first) {
			first = e.Timestamp
		}
		if e.Timestamp.After(last) {
			last = e.Timestamp
		}
	}
	return fmt.Sprintf("%s, %s, %.1f s, %d failed",
		plural(len(entries), "entry", "entries"), plural(len(agents), "agent", "agents"), last.Sub(first).Seconds(), failed)
}

func plural[N int | int64](n N, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
