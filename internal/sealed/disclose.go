package sealed

import (
	"errors"
	"fmt"

	"github.com/kaizen-audit/kaizen-audit/internal/keys"
	"github.com/kaizen-audit/kaizen-audit/internal/seal"
)

// Withheld is the state of a field that was left sealed on purpose: it was not
// disclosed, or it is another person's.
const Withheld State = "withheld"

// Part is a sealed field of a line, and what opens it.
type Part struct {
	Pointer string
	Handles []string // of its subjects
	Key     seal.Key // opens this field and no other
	State   State    // why there is no key; "" where there is one
}

// Parts are the pieces of a stored line that can be given away one by one.
type Parts struct {
	// LineKey opens the line; nil where it is not sealed as a whole.
	LineKey *seal.Key
	// Line is the line, its fields sealed.
	Line []byte
	// Fields are in the order of policy.sealed. Damaged says that the list is not
	// in order: then there are none, and nothing can be disclosed.
	Fields  []Part
	Damaged bool
}

// Parts gives what can be disclosed of a stored line. The errors are those of Open.
func (o *Opener) Parts(stored []byte) (Parts, error) {
	p := Parts{Line: stored}
	if seal.IsLine(stored) {
		line, k, err := o.line(stored)
		if err != nil {
			return Parts{}, err
		}
		p.Line, p.LineKey = line, &k
	}
	l, pointers, listed := o.fieldsOf(p.Line)
	if !listed {
		return p, nil
	}
	if l.damaged {
		p.Damaged = true
		return p, nil
	}
	for _, pointer := range pointers {
		envelope := l.envelopes[pointer]
		f := Part{Pointer: pointer, Handles: envelope.Handles()}
		f.Key, f.State = l.key(pointer, envelope)
		if f.State == "" {
			// A key that does not open its field would be taken for a forgery.
			if _, f.State = l.open(pointer, envelope); f.State != "" {
				f.Key = seal.Key{}
			}
		}
		p.Fields = append(p.Fields, f)
	}
	return p, nil
}

// OpenLine opens a sealed line with its own key.
func OpenLine(origin string, stored []byte, k seal.Key, limit int) ([]byte, error) {
	l, err := seal.ParseLine(stored)
	if err != nil {
		return nil, err
	}
	return l.Open(origin, k, limit)
}

// ErrInClear means that a key is given for what is not sealed in a line.
var ErrInClear = errors.New("is not sealed in this line")

// OpenFields gives a line, opened where it was sealed as a whole, with those fields
// put back for which there is a key. Every other is shown with the state that
// hidden says, Withheld where it says none. Unlike Open it takes keys from a
// stranger: the error is ErrInClear, or one of package seal where a key does not
// open its field or the list of what is sealed is not in order.
func OpenFields(origin string, line []byte, given map[string]seal.Key, hidden map[string]State, limit int) (View, error) {
	o := &Opener{origin: origin, limit: limit}
	l, pointers, listed := o.fieldsOf(line)
	if !listed {
		for pointer := range given {
			return View{}, fmt.Errorf("field %s %w", pointer, ErrInClear)
		}
		return View{Line: line}, nil
	}
	if l.damaged {
		return View{}, fmt.Errorf("list of what is sealed: %w", seal.ErrMalformed)
	}
	l.given = map[string][]byte{}
	for pointer, k := range given {
		envelope, ok := l.envelopes[pointer]
		if !ok {
			return View{}, fmt.Errorf("field %s %w", pointer, ErrInClear)
		}
		place := l.place
		place.Pointer = pointer
		var err error
		if l.given[pointer], err = envelope.Open(place, k, limit); err != nil {
			return View{}, err
		}
	}
	v := View{Sealed: true, Hidden: l.hidden}
	l.states = map[string]State{}
	for _, pointer := range pointers {
		l.states[pointer] = Withheld
		if s := hidden[pointer]; s != "" {
			l.states[pointer] = s
		}
	}
	v.Line = l.rebuild(membersOf(line))
	return v, nil
}

// fieldsOf makes a line ready whose fields are to be opened; listed is false where
// it has none.
func (o *Opener) fieldsOf(line []byte) (l *openedLine, pointers []string, listed bool) {
	if !mayHaveFields(line) {
		return nil, nil, false
	}
	top := membersOf(line)
	if pointers, listed = sealedList(top); !listed {
		return nil, nil, false
	}
	l = &openedLine{o: o, place: seal.Place{Origin: o.origin, EventID: text(find(top, "event_id"))}, envelopes: map[string]seal.Envelope{}, hidden: map[string]State{}}
	// A list that is not in order is nobody's word: none of it is opened.
	l.damaged = !l.check(top, pointers)
	return l, pointers, true
}

func membersOf(line []byte) []member {
	return members(make([]member, 0, maxMembers), line)
}

// key is the key of one field, or why there is none.
func (l *openedLine) key(pointer string, envelope seal.Envelope) (seal.Key, State) {
	if l.o.store == nil {
		return seal.Key{}, l.o.noKey(envelope)
	}
	k, err := l.o.fieldKey(l.place, pointer, envelope)
	switch {
	case errors.Is(err, keys.ErrNoSubject):
		return seal.Key{}, l.o.noKey(envelope)
	case err != nil:
		return seal.Key{}, Damaged
	}
	return k, ""
}
