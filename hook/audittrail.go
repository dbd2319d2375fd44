package hook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/internal/pin"
)

// AuditOptions are the settings of an AuditTrailHook. The zero value is a good
// default.
type AuditOptions struct {
	// Metadata is in every entry's metadata, unless a context or an action says
	// otherwise: service_name, environment.
	Metadata map[string]any
	// Events are what is recorded; empty means everything. Of an action either of
	// its two events may be named; of an agent's loop each has its own entry.
	Events []Event
	// Tools are the names of the tools whose use is recorded, ExceptTools those of
	// which it is not; both are patterns of path.Match, in which * stands for
	// anything but a slash. Empty Tools are all.
	Tools, ExceptTools []string
	// OmitInputs and OmitOutputs leave these out of entries: size and keyed mac
	// stand in their place.
	OmitInputs, OmitOutputs bool
	// MaxValue is how long inputs and outputs may be, as JSON text in bytes; longer
	// ones are left out. 0 means as long as an entry may be.
	MaxValue int
	// Before has an entry written before an action too, its event type ending in
	// _START: the action does not begin before it is acknowledged.
	Before bool
	// FailClosed fails an action that can't be recorded (ErrFailClosed). After one
	// has, an action is only begun once an entry before it was acknowledged.
	// Otherwise what the trail can't take goes to its spool, and the agent goes on.
	FailClosed bool
	// Timeout is how long an action waits for its entry. Then the agent goes on, or
	// with FailClosed the action fails; the entry is written nevertheless as soon as
	// the trail takes it. 0 means 400 ms, and that what is a mere write to a file is
	// written by the agent's own goroutine (a note, and where this process holds the
	// trail in mode written or queued an entry): handing it over takes longer than
	// the write. Of a disk that stops answering those notice that are just writing,
	// and wait for it; nobody else does.
	Timeout time.Duration
	// Warn is told of everything that was not recorded at once, without a value of
	// it. It may be called from any goroutine; nil means that Stats alone tells.
	Warn func(error)
}

// Stats count what became of the entries.
type Stats struct {
	// Recorded are in the trail.
	Recorded int64
	// Spooled wait for the trail's next holder.
	Spooled int64
	// Late were not acknowledged in time. They are counted again, as what becomes
	// of them.
	Late int64
	// Lost are neither in the trail nor in its spool. An entry says how many, as
	// soon as the trail takes one: CAPTURE_LOST, or AUDIT_LOSS where the spool has
	// counted them.
	Lost int64
	// Unnoted are actions whose beginning could not be noted: a crash would have
	// left nothing of them.
	Unnoted int64
}

// auditTimeout is how long an action waits for its entry: as long as a hook that
// is a process of its own (audit.Capture).
const auditTimeout = 400 * time.Millisecond

const (
	// shortWait is what an action waits while the trail does not answer: whoever
	// waits is an agent, and has waited.
	shortWait = time.Millisecond
	// maxBehind bounds how many entries wait in memory for a trail that does not
	// answer.
	maxBehind = 1024
	// closeWait is how long Close waits for them.
	closeWait = 5 * time.Second
	// checkTime bounds what a start after a crash spends on looking whether an end
	// was recorded after all.
	checkTime = 10 * time.Second
)

// AuditTrailHook records what an agent does in a trail.
type AuditTrailHook struct {
	trail recording
	close func() error // closes the trail, where that is the hook's
	opts  AuditOptions
	base  map[string]any
	only  map[Event]bool

	begun *begunFile // nil where there is no place for one
	mu    sync.Mutex
	open  map[string]noted // by span
	// replaced is the hook whose place this one took, and which noted what was
	// open then.
	replaced atomic.Pointer[AuditTrailHook]

	direct   bool         // no timeout was asked for
	writing  atomic.Int64 // agents that write by themselves
	answered atomic.Int64 // when the disk last answered one of them, in Unix nanoseconds

	idle   chan *writer
	behind atomic.Int64 // writers that were left behind
	busy   atomic.Int64 // writers and comparisons that run
	failed atomic.Bool  // the last entry was not acknowledged
	closed atomic.Bool
	setups setups

	recorded, spooled, late, lost, unnoted atomic.Int64
	untold                                 atomic.Int64 // lost and not yet told by CAPTURE_LOST
}

// noted is an action that has begun.
type noted struct {
	c    *Context
	slot slot // zero where it stands in no file
}

