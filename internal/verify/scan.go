package verify

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"slices"
	"sync"
)

type hash = [sha256.Size]byte

// tileWidth is how many hashes a full tile has (c2sp.org/tlog-tiles).
const tileWidth = 256

// leafOf is SHA-256(0x00 || digest), RFC 6962 §2.1.
func leafOf(digest *hash) hash {
	var b [1 + sha256.Size]byte
	copy(b[1:], digest[:])
	return sha256.Sum256(b[:])
}

// nodeOf is SHA-256(0x01 || left || right), RFC 6962 §2.1.
func nodeOf(left, right *hash) hash {
	var b [1 + 2*sha256.Size]byte
	b[0] = 1
	copy(b[1:], left[:])
	copy(b[1+sha256.Size:], right[:])
	return sha256.Sum256(b[:])
}

// reduce gives the root of a power of two of hashes, which it overwrites.
func reduce(h []hash) hash {
	for n := len(h); n > 1; n /= 2 {
		for i := range n / 2 {
			h[i] = nodeOf(&h[2*i], &h[2*i+1])
		}
	}
	return h[0]
}

// frontier is the right edge of the tree in tiles: levels[l] are the hashes of
// the tile at level l that is not full yet.
type frontier struct {
	levels [][]hash
	// full is told of every tile that fills, before it goes.
	full func(level int, n int64, tile []hash) error
	n    []int64 // tiles that were full, by level
}

func (f *frontier) add(level int, h hash) error {
	for len(f.levels) <= level {
		f.levels, f.n = append(f.levels, nil), append(f.n, 0)
	}
	f.levels[level] = append(f.levels[level], h)
	tile := f.levels[level]
	if len(tile) < tileWidth {
		return nil
	}
	if f.full != nil {
		if err := f.full(level, f.n[level], tile); err != nil {
			return err
		}
	}
	f.n[level]++
	root := reduce(tile)
	f.levels[level] = tile[:0]
	return f.add(level+1, root)
}

// root is that of the tree with these leaves added to the full tiles.
func (f *frontier) root(leaves []hash) hash {
	var acc *hash
	levels := append([][]hash{leaves}, f.levels[min(1, len(f.levels)):]...)
	for _, level := range levels {
		end := len(level)
		for bit := 1; bit <= end; bit <<= 1 {
			if end&bit == 0 {
				continue
			}
			r := reduce(slices.Clone(level[end-bit : end]))
			if acc != nil {
				r = nodeOf(&r, acc)
			}
			acc, end = &r, end-bit
		}
	}
	if acc == nil {
		return sha256.Sum256(nil)
	}
	return *acc
}

// stop says where and why the lines of a trail can't be followed further.
type stop struct {
	at      int64 // the index that was due
	to      int64 // where lines go on; -1: not known
	file    string
	problem string
}

// walked is what a walk over all lines found.
type walked struct {
	lines int64 // complete ones, up to stop if there is one
	torn  int64
	stop  *stop
}

// walk gives f every complete line in order, with the bytes of lines so far.
// Damage that keeps it from going on is in walked; the error is f's, or that
// the operating system refused a file.
func walk(ctx context.Context, list []segment, f func(index int64, line []byte) error) (w walked, err error) {
	if len(list) == 0 || list[len(list)-1].open == nil {
		defer func() {
			if err == nil && w.stop == nil {
				w.stop = &stop{w.lines, -1, "", Truncated} // the open segment is gone
			}
		}()
	}
	for i := range list {
		s := &list[i]
		if s.first >= 0 && s.first != w.lines {
			w.stop = &stop{w.lines, s.first, s.short, Missing}
			if s.first < w.lines {
				w.stop = &stop{s.first, -1, s.short, Inserted}
			}
			return w, nil
		}
		r, err := s.reader()
		if errors.Is(err, fs.ErrNotExist) {
			w.stop = &stop{w.lines, -1, s.short, Missing}
			return w, nil
		}
		if err != nil {
			return w, err
		}
		torn, bad, err := eachLine(ctx, r, func(line []byte) error {
			err := f(w.lines, line)
			w.lines++
			return err
		})
		r.Close()
		if err != nil {
			return w, err
		}
		if bad || torn > 0 && s.open == nil {
			to := int64(-1)
			if i+1 < len(list) {
				to = list[i+1].first
			}
			w.stop = &stop{w.lines, to, s.short, Changed}
			return w, nil
		}
		w.torn = torn
	}
	return w, nil
}

