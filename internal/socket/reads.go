package socket

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/journal"
	"github.com/kaizen-audit/kaizen-audit/internal/query"
)

// body reads a small body, which is what as JSON.
func (r *request) body(what string, to any) error {
	if _, err := r.params(); err != nil {
		return err
	}
	body, err := io.ReadAll(http.MaxBytesReader(r.w, r.Body, maxBody))
	if err != nil {
		return badRequest("the body can't be read, or has more than " + strconv.Itoa(maxBody) + " bytes")
	}
	r.bodyRead = true
	_ = r.conn.SetReadDeadline(time.Time{}) // what is done now may take longer; that the peer leaves ends it
	if err := json.Unmarshal(body, to); err != nil {
		return badRequest("the body is not " + what + " as JSON")
	}
	return nil
}

// readings answers POST /v1/readings.
func (s *Server) readings(r *request) error {
	var reading Reading
	if err := r.body("a reading", &reading); err != nil {
		return err
	}
	receipt, err := s.holder.NoteReading(r.Context(), r.conn.peer, reading)
	if err != nil {
		return err
	}
	r.json(http.StatusOK, receipt.AppendJSON(nil))
	return nil
}

// userOf is the member user of a body. encoding/json makes U+FFFD of what is no text,
// and of two users one.
func userOf(body json.RawMessage) (string, error) {
	user, ok := entry.Value{}, false
	if _, err := entry.Raw(body).AppendJSON(nil); err == nil {
		user, ok = entry.Raw(body).Get("user")
	}
	text, isText := user.Text()
	if !ok || !isText {
		return "", badRequest("the body is not a user as JSON")
	}
	return text, nil
}

// call answers a call that takes one object and gives one. A member that is there
// twice, or is no text, must not mean one thing here and another elsewhere.
func (s *Server) call(do func(context.Context, Peer, json.RawMessage) ([]byte, error)) func(*request) error {
	return func(r *request) error {
		var asked json.RawMessage
		if err := r.body("an object", &asked); err != nil {
			return err
		}
		if _, err := entry.Raw(asked).AppendJSON(nil); err != nil || asked[0] != '{' {
			return badRequest("the body is not an object as JSON")
		}
		b, err := do(r.Context(), r.conn.peer, asked)
		if err != nil {
			return err
		}
		r.json(http.StatusOK, b)
		return nil
	}
}

// erasures answers POST /v1/erasures.
func (s *Server) erasures(r *request) error {
	var asked json.RawMessage
	if err := r.body("a user and options", &asked); err != nil {
		return err
	}
	user, err := userOf(asked)
	if err != nil {
		return err
	}
	var e eraseRequest
	if err := json.Unmarshal(asked, &e); err != nil {
		return badRequest("the body is not a user and options as JSON")
	}
	b, err := s.holder.Erase(r.Context(), r.conn.peer, user, e.Options)
	if err != nil {
		return err
	}
	r.json(http.StatusOK, b)
	return nil
}

// pseudonyms answers POST /v1/pseudonyms.
func (s *Server) pseudonyms(r *request) error {
	var asked json.RawMessage
	if err := r.body("a user", &asked); err != nil {
		return err
	}
	text, err := userOf(asked)
	if err != nil {
		return err
	}
	p, err := s.holder.Pseudonym(r.Context(), text)
	if err != nil {
		return err
	}
	b, err := json.Marshal(pseudonymAnswer{p})
	if err != nil {
		return err
	}
	r.json(http.StatusOK, b)
	return nil
}

// report answers GET /v1/report.
func (s *Server) report(r *request) error {
	params, err := r.params("format")
	if err != nil {
		return err
	}
	format, contentType := params.Get("format"), "application/json"
	switch format {
	case "", "text":
		format, contentType = "text", "text/plain; charset=utf-8"
	case "json":
	default:
		return badRequest("format is neither text nor json")
	}
	b, err := s.holder.Report(r.Context(), r.conn.peer, format)
	if err != nil {
		return err
	}
	r.w.Header().Set("Content-Type", contentType)
	_, _ = r.w.Write(b)
	return nil
}

// user answers GET /v1/users/{user}.
func (s *Server) user(r *request, escaped string) error {
	if _, err := r.params(); err != nil {
		return err
	}
	user, err := url.PathUnescape(escaped)
	if err != nil {
		return badRequest("the user's name can't be read")
	}
	b, err := s.holder.ExportUser(r.Context(), r.conn.peer, user)
	if err != nil {
		return err
	}
	r.w.Header().Set("Content-Type", "application/json")
	_, _ = r.w.Write(b)
	return nil
}

// flushEntries is how many bytes of entries are sent at once.
const flushEntries = 64 << 10

