package audit

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/advice"
	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/keys"
	"github.com/kaizen-audit/kaizen-audit/internal/seal"
	"github.com/kaizen-audit/kaizen-audit/internal/socket"
)

// EraseOptions say how a person's data is erased.
type EraseOptions struct {
	// Reason is why, in somebody's words; it is required. It stands, sealed, in the
	// trail's entry about the erasure.
	Reason string `json:"reason,omitempty"`
	// DryRun looks at what would be erased and does nothing. That somebody looked is
	// recorded.
	DryRun bool `json:"dry_run,omitempty"`
	// Schedule has the erasure wait for the end of what stands against it: it is
	// recorded, and carried out then (Erasure.Scheduled). Where nothing does, the data
	// is erased at once.
	Schedule bool `json:"schedule,omitempty"`
	// Traces are traces of the person's entries whose text with no declared subject
	// goes too, by id; "*" is all of them.
	Traces []string `json:"traces,omitempty"`
	// Certificate is the path where the certificate is written, 0600. Something that
	// is there already is an error. With it a certificate survives a crash in the
	// middle of the erasure; without it that one is lost, and nothing else.
	Certificate string `json:"certificate,omitempty"`
	// BackupDays is after how many days the last backup of keys/ is gone that was made
	// otherwise than by Trail.BackupKeys, which the trail knows of; 0 says that there
	// is none.
	BackupDays int `json:"backup_days,omitempty"`
}

// Erasure is what an erasure covers. Its JSON shape only grows.
type Erasure struct {
	// Done tells an erasure from a dry run.
	Done bool `json:"done"`
	// Subjects are the keys that are destroyed.
	Subjects []ErasedSubject `json:"subjects"`
	// Entries have at least one field that becomes unreadable, Fields is how many
	// fields, Ranges where they lie.
	Entries int64   `json:"entries"`
	Fields  int64   `json:"fields"`
	Ranges  []Range `json:"ranges"`
	// Others are subjects who share fields with the person: these fields go for them
	// too.
	Others []ErasedSubject `json:"others"`
	// Traces are those of the person's entries that have text of no declared subject.
	Traces []ErasedTrace `json:"traces"`
	// Kept are entries that name the person in clear and stay as they are: accesses to
	// other people's records in which the person was the actor, and what the policy
	// keeps in clear.
	Kept KeptEntries `json:"kept"`
	// Blocked is why nothing may be erased now; empty where something may.
	Blocked []Blocked `json:"blocked"`
	// Unreadable are the handles of keys whose records are damaged: whose they are can't
	// be told. Nobody reads what is sealed under them, unless a backup of keys/ from
	// before the damage is put back; that one must not be, or be followed by this
	// erasure again.
	Unreadable []string `json:"unreadable,omitempty"`
	// Scheduled is the erasure that waits, where it was asked for or is there already.
	Scheduled *ScheduledErasure `json:"scheduled,omitempty"`
	// Index and EventID are of the trail's entry about it.
	Index   *int64 `json:"index,omitempty"`
	EventID string `json:"event_id,omitempty"`
	// Certificate is for the person (docs/erasure.md): one line of JSON.
	Certificate json.RawMessage `json:"certificate,omitempty"`
}

// Range are Count entries from index First on.
type Range struct {
	First int64 `json:"first"`
	Count int64 `json:"count"`
}

// ErasedSubject is a data subject by its handle. Kind is person, resource or trace.
type ErasedSubject struct {
	Handle string `json:"handle"`
	Kind   string `json:"kind,omitempty"`
	ID     string `json:"id,omitempty"`
	Fields int64  `json:"fields"`
}

// ErasedTrace is a trace with text of no declared subject.
type ErasedTrace struct {
	ID     string `json:"id"`
	Fields int64  `json:"fields"`
	Erased bool   `json:"erased"` // it was asked for
}

// KeptEntries are entries that an erasure leaves as they are.
type KeptEntries struct {
	Entries int64   `json:"entries"`
	Ranges  []Range `json:"ranges"`
}

// Blocked is what keeps a person's data from being erased.
type Blocked struct {
	// Kind is hold (a legal hold), or duty (one that the policy declares).
	Kind string `json:"kind"`
	// Name is the hold's id, or the duty's basis.
	Name string `json:"name"`
	// Entries is how many it keeps.
	Entries int64 `json:"entries"`
	// Until is when it ends; nil where nobody knows.
	Until *time.Time `json:"until"`
}

// erasing is the work of erasing.
type erasing struct {
	one    sync.Mutex   // one erasure at a time
	events sync.RWMutex // shared while a sealed event is not appended yet
	own    sync.RWMutex // the same of the trail's own entries
}

