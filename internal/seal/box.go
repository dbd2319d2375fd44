package seal

import (
	"bytes"
	"compress/flate"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	_ "embed"
	"encoding/binary"
	"errors"
	"io"
	"math/bits"
	"slices"
	"sync"
)

const (
	// KeySize is the length in bytes of every key: subject, epoch and page
	// keys, DEKs, and the keys derived from them.
	KeySize = 32
	// SaltSize is the length in bytes of the salt of a sealed line or wrapped
	// key.
	SaltSize = 16

	tagSize   = sha256.Size
	blockSize = aes.BlockSize
)

// What a box is made for is the first string of its info, so that no box can
// stand in another's place.
const (
	labelBox   = "kaizen-audit/box/v1"
	labelField = "kaizen-audit/field/v1"
	labelLine  = "kaizen-audit/line/v1"
	labelKey   = "kaizen-audit/key/v1"
)

// Errors of parsing and opening. None of them tells anything about a value.
var (
	// ErrMalformed means that it is no sealed thing of this format.
	ErrMalformed = errors.New("malformed")
	// ErrVersion means that it is sealed in a version that is not known here.
	ErrVersion = errors.New("unknown version, this program knows v1")
	// ErrOpen means that the key is not its key, or that it was changed or
	// stands in another place than it was made for.
	ErrOpen = errors.New("does not open with this key")
	// ErrTooLarge means that what is inside is larger than allowed.
	ErrTooLarge = errors.New("too large")
)

// Key opens one box: one field, one line or one wrapped key.
type Key [KeySize]byte

// info is what a box is bound to: its label and the names of its place, each
// behind its length in 4 bytes, big-endian.
func info(parts ...string) []byte { return appendInfo(nil, parts...) }

func appendInfo(dst []byte, parts ...string) []byte {
	n := 0
	for _, p := range parts {
		n += 4 + len(p)
	}
	dst = slices.Grow(dst, n)
	for _, p := range parts {
		dst = appendPrefixed(dst, p)
	}
	return dst
}

func appendPrefixed[T string | []byte](dst []byte, p T) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(p)))
	return append(dst, p...)
}

// sealBox makes the box of what pack gave, in its place.
func sealBox(k Key, info, packed []byte, m method) ([]byte, error) {
	end := len(packed)
	n := tagSize + padded(end-tagSize+1)
	box := slices.Grow(packed, n-end)[:n]
	body := box[tagSize:]
	clear(box[end:])
	box[end] = byte(m)
	keys, err := keysOf(k)
	if err != nil {
		return nil, err
	}
	keys.tag(box[:tagSize], info, body)
	return box, crypt(keys.enc(), box[:tagSize], body)
}

// openBox gives what is in a box, at most limit bytes. box is not changed.
func openBox(k Key, info, box []byte, limit int) ([]byte, error) {
	if !validBox(box) {
		return nil, ErrMalformed
	}
	keys, err := keysOf(k)
	if err != nil {
		return nil, err
	}
	tag, body := box[:tagSize], bytes.Clone(box[tagSize:])
	if err := crypt(keys.enc(), tag, body); err != nil {
		return nil, err
	}
	var want [tagSize]byte
	if keys.tag(want[:], info, body); !hmac.Equal(tag, want[:]) {
		return nil, ErrOpen
	}
	// From here on it is what the holder of the key sealed.
	end := len(body) - 1
	for end >= 0 && body[end] == 0 {
		end--
	}
	if end < 0 || padded(end+1) != len(body) {
		return nil, ErrMalformed
	}
	return method(body[end]).unpack(body[:end], limit)
}

// validBox tells by its length alone whether it can be a box.
func validBox(box []byte) bool {
	n := len(box) - tagSize
	return n > 0 && padded(n) == n
}

// crypt encrypts or decrypts body in place.
func crypt(enc, tag, body []byte) error {
	b, err := aes.NewCipher(enc)
	if err != nil {
		return err
	}
	cipher.NewCTR(b, tag[:blockSize]).XORKeyStream(body, body)
	return nil
}

// padded is the length of a body whose data and method take n bytes: the next
// multiple of 16, beyond 511 of a sixteenth of the power of two at or below n.
// It hides all but some four bits of a length and adds at most 1/16 or 15
// bytes.
func padded(n int) int {
	unit := max(blockSize, 1<<(bits.Len(uint(n))-1)/16)
	return (n + unit - 1) / unit * unit
}

// method is how data is stored in a body. It is never zero, and so marks where
// the padding begins.
type method byte

const (
	stored   method = 1
	deflated method = 2 // raw deflate (RFC 1951) with dictionary 1
)

// dictionary1 is what the compressor has seen before a line or field begins:
// names and spellings of this format and of usual tool calls, no text of
// anybody's. It is a part of version 1 and never changes.
//
//go:embed dictionary-1.txt
var dictionary1 []byte

// leastDeflated is the size from which on compression is tried: below it the
// padding eats what is saved.
const leastDeflated = 32

var deflaters = sync.Pool{New: func() any {
	w, err := flate.NewWriterDict(io.Discard, flate.DefaultCompression, dictionary1)
	if err != nil {
		panic(err) // the level is a constant
	}
	return w
}}

// pack appends room for a tag, and data, compressed where that makes the box
// smaller.
func pack(dst, data []byte) ([]byte, method) {
	dst = append(dst, make([]byte, tagSize)...)
	begin := len(dst)
	switch {
	case len(data) < leastDeflated:
	case len(data) <= deflateLimit:
		dst = deflateShort(slices.Grow(dst, len(data)+blockSize), data)
	default:
		out := bytes.NewBuffer(dst)
		w := deflaters.Get().(*flate.Writer)
		w.Reset(out)
		// A bytes.Buffer takes everything.
		w.Write(data)
		w.Close()
		deflaters.Put(w)
		dst = out.Bytes()
	}
	if n := len(dst) - begin; n > 0 && padded(n+1) < padded(len(data)+1) {
		return dst, deflated
	}
	return append(dst[:begin], data...), stored
}

// unpack is the reverse. It reads no more than limit bytes out of data.
func (m method) unpack(data []byte, limit int) ([]byte, error) {
	switch m {
	case stored:
		if len(data) > limit {
			return nil, ErrTooLarge
		}
		return data, nil
	case deflated:
		in := bytes.NewReader(data)
		r := flate.NewReaderDict(in, dictionary1)
		out, err := io.ReadAll(io.LimitReader(r, int64(limit)+1))
		switch {
		case len(out) > limit:
			return nil, ErrTooLarge
		case err != nil || in.Len() > 0:
			return nil, ErrMalformed
		}
		return out, nil
	}
	return nil, ErrMalformed
}
