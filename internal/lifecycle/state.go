package lifecycle

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Config is what the lines are judged by.
type Config struct {
	Origin string
	// VKeys are the writer's keys, ascending by From.
	VKeys []KeyFrom
	// LifecycleVKey counts until a line says which it is: it is that of trail.json.
	LifecycleVKey string
	// Profile counts where entry 0 is not among the lines.
	Profile string
	// Covered is the size of the checkpoint: what lies at or beyond it says nothing
	// yet.
	Covered int64
	// Digest is the line digest of an entry, from the tree; ok is false where the
	// tree has none to tell. nil where no prune has to be proven.
	Digest func(index int64) (digest [sha256.Size]byte, ok bool)
	// Missing are the ranges of which there are no lines: what is in force behind
	// them may be another than what was before.
	Missing []Range
	// Restated says that an AUDIT_SEAL is believed about what was before it, where
	// nothing earlier is known. A trail's own writer does, which signed it.
	Restated bool
}

// State is what the lifecycle entries of a trail come to.
type State struct {
	Terms Terms
	// Known tells whether Terms are those in force: entry 0 is there, or a later
	// entry that says them.
	Known         bool
	LifecycleVKey string
	Holds         []HeldBy // those in force, in order
	Gaps          []Range  // what was ever pruned, as it was last said
	Seals         []Sealed // ascending by segment; the first of each segment
	Prunes        []Pruned
	Erasures      []Erased
	ErasedBefore  []ErasedHandle // those whose erasure was pruned
	Scheduled     []Scheduled    // erasures that wait, in order
	NotValid      []NotValid
}

// ErasedHandle is a handle whose AUDIT_ERASURE was pruned.
type ErasedHandle struct {
	Handle string `json:"handle"`
	Index  int64  `json:"index"`
}

// restated is the state as AUDIT_SEAL and AUDIT_PRUNE say it (§7.5).
type restated struct {
	Gaps          []Range        `json:"gaps"`
	Policy        *Terms         `json:"policy"`
	LifecycleVKey string         `json:"lifecycle_vkey"`
	Holds         []restatedHold `json:"holds"`
	Erased        []ErasedHandle `json:"erased"`
	Scheduled     []Scheduled    `json:"scheduled"`
}

type restatedHold struct {
	Hold   string  `json:"hold"`
	Index  int64   `json:"index"`
	Ranges []Range `json:"ranges"`
	Open   bool    `json:"open"`
}

// replay is a State while it is made.
type replay struct {
	cfg Config
	State
	byLifecycleKey bool  // an entry under the lifecycle key was found
	sure           int64 // the last entry that said all that is in force
	ids            map[string]bool
	prune          *Pruned // the last valid one
}

// Replay judges lines that Is has chosen, in the order of their indexes.
func Replay(c Config, lines []Line) *State {
	r := &replay{cfg: c, ids: map[string]bool{}}
	r.LifecycleVKey = c.LifecycleVKey
	r.Terms.Profile = c.Profile
	said := make([]*saying, 0, len(lines))
	for _, l := range lines {
		s, err := read(l)
		if err != nil {
			r.NotValid = append(r.NotValid, NotValid{l.Index, "", err.Error()})
			continue
		}
		said = append(said, s)
	}
	adopted := r.adopted(said)
	for _, s := range said {
		if err := r.take(s, adopted); err != nil {
			r.NotValid = append(r.NotValid, NotValid{s.index, s.EventType, err.Error()})
		}
	}
	r.Seals = OneEach(r.Seals)
	return &r.State
}

// OneEach are the seals by segment, ascending; of several of one segment the first
// counts.
func OneEach(all []Sealed) []Sealed {
	slices.SortStableFunc(all, func(a, b Sealed) int { return cmp.Compare(a.Segment.First, b.Segment.First) })
	return slices.CompactFunc(all, func(a, b Sealed) bool { return a.Segment.First == b.Segment.First })
}

