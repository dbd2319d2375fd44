// Package trust says whose signatures count on the checkpoints of a trail whose
// signing key was rotated (docs/format.md §3). It does no I/O.
//
// trail.json lists all keys, and for each but the first a rotation: a note that
// both the key before and the key itself have signed. So who knows one key of the
// list, from wherever, needs nothing else: forwards the key before vouches for the
// next, backwards the next for the one before. A key's own signature counts for the
// tree sizes that it was in use for; while two overlap, both sign.
package trust

import (
	"errors"
	"fmt"
	"math"

	"golang.org/x/mod/sumdb/note"
)

// Key is a verifier key of a trail, as trail.json lists them.
type Key struct {
	VKey string `json:"vkey"`
	// From is the first tree size that it signs.
	From int64 `json:"from"`
	// Rotation is the note of both keys, on every key but the first.
	Rotation string `json:"rotation,omitempty"`
}

// Set are keys whose signatures count. It is a note.Verifiers.
type Set struct {
	origin string
	keys   []trusted
}

// trusted signs sizes from first to last.
type trusted struct {
	note.Verifier
	first, last int64
}

// By trusts one key, for every size.
func By(v note.Verifier) Set {
	return Set{origin: v.Name(), keys: []trusted{{v, 0, math.MaxInt64}}}
}

// One is By for a key's text.
func One(vkey string) (Set, error) {
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return Set{}, err
	}
	return By(v), nil
}

// Errors of a list of keys.
var (
	// ErrUnknown means that the key that is trusted is not in the list.
	ErrUnknown = errors.New("the key is none of the trail's")
	// ErrUnlinked means that a key of the list is not linked to its neighbour.
	ErrUnlinked = errors.New("a key is not signed for by the one beside it")
)

// Chain trusts the keys of a list because one of them, vkey, is. A list whose
// rotations do not verify is ErrUnlinked as a whole.
func Chain(list []Key, vkey string) (Set, error) {
	at := -1
	var s Set
	for i, k := range list {
		v, err := note.NewVerifier(k.VKey)
		if err != nil {
			return Set{}, fmt.Errorf("vkey: %w", err)
		}
		if i == 0 {
			s.origin = v.Name()
		} else if last := &s.keys[i-1]; v.Name() != s.origin || k.From <= last.first || k.From <= 1 {
			return Set{}, ErrUnlinked
		} else {
			last.last = k.From - 1
			if !linked(last.Verifier, v, list[i-1].VKey, k) {
				return Set{}, ErrUnlinked
			}
		}
		if k.VKey == vkey {
			at = i
		}
		s.keys = append(s.keys, trusted{v, k.From, math.MaxInt64})
	}
	if at < 0 {
		return Set{}, ErrUnknown
	}
	if len(s.keys) > 0 {
		s.keys[0].first = 0
	}
	return s, nil
}

// header begins the text of a rotation. A checkpoint begins with an origin, which is
// followed by a size: none is ever taken for the other.
const header = "kaizen-audit/key-rotation/v1"

func rotationText(origin, was, next string, from int64) string {
	return fmt.Sprintf("%s\n%s\n%s\n%s\n%d\n", header, origin, was, next, from)
}

// SignRotation is the rotation from a key to the next, which signs tree sizes from
// from on.
func SignRotation(was, next note.Signer, wasVKey, nextVKey string, from int64) (string, error) {
	signed, err := note.Sign(&note.Note{Text: rotationText(was.Name(), wasVKey, nextVKey, from)}, was, next)
	return string(signed), err
}

func linked(was, next note.Verifier, wasVKey string, k Key) bool {
	n, err := note.Open([]byte(k.Rotation), note.VerifierList(was, next))
	return err == nil && len(n.Sigs) == 2 && n.Text == rotationText(next.Name(), wasVKey, k.VKey, k.From)
}

// Name is the trail's origin.
func (s Set) Name() string { return s.origin }

// IsZero reports whether there is no key.
func (s Set) IsZero() bool { return len(s.keys) == 0 }

// Verifier is the key of a name and hash.
func (s Set) Verifier(name string, hash uint32) (note.Verifier, error) {
	for _, k := range s.keys {
		if k.Name() == name && k.KeyHash() == hash {
			return k.Verifier, nil
		}
	}
	return nil, &note.UnknownVerifierError{Name: name, KeyHash: hash}
}

// Signed tells whether a note whose signatures verified was signed, as a checkpoint
// of a size, by a key that was in use for that.
func (s Set) Signed(n *note.Note, size int64) bool {
	for _, sig := range n.Sigs {
		for _, k := range s.keys {
			if k.Name() == sig.Name && k.KeyHash() == sig.Hash && k.first <= size && size <= k.last {
				return true
			}
		}
	}
	return false
}
