package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/kaizen-audit/kaizen-audit/internal/access"
	"github.com/kaizen-audit/kaizen-audit/internal/advice"
	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/idempotency"
	"github.com/kaizen-audit/kaizen-audit/internal/identity"
	"github.com/kaizen-audit/kaizen-audit/internal/journal"
	"github.com/kaizen-audit/kaizen-audit/internal/pin"
	"github.com/kaizen-audit/kaizen-audit/internal/signing"
	"github.com/kaizen-audit/kaizen-audit/internal/socket"
	"github.com/kaizen-audit/kaizen-audit/internal/tree"
	"github.com/kaizen-audit/kaizen-audit/internal/trust"
	"github.com/kaizen-audit/kaizen-audit/internal/witness"
	"github.com/kaizen-audit/kaizen-audit/policy"
)

// Trail is an open trail. It is safe for concurrent use.
type Trail struct {
	opts     Options
	path     string // the open segment, links resolved
	dir      string // the trail's directory
	idMu     sync.RWMutex
	id       trailID // its keys under idMu, once the trail is open; see ids
	known    bool    // id was compared with the pin
	anchors  []*witness.Anchor
	clock    *clock
	pin      string // what happened to the pin, for Info
	warnings warnings

	rules     atomic.Pointer[policy.Policy]       // the policy in force, once it is known
	macKey    atomic.Pointer[func([]byte) []byte] // of what is left out of entries, once it was needed
	protected *protected                          // nil for a reader, and on a test's file system

	identitiesOnce sync.Once
	identityStore  *identity.Store            // see identities
	enc            atomic.Pointer[encryption] // nil for a writer of a trail that seals nothing
	said           said
	erasing        erasing
	schedules      schedules
	dekChanges     struct {
		mu  sync.Mutex
		all []dekChange
	}

	// A writer has these; a reader has none.
	lock     durable.File
	lockMade bool // there was no lock file
	journal  *journal.Journal
	signer   *signer
	keys     *keyring
	idem     *idempotency.Index
	keyed    keysInUse
	refused  refusals
	denials  denials
	losses   losses
	drainer  drainer
	owes     atomic.Bool // something waits in the spool that its holder may not look into
	sealing  sealing
	life     lifetime
	access   atomic.Pointer[access.Config] // nil where whoever can open the trail may read it
	rotation rotation

	archiving *archiving    // nil where nothing is archived
	fetched   *archiveCache // of what is in the archive only

	server *socket.Server // nil where nobody can connect

	// remote is there while another process holds the trail.
	remote atomic.Pointer[remote]

	closeOnce sync.Once
	closed    chan struct{}
	closeErr  error
}

// trailID is trail.json.
type trailID struct {
	Format        int         `json:"format"`
	Origin        string      `json:"origin"`
	Created       string      `json:"created"`
	Profile       string      `json:"profile"`
	Encrypt       bool        `json:"encrypt,omitempty"` // lines are sealed
	VKey          string      `json:"vkey"`
	LifecycleVKey string      `json:"lifecycle_vkey"`
	VKeys         []trust.Key `json:"vkeys"`
}

// formatVersion is the version of everything on disk (docs/format.md).
const formatVersion = 1

const maxSmallFile = 1 << 20

// parseIdentity reads trail.json.
func parseIdentity(data []byte) (trailID, note.Verifier, error) {
	var id trailID
	if err := json.Unmarshal(data, &id); err != nil {
		return id, nil, errors.New("trail.json: not the JSON that is expected")
	}
	if id.Format != formatVersion {
		return id, nil, advice.For(fmt.Errorf("trail.json: format %d, this program knows %d", id.Format, formatVersion),
			"use the version of kaizen-audit that wrote it")
	}
	v, err := note.NewVerifier(id.VKey)
	if err != nil {
		return id, nil, fmt.Errorf("trail.json: vkey: %w", err)
	}
	if v.Name() != id.Origin {
		return id, nil, errors.New("trail.json: the key's name is not the origin")
	}
	if n := len(id.VKeys); n > 0 && id.VKeys[n-1].VKey != id.VKey {
		return id, nil, errors.New("trail.json: the key is not the last of vkeys")
	}
	return id, v, nil
}

