package audit

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/kaizen-audit/kaizen-audit/internal/advice"
	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/journal"
	"github.com/kaizen-audit/kaizen-audit/internal/lifecycle"
	"github.com/kaizen-audit/kaizen-audit/internal/socket"
	"github.com/kaizen-audit/kaizen-audit/internal/tree"
)

// RetentionPresets are periods in days by the name of what asks for them:
// HIPAA 45 CFR 164.316(b)(2)(i) six years, of which seven are usual; PCI DSS 10.5.1
// one year, of which three are usual; SOC 2 names none, and seven years are usual;
// EU AI Act Art. 19(1) and 26(6) six months at least.
var RetentionPresets = map[string]int{"hipaa": 2555, "pci": 1095, "soc2": 2555, "eu-ai-act": 184}

// Retention is how long the trail keeps its entries.
type Retention struct {
	// Days after the newest entry of a segment, until which it is kept at least.
	Days int `json:"days"`
	// Set tells whether somebody set the period; until then nothing is pruned, and
	// Days is the default.
	Set bool `json:"set"`
	// Locked: the period only grows.
	Locked bool `json:"locked"`
	// Floor is the least period that the profile allows, 0 for none.
	Floor int `json:"floor"`
}

func retentionOf(t lifecycle.Terms) Retention {
	return Retention{Days: int(owedDays(t)), Set: t.RetentionDays != nil, Locked: t.Locked, Floor: int(lifecycle.Floors[t.Profile])}
}

// Retention says how long entries are kept.
func (t *Trail) Retention(ctx context.Context) (Retention, error) {
	state, err := t.lifeNow(ctx)
	if err != nil {
		return Retention{}, fmt.Errorf("retention of %s: %w", t.path, err)
	}
	return retentionOf(state.Terms), nil
}

// lifeNow is the state, for whoever asks.
func (t *Trail) lifeNow(ctx context.Context) (*lifecycle.State, error) {
	if t.holds() {
		t.life.mu.Lock()
		defer t.life.mu.Unlock()
		return t.lifeLocked(ctx)
	}
	covered, err := t.covered()
	if err != nil {
		return nil, err
	}
	view, err := t.lines()
	if err != nil {
		return nil, err
	}
	defer view.Close()
	state, _, err := t.readLife(ctx, view, covered, nil)
	return state, err
}

// SetRetention sets how many days entries are kept, and with lock that this only
// grows from now on. A shorter period holds for what is recorded from now on: what a
// segment was promised while it was open is kept. It is an entry (AUDIT_POLICY).
// Where another process holds the trail, that one records it; the user must be the
// holder's own or root.
func (t *Trail) SetRetention(ctx context.Context, days int, lock bool) error {
	if err := t.authorizeAll(ctx, "SetRetention"); err != nil {
		return fmt.Errorf("set retention of %s: %w", t.path, err)
	}
	p := period{days, lock}
	if _, err := byHolder(ctx, t, socket.Retention, p, func() (Retention, error) { return t.setRetention(ctx, p) }); err != nil {
		return fmt.Errorf("set retention of %s: %w", t.path, err)
	}
	return nil
}

// period is what SetRetention sets.
type period struct {
	Days int  `json:"days"`
	Lock bool `json:"lock,omitempty"`
}

func (t *Trail) setRetention(ctx context.Context, p period) (Retention, error) {
	t.life.mu.Lock()
	defer t.life.mu.Unlock()
	state, err := t.lifeLocked(ctx)
	if err != nil {
		return Retention{}, err
	}
	was := state.Terms
	next := was
	days := int64(p.Days)
	next.RetentionDays, next.Locked = &days, was.Locked || p.Lock
	if was.RetentionDays != nil && *was.RetentionDays == days && next.Locked == was.Locked {
		return retentionOf(was), nil
	}
	next.Version++
	if err := was.May(next); err != nil {
		return Retention{}, optionError("RetentionDays", "%d days instead of %d: %w", days, owedDays(was), err)
	}
	_, err = t.recordLife(ctx, ownEntry{eventType: "AUDIT_POLICY", action: "policy_set", outputs: map[string]any{"policy": next, "was": was}})
	return retentionOf(next), err
}

// firstTerms is the policy of a trail that is being made.
func (t *Trail) firstTerms() lifecycle.Terms {
	terms := lifecycle.Terms{Profile: t.id.Profile, Encrypt: t.id.Encrypt, Locked: t.opts.RetentionLock}
	days := int64(t.opts.RetentionDays)
	if days == 0 {
		days = int64(RetentionPresets[t.id.Profile])
	}
	if days > 0 {
		terms.RetentionDays = &days
	}
	return terms
}

