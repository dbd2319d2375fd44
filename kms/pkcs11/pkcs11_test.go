package pkcs11_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/kms"
	"github.com/kaizen-audit/kaizen-audit/kms/pkcs11"
)

// softHSM is the library of Debian's softhsm2, a PKCS#11 module in software: the
// tests need it, and CI installs it.
func softHSM(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so", "/usr/local/lib/softhsm/libsofthsm2.so", "/opt/homebrew/lib/softhsm/libsofthsm2.so"} {
		if _, err := os.Stat(name); err == nil {
			if _, err := exec.LookPath("softhsm2-util"); err == nil {
				return name
			}
		}
	}
	if os.Getenv("CI") != "" {
		t.Fatal("softhsm2 is not installed")
	}
	t.Skip("softhsm2 is not installed")
	return ""
}

var (
	initialized sync.Once
	pin         string
	tokens      string // the directory of the tokens
)

func TestMain(m *testing.M) {
	code := m.Run()
	if tokens != "" {
		os.RemoveAll(tokens)
	}
	os.Exit(code)
}

// token are the options that lead to a fresh token. The module looks for tokens once
// in a process, so all are made before the first test uses it.
func token(t *testing.T, label string) pkcs11.Options {
	t.Helper()
	module := softHSM(t)
	initialized.Do(func() {
		dir, err := os.MkdirTemp("", "softhsm")
		if err != nil {
			t.Fatal(err)
		}
		conf := filepath.Join(dir, "softhsm2.conf")
		if err := errors.Join(os.Mkdir(filepath.Join(dir, "tokens"), 0o700),
			os.WriteFile(conf, []byte("directories.tokendir = "+dir+"/tokens\nobjectstore.backend = file\nlog.level = ERROR\n"), 0o600),
			os.Setenv("SOFTHSM2_CONF", conf)); err != nil {
			t.Fatal(err)
		}
		tokens, pin = dir, secret(t)
		for _, label := range []string{"places", "other", "many", "erasure", "rotation"} {
			cmd := exec.Command("softhsm2-util", "--init-token", "--free", "--label", label, "--so-pin", pin, "--pin", pin)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%s: %v", out, err)
			}
		}
	})
	return pkcs11.Options{Module: module, Token: label, Object: "kek", Create: true, PIN: func() (string, error) { return pin, nil }}
}

func secret(t *testing.T) string {
	t.Helper()
	b := make([]byte, 4)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(b)
}

func open(t *testing.T, o pkcs11.Options) *pkcs11.KEK {
	t.Helper()
	k, err := pkcs11.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	return k
}

