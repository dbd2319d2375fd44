package audit

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/advice"
	"github.com/kaizen-audit/kaizen-audit/internal/pin"
	"github.com/kaizen-audit/kaizen-audit/internal/socket"
	"github.com/kaizen-audit/kaizen-audit/internal/spool"
)

const (
	// holderWait is how long an opening waits for the socket of a holder that
	// says it has one: it may be about to listen, or to let go of the lock.
	holderWait = 2 * time.Second
	// takeOverWait is how long a Record goes on to look for a holder that takes
	// it, or to become it, before it gives up.
	takeOverWait = 10 * time.Second
	// The pauses between two attempts.
	firstPause, longestPause = time.Millisecond, 10 * time.Millisecond
	// tellInterval is how far two messages about refused events lie apart.
	tellInterval = time.Second
)

// remote records through the process that holds the trail. When that is gone
// this process takes the lock, and is the holder from then on, or finds the
// next one.
type remote struct {
	trail *Trail
	// member says that this user may not take the lock, and only record: the
	// socket's group lets it in.
	member  bool
	closing chan struct{}

	turn   chan struct{}  // one element: who has it looks for a holder
	client *socket.Client // under turn

	told atomic.Int64 // when the holder was last told of refusals, in Unix nanoseconds
}

// openRemote opens a trail that this process can't hold: another one does, or
// this user may not.
func (t *Trail) openRemote(why error) error {
	if !t.onDisk() || t.opts.NoSocket || t.opts.MustHold || t.opts.successor != nil || t.opts.adopt {
		return why
	}
	r := &remote{trail: t, closing: make(chan struct{}), turn: make(chan struct{}, 1)}
	if locked, ok := errors.AsType[*lockedError](why); ok && !locked.shares {
		return why
	} else if !ok {
		return r.openAsMember(why)
	}
	t.remote.Store(r)
	ctx, cancel := context.WithTimeout(context.Background(), cmp.Or(t.opts.patience, holderWait))
	defer cancel()
	if _, err := r.holder(ctx, nil); err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = why
		}
		return err
	}
	if t.holds() {
		return nil
	}
	for _, o := range []struct {
		name string
		set  bool
	}{{"CheckpointTo", len(t.opts.CheckpointTo) > 0}, {"Group", t.opts.Group != ""}, {"AppendOnly", t.opts.AppendOnly != ""}, {"SocketGroup", t.opts.SocketGroup != ""},
		{"Signer", t.opts.Signer != ""}, {"ArchiveTo", t.opts.ArchiveTo != nil}} {
		if o.set {
			t.warn(fmt.Errorf("option %s is its holder's to set as long as %w", o.name, why))
		}
	}
	if err := t.openReader(); err != nil {
		return err
	}
	r.deliver()
	return nil
}

// deliver hands to the holder what waits below this user's state directory for a
// trail of another user's: that one looks into its own. It goes on for
// drainAtOpen at most, since an agent may wait for it; the next opening goes on.
// The holder's socket has no word for what was left out of an event: its
// replacement stands there, and nothing in policy.
func (r *remote) deliver() {
	t := r.trail
	state := t.stateDir()
	if _, yes := others(t.opts.fs, t.dir); !yes || !t.onDisk() || state == "" {
		return
	}
	dir := pin.Below(state, "spool", t.path)
	ctx, cancel := context.WithTimeout(context.Background(), drainAtOpen)
	defer cancel()
	for item, err := range spool.All(t.opts.fs, dir) {
		if err == nil {
			err = r.deliverItem(ctx, item)
		}
		if ctx.Err() != nil {
			t.owes.Store(true)
			return
		}
		if err != nil {
			t.warn(err)
		}
	}
	err := spool.TakeLost(t.opts.fs, dir, func(id string, count int64) error {
		failed := false
		_, err := r.record(ctx, &Event{
			EventType: "CAPTURE_LOST", AgentID: "capture", Action: "capture_lost", Success: &failed,
			Inputs: Of(map[string]any{"count": count}), IdempotencyKey: "spool:" + id,
		})
		return err
	})
	if err != nil {
		t.warn(fmt.Errorf("spool: %w", err))
	}
}

