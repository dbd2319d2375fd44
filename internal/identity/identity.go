package identity

import (
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/kaizen-audit/kaizen-audit/internal/advice"
	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/seal"
)

const (
	// MaxIdentifier is the longest identifier in bytes: a mail address has at
	// most 254 (RFC 5321 §4.5.3), a distinguished name some hundred.
	MaxIdentifier = 1024

	format   = 1
	keySize  = 32
	saltSize = 16
	nameSize = 2 * sha256.Size // of a file's name, and of a pseudonym
	idSize   = 16
	macSize  = 24 // of a pseudonym; its check has the rest

	// maxFile bounds a file: the longest identifier takes 2 KiB.
	maxFile = 8 << 10
	// maxCached is how many pseudonyms are remembered, some 15 MB.
	maxCached = 1 << 16
)

// Labels of what is derived from keys/identity.key.
const (
	labelName      = "kaizen-audit/identity-name/v1"
	labelPseudonym = "kaizen-audit/pseudonym/v1"
	labelCheck     = "kaizen-audit/pseudonym-check/v1"
	labelBox       = "kaizen-audit/identity-box/v1"
	labelID        = "kaizen-audit/identity-key/v1"
	// boxPurpose is what seal.Wrap is told that a box is for.
	boxPurpose = "identity"
)

// Errors of a Store.
var (
	// ErrInvalid: an identifier is empty, too long or not UTF-8.
	ErrInvalid = errors.New("an identifier is 1 to 1024 bytes of UTF-8")
	// ErrClosed: the store makes no pseudonyms any more.
	ErrClosed = errors.New("the identity store is closed")
	// ErrDamaged: a file is not what was written, or belongs to another key.
	ErrDamaged = errors.New("the identity store is damaged")
)

// Store is the identity store of one trail.
type Store struct {
	fs     durable.FS
	dir    string // the trail's
	origin string
	wrap   Wrapper // nil: the key lies there as it is

	mu     sync.Mutex
	closed bool
	synced bool              // the names of the key and of what was found in identity/ are on disk
	keys   *keys             // nil until it is needed
	known  map[string]string // pseudonyms that this process made or found, by identifier
}

// Wrapper wraps keys/identity.key under the key of a trail that seals, for the name
// "identity" (internal/keys).
type Wrapper interface {
	Wrap(ctx context.Context, name string, key []byte) ([]byte, error)
	Unwrap(ctx context.Context, name string, text []byte) ([]byte, error)
}

// New is the store of the trail in dir, whose origin its boxes are bound to. wrap
// is nil where the trail does not seal. Nothing is read or made before it is needed.
func New(fsys durable.FS, dir, origin string, wrap Wrapper) *Store {
	return &Store{fs: fsys, dir: dir, origin: origin, wrap: wrap}
}

// Pseudonym gives the pseudonym of an identifier, and makes it where there is
// none; it is durable when it returns. Only the trail's holder may call it.
//
// Operations, for a new one: those of durable.WriteFile for identity/<name>. The
// first of a trail makes keys/identity.key and identity/store.json that way before.
// A crash before the rename leaves at most <name>.tmp, which the next attempt
// replaces: nobody has seen its pseudonym. A crash after it leaves a pseudonym
// that perhaps no entry uses.
func (s *Store) Pseudonym(id string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return "", ErrClosed
	}
	if p, ok := s.known[id]; ok {
		return p, nil
	}
	if err := check(id); err != nil {
		return "", err
	}
	k, err := s.loadKeys(true)
	if err != nil {
		return "", err
	}
	if err := s.syncNames(); err != nil {
		return "", err
	}
	p, ok, err := s.read(k, id)
	if err != nil {
		return "", err
	}
	if !ok {
		if p, err = s.put(k, id); err != nil {
			s.synced = false // its file may be there
			return "", err
		}
	}
	if s.known == nil || len(s.known) >= maxCached {
		s.known = map[string]string{}
	}
	s.known[strings.Clone(id)] = p
	return p, nil
}