// checkTerms looks at the options before a trail is made of them.
func (t *Trail) checkTerms() error {
	terms := t.firstTerms()
	if terms.RetentionDays == nil {
		if terms.Locked {
			return optionError("RetentionLock", "there is no period to lock: set RetentionDays too")
		}
		return nil
	}
	next := terms
	next.Version++
	if err := (lifecycle.Terms{Profile: terms.Profile, Encrypt: terms.Encrypt}).May(next); err != nil {
		return optionError("RetentionDays", "%d days: %w", t.opts.RetentionDays, err)
	}
	return nil
}

// PruneOptions are the settings of Prune.
type PruneOptions struct {
	// DryRun says what would be pruned, and prunes nothing.
	DryRun bool `json:"dry_run,omitempty"`
}

// PruneReport says which sealed segments are pruned, which are kept, and why.
type PruneReport struct {
	At        time.Time `json:"at"`
	Retention Retention `json:"retention"`
	// Segments are all sealed ones, ascending.
	Segments []PruneSegment `json:"segments"`
	// Pruned is what was deleted, none in a dry run: entries, segments, bytes on
	// disk, and the indexes of the entries that say so.
	Pruned struct {
		Entries  int64   `json:"entries"`
		Segments int     `json:"segments"`
		Bytes    int64   `json:"bytes"`
		Said     []int64 `json:"said"`
	} `json:"pruned"`
}

// PruneSegment is a sealed segment as retention sees it.
type PruneSegment struct {
	First  int64 `json:"first"`
	Count  int64 `json:"count"`
	Stored int64 `json:"stored"`
	// Newest is the latest time of the trail's clock while it was open.
	Newest time.Time `json:"newest"`
	// Days is the period that counts; OwnDays the one that was in force while the
	// segment was open. Where Days is more, it is kept longer than it asks itself.
	Days    int64 `json:"days"`
	OwnDays int64 `json:"own_days"`
	// Due is when it may be pruned; zero where no period was set.
	Due time.Time `json:"due"`
	// Prune tells whether it is pruned, Why why not.
	Prune bool   `json:"prune"`
	Why   string `json:"why,omitempty"`
}

// ErrClock: the clock is further ahead of the trail's newest entry than can be
// explained, and no anchor agrees with it: nothing is pruned by such a clock.
var ErrClock = errors.New("the clock can't be trusted")

// Prune deletes the sealed segments whose period is over and on which no hold is. The
// trail says so first, in an entry that a checkpoint covers (AUDIT_PRUNE); then the
// files are deleted, and looked for. Proofs of what remains verify as before, and
// Verify tells what was pruned from what is missing. A crash in the middle is
// completed by the next opening.
//
// It is ErrClock where the newest entry from before this opening is more than a day
// older than the clock says it should be. Where another process holds the trail, that
// one prunes; the user must be the holder's own or root. A holder prunes by itself
// once a day (docs/retention.md).
func (t *Trail) Prune(ctx context.Context, opts *PruneOptions) (*PruneReport, error) {
	if err := t.authorizeAll(ctx, "Prune"); err != nil {
		return nil, fmt.Errorf("prune %s: %w", t.path, err)
	}
	var o PruneOptions
	if opts != nil {
		o = *opts
	}
	r, err := byHolder(ctx, t, socket.Prunes, o, func() (*PruneReport, error) { return t.prune(ctx, o) })
	if err != nil {
		return r, fmt.Errorf("prune %s: %w", t.path, err)
	}
	return r, nil
}

func (t *Trail) prune(ctx context.Context, o PruneOptions) (*PruneReport, error) {
	t.sealing.gate.RLock()
	defer t.sealing.gate.RUnlock()
	t.sealing.compress.Lock() // no segment is compressed or listed meanwhile
	defer t.sealing.compress.Unlock()
	t.life.mu.Lock()
	defer t.life.mu.Unlock()
	state, err := t.lifeLocked(ctx)
	if err != nil {
		return nil, err
	}
	r, err := t.planPrune(ctx, state)
	if err != nil || o.DryRun {
		return r, explainFull(err)
	}
	if !r.Retention.Set {
		return r, advice.For(fmt.Errorf("%w: no retention period was set, so nothing may be pruned", ErrNotFound),
			"kaizen-audit retention set 2555 --log %s", advice.Quote(t.path))
	}
	if !slices.ContainsFunc(r.Segments, func(s PruneSegment) bool { return s.Prune }) {
		return r, nil
	}
	clock, err := t.clockAgrees()
	if err != nil {
		return r, err
	}
	for _, run := range runsOf(r.Segments) {
		if err := t.pruneRun(ctx, run, r, clock); err != nil {
			return r, explainFull(err)
		}
	}
	return r, nil
}

