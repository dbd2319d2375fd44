package cli

import (
	"strconv"

	"github.com/spf13/cobra"

	audit "github.com/kaizen-audit/kaizen-audit"
)

// maxProof bounds what is read as a proof, a checkpoint or a vkey: a proof of
// a tree of 2^63 entries has 63 hashes, a signed note at most a million bytes
// (golang.org/x/mod/sumdb/note).
const maxProof = 1 << 20

func (a *app) proveCommand() *cobra.Command {
	var from string
	cmd := &cobra.Command{
		Use:   "prove [INDEX] [--from OLD]",
		Short: "Prove an entry, or that the trail was only appended to",
		Long: `Writes a proof that the entry at INDEX is in the trail: a C2SP tlog-proof, which
holds no content. check-proof, or anybody's tool, checks it with the line and
the trail's vkey.

--from OLD without INDEX writes a proof that the trail extends OLD, an older
signed checkpoint of it; with INDEX the entry is proved only if that holds.

The reading is recorded.`,
		Example: `  kaizen-audit prove 42 > 42.proof
  kaizen-audit prove --from checkpoint.old > extends.proof
  kaizen-audit prove 42 --from checkpoint.old > 42.proof`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) > 1:
				return usagef("one index, not %d", len(args))
			case len(args) == 0 && from == "":
				return usagef("an index is needed, or --from")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			index := int64(-1)
			if len(args) > 0 {
				n, err := strconv.ParseUint(args[0], 10, 63)
				if err != nil {
					return usagef("%q is no index", args[0])
				}
				index = int64(n)
			}
			var old []byte
			if from != "" {
				var err error
				if old, err = readSmall(cmd.Context(), from, nil); err != nil {
					return err
				}
			}
			trail, err := a.openReader(cmd)
			if err != nil {
				return err
			}
			defer trail.Close()
			var proof []byte
			if old != nil {
				if proof, err = trail.ProveConsistency(cmd.Context(), old); err != nil {
					return err
				}
				if _, err := audit.CheckConsistency(proof, old, trail.VKey()); err != nil {
					return failedError{err}
				}
			}
			if index >= 0 {
				if proof, err = trail.Prove(cmd.Context(), index); err != nil {
					return err
				}
			}
			_, err = a.stdout.Write(proof)
			return err
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "an older signed checkpoint")
	a.addUnrecorded(cmd)
	return cmd
}
