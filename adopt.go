package audit

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/kaizen-audit/kaizen-audit/internal/advice"
	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/lifecycle"
	"github.com/kaizen-audit/kaizen-audit/internal/tree"
)

// Adopted are the lines of an older log that a trail begins with.
type Adopted = lifecycle.Adopted

const (
	// nextLog ends the name of a log that is not in place yet; what is left of
	// one is removed by the next opening, as a seal's is.
	nextLog = ".next"
	// adoptFlush is how many leaves wait for their tiles: 16 MB with them.
	adoptFlush = 1 << 18
)

// asideLog is the name that an adopted file has from then on.
func (t *Trail) asideLog() string { return strings.TrimSuffix(t.dir, ".trail") + ".adopted.jsonl" }

func adoptionUnfinished(path string) error {
	return advice.For(fmt.Errorf("%w: the adoption of an older log was interrupted", ErrDamaged),
		"to finish it: kaizen-audit import --adopt --log %s", advice.Quote(path))
}

// mayAdopt tells whether there is something to adopt, before anything is made.
func (t *Trail) mayAdopt() error {
	fi, err := t.opts.fs.Stat(t.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: there is no file to adopt", ErrNotFound)
	case err != nil:
		return err
	case !fi.Mode().IsRegular():
		return errors.New("what is to be adopted is no regular file")
	case fi.Size() == 0:
		return advice.For(errors.New("the file is empty: there is nothing to adopt"), "to make a trail there: kaizen-audit record --log %s", advice.Quote(t.path))
	}
	return t.checkNotPinned()
}

// adopt makes a trail of the file at the log's path, under the lock. mark is
// what a creation that was cut short has left, nil if there was none.
//
// The order keeps the old file whole at every moment, under at least one of
// its two names, and never writes to it:
//
//  1. the second name, beside the log, a hard link;
//  2. creating, which names it: from here on only another adoption goes on;
//  3. keys and trail.json;
//  4. the new log beside the old one: entry 0, then the old lines;
//  5. the new log over the old one's first name, by rename;
//  6. tiles and the first checkpoint; creating goes.
//
// A crash before 6 leaves what the next adoption makes anew from the second
// name. One in the midst of 6, with the checkpoint there, is finished by any
// opening.
func (t *Trail) adopt(mark *creating) error {
	fsys := t.opts.fs
	if mark == nil {
		if _, err := fsys.Stat(filepath.Join(t.dir, "trail.json")); err == nil {
			return t.adoptedAlready()
		}
	} else if err := t.discardIdentity(); err != nil {
		return err
	}
	aside, again := t.asideLog(), mark != nil && mark.Adopt != ""
	if again {
		aside = filepath.Join(filepath.Dir(t.path), filepath.Base(mark.Adopt))
	}
	old, err := t.linkAside(aside, again)
	if err != nil {
		return err
	}
	defer old.Close()
	a, err := measure(old, filepath.Base(aside))
	if err != nil {
		return err
	}
	if again {
		if err := t.keepForeign(old, a); err != nil {
			return err
		}
	}
	if err := t.removeTiles(filepath.Join(t.dir, "tile")); err != nil {
		return err
	}
	placed, err := t.adoptLines(old, a)
	if err != nil && !placed {
		// The old file still has its first name: as if nothing had happened.
		// Where that fails too, the next adoption goes on.
		undone := errors.Join(t.discardIdentity(), t.removeTiles(filepath.Join(t.dir, "tile")), removeIfThere(fsys, t.path+nextLog),
			removeIfThere(fsys, filepath.Join(t.dir, "creating")), fsys.SyncDir(t.dir))
		if undone == nil {
			_ = t.unlinkAside(aside)
		}
	}
	return err
}

// adoptedAlready tells a trail that was there from an adoption whose
// checkpoint is there and whose last step is not: opening does that.
func (t *Trail) adoptedAlready() error {
	data, err := durable.ReadFile(t.opts.fs, filepath.Join(t.dir, "creating"), maxSmallFile)
	if err == nil && strings.Contains(string(data), `"adopt"`) {
		return nil
	}
	return advice.For(errors.New("there is a trail already"), "to record the lines of an older log in it: kaizen-audit import --log %s FILE", advice.Quote(t.path))
}

