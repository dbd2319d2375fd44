package keys

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/seal"
	"github.com/kaizen-audit/kaizen-audit/kms"
)

// Errors of a store.
var (
	// ErrDamaged means that a file here is not what this package writes.
	ErrDamaged = errors.New("damaged")
	// ErrNoSubject means that there is no key under a handle: it was destroyed, or
	// never was.
	ErrNoSubject = errors.New("no key under this handle")
	// ErrNoDEK means that there is no DEK of an id.
	ErrNoDEK = errors.New("no key of this id")
	// ErrStopped means that a write went wrong before: the store takes no more
	// until it is opened again.
	ErrStopped = errors.New("stopped after a failed write")
	// ErrReadOnly means that the store was opened for reading.
	ErrReadOnly = errors.New("opened for reading")
	// errUndone means that something is left over that a key has to open.
	errUndone = errors.New("an erasure is to be completed first")
)

// Kind says what a subject is.
type Kind string

// The kinds of subjects (docs/format-sealing.md §6.6).
const (
	Person   Kind = "person"   // its id is a user's
	Resource Kind = "resource" // its id is a resource's, a patient's say
	Trace    Kind = "trace"    // text with no declared subject; its id is the trace's
)

// Options say which store, and how it is opened.
type Options struct {
	FS       durable.FS
	Dir      string // X.trail/keys
	Origin   string // of the trail
	KEK      kms.KEK
	Former   kms.KEK          // the KEK before, until Rewrap has returned; nil: there is none
	ReadOnly bool             // another process may write
	Now      func() time.Time // nil: time.Now
}

// Store is an open store of keys.
type Store struct {
	fs        durable.FS
	dir       string
	origin    string
	kek       kms.KEK
	former    kms.KEK
	readOnly  bool
	sealsOnly bool // the KEK unwraps nothing; see sealonly.go
	now       func() time.Time

	syncing sync.Mutex // taken before mu, by who syncs the newest page

	mu        sync.Mutex
	err       error // sticky
	deks      deksFile
	dekKey    map[string][]byte // those that were unwrapped
	firstDEK  string            // which this opening made, where it seals only
	table     subjectsFile
	tableText []byte // as it was read
	epoch     []byte
	pages     cache
	ids       map[subjectID]string // handles of the pages that are held; nil for a reader
	retired   map[string]bool      // handles that are to be erased
	file      durable.File         // the newest page, of a writer
	wrote     int64                // records written, and of them synced
	synced    int64
}

type subjectID struct {
	kind Kind
	id   string
}

// Create makes an empty store with a first DEK, and keeps the trail's MAC key in
// it. It is durable on return. What a crash in the middle left is made anew: the
// directory must be that of a trail that is being made.
func Create(ctx context.Context, o Options, mac []byte) error {
	s := newStore(o)
	if err := durable.MkdirAll(s.fs, filepath.Join(s.dir, pagesName), 0o700); err != nil {
		return fmt.Errorf("create keys: %w", err)
	}
	epoch := newKey()
	wrapped, err := s.wrap(ctx, "epoch", "1", epoch)
	if err == nil {
		err = s.replace(subjectsName, subjectsFile{Format: formatVersion, Epoch: 1, Wrap: wrapped, Pages: []pageFile{}})
	}
	if err == nil {
		err = s.putWrapped(ctx, macName, mac)
	}
	if err == nil {
		s.deks.Format = formatVersion
		_, err = s.addDEK(ctx)
	}
	if err != nil {
		return fmt.Errorf("create keys: %w", err)
	}
	return nil
}

// Renew makes what is missing of a store of which keys were lost: who had a key in it
// is not readable any more, and DEKs that are there open their lines as before. What a
// crash in the middle left is gone on with. It is durable on return.
func Renew(ctx context.Context, o Options, mac []byte) error {
	s := newStore(o)
	if err := s.renew(ctx, mac); err != nil {
		return fmt.Errorf("make keys anew: %w", err)
	}
	return nil
}

func (s *Store) renew(ctx context.Context, mac []byte) error {
	if err := durable.MkdirAll(s.fs, filepath.Join(s.dir, pagesName), 0o700); err != nil {
		return err
	}
	missing := func(name string) bool {
		_, err := s.fs.Stat(filepath.Join(s.dir, name))
		return errors.Is(err, fs.ErrNotExist)
	}
	if missing(deksName) {
		s.deks.Format = formatVersion
		if _, err := s.addDEK(ctx); err != nil {
			return err
		}
	} else {
		text, err := s.read(deksName)
		if err == nil {
			s.deks, err = parseDEKs(text)
		}
		if err == nil {
			_, err = s.dek(ctx, s.deks.DEKs[len(s.deks.DEKs)-1]) // else the KEK is another one
		}
		if err != nil {
			return err
		}
	}
	if missing(subjectsName) {
		// No epoch of before has this number, and no key service has destroyed it.
		epoch := s.now().Unix()
		wrapped, err := s.wrap(ctx, "epoch", fmt.Sprint(epoch), newKey())
		if err == nil {
			err = s.replace(subjectsName, subjectsFile{Format: formatVersion, Epoch: epoch, Wrap: wrapped, Pages: []pageFile{}})
		}
		if err != nil {
			return err
		}
	}
	if missing(macName) {
		return s.putWrapped(ctx, macName, mac)
	}
	return nil
}

