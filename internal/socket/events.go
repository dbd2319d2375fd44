package socket

import (
	"context"
	"io"
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
	r          *request
	in         lineReader
	durability Durability
	deadline   time.Time // of reading
	begun      bool      // deadline is that of a begun line
}

// events answers POST /v1/events.
func (s *Server) events(r *request) error {
	params, err := r.params("durability")
	if err != nil {
		return err
	}
	st := stream{s: s, r: r, durability: s.info.Durability}
	if d := Durability(params.Get("durability")); d != "" {
		if !d.known() {
			return badRequest("durability is none of durable, written, queued")
		}
		st.durability = d
	}
	st.in = lineReader{src: r.Body, max: s.info.MaxLine, shared: &s.own}
	if r.conn.foreign {
		st.in.shared = &s.foreign
	}
	defer st.in.release()
	r.w.Header().Set("Content-Type", "application/x-ndjson")
	if r.ContentLength < 0 {
		// A stream has its connection to itself, and its client learns at
		// once that it may begin.
		r.w.Header().Set("Connection", "close")
		if err := r.rc.Flush(); err != nil {
			return nil
		}
	}
	if r.bodyRead = st.run() == io.EOF; !r.bodyRead {
		r.conn.stopReading() // what is left of the body is not a request
	}
	return nil
}

// run records and answers until the events end, the peer goes away or the
// server stops. It returns what ended it: io.EOF when that was the body.
func (st *stream) run() error {
	for {
		for {
			b := batches.Get().(*batch)
			st.take(b)
			n := len(b.errs)
			if n == 0 {
				b.release()
				break
			}
			st.record(b)
			_, err := st.r.w.Write(b.out)
			b.release()
			if err == nil && st.in.end != io.EOF {
				err = st.r.rc.Flush()
			}
			if err != nil {
				return err
			}
		}
		if st.in.end != nil {
			return st.in.end
		}
		st.patience()
		st.in.fill()
	}
}

// patience sets how long the next read may take. A line that has begun is not
// waited for any longer because a part of it comes.
func (st *stream) patience() {
	now, begun := time.Now(), st.in.partial()
	limit := st.s.idle
	if begun {
		limit = st.s.line
	}
	// A deadline is moved when a sixth of it is gone, not for every event.
	if begun == st.begun && (begun || st.deadline.Sub(now) > limit*5/6) {
		return
	}
	st.begun, st.deadline = begun, now.Add(limit)
	_ = st.r.conn.SetReadDeadline(st.deadline)
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
				st.s.holder.NoteRefused(st.r.conn.peer, err)
				err = &Error{Code: Refused, Message: err.Error()}
			}
		case errLongLine:
			long := &entry.LineTooLongError{Bytes: st.s.info.MaxLine + 1, Max: st.s.info.MaxLine}
			st.s.holder.NoteRefused(st.r.conn.peer, long)
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
		st.s.holder.Record(context.Background(), st.r.conn.peer, b.events, st.durability, b.results)
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
		b.out = append(appendError(b.out, st.r.conn.tell(err)), '\n')
	}
}
