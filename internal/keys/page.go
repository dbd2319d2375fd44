package keys

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/seal"
)

const (
	// cachedPages are held in memory: 262,144 subjects, some 50 MB.
	cachedPages = 64
	// recentPages are looked through for known subjects at an opening, which
	// unwraps each of their records: 4,096 take 40 ms.
	recentPages = 1
	// endPage ends a page whose identifiers are giants.
	endPage = 64 << 20
)

// page is a page's file in memory.
type page struct {
	pageFile
	key     []byte
	records map[string]*subject // by handle
	size    int64               // of the file, as far as it has been read or written
	broken  int                 // lines that are no record
}

// subject is a record in memory, unwrapped when it is first asked for.
type subject struct {
	data string // as in the file, until then
	kind Kind
	id   string
	key  []byte
}

// cache holds the pages that were read last.
type cache struct {
	pages map[int]*page
	order []int // the one used last is the last
	// handles of pages that were read and are no longer held, sorted.
	known map[int][]string
}

func (c *cache) get(n int) *page {
	p := c.pages[n]
	if p != nil {
		if i := slices.Index(c.order, n); i < len(c.order)-1 {
			c.order = append(slices.Delete(c.order, i, i+1), n)
		}
	}
	return p
}

func (c *cache) put(n int, p *page) (evicted *page) {
	if c.pages == nil {
		c.pages, c.known = map[int]*page{}, map[int][]string{}
	}
	if c.pages[n] == nil {
		c.order = append(c.order, n)
	}
	c.pages[n] = p
	delete(c.known, n)
	if len(c.order) <= cachedPages {
		return nil
	}
	old := c.order[0]
	c.order = c.order[1:]
	evicted = c.pages[old]
	delete(c.pages, old)
	handles := make([]string, 0, len(evicted.records))
	for h := range evicted.records {
		handles = append(handles, h)
	}
	slices.Sort(handles)
	c.known[old] = handles
	return evicted
}

// drop forgets a page that has changed.
func (c *cache) drop(n int) {
	delete(c.pages, n)
	delete(c.known, n)
	if i := slices.Index(c.order, n); i >= 0 {
		c.order = slices.Delete(c.order, i, i+1)
	}
}

// Subject is the subject of a kind and an identifier: the one that is known, else
// a new one, which Sync makes durable. The caller calls Sync before it lets
// anything out that is sealed under the key, whether the subject is new or not:
// somebody else may have made it just now.
func (s *Store) Subject(kind Kind, id string) (seal.Subject, error) {
	if !utf8.ValidString(id) || id == "" {
		return seal.Subject{}, errors.New("subject: an identifier is text")
	}
	s.mu.Lock()
	if sub, ok, err := s.knownLocked(kind, id); ok || err != nil {
		s.mu.Unlock()
		return sub, err
	}
	for {
		p, err := s.newestLocked()
		if err != nil {
			s.mu.Unlock()
			return seal.Subject{}, err
		}
		if p != nil {
			sub, err := s.addLocked(p, kind, id)
			s.mu.Unlock()
			return sub, err
		}
		s.mu.Unlock()
		if err := s.turn(); err != nil {
			return seal.Subject{}, err
		}
		s.mu.Lock()
		if sub, ok, err := s.knownLocked(kind, id); ok || err != nil {
			s.mu.Unlock()
			return sub, err
		}
	}
}

func (s *Store) knownLocked(kind Kind, id string) (seal.Subject, bool, error) {
	if err := s.writable(); err != nil {
		return seal.Subject{}, false, err
	}
	h, ok := s.ids[subjectID{kind, id}]
	if !ok {
		return seal.Subject{}, false, nil
	}
	sub, err := s.subjectLocked(h)
	if err != nil {
		return seal.Subject{}, false, err
	}
	return seal.Subject{Handle: h, Key: sub.key}, true, nil
}

// newestLocked is the page that takes new records, nil where a new one is to be
// begun.
func (s *Store) newestLocked() (*page, error) {
	n := len(s.table.Pages) - 1
	if n < 0 || s.foreign(n) {
		return nil, nil
	}
	p, err := s.page(n)
	if err != nil || p.full() {
		return nil, err
	}
	if s.file == nil {
		if s.file, err = s.fs.OpenFile(s.pagePath(p.pageFile), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600); err != nil {
			return nil, s.stop(err)
		}
	}
	return p, nil
}

func (p *page) full() bool { return len(p.records) >= pageSubjects || p.size >= endPage }

