package export

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/keys"
	"github.com/kaizen-audit/kaizen-audit/internal/seal"
	"github.com/kaizen-audit/kaizen-audit/internal/sealed"
)

// Person is who is asked about.
type Person struct {
	ID        string // as it was asked
	Pseudonym string // that the trail has for it, "" where it has none
	// Names are all by which entries may name the person: the id, its pseudonym, its
	// keyed hash. Resources are names as TYPE/ID, where the id was asked so.
	Names, Resources map[string]bool
}

func (p Person) is(name string) bool { return name != "" && p.Names[name] }

// isResource tells whether the resource of an access is the person.
func (p Person) isResource(e entry.Entry) bool {
	id := e.Resource.Text("id")
	return p.is(id) || id != "" && p.Resources[sealed.ResourceID(e.Resource.Text("type"), id)]
}

// owns tells whether the key of a subject is the person's.
func (p Person) owns(kind keys.Kind, id string) bool {
	switch kind {
	case keys.Person:
		hash, isHash := strings.CutPrefix(id, "user_id_hash:")
		return p.is(id) || isHash && p.is(hash)
	case keys.Resource:
		_, bare, _ := strings.Cut(id, "/")
		return p.Resources[id] || p.is(bare)
	}
	return false
}

// What an entry says of the person, in Item.Roles.
const (
	Actor   = "actor"   // the person did it
	Subject = "subject" // it holds the person's data
)

// Source is an entry as its exporter sees it.
type Source struct {
	Entry entry.Entry // opened
	// Parts are those of the stored line; the zero Parts where nothing is sealed.
	Parts sealed.Parts
	// Owner says whose a handle is.
	Owner func(handle string) (keys.Known, error)
}

// Item is one entry as the person is given it.
type Item struct {
	Index int64
	Roles []string
	// Proved says that the line goes out with its proof. Else something in it is
	// another person's and stands in clear: View is masked then, and says nothing
	// from which the line could be made again.
	Proved bool
	View   entry.Entry // what is shown, with the stored line for its digest
	// Hidden are the sealed fields that stay so.
	Hidden map[string]sealed.State
	// Shared says that what is shown concerns others too.
	Shared  bool
	LineKey *seal.Key
	Keys    []FieldKey
}

// actors are the members of metadata that say who did it.
var actors = []string{"user_id", "user_id_hash", "session_id", "ip_address", "user_agent"}

func isActors(pointer string) bool {
	name, ok := strings.CutPrefix(pointer, "/metadata/")
	return ok && slices.Contains(actors, name)
}

// isAccess tells the types of entries whose subject is the resource.
func isAccess(eventType string) bool {
	return eventType == entry.PHIAccess || eventType == entry.CHDAccess || eventType == entry.DataAccess
}

