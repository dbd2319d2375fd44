package witness_test

import (
	"bytes"
	"context"
	"errors"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/witness"
	"github.com/kaizen-audit/kaizen-audit/internal/witness/tsatest"
)

var checkpoint = []byte("example.com/trail\n3\nNL/bZVvIdHiZZ7wQXx/xgyW7fve51bC0BF2EMGZMopM=\n\n— example.com/trail tqlzGu9nMpE1o87ZJQ70I38jlYwTr1ityUuD0dlZg8pWeMJi08NLAgEsKj+ZKmMU1dVb1msR2Gnn0DPOqAEMKJTt8wI=\n")

// A real authority's timestamps are taken, and nothing that was made of them: openssl
// itself agrees.
func TestTimestamps(t *testing.T) {
	ctx := context.Background()
	for _, kind := range []string{"rsa", "ecdsa"} {
		tsa := tsatest.New(t, kind)
		a, err := witness.New(witness.Config{URL: tsa.URL, CAFile: tsa.CAFile})
		if err != nil {
			t.Fatal(err)
		}
		st, err := a.Ask(ctx, checkpoint, 3, 0, nil)
		if err != nil || st.Time.IsZero() {
			t.Fatalf("%s: %v", kind, err)
		}
		if again, err := a.Check(witness.Statement{Checkpoint: checkpoint, Token: st.Token}); err != nil || !again.Time.Equal(st.Time) {
			t.Errorf("%s: %v", kind, err)
		}
		store := witness.NewStore(durable.OS, t.TempDir(), true)
		if err := store.Put(a, 3, st); err != nil {
			t.Fatal(err)
		}
		if kept, size, ok, err := store.Latest(a); err != nil || !ok || size != 3 || !kept.Time.Equal(st.Time) {
			t.Errorf("%s: %v %v %v", kind, size, ok, err)
		}
		dir := t.TempDir()
		in, data := filepath.Join(dir, "a.tsr"), filepath.Join(dir, "a.checkpoint")
		if err := errors.Join(os.WriteFile(in, st.Token, 0o600), os.WriteFile(data, checkpoint, 0o600)); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("openssl", "ts", "-verify", "-data", data, "-in", in, "-CAfile", tsa.CAFile).CombinedOutput(); err != nil {
			t.Errorf("%s: openssl: %v: %s", kind, err, out)
		}
		// Any bit of the signed part that is not as it was.
		passed := 0
		for i := range st.Token {
			bad := bytes.Clone(st.Token)
			bad[i] ^= 1
			if again, err := a.Check(witness.Statement{Checkpoint: checkpoint, Token: bad}); err == nil {
				if passed++; !again.Time.Equal(st.Time) {
					t.Errorf("%s: byte %d changes the time", kind, i)
				}
			}
		}
		// What is not signed: the status, the copies of certificates nobody needs.
		if passed > len(st.Token)/2 {
			t.Errorf("%s: %d of %d changes pass", kind, passed, len(st.Token))
		}
		if _, err := a.Check(witness.Statement{Checkpoint: append(bytes.Clone(checkpoint), '\n'), Token: st.Token}); !errors.Is(err, witness.ErrToken) {
			t.Errorf("%s: another checkpoint: %v", kind, err)
		}
		other, err := witness.New(witness.Config{URL: tsa.URL, CAFile: tsatest.New(t, kind).CAFile})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := other.Check(st); !errors.Is(err, witness.ErrToken) {
			t.Errorf("%s: another root: %v", kind, err)
		}
		tsa.Answer = func([]byte) []byte { return st.Token } // of another request
		if _, err := a.Ask(ctx, checkpoint, 3, 0, nil); !errors.Is(err, witness.ErrToken) {
			t.Errorf("%s: a replayed answer: %v", kind, err)
		}
	}
}

