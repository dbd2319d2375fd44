package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/internal/advice"
	"github.com/kaizen-audit/kaizen-audit/kms"
)

func (a *app) keysCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "List, rotate, back up and restore a trail's keys",
		Long: `The keys of a trail: the one that signs it, the one that wraps the others
(KEK), those of lines (DEKs) and of persons. No command shows a key, and none
takes one on its command line.`,
		Example: `  kaizen-audit keys list
  kaizen-audit help keys rotate`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return noSuchCommand(cmd, args[0])
			}
			return cmd.Help()
		},
	}
	cmd.AddCommand(a.keysListCommand(), a.keysPairCommand(), a.keysRotateCommand(), a.keysBackupCommand(), a.keysRestoreCommand())
	return cmd
}

func (a *app) keysListCommand() *cobra.Command {
	format := newChoice("table", "json")
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Show which keys a trail has",
		Long: `Shows which keys a trail has, by their ids and verifier keys, and which key
wraps which. It needs no key, and works beside a running writer.`,
		Example: `  kaizen-audit keys list
  kaizen-audit keys list --log audit.jsonl --format json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			trail, err := a.openReader(cmd)
			if err != nil {
				return err
			}
			defer a.closing(&err, trail)
			list, err := trail.Keys(cmd.Context())
			if err != nil {
				return err
			}
			if format.value == "json" {
				return printJSON(a.stdout, list)
			}
			t := newTable(a.stdout, a.stdout, column{title: "KIND"}, column{title: "STATE"}, column{title: "SINCE"}, column{title: "WRAPPED BY"}, column{title: "KEY", least: 12})
			for _, k := range list {
				since, by := "", k.WrappedBy
				switch {
				case k.Created != nil:
					since = k.Created.UTC().Format(time.DateTime)
				case k.From != nil:
					since = "size " + strconv.FormatInt(*k.From, 10)
				}
				if k.By != "" {
					by = k.By
				}
				if err := t.row(text(k.Kind), text(k.State), text(since), text(by), text(k.ID)); err != nil {
					return err
				}
			}
			return t.flush()
		},
	}
	addFormat(cmd, format)
	return cmd
}

func (a *app) keysPairCommand() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "pair --out FILE",
		Short: "Make a pair of keys, one that seals and one that opens",
		Long: `Makes a pair of keys. The private one is in FILE (0600): it seals and opens, and is
kept away from who writes. The public one is printed: a process that has it as the
trail's key (--key-file, $AUDIT_LOG_ENCRYPTION_KEY) seals and appends, and reads
nothing of what is sealed (docs/keys.md).`,
		Example: `  kaizen-audit keys pair --out /mnt/officer/open.key > seal.key
  kaizen-audit init --encrypt --key-file seal.key
  kaizen-audit query --key-file /mnt/officer/open.key`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return noArgs(nil, args)
			}
			if out == "" {
				return usagef("--out is needed: the file for the private key")
			}
			return nil
		},
		RunE: func(*cobra.Command, []string) error {
			public, err := kms.CreatePair(out)
			if err != nil {
				return err
			}
			a.say("the private key is in %s: keep a copy of it, and keep it away from who writes the trail", out)
			_, err = fmt.Fprintln(a.stdout, public)
			return err
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "the `FILE` for the private key, which must not be there")
	return cmd
}

// openHolder opens the trail to do what only its holder can.
func (a *app) openHolder(cmd *cobra.Command, opts audit.Options) (*audit.Trail, error) {
	opts.MustExist, opts.Command, opts.Warn, opts.StateDir = true, cmd.CommandPath(), a.warn, a.stateDir
	return audit.Open(a.settings.log, &opts)
}

func (a *app) keysRotateCommand() *cobra.Command {
	var kek, dek, signing, retire, compromised bool
	var newKeyFile, newKeyEnv, newKeyURL string
	cmd := &cobra.Command{
		Use:   "rotate --kek|--dek|--signing|--retire",
		Short: "Put a new key in the place of one",
		Long: `Puts a new key in the place of one of the trail's, and records it. Nothing else
may hold the trail meanwhile: a running writer has the old key in its memory.

--kek wraps the trail's keys under another key, that of --new-key-file (made
where there is no such file), of the environment variable that --new-key-env
names, or in the key service of --new-key-url. The present key is given as always. No line changes, and afterwards the
old key opens nothing of keys/; copies of keys/ from before it still does. If it
is interrupted, run it again with both keys.