// For gives what the person gets of an entry. ok is false where the entry is
// neither the person's doing nor about the person.
func (p Person) For(origin string, s Source, limit int) (item Item, ok bool) {
	e := s.Entry
	actor := p.is(e.Metadata.Text("user_id")) || p.is(e.Metadata.Text("user_id_hash"))
	access := isAccess(e.EventType)
	subject := actor && !access || access && p.isResource(e)
	another := access && !p.isResource(e) // it is somebody else's record
	others := !actor && !access || another
	for _, name := range pointedAt(e) {
		if p.is(name) {
			subject = true
		} else {
			others = true
		}
	}
	if !actor && !subject {
		return Item{}, false
	}
	item = Item{Index: e.Index, Hidden: map[string]sealed.State{}, LineKey: s.Parts.LineKey}
	if subject {
		item.Roles = append(item.Roles, Subject)
	}
	if actor {
		item.Roles = append(item.Roles, Actor)
	}
	item.Shared = subject && others
	stored := s.Parts.Line
	if stored == nil {
		stored = e.Line()
	}
	given := map[string]seal.Key{}
	for _, f := range s.Parts.Fields {
		switch {
		case f.State != "":
			item.Hidden[f.Pointer] = f.State
		case isActors(f.Pointer) && !actor, f.Pointer == "/resource/id" && another, !p.ownsOne(f.Handles, s.Owner):
			item.Hidden[f.Pointer] = sealed.Withheld
		default:
			given[f.Pointer] = f.Key
			item.Keys = append(item.Keys, FieldKey{f.Pointer, f.Key})
			item.Shared = item.Shared || len(f.Handles) > 1
		}
	}
	c := clearText{line: entry.Raw(stored), sealed: s.Parts.Fields}
	item.Proved = !s.Parts.Damaged && wholesome(stored) && wholesome(e.Line())
	switch {
	case access && !subject:
		item.Proved = item.Proved && !c.hasOthers()
	case another:
		item.Proved = item.Proved && !c.has("/resource/id")
	}
	if !actor && !access {
		item.Proved = item.Proved && !slices.ContainsFunc(actors, func(name string) bool { return c.has("/metadata/" + name) })
	}
	view := stored
	if item.Proved && len(s.Parts.Fields) > 0 {
		v, err := sealed.OpenFields(origin, stored, given, item.Hidden, limit)
		if err != nil {
			item.Proved = false // its own keys opened it a moment ago
		}
		view = v.Line
	}
	if !item.Proved {
		item.Keys, item.LineKey = nil, nil
		view = masked{e: e, hidden: item.Hidden, actor: actor, subject: subject && !s.Parts.Damaged, another: another}.view()
	}
	item.View, _ = entry.ParseView(view, e.Line())
	item.View.Index = e.Index
	return item, true
}

func (p Person) ownsOne(handles []string, owner func(string) (keys.Known, error)) bool {
	return slices.ContainsFunc(handles, func(h string) bool {
		who, err := owner(h)
		return err == nil && p.owns(who.Kind, who.ID)
	})
}

// wholesome tells whether a line is JSON that everybody reads alike. Adopted lines
// need not be.
func wholesome(line []byte) bool {
	_, err := entry.AppendCompact(nil, line, 0)
	return err == nil
}

// pointedAt are the persons that policy.subjects points to.
func pointedAt(e entry.Entry) []string {
	v, ok := e.Policy.Get("subjects")
	var pointers, names []string
	if !ok || json.Unmarshal(v.JSON(), &pointers) != nil {
		return nil
	}
	for _, pointer := range pointers {
		if v, ok := e.At(pointer); ok {
			name, isText := v.Text()
			if !isText {
				name = string(v.JSON()) // a number
			}
			names = append(names, name)
		}
	}
	return names
}

// clearText is what of a stored line is not sealed.
type clearText struct {
	line   entry.Object
	sealed []sealed.Part
}

// has tells whether something in clear stands at a pointer or below it.
func (c clearText) has(pointer string) bool {
	v := entry.Value{}
	o := c.line
	for i, name := range strings.Split(pointer[1:], "/") {
		if i > 0 {
			var ok bool
			if o, ok = v.Object(); !ok {
				return false
			}
		}
		v, _ = o.Get(name)
	}
	return c.value(pointer, v)
}

func (c clearText) value(pointer string, v entry.Value) bool {
	if slices.ContainsFunc(c.sealed, func(f sealed.Part) bool { return f.Pointer == pointer }) {
		return false
	}
	switch string(v.JSON()) {
	case "", "null", "{}", "[]", `""`:
		return false
	}
	o, ok := v.Object()
	if !ok {
		return true
	}
	for name, v := range o.All() {
		if c.value(pointer+"/"+escape(name), v) {
			return true
		}
	}
	return false
}

var escapes = strings.NewReplacer("~", "~0", "/", "~1")

func escape(name string) string { return escapes.Replace(name) }

