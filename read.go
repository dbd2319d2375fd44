package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/advice"
	"github.com/kaizen-audit/kaizen-audit/internal/journal"
	"github.com/kaizen-audit/kaizen-audit/internal/query"
	"github.com/kaizen-audit/kaizen-audit/internal/spool"
)

// Query gives the entries that q wants, in q's order. A line that is broken is
// an error with the entry's index and the line and column in it; entries that
// are missing are a GapError, in their place in the order: both that a file has
// them no more and that fewer are there than the latest checkpoint covers. The
// entries after it follow all the same, until the caller stops.
//
// The query itself is recorded before its first entry is given: as
// AUDIT_QUERY by a writer; by a reader through the trail's lock where that is
// free, else as a file in spool/ that the next writer takes in. A reading that
// can't be recorded is ErrDenied where access is controlled, else told to
// Options.Warn.
func (t *Trail) Query(ctx context.Context, q Query) iter.Seq2[Entry, error] {
	return t.query(ctx, "Query", q, readEntry{"AUDIT_QUERY", "query"})
}

// Trace gives the entries of one run, oldest first; an empty id means the run
// of the newest entry that is not the trail's own.
func (t *Trail) Trace(ctx context.Context, id string) ([]Entry, error) {
	g, err := t.authorize(ctx, "Trace")
	if err != nil {
		return nil, fmt.Errorf("trace: %w", err)
	}
	if id == "" {
		var errs []error
		for e, err := range t.scan(ctx, Query{Order: Newest}) {
			ok := false
			if err == nil {
				e, ok, err = t.seen(g, e)
			}
			if ok {
				id = e.TraceID
				break
			}
			if err == nil {
				continue
			}
			if errs = append(errs, err); !goesOn(err) {
				return nil, err
			}
		}
		if id == "" && len(errs) > 0 {
			return nil, errors.Join(errs...)
		}
		if id == "" {
			return nil, fmt.Errorf("trace: %w: the trail has no entries", ErrNotFound)
		}
	}
	// A trace id is compared exactly: a star in it is a star.
	entries, err := collect(t.query(ctx, "Trace", Query{Trace: query.Literal(id)}, readEntry{"AUDIT_QUERY", "trace"}))
	if err == nil && len(entries) == 0 {
		err = fmt.Errorf("trace: %w: no entry has this trace id", ErrNotFound)
	}
	return entries, err
}

// collect gathers entries; broken lines and gaps are joined into the error.
func collect(seq iter.Seq2[Entry, error]) ([]Entry, error) {
	var entries []Entry
	var errs []error
	for e, err := range seq {
		if err != nil {
			errs = append(errs, err)
			continue
		}
		entries = append(entries, e)
	}
	return entries, errors.Join(errs...)
}

// readEntry names a reading.
type readEntry struct{ eventType, action string }

func (t *Trail) query(ctx context.Context, operation string, q Query, as readEntry) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		g, err := t.authorize(ctx, operation)
		if err == nil {
			err = t.looksAtMasked(ctx, operation, g, &q)
		}
		if err != nil {
			yield(Entry{}, fmt.Errorf("query: %w", err))
			return
		}
		if err := q.Check(); err != nil {
			yield(Entry{}, fmt.Errorf("query: %w", err))
			return
		}
		if err := t.readable(); err != nil {
			yield(Entry{}, fmt.Errorf("query: %w", err))
			return
		}
		q := t.withPseudonyms(q)
		if err := t.noteRead(ctx, as, q.Facts()); err != nil {
			yield(Entry{}, fmt.Errorf("query: %w", err))
			return
		}
		t.scanFor(ctx, g, q)(yield)
	}
}

