// Package kms has the key-encryption keys of a trail: the one key that is kept
// apart from it and wraps all others ([KEK]).
//
// Here is the key that this process has at hand ([Local]), from the environment
// or a file. A key in a key service is a KEK of its own, in a module of its own,
// so that nobody carries a cloud's SDK who does not use it.
//
// A key never stands in an error.
package kms

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/kaizen-audit/kaizen-audit/internal/seal"
)

// KEK wraps and unwraps the keys of a trail (docs/format-sealing.md §6.6). It is
// safe for concurrent use.
type KEK interface {
	// ID stands beside what the key wrapped: 12 characters of base64url, the same
	// for the same key and another for every other.
	ID() string
	// By says who holds the key: "local", or the URL of a key service and the
	// version of its key.
	By() string
	// Wrap gives a secret as base64url that Unwrap alone opens, and only in the
	// same place.
	Wrap(ctx context.Context, place Place, secret []byte) (string, error)
	// Unwrap is the reverse. ErrWrongKey says that another key, or another place,
	// is the right one, or that the text was changed.
	Unwrap(ctx context.Context, place Place, wrapped string) ([]byte, error)
}

// EpochDestroyer is a KEK whose service keeps a key of its own for each erasure
// epoch. Of such a place (purpose "epoch") Wrap uses that key, and makes it where it
// is not there yet. With it gone, whoever has a copy of everything that the trail
// ever wrote, and the KEK, reads nothing that it wrapped
// (docs/format-sealing.md §6.7).
type EpochDestroyer interface {
	KEK
	// DestroyEpoch destroys the key of an epoch for good; that it is gone already is
	// no error. It returns when the service has done so.
	DestroyEpoch(ctx context.Context, epoch Place) error
}

// Place is what a wrapped key is for: it opens nowhere else.
type Place struct {
	Origin  string // of the trail
	Purpose string // "dek", "epoch", "mac"
	Name    string // of the key among those of its purpose
}

// PurposeEpoch is the purpose of the keys that an erasure destroys.
const PurposeEpoch = "epoch"

// Bytes is the place as associated data: it is no other's.
func (p Place) Bytes() []byte { return lp("kaizen-audit/key/v1", p.Origin, p.Purpose, p.Name) }

// lp is §6.1's: each string's length in 4 bytes, big-endian, and its bytes.
func lp(parts ...string) (out []byte) {
	for _, part := range parts {
		out = append(binary.BigEndian.AppendUint32(out, uint32(len(part))), part...)
	}
	return out
}

// IDOf is the id of a key in a service: of what tells it from every other there.
func IDOf(service string, key ...string) string {
	sum := sha256.Sum256(lp(append([]string{"kaizen-audit/kms/v1", service}, key...)...))
	return base64.RawURLEncoding.EncodeToString(sum[:9])
}

// Errors of keys.
var (
	// ErrWrongKey means that the KEK is not the one that wrapped, or that what was
	// wrapped was changed or moved.
	ErrWrongKey = errors.New("not the key that wrapped it")
	// ErrNoKey means that there is no key where one was looked for.
	ErrNoKey = errors.New("no encryption key")
	// ErrBadKey means that a text is no key.
	ErrBadKey = errors.New("not an encryption key: 32 bytes as base64, base64url or 64 hex digits, as openssl rand -base64 32 prints them")
)

// EnvironmentVariable is the documented place of the key in the environment.
const EnvironmentVariable = "AUDIT_LOG_ENCRYPTION_KEY"

// Local is a KEK that this process has in its memory.
type Local struct {
	key func() []byte // which no verb of fmt and no encoder prints
	id  string
}

// NewLocal takes a key of 32 bytes.
func NewLocal(key []byte) (*Local, error) {
	if len(key) != seal.KeySize {
		return nil, ErrBadKey
	}
	sum := sha256.Sum256(lp("kaizen-audit/kek/v1", string(key)))
	own := bytes.Clone(key)
	return &Local{key: func() []byte { return own }, id: base64.RawURLEncoding.EncodeToString(sum[:9])}, nil
}

