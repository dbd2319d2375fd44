package hook

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/internal/reentry"
)

// Hook hears of events.
type Hook interface {
	// Name is what errors call it.
	Name() string
	// Events are those that it wants to hear of; none means all.
	Events() []Event
	// Handle is told of one event, and should return when ctx ends. An error is
	// counted and told; one that wraps ErrFailClosed also fails the agent's
	// action.
	Handle(ctx context.Context, c *Context) error
}

// Priority orders the hooks of an event: the lowest runs first, and of equal
// ones the first that was registered.
type Priority int

// Documented priorities.
const (
	Critical Priority = iota - 2
	High
	Normal
	Low
)

// DefaultTimeout is how long one call of a hook may take: hooks run one after the
// other, and it is an agent's user who waits.
const DefaultTimeout = 500 * time.Millisecond

// maxStuck is how many calls of one hook may be left behind, running, before it
// is not called any more until one of them returns.
const maxStuck = 64

// Registration says how a hook is run. nil is a good default.
type Registration struct {
	Priority Priority
	// Timeout is how long one call may take; 0 means DefaultTimeout. A hook that
	// takes longer is left behind.
	Timeout time.Duration
}

// ErrFailClosed is in the error of a hook that wants the agent's action to fail.
var ErrFailClosed = errors.New("the action must not go on")

// Errors of hooks that are told to Manager.OnError.
var (
	// ErrTimeout: the hook did not return in time and was left behind.
	ErrTimeout = errors.New("hook timed out")
	// ErrStuck: too many calls of the hook were left behind, so it was not
	// called.
	ErrStuck = errors.New("hook does not return")
)

// Error says which hook failed, and at what.
type Error struct {
	Hook  string
	Event Event
	Err   error
}

func (e *Error) Error() string { return fmt.Sprintf("hook %s: %s: %v", e.Hook, e.Event, e.Err) }

// Unwrap gives the error.
func (e *Error) Unwrap() error { return e.Err }

// Manager runs hooks. The zero Manager is ready for use, and so is a nil one,
// which has no hooks. Its fields are set before its first use.
type Manager struct {
	// AgentID is the agent of events that name none and have none around them.
	AgentID string
	// SpanContext gives the trace and the span that a context belongs to
	// according to somebody else, OpenTelemetry say: 32 and 16 lower-case hex
	// digits, or "" where there is none. An outermost action takes the trace and
	// becomes a child of the span.
	SpanContext func(context.Context) (traceID, spanID string)
	// OnError is told of every failure of a hook: its error, ErrTimeout,
	// ErrStuck, or a panic; also of a panic of SpanContext. It may be called from any goroutine; nil means that
	// failures are only counted.
	OnError func(*Error)

	mu       sync.Mutex
	hooks    atomic.Pointer[[]*registered] // by priority
	failures atomic.Int64
}

// registered is a hook with what it wants.
type registered struct {
	hook   Hook
	events map[Event]bool // nil: all
	how    Registration
	stuck  atomic.Int64
}

