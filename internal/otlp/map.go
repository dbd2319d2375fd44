package otlp

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/genai"
)

// operations are the kinds of gen_ai.operation.name
// (semantic-conventions-genai 0.1.0, and those of OpenLLMetry and the AI SDK).
var operations = map[string]genai.Kind{
	"chat": genai.ModelCall, "generate_content": genai.ModelCall, "text_completion": genai.ModelCall, "llm_request": genai.ModelCall,
	"completion": genai.ModelCall, "embeddings": genai.Embedding, "embedding": genai.Embedding,
	"retrieval": genai.Retrieval, "vector_db_retrieve": genai.Retrieval, "rerank": genai.Reranking,
	"execute_tool": genai.ToolCall, "execute_task": genai.Chain, "create_agent": genai.AgentChange,
	"invoke_agent": genai.AgentRun, "invoke_workflow": genai.AgentRun, "plan": genai.Plan,
	"search_memory": genai.MemoryLoad,
	"create_memory": genai.MemorySave, "update_memory": genai.MemorySave, "upsert_memory": genai.MemorySave, "create_memory_store": genai.MemorySave,
	"delete_memory": genai.MemoryDelete, "delete_memory_store": genai.MemoryDelete,
}

// openInferenceKinds are those of openinference.span.kind.
var openInferenceKinds = map[string]genai.Kind{
	"LLM": genai.ModelCall, "EMBEDDING": genai.Embedding, "CHAIN": genai.Chain, "RETRIEVER": genai.Retrieval, "RERANKER": genai.Reranking,
	"TOOL": genai.ToolCall, "AGENT": genai.AgentRun, "GUARDRAIL": genai.Guardrail, "EVALUATOR": genai.Evaluation, "PROMPT": genai.Chain,
}

// traceloopKinds are those of traceloop.span.kind.
var traceloopKinds = map[string]genai.Kind{
	"workflow": genai.AgentRun, "agent": genai.AgentRun, "task": genai.Chain, "tool": genai.ToolCall,
}

// requestTypes are those of llm.request.type.
var requestTypes = map[string]genai.Kind{
	"chat": genai.ModelCall, "completion": genai.ModelCall, "embedding": genai.Embedding, "rerank": genai.Reranking,
}

// aiOperations are those of ai.operationId, in the AI SDK up to 6: the outer
// span of a call is the loop around the calls of the model.
var aiOperations = map[string]genai.Kind{
	"ai.generateText": genai.AgentRun, "ai.streamText": genai.AgentRun, "ai.generateObject": genai.AgentRun, "ai.streamObject": genai.AgentRun,
	"ai.generateText.doGenerate": genai.ModelCall, "ai.streamText.doStream": genai.ModelCall,
	"ai.generateObject.doGenerate": genai.ModelCall, "ai.streamObject.doStream": genai.ModelCall,
	"ai.toolCall": genai.ToolCall, "ai.embed": genai.Chain, "ai.embedMany": genai.Chain,
	"ai.embed.doEmbed": genai.Embedding, "ai.embedMany.doEmbed": genai.Embedding, "ai.rerank": genai.Chain, "ai.rerank.doRerank": genai.Reranking,
}

// kindOf says what a span was: in the words of the conventions first, then of
// the vendors.
func (s *span) kindOf(a *attributes) genai.Kind {
	if k, ok := operations[a.peek(operation)]; ok {
		// An agent that is called over the network, from inside something else.
		if k == genai.AgentRun && s.kind == kindClient && s.parentID != "" {
			return genai.SubAgent
		}
		return k
	}
	if k, ok := openInferenceKinds[a.peek(openInferenceKind)]; ok {
		return k
	}
	if k, ok := traceloopKinds[a.peek(traceloopKind)]; ok {
		return k
	}
	name := a.peek(aiOperation)
	if name == "" {
		name = s.name
	}
	if k, ok := aiOperations[name]; ok {
		return k
	}
	if k, ok := requestTypes[a.peek(requestType)]; ok {
		return k
	}
	switch a.peek(mcpMethod) {
	case "":
	case "tools/call":
		return genai.ToolCall
	case "resources/read":
		return genai.Retrieval
	default:
		return genai.MCPRequest
	}
	if a.has(model) && (a.has(provider) || a.has(inputTokens)) {
		return genai.ModelCall
	}
	return genai.Span
}

