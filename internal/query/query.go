// Package query answers which entries are wanted: it scans the lines of a
// trail whose time bounds can match, passes over those that can't match by
// looking at their bytes, and parses the rest.
package query

import (
	"errors"
	"strconv"
	"strings"
	"time"
)

// Order is the order of the entries by index.
type Order int

const (
	// Oldest first: by index, the order in which they were recorded.
	Oldest Order = iota
	// Newest first.
	Newest
)

// Query says which entries are wanted; the zero value wants all but the
// trail's own. Every field that is set must match. Text fields match exactly;
// a * in Agent, Trace, User, Subject, Session, Action, Outcome, Resource, Purpose
// and in the values of Metadata stands for any characters, \* for a star.
//
// A trail finds a User, Subject or Resource that is named whole also under the
// pseudonym that it has there (Trail.Pseudonymize).
type Query struct {
	Agent string
	Trace string
	User  string // metadata.user_id, or user_id_hash: who did it
	// Subject is a person whose data an entry holds: the resource's id in
	// PHI_ACCESS, CHD_ACCESS and DATA_ACCESS, in any other entry who did it; and
	// whoever stands where policy.subjects points to.
	Subject string
	Session string // metadata.session_id
	// EventTypes wants any of these. Naming one of the trail's own shows it.
	EventTypes []string
	Action     string
	Success    *bool
	Outcome    string
	// Resource is an id, or type/id: "P12345", "patient/P12345", "patient/*".
	Resource string
	Purpose  string
	// Since and Until bound Timestamp, both ends included.
	Since, Until time.Time
	// RecordedSince bounds RecordedAt, the end included.
	RecordedSince time.Time
	// Metadata wants members of metadata to be these strings; a number or a
	// bool is compared by its JSON text.
	Metadata map[string]string
	// Text wants these characters anywhere in the line's strings, in any case.
	Text string
	// Trails shows the trail's own entries too.
	Trails bool
	// Limit is the most entries wanted; 0 means all.
	Limit int
	Order Order
	// Cursor continues after the entry that gave it (Entry.Cursor), in the
	// same order.
	Cursor string

	persons    []string // OfPerson
	pseudonyms struct{ user, subject, resource string }
}

// OfPerson wants the entries that User or Subject would find of somebody who has
// these names: who did it, or whose data it holds.
func OfPerson(names ...string) Query { return Query{persons: names} }

// Literal makes text match itself in a field where * stands for anything.
func Literal(s string) string { return strings.ReplaceAll(s, "*", `\*`) }

// WithPseudonyms is a query that also finds its user, subject and resource under
// the pseudonyms that of gives for an identifier, "" where it has none.
func WithPseudonyms(q Query, of func(id string) string) Query {
	for _, f := range []struct {
		from string
		to   *string
	}{{q.User, &q.pseudonyms.user}, {q.Subject, &q.pseudonyms.subject}, {q.Resource, &q.pseudonyms.resource}} {
		if id, ok := literal(f.from); ok {
			if f.to == &q.pseudonyms.resource {
				_, id = splitResource(id)
			}
			*f.to = of(id)
		}
	}
	return q
}

// literal gives the text that alone matches; ok is false where several do.
func literal(pattern string) (s string, ok bool) {
	g := newGlob(pattern)
	if len(g.parts) != 1 {
		return "", false
	}
	return g.parts[0], true
}

// splitResource gives the type, "" for any, and the id.
func splitResource(s string) (kind, id string) {
	kind, id, typed := strings.Cut(s, "/")
	if !typed {
		return "", kind
	}
	return kind, id
}

// Check tells what is wrong with a query.
func (q *Query) Check() error {
	if q.Limit < 0 {
		return errors.New("limit is negative")
	}
	if q.Order != Oldest && q.Order != Newest {
		return errors.New("order is neither oldest nor newest")
	}
	if q.Cursor != "" {
		if n, err := strconv.ParseInt(q.Cursor, 10, 64); err != nil || n < 0 {
			return errors.New("cursor is none that this trail gave")
		}
	}
	if !q.Since.IsZero() && !q.Until.IsZero() && q.Until.Before(q.Since) {
		return errors.New("until lies before since")
	}
	return nil
}

// Facts says what the query asks for, for the entry that records it. Who has a
// pseudonym is named by that: the lines alone do not tell whose it is.
func (q *Query) Facts() map[string]any {
	m := map[string]any{}
	for name, v := range map[string]string{
		"agent": q.Agent, "trace": q.Trace, "user": q.User, "subject": q.Subject, "session": q.Session, "action": q.Action,
		"outcome": q.Outcome, "resource": q.Resource, "purpose": q.Purpose, "text": q.Text, "cursor": q.Cursor,
	} {
		if v != "" {
			m[name] = v
		}
	}
	for name, v := range map[string]time.Time{"since": q.Since, "until": q.Until, "recorded_since": q.RecordedSince} {
		if !v.IsZero() {
			m[name] = v.UTC().Format(time.RFC3339Nano)
		}
	}
	if p := q.pseudonyms.user; p != "" {
		m["user"] = p
	}
	if p := q.pseudonyms.subject; p != "" {
		m["subject"] = p
	}
	if p := q.pseudonyms.resource; p != "" {
		if kind, _ := splitResource(q.Resource); kind != "" {
			p = kind + "/" + p
		}
		m["resource"] = p
	}
	if len(q.EventTypes) > 0 {
		m["event_types"] = q.EventTypes
	}
	if q.Success != nil {
		m["success"] = *q.Success
	}
	if len(q.Metadata) > 0 {
		m["metadata"] = q.Metadata
	}
	if q.Trails {
		m["audit"] = true
	}
	if q.Limit > 0 {
		m["limit"] = q.Limit
	}
	if q.Order == Newest {
		m["order"] = "newest"
	}
	return m
}
