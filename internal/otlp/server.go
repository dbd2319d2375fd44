package otlp

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"time"

	audit "github.com/kaizen-audit/kaizen-audit"
)

const (
	// headTime, bodyTime and answerTime bound how long a sender may take for
	// each; SDKs give up after ten seconds themselves.
	headTime, bodyTime, answerTime = 5 * time.Second, 30 * time.Second, 60 * time.Second
	idleTime                       = 2 * time.Minute
	maxHead                        = 16 << 10
	// maxConnections is how many senders may be connected at once.
	maxConnections = 256
	// grace is how long an ending waits for answers under way.
	grace = 5 * time.Second
)

// Options are how a Server is made; nil is a good default.
type Options struct {
	// Tokens is a file with the tokens that senders must have: a line each, a
	// name and the token. Without it only an address of this machine's own,
	// loopback, can be listened on.
	Tokens string
	// Limits are DefaultLimits where nil.
	Limits *Limits
	// Warn gets what goes wrong; it may be called at once from several
	// goroutines. Nil: nobody is told.
	Warn func(error)
}

// Server is a listener for OTLP over HTTP.
type Server struct {
	*Handler
	listener net.Listener
	http     *http.Server
}

// Listen listens on an address such as 127.0.0.1:4318. Serve must follow.
func Listen(address string, t *audit.Trail, opts *Options) (*Server, error) {
	if opts == nil {
		opts = &Options{}
	}
	warn, limits := opts.Warn, DefaultLimits
	if warn == nil {
		warn = func(error) {}
	}
	if opts.Limits != nil {
		limits = *opts.Limits
	}
	tokens, err := readTokens(opts.Tokens)
	if err != nil {
		return nil, fmt.Errorf("otlp: tokens %s: %w", opts.Tokens, err)
	}
	if err := loopback(address); err != nil && len(tokens) == 0 {
		return nil, fmt.Errorf("otlp: listen on %s: %w", address, err)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("otlp: %w", err)
	}
	h := newHandler(intake{t}, l.Addr(), tokens, limits, warn)
	return &Server{Handler: h, listener: &limited{Listener: l, free: make(chan struct{}, maxConnections)}, http: &http.Server{
		Handler: h, ReadHeaderTimeout: headTime, ReadTimeout: bodyTime, WriteTimeout: answerTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHead,
		ErrorLog: nil, DisableGeneralOptionsHandler: true,
	}}, nil
}

// loopback refuses an address that others than this machine could reach.
func loopback(address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	if host == "localhost" {
		return nil
	}
	if a, err := netip.ParseAddr(host); err == nil && a.Unmap().IsLoopback() {
		return nil
	}
	return errors.New("it is not this machine's own (127.0.0.1): others could record here; give --otlp-token-file to let those in who have a token")
}

// Addr is the address that is listened on.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Serve answers until ctx ends; then it takes nothing more, and answers what it
// has taken.
func (s *Server) Serve(ctx context.Context) error {
	ended := make(chan error, 1)
	go func() { ended <- s.http.Serve(s.listener) }()
	select {
	case err := <-ended:
		return fmt.Errorf("otlp: %w", err)
	case <-ctx.Done():
	}
	bounded, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	if err := s.http.Shutdown(bounded); err != nil {
		return errors.Join(fmt.Errorf("otlp: %w", err), s.http.Close())
	}
	return nil
}

// limited accepts as many connections as are free.
type limited struct {
	net.Listener
	free chan struct{}
}

func (l *limited) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case l.free <- struct{}{}:
			return &counted{Conn: c, l: l}, nil
		default:
			_ = c.Close() // there are too many
		}
	}
}

type counted struct {
	net.Conn
	l      *limited
	closed atomic.Bool
}

func (c *counted) Close() error {
	if c.closed.CompareAndSwap(false, true) {
		<-c.l.free
	}
	return c.Conn.Close()
}

const (
	maxTokens = 64 << 10
	// shortest is how long a token must be: 128 bits as hex, or more in fewer.
	shortest = 20
)

// readTokens reads a file of tokens: name and token in a line, # a comment. Who
// can read it can record here, so nobody else but its owner may.
func readTokens(name string) (map[[sha256.Size]byte]string, error) {
	if name == "" {
		return nil, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	switch {
	case fi.Mode().Perm()&0o077 != 0:
		return nil, errors.New("others than its owner can read it: chmod 600")
	case fi.Size() > maxTokens:
		return nil, errors.New("it is too long for a file of tokens")
	}
	tokens := map[[sha256.Size]byte]string{}
	s := bufio.NewScanner(f)
	for n := 1; s.Scan(); n++ {
		fields := strings.Fields(s.Text())
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		switch {
		case len(fields) != 2:
			return nil, fmt.Errorf("line %d: a name and a token are needed", n)
		case len(fields[1]) < shortest:
			return nil, fmt.Errorf("line %d: the token is shorter than %d characters: openssl rand -hex 32 makes one", n, shortest)
		}
		tokens[sha256.Sum256([]byte(fields[1]))] = fields[0]
	}
	if err := s.Err(); err != nil {
		return nil, err
	}
	if len(tokens) == 0 {
		return nil, errors.New("there is no token in it")
	}
	return tokens, nil
}