// Lookup gives the pseudonym of an identifier if it has one. fs.ErrPermission
// says that this user may not look.
func (s *Store) Lookup(id string) (pseudonym string, ok bool, err error) {
	if check(id) != nil {
		return "", false, nil
	}
	if _, err := s.fs.Stat(s.file("identity")); errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	s.mu.Lock()
	k, err := s.loadKeys(false)
	s.mu.Unlock()
	if k == nil || err != nil {
		return "", false, err
	}
	return s.read(k, id) // another process may have removed it: nothing is remembered
}

// Is tells whether text is a pseudonym of this trail, also one whose identifier
// was forgotten. Without the key at hand nothing is.
func (s *Store) Is(text string) bool {
	if len(text) != nameSize {
		return false
	}
	s.mu.Lock()
	k, err := s.loadKeys(false)
	s.mu.Unlock()
	return err == nil && k != nil && k.is(text)
}

// ErrNoPseudonym: text is no pseudonym of this store.
var ErrNoPseudonym = errors.New("it is no pseudonym of this trail")

// Reveal gives the identifier of a pseudonym, and false where the store has it no more:
// it was forgotten. It reads one file after another: a pseudonym leads to none, so that
// nobody can turn one back who has not all of it. fs.ErrPermission says that this user
// may not look.
func (s *Store) Reveal(ctx context.Context, pseudonym string) (id string, ok bool, err error) {
	s.mu.Lock()
	k, err := s.loadKeys(false)
	s.mu.Unlock()
	switch {
	case err != nil:
		return "", false, err
	case k == nil || len(pseudonym) != nameSize || !k.is(pseudonym):
		return "", false, ErrNoPseudonym
	}
	files, err := s.fs.ReadDir(s.file("identity"))
	if err != nil {
		return "", false, err
	}
	var damaged error
	for _, f := range files {
		if err := ctx.Err(); err != nil {
			return "", false, err
		}
		name := f.Name()
		if len(name) != nameSize {
			continue
		}
		data, err := durable.ReadFile(s.fs, s.file("identity", name), maxFile)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it was forgotten meanwhile
		}
		if err != nil {
			return "", false, err
		}
		salt, in, err := k.open(s.origin, name, data)
		if err != nil {
			damaged = fmt.Errorf("%w: identity/%s: %w", ErrDamaged, name, err)
			continue // it may be another's
		}
		if hmac.Equal([]byte(k.pseudonym(salt, in)), []byte(pseudonym)) && k.name(in) == name {
			return in, true, nil
		}
	}
	return "", false, damaged
}

// Name is under what name an identifier is kept, "" where nothing can be. The name
// tells who has not the key nothing.
func (s *Store) Name(id string) (string, error) {
	if check(id) != nil {
		return "", nil
	}
	if _, err := s.fs.Stat(s.file("identity")); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k, err := s.loadKeys(false)
	if k == nil || err != nil {
		return "", err
	}
	return k.name(id), nil
}

// Forget removes what is kept under a name that Name gave, and returns once that is
// durable. That there is nothing to forget is no error. Only the trail's holder
// may call it.
func (s *Store) Forget(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known = nil
	if b, err := hex.DecodeString(name); err != nil || len(b) != sha256.Size {
		return fmt.Errorf("forget: %w", ErrInvalid)
	}
	// The half file of an attempt that a crash has ended goes too. Crash between
	// the two: the call did not return, and is made again.
	name = s.file("identity", name)
	for _, file := range []string{name + ".tmp", name} {
		if err := s.fs.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return s.fs.SyncDir(s.file("identity"))
}

// Close waits for a pseudonym that is being made, and lets no other be made:
// another process may be the holder from then on. Lookup goes on.
func (s *Store) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed, s.known = true, nil
}

func check(id string) error {
	if id == "" || len(id) > MaxIdentifier || !utf8.ValidString(id) {
		return ErrInvalid
	}
	return nil
}

func (s *Store) file(names ...string) string {
	return filepath.Join(append([]string{s.dir}, names...)...)
}