// EraseUser makes a person's sealed data unreadable, for good: the keys of the
// person's fields are destroyed, the record of the person's pseudonym is removed, and
// the trail says so in an entry, which a checkpoint covers before anything is
// destroyed. user is what user_id, a pseudonym's owner or a resource's identifier is
// called; TYPE/ID names a resource of one type. Entries stay, and Verify passes as
// before. What remains is in docs/erasure.md. A crash leaves an erasure that has not
// begun, or one that the next opening completes.
//
// Where another process holds the trail, it erases; the user must be the holder's own
// or root. Errors: ErrHeld where a duty or a hold stands against it (the Erasure says
// which) and EraseOptions.Schedule does not have it wait, ErrNotFound where the trail knows nobody of that name, ErrNotSealed where it
// seals nothing.
func (t *Trail) EraseUser(ctx context.Context, user string, opts *EraseOptions) (*Erasure, error) {
	if err := t.authorizeAll(ctx, "EraseUser"); err != nil {
		return nil, fmt.Errorf("erase user: %w", err)
	}
	var o EraseOptions
	if opts != nil {
		o = *opts
	}
	e, err := t.eraseUser(ctx, user, o)
	if err != nil {
		return e, fmt.Errorf("erase-user: %w", err)
	}
	return e, nil
}

func (t *Trail) eraseUser(ctx context.Context, user string, o EraseOptions) (*Erasure, error) {
	switch {
	case user == "":
		return nil, errors.New("the user is empty")
	case strings.TrimSpace(o.Reason) == "" && !o.DryRun:
		return nil, optionError("Reason", "it is required")
	case o.BackupDays < 0:
		return nil, optionError("BackupDays", "%d is less than 0", o.BackupDays)
	}
	if err := t.writable(ctx); err != nil {
		return nil, err
	}
	if o.Certificate != "" {
		var err error
		if o.Certificate, err = filepath.Abs(o.Certificate); err != nil {
			return nil, err
		}
	}
	return byHolder(ctx, t, socket.Erasures, erasureAsked{user, o}, func() (*Erasure, error) { return t.eraseHeld(ctx, user, o) })
}

// erasureAsked is what the socket's call takes.
type erasureAsked struct {
	User    string       `json:"user"`
	Options EraseOptions `json:"options"`
}

// eraseHeld is EraseUser of the holder. The steps are those of
// docs/format-sealing.md §6.7.
func (t *Trail) eraseHeld(ctx context.Context, user string, o EraseOptions) (*Erasure, error) {
	enc := t.enc.Load()
	if enc == nil {
		return nil, advice.For(fmt.Errorf("%w: profile %s keeps what it records in clear", ErrNotSealed, t.id.Profile),
			"profiles gdpr and hipaa and --encrypt seal, and are chosen when a trail is made")
	}
	if err := t.unsealable(); err != nil {
		return nil, err
	}
	t.erasing.one.Lock()
	defer t.erasing.one.Unlock()
	if err := t.finishInterrupted(ctx); err != nil {
		return nil, err
	}
	who, err := t.namesOf(user)
	if err != nil {
		return nil, err
	}
	plan, err := t.planErasure(ctx, who, o.Traces, false)
	if err != nil {
		return nil, err
	}
	if plan.out.Scheduled, err = t.scheduledFor(ctx, plan); err != nil {
		return nil, err
	}
	switch {
	case len(plan.targets) == 0 && plan.out.Kept.Entries == 0:
		err := fmt.Errorf("%w: no entry is about this user", ErrNotFound)
		if len(plan.out.Unreadable) > 0 {
			err = fmt.Errorf("%w, as far as keys can be read: %w", err, &keys.Unreadable{Handles: plan.out.Unreadable})
		}
		return nil, errors.Join(err, t.noteErase(ctx, "erase_refused", user))
	case o.DryRun:
		return &plan.out, t.noteErase(ctx, "erase_dry_run", user)
	case len(plan.targets) == 0:
		return &plan.out, fmt.Errorf("%w: this user's data is erased, or was never sealed; what is left is kept", ErrNotFound)
	case len(plan.out.Blocked) > 0 && o.Schedule:
		if plan.out.Scheduled, err = t.schedule(ctx, plan, user, o); err != nil {
			return nil, err
		}
		return &plan.out, nil
	case len(plan.out.Blocked) > 0:
		refusal := advice.For(plan.refusal(), "--schedule (EraseOptions.Schedule) has it wait for the end of that")
		return &plan.out, errors.Join(refusal, t.noteErase(ctx, "erase_refused", user))
	}
	if err := t.mayErase(o); err != nil {
		return nil, err
	}
	return t.destroySubjects(ctx, plan, user, o, "")
}

// mayErase tells, before anything begins, what an erasure would fail for.
func (t *Trail) mayErase(o EraseOptions) error {
	if t.keys.sign.Load().lifecycle == nil {
		return errNoLifecycleKey
	}
	return t.mayPutCertificate(o.Certificate)
}