// runsOf are the adjoining segments that are pruned together.
func runsOf(all []PruneSegment) [][]PruneSegment {
	var runs [][]PruneSegment
	next := int64(-1)
	for _, s := range all {
		if !s.Prune {
			continue
		}
		if s.First != next {
			runs = append(runs, nil)
		}
		runs[len(runs)-1] = append(runs[len(runs)-1], s)
		next = s.First + s.Count
	}
	return runs
}

// pruneRun prunes adjoining segments; life.mu is held. clock is the anchor that agreed
// with the clock, nil where none was needed.
func (t *Trail) pruneRun(ctx context.Context, run []PruneSegment, r *PruneReport, clock map[string]any) error {
	state, err := t.lifeLocked(ctx) // another run was recorded since
	if err != nil {
		return err
	}
	last := run[len(run)-1]
	gone := lifecycle.Range{First: run[0].First, Count: last.First + last.Count - run[0].First}
	if err := t.carryErased(ctx, state, gone); err != nil {
		return err
	}
	// The seals that go, or went before, of segments that go now or remain.
	seals := []map[string]any{}
	gaps := lifecycle.Join(state.Gaps, gone)
	for _, s := range state.Seals {
		if lifecycle.Contains(gaps, lifecycle.Range{First: s.Index, Count: 1}) && (s.Segment.Meets(gone) || !lifecycle.Contains(gaps, s.Segment)) {
			seals = append(seals, map[string]any{"index": s.Index, "line": string(s.Line)})
		}
	}
	outputs := t.restatement(state, map[string]any{"range": gone, "rule": "retention", "seals": seals})
	outputs["gaps"] = gaps
	if clock != nil {
		outputs["clock"] = clock
	}
	// What remains to be done is on disk before anything says so: the next opening
	// looks at the gaps where this file is there, and deletes what lies in them.
	mark := filepath.Join(t.dir, "pruning")
	if err := durable.WriteFile(t.opts.fs, mark, []byte("{\"format\":1}\n"), 0o600); err != nil {
		return err
	}
	receipt, err := t.recordLife(ctx, ownEntry{eventType: "AUDIT_PRUNE", action: "segments_pruned", outputs: outputs})
	if err != nil {
		return err // whether it is in the trail is for the next opening to see
	}
	// Crash from here on: the entry is covered, and the next opening goes on.
	if err := t.removePruned(ctx, false); err != nil {
		return fmt.Errorf("it is recorded, and the next opening completes it: %w", err)
	}
	r.Pruned.Said = append(r.Pruned.Said, receipt.Index)
	for _, s := range run {
		r.Pruned.Entries, r.Pruned.Segments, r.Pruned.Bytes = r.Pruned.Entries+s.Count, r.Pruned.Segments+1, r.Pruned.Bytes+s.Stored
	}
	return nil
}

// removePruned deletes the segments that lie in what the trail says was pruned, and
// the mark that some may be there; again says that a crash may have left something.
// life.mu is held.
func (t *Trail) removePruned(ctx context.Context, again bool) error {
	state, err := t.lifeLocked(ctx)
	if err != nil {
		return err
	}
	err = t.journal.Remove(func(s journal.Segment) bool {
		return s.Count > 0 && lifecycle.Contains(state.Gaps, lifecycle.Range{First: s.First, Count: s.Count})
	})
	if err != nil {
		return err
	}
	if err := t.fetched.cache.Sweep(ctx); err != nil {
		return err
	}
	// Their tiles and bundles are packed. That this fails is no reason to stop: the
	// tiles are there, packed or not, and the file stays, so that the next opening tries
	// again.
	if err := t.packPruned(state, again); err != nil {
		t.warn(err)
		return nil
	}
	return errors.Join(t.opts.fs.Remove(filepath.Join(t.dir, "pruning")), t.opts.fs.SyncDir(t.dir))
}

// packPruned packs the tiles of what was pruned; again after a crash in the middle.
func (t *Trail) packPruned(state *lifecycle.State, again bool) error {
	store := tree.NewStore(t.opts.fs, t.dir)
	for _, g := range state.Gaps {
		if err := store.Pack(g.First, g.End()); err != nil {
			return err
		}
	}
	if again {
		return store.Sweep()
	}
	return nil
}

// finishPrune completes what a crash interrupted.
func (t *Trail) finishPrune(ctx context.Context) error {
	if _, err := t.opts.fs.Stat(filepath.Join(t.dir, "pruning")); err != nil {
		return nil // there is none, or nobody can tell: the files are then pruned the next time
	}
	t.life.mu.Lock()
	defer t.life.mu.Unlock()
	return t.removePruned(ctx, true)
}

