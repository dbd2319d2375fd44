package entry

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"sync"
	"time"
	"unsafe"
)

// TimeLayout is how an entry spells a time.
const TimeLayout = "2006-01-02T15:04:05.000Z"

// AppendTime appends t, which must be UTC and in the years 0000 to 9999, as
// TimeLayout; digits past milliseconds are cut.
func AppendTime(dst []byte, t time.Time) []byte {
	dst, _ = appendTime(dst, t)
	return dst
}

// appendTime is AppendTime, and ok is false where the year has no four digits.
func appendTime(dst []byte, t time.Time) (out []byte, ok bool) {
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	ms := t.Nanosecond() / 1e6
	b := [len(TimeLayout)]byte{4: '-', 7: '-', 10: 'T', 13: ':', 16: ':', 19: '.', 23: 'Z'}
	two := func(at, n int) { b[at], b[at+1] = byte('0'+n/10), byte('0'+n%10) }
	two(0, year/100)
	two(2, year%100)
	two(5, int(month))
	two(8, day)
	two(11, hour)
	two(14, minute)
	two(17, second)
	two(20, ms/10)
	b[22] = byte('0' + ms%10)
	return append(dst, b[:]...), 0 <= year && year <= 9999
}

// localLayouts are the times without a zone that are understood: what
// Python's datetime.isoformat() writes, with T or a space.
var localLayouts = []string{
	"2006-01-02T15:04:05.999999999",
	"2006-01-02 15:04:05.999999999",
}

// ParseTime reads an RFC 3339 time of any precision. A time without a zone is
// taken as local time, which local reports.
func ParseTime(s string) (t time.Time, local bool, err error) {
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, false, nil
	}
	if t, err := time.Parse("2006-01-02 15:04:05.999999999Z07:00", s); err == nil {
		return t, false, nil
	}
	for _, layout := range localLayouts {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, true, nil
		}
	}
	return time.Time{}, false, errors.New("must be an RFC 3339 time such as 2025-10-26T10:53:45.123Z")
}

// randomness is fetched a page at a time: a call for each event would cost
// more than encoding it.
var randomness struct {
	sync.Mutex
	buf  [1024]byte
	left int
}

// random fills b, at most 32 bytes, with fresh bits of crypto/rand. A byte
// that was given out is wiped, so that no later read of memory shows it.
func random(b []byte) {
	r := &randomness
	r.Lock()
	if r.left < len(b) {
		rand.Read(r.buf[:]) // never fails: crypto/rand ends the program rather
		r.left = len(r.buf)
	}
	from := r.buf[r.left-len(b) : r.left]
	copy(b, from)
	clear(from)
	r.left -= len(b)
	r.Unlock()
}

// NewEventID makes a UUIDv7 (RFC 9562 §5.7): 48 bits of milliseconds and 74
// fresh random bits. They keep a published line digest from being guessed, so
// no counter takes their place.
func NewEventID(t time.Time) string {
	var id [16]byte
	random(id[6:])
	ms := uint64(t.UnixMilli())
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	id[6] = id[6]&0x0f | 0x70
	id[8] = id[8]&0x3f | 0x80
	out := make([]byte, 36)
	b := binary.BigEndian
	b.PutUint64(out, hex8(b.Uint32(id[:])))
	for i, at := range [...]int{9, 19} { // four digits, a hyphen, four more
		digits := hex8(b.Uint32(id[4*(i+1):]))
		b.PutUint32(out[at:], uint32(digits>>32))
		b.PutUint32(out[at+5:], uint32(digits))
	}
	b.PutUint64(out[28:], hex8(b.Uint32(id[12:])))
	out[8], out[13], out[18], out[23] = '-', '-', '-', '-'
	return bytesAsString(out)
}

// hex8 gives the hexadecimal digits of x as eight bytes of text, the first highest.
func hex8(x uint32) uint64 {
	const each = 0x0101010101010101
	w := uint64(x)
	w = (w | w<<16) & 0x0000FFFF0000FFFF
	w = (w | w<<8) & 0x00FF00FF00FF00FF
	w = (w | w<<4) & 0x0F0F0F0F0F0F0F0F
	letters := (w + 6*each) >> 4 & each
	return w + '0'*each + letters*('a'-'0'-10)
}

// NewTraceID makes a trace id as W3C Trace Context has it: 32 lower-case hex
// digits, random.
func NewTraceID() string {
	var id [16]byte
	random(id[:])
	return bytesAsString(appendHex(make([]byte, 0, 32), id[:]))
}

// bytesAsString shares b, which must not change afterwards.
func bytesAsString(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// stringAsBytes shares s, so that its bytes must only be read.
func stringAsBytes(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }
