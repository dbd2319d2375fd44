package socket

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/kaizen-audit/kaizen-audit/entry"
)

const (
	// pendingBytes is what waits to be written before callers wait for room.
	pendingBytes = 1 << 20
	// answerBuffer holds what one read takes, and bounds one answer.
	answerBuffer = 64 << 10
)

// Client speaks to the holder of a trail. All events go over one connection,
// which is made anew when it is needed and gone: a call that fails with
// ErrGone does not spoil the next.
type Client struct {
	dir        string
	durability Durability
	http       *http.Client

	mu     sync.Mutex
	stream *clientStream // the latest; nil before the first event
	closed bool
}

// Dial connects to the holder of the trail whose directory is dir and asks
// what it holds. An empty durability is the holder's. An error that is
// fs.ErrNotExist or syscall.ECONNREFUSED says that nobody listens.
func Dial(ctx context.Context, dir string, d Durability) (*Client, error) {
	c := &Client{dir: dir, durability: d}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := dial(ctx, dir)
			if err != nil {
				return nil, err
			}
			return conn, nil
		},
		DisableCompression: true,
		MaxIdleConns:       2,
		IdleConnTimeout:    time.Minute, // before the holder's
	}}
	if _, err := c.Info(ctx); err != nil {
		c.Close()
		return nil, fmt.Errorf("dial %s: %w", filepath.Join(dir, Name), err)
	}
	return c, nil
}

// Close closes the connections. Calls that wait get ErrGone.
func (c *Client) Close() error {
	c.mu.Lock()
	s := c.stream
	c.closed = true
	c.mu.Unlock()
	if s != nil {
		s.fail(errors.New("the client was closed"))
		<-s.done
	}
	c.http.CloseIdleConnections()
	return nil
}

// Info asks what the holder holds.
func (c *Client) Info(ctx context.Context) (Info, error) {
	var info Info
	err := c.ask(ctx, http.MethodGet, "/v1/trail", nil, func(b []byte) error { return json.Unmarshal(b, &info) })
	return info, err
}

// NoteReading has a reading recorded that was made without the holder.
func (c *Client) NoteReading(ctx context.Context, r Reading) (entry.Receipt, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return entry.Receipt{}, err
	}
	var receipt entry.Receipt
	err = c.ask(ctx, http.MethodPost, "/v1/readings", body, func(b []byte) (err error) {
		receipt, err = parseAnswer(b)
		return err
	})
	return receipt, err
}

// Pseudonym asks the holder for the pseudonym of a user.
func (c *Client) Pseudonym(ctx context.Context, user string) (string, error) {
	body, err := json.Marshal(pseudonymRequest{user})
	if err != nil {
		return "", err
	}
	var answer pseudonymAnswer
	err = c.ask(ctx, http.MethodPost, "/v1/pseudonyms", body, func(b []byte) error {
		if err := json.Unmarshal(b, &answer); err != nil || answer.UserIDHash == "" {
			return errAnswer
		}
		return nil
	})
	return answer.UserIDHash, err
}

// Do has the holder make a call, and gives its answer. What became of it is not known
// where the error is ErrGone.
func (c *Client) Do(ctx context.Context, call Call, asked []byte) (answer []byte, err error) {
	err = c.ask(ctx, http.MethodPost, string(call), asked, func(b []byte) error {
		answer = b
		return nil
	})
	return answer, err
}

// maxAnswer bounds an answer that is read whole: a look at what would be pruned of a
// trail of some 200,000 segments.
const maxAnswer = 64 << 20

// ask sends one small request.
func (c *Client) ask(ctx context.Context, method, path string, body []byte, read func([]byte) error) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return gone(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return gone(err)
	}
	if err := failed(resp, b); err != nil {
		return err
	}
	if err := read(b); err != nil {
		var e *Error
		if errors.As(err, &e) {
			return err
		}
		return &Error{Code: Protocol, Message: "the answer can't be read: " + err.Error()}
	}
	return nil
}

// gone is ErrGone and its cause.
func gone(cause error) error { return fmt.Errorf("%w: %w", ErrGone, cause) }

