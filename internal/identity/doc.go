// Package identity owns the pseudonyms of a trail: who has one, and whose it
// is. docs/format.md §8 is its format on disk.
//
// An identifier (a user's id, say) gets a pseudonym the first time it is asked
// for, and keeps it: 64 hex digits,
//
//	mac       = the first 24 bytes of HMAC-SHA-256(pseudonym key, salt ‖ identifier)
//	pseudonym = mac ‖ the first 8 bytes of HMAC-SHA-256(check key, mac)
//
// The last 8 bytes let the trail know its own pseudonyms from other text. The
// keys are derived from keys/identity.key, which is the trail's own. The salt is
// 16 random bytes of this identifier's own. It lies, with the identifier,
// in a box (internal/seal) in identity/<name>, where the name is a keyed hash of
// the identifier: from an identifier one file is read to its pseudonym.
//
// What is always true:
//
//  1. A pseudonym that was given out is on disk: its file is synced, and so is
//     its name. An entry that uses it is written later.
//  2. One identifier has one pseudonym as long as its file is there, in every
//     process. Only the trail's holder makes one; anybody who may read keys/
//     and identity/ can look one up.
//  3. The pseudonym can't be computed without the file, also by who has the key
//     and guesses the identifier: Forget removes the file, and what stands in
//     the lines names nobody any more, in this trail and in every copy that
//     has no copy of the file. A new pseudonym for the same identifier has
//     nothing in common with it.
//  4. No identifier is in an error or in a file's name, and none is in the
//     clear in a file.
//
// It does not protect against whoever can read keys/ and identity/: they can
// open every box. The length of an identifier shows to 16 bytes, and how many
// there are.
//
// A Store is safe for concurrent use.
package identity