// Parse reads a key as people write it: 32 bytes as base64 or base64url, padded
// or not, or 64 hex digits; or a key of a pair (Public, Private), as it is printed. White
// space around it does not count. The error is ErrBadKey, and for an empty text
// ErrNoKey.
func Parse(text string) (KEK, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return nil, ErrNoKey
	}
	if k, ok, err := parsePair(text); ok {
		return k, err
	}
	k, err := parseLocal(text)
	if err != nil {
		return nil, err
	}
	return k, nil
}

func parseLocal(text string) (*Local, error) {
	if len(text) == 2*seal.KeySize {
		key, err := hex.DecodeString(text)
		if err != nil {
			return nil, ErrBadKey
		}
		return NewLocal(key)
	}
	unpadded := strings.TrimSuffix(text, "=")
	for _, encoding := range []*base64.Encoding{base64.RawStdEncoding.Strict(), base64.RawURLEncoding.Strict()} {
		if key, err := encoding.DecodeString(unpadded); err == nil && len(key) == seal.KeySize {
			return NewLocal(key)
		}
	}
	return nil, ErrBadKey
}

// FromEnvironment reads the key of AUDIT_LOG_ENCRYPTION_KEY, as FromVariable does.
func FromEnvironment() (KEK, error) { return FromVariable(EnvironmentVariable) }

// FromVariable reads the key of a variable of the environment. It is ErrNoKey where
// that is not set; set and empty is ErrBadKey, since somebody meant a key.
func FromVariable(name string) (KEK, error) {
	text, set := os.LookupEnv(name)
	if !set {
		return nil, fmt.Errorf("%s: %w", name, ErrNoKey)
	}
	k, err := Parse(text)
	if errors.Is(err, ErrNoKey) {
		err = ErrBadKey
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return k, nil
}

// maxFile bounds a key's file: a key has 64 characters at most.
const maxFile = 4096

// FromFile reads a key's file. One that others than its owner may read is
// refused, and a public key's that others may write; it is ErrNoKey where there is
// none.
func FromFile(name string) (KEK, error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("key file %s: %w", name, ErrNoKey)
	}
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	defer f.Close()
	fi, err := f.Stat()
	switch {
	case err != nil:
		return nil, fmt.Errorf("key file: %w", err)
	case !fi.Mode().IsRegular():
		return nil, fmt.Errorf("key file %s: not a regular file", name)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	k, err := Parse(string(text))
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", name, ErrBadKey)
	}
	theirs := fs.FileMode(0o077)
	if _, public := k.(SealsOnly); public {
		theirs = 0o022
	}
	if fi.Mode().Perm()&theirs != 0 {
		return nil, fmt.Errorf("key file %s: others may read or write it (mode %04o): chmod 600", name, fi.Mode().Perm())
	}
	return k, nil
}

// CreateFile makes a key's file with a new key, mode 0600, durable when it
// returns. It never replaces a file: fs.ErrExist.
func CreateFile(name string) (*Local, error) {
	key := make([]byte, seal.KeySize)
	_, _ = rand.Read(key) // never fails
	k, err := NewLocal(key)
	if err != nil {
		return nil, err
	}
	if err := createFile(name, base64.StdEncoding.EncodeToString(key)); err != nil {
		return nil, err
	}
	return k, nil
}

func syncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// ID is the key's fingerprint: 9 bytes of a hash of it, in base64url.
func (k *Local) ID() string { return k.id }

// By is "local".
func (k *Local) By() string { return "local" }

// Format names the key and does not show it, whatever the verb.
func (k *Local) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "local key "+k.id) }

// Wrap seals a secret for a place.
func (k *Local) Wrap(_ context.Context, p Place, secret []byte) (string, error) {
	salt := make([]byte, seal.SaltSize)
	_, _ = rand.Read(salt) // never fails
	return seal.Wrap(p.Origin, p.Purpose, p.Name, k.key(), salt, secret)
}

// Unwrap opens what Wrap gave.
func (k *Local) Unwrap(_ context.Context, p Place, wrapped string) ([]byte, error) {
	secret, err := seal.Unwrap(p.Origin, p.Purpose, p.Name, k.key(), wrapped)
	if errors.Is(err, seal.ErrOpen) {
		return nil, fmt.Errorf("%w: %w", ErrWrongKey, err)
	}
	return secret, err
}
