package audit

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"time"

	"github.com/kaizen-audit/kaizen-audit/internal/journal"
	"github.com/kaizen-audit/kaizen-audit/internal/query"
)

// followInterval is how far two looks at the checkpoint lie apart. A writer
// makes a new one after 400 ms, so a look more often would find nothing.
const followInterval = 100 * time.Millisecond

// Tail gives the newest n entries that q wants, oldest first. With follow it
// goes on with those that come, until ctx ends, which is no error. q has
// neither Limit nor Order nor Cursor.
//
// Followed entries are given once the trail's checkpoint covers them, some half
// a second after they were recorded: what was shown is never taken back, be it
// by a crash. None is given twice and none is left out, also across seals and
// when another process takes over the writing. A trail that is replaced ends
// it with an error.
//
// The whole session is one reading, recorded as in Query. Broken lines and
// entries that are missing are errors as there, after which others follow.
func (t *Trail) Tail(ctx context.Context, q Query, n int, follow bool) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		err := q.Check()
		if err == nil && (q.Limit != 0 || q.Order != Oldest || q.Cursor != "" || n < 0) {
			err = errors.New("limit, order and cursor are not for the newest entries, and their number is not negative")
		}
		if err != nil {
			yield(Entry{}, fmt.Errorf("tail: %w", err))
			return
		}
		g, err := t.authorize(ctx, "Tail")
		if err == nil {
			err = t.looksAtMasked(ctx, "Tail", g, &q)
		}
		if err == nil {
			err = t.readable()
		}
		if err != nil {
			yield(Entry{}, fmt.Errorf("tail: %w", err))
			return
		}
		yield = t.yieldSeen(g, yield)
		q := t.withPseudonyms(q)
		facts := q.Facts()
		facts["newest"], facts["follow"] = n, follow
		if err := t.noteRead(ctx, readEntry{"AUDIT_QUERY", "tail"}, facts); err != nil {
			yield(Entry{}, fmt.Errorf("tail: %w", err))
			return
		}
		if !follow {
			t.newest(ctx, q, n, yield)
			return
		}
		if err := t.follow(ctx, q, n, yield); err != nil && ctx.Err() == nil {
			yield(Entry{}, fmt.Errorf("tail: %w", err))
		}
	}
}

// newest gives the newest n entries, oldest first, and reports whether more are
// wanted.
func (t *Trail) newest(ctx context.Context, q Query, n int, yield func(Entry, error) bool) bool {
	if n == 0 {
		return true
	}
	type result struct {
		e   Entry
		err error
	}
	var found []result
	q.Order, q.Limit = Newest, n
	for e, err := range t.scan(ctx, q) {
		found = append(found, result{e, err})
	}
	for _, r := range slices.Backward(found) {
		if !yield(r.e, r.err) {
			return false
		}
	}
	return true
}

var errStopped = errors.New("the caller has stopped")

func (t *Trail) follow(ctx context.Context, q Query, n int, yield func(Entry, error) bool) error {
	c, _, err := t.latest()
	if err != nil {
		return err
	}
	start := q
	start.Cursor = strconv.FormatInt(c.Size, 10) // before it, in the order of the newest
	more := t.newest(ctx, start, n, func(e Entry, err error) bool {
		return (err == nil || ctx.Err() == nil) && yield(e, err)
	})
	if !more {
		return nil
	}
	lines := journal.Follow(t.opts.fs, t.path, t.dir, segmentAfterSeal, t.fetched.segment, c.Size)
	defer lines.Close()
	match := query.Match(q, t.opened)
	look := time.NewTicker(followInterval)
	defer look.Stop()
	for {
		err := lines.Upto(ctx, c.Size, func(index int64, line []byte) error {
			e, ok, err := match(index, line)
			if (ok || err != nil) && !yield(e, err) {
				return errStopped
			}
			return nil
		})
		switch gap, ok := errors.AsType[*GapError](err); {
		case errors.Is(err, errStopped):
			return nil
		case ok:
			if !yield(Entry{Index: gap.First}, explainGap(err)) {
				return nil
			}
			continue
		case err != nil:
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.closed:
			return ErrClosed
		case <-look.C:
		}
		if c, _, err = t.latest(); err != nil {
			return err
		}
	}
}