// destroySubjects destroys the keys of a plan; erasing.one is held. scheduled is the
// id that the erasure waited under, "" for one that did not.
func (t *Trail) destroySubjects(ctx context.Context, plan *erasurePlan, user string, o EraseOptions, scheduled string) (*Erasure, error) {
	enc, who := t.enc.Load(), plan.who
	salt := make([]byte, seal.CommitmentSalt)
	_, _ = rand.Read(salt) // never fails
	begun := keys.Erasing{
		EventID: entry.NewEventID(t.clock.now()), Size: t.signer.latest.Load().Size, Handles: slices.Collect(maps.Keys(plan.targets)),
		Identities: who.files, Salt: base64.RawURLEncoding.EncodeToString(salt), Certificate: o.Certificate,
	}
	// Step 1. From here on nothing more is sealed under these keys. Who is between
	// sealing and appending is waited for.
	// Who records an event may wait for the signer, which records entries of the
	// trail's own: their lock comes second.
	t.erasing.events.Lock()
	t.erasing.own.Lock()
	begun, err := enc.store.Begin(begun, who.is)
	t.erasing.own.Unlock()
	t.erasing.events.Unlock()
	if err != nil {
		return nil, err
	}
	if err := t.recordErasure(ctx, plan, begun, salt, user, o, scheduled); err != nil {
		// Whether it is in the trail is for finishPending to see, here the next time
		// or at the next opening.
		return &plan.out, err
	}
	// Crash from here on: the entry is covered, and the next opening goes on.
	certificate, err := t.completeErasure(ctx, begun, *plan.out.Index, true)
	if err != nil {
		return &plan.out, fmt.Errorf("it is recorded, and the next opening completes it: %w", err)
	}
	plan.out.Done, plan.out.Certificate, plan.out.Scheduled = true, certificate, nil
	return &plan.out, nil
}

// recordErasure looks once more, now that nothing is added, and does step 2: the
// entry, and a checkpoint over it.
func (t *Trail) recordErasure(ctx context.Context, plan *erasurePlan, begun keys.Erasing, salt []byte, user string, o EraseOptions, scheduled string) error {
	enc := t.enc.Load()
	if err := t.journal.Flush(ctx); err != nil {
		return errors.Join(explainJournal(err), enc.store.End())
	}
	for _, h := range begun.Handles {
		plan.target(h, enc.store)
	}
	err := plan.look(ctx, t)
	if err == nil && len(plan.out.Blocked) > 0 {
		err = plan.refusal()
	}
	if err != nil {
		return errors.Join(err, enc.store.End())
	}
	var fingerprints []string
	for _, h := range begun.Handles {
		key, err := enc.store.Key(h)
		if err != nil {
			return errors.Join(explainKey(err), enc.store.End())
		}
		fingerprints = append(fingerprints, seal.Fingerprint(key))
	}
	reason, err := t.sealReason(begun.EventID, o.Reason)
	var complete any
	if err == nil {
		complete, err = t.completeAfter(o.BackupDays)
	}
	if err != nil {
		return errors.Join(err, enc.store.End())
	}
	if err := t.signer.sign(); err != nil {
		return errors.Join(err, enc.store.End())
	}
	before := t.signer.latest.Load()
	outputs := map[string]any{
		"handles": begun.Handles, "keys": fingerprints, "entries": plan.out.Entries, "fields": plan.out.Fields, "ranges": plan.out.Ranges,
		"epoch": map[string]any{"from": begun.Epoch, "to": begun.Epoch + 1}, "commitment": seal.Commitment(salt, user),
		"complete_after": complete, "size": before.Size, "root": hex.EncodeToString(before.Root[:]), "reason": reason, "kept": plan.out.Kept,
	}
	if scheduled != "" {
		outputs["schedule"] = scheduled
	}
	// It ends what was scheduled for these subjects; and no hold comes in between.
	t.life.mu.Lock()
	defer t.life.mu.Unlock()
	state, err := t.lifeLocked(ctx)
	if err == nil && !plan.knows(state.Holds) {
		err = fmt.Errorf("%w: a hold was added while the erasure began, and may cover it: ask again", ErrHeld)
	}
	if err != nil {
		return errors.Join(err, enc.store.End())
	}
	r, err := t.recordLife(ctx, ownEntry{
		eventType: "AUDIT_ERASURE", action: "subject_erased", id: begun.EventID, outputs: outputs, policy: `{"sealed":["/outputs/reason"]}`,
	})
	plan.out.Index, plan.out.EventID = &r.Index, begun.EventID
	return err
}

