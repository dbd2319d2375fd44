package archiver

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kaizen-audit/kaizen-audit/archive"
	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/journal"
	"github.com/kaizen-audit/kaizen-audit/internal/tree"
	"github.com/kaizen-audit/kaizen-audit/internal/trust"
)

// Source is the trail that is archived.
type Source struct {
	Dir    string // X.trail
	Origin string
	// Checkpoint is the latest one, View what can be read after it: all that it
	// covers.
	Checkpoint func() (tree.Checkpoint, error)
	View       func() (*journal.View, error)
	// Archived gives what is in an archive only; nil where nothing can be.
	Archived journal.Archive
	// Trust is whose signatures count.
	Trust func() (trust.Set, error)
	// Terms are what is in force about its segments.
	Terms func(ctx context.Context) (*Terms, error)
}

// Terms are what is in force about a trail's segments.
type Terms struct {
	// Retain is until when a segment is kept.
	Retain func(journal.Segment) time.Time
	// Holds are the ids of the legal holds in force, Held whether one of them
	// covers something of a segment.
	Holds []string
	Held  func(journal.Segment) (bool, error)
}

// Pusher archives a trail. It is not safe for concurrent use.
type Pusher struct {
	// Rate is how many bytes a second go out at most; 0 is no limit.
	Rate int64
	// Progress is told how many bytes went out, of about how many.
	Progress func(done, total int64)

	store archive.Store
	src   Source

	// there is what the archive has, by name, once it was listed: the digest of
	// what this process has stored or compared, zero of the rest.
	there map[string]object
	fresh bool // there was nothing in it when it was listed
	limit limiter
	terms *Terms // of this round; nil until they are needed

	// The tail as it was cut at the last round: pieces from base on, of which
	// only the last can grow.
	base   int64
	pieces []piece

	done, total int64
}

type object struct {
	size int64
	sum  [sha256.Size]byte
}

// piece is an object of the tail.
type piece struct {
	first, count int64
	size         int64
}

// pieceBytes is the size at which a piece of the tail ends: with a line a moment
// the last one is written anew at every round, so that it must be small; and a
// segment of 256 MiB is 256 pieces.
const pieceBytes = 1 << 20

// NewPusher archives src to store.
func NewPusher(store archive.Store, src Source) *Pusher {
	return &Pusher{store: store, src: src}
}

// Push archives what is there now and is not archived yet, and returns once all of
// it is: sealed segments, the lines after them, and the checkpoint. It can be
// interrupted at any point and called again, by any process.
func (p *Pusher) Push(ctx context.Context) (s State, err error) {
	unlock, err := p.lock(ctx)
	if err != nil {
		return s, fmt.Errorf("archive to %s: %w", p.store.URL(), err)
	}
	defer unlock()
	was, _ := ReadState(p.src.Dir) // of a state that can't be read nothing is taken
	p.terms = nil
	s, err = p.push(ctx, was)
	if err != nil {
		p.there = nil // what of it arrived is for the next round to find out
		err = fmt.Errorf("archive to %s: %w", p.store.URL(), err)
		s = was.failed(p.store.URL(), err, time.Now())
		if ctx.Err() != nil {
			return s, err
		}
	}
	if s != was {
		err = errors.Join(err, s.write(p.src.Dir))
	}
	return s, err
}

// lock waits for its turn.
func (p *Pusher) lock(ctx context.Context) (unlock func(), err error) {
	return lockFile(ctx, filepath.Join(p.src.Dir, lockName))
}

// lockFile waits until it has the lock of a file, which is made where it is missing.
func lockFile(ctx context.Context, name string) (unlock func(), err error) {
	f, err := durable.OS.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := durable.OS.Lock(f)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, durable.ErrLocked) {
			return nil, errors.Join(err, f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), f.Close())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// termsNow reads the terms once a round.
func (p *Pusher) termsNow(ctx context.Context) (*Terms, error) {
	var err error
	if p.terms == nil {
		p.terms, err = p.src.Terms(ctx)
	}
	return p.terms, err
}

