package tree

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/trust"
)

// Checkpoint is a signed tree head (c2sp.org/tlog-checkpoint).
type Checkpoint struct {
	Origin string
	Size   int64
	Root   Hash
	// Signed is the note as it is on disk, signatures included.
	Signed []byte
}

// maxCheckpoint bounds what is read as a checkpoint: x/mod accepts notes of up
// to a million bytes.
const maxCheckpoint = 1_000_000

// Sign makes the checkpoint of a tree. While keys overlap others sign it too.
func Sign(signer note.Signer, size int64, root Hash, others ...note.Signer) (Checkpoint, error) {
	c := Checkpoint{Origin: signer.Name(), Size: size, Root: root}
	var err error
	if c.Signed, err = note.Sign(&note.Note{Text: c.Text()}, append([]note.Signer{signer}, others...)...); err != nil {
		return Checkpoint{}, fmt.Errorf("sign checkpoint: %w", err)
	}
	return c, nil
}

// Text is what is signed of a checkpoint.
func (c Checkpoint) Text() string {
	return fmt.Sprintf("%s\n%d\n%s\n", c.Origin, c.Size, base64.StdEncoding.EncodeToString(c.Root[:]))
}

// ErrSignature means that a checkpoint is not signed by the key.
var ErrSignature = errors.New("not signed by the trail's key")

// ParseCheckpoint reads a checkpoint and checks that a key that counts for its size
// has signed it, and that its origin is the keys' name.
func ParseCheckpoint(signed []byte, keys trust.Set) (Checkpoint, error) {
	n, err := note.Open(signed, keys)
	if err != nil {
		var unverified *note.UnverifiedNoteError
		var invalid *note.InvalidSignatureError
		if errors.As(err, &unverified) || errors.As(err, &invalid) {
			return Checkpoint{}, fmt.Errorf("parse checkpoint: %w", ErrSignature)
		}
		return Checkpoint{}, errors.New("parse checkpoint: malformed note")
	}
	c, err := parseText(n.Text)
	if err != nil {
		return Checkpoint{}, err
	}
	if c.Origin != keys.Name() {
		return Checkpoint{}, errors.New("parse checkpoint: origin is not the key's name")
	}
	c.Signed = signed
	if !keys.Signed(n, c.Size) {
		return Checkpoint{}, fmt.Errorf("parse checkpoint: %w", ErrSignature)
	}
	return c, nil
}

// parseText reads what is signed of a checkpoint. Lines after the third are others'
// extensions, which say nothing here.
func parseText(text string) (c Checkpoint, err error) {
	lines := strings.Split(text, "\n")
	if len(lines) < 4 {
		return Checkpoint{}, errors.New("parse checkpoint: fewer than three lines")
	}
	c.Origin = lines[0]
	c.Size, err = strconv.ParseInt(lines[1], 10, 64)
	if err != nil || c.Size < 0 || strconv.FormatInt(c.Size, 10) != lines[1] {
		return Checkpoint{}, errors.New("parse checkpoint: the size is not a decimal number")
	}
	root, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || len(root) != sha256.Size || base64.StdEncoding.EncodeToString(root) != lines[2] {
		return Checkpoint{}, errors.New("parse checkpoint: the root is not the base64 of 32 bytes")
	}
	c.Root = Hash(root)
	return c, nil
}

// Checkpoint reads the latest checkpoint.
func (s *Store) Checkpoint(keys trust.Set) (Checkpoint, error) {
	signed, err := durable.ReadFile(s.fs, filepath.Join(s.dir, "checkpoint"), maxCheckpoint)
	if err != nil {
		return Checkpoint{}, err
	}
	return ParseCheckpoint(signed, keys)
}

// Put replaces the latest checkpoint. Flush must have returned for a builder
// of that size.
func (s *Store) Put(c Checkpoint) error {
	if err := durable.WriteFile(s.fs, filepath.Join(s.dir, "checkpoint"), c.Signed, 0o600); err != nil {
		return fmt.Errorf("write checkpoint: %w", err)
	}
	return nil
}

// Keep keeps a copy of a checkpoint.
func (s *Store) Keep(c Checkpoint) error {
	dir := filepath.Join(s.dir, "checkpoints")
	err := s.mkdir(dir)
	if err == nil {
		err = durable.WriteFile(s.fs, filepath.Join(dir, strconv.FormatInt(c.Size, 10)), c.Signed, 0o600)
	}
	if err != nil {
		return fmt.Errorf("keep checkpoint: %w", err)
	}
	return nil
}
