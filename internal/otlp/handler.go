package otlp

import (
	"compress/gzip"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/kaizen-audit/kaizen-audit/entry"
)

// Limits bound what one request, and all of them together, can cost.
type Limits struct {
	// Body is the longest body as it is sent, Inflated after decompression, in
	// bytes.
	Body, Inflated int64
	// Spans is how many spans or log records a request may have, Values how
	// many values in all: attributes, elements of arrays, members of maps.
	Spans, Values int
	// InFlight is how many bytes of bodies, and of the values that are made of
	// them, are worked on at once.
	InFlight int64
}

// DefaultLimits are ours. 64 MiB after decompression is what the specification
// recommends; SDKs send at most 512 spans at once, the collector 8,192. One
// request of the largest size always has room: its body, and the values.
var DefaultLimits = Limits{Body: 16 << 20, Inflated: 64 << 20, Spans: 100_000, Values: 1 << 20, InFlight: 512 << 20}

// atOnce is how many requests are worked on at once. As many share one sync of
// the disk; what they are made of is in memory.
const atOnce = 16

var (
	errTooMany = errors.New("more spans, records or values than one request may have")
	errTooDeep = errors.New("the JSON is nested too deep")
	errBusy    = errors.New("too much is being recorded at once")
	errTooLong = errors.New("the body is longer than a request may be")
)

// Handler takes OTLP over HTTP: POST /v1/traces and /v1/logs.
type Handler struct {
	trail  trail
	limits Limits
	hosts  map[string]bool // names that a request may be for; nil where tokens are asked for
	tokens map[[sha256.Size]byte]string
	busy   atomic.Int64 // bytes of bodies and values
	work   chan struct{}
	counts Counts
	warn   func(error)
}

// Counts says what became of spans and log records so far.
type Counts struct {
	// Spans is how many there were: Spans = Mapped + Kept + Refused.
	Spans   int64 `json:"spans"`
	Mapped  int64 `json:"mapped"`  // what they were is known
	Kept    int64 `json:"kept"`    // as SPAN or LOG
	Refused int64 `json:"refused"` // with a reason
}

func newHandler(t trail, address net.Addr, tokens map[[sha256.Size]byte]string, limits Limits, warn func(error)) *Handler {
	h := &Handler{trail: t, limits: limits, tokens: tokens, work: make(chan struct{}, atOnce), warn: warn}
	if len(tokens) == 0 {
		h.hosts = map[string]bool{"localhost": true}
		if a, err := netip.ParseAddrPort(address.String()); err == nil {
			h.hosts[a.Addr().String()] = true
		}
	}
	return h
}

// Counts gives what became of everything so far.
func (h *Handler) Counts() Counts {
	c := &h.counts
	return Counts{atomic.LoadInt64(&c.Spans), atomic.LoadInt64(&c.Mapped), atomic.LoadInt64(&c.Kept), atomic.LoadInt64(&c.Refused)}
}

// The codes of google.rpc.Status that are used (google/rpc/code.proto).
const (
	codeInvalid         = 3
	codeDenied          = 7
	codeExhausted       = 8
	codeUnimplemented   = 12
	codeUnavailable     = 14
	codeUnauthenticated = 16
)

const protobufType, jsonType = "application/x-protobuf", "application/json"

// failure is an answer that is none of success.
type failure struct {
	status, code int
	message      string
	retryAfter   int // seconds
}

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	kind, asJSON := contentType(r.Header)
	by, f := h.admit(r)
	if f == nil {
		f = h.serve(w, r, by, kind, asJSON)
	}
	if f != nil {
		f.write(w, asJSON)
	}
}

func contentType(header http.Header) (kind string, asJSON bool) {
	kind, _, err := mime.ParseMediaType(header.Get("Content-Type"))
	if err != nil {
		kind = ""
	}
	return kind, kind != protobufType
}

