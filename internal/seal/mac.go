package seal

import (
	"bytes"
	"crypto/fips140"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"sync"
)

// A box takes five HMACs under four keys. The library makes each from new hash states,
// some fifty allocations a box, and an entry has several: more than all of the rest of
// an append. So they are made here from buffers that are used again. Where
// Go's FIPS 140-3 module is on, its own HMAC and HKDF are: what an auditor wants is
// that, not speed. The vectors hold for both.
var validated = fips140.Enabled()

// macs makes HMAC-SHA-256 (RFC 2104) under one key after another, each of two hashes
// over a buffer: that takes half the time of writing to a hash state by and by.
type macs struct {
	in     []byte                               // the inner block, and what is authenticated
	out    [sha256.BlockSize + sha256.Size]byte // the outer block, and the inner hash
	secret [KeySize]byte                        // keys that go into a hash, which would make them escape
	keys   boxKeys
}

var macPool = sync.Pool{New: func() any { return new(macs) }}

var (
	innerPad = [sha256.BlockSize]byte(bytes.Repeat([]byte{0x36}, sha256.BlockSize))
	outerPad = [sha256.BlockSize]byte(bytes.Repeat([]byte{0x5c}, sha256.BlockSize))
)

// key begins an HMAC. A key is at most a block long here, or is hashed as the RFC says.
func (m *macs) key(key []byte) {
	if len(key) > sha256.BlockSize {
		sum := sha256.Sum256(key)
		m.key(sum[:])
		return
	}
	m.in = append(m.in[:0], innerPad[:]...)
	subtle.XORBytes(m.in, m.in, key)
	copy(m.out[:], outerPad[:])
	subtle.XORBytes(m.out[:], m.out[:], key)
}

// end writes the HMAC of what is in m.in behind the block.
func (m *macs) end(dst []byte) {
	sum := sha256.Sum256(m.in)
	copy(m.out[sha256.BlockSize:], sum[:])
	sum = sha256.Sum256(m.out[:])
	copy(dst, sum[:])
}

// mostKept is how large a buffer is kept.
const mostKept = 8 << 10

// free gives the buffers back without what they were keyed with.
func (m *macs) free() {
	clear(m.in[:cap(m.in)])
	clear(m.out[:])
	clear(m.secret[:])
	clear(m.keys[:])
	if cap(m.in) > mostKept {
		m.in = nil
	}
	macPool.Put(m)
}

// extract is HKDF-Extract (RFC 5869), to m.secret.
func (m *macs) extract(secret, salt []byte) {
	m.key(salt)
	m.in = append(m.in, secret...)
	m.end(m.secret[:])
}

// expand is HKDF-Expand (RFC 5869) to whole blocks of 32 bytes, at most 255.
func (m *macs) expand(prk, info, dst []byte) {
	for i := 0; i*sha256.Size < len(dst); i++ {
		m.key(prk)
		if i > 0 {
			m.in = append(m.in, dst[(i-1)*sha256.Size:i*sha256.Size]...)
		}
		m.in = append(append(m.in, info...), byte(i+1))
		m.end(dst[i*sha256.Size : (i+1)*sha256.Size])
	}
}

// derive is HKDF-SHA-256 (RFC 5869).
func derive(secret, salt, info []byte) (k Key, err error) {
	if validated {
		b, err := hkdf.Key(sha256.New, secret, salt, string(info), KeySize)
		copy(k[:], b)
		return k, err
	}
	m := macPool.Get().(*macs)
	defer m.free()
	m.extract(secret, salt)
	m.expand(m.secret[:], info, m.keys[:KeySize])
	copy(k[:], m.keys[:])
	return k, nil
}

// boxKeys are the keys of a box: for the cipher, then for the tag.
type boxKeys [2 * KeySize]byte

var boxLabel = []byte(labelBox)

func keysOf(k Key) (b boxKeys, err error) {
	if validated {
		return keysValidated(k)
	}
	m := macPool.Get().(*macs)
	defer m.free()
	m.secret = k
	m.expand(m.secret[:], boxLabel, m.keys[:])
	return m.keys, nil
}

// keysValidated is keysOf by the module. (What it is given escapes: it is apart so
// that keysOf's does not.)
//
//go:noinline
func keysValidated(k Key) (b boxKeys, err error) {
	derived, err := hkdf.Expand(sha256.New, k[:], labelBox, len(b))
	copy(b[:], derived)
	return b, err
}

func (b *boxKeys) enc() []byte { return b[:KeySize] }

// tag writes the tag of a box to dst.
func (b *boxKeys) tag(dst, info, body []byte) {
	if validated {
		tagValidated(dst, *b, info, body)
		return
	}
	m := macPool.Get().(*macs)
	defer m.free()
	m.keys = *b
	m.key(m.keys[KeySize:])
	m.in = append(appendPrefixed(m.in, info), body...)
	m.end(dst)
}

// tagValidated is tag by the module.
//
//go:noinline
func tagValidated(dst []byte, b boxKeys, info, body []byte) {
	h := hmac.New(sha256.New, b[KeySize:])
	h.Write(appendPrefixed(nil, info))
	h.Write(body)
	copy(dst, h.Sum(nil))
}