// carryErased has the state name the handles whose AUDIT_ERASURE goes with a range
// while entries before it remain.
func (t *Trail) carryErased(ctx context.Context, state *lifecycle.State, gone lifecycle.Range) error {
	if lifecycle.Contains(lifecycle.Join(state.Gaps, gone), lifecycle.Range{First: 0, Count: gone.End()}) {
		state.ErasedBefore = slices.DeleteFunc(slices.Clone(state.ErasedBefore), func(e lifecycle.ErasedHandle) bool { return e.Index < gone.End() })
		return nil
	}
	lines, err := t.lifecycleIn(ctx, gone)
	if err != nil {
		return err
	}
	for _, e := range lifecycle.Replay(t.lifeConfig(maxIndexes), lines).Erasures {
		for _, h := range e.Handles {
			state.ErasedBefore = append(state.ErasedBefore, lifecycle.ErasedHandle{Handle: h, Index: e.Index})
		}
	}
	return nil
}

// lifecycleIn are the lifecycle entries in a range.
func (t *Trail) lifecycleIn(ctx context.Context, r lifecycle.Range) (lines []lifecycle.Line, err error) {
	view, err := t.journal.View()
	if err != nil {
		return nil, err
	}
	defer view.Close()
	for _, p := range view.Parts() {
		if p.File == "" || p.First < r.First || p.First >= r.End() {
			continue
		}
		if own, ok := t.ownOf(p.Segment); ok {
			lines = append(lines, own...)
			continue
		}
		_, err := view.Part(ctx, p, func(index int64, line []byte) error {
			if lifecycle.Is(line) {
				lines = append(lines, lifecycle.Line{Index: index, Text: slices.Clone(line)})
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return lines, nil
}

// planPrune looks at every sealed segment.
func (t *Trail) planPrune(ctx context.Context, state *lifecycle.State) (*PruneReport, error) {
	r := &PruneReport{At: t.clock.now(), Retention: retentionOf(state.Terms), Segments: []PruneSegment{}}
	r.Pruned.Said = []int64{}
	holds, err := t.fullHolds(ctx, state)
	if err != nil {
		return nil, err
	}
	for _, s := range t.journal.Segments() {
		p := PruneSegment{First: s.First, Count: s.Count, Stored: s.Stored}
		i := slices.IndexFunc(state.Seals, func(x lifecycle.Sealed) bool {
			return x.Segment == lifecycle.Range{First: s.First, Count: s.Count}
		})
		switch {
		case i < 0:
			p.Why = "no seal attests its age"
		default:
			due := state.Due(state.Seals[i])
			p.Newest, p.Days, p.OwnDays, p.Due = due.Newest, due.Days, due.Sealed.Days(), due.At
			switch {
			case due.At.IsZero():
				p.Why = "no period was set"
			case r.At.Before(due.At):
				p.Why = "not old enough"
			case s.Stored == 0:
				p.Why = "not compressed yet"
			default:
				if p.Why, err = t.heldBy(ctx, holds, s); err != nil {
					return nil, err
				}
				p.Prune = p.Why == ""
			}
		}
		r.Segments = append(r.Segments, p)
	}
	return r, nil
}

// clockSlack is how much further than the trail's own time the clock may be.
const clockSlack = 24 * time.Hour

// clockAgrees is nil where the clock is no more than a day past what the newest entry
// from before this opening and the machine's steady clock since then say, or where an
// anchor's clock agrees with it: that one is given then, as AUDIT_PRUNE names it.
func (t *Trail) clockAgrees() (anchor map[string]any, err error) {
	if t.life.first {
		return nil, nil // the trail was made by this process
	}
	if t.life.last.IsZero() {
		return nil, fmt.Errorf("%w: the newest entry from before this opening can't be read", ErrClock)
	}
	now := t.clock.source()
	steady := now.Sub(t.life.opened)
	ahead := now.Round(0).Sub(t.life.last) - steady
	if ahead <= clockSlack {
		return nil, nil
	}
	for _, a := range t.anchorInfos(0) {
		if a.Size >= 0 && now.Sub(a.Time).Abs() <= clockSlack {
			return map[string]any{"kind": a.Kind, "time": formatTime(a.Time)}, nil
		}
	}
	return nil, advice.For(fmt.Errorf("%w: it says %s, and the newest entry from before is of %s", ErrClock, formatTime(now), formatTime(t.life.last)),
		"where the clock is right, a day later the trail's own entries agree with it; nothing was deleted")
}