// operation is the span as what happened.
func (s *span) operation() *genai.Operation {
	said, told := s.content()
	consumed := false // the events that are messages have their place
	a := newAttributes(said)
	op := &genai.Operation{
		Kind: s.kindOf(a), TraceID: s.traceID, SpanID: s.spanID, ParentSpanID: s.parentID, Start: unix(s.start),
	}
	if s.end > s.start && s.start > 0 {
		op.Duration = time.Duration(min(s.end-s.start, 1<<63-1))
	}
	s.fail(op, a)
	meta := &op.Metadata
	who(op, a, s.resource)
	if op.Kind == genai.Span {
		op.Name = s.name
		op.Inputs = objectOf(s.attributes)
	} else {
		fill(op, a)
		consumed = told > 0 && s.messages(op)
		name(op, a, s.name)
		if op.Action() != s.name {
			meta.AddText("span_name", s.name)
		}
	}
	if s.kind > 0 && s.kind < uint64(len(kindNames)) {
		meta.AddText("span_kind", kindNames[s.kind])
	}
	if op.Kind != genai.Span {
		rest(meta, a)
	}
	s.inside(meta, op.Kind != genai.Span, consumed)
	meta.AddText("trace_state", s.traceState)
	if s.end < s.start {
		meta.AddText("end_time", op.Start.Add(-time.Duration(min(s.start-s.end, 1<<62))).UTC().Format(time.RFC3339Nano))
	}
	dropped(meta, []count3{{"attributes", s.droppedAttributes}, {"events", s.droppedEvents}, {"links", s.droppedLinks}, {"resource_attributes", s.resource.dropped}})
	origin(meta, s.resource, s.scope)
	shorten(op)
	return op
}

// longestName is how long the name of an agent or an action may be, in bytes.
const longestName = 1024

// shorten keeps what is much too long for a name in metadata, where it can be
// left out if it must.
func shorten(op *genai.Operation) {
	for _, n := range []struct {
		name string
		of   *string
	}{{"agent_id", &op.Agent}, {"name", &op.Name}} {
		if len(*n.of) > longestName {
			op.Metadata.AddText(n.name, *n.of)
			*n.of = strings.ToValidUTF8((*n.of)[:longestName], "") + "…"
		}
	}
}

// unix is a time of the sender's, the zero time where it said none.
func unix(nanoseconds uint64) time.Time {
	if nanoseconds == 0 {
		return time.Time{}
	}
	return time.Unix(int64(nanoseconds/1e9), int64(nanoseconds%1e9))
}

// fail says whether it failed, and why.
func (s *span) fail(op *genai.Operation, a *attributes) {
	kind := a.peek(errorType)
	op.Failed = s.status == statusError || kind != ""
	if !op.Failed {
		return
	}
	op.Error = s.statusMessage
	for i := range s.events {
		if e := &s.events[i]; e.name == "exception" {
			said := newAttributes(e.attributes)
			if kind == "" {
				kind = said.peek(exceptionType)
			}
			if op.Error == "" {
				op.Error = said.peek(exceptionMessage)
			}
		}
	}
	if op.Error == "" {
		op.Error = kind
	}
	op.Outcome = outcomes[kind[strings.LastIndexByte(kind, '.')+1:]]
}

// outcomes are errors that say more than that it failed.
var outcomes = map[string]string{
	"timeout": "timeout", "TimeoutError": "timeout", "DeadlineExceeded": "timeout", "APITimeoutError": "timeout", "ReadTimeout": "timeout",
	"CancelledError": "cancelled", "AbortError": "cancelled", "Canceled": "cancelled", "PermissionError": "denied",
}

