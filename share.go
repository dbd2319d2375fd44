package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/advice"
	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/query"
	"github.com/kaizen-audit/kaizen-audit/internal/socket"
)

// shares tells whether this opening lets others record through it.
func (t *Trail) shares() bool { return t.onDisk() && !t.opts.NoSocket }

// share begins to listen on the trail's socket. That it can't is no reason not
// to record: other processes are told that the trail is locked.
func (t *Trail) share() {
	if !t.shares() || t.opts.quiet {
		return
	}
	l, err := t.listen()
	if err != nil {
		t.warn(fmt.Errorf("other processes can't record here: %w", err))
		return
	}
	server, err := socket.NewServer(sharedTrail{t}, t.warn)
	if err != nil {
		t.warn(errors.Join(err, l.Close()))
		return
	}
	t.server = server
	go func() {
		if err := server.Serve(l); err != nil {
			t.warn(fmt.Errorf("other processes can't record here any more: %w", err))
		}
	}()
}

// listen makes the socket. The members of its group must come through the
// trail's directory: through, and nothing more, unless it is Options.Group too.
func (t *Trail) listen() (net.Listener, error) {
	if t.opts.SocketGroup != "" {
		gid, err := durable.LookupGroup(t.opts.SocketGroup)
		if err != nil {
			return nil, err
		}
		fi, err := t.opts.fs.Stat(t.dir)
		if err != nil {
			return nil, err
		}
		if durable.GroupOf(fi) != gid {
			// The mode first: what the group before could do is not for this one.
			if err := errors.Join(durable.OS.Chmod(t.dir, 0o700), durable.OS.Chgrp(t.dir, gid)); err != nil {
				return nil, err
			}
			fi = nil
		}
		if fi == nil || fi.Mode().Perm()&0o010 == 0 {
			if err := durable.OS.Chmod(t.dir, 0o710); err != nil {
				return nil, err
			}
		}
	}
	return socket.Listen(t.dir, t.opts.SocketGroup)
}

// serverGrace is how long Close waits for answers that are under way.
const serverGrace = 5 * time.Second

// unshare answers what was accepted and removes the socket.
func (t *Trail) unshare() {
	if t.server == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), serverGrace)
	defer cancel()
	if err := t.server.Shutdown(ctx); err != nil {
		t.warn(fmt.Errorf("close the socket: %w", err))
	}
}

// Serve keeps the trail for other processes, which record and read through its
// socket, until ctx ends, or until nobody has been connected for idle (0: that
// ends nothing). It is ErrLocked where another process holds the trail, and
// ErrStopped once a write has failed. Close must follow.
func (t *Trail) Serve(ctx context.Context, idle time.Duration) error {
	if err := t.writable(ctx); err != nil {
		return err
	}
	switch {
	case !t.holds():
		return fmt.Errorf("serve %s: %w", t.path, &lockedError{holder: t.holder()})
	case t.server == nil:
		return fmt.Errorf("serve %s: there is no socket", t.path)
	}
	look := time.NewTicker(serveLook)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.closed:
			return ErrClosed
		case <-look.C:
		}
		if err := t.journal.Err(); err != nil {
			return explainJournal(err)
		}
		if idle > 0 && t.server.Idle() >= idle {
			return nil
		}
	}
}

// serveLook is how often Serve looks whether it is still needed.
const serveLook = 50 * time.Millisecond

// sharedTrail is the trail as other processes see it through its socket.
type sharedTrail struct{ t *Trail }

func (s sharedTrail) Info(ctx context.Context) (socket.Info, error) {
	s.t.catchUp() // who asks may read the files next
	kept, err := s.t.Retention(ctx)
	if err != nil {
		return socket.Info{}, err
	}
	if !kept.Set {
		kept.Days = 0
	}
	var roles string
	on := s.t.controlled()
	if on {
		roles = strings.Join(s.t.access.Load().Allowed(), ",")
	}
	return socket.Info{
		AccessControl: on, AllowedRoles: roles,
		RetentionDays: kept.Days, RotationInterval: s.t.opts.RotationInterval,
		Protocol: socket.Version, Origin: s.t.id.Origin, VKey: s.t.ids().VKey, Path: s.t.path, Version: moduleVersion(), PID: os.Getpid(),
		Durability: socket.Durability(s.t.opts.Durability.String()), MaxLine: s.t.opts.MaxLine,
		Size: s.t.journal.Next(), Covered: s.t.signer.latest.Load().Size,
	}, nil
}

