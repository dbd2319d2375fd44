// Package slogaudit is a handler for log/slog that makes entries of log records.
//
//	recording := slogaudit.NewHandler(hooks, nil)
//	slog.SetDefault(slog.New(slog.NewMultiHandler(slog.NewTextHandler(os.Stderr, nil), recording)))
//
// A record is one entry:
//
//	event_type, action    LOG, log
//	inputs                {"time":…,"body":<message>,"attributes":{…}}
//	success, error        false from slog.LevelError on: the error is the first attribute
//	                      that is one, else the message
//	metadata              severity (INFO, WARN+2, …) and severity_number (1 to 24, as
//	                      OpenTelemetry counts), and what else hooks add
//
// It belongs to the trace of the record's context and is a child of the action in
// it: log with InfoContext and its like. A message that comes over OTLP has the
// same names (docs/otlp.md).
//
// Attributes are whole: groups are objects, in the order in which they were said.
// Times are RFC 3339 with nanoseconds, durations texts such as "1.5s", errors their
// texts, other values what encoding/json makes of them. A name that comes twice in
// one group is followed by #2, since an entry takes a name once. A value that can't
// be had is {"omitted":"<reason>"}; of what carries a header's name of a credential
// (Authorization, Cookie, …) the value is {"omitted":"credential"}. Nothing else is
// left out: a secret in a message is in the trail.
//
// A record that is made by what records is passed over, since it would be recorded
// for ever: one inside a hook, or in hook.AuditOptions.Warn or hook.Manager.OnError.
// Let another handler have those too, as above.
//
// A record is recorded when Handle returns, as hooks say: see
// hook.AuditOptions.Timeout and FailClosed.
package slogaudit

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/hook"
	"github.com/kaizen-audit/kaizen-audit/internal/genai"
	"github.com/kaizen-audit/kaizen-audit/internal/reentry"
)

// Event is what hooks are told of a record: for hook.AuditOptions.Events.
const Event hook.Event = "log"

// Options say which records are entries. nil is a good default.
type Options struct {
	// Level is the lowest level that is recorded; nil means slog.LevelInfo.
	Level slog.Leveler
}

type handler struct {
	hooks *hook.Manager
	level slog.Leveler
	said  []said // WithGroup and WithAttrs, in their order
}

// said is a group that was opened, or attributes.
type said struct {
	group string
	attrs []slog.Attr
}

// NewHandler makes a handler that tells hooks of records.
func NewHandler(hooks *hook.Manager, opts *Options) slog.Handler {
	h := &handler{hooks: hooks, level: slog.LevelInfo}
	if opts != nil && opts.Level != nil {
		h.level = opts.Level
	}
	return h
}

func (h *handler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.level.Level() }

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	if len(attrs) == 0 {
		return h
	}
	return h.with(said{attrs: slices.Clone(attrs)})
}

func (h *handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	return h.with(said{group: name})
}

func (h *handler) with(s said) *handler {
	next := *h
	next.said = append(slices.Clip(h.said), s)
	return &next
}

// Handle records a record. Its error is one of hooks that fail closed.
func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	if reentry.Guarded() {
		return nil
	}
	attributes := &group{}
	at := attributes
	for _, s := range h.said {
		if s.group != "" {
			at = at.open(s.group)
		}
		at.add(s.attrs)
	}
	r.Attrs(func(a slog.Attr) bool {
		at.add([]slog.Attr{a})
		return true
	})
	inputs := &genai.Object{}
	if !r.Time.IsZero() {
		inputs.AddText("time", r.Time.Format(time.RFC3339Nano))
	}
	inputs.Add("body", genai.AppendText(nil, r.Message))
	inputs.Add("attributes", attributes.json())
	d := hook.Data{
		Inputs:   audit.Raw(genai.Clean(inputs.JSON())),
		Metadata: map[string]any{"severity": r.Level.String(), "severity_number": severity(r.Level)},
	}
	if r.Level >= slog.LevelError {
		if d.Err = attributes.err(); d.Err == nil {
			d.Err = errors.New(r.Message)
		}
	}
	_, err := h.hooks.Trigger(ctx, Event, d)
	return err
}

// severity is a level in the numbers of OpenTelemetry's log data model, in which
// DEBUG is 5, INFO 9, WARN 13 and ERROR 17: as slog's levels, 9 apart.
func severity(l slog.Level) int { return min(max(int(l)+9, 1), 24) }
