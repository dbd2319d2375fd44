package signing

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/kaizen-audit/kaizen-audit/internal/advice"
	"github.com/kaizen-audit/kaizen-audit/internal/durable"
)

// Key is a key that signs. Where it is with a signer only its vkey is here.
type Key struct {
	note.Signer
	VKey string
	text string // of the private key, where it is here
}

// NewKey makes a key for the trail of that origin.
func NewKey(origin string) (Key, error) {
	text, _, err := note.GenerateKey(rand.Reader, origin)
	if err != nil {
		return Key{}, err
	}
	return parseKey(text)
}

// ErrNoKey means that a text is no signing key. No error has anything of the text.
var ErrNoKey = errors.New("not a signing key")

// parseKey reads a key in the form of a signed note's.
func parseKey(text string) (k Key, err error) {
	k.text = strings.TrimSpace(text)
	if k.Signer, err = note.NewSigner(k.text); err == nil {
		k.VKey, err = vkeyOf(k.text)
	}
	if err != nil {
		return Key{}, ErrNoKey // note's error may quote
	}
	return k, nil
}

// vkeyOf is the verifier key of a signing key's text.
func vkeyOf(text string) (string, error) {
	parts := strings.SplitN(text, "+", 5)
	if len(parts) != 5 {
		return "", ErrNoKey
	}
	key, err := base64.StdEncoding.DecodeString(parts[4])
	if err != nil || len(key) != 1+ed25519.SeedSize || key[0] != 1 {
		return "", ErrNoKey
	}
	return note.NewEd25519VerifierKey(parts[2], ed25519.NewKeyFromSeed(key[1:]).Public().(ed25519.PublicKey))
}

// maxKeys bounds a file of keys: there are two at most.
const maxKeys = 1 << 12

// ReadKey reads the file of one key, which nobody else may read.
func ReadKey(name string) (Key, error) {
	fi, err := os.Stat(name)
	if err != nil {
		return Key{}, err
	}
	if !fi.Mode().IsRegular() || fi.Mode().Perm()&0o077 != 0 {
		return Key{}, advice.For(fmt.Errorf("%s: others may read it, or it is no file", name), "chmod 600 %s", advice.Quote(name))
	}
	text, err := durable.ReadFile(durable.OS, name, maxKeys)
	if err != nil {
		return Key{}, err
	}
	k, err := parseKey(string(text))
	if err != nil {
		return k, fmt.Errorf("%s: %w", name, err)
	}
	return k, nil
}

// Format is the text of a file of keys.
func Format(keys ...Key) []byte {
	var b strings.Builder
	for _, k := range keys {
		b.WriteString(k.text + "\n")
	}
	return []byte(b.String())
}