// linkAside gives the old file its second name, and opens it under that. again
// says that an earlier adoption has given it.
func (t *Trail) linkAside(aside string, again bool) (durable.File, error) {
	fsys := t.opts.fs
	there, err := fsys.Stat(aside)
	switch {
	case err == nil && !again:
		here, err := fsys.Stat(t.path)
		if err != nil {
			return nil, err
		}
		if !fsys.SameFile(here, there) {
			return nil, advice.For(fmt.Errorf("%s is there already", aside), "move it away")
		}
	case errors.Is(err, fs.ErrNotExist) && again:
		return nil, fmt.Errorf("%w: %s is missing, the old file of the adoption that was interrupted: restore it", ErrDamaged, aside)
	case errors.Is(err, fs.ErrNotExist):
		if err := t.mayAdopt(); err != nil {
			return nil, err
		}
		if err := fsys.Link(t.path, aside); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	}
	if err := fsys.SyncDir(filepath.Dir(aside)); err != nil {
		return nil, err
	}
	return fsys.OpenFile(aside, os.O_RDONLY, 0)
}

// unlinkAside takes the second name away again, if the first one stands.
func (t *Trail) unlinkAside(aside string) error {
	fsys := t.opts.fs
	here, err1 := fsys.Stat(t.path)
	there, err2 := fsys.Stat(aside)
	if err1 != nil || err2 != nil || !fsys.SameFile(here, there) {
		return errors.Join(err1, err2)
	}
	return fsys.Remove(aside)
}

// section reads the first bytes of a file.
func section(f durable.File, size int64) *bufio.Reader {
	return bufio.NewReaderSize(io.NewSectionReader(f, 0, size), 1<<20)
}

// measure reads the old file once.
func measure(old durable.File, name string) (*Adopted, error) {
	fi, err := old.Stat()
	if err != nil {
		return nil, err
	}
	sum := sha256.New()
	a := &Adopted{First: 1, Bytes: fi.Size(), File: name}
	err = eachOldLine(section(old, a.Bytes), sum, func([]byte) error { a.Count++; return nil })
	a.SHA256 = hex.EncodeToString(sum.Sum(nil))
	if err == nil && a.Count == 0 {
		err = errors.New("the file is empty: there is nothing to adopt")
	}
	return a, err
}

// eachOldLine gives f the lines of a file that may be anything, without their
// newlines; the last one may lack it. sum is given every byte.
func eachOldLine(r *bufio.Reader, sum hash.Hash, f func(line []byte) error) error {
	var long []byte // a line longer than the reader's buffer
	for {
		part, err := r.ReadSlice('\n')
		sum.Write(part)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			long = append(long, part...)
			continue
		case err != nil && err != io.EOF:
			return err
		}
		line := part
		if long != nil {
			line = append(long, part...)
			long = nil
		}
		if len(line) > 0 {
			if err := f(bytes.TrimSuffix(line, []byte{'\n'})); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
	}
}

