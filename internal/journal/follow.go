package journal

import (
	"context"
	"errors"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
)

// Follower reads the lines of a trail, which another process may be writing and
// sealing, each once and in order, as far as it is told that they stay. It is
// not safe for concurrent use.
type Follower struct {
	fs        durable.FS
	path, dir string
	begins    func(line []byte) (first int64, ok bool)
	away      Archive
	next      int64 // index of the next line to be given

	view   *View // nil: to be opened
	offset int64 // in the view's open segment, of the line at index at
	at     int64
}

// Follow begins at the line with index next; begins and away are as in
// OpenView.
func Follow(fsys durable.FS, path, dir string, begins func(line []byte) (first int64, ok bool), away Archive, next int64) *Follower {
	return &Follower{fs: fsys, path: path, dir: dir, begins: begins, away: away, next: next}
}

// followTries is how often a line that must be there is looked for: a seal can
// come between two looks, hardly between three.
const followTries = 3

// Upto gives f the lines before size that were not given yet. All of them must
// have been synced: a line that may still be cut back is not to be asked for.
// line is valid during the call. Lines that are missing are a *GapError, and
// the next call goes on after them.
func (w *Follower) Upto(ctx context.Context, size int64, f func(index int64, line []byte) error) error {
	give := func(index int64, line []byte) error {
		if index < w.next {
			return nil
		}
		if index >= size {
			return errUpto
		}
		w.next = index + 1
		return f(index, line)
	}
	for tries := 0; w.next < size; tries++ {
		if tries == followTries {
			return w.pass(&GapError{First: w.next, Count: size - w.next})
		}
		if w.view == nil {
			if err := w.open(ctx, size, give); err != nil {
				return err
			}
		}
		if err := w.readOpen(ctx, give); err != nil {
			return err
		}
		if w.next < size {
			// What follows is in another file: this one was cut off.
			if err := w.Close(); err != nil {
				return err
			}
		}
	}
	return nil
}

var errUpto = errors.New("far enough")

// pass goes on after what is missing.
func (w *Follower) pass(gap *GapError) error {
	w.next = gap.First + gap.Count
	return errors.Join(gap, w.Close())
}

// open looks at the trail anew and reads what is in segments that were cut off.
func (w *Follower) open(ctx context.Context, size int64, give func(index int64, line []byte) error) error {
	view, err := OpenView(w.fs, w.path, w.dir, w.begins, w.away)
	if err != nil {
		return err
	}
	view.Expect(size, nil)
	w.view, w.offset, w.at = view, 0, view.first
	for _, p := range view.Parts() {
		if p.Open || w.next >= size {
			return nil
		}
		if p.Until <= w.next {
			continue
		}
		next, err := view.Part(ctx, p, give)
		if errors.Is(err, errUpto) {
			return nil
		}
		if err != nil && !errors.As(err, new(*SegmentError)) {
			return err
		}
		if gap := p.Gap(max(next, w.next), err); gap != nil && gap.First < size {
			gap.Count = min(gap.First+gap.Count, size) - gap.First
			return w.pass(gap)
		}
	}
	return nil
}

// readOpen reads on in the open segment.
func (w *Follower) readOpen(ctx context.Context, give func(index int64, line []byte) error) error {
	if w.view.file == nil || w.next < w.at {
		return nil
	}
	fi, err := w.view.file.Stat()
	if err != nil {
		return err
	}
	begin := w.offset
	_, _, err = eachLine(sectionOf(w.view.file, begin, fi.Size()), w.at, func(index, offset int64, line []byte) error {
		if index%256 == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		if err := give(index, line); err != nil {
			return err
		}
		w.at, w.offset = index+1, begin+offset+int64(len(line))+1
		return nil
	})
	if errors.Is(err, errUpto) {
		return nil
	}
	return err
}

// Close closes what is open.
func (w *Follower) Close() error {
	if w.view == nil {
		return nil
	}
	view := w.view
	w.view = nil
	return view.Close()
}
