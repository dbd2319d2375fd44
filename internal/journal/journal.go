package journal

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
)

// Digest is the SHA-256 of a line without its newline.
type Digest = [sha256.Size]byte

// Mode says when an append is acknowledged.
type Mode int

// Modes, as the trail's durability documents them.
const (
	Durable Mode = iota
	Written
	Queued
)

const (
	// batchBytes bounds the lines that wait for a commit, unless one append
	// alone is larger: whoever comes after waits for the next batch.
	batchBytes = 4 << 20
	// maxUnsynced bounds what Written and Queued write between two syncs, so
	// that what a power failure can tear is bounded too.
	maxUnsynced = 32 << 20
	// reserveStep is how much space is reserved at a time, beyond what is
	// accepted and not yet written.
	reserveStep = 8 << 20
	// retryFull is how long a queued batch waits for space.
	retryFull = 200 * time.Millisecond
	// offsetEvery is how many lines lie between two remembered offsets.
	offsetEvery = 1024
)

// Errors of appends. After an error that is ErrStopped the journal takes no
// more lines, and every later call returns that first error.
var (
	ErrClosed  = errors.New("journal is closed")
	ErrFull    = errors.New("no space left")
	ErrStopped = errors.New("journal has stopped")
	// ErrUnknown: the caller's context ended while its lines were being
	// written; they may or may not become part of the trail.
	ErrUnknown = errors.New("outcome not known")
)

// Options of Open.
type Options struct {
	FS   durable.FS
	Path string // the open segment
	Dir  string // the trail's directory
	Mode Mode
	// Ring is the size of the ring in bytes; 0 means none.
	Ring int64
	// RingAfter is how many commits are made before there is a ring; 0 means
	// 32.
	RingAfter int64
	// CatchUp is how long the open segment may lack acknowledged lines that the ring
	// has, where nobody asks; 0 means until somebody does.
	CatchUp time.Duration
	// Archive has the segments whose files are in the archive only; nil where there
	// is none to ask.
	Archive Archive
	// Due is called when Sync and Quicken should be called soon, lest an append
	// waits for what they do. It must not call the journal.
	Due func()
	// Acknowledged is called with the digests of every batch, in order,
	// before its callers are woken; it must not keep the slice, nor call the
	// journal. In mode Durable the lines are on disk; otherwise Sync says up
	// to where.
	Acknowledged func(first int64, digests []Digest)
}

// Journal is an open journal. It is safe for concurrent use once Start was
// called.
type Journal struct {
	opts Options

	// commit is held by whoever writes to the open segment, with these under
	// it. Batches may be on their way to the ring then; exclusive waits for them.
	commit    sync.Mutex
	file      durable.File // exchanged under syncing too
	offset    int64        // end of the open segment's last line, behind included
	reserved  int64        // space asked for, from the file's start
	noReserve bool         // the file system can't
	dirty     int          // bytes of the segment whose writing out was not begun
	ring      *ring        // nil where there is none

	behind behind
	late   chan struct{} // the segment lacks something; nil where nobody is told

	// syncing is held during a sync and what follows from its error: the
	// kernel tells a failure once, and nobody may take the next sync's success
	// for an answer.
	syncing  sync.Mutex
	unsynced atomic.Int64 // bytes since the last sync, behind included

	came atomic.Int64  // appends since the opening
	size atomic.Int64  // acknowledged bytes of the open segment; written under mu
	full chan struct{} // so many are in the batch as its leader waits for

	// closing is closed when Close begins.
	closing chan struct{}

	mu       sync.Mutex // with these under it
	cur      *batch
	spare    atomic.Pointer[batch] // to be used again; not under mu
	spares   []batch               // buffers of batches before, to be used again
	leading  bool                  // somebody leads or is about to
	idle     *sync.Cond            // leading went false
	took     time.Duration         // by the last commit
	woken    int                   // callers that were woken and have not come again
	flying   int                   // callers of batches on their way
	target   int                   // callers that the leader waits for; 0 for none
	begun    int64                 // batches that were given their place, since the opening
	commits  int64                 // batches that were committed, since the opening
	turn     *sync.Cond            // commits has grown
	broken   error                 // of a batch, for those behind it
	ringDue  int64                 // commits after which a ring is worth making
	paused   chan struct{}         // closed when a seal ends; nil while there is none
	accepted int64                 // index of the next line to be accepted
	lowSpace bool                  // no space is reserved for what is accepted
	first    int64                 // of the open segment
	next     int64                 // index of the next line to be acknowledged
	synced   int64                 // lines known to be on disk
	offsets  []int64               // of every offsetEvery-th line of the open segment
	segments []Segment             // sealed and cut off, ascending
	stopped  error
	closed   bool
}

