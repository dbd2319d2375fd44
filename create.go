package audit

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/advice"
	"github.com/kaizen-audit/kaizen-audit/internal/archiver"
	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/journal"
	"github.com/kaizen-audit/kaizen-audit/internal/pin"
	"github.com/kaizen-audit/kaizen-audit/internal/tree"
	"github.com/kaizen-audit/kaizen-audit/internal/trust"
)

// InitOptions are the settings of Init.
type InitOptions struct {
	Options
	// Profile of the trail: "" and "plain", "gdpr" and "hipaa", which seal the
	// fields with a person's data under keys of that person, or "pci", which masks
	// card numbers wherever they stand. It is chosen once and remembered. With gdpr
	// and hipaa a person's data can be erased; so it can with Encrypt, which seals
	// whole lines too. A successor has what the trail before it had, unless Profile
	// says another.
	Profile string
	// SuccessorOf is the path of a trail that the new one follows. Its files
	// are set aside and stay readable; entry 0 commits to its origin, size
	// and root.
	SuccessorOf string
	// ForgetPin accepts that the path has another trail than before.
	ForgetPin bool
	// Adopt begins the trail with the lines of the file that is at path and is
	// no trail's, byte for byte: entry 0 names them, and they are leaves from
	// 1 on. The file itself is set aside beside the log (X.adopted.jsonl),
	// unchanged. Nothing in those lines is ever read as the trail's own word.
	// An Init that was killed is finished, or begun again, by the same Init.
	Adopt bool
}

