package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/spf13/cobra"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/internal/otlp"
)

func (a *app) serveCommand() *cobra.Command {
	var idle time.Duration
	var encrypt bool
	var otlpAddress, otlpTokens string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Hold the trail for other processes",
		Long: `Holds the trail and does nothing else: other processes record and read through
its socket, sock in the trail's directory (docs/protocol.md). Any process that
has the trail open does the same; serve is for when none of them should be the
one that the others depend on.

It ends on SIGINT or SIGTERM: what was accepted is answered, the last checkpoint
is written, and the next process that records takes over. It tells systemd when
it is ready (Type=notify).

--otlp also takes what OpenTelemetry's SDKs send, traces and logs over HTTP
(docs/otlp.md): at an address of this machine's own, or at any address from
senders that have a token of --otlp-token-file.`,
		Example: `  kaizen-audit serve
  kaizen-audit serve --otlp 127.0.0.1:4318
  kaizen-audit serve --log audit.jsonl --idle-exit 60s
  curl --unix-socket audit.trail/sock http://localhost/v1/trail`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if idle < 0 {
				return usageError{fmt.Errorf("--idle-exit: %s is negative", idle)}
			}
			switch {
			case otlpTokens != "" && otlpAddress == "":
				return usagef("--otlp-token-file needs --otlp")
			case otlpAddress != "" && idle > 0:
				return usagef("--otlp or --idle-exit, not both: nobody knows when the next sender comes")
			}
			opts := a.settings.options()
			opts.Command, opts.Warn, opts.StateDir = cmd.CommandPath(), a.warn, a.stateDir
			opts.MustHold, opts.Encrypt = true, encrypt
			trail, err := audit.Open(a.settings.log, &opts)
			if err != nil {
				return err
			}
			defer a.closing(&err, trail)
			intake, err := a.listenOTLP(trail, otlpAddress, otlpTokens)
			if err != nil {
				return err
			}
			a.say("serve: holding %s", trail.Path())
			if err := notify("READY=1"); err != nil {
				a.warn(err)
			}
			err = serveBoth(cmd.Context(), trail, idle, intake)
			return errors.Join(err, notify("STOPPING=1"))
		},
	}
	cmd.Flags().BoolVar(&encrypt, "encrypt", false, "a trail that is made here seals every line; one that is there remembers")
	cmd.Flags().DurationVar(&idle, "idle-exit", 0, "end once nobody has been connected for `TIME` (0: never)")
	cmd.Flags().StringVar(&otlpAddress, "otlp", "", "take OTLP over HTTP at `ADDRESS` too, such as 127.0.0.1:4318 (default: not)")
	cmd.Flags().StringVar(&otlpTokens, "otlp-token-file", "", "`FILE` with a name and a token a line, which senders of OTLP must have")
	a.settings.addDurability(cmd.Flags())
	complete(cmd, "durability", "durable", "written", "queued")
	a.settings.addWriter(cmd.Flags())
	return cmd
}

// listenOTLP listens for OTLP, nil where that is not asked for.
func (a *app) listenOTLP(trail *audit.Trail, address, tokens string) (*otlp.Server, error) {
	if address == "" {
		return nil, nil
	}
	s, err := otlp.Listen(address, trail, &otlp.Options{Tokens: tokens, Warn: a.warn})
	if err != nil {
		return nil, err
	}
	a.say("serve: OTLP at http://%s", s.Addr())
	return s, nil
}

// serveBoth serves until ctx ends or one of the two can't any more. What the
// intake has taken is recorded before the trail is let go of.
func serveBoth(ctx context.Context, trail *audit.Trail, idle time.Duration, in *otlp.Server) error {
	if in == nil {
		return trail.Serve(ctx, idle)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		defer cancel()
		ended <- in.Serve(ctx)
	}()
	err := trail.Serve(ctx, idle)
	cancel()
	return errors.Join(err, <-ended)
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
