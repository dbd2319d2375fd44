package verify

import (
	"crypto/rand"
	"testing"

	"golang.org/x/mod/sumdb/note"
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
	if h, err := parseCheckpoint([]byte(signed), key); err != nil || h.size != 3 {
		f.Fatalf("%+v, %v", h, err)
	}
	f.Add([]byte(signed))
	f.Fuzz(func(t *testing.T, data []byte) {
		if h, err := parseCheckpoint(data, key); err == nil && h.size != 3 {
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
		if h, err := parseCheckpoint(signed, key); err == nil && h.size < 0 {
			t.Fatalf("%q gives %+v", text, h)
		}
	})
}

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(`{"format":1,"segments":[{"first":0,"file":"00000000000000000000.jsonl.zst"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) { parseManifest(data) })
}

func FuzzTile(f *testing.F) {
	f.Add(make([]byte, 34), true)
	f.Add(make([]byte, 64), false)
	f.Fuzz(func(t *testing.T, data []byte, bundle bool) {
		level := 0
		if bundle {
			level = bundles
		}
		if validTile(data, level) {
			for i := range len(data) / entrySize(level) {
				tileHash(data, level, i)
			}
		}
	})
}
