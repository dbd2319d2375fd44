package policy

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"sync/atomic"

	"github.com/kaizen-audit/kaizen-audit/entry"
)

// clean tells whether detectors find nothing in the value of one of an event's
// members. It sees what the walk sees, one name and one scalar after the other, and
// does without all that is for what is found: where it is not sure it says no, and
// the walk decides, from w.clear on.
func (w *walker) clean(m *entry.Place) bool {
	text := w.src[:m.End]
	if m.Member != entry.MemberAction {
		return w.cleanValue(text, m.Start, m.Member == entry.MemberMetadata)
	}
	action, escaped, _ := stringAt(text, m.Start)
	if w.p.actions.has(action) {
		return true
	}
	if !w.cleanText(action, escaped) {
		w.clear = m.Start
		return false
	}
	w.p.actions.add(action)
	return true
}

// cleanValue is clean for the value at text[i:], which is in entry's spelling.
func (w *walker) cleanValue(text []byte, i int, metadata bool) bool {
	depth := 0
	for i < len(text) {
		next := i + 1 // behind a comma, a bracket, a letter of true, false and null
		switch c := text[i]; c {
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		case '"':
			body, escaped, end := stringAt(text, i)
			next = end
			switch {
			case end == len(text) || text[end] != ':':
				if !w.cleanText(body, escaped) {
					next = 0
				}
			case metadata && depth == 1 && (string(body) == "user_id" || string(body) == "session_id"):
				next = w.passed(text, end+1)
			case !w.cleanName(body, escaped):
				next = 0
			}
		case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
			for next < len(text) && (text[next]-'0' < 10 || text[next] == '.' || text[next]|0x20 == 'e' || text[next] == '+' || text[next] == '-') {
				next++
			}
			if _, found := w.p.set.Number(text[i:next]); found {
				next = 0
			}
		}
		if next == 0 {
			w.clear = i
			return false
		}
		i = next
	}
	return true
}

// stringAt gives the body of the string at text[i:], whether it has escapes, and what
// is behind it. Eight bytes at a time.
func stringAt(text []byte, i int) (body []byte, escaped bool, end int) {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	start := i + 1
	for i = start; i < len(text); {
		if len(text)-i >= 8 {
			w := binary.LittleEndian.Uint64(text[i:])
			quote, slash := w^ones*'"', w^ones*'\\'
			// The lowest mark is exact: borrows only run upward.
			stop := ((quote-ones)&^quote | (slash-ones)&^slash) & highs
			if stop == 0 {
				i += 8
				continue
			}
			i += bits.TrailingZeros64(stop) / 8
		}
		switch text[i] {
		case '"':
			return text[start:i], escaped, i + 1
		case '\\':
			escaped = true
			i++
		}
		i++
	}
	return text[start:], escaped, len(text) // which entry does not write
}

// passed is the end of a string that detectors leave alone; 0 is something else, or
// a card number where the policy looks for those here too.
func (w *walker) passed(text []byte, i int) int {
	if w.p.cards || i == len(text) || text[i] != '"' {
		return 0
	}
	_, _, end := stringAt(text, i)
	return end
}

// cleanName tells whether a member's name says nothing of what is under it, and
// nothing is in it.
func (w *walker) cleanName(name []byte, escaped bool) bool {
	if w.p.names.has(name) {
		return true
	}
	text, ok := name, true
	if escaped {
		if text, ok = w.unescaped(name); !ok {
			return false
		}
	}
	if _, keyed := w.p.set.Name(text); keyed || len(text) >= minName && !w.nothingIn(text) {
		return false
	}
	w.p.names.add(name)
	return true
}

func (w *walker) cleanText(text []byte, escaped bool) bool {
	if escaped {
		var ok bool
		if text, ok = w.unescaped(text); !ok {
			return false
		}
	}
	if looksJSON(text) {
		return false
	}
	w.held = !w.nothingIn(text)
	return !w.held
}

func (w *walker) nothingIn(text []byte) bool {
	w.matches = w.p.set.Text(w.matches[:0], text)
	return len(w.matches) == 0
}

// unescaped is the text of a string's body, valid until the next call.
func (w *walker) unescaped(body []byte) ([]byte, bool) {
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

// place is where a text is, if it is anywhere: by its length, its beginning and its
// end.
func (k *known) place(text []byte) *atomic.Pointer[string] {
	n := len(text)
	h := uint64(n)
	if n >= 8 {
		h += binary.LittleEndian.Uint64(text)*3 ^ binary.LittleEndian.Uint64(text[n-8:])
	} else {
		for _, c := range text {
			h = h<<8 | uint64(c)
		}
	}
	return &k[h*0x9E3779B97F4A7C15>>56] // Fibonacci hashing
}

func (k *known) has(text []byte) bool {
	there := k.place(text).Load()
	return there != nil && *there == string(text)
}

func (k *known) add(text []byte) {
	if at := k.place(text); len(text) <= maxKnown && at.Load() == nil {
		at.Store(new(string(text)))
	}
}

// before is metadata in which nothing was changed, and what was noted: an agent's
// entries have the same, mostly, one after the other.
type before struct {
	p        *Policy
	text     []byte
	notes    []note
	pointers []byte // the text of theirs
}

// maxBefore bounds the text that is remembered.
const maxBefore = 1 << 10

func (b *before) is(w *walker, m *entry.Place) bool {
	return b.p == w.p && bytes.Equal(b.text, w.src[m.Start:m.End])
}

// remember takes what was noted from that note on. With tokens it depends on more
// than the text whether nothing is changed.
func (b *before) remember(w *walker, m *entry.Place, from int) {
	b.p = nil
	if m.End-m.Start > maxBefore || w.p.tokens {
		return
	}
	b.p = w.p
	b.text = append(b.text[:0], w.src[m.Start:m.End]...)
	b.notes, b.pointers = b.notes[:0], b.pointers[:0]
	for _, n := range w.notes[from:] {
		at := len(b.pointers)
		b.pointers = append(b.pointers, n.pointer...)
		b.notes = append(b.notes, note{n.kind, stringOf(b.pointers[at:]), n.rule})
	}
}