// admit says who sends, or why he may not.
func (h *Handler) admit(r *http.Request) (by string, f *failure) {
	// No page in a browser has anything to send here, by whatever name it
	// has found this address.
	if r.Header.Get("Origin") != "" {
		return "", &failure{status: http.StatusForbidden, code: codeDenied, message: "requests of web pages are not taken"}
	}
	if h.hosts != nil {
		host := r.Host
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
		host = strings.ToLower(strings.Trim(host, "[]"))
		if a, err := netip.ParseAddr(host); !h.hosts[host] && (err != nil || !a.IsLoopback()) {
			return "", &failure{status: http.StatusForbidden, code: codeDenied, message: "the Host header names another server: send to localhost or the address itself"}
		}
		return "", nil
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if strings.EqualFold(scheme, "Bearer") {
		sum := sha256.Sum256([]byte(strings.TrimSpace(token)))
		for known, name := range h.tokens {
			if subtle.ConstantTimeCompare(known[:], sum[:]) == 1 {
				by = name
			}
		}
	}
	if by == "" {
		return "", &failure{status: http.StatusUnauthorized, code: codeUnauthenticated, message: "a token is needed: Authorization: Bearer TOKEN"}
	}
	return by, nil
}

func (h *Handler) serve(w http.ResponseWriter, r *http.Request, by, kind string, asJSON bool) *failure {
	logs := false
	switch r.URL.Path {
	case "/v1/traces":
	case "/v1/logs":
		logs = true
	case "/v1/metrics":
		return &failure{status: http.StatusNotFound, code: codeUnimplemented, message: "metrics are not taken: set OTEL_METRICS_EXPORTER=none at the sender"}
	default:
		return &failure{status: http.StatusNotFound, code: codeUnimplemented, message: "there is /v1/traces and /v1/logs"}
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return &failure{status: http.StatusMethodNotAllowed, code: codeUnimplemented, message: "only POST is taken"}
	}
	if kind != protobufType && kind != jsonType {
		return &failure{status: http.StatusUnsupportedMediaType, code: codeInvalid, message: "the content type must be " + protobufType + " or " + jsonType}
	}
	body, release, f := h.body(w, r)
	if f != nil {
		return f
	}
	defer release()
	select {
	case h.work <- struct{}{}:
		defer func() { <-h.work }()
	case <-r.Context().Done():
		return busy
	}
	var made int64
	defer func() { h.busy.Add(-made) }()
	d := &decoder{limits: h.limits, hold: func(n int64) bool {
		made += n
		return h.busy.Add(n) <= h.limits.InFlight
	}}
	var err error
	if asJSON {
		err = d.json(body, logs)
	} else {
		err = d.protobuf(body, logs)
	}
	switch {
	case errors.Is(err, errBusy):
		return busy
	case errors.Is(err, errTooMany):
		return &failure{status: http.StatusRequestEntityTooLarge, code: codeExhausted, message: err.Error()}
	case err != nil:
		return &failure{status: http.StatusBadRequest, code: codeInvalid, message: err.Error()}
	}
	refused, f := h.record(r.Context(), by, d)
	if f != nil {
		return f
	}
	respond(w, asJSON, logs, refused)
	return nil
}

// body reads a request's body, decompressed. release gives its room back.
func (h *Handler) body(w http.ResponseWriter, r *http.Request) (body []byte, release func(), f *failure) {
	zipped := false
	switch encoding := strings.ToLower(strings.TrimSpace(r.Header.Get("Content-Encoding"))); encoding {
	case "", "identity":
	case "gzip":
		zipped = true
	default:
		return nil, nil, &failure{status: http.StatusUnsupportedMediaType, code: codeInvalid, message: "the content encoding must be gzip or none"}
	}
	tooLong := &failure{status: http.StatusRequestEntityTooLarge, code: codeExhausted, message: errTooLong.Error()}
	if r.ContentLength > h.limits.Body {
		return nil, nil, tooLong
	}
	var held int64
	release = func() { h.busy.Add(-held) }
	// hold takes room for what is read, as it is read: a promise of a long
	// body takes none.
	hold := func(n int64) bool {
		held += n
		return h.busy.Add(n) <= h.limits.InFlight
	}
	in := io.Reader(http.MaxBytesReader(w, r.Body, h.limits.Body))
	limit := h.limits.Body
	if zipped {
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, nil, bodyFailure(err)
		}
		in, limit = z, h.limits.Inflated
	}
	size := int64(32 << 10)
	if r.ContentLength > 0 && !zipped {
		size = min(r.ContentLength+1, 1<<20)
	}
	if !hold(size) {
		release()
		return nil, nil, busy
	}
	body = make([]byte, 0, size)
	for {
		if len(body) == cap(body) {
			if int64(len(body)) > limit {
				release()
				return nil, nil, tooLong
			}
			if !hold(int64(cap(body))) {
				release()
				return nil, nil, busy
			}
			body = append(make([]byte, 0, 2*cap(body)), body...)
		}
		n, err := in.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		if err == io.EOF {
			break
		}
		if err != nil {
			release()
			return nil, nil, bodyFailure(err)
		}
	}
	if int64(len(body)) > limit {
		release()
		return nil, nil, tooLong
	}
	return body, release, nil
}

