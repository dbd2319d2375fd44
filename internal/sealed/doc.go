// Package sealed makes of a plain line the line that is stored, and of a stored
// line what its reader may see (docs/format-sealing.md §6.3 to §6.5): which
// fields are sealed, for whom, and whether the whole line is.
//
// What is always true:
//
//  1. A line that Seal gives needs no key that is not durable once Sync returned.
//  2. Opening and putting every field back gives the plain line, plus
//     policy.sealed.
//  3. Only strings at pointers that policy.sealed lists are envelopes, and only if
//     all of the list is in order; everything else is a caller's text.
//  4. A field that does not open keeps its member's type: what is shown in its
//     place says why, and nothing of what it was.
//
// A Sealer and an Opener are safe for concurrent use. Keys and their keeping are
// those of package keys.
package sealed