// NewAuditTrailHook makes a hook for a trail, which stays the caller's to close,
// after the hook. What processes that are gone had begun, and whose end is not in
// the trail, is recorded first, with the outcome unknown.
func NewAuditTrailHook(trail *audit.Trail, opts *AuditOptions) (*AuditTrailHook, error) {
	if trail == nil {
		return nil, errors.New("audit trail hook: there is no trail")
	}
	return newAuditTrailHook(trail, opts)
}

func newAuditTrailHook(trail recording, opts *AuditOptions) (*AuditTrailHook, error) {
	h := &AuditTrailHook{trail: trail, open: map[string]noted{}, idle: make(chan *writer, 64)}
	if opts != nil {
		h.opts = *opts
	}
	if err := h.check(); err != nil {
		return nil, fmt.Errorf("audit trail hook: %w", err)
	}
	h.base = merge(nil, h.opts.Metadata)
	if len(h.opts.Events) > 0 {
		h.only = map[Event]bool{}
		for _, e := range h.opts.Events {
			h.only[e] = true
			if k := e.Kind(); k != AgentLoop {
				h.only[k.Pre()], h.only[k.Post()], h.only[Event(k)] = true, true, true
			}
		}
	}
	dir := ""
	if state := trail.StateDir(); state != "" {
		dir = pin.Below(state, "begun", trail.Path())
	}
	if err := h.note(dir); err != nil {
		if h.opts.FailClosed {
			return nil, fmt.Errorf("audit trail hook: %w", err)
		}
		h.warn(err)
	}
	return h, nil
}

// note tells of what others had begun, and makes the place for what this process
// begins.
func (h *AuditTrailHook) note(dir string) (err error) {
	if dir == "" {
		return errors.New("there is no place to note what has begun: set HOME or KAIZEN_AUDIT_STATE")
	}
	if late, ok := h.trail.(*lateTrail); ok && late.open.Load() == nil {
		// The next start tells.
	} else if err := abandoned(dir, h.tellAbandoned); err != nil {
		h.warn(fmt.Errorf("what was begun before: %w", err))
	}
	if h.begun, err = createBegun(dir); err != nil {
		return fmt.Errorf("what has begun can't be noted: %w", err)
	}
	return nil
}

func (h *AuditTrailHook) check() error {
	switch {
	case h.opts.MaxValue < 0:
		return fmt.Errorf("option MaxValue: %d is negative", h.opts.MaxValue)
	case h.opts.Timeout < 0:
		return fmt.Errorf("option Timeout: %s is negative", h.opts.Timeout)
	}
	if h.direct = h.opts.Timeout == 0; h.direct {
		h.opts.Timeout = auditTimeout
	}
	for _, f := range []struct {
		name     string
		patterns []string
	}{{"Tools", h.opts.Tools}, {"ExceptTools", h.opts.ExceptTools}} {
		for _, p := range f.patterns {
			if _, err := path.Match(p, ""); err != nil {
				return fmt.Errorf("option %s: %q is no pattern", f.name, p)
			}
		}
	}
	if slices.Contains(h.opts.Events, "") {
		return errors.New("option Events: one is empty")
	}
	return nil
}

// Name is audit_trail_hook.
func (h *AuditTrailHook) Name() string { return "audit_trail_hook" }

// Events are all, or those of AuditOptions.
func (h *AuditTrailHook) Events() []Event {
	var events []Event
	for e := range h.only {
		events = append(events, e)
	}
	return events
}

// returnsInTime: it waits as AuditOptions.Timeout says.
func (h *AuditTrailHook) returnsInTime() {}

// takesThePlace tells whether two hooks record in one trail; old is then no more
// told of anything.
func takesThePlace(h, old Hook) bool {
	x, ok := h.(*AuditTrailHook)
	y, both := old.(*AuditTrailHook)
	if !ok || !both || x.trail.Path() != y.trail.Path() {
		return false
	}
	if x != y {
		x.replaced.Store(y)
	}
	return true
}

// Stats gives the counts until now.
func (h *AuditTrailHook) Stats() Stats {
	return Stats{h.recorded.Load(), h.spooled.Load(), h.late.Load(), h.lost.Load(), h.unnoted.Load()}
}

