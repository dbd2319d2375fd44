package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/idempotency"
	"github.com/kaizen-audit/kaizen-audit/internal/journal"
	"github.com/kaizen-audit/kaizen-audit/internal/sealed"
	"github.com/kaizen-audit/kaizen-audit/policy"
)

const timeLayout = entry.TimeLayout

// Record writes one event and returns once it is acknowledged in the trail's
// durability. The event's objects must not change meanwhile.
//
// ctx bounds the wait, not the fate: when it ends after the event was
// accepted, the error is ErrUnknown and the entry is written all the same (a
// retry with the same idempotency key is recorded once). Other errors:
// ErrRefused with the member and the reason, ErrFull, ErrConflict, ErrStopped,
// ErrClosed, ErrReadOnly.
func (t *Trail) Record(ctx context.Context, ev Event) (Receipt, error) {
	if err := t.writable(ctx); err != nil {
		return Receipt{}, err
	}
	if r := t.remote.Load(); r != nil {
		return r.record(ctx, &ev)
	}
	if ev.IdempotencyKey == "" {
		return t.record(ctx, &ev, nil)
	}
	var one [1]Receipt
	var err error
	t.recordBounded(ctx, []Event{ev}, handed{}, one[:], func(_ int, e error) { err = e })
	return one[0], err
}

func (t *Trail) writable(ctx context.Context) error {
	if t.opts.ReadOnly {
		return ErrReadOnly
	}
	select {
	case <-t.closed:
		return ErrClosed
	default:
		return ctx.Err()
	}
}

// scratch is where a line is encoded.
type scratch struct {
	buf     []byte
	sealed  []byte // one line, of a trail that seals
	digests []journal.Digest
	gate    *sync.RWMutex // held for reading from the first sealed line in buf until that is appended
}

var scratches = sync.Pool{New: func() any { return &scratch{} }}

// enter keeps an erasure from beginning until what is sealed now is appended.
func (s *scratch) enter(gate *sync.RWMutex) {
	if s.gate == nil {
		gate.RLock()
		s.gate = gate
	}
}

func (s *scratch) leave() {
	if s.gate != nil {
		s.gate.RUnlock()
		s.gate = nil
	}
}

func (s *scratch) release() {
	s.leave()
	if cap(s.buf) <= 1<<20 { // a giant is left to the collector
		scratches.Put(s)
	}
}

// record records an event without an idempotency key. by is its recorded_by,
// nil for this process.
func (t *Trail) record(ctx context.Context, ev *Event, by []byte) (Receipt, error) {
	s := scratches.Get().(*scratch)
	defer s.release()
	s.buf, s.digests = s.buf[:0], s.digests[:0]
	r, err := t.encode(s, ev, handed{text: by})
	if err != nil {
		t.refused.note(err)
		return Receipt{}, err
	}
	r.Index, err = t.append(ctx, s)
	if err != nil {
		return Receipt{}, err
	}
	return r, nil
}

