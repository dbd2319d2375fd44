package audit

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/keys"
	"github.com/kaizen-audit/kaizen-audit/internal/pin"
	"github.com/kaizen-audit/kaizen-audit/internal/spool"
)

// captureWait is how long a captured event waits for the trail before it goes
// into the spool. Opening, recording and closing take some 10 ms on an idle
// machine; whoever waits is an agent.
const captureWait = 400 * time.Millisecond

// lockWait is how long it looks for the socket of a process that holds the
// trail: one that holds it for a moment has none, and takes the spool in before
// it goes. With 200 hooks at once, those that waited for each other took all of
// the processors, and some ran out of time.
const lockWait = 30 * time.Millisecond

// Capture records one event of automatic capture in the trail at path, through
// its holder where there is one: it fails open. Where the trail can't take the
// event (it is locked and its holder does not listen, the disk is full, it is
// gone or damaged, or it does not answer within 400 ms) the
// event is written to a spool, synced, and the trail's next holder takes it in,
// once: beside the trail, else below Options.StateDir. nil means that the event
// is in one of the two. It returns when ctx ends at the latest, whatever trail
// and disk do; a ctx without an end means one second.
//
// The fact is kept where a value can't be: a member of the event that can't be
// stored (broken JSON, an entry that would be too long) is replaced by
// {"omitted":"<reason>","bytes":n,"mac":"<hex>"}, and policy.omitted says so.
// Only an event without a usable event_type, agent_id or action is ErrRefused.
//
// An event that has no timestamp, trace or idempotency key gets them here.
func Capture(ctx context.Context, path string, opts *Options, ev Event) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Second)
		defer cancel()
	}
	c, err := newCapture(path, opts)
	if err == nil {
		err = c.run(ctx, ev)
	}
	if err != nil {
		return fmt.Errorf("capture: %w", err)
	}
	return nil
}

// Capture records one event of automatic capture: it fails open. As the function
// Capture it keeps the fact where a value can't be kept, and where the trail
// can't take the event (it is full, stopped, closed, or held by a process that
// does not answer) it writes it to the spool, for the trail's next holder. The
// receipt is zero then. ErrRefused is for an event without a usable event_type,
// agent_id or action; any other error means that the event is lost, and
// ErrLossCounted that the trail will tell of it.
//
// It waits as long as the trail and the disk do: whoever can't calls it from
// another goroutine, and gives it an event that does not change meanwhile. What a
// spool holds is recorded once; after a failed write (ErrStopped) the line that
// was not acknowledged may be there too.
func (t *Trail) Capture(ctx context.Context, ev Event) (Receipt, error) {
	if t.remote.Load() != nil {
		// The holder may die between taking it and saying so: the key is the same
		// in the spool then, and so is the time.
		if ev.Timestamp.IsZero() {
			ev.Timestamp = t.clock.now()
		}
		if ev.TraceID == "" {
			ev.TraceID = entry.NewTraceID()
		}
		if ev.IdempotencyKey == "" {
			ev.IdempotencyKey = "capture:" + spool.NewID(ev.Timestamp)
		}
	}
	r, err := t.RecordFact(ctx, ev)
	if err == nil && t.owes.CompareAndSwap(true, false) {
		if r := t.remote.Load(); r != nil {
			r.deliver()
		}
	}
	if err == nil || errors.Is(err, ErrRefused) || errors.Is(err, ErrConflict) || errors.Is(err, ErrReadOnly) {
		return r, err
	}
	c := t.capture()
	if err := c.prepare(&ev); err != nil {
		return Receipt{}, fmt.Errorf("capture: %w: %w", ErrRefused, err)
	}
	err = c.put(ev, err)
	t.owes.Store(true)
	if err != nil {
		return Receipt{}, fmt.Errorf("capture: %w", err)
	}
	return Receipt{}, nil
}

