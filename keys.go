package audit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/advice"
	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/keys"
	"github.com/kaizen-audit/kaizen-audit/kms"
)

// KeyInfo is one of a trail's keys, as its files name it: never the key.
type KeyInfo struct {
	// Kind is "signing", "lifecycle", "kek", "dek", "epoch", "mac" or "identity".
	Kind string `json:"kind"`
	// ID is the verifier key of the first two, else the key's id
	// (docs/format-sealing.md §6.6).
	ID string `json:"id"`
	// State is "current", "former", "lost" (the key after it was made without it, by
	// Restore), or "overlapping": a former signing key that still signs too.
	State string `json:"state"`
	// Created is the time of a DEK.
	Created *time.Time `json:"created,omitempty"`
	// From is the first tree size that a signing key signs.
	From *int64 `json:"from,omitempty"`
	// WrappedBy is the id of the KEK that a key is wrapped by, By who holds a KEK:
	// "local", or the URL of a key service; and who has a signing key that is not in
	// keys/: the URL of the signer.
	WrappedBy string `json:"wrapped_by,omitempty"`
	By        string `json:"by,omitempty"`
}

// Keys lists the trail's keys. It needs none of them, and no lock.
func (t *Trail) Keys(ctx context.Context) ([]KeyInfo, error) {
	list, err := t.listKeys()
	if err != nil {
		return nil, fmt.Errorf("keys of %s: %w", t.path, err)
	}
	return list, ctx.Err()
}

func (t *Trail) listKeys() ([]KeyInfo, error) {
	id, _, err := t.readIdentity()
	if err != nil {
		return nil, err
	}
	var list []KeyInfo
	signer := t.opts.Signer
	if signer == "" {
		if signer, err = t.signerURL(); err != nil && !errors.Is(err, fs.ErrPermission) {
			return nil, err
		}
	}
	for i, k := range id.VKeys {
		by := signer
		state := "former"
		switch {
		case k.VKey == id.VKey:
			state = "current"
		case id.VKeys[i+1].Replacement != "":
			state = "lost"
		case t.signsNow(k.VKey):
			state = "overlapping"
		}
		if state == "former" || state == "lost" { // it is nowhere
			by = ""
		}
		list = append(list, KeyInfo{Kind: "signing", ID: k.VKey, State: state, From: &k.From, By: by})
	}
	if id.LifecycleVKey != "" {
		list = append(list, KeyInfo{Kind: "lifecycle", ID: id.LifecycleVKey, State: "current"})
	}
	files, err := keys.List(t.opts.fs, filepath.Join(t.dir, "keys"))
	if errors.Is(err, fs.ErrNotExist) {
		return list, nil
	}
	if err != nil {
		return nil, explainKey(err)
	}
	seen := map[string]bool{}
	for _, f := range files {
		if !seen[f.KEK] {
			seen[f.KEK] = true
			// More than one is a rotation that did not come to its end.
			list = append(list, KeyInfo{Kind: "kek", ID: f.KEK, State: "current", By: f.By})
		}
	}
	newest := -1
	for i, f := range files {
		if f.Kind == "dek" {
			newest = i
		}
	}
	for i, f := range files {
		k := KeyInfo{Kind: f.Kind, ID: f.ID, State: "current", WrappedBy: f.KEK}
		if f.Kind == "dek" {
			k.Created = &f.Created
			if i != newest {
				k.State = "former"
			}
		}
		list = append(list, k)
	}
	return list, nil
}

// signsNow tells whether a key's signature is on the latest checkpoint.
func (t *Trail) signsNow(vkey string) bool {
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return false
	}
	text, err := durable.ReadFile(t.opts.fs, filepath.Join(t.dir, "checkpoint"), maxSmallFile)
	if err == nil {
		_, err = note.Open(text, note.VerifierList(v))
	}
	return err == nil
}

