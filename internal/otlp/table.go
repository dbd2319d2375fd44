package otlp

// field is what an attribute means here, whatever vocabulary it is of.
type field uint8

const (
	operation field = iota
	openInferenceKind
	traceloopKind
	aiOperation
	requestType
	mcpMethod

	provider
	model
	responseModel
	responseID
	finishReasons
	system
	messages
	input
	answer
	output
	object
	toolCalls
	tools
	invocation

	inputTokens
	outputTokens
	totalTokens
	cacheRead
	cacheWrite
	reasoning

	agentID
	agentName
	workflow
	function
	node
	entityName

	toolName
	arguments
	result
	toolParameters
	callID

	query
	documents
	source
	store

	user
	session
	clientAddress
	userAgent
	errorType
	exceptionMessage
	exceptionType
	evaluation
	eventNamed

	fields
)

// table is the mapping of attributes: which of them say what. The first that is
// there counts; another that says something else stays in metadata.attributes.
// docs/otlp.md shows it.
var table = [fields][]string{
	operation:         {"gen_ai.operation.name"},
	openInferenceKind: {"openinference.span.kind"},
	traceloopKind:     {"traceloop.span.kind"},
	aiOperation:       {"ai.operationId"},
	requestType:       {"llm.request.type"},
	mcpMethod:         {"mcp.method.name"},

	provider:      {"gen_ai.provider.name", "gen_ai.system", "llm.provider", "llm.system", "ai.model.provider"},
	model:         {"gen_ai.request.model", "llm.request.model_name", "llm.model_name", "embedding.model_name", "reranker.model_name", "ai.model.id"},
	responseModel: {"gen_ai.response.model", "llm.response.model_name", "ai.response.model"},
	responseID:    {"gen_ai.response.id", "ai.response.id"},
	finishReasons: {"gen_ai.response.finish_reasons", "llm.finish_reason", "ai.response.finishReason"},
	system:        {"gen_ai.system_instructions"},
	messages:      {"gen_ai.input.messages", "ai.prompt.messages"},
	input: {"input.value", "traceloop.entity.input", "ai.prompt", "gen_ai.prompt", "gcp.vertex.agent.llm_request",
		"ai.value", "ai.values"},
	answer: {"gen_ai.output.messages"},
	output: {"output.value", "traceloop.entity.output", "ai.response.text", "gen_ai.completion", "gcp.vertex.agent.llm_response",
		"ai.embedding", "ai.embeddings"},
	object:     {"ai.response.object"},
	toolCalls:  {"ai.response.toolCalls"},
	tools:      {"gen_ai.tool.definitions", "ai.prompt.tools"},
	invocation: {"llm.invocation_parameters"},

	inputTokens: {"gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.token_count.prompt", "ai.usage.inputTokens",
		"ai.usage.promptTokens", "ai.usage.tokens"},
	outputTokens: {"gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens", "llm.token_count.completion",
		"ai.usage.outputTokens", "ai.usage.completionTokens"},
	totalTokens: {"gen_ai.usage.total_tokens", "llm.usage.total_tokens", "llm.token_count.total", "ai.usage.totalTokens"},
	cacheRead: {"gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.cache_read_input_tokens",
		"llm.token_count.prompt_details.cache_read", "ai.usage.cachedInputTokens"},
	cacheWrite: {"gen_ai.usage.cache_write.input_tokens", "gen_ai.usage.cache_creation.input_tokens",
		"gen_ai.usage.cache_creation_input_tokens", "llm.token_count.prompt_details.cache_write"},
	reasoning: {"gen_ai.usage.reasoning.output_tokens", "gen_ai.usage.reasoning_tokens", "llm.usage.reasoning_tokens",
		"llm.token_count.completion_details.reasoning", "ai.usage.reasoningTokens"},

	agentID:    {"gen_ai.agent.id"},
	agentName:  {"gen_ai.agent.name", "agent.name"},
	workflow:   {"gen_ai.workflow.name", "traceloop.workflow.name"},
	function:   {"ai.telemetry.functionId", "resource.name"},
	node:       {"graph.node.name"},
	entityName: {"traceloop.entity.name"},

	toolName:       {"gen_ai.tool.name", "tool.name", "ai.toolCall.name"},
	arguments:      {"gen_ai.tool.call.arguments", "ai.toolCall.args", "gcp.vertex.agent.tool_call_args", "mcp.request.argument"},
	result:         {"gen_ai.tool.call.result", "ai.toolCall.result", "gcp.vertex.agent.tool_response", "mcp.response.value"},
	toolParameters: {"tool.parameters"},
	callID:         {"gen_ai.tool.call.id", "tool.id", "ai.toolCall.id"},

	query:     {"gen_ai.retrieval.query.text"},
	documents: {"gen_ai.retrieval.documents"},
	source:    {"gen_ai.data_source.id"},
	store:     {"gen_ai.memory.store.id"},

	user: {"user.id", "enduser.id", "enduser.pseudo.id", "traceloop.association.properties.user_id", "gen_ai.user",
		"ai.telemetry.metadata.userId", "ai.settings.runtimeContext.userId", "ai.settings.context.userId"},
	session: {"gen_ai.conversation.id", "session.id", "mcp.session.id", "traceloop.association.properties.session_id",
		"ai.telemetry.metadata.sessionId", "ai.settings.runtimeContext.sessionId", "ai.settings.context.sessionId"},
	clientAddress:    {"client.address", "network.peer.address"},
	userAgent:        {"user_agent.original"},
	errorType:        {"error.type"},
	exceptionMessage: {"exception.message"},
	exceptionType:    {"exception.type"},
	evaluation:       {"gen_ai.evaluation.name"},
	eventNamed:       {"event.name"},
}

// flattened are the attributes whose names hold the place of a value in an
// array, as llm.input_messages.0.message.role: what stands before the number,
// and what they are together.
var flattened = []struct {
	prefix string
	what   field
}{
	{"gen_ai.prompt.", messages},
	{"gen_ai.completion.", answer},
	{"llm.input_messages.", messages},
	{"llm.output_messages.", answer},
	{"llm.tools.", tools},
	{"llm.request.functions.", tools},
	{"retrieval.documents.", documents},
	{"reranker.input_documents.", input},
	{"reranker.output_documents.", documents},
	{"embedding.embeddings.", output},
}

// wrappers are the words that OpenInference puts after a number.
var wrappers = map[string]bool{"message": true, "tool_call": true, "message_content": true, "document": true, "tool": true, "embedding": true}

// place is where an attribute's name stands in the table.
type place struct {
	field field
	rank  uint8
}

var places = func() map[string]place {
	m := map[string]place{}
	for f, names := range table {
		for rank, name := range names {
			m[name] = place{field(f), uint8(rank)}
		}
	}
	return m
}()
