package entry

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"sync"
	"unicode/utf8"
)

// MaxDepth is how many arrays and objects an entry may nest, itself included.
const MaxDepth = 128

// scanner checks JSON text and writes it again in our one spelling: no white
// space, numbers as they are, strings with the fewest escapes. Most text is in
// that spelling already: what is, is copied in one piece. It is pooled: nothing in
// it outlives a call.
type scanner struct {
	src  []byte
	pos  int
	from int // what is between here and pos is written as it is, later
	dst  []byte

	// keys holds the names of every object being written, in our spelling;
	// each object uses the part above the length that it found.
	keys [][]byte

	member jsonMember // the one that ParseEvent is at: an interface can hold it without an allocation
}

// manyKeys is where looking through the earlier names of an object one by one
// gives way to a map. Found by BenchmarkCompactKeys: below it no allocation
// beats the map.
const manyKeys = 24

var scanners = sync.Pool{New: func() any { return new(scanner) }}

// AppendCompact appends the one JSON value that src must be, in our spelling.
// depth is the number of arrays and objects around it. On an error dst is
// returned as it was.
func AppendCompact(dst, src []byte, depth int) ([]byte, error) {
	s := scanners.Get().(*scanner)
	out, err := s.compact(dst, src, depth)
	s.release()
	return out, err
}

func (s *scanner) compact(dst, src []byte, depth int) ([]byte, error) {
	s.src, s.pos, s.from, s.dst, s.keys = src, 0, 0, dst, s.keys[:0]
	if err := s.document(depth); err != nil {
		return dst, err
	}
	return append(s.dst, src[s.from:s.pos]...), nil
}

func (s *scanner) release() {
	clear(s.keys)
	s.src, s.dst, s.keys, s.member = nil, nil, s.keys[:0], jsonMember{}
	scanners.Put(s)
}

// write writes what is in our spelling up to pos, and goes on at next.
func (s *scanner) write(pos, next int) {
	s.dst = append(s.dst, s.src[s.from:pos]...)
	s.from = next
}

// document reads the one value; white space behind it is not written.
func (s *scanner) document(depth int) error {
	c := s.next()
	if s.pos == len(s.src) {
		return s.fail("no JSON value here")
	}
	if err := s.value(c, depth); err != nil {
		return err
	}
	if s.next(); s.pos != len(s.src) {
		return s.fail("more text after the JSON value")
	}
	return nil
}

func (s *scanner) fail(reason string) error { return syntaxError(s.src, s.pos, reason) }

