package verify

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"io/fs"
	"slices"
	"sync"

	"github.com/kaizen-audit/kaizen-audit/internal/lifecycle"
)

// batchTiles is how many level-0 tiles are checked at a time.
const batchTiles = 8

// checker folds leaves into the tree, and holds tiles and bundles against what
// the leaves give. The full ones of level 0 are read, compared and reduced to
// their roots beside; the rest, one in 256, is done by who adds.
type checker struct {
	cpu    slots
	wg     sync.WaitGroup
	proofs proofs
	limit  int64   // leaves beyond it are not looked at
	sizes  []int64 // ascending, the limit last: what roots are wanted of

	count   int64
	now     *batch
	pending []*batch // in order, given to the workers
	tree    frontier
	buf     tileBuffer

	roots  map[int64]hash // at the sizes that were reached
	faults []Finding
}

func newChecker(cpu slots, proofs proofs, heads []head) *checker {
	c := &checker{cpu: cpu, proofs: proofs, roots: map[int64]hash{}, tree: frontier{hasher: newHasher()}}
	for _, h := range heads {
		c.sizes = append(c.sizes, h.size)
	}
	c.sizes = slices.Compact(c.sizes)
	c.limit = c.sizes[len(c.sizes)-1]
	c.now = &batch{proofs: proofs}
	c.reached()
	return c
}

// batch is some tiles' leaves while they are checked.
type batch struct {
	proofs  proofs
	first   int64  // its first tile
	digests []hash // none if only leaves are known
	leaves  []hash
	edges   []edge // at sizes whose roots are wanted, ascending

	roots  []hash // of its full tiles
	faults []Finding
	err    error
	done   chan struct{}
}

// edge is what is behind the last full tile at some size.
type edge struct {
	size            int64
	digests, leaves []hash
}

// add takes leaves; digests are nil where they are not known. Both are free
// again when it returns.
func (c *checker) add(digests, leaves []hash) error {
	for len(leaves) > 0 && c.count < c.limit {
		n := min(int64(len(leaves)), tileWidth-c.count%tileWidth, c.sizes[0]-c.count)
		if digests != nil {
			c.now.digests = append(c.now.digests, digests[:n]...)
			digests = digests[n:]
		}
		c.now.leaves = append(c.now.leaves, leaves[:n]...)
		leaves = leaves[n:]
		c.count += n
		c.reached()
		if len(c.now.leaves) == batchTiles*tileWidth {
			if err := c.submit(); err != nil {
				return err
			}
		}
	}
	return nil
}

// reached remembers the edge at a size whose root is wanted.
func (c *checker) reached() {
	if len(c.sizes) == 0 || c.sizes[0] != c.count {
		return
	}
	c.sizes = c.sizes[1:]
	e := edge{size: c.count}
	whole := len(c.now.leaves) - int(c.count%tileWidth)
	e.leaves = slices.Clone(c.now.leaves[whole:])
	if c.now.digests != nil {
		e.digests = slices.Clone(c.now.digests[whole:])
	}
	c.now.edges = append(c.now.edges, e)
}

// submit has the batch checked beside, and folds the oldest one when there are
// enough on the way.
func (c *checker) submit() error {
	b := c.now
	b.done = make(chan struct{})
	c.wg.Go(func() {
		c.cpu.take()
		b.run()
		c.cpu.free()
	})
	c.pending = append(c.pending, b)
	c.now = &batch{proofs: c.proofs, first: b.first + int64(len(b.leaves)/tileWidth)}
	if len(c.pending) <= 2*cap(c.cpu) {
		return nil
	}
	last := c.pending[0]
	c.pending = slices.Delete(c.pending, 0, 1)
	if err := c.fold(last); err != nil {
		return err
	}
	c.now.digests, c.now.leaves, c.now.roots = last.digests[:0], last.leaves[:0], last.roots[:0]
	return nil
}

// finish folds what is on the way. The last edge is then that of the limit, if
// there were that many leaves.
func (c *checker) finish() error {
	err := c.submit()
	for _, b := range c.pending {
		if err == nil {
			err = c.fold(b)
		}
	}
	c.pending = nil
	slices.SortStableFunc(c.faults, func(a, b Finding) int { return cmp.Compare(*a.FirstBad, *b.FirstBad) })
	return err
}

// run compares the batch's full tiles and bundles with what is on disk, and
// reduces them to their roots.
func (b *batch) run() {
	defer close(b.done)
	hasher := newHasher()
	var buf tileBuffer
	for i := 0; i+tileWidth <= len(b.leaves) && b.err == nil; i += tileWidth {
		n := b.first + int64(i/tileWidth)
		leaves := b.leaves[i : i+tileWidth]
		var digests []hash
		if b.digests != nil {
			digests = b.digests[i : i+tileWidth]
		}
		b.err = b.compare(n, digests, leaves, &buf)
		b.roots = append(b.roots, hasher.reduce(leaves))
	}
}

