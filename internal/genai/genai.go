// Package genai is the one place where something that an agent did becomes an
// audit event: a model call, a tool call, a retrieval, a memory operation, a
// run of an agent. Whoever observes one, in whatever vocabulary, fills an
// [Operation]; [Operation.Event] gives it its event type, its action and the
// members of its inputs and outputs. So the same thing has the same name from
// every way in.
//
// Nothing here does I/O. No credential that a header carried is in an event:
// values that came as JSON go through [Parse] or [Clean].
package genai

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kaizen-audit/kaizen-audit/entry"
)

// Kind is what an operation was.
type Kind uint8

// The kinds of operations.
const (
	Span         Kind = iota // nothing that is known here
	ModelCall                // chat, completion, generation
	Embedding                // of texts, by a model
	ToolCall                 // a tool, function or MCP tool was used
	AgentRun                 // an agent's run, whole
	SubAgent                 // an agent was invoked by another
	Retrieval                // documents were looked up
	Reranking                // documents were put in order
	MemoryLoad               //
	MemorySave               //
	MemoryDelete             //
	Guardrail                // something was checked before it was allowed
	Plan                     // a plan was made
	AgentChange              // an agent was made or changed
	Chain                    // a step of a program around the models
	MCPRequest               // a request of the Model Context Protocol that is none of the others
	Message                  // one message to or from a model
	CallDetails              // what was said in a model call that is an operation of its own
	Evaluation               // a judgement about an answer
	Exception                // an error that was raised inside an operation
	Log                      // a log record that is none of the others
)

// kinds are event types and what an action begins with. Where verb is empty the
// action is the operation's name.
var kinds = [...]struct {
	eventType, verb string
	unnamed         bool // the name does not follow the verb
}{
	Span:         {eventType: "SPAN"},
	ModelCall:    {eventType: entry.LLMCall, verb: "llm_call"},
	Embedding:    {eventType: entry.LLMCall, verb: "embedding"},
	ToolCall:     {eventType: entry.ToolUse, verb: "tool_use"},
	AgentRun:     {eventType: entry.AgentLoopEnd, verb: "agent_execution_end", unnamed: true},
	SubAgent:     {eventType: entry.SpecialistInvoke, verb: "specialist_invoke"},
	Retrieval:    {eventType: entry.DataAccess, verb: "retriever"},
	Reranking:    {eventType: entry.DataAccess, verb: "reranker"},
	MemoryLoad:   {eventType: entry.MemoryLoad, verb: "memory_load"},
	MemorySave:   {eventType: entry.MemorySave, verb: "memory_save"},
	MemoryDelete: {eventType: entry.MemoryDelete, verb: "memory_delete"},
	Guardrail:    {eventType: entry.PermissionCheck, verb: "guardrail"},
	Plan:         {eventType: entry.PlanGeneration, verb: "plan_generation"},
	AgentChange:  {eventType: entry.ConfigChange, verb: "create_agent"},
	Chain:        {eventType: "CHAIN_RUN", verb: "chain"},
	MCPRequest:   {eventType: "MCP_REQUEST", verb: "mcp"},
	Message:      {eventType: "LLM_MESSAGE", verb: "llm_message"},
	CallDetails:  {eventType: "LLM_CALL_DETAILS", verb: "llm_call_details"},
	Evaluation:   {eventType: "EVALUATION", verb: "evaluation"},
	Exception:    {eventType: "EXCEPTION", verb: "exception"},
	Log:          {eventType: "LOG"},
}

// EventType is the event_type of operations of this kind.
func (k Kind) EventType() string { return kinds[k].eventType }