// readIdentity reads trail.json as it is now.
func (t *Trail) readIdentity() (trailID, []byte, error) {
	data, err := durable.ReadFile(t.opts.fs, filepath.Join(t.dir, "trail.json"), maxSmallFile)
	if err != nil {
		return trailID{}, nil, explainMissing(err)
	}
	id, _, err := parseIdentity(data)
	if err != nil {
		return id, nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return id, data, nil
}

// holding is nil where this process holds the trail; else it says who does.
func (t *Trail) holding(ctx context.Context) error {
	if err := t.writable(ctx); err != nil {
		return err
	}
	if !t.holds() {
		return &lockedError{holder: t.holder()}
	}
	return nil
}

// recordKey records that a key came in the place of another
// (docs/format-lifecycle.md §7.10).
func (t *Trail) recordKey(kind, id, was, reason string) error {
	return t.recordOwn(context.Background(), ownEntry{eventType: "AUDIT_KEY", action: "key_rotated", signed: true,
		outputs: map[string]any{"kind": kind, "id": id, "was": was, "reason": reason}})
}

// sealing keys: those of a trail that seals.
func (t *Trail) sealingKeys(ctx context.Context) (*encryption, error) {
	if err := t.holding(ctx); err != nil {
		return nil, err
	}
	enc := t.enc.Load()
	if enc == nil {
		return nil, fmt.Errorf("%w: it seals nothing", ErrNoKey)
	}
	return enc, nil
}

// RotateKEK wraps under Options.NextKEK what Options.KEK has wrapped, and records
// it. From its return on the former key is not needed; if it does not return, both
// are, and it is called again. No line and no subject's key changes. It is ErrLocked
// where another process holds the trail, which has the former key in its memory.
func (t *Trail) RotateKEK(ctx context.Context) error {
	if err := t.authorizeAll(ctx, "RotateKEK"); err != nil {
		return fmt.Errorf("rotate key of %s: %w", t.path, err)
	}
	if err := t.rotateKEK(ctx); err != nil {
		return fmt.Errorf("rotate key of %s: %w", t.path, err)
	}
	return nil
}

func (t *Trail) rotateKEK(ctx context.Context) error {
	enc, err := t.sealingKeys(ctx)
	if err != nil {
		return err
	}
	if t.opts.NextKEK == nil {
		return optionError("NextKEK", "there is no key to rotate to")
	}
	if _, ok := t.opts.NextKEK.(kms.SealsOnly); ok {
		return optionError("NextKEK", "it seals only: rotate to the private key of the pair, and give the public one to who writes afterwards")
	}
	was, next := enc.store.KEKs()
	if was == next {
		return optionError("NextKEK", "it is the trail's key already")
	}
	// Crash in here: each file names the key that wrapped it.
	if err := enc.store.Rewrap(ctx); err != nil {
		return explainFull(explainKey(err))
	}
	// Crash here: nothing is wrapped by the former key, and the next call says so.
	return t.recordKey("kek", next, was, "operator")
}

// RotateDEK makes a new key for lines from here on, and records it. In a trail whose
// lines are not sealed there is none.
func (t *Trail) RotateDEK(ctx context.Context) error {
	if err := t.authorizeAll(ctx, "RotateDEK"); err != nil {
		return fmt.Errorf("rotate key of %s: %w", t.path, err)
	}
	enc, err := t.sealingKeys(ctx)
	if err == nil && !enc.lines {
		err = fmt.Errorf("%w: its lines are not sealed", ErrNoKey)
	}
	if err == nil {
		err = explainFull(enc.sealer.Rotate())
	}
	if err != nil {
		return fmt.Errorf("rotate key of lines of %s: %w", t.path, err)
	}
	t.noteDEKs()
	return t.journalErr()
}

// journalErr is why the journal takes no more, nil while it does.
func (t *Trail) journalErr() error { return explainJournal(t.journal.Err()) }

// Limits of a backup's maximum age.
const (
	DefaultBackupAge = 30 * 24 * time.Hour
	maxBackupAge     = 366 * 24 * time.Hour
)

// KeyBackup says what a backup of keys is.
type KeyBackup struct {
	File        string    `json:"file"`
	Origin      string    `json:"origin"`
	Created     time.Time `json:"created"`
	DeleteAfter time.Time `json:"delete_after"`
	Files       int       `json:"files"`
}

// BackupKeys writes a backup of the trail's keys to a new file (0600), which must
// not be below the trail's directory, and records it. maxAge is how long it may be
// kept; 0 means 30 days. Until then an erasure is not complete, since the backup
// still has the keys, and its certificate says until when (complete_after).
//
// Keys that seal are in it as they lie in keys/, wrapped; the signing key is in
// clear. It goes where it can be deleted, never to a locked store. It is ErrLocked
// where another process holds the trail.
func (t *Trail) BackupKeys(ctx context.Context, file string, maxAge time.Duration) (*KeyBackup, error) {
	if err := t.authorizeAll(ctx, "BackupKeys"); err != nil {
		return nil, fmt.Errorf("back up keys of %s: %w", t.path, err)
	}
	b, err := t.backupKeys(ctx, file, maxAge)
	if err != nil {
		return nil, fmt.Errorf("back up keys of %s: %w", t.path, err)
	}
	return b, nil
}

func (t *Trail) backupKeys(ctx context.Context, file string, maxAge time.Duration) (*KeyBackup, error) {
	if err := t.holding(ctx); err != nil {
		return nil, err
	}
	if maxAge == 0 {
		maxAge = DefaultBackupAge
	}
	if maxAge < 0 || maxAge > maxBackupAge {
		return nil, errors.New("the maximum age must be between a moment and 366 days")
	}
	if err := t.apart(file); err != nil {
		return nil, err
	}
	now := t.clock.now()
	until := now.Add(maxAge)
	var b keys.Backup
	write := func() error {
		out, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		if b, err = keys.WriteBackup(t.opts.fs, t.dir, t.id.Origin, now, until, out); err == nil {
			err = out.Sync()
		}
		if err = errors.Join(err, out.Close()); err == nil {
			err = durable.OS.SyncDir(filepath.Dir(file))
		}
		if err != nil { // half a backup is none
			return errors.Join(err, os.Remove(file))
		}
		return nil
	}
	var err error
	if enc := t.enc.Load(); enc != nil {
		err = enc.store.Frozen(write)
	} else {
		err = write()
	}
	if err != nil {
		return nil, explainFull(err)
	}
	out := &KeyBackup{File: file, Origin: b.Origin, Created: now, DeleteAfter: until, Files: len(b.Files)}
	return out, t.recordOwn(ctx, ownEntry{eventType: "AUDIT_BACKUP", action: "keys_backed_up",
		outputs: map[string]any{"files": len(b.Files), "delete_after": formatTime(until)}})
}

// apart refuses a file beside the data that the keys open.
func (t *Trail) apart(file string) error {
	if strings.Contains(file, "://") {
		return errors.New("a backup of keys goes to a file that can be deleted, never to an archive")
	}
	dir, err := filepath.Abs(filepath.Dir(file))
	if err != nil {
		return err
	}
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	if dir == t.dir || strings.HasPrefix(dir, t.dir+string(filepath.Separator)) {
		return errors.New("a backup of keys does not lie beside what the keys open")
	}
	return nil
}

// RestoreKeys puts the keys of a backup into the directory of the trail at path,
// which must have none: after a loss of keys/, or before its lines are restored. The
// next opening to write destroys again what was erased since the backup was made.
// Past its maximum age a backup is refused.
func RestoreKeys(path, file string) (*KeyBackup, error) {
	_, dir, err := paths(path)
	if err != nil {
		return nil, err
	}
	in, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("restore keys: %w", err)
	}
	defer in.Close()
	origin := ""
	if data, err := durable.ReadFile(durable.OS, filepath.Join(dir, "trail.json"), maxSmallFile); err == nil {
		id, _, err := parseIdentity(data)
		if err != nil {
			return nil, fmt.Errorf("restore keys: %w: %w", ErrDamaged, err)
		}
		origin = id.Origin
	}
	if err := durable.MkdirAll(durable.OS, dir, 0o700); err != nil {
		return nil, fmt.Errorf("restore keys: %w", err)
	}
	b, err := keys.RestoreBackup(durable.OS, in, dir, origin, time.Now())
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil, advice.For(err, "the trail has keys; move that directory away if they are not the right ones")
	case errors.Is(err, keys.ErrDamaged):
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	case err != nil:
		return nil, err
	}
	out := &KeyBackup{File: file, Origin: b.Origin, Files: len(b.Files)}
	out.Created, _, _ = entry.ParseTime(b.Created)
	out.DeleteAfter, _, _ = entry.ParseTime(b.DeleteAfter)
	return out, nil
}

// eraseAgain destroys what was erased since the backup was made from which keys/
// came. A crash before its end leaves the mark, and it is done again.
func (t *Trail) eraseAgain(ctx context.Context) error {
	dir := filepath.Join(t.dir, "keys")
	restored, err := keys.Restored(t.opts.fs, dir)
	if err != nil || !restored {
		return err
	}
	if enc := t.enc.Load(); enc != nil {
		handles, err := t.erasedHandles(ctx, t.signer.latest.Load().Size)
		if err == nil {
			err = enc.store.EraseAgain(ctx, handles)
		}
		if err != nil {
			return fmt.Errorf("erase again what was erased since the backup of keys: %w", err)
		}
	}
	return keys.EndRestore(t.opts.fs, dir)
}
