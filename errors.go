package audit

import (
	"errors"

	"github.com/kaizen-audit/kaizen-audit/internal/access"
	"github.com/kaizen-audit/kaizen-audit/internal/journal"
	"github.com/kaizen-audit/kaizen-audit/internal/sealed"
	"github.com/kaizen-audit/kaizen-audit/internal/verify"
	"github.com/kaizen-audit/kaizen-audit/internal/witness"
)

// GapError names entries that a reading could not give: they are missing, or
// their file can't be read. errors.Is(err, ErrDamaged) holds unless the system
// refused the file.
type GapError = journal.GapError

// Errors that a caller may want to tell apart, with errors.Is.
var (
	// ErrClosed: the trail was closed.
	ErrClosed = errors.New("trail is closed")
	// ErrReadOnly: the trail was opened for reading.
	ErrReadOnly = errors.New("trail is open for reading only")
	// ErrLocked: another process writes the trail; the error names it.
	ErrLocked = errors.New("trail is written by another process")
	// ErrFull: no space is left; nothing was recorded, and a later Record may
	// succeed.
	ErrFull = errors.New("no space left on the device")
	// ErrStopped: a sync failed or the log was taken away from its path, and the
	// trail takes no more writes until it is opened again.
	ErrStopped = errors.New("trail has stopped after a failed write")
	// ErrConflict: the idempotency key was used for another event.
	ErrConflict = errors.New("idempotency key was used for another event")
	// ErrRefused: the event can't be recorded as it is.
	ErrRefused = errors.New("event refused")
	// ErrDamaged: the trail does not match its checkpoint, or has none. It is
	// not extended.
	ErrDamaged = errors.New("trail is damaged")
	// ErrUnknown: the caller stopped waiting; the event was accepted and its
	// outcome is not known.
	ErrUnknown = errors.New("outcome of the accepted event is not known")
	// ErrNotFound: there is no trail, or no such entry.
	ErrNotFound = errors.New("not found")
	// ErrOption: an option, or what a call asks for, can't be as it is; the error names
	// it.
	ErrOption = errors.New("option is wrong")
	// ErrPinned: the path's trail is not the one that was seen before.
	ErrPinned = errors.New("another trail was pinned for this path")
	// ErrLossCounted: a captured event is neither in the trail nor in its spool.
	// The spool counts it, and the trail's next holder tells: AUDIT_LOSS.
	ErrLossCounted = errors.New("an event is lost, and counted")
	// ErrNotSent: the last checkpoint did not arrive at a place of
	// Options.CheckpointTo. Everything is recorded and signed all the same.
	ErrNotSent = errors.New("a checkpoint was not sent")
	// ErrNoCheckpoint: what was given to Verify as a checkpoint is none.
	ErrNoCheckpoint = verify.ErrNoCheckpoint
	// ErrOtherTrail: the checkpoint given to Verify is another trail's.
	ErrOtherTrail = verify.ErrOtherTrail
	// ErrNoKey: the trail is encrypted, and its key is not at hand or another one.
	// Verify works without.
	ErrNoKey = errors.New("no encryption key for this trail")
	// ErrSealed: an entry is sealed and does not open: it was changed, or its key
	// is gone.
	ErrSealed = errors.New("the entry does not open")
	// ErrNotSealed: the trail keeps what it records in clear, and nobody's data can
	// be erased or sealed afterwards.
	ErrNotSealed = errors.New("the trail seals nothing")
	// ErrDenied: access to the trail is controlled, and who asks has no role that may.
	ErrDenied = access.ErrDenied
	// ErrHeld: a legal hold or a declared duty keeps something from being erased.
	ErrHeld = errors.New("kept by a hold or a duty")
	// ErrInClear: what should be disclosed alone is not sealed in the entry; it
	// goes out with the whole line.
	ErrInClear = sealed.ErrInClear
	// ErrForked: an anchor knows another history of the trail, or more of it: the
	// trail was rolled back, or is a copy while another one goes on. Nothing is
	// recorded.
	ErrForked = witness.ErrForked
)