// paths resolves the log's path and finds the trail's directory beside it.
func paths(path string) (log, dir string, err error) {
	if log, err = filepath.Abs(path); err != nil {
		return "", "", err
	}
	// A link is followed to its end, also where there is nothing yet: the
	// directory lies beside the target, and a seal must not replace the link.
	for range maxLinks {
		target, err := os.Readlink(log)
		if err != nil {
			break
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(log), target)
		}
		log = target
	}
	if parent, err := filepath.EvalSymlinks(filepath.Dir(log)); err == nil {
		log = filepath.Join(parent, filepath.Base(log))
	}
	return log, trailDir(log), nil
}

// maxLinks is where Linux gives up too (path_resolution(7)).
const maxLinks = 40

func trailDir(log string) string {
	if name, ok := strings.CutSuffix(log, ".jsonl"); ok && filepath.Base(log) != ".jsonl" {
		return name + ".trail"
	}
	return log + ".trail"
}

// Open opens the trail at path, to write unless Options.ReadOnly, and makes
// one of profile plain where there is none. nil options are the defaults.
//
// Opening to write takes the trail's lock, compares the lines with the latest
// checkpoint, finishes or sets aside what a crash left (AUDIT_RECOVERY), and
// writes a checkpoint over everything before it returns. Errors that a caller
// may want to tell apart: ErrLocked, ErrDamaged, ErrPinned, ErrNotFound,
// ErrFull.
func Open(path string, opts *Options) (*Trail, error) {
	o, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	t, err := open(path, o)
	if err != nil {
		if !o.ReadOnly {
			err = explainOpen(err, path)
		}
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return t, nil
}

func open(path string, o Options) (*Trail, error) {
	log, dir := path, trailDir(path)
	if o.fs == durable.OS {
		var err error
		if log, dir, err = paths(path); err != nil {
			return nil, err
		}
	}
	if fi, err := o.fs.Stat(log); err == nil {
		if err := durable.CheckRegular(log, fi); err != nil {
			return nil, err
		}
	}
	t := &Trail{opts: o, path: log, dir: dir, closed: make(chan struct{})}
	t.clock = newClock(o.now)
	t.fetched = newArchiveCache(dir, &t.opts)
	var err error
	if t.anchors, err = makeAnchors(o.Anchors); err != nil {
		return nil, err
	}
	if o.ReadOnly {
		return t, t.openReader()
	}
	if o.fs == durable.OS {
		if err := t.protect(); err != nil {
			return nil, err
		}
	}
	if err := t.openWriter(); err != nil {
		t.release()
		if !errors.Is(err, ErrLocked) && !errors.Is(err, fs.ErrPermission) {
			return nil, err
		}
		if err := t.openRemote(err); err != nil {
			return nil, err
		}
		if err := t.openAccess(context.Background(), false); err != nil {
			return nil, errors.Join(err, t.Close())
		}
	}
	return t, nil
}

// onDisk tells a trail on the system's own file system from a test's, whose
// paths mean nothing to others.
func (t *Trail) onDisk() bool { return t.opts.fs == durable.OS || t.protected != nil }

// holds tells whether this process is the trail's holder.
func (t *Trail) holds() bool { return !t.opts.ReadOnly && t.remote.Load() == nil }

// WritesAtOnce tells whether Record is no more than a write to a file or a queue
// of this process: it holds the trail, and its durability is not Durable.
func (t *Trail) WritesAtOnce() bool { return t.opts.Durability != Durable && t.holds() }

// explainOpen adds what to do where a path can't be written.
func explainOpen(err error, path string) error {
	if _, known := advice.Split(err); known != "" || !errors.Is(err, fs.ErrPermission) {
		return err
	}
	if _, there := os.Stat(path); there == nil {
		return advice.For(err, "this is user %d; run it as the user who owns the trail: ls -ld %s", os.Geteuid(), advice.Quote(path))
	}
	if path == DefaultPath {
		return advice.For(err, "run as a user who may write %s, or choose another path: Options.AuditLogPath, Open's path, --log, or KAIZEN_AUDIT_LOG", filepath.Dir(path))
	}
	return advice.For(err, "run as a user who may write there, or choose another path")
}

// openReader checks that there is a trail.
func (t *Trail) openReader() error {
	data, err := durable.ReadFile(t.opts.fs, filepath.Join(t.dir, "trail.json"), maxSmallFile)
	if errors.Is(err, fs.ErrNotExist) {
		if err := t.halfRestored(); err != nil {
			return err
		}
		if _, err := t.opts.fs.Stat(t.path); errors.Is(err, fs.ErrNotExist) {
			return notFound(t.path)
		}
		if mark, err := t.unfinished(); err == nil && mark != nil && mark.Adopt != "" {
			return adoptionUnfinished(t.path)
		}
		if _, err := t.opts.fs.Stat(filepath.Join(t.dir, "checkpoint")); errors.Is(err, fs.ErrNotExist) {
			return notATrail(t.path, t.dir)
		}
		return fmt.Errorf("%w: %s is missing", ErrDamaged, filepath.Join(t.dir, "trail.json"))
	}
	if err != nil {
		return err
	}
	if t.id, _, err = parseIdentity(data); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if mark, err := t.unfinished(); err != nil {
		return err
	} else if mark != nil && mark.Adopt != "" {
		return adoptionUnfinished(t.path) // the log may still be the old file
	}
	if err := t.checkPin(); err != nil {
		return err
	}
	t.known = true
	if t.opts.Unrecorded {
		if who := t.holder(); who != "" {
			return optionError("Unrecorded", "the trail is no copy, it is held: %s; what is read of it is recorded", who)
		}
		t.warn(errors.New("what is read is not recorded"))
	}
	t.warnOfForks()
	if err := t.openAccess(context.Background(), false); err != nil {
		return err
	}
	return t.openKeys(false)
}

// Path is the path of the open segment, links resolved.
func (t *Trail) Path() string { return t.path }

// Dir is the trail's directory.
func (t *Trail) Dir() string { return t.dir }

// Origin is the name under which the trail signs.
func (t *Trail) Origin() string { return t.id.Origin }

// VKey is the trail's current verifier key, as in trail.json.
func (t *Trail) VKey() string { return t.ids().VKey }

// Close records the end, makes everything durable, signs a last checkpoint and
// lets go of the lock. It may be called more than once. ErrNotSent says that
// all of this was done, and that the last checkpoint did not arrive outside.
func (t *Trail) Close() error {
	t.closeOnce.Do(func() {
		t.closeErr = t.close()
		if t.closeErr != nil {
			t.closeErr = fmt.Errorf("close %s: %w", t.path, t.closeErr)
		}
	})
	return t.closeErr
}

func (t *Trail) close() error {
	if !t.holds() {
		if err := t.flushDenials(context.Background(), true); err != nil {
			t.warn(fmt.Errorf("that calls were refused could not be recorded: %w", err))
		}
	}
	if t.opts.ReadOnly {
		close(t.closed)
		return t.closeKeys()
	}
	if r := t.remote.Load(); r != nil {
		if holds, err := r.close(); !holds {
			close(t.closed)
			return errors.Join(err, t.closeKeys())
		}
	}
	t.unshare()
	return t.closeWriter()
}

func (t *Trail) closeWriter() error {
	t.drainer.end()
	t.rotation.stop()
	t.sealing.gate.Lock()
	defer t.sealing.gate.Unlock()
	var errs []error
	t.sealing.wait() // a seal in the background is finished first
	if t.journal.Err() == nil {
		errs = append(errs, t.flushRefusals(context.Background()), t.flushDenials(context.Background(), true), t.flushLosses(true))
	}
	if !t.opts.quiet && t.journal.Err() == nil {
		errs = append(errs, t.recordOwn(context.Background(), ownEntry{
			eventType: "AUDIT_STOP", action: "trail_closed",
			outputs: map[string]any{"entries": t.journal.Next()},
		}))
	}
	close(t.closed)
	t.identities().Close()
	t.signer.stop()
	failed := t.journal.Err()
	errs = append(errs, explainJournal(failed), t.journal.Close())
	t.sealing.wait() // one that a last Record began; the journal lets no other begin
	t.archiving.end()
	if failed == nil && errors.Join(errs...) == nil {
		// Whatever could not be signed before is signed now, or the lock is
		// left as a crash leaves it.
		err := t.signer.signAll(t.journal.Next())
		if err == nil {
			err = t.idem.Flush(t.journal.Next())
		}
		if err == nil {
			err = errors.Join(t.lock.Truncate(0), t.lock.Sync())
		}
		errs = append(errs, err)
	}
	var sinks error
	if failed == nil {
		if sinks = t.archiving.last(); sinks != nil {
			t.warn(sinks)
		}
	}
	t.keys.close()
	errs = append(errs, t.idem.Close(), t.closeKeys())
	sinks = errors.Join(sinks, t.signer.close())
	if err := errors.Join(append(errs, t.lock.Close())...); err != nil {
		return errors.Join(err, sinks)
	}
	if sinks != nil {
		return fmt.Errorf("%w: %w", ErrNotSent, sinks)
	}
	return nil
}

// release lets go of what a failed open holds.
func (t *Trail) release() {
	t.rotation.stop()
	t.archiving.end()
	t.archiving = nil
	if t.signer != nil {
		t.signer.stop()
		t.signer.abandon()
	}
	if t.journal != nil {
		t.journal.Close()
	}
	if t.idem != nil {
		t.idem.Close()
	}
	if t.lock != nil {
		t.lock.Close()
	}
	if t.keys != nil {
		t.keys.close()
		t.closeKeys()
	}
	t.lock, t.lockMade, t.journal, t.signer, t.keys, t.idem = nil, false, nil, nil, nil, nil
}

// checkPin compares origin and key with what was seen before.
func (t *Trail) checkPin() error {
	dir := t.stateDir()
	if dir == "" {
		t.pin = "none: there is no place to keep it"
		return nil
	}
	if p, ok, err := pin.Path(dir, t.path); err != nil {
		t.pin = "none: " + err.Error()
	} else if ok && p.Origin != t.id.Origin {
		return advice.For(fmt.Errorf("%w: it was %s and is now %s", ErrPinned, p.Origin, t.id.Origin),
			"if that is right: kaizen-audit init --forget-pin --log %s", advice.Quote(t.path))
	}
	switch p, ok, err := pin.Origin(dir, t.id.Origin); {
	case err != nil:
		t.pin = "none: " + err.Error()
	case ok && p.VKey != t.id.VKey && t.id.replaced(p.VKey) != nil:
		return advice.For(fmt.Errorf("%w: %w", ErrPinned, t.id.replaced(p.VKey)),
			"if it is: kaizen-audit init --forget-pin --log %[1]s; to check all of it: kaizen-audit verify --key VKEY --log %[1]s", advice.Quote(t.path))
	case ok && p.VKey != t.id.VKey && !t.follows(p.VKey):
		return advice.For(fmt.Errorf("%w: its origin %s had another key", ErrPinned, t.id.Origin),
			"restore trail.json, or %s", toGoOn(t.path))
	case ok && p.VKey == t.id.VKey:
		t.pin = "known"
		if _, here, _ := pin.Path(dir, t.path); here {
			return nil
		}
		fallthrough // a copy or restored trail: remember this path too
	default:
		if err := pin.Put(dir, t.path, t.id.Origin, t.id.VKey); err != nil {
			t.pin = "none: " + err.Error()
		} else if t.pin == "" {
			t.pin = "new"
		}
	}
	return nil
}

// follows tells whether the trail's key is a key that was seen before, or came in its
// place by rotations that each former key has signed.
func (t *Trail) follows(vkey string) bool {
	_, err := t.id.trusted(vkey)
	return err == nil
}

// stateDir is where pins are; "" where none are kept.
func (t *Trail) stateDir() string {
	if !t.onDisk() {
		return ""
	}
	if t.opts.StateDir != "" {
		return t.opts.StateDir
	}
	return pin.DefaultDir()
}

// clock gives times that never go back by a small step. A large one is
// followed, and told.
type clock struct {
	source func() time.Time
	mu     sync.Mutex
	last   time.Time
	max    time.Time
	steps  []clockStep
}

type clockStep struct{ from, to time.Time }

// smallStep is how far a clock may be set back by time synchronisation without
// the trail following: NTP clients step at 128 ms and slew below.
const smallStep = 2 * time.Second

// largeStep is how far wall and monotonic clock may part, forward, before it
// is noted. A machine that slept parts by as long as it slept.
const largeStep = time.Minute

func newClock(source func() time.Time) *clock { return &clock{source: source} }

func (c *clock) now() time.Time {
	t := c.source()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.last.IsZero() {
		wall := t.Round(0).Sub(c.last.Round(0)) // without the monotonic clock
		switch steady := t.Sub(c.last); {
		case wall < -smallStep, wall-steady > largeStep:
			c.steps = append(c.steps, clockStep{c.last, t})
		case wall < 0:
			return c.last
		}
	}
	c.last = t
	if t.After(c.max) {
		c.max = t
	}
	return t
}

// takeMax is the latest time since the last call, when a segment ended.
func (c *clock) takeMax() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.max
	c.max = c.last
	return t
}

