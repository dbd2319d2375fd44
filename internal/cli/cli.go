package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/internal/advice"
	"github.com/kaizen-audit/kaizen-audit/internal/report"
)

// Exit codes.
const (
	exitDone    = 0
	exitFailed  = 1 // verification failed
	exitUsage   = 2
	exitIO      = 3 // can't be read or written
	exitPartly  = 4
	exitDenied  = 5
	programName = "kaizen-audit"
)

// exitWords are the exit codes as the manual says them.
var exitWords = []struct {
	code  int
	words string
}{
	{exitDone, "done"},
	{exitFailed, "verification failed: damage, or a proof that proves nothing"},
	{exitUsage, "usage: the command line, a setting or the configuration file is wrong"},
	{exitIO, "something can't be read or written"},
	{exitPartly, "done in part; what was left out is named on standard error"},
	{exitDenied, "denied: no role that may, or a legal hold or a declared duty stands against it"},
}

// app is one run of the program.
type app struct {
	stdin          io.Reader
	stdout, stderr *terminal
	settings       settings
	stateDir       string // where pins are; empty: as the library finds it
	services       []KeyService
	started        bool // a command's own work has begun: what fails is no usage
	unrecorded     bool // what is read is not recorded
	partly         bool // something was left out and named on stderr
	hintedDamage   bool // what to do about damage was said
}

// Main runs the command line in args, without the program's name, and returns
// the exit code. When ctx ends, record stops reading, acknowledges what it
// accepted and closes the trail; other commands stop. services are key services
// beside those that every build has.
func Main(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, services ...KeyService) int {
	a := &app{stdin: stdin, stdout: newTerminal(stdout), stderr: newTerminal(stderr), services: append([]KeyService{vaultService}, services...)}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(audit.WithPrincipal(ctx, audit.OSPrincipal()))
	code := a.exit(cmd, err)
	if _, ok := cmd.Annotations[neverFails]; ok {
		return exitDone
	}
	return code
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   programName,
		Short: "An append-only, provable audit trail of what AI agents did",
		Long: `kaizen-audit keeps an append-only trail of what AI agents did: one line of JSON
for each event, and every line a leaf of a signed Merkle tree. No line can be
changed, removed, moved or slipped in without verify finding it.`,
		Example: `  kaizen-audit demo
  kaizen-audit record --log audit.jsonl < events.jsonl
  kaizen-audit query --log audit.jsonl --agent qa-agent-001 --since 24h
  kaizen-audit verify --log audit.jsonl`,
		Args:          cobra.ArbitraryArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(cmd *cobra.Command, args []string) error {
			if err := a.settings.resolve(cmd.Context(), cmd.Flags(), a.warn); err != nil {
				return err
			}
			a.started = true
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return noSuchCommand(cmd, args[0])
		},
		SuggestionsMinimumDistance: 2,
		Version:                    strings.TrimPrefix(buildInfo().String(), programName+" "),
	}
	root.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	root.SetHelpCommand(a.helpCommand())
	a.settings = newSettings()
	a.settings.services = a.services
	a.settings.addGlobal(root.PersistentFlags())
	root.AddCommand(
		a.initCommand(), a.recordCommand(), a.queryCommand(), a.traceCommand(), a.verifyCommand(),
		a.proveCommand(), a.checkProofCommand(), a.reportCommand(), a.rotateCommand(), a.infoCommand(), a.serveCommand(),
		a.keysCommand(), a.pruneCommand(), a.retentionCommand(), a.holdCommand(),
		a.importCommand(), a.archiveCommand(), a.restoreCommand(), a.tailCommand(), a.configCommand(), a.policyCommand(), a.hookCommand(),
		a.eraseUserCommand(), a.exportUserCommand(), a.discloseCommand(), a.identityCommand(), a.witnessCommand(), a.signerCommand(), a.demoCommand(), a.doctorCommand(), a.manCommand(), a.versionCommand(),
	)
	return root
}

// noSuchCommand says that there is none of that name below cmd, and which may
// have been meant.
func noSuchCommand(cmd *cobra.Command, name string) error {
	err := fmt.Errorf("there is no command %q", name)
	if near := cmd.SuggestionsFor(name); len(near) > 0 {
		return usageError{hinted{err, "did you mean: " + cmd.CommandPath() + " " + near[0]}}
	}
	return usageError{hinted{err, cmd.CommandPath() + " --help"}}
}

func (a *app) helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND]",
		Short:   "Show what a command does",
		Long:    `Shows what a command does, its flags and examples, as COMMAND --help.`,
		Example: `  kaizen-audit help record`,
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			var names []string
			if len(args) == 0 {
				for _, c := range cmd.Root().Commands() {
					names = append(names, c.Name())
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			about := cmd.Root()
			for _, name := range args {
				i := slices.IndexFunc(about.Commands(), func(c *cobra.Command) bool { return c.Name() == name })
				if i < 0 {
					return noSuchCommand(about, name)
				}
				about = about.Commands()[i]
			}
			about.InitDefaultHelpFlag()
			return about.Help()
		},
	}
}

// usageError is a command line that can't be carried out as it is.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// failedError is a verification that failed; its result has been shown.
type failedError struct{ error }

func (e failedError) Unwrap() error { return e.error }

