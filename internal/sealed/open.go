package sealed

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/keys"
	"github.com/kaizen-audit/kaizen-audit/internal/seal"
)

// State says why a field is not shown (docs/format-sealing.md §6.4).
type State string

// The states of a field that is not shown.
const (
	Erased  State = "erased"  // its key was destroyed
	NoKey   State = "no key"  // the reader has no keys, or they were lost
	Denied  State = "denied"  // the reader's role
	Damaged State = "damaged" // it does not open
)

// View is a stored line as its reader sees it.
type View struct {
	// Line is the line with every field that could be opened put back; the stored
	// bytes themselves where nothing is sealed.
	Line []byte
	// Hidden are the pointers of the fields that are not shown.
	Hidden map[string]State
	// Sealed tells whether anything in the line was.
	Sealed bool
}

// Plain is the line that was sealed: the view without the list of what was. ok is
// false where something of it is hidden.
func (v View) Plain() (line []byte, ok bool) {
	if len(v.Hidden) > 0 {
		return nil, false
	}
	return WithoutList(v.Line), true
}

// WithoutList is a line without policy.sealed: neither what was sealed in it nor what
// is to be.
func WithoutList(line []byte) []byte {
	var room [maxMembers]member
	top := members(room[:0], line)
	if _, listed := sealedList(top); !listed {
		return line
	}
	dst := []byte{'{'}
	for _, m := range top {
		value := m.value
		if m.name == "policy" {
			if value = withoutList(value); value == nil {
				continue
			}
		}
		dst = append(appendName(dst, len(dst) == 1, m.name), value...)
	}
	return append(dst, '}')
}

// withoutList is the object policy without its list of what is sealed, nil where
// nothing is left.
func withoutList(policy []byte) []byte {
	if !bytes.Contains(policy, []byte(`"sealed"`)) {
		if len(policy) < 2 {
			return nil
		}
		return policy
	}
	dst := []byte{'{'}
	for _, m := range members(nil, policy) {
		if m.name != "sealed" {
			dst = append(appendName(dst, len(dst) == 1, m.name), m.value...)
		}
	}
	if len(dst) == 1 {
		return nil
	}
	return append(dst, '}')
}

// ErrNoKey means that a line is sealed and that its reader has no keys.
var ErrNoKey = errors.New("the line is sealed, and there is no encryption key")

// Opener opens stored lines.
type Opener struct {
	origin string
	store  *keys.Store // nil: there are no keys
	limit  int         // of a line, in bytes
	erased func(handle string) bool
}

// NewOpener opens lines of the trail of an origin, none longer than limit bytes. A
// nil store is a reader without keys, which sees what is not sealed. erased tells the
// handles that the trail says are erased; it is asked of those only whose key is not
// there, and nil is none.
func NewOpener(origin string, store *keys.Store, limit int, erased func(handle string) bool) *Opener {
	return &Opener{origin, store, limit, erased}
}

// Field is a sealed field: where it stands, and whose keys it needs.
type Field struct {
	Pointer string
	Handles []string
}

// Whole is a stored line, opened if it was sealed as a whole; its fields stay sealed.
// Errors are those of Open.
func (o *Opener) Whole(stored []byte) (line []byte, err error) {
	if !seal.IsLine(stored) {
		return stored, nil
	}
	line, _, err = o.line(stored)
	return line, err
}

// Fields are the sealed fields of a line that Whole gave, in their order. A line whose
// list is not in order has none: nobody can open them.
func (o *Opener) Fields(line []byte) (fields []Field) {
	l, pointers, _ := o.fieldsOf(line)
	if l == nil || l.damaged {
		return nil
	}
	for _, p := range pointers {
		fields = append(fields, Field{p, l.envelopes[p].Handles()})
	}
	return fields
}

// MayNeed tells at a first look whether a line that Whole gave has a field that needs
// one of some keys: where it says no there is none.
func MayNeed(line []byte, handle func(string) bool) bool {
	const begins = `"sealed:v1:`
	for {
		at := bytes.Index(line, []byte(begins))
		if at < 0 {
			return false
		}
		line = line[at+len(begins):]
		handles, _, _ := bytes.Cut(line[:min(len(line), seal.MaxSubjects*(seal.HandleSize+1))], []byte{':'})
		for h := range bytes.SplitSeq(handles, []byte{'.'}) {
			if handle(string(h)) {
				return true
			}
		}
	}
}

// Open gives what the reader sees of a stored line. The error is ErrNoKey,
// keys.ErrNoDEK, or one of package seal, of a sealed line as a whole: nothing of
// it can be shown. Fields that do not open are no errors.
func (o *Opener) Open(stored []byte) (View, error) {
	line, err := o.Whole(stored)
	if err != nil {
		return View{Sealed: true}, err
	}
	l, _, listed := o.fieldsOf(line)
	if !listed {
		return View{Line: line, Sealed: seal.IsLine(stored)}, nil
	}
	return View{Line: l.rebuild(membersOf(line)), Hidden: l.hidden, Sealed: true}, nil
}

// line opens a sealed line, and gives its key.
func (o *Opener) line(stored []byte) ([]byte, seal.Key, error) {
	sealed, err := seal.ParseLine(stored)
	if err != nil {
		return nil, seal.Key{}, err
	}
	if o.store == nil {
		return nil, seal.Key{}, ErrNoKey
	}
	dek, err := o.store.DEKOf(context.Background(), sealed.KeyID())
	if err != nil {
		return nil, seal.Key{}, err
	}
	k, err := sealed.Key(o.origin, dek)
	if err != nil {
		return nil, seal.Key{}, err
	}
	line, err := sealed.Open(o.origin, k, o.limit)
	return line, k, err
}