// batch is what one commit writes.
type batch struct {
	buf     []byte // room for the head of a frame of the ring, and the lines
	digests []Digest
	callers int           // how many wait for it
	given   bool          // it has lines that were acknowledged already
	room    chan struct{} // closed when taken; made by who waits for it
	done    chan struct{} // closed when committed; made by who waits for it
	first   int64
	err     error

	// Since it is on its way:
	ticket int64 // its place in the order of commits
	start  time.Time
	slot   slot // of the ring; without a lane it needs none
	turned bool // it began a half of the ring
	synced bool // with all before it in the segment
}

func (b *batch) add(lines []byte, digests []Digest) {
	if len(b.buf) == 0 {
		b.buf = roomFor(b.buf, frameHead+len(lines))[:frameHead]
	}
	b.buf = append(roomFor(b.buf, len(lines)), lines...)
	b.digests = append(b.digests, digests...)
}

// lines are the batch's, each with its newline.
func (b *batch) lines() []byte { return b.buf[min(frameHead, len(b.buf)):] }

// Append adds lines: buf holds them, each with its newline, digests one for
// each. They are committed together, in order. It returns the index of the
// first once they are acknowledged.
//
// An error that is ErrUnknown says that the context ended after the lines were
// accepted. With ErrFull, and with the context's own error, none of them was
// recorded. After ErrStopped a later opening tells.
func (j *Journal) Append(ctx context.Context, buf []byte, digests []Digest) (first int64, err error) {
	j.mu.Lock()
	for {
		if err := j.refuseLocked(); err != nil {
			j.mu.Unlock()
			return 0, err
		}
		b := j.cur
		room := j.paused
		if room == nil {
			if len(b.digests) == 0 || len(b.buf)+len(buf) <= batchBytes {
				break
			}
			if b.room == nil {
				b.room = make(chan struct{})
			}
			room = b.room
		}
		j.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		j.mu.Lock()
	}
	b, at := j.cur, int64(len(j.cur.digests))
	j.came.Add(1)
	b.add(buf, digests)
	first = j.accepted
	j.accepted += int64(len(digests))
	// Queued lines are not waited for, unless no space is reserved for them:
	// a full disk is met before the acknowledgement.
	wait := j.opts.Mode != Queued || j.lowSpace || len(buf) > batchBytes
	if wait {
		b.callers++
		j.woken = max(j.woken-1, 0)
	} else {
		b.given = true
	}
	if j.target > 0 && b.callers >= j.target {
		j.target = 0
		j.full <- struct{}{} // has room: its reader is the one who set target
	}
	lead := !j.leading
	j.leading = true
	inline := lead && wait && ctx.Done() == nil
	if wait && !inline && b.done == nil {
		b.done = make(chan struct{})
	}
	done := b.done
	j.mu.Unlock()

	switch {
	case inline:
		j.lead()
	case lead:
		go j.lead()
	}
	if !wait {
		return first, nil
	}
	switch {
	case inline:
	case ctx.Done() == nil:
		<-done
	default:
		select {
		case <-done:
		case <-ctx.Done():
			select {
			case <-done:
			default:
				return 0, fmt.Errorf("%w: %w", ErrUnknown, ctx.Err())
			}
		}
	}
	first, err = b.first+at, b.err
	if inline && b.callers == 1 { // nobody else knows it
		*b = batch{}
		j.spare.Store(b)
	}
	if err != nil {
		return 0, err
	}
	return first, nil
}

// AppendMade adds lines that have to know their index: made is given it and returns
// them as Append takes them. No other append runs meanwhile. It returns as Append
// does, and a failing made adds nothing.
func (j *Journal) AppendMade(made func(first int64) (buf []byte, digests []Digest, err error)) (first int64, err error) {
	j.exclusive()
	defer j.commit.Unlock()
	resume := j.pause()
	defer resume()
	j.mu.Lock()
	first, err = j.next, j.refuseLocked()
	j.mu.Unlock()
	if err != nil {
		return 0, err
	}
	buf, digests, err := made(first)
	if err != nil {
		return 0, err
	}
	j.mu.Lock()
	b := j.cur // empty, and nobody else adds to it
	b.add(buf, digests)
	j.accepted += int64(len(digests))
	j.mu.Unlock()
	j.commitCurrent()
	return b.first, b.err
}

func (j *Journal) refuseLocked() error {
	switch {
	case j.stopped != nil:
		return j.stopped
	case j.closed:
		return ErrClosed
	}
	return nil
}

// rememberLocked counts acknowledged lines in, and remembers where every
// offsetEvery-th of them begins.
func (j *Journal) rememberLocked(buf []byte, n int64) {
	from, to, size := j.next-j.first, j.next-j.first+n, j.size.Load()
	if from/offsetEvery != to/offsetEvery || from%offsetEvery == 0 {
		at := 0
		for i := from; i < to; i++ {
			if i%offsetEvery == 0 {
				j.offsets = append(j.offsets, size+int64(at))
			}
			at += lineEnd(buf[at:])
		}
	}
	j.next += n
	j.size.Store(size + int64(len(buf)))
}