// failed is the error that an answer as a whole is, if it is one.
func failed(resp *http.Response, body []byte) error {
	if v := resp.Header.Get(versionHeader); v != strconv.Itoa(Version) {
		return &Error{Code: Protocol, Message: "whoever listens does not speak version 1 of the protocol"}
	}
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	if _, err := parseAnswer(body); errors.As(err, new(*Error)) {
		return err
	}
	return &Error{Code: Protocol, Message: "the answer is " + resp.Status}
}

// Record has the holder record one event, a JSON object as entry.ParseEvent
// takes it, and returns its receipt. Calls at the same time share writes and
// commits; nobody waits for others to come.
//
// The event should have an idempotency key. ctx bounds the wait, not the fate:
// when it ends after the event was accepted, the error is the context's and an
// *Error of code Unknown. When
// the connection breaks it is ErrGone. In both cases the event may be recorded
// or not, and sending it again with its key records it once. Any other error
// is the holder's *Error, or says that the event is no line.
func (c *Client) Record(ctx context.Context, event []byte) (entry.Receipt, error) {
	call := calls.Get().(*call)
	call.left = 1
	call.results = append(call.results[:0], Result{})
	if err := c.send(ctx, call, event); err != nil {
		return entry.Receipt{}, err
	}
	if err := call.wait(ctx); err != nil {
		return entry.Receipt{}, err
	}
	res := call.results[0]
	call.results[0] = Result{}
	calls.Put(call)
	return res.Receipt, res.Err
}

// RecordBatch is Record for many events with one wait: they are sent together
// and recorded in order. result[i] is what became of events[i].
func (c *Client) RecordBatch(ctx context.Context, events [][]byte) []Result {
	if len(events) == 0 {
		return nil
	}
	call := &call{left: len(events), results: make([]Result, len(events)), answered: make(chan struct{}, 1)}
	err := c.send(ctx, call, events...)
	if err == nil {
		err = call.wait(ctx)
	}
	if err == nil {
		return call.results
	}
	// The stream may still write to call.results.
	failed := make([]Result, len(events))
	for i := range failed {
		failed[i].Err = err
	}
	return failed
}

// call is a caller's events until all are answered.
type call struct {
	results  []Result
	left     int // under the stream's mu, or whose queue it has left
	answered chan struct{}
}

var calls = sync.Pool{New: func() any { return &call{answered: make(chan struct{}, 1)} }}

// answer takes the next answer, from the stream.
func (c *call) answer(res Result) (last bool) {
	c.results[len(c.results)-c.left] = res
	c.left--
	if c.left == 0 {
		c.answered <- struct{}{}
		return true
	}
	return false
}

// wait returns when all is answered. After an error the call is the stream's.
func (c *call) wait(ctx context.Context) error {
	select {
	case <-c.answered:
		return nil
	case <-ctx.Done():
	}
	select {
	case <-c.answered:
		return nil
	default:
		return fmt.Errorf("%w: %w", &Error{Code: Unknown, Message: "no answer came in time, and whether the event was recorded is not known"}, ctx.Err())
	}
}

// send hands events to the stream, opening one where there is none. After an
// error nothing of the call was sent.
func (c *Client) send(ctx context.Context, call *call, events ...[]byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, ev := range events {
		if blank(ev) || bytes.IndexByte(ev, '\n') >= 0 {
			return &Error{Code: Refused, Message: "an event must be one line of JSON"}
		}
	}
	for again := false; ; again = true {
		s, err := c.open(ctx)
		if err != nil {
			return err
		}
		err = s.send(ctx, call, events)
		if !errors.Is(err, errEnded) || again {
			return err
		}
	}
}

// open gives the stream, a new one when the latest has ended.
func (c *Client) open(ctx context.Context) (*clientStream, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, gone(net.ErrClosed)
	}
	if c.stream != nil && !c.stream.ended() {
		return c.stream, nil
	}
	conn, err := dial(ctx, c.dir)
	if err != nil {
		return nil, gone(err)
	}
	c.stream, err = startStream(conn, c.durability)
	if err != nil {
		conn.Close()
		return nil, gone(err)
	}
	return c.stream, nil
}

// errEnded: the stream took no more events. The call was not sent.
var errEnded = fmt.Errorf("%w: nothing was sent", ErrGone)

