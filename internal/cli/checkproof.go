package cli

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/report"
)

// proofResult is the JSON of check-proof.
type proofResult struct {
	Status string `json:"status"` // proved
	Kind   string `json:"kind"`   // inclusion, consistency, disclosure
	Origin string `json:"origin"`
	Index  *int64 `json:"index,omitempty"` // of an inclusion
	Size   int64  `json:"size"`
	Root   string `json:"root"` // base64
}

func (a *app) checkProofCommand() *cobra.Command {
	var line, digest, key, from, user, lifecycleKey string
	format := newChoice("table", "json")
	cmd := &cobra.Command{
		Use:   "check-proof FILE [--line F | --digest HEX | --from OLD | --user ID] --key VKEY",
		Short: "Check a proof; needs no trail",
		Long: `Checks a proof that prove made against the trail's vkey. It needs no trail and
reads nothing but the files that are named; FILE or F may be - for stdin.

A proof of an entry needs the entry's line, exactly as recorded (the newline at
its end does not count), or its digest. A proof that a trail extends an older
checkpoint needs that checkpoint.

The certificate of an erasure needs the person's identifier: only with it can be
told that it is about them.

A disclosure (of disclose) needs nothing more: its line is in it. The entry is
printed as far as it was disclosed.

The exit code is 0 when it is proved, 1 when it is not.`,
		Example: `  kaizen-audit check-proof 42.proof --line 42.json --key "$VKEY"
  kaizen-audit query --limit 1 --format jsonl | kaizen-audit check-proof 1.proof --line - --key "$VKEY"
  kaizen-audit check-proof extends.proof --from checkpoint.old --key "$VKEY"`,
		Args: func(_ *cobra.Command, args []string) error {
			given := 0
			for _, s := range []string{line, digest, from, user} {
				if s != "" {
					given++
				}
			}
			switch {
			case len(args) != 1:
				return usagef("one proof is needed: a file, or - for stdin")
			case given > 1:
				return usagef("one of --line, --digest, --from and --user, not several")
			case lifecycleKey != "" && user == "":
				return usagef("--lifecycle-key goes with --user only")
			case args[0] == "-" && line == "-":
				return usagef("the proof and the line can't both be stdin")
			case key == "":
				return usagef("--key is needed: the vkey that the trail's owner published")
			}
			if err := checkKey("key", key); err != nil || lifecycleKey == "" {
				return err
			}
			return checkKey("lifecycle-key", lifecycleKey)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			proof, err := readOperand(cmd.Context(), args[0], a.stdin, longestLine)
			if err != nil {
				return err
			}
			asked := line + digest + from + user
			switch {
			case audit.IsDisclosure(proof) && asked != "":
				return usagef("%s is a disclosure, and has its line in it: --key is all that it needs", args[0])
			case audit.IsDisclosure(proof):
				return a.checkDisclosure(proof, key, format.value)
			case len(proof) > maxProof:
				return usagef("%s: longer than %d bytes", args[0], maxProof)
			case asked == "":
				return usagef("one of --line, --digest, --from and --user is needed")
			}
			switch certificate := audit.IsCertificate(proof); {
			case certificate && user == "":
				return usagef("%s is an erasure's certificate: --user is needed", args[0])
			case user != "" && !certificate:
				return usagef("%s is no erasure's certificate: --user is for one", args[0])
			case certificate:
				return a.checkCertificate(proof, user, key, lifecycleKey, format.value)
			}
			r := proofResult{Status: "proved", Kind: "inclusion"}
			var p audit.Proof
			if from != "" {
				if !audit.IsConsistencyProof(proof) {
					return usagef("%s proves an entry: --line or --digest is needed, not --from", args[0])
				}
				old, err := readSmall(cmd.Context(), from, nil)
				if err != nil {
					return err
				}
				r.Kind = "consistency"
				if p, err = audit.CheckConsistency(proof, old, key); err != nil {
					return failedError{err}
				}
			} else {
				if audit.IsConsistencyProof(proof) {
					return usagef("%s proves that a trail extends a checkpoint: --from is needed", args[0])
				}
				d, err := a.proofDigest(cmd.Context(), line, digest)
				if err != nil {
					return err
				}
				if p, err = audit.CheckProof(proof, d, key); err != nil {
					return failedError{err}
				}
				r.Index = &p.Index
			}
			r.Origin, r.Size, r.Root = p.Origin, p.Size, base64.StdEncoding.EncodeToString(p.Root[:])
			if format.value == "json" {
				return printJSON(a.stdout, r)
			}
			what := "the trail extends the older checkpoint"
			if r.Index != nil {
				what = fmt.Sprintf("the line is entry %d", *r.Index)
			}
			return facts(a.stdout, [2]string{"Proved", what}, [2]string{"Origin", r.Origin},
				[2]string{"Size", fmt.Sprint(r.Size)}, [2]string{"Root", r.Root})
		},
	}
	f := cmd.Flags()
	f.StringVar(&line, "line", "", "the file with the entry's line, - for stdin")
	f.StringVar(&digest, "digest", "", "the line's SHA-256, 64 hex digits")
	f.StringVar(&from, "from", "", "the older signed checkpoint")
	f.StringVar(&user, "user", "", "the person that an erasure's certificate is about")
	f.StringVar(&lifecycleKey, "lifecycle-key", "", "the trail's lifecycle key, where that is another one than --key")
	f.StringVar(&key, "key", "", "the trail's verifier key (vkey), from somewhere you trust")
	addFormat(cmd, format)
	return cmd
}