// compare holds bundle and tile n against digests and leaves.
func (b *batch) compare(n int64, digests, leaves []hash, buf *tileBuffer) error {
	for _, level := range [...]int{bundles, 0} {
		f, err := b.proofs.compare(level, n, digests, leaves, buf)
		if err != nil {
			return err
		}
		if f != nil {
			b.faults = append(b.faults, *f)
		}
	}
	return nil
}

// fold takes a batch's roots into the tree, when it is checked.
func (c *checker) fold(b *batch) error {
	<-b.done
	if b.err != nil {
		return b.err
	}
	for _, f := range b.faults {
		c.fault(f)
	}
	edges := b.edges
	for i, root := range b.roots {
		for len(edges) > 0 && edges[0].size/tileWidth == b.first+int64(i) {
			if err := c.foldEdge(edges[0]); err != nil {
				return err
			}
			edges = edges[1:]
		}
		if err := c.tree.add(1, root, c.full); err != nil {
			return err
		}
	}
	for _, e := range edges {
		if err := c.foldEdge(e); err != nil {
			return err
		}
	}
	return nil
}

// full is told of every tile above level 0 that fills.
func (c *checker) full(level int, n int64, hashes []hash) error {
	f, err := c.proofs.compare(level, n, nil, hashes, &c.buf)
	if f != nil {
		c.fault(*f)
	}
	return err
}

// foldEdge computes the root at an edge and compares the partial tiles there.
// Those of the limit must be there. Those of a size before may be gone, for
// full ones; and only where a checkpoint was signed is it sure that they were
// ever finished: a crash can leave others behind.
func (c *checker) foldEdge(e edge) error {
	c.roots[e.size] = c.tree.root(e.leaves)
	for level := bundles; level <= len(c.tree.above); level++ {
		n, hashes := e.size/tileWidth, e.leaves
		if level > 0 {
			n, hashes = c.tree.filled[level-1], c.tree.above[level-1]
		}
		if len(hashes) == 0 {
			continue
		}
		if e.size < c.limit {
			if _, _, err := c.proofs.exactly(level, n, len(hashes), &c.buf); errors.Is(err, fs.ErrNotExist) {
				continue
			}
		}
		f, err := c.proofs.compare(level, n, e.digests, hashes, &c.buf)
		if err != nil {
			return err
		}
		if f != nil {
			c.fault(*f)
		}
	}
	return nil
}

// fault keeps the first findings, and that of the lowest index. A file that is
// compared for several sizes is told once.
func (c *checker) fault(f Finding) {
	if slices.ContainsFunc(c.faults, func(g Finding) bool { return g.File == f.File }) {
		return
	}
	if len(c.faults) <= maxFindings {
		c.faults = append(c.faults, f)
		return
	}
	last := &c.faults[len(c.faults)-1]
	if *f.FirstBad < *last.FirstBad {
		*last = f
	}
}

// compare holds a tile, or a bundle with its digests, against what is due
// there. Where the digests are not known a bundle's leaf hashes are compared.
// The finding is nil where they agree.
func (p proofs) compare(level int, n int64, digests, hashes []hash, buf *tileBuffer) (*Finding, error) {
	t, file, err := p.tile(level, n, len(hashes), buf)
	if refused(err) {
		return nil, err
	}
	artefact, each := Tile, int64(1)
	if level == bundles {
		artefact = Bundle
	}
	for range level {
		each *= tileWidth
	}
	problem, i := "", 0
	switch {
	case errors.Is(err, fs.ErrNotExist):
		problem = Missing
	case err != nil:
		problem = Unparsable
	case level == bundles && digests == nil:
		s := newHasher()
		for i < len(hashes) && t.leaf(s, i) == hashes[i] {
			i++
		}
	default:
		want := hashes
		if level == bundles {
			want = digests
		}
		for i < len(want) && *t.hash(i) == want[i] {
			i++
		}
	}
	if i == len(hashes) {
		return nil, nil
	}
	if problem == "" {
		problem = Changed
	}
	f := Finding{Artefact: artefact, File: file, Problem: problem, Detail: file + " is " + problem + ": it is not what was signed"}.
		at((n*tileWidth+int64(i))*each, true)
	return &f, nil
}

// scanned is what the scan of all lines gives.
type scanned struct {
	walked
	roots  map[int64]hash // of the lines, at the heads' sizes that they reach
	faults []Finding      // tiles and bundles that are not what the lines give
}

// scan hashes all lines, compares tiles and bundles with those below the last
// head, and gives their roots at the heads. The lines before index from, where the
// list begins, are not read: the bundles stand for them.
func scan(ctx context.Context, cpu slots, list []segment, from int64, proofs proofs, heads []head, progress func(done, total int64)) (scanned, error) {
	c := newChecker(cpu, proofs, heads)
	defer c.wg.Wait()
	if err := c.addBundles(ctx, from); err != nil {
		return scanned{}, errors.Join(err, c.finish())
	}
	total := int64(0)
	for _, s := range list {
		total += s.bytes
	}
	told := int64(0)
	tell := func(done int64) {
		if progress != nil && done-told >= progressBytes {
			told = done
			progress(done, max(total, done))
		}
	}
	w, err := readLines(ctx, cpu, list, from, false, tell, proofs.filler(heads[len(heads)-1].size, list), func(_ *segment, _ int64, digests, leaves []hash) error {
		return c.add(digests, leaves)
	})
	if err == nil {
		err = c.finish()
	}
	if err == nil && progress != nil {
		progress(max(total, told), max(total, told))
	}
	return scanned{w, c.roots, c.faults}, err
}

