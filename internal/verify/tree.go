package verify

import (
	"crypto/sha256"
	stdhash "hash"
	"slices"
)

type hash = [sha256.Size]byte

// tileWidth is how many hashes a full tile has (c2sp.org/tlog-tiles).
const tileWidth = 256

// hasher computes hashes one after the other, in place: a tenth faster for
// texts as short as these than sha256.Sum256, which makes its state each time.
type hasher struct {
	sha  stdhash.Hash
	text [1 + 2*sha256.Size]byte
}

func newHasher() *hasher { return &hasher{sha: sha256.New()} }

// sum puts the hash of text into h, which may be part of it.
func (s *hasher) sum(h *hash, text []byte) {
	s.sha.Reset()
	s.sha.Write(text)
	s.sha.Sum(h[:0])
}

// leaf puts SHA-256(0x00 || digest) into h, RFC 6962 §2.1.
func (s *hasher) leaf(h, digest *hash) {
	s.text[0] = 0
	copy(s.text[1:], digest[:])
	s.sum(h, s.text[:1+len(digest)])
}

// node puts SHA-256(0x01 || left || right) into h, RFC 6962 §2.1.
func (s *hasher) node(h, left, right *hash) {
	s.text[0] = 1
	copy(s.text[1:], left[:])
	copy(s.text[1+len(left):], right[:])
	s.sum(h, s.text[:])
}

// reduce gives the root of a power of two of hashes, which it overwrites.
func (s *hasher) reduce(h []hash) hash {
	for n := len(h); n > 1; n /= 2 {
		for i := range n / 2 {
			s.node(&h[i], &h[2*i], &h[2*i+1])
		}
	}
	return h[0]
}

// frontier is the right edge of the tree above level 0, in tiles.
type frontier struct {
	hasher *hasher
	// above[l-1] are the hashes of the tile at level l that is not full yet,
	// filled[l-1] counts those that were.
	above  [][]hash
	filled []int64
}

// add adds the root of a full tile of the level below. Each tile that fills
// is shown to full, if there is one, before it goes.
func (f *frontier) add(level int, h hash, full func(level int, n int64, tile []hash) error) error {
	if len(f.above) < level {
		f.above, f.filled = append(f.above, nil), append(f.filled, 0)
	}
	tile := append(f.above[level-1], h)
	if len(tile) < tileWidth {
		f.above[level-1] = tile
		return nil
	}
	if full != nil {
		if err := full(level, f.filled[level-1], tile); err != nil {
			return err
		}
	}
	f.filled[level-1]++
	f.above[level-1] = tile[:0]
	return f.add(level+1, f.hasher.reduce(tile), full)
}

// root is that of the tree with fewer than tileWidth leaves added behind the
// full tiles. RFC 6962 §2.1: from the right, the perfect subtrees by the bits
// of each level's length; the empty tree's is the hash of nothing.
func (f *frontier) root(leaves []hash) hash {
	var acc *hash
	for level := -1; level < len(f.above); level++ {
		if level >= 0 {
			leaves = f.above[level]
		}
		end := len(leaves)
		for bit := 1; bit <= end; bit <<= 1 {
			if end&bit == 0 {
				continue
			}
			r := f.hasher.reduce(slices.Clone(leaves[end-bit : end]))
			if acc != nil {
				f.hasher.node(&r, &r, acc)
			}
			acc, end = &r, end-bit
		}
	}
	if acc == nil {
		return sha256.Sum256(nil)
	}
	return *acc
}
