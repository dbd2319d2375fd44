package witness

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"golang.org/x/mod/sumdb/note"
)

// algCosignature is the type of a timestamped Ed25519 cosignature
// (c2sp.org/tlog-cosignature v1).
const algCosignature = 0x04

// keyHash is the key id of a signed note (c2sp.org/signed-note).
func keyHash(name string, key []byte) uint32 {
	sum := sha256.Sum256(append([]byte(name+"\n"), key...))
	return binary.BigEndian.Uint32(sum[:4])
}

// validName tells names that a signed note may have.
func validName(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool { return r == '+' || unicode.IsSpace(r) })
}

// Cosigner verifies the cosignatures of one witness. It is a note.Verifier.
type Cosigner struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

// ParseCosigner reads a witness's verifier key, NAME+HASH+KEY of type 0x04.
func ParseCosigner(vkey string) (*Cosigner, error) {
	name, rest, _ := strings.Cut(vkey, "+")
	hash, text, _ := strings.Cut(rest, "+")
	key, err := base64.StdEncoding.Strict().DecodeString(text)
	switch {
	case err != nil || !validName(name) || len(hash) != 8 || len(key) != 1+ed25519.PublicKeySize:
		return nil, errors.New("this is no verifier key: NAME+HASH+KEY is one")
	case key[0] == 0x01:
		return nil, errors.New("this is a trail's key, not a witness's")
	case key[0] != algCosignature:
		return nil, errors.New("this is no key for Ed25519 cosignatures")
	case hash != fmt.Sprintf("%08x", keyHash(name, key)):
		return nil, errors.New("the verifier key's hash is not of its key")
	}
	return &Cosigner{name, keyHash(name, key), key[1:]}, nil
}

// String is the verifier key.
func (c *Cosigner) String() string {
	key := append([]byte{algCosignature}, c.key...)
	return fmt.Sprintf("%s+%08x+%s", c.name, c.hash, base64.StdEncoding.EncodeToString(key))
}

// Name is the witness's.
func (c *Cosigner) Name() string { return c.name }

// KeyHash is the key's id.
func (c *Cosigner) KeyHash() uint32 { return c.hash }

// Verify checks a cosignature, without its key id, over a checkpoint's text.
func (c *Cosigner) Verify(msg, sig []byte) bool {
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	at := binary.BigEndian.Uint64(sig)
	return at <= 1<<63-1 && ed25519.Verify(c.key, cosigned(at, msg), sig[8:])
}

// cosigned is what a witness signs.
func cosigned(at uint64, msg []byte) []byte {
	return fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", at, msg)
}

// open checks that the witness has cosigned a checkpoint, and when.
func (c *Cosigner) open(signed []byte) (at time.Time, err error) {
	n, err := note.Open(signed, note.VerifierList(c))
	if err != nil {
		return time.Time{}, errors.New("not cosigned by the witness's key")
	}
	for _, s := range n.Sigs {
		b, err := base64.StdEncoding.DecodeString(s.Base64)
		if err != nil || len(b) < 12 {
			continue
		}
		if t := time.Unix(int64(binary.BigEndian.Uint64(b[4:12])), 0).UTC(); t.After(at) {
			at = t
		}
	}
	return at, nil
}

// Signer makes cosignatures. It is a note.Signer.
type Signer struct {
	Cosigner
	key ed25519.PrivateKey
	now func() time.Time
}

const signerPrefix = "PRIVATE+KEY+"

// NewSignerKey makes a witness's key, as the text that ParseSigner reads: that of a
// signed note's, with the type of a cosigner.
func NewSignerKey(name string) (string, error) {
	if !validName(name) {
		return "", errors.New("a witness's name has neither spaces nor plus signs")
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", err
	}
	hash := keyHash(name, append([]byte{algCosignature}, public...))
	return fmt.Sprintf("%s%s+%08x+%s", signerPrefix, name, hash, base64.StdEncoding.EncodeToString(append([]byte{algCosignature}, private.Seed()...))), nil
}

// ParseSigner reads a witness's key. No error has anything of it.
func ParseSigner(text string) (*Signer, error) {
	bad := errors.New("this is no key of a witness")
	rest, ok := strings.CutPrefix(strings.TrimSpace(text), signerPrefix)
	name, rest, _ := strings.Cut(rest, "+")
	hash, b64, _ := strings.Cut(rest, "+")
	seed, err := base64.StdEncoding.Strict().DecodeString(b64)
	if !ok || err != nil || !validName(name) || len(seed) != 1+ed25519.SeedSize || seed[0] != algCosignature {
		return nil, bad
	}
	private := ed25519.NewKeyFromSeed(seed[1:])
	public := private.Public().(ed25519.PublicKey)
	id := keyHash(name, append([]byte{algCosignature}, public...))
	if b, err := hex.DecodeString(hash); err != nil || len(b) != 4 || binary.BigEndian.Uint32(b) != id {
		return nil, bad
	}
	return &Signer{Cosigner{name, id, public}, private, time.Now}, nil
}

// Sign cosigns a checkpoint's text.
func (s *Signer) Sign(msg []byte) ([]byte, error) {
	at := uint64(s.now().Unix())
	return append(binary.BigEndian.AppendUint64(nil, at), ed25519.Sign(s.key, cosigned(at, msg))...), nil
}
