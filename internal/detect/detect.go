// Package detect finds what must not enter a trail, or must be known for what
// it is, in one text: card numbers and what belongs to them, secrets, personal
// data. It is pure: no I/O, no clock, no state between calls; a Set is safe for
// concurrent use.
package detect

// Class says what a finding is, and so what is done with it by default.
type Class uint8

const (
	Card         Class = iota + 1 // a card number: masked to its last four digits
	CardSecurity                  // security code, PIN, track: dropped, never kept in any form
	Secret                        // a key, token or password: masked
	Personal                      // of a person: marked, changed by profile or rule
)

// Match is one finding: a byte range of the text, the rule that found it, and
// its class.
type Match struct {
	Start, End int
	Rule       string
	Class      Class
	keep       uint8 // bytes of the start that AppendMask leaves, a vendor's public prefix
}

// Key is what a member's name says about the values under it.
type Key struct {
	Rule  string
	Class Class
	kind  keyKind
}

type keyKind uint8

// Set is a choice of detectors. Make one with New or Default.
type Set struct{}

// Options of New. The zero value is every built-in rule.
type Options struct {
	Off    []string // built-in rules to leave out; an unknown name is an error
	Custom []Custom
}

// Custom is a detector of the user's own: a pattern, names, or both.
type Custom struct {
	Rule    string // name, as it stands in Match.Rule
	Class   Class
	Pattern string   // RE2; the first group is the finding where there is one
	Names   []string // member names whose values are the finding
}

// New makes a set.
func New(o Options) (*Set, error) { return &Set{}, nil }

// Default is every built-in rule.
func Default() *Set { return &Set{} }

// Text appends what it finds in text, a decoded string, in order and not
// overlapping; of overlapping findings the stronger class wins.
func (s *Set) Text(dst []Match, text []byte) []Match { return dst }

// Number says whether a JSON number, as written, is a card number.
func (s *Set) Number(literal []byte) (Match, bool) { return Match{}, false }

// Name says what the values under a member of that name are.
func (s *Set) Name(name []byte) (Key, bool) { return Key{}, false }

// Value is Text for a scalar under a member for which Name gave k.
func (s *Set) Value(dst []Match, k Key, text []byte) []Match { return dst }

// AppendMask appends what stands for the finding m of text: "****", for cards
// with the last four digits, for keys with a public prefix after that prefix.
func AppendMask(dst []byte, m Match, text []byte) []byte { return append(dst, "****"...) }
