// Package importer maps lines of older logs to events. It reads two formats,
// which may be mixed in one file:
//
//   - the documented one of eleven members: timestamp, event_type, agent_id,
//     trace_id, action, inputs, outputs, duration_ms, success, error, metadata;
//   - {timestamp, agent_id, action, details, result, user_id, metadata}.
//
// Every event is marked in its metadata: imported_from (the file's base name),
// imported_line (the line's number, from 1) and imported_digest (SHA-256 of the
// source line). What has no place in an event is kept in
// metadata.imported_members; nothing of a line is dropped but members that are
// null.
//
// A mapping is pure: the same line of the same file gives the same event with
// the same idempotency key, whenever it is imported, so that nothing is
// recorded twice. It proves nothing about what happened before the import.
package importer

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/kaizen-audit/kaizen-audit/entry"
)

const (
	// Imported is the event_type of a line that has none.
	Imported = "IMPORTED"
	// renamed begins the event_type and the agent_id of lines that claim to be
	// a trail's own entries: only the trail itself writes those.
	renamed = Imported + "_"
	agent   = "imported:" + entry.TrailAgent
	// KeyPrefix begins the idempotency key of every imported line.
	KeyPrefix = "import:"
)

// Source is a file whose lines are imported.
type Source struct {
	name  string // base name
	id    string // 32 hex digits
	trace string // of lines that have no trace_id
}

// New is the source with a base name and a first line. Both say which file it
// is: it may grow or be moved between two imports. Two files of one name that
// begin with the same line count as copies of one file.
func New(name string, first []byte) Source {
	id := func(purpose string) string {
		h := sha256.New()
		fmt.Fprintf(h, "kaizen-audit import %s\n%d %s\n", purpose, len(name), name)
		h.Write(first)
		return hex.EncodeToString(h.Sum(nil)[:16])
	}
	return Source{name: strings.ToValidUTF8(name, "\ufffd"), id: id("file"), trace: id("trace")}
}

// Trace is the trace_id of lines that have none.
func (s Source) Trace() string { return s.trace }

// Prefix begins the idempotency keys of all lines of this file.
func (s Source) Prefix() string { return KeyPrefix + s.id + ":" }

// Key is the idempotency key of a line: equal lines of a file differ by their
// number, from 1.
func (s Source) Key(number int64, line []byte) string {
	return s.key(number, sha256.Sum256(line))
}

func (s Source) key(number int64, digest [sha256.Size]byte) string {
	return s.Prefix() + strconv.FormatInt(number, 10) + ":" + hex.EncodeToString(digest[:16])
}

// members of an event that a line may give as they are. What else an event can
// have is the trail's to write, or the import's own.
var taken = map[string]bool{
	"timestamp": true, "event_type": true, "agent_id": true, "trace_id": true, "action": true, "inputs": true, "outputs": true,
	"duration_ms": true, "success": true, "error": true, "metadata": true, "span_id": true, "parent_span_id": true,
	"resource": true, "outcome": true, "authority": true, "purpose": true,
}

// mapped are the members of the second format that have another name here.
var mapped = map[string]string{"details": "inputs", "result": "outputs"}

// marks are the members of metadata that an import writes.
var marks = []string{"imported_from", "imported_line", "imported_digest", "imported_members"}

// Event maps a line, without its newline, whose number is from 1. The error is
// a *entry.SyntaxError with the column, or a *entry.FieldError; neither holds
// anything of the line but names of members that are ours.
func (s Source) Event(number int64, line []byte) (entry.Event, error) {
	// Checked as a whole first: what follows trusts it. A second member of one
	// name would hide the first.
	text, err := entry.AppendCompact(make([]byte, 0, len(line)), line, 0)
	if err != nil {
		return entry.Event{}, err
	}
	if text[0] != '{' {
		return entry.Event{}, &entry.SyntaxError{Line: 1, Column: 1, Reason: "this is not a JSON object"}
	}
	given := map[string]entry.Value{}
	for name, v := range entry.Raw(text).All() {
		if string(v.JSON()) != "null" {
			given[name] = v
		}
	}
	digest := sha256.Sum256(line)
	out := append(make([]byte, 0, len(text)+512), '{')
	member := func(name string, value []byte) {
		if len(out) > 1 {
			out = append(out, ',')
		}
		out, _ = entry.AppendString(out, name)
		out = append(append(out, ':'), value...)
	}
	quoted := func(s string) []byte {
		b, _ := entry.AppendString(nil, s)
		return b
	}

	if _, ok := given["timestamp"]; !ok {
		return entry.Event{}, &entry.FieldError{Field: "timestamp", Err: errors.New("is required: an imported line happened before now")}
	}
	if err := s.own(given, quoted, member); err != nil {
		return entry.Event{}, err
	}
	var rest []string // members that have no place
	for name, v := range entry.Raw(text).All() {
		to := mapped[name]
		switch {
		case given[name].JSON() == nil, name == "event_type", name == "agent_id", name == "metadata", name == "user_id":
		case to != "":
			if _, both := given[to]; both {
				return entry.Event{}, &entry.FieldError{Field: name, Err: fmt.Errorf("stands beside %s, which it would become", to)}
			}
			member(to, v.JSON())
		case name == "trace_id" && string(v.JSON()) == `""`:
		case taken[name]:
			member(name, v.JSON())
		default:
			rest = append(rest, name)
		}
	}
	if v := given["trace_id"].JSON(); v == nil || string(v) == `""` {
		member("trace_id", quoted(s.trace))
	}
	failure(given, quoted, member)
	meta, err := s.metadata(given, rest, number, digest)
	if err != nil {
		return entry.Event{}, err
	}
	member("metadata", meta)
	ev, err := entry.ParseEvent(append(out, '}'))
	var syntax *entry.SyntaxError
	if errors.As(err, &syntax) {
		// Its place would be one in text that nobody has seen.
		err = &entry.FieldError{Field: "line", Err: errors.New(syntax.Reason)}
	}
	ev.IdempotencyKey = s.key(number, digest)
	return ev, err
}

