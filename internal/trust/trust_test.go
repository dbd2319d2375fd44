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
	return append(list, Key{next.vkey, from, r})
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
	oneSided, err := note.Sign(&note.Note{Text: rotationText(origin, evil.vkey, a.vkey, 50)}, evil)
	if err != nil {
		t.Fatal(err)
	}
	for name, list := range map[string][]Key{
		"before":        {{VKey: evil.vkey}, {a.vkey, 50, string(oneSided)}},
		"behind":        {{VKey: a.vkey}, {evil.vkey, 50, string(oneSided)}},
		"other from":    {{VKey: a.vkey}, {b.vkey, 99, good[1].Rotation}},
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

// FuzzChain: whatever stands in trail.json, no key but a's and b's counts.
func FuzzChain(f *testing.F) {
	a, b := key(f), key(f)
	good, err := json.Marshal(rotate(f, []Key{{VKey: a.vkey}}, a, b, 100))
	if err != nil {
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
		if err != nil {
			return
		}
		for _, k := range s.keys {
			if k.KeyHash() != a.KeyHash() && k.KeyHash() != b.KeyHash() {
				t.Errorf("another key is trusted: %s", text)
			}
		}
	})
}