// adopted are the ranges in which nothing is a lifecycle entry (§7.2, §7.3). A
// recovery may adopt another one that was never signed: the newest is read first.
func (r *replay) adopted(said []*saying) []Range {
	var out []Range
	for _, s := range slices.Backward(said) {
		switch {
		case s.EventType != Recovery && s.EventType != Created, s.EventType == Created && s.index != 0, s.index >= r.cfg.Covered, has(out, s.index), r.signed(s, false) != nil:
			continue
		}
		var o struct {
			Adopted json.RawMessage `json:"adopted"`
		}
		if json.Unmarshal(s.Outputs, &o) != nil || len(o.Adopted) == 0 {
			continue
		}
		var list []Range
		if s.EventType == Created {
			list = make([]Range, 1)
			if json.Unmarshal(o.Adopted, &list[0]) != nil {
				continue
			}
		} else if json.Unmarshal(o.Adopted, &list) != nil {
			continue
		}
		for _, a := range list {
			if a.possible() {
				out = append(out, a)
			}
		}
	}
	return out
}

func has(all []Range, index int64) bool {
	return slices.ContainsFunc(all, func(r Range) bool { return r.First <= index && index < r.End() })
}

// writerKey is the writer's key at an index (§7.1).
func (r *replay) writerKey(index int64) string {
	key := ""
	for _, k := range r.cfg.VKeys {
		if k.From <= index+1 {
			key = k.VKey
		}
	}
	return key
}

// lost moves a lifecycle key that was the signing key along where that one was lost:
// nobody could sign that it changes (§7.10).
func (r *replay) lost(index int64) {
	for i, k := range r.cfg.VKeys {
		if i > 0 && k.Replaces && k.From <= index+1 && r.LifecycleVKey == r.cfg.VKeys[i-1].VKey {
			r.LifecycleVKey = k.VKey
		}
	}
}

func (r *replay) signed(s *saying, lifecycle bool) error {
	if s.TraceID != r.cfg.Origin {
		return errors.New("it is of another origin")
	}
	key := r.writerKey(s.index)
	if lifecycle {
		key = r.LifecycleVKey
	}
	if key == "" || !s.signedBy(key) {
		return errors.New("its signature is not by the key that it needs")
	}
	return nil
}

// take applies an entry, or says why it says nothing.
func (r *replay) take(s *saying, adopted []Range) error {
	switch {
	case s.index >= r.cfg.Covered:
		return errors.New("no checkpoint covers it")
	case has(adopted, s.index):
		return errors.New("it lies among lines that were adopted")
	case r.ids[s.EventID]:
		return errors.New("its event_id was there before")
	}
	var apply func(*saying) error
	lifecycle := false
	switch s.EventType + " " + s.Action {
	case Created + " trail_created":
		apply = r.created
	case Seal + " segment_sealed":
		apply = r.sealed
	case Policy + " policy_set":
		apply, lifecycle = r.policySet, true
	case Hold + " hold_added":
		apply, lifecycle = r.holdAdded, true
	case Hold + " hold_lifted":
		apply, lifecycle = r.holdLifted, true
	case Erasure + " subject_erased":
		apply, lifecycle = r.erased, true
	case Erasure + " erasure_scheduled":
		apply, lifecycle = r.scheduled, true
	case Erasure + " erasure_postponed":
		apply, lifecycle = r.postponed, true
	case Erasure + " erasure_cancelled":
		apply, lifecycle = r.cancelled, true
	case Prune + " segments_pruned":
		apply, lifecycle = r.pruned, true
	case Key + " key_added", Key + " key_rotated", Key + " key_retired", Key + " key_replaced":
		var o struct{ Kind string }
		if json.Unmarshal(s.Outputs, &o) != nil {
			return errForm
		}
		apply, lifecycle = r.key, o.Kind == "signing" || o.Kind == "lifecycle"
	case Recovery + " trail_recovered", Clock + " clock_stepped", Policy + " redaction_set", Policy + " access_set":
		apply = func(*saying) error { return nil }
	default:
		return errors.New("no such action")
	}
	if s.EventType == Prune && !r.byLifecycleKey && !r.Known {
		// The first under the lifecycle key: it says itself which that is.
		var o restated
		if json.Unmarshal(s.Outputs, &o) == nil && o.LifecycleVKey != "" && r.LifecycleVKey == "" {
			r.LifecycleVKey = o.LifecycleVKey
		}
	}
	r.lost(s.index)
	if err := r.signed(s, lifecycle); err != nil {
		return err
	}
	if err := apply(s); err != nil {
		return err
	}
	r.ids[s.EventID] = true
	if s.EventType == Created || s.EventType == Prune {
		r.sure = s.index
	}
	r.byLifecycleKey = r.byLifecycleKey || lifecycle
	return nil
}

// torn tells whether lines are missing between what is known and an entry, which may
// have changed it.
func (r *replay) torn(index int64) bool {
	return slices.ContainsFunc(r.cfg.Missing, Range{r.sure, index - r.sure}.Meets)
}