// Handle records what an event says. It returns an error only with FailClosed.
func (h *AuditTrailHook) Handle(_ context.Context, c *Context) error {
	if !h.wants(c) {
		return nil
	}
	kind := c.Event.Kind()
	switch {
	case c.Event.begins() && kind == AgentLoop:
		return h.loopBegins(c)
	case c.Event.begins():
		w := writing{c: c, begins: true}
		if w.enter = h.opts.Before || h.opts.FailClosed && h.failed.Load(); w.enter {
			w.ev = h.beginning(c)
		}
		return h.write(w)
	}
	ev := h.event(c)
	if kind == AgentLoop {
		ev.Timestamp = c.Time.Add(c.Duration)
	}
	return h.write(writing{c: c, ends: true, enter: true, ev: ev})
}

func (h *AuditTrailHook) wants(c *Context) bool {
	if h.only != nil && !h.only[c.Event] {
		return false
	}
	if c.Event.Kind() != ToolUse {
		return true
	}
	match := func(pattern string) bool {
		ok, _ := path.Match(pattern, c.Name) // patterns are checked
		return ok
	}
	return (len(h.opts.Tools) == 0 || slices.ContainsFunc(h.opts.Tools, match)) && !slices.ContainsFunc(h.opts.ExceptTools, match)
}

// event is the entry of an action, as far as c tells it.
func (h *AuditTrailHook) event(c *Context) audit.Event {
	n := c.Event.Kind().names()
	ev := h.bare(c, n.eventType)
	if c.open != nil && c.Name == c.open.told.Name {
		ev.Action = c.open.action
	} else {
		ev.Action = n.named(c.Name)
	}
	ev.DurationMS = float64(c.Duration.Microseconds()) / 1e3
	ev.Outputs = c.Outputs
	ok, outcome := c.success()
	ev.Outcome = outcome
	if !ok {
		ev.Success = &no
	}
	if c.Err != nil {
		ev.Error = new(errorText(c.Err))
	}
	if c.Event.Kind() == AgentLoop {
		ev.Inputs = audit.Object{} // they are in the entry of its start
		if c.Name != "" {
			ev.Action = n.action
		}
	}
	h.limit(&ev, c)
	return ev
}

// errorText is what an agent's error says.
func errorText(e error) (text string) {
	if p := guard(func() { text = valid(e.Error()) }); p != nil {
		return p.Error()
	}
	return text
}

// no is false. Nothing changes it.
var no = false

// beginning is the entry before an action.
func (h *AuditTrailHook) beginning(c *Context) audit.Event {
	n := c.Event.Kind().begun()
	ev := h.bare(c, n.eventType)
	ev.Action = n.action
	if c.Event.Kind() != AgentLoop {
		ev.Action = n.named(c.Name)
	}
	h.limit(&ev, c)
	return ev
}

func (h *AuditTrailHook) bare(c *Context, eventType string) audit.Event {
	return audit.Event{
		Timestamp: c.Time, EventType: eventType, AgentID: c.AgentID, TraceID: c.TraceID,
		SpanID: c.SpanID, ParentSpanID: c.ParentSpanID, Inputs: c.Inputs,
		Resource: c.Resource, Authority: c.Authority, Purpose: c.Purpose, Metadata: h.metadata(c),
	}
}

// metadata is the event's, with the hook's own. Where an action adds none it was
// encoded once for all actions of its context.
func (h *AuditTrailHook) metadata(c *Context) audit.Object {
	if c.meta == nil {
		if len(c.Metadata) == 0 {
			return audit.Of(h.base)
		}
		return audit.Of(merge(h.base, c.Metadata))
	}
	if e := c.meta.encoded.Load(); e != nil && e.hook == h {
		return e.text
	}
	o := audit.Of(merge(h.base, c.meta.values))
	if text, _, err := o.Checked(); err == nil {
		o = text
		c.meta.encoded.Store(&encodedMetadata{h, o})
	}
	return o
}

// limit leaves out what can't be kept, is too long, or is not wanted.
func (h *AuditTrailHook) limit(ev *audit.Event, c *Context) {
	for i, name := range [...]string{"inputs", "outputs", "resource", "authority"} {
		switch f := c.frozen[i]; {
		case f.bad != "":
			h.omit(ev, f.bad, name)
		case i == 0 && h.opts.OmitInputs, i == 1 && h.opts.OmitOutputs:
			h.omit(ev, "not recorded by choice", name)
		case i < 2 && h.opts.MaxValue > 0 && f.bytes > h.opts.MaxValue:
			h.omit(ev, "longer than "+strconv.Itoa(h.opts.MaxValue)+" bytes", name)
		}
	}
}

// omit works on a copy: an event of which nothing is left out stays off the heap.
func (h *AuditTrailHook) omit(ev *audit.Event, reason, member string) {
	heap := *ev
	h.trail.Omit(&heap, reason, member)
	*ev = heap
}

