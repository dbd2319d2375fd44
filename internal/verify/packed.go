package verify

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
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

// packedFault is the first packed tile that is not what was signed, or one that should be
// there and is not. What was signed of a tile, but not of each of its entries, the tiles
// of level 1 say; nil where those give no signed root, or nothing is wrong.
func (v *verification) packedFault(ctx context.Context, h head) (*Finding, error) {
	s := newHasher()
	tree := frontier{hasher: s}
	var fault *Finding
	var above tile
	var aboveBuf, buf tileBuffer
	whole := h.size / tileWidth
	for n := int64(0); n < whole; n++ {
		err := ctx.Err()
		if err == nil && n%tileWidth == 0 {
			above, _, err = v.proofs.tile(1, n/tileWidth, int(min(tileWidth, whole-n)), &aboveBuf)
		}
		if ctx.Err() != nil || refused(err) {
			return nil, err
		}
		if err != nil {
			return nil, nil
		}
		want := *above.hash(int(n % tileWidth))
		if fault == nil {
			if fault, err = v.packedAgainst(n, want, s, &buf); err != nil {
				return nil, err
			}
		}
		if err := tree.add(1, want, nil); err != nil {
			return nil, err
		}
	}
	var edge []hash
	if width := int(h.size % tileWidth); width > 0 {
		t, _, err := v.proofs.tile(0, whole, width, &buf)
		if refused(err) {
			return nil, err
		}
		if err != nil {
			return nil, nil
		}
		for i := range width {
			edge = append(edge, *t.hash(i))
		}
	}
	if tree.root(edge) != h.root {
		return nil, nil
	}
	return fault, nil
}

// packedAgainst holds tile n against its root, as far as it is packed or missing.
func (v *verification) packedAgainst(n int64, want hash, s *hasher, buf *tileBuffer) (*Finding, error) {
	t, file, err := v.proofs.tile(bundles, n, tileWidth, buf)
	problem := ""
	switch {
	case refused(err):
		return nil, err
	case errors.Is(err, fs.ErrNotExist):
		problem = Missing
	case !strings.HasPrefix(file, packedDir):
		return nil, nil // compared elsewhere
	case err != nil:
		problem = Unparsable
	default:
		leaves := make([]hash, tileWidth)
		for i := range leaves {
			leaves[i] = t.leaf(s, i)
		}
		if s.reduce(leaves) == want {
			return nil, nil
		}
		problem = Changed
	}
	f := Finding{Artefact: Bundle, File: file, Problem: problem,
		Detail: fmt.Sprintf("%s is %s: the digests of entries %d to %d are not what was signed", file, problem, n*tileWidth, (n+1)*tileWidth-1)}.at(n*tileWidth, false)
	return &f, nil
}
