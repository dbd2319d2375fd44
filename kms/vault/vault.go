// Package vault has a trail's KEK in the transit engine of HashiCorp Vault or OpenBao
// (their HTTP API, version 1; no SDK). The key never leaves it: wrapping is a call.
//
// Each erasure epoch has a transit key of its own, which [KEK.DestroyEpoch] deletes
// there. The token needs update on transit/encrypt/NAME, transit/decrypt/NAME and,
// for NAME-epoch-*, also create, update and delete on transit/keys/.
package vault

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/kaizen-audit/kaizen-audit/kms"
)

// Options say where the key is. The zero value of all but Address and Key is good.
type Options struct {
	// Address is the server's, such as https://vault.example.com:8200. Plain http is
	// for loopback.
	Address string
	// Key is the name of the transit key, of type aes256-gcm96, which must be there.
	Key string
	// Mount is where the transit engine is mounted; empty means transit.
	Mount string
	// Namespace, if any, is sent with every call.
	Namespace string
	// Token gives the token for a call; nil means that of the file that VAULT_TOKEN_FILE
	// names, else of VAULT_TOKEN.
	Token func() (string, error)
	// Client makes the calls; nil means one with a timeout of 10 s.
	Client *http.Client
}

// KEK is a key of a transit engine. It is a kms.EpochDestroyer.
type KEK struct {
	o  Options
	id string
}

// Parse reads hashivault://HOST:PORT/KEY[?mount=…&namespace=…&tls=off]. tls=off, for
// a server without it, is for loopback only. The token is never part of it.
func Parse(text string) (*Options, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "hashivault" || u.Host == "" || u.User != nil || strings.Count(u.Path, "/") != 1 || len(u.Path) < 2 {
		return nil, errors.New("key URL: want hashivault://HOST:PORT/KEY, and no token in it")
	}
	q := u.Query()
	o := &Options{Address: "https://" + u.Host, Key: u.Path[1:], Mount: q.Get("mount"), Namespace: q.Get("namespace")}
	for name := range q {
		switch name {
		case "mount", "namespace":
		case "tls":
			if q.Get(name) != "off" {
				return nil, errors.New("key URL: tls is off, or not there")
			}
			o.Address = "http://" + u.Host
		default:
			return nil, errors.New("key URL: only mount, namespace and tls are known")
		}
	}
	return o, nil
}

// New is the key of the options. Nothing is called yet.
func New(o Options) (*KEK, error) {
	u, err := url.Parse(o.Address)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("vault: the address is no URL")
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return nil, errors.New("vault: without TLS only a server on this machine is asked")
	case o.Key == "" || strings.ContainsAny(o.Key, "/?#%"):
		return nil, errors.New("vault: the key's name is empty or no name")
	}
	if o.Mount == "" {
		o.Mount = "transit"
	}
	if o.Token == nil {
		o.Token = tokenOfEnvironment
	}
	if o.Client == nil {
		o.Client = &http.Client{Timeout: 10 * time.Second}
	}
	o.Address = strings.TrimSuffix(o.Address, "/")
	return &KEK{o: o, id: kms.IDOf("vault", u.Host, o.Namespace, o.Mount, o.Key)}, nil
}

func loopback(host string) bool {
	return host == "localhost" || host == "::1" || strings.HasPrefix(host, "127.")
}

func tokenOfEnvironment() (string, error) {
	if name := os.Getenv("VAULT_TOKEN_FILE"); name != "" {
		text, err := os.ReadFile(name)
		if err != nil {
			return "", fmt.Errorf("vault: token: %w", err)
		}
		return strings.TrimSpace(string(text)), nil
	}
	if token := os.Getenv("VAULT_TOKEN"); token != "" {
		return token, nil
	}
	return "", errors.New("vault: no token: set VAULT_TOKEN_FILE or VAULT_TOKEN")
}

// ID is of the server, the mount and the key's name; versions of the key are the
// engine's own.
func (k *KEK) ID() string { return k.id }

// By is the key's URL.
func (k *KEK) By() string {
	host := k.o.Address[strings.Index(k.o.Address, "://")+3:]
	return "hashivault://" + host + "/" + k.o.Key
}

// keyOf is the transit key for a place: an epoch has one of its own.
func (k *KEK) keyOf(p kms.Place) string {
	if p.Purpose != kms.PurposeEpoch {
		return k.o.Key
	}
	origin := sha256.Sum256([]byte(p.Origin))
	return k.o.Key + "-epoch-" + hex.EncodeToString(origin[:6]) + "-" + p.Name
}