// writing is what one event asks to be written.
type writing struct {
	c            *Context
	ev           audit.Event
	enter        bool // the event becomes an entry
	begins, ends bool // the action is noted, or no more
	done         func(audit.Receipt)
}

// writer is a goroutine that writes for whoever waits for it, and is left behind by
// whoever has waited long enough.
type writer struct {
	h     *AuditTrailHook
	in    chan struct{}
	out   chan error // of one element
	timer *time.Timer
	state atomic.Int32
	writing
}

// States of a writer.
const (
	writing_ = iota // somebody waits for it
	written
	left
)

// atOnce tells whether something is written by whoever wants it: it is a write to
// a file, and the disk answers.
func (h *AuditTrailHook) atOnce(what *writing) bool {
	if !h.direct || h.behind.Load() > 0 || what.enter && !h.trail.WritesAtOnce() {
		return false
	}
	now := time.Now().UnixNano()
	if h.writing.Load() == 0 {
		h.answered.Store(now)
	}
	return now-h.answered.Load() < int64(h.opts.Timeout)
}

// write has something written and waits for it.
func (h *AuditTrailHook) write(what writing) error {
	if what.begins {
		h.mu.Lock()
		if len(h.open) < maxBegun {
			h.open[what.c.SpanID] = noted{c: what.c}
		}
		h.mu.Unlock()
	}
	if h.atOnce(&what) {
		h.writing.Add(1)
		err := h.do(&what)
		if h.writing.Load() > 1 { // else whoever comes next asks the clock
			h.answered.Store(time.Now().UnixNano())
		}
		h.writing.Add(-1)
		return err
	}
	if h.behind.Load() >= maxBehind {
		return h.account(&what, false, audit.Receipt{}, errBehind)
	}
	h.busy.Add(1)
	var w *writer
	select {
	case w = <-h.idle:
	default:
		w = &writer{h: h, in: make(chan struct{}, 1), out: make(chan error, 1), timer: time.NewTimer(time.Hour)}
		go w.run()
	}
	w.writing = what
	w.state.Store(writing_)
	w.in <- struct{}{}
	patience := h.opts.Timeout
	if !h.opts.FailClosed && h.behind.Load() > 0 {
		patience = shortWait
	}
	w.timer.Reset(patience)
	select {
	case err := <-w.out:
		w.timer.Stop()
		h.release(w)
		return err
	case <-w.timer.C:
	}
	h.behind.Add(1)
	if !w.state.CompareAndSwap(writing_, left) {
		h.behind.Add(-1)
		err := <-w.out
		h.release(w)
		return err
	}
	h.late.Add(1)
	h.failed.Store(true)
	err := errLate
	h.warn(err)
	if h.opts.FailClosed {
		return fmt.Errorf("%w: %w", ErrFailClosed, err)
	}
	return nil
}

var (
	errLate   = errors.New("the trail does not answer: the entry is written as soon as it does")
	errBehind = errors.New("the trail does not answer, and too many entries wait for it")
)

// release gives a writer back.
func (h *AuditTrailHook) release(w *writer) {
	w.writing = writing{}
	h.busy.Add(-1)
	if !h.closed.Load() {
		select {
		case h.idle <- w:
			return
		default:
		}
	}
	close(w.in)
}

func (w *writer) run() {
	for range w.in {
		err := w.h.do(&w.writing)
		if w.state.CompareAndSwap(writing_, written) {
			w.out <- err
			continue
		}
		w.h.behind.Add(-1)
		w.h.release(w)
	}
}

// do writes, whatever time it takes.
func (h *AuditTrailHook) do(what *writing) error {
	if what.begins {
		if err := h.putBegun(what.c); err != nil && h.opts.FailClosed {
			return fmt.Errorf("%w: note the beginning: %w", ErrFailClosed, err)
		}
	}
	if !what.enter {
		return nil
	}
	record := h.trail.Capture
	if h.opts.FailClosed {
		record = h.trail.RecordFact
	}
	r, err := record(context.Background(), what.ev)
	return h.account(what, r.EventID == "", r, err)
}

