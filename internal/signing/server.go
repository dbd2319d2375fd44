package signing

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/lifecycle"
	"github.com/kaizen-audit/kaizen-audit/internal/socket"
	"github.com/kaizen-audit/kaizen-audit/internal/tree"
	"github.com/kaizen-audit/kaizen-audit/internal/trust"
)

// Server is a signer: it has the keys of one trail, and signs what continues the
// checkpoint that it has signed last. It is an http.Handler, safe for concurrent use.
//
// Its directory has signer.key, the keys, and signed, the last checkpoint; of a trail
// that is not there yet, that of no entries. A check, the file and the answer are one
// step: the file is durable before the answer goes out, so what a crash takes was
// never answered, and what was answered is known after it.
type Server struct {
	fs   durable.FS
	dir  string
	file *File

	// Writer is the user besides this one and root who may ask.
	Writer int
	// Refused is told what was not signed, and why; nil tells nobody.
	Refused func(error)

	mu     sync.Mutex // held from a check to its file
	keys   []Key
	last   tree.Checkpoint
	failed error // of the disk: nothing is signed any more

	mux *http.ServeMux
}

// Names of a signer's files.
const (
	keyName    = "signer.key"
	signedName = "signed"
)

// ErrNone means that there is no signer in a directory yet.
var ErrNone = errors.New("there is no signer here yet")

// Create makes a signer's directory, which must be there, one for the trail of that
// origin. Where there is a signer nothing changes.
func Create(fsys durable.FS, dir, origin string) error {
	if _, err := fsys.Stat(filepath.Join(dir, keyName)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	k, err := NewKey(origin)
	if err != nil {
		return errors.New("the trail's name has neither spaces nor plus signs")
	}
	c, err := tree.Sign(k, 0, tree.EmptyRoot)
	if err != nil {
		return err
	}
	// The key comes last. Crash before it: there is no signer, and both are made anew.
	if err := durable.WriteFile(fsys, filepath.Join(dir, signedName), c.Signed, 0o600); err != nil {
		return err
	}
	return NewFile(fsys, filepath.Join(dir, keyName)).Put(k)
}

// NewServer is the signer of a directory; ErrNone where there is none. The caller sees
// to it that there is one process for it.
func NewServer(fsys durable.FS, dir string) (*Server, error) {
	s := &Server{fs: fsys, dir: dir, file: NewFile(fsys, filepath.Join(dir, keyName)), Writer: -1, mux: http.NewServeMux()}
	if fi, err := fsys.Stat(filepath.Join(dir, keyName)); errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNone
	} else if err == nil && fi.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s: others may read it: whoever did can sign another history", keyName)
	}
	var err error
	if s.keys, err = s.file.Keys(); err != nil {
		return nil, err
	}
	// One that has forgotten what it signed would sign anything.
	signed, err := durable.ReadFile(fsys, filepath.Join(dir, signedName), maxRequest)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is missing beside %s: what was signed last is not known, and nothing is signed", signedName, keyName)
	}
	if err == nil {
		s.last, err = parseSigned(signed, s.keys)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", signedName, err)
	}
	s.mux.HandleFunc("GET /v1/signer", s.state)
	s.mux.HandleFunc("POST /v1/checkpoints", s.answer(s.checkpoint))
	s.mux.HandleFunc("POST /v1/signatures", s.answer(s.signature))
	s.mux.HandleFunc("POST /v1/keys", s.answer(s.makeKey))
	s.mux.HandleFunc("DELETE /v1/keys", s.answer(s.keepKey))
	return s, nil
}

// parseSigned reads a checkpoint that one of the keys has signed.
func parseSigned(signed []byte, keys []Key) (c tree.Checkpoint, err error) {
	for _, k := range keys {
		set, err := trust.One(k.VKey)
		if err != nil {
			return c, err
		}
		if c, err = tree.ParseCheckpoint(signed, set); err == nil {
			return c, nil
		} else if !errors.Is(err, tree.ErrSignature) {
			return c, err
		}
	}
	return c, tree.ErrSignature
}

// Origin is the trail's.
func (s *Server) Origin() string { return s.keys[0].Name() }

// VKeys are the verifier keys, in the order in which the keys were made.
func (s *Server) VKeys() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var vkeys []string
	for _, k := range s.keys {
		vkeys = append(vkeys, k.VKey)
	}
	return vkeys
}