func (r *replay) created(s *saying) error {
	var o struct {
		Origin        string `json:"origin"`
		Profile       string `json:"profile"`
		LifecycleVKey string `json:"lifecycle_vkey"`
		Policy        *Terms `json:"policy"`
	}
	if s.index != 0 {
		return errors.New("it is not entry 0")
	}
	if json.Unmarshal(s.Outputs, &o) != nil || o.Origin != r.cfg.Origin || o.LifecycleVKey == "" {
		return errForm
	}
	r.LifecycleVKey, r.Known = o.LifecycleVKey, true
	r.Terms = Terms{Profile: o.Profile}
	if o.Policy != nil {
		r.Terms = *o.Policy
	}
	return nil
}

// readSeal reads the outputs of an AUDIT_SEAL.
func readSeal(s *saying) (Sealed, *restated, error) {
	var o struct {
		restated
		Segment struct {
			Range
			Newest        string `json:"max_recorded_at"`
			RetentionDays *int64 `json:"retention_days"`
		} `json:"segment"`
	}
	if json.Unmarshal(s.Outputs, &o) != nil || !o.Segment.possible() || o.Segment.End() > s.index || !possible(o.Gaps) {
		return Sealed{}, nil, errForm
	}
	newest, ok := parseTime(o.Segment.Newest)
	if days := o.Segment.RetentionDays; !ok || days != nil && (*days < 0 || *days > MaxDays) {
		return Sealed{}, nil, errForm
	}
	return Sealed{s.index, o.Segment.Range, newest, o.Segment.RetentionDays, s.line}, &o.restated, nil
}

func (r *replay) sealed(s *saying) error {
	seal, o, err := readSeal(s)
	if err != nil {
		return err
	}
	r.Seals = append(r.Seals, seal)
	switch {
	case r.Known || r.byLifecycleKey:
	case r.cfg.Restated:
		r.restate(o, s.index)
	case o.LifecycleVKey != "": // in the tree, which trail.json is not
		r.LifecycleVKey = o.LifecycleVKey
	}
	return nil
}

// restate takes the state from an entry that says it again.
func (r *replay) restate(o *restated, index int64) {
	if o.Policy != nil {
		r.Terms, r.Known = *o.Policy, true
	}
	if o.LifecycleVKey != "" {
		r.LifecycleVKey = o.LifecycleVKey
	}
	r.Gaps, r.ErasedBefore = o.Gaps, o.Erased
	had := r.Holds
	r.Holds = nil
	for _, h := range o.Holds {
		if h.Index >= index || !possible(h.Ranges) {
			continue
		}
		full := HeldBy{ID: h.Hold, Index: h.Index, Ranges: h.Ranges, Open: h.Open}
		if i := slices.IndexFunc(had, func(x HeldBy) bool { return x.ID == h.Hold }); i >= 0 {
			full = had[i]
		}
		r.Holds = append(r.Holds, full)
	}
	r.Scheduled = nil
	for _, e := range o.Scheduled {
		if e.Index < index && e.ID != "" {
			r.Scheduled = append(r.Scheduled, e)
		}
	}
}

func (r *replay) policySet(s *saying) error {
	var o struct {
		Policy, Was *Terms
	}
	if json.Unmarshal(s.Outputs, &o) != nil || o.Policy == nil || o.Was == nil {
		return errForm
	}
	if !r.Known || r.torn(s.index) && o.Was.Profile == r.Terms.Profile && o.Was.Encrypt == r.Terms.Encrypt && o.Was.Version >= r.Terms.Version {
		r.Terms, r.Known = *o.Was, true // under the key that may say so
	}
	if !o.Was.equal(r.Terms) {
		return errors.New("it replaces another policy than the one in force")
	}
	if err := r.Terms.May(*o.Policy); err != nil {
		return err
	}
	r.Terms = *o.Policy
	return nil
}

func (r *replay) holdAdded(s *saying) error {
	var o struct {
		Filter  json.RawMessage `json:"filter"`
		Handles []string        `json:"handles"`
		Since   *string         `json:"since"`
		Until   *string         `json:"until"`
		Ranges  []Range         `json:"ranges"`
		Open    *bool           `json:"open"`
		Reason  json.RawMessage `json:"reason"`
	}
	if json.Unmarshal(s.Outputs, &o) != nil || o.Open == nil || !possible(o.Ranges) {
		return errForm
	}
	h := HeldBy{ID: s.EventID, Index: s.index, Ranges: o.Ranges, Open: *o.Open, Handles: o.Handles, Filter: o.Filter, Reason: o.Reason, RecordedAt: s.RecordedAt, Principal: s.Metadata.Principal}
	if o.Since != nil {
		h.Since = *o.Since
	}
	if o.Until != nil {
		h.Until = *o.Until
	}
	if i := slices.IndexFunc(r.Holds, func(x HeldBy) bool { return x.ID == h.ID }); i >= 0 {
		r.Holds[i] = h // a seal had said it in short
		return nil
	}
	r.Holds = append(r.Holds, h)
	return nil
}

func (r *replay) holdLifted(s *saying) error {
	var o struct{ Hold string }
	if json.Unmarshal(s.Outputs, &o) != nil || o.Hold == "" {
		return errForm
	}
	i := slices.IndexFunc(r.Holds, func(h HeldBy) bool { return h.ID == o.Hold })
	if i < 0 {
		return errors.New("no such hold is in force")
	}
	r.Holds = slices.Delete(r.Holds, i, i+1)
	return nil
}

func (r *replay) erased(s *saying) error {
	var o struct{ Handles []string }
	if json.Unmarshal(s.Outputs, &o) != nil || len(o.Handles) == 0 {
		return errForm
	}
	r.Erasures = append(r.Erasures, Erased{s.index, o.Handles})
	r.Scheduled = slices.DeleteFunc(r.Scheduled, func(e Scheduled) bool { return slices.Contains(o.Handles, e.Subject) })
	return nil
}

func (r *replay) scheduled(s *saying) error {
	e := Scheduled{}
	if json.Unmarshal(s.Outputs, &e) != nil || e.Subject == "" || len(e.Handles) == 0 || e.Request == "" {
		return errForm
	}
	e.ID, e.Index, e.At, e.By = s.EventID, s.index, s.RecordedAt, s.Metadata.Principal
	r.Scheduled = append(r.Scheduled, e)
	return nil
}

// waiting is where an erasure that an entry names stands among those that wait.
func (r *replay) waiting(s *saying) (int, *Scheduled, error) {
	var o Scheduled
	if json.Unmarshal(s.Outputs, &o) != nil || o.ID == "" {
		return 0, nil, errForm
	}
	i := slices.IndexFunc(r.Scheduled, func(e Scheduled) bool { return e.ID == o.ID })
	if i < 0 {
		return 0, nil, errors.New("no such erasure is scheduled")
	}
	return i, &o, nil
}

func (r *replay) postponed(s *saying) error {
	i, o, err := r.waiting(s)
	if err == nil {
		r.Scheduled[i].Blocked = o.Blocked
	}
	return err
}

func (r *replay) cancelled(s *saying) error {
	i, _, err := r.waiting(s)
	if err == nil {
		r.Scheduled = slices.Delete(r.Scheduled, i, i+1)
	}
	return err
}

func (r *replay) key(s *saying) error {
	var o struct{ Kind, ID string }
	if json.Unmarshal(s.Outputs, &o) != nil {
		return errForm
	}
	if o.Kind == "lifecycle" && s.Action != "key_retired" {
		r.LifecycleVKey = o.ID
	}
	return nil
}

func (r *replay) pruned(s *saying) error {
	var o struct {
		restated
		Range Range  `json:"range"`
		Rule  string `json:"rule"`
		Seals []struct {
			Index int64  `json:"index"`
			Line  string `json:"line"`
		} `json:"seals"`
	}
	at, ok := s.recordedAt()
	if json.Unmarshal(s.Outputs, &o) != nil || !ok || !o.Range.possible() || !possible(o.Gaps) || o.Policy == nil {
		return errForm
	}
	if !r.Known || r.torn(s.index) && o.Policy.Version >= r.Terms.Version {
		r.restate(&o.restated, s.index)
		r.Known = true
	} else if err := r.restatesKnown(&o.restated); err != nil {
		return err
	}
	p := Pruned{Index: s.index, Range: o.Range, Gaps: o.Gaps, At: at, Rule: o.Rule, By: s.Metadata.Principal}
	for _, l := range o.Seals {
		if seal, ok := r.carried(l.Index, []byte(l.Line), s.index); ok {
			r.Seals = append(r.Seals, seal)
		}
	}
	if err := r.prove(&p, r.Seals, at); err != nil {
		p.Why = err.Error()
	} else {
		p.Proven = true
	}
	r.Prunes = append(r.Prunes, p)
	r.prune = &r.Prunes[len(r.Prunes)-1]
	r.Gaps, r.ErasedBefore = o.Gaps, o.Erased
	return nil
}