// seen counts a time of an earlier process in.
func (c *clock) seen(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.After(c.max) {
		c.max = t
	}
}

// takeSteps gives the large steps since the last call.
func (c *clock) takeSteps() []clockStep {
	c.mu.Lock()
	defer c.mu.Unlock()
	steps := c.steps
	c.steps = nil
	return steps
}

// writer says who writes, for the lock, AUDIT_CREATED and AUDIT_START.
type writer struct {
	Host      string `json:"host"`
	Container string `json:"container,omitempty"`
	PID       int    `json:"pid"`
	BootID    string `json:"boot_id,omitempty"`
	Started   string `json:"started"`
	Command   string `json:"command"`
	// Shares says that others can record through the holder's socket, or wait
	// for the little that it has to do.
	Shares bool `json:"shares,omitempty"`
	// FoundClean is in the lock while an opening deals with what a closed
	// trail left.
	FoundClean bool `json:"found_clean,omitempty"`
}

func (t *Trail) writer() writer {
	w := writer{PID: os.Getpid(), Started: formatTime(t.clock.now()), Command: t.command(), Shares: t.shares()}
	w.Host, _ = os.Hostname()
	if b, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil {
		w.BootID = strings.TrimSpace(string(b))
	}
	for _, mark := range []string{"/.dockerenv", "/run/.containerenv"} {
		if _, err := os.Stat(mark); err == nil {
			w.Container = w.Host
		}
	}
	return w
}

