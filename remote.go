package audit

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"crypto/rand"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/socket"
)

const (
	// holderWait is how long an opening waits for the socket of a holder that
	// says it has one: it may be about to listen, or to let go of the lock.
	holderWait = 2 * time.Second
	// takeOverWait is how long a Record waits for another holder, or for this
	// process to become it, before it gives up.
	takeOverWait = 10 * time.Second
	// The pauses between two attempts.
	firstPause, longestPause = time.Millisecond, 10 * time.Millisecond
)

// remote records through the process that holds the trail. When that is gone
// this process takes the lock, and is the holder from then on, or finds the
// next one.
type remote struct {
	trail   *Trail
	closing chan struct{}

	mu     sync.Mutex // held while a holder is looked for
	client *socket.Client
}

// openRemote opens a trail that another process holds; locked says who.
func (t *Trail) openRemote(locked error) error {
	var l *lockedError
	if !errors.As(locked, &l) || !l.shares || t.opts.fs != durable.OS || t.opts.NoSocket || t.opts.MustHold || t.opts.successor != nil || t.opts.adopt {
		return locked
	}
	r := &remote{trail: t, closing: make(chan struct{})}
	t.remote.Store(r)
	ctx, cancel := context.WithTimeout(context.Background(), cmp.Or(t.opts.patience, holderWait))
	defer cancel()
	if _, err := r.holder(ctx, nil); err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = locked
		}
		return err
	}
	if t.holds() {
		return nil
	}
	for _, o := range []struct {
		name string
		set  bool
	}{{"CheckpointTo", len(t.opts.CheckpointTo) > 0}, {"Group", t.opts.Group != ""}, {"AppendOnly", t.opts.AppendOnly != ""}, {"SocketGroup", t.opts.SocketGroup != ""}} {
		if o.set {
			t.warn(fmt.Errorf("option %s is its holder's to set as long as %w", o.name, locked))
		}
	}
	return t.openReader()
}

// holder gives the connection to the holder, another one than bad, or nil when
// this process has become the holder.
func (r *remote) holder(ctx context.Context, bad *socket.Client) (*socket.Client, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.trail.holds() {
		return nil, nil
	}
	if r.client != nil && r.client != bad {
		return r.client, nil
	}
	if r.client != nil {
		_ = r.client.Close()
		r.client = nil
	}
	ctx, cancel := context.WithTimeout(ctx, takeOverWait)
	defer cancel()
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		err := r.trail.openWriter()
		if err == nil {
			r.trail.remote.Store(nil)
			return nil, nil
		}
		r.trail.release()
		if !errors.Is(err, ErrLocked) {
			return nil, err
		}
		c, err := r.dial(ctx)
		if err == nil {
			r.client = c
			return c, nil
		}
		if errors.Is(err, ErrPinned) {
			return nil, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, fmt.Errorf("no holder of the trail answers: %w (the last attempt: %w)", ctx.Err(), err)
		case <-r.closing:
			return nil, ErrClosed
		}
	}
}

