package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/advice"
	"github.com/kaizen-audit/kaizen-audit/internal/journal"
	"github.com/kaizen-audit/kaizen-audit/internal/keys"
	"github.com/kaizen-audit/kaizen-audit/internal/lifecycle"
	"github.com/kaizen-audit/kaizen-audit/internal/query"
	"github.com/kaizen-audit/kaizen-audit/internal/seal"
	"github.com/kaizen-audit/kaizen-audit/internal/socket"
)

// HoldRequest says what a legal hold covers: the entries that match all that is set.
// Something must be.
type HoldRequest struct {
	User  string `json:"user,omitempty"`
	Agent string `json:"agent,omitempty"`
	Trace string `json:"trace,omitempty"`
	// Since and Until bound timestamp, both ends included; zero is open.
	Since time.Time `json:"since,omitzero"`
	Until time.Time `json:"until,omitzero"`
	// Reason is why, such as a case's number. It is required, and sealed in a trail
	// that seals.
	Reason string `json:"reason"`
}

// LegalHold is a hold that is in force.
type LegalHold struct {
	// ID is the event_id of its entry, Index that entry's.
	ID    string `json:"id"`
	Index int64  `json:"index"`
	// Agent, Trace and User are what it covers, as far as this reader may know.
	Agent string `json:"agent,omitempty"`
	Trace string `json:"trace,omitempty"`
	User  string `json:"user,omitempty"`
	Since string `json:"since,omitempty"`
	Until string `json:"until,omitempty"`
	// Open says that it covers what is recorded from now on too, Ranges the
	// segments in which something of it lay when it was added.
	Open   bool    `json:"open"`
	Ranges []Range `json:"ranges"`
	Reason string  `json:"reason"`
	Added  string  `json:"added"`
	By     string  `json:"by"`

	handles []string
	filter  holdFilter
	unread  bool // what it covers is not known here
}

// holdFilter is what a hold covers (docs/format-lifecycle.md §7.8).
type holdFilter struct {
	Agent string `json:"agent_id,omitempty"`
	Trace string `json:"trace_id,omitempty"`
	User  string `json:"user_id,omitempty"`
}

// AddHold puts a legal hold on what h says: it is neither pruned nor erased until the
// hold is lifted. It is an entry (AUDIT_HOLD), which a checkpoint covers on return.
// Where another process holds the trail, that one records it; the user must be the
// holder's own or root.
func (t *Trail) AddHold(ctx context.Context, h HoldRequest) (LegalHold, error) {
	if err := t.authorizeAll(ctx, "AddHold"); err != nil {
		return LegalHold{}, fmt.Errorf("add hold to %s: %w", t.path, err)
	}
	out, err := byHolder(ctx, t, socket.Holds, h, func() (LegalHold, error) { return t.addHold(ctx, h) })
	if err != nil {
		return out, fmt.Errorf("add hold to %s: %w", t.path, err)
	}
	return out, nil
}

func (h *HoldRequest) check() error {
	switch {
	case h.User == "" && h.Agent == "" && h.Trace == "" && h.Since.IsZero() && h.Until.IsZero():
		return optionError("HoldRequest", "it says nothing of what it covers: name a user, an agent, a trace or a time")
	case h.Reason == "":
		return optionError("Reason", "it is empty, and a hold must say why it is there")
	case !h.Since.IsZero() && !h.Until.IsZero() && h.Until.Before(h.Since):
		return optionError("Until", "it is before Since")
	}
	return nil
}

func (t *Trail) addHold(ctx context.Context, h HoldRequest) (LegalHold, error) {
	if err := h.check(); err != nil {
		return LegalHold{}, err
	}
	t.life.mu.Lock()
	defer t.life.mu.Unlock()
	if _, err := t.lifeLocked(ctx); err != nil {
		return LegalHold{}, err
	}
	out := LegalHold{Agent: h.Agent, Trace: h.Trace, User: h.User, Reason: h.Reason, filter: holdFilter{Agent: h.Agent, Trace: h.Trace, User: h.User}}
	out.Open = h.Until.IsZero() || h.Until.After(t.clock.now())
	var since, until any
	if !h.Since.IsZero() {
		out.Since = formatTime(h.Since)
		since = out.Since
	}
	if !h.Until.IsZero() {
		out.Until = formatTime(h.Until)
		until = out.Until
	}
	if enc := t.enc.Load(); enc != nil && h.User != "" {
		who, err := t.namesOf(h.User)
		if err != nil {
			return out, err
		}
		known, err := enc.store.Find(who.is)
		if _, err := unreadableKeys(err); err != nil { // what can't be read can't be erased by anybody
			return out, err
		}
		for _, k := range known {
			if k.Kind == keys.Person || k.Kind == keys.Resource {
				out.handles = append(out.handles, k.Handle)
			}
		}
		slices.Sort(out.handles)
	}
	ranges, err := t.segmentsWith(ctx, h)
	if err != nil {
		return out, err
	}
	out.Ranges = ranges
	out.ID = entry.NewEventID(t.clock.now())
	var filter, reason any = out.filter, h.Reason
	policy := ""
	if t.enc.Load() != nil {
		text, err := json.Marshal(out.filter)
		if err != nil {
			return out, err
		}
		if filter, err = t.sealWords(out.ID, "/outputs/filter", text); err != nil {
			return out, err
		}
		if reason, err = t.sealReason(out.ID, h.Reason); err != nil {
			return out, err
		}
		policy = `{"sealed":["/outputs/filter","/outputs/reason"]}`
	}
	r, err := t.recordLife(ctx, ownEntry{
		eventType: "AUDIT_HOLD", action: "hold_added", id: out.ID, policy: policy,
		outputs: map[string]any{"filter": filter, "handles": orEmpty(out.handles), "open": out.Open, "ranges": orEmpty(out.Ranges), "reason": reason, "since": since, "until": until},
	})
	out.Index, out.By, out.Added = r.Index, askedBy(ctx), formatTime(t.clock.now())
	return out, err
}

