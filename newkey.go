package audit

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/kaizen-audit/kaizen-audit/archive"
	"github.com/kaizen-audit/kaizen-audit/internal/archiver"
	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/journal"
	"github.com/kaizen-audit/kaizen-audit/internal/keys"
	"github.com/kaizen-audit/kaizen-audit/internal/pin"
	"github.com/kaizen-audit/kaizen-audit/internal/signing"
	"github.com/kaizen-audit/kaizen-audit/internal/tree"
	"github.com/kaizen-audit/kaizen-audit/internal/trust"
	"github.com/kaizen-audit/kaizen-audit/internal/verify"
)

// newKey puts a new signing key in the place of one that is lost, when a trail is
// restored. In this order, so that a crash anywhere is made good by running the same
// again:
//
//  1. keys/ but for the signing key. Crash: what is there is kept.
//  2. keys/signing.key. Crash: trail.json does not name it; it is taken again.
//  3. trail.json, which is what makes the key the trail's.
//  4. The pin. Crash before it: the key here is known for what it is.
//  5. The entry, by an opening like any other, which looks for it (sayReplaced).
type newKey struct {
	t        *Trail
	restored bool // the lines are there already
	done     bool // trail.json names the new key
}

// newKeyFor looks whether a trail can get a new key: there is none of its own.
func newKeyFor(log, dir, state string, opts Options) (*newKey, error) {
	opts.StateDir, opts.ReadOnly, opts.MustExist = state, false, true
	o, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	n := &newKey{t: &Trail{opts: o, path: log, dir: dir, clock: newClock(o.now)}}
	id, _, err := n.t.readIdentity()
	if errors.Is(err, ErrNotFound) {
		return n, nil
	}
	if err != nil {
		return nil, err
	}
	n.t.id = id
	n.restored = !exists(filepath.Join(dir, archiver.RestoringName)) && exists(filepath.Join(dir, "checkpoint"))
	at, err := n.t.findSigningKeys()
	if err == nil {
		_, _, err = n.t.readSigners(at, id)
	}
	if errors.Is(err, ErrOption) || errors.Is(err, fs.ErrPermission) || errors.Is(err, signing.ErrAway) {
		return nil, err
	}
	if err != nil {
		return n, nil // its key is not here
	}
	// It is, and may be the one that an interrupted run has made.
	if len(id.VKeys) > 0 && id.VKeys[len(id.VKeys)-1].Replacement != "" && n.restored {
		if n.done, err = n.t.unsaid(); n.done || err != nil {
			return n, err
		}
	}
	return nil, optionError("NewKey", "the trail's signing key is here: leave --new-key out, and it goes on with that")
}

