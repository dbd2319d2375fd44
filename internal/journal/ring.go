package journal

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"unsafe"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
)

// The ring is a file of fixed size that was written once in full, into which
// batches are then written in place, round and round. Syncing it costs the
// file system no transaction, since neither size nor blocks change, where
// syncing a file that grows costs one for each sync: with it a durable append
// takes two thirds of the time here, and a batch of 64 half of it.
//
// A batch goes to the open segment first, without a sync, and then to the
// ring, with one: that is what acknowledges it. The segment is synced soon
// after, before a checkpoint covers the batch and before the ring comes round.
// After a crash the ring's batches are written to the segment once more.
//
// It has two halves. Each is begun anew only when everything that it held is
// synced in the segment.
//
// Mode Written has a ring too, which is not synced, and the segment follows it
// (behind): that saves the wait for the pages that a file needs as it grows, up to ten
// times that of writing to pages that are there. Each half is begun anew when the segment has what it held.
type ring struct {
	lanes [lanes]*lane // the second is opened when it is wanted
	gone  atomic.Bool  // it can't be written to; mode Written does without
	kind  *ringKind
	half  int64
	side  int      // the half that is being filled
	at    int64    // where the next frame goes, within the half
	seq   uint64   // of the last frame
	ends  [2]int64 // where in the segment the last batch of each half ends
}

// ringKind is what the rings of a mode have in common.
type ringKind struct {
	magic string // of each frame
	// A frame begins at a multiple of block. What is written around the page cache
	// has to begin at a block of the device; one with larger ones than 4 KiB is not
	// met.
	block int64
	sync  bool // a frame counts when it is synced
	most  int64
}

var (
	durableRing = &ringKind{magic: "kzring1\n", block: ringBlock, sync: true, most: maxRing}
	// A ring of mode Written is for a process that is killed: the page cache has it.
	// It is small, and so all of it stays in the processor's caches.
	writtenRing = &ringKind{magic: "kzring2\n", block: 64, most: 2 << 20}
)

// slot is a place in the ring for one batch.
type slot struct {
	lane          *lane
	ring          *ring
	at            int64 // of the frame
	seq           uint64
	first, offset int64 // of the segment's first line; of the batch in the segment
}

