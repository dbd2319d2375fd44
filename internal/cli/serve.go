package cli

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/spf13/cobra"

	audit "github.com/kaizen-audit/kaizen-audit"
)

func (a *app) serveCommand() *cobra.Command {
	var idle time.Duration
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Hold the trail for other processes",
		Long: `Holds the trail and does nothing else: other processes record and read through
its socket, sock in the trail's directory (docs/protocol.md). Any process that
has the trail open does the same; serve is for when none of them should be the
one that the others depend on.

It ends on SIGINT or SIGTERM: what was accepted is answered, the last checkpoint
is written, and the next process that records takes over. It tells systemd when
it is ready (Type=notify).`,
		Example: `  kaizen-audit serve
  kaizen-audit serve --log audit.jsonl --idle-exit 60s
  curl --unix-socket audit.trail/sock http://localhost/v1/trail`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if idle < 0 {
				return usageError{fmt.Errorf("--idle-exit: %s is negative", idle)}
			}
			opts := a.settings.options()
			opts.Command, opts.Warn, opts.StateDir = cmd.CommandPath(), a.warn, a.stateDir
			opts.MustHold = true
			trail, err := audit.Open(a.settings.log, &opts)
			if err != nil {
				return err
			}
			defer a.closing(&err, trail)
			a.say("serve: holding %s", trail.Path())
			if err := notify("READY=1"); err != nil {
				a.warn(err)
			}
			err = trail.Serve(cmd.Context(), idle)
			return errors.Join(err, notify("STOPPING=1"))
		},
	}
	cmd.Flags().DurationVar(&idle, "idle-exit", 0, "end once nobody has been connected for `TIME` (0: never)")
	a.settings.addDurability(cmd.Flags())
	complete(cmd, "durability", "durable", "written", "queued")
	a.settings.addWriter(cmd.Flags())
	return cmd
}

// notify tells systemd a state, as sd_notify(3) does, where it asked for it.
func notify(state string) error {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err == nil {
		_, err = conn.Write([]byte(state))
		err = errors.Join(err, conn.Close())
	}
	if err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	return nil
}