// own writes event_type and agent_id, so that no line claims to be one of a
// trail's own entries.
func (s Source) own(given map[string]entry.Value, quoted func(string) []byte, member func(string, []byte)) error {
	name := func(field, missing string, rename func(string) string) error {
		v, ok := given[field]
		if !ok {
			if missing != "" {
				member(field, quoted(missing))
			}
			return nil // required, and refused as any event's
		}
		text, ok := v.Text()
		if !ok {
			return &entry.FieldError{Field: field, Err: errors.New("must be a string")}
		}
		member(field, quoted(rename(text)))
		return nil
	}
	err := name("event_type", Imported, func(t string) string {
		if strings.HasPrefix(t, entry.TrailPrefix) {
			return renamed + t
		}
		return t
	})
	if err != nil {
		return err
	}
	return name("agent_id", "", func(a string) string {
		if a == entry.TrailAgent {
			return agent
		}
		return a
	})
}

// failure writes success and outcome of a line whose result is a word for a
// failure: success has to say something, and it must not say the contrary.
func failure(given map[string]entry.Value, quoted func(string) []byte, member func(string, []byte)) {
	if _, ok := given["success"]; ok {
		return
	}
	result, _ := given["result"].Text()
	switch strings.ToLower(result) {
	case "denied":
		if _, ok := given["outcome"]; !ok {
			member("outcome", quoted("denied"))
		}
		fallthrough
	case "failure", "failed", "error":
		member("success", []byte("false"))
	}
}

// metadata is the line's own metadata, who acted, and the marks of the import.
func (s Source) metadata(given map[string]entry.Value, rest []string, number int64, digest [sha256.Size]byte) ([]byte, error) {
	out := []byte{'{'}
	member := func(name string, value []byte) {
		if len(out) > 1 {
			out = append(out, ',')
		}
		out, _ = entry.AppendString(out, name)
		out = append(append(out, ':'), value...)
	}
	user, has := given["user_id"]
	var kept []string // marks of an earlier import
	meta, isObject := given["metadata"].Object()
	if v := given["metadata"].JSON(); v != nil && !isObject {
		member("value", v)
	}
	if isObject {
		for name, v := range meta.All() {
			switch {
			case slices.Contains(marks, name):
				kept = append(kept, name)
			case name == "user_id" && has:
				if !bytes.Equal(v.JSON(), user.JSON()) && string(v.JSON()) != "null" {
					return nil, &entry.FieldError{Field: "user_id", Err: errors.New("is another than the one in metadata")}
				}
			default:
				member(name, v.JSON())
			}
		}
	}
	if has {
		member("user_id", user.JSON())
	}
	from, _ := entry.AppendString(nil, s.name)
	member("imported_from", from)
	member("imported_line", strconv.AppendInt(nil, number, 10))
	member("imported_digest", fmt.Appendf(nil, "%q", hex.EncodeToString(digest[:])))
	if len(rest)+len(kept) > 0 {
		left := []byte{'{'}
		add := func(name string, v entry.Value) {
			if len(left) > 1 {
				left = append(left, ',')
			}
			left, _ = entry.AppendString(left, name)
			left = append(append(left, ':'), v.JSON()...)
		}
		for _, name := range rest {
			add(name, given[name])
		}
		for _, name := range kept {
			v, _ := meta.Get(name)
			add("metadata."+name, v)
		}
		member("imported_members", append(left, '}'))
	}
	return append(out, '}'), nil
}