// RegisterHook adds a hook for the events that it names. Of two
// AuditTrailHooks for one trail the later takes the earlier's place, so that
// each action is recorded once; any other hook that is there already is an error.
func (m *Manager) RegisterHook(h Hook, how *Registration) error {
	if h == nil {
		return errors.New("register hook: it is nil")
	}
	r := &registered{hook: h}
	if how != nil {
		r.how = *how
	}
	if r.how.Timeout < 0 {
		return fmt.Errorf("register hook %s: option Timeout: %s is negative", h.Name(), r.how.Timeout)
	}
	r.how.Timeout = cmp.Or(r.how.Timeout, DefaultTimeout)
	if events := h.Events(); len(events) > 0 {
		r.events = make(map[Event]bool, len(events))
		for _, e := range events {
			r.events[e] = true
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	hooks := slices.Clone(m.registered())
	for i, other := range hooks {
		if takesThePlace(h, other.hook) {
			hooks = slices.Delete(hooks, i, i+1)
			break
		}
		if _, f := h.(*function); !f && other.hook == h {
			return fmt.Errorf("register hook %s: it is registered already", h.Name())
		}
	}
	hooks = append(hooks, r)
	slices.SortStableFunc(hooks, func(a, b *registered) int { return cmp.Compare(a.how.Priority, b.how.Priority) })
	m.hooks.Store(&hooks)
	return nil
}

// Register has f called for one event.
func (m *Manager) Register(event Event, f func(context.Context, *Context) error, how *Registration) error {
	switch {
	case event == "":
		return errors.New("register: there is no event")
	case f == nil:
		return fmt.Errorf("register %s: there is no function", event)
	}
	return m.RegisterHook(&function{event, f}, how)
}

// function is a hook for one event.
type function struct {
	event Event
	f     func(context.Context, *Context) error
}

func (f *function) Name() string                                 { return "function" }
func (f *function) Events() []Event                              { return []Event{f.event} }
func (f *function) Handle(ctx context.Context, c *Context) error { return f.f(ctx, c) }

func (m *Manager) registered() []*registered {
	if hooks := m.hooks.Load(); hooks != nil {
		return *hooks
	}
	return nil
}

// Failures is how often a hook has failed, panicked or timed out.
func (m *Manager) Failures() int64 { return m.failures.Load() }

// Trigger tells the hooks of an event.
//
// An event before an action begins it: the context that is returned carries the
// action and is for everything that belongs to it, the event after it included.
// An event after an action ends the innermost one of its kind that ctx carries,
// and the context that is returned is the one in which it was begun. An action
// ends once: a second end is passed over. What never was begun is told as it is.
//
// The error is nil, or one that wraps ErrFailClosed: then an action must not be
// begun, or has failed. The end of ctx does not keep hooks from being told.
func (m *Manager) Trigger(ctx context.Context, event Event, d Data) (context.Context, error) {
	if m == nil || len(m.registered()) == 0 {
		return ctx, nil
	}
	if event.begins() {
		a := m.begin(ctx, event, &d)
		err := m.tell(a, &a.told)
		if err != nil {
			// Whoever was told that it begins is told that it came to nothing.
			a.ended.Store(true)
			a.end(ctx, event.Kind().Post(), &Data{Err: err})
			_ = m.tell(ctx, &a.over)
			return ctx, err
		}
		return a, nil
	}
	a, known := find(ctx, event.Kind())
	switch {
	case a != nil && a.ended.CompareAndSwap(false, true):
		a.end(ctx, event, &d)
		return a.Context, m.tell(ctx, &a.over)
	case known:
		return ctx, nil
	}
	c := m.once(ctx, event, &d)
	return ctx, m.tell(ctx, c)
}

// Do runs f as an action: the hooks are told before and after it. ctx of f carries
// the action. What f returns becomes the outputs, unless it is nil. A panic of f is
// told as the action's error and goes on. If a hook fails the action f is not run,
// or what it has returned is lost to that error.
func (m *Manager) Do(ctx context.Context, kind Kind, d Data, f func(context.Context) (any, error)) (out any, err error) {
	inner, err := m.Trigger(ctx, kind.Pre(), d)
	if err != nil {
		return nil, err
	}
	returned := false
	defer func() {
		after := Data{Outputs: audit.Of(out), Err: err}
		if !returned {
			after.Err = errPanic
		}
		if _, failed := m.Trigger(inner, kind.Post(), after); failed != nil && returned {
			out, err = nil, errors.Join(err, failed)
		}
	}()
	out, err = f(inner)
	returned = true
	return out, err
}

// errPanic says that an action panicked. What it panicked with may be anything,
// and the program may end before anybody has read it here.
var errPanic = errors.New("panic")

// tell runs the hooks of an event, in order.
func (m *Manager) tell(ctx context.Context, c *Context) error {
	var failed error
	for _, r := range m.registered() {
		if r.events != nil && !r.events[c.Event] {
			continue
		}
		err := r.run(ctx, c)
		if err == nil {
			continue
		}
		e := &Error{r.hook.Name(), c.Event, err}
		if errors.Is(err, ErrFailClosed) {
			failed = errors.Join(failed, e)
		}
		m.failed(e)
	}
	return failed
}

// failed counts and tells a failure.
func (m *Manager) failed(e *Error) {
	m.failures.Add(1)
	if m.OnError != nil {
		_ = guard(func() { m.OnError(e) })
	}
}

// spanContext asks SpanContext, which is the agent's.
func (m *Manager) spanContext(ctx context.Context, event Event) (trace, span string) {
	if m.SpanContext == nil {
		return "", ""
	}
	if err := guard(func() { trace, span = m.SpanContext(ctx) }); err != nil {
		m.failed(&Error{"span context", event, err})
	}
	return trace, span
}

// guard makes an error of a panic in somebody else's code.
func guard(f func()) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &PanicError{p, debug.Stack()}
		}
	}()
	reentry.Guard(f)
	return nil
}

// bounded is a hook that returns in time by itself.
type bounded interface{ returnsInTime() }

// run calls a hook and waits for it, as long as it may take.
func (r *registered) run(ctx context.Context, c *Context) error {
	if _, ok := r.hook.(bounded); ok {
		return call(ctx, r.hook, c)
	}
	if r.stuck.Add(1) > maxStuck {
		r.stuck.Add(-1)
		return ErrStuck
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.how.Timeout)
	done := make(chan error, 1)
	go func() {
		defer r.stuck.Add(-1)
		done <- call(ctx, r.hook, c)
	}()
	defer cancel()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		select {
		case err := <-done:
			return err
		default:
			return ErrTimeout
		}
	}
}

// call makes an error of a panic.
func call(ctx context.Context, h Hook, c *Context) (err error) {
	if p := guard(func() { err = h.Handle(ctx, c) }); p != nil {
		return p
	}
	return err
}

// PanicError is the panic of a hook, or of what an agent has handed over.
type PanicError struct {
	Value any
	Stack []byte
}

// Error says that there was a panic and of what type: its value may be anybody's.
func (e *PanicError) Error() string { return fmt.Sprintf("panic (%T)", e.Value) }
