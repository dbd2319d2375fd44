// Package detect finds what must not enter a trail, or must be known for what
// it is, in one text: card numbers and what belongs to them, secrets, personal
// data. What each rule finds, by which check, and what it misses is the table
// of docs/detectors.md.
//
// It is pure: no I/O, no clock, no state between calls, and a Set is safe for
// concurrent use. A text is read once. A table says of each byte whether
// anything could be found around it ("trigger"): the rare bytes of which keys,
// addresses and assignments are made, and the first digit of a number. Whoever
// is called there looks a bounded distance back and forth, or consumes what it
// reads, so that no text takes more than time in proportion to its length.
// Nothing is allocated but the room that dst lacks.
//
// Always true of what Text, Value and Number give: 0 <= Start < End <= length,
// in order, not overlapping.
package detect

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
)

// Class says what a finding is, and so what is done with it by default.
type Class uint8

// The classes. PCI DSS v4.0.1 3.3.1 forbids to keep what is CardSecurity, even
// encrypted; 3.5.1 allows a truncated card number.
const (
	Card         Class = iota + 1 // a card number: masked to its last four digits
	CardSecurity                  // security code, PIN, track: dropped, never kept in any form
	Secret                        // a key, token or password: masked
	Personal                      // of a person: marked, changed by profile or rule
)

var classNames = [...]string{Card: "card", CardSecurity: "card_security", Secret: "secret", Personal: "personal"}

// String is the class's name in configuration and documents.
func (c Class) String() string {
	if c >= Card && int(c) < len(classNames) {
		return classNames[c]
	}
	return fmt.Sprintf("class(%d)", uint8(c))
}

// rank orders overlapping findings: what must go entirely before what may stay
// in part.
func (c Class) rank() int { return [...]int{0, 3, 4, 2, 1}[c] }

// Match is one finding: a byte range of the text, the rule that found it, and
// its class.
type Match struct {
	Start, End int
	Rule       string
	Class      Class
	keep       uint8 // bytes of the start that AppendMask leaves: a vendor's public prefix
}

// Set is a choice of detectors. Make one with New or Default.
type Set struct {
	on     [numRules]bool
	names  map[string]nameEntry
	ends   nameEnds
	custom []customPattern
}

// Options of New. The zero value is every built-in rule.
type Options struct {
	Off    []string // built-in rules to leave out, by name; an unknown one is an error
	Custom []Custom
}

// Custom is a detector of the user's own: a pattern, names, or both.
type Custom struct {
	Rule    string   // its name, as it then stands in Match.Rule; not one of the built-in
	Class   Class    // zero is Secret
	Pattern string   // RE2 syntax; the first group is the finding where there is one
	Names   []string // member names, in any case and with any separators, whose values are the finding
}

type customPattern struct {
	rule  string
	class Class
	re    *regexp.Regexp
}

var defaultSet = must(New(Options{}))

func must(s *Set, err error) *Set {
	if err != nil {
		panic(err)
	}
	return s
}

// Default is every built-in rule.
func Default() *Set { return defaultSet }

// New makes a set. An error names the field that is wrong.
func New(o Options) (*Set, error) {
	s := &Set{names: make(map[string]nameEntry, len(builtinNames))}
	for i := range s.on {
		s.on[i] = true
	}
	for _, off := range o.Off {
		r := slices.IndexFunc(rules[:], func(r Info) bool { return r.Rule == off })
		if r < 0 {
			return nil, fmt.Errorf("detectors: off: no rule %q", off)
		}
		s.on[r] = false
	}
	for name, e := range builtinNames {
		if s.on[e.rule] {
			s.names[name] = nameEntry{Key{Rule: rules[e.rule].Rule, Class: rules[e.rule].Class, kind: e.kind}}
			s.ends.add(name)
		}
	}
	for i, c := range o.Custom {
		if c.Rule == "" || slices.ContainsFunc(rules[:], func(r Info) bool { return r.Rule == c.Rule }) {
			return nil, fmt.Errorf("detectors: custom[%d]: rule %q: it needs a name of its own", i, c.Rule)
		}
		if c.Class == 0 {
			c.Class = Secret
		}
		if c.Class > Personal {
			return nil, fmt.Errorf("detectors: custom[%d]: %s: unknown class", i, c.Rule)
		}
		if c.Pattern == "" && len(c.Names) == 0 {
			return nil, fmt.Errorf("detectors: custom[%d]: %s: neither pattern nor names", i, c.Rule)
		}
		if c.Pattern != "" {
			re, err := regexp.Compile(c.Pattern)
			if err != nil {
				return nil, fmt.Errorf("detectors: custom[%d]: %s: %w", i, c.Rule, err)
			}
			s.custom = append(s.custom, customPattern{c.Rule, c.Class, re})
		}
		for _, name := range c.Names {
			var b nameBuf
			b.split([]byte(name))
			if b.n == 0 {
				return nil, fmt.Errorf("detectors: custom[%d]: %s: name %q has neither letter nor digit", i, c.Rule, name)
			}
			joined := string(b.buf[:b.n])
			s.names[joined] = nameEntry{Key{Rule: c.Rule, Class: c.Class, kind: kindWhole}}
			s.ends.add(joined)
		}
	}
	return s, nil
}

// Text appends what it finds in text, a decoded string, in order and not
// overlapping; of overlapping findings the stronger class wins.
func (s *Set) Text(dst []Match, text []byte) []Match {
	i := 0
	for i < len(text) && (trigger[text[i]] == 0 || idle(text, i)) {
		i++
	}
	if i == len(text) && s.custom == nil {
		return dst
	}
	sc := scan{s: s, text: text, dst: dst, base: len(dst)}
	sc.run(i)
	return sc.finish()
}