// who says whose it was.
func who(op *genai.Operation, a *attributes, r *resource) {
	meta := &op.Metadata
	get := a.take
	if op.Kind == genai.Span || op.Kind == genai.Log || op.Kind == genai.Exception {
		get = a.peek // all of its attributes are elsewhere
	}
	meta.AddText("user_id", get(user))
	meta.AddText("session_id", get(session))
	if ip := a.peek(clientAddress); ip != "" {
		if addr, err := netip.ParseAddr(ip); err == nil && addr.Zone() == "" {
			meta.AddText("ip_address", get(clientAddress))
		}
	}
	meta.AddText("user_agent", get(userAgent))
	named := r.named()
	meta.AddText("environment", named.environment)
	meta.AddText("service_name", named.service)
	meta.AddText("service_version", named.version)
	for _, f := range []field{agentID, agentName, workflow, function, node} {
		if op.Agent = get(f); op.Agent != "" {
			break
		}
	}
	if op.Agent == "" && a.peek(traceloopKind) == "agent" {
		op.Agent = get(entityName)
	}
	switch {
	case op.Agent == "" && named.service != "":
		op.Agent = named.service
	case op.Agent == "":
		op.Agent = "unknown"
	}
	if op.Agent == entry.TrailAgent { // that is the trail itself, and nobody else
		op.Agent = "otlp:" + entry.TrailAgent
	}
}

// fill puts what an attribute says into its place.
func fill(op *genai.Operation, a *attributes) {
	for _, f := range []field{operation, openInferenceKind, traceloopKind, aiOperation, requestType} {
		if a.at[f] > 0 && op.Kind != genai.AgentChange {
			a.used[a.at[f]-1] = known(f, a.peek(f))
		}
	}
	op.Provider, op.Model = a.take(provider), a.take(model)
	op.ResponseModel, op.ResponseID = a.take(responseModel), a.take(responseID)
	op.FinishReasons = a.list(finishReasons)
	op.System, op.Messages = a.json(system), a.json(messages)
	if op.Messages == nil {
		op.Messages = a.unflatten(messages)
	}
	op.Input, op.Output = a.json(input), a.json(output)
	if op.Answer = a.json(answer); op.Answer == nil {
		op.Answer = a.unflatten(answer)
	}
	if op.Output == nil {
		op.Output = a.json(object)
	}
	op.ToolCalls = a.json(toolCalls)
	if op.Tools = a.json(tools); op.Tools == nil {
		op.Tools = a.unflatten(tools)
	}
	op.Parameters = parameters(a)
	a.count(inputTokens, "input_tokens", &op.Usage)
	a.count(outputTokens, "output_tokens", &op.Usage)
	a.count(totalTokens, "total_tokens", &op.Usage)
	a.count(cacheRead, "cache_read_input_tokens", &op.Usage)
	a.count(cacheWrite, "cache_write_input_tokens", &op.Usage)
	a.count(reasoning, "reasoning_output_tokens", &op.Usage)
	op.Query = a.json(query)
	if op.Documents = a.json(documents); op.Documents == nil {
		op.Documents = a.unflatten(documents)
	}
	if op.Input == nil {
		op.Input = a.unflatten(input)
	}
	if op.Output == nil {
		op.Output = a.unflatten(output)
	}
	op.Arguments, op.Result, op.CallID = a.json(arguments), a.json(result), a.take(callID)
	if op.Kind == genai.ToolCall {
		toolCall(op, a)
	}
}

// known tells whether an attribute of a kind has done its work.
func known(f field, s string) bool {
	var ok bool
	switch f {
	case operation:
		_, ok = operations[s]
		ok = ok && !strings.Contains(s, "_memory") && s != "invoke_workflow"
	case openInferenceKind:
		_, ok = openInferenceKinds[s]
	case traceloopKind:
		_, ok = traceloopKinds[s]
	case aiOperation:
		_, ok = aiOperations[s]
	case requestType:
		_, ok = requestTypes[s]
	}
	return ok
}

// toolCall has its arguments as its whole inputs, its result as its whole
// outputs, wherever they were said.
func toolCall(op *genai.Operation, a *attributes) {
	if op.Arguments == nil {
		op.Arguments, op.Input = op.Input, nil
	}
	if op.Arguments == nil {
		op.Arguments = a.json(toolParameters)
	}
	if op.Result == nil {
		op.Result, op.Output = op.Output, nil
	}
	// What else was said of the call; ADK's tool spans have such, empty.
	for _, more := range []struct {
		name string
		v    genai.JSON
	}{{"input", op.Input}, {"messages", op.Messages}, {"output", op.Output}, {"answer", op.Answer}} {
		if string(more.v) != "{}" {
			op.Metadata.Add(more.name, more.v)
		}
	}
}

