package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/advice"
	"github.com/kaizen-audit/kaizen-audit/internal/keys"
	"github.com/kaizen-audit/kaizen-audit/internal/lifecycle"
	"github.com/kaizen-audit/kaizen-audit/internal/seal"
	"github.com/kaizen-audit/kaizen-audit/internal/socket"
)

// ScheduledErasure is an erasure that waits for the end of what stands against it.
// Its JSON shape only grows.
type ScheduledErasure struct {
	// ID is the event_id of its entry, Index that entry's.
	ID    string `json:"id"`
	Index int64  `json:"index"`
	// Handles are the subjects that were found then; what has been recorded of the
	// person since goes too.
	Handles []string `json:"handles"`
	// User and what follows are what was asked for; User is empty where this reader
	// has no key.
	User        string   `json:"user,omitempty"`
	Reason      string   `json:"reason,omitempty"`
	Traces      []string `json:"traces,omitempty"`
	Certificate string   `json:"certificate,omitempty"`
	BackupDays  int      `json:"backup_days,omitempty"`
	// Blocked is what stood against it when it was last looked at.
	Blocked []Blocked `json:"blocked"`
	// Until is when the last declared duty ends; nil where a hold is among them,
	// whose end nobody knows.
	Until *time.Time `json:"until"`
	// Ready says that all of that has ended: it is carried out next.
	Ready     bool      `json:"ready"`
	Scheduled time.Time `json:"scheduled"`
	By        string    `json:"by"` // the principal who asked for it
}

// DueErasures is what became of erasures that were due.
type DueErasures struct {
	// Done were carried out, in this call or by the trail's holder since the last one.
	Done []CarriedOut `json:"done"`
	// Failed could not be; they are tried again.
	Failed []FailedErasure `json:"failed"`
	// Waiting is how many wait for the end of something.
	Waiting int `json:"waiting"`
}

// CarriedOut is an erasure that was scheduled, and done.
type CarriedOut struct {
	Schedule string `json:"schedule"` // the id that it had
	Index    int64  `json:"index"`    // of the entry about the erasure
	Entries  int64  `json:"entries"`
	Fields   int64  `json:"fields"`
}

// FailedErasure is one that could not be carried out.
type FailedErasure struct {
	Schedule string `json:"schedule"`
	Problem  string `json:"problem"`
}

// schedules is what the holder remembers of erasures that wait.
type schedules struct {
	mu     sync.Mutex
	done   []CarriedOut         // by the holder itself, the newest maxScheduled
	failed map[string]time.Time // by schedule: when it could not be carried out
}

// maxScheduled is how many erasures wait at most: each seal says them all again.
const maxScheduled = 1000

// retryFailed is how long the holder waits before it tries again by itself.
const retryFailed = time.Hour

// request is what is kept of an erasure that waits, sealed under the person's key: it
// goes with the rest.
type request struct {
	User        string   `json:"user"`
	Reason      string   `json:"reason"`
	Traces      []string `json:"traces,omitempty"`
	Certificate string   `json:"certificate,omitempty"`
	BackupDays  int      `json:"backup_days,omitempty"`
}

const requestPointer = "/outputs/request"

