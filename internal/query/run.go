package query

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/journal"
)

// Run gives the entries of a view that a query wants, in its order. The query
// must have passed Check. A line that is broken is an error with its index;
// what follows it is given all the same.
func Run(ctx context.Context, view *journal.View, q Query) iter.Seq2[entry.Entry, error] {
	return func(yield func(entry.Entry, error) bool) {
		m := compile(&q)
		low, high := int64(0), int64(math.MaxInt64) // indexes wanted, high excluded
		if q.Cursor != "" {
			at, _ := strconv.ParseInt(q.Cursor, 10, 64)
			if q.Order == Newest {
				high = at
			} else {
				low = at + 1
			}
		}
		parts := view.Parts()
		if q.Order == Newest {
			slices.Reverse(parts)
		}
		left := q.Limit
		for _, part := range parts {
			if !m.mayHave(part, low, high) {
				continue
			}
			var err error
			if q.Order == Newest {
				err = m.newest(ctx, view, part, low, high, &left, yield)
			} else {
				err = m.oldest(ctx, view, part, low, high, &left, yield)
			}
			if errors.Is(err, errEnough) {
				return
			}
			if err != nil {
				yield(entry.Entry{}, fmt.Errorf("read segment %d: %w", part.First, err))
				return
			}
		}
	}
}

// errEnough ends a scan: the limit is reached, or the caller has stopped.
var errEnough = errors.New("enough")

func (m *matcher) oldest(ctx context.Context, view *journal.View, part journal.Segment, low, high int64, left *int,
	yield func(entry.Entry, error) bool) error {
	_, err := view.Part(ctx, part, func(index int64, line []byte) error {
		if index < low {
			return nil
		}
		if index >= high {
			return errEnough
		}
		e, ok, err := m.try(index, line)
		if !ok && err == nil {
			return nil
		}
		if !yield(e, err) {
			return errEnough
		}
		if err == nil && m.q.Limit > 0 {
			if *left--; *left == 0 {
				return errEnough
			}
		}
		return nil
	})
	return err
}

// found is a result that waits for its turn.
type found struct {
	e   entry.Entry
	err error
}