// parameters are those that the model was called with.
func parameters(a *attributes) genai.JSON {
	const prefix = "gen_ai.request."
	var p genai.Object
	var seen names
	for i := range a.all {
		if key := a.all[i].key; !a.used[i] && strings.HasPrefix(key, prefix) && len(key) > len(prefix) {
			if _, ok := places[key]; ok {
				continue
			}
			a.used[i] = true
			p.Set(appendAttribute(p.Name(seen.unique(key[len(prefix):])), &a.all[i]))
		}
	}
	if v := a.json(invocation); p.Empty() {
		return v
	} else if v != nil {
		p.Add(seen.unique("invocation_parameters"), v)
	}
	return p.JSON()
}

// name is what the action names.
func name(op *genai.Operation, a *attributes, spanName string) {
	switch op.Kind {
	case genai.ModelCall, genai.Embedding:
		op.Name = op.Model
		if op.Name == "" {
			op.Name = op.ResponseModel
		}
	case genai.CallDetails:
		op.Name = op.Model
	case genai.ToolCall:
		if op.Name = a.take(toolName); op.Name == "" && a.peek(traceloopKind) == "tool" {
			op.Name = a.take(entityName)
		}
		if op.Name == "" && (a.has(openInferenceKind) || a.has(traceloopKind)) {
			op.Name = spanName
		}
	case genai.SubAgent:
		op.Name = op.Agent
	case genai.AgentChange:
		op.Name = op.Agent
	case genai.Retrieval, genai.Reranking:
		if op.Name = a.take(source); op.Name == "" {
			op.Name = op.Model
		}
		if op.Name == "" && a.has(openInferenceKind) {
			op.Name = spanName
		}
	case genai.MemoryLoad, genai.MemorySave, genai.MemoryDelete:
		op.Name = a.take(store)
	case genai.MCPRequest:
		op.Name = a.take(mcpMethod)
	case genai.Chain, genai.Guardrail:
		if op.Name = a.take(entityName); op.Name == "" {
			op.Name = spanName
		}
	case genai.Evaluation:
		if op.Name = a.take(evaluation); op.Name == "" {
			op.Name = spanName
		}
	}
}

// rest keeps what has found no place.
func rest(meta *genai.Object, a *attributes) {
	for i := range a.used {
		if !a.used[i] {
			meta.Set(appendMembers(meta.Name("attributes"), a.all, a.used))
			return
		}
	}
}

// contentEvents are events of a span that say what its attributes could.
var contentEvents = map[string]bool{
	"gen_ai.content.prompt": true, "gen_ai.content.completion": true, "gen_ai.client.inference.operation.details": true,
}

// content gives the attributes of a span with those of its events that are the
// same in another place, and the number of its events that are a message each.
func (s *span) content() (all []attribute, told int) {
	all = slices.Clip(s.attributes) // the span keeps its own
	for i := range s.events {
		if e := &s.events[i]; contentEvents[e.name] {
			all = append(all, e.attributes...)
		} else if messageRoles[e.name] != "" {
			told++
		}
	}
	return all, told
}

// messages takes the messages that are events of a span, unless it has others.
func (s *span) messages(op *genai.Operation) bool {
	if op.Messages != nil || op.Answer != nil {
		return false
	}
	var in, out []byte
	for i := range s.events {
		e := &s.events[i]
		role := messageRoles[e.name]
		if role == "" {
			continue
		}
		to := &in
		if role == "choice" {
			to, role = &out, "assistant"
		}
		if *to == nil {
			*to = append(*to, '[')
		} else {
			*to = append(*to, ',')
		}
		var m genai.Object
		var seen names
		if !slices.ContainsFunc(e.attributes, func(a attribute) bool { return a.key == "role" }) {
			m.AddText(seen.unique("role"), role)
		}
		for j := range e.attributes {
			m.Set(appendAttribute(m.Name(seen.unique(e.attributes[j].key)), &e.attributes[j]))
		}
		*to = append(*to, orEmpty(m)...)
	}
	if in != nil {
		op.Messages = append(in, ']')
	}
	if out != nil {
		op.Answer = append(out, ']')
	}
	return true
}