// schedule records that an erasure waits; erasing.one is held. The entry is all that
// is kept of it: a crash before a checkpoint covers it leaves nothing scheduled, one
// after it a schedule.
func (t *Trail) schedule(ctx context.Context, plan *erasurePlan, user string, o EraseOptions) (*ScheduledErasure, error) {
	if err := t.mayErase(o); err != nil {
		return nil, err
	}
	store := t.enc.Load().store
	// The request is sealed for the very name that was given: every erasure of that
	// name takes it along.
	subject, err := store.Subject(keys.Person, user)
	if err == nil {
		err = store.Sync()
	}
	if err != nil {
		return nil, explainKey(err)
	}
	text, err := json.Marshal(request{user, o.Reason, o.Traces, o.Certificate, o.BackupDays})
	if err != nil {
		return nil, err
	}
	id := entry.NewEventID(t.clock.now())
	envelope, err := seal.SealField(seal.Place{Origin: t.id.Origin, EventID: id, Pointer: requestPointer}, []seal.Subject{subject}, text)
	if err != nil {
		return nil, err
	}
	handles := slices.Sorted(maps.Keys(plan.targets))
	if !slices.Contains(handles, subject.Handle) {
		handles = append(handles, subject.Handle)
		slices.Sort(handles)
	}
	t.life.mu.Lock()
	defer t.life.mu.Unlock()
	state, err := t.lifeLocked(ctx)
	if err != nil {
		return nil, err
	}
	for _, s := range state.Scheduled {
		if s.Subject == subject.Handle {
			return nil, advice.For(optionError("Schedule", "the erasure of this user is scheduled already, as %s", s.ID), "kaizen-audit erase-user --cancel %s --reason TEXT --log %s", s.ID, advice.Quote(t.path))
		}
	}
	if len(state.Scheduled) >= maxScheduled {
		return nil, optionError("Schedule", "%d erasures are scheduled, and no more can be", maxScheduled)
	}
	blocked := blockingOf(plan.out.Blocked)
	r, err := t.recordLife(ctx, ownEntry{
		eventType: lifecycle.Erasure, action: "erasure_scheduled", id: id, policy: `{"sealed":["` + requestPointer + `"]}`,
		outputs: map[string]any{"subject": subject.Handle, "handles": handles, "request": envelope, "blocked": blocked},
	})
	if err != nil {
		return nil, err
	}
	s := t.scheduled(lifecycle.Scheduled{
		ID: id, Index: r.Index, At: formatTime(t.clock.now()), By: askedBy(ctx), Subject: subject.Handle, Handles: handles, Request: envelope, Blocked: blocked,
	}, state.Holds)
	return &s, nil
}

// blockingOf is what stands against an erasure as entries say it.
func blockingOf(all []Blocked) []lifecycle.Blocking {
	out := []lifecycle.Blocking{}
	for _, b := range all {
		l := lifecycle.Blocking{Kind: b.Kind, Name: b.Name, Entries: b.Entries}
		if b.Until != nil {
			until := formatTime(*b.Until)
			l.Until = &until
		}
		out = append(out, l)
	}
	return out
}

// scheduled is an erasure that waits as who has the keys sees it.
func (t *Trail) scheduled(s lifecycle.Scheduled, holds []lifecycle.HeldBy) ScheduledErasure {
	out := ScheduledErasure{ID: s.ID, Index: s.Index, Handles: s.Handles, Blocked: []Blocked{}, Ready: s.Ready(t.clock.now(), holds), By: s.By}
	out.Scheduled, _, _ = entry.ParseTime(s.At)
	if r, err := t.requestOf(s); err == nil {
		out.User, out.Reason, out.Traces, out.Certificate, out.BackupDays = r.User, r.Reason, r.Traces, r.Certificate, r.BackupDays
	}
	known := true
	for _, b := range s.Blocked {
		full := Blocked{Kind: b.Kind, Name: b.Name, Entries: b.Entries}
		if b.Until == nil {
			known = false
		} else if at, _, err := entry.ParseTime(*b.Until); err == nil {
			full.Until = &at
			if out.Until == nil || at.After(*out.Until) {
				out.Until = &at
			}
		}
		out.Blocked = append(out.Blocked, full)
	}
	if !known {
		out.Until = nil
	}
	return out
}

// requestOf opens what was asked for.
func (t *Trail) requestOf(s lifecycle.Scheduled) (r request, err error) {
	enc := t.enc.Load()
	if enc == nil || enc.store == nil {
		return r, ErrNoKey
	}
	envelope, err := seal.ParseEnvelope(s.Request)
	if err != nil || !slices.Equal(envelope.Handles(), []string{s.Subject}) {
		return r, fmt.Errorf("%w: what was scheduled as %s can't be read", ErrDamaged, s.ID)
	}
	secret, err := enc.store.Key(s.Subject)
	if err != nil {
		return r, explainKey(err)
	}
	place := seal.Place{Origin: t.id.Origin, EventID: s.ID, Pointer: requestPointer}
	k, err := seal.FieldKey(place, []seal.Subject{{Handle: s.Subject, Key: secret}})
	if err != nil {
		return r, err
	}
	text, err := envelope.Open(place, k, maxSmallFile)
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err != nil || r.User == "" {
		return r, fmt.Errorf("%w: what was scheduled as %s can't be read", ErrDamaged, s.ID)
	}
	return r, nil
}

