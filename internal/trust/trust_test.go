package trust

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"golang.org/x/mod/sumdb/note"
)

const origin = "example.com/log"

type pair struct {
	note.Signer
	vkey string
}

func key(t testing.TB) pair {
	t.Helper()
	skey, vkey, err := note.GenerateKey(rand.Reader, origin)
	if err != nil {
		t.Fatal(err)
	}
	s, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	return pair{s, vkey}
}

func rotate(t testing.TB, list []Key, was, next pair, from int64) []Key {
	t.Helper()
	r, err := SignRotation(was, next, was.vkey, next.vkey, from)
	if err != nil {
		t.Fatal(err)
	}
	return append(list, Key{VKey: next.vkey, From: from, Rotation: r})
}

// counts tells whether a checkpoint of a size, signed by some keys, counts.
func counts(t *testing.T, s Set, size int64, by ...note.Signer) bool {
	t.Helper()
	signed, err := note.Sign(&note.Note{Text: fmt.Sprintf("%s\n%d\nAAAA\n", origin, size)}, by...)
	if err != nil {
		t.Fatal(err)
	}
	n, err := note.Open(signed, s)
	return err == nil && s.Signed(n, size)
}

func TestOneKeyOfTheListIsEnough(t *testing.T) {
	a, b, c := key(t), key(t), key(t)
	list := rotate(t, rotate(t, []Key{{VKey: a.vkey}}, a, b, 100), b, c, 200)
	for _, anchor := range []pair{a, b, c} {
		s, err := Chain(list, anchor.vkey)
		if err != nil {
			t.Fatal(err)
		}
		for _, tc := range []struct {
			size int64
			by   []note.Signer
			want bool
		}{
			{1, []note.Signer{a}, true}, {99, []note.Signer{a}, true}, {100, []note.Signer{a}, false},
			{99, []note.Signer{b}, false}, {100, []note.Signer{b}, true}, {150, []note.Signer{b, a}, true},
			{200, []note.Signer{b}, false}, {200, []note.Signer{c, b}, true}, {1 << 40, []note.Signer{c}, true},
			{99, []note.Signer{c}, false}, {5, []note.Signer{key(t)}, false},
		} {
			if got := counts(t, s, tc.size, tc.by...); got != tc.want {
				t.Errorf("size %d: %v", tc.size, got)
			}
		}
	}
}

