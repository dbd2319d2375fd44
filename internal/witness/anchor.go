package witness

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Kinds of anchors.
const (
	KindWitness   = "witness"
	KindTimestamp = "timestamp"
)

// Errors of asking an outside party.
var (
	// ErrForked means that the party has seen another history than this one, or
	// more of it.
	ErrForked = errors.New("another history of this trail is known outside")
	// ErrNotDue means that the party was asked a short while ago.
	ErrNotDue = errors.New("not due yet")
	// ErrRefused means that the party does not do what is asked.
	ErrRefused = errors.New("refused")
)

// Config says who the party is: a witness by its verifier key, an authority for
// timestamps by the certificates that it must chain to.
type Config struct {
	// URL is the witness's submission prefix, or the authority's address.
	URL    string
	VKey   string
	CAFile string // PEM
	// Every is how often it is asked at most; 0 is 10 s for a witness and an hour
	// for an authority.
	Every time.Duration
}

// Anchor is an outside party that vouches for checkpoints.
type Anchor struct {
	Config
	cosigner *Cosigner
	roots    *x509.CertPool
	client   *http.Client
}

const (
	witnessEvery   = 10 * time.Second
	timestampEvery = time.Hour
	requestTimeout = 10 * time.Second
)

// New makes an anchor ready. Nobody is asked yet.
func New(c Config) (*Anchor, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, errors.New("url: must be https://… or http://…")
	}
	if u.User != nil {
		return nil, errors.New("url: may hold no password")
	}
	a := &Anchor{Config: c, client: &http.Client{Timeout: requestTimeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
	a.URL = strings.TrimSuffix(c.URL, "/")
	switch {
	case c.Every < 0:
		return nil, errors.New("every: must not be negative")
	case (c.VKey == "") == (c.CAFile == ""):
		return nil, errors.New("needs the key of a witness, or the certificates of an authority for timestamps")
	case c.VKey != "":
		if a.cosigner, err = ParseCosigner(c.VKey); err != nil {
			return nil, fmt.Errorf("key: %w", err)
		}
		if a.Every == 0 {
			a.Every = witnessEvery
		}
		return a, nil
	}
	pem, err := os.ReadFile(c.CAFile)
	if err != nil {
		return nil, err
	}
	a.roots = x509.NewCertPool()
	if !a.roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: there is no certificate in it", c.CAFile)
	}
	if a.Every == 0 {
		a.Every = timestampEvery
	}
	return a, nil
}

// Kind is KindWitness or KindTimestamp.
func (a *Anchor) Kind() string {
	if a.cosigner != nil {
		return KindWitness
	}
	return KindTimestamp
}

// Name says who it is, without secrets.
func (a *Anchor) Name() string {
	if a.cosigner != nil {
		return a.cosigner.Name()
	}
	u, err := url.Parse(a.URL)
	if err != nil {
		return ""
	}
	return u.Host + u.Path
}

// ID names its files: what it says depends on who it is.
func (a *Anchor) ID() string {
	who := a.URL
	if a.cosigner != nil {
		who = a.cosigner.String()
	}
	sum := sha256.Sum256([]byte(a.Kind() + "\n" + who))
	return a.Kind() + "-" + hex.EncodeToString(sum[:8])
}

// Statement is what a party says of a checkpoint.
type Statement struct {
	// Checkpoint is the signed checkpoint, with the witness's cosignature.
	Checkpoint []byte
	// Token is the authority's answer (TimeStampResp, DER) over Checkpoint.
	Token []byte
	// Time is when, by the party's clock.
	Time time.Time
}

// Check checks a statement of the party's, and gives its time.
func (a *Anchor) Check(s Statement) (Statement, error) {
	var err error
	if a.cosigner != nil {
		s.Time, err = a.cosigner.open(s.Checkpoint)
	} else {
		s.Time, err = checkToken(s.Token, s.Checkpoint, nil, a.roots)
	}
	return s, err
}

// Prove gives the proof that the checkpoint that is asked about extends the tree of
// size old, in the form of a request to a witness (c2sp.org/tlog-witness).
type Prove func(old int64) ([]byte, error)