// sync syncs the open segment; an error stops the journal (invariant 4).
func (j *Journal) sync() error {
	j.syncing.Lock()
	defer j.syncing.Unlock()
	if err := j.Err(); err != nil {
		return err
	}
	before := j.unsynced.Load()
	if err := j.CatchUp(); err != nil {
		return err
	}
	if err := j.file.Sync(); err != nil {
		return j.stop(fmt.Errorf("sync: %w", err))
	}
	j.unsynced.Add(-before)
	return nil
}

// reserve asks for space for need bytes and for all that may be accepted
// while they are written. Where there is not so much, exactly for need.
func (j *Journal) reserve(need int64) error {
	const ahead = 2 * batchBytes
	if j.noReserve || j.offset+need+ahead <= j.reserved {
		return nil
	}
	low := false
	want := j.offset + need + ahead + reserveStep
	err := j.file.Reserve(want)
	if isFull(err) {
		low = true
		if want = j.offset + need; want > j.reserved {
			err = j.file.Reserve(want)
		} else {
			want, err = j.reserved, nil
		}
	}
	j.mu.Lock()
	j.lowSpace = low
	j.mu.Unlock()
	switch {
	case err == nil:
		j.reserved = want
	case errors.Is(err, errors.ErrUnsupported):
		j.noReserve = true
	case isFull(err):
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	// Any other error: the write itself will tell.
	return nil
}

func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// Stop ends the journal: err, found by somebody else, is the first error of all
// later calls, unless there was one before.
func (j *Journal) Stop(err error) { _ = j.stop(err) }

// stop makes err the first error of all later calls (invariant 4).
func (j *Journal) stop(err error) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.stopped == nil {
		j.stopped = fmt.Errorf("%w: %w", ErrStopped, err)
	}
	return j.stopped
}

// Sync makes every acknowledged line durable and returns how many there are.
func (j *Journal) Sync() (size int64, err error) {
	j.mu.Lock()
	next, err := j.next, j.stopped
	current := j.synced == next
	j.mu.Unlock()
	if err != nil || current {
		return next, err
	}
	// Appends go on while the disk works. A seal in between has synced the
	// file that it closed.
	if err := j.sync(); err != nil {
		return 0, err
	}
	j.mu.Lock()
	j.synced = max(j.synced, next)
	j.mu.Unlock()
	return next, nil
}

// flushLook is how often Flush looks whether the queue is written.
const flushLook = 100 * time.Microsecond

// Flush is Sync after what waits in a queue now was written: on a full disk
// that is until there is space, the journal stops, is closed, or ctx ends.
func (j *Journal) Flush(ctx context.Context) error {
	j.mu.Lock()
	accepted := j.accepted
	for j.next < min(accepted, j.accepted) { // what is given up on a full disk is not waited for
		err := j.refuseLocked()
		j.mu.Unlock()
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		time.Sleep(flushLook)
		j.mu.Lock()
	}
	j.mu.Unlock()
	_, err := j.Sync()
	return err
}

// Next is the number of acknowledged lines in the trail.
func (j *Journal) Next() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.next
}

// First is the index of the first line of the open segment.
func (j *Journal) First() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.first
}

// OpenBytes is the size of the open segment.
func (j *Journal) OpenBytes() int64 { return j.size.Load() }

// Err is the error that stopped the journal.
func (j *Journal) Err() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.stopped
}

// Close commits what was accepted, syncs and closes the file. It returns what
// kept accepted lines from being written.
func (j *Journal) Close() error {
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return nil
	}
	j.closed = true
	close(j.closing)
	lead := len(j.cur.digests) > 0 && !j.leading
	if lead {
		j.leading = true
	}
	j.mu.Unlock()
	if lead {
		j.lead()
	}
	j.mu.Lock()
	for j.leading { // whoever leads now finishes first
		j.idle.Wait()
	}
	j.mu.Unlock()
	j.exclusive()
	defer j.commit.Unlock()
	errs := []error{j.CatchUp()} // what is acknowledged, also where the journal has stopped
	if j.Err() == nil {
		var err error
		if !j.noReserve && j.reserved > j.offset {
			err = j.file.Truncate(j.offset)
		}
		errs = append(errs, err, j.sync())
		if err := errors.Join(errs...); err == nil {
			j.mu.Lock()
			j.synced = j.next
			j.mu.Unlock()
			errs = append(errs, j.dropRing())
		}
	}
	j.mu.Lock()
	if lost := j.accepted - j.next; lost > 0 && j.opts.Mode == Queued {
		cause := j.stopped
		if cause == nil {
			cause = ErrFull
		}
		errs = append(errs, fmt.Errorf("%d accepted entries were not written: %w", lost, cause))
	}
	j.mu.Unlock()
	if j.ring != nil { // something went wrong: its lines may be needed
		errs = append(errs, j.ring.close())
	}
	j.behind.soon.Wait()
	return errors.Join(append(errs, j.file.Close())...)
}
