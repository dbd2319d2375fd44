package cli

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/internal/advice"
)

func (a *app) initCommand() *cobra.Command {
	var opts audit.InitOptions
	var origin, user, dataDir string
	var encrypt bool
	format := newChoice("table", "json")
	profile := newChoice("plain", "gdpr", "hipaa", "pci")
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make a trail",
		Long: `Makes a trail: the log, the directory beside it, a signing key, and entry 0,
signed. Keep the vkey that it prints where nobody who can write the trail can
change it: with it anybody can check the trail.

--successor-of sets an old trail's files aside (X.<size>.jsonl, X.<size>.trail)
and begins a new one whose entry 0 commits to the old one's origin, size and
root; it seals what the old one did, unless --profile says otherwise. --forget-pin accepts that the path has another trail than was seen there
before.

--profile is chosen once. gdpr and hipaa seal the fields that hold a person's data,
each under that person's key, which erase-user destroys; hipaa also flags entries
without a user. pci masks card numbers wherever they stand. In plain and pci what
was recorded can't be erased.

--encrypt makes a trail whose lines nobody reads without its key, and says where
the key is: in $AUDIT_LOG_ENCRYPTION_KEY, or in a file that is made outside the
trail's directory. openssl rand -base64 32 makes a key.

--lifecycle-key gives the trail a key of its own for what somebody permits:
retention, holds, prunes, erasures, another signing key. It is made in the file
where there is none; kept away from who writes the trail, it keeps the writer's
key alone from allowing any of that.

--signer has the trail signed by another process, which runs as kaizen-audit signer
and has the key (docs/keys.md): the writer's account alone then rewrites nothing.

--user makes a trail for a service, as root: the user makes its files in
--data-dir, which is the user's alone, and the log's path is linked to them. It
may be run again.`,
		Example: `  kaizen-audit init
  kaizen-audit init --log audit.jsonl --origin audit.example.org/agents
  kaizen-audit init --log audit.jsonl --successor-of audit.jsonl
  kaizen-audit init --profile gdpr --key-file audit.key
  kaizen-audit init --encrypt --key-file audit.key
  kaizen-audit init --lifecycle-key /mnt/officer/lifecycle.key
  kaizen-audit init --signer unix:/run/signer/sock
  kaizen-audit init --user kaizen-audit`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			// What a signed note's key can't be named (sumdb/note).
			if strings.ContainsFunc(origin, unicode.IsSpace) || strings.Contains(origin, "+") {
				return usagef("--origin: must be a name without spaces and plus signs, such as audit.example.org/agents")
			}
			if cmd.Flags().Changed("profile") {
				opts.Profile = profile.value
			}
			opts.Options = a.settings.options()
			opts.Origin, opts.Encrypt = origin, encrypt
			opts.Command, opts.Warn, opts.StateDir = cmd.CommandPath(), a.warn, a.stateDir
			var info *audit.Info
			var err error
			switch {
			case user != "":
				info, err = a.initForUser(cmd.Context(), user, dataDir, &opts)
			case cmd.Flags().Changed("user"):
				return usagef("--user is empty")
			case cmd.Flags().Changed("data-dir"):
				return usagef("--data-dir goes with --user only")
			default:
				info, err = audit.Init(a.settings.log, &opts)
			}
			if err != nil {
				return err
			}
			if format.value == "json" {
				return printJSON(a.stdout, info)
			}
			return facts(a.stdout,
				[2]string{"Log", info.Path}, [2]string{"Directory", info.Dir}, [2]string{"Profile", info.Profile},
				[2]string{"Origin", info.Origin}, [2]string{"VKey", info.VKey}, [2]string{"Pin", info.Pin},
				[2]string{"Key readable by", info.KeyReadableBy},
				[2]string{"Next", fmt.Sprintf("kaizen-audit record --log %s < events.jsonl", advice.Quote(a.settings.log))})
		},
	}
	f := cmd.Flags()
	f.BoolVar(&encrypt, "encrypt", false, "seal every line, and in it every field with a person's data")
	f.Var(profile, "profile", "what is sealed: plain nothing, gdpr and hipaa the fields with a person's data; pci masks card numbers everywhere")
	f.StringVar(&origin, "origin", "", "the name under which the trail signs, such as audit.example.org/agents (default random)")
	f.StringVar(&opts.SuccessorOf, "successor-of", "", "the log of a trail that this one follows")
	f.BoolVar(&opts.ForgetPin, "forget-pin", false, "accept that the path has another trail than before")
	f.StringVar(&user, "user", "", "make the trail for this user of the system, `NAME` or UID (root only)")
	f.StringVar(&dataDir, "data-dir", defaultDataDir, "with --user: the `DIR` of the trail's files, to which the log's path is linked")
	a.settings.addWriter(f)
	complete(cmd, "profile", "plain", "gdpr", "hipaa", "pci")
	addFormat(cmd, format)
	return cmd
}
