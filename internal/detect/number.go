package detect

// digits looks at the number whose first digit is at i and returns where to go
// on: behind what was found, else behind this group of digits. Each group of a
// longer row is looked at on its own, at most maxCard digits ahead.
func (sc *scan) digits(i int) int {
	text := sc.text
	if i > 0 && isLetter(text[i-1]) {
		return sc.digitsInWord(i)
	}
	j := digitsEnd(text, i+1)
	n := j - i
	var c byte
	if j < len(text) {
		c = text[j]
	}
	// UUIDs and ISO dates are the most common numbers of traces, and neither is
	// looked at group by group.
	if n <= 8 && (class[c]&bHex != 0 || c == '-' && n == 8) && sc.uuidAt(i) && (i == 0 || !isWord(text[i-1])) && !isAlnum(sc.byteAt(i+36)) {
		return i + 36
	}
	if n == 4 && c == '-' {
		if end := sc.isoDate(i); end > 0 {
			if i >= sc.last && sc.born(i) && sc.add(i, end, ruleDOB, 0) {
				return end
			}
			return end
		}
	}
	// Most numbers in prose are short and stand alone.
	if n < 5 && (i == 0 || text[i-1] != '+') {
		switch {
		case c == ' ' || c == '-' || c == '.' || c == '+' || c == '/':
			if j+1 >= len(text) || !isDigit(text[j+1]) {
				return sc.shortAlone(i, j, n)
			}
		case c == ')':
		case c >= 0x80 || c == '%':
			if k, _ := sepLen(text, j); k == 0 || !isDigit(sc.byteAt(j+k)) {
				return j
			}
		default:
			return sc.shortAlone(i, j, n)
		}
	}
	if n > maxCard {
		return j
	}
	if c == '|' && n >= 15 && n <= 16 {
		// Facebook's application tokens: the application's id, a bar, a key.
		if end := spanWord(text, j+1); end-j-1 >= 27 && end-j-1 <= 40 && opaque(text[j+1:end]) && sc.add(i, end, ruleService, 0) {
			return end
		}
	}
	if sc.cardStarts(i) {
		if end := sc.cardAt(i); end > 0 {
			if a, b, ok := sc.track(i, end); ok {
				if sc.add(a, b, ruleTrack, 0) {
					return b
				}
			}
			if sc.add(i, end, ruleCard, 0) {
				sc.card = true
				return end
			}
		}
		// Track data is known by its form, whatever the number in it.
		if n >= minCard {
			if c == '^' || c == '=' && i > 0 && text[i-1] == ';' {
				if a, b, ok := sc.track(i, j); ok && sc.add(a, b, ruleTrack, 0) {
					return b
				}
			}
		}
	}
	if sc.inRow(i) && sc.last <= i-2 {
		// Personal numbers are whole rows: this one was looked at before. But a
		// word such as "on the 5 555-123-4567" may have stood there.
		if text[i-1] != ' ' {
			return j
		}
	}
	if end := sc.personalNumber(i, j); end > 0 {
		return end
	}
	return j
}

// isoDate is the end of a date such as 2025-10-26 at i with no further group of
// digits behind; 0 is none.
func (sc *scan) isoDate(i int) int {
	end := i + 10
	if end > len(sc.text) || i > 0 && sc.text[i-1] == '-' {
		return 0
	}
	d := sc.text[i:end]
	if d[7] != '-' || !isDigit(d[5]) || !isDigit(d[6]) || !isDigit(d[8]) || !isDigit(d[9]) || d[5] > '1' || d[8] > '3' || isDigit(sc.byteAt(end)) {
		return 0
	}
	if k, _ := sepLen(sc.text, end); k > 0 && isDigit(sc.byteAt(end+k)) {
		return 0
	}
	return end
}

// shortAlone is digits for a number of up to four digits with no other number
// behind: a year that ends a date of birth.
func (sc *scan) shortAlone(i, j, n int) int {
	if n == 4 && (sc.text[i] == '1' || sc.text[i] == '2') && i >= 6 {
		if c := sc.text[i-1]; (c == ' ' || c == ',') && (isLetter(sc.text[i-2]) || sc.text[i-2] == ',' || sc.text[i-2] == '.') {
			if start := sc.dateInWords(i); start >= sc.last && sc.born(start) && sc.add(start, j, ruleDOB, 0) {
				return j
			}
		}
	}
	return j
}

