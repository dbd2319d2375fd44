package kms_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kaizen-audit/kaizen-audit/kms"
)

var raw = bytes.Repeat([]byte{0xfb, 0xef, 1}, 11)[:32]

func TestParseTakesEverySpelling(t *testing.T) {
	want, err := kms.NewLocal(raw)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"base64":             base64.StdEncoding.EncodeToString(raw),
		"base64, unpadded":   base64.RawStdEncoding.EncodeToString(raw),
		"base64url":          base64.URLEncoding.EncodeToString(raw),
		"base64url unpadded": base64.RawURLEncoding.EncodeToString(raw),
		"hex":                hex.EncodeToString(raw),
		"upper-case hex":     strings.ToUpper(hex.EncodeToString(raw)),
		"with a line end":    base64.StdEncoding.EncodeToString(raw) + "\r\n",
	} {
		k, err := kms.Parse(text)
		if err != nil || k.ID() != want.ID() {
			t.Errorf("%s: %v, %v", name, k, err)
		}
	}
}

func TestParseRefusesWhatIsNoKey(t *testing.T) {
	secret := strings.Repeat("hunter2-", 5)
	for _, text := range []string{"x", secret, strings.Repeat("g", 64), base64.StdEncoding.EncodeToString(raw[:31]), base64.StdEncoding.EncodeToString(append(raw, 1))} {
		_, err := kms.Parse(text)
		if !errors.Is(err, kms.ErrBadKey) {
			t.Errorf("%d characters: %v", len(text), err)
		}
		if err != nil && strings.Contains(err.Error(), "hunter") {
			t.Error("the error shows what was given")
		}
	}
	if _, err := kms.Parse(" \n"); !errors.Is(err, kms.ErrNoKey) {
		t.Errorf("empty: %v", err)
	}
	if _, err := kms.NewLocal(raw[:16]); !errors.Is(err, kms.ErrBadKey) {
		t.Errorf("16 bytes: %v", err)
	}
}

func TestEnvironmentThatIsSetAndEmptyIsAnError(t *testing.T) {
	t.Setenv(kms.EnvironmentVariable, "")
	if _, err := kms.FromEnvironment(); !errors.Is(err, kms.ErrBadKey) {
		t.Errorf("empty: %v", err)
	}
	os.Unsetenv(kms.EnvironmentVariable)
	if _, err := kms.FromEnvironment(); !errors.Is(err, kms.ErrNoKey) {
		t.Errorf("not set: %v", err)
	}
	t.Setenv(kms.EnvironmentVariable, base64.StdEncoding.EncodeToString(raw))
	if _, err := kms.FromEnvironment(); err != nil {
		t.Error(err)
	}
}

func TestKeyFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "kek")
	if _, err := kms.FromFile(name); !errors.Is(err, kms.ErrNoKey) {
		t.Errorf("no file: %v", err)
	}
	made, err := kms.CreateFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kms.CreateFile(name); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second key in the same file: %v", err)
	}
	read, err := kms.FromFile(name)
	if err != nil || read.ID() != made.ID() {
		t.Errorf("read back: %v, %v", read, err)
	}
	if err := os.Chmod(name, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := kms.FromFile(name); err == nil || !strings.Contains(err.Error(), "0640") {
		t.Errorf("readable for others: %v", err)
	}
	if _, err := kms.FromFile(t.TempDir()); err == nil {
		t.Error("a directory was taken for a key")
	}
}

// What was wrapped for one place, or by one key, opens nowhere else.
func TestWrappedKeyOpensInItsPlaceAlone(t *testing.T) {
	ctx := context.Background()
	k, _ := kms.NewLocal(raw)
	other, _ := kms.NewLocal(bytes.Repeat([]byte{7}, 32))
	place := kms.Place{Origin: "example.com/a", Purpose: "dek", Name: "AAAAAAAAAAAA"}
	wrapped, err := k.Wrap(ctx, place, raw)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := k.Unwrap(ctx, place, wrapped); err != nil || !bytes.Equal(got, raw) {
		t.Errorf("%x, %v", got, err)
	}
	if _, err := other.Unwrap(ctx, place, wrapped); !errors.Is(err, kms.ErrWrongKey) {
		t.Errorf("another key: %v", err)
	}
	for _, p := range []kms.Place{{"example.com/b", "dek", "AAAAAAAAAAAA"}, {"example.com/a", "epoch", "AAAAAAAAAAAA"}, {"example.com/a", "dek", "BAAAAAAAAAAA"}} {
		if _, err := k.Unwrap(ctx, p, wrapped); !errors.Is(err, kms.ErrWrongKey) {
			t.Errorf("%+v: %v", p, err)
		}
	}
}

func TestKeyIsNotPrinted(t *testing.T) {
	k, _ := kms.NewLocal(raw)
	for _, text := range []string{fmt.Sprint(k), fmt.Sprintf("%d", struct{ K *kms.Local }{k}), fmt.Sprintf("%v %+v %#v %s %d", k, k, k, k, k)} {
		if strings.Contains(text, "251") || strings.Contains(text, hex.EncodeToString(raw[:4])) {
			t.Error(text)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"", base64.StdEncoding.EncodeToString(raw), hex.EncodeToString(raw), "=", strings.Repeat("=", 44)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if k, err := kms.Parse(s); (k == nil) == (err == nil) {
			t.Fatalf("%v, %v", k, err)
		}
	})
}
