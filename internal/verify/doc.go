// Package verify checks a trail from its public files: lines, entry bundles,
// tiles, checkpoints. It shares formats with the writer (docs/format.md), not
// code: it imports nothing of ours, so that a mistake there is not repeated
// here. It needs no private key, writes nothing and repairs nothing.
//
// Lines, bundles and tiles each give a root. What gives the signed one is
// true, and the others are held against it: that names the artefact and the
// first bad index. Where none does, the kept checkpoints narrow it to a range.
//
// A trail may be written meanwhile. Checkpoints are read first and lines
// after, so lines are never behind them; what a writer replaces while it is
// being read is looked for again. An intact trail is never accused.
package verify
