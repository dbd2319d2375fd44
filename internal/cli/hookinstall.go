package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/rogpeppe/go-internal/diff"
	"github.com/spf13/cobra"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/internal/advice"
	"github.com/kaizen-audit/kaizen-audit/internal/claudecode"
	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/report"
)

func (a *app) hookInstallCommand() *cobra.Command {
	var file string
	var yes, uninstall bool
	cmd := &cobra.Command{
		Use:   "install claude-code",
		Short: "Put the hooks into an agent's settings",
		Long: `Shows what changes in Claude Code's settings, and with --yes changes it: a hook
for each event, which records it in the trail that --log names. What is there
stays as it is, byte for byte; --uninstall takes the hooks out again.

Before the settings are changed the trail is opened, and made where there is
none, so that a path that can't be written shows here.`,
		Example: `  kaizen-audit hook install claude-code --log ~/agents.jsonl
  kaizen-audit hook install claude-code --log ~/agents.jsonl --yes
  kaizen-audit hook install claude-code --uninstall --yes`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) != 1:
				return usagef("the name of an agent is needed: claude-code")
			case args[0] != claudecode.Agent:
				return usagef("there are no hooks for %q; there are for claude-code", args[0])
			}
			return nil
		},
		ValidArgs: []string{claudecode.Agent},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				var err error
				if file, err = settingsFile(); err != nil {
					return err
				}
			}
			return a.changeSettings(cmd, file, uninstall, yes)
		},
	}
	cmd.Flags().StringVar(&file, "settings", "", "the settings `FILE` (default ~/.claude/settings.json, or in $CLAUDE_CONFIG_DIR)")
	cmd.Flags().BoolVar(&yes, "yes", false, "change it")
	cmd.Flags().BoolVar(&uninstall, "uninstall", false, "take the hooks out")
	a.settings.addWriter(cmd.Flags())
	return cmd
}

// settingsFile is where Claude Code keeps a user's settings.
func settingsFile() (string, error) {
	if dir := os.Getenv("CLAUDE_CONFIG_DIR"); dir != "" {
		return filepath.Join(dir, "settings.json"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", usagef("where the settings are is not known (%w): name them with --settings", err)
	}
	return filepath.Join(home, ".claude", "settings.json"), nil
}

// maxSettings is far above any settings, and bounds what a wrong path costs.
const maxSettings = 4 << 20

func (a *app) changeSettings(cmd *cobra.Command, file string, uninstall, yes bool) error {
	// The file is replaced where it is, not the link to it.
	if target, err := filepath.EvalSymlinks(file); err == nil {
		file = target
	}
	mode := fs.FileMode(0o600)
	before, err := durable.ReadFile(durable.OS, file, maxSettings)
	switch info, statErr := os.Stat(file); {
	case errors.Is(err, fs.ErrNotExist):
		before = nil
	case err != nil:
		return err
	case statErr == nil:
		mode = info.Mode().Perm()
	}
	after, err := claudecode.Uninstall(before)
	if err == nil && !uninstall {
		var command string
		if command, err = a.hookCommandLine(); err == nil {
			after, err = claudecode.Install(before, command)
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if bytes.Equal(before, after) {
		a.say("%s: nothing to change", file)
		return nil
	}
	if err := a.showChange(file, before, after); err != nil || !yes {
		if err == nil {
			fmt.Fprintln(a.stderr, "hint: nothing is changed yet; --yes changes it")
		}
		return err
	}
	action := "hook_uninstall:" + claudecode.Agent
	if !uninstall {
		action = "hook_install:" + claudecode.Agent
	}
	return a.writeSettings(cmd, file, mode, before, after, action)
}

// writeSettings replaces the file, and records that.
func (a *app) writeSettings(cmd *cobra.Command, file string, mode fs.FileMode, before, after []byte, action string) (err error) {
	opts := a.settings.options()
	opts.Command, opts.Warn, opts.StateDir = cmd.CommandPath(), a.warn, a.stateDir
	trail, err := audit.Open(a.settings.log, &opts)
	switch {
	case errors.Is(err, audit.ErrLocked):
		a.warn(err) // hooks wait in the spool for its holder
	case err != nil:
		return err
	default:
		defer a.closing(&err, trail)
	}
	if err := durable.MkdirAll(durable.OS, filepath.Dir(file), 0o700); err != nil {
		return err
	}
	now, err := durable.ReadFile(durable.OS, file, maxSettings)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if !bytes.Equal(now, before) {
		return fmt.Errorf("%s: it was changed meanwhile: run this again", file)
	}
	if err := durable.WriteFile(durable.OS, file, after, mode); err != nil {
		return err
	}
	if err := os.Chmod(file, mode); err != nil { // the umask does not count here
		return err
	}
	a.say("%s: changed", file)
	if trail == nil {
		return nil
	}
	_, err = trail.Record(context.WithoutCancel(cmd.Context()), audit.Event{
		EventType: audit.ConfigChange, AgentID: claudecode.Agent, Action: action, Inputs: audit.Of(map[string]any{"settings": file}),
	})
	return err
}

// hookCommandLine is what the agent runs: this program, with the trail's path
// as it is now.
func (a *app) hookCommandLine() (string, error) {
	program, err := os.Executable()
	if err != nil {
		return "", err
	}
	log, err := filepath.Abs(a.settings.log)
	if err != nil {
		return "", err
	}
	command := advice.Quote(program) + " hook claude-code --log " + advice.Quote(log)
	if a.settings.config != "" {
		config, err := filepath.Abs(a.settings.config)
		if err != nil {
			return "", err
		}
		command += " --config " + advice.Quote(config)
	}
	return command, nil
}

// showChange writes what changes as a unified diff.
func (a *app) showChange(file string, before, after []byte) error {
	name := report.Printable(file)
	_, changes, _ := bytes.Cut(diff.Diff(name, before, name, after), []byte{'\n'}) // a line for the command diff
	var b strings.Builder
	for line := range strings.SplitSeq(strings.TrimSuffix(string(changes), "\n"), "\n") {
		style := ""
		if strings.HasPrefix(line, "+") && !strings.HasPrefix(line, "+++ ") {
			style = green
		} else if strings.HasPrefix(line, "-") && !strings.HasPrefix(line, "--- ") {
			style = red
		}
		b.WriteString(a.stdout.paint(style, report.Printable(line)) + "\n")
	}
	_, err := io.WriteString(a.stdout, b.String())
	return err
}
