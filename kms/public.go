package kms

import (
	"context"
	"crypto/ecdh"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/kaizen-audit/kaizen-audit/internal/seal"
)

// SealsOnly is a KEK that wraps and unwraps nothing: its Unwrap is ErrSealsOnly. Who
// has it records in a trail and reads nothing of what is sealed there.
type SealsOnly interface {
	KEK
	// SealsOnly does nothing; it says what this is.
	SealsOnly()
}

// ErrSealsOnly means that a key was asked to open something and can't: the private key
// of the pair does.
var ErrSealsOnly = errors.New("this key seals, and opens nothing")

// The suite of RFC 9180: DHKEM(P-256, HKDF-SHA256), HKDF-SHA256, and no cipher of its
// own: what it agrees on is the key above a box (docs/format-sealing.md §6.11). P-256
// runs in FIPS 140-3 mode, X25519 does not.
var (
	sealingKEM  = hpke.DHKEM(ecdh.P256())
	sealingKDF  = hpke.HKDFSHA256()
	sealingAEAD = hpke.ExportOnly()
)

const (
	// byHPKE says in WRAP which suite it was.
	byHPKE = "hpke:p256"
	// exported is the context of the secret that is exported.
	exported = "kaizen-audit/hpke/v1"
	// What begins the keys as text.
	publicPrefix  = "kaizen-audit-seal-1:"
	privatePrefix = "kaizen-audit-open-1:"
)

// IsPair tells whether KEK.By is of a pair of keys.
func IsPair(by string) bool { return by == byHPKE }

// Public is the public key of a pair: whoever has it seals for who has the private
// one. It is no secret.
type Public struct {
	key hpke.PublicKey
	id  string
}

// Private is a pair of keys: it seals and opens.
type Private struct {
	public *Public
	key    func() hpke.PrivateKey // which no verb of fmt prints
}

// NewPair makes a pair of keys.
func NewPair() (*Private, error) {
	k, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return newPrivate(k.Bytes())
}

func newPublic(bytes []byte) (*Public, error) {
	k, err := sealingKEM.NewPublicKey(bytes)
	if err != nil {
		return nil, ErrBadKey
	}
	sum := sha256.Sum256(lp("kaizen-audit/kek-hpke/v1", string(bytes)))
	return &Public{key: k, id: base64.RawURLEncoding.EncodeToString(sum[:9])}, nil
}

func newPrivate(bytes []byte) (*Private, error) {
	k, err := sealingKEM.NewPrivateKey(bytes)
	if err != nil {
		return nil, ErrBadKey
	}
	public, err := newPublic(k.PublicKey().Bytes())
	return &Private{public, func() hpke.PrivateKey { return k }}, err
}

// parsePair reads a key of a pair; ok is false where the text is none.
func parsePair(text string) (k KEK, ok bool, err error) {
	for _, kind := range []struct {
		prefix string
		parse  func([]byte) (KEK, error)
	}{
		{publicPrefix, func(b []byte) (KEK, error) { return newPublic(b) }},
		{privatePrefix, func(b []byte) (KEK, error) { return newPrivate(b) }},
	} {
		rest, ok := strings.CutPrefix(text, kind.prefix)
		if !ok {
			continue
		}
		bytes, err := base64.RawURLEncoding.Strict().DecodeString(rest)
		if err != nil {
			return nil, true, ErrBadKey
		}
		k, err := kind.parse(bytes)
		if err != nil {
			return nil, true, ErrBadKey
		}
		return k, true, nil
	}
	return nil, false, nil
}

// CreatePair makes a pair of keys: the private one in a file that is made, 0600, and
// durable when it returns. It never replaces a file: fs.ErrExist.
func CreatePair(name string) (*Public, error) {
	k, err := NewPair()
	if err != nil {
		return nil, err
	}
	bytes, err := k.key().Bytes()
	if err != nil {
		return nil, err
	}
	return k.public, createFile(name, privatePrefix+base64.RawURLEncoding.EncodeToString(bytes))
}

// createFile makes a file with one line, mode 0600.
func createFile(name, line string) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("key file: %w", err)
	}
	_, err = f.WriteString(line + "\n")
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = syncDir(filepath.Dir(name))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("key file: %w", err), os.Remove(name))
	}
	return nil
}

// String is the public key as Parse reads it.
func (k *Public) String() string {
	return publicPrefix + base64.RawURLEncoding.EncodeToString(k.key.Bytes())
}

// ID is the pair's, that of its two keys.
func (k *Public) ID() string { return k.id }

// By names the suite.
func (k *Public) By() string { return byHPKE }

// SealsOnly says that there is no private key here.
func (k *Public) SealsOnly() {}

// Wrap seals a secret for a place.
func (k *Public) Wrap(_ context.Context, p Place, secret []byte) (string, error) {
	enc, sender, err := hpke.NewSender(k.key, sealingKDF, sealingAEAD, p.Bytes())
	if err != nil {
		return "", fmt.Errorf("wrap %s: %w", p.Purpose, err)
	}
	key, err := sender.Export(exported, seal.KeySize)
	if err != nil {
		return "", fmt.Errorf("wrap %s: %w", p.Purpose, err)
	}
	salt := make([]byte, seal.SaltSize)
	_, _ = rand.Read(salt) // never fails
	box, err := seal.Wrap(p.Origin, p.Purpose, p.Name, key, salt, secret)
	return base64.RawURLEncoding.EncodeToString(enc) + "." + box, err
}

// Unwrap is ErrSealsOnly.
func (k *Public) Unwrap(context.Context, Place, string) ([]byte, error) { return nil, ErrSealsOnly }

// Format names the key and does not show it, whatever the verb.
func (k *Private) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "private key "+k.ID()) }

// Public is the public key of the pair.
func (k *Private) Public() *Public { return k.public }

// ID is the pair's, that of its two keys.
func (k *Private) ID() string { return k.public.id }

// By names the suite.
func (k *Private) By() string { return byHPKE }

// Wrap seals a secret for a place.
func (k *Private) Wrap(ctx context.Context, p Place, secret []byte) (string, error) {
	return k.public.Wrap(ctx, p, secret)
}

// Unwrap opens what Wrap gave.
func (k *Private) Unwrap(_ context.Context, p Place, wrapped string) ([]byte, error) {
	first, box, ok := strings.Cut(wrapped, ".")
	enc, err := base64.RawURLEncoding.Strict().DecodeString(first)
	if err != nil || !ok {
		return nil, fmt.Errorf("unwrap %s: %w", p.Purpose, seal.ErrMalformed)
	}
	r, err := hpke.NewRecipient(enc, k.key(), sealingKDF, sealingAEAD, p.Bytes())
	if err != nil {
		return nil, fmt.Errorf("unwrap %s: %w", p.Purpose, seal.ErrMalformed)
	}
	key, err := r.Export(exported, seal.KeySize)
	if err != nil {
		return nil, fmt.Errorf("unwrap %s: %w", p.Purpose, err)
	}
	secret, err := seal.Unwrap(p.Origin, p.Purpose, p.Name, key, box)
	if errors.Is(err, seal.ErrOpen) {
		return nil, fmt.Errorf("%w: %w", ErrWrongKey, err)
	}
	return secret, err
}
