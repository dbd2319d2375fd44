package socket

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"sync/atomic"
)

const (
	// leastBuffer is what an idle stream costs; ownBuffer is what every
	// stream may have, and keeps once it needed it.
	leastBuffer = 16 << 10
	ownBuffer   = 64 << 10
	// batchBuffer is what one read takes at most, unless a line is longer: 500
	// events of common size.
	batchBuffer = 256 << 10
	// leastRoom is what a read is worth a system call for.
	leastRoom = 512
)

// errLongLine: a line is longer than a line may be. errNoRoom: the memory that
// long lines share is used up. In both cases the line was passed over.
var (
	errLongLine = errors.New("line is too long")
	errNoRoom   = errors.New("no memory for the line")
)

// budget is what the large buffers of many streams may have together, in
// bytes.
type budget struct{ left atomic.Int64 }

func (b *budget) take(n int) bool {
	if b.left.Add(-int64(n)) < 0 {
		b.left.Add(int64(n))
		return false
	}
	return true
}

func (b *budget) give(n int) { b.left.Add(int64(n)) }

// batchBuffers are buffers of batchBuffer bytes.
var batchBuffers = sync.Pool{New: func() any { b := make([]byte, batchBuffer); return &b }}

// lineReader splits what arrives into lines. Buffers beyond ownBuffer come
// out of the budget, and go back as soon as they are empty.
//
//	for {
//		for line, ok, err := r.next(); ok; line, ok, err = r.next() { … }
//		if r.end != nil { … }
//		r.fill()
//	}
type lineReader struct {
	src    io.Reader
	max    int // bytes of the longest line, newline excluded
	shared *budget

	buf     []byte
	from    int   // buf[from:to] is not given out
	to      int   //
	scanned int   // buf[from:from+scanned] has no newline
	skip    error // why the line at hand is passed over; nil while it is not
	end     error // what ended the source
	wide    bool  // a large buffer was needed, and will be again
}

// next gives the next line that is there, without its newline: it is good
// until fill. When ok is false there is none, and fill may bring more. A line
// that could not be kept has an error in its place. What stands before the end
// of the source without a newline is a line too; before any other error it is
// none.
func (r *lineReader) next() (line []byte, ok bool, err error) {
	rest := r.buf[r.from:r.to]
	i := bytes.IndexByte(rest[r.scanned:], '\n')
	if i >= 0 {
		line = rest[:r.scanned+i]
		r.from += len(line) + 1
	} else {
		r.scanned = len(rest)
		if r.end != io.EOF || len(rest) == 0 && r.skip == nil {
			return nil, false, nil
		}
		line = rest
		r.from = r.to
	}
	r.scanned = 0
	switch {
	case r.skip != nil:
		err, r.skip = r.skip, nil
		return nil, true, err
	case len(line) > r.max:
		return nil, true, errLongLine
	}
	return line, true, nil
}

// partial says that a line has begun and its end is not there.
func (r *lineReader) partial() bool { return r.from < r.to || r.skip != nil }

// fill reads once, more or the source's end. It must only be called when next
// has no line and the source has not ended.
func (r *lineReader) fill() {
	r.rest()
	r.makeRoom()
	var n int
	n, r.end = r.src.Read(r.buf[r.to:])
	r.to += n
}

// makeRoom sees to it that there is room to read into.
func (r *lineReader) makeRoom() {
	if r.skip == nil && r.to-r.from > r.max {
		r.skip = errLongLine
	}
	if r.skip != nil { // of a line that is passed over nothing is kept
		r.from, r.to, r.scanned = 0, 0, 0
	}
	tight := len(r.buf)-r.to < leastRoom
	switch {
	case len(r.buf) == 0 && r.wide && r.exchange(batchBuffer):
	case len(r.buf) == 0:
		r.buf = make([]byte, leastBuffer)
	case tight && len(r.buf) < batchBuffer, r.to == len(r.buf) && r.from == 0:
		r.grow() // it comes faster than we read, or the line is long
	case r.from == r.to:
		r.from, r.to = 0, 0
	case tight:
		r.compact(r.buf)
	}
}

// rest gives a large buffer back while nothing is in it.
func (r *lineReader) rest() {
	if r.from == r.to && len(r.buf) > ownBuffer {
		r.wide = true
		r.release()
	}
}

// widen makes room where lines wait that were not given out yet, as long as
// they are no more than is taken at once; it tells whether there is room.
func (r *lineReader) widen() bool {
	switch {
	case r.from == r.to:
		r.makeRoom()
	case len(r.buf)-r.to >= leastRoom:
	case len(r.buf) >= batchBuffer:
		return false
	default:
		r.exchange(min(4*len(r.buf), batchBuffer))
	}
	return len(r.buf)-r.to >= leastRoom
}

// compact moves the begun line to the beginning of buf.
func (r *lineReader) compact(buf []byte) {
	r.from, r.to = 0, copy(buf, r.buf[r.from:r.to])
}

// grow takes a larger buffer, makes do without, or gives the line up.
func (r *lineReader) grow() {
	size := 4 * len(r.buf)
	if size > batchBuffer { // for a long line: all that it may need, not much more
		size = min(2*len(r.buf), r.max+1)
	}
	switch {
	case r.exchange(size):
	case r.from > 0:
		r.compact(r.buf)
	case r.to == len(r.buf):
		r.skip = errNoRoom
		r.to, r.scanned = 0, 0
	}
}

// exchange takes a buffer of another size, if there is one.
func (r *lineReader) exchange(size int) bool {
	var next []byte
	switch {
	case size <= ownBuffer:
		next = make([]byte, size)
	case !r.shared.take(size):
		return false
	case size == batchBuffer:
		next = *batchBuffers.Get().(*[]byte)
	default:
		next = make([]byte, size)
	}
	old := *r
	r.compact(next)
	r.buf = next
	old.release()
	return true
}

// release gives a large buffer back.
func (r *lineReader) release() {
	if n := len(r.buf); n > ownBuffer {
		r.shared.give(n)
		if n == batchBuffer {
			buf := r.buf
			batchBuffers.Put(&buf)
		}
	}
	r.buf, r.from, r.to = nil, 0, 0
}
