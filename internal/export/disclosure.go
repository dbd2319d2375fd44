package export

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/seal"
	"github.com/kaizen-audit/kaizen-audit/internal/sealed"
	"github.com/kaizen-audit/kaizen-audit/internal/tree"
	"github.com/kaizen-audit/kaizen-audit/internal/trust"
)

// disclosureFormat names the format and its version.
const disclosureFormat = "kaizen-audit/disclosure/v1"

// FieldKey opens one sealed field, and no other.
type FieldKey struct {
	Pointer string
	Key     seal.Key
}

// Disclosure is a line with its proof, and the keys of what is disclosed of it
// (docs/format-sealing.md §6.8).
type Disclosure struct {
	Origin  string
	Index   int64
	Line    []byte    // as stored
	LineKey *seal.Key // of a sealed line, else nil
	Fields  []FieldKey
	Proof   []byte // c2sp.org/tlog-proof
}

// Append appends the disclosure as one line of JSON, without newline. It has one
// spelling.
func (d Disclosure) Append(dst []byte) ([]byte, error) {
	ok := true
	text := func(name, s string) {
		if len(dst) > 0 && dst[len(dst)-1] != '{' {
			dst = append(dst, ',')
		}
		dst = append(append(append(dst, '"'), name...), `":`...)
		var good bool
		dst, good = entry.AppendString(dst, s)
		ok = ok && good
	}
	dst = append(dst, '{')
	text("format", disclosureFormat)
	text("origin", d.Origin)
	dst = strconv.AppendInt(append(dst, `,"index":`...), d.Index, 10)
	text("line", string(d.Line))
	if d.LineKey != nil {
		text("line_key", base64url.EncodeToString(d.LineKey[:]))
	}
	dst = append(dst, `,"fields":[`...)
	for i, f := range d.Fields {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, '{')
		text("pointer", f.Pointer)
		text("key", base64url.EncodeToString(f.Key[:]))
		dst = append(dst, '}')
	}
	dst = append(dst, ']')
	text("proof", string(d.Proof))
	if !ok {
		return nil, errors.New("disclose: the line is not UTF-8")
	}
	return append(dst, '}'), nil
}

// base64url is that of keys; strict, so that a key has one spelling.
var base64url = base64.RawURLEncoding.Strict()

// IsDisclosure tells whether a file is a disclosure, of whatever version.
func IsDisclosure(text []byte) bool {
	return bytes.HasPrefix(text, []byte(`{"format":"kaizen-audit/disclosure/`))
}

// ErrDisclosure means that it is no disclosure of this format.
var ErrDisclosure = errors.New("malformed disclosure")

// ParseDisclosure reads a disclosure; one newline at its end does not count. It
// takes the one spelling that Append gives, so that no name stands twice in it and
// nobody reads it otherwise.
func ParseDisclosure(text []byte) (Disclosure, error) {
	text = bytes.TrimSuffix(text, []byte("\n"))
	var p struct {
		Format  string
		Origin  string
		Index   int64
		Line    string
		LineKey *string `json:"line_key"`
		Fields  []struct{ Pointer, Key string }
		Proof   string
	}
	if err := json.Unmarshal(text, &p); err != nil {
		return Disclosure{}, fmt.Errorf("parse disclosure: %w: no JSON of this form", ErrDisclosure)
	}
	if p.Format != disclosureFormat {
		return Disclosure{}, fmt.Errorf("parse disclosure: %w: of another version than %s", ErrDisclosure, disclosureFormat)
	}
	d := Disclosure{Origin: p.Origin, Index: p.Index, Line: []byte(p.Line), Proof: []byte(p.Proof)}
	if p.LineKey != nil {
		k, ok := parseKey(*p.LineKey)
		if !ok {
			return Disclosure{}, fmt.Errorf("parse disclosure: %w: line_key is no key", ErrDisclosure)
		}
		d.LineKey = &k
	}
	for i, f := range p.Fields {
		k, ok := parseKey(f.Key)
		if !ok {
			return Disclosure{}, fmt.Errorf("parse disclosure: %w: the key of field %d is no key", ErrDisclosure, i+1)
		}
		d.Fields = append(d.Fields, FieldKey{f.Pointer, k})
	}
	if again, err := d.Append(nil); err != nil || !bytes.Equal(again, text) {
		return Disclosure{}, fmt.Errorf("parse disclosure: %w: not in its one spelling", ErrDisclosure)
	}
	return d, nil
}

func parseKey(s string) (k seal.Key, ok bool) {
	b, err := base64url.DecodeString(s)
	if err != nil || len(b) != len(k) || base64url.EncodeToString(b) != s {
		return k, false
	}
	return seal.Key(b), true
}

// Disclosed is what a disclosure proves.
type Disclosed struct {
	Index      int64
	Checkpoint tree.Checkpoint
	// Entry is the entry as far as it was disclosed. Hidden are the fields that
	// were not.
	Entry  entry.Entry
	Hidden map[string]sealed.State
}

// Check checks a disclosure against the trail's keys: that its line is in the tree
// that they have signed, and that each key opens its own field. An error means
// that nothing is proved. limit bounds the line, in bytes.
func (d Disclosure) Check(keys trust.Set, limit int) (Disclosed, error) {
	fail := func(err error) (Disclosed, error) { return Disclosed{}, fmt.Errorf("check disclosure: %w", err) }
	if d.Origin != keys.Name() {
		return fail(errors.New("it is of another trail than the key"))
	}
	index, c, err := tree.CheckInclusion(d.Proof, entry.Digest(d.Line), keys)
	if err != nil {
		return fail(err)
	}
	if index != d.Index {
		return fail(errors.New("the proof is of another entry"))
	}
	line := d.Line
	switch {
	case seal.IsLine(line) && d.LineKey == nil:
		return fail(errors.New("the line is sealed, and its key is not there"))
	case seal.IsLine(line):
		if line, err = sealed.OpenLine(d.Origin, line, *d.LineKey, limit); err != nil {
			return fail(err)
		}
	case d.LineKey != nil:
		return fail(errors.New("there is a key for the line, which is not sealed"))
	}
	given := map[string]seal.Key{}
	for _, f := range d.Fields {
		if _, twice := given[f.Pointer]; twice {
			return fail(errors.New("a field is disclosed twice"))
		}
		given[f.Pointer] = f.Key
	}
	view := sealed.View{Line: line}
	if len(given) > 0 || d.LineKey != nil {
		if view, err = sealed.OpenFields(d.Origin, line, given, nil, limit); err != nil {
			return fail(err)
		}
	}
	e, err := entry.ParseView(view.Line, d.Line)
	if err != nil {
		return fail(err)
	}
	e.Index = index
	return Disclosed{Index: index, Checkpoint: c, Entry: e, Hidden: view.Hidden}, nil
}
