package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
)

// Names on disk.
const (
	segmentsDir  = "segments"
	asideDir     = "aside"
	plainSuffix  = ".jsonl"
	sealedSuffix = ".jsonl.zst"
	// nextSuffix ends the name of the successor of the open segment while it
	// is made, beside it: a rename must not cross file systems.
	nextSuffix = ".next"
	// tempSuffix ends the name of a file that is not yet compressed.
	tempSuffix = ".tmp"
	// ArchivedSuffix ends the name of what stands in for a sealed file that is in
	// the archive only (docs/format.md §9.1).
	ArchivedSuffix = ".archived"
)

// Open locks the open segment, which must be there, and finds where it begins.
// The trail's own lock must be held. What a seal left half done is undone.
// RestoreRing, Replay and then Start must follow before the first Append.
func Open(opts Options) (*Journal, error) {
	j := &Journal{opts: opts, cur: &batch{}, full: make(chan struct{}, 1), closing: make(chan struct{})}
	j.idle, j.turn = sync.NewCond(&j.mu), sync.NewCond(&j.mu)
	var err error
	if j.file, err = lockedFile(opts.FS, opts.Path); err != nil {
		return nil, err
	}
	if err := j.undoSeal(); err != nil {
		return nil, errors.Join(err, j.file.Close())
	}
	if err := j.find(readManifest(opts.FS, opts.Dir)); err != nil {
		return nil, errors.Join(err, j.file.Close())
	}
	return j, nil
}

