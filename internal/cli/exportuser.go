package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/internal/durable"
)

func (a *app) exportUserCommand() *cobra.Command {
	var out string
	format := newChoice("table", "json")
	cmd := &cobra.Command{
		Use:   "export-user USER --out FILE.zip",
		Short: "Give a person their data, with proofs",
		Long: `Writes all entries in which a person is the actor or a data subject to a zip
(GDPR Art. 15 and 20): a page to read, JSON, CSV, the proofs, and a script with
which the receiver checks all of it with Python alone. USER is what user_id or
the identifier of a resource (a patient's, say) is called, or a pseudonym.

The person's sealed fields are opened; those of others stay sealed. Where other
people's data stands in clear it is masked, and that entry comes without a digest
and a proof. docs/subject-access.md says which, and what to look at before you
hand it over.

FILE must not be there; it can be read by you alone. The export is recorded. What
can't be read is named on stderr and in the export, and the exit code is 4.`,
		Example: `  kaizen-audit export-user user123 --out user123.zip
  kaizen-audit export-user P12345 --out P12345.zip --format json`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) != 1 || args[0] == "":
				return usagef("one user is needed")
			case out == "":
				return usagef("--out is needed: the file to write, which must not be there")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			trail, bar, err := a.openScan(cmd, "export-user")
			if err != nil {
				return err
			}
			defer trail.Close()
			defer bar.done()
			var made audit.UserExport
			err = newPrivateFile(cmd.Context(), out, func(w io.Writer) (err error) {
				made, err = trail.ExportUser(cmd.Context(), args[0], w)
				bar.done()
				for _, what := range made.Incomplete {
					a.leaveOut("export-user", errors.New(what))
				}
				if a.partly && len(made.Files) > 0 {
					return nil // what was left out is named, in the export too
				}
				return err
			})
			if err != nil {
				return err
			}
			if format.value == "json" {
				return printJSON(a.stdout, made)
			}
			return facts(a.stdout, [2]string{"Exported", plural(int64(made.Entries), "entry", "entries") + " to " + out},
				[2]string{"Proved", fmt.Sprint(made.Proved)}, [2]string{"Masked", fmt.Sprintf("%d, with neither digest nor proof", made.Masked)},
				[2]string{"Shared", fmt.Sprintf("%d concern others too", made.Shared)},
				[2]string{"Sealed", fmt.Sprintf("%d fields of others, %d erased, %d that do not open", made.Withheld, made.Erased, made.Unopened)},
				[2]string{"Key", made.VKey})
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "the zip to write; it must not be there")
	addFormat(cmd, format)
	a.addUnrecorded(cmd)
	return cmd
}

// newPrivateFile makes a file that only its owner can read and that was not there
// before, and lets write fill it. It is on disk on return; after an error it is gone.
func newPrivateFile(ctx context.Context, name string, write func(io.Writer) error) (err error) {
	f, err := durable.OS.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, durable.OS.Remove(name))
		}
	}()
	err = write(f)
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return durable.OS.SyncDir(filepath.Dir(name))
}
