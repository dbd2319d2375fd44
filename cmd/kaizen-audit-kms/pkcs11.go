//go:build cgo

package main

import (
	"context"

	"github.com/kaizen-audit/kaizen-audit/internal/cli"
	"github.com/kaizen-audit/kaizen-audit/kms"
	"github.com/kaizen-audit/kaizen-audit/kms/pkcs11"
)

func init() {
	hardware = append(hardware, cli.KeyService{Scheme: "pkcs11", Open: func(_ context.Context, url string) (kms.KEK, error) {
		o, err := pkcs11.Parse(url)
		if err != nil {
			return nil, err
		}
		return pkcs11.Open(*o)
	}})
}
