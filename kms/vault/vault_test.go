package vault_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/kaizen-audit/kaizen-audit/kms"
	"github.com/kaizen-audit/kaizen-audit/kms/vault"
)

// engine speaks what the documentation of Vault's transit engine records: paths,
// bodies, status codes, "vault:v1:" before a ciphertext. It is not Vault, which could
// not be had; it encrypts for real, and a key that is deleted is gone.
type engine struct {
	t     *testing.T
	token string

	mu   sync.Mutex
	keys map[string]*transitKey
	fail int // status of the next calls, 0 for none
}

type transitKey struct {
	key       []byte
	deletable bool
}

func newEngine(t *testing.T) (*engine, vault.Options) {
	t.Helper()
	b := make([]byte, 16)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	e := &engine{t: t, token: base64.RawURLEncoding.EncodeToString(b), keys: map[string]*transitKey{}}
	e.make("kek")
	srv := httptest.NewServer(e)
	t.Cleanup(srv.Close)
	return e, vault.Options{Address: srv.URL, Key: "kek", Token: func() (string, error) { return e.token, nil }}
}

func (e *engine) make(name string) {
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		e.t.Fatal(err)
	}
	e.keys[name] = &transitKey{key: key}
}

func (e *engine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	refuse := func(status int, why ...string) {
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]any{"errors": why})
	}
	var in struct {
		Plaintext       string `json:"plaintext"`
		Ciphertext      string `json:"ciphertext"`
		AssociatedData  string `json:"associated_data"`
		Type            string `json:"type"`
		DeletionAllowed bool   `json:"deletion_allowed"`
	}
	if r.ContentLength > 0 && json.NewDecoder(r.Body).Decode(&in) != nil {
		refuse(400, "error parsing JSON")
		return
	}
	path, ok := strings.CutPrefix(r.URL.Path, "/v1/transit/")
	switch {
	case r.Header.Get("X-Vault-Token") != e.token:
		refuse(403, "permission denied")
		return
	case e.fail != 0:
		refuse(e.fail, "a value that may quote "+in.Plaintext)
		return
	case !ok:
		refuse(404)
		return
	}
	what, name, _ := strings.Cut(path, "/")
	name, config := strings.CutSuffix(name, "/config")
	k := e.keys[name]
	ad, _ := base64.StdEncoding.DecodeString(in.AssociatedData)
	answer := func(member, value string) {
		_ = json.NewEncoder(w).Encode(map[string]any{"request_id": "x", "data": map[string]any{member: value}})
	}
	switch {
	case what == "keys" && config && r.Method == "POST":
		if k == nil {
			refuse(400, "no existing key named "+name+" could be found")
			return
		}
		k.deletable = in.DeletionAllowed
		w.WriteHeader(204)
	case what == "keys" && r.Method == "POST":
		if in.Type != "aes256-gcm96" {
			refuse(400, "unknown key type")
			return
		}
		if k == nil {
			e.make(name)
		}
		w.WriteHeader(204)
	case what == "keys" && r.Method == "GET":
		if k == nil {
			refuse(404)
			return
		}
		answer("name", name)
	case what == "keys" && r.Method == "DELETE":
		if k == nil || !k.deletable {
			refuse(400, "could not delete key")
			return
		}
		delete(e.keys, name)
		w.WriteHeader(204)
	case what == "encrypt" && r.Method == "POST":
		if k == nil { // the engine makes keys where the policy lets it: here it does not
			refuse(403, "permission denied")
			return
		}
		plain, err := base64.StdEncoding.DecodeString(in.Plaintext)
		if err != nil {
			refuse(400, "failed to base64-decode plaintext")
			return
		}
		nonce := make([]byte, 12)
		_, _ = rand.Read(nonce)
		answer("ciphertext", "vault:v1:"+base64.StdEncoding.EncodeToString(aead(e.t, k.key).Seal(nonce, nonce, plain, ad)))
	case what == "decrypt" && r.Method == "POST":
		if k == nil {
			refuse(400, "encryption key not found")
			return
		}
		text, ok := strings.CutPrefix(in.Ciphertext, "vault:v1:")
		box, err := base64.StdEncoding.DecodeString(text)
		if !ok || err != nil || len(box) < 12 {
			refuse(400, "invalid ciphertext")
			return
		}
		plain, err := aead(e.t, k.key).Open(nil, box[:12], box[12:], ad)
		if err != nil {
			refuse(400, "cipher: message authentication failed")
			return
		}
		answer("plaintext", base64.StdEncoding.EncodeToString(plain))
	default:
		refuse(405, "unsupported operation")
	}
}

