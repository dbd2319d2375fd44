// Package witness puts proof where the writer can't reach it: sinks, places
// outside the trail's directory to which every new checkpoint is sent; witnesses
// (c2sp.org/tlog-witness), which cosign a checkpoint that extends what they have
// seen; and authorities whose timestamps (RFC 3161) say when one was there.
//
// What an outside party says of a checkpoint is a [Statement]. It is checked when
// it comes and again each time it is read, with the party's own key, so that it may
// be kept anywhere. A witness of our own is a [Server].
//
// Nothing here knows a trail: callers hand over signed checkpoints and proofs.
package witness
