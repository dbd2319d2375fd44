// Package seal makes and opens sealed fields, sealed lines and wrapped keys,
// to the byte as docs/format-sealing.md says. It is pure: bytes and keys in,
// bytes out; keys, salts and their keeping are the caller's. All of it is
// safe for concurrent use and runs with GODEBUG=fips140=only.
//
// # One box
//
// Everything sealed is one construction under a key K that is used for one
// box only:
//
//	enc ‖ mac  = HKDF-Expand-SHA-256(K, "kaizen-audit/box/v1", 64)
//	body       = data ‖ method ‖ zeros
//	tag        = HMAC-SHA-256(mac, lp(info) ‖ body)
//	ciphertext = AES-256-CTR(enc, first counter block = tag[0:16], body)
//	box        = tag ‖ ciphertext
//
// It is the synthetic-IV mode of RFC 5297 with HMAC-SHA-256 as its PRF. The
// tag authenticates, and it commits to K: a second key that opens the same box
// is a collision of SHA-256 (2^128 operations), so that K can be handed out for
// one box and checked by a stranger. A K that was used twice by mistake tells
// whether the two bodies are equal, and nothing else. AES-GCM does neither;
// see docs/decisions/0001-sealed-field.md.
//
// # What it does not protect against
//
// The length of a body shows, to 16 bytes or 1/16; so does which lines have a
// subject in common, by handle. Key bytes are not wiped from memory: Go gives
// no promise about copies.
package seal
