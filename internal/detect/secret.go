package detect

import (
	"bytes"
	"encoding/base64"
)

// dash looks, at a hyphen, for private keys, for keys with a hyphen in their
// prefix, and for the password of curl -u.
func (sc *scan) dash(i int) int {
	text := sc.text
	if i+1 < len(text) && text[i+1] == '-' {
		j := i + 2
		for j < len(text) && text[j] == '-' {
			j++
		}
		if j-i >= 4 {
			if hasAt(text, j, "BEGIN ") || hasAt(text, j, " BEGIN ") {
				if end := sc.pem(i, j); end > 0 {
					return end
				}
			}
			return j
		}
		if j-i == 2 && (hasAt(text, j, "user ") || hasAt(text, j, "user=") || hasAt(text, j, "proxy-user")) {
			if end := sc.curlUser(i); end > 0 {
				return end
			}
		}
		return j
	}
	if i > 0 {
		if table := prefixes.dash[text[i-1]]; table != nil {
			if end := sc.vendor(table, i); end > 0 {
				return end
			}
		}
	}
	if c := sc.byteAt(i + 1); (c == 'u' || c == 'U') && (i == 0 || isSpace(text[i-1])) {
		if end := sc.curlUser(i); end > 0 {
			return end
		}
	}
	return i + 1
}

// maxHeader is how long a PEM header may be: "PGP PRIVATE KEY BLOCK",
// "SSH2 ENCRYPTED PRIVATE KEY" fit.
const maxHeader = 64

// maxPEM is how far behind its header a private key's end line is looked for:
// an RSA key of 16,384 bits is 12.5 kB.
const maxPEM = 16 << 10

// pem notes the private key whose hyphens are at i and whose BEGIN follows
// those that end at j. With an end line it goes to it, else as far as there is
// base64.
func (sc *scan) pem(i, j int) int {
	text := sc.text
	head := text[j:min(len(text), j+maxHeader)]
	k := bytes.Index(head, []byte("PRIVATE KEY"))
	if k < 0 {
		return 0
	}
	if b := bytes.IndexByte(head[:k], '\n'); b >= 0 {
		return 0
	}
	p := j + k + len("PRIVATE KEY")
	if hasAt(text, p, " BLOCK") {
		p += len(" BLOCK")
	}
	for p < len(text) && text[p] == '-' {
		p++
	}
	keep := p - i
	end := sc.pemBody(p)
	if e := sc.endMark(p); e-p <= maxPEM {
		if k := bytes.Index(text[e:min(len(text), e+maxHeader)], []byte("KEY")); k >= 0 {
			end = max(end, e+k+len("KEY"))
			if hasAt(text, end, " BLOCK") {
				end += len(" BLOCK")
			}
			for end < len(text) && text[end] == '-' {
				end++
			}
		}
	}
	if !sc.add(i, end, rulePrivateKey, min(keep, 255)) {
		return 0
	}
	return end
}

// endMark is the index of the first "END " behind hyphens at or after p; the
// length of the text is none. What was found is kept: nothing is searched twice.
func (sc *scan) endMark(p int) int {
	for sc.pemEnd < p {
		n := bytes.Index(sc.text[p:], []byte("END "))
		if n < 0 {
			sc.pemEnd = len(sc.text)
			break
		}
		if at := p + n; sc.byteAt(at-1) == '-' || hasAt(sc.text, at-2, "- ") {
			sc.pemEnd = at
			break
		}
		p += n + 1
	}
	return sc.pemEnd
}

// pemBody is the end of the base64 of a key from p on: words of it with line
// breaks between, real or escaped, and before it header lines (RFC 1421, PGP).
// A word of fewer than 16 bytes is the last one.
func (sc *scan) pemBody(p int) int {
	text := sc.text
	from, end := p, p
	for {
		q := p
		for q < len(text) && (isSpace(text[q]) || text[q] == '"' || text[q] == '\'' || text[q] == ',' || text[q] == '>' || text[q] == '|') {
			q++
		}
		if q+1 < len(text) && text[q] == '\\' {
			for q < len(text) && text[q] == '\\' {
				q++
			}
			if q < len(text) && (text[q] == 'n' || text[q] == 'r' || text[q] == 't') {
				q++
			}
			p = q
			continue
		}
		e := spanClass(text, q, bBase64)
		n := e - q
		if n == 0 {
			return end
		}
		// Proc-Type: 4,ENCRYPTED and the like
		if c := sc.byteAt(e); end == from && (c == ':' || c == '-') && n < 16 {
			line := bytes.IndexByte(text[e:min(len(text), e+200)], '\n')
			if esc := bytes.Index(text[e:min(len(text), e+200)], []byte(`\n`)); esc >= 0 && (line < 0 || esc < line) {
				line = esc
			}
			if line >= 0 {
				p = e + line
				continue
			}
		}
		if n < 16 {
			// The last line, unless it is a word of prose.
			if e == len(text) || text[e-1] == '=' || hasDigit(text[q:e]) {
				end = e
			}
			return end
		}
		end = e
		p = e
	}
}