func (t *Trail) command() string {
	if t.opts.Command != "" {
		return t.opts.Command
	}
	return filepath.Base(os.Args[0])
}

func (w writer) String() string {
	s := fmt.Sprintf("process %d on %s", w.PID, w.Host)
	if w.Container != "" {
		s = fmt.Sprintf("process %d in container %s", w.PID, w.Container)
	}
	if w.Command != "" {
		s += " (" + w.Command + ")"
	}
	if w.Started != "" {
		s += " since " + w.Started
	}
	return s
}

func formatTime(t time.Time) string { return t.UTC().Format(timeLayout) }

// keyring are a writer's private keys.
type keyring struct {
	at     signingKeys
	sign   atomic.Pointer[signers]
	next   *signing.Key // of a rotation that a crash cut off
	mac    []byte
	tokens tokenKey
}

// loadKeys reads the keys of a writer, and opens those of a trail that seals.
func (t *Trail) loadKeys() error {
	fsys := t.opts.fs
	k := &keyring{}
	var err error
	if k.at, err = t.findSigningKeys(); err != nil {
		return err
	}
	s, next, err := t.readSigners(k.at, t.id)
	if err != nil {
		return err
	}
	k.sign.Store(s)
	k.next = next
	if err := t.openKeys(true); err != nil {
		return err
	}
	if enc := t.enc.Load(); enc != nil {
		k.mac, err = enc.store.MAC(context.Background())
		err = explainKey(err)
	} else {
		k.mac, err = durable.ReadFile(fsys, filepath.Join(t.dir, "keys", "mac.key"), maxSmallFile)
	}
	if err != nil {
		return err
	}
	if len(k.mac) != macKeyBytes {
		return fmt.Errorf("keys/mac.key: %d bytes, want %d", len(k.mac), macKeyBytes)
	}
	k.tokens = newTokenKey(k.mac)
	t.keys = k
	return nil
}

const macKeyBytes = 32

// latest is the latest checkpoint on disk.
func (t *Trail) latest() (tree.Checkpoint, *tree.Store, error) {
	store := tree.NewStore(t.opts.fs, t.dir)
	id := t.ids()
	known := id.VKey
	if !t.holds() { // its holder may have rotated the key meanwhile
		if now, _, err := t.readIdentity(); err == nil && now.Origin == id.Origin {
			id = now
		}
	}
	keys, err := id.trusted(known)
	if err != nil {
		return tree.Checkpoint{}, nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if id.VKey != known {
		t.setKeys(&id)
	}
	c, err := store.Checkpoint(keys)
	return c, store, err
}
