package audit

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kaizen-audit/kaizen-audit/archive"
	"github.com/kaizen-audit/kaizen-audit/internal/advice"
	"github.com/kaizen-audit/kaizen-audit/internal/archiver"
	"github.com/kaizen-audit/kaizen-audit/internal/journal"
	"github.com/kaizen-audit/kaizen-audit/internal/lifecycle"
)

// DefaultArchiveCache is how many bytes are kept of segments that were fetched.
const DefaultArchiveCache = 1 << 30

// leastLocal is how long segments stay local at least, in profiles that say so.
var leastLocal = map[string]time.Duration{"pci": 90 * 24 * time.Hour}

// archiveCache gives what is in an archive only, to readers of a trail.
type archiveCache struct{ cache archiver.Cache }

// newArchiveCache is the cache of the trail in dir.
func newArchiveCache(dir string, o *Options) *archiveCache {
	return &archiveCache{archiver.Cache{Dir: dir, Limit: cmp.Or(o.ArchiveCache, DefaultArchiveCache), Store: o.archiveAt}}
}

// archiveAt is the archive at a URL.
func (o *Options) archiveAt(url string) (archive.Store, error) {
	switch {
	case o.ArchiveTo != nil && o.ArchiveTo.URL() == url:
		return o.ArchiveTo, nil
	case o.OpenArchive != nil:
		return o.OpenArchive(url)
	case strings.HasPrefix(url, "file:"):
		return archive.OpenDir(url)
	}
	return nil, fmt.Errorf("nothing here reads %s: it is for Options.OpenArchive", url)
}

// segment is a journal.Archive.
func (c *archiveCache) segment(ctx context.Context, first int64) (*os.File, error) {
	f, err := c.cache.Open(ctx, first)
	if err == nil || errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrInvalid) || ctx.Err() != nil {
		return f, err
	}
	// What a store advises is for who archives there.
	text, _ := advice.Split(err)
	return f, advice.For(errors.New(text), "see to it that the archive can be reached, with credentials that may read there, and do it again")
}

// ownOf are the trail's own entries of a segment that is in the archive only, as its
// reference has them; ok is false where they have to be read there. Each must be in the
// tree.
func (t *Trail) ownOf(s journal.Segment) (lines []lifecycle.Line, ok bool) {
	if !s.Archived {
		return nil, false
	}
	r, err := archiver.ReadReference(t.dir, s.First)
	if err != nil {
		return nil, false
	}
	digest := t.treeDigest()
	for _, l := range r.Own {
		if sum, ok := digest(l.Index); !ok || sum != sha256.Sum256([]byte(l.Line)) {
			return nil, false
		}
		lines = append(lines, lifecycle.Line{Index: l.Index, Text: []byte(l.Line)})
	}
	return lines, true
}

// letGo removes the files of sealed segments that have been here long enough, each once
// the archive was read and has it.
func (t *Trail) letGo(ctx context.Context, store archive.Store) error {
	keep := t.opts.ArchiveKeepLocal
	if keep == 0 {
		return nil
	}
	due, err := t.letGoDue(ctx, keep)
	if err != nil || len(due) == 0 {
		return err
	}
	terms, err := t.archiveTerms(ctx)
	if err != nil {
		return err
	}
	for _, s := range due {
		if err := t.letGoOne(ctx, store, s, terms.Retain(s)); err != nil {
			return fmt.Errorf("segment %d stays on this disk: %w", s.First, explainArchive(err))
		}
	}
	return nil
}

// letGoDue are the segments whose newest entry is old enough.
func (t *Trail) letGoDue(ctx context.Context, keep time.Duration) (due []journal.Segment, err error) {
	local := slices.DeleteFunc(t.journal.Segments(), func(s journal.Segment) bool { return s.Archived || s.Stored == 0 })
	if len(local) == 0 {
		return nil, nil
	}
	state, err := t.lifeNow(ctx)
	if err != nil {
		return nil, err
	}
	now := t.clock.now()
	for _, s := range local {
		for _, seal := range state.Seals {
			if seal.Segment == (lifecycle.Range{First: s.First, Count: s.Count}) && now.Sub(seal.Newest) >= keep {
				due = append(due, s)
			}
		}
	}
	if len(due) > 0 {
		// A clock that jumped makes nothing old.
		_, err = t.clockAgrees()
	}
	return due, err
}

func (t *Trail) letGoOne(ctx context.Context, store archive.Store, s journal.Segment, until time.Time) error {
	t.sealing.gate.RLock()
	defer t.sealing.gate.RUnlock()
	t.sealing.compress.Lock() // nothing is pruned meanwhile
	defer t.sealing.compress.Unlock()
	if !slices.ContainsFunc(t.journal.Segments(), func(o journal.Segment) bool { return o.First == s.First && !o.Archived }) {
		return nil // it was pruned
	}
	r, sum, err := t.referTo(ctx, s)
	if err != nil {
		return err
	}
	if err := archiver.Confirm(ctx, store, s.First, r.Stored, sum, until); err != nil {
		return err
	}
	r.From = store.URL()
	// Crash until here: nothing has happened. Crash after it: file and reference are
	// there, the file counts, and this is done again.
	if err := archiver.Refer(t.dir, r); err != nil {
		return explainFull(err)
	}
	return t.journal.LetGo(s.First)
}

// referTo is what stands for a segment, and its file's digest.
func (t *Trail) referTo(ctx context.Context, s journal.Segment) (r archiver.Reference, sum [sha256.Size]byte, err error) {
	f, err := os.Open(filepath.Join(t.dir, "segments", s.File))
	if err != nil {
		return r, sum, err
	}
	defer f.Close()
	hash := sha256.New()
	if r.Stored, err = io.Copy(hash, f); err != nil {
		return r, sum, err
	}
	sum = [sha256.Size]byte(hash.Sum(nil))
	r.First, r.Count, r.SHA256, r.Own = s.First, s.Count, hex.EncodeToString(sum[:]), []archiver.OwnLine{}
	lines, err := t.lifecycleIn(ctx, lifecycle.Range{First: s.First, Count: s.Count})
	for _, l := range lines {
		// A line that is not in the tree was changed: verify tells.
		r.Own = append(r.Own, archiver.OwnLine{Index: l.Index, Line: string(l.Text)})
	}
	return r, sum, err
}

// howLocal says what of a trail is in the archive only.
func (s *ArchiveState) howLocal(dir string, parts []journal.Part) {
	for _, p := range parts {
		switch {
		case p.Archived:
			s.Away.Segments, s.Away.Bytes = s.Away.Segments+1, s.Away.Bytes+p.Stored
		case p.Stored > 0:
			s.Local.Segments, s.Local.Bytes = s.Local.Segments+1, s.Local.Bytes+p.Stored
		}
	}
	s.Cached = archiver.Cached(dir)
}

// entryZero is entry 0, from the reference of its segment where that is in the
// archive only.
func (t *Trail) entryZero(ctx context.Context, view *journal.View) ([]byte, error) {
	if parts := view.Parts(); parts[0].First == 0 {
		if own, ok := t.ownOf(parts[0].Segment); ok && len(own) > 0 && own[0].Index == 0 {
			return own[0].Text, nil
		}
	}
	return view.Line(ctx, 0)
}
