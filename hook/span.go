package hook

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/entry"
)

// action is an action that was begun. It is the context of what happens in it.
type action struct {
	context.Context         // in which it was begun
	told            Context // before it
	over            Context // after it; set once, by whoever ends it
	ended           atomic.Bool
	agent           string         // of what happens in it
	outer           string         // somebody else's span in which it was begun
	action          string         // of its entry
	own             map[string]any // metadata that was given with it
}

type actionKey struct{}

func (a *action) Value(key any) any {
	if key == (actionKey{}) {
		return a
	}
	return a.Context.Value(key)
}

func actionOf(ctx context.Context) *action {
	a, _ := ctx.Value(actionKey{}).(*action)
	return a
}

// find gives the innermost action of a kind that ctx carries, nil where it has
// ended, and whether there is one.
func find(ctx context.Context, k Kind) (open *action, known bool) {
	for a := actionOf(ctx); a != nil; a = actionOf(a.Context) {
		if a.told.Event.Kind() == k {
			if a.ended.Load() {
				return nil, true
			}
			return a, true
		}
	}
	return nil, false
}

// WithParent makes what happens below ctx part of a trace that was begun
// elsewhere, in another process say: traceID has 32 lower-case hex digits and
// spanID, which may be empty, 16 (W3C Trace Context); longer or other ids are taken
// as they are.
func WithParent(ctx context.Context, traceID, spanID string) context.Context {
	a := &action{Context: ctx, told: Context{TraceID: traceID, SpanID: spanID}}
	if enclosing := actionOf(ctx); enclosing != nil {
		a.agent = enclosing.agent
	}
	return a
}

// SpanOf gives the trace and the action that ctx belongs to, "" where there is
// none: for handing them on to another process.
func SpanOf(ctx context.Context) (traceID, spanID string) {
	if a := actionOf(ctx); a != nil {
		return a.told.TraceID, a.told.SpanID
	}
	return "", ""
}

// begin makes the action that an event begins.
func (m *Manager) begin(ctx context.Context, event Event, d *Data) *action {
	a := &action{Context: ctx}
	c := &a.told
	c.Event, c.Data, c.open, c.Time, c.SpanID = event, *d, a, time.Now(), newSpanID()
	a.outer = m.place(ctx, c)
	c.freeze()
	if len(c.Metadata) > 0 {
		a.own = merge(nil, c.Metadata)
	}
	c.setMetadata(ctx, a.own)
	a.agent, a.action = c.AgentID, event.Kind().names().named(c.Name)
	return a
}

// once makes what is told of an action that was never begun.
func (m *Manager) once(ctx context.Context, event Event, d *Data) *Context {
	c := &Context{Event: event, Data: *d, SpanID: newSpanID(), Time: time.Now().Add(-max(d.Duration, 0))}
	m.place(ctx, c)
	c.freeze()
	c.setMetadata(ctx, c.Metadata)
	return c
}

// place finds out whose action it is and where it belongs. It gives somebody
// else's span in which it is.
func (m *Manager) place(ctx context.Context, c *Context) string {
	trace, outer := m.spanContext(ctx, c.Event)
	if enclosing := actionOf(ctx); enclosing != nil {
		c.TraceID, c.ParentSpanID = enclosing.told.TraceID, enclosing.told.SpanID
		if c.AgentID == "" {
			c.AgentID = enclosing.agent
		}
		// What somebody else has begun in between has no entry to hang from: it is
		// named, so that it can be found there.
		if outer != "" && outer != enclosing.outer && outer != c.ParentSpanID {
			c.Metadata = merge(c.Metadata, map[string]any{"otel_trace_id": trace, "otel_span_id": outer})
		}
	} else if trace != "" {
		c.TraceID, c.ParentSpanID = trace, outer
	}
	if c.TraceID == "" {
		c.TraceID = entry.NewTraceID()
	}
	if c.AgentID == "" {
		c.AgentID = m.AgentID
	}
	if c.AgentID == "" {
		c.AgentID = agentUnspecified
	}
	c.TraceID, c.ParentSpanID = valid(c.TraceID), valid(c.ParentSpanID)
	return outer
}

// end makes what is told after the action.
func (a *action) end(ctx context.Context, event Event, d *Data) {
	c := &a.over
	*c = a.told
	c.Event, c.Duration, c.Err = event, max(time.Since(c.Time), 0), d.Err
	c.Name = cmp.Or(valid(d.Name), c.Name)
	c.Outcome = cmp.Or(valid(d.Outcome), c.Outcome)
	c.Purpose = cmp.Or(valid(d.Purpose), c.Purpose)
	for i, f := range [...]struct{ to, from *audit.Object }{
		{&c.Inputs, &d.Inputs}, {&c.Outputs, &d.Outputs}, {&c.Resource, &d.Resource}, {&c.Authority, &d.Authority},
	} {
		if !f.from.IsZero() {
			*f.to = *f.from
			c.frozen[i] = freeze(f.to)
		}
	}
	c.setMetadata(ctx, a.own, d.Metadata)
}

// setMetadata gives the event the context's metadata and what there is of its own.
func (c *Context) setMetadata(ctx context.Context, own ...map[string]any) {
	carried := metadataOf(ctx)
	for _, m := range own {
		if len(m) > 0 {
			c.meta, c.Metadata = nil, merge(carried.all(), own...)
			return
		}
	}
	c.meta, c.Metadata = carried, carried.all()
}

// valid is a text that an entry can hold.
func valid(s string) string { return strings.ToValidUTF8(s, "\ufffd") }

// freeze makes texts valid and takes copies of the objects: the agent may go on to
// use them, and a hook may be left behind with them.
func (c *Context) freeze() {
	c.Name, c.AgentID, c.Outcome, c.Purpose = valid(c.Name), valid(c.AgentID), valid(c.Outcome), valid(c.Purpose)
	for i, o := range [...]*audit.Object{&c.Inputs, &c.Outputs, &c.Resource, &c.Authority} {
		if !o.IsZero() {
			c.frozen[i] = freeze(o)
		}
	}
}

// frozenObject is what is known of an object of which a copy was taken: the
// length of its text, or why it has none.
type frozenObject struct {
	bytes int
	bad   string
}

func freeze(o *audit.Object) frozenObject {
	c, bytes, err := checked(*o)
	if err != nil {
		if _, panicked := err.(*PanicError); panicked {
			*o = audit.Of(unreadable) // nobody asks it again
		}
		return frozenObject{bad: err.Error()}
	}
	*o = c
	return frozenObject{bytes: bytes}
}

// checked takes a copy of an agent's value, which may have code of its own.
func checked(o audit.Object) (c audit.Object, bytes int, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &PanicError{p, nil}
		}
	}()
	return o.Checked()
}

// unreadable is a value that has no JSON text.
var unreadable = func() {}

// newSpanID makes a span id as W3C Trace Context has it: 16 lower-case hex digits,
// random and not all zero.
func newSpanID() string {
	spans.Lock()
	defer spans.Unlock()
	for {
		if spans.left == 0 {
			_, _ = rand.Read(spans.buf[:]) // never fails
			spans.left = len(spans.buf)
		}
		id := [8]byte(spans.buf[spans.left-8:])
		spans.left -= 8
		if id != [8]byte{} {
			var text [16]byte
			hex.Encode(text[:], id[:])
			return string(text[:])
		}
	}
}

// spans is randomness, fetched some at a time.
var spans struct {
	sync.Mutex
	buf  [1024]byte
	left int
}