type answer struct {
	Data struct {
		Ciphertext string `json:"ciphertext"`
		Plaintext  string `json:"plaintext"`
	} `json:"data"`
	Errors []string `json:"errors"`
}

// statusError is an answer that is no success. What the server says of it may quote
// what it was sent, and is not passed on.
type statusError struct{ status int }

func (e *statusError) Error() string { return fmt.Sprintf("vault answers %d", e.status) }

func (k *KEK) call(ctx context.Context, method, path string, body any) (answer, error) {
	var a answer
	token, err := k.o.Token()
	if err != nil {
		return a, err
	}
	var in io.Reader = http.NoBody
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return a, err
		}
		in = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, k.o.Address+"/v1/"+k.o.Mount+"/"+path, in)
	if err != nil {
		return a, err
	}
	req.Header.Set("X-Vault-Token", token)
	req.Header.Set("X-Vault-Request", "true")
	if k.o.Namespace != "" {
		req.Header.Set("X-Vault-Namespace", k.o.Namespace)
	}
	resp, err := k.o.Client.Do(req)
	if err != nil {
		return a, fmt.Errorf("vault: %w", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	switch {
	case err != nil:
		return a, fmt.Errorf("vault: %w", err)
	case resp.StatusCode == http.StatusNoContent:
		return a, nil
	case resp.StatusCode != http.StatusOK:
		return a, &statusError{resp.StatusCode}
	case json.Unmarshal(text, &a) != nil:
		return a, errors.New("vault: the answer is not what its API says")
	}
	return a, nil
}

// Wrap has the transit engine encrypt a secret for a place.
func (k *KEK) Wrap(ctx context.Context, p kms.Place, secret []byte) (string, error) {
	key := k.keyOf(p)
	if p.Purpose == kms.PurposeEpoch {
		// Creating a key that is there changes nothing.
		if _, err := k.call(ctx, http.MethodPost, "keys/"+key, map[string]any{"type": "aes256-gcm96", "exportable": false}); err != nil {
			return "", fmt.Errorf("make key of epoch: %w", err)
		}
	}
	a, err := k.call(ctx, http.MethodPost, "encrypt/"+key, map[string]any{
		"plaintext": base64.StdEncoding.EncodeToString(secret), "associated_data": base64.StdEncoding.EncodeToString(p.Bytes()),
	})
	if err != nil {
		return "", fmt.Errorf("wrap: %w", err)
	}
	if a.Data.Ciphertext == "" {
		return "", errors.New("wrap: vault gives no ciphertext")
	}
	return base64.RawURLEncoding.EncodeToString([]byte(a.Data.Ciphertext)), nil
}

// Unwrap is the reverse.
func (k *KEK) Unwrap(ctx context.Context, p kms.Place, wrapped string) ([]byte, error) {
	ciphertext, err := base64.RawURLEncoding.Strict().DecodeString(wrapped)
	if err != nil {
		return nil, kms.ErrWrongKey
	}
	a, err := k.call(ctx, http.MethodPost, "decrypt/"+k.keyOf(p), map[string]any{
		"ciphertext": string(ciphertext), "associated_data": base64.StdEncoding.EncodeToString(p.Bytes()),
	})
	var status *statusError
	if errors.As(err, &status) && (status.status == http.StatusBadRequest || status.status == http.StatusNotFound) {
		return nil, fmt.Errorf("%w: %w", kms.ErrWrongKey, err) // it does not open, or its key is gone
	}
	if err != nil {
		return nil, fmt.Errorf("unwrap: %w", err)
	}
	secret, err := base64.StdEncoding.Strict().DecodeString(a.Data.Plaintext)
	if err != nil {
		return nil, errors.New("unwrap: the answer is not what vault's API says")
	}
	return secret, nil
}

// DestroyEpoch deletes the transit key of an epoch, all versions of it.
func (k *KEK) DestroyEpoch(ctx context.Context, p kms.Place) error {
	p.Purpose = kms.PurposeEpoch
	key := k.keyOf(p)
	_, err := k.call(ctx, http.MethodPost, "keys/"+key+"/config", map[string]any{"deletion_allowed": true})
	if err == nil {
		_, err = k.call(ctx, http.MethodDelete, "keys/"+key, nil)
	}
	var status *statusError
	if errors.As(err, &status) && (status.status == http.StatusNotFound || status.status == http.StatusBadRequest) {
		// Vault answers 400 where there is no such key to be configured, and 404
		// elsewhere: look whether it is gone.
		_, look := k.call(ctx, http.MethodGet, "keys/"+key, nil)
		if errors.As(look, &status) && status.status == http.StatusNotFound {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("destroy key of epoch: %w", err)
	}
	return nil
}
