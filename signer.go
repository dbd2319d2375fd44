package audit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kaizen-audit/kaizen-audit/internal/journal"
	"github.com/kaizen-audit/kaizen-audit/internal/tree"
	"github.com/kaizen-audit/kaizen-audit/internal/witness"
)

const (
	// checkpointInterval is how long an acknowledged line waits for its
	// checkpoint: half of the promised second, the rest is for the disk.
	checkpointInterval = 400 * time.Millisecond
	// keepInterval is how far two kept checkpoints lie apart at most.
	keepInterval = time.Hour
	// sinkInterval is how far two checkpoints sent to a sink lie apart at
	// least.
	sinkInterval = time.Second
	// retrySign is how long the signer waits after an error.
	retrySign = time.Second
	// maxPending is how many acknowledged lines may wait for the tree before
	// further events wait too: a flood is slowed to what tiles can be written
	// at, and memory stays bounded (16 MB of digests and tiles, and what is
	// under way). A signer that fails slows nobody down; that it lags is told.
	maxPending = 1 << 18
	// maxSpare is the largest room for pending lines that is kept, 4 MB.
	maxSpare = 1 << 17
)

// signer takes the digests of acknowledged lines behind the acknowledgement,
// and signs a checkpoint over those that are synced.
//
// Lock order: signing, then tree, then pendingMu.
type signer struct {
	trail *Trail

	pendingMu sync.Mutex
	pending   []journal.Digest // acknowledged, not in the tree yet
	spare     []journal.Digest // to be used again in its place; under treeMu
	ended     bool             // nobody signs any more
	since     time.Time        // when the first of them was acknowledged
	unsigned  time.Time        // when the first was that is in the tree and under no checkpoint; zero where none is
	room      chan struct{}    // closed when crowded ends; made by who waits for it
	crowded   atomic.Bool      // too many are pending; written under pendingMu

	treeMu  sync.Mutex
	builder *tree.Builder

	signing sync.Mutex // held while tiles and checkpoint are written
	store   *tree.Store
	keptAt  time.Time

	latest atomic.Pointer[tree.Checkpoint]
	failed atomic.Pointer[error] // of the last attempt

	kick     chan struct{} // there is something to sign
	hurry    chan struct{} // there is much
	due      chan struct{} // the journal wants a sync
	stopped  chan struct{}
	stopOnce sync.Once
	wg       sync.WaitGroup
	sinks    []*sinkState
}

func newSigner(t *Trail, store *tree.Store, c tree.Checkpoint) *signer {
	s := &signer{trail: t, store: store, kick: make(chan struct{}, 1), hurry: make(chan struct{}, 1), due: make(chan struct{}, 1), stopped: make(chan struct{})}
	s.latest.Store(&c)
	return s
}

// start begins with the tree of the latest checkpoint and the lines beyond it.
func (s *signer) start(b *tree.Builder, tail []journal.Digest) {
	s.builder, s.pending, s.since = b, slices.Clone(tail), time.Now()
	if !s.trail.opts.manual {
		s.wg.Add(1)
		go s.run()
	}
}

// stop ends the goroutine; what is not signed stays so until signAll.
func (s *signer) stop() {
	s.stopOnce.Do(func() {
		close(s.stopped)
		s.pendingMu.Lock()
		s.ended = true
		s.crowdLocked()
		s.pendingMu.Unlock()
	})
	s.wg.Wait()
}

// close ends the sinks, which get the last checkpoint.
func (s *signer) close() error {
	var errs []error
	for _, k := range s.sinks {
		errs = append(errs, k.close())
	}
	return errors.Join(errs...)
}

// abandon ends the sinks of an opening that failed.
func (s *signer) abandon() {
	for _, k := range s.sinks {
		k.cancel()
		_ = k.close()
	}
}

// acknowledged is the journal's callback, made in the order of lines, one call at a
// time. Who recorded waits for it: it waits for nothing.
func (s *signer) acknowledged(_ int64, digests []journal.Digest) {
	s.pendingMu.Lock()
	first := len(s.pending) == 0
	s.pending = append(s.pending, digests...)
	if first {
		s.since = time.Now()
	}
	many := s.crowdLocked()
	s.pendingMu.Unlock()
	if many {
		select {
		case s.hurry <- struct{}{}:
		default:
		}
	}
	if first {
		select {
		case s.kick <- struct{}{}:
		default:
		}
	}
}

// crowdLocked tells whether too many lines wait for the tree, and lets in who
// waited for it where that is over; pendingMu is held.
func (s *signer) crowdLocked() bool {
	many := len(s.pending) > s.trail.opts.backlog && s.failed.Load() == nil && !s.ended
	s.crowded.Store(many)
	if !many && s.room != nil {
		close(s.room)
		s.room = nil
	}
	return many
}

