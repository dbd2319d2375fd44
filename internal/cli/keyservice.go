package cli

import (
	"context"
	"slices"
	"strings"

	"github.com/kaizen-audit/kaizen-audit/kms"
	"github.com/kaizen-audit/kaizen-audit/kms/vault"
)

// KeyService opens keys by URLs of a scheme.
type KeyService struct {
	Scheme string
	Open   func(ctx context.Context, url string) (kms.KEK, error)
}

// vaultService is in every build: it needs no SDK.
var vaultService = KeyService{Scheme: "hashivault", Open: func(_ context.Context, url string) (kms.KEK, error) {
	o, err := vault.Parse(url)
	if err != nil {
		return nil, err
	}
	return vault.New(*o)
}}

// heavySchemes are of the services that only kaizen-audit-kms has.
var heavySchemes = []string{"awskms", "gcpkms", "azurekeyvault", "pkcs11"}

// keyService is what opens the key of a URL.
func (s *settings) keyService(url string) (func(context.Context) (kms.KEK, error), error) {
	scheme, _, _ := strings.Cut(url, ":")
	for _, service := range s.services {
		if service.Scheme == scheme {
			return func(ctx context.Context) (kms.KEK, error) { return service.Open(ctx, url) }, nil
		}
	}
	if slices.Contains(heavySchemes, scheme) {
		return nil, usageError{hinted{usagef("key URL: this build has no %s", scheme), "use kaizen-audit-kms, which has it: docs/keys.md"}}
	}
	var known []string
	for _, service := range s.services {
		known = append(known, service.Scheme+":")
	}
	return nil, usagef("key URL: there are %s", strings.Join(known, ", "))
}
