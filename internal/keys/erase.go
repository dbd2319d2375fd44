package keys

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/kms"
)

// An erasure (docs/format-sealing.md §6.7) is, in the order of its steps:
// Begin, the caller's AUDIT_ERASURE, Destroy, the caller's clean-up, End. Who
// opens a trail asks Pending: if the entry is there, it goes on with Destroy, else
// it calls End and nothing has happened.

// Epoch is the present epoch: an erasure of now destroys its key.
func (s *Store) Epoch() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.table.Epoch
}

// Begin notes, durably, that the handles are to be erased (step 1), and those that
// a subject for whom is is true has got since they were looked for. Nothing is
// destroyed yet; but none of the handles is handed out for writing any more: who is
// recorded from here on gets a new one. The error is fs.ErrExist where an erasure has
// begun already.
func (s *Store) Begin(e Erasing, is func(Kind, string) bool) (Erasing, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := errors.Join(s.writable(), s.opens()); err != nil {
		return e, err
	}
	switch _, err := s.read(erasingName); {
	case err == nil:
		return e, fmt.Errorf("begin erasure: one has begun: %w", fs.ErrExist)
	case !errors.Is(err, fs.ErrNotExist):
		return e, err
	}
	e.Format, e.Epoch = formatVersion, s.table.Epoch
	e.Handles = slices.Clone(e.Handles)
	for who, h := range s.ids {
		if is != nil && is(who.kind, who.id) {
			e.Handles = append(e.Handles, h)
		}
	}
	slices.Sort(e.Handles)
	e.Handles = slices.Compact(e.Handles)
	if err := s.replace(erasingName, e); err != nil {
		return e, s.stop(fmt.Errorf("begin erasure: %w", err))
	}
	for _, h := range e.Handles {
		s.retired[h] = true
	}
	for who, h := range s.ids {
		if s.retired[h] {
			delete(s.ids, who)
		}
	}
	return e, nil
}

// Pending is the erasure that has begun and not ended, if there is one.
func (s *Store) Pending() (e Erasing, some bool, err error) {
	text, err := s.read(erasingName)
	if errors.Is(err, fs.ErrNotExist) {
		return e, false, nil
	}
	if err != nil {
		return e, false, err
	}
	e, err = parseErasing(text)
	return e, err == nil, err
}

// End removes the note of the erasure (step 6).
func (s *Store) End() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.writable(); err != nil {
		return err
	}
	if err := s.remove(erasingName); err != nil {
		return s.stop(fmt.Errorf("end erasure: %w", err))
	}
	return nil
}

// Destroy destroys the keys of the handles of the erasure that has begun (steps 3
// to 5). It returns when no file here has them any more, and may be called again
// after a crash or an error: what was done is not done twice.
func (s *Store) Destroy(ctx context.Context) error {
	e, some, err := s.Pending()
	if err != nil || !some {
		return errors.Join(err, errorIf(!some, "erase: nothing has begun"))
	}
	s.syncing.Lock()
	defer s.syncing.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.writable(); err != nil {
		return err
	}
	if s.table.Epoch == e.Epoch {
		if err := s.destroyLocked(ctx, e); err != nil {
			return s.stop(fmt.Errorf("erase: %w", err))
		}
	}
	// Step 5: where a key service has a key for each epoch, that one is destroyed. The
	// epoch key of another KEK lives in subjects.json alone and is gone with its old
	// content. Crash before its end: it is done again.
	if err := destroyEpoch(ctx, s.kek, s.origin, e.Epoch); err != nil {
		return fmt.Errorf("erase: key of epoch %d: %w", e.Epoch, err)
	}
	if err := s.sweep(); err != nil {
		return s.stop(fmt.Errorf("erase: %w", err))
	}
	return nil
}

func destroyEpoch(ctx context.Context, kek kms.KEK, origin string, epoch int64) error {
	if d, ok := kek.(kms.EpochDestroyer); ok {
		return d.DestroyEpoch(ctx, kms.Place{Origin: origin, Purpose: kms.PurposeEpoch, Name: fmt.Sprint(epoch)})
	}
	return nil
}

// Final tells whether what is erased is unreadable from copies of before, too: the
// KEK's service has a key for each epoch.
func (s *Store) Final() bool {
	_, ok := s.kek.(kms.EpochDestroyer)
	return ok
}

func errorIf(yes bool, text string) error {
	if yes {
		return errors.New(text)
	}
	return nil
}