// admit waits as long as too many lines wait for the tree. It comes before the
// journal has an event. The trail's own entries do not wait, nor does who has
// the commit lock: the signer needs both before it signs.
func (s *signer) admit(ctx context.Context) error {
	for s.crowded.Load() {
		s.pendingMu.Lock()
		if !s.crowdLocked() {
			s.pendingMu.Unlock()
			break
		}
		if s.room == nil {
			s.room = make(chan struct{})
		}
		room := s.room
		s.pendingMu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// syncDue is the journal's callback too.
func (s *signer) syncDue() {
	select {
	case s.due <- struct{}{}:
	default:
	}
}

func (s *signer) run() {
	defer s.wg.Done()
	wait := func(d time.Duration) bool {
		select {
		case <-time.After(d):
			return true
		case <-s.stopped:
			return false
		}
	}
	pause := func() bool {
		over := time.After(s.trail.opts.interval)
		for {
			select {
			case <-over:
				return true
			case <-s.hurry:
				return true
			case <-s.due:
				if _, err := s.trail.journal.Sync(); err == nil { // an error is every Record's
					s.trail.journal.Quicken()
				}
			case <-s.stopped:
				return false
			}
		}
	}
	for {
		select {
		case <-s.kick:
		case <-s.hurry:
		case <-s.stopped:
			return
		}
		if !pause() {
			return
		}
		s.trail.noteSteps()
		s.trail.noteDEKs()
		s.trail.checkThere()
		// An error of these is the journal's, which every Record tells.
		_ = errors.Join(s.trail.flushRefusals(context.Background()), s.trail.flushLosses(false))
		err := s.sign()
		told := false
		for err != nil && s.trail.journal.Err() == nil {
			if lag := s.lag(); lag > lagAlarm && !told {
				told = true
				s.trail.warn(fmt.Errorf("the checkpoint lags %s behind: %w", lag.Round(time.Second), err))
			}
			if !wait(retrySign) {
				return
			}
			err = s.sign()
		}
	}
}

// checkThere stops the writer when the log's name is gone (somebody removed it, or
// moved it away as for a rotation of their own): what is written after that is in a
// file that nobody finds. The name never vanishes by a seal.
func (t *Trail) checkThere() {
	if _, err := t.opts.fs.Stat(t.path); errors.Is(err, fs.ErrNotExist) {
		t.journal.Stop(fmt.Errorf("the log is not at its path any more: %w", err))
		t.warn(t.journal.Err())
	}
}

// sign covers what is synced.
func (s *signer) sign() (err error) {
	defer func() {
		if errors.Is(err, ErrForked) {
			// The signer has signed another history: nothing more is recorded in this one.
			s.trail.journal.Stop(err)
		}
		if err != nil {
			s.failed.Store(&err)
		} else {
			s.failed.Store(nil)
		}
		s.pendingMu.Lock()
		s.crowdLocked()
		s.pendingMu.Unlock()
	}()
	size, err := s.trail.journal.Sync()
	if err != nil {
		return err
	}
	s.trail.journal.Quicken()
	return s.signAll(size)
}

// signAll covers size lines, which are synced.
func (s *signer) signAll(size int64) error {
	s.signing.Lock()
	defer s.signing.Unlock()
	s.treeMu.Lock()
	s.growLocked(size)
	snap := s.builder.Snapshot()
	s.treeMu.Unlock()
	now := s.trail.clock.now()
	return s.putLocked(snap, s.keptAt.IsZero() || now.Sub(s.keptAt) >= keepInterval, now)
}

// growLocked moves pending digests into the tree, up to size.
func (s *signer) growLocked(size int64) {
	s.pendingMu.Lock()
	n := min(max(size-s.builder.Size(), 0), int64(len(s.pending)))
	take := s.pending[:n]
	s.pending, s.spare = append(s.spare[:0], s.pending[n:]...), nil
	if n > 0 && s.unsigned.IsZero() {
		s.unsigned = s.since
	}
	s.crowdLocked()
	if len(s.pending) > 0 {
		s.since = time.Now()
		select {
		case s.kick <- struct{}{}:
		default:
		}
	}
	s.pendingMu.Unlock()
	s.builder.Append(take...)
	if cap(take) <= maxSpare {
		s.spare = take
	}
}

// rootAt gives the snapshot at exactly size, all of whose lines are synced and
// acknowledged. The commit lock is held: it waits for no disk.
func (s *signer) rootAt(size int64) (tree.Snapshot, error) {
	s.treeMu.Lock()
	defer s.treeMu.Unlock()
	s.growLocked(size)
	snap := s.builder.Snapshot()
	if snap.Size != size {
		return snap, fmt.Errorf("the tree has %d entries where the journal has %d", snap.Size, size)
	}
	return snap, nil
}

// putLocked writes the tiles of a snapshot and its checkpoint, and keeps a
// copy of it if keep. Invariant 1 of tree: sizes never go down.
func (s *signer) putLocked(snap tree.Snapshot, keep bool, now time.Time) error {
	latest := s.latest.Load()
	if snap.Size <= latest.Size && !keep && !snap.Missing() {
		return nil
	}
	c := *latest
	if snap.Size != latest.Size || snap.Missing() {
		if err := s.store.Flush(snap); err != nil {
			return err
		}
		s.treeMu.Lock()
		s.builder.Flushed(snap)
		s.treeMu.Unlock()
	}
	if snap.Size != latest.Size {
		var err error
		if c, err = s.trail.keys.checkpoint(s.store, snap.Size, snap.Root, *latest); err != nil {
			return err
		}
	}
	// Crash until here: tiles without a checkpoint, which nobody reads.
	if snap.Size > latest.Size {
		if err := s.store.Put(c); err != nil {
			return err
		}
		s.latest.Store(&c)
		s.covered(c.Size)
	}
	if keep {
		if err := s.store.Keep(c); err != nil {
			return err
		}
		s.keptAt = now
	}
	for _, k := range s.sinks {
		k.offer(c)
	}
	return s.store.Tidy(s.latest.Load().Size)
}

// keepSealed signs and keeps the checkpoint at the end of a segment.
func (s *signer) keepSealed(snap tree.Snapshot) error {
	s.signing.Lock()
	defer s.signing.Unlock()
	return s.putLocked(snap, true, s.trail.clock.now())
}

// covered notes that a checkpoint of that size is durable.
func (s *signer) covered(size int64) {
	s.treeMu.Lock()
	defer s.treeMu.Unlock()
	s.pendingMu.Lock()
	defer s.pendingMu.Unlock()
	s.unsigned = time.Time{}
	if s.builder.Size() > size { // a seal has grown it meanwhile
		s.unsigned = time.Now()
	}
}

// lag is how long the oldest uncovered line has waited.
func (s *signer) lag() time.Duration {
	s.pendingMu.Lock()
	defer s.pendingMu.Unlock()
	switch {
	case !s.unsigned.IsZero():
		return time.Since(s.unsigned)
	case len(s.pending) > 0:
		return time.Since(s.since)
	}
	return 0
}

// sinkState sends checkpoints to one sink from a goroutine of its own: a sink
// that hangs holds nobody up. It always sends the newest; what was passed over
// is not lost, since each covers all before it.
type sinkState struct {
	sink    witness.Sink
	next    chan tree.Checkpoint
	closing chan struct{}
	done    chan struct{}
	ctx     context.Context
	cancel  context.CancelFunc
	lost    func(name string, err error)
	sent    atomic.Int64          // size of the last checkpoint that arrived
	problem atomic.Pointer[error] // of the last attempt
	every   time.Duration         // between two of them
}

func (s *signer) addSink(sink witness.Sink, every time.Duration, lost func(string, error)) {
	ctx, cancel := context.WithCancel(context.Background())
	k := &sinkState{sink: sink, every: every, next: make(chan tree.Checkpoint, 1), closing: make(chan struct{}), done: make(chan struct{}), ctx: ctx, cancel: cancel, lost: lost}
	k.sent.Store(-1)
	s.sinks = append(s.sinks, k)
	go k.run()
}

func (k *sinkState) offer(c tree.Checkpoint) {
	for {
		select {
		case k.next <- c:
			return
		default:
		}
		select {
		case <-k.next: // an older one
		default:
		}
	}
}

func (k *sinkState) run() {
	defer close(k.done)
	for c := range k.next {
		switch err := k.sink.Send(k.ctx, c.Signed); {
		case errors.Is(err, witness.ErrNotDue):
		case err != nil:
			k.problem.Store(&err)
			k.lost(k.sink.Name(), err)
		default:
			k.problem.Store(nil)
			k.sent.Store(c.Size)
		}
		select {
		case <-time.After(k.every):
		case <-k.closing:
		}
	}
}

// sinkGrace is how long Close waits for sinks.
const sinkGrace = 15 * time.Second

func (k *sinkState) close() error {
	close(k.closing)
	close(k.next)
	grace := time.AfterFunc(sinkGrace, k.cancel)
	defer grace.Stop()
	<-k.done // the wait between two checkpoints is cut short, a Send is not
	k.cancel()
	if err := k.problem.Load(); err != nil {
		return fmt.Errorf("checkpoint sink %s: %w", k.sink.Name(), *err)
	}
	return nil
}
