package entry

import (
	"encoding/hex"
	"errors"
	"slices"
	"strings"
)

// KeepFact makes of ev an event that AppendLine takes with st, for automatic
// capture, which must not lose that something happened because of a value that
// can't be kept. A member that can't be encoded, or that makes the line too
// long, is replaced by
//
//	{"omitted":"<reason>","bytes":n,"mac":"<hex>"}
//
// and the entry's policy.omitted names it. n is the length of the value's JSON
// text, 0 where it has none; mac gives what is written for that text, and
// nothing where it is nil. In text, bytes that are not UTF-8 become U+FFFD.
// What remains is an error: an event without a usable event_type, agent_id or
// action.
func KeepFact(ev *Event, st *Stamp, mac func(value []byte) []byte) error {
	for _, s := range []*string{&ev.AgentID, &ev.TraceID, &ev.Action, &ev.IdempotencyKey, &ev.SpanID, &ev.ParentSpanID, &ev.Outcome, &ev.Purpose} {
		*s = strings.ToValidUTF8(*s, "\ufffd")
	}
	if ev.Error != nil {
		ev.Error = new(strings.ToValidUTF8(*ev.Error, "\ufffd"))
	}
	for {
		_, err := AppendLine(nil, ev, st)
		var field *FieldError
		var syntax *SyntaxError
		var long *LineTooLongError
		member, reason := "", ""
		switch {
		case err == nil:
			return nil
		case errors.As(err, &field):
			member, reason = field.Field, field.Err.Error()
			if errors.As(field.Err, &syntax) {
				reason = syntax.Reason
			}
		case errors.As(err, &long):
			member, reason = ev.longest(), errorOmitted
			if member == "" && ev.Error != nil && *ev.Error != errorOmitted {
				ev.Error = new(errorOmitted)
				continue
			}
		}
		o := ev.object(member)
		if o == nil || slices.Contains(ev.omitted, member) {
			return err
		}
		omit(o, reason, mac)
		ev.NoteOmitted(member)
	}
}

// Omit replaces members of an event, which are among inputs, outputs, metadata,
// resource and authority, as KeepFact does, for reason. One that is absent, or
// was replaced before, stays as it is.
func (ev *Event) Omit(reason string, mac func(value []byte) []byte, members ...string) {
	for _, m := range members {
		if o := ev.object(m); o != nil && !o.IsZero() && !slices.Contains(ev.omitted, m) {
			omit(o, reason, mac)
			ev.NoteOmitted(m)
		}
	}
}

func omit(o *Object, reason string, mac func(value []byte) []byte) {
	value := o.text()
	note := map[string]any{"omitted": reason, "bytes": len(value)}
	if mac != nil {
		note["mac"] = hex.EncodeToString(mac(value))
	}
	*o = Of(note)
}

// errorOmitted stands for an error whose text is too long, and is the reason
// for others.
const errorOmitted = "longer than an entry may be"

// NoteOmitted says that members were replaced by KeepFact, in another process
// say. It passes over names that are none of an event's objects.
func (ev *Event) NoteOmitted(members ...string) {
	for _, m := range members {
		if ev.object(m) != nil && !slices.Contains(ev.omitted, m) {
			ev.omitted = append(slices.Clip(ev.omitted), m)
		}
	}
}

// Omitted gives the members that KeepFact replaced.
func (ev *Event) Omitted() []string { return ev.omitted }

// NotePolicy says what a policy did to the event before it came here: the members
// of the entry's policy that policy.Policy.Event gives. It is for who applies a
// policy; whoever records makes no entry of it.
func (ev *Event) NotePolicy(members []byte) { ev.notes = members }

// PolicyNotes gives what NotePolicy was told.
func (ev *Event) PolicyNotes() []byte { return ev.notes }

// object is the member of that name which is an object, nil if none is.
func (ev *Event) object(name string) *Object {
	switch name {
	case "inputs":
		return &ev.Inputs
	case "outputs":
		return &ev.Outputs
	case "metadata":
		return &ev.Metadata
	case "resource":
		return &ev.Resource
	case "authority":
		return &ev.Authority
	}
	return nil
}

// longest is the longest object that was not replaced yet, "" if there is none.
func (ev *Event) longest() string {
	longest, n := "", 0
	for _, name := range []string{"outputs", "inputs", "metadata", "resource", "authority"} {
		if m := len(ev.object(name).text()); m > n && !slices.Contains(ev.omitted, name) {
			longest, n = name, m
		}
	}
	return longest
}
