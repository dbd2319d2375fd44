package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/archive"
	"github.com/kaizen-audit/kaizen-audit/archive/s3"
)

func (a *app) archiveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "archive",
		Short: "Copy a trail to where nobody can delete it early",
		Long: `An archive is a bucket with object lock (s3://BUCKET/PREFIX?endpoint=URL) or a
directory (file:///mnt/archive) that has the trail's sealed segments, the lines
after them and its checkpoints, kept until their retention date. Whoever holds
the trail archives by itself with --archive-to; push does it once.

Credentials of a bucket are those of the usual chain: AWS_ACCESS_KEY_ID and
AWS_SECRET_ACCESS_KEY, the shared credentials file, the role of the machine.`,
		Example: `  kaizen-audit archive status
  kaizen-audit help archive push`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return noSuchCommand(cmd, args[0])
			}
			return cmd.Help()
		},
	}
	cmd.AddCommand(a.archivePushCommand(), a.archiveStatusCommand(), a.archiveVerifyCommand(), a.archivePruneCommand())
	return cmd
}

// creator is a store that can be begun.
type creator interface {
	archive.Store
	Create(ctx context.Context) error
}

// openStore is the store at a URL. It asks nobody yet.
func openStore(url string, allowHTTP bool) (creator, error) {
	scheme, _, ok := strings.Cut(url, ":")
	switch {
	case ok && scheme == "file":
		return archive.OpenDir(url)
	case ok && scheme == "s3":
		return s3.Open(url, &s3.Options{AllowHTTP: allowHTTP})
	case !ok:
		return nil, errors.New("must be a URL, such as s3://bucket/prefix or file:///mnt/archive")
	}
	return nil, fmt.Errorf("there is no archive of scheme %q, only of s3 and file", scheme)
}

// readArchive is the store that a segment was archived to, to read it: who let go of
// its file here could use that endpoint.
func readArchive(url string) (archive.Store, error) {
	store, err := openStore(url, true)
	if err != nil {
		return nil, err
	}
	return store, nil
}

// storeURL is a store as a flag.
type storeURL struct {
	url   string
	store creator
}

func (s *storeURL) String() string { return s.url }
func (s *storeURL) Type() string   { return "url" }
func (s *storeURL) Set(url string) error {
	store, err := openStore(url, true) // whether it may is another flag
	if err != nil {
		return err
	}
	s.url, s.store = url, store
	return nil
}

// mayHTTP refuses an endpoint that --allow-http has to allow.
func (s *storeURL) mayHTTP(allow bool) error {
	if s.store == nil {
		return nil
	}
	_, err := openStore(s.url, allow)
	return err
}

// archiveStore is what --archive-to names; nil for nothing.
func (s *settings) archiveStore() archive.Store {
	if s.archiveTo.store == nil {
		return nil
	}
	return s.archiveTo.store
}

// choose is the store of a flag, else that of the settings.
func (a *app) choose(flag string, given storeURL) (creator, error) {
	if err := given.mayHTTP(a.settings.allowHTTP); err != nil {
		return nil, usageError{err}
	}
	switch {
	case given.store != nil:
		return given.store, nil
	case a.settings.archiveTo.store != nil:
		return a.settings.archiveTo.store, nil
	}
	return nil, usagef("--%s is needed: the archive's URL, such as s3://bucket/prefix or file:///mnt/archive", flag)
}