// errNoBundle: a bundle that should stand for lines is not to be had.
var errNoBundle = errors.New("a bundle is missing or broken")

// addBundles takes the first size leaves from the entry bundles.
func (c *checker) addBundles(ctx context.Context, size int64) error {
	s := newHasher()
	var buf tileBuffer
	var digests, leaves [tileWidth]hash
	for n := int64(0); n*tileWidth < size; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		// A partial bundle is there for the sizes that were signed last.
		width := int(min(tileWidth, size-n*tileWidth))
		t, _, err := c.proofs.tile(bundles, n, int(min(tileWidth, c.limit-n*tileWidth)), &buf)
		if refused(err) {
			return err
		}
		if err != nil {
			return errNoBundle
		}
		for i := range width {
			digests[i] = *t.hash(i)
			leaves[i] = t.leaf(s, i)
		}
		if err := c.add(digests[:width], leaves[:width]); err != nil {
			return err
		}
	}
	return nil
}

// filler fills in lines that no file has, as bundles of a tree of that size have them,
// where the trail's newest segment claims that they were pruned: whether that is so,
// judgeGaps finds out, and what bundles say is held against the checkpoint like
// everything else.
func (p proofs) filler(size int64, list []segment) fill {
	var claimed []lifecycle.Range
	asked := false
	return func(r lifecycle.Range, take takeLines) (bool, error) {
		if !asked {
			asked, claimed = true, claims(list)
		}
		if r.End() > size || !slices.ContainsFunc(claimed, func(c lifecycle.Range) bool { return c.First <= r.First && r.End() <= c.End() }) {
			return false, nil
		}
		all := segment{first: r.First, short: "the proofs"}
		hasher := newHasher()
		var buf tileBuffer
		// Twice, so that nothing is taken where a later one is missing.
		for _, give := range []bool{false, true} {
			for n := r.First / tileWidth; n*tileWidth < r.End(); n++ {
				width := int(min(tileWidth, size-n*tileWidth))
				t, _, err := p.tile(bundles, n, width, &buf)
				if refused(err) {
					return false, err
				}
				if err != nil {
					return false, nil
				}
				if !give {
					continue
				}
				from, to := max(r.First-n*tileWidth, 0), min(r.End()-n*tileWidth, int64(width))
				digests, leaves := make([]hash, 0, tileWidth), make([]hash, 0, tileWidth)
				for i := from; i < to; i++ {
					digests, leaves = append(digests, *t.hash(int(i))), append(leaves, t.leaf(hasher, int(i)))
				}
				if err := take(&all, n*tileWidth+from, digests, leaves); err != nil {
					return false, err
				}
			}
		}
		return true, nil
	}
}

// opensAt is where the open segment begins, as its first line claims that seals the
// one before; -1 where none does.
func opensAt(s *segment) int64 {
	r, err := s.reader()
	if err != nil {
		return -1
	}
	defer r.Close()
	line, err := bufio.NewReaderSize(r, blockBytes).ReadSlice('\n')
	if err != nil || !lifecycle.Is(line) {
		return -1
	}
	return lifecycle.SealsUpTo(line)
}

// claims are the gaps that lines of the newest segment name.
func claims(list []segment) (all []lifecycle.Range) {
	s := &list[len(list)-1]
	r, err := s.reader()
	if err != nil {
		return nil
	}
	defer r.Close()
	lines := bufio.NewReaderSize(r, blockBytes)
	for {
		line, err := lines.ReadSlice('\n')
		if err == nil && lifecycle.Is(line) {
			all = append(all, lifecycle.ClaimedGaps(line)...)
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return all
		}
	}
}

// progressBytes is how many bytes of lines lie between two calls of Progress:
// some dozens a second.
const progressBytes = 16 << 20

// proofRoot is the root that bundles or level-0 tiles give at a head; ok is
// false where one is missing or broken.
func proofRoot(ctx context.Context, p proofs, level int, size int64) (root hash, ok bool, err error) {
	s := newHasher()
	tree := frontier{hasher: s}
	var buf tileBuffer
	var leaves [tileWidth]hash
	for n := int64(0); ; n++ {
		if err := ctx.Err(); err != nil {
			return root, false, err
		}
		width := int(min(tileWidth, size-n*tileWidth))
		if width == 0 {
			return tree.root(nil), true, nil
		}
		t, _, err := p.tile(level, n, width, &buf)
		if refused(err) {
			return root, false, err
		}
		if err != nil {
			return root, false, nil
		}
		for i := range width {
			leaves[i] = t.leaf(s, i)
		}
		if width < tileWidth {
			return tree.root(leaves[:width]), true, nil
		}
		if err := tree.add(1, s.reduce(leaves[:]), nil); err != nil {
			return root, false, err
		}
	}
}
