package report

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// Printable is s with everything that a terminal might act on, or that would
// change how the text around it is read, spelled as an escape: control
// characters (ESC as \x1b), bytes that are not UTF-8, separators of lines,
// and the invisible characters that turn the direction of writing. Other text
// is left as it is. The result is one line.
func Printable(s string) string {
	safe := true
	for i := range len(s) {
		if s[i] < 0x20 || s[i] >= 0x7f {
			safe = false
			break
		}
	}
	if safe {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			b.WriteString(`\x`)
			b.WriteByte(hexDigits[s[i]>>4])
			b.WriteByte(hexDigits[s[i]&15])
		case strconv.IsPrint(r):
			b.WriteRune(r)
		default:
			quoted := strconv.QuoteRune(r) // '\x1b', '\n', '\u202e'
			b.WriteString(quoted[1 : len(quoted)-1])
		}
		i += n
	}
	return b.String()
}

const hexDigits = "0123456789abcdef"
