package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	audit "github.com/kaizen-audit/kaizen-audit"
)

func (a *app) rotateCommand() *cobra.Command {
	format := newChoice("table", "json")
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Seal the open segment",
		Long: `Ends the open segment, compresses it, and returns once the sealed file is on
disk, read back and compared. The log goes on with a new segment; its entries
are read, queried and verified like before, and zstd -dc gives the very same
lines.`,
		Example: `  kaizen-audit rotate
  kaizen-audit rotate --log audit.jsonl --format json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			opts := a.settings.options()
			opts.MustExist, opts.Command, opts.Warn, opts.StateDir = true, cmd.CommandPath(), a.warn, a.stateDir
			trail, err := audit.Open(a.settings.log, &opts)
			if err != nil {
				return err
			}
			defer a.closing(&err, trail)
			s, err := trail.Rotate(cmd.Context())
			if err != nil {
				return err
			}
			if format.value == "json" {
				return printJSON(a.stdout, s)
			}
			return facts(a.stdout, [2]string{"Sealed", s.File},
				[2]string{"Entries", fmt.Sprintf("%d, from index %d", s.Count, s.First)},
				[2]string{"Lines", formatBytes(s.Bytes)}, [2]string{"Stored", formatBytes(s.Stored)})
		},
	}
	a.settings.addWriter(cmd.Flags())
	addFormat(cmd, format)
	return cmd
}
