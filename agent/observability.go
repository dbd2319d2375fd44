package agent

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/hook"
)

// Observability says how an agent is observed.
type Observability struct {
	// ServiceName is metadata.service_name; empty means the agent's id.
	ServiceName string
	// Environment is metadata.environment; empty means KAIZEN_ENVIRONMENT, and
	// where that is empty too there is none.
	Environment string
	// EnableAudit records what the agent does.
	EnableAudit bool
	// AuditMetadata is in every entry's metadata: user_id, session_id, ip_address,
	// user_agent, anything. What the context of a run says (hook.WithMetadata)
	// goes before it.
	AuditMetadata map[string]any
	// AuditLogPath is the trail; empty means audit.DefaultPath.
	AuditLogPath string

	// AuditTrail is a trail that is open, in place of AuditLogPath. It stays the
	// caller's to close, after the agent. Agents of one process share a trail so:
	// each that opens it for itself goes through the first one's socket.
	AuditTrail *audit.Trail

	// TrailOptions say how the trail at AuditLogPath is opened, and Recording
	// what is recorded and whether what can't be recorded may be done. nil is a
	// good default. What is not recorded at once is told to slog.Default, unless
	// Recording.Warn is set.
	TrailOptions *audit.Options
	Recording    *hook.AuditOptions
}

// EnableObservability records, from now on, what the agent and its specialists do.
// The trail is made where there is none. Close must follow. It can be done once.
//
// An AuditTrailHook that was registered for the same trail before gives its place
// to this one, and one that is registered afterwards takes it: each action is
// recorded once.
func (a *BaseAgent) EnableObservability(o Observability) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.observed {
		return errors.New("enable observability: it is enabled already")
	}
	meta := maps.Clone(o.AuditMetadata)
	if meta == nil {
		meta = map[string]any{}
	}
	own := map[string]any{"service_name": cmp.Or(o.ServiceName, a.config.AgentID)}
	if env := cmp.Or(o.Environment, os.Getenv("KAIZEN_ENVIRONMENT")); env != "" {
		own["environment"] = env
	}
	if o.EnableAudit && o.AuditTrail != nil && o.AuditLogPath != "" {
		return errors.New("enable observability: AuditTrail and AuditLogPath are both set")
	}
	if o.EnableAudit {
		var recording hook.AuditOptions
		if o.Recording != nil {
			recording = *o.Recording
		}
		all := maps.Clone(recording.Metadata)
		if all == nil {
			all = map[string]any{}
		}
		maps.Copy(all, meta)
		maps.Copy(all, own)
		recording.Metadata = all
		if recording.Warn == nil {
			recording.Warn = func(err error) { slog.Warn("kaizen-audit", "error", err) }
		}
		recorder, err := o.open(&recording)
		if err != nil {
			return fmt.Errorf("enable observability: %w", err)
		}
		if err := a.register(recorder); err != nil {
			return errors.Join(err, recorder.Close())
		}
		a.recorder = recorder
	}
	a.observed, a.metadata, a.own = true, meta, own
	return nil
}

func (o *Observability) open(recording *hook.AuditOptions) (*hook.AuditTrailHook, error) {
	if o.AuditTrail != nil {
		return hook.NewAuditTrailHook(o.AuditTrail, recording)
	}
	return hook.OpenAuditTrailHook(cmp.Or(o.AuditLogPath, audit.DefaultPath), o.TrailOptions, recording)
}

// register has a hook told of what the agent and its specialists do.
func (a *BaseAgent) register(h *hook.AuditTrailHook) error {
	errs := []error{a.hooks.RegisterHook(h, nil)}
	for _, s := range a.config.Specialists {
		errs = append(errs, s.register(h))
	}
	return errors.Join(errs...)
}

// HookManager is what the agent tells of its life: hooks are registered there.
func (a *BaseAgent) HookManager() *hook.Manager { return a.hooks }

// Close records what has not ended as unknown and closes the trail that
// EnableObservability has opened. No run must be under way.
func (a *BaseAgent) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.recorder == nil {
		return nil
	}
	return a.recorder.Close()
}
