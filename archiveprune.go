package audit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/kaizen-audit/kaizen-audit/archive"
	"github.com/kaizen-audit/kaizen-audit/internal/archiver"
	"github.com/kaizen-audit/kaizen-audit/internal/lifecycle"
)

// ArchivePrune says what of an archive was pruned from its trail, and what was, or
// would be, removed there.
type ArchivePrune struct {
	To       string           `json:"to"`
	Segments []ArchivedPruned `json:"segments"`
	Removed  struct {
		Segments int   `json:"segments"`
		Entries  int64 `json:"entries"`
		Bytes    int64 `json:"bytes"`
		Said     int64 `json:"said"` // the index of the entry about it; -1: nothing was removed
	} `json:"removed"`
}

// ArchivedPruned is a segment that the trail has pruned and its archive has.
type ArchivedPruned struct {
	First  int64 `json:"first"`
	Count  int64 `json:"count"`
	Stored int64 `json:"stored"`
	// Until is its retention date there, Why why it stays; empty: it goes.
	Until time.Time `json:"until,omitzero"`
	Why   string    `json:"why"`
}

// PruneArchive removes from an archive the lines of what its trail has pruned, once
// their retention date there is over and no hold is on them: every version of the
// segment, and of the pieces of the tail that had the same lines. Digests and
// checkpoints stay, so that the archive can still be verified and restored. The trail
// says so first, in an entry (AUDIT_ARCHIVE). dryRun only looks. It is ErrLocked where
// another process holds the trail, which does it by itself once a day where it
// archives (Options.ArchiveTo).
func (t *Trail) PruneArchive(ctx context.Context, store archive.Store, dryRun bool) (*ArchivePrune, error) {
	if err := t.authorizeAll(ctx, "PruneArchive"); err != nil {
		return nil, fmt.Errorf("prune archive of %s: %w", t.path, err)
	}
	r, err := t.pruneArchive(ctx, store, dryRun)
	if err != nil {
		return r, fmt.Errorf("prune archive of %s: %w", t.path, explainArchive(err))
	}
	return r, nil
}

func (t *Trail) pruneArchive(ctx context.Context, store archive.Store, dryRun bool) (*ArchivePrune, error) {
	if !dryRun {
		if err := t.holding(ctx); err != nil {
			return nil, err
		}
	}
	state, err := t.lifeNow(ctx)
	if err != nil {
		return nil, err
	}
	pruned := func(first, count int64) bool {
		return count > 0 && lifecycle.Contains(state.Gaps, lifecycle.Range{First: first, Count: count})
	}
	list, tails, err := archiver.Prunable(ctx, store, t.id.Origin, pruned)
	r := &ArchivePrune{To: store.URL(), Segments: []ArchivedPruned{}}
	r.Removed.Said = -1
	now := t.clock.now()
	var gone []lifecycle.Range
	for _, s := range list {
		p := ArchivedPruned{First: s.First, Count: s.Count, Stored: s.Stored, Until: s.Until}
		switch {
		case s.Held:
			p.Why = "a legal hold is on it"
		case now.Before(s.Until):
			p.Why = "kept until its date"
		default:
			gone = append(gone, lifecycle.Range{First: s.First, Count: s.Count})
		}
		r.Segments = append(r.Segments, p)
	}
	if err != nil || dryRun || len(gone) == 0 {
		return r, err
	}
	receipt, err := t.recordOwnReceipt(ctx, ownEntry{eventType: "AUDIT_ARCHIVE", action: "archive_pruned", metadata: ownMetadata(ctx),
		outputs: map[string]any{"to": store.URL(), "ranges": joined(gone), "rule": "retention"}})
	if err == nil {
		err = explainJournal(t.journal.Flush(ctx))
	}
	if err == nil {
		err = t.signer.sign()
	}
	if err != nil {
		return r, err
	}
	r.Removed.Said = receipt.Index
	// Crash from here on: what is left is found by the next one, and said again.
	for i := range r.Segments {
		p := &r.Segments[i]
		if p.Why != "" {
			continue
		}
		err := archiver.RemovePruned(ctx, store, p.First, p.Count, tails)
		if errors.Is(err, archive.ErrKept) {
			p.Why = "the archive keeps it" // its clock, or a lock that only it knows
			continue
		}
		if err != nil {
			return r, err
		}
		r.Removed.Segments, r.Removed.Entries, r.Removed.Bytes = r.Removed.Segments+1, r.Removed.Entries+p.Count, r.Removed.Bytes+p.Stored
	}
	return r, nil
}

// joined are ranges with those that touch made one.
func joined(all []lifecycle.Range) (out []lifecycle.Range) {
	for _, r := range all {
		out = lifecycle.Join(out, r)
	}
	return out
}

// pruneArchiveByItself is PruneArchive once a day; who may not delete there is told
// once.
func (t *Trail) pruneArchiveByItself(ctx context.Context) {
	if t.archiving == nil || t.archiving.mayNotPrune {
		return
	}
	_, err := t.pruneArchive(ctx, t.opts.ArchiveTo, false)
	if errors.Is(err, fs.ErrPermission) {
		t.archiving.mayNotPrune = true
	}
	if err != nil && !errors.Is(err, ErrClosed) && t.journal.Err() == nil {
		t.warn(fmt.Errorf("prune archive: %w", explainArchive(err)))
	}
}
