package cli

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/report"
	"github.com/kaizen-audit/kaizen-audit/internal/signing"
	"github.com/kaizen-audit/kaizen-audit/internal/socket"
)

func (a *app) signerCommand() *cobra.Command {
	var state, origin, listen, writer string
	var showKey bool
	cmd := &cobra.Command{
		Use:   "signer --state DIR --listen unix:/PATH [--origin NAME] [--writer USER]",
		Short: "Keep a trail's signing key apart from who writes it",
		Long: `Runs a signer: it has the signing key of one trail, under a user of its own, and
the trail's writer asks it through a Unix socket (init --signer). It signs a
checkpoint only with the proof that it continues the one that was signed last, so
that whoever has the writer's account can extend the trail and can't have anything
before rewritten (docs/keys.md).

--state is the signer's own directory: its key, made with --origin where it is not
there, and what it has signed. Keep it, and put no old copy of it back: one that
forgets signs another history. --writer is the user who may ask besides this one and
root, as the system says who it is. It ends on SIGINT or SIGTERM, and tells systemd
when it is ready (Type=notify).

The trail's verifier key is printed at the start; --show-key prints it and ends.`,
		Example: `  kaizen-audit signer --state /var/lib/signer --origin audit.example.org/agents --listen unix:/run/signer/sock --writer kaizen-audit
  kaizen-audit signer --state /var/lib/signer --show-key`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) > 0:
				return noArgs(nil, args)
			case state == "":
				return usagef("--state is needed: the signer's own directory")
			case listen == "" && !showKey:
				return usagef("--listen is needed: the socket to listen at, unix:/PATH")
			}
			if listen != "" {
				if _, err := signing.ParseURL(listen); err != nil {
					return usagef("--listen: %w", err)
				}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			uid, group, err := writerOf(writer)
			if err != nil {
				return usagef("--writer: %w", err)
			}
			// One signer for a directory: from here on it is this process's.
			if origin != "" {
				if err := durable.MkdirAll(durable.OS, state, 0o700); err != nil {
					return err
				}
			}
			if !showKey {
				lock, err := durable.OS.OpenFile(filepath.Join(state, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
				if err != nil {
					return err
				}
				defer lock.Close()
				if err := durable.OS.Lock(lock); err != nil {
					return fmt.Errorf("%s: %w", state, err)
				}
			}
			server, err := openSigner(state, origin)
			if err != nil {
				return err
			}
			vkeys := server.VKeys()
			if _, err := fmt.Fprintln(a.stdout, vkeys[len(vkeys)-1]); err != nil || showKey {
				return err
			}
			server.Writer = uid
			server.Refused = func(err error) { a.warn(fmt.Errorf("refused: %w", err)) }
			path, err := signing.ParseURL(listen)
			if err != nil {
				return err
			}
			l, err := socket.ListenAt(path, group)
			if errors.Is(err, os.ErrPermission) && group != "" {
				return hinted{err, fmt.Sprintf("the socket is given to group %s, so that --writer gets to it: let this user be a member, and write to that directory", group)}
			}
			if err != nil {
				return err
			}
			a.say("signer: of %s, at %s", report.Printable(server.Origin()), listen)
			if err := notify("READY=1"); err != nil {
				a.warn(err)
			}
			err = server.Serve(cmd.Context(), l)
			return errors.Join(err, notify("STOPPING=1"))
		},
	}
	f := cmd.Flags()
	f.StringVar(&state, "state", "", "the signer's own directory: its key and what it has signed")
	f.StringVar(&origin, "origin", "", "the name under which the trail signs, such as audit.example.org/agents, when the key is made")
	f.StringVar(&listen, "listen", "", "the socket to listen at, unix:/PATH")
	f.StringVar(&writer, "writer", "", "the user who writes the trail, `NAME` or UID (default this user and root alone)")
	f.BoolVar(&showKey, "show-key", false, "print the trail's verifier key, and end")
	return cmd
}

// writerOf is the user who may ask, and that user's group: -1 and none where nobody is
// named.
func writerOf(name string) (uid int, group string, err error) {
	if name == "" {
		return -1, "", nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		u, err = user.LookupId(name)
	}
	if err == nil {
		uid, err = strconv.Atoi(u.Uid)
	}
	if err != nil {
		return 0, "", errors.New("there is no user of that name or number")
	}
	if uid == os.Geteuid() {
		return uid, "", nil
	}
	return uid, u.Gid, nil
}

// openSigner is the signer of a directory; with an origin it is made where there is
// none.
func openSigner(state, origin string) (*signing.Server, error) {
	server, err := signing.NewServer(durable.OS, state)
	if errors.Is(err, signing.ErrNone) && origin != "" {
		if err := signing.Create(durable.OS, state, strings.TrimSpace(origin)); err != nil {
			return nil, fmt.Errorf("signer %s: %w", state, err)
		}
		server, err = signing.NewServer(durable.OS, state)
	}
	switch {
	case errors.Is(err, signing.ErrNone):
		return nil, hinted{fmt.Errorf("%s: %w", state, err), "to make one: --origin NAME, a name such as audit.example.org/agents"}
	case err != nil:
		return nil, fmt.Errorf("signer %s: %w", state, err)
	case origin != "" && origin != server.Origin():
		return nil, usagef("--origin: the signer at %s is of %s", state, server.Origin())
	}
	return server, nil
}
