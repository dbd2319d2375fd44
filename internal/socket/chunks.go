package socket

import (
	"errors"
	"io"
	"syscall"
)

// chunks takes the chunks of a body apart (RFC 9112 §7.1), in whatever pieces
// they come.
type chunks struct {
	at     chunkPart
	digits int    // of the size that have come
	left   uint64 // bytes of the chunk's data that have not come
	excess uint64 // heads and trailers beyond what is allowed for the data
	ended  bool   // a chunk did
}

// chunkPart is where in the body the next byte is.
type chunkPart int

const (
	inSize    chunkPart = iota
	afterSize           // white space
	inExtension
	atSizeEnd // the line feed
	inData
	atDataEnd // carriage return and line feed
	atDataLine
	atTrailer // the first byte of a line after the last chunk
	inTrailer
	atLastLine // the line feed of the empty line
	atEnd
)

const (
	// maxExcess is what heads and trailers may be more than 16 bytes for each
	// chunk and twice its data, as net/http allows.
	maxExcess = 16 << 10
	maxDigits = 15 // of a chunk's size: what an int64 holds
)

var errChunk = errors.New("the body is not chunked as HTTP/1.1 has it")

// waits says that a chunk has begun, the rest of which is on its way, and that
// none has ended since this was last asked.
func (c *chunks) waits() bool {
	ended := c.ended
	c.ended = false
	return c.at == inData && !ended
}

// decode moves the data in b to its beginning and returns how much there is;
// the end of the body is io.EOF, and what follows it is ignored.
func (c *chunks) decode(b []byte) (n int, err error) {
	for i := 0; i < len(b); {
		if c.at == inData {
			part := b[i:]
			if uint64(len(part)) > c.left {
				part = part[:c.left]
			}
			n += copy(b[n:], part)
			i += len(part)
			if c.left -= uint64(len(part)); c.left == 0 {
				c.at, c.ended = atDataEnd, true
			}
			continue
		}
		if !c.head(b[i]) {
			return n, errChunk
		}
		if i++; c.at == atEnd {
			return n, io.EOF
		}
	}
	return n, nil
}

// head takes a byte that is no data.
func (c *chunks) head(b byte) (ok bool) {
	if c.excess++; c.excess > maxExcess {
		return false
	}
	switch c.at {
	case inSize:
		digit, is := hexDigit(b)
		switch {
		case is && c.digits < maxDigits:
			c.left = c.left<<4 | digit
			c.digits++
			return true
		case c.digits == 0 || is:
			return false
		}
		c.at = afterSize
		fallthrough
	case afterSize:
		switch b {
		case '\r':
			c.at = atSizeEnd
		case ';':
			c.at = inExtension
		case ' ', '\t':
		default:
			return false
		}
		return true
	case inExtension:
		if b == '\r' {
			c.at = atSizeEnd
		}
		return b != '\n'
	case atSizeEnd:
		c.digits = 0
		if c.at = inData; c.left == 0 {
			c.at = atTrailer
		}
		c.excess -= min(c.excess, 16+2*c.left)
		return b == '\n'
	case atDataEnd:
		c.at = atDataLine
		return b == '\r'
	case atDataLine:
		c.at = inSize
		return b == '\n'
	case atTrailer:
		if c.at = inTrailer; b == '\r' {
			c.at = atLastLine
		}
		return b != '\n'
	case inTrailer:
		if b == '\n' {
			c.at = atTrailer
		}
		return true
	}
	c.at = atEnd
	return b == '\n'
}

// chunkSource is a chunked body that is read from a descriptor which does not
// block.
type chunkSource struct {
	chunks
	early   []byte // what was read of it together with the head
	blocked bool   // the latest read found that nothing is there
}

// read reads once and gives the data of what has come; drained says that there
// is no more for now. The end of the body is io.EOF.
func (c *chunkSource) read(fd int, b []byte) (n int, drained bool, err error) {
	if len(c.early) > 0 {
		n = copy(b, c.early)
		c.early = c.early[n:]
	} else {
		n, err = syscall.Read(fd, b)
		c.blocked = err == syscall.EAGAIN
		switch {
		case c.blocked:
			return 0, true, nil
		case err == syscall.EINTR:
			return 0, false, nil
		case err != nil:
			return 0, true, err
		case n == 0:
			return 0, true, io.ErrUnexpectedEOF
		}
		drained = n < len(b)
	}
	n, err = c.decode(b[:n])
	return n, drained, err
}

func hexDigit(b byte) (uint64, bool) {
	switch {
	case '0' <= b && b <= '9':
		return uint64(b - '0'), true
	case 'a' <= b && b <= 'f':
		return uint64(b-'a') + 10, true
	case 'A' <= b && b <= 'F':
		return uint64(b-'A') + 10, true
	}
	return 0, false
}

// chunkHead is how long the head of a chunk of ours is: eight hex digits and a
// line end (RFC 9112 §7.1 allows leading zeros).
const chunkHead = 10

// endChunk makes a chunk of data that stands behind chunkHead bytes.
func endChunk(b []byte) []byte {
	size := len(b) - chunkHead
	for i := chunkHead - 3; i >= 0; i-- {
		b[i] = "0123456789abcdef"[size&15]
		size >>= 4
	}
	b[chunkHead-2], b[chunkHead-1] = '\r', '\n'
	return append(b, '\r', '\n')
}
