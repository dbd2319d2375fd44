package journal

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	seekable "github.com/SaveTheRbtz/zstd-seekable-format-go/pkg"
	"github.com/klauspost/compress/zstd"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
)

// Cut ends the open segment and begins the next one with the line that head
// makes; head is given the segment that ends. No append runs meanwhile, and
// there is no instant without a file at the open path.
//
// An error leaves the open segment as it was, unless the journal has stopped.
func (j *Journal) Cut(head func(Segment) (line []byte, err error)) (Segment, error) {
	j.exclusive()
	defer j.commit.Unlock()
	resume := j.pause()
	defer resume()
	j.mu.Lock()
	if err := j.refuseLocked(); err != nil {
		j.mu.Unlock()
		return Segment{}, err
	}
	s := Segment{First: j.first, Count: j.next - j.first, Bytes: j.size.Load()}
	j.mu.Unlock()
	s.File = segmentName(s.First) + plainSuffix
	if s.Count == 0 {
		return Segment{}, errors.New("seal: the open segment is empty")
	}
	// The lines first, as a commit would: they get a second name below, and
	// what has it must be whole.
	if err := j.CatchUp(); err != nil {
		return Segment{}, fmt.Errorf("seal: %w", err)
	}
	if !j.noReserve && j.reserved > j.offset {
		if err := j.file.Truncate(j.offset); err != nil {
			return Segment{}, fmt.Errorf("seal: %w", err)
		}
		j.reserved = j.offset
	}
	if err := j.sync(); err != nil {
		return Segment{}, fmt.Errorf("seal: %w", err)
	}
	j.mu.Lock()
	j.synced = j.next
	j.mu.Unlock()
	// Lines of a segment that is sealed are in no other file. The next ring is
	// made behind the first commits.
	if err := j.dropRing(); err != nil {
		return Segment{}, j.stop(fmt.Errorf("seal: %w", err))
	}

	line, err := head(s)
	if err != nil {
		return Segment{}, fmt.Errorf("seal: %w", err)
	}
	next, err := j.swap(s, append(line, '\n'))
	if err != nil {
		return Segment{}, err
	}
	j.syncing.Lock()
	closed := j.file.Close()
	j.file, j.offset, j.reserved = next, int64(len(line)+1), int64(len(line)+1)
	j.syncing.Unlock()
	digest := sha256.Sum256(line)
	j.mu.Lock()
	index := j.next
	j.first = index
	j.next++
	j.accepted++
	j.synced = j.next
	j.size.Store(j.offset)
	j.offsets = append(j.offsets[:0:0], 0)
	j.segments = append(slices.Clip(j.segments), s)
	j.mu.Unlock()
	if j.opts.Acknowledged != nil {
		j.opts.Acknowledged(index, []Digest{digest})
	}
	if closed != nil {
		return Segment{}, j.stop(fmt.Errorf("seal: %w", closed))
	}
	return s, nil
}

// pause commits what was accepted and lets nothing more be accepted until
// resume: lines that wait in the queue have their indexes already, and the
// line that a seal adds comes after them.
func (j *Journal) pause() (resume func()) {
	for {
		j.mu.Lock()
		if len(j.cur.digests) == 0 {
			break
		}
		j.mu.Unlock()
		j.commitCurrent()
	}
	paused := make(chan struct{})
	j.paused = paused
	j.mu.Unlock()
	return func() {
		j.mu.Lock()
		j.paused = nil
		j.mu.Unlock()
		close(paused)
	}
}

// swap puts a new file with one line at the open path and gives the old one
// its name in segments/.
func (j *Journal) swap(s Segment, line []byte) (next durable.File, err error) {
	fsys, path := j.opts.FS, j.opts.Path
	dir := filepath.Join(j.opts.Dir, segmentsDir)
	kept := filepath.Join(dir, s.File)
	defer func() {
		if err != nil && next != nil {
			next.Close()
		}
	}()
	if err := durable.MkdirAll(fsys, dir, 0o700); err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	if err := durable.CreateFile(fsys, path+nextSuffix, line, 0o600); err != nil {
		return nil, fmt.Errorf("seal: %w", errors.Join(err, j.undoLink(kept)))
	}
	// Crash from here on: the successor means nothing yet, Open removes it.
	next, err = fsys.OpenFile(path+nextSuffix, os.O_RDWR|os.O_APPEND, 0)
	if err == nil {
		err = fsys.Lock(next)
	}
	if err == nil {
		err = fsys.Link(path, kept)
	}
	if err == nil {
		// Crash from here on: two names for one file, Open removes this one.
		err = fsys.SyncDir(dir)
	}
	if err != nil {
		return next, fmt.Errorf("seal: %w", errors.Join(err, j.undoLink(kept)))
	}
	err = fsys.Rename(path+nextSuffix, path)
	mine, err1 := next.Stat()
	named, err2 := fsys.Stat(path)
	if err1 != nil || err2 != nil {
		return next, j.stop(fmt.Errorf("seal: %w", errors.Join(err, err1, err2)))
	}
	if !fsys.SameFile(mine, named) {
		return next, fmt.Errorf("seal: %w", errors.Join(err, j.undoLink(kept)))
	}
	// The successor is at the open path, whatever the rename said. Crash from
	// here on: either file may be there after a power failure, and both are
	// whole; the new one has one line that was not acknowledged.
	if err := fsys.SyncDir(filepath.Dir(path)); err != nil {
		return next, j.stop(fmt.Errorf("seal: %w", err))
	}
	if err := fsys.Chmod(kept, 0o400); err != nil {
		return next, j.stop(fmt.Errorf("seal: %w", err))
	}
	return next, nil
}

