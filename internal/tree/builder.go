package tree

import (
	"crypto/sha256"
	"slices"
)

// Builder computes the tree of a growing list of line digests.
type Builder struct {
	size int64
	// levels[l] has the hashes of the partial tile at level l, fewer than
	// TileWidth of them.
	levels [][]Hash
	// bundle has the entries of the partial bundle; it is as long as
	// levels[0].
	bundle []byte

	// full are the tiles and bundles that are filled and not yet on disk;
	// dropped counts those that were, before them. With rootOnly none are
	// kept.
	full     []fullTile
	dropped  int64
	rootOnly bool
}

// Snapshot is the tree at one size, with the tiles that are to be written for
// it. It stays as it is while its builder goes on.
type Snapshot struct {
	Size int64
	Root Hash
	full []fullTile
	part []fullTile
	upTo int64 // of all the full tiles there ever were
}

// Missing reports whether full tiles of the snapshot are not on disk.
func (s Snapshot) Missing() bool { return len(s.full) > 0 }

// Snapshot takes the tree as it is now.
func (b *Builder) Snapshot() Snapshot {
	s := Snapshot{Size: b.size, Root: b.Root(), full: b.full[:len(b.full):len(b.full)], upTo: b.dropped + int64(len(b.full))}
	for level, hashes := range b.levels {
		if len(hashes) == 0 {
			continue
		}
		data := make([]byte, 0, len(hashes)*sha256.Size)
		for i := range hashes {
			data = append(data, hashes[i][:]...)
		}
		n := b.size >> (tileHeight * (level + 1))
		s.part = append(s.part, fullTile{level, n, data})
		if level == 0 {
			s.part = append(s.part, fullTile{Bundles, n, append([]byte(nil), b.bundle...)})
		}
	}
	return s
}

// Flushed forgets the full tiles of a snapshot that is on disk.
func (b *Builder) Flushed(s Snapshot) {
	if n := s.upTo - b.dropped; n > 0 {
		b.full = append([]fullTile(nil), b.full[n:]...)
		b.dropped = s.upTo
	}
}

type fullTile struct {
	level int
	n     int64
	data  []byte
}

// NewBuilder is an empty tree.
func NewBuilder() *Builder { return &Builder{levels: [][]Hash{nil}} }

// RootOnly makes the builder forget the tiles it fills: only size and root
// are wanted.
func (b *Builder) RootOnly() *Builder {
	b.rootOnly = true
	return b
}

// Fork is a builder of the same leaves that goes on by itself, for size and root only.
func (b *Builder) Fork() *Builder {
	f := &Builder{size: b.size, bundle: slices.Clone(b.bundle), rootOnly: true}
	for _, level := range b.levels {
		f.levels = append(f.levels, slices.Clone(level))
	}
	return f
}

// Size is the number of leaves.
func (b *Builder) Size() int64 { return b.size }

// Append adds leaves.
func (b *Builder) Append(digests ...Hash) {
	for i := range digests {
		b.bundle = append(b.bundle, 0, sha256.Size)
		b.bundle = append(b.bundle, digests[i][:]...)
		b.levels[0] = append(b.levels[0], LeafHash(digests[i]))
		b.size++
		if len(b.levels[0]) == TileWidth {
			b.close(Bundles, b.size/TileWidth-1, b.bundle)
			b.bundle = b.bundle[:0]
			b.carry(0, b.size/TileWidth)
		}
	}
}

func (b *Builder) close(level int, n int64, data []byte) {
	if !b.rootOnly {
		b.full = append(b.full, fullTile{level, n, append([]byte(nil), data...)})
	}
}

// carry moves the full tile at level l, the n-th, into the level above.
func (b *Builder) carry(l int, n int64) {
	tile := b.levels[l]
	if !b.rootOnly {
		data := make([]byte, 0, TileWidth*sha256.Size)
		for i := range tile {
			data = append(data, tile[i][:]...)
		}
		b.full = append(b.full, fullTile{l, n - 1, data})
	}
	root := perfect(tile)
	b.levels[l] = tile[:0]
	if l+1 == len(b.levels) {
		b.levels = append(b.levels, nil)
	}
	b.levels[l+1] = append(b.levels[l+1], root)
	if len(b.levels[l+1]) == TileWidth {
		b.carry(l+1, n/TileWidth)
	}
}

// perfect is the root of a power of two of hashes, which it overwrites.
func perfect(h []Hash) Hash {
	for n := len(h); n > 1; n /= 2 {
		for i := range n / 2 {
			h[i] = nodeHash(&h[2*i], &h[2*i+1])
		}
	}
	return h[0]
}

// Root is the tree's root hash, RFC 6962 §2.1.
func (b *Builder) Root() Hash {
	if b.size == 0 {
		return EmptyRoot
	}
	// From the right: the last hash of a level is the smallest subtree. A
	// level's hashes fall into perfect subtrees by the bits of their number.
	var acc *Hash
	var scratch [TileWidth]Hash
	for _, level := range b.levels {
		end := len(level)
		for bit := 1; bit <= end; bit <<= 1 {
			if end&bit == 0 {
				continue
			}
			start := end - bit
			sub := scratch[:copy(scratch[:], level[start:end])]
			root := perfect(sub)
			if acc != nil {
				root = nodeHash(&root, acc)
			}
			acc = &root
			end = start
		}
	}
	return *acc
}
