package audit

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/journal"
	"github.com/kaizen-audit/kaizen-audit/internal/lifecycle"
	"github.com/kaizen-audit/kaizen-audit/internal/socket"
	"github.com/kaizen-audit/kaizen-audit/internal/tree"
)

// unsigned is where a lifecycle entry's signature goes.
var unsigned = []byte(`"signature":""`)

// signLine signs a lifecycle entry: Ed25519 over the line with the member
// metadata.signature empty (docs/format-lifecycle.md).
func signLine(line []byte, s *signers, permits bool) ([]byte, error) {
	sig, err := s.sign(line, permits)
	if err != nil {
		return nil, err
	}
	at := bytes.LastIndex(line, unsigned)
	if at < 0 {
		return nil, errors.New("lifecycle entry without room for a signature")
	}
	at += len(unsigned) - 1
	out := make([]byte, 0, len(line)+base64.StdEncoding.EncodedLen(len(sig)))
	out = append(out, line[:at]...)
	out = base64.StdEncoding.AppendEncode(out, sig)
	return append(out, line[at:]...), nil
}

// principal is the operating system's user.
func principal() string { return "uid:" + strconv.Itoa(os.Getuid()) }

// askedBy is whom entries of the trail's own name: a peer of the socket, else the
// operating system's user.
func askedBy(ctx context.Context) string {
	if by, ok := peerOf(ctx); ok {
		return by.Principal()
	}
	return principal()
}

func isFull(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

func explainMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNotFound
	}
	return err
}

// SegmentInfo is a segment of the trail.
type SegmentInfo struct {
	First int64 `json:"first"`
	Count int64 `json:"count"`
	// File is its path below the trail's directory.
	File string `json:"file"`
	// Bytes of its lines, and as stored.
	Bytes  int64 `json:"bytes"`
	Stored int64 `json:"stored"`
	// Archived says that its file is in the archive only.
	Archived bool `json:"archived,omitempty"`
}

func segmentInfo(s journal.Segment) SegmentInfo {
	return SegmentInfo{First: s.First, Count: s.Count, File: "segments/" + s.File, Bytes: s.Bytes, Stored: s.Stored, Archived: s.Archived}
}

// sealing is the work of ending and compressing segments.
type sealing struct {
	gate     sync.RWMutex // held by Close; shared by Rotate
	due      atomic.Bool  // a goroutine is at it
	cut      sync.Mutex   // one at a time
	compress sync.Mutex   // one at a time
	wg       sync.WaitGroup
}

func (s *sealing) wait() { s.wg.Wait() }

// Rotate seals the open segment and returns once the sealed file is durable,
// read back and compared. Where another process holds the trail, that one seals; the
// user must be the holder's own or root.
func (t *Trail) Rotate(ctx context.Context) (SegmentInfo, error) {
	if err := t.authorizeAll(ctx, "Rotate"); err != nil {
		return SegmentInfo{}, fmt.Errorf("rotate %s: %w", t.path, err)
	}
	s, err := byHolder(ctx, t, socket.Rotations, struct{}{}, func() (SegmentInfo, error) { return t.rotate(ctx) })
	if err != nil {
		return SegmentInfo{}, fmt.Errorf("rotate %s: %w", t.path, err)
	}
	return s, nil
}

func (t *Trail) rotate(ctx context.Context) (SegmentInfo, error) {
	t.sealing.gate.RLock()
	defer t.sealing.gate.RUnlock()
	if err := t.writable(ctx); err != nil {
		return SegmentInfo{}, err
	}
	s, err := t.cut(ctx, func(int64) bool { return true })
	if err == nil {
		s, err = t.compress(*s)
	}
	if err != nil {
		return SegmentInfo{}, explainFull(explainJournal(err))
	}
	return segmentInfo(*s), nil
}

// sealWhenFull seals in the background once the open segment is full: whoever
// appended last waits for none of it.
func (t *Trail) sealWhenFull() {
	if t.journal.OpenBytes() >= t.opts.SegmentBytes && t.sealing.due.CompareAndSwap(false, true) {
		t.sealBehind()
	}
}

