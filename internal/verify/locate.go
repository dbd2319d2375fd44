package verify

import (
	"context"
	"fmt"
	"slices"
)

// judgeLines says where lines are not what was signed, as closely as it can be
// told, and what else is wrong.
func (v *verification) judgeLines(ctx context.Context, cpu slots, s scanned, list []segment, top head) ([]Finding, error) {
	good, bad := int64(0), top
	for _, h := range v.heads {
		if !s.holds(h) {
			bad = h
			break
		}
		good = h.size
	}
	// Bundles or tiles may still say what was signed; if not all of it, then
	// up to the first checkpoint that the lines don't give.
	var packed *Finding // of lines that are pruned nothing but a packed file is left
	for _, h := range []head{top, bad} {
		if packed != nil {
			break
		}
		for _, level := range []int{bundles, 0} {
			root, ok, err := proofRoot(ctx, v.proofs, level, h.size)
			if err != nil {
				return nil, err
			}
			if ok && root == h.root {
				return v.locate(ctx, cpu, list, &truth{proofs: v.proofs, level: level, head: h, hasher: newHasher(), loaded: -1})
			}
		}
		var err error
		if packed, err = v.packedFault(ctx, h); err != nil {
			return nil, err
		}
	}
	// Only the checkpoints are left: the smallest range between one that holds
	// and one that does not. It is exact where nothing stands behind the one
	// that holds.
	f := Finding{Artefact: Line, Problem: Changed}
	exact := false
	switch {
	case s.stop != nil:
		f, exact = stopped(s.stop), s.stop.at == good
	case s.lines < bad.size:
		f.Problem, exact = Truncated, s.lines == good
		f.Detail = fmt.Sprintf("there are %d lines where %s covers %d", s.lines, bad.name(), bad.size)
	}
	state := stateBad
	if exact && (f.Problem == Missing || f.Problem == Truncated) {
		state = stateMissing
	}
	if !exact {
		f.Detail = fmt.Sprintf("somewhere from entry %d to %d; lines, bundles and tiles give no signed root, so it can't be told closer", good, bad.size-1)
	}
	v.r.addRange(0, good, stateChecked)
	v.r.addRange(good, bad.size-good, state)
	findings := []Finding{f.at(good, exact)}
	if packed != nil {
		findings = slices.Insert(findings, 0, *packed)
	}
	return findings, nil
}

// stopped is the finding for lines that can't be followed.
func stopped(s *stop) Finding {
	what := s.file + " can't be read further"
	switch s.problem {
	case Missing:
		what = "lines are missing"
		if s.to >= 0 {
			what = fmt.Sprintf("lines are missing, up to where %s begins", s.file)
		}
	case Inserted:
		what = fmt.Sprintf("%s begins there, and the lines before it reach to entry %d", s.file, s.to-1)
	case Truncated:
		what = "the open segment is gone"
	}
	return Finding{Artefact: Segment, File: s.file, Problem: s.problem, Detail: fmt.Sprintf("from entry %d on: %s", s.at, what)}.at(s.at, true)
}

// truth is the leaves that were signed, from bundles or level-0 tiles.
type truth struct {
	proofs proofs
	level  int
	head   head

	hasher *hasher
	loaded int64 // the tile that is in now
	now    tile
	buf    tileBuffer
}

func (t *truth) load(n int64) error {
	if t.loaded == n {
		return nil
	}
	now, file, err := t.proofs.tile(t.level, n, int(min(tileWidth, t.head.size-n*tileWidth)), &t.buf)
	if err != nil {
		return fmt.Errorf("%s: %w: %w", file, errMoved, err)
	}
	t.loaded, t.now = n, now
	return nil
}

func (t *truth) leaf(index int64) (hash, error) {
	if err := t.load(index / tileWidth); err != nil {
		return hash{}, err
	}
	return t.now.leaf(t.hasher, int(index%tileWidth)), nil
}

// locate compares the lines with what was signed, and the other proofs too.
func (v *verification) locate(ctx context.Context, cpu slots, list []segment, t *truth) ([]Finding, error) {
	c := comparison{truth: t, report: v.r, bad: -1}
	w, err := readLines(ctx, cpu, list, 0, true, nil, t.proofs.filler(t.head.size, list), func(s *segment, first int64, _, leaves []hash) error {
		return c.take(s, first, leaves)
	})
	if err != nil {
		return nil, err
	}
	v.r.addRange(c.next, t.head.size-c.next, stateMissing)
	findings := v.judgeGaps(w)
	switch {
	case w.stop != nil && (c.bad < 0 || w.stop.at <= c.bad):
		findings = append(findings, stopped(w.stop))
	case c.bad >= 0:
		problem, err := c.classify()
		if err != nil {
			return nil, err
		}
		findings = append(findings, Finding{Artefact: Line, File: c.file, Problem: problem,
			Detail: fmt.Sprintf("entry %d is not what was signed: %s", c.bad, problem)}.at(c.bad, true))
	case w.lines < t.head.size:
		findings = append(findings, Finding{Artefact: Line, File: list[len(list)-1].short, Problem: Truncated,
			Detail: fmt.Sprintf("there are %d lines where %s covers %d", w.lines, t.head.name(), t.head.size)}.at(w.lines, true))
	case len(findings) == 0:
		return nil, fmt.Errorf("lines: %w", errMoved)
	}
	faults, err := t.faults(ctx, cpu)
	return append(findings, faults...), err
}

