package socket

import (
	"io"
	"time"
)

// SetPatience shortens how long a server waits for an event and for the rest
// of a line.
func (s *Server) SetPatience(idle, line time.Duration) { s.idle, s.line = idle, line }

// SetSmallTime shortens how long a server waits for a small body.
func (s *Server) SetSmallTime(d time.Duration) { s.small = d }

// Conns is how many connections there are.
func (s *Server) Conns() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Unanswered is how many calls of a client wait for an answer.
func (c *Client) Unanswered() int {
	c.stream.mu.Lock()
	defer c.stream.mu.Unlock()
	return len(c.stream.queue) - c.stream.first
}

// Unwritten says that a client has events that it has not yet written. The
// buffer of what was written comes back when it is.
func (c *Client) Unwritten() bool {
	c.stream.mu.Lock()
	defer c.stream.mu.Unlock()
	return len(c.stream.pending) > 0 || c.stream.spare == nil
}

// LongLinesLeft is what long lines of the own user may still have.
func (s *Server) LongLinesLeft() int64 { return s.own.left.Load() }

// Limits.
const (
	MaxConns   = maxConns
	MaxForeign = maxForeign
)

// MakingDir is where the socket is made.
const MakingDir = Name + makingSuffix

// ParseAnswer, ParseReceipt, ParseQuery and Lines are for the fuzz tests.
var (
	ParseAnswer  = parseAnswer
	ParseReceipt = parseReceipt
	ParseQuery   = parseQuery
)

// Lines splits what src gives. It returns the lines, nil in place of one that
// was passed over, and the bytes of the largest buffer.
func Lines(src io.Reader, max int, shared int64) (lines []string, errs []error, largest int, balanced bool) {
	var b budget
	b.left.Store(shared)
	r := lineReader{src: src, max: max, shared: &b}
	for {
		for line, ok, err := r.next(); ok; line, ok, err = r.next() {
			lines, errs = append(lines, string(line)), append(errs, err)
		}
		if r.end != nil {
			break
		}
		r.fill()
		largest = len(r.buf)
	}
	r.release()
	return lines, errs, largest, b.left.Load() == shared
}

// ErrLongLine and ErrNoRoom are in the place of lines that were passed over.
var (
	ErrLongLine = errLongLine
	ErrNoRoom   = errNoRoom
)

// Sizes of buffers.
const (
	OwnBuffer   = ownBuffer
	BatchBuffer = batchBuffer
)

// Chunks decodes what pieces give, one after the other.
func Chunks(pieces [][]byte) (data []byte, err error) {
	var c chunks
	for _, p := range pieces {
		b := append([]byte(nil), p...)
		n, err := c.decode(b)
		data = append(data, b[:n]...)
		if err != nil {
			return data, err
		}
	}
	return data, nil
}

// Chunk makes one of data.
func Chunk(data []byte) []byte { return endChunk(append(make([]byte, chunkHead), data...)) }
