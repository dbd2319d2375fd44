package socket

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
)

// What a peer may cost. docs/protocol.md states these.
const (
	maxHead     = 16 << 10
	headTime    = 5 * time.Second  // from the first byte, or from connecting, to the end of a head
	idleTime    = 5 * time.Minute  // without a request, or in a stream without an event
	lineTime    = 30 * time.Second // from a line's first byte to its last
	bodyTime    = 30 * time.Second // for a small body
	drainTime   = time.Second      // for the rest of a body that nobody wants
	maxDrain    = 256 << 10        // of it
	answerTime  = 30 * time.Second // until a peer takes an answer
	maxConns    = 2048
	maxForeign  = maxConns / 2 // of users other than the holder's and root
	maxTurned   = 128          // connections past the limit that are told so
	maxBody     = 1 << 20      // of a reading or a user
	batchEvents = 1000
	answerRoom  = 256 << 10 // answers of as many, which may wait in the socket
	// longLines is what the large buffers of all streams may have together, if
	// that is at least four of the longest lines; foreign users have half as
	// much of their own.
	longLines = 64 << 20
)

// Server serves a Holder to the processes of one machine.
type Server struct {
	holder  Holder
	info    Info // its Durability and MaxLine
	uid     int
	http    http.Server
	own     budget
	foreign budget

	idle, line, small time.Duration // idleTime, lineTime and bodyTime, shorter in tests

	mu           sync.Mutex
	conns        map[*conn]struct{}
	foreignConns int
	turned       int
	active       int
	alone        time.Time // since when there is no connection, if there is none
	stopping     bool
	quiet        chan struct{} // closed when stopping and nothing is active
}

// NewServer makes a server. warn, which may be nil, is told what goes wrong
// without failing a request.
func NewServer(h Holder, warn func(error)) (*Server, error) {
	info, err := h.Info(context.Background())
	if err != nil {
		return nil, err
	}
	if !info.Durability.known() || info.MaxLine <= 0 {
		return nil, errors.New("socket server: the holder does not tell its durability or its longest line")
	}
	s := &Server{
		holder: h, info: info, uid: os.Geteuid(), idle: idleTime, line: lineTime, small: bodyTime,
		conns: map[*conn]struct{}{}, quiet: make(chan struct{}), alone: time.Now(),
	}
	s.own.left.Store(max(longLines, 4*int64(info.MaxLine+1)))
	s.foreign.left.Store(s.own.left.Load() / 2)
	s.http = http.Server{
		Handler:           s,
		ReadHeaderTimeout: headTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    maxHead,
		ErrorLog:          log.New(warner(func(e error) { warnIf(warn, e) }), "", 0),
		ConnState:         s.connState,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c)
		},
	}
	return s, nil
}

func warnIf(warn func(error), err error) {
	if warn != nil {
		warn(err)
	}
}

// warner is a log's writer that warns.
type warner func(error)

func (w warner) Write(b []byte) (int, error) {
	w(fmt.Errorf("socket: %s", strings.TrimSpace(string(b))))
	return len(b), nil
}

// Serve takes connections from a listener that Listen made, until Shutdown,
// and then returns nil. It closes the listener.
func (s *Server) Serve(l net.Listener) error {
	err := s.http.Serve(&gate{l, s})
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Shutdown takes no more connections and no more events, answers what was
// accepted, says Closed to what else has arrived, and returns when every peer
// has its answers or ctx ends; then the connections are closed.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	if !s.stopping {
		s.stopping = true
		if s.active == 0 {
			close(s.quiet)
		}
		for c := range s.conns {
			c.stopReading()
		}
	}
	s.mu.Unlock()
	// The listener's file goes now; idle connections and those without a
	// whole head go too.
	expired, cancel := context.WithCancel(context.Background())
	cancel()
	_ = s.http.Shutdown(expired)
	var err error
	select {
	case <-s.quiet:
	case <-ctx.Done():
		err = fmt.Errorf("socket: not every peer took its answers: %w", ctx.Err())
	}
	err = errors.Join(err, s.http.Close())
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.abort()
	}
	return err
}

// Idle is how long nobody has been connected: 0 while somebody is.
func (s *Server) Idle() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.conns) > 0 {
		return 0
	}
	return time.Since(s.alone)
}

func (s *Server) isStopping() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopping
}

