package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"golang.org/x/mod/sumdb/note"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/advice"
	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/journal"
	"github.com/kaizen-audit/kaizen-audit/internal/pin"
	"github.com/kaizen-audit/kaizen-audit/internal/signing"
	"github.com/kaizen-audit/kaizen-audit/internal/trust"
)

// signers are a writer's keys that sign. They change as a whole.
type signers struct {
	current   signing.Key
	former    *signing.Key // signs too, while the two overlap; else nil
	lifecycle *signing.Key // nil where it is kept elsewhere and not at hand
}

// sign signs what the writer attests or, if permits, what somebody permits
// (docs/format-lifecycle.md §7.1).
func (s *signers) sign(line []byte, permits bool) ([]byte, error) {
	by := &s.current
	if permits {
		if by = s.lifecycle; by == nil {
			return nil, errNoLifecycleKey
		}
	}
	sig, err := by.Sign(line)
	return sig, explainSigner(err)
}

// errNoLifecycleKey: what somebody permits can't be signed here.
var errNoLifecycleKey = advice.For(errors.New("the trail's lifecycle key is not at hand"), "name its file with --lifecycle-key (Options.LifecycleKeyFile)")

// permits tells whether an entry is somebody's permission, which the lifecycle key
// signs, and not what the writer attests.
func (o *ownEntry) permits() bool {
	switch o.eventType {
	case "AUDIT_HOLD", "AUDIT_ERASURE", "AUDIT_PRUNE":
		return true
	case "AUDIT_POLICY":
		return o.action == "policy_set"
	case "AUDIT_KEY":
		facts, _ := o.outputs.(map[string]any)
		return facts["kind"] == "signing" || facts["kind"] == "lifecycle"
	}
	return false
}

// readSigners reads the keys that sign, and the lifecycle key. next is a key that is
// there and that trail.json does not name: that of a rotation that a crash cut off.
func (t *Trail) readSigners(at signingKeys, id trailID) (s *signers, next *signing.Key, err error) {
	all, err := at.Keys()
	if err != nil {
		return nil, nil, explainSigner(err)
	}
	s = &signers{}
	for _, k := range all {
		switch {
		case k.VKey == id.VKey:
			s.current = k
		case slices.ContainsFunc(id.VKeys, func(of trust.Key) bool { return of.VKey == k.VKey }):
			s.former = &k
		default:
			next = &k
		}
	}
	if s.current.Signer == nil || len(all) > 2 {
		return nil, nil, fmt.Errorf("%w: its signing key is not the key of trail.json", ErrDamaged)
	}
	for _, k := range all {
		if k.VKey == id.LifecycleVKey {
			s.lifecycle = &k
		}
	}
	if t.opts.LifecycleKeyFile == "" {
		return s, next, nil
	}
	k, err := signing.ReadKey(t.opts.LifecycleKeyFile)
	if err != nil {
		return nil, nil, fmt.Errorf("lifecycle key: %w", err)
	}
	if k.VKey != id.LifecycleVKey {
		return nil, nil, optionError("LifecycleKeyFile", "it is another key than the trail's lifecycle key")
	}
	s.lifecycle = &k
	return s, next, nil
}

