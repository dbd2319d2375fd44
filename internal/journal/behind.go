package journal

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// behind has the lines that in mode Written are in the ring, or on their way to it,
// and not yet in the open segment. Many of them are written at once there: a file that
// grows costs a page for each few lines, and no append waits for it.
//
// Lines come to it under commit, and leave it, into the segment, under catching.
type behind struct {
	soon     sync.WaitGroup // catchUpSoon
	catching sync.Mutex     // with these under it
	spare    []byte         // to be used again in the place of lines
	failed   error          // of a write: the segment may end in half a line
	mu       sync.Mutex
	lines    []byte // under mu
}

// maxBehind bounds it: who brings more has the segment catch up first.
const maxBehind = 1 << 20

// leave adds the lines of a batch to what the segment lacks; commit is held.
func (j *Journal) leave(lines []byte) error {
	h := &j.behind
	h.mu.Lock()
	first := len(h.lines) == 0
	h.lines = append(h.lines, lines...)
	many := len(h.lines) > maxBehind
	h.mu.Unlock()
	if many {
		return j.CatchUp()
	}
	if first && j.late != nil {
		select {
		case j.late <- struct{}{}:
		default:
		}
	}
	return nil
}

// CatchUp writes to the open segment what it lacks, so that who reads the file finds
// all that is acknowledged, after the journal has stopped too. An error stops the
// journal: the lines may be acknowledged, and the next opening has them from the ring.
func (j *Journal) CatchUp() error {
	h := &j.behind
	h.catching.Lock()
	defer h.catching.Unlock()
	if h.failed != nil {
		return h.failed
	}
	h.mu.Lock()
	lines := h.lines
	h.lines = h.spare[:0]
	h.mu.Unlock()
	if h.spare = lines; cap(lines) > 4*maxBehind { // a giant is left to the collector
		h.spare = nil
	}
	if len(lines) == 0 {
		return nil
	}
	n, err := j.file.Write(lines)
	if err == nil && n < len(lines) {
		err = io.ErrShortWrite
	}
	if err != nil {
		h.failed = j.stop(fmt.Errorf("write: %w", err))
	}
	return h.failed
}

// catchUpSoon has the segment catch up a while after it began to lack something,
// until the journal is closed.
func (j *Journal) catchUpSoon() {
	for {
		select {
		case <-j.late:
		case <-j.closing:
			return
		}
		select {
		case <-time.After(j.opts.CatchUp):
		case <-j.closing:
			return
		}
		_ = j.CatchUp() // its error is every append's
	}
}
