package audit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/kaizen-audit/kaizen-audit/internal/advice"
	"github.com/kaizen-audit/kaizen-audit/internal/archiver"
	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/tree"
	"github.com/kaizen-audit/kaizen-audit/internal/witness"
)

// Anchor names a party outside that vouches for the trail's checkpoints
// (docs/anchors.md): a witness that cosigns them (c2sp.org/tlog-witness) by its key,
// or an authority for timestamps (RFC 3161) by the certificates that it chains to.
type Anchor struct {
	// URL is the witness's submission prefix or the authority's address.
	URL string
	// VKey is the witness's verifier key (NAME+HASH+KEY, of type 0x04).
	VKey string
	// CAFile has the certificates (PEM) under which an authority's must be.
	CAFile string
	// Every is how often it is asked at most; 0 means 10 s for a witness, an hour for
	// an authority.
	Every time.Duration
}

// AnchorInfo is what is known of an anchor.
type AnchorInfo struct {
	Kind string `json:"kind"` // witness, timestamp, archive
	Name string `json:"name"`
	// Size is of the newest checkpoint that it has vouched for, and Time when, by its
	// clock; -1 and no time where there is none.
	Size int64     `json:"size"`
	Time time.Time `json:"time,omitzero"`
	// Lag is how many entries under the latest checkpoint it has not vouched for.
	Lag int64 `json:"lag"`
	// Problem is what went wrong with it last; empty where nothing did.
	Problem string `json:"problem,omitempty"`
}

// makeAnchors makes the anchors of the options ready.
func makeAnchors(list []Anchor) ([]*witness.Anchor, error) {
	var out []*witness.Anchor
	seen := map[string]bool{}
	for i, c := range list {
		a, err := newAnchor(c)
		if err == nil && seen[a.ID()] {
			err = errors.New("it is named twice")
		}
		if err != nil {
			return nil, optionError("Anchors", "anchor %d: %w", i+1, err)
		}
		seen[a.ID()] = true
		out = append(out, a)
	}
	return out, nil
}

// CheckAnchor tells what is wrong with an anchor's description. Nobody is asked.
func CheckAnchor(a Anchor) error {
	_, err := newAnchor(a)
	return err
}

func newAnchor(a Anchor) (*witness.Anchor, error) {
	return witness.New(witness.Config{URL: a.URL, VKey: a.VKey, CAFile: a.CAFile, Every: a.Every})
}

// anchorStores are where statements are kept: beside the trail, where they are
// evidence, and below the state directory, where they outlive a trail that is rolled
// back or copied with all that is beside it.
func anchorStores(dir, stateDir, origin string) []*witness.Store {
	stores := []*witness.Store{witness.NewStore(durable.OS, filepath.Join(dir, "anchors"), true)}
	if stateDir != "" {
		sum := sha256.Sum256([]byte(origin))
		stores = append(stores, witness.NewStore(durable.OS, filepath.Join(stateDir, "anchors", hex.EncodeToString(sum[:16])), false))
	}
	return stores
}

// openWait bounds how long an opening waits for the answers of all witnesses.
const openWait = 3 * time.Second

// compareAnchors compares the trail's latest checkpoint with what its anchors have
// vouched for last, before anything is written: with what is kept of it here, with
// what each witness has seen, and with what is archived. ErrForked: the trail was rolled back, or is a copy
// while another one goes on. A witness that does not answer is warned of.
func (t *Trail) compareAnchors(c tree.Checkpoint, store *tree.Store) error {
	ctx, cancel := context.WithTimeout(context.Background(), openWait)
	defer cancel()
	var wg sync.WaitGroup
	errs := make([]error, len(t.anchors)+1)
	for i, a := range t.anchors {
		wg.Go(func() { errs[i] = t.compareAnchor(ctx, a, c, store) })
	}
	wg.Go(func() { errs[len(t.anchors)] = t.compareArchive(ctx, c, store) })
	wg.Wait()
	for _, err := range errs {
		if errors.Is(err, ErrForked) {
			return advice.For(err, "find out who has the other history, or why the files here are old: docs/anchors.md; to go on in a new trail: kaizen-audit init --successor-of %[1]s --log %[1]s", advice.Quote(t.path))
		}
		if err != nil {
			t.warn(fmt.Errorf("anchor: %w", err))
		}
	}
	return nil
}

func (t *Trail) compareAnchor(ctx context.Context, a *witness.Anchor, c tree.Checkpoint, store *tree.Store) error {
	seen, err := t.compareKept(a, c, store)
	if err != nil || a.Kind() != witness.KindWitness || c.Size == 0 {
		return err
	}
	return t.askAnchor(ctx, a, c, seen, store)
}

// compareArchive compares a checkpoint with the newest that the trail's archive has.
func (t *Trail) compareArchive(ctx context.Context, c tree.Checkpoint, store *tree.Store) error {
	if t.opts.ArchiveTo == nil || !t.onDisk() {
		return nil
	}
	list, err := archiver.Checkpoints(ctx, t.opts.ArchiveTo, t.id.Origin)
	if err != nil {
		return fmt.Errorf("archive %s: %w", t.opts.ArchiveTo.URL(), err)
	}
	id := t.ids()
	keys, err := id.trusted(id.VKey)
	if err != nil {
		return err
	}
	for _, a := range list {
		from, err := tree.ParseCheckpoint(a.Signed, keys)
		if err != nil {
			return fmt.Errorf("archive %s: its checkpoint: %w", t.opts.ArchiveTo.URL(), err)
		}
		if from.Size > c.Size {
			return fmt.Errorf("%w: the archive %s has %d entries under a checkpoint, and the trail's covers %d", ErrForked, t.opts.ArchiveTo.URL(), from.Size, c.Size)
		}
		if _, err := store.Consistency(from, c); errors.Is(err, tree.ErrInconsistent) {
			return fmt.Errorf("%w: the trail does not extend the %d entries that the archive %s has under a checkpoint", ErrForked, from.Size, t.opts.ArchiveTo.URL())
		} else if err != nil {
			return err
		}
	}
	return nil
}