--dek makes a new key for lines from here on, as happens by itself each day.

--signing makes a new key that signs. From then on both sign each checkpoint, so
that whoever knows the old key alone goes on verifying; trail.json links the two.
--retire ends that: the old key signs no more and is deleted. A lifecycle key that
is kept apart is needed for both (--lifecycle-key).`,
		Example: `  kaizen-audit keys rotate --kek --key-file audit.key --new-key-file next.key
  kaizen-audit keys rotate --kek --new-key-env NEXT_KEY
  kaizen-audit keys rotate --dek
  kaizen-audit keys rotate --signing --compromised
  kaizen-audit keys rotate --retire`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			n := 0
			for _, which := range []bool{kek, dek, signing, retire} {
				if which {
					n++
				}
			}
			switch {
			case n != 1:
				return usagef("one of --kek, --dek, --signing and --retire is needed")
			case compromised && !signing:
				return usagef("--compromised goes with --signing only")
			}
			opts := a.settings.options()
			switch {
			case kek:
				if opts.NextKEK, err = a.newKEK(cmd.Context(), newKeyFile, newKeyEnv, newKeyURL); err != nil {
					return err
				}
			case newKeyFile != "" || newKeyEnv != "" || newKeyURL != "":
				return usagef("--new-key-file, --new-key-env and --new-key-url go with --kek only")
			}
			trail, err := a.openHolder(cmd, opts)
			if err != nil {
				return err
			}
			defer a.closing(&err, trail)
			switch {
			case dek:
				return trail.RotateDEK(cmd.Context())
			case retire:
				return trail.RetireSigningKey(cmd.Context())
			case signing:
				if err := trail.RotateSigningKey(cmd.Context(), compromised); err != nil {
					return err
				}
				a.advise("both keys sign until: kaizen-audit keys rotate --retire; give who verifies the new one")
				return facts(a.stdout, [2]string{"VKey", trail.VKey()})
			}
			if err := trail.RotateKEK(cmd.Context()); err != nil {
				return err
			}
			hint := "from now on: --key-file " + advice.Quote(newKeyFile)
			switch {
			case newKeyURL != "":
				hint = "from now on: --key-url " + advice.Quote(newKeyURL)
			case newKeyEnv != "":
				hint = "from now on the key of $" + newKeyEnv + " is the trail's: give it as " + kms.EnvironmentVariable
			}
			a.advise(hint)
			return nil
		},
	}
	f := cmd.Flags()
	f.BoolVar(&kek, "kek", false, "wrap the trail's keys under another key")
	f.BoolVar(&dek, "dek", false, "make a new key for lines")
	f.BoolVar(&signing, "signing", false, "make a new signing key, beside which the old one signs on")
	f.BoolVar(&compromised, "compromised", false, "say that the old signing key may be in wrong hands")
	f.BoolVar(&retire, "retire", false, "let the old signing key sign no more")
	f.StringVar(&newKeyFile, "new-key-file", "", "the file with the new key; made where it is not there")
	f.StringVar(&newKeyURL, "new-key-url", "", "the URL of the new key, in a key service")
	f.StringVar(&newKeyEnv, "new-key-env", "", "the environment variable with the new key")
	a.settings.addWriter(f)
	return cmd
}

// newKEK is the key that is rotated to.
func (a *app) newKEK(ctx context.Context, file, env, url string) (kms.KEK, error) {
	given := 0
	for _, s := range []string{file, env, url} {
		if s != "" {
			given++
		}
	}
	switch {
	case given != 1:
		return nil, usagef("one of --new-key-file, --new-key-env and --new-key-url is needed")
	case url != "":
		open, err := a.settings.keyService(url)
		if err != nil {
			return nil, err
		}
		return open(ctx)
	case env != "":
		return kms.FromVariable(env)
	}
	k, err := kms.FromFile(file)
	if errors.Is(err, kms.ErrNoKey) {
		if k, err = kms.CreateFile(file); err == nil {
			a.say("a key was made in %s: keep a copy of it, apart from the trail", file)
		}
	}
	return k, err
}

// days is a duration as a flag: 30d, 12h.
type days time.Duration

func (d *days) String() string {
	if *d == 0 {
		return ""
	}
	if h := time.Duration(*d).Hours(); h >= 24 && time.Duration(*d)%(24*time.Hour) == 0 {
		return strconv.Itoa(int(h)/24) + "d"
	}
	return time.Duration(*d).String()
}
func (d *days) Type() string { return "age" }
func (d *days) Set(s string) error {
	if n, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseUint(n, 10, 16); err == nil && n > 0 {
			*d = days(time.Duration(n) * 24 * time.Hour)
			return nil
		}
	}
	v, err := time.ParseDuration(s)
	if err != nil || v <= 0 {
		return errors.New("must be a length of time, such as 30d or 12h")
	}
	*d = days(v)
	return nil
}

func (a *app) keysBackupCommand() *cobra.Command {
	age := days(audit.DefaultBackupAge)
	var file string
	format := newChoice("table", "json")
	cmd := &cobra.Command{
		Use:   "backup --out FILE",
		Short: "Back up a trail's keys, apart from its data",
		Long: `Writes the trail's keys to a new file, and records that it did. Keys that seal
