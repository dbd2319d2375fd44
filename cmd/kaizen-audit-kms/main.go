// Command kaizen-audit-kms is kaizen-audit with the key services that are too heavy
// for it: AWS, Google Cloud and Azure by their SDKs, and PKCS#11 (with cgo). It may be
// installed under that name or as kaizen-audit; see docs/keys.md.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/kaizen-audit/kaizen-audit/internal/cli"
	"github.com/kaizen-audit/kaizen-audit/kms"
	"github.com/kaizen-audit/kaizen-audit/kms/cloud"
)

func main() {
	// As cmd/kaizen-audit.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(cli.Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, services()...))
}

func services() []cli.KeyService {
	var all []cli.KeyService
	for _, scheme := range cloud.Schemes {
		all = append(all, cli.KeyService{Scheme: scheme, Open: func(ctx context.Context, url string) (kms.KEK, error) { return cloud.Open(ctx, url) }})
	}
	return append(all, hardware...)
}

// hardware are the services that need cgo.
var hardware []cli.KeyService
