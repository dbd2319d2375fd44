package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/claudecode"
	"github.com/kaizen-audit/kaizen-audit/internal/pin"
)

const (
	// hookTime is how long a hook takes at most, whatever trail, disk and
	// socket do. The agent gives all hooks of a session's end together 1.5 s,
	// or the timeout that the installation sets, 5 s.
	hookTime = 2 * time.Second
	// hookInputTime is how much of it goes to reading standard input at most: an
	// agent writes it at once, unless the machine has other things to do.
	hookInputTime = 1200 * time.Millisecond
	// maxHookInput is far above what an entry may hold: of more, only the fact
	// is kept.
	maxHookInput = 64 << 20
)

func (a *app) hookCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "hook",
		Short: "Record what coding agents do",
		Long: `Records what coding agents do, through the hooks that they call. hook install
puts them into an agent's settings; docs/coding-agents.md says what is recorded.`,
		Example: `  kaizen-audit hook install claude-code --log ~/agents.jsonl
  kaizen-audit hook claude-code < hook.json`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return noSuchCommand(cmd, args[0])
		},
	}
	cmd.AddCommand(a.hookClaudeCodeCommand(), a.hookInstallCommand())
	return cmd
}

// neverFails marks a command whose exit code is 0 whatever happens: an agent
// takes another one for a decision.
const neverFails = "never-fails"

func (a *app) hookClaudeCodeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "claude-code",
		Short: "Record what Claude Code hands to a hook",
		Long: `Reads one hook's JSON from standard input and records it. Claude Code runs it;
hook install puts it into the settings.

The exit code is always 0, nothing is written to stdout, and it takes two seconds
at most, whatever happens: an agent must never fail because of its trail. What
the trail can't take waits in its spool, and is recorded by whoever writes the
trail next.`,
		Example: `  echo '{"session_id":"s1","hook_event_name":"UserPromptSubmit","prompt":"Hello"}' | kaizen-audit hook claude-code
  kaizen-audit hook claude-code --log audit.jsonl < hook.json`,
		Args:        cobra.ArbitraryArgs,
		Annotations: map[string]string{neverFails: ""},
		// Settings that are wrong are told, and what is right counts.
		FParseErrWhitelist: cobra.FParseErrWhitelist{UnknownFlags: true},
		PersistentPreRunE: func(*cobra.Command, []string) error {
			a.started = true
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return a.hook(cmd) },
	}
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		a.started = true
		a.warn(err)
		return a.hook(cmd)
	})
	a.settings.addDurability(cmd.Flags())
	complete(cmd, "durability", "durable", "written", "queued")
	a.settings.addWriter(cmd.Flags())
	return cmd
}

// hook records what standard input has, within hookTime.
func (a *app) hook(cmd *cobra.Command) error {
	// A signal of an agent that has lost its patience comes too late to stop
	// what is about to be done anyway.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(cmd.Context()), hookTime)
	defer cancel()
	if err := a.settings.resolve(ctx, cmd.Flags(), a.warn); err != nil {
		a.warn(err)
	}
	if a.settings.log == "" {
		a.settings.log = audit.DefaultPath
	}
	done := make(chan error, 1)
	go func() {
		defer func() {
			if r := recover(); r != nil { // a fault of ours is not the agent's
				done <- fmt.Errorf("internal error: %v", r)
			}
		}()
		done <- a.recordHook(ctx, cmd, time.Now())
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		// Whoever ended here or in between has left the event in the spool, or
		// the call among those that wait; else the disk gave no answer at all.
		select {
		case err := <-done:
			return err
		case <-time.After(50 * time.Millisecond):
			return fmt.Errorf("not done within %s", hookTime)
		}
	}
}

func (a *app) recordHook(ctx context.Context, cmd *cobra.Command, now time.Time) error {
	text, err := readHook(a.stdin)
	if err != nil {
		a.warn(err)
	}
	h := claudecode.Parse(text)
	capture := func(ev entry.Event) error {
		opts := a.settings.options()
		opts.Anchors = nil // nobody outside is asked while an agent waits
		opts.Command, opts.StateDir = cmd.CommandPath(), a.stateDir
		return audit.Capture(ctx, a.settings.log, &opts, ev)
	}
	pending := a.pendingCalls()
	appendPending := func(ev *entry.Event) (text, notes []byte, err error) {
		opts := a.settings.options()
		opts.StateDir = a.stateDir
		return audit.AppendPending(nil, a.settings.log, &opts, ev)
	}

	var errs []error
	if h.EndsSession() { // its calls come before its end
		errs = append(errs, a.tellUnanswered(ctx, pending, now, h.SessionID, capture))
	}
	if h.Begins() {
		if err := pending.Put(h, now, appendPending); err != nil {
			errs = append(errs, fmt.Errorf("keep the call until it is answered: %w", err), capture(claudecode.BeginOnly(h, now)))
		}
	} else {
		var begun *claudecode.Begun
		if h.Answers() {
			begun = pending.Find(h)
		}
		err := capture(h.Event(now, begun))
		if err == nil && begun != nil {
			err = begun.Done()
		}
		errs = append(errs, err)
	}
	if !h.EndsSession() {
		errs = append(errs, a.tellUnanswered(ctx, pending, now, "", capture))
	}
	return errors.Join(errs...)
}

// tellUnanswered records the calls of a session, and all that are overdue, as
// unknown.
func (a *app) tellUnanswered(ctx context.Context, pending claudecode.Pending, now time.Time, session string, capture func(entry.Event) error) error {
	for b := range pending.Unanswered(now, session) {
		if ctx.Err() != nil {
			return nil // the next hook goes on
		}
		if err := capture(b.Unknown()); err != nil {
			return err
		}
		if err := b.Done(); err != nil {
			return err
		}
	}
	return nil
}

// pendingCalls is where this user's calls to the trail's agents wait.
func (a *app) pendingCalls() claudecode.Pending {
	state := a.stateDir
	if state == "" {
		state = pin.DefaultDir()
	}
	if log, err := filepath.Abs(a.settings.log); state != "" && err == nil {
		return claudecode.Pending{Dir: pin.Below(state, "pending", log), Parse: func(text, notes []byte) (entry.Event, error) {
			opts := a.settings.options()
			opts.StateDir = a.stateDir
			return audit.ParsePending(a.settings.log, &opts, text, notes)
		}}
	}
	return claudecode.Pending{}
}

// readHook reads what the agent hands over, as much as comes in time.
func readHook(in io.Reader) ([]byte, error) {
	type result struct {
		text []byte
		err  error
	}
	read := make(chan result, 1)
	go func() {
		text, err := io.ReadAll(io.LimitReader(in, maxHookInput))
		read <- result{text, err}
	}()
	select {
	case r := <-read:
		return r.text, r.err
	case <-time.After(hookInputTime):
		return nil, errors.New("standard input does not end")
	}
}
