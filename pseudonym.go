package audit

import (
	"context"
	"errors"
	"fmt"

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
