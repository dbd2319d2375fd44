package verify

import (
	"bytes"
	"cmp"
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

// blockBytes is how much of a segment a worker gets at a time. Blocks from
// 256 KiB to 4 MiB gave the same rate; smaller ones cost more hand-overs.
const blockBytes = 1 << 20

// job is a piece of the trail on its way through a worker to the combiner,
// which takes the pieces in order.
type job struct {
	// begins and ends say that a segment does, before or after the lines.
	begins, ends *segment
	torn         int64 // at the end of a segment: bytes after its last newline
	bad          bool  // it can't be decoded further
	missing      bool  // its file is gone

	buf     []byte // whole lines
	digests []hash
	leaves  []hash
	done    chan struct{}
}

// hash computes digests and leaves of a job's lines.
func (j *job) hash() {
	for rest := j.buf; len(rest) > 0; {
		i := bytes.IndexByte(rest, '\n')
		d := sha256.Sum256(rest[:i])
		j.digests = append(j.digests, d)
		j.leaves = append(j.leaves, leafOf(&d))
		rest = rest[i+1:]
	}
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

// scan hashes the lines with all workers, compares bundles and tiles with
// those below limit on the way, and gives the roots at the sizes, ascending.
// A reader cuts segments into blocks of whole lines, workers hash them, a
// combiner folds them in order into the tree.
func scan(ctx context.Context, list []segment, p proofs, limit int64, sizes []int64, opts Options) (found, error) {
	workers := opts.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	todo := make(chan *job, workers)
	order := make(chan *job, 4*workers)
	free := make(chan *job, 8*workers)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for j := range todo {
				j.hash()
				close(j.done)
			}
		})
	}
	out := found{roots: map[int64]hash{}}
	c := combiner{proofs: p, limit: limit, sizes: sizes, out: &out}
	var combineErr error
	var combined sync.WaitGroup
	combined.Go(func() {
		for j := range order {
			<-j.done
			if combineErr == nil && out.stop == nil {
				if combineErr = c.take(j); combineErr != nil || out.stop != nil {
					cancel() // nothing behind it matters
				}
			}
			select {
			case free <- j:
			default:
			}
		}
		if combineErr == nil {
			combineErr = c.finish()
		}
	})
	b := blocks{ctx: ctx, todo: todo, order: order, free: free, progress: opts.Progress}
	for _, s := range list {
		b.total += s.bytes
	}
	var readErr error
	for i := range list {
		if readErr = b.segment(&list[i]); readErr != nil {
			break
		}
	}
	close(todo)
	close(order)
	wg.Wait()
	combined.Wait()
	if opts.Progress != nil {
		opts.Progress(b.done, b.done)
	}
	out.lines = c.count + c.beyond
	switch {
	case combineErr != nil:
		return out, combineErr
	case readErr != nil && out.stop == nil:
		return out, readErr
	}
	if out.stop == nil && (len(list) == 0 || list[len(list)-1].open == nil) {
		out.stop = &stop{out.lines, -1, "", Truncated} // the open segment is gone
	}
	slices.SortStableFunc(out.faults, func(a, b fault) int { return cmp.Compare(a.index, b.index) })
	return out, nil
}

// blocks reads segments into jobs.
type blocks struct {
	ctx         context.Context
	todo, order chan<- *job
	free        <-chan *job
	progress    func(done, total int64)
	done, total int64
	told        int64
}

func (b *blocks) job() *job {
	select {
	case j := <-b.free:
		*j = job{buf: j.buf[:0], digests: j.digests[:0], leaves: j.leaves[:0], done: make(chan struct{})}
		return j
	default:
		return &job{buf: make([]byte, 0, blockBytes), done: make(chan struct{})}
	}
}

func (b *blocks) send(j *job) {
	b.order <- j
	b.todo <- j
}

// segment sends the lines of one segment. The error is ctx's, or that the
// operating system refused the file.
func (b *blocks) segment(s *segment) error {
	j := b.job()
	j.begins = s
	r, err := s.reader()
	if errors.Is(err, fs.ErrNotExist) {
		j.missing = true
		b.send(j)
		return nil
	}
	if err != nil {
		b.send(j)
		return err
	}
	defer r.Close()
	for {
		if err := b.ctx.Err(); err != nil {
			j.buf = j.buf[:0] // it may end inside a line
			b.send(j)
			return err
		}
		if len(j.buf) == cap(j.buf) { // a line that is longer than a block
			j.buf = slices.Grow(j.buf, cap(j.buf))
		}
		n, err := r.Read(j.buf[len(j.buf):cap(j.buf)])
		j.buf = j.buf[:len(j.buf)+n]
		b.told += int64(n)
		if b.done += int64(n); b.progress != nil && b.told >= 8<<20 {
			b.told = 0
			b.progress(b.done, max(b.total, b.done))
		}
		if err == nil && len(j.buf) < cap(j.buf) {
			continue
		}
		cut := bytes.LastIndexByte(j.buf, '\n') + 1
		var refused *fs.PathError
		switch {
		case errors.As(err, &refused):
			j.buf = j.buf[:0]
			b.send(j)
			return err
		case err != nil:
			j.ends, j.bad, j.torn = s, err != io.EOF, int64(len(j.buf)-cut)
			j.buf = j.buf[:cut]
			b.send(j)
			return nil
		case cut > 0:
			next := b.job()
			next.buf = append(next.buf, j.buf[cut:]...)
			j.buf = j.buf[:cut]
			b.send(j)
			j = next
		}
	}
}

