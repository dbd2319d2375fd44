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
// a * in Agent, Trace, User, Session, Action, Outcome, Resource, Purpose and in
// the values of Metadata stands for any characters, \* for a star.
type Query struct {
	Agent   string
	Trace   string
	// User is metadata.user_id. A trail also gives the entries in which a user
	// that is named whole stands under the pseudonym that it has there, as
	// metadata.user_id_hash; a user with stars is compared with ids alone.
	User    string
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

	pseudonym string // of User
}

// Literal makes text match itself in a field where * stands for anything.
func Literal(s string) string { return strings.ReplaceAll(s, "*", `\*`) }

// UserID gives the one user that a query asks for; ok is false where it asks for
// none, or for several by a star.
func UserID(q *Query) (id string, ok bool) {
	g := newGlob(q.User)
	if len(g.parts) != 1 {
		return "", false
	}
	return g.parts[0], true
}

// WithPseudonym is a query that also wants what its user did under a pseudonym.
func WithPseudonym(q Query, pseudonym string) Query {
	q.pseudonym = pseudonym
	return q
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

// Facts says what the query asks for, for the entry that records it. A user with
// a pseudonym is named by that: who has the lines alone is not told whose it is.
func (q *Query) Facts() map[string]any {
	m := map[string]any{}
	for name, v := range map[string]string{
		"agent": q.Agent, "trace": q.Trace, "user": q.User, "session": q.Session, "action": q.Action,
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
	if q.pseudonym != "" {
		delete(m, "user")
		m["user_id_hash"] = q.pseudonym
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
