package hook

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/entry"
)

// Setup is what an agent is made of. Given with a PreAgentLoop it stands in the
// metadata of the AGENT_LOOP_START, as agent_setup, and is compared with that of
// the agent's last start in the trail, whichever process or machine made it: a
// difference is a CONFIG_CHANGE entry with the action config_change:agent_setup.
type Setup struct {
	Model string
	// Prompt is the system prompt; its SHA-256 is recorded, the text is not.
	Prompt string
	// Tools are the names of the tools. Their order does not matter.
	Tools []string
	// Version is the version of the agent's code; empty means what the build says
	// (debug.ReadBuildInfo): the module's version, and the revision.
	Version string
}

// MarshalJSON gives {"model":…,"prompt_digest":"sha256:<hex>","tools":[…],"version":…},
// what is empty left out but for tools.
func (s Setup) MarshalJSON() ([]byte, error) {
	v := struct {
		Model        string   `json:"model,omitempty"`
		PromptDigest string   `json:"prompt_digest,omitempty"`
		Tools        []string `json:"tools"`
		Version      string   `json:"version,omitempty"`
	}{Model: s.Model, Tools: append([]string{}, s.Tools...), Version: s.Version}
	slices.Sort(v.Tools)
	if s.Prompt != "" {
		v.PromptDigest = fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(s.Prompt)))
	}
	if v.Version == "" {
		v.Version = buildVersion()
	}
	return json.Marshal(v)
}

var buildVersion = sync.OnceValue(func() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	parts := []string{}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		parts = append(parts, v)
	}
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			parts = append(parts, s.Value)
		case s.Key == "vcs.modified" && s.Value == "true":
			parts = append(parts, "modified")
		}
	}
	return strings.Join(parts, " ")
})

// setupMember is where a start says what the agent is made of.
const setupMember = "agent_setup"

// compareTime bounds the search for an agent's last start. It runs behind the
// agent's back.
const compareTime = time.Minute

// maxStarts bounds how many starts are told from earlier ones.
const maxStarts = 10_000

// setups are those of this process's agents.
type setups struct {
	mu     sync.Mutex
	agents map[string]*agentSetup
	cancel context.CancelFunc
	ctx    context.Context
}

type agentSetup struct {
	text      []byte          // as the last start in this process had it
	first     []byte          // as the first had it, which is compared with the trail
	starts    map[string]bool // spans of this process's starts, until it was compared
	comparing bool
	compared  bool
}

func (s *setups) context() context.Context {
	if s.ctx == nil {
		s.ctx, s.cancel = context.WithCancel(context.Background())
	}
	return s.ctx
}

func (s *setups) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.context()
	s.cancel()
}

// loopBegins records the start of an agent's loop and sees whether the agent is
// what it was.
func (h *AuditTrailHook) loopBegins(c *Context) error {
	w := writing{c: c, begins: true, enter: true, ev: h.beginning(c)}
	if c.Setup == nil {
		return h.write(w)
	}
	text, err := c.Setup.MarshalJSON()
	if err != nil { // a name that is no text: the loop is recorded all the same
		h.warn(fmt.Errorf("the agent's setup: %w", err))
		return h.write(w)
	}
	w.ev.Metadata = audit.Of(merge(h.base, c.Metadata, map[string]any{setupMember: json.RawMessage(text)}))
	before := h.setups.starts(c.AgentID, c.SpanID, text)
	start := *c
	w.done = func(audit.Receipt) { h.compare(&start) }
	if err := h.write(w); err != nil {
		return err
	}
	if before != nil {
		return h.write(writing{c: c, enter: true, ev: h.setupChange(c, before, text)})
	}
	return nil
}

// starts notes a start. It gives what the agent was before in this process, if
// that was something else.
func (s *setups) starts(agent, span string, text []byte) (before []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.agents == nil {
		s.agents = map[string]*agentSetup{}
	}
	a := s.agents[agent]
	if a == nil {
		s.forget()
		a = &agentSetup{text: text, first: text, starts: map[string]bool{}}
		s.agents[agent] = a
	}
	if !a.compared && len(a.starts) < maxStarts {
		a.starts[span] = true
	}
	if !bytes.Equal(a.text, text) {
		before, a.text = a.text, text
	}
	return before
}

// maxAgents bounds how many agents are remembered: some megabytes.
const maxAgents = 10_000

// forget makes room for one more agent. Which one is forgotten does not matter:
// its next start is compared with the trail. mu is held.
func (s *setups) forget() {
	for name, a := range s.agents {
		if len(s.agents) < maxAgents {
			return
		}
		if !a.comparing {
			delete(s.agents, name)
		}
	}
}

// compare looks for the agent's last start before this process's, once.
func (h *AuditTrailHook) compare(c *Context) {
	s := &h.setups
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.agents[c.AgentID]
	if a == nil || a.comparing || a.compared {
		return
	}
	a.comparing = true
	ctx := s.context()
	h.busy.Add(1)
	go func() {
		defer h.busy.Add(-1)
		ctx, cancel := context.WithTimeout(ctx, compareTime)
		defer cancel()
		last, err := h.lastSetup(ctx, c.AgentID, a)
		s.mu.Lock()
		a.comparing = false
		if a.compared = err == nil; a.compared {
			a.starts = nil
		}
		first := a.first
		s.mu.Unlock()
		switch {
		case err != nil: // the next start tries again
			h.warn(fmt.Errorf("the agent's setup is not compared with its last start: %w", err))
		case last != nil && !bytes.Equal(last, first):
			_ = h.do(&writing{c: c, enter: true, ev: h.setupChange(c, last, first)})
		}
	}()
}

// lastSetup is the setup of the agent's last start that is not one of this
// process's, nil where there was none.
func (h *AuditTrailHook) lastSetup(ctx context.Context, agent string, a *agentSetup) ([]byte, error) {
	q := audit.Query{Agent: strings.ReplaceAll(agent, "*", `\*`), EventTypes: []string{audit.AgentLoopStart}, Order: audit.Newest}
	var errs []error
	for e, err := range h.trail.Query(audit.WithTrailItself(ctx), q) {
		if err != nil {
			errs = append(errs, err) // a broken line, say: others follow
			continue
		}
		h.setups.mu.Lock()
		own := a.starts[e.SpanID]
		h.setups.mu.Unlock()
		if own {
			continue
		}
		if v, ok := e.Metadata.Get(setupMember); ok {
			return bytes.Clone(v.JSON()), nil
		}
	}
	return nil, errors.Join(errs...)
}

// setupChange is the entry about a difference, below the start that shows it.
func (h *AuditTrailHook) setupChange(c *Context, before, after []byte) audit.Event {
	change := Change{Name: setupMember, Before: audit.Raw(before), After: audit.Raw(after)}
	d, err := change.data()
	n := ConfigChange.names()
	ev := audit.Event{
		Timestamp: c.Time, EventType: n.eventType, AgentID: c.AgentID, TraceID: c.TraceID, Action: n.named(setupMember),
		SpanID: newSpanID(), ParentSpanID: c.SpanID, Metadata: h.metadata(c), Inputs: d.Inputs, Outputs: d.Outputs,
	}
	if err != nil { // what stood in the trail is no object
		ev.Inputs, ev.Outputs = entry.Of(map[string]any{"before": string(before)}), entry.Of(map[string]any{"after": json.RawMessage(after)})
	}
	return ev
}