// maxRequest bounds a proof with its checkpoint, maxLine a lifecycle entry: a seal
// restates every gap.
const (
	maxRequest = 64 << 10
	maxLine    = 64 << 20
)

// Serve answers on a Unix socket until the context ends.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	h := &http.Server{
		Handler: s, ReadHeaderTimeout: callTimeout, ReadTimeout: callTimeout, WriteTimeout: callTimeout, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, peerKey{}, c) },
	}
	ended := make(chan error, 1)
	go func() { ended <- h.Serve(l) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	err := h.Shutdown(grace)
	if served := <-ended; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

type peerKey struct{}

// ServeHTTP answers who may ask, as the kernel says who it is.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c, ok := r.Context().Value(peerKey{}).(*net.UnixConn)
	if !ok {
		http.Error(w, "who asks is not known", http.StatusForbidden)
		return
	}
	peer, err := socket.PeerOf(c)
	if err != nil || peer.UID != 0 && peer.UID != os.Geteuid() && peer.UID != s.Writer {
		err := refusal{http.StatusForbidden, fmt.Sprintf("user %d may not have this trail signed", peer.UID)}
		s.tell(err)
		http.Error(w, err.Error(), err.status)
		return
	}
	s.mux.ServeHTTP(w, r)
}

// refusal is an answer that is no signature.
type refusal struct {
	status int
	why    string
}

func (r refusal) Error() string { return r.why }

func (s *Server) tell(err error) {
	if s.Refused != nil {
		s.Refused(err)
	}
}