func (t *Trail) sealBehind() {
	t.sealing.wg.Go(func() {
		s, err := t.cut(context.Background(), func(size int64) bool { return size >= t.opts.SegmentBytes })
		t.sealing.due.Store(false)
		if err == nil && s != nil {
			_, err = t.compress(*s)
		}
		if err != nil && t.journal.Err() == nil {
			// The open segment goes on, or its plain file counts; the next
			// append or the next opening tries again.
			t.warn(err)
		}
	})
}

func (t *Trail) compressBehind(s journal.Segment) {
	t.sealing.wg.Go(func() {
		if _, err := t.compress(s); err != nil {
			// The plain file stays and counts; the next opening tries again.
			t.warn(err)
		}
	})
}

// resumeSealing compresses what an earlier writer cut off and left plain.
func (t *Trail) resumeSealing() {
	for _, s := range t.journal.Uncompressed() {
		t.compressBehind(s)
	}
}

// cut ends the open segment if it is still to be ended. ctx says who asked; it ends
// nothing.
func (t *Trail) cut(ctx context.Context, due func(size int64) bool) (*journal.Segment, error) {
	t.sealing.cut.Lock()
	defer t.sealing.cut.Unlock()
	t.life.mu.Lock()
	defer t.life.mu.Unlock()
	if !due(t.journal.OpenBytes()) {
		return nil, nil
	}
	// What is in force is read, and most of the tree is on disk, before appends are
	// held.
	state, err := t.lifeLocked(context.WithoutCancel(ctx))
	if err != nil {
		return nil, err
	}
	if err := t.signer.sign(); err != nil {
		return nil, err
	}
	var snap tree.Snapshot
	defer t.protectOpen()
	s, err := t.journal.Cut(func(s journal.Segment) ([]byte, error) {
		var err error
		if snap, err = t.signer.rootAt(s.First + s.Count); err != nil {
			return nil, err
		}
		return t.sealLine(ctx, s, snap.Root, t.clock.takeMax(), state, t.life.longest)
	})
	if err != nil {
		return nil, err
	}
	t.life.forget()
	// The checkpoint at the end of the segment is kept: without it a
	// verification still works, so an error is not the seal's.
	if err := t.signer.keepSealed(snap); err != nil {
		t.warn(err)
	}
	if err := t.idem.Flush(s.First + s.Count); err != nil {
		t.warn(err)
	}
	return &s, nil
}

// sealLine is the AUDIT_SEAL entry that begins the segment after s: root is the
// tree's at its end, latest the latest time of the clock while it was open, days the
// longest period in force in that time. It says again all that a reader of only the
// newest segments needs.
func (t *Trail) sealLine(ctx context.Context, s journal.Segment, root tree.Hash, latest time.Time, state *lifecycle.State, days int64) ([]byte, error) {
	outputs := t.restatement(state, map[string]any{
		"segment": map[string]any{
			"first": s.First, "count": s.Count, "bytes": s.Bytes, "root": hex.EncodeToString(root[:]),
			"max_recorded_at": formatTime(latest), "retention_days": days,
		},
	})
	return t.ownLine(ownEntry{eventType: "AUDIT_SEAL", action: "segment_sealed", signed: true, outputs: outputs, metadata: ownMetadata(ctx)}, t.clock.now())
}

// sealAgain records the AUDIT_SEAL of the newest sealed segment once more: the
// first one lies among adopted lines, which say nothing
// (docs/format-lifecycle.md §7.3).
func (t *Trail) sealAgain(ctx context.Context, c tree.Checkpoint, r *replayed) error {
	segments := t.journal.Segments()
	last := segments[len(segments)-1]
	b, err := t.signer.store.Load(c.Size)
	if err != nil {
		return err
	}
	b.RootOnly().Append(r.tail[:r.First-c.Size]...)
	t.life.mu.Lock()
	defer t.life.mu.Unlock()
	state, err := t.lifeLocked(ctx)
	if err != nil {
		return err
	}
	line, err := t.sealLine(ctx, last, b.Root(), t.clock.takeMax(), state, t.life.longest)
	if err != nil {
		return err
	}
	_, err = t.journal.Append(ctx, append(line, '\n'), []journal.Digest{entry.Digest(line)})
	t.life.forget()
	return explainJournal(err)
}

