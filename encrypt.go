package audit

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path/filepath"
	"syscall"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/advice"
	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/identity"
	"github.com/kaizen-audit/kaizen-audit/internal/keys"
	"github.com/kaizen-audit/kaizen-audit/internal/seal"
	"github.com/kaizen-audit/kaizen-audit/internal/sealed"
	"github.com/kaizen-audit/kaizen-audit/kms"
)

// encryption is how a trail seals and opens its lines (docs/format-sealing.md).
type encryption struct {
	store     *keys.Store
	sealer    *sealed.Sealer // nil for a reader
	opener    *sealed.Opener
	ownOpener *sealed.Opener // which asks nobody who is erased
	locked    error          // why there are no keys: nothing sealed can be read
	seals     bool           // the trail's files say so
	lines     bool           // whole lines are sealed, not fields alone
}

// mustSeal tells whether trail.json says that the trail seals: then it has keys.
func (t *Trail) mustSeal() bool { return t.id.Encrypt || sealsFields[t.id.Profile] }

// The profiles of a trail. Those of sealing seal the fields with a person's data;
// Encrypt seals whole lines too, in every profile, and fields with them.
var (
	profiles    = []string{"plain", "gdpr", "hipaa", "pci"}
	sealsFields = map[string]bool{"gdpr": true, "hipaa": true}
)

// sealsHere tells from the files whether the trail seals anything: it has keys for
// it. Who may not look into keys/ does not know, and is told no.
func sealsHere(fsys durable.FS, dir string) (bool, error) {
	_, err := fsys.Stat(filepath.Join(dir, "keys", "deks.json"))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, fs.ErrPermission) {
		return false, nil
	}
	return err == nil, err
}

// Encrypts tells whether the trail's lines are sealed. Who may not look into its
// directory can't tell: then it says no.
func (t *Trail) Encrypts() bool { return t.id.Encrypt && t.seals() }

// seals tells whether the trail seals anything, lines or fields.
func (t *Trail) seals() bool {
	enc := t.enc.Load()
	if t.holds() || enc != nil && enc.seals {
		return enc != nil
	}
	yes, _ := sealsHere(t.opts.fs, t.dir)
	return yes
}

// kek is the trail's key-encryption key: Options.KEK, else the environment's, else
// the key file's. Where a trail is made, a key file that is missing is made too,
// and told.
func (o *Options) kek(stateDir, origin string, create bool) (kms.KEK, error) {
	switch {
	case o.KEK != nil:
		return o.KEK, nil
	case o.OpenKEK != nil:
		k, err := o.OpenKEK(context.Background())
		if err != nil {
			return nil, fmt.Errorf("%w: key service: %w", ErrNoKey, err)
		}
		return k, nil
	}
	if o.KeyFile == "" {
		k, err := kms.FromEnvironment()
		if !errors.Is(err, kms.ErrNoKey) {
			return k, err
		}
	}
	name := o.KeyFile
	if name == "" {
		if stateDir == "" {
			return nil, noKeyAdvice(kms.ErrNoKey)
		}
		name = filepath.Join(stateDir, "kek", url.PathEscape(origin)+".key")
	}
	k, err := kms.FromFile(name)
	if !errors.Is(err, kms.ErrNoKey) {
		return k, err
	}
	if !create {
		return nil, noKeyAdvice(err)
	}
	if err := durable.MkdirAll(durable.OS, filepath.Dir(name), 0o700); err != nil {
		return nil, err
	}
	if k, err = kms.CreateFile(name); err != nil {
		return nil, err
	}
	if o.Warn != nil {
		o.Warn(fmt.Errorf("the trail's encryption key was made in %s: keep a copy of it, apart from the trail; without it nothing can be read", name))
	}
	return k, nil
}

func noKeyAdvice(err error) error {
	return advice.For(fmt.Errorf("%w: %w", ErrNoKey, err), "set %s, or name the key's file with --key-file (Options.KeyFile)", kms.EnvironmentVariable)
}

