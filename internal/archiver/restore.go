package archiver

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/kaizen-audit/kaizen-audit/archive"
	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/journal"
	"github.com/kaizen-audit/kaizen-audit/internal/tree"
	"github.com/kaizen-audit/kaizen-audit/internal/trust"
)

// ErrDamaged: what the archive has is not what its checkpoints cover.
var ErrDamaged = errors.New("the archive is damaged")

// Restore is what is brought back, and where to.
type Restore struct {
	Store archive.Store
	// TrailJSON is the archived trail.json, which the caller has looked at, and
	// Keys whose signatures count.
	TrailJSON []byte
	Keys      trust.Set
	// Anchors are checkpoints from outside the archive.
	Anchors []tree.Checkpoint
	// Log and Dir are the trail's places; empty: the archive is verified, and
	// nothing is written.
	Log, Dir string
	// Identity, where it is given, makes the trail.json that is written instead of
	// the archived one, once it is known how many entries a checkpoint covers.
	Identity func(size int64) ([]byte, error)
	// Lock says in the file lock who is at work.
	Lock []byte
	// Inspect makes what looks at a segment's lines for its entry in the manifest.
	Inspect func() journal.Inspector
	// Progress is told how many bytes were read, of how many.
	Progress func(done, total int64)

	builder  *tree.Builder
	heads    map[int64]head
	store    *tree.Store
	segments []journal.Segment
	out      Restored
	done     int64
	total    int64
	good     int64 // the greatest head that is the tree's
}

// head is a checkpoint and where it came from.
type head struct {
	tree.Checkpoint
	from string
}

// Range is a range of entries.
type Range struct {
	First int64 `json:"first"`
	Count int64 `json:"count"`
}

// Restored is what an archive has.
type Restored struct {
	// Size and Root are of the newest checkpoint whose entries are all there.
	Size int64
	Root tree.Hash
	// Lines are the entries up to the last line, Segments the sealed files.
	Lines    int64
	Segments int
	// Pruned are entries of which only the digests are archived.
	Pruned []Range
	// Known is the size of the newest checkpoint that is known, from the archive
	// or elsewhere: greater than Size where entries are missing at the end.
	Known int64
}

// RestoringName is the file that says that a directory is not a trail yet.
const RestoringName = "restoring"

type restoring struct {
	Format int    `json:"format"`
	Origin string `json:"origin"`
	From   string `json:"from"`
}

// Run verifies the archive from the first entry to the last, and writes what it has
// on the way, where it is to. It can be interrupted and run again: what is there
// already is not fetched again, but is verified.
func (r *Restore) Run(ctx context.Context) (*Restored, error) {
	if err := r.readHeads(ctx); err != nil {
		return nil, err
	}
	r.builder = tree.NewBuilder()
	if r.Dir == "" {
		r.builder.RootOnly()
	} else {
		unlock, err := r.begin()
		if err != nil {
			return nil, err
		}
		defer unlock()
	}
	if err := r.walk(ctx); err != nil {
		return nil, err
	}
	r.out.Lines, r.out.Segments = r.builder.Size(), len(r.segments)
	for size, h := range r.heads {
		r.out.Known = max(r.out.Known, size)
		if size == r.good {
			r.out.Size, r.out.Root = size, h.Root
		}
	}
	if r.good == 0 {
		return nil, fmt.Errorf("%w: no checkpoint covers what is there", ErrDamaged)
	}
	if r.Dir != "" {
		if err := r.end(ctx); err != nil {
			return nil, err
		}
	}
	return &r.out, nil
}

// readers is how many small objects are asked for at once: kept checkpoints are one
// an hour.
const readers = 16