// eachLine gives f every complete line of r. bad says that r can't be decoded
// further.
func eachLine(ctx context.Context, r io.Reader, f func(line []byte) error) (torn int64, bad bool, err error) {
	buf := make([]byte, 0, 1<<20)
	for {
		if len(buf) == cap(buf) {
			buf = slices.Grow(buf, cap(buf))
		}
		if err := ctx.Err(); err != nil {
			return 0, false, err
		}
		n, readErr := r.Read(buf[len(buf):cap(buf)])
		from := len(buf)
		buf = buf[:from+n]
		rest := buf
		for {
			i := bytes.IndexByte(rest[from:], '\n')
			if i < 0 {
				break
			}
			i += from
			if err := f(rest[:i]); err != nil {
				return 0, false, err
			}
			rest, from = rest[i+1:], 0
		}
		buf = buf[:copy(buf[:cap(buf)], rest)]
		var path *fs.PathError
		switch {
		case readErr == io.EOF:
			return int64(len(buf)), false, nil
		case errors.As(readErr, &path):
			return 0, false, readErr
		case readErr != nil:
			return int64(len(buf)), true, nil
		}
	}
}

// jobLines is how many lines a worker gets at a time: 16 tiles. Fewer cost
// more hand-overs, more cost memory; the rate is flat from 1024 to 16384.
const jobLines = 16 * tileWidth

// job is lines on their way through a worker to the combiner, which takes
// them in order.
type job struct {
	first  int64
	buf    []byte
	ends   []int
	leaves []hash // of all its lines
	roots  []hash // of its full groups of tileWidth
	faults []fault
	err    error
	done   chan struct{}
}

// fault is a bundle or tile that is not what the lines give.
type fault struct {
	artefact, file, problem string
	index                   int64
}

// found is what the scan of all lines gives.
type found struct {
	walked
	roots  map[int64]hash // at the sizes that were asked for and reached
	faults []fault        // by bundles and tiles below the limit
}

// scan hashes the lines below limit with all workers, compares bundles and
// tiles with them on the way, and gives the roots at the sizes, ascending.
func scan(ctx context.Context, list []segment, p proofs, limit int64, sizes []int64, opts Options) (found, error) {
	workers := opts.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	todo := make(chan *job, workers)
	order := make(chan *job, 4*workers)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for j := range todo {
				j.err = j.hash(p)
				close(j.done)
			}
		})
	}
	pool := sync.Pool{New: func() any { return &job{} }}

	out := found{roots: map[int64]hash{}}
	c := combiner{proofs: p, limit: limit, sizes: sizes, out: &out}
	combined := make(chan error, 1)
	go func() {
		var err error
		for j := range order {
			<-j.done
			if err == nil {
				if err = j.err; err == nil {
					err = c.take(j)
				}
				if err != nil {
					cancel(err)
				}
			}
			pool.Put(j)
		}
		if err == nil {
			err = c.finish()
		}
		combined <- err
	}()

	total := int64(0)
	for _, s := range list {
		total += s.bytes
	}
	var done, told int64
	next := func(first int64) *job {
		j := pool.Get().(*job)
		*j = job{first: first, buf: j.buf[:0], ends: j.ends[:0], leaves: j.leaves[:0], roots: j.roots[:0], done: make(chan struct{})}
		return j
	}
	send := func(j *job) {
		order <- j
		todo <- j
	}
	cur := next(0)
	w, err := walk(ctx, list, func(index int64, line []byte) error {
		if done += int64(len(line)) + 1; opts.Progress != nil && done-told >= 8<<20 {
			told = done
			opts.Progress(done, max(total, done))
		}
		if index >= limit {
			return nil
		}
		cur.buf = append(cur.buf, line...)
		cur.ends = append(cur.ends, len(cur.buf))
		if len(cur.ends) == jobLines {
			send(cur)
			cur = next(index + 1)
		}
		return nil
	})
	if err == nil && len(cur.ends) > 0 {
		send(cur)
	}
	close(todo)
	close(order)
	wg.Wait()
	combineErr := <-combined
	if opts.Progress != nil {
		opts.Progress(done, done)
	}
	out.walked = w
	if combineErr != nil {
		return out, combineErr
	}
	if err == nil {
		slices.SortStableFunc(out.faults, func(a, b fault) int { return int(min(max(a.index-b.index, -1), 1)) })
	}
	return out, err
}

// hash computes digests, leaves and group roots, and compares the full bundles
// and level-0 tiles.
func (j *job) hash(p proofs) error {
	var digests [tileWidth]hash
	var group [tileWidth]hash
	from := 0
	for i, end := range j.ends {
		k := i % tileWidth
		digests[k] = sha256.Sum256(j.buf[from:end])
		from = end
		j.leaves = append(j.leaves, leafOf(&digests[k]))
		if k < tileWidth-1 {
			continue
		}
		n := (j.first + int64(i)) / tileWidth
		if err := compare(p, bundles, n, digests[:], &j.faults); err != nil {
			return err
		}
		copy(group[:], j.leaves[i-tileWidth+1:])
		if err := compare(p, 0, n, group[:], &j.faults); err != nil {
			return err
		}
		j.roots = append(j.roots, reduce(group[:]))
	}
	// The last group of a trail is not full; its bundle is compared here too.
	if rest := len(j.ends) % tileWidth; rest > 0 {
		return compare(p, bundles, (j.first+int64(len(j.ends)))/tileWidth, digests[:rest], &j.faults)
	}
	return nil
}