// explainKey gives the errors of keys their public names.
func explainKey(err error) error {
	switch {
	case err == nil, errors.Is(err, ErrNoKey):
		return err
	case errors.Is(err, kms.ErrSealsOnly):
		return advice.For(fmt.Errorf("%w: %w", ErrNoKey, err), "give the private key of the pair: --key-file (docs/keys.md); verify works without one")
	case errors.Is(err, kms.ErrWrongKey):
		return advice.For(fmt.Errorf("%w: %w", ErrNoKey, err), "give the key that the trail was made with, or to which it was rotated; verify works without one")
	case errors.Is(err, keys.ErrDamaged):
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return err
}

func (t *Trail) keysOptions(k kms.KEK, readOnly bool) keys.Options {
	o := keys.Options{
		FS: t.opts.fs, Dir: filepath.Join(t.dir, "keys"), Origin: t.id.Origin, KEK: k, ReadOnly: readOnly, Now: t.clock.now,
	}
	if t.opts.NextKEK != nil {
		o.KEK, o.Former = t.opts.NextKEK, k
	}
	return o
}

// createKeys makes the keys of a trail that seals.
func (t *Trail) createKeys(mac []byte) error {
	k, err := t.opts.kek(t.stateDir(), t.id.Origin, true)
	if err != nil {
		return err
	}
	if _, only := k.(kms.SealsOnly); only && t.opts.Policy != nil && t.opts.Policy.NeedsTokens() {
		return errTokens
	}
	return keys.Create(context.Background(), t.keysOptions(k, false), mac)
}

// openKeys opens the keys of a trail that seals. A reader without them is told when
// it reads something sealed; a writer can't write.
func (t *Trail) openKeys(write bool) error {
	seals, err := sealsHere(t.opts.fs, t.dir)
	limit := t.opts.MaxLine + maxSealedList
	if write && (err != nil || !seals) {
		t.enc.Store(nil)
		return err
	}
	var store *keys.Store
	locked := ErrNoKey // lines may be sealed also where no keys are beside them, in a copy
	if seals {
		k, err := t.opts.kek(t.stateDir(), t.id.Origin, false)
		if err == nil {
			store, err = keys.Open(context.Background(), t.keysOptions(k, !write))
		}
		if locked = explainKey(err); locked != nil && write {
			return locked
		}
	}
	readable := store
	if write && store.SealsOnly() {
		// What it sealed itself it could open, until it ends; nobody gets that.
		readable, locked = nil, explainKey(kms.ErrSealsOnly)
		if was, id, ok := store.Opened(); ok {
			t.newDEK(was, id, "opened")
		}
	}
	enc := &encryption{store: store, ownOpener: sealed.NewOpener(t.id.Origin, store, limit, nil), opener: sealed.NewOpener(t.id.Origin, readable, limit, t.isErased), locked: locked, seals: seals, lines: t.id.Encrypt}
	if write {
		rules := sealed.Rules{Lines: enc.lines, Clear: t.keptClear}
		if enc.sealer, err = sealed.NewSealer(t.id.Origin, rules, store, t.clock.now, t.newDEK); err != nil {
			return errors.Join(explainKey(err), store.Close())
		}
	}
	t.enc.Store(enc)
	return nil
}

// keptClear is what the policy in force keeps in clear of an entry.
func (t *Trail) keptClear(eventType, agent, action string, metadata Object) sealed.Clear {
	if p := t.policy(); p.KeepsClear() {
		return p.Clear(eventType, agent, action, metadata)
	}
	return nil
}

// erasure says what erasing a person's data would reach. Where nothing is sealed
// there is no key to destroy; a key of this process's own leaves whoever copied
// keys/ before with what opens that copy (docs/format-sealing.md §6.7).
func (t *Trail) erasure() string {
	if !t.mustSeal() {
		return "not possible: profile " + t.id.Profile + " keeps what it records in clear"
	}
	if enc := t.enc.Load(); enc != nil && enc.store != nil && enc.store.Final() {
		return "of every copy, made before it or after: each epoch has its own key in the key service, where it is destroyed"
	}
	return "of every copy made after it; who has the key and a copy of keys/ from before still reads that copy"
}

// maxSealedList bounds what an opened line may be longer than the longest that can
// be recorded: by the list of what was sealed in it.
const maxSealedList = 1 << 20

// stored appends the stored line of a plain one to dst, both without newline.
func (t *Trail) stored(dst, plain []byte) ([]byte, error) {
	enc := t.enc.Load()
	if enc == nil {
		return append(dst, plain...), nil
	}
	dst, err := enc.sealer.Seal(dst, plain)
	if err != nil {
		return dst, fmt.Errorf("seal entry: %w", err)
	}
	return dst, nil
}

// syncKeys returns once the keys of the lines that were sealed are durable.
func (t *Trail) syncKeys() error {
	enc := t.enc.Load()
	if enc == nil {
		return nil
	}
	if err := enc.store.Sync(); err != nil {
		return fmt.Errorf("%w: keys: %w", ErrStopped, err)
	}
	return nil
}

// opened gives what this reader sees of a stored line, for a query.
func (t *Trail) opened(stored []byte) ([]byte, error) {
	v, err := t.viewOf(stored)
	if err != nil {
		return nil, err
	}
	return v.Line, nil
}

func (t *Trail) viewOf(stored []byte) (sealed.View, error) {
	enc := t.enc.Load()
	if enc == nil {
		return sealed.View{Line: stored}, nil
	}
	v, err := enc.opener.Open(stored)
	switch {
	case err == nil:
		return v, nil
	case errors.Is(err, sealed.ErrNoKey):
		return v, errors.Join(sealed.ErrNoKey, enc.locked)
	}
	return v, fmt.Errorf("%w: %w", ErrSealed, err)
}

// ownView is a stored line as this process sees it that wrote it: what it shows stays
// here.
func (t *Trail) ownView(stored []byte) (sealed.View, error) {
	if t.unsealable() == nil {
		return t.viewOf(stored)
	}
	return t.enc.Load().ownOpener.Open(stored)
}

// unsealable is nil unless this process writes the trail with a key that seals only.
func (t *Trail) unsealable() error {
	if enc := t.enc.Load(); enc != nil && enc.store != nil && enc.store.SealsOnly() {
		return enc.locked
	}
	return nil
}

// readable is nil unless nothing of the trail can be read for want of a key.
func (t *Trail) readable() error {
	if enc := t.enc.Load(); enc != nil && enc.seals && enc.lines {
		return enc.locked
	}
	return nil
}

// wrapper wraps keys under the trail's key, nil where it does not seal or this
// process has none.
func (t *Trail) wrapper() identity.Wrapper {
	if enc := t.enc.Load(); enc != nil && enc.store != nil {
		return enc.store
	}
	return nil
}

// closeKeys lets go of the keys.
func (t *Trail) closeKeys() error {
	if enc := t.enc.Load(); enc != nil && enc.store != nil {
		return enc.store.Close()
	}
	return nil
}

// saysSealed is what a line that begins a segment says of what the trail seals: its
// profile, and whether lines are.
func saysSealed(line []byte) (profile string, encrypt, says bool) {
	e, err := entry.Parse(line)
	if err != nil || !e.IsTrails() || e.EventType != "AUDIT_SEAL" && e.EventType != "AUDIT_CREATED" {
		return "", false, false
	}
	var p struct {
		Profile string
		Encrypt bool
	}
	p.Profile = e.Outputs.Text("profile")
	v, _ := e.Outputs.Get("policy")
	if len(v.JSON()) > 0 && json.Unmarshal(v.JSON(), &p) != nil {
		return "", false, false
	}
	return p.Profile, p.Encrypt, true
}

// pending is what is sealed of an event that waits: its JSON text, and what the
// policy did to it.
type pending struct {
	Event  json.RawMessage `json:"event"`
	Policy json.RawMessage `json:"policy,omitempty"`
}

// sealPending seals an event that is to wait in a file.
func sealPending(text, notes []byte, origin string, store *keys.Store) (sealedText, noNotes []byte, err error) {
	line, err := json.Marshal(pending{text, notes})
	if err == nil {
		sealedText, err = sealText(line, origin, store)
	}
	return sealedText, nil, err
}

// openPending is the reverse; what is not sealed stays as it is.
func openPending(text, notes []byte, open func([]byte) ([]byte, error)) (_, _ []byte, err error) {
	if !seal.IsLine(text) {
		return text, notes, nil
	}
	if text, err = open(text); err != nil {
		return nil, nil, err
	}
	var p pending
	if err := json.Unmarshal(text, &p); err != nil || p.Event == nil {
		return nil, nil, fmt.Errorf("%w: it is no event that waits", ErrSealed)
	}
	return p.Event, p.Policy, nil
}

// sealText seals an object that is to wait in a file.
func sealText(object []byte, origin string, store *keys.Store) ([]byte, error) {
	id, dek, _, err := store.DEK(context.Background())
	if err != nil {
		return nil, err
	}
	salt := make([]byte, seal.SaltSize)
	_, _ = rand.Read(salt) // never fails
	return seal.SealLine(origin, id, dek, salt, object)
}

// dekChange is a new key for lines, which replaces another.
type dekChange struct{ was, id, reason string }

// newDEK is told of a new key for lines, from within the record of an entry.
func (t *Trail) newDEK(was, id, reason string) {
	t.dekChanges.mu.Lock()
	defer t.dekChanges.mu.Unlock()
	t.dekChanges.all = append(t.dekChanges.all, dekChange{was, id, reason})
}

// noteDEKs records the keys for lines that came (docs/format-lifecycle.md §7.10).
func (t *Trail) noteDEKs() {
	t.dekChanges.mu.Lock()
	all := t.dekChanges.all
	t.dekChanges.all = nil
	t.dekChanges.mu.Unlock()
	for _, c := range all {
		_ = t.recordKey("dek", c.id, c.was, c.reason)
	}
}
