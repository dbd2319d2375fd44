package seal

import (
	"crypto/sha256"
	"encoding/hex"
)

// CommitmentSalt is the length in bytes of a commitment's salt.
const CommitmentSalt = 32

// Fingerprint names a subject key without telling anything of it
// (docs/format-lifecycle.md §7.9).
func Fingerprint(key []byte) string {
	sum := sha256.Sum256(info("kaizen-audit/fingerprint/v1", string(key)))
	return hex.EncodeToString(sum[:16])
}

// Commitment binds an erasure to a person: who has the salt can check that it is about
// an identifier, and nobody else can guess one (docs/format-lifecycle.md §7.9).
func Commitment(salt []byte, identifier string) string {
	sum := sha256.Sum256(info("kaizen-audit/subject/v1", string(salt), identifier))
	return hex.EncodeToString(sum[:])
}
