package audit

import (
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kaizen-audit/kaizen-audit/internal/journal"
	"github.com/kaizen-audit/kaizen-audit/internal/lifecycle"
	"github.com/kaizen-audit/kaizen-audit/internal/tree"
)

// lifetime is what the trail's lifecycle entries come to, for its holder. Policies,
// holds, prunes and seals are recorded one at a time, under mu.
type lifetime struct {
	mu    sync.Mutex
	state *lifecycle.State // nil: to be read
	// seals are those that were found, which never change.
	seals []lifecycle.Sealed
	// longest is the longest period in force since the open segment began.
	longest int64
	// gaps is what was ever pruned, for readers of lines.
	gaps atomic.Pointer[[]lifecycle.Range]
	// opened is when this process opened the trail, with the monotonic clock.
	opened time.Time
	last   time.Time // when the newest entry from before was recorded; zero: not known
	first  bool      // there was none
}

// lifeLocked reads the state; life.mu is held. It costs the open segment, and of
// every other the first lines.
func (t *Trail) lifeLocked(ctx context.Context) (*lifecycle.State, error) {
	if t.life.state != nil {
		return t.life.state, nil
	}
	view, err := t.journal.View()
	if err != nil {
		return nil, err
	}
	defer view.Close()
	state, periods, err := t.readLife(ctx, view, maxIndexes, &t.life.seals)
	if err != nil {
		return nil, err
	}
	t.life.longest = owedDays(state.Terms)
	for _, p := range periods {
		t.life.longest = max(t.life.longest, p)
	}
	t.life.state = state
	t.life.gaps.Store(&state.Gaps)
	return state, nil
}

// maxIndexes is more than a trail has entries: who holds it has written, or adopted
// and said so, whatever is there.
const maxIndexes = 1 << 53

func owedDays(t lifecycle.Terms) int64 {
	if t.RetentionDays == nil {
		return lifecycle.DefaultDays
	}
	return *t.RetentionDays
}

// headBytes is how much of a segment's beginning is looked at for its seal: the seal
// is the first line, or behind a recovery the third.
const headBytes = 256 << 10

var errEnough = errors.New("enough")

// readLife replays what the view has: all of the open segment, and before it as much
// as says which policy, holds and keys are in force; of the segments their seals.
// periods are those that were in force since the open segment began. The seals are
// read where they are asked for, but those that are known: they are spread over all
// segments.
func (t *Trail) readLife(ctx context.Context, view *journal.View, covered int64, seals *[]lifecycle.Sealed) (state *lifecycle.State, periods []int64, err error) {
	parts := view.Parts()
	collect := func(into *[]lifecycle.Line, p journal.Part, limit int) error {
		if own, ok := t.ownOf(p.Segment); ok {
			*into = append(*into, own...)
			return nil
		}
		read := 0
		_, err := view.Part(ctx, p, func(index int64, line []byte) error {
			if lifecycle.Is(line) {
				*into = append(*into, lifecycle.Line{Index: index, Text: slices.Clone(line)})
			}
			if read += len(line); limit > 0 && read > limit {
				return errEnough
			}
			return nil
		})
		if errors.As(err, new(*journal.SegmentError)) {
			err = nil // as far as it can be read; the rest is told elsewhere
		}
		if err == errEnough {
			err = nil
		}
		return err
	}
	var heads, now []lifecycle.Line
	for _, p := range parts[:len(parts)-1] {
		// The seal of a segment is in the head of the one behind it.
		if seals == nil || p.File == "" || slices.ContainsFunc(*seals, func(s lifecycle.Sealed) bool { return s.Segment.End() == p.First }) {
			continue
		}
		if err := collect(&heads, p, headBytes); err != nil {
			return nil, nil, err
		}
	}
	c := t.lifeConfig(covered)
	c.Restated, c.Digest = true, t.treeDigest()
	for _, l := range view.Lacks() {
		c.Missing = append(c.Missing, lifecycle.Range{First: l[0], Count: l[1]})
	}
	for at := len(parts) - 1; ; at-- {
		var lines []lifecycle.Line
		if err := collect(&lines, parts[at], 0); err != nil {
			return nil, nil, err
		}
		now = append(lines, now...)
		if at == len(parts)-1 {
			for _, l := range lines {
				if was, ok := lifecycle.WasInForce(l.Text); ok {
					periods = append(periods, was)
				}
			}
		}
		if len(now) > 0 { // the first may be older than the present key
			id := t.ids()
			c.LifecycleVKey = id.lifecycleAt(now[0].Index)
		}
		if state = lifecycle.Replay(c, now); state.Known || at == 0 {
			break
		}
	}
	if seals == nil {
		return state, periods, nil
	}
	c.Restated = false
	state.Seals = append(append(slices.Clip(*seals), lifecycle.Replay(c, heads).Seals...), state.Seals...)
	for _, p := range parts[:len(parts)-1] {
		if p.File == "" || slices.ContainsFunc(state.Seals, func(s lifecycle.Sealed) bool { return s.Segment.First == p.First }) {
			continue
		}
		// Its seal was pruned; a prune somewhere behind it has carried it along.
		var all []lifecycle.Line
		for _, p := range parts {
			if err := collect(&all, p, 0); err != nil {
				return nil, nil, err
			}
		}
		state.Seals = append(state.Seals, lifecycle.Replay(c, all).Seals...)
		break
	}
	state.Seals = lifecycle.OneEach(state.Seals)
	*seals = state.Seals
	return state, periods, nil
}

