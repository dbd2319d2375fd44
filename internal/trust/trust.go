// Package trust says whose signatures count on the checkpoints of a trail whose
// signing key was rotated (docs/format.md §3). It does no I/O.
//
// trail.json lists all keys, and for each but the first a rotation: a note that
// both the key before and the key itself have signed. So who knows one key of the
// list, from wherever, needs nothing else: forwards the key before vouches for the
// next, backwards the next for the one before. A key's own signature counts for the
// tree sizes that it was in use for; while two overlap, both sign.
//
// Where a signing key was lost, the next one can only name it itself (Replacement):
// who knows the next one trusts what the lost one has signed, and who knows the lost
// one alone is told (ReplacedError) and trusts nothing behind it.
package trust

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// Key is a verifier key of a trail, as trail.json lists them.
type Key struct {
	VKey string `json:"vkey"`
	// From is the first tree size that it signs.
	From int64 `json:"from"`
	// Rotation is the note of both keys, on every key but the first.
	Rotation string `json:"rotation,omitempty"`
	// Replacement is there instead where the key before was lost: a note of this key
	// alone.
	Replacement string `json:"replacement,omitempty"`
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

// ReplacedError: the key that is trusted was lost, or one that came after it, and
// another one signs since, which it has not signed for.
type ReplacedError struct {
	From int64 // the first tree size that the other key signs
	VKey string
	// Before are the keys that what is trusted vouches for: those before that size.
	Before Set
}

func (e *ReplacedError) Error() string {
	return fmt.Sprintf("the key was lost, and from %d entries on another one signs, %s, which it has not signed for: ask who restored the trail whether that is theirs", e.From, e.VKey)
}

// Chain trusts the keys of a list because one of them, vkey, is. A list whose
// rotations do not verify is ErrUnlinked as a whole; where vkey or one that it
// vouches for was lost and replaced it is a ReplacedError.
func Chain(list []Key, vkey string) (Set, error) {
	at, replaced := -1, 0
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
			if k.Replacement != "" && at >= 0 && replaced == 0 {
				replaced = i
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
	if replaced > 0 {
		return Set{}, &ReplacedError{From: list[replaced].From, VKey: list[replaced].VKey, Before: Set{s.origin, s.keys[:replaced]}}
	}
	return s, nil
}

// The headers begin the text of a rotation and of a replacement. A checkpoint begins
// with an origin, which is followed by a size: none is ever taken for the other.
const (
	header            = "kaizen-audit/key-rotation/v1"
	replacementHeader = "kaizen-audit/key-replacement/v1"
)

func rotationText(header, origin, was, next string, from int64) string {
	return fmt.Sprintf("%s\n%s\n%s\n%s\n%d\n", header, origin, was, next, from)
}

// ParseRotation reads what SignRotation signs; ok is false for any other text.
func ParseRotation(text string) (origin, was, next string, from int64, ok bool) {
	lines := strings.Split(text, "\n")
	if len(lines) != 6 {
		return "", "", "", 0, false
	}
	origin, was, next = lines[1], lines[2], lines[3]
	from, err := strconv.ParseInt(lines[4], 10, 64)
	return origin, was, next, from, err == nil && text == rotationText(header, origin, was, next, from)
}

// SignRotation is the rotation from a key to the next, which signs tree sizes from
// from on.
func SignRotation(was, next note.Signer, wasVKey, nextVKey string, from int64) (string, error) {
	signed, err := note.Sign(&note.Note{Text: rotationText(header, was.Name(), wasVKey, nextVKey, from)}, was, next)
	return string(signed), err
}

// SignReplacement is the replacement of a key that was lost by the next, which signs
// tree sizes from from on. The next one alone signs it.
func SignReplacement(next note.Signer, wasVKey, nextVKey string, from int64) (string, error) {
	signed, err := note.Sign(&note.Note{Text: rotationText(replacementHeader, next.Name(), wasVKey, nextVKey, from)}, next)
	return string(signed), err
}

func linked(was, next note.Verifier, wasVKey string, k Key) bool {
	if k.Replacement != "" {
		n, err := note.Open([]byte(k.Replacement), note.VerifierList(next))
		return err == nil && k.Rotation == "" && n.Text == rotationText(replacementHeader, next.Name(), wasVKey, k.VKey, k.From)
	}
	n, err := note.Open([]byte(k.Rotation), note.VerifierList(was, next))
	return err == nil && len(n.Sigs) == 2 && n.Text == rotationText(header, next.Name(), wasVKey, k.VKey, k.From)
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