// account counts what became of an entry.
func (h *AuditTrailHook) account(what *writing, spooled bool, r audit.Receipt, err error) error {
	switch {
	case err == nil && !spooled:
		h.failed.Store(false)
		h.recorded.Add(1)
		h.tellLost(what.ev.AgentID)
	case err == nil:
		h.spooled.Add(1)
		h.warn(errSpooled)
	default:
		h.failed.Store(true)
		h.lost.Add(1)
		if !errors.Is(err, audit.ErrLossCounted) {
			h.untold.Add(1)
		}
		h.warn(fmt.Errorf("an entry is lost: %w", err))
		if what.ends && errors.Is(what.c.Err, ErrFailClosed) {
			h.takeBegun(what.c.SpanID) // it never began
		}
		if h.opts.FailClosed {
			return fmt.Errorf("%w: %w", ErrFailClosed, err)
		}
		return nil // a noted action stays noted: the next start tells of it
	}
	if what.ends {
		h.takeBegun(what.c.SpanID)
	}
	if what.done != nil && !spooled {
		what.done(r)
	}
	return nil
}

var errSpooled = errors.New("the trail does not take it: an entry waits in the spool")

// captureLost is the type of the entry that counts what was lost.
const captureLost = "CAPTURE_LOST"

// tellLost records how much was lost, now that the trail takes entries.
func (h *AuditTrailHook) tellLost(agent string) {
	if h.untold.Load() == 0 {
		return
	}
	n := h.untold.Swap(0)
	if n == 0 {
		return
	}
	_, err := h.trail.RecordFact(context.Background(), audit.Event{
		EventType: captureLost, AgentID: agent, Action: "capture_lost", Success: &no,
		Inputs: audit.Of(map[string]any{"count": n}), Metadata: audit.Of(h.base),
	})
	if err != nil {
		h.untold.Add(n)
	}
}

func (h *AuditTrailHook) warn(err error) {
	if h.opts.Warn != nil {
		_ = guard(func() { h.opts.Warn(err) })
	}
}

// slotText is the text for a slot, and its event.
type slotText struct {
	text []byte
	ev   audit.Event
}

var slotTexts = sync.Pool{New: func() any { return new(slotText) }}

// putBegun notes that an action has begun. It may come to it late, when the action
// has ended and its end is recorded: then there is nothing to note.
func (h *AuditTrailHook) putBegun(c *Context) error {
	h.mu.Lock()
	_, open := h.open[c.SpanID]
	many := !open && len(h.open) >= maxBegun
	h.mu.Unlock()
	var s slot
	err := errNowhere
	switch {
	case many:
		err = errManyBegun
	case !open:
		return nil
	case h.begun != nil:
		scratch := slotTexts.Get().(*slotText)
		var text []byte
		if text, err = h.unknownText(scratch, c); err == nil {
			scratch.text = text
			s, err = h.begun.put(text)
		}
		scratch.ev = audit.Event{}
		slotTexts.Put(scratch)
	}
	if err != nil {
		h.unnoted.Add(1)
		h.warn(fmt.Errorf("the beginning of an action is not noted: %w", err))
		return err
	}
	h.mu.Lock()
	if _, open = h.open[c.SpanID]; open {
		h.open[c.SpanID] = noted{c, s}
	}
	h.mu.Unlock()
	if !open {
		h.begun.take(s)
	}
	return nil
}

var errNowhere = errors.New("there is no place for it")

// unknownText is the event that is recorded if an action's end never comes,
// without what makes it longer than a slot.
func (h *AuditTrailHook) unknownText(scratch *slotText, c *Context) ([]byte, error) {
	ev := &scratch.ev
	*ev = h.event(c)
	for _, member := range []string{"", "inputs", "metadata", "resource", "authority"} {
		if member != "" {
			h.omit(ev, "longer than what is noted of an action that has begun", member)
		}
		text, notes, err := h.trail.AppendPending(scratch.text[:0], ev)
		if err == nil && len(notes) > 0 {
			text = append(append(text, notesAfter...), notes...)
		}
		if err == nil && len(text) < slotBytes {
			return append(text, '\n'), nil
		}
	}
	return nil, errors.New("its names are too long")
}

// notesAfter parts an event's text in a slot from what the policy did to it. There
// is no such character in JSON text as we write it.
const notesAfter = "\t"

// takeBegun: the action's end is safe.
func (h *AuditTrailHook) takeBegun(span string) {
	h.mu.Lock()
	n, ok := h.open[span]
	delete(h.open, span)
	h.mu.Unlock()
	if ok && n.slot.number > 0 {
		h.begun.take(n.slot)
	}
	if other := h.replaced.Load(); !ok && other != nil {
		other.takeBegun(span)
	}
}