func FuzzToken(f *testing.F) {
	tsa := tsatest.New(f, "ecdsa")
	a, err := witness.New(witness.Config{URL: tsa.URL, CAFile: tsa.CAFile})
	if err != nil {
		f.Fatal(err)
	}
	st, err := a.Ask(context.Background(), checkpoint, 3, 0, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(st.Token)
	f.Add(st.Token[:len(st.Token)/2])
	f.Add([]byte{0x30, 0x03, 0x02, 0x01, 0x02})
	f.Fuzz(func(t *testing.T, token []byte) {
		if got, err := a.Check(witness.Statement{Checkpoint: checkpoint, Token: token}); err == nil && !got.Time.Equal(st.Time) {
			t.Fatal("another time is proved")
		}
	})
}

// A witness cosigns what extends what it has seen, forgets nothing, and answers as
// the specification says. That its cosignatures are what others take, and that ours
// takes theirs, module interop shows.
func TestServerAnswers(t *testing.T) {
	text, err := witness.NewSignerKey("example.org/witness")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := witness.ParseSigner(text)
	if err != nil {
		t.Fatal(err)
	}
	const log = "example.com/trail+b6a9731a+AYqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c"
	dir := t.TempDir()
	server, err := witness.NewServer(durable.OS, dir, signer, []string{log})
	if err != nil {
		t.Fatal(err)
	}
	post := func(body string) (int, string) {
		r := httptest.NewRequest("POST", "/add-checkpoint", strings.NewReader(body))
		w := httptest.NewRecorder()
		server.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	// Vectors of reference: the tree of three lines, signed with a known seed.
	good := "old 0\n\n" + string(checkpoint)
	for name, tc := range map[string]struct {
		body string
		want int
	}{
		"no request":     {"hello", 400},
		"other origin":   {strings.ReplaceAll(good, "example.com/trail", "example.com/other"), 404},
		"changed":        {strings.Replace(good, "\n3\n", "\n4\n", 1), 403},
		"old too large":  {strings.Replace(good, "old 0", "old 4", 1), 400},
		"old unknown":    {strings.Replace(good, "old 0", "old 2", 1), 409},
		"needless proof": {"old 0\nNL/bZVvIdHiZZ7wQXx/xgyW7fve51bC0BF2EMGZMopM=\n\n" + string(checkpoint), 422},
	} {
		if code, body := post(tc.body); code != tc.want {
			t.Errorf("%s: %d %q, want %d", name, code, body, tc.want)
		}
	}
	code, body := post(good)
	if code != 200 || !strings.HasPrefix(body, "— example.org/witness ") || strings.Count(body, "\n") != 1 {
		t.Fatalf("%d %q", code, body)
	}
	a, err := witness.New(witness.Config{URL: "http://localhost", VKey: signer.Cosigner.String()})
	if err != nil {
		t.Fatal(err)
	}
	if st, err := a.Check(witness.Statement{Checkpoint: append(bytes.Clone(checkpoint), body...)}); err != nil || st.Time.IsZero() {
		t.Errorf("%+v, %v", st, err)
	}
	// It remembers, also when it is started again, and the same again is no harm.
	if server, err = witness.NewServer(durable.OS, dir, signer, []string{log}); err != nil {
		t.Fatal(err)
	}
	if code, body := post(good); code != 409 || body != "3\n" {
		t.Errorf("%d %q", code, body)
	}
	if code, _ := post(strings.Replace(good, "old 0", "old 3", 1)); code != 200 {
		t.Errorf("the same again: %d", code)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	// What it has seen was changed: it vouches for nothing any more.
	if err := os.WriteFile(filepath.Join(dir, files[0].Name()), checkpoint, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _ := post(strings.Replace(good, "old 0", "old 3", 1)); code != 500 {
		t.Errorf("a changed memory: %d", code)
	}
}

func FuzzCosigner(f *testing.F) {
	text, err := witness.NewSignerKey("w")
	if err != nil {
		f.Fatal(err)
	}
	signer, err := witness.ParseSigner(text)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(signer.Cosigner.String())
	f.Add(text)
	f.Add("w+00000000+BAAA")
	f.Fuzz(func(t *testing.T, s string) {
		if c, err := witness.ParseCosigner(s); err == nil && c.String() != s {
			t.Fatalf("%q is %q", s, c)
		}
		if _, err := witness.ParseSigner(s); err != nil && len(s) > 20 && strings.Contains(err.Error(), s) {
			t.Fatal("the error shows the key")
		}
	})
}