// base64PEM looks for "-----BEGIN" in base64, at each of its three alignments,
// around the digit 0 at i, and notes what follows where a private key's header
// does.
func (sc *scan) base64PEM(i int) int {
	text := sc.text
	for a, mark := range pemMarks {
		at := bytes.IndexByte(mark, '0')
		for at >= 0 {
			start := i - at
			if start >= sc.last && hasAt(text, start, string(mark)) {
				// What precedes it in the same word belongs to the file.
				from := start
				for from > sc.last && start-from < 256 && class[text[from-1]]&bBase64 != 0 && text[from-1] != '=' {
					from--
				}
				var buf [96]byte
				head := decode64(buf[:], text[start+pemSkip[a]:min(len(text), start+pemSkip[a]+128)])
				if !bytes.Contains(head, []byte("PRIVATE KEY")) && (bytes.Contains(head, []byte("CERT")) || bytes.Contains(head, []byte("PUBLIC"))) {
					return 0
				}
				end := sc.pemBody(start)
				if !sc.add(from, end, rulePrivateKey, 0) {
					return 0
				}
				return end
			}
			next := bytes.IndexByte(mark[at+1:], '0')
			if next < 0 {
				break
			}
			at += 1 + next
		}
	}
	return 0
}

// pemMarks are the characters of base64 that "-----BEGIN " fixes when 0, 1 or 2
// bytes stand before it in its group of three; from pemSkip on they decode.
var pemMarks, pemSkip = func() (marks [3][]byte, skip [3]int) {
	const header = "-----BEGIN "
	for before := range 3 {
		enc := base64.StdEncoding.EncodeToString(append(make([]byte, before), header...))
		// The first characters mix with what stands before, the last with what
		// comes.
		first := (before*8 + 5) / 6
		last := (before + len(header)) * 8 / 6
		marks[before] = []byte(enc[first:last])
		skip[before] = (4 - first%4) % 4
	}
	return marks, skip
}()

// curlUser looks for curl -u user:password, the option at i.
func (sc *scan) curlUser(i int) int {
	text := sc.text
	p := i + 2
	switch {
	case hasAt(text, i, "--user"):
		p = i + len("--user")
	case hasAt(text, i, "--proxy-user"):
		p = i + len("--proxy-user")
	}
	for c := sc.byteAt(p); c == ' ' || c == '='; c = sc.byteAt(p) {
		p++
	}
	if sc.byteAt(p) == '<' {
		return 0
	}
	if p == i+2 && sc.byteAt(p) != '"' && sc.byteAt(p) != '\'' && !isAlnum(sc.byteAt(p)) {
		return 0
	}
	const before = 256
	if !bytes.Contains(text[max(0, i-before):i], []byte("curl")) {
		return 0
	}
	v, end := sc.quoted(p)
	if v == end {
		for end < len(text) && !isSpace(text[end]) {
			end++
		}
	}
	colon := bytes.IndexByte(text[v:end], ':')
	if colon < 0 && v > p && sc.byteAt(end+1) == ':' { // "user":"password"
		from, to := sc.quoted(end + 2)
		if from == to {
			for to < len(text) && !isSpace(text[to]) {
				to++
			}
		}
		if placeholder(text[from:to]) || !sc.add(from, to, ruleCurlUser, 0) {
			return 0
		}
		return to
	}
	if colon < 0 {
		return 0
	}
	from := v + colon + 1
	if from == end { // the key is the user
		from, end = v, v+colon
	}
	if placeholder(text[from:end]) {
		return 0
	}
	start := from
	if text[start] == '"' || text[start] == '\'' {
		start++
	}
	if start >= end || !sc.add(start, end, ruleCurlUser, 0) {
		return 0
	}
	return end
}

// quoted is the range inside the quotes that open at p, escaped or not; empty
// where none opens. Without closing quotes it goes to the end of the text.
func (sc *scan) quoted(p int) (int, int) {
	text := sc.text
	q := p
	for q < len(text) && text[q] == '\\' {
		q++
	}
	escapes := q - p
	c := sc.byteAt(q)
	const most = 8 // escapes of a text that was quoted three times
	if c != '"' && c != '\'' && c != '`' || escapes > most {
		return p, p
	}
	v := q + 1
	for k := v; k < len(text); k++ {
		if text[k] != c {
			continue
		}
		n := 0
		for n < k-v && text[k-1-n] == '\\' {
			n++
		}
		// It closes with as many backslashes as it opened with; more are the
		// escape of a quote inside.
		if n <= escapes || escapes == 0 && n%2 == 0 {
			if n > escapes {
				n = escapes
			}
			return v, k - min(n, k-v)
		}
	}
	return v, len(text)
}