// Operation is one thing that happened. What is not known stays empty, and is
// then not in the event.
type Operation struct {
	Kind Kind
	// Name is the model that was asked, the tool, the agent invoked, the store:
	// what an action names. Of a Span or Log it is the whole action.
	Name string
	// Agent is who did it, the event's agent_id.
	Agent                         string
	TraceID, SpanID, ParentSpanID string
	Start                         time.Time
	Duration                      time.Duration // 0 where negative

	Failed  bool
	Error   string // said only where Failed
	Outcome string // denied, cancelled, timeout, unknown

	// Of a model call, and of what is made of them. Model was asked for,
	// ResponseModel has answered.
	Provider, Model, ResponseModel, ResponseID string
	// System are instructions apart from the messages; Messages is what the
	// model was given, an array; Input is what was given in another form.
	System, Messages, Input JSON
	// Tools are the definitions that the model could choose from.
	Tools      JSON
	Parameters JSON // an object: temperature, max_tokens, …
	// Answer is the array of messages that came back; Output is what came in
	// another form, ToolCalls the calls that are not in either.
	Answer, Output, ToolCalls JSON
	FinishReasons             JSON
	// Usage has input_tokens, output_tokens, total_tokens,
	// cache_read_input_tokens, cache_write_input_tokens,
	// reasoning_output_tokens: the first two include the others.
	Usage Object

	// Of a tool call: all of its inputs and outputs.
	Arguments, Result JSON
	CallID            string

	// Of a retrieval.
	Query, Documents JSON

	// Inputs and Outputs are further members of the two.
	Inputs, Outputs Object
	// Metadata is the event's: user_id, session_id, ip_address, … and whatever
	// has no other place.
	Metadata Object
}

// Action is the event's action.
func (o *Operation) Action() string {
	k := kinds[o.Kind]
	switch {
	case k.verb == "" && o.Name == "":
		return "unnamed"
	case k.verb == "":
		return o.Name
	case k.unnamed || o.Name == "" && o.Kind != ToolCall:
		return k.verb
	case o.Name == "":
		return k.verb + ":unknown"
	}
	return k.verb + ":" + o.Name
}

// Lacks tells which of a call's inputs and outputs its observer did not tell,
// which most senders do by default. Of other operations nothing is missing.
func (o *Operation) Lacks() (inputs, outputs bool) {
	switch o.Kind {
	case ModelCall:
		return none(o.Messages, o.Input, o.System), none(o.Answer, o.Output, o.ToolCalls) && !o.Failed
	case ToolCall:
		return none(o.Arguments), none(o.Result) && !o.Failed
	}
	return false, false
}

// redacted is what OpenInference's instrumentations send for a hidden value
// (its specification, configuration).
const redacted = `"__REDACTED__"`

func none(values ...JSON) bool {
	return !slices.ContainsFunc(values, func(v JSON) bool { return len(v) > 0 && string(v) != redacted })
}

// Missing is the member of metadata that says which of inputs and outputs an
// operation lacks: "inputs", "outputs" or "inputs,outputs".
const Missing = "content_missing"

// Event is the operation as an event. Its objects share the operation's memory.
func (o *Operation) Event() entry.Event {
	valid := func(s string) string { return strings.ToValidUTF8(s, "\ufffd") }
	ev := entry.Event{
		Timestamp: o.Start, EventType: kinds[o.Kind].eventType, AgentID: valid(o.Agent), TraceID: valid(o.TraceID), Action: valid(o.Action()),
		DurationMS: max(0, float64(o.Duration)/1e6), SpanID: valid(o.SpanID), ParentSpanID: valid(o.ParentSpanID), Outcome: o.Outcome,
	}
	if o.Failed {
		ev.Success = new(false)
		if o.Error != "" {
			ev.Error = new(valid(o.Error))
		}
	}
	if o.Kind == ToolCall {
		ev.Inputs, ev.Outputs = whole(o.Arguments, &o.Inputs), whole(o.Result, &o.Outputs)
	} else {
		ev.Inputs, ev.Outputs = o.inputs().object(), o.outputs().object()
	}
	meta := &o.Metadata
	meta.AddText("provider", o.Provider)
	meta.AddText("tool_call_id", o.CallID)
	switch in, out := o.Lacks(); {
	case in && out:
		meta.AddText(Missing, "inputs,outputs")
	case in:
		meta.AddText(Missing, "inputs")
	case out:
		meta.AddText(Missing, "outputs")
	}
	ev.Metadata = meta.object()
	return ev
}