// inside keeps what happened inside a span, and what it points to. placed says
// that events which are attributes elsewhere have a place of their own, consumed
// that those have which are messages.
func (s *span) inside(meta *genai.Object, placed, consumed bool) {
	left := make([]*event, 0, len(s.events))
	for i := range s.events {
		if e := &s.events[i]; !(placed && contentEvents[e.name]) && !(consumed && messageRoles[e.name] != "") {
			left = append(left, e)
		}
	}
	if len(left) > 0 {
		dst := append(meta.Name("events"), '[')
		for i, e := range left {
			if i > 0 {
				dst = append(dst, ',')
			}
			var o genai.Object
			o.AddText("name", e.name)
			if t := unix(e.time); !t.IsZero() {
				o.AddText("timestamp", t.UTC().Format(entry.TimeLayout))
			}
			more(&o, e.attributes, e.dropped)
			dst = append(dst, orEmpty(o)...)
		}
		meta.Set(append(dst, ']'))
	}
	if len(s.links) > 0 {
		dst := append(meta.Name("links"), '[')
		for i := range s.links {
			if i > 0 {
				dst = append(dst, ',')
			}
			l := &s.links[i]
			var o genai.Object
			o.AddText("trace_id", l.traceID)
			o.AddText("span_id", l.spanID)
			o.AddText("trace_state", l.traceState)
			more(&o, l.attributes, l.dropped)
			dst = append(dst, orEmpty(o)...)
		}
		meta.Set(append(dst, ']'))
	}
}

func more(o *genai.Object, attributes []attribute, dropped uint32) {
	if len(attributes) > 0 {
		o.Set(appendMembers(o.Name("attributes"), attributes, nil))
	}
	if dropped > 0 {
		o.AddInt("dropped_attributes", int64(dropped))
	}
}

func orEmpty(o genai.Object) []byte {
	if v := o.JSON(); v != nil {
		return v
	}
	return []byte("{}")
}

func objectOf(all []attribute) (o genai.Object) {
	var seen names
	for i := range all {
		o.Set(appendAttribute(o.Name(seen.unique(all[i].key)), &all[i]))
	}
	return o
}

type count3 struct {
	name string
	n    uint32
}

// dropped says what the sender had cut off before it sent.
func dropped(meta *genai.Object, counts []count3) {
	var o genai.Object
	for _, c := range counts {
		if c.n > 0 {
			o.AddInt(c.name, int64(c.n))
		}
	}
	meta.AddObject("dropped", o)
}

// named is what of a resource has a place of its own.
type named struct{ service, version, environment string }

func (r *resource) named() named {
	if r.known == nil {
		n := r.read()
		r.known = &n
	}
	return *r.known
}

func (r *resource) read() (n named) {
	old := ""
	for i := range r.attributes {
		if v := &r.attributes[i].value; v.kind == textual {
			switch r.attributes[i].key {
			case "service.name":
				n.service = v.text
			case "service.version":
				n.version = v.text
			case "deployment.environment.name":
				n.environment = v.text
			case "deployment.environment":
				old = v.text
			}
		}
	}
	if n.environment == "" {
		n.environment = old
	}
	return n
}

// origin says who sent it.
func origin(meta *genai.Object, r *resource, s *scope) {
	var scoped genai.Object
	scoped.AddText("name", s.name)
	scoped.AddText("version", s.version)
	if len(s.attributes) > 0 {
		scoped.Set(appendMembers(scoped.Name("attributes"), s.attributes, nil))
	}
	meta.AddObject("scope", scoped)
	schema := s.schema
	if schema == "" {
		schema = r.schema
	}
	meta.AddText("schema_url", schema)
	meta.Add("resource", r.rest())
}