// createLifecycleKey is the lifecycle key of a trail that is being made: that of the
// file, which is made where it is not there.
func (t *Trail) createLifecycleKey(origin string) (signing.Key, error) {
	name := t.opts.LifecycleKeyFile
	k, err := signing.ReadKey(name)
	if err == nil && k.Name() != origin {
		return k, optionError("LifecycleKeyFile", "it is a key of %s, and the trail is %s: give that as the origin", k.Name(), origin)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	if k, err = signing.NewKey(origin); err != nil {
		return k, err
	}
	if err := signing.NewFile(durable.OS, name).Put(k); err != nil {
		return k, err
	}
	if t.opts.Warn != nil {
		t.opts.Warn(fmt.Errorf("the trail's lifecycle key was made in %s: keep it away from who writes the trail; nothing is pruned, held, erased or rotated without it", name))
	}
	return k, nil
}

// trusted are the keys whose signatures count, because vkey is trusted.
func (id *trailID) trusted(vkey string) (trust.Set, error) {
	set, err := trust.Chain(id.keyList(), vkey)
	if err != nil {
		return set, fmt.Errorf("trail.json: vkeys: %w", err)
	}
	return set, nil
}

// keyList are the trail's keys; who only knows the present one has a list of that.
func (id *trailID) keyList() []trust.Key {
	if len(id.VKeys) == 0 {
		return []trust.Key{{VKey: id.VKey}}
	}
	return id.VKeys
}

// lifecycleAt is the lifecycle key in force at an index.
func (id *trailID) lifecycleAt(index int64) string {
	if id.LifecycleVKey != id.VKey {
		return id.LifecycleVKey
	}
	// It is the signing key, and goes with it: from the entry after the one that
	// says so on (§7.10).
	vkey := id.LifecycleVKey
	for i, k := range id.VKeys {
		if i == 0 || k.From <= index {
			vkey = k.VKey
		}
	}
	return vkey
}

// ids are who the trail is, with the keys it has now.
func (t *Trail) ids() trailID {
	t.idMu.RLock()
	defer t.idMu.RUnlock()
	return t.id
}

// setKeys takes the keys of a trail.json whose others are known.
func (t *Trail) setKeys(id *trailID) {
	t.idMu.Lock()
	defer t.idMu.Unlock()
	t.id.VKey, t.id.VKeys, t.id.LifecycleVKey = id.VKey, id.VKeys, id.LifecycleVKey
}

// RotateSigningKey puts a new signing key in the place of the present one, and
// records it. From then on both sign every checkpoint, so that who knows the former
// key alone goes on verifying, until RetireSigningKey. Where the signing key is the
// lifecycle key too, the new one is that as well; else the lifecycle key is needed
// (Options.LifecycleKeyFile). compromised is what the entry says of the reason.
//
// An error in the middle stops the trail: opening it again completes the rotation,
// or nothing has happened.
func (t *Trail) RotateSigningKey(ctx context.Context, compromised bool) error {
	if err := t.authorizeAll(ctx, "RotateSigningKey"); err != nil {
		return fmt.Errorf("rotate signing key of %s: %w", t.path, err)
	}
	if err := t.rotateSigningKey(ctx, compromised); err != nil {
		return fmt.Errorf("rotate signing key of %s: %w", t.path, explainFull(err))
	}
	return nil
}

func (t *Trail) rotateSigningKey(ctx context.Context, compromised bool) error {
	if err := t.holding(ctx); err != nil {
		return err
	}
	reason := "operator"
	if compromised {
		reason = "compromised"
	}
	t.erasing.own.RLock()
	defer t.erasing.own.RUnlock()
	// Nothing is cut off and no other checkpoint is signed meanwhile.
	t.sealing.cut.Lock()
	defer t.sealing.cut.Unlock()
	t.signer.signing.Lock()
	defer t.signer.signing.Unlock()
	now := t.keys.sign.Load()
	if now.former != nil {
		return advice.For(errors.New("two keys sign now: the former one was not retired"), "kaizen-audit keys rotate --retire --log %s", advice.Quote(t.path))
	}
	if now.lifecycle == nil {
		_, err := now.sign(nil, true)
		return err
	}
	id := t.ids()
	// 1. Both keys are there. Crash: trail.json does not name the new one and no
	// checkpoint has its signature: the next opening drops it.
	next, err := t.keys.at.Make()
	if err != nil {
		return explainSigner(err)
	}
	// 2. The entries. Crash: they lie beyond the checkpoint, and say nothing.
	from := int64(0)
	_, err = t.journal.AppendMade(func(first int64) ([]byte, []journal.Digest, error) {
		from = first + 2
		return t.rotationLines(&id, next.VKey, from, reason)
	})
	if err != nil {
		err = explainJournal(err)
		return errors.Join(err, t.keys.at.Keep(id.VKey))
	}
	if err := t.completeRotation(&id, now, next, from); err != nil {
		t.journal.Stop(fmt.Errorf("rotation of the signing key: %w", err))
		return err
	}
	return nil
}

// completeRotation does what follows the entries.
func (t *Trail) completeRotation(id *trailID, now *signers, next signing.Key, from int64) error {
	if _, err := t.journal.Sync(); err != nil {
		return err
	}
	// 3. The checkpoint of size from, signed by both. With it the rotation has
	// happened: crash after it, and the next opening goes on from here.
	t.keys.sign.Store(&signers{current: now.current, former: &next, lifecycle: now.lifecycle})
	t.signer.treeMu.Lock()
	t.signer.growLocked(from)
	snap := t.signer.builder.Snapshot()
	t.signer.treeMu.Unlock()
	if snap.Size != from {
		return fmt.Errorf("the tree has %d entries where %d were to be signed", snap.Size, from)
	}
	if err := t.signer.putLocked(snap, true, t.clock.now()); err != nil {
		return err
	}
	// 4. trail.json names it. Nothing is left to do.
	return t.nameKey(id, now, next, from)
}

// rotationLines are the entries of a rotation: one says which key signs from size
// from on, and the other is its first: covered by the first checkpoint it signs.
func (t *Trail) rotationLines(id *trailID, vkey string, from int64, reason string) (buf []byte, digests []journal.Digest, err error) {
	entries := []ownEntry{{eventType: "AUDIT_KEY", action: "key_rotated", signed: true,
		outputs: map[string]any{"kind": "signing", "id": vkey, "was": id.VKey, "from": from, "reason": reason}}}
	if id.LifecycleVKey == id.VKey {
		entries = append(entries, ownEntry{eventType: "AUDIT_KEY", action: "key_rotated", signed: true,
			outputs: map[string]any{"kind": "lifecycle", "id": vkey, "was": id.VKey, "reason": reason}})
	} else {
		entries = append(entries, ownEntry{eventType: "AUDIT_KEY_USE", action: "key_in_use", outputs: map[string]any{"id": vkey, "from": from}})
	}
	now := t.clock.now()
	for _, o := range entries {
		line, err := t.ownLine(o, now)
		if err == nil {
			line, err = t.stored(nil, line)
		}
		if err == nil {
			err = t.syncKeys()
		}
		if err != nil {
			return nil, nil, err
		}
		digests = append(digests, entry.Digest(line))
		buf = append(append(buf, line...), '\n')
	}
	return buf, digests, nil
}

// nameKey writes the next key into trail.json and makes it the one that signs.
func (t *Trail) nameKey(id *trailID, now *signers, next signing.Key, from int64) error {
	rotation, err := trust.SignRotation(now.current, next, id.VKey, next.VKey, from)
	if err != nil {
		return explainSigner(err)
	}
	named := *id
	named.VKeys = append(slices.Clone(id.VKeys), trust.Key{VKey: next.VKey, From: from, Rotation: rotation})
	named.VKey = next.VKey
	after := &signers{current: next, former: &now.current, lifecycle: now.lifecycle}
	if id.LifecycleVKey == id.VKey {
		named.LifecycleVKey, after.lifecycle = next.VKey, &next
	}
	text, err := json.Marshal(named)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(t.opts.fs, filepath.Join(t.dir, "trail.json"), append(text, '\n'), 0o600); err != nil {
		return err
	}
	t.setKeys(&named)
	t.keys.sign.Store(after)
	if dir := t.stateDir(); dir != "" {
		// Who does not get a new pin follows the rotation in trail.json.
		_ = pin.Put(dir, t.path, named.Origin, named.VKey)
	}
	return nil
}

// resumeRotation completes a rotation that a crash cut off, or drops its key: the
// latest checkpoint is signed by the next key too, or it is not.
func (t *Trail) resumeRotation(next *signing.Key, signed []byte, size int64) error {
	now := t.keys.sign.Load()
	id := t.ids()
	v, err := note.NewVerifier(next.VKey)
	if err != nil {
		return err
	}
	if _, err := note.Open(signed, note.VerifierList(v)); err == nil {
		return t.nameKey(&id, now, *next, size)
	}
	return explainSigner(t.keys.at.Keep(id.VKey))
}

// RetireSigningKey ends the overlap that RotateSigningKey began: the former key
// signs no more, and is gone from keys/. Who knows that one alone has to get the new
// one, or trail.json, which links the two. Crash before its end: both sign on, and it
// is called again.
func (t *Trail) RetireSigningKey(ctx context.Context) error {
	if err := t.authorizeAll(ctx, "RetireSigningKey"); err != nil {
		return fmt.Errorf("retire signing key of %s: %w", t.path, err)
	}
	if err := t.retireSigningKey(ctx); err != nil {
		return fmt.Errorf("retire signing key of %s: %w", t.path, explainFull(err))
	}
	return nil
}

func (t *Trail) retireSigningKey(ctx context.Context) error {
	if err := t.holding(ctx); err != nil {
		return err
	}
	now := t.keys.sign.Load()
	if now.former == nil {
		return errors.New("one key signs: there is no former one")
	}
	id := t.ids()
	was := id.VKeys[len(id.VKeys)-2].VKey
	r, err := t.recordOwnReceipt(ctx, ownEntry{eventType: "AUDIT_KEY", action: "key_retired", signed: true,
		outputs: map[string]any{"kind": "signing", "id": was, "was": nil, "reason": "operator"}})
	if err == nil {
		err = explainJournal(t.journal.Flush(ctx))
	}
	if err == nil {
		err = t.signer.sign()
	}
	if err == nil && t.signer.latest.Load().Size <= r.Index {
		err = errors.New("no checkpoint covers the entry")
	}
	if err != nil {
		return err
	}
	t.signer.signing.Lock()
	defer t.signer.signing.Unlock()
	if err := t.keys.at.Keep(id.VKey); err != nil {
		return explainSigner(err)
	}
	t.keys.sign.Store(&signers{current: now.current, lifecycle: now.lifecycle})
	return nil
}

// keyHistory are the keys as lifecycle entries restate them.
func (t *Trail) keyHistory() []trust.Key {
	keys := slices.Clone(t.ids().VKeys)
	for i := range keys {
		keys[i].Rotation, keys[i].Replacement = "", ""
	}
	return keys
}