// digitsInWord is digits where a letter stands before: in identifiers, hashes,
// keys, account numbers.
func (sc *scan) digitsInWord(i int) int {
	text := sc.text
	j := digitsEnd(text, i+1)
	n := j - i
	prev := text[i-1]
	// IBAN: two letters and two digits begin it.
	if n >= 2 && i >= 2 && isLetter(text[i-2]) && (i == 2 || !isAlnum(text[i-3])) {
		if end := sc.ibanAt(i - 2); end > 0 && i-2 >= sc.last && sc.add(i-2, end, ruleIBAN, 0) {
			return end
		}
	}
	// "-----BEGIN" in base64 has a 0 between these.
	if text[i] == '0' && sc.byteAt(i+1) == 't' || prev == 'S' || prev == 'U' {
		if end := sc.base64PEM(i); end > 0 {
			return end
		}
	}
	// Databricks: dapi and hexadecimal digits, of which this is the first figure.
	k := i - 1
	for k > 0 && k > i-32 && class[text[k]]&bHex != 0 && isLetter(text[k]) {
		k--
	}
	if text[k] == 'i' && hasAt(text, k-3, "dapi") {
		if end := sc.databricks(k - 3); end > 0 {
			return end
		}
	}
	if k, _ := sepLen(text, j); (n >= minCard || k > 0) && n <= maxCard && sc.cardStarts(i) {
		if end := sc.cardAt(i); end > 0 {
			if a, b, ok := sc.track(i, end); ok && sc.add(a, b, ruleTrack, 0) {
				return b
			}
			if sc.add(i, end, ruleCard, 0) {
				sc.card = true
				return end
			}
		}
	}
	if n >= minCard && (prev == 'B' || prev == 'b') && sc.byteAt(j) == '^' {
		if a, b, ok := sc.track(i, j); ok && sc.add(a, b, ruleTrack, 0) {
			return b
		}
	}
	return j
}

// row is the groups of digits from i on, as far as personal numbers go.
type row struct {
	digits [16]byte // characters
	n      int
	len    [8]uint8 // digits of each group
	seps   [8]byte  // kind of the separator behind each
	groups int
	end    int
	whole  bool // nothing of the row is left
}

func (sc *scan) rowAt(i int) (r row) {
	text := sc.text
	for p := i; ; {
		q := p
		for q < len(text) && isDigit(text[q]) {
			if r.n == len(r.digits) {
				return r
			}
			r.digits[r.n] = text[q]
			r.n++
			q++
		}
		r.len[r.groups] = uint8(q - p)
		r.groups++
		r.end = q
		k, kind := sepLen(text, q)
		if k == 0 && q < len(text) && text[q] == '/' {
			k, kind = 1, '/'
		}
		if k == 0 || q+k >= len(text) || !isDigit(text[q+k]) {
			r.whole = q == len(text) || !isAlnum(text[q]) || text[q]|0x20 == 'x'
			return r
		}
		if r.groups == len(r.len) {
			return r
		}
		r.seps[r.groups-1] = kind
		p = q + k
	}
}

// shape reports whether the groups are of these lengths with one separator.
func (r *row) shape(lens ...uint8) bool {
	if r.groups < len(lens) {
		return false
	}
	for i, n := range lens {
		if r.len[i] != n || i > 0 && i < len(lens)-1 && r.seps[i] != r.seps[0] {
			return false
		}
	}
	return true
}

var (
	ssnWords   = []string{"ssn", "social security", "socialsecurity"}
	nhsWords   = []string{"nhs"}
	phoneWords = []string{"phone", "telephone", "tel$", "mobile", "cell", "call$", "fax", "whatsapp", "ring$", "dial", "sms$", "desk:", "contact", "reach", "messages", "answering"}
	// Behind a number: "416 60 039 office", "07700 063 966-Fax".
	phoneKinds = []string{"office", "fax", "mobile", "cell", "home", "work", "phone", "desk"}
	birthWords = []string{"birth", "born", "dob$", "d.o.b", "bday", "geboren", "naissance"}
)

