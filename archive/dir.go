package archive

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/kaizen-audit/kaizen-audit/internal/advice"
	"github.com/kaizen-audit/kaizen-audit/internal/durable"
)

// Dir is a store in a directory. Objects are files of their names, those with a
// retention date read-only (0400). What else is known of an object lies in
// .objects/ under the same name with .json behind it; .new/ holds what is being
// written.
//
// A directory keeps what it has from mistakes, not from whoever may write it:
// lock it by the means of its file system, or use an object store, against that.
type Dir struct {
	root string
	now  func() time.Time
	mu   sync.Mutex // held while what is known of an object is looked at and changed
}

// facts is the file about an object.
type facts struct {
	Format      int       `json:"format"`
	SHA256      string    `json:"sha256"`
	RetainUntil time.Time `json:"retain_until,omitzero"`
	Held        bool      `json:"held,omitempty"`
}

const factsFormat = 1

const (
	factsDir = ".objects"
	newDir   = ".new"
)

// OpenDir is the store in the directory of a file: URL (file:///mnt/archive). It
// looks at nothing yet: a disk that is not mounted is the error of what is done.
func OpenDir(rawURL string) (*Dir, error) {
	u, err := url.Parse(rawURL)
	if err != nil || u.Scheme != "file" || u.Host != "" || u.RawQuery != "" || u.Fragment != "" || !filepath.IsAbs(u.Path) {
		return nil, fmt.Errorf("archive: %q is no file: URL with an absolute path, such as file:///mnt/archive: %w", rawURL, fs.ErrInvalid)
	}
	return &Dir{root: filepath.Clean(u.Path), now: time.Now}, nil
}

// Create makes the directory. Nothing else does: where a disk is not mounted, its
// archive must not begin anew on another one.
func (d *Dir) Create(context.Context) error {
	if err := durable.MkdirAll(durable.OS, d.root, 0o700); err != nil {
		return fmt.Errorf("create archive: %w", err)
	}
	return nil
}

// Condition looks that the directory is there. Nothing in it is locked.
func (d *Dir) Condition(context.Context) (Condition, error) {
	return Condition{Lock: "none"}, d.there()
}

// there says what to do where the directory is not there, or not to be used. That is
// not fs.ErrNotExist, which is of an object.
func (d *Dir) there() error {
	_, gone := os.Stat(d.root)
	if gone == nil {
		return nil
	}
	err := fmt.Errorf("the directory %s can't be used: %v", d.root, errors.Unwrap(gone))
	if errors.Is(gone, fs.ErrNotExist) {
		return advice.For(err, "mount the disk that it lies on; where it is to begin there: kaizen-audit archive push --to %s --create-bucket", advice.Quote(d.URL()))
	}
	return err
}

// URL is the directory as a URL.
func (d *Dir) URL() string { return (&url.URL{Scheme: "file", Path: d.root}).String() }

func (d *Dir) file(name string) string { return filepath.Join(d.root, filepath.FromSlash(name)) }

func (d *Dir) factsFile(name string) string {
	return filepath.Join(d.root, factsDir, filepath.FromSlash(name)+".json")
}

// Put writes a file in .new/, syncs it and gives it its name: by a link, which
// fails where there is one, or to replace by rename.
func (d *Dir) Put(ctx context.Context, o Object, body io.ReaderAt) error {
	if err := o.Check(); err != nil {
		return err
	}
	if err := d.put(ctx, o, body); err != nil {
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
			err = fmt.Errorf("%w: %w", ErrFull, err)
		}
		return fmt.Errorf("archive %s: %w", o.Name, err)
	}
	return nil
}

func (d *Dir) put(ctx context.Context, o Object, body io.ReaderAt) (err error) {
	if err := d.there(); err != nil {
		return err
	}
	name := d.file(o.Name)
	if o.Replace {
		if err := d.mayChange(o.Name); err != nil {
			return err
		}
	} else if _, err := os.Lstat(name); err == nil {
		return ErrExists
	}
	for _, dir := range []string{filepath.Dir(name), filepath.Dir(d.factsFile(o.Name)), filepath.Join(d.root, newDir)} {
		if err := durable.MkdirAll(durable.OS, dir, 0o700); err != nil {
			return err
		}
	}
	tmp := filepath.Join(d.root, newDir, rand.Text())
	defer func() {
		if gone := os.Remove(tmp); !errors.Is(gone, fs.ErrNotExist) {
			err = errors.Join(err, gone)
		}
	}()
	if err := writeChecked(ctx, tmp, o, body); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	known := facts{Format: factsFormat, SHA256: hex.EncodeToString(o.SHA256[:]), RetainUntil: o.RetainUntil.UTC()}
	if o.Replace {
		// Crash between the two: what is known has another digest than the file,
		// and Head then says that of the file.
		if err := durable.OS.Rename(tmp, name); err != nil {
			return err
		}
		return errors.Join(durable.OS.SyncDir(filepath.Dir(name)), d.putFacts(o.Name, known))
	}
	if !o.RetainUntil.IsZero() {
		if err := os.Chmod(tmp, 0o400); err != nil {
			return err
		}
	}
	if err := os.Link(tmp, name); errors.Is(err, fs.ErrExist) {
		return ErrExists
	} else if err != nil {
		return err
	}
	// Crash from here on: the object is there and nothing is known of it. It has
	// its mode, so that nobody takes it for one without a lock, and who puts it
	// again is told that it exists and looks.
	return errors.Join(durable.OS.SyncDir(filepath.Dir(name)), d.putFacts(o.Name, known))
}

