package audit

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/advice"
	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/identity"
	"github.com/kaizen-audit/kaizen-audit/internal/sealed"
	"github.com/kaizen-audit/kaizen-audit/policy"
)

// detectors are what the trail's own entries about readings pass.
var detectors = policy.Default()

// policyFile is X.trail/policy: the policy that was last set.
type policyFile struct {
	Format int           `json:"format"`
	Digest string        `json:"digest"`
	Config policy.Config `json:"config"`
}

// storedPolicy reads the policy that was last set for a trail, nil if none was.
func storedPolicy(fsys durable.FS, dir string) (*policy.Policy, error) {
	data, err := durable.ReadFile(fsys, filepath.Join(dir, "policy"), maxSmallFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var f policyFile
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, errors.New("policy: not the JSON that is expected")
	}
	if f.Format != formatVersion {
		return nil, fmt.Errorf("policy: format %d, this program knows %d", f.Format, formatVersion)
	}
	p, err := policy.New(f.Config)
	if err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	if p.Digest() != f.Digest {
		return nil, errors.New("policy: it has members that this program does not know, or was changed")
	}
	return p, nil
}

// defaultPolicy is that of a trail for which none was set: the profile's.
func defaultPolicy(profile string) *policy.Policy {
	p, err := policy.Default().WithProfile(profile)
	if err != nil { // trail.json has a profile that this program does not know
		return policy.Default()
	}
	return p
}

// choosePolicy finds the policy in force; was is the one that was in force before,
// nil where that can't be read.
func (t *Trail) choosePolicy() (given, was *policy.Policy, err error) {
	was, err = storedPolicy(t.opts.fs, t.dir)
	if given = t.opts.Policy; err != nil && given == nil {
		return nil, nil, advice.For(err, "give the policy that is meant: Options.Policy, or section policy of the configuration file")
	}
	if err == nil && was == nil {
		was = defaultPolicy(t.id.Profile)
	}
	if given == nil {
		given = was
	}
	given, err = t.fitPolicy(given)
	return given, was, err
}

// fitPolicy is a policy with the rules of the trail's profile, if it can be that of
// this trail.
func (t *Trail) fitPolicy(p *policy.Policy) (*policy.Policy, error) {
	p, err := p.WithProfile(t.id.Profile)
	if err == nil && p.Seals() && !t.mustSeal() {
		err = errors.New("a rule of it seals, and the trail does not: that is chosen when one is made, by profile gdpr or hipaa, or Encrypt")
	}
	if err != nil {
		return nil, optionError("Policy", "%w", err)
	}
	return p, nil
}

// errTokens: a writer that can't read its keys again has others each time, and nobody
// would find a person by what stood for the name last time.
var errTokens = optionError("Policy", "a rule of it hashes or pseudonymises, and the key at hand seals only: mask, drop or seal instead")

// loadPolicy puts the policy in force that was chosen, and records one that is new.
func (t *Trail) loadPolicy(ctx context.Context) error {
	given, was, err := t.choosePolicy()
	if err != nil {
		return err
	}
	if t.unsealable() != nil && given.NeedsTokens() {
		return errTokens
	}
	t.rules.Store(given)
	if was != nil && given.Digest() == was.Digest() {
		return nil
	}
	outputs := map[string]any{"digest": given.Digest(), "policy": given.Config()}
	if was != nil {
		outputs["was"] = was.Digest()
	}
	err = t.recordOwn(ctx, ownEntry{eventType: "AUDIT_POLICY", action: "redaction_set", signed: true, outputs: outputs})
	if err == nil {
		err = t.journal.Flush(ctx)
	}
	if err != nil {
		return explainFull(explainJournal(err))
	}
	// A crash before this line: the next opening records it again.
	data, err := json.Marshal(policyFile{formatVersion, given.Digest(), given.Config()})
	if err != nil {
		return err
	}
	return explainFull(durable.WriteFile(t.opts.fs, filepath.Join(t.dir, "policy"), append(data, '\n'), 0o600))
}

// policy is the policy in force. Who does not hold the trail takes its own for
// what waits in files; the holder's comes on top.
func (t *Trail) policy() *policy.Policy {
	if p := t.rules.Load(); p != nil {
		return p
	}
	p := policyFor(&t.opts, t.opts.fs, t.dir)
	t.rules.Store(p)
	return p
}

// StoredPolicy is the policy that was last set for the trail at path, else
// policy.Default(): what Options.Policy nil means there.
func StoredPolicy(path string) (*policy.Policy, error) {
	_, dir, err := paths(path)
	if err != nil {
		return nil, err
	}
	p, err := storedPolicy(durable.OS, dir)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	if p == nil {
		p = defaultPolicy(profileHere(durable.OS, dir))
	}
	return p, nil
}