// keepForeign looks at the log's path after an adoption that was cut short:
// what stands there is the old file, or the log that was made of it, which is
// made anew. Anything else was put there by somebody and is kept in aside/.
func (t *Trail) keepForeign(old durable.File, a *Adopted) error {
	fsys := t.opts.fs
	f, err := fsys.OpenFile(t.path, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	here, err1 := f.Stat()
	there, err2 := old.Stat()
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	if fsys.SameFile(here, there) {
		return nil
	}
	var range0 lifecycle.Adopted
	sum, lines, written := sha256.New(), int64(0), int64(0)
	err = eachOldLine(section(f, here.Size()), sha256.New(), func(line []byte) error {
		if lines == 0 {
			range0.See(0, line)
		} else if written += int64(len(line)) + 1; written <= a.Bytes {
			sum.Write(line)
			sum.Write([]byte{'\n'})
		} else { // the old file had no newline at its end
			sum.Write(line)
		}
		lines++
		return nil
	})
	if err != nil {
		return err
	}
	if range0 == *a && lines == a.Count+1 && hex.EncodeToString(sum.Sum(nil)) == a.SHA256 {
		return nil
	}
	dir := filepath.Join(t.dir, "aside")
	if err := durable.MkdirAll(fsys, dir, 0o700); err != nil {
		return err
	}
	name := filepath.Join(dir, fmt.Sprintf("%020d-%s.jsonl", 0, t.clock.now().UTC().Format("20060102T150405.000Z")))
	if err := fsys.Rename(t.path, name); err != nil {
		return err
	}
	t.warn(fmt.Errorf("%s was written to while its adoption was interrupted: what stood there is in %s", t.path, name))
	return errors.Join(fsys.SyncDir(dir), fsys.SyncDir(filepath.Dir(t.path)))
}

// adoptLines makes everything of the trail. placed says that the new log has
// its name.
func (t *Trail) adoptLines(old durable.File, a *Adopted) (placed bool, err error) {
	fsys := t.opts.fs
	now, err := t.beginCreation(creating{Format: formatVersion, Adopt: a.File})
	if err != nil {
		return false, err
	}
	created, err := t.createdLine(now, a)
	if err != nil {
		return false, err
	}
	store, b := tree.NewStore(fsys, t.dir), tree.NewBuilder()
	if err := t.writeAdopted(old, a, created, store, b); err != nil {
		return false, err
	}
	if err := fsys.Rename(t.path+nextLog, t.path); err != nil {
		// It may have happened all the same: the next adoption looks.
		here, err1 := fsys.Stat(t.path)
		there, err2 := old.Stat()
		return err1 != nil || err2 != nil || !fsys.SameFile(here, there), err
	}
	if err := fsys.SyncDir(filepath.Dir(t.path)); err != nil {
		return true, err
	}
	if fi, err := old.Stat(); err == nil && fi.Size() != a.Bytes {
		t.warn(fmt.Errorf("somebody still writes to %s: what came after the first %d bytes is not in the trail; stop that program and import the file's later lines", a.File, a.Bytes))
	}
	return true, t.endCreation(store, b)
}

// writeAdopted writes the new log beside the old one and syncs it.
func (t *Trail) writeAdopted(old durable.File, a *Adopted, created []byte, store *tree.Store, b *tree.Builder) (err error) {
	fsys := t.opts.fs
	if err := removeIfThere(fsys, t.path+nextLog); err != nil {
		return err
	}
	f, err := fsys.OpenFile(t.path+nextLog, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	out := bufio.NewWriterSize(f, 1<<20)
	put := func(line []byte) error {
		b.Append(lineDigest(line))
		if b.Size()%adoptFlush == 0 {
			snap := b.Snapshot()
			if err := store.Flush(snap); err != nil {
				return err
			}
			b.Flushed(snap)
		}
		out.Write(line) // Flush tells
		return out.WriteByte('\n')
	}
	if err := put(created); err != nil {
		return err
	}
	sum, done := sha256.New(), int64(0)
	err = eachOldLine(section(old, a.Bytes), sum, func(line []byte) error {
		done += int64(len(line)) + 1
		if t.opts.Progress != nil {
			t.opts.Progress(min(done, a.Bytes), a.Bytes)
		}
		return put(line)
	})
	if err == nil {
		err = out.Flush()
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return err
	}
	fi, err := old.Stat()
	if err != nil {
		return err
	}
	if hex.EncodeToString(sum.Sum(nil)) != a.SHA256 || fi.Size() != a.Bytes || b.Size() != a.Count+1 {
		return advice.For(errors.New("the file changes while it is read"), "stop the program that writes to it, and run it again")
	}
	return nil
}

// removeTiles removes the tiles of a tree that was never signed.
func (t *Trail) removeTiles(dir string) error {
	fsys := t.opts.fs
	files, err := fsys.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, f := range files {
		name := filepath.Join(dir, f.Name())
		if f.IsDir() {
			err = t.removeTiles(name)
		} else {
			err = removeIfThere(fsys, name)
		}
		if err != nil {
			return err
		}
	}
	return fsys.Remove(dir)
}

func removeIfThere(fsys durable.FS, name string) error {
	if err := fsys.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// adopted is what the trail began with; the zero range if with nothing.
func (t *Trail) adopted(ctx context.Context) (a Adopted, err error) {
	view, err := t.view()
	if err != nil {
		return a, err
	}
	defer view.Close()
	line, err := t.entryZero(ctx, view)
	if errors.Is(err, fs.ErrNotExist) {
		return a, nil
	}
	a.See(0, line)
	return a, err
}