// ScheduledErasures are the erasures that wait, oldest first. It is recorded as a
// reading: it names people.
func (t *Trail) ScheduledErasures(ctx context.Context) ([]ScheduledErasure, error) {
	if err := t.authorizeAll(ctx, "ScheduledErasures"); err != nil {
		return nil, fmt.Errorf("scheduled erasures of %s: %w", t.path, err)
	}
	state, err := t.lifeNow(ctx)
	if err == nil {
		err = t.noteRead(ctx, readEntry{"AUDIT_QUERY", "scheduled_erasures"}, map[string]any{})
	}
	if err != nil {
		return nil, fmt.Errorf("scheduled erasures of %s: %w", t.path, err)
	}
	out := []ScheduledErasure{}
	for _, s := range state.Scheduled {
		out = append(out, t.scheduled(s, state.Holds))
	}
	return out, nil
}

// cancelling is what CancelErasure cancels.
type cancelling struct {
	ID     string `json:"id"`
	Reason string `json:"reason"`
}

// CancelErasure takes back an erasure that waits, by its id, and says why. It is an
// entry. ErrNotFound: none of that id waits. Where another process holds the trail,
// that one records it; the user must be the holder's own or root.
func (t *Trail) CancelErasure(ctx context.Context, id, reason string) error {
	if err := t.authorizeAll(ctx, "CancelErasure"); err != nil {
		return fmt.Errorf("cancel erasure: %w", err)
	}
	c := cancelling{id, reason}
	if _, err := byHolder(ctx, t, socket.CancelledErasures, c, func() (lifted, error) { return t.cancelErasure(ctx, c) }); err != nil {
		return fmt.Errorf("cancel erasure: %w", err)
	}
	return nil
}

func (t *Trail) cancelErasure(ctx context.Context, c cancelling) (lifted, error) {
	if c.Reason == "" {
		return lifted{}, optionError("Reason", "it is empty, and cancelling must say why")
	}
	t.erasing.one.Lock() // one that is being carried out can't be cancelled any more
	defer t.erasing.one.Unlock()
	t.life.mu.Lock()
	defer t.life.mu.Unlock()
	state, err := t.lifeLocked(ctx)
	if err != nil {
		return lifted{}, err
	}
	if !slices.ContainsFunc(state.Scheduled, func(s lifecycle.Scheduled) bool { return s.ID == c.ID }) {
		return lifted{}, advice.For(fmt.Errorf("%w: no erasure of this id is scheduled", ErrNotFound), "kaizen-audit erase-user --list --log %s", advice.Quote(t.path))
	}
	id := entry.NewEventID(t.clock.now())
	why, err := t.sealReason(id, c.Reason)
	if err != nil {
		return lifted{}, err
	}
	r, err := t.recordLife(ctx, ownEntry{eventType: lifecycle.Erasure, action: "erasure_cancelled", id: id, policy: `{"sealed":["/outputs/reason"]}`,
		outputs: map[string]any{"schedule": c.ID, "reason": why}})
	return lifted{r.Index}, err
}

// EraseDue carries out the erasures that were scheduled and that nothing stands
// against any more. What a hold or a duty that came meanwhile keeps is postponed,
// which is an entry. A holder that stays does it by itself; its erasures since the
// last call are among those that are given. Where another process holds the trail,
// that one erases; the user must be the holder's own or root.
func (t *Trail) EraseDue(ctx context.Context) (DueErasures, error) {
	if err := t.authorizeAll(ctx, "EraseDue"); err != nil {
		return DueErasures{}, fmt.Errorf("erase what is due: %w", err)
	}
	out, err := byHolder(ctx, t, socket.DueErasures, struct{}{}, func() (DueErasures, error) { return t.eraseDue(ctx, struct{}{}) })
	if err != nil {
		return out, fmt.Errorf("erase what is due: %w", err)
	}
	return out, nil
}

func (t *Trail) eraseDue(ctx context.Context, _ struct{}) (DueErasures, error) {
	out := DueErasures{Done: []CarriedOut{}, Failed: []FailedErasure{}}
	if err := t.unsealable(); err != nil {
		return out, err
	}
	t.erasing.one.Lock()
	defer t.erasing.one.Unlock()
	t.schedules.mu.Lock()
	out.Done, t.schedules.done = append(out.Done, t.schedules.done...), nil
	t.schedules.mu.Unlock()
	state, err := t.lifeNow(ctx)
	if err != nil || len(state.Scheduled) == 0 {
		return out, err
	}
	// Whoever asks vouches for the clock.
	if err := t.finishInterrupted(ctx); err != nil {
		return out, err
	}
	for _, s := range state.Scheduled {
		done, err := t.carryOut(ctx, s)
		switch {
		case ctx.Err() != nil:
			return out, ctx.Err()
		case errors.Is(err, ErrHeld):
			out.Waiting++
		case err != nil:
			out.Failed = append(out.Failed, FailedErasure{s.ID, err.Error()})
		case done != nil:
			out.Done = append(out.Done, *done)
		}
	}
	return out, nil
}