// restatesKnown: a later prune must say again what is known.
func (r *replay) restatesKnown(o *restated) error {
	differs := errors.New("it does not say again what is in force")
	if !o.Policy.equal(r.Terms) || o.LifecycleVKey != "" && o.LifecycleVKey != r.LifecycleVKey || len(o.Holds) != len(r.Holds) {
		return differs
	}
	for i, h := range o.Holds {
		k := r.Holds[i]
		if h.Hold != k.ID || h.Index != k.Index || h.Open != k.Open || !slices.Equal(h.Ranges, k.Ranges) {
			return differs
		}
	}
	return nil
}

// carried is a seal that a prune carries along because its line is gone: its digest
// is in the tree.
func (r *replay) carried(index int64, line []byte, by int64) (Sealed, bool) {
	if r.cfg.Digest == nil || index < 0 || index >= by {
		return Sealed{}, false
	}
	digest, ok := r.cfg.Digest(index)
	if !ok || digest != sha256.Sum256(line) {
		return Sealed{}, false
	}
	s, err := read(Line{index, line})
	if err != nil || s.EventType != Seal || s.Action != "segment_sealed" || r.signed(s, false) != nil {
		return Sealed{}, false
	}
	seal, _, err := readSeal(s)
	return seal, err == nil
}

// prove says why a prune is not proven (§7.11, step 2), nil if it is.
func (r *replay) prove(p *Pruned, seals []Sealed, at time.Time) error {
	if p.Range.End() > p.Index {
		return errors.New("it prunes what came after it")
	}
	if r.Terms.RetentionDays == nil {
		return errors.New("no period was set")
	}
	next := p.Range.First
	for next < p.Range.End() {
		i := slices.IndexFunc(seals, func(s Sealed) bool { return s.Segment.First == next })
		if i < 0 || seals[i].Segment.End() > p.Range.End() {
			return fmt.Errorf("entry %d does not begin a whole segment of it", next)
		}
		s := seals[i]
		days := max(*r.Terms.RetentionDays, s.Days())
		if at.Sub(s.Newest) < time.Duration(days)*24*time.Hour {
			return fmt.Errorf("the segment from entry %d on was not old enough", next)
		}
		next = s.Segment.End()
	}
	for _, h := range r.Holds {
		if slices.ContainsFunc(h.Ranges, p.Range.Meets) {
			return errors.New("a hold was on it")
		}
	}
	if !Contains(p.Gaps, p.Range) {
		return errors.New("its gaps lack its own range")
	}
	if r.prune != nil {
		for _, g := range r.prune.Gaps {
			if !Contains(p.Gaps, g) {
				return errors.New("its gaps lack those of an earlier prune")
			}
		}
	}
	return nil
}

// Lawful are the ranges whose entries may be missing (§7.11, steps 3 and 4).
func (s *State) Lawful() []Range {
	var proven []Range
	var last *Pruned
	end := int64(0)
	for i := range s.Prunes {
		if p := &s.Prunes[i]; p.Proven {
			proven, last, end = Join(proven, p.Range), p, max(end, p.Range.End())
		}
	}
	if last == nil {
		return nil
	}
	var out []Range
	for _, g := range last.Gaps {
		// What lies before the end of a proven range, and is in the gaps, went in
		// its time: its own prune was pruned since. Behind it only proven ranges
		// count.
		if before := min(g.End(), end) - g.First; before > 0 {
			out = Join(out, Range{g.First, before})
		}
	}
	return out
}

// Due is a sealed segment as retention sees it now.
type Due struct {
	Sealed
	// Days is the period that counts: the longer of what is in force and what was
	// while the segment was open.
	Days int64
	// At is from when on it may be pruned; zero where no period was set.
	At time.Time
}

// Due is when a sealed segment may be pruned.
func (s *State) Due(seal Sealed) Due {
	d := Due{Sealed: seal, Days: seal.Days()}
	if s.Terms.RetentionDays == nil {
		return d
	}
	d.Days = max(d.Days, *s.Terms.RetentionDays)
	d.At = seal.Newest.Add(time.Duration(d.Days) * 24 * time.Hour)
	return d
}
