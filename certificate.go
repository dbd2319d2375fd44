package audit

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/keys"
	"github.com/kaizen-audit/kaizen-audit/internal/lifecycle"
	"github.com/kaizen-audit/kaizen-audit/internal/seal"
)

// certificateFormat names the form of an erasure's certificate (docs/erasure.md).
const certificateFormat = "kaizen-audit/erasure-certificate/v1"

// certificate is an erasure's certificate: the trail's entry about it, which is
// signed, with the proof that it is in the trail, and the salt with which the person
// checks that it is about them.
type certificate struct {
	Format string `json:"format"`
	Origin string `json:"origin"`
	Index  int64  `json:"index"`
	Line   string `json:"line"`
	Salt   string `json:"salt"`
	Proof  string `json:"proof"`
}

// makeCertificate makes the certificate of the erasure whose entry is at index.
func (t *Trail) makeCertificate(ctx context.Context, e keys.Erasing, index int64) (json.RawMessage, error) {
	view, err := t.lines()
	if err != nil {
		return nil, err
	}
	defer view.Close()
	line, err := view.Line(ctx, index)
	if err != nil {
		return nil, fmt.Errorf("entry %d: %w", index, explainMissing(err))
	}
	c, store, err := t.latest()
	if err != nil {
		return nil, err
	}
	proof, err := store.Inclusion(c, index)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	out := json.NewEncoder(&b)
	out.SetEscapeHTML(false)
	if err := out.Encode(certificate{certificateFormat, t.id.Origin, index, string(line), e.Salt, string(proof)}); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// ErasureCertificate is what a certificate says, once it was checked.
type ErasureCertificate struct {
	Origin  string    `json:"origin"`
	Index   int64     `json:"index"` // of the trail's entry about the erasure
	EventID string    `json:"event_id"`
	Erased  time.Time `json:"erased"`
	// Entries had Fields fields that are unreadable now, in Ranges.
	Entries int64   `json:"entries"`
	Fields  int64   `json:"fields"`
	Ranges  []Range `json:"ranges"`
	// Keys are fingerprints of the keys that were destroyed.
	Keys []string `json:"keys"`
	// CompleteAfter is when the last backup of the keys is gone; nil: there was none.
	CompleteAfter *time.Time  `json:"complete_after"`
	Kept          KeptEntries `json:"kept"`
	// SizeBefore and RootBefore (hex) are of the checkpoint before the erasure, Size
	// and Root of the one that proves it.
	SizeBefore int64  `json:"size_before"`
	RootBefore string `json:"root_before"`
	Size       int64  `json:"size"`
	Root       string `json:"root"` // base64
}

// IsCertificate tells whether data is an erasure's certificate, by its form.
func IsCertificate(data []byte) bool {
	var c certificate
	return json.Unmarshal(data, &c) == nil && c.Format == certificateFormat
}

// CheckCertificate checks an erasure's certificate against the trail's verifier key
// vkey, and lifecycle's, where that is another one ("" says that it is not), and that
// it is about user. It needs no trail. An error means that nothing is proved.
func CheckCertificate(data []byte, user, vkey, lifecycleVKey string) (*ErasureCertificate, error) {
	c, err := checkCertificate(data, user, vkey, lifecycleVKey)
	if err != nil {
		return nil, fmt.Errorf("check certificate: %w", err)
	}
	return c, nil
}

func checkCertificate(data []byte, user, vkey, lifecycleVKey string) (*ErasureCertificate, error) {
	var c certificate
	if err := json.Unmarshal(data, &c); err != nil || c.Format != certificateFormat {
		return nil, errors.New("it is no certificate of this form")
	}
	if lifecycleVKey == "" {
		lifecycleVKey = vkey
	}
	line := []byte(c.Line)
	p, err := CheckProof([]byte(c.Proof), entry.Digest(line), vkey)
	if err != nil {
		return nil, err
	}
	e, err := entry.Parse(line)
	says := lifecycle.Replay(lifecycle.Config{Origin: c.Origin, LifecycleVKey: lifecycleVKey, Covered: c.Index + 1}, []lifecycle.Line{{Index: c.Index, Text: line}})
	switch {
	case err != nil:
		return nil, errors.New("its line is no entry")
	case p.Index != c.Index || p.Origin != c.Origin:
		return nil, errors.New("its proof is of another entry")
	case len(says.Erasures) != 1:
		return nil, errors.New("its line is no entry about an erasure that the trail's lifecycle key has signed")
	}
	text, err := e.Outputs.AppendJSON(nil)
	if err != nil {
		return nil, err
	}
	var out struct {
		Commitment    string
		Entries       int64
		Fields        int64
		Ranges        []Range
		Keys          []string
		CompleteAfter *string `json:"complete_after"`
		Kept          KeptEntries
		Size          int64
		Root          string
	}
	if err := json.Unmarshal(text, &out); err != nil {
		return nil, errors.New("its line is no entry about an erasure")
	}
	salt, err := base64.RawURLEncoding.Strict().DecodeString(c.Salt)
	if err != nil || len(salt) != seal.CommitmentSalt || seal.Commitment(salt, user) != out.Commitment {
		return nil, errors.New("it is about somebody else")
	}
	r := &ErasureCertificate{
		Origin: c.Origin, Index: c.Index, EventID: e.EventID, Erased: e.RecordedAt, Entries: out.Entries, Fields: out.Fields, Ranges: out.Ranges,
		Keys: out.Keys, Kept: out.Kept, SizeBefore: out.Size, RootBefore: out.Root, Size: p.Size, Root: base64.StdEncoding.EncodeToString(p.Root[:]),
	}
	if out.CompleteAfter != nil {
		at, _, err := entry.ParseTime(*out.CompleteAfter)
		if err != nil {
			return nil, errors.New("its line is no entry about an erasure")
		}
		r.CompleteAfter = &at
	}
	return r, nil
}