// segmentsWith are the segments, as they are, in which something of a hold lies.
func (t *Trail) segmentsWith(ctx context.Context, h HoldRequest) ([]Range, error) {
	var parts []lifecycle.Range
	for _, s := range t.journal.Segments() {
		parts = append(parts, lifecycle.Range{First: s.First, Count: s.Count})
	}
	parts = append(parts, lifecycle.Range{First: t.journal.First(), Count: t.journal.Next() - t.journal.First()})
	var joined []lifecycle.Range
	for _, q := range h.queries() {
		for e, err := range t.scan(ctx, t.withPseudonyms(q)) {
			if err != nil {
				if goesOn(err) {
					continue
				}
				return nil, err
			}
			i := slices.IndexFunc(parts, func(r lifecycle.Range) bool { return r.First <= e.Index && e.Index < r.End() })
			if i >= 0 && !lifecycle.Contains(joined, parts[i]) {
				joined = lifecycle.Join(joined, parts[i])
			}
		}
	}
	var out []Range
	for _, r := range joined {
		out = append(out, Range(r))
	}
	return out, nil
}

// queries find what a hold covers: a user as the one who acted and as the one whose
// data it is.
func (h HoldRequest) queries() []Query {
	q := Query{Since: h.Since, Until: h.Until}
	if h.Agent != "" {
		q.Agent = query.Literal(h.Agent)
	}
	if h.Trace != "" {
		q.Trace = query.Literal(h.Trace)
	}
	if h.User == "" {
		return []Query{q}
	}
	actor, subject := q, q
	actor.User, subject.Subject = query.Literal(h.User), query.Literal(h.User)
	return []Query{actor, subject}
}

// sealWords seals a person's words for the trail's own trace.
func (t *Trail) sealWords(eventID, pointer string, text []byte) (string, error) {
	store := t.enc.Load().store
	own, err := store.Subject(keys.Trace, t.id.Origin)
	if err == nil {
		err = store.Sync()
	}
	if err != nil {
		return "", err
	}
	return seal.SealField(seal.Place{Origin: t.id.Origin, EventID: eventID, Pointer: pointer}, []seal.Subject{own}, text)
}

// LiftHold lifts a hold by its id, and says why. ErrNotFound: none of that id is in
// force. Where another process holds the trail it is as with AddHold.
func (t *Trail) LiftHold(ctx context.Context, id, reason string) error {
	if err := t.authorizeAll(ctx, "LiftHold"); err != nil {
		return fmt.Errorf("lift hold on %s: %w", t.path, err)
	}
	l := lifting{id, reason}
	if _, err := byHolder(ctx, t, socket.LiftedHolds, l, func() (lifted, error) { return t.liftHold(ctx, l) }); err != nil {
		return fmt.Errorf("lift hold on %s: %w", t.path, err)
	}
	return nil
}

// lifting is what LiftHold lifts, lifted the entry that says so.
type (
	lifting struct {
		Hold   string `json:"hold"`
		Reason string `json:"reason"`
	}
	lifted struct {
		Index int64 `json:"index"`
	}
)

