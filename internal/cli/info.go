package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/kaizen-audit/kaizen-audit/internal/advice"
)

func (a *app) infoCommand() *cobra.Command {
	format := newChoice("table", "json")
	cmd := &cobra.Command{
		Use:   "info",
		Short: "Show how a trail is",
		Long: `Shows a trail's origin and key, how many entries it has and how many of them the
latest checkpoint covers, its segments, who writes it, who can read its signing
key, and what needs attention. No entry is shown, so nothing is recorded. When
entries are missing it names them on stderr, and the exit code is 4; whether
what is there was changed only verify tells.`,
		Example: `  kaizen-audit info
  kaizen-audit info --log audit.jsonl --format json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			trail, err := a.openReader(cmd)
			if err != nil {
				return err
			}
			defer trail.Close()
			i, err := trail.Info(cmd.Context())
			if err != nil {
				return err
			}
			a.partly = len(i.Missing) > 0
			if format.value == "json" {
				return printJSON(a.stdout, i)
			}
			for _, w := range i.Warnings {
				a.say("warning: %s", w)
			}
			if a.partly {
				a.advise(fmt.Sprintf("to see what is wrong: kaizen-audit verify --log %s", advice.Quote(a.settings.log)))
			}
			sealed, bytes, stored := int64(0), int64(0), int64(0)
			for _, s := range i.Segments {
				sealed, bytes, stored = sealed+s.Count, bytes+s.Bytes, stored+s.Stored
			}
			segments := "none sealed"
			if len(i.Segments) > 0 {
				segments = fmt.Sprintf("%d sealed: %s, %s of lines in %s", len(i.Segments), plural(sealed, "entry", "entries"), formatBytes(bytes), formatBytes(stored))
			}
			anchored := "not known here"
			if i.AnchoredTo >= 0 {
				anchored = plural(i.AnchoredTo, "entry", "entries")
			}
			for _, o := range i.Anchors {
				said := "nothing yet"
				if o.Size >= 0 {
					said = fmt.Sprintf("%s, %s, %d behind", plural(o.Size, "entry", "entries"), o.Time.UTC().Format(time.RFC3339), o.Lag)
				}
				anchored += fmt.Sprintf("; %s %s: %s", o.Kind, o.Name, said)
			}
			holder := i.Holder
			if holder == "" {
				holder = "nobody"
			}
			covered := plural(i.Covered, "entry", "entries")
			if i.Covered == i.Entries+i.Pruned && len(i.Missing) == 0 {
				covered = "all of them"
			}
			spooled := ""
			if i.Spooled > 0 {
				spooled = fmt.Sprint(i.Spooled)
			}
			lines := "their owner and root"
			if i.Group != "" {
				lines = "their owner, group " + i.Group + " and root"
			}
			adopted := ""
			if old := i.Adopted; old != nil {
				adopted = fmt.Sprintf("%d lines from %s", old.Count, old.File)
			}
			archived, inArchive := "", ""
			if s := i.Archive; s != nil {
				archived = fmt.Sprintf("%s of %d at %s; on this disk only: %s", plural(s.Lines, "entry", "entries"), i.Entries, s.To, exposure(s))
				inArchive = away(s)
			}
			waiting := ""
			if i.ScheduledErasures > 0 {
				waiting = fmt.Sprintf("%d: kaizen-audit erase-user --list", i.ScheduledErasures)
			}
			holds := ""
			if i.Holds > 0 {
				holds = fmt.Sprintf("%d: kaizen-audit hold list", i.Holds)
			}
			pruned := ""
			if i.Pruned > 0 {
				pruned = plural(i.Pruned, "entry", "entries")
			}
			replaced := ""
			if i.KeyReplaced > 0 {
				replaced = fmt.Sprintf("at %s, since the one before was lost; that one vouches for what came before alone", plural(i.KeyReplaced, "entry", "entries"))
			}
			return facts(a.stdout,
				[2]string{"Log", i.Path}, [2]string{"Directory", i.Dir}, [2]string{"Origin", i.Origin}, [2]string{"VKey", i.VKey}, [2]string{"Key replaced", replaced},
				[2]string{"Profile", i.Profile}, [2]string{"Created", i.Created.UTC().Format(time.RFC3339)},
				[2]string{"Entries", fmt.Sprint(i.Entries)}, [2]string{"Adopted", adopted}, [2]string{"Covered", covered}, [2]string{"Root", i.Root},
				[2]string{"Segments", segments},
				[2]string{"Open segment", fmt.Sprintf("from index %d, %s", i.OpenFirst, formatBytes(i.OpenBytes))},
				[2]string{"Written by", holder}, [2]string{"Waiting in spool", spooled}, [2]string{"Pin", i.Pin},
				[2]string{"Lines readable by", lines}, [2]string{"Append-only flag", i.AppendOnly},
				[2]string{"Signing key readable by", i.KeyReadableBy}, [2]string{"Anchored outside", anchored},
				[2]string{"Archive", archived}, [2]string{"In the archive only", inArchive}, [2]string{"Retention", retentionText(i.Retention)}, [2]string{"Pruned", pruned}, [2]string{"Legal holds", holds},
				[2]string{"Encryption", i.Encryption}, [2]string{"Sealed for", sealedFor(i.SealedFor)}, [2]string{"Erasure", i.Erasure}, [2]string{"Erasures scheduled", waiting}, [2]string{"Access control", i.AccessControl})
		},
	}
	addFormat(cmd, format)
	return cmd
}

// sealedFor says whose keys open what is sealed, where who writes has them not.
func sealedFor(pair string) string {
	if pair == "" {
		return ""
	}
	return "the private key of pair " + pair
}