func (s sharedTrail) Controlled() bool { return s.t.controlled() }

func (s sharedTrail) Record(ctx context.Context, by socket.Peer, events []entry.Event, d socket.Durability, results []socket.Result) {
	if len(events) == 1 && events[0].IdempotencyKey == "" {
		results[0].Receipt, results[0].Err = s.t.record(ctx, &events[0], by.RecordedBy())
	} else {
		receipts := make([]Receipt, len(events))
		for i := range results {
			results[i].Err = nil
		}
		s.t.recordBatch(ctx, events, handed{text: by.RecordedBy()}, receipts, func(i int, err error) { results[i].Err = err })
		for i := range results {
			results[i].Receipt = receipts[i]
		}
	}
	if d == "durable" && s.t.opts.Durability != Durable {
		err := s.t.journal.Flush(ctx)
		for i := range results {
			if results[i].Err == nil {
				results[i].Receipt.Durable, results[i].Err = err == nil, explainJournal(err)
			}
		}
	}
	for i := range results {
		results[i].Err = shareError(results[i].Err)
	}
}

func (s sharedTrail) NoteRefused(_ socket.Peer, err error) { s.t.NoteRefused(err) }

func (s sharedTrail) NoteReading(ctx context.Context, by socket.Peer, r socket.Reading) (entry.Receipt, error) {
	if !spooledTypes[r.EventType] && r.EventType != eventsRefused {
		return Receipt{}, &socket.Error{Code: socket.Refused, Message: "event_type: is not a reading's"}
	}
	receipt, err := s.t.recordOwnReceipt(ctx, ownEntry{
		eventType: r.EventType, action: r.Action, inputs: rawOrNil(r.Inputs), outputs: rawOrNil(r.Outputs), failed: r.EventType == eventsRefused,
		by: by.RecordedBy(), metadata: map[string]any{"principal": by.Principal()},
	})
	if err == nil { // who notes a reading reads the files next
		err = explainJournal(s.t.journal.CatchUp())
	}
	return receipt, shareError(err)
}

// A peer travels in the context of what is done for it.
type peerKey struct{}

func withPeer(ctx context.Context, by socket.Peer) context.Context {
	return context.WithValue(ctx, peerKey{}, by)
}

func peerOf(ctx context.Context) (by socket.Peer, ok bool) {
	by, ok = ctx.Value(peerKey{}).(socket.Peer)
	return by, ok
}

func rawOrNil(b json.RawMessage) any {
	if len(b) == 0 {
		return nil
	}
	return Raw(b)
}

func (s sharedTrail) Query(ctx context.Context, by socket.Peer, q query.Query) iter.Seq2[entry.Entry, error] {
	return func(yield func(entry.Entry, error) bool) {
		for e, err := range s.t.query(withPeer(ctx, by), "Query", q, readEntry{"AUDIT_QUERY", "query"}) {
			if !yield(e, shareError(err)) {
				return
			}
		}
	}
}

func (s sharedTrail) Report(ctx context.Context, by socket.Peer, format string) ([]byte, error) {
	r, err := s.t.ComplianceReport(withPeer(ctx, by))
	if err != nil {
		return nil, shareError(err)
	}
	if format == "json" {
		return json.Marshal(r)
	}
	var b bytes.Buffer
	err = r.WriteText(&b)
	return b.Bytes(), err
}

func (s sharedTrail) Pseudonym(_ context.Context, user string) (string, error) {
	p, err := s.t.pseudonym(user)
	return p, shareError(err)
}