// disclosureResult is the JSON of check-proof for a disclosure.
type disclosureResult struct {
	proofResult
	Entry  json.RawMessage `json:"entry"` // as far as it was disclosed
	Hidden []string        `json:"hidden"`
}

// checkDisclosure checks what disclose wrote, and shows the entry.
func (a *app) checkDisclosure(text []byte, key, format string) error {
	d, err := audit.CheckDisclosure(text, key)
	if err != nil {
		return failedError{err}
	}
	r := disclosureResult{
		proofResult: proofResult{Status: "proved", Kind: "disclosure", Origin: d.Origin, Index: &d.Index, Size: d.Size, Root: base64.StdEncoding.EncodeToString(d.Root[:])},
		Entry:       d.Entry.View(), Hidden: d.Hidden,
	}
	if r.Hidden == nil {
		r.Hidden = []string{}
	}
	if format == "json" {
		return printJSON(a.stdout, r)
	}
	lines := [][2]string{{"Proved", fmt.Sprintf("the disclosed line is entry %d", d.Index)}, {"Origin", r.Origin}, {"Size", fmt.Sprint(r.Size)}, {"Root", r.Root}}
	if len(d.Hidden) > 0 {
		lines = append(lines, [2]string{"Sealed", report.Printable(strings.Join(d.Hidden, ", "))})
	}
	return facts(a.stdout, append(lines, [2]string{"Entry", report.Printable(string(d.Entry.View()))})...)
}

// checkKey refuses what is no verifier key (golang.org/x/mod/sumdb/note).
func checkKey(flag, key string) error {
	if _, err := note.NewVerifier(key); err != nil {
		return usagef("--%s: this is no verifier key: NAME+HASH+KEY is one", flag)
	}
	return nil
}

// proofDigest is the digest that a proof is about.
func (a *app) proofDigest(ctx context.Context, line, digest string) (d [32]byte, err error) {
	if digest != "" {
		if n, err := hex.Decode(d[:], []byte(digest[:min(len(digest), 64)])); err != nil || n != len(d) || len(digest) != 64 {
			return d, usagef("--digest: must be 64 hex digits")
		}
		return d, nil
	}
	data, err := readOperand(ctx, line, a.stdin, longestLine)
	if err != nil {
		return d, err
	}
	data = bytes.TrimSuffix(data, []byte("\n"))
	switch {
	case len(data) == 0:
		return d, usageError{errors.New("--line: there is nothing in it")}
	case len(data) > longestLine:
		return d, usageError{errors.New("--line: longer than a line can be")}
	case bytes.IndexByte(data, '\n') >= 0:
		return d, usageError{errors.New("--line: there is more than one line in it")}
	}
	return entry.Digest(data), nil
}

// longestLine is the most that Options.MaxLine allows.
const longestLine = 1 << 30