// colon looks, at a colon, for URLs with passwords, Telegram's tokens, IPv6
// and key: value.
func (sc *scan) colon(i int) int {
	text := sc.text
	if i+1 == len(text) {
		return i + 1
	}
	next := text[i+1]
	if next == '/' && hasAt(text, i, "://") {
		if end := sc.userinfo(i + 3); end > 0 {
			return end
		}
		return i + 3
	}
	if i > 0 && isDigit(text[i-1]) && next == 'A' {
		if end := sc.telegram(i); end > 0 {
			return end
		}
	}
	if next == ':' || class[next]&bHex != 0 && i > 0 && class[text[i-1]]&bHex != 0 {
		if end := sc.ip6(i); end > 0 {
			return end
		}
	}
	return sc.assignment(i)
}

// telegram looks for a bot's id, 8 to 10 digits and a little more, and its key
// around the colon at i.
func (sc *scan) telegram(i int) int {
	text := sc.text
	start := i
	for start > 0 && i-start <= 16 && isDigit(text[start-1]) {
		start--
	}
	end := spanWord(text, i+1)
	if n := i - start; n < 5 || n > 16 || end-i-1 != 35 || start < sc.last || start > 0 && isAlnum(text[start-1]) && !hasAt(text, start-3, "bot") {
		return 0
	}
	if !varied(text[i+1:end]) || !sc.add(start, end, ruleTelegram, 0) {
		return 0
	}
	return end
}

// userinfo looks for user:password@ at p, RFC 3986 3.2.1.
func (sc *scan) userinfo(p int) int {
	text := sc.text
	const most = 512
	colon, at := -1, -1
scan:
	for k := p; k < len(text) && k-p < most; k++ {
		switch c := text[k]; c {
		case ':':
			if colon < 0 {
				colon = k
			}
		case '@':
			at = k // the last one: a password may have one, unescaped
		case '/', '?', '#':
			if at >= 0 || colon < 0 {
				break scan
			}
			// A password with a slash is taken where an @ follows before the
			// next space and the part behind the colon is no port.
			if isDigit(sc.byteAt(colon + 1)) {
				break scan
			}
		case '"', '\'', '<', '>', '`', '\\', '|', ')', '}':
			if !(c == '}' && colon >= 0) {
				break scan
			}
		default:
			if isSpace(c) {
				break scan
			}
		}
	}
	if colon < 0 || at < colon {
		return 0
	}
	from, end := colon+1, at
	if from == end || string(text[from:end]) == "x-oauth-basic" {
		from, end = p, colon // the user is the key
		if end-from < 16 {
			return 0
		}
	}
	if placeholder(text[from:end]) || !sc.add(from, end, ruleURLPassword, 0) {
		return 0
	}
	return at
}

// equals looks, at an equals sign, for a WireGuard key that is the text and for
// key=value.
func (sc *scan) equals(i int) int {
	if i >= 43 && i <= 47 && len(sc.text) <= 48 {
		if end := sc.wireGuard(i); end > 0 {
			return end
		}
	}
	return sc.assignment(i)
}

// wireGuard looks for a text that is nothing but a Curve25519 private key as
// wg genkey prints it: 32 bytes in base64, clamped as in RFC 7748 5. A public
// key or a hash of that form is clamped one time in 32.
func (sc *scan) wireGuard(i int) int {
	text := bytes.TrimSpace(sc.text)
	if len(text) != 44 || text[43] != '=' {
		return 0
	}
	var key [32]byte
	if len(decode64(key[:], text)) != 32 || key[0]&7 != 0 || key[31]&0xC0 != 0x40 {
		return 0
	}
	start := bytes.Index(sc.text, text)
	if start < sc.last || !sc.add(start, start+44, ruleWireGuard, 0) {
		return 0
	}
	return start + 44
}