// unsaid tells whether no checkpoint has the signature of the trail's key, which came
// in the place of a lost one.
func (t *Trail) unsaid() (bool, error) {
	trusted, err := t.id.trusted(t.id.VKey)
	if err != nil {
		return false, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	c, err := tree.NewStore(durable.OS, t.dir).Checkpoint(trusted)
	if err != nil {
		return false, err
	}
	return c.Size < t.id.VKeys[len(t.id.VKeys)-1].From, nil
}

// replace makes the keys of a trail whose checkpoint covers size entries, and its
// trail.json.
func (n *newKey) replace(ctx context.Context, id trailID, size int64) ([]byte, error) {
	t := n.t
	t.id = id
	apart := id.LifecycleVKey != id.VKey
	if apart {
		// It is kept away from the writer, and not lost with its key.
		if t.opts.LifecycleKeyFile == "" {
			return nil, errNoLifecycleKey
		}
		k, err := signing.ReadKey(t.opts.LifecycleKeyFile)
		if err != nil {
			return nil, fmt.Errorf("lifecycle key: %w", err)
		}
		if k.VKey != id.LifecycleVKey {
			return nil, optionError("LifecycleKeyFile", "it is another key than the trail's lifecycle key")
		}
	}
	if err := n.makeKeys(ctx); err != nil {
		return nil, err
	}
	next, err := n.makeSigning(id)
	if err != nil {
		return nil, err
	}
	from := size + 1
	replacement, err := trust.SignReplacement(next, id.VKey, next.VKey, from)
	if err != nil {
		return nil, err
	}
	t.id.VKeys = append(append([]trust.Key{}, id.keyList()...), trust.Key{VKey: next.VKey, From: from, Replacement: replacement})
	t.id.VKey = next.VKey
	if !apart {
		t.id.LifecycleVKey = next.VKey
	}
	if _, err := t.id.trusted(next.VKey); err != nil {
		return nil, err
	}
	text, err := json.Marshal(t.id)
	return append(text, '\n'), err
}

// makeKeys makes what is missing of keys/ beside the signing key.
func (n *newKey) makeKeys(ctx context.Context) error {
	t := n.t
	if err := durable.MkdirAll(durable.OS, filepath.Join(t.dir, "keys"), 0o700); err != nil {
		return err
	}
	mac := make([]byte, macKeyBytes)
	rand.Read(mac)
	if t.mustSeal() {
		k, err := t.opts.kek(t.stateDir(), t.id.Origin, false)
		if err != nil {
			return err
		}
		return explainKey(keys.Renew(ctx, t.keysOptions(k, false), mac))
	}
	name := filepath.Join(t.dir, "keys", "mac.key")
	if exists(name) {
		return nil
	}
	return durable.WriteFile(durable.OS, name, mac, 0o600)
}

// makeSigning makes the signing key, or takes the one that an interrupted run has
// made.
func (n *newKey) makeSigning(id trailID) (signing.Key, error) {
	f := signing.NewFile(durable.OS, n.t.signingFile())
	all, err := f.Keys()
	if errors.Is(err, fs.ErrNotExist) {
		k, err := signing.NewKey(id.Origin)
		if err == nil {
			err = f.Put(k)
		}
		return k, err
	}
	if err != nil {
		return signing.Key{}, err
	}
	if k := all[0]; k.Name() != id.Origin {
		return k, fmt.Errorf("keys/signing.key: it is a key of %s", k.Name())
	}
	return all[0], nil
}

// inPlace gives a trail that was restored without a key its new one.
func (n *newKey) inPlace(ctx context.Context, store archive.Store) (*Restored, error) {
	t := n.t
	out, err := n.held(ctx, store)
	if err != nil || n.done {
		return out, err
	}
	text, err := n.replace(ctx, t.id, out.Size)
	if err != nil {
		return nil, err
	}
	return out, durable.WriteFile(durable.OS, filepath.Join(t.dir, "trail.json"), text, 0o600)
}

// held looks at the trail that is there: it is what the archive has, or goes on from
// that, and nobody writes it.
func (n *newKey) held(ctx context.Context, store archive.Store) (*Restored, error) {
	t := n.t
	lock, err := durable.OS.OpenFile(filepath.Join(t.dir, "lock"), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if err := durable.OS.Lock(lock); err != nil {
		return nil, lockedBy(lock, err)
	}
	out := &Restored{Origin: t.id.Origin, Anchor: verify.AnchorNone, Pruned: []archiver.Range{}}
	trusted := t.id.VKey
	if p, ok, err := pin.Origin(t.stateDir(), t.id.Origin); err == nil && ok && !n.done {
		trusted, out.Anchor = p.VKey, verify.AnchorPinned
	}
	set, err := t.id.trusted(trusted)
	if err != nil {
		return nil, fmt.Errorf("%w: the trail's %w", ErrPinned, err)
	}
	c, err := tree.NewStore(durable.OS, t.dir).Checkpoint(set)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	p := archiver.NewPusher(store, archiver.Source{Dir: t.dir, Origin: t.id.Origin,
		Checkpoint: func() (tree.Checkpoint, error) { return c, nil },
		Trust:      func() (trust.Set, error) { return set, nil }})
	if err := p.Compare(ctx); err != nil {
		return nil, explainArchive(err)
	}
	view, err := journal.OpenView(durable.OS, t.path, t.dir, segmentAfterSeal, nil)
	if err != nil {
		return nil, err
	}
	defer view.Close()
	out.Size, out.Root = c.Size, base64.StdEncoding.EncodeToString(c.Root[:])
	for _, part := range view.Parts() {
		if part.File != "" && !part.Open {
			out.Segments++
		}
	}
	out.Lines, err = view.Count(ctx)
	return out, err
}

// goOn pins the key and has an opening say where it came from.
func (n *newKey) goOn(out *Restored) error {
	t := n.t
	if dir := t.stateDir(); dir != "" {
		if err := pin.Put(dir, t.path, t.id.Origin, t.id.VKey); err != nil {
			t.warn(fmt.Errorf("pin: %w", err))
		}
	}
	o := t.opts
	o.quiet = true
	trail, err := Open(t.path, &o)
	if err != nil {
		return err
	}
	out.NewKey = t.id.VKey
	return trail.Close()
}

// sayReplaced records that the signing key was lost, and which one signs since, at the
// first opening after it was replaced: no checkpoint has the new key's signature yet.
// A crash before the first one that has leaves lines that are adopted, and it is said
// again.
func (t *Trail) sayReplaced(ctx context.Context, c tree.Checkpoint) error {
	id := t.ids()
	n := len(id.VKeys) - 1
	if n < 1 || id.VKeys[n].Replacement == "" || c.Size >= id.VKeys[n].From {
		return nil
	}
	if t.keys.sign.Load().lifecycle == nil {
		return errNoLifecycleKey
	}
	return t.recordOwn(ctx, ownEntry{eventType: "AUDIT_KEY", action: "key_replaced", signed: true,
		outputs: map[string]any{"kind": "signing", "id": id.VKey, "was": id.VKeys[n-1].VKey, "from": id.VKeys[n].From, "reason": "lost"}})
}

// replaced is why the trail's present key is not vouched for by one that was seen
// before, where that one was lost; else nil.
func (id *trailID) replaced(vkey string) *trust.ReplacedError {
	_, err := id.trusted(vkey)
	var r *trust.ReplacedError
	if errors.As(err, &r) {
		return r
	}
	return nil
}

// acceptReplaced takes the key of the trail at a path for the known one where that was
// lost, since somebody says that this is right.
func acceptReplaced(state, log, dir string) error {
	t := &Trail{opts: Options{fs: durable.OS}, dir: dir}
	id, _, err := t.readIdentity()
	if err != nil {
		return nil // what is there is looked at when it is opened
	}
	p, ok, err := pin.Origin(state, id.Origin)
	if err != nil || !ok || id.replaced(p.VKey) == nil {
		return err
	}
	return pin.Put(state, log, id.Origin, id.VKey)
}
