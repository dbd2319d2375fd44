package verify

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	stdhash "hash"
	"io"
	"io/fs"
	"slices"
	"sync"

	"github.com/kaizen-audit/kaizen-audit/internal/lifecycle"
)

const (
	// blockBytes is how many bytes of lines are read and hashed at a time. Of
	// 128 KiB to 1 MiB in BenchmarkVerify, sealed segments lose a fifth at the
	// smallest and gain nothing above this; the open one is the same at all.
	blockBytes = 512 << 10
	// blocksAhead is how many blocks of a segment are read ahead of the one
	// that is due. More, to 32, gave no other rate and takes more memory.
	blocksAhead = 8
)

// slots bounds how many goroutines compute at a time. Nothing is waited for
// with a slot in hand but the disk.
type slots chan struct{}

func (s slots) take() { s <- struct{}{} }
func (s slots) free() { <-s }

// stop says where and why the lines of a trail can't be followed.
type stop struct {
	at      int64 // the index that was due
	to      int64 // where lines go on; -1: not known
	file    string
	problem string
}

// walked is what reading all lines found.
type walked struct {
	lines  int64   // the index after the last complete line
	torn   int64   // bytes after the last newline
	stop   *stop   // the first, if there is one
	starts []int64 // where segments begin

	gaps []lifecycle.Range // lines that no file has, taken from the proofs
	said []lifecycle.Line  // what may be lifecycle entries
	// unread are the lines before those, of which at most the first of some segments
	// are in said.
	unread lifecycle.Range
	long   bool // there was more of that than is kept
}

// maxSaid bounds what is kept of lifecycle entries: a seal a day, of a hundred years.
const maxSaid = 256 << 20

// takeLines is given the digests and leaf hashes of lines of a segment, from
// index first on. They are its own until it returns.
type takeLines func(s *segment, first int64, digests, leaves []hash) error

// fill gives take the hashes of lines that no file has, of a range; ok is false where
// they can't be had.
type fill func(r lifecycle.Range, take takeLines) (ok bool, err error)

// readLines gives take every complete line of the segments, in order, and those
// between two segments that no file has as fill gives them. What
// keeps the lines from being followed is in walked, and ends it; with jump it
// goes on where the next segment says that it begins. The first line due is that at
// index from. The error is take's,
// ctx's, or that the operating system refused a file.
//
// Segments are read side by side, each in blocks of whole lines, ahead of the
// one that is due. Who has read a block hashes it too, while it is in that
// core's cache; this goroutine takes the blocks in order. Memory is bounded by
// the slots, not by trail, segment or line.
func readLines(ctx context.Context, cpu slots, list []segment, from int64, jump bool, progress func(done int64), fill fill, take takeLines) (w walked, err error) {
	w.lines = from
	ctx, cancel := context.WithCancel(ctx)
	var readers sync.WaitGroup
	defer readers.Wait()
	defer cancel()
	streams := make(chan *stream)
	readers.Go(func() {
		defer close(streams)
		for i := range list {
			s := &stream{segment: &list[i], cpu: cpu, room: make(chan struct{}, blocksAhead), blocks: make(chan *block, blocksAhead)}
			for range cap(cpu) {
				readers.Go(func() { s.run(ctx) })
			}
			select {
			case streams <- s:
			case <-ctx.Done():
				return
			}
		}
	})
	var done, kept int64
	for i := range list {
		s, ok := <-streams
		if !ok {
			return w, ctx.Err()
		}
		seg := s.segment
		begins := seg.first
		if begins < 0 {
			begins = opensAt(seg) // what is before it may have been pruned to its end
		}
		if begins > w.lines {
			gap := lifecycle.Range{First: w.lines, Count: begins - w.lines}
			ok, err := fill(gap, take)
			if err != nil {
				return w, err
			}
			if ok {
				w.gaps, w.lines = append(w.gaps, gap), begins
			}
		}
		if seg.first >= 0 && seg.first != w.lines {
			at := &stop{w.lines, seg.first, seg.short, Missing}
			if seg.first < w.lines {
				at = &stop{seg.first, w.lines, seg.short, Inserted}
			}
			w.halt(at)
			if !jump {
				return w, nil
			}
			w.lines = seg.first
		}
		w.starts = append(w.starts, w.lines)
		for b := range s.blocks {
			select {
			case <-b.done:
			case <-ctx.Done():
				return w, ctx.Err()
			}
			if err := take(seg, w.lines, b.digests, b.leaves); err != nil {
				return w, err
			}
			for _, l := range b.said {
				if kept += int64(len(l.Text)); kept > maxSaid {
					w.long = true
					break
				}
				w.said = append(w.said, lifecycle.Line{Index: w.lines + l.Index, Text: l.Text})
			}
			w.lines += int64(len(b.leaves))
			if done += b.bytes; progress != nil {
				progress(done)
			}
			blockPool.Put(b)
			<-s.room
		}
		if err := ctx.Err(); err != nil {
			return w, err
		}
		if s.err != nil {
			return w, s.err
		}
		if seg.open != nil {
			w.torn = s.torn
		} else if s.problem == "" && s.torn > 0 {
			s.problem = Changed // a sealed segment ends with a newline
		}
		if s.problem != "" {
			at := &stop{w.lines, -1, seg.short, s.problem}
			if i+1 < len(list) {
				at.to = list[i+1].first
			}
			w.halt(at)
			if !jump {
				return w, nil
			}
		}
	}
	if len(list) == 0 || list[len(list)-1].open == nil {
		w.halt(&stop{w.lines, -1, "", Truncated}) // the open segment is gone
	}
	return w, nil
}

