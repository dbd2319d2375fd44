package socket

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/kaizen-audit/kaizen-audit/entry"
)

// batch is what one commit of a stream takes, and its answers.
type batch struct {
	events  []entry.Event
	results []Result
	errs    []error // of each line: why it is no event, nil for the next of events
	out     []byte
}

var batches = sync.Pool{New: func() any { return new(batch) }}

// release gives the batch back without what it refers to.
func (b *batch) release() {
	clear(b.events)
	clear(b.results)
	clear(b.errs)
	b.events, b.results, b.errs, b.out = b.events[:0], b.results[:0], b.errs[:0], b.out[:0]
	batches.Put(b)
}

// stream is one POST /v1/events.
type stream struct {
	s          *Server
	conn       *conn
	in         lineReader
	durability Durability
	deadline   time.Time // of reading
	begun      bool      // deadline is that of a begun line or chunk
	respond    func(*batch) error

	// Of a chunked body, which is read without net/http:
	body chunkSource
}

// events answers POST /v1/events.
func (s *Server) events(r *request) error {
	params, err := r.params("durability")
	if err != nil {
		return err
	}
	st := stream{s: s, conn: r.conn, durability: s.info.Durability, in: lineReader{max: s.info.MaxLine, shared: &s.own}}
	if d := Durability(params.Get("durability")); d != "" {
		if !d.known() {
			return badRequest("durability is none of durable, written, queued")
		}
		st.durability = d
	}
	if r.conn.foreign {
		st.in.shared = &s.foreign
	}
	defer st.in.release()
	if r.ContentLength < 0 {
		return st.converse(r)
	}
	r.w.Header().Set("Content-Type", ndjson)
	st.in.src = r.Body
	st.respond = func(b *batch) error {
		_, err := r.w.Write(b.out[chunkHead:])
		if err == nil && st.in.end != io.EOF {
			err = r.rc.Flush()
		}
		return err
	}
	if r.bodyRead = st.run() == io.EOF; !r.bodyRead {
		r.conn.stopReading() // what is left of the body is not a request
	}
	return nil
}

const ndjson = "application/x-ndjson"

// run records and answers until the events end, the peer goes away or the
// server stops. It returns what ended it: io.EOF when that was the body.
func (st *stream) run() error {
	for {
		if err := st.recordAll(); err != nil {
			return err
		}
		if st.in.end != nil {
			return st.in.end
		}
		st.patience()
		st.in.fill()
	}
}

// converse answers a chunked body while it comes. The connection is the
// stream's alone: it is read and written without net/http, whose layers cost
// more than an event does, and which would read as little as there is of a
// chunk. Its client learns at once that it may begin.
func (st *stream) converse(r *request) error {
	_, buffered, err := r.rc.Hijack()
	if err != nil {
		return err
	}
	r.hijacked = true
	defer st.conn.Close()
	head := fmt.Sprintf("HTTP/1.1 200 OK\r\nDate: %s\r\n%s: %d\r\nContent-Type: %s\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n",
		time.Now().UTC().Format(http.TimeFormat), versionHeader, Version, ndjson)
	if _, err := io.WriteString(st.conn, head); err != nil {
		return nil
	}
	raw, err := st.conn.SyscallConn()
	if err != nil {
		return nil
	}
	st.body.early, _ = buffered.Reader.Peek(buffered.Reader.Buffered())
	st.respond = func(b *batch) error {
		b.out = endChunk(b.out)
		_, err := st.conn.Write(b.out)
		return err
	}
	// All of it is one Read: a new one would have to try whether there is
	// something before it could wait.
	if err := raw.Read(func(fd uintptr) bool { return st.step(int(fd)) }); err != nil {
		st.in.end = err // waited for in vain
	}
	if st.recordAll() == nil {
		_, _ = io.WriteString(st.conn, "0\r\n\r\n")
	}
	return nil
}