// completeAfter is when the last backup of keys/ is gone, as lifecycle entries say it:
// those that the trail has made, and others that are kept for so many days.
func (t *Trail) completeAfter(days int) (any, error) {
	now := t.clock.now()
	until, err := keys.BackedUpUntil(t.opts.fs, filepath.Join(t.dir, "keys"))
	if others := now.AddDate(0, 0, days); days > 0 && others.After(until) {
		until = others
	}
	if err != nil || !until.After(now) {
		return nil, explainKey(err)
	}
	return formatTime(until), nil
}

// ownMetadata names who asked for one of the trail's own entries.
func ownMetadata(ctx context.Context) map[string]any {
	if by, ok := peerOf(ctx); ok {
		return map[string]any{"principal": by.Principal()}
	}
	return nil
}

// sealReason seals a person's words for the trail's own trace.
func (t *Trail) sealReason(eventID, reason string) (string, error) {
	store := t.enc.Load().store
	own, err := store.Subject(keys.Trace, t.id.Origin)
	if err == nil {
		err = store.Sync()
	}
	if err != nil {
		return "", err
	}
	text, ok := entry.AppendString(nil, reason)
	if !ok {
		return "", optionError("Reason", "it is no valid UTF-8")
	}
	return seal.SealField(seal.Place{Origin: t.id.Origin, EventID: eventID, Pointer: "/outputs/reason"}, []seal.Subject{own}, text)
}

// completeErasure destroys the keys of an erasure whose entry at index is covered
// (steps 3 to 6). It may be called again after a crash or an error. The certificate
// is made where somebody gets it: who called, or who named a file.
func (t *Trail) completeErasure(ctx context.Context, e keys.Erasing, index int64, asked bool) (certificate json.RawMessage, err error) {
	store := t.enc.Load().store
	if err := store.Destroy(ctx); err != nil {
		return nil, err
	}
	for _, name := range e.Identities {
		if err := t.identities().Forget(name); err != nil {
			return nil, err
		}
	}
	t.lookAnew()
	if asked || e.Certificate != "" {
		if certificate, err = t.makeCertificate(ctx, e, index); err != nil {
			return nil, fmt.Errorf("%w: %w", errCertificate, err)
		}
	}
	if e.Certificate != "" {
		if err := durable.WriteFile(t.opts.fs, e.Certificate, append(slices.Clone(certificate), '\n'), 0o600); err != nil {
			return nil, fmt.Errorf("%w: %w", errCertificate, err)
		}
	}
	return certificate, store.End()
}

// errCertificate: the keys are gone, and the certificate is still to be made.
var errCertificate = errors.New("certificate of an erasure")

// finishPending completes the erasure that an earlier opening began, if its entry is
// in the trail, and else forgets that it began. An opening calls it before it does
// anything else: what is covered now was covered when the writer died.
func (t *Trail) finishPending(ctx context.Context) error {
	enc := t.enc.Load()
	if enc == nil {
		return nil
	}
	e, some, err := enc.store.Pending()
	if err != nil || !some {
		return err
	}
	index, recorded, err := t.erasureOf(ctx, e.EventID, t.signer.latest.Load().Size)
	switch {
	case err != nil:
		return err
	case !recorded:
		return enc.store.End()
	}
	_, err = t.completeErasure(ctx, e, index, false)
	return err
}

// finishInterrupted is finishPending of what an error has interrupted here. Whether
// its entry is in the trail is known once all of it is covered.
func (t *Trail) finishInterrupted(ctx context.Context) error {
	_, some, err := t.enc.Load().store.Pending()
	if err != nil || !some {
		return err
	}
	if err := errors.Join(explainJournal(t.journal.Flush(ctx)), t.signer.sign()); err != nil {
		return err
	}
	return t.finishPending(ctx)
}

// scheduledFor is the erasure that waits for the subjects of a plan, nil for none.
func (t *Trail) scheduledFor(ctx context.Context, plan *erasurePlan) (*ScheduledErasure, error) {
	state, err := t.lifeNow(ctx)
	if err != nil {
		return nil, err
	}
	for _, s := range state.Scheduled {
		if _, ok := plan.targets[s.Subject]; ok {
			out := t.scheduled(s, state.Holds)
			return &out, nil
		}
	}
	return nil, nil
}

// noteErase records that somebody looked at what an erasure would cover.
func (t *Trail) noteErase(ctx context.Context, action, user string) error {
	return t.noteRead(ctx, readEntry{"AUDIT_QUERY", action}, map[string]any{"user": user})
}

// mayPutCertificate tells early whether the certificate can be written.
func (t *Trail) mayPutCertificate(path string) error {
	if path == "" {
		return nil
	}
	if _, err := t.opts.fs.Stat(path); err == nil {
		return optionError("Certificate", "%s is there already", path)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return optionError("Certificate", "%w", err)
	}
	f, err := t.opts.fs.OpenFile(path+".tmp", os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return optionError("Certificate", "%w", err)
	}
	return errors.Join(f.Close(), t.opts.fs.Remove(path+".tmp"))
}