// profileHere is the profile of the trail in a directory, "" where there is none or
// it can't be read.
func profileHere(fsys durable.FS, dir string) string {
	data, err := durable.ReadFile(fsys, filepath.Join(dir, "trail.json"), maxSmallFile)
	if err != nil {
		return ""
	}
	id, _, err := parseIdentity(data)
	if err != nil {
		return ""
	}
	return id.Profile
}

func (c *capture) policy() *policy.Policy { return policyFor(&c.opts, durable.OS, c.dir) }

// policyFor is the policy of a process that may not be able to read the trail's.
func policyFor(o *Options, fsys durable.FS, dir string) *policy.Policy {
	profile := profileHere(fsys, dir)
	p := o.Policy
	if p == nil {
		p, _ = storedPolicy(fsys, dir)
	}
	if p != nil {
		if with, err := p.WithProfile(profile); err == nil {
			return with
		}
		return p
	}
	return defaultPolicy(profile)
}

// Policy is the policy that the trail is recorded with: Options.Policy, else the
// one that was last set.
func (t *Trail) Policy() *policy.Policy { return t.policy() }

// AppendPending appends an event as JSON text, as the policy leaves it and sealed
// where the trail seals, for whoever has to keep it in a file before it is
// recorded; ParsePending reads text and notes again. What the policy refuses is left
// out. It is ErrNoKey where the trail seals and there is no key.
func (t *Trail) AppendPending(dst []byte, ev *Event) (text, notes []byte, err error) {
	text, notes, err = t.policy().AppendEvent(dst, ev, t.run(true))
	if err != nil || !t.seals() {
		return text, notes, err
	}
	if enc := t.enc.Load(); enc != nil && enc.store != nil {
		return sealPending(text[len(dst):], notes, t.id.Origin, enc.store)
	}
	return dst, nil, ErrNoKey
}

// ParsePending reads what AppendPending gave. Besides what is wrong with the text
// the error is ErrNoKey or ErrSealed.
func (t *Trail) ParsePending(text, notes []byte) (Event, error) {
	text, notes, err := openPending(text, notes, t.opened)
	if err != nil {
		return Event{}, err
	}
	return parsePending(text, notes)
}

// AppendPending is Trail.AppendPending for who does not open the trail at path.
func AppendPending(dst []byte, path string, opts *Options, ev *Event) (text, notes []byte, err error) {
	c, err := newCapture(path, opts)
	if err != nil {
		return dst, nil, err
	}
	return c.appendPending(dst, ev)
}

// ParsePending is Trail.ParsePending for who does not open the trail at path.
func ParsePending(path string, opts *Options, text, notes []byte) (Event, error) {
	c, err := newCapture(path, opts)
	if err != nil {
		return Event{}, err
	}
	text, notes, err = openPending(text, notes, func(stored []byte) ([]byte, error) {
		origin, store, err := c.keys()
		if err != nil {
			return nil, err
		}
		defer store.Close()
		v, err := sealed.NewOpener(origin, store, c.opts.MaxLine+maxSealedList, nil).Open(stored)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrSealed, err)
		}
		return v.Line, nil
	})
	if err != nil {
		return Event{}, err
	}
	return parsePending(text, notes)
}

func parsePending(text, notes []byte) (Event, error) {
	ev, err := entry.ParseEvent(text)
	if err == nil {
		ev.NotePolicy(notes)
	}
	return ev, err
}

func (c *capture) appendPending(dst []byte, ev *Event) (text, notes []byte, err error) {
	p, run := c.policy(), policy.Run{KeepFact: true}
	seals, err := sealsHere(c.opts.fs, c.dir)
	if err != nil {
		return dst, nil, err
	}
	run.Sealing = seals
	if !seals {
		if p.NeedsTokens() {
			run.Tokens = tokensOf(c.opts.fs, c.dir)
		}
		return p.AppendEvent(dst, ev, run)
	}
	origin, store, err := c.keys()
	if err != nil {
		return dst, nil, err
	}
	defer store.Close()
	if p.NeedsTokens() {
		mac, err := store.MAC(context.Background())
		if err != nil {
			return dst, nil, explainKey(err)
		}
		run.Tokens = tokensUnder(mac, c.opts.fs, c.dir, store)
	}
	if text, notes, err = p.AppendEvent(nil, ev, run); err != nil {
		return dst, nil, err
	}
	return sealPending(text, notes, origin, store)
}

