package sealed

import (
	"bytes"
	"strings"

	"github.com/kaizen-audit/kaizen-audit/entry"
)

// member is a member of an object: its name unescaped, its value as it stands in
// the line.
type member struct {
	name  string
	value []byte
}

// members are those of a JSON object, in their order.
func members(dst []member, object []byte) []member {
	for name, v := range entry.Raw(object).All() {
		dst = append(dst, member{name, v.JSON()})
	}
	return dst
}

func find(ms []member, name string) []byte {
	for _, m := range ms {
		if m.name == name {
			return m.value
		}
	}
	return nil
}

// text is a string value, "" where it is none.
func text(value []byte) string {
	if len(value) == 0 || value[0] != '"' {
		return ""
	}
	if bytes.IndexByte(value, '\\') < 0 {
		return string(value[1 : len(value)-1]) // as nearly always
	}
	// A member alone is the shortest object that entry reads.
	object := append(append([]byte(`{"v":`), value...), '}')
	return entry.Raw(object).Text("v")
}

// empty tells a value that says nothing of anybody and is never sealed.
func empty(value []byte) bool {
	switch string(value) {
	case "null", "{}", "[]", `""`:
		return true
	}
	return false
}

// escape makes a token of a JSON pointer (RFC 6901 §3).
func escape(name string) string {
	return pointerEscapes.Replace(name)
}

func unescape(token string) string {
	return pointerUnescapes.Replace(token)
}

var (
	pointerEscapes   = strings.NewReplacer("~", "~0", "/", "~1")
	pointerUnescapes = strings.NewReplacer("~1", "/", "~0", "~")
)

// appendName appends a member's name and the colon; first tells whether it is the
// first of its object.
func appendName(dst []byte, first bool, name string) []byte {
	if !first {
		dst = append(dst, ',')
	}
	dst, _ = entry.AppendString(dst, name) // it was read from a line
	return append(dst, ':')
}
