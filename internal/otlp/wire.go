package otlp

import (
	"encoding/binary"
	"errors"
	"unsafe"
)

// errWire is protobuf that is none.
var errWire = errors.New("this is not a message in protobuf's encoding")

// Wire types (protobuf.dev/programming-guides/encoding).
const (
	varint    = 0
	fixed64   = 1
	delimited = 2
	fixed32   = 5
)

// wire reads the fields of one protobuf message. The first error ends it.
type wire struct {
	b   []byte
	err error

	number uint64 // of the field
	kind   byte   // its wire type
	n      uint64 // its value, if a number
	s      []byte // its value, if bytes: a part of the message
}

// next reads a field. Groups, which nothing in OTLP has, are no fields here.
func (w *wire) next() bool {
	if len(w.b) == 0 || w.err != nil {
		return false
	}
	tag := w.varint()
	w.number, w.kind, w.n, w.s = tag>>3, byte(tag&7), 0, nil
	if w.number == 0 {
		w.err = errWire
	}
	switch w.kind {
	case varint:
		w.n = w.varint()
	case fixed64:
		if len(w.b) < 8 {
			w.err = errWire
			break
		}
		w.n, w.b = binary.LittleEndian.Uint64(w.b), w.b[8:]
	case fixed32:
		if len(w.b) < 4 {
			w.err = errWire
			break
		}
		w.n, w.b = uint64(binary.LittleEndian.Uint32(w.b)), w.b[4:]
	case delimited:
		n := w.varint()
		if n > uint64(len(w.b)) {
			w.err = errWire
			break
		}
		w.s, w.b = w.b[:n:n], w.b[n:]
	default:
		w.err = errWire
	}
	return w.err == nil
}

func (w *wire) varint() uint64 {
	if len(w.b) > 0 && w.b[0] < 0x80 {
		n := uint64(w.b[0])
		w.b = w.b[1:]
		return n
	}
	n, size := binary.Uvarint(w.b)
	if size <= 0 {
		w.err, w.b = errWire, nil
		return 0
	}
	w.b = w.b[size:]
	return n
}

// is tells whether the field is that one: a field of another wire type is an
// unknown one, as other decoders have it.
func (w *wire) is(number uint64, kind byte) bool { return w.number == number && w.kind == kind }

// count tells how often a message has a field, for one allocation of them all.
func count(message []byte, number uint64) int {
	n := 0
	for w := (wire{b: message}); w.next(); {
		if w.is(number, delimited) {
			n++
		}
	}
	return n
}

// text shares the memory of b, which is the request's body and does not change.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
