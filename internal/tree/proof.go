package tree

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/kaizen-audit/kaizen-audit/internal/trust"
)

// proofHeader begins an inclusion proof (c2sp.org/tlog-proof).
const proofHeader = "c2sp.org/tlog-proof@v1\n"

// maxHashes is the longest proof (c2sp.org/tlog-witness).
const maxHashes = 63

// tileReader gives x/mod our tiles; it checks them against the root.
type tileReader struct{ *Store }

func (tileReader) Height() int                     { return tileHeight }
func (tileReader) SaveTiles([]tlog.Tile, [][]byte) {}
func (r tileReader) ReadTiles(tiles []tlog.Tile) (data [][]byte, err error) {
	for _, t := range tiles {
		b, err := r.Tile(t.L, t.N, t.W)
		if err != nil {
			return nil, err
		}
		data = append(data, b)
	}
	return data, nil
}

func (s *Store) hashes(c Checkpoint) tlog.HashReader {
	return tlog.TileHashReader(tlog.Tree{N: c.Size, Hash: tlog.Hash(c.Root)}, tileReader{s})
}

// Inclusion gives the tlog-proof that the entry at index is in the tree of a
// checkpoint. Tiles that do not match the checkpoint are an error.
func (s *Store) Inclusion(c Checkpoint, index int64) ([]byte, error) {
	if index < 0 || index >= c.Size {
		return nil, fmt.Errorf("prove inclusion: index %d is not below the checkpoint's size %d", index, c.Size)
	}
	p, err := tlog.ProveRecord(c.Size, index, s.hashes(c))
	if err != nil {
		return nil, fmt.Errorf("prove inclusion: %w", err)
	}
	out := append([]byte(proofHeader), "index "...)
	out = strconv.AppendInt(out, index, 10)
	out = append(out, '\n')
	out = appendHashes(out, p)
	return append(append(out, '\n'), c.Signed...), nil
}

// Consistency gives the proof that the tree of a checkpoint extends that of an
// older one, in the form of a request to a witness (c2sp.org/tlog-witness,
// add-checkpoint).
func (s *Store) Consistency(old, c Checkpoint) ([]byte, error) {
	out, p, err := s.extends(old.Size, c)
	if err != nil {
		return nil, err
	}
	// Never hand out what does not hold: the old checkpoint may be from
	// another history.
	if _, err := checkConsistency(p, old, c); err != nil {
		return nil, err
	}
	return out, nil
}

// WitnessRequest is Consistency from a size whose root is the witness's to know.
func (s *Store) WitnessRequest(old int64, c Checkpoint) ([]byte, error) {
	out, _, err := s.extends(old, c)
	return out, err
}

func (s *Store) extends(old int64, c Checkpoint) ([]byte, tlog.TreeProof, error) {
	if old > c.Size {
		return nil, nil, fmt.Errorf("prove consistency: the old checkpoint's size %d is beyond the latest, %d", old, c.Size)
	}
	var p tlog.TreeProof
	if old > 0 && old < c.Size {
		var err error
		if p, err = tlog.ProveTree(c.Size, old, s.hashes(c)); err != nil {
			return nil, nil, fmt.Errorf("prove consistency: %w", err)
		}
	}
	out := append([]byte("old "), strconv.FormatInt(old, 10)...)
	out = append(out, '\n')
	out = appendHashes(out, p)
	return append(append(out, '\n'), c.Signed...), p, nil
}

// ParseWitnessRequest gives the old size and the signed checkpoint of a request to a
// witness, whose proof CheckConsistency checks.
func ParseWitnessRequest(request []byte) (old int64, signed []byte, err error) {
	old, _, signed, err = proofParts(request, "old")
	return old, signed, err
}

// SigningRequest is the request to a signer: the proof that of the tree of a
// checkpoint that is not signed yet and one of size entries, whose root is the
// signer's to know, the larger extends the smaller. larger is a checkpoint whose tiles
// are there, of the larger of the two.
func (s *Store) SigningRequest(size int64, c, larger Checkpoint) ([]byte, error) {
	larger.Signed = nil
	out, _, err := s.extends(min(size, c.Size), larger)
	if err != nil {
		return nil, err
	}
	_, hashes, ok := bytes.Cut(out, []byte("\n"))
	if !ok {
		return nil, errors.New("prove consistency: no proof")
	}
	return append(append(fmt.Appendf(nil, "old %d\n", size), hashes...), c.Text()...), nil
}

// ParseSigningRequest reads such a request: the size that it is about and the
// checkpoint that is to be signed.
func ParseSigningRequest(request []byte) (size int64, c Checkpoint, err error) {
	size, _, text, err := proofParts(request, "old")
	if err != nil {
		return 0, c, err
	}
	if c, err = parseText(string(text)); err == nil && c.Text() != string(text) {
		err = errors.New("parse checkpoint: more than three lines")
	}
	return size, c, err
}