func aead(t *testing.T, key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	a, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestWrappedOpensInItsPlaceAlone(t *testing.T) {
	ctx := context.Background()
	_, o := newEngine(t)
	k, err := vault.New(o)
	if err != nil {
		t.Fatal(err)
	}
	place := kms.Place{Origin: "example.com/log", Purpose: "dek", Name: "a"}
	want := []byte("0123456789abcdef0123456789abcdef")
	wrapped, err := k.Wrap(ctx, place, want)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := k.Unwrap(ctx, place, wrapped); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%v", err)
	}
	place.Name = "b"
	for _, w := range []string{wrapped, "", "!", wrapped[:20]} {
		if _, err := k.Unwrap(ctx, place, w); !errors.Is(err, kms.ErrWrongKey) {
			t.Errorf("%v", err)
		}
	}
	if len(k.ID()) != 12 || !strings.HasPrefix(k.By(), "hashivault://127.0.0.1:") || !strings.HasSuffix(k.By(), "/kek") {
		t.Errorf("%s %s", k.ID(), k.By())
	}
}

// The key of an epoch is one of its own, and gone when it is destroyed.
func TestEpochIsDestroyedInTheService(t *testing.T) {
	ctx := context.Background()
	e, o := newEngine(t)
	k, err := vault.New(o)
	if err != nil {
		t.Fatal(err)
	}
	var d kms.EpochDestroyer = k
	epoch := kms.Place{Origin: "example.com/log", Purpose: kms.PurposeEpoch, Name: "1"}
	wrapped, err := k.Wrap(ctx, epoch, []byte("secret"))
	if err != nil || len(e.keys) != 2 {
		t.Fatalf("%d keys, %v", len(e.keys), err)
	}
	if _, err := k.Unwrap(ctx, epoch, wrapped); err != nil {
		t.Fatal(err)
	}
	for range 2 { // what is destroyed can be destroyed
		if err := d.DestroyEpoch(ctx, epoch); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := k.Unwrap(ctx, epoch, wrapped); !errors.Is(err, kms.ErrWrongKey) || len(e.keys) != 1 {
		t.Errorf("%d keys, %v", len(e.keys), err)
	}
	e.fail = 503
	if err := d.DestroyEpoch(ctx, epoch); err == nil {
		t.Error("a service that is away has destroyed a key")
	}
}

func TestErrorsHoldNoSecret(t *testing.T) {
	ctx := context.Background()
	e, o := newEngine(t)
	k, err := vault.New(o)
	if err != nil {
		t.Fatal(err)
	}
	place := kms.Place{Origin: "o", Purpose: "dek", Name: "a"}
	for _, status := range []int{400, 403, 500} {
		e.fail = status
		_, err := k.Wrap(ctx, place, []byte("secret"))
		if err == nil || strings.Contains(err.Error(), base64.StdEncoding.EncodeToString([]byte("secret"))) || strings.Contains(err.Error(), e.token) {
			t.Errorf("%v", err)
		}
	}
	o.Token = func() (string, error) { return "other", nil }
	if k, err = vault.New(o); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Unwrap(ctx, place, "AAAA"); err == nil || errors.Is(err, kms.ErrWrongKey) {
		t.Errorf("who is not let in has no wrong key: %v", err)
	}
}

func TestParse(t *testing.T) {
	o, err := vault.Parse("hashivault://vault.example.com:8200/audit?mount=keys&namespace=a")
	if err != nil || o.Address != "https://vault.example.com:8200" || o.Key != "audit" || o.Mount != "keys" || o.Namespace != "a" {
		t.Errorf("%+v, %v", o, err)
	}
	for _, bad := range []string{"", "hashivault://", "hashivault://h/", "hashivault://h/a/b", "hashivault://token@h/a", "hashivault://h/a?token=x", "https://h/a"} {
		if _, err := vault.Parse(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	o, err = vault.Parse("hashivault://vault.example.com/a?tls=off")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := vault.New(*o); err == nil {
		t.Error("a server elsewhere is asked without TLS")
	}
}

func FuzzParse(f *testing.F) {
	f.Add("hashivault://vault.example.com:8200/audit?mount=keys")
	f.Add("hashivault://%/")
	f.Fuzz(func(t *testing.T, text string) {
		if o, err := vault.Parse(text); err == nil && (o.Address == "" || o.Key == "") {
			t.Errorf("%q gives %+v", text, o)
		}
	})
}