func (p *Pusher) push(ctx context.Context, was State) (State, error) {
	// The checkpoint before the lines: all that it covers is among them.
	c, err := p.src.Checkpoint()
	if err != nil {
		return State{}, err
	}
	view, err := p.src.View()
	if err != nil {
		return State{}, err
	}
	defer view.Close()
	if p.there == nil {
		if err := p.look(ctx, c); err != nil {
			return State{}, err
		}
	}
	if err := p.putIdentity(ctx); err != nil {
		return State{}, err
	}
	// What was pruned at the beginning has no part of its own here.
	parts := slices.DeleteFunc(view.Parts(), func(p journal.Part) bool { return p.File == "" && !p.Open })
	var sealed []journal.Part
	rest := parts
	for i, part := range parts {
		if part.Stored > 0 {
			sealed = append(sealed, part)
			rest = parts[i+1:]
		}
	}
	p.measure(sealed)
	base := rest[0].First
	if err := p.putSegments(ctx, sealed); err != nil {
		return State{}, err
	}
	lines, err := p.putTail(ctx, view, rest, base)
	if err != nil {
		return State{}, err
	}
	if lines < c.Size {
		return State{}, fmt.Errorf("the trail has %d entries where its checkpoint covers %d", lines, c.Size)
	}
	holds, err := p.hold(ctx, sealed, was)
	if err != nil {
		return State{}, err
	}
	for _, name := range loose {
		if err := p.putLoose(ctx, name); err != nil {
			return State{}, err
		}
	}
	if err := p.putKept(ctx, c.Size, sealed); err != nil {
		return State{}, err
	}
	if err := p.mineStill(ctx, c); err != nil {
		return State{}, err
	}
	// Interrupted until here: the archive has more lines than its checkpoint
	// covers, as a trail has after a crash.
	if err := p.replace(ctx, checkpointName, c.Signed); err != nil {
		return State{}, err
	}
	// From here on the pieces of what is sealed are not needed.
	if err := p.dropTail(ctx, base); err != nil {
		return State{}, err
	}
	return State{Format: stateFormat, To: p.store.URL(), Sealed: base, Lines: lines, Checkpoint: c.Size, Holds: holds, At: time.Now().UTC().Truncate(time.Second)}, nil
}

// Compare holds the archive's checkpoint against the trail's tree: ErrForked where it
// is none of the trail's past. An archive that has nothing yet is no error.
func (p *Pusher) Compare(ctx context.Context) error {
	c, err := p.src.Checkpoint()
	if err == nil {
		err = p.compare(ctx, c)
	}
	if err != nil {
		return fmt.Errorf("archive %s: %w", p.store.URL(), err)
	}
	return nil
}

// look lists the archive and compares it with the trail: it must be this trail's,
// and know no more of it than the trail itself.
func (p *Pusher) look(ctx context.Context, c tree.Checkpoint) error {
	p.there, p.base, p.pieces, p.fresh = map[string]object{}, -1, nil, false
	if _, err := p.store.Head(ctx, trailName); errors.Is(err, fs.ErrNotExist) {
		p.fresh = true
	} else if err != nil {
		p.there = nil
		return err
	} else if err := p.compare(ctx, c); err != nil {
		p.there = nil
		return err
	}
	for _, dir := range []string{segmentsDir, packedDir, keptDir, tailDir} {
		err := p.store.List(ctx, dir, func(i archive.Info) error {
			p.there[i.Name] = object{size: i.Size}
			return nil
		})
		if err != nil {
			p.there = nil
			return err
		}
	}
	return nil
}

// compare holds the archive's checkpoint against the trail's tree.
func (p *Pusher) compare(ctx context.Context, c tree.Checkpoint) error {
	data, err := readObject(ctx, p.store, trailName, maxSmall)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := isOf(data, p.src.Origin); err != nil {
		return err
	}
	data, err = readObject(ctx, p.store, checkpointName, maxSmall)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	keys, err := p.src.Trust()
	if err != nil {
		return err
	}
	archived, err := tree.ParseCheckpoint(data, keys)
	if err != nil {
		return fmt.Errorf("its checkpoint: %w", err)
	}
	if archived.Size > c.Size {
		return fmt.Errorf("%w: it has %d entries under a checkpoint, and this trail %d", ErrForked, archived.Size, c.Size)
	}
	_, err = tree.NewStore(durable.OS, p.src.Dir).Consistency(archived, c)
	if err != nil && !errors.As(err, new(*fs.PathError)) {
		return fmt.Errorf("%w: its checkpoint of %d entries is none of this trail's past: %w", ErrForked, archived.Size, err)
	}
	return err
}