// whole is a value that is all of a tool's inputs or outputs, if there is
// nothing else.
func whole(v JSON, more *Object) entry.Object {
	if more.Empty() {
		if len(v) == 0 {
			return entry.Object{}
		}
		return entry.Raw(v)
	}
	more.Add("value", v)
	return more.object()
}

func (o *Operation) inputs() *Object {
	in := &Object{}
	in.AddText("model", o.Model)
	in.Add("system_instructions", o.System)
	in.Add("messages", o.Messages)
	in.Add("input", o.Input)
	in.Add("query", o.Query)
	in.Add("arguments", o.Arguments)
	in.Add("tools", o.Tools)
	in.Add("parameters", o.Parameters)
	in.join(o.Inputs)
	return in
}

func (o *Operation) outputs() *Object {
	out := &Object{}
	out.Add("messages", o.Answer)
	out.Add("output", o.Output)
	out.Add("tool_calls", o.ToolCalls)
	out.Add("documents", o.Documents)
	out.Add("result", o.Result)
	out.Add("finish_reasons", o.FinishReasons)
	out.AddText("model", o.ResponseModel)
	out.AddText("response_id", o.ResponseID)
	out.AddObject("usage", o.Usage)
	out.join(o.Outputs)
	return out
}

// JSON is a JSON value that an entry takes where it stands at most 8 levels
// deep: valid, without a name twice in one object. Empty means absent.
type JSON []byte

// Object is a JSON object that is being written, member by member. Nobody but
// who writes it sees to it that no name comes twice.
type Object struct{ text []byte }

// Empty tells whether it has no member.
func (o *Object) Empty() bool { return len(o.text) == 0 }

// Add adds a member, none where the value is absent.
func (o *Object) Add(name string, value JSON) {
	if len(value) > 0 {
		o.text = append(o.Name(name), value...)
	}
}

// AddText adds a member, none where the text is empty. What is no UTF-8 in it
// becomes U+FFFD.
func (o *Object) AddText(name, text string) {
	if text != "" {
		o.text = AppendText(o.Name(name), text)
	}
}

// AddInt adds a member that is a number.
func (o *Object) AddInt(name string, n int64) { o.text = strconv.AppendInt(o.Name(name), n, 10) }

// AddObject adds a member, none where the object is empty.
func (o *Object) AddObject(name string, value Object) {
	if !value.Empty() {
		o.text = append(append(o.Name(name), value.text...), '}')
	}
}

// Name begins a member and gives the text so far, for a value to be appended
// to. What is made of it is Set.
func (o *Object) Name(name string) []byte {
	if len(o.text) == 0 {
		if o.text == nil {
			o.text = make([]byte, 0, 256)
		}
		o.text = append(o.text, '{')
	} else {
		o.text = append(o.text, ',')
	}
	return append(AppendText(o.text, name), ':')
}

// Set ends the member that Name began.
func (o *Object) Set(text []byte) { o.text = text }

// join adds the members of another object, whose names are others.
func (o *Object) join(other Object) {
	switch {
	case other.Empty():
	case o.Empty():
		o.text = other.text
	default:
		o.text = append(append(o.text, ','), other.text[1:]...)
	}
}

// JSON is the object as a value, absent where it has no member. Nothing can be
// added after it.
func (o Object) JSON() JSON {
	if o.Empty() {
		return nil
	}
	return append(slices.Clip(o.text), '}')
}

func (o Object) object() entry.Object {
	if o.Empty() {
		return entry.Object{}
	}
	return entry.Raw(append(o.text, '}'))
}