// step reads what has arrived and records it when a chunk is there as a whole,
// or as much as is taken at once. It says whether the stream has ended; recordAll does what is
// left then.
func (st *stream) step(fd int) (ended bool) {
	for {
		if !st.in.widen() {
			if st.in.end = st.recordAll(); st.in.end != nil {
				return true
			}
			st.in.makeRoom()
		}
		n, drained, err := st.read(fd, st.in.buf[st.in.to:])
		st.in.to += n
		if st.in.end = err; err != nil {
			return true
		}
		if !drained {
			continue
		}
		if !st.body.waits() {
			if st.in.end = st.recordAll(); st.in.end != nil {
				return true
			}
			st.in.rest()
		}
		st.patience()
		return false
	}
}

// read reads what is there; drained says that there is no more.
func (st *stream) read(fd int, b []byte) (n int, drained bool, err error) {
	if len(st.body.early) == 0 && st.conn.readsNoMore() {
		return 0, true, os.ErrDeadlineExceeded
	}
	return st.body.read(fd, b)
}

// recordAll records and answers the lines that are there.
func (st *stream) recordAll() error {
	for {
		b := batches.Get().(*batch)
		b.out = append(b.out, make([]byte, chunkHead)...)
		st.take(b)
		n := len(b.errs)
		if n == 0 {
			b.release()
			return nil
		}
		st.begun = false // a line after this has its own time
		st.record(b)
		err := st.respond(b)
		b.release()
		if err != nil {
			return err
		}
	}
}

// patience sets how long the next read may take. A line that has begun is not
// waited for any longer because a part of it comes.
func (st *stream) patience() {
	now, begun := time.Now(), st.in.partial() || st.body.at == inData
	limit := st.s.idle
	if begun {
		limit = st.s.line
	}
	// A deadline is moved when a sixth of it is gone, not for every event.
	if begun == st.begun && (begun || st.deadline.Sub(now) > limit*5/6) {
		return
	}
	st.begun, st.deadline = begun, now.Add(limit)
	_ = st.conn.SetReadDeadline(st.deadline)
}

// take parses lines that are there. Blank ones are passed over.
func (st *stream) take(b *batch) {
	for len(b.errs) < batchEvents {
		line, ok, err := st.in.next()
		if !ok {
			return
		}
		if err == nil && blank(line) {
			continue
		}
		var ev entry.Event
		switch err {
		case nil:
			if ev, err = entry.ParseEvent(line); err != nil {
				st.s.holder.NoteRefused(st.conn.peer, err)
				err = &Error{Code: Refused, Message: err.Error()}
			}
		case errLongLine:
			long := &entry.LineTooLongError{Bytes: st.s.info.MaxLine + 1, Max: st.s.info.MaxLine}
			st.s.holder.NoteRefused(st.conn.peer, long)
			err = &Error{Code: Refused, Message: "the line is longer than an event may be"}
		case errNoRoom:
			err = &Error{Code: Busy, Message: "too many long lines at once"}
		}
		b.errs = append(b.errs, err)
		if err == nil {
			b.events = append(b.events, ev)
		}
	}
}

func blank(line []byte) bool {
	for _, c := range line {
		if c != ' ' && c != '\t' && c != '\r' {
			return false
		}
	}
	return true
}

// record hands the events to the holder and encodes the answers.
func (st *stream) record(b *batch) {
	b.results = append(b.results, make([]Result, len(b.events))...)
	switch {
	case len(b.events) == 0:
	case st.s.isStopping():
		for i := range b.results {
			b.results[i].Err = &Error{Code: Closed, Message: "the holder is ending"}
		}
	default:
		st.s.holder.Record(context.Background(), st.conn.peer, b.events, st.durability, b.results)
	}
	k := 0
	for _, err := range b.errs {
		if err == nil {
			res := &b.results[k]
			k++
			if err = res.Err; err == nil {
				b.out = append(res.Receipt.AppendJSON(b.out), '\n')
				continue
			}
		}
		b.out = append(appendError(b.out, st.conn.tell(err)), '\n')
	}
}
