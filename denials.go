package audit

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"
)

// denials has the first refusal of each principal recorded at once, and counts those
// that follow within a period, which become one entry when it is over: who is refused
// in a loop writes no flood of entries.
type denials struct {
	mu sync.Mutex
	by map[string]*denied // by principal
}

// denied is what was refused to a principal since an entry said so.
type denied struct {
	since time.Time
	count int64
	calls map[string]int64
}

const (
	// denialPeriod is how far two entries about one principal's refusals lie apart.
	denialPeriod = time.Minute
	// maxDenied is how many principals are told apart within it.
	maxDenied = 1000
	// otherPrincipals stands for those beyond.
	otherPrincipals = "others"
)

func (d *denied) over(now time.Time) bool { return now.Sub(d.since).Abs() >= denialPeriod }

func (d *denied) add(operation string, n int64) {
	if d.calls == nil {
		d.calls = map[string]int64{}
	}
	d.count += n
	d.calls[operation] += n // calls are those of operations: there are few
}

// noteDenied records or counts that a call was refused.
func (t *Trail) noteDenied(ctx context.Context, who, operation string) error {
	if _, known := operations[operation]; !known {
		operation = "unknown"
	}
	now := t.clock.source()
	var errs []error
	t.denials.mu.Lock()
	d, ok := t.denials.by[who]
	if !ok && len(t.denials.by) >= maxDenied {
		t.denials.mu.Unlock()
		errs = append(errs, t.flushDenials(ctx, false)) // a reader has nobody who does
		t.denials.mu.Lock()
		if len(t.denials.by) >= maxDenied {
			who = otherPrincipals
			d, ok = t.denials.by[who]
		}
	}
	if ok && !d.over(now) {
		d.add(operation, 1)
		t.denials.mu.Unlock()
		return errors.Join(errs...)
	}
	if t.denials.by == nil {
		t.denials.by = map[string]*denied{}
	}
	next := &denied{since: now}
	t.denials.by[who] = next
	t.denials.mu.Unlock()
	if ok {
		errs = append(errs, t.tellDenied(ctx, who, d))
	}
	if err := t.noteRead(ctx, readEntry{"AUDIT_QUERY", "denied"}, map[string]any{"call": operation, "principal": who}); err != nil {
		t.denials.mu.Lock()
		next.add(operation, 1) // it is told with those that follow
		t.denials.mu.Unlock()
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// flushDenials records what was counted in periods that are over, or, at the end, in
// all.
func (t *Trail) flushDenials(ctx context.Context, all bool) error {
	now := t.clock.source()
	told := map[string]*denied{}
	t.denials.mu.Lock()
	for who, d := range t.denials.by {
		if all || d.over(now) {
			told[who] = d
			delete(t.denials.by, who)
		}
	}
	t.denials.mu.Unlock()
	var errs []error
	for who, d := range told {
		errs = append(errs, t.tellDenied(ctx, who, d))
	}
	return errors.Join(errs...)
}

// tellDenied records what was counted of one principal. Where it can't, the next time
// tells of it.
func (t *Trail) tellDenied(ctx context.Context, who string, d *denied) error {
	if d.count == 0 {
		return nil
	}
	type call struct {
		Call  string `json:"call"`
		Count int64  `json:"count"`
	}
	calls := []call{}
	for _, name := range slices.Sorted(maps.Keys(d.calls)) {
		calls = append(calls, call{name, d.calls[name]})
	}
	err := t.noteReading(ctx, readEntry{"AUDIT_QUERY", "denied"}, map[string]any{"calls": calls, "principal": who},
		map[string]any{"count": d.count, "since": formatTime(d.since)})
	if err == nil || errors.Is(err, ErrUnknown) {
		return err
	}
	t.denials.mu.Lock()
	defer t.denials.mu.Unlock()
	if t.denials.by == nil {
		t.denials.by = map[string]*denied{}
	}
	if now, ok := t.denials.by[who]; ok {
		for operation, n := range d.calls {
			now.add(operation, n)
		}
	} else {
		t.denials.by[who] = d
	}
	return err
}
