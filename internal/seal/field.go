package seal

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

const (
	// HandleSize is the length in characters of a handle: 9 random bytes in
	// base64url. Handles are unique among those alive, by a look at creation;
	// that one of 10^9 meets one that was destroyed has a chance of 10^-4,
	// and only makes a box that does not open.
	HandleSize = 12
	// MaxSubjects is how many subjects one field can have: their handles take
	// less than 1 KiB of the line then.
	MaxSubjects = 64

	fieldPrefix  = "sealed:"
	fieldVersion = "v1"
)

// base64url is strict: one text for one value.
var base64url = base64.RawURLEncoding.Strict()

// Subject is a data subject: a handle, under which lines name it, and its key.
type Subject struct {
	Handle string
	Key    []byte // KeySize bytes
}

// Place is where a field stands. A sealed field opens nowhere else.
type Place struct {
	Origin  string // of the trail
	EventID string // of the entry; unique, since it has 74 fresh random bits
	Pointer string // RFC 6901, as in policy.sealed
}

func (p Place) info(handles string) []byte {
	return info(labelField, p.Origin, p.EventID, p.Pointer, handles)
}

// FieldKey derives the key of one field from the keys of all its subjects. It
// can be disclosed: it opens this field and no other.
func FieldKey(p Place, subjects []Subject) (Key, error) {
	handles, secret, err := joinSubjects(subjects)
	var k Key
	if err == nil {
		k, err = derive(secret, []byte(p.EventID), p.info(handles))
	}
	if err != nil {
		return Key{}, fmt.Errorf("derive key of %s: %w", p.Pointer, err)
	}
	return k, nil
}

// joinSubjects gives the subjects' handles and keys in the order of handles.
func joinSubjects(subjects []Subject) (handles string, secret []byte, err error) {
	if len(subjects) == 0 || len(subjects) > MaxSubjects {
		return "", nil, fmt.Errorf("%d subjects, want 1 to %d", len(subjects), MaxSubjects)
	}
	if len(subjects) == 1 && ValidHandle(subjects[0].Handle) && len(subjects[0].Key) == KeySize {
		return subjects[0].Handle, subjects[0].Key, nil // as nearly always
	}
	ordered := slices.Clone(subjects)
	slices.SortFunc(ordered, func(a, b Subject) int { return strings.Compare(a.Handle, b.Handle) })
	var text strings.Builder
	for i, s := range ordered {
		switch {
		case !ValidHandle(s.Handle):
			return "", nil, fmt.Errorf("handle: %w", ErrMalformed)
		case i > 0 && s.Handle == ordered[i-1].Handle:
			return "", nil, fmt.Errorf("subject %s twice", s.Handle)
		case len(s.Key) != KeySize:
			return "", nil, fmt.Errorf("subject %s: key has %d bytes, want %d", s.Handle, len(s.Key), KeySize)
		}
		if i > 0 {
			text.WriteByte('.')
		}
		text.WriteString(s.Handle)
		secret = append(secret, s.Key...)
	}
	return text.String(), secret, nil
}

// ValidHandle tells whether s is spelled as a handle.
func ValidHandle(s string) bool {
	if len(s) != HandleSize {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

// SealField seals the JSON text of one value for all of subjects, and gives
// the string that stands in the line.
func SealField(p Place, subjects []Subject, value []byte) (string, error) {
	if !validJSON(value) {
		return "", fmt.Errorf("seal %s: value is not JSON: %w", p.Pointer, ErrMalformed)
	}
	handles, secret, err := joinSubjects(subjects)
	if err != nil {
		return "", fmt.Errorf("seal %s: %w", p.Pointer, err)
	}
	place := p.info(handles)
	k, err := derive(secret, []byte(p.EventID), place)
	if err != nil {
		return "", fmt.Errorf("seal %s: %w", p.Pointer, err)
	}
	data, m := pack(value)
	box, err := sealBox(k, place, data, m)
	if err != nil {
		return "", fmt.Errorf("seal %s: %w", p.Pointer, err)
	}
	return Envelope{handles, box}.String(), nil
}

// validJSON tells whether b is one JSON text that fits into a line.
func validJSON(b []byte) bool { return bytes.IndexByte(b, '\n') < 0 && json.Valid(b) }

// Envelope is a sealed field as it stands in a line:
// sealed:v1:<handles>:<base64url>.
type Envelope struct {
	handles string
	box     []byte
}

// ParseEnvelope reads an envelope. Only strings at pointers that policy.sealed
// lists are envelopes, whatever others look like. The error is ErrVersion or
// ErrMalformed. String gives the same text back.
func ParseEnvelope(s string) (Envelope, error) {
	rest, ok := strings.CutPrefix(s, fieldPrefix)
	version, rest, ok2 := strings.Cut(rest, ":")
	switch {
	case !ok || !ok2:
		return Envelope{}, fmt.Errorf("parse envelope: %w", ErrMalformed)
	case version != fieldVersion:
		return Envelope{}, fmt.Errorf("parse envelope: %w", ErrVersion)
	}
	handles, text, ok := strings.Cut(rest, ":")
	e := Envelope{handles: handles}
	if !ok || !validHandles(handles) {
		return Envelope{}, fmt.Errorf("parse envelope: handles: %w", ErrMalformed)
	}
	if e.box, ok = decode(text); !ok || !validBox(e.box) {
		return Envelope{}, fmt.Errorf("parse envelope: box: %w", ErrMalformed)
	}
	return e, nil
}

// validHandles tells whether they are handles in their order, none twice: a
// set of subjects has one spelling.
func validHandles(s string) bool {
	if len(s) >= MaxSubjects*(HandleSize+1) {
		return false
	}
	before := ""
	for h := range strings.SplitSeq(s, ".") {
		if !ValidHandle(h) || h <= before {
			return false
		}
		before = h
	}
	return true
}

// decode is strict base64url; the library skips line ends, which are no part
// of it.
func decode(s string) ([]byte, bool) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, false
	}
	b, err := base64url.DecodeString(s)
	return b, err == nil
}

// Handles are the subjects whose keys it needs, in order.
func (e Envelope) Handles() []string { return strings.Split(e.handles, ".") }

// String is the envelope as it stands in a line.
func (e Envelope) String() string {
	b := make([]byte, 0, len(fieldPrefix)+len(fieldVersion)+len(e.handles)+2+base64url.EncodedLen(len(e.box)))
	b = append(b, fieldPrefix+fieldVersion+":"...)
	b = append(append(b, e.handles...), ':')
	return string(base64url.AppendEncode(b, e.box))
}

// Open gives the JSON text of the value, at most limit bytes. k is what
// FieldKey derives, or what was disclosed. The error is ErrOpen, ErrTooLarge
// or ErrMalformed.
func (e Envelope) Open(p Place, k Key, limit int) ([]byte, error) {
	value, err := openBox(k, p.info(e.handles), e.box, limit)
	if err == nil && !validJSON(value) {
		err = ErrMalformed
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", p.Pointer, err)
	}
	return value, nil
}
