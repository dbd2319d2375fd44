package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/advice"
	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/idempotency"
	"github.com/kaizen-audit/kaizen-audit/internal/journal"
	"github.com/kaizen-audit/kaizen-audit/internal/signing"
	"github.com/kaizen-audit/kaizen-audit/internal/tree"
	"github.com/kaizen-audit/kaizen-audit/internal/witness"
)

// creationWait is how long an opening waits for another one that is making
// the trail.
const creationWait = 5 * time.Second

// tornLimit is how many bytes at the end may be garbage after a crash: what
// the journal leaves unsynced at most, and one line.
func tornLimit(maxLine int) int64 { return 36<<20 + int64(maxLine) }

// openWriter takes the lock, makes or loads the trail, recovers, and starts
// what runs behind it.
func (t *Trail) openWriter() error {
	if err := t.prepareDir(); err != nil {
		return err
	}
	clean, err := t.takeLock()
	if err != nil {
		return err
	}
	if err := t.mayFlag(); err != nil {
		return err
	}
	mark, err := t.unfinished()
	switch {
	case err != nil:
		return err
	case t.opts.adopt:
		if err := t.adopt(mark); err != nil {
			return explainFull(err)
		}
		return t.load(true, true)
	case mark != nil && mark.Adopt != "":
		return adoptionUnfinished(t.path)
	case mark != nil:
		has, err := t.hasLines()
		done := false
		if err == nil && !has {
			done, err = t.finishCreation()
		}
		if err == nil && !has && !done {
			err = t.discardUnfinished()
		}
		if err != nil {
			return err
		}
	}
	_, logErr := t.opts.fs.Stat(t.path)
	_, idErr := t.opts.fs.Stat(filepath.Join(t.dir, "trail.json"))
	fresh := errors.Is(idErr, fs.ErrNotExist)
	switch {
	case fresh:
		if err := t.mayCreate(logErr); err != nil {
			return err
		}
		if err := t.create(); err != nil {
			return explainFull(err)
		}
		clean = true
	case logErr != nil && errors.Is(logErr, fs.ErrNotExist):
		return logMissing(t.path)
	}
	return t.load(clean, fresh)
}

