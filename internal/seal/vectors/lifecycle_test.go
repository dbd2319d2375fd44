package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/kaizen-audit/kaizen-audit/internal/seal"
)

var signers = map[string]string{
	"AUDIT_CREATED": "writer", "AUDIT_RECOVERY": "writer", "AUDIT_SEAL": "writer", "AUDIT_CLOCK": "writer",
	"AUDIT_POLICY": "lifecycle", "AUDIT_HOLD": "lifecycle", "AUDIT_ERASURE": "lifecycle", "AUDIT_PRUNE": "lifecycle",
}

// checkLine is docs/format-lifecycle.md §7.1, rules 1 and 2.
func checkLine(line string, v lifecycle) error {
	var compact bytes.Buffer
	if err := json.Compact(&compact, []byte(line)); err != nil || compact.String() != line {
		return errors.New("white space")
	}
	var e struct {
		EventType string `json:"event_type"`
		AgentID   string `json:"agent_id"`
		TraceID   string `json:"trace_id"`
		Outputs   struct{ Kind string }
		Metadata  json.RawMessage
	}
	if err := json.Unmarshal([]byte(line), &e); err != nil {
		return err
	}
	signer := signers[e.EventType]
	if e.EventType == "AUDIT_KEY" {
		signer = "writer"
		if e.Outputs.Kind == "signing" || e.Outputs.Kind == "lifecycle" {
			signer = "lifecycle"
		}
	}
	if signer == "" || e.AgentID != "kaizen-audit" || e.TraceID != v.Origin {
		return errors.New("no lifecycle entry of this trail")
	}
	var meta struct{ Signature string }
	if err := json.Unmarshal(e.Metadata, &meta); err != nil {
		return err
	}
	sig, err := base64.StdEncoding.Strict().DecodeString(meta.Signature)
	if err != nil || len(meta.Signature) != 88 {
		return errors.New("no signature")
	}
	quoted := `"signature":"` + meta.Signature + `"`
	at := strings.Index(line, `"metadata":`+string(e.Metadata))
	if at < 0 || strings.Count(string(e.Metadata), quoted) != 1 {
		return errors.New("signature in another spelling")
	}
	at += strings.Index(line[at:], quoted) + len(`"signature":"`)
	public := v.Writer.Public
	if signer == "lifecycle" {
		public = v.Lifecycle.Public
	}
	key, err := hex.DecodeString(public)
	if err != nil {
		return err
	}
	if !ed25519.Verify(key, []byte(line[:at]+line[at+88:]), sig) {
		return errors.New("signature does not verify")
	}
	return nil
}

func stored(t *testing.T) (v lifecycle) {
	data, err := os.ReadFile("../testdata/vectors/lifecycle.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestLifecycleLinesVerify(t *testing.T) {
	v := stored(t)
	seen := map[string]bool{}
	for _, l := range v.Lines {
		if err := checkLine(l.Line, v); err != nil {
			t.Errorf("%s: %v", l.Name, err)
		}
		var e struct {
			EventType string `json:"event_type"`
		}
		if err := json.Unmarshal([]byte(l.Line), &e); err != nil {
			t.Fatal(err)
		}
		seen[e.EventType] = true
	}
	if len(seen) != 9 {
		t.Errorf("%d types of nine: %v", len(seen), seen)
	}
	if len(v.Refused) < 10 {
		t.Errorf("%d lines to refuse", len(v.Refused))
	}
	for _, l := range v.Refused {
		if err := checkLine(l.Line, v); err == nil {
			t.Errorf("%s: verifies", l.Name)
		}
	}
}

// Ed25519 is deterministic, and so is all the rest.
func TestLifecycleVectorsAreWhatTheProgramMakes(t *testing.T) {
	got, err := json.Marshal(lifecycleVectors())
	if err != nil {
		t.Fatal(err)
	}
	want, err := json.Marshal(stored(t))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("testdata/vectors/lifecycle.json is not what the program makes: go generate ./internal/seal")
	}
}

// The library makes the fingerprint and the commitment that stand in the vectors.
func TestLibraryMakesWhatAnErasureNames(t *testing.T) {
	for _, l := range stored(t).Lines {
		if l.Name != "erasure" {
			continue
		}
		for _, want := range []string{
			`"commitment":"` + seal.Commitment(fixed(32, "salt of the certificate"), "mia_li_3668") + `"`,
			`"keys":["` + seal.Fingerprint(newSubject("person A").Key) + `"]`,
		} {
			if !strings.Contains(l.Line, want) {
				t.Errorf("it has no %s", want)
			}
		}
		return
	}
	t.Error("there is no such line")
}

// What the document shows is what was signed.
func TestDocumentShowsTheVectors(t *testing.T) {
	doc, err := os.ReadFile("../../../docs/format-lifecycle.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range stored(t).Lines {
		if n := strings.Count(string(doc), "\n"+l.Line+"\n"); n != 1 {
			t.Errorf("%s: the document shows it %d times", l.Name, n)
		}
	}
}