// personalNumber looks for what of a person begins with the digit at i, whose
// group ends at j; 0 is nothing.
func (sc *scan) personalNumber(i, j int) int {
	text := sc.text
	var prev byte
	if i > 0 {
		prev = text[i-1]
	}
	if prev == '.' && i > 1 && isDigit(text[i-2]) || prev == '_' {
		return 0
	}
	if sc.byteAt(j) == ')' {
		if prev == '(' && j-i >= 2 && j-i <= 5 {
			return sc.phoneInBrackets(i, j)
		}
		return 0
	}
	r := sc.rowAt(i)
	if r.groups == 0 {
		return 0
	}
	if prev == '+' {
		if r.n >= 7 && r.n <= 15 || r.groups == 1 && sc.byteAt(r.end) == ' ' || !r.whole {
			if end := sc.phoneFrom(i); end > 0 && sc.add(i-1, end, rulePhone, 0) {
				return end
			}
		}
		return 0
	}
	if !r.whole {
		return 0
	}
	// A sign or word character before: part of something else.
	if prev == '-' || prev == '/' && !(i > 1 && text[i-2] == '/') && r.seps[0] == '.' && r.groups == 4 {
		return 0
	}
	if r.seps[0] == '.' && (r.groups == 4 || r.groups == 5 && r.seps[3] == '/') {
		if end := sc.ip4(&r); end > 0 && sc.add(i, end, ruleIP, 0) {
			return end
		}
	}
	if r.groups >= 3 && sc.dateShape(&r) {
		if r.groups == 3 && sc.born(i) && sc.add(i, r.end, ruleDOB, 0) {
			return r.end
		}
		return 0
	}
	switch {
	case r.groups == 3 && r.shape(3, 2, 4) && (r.seps[0] == '-' || r.seps[0] == ' ' || r.seps[0] == '.'):
		if validSSN(r.digits[:9]) && sc.add(i, r.end, ruleSSN, 0) {
			return r.end
		}
	case r.groups == 1 && r.n == 9:
		if validSSN(r.digits[:9]) && sc.wordBefore(i, ssnWords) && sc.add(i, r.end, ruleSSN, 0) {
			return r.end
		}
	case r.n == 10 && (r.groups == 1 || r.groups == 3 && r.shape(3, 3, 4)):
		if validNHS(r.digits[:10]) {
			nanp := r.digits[0] >= '2' && r.digits[3] >= '2' && r.groups == 3 && r.seps[0] != ' '
			if (r.groups == 3 && !nanp || sc.wordBefore(i, nhsWords)) && sc.add(i, r.end, ruleNHS, 0) {
				return r.end
			}
		}
	}
	if end := sc.phoneRow(i, &r); end > 0 && sc.add(i, end, rulePhone, 0) {
		return end
	}
	return 0
}

// born reports whether a date at i is that of a birth: no other number stands
// between the word and it.
func (sc *scan) born(i int) bool { return sc.wordSince(i, birthWords, true) }

// validSSN is what the Social Security Administration never gave out, and what
// advertisements made known.
func validSSN(d []byte) bool {
	area, group, serial := string(d[:3]), string(d[3:5]), string(d[5:9])
	if area == "000" || area == "666" || area[0] == '9' || group == "00" || serial == "0000" {
		return false
	}
	switch string(d) {
	case "123456789", "078051120", "219099999":
		return false
	}
	for _, c := range d {
		if c != d[0] {
			return true
		}
	}
	return false
}

// validNHS is the check of the NHS Data Dictionary: weights 10 to 2, and the
// check digit with 1, make a multiple of 11.
func validNHS(d []byte) bool {
	sum, same := 0, true
	for i, c := range d {
		sum += int(c-'0') * (10 - i)
		same = same && c == d[0]
	}
	return sum%11 == 0 && !same
}

func (sc *scan) ip4(r *row) int {
	at := 0
	for g := 0; g < 4; g++ {
		n := int(r.len[g])
		if n > 3 || n > 1 && r.digits[at] == '0' || g < 3 && r.seps[g] != '.' {
			return 0
		}
		v := 0
		for _, c := range r.digits[at : at+n] {
			v = v*10 + int(c-'0')
		}
		if v > 255 {
			return 0
		}
		at += n
	}
	if r.groups > 4 {
		return r.end - int(r.len[4]) - 1 // without the length of a network's prefix
	}
	return r.end
}

// dateShape reports whether the first three groups are a date: year, month,
// day, or day and month in either order, year.
func (sc *scan) dateShape(r *row) bool {
	s := r.seps[0]
	if r.seps[1] != s || s != '-' && s != '/' && s != '.' {
		return false
	}
	two := func(at, n int) int {
		v := 0
		for _, c := range r.digits[at : at+n] {
			v = v*10 + int(c-'0')
		}
		return v
	}
	a, b, c := int(r.len[0]), int(r.len[1]), int(r.len[2])
	switch {
	case a == 4 && b <= 2 && c <= 2:
		m, d := two(4, b), two(4+b, c)
		return m >= 1 && m <= 12 && d >= 1 && d <= 31
	case a <= 2 && b <= 2 && (c == 4 || c == 2):
		m, d := two(0, a), two(a, b)
		return m >= 1 && d >= 1 && (m <= 12 && d <= 31 || m <= 31 && d <= 12)
	}
	return false
}

