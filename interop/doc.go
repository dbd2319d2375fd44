// Package interop has other people's programs judge a trail: tessera's fsck as
// a library and as the stock command, torchwood's client, x/mod's signed notes
// and tree proofs, and a page of Python. Each accepts an intact trail of more
// than 100,000 entries over several segments and refuses a damaged copy.
//
// It is a module of its own so that the trail does not depend on its judges.
package interop
