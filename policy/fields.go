package policy

import (
	"strconv"

	"github.com/kaizen-audit/kaizen-audit/entry"
)

// listed tells whether a list of what is kept is about one of the event's members.
func (w *walker) listed(name string) bool {
	for _, pt := range w.only {
		if pt[0] == name {
			return true
		}
	}
	return false
}

// ruled applies lists and field rules to the value at pos. done is false where
// what is in it, or detectors, decide.
func (w *walker) ruled(f *frame) (r result, done bool) {
	container := w.src[w.pos] == '{' || w.src[w.pos] == '['
	if !f.kept {
		reaches := false
		for _, pt := range w.only {
			f.kept = f.kept || pt.matches(w.frames)
			reaches = reaches || pt.reaches(w.frames)
		}
		if !f.kept && (!reaches || !container && w.src[w.pos] != '"') {
			w.note(dropped, w.pointer(), "only")
			return w.gone()
		}
		if !f.kept && !container { // text: what is on the list stands in JSON in it, or nowhere
			if text, ok := w.peek(); !ok || !looksJSON(text) {
				w.note(dropped, w.pointer(), "only")
				return w.gone()
			}
		}
	}
	for i, rule := range w.fields[:f.field] {
		if !rule.path.matches(w.frames) {
			continue
		}
		if rule.action == Mark || rule.action == Seal {
			switch {
			case w.src[w.pos] == 'n': // null is nothing
			case rule.action == Seal && !canSeal(string(w.frames[0].name), len(w.frames)):
			default:
				w.note(kindOf(rule.action), w.pointer(), rule.name)
			}
			continue
		}
		f.field = i
		break
	}
	if f.field == len(w.fields) {
		return stays, false
	}
	rule := w.fields[f.field]
	if container {
		for _, other := range w.fields[:f.field] {
			if other.path.reaches(w.frames) {
				f.never = f.never || rule.action == Keep
				return stays, false
			}
		}
	}
	start := w.pos
	switch rule.action {
	case Keep:
		if container && len(w.only) > 0 && !f.kept {
			f.never = true
			return stays, false
		}
		if !w.skip() {
			return bad, true
		}
		return stays, true
	case Drop:
		w.note(dropped, w.pointer(), rule.name)
		return w.gone()
	case Refuse:
		if !w.skip() {
			return bad, true
		}
		switch value := w.src[start:w.pos]; {
		case isReplacement(value) || string(value) == `"`+mask+`"` || string(value) == "null":
			return stays, true // left by an earlier run, which kept the fact
		case !w.run_.KeepFact:
			w.err = &RefusedError{Member: string(w.frames[0].name), Rule: rule.name}
			return stays, true
		case len(w.frames) > 1 || container:
			w.edits = append(w.edits, edit{start, w.pos, replacement(w.pos - start)})
			w.note(omitted, w.pointer(), rule.name)
			return stays, true
		}
		w.pos = start
	}
	if container {
		return stays, false // each of its values
	}
	return w.changed(rule)
}

func (w *walker) gone() (result, bool) {
	if !w.skip() {
		return bad, true
	}
	return goes, true
}

// changed puts something else in the place of a scalar.
func (w *walker) changed(rule *field) (result, bool) {
	start := w.pos
	var value []byte
	if w.src[start] == '"' {
		text, ok := w.peek()
		if !ok {
			return bad, true
		}
		value = text
	}
	if !w.skip() {
		return bad, true
	}
	if value == nil {
		if value = w.src[start:w.pos]; string(value) == "null" {
			return stays, true
		}
	} else if len(value) == 0 {
		return stays, true
	}
	var out []byte
	kind := masked
	if rule.action == Hash || rule.action == Pseudonymise {
		out, kind = w.token_(nil, value, rule.action)
	} else {
		out = []byte(mask)
	}
	if string(out) == string(value) {
		return stays, true
	}
	quoted, ok := entry.AppendString(nil, string(out))
	if !ok {
		return bad, true
	}
	w.edits = append(w.edits, edit{start, w.pos, quoted})
	w.note(kind, w.pointer(), rule.name)
	return stays, true
}

// peek gives the text of the string at pos and stays there.
func (w *walker) peek() (text []byte, ok bool) {
	pos := w.pos
	text, escaped, ok := w.token()
	w.pos = pos
	if ok && escaped {
		text, ok = appendUnescaped(nil, text)
	}
	return text, ok
}

// replacement stands for a value that a rule refuses and whose event is kept.
func replacement(bytes int) []byte {
	return append(strconv.AppendInt([]byte(replaced), int64(bytes), 10), '}')
}

const replaced = `{"omitted":"refused by policy","bytes":`

func isReplacement(text []byte) bool {
	if len(text) < len(replaced)+2 || string(text[:len(replaced)]) != replaced {
		return false
	}
	n, err := strconv.Atoi(string(text[len(replaced) : len(text)-1]))
	return err == nil && text[len(text)-1] == '}' && n >= 0
}
