package audit

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/kaizen-audit/kaizen-audit/entry"
)

// PHI is what an access to protected health information must say (HIPAA 45 CFR
// 164.312(b)): who, whose record, why, and what of it. All of it is required.
type PHI struct {
	UserID       string // who has accessed it: metadata.user_id
	PatientID    string // whose record it is: resource, and inputs.patient_id
	AccessReason string // why, such as treatment: metadata.access_reason
	PHIType      string // what of it, such as medical_history: metadata.phi_type
}

// RecordPHIAccess records ev as a PHI_ACCESS. Its event_type may be left out, and
// so may what phi says; what stands there already must be the same. A field of phi
// that is missing is ErrRefused with the field's name, and counts as a refusal like
// any other. Else it is Record.
func (t *Trail) RecordPHIAccess(ctx context.Context, ev Event, phi PHI) (Receipt, error) {
	return t.recordAccess(ctx, ev, accessTo{
		eventType: PHIAccess,
		metadata:  []member{{"user_id", phi.UserID}, {"access_reason", phi.AccessReason}, {"phi_type", phi.PHIType}},
		inputs:    member{"patient_id", phi.PatientID},
		resource:  "patient",
	})
}

// CHD is what an access to cardholder data must say (PCI DSS 10.2.1.1 and 10.2.2):
// who, where, and which card. All of it is required.
type CHD struct {
	UserID   string // who has accessed it: metadata.user_id
	Terminal string // where it was: metadata.pos_terminal
	Location string // and where that stands: metadata.location
	// MaskedCard is the card as it may be stored, such as ****1234: the first
	// eight digits and the last four at most (PCI DSS 3.4.1). inputs.masked_card,
	// and the resource where the event names no other, the cardholder say.
	MaskedCard string
}

// RecordCHDAccess records ev as a CHD_ACCESS, as RecordPHIAccess does. A
// MaskedCard that shows the card's number is ErrRefused.
func (t *Trail) RecordCHDAccess(ctx context.Context, ev Event, chd CHD) (Receipt, error) {
	a := accessTo{
		eventType: CHDAccess,
		metadata:  []member{{"user_id", chd.UserID}, {"pos_terminal", chd.Terminal}, {"location", chd.Location}},
		inputs:    member{"masked_card", chd.MaskedCard},
		resource:  "card",
	}
	if showsCard(chd.MaskedCard) {
		a.wrong = &entry.FieldError{Field: "inputs.masked_card", Err: errors.New("shows the card's number: of a card eight digits at the front and four at the end may be stored")}
	}
	if !ev.Resource.IsZero() {
		a.resource = ""
	}
	return t.recordAccess(ctx, ev, a)
}

// accessTo is what an event must say to be an access.
type accessTo struct {
	eventType string
	metadata  []member
	inputs    member // the identity of what was accessed
	resource  string // the type of the resource of that identity; "" leaves the event's
	wrong     error
}

type member struct{ name, text string }

func (t *Trail) recordAccess(ctx context.Context, ev Event, a accessTo) (Receipt, error) {
	if err := t.writable(ctx); err != nil {
		return Receipt{}, err
	}
	if err := a.complete(&ev); err != nil {
		t.refused.add(err)
		return Receipt{}, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return t.Record(ctx, ev)
}

// complete puts into an event what it must say.
func (a *accessTo) complete(ev *Event) error {
	if ev.EventType != "" && ev.EventType != a.eventType {
		return &entry.FieldError{Field: "event_type", Err: fmt.Errorf("is another than %s", a.eventType)}
	}
	ev.EventType = a.eventType
	var err error
	for _, m := range a.metadata {
		if ev.Metadata, err = with(ev.Metadata, "metadata", m); err != nil {
			return err
		}
	}
	if a.wrong != nil {
		return a.wrong
	}
	if ev.Inputs, err = with(ev.Inputs, "inputs", a.inputs); err != nil {
		return err
	}
	if a.resource == "" {
		return nil
	}
	for _, m := range []member{{"type", a.resource}, {"id", a.inputs.text}} {
		if ev.Resource, err = with(ev.Resource, "resource", m); err != nil {
			return err
		}
	}
	return nil
}

// with is an object that has a member, which must not have another value yet.
func with(o Object, in string, m member) (Object, error) {
	field := in + "." + m.name
	if strings.TrimSpace(m.text) == "" {
		return o, &entry.FieldError{Field: field, Err: errors.New("is missing, and an access must say it")}
	}
	if v, there := o.Get(m.name); there {
		if text, ok := v.Text(); !ok || text != m.text {
			return o, &entry.FieldError{Field: field, Err: errors.New("stands in the event with another value")}
		}
		return o, nil
	}
	text, err := o.AppendJSON(nil)
	if err != nil {
		return o, &entry.FieldError{Field: in, Err: err}
	}
	text = text[:len(text)-1]
	if len(text) > 1 {
		text = append(text, ',')
	}
	text = append(text, `"`+m.name+`":`...)
	text, ok := entry.AppendString(text, m.text)
	if !ok {
		return o, &entry.FieldError{Field: field, Err: errors.New("is not valid UTF-8")}
	}
	return Raw(append(text, '}')), nil
}

// showsCard tells a card's number that is not masked, or not enough: more than
// eight digits before something is left out, or more than twelve in all. No
// checksum is asked: a number that was mistyped is a card's number too.
func showsCard(s string) bool {
	run, all := 0, 0
	for _, r := range s {
		switch {
		case unicode.IsDigit(r):
			run, all = run+1, all+1
		case strings.ContainsRune(maskCharacters, r):
			run = 0
		}
		if run > 8 || all > 12 {
			return true
		}
	}
	return false
}

// maskCharacters stand for digits that were left out. Anything else between
// digits, a space or a hyphen say, leaves nothing out.
const maskCharacters = "*xX#•…"
