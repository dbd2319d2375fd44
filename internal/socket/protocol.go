package socket

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"strconv"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/query"
)

// Version is the protocol's, the 1 in /v1/.
const Version = 1

// versionHeader carries Version in every answer.
const versionHeader = "Kaizen-Audit-Protocol"

// Name is the socket's file in the trail's directory.
const Name = "sock"

// Code says what an error means to the one who asked.
type Code string

// Codes of errors, as docs/protocol.md has them.
const (
	Refused  Code = "refused"   // the event or reading can't be recorded as it is; don't retry
	Conflict Code = "conflict"  // the idempotency key was used for another event
	Full     Code = "full"      // not recorded: no space; may be retried
	Closed   Code = "closed"    // not recorded: the holder is ending; take it to the next holder
	Stopped  Code = "stopped"   // not acknowledged: a write or sync failed; retry with the same key
	Unknown  Code = "unknown"   // the outcome is not known; retry with the same key
	Busy     Code = "busy"      // not recorded: a limit of the holder; retry later
	Denied   Code = "denied"    // the peer may not do this
	Protocol Code = "protocol"  // the request is not one of this version
	NotFound Code = "not_found" // there is no such thing
	Held     Code = "held"      // a legal hold or a declared duty stands against it
	Option   Code = "option"    // something that is asked for can't be as it is said
	Clock    Code = "clock"     // the holder's clock can't be trusted; nothing was pruned or erased
	Internal Code = "internal"  // none of the others
)

// status is the HTTP status of a request that failed as a whole.
func (c Code) status() int {
	switch c {
	case Refused, Protocol, Option:
		return 400
	case Denied:
		return 403
	case NotFound:
		return 404
	case Conflict, Held, Clock:
		return 409
	case Closed, Stopped, Busy:
		return 503
	case Full:
		return 507
	}
	return 500
}

// Error is an error as it goes over the socket. A Holder gives it for what has
// a code; any other error of a Holder is Internal.
type Error struct {
	Code    Code
	Message string
	// Hint is what to do about it, where there is more to say than the code does.
	Hint string
	// Supported are the versions of the one who answers, with code Protocol.
	Supported []int
}

func (e *Error) Error() string {
	if e.Message == "" {
		return string(e.Code)
	}
	return e.Message
}

// Is makes errors.Is(err, &Error{Code: c}) ask for a code.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Message == "" && t.Code == e.Code
}

// ErrGone is in the error of every call whose answer did not come: the
// connection to the holder broke, and whether an event was recorded is not
// known. Sent again with the same idempotency key, to this holder or the next,
// it is recorded once.
var ErrGone = errors.New("connection to the trail's holder is gone")

// asError is err in the socket's terms.
func asError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Code: Internal, Message: err.Error()}
}

// appendError appends {"error":{…}}.
func appendError(dst []byte, err error) []byte {
	e := asError(err)
	dst = append(dst, `{"error":{"code":"`...)
	dst = append(dst, e.Code...)
	dst = append(dst, `","message":`...)
	var ok bool
	if dst, ok = entry.AppendString(dst, e.Message); !ok { // not UTF-8, as a file's name may be
		text, _ := json.Marshal(e.Message)
		dst = append(dst, text...)
	}
	if e.Hint != "" {
		text, _ := json.Marshal(e.Hint) // a string
		dst = append(append(dst, `,"hint":`...), text...)
	}
	for i, v := range e.Supported {
		if i == 0 {
			dst = append(dst, `,"supported":[`...)
		} else {
			dst = append(dst, ',')
		}
		dst = strconv.AppendInt(dst, int64(v), 10)
		if i == len(e.Supported)-1 {
			dst = append(dst, ']')
		}
	}
	return append(dst, `}}`...)
}

// Durability says when an event is answered: "durable", "written" or "queued";
// empty means as the holder does it.
type Durability string

func (d Durability) known() bool { return d == "durable" || d == "written" || d == "queued" }

// Info is what GET /v1/trail says about the trail and its holder.
type Info struct {
	Protocol   int        `json:"protocol"`
	Origin     string     `json:"origin"`
	VKey       string     `json:"vkey"`
	Path       string     `json:"path"`    // of the log, as the holder has it
	Version    string     `json:"version"` // of the holder's program
	PID        int        `json:"pid"`     // of the holder
	Durability Durability `json:"durability"`
	MaxLine    int        `json:"max_line"` // bytes of the longest event that is read
	Size       int64      `json:"size"`     // entries
	Covered    int64      `json:"covered"`  // entries that the latest checkpoint covers
	// RetentionDays is how long entries are kept, 0 where no period was set.
	RetentionDays    int    `json:"retention_days"`
	RotationInterval string `json:"rotation_interval"`
	// AccessControl says whether reading needs a role, AllowedRoles which count,
	// separated by commas.
	AccessControl bool   `json:"access_control"`
	AllowedRoles  string `json:"allowed_roles"`
}