var months = []string{"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}

// dateInWords is the start of a date such as "12 March 1980", "March 12th,
// 1980", "12. Mar 1980" before the year at i; -1 is none.
func (sc *scan) dateInWords(i int) int {
	text := sc.text
	p := i
	seenDay, seenMonth := false, false
	for range 2 {
		for p > 0 && i-p < 30 && (text[p-1] == ' ' || text[p-1] == ',' || text[p-1] == '.') {
			p--
		}
		e := p
		for p > 0 && e-p < 12 && isAlnum(text[p-1]) {
			p--
		}
		if p == e {
			return -1
		}
		word := text[p:e]
		switch {
		case isDigit(word[0]):
			if seenDay || len(word) > 4 || digitsEnd(word, 0) > 2 {
				return -1
			}
			seenDay = true
		case !seenMonth:
			for _, m := range months {
				if hasFold(word, 0, m) {
					seenMonth = true
				}
			}
			if !seenMonth {
				return -1
			}
		default:
			return -1
		}
	}
	if seenDay && seenMonth {
		return p
	}
	return -1
}

// phoneRow looks for a phone number without a plus: of North America by its
// form, others behind a word.
func (sc *scan) phoneRow(i int, r *row) int {
	d := r.digits[:r.n]
	nanp := func(d []byte) bool { return d[0] >= '2' && d[3] >= '2' }
	s := r.seps[0]
	switch {
	case r.groups == 3 && r.shape(3, 3, 4) && s != '/' && nanp(d):
		return sc.extension(r.end)
	case r.groups == 4 && r.n == 11 && d[0] == '1' && r.shape(1, 3, 3, 4) && s != '/' && nanp(d[1:]):
		return sc.extension(r.end)
	case r.groups == 4 && r.n == 13 && string(d[:3]) == "001" && r.shape(3, 3, 3, 4) && s == '-' && nanp(d[3:]):
		return sc.extension(r.end)
	case r.n >= 7 && r.n <= 15 && (sc.wordBefore(i, phoneWords) || sc.phoneKind(r.end)):
		return sc.extension(r.end)
	}
	return 0
}

// phoneKind reports whether a word behind end says what phone it is.
func (sc *scan) phoneKind(end int) bool {
	if c := sc.byteAt(end); c != ' ' && c != '-' {
		return false
	}
	for _, w := range phoneKinds {
		if hasFold(sc.text, end+1, w) && !isAlnum(sc.byteAt(end+1+len(w))) {
			return true
		}
	}
	return false
}

// extension is the end of "x123" or " ext. 123" at end, or end itself.
func (sc *scan) extension(end int) int {
	p := end
	if sc.byteAt(p) == ' ' {
		p++
	}
	switch {
	case sc.byteAt(p)|0x20 == 'x':
		p++
	case hasFold(sc.text, p, "ext"):
		p += 3
		for c := sc.byteAt(p); c == '.' || c == ' '; c = sc.byteAt(p) {
			p++
		}
	default:
		return end
	}
	if e := digitsEnd(sc.text, p); e > p && e-p <= 6 {
		return e
	}
	return end
}

// phoneFrom is the end of an international phone number whose country code
// begins at i, 7 to 15 digits (ITU-T E.164); 0 is none.
func (sc *scan) phoneFrom(i int) int {
	text := sc.text
	n, end := 0, 0
	for p := i; p < len(text) && p-i < 32; {
		c := text[p]
		switch {
		case isDigit(c):
			n++
			p++
			end = p
			continue
		case c == ' ' || c == '-' || c == '.' || c == '/':
			if next := sc.byteAt(p + 1); isDigit(next) || next == '(' && c == ' ' {
				p++
				continue
			}
		case c == '(' || c == ')':
			if next := sc.byteAt(p + 1); isDigit(next) || c == ')' && (next == ' ' || next == '-') && isDigit(sc.byteAt(p+2)) {
				p++
				continue
			}
		}
		break
	}
	if n < 7 || n > 15 || isLetter(sc.byteAt(end)) && sc.byteAt(end) != 'x' {
		return 0
	}
	return sc.extension(end)
}

// phoneInBrackets looks for (555) 123-4567, the digits in the brackets from i
// to j.
func (sc *scan) phoneInBrackets(i, j int) int {
	p := j + 1
	if sc.byteAt(p) == ' ' || sc.byteAt(p) == '-' {
		p++
	}
	if !isDigit(sc.byteAt(p)) {
		return 0
	}
	r := sc.rowAt(p)
	if !r.whole {
		return 0
	}
	us := j-i == 3 && sc.text[i] >= '2' && r.n == 7 && r.digits[0] >= '2' && (r.groups == 1 || r.shape(3, 4))
	if !us && !(r.n+j-i >= 7 && r.n+j-i <= 12 && (r.groups == 2 || sc.wordBefore(i-1, phoneWords))) {
		return 0
	}
	end := sc.extension(r.end)
	start := i - 1
	if start < sc.last || !sc.add(start, end, rulePhone, 0) {
		return 0
	}
	return end
}
