package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/archive"
	"github.com/kaizen-audit/kaizen-audit/internal/advice"
	"github.com/kaizen-audit/kaizen-audit/internal/report"
)

// restoreFlags are what restore and archive verify are held against.
type restoreFlags struct{ checkpoint, key string }

func (f *restoreFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.checkpoint, "checkpoint", "", "a signed checkpoint of the trail, kept elsewhere, or a file of --checkpoint-to")
	cmd.Flags().StringVar(&f.key, "key", "", "the trail's verifier key (vkey), from somewhere you trust")
}

func (a *app) restoreOptions(cmd *cobra.Command, f restoreFlags) (*audit.RestoreOptions, error) {
	o := &audit.RestoreOptions{Key: f.key, StateDir: a.stateDir, Anchors: a.settings.anchors, Warn: a.warn}
	if f.key != "" {
		if err := checkKey("key", f.key); err != nil {
			return nil, err
		}
	}
	if f.checkpoint == "" {
		return o, nil
	}
	var err error
	o.Checkpoint, err = readOperand(cmd.Context(), f.checkpoint, nil, maxCheckpoints)
	if err == nil && len(o.Checkpoint) > maxCheckpoints {
		err = usagef("--checkpoint %s: longer than %d bytes; give its newest checkpoints alone", report.Printable(f.checkpoint), maxCheckpoints)
	}
	return o, err
}

func (a *app) restoreCommand() *cobra.Command {
	var from storeURL
	var flags restoreFlags
	var verifyOnly, newKey bool
	format := newChoice("table", "json")
	cmd := &cobra.Command{
		Use:   "restore",
		Short: "Bring a trail back from its archive",
		Long: `Brings a trail back from its archive to --log, where nothing may be. Every line is
checked against the signed checkpoints while it is fetched. Run again after an
interruption it goes on where it was; until the end the place is no trail.

The trail goes on: with its signing key, which keys backup has saved and keys
restore puts back. Without that it can be verified and queried. Where there is no
backup, --new-key gives the trail a new signing key, now or later, and an entry says
so. The former key has not signed for it: who checks the trail with that one, a
witness too, has to be given the new one, and the fields of persons that were sealed
stay unreadable, since their keys were lost with it. Where --checkpoint covers more entries than are
archived, what there is is set aside, readable, and a new trail is begun whose
entry 0 says what is missing.`,
		Example: `  kaizen-audit restore --from s3://audit-archive/agents
  kaizen-audit restore --from file:///mnt/archive --log audit.jsonl --checkpoint /mnt/elsewhere/checkpoint
  kaizen-audit restore --from file:///mnt/archive --log audit.jsonl --new-key
  kaizen-audit restore --from file:///mnt/archive --verify-only`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			store, err := a.choose("from", from)
			if err != nil {
				return err
			}
			if verifyOnly && newKey {
				return usagef("--verify-only writes nothing: leave --new-key out")
			}
			if verifyOnly {
				return a.verifyArchive(cmd, store, flags, format.value)
			}
			opts, err := a.restoreOptions(cmd, flags)
			if err != nil {
				return err
			}
			opts.NewKey, opts.Successor = newKey, a.settings.options()
			opts.Successor.Command, opts.Successor.Warn = cmd.CommandPath(), a.warn
			opts.Successor.ArchiveTo, opts.Successor.ArchiveEvery, opts.Successor.ArchiveRate, opts.Successor.ArchiveKeepLocal = nil, 0, 0, 0 // another trail needs another place
			bar := newProgress(a.stderr, "restore")
			opts.Progress = bar.bytes
			r, err := audit.Restore(cmd.Context(), a.settings.log, store, opts)
			bar.done()
			if err != nil {
				return err
			}
			if err := a.showRestored(r, format.value); err != nil {
				return err
			}
			log := advice.Quote(a.settings.log)
			switch {
			case r.Missing != nil:
				a.incomplete("restore: %s missing from the archive; the trail ends there, and %s goes on", missingEntries(r), r.Successor)
			case r.NewKey != "":
				a.say("restore: the trail goes on under the new key; the former one has not signed for it")
				a.advise("give the new key to whoever checks the trail with the former one, witnesses too, and back it up: kaizen-audit keys backup")
			case !r.Writable:
				a.say("restore: the trail is complete; it can be verified and queried, and not written, since its signing key is not here")
				a.advise(fmt.Sprintf("to go on with it: kaizen-audit keys restore BACKUP --log %[1]s; where there is no backup, to go on with a new signing key: kaizen-audit restore --from %[2]s --new-key --log %[1]s", log, advice.Quote(store.URL())))
			}
			return nil
		},
	}
	cmd.Flags().Var(&from, "from", "the archive's URL (default that of --archive-to)")
	cmd.Flags().BoolVar(&verifyOnly, "verify-only", false, "check the archive and write nothing")
	cmd.Flags().BoolVar(&newKey, "new-key", false, "give the trail a new signing key, where the former one is lost")
	flags.add(cmd)
	a.settings.addWriter(cmd.Flags())
	addFormat(cmd, format)
	return cmd
}

func missingEntries(r *audit.Restored) string {
	if r.Missing.Count == 1 {
		return fmt.Sprintf("entry %d is", r.Missing.First)
	}
	return fmt.Sprintf("entries %s are", entryRange(r.Missing.First, r.Missing.Count))
}

func (a *app) verifyArchive(cmd *cobra.Command, store archive.Store, f restoreFlags, format string) error {
	opts, err := a.restoreOptions(cmd, f)
	if err != nil {
		return err
	}
	bar := newProgress(a.stderr, "verify")
	opts.Progress = bar.bytes
	r, err := audit.VerifyArchive(cmd.Context(), store, opts)
	bar.done()
	if err != nil {
		return err
	}
	if err := a.showRestored(r, format); err != nil {
		return err
	}
	if r.Missing != nil {
		return failedError{hinted{errors.New(missingEntries(r) + " missing from the archive"), ""}}
	}
	return nil
}

func (a *app) showRestored(r *audit.Restored, format string) error {
	if format == "json" {
		return printJSON(a.stdout, r)
	}
	pruned := int64(0)
	for _, p := range r.Pruned {
		pruned += p.Count
	}
	lines := [][2]string{{"Origin", r.Origin}, {"Entries", fmt.Sprintf("%d, of them %d under the checkpoint, in %s and a tail", r.Lines, r.Size, plural(int64(r.Segments), "segment", "segments"))},
		{"Root", r.Root}, {"Anchor", anchors[r.Anchor]}}
	if pruned > 0 {
		lines = append(lines, [2]string{"Pruned", plural(pruned, "entry", "entries") + ", of which only the digests are there"})
	}
	if r.NewKey != "" {
		lines = append(lines, [2]string{"New key", r.NewKey})
	}
	if r.Missing != nil {
		lines = append(lines, [2]string{"Missing", missingEntries(r) + " missing"}, [2]string{"Goes on as", r.Successor})
	}
	return facts(a.stdout, lines...)
}