// connState counts the connections that a request is under way on. One that is
// hijacked has its request until it is closed.
func (s *Server) connState(nc net.Conn, state http.ConnState) {
	if state == http.StateHijacked {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	nc.(*conn).setActiveLocked(state == http.StateActive)
}

func (c *conn) setActiveLocked(active bool) {
	s, was := c.s, c.active
	c.active = active
	switch {
	case active && !was:
		s.active++
	case was && !active:
		if s.active--; s.active == 0 && s.stopping {
			select {
			case <-s.quiet:
			default:
				close(s.quiet)
			}
		}
	}
}

// gate asks who connects, and counts.
type gate struct {
	net.Listener
	s *Server
}

func (g *gate) Accept() (net.Conn, error) {
	for {
		nc, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if c := g.s.admit(nc); c != nil {
			return c, nil
		}
		nc.Close()
	}
}

// admit gives nil for a connection that is closed without a word.
func (s *Server) admit(nc net.Conn) *conn {
	u, ok := nc.(*net.UnixConn)
	if !ok {
		return nil
	}
	peer, err := peerOf(u)
	if err != nil {
		return nil
	}
	if runtime.GOOS != "linux" { // where a socket holds 8 KiB
		_ = u.SetWriteBuffer(answerRoom)
	}
	c := &conn{UnixConn: u, s: s, peer: peer, foreign: peer.UID != s.uid && peer.UID != 0}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.conns)-s.turned >= maxConns || c.foreign && s.foreignConns >= maxForeign {
		if s.turned >= maxTurned {
			return nil
		}
		c.turned = true
		s.turned++
	} else if c.foreign {
		s.foreignConns++
	}
	s.conns[c] = struct{}{}
	return c
}

// conn is an accepted connection.
type conn struct {
	*net.UnixConn
	s       *Server
	peer    Peer
	foreign bool // its user is neither the holder's nor root
	turned  bool // it is one too many
	active  bool // under s.mu
	gone    sync.Once

	mu       sync.Mutex
	noRead   bool // nothing is read any more
	answerBy time.Time
}

type connKey struct{}

func (c *conn) Close() error {
	c.gone.Do(func() {
		c.s.mu.Lock()
		defer c.s.mu.Unlock()
		c.setActiveLocked(false)
		delete(c.s.conns, c)
		if len(c.s.conns) == 0 {
			c.s.alone = time.Now()
		}
		switch {
		case c.turned:
			c.s.turned--
		case c.foreign:
			c.s.foreignConns--
		}
	})
	return c.UnixConn.Close()
}

// SetReadDeadline is the one of the connection until nothing is to be read any
// more.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.noRead {
		return nil
	}
	return c.UnixConn.SetReadDeadline(t)
}

// SetDeadline is never called by net/http with a meaning of its own.
func (c *conn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// stopReading makes every read fail, the one under way too.
func (c *conn) stopReading() {
	_ = c.SetReadDeadline(time.Unix(1, 0))
	c.mu.Lock()
	c.noRead = true
	c.mu.Unlock()
}

func (c *conn) readsNoMore() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.noRead
}

// abort ends the connection for both sides. It does not wait for whoever uses
// it, as Close does: a holder that hangs would hold that too.
func (c *conn) abort() {
	_ = c.CloseRead()
	_ = c.CloseWrite()
}

// Write is bounded by answerTime. The deadline is moved when a sixth of it is
// gone, not for every answer.
func (c *conn) Write(b []byte) (int, error) {
	c.mu.Lock()
	if now := time.Now(); c.answerBy.Sub(now) < answerTime*5/6 {
		c.answerBy = now.Add(answerTime)
		_ = c.SetWriteDeadline(c.answerBy)
	}
	c.mu.Unlock()
	return c.UnixConn.Write(b)
}

// otherVersion is a path of a version that is not ours.
var otherVersion = regexp.MustCompile(`^/v[0-9]+(/|$)`)

// request is one request with who asks.
type request struct {
	*http.Request

	w    http.ResponseWriter
	rc   *http.ResponseController
	conn *conn

	bodyRead bool // to its end
	hijacked bool // the connection is no longer net/http's
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, hr *http.Request) {
	c := hr.Context().Value(connKey{}).(*conn)
	r := &request{Request: hr, w: w, rc: http.NewResponseController(w), conn: c}
	w.Header().Set(versionHeader, strconv.Itoa(Version))
	if hr.ContentLength == 0 {
		if err := s.serve(r); err != nil {
			r.fail(err)
		}
		return
	}
	_ = c.SetReadDeadline(time.Now().Add(s.small))
	// An answer does not wait for the rest of the body.
	if err := r.rc.EnableFullDuplex(); err != nil {
		r.fail(err)
		return
	}
	if err := s.serve(r); err != nil {
		r.fail(err)
	}
	r.finishBody()
}

// finishBody reads the rest of a body, for a moment, so that a peer that writes
// first and reads then can. net/http would do it too late: with both directions
// open it must not meet the end of a body after the handler. What is longer
// ends the connection.
func (r *request) finishBody() {
	if r.bodyRead || r.hijacked || r.w.Header().Get("Connection") == "close" {
		return
	}
	_ = r.rc.Flush()
	_ = r.conn.SetReadDeadline(time.Now().Add(drainTime))
	if _, err := io.CopyN(io.Discard, r.Body, maxDrain); err != io.EOF {
		panic(http.ErrAbortHandler)
	}
}