// mineStill compares again where the archive's checkpoint is not the one that this
// process has left there: a copy of the trail archives too, or another process of this
// machine did.
func (p *Pusher) mineStill(ctx context.Context, c tree.Checkpoint) error {
	had := p.there[checkpointName]
	if had.sum == [sha256.Size]byte{} || had.sum == sha256.Sum256(c.Signed) {
		return nil
	}
	i, err := p.store.Head(ctx, checkpointName)
	if err != nil && !errors.Is(err, fs.ErrNotExist) || err == nil && i.SHA256 == had.sum {
		return err
	}
	delete(p.there, checkpointName)
	return p.compare(ctx, c)
}

func (p *Pusher) file(name string) string {
	return filepath.Join(p.src.Dir, filepath.FromSlash(name))
}

func (p *Pusher) putIdentity(ctx context.Context) error {
	data, err := durable.ReadFile(durable.OS, p.file(trailName), maxSmall)
	if err != nil {
		return err
	}
	return p.replace(ctx, trailName, data)
}

// putLoose stores a file that can change, where there is one.
func (p *Pusher) putLoose(ctx context.Context, name string) error {
	data, err := durable.ReadFile(durable.OS, p.file(name), maxLoose)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return p.replace(ctx, name, data)
}

// replace stores what can change, if it did.
func (p *Pusher) replace(ctx context.Context, name string, data []byte) error {
	o := archive.Object{Name: name, Size: int64(len(data)), SHA256: sha256.Sum256(data)}
	if p.there[name].sum == [sha256.Size]byte{} && !p.fresh {
		// This process has not stored it: another one may have, just so. Where
		// versions are kept each of them stays.
		i, err := p.store.Head(ctx, name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		p.there[name] = object{i.Size, i.SHA256}
	}
	o.Replace = p.there[name] != object{}
	if p.there[name] == (object{o.Size, o.SHA256}) {
		return nil
	}
	err := p.store.Put(ctx, o, p.limited(ctx, bytes.NewReader(data)))
	if errors.Is(err, archive.ErrExists) {
		// What an interrupted process sent came in after all.
		i, headed := p.store.Head(ctx, name)
		if headed != nil {
			return headed
		}
		if err = nil; i.Size != o.Size || i.SHA256 != o.SHA256 {
			o.Replace = true
			err = p.store.Put(ctx, o, p.limited(ctx, bytes.NewReader(data)))
		}
	}
	if err != nil {
		return err
	}
	p.there[name] = object{o.Size, o.SHA256}
	return nil
}

// keep stores what never changes. The digests of o are computed where it has none.
func (p *Pusher) keep(ctx context.Context, o archive.Object, body io.ReaderAt) error {
	name, size := o.Name, o.Size
	if had, ok := p.there[name]; ok && had.size != size {
		return fmt.Errorf("%w: its %s has %d bytes and this trail's %d", ErrConflict, name, had.size, size)
	} else if ok {
		return nil
	}
	if o.Parts == nil {
		if err := digestsOf(&o, body); err != nil {
			return err
		}
	}
	err := p.store.Put(ctx, o, p.limited(ctx, body))
	if errors.Is(err, archive.ErrExists) {
		// Another process was faster, or an answer was lost.
		i, err := p.store.Head(ctx, name)
		if err != nil {
			return err
		}
		if i.SHA256 != o.SHA256 || i.Size != size {
			return fmt.Errorf("%w: %s", ErrConflict, name)
		}
	} else if err != nil {
		return err
	}
	p.there[name] = object{size, o.SHA256}
	return nil
}

// measure says how much there is to do.
func (p *Pusher) measure(sealed []journal.Part) {
	p.done, p.total = 0, 0
	for _, part := range sealed {
		if _, ok := p.there[segmentFile(part.First)]; !ok {
			p.total += part.Stored
		}
	}
}

// hold sets and lifts legal holds on what is archived, as the trail's holds say now.
// It looks only where holds or segments are others than at the last round; the result
// says which those were.
func (p *Pusher) hold(ctx context.Context, sealed []journal.Part, was State) (string, error) {
	terms, err := p.termsNow(ctx)
	if err != nil {
		return "", err
	}
	now := strings.Join(terms.Holds, " ")
	if n := len(sealed); now != "" && n > 0 {
		now = fmt.Sprintf("%s to %d", now, sealed[n-1].First)
	}
	if was.To == p.store.URL() && was.Holds == now || was.Holds == "" && now == "" {
		return now, nil
	}
	for _, part := range sealed {
		held, err := terms.Held(part.Segment)
		if err != nil {
			return "", err
		}
		for _, name := range []string{segmentFile(part.First), packedFile(part.First)} {
			i, err := p.store.Head(ctx, name)
			if err == nil && i.Held != held {
				err = p.store.Hold(ctx, name, held)
			}
			if err != nil {
				return "", err
			}
		}
	}
	return now, nil
}

// putKept stores the kept checkpoints that what is archived is enough for.
func (p *Pusher) putKept(ctx context.Context, size int64, sealed []journal.Part) error {
	files, err := durable.OS.ReadDir(p.file(keptDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, f := range files {
		name := keptDir + f.Name()
		of, ok := sizeIn(name)
		if _, has := p.there[name]; !ok || has || of > size {
			continue
		}
		data, err := durable.ReadFile(durable.OS, p.file(name), maxSmall)
		if err != nil {
			return err
		}
		// It is kept as long as the segment whose entries it covers last; those
		// of the open segment as one that ends now.
		s := journal.Segment{}
		if i := slices.IndexFunc(sealed, func(part journal.Part) bool { return of > part.First && of <= part.First+part.Count }); i >= 0 {
			s = sealed[i].Segment
		}
		terms, err := p.termsNow(ctx)
		if err != nil {
			return err
		}
		if err := p.keep(ctx, archive.Object{Name: name, Size: int64(len(data)), RetainUntil: terms.Retain(s)}, bytes.NewReader(data)); err != nil {
			return err
		}
	}
	return nil
}

// limiter spreads what goes out over time.
type limiter struct {
	began time.Time
	bytes int64
}

// limited is body, no faster than Rate.
func (p *Pusher) limited(ctx context.Context, body io.ReaderAt) io.ReaderAt {
	return &limitedReader{p, ctx, body}
}

type limitedReader struct {
	p    *Pusher
	ctx  context.Context
	body io.ReaderAt
}

func (r *limitedReader) ReadAt(b []byte, off int64) (int, error) {
	n, err := r.body.ReadAt(b, off)
	p := r.p
	if p.Progress != nil {
		p.done += int64(n)
		p.Progress(p.done, max(p.total, p.done))
	}
	if p.Rate <= 0 {
		return n, err
	}
	now := time.Now()
	due := p.limit.began.Add(time.Duration(float64(p.limit.bytes) / float64(p.Rate) * float64(time.Second)))
	if due.Before(now) { // nothing was sent for a while, which is not made up for
		p.limit = limiter{began: now}
		due = now
	}
	p.limit.bytes += int64(n)
	select {
	case <-time.After(due.Sub(now)):
		return n, err
	case <-r.ctx.Done():
		return 0, r.ctx.Err()
	}
}

// State is what is known of the archive without asking it: archive.json.
type State struct {
	Format int    `json:"format"`
	To     string `json:"to"`
	// Sealed is the index up to which sealed segments are archived, Lines that of
	// the lines, Checkpoint the size of the archived checkpoint.
	Sealed     int64     `json:"sealed"`
	Lines      int64     `json:"lines"`
	Checkpoint int64     `json:"checkpoint"`
	At         time.Time `json:"at,omitzero"` // when that was so
	// Holds are the ids of the holds that were compared, and up to where.
	Holds string `json:"holds,omitempty"`
	// Error is why it could not be done since Failing.
	Error   string    `json:"error,omitempty"`
	Failing time.Time `json:"failing,omitzero"`
}

const stateFormat = 1

func (s State) failed(to string, err error, now time.Time) State {
	if s.To != to {
		s = State{To: to}
	}
	s.Format, s.Error = stateFormat, err.Error()
	if s.Failing.IsZero() {
		s.Failing = now.UTC().Truncate(time.Second)
	}
	return s
}

// ReadState reads archive.json below a trail's directory; fs.ErrNotExist where the
// trail was never archived.
func ReadState(dir string) (State, error) {
	data, err := durable.ReadFile(durable.OS, filepath.Join(dir, stateName), maxSmall)
	if err != nil {
		return State{}, err
	}
	return parseState(data)
}

func parseState(data []byte) (State, error) {
	var s State
	if json.Unmarshal(data, &s) != nil || s.Lines < 0 || s.Sealed < 0 || s.Checkpoint < 0 {
		return State{}, errors.New("archive.json: not the JSON that is expected")
	}
	if s.Format != stateFormat {
		return State{}, fmt.Errorf("archive.json: format %d, this program knows %d", s.Format, stateFormat)
	}
	return s, nil
}

func (s State) write(dir string) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return durable.WriteFile(durable.OS, filepath.Join(dir, stateName), append(data, '\n'), 0o600)
}