func (s sharedTrail) Erase(ctx context.Context, by socket.Peer, user string, options json.RawMessage) ([]byte, error) {
	var o EraseOptions
	if len(options) > 0 && json.Unmarshal(options, &o) != nil {
		return nil, &socket.Error{Code: socket.Protocol, Message: "options: not the JSON that is expected"}
	}
	if strings.TrimSpace(o.Reason) == "" && !o.DryRun {
		return nil, &socket.Error{Code: socket.Protocol, Message: "options: reason is required"}
	}
	if o.Certificate != "" && by.UID != os.Geteuid() && by.UID != 0 {
		// It would be this process that writes where another user says.
		return nil, &socket.Error{Code: socket.Denied, Message: "certificate: is written for the holder's own user and root only; the answer has it too"}
	}
	if err := s.t.authorizeAll(withPeer(ctx, by), "EraseUser"); err != nil {
		return nil, shareError(err)
	}
	e, err := s.t.eraseHeld(withPeer(ctx, by), user, o)
	if err != nil {
		return nil, shareError(err)
	}
	return json.Marshal(e)
}

// forPeer reads what a peer asks for, authorizes it, does it, and gives the answer.
func forPeer[In, Out any](ctx context.Context, s sharedTrail, by socket.Peer, operation string, text json.RawMessage, do func(context.Context, In) (Out, error)) ([]byte, error) {
	var in In
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if d.Decode(&in) != nil {
		return nil, &socket.Error{Code: socket.Protocol, Message: "a member of the body is none of this call's, or of another type"}
	}
	ctx = withPeer(ctx, by)
	if err := s.t.authorizeAll(ctx, operation); err != nil {
		return nil, shareError(err)
	}
	out, err := do(ctx, in)
	if err != nil {
		return nil, shareError(err)
	}
	return json.Marshal(out)
}

func (s sharedTrail) Prune(ctx context.Context, by socket.Peer, text json.RawMessage) ([]byte, error) {
	return forPeer(ctx, s, by, "Prune", text, s.t.prune)
}

func (s sharedTrail) Rotate(ctx context.Context, by socket.Peer, text json.RawMessage) ([]byte, error) {
	return forPeer(ctx, s, by, "Rotate", text, func(ctx context.Context, _ struct{}) (SegmentInfo, error) { return s.t.rotate(ctx) })
}

func (s sharedTrail) AddHold(ctx context.Context, by socket.Peer, text json.RawMessage) ([]byte, error) {
	return forPeer(ctx, s, by, "AddHold", text, s.t.addHold)
}

func (s sharedTrail) LiftHold(ctx context.Context, by socket.Peer, text json.RawMessage) ([]byte, error) {
	return forPeer(ctx, s, by, "LiftHold", text, s.t.liftHold)
}

func (s sharedTrail) EraseDue(ctx context.Context, by socket.Peer, text json.RawMessage) ([]byte, error) {
	return forPeer(ctx, s, by, "EraseDue", text, s.t.eraseDue)
}

func (s sharedTrail) CancelErasure(ctx context.Context, by socket.Peer, text json.RawMessage) ([]byte, error) {
	return forPeer(ctx, s, by, "CancelErasure", text, s.t.cancelErasure)
}

func (s sharedTrail) SetRetention(ctx context.Context, by socket.Peer, text json.RawMessage) ([]byte, error) {
	return forPeer(ctx, s, by, "SetRetention", text, s.t.setRetention)
}

func (s sharedTrail) ExportUser(ctx context.Context, by socket.Peer, user string) ([]byte, error) {
	m := AuditTrailManager{s.t}
	text, err := m.ExportUserData(withPeer(ctx, by), user)
	return []byte(text), shareError(err)
}

// shareError gives our errors their codes.
func shareError(err error) error {
	if err == nil {
		return nil
	}
	text, hint := advice.Split(err)
	for code, is := range publicErrors {
		if errors.Is(err, is) {
			return &socket.Error{Code: code, Message: text, Hint: hint}
		}
	}
	if hint != "" {
		return &socket.Error{Code: socket.Internal, Message: text, Hint: hint}
	}
	return err
}

// moduleVersion is this module's version as the program was built with it.
func moduleVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, m := range append(info.Deps, &info.Main) {
		if m.Path == "github.com/kaizen-audit/kaizen-audit" {
			return m.Version
		}
	}
	return "unknown"
}