// hinted is an error together with what to do about it.
type hinted struct {
	error
	hint string
}

func (e hinted) Unwrap() error { return e.error }

// exit says what went wrong, and gives the exit code for it.
func (a *app) exit(cmd *cobra.Command, err error) int {
	var usage usageError
	var failed failedError
	switch {
	case err == nil && a.partly:
		return exitPartly
	case err == nil:
		return exitDone
	case errors.Is(err, errStdout) && errors.Is(err, syscall.EPIPE):
		return exitDone // whoever reads our results has had enough
	case errors.As(err, &failed):
		if failed.error != nil {
			a.complain(cmd, err)
		}
		return exitFailed
	case errors.Is(err, context.Canceled):
		a.say("%s: interrupted", operation(cmd))
		return exitPartly
	case errors.As(err, &usage), (!a.started || errors.Is(err, audit.ErrOption)) && !errors.As(err, new(*fs.PathError)):
		a.complain(cmd, err)
		return exitUsage
	case errors.Is(err, audit.ErrDamaged), errors.Is(err, audit.ErrPinned), errors.Is(err, audit.ErrForked):
		a.complain(cmd, err)
		return exitFailed
	case errors.Is(err, audit.ErrHeld), errors.Is(err, audit.ErrDenied):
		a.complain(cmd, err)
		return exitDenied
	}
	a.complain(cmd, err)
	return exitIO
}

func operation(cmd *cobra.Command) string {
	if !cmd.HasParent() {
		return programName
	}
	return strings.TrimPrefix(cmd.CommandPath(), programName+" ")
}

// complain writes an error and its hint.
func (a *app) complain(cmd *cobra.Command, err error) {
	text, what := advice.Split(err)
	if name := operation(cmd); cmd.HasParent() && !strings.HasPrefix(text, name+":") && !strings.HasPrefix(text, name+" ") {
		text = name + ": " + text
	}
	a.say("%s", text)
	if hint := cmp.Or(what, a.hint(cmd, err)); hint != "" {
		a.advise(hint)
	}
}

// advise writes what to do about what was said.
func (a *app) advise(hint string) { fmt.Fprintf(a.stderr, "hint: %s\n", hint) }

// say writes one line to stderr.
func (a *app) say(format string, args ...any) {
	a.stderr.clear()
	text := fmt.Sprintf(format, args...)
	for line := range strings.SplitSeq(text, "\n") {
		fmt.Fprintf(a.stderr, "%s: %s\n", programName, report.Printable(line))
	}
}

// warn writes a warning on one line, also where errors were joined.
func (a *app) warn(err error) { a.say("warning: %s", strings.ReplaceAll(err.Error(), "\n", "; ")) }

// incomplete names something that was left out, and makes the exit code say
// so.
func (a *app) incomplete(format string, args ...any) {
	a.partly = true
	a.say(format, args...)
}

// hint says what to do about an error.
func (a *app) hint(cmd *cobra.Command, err error) string {
	var h hinted
	var usage usageError
	log := advice.Quote(a.settings.log)
	switch {
	case errors.As(err, &h):
		return h.hint
	case errors.As(err, &usage), !a.started:
		return strings.TrimSpace(cmd.CommandPath()) + " --help"
	case errors.Is(err, audit.ErrLocked):
		return "let that process end, or stop it; reading works meanwhile"
	case errors.Is(err, audit.ErrDamaged):
		return fmt.Sprintf("to see what is wrong: kaizen-audit verify --log %[1]s; to set it aside and go on in a new trail: kaizen-audit init --successor-of %[1]s --log %[1]s", log)
	case errors.Is(err, audit.ErrFull):
		return "make room on the device and run it again; every entry with a receipt is safe"
	case errors.Is(err, audit.ErrStopped):
		return "look after the device, then run it again: opening the trail recovers it; every entry with a receipt is safe"
	case errors.Is(err, fs.ErrPermission):
		return fmt.Sprintf("this is user %d; run it as the user who owns the trail: ls -ld %s", os.Geteuid(), log)
	}
	return ""
}

// openReader opens the trail for reading. What is read is recorded by the
// library; where that can't be done, it is a warning.
func (a *app) openReader(cmd *cobra.Command) (*audit.Trail, error) {
	return audit.Open(a.settings.log, &audit.Options{
		KeyFile: a.settings.keyFile, OpenKEK: a.settings.openKEK, Anchors: a.settings.anchors, Access: a.settings.access,
		OpenArchive: readArchive, ReadOnly: true, Unrecorded: a.unrecorded, MustExist: true, Command: cmd.CommandPath(), Warn: a.warn, StateDir: a.stateDir,
	})
}

// addUnrecorded adds the flag of commands that show what entries hold.
func (a *app) addUnrecorded(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&a.unrecorded, "unrecorded", false, "read a copy of the trail, that no process holds, without recording it")
}

// closing joins the error of a close to what happened before. A checkpoint
// that a sink did not take has been warned of, and everything is recorded: done
// in part.
func (a *app) closing(err *error, trail *audit.Trail) {
	closed := trail.Close()
	if errors.Is(closed, audit.ErrNotSent) {
		a.partly, closed = true, nil
	}
	*err = errors.Join(*err, closed)
}