// RecordFact is Record, except that a value which can't be kept does not keep the
// event from being recorded: it is replaced, as in Capture. Errors are Record's;
// ErrRefused is for an event without a usable event_type, agent_id or action.
func (t *Trail) RecordFact(ctx context.Context, ev Event) (Receipt, error) {
	r, err := t.Record(ctx, ev)
	if !errors.Is(err, ErrRefused) {
		return r, err
	}
	now := t.clock.now()
	if err := entry.KeepFact(&ev, &entry.Stamp{
		EventID: spool.NewID(now), RecordedAt: now, RecordedBy: []byte(longestRecordedBy), TraceID: t.id.Origin, MaxLine: t.opts.MaxLine,
	}, t.mac()); err != nil {
		return Receipt{}, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if ev, err = t.policy().Event(&ev, t.run(true)); err != nil {
		return Receipt{}, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return t.Record(ctx, ev)
}

// Omit leaves members of an event out, which are among inputs, outputs, metadata,
// resource and authority: {"omitted":reason,"bytes":n,"mac":"<hex>"} stands in
// their place, and policy.omitted names them. n is the length of the value's JSON
// text; mac is over it, with the trail's key, and missing where this user can't
// read that. An absent member stays absent.
//
// The holder's socket has no word for what was left out: an entry that came
// through it has the value's replacement, and nothing in policy.
func (t *Trail) Omit(ev *Event, reason string, members ...string) {
	ev.Omit(reason, t.mac(), members...)
}

// StateDir is where what concerns this machine's user and no other is kept
// (Options.StateDir); "" where there is no such place.
func (t *Trail) StateDir() string { return t.stateDir() }

// capture is what this trail's events are spooled with.
func (t *Trail) capture() *capture {
	return &capture{path: t.path, log: t.path, dir: t.dir, opts: t.opts, left: make(chan struct{})}
}

func (t *Trail) mac() func([]byte) []byte {
	if known := t.macKey.Load(); known != nil {
		return *known
	}
	if enc := t.enc.Load(); enc != nil && enc.store != nil { // the key is wrapped
		key, err := enc.store.MAC(context.Background())
		if err != nil {
			return nil
		}
		mac := macUnder(key)
		t.macKey.Store(&mac)
		return mac
	}
	mac := macWith(t.dir)
	if mac != nil {
		t.macKey.Store(&mac)
	}
	return mac
}

// capture is one call of Capture.
type capture struct {
	path     string // as given
	log, dir string
	opts     Options
	left     chan struct{} // closed once it has let go of the trail
}

func newCapture(path string, opts *Options) (*capture, error) {
	o, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	c := &capture{path: path, opts: o, left: make(chan struct{})}
	c.opts.quiet, c.opts.ReadOnly, c.opts.patience = true, false, lockWait
	c.log, c.dir, err = paths(path)
	return c, err
}

// run records the event or spools it. What takes too long is left behind: the
// event's key makes sure that it is recorded once all the same.
func (c *capture) run(ctx context.Context, ev Event) error {
	if err := c.prepare(&ev); err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	recorded := make(chan error, 1)
	go func() {
		defer close(c.left)
		c.hold(func(t *Trail) error {
			if _, yes := others(t.opts.fs, t.dir); len(ev.Omitted()) > 0 && !t.holds() && !yes {
				return errUntold
			}
			_, err := t.Record(context.Background(), ev)
			return err
		}, recorded)
	}()
	patience := time.NewTimer(captureWait)
	defer patience.Stop()
	var err error
	select {
	case err = <-recorded:
	case <-patience.C:
		err = errors.New("the trail does not answer")
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil && !errors.Is(err, ErrRefused) && !errors.Is(err, ErrConflict) {
		put := make(chan error, 1)
		go func() { put <- c.put(ev, err) }()
		select {
		case err = <-put:
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		}
	}
	select { // a trail that is held is closed well
	case <-c.left:
	case <-ctx.Done():
	}
	return err
}

// errUntold: the socket has no word for what was left out of an event, the spool
// has.
var errUntold = errors.New("the event has members that were left out")

// hold opens the trail for a moment and tells what became of do. The opening
// takes the spool in, unless there is a holder, which does. Whoever found the
// trail locked meanwhile has spooled and gone, so the spool is looked at once
// more after the lock is released: their item was there before.
func (c *capture) hold(do func(*Trail) error, told chan<- error) {
	until := time.Now().Add(captureWait)
	t, err := open(c.path, c.opts)
	if err != nil {
		told <- err
		return
	}
	told <- do(t)
	for {
		held := t.holds()
		if err := t.Close(); err != nil {
			t.warn(err)
			return
		}
		if !held || !t.spoolWaits() || time.Now().After(until) {
			return
		}
		if t, err = open(c.path, c.opts); err != nil {
			return // somebody else has it, and does the same
		}
	}
}

// spoolWaits tells whether there is something in the spool that this trail has
// not named as broken.
func (t *Trail) spoolWaits() bool {
	for _, dir := range spoolDirs(t.dir, t.path, t.stateDir()) {
		files, err := t.opts.fs.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, f := range files {
			if !t.drainer.told[filepath.Join(dir, f.Name())] && !strings.HasSuffix(f.Name(), ".tmp") {
				return true
			}
		}
	}
	return false
}

// put spools the event: why is what became of recording it.
func (c *capture) put(ev Event, why error) error {
	errs := []error{why}
	text, notes, err := c.appendPending(nil, &ev)
	if err != nil {
		// Nothing of a trail that seals waits in clear: without its key the event
		// is lost, and counted.
		errs = append(errs, err)
	}
	now := c.opts.now()
	item := spool.Item{
		Format: spool.Format, ID: spool.NewID(now), At: formatTime(now), Event: text, Omitted: ev.Omitted(), Policy: notes, PID: os.Getpid(),
	}
	dirs := spoolDirs(c.dir, c.log, c.stateDir())
	if _, err := os.Stat(c.dir); err != nil {
		dirs = dirs[1:] // there is no trail, or none that this user can see
	} else if _, yes := others(durable.OS, c.dir); yes {
		dirs = dirs[1:] // this user's next opening delivers it
	}
	for _, dir := range dirs {
		if text == nil {
			break
		}
		err := spool.Put(durable.OS, dir, item)
		if err == nil {
			c.drainAfter(why)
			return nil
		}
		errs = append(errs, fmt.Errorf("spool: %w", err))
	}
	for _, dir := range dirs {
		if err := spool.Lose(durable.OS, dir); err == nil {
			return fmt.Errorf("%w: %w", ErrLossCounted, errors.Join(errs...))
		}
	}
	return fmt.Errorf("an event is lost: %w", errors.Join(errs...))
}

// keys opens the keys of a trail that seals.
func (c *capture) keys() (origin string, store *keys.Store, err error) {
	data, err := durable.ReadFile(c.opts.fs, filepath.Join(c.dir, "trail.json"), maxSmallFile)
	if err != nil {
		return "", nil, err
	}
	id, _, err := parseIdentity(data)
	if err != nil {
		return "", nil, err
	}
	k, err := c.opts.kek(c.stateDir(), id.Origin, false)
	if err != nil {
		return "", nil, err
	}
	store, err = keys.Open(context.Background(), keys.Options{FS: c.opts.fs, Dir: filepath.Join(c.dir, "keys"), Origin: id.Origin, KEK: k, ReadOnly: true})
	return id.Origin, store, explainKey(err)
}

// drainAfter takes the spool in if the process that held the trail has gone
// meanwhile: it may have looked before the item was there.
func (c *capture) drainAfter(why error) {
	if errors.Is(why, ErrLocked) {
		c.hold(func(*Trail) error { return nil }, make(chan error, 1))
	}
}

func (c *capture) stateDir() string {
	if c.opts.StateDir != "" {
		return c.opts.StateDir
	}
	return pin.DefaultDir()
}

// prepare makes an event that can be recorded, now or later.
func (c *capture) prepare(ev *Event) error {
	if ev.Timestamp.IsZero() {
		ev.Timestamp = c.opts.now()
	}
	if ev.TraceID == "" {
		ev.TraceID = entry.NewTraceID()
	}
	if ev.IdempotencyKey == "" {
		ev.IdempotencyKey = "capture:" + spool.NewID(ev.Timestamp)
	}
	return entry.KeepFact(ev, &entry.Stamp{
		EventID: spool.NewID(ev.Timestamp), RecordedAt: ev.Timestamp, RecordedBy: []byte(longestRecordedBy), MaxLine: c.opts.MaxLine,
	}, c.mac())
}

// longestRecordedBy stands for what the spool adds to a captured event.
const longestRecordedBy = `{"principal":"uid:4294967295","pid":9223372036854775807,"via":"spool"}`

// mac tells whoever has the trail's key whether a value that was left out was a
// certain one, and nobody else. Without the key at hand there is none.
func (c *capture) mac() func([]byte) []byte { return macWith(c.dir) }

func macWith(dir string) func([]byte) []byte {
	key, err := durable.ReadFile(durable.OS, filepath.Join(dir, "keys", "mac.key"), macKeyBytes)
	if err != nil || len(key) != macKeyBytes {
		return nil
	}
	return macUnder(key)
}

func macUnder(key []byte) func([]byte) []byte {
	return func(value []byte) []byte {
		mac := hmac.New(sha256.New, key)
		mac.Write(value)
		return mac.Sum(nil)
	}
}
