package hook

import (
	"context"
	"fmt"
	"iter"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/internal/pin"
)

// OpenAuditTrailHook opens the trail at path, as audit.Open does, and makes a hook
// that closes it. Unless FailClosed is set, a trail that can't be opened now (it is
// locked, full, damaged, or not for this user) is no reason for an agent not to
// run: Warn is told, what happens goes to the trail's spool, and about once a
// second the trail is tried again. Until then nothing is compared with it or told
// of what a crash has left, and what is left out of entries has no mac.
func OpenAuditTrailHook(path string, trailOptions *audit.Options, opts *AuditOptions) (*AuditTrailHook, error) {
	trail, err := audit.Open(path, trailOptions)
	if err == nil {
		h, err := NewAuditTrailHook(trail, opts)
		if err != nil {
			_ = trail.Close()
			return nil, err
		}
		h.close = trail.Close
		return h, nil
	}
	if opts != nil && opts.FailClosed {
		return nil, err
	}
	if opts == nil {
		opts = &AuditOptions{}
	}
	if opts.Warn != nil {
		opts.Warn(err)
	}
	late, err := newLateTrail(path, trailOptions, err)
	if err != nil {
		return nil, err
	}
	h, err := newAuditTrailHook(late, opts)
	if err != nil {
		return nil, err
	}
	h.close = late.Close
	return h, nil
}

// recording is what a hook needs of a trail.
type recording interface {
	Path() string
	StateDir() string
	WritesAtOnce() bool
	Omit(ev *audit.Event, reason string, members ...string)
	AppendPending(dst []byte, ev *audit.Event) (text, notes []byte, err error)
	ParsePending(text, notes []byte) (audit.Event, error)
	Capture(context.Context, audit.Event) (audit.Receipt, error)
	RecordFact(context.Context, audit.Event) (audit.Receipt, error)
	Query(context.Context, audit.Query) iter.Seq2[audit.Entry, error]
}

// openInterval is how far two attempts to open a trail lie apart.
const openInterval = time.Second

// lateTrail is a trail that can't be opened yet.
type lateTrail struct {
	path string
	opts audit.Options
	open atomic.Pointer[audit.Trail]

	mu     sync.Mutex
	tried  time.Time
	err    error
	closed bool
}

func newLateTrail(path string, opts *audit.Options, err error) (*lateTrail, error) {
	l := &lateTrail{tried: time.Now(), err: err}
	if opts != nil {
		l.opts = *opts
	}
	var abs error
	if l.path, abs = filepath.Abs(path); abs != nil {
		return nil, fmt.Errorf("open %s: %w", path, abs)
	}
	// As the trail resolves it, so that its name is the same in the state directory.
	if to, err := filepath.EvalSymlinks(l.path); err == nil {
		l.path = to
	} else if dir, err := filepath.EvalSymlinks(filepath.Dir(l.path)); err == nil {
		l.path = filepath.Join(dir, filepath.Base(l.path))
	}
	return l, nil
}

// trail gives the trail, or why it can't be opened. Who finds somebody else at it
// does not wait.
func (l *lateTrail) trail() (*audit.Trail, error) {
	if t := l.open.Load(); t != nil {
		return t, nil
	}
	if !l.mu.TryLock() {
		return nil, audit.ErrLocked
	}
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return nil, audit.ErrClosed
	case l.open.Load() == nil && time.Since(l.tried) >= openInterval:
		var t *audit.Trail
		if t, l.err = audit.Open(l.path, &l.opts); l.err == nil {
			l.open.Store(t)
		}
		l.tried = time.Now()
	}
	return l.open.Load(), l.err
}

func (l *lateTrail) Path() string { return l.path }

func (l *lateTrail) StateDir() string {
	if l.opts.StateDir != "" {
		return l.opts.StateDir
	}
	return pin.DefaultDir()
}

func (l *lateTrail) WritesAtOnce() bool {
	t := l.open.Load()
	return t != nil && t.WritesAtOnce()
}

func (l *lateTrail) Omit(ev *audit.Event, reason string, members ...string) {
	if t := l.open.Load(); t != nil {
		t.Omit(ev, reason, members...)
		return
	}
	ev.Omit(reason, nil, members...)
}

func (l *lateTrail) AppendPending(dst []byte, ev *audit.Event) (text, notes []byte, err error) {
	if t := l.open.Load(); t != nil {
		return t.AppendPending(dst, ev)
	}
	return audit.AppendPending(dst, l.path, &l.opts, ev)
}

func (l *lateTrail) ParsePending(text, notes []byte) (audit.Event, error) {
	if t := l.open.Load(); t != nil {
		return t.ParsePending(text, notes)
	}
	return audit.ParsePending(l.path, &l.opts, text, notes)
}

func (l *lateTrail) Capture(ctx context.Context, ev audit.Event) (audit.Receipt, error) {
	if t, err := l.trail(); err == nil {
		return t.Capture(ctx, ev)
	}
	return audit.Receipt{}, audit.Capture(ctx, l.path, &l.opts, ev)
}

func (l *lateTrail) RecordFact(ctx context.Context, ev audit.Event) (audit.Receipt, error) {
	t, err := l.trail()
	if err != nil {
		return audit.Receipt{}, err
	}
	return t.RecordFact(ctx, ev)
}

func (l *lateTrail) Query(ctx context.Context, q audit.Query) iter.Seq2[audit.Entry, error] {
	t, err := l.trail()
	if err != nil {
		return func(yield func(audit.Entry, error) bool) { yield(audit.Entry{}, err) }
	}
	return t.Query(ctx, q)
}

func (l *lateTrail) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if t := l.open.Load(); t != nil {
		return t.Close()
	}
	return nil
}