// halt notes the first stop.
func (w *walked) halt(s *stop) {
	if w.stop == nil {
		w.stop = s
	}
}

// stream is a segment while it is read.
type stream struct {
	segment *segment
	cpu     slots
	room    chan struct{} // held by each block that is ahead
	blocks  chan *block   // in order; as large as room, so that none waits

	reading sync.Mutex // guards what follows, and the order of blocks
	from    io.ReadCloser
	rest    []byte       // the beginning of the next block
	long    stdhash.Hash // of a line longer than a block, until now
	longLen int64
	ended   bool

	// Set before blocks is closed.
	torn    int64
	problem string
	err     error // the operating system refused it
}

// block is a piece of a segment.
type block struct {
	hasher *hasher
	buf    []byte // whole lines, up to a last one without its newline
	lines  []byte // the whole ones of buf, but for the rest of a long one
	long   *hash  // of a line that began blocks ago and ends here
	bytes  int64

	digests []hash
	leaves  []hash
	said    []lifecycle.Line // by their number in the block
	done    chan struct{}
}

var blockPool = sync.Pool{New: func() any {
	return &block{
		hasher:  newHasher(),
		buf:     make([]byte, 0, blockBytes),
		digests: make([]hash, 0, blockBytes/256),
		leaves:  make([]hash, 0, blockBytes/256),
	}
}}

// hash computes digests and leaf hashes of a block's lines.
func (b *block) hash() {
	if b.long != nil {
		b.digests = append(b.digests, *b.long)
	}
	for rest := b.lines; len(rest) > 0; {
		i := bytes.IndexByte(rest, '\n')
		if lifecycle.Is(rest[:i]) {
			b.said = append(b.said, lifecycle.Line{Index: int64(len(b.digests)), Text: bytes.Clone(rest[:i])})
		}
		b.digests = append(b.digests, hash{})
		b.hasher.sum(&b.digests[len(b.digests)-1], rest[:i])
		rest = rest[i+1:]
	}
	b.leaves = slices.Grow(b.leaves, len(b.digests))[:len(b.digests)]
	for i := range b.leaves {
		b.hasher.leaf(&b.leaves[i], &b.digests[i])
	}
	close(b.done)
}

// run reads and hashes blocks until the segment ends. Several may run.
func (s *stream) run(ctx context.Context) {
	for {
		select {
		case s.room <- struct{}{}:
		case <-ctx.Done():
		}
		s.reading.Lock()
		if !s.ended && ctx.Err() != nil {
			s.end()
		}
		if s.ended {
			s.reading.Unlock()
			return // the room, if it was had, is for no block any more
		}
		s.cpu.take()
		b := s.read()
		s.blocks <- b
		if s.ended {
			s.end()
		}
		s.reading.Unlock()
		b.hash()
		s.cpu.free()
	}
}

// end lets the blocks end.
func (s *stream) end() {
	s.ended = true
	if s.from != nil {
		s.from.Close()
	}
	close(s.blocks)
}

// read reads a block of whole lines. Of a line that is longer than a block
// only the hash is kept. The last block may have no lines.
func (s *stream) read() *block {
	b := blockPool.Get().(*block)
	*b = block{hasher: b.hasher, buf: append(b.buf[:0], s.rest...), digests: b.digests[:0], leaves: b.leaves[:0], done: make(chan struct{})}
	s.rest = s.rest[:0]
	var err error
	if s.from == nil {
		s.from, err = s.segment.reader()
	}
	for err == nil && len(b.buf) < cap(b.buf) {
		var n int
		n, err = s.from.Read(b.buf[len(b.buf):cap(b.buf)])
		b.buf = b.buf[:len(b.buf)+n]
	}
	b.lines = b.buf
	if s.longLen > 0 {
		i := bytes.IndexByte(b.lines, '\n')
		if i < 0 {
			s.lengthen(b.lines)
			b.lines = nil
		} else {
			s.long.Write(b.lines[:i])
			b.long, b.lines = (*hash)(s.long.Sum(nil)), b.lines[i+1:]
			s.longLen = 0
		}
	}
	cut := bytes.LastIndexByte(b.lines, '\n') + 1
	rest := b.lines[cut:]
	b.lines = b.lines[:cut]
	if err == nil && len(rest) == cap(b.buf) {
		s.lengthen(rest)
		rest = nil
	}
	b.bytes = int64(len(b.buf) - len(rest))
	if err == nil {
		s.rest = append(s.rest, rest...)
		return b
	}
	s.ended, s.torn = true, s.longLen+int64(len(rest))
	// What the operating system refused is told from what can't be decoded.
	var path *fs.PathError
	switch {
	case err == io.EOF:
	case errors.Is(err, fs.ErrNotExist):
		s.problem = Missing
	case errors.As(err, &path), errors.As(err, new(archiveError)):
		s.err = err
	default:
		s.problem = Changed
	}
	return b
}

// lengthen adds to a line that is longer than a block.
func (s *stream) lengthen(part []byte) {
	if s.longLen == 0 {
		s.long = sha256.New()
	}
	s.long.Write(part)
	s.longLen += int64(len(part))
}