// undoLink removes what swap made before its rename. Where that fails the
// journal stops: two names for the open segment are for Open to sort out.
func (j *Journal) undoLink(kept string) error {
	fsys := j.opts.FS
	err := fsys.Remove(j.opts.Path + nextSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	mine, err1 := j.file.Stat()
	if other, err2 := fsys.Stat(kept); err1 == nil && err2 == nil && fsys.SameFile(mine, other) {
		err = errors.Join(err, fsys.Remove(kept))
	}
	if err = errors.Join(err, err1); err != nil {
		return j.stop(fmt.Errorf("undo: %w", err))
	}
	return nil
}

// Uncompressed lists the segments that wait for Compress: those that were cut
// off, and those that the manifest lacks.
func (j *Journal) Uncompressed() []Segment {
	j.mu.Lock()
	defer j.mu.Unlock()
	var list []Segment
	for _, s := range j.segments {
		if s.Stored == 0 {
			list = append(list, s)
		}
	}
	return list
}

// Segments lists the sealed and cut-off segments.
func (j *Journal) Segments() []Segment {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.segments)
}

const (
	// frameBytes is how many bytes of lines a frame holds at most, unless one
	// line alone has more (docs/format.md §5).
	frameBytes = 1 << 20
	// syncStep is how much compressed output is written between two syncs: a
	// commit beside it waits for no more than that.
	syncStep = 1 << 20
	// yieldStep is how much of a segment is worked on before whoever records has the
	// processor: without that each of them waits for a goroutine that has used up the
	// 10 ms that Go's scheduler gives it, since all processors are busy. Found by
	// make bench-seal.
	yieldStep = 64 << 10
)

// aside counts what a work beside the writer has done, and lets others run.
type aside int

func (a *aside) did(bytes int) {
	if *a += aside(bytes); *a >= yieldStep {
		*a = 0
		runtime.Gosched()
	}
}

// Inspector looks at the lines of a segment while it is compressed.
type Inspector interface {
	// Line is given every line, in order.
	Line(index int64, line []byte) error
	// Done says what is known of the segment after the last line: its root
	// as lower-case hex, and its bounds.
	Done() (root string, bounds Bounds, err error)
}

// Compress makes the sealed file of a cut-off segment, reads it back, lists it
// in the manifest and removes the plain file (invariant 6). look is given the
// lines on the way; what is read back must be the plain file's bytes. A segment
// that is compressed and was not listed is inspected, and listed.
func (j *Journal) Compress(s Segment, look Inspector) (Segment, error) {
	sealed, err := j.compress(s, look)
	if err != nil {
		return s, fmt.Errorf("seal segment %d: %w", s.First, err)
	}
	return sealed, nil
}

func (j *Journal) compress(s Segment, look Inspector) (Segment, error) {
	fsys := j.opts.FS
	dir := filepath.Join(j.opts.Dir, segmentsDir)
	plain := filepath.Join(dir, segmentName(s.First)+plainSuffix)
	target := filepath.Join(dir, segmentName(s.First)+sealedSuffix)
	tmp := target + tempSuffix
	if s.File == filepath.Base(target) {
		return j.relist(s, look)
	}

	first, err := j.writeSealed(plain, tmp, s, look)
	if err != nil {
		return s, errors.Join(err, fsys.Remove(tmp))
	}
	// The mode comes after the name: a temporary file stays writable for who
	// has to write it again.
	for _, step := range []func() error{
		func() error { return fsys.Rename(tmp, target) },
		func() error { return fsys.Chmod(target, 0o400) },
		func() error { return fsys.SyncDir(dir) },
	} {
		if err := step(); err != nil {
			return s, err
		}
	}
	// Crash until here: the plain file counts, this is done again.
	if err := j.readBack(plain, first); err != nil {
		return s, fmt.Errorf("read back: %w", err)
	}
	if err := j.list(first); err != nil {
		return s, err
	}
	// Crash from here on: the manifest says that the sealed file counts.
	return first, errors.Join(fsys.Remove(plain), fsys.SyncDir(dir))
}

