package query

import (
	"bytes"
	"context"
	"encoding/json"
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
	"github.com/kaizen-audit/kaizen-audit/internal/lifecycle"
	"github.com/kaizen-audit/kaizen-audit/internal/sealed"
)

// Run gives the entries of a view that a query wants, in its order. The query
// must have passed Check. A line that is broken is an error with its index, and
// what is missing between two entries is a journal.GapError where it belongs;
// what follows is given all the same. progress, if any, is told of the bytes of
// lines that were read and how many may be to read. open gives what the reader
// sees of a line, in memory of its own where that is not the line itself; nil
// leaves lines as they are.
func Run(ctx context.Context, view *journal.View, q Query, open Open, progress func(done, total int64)) iter.Seq2[entry.Entry, error] {
	return func(yield func(entry.Entry, error) bool) {
		s := scan{matcher: compile(&q, open), view: view, low: 0, high: math.MaxInt64, left: q.Limit, yield: yield, progress: progress}
		if q.Cursor != "" {
			at, _ := strconv.ParseInt(q.Cursor, 10, 64)
			if q.Order == Newest {
				s.high = at
			} else {
				s.low = at + 1
			}
		}
		parts := view.Parts()
		if q.Order == Newest {
			slices.Reverse(parts)
		}
		for _, part := range parts {
			if s.mayHave(part.Segment, s.low, s.high) {
				s.total += view.Bytes(part)
			}
		}
		for _, part := range parts {
			err := s.part(ctx, part)
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

// Open gives what the reader sees of a stored line. After an error that wraps
// sealed.ErrNoKey nothing follows.
type Open func(stored []byte) (view []byte, err error)

// Match makes ready a query whose lines come one by one, in any number: what it
// gives says whether the line at an index is wanted. The query must have passed
// Check; its Limit, Order and Cursor mean nothing here.
func Match(q Query, open Open) func(index int64, line []byte) (e entry.Entry, ok bool, err error) {
	return compile(&q, open).try
}

// errEnough ends a scan: the limit is reached, or the caller has stopped.
var errEnough = errors.New("enough")

// scan is a query that runs.
type scan struct {
	*matcher
	view        *journal.View
	low, high   int64 // indexes wanted, high excluded
	left        int   // until the limit
	yield       func(entry.Entry, error) bool
	progress    func(done, total int64)
	done, total int64 // bytes of lines
}

// part gives what a part has, and what is missing after it.
func (s *scan) part(ctx context.Context, part journal.Part) error {
	if !s.mayHave(part.Segment, s.low, s.high) {
		next := part.First + part.Count
		if part.Count < 0 {
			next = max(part.First, part.Until)
		}
		return s.gap(part.Gap(next, nil))
	}
	if s.q.Order == Newest {
		return s.newest(ctx, part)
	}
	next, err := s.view.Part(ctx, part, func(index int64, line []byte) error {
		s.tell(line)
		s.adopted.See(index, line)
		if index < s.low {
			return nil
		}
		if index >= s.high {
			return errEnough
		}
		e, ok, err := s.try(index, line)
		if !ok && err == nil {
			return nil
		}
		return s.give(e, err)
	})
	return s.after(part, next, err)
}

// after tells what is missing after a part that was read.
func (s *scan) after(part journal.Part, next int64, err error) error {
	if err != nil && !errors.As(err, new(*journal.SegmentError)) {
		return err
	}
	return s.gap(part.Gap(next, err))
}

// gap gives a gap, as far as it lies where entries are wanted.
func (s *scan) gap(g *journal.GapError) error {
	if g == nil || g.First >= s.high {
		return nil
	}
	if g.Count >= 0 {
		end := min(g.First+g.Count, s.high)
		g.First = max(g.First, s.low)
		if g.Count = end - g.First; g.Count <= 0 {
			return nil
		}
	}
	if !s.yield(entry.Entry{Index: g.First}, g) {
		return errEnough
	}
	return nil
}

// give gives one result.
func (s *scan) give(e entry.Entry, err error) error {
	if !s.yield(e, err) || errors.Is(err, sealed.ErrNoKey) {
		return errEnough
	}
	if err == nil && s.q.Limit > 0 {
		if s.left--; s.left == 0 {
			return errEnough
		}
	}
	return nil
}

func (s *scan) tell(line []byte) {
	if s.progress != nil {
		before := s.done
		s.done += int64(len(line)) + 1
		if s.done/progressBytes != before/progressBytes {
			s.progress(s.done, max(s.total, s.done))
		}
	}
}

// progressBytes is how many bytes of lines lie between two calls of progress:
// a hundred a second at the rate of a scan on one core.
const progressBytes = 4 << 20

// found is a result that waits for its turn.
type found struct {
	e   entry.Entry
	err error
}

// newest reads a part forward, as it must, and gives its results backward. With
// a limit only the last ones are held; without, it is the part's matches.
func (s *scan) newest(ctx context.Context, part journal.Part) error {
	var hits []found
	next, err := s.view.Part(ctx, part, func(index int64, line []byte) error {
		s.tell(line)
		s.adopted.See(index, line)
		if index < s.low || index >= s.high {
			return nil
		}
		e, ok, err := s.try(index, line)
		if !ok && err == nil {
			return nil
		}
		hits = append(hits, found{e, err})
		if s.q.Limit > 0 && len(hits) >= 2*s.left+16 {
			hits = slices.Delete(hits, 0, len(hits)-s.left)
		}
		return nil
	})
	if err := s.after(part, next, err); err != nil {
		return err
	}
	for _, h := range slices.Backward(hits) {
		if err := s.give(h.e, h.err); err != nil {
			return err
		}
	}
	return nil
}

// matcher is a query made ready.
type matcher struct {
	q        *Query
	open     Open
	adopted  lifecycle.Adopted
	needles  [][][]byte // one of each must be in the line's bytes, unless it has escapes
	types    map[string]bool
	agent    glob
	trace    glob
	user     glob
	subject  glob
	session  glob
	action   glob
	outcome  glob
	resource glob
	purpose  glob
	metadata map[string]glob
	text     string // in lower case
}

func compile(q *Query, open Open) *matcher {
	m := &matcher{
		q: q, open: open, agent: newGlob(q.Agent), trace: newGlob(q.Trace), user: newGlob(q.User), subject: newGlob(q.Subject), session: newGlob(q.Session),
		action: newGlob(q.Action), outcome: newGlob(q.Outcome), resource: newGlob(q.Resource), purpose: newGlob(q.Purpose),
		text: strings.ToLower(q.Text),
	}
	for _, g := range []glob{m.agent, m.trace, m.session, m.action, m.outcome, m.purpose} {
		m.need(g.longest())
	}
	m.needNamed(m.user, q.pseudonyms.user)
	m.needNamed(m.subject, q.pseudonyms.subject)
	if len(q.persons) > 0 {
		m.need(q.persons...)
	}
	if !strings.Contains(q.Resource, "/") { // else it may be a type and an id, apart in the line
		m.needNamed(m.resource, q.pseudonyms.resource)
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

// need notes texts of which a matching line has one in its bytes: as it is, since
// our spelling escapes only what no needle has.
func (m *matcher) need(texts ...string) {
	needle := make([][]byte, 0, len(texts))
	for _, s := range texts {
		for i := range len(s) {
			if c := s[i]; c < 0x20 || c == '"' || c == '\\' {
				return
			}
		}
		if s == "" {
			return
		}
		needle = append(needle, []byte(s))
	}
	m.needles = append(m.needles, needle)
}

// needNamed notes a name, or what stands for it.
func (m *matcher) needNamed(name glob, pseudonym string) {
	if pseudonym == "" {
		m.need(name.longest())
	} else {
		m.need(name.longest(), pseudonym)
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
	view := line
	if m.open != nil && !m.adopted.Has(index) {
		if view, err = m.open(line); err != nil {
			return entry.Entry{Index: index}, false, fmt.Errorf("entry %d: %w", index, err)
		}
	}
	escapes := false
	for _, texts := range m.needles {
		if !slices.ContainsFunc(texts, func(text []byte) bool { return bytes.Contains(view, text) }) {
			// Others may spell a character by an escape that we do not need.
			if escapes = escapes || bytes.IndexByte(view, '\\') >= 0; !escapes {
				return e, false, nil
			}
		}
	}
	e, err = entry.Parse(view)
	if err != nil && m.adopted.Has(index) {
		return e, false, nil // it never was to be an entry
	}
	if err != nil {
		return entry.Entry{Index: index}, false, fmt.Errorf("entry %d: %w", index, err)
	}
	e.Index = index
	if !m.match(&e) {
		return e, false, nil
	}
	// What matched shares the scan's buffer: give it its own line.
	own := bytes.Clone(line)
	if len(view) > 0 && &view[0] == &line[0] {
		e, err = entry.Parse(own)
	} else {
		e, err = entry.ParseView(view, own)
	}
	if err != nil {
		return entry.Entry{Index: index}, false, err
	}
	e.Index = index
	return e, true, nil
}

func (m *matcher) match(e *entry.Entry) bool {
	q := m.q
	own := strings.HasPrefix(e.EventType, entry.TrailPrefix)
	adopted := m.adopted.Has(e.Index)
	switch {
	case m.types != nil && !m.types[e.EventType],
		// Who asks for the trail's own word is not given what only claims to be
		// it, and who does not ask for it misses nothing else.
		m.types != nil && own && adopted,
		m.types == nil && !q.Trails && own && e.IsTrails() && !adopted,
		!m.agent.match(e.AgentID), !m.trace.match(e.TraceID), !m.action.match(e.Action),
		!m.outcome.match(e.Outcome), !m.purpose.match(e.Purpose),
		q.Success != nil && e.Success != *q.Success,
		!q.Since.IsZero() && e.Timestamp.Before(q.Since),
		!q.Until.IsZero() && e.Timestamp.After(q.Until),
		!q.RecordedSince.IsZero() && e.RecordedAt.Before(q.RecordedSince):
		return false
	}
	if m.session.set && !m.session.match(e.Metadata.Text("session_id")) {
		return false
	}
	if m.user.set && !named(m.user, q.pseudonyms.user, e.Metadata.Text("user_id"), e.Metadata.Text("user_id_hash")) {
		return false
	}
	if m.resource.set {
		kind, id := e.Resource.Text("type"), e.Resource.Text("id")
		asked, _ := splitResource(q.Resource)
		if !m.resource.match(id) && !m.resource.match(kind+"/"+id) &&
			(q.pseudonyms.resource == "" || id != q.pseudonyms.resource || asked != "" && asked != kind) {
			return false
		}
	}
	if m.subject.set && !named(m.subject, q.pseudonyms.subject, subjects(e)...) {
		return false
	}
	if len(q.persons) > 0 && !slices.ContainsFunc(append(subjects(e), e.Metadata.Text("user_id"), e.Metadata.Text("user_id_hash")), func(name string) bool {
		return name != "" && slices.Contains(q.persons, name)
	}) {
		return false
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
	return m.text == "" || containsFold(e.View(), m.text)
}

// named tells whether one of the names is asked for, or stands for who is.
func named(asked glob, pseudonym string, names ...string) bool {
	return slices.ContainsFunc(names, func(name string) bool {
		return name != "" && (asked.match(name) || name == pseudonym)
	})
}

// subjects are the persons whose data an entry holds, as far as it says so.
func subjects(e *entry.Entry) []string {
	var names []string
	switch e.EventType {
	case entry.PHIAccess, entry.CHDAccess, entry.DataAccess:
		names = append(names, e.Resource.Text("id"))
	default:
		names = append(names, e.Metadata.Text("user_id"), e.Metadata.Text("user_id_hash"))
	}
	v, ok := e.Policy.Get("subjects")
	var pointers []string
	if !ok || json.Unmarshal(v.JSON(), &pointers) != nil {
		return names
	}
	for _, p := range pointers {
		if v, ok := e.At(p); ok {
			name, isText := v.Text()
			if !isText {
				name = string(v.JSON()) // a number
			}
			names = append(names, name)
		}
	}
	return names
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
