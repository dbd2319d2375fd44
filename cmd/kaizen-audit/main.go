// Command kaizen-audit keeps an audit trail of AI agents; see docs/cli.md.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/kaizen-audit/kaizen-audit/internal/cli"
)

func main() {
	// A closed pipe is an error of the write, not the end of the program: a
	// trail is closed first. (Notify, not Ignore: children must not inherit it.)
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends it at once
	os.Exit(cli.Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
