// Package tree turns line digests into an RFC 6962 Merkle tree, its C2SP
// tiles and its signed checkpoints, and makes and checks proofs. It never sees
// a line's content.
//
// A [Builder] holds the right edge of the tree and the tiles that are full but
// not yet written; it is memory only. A [Store] puts tiles, entry bundles and
// checkpoints on disk, in the order of docs/format.md §2: tiles are durable
// before the checkpoint that needs them is in place.
//
// What is always true:
//
//  1. A checkpoint is written only for a root that the builder computed from
//     the digests it was given, in their order; sizes never go down. Two
//     checkpoints of one store are therefore always consistent.
//  2. When the checkpoint file has size n, every full tile and bundle below n
//     and the partial ones that n implies are durable.
//  3. A partial tile goes only after its full tile is durable and covered.
//  4. A full tile or bundle goes only after a packed file that stands for it is
//     durable.
//
// Builder and Store are not safe for concurrent use. A [Snapshot] is what
// crosses from one to the other, so that leaves are added while tiles are
// written.
package tree

import (
	"crypto/sha256"
	"fmt"
	"strings"
)

// Hash is a SHA-256 hash.
type Hash = [sha256.Size]byte

const (
	// TileWidth is how many hashes a full tile has (c2sp.org/tlog-tiles).
	TileWidth  = 256
	tileHeight = 8
	// entryBytes is one entry of a bundle: a big-endian uint16 length, 32,
	// and the line digest.
	entryBytes = 2 + sha256.Size
)

// LeafHash is SHA-256(0x00 || digest), RFC 6962 §2.1.
func LeafHash(digest Hash) Hash {
	var b [1 + sha256.Size]byte
	copy(b[1:], digest[:])
	return sha256.Sum256(b[:])
}

// nodeHash is SHA-256(0x01 || left || right), RFC 6962 §2.1.
func nodeHash(left, right *Hash) Hash {
	var b [1 + 2*sha256.Size]byte
	b[0] = 1
	copy(b[1:], left[:])
	copy(b[1+sha256.Size:], right[:])
	return sha256.Sum256(b[:])
}

// EmptyRoot is the root of the tree without leaves: SHA-256 of nothing.
var EmptyRoot = Hash(sha256.Sum256(nil))

// Bundles is the level at which Path names entry bundles.
const Bundles = -1

// Path is the path of a tile below the trail's directory
// (c2sp.org/tlog-tiles). A width of 0 or TileWidth means the full tile.
func Path(level int, n int64, width int) string {
	var b strings.Builder
	if level == Bundles {
		b.WriteString("tile/entries/")
	} else {
		fmt.Fprintf(&b, "tile/%d/", level)
	}
	var groups []int64
	for rest := n; ; rest /= 1000 {
		groups = append(groups, rest%1000)
		if rest < 1000 {
			break
		}
	}
	for i := len(groups) - 1; i >= 0; i-- {
		if i > 0 {
			fmt.Fprintf(&b, "x%03d/", groups[i])
		} else {
			fmt.Fprintf(&b, "%03d", groups[i])
		}
	}
	if width != 0 && width != TileWidth {
		fmt.Fprintf(&b, ".p/%d", width)
	}
	return b.String()
}