// hasOthers tells whether an access says something of whose record it was: anything
// but the members that order, search and evidence need.
func (c clearText) hasOthers() bool {
	for name, v := range c.line.All() {
		switch name {
		case "metadata":
			o, _ := v.Object()
			for name, v := range o.All() {
				if !slices.Contains(actors, name) && !neutral[name] && c.value("/metadata/"+escape(name), v) {
					return true
				}
			}
		case "resource":
			if c.has("/resource/id") {
				return true
			}
		case "inputs", "outputs", "error", "authority":
			if c.value("/"+name, v) {
				return true
			}
		}
	}
	return false
}

// neutral are members of metadata that say nothing of a person.
var neutral = map[string]bool{"environment": true, "service_name": true}

// masked makes what is shown of an entry that holds other people's data in clear.
// What is not named here stays out: the random identifiers first, which alone keep
// a line's published digest from being guessed, and every hash of the line or of
// what it was made from.
type masked struct {
	e                       entry.Entry
	hidden                  map[string]sealed.State
	actor, subject, another bool
}

// Masked stands where another person's data was.
const Masked = "[masked: another person's]"

func (m masked) view() []byte {
	dst := []byte{'{'}
	for name, v := range entry.Raw(m.e.View()).All() {
		var value []byte
		switch name {
		case "timestamp", "event_type", "agent_id", "trace_id", "action", "duration_ms", "success", "recorded_at", "outcome", "purpose":
			value = m.shown("/"+name, v)
		case "inputs", "outputs":
			value = m.theirs("/"+name, v, `{"masked":"another person's"}`)
		case "error":
			value = m.theirs("/"+name, v, `"`+Masked+`"`)
		case "metadata":
			value = m.members("/metadata", v, func(name string) (out, shown bool) {
				if slices.Contains(actors, name) {
					return true, m.actor
				}
				return name != "imported_from", neutral[name] || m.subject
			})
		case "resource":
			value = m.members("/resource", v, func(name string) (out, shown bool) {
				return true, name == "type" || m.subject && !m.another
			})
		default:
			continue
		}
		if _, err := entry.AppendCompact(nil, value, 1); err != nil {
			value = []byte("null") // of an adopted line, which need not be JSON
		}
		dst = append(append(appendName(dst, name), value...), ',')
	}
	if bytes.HasSuffix(dst, []byte{','}) {
		dst = dst[:len(dst)-1]
	}
	return append(dst, '}')
}

// shown is a value, or what is said of it where it stays sealed.
func (m masked) shown(pointer string, v entry.Value) []byte {
	if state, ok := m.hidden[pointer]; ok {
		switch pointer {
		case "/inputs", "/outputs":
			return []byte(`{"sealed":"` + string(state) + `"}`)
		}
		return []byte(`"[sealed: ` + string(state) + `]"`)
	}
	for p := range m.hidden {
		if strings.HasPrefix(p, pointer+"/") {
			return []byte(`{"sealed":"withheld"}`) // some of it, and what is left is not worth a guess
		}
	}
	return v.JSON()
}

// theirs is a value that is the data subject's.
func (m masked) theirs(pointer string, v entry.Value, otherwise string) []byte {
	switch text := string(v.JSON()); {
	case text == "null", text == "{}", text == `""`, m.subject:
		return m.shown(pointer, v)
	}
	return []byte(otherwise)
}

// members is an object some of whose members are masked, or left out.
func (m masked) members(pointer string, v entry.Value, rule func(name string) (out, shown bool)) []byte {
	o, ok := v.Object()
	if !ok {
		return []byte("{}")
	}
	dst := []byte{'{'}
	for name, v := range o.All() {
		out, shown := rule(name)
		if !out {
			continue
		}
		value := []byte(`"` + Masked + `"`)
		if shown {
			value = m.shown(pointer+"/"+escape(name), v)
		}
		dst = append(append(appendName(dst, name), value...), ',')
	}
	if bytes.HasSuffix(dst, []byte{','}) {
		dst = dst[:len(dst)-1]
	}
	return append(dst, '}')
}

func appendName(dst []byte, name string) []byte {
	dst, _ = entry.AppendString(dst, name)
	return append(dst, ':')
}