// assignment looks, at the : or = at i, for a name before it that says what
// the value behind it is.
func (sc *scan) assignment(i int) int {
	text := sc.text
	// Back over spaces, an operator's other characters, quotes, brackets.
	e := i
	for k := 0; e > sc.last && k < 8; k++ {
		switch text[e-1] {
		case ' ', '\t', '"', '\'', '`', '\\', '=', '!', ':', '?', ']', '*':
			e--
			continue
		}
		break
	}
	if e == sc.last || !isAlnum(text[e-1]) || !sc.s.ends.may(text[max(0, e-4):e]) {
		return i + 1
	}
	// The name: a word with its dots, and up to two words before it, since
	// people write "API key: ...".
	const maxName = 48
	start := e
	words := 0
	for start > sc.last && e-start < maxName {
		c := text[start-1]
		if isWord(c) || c == '.' && start > 1 && isAlnum(text[start-2]) {
			start--
			continue
		}
		if c == ' ' && words < 2 && start > 1 && isAlnum(text[start-2]) {
			words++
			start--
			continue
		}
		break
	}
	// The n of an escaped line break is not the name's.
	if start > 0 && text[start-1] == '\\' && e-start > 1 && (text[start] == 'n' || text[start] == 't' || text[start] == 'r') {
		start++
	}
	k, ok := sc.s.Name(text[start:e])
	if !ok {
		return i + 1
	}
	v := i + 1
	for v < len(text) && v-i < 12 {
		switch text[v] {
		case ' ', '\t', '=', '>', ':', '~':
			v++
			continue
		}
		break
	}
	// %3D and %22, as in URLs and forms
	if hasAt(text, v, "%22") {
		v += 3
	}
	if sc.byteAt(v) == '[' {
		// A list: its strings, each.
		end := v + 1
		for end < len(text) {
			for end < len(text) && (isSpace(text[end]) || text[end] == ',') {
				end++
			}
			from, to := sc.quoted(end)
			if from == to {
				break
			}
			sc.underName(k, from, to)
			end = to + (from - end)
		}
		return max(i+1, end)
	}
	from, to := sc.quoted(v)
	if from == to {
		if from > v { // "" holds nothing
			return from
		}
		to = sc.bareEnd(from, k)
	}
	return max(i+1, sc.underName(k, from, to))
}

// bareEnd is the end of a value without quotes.
func (sc *scan) bareEnd(v int, k Key) int {
	text := sc.text
	end := v
	switch k.kind {
	case kindLine, kindHeader, kindCookie:
		// The rest of the line, when the whole of it is the value.
		if k.kind == kindHeader && sc.scheme(v) == 0 || k.kind == kindCookie && !sc.pair(v) {
			break
		}
		for end < len(text) && text[end] != '\n' && text[end] != '\r' && text[end] != '"' && text[end] != '\'' && text[end] != '<' && !hasAt(text, end, `\n`) && !hasAt(text, end, `\r`) {
			end++
		}
		return end
	case kindLines:
		if n := sc.pemBody(digitsEnd(text, v)); n > digitsEnd(text, v) {
			return n
		}
	case kindCard, kindCardWeak, kindDOB, kindSSN, kindNHS, kindPhone, kindCode, kindPIN:
		// Numbers go over spaces.
		for end < len(text) && end-v < 40 && text[end] != '\n' && text[end] != '"' && text[end] != '\'' && text[end] != ',' && text[end] != ';' && text[end] != '|' && text[end] != '&' {
			end++
		}
		return end
	}
	for end < len(text) {
		c := text[end]
		if isSpace(c) || c == '"' || c == '\'' || c == '`' || c == '<' || c == '>' || c == '&' || c == ';' || c == '|' {
			break
		}
		if c == '\\' && end+1 < len(text) && (text[end+1] == 'n' || text[end+1] == 'r' || text[end+1] == 't' || text[end+1] == '"') {
			break
		}
		if c == ',' && (end+1 == len(text) || !isAlnum(text[end+1]) || k.kind != kindSecret && k.kind != kindWhole) {
			break
		}
		end++
	}
	for end > v {
		switch text[end-1] {
		case '.', ',', ')', ']', '}', ':', '!', '?':
			// Punctuation, unless it is all there is.
			if text[end-1] != '!' && text[end-1] != '?' || end < len(text) {
				if text[end-1] != '!' {
					end--
					continue
				}
			}
		}
		break
	}
	return end
}

// schemes are those of HTTP authentication, RFC 9110 11.1 and IANA's registry,
// and what services made up beside them.
var schemes = []string{"bearer ", "basic ", "digest ", "token ", "apikey ", "api-key ", "negotiate ", "ntlm ", "hoba ", "mutual ", "aws4-hmac-sha256 ", "hawk ", "key ", "bot ", "oauth ", "geniekey ", "splunk ", "sso-key ", "sharedaccesssignature ", "sharedkey "}

// scheme is the length of the scheme and its space at v, 0 for none.
func (sc *scan) scheme(v int) int {
	for _, s := range schemes {
		if hasFold(sc.text, v, s) {
			return len(s)
		}
	}
	return 0
}

// pair reports whether a word at v has an equals sign in it, as cookies do.
func (sc *scan) pair(v int) bool {
	for v < len(sc.text) && (isWord(sc.text[v]) || sc.text[v] == '.' || sc.text[v] == '%') {
		v++
	}
	return sc.byteAt(v) == '='
}