// combiner folds the jobs, in order, into the tree.
type combiner struct {
	proofs proofs
	limit  int64
	sizes  []int64
	out    *found
	tree   frontier
	// The last group of leaves, which is not full, and its digests.
	leaves, digests []hash
	count           int64 // leaves taken
	beyond          int64 // lines past the limit
	raw             []byte
}

func (c *combiner) take(j *job) error {
	if c.tree.full == nil {
		c.tree.full = func(level int, n int64, tile []hash) error { return c.compare(level, n, tile) }
		c.tree.levels, c.tree.n = [][]hash{nil}, []int64{0}
	}
	if s := j.begins; s != nil {
		switch lines := c.count + c.beyond; {
		case j.missing:
			c.out.stop = &stop{lines, -1, s.short, Missing}
			return nil
		case s.first >= 0 && s.first > lines:
			c.out.stop = &stop{lines, s.first, s.short, Missing}
			return nil
		case s.first >= 0 && s.first < lines:
			c.out.stop = &stop{s.first, -1, s.short, Inserted}
			return nil
		}
	}
	take := int(min(int64(len(j.leaves)), c.limit-c.count))
	c.beyond += int64(len(j.leaves) - take)
	leaves, digests := j.leaves[:take], j.digests[:take]
	for len(leaves) > 0 {
		n := min(tileWidth-len(c.leaves), len(leaves))
		c.leaves, c.digests = append(c.leaves, leaves[:n]...), append(c.digests, digests[:n]...)
		leaves, digests = leaves[n:], digests[n:]
		c.count += int64(n)
		c.reach()
		if len(c.leaves) < tileWidth {
			break
		}
		tile := c.count/tileWidth - 1
		if err := c.compare(bundles, tile, c.digests); err != nil {
			return err
		}
		if err := c.compare(0, tile, c.leaves); err != nil {
			return err
		}
		if err := c.tree.add(1, reduce(c.leaves)); err != nil {
			return err
		}
		c.leaves, c.digests = c.leaves[:0], c.digests[:0]
	}
	if s := j.ends; s != nil {
		if j.bad || j.torn > 0 && s.open == nil {
			c.out.stop = &stop{c.count + c.beyond, -1, s.short, Changed}
		}
		c.out.torn = j.torn
	}
	return nil
}

// reach computes the roots that are asked for at sizes up to what was taken;
// the last group of leaves is not in the tree yet.
func (c *combiner) reach() {
	for len(c.sizes) > 0 && c.sizes[0] <= c.count {
		size := c.sizes[0]
		c.out.roots[size] = c.tree.root(c.leaves[:int64(len(c.leaves))-(c.count-size)])
		c.sizes = c.sizes[1:]
	}
}

// finish compares the tiles that are not full.
func (c *combiner) finish() error {
	c.reach() // size 0 of a trail without lines
	if c.count != c.limit {
		return nil // fewer lines than there should be: tiles are not the news
	}
	if len(c.leaves) > 0 {
		if err := c.compare(bundles, c.count/tileWidth, c.digests); err != nil {
			return err
		}
		if err := c.compare(0, c.count/tileWidth, c.leaves); err != nil {
			return err
		}
	}
	for level := 1; level < len(c.tree.levels); level++ {
		if tile := c.tree.levels[level]; len(tile) > 0 {
			if err := c.compare(level, c.tree.n[level], tile); err != nil {
				return err
			}
		}
	}
	return nil
}

// compare holds a tile or bundle against what the lines give.
func (c *combiner) compare(level int, n int64, want []hash) error {
	data, file, err := c.proofs.read(level, n, len(want), &c.raw)
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
		for i < len(want) && tileHash(data, level, i) == want[i] {
			i++
		}
		if i == len(want) {
			return nil
		}
		f.problem = Changed
		f.index += int64(i) * each
	}
	c.out.faults = append(c.out.faults, f)
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
