package archiver

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/kaizen-audit/kaizen-audit/archive"
	"github.com/kaizen-audit/kaizen-audit/internal/durable"
)

// Cache gives the sealed files that are in the archive only, and keeps what it has
// fetched in X.trail/cache/, within a limit: what was used least lately goes first. Any
// number of processes may use it. What lies there is believed no more than what comes
// from the archive: each time its digest must be that of the reference. It is safe for
// concurrent use.
type Cache struct {
	Dir   string // X.trail
	Limit int64  // bytes of files
	// Store is the archive at a URL.
	Store func(url string) (archive.Store, error)

	mu     sync.Mutex // one fetch at a time
	failed error      // why the archive could not be asked at; under mu
	at     time.Time
}

// failedFor is how long an archive that could not be asked is not asked again: a
// reading meets one segment after the other.
const failedFor = 5 * time.Second

const (
	cacheDir      = "cache"
	cacheLockName = "lock"
)

func (c *Cache) dir() string { return filepath.Join(c.Dir, cacheDir) }

func (c *Cache) file(first int64) string {
	return filepath.Join(c.dir(), filepath.Base(segmentFile(first)))
}

// Open gives the sealed file of a segment. It is fs.ErrNotExist where there is no
// reference of it, and fs.ErrInvalid where the archive has not what that says; every
// other error says that the archive can't be asked.
func (c *Cache) Open(ctx context.Context, first int64) (*os.File, error) {
	r, err := ReadReference(c.Dir, first)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	unlock, err := c.lock(ctx)
	if err == nil {
		defer unlock()
		if err := c.makeRoom(0); err != nil { // the limit may be another one now
			return nil, err
		}
		if f := c.cached(r); f != nil {
			return f, nil
		}
	}
	if c.failed != nil && time.Since(c.at) < failedFor {
		return nil, c.failed
	}
	// Where nothing can be kept it is fetched for this time. The files are nobody
	// else's: 0600.
	dir, keep := c.dir(), err == nil && r.Stored <= c.Limit
	if err != nil {
		dir = "" // the system's directory for temporary files
	} else if keep {
		if err := c.makeRoom(r.Stored); err != nil {
			return nil, err
		}
	}
	f, err := os.CreateTemp(dir, "*"+partSuffix)
	if err != nil {
		return nil, err
	}
	err = c.fetch(ctx, r, f)
	if c.failed = nil; err != nil && !errors.Is(err, fs.ErrInvalid) && ctx.Err() == nil {
		c.failed, c.at = err, time.Now()
	}
	if err == nil && keep {
		err = os.Rename(f.Name(), c.file(first))
	} else {
		err = errors.Join(err, os.Remove(f.Name())) // it is there as long as it is open
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// lock takes the cache, which is made where it is missing.
func (c *Cache) lock(ctx context.Context) (unlock func(), err error) {
	if err := durable.MkdirAll(durable.OS, c.dir(), 0o700); err != nil {
		return nil, err
	}
	return lockFile(ctx, filepath.Join(c.dir(), cacheLockName))
}

// cached is a file that was fetched before and is what its reference says; nil for
// none. One that is not is removed.
func (c *Cache) cached(r Reference) *os.File {
	name := c.file(r.First)
	f, err := os.Open(name)
	if err != nil {
		return nil
	}
	sum := sha256.New()
	_, err = io.Copy(sum, f)
	if err == nil && hex.EncodeToString(sum.Sum(nil)) == r.SHA256 {
		if _, err = f.Seek(0, io.SeekStart); err == nil {
			now := time.Now()
			_ = os.Chtimes(name, now, now) // a wrong time makes it go sooner
			return f
		}
	}
	f.Close()
	_ = os.Remove(name) // it is not used, and fetched anew
	return nil
}

// fetch reads a segment from the archive.
func (c *Cache) fetch(ctx context.Context, r Reference, to *os.File) error {
	name := segmentFile(r.First)
	store, err := c.Store(r.From)
	if err != nil {
		return fmt.Errorf("%s is in the archive only: %w", name, err)
	}
	i, err := store.Head(ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: the archive %s does not have it", fs.ErrInvalid, r.From)
	}
	sum := sha256.New()
	if err == nil && i.Size == r.Stored {
		_, err = io.Copy(io.MultiWriter(to, sum), &reader{ctx: ctx, store: store, name: name, size: r.Stored})
	}
	if err != nil {
		return fmt.Errorf("it is in the archive %s only: %w", r.From, err)
	}
	if i.Size != r.Stored || hex.EncodeToString(sum.Sum(nil)) != r.SHA256 {
		return fmt.Errorf("%w: what the archive %s has of it is not what was archived", fs.ErrInvalid, r.From)
	}
	return nil
}

// entries are the files of the cache, the one that was used least lately first. What a
// fetch left that was cut off, and what no reference names any more, is removed.
func (c *Cache) entries() (list []fs.FileInfo, total int64, err error) {
	files, err := os.ReadDir(c.dir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	for _, f := range files {
		if f.Name() == cacheLockName {
			continue
		}
		fi, err := f.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, 0, err
		}
		first, ok := firstIn(segmentsDir+f.Name(), segmentsDir, sealedSuffix)
		if ok {
			_, err = os.Stat(filepath.Join(c.Dir, filepath.FromSlash(referenceFile(first))))
		}
		if !ok || errors.Is(err, fs.ErrNotExist) {
			if err := os.Remove(filepath.Join(c.dir(), f.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, 0, err
			}
			continue
		}
		list, total = append(list, fi), total+fi.Size()
	}
	slices.SortFunc(list, func(a, b fs.FileInfo) int { return cmp.Compare(a.ModTime().UnixNano(), b.ModTime().UnixNano()) })
	return list, total, nil
}

// makeRoom removes what was used least lately, until so many bytes more are within the
// limit. Who has a file open reads it on.
func (c *Cache) makeRoom(bytes int64) error {
	list, total, err := c.entries()
	for _, fi := range list {
		if err != nil || total+bytes <= c.Limit {
			break
		}
		if err = os.Remove(filepath.Join(c.dir(), fi.Name())); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		total -= fi.Size()
	}
	return err
}

// Sweep removes what was fetched of segments that are pruned.
func (c *Cache) Sweep(ctx context.Context) error {
	if _, err := os.Stat(c.dir()); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	unlock, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	_, _, err = c.entries()
	return err
}

// Cached is how many bytes lie in the cache of the trail in dir.
func Cached(dir string) (total int64) {
	files, _ := os.ReadDir(filepath.Join(dir, cacheDir)) // what can't be looked at is not counted
	for _, f := range files {
		if fi, err := f.Info(); err == nil {
			total += fi.Size()
		}
	}
	return total
}