const (
	never    = 1<<63 - 1
	ringFile = "ring"
	// ringAfter is how many commits a journal has made before it has a ring: a
	// process that records a few entries and ends is better off without.
	ringAfter = 32
	// A frame is 8 bytes of its kind's magic; its number, the index of the segment's
	// first line, the batch's place in the segment and its length as big-endian
	// uint64; the CRC-32C of all that and of the batch, as uint32; the batch.
	frameHead = 8 + 4*8 + 4
	// ringBlock is what the length of a half and the memory of a batch are multiples
	// of.
	ringBlock = 4096
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// halfRing is the size of a half, in whole blocks.
func halfRing(size int64) int64 { return size / 2 / ringBlock * ringBlock }

// fits tells whether a batch can be in the ring at all.
func (r *ring) fits(batch int) bool { return r.kind.frameSize(batch) <= r.half }

// frameSize is how much of the ring a batch takes.
func (k *ringKind) frameSize(batch int) int64 { return blocks(frameHead+int64(batch), k.block) }

// blocks rounds up to whole blocks.
func blocks(n, block int64) int64 { return (n + block - 1) / block * block }

// turns is the half that has to be begun anew for a batch, if one has to.
func (r *ring) turns(batch int) (side int, ok bool) {
	return 1 - r.side, r.at+r.kind.frameSize(batch) > r.half
}

// place takes the next place for a batch, on a lane.
func (r *ring) place(l *lane, first, offset int64, batch int) slot {
	if side, ok := r.turns(batch); ok {
		r.side, r.at = side, 0
	}
	r.seq++
	s := slot{l, r, int64(r.side)*r.half + r.at, r.seq, first, offset}
	r.at += r.kind.frameSize(batch)
	r.ends[r.side] = offset + int64(batch)
	return s
}

// put writes a batch to its place, and syncs it in mode Durable. Crash: the frame is there and
// whole, or its sum is wrong and the ring ends before it, whatever is there of the
// batch behind it, which waits for this one.
func (s *slot) put(b *batch) error {
	lines := b.lines()
	h := b.buf[:0]
	h = append(h, s.ring.kind.magic...)
	h = binary.BigEndian.AppendUint64(h, s.seq)
	h = binary.BigEndian.AppendUint64(h, uint64(s.first))
	h = binary.BigEndian.AppendUint64(h, uint64(s.offset))
	h = binary.BigEndian.AppendUint64(h, uint64(len(lines)))
	binary.BigEndian.AppendUint32(h, crc32.Update(crc32.Checksum(h, castagnoli), castagnoli, lines))
	frame := b.buf[:s.ring.kind.frameSize(len(lines))]
	clear(frame[len(b.buf):])
	return s.lane.put(frame, s.at, b.callers)
}

// roomFor is buf with room for n bytes more and up to the end of their last block,
// its beginning at a place in memory that may be written around the page cache.
func roomFor(buf []byte, n int) []byte {
	want := int(blocks(int64(len(buf)+n), ringBlock))
	if cap(buf) >= want {
		return buf
	}
	room := make([]byte, max(want, 2*cap(buf))+ringBlock)
	skip := ringBlock - int(uintptr(unsafe.Pointer(unsafe.SliceData(room)))%ringBlock)
	return append(room[skip:skip:len(room)], buf...)
}

func (r *ring) close() error {
	var errs []error
	for _, l := range r.lanes {
		if l != nil {
			errs = append(errs, l.close())
		}
	}
	return errors.Join(errs...)
}

// frame is a batch as the ring has it.
type frame struct {
	kind          *ringKind
	seq           uint64
	first, offset int64
	batch         []byte
}

// parseFrame reads the frame at the beginning of b.
func parseFrame(b []byte) (f frame, ok bool) {
	if len(b) < frameHead {
		return f, false
	}
	switch string(b[:8]) {
	case durableRing.magic:
		f.kind = durableRing
	case writtenRing.magic:
		f.kind = writtenRing
	default:
		return f, false
	}
	length := binary.BigEndian.Uint64(b[32:])
	if length == 0 || length > uint64(len(b)-frameHead) {
		return f, false
	}
	f.batch = b[frameHead : frameHead+length]
	sum := crc32.Update(crc32.Checksum(b[:40], castagnoli), castagnoli, f.batch)
	if sum != binary.BigEndian.Uint32(b[40:]) {
		return f, false
	}
	f.seq = binary.BigEndian.Uint64(b[8:])
	f.first, f.offset = int64(binary.BigEndian.Uint64(b[16:])), int64(binary.BigEndian.Uint64(b[24:]))
	if f.first < 0 || f.offset < 0 || f.batch[length-1] != '\n' {
		return f, false
	}
	return f, true
}

// parseRing gives the frames of a ring's content in the order in which they
// were written. What is behind the last frame of a half is of an earlier round.
func parseRing(b []byte) []frame {
	var frames []frame
	half := halfRing(int64(len(b)))
	for _, part := range [][]byte{b[:half], b[half : 2*half]} {
		last := uint64(0)
		for {
			f, ok := parseFrame(part)
			if !ok || last != 0 && f.seq != last+1 {
				break
			}
			frames = append(frames, f)
			part, last = part[min(f.kind.frameSize(len(f.batch)), int64(len(part))):], f.seq
		}
	}
	slices.SortStableFunc(frames, func(a, b frame) int {
		switch {
		case a.seq < b.seq:
			return -1
		case a.seq > b.seq:
			return 1
		}
		return 0
	})
	// A batch is acknowledged after all before it: what follows a gap never was.
	for i := 1; i < len(frames); i++ {
		if frames[i].seq != frames[i-1].seq+1 {
			return frames[:i]
		}
	}
	return frames
}

// Quicken gives the journal a ring, once it has seen enough commits to be
// worth one. Where that can't be, appends sync the segment itself. It must not
// be called twice at once.
func (j *Journal) Quicken() {
	j.mu.Lock()
	due := j.commits >= j.ringDue && j.stopped == nil && !j.closed
	if due {
		j.ringDue = never // but after a seal
	}
	j.mu.Unlock()
	if !due || j.opts.Mode == Queued || j.opts.Ring == 0 {
		return
	}
	kind := durableRing
	if j.opts.Mode == Written {
		kind = writtenRing
	}
	size := min(j.opts.Ring, kind.most)
	l, err := j.makeRing(kind, size)
	j.exclusive()
	defer j.commit.Unlock()
	j.mu.Lock()
	useless := err != nil || j.stopped != nil || j.closed
	j.mu.Unlock()
	if useless {
		if l != nil {
			_ = errors.Join(l.close(), j.opts.FS.Remove(j.ringPath()))
		}
		return
	}
	j.ring = &ring{lanes: [lanes]*lane{l}, kind: kind, half: halfRing(size)}
	if j.opts.CatchUp > 0 && j.late == nil {
		j.late = make(chan struct{}, 1)
		j.behind.soon.Go(j.catchUpSoon)
	}
}

func (j *Journal) ringPath() string { return filepath.Join(j.opts.Dir, ringFile) }

// makeRing writes the file in full, so that its blocks are there and were
// written: what is then written in place changes nothing but bytes.
func (j *Journal) makeRing(kind *ringKind, size int64) (l *lane, err error) {
	fsys := j.opts.FS
	f, err := fsys.OpenFile(j.ringPath(), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	err = f.Reserve(size)
	if errors.Is(err, errors.ErrUnsupported) {
		err = nil
	}
	// Block by block: where the page cache gets larger pieces at once it keeps them in
	// one, and then looks at all of a piece for each write to a part of it.
	zeros := make([]byte, ringBlock)
	for at := int64(0); at < size && err == nil; at += ringBlock {
		_, err = f.WriteAt(zeros[:min(ringBlock, size-at)], at)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = fsys.SyncDir(j.opts.Dir)
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		l, err = openLane(fsys, j.ringPath(), kind, size)
	}
	if err == nil { // a device with larger blocks says so now
		_, err = l.file.WriteAt(roomFor(nil, ringBlock)[:ringBlock], 0)
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}
	if err != nil {
		return nil, errors.Join(err, fsys.Remove(j.ringPath()))
	}
	return l, nil
}

// dropRing removes the ring, everything in it being synced in the segment;
// commit is held.
func (j *Journal) dropRing() error {
	if j.ring == nil {
		return nil
	}
	err := errors.Join(j.ring.close(), j.opts.FS.Remove(j.ringPath()))
	j.ring = nil
	j.mu.Lock()
	j.ringDue = j.commits + ringAfter
	j.mu.Unlock()
	return err
}

// placeRing takes a place in the ring for a batch whose place in the segment is at
// offset. It reports false where the ring has none: then the segment has to acknowledge.
func (j *Journal) placeRing(b *batch, offset int64) bool {
	r, batch := j.ring, len(b.lines())
	if r == nil || r.gone.Load() || !r.fits(batch) {
		return false
	}
	side, turns := r.turns(batch)
	if turns && !j.mayTurn(r.ends[side]) {
		return false
	}
	l := &r.lanes[0]
	if r.kind.sync { // else one batch is on its way at a time
		l = &r.lanes[b.ticket%lanes]
	}
	if *l == nil {
		var err error
		if *l, err = openLane(j.opts.FS, j.ringPath(), r.kind, 2*r.half); err != nil {
			return false
		}
	}
	b.slot, b.turned = r.place(*l, j.first, offset, batch), turns && r.kind.sync
	return true
}

// mayTurn tells whether a half may be begun anew whose last batch ends there in the
// segment.
func (j *Journal) mayTurn(end int64) bool {
	if j.ring.kind.sync { // else everything is synced, and the next batch begins the half
		return end <= j.offset-j.unsynced.Load()
	}
	return j.CatchUp() == nil
}

// RestoreRing writes the batches of a ring that a crash left into the open
// segment, from the line at index covered on: what is before was synced there
// and signed, and nothing may change it. After a clean close, and when that is
// done, the ring is removed. It comes before Replay.
func (j *Journal) RestoreRing(covered int64, clean bool) error {
	if _, err := j.opts.FS.Stat(j.ringPath()); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if !clean {
		data, err := durable.ReadFile(j.opts.FS, j.ringPath(), maxRing)
		if err == nil {
			err = j.restore(covered, parseRing(data))
		}
		if err != nil {
			return fmt.Errorf("restore: %w", err)
		}
	}
	if err := j.opts.FS.Remove(j.ringPath()); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	return j.opts.FS.SyncDir(j.opts.Dir)
}

// ErrRing: the ring has acknowledged lines that can't follow on what is in the
// open segment. No crash does that.
var ErrRing = errors.New("lines are missing before those in the ring")

// maxRing bounds what is read: nobody makes a larger one.
const maxRing = 64 << 20

func (j *Journal) restore(covered int64, frames []frame) error {
	from, ok, err := j.coveredBytes(covered)
	if err != nil || !ok {
		return err // fewer lines than are covered: damage, for Replay to tell
	}
	f, err := j.opts.FS.OpenFile(j.opts.Path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	end := fi.Size()
	for _, fr := range frames {
		skip := min(max(from-fr.offset, 0), int64(len(fr.batch)))
		at, batch := fr.offset+skip, fr.batch[skip:]
		if fr.first != j.first || len(batch) == 0 {
			continue
		}
		if at > end && !fr.kind.sync {
			break // the power failed, and mode Written promises nothing then
		}
		if at > end {
			return fmt.Errorf("%w: it goes on at byte %d and %s ends at %d", ErrRing, at, filepath.Base(j.opts.Path), end)
		}
		// Written also where the same bytes can be read: the page cache may
		// hold what the disk never got.
		if _, err := f.WriteAt(batch, at); err != nil {
			return err
		}
		end = max(end, at+int64(len(batch)))
	}
	return f.Sync()
}

// coveredBytes is where the line at index begins, or would, in the open
// segment; false when there are fewer lines.
func (j *Journal) coveredBytes(index int64) (int64, bool, error) {
	fi, err := j.file.Stat()
	if err != nil {
		return 0, false, err
	}
	r := bufio.NewReaderSize(sectionOf(j.file, 0, fi.Size()), 1<<20)
	at := int64(0)
	for n := j.first; n < index; {
		part, err := r.ReadSlice('\n')
		at += int64(len(part))
		switch {
		case err == nil:
			n++
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF):
			return 0, false, nil
		default:
			return 0, false, err
		}
	}
	return at, true, nil
}
