package audit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/kaizen-audit/kaizen-audit/internal/tree"
	"github.com/kaizen-audit/kaizen-audit/internal/trust"
)

// Proof is what a proof shows.
type Proof struct {
	Origin string
	// Index is the entry's, for an inclusion; Size and Root are the
	// checkpoint's.
	Index, Size int64
	Root        [32]byte
}

// Prove gives a proof that the entry at index is in the trail, under the
// latest checkpoint: a C2SP tlog-proof. It is checked with the line, the
// trail's vkey and nothing else (CheckProof, or anybody's tool). It holds no
// content. ErrNotFound: no checkpoint covers the entry yet.
func (t *Trail) Prove(ctx context.Context, index int64) ([]byte, error) {
	if err := t.authorizeAll(ctx, "Prove"); err != nil {
		return nil, fmt.Errorf("prove entry %d: %w", index, err)
	}
	if err := t.noteRead(ctx, readEntry{"AUDIT_PROOF", "prove"}, map[string]any{"index": index}); err != nil {
		return nil, fmt.Errorf("prove entry %d: %w", index, err)
	}
	c, store, err := t.latest()
	if err != nil {
		return nil, fmt.Errorf("prove entry %d: %w", index, explainProof(err))
	}
	if index < 0 || index >= c.Size {
		return nil, fmt.Errorf("prove entry %d: %w: the latest checkpoint covers %d entries", index, ErrNotFound, c.Size)
	}
	p, err := store.Inclusion(c, index)
	if err != nil {
		return nil, fmt.Errorf("prove entry %d: %w: %w", index, ErrDamaged, err)
	}
	return p, nil
}

// ProveConsistency gives a proof that the latest checkpoint extends an older
// one, which is the signed checkpoint's text. It has the form of a request to
// a witness (c2sp.org/tlog-witness, add-checkpoint).
func (t *Trail) ProveConsistency(ctx context.Context, old []byte) ([]byte, error) {
	if err := t.authorizeAll(ctx, "ProveConsistency"); err != nil {
		return nil, fmt.Errorf("prove consistency: %w", err)
	}
	const op = "prove consistency"
	if err := t.noteRead(ctx, readEntry{"AUDIT_PROOF", "prove"}, map[string]any{"consistency": true}); err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	id := t.ids()
	keys, err := id.trusted(id.VKey)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", op, ErrDamaged, err)
	}
	from, err := tree.ParseCheckpoint(old, keys)
	if err != nil {
		return nil, fmt.Errorf("%s: old checkpoint: %w", op, err)
	}
	c, store, err := t.latest()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, explainProof(err))
	}
	p, err := store.Consistency(from, c)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", op, ErrDamaged, err)
	}
	return p, nil
}

func explainProof(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, tree.ErrSignature) {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return err
}

// CheckProof checks a tlog-proof for the line with this digest against the
// verifier key vkey. It needs no trail. An error means that nothing is proved.
func CheckProof(proof []byte, digest [32]byte, vkey string) (Proof, error) {
	keys, err := trust.One(vkey)
	if err != nil {
		return Proof{}, fmt.Errorf("check proof: vkey: %w", err)
	}
	index, c, err := tree.CheckInclusion(proof, digest, keys)
	if err != nil {
		return Proof{}, fmt.Errorf("check proof: %w", err)
	}
	return Proof{c.Origin, index, c.Size, c.Root}, nil
}

// CheckConsistency checks what ProveConsistency gave against the older
// checkpoint's text. It needs no trail.
func CheckConsistency(proof, old []byte, vkey string) (Proof, error) {
	keys, err := trust.One(vkey)
	if err != nil {
		return Proof{}, fmt.Errorf("check proof: vkey: %w", err)
	}
	from, err := tree.ParseCheckpoint(old, keys)
	if err != nil {
		return Proof{}, fmt.Errorf("check proof: old checkpoint: %w", err)
	}
	c, err := tree.CheckConsistency(proof, from, keys)
	if err != nil {
		return Proof{}, fmt.Errorf("check proof: %w", err)
	}
	return Proof{Origin: c.Origin, Size: c.Size, Root: c.Root}, nil
}

// IsConsistencyProof reports whether a proof is one of consistency.
func IsConsistencyProof(proof []byte) bool { return tree.IsConsistency(proof) }