// warnOfForks compares with what is kept of the anchors, for a reader: it is told, and
// reads all the same.
func (t *Trail) warnOfForks() {
	if len(t.anchors) == 0 {
		return
	}
	c, store, err := t.latest()
	if err != nil {
		return // who reads is told of it
	}
	for _, a := range t.anchors {
		if _, err := t.compareKept(a, c, store); errors.Is(err, ErrForked) {
			t.warn(err)
		}
	}
}

// compareKept compares a checkpoint with what is kept of an anchor, and gives the size
// that it has vouched for last, 0 where nothing is kept.
func (t *Trail) compareKept(a *witness.Anchor, c tree.Checkpoint, store *tree.Store) (seen int64, err error) {
	for _, s := range anchorStores(t.dir, t.stateDir(), t.id.Origin) {
		st, size, ok, err := s.Latest(a)
		if errors.Is(err, witness.ErrKept) {
			t.warn(fmt.Errorf("anchor: %w", err))
			continue
		}
		if err != nil || !ok {
			if err != nil {
				return 0, err
			}
			continue
		}
		id := t.ids()
		keys, err := id.trusted(id.VKey)
		if err != nil {
			return 0, err
		}
		from, err := tree.ParseCheckpoint(st.Checkpoint, keys)
		if err != nil {
			return 0, fmt.Errorf("what is kept of %s: %w", a.Name(), err)
		}
		if from.Size > c.Size {
			return 0, fmt.Errorf("%w: %s has vouched for %d entries, and the trail's checkpoint covers %d", ErrForked, a.Name(), from.Size, c.Size)
		}
		if _, err := store.Consistency(from, c); errors.Is(err, tree.ErrInconsistent) {
			return 0, fmt.Errorf("%w: the trail does not extend the %d entries that %s has vouched for", ErrForked, from.Size, a.Name())
		} else if err != nil {
			return 0, err
		}
		seen = max(seen, size)
	}
	return seen, nil
}

// askAnchor has an anchor vouch for a checkpoint, and keeps what it says.
func (t *Trail) askAnchor(ctx context.Context, a *witness.Anchor, c tree.Checkpoint, old int64, store *tree.Store) error {
	st, err := a.Ask(ctx, c.Signed, c.Size, old, func(old int64) ([]byte, error) { return store.WitnessRequest(old, c) })
	if err != nil {
		return err
	}
	for _, s := range anchorStores(t.dir, t.stateDir(), t.id.Origin) {
		err = errors.Join(err, s.Put(a, c.Size, st))
	}
	return err
}

// anchorSink takes checkpoints to an anchor, in the background of a writer.
type anchorSink struct {
	t    *Trail
	a    *witness.Anchor
	old  int64     // what it has vouched for, as far as is known here
	last time.Time // when, by this machine's clock
}

func (s *anchorSink) Name() string { return s.a.Kind() + ":" + s.a.Name() }

// Send has the anchor vouch for a checkpoint. An authority that was asked less than
// its interval ago is not asked: witness.ErrNotDue. What it finds to be another
// history stops the trail, and no more is recorded.
func (s *anchorSink) Send(ctx context.Context, signed []byte) error {
	if s.a.Kind() == witness.KindTimestamp {
		if s.last.IsZero() { // a process that lives shortly does not ask anew
			if st, _, ok, err := anchorStores(s.t.dir, "", "")[0].Latest(s.a); err == nil && ok {
				s.last = st.Time
			}
		}
		if age := time.Since(s.last); age >= 0 && age < s.a.Every {
			return witness.ErrNotDue
		}
	}
	id := s.t.ids()
	keys, err := id.trusted(id.VKey)
	if err != nil {
		return err
	}
	c, err := tree.ParseCheckpoint(signed, keys)
	if err != nil {
		return err
	}
	if err := s.t.askAnchor(ctx, s.a, c, s.old, tree.NewStore(s.t.opts.fs, s.t.dir)); err != nil {
		if errors.Is(err, ErrForked) {
			s.t.journal.Stop(err)
		}
		return err
	}
	s.old, s.last = c.Size, time.Now()
	return nil
}

// anchorInfos says what is known of the anchors. covered is the latest checkpoint's
// size.
func (t *Trail) anchorInfos(covered int64) []AnchorInfo {
	var out []AnchorInfo
	stores := anchorStores(t.dir, t.stateDir(), t.id.Origin)
	for _, a := range t.anchors {
		i := AnchorInfo{Kind: a.Kind(), Name: a.Name(), Size: -1}
		for _, s := range stores {
			st, size, ok, err := s.Latest(a)
			if err != nil {
				i.Problem = err.Error()
			} else if ok && size > i.Size {
				i.Size, i.Time = size, st.Time
			}
		}
		if t.holds() {
			for _, k := range t.signer.sinks {
				if s, ok := k.sink.(*anchorSink); ok && s.a == a {
					if err := k.problem.Load(); err != nil {
						i.Problem = (*err).Error()
					}
				}
			}
		}
		i.Lag = max(covered-max(i.Size, 0), 0)
		out = append(out, i)
	}
	return out
}