// readHeads reads the checkpoints of the archive, and adds the anchors.
func (r *Restore) readHeads(ctx context.Context) error {
	names := []string{checkpointName}
	err := r.Store.List(ctx, keptDir, func(i archive.Info) error {
		if _, ok := sizeIn(i.Name); ok {
			names = append(names, i.Name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	var errs []error
	r.heads = map[int64]head{}
	queue := make(chan string)
	for range min(readers, len(names)) {
		wg.Go(func() {
			for name := range queue {
				data, err := readObject(ctx, r.Store, name, maxSmall)
				mu.Lock()
				if name != checkpointName || !errors.Is(err, fs.ErrNotExist) {
					errs = append(errs, r.addHead(name, data, err))
				}
				mu.Unlock()
			}
		})
	}
	for _, name := range names {
		queue <- name
	}
	close(queue)
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, c := range r.Anchors {
		if had, ok := r.heads[c.Size]; ok && had.Root != c.Root {
			return fmt.Errorf("%w: %s is not the checkpoint that is known outside for %d entries: the history was exchanged", ErrDamaged, had.from, c.Size)
		}
		r.heads[c.Size] = head{c, "a checkpoint from outside"}
	}
	return nil
}

func (r *Restore) addHead(name string, data []byte, err error) error {
	if err != nil {
		return err
	}
	c, err := tree.ParseCheckpoint(data, r.Keys)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrDamaged, name, err)
	}
	if size, ok := sizeIn(name); ok && size != c.Size {
		return fmt.Errorf("%w: %s is a checkpoint of size %d", ErrDamaged, name, c.Size)
	}
	if had, ok := r.heads[c.Size]; ok && had.Root != c.Root {
		return fmt.Errorf("%w: %s and %s are of %d entries and have two roots", ErrDamaged, had.from, name, c.Size)
	}
	r.heads[c.Size] = head{c, name}
	return nil
}

// walk goes through all entries.
func (r *Restore) walk(ctx context.Context) error {
	found := map[int64]map[string]int64{} // by first index: the names and their sizes
	for _, kind := range []struct{ dir, suffix string }{{segmentsDir, sealedSuffix}, {packedDir, ""}} {
		err := r.Store.List(ctx, kind.dir, func(i archive.Info) error {
			first, ok := firstIn(i.Name, kind.dir, kind.suffix)
			if !ok {
				return nil
			}
			if found[first] == nil {
				found[first] = map[string]int64{}
			}
			found[first][i.Name] = i.Size
			if kind.dir == segmentsDir {
				r.total += i.Size
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	var tail []archive.Info
	err := r.Store.List(ctx, tailDir, func(i archive.Info) error {
		if _, ok := firstIn(i.Name, tailDir, plainSuffix); ok {
			tail = append(tail, i)
			r.total += i.Size
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, first := range slices.Sorted(maps.Keys(found)) {
		if first != r.builder.Size() {
			break // what lies between is nowhere but, perhaps, in the tail
		}
		if err := r.segment(ctx, first, found[first]); err != nil {
			return err
		}
		if err := r.flush(); err != nil {
			return err
		}
	}
	if err := r.readTail(ctx, tail); err != nil {
		return err
	}
	return r.flush()
}

// leaf adds an entry, and compares the tree with the checkpoint of its size.
func (r *Restore) leaf(digest tree.Hash) error {
	r.builder.Append(digest)
	h, ok := r.heads[r.builder.Size()]
	if !ok {
		return nil
	}
	if r.builder.Root() != h.Root {
		return fmt.Errorf("%w: entries %d to %d are not what %s covers", ErrDamaged, r.good, h.Size-1, h.from)
	}
	r.good = h.Size
	return nil
}

func (r *Restore) flush() error {
	if r.store == nil {
		return nil
	}
	snap := r.builder.Snapshot()
	if err := r.store.Flush(snap); err != nil {
		return err
	}
	r.builder.Flushed(snap)
	return nil
}

// segment takes a sealed segment, or where it was pruned the digests of its lines.
func (r *Restore) segment(ctx context.Context, first int64, objects map[string]int64) error {
	packed, err := r.packed(ctx, first, objects)
	if err != nil {
		return err
	}
	name := segmentFile(first)
	size, ok := objects[name]
	if !ok {
		for _, digest := range packed {
			if err := r.leaf(digest); err != nil {
				return err
			}
		}
		r.out.Pruned = append(r.out.Pruned, Range{first, int64(len(packed))})
		return nil
	}
	look := r.Inspect()
	each := func(index int64, line []byte) error {
		digest := sha256.Sum256(line)
		if at := index - first; packed != nil && (at >= int64(len(packed)) || packed[at] != digest) {
			return fmt.Errorf("%w: entry %d in %s is not what %s says", ErrDamaged, index, name, packedFile(first))
		}
		if err := look.Line(index, line); err != nil {
			return err
		}
		return r.leaf(digest)
	}
	s := journal.Segment{First: first, File: filepath.Base(name), Stored: size}
	var next int64
	if r.Dir == "" {
		next, s.Bytes, err = r.stream(ctx, name, size, first, each)
	} else {
		next, s.Bytes, err = r.download(ctx, name, size, first, each)
	}
	if err != nil {
		return err
	}
	if s.Count = next - first; packed != nil && s.Count != int64(len(packed)) {
		return fmt.Errorf("%w: %s has %d entries and %s says %d", ErrDamaged, name, s.Count, packedFile(first), len(packed))
	}
	if s.Root, s.Bounds, err = look.Done(); err != nil {
		return err
	}
	r.segments = append(r.segments, s)
	return nil
}

// packed reads the digests of a segment, nil where they are not archived yet.
func (r *Restore) packed(ctx context.Context, first int64, objects map[string]int64) ([]tree.Hash, error) {
	name := packedFile(first)
	size, ok := objects[name]
	if !ok {
		return nil, nil
	}
	if size%sha256.Size != 0 {
		return nil, fmt.Errorf("%w: %s is no list of digests", ErrDamaged, name)
	}
	data, err := io.ReadAll(&reader{ctx: ctx, store: r.Store, name: name, size: size})
	if err != nil {
		return nil, err
	}
	out := make([]tree.Hash, 0, len(data)/sha256.Size)
	for ; len(data) > 0; data = data[sha256.Size:] {
		out = append(out, tree.Hash(data))
	}
	return out, nil
}

// counted tells of what was read.
type counted struct {
	io.Reader
	r *Restore
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.r.read(int64(n))
	return n, err
}

func (r *Restore) read(n int64) {
	r.done += n
	if r.Progress != nil {
		r.Progress(r.done, r.total)
	}
}

// lines reads a sealed file; what is wrong with its form is damage.
func lines(in io.Reader, name string, first int64, each func(int64, []byte) error) (next, bytes int64, err error) {
	var own error
	next, bytes, err = journal.ReadSealed(in, first, func(index int64, line []byte) error {
		own = each(index, line)
		return own
	})
	if err != nil && own == nil && !errors.As(err, new(*readError)) {
		err = fmt.Errorf("%w: %s can't be read from entry %d on: %w", ErrDamaged, name, next, err)
	}
	return next, bytes, err
}

// readError is what went wrong in reading, not with what was read.
type readError struct{ error }

func (e *readError) Unwrap() error { return e.error }

type reading struct{ io.Reader }

func (r reading) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err != nil && err != io.EOF {
		err = &readError{err}
	}
	return n, err
}

// stream verifies a sealed file without keeping it.
func (r *Restore) stream(ctx context.Context, name string, size, first int64, each func(int64, []byte) error) (next, bytes int64, err error) {
	i, err := r.Store.Head(ctx, name)
	if err != nil {
		return first, 0, err
	}
	sum := sha256.New()
	in := reading{counted{&reader{ctx: ctx, store: r.Store, name: name, size: size}, r}}
	next, bytes, err = lines(io.TeeReader(in, sum), name, first, each)
	if err == nil {
		// The decoder stops where its last frame ends.
		_, err = io.Copy(sum, in)
	}
	if err == nil {
		err = sameSum(i, sum.Sum(nil))
	}
	return next, bytes, err
}

// sameSum compares what was read with what the store says it was given.
func sameSum(i archive.Info, sum []byte) error {
	if i.SHA256 != [sha256.Size]byte{} && !bytes.Equal(sum, i.SHA256[:]) {
		return fmt.Errorf("%w: the bytes of %s are not those that were stored", ErrDamaged, i.Name)
	}
	return nil
}

// download fetches a sealed file, from where an interrupted run left off, and
// verifies it.
func (r *Restore) download(ctx context.Context, name string, size, first int64, each func(int64, []byte) error) (next, bytes int64, err error) {
	file := filepath.Join(r.Dir, filepath.FromSlash(name))
	if fi, err := os.Stat(file); err != nil || fi.Size() != size {
		if err := r.fetch(ctx, name, size, file); err != nil {
			return first, 0, err
		}
	} else {
		r.read(size)
	}
	in, err := os.Open(file)
	if err != nil {
		return first, 0, err
	}
	defer in.Close()
	return lines(in, name, first, each)
}

const partSuffix = ".part"

func (r *Restore) fetch(ctx context.Context, name string, size int64, file string) error {
	i, err := r.Store.Head(ctx, name)
	if err != nil {
		return err
	}
	part, err := os.OpenFile(file+partSuffix, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer part.Close()
	sum := sha256.New()
	had, err := io.Copy(sum, part)
	if err == nil && had > size {
		had = 0
		sum.Reset()
		err = part.Truncate(0)
	}
	if err != nil {
		return err
	}
	r.read(had)
	out := io.MultiWriter(io.NewOffsetWriter(part, had), sum)
	if _, err := io.Copy(out, counted{&reader{ctx: ctx, store: r.Store, name: name, size: size, offset: had}, r}); err != nil {
		return err
	}
	if err := sameSum(i, sum.Sum(nil)); err != nil {
		// The part that was there before may be what is wrong: the next run
		// fetches all of it.
		return errors.Join(err, os.Remove(file+partSuffix))
	}
	for _, step := range []func() error{
		part.Sync,
		func() error { return os.Chmod(file+partSuffix, 0o400) },
		func() error { return durable.OS.Rename(file+partSuffix, file) },
		func() error { return durable.OS.SyncDir(filepath.Dir(file)) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// begin takes the place where the trail is to be. Until the end it has a checkpoint
// and no trail.json, which no opening takes for a trail.
func (r *Restore) begin() (unlock func(), err error) {
	var id restoring
	if json.Unmarshal(r.TrailJSON, &id) != nil {
		return nil, errors.New("trail.json of the archive: not the JSON that is expected")
	}
	mark, err := json.Marshal(restoring{1, id.Origin, r.Store.URL()})
	if err != nil {
		return nil, err
	}
	if err := r.free(id.Origin); err != nil {
		return nil, err
	}
	if err := durable.MkdirAll(durable.OS, filepath.Join(r.Dir, segmentsDir), 0o700); err != nil {
		return nil, err
	}
	lock, err := durable.OS.OpenFile(filepath.Join(r.Dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	// The lock is not empty: that would say that the trail was closed, with no
	// line that its checkpoint does not cover.
	if err := durable.OS.Lock(lock); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", filepath.Join(r.Dir, "lock"), err), lock.Close())
	}
	_, err = lock.WriteAt(r.Lock, 0)
	if err == nil {
		err = errors.Join(lock.Truncate(int64(len(r.Lock))), lock.Sync())
	}
	top := r.heads[slices.Max(slices.Collect(maps.Keys(r.heads)))]
	for name, data := range map[string][]byte{RestoringName: append(mark, '\n'), checkpointName: top.Signed} {
		if err == nil {
			err = durable.WriteFile(durable.OS, filepath.Join(r.Dir, name), data, 0o600)
		}
	}
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	r.store = tree.NewStore(durable.OS, r.Dir)
	return func() { lock.Close() }, nil
}

// free refuses a place that has anything but keys that were put back first, or what
// an interrupted restore of the same trail left.
func (r *Restore) free(origin string) error {
	data, err := durable.ReadFile(durable.OS, filepath.Join(r.Dir, RestoringName), maxSmall)
	if err == nil {
		var was restoring
		if json.Unmarshal(data, &was) != nil || was.Format != 1 || was.Origin != origin {
			return fmt.Errorf("%s: another restore was begun there: %w", r.Dir, fs.ErrExist)
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, err := os.Lstat(r.Log); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", r.Log, cmp.Or(err, fs.ErrExist))
	}
	files, err := os.ReadDir(r.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, f := range files {
		switch f.Name() {
		case "keys":
		case trailName:
			data, err := durable.ReadFile(durable.OS, filepath.Join(r.Dir, trailName), maxSmall)
			if err != nil {
				return err
			}
			if id, err := parseIdentity(data); err != nil || id.Origin != origin {
				return fmt.Errorf("%s: the keys there are another trail's: %w", r.Dir, fs.ErrExist)
			}
		default:
			return fmt.Errorf("%s: %w", filepath.Join(r.Dir, f.Name()), fs.ErrExist)
		}
	}
	return nil
}

// readTail takes the lines that are not sealed. The same line can be in two pieces
// where the tail was cut anew.
func (r *Restore) readTail(ctx context.Context, tail []archive.Info) (err error) {
	var out *os.File
	if r.Dir != "" {
		if out, err = os.OpenFile(r.Log+restoringSuffix, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600); err != nil {
			return err
		}
		defer out.Close()
	}
	for _, i := range tail {
		first, _ := firstIn(i.Name, tailDir, plainSuffix)
		if first > r.builder.Size() {
			break // what lies between is missing, and Known tells
		}
		in := reading{counted{&reader{ctx: ctx, store: r.Store, name: i.Name, size: i.Size}, r}}
		var text []byte
		_, _, err := journal.ReadPlain(in, first, func(index int64, line []byte) error {
			if index < r.builder.Size() {
				return nil
			}
			text = append(append(text, line...), '\n')
			return r.leaf(sha256.Sum256(line))
		})
		if err != nil {
			return err
		}
		if out != nil {
			if _, err := out.Write(text); err != nil {
				return err
			}
		}
	}
	if out == nil {
		return nil
	}
	return out.Sync()
}

// restoringSuffix ends the name of the open segment until the trail is whole.
const restoringSuffix = ".restoring"

// end makes a trail of what was fetched: trail.json is the last of it.
func (r *Restore) end(ctx context.Context) error {
	for _, name := range []string{policyName, deksName} {
		file := filepath.Join(r.Dir, filepath.FromSlash(name))
		if _, err := os.Stat(file); err == nil {
			continue // from a backup of keys
		}
		data, err := readObject(ctx, r.Store, name, maxLoose)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = durable.MkdirAll(durable.OS, filepath.Dir(file), 0o700)
		}
		if err == nil {
			err = durable.WriteFile(durable.OS, file, data, 0o600)
		}
		if err != nil {
			return err
		}
	}
	manifest, err := journal.FormatManifest(r.segments)
	if err == nil {
		err = durable.WriteFile(durable.OS, filepath.Join(r.Dir, manifestName), manifest, 0o600)
	}
	for _, size := range slices.Sorted(maps.Keys(r.heads)) {
		// One that covers more than there is would make the trail look cut off
		// here, where it is the archive that lacks it.
		if h := r.heads[size]; err == nil && size <= r.good {
			err = r.store.Keep(h.Checkpoint)
		}
	}
	if err == nil {
		err = r.store.Put(r.heads[r.good].Checkpoint)
	}
	if err == nil {
		err = r.store.Tidy(r.good)
	}
	if err == nil {
		err = durable.OS.Rename(r.Log+restoringSuffix, r.Log)
	}
	if errors.Is(err, fs.ErrNotExist) {
		if _, there := os.Stat(r.Log); there == nil { // renamed before an interruption
			err = nil
		}
	}
	if err == nil {
		err = durable.OS.SyncDir(filepath.Dir(r.Log))
	}
	identity := r.TrailJSON
	if err == nil && r.Identity != nil && r.out.Known <= r.good {
		identity, err = r.Identity(r.good)
	}
	if err == nil {
		err = durable.WriteFile(durable.OS, filepath.Join(r.Dir, trailName), identity, 0o600)
	}
	// Interrupted from here on: a whole trail, with a mark that means nothing
	// beside trail.json.
	if err == nil {
		err = os.Remove(filepath.Join(r.Dir, RestoringName))
	}
	if err == nil {
		err = durable.OS.SyncDir(r.Dir)
	}
	return err
}