// clientStream is one POST /v1/events. It speaks HTTP itself:
// http.Transport would take the events through a pipe, with another switch of
// goroutines and another copy for each.
//
// A caller who is the only one to wait writes himself, as far as that goes at
// once; for more than one a goroutine does, so that they share a write.
type clientStream struct {
	conn *net.UnixConn
	raw  syscall.RawConn
	wake chan struct{} // one element: there is something to write
	done chan struct{} // closed when both goroutines have ended
	stop chan struct{} // closed with err set

	// answering says that answers are read by answerReader, which has to be told to
	// look again; broken that a write has failed. Who sets the second of them tells it:
	// before, a read of the answer's head would take it for the end of time.
	answering, broken atomic.Bool

	attempt func(fd uintptr) bool // writes direct; made once
	direct  []byte                // what is left of what a caller writes, who alone has it

	mu      sync.Mutex
	pending []byte        // what is to be written, behind chunkHead bytes
	spare   []byte        // its buffer of the write before
	writing bool          // somebody writes
	rest    []byte        // what a caller could not write, before pending
	room    chan struct{} // closed when pending was taken; made by who waits for it
	queue   []*call       // unanswered, from first on, in order
	first   int
	err     error // what ended the stream
}

func startStream(conn *net.UnixConn, d Durability) (*clientStream, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &clientStream{conn: conn, raw: raw, wake: make(chan struct{}, 1), done: make(chan struct{}), stop: make(chan struct{})}
	s.attempt = func(fd uintptr) bool {
		if n, err := syscall.Write(int(fd), s.direct); err == nil {
			s.direct = s.direct[n:]
		}
		return true
	}
	path := "/v1/events"
	if d != "" {
		path += "?durability=" + string(d)
	}
	head := "POST " + path + " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
	s.rest = []byte(head)
	s.wake <- struct{}{}
	var wg sync.WaitGroup
	wg.Go(func() { s.fail(s.write()) })
	wg.Go(func() { s.fail(s.read()) })
	go func() {
		wg.Wait()
		close(s.done)
	}()
	return s, nil
}

func (s *clientStream) ended() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err != nil
}

// fail ends the stream; what is unanswered gets the error.
func (s *clientStream) fail(err error) {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return
	}
	s.err = err
	close(s.stop)
	left := s.queue[s.first:]
	s.queue, s.first = nil, 0
	s.mu.Unlock()
	s.conn.Close()
	if !errors.As(err, new(*Error)) {
		err = gone(err)
	}
	for _, c := range left {
		for !c.answer(Result{Err: err}) {
		}
	}
}

// send queues a call's events, and waits for room before.
func (s *clientStream) send(ctx context.Context, c *call, events [][]byte) error {
	s.mu.Lock()
	for s.err == nil && len(s.pending) > pendingBytes {
		if s.room == nil {
			s.room = make(chan struct{})
		}
		room := s.room
		s.mu.Unlock()
		select {
		case <-room:
		case <-s.stop:
		case <-ctx.Done():
			return ctx.Err()
		}
		s.mu.Lock()
	}
	defer s.mu.Unlock()
	if s.err != nil {
		return errEnded
	}
	first := len(s.pending) == 0
	if first {
		s.pending = append(s.spare[:0], make([]byte, chunkHead)...)
		s.spare = nil
	}
	for _, ev := range events {
		s.pending = append(append(s.pending, ev...), '\n')
	}
	alone := s.first == len(s.queue)
	s.push(c)
	switch {
	case alone && !s.writing && s.rest == nil:
		s.writeDirect()
	case first:
		s.wakeWriter()
	}
	return nil
}

func (s *clientStream) wakeWriter() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// take takes what is pending as a chunk, nil where nothing is; mu is held.
func (s *clientStream) take() []byte {
	chunk := s.pending
	s.pending = nil
	if s.room != nil {
		close(s.room)
		s.room = nil
	}
	if len(chunk) == 0 {
		return nil
	}
	return endChunk(chunk)
}

// written takes a buffer back; mu is held.
func (s *clientStream) written(chunk []byte) {
	if cap(chunk) <= 2*pendingBytes { // a giant is left to the collector
		s.spare = chunk
	}
}