// readBack compares a compressed segment's lines with the plain file that they
// were made of, and that was inspected.
func (j *Journal) readBack(plain string, sealed Segment) error {
	src, err := j.opts.FS.OpenFile(plain, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer src.Close()
	in := bufio.NewReaderSize(src, 1<<20)
	var want []byte
	errDiffers := errors.New("the compressed file does not hold the same lines")
	var done aside
	next, bytesRead, err := eachLineOf(context.Background(), j.opts.FS, j.opts.Dir, nil, Segment{First: sealed.First, File: sealed.File}, func(_, _ int64, line []byte) error {
		want = slices.Grow(want[:0], len(line)+1)[:len(line)+1]
		if _, err := io.ReadFull(in, want); err != nil {
			return errors.Join(errDiffers, err)
		}
		if want[len(line)] != '\n' || !bytes.Equal(want[:len(line)], line) {
			return errDiffers
		}
		done.did(len(want))
		return nil
	})
	if err != nil {
		return err
	}
	if next-sealed.First != sealed.Count || bytesRead != sealed.Bytes {
		return errDiffers
	}
	return nil
}

// relist lists a compressed segment whose place in the manifest was lost.
func (j *Journal) relist(s Segment, look Inspector) (Segment, error) {
	next, bytes, err := eachLineOf(context.Background(), j.opts.FS, j.opts.Dir, j.opts.Archive, s, func(index, _ int64, line []byte) error { return look.Line(index, line) })
	if err != nil {
		return s, err
	}
	if next-s.First != s.Count {
		return s, fmt.Errorf("%s has %d lines where the next segment begins after %d", s.File, next-s.First, s.Count)
	}
	f, _, err := openFile(context.Background(), j.opts.FS, j.opts.Dir, j.opts.Archive, s)
	if err != nil {
		return s, err
	}
	fi, err := f.Stat()
	if err := errors.Join(err, f.Close()); err != nil {
		return s, err
	}
	s.Bytes, s.Stored = bytes, fi.Size()
	if s.Root, s.Bounds, err = look.Done(); err != nil {
		return s, err
	}
	return s, j.list(s)
}

// list puts a sealed segment into the manifest. One runs at a time.
func (j *Journal) list(s Segment) error {
	put := func(list []Segment) []Segment {
		list = slices.Clone(list)
		for i := range list {
			if list[i].First == s.First {
				list[i] = s
			}
		}
		return list
	}
	if err := j.writeManifest(put(j.Segments())); err != nil {
		return err
	}
	j.mu.Lock()
	j.segments = put(j.segments)
	j.mu.Unlock()
	return nil
}

func (j *Journal) writeManifest(list []Segment) error {
	var listed []Segment
	for _, s := range list {
		if s.Stored > 0 {
			listed = append(listed, s)
		}
	}
	data, err := FormatManifest(listed)
	if err != nil {
		return err
	}
	return durable.WriteFile(j.opts.FS, filepath.Join(j.opts.Dir, "manifest"), data, 0o600)
}

// Remove deletes segments, those that gone says, and looks that they are gone. It
// must not run beside Compress. After a crash or an error in the middle some are
// there, and it is called again.
func (j *Journal) Remove(gone func(Segment) bool) error {
	fsys := j.opts.FS
	var stay, leave []Segment
	for _, s := range j.Segments() {
		if gone(s) {
			leave = append(leave, s)
		} else {
			stay = append(stay, s)
		}
	}
	if len(leave) == 0 {
		return nil
	}
	if err := j.writeManifest(stay); err != nil {
		return err
	}
	j.mu.Lock()
	j.segments = slices.DeleteFunc(slices.Clone(j.segments), gone)
	j.mu.Unlock()
	dir := filepath.Join(j.opts.Dir, segmentsDir)
	names := func(s Segment) []string {
		return []string{segmentName(s.First) + plainSuffix, segmentName(s.First) + sealedSuffix, segmentName(s.First) + sealedSuffix + ArchivedSuffix}
	}
	for _, s := range leave {
		for _, name := range names(s) {
			if err := removeFlagged(fsys, filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	if err := fsys.SyncDir(dir); err != nil {
		return err
	}
	for _, s := range leave {
		for _, name := range names(s) {
			if _, err := fsys.Stat(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
				return errors.Join(fmt.Errorf("segments/%s is still there", name), err)
			}
		}
	}
	return nil
}

// LetGo removes the sealed file of a segment that the archive has: what stands in for
// it is in segments/ already, synced. It must not run beside Compress or Remove. After
// a crash or an error the file is there, or it is not; both are as they should be.
func (j *Journal) LetGo(first int64) error {
	j.mu.Lock()
	at := slices.IndexFunc(j.segments, func(s Segment) bool { return s.First == first && s.Stored > 0 })
	if at >= 0 {
		j.segments = slices.Clone(j.segments)
		j.segments[at].Archived = true
	}
	j.mu.Unlock()
	if at < 0 {
		return fmt.Errorf("segment %d: %w", first, fs.ErrNotExist)
	}
	dir := filepath.Join(j.opts.Dir, segmentsDir)
	if err := removeFlagged(j.opts.FS, filepath.Join(dir, segmentName(first)+sealedSuffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return j.opts.FS.SyncDir(dir)
}

// removeFlagged removes a file that may have the append-only flag.
func removeFlagged(fsys durable.FS, name string) error {
	flagged, err := fsys.AppendOnly(name)
	if err == nil && flagged {
		err = fsys.SetAppendOnly(name, false)
	}
	if err != nil {
		return err
	}
	return fsys.Remove(name)
}

// writeSealed compresses the lines of plain into target, a frame at a time.
func (j *Journal) writeSealed(plain, target string, s Segment, look Inspector) (Segment, error) {
	fsys := j.opts.FS
	src, err := fsys.OpenFile(plain, os.O_RDONLY, 0)
	if err != nil {
		return s, err
	}
	defer src.Close()
	out, err := fsys.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return s, err
	}
	defer out.Close()
	steps := &stepSyncer{file: out}
	// Level 3 of zstd is SpeedDefault; one goroutine, since it works beside
	// the writer; no larger window than a frame can use, of which the encoder
	// keeps two.
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(frameBytes))
	if err != nil {
		return s, err
	}
	defer enc.Close()
	pieces := &pieces{enc: enc}
	w, err := seekable.NewWriter(steps, pieces)
	if err != nil {
		return s, err
	}
	frame := make([]byte, 0, frameBytes)
	flush := func() error {
		if len(frame) == 0 {
			return nil
		}
		_, err := w.Write(frame)
		frame = frame[:0]
		return errors.Join(err, pieces.err)
	}
	var done aside
	next, end, err := eachLine(bufio.NewReaderSize(src, 1<<20), s.First, func(index, _ int64, line []byte) error {
		if len(frame)+len(line)+1 > frameBytes {
			if err := flush(); err != nil {
				return err
			}
		}
		frame = append(append(frame, line...), '\n')
		done.did(len(line))
		return look.Line(index, line)
	})
	if err == nil {
		err = flush()
	}
	if err == nil {
		err = w.Close() // writes the seek table
	}
	if err == nil {
		err = out.Sync()
	}
	if err != nil {
		return s, err
	}
	if s.Root, s.Bounds, err = look.Done(); err != nil {
		return s, err
	}
	fi, err := src.Stat()
	if err != nil {
		return s, err
	}
	if fi.Size() != end || s.Count != next-s.First {
		return s, fmt.Errorf("%d lines in %d of %d bytes where %d lines were cut off", next-s.First, end, fi.Size(), s.Count)
	}
	s.Bytes, s.Stored, s.File = end, steps.written, segmentName(s.First)+sealedSuffix
	return s, nil
}

// pieces makes a frame piece by piece, and lets others run in between: as one call it
// would be some milliseconds.
type pieces struct {
	enc *zstd.Encoder
	buf bytes.Buffer
	err error
}

func (p *pieces) EncodeAll(src, dst []byte) []byte {
	p.buf.Reset()
	p.enc.ResetContentSize(&p.buf, int64(len(src)))
	for piece := range slices.Chunk(src, yieldStep) {
		if _, err := p.enc.Write(piece); err != nil {
			p.err = err
		}
		runtime.Gosched()
	}
	if err := p.enc.Close(); err != nil {
		p.err = err
	}
	return append(dst, p.buf.Bytes()...)
}

// stepSyncer syncs a file after every syncStep bytes.
type stepSyncer struct {
	file    durable.File
	written int64
	pending int
}

func (w *stepSyncer) Write(p []byte) (int, error) {
	n, err := w.file.Write(p)
	w.written += int64(n)
	w.pending += n
	if err == nil && w.pending >= syncStep {
		w.pending = 0
		err = w.file.Sync()
	}
	return n, err
}