stay wrapped by the trail's key, which is not in it; the signing key is in clear.

Keep it apart from the trail and its archive, where it can be deleted, and delete
it when its age is over: until then an erasure is not complete, and certificates
of erasures say so.`,
		Example: `  kaizen-audit keys backup --out /mnt/vault/keys.tar
  kaizen-audit keys backup --out keys.tar --max-age 7d --format json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if file == "" {
				return usagef("--out is needed")
			}
			trail, err := a.openHolder(cmd, a.settings.options())
			if err != nil {
				return err
			}
			defer a.closing(&err, trail)
			b, err := trail.BackupKeys(cmd.Context(), file, time.Duration(age))
			if err != nil {
				return err
			}
			return a.showBackup(b, format.value, "Delete after")
		},
	}
	f := cmd.Flags()
	f.StringVar(&file, "out", "", "the file, which must not be there")
	f.Var(&age, "max-age", "how long it may be kept, such as 30d (at most 366d)")
	a.settings.addWriter(f)
	addFormat(cmd, format)
	return cmd
}

func (a *app) showBackup(b *audit.KeyBackup, format, until string) error {
	if format == "json" {
		return printJSON(a.stdout, b)
	}
	return facts(a.stdout, [2]string{"Backup", b.File}, [2]string{"Origin", b.Origin}, [2]string{"Files", strconv.Itoa(b.Files)},
		[2]string{"Created", b.Created.UTC().Format(time.RFC3339)}, [2]string{until, b.DeleteAfter.UTC().Format(time.RFC3339)})
}

func (a *app) keysRestoreCommand() *cobra.Command {
	format := newChoice("table", "json")
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Put back a trail's keys from a backup",
		Long: `Puts the keys of a backup where the trail has none: after their loss, or before
the lines are restored. What was erased since the backup was made is destroyed
again when the trail is next opened to write. A backup past its maximum age is
refused: it should not be there.`,
		Example: `  kaizen-audit keys restore --log audit.jsonl keys.tar`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("the backup's file is needed")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := audit.RestoreKeys(a.settings.log, args[0])
			if err != nil {
				return err
			}
			return a.showBackup(b, format.value, "Delete after")
		},
	}
	addFormat(cmd, format)
	return cmd
}
