package archiver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/kaizen-audit/kaizen-audit/archive"
)

const (
	maxSmall = 1 << 20
	// maxLoose bounds a manifest and the wrapped DEKs.
	maxLoose = 256 << 20
)

// identity is what has to be known of trail.json here.
type identity struct {
	Format int    `json:"format"`
	Origin string `json:"origin"`
}

func parseIdentity(data []byte) (identity, error) {
	var id identity
	if json.Unmarshal(data, &id) != nil || id.Origin == "" {
		return id, errors.New("trail.json of the archive: not the JSON that is expected")
	}
	return id, nil
}

// isOf is ErrOther for the trail.json of another trail.
func isOf(data []byte, origin string) error {
	id, err := parseIdentity(data)
	if err == nil && id.Origin != origin {
		err = fmt.Errorf("%w: it is of %s and this trail is %s", ErrOther, id.Origin, origin)
	}
	return err
}

// Checkpoint is an archived one, as it is signed: who reads it verifies that.
type Checkpoint struct {
	Signed []byte
	At     time.Time // when it was stored, by the store's clock
	Locked bool      // nobody could replace it since
}

// Checkpoints are the newest checkpoints of a trail that an archive has: the one that
// is replaced at each round, and the newest of those that are kept for good. Where the
// store keeps versions that one is found also where something else was put, or a
// delete marker, on top. None is no error.
func Checkpoints(ctx context.Context, store archive.Store, origin string) ([]Checkpoint, error) {
	data, err := readObject(ctx, store, trailName, maxSmall)
	if errors.Is(err, fs.ErrNotExist) {
		data, err = nil, nil // it may have been removed
	}
	if err == nil && data != nil {
		err = isOf(data, origin)
	}
	if err != nil {
		return nil, err
	}
	var out []Checkpoint
	i, err := store.Head(ctx, checkpointName)
	if err == nil {
		data, err = readObject(ctx, store, checkpointName, maxSmall)
		out = append(out, Checkpoint{Signed: data, At: i.Stored})
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	newest := int64(-1)
	var at time.Time
	var read func(context.Context) (io.ReadCloser, error)
	look := func(i archive.Info, r func(context.Context) (io.ReadCloser, error)) error {
		if size, ok := sizeIn(i.Name); ok && size > newest && i.Size <= maxSmall {
			newest, at, read = size, i.Stored, r
		}
		return nil
	}
	history, versions := store.(archive.History)
	if versions {
		err = history.First(ctx, keptDir, look)
	} else {
		err = store.List(ctx, keptDir, func(i archive.Info) error {
			return look(i, func(ctx context.Context) (io.ReadCloser, error) { return store.Get(ctx, i.Name, 0) })
		})
	}
	if err != nil || newest < 0 {
		return out, err
	}
	r, err := read(ctx)
	if err != nil {
		return nil, err
	}
	data, err = io.ReadAll(io.LimitReader(r, maxSmall))
	if err = errors.Join(err, r.Close()); err != nil {
		return nil, err
	}
	return append(out, Checkpoint{Signed: data, At: at, Locked: versions}), nil
}

// Identity is the archived trail.json; fs.ErrNotExist where nothing is archived.
func Identity(ctx context.Context, store archive.Store) ([]byte, error) {
	return readObject(ctx, store, trailName, maxSmall)
}

// readObject reads a small object whole.
func readObject(ctx context.Context, store archive.Store, name string, most int64) ([]byte, error) {
	i, err := store.Head(ctx, name)
	if err != nil {
		return nil, err
	}
	if i.Size > most {
		return nil, fmt.Errorf("archive: %s: larger than %d bytes", name, most)
	}
	return io.ReadAll(&reader{ctx: ctx, store: store, name: name, size: i.Size})
}

// reader reads an object to its end, and goes on where an answer breaks off: a
// server that is restarted, a response that is cut short.
type reader struct {
	ctx    context.Context
	store  archive.Store
	name   string
	size   int64
	offset int64 // to read from next

	body  io.ReadCloser
	tries int // without a byte
}

const (
	// readTries is how often an object is asked for without a byte of it: with
	// pauses of 0.2, 0.4, 0.8 and 1.6 s a server may be away for three seconds.
	readTries = 5
	readPause = 200 * time.Millisecond
)

func (r *reader) Read(p []byte) (int, error) {
	for {
		if r.offset >= r.size {
			_ = r.close() // all of it was read
			return 0, io.EOF
		}
		var err error
		if r.body == nil {
			r.body, err = r.store.Get(r.ctx, r.name, r.offset)
		}
		if err == nil {
			var n int
			n, err = r.body.Read(p[:min(int64(len(p)), r.size-r.offset)])
			if n > 0 {
				r.offset += int64(n)
				r.tries = 0
				return n, nil
			}
			if err == nil {
				continue
			}
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
		}
		_ = r.close() // what went wrong is told by the read
		if r.tries++; r.tries == readTries || errors.Is(err, fs.ErrNotExist) || r.ctx.Err() != nil {
			return 0, fmt.Errorf("read %s from the archive at byte %d of %d: %w", r.name, r.offset, r.size, err)
		}
		select {
		case <-time.After(readPause << (r.tries - 1)):
		case <-r.ctx.Done():
			return 0, r.ctx.Err()
		}
	}
}

func (r *reader) close() error {
	if r.body == nil {
		return nil
	}
	err := r.body.Close()
	r.body = nil
	return err
}