// compress makes the sealed file of a cut-off segment.
func (t *Trail) compress(s journal.Segment) (*journal.Segment, error) {
	t.sealing.compress.Lock()
	defer t.sealing.compress.Unlock()
	sealed, err := t.journal.Compress(s, &inspector{
		store: tree.NewStore(t.opts.fs, t.dir), builder: tree.NewBuilder().RootOnly(), end: s.First + s.Count,
	})
	if err == nil {
		t.protectSealed(sealed.File)
		t.archiving.kick()
	}
	return &sealed, err
}

// inspector compares a segment's lines with the entry bundles, and finds its
// root and time bounds.
type inspector struct {
	store   *tree.Store
	builder *tree.Builder
	times   boundsOf

	end    int64  // of the segment
	bundle []byte // entries from index at on; nil where there is none
	at     int64
	begun  bool
}

func (i *inspector) Line(index int64, line []byte) error {
	d := entry.Digest(line)
	i.builder.Append(d)
	i.times.add(line)
	if index%tree.TileWidth == 0 || !i.begun {
		n := index / tree.TileWidth
		b, err := i.store.Tile(tree.Bundles, n, tree.TileWidth)
		if err != nil && (n+1)*tree.TileWidth > i.end {
			b, err = i.store.Tile(tree.Bundles, n, int(i.end%tree.TileWidth))
		}
		if err != nil {
			return fmt.Errorf("entry bundle of entry %d: %w", index, err)
		}
		i.bundle, i.at, i.begun = b, n*tree.TileWidth, true
	}
	const each = 2 + len(d)
	at := int(index-i.at) * each
	if !bytes.Equal(i.bundle[at+2:at+each], d[:]) {
		return fmt.Errorf("entry %d is not what its entry bundle says", index)
	}
	return nil
}

func (i *inspector) Done() (string, journal.Bounds, error) {
	root := i.builder.Root()
	return hex.EncodeToString(root[:]), i.times.bounds(), nil
}

// boundsOf finds the time bounds of lines.
type boundsOf struct {
	b       journal.Bounds
	missing bool
}

func (b *boundsOf) add(line []byte) {
	if b.missing {
		return
	}
	timestamp, recordedAt, err := entry.Times(line)
	if err != nil || timestamp.IsZero() || recordedAt.IsZero() {
		b.missing = true
		return
	}
	grow := func(low, high **time.Time, t time.Time) {
		if *low == nil || t.Before(**low) {
			*low = &t
		}
		if *high == nil || t.After(**high) {
			*high = &t
		}
	}
	grow(&b.b.MinTimestamp, &b.b.MaxTimestamp, timestamp)
	grow(&b.b.MinRecordedAt, &b.b.MaxRecordedAt, recordedAt)
}

func (b *boundsOf) bounds() journal.Bounds {
	if b.missing {
		return journal.Bounds{}
	}
	return b.b
}

// sinkLost is told that a sink did not take a checkpoint: that is an entry
// (promise 7), at most one a minute for each sink.
func (t *Trail) sinkLost(name string, err error) {
	t.warn(fmt.Errorf("checkpoint sink %s: %w", name, err))
	t.losses.mu.Lock()
	defer t.losses.mu.Unlock()
	if t.losses.count == nil {
		t.losses.count = map[string]int64{}
	}
	t.losses.count[name]++
}

// losses counts what sinks did not take until it becomes an entry.
type losses struct {
	mu    sync.Mutex
	count map[string]int64
	last  time.Time
}

// lossInterval is how far two AUDIT_LOSS entries lie apart at least: each is
// itself a line that makes a new checkpoint for the sink.
const lossInterval = time.Minute

// flushLosses records what sinks did not take.
func (t *Trail) flushLosses(now bool) error {
	l := &t.losses
	l.mu.Lock()
	at := t.clock.now()
	if len(l.count) == 0 || !now && at.Sub(l.last) < lossInterval {
		l.mu.Unlock()
		return nil
	}
	count := l.count
	l.count, l.last = nil, at
	l.mu.Unlock()
	return t.recordOwn(context.Background(), ownEntry{eventType: "AUDIT_LOSS", action: "loss", failed: true,
		outputs: map[string]any{"checkpoints_not_taken": count}})
}
