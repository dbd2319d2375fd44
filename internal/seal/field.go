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

func (p Place) info(handles string) []byte { return p.appendInfo(nil, handles) }

func (p Place) appendInfo(dst []byte, handles string) []byte {
	return appendInfo(dst, labelField, p.Origin, p.EventID, p.Pointer, handles)
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
	f, err := NewFields(p.Origin, p.EventID, subjects)
	if err != nil {
		return "", fmt.Errorf("seal %s: %w", p.Pointer, err)
	}
	text, err := f.Append(nil, p.Pointer, value)
	return string(text), err
}

// Fields seals several fields of one entry for the same subjects: what their keys
// have in common is derived once.
type Fields struct {
	place   Place
	handles string
	secret  []byte // of the subjects; where the validated module derives
	prk     [KeySize]byte
	info    []byte // room
	data    []byte // room
}

// NewFields seals for an entry of a trail.
func NewFields(origin, eventID string, subjects []Subject) (*Fields, error) {
	handles, secret, err := joinSubjects(subjects)
	if err != nil {
		return nil, err
	}
	f := &Fields{place: Place{Origin: origin, EventID: eventID}, handles: handles, secret: secret}
	if !validated {
		m := macPool.Get().(*macs)
		defer m.free()
		m.extract(secret, []byte(eventID))
		f.prk = m.secret
	}
	return f, nil
}

// Append appends the string that stands in the line for a value, whose JSON text
// must be valid and without a newline.
func (f *Fields) Append(dst []byte, pointer string, value []byte) ([]byte, error) {
	f.place.Pointer = pointer
	f.info = f.place.appendInfo(f.info[:0], f.handles)
	k, err := f.key()
	if err != nil {
		return dst, fmt.Errorf("seal %s: %w", pointer, err)
	}
	var m method
	f.data, m = pack(f.data[:0], value)
	if f.data, err = sealBox(k, f.info, f.data, m); err != nil {
		return dst, fmt.Errorf("seal %s: %w", pointer, err)
	}
	return Envelope{f.handles, f.data}.appendTo(dst), nil
}

// key is derive, from what NewFields has extracted.
func (f *Fields) key() (k Key, err error) {
	if validated {
		return derive(f.secret, []byte(f.place.EventID), f.info)
	}
	m := macPool.Get().(*macs)
	defer m.free()
	m.secret = f.prk
	m.expand(m.secret[:], f.info, m.keys[:KeySize])
	copy(k[:], m.keys[:])
	return k, nil
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
func (e Envelope) String() string { return string(e.appendTo(nil)) }

func (e Envelope) appendTo(dst []byte) []byte {
	dst = append(dst, fieldPrefix+fieldVersion+":"...)
	dst = append(append(dst, e.handles...), ':')
	return base64url.AppendEncode(dst, e.box)
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