// compare holds a tile or bundle against what the lines give.
func compare(p proofs, level int, n int64, want []hash, faults *[]fault) error {
	got, file, err := p.tile(level, n, len(want))
	if refused(err) {
		return err
	}
	each := int64(1)
	artefact := Tile
	if level == bundles {
		artefact = Bundle
	}
	for range level {
		each *= tileWidth
	}
	f := fault{artefact: artefact, file: file, index: n * tileWidth * each}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f.problem = Missing
	case err != nil:
		f.problem = Unparsable
	default:
		i := 0
		for i < len(want) && got[i] == want[i] {
			i++
		}
		if i == len(want) {
			return nil
		}
		f.problem = Changed
		f.index += int64(i) * each
	}
	*faults = append(*faults, f)
	return nil
}

// combiner folds the jobs, in order, into the tree.
type combiner struct {
	proofs proofs
	limit  int64
	sizes  []int64
	out    *found
	tree   frontier
	rest   []hash // leaves of the last group, which is not full
	count  int64
}

func (c *combiner) take(j *job) error {
	if c.tree.full == nil {
		c.tree.full = func(level int, n int64, tile []hash) error {
			return compare(c.proofs, level, n, tile, &c.out.faults)
		}
		c.tree.levels, c.tree.n = [][]hash{nil}, []int64{0}
	}
	c.out.faults = append(c.out.faults, j.faults...)
	for g := 0; g*tileWidth < len(j.leaves); g++ {
		leaves := j.leaves[g*tileWidth : min((g+1)*tileWidth, len(j.leaves))]
		at := j.first + int64(g*tileWidth)
		c.reach(at, leaves)
		if len(leaves) == tileWidth {
			if err := c.tree.add(1, j.roots[g]); err != nil {
				return err
			}
		} else {
			c.rest = slices.Clone(leaves)
		}
		c.count = at + int64(len(leaves))
	}
	return nil
}

// reach computes the roots that are asked for at sizes in this group of
// leaves.
func (c *combiner) reach(at int64, leaves []hash) {
	for len(c.sizes) > 0 && c.sizes[0] <= at+int64(len(leaves)) {
		size := c.sizes[0]
		if size < at || size == at+tileWidth {
			break
		}
		c.out.roots[size] = c.tree.root(leaves[:size-at])
		c.sizes = c.sizes[1:]
	}
}

// finish compares the tiles that are not full, and gives the last roots.
func (c *combiner) finish() error {
	for len(c.sizes) > 0 && c.sizes[0] == c.count {
		c.out.roots[c.count] = c.tree.root(c.rest)
		c.sizes = c.sizes[1:]
	}
	if c.count != c.limit {
		return nil // fewer lines than there should be: tiles are not the news
	}
	if len(c.rest) > 0 {
		if err := compare(c.proofs, 0, c.count/tileWidth, c.rest, &c.out.faults); err != nil {
			return err
		}
	}
	for level := 1; level < len(c.tree.levels); level++ {
		if tile := c.tree.levels[level]; len(tile) > 0 {
			if err := compare(c.proofs, level, c.tree.n[level], tile, &c.out.faults); err != nil {
				return err
			}
		}
	}
	return nil
}

// proofRoot is the root that bundles or level-0 tiles give at a size; ok is
// false where one is missing or broken.
func proofRoot(ctx context.Context, p proofs, level int, size int64) (root hash, ok bool, err error) {
	var tree frontier
	tree.levels, tree.n = [][]hash{nil}, []int64{0}
	var rest []hash
	for n := int64(0); n*tileWidth < size; n++ {
		if err := ctx.Err(); err != nil {
			return root, false, err
		}
		width := int(min(tileWidth, size-n*tileWidth))
		hashes, _, err := p.tile(level, n, width)
		if refused(err) {
			return root, false, err
		}
		if err != nil {
			return root, false, nil
		}
		if level == bundles {
			for i := range hashes {
				hashes[i] = leafOf(&hashes[i])
			}
		}
		if width == tileWidth {
			if err := tree.add(1, reduce(hashes)); err != nil {
				return root, false, err
			}
		} else {
			rest = hashes
		}
	}
	return tree.root(rest), true, nil
}

// truth gives the leaf hashes of bundles or level-0 tiles one after the other.
type truth struct {
	proofs proofs
	level  int
	size   int64
	next   int64
	tile   []hash
}

func (t *truth) leaf() (hash, bool, error) {
	if t.next == t.size {
		return hash{}, false, nil
	}
	if t.next%tileWidth == 0 {
		var file string
		var err error
		if t.tile, file, err = t.proofs.tile(t.level, t.next/tileWidth, int(min(tileWidth, t.size-t.next))); err != nil {
			return hash{}, false, fmt.Errorf("%s: %w", file, err)
		}
		if t.level == bundles {
			for i := range t.tile {
				t.tile[i] = leafOf(&t.tile[i])
			}
		}
	}
	h := t.tile[t.next%tileWidth]
	t.next++
	return h, true, nil
}

func digestOf(line []byte) hash { return sha256.Sum256(line) }