// eraseByItself is the holder's: what is due by what was told when it was last
// looked at. It ends with ctx as long as nothing has begun.
func (t *Trail) eraseByItself(ctx context.Context) {
	ctx = WithTrailItself(ctx)
	if t.enc.Load() == nil || !t.erasing.one.TryLock() {
		return // somebody erases: the next time
	}
	defer t.erasing.one.Unlock()
	state, err := t.lifeNow(ctx)
	if err != nil {
		return // what can't be read is told by who needs it
	}
	for _, s := range state.Scheduled {
		t.schedules.mu.Lock()
		last, failed := t.schedules.failed[s.ID]
		t.schedules.mu.Unlock()
		if now := time.Now(); !s.Ready(t.clock.now(), state.Holds) || failed && now.Sub(last) < retryFailed {
			continue
		}
		_, err := t.clockAgrees()
		if err == nil {
			err = t.finishInterrupted(ctx)
		}
		var done *CarriedOut
		if err == nil {
			done, err = t.carryOut(ctx, s)
		}
		if ctx.Err() != nil || t.journal.Err() != nil {
			return // the next opening goes on
		}
		t.schedules.mu.Lock()
		switch {
		case done != nil:
			if t.schedules.done = append(t.schedules.done, *done); len(t.schedules.done) > maxScheduled {
				t.schedules.done = t.schedules.done[1:]
			}
		case err != nil && !errors.Is(err, ErrHeld):
			if t.schedules.failed == nil || len(t.schedules.failed) >= maxScheduled {
				t.schedules.failed = map[string]time.Time{}
			}
			t.schedules.failed[s.ID] = time.Now()
		}
		t.schedules.mu.Unlock()
		if err != nil && !errors.Is(err, ErrHeld) {
			t.warn(fmt.Errorf("the erasure that is scheduled as %s is due, and could not be carried out: %w", s.ID, err))
		}
	}
}

// carryOut does an erasure that was scheduled; erasing.one is held. It is ErrHeld
// where something still stands against it, and nil where there is nothing to erase
// any more; both are recorded.
func (t *Trail) carryOut(ctx context.Context, s lifecycle.Scheduled) (*CarriedOut, error) {
	r, err := t.requestOf(s)
	if err != nil {
		return nil, err
	}
	o := EraseOptions{Reason: r.Reason, Certificate: r.Certificate, Traces: r.Traces, BackupDays: r.BackupDays}
	if err := t.mayErase(o); err != nil {
		return nil, err
	}
	who, err := t.namesOf(r.User)
	if err != nil {
		return nil, err
	}
	plan, err := t.planErasure(ctx, who, o.Traces, true)
	if err != nil {
		return nil, err
	}
	if len(plan.out.Blocked) > 0 {
		if now := blockingOf(plan.out.Blocked); !sameBlocking(now, s.Blocked) {
			t.life.mu.Lock()
			_, err = t.recordLife(ctx, ownEntry{eventType: lifecycle.Erasure, action: "erasure_postponed", outputs: map[string]any{"schedule": s.ID, "blocked": now}})
			t.life.mu.Unlock()
		}
		return nil, errors.Join(plan.refusal(), err)
	}
	// From here on it is done, and waited for, whoever stops waiting.
	e, err := t.destroySubjects(context.WithoutCancel(ctx), plan, r.User, o, s.ID)
	if err != nil {
		return nil, err
	}
	return &CarriedOut{Schedule: s.ID, Index: *e.Index, Entries: e.Entries, Fields: e.Fields}, nil
}

// sameBlocking tells whether the same stands against an erasure, whatever it is in
// entries.
func sameBlocking(a, b []lifecycle.Blocking) bool {
	return slices.EqualFunc(a, b, func(a, b lifecycle.Blocking) bool {
		return a.Kind == b.Kind && a.Name == b.Name && (a.Until == nil) == (b.Until == nil) && (a.Until == nil || *a.Until == *b.Until)
	})
}