var busy = &failure{status: http.StatusServiceUnavailable, code: codeUnavailable, message: errBusy.Error(), retryAfter: 1}

func bodyFailure(err error) *failure {
	var long *http.MaxBytesError
	if errors.As(err, &long) {
		return &failure{status: http.StatusRequestEntityTooLarge, code: codeExhausted, message: errTooLong.Error()}
	}
	return &failure{status: http.StatusBadRequest, code: codeInvalid, message: "the body can't be read: it is cut off, or no gzip"}
}

// refusal is what was not recorded and never will be: spans by the reason, in
// the order in which they came.
type refusal struct {
	count   int
	reasons []string
	names   map[string][]string // of the spans, by reason
}

func (r *refusal) add(name, why string) {
	r.count++
	if r.names == nil {
		r.names = map[string][]string{}
	}
	if _, known := r.names[why]; !known {
		r.reasons = append(r.reasons, why)
	}
	r.names[why] = append(r.names[why], name)
}

// warned is how many spans a warning names of each reason; an answer names all.
const warned = 20

// text names at most so many spans of each reason, all of them where that is 0:
// "REASON: span ID, ID; …". Log records have no name.
func (r *refusal) text(most int) string {
	var s strings.Builder
	for i, why := range r.reasons {
		if i > 0 {
			s.WriteString("; ")
		}
		names := r.names[why]
		if names[0] == "" {
			fmt.Fprintf(&s, "%s: %d records", why, len(names))
			continue
		}
		shown := names
		if most > 0 {
			shown = names[:min(most, len(names))]
		}
		fmt.Fprintf(&s, "%s: span %s", why, strings.Join(shown, ", "))
		if n := len(names) - len(shown); n > 0 {
			fmt.Fprintf(&s, " and %d more", n)
		}
	}
	return s.String()
}

