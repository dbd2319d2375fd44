package policy

import (
	"regexp"
	"slices"
	"strconv"

	"github.com/kaizen-audit/kaizen-audit/entry"
)

// accessReason is the member of metadata that says why a record is accessed.
const accessReason = "access_reason"

// accessible are the types of event that a tool rule without event types is for.
var accessible = []string{entry.ToolUse, entry.MemoryLoad, entry.MemorySave, entry.MemoryDelete, entry.PHIAccess, entry.CHDAccess, entry.DataAccess}

// files are the members of inputs that name a file.
var files = []string{"path", "file_path", "file", "filename", "notebook_path", "uri"}

// access makes of an event what the tool rules say that it is, and looks for what
// must not be missing. What it changes is a copy, w.event.
func (w *walker) access(ev *entry.Event) (*entry.Event, error) {
	if len(w.p.tools) == 0 && w.p.uses == nil && !w.p.users && !isAccess(ev.EventType) {
		return ev, nil
	}
	w.event = *ev
	out := &w.event
	for i := range w.p.tools {
		t := &w.p.tools[i]
		if !t.is(ev) {
			continue
		}
		to := ""
		switch {
		case t.PHI:
			to = entry.PHIAccess
		case t.CHD:
			to = entry.CHDAccess
		}
		if to != "" && !isAccess(out.EventType) {
			out.EventType = to
			w.note(classified, "/event_type", t.name)
		}
		if t.Resource != nil && out.Resource.IsZero() {
			if id, ok := firstOf(ev, t.id, t.part); ok {
				text, _ := entry.AppendString([]byte(`{"type":`), t.Resource.Type)
				text, ok = entry.AppendString(append(text, `,"id":`...), w.p.Text(id))
				if ok {
					out.Resource = entry.Raw(append(text, '}'))
					w.note(classified, "/resource", t.name)
				}
			}
		}
		if t.Reason != "" {
			w.reason(t, ev)
		}
		for _, pt := range t.about {
			if _, ok := lookup(ev, pt); ok {
				w.note(subjects, pointerOf(pt), t.name)
			}
		}
	}
	if err := w.purpose(out); err != nil {
		return nil, err
	}
	is := isAccess(out.EventType)
	if (is || w.p.users) && out.Metadata.Text("user_id") == "" {
		w.note(flagged, "/metadata/user_id", "pci-10.2.2")
	}
	if !is {
		return out, nil
	}
	// An entry always has the other two of the six: its type and its time.
	if out.Resource.IsZero() {
		w.note(flagged, "/resource", "pci-10.2.2")
	}
	if out.Outcome == "unknown" {
		w.note(flagged, "/outcome", "pci-10.2.2")
	}
	if entry.Origination(out.Metadata) == "" {
		w.note(flagged, "/metadata/ip_address", "pci-10.2.2")
	}
	return out, nil
}

func isAccess(eventType string) bool {
	return eventType == entry.PHIAccess || eventType == entry.CHDAccess || eventType == entry.DataAccess
}

// purpose checks that an event has a declared purpose.
func (w *walker) purpose(ev *entry.Event) error {
	uses := w.p.uses
	if uses == nil || uses.declared[ev.Purpose] || !uses.when.matches(&what{ev: ev}) {
		return nil
	}
	kept := slices.ContainsFunc(w.notes, func(n note) bool { return n.kind == flagged && n.pointer == "/purpose" })
	if uses.refuse && !w.run_.KeepFact && !kept {
		return &RefusedError{Member: "purpose", Rule: "purposes"}
	}
	w.note(flagged, "/purpose", "purposes")
	return nil
}

