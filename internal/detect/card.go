package detect

// Card numbers: ISO/IEC 7812. The ranges are those of the issuers' published
// prefixes; wider where a scheme is open (Maestro has all of 6).
const (
	minCard = 12 // Maestro
	maxCard = 19 // ISO/IEC 7812-1
	// What a name promises to be a card number is taken for one from here on:
	// mistyped and cut ones hold as much of the card.
	minCardKeyDigits = 8
)

// number is the digits of a candidate.
type number struct {
	d [maxCard]byte // values, not characters
	n int
}

func (x *number) push(c byte) bool {
	if x.n == len(x.d) {
		return false
	}
	x.d[x.n] = c - '0'
	x.n++
	return true
}

// prefix is the value of the first n digits.
func (x *number) prefix(n int) int {
	v := 0
	for _, d := range x.d[:n] {
		v = v*10 + int(d)
	}
	return v
}

// issued reports whether a scheme gives out numbers of this beginning and
// length.
func (x *number) issued() bool {
	n := x.n
	if n < minCard || n > maxCard {
		return false
	}
	p2, p3, p4 := x.prefix(2), x.prefix(3), x.prefix(4)
	switch x.d[0] {
	case 0: // Maestro, as makers of test data have it
		return p4 == 604
	case 1: // JCB, 15 digits in practice. UATP, all of 1, is left out: every time stamp is in it
		return p4 == 1800 && n >= 15
	case 2: // JCB; Mir 2200-2204 and Borica 2205; Mastercard
		return p4 == 2131 && n >= 15 || p4 >= 2200 && p4 <= 2205 && n >= 16 || p4 >= 2221 && p4 <= 2720 && n == 16
	case 3:
		switch {
		case p2 == 34 || p2 == 37: // American Express
			return n == 15
		case p2 == 35: // JCB 3528-3589, RuPay 353 and 356; makers of test data use all of 35
			return n >= 16
		case p3 <= 305 || p3 == 309 || p2 == 36 || p2 == 38 || p2 == 39: // Diners Club
			return n == 14 || n == 16 || n == 19
		}
	case 4: // Visa, Elo, and Switch with Maestro's lengths
		return n == 13 || n == 16 || n >= 18 || x.prefix(6) == 493698
	case 5: // Mastercard; Maestro, Verve, Elo, Dankort
		if p2 >= 51 && p2 <= 55 {
			return n == 16
		}
		return true
	case 6: // Maestro, Discover, UnionPay, RuPay, Verve, Elo, Hipercard, Troy, InstaPayment, UkrCard
		return true
	case 8: // UnionPay 810-817; RuPay 81, 82; Uzcard
		return p3 >= 810 && p3 <= 817 && n >= 14 || (p2 == 82 || p2 == 81 || p4 == 8600) && n == 16
	case 9: // Troy, Humo, Napas
		return (p4 == 9792 || p4 == 9860) && n == 16 || p4 == 9704 && n >= 16
	}
	return false
}