// newest reads a part forward, as it must, and gives its results backward. With
// a limit only the last ones are held; without, it is the part's matches.
func (m *matcher) newest(ctx context.Context, view *journal.View, part journal.Segment, low, high int64, left *int,
	yield func(entry.Entry, error) bool) error {
	var hits []found
	_, err := view.Part(ctx, part, func(index int64, line []byte) error {
		if index < low || index >= high {
			return nil
		}
		e, ok, err := m.try(index, line)
		if !ok && err == nil {
			return nil
		}
		hits = append(hits, found{e, err})
		if m.q.Limit > 0 && len(hits) >= 2**left+16 {
			hits = slices.Delete(hits, 0, len(hits)-*left)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, h := range slices.Backward(hits) {
		if !yield(h.e, h.err) {
			return errEnough
		}
		if h.err == nil && m.q.Limit > 0 {
			if *left--; *left == 0 {
				return errEnough
			}
		}
	}
	return nil
}

// matcher is a query made ready.
type matcher struct {
	q        *Query
	needles  [][]byte // each must be in the line's bytes, unless it has escapes
	types    map[string]bool
	agent    glob
	trace    glob
	user     glob
	session  glob
	action   glob
	outcome  glob
	resource glob
	purpose  glob
	metadata map[string]glob
	text     string // in lower case
}

func compile(q *Query) *matcher {
	m := &matcher{
		q: q, agent: newGlob(q.Agent), trace: newGlob(q.Trace), user: newGlob(q.User), session: newGlob(q.Session),
		action: newGlob(q.Action), outcome: newGlob(q.Outcome), resource: newGlob(q.Resource), purpose: newGlob(q.Purpose),
		text: strings.ToLower(q.Text),
	}
	for _, g := range []glob{m.agent, m.trace, m.user, m.session, m.action, m.outcome, m.purpose} {
		m.need(g.longest())
	}
	if !strings.Contains(q.Resource, "/") { // else it may be a type and an id, apart in the line
		m.need(m.resource.longest())
	}
	if len(q.EventTypes) > 0 {
		m.types = map[string]bool{}
		for _, t := range q.EventTypes {
			m.types[t] = true
		}
		if len(q.EventTypes) == 1 {
			m.need(q.EventTypes[0])
		}
	}
	if len(q.Metadata) > 0 {
		m.metadata = map[string]glob{}
		for name, v := range q.Metadata {
			m.metadata[name] = newGlob(v)
			m.need(name)
		}
	}
	return m
}

// need notes text that a matching line has in its bytes: as it is, since our
// spelling escapes only what no needle has.
func (m *matcher) need(s string) {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c == '"' || c == '\\' {
			return
		}
	}
	if s != "" {
		m.needles = append(m.needles, []byte(s))
	}
}

// mayHave tells whether a part can have an entry that is wanted.
func (m *matcher) mayHave(p journal.Segment, low, high int64) bool {
	if p.First >= high || p.Count >= 0 && p.First+p.Count <= low {
		return false
	}
	q := m.q
	switch {
	case p.MaxTimestamp != nil && !q.Since.IsZero() && p.MaxTimestamp.Before(q.Since):
	case p.MinTimestamp != nil && !q.Until.IsZero() && p.MinTimestamp.After(q.Until):
	case p.MaxRecordedAt != nil && !q.RecordedSince.IsZero() && p.MaxRecordedAt.Before(q.RecordedSince):
	default:
		return true
	}
	return false
}

// try parses a line that may match. The entry has its own copy of the bytes.
func (m *matcher) try(index int64, line []byte) (e entry.Entry, ok bool, err error) {
	escapes := false
	for _, n := range m.needles {
		if !bytes.Contains(line, n) {
			// Others may spell a character by an escape that we do not need.
			if escapes = escapes || bytes.IndexByte(line, '\\') >= 0; !escapes {
				return e, false, nil
			}
		}
	}
	e, err = entry.Parse(line)
	if err != nil {
		return entry.Entry{Index: index}, false, fmt.Errorf("entry %d: %w", index, err)
	}
	if !m.match(&e) {
		return e, false, nil
	}
	// What matched shares the scan's buffer: give it its own line.
	if e, err = entry.Parse(bytes.Clone(line)); err != nil {
		return entry.Entry{Index: index}, false, err
	}
	e.Index = index
	return e, true, nil
}

func (m *matcher) match(e *entry.Entry) bool {
	q := m.q
	switch {
	case m.types != nil && !m.types[e.EventType],
		// A line has no trail's own entry unless it says so by its type: lines
		// adopted from elsewhere can't claim the agent's name only.
		m.types == nil && !q.Trails && e.IsTrails() && strings.HasPrefix(e.EventType, entry.TrailPrefix),
		!m.agent.match(e.AgentID), !m.trace.match(e.TraceID), !m.action.match(e.Action),
		!m.outcome.match(e.Outcome), !m.purpose.match(e.Purpose),
		q.Success != nil && e.Success != *q.Success,
		!q.Since.IsZero() && e.Timestamp.Before(q.Since),
		!q.Until.IsZero() && e.Timestamp.After(q.Until),
		!q.RecordedSince.IsZero() && e.RecordedAt.Before(q.RecordedSince):
		return false
	}
	if (m.user.set || m.session.set) && (!m.user.match(e.Metadata.Text("user_id")) || !m.session.match(e.Metadata.Text("session_id"))) {
		return false
	}
	if m.resource.set {
		id := e.Resource.Text("id")
		if !m.resource.match(id) && !m.resource.match(e.Resource.Text("type")+"/"+id) {
			return false
		}
	}
	for name, g := range m.metadata {
		v, ok := e.Metadata.Get(name)
		if !ok {
			return false
		}
		s, isText := v.Text()
		if !isText {
			s = string(v.JSON())
		}
		if !g.matchSet(s) {
			return false
		}
	}
	return m.text == "" || containsFold(e.Line(), m.text)
}

// containsFold looks for lower-case text in a line, with the escapes in the
// line undone.
func containsFold(line []byte, text string) bool {
	if bytes.IndexByte(line, '\\') >= 0 {
		line = unescaped(line)
	}
	first, _ := utf8.DecodeRuneInString(text)
	if first < utf8.RuneSelf && !unicode.IsLetter(first) && bytes.IndexByte(line, byte(first)) < 0 {
		return false
	}
	return bytes.Contains(bytes.ToLower(line), []byte(text))
}

// unescaped undoes the JSON escapes in a line that has been parsed. What comes
// out is for searching only.
func unescaped(line []byte) []byte {
	out := make([]byte, 0, len(line))
	for i := 0; i < len(line); i++ {
		if line[i] != '\\' || i+1 == len(line) {
			out = append(out, line[i])
			continue
		}
		i++
		switch line[i] {
		case 'n':
			out = append(out, '\n')
		case 't':
			out = append(out, '\t')
		case 'r':
			out = append(out, '\r')
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'u':
			if i+4 < len(line) {
				if n, err := strconv.ParseUint(string(line[i+1:i+5]), 16, 32); err == nil {
					out = utf8.AppendRune(out, rune(n))
					i += 4
					continue
				}
			}
			out = append(out, 'u')
		default:
			out = append(out, line[i])
		}
	}
	return out
}

// glob is text with stars. The zero glob matches everything.
type glob struct {
	set   bool
	parts []string // between the stars
}

func newGlob(s string) glob {
	if s == "" {
		return glob{}
	}
	g := glob{set: true}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s) && s[i+1] == '*':
			b.WriteByte('*')
			i++
		case s[i] == '*':
			g.parts = append(g.parts, b.String())
			b.Reset()
		default:
			b.WriteByte(s[i])
		}
	}
	g.parts = append(g.parts, b.String())
	return g
}

// longest is the longest text that every match has.
func (g glob) longest() string {
	long := ""
	for _, p := range g.parts {
		if len(p) > len(long) {
			long = p
		}
	}
	return long
}

func (g glob) match(s string) bool { return !g.set || g.matchSet(s) }

func (g glob) matchSet(s string) bool {
	if !g.set {
		return s == ""
	}
	if len(g.parts) == 1 {
		return s == g.parts[0]
	}
	s, ok := strings.CutPrefix(s, g.parts[0])
	if !ok {
		return false
	}
	last := g.parts[len(g.parts)-1]
	for _, p := range g.parts[1 : len(g.parts)-1] {
		_, rest, ok := strings.Cut(s, p)
		if !ok {
			return false
		}
		s = rest
	}
	return strings.HasSuffix(s, last)
}
