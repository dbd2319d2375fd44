package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/witness"
)

func (a *app) witnessCommand() *cobra.Command {
	var listen, state, name string
	var trails []string
	var showKey bool
	cmd := &cobra.Command{
		Use:   "witness --state DIR --trail VKEY… [--listen ADDRESS]",
		Short: "Cosign other trails' checkpoints",
		Long: `Runs a witness (c2sp.org/tlog-witness): it cosigns a checkpoint of a trail that it
knows if that extends the last one that it has cosigned. Two installations that
run one for each other notice when the other's trail is rolled back, forked or
written anew (docs/anchors.md).

--trail is the verifier key of a trail, from its owner. --state is the witness's
own directory: its key, made with --name where it is not there, and what it has
seen. Keep it; a witness that forgets vouches for nothing. It ends on SIGINT or
SIGTERM.

The witness's own verifier key, which goes into the other side's configuration, is
printed at the start; --show-key prints it and ends.`,
		Example: `  kaizen-audit witness --state /var/lib/witness --name example.org/witness --show-key
  kaizen-audit witness --state /var/lib/witness --trail "$VKEY" --listen 127.0.0.1:7390`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) > 0:
				return noArgs(nil, args)
			case state == "":
				return usagef("--state is needed: the witness's own directory")
			case len(trails) == 0 && !showKey:
				return usagef("--trail is needed: the verifier key of a trail")
			}
			for _, vkey := range trails {
				if err := checkKey("trail", vkey); err != nil {
					return err
				}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			signer, err := witnessKey(state, name)
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintln(a.stdout, signer.Cosigner.String()); err != nil || showKey {
				return err
			}
			seen := filepath.Join(state, "seen")
			if err := durable.MkdirAll(durable.OS, seen, 0o700); err != nil {
				return err
			}
			lock, err := durable.OS.OpenFile(filepath.Join(state, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
			if err != nil {
				return err
			}
			defer lock.Close()
			if err := durable.OS.Lock(lock); err != nil {
				return fmt.Errorf("%s: %w", state, err)
			}
			server, err := witness.NewServer(durable.OS, seen, signer, trails)
			if err != nil {
				return usageError{fmt.Errorf("--trail: %w", err)}
			}
			l, err := net.Listen("tcp", listen)
			if err != nil {
				return err
			}
			a.say("witness: at http://%s", l.Addr())
			return serveUntil(cmd.Context(), l, server)
		},
	}
	f := cmd.Flags()
	f.StringVar(&listen, "listen", "127.0.0.1:7390", "the address to listen at; put TLS before it where it is not loopback")
	f.StringVar(&state, "state", "", "the witness's own directory: its key and what it has seen")
	f.StringVar(&name, "name", "", "the witness's name, such as example.org/witness, when its key is made")
	f.StringArrayVar(&trails, "trail", nil, "the verifier key of a trail to cosign (repeatable)")
	f.BoolVar(&showKey, "show-key", false, "print the witness's verifier key, and end")
	return cmd
}

// witnessKey reads the witness's key, and makes it where there is none.
func witnessKey(state, name string) (*witness.Signer, error) {
	file := filepath.Join(state, "witness.key")
	text, err := durable.ReadFile(durable.OS, file, 1<<12)
	if errors.Is(err, fs.ErrNotExist) {
		if name == "" {
			return nil, hinted{fmt.Errorf("there is no witness at %s yet", state), "to make one: --name NAME, a name such as example.org/witness"}
		}
		made, err := witness.NewSignerKey(name)
		if err != nil {
			return nil, usageError{fmt.Errorf("--name: %w", err)}
		}
		if err := durable.MkdirAll(durable.OS, state, 0o700); err != nil {
			return nil, err
		}
		text = []byte(made + "\n")
		if err := durable.CreateFile(durable.OS, file, text, 0o600); err != nil {
			return nil, err
		}
		if err := durable.OS.SyncDir(state); err != nil {
			return nil, err
		}
	} else if err != nil {
		return nil, err
	}
	signer, err := witness.ParseSigner(string(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if name != "" && name != signer.Name() {
		return nil, usagef("--name: the witness at %s is %s", state, signer.Name())
	}
	return signer, nil
}

// serveUntil serves until the context ends, and lets requests under way end.
func serveUntil(ctx context.Context, l net.Listener, h http.Handler) error {
	s := &http.Server{Handler: h, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, MaxHeaderBytes: 16 << 10}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	err := s.Shutdown(grace)
	if served := <-ended; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