// addLocked writes the record of a new subject to the newest page.
func (s *Store) addLocked(p *page, kind Kind, id string) (seal.Subject, error) {
	handle := newID()
	for s.heldLocked(handle) {
		handle = newID()
	}
	id = strings.Clone(id) // the caller's is perhaps a part of a line's memory, which is used again
	sub := &subject{kind: kind, id: id, key: newKey()}
	text, err := s.record(p, handle, sub)
	if err != nil {
		return seal.Subject{}, err
	}
	if _, err := s.file.Write(text); err != nil {
		return seal.Subject{}, s.stop(err)
	}
	p.size += int64(len(text))
	p.records[handle] = sub
	s.ids[subjectID{kind, id}] = handle
	s.wrote++
	return seal.Subject{Handle: handle, Key: sub.key}, nil
}

// heldLocked tells whether a handle is in a page that is held. To read the others
// for a number of 72 random bits would be for nothing (seal.HandleSize).
func (s *Store) heldLocked(handle string) bool {
	for _, p := range s.pages.pages {
		if p.records[handle] != nil {
			return true
		}
	}
	return false
}

// record is a subject's line in a page.
func (s *Store) record(p *page, handle string, sub *subject) ([]byte, error) {
	inner, err := json.Marshal(record{sub.kind, sub.id, base64.RawURLEncoding.EncodeToString(sub.key)})
	if err != nil {
		return nil, err
	}
	data, err := seal.Wrap(s.origin, "subject", handle, p.key, newSalt(), inner)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(line{handle, data})
	return append(text, '\n'), err
}

// Sync returns once every subject that was handed out is durable.
func (s *Store) Sync() error {
	s.mu.Lock()
	want, done, err := s.wrote, s.wrote == s.synced, s.err
	s.mu.Unlock()
	if err != nil || done {
		return err
	}
	s.syncing.Lock()
	defer s.syncing.Unlock()
	s.mu.Lock()
	if s.err != nil || s.synced >= want {
		defer s.mu.Unlock()
		return s.err
	}
	file, wrote := s.file, s.wrote
	s.mu.Unlock()
	err = file.Sync()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		return s.stop(err)
	}
	s.synced = max(s.synced, wrote)
	return s.err
}

// turn begins a new page if the newest is full.
func (s *Store) turn() error {
	s.syncing.Lock()
	defer s.syncing.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.writable(); err != nil {
		return err
	}
	if n := len(s.table.Pages) - 1; n >= 0 && !s.foreign(n) {
		if p, err := s.page(n); err != nil || !p.full() {
			return err
		}
	}
	if err := s.endPageLocked(); err != nil {
		return err
	}
	// subjects.json first: a page that it does not name is litter.
	p := &page{pageFile: pageFile{Page: len(s.table.Pages), Epoch: s.table.Epoch}, key: newKey(), records: map[string]*subject{}}
	var err error
	if s.sealsOnly {
		var w wrap
		w, err = s.wrap(context.Background(), "page", p.name(), p.key)
		p.Wrap = &w
	} else {
		p.Data, err = s.wrapPage(s.epoch, p.pageFile, p.key)
	}
	if err != nil {
		return err
	}
	next := s.table
	next.Pages = append(slices.Clip(next.Pages), p.pageFile)
	err = s.replace(subjectsName, next)
	if err == nil {
		s.table = next
		err = durable.CreateFile(s.fs, s.pagePath(p.pageFile), nil, 0o600)
	}
	if err == nil {
		err = s.fs.SyncDir(filepath.Join(s.dir, pagesName))
	}
	if err != nil {
		return s.stop(fmt.Errorf("new page of subjects: %w", err))
	}
	s.hold(p.Page, p)
	return nil
}

// endPageLocked syncs and closes the newest page. syncing is held too.
func (s *Store) endPageLocked() error {
	if s.file == nil {
		return nil
	}
	err := s.file.Sync()
	if err = errors.Join(err, s.file.Close()); err != nil {
		return s.stop(err)
	}
	s.file, s.synced = nil, s.wrote
	return nil
}

func (s *Store) wrapPage(epoch []byte, p pageFile, key []byte) (string, error) {
	return seal.Wrap(s.origin, "page", p.name(), epoch, newSalt(), key)
}

