package audit

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/kaizen-audit/kaizen-audit/entry"
)

// The intervals of Options.RotationInterval.
const (
	RotateDaily   = "daily"
	RotateWeekly  = "weekly"
	RotateMonthly = "monthly"
	RotateNever   = "never" // by size and by hand alone
)

// periodOf is when the period that t lies in began, in UTC.
func periodOf(interval string, t time.Time) time.Time {
	y, m, d := t.UTC().Date()
	switch interval {
	case RotateMonthly:
		d = 1
	case RotateWeekly:
		d -= (int(t.UTC().Weekday()) + 6) % 7
	}
	return time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
}

// periodAfter is when the period after the one of t begins.
func periodAfter(interval string, t time.Time) time.Time {
	start := periodOf(interval, t)
	switch interval {
	case RotateMonthly:
		return start.AddDate(0, 1, 0)
	case RotateWeekly:
		return start.AddDate(0, 0, 7)
	}
	return start.AddDate(0, 0, 1)
}

// longestSleep bounds how long the clock is not looked at, which may be set.
const longestSleep = time.Minute

// stays is after how long a process does what may take long.
const stays = time.Second

// rotation seals and prunes when their time has come, in the background.
type rotation struct {
	stopped chan struct{}
	wake    chan struct{} // something may be due before its time
	wg      sync.WaitGroup

	mu      sync.Mutex
	first   int64     // of the open segment that began
	began   time.Time // then
	stopOne sync.Once
}

// start seals the open segment when its period is over, also when nothing is
// recorded, carries out erasures that were scheduled, and prunes once a day. It begins
// with what an earlier process left.
func (r *rotation) start(t *Trail) {
	r.stopped, r.wake = make(chan struct{}), make(chan struct{}, 1)
	r.wg.Go(func() { r.run(t) })
}

// stop ends it, and returns when it has ended.
func (r *rotation) stop() {
	if r.stopped != nil {
		r.stopOne.Do(func() { close(r.stopped) })
		r.wg.Wait()
	}
}

// soon has it look now.
func (r *rotation) soon() {
	select {
	case r.wake <- struct{}{}:
	default: // it will, or there is nobody who does
	}
}

func (r *rotation) run(t *Trail) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-r.stopped:
			cancel()
		case <-ctx.Done():
		}
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	// A process that is there for a moment leaves erasing and pruning to those that
	// stay.
	erase, prune := time.Now().Add(stays), time.Now().Add(longestSleep)
	for {
		woken := false
		select {
		case <-r.stopped:
			return
		case <-timer.C:
		case <-r.wake:
			woken = true
		}
		now := t.clock.source()
		t.rotateIfDue(now)
		if err := t.flushDenials(context.Background(), false); err != nil && t.journal.Err() == nil {
			t.warn(err)
		}
		sleep := longestSleep
		if wait := time.Until(erase); woken || wait <= 0 {
			t.eraseByItself(ctx)
		} else {
			sleep = wait
		}
		if !time.Now().Before(prune) {
			prune = time.Now().Add(24 * time.Hour)
			t.pruneByItself()
		}
		timer.Reset(min(periodAfter(RotateDaily, now).Sub(now), sleep))
	}
}

// rotateIfDue seals the open segment if its period is over and it has more than what
// the last seal left.
func (t *Trail) rotateIfDue(now time.Time) {
	if t.opts.RotationInterval == RotateNever || t.journal.Err() != nil {
		return
	}
	began, err := t.openSince()
	if err != nil {
		t.warn(err)
		return
	}
	start := periodOf(t.opts.RotationInterval, now)
	due := func(int64) bool {
		return began.Before(start) && t.journal.Next()-t.journal.First() > 1
	}
	if !due(0) {
		return
	}
	s, err := t.cut(context.Background(), due)
	if err == nil && s != nil {
		_, err = t.compress(*s)
	}
	if err != nil && t.journal.Err() == nil {
		t.warn(err)
	}
}

// openSince is when the open segment began: the time of its first line, which is one
// of the trail's own and in clear.
func (t *Trail) openSince() (time.Time, error) {
	r := &t.rotation
	r.mu.Lock()
	defer r.mu.Unlock()
	first := t.journal.First()
	if r.first == first && !r.began.IsZero() {
		return r.began, nil
	}
	view, err := t.journal.View()
	if err != nil {
		return time.Time{}, err
	}
	defer view.Close()
	line, err := view.Line(context.Background(), first)
	if err != nil {
		return time.Time{}, err
	}
	e, err := entry.Parse(line)
	if err != nil {
		return time.Time{}, err
	}
	r.first, r.began = first, e.RecordedAt
	return r.began, nil
}

// pruneByItself prunes what is due where a period was set.
func (t *Trail) pruneByItself() {
	ctx := WithTrailItself(context.Background())
	r, err := t.Retention(ctx)
	if err == nil && r.Set {
		_, err = t.Prune(ctx, nil)
	}
	if err != nil && !errors.Is(err, ErrClosed) && t.journal.Err() == nil {
		t.warn(err)
	}
	if err == nil && r.Set {
		t.pruneArchiveByItself(ctx)
	}
}