// run is how the policy is applied to what waits in a file: here by the trail's
// holder or by who hands it over.
func (t *Trail) run(keep bool) policy.Run {
	if t.holds() {
		return t.runHeld(keep)
	}
	r := policy.Run{KeepFact: keep, Sealing: t.seals()}
	switch {
	case !t.policy().NeedsTokens():
	case t.seals():
		if enc := t.enc.Load(); enc != nil && enc.store != nil {
			if mac, err := enc.store.MAC(context.Background()); err == nil {
				r.Tokens = tokensUnder(mac, t.opts.fs, t.dir, enc.store)
			}
		}
	default:
		r.Tokens = tokensOf(t.opts.fs, t.dir)
	}
	return r
}

// runHeld is how the policy is applied to what the trail's holder records.
func (t *Trail) runHeld(keep bool) policy.Run {
	r := policy.Run{KeepFact: keep, Sealing: t.enc.Load() != nil}
	if t.policy().NeedsTokens() {
		r.Tokens = &tokens{key: t.keys.tokens, identities: t.identities(), holder: true}
	}
	return r
}

// leftKeys are the events with what the policy leaves of their idempotency keys.
func (t *Trail) leftKeys(events []Event) []Event {
	out := events
	for i := range events {
		key := events[i].IdempotencyKey
		if left := t.policy().Key(key); left != key {
			if &out[0] == &events[0] {
				out = append([]Event(nil), events...)
			}
			out[i].IdempotencyKey = left
		}
	}
	return out
}

// tokens makes what stands for values: keyed hashes under a key that is derived
// from keys/mac.key (docs/format.md §1.2), and pseudonyms.
type tokens struct {
	key        tokenKey
	identities *identity.Store // nil where they can't be looked up
	holder     bool            // this process may make pseudonyms
}

type tokenKey [sha256.Size]byte

func tokensOf(fsys durable.FS, dir string) policy.Tokens {
	key, err := durable.ReadFile(fsys, filepath.Join(dir, "keys", "mac.key"), macKeyBytes)
	if err != nil || len(key) != macKeyBytes {
		return nil
	}
	return tokensUnder(key, fsys, dir, nil)
}

func tokensUnder(mac []byte, fsys durable.FS, dir string, wrap identity.Wrapper) policy.Tokens {
	t := &tokens{key: newTokenKey(mac)}
	if data, err := durable.ReadFile(fsys, filepath.Join(dir, "trail.json"), maxSmallFile); err == nil {
		if id, _, err := parseIdentity(data); err == nil {
			t.identities = identity.New(fsys, dir, id.Origin, wrap)
		}
	}
	return t
}

func newTokenKey(key []byte) (t tokenKey) {
	m := hmac.New(sha256.New, key)
	m.Write([]byte("kaizen-audit tokens 1"))
	m.Sum(t[:0])
	return t
}

// tokenKey is the key of this trail's keyed hashes, for who may read it.
func (t *Trail) tokenKey() (tokenKey, error) {
	if t.holds() {
		return t.keys.tokens, nil
	}
	if enc := t.enc.Load(); t.seals() && enc != nil && enc.store != nil {
		mac, err := enc.store.MAC(context.Background())
		return newTokenKey(mac), err
	}
	mac, err := durable.ReadFile(t.opts.fs, filepath.Join(t.dir, "keys", "mac.key"), macKeyBytes)
	return newTokenKey(mac), err
}

const tokenPrefix = "hmac:"

// Token is a pseudonym, if what it stands for is to be remembered; only the
// trail's holder makes one that is not there yet. Else it is "hmac:" and the
// base64url of 24 bytes: 16 of HMAC-SHA-256 over a zero byte and the value, 8 of
// HMAC-SHA-256 over a byte 1 and those.
func (t *tokens) Token(value string, remember bool) (string, error) {
	switch {
	case remember && t.holder:
		return t.identities.Pseudonym(value)
	case remember && t.identities == nil:
		return "", errNoPseudonym
	case remember:
		p, ok, err := t.identities.Lookup(value)
		if err == nil && !ok {
			err = errNoPseudonym
		}
		return p, err
	}
	b := t.sum(make([]byte, 0, 64), 0, value)[:16]
	b = t.sum(b, 1, string(b))[:24]
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(b), nil
}

// errNoPseudonym: the policy masks then.
var errNoPseudonym = errors.New("only the trail's holder makes pseudonyms")

func (t *tokens) sum(dst []byte, kind byte, value string) []byte {
	m := hmac.New(sha256.New, t.key[:])
	m.Write(append([]byte{kind}, value...))
	return m.Sum(dst)
}

// IsToken tells whether Token made it: nobody without the key can.
func (t *tokens) IsToken(text string) bool {
	rest, ok := strings.CutPrefix(text, tokenPrefix)
	if !ok || len(rest) != 32 {
		return t.identities != nil && t.identities.Is(text)
	}
	b, err := base64.RawURLEncoding.DecodeString(rest)
	return err == nil && hmac.Equal(b[16:], t.sum(nil, 1, string(b[:16]))[:8])
}