// find lists the segments, with what the manifest says of them. Where a plain
// file stands beside its compressed one, a crash came before its removal: it is
// compressed and compared once more, for no word of a manifest is enough to
// remove lines.
func (j *Journal) find(known map[int64]Segment) (err error) {
	if j.segments, err = listSegments(j.opts.FS, j.opts.Dir, known); err != nil {
		return err
	}
	for i, s := range j.segments {
		if s.Stored == 0 {
			continue
		}
		plain := segmentName(s.First) + plainSuffix
		_, err := j.opts.FS.Stat(filepath.Join(j.opts.Dir, segmentsDir, plain))
		switch {
		case err == nil:
			j.segments[i] = Segment{First: s.First, Count: s.Count, File: plain}
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
	}
	j.first, err = endOfSegments(j.opts.FS, j.opts.Dir, j.opts.Archive, j.segments)
	return err
}

// lockedFile opens the open segment for appending and locks it. The name may
// have been given to another file before the lock was there: then again.
func lockedFile(fsys durable.FS, path string) (durable.File, error) {
	for range 10 {
		f, err := fsys.OpenFile(path, os.O_RDWR|os.O_APPEND, 0)
		if err != nil {
			return nil, err
		}
		if err := fsys.Lock(f); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		mine, err1 := f.Stat()
		named, err2 := fsys.Stat(path)
		if err1 == nil && err2 == nil && fsys.SameFile(mine, named) {
			return f, nil
		}
		f.Close()
	}
	return nil, fmt.Errorf("%s: the file is being replaced again and again", path)
}

// undoSeal takes back a seal that did not come to its rename: the successor
// is not the trail's, and the link is a second name of the open segment.
func (j *Journal) undoSeal() error {
	fsys := j.opts.FS
	if err := fsys.Remove(j.opts.Path + nextSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	mine, err := j.file.Stat()
	if err != nil {
		return err
	}
	dir := filepath.Join(j.opts.Dir, segmentsDir)
	files, err := fsys.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, f := range files {
		name := filepath.Join(dir, f.Name())
		if strings.HasSuffix(name, sealedSuffix+tempSuffix) { // half compressed, and begun again
			if err := fsys.Remove(name); err != nil {
				return err
			}
			continue
		}
		fi, err := fsys.Stat(name)
		if err != nil {
			return err
		}
		if !fsys.SameFile(mine, fi) {
			continue
		}
		if err := fsys.Remove(name); err != nil {
			return err
		}
		return errors.Join(fsys.SyncDir(dir), fsys.Chmod(j.opts.Path, 0o600))
	}
	return nil
}

// Settle counts lines where the manifest's numbers do not fit: the open segment
// must begin where its first line says, read by begins as for OpenView, and each
// segment where the one before it ends. What does not fit then either is lines
// that no segment has, nil for none. What the manifest had wrong is listed anew
// as Uncompressed segments are given to Compress. lawful tells of lines that no file
// has whether they may be gone; it is asked where there are such.
func (j *Journal) Settle(begins func(line []byte) (first int64, ok bool), lawful func(first, count int64) (bool, error)) (*GapError, error) {
	open := j.first
	if said, ok := begins(firstLine(j.file)); ok {
		open = said
	}
	for i := range j.segments {
		s, next := &j.segments[i], open
		if i+1 < len(j.segments) {
			next = j.segments[i+1].First
		}
		if s.First+s.Count == next {
			continue
		}
		end, bytes, err := countLines(j.opts.FS, j.opts.Dir, j.opts.Archive, *s)
		if err != nil {
			return nil, err
		}
		*s = Segment{First: s.First, Count: end - s.First, Bytes: bytes, File: s.File, Archived: s.Archived}
	}
	end := int64(0)
	reach := func(next int64) (*GapError, error) {
		if next <= end {
			return nil, nil
		}
		ok, err := lawful(end, next-end)
		if err != nil || ok {
			return nil, err
		}
		return &GapError{First: end, Count: next - end}, nil
	}
	for _, s := range j.segments {
		if gap, err := reach(s.First); gap != nil || err != nil {
			return gap, err
		}
		end = s.First + s.Count
	}
	gap, err := reach(open)
	j.first = max(end, open)
	return gap, err
}

// State is what Replay found at the end of the journal.
type State struct {
	First int64 // of the open segment
	Next  int64 // index after the last complete line
	Torn  int64 // bytes after the last newline
}

// Replay gives f every complete line from index from on, which must not lie
// inside a sealed segment other than at its first line, and measures the open
// segment. f must not keep line.
func (j *Journal) Replay(from int64, f func(index int64, line []byte) error) (State, error) {
	for _, s := range j.segments {
		if s.First < from && s.First+s.Count <= from {
			continue
		}
		_, _, err := eachLineOf(context.Background(), j.opts.FS, j.opts.Dir, j.opts.Archive, s, func(index, _ int64, line []byte) error {
			if index < from {
				return nil
			}
			return f(index, line)
		})
		if err != nil {
			return State{}, err
		}
	}
	fi, err := j.file.Stat()
	if err != nil {
		return State{}, err
	}
	j.offsets = j.offsets[:0]
	next, end, err := eachLine(sectionOf(j.file, 0, fi.Size()), j.first, func(index, offset int64, line []byte) error {
		if (index-j.first)%offsetEvery == 0 {
			j.offsets = append(j.offsets, offset)
		}
		if index < from {
			return nil
		}
		return f(index, line)
	})
	if err != nil {
		return State{}, err
	}
	j.next, j.offset = next, end
	j.size.Store(end)
	return State{First: j.first, Next: next, Torn: fi.Size() - end}, nil
}

// SegmentStart is the first index of the segment, open or sealed, that has or
// would have the line at index.
func (j *Journal) SegmentStart(index int64) int64 {
	start := j.first
	for i := len(j.segments) - 1; i >= 0 && index < start; i-- {
		start = j.segments[i].First
	}
	return start
}

// Aside names bytes that were set aside.
type Aside struct {
	File  string // below the trail's directory
	First int64
	Bytes int64
}

// SetAside copies everything from the line at index from to the end of the
// open segment into a file of aside/, and then cuts it off (invariant 3).
func (j *Journal) SetAside(from int64, at time.Time) (Aside, error) {
	fsys := j.opts.FS
	offset, err := j.lineOffset(from)
	if err != nil {
		return Aside{}, err
	}
	fi, err := j.file.Stat()
	if err != nil {
		return Aside{}, err
	}
	a := Aside{First: from, Bytes: fi.Size() - offset}
	dir := filepath.Join(j.opts.Dir, asideDir)
	if err := durable.MkdirAll(fsys, dir, 0o700); err != nil {
		return a, err
	}
	data := make([]byte, a.Bytes)
	if _, err := j.file.ReadAt(data, offset); err != nil {
		return a, fmt.Errorf("set aside: %w", err)
	}
	a.File = filepath.Join(asideDir, fmt.Sprintf("%020d-%s%s", from, at.UTC().Format("20060102T150405.000Z"), plainSuffix))
	name := filepath.Join(j.opts.Dir, a.File)
	if err := errors.Join(durable.CreateFile(fsys, name, data, 0o600), fsys.Chmod(name, 0o400), fsys.SyncDir(dir)); err != nil {
		return a, fmt.Errorf("set aside: %w", err)
	}
	// Crash until here: the same again, into another file.
	if err := errors.Join(j.file.Truncate(offset), j.file.Sync()); err != nil {
		return a, fmt.Errorf("set aside: cut: %w", err)
	}
	j.next, j.offset = from, offset
	j.size.Store(offset)
	if keep := int(from-j.first+offsetEvery-1) / offsetEvery; keep < len(j.offsets) {
		j.offsets = j.offsets[:keep]
	}
	return a, nil
}

// Rewrite writes the lines of the open segment from index from on once more,
// over themselves, and syncs them. After a failed sync the page cache may hold
// lines that the disk never got and that it would not write again; what is
// signed must be on the disk.
func (j *Journal) Rewrite(from int64) error {
	offset, err := j.lineOffset(max(from, j.first))
	if err != nil {
		return err
	}
	f, err := j.opts.FS.OpenFile(j.opts.Path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, 1<<20)
	for size := j.size.Load(); offset < size; {
		n := min(int64(len(buf)), size-offset)
		if _, err := f.ReadAt(buf[:n], offset); err != nil {
			return fmt.Errorf("rewrite: %w", err)
		}
		if _, err := f.WriteAt(buf[:n], offset); err != nil {
			return fmt.Errorf("rewrite: %w", err)
		}
		offset += n
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("rewrite: %w", err)
	}
	return nil
}

// lineOffset is where the line at index begins in the open segment.
func (j *Journal) lineOffset(index int64) (int64, error) {
	switch {
	case index == j.next:
		return j.size.Load(), nil
	case index < j.first || index > j.next:
		return 0, fmt.Errorf("line %d is not in the open segment", index)
	}
	k := (index - j.first) / offsetEvery
	at := j.offsets[k]
	skip := (index - j.first) % offsetEvery
	if skip == 0 {
		return at, nil
	}
	stop := errors.New("there")
	found := at
	_, _, err := eachLine(sectionOf(j.file, at, j.size.Load()), j.first+k*offsetEvery, func(i, offset int64, _ []byte) error {
		if i == index {
			found = at + offset
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) {
		return 0, fmt.Errorf("line %d: not found where it was: %w", index, err)
	}
	return found, nil
}

// Start makes the journal take lines, after Replay and what recovery did.
func (j *Journal) Start() {
	j.accepted, j.synced = j.next, j.next
	if j.ringDue = j.opts.RingAfter; j.ringDue == 0 {
		j.ringDue = ringAfter
	}
	j.reserved = j.offset
	// Whether there is space for a queue is known before the first line. A
	// full disk is told by the first append.
	_ = j.reserve(0)
}

// lineEnd is the length of the first line of b, its newline included.
func lineEnd(b []byte) int {
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		return i + 1
	}
	return len(b)
}

// BytesFrom is how many bytes there are from the line at index to the end of
// the open segment's file.
func (j *Journal) BytesFrom(index int64) (int64, error) {
	offset, err := j.lineOffset(index)
	if err != nil {
		return 0, err
	}
	fi, err := j.file.Stat()
	if err != nil {
		return 0, err
	}
	return fi.Size() - offset, nil
}