// tellAbandoned records what a process that is gone had begun.
func (h *AuditTrailHook) tellAbandoned(file string, texts [][]byte) error {
	events := make([]audit.Event, len(texts))
	open := map[string]string{} // event types by span
	since := time.Now()
	for i, text := range texts {
		ev, known := abandonedEvent(file, i, text, h.trail.ParsePending)
		if events[i] = ev; known {
			open[ev.SpanID] = ev.EventType
			if ev.Timestamp.Before(since) {
				since = ev.Timestamp
			}
		}
	}
	if err := h.forgetEnded(open, since); err != nil {
		h.warn(fmt.Errorf("whether what was begun before has ended: %w", err))
	}
	for _, ev := range events {
		if _, still := open[ev.SpanID]; ev.SpanID != "" && !still {
			continue
		}
		if err := h.captureUnknown(ev); err != nil {
			return err
		}
	}
	return nil
}

// abandonedEvent reads what was noted. After a power failure it may be anything:
// that there was an action is all that is known then.
func abandonedEvent(file string, slot int, text []byte, parse func(text, notes []byte) (audit.Event, error)) (ev audit.Event, known bool) {
	text, notes, _ := bytes.Cut(text, []byte(notesAfter))
	ev, err := parse(text, notes)
	if err != nil || ev.SpanID == "" || len(ev.SpanID) > 64 || ev.TraceID == "" {
		ev = audit.Event{EventType: "HOOK_ACTION", AgentID: agentUnspecified, Action: "unknown"}
		ev.IdempotencyKey = "hook:unknown:" + file + ":" + strconv.Itoa(slot)
		return ev, false
	}
	ev.IdempotencyKey = unknownKey(ev.SpanID)
	return ev, true
}

// unknownKey has an action told as unknown once, whoever finds it.
func unknownKey(span string) string { return "hook:unknown:" + span }

func (h *AuditTrailHook) captureUnknown(ev audit.Event) error {
	ev.Success, ev.Outcome, ev.DurationMS = &no, unknown, 0
	r, err := h.trail.Capture(context.Background(), ev)
	return h.account(&writing{ev: ev}, r.EventID == "", r, err)
}

// forgetEnded removes the actions whose end is in the trail: a process may die
// between an action's entry and the end of its note.
func (h *AuditTrailHook) forgetEnded(open map[string]string, since time.Time) error {
	if len(open) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(audit.WithTrailItself(context.Background()), checkTime)
	defer cancel()
	types := slices.Compact(slices.Sorted(maps.Values(open)))
	var errs []error
	for e, err := range h.trail.Query(ctx, audit.Query{EventTypes: types, Since: since.Truncate(time.Millisecond)}) {
		if err != nil {
			errs = append(errs, err)
		} else if open[e.SpanID] == e.EventType {
			delete(open, e.SpanID)
		}
	}
	return errors.Join(errs...)
}

// Close records what has begun and not ended, with the outcome unknown, and waits
// at most 5 s for what is still being written. Whatever can't be recorded by then
// the next start tells. A trail that the hook has opened is closed, no other.
func (h *AuditTrailHook) Close() error {
	if h.closed.Swap(true) {
		return nil
	}
	deadline := time.Now().Add(closeWait)
	for h.busy.Load() > 0 && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	h.setups.stop()
	h.mu.Lock()
	open := make([]*Context, 0, len(h.open))
	for _, n := range h.open {
		open = append(open, n.c)
	}
	h.mu.Unlock()
	slices.SortFunc(open, func(a, b *Context) int { return a.Time.Compare(b.Time) })
	keep := h.behind.Load() > 0
	for _, c := range open {
		if keep {
			break
		}
		ev := h.event(c)
		ev.Success, ev.Outcome, ev.DurationMS = &no, unknown, float64(time.Since(c.Time).Microseconds())/1e3
		ev.IdempotencyKey = unknownKey(c.SpanID)
		_ = h.write(writing{c: c, ends: true, enter: true, ev: ev})
	}
	for {
		select {
		case w := <-h.idle:
			close(w.in)
			continue
		default:
		}
		break
	}
	h.mu.Lock()
	keep = keep || len(h.open) > 0
	h.mu.Unlock()
	var err error
	if keep {
		err = errors.New("audit trail hook: not everything is recorded: the next start tells of what has begun")
	}
	if h.begun != nil {
		err = errors.Join(err, h.begun.close(keep))
	}
	if h.close != nil {
		err = errors.Join(err, h.close())
	}
	return err
}
