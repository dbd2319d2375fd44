package cloud_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"gocloud.dev/secrets/localsecrets"

	"github.com/kaizen-audit/kaizen-audit/kms"
	"github.com/kaizen-audit/kaizen-audit/kms/cloud"
)

// suite is what every key of a service does.
func suite(t *testing.T, k, other kms.KEK) {
	t.Helper()
	ctx := context.Background()
	place := kms.Place{Origin: "example.com/log", Purpose: "dek", Name: "a"}
	want := []byte("0123456789abcdef0123456789abcdef")
	wrapped, err := k.Wrap(ctx, place, want)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := k.Unwrap(ctx, place, wrapped); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%v", err)
	}
	for name, p := range map[string]kms.Place{"origin": {Origin: "o", Purpose: "dek", Name: "a"}, "purpose": {Origin: "example.com/log", Purpose: "mac", Name: "a"}, "name": {Origin: "example.com/log", Purpose: "dek", Name: "ab"}} {
		if _, err := k.Unwrap(ctx, p, wrapped); !errors.Is(err, kms.ErrWrongKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := other.Unwrap(ctx, place, wrapped); err == nil {
		t.Error("another key opens it")
	}
	if len(k.ID()) != 12 || k.ID() == other.ID() {
		t.Errorf("%s, %s", k.ID(), other.ID())
	}
}

// gocloud.dev's own local keeper stands for a service: it encrypts for real.
func TestLocalKeeper(t *testing.T) {
	open := func(by string) kms.KEK {
		key, err := localsecrets.NewRandomKey()
		if err != nil {
			t.Fatal(err)
		}
		k := cloud.New(localsecrets.NewKeeper(key), by)
		t.Cleanup(func() { k.Close() })
		return k
	}
	suite(t, open("a"), open("b"))
}

// awsServer answers Encrypt and Decrypt as the AWS KMS API records them
// (TrentService, JSON 1.1). It is not AWS; the client in front of it is.
func awsServer(t *testing.T) string {
	t.Helper()
	pad := make([]byte, 4096)
	_, _ = rand.Read(pad)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in struct{ KeyId, Plaintext, CiphertextBlob string }
		if json.NewDecoder(r.Body).Decode(&in) != nil || r.Header.Get("Authorization") == "" {
			w.WriteHeader(400)
			return
		}
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		refuse := func() {
			w.Header().Set("X-Amzn-ErrorType", "InvalidCiphertextException")
			w.WriteHeader(400)
			_, _ = w.Write([]byte(`{"__type":"InvalidCiphertextException"}`))
		}
		xor := func(key string, b []byte) []byte {
			out := make([]byte, len(b))
			for i := range b {
				out[i] = b[i] ^ pad[i%len(pad)] ^ key[i%len(key)]
			}
			return out
		}
		switch r.Header.Get("X-Amz-Target") {
		case "TrentService.Encrypt":
			plain, _ := base64.StdEncoding.DecodeString(in.Plaintext)
			box := append([]byte(in.KeyId+"\x00"), xor(in.KeyId, plain)...)
			_ = json.NewEncoder(w).Encode(map[string]string{"KeyId": in.KeyId, "CiphertextBlob": base64.StdEncoding.EncodeToString(box)})
		case "TrentService.Decrypt":
			box, _ := base64.StdEncoding.DecodeString(in.CiphertextBlob)
			key, rest, ok := bytes.Cut(box, []byte{0})
			if !ok {
				refuse()
				return
			}
			_ = json.NewEncoder(w).Encode(map[string]string{"KeyId": string(key), "Plaintext": base64.StdEncoding.EncodeToString(xor(string(key), rest))})
		default:
			refuse()
		}
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

func TestAWSByURL(t *testing.T) {
	b := make([]byte, 12)
	_, _ = rand.Read(b)
	t.Setenv("AWS_ACCESS_KEY_ID", base64.RawURLEncoding.EncodeToString(b))
	t.Setenv("AWS_SECRET_ACCESS_KEY", base64.RawURLEncoding.EncodeToString(b))
	t.Setenv("AWS_CONFIG_FILE", "/nonexistent")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	at := "awskms:///alias/audit?region=us-east-1&endpoint=" + url.QueryEscape(awsServer(t))
	k, err := cloud.Open(context.Background(), at)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if !strings.HasPrefix(k.By(), "awskms:///alias/audit") {
		t.Error(k.By())
	}
	place := kms.Place{Origin: "o", Purpose: "dek", Name: "a"}
	w, err := k.Wrap(context.Background(), place, []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := k.Unwrap(context.Background(), place, w); err != nil || string(got) != "secret" {
		t.Errorf("%s, %v", got, err)
	}
	place.Name = "b"
	if _, err := k.Unwrap(context.Background(), place, w); !errors.Is(err, kms.ErrWrongKey) {
		t.Errorf("%v", err)
	}
}

func TestURLsThatAreNone(t *testing.T) {
	for _, bad := range []string{"", "nowhere://x", "awskms://user:x@/key", "%"} {
		if _, err := cloud.Open(context.Background(), bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
