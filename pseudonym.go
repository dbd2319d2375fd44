package audit

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/identity"
	"github.com/kaizen-audit/kaizen-audit/internal/query"
	"github.com/kaizen-audit/kaizen-audit/internal/socket"
)

// Pseudonymize gives the pseudonym of a user in this trail, 64 hex digits, which
// belongs into metadata.user_id_hash in the place of metadata.user_id. The first
// time it makes one and keeps the user's id, encrypted, in the trail's identity
// store; it returns once that is on disk. The same user has the same pseudonym
// then, in every process and as long as the identity store has it, and another
// one in every other trail. QueryByUser, Query.User and ExportUserData find the
// user's entries in both forms.
//
// It is a keyed hash (HMAC-SHA-256) with a salt of the user's own, so that nobody
// can compute it from a guessed id who has the lines, and, once the identity
// store has forgotten the user, nobody who has the key either. Pseudonymised data
// stays personal data (GDPR Art. 4(5)): docs/identity.md.
//
// Where another process holds the trail, it makes the pseudonym; the user must
// be the holder's own or root. Errors: ErrRefused for an id that is empty,
// longer than 1024 bytes or not UTF-8, ErrReadOnly, ErrClosed, ErrFull.
func (t *Trail) Pseudonymize(ctx context.Context, user string) (string, error) {
	p, err := t.pseudonymize(ctx, user)
	if err != nil {
		return "", fmt.Errorf("pseudonymize: %w", err)
	}
	return p, nil
}

func (t *Trail) pseudonymize(ctx context.Context, user string) (string, error) {
	if err := t.writable(ctx); err != nil {
		return "", err
	}
	if r := t.remote.Load(); r != nil {
		p, holds, err := r.pseudonym(ctx, user)
		if !holds {
			return p, err
		}
	}
	return t.pseudonym(user)
}

// Reveal turns a pseudonym back: it gives the user whose it is. It needs the identity
// store and its key, a role where access is controlled, and a reason; and it is an
// entry, in which the pseudonym and the reason stand, before the user is given. Where
// that can't be recorded nothing is revealed. Once the user is erased, the pseudonym is
// nobody's any more.
//
// Errors: ErrNotFound for text that is no pseudonym of this trail, and for one whose
// user the identity store does not know any more.
func (t *Trail) Reveal(ctx context.Context, pseudonym, reason string) (string, error) {
	if err := t.authorizeAll(ctx, "Reveal"); err != nil {
		return "", fmt.Errorf("reveal: %w", err)
	}
	user, err := t.reveal(ctx, pseudonym, reason)
	if err != nil {
		return "", fmt.Errorf("reveal: %w", err)
	}
	return user, nil
}

func (t *Trail) reveal(ctx context.Context, pseudonym, reason string) (string, error) {
	switch {
	case strings.TrimSpace(reason) == "":
		return "", optionError("Reason", "it is empty, and turning a pseudonym back must say why")
	case t.opts.Unrecorded:
		return "", optionError("Unrecorded", "turning a pseudonym back is always recorded")
	}
	user, ok, err := t.identities().Reveal(ctx, pseudonym)
	action, found := "pseudonym_revealed", error(nil)
	switch {
	case errors.Is(err, identity.ErrNoPseudonym):
		return "", fmt.Errorf("%w: %w", ErrNotFound, err) // it may be anything: it does not belong into an entry
	case err != nil:
		return "", explainKey(err)
	case !ok:
		action, found = "reveal_refused", fmt.Errorf("%w: nobody has this pseudonym any more: its user is erased", ErrNotFound)
	}
	// inputs.user is whose the entry is: it is sealed, and erased, with the person.
	if err := t.noteReadingAs(ctx, readEntry{"AUDIT_QUERY", action}, map[string]any{"user": pseudonym, "reason": reason}, map[string]any{"revealed": ok}, true); err != nil {
		return "", errors.Join(found, err)
	}
	return user, found
}

// pseudonym is Pseudonymize of the holder.
func (t *Trail) pseudonym(user string) (string, error) {
	p, err := t.identities().Pseudonym(user)
	switch {
	case errors.Is(err, identity.ErrInvalid):
		return "", fmt.Errorf("%w: %w", ErrRefused, &entry.FieldError{Field: "user", Err: err})
	case errors.Is(err, identity.ErrClosed):
		return "", ErrClosed
	}
	return p, explainFull(err)
}

func (r *remote) pseudonym(ctx context.Context, user string) (p string, holds bool, err error) {
	var answer error
	holds, err = r.try(ctx, func(c *socket.Client) error {
		p, answer = c.Pseudonym(ctx, user)
		return again(answer)
	})
	if err == nil && !holds {
		err = explainRemote(answer)
	}
	return p, holds, err
}

// identities is the trail's identity store.
func (t *Trail) identities() *identity.Store {
	t.identitiesOnce.Do(func() { t.identityStore = identity.New(t.opts.fs, t.dir, t.id.Origin, t.wrapper()) })
	return t.identityStore
}

// withPseudonyms is a query that also finds who is asked for under a pseudonym.
// That pseudonyms can't be looked up is told, since the answer is not whole then.
func (t *Trail) withPseudonyms(q Query) Query {
	return query.WithPseudonyms(q, func(id string) string {
		p, _, err := t.identities().Lookup(id)
		if err != nil {
			t.warn(fmt.Errorf("entries under a pseudonym are not found: %w", err))
		}
		return p
	})
}
