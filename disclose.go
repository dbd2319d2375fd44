package audit

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/kaizen-audit/kaizen-audit/internal/advice"
	"github.com/kaizen-audit/kaizen-audit/internal/export"
	"github.com/kaizen-audit/kaizen-audit/internal/sealed"
	"github.com/kaizen-audit/kaizen-audit/internal/trust"
)

// Disclosed is what a disclosure proves: the entry as far as it was disclosed, and
// the checkpoint under which it is in the trail.
type Disclosed struct {
	Proof
	Entry Entry
	// Hidden are the sealed fields that were not disclosed, by JSON pointer.
	Hidden []string
}

// Disclose gives the entry at index with its proof, and the keys of those of its
// sealed fields that the JSON pointers name, /inputs say: one line of JSON
// (docs/format-sealing.md §6.8), which CheckDisclosure, or anybody by the format,
// checks with the trail's vkey. All other sealed fields stay sealed. What was not
// sealed when it was recorded can't be withheld: it goes out with the line, of a
// sealed line too. It is recorded as AUDIT_EXPORT.
//
// ErrNotFound: no checkpoint covers the entry yet. ErrInClear: a pointer leads to
// nothing that is sealed. ErrSealed: a field is erased or does not open. ErrNoKey:
// the trail's key is not at hand.
func (t *Trail) Disclose(ctx context.Context, index int64, pointers ...string) ([]byte, error) {
	if err := t.authorizeAll(ctx, "Disclose"); err != nil {
		return nil, fmt.Errorf("disclose entry %d: %w", index, err)
	}
	fail := func(err error) ([]byte, error) { return nil, fmt.Errorf("disclose entry %d: %w", index, err) }
	if pointers == nil {
		pointers = []string{}
	}
	if err := t.noteRead(ctx, readEntry{"AUDIT_EXPORT", "disclose"}, map[string]any{"index": index, "fields": pointers}); err != nil {
		return fail(err)
	}
	c, store, err := t.latest()
	if err != nil {
		return fail(explainProof(err))
	}
	if index < 0 || index >= c.Size {
		return fail(fmt.Errorf("%w: the latest checkpoint covers %d entries", ErrNotFound, c.Size))
	}
	e, _, err := t.entryAt(ctx, index)
	if err != nil {
		return fail(err)
	}
	s, err := t.source(e)
	if err != nil {
		return fail(err)
	}
	d := export.Disclosure{Origin: t.id.Origin, Index: index, Line: e.Line(), LineKey: s.Parts.LineKey}
	if s.Parts.Damaged {
		return fail(fmt.Errorf("%w: its list of what is sealed is not in order", ErrSealed))
	}
	for _, pointer := range pointers {
		f, ok := field(s.Parts.Fields, pointer)
		enc := t.enc.Load()
		switch {
		case !ok && enc != nil && enc.locked != nil:
			return fail(enc.locked)
		case !ok:
			return fail(inClear(pointer, s.Parts.Fields))
		case f.State != "":
			return fail(fmt.Errorf("field %s: %w: %s", pointer, ErrSealed, f.State))
		}
		d.Fields = append(d.Fields, export.FieldKey{Pointer: pointer, Key: f.Key})
	}
	if d.Proof, err = store.Inclusion(c, index); err != nil {
		return fail(fmt.Errorf("%w: %w", ErrDamaged, err))
	}
	text, err := d.Append(nil)
	if err != nil {
		return fail(err)
	}
	// Never hand out what does not hold: the line may not be the one that was signed.
	if _, err := CheckDisclosure(text, t.VKey()); err != nil {
		return fail(fmt.Errorf("%w: %w", ErrDamaged, err))
	}
	return append(text, '\n'), nil
}

// inClear says that a pointer leads to nothing that is sealed alone, and what does.
func inClear(pointer string, fields []sealed.Part) error {
	err := fmt.Errorf("field %s: %w", pointer, ErrInClear)
	var there []string
	for _, f := range fields {
		there = append(there, f.Pointer)
	}
	if len(there) == 0 {
		return advice.For(err, "nothing of it is sealed: its line goes out whole, and prove proves it")
	}
	return advice.For(err, "sealed in it, each alone: %s", strings.Join(there, " "))
}

// SealedFields are the JSON pointers of what is sealed in the entry at index, field
// by field. The look is not recorded: it shows no value.
func (t *Trail) SealedFields(ctx context.Context, index int64) ([]string, error) {
	if err := t.authorizeAll(ctx, "SealedFields"); err != nil {
		return nil, fmt.Errorf("entry %d: %w", index, err)
	}
	e, _, err := t.entryAt(ctx, index)
	var s export.Source
	if err == nil {
		s, err = t.source(e)
	}
	if err != nil {
		return nil, fmt.Errorf("entry %d: %w", index, err)
	}
	var pointers []string
	for _, f := range s.Parts.Fields {
		pointers = append(pointers, f.Pointer)
	}
	return pointers, nil
}

func field(fields []sealed.Part, pointer string) (sealed.Part, bool) {
	for _, f := range fields {
		if f.Pointer == pointer {
			return f, true
		}
	}
	return sealed.Part{}, false
}

// IsDisclosure reports whether a file is a disclosure.
func IsDisclosure(text []byte) bool { return export.IsDisclosure(text) }

// CheckDisclosure checks what Disclose gave against the verifier key vkey. It needs
// no trail. An error means that nothing is proved.
func CheckDisclosure(text []byte, vkey string) (Disclosed, error) {
	keys, err := trust.One(vkey)
	if err != nil {
		return Disclosed{}, fmt.Errorf("check disclosure: vkey: %w", err)
	}
	d, err := export.ParseDisclosure(text)
	if err != nil {
		return Disclosed{}, err
	}
	r, err := d.Check(keys, maxDisclosed)
	if err != nil {
		return Disclosed{}, err
	}
	out := Disclosed{Proof: Proof{r.Checkpoint.Origin, r.Index, r.Checkpoint.Size, r.Checkpoint.Root}, Entry: r.Entry}
	out.Hidden = slices.Sorted(maps.Keys(r.Hidden))
	return out, nil
}

// maxDisclosed bounds a line that a stranger gives: the most that Options.MaxLine
// allows.
const maxDisclosed = 1 << 30