// destroyLocked writes every page that has one of the handles anew, without it,
// and then the table under a new epoch key.
func (s *Store) destroyLocked(ctx context.Context, e Erasing) error {
	if err := s.endPageLocked(); err != nil {
		return err
	}
	epoch := newKey()
	next := subjectsFile{Format: formatVersion, Epoch: e.Epoch + 1, Pages: slices.Clone(s.table.Pages)}
	var err error
	if next.Wrap, err = s.wrap(ctx, "epoch", fmt.Sprint(next.Epoch), epoch); err != nil {
		return err
	}
	var rewritten []*page
	for n, at := range next.Pages {
		p, err := s.page(n)
		if err != nil {
			return err
		}
		key := p.key
		if slices.ContainsFunc(e.Handles, func(h string) bool { return p.records[h] != nil }) {
			at.Epoch = next.Epoch
			without := &page{pageFile: at, key: newKey(), records: map[string]*subject{}}
			if err := s.writeWithout(p, without, e.Handles); err != nil {
				return err
			}
			key, rewritten = without.key, append(rewritten, without)
		}
		at.Wrap = nil // of a page whose maker could seal only
		if at.Data, err = s.wrapPage(epoch, at, key); err != nil {
			return err
		}
		next.Pages[n] = at
	}
	if err := s.fs.SyncDir(filepath.Join(s.dir, pagesName)); err != nil {
		return err
	}
	// Step 4. Before it the erasure has not happened, after it it has.
	if err := s.replace(subjectsName, next); err != nil {
		return err
	}
	s.table, s.epoch = next, epoch
	for _, p := range rewritten {
		s.forget(p.Page)
		p.pageFile = next.Pages[p.Page]
		s.hold(p.Page, p)
		for h, sub := range p.records {
			if s.ids != nil && sub.key != nil {
				s.ids[subjectID{sub.kind, sub.id}] = h
			}
		}
	}
	for n, p := range s.pages.pages {
		p.pageFile = next.Pages[n]
	}
	return nil
}

// forget drops a page and the identifiers that lead to it.
func (s *Store) forget(n int) {
	if p := s.pages.pages[n]; p != nil && s.ids != nil {
		for h, sub := range p.records {
			if sub.key != nil && s.ids[subjectID{sub.kind, sub.id}] == h {
				delete(s.ids, subjectID{sub.kind, sub.id})
			}
		}
	}
	s.pages.drop(n)
}

// writeWithout writes to the file of a new page what an old one has, without some
// handles. A record that does not unwrap stays as unreadable as it was: its data
// does not go along.
func (s *Store) writeWithout(old, p *page, handles []string) error {
	var text []byte
	for _, h := range sortedHandles(old) {
		sub := old.records[h]
		if _, erased := slices.BinarySearch(handles, h); erased || s.unwrapSubject(old, h, sub) != nil {
			continue
		}
		line, err := s.record(p, h, sub)
		if err != nil {
			return err
		}
		text = append(text, line...)
		p.records[h] = sub
	}
	p.size = int64(len(text))
	return durable.CreateFile(s.fs, s.pagePath(p.pageFile), text, 0o600)
}

func sortedHandles(p *page) []string {
	handles := make([]string, 0, len(p.records))
	for h := range p.records {
		handles = append(handles, h)
	}
	slices.Sort(handles)
	return handles
}

// sweep removes what subjects.json does not name: pages of before an erasure, and
// of one that was not done; it cuts the record that a crash tore.
func (s *Store) sweep() error {
	dir := filepath.Join(s.dir, pagesName)
	files, err := s.fs.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		p, ok := parsePageName(f.Name())
		named := ok && p.Page < len(s.table.Pages) && s.table.Pages[p.Page].Epoch == p.Epoch
		if named || !ok && !strings.HasSuffix(f.Name(), ".tmp") {
			continue
		}
		if err := s.fs.Remove(filepath.Join(dir, f.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if n := len(s.table.Pages) - 1; n >= 0 && s.file == nil {
		if err := s.cutTorn(s.table.Pages[n]); err != nil {
			return err
		}
	}
	return s.fs.SyncDir(dir)
}

// cutTorn cuts what stands behind the last newline of the newest page, and syncs
// the rest: a crash may have left it in the page cache alone.
func (s *Store) cutTorn(at pageFile) error {
	f, err := s.fs.OpenFile(s.pagePath(at), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := cutBehindNewline(f); err != nil {
		return errors.Join(fmt.Errorf("page %s of subjects: %w", at.name(), err), f.Close())
	}
	return errors.Join(f.Sync(), f.Close())
}

func cutBehindNewline(f durable.File) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if fi.Size() > maxPage {
		return ErrDamaged
	}
	end := fi.Size()
	var b [4096]byte
	for end > 0 {
		from := max(0, end-int64(len(b)))
		part := b[:end-from]
		if n, err := f.ReadAt(part, from); n < len(part) {
			return err
		}
		if i := strings.LastIndexByte(string(part), '\n'); i >= 0 {
			end = from + int64(i) + 1
			break
		}
		end = from
	}
	if end < fi.Size() {
		return f.Truncate(end)
	}
	return nil
}
