// Package llmhttp records the model calls that an http.Client makes: every
// attempt is an LLM_CALL entry with the whole request and response, streamed or
// not.
//
//	client := &http.Client{Transport: llmhttp.NewTransport(hooks, nil)}
//
// It knows the paths and formats of the OpenAI APIs and those that are compatible
// with them, Anthropic, Gemini and Vertex AI, Amazon Bedrock and Ollama. Other
// requests pass by unrecorded. No header is recorded, nor the query of a URL:
// credentials travel in both.
//
// The entry is made when the response was read to its end or closed, and hangs
// below the action that the request's context belongs to.
package llmhttp

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/hook"
	"github.com/kaizen-audit/kaizen-audit/internal/capture"
)

// maxBody is how much of a request and of a response is kept, in bytes: twice
// what an entry holds by default. Of a longer one the entry says how long it
// was.
const maxBody = 32 << 20

// NewTransport records what goes through base, which is http.DefaultTransport
// where it is nil.
func NewTransport(hooks *hook.Manager, base http.RoundTripper) http.RoundTripper {
	if base == nil {
		base = http.DefaultTransport
	}
	return transport{Middleware(hooks), base}
}

type transport struct {
	handle func(*http.Request, func(*http.Request) (*http.Response, error)) (*http.Response, error)
	base   http.RoundTripper
}

func (t transport) RoundTrip(req *http.Request) (*http.Response, error) {
	return t.handle(req, t.base.RoundTrip)
}

// Middleware is NewTransport for clients that take a function around each
// request, as the official SDKs of OpenAI and Anthropic do (modules adapter/openai
// and adapter/anthropic). A request fails with hook.ErrFailClosed in its error if a
// hook wants so.
func Middleware(hooks *hook.Manager) func(*http.Request, func(*http.Request) (*http.Response, error)) (*http.Response, error) {
	return func(req *http.Request, next func(*http.Request) (*http.Response, error)) (*http.Response, error) {
		if req.Method != http.MethodPost || !capture.Known(req.URL) {
			return next(req)
		}
		return record(hooks, req, next)
	}
}

func record(hooks *hook.Manager, req *http.Request, next func(*http.Request) (*http.Response, error)) (*http.Response, error) {
	body, sent, err := readBody(req)
	if err != nil {
		return nil, err
	}
	call := capture.Request(req.URL, req.Header.Get("Content-Type"), body.bytes)
	c := &recorded{hooks: hooks, call: call}
	c.metadata = map[string]any{"server_address": req.URL.Host}
	if n, err := strconv.Atoi(req.Header.Get("X-Stainless-Retry-Count")); err == nil && n > 0 {
		c.metadata["retry"] = n
	}
	data := hook.Data{Name: call.Model(), Inputs: body.object(req.Header), Metadata: c.said()}
	if c.ctx, err = hooks.Trigger(req.Context(), hook.PreLLMCall, data); err != nil {
		_ = sent.Body.Close()
		return nil, err
	}
	resp, err := next(sent.WithContext(c.ctx))
	if err != nil {
		return nil, errors.Join(err, c.end(hook.Data{Err: withoutURL(err)}))
	}
	c.resp, c.body = resp, resp.Body
	if resp.Body == nil || resp.Body == http.NoBody {
		return resp, c.finish(true, nil)
	}
	resp.Body = c
	return resp, nil
}

// withoutURL is an error without the URL, whose query may have a key.
func withoutURL(err error) error {
	var e *url.Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

// kept is what is kept of a body.
type kept struct {
	bytes []byte // nil once it was too long
	n     int64
}

func (k *kept) Write(p []byte) (int, error) {
	k.n += int64(len(p))
	if k.n <= maxBody {
		k.bytes = append(k.bytes, p...)
	} else {
		k.bytes = nil
	}
	return len(p), nil
}

// object is a body for an entry.
func (k *kept) object(h http.Header) audit.Object {
	if k.n > maxBody {
		return tooLong(k.n)
	}
	b := capture.Body(h.Get("Content-Type"), k.bytes)
	if b == nil {
		return audit.Object{}
	}
	return audit.Raw(b)
}

func tooLong(n int64) audit.Object {
	return audit.Of(map[string]any{"omitted": fmt.Sprintf("longer than %d bytes", maxBody), "bytes": n})
}

// readBody reads a request's body, and gives a request that sends it.
func readBody(req *http.Request) (k *kept, sent *http.Request, err error) {
	k, sent = &kept{}, req.Clone(req.Context())
	if req.Body == nil || req.Body == http.NoBody {
		return k, sent, nil
	}
	first, err := io.ReadAll(io.TeeReader(io.LimitReader(req.Body, maxBody+1), k))
	if err != nil {
		return nil, nil, errors.Join(err, req.Body.Close())
	}
	if len(first) > maxBody { // its length is known when it has been sent, or at once
		k.n = max(k.n, req.ContentLength)
		sent.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(first), req.Body), req.Body}
		return k, sent, nil
	}
	if err := req.Body.Close(); err != nil {
		return nil, nil, err
	}
	sent.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(first)), nil }
	sent.Body, err = sent.GetBody()
	return k, sent, err
}