// rest is what of a resource has no place of its own, made once.
func (r *resource) rest() genai.JSON {
	if r.others != nil {
		return *r.others
	}
	n := r.named()
	used := make([]bool, len(r.attributes))
	var others genai.JSON
	for i := range r.attributes {
		if v := &r.attributes[i].value; v.kind == textual {
			switch r.attributes[i].key {
			case "service.name":
				used[i] = v.text == n.service
			case "service.version":
				used[i] = v.text == n.version
			case "deployment.environment.name", "deployment.environment":
				used[i] = v.text == n.environment
			}
		}
	}
	if slices.Contains(used, false) {
		others = appendMembers(nil, r.attributes, used)
	}
	r.others = &others
	return others
}

// messageRoles are the events that are one message each, of the conventions up
// to 1.36.
var messageRoles = map[string]string{
	"gen_ai.system.message": "system", "gen_ai.user.message": "user", "gen_ai.tool.message": "tool",
	"gen_ai.assistant.message": "assistant", "gen_ai.choice": "choice",
}

// operation is the record as what happened. A record inside a span is a child of
// it.
func (r *record) operation() *genai.Operation {
	a := newAttributes(r.attributes)
	name := r.eventName
	if name == "" {
		name = a.peek(eventNamed)
	}
	at := r.time
	if at == 0 {
		at = r.observed
	}
	op := &genai.Operation{Kind: genai.Log, Name: name, TraceID: r.traceID, ParentSpanID: r.spanID, Start: unix(at)}
	role := messageRoles[name]
	switch {
	case role != "":
		op.Kind = genai.Message
	case name == "gen_ai.client.inference.operation.details" && r.spanID == "":
		op.Kind = genai.ModelCall
	case name == "gen_ai.client.inference.operation.details":
		op.Kind = genai.CallDetails // of the span that it is in
	case name == "gen_ai.evaluation.result":
		op.Kind = genai.Evaluation
	case a.has(exceptionType) || a.has(exceptionMessage):
		op.Kind = genai.Exception
	}
	if op.Failed = r.severity >= severityFail || op.Kind == genai.Exception || a.peek(errorType) != ""; op.Failed {
		op.Error = a.peek(exceptionMessage)
		if op.Error == "" && r.body.kind == textual {
			op.Error = r.body.text
		}
		if op.Error == "" {
			op.Error = a.peek(errorType)
		}
	}
	who(op, a, r.resource)
	r.fill(op, a, name, role)
	meta := &op.Metadata
	meta.AddText("severity", r.severityText)
	if r.severity > 0 {
		meta.AddInt("severity_number", int64(r.severity))
	}
	dropped(meta, []count3{{"attributes", r.droppedAttributes}, {"resource_attributes", r.resource.dropped}})
	origin(meta, r.resource, r.scope)
	shorten(op)
	return op
}

// fill puts what a record says into its place.
func (r *record) fill(op *genai.Operation, a *attributes, eventName, role string) {
	body := func(to *genai.Object, name string) {
		if r.body.kind != empty {
			to.Set(appendValue(to.Name(name), &r.body, false))
		}
	}
	switch op.Kind {
	case genai.Message:
		op.Name, op.Provider = role, a.take(provider)
		a.take(eventNamed)
		switch role {
		case "assistant", "choice":
			body(&op.Outputs, "message")
		default:
			body(&op.Inputs, "message")
		}
		rest(&op.Metadata, a)
	case genai.Log, genai.Exception:
		if op.Name == "" && op.Kind == genai.Log {
			op.Name = "log"
		}
		body(&op.Inputs, "body")
		if len(r.attributes) > 0 {
			op.Inputs.Set(appendMembers(op.Inputs.Name("attributes"), r.attributes, nil))
		}
	default:
		a.take(eventNamed)
		fill(op, a)
		name(op, a, eventName)
		body(&op.Inputs, "body")
		rest(&op.Metadata, a)
	}
}

// key is the idempotency key of a span: what is sent again has the same.
func (s *span) key() string {
	return "otlp:" + s.traceID + ":" + s.spanID + ":" + hexDigest(s.digest)
}

// key is the idempotency key of a record, the n-th of its request that says
// the same: records have no id.
func (r *record) key(n int) string {
	k := "otlp:log:" + hexDigest(r.digest)
	if n > 1 {
		k += ":" + strconv.Itoa(n)
	}
	return k
}
