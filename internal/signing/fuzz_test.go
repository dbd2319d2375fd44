package signing

import (
	"encoding/json"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
)

// FuzzSigningKey: what stands in a key's file is a key or is not, and no error shows it.
func FuzzSigningKey(f *testing.F) {
	skey, _, err := note.GenerateKey(nil, "example.com/log")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(skey)
	f.Add(skey + "\n")
	f.Add(skey[:len(skey)-4])
	f.Add("PRIVATE+KEY+a+00000000+AQ==")
	f.Fuzz(func(t *testing.T, text string) {
		k, err := parseKey(text)
		if err != nil {
			if len(text) > 16 && strings.Contains(err.Error(), text) {
				t.Error("an error shows a key")
			}
			return
		}
		v, err := note.NewVerifier(k.VKey)
		if err != nil || v.Name() != k.Name() || v.KeyHash() != k.KeyHash() {
			t.Fatalf("%q is no key of %q: %v", k.VKey, k.Name(), err)
		}
		sig, err := k.Sign([]byte("x"))
		if err != nil || !v.Verify([]byte("x"), sig) {
			t.Errorf("its signature does not verify: %v", err)
		}
	})
}

// FuzzState: what a signer says is believed only where its own keys have signed it.
func FuzzState(f *testing.F) {
	k, err := NewKey("example.com/log")
	if err != nil {
		f.Fatal(err)
	}
	c, err := sign(checkpointOf(k.Name(), 0), []Key{k})
	if err != nil {
		f.Fatal(err)
	}
	good, err := json.Marshal(State{Protocol: protocol, Origin: k.Name(), VKeys: []string{k.VKey}, Checkpoint: string(c.Signed)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"protocol":2}`))
	f.Add([]byte(`{"protocol":1,"origin":"a","vkeys":["a"],"checkpoint":""}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var st State
		if json.Unmarshal(text, &st) != nil {
			return
		}
		if last, err := st.check(); err == nil && (last.Origin != st.Origin || last.Size < 0) {
			t.Errorf("%+v of %q", last, text)
		}
	})
}
