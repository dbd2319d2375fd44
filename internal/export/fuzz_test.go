package export_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/kaizen-audit/kaizen-audit/internal/export"
	"github.com/kaizen-audit/kaizen-audit/internal/seal"
	"github.com/kaizen-audit/kaizen-audit/internal/tree"
	"github.com/kaizen-audit/kaizen-audit/internal/trust"
)

// made is a disclosure of the only line of a tree, with a sealed field, and the key
// that the tree is signed with.
func made(t testing.TB, sealedLine bool) (export.Disclosure, trust.Set) {
	t.Helper()
	const origin = "example.com/trail"
	skey, vkey, err := note.GenerateKey(bytes.NewReader(bytes.Repeat([]byte{7}, 64)), origin)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	v, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	place := seal.Place{Origin: origin, EventID: "019b8656-e3c0-7001-8001-000000000007", Pointer: "/inputs"}
	subjects := []seal.Subject{{Handle: "gH79eKnjRrfq", Key: bytes.Repeat([]byte{3}, 32)}}
	envelope, err := seal.SealField(place, subjects, []byte(`{"n":1.50}`))
	if err != nil {
		t.Fatal(err)
	}
	k, err := seal.FieldKey(place, subjects)
	if err != nil {
		t.Fatal(err)
	}
	d := export.Disclosure{Origin: origin, Fields: []export.FieldKey{{Pointer: "/inputs", Key: k}}}
	d.Line = fmt.Appendf(nil, `{"event_type":"TOOL_USE","inputs":%q,"event_id":%q,"policy":{"sealed":["/inputs"]}}`, envelope, place.EventID)
	if sealedLine {
		dek := bytes.Repeat([]byte{5}, 32)
		if d.Line, err = seal.SealLine(origin, "abcdefghijkl", dek, bytes.Repeat([]byte{9}, 16), d.Line); err != nil {
			t.Fatal(err)
		}
		l, err := seal.ParseLine(d.Line)
		if err != nil {
			t.Fatal(err)
		}
		lk, err := l.Key(origin, dek)
		if err != nil {
			t.Fatal(err)
		}
		d.LineKey = &lk
	}
	digest := sha256.Sum256(d.Line)
	leaf := sha256.Sum256(append([]byte{0}, digest[:]...))
	c, err := tree.Sign(signer, 1, leaf)
	if err != nil {
		t.Fatal(err)
	}
	d.Proof = append([]byte("c2sp.org/tlog-proof@v1\nindex 0\n\n"), c.Signed...)
	return d, trust.By(v)
}

// What is parsed has one spelling, and nothing that is not proves anything.
func FuzzDisclosure(f *testing.F) {
	var v trust.Set
	good := map[string]bool{}
	for _, sealedLine := range []bool{false, true} {
		var d export.Disclosure
		d, v = made(f, sealedLine)
		text, err := d.Append(nil)
		if err != nil {
			f.Fatal(err)
		}
		if r, err := d.Check(v, 1<<20); err != nil || !strings.Contains(string(r.Entry.View()), `"inputs":{"n":1.50}`) {
			f.Fatalf("%s, %v", r.Entry.View(), err)
		}
		good[string(d.Line)] = true
		f.Add(text)
		f.Add(bytes.Replace(text, []byte("inputs"), []byte("outputs"), 2))
		f.Add(text[:len(text)/2])
	}
	f.Add([]byte(`{"format":"kaizen-audit/disclosure/v1","origin":"","index":0,"line":"","fields":[],"proof":""}`))
	f.Add([]byte(base64.StdEncoding.EncodeToString([]byte("nothing"))))
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := export.ParseDisclosure(text)
		if err != nil {
			return
		}
		again, err := d.Append(nil)
		if err != nil || !bytes.Equal(again, bytes.TrimSuffix(text, []byte("\n"))) {
			t.Fatalf("another spelling: %v", err)
		}
		if _, err := d.Check(v, 1<<20); err == nil && !good[string(d.Line)] {
			t.Fatal("a line that was never signed is proved")
		}
	})
}
