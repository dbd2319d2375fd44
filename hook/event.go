package hook

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"time"

	audit "github.com/kaizen-audit/kaizen-audit"
)

// Kind is a kind of action. An agent may have its own, in lower case with
// underscores, such as "report_sent".
type Kind string

// The kinds of action of an agent's life.
const (
	AgentLoop        Kind = "agent_loop"
	ToolUse          Kind = "tool_use"
	LLMCall          Kind = "llm_call"
	MemoryLoad       Kind = "memory_load"
	MemorySave       Kind = "memory_save"
	MemoryDelete     Kind = "memory_delete"
	SpecialistInvoke Kind = "specialist_invoke"
	PermissionCheck  Kind = "permission_check"
	CheckpointSave   Kind = "checkpoint_save"
	Interrupt        Kind = "interrupt"
	PlanGeneration   Kind = "plan_generation"
	// Retrieval looks documents up, and Chain is a step of a program around the
	// models.
	Retrieval Kind = "retriever"
	Chain     Kind = "chain"
)

// MCPRequest is a request of the Model Context Protocol that has no kind of its
// own.
const MCPRequest Kind = "mcp_request"

// Pre is the event before an action of this kind.
func (k Kind) Pre() Event {
	if e, ok := events[k]; ok {
		return e.pre
	}
	return Event(prefixPre + string(k))
}

// Post is the event after an action of this kind.
func (k Kind) Post() Event {
	if e, ok := events[k]; ok {
		return e.post
	}
	return Event(prefixPost + string(k))
}

// Event is a point in an agent's life: the beginning (pre_…) or the end (post_…)
// of an action. An event without such a prefix is an action that is over when it
// is told.
type Event string

// The documented events.
const (
	PreAgentLoop         Event = "pre_agent_loop"
	PostAgentLoop        Event = "post_agent_loop"
	PreToolUse           Event = "pre_tool_use"
	PostToolUse          Event = "post_tool_use"
	PreLLMCall           Event = "pre_llm_call"
	PostLLMCall          Event = "post_llm_call"
	PreMemoryLoad        Event = "pre_memory_load"
	PostMemoryLoad       Event = "post_memory_load"
	PreMemorySave        Event = "pre_memory_save"
	PostMemorySave       Event = "post_memory_save"
	PreMemoryDelete      Event = "pre_memory_delete"
	PostMemoryDelete     Event = "post_memory_delete"
	PreSpecialistInvoke  Event = "pre_specialist_invoke"
	PostSpecialistInvoke Event = "post_specialist_invoke"
	PrePermissionCheck   Event = "pre_permission_check"
	PostPermissionCheck  Event = "post_permission_check"
	PreCheckpointSave    Event = "pre_checkpoint_save"
	PostCheckpointSave   Event = "post_checkpoint_save"
	PreInterrupt         Event = "pre_interrupt"
	PostInterrupt        Event = "post_interrupt"
	PrePlanGeneration    Event = "pre_plan_generation"
	PostPlanGeneration   Event = "post_plan_generation"
)

const prefixPre, prefixPost = "pre_", "post_"

// Kind is the kind of action that the event is about.
func (e Event) Kind() Kind {
	if k, ok := strings.CutPrefix(string(e), prefixPre); ok {
		return Kind(k)
	}
	return Kind(strings.TrimPrefix(string(e), prefixPost))
}

// begins tells the beginning of an action from its end.
func (e Event) begins() bool { return strings.HasPrefix(string(e), prefixPre) }

// Data is what an agent says about an event. Every field may be left out. What
// was said before an action holds after it too, unless it is said anew.
//
// Inputs, Outputs and Metadata are read before Trigger returns, and may change
// after that.
type Data struct {
	// AgentID is who acts; empty means whoever the enclosing action is of.
	AgentID string
	// Name is what is acted with: the tool, the model, the specialist. It
	// follows an entry's action after a colon.
	Name string
	// Inputs and Outputs are what went in and what came out.
	Inputs, Outputs audit.Object
	// Err is why the action failed. context.Canceled, context.DeadlineExceeded
	// and fs.ErrPermission in it make the outcome cancelled, timeout and denied.
	Err error
	// Outcome is what more there is to say: denied, cancelled, timeout, unknown,
	// or the agent's own. With these four the action has not succeeded.
	Outcome string
	// Duration is how long an action took whose beginning was not told.
	Duration time.Duration
	// Resource is what was acted on, Authority what allowed or refused it (rule
	// or approver, method, on whose behalf), Purpose why data is processed.
	Resource, Authority audit.Object
	Purpose             string
	// Metadata is added to that of the context (WithMetadata), for this action
	// alone.
	Metadata map[string]any
	// Setup is what the agent is made of, in a PreAgentLoop.
	Setup *Setup
}