// writeDirect writes what is pending without waiting for room in the socket.
// What is left over, and an error, is for the writer's goroutine. mu is held,
// but not during the write.
func (s *clientStream) writeDirect() {
	s.writing = true
	chunk := s.take()
	s.mu.Unlock()
	s.direct = chunk
	_ = s.raw.Write(s.attempt)
	s.mu.Lock()
	s.writing = false
	if len(s.direct) == 0 {
		s.written(chunk)
	} else {
		s.rest = s.direct
	}
	s.direct = nil
	if s.rest != nil || len(s.pending) > 0 {
		s.wakeWriter()
	}
}

// push adds to the queue; mu is held.
func (s *clientStream) push(c *call) {
	if s.first > 0 && len(s.queue) == cap(s.queue) {
		n := copy(s.queue, s.queue[s.first:])
		clear(s.queue[n:])
		s.queue, s.first = s.queue[:n], 0
	}
	s.queue = append(s.queue, c)
}

// write sends what is pending, chunk after chunk, until the stream ends.
func (s *clientStream) write() error {
	for {
		select {
		case <-s.wake:
		case <-s.stop:
			return nil
		}
		// Whoever is about to send as well comes first: alone this costs
		// nothing.
		runtime.Gosched()
		s.mu.Lock()
		if s.writing { // whoever does wakes us again
			s.mu.Unlock()
			continue
		}
		s.writing = true
		rest, chunk := s.rest, s.take()
		s.rest = nil
		s.mu.Unlock()
		for _, part := range [][]byte{rest, chunk} {
			if len(part) == 0 {
				continue
			}
			if _, err := s.conn.Write(part); err != nil {
				// The answer may say why: it ends the stream, and is here soon,
				// if only somebody looks (answerReader.step).
				s.broken.Store(true)
				if s.answering.Load() {
					s.lookAgain()
				}
				select {
				case <-s.stop:
				case <-time.After(time.Second):
				}
				return err
			}
		}
		s.mu.Lock()
		s.writing = false
		if chunk != nil {
			s.written(chunk)
		}
		s.mu.Unlock()
	}
}

// lookAgain has the reader of answers look whether there is something to read.
func (s *clientStream) lookAgain() { _ = s.conn.SetReadDeadline(time.Unix(1, 0)) }

// read gives the answers to the calls in order, until the stream ends.
func (s *clientStream) read() error {
	early := bufio.NewReader(s.conn)
	resp, err := http.ReadResponse(early, &http.Request{Method: http.MethodPost})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.Header.Get(versionHeader) == "" {
		b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
		if err != nil {
			return err
		}
		return failed(resp, b)
	}
	if len(resp.TransferEncoding) != 1 || resp.TransferEncoding[0] != "chunked" {
		return &Error{Code: Protocol, Message: "the answers are not chunked"}
	}
	in := answerReader{s: s, buf: make([]byte, answerBuffer)}
	in.src.early, _ = early.Peek(early.Buffered())
	// All of it is one Read, as at the server's end, until write has it look
	// again.
	if s.answering.Store(true); s.broken.Load() {
		s.lookAgain()
	}
	for {
		err := s.raw.Read(func(fd uintptr) bool { return in.step(int(fd)) })
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return cmp.Or(in.end, err)
		}
		_ = s.conn.SetReadDeadline(time.Time{})
	}
}

// answerReader takes the answers of a stream apart.
type answerReader struct {
	s   *clientStream
	src chunkSource
	buf []byte
	to  int   // buf[:to] has come, and is no whole answer
	end error // what ended the stream
}

// step reads the answers that have arrived and says whether the stream has
// ended.
func (r *answerReader) step(fd int) (ended bool) {
	for {
		n, drained, err := r.src.read(fd, r.buf[r.to:])
		from := r.to
		r.to += n
		if r.end = r.give(from); r.end == nil {
			r.end = err
		}
		if r.end != nil {
			return true
		}
		// A holder that is killed after an answer may be noticed together with
		// it: then nothing more wakes this up. While somebody waits, the socket
		// is read until it has nothing. While nobody does, the next one's write
		// finds out, and has it read again.
		if drained && (r.src.blocked || !r.s.waited()) {
			return false
		}
	}
}

