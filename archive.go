package audit

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/kaizen-audit/kaizen-audit/archive"
	"github.com/kaizen-audit/kaizen-audit/internal/advice"
	"github.com/kaizen-audit/kaizen-audit/internal/archiver"
	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/journal"
	"github.com/kaizen-audit/kaizen-audit/internal/pin"
	"github.com/kaizen-audit/kaizen-audit/internal/tree"
	"github.com/kaizen-audit/kaizen-audit/internal/trust"
	"github.com/kaizen-audit/kaizen-audit/internal/verify"
)

// DefaultArchiveEvery is how often a holder ships what is not archived yet.
const DefaultArchiveEvery = 10 * time.Second

// ArchiveState is what is known of a trail's archive without asking it.
type ArchiveState struct {
	To string `json:"to"`
	// Sealed and Lines are the indexes up to which sealed segments and lines are
	// archived, Checkpoint is the size of the archived checkpoint.
	Sealed     int64 `json:"sealed"`
	Lines      int64 `json:"lines"`
	Checkpoint int64 `json:"checkpoint"`
	// At is when that was so; zero: it never was.
	At time.Time `json:"at,omitzero"`
	// Exposed are the entries that would be lost with the disk now, Backlog the
	// bytes of them, as far as that is known.
	Exposed int64 `json:"exposed"`
	Backlog int64 `json:"backlog"`
	// Local are the sealed segments on this disk, Away those that are in the archive
	// only, and Cached the bytes of what was fetched of these.
	Local  Stored `json:"local"`
	Away   Stored `json:"away"`
	Cached int64  `json:"cached"`
	// Error is why nothing could be archived since Failing; empty: it could.
	Error   string    `json:"error,omitempty"`
	Failing time.Time `json:"failing,omitzero"`
}

// Stored are some segments and what they take.
type Stored struct {
	Segments int   `json:"segments"`
	Bytes    int64 `json:"bytes"`
}

// archiveAlarm is how long it takes until what is not archived is a warning: three
// rounds of the default.
const archiveAlarm = 30 * time.Second

// ArchiveOptions are the settings of Archive.
type ArchiveOptions struct {
	// Rate bounds what goes out, in bytes a second; 0 is no limit.
	Rate int64
	// Progress is told how many bytes went out, of about how many.
	Progress func(done, total int64)
}

// Archive brings the archive up to what is in the trail now, and returns once it is:
// sealed segments, the lines that are not sealed yet, and the checkpoint. What is
// archived already is not sent again. It may be interrupted at any point and called
// again, also while the trail's holder archives by itself (Options.ArchiveTo).
func (t *Trail) Archive(ctx context.Context, store archive.Store, opts *ArchiveOptions) (*ArchiveState, error) {
	if err := t.authorizeAll(ctx, "Archive"); err != nil {
		return nil, fmt.Errorf("archive %s: %w", t.path, err)
	}
	if opts == nil {
		opts = &ArchiveOptions{}
	}
	if !t.onDisk() {
		return nil, fmt.Errorf("archive %s: %w", t.path, errors.ErrUnsupported)
	}
	p := t.pusher(store, opts.Rate)
	p.Progress = opts.Progress
	if _, err := p.Push(ctx); err != nil {
		return nil, explainArchive(err)
	}
	return t.ArchiveState(ctx)
}

// pusher archives this trail.
func (t *Trail) pusher(store archive.Store, rate int64) *archiver.Pusher {
	p := archiver.NewPusher(store, archiver.Source{
		Dir: t.dir, Origin: t.id.Origin,
		Checkpoint: t.freshCheckpoint,
		View:       t.view,
		Archived:   t.fetched.segment,
		Trust:      func() (trust.Set, error) { id := t.ids(); return id.trusted(id.VKey) },
		Terms:      t.archiveTerms,
	})
	p.Rate = rate
	return p
}

