package archiver

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"

	"github.com/kaizen-audit/kaizen-audit/archive"
	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/journal"
	"github.com/kaizen-audit/kaizen-audit/internal/tree"
)

// opened is a sealed file that is to be sent.
type opened struct {
	file   *os.File
	object archive.Object
	err    error
}

func (o opened) close() {
	if o.file != nil {
		_ = o.file.Close() // only read
	}
}

// putSegments stores what is sealed and not archived yet. While one is sent the next is
// read for its digests: a store that puts the parts of an object together takes as long
// for that as for taking them (make bench-archive).
func (p *Pusher) putSegments(ctx context.Context, sealed []journal.Part) error {
	var todo []journal.Segment
	for _, part := range sealed {
		if !p.hasSegment(part.Segment) {
			todo = append(todo, part.Segment)
		}
	}
	var next <-chan opened
	defer func() {
		if next != nil {
			(<-next).close()
		}
	}()
	for i, s := range todo {
		if next == nil {
			next = p.open(ctx, s)
		}
		o := <-next
		next = nil
		if i+1 < len(todo) && o.err == nil {
			next = p.open(ctx, todo[i+1])
		}
		err := p.putSegment(ctx, s, o)
		o.close()
		if err != nil {
			return err
		}
	}
	return nil
}

// hasSegment tells whether a segment and its digests are archived.
func (p *Pusher) hasSegment(s journal.Segment) bool {
	segment, ok1 := p.there[segmentFile(s.First)]
	packed, ok2 := p.there[packedFile(s.First)]
	return ok1 && ok2 && packed.size == s.Count*sha256.Size && segment.size == s.Stored
}

// open opens a segment's file and computes its digests, if it is to be sent, beside
// what else is done.
func (p *Pusher) open(ctx context.Context, s journal.Segment) <-chan opened {
	done := make(chan opened, 1)
	o := opened{object: archive.Object{Name: segmentFile(s.First), Size: s.Stored}}
	_, there := p.there[o.object.Name]
	go func() {
		o.file, o.err = os.Open(p.file(segmentsDir + s.File))
		if errors.Is(o.err, fs.ErrNotExist) && p.src.Archived != nil {
			// It is in another archive only.
			o.file, o.err = p.src.Archived(ctx, s.First)
		}
		if o.err == nil && !there {
			o.err = digestsOf(&o.object, o.file)
		}
		done <- o
	}()
	return done
}

// digestsOf reads an object once for its digest and those of its parts, on two
// processors: the store reads it again to send it, and has nothing left to hash.
func digestsOf(o *archive.Object, body io.ReaderAt) error {
	o.Parts = make([][sha256.Size]byte, (o.Size+archive.PartBytes-1)/archive.PartBytes)
	whole := sha256.New()
	buf := make([]byte, min(o.Size, archive.PartBytes))
	for n := range o.Parts {
		at := int64(n) * archive.PartBytes
		part := buf[:min(archive.PartBytes, o.Size-at)]
		if _, err := io.ReadFull(io.NewSectionReader(body, at, int64(len(part))), part); err != nil {
			return err
		}
		var beside sync.WaitGroup
		beside.Go(func() { o.Parts[n] = sha256.Sum256(part) })
		whole.Write(part)
		beside.Wait()
	}
	o.SHA256 = [sha256.Size]byte(whole.Sum(nil))
	return nil
}

// putSegment stores a sealed segment, then the digests of its lines.
func (p *Pusher) putSegment(ctx context.Context, s journal.Segment, o opened) error {
	if o.err != nil {
		return o.err
	}
	terms, err := p.termsNow(ctx)
	if err != nil {
		return err
	}
	o.object.RetainUntil = terms.Retain(s)
	if err := p.keep(ctx, o.object, o.file); err != nil {
		return err
	}
	digests, err := p.digests(s)
	if err != nil {
		return err
	}
	return p.keep(ctx, archive.Object{Name: packedFile(s.First), Size: int64(len(digests)), RetainUntil: o.object.RetainUntil}, bytes.NewReader(digests))
}

// digests are the digests of a segment's lines, from its entry bundles.
func (p *Pusher) digests(s journal.Segment) ([]byte, error) {
	const each = 2 + sha256.Size
	out := make([]byte, 0, s.Count*sha256.Size)
	store := tree.NewStore(durable.OS, p.src.Dir)
	end := s.First + s.Count
	for n := s.First / tree.TileWidth; n*tree.TileWidth < end; n++ {
		from, to := max(s.First, n*tree.TileWidth), min(end, (n+1)*tree.TileWidth)
		b, err := store.Tile(tree.Bundles, n, tree.TileWidth)
		if err != nil {
			// The last bundle may not be full yet.
			b, err = store.Tile(tree.Bundles, n, int(to-n*tree.TileWidth))
		}
		if err != nil {
			return nil, fmt.Errorf("digests of segment %d: %w", s.First, err)
		}
		for i := from; i < to; i++ {
			at := (i - n*tree.TileWidth) * each
			out = append(out, b[at+2:at+each]...)
		}
	}
	return out, nil
}
