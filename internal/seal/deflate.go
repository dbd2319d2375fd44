package seal

import (
	"encoding/binary"
	"math/bits"
	"sync"
)

// Short values are compressed here and not by compress/flate: that one copies and
// hashes the dictionary for each of them, 45 µs where this takes 2. It is plain
// deflate (RFC 1951), one block with the fixed codes of §3.2.6, which dynamic ones
// do not beat below a kilobyte or two.

const (
	// shortest and longest are the lengths of a match (RFC 1951 §3.2.5); a match
	// of three bytes seldom pays here.
	shortestMatch = 4
	longestMatch  = 258
	// deflateLimit is how long a value may be for this: above, dynamic codes win,
	// and the time to make them is shared by many bytes.
	deflateLimit = 2 << 10

	hashBits = 12
	// chain is how many places of the dictionary are looked at for a match.
	chain = 16
)

func hash4(four uint32) uint32 { return four * 0x9E3779B1 >> (32 - hashBits) }

// places are where in the dictionary four bytes stand: the last place plus one, and
// the one before each.
type places struct {
	last [1 << hashBits]uint16
	prev []uint16
}

var dictionaryPlaces = sync.OnceValue(func() *places {
	p := &places{prev: make([]uint16, len(dictionary1))}
	for i := 0; i+4 <= len(dictionary1); i++ {
		h := hash4(binary.LittleEndian.Uint32(dictionary1[i:]))
		p.prev[i] = p.last[h]
		p.last[h] = uint16(i + 1)
	}
	return p
})

// deflateShort appends data in raw deflate with dictionary 1 preset.
func deflateShort(dst, data []byte) []byte {
	dict := dictionaryPlaces()
	var own [1 << 10]uint16 // the last place plus one in data, by ten bits of the hash
	w := bitWriter{out: dst}
	w.put(0b011, 3) // the last block, fixed codes
	matched := 0    // where the last match ends
	for i := 0; i < len(data); {
		length, distance := 0, 0
		if i+4 <= len(data) {
			next := binary.LittleEndian.Uint32(data[i:])
			h := hash4(next)
			if at := int(own[h>>2]) - 1; at >= 0 {
				length, distance = matchLength(data[at:], data[i:]), i-at
			}
			n := 0
			for at := int(dict.last[h]) - 1; at >= 0 && n < chain; at = int(dict.prev[at]) - 1 {
				n++
				if binary.LittleEndian.Uint32(dictionary1[at:]) != next {
					continue // as nearly always: hashes meet
				}
				if l := dictionaryMatch(at, data, i); l > length {
					length, distance = l, i+len(dictionary1)-at
				}
			}
			own[h>>2] = uint16(i + 1)
		}
		if length < shortestMatch {
			// Where nothing was found for long nothing will be, as in base64: fewer
			// places are looked at.
			for end := min(i+1+(i-matched)>>4, len(data)); i < end; i++ {
				w.put(uint64(literals[data[i]].code), literals[data[i]].n)
			}
			continue
		}
		w.match(length, distance)
		for j := i + 1; j < i+length && j+4 <= len(data); j++ {
			own[hash4(binary.LittleEndian.Uint32(data[j:]))>>2] = uint16(j + 1)
		}
		i += length
		matched = i
	}
	w.put(0, 7) // end of block
	return w.end()
}

func matchLength(a, b []byte) int {
	n := min(len(b), longestMatch)
	a, b = a[:n], b[:n] // a begins before b in the same data
	i := 0
	for ; i+8 <= n; i += 8 {
		if x := binary.LittleEndian.Uint64(a[i:]) ^ binary.LittleEndian.Uint64(b[i:]); x != 0 {
			return i + bits.TrailingZeros64(x)/8
		}
	}
	for ; i < n && a[i] == b[i]; i++ {
	}
	return i
}

// dictionaryMatch is how far data from i on is what stands at a place of the
// dictionary; behind the dictionary's end data itself begins.
func dictionaryMatch(at int, data []byte, i int) int {
	whole := len(dictionary1) - at
	l := matchLength(dictionary1[at:], data[i:min(len(data), i+whole)])
	if l < whole || l == longestMatch {
		return l
	}
	n := min(len(data)-i, longestMatch)
	for l < n && data[l-whole] == data[i+l] {
		l++
	}
	return l
}

// bitWriter writes bits from the lowest on (RFC 1951 §3.1.1).
type bitWriter struct {
	out []byte
	acc uint64
	n   uint
}

func (w *bitWriter) put(v uint64, n uint) {
	w.acc |= v << w.n // at most 31 bits wait
	if w.n += n; w.n >= 32 {
		w.out = binary.LittleEndian.AppendUint32(w.out, uint32(w.acc))
		w.acc >>= 32
		w.n -= 32
	}
}

// code writes a Huffman code, whose highest bit comes first.
func (w *bitWriter) code(v uint32, n uint) {
	w.put(uint64(bits.Reverse32(v)>>(32-n)), n)
}

// literals are the codes of bytes, as put takes them.
var literals = func() (all [256]struct {
	code uint16
	n    uint
}) {
	for c := range all {
		code, n := 0x30+uint32(c), uint(8)
		if c >= 144 {
			code, n = 0x190+uint32(c)-144, 9
		}
		all[c].code, all[c].n = uint16(bits.Reverse32(code)>>(32-n)), n
	}
	return all
}()

func (w *bitWriter) match(length, distance int) {
	// Length codes 257 to 285: four for each number of extra bits from the third
	// group on; 285 is 258 alone.
	switch l := uint32(length - 3); {
	case length == longestMatch:
		w.lengthCode(28)
	case l < 8:
		w.lengthCode(l)
	default:
		extra := uint(bits.Len32(l)) - 3
		w.lengthCode(uint32(extra)*4 + l>>extra)
		w.put(uint64(l&(1<<extra-1)), extra)
	}
	switch d := uint32(distance - 1); {
	case d < 4:
		w.code(d, 5)
	default:
		extra := uint(bits.Len32(d)) - 2
		w.code(uint32(extra)*2+d>>extra, 5)
		w.put(uint64(d&(1<<extra-1)), extra)
	}
}

// lengthCode writes the length code 257 + n.
func (w *bitWriter) lengthCode(n uint32) {
	if n < 23 {
		w.code(n+1, 7)
	} else {
		w.code(0xC0+n-23, 8)
	}
}

// end writes what is left, filled up to a byte.
func (w *bitWriter) end() []byte {
	for w.n = (w.n + 7) / 8; w.n > 0; w.n-- {
		w.out = append(w.out, byte(w.acc))
		w.acc >>= 8
	}
	return w.out
}