// pageKey is the key of a page.
func (s *Store) pageKey(ctx context.Context, p pageFile) ([]byte, error) {
	if err := s.opens(); err != nil {
		return nil, err
	}
	if p.Wrap != nil {
		return s.unwrap(ctx, "page", p.name(), *p.Wrap)
	}
	key, err := seal.Unwrap(s.origin, "page", p.name(), s.epoch, p.Data)
	if err != nil || len(key) != seal.KeySize {
		return nil, fmt.Errorf("page %s of subjects: %w", p.name(), errors.Join(ErrDamaged, err))
	}
	return key, nil
}

func (s *Store) pagePath(p pageFile) string {
	return filepath.Join(s.dir, pagesName, p.name()+".jsonl")
}

// hold keeps a page, and forgets the one that was used least lately.
func (s *Store) hold(n int, p *page) {
	if gone := s.pages.put(n, p); gone != nil && s.ids != nil {
		for h, sub := range gone.records {
			if sub.key != nil && s.ids[subjectID{sub.kind, sub.id}] == h {
				delete(s.ids, subjectID{sub.kind, sub.id})
			}
		}
	}
}

// page is page n, read where it is not held.
func (s *Store) page(n int) (*page, error) {
	if p := s.pages.get(n); p != nil {
		return p, nil
	}
	p, err := s.load(n)
	if err != nil {
		return nil, err
	}
	if s.ids != nil && n >= len(s.table.Pages)-recentPages {
		for h, sub := range p.records {
			if s.unwrapSubject(p, h, sub) == nil && !s.retired[h] {
				s.ids[subjectID{sub.kind, sub.id}] = h
			}
		}
	}
	s.hold(n, p)
	return p, nil
}

// load reads page n and does not keep it.
func (s *Store) load(n int) (*page, error) {
	at := s.table.Pages[n]
	key, err := s.pageKey(context.Background(), at)
	if err != nil {
		return nil, err
	}
	p := &page{pageFile: at, key: key, records: map[string]*subject{}}
	return p, s.readOn(p)
}

// readOn reads what a page's file has beyond what was read of it. Its writer may
// be in the middle of a record: what has no newline yet is left.
func (s *Store) readOn(p *page) error {
	f, err := s.fs.OpenFile(s.pagePath(p.pageFile), os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) && p.size == 0 {
		return nil // subjects.json is written first
	}
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if fi.Size() < p.size || fi.Size() > maxPage {
		return fmt.Errorf("page %s of subjects: %d bytes: %w", p.name(), fi.Size(), ErrDamaged)
	}
	text := make([]byte, fi.Size()-p.size)
	if n, err := f.ReadAt(text, p.size); n < len(text) {
		return fmt.Errorf("page %s of subjects: %w", p.name(), err)
	}
	for {
		at := bytes.IndexByte(text, '\n')
		if at < 0 {
			return nil
		}
		var l line
		if json.Unmarshal(text[:at], &l) == nil && seal.ValidHandle(l.Handle) && l.Data != "" {
			p.records[l.Handle] = &subject{data: l.Data}
		} else {
			p.broken++
		}
		text = text[at+1:]
		p.size += int64(at) + 1
	}
}

func (s *Store) unwrapSubject(p *page, handle string, sub *subject) error {
	if sub.key != nil {
		return nil
	}
	inner, err := seal.Unwrap(s.origin, "subject", handle, p.key, sub.data)
	var r record
	if err == nil {
		err = json.Unmarshal(inner, &r)
	}
	key, err2 := base64.RawURLEncoding.Strict().DecodeString(r.Key)
	if err != nil || err2 != nil || len(key) != seal.KeySize {
		return fmt.Errorf("subject %s: %w", handle, ErrDamaged)
	}
	*sub = subject{kind: r.Kind, id: r.ID, key: key}
	return nil
}

// Key is the key of the subject with a handle. The error is ErrNoSubject where
// there is none, destroyed or never made.
func (s *Store) Key(handle string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sub, err := s.subjectLocked(handle)
	if err != nil {
		return nil, err
	}
	return sub.key, nil
}

func (s *Store) subjectLocked(handle string) (*subject, error) {
	sub, err := s.lookLocked(handle)
	if sub == nil && err == nil && s.readOnly {
		var changed bool
		if changed, err = s.refresh(context.Background()); changed && err == nil {
			sub, err = s.lookLocked(handle)
		}
	}
	if sub == nil && err == nil {
		err = fmt.Errorf("%s: %w", handle, ErrNoSubject)
	}
	return sub, err
}

