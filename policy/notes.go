package policy

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/kaizen-audit/kaizen-audit/entry"
)

// kind is what was done, as the entry's member policy names it.
type kind uint8

const (
	masked kind = iota
	dropped
	hashed
	pseudonymised
	sealed
	omitted
	marked
	flagged
	classified
	subjects
	kinds
)

var kindNames = [kinds]string{"masked", "dropped", "hashed", "pseudonymised", "sealed", "omitted", "marked", "flagged", "classified", "subjects"}

func kindOf(a Action) kind {
	switch a {
	case Hash:
		return hashed
	case Pseudonymise:
		return pseudonymised
	case Seal:
		return sealed
	case Mark:
		return marked
	}
	return masked
}

// note is something that was done. Its pointer may share the walker's memory.
type note struct {
	kind    kind
	pointer string
	rule    string
}

func (w *walker) note(k kind, pointer, rule string) {
	w.notes = append(w.notes, note{k, pointer, rule})
}

// addNotes takes the notes of an earlier run.
func (w *walker) addNotes(text []byte) {
	if len(text) == 0 {
		return
	}
	var was map[string]json.RawMessage
	if json.Unmarshal(text, &was) != nil {
		return
	}
	for k, name := range kindNames {
		var pointers []string
		_ = json.Unmarshal(was[name], &pointers)
		for _, p := range pointers {
			w.notes = append(w.notes, note{kind: kind(k), pointer: p})
		}
	}
	rules := map[string][]string{}
	_ = json.Unmarshal(was["rules"], &rules)
	for _, rule := range slices.Sorted(maps.Keys(rules)) {
		for _, p := range rules[rule] {
			w.notes = append(w.notes, note{kind: kinds, pointer: p, rule: rule})
		}
	}
	w.prior = len(w.notes)
}

const (
	// manyNotes is from how many on places in arrays are noted together: an
	// entry must not be longer for what was done to it.
	manyNotes = 64
	// longPointer is from which length on a pointer is noted by its member only.
	longPointer = 256
)

// list is one member of policy: a kind's pointers, or a rule's.
type list struct {
	name     string
	pointers []string
	prior    int // so many are of an earlier run
}

// begin makes it empty; its memory is used again.
func (l *list) begin(name string) {
	if len(l.pointers) > 0 {
		clear(l.pointers)
		l.pointers, l.prior = l.pointers[:0], 0
	}
	l.name = name
}

// add notes a pointer, unless one of an earlier run stands for it.
func (l *list) add(pointer string, prior bool) {
	if slices.Contains(l.pointers, pointer) {
		return
	}
	if was := l.pointers[:l.prior]; !prior && len(was) > 0 && (slices.Contains(was, withoutIndexes(pointer)) || slices.Contains(was, memberOf(pointer))) {
		return
	}
	l.pointers = append(l.pointers, pointer)
	if prior {
		l.prior = len(l.pointers)
	}
}

// append appends the member that the list is.
func (l *list) append(dst []byte) []byte {
	dst, _ = entry.AppendString(dst, l.name)
	dst = append(dst, ':')
	next := byte('[')
	for _, p := range l.pointers {
		dst, _ = entry.AppendString(append(dst, next), p)
		next = ','
	}
	return append(dst, ']')
}

// lists are what notes are gathered in.
type lists struct {
	kinds [kinds]list
	rules []list
}

// rule gives the list of a rule.
func (l *lists) rule(name string) *list {
	for i := range l.rules {
		if l.rules[i].name == name {
			return &l.rules[i]
		}
	}
	n := len(l.rules)
	if n < cap(l.rules) {
		l.rules = l.rules[:n+1]
	} else {
		l.rules = append(l.rules, list{})
	}
	l.rules[n].begin(name)
	return &l.rules[n]
}

func memberOf(pointer string) string {
	if at := strings.IndexByte(pointer[1:], '/'); at >= 0 {
		return pointer[:at+1]
	}
	return pointer
}

// withoutIndexes has * for what may be an index.
func withoutIndexes(pointer string) string {
	parts := strings.Split(pointer, "/")
	for i, p := range parts {
		if p != "" && strings.Trim(p, "0123456789") == "" {
			parts[i] = "*"
		}
	}
	return strings.Join(parts, "/")
}

func same(pointer string) string { return pointer }

// shorten is how pointers are noted, so that there are not too many.
func (w *walker) shorten() func(string) string {
	if len(w.notes) <= manyNotes {
		return same
	}
	for _, how := range []func(string) string{same, withoutIndexes} {
		seen := map[string]bool{}
		for _, n := range w.notes {
			seen[how(n.pointer)] = true
		}
		if len(seen) <= manyNotes {
			return how
		}
	}
	return memberOf
}

// appendNotes appends the members of policy that the notes are, as an object;
// nothing where there are none.
func (w *walker) appendNotes(dst []byte) []byte {
	if len(w.notes) == 0 {
		return dst
	}
	l := &w.lists
	for k := range l.kinds {
		l.kinds[k].begin(kindNames[k])
	}
	l.rules = l.rules[:0]
	how := w.shorten()
	for i, n := range w.notes {
		p := n.pointer
		if p == "" {
			continue
		}
		if len(p) > longPointer {
			p = memberOf(p)
		}
		p = how(p)
		if n.kind < kinds {
			l.kinds[n.kind].add(p, i < w.prior)
		}
		if n.rule != "" {
			l.rule(n.rule).add(p, i < w.prior)
		}
	}
	next := byte('{')
	for k := range l.kinds {
		if len(l.kinds[k].pointers) > 0 {
			dst = l.kinds[k].append(append(dst, next))
			next = ','
		}
	}
	if len(l.rules) == 0 {
		return append(dst, '}')
	}
	slices.SortFunc(l.rules, func(a, b list) int { return strings.Compare(a.name, b.name) })
	dst = append(append(dst, next), `"rules":`...)
	next = '{'
	for i := range l.rules {
		dst = l.rules[i].append(append(dst, next))
		next = ','
	}
	return append(dst, '}', '}')
}