func TestWrappedOpensInItsPlaceAlone(t *testing.T) {
	ctx := context.Background()
	o := token(t, "places")
	k := open(t, o)
	place := kms.Place{Origin: "example.com/log", Purpose: "dek", Name: "a"}
	want := []byte("0123456789abcdef0123456789abcdef")
	wrapped, err := k.Wrap(ctx, place, want)
	if err != nil {
		t.Fatal(err)
	}
	again := open(t, o) // another session finds the same key
	if again.ID() != k.ID() || len(k.ID()) != 12 || strings.Contains(k.By(), "pin") {
		t.Errorf("%s, %s, %s", again.ID(), k.ID(), k.By())
	}
	if got, err := again.Unwrap(ctx, place, wrapped); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%v", err)
	}
	for name, p := range map[string]kms.Place{
		"origin": {Origin: "example.com/other", Purpose: "dek", Name: "a"}, "purpose": {Origin: "example.com/log", Purpose: "mac", Name: "a"},
		"name": {Origin: "example.com/log", Purpose: "dek", Name: "b"},
	} {
		if _, err := k.Unwrap(ctx, p, wrapped); !errors.Is(err, kms.ErrWrongKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, bad := range []string{"", "!", wrapped[:10], wrapped[:len(wrapped)-2] + "AA"} {
		if _, err := k.Unwrap(ctx, place, bad); !errors.Is(err, kms.ErrWrongKey) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	other := open(t, token(t, "other"))
	if other.ID() == k.ID() {
		t.Error("two keys of one id")
	}
	if _, err := other.Unwrap(ctx, place, wrapped); !errors.Is(err, kms.ErrWrongKey) {
		t.Errorf("another key: %v", err)
	}
	o.Create, o.Object = false, "missing"
	if _, err := pkcs11.Open(o); !errors.Is(err, kms.ErrNoKey) {
		t.Errorf("no key: %v", err)
	}
	o.PIN = func() (string, error) { return "wrong", nil }
	if _, err := pkcs11.Open(o); err == nil {
		t.Log("already logged in at this token: the module asks no second time")
	}
	o.Token = "nowhere"
	if _, err := pkcs11.Open(o); err == nil || !strings.Contains(err.Error(), "no token") {
		t.Errorf("%v", err)
	}
}

func TestManyAtOnce(t *testing.T) {
	k := open(t, token(t, "many"))
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			p := kms.Place{Origin: "o", Purpose: "dek", Name: fmt.Sprint(n)}
			w, err := k.Wrap(context.Background(), p, []byte{byte(n)})
			if err == nil {
				var got []byte
				if got, err = k.Unwrap(context.Background(), p, w); err == nil && got[0] != byte(n) {
					err = errors.New("another secret")
				}
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// Erasure is real: whoever has a full copy of lines and keys/ from before, and the
// HSM of after, reads nothing of who was erased, and everything of everybody else in
// the copy of after. Verify says the same before and after.
func TestErasureIsRealWithAnHSM(t *testing.T) {
	ctx := context.Background()
	k := open(t, token(t, "erasure"))
	dir := t.TempDir()
	path := filepath.Join(dir, "now", "audit.jsonl")
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(dir, "state")
	trail, err := audit.Open(path, &audit.Options{Encrypt: true, KEK: k, StateDir: state})
	if err != nil {
		t.Fatal(err)
	}
	for _, user := range []string{"mia", "noah", "mia"} {
		if _, err := trail.Record(ctx, audit.Event{EventType: audit.ToolUse, AgentID: "a", Action: "tool_use:x",
			Inputs: audit.Of(map[string]any{"note": "about " + user}), Metadata: audit.Of(map[string]any{"user_id": user})}); err != nil {
			t.Fatal(err)
		}
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	before := filepath.Join(dir, "before")
	if err := os.CopyFS(before, os.DirFS(filepath.Dir(path))); err != nil {
		t.Fatal(err)
	}
	if err := chmodKeys(before); err != nil {
		t.Fatal(err)
	}
	if got := notes(t, filepath.Join(before, "audit.jsonl"), k, state); got != "about mia, about noah, about mia" {
		t.Fatalf("before the erasure: %s", got)
	}
	if trail, err = audit.Open(path, &audit.Options{KEK: k, StateDir: state}); err != nil {
		t.Fatal(err)
	}
	info, err := trail.Info(ctx)
	if err != nil || !strings.Contains(info.Erasure, "made before it or after") {
		t.Errorf("%q, %v", info.Erasure, err)
	}
	if _, err := trail.EraseUser(ctx, "mia", &audit.EraseOptions{Reason: "Art. 17"}); err != nil {
		t.Fatal(err)
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	if got := notes(t, path, k, state); got != "about noah" {
		t.Errorf("after the erasure: %s", got)
	}
	// The copy of before and the HSM of now: its epoch key is gone, and with it all
	// subjects of the copy.
	r, err := audit.Open(filepath.Join(before, "audit.jsonl"), &audit.Options{ReadOnly: true, KEK: k, StateDir: state})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for e, err := range r.Query(ctx, audit.Query{}) {
		if err == nil {
			t.Errorf("the copy of before gives entry %d", e.Index)
		} else if !errors.Is(err, audit.ErrNoKey) {
			t.Errorf("%v", err)
		}
	}
	for _, p := range []string{path, filepath.Join(before, "audit.jsonl")} {
		report, err := audit.VerifyPath(ctx, p, &audit.VerifyOptions{StateDir: state})
		if err != nil || report.Status != "intact" {
			t.Errorf("%s: %+v, %v", p, report, err)
		}
	}
}

// chmodKeys makes the modes of a copy those of the original.
func chmodKeys(dir string) error {
	return filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.Chmod(name, 0o700)
		}
		return os.Chmod(name, 0o600)
	})
}

// notes are the notes that a reader sees.
func notes(t *testing.T, path string, k kms.KEK, state string) string {
	t.Helper()
	r, err := audit.Open(path, &audit.Options{ReadOnly: true, KEK: k, StateDir: state})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var seen []string
	for e, err := range r.Query(context.Background(), audit.Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		if note := e.Inputs.Text("note"); note != "" {
			seen = append(seen, note)
		}
	}
	return strings.Join(seen, ", ")
}

// A trail moves from a key of the environment to the HSM.
func TestRotationIntoTheHSM(t *testing.T) {
	ctx := context.Background()
	k := open(t, token(t, "rotation"))
	dir := t.TempDir()
	local, err := kms.CreateFile(filepath.Join(dir, "audit.key"))
	if err != nil {
		t.Fatal(err)
	}
	path, state := filepath.Join(dir, "audit.jsonl"), filepath.Join(dir, "state")
	trail, err := audit.Open(path, &audit.Options{Encrypt: true, KEK: local, NextKEK: k, StateDir: state})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := trail.Record(ctx, audit.Event{EventType: audit.ToolUse, AgentID: "a", Action: "x", Inputs: audit.Of(map[string]any{"note": "n"}), Metadata: audit.Of(map[string]any{"user_id": "mia"})}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(trail.RotateKEK(ctx), trail.Close()); err != nil {
		t.Fatal(err)
	}
	if got := notes(t, path, k, state); got != "n" {
		t.Errorf("%q", got)
	}
}

func TestParse(t *testing.T) {
	o, err := pkcs11.Parse("pkcs11:token=My%20Token;object=kek?module-path=/lib/x.so&pin-source=file:/run/pin&create=yes")
	if err != nil || o.Token != "My Token" || o.Object != "kek" || o.Module != "/lib/x.so" || !o.Create {
		t.Errorf("%+v, %v", o, err)
	}
	for _, bad := range []string{"", "pkcs11:", "pkcs11:token=t;object=o", "pkcs11:token=t;object=o?module-path=m&pin-" + "value=1", "http://x", "pkcs11:token=t;object=o;what=1?module-path=m", "pkcs11:token=%zz;object=o?module-path=m"} {
		if _, err := pkcs11.Parse(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("pkcs11:token=t;object=o?module-path=m&pin-source=file:/run/pin")
	f.Add("pkcs11:;;&&%")
	f.Fuzz(func(t *testing.T, text string) {
		if o, err := pkcs11.Parse(text); err == nil && (o.Token == "" || o.Object == "" || o.Module == "" || o.PIN == nil) {
			t.Errorf("%q gives %+v", text, o)
		}
	})
}