func (t *Trail) liftHold(ctx context.Context, l lifting) (lifted, error) {
	if l.Reason == "" {
		return lifted{}, optionError("Reason", "it is empty, and lifting a hold must say why")
	}
	t.life.mu.Lock()
	defer t.life.mu.Unlock()
	state, err := t.lifeLocked(ctx)
	if err != nil {
		return lifted{}, err
	}
	if !slices.ContainsFunc(state.Holds, func(h lifecycle.HeldBy) bool { return h.ID == l.Hold }) {
		return lifted{}, advice.For(fmt.Errorf("%w: no hold of this id is in force", ErrNotFound), "kaizen-audit hold list --log %s", advice.Quote(t.path))
	}
	eventID := entry.NewEventID(t.clock.now())
	var why any = l.Reason
	policy := ""
	if t.enc.Load() != nil {
		if why, err = t.sealReason(eventID, l.Reason); err != nil {
			return lifted{}, err
		}
		policy = `{"sealed":["/outputs/reason"]}`
	}
	r, err := t.recordLife(ctx, ownEntry{eventType: "AUDIT_HOLD", action: "hold_lifted", id: eventID, policy: policy, outputs: map[string]any{"hold": l.Hold, "reason": why}})
	if err == nil {
		t.rotation.soon() // an erasure may have waited for it
	}
	return lifted{r.Index}, err
}

// Holds are the legal holds in force, oldest first.
func (t *Trail) Holds(ctx context.Context) ([]LegalHold, error) {
	if err := t.authorizeAll(ctx, "Holds"); err != nil {
		return nil, fmt.Errorf("holds of %s: %w", t.path, err)
	}
	state, err := t.lifeNow(ctx)
	var out []LegalHold
	if err == nil {
		out, err = t.fullHolds(ctx, state)
	}
	if err != nil {
		return nil, fmt.Errorf("holds of %s: %w", t.path, err)
	}
	return out, nil
}

// fullHolds are the holds with what their entries say.
func (t *Trail) fullHolds(ctx context.Context, state *lifecycle.State) ([]LegalHold, error) {
	out := []LegalHold{}
	for _, h := range state.Holds {
		full := LegalHold{ID: h.ID, Index: h.Index, Open: h.Open, Ranges: []Range{}}
		for _, r := range h.Ranges {
			full.Ranges = append(full.Ranges, Range(r))
		}
		e, _, err := t.entryAt(ctx, h.Index)
		switch {
		case err == nil && e.EventID == h.ID:
			full.read(&e)
		case err != nil && !errors.Is(err, ErrNotFound):
			return nil, err
		default:
			full.unread = true
		}
		out = append(out, full)
	}
	return out, nil
}

// read takes what the hold's entry says.
func (h *LegalHold) read(e *Entry) {
	var o struct {
		Filter  holdFilter `json:"filter"`
		Handles []string   `json:"handles"`
		Since   string     `json:"since"`
		Until   string     `json:"until"`
		Reason  string     `json:"reason"`
	}
	h.Added, h.By = formatTime(e.RecordedAt), e.Metadata.Text("principal")
	if e.Outputs.Decode(&o) != nil {
		h.unread = true // its filter is sealed, and there is no key
		h.Reason = e.Outputs.Text("reason")
		return
	}
	h.Agent, h.Trace, h.User, h.Since, h.Until, h.Reason = o.Filter.Agent, o.Filter.Trace, o.Filter.User, o.Since, o.Until, o.Reason
	h.filter, h.handles = o.Filter, o.Handles
}

// heldBy says which hold keeps a segment from being pruned, "" for none. An open hold
// looks into the segments that came after it.
func (t *Trail) heldBy(ctx context.Context, holds []LegalHold, s journal.Segment) (string, error) {
	segment := lifecycle.Range{First: s.First, Count: s.Count}
	for i := range holds {
		h := &holds[i]
		on := "hold " + h.ID
		if h.Index >= segment.First && h.Index < segment.End() {
			return on + " was added in it", nil // what it covers is told there
		}
		if slices.ContainsFunc(h.Ranges, func(r Range) bool { return segment.Meets(lifecycle.Range(r)) }) {
			return on, nil
		}
		if !h.Open || segment.End() <= h.Index {
			continue
		}
		if h.unread {
			return on + ", what it covers can't be read here", nil
		}
		found, err := t.covers(ctx, h, s)
		if err != nil {
			return "", err
		}
		if found {
			return on, nil
		}
	}
	return "", nil
}

// covers looks into a segment for what a hold covers.
func (t *Trail) covers(ctx context.Context, h *LegalHold, s journal.Segment) (bool, error) {
	r := HoldRequest{User: h.User, Agent: h.Agent, Trace: h.Trace}
	r.Since, _, _ = entry.ParseTime(h.Since)
	r.Until, _, _ = entry.ParseTime(h.Until)
	view, err := t.journal.View()
	if err != nil {
		return false, err
	}
	defer view.Close()
	view.Only(s.First)
	for _, q := range r.queries() {
		for _, err := range query.Run(ctx, view, t.withPseudonyms(q), t.opened, nil) {
			if err == nil || goesOn(err) { // what can't be read may be covered
				return true, nil
			}
			return false, err
		}
	}
	return false, nil
}
