package signing

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/kaizen-audit/kaizen-audit/internal/socket"
	"github.com/kaizen-audit/kaizen-audit/internal/tree"
	"github.com/kaizen-audit/kaizen-audit/internal/trust"
	"github.com/kaizen-audit/kaizen-audit/internal/witness"
)

// callTimeout bounds a call to a signer: it syncs one small file.
const callTimeout = 5 * time.Second

// Errors of a signer's.
var (
	// ErrAway means that the signer was not reached, or did not answer.
	ErrAway = errors.New("the signer does not answer")
	// ErrRefused means that it answered and signs not.
	ErrRefused = errors.New("the signer refuses")
)

// Remote are the keys of a signer. It is safe for concurrent use.
type Remote struct {
	url  string
	http *http.Client

	mu   sync.Mutex
	seen int64 // the size that it has signed last, as far as is known here
}

// ParseURL gives the path of a signer's socket, unix:/PATH.
func ParseURL(text string) (path string, err error) {
	path, ok := strings.CutPrefix(text, "unix:")
	if !ok || !filepath.IsAbs(path) || filepath.Clean(path) != path {
		return "", errors.New("a signer is named by its socket, unix:/PATH")
	}
	return path, nil
}

// NewRemote are the keys of the signer at a URL. Nobody is asked yet.
func NewRemote(text string) (*Remote, error) {
	path, err := ParseURL(text)
	if err != nil {
		return nil, err
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) { return socket.DialAt(ctx, path) }
	return &Remote{url: text, http: &http.Client{
		Timeout:       callTimeout,
		Transport:     &http.Transport{DialContext: dial, MaxIdleConnsPerHost: 2, IdleConnTimeout: 30 * time.Second, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// URL is the signer's.
func (r *Remote) URL() string { return r.url }

// Close lets go of its connections.
func (r *Remote) Close() { r.http.CloseIdleConnections() }

// maxAnswer bounds an answer: a state has a checkpoint of two signatures.
const maxAnswer = 1 << 20

// call makes one call. An answer of status 409 is given with its body.
func (r *Remote) call(method, path string, query url.Values, body []byte) (answer []byte, status int, err error) {
	to := url.URL{Scheme: "http", Host: "signer", Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequest(method, to.String(), bytes.NewReader(body))
	if err != nil {
		return nil, 0, err
	}
	resp, err := r.http.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return nil, 0, fmt.Errorf("%w at %s: %w", ErrAway, r.url, err)
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err == nil && len(answer) > maxAnswer:
		err = errors.New("the answer is too long")
		fallthrough
	case err != nil:
		return nil, 0, fmt.Errorf("%w at %s: %w", ErrAway, r.url, err)
	case resp.StatusCode == http.StatusOK, resp.StatusCode == http.StatusConflict, resp.StatusCode == http.StatusUnprocessableEntity:
		return answer, resp.StatusCode, nil
	}
	return nil, resp.StatusCode, r.refused(answer)
}

func (r *Remote) refused(answer []byte) error {
	return fmt.Errorf("%w: %s", ErrRefused, strings.TrimSpace(strings.ToValidUTF8(string(answer[:min(len(answer), 200)]), "?")))
}

// State asks the signer who it is. last is the checkpoint that it has signed last.
func (r *Remote) State() (st State, last tree.Checkpoint, err error) {
	answer, status, err := r.call(http.MethodGet, "/v1/signer", nil, nil)
	if err == nil && status != http.StatusOK {
		err = r.refused(answer)
	}
	if err != nil {
		return st, last, err
	}
	if json.Unmarshal(answer, &st) != nil {
		return st, last, fmt.Errorf("%w at %s: what answers is no signer", ErrAway, r.url)
	}
	if last, err = st.check(); err != nil {
		return st, last, fmt.Errorf("signer at %s: %w", r.url, err)
	}
	r.saw(last.Size)
	return st, last, nil
}

func (r *Remote) saw(size int64) {
	r.mu.Lock()
	r.seen = size
	r.mu.Unlock()
}

// Keys are the signer's, in the order in which they were made.
func (r *Remote) Keys() ([]Key, error) {
	st, _, err := r.State()
	if err != nil {
		return nil, err
	}
	var keys []Key
	for _, vkey := range st.VKeys {
		k, err := r.key(vkey)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return keys, nil
}

func (r *Remote) key(vkey string) (Key, error) {
	v, err := note.NewVerifier(vkey)
	return Key{Signer: &remoteKey{v, r}, VKey: vkey}, err
}

// remoteKey has a signer sign. What it gives is verified first.
type remoteKey struct {
	note.Verifier
	r *Remote
}

func hashOf(k interface{ KeyHash() uint32 }) string { return fmt.Sprintf("%08x", k.KeyHash()) }

// Sign has a lifecycle entry signed, or a rotation.
func (k *remoteKey) Sign(msg []byte) ([]byte, error) {
	answer, status, err := k.r.call(http.MethodPost, "/v1/signatures", url.Values{"key": {hashOf(k.Verifier)}}, msg)
	if err == nil && status != http.StatusOK {
		err = k.r.refused(answer)
	}
	if err != nil {
		return nil, err
	}
	sig, err := base64.StdEncoding.DecodeString(string(answer))
	if err != nil || !k.Verify(msg, sig) {
		return nil, fmt.Errorf("%w: what it gave is no signature of its key", ErrRefused)
	}
	return sig, nil
}

// Make has the signer make another key.
func (r *Remote) Make() (Key, error) {
	answer, status, err := r.call(http.MethodPost, "/v1/keys", nil, nil)
	if err == nil && status != http.StatusOK {
		err = r.refused(answer)
	}
	if err != nil {
		return Key{}, err
	}
	k, err := r.key(string(answer))
	if err != nil {
		return Key{}, fmt.Errorf("%w: what it made is no key", ErrRefused)
	}
	return k, nil
}

// Keep has it delete every key but one.
func (r *Remote) Keep(vkey string) error {
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return err
	}
	answer, status, err := r.call(http.MethodDelete, "/v1/keys", url.Values{"keep": {hashOf(v)}}, nil)
	if err == nil && status != http.StatusOK {
		err = r.refused(answer)
	}
	return err
}

// Checkpoint has a tree head signed. witness.ErrForked means that the signer has
// signed another history of this trail.
func (r *Remote) Checkpoint(c tree.Checkpoint, by []Key, prove Prove) (tree.Checkpoint, error) {
	query := url.Values{}
	for _, k := range by {
		query.Add("key", hashOf(k))
	}
	r.mu.Lock()
	size := r.seen
	r.mu.Unlock()
	for try := 0; ; try++ {
		request, err := prove(size)
		if err != nil {
			return c, err
		}
		answer, status, err := r.call(http.MethodPost, "/v1/checkpoints", query, request)
		if err != nil {
			return c, err
		}
		switch status {
		case http.StatusOK:
			if err := signedBy(answer, c, by); err != nil {
				return c, fmt.Errorf("%w: what it gave: %w", ErrRefused, err)
			}
			r.saw(max(size, c.Size))
			c.Signed = answer
			return c, nil
		case http.StatusConflict:
			// An answer did not come, or somebody else has it sign. The proof tells
			// whether it was this history.
			signed, err := strconv.ParseInt(strings.TrimSpace(string(answer)), 10, 64)
			if err != nil || signed < 0 || try > 1 {
				return c, fmt.Errorf("%w: its size is not known", ErrRefused)
			}
			size = signed
		default:
			return c, fmt.Errorf("%w: the signer at %s: %s", witness.ErrForked, r.url, strings.TrimSpace(string(answer[:min(len(answer), 200)])))
		}
	}
}

// signedBy checks that a note is of that checkpoint, and signed by all the keys.
func signedBy(signed []byte, c tree.Checkpoint, by []Key) error {
	for _, k := range by {
		set, err := trust.One(k.VKey)
		if err != nil {
			return err
		}
		got, err := tree.ParseCheckpoint(signed, set)
		if err != nil {
			return err
		}
		if got.Text() != c.Text() {
			return errors.New("it is another checkpoint")
		}
	}
	return nil
}