// entries answers GET /v1/entries. The answer is complete only with its last
// line: the status is sent before the trail has been read.
func (s *Server) entries(r *request) error {
	params, err := r.params(queryParams...)
	if err != nil {
		return err
	}
	q, err := parseQuery(params)
	if err != nil {
		return err
	}
	var out []byte
	started := false
	send := func() bool {
		if !started {
			r.w.Header().Set("Content-Type", "application/x-ndjson")
			started = true
		}
		_, err := r.w.Write(out)
		out = out[:0]
		return err == nil
	}
	count, cursor := 0, q.Cursor
	for e, err := range s.holder.Query(r.Context(), r.conn.peer, q) {
		switch {
		case err != nil && !goesOn(err):
			if !started && len(out) == 0 {
				return err
			}
			out = append(appendError(out, err), '\n')
			send()
			return nil
		case err != nil:
			out = append(appendError(out, err), '\n')
		default:
			out = appendEntry(out, e)
			count, cursor = count+1, e.Cursor()
		}
		if len(out) >= flushEntries && !send() {
			return nil
		}
	}
	out = append(out, `{"end":{"count":`...)
	out = strconv.AppendInt(out, int64(count), 10)
	out = append(out, `,"cursor":"`...)
	out = append(out, cursor...)
	out = append(out, "\"}}\n"...)
	send()
	return nil
}

// goesOn tells an error after which a query gives what follows: a line that is
// no entry, and entries that are missing.
func goesOn(err error) bool {
	return errors.As(err, new(*entry.SyntaxError)) || errors.As(err, new(*journal.GapError))
}

// appendEntry appends {"index":42,"digest":"<hex>","entry":{…}} and a newline.
func appendEntry(dst []byte, e entry.Entry) []byte {
	dst = append(dst, `{"index":`...)
	dst = strconv.AppendInt(dst, e.Index, 10)
	digest := e.Digest()
	dst = append(dst, `,"digest":"`...)
	dst = hex.AppendEncode(dst, digest[:])
	dst = append(dst, `","entry":`...)
	dst = append(dst, e.View()...)
	return append(dst, "}\n"...)
}

// queryParams are the parameters of GET /v1/entries: the flags of the command
// query, with _ for -.
var queryParams = []string{
	"agent", "trace", "user", "subject", "session", "event_type", "action", "success", "outcome", "resource", "meta", "purpose",
	"since", "until", "recorded_since", "text", "limit", "order", "cursor", "audit",
}

// parseQuery reads the parameters of GET /v1/entries, none of them empty.
func parseQuery(params url.Values) (query.Query, error) {
	q := query.Query{
		Agent: params.Get("agent"), Trace: params.Get("trace"), User: params.Get("user"), Subject: params.Get("subject"), Session: params.Get("session"),
		Action: params.Get("action"), Outcome: params.Get("outcome"), Resource: params.Get("resource"),
		Purpose: params.Get("purpose"), Text: params.Get("text"), Cursor: params.Get("cursor"),
	}
	for _, list := range params["event_type"] {
		for name := range strings.SplitSeq(list, ",") {
			if name == "" {
				return q, badRequest("event_type: one of the types is empty")
			}
			q.EventTypes = append(q.EventTypes, name)
		}
	}
	for _, kv := range params["meta"] {
		k, v, ok := strings.Cut(kv, "=")
		if _, twice := q.Metadata[k]; !ok || k == "" || twice {
			return q, badRequest("meta must be KEY=VALUE, and each key once")
		}
		if q.Metadata == nil {
			q.Metadata = map[string]string{}
		}
		q.Metadata[k] = v
	}
	for name, to := range map[string]*time.Time{"since": &q.Since, "until": &q.Until, "recorded_since": &q.RecordedSince} {
		if v := params.Get(name); v != "" {
			var err error
			if *to, err = parseTime(v, name == "until"); err != nil {
				return q, badRequest(name + " must be a time such as 2025-10-26T10:53:45Z or a date such as 2025-10-26")
			}
		}
	}
	if v := params.Get("success"); v != "" {
		b, err := strconv.ParseBool(v)
		if err != nil {
			return q, badRequest("success is neither true nor false")
		}
		q.Success = &b
	}
	if v := params.Get("audit"); v != "" {
		var err error
		if q.Trails, err = strconv.ParseBool(v); err != nil {
			return q, badRequest("audit is neither 1 nor 0")
		}
	}
	if v := params.Get("limit"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 {
			return q, badRequest("limit must be a number, at least 1")
		}
		q.Limit = n
	}
	switch params.Get("order") {
	case "", "oldest":
	case "newest":
		q.Order = query.Newest
	default:
		return q, badRequest("order is neither oldest nor newest")
	}
	if err := q.Check(); err != nil {
		return q, badRequest(err.Error())
	}
	return q, nil
}

// parseTime reads a time of RFC 3339, or a date: that day in UTC, its first
// instant or, for the end of a range, its last.
func parseTime(s string, end bool) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t.UTC(), nil
	}
	t, err := time.Parse(time.DateOnly, s)
	if err == nil && end {
		t = t.AddDate(0, 0, 1).Add(-time.Nanosecond)
	}
	return t, err
}
