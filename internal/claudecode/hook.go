package claudecode

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/kaizen-audit/kaizen-audit/entry"
)

// Agent is the agent_id of every event.
const Agent = "claude-code"

// Event types that the documented ones have no name for.
const (
	userPrompt     = "USER_PROMPT"
	agentResponse  = "AGENT_RESPONSE"
	contextCompact = "CONTEXT_COMPACT"
	notification   = "NOTIFICATION"
	otherHook      = "AGENT_HOOK"
)

// Names of hook events that are treated in ways of their own.
const (
	preToolUse         = "PreToolUse"
	postToolUse        = "PostToolUse"
	postToolUseFailure = "PostToolUseFailure"
	permissionRequest  = "PermissionRequest"
	permissionDenied   = "PermissionDenied"
	stopFailure        = "StopFailure"
	sessionEnd         = "SessionEnd"
)

// kinds are the events that are known: the entry's type, its action, and the
// member whose text follows the action after a colon.
var kinds = map[string]struct{ eventType, action, of string }{
	"SessionStart":     {entry.AgentLoopStart, "session_start", ""},
	sessionEnd:         {entry.AgentLoopEnd, "session_end", ""},
	"UserPromptSubmit": {userPrompt, "user_prompt", ""},
	preToolUse:         {entry.ToolUse, "tool_use", "tool_name"},
	postToolUse:        {entry.ToolUse, "tool_use", "tool_name"},
	postToolUseFailure: {entry.ToolUse, "tool_use", "tool_name"},
	permissionRequest:  {entry.PermissionCheck, "permission_request", "tool_name"},
	permissionDenied:   {entry.PermissionCheck, "permission_denied", "tool_name"},
	"Stop":             {agentResponse, "stop", ""},
	stopFailure:        {agentResponse, "stop_failure", ""},
	"SubagentStart":    {entry.SpecialistInvoke, "subagent_start", "agent_type"},
	"SubagentStop":     {entry.SpecialistInvoke, "subagent_stop", "agent_type"},
	"PreCompact":       {contextCompact, "pre_compact", "trigger"},
	"Notification":     {notification, "notification", "notification_type"},
	"ConfigChange":     {entry.ConfigChange, "config_change", "source"},
}

// Events are the names of the hook events that are asked for at an
// installation.
var Events = []string{
	"SessionStart", sessionEnd, "UserPromptSubmit", preToolUse, postToolUse, postToolUseFailure, permissionRequest, permissionDenied,
	"Stop", stopFailure, "SubagentStart", "SubagentStop", "PreCompact", "Notification", "ConfigChange",
}

// metadataNames are the members that all hooks share, and what they are called
// in metadata: an entry's agent_id is the agent, so a subagent's has another
// name.
var metadataNames = map[string]string{
	"session_id": "session_id", "prompt_id": "prompt_id", "transcript_path": "transcript_path", "cwd": "cwd",
	"scratchpad_dir": "scratchpad_dir", "permission_mode": "permission_mode", "effort": "effort",
	"hook_event_name": "hook_event_name", "agent_id": "subagent_id", "agent_type": "subagent_type",
	"tool_use_id": "tool_use_id", "mcp_server": "mcp_server",
}

// Hook is what Claude Code handed to one hook.
type Hook struct {
	// Name is hook_event_name, SessionID and ToolUseID what they say; "" where
	// they are missing.
	Name, SessionID, ToolUseID string

	members []member // in their order; none where the text is no object
	text    []byte
}

type member struct {
	name  string
	value json.RawMessage
}

// Parse reads a hook. It takes whatever there is: text that is no JSON object,
// or one with a name twice, has no members.
func Parse(text []byte) *Hook {
	h := &Hook{text: text}
	members, err := membersOf(text)
	if err != nil {
		return h
	}
	h.members = members
	h.Name, h.SessionID, h.ToolUseID = h.string("hook_event_name"), h.string("session_id"), h.string("tool_use_id")
	return h
}

// membersOf splits an object. The values are checked for their syntax only.
func membersOf(text []byte) ([]member, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("no object")
	}
	var members []member
	seen := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, err
		}
		m := member{name: t.(string)} // a decoder gives nothing else here
		if seen[m.name] {
			return nil, errors.New("a member twice")
		}
		seen[m.name] = true
		if err := d.Decode(&m.value); err != nil {
			return nil, err
		}
		members = append(members, m)
	}
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("more than one object")
	}
	return members, nil
}

// get gives a member's value, nil when it is missing or null.
func (h *Hook) get(name string) json.RawMessage {
	for _, m := range h.members {
		if m.name == name && string(m.value) != "null" {
			return m.value
		}
	}
	return nil
}

// string gives a member that is a string, "" otherwise.
func (h *Hook) string(name string) string { return textOf(h.get(name)) }

func textOf(value json.RawMessage) string {
	var s string
	if json.Unmarshal(value, &s) != nil {
		return ""
	}
	return s
}

// Begins tells whether the hook begins a tool call: that is an entry once it is
// answered, or known not to be.
func (h *Hook) Begins() bool { return h.Name == preToolUse }

// Answers tells whether the hook ends a tool call that another one began.
func (h *Hook) Answers() bool {
	return h.Name == postToolUse || h.Name == postToolUseFailure || h.Name == permissionDenied
}

// EndsSession tells whether no more tool calls of the session are answered.
func (h *Hook) EndsSession() bool { return h.Name == sessionEnd }

