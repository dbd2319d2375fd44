package policy

import (
	"bytes"
	"sync/atomic"

	"github.com/kaizen-audit/kaizen-audit/entry"
)

// clean tells whether detectors find nothing in the value of one of an event's
// members. It sees what the walk sees, one name and one scalar after the other, and
// does without all that is for what is found: where it is not sure it says no, and
// the walk decides.
func (w *walker) clean(m *entry.Place) bool {
	text := w.src[m.Start:m.End]
	if m.Name != "action" {
		return w.cleanValue(text, m.Name == "metadata")
	}
	action := text[1 : len(text)-1]
	if w.p.actions.has(action) {
		return true
	}
	clean := w.cleanText(action)
	if clean {
		w.p.actions.add(action)
	}
	return clean
}

// cleanValue is clean for text in entry's spelling.
func (w *walker) cleanValue(text []byte, metadata bool) bool {
	depth := 0
	for i := 0; i < len(text); {
		switch c := text[i]; c {
		case '{', '[':
			depth++
			i++
		case '}', ']':
			depth--
			i++
		case '"':
			body, end := stringAt(text, i)
			if end == 0 {
				return false
			}
			i = end
			if i < len(text) && text[i] == ':' {
				i++
				if metadata && depth == 1 && (string(body) == "user_id" || string(body) == "session_id") {
					if i = w.passed(text, i); i == 0 {
						return false
					}
				} else if !w.cleanName(body) {
					return false
				}
			} else if !w.cleanText(body) {
				return false
			}
		case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
			end := i + 1
			for end < len(text) && (text[end]-'0' < 10 || text[end] == '.' || text[end]|0x20 == 'e' || text[end] == '+' || text[end] == '-') {
				end++
			}
			if _, found := w.p.set.Number(text[i:end]); found {
				return false
			}
			i = end
		default: // commas, and the letters of true, false and null
			i++
		}
	}
	return true
}

// stringAt gives the body of the string at text[i:] and what is behind it; 0 is no
// string.
func stringAt(text []byte, i int) (body []byte, end int) {
	start := i + 1
	for at := start; ; at++ {
		n := bytes.IndexByte(text[at:], '"')
		if n < 0 {
			return nil, 0
		}
		at += n
		slashes := 0
		for text[at-1-slashes] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			return text[start:at], at + 1
		}
	}
}

// passed is the end of a string that detectors leave alone; 0 is something else, or
// a card number where the policy looks for those here too.
func (w *walker) passed(text []byte, i int) int {
	if w.p.cards || i == len(text) || text[i] != '"' {
		return 0
	}
	_, end := stringAt(text, i)
	return end
}

// cleanName tells whether a member's name says nothing of what is under it, and
// nothing is in it.
func (w *walker) cleanName(name []byte) bool {
	if w.p.names.has(name) {
		return true
	}
	text, ok := w.unescaped(name)
	if !ok {
		return false
	}
	if _, keyed := w.p.set.Name(text); keyed || len(text) >= minName && !w.nothingIn(text) {
		return false
	}
	w.p.names.add(name)
	return true
}

func (w *walker) cleanText(body []byte) bool {
	text, ok := w.unescaped(body)
	return ok && !looksJSON(text) && w.nothingIn(text)
}

func (w *walker) nothingIn(text []byte) bool {
	w.matches = w.p.set.Text(w.matches[:0], text)
	return len(w.matches) == 0
}

// unescaped is the text of a string's body, valid until the next call.
func (w *walker) unescaped(body []byte) ([]byte, bool) {
	if bytes.IndexByte(body, '\\') < 0 {
		return body, true
	}
	var ok bool
	w.decoded, ok = appendUnescaped(w.decoded[:0], body)
	return w.decoded, ok
}

// known are texts of which is known that nothing is to be found in them. Agents
// use the same few names over and over, and a place that is taken stays taken, so
// that others cost no more than without. It is safe for concurrent use.
type known [256]atomic.Pointer[string]

// maxKnown bounds their length, and so the memory.
const maxKnown = 64

// place is where a text is, if it is anywhere.
func (k *known) place(text []byte) *atomic.Pointer[string] {
	h := uint32(len(text))
	for _, c := range text[max(0, len(text)-12):] {
		h = (h ^ uint32(c)) * 16777619 // FNV-1a of the end: beginnings are alike
	}
	return &k[byte(h^h>>8^h>>16)]
}

func (k *known) has(text []byte) bool {
	if len(text) > maxKnown {
		return false
	}
	there := k.place(text).Load()
	return there != nil && *there == string(text)
}

func (k *known) add(text []byte) {
	if at := k.place(text); len(text) <= maxKnown && at.Load() == nil {
		at.Store(new(string(text)))
	}
}