// answer is the handler of a call that may be refused. mu is held in the call.
func (s *Server) answer(do func(r *http.Request, body []byte) ([]byte, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		most := int64(maxRequest)
		if r.URL.Path == "/v1/signatures" {
			most = maxLine
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
		if err != nil {
			http.Error(w, "the request can't be read", http.StatusBadRequest)
			return
		}
		s.mu.Lock()
		if err = s.failed; err == nil {
			body, err = do(r, body)
		}
		s.mu.Unlock()
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		no, ok := errors.AsType[refusal](err)
		switch {
		case err == nil:
			_, _ = w.Write(body)
		case ok:
			if no.status != http.StatusConflict { // after a crash a size is not known, and is asked for
				s.tell(err)
			}
			http.Error(w, no.why, no.status)
		default: // of its own disk
			s.tell(err)
			http.Error(w, "the signer can't sign", http.StatusInternalServerError)
		}
	}
}

// broken is an error of the disk: what is in the file is not known any more, so
// nothing is signed until the signer is started anew and has read it.
func (s *Server) broken(err error) error {
	if err != nil {
		s.failed = err
	}
	return err
}

// named are the keys that a request names by their hashes.
func (s *Server) named(r *http.Request, param string) ([]Key, error) {
	var keys []Key
	for _, text := range r.URL.Query()[param] {
		hash, err := strconv.ParseUint(text, 16, 32)
		if err != nil {
			return nil, refusal{http.StatusBadRequest, "a key is eight hex digits"}
		}
		found := false
		for _, k := range s.keys {
			if k.KeyHash() == uint32(hash) {
				keys, found = append(keys, k), true
			}
		}
		if !found {
			return nil, refusal{http.StatusNotFound, "this signer has not that key"}
		}
	}
	if len(keys) == 0 {
		return nil, refusal{http.StatusBadRequest, "no key is named"}
	}
	return keys, nil
}

// checkpoint signs a tree head that continues what was signed last, or that it
// continues.
func (s *Server) checkpoint(r *http.Request, body []byte) ([]byte, error) {
	keys, err := s.named(r, "key")
	if err != nil {
		return nil, err
	}
	return s.checkpointOf(body, keys)
}

func (s *Server) checkpointOf(body []byte, keys []Key) ([]byte, error) {
	size, c, err := tree.ParseSigningRequest(body)
	switch {
	case err != nil:
		return nil, refusal{http.StatusBadRequest, err.Error()}
	case c.Origin != s.Origin():
		return nil, refusal{http.StatusNotFound, "this signer is another trail's"}
	case size != s.last.Size:
		return nil, refusal{http.StatusConflict, strconv.FormatInt(s.last.Size, 10)}
	}
	if err := tree.CheckSigningRequest(body, s.last); err != nil {
		return nil, refusal{http.StatusUnprocessableEntity, fmt.Sprintf("the tree of %d entries is not of the history of the %d that were signed last", c.Size, s.last.Size)}
	}
	if c, err = sign(c, keys); err != nil {
		return nil, err
	}
	if c.Size >= s.last.Size {
		// Crash here: it was not answered. After it: the writer learns the size by a
		// conflict, and asks again from there.
		if err := durable.WriteFile(s.fs, filepath.Join(s.dir, signedName), c.Signed, 0o600); err != nil {
			return nil, s.broken(err)
		}
		s.last = c
	}
	return c.Signed, nil
}

// signature signs a lifecycle entry of the trail, or a rotation of its keys.
func (s *Server) signature(r *http.Request, body []byte) ([]byte, error) {
	keys, err := s.named(r, "key")
	if err != nil {
		return nil, err
	}
	if !lifecycle.ToSign(body, s.Origin()) && !s.rotates(string(body)) {
		return nil, refusal{http.StatusUnprocessableEntity, "this is neither a lifecycle entry of the trail nor a rotation of its keys"}
	}
	sig, err := keys[0].Sign(body)
	if err != nil {
		return nil, err
	}
	return []byte(base64.StdEncoding.EncodeToString(sig)), nil
}

// rotates tells whether a text is the rotation from the one key to the other, both of
// which have signed the latest checkpoint: it began at that or before it.
func (s *Server) rotates(text string) bool {
	origin, was, next, from, ok := trust.ParseRotation(text)
	if !ok || len(s.keys) != 2 || origin != s.Origin() || was != s.keys[0].VKey || next != s.keys[1].VKey || from < 1 || from > s.last.Size {
		return false
	}
	for _, k := range s.keys {
		if _, err := parseSigned(s.last.Signed, []Key{k}); err != nil {
			return false
		}
	}
	return true
}

// makeKey makes another key beside the one that is there.
func (s *Server) makeKey(*http.Request, []byte) ([]byte, error) {
	k, err := s.file.Make()
	if errors.Is(err, ErrTwoKeys) {
		return nil, refusal{http.StatusUnprocessableEntity, err.Error()}
	}
	if err != nil {
		return nil, s.broken(err)
	}
	s.keys = append(s.keys, k)
	return []byte(k.VKey), nil
}

// keepKey deletes every key but one, which must have signed the latest checkpoint:
// nothing else would tell the next start what was signed.
func (s *Server) keepKey(r *http.Request, _ []byte) ([]byte, error) {
	keep, err := s.named(r, "keep")
	if err != nil {
		return nil, err
	}
	return nil, s.keep(keep[0])
}

func (s *Server) keep(k Key) error {
	if _, err := parseSigned(s.last.Signed, []Key{k}); err != nil {
		return refusal{http.StatusUnprocessableEntity, "that key has not signed the latest checkpoint"}
	}
	if err := s.file.Keep(k.VKey); err != nil {
		return s.broken(err)
	}
	s.keys = []Key{k}
	return nil
}

// State is what a signer says of itself.
type State struct {
	Protocol int    `json:"protocol"`
	Origin   string `json:"origin"`
	// VKeys are of its keys, in the order in which they were made.
	VKeys []string `json:"vkeys"`
	// Checkpoint is the signed one that it has signed last; of no entries where the
	// trail was not begun.
	Checkpoint string `json:"checkpoint"`
}

const protocol = 1

func (s *Server) state(w http.ResponseWriter, _ *http.Request) {
	vkeys := s.VKeys()
	s.mu.Lock()
	out := State{Protocol: protocol, Origin: s.Origin(), VKeys: vkeys, Checkpoint: string(s.last.Signed)}
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(out)
}

// check reads a state that came from elsewhere: last is what its checkpoint says.
func (st *State) check() (last tree.Checkpoint, err error) {
	if st.Protocol != protocol {
		return last, fmt.Errorf("it speaks protocol %d, this program %d", st.Protocol, protocol)
	}
	var keys []Key
	for _, vkey := range st.VKeys {
		v, err := note.NewVerifier(vkey)
		if err != nil || v.Name() != st.Origin {
			return last, errors.New("its keys are none of a trail")
		}
		keys = append(keys, Key{VKey: vkey})
	}
	if len(keys) == 0 || len(keys) > 2 || strings.TrimSpace(st.Origin) == "" {
		return last, errors.New("its keys are none of a trail")
	}
	if last, err = parseSigned([]byte(st.Checkpoint), keys); err != nil {
		err = fmt.Errorf("what it has signed last: %w", err)
	}
	return last, err
}
