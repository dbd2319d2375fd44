package verify

import (
	"fmt"
	"slices"
	"strconv"
	"sync"
)

// packedDir has the files that tiles of level 0 and bundles of what was pruned are
// packed into: line digests of entries that adjoin, named by the index of the first
// (docs/format.md §2.1).
const packedDir = "tile/packed"

// packedFiles are the first indexes of the packed files, as far as they were needed.
type packedFiles struct {
	mu     sync.Mutex
	firsts []int64 // ascending
}

// find gives the last packed file that begins at index or before. Where none is known
// the directory is looked at: a writer may pack meanwhile.
func (p *packedFiles) find(dir string, index int64, again bool) (first int64, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if again || p.firsts == nil {
		names, _ := namesIn(dir + "/" + packedDir) // what can't be listed has no tiles
		p.firsts = make([]int64, 0, len(names))
		for _, name := range names {
			if n, err := strconv.ParseInt(name, 10, 64); err == nil && n >= 0 && packedName(n) == name {
				p.firsts = append(p.firsts, n)
			}
		}
		slices.Sort(p.firsts)
	}
	i, found := slices.BinarySearch(p.firsts, index)
	switch {
	case found:
		return index, true
	case i == 0:
		return 0, false
	}
	return p.firsts[i-1], true
}

func packedName(first int64) string { return fmt.Sprintf("%020d", first) }

// unpack reads a full tile of level 0, or a bundle, out of the packed file that has it;
// ok is false where none has.
func (p proofs) unpack(level int, n int64, buf *tileBuffer) (t tile, file string, ok bool, err error) {
	var digests [tileWidth * len(hash{})]byte
	for _, again := range []bool{false, true} {
		first, some := p.packed.find(p.dir, n*tileWidth, again)
		if !some {
			continue
		}
		file = packedDir + "/" + packedName(first)
		got, err := readInto(p.dir+"/"+file, (n*tileWidth-first)*int64(len(hash{})), digests[:])
		switch {
		case refused(err):
			return tile{}, file, true, err
		case err != nil || got < len(digests):
			continue // it ends before the tile does
		}
		s := newHasher()
		each := entrySize(level)
		for i := range tileWidth {
			to := buf[i*each : (i+1)*each]
			d := hash(digests[i*len(hash{}):])
			if level == bundles {
				to[0], to[1] = 0, byte(len(hash{}))
				copy(to[2:], d[:])
			} else {
				s.leaf(&d, &d)
				copy(to, d[:])
			}
		}
		t, err = parseTile(level, tileWidth, buf[:tileWidth*each])
		return t, file, true, err
	}
	return tile{}, "", false, nil
}