// Open opens a store. The error is kms.ErrWrongKey where the KEK is not the
// store's, fs.ErrNotExist where there is none, ErrDamaged.
func Open(ctx context.Context, o Options) (*Store, error) {
	s := newStore(o)
	if err := s.open(ctx); err != nil {
		return nil, fmt.Errorf("open keys: %w", err)
	}
	return s, nil
}

func newStore(o Options) *Store {
	if o.Now == nil {
		o.Now = time.Now
	}
	_, sealsOnly := o.KEK.(kms.SealsOnly)
	return &Store{sealsOnly: sealsOnly && o.Former == nil, fs: o.FS, dir: o.Dir, origin: o.Origin, kek: o.KEK, former: o.Former, readOnly: o.ReadOnly, now: o.Now, dekKey: map[string][]byte{}, retired: map[string]bool{}}
}

func (s *Store) open(ctx context.Context) error {
	text, err := s.read(deksName)
	if err != nil {
		return err
	}
	if s.deks, err = parseDEKs(text); err != nil {
		return err
	}
	if s.sealsOnly {
		return s.openSealing(ctx)
	}
	if err := s.readTable(ctx); err != nil {
		return err
	}
	if s.readOnly {
		return nil
	}
	if err := s.sweep(); err != nil {
		return err
	}
	s.ids = map[subjectID]string{}
	for n := max(0, len(s.table.Pages)-recentPages); n < len(s.table.Pages); n++ {
		if _, err := s.page(n); err != nil {
			return err
		}
	}
	return nil
}

// readTable reads subjects.json.
func (s *Store) readTable(ctx context.Context) error {
	text, err := s.read(subjectsName)
	if errors.Is(err, fs.ErrNotExist) && s.readOnly && s.epoch == nil {
		// The trail comes from an archive, which has the DEKs and nobody's keys:
		// its lines open, and the fields in them do not.
		s.table = subjectsFile{Format: formatVersion}
		return nil
	}
	if err != nil {
		return err
	}
	if s.epoch != nil && bytes.Equal(text, s.tableText) {
		return nil // the key service is not asked again for the same
	}
	table, err := parseSubjects(text)
	if err != nil {
		return err
	}
	epoch, err := s.unwrap(ctx, "epoch", fmt.Sprint(table.Epoch), table.Wrap)
	if err != nil {
		return err
	}
	s.table, s.tableText, s.epoch = table, text, epoch
	return nil
}

// Close lets go of the files. What was not synced may be lost.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = fs.ErrClosed
	}
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	s.file = nil
	return err
}

// writable is nil while the store takes writes.
func (s *Store) writable() error {
	if s.readOnly {
		return ErrReadOnly
	}
	return s.err
}

// stop makes an error stick: what is on disk is not known any more.
func (s *Store) stop(err error) error {
	if s.err == nil {
		s.err = fmt.Errorf("%w: %w", ErrStopped, err)
	}
	return err
}

func (s *Store) wrap(ctx context.Context, purpose, name string, secret []byte) (wrap, error) {
	data, err := s.kek.Wrap(ctx, kms.Place{Origin: s.origin, Purpose: purpose, Name: name}, secret)
	return wrap{KEK: s.kek.ID(), By: s.kek.By(), Data: data}, err
}

func (s *Store) unwrap(ctx context.Context, purpose, name string, w wrap) ([]byte, error) {
	kek := s.kek
	if s.former != nil && w.KEK == s.former.ID() {
		kek = s.former
	}
	if w.KEK != kek.ID() {
		return nil, fmt.Errorf("%w: this is %s, it was wrapped by %s", kms.ErrWrongKey, kek.ID(), w.KEK)
	}
	key, err := kek.Unwrap(ctx, kms.Place{Origin: s.origin, Purpose: purpose, Name: name}, w.Data)
	if err == nil && len(key) != seal.KeySize {
		err = fmt.Errorf("%s key: %w", purpose, ErrDamaged)
	}
	return key, err
}

// MAC is the trail's MAC key.
func (s *Store) MAC(ctx context.Context) ([]byte, error) {
	if s.sealsOnly {
		return s.ownMAC()
	}
	text, err := s.read(macName)
	if err != nil {
		return nil, err
	}
	return s.Unwrap(ctx, purposeOf(macName), text)
}

