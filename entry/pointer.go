package entry

import (
	"encoding/json"
	"strconv"
	"strings"
)

// At gives the value that a JSON pointer (RFC 6901) leads to in the entry's line,
// such as /inputs/patient_id or /outputs/rows/0/id. A string on the way that holds
// a JSON object or array, as tools give it, is looked into.
func (e Entry) At(pointer string) (v Value, ok bool) {
	v, rest := Value{e.line}, pointer
	for rest != "" {
		if rest[0] != '/' || len(v.raw) == 0 {
			return Value{}, false
		}
		var token string
		token, rest = rest[1:], ""
		if i := strings.IndexByte(token, '/'); i >= 0 {
			token, rest = token[:i], token[i:]
		}
		token = pointerText.Replace(token)
		if text, ok := v.Text(); ok && (strings.HasPrefix(text, "{") || strings.HasPrefix(text, "[")) && json.Valid([]byte(text)) {
			v = Value{[]byte(text)}
		}
		if o, isObject := v.Object(); isObject {
			v, ok = o.Get(token)
		} else {
			v, ok = v.element(token)
		}
		if !ok {
			return Value{}, false
		}
	}
	return v, len(v.raw) > 0
}

// pointerText undoes the escapes of a pointer's token (RFC 6901 §4).
var pointerText = strings.NewReplacer("~1", "/", "~0", "~")

// element is the element of an array that a token names.
func (v Value) element(token string) (Value, bool) {
	n, err := strconv.Atoi(token)
	if err != nil || n < 0 || strconv.Itoa(n) != token || v.raw[0] != '[' {
		return Value{}, false
	}
	var elements []json.RawMessage
	if json.Unmarshal(v.raw, &elements) != nil || n >= len(elements) {
		return Value{}, false
	}
	return Value{elements[n]}, true
}