// deliverItem records an event through the holder and removes its file. One that
// is refused has come to its end: an entry of the holder's says so.
func (r *remote) deliverItem(ctx context.Context, item spool.Item) error {
	if item.Event == nil {
		return nil // a reading: another user's trail is not read
	}
	ev, err := r.trail.ParsePending(item.Event, item.Policy)
	if err != nil {
		return fmt.Errorf("spool/%s: %w", filepath.Base(item.File), err)
	}
	if ev.IdempotencyKey == "" {
		ev.IdempotencyKey = "spool:" + item.ID
	}
	if _, err := r.record(ctx, &ev); err != nil && !errors.Is(err, ErrRefused) && !errors.Is(err, ErrConflict) {
		return err
	}
	if err := r.trail.opts.fs.Remove(item.File); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// openAsMember opens a trail whose files this user may not read, if its holder
// takes what this user records.
func (r *remote) openAsMember(why error) error {
	if !errors.Is(why, fs.ErrPermission) {
		return why
	}
	ctx, cancel := context.WithTimeout(context.Background(), holderWait)
	defer cancel()
	c, info, err := r.dial(ctx)
	if err != nil {
		return why // that nobody listens says less
	}
	t := r.trail
	t.id = trailID{Format: formatVersion, Origin: info.Origin, VKey: info.VKey}
	if err := t.checkPin(); err != nil {
		return errors.Join(err, c.Close())
	}
	r.member, r.client, t.known = true, c, true
	t.remote.Store(r)
	r.deliver()
	return nil
}

// holder gives the connection to the holder, another one than bad, or nil when
// this process has become the holder.
func (r *remote) holder(ctx context.Context, bad *socket.Client) (*socket.Client, error) {
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-r.closing:
		return nil, ErrClosed
	}
	if r.trail.holds() {
		return nil, nil
	}
	select {
	case <-r.closing: // whoever is closed takes no lock any more
		return nil, ErrClosed
	default:
	}
	if r.client != nil && r.client != bad {
		return r.client, nil
	}
	if r.client != nil {
		_ = r.client.Close()
		r.client = nil
	}
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		if !r.member {
			err := r.trail.openWriter()
			if err == nil {
				r.trail.remote.Store(nil)
				return nil, nil
			}
			r.trail.release()
			if !errors.Is(err, ErrLocked) {
				return nil, err
			}
		}
		c, _, err := r.dial(ctx)
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
			return nil, fmt.Errorf("%w: its holder does not answer (%w): %w", ErrLocked, err, ctx.Err())
		case <-r.closing:
			return nil, ErrClosed
		}
	}
}

// dial connects to whoever listens, if that is this trail's holder.
func (r *remote) dial(ctx context.Context) (*socket.Client, socket.Info, error) {
	c, err := socket.Dial(ctx, r.trail.dir, socket.Durability(r.trail.opts.Durability.String()))
	if err != nil {
		return nil, socket.Info{}, err
	}
	info, err := c.Info(ctx)
	if err == nil && r.trail.known && info.Origin != r.trail.id.Origin {
		err = fmt.Errorf("%w: the holder has %s, and it was %s when this process opened it", ErrPinned, info.Origin, r.trail.id.Origin)
	}
	if err != nil {
		return nil, info, errors.Join(err, c.Close())
	}
	return c, info, nil
}

// try has send do its work with a holder, and with the next one as long as it
// returns an error: one after which what was sent can be sent again. It reports
// true when this process has become the holder, and send's work is its own.
func (r *remote) try(ctx context.Context, send func(*socket.Client) error) (holds bool, err error) {
	bounded, cancel := context.WithTimeout(ctx, takeOverWait)
	defer cancel()
	var bad *socket.Client
	var last error
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		c, err := r.holder(bounded, bad)
		if err == nil && c != nil {
			if last = send(c); last == nil {
				return false, nil
			}
			bad = c
			select {
			case <-time.After(pause):
				continue
			case <-bounded.Done():
				err = bounded.Err()
			case <-r.closing:
				err = ErrClosed
			}
		}
		switch {
		case err == nil:
			return true, nil
		case last == nil:
			return false, err
		case errors.Is(last, socket.ErrGone):
			return false, fmt.Errorf("%w: %w", ErrUnknown, errors.Join(err, last))
		}
		return false, errors.Join(explainRemote(last), err)
	}
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
		r.trail.refused.add(err)
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return line, nil
}

func (r *remote) record(ctx context.Context, ev *Event) (receipt Receipt, err error) {
	defer r.tellRefusals(tellInterval)
	line, err := r.prepare(ev)
	if err != nil {
		return Receipt{}, err
	}
	var answer error
	holds, err := r.try(ctx, func(c *socket.Client) error {
		receipt, answer = c.Record(ctx, line)
		return again(answer)
	})
	switch {
	case err != nil:
		return Receipt{}, err
	case holds:
		return r.trail.Record(ctx, *ev)
	}
	return receipt, explainRemote(answer)
}

func (r *remote) recordBatch(ctx context.Context, events []Event, receipts []Receipt, fail func(int, error)) {
	defer r.tellRefusals(tellInterval)
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
	if len(waiting) == 0 {
		return
	}
	holds, err := r.try(ctx, func(c *socket.Client) (unanswered error) {
		results := c.RecordBatch(ctx, lines)
		n := 0
		for k, i := range waiting {
			err := results[k].Err
			switch {
			case err == nil:
				receipts[i] = results[k].Receipt
			case again(err) != nil:
				waiting[n], lines[n], unanswered = i, lines[k], err
				n++
			default:
				fail(i, explainRemote(err))
			}
		}
		waiting, lines = waiting[:n], lines[:n]
		return unanswered
	})
	if err != nil {
		for _, i := range waiting {
			fail(i, err)
		}
		return
	}
	if !holds {
		return
	}
	left := make([]Event, len(waiting))
	for k, i := range waiting {
		left[k] = events[i]
	}
	got := make([]Receipt, len(left))
	r.trail.recordBounded(ctx, left, handed{}, got, func(k int, err error) { fail(waiting[k], err) })
	for k, i := range waiting {
		receipts[i] = got[k]
	}
}