// freshCheckpoint is one that covers what is acknowledged now, as far as that is to
// be had: its holder signs it, and another process waits a little for that.
func (t *Trail) freshCheckpoint() (tree.Checkpoint, error) {
	if t.holds() {
		select {
		case <-t.closed: // signed already
		default:
			if err := t.signer.sign(); err != nil {
				return tree.Checkpoint{}, err
			}
		}
		c, _, err := t.latest()
		return c, err
	}
	view, err := t.lines()
	if err != nil {
		return tree.Checkpoint{}, err
	}
	next, err := view.Count(context.Background())
	if err := errors.Join(err, view.Close()); err != nil {
		return tree.Checkpoint{}, err
	}
	for began := time.Now(); ; {
		c, _, err := t.latest()
		if err != nil || c.Size >= next || time.Since(began) > 2*time.Second || t.holder() == "" {
			return c, err
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// archiveTerms are what the trail's lifecycle entries say about an archive now.
func (t *Trail) archiveTerms(ctx context.Context) (*archiver.Terms, error) {
	state, err := t.lifeNow(ctx)
	if err != nil {
		return nil, err
	}
	holds, err := t.Holds(WithTrailItself(ctx))
	if err != nil {
		return nil, err
	}
	terms := &archiver.Terms{Held: func(s journal.Segment) (bool, error) {
		by, err := t.heldBy(ctx, holds, s)
		return by != "", err
	}}
	for _, h := range holds {
		terms.Holds = append(terms.Holds, h.ID)
	}
	terms.Retain = func(s journal.Segment) time.Time {
		// Where its seal is not to be had, or it goes on, it counts from now.
		newest, days := t.clock.now(), owedDays(state.Terms)
		for _, seal := range state.Seals {
			if seal.Segment.First == s.First && s.Count > 0 {
				newest, days = seal.Newest, max(days, seal.Days())
			}
		}
		return newest.Add(time.Duration(days) * 24 * time.Hour).UTC().Truncate(time.Second)
	}
	return terms, nil
}

// ArchiveState says how much of the trail is archived. ErrNotFound: it never was.
func (t *Trail) ArchiveState(ctx context.Context) (*ArchiveState, error) {
	s, err := archiver.ReadState(t.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("archive of %s: %w: it was never archived", t.path, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("archive of %s: %w", t.path, err)
	}
	out := &ArchiveState{To: s.To, Sealed: s.Sealed, Lines: s.Lines, Checkpoint: s.Checkpoint, At: s.At, Error: s.Error, Failing: s.Failing}
	view, err := t.view()
	if err != nil {
		return nil, fmt.Errorf("archive of %s: %w", t.path, err)
	}
	defer view.Close()
	next, err := view.Count(ctx)
	if err != nil {
		return nil, fmt.Errorf("archive of %s: %w", t.path, err)
	}
	out.Exposed = max(next-s.Lines, 0)
	out.howLocal(t.dir, view.Parts())
	for _, p := range view.Parts() {
		count := p.Count
		if p.Open {
			count = next - p.First
		}
		if count > 0 && p.First+count > s.Lines {
			// Of a part that is archived in part its share of bytes.
			left := p.First + count - max(p.First, s.Lines)
			out.Backlog += int64(float64(view.Bytes(p)) * float64(left) / float64(count))
		}
	}
	return out, nil
}

// howArchived says what is known of the archive.
func (t *Trail) howArchived(ctx context.Context, i *Info) {
	var err error
	if i.Archive, err = t.ArchiveState(ctx); err == nil {
		// A directory is within the reach of whoever writes the trail.
		if s := i.Archive; !strings.HasPrefix(s.To, "file:") && !s.At.IsZero() {
			i.Anchors = append(i.Anchors, AnchorInfo{Kind: verify.AnchorArchive, Name: s.To, Size: s.Checkpoint, Time: s.At, Lag: max(i.Covered-s.Checkpoint, 0), Problem: s.Error})
		}
		if alarm := i.Archive.alarm(t.clock.now()); alarm != "" {
			i.Warnings = append(i.Warnings, alarm)
		}
	} else if !errors.Is(err, ErrNotFound) {
		i.Warnings = append(i.Warnings, err.Error())
	}
}

// alarm says what needs somebody's attention; empty for nothing.
func (s *ArchiveState) alarm(now time.Time) string {
	switch {
	case s.Error != "" && now.Sub(s.Failing) >= archiveAlarm:
		return fmt.Sprintf("nothing could be archived since %s, and %d entries (%d bytes) are on this disk only: %s", formatTime(s.Failing), s.Exposed, s.Backlog, s.Error)
	case s.At.IsZero():
		return "" // the first round is under way, or has failed a moment ago
	case s.Exposed > 0 && now.Sub(s.At) >= archiveAlarm:
		return fmt.Sprintf("%d entries (%d bytes) are not archived; the last that were went to %s at %s", s.Exposed, s.Backlog, s.To, formatTime(s.At))
	}
	return ""
}

// archiving ships what its trail records, as long as this process holds it.
type archiving struct {
	pusher *archiver.Pusher
	sealed chan struct{} // a segment was sealed
	stop   context.CancelFunc
	done   sync.WaitGroup

	mayNotPrune bool // the credentials may not delete; of the rotation's goroutine
}

// startArchiving begins the rounds. A first one is made at once.
func (t *Trail) startArchiving() {
	if t.opts.ArchiveTo == nil || !t.onDisk() {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	a := &archiving{pusher: t.pusher(t.opts.ArchiveTo, t.opts.ArchiveRate), sealed: make(chan struct{}, 1), stop: cancel}
	t.archiving = a
	every := cmp.Or(t.opts.ArchiveEvery, DefaultArchiveEvery)
	a.done.Go(func() {
		timer := time.NewTimer(0)
		defer timer.Stop()
		told := ""
		for {
			select {
			case <-timer.C:
			case <-a.sealed:
			case <-ctx.Done():
				return
			}
			_, err := a.pusher.Push(ctx)
			if err == nil {
				err = t.letGo(ctx, t.opts.ArchiveTo)
			}
			if ctx.Err() != nil {
				return
			}
			if errors.Is(err, archiver.ErrForked) {
				// Two writers have the same past: the one that learns it stops.
				t.journal.Stop(explainArchive(err))
			}
			// One that goes on is told once; info shows it as long as it does.
			if err == nil {
				told = ""
			} else if err = explainArchive(err); err.Error() != told {
				told = err.Error()
				t.warn(err)
			}
			timer.Reset(every)
		}
	})
}

// kick makes the next round one of now.
func (a *archiving) kick() {
	if a == nil {
		return
	}
	select {
	case a.sealed <- struct{}{}:
	default:
	}
}

// end stops the rounds; what is left is for last.
func (a *archiving) end() {
	if a != nil {
		a.stop()
		a.done.Wait()
	}
}

// last ships what is left when a trail is closed, for as long as a checkpoint's sink
// may take.
func (a *archiving) last() error {
	if a == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), sinkGrace)
	defer cancel()
	_, err := a.pusher.Push(ctx)
	return explainArchive(err)
}

// explainArchive says what an archive's errors mean for a trail.
func explainArchive(err error) error {
	switch {
	case errors.Is(err, archiver.ErrForked), errors.Is(err, archiver.ErrConflict), errors.Is(err, archiver.ErrOther):
		return advice.For(fmt.Errorf("%w: %w", ErrForked, err),
			"one of the two is not the trail: a copy of its directory was started twice, it was brought back from an old backup, or another trail archives to the same place; choose another place for this one, or look which of them is right: kaizen-audit restore --verify-only --from URL")
	case errors.Is(err, archiver.ErrDamaged):
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return err
}

// RestoreOptions are the settings of Restore and VerifyArchive.
type RestoreOptions struct {
	// Key is the verifier key to trust; empty means the pinned one, else the
	// archive's own.
	Key string
	// Checkpoint is a checkpoint from outside, or several, as in VerifyOptions: what
	// they cover must be there, or is named as missing.
	Checkpoint []byte
	// Anchors are those of Options.Anchors: what they have vouched for, kept below
	// StateDir or shown by the witnesses, which are asked, counts as Checkpoint does.
	Anchors []Anchor
	// Warn is told what went wrong without failing the call; nil for nobody.
	Warn func(error)
	// StateDir is where pins are; empty means as in Options.
	StateDir string
	// Progress is told how many bytes were read, of how many.
	Progress func(done, total int64)
	// NewKey gives the trail a new signing key where the former one is lost, so that
	// it goes on. The former key can't vouch for it: who knows that one alone can
	// check what came before, and has to be given the new one for the rest. Who
	// permits things with a lifecycle key apart from it names that
	// (Successor.LifecycleKeyFile). What else was in keys/ is lost with it: it is
	// begun anew, and the fields of persons that were sealed stay unreadable.
	//
	// It also goes on with a trail that was restored without it.
	NewKey bool
	// Successor are the settings of the trail that goes on: with a new key, or the
	// one that is begun where entries are missing.
	Successor Options
}

// Restored says what an archive has.
type Restored struct {
	Origin string `json:"origin"`
	// Size and Root (base64) are of the newest checkpoint whose entries are all
	// there. Lines beyond it were acknowledged and not under a checkpoint yet.
	Size     int64  `json:"size"`
	Root     string `json:"root"`
	Lines    int64  `json:"lines"`
	Segments int    `json:"segments"`
	// Anchor is what the answer rests on, as in VerifyReport.
	Anchor string `json:"anchor"`
	// Pruned are entries of which only the digests are archived.
	Pruned []archiver.Range `json:"pruned"`
	// Missing are the entries at the end that a checkpoint covers and that are
	// nowhere; nil: none. They make what was restored end, and a successor begin.
	Missing *archiver.Range `json:"missing,omitempty"`
	// Successor is the origin of the trail that was begun; empty: the trail goes
	// on.
	Successor string `json:"successor,omitempty"`
	// Writable tells whether the signing key is there.
	Writable bool `json:"writable"`
	// NewKey is the verifier key of the signing key that was made; empty: none was.
	NewKey string `json:"new_key,omitempty"`
}

// Restore brings a trail back from its archive to path, where nothing may be: each
// line is verified while it is fetched. An interrupted one goes on where it was.
//
// What comes back is the trail that goes on. Where a checkpoint is known of more
// entries than are archived, here or from elsewhere, it is set aside as it is, and a
// successor is begun that says what is missing.
//
// Keys are not in an archive. Without the signing key (RestoreKeys) the trail can be
// verified and queried, until it gets a new one (NewKey).
func Restore(ctx context.Context, path string, store archive.Store, opts *RestoreOptions) (*Restored, error) {
	var o RestoreOptions
	if opts != nil {
		o = *opts
	}
	log, dir, err := paths(path)
	if err != nil {
		return nil, err
	}
	state := cmp.Or(o.StateDir, pin.DefaultDir())
	var fresh *newKey
	if o.NewKey {
		if fresh, err = newKeyFor(log, dir, state, o.Successor); err != nil {
			return nil, fmt.Errorf("restore %s: %w", path, err)
		}
	}
	var out *Restored
	if fresh != nil && fresh.restored {
		out, err = fresh.inPlace(ctx, store)
	} else {
		out, err = readArchive(ctx, store, o, state, log, dir, fresh)
	}
	if err == nil && out.Missing == nil && fresh != nil {
		err = fresh.goOn(out)
	}
	if err != nil {
		return nil, fmt.Errorf("restore %s: %w", path, err)
	}
	out.Writable = exists((&Trail{dir: dir}).signingFile())
	if out.Missing == nil {
		return out, nil
	}
	next := InitOptions{Options: o.Successor, SuccessorOf: path}
	next.StateDir, next.missing = o.StateDir, out.Missing
	i, err := Init(path, &next)
	if err != nil {
		return out, fmt.Errorf("restore %s: begin a successor: %w", path, err)
	}
	out.Successor, out.Writable = i.Origin, true
	return out, nil
}

// halfRestored is the error of opening what a Restore was interrupted at: there is
// no trail.json then.
func (t *Trail) halfRestored() error {
	if _, err := t.opts.fs.Stat(filepath.Join(t.dir, archiver.RestoringName)); err != nil {
		return nil
	}
	return advice.For(fmt.Errorf("%w: it was not restored to its end", ErrDamaged), "run the same kaizen-audit restore again: it goes on where it was")
}

// VerifyArchive checks an archive from its first line to its last. Nothing is
// written.
func VerifyArchive(ctx context.Context, store archive.Store, opts *RestoreOptions) (*Restored, error) {
	var o RestoreOptions
	if opts != nil {
		o = *opts
	}
	out, err := readArchive(ctx, store, o, cmp.Or(o.StateDir, pin.DefaultDir()), "", "", nil)
	if err != nil {
		return nil, fmt.Errorf("verify archive %s: %w", store.URL(), err)
	}
	return out, nil
}

func readArchive(ctx context.Context, store archive.Store, o RestoreOptions, state, log, dir string, fresh *newKey) (*Restored, error) {
	data, err := archiver.Identity(ctx, store)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, advice.For(fmt.Errorf("%w: no trail is archived at %s", ErrNotFound, store.URL()), "look whether the URL has the right bucket and prefix")
	}
	if err != nil {
		return nil, err
	}
	id, _, err := parseIdentity(data)
	if err != nil {
		return nil, fmt.Errorf("%w: archive: %w", ErrDamaged, err)
	}
	out := &Restored{Origin: id.Origin, Anchor: verify.AnchorNone, Pruned: []archiver.Range{}}
	trusted := id.VKey
	if log != "" {
		if was := pinnedOrigin(state, log); was != "" && was != id.Origin {
			return nil, advice.For(fmt.Errorf("%w: it was %s, and the archive's is %s", ErrPinned, was, id.Origin),
				"if that is right: kaizen-audit init --forget-pin, or restore to another path")
		}
	}
	if p, ok, err := pin.Origin(state, id.Origin); err == nil && ok {
		trusted, out.Anchor = p.VKey, verify.AnchorPinned
	}
	if o.Key != "" {
		trusted, out.Anchor = o.Key, verify.AnchorPinned
	}
	keys, err := id.trusted(trusted)
	if err != nil {
		return nil, fmt.Errorf("%w: the archive's %w", ErrPinned, err)
	}
	anchors, err := anchorsOf(o.Checkpoint, keys, id.Origin)
	if err != nil {
		return nil, err
	}
	said, err := o.anchored(ctx, id.Origin, state, keys)
	if err != nil {
		return nil, err
	}
	anchors = append(anchors, said...)
	host, err := json.Marshal((&Trail{clock: newClock(time.Now), opts: Options{Command: "kaizen-audit restore"}}).writer())
	if err != nil {
		return nil, err
	}
	r := archiver.Restore{Store: store, TrailJSON: data, Keys: keys, Anchors: checkpointsOf(anchors), Log: log, Dir: dir, Lock: append(host, '\n'),
		Inspect: func() journal.Inspector { return &measured{builder: tree.NewBuilder().RootOnly()} }, Progress: o.Progress}
	if fresh != nil {
		r.Identity = func(size int64) ([]byte, error) { return fresh.replace(ctx, id, size) }
	}
	got, err := r.Run(ctx)
	if errors.Is(err, durable.ErrLocked) {
		return nil, fmt.Errorf("%w: %w", ErrLocked, err)
	}
	if errors.Is(err, fs.ErrExist) {
		return nil, advice.For(err, "restore to an empty place; what is there stays as it is")
	}
	if err != nil {
		return nil, explainArchive(err)
	}
	out.Size, out.Root, out.Lines, out.Segments = got.Size, base64.StdEncoding.EncodeToString(got.Root[:]), got.Lines, got.Segments
	out.Pruned = append(out.Pruned, got.Pruned...)
	for _, a := range anchors {
		if a.Size <= got.Size {
			out.Anchor = verify.Stronger(out.Anchor, a.kind)
		}
	}
	if got.Known > got.Size {
		out.Missing = &archiver.Range{First: got.Lines, Count: max(got.Known-got.Lines, 0)}
	}
	return out, nil
}

// outsideHead is a checkpoint from outside, and the kind of anchor that it came from.
type outsideHead struct {
	tree.Checkpoint
	kind string
}

func checkpointsOf(list []outsideHead) (out []tree.Checkpoint) {
	for _, h := range list {
		out = append(out, h.Checkpoint)
	}
	return out
}

// anchorsOf reads checkpoints from outside; those of other trails are passed over.
func anchorsOf(data []byte, keys trust.Set, origin string) ([]outsideHead, error) {
	var list []outsideHead
	if data == nil {
		return nil, nil
	}
	for _, signed := range verify.CheckpointsIn(data) {
		c, err := tree.ParseCheckpoint(signed, keys)
		if err == nil {
			list = append(list, outsideHead{c, verify.AnchorCheckpoint})
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%w of %s under the archive's key", ErrNoCheckpoint, origin)
	}
	return list, nil
}

// anchored are the checkpoints that the anchors have vouched for.
func (o *RestoreOptions) anchored(ctx context.Context, origin, state string, keys trust.Set) ([]outsideHead, error) {
	anchors, err := makeAnchors(o.Anchors)
	if err != nil || len(anchors) == 0 {
		return nil, err
	}
	// Beside a trail that is not there yet nothing is kept.
	said, broken, err := saidBy(ctx, anchors, anchorStores("", state, origin)[1:], origin, o.Warn)
	if err != nil {
		return nil, err
	}
	if o.Warn != nil {
		for _, b := range broken {
			o.Warn(errors.New("anchor: " + b))
		}
	}
	var list []outsideHead
	for _, s := range said {
		c, err := tree.ParseCheckpoint(s.Checkpoint, keys)
		if err != nil {
			return nil, fmt.Errorf("%w: what %s %s has vouched for is not signed by the archive's key: %w", ErrDamaged, s.Kind, s.Name, err)
		}
		list = append(list, outsideHead{c, s.Kind})
	}
	return list, nil
}

// measured finds the root and the time bounds of a segment's lines.
type measured struct {
	builder *tree.Builder
	times   boundsOf
}

func (m *measured) Line(_ int64, line []byte) error {
	m.builder.Append(lineDigest(line))
	m.times.add(line)
	return nil
}

func (m *measured) Done() (string, journal.Bounds, error) {
	root := m.builder.Root()
	return hex.EncodeToString(root[:]), m.times.bounds(), nil
}