// prepareDir makes the trail's directory where it may.
func (t *Trail) prepareDir() error {
	fsys := t.opts.fs
	if _, err := fsys.Stat(t.dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if t.opts.adopt {
		if err := t.mayAdopt(); err != nil {
			return err
		}
	} else if fi, err := fsys.Stat(t.path); err == nil && fi.Size() > 0 {
		return notATrail(t.path, t.dir)
	}
	if t.opts.MustExist {
		return notFound(t.path)
	}
	parent := filepath.Dir(t.dir)
	if _, err := fsys.Stat(parent); errors.Is(err, fs.ErrNotExist) {
		// A slip in the path must not make folders.
		return advice.For(fmt.Errorf("the directory %s is missing", parent), "mkdir -p %s", advice.Quote(parent))
	}
	if err := t.mayLieHere(); err != nil {
		return err
	}
	return durable.MkdirAll(fsys, t.dir, 0o700)
}

// mayLieHere refuses to make a trail where a lock does not keep others out
// (docs/decisions/0010). What can't be told is not refused.
func (t *Trail) mayLieHere() error {
	if s := t.unfit(); s != nil && !t.opts.AnyFileSystem {
		return advice.For(fmt.Errorf("no trail is made on a file system of type %s: %s", s.Name, s.Because()),
			"choose a path on a disk of this machine; to make it there all the same: --any-file-system (Options.AnyFileSystem)")
	}
	return nil
}

// unfit is the file system below the trail if it is not fit for one.
func (t *Trail) unfit() *durable.FileSystem {
	if t.protected == nil { // a test's file system
		return nil
	}
	s, err := t.opts.fsKind(filepath.Dir(t.dir))
	if err != nil || s.Fitness() != durable.Unfit {
		return nil
	}
	return &s
}

// mayHold keeps root from writing another user's trail: what root makes its
// owner could not read, and a link in a directory of somebody else's leads root
// anywhere.
func (t *Trail) mayHold() error {
	if t.protected == nil || os.Geteuid() != 0 {
		return nil
	}
	owner, err := durable.OwnerOf(t.opts.fs, t.dir)
	if err != nil || owner <= 0 {
		return err
	}
	return advice.For(fmt.Errorf("%w %d: root does not write it", errOthers, owner), "run as that user: sudo -u '#%d', or let it hold the trail: kaizen-audit serve", owner)
}

// errOthers: only its owner holds a trail.
var errOthers = errors.New("the trail belongs to user")

func notATrail(path, dir string) error {
	return advice.For(fmt.Errorf("%w: %s has lines and no trail beside it (%s)", ErrDamaged, path, dir),
		"if it is an older log, to begin a trail with its lines: kaizen-audit import --adopt --log %s; if it is another program's log, choose another path; if its trail was lost, restore that, or %s",
		advice.Quote(path), toGoOn(path))
}

// toGoOn is the advice that begins a new trail where the old one can't go on.
func toGoOn(path string) string {
	return fmt.Sprintf("to set it aside and go on in a new trail: kaizen-audit init --successor-of %[1]s --log %[1]s", advice.Quote(path))
}

func logMissing(path string) error {
	return advice.For(fmt.Errorf("%w: %s is missing", ErrDamaged, path), "restore it, or %s", toGoOn(path))
}

func notFound(path string) error {
	return advice.For(fmt.Errorf("%w: there is no trail at this path", ErrNotFound),
		"to make one: kaizen-audit init --log %s; or name another with --log", advice.Quote(path))
}

// mayCreate tells whether a trail may be made where trail.json is missing.
func (t *Trail) mayCreate(logErr error) error {
	if err := t.halfRestored(); err != nil {
		return err
	}
	if _, err := t.opts.fs.Stat(filepath.Join(t.dir, "checkpoint")); err == nil {
		return advice.For(fmt.Errorf("%w: trail.json is missing beside a checkpoint", ErrDamaged), "restore it, or %s", toGoOn(t.path))
	}
	if logErr == nil {
		if fi, err := t.opts.fs.Stat(t.path); err != nil {
			return err
		} else if fi.Size() > 0 {
			return notATrail(t.path, t.dir)
		}
	}
	if t.opts.MustExist {
		return notFound(t.path)
	}
	if err := t.mayLieHere(); err != nil {
		return err
	}
	// A path that had another trail is told before one is made there.
	return t.checkNotPinned()
}

// takeLock locks the lock file and writes into it who holds it. clean says
// that the last writer closed the trail.
func (t *Trail) takeLock() (clean bool, err error) {
	fsys := t.opts.fs
	name := filepath.Join(t.dir, "lock")
	deadline := time.Now().Add(creationWait)
	for {
		t.lock, err = fsys.OpenFile(name, os.O_RDWR, 0)
		if errors.Is(err, fs.ErrNotExist) {
			t.lockMade = true
			t.lock, err = fsys.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
		}
		if err != nil {
			t.lock = nil
			return false, err
		}
		err = fsys.Lock(t.lock)
		if err == nil {
			mine, err1 := t.lock.Stat()
			named, err2 := fsys.Stat(name)
			if err1 == nil && err2 == nil && fsys.SameFile(mine, named) {
				break
			}
			t.lock.Close()
			continue
		}
		_, creating := fsys.Stat(filepath.Join(t.dir, "creating"))
		err = lockedBy(t.lock, err)
		t.lock.Close()
		t.lock = nil
		if creating != nil || time.Now().After(deadline) {
			return false, err
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err := t.mayHold(); err != nil {
		return false, err
	}
	if clean, err = t.wasClean(); err != nil {
		return false, err
	}
	return clean, explainFull(errors.Join(t.sayWriter(clean), fsys.SyncDir(t.dir)))
}

// wasClean tells from the lock whether the last writer closed the trail: it is
// empty then, or an opening that found it so got no further. A lock that is
// missing beside a trail tells nothing, and nothing is not clean.
func (t *Trail) wasClean() (bool, error) {
	fi, err := t.lock.Stat()
	if err != nil {
		return false, err
	}
	if fi.Size() == 0 {
		return !t.lockMade, nil
	}
	data := make([]byte, min(fi.Size(), maxSmallFile))
	if _, err := t.lock.ReadAt(data, 0); err != nil && err != io.EOF {
		return false, err
	}
	var w writer
	return json.Unmarshal(data, &w) == nil && w.FoundClean, nil
}

// sayWriter writes into the lock who holds it. foundClean stands there until
// what was found is dealt with, so that an opening that fails tells the next
// one. The file is never empty in between: that would say clean.
func (t *Trail) sayWriter(foundClean bool) error {
	w := t.writer()
	w.FoundClean = foundClean
	who, err := json.Marshal(w)
	if err != nil {
		return err
	}
	who = append(who, '\n')
	if _, err := t.lock.WriteAt(who, 0); err != nil {
		return err
	}
	return errors.Join(t.lock.Truncate(int64(len(who))), t.lock.Sync())
}

// load reads a trail that is there and makes this process its writer.
func (t *Trail) load(clean, fresh bool) error {
	fsys := t.opts.fs
	data, err := durable.ReadFile(fsys, filepath.Join(t.dir, "trail.json"), maxSmallFile)
	if err != nil {
		return err
	}
	id, _, err := parseIdentity(data)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	switch {
	case !t.known:
		t.id = id
	case id.Origin == t.id.Origin && id.VKey != t.id.VKey: // while another process held it
		if _, err := id.trusted(t.id.VKey); err != nil {
			return fmt.Errorf("%w: its origin %s had another key when this process opened it", ErrPinned, id.Origin)
		}
		t.setKeys(&id)
	case id.Origin != t.id.Origin:
		return fmt.Errorf("%w: it was %s when this process opened it and is now %s", ErrPinned, t.id.Origin, id.Origin)
	}
	if t.opts.Origin != "" && t.opts.Origin != id.Origin {
		return optionError("Origin", "the trail's origin is %s", id.Origin)
	}
	if least := leastLocal[id.Profile]; t.opts.ArchiveKeepLocal > 0 && t.opts.ArchiveKeepLocal < least {
		return optionError("ArchiveKeepLocal", "in profile %s segments stay on this disk for %d days at least", id.Profile, int(least.Hours())/24)
	}
	// What is here now must be what was here before: before anything is
	// written. A trail that was just made is durable, and is pinned here.
	if !t.known {
		if err := t.checkPin(); err != nil {
			return err
		}
		t.known = true
	}
	if err = t.loadKeys(); err != nil {
		if errors.Is(err, ErrNoKey) || errors.Is(err, ErrOption) || errors.Is(err, signing.ErrAway) || errors.Is(err, signing.ErrRefused) {
			return err
		}
		err = fmt.Errorf("the trail can be read and verified, but not written: %w", err)
		if errors.Is(err, fs.ErrPermission) {
			return err
		}
		return advice.For(err, "put its keys back: kaizen-audit keys restore BACKUP --log %[1]s; where there is no backup, to go on with a new signing key: kaizen-audit restore --from URL --new-key --log %[1]s; or %[2]s", advice.Quote(t.path), toGoOn(t.path))
	}
	trusted, err := id.trusted(id.VKey)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	store := tree.NewStore(fsys, t.dir)
	c, err := store.Checkpoint(trusted)
	if errors.Is(err, fs.ErrNotExist) {
		return t.refuseDamaged("it has lines and no checkpoint")
	}
	if err != nil {
		if errors.Is(err, tree.ErrSignature) {
			return t.refuseDamaged(err.Error())
		}
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err := t.compareAnchors(c, store); err != nil {
		return err
	}
	if t.keys.next != nil {
		if err := t.resumeRotation(t.keys.next, c.Signed, c.Size); err != nil {
			return fmt.Errorf("resume rotation of the signing key: %w", err)
		}
	}
	if t.opts.Encrypt && !t.id.Encrypt {
		return optionError("Encrypt", "the trail does not seal its lines, and that is chosen when one is made")
	}
	t.signer = newSigner(t, store, c)
	t.journal, err = journal.Open(journal.Options{
		FS: fsys, Path: t.path, Dir: t.dir, Mode: journal.Mode(t.opts.Durability),
		Ring: t.opts.ring, RingAfter: t.opts.ringAfter,
		CatchUp: t.opts.catchUp, Archive: t.fetched.segment, Acknowledged: t.signer.acknowledged, Due: t.signer.syncDue,
	})
	if err != nil {
		if errors.Is(err, durable.ErrLocked) {
			return fmt.Errorf("%w: another process holds %s", ErrLocked, t.path)
		}
		return explainSegment(err)
	}
	gap, err := t.journal.Settle(segmentAfterSeal, t.lawful)
	if err != nil {
		return explainSegment(err)
	}
	if gap != nil {
		return t.refuseDamaged(gap.Error())
	}
	if err := t.journal.RestoreRing(c.Size, clean); err != nil {
		if errors.Is(err, journal.ErrRing) {
			return t.refuseDamaged(err.Error())
		}
		return explainFull(err)
	}
	found, err := t.replay(c)
	if err != nil {
		return err
	}
	if err := t.compareSigned(c, store, &found, clean); err != nil {
		return err
	}
	if !clean {
		// Nothing depends on it: what a crash left in tile/ is looked for.
		_ = store.FindPartial()
	}
	if t.idem, err = idempotency.Open(fsys, filepath.Join(t.dir, "idempotency"), t.keys.mac); err != nil {
		return err
	}
	recovery, err := t.recover(c, &found, clean)
	if err != nil {
		return err
	}
	if err := t.protectFiles(); err != nil {
		return err
	}
	if err := t.sayWriter(false); err != nil {
		return explainFull(err)
	}
	if err := fsys.Remove(filepath.Join(t.dir, "creating")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	t.journal.Start()
	switch err := t.finishPending(context.Background()); {
	case errors.Is(err, errCertificate):
		t.warn(err) // the tree may be damaged; the next opening tries again
	case err != nil:
		return explainFull(err)
	}
	if err := t.loadKeysSeen(); err != nil {
		return err
	}
	for _, to := range t.opts.CheckpointTo {
		sink, err := witness.ParseSink(to)
		if err != nil {
			return err
		}
		t.signer.addSink(sink, sinkInterval, t.sinkLost)
	}
	for _, a := range t.anchors {
		t.signer.addSink(&anchorSink{t: t, a: a}, a.Every, t.sinkLost)
	}
	t.signer.start(found.builder, found.tail)
	if err := t.begin(c, &found, recovery, fresh); err != nil {
		return explainFull(err)
	}
	t.resumeSealing()
	if !t.opts.manual && !t.opts.quiet {
		t.rotation.start(t)
	}
	t.startArchiving()
	t.share()
	if t.onDisk() && !t.opts.quiet {
		t.drainer.start(t)
	}
	return nil
}

func (t *Trail) refuseDamaged(why string) error {
	return advice.For(fmt.Errorf("%w: %s; it is not extended", ErrDamaged, why),
		"to see what is wrong: kaizen-audit verify --log %s; %s", advice.Quote(t.path), toGoOn(t.path))
}

// replayed is what the lines say.
type replayed struct {
	journal.State
	builder *tree.Builder    // of exactly the checkpoint's size
	tail    []journal.Digest // of the valid lines beyond it
	valid   int64            // index after the last valid line
}

// replay compares the lines of the open segment with the checkpoint. The tree
// before them comes from tiles, which the root then vouches for.
func (t *Trail) replay(c tree.Checkpoint) (replayed, error) {
	start := t.journal.SegmentStart(c.Size)
	base, err := t.signer.store.Load(start)
	if err == nil {
		var r replayed
		if r, err = t.replayFrom(base.RootOnly(), start, c); err == nil {
			// The tiles at the checkpoint's size are the same tree's, or are
			// written again from the lines.
			if b, err := t.signer.store.Load(c.Size); err == nil && b.Root() == c.Root {
				r.builder = b
				return r, nil
			}
		} else if !errors.Is(err, errRoot) {
			return r, explainSegment(err)
		}
	}
	// Tiles that are lost or changed are no reason to refuse: lines can
	// rebuild them, all of them if need be.
	r, err := t.replayFrom(tree.NewBuilder(), 0, c)
	switch {
	case errors.Is(err, errRoot):
		return r, t.refuseDamaged("its lines are not what its checkpoint covers")
	case errors.Is(err, errSealing):
		return r, t.refuseDamaged(err.Error())
	}
	return r, explainSegment(err)
}

// explainSegment says of a segment that can't be read that it is damage, unless
// the system refused the file.
func explainSegment(err error) error {
	if lost, ok := errors.AsType[*journal.SegmentError](err); ok && lost.Damaged() && !errors.Is(err, ErrDamaged) {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return err
}

// errSealing: trail.json or keys/ say otherwise than the lines what is sealed.
var errSealing = errors.New("it seals and keys/deks.json is missing, or trail.json says otherwise than its lines")

var errRoot = errors.New("the lines do not give the checkpoint's root")

func (t *Trail) replayFrom(b *tree.Builder, start int64, c tree.Checkpoint) (replayed, error) {
	r := replayed{builder: b}
	if b.Size() == c.Size && b.Root() != c.Root {
		return r, errRoot
	}
	broken := false
	var mismatch error
	var adopted Adopted
	var err error
	r.State, err = t.journal.Replay(start, func(index int64, line []byte) error {
		// A line that was adopted says nothing about this trail's time.
		adopted.See(index, line)
		if index == t.journal.First() {
			profile, encrypt, says := saysSealed(line)
			if says && (profile != t.id.Profile || encrypt != t.id.Encrypt || t.mustSeal() != (t.enc.Load() != nil)) {
				mismatch = errSealing
				return errSealing
			}
		}
		if index >= t.journal.First() && !adopted.Has(index) {
			if e, err := entry.Parse(line); err == nil {
				t.clock.seen(e.RecordedAt)
			}
		}
		if index < c.Size {
			b.Append(entry.Digest(line))
			if b.Size() == c.Size && b.Root() != c.Root {
				mismatch = errRoot
				return errRoot
			}
			return nil
		}
		if !broken && !validLine(line) {
			broken = true
		}
		if !broken {
			r.tail = append(r.tail, entry.Digest(line))
		}
		return nil
	})
	switch {
	case mismatch != nil:
		return r, mismatch
	case err != nil:
		return r, err
	case r.Next < c.Size:
		return r, t.refuseDamaged(fmt.Sprintf("it has %d lines where its checkpoint covers %d", r.Next, c.Size))
	}
	r.valid = c.Size + int64(len(r.tail))
	return r, nil
}

// validLine tells a line from what a torn write leaves: zeros, or the middle
// of something.
func validLine(line []byte) bool {
	if len(line) == 0 || bytes.IndexByte(line, 0) >= 0 {
		return false
	}
	_, err := entry.Parse(line)
	return err == nil
}

// recovery is what AUDIT_RECOVERY tells.
type recovery struct {
	Checkpoint int64          `json:"checkpoint"` // its size
	Adopted    []adoptedRange `json:"adopted"`
	SetAside   []setAside     `json:"set_aside"`
}

type adoptedRange struct {
	First  int64 `json:"first"`
	Count  int64 `json:"count"`
	Signed bool  `json:"signed"`
}

type setAside struct {
	File   string `json:"file"`
	First  int64  `json:"first"`
	Bytes  int64  `json:"bytes"`
	Reason string `json:"reason"`
}

// recover deals with what lies beyond the checkpoint; nil says that there was
// nothing, after a clean close.
func (t *Trail) recover(c tree.Checkpoint, r *replayed, clean bool) (*recovery, error) {
	if clean && r.Next == c.Size && r.Torn == 0 {
		return nil, nil
	}
	rec := &recovery{Checkpoint: c.Size, Adopted: []adoptedRange{}, SetAside: []setAside{}}
	aside := func(from int64, reason string) error {
		a, err := t.journal.SetAside(from, t.clock.now())
		if err != nil {
			return err
		}
		rec.SetAside = append(rec.SetAside, setAside{filepath.ToSlash(a.File), a.First, a.Bytes, reason})
		return nil
	}
	if clean {
		// The last writer left nothing uncovered: somebody else wrote this.
		if c.Size < r.First {
			return nil, t.refuseDamaged("it was closed, and a sealed segment has lines beyond its checkpoint")
		}
		r.tail = nil
		return rec, aside(c.Size, "written after the trail was closed")
	}
	torn := r.Torn > 0 || r.valid < r.Next
	if torn {
		bytes, err := t.journal.BytesFrom(max(r.valid, r.First))
		if err != nil {
			return nil, err
		}
		if r.valid < r.First || bytes > tornLimit(t.opts.MaxLine) {
			return nil, t.refuseDamaged(fmt.Sprintf("from entry %d on its lines are broken, further than a crash can reach", r.valid))
		}
		if err := aside(r.valid, "torn"); err != nil {
			return nil, err
		}
	}
	if n := r.valid - c.Size; n > 0 {
		if err := t.journal.Rewrite(c.Size); err != nil {
			return nil, err
		}
		rec.Adopted = append(rec.Adopted, adoptedRange{c.Size, n, false})
	}
	return rec, nil
}

// begin writes the first entries of this opening and signs everything.
func (t *Trail) begin(c tree.Checkpoint, r *replayed, rec *recovery, fresh bool) error {
	t.life.opened, t.life.first = t.clock.source(), r.valid == 0 || fresh
	if e, _, err := t.entryAt(context.Background(), r.valid-1); err == nil && !t.life.first {
		t.life.last = e.RecordedAt
	}
	ctx := context.Background()
	if err := t.eraseAgain(ctx); err != nil {
		return err
	}
	if rec != nil {
		if err := t.recordOwn(ctx, ownEntry{eventType: "AUDIT_RECOVERY", action: "trail_recovered", outputs: rec, signed: true}); err != nil {
			return err
		}
		// The open segment begins with the seal of the one before.
		if r.First > 0 && r.First >= c.Size && r.First < r.valid && len(r.tail) > 0 {
			if err := t.sealAgain(ctx, c, r); err != nil {
				return err
			}
		}
	}
	if err := t.sayReplaced(ctx, c); err != nil {
		return err
	}
	facts := map[string]any{}
	t.protection(facts)
	if !fresh && (!t.opts.quiet || len(facts) > 0) {
		facts["writer"], facts["durability"] = t.writer(), t.opts.Durability.String()
		if err := t.recordOwn(ctx, ownEntry{eventType: "AUDIT_START", action: "trail_opened", outputs: facts}); err != nil {
			return err
		}
	}
	t.noteDEKs() // of an opening that makes its own
	if err := t.loadPolicy(ctx); err != nil {
		return err
	}
	if err := t.openAccess(ctx, true); err != nil {
		return err
	}
	if days := t.opts.RetentionDays; !fresh && (days > 0 || t.opts.RetentionLock) {
		if days == 0 {
			r, err := t.Retention(ctx)
			if err == nil && !r.Set {
				err = optionError("RetentionLock", "there is no period to lock: set RetentionDays too")
			}
			if err != nil {
				return err
			}
			days = r.Days
		}
		if _, err := t.setRetention(ctx, period{days, t.opts.RetentionLock}); err != nil {
			return err
		}
	}
	if err := t.finishPrune(ctx); err != nil {
		return err
	}
	until := time.Now().Add(drainAtOpen)
	if err := t.drainSpool(func() bool { return t.opts.quiet && time.Now().After(until) }); err != nil {
		return err
	}
	return t.signer.signAll(t.journal.Next())
}

// loadKeysSeen brings the idempotency keys up to date with the lines.
func (t *Trail) loadKeysSeen() error {
	view, err := t.journal.View()
	if err != nil {
		return err
	}
	defer view.Close()
	var adopted Adopted
	since := t.clock.now().Add(-idempotency.Window)
	from := t.idem.Covered()
	for _, part := range view.Parts() {
		if part.Count == 0 || part.File != "" && (part.First+part.Count <= from || part.MaxRecordedAt != nil && part.MaxRecordedAt.Before(since)) {
			continue
		}
		_, err := view.Part(context.Background(), part, func(index int64, line []byte) error {
			adopted.See(index, line)
			if index < from || adopted.Has(index) {
				return nil
			}
			seen, err := t.opened(line)
			if err != nil || !bytes.Contains(seen, []byte(`"idempotency_key"`)) {
				return nil // what can't be opened is a reader's to tell
			}
			e, err := entry.Parse(seen)
			if err != nil || e.IdempotencyKey == "" || e.RecordedAt.Before(since) {
				return nil
			}
			return t.idem.Add(t.idem.Hash(e.IdempotencyKey), index, e.RecordedAt)
		})
		if err != nil {
			return explainSegment(err)
		}
	}
	return nil
}

// explainFull names a full disk as ErrFull.
func explainFull(err error) error {
	if err == nil || errors.Is(err, ErrFull) || !isFull(err) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrFull, err)
}