// idle reports whether who is called for the byte at i would turn it down at once.
// Most texts are short, and have no other trigger than these.
func idle(text []byte, i int) bool {
	switch trigger[text[i]] {
	case tV:
		return i == 0 || text[i-1]|0x20 != 'c'
	case tUnder:
		return i == 0 || prefixes.under[text[i-1]] == nil
	case tDot:
		return i == 0 || i+1 == len(text) || !isWord(text[i-1]) || !isWord(text[i+1])
	}
	return false
}

// scan is one pass over one text.
type scan struct {
	s        *Set
	text     []byte
	dst      []Match
	base     int  // where this text's findings begin in dst
	last     int  // end of the last finding; nobody looks back past it
	unsorted bool // findings were appended out of order
	aws      bool // an AWS access key id was found
	card     bool // a card number was found
	pemEnd   int  // what endMark found last
}

func (sc *scan) run(i int) {
	text := sc.text
	for i < len(text) {
		t := trigger[text[i]]
		if t == 0 {
			i++
			continue
		}
		switch t {
		case tDigit:
			i = sc.digits(i)
		case tDash:
			i = sc.dash(i)
		case tUnder:
			i = sc.prefixed(i)
		case tDot:
			i = sc.dot(i)
		case tColon:
			i = sc.colon(i)
		case tEquals:
			i = sc.equals(i)
		case tAt:
			i = sc.at(i)
		case tTilde:
			i = sc.tilde(i)
		case tUpper:
			i = sc.upper(i)
		case tV:
			i = sc.cvvWord(i)
		}
	}
}

// finish looks beside what was found, runs the custom patterns, and puts the
// findings in order where they are not.
func (sc *scan) finish() []Match {
	if sc.card {
		sc.besideCards()
	}
	if sc.aws {
		sc.besideAWS()
	}
	for i := range sc.s.custom {
		c := &sc.s.custom[i]
		for _, at := range c.re.FindAllSubmatchIndex(sc.text, -1) {
			start, end := at[0], at[1]
			if len(at) > 3 && at[2] >= 0 {
				start, end = at[2], at[3]
			}
			if start < end {
				sc.dst = append(sc.dst, Match{Start: start, End: end, Rule: c.rule, Class: c.class})
				sc.unsorted = true
			}
		}
	}
	if sc.unsorted {
		sc.dst = sc.dst[:sc.base+len(resolve(sc.dst[sc.base:]))]
	}
	return sc.dst
}

// resolve sorts and leaves of overlapping findings the stronger, of equally
// strong ones the first and longer. What a weaker one covers beyond the
// stronger is kept as a shorter finding where it is not personal: half of a
// secret is still one.
func resolve(m []Match) []Match {
	slices.SortFunc(m, func(a, b Match) int {
		return cmp.Or(a.Start-b.Start, b.Class.rank()-a.Class.rank(), b.End-a.End)
	})
	out := m[:0]
	for _, x := range m {
		for {
			n := len(out)
			if n == 0 || out[n-1].End <= x.Start {
				break
			}
			p := &out[n-1]
			if p.Class.rank() >= x.Class.rank() {
				// The earlier one stays; of the later its tail.
				x.Start, x.keep = p.End, 0
				if x.Class == Personal {
					x.Start = x.End
				}
				break
			}
			// The later one is stronger: the earlier keeps its head.
			if p.Class != Personal && p.Start < x.Start {
				p.End = x.Start
				break
			}
			out = out[:n-1]
		}
		if x.Start < x.End {
			out = append(out, x)
		}
	}
	return out
}

// add notes a finding of a built-in rule; false where the rule is off.
func (sc *scan) add(start, end int, r rule, keep int) bool {
	if !sc.s.on[r] || start >= end {
		return false
	}
	sc.dst = append(sc.dst, Match{Start: start, End: end, Rule: rules[r].Rule, Class: rules[r].Class, keep: uint8(keep)})
	if start < sc.last {
		sc.unsorted = true
	}
	sc.last = max(sc.last, end)
	return true
}

// addKey is add for what a name says.
func (sc *scan) addKey(start, end int, k Key) bool {
	if start >= end {
		return false
	}
	sc.dst = append(sc.dst, Match{Start: start, End: end, Rule: k.Rule, Class: k.Class})
	if start < sc.last {
		sc.unsorted = true
	}
	sc.last = max(sc.last, end)
	if k.kind == kindCard || k.kind == kindCardWeak {
		sc.card = true
	}
	return true
}

// maskText stands for what was taken away. Its length says nothing.
const maskText = "****"

// AppendMask appends what stands for the finding m of text: "****"; for a card
// number, with the last four digits; for a key whose vendor begins all of them
// alike, behind that prefix ("ghp_****").
func AppendMask(dst []byte, m Match, text []byte) []byte {
	found := text[m.Start:m.End]
	if m.Class != Card {
		dst = append(dst, found[:min(int(m.keep), len(found))]...)
		return append(dst, maskText...)
	}
	dst = append(dst, maskText...)
	var last [4]byte
	n := 0
	for i := 0; i < len(found); {
		if k, _ := sepLen(found, i); k > 0 {
			i += k // %20 has digits too
			continue
		}
		switch c := found[i]; {
		case isDigit(c):
			copy(last[:], last[1:])
			last[3] = c
			n++
		case c == 'e' || c == 'E':
			return dst // an exponent's digits are not the card's last
		}
		i++
	}
	// Below that the last four would be too much of it.
	if n < minCardKeyDigits {
		return dst
	}
	return append(dst, last[:]...)
}
