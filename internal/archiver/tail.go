package archiver

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/kaizen-audit/kaizen-audit/internal/journal"
)

// putTail stores the lines from base on, which no sealed file has, in pieces that
// end at a line's end: the same lines always give the same pieces, so that what an
// interrupted round has stored is found again. It returns the index after the last
// line.
func (p *Pusher) putTail(ctx context.Context, view *journal.View, parts []journal.Part, base int64) (next int64, err error) {
	if base != p.base {
		p.base, p.pieces = base, nil
	}
	// The last piece of the round before may have grown.
	from := base
	if n := len(p.pieces); n > 0 {
		last := p.pieces[n-1]
		if from = last.first; last.size >= pieceBytes {
			from = last.first + last.count
		} else {
			p.pieces = p.pieces[:n-1]
		}
	}
	first, text := from, []byte(nil)
	end := func(next int64) error {
		if len(text) == 0 {
			return nil
		}
		if err := p.replace(ctx, tailFile(first), text); err != nil {
			return err
		}
		p.pieces = append(p.pieces, piece{first, next - first, int64(len(text))})
		first, text = next, nil
		return nil
	}
	next = from
	for _, part := range parts {
		if part.First > next {
			return next, fmt.Errorf("entries %d to %d are missing from the trail", next, part.First-1)
		}
		if part.Count >= 0 && part.First+part.Count <= from {
			continue
		}
		_, err := view.PartFrom(ctx, part, from, func(index int64, line []byte) error {
			text = append(append(text, line...), '\n')
			next = index + 1
			if len(text) >= pieceBytes {
				return end(next)
			}
			return nil
		})
		if err != nil {
			return next, err
		}
	}
	return next, end(next)
}

// dropTail removes the pieces of the archive that are none of the tail's: their
// lines are in a sealed segment, or were set aside.
func (p *Pusher) dropTail(ctx context.Context, base int64) error {
	for _, name := range slices.Sorted(maps.Keys(p.there)) {
		first, ok := firstIn(name, tailDir, plainSuffix)
		if !ok || first >= base && slices.ContainsFunc(p.pieces, func(c piece) bool { return c.first == first }) {
			continue
		}
		if err := p.store.Remove(ctx, name); err != nil {
			return err
		}
		delete(p.there, name)
	}
	return nil
}
