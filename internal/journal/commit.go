package journal

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
)

const (
	// gatherPart is the part of a commit's time after which no more callers are
	// waited for when none came in it, and gatherMost how many times as long as
	// a commit the whole wait may take. A half and an eighth, once and four
	// times gave no larger batches.
	gatherPart = 4
	gatherMost = 2
	// manyCallers is from how many callers on the two lanes of the ring are
	// used: with fewer a sync of its own for each half costs more than it gives.
	manyCallers = 16
	// startStep is after how many bytes of the segment the device begins to get them.
	// All at once, when the segment is synced, they would be before every batch of the
	// ring that comes then: with 64 writers it gave a twentieth more entries.
	startStep = 256 << 10
)

// exclusive takes the commit lock and waits for what is on its way.
func (j *Journal) exclusive() {
	j.commit.Lock()
	j.mu.Lock()
	j.awaitLocked(0)
	j.mu.Unlock()
}

// awaitLocked waits until at most n batches are on their way; commit and mu are
// held.
func (j *Journal) awaitLocked(n int64) {
	for j.begun-j.commits > n {
		j.turn.Wait()
	}
}

// lead commits the current batch and sees to it that somebody leads the next.
// The caller has set leading.
func (j *Journal) lead() {
	j.commit.Lock()
	j.mu.Lock()
	j.gatherLocked()
	b := j.begin()
	j.mu.Lock()
	more := len(j.cur.digests) > 0
	if !more {
		j.leading = false
		j.idle.Broadcast()
	}
	j.mu.Unlock()
	j.commit.Unlock()
	if more {
		go j.lead()
	}
	if b != nil { // else a seal was faster
		j.finish(b)
	}
}

// gatherLocked waits for a lane, and then lets those whom a batch before has woken,
// and who are about to come again, come into this one: as long as they come, and
// within bounds. A sync costs as much processor time as the encoding of fifty
// entries, so that where the processors are the limit large batches are what is
// fast. Many callers make two halves: while one is on its way the other encodes.
func (j *Journal) gatherLocked() {
	all := j.woken + j.cur.callers + j.flying
	many := all >= manyCallers && j.ring != nil && j.opts.Mode == Durable
	if many {
		j.awaitLocked(lanes - 1)
	} else {
		j.awaitLocked(0)
	}
	target := j.cur.callers + j.woken
	if many {
		target = min(target, (all+lanes-1)/lanes)
	}
	if j.cur.callers >= target {
		return
	}
	took := j.took
	j.target = target
	j.mu.Unlock()

	if many {
		j.sleep(took)
	} else {
		j.spin(took)
	}
	j.mu.Lock()
	if j.target == 0 { // it is full: the word of it may still be there
		select {
		case <-j.full:
		default:
		}
	} else { // who has not come is not waited for again
		j.target, j.woken = 0, 0
	}
}

// sleep waits until the batch is full, took at most, and leaves the processor to
// who fills it.
func (j *Journal) sleep(took time.Duration) {
	t := time.NewTimer(took)
	defer t.Stop()
	select {
	case <-j.full:
	case <-t.C:
	}
}

// spin is sleep for a few callers, where timers are too coarse. It gives way to
// other processes too, such as clients of the socket that are about to send.
func (j *Journal) spin(took time.Duration) {
	start, came := time.Now(), j.came.Load()
	for last := start; ; {
		select {
		case <-j.full:
			return
		default:
		}
		runtime.Gosched()
		yieldProcessor()
		now := time.Now()
		if n := j.came.Load(); n != came {
			came, last = n, now
		}
		if now.Sub(last) > took/gatherPart || now.Sub(start) > gatherMost*took {
			return
		}
	}
}

// commitCurrent commits the current batch, if there is one, and wakes who waits
// for it; commit is held.
func (j *Journal) commitCurrent() {
	j.mu.Lock()
	if b := j.begin(); b != nil {
		j.finish(b)
	}
}

// takeLocked makes the current batch one that is on its way.
func (j *Journal) takeLocked() *batch {
	b := j.cur
	if len(b.digests) == 0 {
		return nil
	}
	if b.room != nil {
		close(b.room)
	}
	if j.cur = j.spare.Swap(nil); j.cur == nil {
		j.cur = new(batch)
	}
	if n := len(j.spares); n > 0 {
		j.cur.buf, j.cur.digests = j.spares[n-1].buf[:0], j.spares[n-1].digests[:0]
		j.spares = j.spares[:n-1]
	}
	j.flying += b.callers
	if j.opts.Mode == Durable || b.callers > 1 { // a lone write is not worth the look at the clock
		b.start = time.Now()
	}
	b.ticket = j.begun
	j.begun++
	return b
}

