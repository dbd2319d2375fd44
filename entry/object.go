package entry

import (
	"encoding/json"
	"iter"
	"sync"
)

// AppendJSON appends the object as it is stored: checked, in our spelling,
// {} when absent, wrapped as {"value":…} when it is no object. The error is a
// *SyntaxError where JSON text is at fault.
func (o Object) AppendJSON(dst []byte) ([]byte, error) {
	if o.IsZero() {
		return append(dst, '{', '}'), nil
	}
	if o.checked {
		return append(dst, o.raw...), nil
	}
	return appendObject(dst, o)
}

// Checked gives the object in memory of its own, as its text of so many bytes, which
// is checked here: recording it is a copy then, however often. An absent one stays
// absent. Errors are those of AppendJSON.
func (o Object) Checked() (c Object, bytes int, err error) {
	if o.checked || o.IsZero() {
		return o, len(o.raw), nil
	}
	if o.raw != nil { // our spelling is not longer
		c.raw, err = appendObject(make([]byte, 0, len(o.raw)), o)
	} else {
		scratch := texts.Get().(*[]byte)
		var text []byte
		if text, err = appendObject((*scratch)[:0], o); err == nil {
			c.raw = append(make([]byte, 0, len(text)), text...)
		}
		if cap(text) <= maxText {
			*scratch = text
		}
		texts.Put(scratch)
	}
	if err != nil {
		return Object{}, 0, err
	}
	c.checked = true
	return c, len(c.raw), nil
}

// texts are for texts whose length is not known before.
var texts = sync.Pool{New: func() any { return new([]byte) }}

// maxText is the largest of them that is kept.
const maxText = 1 << 20

// MarshalJSON is AppendJSON.
func (o Object) MarshalJSON() ([]byte, error) { return o.AppendJSON(nil) }

// UnmarshalJSON keeps a copy of b.
func (o *Object) UnmarshalJSON(b []byte) error {
	*o = Object{raw: append([]byte(nil), b...)}
	return nil
}

// text is the object's JSON text, nil when it can't be had.
func (o Object) text() []byte {
	if o.raw != nil {
		return o.raw
	}
	if o.value == nil {
		return nil
	}
	b, err := o.AppendJSON(nil)
	if err != nil {
		return nil
	}
	return b
}

// All gives the members in their order. It stops early at JSON text that is
// broken.
func (o Object) All() iter.Seq2[string, Value] {
	return func(yield func(string, Value) bool) {
		src := o.text()
		if src == nil {
			return
		}
		s := scanners.Get().(*scanner)
		defer s.release()
		s.src, s.pos = src, 0
		stopped := false
		_ = s.members(func(name, v []byte) {
			if !stopped && !yield(string(name), Value{v}) {
				stopped = true
			}
		})
	}
}

// Get gives the value of a member, the first of that name.
func (o Object) Get(name string) (v Value, ok bool) {
	for n, v := range o.All() {
		if n == name {
			return v, true
		}
	}
	return Value{}, false
}

// Text gives a member that is a string, "" otherwise.
func (o Object) Text(name string) string {
	v, _ := o.Get(name)
	s, _ := v.Text()
	return s
}

// Decode stores the object in what v points to, as encoding/json does.
func (o Object) Decode(v any) error {
	b := o.text()
	if b == nil {
		b = []byte("{}")
	}
	return json.Unmarshal(b, v)
}

// Value is one JSON value inside an entry. It shares the entry's memory.
type Value struct{ raw []byte }

// JSON gives the value as it was written; nil for the zero Value. The caller
// must not change it.
func (v Value) JSON() []byte { return v.raw }

// Text gives a string value.
func (v Value) Text() (s string, ok bool) { return asText(v.raw) }

// Object gives an object value.
func (v Value) Object() (o Object, ok bool) {
	if len(v.raw) == 0 || v.raw[0] != '{' {
		return Object{}, false
	}
	return Object{raw: v.raw}, true
}

// Origination is what metadata says of where an event came from, more than its
// agent does (PCI DSS 10.2.2): an address, a host, a terminal or a service; "" where
// it says nothing.
func Origination(metadata Object) string {
	for name, v := range metadata.All() {
		switch name {
		case "ip_address", "host", "hostname", "pos_terminal", "service_name":
			if s, _ := v.Text(); s != "" {
				return s
			}
		}
	}
	return ""
}