// Whoever has no key of the trail links none to it, before or behind.
func TestNobodyElseIsLinked(t *testing.T) {
	a, b, evil := key(t), key(t), key(t)
	good := rotate(t, []Key{{VKey: a.vkey}}, a, b, 100)
	later := rotate(t, []Key{{VKey: evil.vkey}}, evil, b, 100)[1]
	oneSided, err := note.Sign(&note.Note{Text: rotationText(header, origin, evil.vkey, a.vkey, 50)}, evil)
	if err != nil {
		t.Fatal(err)
	}
	for name, list := range map[string][]Key{
		"before":        {{VKey: evil.vkey}, {VKey: a.vkey, From: 50, Rotation: string(oneSided)}},
		"behind":        {{VKey: a.vkey}, {VKey: evil.vkey, From: 50, Rotation: string(oneSided)}},
		"other from":    {{VKey: a.vkey}, {VKey: b.vkey, From: 99, Rotation: good[1].Rotation}},
		"no note":       {{VKey: a.vkey}, {VKey: b.vkey, From: 100}},
		"exchanged":     {{VKey: a.vkey}, later},
		"not ascending": rotate(t, good, b, evil, 100),
	} {
		if _, err := Chain(list, a.vkey); !errors.Is(err, ErrUnlinked) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Chain(good, evil.vkey); !errors.Is(err, ErrUnknown) {
		t.Errorf("a key that is not there: %v", err)
	}
	if _, err := Chain(nil, a.vkey); !errors.Is(err, ErrUnknown) {
		t.Errorf("no list: %v", err)
	}
}

func replace(t testing.TB, list []Key, was string, next pair, from int64) []Key {
	t.Helper()
	r, err := SignReplacement(next, was, next.vkey, from)
	if err != nil {
		t.Fatal(err)
	}
	return append(list, Key{VKey: next.vkey, From: from, Replacement: r})
}

// A lost key's successor vouches for what was before, and nobody for it: who knows a
// key from before the loss trusts what that one has signed and no more.
func TestALostKeyVouchesForNothingBehindIt(t *testing.T) {
	a, b, c, d := key(t), key(t), key(t), key(t)
	list := replace(t, rotate(t, []Key{{VKey: a.vkey}}, a, b, 100), b.vkey, c, 200)
	list = rotate(t, list, c, d, 300)
	for _, known := range []pair{c, d} {
		s, err := Chain(list, known.vkey)
		if err != nil || !counts(t, s, 50, a) || !counts(t, s, 150, b) || !counts(t, s, 250, c) || !counts(t, s, 350, d) || counts(t, s, 200, b) {
			t.Errorf("with a key from after the loss: %v", err)
		}
	}
	for _, known := range []pair{a, b} {
		s, err := Chain(list, known.vkey)
		var replaced *ReplacedError
		if !errors.As(err, &replaced) || !s.IsZero() || replaced.From != 200 || replaced.VKey != c.vkey {
			t.Fatalf("with a key from before the loss: %v", err)
		}
		if s = replaced.Before; !counts(t, s, 50, a) || !counts(t, s, 199, b) || counts(t, s, 200, b) || counts(t, s, 200, c) || counts(t, s, 350, d) {
			t.Error("what counts is not what was signed before the loss")
		}
	}
	// Whoever has no key of the trail can say that one was lost, and is believed by
	// nobody who knows it.
	evil := key(t)
	if _, err := Chain(replace(t, []Key{{VKey: a.vkey}}, a.vkey, evil, 2), a.vkey); !errors.As(err, new(*ReplacedError)) {
		t.Errorf("a key that somebody else has made: %v", err)
	}
	forged := replace(t, []Key{{VKey: evil.vkey}}, evil.vkey, a, 100)
	forged[1].Replacement = replace(t, nil, evil.vkey, evil, 100)[0].Replacement
	both := rotate(t, []Key{{VKey: a.vkey}}, a, b, 100)
	both[1].Replacement = replace(t, nil, a.vkey, b, 100)[0].Replacement
	for name, list := range map[string][]Key{"put before": forged, "both": both,
		"another size": {{VKey: a.vkey}, {VKey: b.vkey, From: 99, Replacement: both[1].Replacement}}} {
		if _, err := Chain(list, list[1].VKey); !errors.Is(err, ErrUnlinked) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzChain: whatever stands in trail.json, no key but a's and b's counts.
func FuzzChain(f *testing.F) {
	a, b := key(f), key(f)
	good, err := json.Marshal(rotate(f, []Key{{VKey: a.vkey}}, a, b, 100))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	if good, err = json.Marshal(replace(f, []Key{{VKey: a.vkey}}, a.vkey, b, 100)); err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`[{"vkey":"x","from":0}]`))
	f.Add([]byte(`[{"vkey":"` + a.vkey + `","from":9223372036854775807},{"vkey":"` + b.vkey + `","from":-1}]`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var list []Key
		if json.Unmarshal(text, &list) != nil {
			return
		}
		s, err := Chain(list, a.vkey)
		var replaced *ReplacedError
		if errors.As(err, &replaced) {
			s = replaced.Before
		} else if err != nil {
			return
		}
		for _, k := range s.keys {
			if k.KeyHash() != a.KeyHash() && k.KeyHash() != b.KeyHash() {
				t.Errorf("another key is trusted: %s", text)
			}
		}
	})
}

// FuzzRotation: a text that is read as a rotation is one, spelled as it is signed, and
// no checkpoint.
func FuzzRotation(f *testing.F) {
	was, next := key(f), key(f)
	f.Add(rotationText(header, origin, was.vkey, next.vkey, 7))
	f.Add(rotationText(replacementHeader, origin, was.vkey, next.vkey, 7))
	f.Add(rotationText(header, origin, was.vkey, next.vkey, -1))
	f.Add(origin + "\n7\nNL/bZVvIdHiZZ7wQXx/xgyW7fve51bC0BF2EMGZMopM=\n")
	f.Fuzz(func(t *testing.T, text string) {
		of, from, to, size, ok := ParseRotation(text)
		if ok && (rotationText(header, of, from, to, size) != text || text[:len(header)] != header) {
			t.Errorf("%q", text)
		}
	})
}
