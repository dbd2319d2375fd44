package cli

import (
	"strconv"
	"time"

	"github.com/spf13/cobra"

	audit "github.com/kaizen-audit/kaizen-audit"
)

func (a *app) archivePruneCommand() *cobra.Command {
	var to storeURL
	var dryRun bool
	format := newChoice("table", "json")
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Remove from an archive what its trail has pruned",
		Long: `Removes from an archive the lines of the segments that the trail has pruned
(kaizen-audit prune), once their retention date there is over and no legal hold is
on them: every version that the bucket keeps. Digests and checkpoints stay, so that
the archive can still be verified and restored. The trail says so first, in an
entry. The credentials must be allowed to delete versions.

A process that holds the trail and archives does this by itself once a day, after
it has pruned. --dry-run shows each segment and why it stays.`,
		Example: `  kaizen-audit archive prune --to "s3://audit-archive?endpoint=https://s3.example.com" --dry-run
  kaizen-audit archive prune --log audit.jsonl --to file:///mnt/archive`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			store, err := a.choose("to", to)
			if err != nil {
				return err
			}
			var trail *audit.Trail
			if dryRun {
				trail, err = a.openReader(cmd)
			} else {
				trail, err = a.openHolder(cmd, a.settings.options())
			}
			if err != nil {
				return err
			}
			defer a.closing(&err, trail)
			r, err := trail.PruneArchive(cmd.Context(), store, dryRun)
			if err != nil {
				return err
			}
			if format.value == "json" {
				return printJSON(a.stdout, r)
			}
			if len(r.Segments) == 0 {
				a.say("the archive has nothing that the trail has pruned")
				return nil
			}
			t := newTable(a.stdout, a.stdout, column{title: "FIRST", right: true}, column{title: "ENTRIES", right: true}, column{title: "STORED", right: true}, column{title: "KEPT UNTIL"}, column{title: "REMOVED", least: 7})
			for _, s := range r.Segments {
				until, removed := "", "yes"
				if !s.Until.IsZero() {
					until = s.Until.UTC().Format(time.DateOnly)
				}
				if s.Why != "" {
					removed = "no: " + s.Why
				}
				if err := t.row(text(strconv.FormatInt(s.First, 10)), text(strconv.FormatInt(s.Count, 10)), text(formatBytes(s.Stored)), text(until), text(removed)); err != nil {
					return err
				}
			}
			if err := t.flush(); err != nil {
				return err
			}
			if dryRun {
				a.say("nothing was removed: this is a dry run")
				return nil
			}
			a.say("removed %s, %s", plural(int64(r.Removed.Segments), "segment", "segments"), formatBytes(r.Removed.Bytes))
			return nil
		},
	}
	cmd.Flags().Var(&to, "to", "the archive's URL (default that of --archive-to)")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "show what would be removed, and remove nothing")
	a.settings.addWriter(cmd.Flags())
	addFormat(cmd, format)
	return cmd
}