// read gives the pseudonym of an identifier out of its file.
func (s *Store) read(k *keys, id string) (pseudonym string, ok bool, err error) {
	name := k.name(id)
	data, err := durable.ReadFile(s.fs, s.file("identity", name), maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	salt, in, err := k.open(s.origin, name, data)
	if err == nil && in != id {
		err = errors.New("it is another's")
	}
	if err != nil {
		return "", false, fmt.Errorf("%w: identity/%s: %w", ErrDamaged, name, err)
	}
	return k.pseudonym(salt, id), true, nil
}

// syncNames makes durable what is in the directories: whoever made a file may
// have died before that. It is called with mu held.
func (s *Store) syncNames() error {
	if s.synced {
		return nil
	}
	for _, dir := range []string{"keys", "identity"} {
		if err := s.fs.SyncDir(s.file(dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	s.synced = true
	return nil
}

// put makes a pseudonym and its file.
func (s *Store) put(k *keys, id string) (string, error) {
	salt := make([]byte, saltSize)
	rand.Read(salt)
	name := k.name(id)
	data, err := k.seal(s.origin, name, salt, id)
	if err != nil {
		return "", err
	}
	if err := durable.WriteFile(s.fs, s.file("identity", name), data, 0o600); err != nil {
		return "", err
	}
	return k.pseudonym(salt, id), nil
}

// loadKeys gives the store's keys; nil where there are none and none shall be
// made. It is called with mu held.
//
// The key is made first, then identity/ and its mark, then identities. What is
// there of them tells a crash in between from a loss: a new key would give
// everybody who has a pseudonym a second one.
func (s *Store) loadKeys(create bool) (*keys, error) {
	if s.keys != nil {
		return s.keys, nil
	}
	key, err := s.readIfThere(maxFile, "keys", "identity.key")
	if err != nil {
		return nil, err
	}
	marked, err := s.readIfThere(maxFile, "identity", markName)
	if err != nil {
		return nil, err
	}
	switch {
	case marked == nil:
		if err := s.checkEmpty(); err != nil || !create {
			return nil, err
		}
	case key == nil:
		return nil, advice.For(fmt.Errorf("%w: keys/identity.key is missing, and identity/ is not", ErrDamaged), "restore it from a backup")
	}
	if key == nil {
		key = newKey()
		text := key
		if s.wrap != nil {
			if text, err = s.wrap.Wrap(context.Background(), boxPurpose, key); err != nil {
				return nil, err
			}
		}
		if err := durable.WriteFile(s.fs, s.file("keys", "identity.key"), text, 0o600); err != nil {
			return nil, err
		}
	} else if s.wrap != nil {
		if key, err = s.wrap.Unwrap(context.Background(), boxPurpose, key); err != nil {
			return nil, fmt.Errorf("keys/identity.key: %w", err)
		}
	}
	if len(key) != keySize {
		return nil, fmt.Errorf("%w: keys/identity.key: %d bytes, want %d", ErrDamaged, len(key), keySize)
	}
	k, err := deriveKeys(key)
	if err != nil {
		return nil, err
	}
	if marked == nil {
		err = durable.MkdirAll(s.fs, s.file("identity"), 0o700)
		if err == nil {
			err = durable.WriteFile(s.fs, s.file("identity", markName), k.mark(), 0o600)
		}
		if err != nil {
			return nil, err
		}
	} else if id, err := parse(marked); err != nil {
		return nil, fmt.Errorf("%w: identity/%s: %w", ErrDamaged, markName, err)
	} else if id != k.id {
		return nil, advice.For(fmt.Errorf("%w: keys/identity.key is not the key of identity/", ErrDamaged), "restore the two from one backup")
	}
	s.keys = k
	return k, nil
}

// markName is the file that says which key identity/ belongs to.
const markName = "store.json"

func (s *Store) readIfThere(max int64, names ...string) ([]byte, error) {
	data, err := durable.ReadFile(s.fs, s.file(names...), max)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil && data == nil {
		data = []byte{}
	}
	return data, err
}

// checkEmpty refuses identities that no mark belongs to.
func (s *Store) checkEmpty() error {
	files, err := s.fs.ReadDir(s.file("identity"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, f := range files {
		if len(f.Name()) == nameSize {
			return advice.For(fmt.Errorf("%w: identity/%s is missing", ErrDamaged, markName), "restore it from a backup")
		}
	}
	return nil
}

func newKey() []byte {
	key := make([]byte, keySize)
	rand.Read(key)
	return key
}

// keys are what is derived from keys/identity.key.
type keys struct {
	names, pseudonyms, checks, boxes []byte

	id string // says which key it is, and nothing else of it
}

func deriveKeys(key []byte) (*keys, error) {
	var k keys
	var id []byte
	for _, d := range []struct {
		label string
		to    *[]byte
	}{{labelName, &k.names}, {labelPseudonym, &k.pseudonyms}, {labelCheck, &k.checks}, {labelBox, &k.boxes}, {labelID, &id}} {
		var err error
		if *d.to, err = hkdf.Expand(sha256.New, key, d.label, keySize); err != nil {
			return nil, err
		}
	}
	k.id = hex.EncodeToString(id[:idSize])
	return &k, nil
}

// mark is the content of the mark.
func (k *keys) mark() []byte { return appendFile(nil, k.id) }

// name is the file's name of an identifier.
func (k *keys) name(id string) string { return hex.EncodeToString(mac(k.names, []byte(id))) }

func (k *keys) pseudonym(salt []byte, id string) string {
	p := mac(k.pseudonyms, salt, []byte(id))[:macSize]
	return hex.EncodeToString(k.checked(p))
}

// checked appends the check to the mac of a pseudonym.
func (k *keys) checked(p []byte) []byte { return append(p, mac(k.checks, p)[:sha256.Size-macSize]...) }

// is tells a pseudonym of these keys from any other text.
func (k *keys) is(text string) bool {
	p, err := hex.DecodeString(text)
	return err == nil && len(p) == sha256.Size && strings.ToLower(text) == text && hmac.Equal(p, k.checked(p[:macSize:macSize]))
}

func mac(key []byte, parts ...[]byte) []byte {
	h := hmac.New(sha256.New, key)
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

// appendFile appends a file of identity/: its format, and a box or a key's id.
func appendFile(dst []byte, data string) []byte {
	return fmt.Appendf(dst, "{\"format\":%d,\"data\":%q}\n", format, data)
}

// seal gives the content of a file.
func (k *keys) seal(origin, name string, salt []byte, id string) ([]byte, error) {
	boxSalt := make([]byte, seal.SaltSize)
	rand.Read(boxSalt)
	data, err := seal.Wrap(origin, boxPurpose, name, k.boxes, boxSalt, append(bytes.Clone(salt), id...))
	if err != nil {
		return nil, err
	}
	return appendFile(nil, data), nil
}

// open gives what seal was given.
func (k *keys) open(origin, name string, data []byte) (salt []byte, id string, err error) {
	wrapped, err := parse(data)
	if err != nil {
		return nil, "", err
	}
	in, err := seal.Unwrap(origin, boxPurpose, name, k.boxes, wrapped)
	if err != nil {
		return nil, "", err
	}
	if len(in) <= saltSize {
		return nil, "", errors.New("its box is too short")
	}
	return in[:saltSize], string(in[saltSize:]), nil
}

// parse reads what appendFile writes.
func parse(file []byte) (data string, err error) {
	var f struct {
		Format int    `json:"format"`
		Data   string `json:"data"`
	}
	d := json.NewDecoder(bytes.NewReader(file))
	d.DisallowUnknownFields()
	if d.Decode(&f) != nil || d.More() {
		return "", errors.New("not the JSON that is expected")
	}
	if f.Format != format {
		return "", advice.For(fmt.Errorf("format %d, this program knows %d", f.Format, format), "use the version of kaizen-audit that wrote it")
	}
	return f.Data, nil
}
