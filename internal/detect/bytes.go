package detect

import "strings"

// What a byte may begin or end, see the package comment.
const (
	tDigit  = iota + 1 // numbers of all kinds
	tDash              // PEM, keys with a hyphen in their prefix, curl -u
	tUnder             // keys with an underscore in their prefix
	tDot               // keys with a dot, webhooks' hosts
	tColon             // key: value, scheme://, IPv6, Telegram
	tEquals            // key=value, key => value, WireGuard
	tAt                // e-mail
	tTilde             // Azure, OpenShift
	tUpper             // AKIA, AIza, EAA, eyJ, LTAI, SK, Bearer, Basic
	tV                 // cvv, cvc
)

// Classes of bytes, as bits.
const (
	bDigit = 1 << iota
	bLower
	bUpper
	bHex     // 0-9 a-f A-F
	bWord    // letters, digits, _ and -
	bBase64  // letters, digits, + / =
	bSpace   // space, tab, line breaks
	bMailBox // what the local part of an address may have, RFC 5321 dot-string in practice
)

// class has the classes of a byte.
var class = func() (class [256]uint8) {
	for c := range 256 {
		c := byte(c)
		in := func(chars string) bool { return strings.IndexByte(chars, c) >= 0 }
		switch {
		case c >= '0' && c <= '9':
			class[c] = bDigit | bHex | bWord | bBase64 | bMailBox
		case c >= 'a' && c <= 'z':
			class[c] = bLower | bWord | bBase64 | bMailBox
		case c >= 'A' && c <= 'Z':
			class[c] = bUpper | bWord | bBase64 | bMailBox
		}
		for chars, bit := range map[string]uint8{"abcdefABCDEF": bHex, "_-": bWord, "+/=": bBase64, " \t\r\n\v\f": bSpace, "._%+-'": bMailBox} {
			if in(chars) {
				class[c] |= bit
			}
		}
	}
	return class
}()

// trigger says who looks at a byte; 0 is nobody.
var trigger = func() (trigger [256]uint8) {
	for chars, t := range map[string]uint8{"0123456789": tDigit, "-": tDash, "_": tUnder, ".": tDot, ":": tColon, "=": tEquals, "@": tAt, "~": tTilde, "AEJLSBG": tUpper, "vV": tV} {
		for _, c := range []byte(chars) {
			trigger[c] = t
		}
	}
	return trigger
}()

func isDigit(c byte) bool  { return c-'0' < 10 }
func isLetter(c byte) bool { return (c|0x20)-'a' < 26 }
func isAlnum(c byte) bool  { return class[c]&(bDigit|bLower|bUpper) != 0 }
func isWord(c byte) bool   { return class[c]&bWord != 0 }
func isSpace(c byte) bool  { return class[c]&bSpace != 0 }
func lower(c byte) byte {
	if class[c]&bUpper != 0 {
		return c | 0x20
	}
	return c
}

// at is the byte at i, 0 outside.
func (sc *scan) byteAt(i int) byte {
	if uint(i) < uint(len(sc.text)) {
		return sc.text[i]
	}
	return 0
}

// hasAt reports whether text has s at i.
func hasAt(text []byte, i int, s string) bool {
	return i >= 0 && i+len(s) <= len(text) && string(text[i:i+len(s)]) == s
}

// hasFold is hasAt without regard to case; s is in lower case.
func hasFold(text []byte, i int, s string) bool {
	if i < 0 || i+len(s) > len(text) {
		return false
	}
	for k := 0; k < len(s); k++ {
		if lower(text[i+k]) != s[k] {
			return false
		}
	}
	return true
}

// spanClass is the end of the bytes of a class from i on.
func spanClass(text []byte, i int, bits uint8) int {
	for i < len(text) && class[text[i]]&bits != 0 {
		i++
	}
	return i
}

// digitsEnd is the end of the digits from i on.
func digitsEnd(text []byte, i int) int {
	for i < len(text) && isDigit(text[i]) {
		i++
	}
	return i
}

// contextBytes is how far before a number the word may stand that says what it
// is: "my phone number, for the evening, is" fits.
const contextBytes = 40

// wordBefore reports whether one of words, in lower case, stands as the
// beginning of a word in the last contextBytes before i, in the same line or at
// the end of the one before. One with a $ behind must be the whole word.
func (sc *scan) wordBefore(i int, words []string) bool { return sc.wordSince(i, words, false) }

// wordSince is wordBefore that looks back no further than a digit where digit
// says so.
func (sc *scan) wordSince(i int, words []string, digit bool) bool {
	text := sc.text
	lines := 0
	for k, lo := i-1, max(0, i-contextBytes); k >= lo; k-- {
		c := lower(text[k])
		if c == '\n' {
			lines++
		}
		if lines > 1 || lines == 1 && isDigit(c) || digit && isDigit(c) {
			return false
		}
		if class[c]&bLower == 0 {
			continue
		}
		// The start of a word: nothing before, no letter before, or camelCase.
		if k > 0 && isLetter(text[k-1]) && (class[text[k]]&bUpper == 0 || class[text[k-1]]&bLower == 0) {
			continue
		}
		for _, w := range words {
			if w[0] != c {
				continue
			}
			whole := w[len(w)-1] == '$'
			if whole {
				w = w[:len(w)-1]
			}
			if hasFold(text[:i], k, w) && !(whole && k+len(w) < i && isLetter(text[k+len(w)])) {
				return true
			}
		}
	}
	return false
}