// lookLocked looks through the pages, those that are held first.
func (s *Store) lookLocked(handle string) (*subject, error) {
	for n, p := range s.pages.pages {
		if sub := p.records[handle]; sub != nil {
			s.pages.get(n)
			return sub, s.unwrapSubject(p, handle, sub)
		}
	}
	for n := len(s.table.Pages) - 1; n >= 0; n-- {
		if s.pages.pages[n] != nil || s.foreign(n) {
			continue
		}
		if known, ok := s.pages.known[n]; ok {
			if _, there := slices.BinarySearch(known, handle); !there {
				continue
			}
		}
		p, err := s.page(n)
		if err != nil {
			return nil, err
		}
		if sub := p.records[handle]; sub != nil {
			return sub, s.unwrapSubject(p, handle, sub)
		}
	}
	return nil, nil
}

// Refresh lets a reader see what the writer of the store has added, and have no key
// any more that it has destroyed.
func (s *Store) Refresh(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.readOnly || s.err != nil {
		return nil
	}
	_, err := s.refresh(ctx)
	return err
}

// refresh reads what the writer of the store has added or destroyed since.
func (s *Store) refresh(ctx context.Context) (changed bool, err error) {
	before := s.table
	if err := s.readTable(ctx); err != nil {
		return false, err
	}
	for n, p := range s.pages.pages {
		if n >= len(s.table.Pages) || s.table.Pages[n].Epoch != p.Epoch {
			s.pages.drop(n)
			changed = true
		}
	}
	for n := range s.pages.known {
		if n >= len(s.table.Pages) || n >= len(before.Pages) || s.table.Pages[n].Epoch != before.Pages[n].Epoch {
			s.pages.drop(n)
		}
	}
	changed = changed || len(s.table.Pages) != len(before.Pages)
	for _, n := range []int{len(before.Pages) - 1, len(s.table.Pages) - 1} { // they may have grown
		if p := s.pages.pages[n]; p != nil {
			size := p.size
			if err := s.readOn(p); err != nil {
				return false, err
			}
			changed = changed || p.size > size
		}
	}
	return changed, nil
}

// Known is a subject that has a key.
type Known struct {
	Handle string
	Kind   Kind
	ID     string
}

// Unreadable is Find's error where records do not unwrap: whose they are can't be told.
// What was found besides is given with it.
type Unreadable struct {
	Handles []string // sorted
}

func (e *Unreadable) Error() string {
	return fmt.Sprintf("%d records of subjects can't be read, and whose they are can't be told: %s", len(e.Handles), strings.Join(e.Handles[:min(len(e.Handles), 5)], ", "))
}

// Unwrap makes it ErrDamaged.
func (e *Unreadable) Unwrap() error { return ErrDamaged }

// Find gives all handles of the subjects for which is is true, in the order of
// handles. It reads every page, and lets others in between two of them.
func (s *Store) Find(is func(Kind, string) bool) ([]Known, error) {
	if err := s.opens(); err != nil {
		return nil, err
	}
	if err := s.Refresh(context.Background()); err != nil {
		return nil, err
	}
	var found []Known
	var broken []string
	for n, more := 0, true; more; n++ {
		var err error
		var bad []string
		if more, bad, err = s.findIn(n, func(k Known) {
			if is(k.Kind, k.ID) {
				found = append(found, k)
			}
		}); err != nil {
			return nil, err
		}
		broken = append(broken, bad...)
	}
	slices.SortFunc(found, func(a, b Known) int { return strings.Compare(a.Handle, b.Handle) })
	if len(broken) > 0 {
		slices.Sort(broken)
		return found, &Unreadable{broken}
	}
	return found, nil
}

// findIn shows the subjects of page n, if there is one, and gives the handles of those
// that do not unwrap. A page that is not held is not kept: those that are written to
// are more use.
func (s *Store) findIn(n int, show func(Known)) (more bool, broken []string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n >= len(s.table.Pages) {
		return false, nil, nil
	}
	p := s.pages.pages[n]
	if p == nil {
		if p, err = s.load(n); err != nil {
			return false, nil, err
		}
	}
	for h, sub := range p.records {
		if s.unwrapSubject(p, h, sub) != nil {
			broken = append(broken, h)
			continue
		}
		show(Known{h, sub.kind, sub.id})
	}
	return true, broken, nil
}

// Who is the subject with a handle. The error is ErrNoSubject where there is none.
func (s *Store) Who(handle string) (Known, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sub, err := s.subjectLocked(handle)
	if err != nil {
		return Known{Handle: handle}, err
	}
	return Known{handle, sub.kind, sub.id}, nil
}