// luhn is the check of ISO/IEC 7812-1 annex B. One repeated digit is no number:
// sixteen zeros would pass.
func (x *number) luhn() bool {
	sum, same := 0, true
	for i := 0; i < x.n; i++ {
		d := int(x.d[x.n-1-i])
		same = same && x.d[i] == x.d[0]
		if i&1 == 1 {
			d *= 2
			if d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return sum%10 == 0 && !same
}

// unchecked reports whether it is of a scheme whose numbers need not have the
// check digit: UnionPay's of 16 and 19 digits, of which some are issued
// without. Its other lengths stay under Luhn.
func (x *number) unchecked() bool {
	if x.prefix(2) != 62 || x.n != 16 && x.n != 19 {
		return false
	}
	// Not the account that nobody has: 6200000000000000.
	for _, d := range x.d[3:x.n] {
		if d != x.d[2] {
			return true
		}
	}
	return false
}

func (x *number) card() bool { return x.issued() && (x.luhn() || x.unchecked()) }

// Number says whether a JSON number, as written, is a card number: an integer,
// or one that a program wrote as a float (4111111111111111.0, 4.111e15).
func (s *Set) Number(literal []byte) (Match, bool) {
	if len(literal) < minCard || !s.on[ruleCard] {
		return Match{}, false
	}
	var x number
	point, exp := -1, 0
	for i := 0; i < len(literal); i++ {
		c := literal[i]
		switch {
		case isDigit(c):
			if x.n == maxCard {
				// Only zeros behind the point may follow.
				if c != '0' || point < 0 {
					return Match{}, false
				}
				continue
			}
			x.push(c)
		case c == '.' && point < 0:
			point = x.n
		case c == 'e' || c == 'E':
			if i+1 < len(literal) && literal[i+1] == '+' {
				i++
			}
			for i++; i < len(literal); i++ {
				if !isDigit(literal[i]) || exp > maxCard {
					return Match{}, false
				}
				exp = exp*10 + int(literal[i]-'0')
			}
		default:
			return Match{}, false // a sign: no card number is negative
		}
	}
	if point >= 0 || exp > 0 {
		if point < 0 {
			point = x.n
		}
		point += exp
		if point > maxCard {
			return Match{}, false
		}
		for x.n < point {
			x.push('0')
		}
		for x.n > point {
			if x.d[x.n-1] != 0 {
				return Match{}, false
			}
			x.n--
		}
	}
	if !x.card() {
		return Match{}, false
	}
	return Match{Start: 0, End: len(literal), Rule: rules[ruleCard].Rule, Class: Card}, true
}

// cardWords announce a card number; behind one of them a number of an issuer's
// range is taken even where its check digit is wrong.
var cardWords = []string{"card", "credit", "debit", "visa", "mastercard", "maestro", "amex", "american express", "discover", "diners", "jcb", "unionpay", "pan$", "cc$", "ccnum", "cardnum"}

// gluedWords are what may stand before a card number without a space.
var gluedWords = []string{"card", "pan", "visa", "mastercard", "maestro", "amex", "jcb", "unionpay", "cc", "number", "num", "no", "nr"}

// glued reports whether the letters that end at i end with a card word.
func (sc *scan) glued(i int) bool {
	for _, w := range gluedWords {
		if hasFold(sc.text[:i], i-len(w), w) {
			return true
		}
	}
	return false
}

// sepLen is the length of a separator of digit groups at i, with its kind: a
// space, a hyphen, a dot, or one of the typographic spaces and hyphens that
// word processors put there. 0 is none.
func sepLen(text []byte, i int) (int, byte) {
	if i >= len(text) {
		return 0, 0
	}
	switch c := text[i]; c {
	case ' ', '-', '.':
		return 1, c
	case '+': // a space in a form's encoding
		return 1, ' '
	case '%':
		if hasAt(text, i, "%20") {
			return 3, ' '
		}
		if hasFold(text, i, "%2d") {
			return 3, '-'
		}
	case 0xC2:
		if hasAt(text, i, "\u00a0") {
			return 2, ' '
		}
	case 0xE2:
		if i+2 < len(text) && text[i+1] == 0x80 {
			switch c := text[i+2]; {
			case c >= 0x80 && c <= 0x8B || c == 0xAF: // U+2000 to U+200B, U+202F
				return 3, ' '
			case c >= 0x90 && c <= 0x94: // U+2010 to U+2014
				return 3, '-'
			}
		}
		if hasAt(text, i, "\u2212") {
			return 3, '-'
		}
	}
	return 0, 0
}

// cardAt looks for a card number whose digits begin at i, where a group of
// digits does, and returns its end; 0 is none.
//
// A number that stands alone is taken in any grouping. In a longer row of
// groups, in which any window might be meant, only a regular grouping is: one
// group, or groups of two and more after a first of four and more, with one
// kind of separator; behind a card word again any.
func (sc *scan) cardAt(i int) int {
	text := sc.text
	var x number
	row := sc.inRow(i)
	end, groups, first := 0, 0, 0
	sep := byte(0)
	regular, word := true, -1
	announced := func() bool {
		if word < 0 {
			word = 0
			if sc.wordBefore(i, cardWords) {
				word = 1
			}
		}
		return word == 1
	}
	for p := i; ; {
		q := p
		for q < len(text) && isDigit(text[q]) {
			if !x.push(text[q]) {
				return end
			}
			q++
		}
		groups++
		if groups == 1 {
			first = q - p
		}
		k, kind := sepLen(text, q)
		more := k > 0 && q+k < len(text) && isDigit(text[q+k])
		if groups > 1 && (first < 4 || q-p < 2 && more) {
			regular = false
		}
		if x.n >= minCard && sc.cardEnds(q) && x.issued() {
			shaped := groups == 1 || regular
			alone := !row && !more
			valid := x.luhn() || shaped && x.unchecked()
			switch {
			case valid && (shaped || alone || announced()):
				end = q
			case !valid && end == 0 && x.n > minCard && (shaped || alone) && announced():
				end = q
			}
		}
		if !more {
			return end
		}
		if groups == 1 {
			sep = kind
		}
		if kind != sep || kind == '.' && (q-p != 4 || first != 4) {
			// Another separator: the row goes on, this number need not.
			regular = false
			if kind == '.' {
				return end
			}
		}
		p = q + k
	}
}

// inRow reports whether a group of digits stands before i with one separator
// between.
func (sc *scan) inRow(i int) bool {
	if i < 2 {
		return false
	}
	switch c := sc.text[i-1]; c {
	case ' ', '-', '.':
		return isDigit(sc.text[i-2])
	}
	return false
}

// cardEnds reports whether a card number may end at q: not inside a token of
// letters and digits as hashes are, nor before a fraction.
func (sc *scan) cardEnds(q int) bool {
	c, next := sc.byteAt(q), sc.byteAt(q+1)
	switch {
	case c == '.' && isDigit(next):
		// What a program printed as a float is still the number.
		return next == '0' && !isDigit(sc.byteAt(q+2))
	case class[c]&bHex != 0:
		return c == 'D' && isDigit(next) || c == 'e' && (hasAt(sc.text, q, "exp") || hasAt(sc.text, q, "ending"))
	case isLetter(c):
		return c != 'x' && c != 'X'
	}
	return true
}

// cardStarts reports whether a card number may begin at i.
func (sc *scan) cardStarts(i int) bool {
	if i == 0 {
		return true
	}
	switch c := sc.text[i-1]; {
	case isLetter(c):
		return sc.glued(i) || (c == 'B' || c == 'b') && sc.byteAt(i-2) == '%'
	case c == '.' || c == ',':
		return i < 2 || !isDigit(sc.text[i-2]) // a fraction
	case c == '+':
		// A phone number has no more than 15 digits, ITU-T E.164.
		n := 0
		for k := i; k < len(sc.text) && k < i+40; {
			if isDigit(sc.text[k]) {
				n++
				k++
				continue
			}
			l, _ := sepLen(sc.text, k)
			if l == 0 {
				break
			}
			k += l
		}
		return n >= 16
	case c == '-':
		return !sc.inUUID(i)
	}
	return !sc.uuidAt(i)
}

// inUUID reports whether the group of digits at i, behind a hyphen, is part of
// a UUID, 8-4-4-4-12 hexadecimal digits.
func (sc *scan) inUUID(i int) bool {
	start := i
	for start > 0 && i-start < 36 && (sc.text[start-1] == '-' || class[sc.text[start-1]]&bHex != 0) {
		start--
	}
	return sc.uuidAt(start)
}

func (sc *scan) uuidAt(i int) bool {
	if i+36 > len(sc.text) {
		return false
	}
	for k, c := range sc.text[i : i+36] {
		switch k {
		case 8, 13, 18, 23:
			if c != '-' {
				return false
			}
		default:
			if class[c]&bHex == 0 {
				return false
			}
		}
	}
	return true
}

// track is the range of the magnetic stripe data around the card number at
// i to end, ISO/IEC 7813; false where there is none.
func (sc *scan) track(i, end int) (int, int, bool) {
	text := sc.text
	switch c := sc.byteAt(end); {
	case c == '^': // track 1: %B PAN ^ name ^ data ?
		k := end + 1
		for k < len(text) && k-end < 28 && text[k] != '^' && text[k] != '\n' {
			k++
		}
		if sc.byteAt(k) != '^' || digitsEnd(text, k+1)-k < 5 {
			return 0, 0, false
		}
		k = digitsEnd(text, k+1)
		for k < len(text) && k-end < 107 && text[k] != '?' && (isAlnum(text[k]) || text[k] == ' ') {
			k++
		}
		if sc.byteAt(k) == '?' {
			k++
		}
		if i > 0 && (text[i-1] == 'B' || text[i-1] == 'b') {
			i--
			if i > 0 && text[i-1] == '%' {
				i--
			}
		}
		return i, k, true
	case c == '=' || c == 'D' || c == 'd': // track 2: ; PAN = data ?, in EMV tag 57 with D
		k := digitsEnd(text, end+1)
		if k-end < 8 { // expiry and service code
			return 0, 0, false
		}
		if c != '=' && sc.byteAt(k) == 'F' {
			k++
		}
		if sc.byteAt(k) == '?' {
			k++
		}
		if i > 0 && text[i-1] == ';' {
			i--
		}
		return i, k, true
	}
	return 0, 0, false
}

// besideBytes is how far from a card number its security code and PIN are
// looked for: "4111 1111 1111 1111, expires 12/27, CVV is 123".
const besideBytes = 80

var (
	besideCodes = []string{"cvv2", "cvc2", "cvv", "cvc", "cvn", "csc", "cid", "cav2", "security code", "verification code", "card code", "code"}
	besidePINs  = []string{"pin", "p.i.n."}
)

// besideCards looks around each card number for the security code and PIN that
// only stand beside one: behind their words, or behind number and expiry.
func (sc *scan) besideCards() {
	text := sc.text
	// Where the words have been looked for: windows of neighbours overlap.
	done := 0
	n := len(sc.dst)
	for at := sc.base; at < n; at++ {
		m := sc.dst[at]
		if m.Class != Card {
			continue
		}
		sc.codeBehind(m.End)
		for k := max(done, m.Start-besideBytes); k < min(len(text), m.End+besideBytes); k++ {
			done = k + 1
			if !isLetter(text[k]) || k > 0 && isLetter(text[k-1]) {
				continue
			}
			switch lower(text[k]) {
			case 'c', 's', 'v':
				sc.codeAfterWord(k, besideCodes, ruleCVV, 3, 4)
			case 'p':
				sc.codeAfterWord(k, besidePINs, rulePIN, 4, 12)
			}
		}
	}
}

// codeAfterWord notes the digits behind one of words at k.
func (sc *scan) codeAfterWord(k int, words []string, r rule, least, most int) {
	for _, w := range words {
		if !hasFold(sc.text, k, w) || isLetter(sc.byteAt(k+len(w))) {
			continue
		}
		p := sc.afterWord(k + len(w))
		e := digitsEnd(sc.text, p)
		if e-p >= least && e-p <= most && !isAlnum(sc.byteAt(e)) && !(sc.byteAt(e) == '/' && isDigit(sc.byteAt(e+1))) {
			sc.dst = append(sc.dst, Match{Start: p, End: e, Rule: rules[r].Rule, Class: CardSecurity})
			if !sc.s.on[r] {
				sc.dst = sc.dst[:len(sc.dst)-1]
			}
			sc.unsorted = true
		}
		return
	}
}

// afterWord skips what may stand between a word and its value: spaces, one of
// :=#, brackets, quotes, "is", "code", "number".
func (sc *scan) afterWord(p int) int {
	for range 4 {
		for c := sc.byteAt(p); c == ' ' || c == '\t' || c == ':' || c == '=' || c == '#' || c == '"' || c == '\'' || c == '(' || c == '\\' || c == '>' || c == '-'; c = sc.byteAt(p) {
			p++
		}
		switch {
		case hasFold(sc.text, p, "is ") || hasFold(sc.text, p, "no "):
			p += 3
		case hasFold(sc.text, p, "no."):
			p += 3
		case hasFold(sc.text, p, "code"):
			p += 4
		case hasFold(sc.text, p, "number"):
			p += 6
		case hasFold(sc.text, p, "block"):
			p += 5
		default:
			return p
		}
	}
	return p
}

// codeBehind notes the security code behind a card number and its expiry, as
// lists of cards have it: 4111111111111111|12|2027|123, ... 12/27 123.
func (sc *scan) codeBehind(p int) {
	text := sc.text
	part := func(p int) (int, int) { // the next run of digits after one or two separators
		s := p
		for s < len(text) && s-p < 3 && (text[s] == ' ' || text[s] == '|' || text[s] == '/' || text[s] == ',' || text[s] == ';' || text[s] == ':' || text[s] == '-' || text[s] == '\t') {
			s++
		}
		if s == p {
			return p, p
		}
		return s, digitsEnd(text, s)
	}
	m0, m1 := part(p)
	if m1-m0 != 2 && m1-m0 != 4 {
		return
	}
	if month := int(text[m0]-'0')*10 + int(text[m0+1]-'0'); month < 1 || month > 12 {
		return
	}
	if m1-m0 == 2 {
		y0, y1 := part(m1)
		if y1-y0 != 2 && y1-y0 != 4 {
			return
		}
		m1 = y1
	}
	c0, c1 := part(m1)
	if (c1-c0 == 3 || c1-c0 == 4) && !isAlnum(sc.byteAt(c1)) && sc.s.on[ruleCVV] {
		sc.dst = append(sc.dst, Match{Start: c0, End: c1, Rule: rules[ruleCVV].Rule, Class: CardSecurity})
		sc.unsorted = true
	}
}

// cvvWord looks, at a v, for cvv, cvc and their kin with digits behind.
func (sc *scan) cvvWord(i int) int {
	text := sc.text
	if i == 0 || lower(text[i-1]) != 'c' || i > 1 && isLetter(text[i-2]) && !(class[text[i-1]]&bUpper != 0 && class[text[i-2]]&bLower != 0) {
		return i + 1
	}
	switch lower(sc.byteAt(i + 1)) {
	case 'v', 'c', 'n', 'd':
	default:
		return i + 1
	}
	p := i + 2
	if sc.byteAt(p) == '2' {
		p++
	}
	if isLetter(sc.byteAt(p)) {
		return i + 1
	}
	p = sc.afterWord(p)
	e := digitsEnd(text, p)
	if (e-p == 3 || e-p == 4) && !isAlnum(sc.byteAt(e)) && sc.add(p, e, ruleCVV, 0) {
		return e
	}
	return i + 1
}
