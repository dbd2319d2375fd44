// Package verify checks a trail from its public files: lines, entry bundles,
// tiles, checkpoints. It shares formats with the writer (docs/format.md), not
// code: it imports nothing of ours but what tells lawful gaps from missing lines, so
// that a mistake there is not repeated here. It needs no private key, writes nothing and repairs nothing.
//
// Lines, bundles and tiles each give a root (RFC 6962 §2.1). What gives the
// signed one is true, and the others are held against it: that names the
// artefact and the first bad index. Where none does, the kept checkpoints
// narrow it to a range.
//
//	verify.go    what is trusted, the checkpoints, the verdict
//	segments.go  which files have the lines
//	lines.go     lines to leaf hashes, in order, on all cores
//	scan.go      leaf hashes to roots, tiles compared on the way
//	locate.go    where lines are not what was signed, and what happened there
//	files.go     the formats
//
// A trail may be written meanwhile. Checkpoints are read first and lines
// after, so lines are never behind them; what a writer replaces while it is
// being read is looked for again. An intact trail is never accused.
//
// What a hostile file can't do: take memory beyond a bound, or hold the check
// up by being a pipe. What it can do is make it read on: a log may be as long
// as a disk.
package verify
