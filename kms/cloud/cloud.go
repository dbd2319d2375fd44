// Package cloud has a trail's KEK in a cloud's key service, by the URLs of
// gocloud.dev/secrets: awskms:///KEY?region=…, gcpkms://projects/…/cryptoKeys/…,
// azurekeyvault://VAULT.vault.azure.net/keys/KEY. Credentials come by the cloud's
// usual chain, never in a URL.
//
// gocloud.dev has no associated data, so the place of a secret stands inside what is
// encrypted, and is compared when it is opened.
//
// These services destroy a key after days or weeks, and one for each erasure epoch
// would cost what a key costs there: the KEK is one key, and an erasure has the limits
// of format-sealing §6.7 for it. Vault (kms/vault) and PKCS#11 (kms/pkcs11) have none.
package cloud

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"

	"gocloud.dev/gcerrors"
	"gocloud.dev/secrets"
	_ "gocloud.dev/secrets/awskms"        // awskms:
	_ "gocloud.dev/secrets/azurekeyvault" // azurekeyvault:
	_ "gocloud.dev/secrets/gcpkms"        // gcpkms:

	"github.com/kaizen-audit/kaizen-audit/kms"
)

// Schemes are those of the URLs that Open takes.
var Schemes = []string{"awskms", "gcpkms", "azurekeyvault"}

// KEK is a key of a cloud's key service.
type KEK struct {
	keeper *secrets.Keeper
	by, id string
}

// Open finds the key of a URL. The service is asked when something is wrapped.
func Open(ctx context.Context, text string) (*KEK, error) {
	u, err := url.Parse(text)
	if err != nil || u.User != nil {
		return nil, errors.New("key URL: not the URL of a key, or credentials in it")
	}
	keeper, err := secrets.OpenKeeper(ctx, text)
	if err != nil {
		return nil, fmt.Errorf("key URL: %w", err)
	}
	return New(keeper, text), nil
}

// New is the key of a keeper that is open. by is its URL, without what is secret.
func New(keeper *secrets.Keeper, by string) *KEK {
	return &KEK{keeper, by, kms.IDOf("gocloud", by)}
}

// ID is of the key's URL.
func (k *KEK) ID() string { return k.id }

// By is the key's URL.
func (k *KEK) By() string { return k.by }

// Wrap has the service encrypt a secret for a place.
func (k *KEK) Wrap(ctx context.Context, p kms.Place, secret []byte) (string, error) {
	box, err := k.keeper.Encrypt(ctx, append(p.Bytes(), secret...))
	if err != nil {
		return "", fmt.Errorf("wrap: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(box), nil
}

// Unwrap is the reverse.
func (k *KEK) Unwrap(ctx context.Context, p kms.Place, wrapped string) ([]byte, error) {
	box, err := base64.RawURLEncoding.Strict().DecodeString(wrapped)
	if err != nil {
		return nil, kms.ErrWrongKey
	}
	text, err := k.keeper.Decrypt(ctx, box)
	if code := gcerrors.Code(err); err != nil && (code == gcerrors.InvalidArgument || code == gcerrors.NotFound) {
		return nil, fmt.Errorf("%w: the service does not open it", kms.ErrWrongKey)
	}
	if err != nil {
		return nil, fmt.Errorf("unwrap: %w", err)
	}
	secret, ok := bytes.CutPrefix(text, p.Bytes())
	if !ok {
		return nil, kms.ErrWrongKey
	}
	return secret, nil
}

// Close lets go of the service.
func (k *KEK) Close() error { return k.keeper.Close() }
