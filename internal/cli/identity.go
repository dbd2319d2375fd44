package cli

import (
	"strings"

	"github.com/spf13/cobra"
)

func (a *app) identityCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "identity",
		Short: "Turn a pseudonym back",
		Long: `Pseudonyms stand in entries for users (docs/identity.md). Whose one is, the
trail's identity store knows.`,
		Example: `  kaizen-audit identity reveal "$PSEUDONYM" --reason "fraud case 17"`,
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return noSuchCommand(cmd, args[0])
			}
			return cmd.Help()
		},
	}
	cmd.AddCommand(a.identityRevealCommand())
	return cmd
}

func (a *app) identityRevealCommand() *cobra.Command {
	var reason string
	format := newChoice("table", "json")
	cmd := &cobra.Command{
		Use:   "reveal PSEUDONYM --reason TEXT",
		Short: "Show whose a pseudonym is",
		Long: `Shows the user whose pseudonym (metadata.user_id_hash) it is. It needs the files
below identity/ and their key, and, where access is controlled, a role that may
reveal. It is recorded before it is shown, with the reason; where it can't be
recorded, nothing is shown. Who was erased has no pseudonym any more.`,
		Example: `  kaizen-audit identity reveal "$PSEUDONYM" --reason "fraud case 17"`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) != 1 || args[0] == "":
				return usagef("one pseudonym is needed: 64 hex digits, as in metadata.user_id_hash")
			case strings.TrimSpace(reason) == "":
				return usagef("--reason is needed: why it is turned back")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			trail, err := a.openReader(cmd)
			if err != nil {
				return err
			}
			defer a.closing(&err, trail)
			user, err := trail.Reveal(cmd.Context(), args[0], reason)
			if err != nil {
				return err
			}
			if format.value == "json" {
				return printJSON(a.stdout, map[string]string{"user_id": user, "user_id_hash": args[0]})
			}
			return facts(a.stdout, [2]string{"User", user})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, in your words; it is required, and recorded")
	addFormat(cmd, format)
	return cmd
}
