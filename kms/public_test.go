package kms

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var place = Place{Origin: "example.com/trail", Purpose: "dek", Name: "AAAAAAAAAAAA"}

// A pair: the public key seals and opens nothing, the private one opens what either
// sealed, in its place and nowhere else.
func TestPair(t *testing.T) {
	ctx := context.Background()
	private, err := NewPair()
	if err != nil {
		t.Fatal(err)
	}
	public := private.Public()
	again, err := Parse(" " + public.String() + "\n")
	if err != nil || again.ID() != public.ID() || again.ID() != private.ID() || again.By() != private.By() {
		t.Fatal(again, err)
	}
	if _, only := again.(SealsOnly); !only {
		t.Error("the public key does not say that it seals only")
	}
	if _, only := KEK(private).(SealsOnly); only {
		t.Error("the private key says that it seals only")
	}
	secret := bytes.Repeat([]byte{7}, 32)
	for _, k := range []KEK{again, private} {
		wrapped, err := k.Wrap(ctx, place, secret)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := private.Unwrap(ctx, place, wrapped); err != nil || !bytes.Equal(got, secret) {
			t.Errorf("%v", err)
		}
		if _, err := again.Unwrap(ctx, place, wrapped); !errors.Is(err, ErrSealsOnly) {
			t.Errorf("the public key opens: %v", err)
		}
		elsewhere := place
		elsewhere.Name = "BBBBBBBBBBBB"
		if _, err := private.Unwrap(ctx, elsewhere, wrapped); !errors.Is(err, ErrWrongKey) {
			t.Errorf("in another place: %v", err)
		}
		other, err := NewPair()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := other.Unwrap(ctx, place, wrapped); !errors.Is(err, ErrWrongKey) {
			t.Errorf("another key: %v", err)
		}
		for i := range wrapped { // any character that is not as it was
			bad := []byte(wrapped)
			bad[i] ^= 1
			if got, err := private.Unwrap(ctx, place, string(bad)); err == nil {
				t.Errorf("character %d changed: %x", i, got)
			}
		}
	}
	if text := fmt.Sprintf("%v %+v %#v %s", private, private, private, private); !strings.Contains(text, private.ID()) || strings.Contains(text, privatePrefix) {
		t.Errorf("it shows %s", text)
	}
}

// The files of a pair: the private key is for its owner alone, the public one for
// everybody to read.
func TestPairFiles(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "open.key")
	public, err := CreatePair(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := CreatePair(name); !errors.Is(err, os.ErrExist) {
		t.Errorf("a second pair in its place: %v", err)
	}
	k, err := FromFile(name)
	if err != nil || k.ID() != public.ID() {
		t.Fatal(err)
	}
	if err := os.Chmod(name, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := FromFile(name); err == nil {
		t.Error("a private key that others can read")
	}
	open := filepath.Join(dir, "seal.key")
	for mode, ok := range map[os.FileMode]bool{0o644: true, 0o666: false, 0o600: true} {
		if err := errors.Join(os.RemoveAll(open), os.WriteFile(open, []byte(public.String()+"\n"), 0o600), os.Chmod(open, mode)); err != nil {
			t.Fatal(err)
		}
		if _, err := FromFile(open); (err == nil) != ok {
			t.Errorf("%04o: %v", mode, err)
		}
	}
}

// The vector, which check_vectors.py opens too.
func TestPairVector(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "internal", "seal", "testdata", "vectors", "hpke.json"))
	if err != nil {
		t.Fatal(err)
	}
	var v struct {
		Private, Public, ID, Origin, Purpose, Name, Secret, Wrapped string
	}
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	scalar, err := hex.DecodeString(v.Private)
	if err != nil {
		t.Fatal(err)
	}
	k, err := newPrivate(scalar)
	if err != nil || k.Public().String() != v.Public || k.ID() != v.ID {
		t.Fatalf("%v, %v", k, err)
	}
	if got, err := k.Unwrap(context.Background(), Place{v.Origin, v.Purpose, v.Name}, v.Wrapped); err != nil || hex.EncodeToString(got) != v.Secret {
		t.Errorf("%x, %v", got, err)
	}
}

// FuzzUnwrap: what was not wrapped does not open, and is told.
func FuzzUnwrap(f *testing.F) {
	k, err := NewPair()
	if err != nil {
		f.Fatal(err)
	}
	good, err := k.Wrap(context.Background(), place, []byte("a secret of somebody's"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)-4])
	f.Add(strings.Replace(good, ".", "", 1))
	f.Add(".")
	f.Add(base64.RawURLEncoding.EncodeToString(make([]byte, 65)) + "." + base64.RawURLEncoding.EncodeToString(make([]byte, 64)))
	f.Fuzz(func(t *testing.T, wrapped string) {
		if got, err := k.Unwrap(context.Background(), place, wrapped); err == nil && (wrapped != good || string(got) != "a secret of somebody's") {
			t.Errorf("%q opens", wrapped)
		}
	})
}