func (s *scanner) space() {
	for s.pos < len(s.src) {
		switch s.src[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// next leaves out white space and gives the byte behind it, 0 at the end: no value
// has that.
func (s *scanner) next() byte {
	start := s.pos
	s.space()
	s.write(start, s.pos)
	return s.peek()
}

// peek gives the byte at pos, 0 at the end. Where it is no more than a space, there
// is white space, which there mostly is none of.
func (s *scanner) peek() byte {
	if s.pos < len(s.src) {
		return s.src[s.pos]
	}
	return 0
}

// value reads the value that c begins.
func (s *scanner) value(c byte, depth int) error {
	switch c {
	case '{':
		return s.object(depth + 1)
	case '[':
		return s.array(depth + 1)
	case '"':
		return s.text()
	case 't':
		return s.word("true")
	case 'f':
		return s.word("false")
	case 'n':
		return s.word("null")
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		return s.number()
	}
	if s.pos == len(s.src) {
		return s.fail("the text ends where a value is needed")
	}
	return s.fail("this is not the beginning of a JSON value")
}

func (s *scanner) word(w string) error {
	if !bytes.HasPrefix(s.src[s.pos:], []byte(w)) {
		return s.fail("this is not the beginning of a JSON value")
	}
	s.pos += len(w)
	return nil
}

func (s *scanner) array(depth int) error {
	if depth > MaxDepth {
		return s.fail("nested deeper than 128 levels")
	}
	s.pos++
	c := s.peek()
	if c <= ' ' {
		c = s.next()
	}
	if c == ']' {
		s.pos++
		return nil
	}
	for {
		if err := s.value(c, depth); err != nil {
			return err
		}
		if c = s.peek(); c <= ' ' {
			c = s.next()
		}
		switch c {
		case ',':
			s.pos++
		case ']':
			s.pos++
			return nil
		default:
			if s.pos == len(s.src) {
				return s.fail("the text ends inside an array")
			}
			return s.fail("a comma or ] is needed here")
		}
		if c = s.peek(); c <= ' ' {
			c = s.next()
		}
	}
}

func (s *scanner) object(depth int) error {
	if depth > MaxDepth {
		return s.fail("nested deeper than 128 levels")
	}
	s.pos++
	c := s.peek()
	if c <= ' ' {
		c = s.next()
	}
	if c == '}' {
		s.pos++
		return nil
	}
	base := len(s.keys)
	var seen map[string]struct{}
	for {
		if c != '"' {
			if s.pos == len(s.src) {
				return s.fail("the text ends inside an object")
			}
			return s.fail("a member name in double quotes is needed here")
		}
		at := s.pos
		name, err := s.name()
		if err != nil {
			return err
		}
		if seen == nil && len(s.keys)-base >= manyKeys {
			seen = make(map[string]struct{}, 2*manyKeys)
			for _, k := range s.keys[base:] {
				seen[string(k)] = struct{}{}
			}
		}
		duplicate := false
		if seen != nil {
			_, duplicate = seen[string(name)]
			seen[string(name)] = struct{}{}
		} else {
			for _, k := range s.keys[base:] {
				if bytes.Equal(k, name) {
					duplicate = true
					break
				}
			}
			s.keys = append(s.keys, name)
		}
		if duplicate {
			s.pos = at
			return s.fail("this member name occurs twice in its object")
		}
		if s.peek() != ':' && s.next() != ':' {
			return s.fail("a colon is needed after the member name")
		}
		s.pos++
		if c = s.peek(); c <= ' ' {
			c = s.next()
		}
		if err := s.value(c, depth); err != nil {
			return err
		}
		if c = s.peek(); c <= ' ' {
			c = s.next()
		}
		switch c {
		case ',':
			s.pos++
		case '}':
			s.pos++
			s.keys = s.keys[:base]
			return nil
		default:
			if s.pos == len(s.src) {
				return s.fail("the text ends inside an object")
			}
			return s.fail("a comma or } is needed here")
		}
		if c = s.peek(); c <= ' ' {
			c = s.next()
		}
	}
}

// name reads a member's name and gives it in our spelling, which of a text is
// unique: equal names are equal bytes.
func (s *scanner) name() ([]byte, error) {
	start, at := s.pos, len(s.dst)+s.pos-s.from
	if err := s.text(); err != nil {
		return nil, err
	}
	if s.from <= start {
		return s.src[start:s.pos], nil
	}
	s.write(s.pos, s.pos)
	return s.dst[at:], nil
}

func (s *scanner) number() error {
	end, reason := scanNumber(s.src, s.pos)
	s.pos = end
	if reason != "" {
		return s.fail(reason)
	}
	return nil
}

// scanNumber returns the end of the JSON number at src[i:], or where and why
// it is none.
func scanNumber(src []byte, i int) (end int, reason string) {
	digits := func() bool {
		from := i
		for i < len(src) && '0' <= src[i] && src[i] <= '9' {
			i++
		}
		return i > from
	}
	if i < len(src) && src[i] == '-' {
		i++
	}
	switch {
	case i < len(src) && src[i] == '0':
		i++
		if i < len(src) && '0' <= src[i] && src[i] <= '9' {
			return i, "a number must not begin with 0"
		}
	case !digits():
		return i, "a digit is needed here"
	}
	if i < len(src) && src[i] == '.' {
		i++
		if !digits() {
			return i, "a digit is needed after the decimal point"
		}
	}
	if i < len(src) && (src[i] == 'e' || src[i] == 'E') {
		i++
		if i < len(src) && (src[i] == '+' || src[i] == '-') {
			i++
		}
		if !digits() {
			return i, "a digit is needed in the exponent"
		}
	}
	return i, ""
}

// text reads a string and writes it in our spelling.
func (s *scanner) text() error {
	src := s.src
	i := s.pos + 1
	for {
		i += plainPrefix(src[i:])
		if i == len(src) {
			s.pos = i
			return s.fail("the text ends inside a string")
		}
		switch c := src[i]; {
		case c == '"':
			s.pos = i + 1
			return nil
		case c == '\\':
			n, r, reason := unescape(src[i:])
			if reason != "" {
				s.pos = i
				return s.fail(reason)
			}
			s.write(i, i+n)
			s.dst = appendRune(s.dst, r)
			i += n
		case c < 0x20:
			s.pos = i
			return s.fail("a control character inside a string must be escaped")
		default:
			n := validRune(src[i:])
			if n == 0 {
				s.pos = i
				return s.fail("this is not valid UTF-8")
			}
			i += n
		}
	}
}

// plainPrefix counts the leading bytes that stand for themselves in a string:
// printable ASCII but for the quote and the backslash. Eight at a time; the last
// few are looked at with some of those before them, which are plain.
func plainPrefix(b []byte) int {
	i := 0
	for ; i+8 <= len(b); i += 8 {
		if stop := notPlain(binary.LittleEndian.Uint64(b[i:])); stop != 0 {
			return i + bits.TrailingZeros64(stop)/8
		}
	}
	if i > 0 && i < len(b) {
		if stop := notPlain(binary.LittleEndian.Uint64(b[len(b)-8:])); stop != 0 {
			return len(b) - 8 + bits.TrailingZeros64(stop)/8
		}
		return len(b)
	}
	for ; i < len(b); i++ {
		if c := b[i]; c < 0x20 || c >= 0x80 || c == '"' || c == '\\' {
			break
		}
	}
	return i
}

// notPlain marks, among eight bytes, those that are not plain, at their highest
// bits. The lowest mark is exact: borrows only run upward.
func notPlain(w uint64) uint64 {
	const (
		ones  = 0x0101010101010101
		highs = 0x8080808080808080
	)
	quote := w ^ ones*'"'
	slash := w ^ ones*'\\'
	return ((w - ones*0x20) | (quote - ones) | (slash - ones) | w) & highs
}

// validRune returns the length of the UTF-8 sequence that b begins with, 0 if
// it is none.
func validRune(b []byte) int {
	r, n := utf8.DecodeRune(b)
	if r == utf8.RuneError && n <= 1 {
		return 0
	}
	return n
}

// unescape reads the escape sequence that b begins with: its length and the
// character it stands for.
func unescape(b []byte) (n int, r rune, reason string) {
	if len(b) < 2 {
		return 0, 0, "the text ends inside an escape sequence"
	}
	switch b[1] {
	case '"', '\\', '/':
		return 2, rune(b[1]), ""
	case 'b':
		return 2, '\b', ""
	case 'f':
		return 2, '\f', ""
	case 'n':
		return 2, '\n', ""
	case 'r':
		return 2, '\r', ""
	case 't':
		return 2, '\t', ""
	case 'u':
		r, ok := hex4(b[2:])
		if !ok {
			return 0, 0, "\\u needs four hexadecimal digits"
		}
		switch {
		case 0xDC00 <= r && r <= 0xDFFF:
			return 0, 0, "lone surrogate"
		case 0xD800 <= r && r <= 0xDBFF:
			if len(b) < 12 || b[6] != '\\' || b[7] != 'u' {
				return 0, 0, "lone surrogate"
			}
			low, ok := hex4(b[8:])
			if !ok || low < 0xDC00 || low > 0xDFFF {
				return 0, 0, "lone surrogate"
			}
			return 12, (r-0xD800)<<10 | (low - 0xDC00) + 0x10000, ""
		}
		return 6, r, ""
	}
	return 0, 0, "unknown escape sequence"
}

func hex4(b []byte) (r rune, ok bool) {
	if len(b) < 4 {
		return 0, false
	}
	for _, c := range b[:4] {
		r <<= 4
		switch {
		case '0' <= c && c <= '9':
			r |= rune(c - '0')
		case 'a' <= c && c <= 'f':
			r |= rune(c - 'a' + 10)
		case 'A' <= c && c <= 'F':
			r |= rune(c - 'A' + 10)
		default:
			return 0, false
		}
	}
	return r, true
}

const hexDigits = "0123456789abcdef"

// appendRune appends one character in our spelling.
func appendRune(dst []byte, r rune) []byte {
	switch {
	case r == '"' || r == '\\':
		return append(dst, '\\', byte(r))
	case r >= 0x20:
		return utf8.AppendRune(dst, r)
	}
	switch r {
	case '\b':
		return append(dst, '\\', 'b')
	case '\t':
		return append(dst, '\\', 't')
	case '\n':
		return append(dst, '\\', 'n')
	case '\f':
		return append(dst, '\\', 'f')
	case '\r':
		return append(dst, '\\', 'r')
	}
	return append(dst, '\\', 'u', '0', '0', hexDigits[r>>4&15], hexDigits[r&15])
}

// AppendString appends s as a JSON string in our spelling. ok is false, and
// dst as it was, when s is not valid UTF-8.
func AppendString(dst []byte, s string) (out []byte, ok bool) {
	begin := len(dst)
	dst = append(dst, '"')
	from := 0
	text := stringAsBytes(s)
	for i := plainPrefix(text); i < len(s); i += plainPrefix(text[i:]) {
		switch c := s[i]; {
		case c < 0x80:
			dst = append(dst, s[from:i]...)
			dst = appendRune(dst, rune(c))
			i++
			from = i
		default:
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n <= 1 {
				return dst[:begin], false
			}
			i += n
		}
	}
	dst = append(dst, s[from:]...)
	return append(dst, '"'), true
}