// encode adds the line of an event to s, as the policy leaves it.
func (t *Trail) encode(s *scratch, ev *Event, by handed) (Receipt, error) {
	now := t.clock.now()
	st := entry.Stamp{EventID: entry.NewEventID(now), RecordedAt: now, MaxLine: t.opts.MaxLine, RecordedBy: by.text}
	if ev.TraceID == "" {
		st.TraceID = entry.NewTraceID()
	}
	from := len(s.buf)
	buf, err := t.policy().AppendLine(s.buf, ev, &st, t.runHeld(by.keep))
	if err != nil {
		return Receipt{}, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if t.enc.Load() != nil {
		s.enter(&t.erasing.events)
		if s.sealed, err = t.stored(s.sealed[:0], buf[from:]); err != nil {
			return Receipt{}, err
		}
		buf = append(buf[:from], s.sealed...)
	}
	d := entry.Digest(buf[from:])
	s.buf = append(buf, '\n')
	s.digests = append(s.digests, d)
	return Receipt{EventID: st.EventID, Digest: d, Durable: t.opts.Durability == Durable}, nil
}

// append hands lines to the journal and seals when they fill the segment.
func (t *Trail) append(ctx context.Context, s *scratch) (first int64, err error) {
	if err := t.signer.admit(ctx); err != nil {
		return 0, err
	}
	if err := t.syncKeys(); err != nil {
		return 0, err
	}
	first, err = t.journal.Append(ctx, s.buf, s.digests)
	s.leave()
	if err != nil {
		return 0, explainJournal(err)
	}
	t.sealWhenFull()
	return first, nil
}

// explainJournal gives the journal's errors their public names.
func explainJournal(err error) error {
	if err == nil {
		return nil
	}
	for _, pair := range []struct{ from, to error }{
		{journal.ErrUnknown, ErrUnknown}, {journal.ErrFull, ErrFull}, {journal.ErrStopped, ErrStopped}, {journal.ErrClosed, ErrClosed},
	} {
		if errors.Is(err, pair.from) {
			return &journalError{pair.to, err}
		}
	}
	return err
}

// journalError says it in the journal's words and is the public error.
type journalError struct{ is, err error }

func (e *journalError) Error() string   { return e.err.Error() }
func (e *journalError) Unwrap() []error { return []error{e.is, e.err} }

// BatchError says which events of a batch were not recorded.
type BatchError struct {
	// Errs has an error for each event that was not recorded, nil for the
	// others.
	Errs []error
}

func (e *BatchError) Error() string {
	n := 0
	var first error
	at := 0
	for i, err := range e.Errs {
		if err != nil {
			if n++; first == nil {
				first, at = err, i
			}
		}
	}
	return fmt.Sprintf("%d of %d events were not recorded; the first is event %d: %v", n, len(e.Errs), at, first)
}

// Unwrap gives the errors.
func (e *BatchError) Unwrap() []error {
	var errs []error
	for _, err := range e.Errs {
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// RecordBatch writes events in order with one wait; receipts[i] belongs to
// events[i]. Events that are refused do not keep the others from being
// recorded: the error is then a *BatchError, and the receipts of the recorded
// ones are valid.
func (t *Trail) RecordBatch(ctx context.Context, events []Event) ([]Receipt, error) {
	if err := t.writable(ctx); err != nil {
		return nil, err
	}
	receipts := make([]Receipt, len(events))
	failed := &BatchError{Errs: make([]error, len(events))}
	any := false
	fail := func(i int, err error) { failed.Errs[i], any = err, true }
	if r := t.remote.Load(); r != nil {
		r.recordBatch(ctx, events, receipts, fail)
	} else {
		t.recordBounded(ctx, events, handed{}, receipts, fail)
	}
	if any {
		return receipts, failed
	}
	return receipts, nil
}

// handed says who has handed events over: their recorded_by, nil for this
// process; and whether that they happened must be kept where a value can't be.
type handed struct {
	text []byte
	keep bool
}

// keepFact makes of an event that was refused one that can be recorded, where
// that is asked for.
func (t *Trail) keepFact(ev *Event, by handed, why error) bool {
	if !by.keep || !errors.Is(why, ErrRefused) {
		return false
	}
	now := t.clock.now()
	st := entry.Stamp{EventID: entry.NewEventID(now), RecordedAt: now, TraceID: entry.NewTraceID(), RecordedBy: by.text, MaxLine: t.opts.MaxLine}
	return entry.KeepFact(ev, &st, t.keys.omittedMAC) == nil
}

// recordBounded is recordBatch whose wait ctx bounds also where events have
// keys: what becomes of a key is found out behind the caller's back then, for a
// retry to find, from a copy of the events, which are the caller's again.
func (t *Trail) recordBounded(ctx context.Context, events []Event, by handed, receipts []Receipt, fail func(int, error)) {
	keyed := slices.ContainsFunc(events, func(ev Event) bool { return ev.IdempotencyKey != "" })
	if !keyed || ctx.Done() == nil {
		t.recordBatch(ctx, events, by, receipts, fail)
		return
	}
	own := make([]Event, 0, len(events))
	places := make([]int, 0, len(events))
	for i := range events {
		ev, err := copyEvent(&events[i])
		if err != nil {
			t.refused.add(err)
			fail(i, fmt.Errorf("%w: %w", ErrRefused, err))
			continue
		}
		own, places = append(own, ev), append(places, i)
	}
	got, errs := make([]Receipt, len(own)), make([]error, len(own))
	done := make(chan struct{})
	go func() {
		defer close(done)
		t.recordBatch(context.WithoutCancel(ctx), own, by, got, func(k int, err error) { errs[k] = err })
	}()
	select {
	case <-done:
	case <-ctx.Done():
		for _, i := range places {
			fail(i, fmt.Errorf("%w: %w", ErrUnknown, ctx.Err()))
		}
		return
	}
	for k, i := range places {
		if receipts[i] = got[k]; errs[k] != nil {
			fail(i, errs[k])
		}
	}
}

// copyEvent is the same event in memory of its own.
func copyEvent(ev *Event) (Event, error) {
	text, err := entry.AppendEvent(nil, ev)
	if err != nil {
		return Event{}, err
	}
	own, err := entry.ParseEvent(text)
	own.NoteOmitted(ev.Omitted()...)
	own.NotePolicy(ev.PolicyNotes())
	return own, err
}

// recordBatch records events in order, each once if it has an idempotency key,
// and tells fail of those that were not recorded. Where events have keys ctx must
// have no end: a retry must find what became of them.
func (t *Trail) recordBatch(ctx context.Context, events []Event, by handed, receipts []Receipt, fail func(int, error)) {
	events = t.leftKeys(events)
	keys, twice := t.takeKeys(events)
	defer t.keyed.release(keys)
	s := scratches.Get().(*scratch)
	defer s.release()
	s.buf, s.digests = s.buf[:0], s.digests[:0]
	var waiting []int // events whose lines are in s
	flush := func() {
		if len(waiting) == 0 {
			return
		}
		first, err := t.append(ctx, s)
		for k, i := range waiting {
			err := err
			if err == nil {
				receipts[i].Index = first + int64(k)
				if key := keyOf(keys, i); key != noKey {
					err = t.idem.Add(key, receipts[i].Index, t.clock.now())
				}
			}
			if err != nil {
				receipts[i] = Receipt{}
				fail(i, err)
			}
		}
		waiting, s.buf, s.digests = waiting[:0], s.buf[:0], s.digests[:0]
	}
	var seen map[idempotency.Hash]bool // keys of events that wait
	if twice {
		seen = make(map[idempotency.Hash]bool, len(events))
	}
	for i := range events {
		ev := &events[i]
		if key := keyOf(keys, i); key != noKey && len(ev.IdempotencyKey) <= entry.MaxIdempotencyKey {
			if seen[key] {
				flush() // the first of them has to be there
			}
			index, known, err := t.idem.Lookup(key)
			if err != nil {
				fail(i, err)
				continue
			}
			if known {
				flush() // order is kept
				receipts[i], err = t.again(ctx, ev, by, index)
				if err != nil && t.keepFact(ev, by, err) {
					receipts[i], err = t.again(ctx, ev, by, index)
				}
				if err != nil {
					t.refused.note(err)
					fail(i, err)
				}
				continue
			}
			if twice {
				seen[key] = true
			}
		}
		r, err := t.encode(s, ev, by)
		if err != nil && t.keepFact(ev, by, err) {
			r, err = t.encode(s, ev, by)
		}
		if err != nil {
			t.refused.note(err)
			fail(i, err)
			continue
		}
		receipts[i] = r
		waiting = append(waiting, i)
		if len(s.buf) >= batchBytes {
			flush()
		}
	}
	flush()
}

// batchBytes is how much of a batch is handed to the journal at once.
const batchBytes = 2 << 20

// keysInUse are the idempotency keys of events that are being recorded: two
// with one key are not recorded at once.
type keysInUse struct {
	mu    sync.Mutex
	inUse map[idempotency.Hash]struct{}
	freed sync.Cond
}

// noKey is in the place of the key of an event that has none.
var noKey idempotency.Hash

// keyOf is the key of the i-th event; keys is nil where none has one.
func keyOf(keys []idempotency.Hash, i int) idempotency.Hash {
	if keys == nil {
		return noKey
	}
	return keys[i]
}

// takeKeys waits until nobody else records an event with one of the keys, and
// tells whether one of them is there twice.
func (t *Trail) takeKeys(events []Event) (keys []idempotency.Hash, twice bool) {
	for i := range events {
		if key := events[i].IdempotencyKey; key != "" {
			if keys == nil {
				keys = make([]idempotency.Hash, len(events))
			}
			keys[i] = t.idem.Hash(key)
		}
	}
	if keys != nil {
		twice = t.keyed.take(keys)
	}
	return keys, twice
}

// take takes all keys at once or waits: who waits holds none.
func (k *keysInUse) take(keys []idempotency.Hash) (twice bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.inUse == nil {
		k.inUse = map[idempotency.Hash]struct{}{}
		k.freed.L = &k.mu
	}
	for slices.ContainsFunc(keys, func(key idempotency.Hash) bool { _, ok := k.inUse[key]; return ok }) {
		k.freed.Wait()
	}
	before, count := len(k.inUse), 0
	for _, key := range keys {
		if key != noKey {
			k.inUse[key] = struct{}{}
			count++
		}
	}
	return len(k.inUse)-before < count
}

func (k *keysInUse) release(keys []idempotency.Hash) {
	if len(keys) == 0 {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, key := range keys {
		delete(k.inUse, key)
	}
	k.freed.Broadcast()
}

// again gives the receipt of the entry at index, which has the event's key, or
// ErrConflict if it is another event's.
func (t *Trail) again(ctx context.Context, ev *Event, by handed, index int64) (Receipt, error) {
	first, plain, err := t.entryBy(ctx, index, t.ownView)
	if errors.Is(err, ErrNotFound) && t.opts.Durability == Queued {
		if err = t.journal.Flush(ctx); err == nil { // it is still in the queue
			first, plain, err = t.entryBy(ctx, index, t.ownView)
		}
	}
	if err != nil {
		return Receipt{}, err
	}
	receipt := Receipt{Index: index, EventID: first.EventID, Digest: first.Digest(), Durable: t.opts.Durability == Durable}
	if plain == nil { // something of it was erased, and nobody can tell any more
		return receipt, nil
	}
	again, err := t.policy().AppendLine(nil, ev, &entry.Stamp{
		EventID: first.EventID, RecordedAt: first.RecordedAt, TraceID: first.TraceID, MaxLine: t.opts.MaxLine,
		RecordedBy: objectText(first.RecordedBy),
	}, t.runHeld(by.keep))
	if err != nil {
		return Receipt{}, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if !bytes.Equal(sealed.WithoutList(again), plain) {
		err := t.recordOwn(ctx, ownEntry{eventType: "AUDIT_CONFLICT", action: "idempotency_conflict", failed: true,
			outputs: map[string]any{"first": index, "event_id": first.EventID}})
		return Receipt{}, errors.Join(fmt.Errorf("%w: entry %d has it", ErrConflict, index), err)
	}
	return receipt, nil
}

func objectText(o Object) []byte {
	if o.IsZero() {
		return nil
	}
	b, err := o.AppendJSON(nil)
	if err != nil {
		return nil
	}
	return b
}

// entryAt reads one entry, and its line as it was before anything of it was sealed,
// nil where that can't be had.
func (t *Trail) entryAt(ctx context.Context, index int64) (e Entry, plain []byte, err error) {
	return t.entryBy(ctx, index, t.viewOf)
}

// entryBy is entryAt, seen in a certain way.
func (t *Trail) entryBy(ctx context.Context, index int64, see func([]byte) (sealed.View, error)) (e Entry, plain []byte, err error) {
	view, err := t.lines()
	if err != nil {
		return Entry{}, nil, err
	}
	defer view.Close()
	line, err := view.Line(ctx, index)
	if err != nil {
		return Entry{}, nil, fmt.Errorf("entry %d: %w", index, explainMissing(err))
	}
	seen, err := see(line)
	if err != nil {
		return Entry{}, nil, fmt.Errorf("entry %d: %w", index, err)
	}
	e, err = entry.ParseView(seen.Line, line)
	e.Index = index
	plain, _ = seen.Plain()
	return e, plain, err
}

// ownEntry is one of the trail's own entries.
type ownEntry struct {
	eventType string
	action    string
	inputs    any
	outputs   any
	failed    bool
	signed    bool   // with the lifecycle key
	key       string // idempotency key
	id        string // event id; made where empty
	by        []byte // recorded_by
	at        time.Time
	metadata  map[string]any
	policy    string // JSON text of its member policy, of an entry with a sealed field
}

// ownLine encodes one of the trail's own entries, without a newline.
func (t *Trail) ownLine(o ownEntry, now time.Time) ([]byte, error) {
	meta := o.metadata
	if meta == nil {
		meta = map[string]any{"principal": principal()}
	}
	if o.signed {
		meta["signature"] = ""
	}
	ev := Event{
		Timestamp: o.at, EventType: o.eventType, AgentID: entry.TrailAgent, TraceID: t.id.Origin, Action: o.action,
		Inputs: Of(o.inputs), Outputs: Of(o.outputs), Metadata: Of(meta), IdempotencyKey: o.key,
	}
	if o.failed {
		ev.Success = new(false)
	}
	if o.id == "" {
		o.id = entry.NewEventID(now)
	}
	st := entry.Stamp{EventID: o.id, RecordedAt: now, MaxLine: 1 << 30, Trails: true, RecordedBy: o.by}
	if spooledTypes[o.eventType] { // what somebody looked for is somebody's text
		return detectors.AppendLine(nil, &ev, &st, policy.Run{KeepFact: true})
	}
	line, err := entry.AppendLine(nil, &ev, &st)
	if err == nil && o.policy != "" { // the last member
		line = append(append(append(line[:len(line)-1], `,"policy":`...), o.policy...), '}')
	}
	if err != nil || !o.signed {
		return line, err
	}
	return signLine(line, t.keys.sign.Load(), o.permits())
}

// recordOwn records one of the trail's own entries.
func (t *Trail) recordOwn(ctx context.Context, o ownEntry) error {
	_, err := t.recordOwnReceipt(ctx, o)
	return err
}

func (t *Trail) recordOwnReceipt(ctx context.Context, o ownEntry) (Receipt, error) {
	now := t.clock.now()
	if o.id == "" {
		o.id = entry.NewEventID(now)
	}
	t.erasing.own.RLock()
	defer t.erasing.own.RUnlock()
	line, err := t.ownLine(o, now)
	if err == nil {
		line, err = t.stored(nil, line)
	}
	if err == nil {
		err = t.syncKeys()
	}
	if err != nil {
		return Receipt{}, err
	}
	r := Receipt{EventID: o.id, Digest: entry.Digest(line), Durable: t.opts.Durability == Durable}
	r.Index, err = t.journal.Append(ctx, append(line, '\n'), []journal.Digest{r.Digest})
	return r, explainJournal(err)
}

// refusals counts refused events until they become an entry.
type refusals struct {
	mu      sync.Mutex
	count   int64
	reasons map[string]int64
}

// note is add for what is a refusal.
func (r *refusals) note(err error) {
	if errors.Is(err, ErrRefused) {
		r.add(err)
	}
}

// maxReasons bounds how many kinds of refusal one entry tells apart.
const maxReasons = 32

func (r *refusals) add(err error) {
	reason := "other"
	var field *entry.FieldError
	var syntax *entry.SyntaxError
	var long *entry.LineTooLongError
	var forbidden *policy.RefusedError
	switch {
	case errors.As(err, &forbidden):
		reason = forbidden.Error()
	case errors.As(err, &syntax):
		reason = syntax.Reason
		if errors.As(err, &field) {
			reason = field.Field + ": " + reason
		}
	case errors.As(err, &field):
		reason = field.Error()
	case errors.As(err, &long):
		reason = "longer than a line may be"
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count++
	r.countLocked(strings.Clone(reason), 1) // the event's memory may be used again
}

// countLocked counts a reason; mu is held.
func (r *refusals) countLocked(reason string, n int64) {
	if r.reasons == nil {
		r.reasons = map[string]int64{}
	}
	if _, ok := r.reasons[reason]; !ok && len(r.reasons) >= maxReasons {
		reason = "other"
	}
	r.reasons[reason] += n
}

// NoteRefused counts an event that was refused before it could be given to
// Record, because it could not even be read: the refusal becomes an entry
// too. The error is what ParseEvent returned.
func (t *Trail) NoteRefused(err error) { t.refused.add(err) }

// eventsRefused is the type of the entry about refusals.
const eventsRefused = "AUDIT_REFUSED"

// tell has do record the entry about what was refused since the last time, if
// anything was. Where do can't, the next time tells of it.
func (r *refusals) tell(do func(ownEntry) error) error {
	r.mu.Lock()
	count, reasons := r.count, r.reasons
	r.count, r.reasons = 0, nil
	r.mu.Unlock()
	if count == 0 {
		return nil
	}
	err := do(ownEntry{eventType: eventsRefused, action: "events_refused", failed: true,
		outputs: map[string]any{"count": count, "reasons": reasons}})
	if err == nil || errors.Is(err, ErrUnknown) {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count += count
	for reason, n := range reasons {
		r.countLocked(reason, n)
	}
	return err
}

// flushRefusals records what was refused since the last time.
func (t *Trail) flushRefusals(ctx context.Context) error {
	return t.refused.tell(func(o ownEntry) error { return t.recordOwn(ctx, o) })
}

// noteSteps records large steps of the clock.
func (t *Trail) noteSteps() {
	for _, s := range t.clock.takeSteps() {
		direction := "forward"
		if s.to.Before(s.from) {
			direction = "back"
		}
		_ = t.recordOwn(context.Background(), ownEntry{eventType: "AUDIT_CLOCK", action: "clock_stepped", signed: true,
			outputs: map[string]any{"from": formatTime(s.from), "to": formatTime(s.to), "direction": direction}})
	}
}