// mayHaveFields is a first look: policy is the last member of what this package
// writes, and has the list.
func mayHaveFields(line []byte) bool {
	return bytes.Contains(line, []byte(`"sealed":[`))
}

// sealedList is policy.sealed, if there is such a list.
func sealedList(top []member) (pointers []string, listed bool) {
	policy := find(top, "policy")
	if len(policy) == 0 || policy[0] != '{' {
		return nil, false
	}
	v, ok := entry.Raw(policy).Get("sealed")
	if !ok || len(v.JSON()) == 0 || v.JSON()[0] != '[' {
		return nil, false
	}
	return pointersIn(top, "sealed"), true
}

// pointersIn is a list of policy, nil where it is none.
func pointersIn(top []member, name string) []string {
	policy := find(top, "policy")
	if len(policy) == 0 || policy[0] != '{' {
		return nil
	}
	v, _ := entry.Raw(policy).Get(name)
	var list []string
	if len(v.JSON()) == 0 || json.Unmarshal(v.JSON(), &list) != nil {
		return nil
	}
	return list
}

// openedLine is a line whose fields are put back.
type openedLine struct {
	o         *Opener
	place     seal.Place
	envelopes map[string]seal.Envelope // by pointer
	hidden    map[string]State
	damaged   bool
	given     map[string][]byte // values that were opened with a key that was given
	states    map[string]State  // what is said of the others then
}

// sealable tells the pointers at which a value can be sealed (§6.3).
func sealable(pointer string) bool {
	tokens := strings.Split(pointer, "/")
	if len(tokens) < 2 || tokens[0] != "" {
		return false
	}
	switch tokens[1] {
	case "error", "purpose", "idempotency_key":
		return len(tokens) == 2
	case "inputs", "outputs", "authority":
		return true
	case "metadata", "resource":
		return len(tokens) == 3
	}
	return false
}

// check reads the envelopes, and tells whether the list is in order: each pointer
// leads to one, none twice, none where nothing is sealed.
func (l *openedLine) check(top []member, pointers []string) bool {
	if len(pointers) == 0 {
		return false
	}
	ok := true
	for _, p := range pointers {
		envelope, err := seal.ParseEnvelope(textAt(top, p))
		if _, twice := l.envelopes[p]; err != nil || twice || !sealable(p) {
			ok = false
			continue
		}
		l.envelopes[p] = envelope
	}
	return ok
}

// below tells whether something is sealed below a pointer.
func (l *openedLine) below(pointer string) bool {
	for p := range l.envelopes {
		if len(p) > len(pointer) && p[len(pointer)] == '/' && p[:len(pointer)] == pointer {
			return true
		}
	}
	return false
}

// rebuild gives the line with its fields as the reader sees them.
func (l *openedLine) rebuild(top []member) []byte {
	dst := []byte{'{'}
	for i, m := range top {
		dst = l.value(appendName(dst, i == 0, m.name), "/"+escape(m.name), m.value)
	}
	return append(dst, '}')
}

// value appends a value as it is shown.
func (l *openedLine) value(dst []byte, pointer string, value []byte) []byte {
	envelope, sealed := l.envelopes[pointer]
	switch {
	case !sealed && len(value) > 0 && value[0] == '{' && l.below(pointer):
		dst = append(dst, '{')
		for i, m := range members(nil, value) {
			dst = l.value(appendName(dst, i == 0, m.name), pointer+"/"+escape(m.name), m.value)
		}
		return append(dst, '}')
	case !sealed:
		return append(dst, value...)
	}
	plain, state := l.open(pointer, envelope)
	if state == "" {
		return append(dst, plain...)
	}
	l.hidden[pointer] = state
	switch pointer {
	case "/inputs", "/outputs", "/authority": // they stay objects
		return append(append(append(dst, `{"sealed":"`...), state...), `"}`...)
	}
	return append(append(append(dst, `"[sealed: `...), state...), `]"`...)
}

func (l *openedLine) open(pointer string, envelope seal.Envelope) (plain []byte, state State) {
	if plain, ok := l.given[pointer]; ok {
		return plain, ""
	}
	if state, ok := l.states[pointer]; ok {
		return nil, state
	}
	if l.damaged {
		return nil, Damaged
	}
	k, state := l.key(pointer, envelope)
	if state != "" {
		return nil, state
	}
	place := l.place
	place.Pointer = pointer
	plain, err := envelope.Open(place, k, l.o.limit)
	if err != nil {
		return nil, Damaged
	}
	return plain, ""
}

// noKey says why there is no key for an envelope: only the trail's own word makes it
// erased.
func (o *Opener) noKey(envelope seal.Envelope) State {
	if o.erased != nil && slices.ContainsFunc(envelope.Handles(), o.erased) {
		return Erased
	}
	return NoKey
}

// fieldKey is the key of one field: it opens this field and no other.
func (o *Opener) fieldKey(place seal.Place, pointer string, envelope seal.Envelope) (seal.Key, error) {
	var subjects []seal.Subject
	for _, handle := range envelope.Handles() {
		key, err := o.store.Key(handle)
		if err != nil {
			return seal.Key{}, fmt.Errorf("field %s: %w", pointer, err)
		}
		subjects = append(subjects, seal.Subject{Handle: handle, Key: key})
	}
	place.Pointer = pointer
	return seal.FieldKey(place, subjects)
}
