package otlp

import (
	"context"
	"errors"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/entry"
)

// trail is where the entries go.
type trail interface {
	// ingest records events and returns once they are on disk: an error for
	// each that is not, a *passingError where it may be later. by is who has
	// sent them, "" where that is not known.
	ingest(ctx context.Context, by string, events []entry.Event) []error
	// noteRefused counts what could not even become an event.
	noteRefused(error)
}

// passingError is an error that does not keep a span from being recorded later.
type passingError struct {
	err     error
	seconds int // when to try again
}

func (e *passingError) Error() string { return e.err.Error() }
func (e *passingError) Unwrap() error { return e.err }

// intake is a real trail.
type intake struct{ *audit.Trail }

func (t intake) noteRefused(err error) { t.NoteRefused(err) }

func (t intake) ingest(ctx context.Context, by string, events []entry.Event) []error {
	errs := make([]error, len(events))
	_, err := t.Ingest(ctx, by, events)
	batch, partly := errors.AsType[*audit.BatchError](err)
	for i := range errs {
		errs[i] = err
		if partly {
			errs[i] = batch.Errs[i]
		}
		errs[i] = passing(errs[i])
	}
	return errs
}

// passing says of an error whether it passes, and after how many seconds it is
// worth to try again. What is not known to stay passes: a sender that is told
// otherwise throws away what it has.
func passing(err error) error {
	switch {
	case err == nil, errors.Is(err, audit.ErrRefused):
		return err
	case errors.Is(err, audit.ErrConflict):
		// The key has the span's digest in it: this very span is there, as
		// another version of this program has understood it.
		return nil
	case errors.Is(err, audit.ErrFull):
		return &passingError{err, 30}
	case errors.Is(err, audit.ErrClosed), errors.Is(err, audit.ErrUnknown):
		return &passingError{err, 1}
	}
	return &passingError{err, 5}
}