// recorded is a response's body, and its call.
type recorded struct {
	hooks    *hook.Manager
	call     *capture.Call
	ctx      context.Context // of the action
	metadata map[string]any
	resp     *http.Response
	body     io.ReadCloser
	once     sync.Once
	err      error // of recording

	mu  sync.Mutex // a body may be closed while it is read
	got kept
}

// said is what the entry's metadata says so far.
func (c *recorded) said() map[string]any {
	m := map[string]any{"gen_ai": c.call.Metadata()}
	for name, v := range c.metadata {
		m[name] = v
	}
	return m
}

// end tells the hooks.
func (c *recorded) end(d hook.Data) error {
	d.Metadata = c.said()
	_, err := c.hooks.Trigger(c.ctx, hook.PostLLMCall, d)
	return err
}

func (c *recorded) Read(p []byte) (int, error) {
	n, err := c.body.Read(p)
	c.mu.Lock()
	_, _ = c.got.Write(p[:n])
	c.mu.Unlock()
	if err == nil {
		return n, nil
	}
	if err == io.EOF {
		if failed := c.finish(true, nil); failed != nil {
			return n, failed
		}
		return n, io.EOF
	}
	return n, errors.Join(err, c.finish(false, err))
}

// Close ends the call too: a stream's reader stops at the stream's own end,
// which is not the body's.
func (c *recorded) Close() error {
	if c.resp.StatusCode >= http.StatusBadRequest {
		c.readRest()
	}
	return errors.Join(c.body.Close(), c.finish(false, nil))
}

// readRest reads what an error says: a client that tries again closes it unread.
func (c *recorded) readRest() {
	stop := time.AfterFunc(restTime, func() { _ = c.body.Close() })
	defer stop.Stop()
	_, _ = io.Copy(io.Discard, io.LimitReader(c, maxRest))
}

// What is read of an error that nobody reads: some kilobytes, which have come with
// the status mostly. Whoever closes it does not want to wait for more.
const (
	maxRest  = 1 << 20
	restTime = 200 * time.Millisecond
)

// finish tells what was got. whole says that the body ended by itself; err is why
// it could not be read on.
func (c *recorded) finish(whole bool, err error) error {
	c.once.Do(func() { c.err = c.end(c.outcome(whole, err)) })
	return c.err
}

func (c *recorded) outcome(whole bool, err error) hook.Data {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := hook.Data{Err: err}
	c.metadata["http_status"] = c.resp.StatusCode
	for _, name := range []string{"X-Request-Id", "Request-Id", "X-Amzn-Requestid"} {
		if id := c.resp.Header.Get(name); id != "" {
			c.metadata["request_id"] = id
			break
		}
	}
	contentType := c.resp.Header.Get("Content-Type")
	text, plain := c.plain()
	switch {
	case c.got.n > maxBody:
		d.Outputs, whole = tooLong(c.got.n), true
	case !plain:
		d.Outputs = audit.Of(map[string]any{"omitted": "its Content-Encoding is not known or broken", "bytes": c.got.n})
	default:
		if out := c.call.Response(contentType, text); out != nil {
			d.Outputs = audit.Raw(out)
		}
		whole = whole || len(c.call.FinishReasons) > 0 || !c.call.Streamed && json.Valid(text)
	}
	if d.Err == nil && c.resp.StatusCode >= http.StatusBadRequest {
		d.Err = errors.New(strings.TrimSpace(fmt.Sprintf("%d %s", c.resp.StatusCode, http.StatusText(c.resp.StatusCode))))
	} else if d.Err == nil && c.call.Failure != "" {
		d.Err = errors.New("the answer tells of an error: " + c.call.Failure)
	} else if !whole && err == nil {
		d.Outcome = "cancelled"
	}
	return d
}

// plain is the body as it was before it was compressed.
func (c *recorded) plain() ([]byte, bool) {
	switch c.resp.Header.Get("Content-Encoding") {
	case "", "identity":
		return c.got.bytes, true
	case "gzip":
		z, err := gzip.NewReader(bytes.NewReader(c.got.bytes))
		if err != nil {
			return nil, false
		}
		b, err := io.ReadAll(io.LimitReader(z, maxBody))
		return b, err == nil || errors.Is(err, io.ErrUnexpectedEOF)
	}
	return nil, false
}