// begin takes the current batch and gives it its place; commit is held, and mu, which
// it gives back. It is nil where there is none. Its error is in the batch.
func (j *Journal) begin() *batch {
	b := j.takeLocked()
	err, closed := j.stopped, j.closed
	j.mu.Unlock()
	if b == nil {
		return nil
	}
	for {
		if err == nil {
			err = j.write(b)
		}
		b.err = err
		if !errors.Is(err, ErrFull) || !b.given || closed {
			return b
		}
		// Acknowledged lines wait for space. They had it reserved, so it takes
		// a file system that breaks its word to get here.
		select {
		case <-time.After(retryFull):
		case <-j.closing:
		}
		j.mu.Lock()
		err, closed = j.stopped, j.closed
		j.mu.Unlock()
	}
}

// write gives a batch its place. In mode Durable that is the open segment, and then
// the ring, or else the segment is synced. In mode Written it is the ring, where there
// is one that can take it, and the segment has it soon after; or else the segment.
// Crash: the segment ends in a prefix of the batch, or in garbage as long as what was
// not synced, none of it acknowledged but what the ring has.
func (j *Journal) write(b *batch) error {
	lines := b.lines()
	n := int64(len(lines))
	if err := j.reserve(n); err != nil {
		return err
	}
	at := j.offset
	// What is acknowledged before the segment has it must have its space there.
	behind := j.opts.Mode == Written && at+n <= j.reserved && j.placeRing(b, at)
	var err error
	if behind {
		err = j.leave(lines)
	} else {
		err = j.append(lines)
	}
	if err != nil {
		return err
	}
	j.offset += n
	unsynced := j.unsynced.Add(n)
	due := unsynced >= maxUnsynced
	if j.opts.Mode == Durable {
		due = !j.placeRing(b, at)
	}
	if !due {
		return nil
	}
	// Invariant 1. Crash after this: the lines are there.
	b.synced = true
	return j.sync()
}

// append writes lines to the open segment.
func (j *Journal) append(lines []byte) error {
	if err := j.CatchUp(); err != nil {
		return err
	}
	n, err := j.file.Write(lines)
	if err == nil && n < len(lines) {
		err = io.ErrShortWrite
	}
	if err == nil {
		if j.dirty += n; j.dirty >= startStep && j.opts.Mode == Durable {
			j.dirty = 0
			durable.StartSync(j.file)
		}
		return nil
	}
	// Half a line must not stay before the next one (invariant 5).
	if cut := j.file.Truncate(j.offset); cut != nil {
		return j.stop(fmt.Errorf("write: %w; cut back: %w", err, cut))
	}
	j.reserved = j.offset // truncation gave the space back
	if isFull(err) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return j.stop(fmt.Errorf("write: %w", err))
}

// finish puts a batch into the ring, where it has a place there, and acknowledges it
// after all before it.
func (j *Journal) finish(b *batch) {
	// Invariant 1. Crash after this: the lines are there.
	if b.err == nil && b.slot.lane != nil {
		b.err = j.put(b)
	}
	n := int64(len(b.digests))
	j.mu.Lock()
	for j.commits < b.ticket {
		j.turn.Wait()
	}
	// The lines are what the disk has now: say so before anyone is woken.
	b.first = j.next
	due := j.commits+1 == j.ringDue || b.turned
	if b.err == nil {
		b.err = j.broken
	}
	if b.err == nil {
		j.rememberLocked(b.lines(), n)
		if b.synced {
			j.synced = j.next
		}
	} else {
		j.accepted -= n
		if !errors.Is(b.err, ErrFull) && j.broken == nil {
			j.broken = b.err // what it wrote may be there, and never counts
		}
	}
	j.mu.Unlock()
	if b.err == nil && j.opts.Acknowledged != nil {
		j.opts.Acknowledged(b.first, b.digests)
	}
	if due && j.opts.Due != nil {
		j.opts.Due()
	}
	j.mu.Lock()
	// A giant is left to the collector, and what the kernel may still read.
	if b.err == nil && cap(b.buf) <= 2*batchBytes && len(j.spares) < lanes {
		j.spares = append(j.spares, batch{buf: b.buf, digests: b.digests})
	}
	b.buf, b.digests = nil, nil
	j.commits++
	j.flying -= b.callers
	j.woken += b.callers
	if !b.start.IsZero() {
		j.took = time.Since(b.start)
	}
	j.turn.Broadcast()
	if b.done != nil {
		close(b.done)
	}
	j.mu.Unlock()
}

// put puts a batch into the ring. In mode Written the segment can do without it:
// where the ring can't be written to, since somebody has cut it short or its file
// system wants space for it, it has what was acknowledged, and so has this batch.
func (j *Journal) put(b *batch) error {
	err := b.slot.put(b)
	if err == nil {
		return nil
	}
	if !b.slot.ring.kind.sync {
		b.slot.ring.gone.Store(true)
		if j.CatchUp() == nil {
			return nil
		}
	}
	return j.stop(fmt.Errorf("ring: %w", err))
}