// dial connects to whoever listens, if that is this trail's holder.
func (r *remote) dial(ctx context.Context) (*socket.Client, error) {
	c, err := socket.Dial(ctx, r.trail.dir, socket.Durability(r.trail.opts.Durability.String()))
	if err != nil {
		return nil, err
	}
	info, err := c.Info(ctx)
	if err == nil && r.trail.id.Origin != "" && info.Origin != r.trail.id.Origin {
		err = fmt.Errorf("%w: the holder has %s, and it was %s when this process opened it", ErrPinned, info.Origin, r.trail.id.Origin)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// newIdempotencyKey is a key for an event whose caller gave none, so that it
// can be sent again.
func newIdempotencyKey() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// prepare gives an event a key if it has none, and encodes it.
func (r *remote) prepare(ev *Event) ([]byte, error) {
	if ev.IdempotencyKey == "" {
		ev.IdempotencyKey = newIdempotencyKey()
		if ev.Timestamp.IsZero() { // with the caller's key its own repetition must be the same event
			ev.Timestamp = r.trail.clock.now()
		}
	}
	line, err := entry.AppendEvent(nil, ev)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return line, nil
}

func (r *remote) record(ctx context.Context, ev *Event) (Receipt, error) {
	line, err := r.prepare(ev)
	if err != nil {
		return Receipt{}, err
	}
	var bad *socket.Client
	for {
		c, err := r.holder(ctx, bad)
		switch {
		case err != nil:
			return Receipt{}, err
		case c == nil:
			return r.trail.Record(ctx, *ev)
		}
		receipt, err := c.Record(ctx, line)
		if !tryNext(err) {
			return receipt, explainRemote(err)
		}
		bad = c
	}
}

func (r *remote) recordBatch(ctx context.Context, events []Event, receipts []Receipt, fail func(int, error)) {
	var waiting []int
	var lines [][]byte
	for i := range events {
		line, err := r.prepare(&events[i])
		if err != nil {
			fail(i, err)
			continue
		}
		waiting, lines = append(waiting, i), append(lines, line)
	}
	var bad *socket.Client
	for len(waiting) > 0 {
		c, err := r.holder(ctx, bad)
		if err == nil && c == nil {
			left := make([]Event, len(waiting))
			for k, i := range waiting {
				left[k] = events[i]
			}
			got := make([]Receipt, len(left))
			r.trail.recordBatch(ctx, left, nil, got, func(k int, err error) { fail(waiting[k], err) })
			for k, i := range waiting {
				receipts[i] = got[k]
			}
			return
		}
		if err != nil {
			for _, i := range waiting {
				fail(i, err)
			}
			return
		}
		results := c.RecordBatch(ctx, lines)
		n := 0
		for k, i := range waiting {
			switch err := results[k].Err; {
			case err == nil:
				receipts[i] = results[k].Receipt
			case tryNext(err):
				waiting[n], lines[n] = i, lines[k]
				n++
			default:
				fail(i, explainRemote(err))
			}
		}
		waiting, lines, bad = waiting[:n], lines[:n], c
	}
}

// noteRead has a reading recorded by the holder.
func (r *remote) noteRead(ctx context.Context, o ownEntry) error {
	reading, err := readingOf(o)
	if err != nil {
		return err
	}
	var bad *socket.Client
	for {
		c, err := r.holder(ctx, bad)
		switch {
		case err != nil:
			return err
		case c == nil:
			return r.trail.recordOwn(ctx, o)
		}
		_, err = c.NoteReading(ctx, reading)
		if !tryNext(err) {
			return explainRemote(err)
		}
		bad = c
	}
}

func readingOf(o ownEntry) (socket.Reading, error) {
	inputs, err := Of(o.inputs).AppendJSON(nil)
	if err != nil {
		return socket.Reading{}, err
	}
	outputs, err := Of(o.outputs).AppendJSON(nil)
	return socket.Reading{EventType: o.eventType, Action: o.action, Inputs: json.RawMessage(inputs), Outputs: json.RawMessage(outputs)}, err
}

// close ends the connection. It reports true when this process has become the
// holder meanwhile.
func (r *remote) close() (holds bool, err error) {
	close(r.closing)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.trail.holds() {
		return true, nil
	}
	if r.client != nil {
		err = r.client.Close()
	}
	return false, err
}

// tryNext tells the errors after which an event is taken to the next holder:
// with its key that is safe.
func tryNext(err error) bool {
	var e *socket.Error
	return errors.Is(err, socket.ErrGone) || errors.As(err, &e) && (e.Code == socket.Closed || e.Code == socket.Busy)
}

// explainRemote gives the holder's errors their public names.
func explainRemote(err error) error {
	if err == nil {
		return nil
	}
	var e *socket.Error
	if !errors.As(err, &e) {
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("%w: %w", ErrUnknown, err)
		}
		return err
	}
	for code, is := range publicErrors {
		if e.Code == code {
			return &remoteError{is, e.Message}
		}
	}
	return fmt.Errorf("the trail's holder: %w", err)
}

// publicErrors are what codes of the protocol mean here.
var publicErrors = map[socket.Code]error{
	socket.Refused: ErrRefused, socket.Conflict: ErrConflict, socket.Full: ErrFull, socket.Closed: ErrClosed,
	socket.Stopped: ErrStopped, socket.Unknown: ErrUnknown, socket.NotFound: ErrNotFound,
}

// remoteError says it in the holder's words and is the public error.
type remoteError struct {
	is   error
	text string
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.is }