// serve answers, or gives the error that is the answer.
func (s *Server) serve(r *request) error {
	switch {
	case r.conn.turned:
		r.w.Header().Set("Connection", "close")
		return &Error{Code: Busy, Message: "too many connections"}
	case s.isStopping():
		r.w.Header().Set("Connection", "close")
		return &Error{Code: Closed, Message: "the holder is ending"}
	}
	path := r.URL.EscapedPath()
	user, ofUser := strings.CutPrefix(path, "/v1/users/")
	var method string
	var handle func(*request) error
	open := false   // to whom the socket's group lets in
	byRole := false // to them where a role lets them, which the holder asks for
	switch {
	case path == "/v1/trail":
		method, handle, open = http.MethodGet, s.trail, true
	case path == "/v1/events":
		method, handle, open = http.MethodPost, s.events, true
	case path == "/v1/readings":
		method, handle = http.MethodPost, s.readings
	case path == "/v1/pseudonyms":
		method, handle = http.MethodPost, s.pseudonyms
	case path == string(Erasures):
		method, handle, byRole = http.MethodPost, s.erasures, true
	case path == string(Prunes):
		method, handle, byRole = http.MethodPost, s.call(s.holder.Prune), true
	case path == string(Rotations):
		method, handle, byRole = http.MethodPost, s.call(s.holder.Rotate), true
	case path == string(Holds):
		method, handle, byRole = http.MethodPost, s.call(s.holder.AddHold), true
	case path == string(LiftedHolds):
		method, handle, byRole = http.MethodPost, s.call(s.holder.LiftHold), true
	case path == string(DueErasures):
		method, handle, byRole = http.MethodPost, s.call(s.holder.EraseDue), true
	case path == string(CancelledErasures):
		method, handle, byRole = http.MethodPost, s.call(s.holder.CancelErasure), true
	case path == string(Retention):
		method, handle, byRole = http.MethodPost, s.call(s.holder.SetRetention), true
	case path == "/v1/entries":
		method, handle, byRole = http.MethodGet, s.entries, true
	case path == "/v1/report":
		method, handle, byRole = http.MethodGet, s.report, true
	case ofUser && user != "" && !strings.Contains(user, "/"):
		method, handle, byRole = http.MethodGet, func(r *request) error { return s.user(r, user) }, true
	case !strings.HasPrefix(path, "/v1/") && otherVersion.MatchString(path):
		return &Error{Code: Protocol, Message: "this holder speaks version 1 of the protocol", Supported: []int{Version}}
	default:
		return &Error{Code: NotFound, Message: "there is no such path"}
	}
	if r.conn.foreign && !open && (!byRole || !s.holder.Controlled()) {
		return &Error{Code: Denied, Message: fmt.Sprintf("user %d may only record events and read /v1/trail", r.conn.peer.UID)}
	}
	if r.Method != method {
		r.w.Header().Set("Allow", method)
		return &Error{Code: Protocol, Message: "this path takes " + method}
	}
	return handle(r)
}

// fail answers with an error.
func (r *request) fail(err error) {
	e := asError(err)
	status := e.Code.status()
	if len(e.Supported) > 0 {
		status = http.StatusNotFound
	}
	r.json(status, appendError(nil, r.conn.tell(err)))
}

// json answers with one JSON value.
func (r *request) json(status int, b []byte) {
	b = append(b, '\n')
	r.w.Header().Set("Content-Type", "application/json")
	r.w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	r.w.WriteHeader(status)
	_, _ = r.w.Write(b)
}

// tell is err as the peer may know it: what is internal may name files.
func (c *conn) tell(err error) error {
	if c.foreign && asError(err).Code == Internal {
		return &Error{Code: Internal, Message: "the holder could not do it"}
	}
	return err
}

// params refuses parameters that are not among those that are known: one
// that is ignored would mislead.
func (r *request) params(known ...string) (url.Values, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, badRequest("the parameters can't be read")
	}
	for name, v := range values {
		ok := false
		for _, k := range known {
			ok = ok || k == name
		}
		switch {
		case !ok:
			return nil, badRequest("there is a parameter that this path does not have")
		case len(v) > 1 && name != "meta" && name != "event_type":
			return nil, badRequest(name + " is given twice")
		}
		for _, one := range v {
			if one == "" {
				return nil, badRequest(name + " is empty")
			}
		}
	}
	return values, nil
}

func badRequest(message string) error { return &Error{Code: Protocol, Message: message} }

// trail answers GET /v1/trail.
func (s *Server) trail(r *request) error {
	if _, err := r.params(); err != nil {
		return err
	}
	info, err := s.holder.Info(r.Context())
	if err != nil {
		return err
	}
	info.Protocol = Version
	b, err := json.Marshal(info)
	if err != nil {
		return err
	}
	r.json(http.StatusOK, b)
	return nil
}