// CheckSigningRequest checks the proof of a request against the checkpoint of its
// size.
func CheckSigningRequest(request []byte, last Checkpoint) error {
	size, hashes, _, err := proofParts(request, "old")
	if err != nil {
		return err
	}
	_, c, err := ParseSigningRequest(request)
	switch {
	case err != nil:
		return err
	case size != last.Size:
		return fmt.Errorf("check consistency: the proof is about size %d, and %d was signed", size, last.Size)
	case c.Size < last.Size:
		_, err = checkConsistency(hashes, c, last)
	default:
		_, err = checkConsistency(hashes, last, c)
	}
	return err
}

func appendHashes(dst []byte, hashes []tlog.Hash) []byte {
	for _, h := range hashes {
		dst = base64.StdEncoding.AppendEncode(dst, h[:])
		dst = append(dst, '\n')
	}
	return dst
}

// proofParts splits a proof into its first line's number, its hashes and the
// checkpoint after the empty line.
func proofParts(proof []byte, keyword string) (n int64, hashes []tlog.Hash, signed []byte, err error) {
	head, signed, ok := bytes.Cut(proof, []byte("\n\n"))
	if !ok {
		return 0, nil, nil, errors.New("parse proof: no empty line before the checkpoint")
	}
	lines := strings.Split(string(head), "\n")
	if len(lines) > 0 && strings.HasPrefix(lines[0], "extra ") {
		lines = lines[1:] // not authenticated, so not looked at
	}
	if len(lines) == 0 {
		return 0, nil, nil, fmt.Errorf("parse proof: no line %q", keyword+" N")
	}
	text, ok := strings.CutPrefix(lines[0], keyword+" ")
	n, numErr := strconv.ParseInt(text, 10, 64)
	if !ok || numErr != nil || n < 0 || strconv.FormatInt(n, 10) != text {
		return 0, nil, nil, fmt.Errorf("parse proof: no line %q", keyword+" N")
	}
	lines = lines[1:]
	if len(lines) > maxHashes {
		return 0, nil, nil, fmt.Errorf("parse proof: more than %d hashes", maxHashes)
	}
	for i, l := range lines {
		h, err := base64.StdEncoding.DecodeString(l)
		if err != nil || len(h) != sha256.Size || base64.StdEncoding.EncodeToString(h) != l {
			return 0, nil, nil, fmt.Errorf("parse proof: hash %d is not the base64 of 32 bytes", i+1)
		}
		hashes = append(hashes, tlog.Hash(h))
	}
	return n, hashes, signed, nil
}

// CheckInclusion checks a tlog-proof for the line with this digest and gives
// the index and the checkpoint it holds under.
func CheckInclusion(proof []byte, digest Hash, keys trust.Set) (index int64, c Checkpoint, err error) {
	rest, ok := bytes.CutPrefix(proof, []byte(proofHeader))
	if !ok {
		return 0, Checkpoint{}, fmt.Errorf("parse proof: the first line is not %q", strings.TrimSuffix(proofHeader, "\n"))
	}
	index, hashes, signed, err := proofParts(rest, "index")
	if err != nil {
		return 0, Checkpoint{}, err
	}
	if c, err = ParseCheckpoint(signed, keys); err != nil {
		return 0, Checkpoint{}, err
	}
	if index >= c.Size {
		return 0, Checkpoint{}, errors.New("check inclusion: the index is not below the checkpoint's size")
	}
	if err := tlog.CheckRecord(hashes, c.Size, tlog.Hash(c.Root), index, tlog.Hash(LeafHash(digest))); err != nil {
		return 0, Checkpoint{}, errors.New("check inclusion: the proof does not lead from this line to the signed root")
	}
	return index, c, nil
}

// IsConsistency reports whether a proof file is one of consistency.
func IsConsistency(proof []byte) bool { return bytes.HasPrefix(proof, []byte("old ")) }

// CheckConsistency checks that the checkpoint in a consistency proof extends
// an older one.
func CheckConsistency(proof []byte, old Checkpoint, keys trust.Set) (Checkpoint, error) {
	n, hashes, signed, err := proofParts(proof, "old")
	if err != nil {
		return Checkpoint{}, err
	}
	c, err := ParseCheckpoint(signed, keys)
	if err != nil {
		return Checkpoint{}, err
	}
	if n != old.Size {
		return Checkpoint{}, fmt.Errorf("check consistency: the proof starts at size %d, the old checkpoint has %d", n, old.Size)
	}
	return checkConsistency(hashes, old, c)
}

func checkConsistency(p tlog.TreeProof, old, c Checkpoint) (Checkpoint, error) {
	var ok bool
	switch {
	case old.Origin != c.Origin || old.Size > c.Size || c.Size == 0 && c.Root != EmptyRoot:
	case old.Size == 0:
		ok = len(p) == 0 && old.Root == EmptyRoot
	case old.Size == c.Size:
		ok = len(p) == 0 && old.Root == c.Root
	default:
		ok = tlog.CheckTree(p, c.Size, tlog.Hash(c.Root), old.Size, tlog.Hash(old.Root)) == nil
	}
	if !ok {
		return Checkpoint{}, ErrInconsistent
	}
	return c, nil
}

// ErrInconsistent means that one tree does not extend the other.
var ErrInconsistent = errors.New("check consistency: the newer checkpoint does not extend the older one")
