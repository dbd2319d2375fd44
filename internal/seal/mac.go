package seal

import (
	"crypto/fips140"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"sync"
)

// A box takes five HMACs under four keys. The library makes each from new hash states,
// some fifty allocations a box, and an entry has several: more than all of the rest of
// an append. So they are made here from two SHA-256 states that are used again. Where
// Go's FIPS 140-3 module is on, its own HMAC and HKDF are: what an auditor wants is
// that, not speed. The vectors hold for both.
var validated = fips140.Enabled()

// macs makes HMAC-SHA-256 (RFC 2104) under one key after another.
type macs struct {
	inner, outer hash.Hash
	pad          [sha256.BlockSize]byte
	sum          [sha256.Size]byte
	length       [4]byte
	secret       [KeySize]byte // keys that go into a hash, which would make them escape
	keys         boxKeys
}

var macPool = sync.Pool{New: func() any { return &macs{inner: sha256.New(), outer: sha256.New()} }}

// key begins an HMAC. A key is at most a block long here, or is hashed as the RFC says.
func (m *macs) key(key []byte) {
	if len(key) > len(m.pad) {
		sum := sha256.Sum256(key)
		m.key(sum[:])
		return
	}
	for i := range m.pad {
		m.pad[i] = 0x36
	}
	for i, b := range key {
		m.pad[i] ^= b
	}
	m.inner.Reset()
	m.inner.Write(m.pad[:])
	for i := range m.pad {
		m.pad[i] ^= 0x36 ^ 0x5c
	}
	m.outer.Reset()
	m.outer.Write(m.pad[:])
}

// end writes the HMAC of what was written to inner.
func (m *macs) end(dst []byte) {
	m.outer.Write(m.inner.Sum(m.sum[:0]))
	copy(dst, m.outer.Sum(m.sum[:0]))
}

// free gives the states back without what they were keyed with.
func (m *macs) free() {
	clear(m.pad[:])
	clear(m.sum[:])
	clear(m.secret[:])
	clear(m.keys[:])
	m.inner.Reset()
	m.outer.Reset()
	macPool.Put(m)
}

// expand is HKDF-Expand (RFC 5869) to whole blocks of 32 bytes, at most 255.
func (m *macs) expand(prk, info, dst []byte) {
	for i := 0; i*sha256.Size < len(dst); i++ {
		m.key(prk)
		if i > 0 {
			m.inner.Write(dst[(i-1)*sha256.Size : i*sha256.Size])
		}
		m.inner.Write(info)
		m.length[0] = byte(i + 1)
		m.inner.Write(m.length[:1])
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
	m.key(salt)
	m.inner.Write(secret)
	m.end(m.secret[:])
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
	binary.BigEndian.PutUint32(m.length[:], uint32(len(info)))
	m.inner.Write(m.length[:])
	m.inner.Write(info)
	m.inner.Write(body)
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