// Init makes a trail at path and returns once it is durable. A trail that is
// there already is an error, unless SuccessorOf or ForgetPin says what to do
// with it.
func Init(path string, opts *InitOptions) (*Info, error) {
	var o InitOptions
	if opts != nil {
		o = *opts
	}
	if o.profile = cmp.Or(o.Profile, "plain"); !slices.Contains(profiles, o.profile) {
		return nil, fmt.Errorf("init %s: there is no profile of that name; profiles are %s", path, strings.Join(profiles, ", "))
	}
	log, dir, err := paths(path)
	if err != nil {
		return nil, err
	}
	there := exists(log) || exists(filepath.Join(dir, "trail.json"))
	state := o.StateDir
	if state == "" {
		state = pin.DefaultDir()
	}
	old := ""
	if o.SuccessorOf != "" {
		if old, _, err = paths(o.SuccessorOf); err != nil {
			return nil, err
		}
	}
	if old != "" && o.Profile == "" {
		was, encrypted := formerProfile(old)
		o.profile, o.Encrypt = cmp.Or(was, "plain"), o.Encrypt || encrypted
	}
	if o.Adopt && (old != "" || o.ForgetPin) {
		return nil, fmt.Errorf("init %s: %w", path, optionError("Adopt", "it goes with neither SuccessorOf nor ForgetPin"))
	}
	if o.Adopt && o.Signer != "" {
		return nil, fmt.Errorf("init %s: %w", path, optionError("Signer", "it does not go with Adopt, whose interrupted work begins anew, with another key"))
	}
	o.adopt = o.Adopt
	if there && !o.Adopt && !o.ForgetPin && old != log {
		return nil, fmt.Errorf("init %s: %w", path, alreadyThere(path, log, dir))
	}
	if err := (&Trail{opts: o.Options, id: trailID{Profile: o.profile, Encrypt: o.Encrypt}}).checkTerms(); err != nil {
		return nil, fmt.Errorf("init %s: %w", path, err)
	}
	if old != "" && o.Signer != "" { // before anything is set aside
		if _, _, err := freshSigner(o.Signer); err != nil {
			return nil, fmt.Errorf("init %s: %w", path, err)
		}
	}
	if old != "" {
		if o.successor, err = setAsideOld(old, log, state); err != nil {
			return nil, fmt.Errorf("init %s: successor of %s: %w", path, o.SuccessorOf, err)
		}
		o.successor.Missing = o.missing
	}
	if o.ForgetPin || old != "" {
		// Not before the old files are aside: they may be known by the pin only.
		err := pin.Forget(state, log)
		if err == nil && o.ForgetPin {
			err = acceptReplaced(state, log, dir)
		}
		if err != nil {
			return nil, fmt.Errorf("init %s: forget pin: %w", path, err)
		}
	}
	o.ReadOnly, o.MustExist, o.quiet = false, false, true
	t, err := Open(path, &o.Options)
	if err != nil {
		return nil, err
	}
	info, err := t.Info(context.Background())
	return info, errors.Join(err, t.Close())
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// formerProfile is what the trail at a path seals, as the first line of its log says,
// else its trail.json: "" where neither does.
func formerProfile(log string) (profile string, encrypt bool) {
	if f, err := os.Open(log); err == nil {
		defer f.Close()
		line, err := bufio.NewReader(io.LimitReader(f, maxSmallFile)).ReadBytes('\n')
		if profile, encrypt, says := saysSealed(bytes.TrimSuffix(line, []byte("\n"))); err == nil && says && slices.Contains(profiles, profile) {
			return profile, encrypt
		}
	}
	data, err := durable.ReadFile(durable.OS, filepath.Join(trailDir(log), "trail.json"), maxSmallFile)
	if err != nil {
		return "", false
	}
	if id, _, err := parseIdentity(data); err == nil && slices.Contains(profiles, id.Profile) {
		return id.Profile, id.Encrypt
	}
	return "", false
}

// successorOf is what entry 0 of a successor says about the trail before.
type successorOf struct {
	Origin string `json:"origin"`
	Size   int64  `json:"size"`
	Root   string `json:"root"`
	VKey   string `json:"vkey"`
	Log    string `json:"log"` // its file's name now
	// Missing are entries that a checkpoint was known to cover and that were in no
	// archive when the old trail was restored.
	Missing *archiver.Range `json:"missing,omitempty"`
}

// setAsideOld renames what is left of an old trail, which nobody may be
// writing, and says what its last checkpoint covers. Whatever is lost of it,
// the rest is kept. The directory goes first: until the log follows, the path
// has lines without a checkpoint, which nobody extends.
func setAsideOld(old, log, state string) (*successorOf, error) {
	dir := trailDir(old)
	hasLog, hasDir := exists(old), exists(dir)
	if !hasLog && !hasDir {
		command := "kaizen-audit init"
		if pinnedOrigin(state, log) != "" {
			command += " --forget-pin"
		}
		return nil, advice.For(fmt.Errorf("%w: there is no trail at this path", ErrNotFound),
			"to begin one that follows none: %s --log %s", command, advice.Quote(log))
	}
	id, v, err := identityOf(dir, old, state)
	if err != nil {
		return nil, err
	}
	// Both locks: a writer holds them, and either file may be lost.
	for _, name := range []string{filepath.Join(dir, "lock"), old} {
		flag := os.O_RDONLY
		if name != old {
			flag = os.O_RDWR | os.O_CREATE
		}
		lock, err := durable.OS.OpenFile(name, flag, 0o600)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		defer lock.Close()
		if err := durable.OS.Lock(lock); err != nil {
			return nil, lockedBy(lock, err)
		}
	}
	s := &successorOf{Origin: id.Origin, Size: -1, VKey: id.VKey}
	name := "damaged-" + time.Now().UTC().Format("20060102T150405Z")
	if v != nil {
		keys, err := id.trusted(id.VKey)
		if err != nil {
			keys = trust.By(v)
		}
		if c, err := tree.NewStore(durable.OS, dir).Checkpoint(keys); err == nil {
			s.Size, s.Root = c.Size, hex.EncodeToString(c.Root[:])
			name = fmt.Sprint(c.Size)
		}
	}
	if old != log {
		s.Log = filepath.Base(old)
		return s, nil
	}
	base := strings.TrimSuffix(dir, ".trail")
	newLog, newDir := base+"."+name+".jsonl", base+"."+name+".trail"
	for _, name := range []string{newLog, newDir} {
		if exists(name) {
			return nil, advice.For(fmt.Errorf("%s is there already", name), "move it away")
		}
	}
	s.Log = filepath.Base(newLog)
	if hasDir {
		if err := os.Rename(dir, newDir); err != nil {
			return nil, err
		}
	}
	if hasLog {
		if err := renameFlagged(durable.OS, old, newLog); err != nil {
			if hasDir {
				err = errors.Join(err, os.Rename(newDir, dir))
			}
			return nil, err
		}
	}
	return s, durable.OS.SyncDir(filepath.Dir(old))
}

// renameFlagged renames a file that may have the append-only flag, which goes
// with it.
func renameFlagged(fsys durable.FS, from, to string) error {
	flagged, err := fsys.AppendOnly(from)
	if err != nil || !flagged {
		return errors.Join(err, fsys.Rename(from, to))
	}
	if err := fsys.SetAppendOnly(from, false); err != nil {
		return err
	}
	if err := fsys.Rename(from, to); err != nil {
		return errors.Join(err, fsys.SetAppendOnly(from, true))
	}
	return fsys.SetAppendOnly(to, true)
}

// identityOf is who the trail at path is: as its trail.json says or, where that
// is lost or broken, as it was pinned. The zero identity and no verifier are a
// trail that nobody knows any more.
func identityOf(dir, path, state string) (trailID, note.Verifier, error) {
	data, err := durable.ReadFile(durable.OS, filepath.Join(dir, "trail.json"), maxSmallFile)
	if err == nil {
		id, v, err := parseIdentity(data)
		if err == nil || id.Format > formatVersion {
			return id, v, err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return trailID{}, nil, err
	}
	id := trailID{Origin: pinnedOrigin(state, path), VKey: pin.Key(state, path)}
	v, err := note.NewVerifier(id.VKey)
	if err != nil {
		return id, nil, nil
	}
	return id, v, nil
}

// creating is the file of that name, which is there from the first file of a
// trail that is being made until the first checkpoint is durable.
type creating struct {
	Format int `json:"format"`
	// Adopt is the name, beside the log, of the file whose lines the trail
	// begins with; empty for a trail that begins with none.
	Adopt string `json:"adopt,omitempty"`
}

// create makes the trail's files, under the lock. creating is there from the
// first file until the first checkpoint is durable: a crash in between leaves
// what the next opening throws away, and no receipt was given.
func (t *Trail) create() error {
	fsys := t.opts.fs
	now, err := t.beginCreation(creating{Format: formatVersion})
	if err != nil {
		return err
	}
	line, err := t.createdLine(now, nil)
	if err != nil {
		return err
	}
	if err := durable.CreateFile(fsys, t.path, append(line, '\n'), 0o600); err != nil {
		return err
	}
	if err := fsys.SyncDir(filepath.Dir(t.path)); err != nil {
		return err
	}
	b := tree.NewBuilder()
	b.Append(lineDigest(line))
	return t.endCreation(tree.NewStore(fsys, t.dir), b)
}

// beginCreation makes everything but lines and tree: who the trail is, and its
// keys.
func (t *Trail) beginCreation(mark creating) (now time.Time, err error) {
	fsys := t.opts.fs
	file := func(name string) string { return filepath.Join(t.dir, name) }
	t.id = trailID{Format: formatVersion, Profile: cmp.Or(t.opts.profile, "plain"), Encrypt: t.opts.Encrypt}
	if err := t.checkTerms(); err != nil { // before anything is made
		return now, err
	}
	if t.opts.Policy != nil {
		if _, err := t.fitPolicy(t.opts.Policy); err != nil {
			return now, err
		}
	}
	marked, err := json.Marshal(mark)
	if err != nil {
		return now, err
	}
	if err := durable.WriteFile(fsys, file("creating"), append(marked, '\n'), 0o600); err != nil {
		return now, err
	}
	origin := t.opts.Origin
	if origin == "" {
		var b [8]byte
		rand.Read(b[:])
		origin = "kaizen-audit.invalid/" + hex.EncodeToString(b[:])
	}
	at, key, keyFile, keyText, err := t.makeSigningKey(origin)
	if err != nil {
		return now, err
	}
	origin = key.Name()
	mac := make([]byte, macKeyBytes)
	rand.Read(mac)
	now = t.clock.now()
	t.id.Origin, t.id.Created = origin, formatTime(now)
	t.id.VKey, t.id.LifecycleVKey, t.id.VKeys = key.VKey, key.VKey, []trust.Key{{VKey: key.VKey}}
	t.keys = &keyring{at: at, mac: mac, tokens: newTokenKey(mac)}
	t.keys.sign.Store(&signers{current: key, lifecycle: &key})
	if t.opts.LifecycleKeyFile != "" {
		k, err := t.createLifecycleKey(origin)
		if err != nil {
			return now, fmt.Errorf("lifecycle key: %w", err)
		}
		t.id.LifecycleVKey = k.VKey
		t.keys.sign.Load().lifecycle = &k
	}
	id, err := json.Marshal(t.id)
	if err != nil {
		return now, err
	}
	if err := durable.MkdirAll(fsys, file("keys"), 0o700); err != nil {
		return now, err
	}
	files := []struct {
		name string
		data []byte
	}{
		{"keys/" + keyFile, keyText},
		{"keys/mac.key", mac},
		{"trail.json", append(id, '\n')},
	}
	if t.mustSeal() { // the MAC key is wrapped
		if err := t.createKeys(mac); err != nil {
			return now, err
		}
		if err := t.openKeys(true); err != nil {
			return now, err
		}
		files = slices.Delete(files, 1, 2)
	}
	for _, f := range files {
		if err := durable.WriteFile(fsys, file(f.name), f.data, 0o600); err != nil {
			return now, err
		}
	}
	return now, nil
}

// createdLine is entry 0; adopted are the lines that follow it, if any were
// there before.
func (t *Trail) createdLine(now time.Time, adopted *Adopted) ([]byte, error) {
	facts := map[string]any{
		"format": formatVersion, "origin": t.id.Origin, "profile": t.id.Profile, "vkey": t.id.VKey, "lifecycle_vkey": t.id.LifecycleVKey,
		"writer": t.writer(),
	}
	if terms := t.firstTerms(); terms.Encrypt || terms.RetentionDays != nil {
		facts["policy"] = terms
	}
	t.protection(facts)
	if s := t.opts.successor; s != nil {
		facts["successor_of"] = s
	}
	if adopted != nil {
		facts["adopted"] = adopted
	}
	return t.ownLine(ownEntry{eventType: "AUDIT_CREATED", action: "trail_created", outputs: facts, signed: true}, now)
}

// endCreation signs the first checkpoint, over lines that are durable.
func (t *Trail) endCreation(store *tree.Store, b *tree.Builder) error {
	snap := b.Snapshot()
	if err := store.Flush(snap); err != nil {
		return err
	}
	b.Flushed(snap)
	c, err := t.keys.checkpoint(store, snap.Size, snap.Root, tree.Checkpoint{})
	if err != nil {
		return err
	}
	if err := errors.Join(store.Keep(c), store.Put(c)); err != nil {
		return err
	}
	// Crash until here: nothing was given out, all of it is made anew.
	return errors.Join(t.opts.fs.Remove(filepath.Join(t.dir, "creating")), t.opts.fs.SyncDir(t.dir))
}

// discardUnfinished removes what a creation left that did not come to its
// first checkpoint. The log has at most entry 0.
func (t *Trail) discardUnfinished() error {
	if err := t.discardIdentity(); err != nil {
		return err
	}
	if err := t.opts.fs.Remove(t.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// discardIdentity removes what beginCreation made, and the first checkpoint.
func (t *Trail) discardIdentity() error {
	fsys := t.opts.fs
	for _, name := range []string{"checkpoint", "checkpoint.tmp", "checkpoints/1", "checkpoints/1.tmp", "trail.json", "trail.json.tmp",
		"keys/signing.key", "keys/signing.key.tmp", "keys/signer.json", "keys/signer.json.tmp", "keys/mac.key", "keys/mac.key.tmp",
		"keys/deks.json", "keys/deks.json.tmp", "keys/subjects.json", "keys/subjects.json.tmp"} {
		if err := fsys.Remove(filepath.Join(t.dir, filepath.FromSlash(name))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// unfinished reports whether a creation was cut short: there is no checkpoint,
// and creating is there, which is returned. Beside a checkpoint it means
// nothing, whatever it is.
func (t *Trail) unfinished() (*creating, error) {
	fsys := t.opts.fs
	if _, err := fsys.Stat(filepath.Join(t.dir, "checkpoint")); err == nil {
		return nil, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	data, err := durable.ReadFile(fsys, filepath.Join(t.dir, "creating"), maxSmallFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	mark := &creating{}
	if json.Unmarshal(data, mark) != nil || mark.Format != formatVersion {
		return nil, fmt.Errorf("%w: creating: not the JSON that is expected", ErrDamaged)
	}
	return mark, nil
}

// hasLines reports whether the log has more lines than entry 0: then they are
// no creation's that was cut short.
func (t *Trail) hasLines() (bool, error) {
	data, err := durable.ReadFile(t.opts.fs, t.path, maxSmallFile)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return bytes.Count(data, []byte{'\n'}) > 1, err
}

// lockedBy names who holds a lock, from the lock file.
func lockedBy(lock durable.File, err error) error {
	if !errors.Is(err, durable.ErrLocked) {
		return err
	}
	who, shares := holder(lock)
	return &lockedError{who, shares}
}

// holder is what the lock says about who holds it: shares is also true where
// it says nothing yet.
func holder(lock durable.File) (who string, shares bool) {
	data := make([]byte, 4096)
	n, _ := lock.ReadAt(data, 0)
	var w writer
	if json.Unmarshal(data[:n], &w) != nil || w.PID == 0 {
		return "its holder has not said who it is", true
	}
	return w.String(), w.Shares
}

// lockedError is ErrLocked with the holder.
type lockedError struct {
	holder string
	shares bool // or nobody knows
}

func (e *lockedError) Error() string {
	if e.holder == "" { // it has gone meanwhile
		return ErrLocked.Error()
	}
	return ErrLocked.Error() + ": " + e.holder
}

func (e *lockedError) Unwrap() error { return ErrLocked }

func lineDigest(line []byte) journal.Digest { return entry.Digest(line) }

// alreadyThere says why no trail is made where there are files, and what is to be done:
// record appends only to a trail that is whole.
func alreadyThere(path, log, dir string) error {
	if fi, err := os.Stat(log); err == nil {
		if err := durable.CheckRegular(log, fi); err != nil {
			return err
		}
	}
	if !exists(dir) {
		return notATrail(path, dir)
	}
	for _, name := range []string{"trail.json", "checkpoint"} {
		if !exists(filepath.Join(dir, name)) && !exists(filepath.Join(dir, "creating")) {
			return advice.For(fmt.Errorf("%w: %s is missing", ErrDamaged, filepath.Join(dir, name)), "restore it, or %s", toGoOn(path))
		}
	}
	return advice.For(errors.New("there is a log already"), "kaizen-audit record appends to it; %s", toGoOn(path))
}
