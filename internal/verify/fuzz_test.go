package verify

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/kaizen-audit/kaizen-audit/internal/trust"
)

func FuzzParseIdentity(f *testing.F) {
	f.Add([]byte(`{"format":1,"origin":"example.com/trail","vkey":"example.com/trail+b6a9731a+AYqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c"}`))
	f.Add([]byte(`{"format":2}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		id, err := parseIdentity(data)
		if err == nil && (id.Format != 1 || id.Origin == "" || id.VKey == "") {
			t.Fatalf("%+v", id)
		}
	})
}

// The published checkpoint of three lines parses; nothing else that it is
// changed into does.
func FuzzParseCheckpoint(f *testing.F) {
	const vkey = "example.com/trail+b6a9731a+AYqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c"
	const signed = "example.com/trail\n3\nNL/bZVvIdHiZZ7wQXx/xgyW7fve51bC0BF2EMGZMopM=\n\n" +
		"\u2014 example.com/trail tqlzGu9nMpE1o87ZJQ70I38jlYwTr1ityUuD0dlZg8pWeMJi08NLAgEsKj+ZKmMU1dVb1msR2Gnn0DPOqAEMKJTt8wI=\n"
	key, err := note.NewVerifier(vkey)
	if err != nil {
		f.Fatal(err)
	}
	if h, err := parseCheckpoint([]byte(signed), trust.By(key)); err != nil || h.size != 3 {
		f.Fatalf("%+v, %v", h, err)
	}
	f.Add([]byte(signed))
	f.Fuzz(func(t *testing.T, data []byte) {
		if h, err := parseCheckpoint(data, trust.By(key)); err == nil && h.size != 3 {
			t.Fatalf("forged: %q", data)
		}
	})
}

// A signed text that is no checkpoint is refused too.
func FuzzSignedText(f *testing.F) {
	skey, vkey, err := note.GenerateKey(rand.Reader, "example.com/fuzz")
	if err != nil {
		f.Fatal(err)
	}
	signer, err1 := note.NewSigner(skey)
	key, err2 := note.NewVerifier(vkey)
	if err1 != nil || err2 != nil {
		f.Fatal(err1, err2)
	}
	f.Add("example.com/fuzz\n3\nNL/bZVvIdHiZZ7wQXx/xgyW7fve51bC0BF2EMGZMopM=\n")
	f.Add("example.com/fuzz\n-1\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		signed, err := note.Sign(&note.Note{Text: text}, signer)
		if err != nil {
			return
		}
		if h, err := parseCheckpoint(signed, trust.By(key)); err == nil && h.size < 0 {
			t.Fatalf("%q gives %+v", text, h)
		}
	})
}

// A manifest chooses among files; whatever it says, it names them by their
// first index.
func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(`{"format":1,"segments":[{"first":0,"count":2,"file":"00000000000000000000.jsonl.zst","bytes":45,"stored":40}]}`))
	f.Add([]byte(`{"format":2,"segments":[{"first":0}]}`))
	f.Add([]byte(`{"format":1,"segments":[{"first":-1,"file":"../../etc/passwd"},{"first":1e400}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		for first, l := range parseManifest(data) {
			if first != l.First {
				t.Fatalf("%d: %+v", first, l)
			}
		}
	})
}

// What parses as a tile or bundle is nothing but its hashes.
func FuzzParseTile(f *testing.F) {
	f.Add(append([]byte{0, 32}, make([]byte, 32)...), true)
	f.Add(append([]byte{0, 31}, make([]byte, 32)...), true)
	f.Add(make([]byte, 64), false)
	f.Add(make([]byte, 65), false)
	f.Fuzz(func(t *testing.T, data []byte, bundle bool) {
		level := 0
		if bundle {
			level = bundles
		}
		width := len(data) / entrySize(level)
		parsed, err := parseTile(level, width, data)
		if err != nil {
			return
		}
		var again []byte
		for i := range width {
			if bundle {
				again = append(again, 0, 32)
			}
			again = append(again, parsed.hash(i)[:]...)
		}
		if !bytes.Equal(again, data) {
			t.Fatalf("%x parses as %x", data, again)
		}
	})
}

// A segment's name has one spelling.
func FuzzFirstOf(f *testing.F) {
	for _, name := range []string{"00000000000000000012.jsonl", "00000000000000000012.jsonl.zst", "00000000000000000012.jsonl.zst.tmp", "+0000000000000000012.jsonl", "99999999999999999999.jsonl", "12.jsonl"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		first, ok := firstOf(name)
		if plain := fmt.Sprintf("%020d.jsonl", first); ok && name != plain && name != plain+".zst" {
			t.Fatalf("%q gives %d", name, first)
		}
	})
}

// Checkpoints are parted behind their signatures, and nothing of what was given is
// left out.
func FuzzCheckpointsIn(f *testing.F) {
	for _, s := range []string{"", "\n", "a\n1\n\n— b c\n", "a\n\n— b c\n\nd\n\n— e f\n\n", "\n\n— \n\n\n\n— \n\n", "a\n\n— b"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		list, rest := CheckpointsIn(data), data
		for _, one := range list {
			var ok bool
			if rest, ok = bytes.CutPrefix(rest, one); !ok {
				t.Fatalf("%q: %q", data, list)
			}
			rest = bytes.TrimPrefix(rest, []byte("\n"))
		}
		if len(list) == 0 || len(rest) > 0 {
			t.Errorf("%q: %q", data, list)
		}
	})
}