// Context is what a hook is told of one event. It is the same for all hooks and
// must not be changed.
type Context struct {
	Event Event
	Data  // as in the call of Trigger, with what was said before an action

	// TraceID names the run, SpanID the action, ParentSpanID the action around
	// it; they have the sizes of W3C Trace Context.
	TraceID, SpanID, ParentSpanID string
	// Time is when the action began.
	Time time.Time

	meta   *metadata       // Data.Metadata, where the action added none
	open   *action         // the action that begins or ends; nil for one that was never begun
	frozen [4]frozenObject // Inputs, Outputs, Resource, Authority
}

// success tells whether the action succeeded, and what more there is to say.
func (c *Context) success() (ok bool, outcome string) {
	outcome = c.Outcome
	if outcome == "" && c.Err != nil {
		switch {
		case errors.Is(c.Err, context.Canceled):
			outcome = cancelled
		case errors.Is(c.Err, context.DeadlineExceeded):
			outcome = timedOut
		case errors.Is(c.Err, fs.ErrPermission):
			outcome = denied
		}
	}
	switch outcome {
	case denied, cancelled, timedOut, unknown:
		return false, outcome
	}
	return c.Err == nil, outcome
}

// Outcomes of an entry that say more than its success.
const (
	denied    = "denied"
	cancelled = "cancelled"
	timedOut  = "timeout"
	unknown   = "unknown"
)

// agentUnspecified is the agent of an action that nobody has said the agent of.
const agentUnspecified = "unspecified"

// names are the event type and the action, without a name, of a kind's entries.
type names struct{ eventType, action string }

// named is the action of an entry.
func (n names) named(name string) string {
	if name == "" {
		return n.action
	}
	return n.action + ":" + name
}

// kinds are the documented kinds. docs/hooks.md has the same table.
var kinds = map[Kind]names{
	AgentLoop:        {audit.AgentLoopEnd, "agent_execution_end"},
	ToolUse:          {audit.ToolUse, "tool_use"},
	LLMCall:          {audit.LLMCall, "llm_call"},
	MemoryLoad:       {audit.MemoryLoad, "memory_load"},
	MemorySave:       {audit.MemorySave, "memory_save"},
	MemoryDelete:     {audit.MemoryDelete, "memory_delete"},
	SpecialistInvoke: {audit.SpecialistInvoke, "specialist_invoke"},
	PermissionCheck:  {audit.PermissionCheck, "permission_check"},
	CheckpointSave:   {audit.CheckpointSave, "checkpoint_save"},
	Interrupt:        {audit.Interrupt, "interrupt"},
	PlanGeneration:   {audit.PlanGeneration, "plan_generation"},
	Retrieval:        {audit.DataAccess, "retriever"},
	Chain:            {"CHAIN_RUN", "chain"},
	ConfigChange:     {audit.ConfigChange, "config_change"},
	MCPRequest:       {"MCP_REQUEST", "mcp"},
}

// events are those of the documented kinds: made once, not for each action.
var events = func() map[Kind]struct{ pre, post Event } {
	all := make(map[Kind]struct{ pre, post Event }, len(kinds))
	for k := range kinds {
		all[k] = struct{ pre, post Event }{Event(prefixPre + string(k)), Event(prefixPost + string(k))}
	}
	return all
}()

// begun names the entry before an action: a loop always has one.
func (k Kind) begun() names {
	if k == AgentLoop {
		return names{audit.AgentLoopStart, "agent_execution_start"}
	}
	n := k.names()
	return names{n.eventType + "_START", n.action + "_start"}
}

// names names the entry of an action.
func (k Kind) names() names {
	if n, ok := kinds[k]; ok {
		return n
	}
	return names{eventType(string(k)), valid(string(k))}
}

// eventType makes an event type of the form that a trail takes of a kind's name,
// and none of the trail's own.
func eventType(kind string) string {
	b := []byte(strings.Map(func(c rune) rune {
		switch {
		case c >= 'a' && c <= 'z':
			return c - 'a' + 'A'
		case c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
			return c
		}
		return '_'
	}, kind))
	// Of the 128 bytes that a type may have, _START and HOOK_ need eleven.
	b = b[:min(len(b), 100)]
	if s := string(b); s != "" && s[0] >= 'A' && s[0] <= 'Z' && !strings.HasPrefix(s, "AUDIT_") {
		return s
	}
	return "HOOK_" + string(b)
}
