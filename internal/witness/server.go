package witness

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/mod/sumdb/note"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/tree"
	"github.com/kaizen-audit/kaizen-audit/internal/trust"
)

// Server is a witness (c2sp.org/tlog-witness v1): it cosigns a checkpoint of a trail
// that it knows if that extends the last one that it has cosigned, and never another.
// It is an http.Handler, safe for concurrent use.
//
// What it has cosigned last is one file for each trail, the cosigned checkpoint. It
// is durable before the answer goes out, and a check and its file are one step: what
// a crash takes was never answered, and the trail asks again.
type Server struct {
	fs     durable.FS
	dir    string
	signer *Signer
	logs   map[string]note.Verifier // by origin

	mu  sync.Mutex // held from the check to the file
	mux *http.ServeMux
}

// NewServer is a witness for the trails with these verifier keys. dir keeps what it
// has seen; it must be there, and this witness's alone: one that forgets, or two with
// one key, vouch for nothing.
func NewServer(fsys durable.FS, dir string, signer *Signer, vkeys []string) (*Server, error) {
	s := &Server{fs: fsys, dir: dir, signer: signer, logs: map[string]note.Verifier{}, mux: http.NewServeMux()}
	for _, vkey := range vkeys {
		v, err := note.NewVerifier(vkey)
		if err != nil {
			return nil, errors.New("this is no trail's verifier key: NAME+HASH+KEY is one")
		}
		if s.logs[v.Name()] != nil {
			return nil, fmt.Errorf("two keys for %s: a trail has one", v.Name())
		}
		s.logs[v.Name()] = v
	}
	s.mux.HandleFunc("POST /add-checkpoint", s.addCheckpoint)
	s.mux.HandleFunc("GET /{origin}/checkpoint", s.latest)
	return s, nil
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// maxRequest bounds a request: 64 lines of a proof and a checkpoint with signatures.
const maxRequest = 64 << 10

// answer is a response that is no cosignature.
type answer struct {
	status int
	body   string
	kind   string
}

func (a answer) Error() string { return a.body }

func refuse(status int, why string) error { return answer{status: status, body: why + "\n"} }

func (s *Server) addCheckpoint(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err == nil {
		body, err = s.add(body)
	} else {
		err = refuse(http.StatusBadRequest, "the request can't be read")
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if no, ok := errors.AsType[answer](err); ok {
		if no.kind != "" {
			w.Header().Set("Content-Type", no.kind)
		}
		w.WriteHeader(no.status)
		_, _ = io.WriteString(w, no.body)
		return
	}
	if err != nil { // of its own disk: nobody else's to know more
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	_, _ = w.Write(body)
}

// add gives the cosignature for a request.
func (s *Server) add(request []byte) ([]byte, error) {
	old, signed, err := tree.ParseWitnessRequest(request)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "malformed")
	}
	origin, _, _ := strings.Cut(string(signed), "\n")
	v := s.logs[origin]
	if v == nil {
		return nil, refuse(http.StatusNotFound, "this witness does not know that origin")
	}
	c, err := tree.ParseCheckpoint(signed, trust.By(v))
	switch {
	case errors.Is(err, tree.ErrSignature):
		return nil, refuse(http.StatusForbidden, "not signed by the key that is known for this origin")
	case err != nil, old > c.Size:
		return nil, refuse(http.StatusBadRequest, "malformed")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	last, err := s.last(origin, v)
	if err != nil {
		return nil, err
	}
	if old != last.Size {
		return nil, answer{status: http.StatusConflict, body: strconv.FormatInt(last.Size, 10) + "\n", kind: "text/x.tlog.size"}
	}
	if _, err := tree.CheckConsistency(request, last, trust.By(v)); err != nil {
		return nil, refuse(http.StatusUnprocessableEntity, "it does not extend the checkpoint that was cosigned last")
	}
	n, err := note.Open(signed, note.VerifierList(v))
	if err != nil {
		return nil, err // it was opened a moment ago
	}
	// All signatures are kept: while two of the trail's keys overlap, either may be
	// the one that is known here later.
	cosigned, err := note.Sign(n, s.signer)
	if err != nil {
		return nil, err
	}
	// Crash until here: nothing was answered. After it: the same request is answered
	// by a conflict with its own size, and the trail asks again from there.
	if err := durable.WriteFile(s.fs, s.file(origin), cosigned, 0o600); err != nil {
		return nil, err
	}
	return ours(cosigned, s.signer.Name()), nil
}

// last is what was cosigned last for an origin; the empty tree where nothing was. A
// file that is not what was written stops the witness for this trail: it must not
// vouch from nothing.
func (s *Server) last(origin string, v note.Verifier) (tree.Checkpoint, error) {
	signed, err := durable.ReadFile(s.fs, s.file(origin), maxRequest)
	if errors.Is(err, fs.ErrNotExist) {
		return tree.Checkpoint{Origin: origin, Root: tree.EmptyRoot}, nil
	}
	if err != nil {
		return tree.Checkpoint{}, err
	}
	if _, err := s.signer.open(signed); err != nil {
		return tree.Checkpoint{}, err
	}
	return tree.ParseCheckpoint(signed, trust.By(v))
}

func (s *Server) file(origin string) string { return filepath.Join(s.dir, originName(origin)) }

func originName(origin string) string {
	sum := sha256.Sum256([]byte(origin))
	return hex.EncodeToString(sum[:])
}

// latest is the monitoring of c2sp.org/tlog-witness: the latest cosigned checkpoint.
func (s *Server) latest(w http.ResponseWriter, r *http.Request) {
	for origin := range s.logs {
		if originName(origin) != r.PathValue("origin") {
			continue
		}
		signed, err := durable.ReadFile(s.fs, s.file(origin), maxRequest)
		if err == nil {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			_, _ = w.Write(signed)
			return
		}
	}
	http.NotFound(w, r)
}