// scanFor is scan of what a grant shows.
func (t *Trail) scanFor(ctx context.Context, g grant, q Query) iter.Seq2[Entry, error] {
	if g == nil {
		return t.scan(ctx, q)
	}
	limit := q.Limit
	q.Limit = 0 // of what is shown
	return func(yield func(Entry, error) bool) {
		n := 0
		for e, err := range t.scan(ctx, q) {
			ok := false
			if err == nil {
				e, ok, err = t.seen(g, e)
			}
			if err == nil && !ok {
				continue
			}
			if n++; !yield(e, err) || err == nil && n == limit {
				return
			}
		}
	}
}

// scan is a query that is not recorded.
func (t *Trail) scan(ctx context.Context, q Query) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		view, err := t.view()
		if err != nil {
			yield(Entry{}, err)
			return
		}
		defer view.Close()
		for e, err := range query.Run(ctx, view, q, t.opened, t.opts.Progress) {
			if !yield(e, explainGap(err)) {
				return
			}
		}
	}
}

// goesOn tells an error after which a query gives what follows.
func goesOn(err error) bool {
	_, gap := errors.AsType[*GapError](err)
	return gap || isBroken(err) || errors.Is(err, ErrSealed)
}

// explainGap says of what is missing that it is damage, unless the system
// refused a file.
func explainGap(err error) error {
	gap, ok := errors.AsType[*GapError](err)
	if !ok {
		return err
	}
	if lost, ok := errors.AsType[*journal.SegmentError](gap.Err); ok && !lost.Damaged() {
		return gap
	}
	return fmt.Errorf("%w: %w", ErrDamaged, gap)
}

// view is what can be read now, and what should be.
func (t *Trail) view() (*journal.View, error) {
	// The checkpoint before the lines: a writer signs what is there already,
	// so that what it covers is there, or missing.
	covered, unknown := t.covered()
	t.lookAnew()
	view, err := t.lines()
	if err != nil {
		return nil, err
	}
	view.Expect(covered, unknown)
	return view, t.excuse(context.Background(), view)
}

// lines is what can be read now, for whoever knows what should be.
func (t *Trail) lines() (*journal.View, error) {
	if t.holds() {
		return t.journal.View()
	}
	return journal.OpenView(t.opts.fs, t.path, t.dir, segmentAfterSeal, t.fetched.segment)
}

// covered is how many lines the latest checkpoint covers. A trail that is being
// made has none yet.
func (t *Trail) covered() (int64, error) {
	c, _, err := t.latest()
	if errors.Is(err, fs.ErrNotExist) {
		if _, creating := t.opts.fs.Stat(filepath.Join(t.dir, "creating")); creating == nil {
			return 0, nil
		}
		return 0, errors.New("the trail's checkpoint is missing")
	}
	if err != nil {
		return 0, fmt.Errorf("the trail's checkpoint can't be used: %w", err)
	}
	return c.Size, nil
}

// segmentAfterSeal is the index of a line that seals the segment before it.
func segmentAfterSeal(line []byte) (int64, bool) {
	e, err := entry.Parse(line)
	if err != nil || !e.IsTrails() || e.EventType != "AUDIT_SEAL" {
		return 0, false
	}
	v, _ := e.Outputs.Get("segment")
	var s struct{ First, Count int64 }
	if json.Unmarshal(v.JSON(), &s) != nil || s.First < 0 || s.Count < 0 || s.First > math.MaxInt64-s.Count {
		return 0, false
	}
	return s.First + s.Count, true
}

// size is the number of entries that can be read now.
func (t *Trail) size(ctx context.Context) (int64, error) {
	if t.holds() {
		return t.journal.Next(), nil
	}
	view, err := t.lines()
	if err != nil {
		return 0, err
	}
	defer view.Close()
	return view.Count(ctx)
}

// noteRead records a reading.
func (t *Trail) noteRead(ctx context.Context, as readEntry, inputs map[string]any) error {
	size, err := t.size(ctx)
	if err != nil {
		return err
	}
	return t.noteReading(ctx, as, inputs, map[string]any{"size": size})
}