// faults are the tiles and bundles that are not what was signed.
func (t *truth) faults(ctx context.Context, cpu slots) ([]Finding, error) {
	c := newChecker(cpu, t.proofs, []head{t.head})
	defer c.wg.Wait()
	var leaves, digests []hash
	for first := int64(0); first < t.head.size; first += tileWidth {
		err := ctx.Err()
		if err == nil {
			err = t.load(first / tileWidth)
		}
		if err != nil {
			return nil, err
		}
		leaves, digests = leaves[:0], digests[:0]
		for i := range int(min(tileWidth, t.head.size-first)) {
			leaves = append(leaves, t.now.leaf(t.hasher, i))
			digests = append(digests, *t.now.hash(i))
		}
		if t.level != bundles {
			digests = nil // tiles don't tell them
		}
		if err := c.add(digests, leaves); err != nil {
			return nil, err
		}
	}
	err := c.finish()
	return c.faults, err
}

// comparison holds lines against what was signed.
type comparison struct {
	truth  *truth
	report *Report
	next   int64 // the report's ranges reach up to here

	segment *segment // that the lines are in
	shift   int64    // of the open segment, where what is before it is missing

	bad        int64 // index of the first line that differs; -1: none
	file       string
	have, want hash // there
	// seen says that want came later, aligned that the line behind the bad one
	// is what it must be; that is known when passed.
	seen, aligned, passed bool
}

func (c *comparison) take(s *segment, first int64, leaves []hash) error {
	if len(leaves) == 0 {
		return nil
	}
	if c.segment != s {
		c.segment, c.shift = s, 0
		if s.first < 0 {
			if err := c.align(first, leaves); err != nil {
				return err
			}
		}
	}
	first += c.shift
	size := c.truth.head.size
	if gap := min(first, size); gap > c.next {
		c.report.addRange(c.next, gap-c.next, stateMissing)
		c.next = gap
	}
	for i := range leaves {
		index := first + int64(i)
		if c.bad >= 0 && leaves[i] == c.want {
			c.seen = true
		}
		if index >= size {
			continue
		}
		want, err := c.truth.leaf(index)
		if err != nil {
			return err
		}
		state := stateChecked
		if leaves[i] != want {
			state = stateBad
		}
		if c.bad >= 0 && !c.passed {
			c.passed, c.aligned = true, state == stateChecked
		}
		if c.bad < 0 && state == stateBad {
			c.differ(index, leaves[i], want)
		}
		if index == c.next {
			c.report.addRange(index, 1, state)
			c.next++
		}
	}
	return nil
}

func (c *comparison) differ(index int64, have, want hash) {
	c.bad, c.file, c.have, c.want = index, c.segment.short, have, want
}

// align finds where the open segment begins among what was signed, by its
// first two lines, when that is further on than where those before it end.
func (c *comparison) align(first int64, leaves []hash) error {
	for index := first; index < c.truth.head.size; index++ {
		found, err := c.standsAt(index, leaves[:min(2, len(leaves))])
		if err != nil {
			return err
		}
		if !found {
			continue
		}
		c.shift = index - first
		if c.shift > 0 && c.bad < 0 {
			want, err := c.truth.leaf(first)
			if err != nil {
				return err
			}
			c.differ(first, leaves[0], want)
			c.passed = true // what is behind it is aligned with other indexes
		}
		return nil
	}
	return nil
}

// standsAt reports whether leaves were signed at index, as far as it goes.
func (c *comparison) standsAt(index int64, leaves []hash) (bool, error) {
	for i, have := range leaves[:min(int64(len(leaves)), c.truth.head.size-index)] {
		want, err := c.truth.leaf(index + int64(i))
		if err != nil || have != want {
			return false, err
		}
	}
	return true, nil
}

// classify tells what happened at the first line that differs: it was to come
// later, or what was to stand there comes later, or both, or neither.
func (c *comparison) classify() (string, error) {
	early := false
	for index := c.bad + 1; index < c.truth.head.size && !early; index++ {
		leaf, err := c.truth.leaf(index)
		if err != nil {
			return "", err
		}
		early = leaf == c.have
	}
	switch {
	case early && c.seen:
		return Reordered, nil
	case c.aligned:
		return Changed, nil
	case early:
		return Missing, nil
	case c.seen:
		return Inserted, nil
	}
	return Changed, nil
}