// lifeConfig is what lifecycle entries are judged by.
func (t *Trail) lifeConfig(covered int64) lifecycle.Config {
	id := t.ids()
	c := lifecycle.Config{Origin: id.Origin, LifecycleVKey: id.LifecycleVKey, Profile: id.Profile, Covered: covered}
	for _, k := range id.VKeys {
		c.VKeys = append(c.VKeys, lifecycle.KeyFrom{VKey: k.VKey, From: k.From, Replaces: k.Replacement != ""})
	}
	return c
}

// treeDigest gives digests of entries from the tree, as far as its bundles have them.
func (t *Trail) treeDigest() func(index int64) ([sha256.Size]byte, bool) {
	store := tree.NewStore(t.opts.fs, t.dir)
	const each = 2 + sha256.Size
	return func(index int64) (digest [sha256.Size]byte, ok bool) {
		size, err := t.covered()
		n, at := index/tree.TileWidth, int(index%tree.TileWidth)*each
		if err != nil || index >= size {
			return digest, false
		}
		b, err := store.Tile(tree.Bundles, n, int(min(tree.TileWidth, size-n*tree.TileWidth)))
		if err != nil {
			b, err = store.Tile(tree.Bundles, n, tree.TileWidth)
		}
		if err != nil || at+each > len(b) {
			return digest, false
		}
		return [sha256.Size]byte(b[at+2 : at+each]), true
	}
}

// forget lets the state be read again: an entry was recorded that changes it; life.mu
// is held.
func (l *lifetime) forget() { l.state = nil }

// recordLife records a lifecycle entry, and returns once a checkpoint covers it: what
// it permits may be done then. life.mu is held.
func (t *Trail) recordLife(ctx context.Context, o ownEntry) (Receipt, error) {
	o.signed, o.metadata = true, ownMetadata(ctx)
	defer t.life.forget()
	ctx = context.WithoutCancel(ctx)
	r, err := t.recordOwnReceipt(ctx, o)
	if err == nil {
		err = explainJournal(t.journal.Flush(ctx))
	}
	if err == nil {
		err = t.signer.sign()
	}
	if err == nil && t.signer.latest.Load().Size <= r.Index {
		err = errors.New("no checkpoint covers the entry")
	}
	return r, err
}

// excuse excuses what the view lacks where the trail says that it was pruned.
func (t *Trail) excuse(ctx context.Context, view *journal.View) error {
	if len(view.Lacks()) == 0 {
		return nil
	}
	gaps := t.life.gaps.Load()
	if gaps == nil || !t.holds() {
		covered, err := t.covered()
		if err != nil {
			return nil // a gap is one then
		}
		state, _, err := t.readLife(ctx, view, covered, nil)
		if err != nil {
			return err
		}
		gaps = &state.Gaps
	}
	view.Excuse(func(first, count int64) bool {
		return lifecycle.Contains(*gaps, lifecycle.Range{First: first, Count: count})
	})
	return nil
}

// lawful tells, while the trail is opened to write, whether lines that no file has
// were pruned.
func (t *Trail) lawful(first, count int64) (bool, error) {
	view, err := journal.OpenView(t.opts.fs, t.path, t.dir, segmentAfterSeal, t.fetched.segment)
	if err != nil {
		return false, err
	}
	defer view.Close()
	state, _, err := t.readLife(context.Background(), view, maxIndexes, nil)
	if err != nil {
		return false, err
	}
	t.life.gaps.Store(&state.Gaps)
	return lifecycle.Contains(state.Gaps, lifecycle.Range{First: first, Count: count}), nil
}

// restatement is what AUDIT_SEAL and AUDIT_PRUNE say again (docs/format-lifecycle.md
// §7.5).
func (t *Trail) restatement(state *lifecycle.State, outputs map[string]any) map[string]any {
	holds := []map[string]any{}
	for _, h := range state.Holds {
		holds = append(holds, map[string]any{"hold": h.ID, "index": h.Index, "ranges": orEmpty(h.Ranges), "open": h.Open})
	}
	outputs["gaps"], outputs["holds"], outputs["erased"] = orEmpty(state.Gaps), holds, orEmpty(state.ErasedBefore)
	if len(state.Scheduled) > 0 {
		outputs["scheduled"] = state.Scheduled
	}
	outputs["keys"], outputs["policy"], outputs["lifecycle_vkey"] = t.keyHistory(), state.Terms, t.ids().LifecycleVKey
	return outputs
}

func orEmpty[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