// noteReading is noteRead with what came of the reading. Where it can't be recorded,
// access decides: controlled, nothing is shown; else who reads is warned.
func (t *Trail) noteReading(ctx context.Context, as readEntry, inputs, outputs map[string]any) error {
	return t.noteReadingAs(ctx, as, inputs, outputs, false)
}

// noteReadingAs is noteReading; what must be recorded is an error where it can't.
func (t *Trail) noteReadingAs(ctx context.Context, as readEntry, inputs, outputs map[string]any, must bool) error {
	o := ownEntry{
		eventType: as.eventType, action: as.action, inputs: inputs, outputs: outputs,
		metadata: map[string]any{"principal": principal(), "command": t.command(), "pid": os.Getpid()},
	}
	if by, ok := peerOf(ctx); ok {
		o.by, o.metadata = by.RecordedBy(), map[string]any{"principal": by.Principal()}
	}
	if !t.opts.ReadOnly {
		err := t.writable(ctx)
		if err == nil {
			if r := t.remote.Load(); r != nil {
				err = r.note(ctx, o)
			} else {
				err = t.recordOwn(ctx, o)
			}
		}
		if err != nil {
			return fmt.Errorf("record the reading: %w", err)
		}
		return nil
	}
	if t.opts.Unrecorded {
		return nil
	}
	err := t.noteReadApart(ctx, o)
	switch {
	case err == nil:
	case t.controlled() || must:
		return advice.For(fmt.Errorf("%w: this reading can't be recorded, and what can't be recorded is not shown: %w", ErrDenied, err),
			"read as a user who may write there, or through the process that holds the trail; a copy of it is read with --unrecorded (Options.Unrecorded)")
	default:
		t.warn(fmt.Errorf("this reading could not be recorded: %w", err))
	}
	return nil
}

// noteReadApart records a reading for a trail that is open for reading: as its
// writer for a moment, through its holder, or in the spool.
func (t *Trail) noteReadApart(ctx context.Context, o ownEntry) error {
	w := t.opts
	w.ReadOnly, w.MustExist, w.quiet, w.CheckpointTo, w.Anchors = false, true, true, nil, nil
	w.Access = nil // whoever reads changes nothing of it
	writer, err := open(t.path, w)
	if err == nil {
		if r := writer.remote.Load(); r != nil {
			err = r.note(ctx, o)
		} else {
			err = writer.recordOwn(ctx, o)
		}
		if err = errors.Join(err, writer.Close()); err == nil {
			return nil
		}
	}
	if _, yes := others(t.opts.fs, t.dir); yes {
		return err // its owner could not read what this user puts into the spool
	}
	item, encodeErr := spoolItem(o, t.clock.now())
	if encodeErr != nil {
		return encodeErr
	}
	if enc := t.enc.Load(); enc != nil && enc.store != nil {
		if item.Inputs, err = sealText(item.Inputs, t.id.Origin, enc.store); err != nil {
			return err
		}
	}
	if spoolErr := spool.Put(t.opts.fs, filepath.Join(t.dir, "spool"), item); spoolErr != nil {
		return errors.Join(err, spoolErr)
	}
	return nil
}

// spoolItem is a reading as it waits in the spool.
func spoolItem(o ownEntry, now time.Time) (spool.Item, error) {
	inputs, err := detectors.Value(o.inputs)
	if err != nil {
		return spool.Item{}, err
	}
	outputs, err := Of(o.outputs).AppendJSON(nil)
	if err != nil {
		return spool.Item{}, err
	}
	meta, err := Of(o.metadata).AppendJSON(nil)
	return spool.Item{
		Format: spool.Format, ID: spool.NewID(now), At: formatTime(now), EventType: o.eventType, Action: o.action,
		Inputs: inputs, Outputs: outputs, Metadata: meta,
	}, err
}

// warn tells what went wrong without failing a call.
func (t *Trail) warn(err error) {
	if err == nil {
		return
	}
	t.warnings.add(err.Error())
	if t.opts.Warn != nil {
		t.opts.Warn(err)
	}
}