// Ask has the party vouch for a checkpoint of size entries; old is the size that it
// is known to have seen, 0 where that is not known. ErrForked: it has seen another
// history, or more than this.
func (a *Anchor) Ask(ctx context.Context, checkpoint []byte, size, old int64, prove Prove) (Statement, error) {
	if a.cosigner == nil {
		return a.askTime(ctx, checkpoint)
	}
	for try := 0; ; try++ {
		body, err := prove(old)
		if err != nil {
			return Statement{}, err
		}
		status, answer, err := a.post(ctx, a.URL+"/add-checkpoint", "text/plain; charset=utf-8", body)
		if err != nil {
			return Statement{}, err
		}
		switch status {
		case http.StatusOK:
			return a.Check(Statement{Checkpoint: append(bytes.Clone(checkpoint), ours(answer, a.cosigner.Name())...)})
		case http.StatusConflict:
			seen, err := strconv.ParseInt(strings.TrimSpace(string(answer)), 10, 64)
			switch {
			case err != nil || seen < 0:
				return Statement{}, fmt.Errorf("witness %s: answers 409 without a size", a.Name())
			case seen > size:
				return Statement{}, fmt.Errorf("%w: witness %s has seen %d entries, and here are %d", ErrForked, a.Name(), seen, size)
			case try > 0:
				return Statement{}, fmt.Errorf("witness %s: its size changes meanwhile", a.Name())
			}
			old = seen
		case http.StatusUnprocessableEntity:
			return Statement{}, fmt.Errorf("%w: witness %s does not find that the checkpoint of %d entries extends the one of %d that it has seen", ErrForked, a.Name(), size, old)
		case http.StatusNotFound, http.StatusForbidden:
			return Statement{}, fmt.Errorf("witness %s: %w: it does not know this trail, or another key for it (status %d)", a.Name(), ErrRefused, status)
		default:
			return Statement{}, fmt.Errorf("witness %s: %w: status %d", a.Name(), ErrRefused, status)
		}
	}
}

// ours are those signature lines of an answer that are of one name.
func ours(answer []byte, name string) []byte {
	var out []byte
	for line := range bytes.Lines(answer) {
		if bytes.HasPrefix(line, []byte("— "+name+" ")) && bytes.HasSuffix(line, []byte("\n")) {
			out = append(out, line...)
		}
	}
	return out
}

// Latest asks a witness for the latest checkpoint that it has cosigned for an
// origin; ok is false where it has none, or gives none.
func (a *Anchor) Latest(ctx context.Context, origin string) (s Statement, ok bool, err error) {
	if a.cosigner == nil {
		return s, false, nil
	}
	sum := sha256.Sum256([]byte(origin))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.URL+"/"+hex.EncodeToString(sum[:])+"/checkpoint", nil)
	if err != nil {
		return s, false, err
	}
	status, answer, err := a.do(req)
	if err != nil || status == http.StatusNotFound {
		return s, false, err
	}
	if status != http.StatusOK {
		return s, false, fmt.Errorf("witness %s: %w: status %d", a.Name(), ErrRefused, status)
	}
	s, err = a.Check(Statement{Checkpoint: answer})
	return s, err == nil, err
}

// maxAnswer bounds what an outside party may answer: a token has its certificates.
const maxAnswer = 1 << 20

func (a *Anchor) post(ctx context.Context, to, kind string, body []byte) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", kind)
	return a.do(req)
}

func (a *Anchor) do(req *http.Request) (int, []byte, error) {
	resp, err := a.client.Do(req)
	if err != nil {
		return 0, nil, fmt.Errorf("ask %s: %w", a.Name(), err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err == nil && len(answer) > maxAnswer {
		err = errors.New("the answer is too long")
	}
	if err != nil {
		return 0, nil, fmt.Errorf("ask %s: %w", a.Name(), err)
	}
	return resp.StatusCode, answer, nil
}

// askTime has an authority put its time to a checkpoint.
func (a *Anchor) askTime(ctx context.Context, checkpoint []byte) (Statement, error) {
	request, nonce, err := timeRequest(checkpoint)
	if err != nil {
		return Statement{}, err
	}
	status, answer, err := a.post(ctx, a.URL, "application/timestamp-query", request)
	if err != nil {
		return Statement{}, err
	}
	if status != http.StatusOK {
		return Statement{}, fmt.Errorf("timestamp %s: %w: status %d", a.Name(), ErrRefused, status)
	}
	s := Statement{Checkpoint: slices.Clone(checkpoint), Token: answer}
	if s.Time, err = checkToken(answer, checkpoint, nonce, a.roots); err != nil {
		return Statement{}, fmt.Errorf("timestamp %s: %w", a.Name(), err)
	}
	return s, nil
}