// reason says why the record is accessed where the event does not.
func (w *walker) reason(t *tool, ev *entry.Event) {
	reason := t.Reason
	if reason[0] == '/' {
		pt, _ := parsePath(reason)
		var ok bool
		if reason, ok = firstOf(ev, [][]string{pt}, nil); !ok {
			return
		}
	}
	out := &w.event
	if _, there := out.Metadata.Get(accessReason); there {
		return
	}
	text, err := out.Metadata.AppendJSON(nil)
	if err != nil {
		return // recording tells what is wrong with it
	}
	text = text[:len(text)-1]
	if len(text) > 1 {
		text = append(text, ',')
	}
	text, ok := entry.AppendString(append(text, `"`+accessReason+`":`...), reason)
	if ok {
		out.Metadata = entry.Raw(append(text, '}'))
		w.note(classified, "/metadata/"+accessReason, t.name)
	}
}

// is tells whether the rule is for the event.
func (t *tool) is(ev *entry.Event) bool {
	if len(t.EventTypes) == 0 && !slices.Contains(accessible, ev.EventType) || !t.when.matches(&what{ev: ev}) {
		return false
	}
	if len(t.has) > 0 && !slices.ContainsFunc(t.has, func(pt []string) bool { _, ok := lookup(ev, pt); return ok }) {
		return false
	}
	return len(t.files) == 0 || slices.ContainsFunc(files, func(name string) bool {
		file := ev.Inputs.Text(name)
		return file != "" && anyLike(t.files, file)
	})
}

// firstOf is the first of the places that has a string or a number, or the part of
// it that is asked for.
func firstOf(ev *entry.Event, places [][]string, part *regexp.Regexp) (string, bool) {
	for _, pt := range places {
		if value, ok := lookup(ev, pt); ok {
			if value[0] == '"' {
				s, ok := appendUnescaped(nil, value[1:len(value)-1])
				if part != nil {
					found := part.FindSubmatch(s)
					if s = nil; found != nil {
						s = found[min(1, len(found)-1)]
					}
				}
				if ok && len(s) > 0 {
					return string(s), true
				}
			} else if value[0] == '-' || '0' <= value[0] && value[0] <= '9' {
				return string(value), true
			}
		}
	}
	return "", false
}

// lookup gives the JSON text of the value that a pointer leads to, into JSON in
// strings too. null is no value.
func lookup(ev *entry.Event, pt path) ([]byte, bool) {
	var text []byte
	switch pt[0] {
	case "inputs":
		text, _ = ev.Inputs.AppendJSON(nil)
	case "outputs":
		text, _ = ev.Outputs.AppendJSON(nil)
	case "metadata":
		text, _ = ev.Metadata.AppendJSON(nil)
	case "resource":
		text, _ = ev.Resource.AppendJSON(nil)
	case "authority":
		text, _ = ev.Authority.AppendJSON(nil)
	}
	for _, name := range pt[1:] {
		if text = below(text, name); text == nil {
			return nil, false
		}
	}
	return text, len(text) > 0 && string(text) != "null"
}

// below is the value of a member or an element, nil where there is none.
func below(text []byte, name string) []byte {
	if len(text) > 0 && text[0] == '"' {
		inner, ok := appendUnescaped(nil, text[1:len(text)-1])
		if !ok || !looksJSON(inner) {
			return nil
		}
		if text, ok = compact(inner); !ok {
			return nil
		}
	}
	if len(text) == 0 {
		return nil
	}
	switch text[0] {
	case '{':
		v, _ := entry.Raw(text).Get(name)
		return v.JSON()
	case '[':
		w := walker{src: text, pos: 1}
		for i := 0; w.pos < len(text) && text[w.pos] != ']'; i++ {
			start := w.pos
			if !w.skip() {
				return nil
			}
			if strconv.Itoa(i) == name {
				return text[start:w.pos]
			}
			if w.pos < len(text) && text[w.pos] == ',' {
				w.pos++
			}
		}
	}
	return nil
}

func compact(text []byte) ([]byte, bool) {
	out, err := entry.AppendCompact(nil, text, 1)
	return out, err == nil
}

func pointerOf(pt path) string {
	w := walker{}
	for _, name := range pt {
		w.frames = append(w.frames, frame{name: []byte(name)})
	}
	return w.pointer()
}
