// Package signing keeps the keys that sign a trail: in a file beside it (File), or in
// another process, a signer (Server), which the trail's writer asks over a Unix
// socket (Remote).
//
// A signer is more than a key that lies elsewhere. It keeps the checkpoint that it has
// signed last, and signs another only with the proof that the two are of one history
// (RFC 6962 §2.1.2). So whoever owns the writer can extend the trail, and can't have
// anything before rewritten, not with the signer's help and not without it. What it
// signs besides are lifecycle entries of this trail, which say nothing until a
// checkpoint covers them, and rotations between its own keys. Nothing else: the three
// are told apart by their form, and no text has two of them.
//
// One signer is for one trail. Its directory is its own: a copy of it from before, put
// back, signs a second history.
package signing
