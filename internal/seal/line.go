package seal

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

const (
	linePrefix = `{"sealed":"`
	lineKey    = `","key":"`
	lineData   = `","data":"`
	lineEnd    = `"}`
)

// SealLine seals a whole line, without its newline, under the DEK whose id is
// id, and gives the line that is stored. salt is SaltSize random bytes, fresh
// for each line.
func SealLine(origin, id string, dek, salt, line []byte) ([]byte, error) {
	if !validLine(line) {
		return nil, fmt.Errorf("seal line: not one line of JSON: %w", ErrMalformed)
	}
	return AppendLine(nil, origin, id, dek, salt, line)
}

// AppendLine is SealLine for a line that is known to be one, and appends what is
// stored to dst.
func AppendLine(dst []byte, origin, id string, dek, salt, line []byte) ([]byte, error) {
	if !ValidHandle(id) {
		return dst, fmt.Errorf("seal line: key id: %w", ErrMalformed)
	}
	data, err := sealSalted(dek, salt, info(labelLine, origin, id), line)
	if err != nil {
		return dst, fmt.Errorf("seal line: %w", err)
	}
	return Line{id, data}.AppendTo(dst), nil
}

func validLine(line []byte) bool {
	return len(line) > 0 && line[0] == '{' && validJSON(line)
}

// Line is a sealed line: {"sealed":"v1","key":"<DEK id>","data":"<base64url>"}.
type Line struct {
	id   string
	data []byte // salt ‖ box
}

// IsLine tells whether a stored line is a sealed one, of whatever version. No
// other line of a trail begins as sealed ones do.
func IsLine(line []byte) bool { return bytes.HasPrefix(line, []byte(linePrefix)) }

// ParseLine reads a sealed line, which has one spelling. The error is
// ErrVersion or ErrMalformed.
func ParseLine(line []byte) (Line, error) {
	rest, ok := strings.CutPrefix(string(line), linePrefix)
	version, rest, ok2 := strings.Cut(rest, `"`)
	switch {
	case !ok || !ok2:
		return Line{}, fmt.Errorf("parse sealed line: %w", ErrMalformed)
	case version != fieldVersion:
		return Line{}, fmt.Errorf("parse sealed line: %w", ErrVersion)
	}
	rest, ok = strings.CutPrefix(rest, lineKey[1:])
	id, rest, ok2 := strings.Cut(rest, lineData)
	text, ok3 := strings.CutSuffix(rest, lineEnd)
	if !ok || !ok2 || !ok3 || !ValidHandle(id) {
		return Line{}, fmt.Errorf("parse sealed line: %w", ErrMalformed)
	}
	l := Line{id: id}
	if l.data, ok = decode(text); !ok || !validSalted(l.data) {
		return Line{}, fmt.Errorf("parse sealed line: data: %w", ErrMalformed)
	}
	return l, nil
}

// KeyID names the DEK it was sealed under.
func (l Line) KeyID() string { return l.id }

// AppendTo appends the line as it is stored, without a newline.
func (l Line) AppendTo(dst []byte) []byte {
	dst = append(dst, linePrefix+fieldVersion+lineKey...)
	dst = append(dst, l.id...)
	dst = append(dst, lineData...)
	dst = base64url.AppendEncode(dst, l.data)
	return append(dst, lineEnd...)
}

// Key derives the key of this line. It can be disclosed: it opens this line
// and no other.
func (l Line) Key(origin string, dek []byte) (Key, error) {
	return saltedKey(dek, l.data[:SaltSize], info(labelLine, origin, l.id))
}

// Open gives the line that was sealed, at most limit bytes. The error is
// ErrOpen, ErrTooLarge or ErrMalformed.
func (l Line) Open(origin string, k Key, limit int) ([]byte, error) {
	line, err := openBox(k, info(labelLine, origin, l.id), l.data[SaltSize:], limit)
	if err == nil && !validLine(line) {
		err = ErrMalformed
	}
	if err != nil {
		return nil, fmt.Errorf("open line: %w", err)
	}
	return line, nil
}

// Wrap seals a secret (a key, or a record that holds one) under the key above
// it, for the file in keys/ and the name that purpose and name give. salt is
// SaltSize random bytes, fresh each time.
func Wrap(origin, purpose, name string, key, salt, secret []byte) (string, error) {
	data, err := sealSalted(key, salt, info(labelKey, origin, purpose, name), secret)
	if err != nil {
		return "", fmt.Errorf("wrap %s %s: %w", purpose, name, err)
	}
	return base64url.EncodeToString(data), nil
}

// maxWrapped bounds a wrapped secret: an identifier of a subject is as long as
// its caller made it.
const maxWrapped = 1 << 20

// Unwrap is the reverse of Wrap.
func Unwrap(origin, purpose, name string, key []byte, wrapped string) ([]byte, error) {
	data, ok := decode(wrapped)
	if !ok || !validSalted(data) {
		return nil, fmt.Errorf("unwrap %s %s: %w", purpose, name, ErrMalformed)
	}
	place := info(labelKey, origin, purpose, name)
	k, err := saltedKey(key, data[:SaltSize], place)
	if err != nil {
		return nil, fmt.Errorf("unwrap %s %s: %w", purpose, name, err)
	}
	secret, err := openBox(k, place, data[SaltSize:], maxWrapped)
	if err != nil {
		return nil, fmt.Errorf("unwrap %s %s: %w", purpose, name, err)
	}
	return secret, nil
}

func saltedKey(key, salt, info []byte) (Key, error) {
	if len(key) != KeySize {
		return Key{}, fmt.Errorf("key has %d bytes, want %d", len(key), KeySize)
	}
	return derive(key, salt, info)
}

// sealSalted gives salt ‖ box.
func sealSalted(key, salt, info, plain []byte) ([]byte, error) {
	if len(salt) != SaltSize {
		return nil, fmt.Errorf("salt has %d bytes, want %d", len(salt), SaltSize)
	}
	k, err := saltedKey(key, salt, info)
	if err != nil {
		return nil, err
	}
	packed, m := pack(nil, plain)
	box, err := sealBox(k, info, packed, m)
	if err != nil {
		return nil, err
	}
	return slices.Concat(salt, box), nil
}

func validSalted(data []byte) bool {
	return len(data) > SaltSize && validBox(data[SaltSize:])
}
