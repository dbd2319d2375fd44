package audit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/kaizen-audit/kaizen-audit/internal/export"
	"github.com/kaizen-audit/kaizen-audit/internal/query"
)

// UserExport says what an export of a person's data has.
type UserExport = export.Manifest

// errNoID: an empty id must not mean everybody.
var errNoID = errors.New("the id is empty")

// ExportUser writes all entries in which a person is the actor or a data subject, as
// a zip: JSON, CSV, a page to read, the proofs, and a script with which the receiver
// checks all of it without this program (docs/subject-access.md; GDPR Art. 15 and
// 20). The person is named by the id or the pseudonym of metadata.user_id, of the
// resource of an access, or of what policy.subjects points to.
//
// Sealed fields of the person are disclosed with their keys; those of others stay
// sealed. What is another person's and stands in clear is masked, and the entry then
// has neither digest nor proof. What the latest checkpoint does not cover is left
// out, after a wait of at most two seconds for it.
//
// It is one reading, recorded as AUDIT_EXPORT before anything is written. Of a trail
// that lacks entries or has broken lines it writes what is there, names the rest in
// UserExport.Incomplete, and gives the error too. Errors: ErrNoKey where the trail
// seals and its key is not at hand.
func (t *Trail) ExportUser(ctx context.Context, user string, w io.Writer) (UserExport, error) {
	if err := t.authorizeAll(ctx, "ExportUser"); err != nil {
		return UserExport{}, fmt.Errorf("export user: %w", err)
	}
	fail := func(err error) (UserExport, error) { return UserExport{}, fmt.Errorf("export user: %w", err) }
	p, q, err := t.person(user)
	if err != nil {
		return fail(err)
	}
	size, err := t.size(ctx)
	if err != nil {
		return fail(err)
	}
	if err := t.noteRead(ctx, readEntry{"AUDIT_EXPORT", "export_user"}, asked(p)); err != nil {
		return fail(err)
	}
	if err := t.awaitCovered(ctx, size); err != nil {
		return fail(err)
	}
	c, store, err := t.latest()
	if err != nil {
		return fail(explainProof(err))
	}
	a := export.NewArchive(p, c, t.VKey(), t.clock.now())
	if t.opts.Unrecorded {
		a.SetUnrecorded()
	}
	prove := func(index int64) ([]byte, error) {
		proof, err := store.Inclusion(c, index)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		return proof, nil
	}
	var errs []error
	for item, err := range t.itemsOf(ctx, p, q) {
		switch {
		case goesOn(err):
			errs = append(errs, err)
			a.AddIncomplete(err.Error())
		case err != nil:
			return fail(err)
		case item.Index < c.Size:
			if err := a.Add(item, prove); err != nil {
				return fail(fmt.Errorf("entry %d: %w", item.Index, err))
			}
		}
	}
	m, err := a.Write(w)
	if err = errors.Join(append(errs, err)...); err != nil {
		return m, fmt.Errorf("export user: %w", err)
	}
	return m, nil
}

// person is who is meant by an id or a pseudonym, and the query for what there is.
func (t *Trail) person(user string) (export.Person, Query, error) {
	if user == "" {
		return export.Person{}, Query{}, errNoID
	}
	if enc := t.enc.Load(); enc != nil && enc.seals && enc.locked != nil {
		return export.Person{}, Query{}, enc.locked // the person's entries could not be told from others
	}
	n, err := t.namesOf(user)
	if err != nil {
		return export.Person{}, Query{}, fmt.Errorf("look up the pseudonym: %w", err)
	}
	p := export.Person{ID: user, Names: n.all, Resources: n.full}
	if p.Pseudonym, _, err = t.identities().Lookup(user); err != nil {
		return p, Query{}, fmt.Errorf("look up the pseudonym: %w", err)
	}
	names := slices.Collect(maps.Keys(n.all))
	for name := range n.full {
		if _, id, typed := strings.Cut(name, "/"); typed {
			names = append(names, id)
		}
	}
	return p, query.OfPerson(names...), nil
}

// asked is what the entry about an export says of whom: who has a pseudonym is named
// by it.
func asked(p export.Person) map[string]any {
	return map[string]any{"user": cmp.Or(p.Pseudonym, p.ID)}
}

// itemsOf gives what a person gets of a trail; errors are those of a query.
func (t *Trail) itemsOf(ctx context.Context, p export.Person, q Query) func(yield func(export.Item, error) bool) {
	return func(yield func(export.Item, error) bool) {
		for e, err := range t.scan(ctx, q) {
			if err != nil {
				if !yield(export.Item{Index: e.Index}, err) {
					return
				}
				continue
			}
			s, err := t.source(e)
			item, ok := export.Item{Index: e.Index}, true
			if err == nil {
				item, ok = p.For(t.id.Origin, s, t.opts.MaxLine+maxSealedList)
			}
			if (ok || err != nil) && !yield(item, err) {
				return
			}
		}
	}
}

// source is an entry with what opens its fields. A line that nothing was opened in
// is its own view: adopted lines, which only look sealed, among them.
func (t *Trail) source(e Entry) (export.Source, error) {
	s := export.Source{Entry: e}
	enc := t.enc.Load()
	if enc == nil || enc.store == nil || &e.View()[0] == &e.Line()[0] {
		return s, nil
	}
	var err error
	if s.Parts, err = enc.opener.Parts(e.Line()); err != nil {
		return s, fmt.Errorf("entry %d: %w: %w", e.Index, ErrSealed, err)
	}
	s.Owner = enc.store.Who
	return s, nil
}

// awaitCovered waits until a checkpoint covers size entries: the holder signs one, a
// reader waits for the holder's, which comes within a second. What is not covered
// after two is left out by the caller.
func (t *Trail) awaitCovered(ctx context.Context, size int64) error {
	if t.holds() {
		return t.signer.sign()
	}
	for end := time.Now().Add(2 * time.Second); ; {
		if covered, err := t.covered(); err == nil && covered >= size || time.Now().After(end) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// ExportUserData gives the entries of a person, those of Trail.ExportUser, as JSON:
// an array of the entries as they were recorded, oldest first, other people's data
// left out. It is recorded as AUDIT_EXPORT. Of a trail that lacks entries (GapError)
// or has broken lines it gives what is there, and the error.
func (m *AuditTrailManager) ExportUserData(ctx context.Context, userID string) (string, error) {
	fail := func(err error) (string, error) { return "", fmt.Errorf("export user data: %w", err) }
	if err := m.authorizeAll(ctx, "ExportUserData"); err != nil {
		return fail(err)
	}
	p, q, err := m.person(userID)
	if err != nil {
		return fail(err)
	}
	if err := m.noteRead(ctx, readEntry{"AUDIT_EXPORT", "export_user_data"}, asked(p)); err != nil {
		return fail(err)
	}
	var b strings.Builder
	b.WriteByte('[')
	n := 0
	var errs []error
	for item, err := range m.itemsOf(ctx, p, q) {
		if goesOn(err) {
			errs = append(errs, err)
			continue
		}
		if err != nil {
			return fail(err)
		}
		if n++; n > 1 {
			b.WriteByte(',')
		}
		b.WriteByte('\n')
		b.Write(item.View.View())
	}
	b.WriteString("\n]\n")
	if err = errors.Join(errs...); err != nil {
		err = fmt.Errorf("export user data: %w", err)
	}
	return b.String(), err
}