// Reading is what POST /v1/readings says: somebody read the trail's files
// and has it recorded.
type Reading struct {
	EventType string          `json:"event_type"`
	Action    string          `json:"action"`
	Inputs    json.RawMessage `json:"inputs,omitempty"`
	Outputs   json.RawMessage `json:"outputs,omitempty"`
}

// pseudonymRequest and pseudonymAnswer are what POST /v1/pseudonyms takes and
// gives.
type (
	pseudonymRequest struct {
		User string `json:"user"`
	}
	pseudonymAnswer struct {
		UserIDHash string `json:"user_id_hash"`
	}
)

// eraseRequest is what POST /v1/erasures takes; Options are audit.EraseOptions.
type eraseRequest struct {
	User    string          `json:"user"`
	Options json.RawMessage `json:"options,omitempty"`
}

// Call is a call that changes what the trail keeps: its path.
type Call string

// The calls that a Client makes with Do. Each takes and gives one JSON object.
const (
	Prunes      Call = "/v1/prunes"
	Rotations   Call = "/v1/rotations"
	Holds       Call = "/v1/holds"
	LiftedHolds Call = "/v1/holds/lifted"
	Retention   Call = "/v1/retention"

	Erasures          Call = "/v1/erasures"
	DueErasures       Call = "/v1/erasures/due"
	CancelledErasures Call = "/v1/erasures/cancelled"
)

// Peer is the process at the other end, as the kernel says.
type Peer struct {
	UID int
	PID int // 0 where the system does not tell
}

// Principal names the peer's user: "uid:1000".
func (p Peer) Principal() string { return "uid:" + strconv.Itoa(p.UID) }

// RecordedBy is the recorded_by member of what the peer hands over:
// {"principal":"uid:1000","pid":4711,"via":"socket"}.
func (p Peer) RecordedBy() []byte {
	b := append([]byte(`{"principal":"`), p.Principal()...)
	b = append(b, '"')
	if p.PID != 0 {
		b = append(b, `,"pid":`...)
		b = strconv.AppendInt(b, int64(p.PID), 10)
	}
	return append(b, `,"via":"socket"}`...)
}

// Result is what became of one event: its receipt, or the error.
type Result struct {
	Receipt entry.Receipt
	Err     error
}

// Holder is the trail behind the socket. Its methods are called from many
// goroutines at once. Their errors that mean something to a peer are or wrap
// an *Error.
type Holder interface {
	// Info tells of the trail. Durability and MaxLine never change.
	Info(context.Context) (Info, error)
	// Controlled tells whether roles decide who may do what: then the methods that
	// are given a Peer ask for its, but Record, NoteRefused and NoteReading.
	Controlled() bool
	// Record records events in order as one batch, and puts what became of
	// events[i] into results[i], which is zero before. They are as durable as
	// d says, or more, when it returns. The context is never cancelled. The
	// events share memory that is used again when Record returns: it must keep
	// no part of them, nor of results.
	Record(ctx context.Context, by Peer, events []entry.Event, d Durability, results []Result)
	// NoteRefused counts an event that could not even be parsed.
	NoteRefused(by Peer, err error)
	// NoteReading records a reading that the peer made by itself.
	NoteReading(ctx context.Context, by Peer, r Reading) (entry.Receipt, error)
	// Query gives entries, and records the reading before the first.
	Query(ctx context.Context, by Peer, q query.Query) iter.Seq2[entry.Entry, error]
	// Report makes the compliance report as "text" or "json", and records it.
	Report(ctx context.Context, by Peer, format string) ([]byte, error)
	// Pseudonym gives the pseudonym of a user, and makes it, durable, where
	// there is none.
	Pseudonym(ctx context.Context, user string) (string, error)
	// Erase makes a user's sealed data unreadable, or looks what that would cover, and
	// records it; it gives an audit.Erasure as JSON.
	Erase(ctx context.Context, by Peer, user string, options json.RawMessage) ([]byte, error)
	// Prune prunes, Rotate seals, EraseDue carries out the erasures that were scheduled
	// and are due; AddHold, LiftHold, CancelErasure and SetRetention record what they
	// say. Each takes a JSON object, which docs/protocol.md describes, and gives the
	// answer of the command of the same name as JSON.
	Prune(ctx context.Context, by Peer, asked json.RawMessage) ([]byte, error)
	Rotate(ctx context.Context, by Peer, asked json.RawMessage) ([]byte, error)
	AddHold(ctx context.Context, by Peer, asked json.RawMessage) ([]byte, error)
	LiftHold(ctx context.Context, by Peer, asked json.RawMessage) ([]byte, error)
	SetRetention(ctx context.Context, by Peer, asked json.RawMessage) ([]byte, error)
	EraseDue(ctx context.Context, by Peer, asked json.RawMessage) ([]byte, error)
	CancelErasure(ctx context.Context, by Peer, asked json.RawMessage) ([]byte, error)
	// ExportUser gives what is held about a user, as JSON, and records it.
	ExportUser(ctx context.Context, by Peer, user string) ([]byte, error)
}