// record records everything in a request, in its order. What a passing fault
// has kept from being recorded makes the whole request one to send again: what
// was recorded is then not recorded twice.
func (h *Handler) record(ctx context.Context, by string, d *decoder) (*refusal, *failure) {
	refused := &refusal{}
	events := make([]entry.Event, 0, len(d.spans)+len(d.records))
	names := make([]string, 0, cap(events)) // of the spans, for a refusal
	var known, kept int64
	for i := range d.spans {
		s := &d.spans[i]
		if why := s.invalid(); why != "" {
			refused.add(s.shown(), why)
			h.trail.noteRefused(errors.New("otlp: " + why))
			continue
		}
		op := s.operation()
		ev := op.Event()
		ev.IdempotencyKey = s.key()
		events, names = append(events, ev), append(names, s.spanID)
		if op.Kind == 0 {
			kept++
		} else {
			known++
		}
	}
	var same map[digest]int
	for i := range d.records {
		r := &d.records[i]
		op := r.operation()
		ev := op.Event()
		if same == nil {
			same = make(map[digest]int, len(d.records))
		}
		same[r.digest]++
		ev.IdempotencyKey = r.key(same[r.digest])
		events, names = append(events, ev), append(names, "")
		if ev.EventType == "LOG" {
			kept++
		} else {
			known++
		}
	}
	if len(events) > 0 {
		// Its fate must not hang on a sender that gives up waiting.
		for i, err := range h.trail.ingest(context.WithoutCancel(ctx), by, events) {
			var passing *passingError
			switch {
			case err == nil:
			case errors.As(err, &passing):
				h.warn(fmt.Errorf("otlp: %w", err))
				return nil, &failure{status: http.StatusServiceUnavailable, code: codeUnavailable, message: "nothing can be recorded now", retryAfter: passing.seconds}
			default:
				refused.add(names[i], reason(err))
				if events[i].EventType == "SPAN" || events[i].EventType == "LOG" {
					kept--
				} else {
					known--
				}
			}
		}
	}
	c := &h.counts
	atomic.AddInt64(&c.Spans, int64(len(d.spans)+len(d.records)))
	atomic.AddInt64(&c.Mapped, known)
	atomic.AddInt64(&c.Kept, kept)
	atomic.AddInt64(&c.Refused, int64(refused.count))
	if refused.count > 0 {
		h.warn(fmt.Errorf("otlp: %d refused: %s", refused.count, refused.text(warned)))
	}
	return refused, nil
}

// reason says why, with nothing of what was sent.
func reason(err error) string {
	var field *entry.FieldError
	var long *entry.LineTooLongError
	switch {
	case errors.As(err, &field):
		return field.Error()
	case errors.As(err, &long):
		return "longer than an entry may be"
	}
	return "can't be recorded"
}

// invalid says why a span is none (trace/v1, Span: both ids are required).
func (s *span) invalid() string {
	switch {
	case s.traceID == "":
		return "trace_id must be 16 bytes, not all zero"
	case s.spanID == "":
		return "span_id must be 8 bytes, not all zero"
	}
	return ""
}

// shown is the span's id as it came, as far as it is harmless.
func (s *span) shown() string {
	if s.spanID != "" {
		return s.spanID
	}
	return strconv.Quote(s.givenID)
}

// respond writes an ExportTraceServiceResponse or ExportLogsServiceResponse: both
// have partial_success in field 1, and in it the count in 1 and the reason in 2.
func respond(w http.ResponseWriter, asJSON, logs bool, refused *refusal) {
	var body []byte
	if asJSON {
		body = []byte("{}")
		if refused.count > 0 {
			name := "rejectedSpans"
			if logs {
				name = "rejectedLogRecords"
			}
			body, _ = json.Marshal(map[string]any{"partialSuccess": map[string]any{name: strconv.Itoa(refused.count), "errorMessage": refused.text(0)}})
		}
	} else if refused.count > 0 {
		var partial []byte
		partial = binary.AppendUvarint(append(partial, 1<<3|varint), uint64(refused.count))
		partial = appendString(partial, 2, refused.text(0))
		body = appendString(nil, 1, string(partial))
	}
	write(w, asJSON, http.StatusOK, body)
}

// write writes the failure as a google.rpc.Status: code 1, message 2.
func (f *failure) write(w http.ResponseWriter, asJSON bool) {
	if f.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(f.retryAfter))
	}
	switch f.status {
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", "Bearer")
		fallthrough
	case http.StatusForbidden:
		// Who may not send keeps no connection that others need.
		w.Header().Set("Connection", "close")
	}
	var body []byte
	if asJSON {
		body, _ = json.Marshal(map[string]any{"code": f.code, "message": f.message})
	} else {
		body = binary.AppendUvarint(append(body, 1<<3|varint), uint64(f.code))
		body = appendString(body, 2, f.message)
	}
	write(w, asJSON, f.status, body)
}

func write(w http.ResponseWriter, asJSON bool, status int, body []byte) {
	kind := protobufType
	if asJSON {
		kind = jsonType
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(body) // whoever does not take it sends again
}

func appendString(dst []byte, field byte, s string) []byte {
	dst = binary.AppendUvarint(append(dst, field<<3|delimited), uint64(len(s)))
	return append(dst, s...)
}