// note has one of the trail's own entries recorded by the holder: one about a
// reading, or about refused events.
func (r *remote) note(ctx context.Context, o ownEntry) error {
	reading, err := readingOf(o)
	if err != nil {
		return err
	}
	var answer error
	holds, err := r.try(ctx, func(c *socket.Client) error {
		_, answer = c.NoteReading(ctx, reading)
		return again(answer)
	})
	switch {
	case err != nil:
		return err
	case holds:
		return r.trail.recordOwn(ctx, o)
	}
	return explainRemote(answer)
}

func readingOf(o ownEntry) (socket.Reading, error) {
	inputs, err := Of(o.inputs).AppendJSON(nil)
	if err != nil {
		return socket.Reading{}, err
	}
	outputs, err := Of(o.outputs).AppendJSON(nil)
	return socket.Reading{EventType: o.eventType, Action: o.action, Inputs: json.RawMessage(inputs), Outputs: json.RawMessage(outputs)}, err
}

// tellRefusals tells the holder what was refused in this process, if the last
// time is that long ago.
func (r *remote) tellRefusals(after time.Duration) {
	now, last := time.Now().UnixNano(), r.told.Load()
	if r.member || now-last < int64(after) || !r.told.CompareAndSwap(last, now) || r.trail.holds() {
		return // a member may record events and nothing else; a holder's signer tells
	}
	ctx, cancel := context.WithTimeout(context.Background(), tellInterval)
	defer cancel()
	if err := r.trail.refused.tell(func(o ownEntry) error { return r.note(ctx, o) }); err != nil {
		r.trail.warn(fmt.Errorf("that events were refused could not be recorded: %w", err))
	}
}

// close ends the connection. It reports true when this process has become the
// holder meanwhile.
func (r *remote) close() (holds bool, err error) {
	r.tellRefusals(0)
	close(r.closing)
	r.turn <- struct{}{}
	defer func() { <-r.turn }()
	if r.trail.holds() {
		return true, nil
	}
	if r.client != nil {
		err = r.client.Close()
	}
	return false, err
}

// again is err if an event is taken to the next holder after it: with its key
// that is safe.
func again(err error) error {
	var e *socket.Error
	if errors.Is(err, socket.ErrGone) || errors.As(err, &e) && (e.Code == socket.Closed || e.Code == socket.Busy) {
		return err
	}
	return nil
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
	out := fmt.Errorf("the trail's holder: %w", err)
	for code, is := range publicErrors {
		if e.Code == code {
			out = &remoteError{is, e.Message}
		}
	}
	if e.Hint != "" {
		out = advice.For(out, "%s", e.Hint)
	}
	return out
}

// publicErrors are what codes of the protocol mean here.
var publicErrors = map[socket.Code]error{
	socket.Refused: ErrRefused, socket.Conflict: ErrConflict, socket.Full: ErrFull, socket.Closed: ErrClosed,
	socket.Stopped: ErrStopped, socket.Unknown: ErrUnknown, socket.NotFound: ErrNotFound, socket.Held: ErrHeld,
	socket.Denied: ErrDenied, socket.Option: ErrOption, socket.Clock: ErrClock,
}

// do has the holder make a call and puts its answer into out, or reports true when
// this process has become the holder. It is not asked twice: where the holder is gone
// in the middle, what became of it is not known here.
func (r *remote) do(ctx context.Context, call socket.Call, asked, out any) (holds bool, err error) {
	text, err := json.Marshal(asked)
	if err != nil {
		return false, err
	}
	var answer error
	holds, err = r.try(ctx, func(c *socket.Client) error {
		var got []byte
		if got, answer = c.Do(ctx, call, text); answer == nil {
			answer = json.Unmarshal(got, out)
		}
		if errors.Is(answer, socket.ErrGone) {
			answer = fmt.Errorf("%w: the trail's holder was asked and is gone; what it had begun the next one completes: %w", ErrUnknown, answer)
			return nil
		}
		return again(answer)
	})
	if err == nil && !holds {
		err = explainRemote(answer)
	}
	return holds, err
}

// byHolder does what only the trail's holder may: here where that is this process,
// else by a call of its socket.
func byHolder[T any](ctx context.Context, t *Trail, call socket.Call, asked any, here func() (T, error)) (out T, err error) {
	if err := t.writable(ctx); err != nil {
		return out, err
	}
	if r := t.remote.Load(); r != nil {
		if holds, err := r.do(ctx, call, asked, &out); !holds {
			return out, err
		}
	}
	if err := t.holding(ctx); err != nil {
		return out, err
	}
	return here()
}

// remoteError says it in the holder's words and is the public error.
type remoteError struct {
	is   error
	text string
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.is }