// give gives out the whole answers in buf[:to]; before from there is no end of
// one.
func (r *answerReader) give(from int) error {
	rest := r.buf[:r.to]
	for {
		i := bytes.IndexByte(rest[from:], '\n')
		if i < 0 {
			break
		}
		i += from
		var res Result
		res.Receipt, res.Err = parseAnswer(rest[:i+1])
		if res.Err != nil && !errors.As(res.Err, new(*Error)) {
			return res.Err
		}
		if !r.s.answer(res) {
			return errors.New("an answer came that nobody waits for")
		}
		rest, from = rest[i+1:], 0
	}
	r.to = copy(r.buf, rest)
	if r.to == len(r.buf) {
		return errors.New("an answer is longer than an answer may be")
	}
	return nil
}

// waited tells whether somebody waits for an answer.
func (s *clientStream) waited() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.first < len(s.queue)
}

// answer gives an answer to the first call of the queue.
func (s *clientStream) answer(res Result) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.first == len(s.queue) {
		return false
	}
	if s.queue[s.first].answer(res) {
		s.queue[s.first] = nil
		if s.first++; s.first == len(s.queue) {
			s.queue, s.first = s.queue[:0], 0
		}
	}
	return true
}

// errAnswer: what came is no answer of this protocol.
var errAnswer = errors.New("an answer can't be read")

// parseAnswer reads a receipt, or the error that came in its place as an
// *Error. What a holder of this version writes is read without reflection.
func parseAnswer(line []byte) (entry.Receipt, error) {
	if r, ok := parseReceipt(line); ok {
		return r, nil
	}
	var a struct {
		Index   *int64 `json:"index"`
		EventID string `json:"event_id"`
		Digest  string `json:"digest"`
		Durable *bool  `json:"durable"`
		Error   *struct {
			Code      Code   `json:"code"`
			Message   string `json:"message"`
			Hint      string `json:"hint"`
			Supported []int  `json:"supported"`
		} `json:"error"`
	}
	if err := json.Unmarshal(line, &a); err != nil {
		return entry.Receipt{}, errAnswer
	}
	if a.Error != nil {
		return entry.Receipt{}, &Error{Code: a.Error.Code, Message: a.Error.Message, Hint: a.Error.Hint, Supported: a.Error.Supported}
	}
	if a.Index == nil {
		return entry.Receipt{}, errAnswer
	}
	r := entry.Receipt{Index: *a.Index, EventID: a.EventID, Durable: a.Durable == nil || *a.Durable}
	if len(a.Digest) != hex.EncodedLen(len(r.Digest)) {
		return entry.Receipt{}, errAnswer
	}
	if _, err := hex.Decode(r.Digest[:], []byte(a.Digest)); err != nil {
		return entry.Receipt{}, errAnswer
	}
	return r, nil
}

// parseReceipt reads a receipt as entry.Receipt writes it.
func parseReceipt(b []byte) (r entry.Receipt, ok bool) {
	b, ok = bytes.CutPrefix(b, []byte(`{"index":`))
	if !ok {
		return r, false
	}
	digits := 0
	for digits < len(b) && digits < 18 && '0' <= b[digits] && b[digits] <= '9' {
		r.Index = 10*r.Index + int64(b[digits]-'0')
		digits++
	}
	const idLen, digestLen = 36, 2 * len(r.Digest)
	b, ok = bytes.CutPrefix(b[digits:], []byte(`,"event_id":"`))
	if !ok || digits == 0 || len(b) < idLen {
		return r, false
	}
	id := b[:idLen]
	for _, c := range id {
		if c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return r, false
		}
	}
	b, ok = bytes.CutPrefix(b[idLen:], []byte(`","digest":"`))
	if !ok || len(b) < digestLen {
		return r, false
	}
	if _, err := hex.Decode(r.Digest[:], b[:digestLen]); err != nil {
		return r, false
	}
	switch string(bytes.TrimRight(b[digestLen:], "\r\n")) {
	case `"}`:
		r.Durable = true
	case `","durable":false}`:
	default:
		return r, false
	}
	r.EventID = string(id)
	return r, true
}