// Wrap gives the content of the file keys/NAME.key of a trail that seals: a key of
// 32 bytes, wrapped.
func (s *Store) Wrap(ctx context.Context, name string, key []byte) ([]byte, error) {
	wrapped, err := s.wrap(ctx, name, name, key)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(wrappedFile{Format: formatVersion, Wrap: wrapped})
	return append(text, '\n'), err
}

// Unwrap reads what Wrap gave.
func (s *Store) Unwrap(ctx context.Context, name string, text []byte) ([]byte, error) {
	f, err := parseWrapped(name+keySuffix, text)
	if err != nil {
		return nil, err
	}
	return s.unwrap(ctx, name, name, f.Wrap)
}

// wrappedNames are the files that Wrap gave, as far as they are there.
var wrappedNames = []string{macName, "identity" + keySuffix}

const keySuffix = ".key"

func purposeOf(file string) string { return strings.TrimSuffix(file, keySuffix) }

func (s *Store) putWrapped(ctx context.Context, file string, key []byte) error {
	text, err := s.Wrap(ctx, purposeOf(file), key)
	if err != nil {
		return err
	}
	return durable.WriteFile(s.fs, filepath.Join(s.dir, file), text, 0o600)
}

// Rewrap wraps under the KEK what the former one has wrapped. Afterwards that one
// is not needed; after a crash or an error in the middle both are, and Rewrap is
// called again. No page, line or subject changes.
func (s *Store) Rewrap(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := errors.Join(s.writable(), s.opens()); err != nil {
		return err
	}
	if err := s.rewrapLocked(ctx); err != nil {
		return s.stop(fmt.Errorf("wrap keys anew: %w", err))
	}
	if s.former == nil || s.former.ID() == s.kek.ID() {
		return nil
	}
	// The former service's key of this epoch opens copies of before; the next erasure
	// would not reach it. Crash before its end: Rewrap is called again.
	if err := destroyEpoch(ctx, s.former, s.origin, s.table.Epoch); err != nil {
		return fmt.Errorf("wrap keys anew: the former key of epoch %d: %w", s.table.Epoch, err)
	}
	return nil
}

func (s *Store) rewrapLocked(ctx context.Context) error {
	id, changed := s.kek.ID(), false
	deks := deksFile{Format: formatVersion, DEKs: slices.Clone(s.deks.DEKs)}
	for i, d := range deks.DEKs {
		if d.Wrap.KEK == id {
			continue
		}
		key, err := s.dek(ctx, d)
		if err == nil {
			deks.DEKs[i].Wrap, err = s.wrap(ctx, "dek", d.ID, key)
		}
		if err != nil {
			return err
		}
		changed = true
	}
	if changed {
		if err := s.replace(deksName, deks); err != nil {
			return err
		}
		s.deks = deks
	}
	for _, file := range wrappedNames {
		text, err := s.read(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		f, err := parseWrapped(file, text)
		if err != nil {
			return err
		}
		if f.Wrap.KEK == id {
			continue
		}
		key, err := s.unwrap(ctx, purposeOf(file), purposeOf(file), f.Wrap)
		if err == nil {
			err = s.putWrapped(ctx, file, key)
		}
		if err != nil {
			return err
		}
	}
	done := s.table.Wrap.KEK == id
	for _, p := range s.table.Pages {
		done = done && (p.Wrap == nil || p.Wrap.KEK == id)
	}
	if done {
		return nil
	}
	table := s.table
	table.Pages = slices.Clone(table.Pages)
	var err error
	for i, p := range table.Pages {
		if p.Wrap == nil {
			continue
		}
		key, err := s.pageKey(ctx, p)
		if err == nil {
			p.Wrap = nil
			p.Data, err = s.wrapPage(s.epoch, p, key)
		}
		if err != nil {
			return err
		}
		table.Pages[i] = p
	}
	if table.Wrap, err = s.wrap(ctx, "epoch", fmt.Sprint(table.Epoch), s.epoch); err != nil {
		return err
	}
	if err := s.replace(subjectsName, table); err != nil {
		return err
	}
	s.table = table
	for n, p := range s.pages.pages {
		p.pageFile = table.Pages[n]
	}
	return nil
}

// newKey is a fresh key.
func newKey() []byte {
	key := make([]byte, seal.KeySize)
	_, _ = rand.Read(key) // never fails
	return key
}

func newSalt() []byte {
	salt := make([]byte, seal.SaltSize)
	_, _ = rand.Read(salt)
	return salt
}

// newID is a fresh handle, or id of a DEK.
func newID() string {
	var b [9]byte
	_, _ = rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// KEKs are the ids of the KEK before, "" where there is none, and of the present one.
func (s *Store) KEKs() (former, now string) {
	if s.former != nil {
		former = s.former.ID()
	}
	return former, s.kek.ID()
}