// Event is what a hook says that was read at now. begun is the tool call that
// it answers, nil where that is not known.
func (h *Hook) Event(now time.Time, begun *Begun) entry.Event {
	ev := entry.Event{Timestamp: now, AgentID: Agent, TraceID: h.SessionID}
	kind, known := kinds[h.Name]
	switch {
	case known:
		ev.EventType, ev.Action = kind.eventType, kind.action
		if of := h.string(kind.of); of != "" {
			ev.Action += ":" + of
		} else if kind.of == "tool_name" {
			ev.Action += ":unknown"
		}
	case h.Name == "":
		ev.EventType, ev.Action = otherHook, "hook:unknown"
	default:
		ev.EventType, ev.Action = otherHook, "hook:"+h.Name
	}
	ev.ParentSpanID = h.SessionID
	if subagent := h.string("agent_id"); subagent != "" {
		ev.ParentSpanID = subagent
	}
	switch {
	case h.Name == "SessionStart":
		ev.SpanID, ev.ParentSpanID = h.SessionID, ""
	case ev.EventType == entry.SpecialistInvoke:
		ev.SpanID, ev.ParentSpanID = h.string("agent_id"), h.SessionID
	case h.Answers() || h.Begins():
		ev.SpanID = h.ToolUseID
	}
	if h.members == nil {
		ev.Inputs = entry.Raw(h.text) // which it can't be: the fact is kept
		return ev
	}
	h.fill(&ev)
	h.result(&ev, begun)
	return ev
}

// fill puts every member that is not the result into its place.
func (h *Hook) fill(ev *entry.Event) {
	ofTool := h.get("tool_name") != nil || h.get("tool_input") != nil
	var inputs, outputs, metadata object
	for _, m := range h.members {
		name, shared := metadataNames[m.name]
		switch {
		case string(m.value) == "null":
		case shared:
			metadata.add(name, m.value)
		case m.name == "tool_name" && h.string("tool_name") != "":
			// it is the action
		case m.name == "error" && h.fails():
			// it is the error
		case ofTool && (m.name == "tool_input" || m.name == "tool_response"):
		case m.name == "last_assistant_message", h.Name == permissionDenied && m.name == "reason":
			outputs.add(m.name, m.value)
		case ofTool && (m.name == "duration_ms" || m.name == "is_interrupt") && h.Answers():
		case ofTool:
			metadata.add(m.name, m.value)
		default:
			inputs.add(m.name, m.value)
		}
	}
	ev.Inputs, ev.Outputs, ev.Metadata = inputs.object(), outputs.object(), metadata.object()
	if ofTool {
		ev.Inputs = raw(h.get("tool_input"))
		if r := h.get("tool_response"); r != nil {
			ev.Outputs = raw(r)
		}
	}
}

// fails tells whether the hook is about a failure.
func (h *Hook) fails() bool { return h.Name == postToolUseFailure || h.Name == stopFailure }

// result says how it went and how long it took.
func (h *Hook) result(ev *entry.Event, begun *Begun) {
	switch {
	case h.fails():
		ev.Success = new(false)
		if e := h.get("error"); e != nil {
			s := textOf(e)
			if s == "" {
				s = string(e)
			}
			ev.Error = &s
		}
		if string(h.get("is_interrupt")) == "true" {
			ev.Outcome = "cancelled"
		}
	case h.Name == permissionDenied:
		ev.Success, ev.Outcome = new(false), "denied"
	}
	if !h.Answers() {
		return
	}
	// What the tool itself took, as the agent measured it, else the time
	// between the two hooks, which has the waiting for a permission in it.
	var ms float64
	measured := json.Unmarshal(h.get("duration_ms"), &ms) == nil && ms >= 0
	if begun != nil {
		since := ev.Timestamp.Sub(begun.At)
		ev.Timestamp = begun.At
		if !measured {
			ms = max(0, float64(since.Microseconds())/1e3)
		}
		if ev.Inputs.IsZero() {
			ev.Inputs = begun.Event.Inputs
			ev.NotePolicy(begun.Event.PolicyNotes())
		}
	} else if measured {
		ev.Timestamp = ev.Timestamp.Add(-time.Duration(min(ms, maxDuration) * float64(time.Millisecond)))
	}
	ev.DurationMS = ms
}

// maxDuration bounds, in milliseconds, what a hook's duration_ms can do to a
// timestamp: no tool call takes a month.
const maxDuration = 30 * 24 * 3600 * 1000

// raw is a value as an object of an event; absent where there is none.
func raw(value json.RawMessage) entry.Object {
	if value == nil {
		return entry.Object{}
	}
	return entry.Raw(value)
}

// object is a JSON object that is being written.
type object struct{ text []byte }

// add adds a member. A value that can't be kept is replaced here: the others
// must not go with it.
func (o *object) add(name string, value []byte) {
	if len(o.text) == 0 {
		o.text = append(o.text, '{')
	} else {
		o.text = append(o.text, ',')
	}
	o.text, _ = entry.AppendString(o.text, strings.ToValidUTF8(name, "\ufffd"))
	o.text = append(o.text, ':')
	text, err := entry.AppendCompact(o.text, value, 2)
	if s := textOf(value); err != nil && s != "" { // what is no Unicode in it is U+FFFD by now
		text, err = entry.AppendCompact(o.text, quote(s), 2)
	}
	if err != nil {
		reason := "it can't be kept"
		if syntax, ok := errors.AsType[*entry.SyntaxError](err); ok {
			reason = syntax.Reason
		}
		note, _ := json.Marshal(map[string]any{"omitted": reason, "bytes": len(value)}) // of a string and a number
		text = append(o.text, note...)
	}
	o.text = text
}

func (o *object) addText(name, text string) {
	if text != "" {
		quoted, _ := entry.AppendString(nil, strings.ToValidUTF8(text, "\ufffd"))
		o.add(name, quoted)
	}
}

func (o *object) object() entry.Object {
	if len(o.text) == 0 {
		return entry.Object{}
	}
	return entry.Raw(append(o.text, '}'))
}