// writeChecked writes what body has and compares it with what it should be.
func writeChecked(ctx context.Context, tmp string, o Object, body io.ReaderAt) error {
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(f, sum), &ctxReader{ctx, io.NewSectionReader(body, 0, o.Size)})
	switch {
	case err != nil:
		return err
	case n != o.Size || !bytes.Equal(sum.Sum(nil), o.SHA256[:]):
		return errors.New("what was to be stored has changed meanwhile")
	}
	return errors.Join(f.Sync(), f.Close())
}

type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (r *ctxReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

func (d *Dir) putFacts(name string, known facts) error {
	data, err := json.Marshal(known)
	if err != nil {
		return err
	}
	return durable.WriteFile(durable.OS, d.factsFile(name), append(data, '\n'), 0o600)
}

const maxFacts = 1 << 16

// facts are zero where nothing is known.
func (d *Dir) facts(name string) (facts, error) {
	data, err := durable.ReadFile(durable.OS, d.factsFile(name), maxFacts)
	if errors.Is(err, fs.ErrNotExist) {
		return facts{}, nil
	}
	if err != nil {
		return facts{}, err
	}
	return parseFacts(data)
}

func parseFacts(data []byte) (facts, error) {
	var known facts
	if json.Unmarshal(data, &known) != nil {
		return facts{}, errors.New("what is known of it is not the JSON that is expected")
	}
	if known.Format != factsFormat {
		return facts{}, fmt.Errorf("what is known of it has format %d, this program knows %d", known.Format, factsFormat)
	}
	return known, nil
}

// mayChange is ErrKept for what has a lock.
func (d *Dir) mayChange(name string) error {
	fi, err := os.Lstat(d.file(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	known, err := d.facts(name)
	switch {
	case err != nil:
		return err
	case known.Held, d.now().Before(known.RetainUntil), known.Format == 0 && fi.Mode().Perm()&0o200 == 0:
		return ErrKept
	}
	return nil
}

// Get opens the file.
func (d *Dir) Get(_ context.Context, name string, offset int64) (io.ReadCloser, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	f, err := os.Open(d.file(name))
	if err != nil {
		return nil, d.explain(err)
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// explain tells a directory that is not there from an object that is not: only
// the second is fs.ErrNotExist.
func (d *Dir) explain(err error) error {
	if gone := d.there(); gone != nil {
		return fmt.Errorf("archive: %w", gone)
	}
	return fmt.Errorf("archive: %w", err)
}

// Head looks at the file, and reads it whole where its digest is not known.
func (d *Dir) Head(ctx context.Context, name string) (Info, error) {
	i := Info{Name: name}
	if err := checkName(name); err != nil {
		return i, err
	}
	fi, err := os.Stat(d.file(name))
	if err != nil {
		return i, d.explain(err)
	}
	d.mu.Lock()
	known, err := d.facts(name)
	d.mu.Unlock()
	if err != nil {
		return i, fmt.Errorf("archive %s: %w", name, err)
	}
	i.Size, i.RetainUntil, i.Held, i.Stored = fi.Size(), known.RetainUntil, known.Held, fi.ModTime()
	if sum, err := hex.DecodeString(known.SHA256); err == nil && len(sum) == sha256.Size && fi.Mode().Perm()&0o200 == 0 {
		i.SHA256 = [sha256.Size]byte(sum)
		return i, nil
	}
	// Of what can be replaced the file itself is asked.
	f, err := os.Open(d.file(name))
	if err != nil {
		return i, fmt.Errorf("archive: %w", err)
	}
	defer f.Close()
	sum := sha256.New()
	if i.Size, err = io.Copy(sum, &ctxReader{ctx, f}); err != nil {
		return i, fmt.Errorf("archive %s: %w", name, err)
	}
	i.SHA256 = [sha256.Size]byte(sum.Sum(nil))
	return i, nil
}

// List walks the directory.
func (d *Dir) List(ctx context.Context, prefix string, f func(Info) error) error {
	// A walk is in the order of names where no name is the beginning of another
	// one's directory, which names of trails are not.
	start := d.root
	if err := d.there(); err != nil {
		return fmt.Errorf("list archive: %w", err)
	}
	if at := strings.LastIndexByte(prefix, '/'); at > 0 {
		start = d.file(prefix[:at])
	}
	err := filepath.WalkDir(start, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it was removed, or there is nothing of the prefix
		}
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if e.IsDir() {
			if strings.HasPrefix(e.Name(), ".") && path != d.root {
				return fs.SkipDir
			}
			return nil
		}
		rel, err := filepath.Rel(d.root, path)
		if err != nil {
			return err
		}
		name := filepath.ToSlash(rel)
		if !strings.HasPrefix(name, prefix) || checkName(name) != nil || !e.Type().IsRegular() {
			return nil
		}
		fi, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		return f(Info{Name: name, Size: fi.Size(), Stored: fi.ModTime()})
	})
	if err != nil {
		return fmt.Errorf("list archive: %w", err)
	}
	return nil
}

// Remove removes the file, unless it is kept.
func (d *Dir) Remove(_ context.Context, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.mayChange(name)
	for _, file := range []string{d.file(name), d.factsFile(name)} {
		if err != nil {
			break
		}
		if err = os.Remove(file); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	}
	if err != nil {
		return fmt.Errorf("remove %s from the archive: %w", name, err)
	}
	return nil
}

// Expire is Remove: there is one version.
func (d *Dir) Expire(ctx context.Context, name string) error { return d.Remove(ctx, name) }

// Hold notes a hold, or lifts it.
func (d *Dir) Hold(ctx context.Context, name string, on bool) error {
	i, err := d.Head(ctx, name)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	err = d.putFacts(name, facts{Format: factsFormat, SHA256: hex.EncodeToString(i.SHA256[:]), RetainUntil: i.RetainUntil, Held: on})
	if err != nil {
		return fmt.Errorf("hold %s in the archive: %w", name, err)
	}
	return nil
}