func (a *app) archivePushCommand() *cobra.Command {
	var to storeURL
	var create bool
	format := newChoice("table", "json")
	cmd := &cobra.Command{
		Use:   "push",
		Short: "Bring the archive up to what is in the trail now",
		Long: `Archives what is in the trail and not yet in its archive: sealed segments, the
lines after them, and the checkpoint, in this order. It returns once all of it is
there. It can be interrupted and run again, and works beside a running writer.

No key is archived but those that lines are sealed with, as they are wrapped.`,
		Example: `  kaizen-audit archive push --to "s3://audit-archive?endpoint=https://s3.example.com" --create-bucket
  kaizen-audit archive push --log audit.jsonl --to file:///mnt/archive --format json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			store, err := a.choose("to", to)
			if err != nil {
				return err
			}
			trail, err := a.openReader(cmd)
			if err != nil {
				return err
			}
			defer a.closing(&err, trail)
			if create {
				if err := store.Create(cmd.Context()); err != nil {
					return err
				}
			}
			bar := newProgress(a.stderr, "archive")
			s, err := trail.Archive(cmd.Context(), store, &audit.ArchiveOptions{Rate: a.settings.archiveRate.bytes, Progress: bar.bytes})
			bar.done()
			if err != nil {
				return err
			}
			return a.showArchive(s, format.value)
		},
	}
	cmd.Flags().Var(&to, "to", "the archive's URL (default that of --archive-to)")
	cmd.Flags().BoolVar(&create, "create-bucket", false, "make the bucket, with object lock, or the directory if it is missing")
	a.settings.addArchive(cmd.Flags())
	addFormat(cmd, format)
	return cmd
}

func (a *app) archiveStatusCommand() *cobra.Command {
	format := newChoice("table", "json")
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how much of a trail is archived",
		Long: `Shows how much of the trail is archived, how many entries would be lost with the
disk now, and why nothing could be archived where that is so. It asks nobody: it
says what the last push left in the trail's directory. The exit code is 4 where
the last push failed.`,
		Example: `  kaizen-audit archive status
  kaizen-audit archive status --format json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			trail, err := a.openReader(cmd)
			if err != nil {
				return err
			}
			defer a.closing(&err, trail)
			s, err := trail.ArchiveState(cmd.Context())
			if err != nil {
				return err
			}
			if s.Error != "" {
				a.incomplete("archive status: failing since %s: %s", s.Failing.Format(time.RFC3339), s.Error)
			}
			return a.showArchive(s, format.value)
		},
	}
	addFormat(cmd, format)
	return cmd
}

func (a *app) showArchive(s *audit.ArchiveState, format string) error {
	if format == "json" {
		return printJSON(a.stdout, s)
	}
	at := "never"
	if !s.At.IsZero() {
		at = s.At.Format(time.RFC3339)
	}
	return facts(a.stdout, [2]string{"Archive", s.To},
		[2]string{"Archived", fmt.Sprintf("%s, of them %s sealed, %d under the checkpoint", plural(s.Lines, "entry", "entries"), plural(s.Sealed, "entry", "entries"), s.Checkpoint)},
		[2]string{"At", at}, [2]string{"On this disk only", exposure(s)}, [2]string{"In the archive only", away(s)}, [2]string{"Failing", s.Error})
}

// away says what is in the archive only; empty for nothing.
func away(s *audit.ArchiveState) string {
	if s.Away.Segments == 0 {
		return ""
	}
	return fmt.Sprintf("%s, %s; fetched of that: %s", plural(int64(s.Away.Segments), "segment", "segments"), formatBytes(s.Away.Bytes), formatBytes(s.Cached))
}

// exposure says what would be lost with the disk.
func exposure(s *audit.ArchiveState) string {
	if s.Exposed == 0 {
		return "nothing"
	}
	return fmt.Sprintf("%s, %s", plural(s.Exposed, "entry", "entries"), formatBytes(s.Backlog))
}

func (a *app) archiveVerifyCommand() *cobra.Command {
	var from storeURL
	var opts restoreFlags
	format := newChoice("table", "json")
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check an archive from its first line to its last",
		Long: `Reads an archive whole and checks every line against its signed checkpoints. It
needs no trail and no secret and writes nothing: restore --verify-only does the
same. The exit code is 0 when it is intact and 1 for any damage, also where a
--checkpoint covers more than is archived.`,
		Example: `  kaizen-audit archive verify --from file:///mnt/archive
  kaizen-audit archive verify --from file:///mnt/archive --key "$VKEY" --checkpoint /mnt/elsewhere/checkpoint`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			store, err := a.choose("from", from)
			if err != nil {
				return err
			}
			return a.verifyArchive(cmd, store, opts, format.value)
		},
	}
	cmd.Flags().Var(&from, "from", "the archive's URL (default that of --archive-to)")
	opts.add(cmd)
	a.settings.addArchive(cmd.Flags())
	addFormat(cmd, format)
	return cmd
}
