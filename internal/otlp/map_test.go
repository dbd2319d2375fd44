package otlp

import (
	"encoding/json"
	"fmt"
	"os"
	"path"
	"regexp"
	"strings"
	"testing"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/genai"
)

// spanEntry is the entry of one span whose attributes are those of a JSON
// object; more are further members of the span.
func spanEntry(t *testing.T, name, attributes, more string) entry.Entry {
	t.Helper()
	var m jsonObject
	mustDecode(t, []byte(attributes), &m)
	a, err := json.Marshal(keyValues(m))
	if err != nil {
		t.Fatal(err)
	}
	n, _ := json.Marshal(name)
	if more != "" {
		more = "," + more
	}
	return oneEntry(t, "/v1/traces", jsonSpans(fmt.Sprintf(
		`{"traceId":%q,"spanId":%q,"name":%s,"startTimeUnixNano":"1700000000000000000","endTimeUnixNano":"1700000000250000000","attributes":%s%s}`, traceID, spanID, n, a, more)))
}

// logEntry is the entry of one log record.
func logEntry(t *testing.T, record string) entry.Entry {
	t.Helper()
	return oneEntry(t, "/v1/logs", []byte(`{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"svc"}}]},"scopeLogs":[{"logRecords":[`+record+`]}]}]}`))
}

func oneEntry(t *testing.T, path string, body []byte) entry.Entry {
	t.Helper()
	m := &memoryTrail{}
	if w := post(memoryHandler(m, DefaultLimits), path, jsonType, body); w.Code != 200 || len(m.events) != 1 {
		t.Fatalf("%d %s, %d events", w.Code, w.Body, len(m.events))
	}
	e, err := entry.Parse([]byte(line(t, &m.events[0])))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func objectText(t *testing.T, o entry.Object) string {
	t.Helper()
	b, err := o.AppendJSON(nil)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestEveryVocabularyGivesTheSameEntry: what happened has one name, whoever says
// it in whatever words.
func TestEveryVocabularyGivesTheSameEntry(t *testing.T) {
	for _, tt := range []struct {
		name, span, attributes, more              string
		eventType, agent, action, inputs, outputs string
		metadata                                  string // a part
	}{
		{
			"GenAI 1.41", "chat gpt-4", `{"gen_ai.operation.name":"chat","gen_ai.provider.name":"openai","gen_ai.request.model":"gpt-4","gen_ai.response.model":"gpt-4-0613",
				"gen_ai.request.temperature":0.5,"gen_ai.usage.input_tokens":10,"gen_ai.usage.output_tokens":5,"gen_ai.usage.cache_creation.input_tokens":2,
				"gen_ai.system_instructions":"[{\"type\":\"text\",\"content\":\"be brief\"}]","gen_ai.input.messages":"[{\"role\":\"user\",\"parts\":[]}]",
				"gen_ai.output.messages":[{"role":"assistant","finish_reason":"stop"}],"gen_ai.response.finish_reasons":["stop"],"gen_ai.agent.name":"a","gen_ai.conversation.id":"c"}`, `"kind":3`,
			"LLM_CALL", "a", "llm_call:gpt-4",
			`{"model":"gpt-4","system_instructions":[{"type":"text","content":"be brief"}],"messages":[{"role":"user","parts":[]}],"parameters":{"temperature":0.5}}`,
			`{"messages":[{"finish_reason":"stop","role":"assistant"}],"finish_reasons":["stop"],"model":"gpt-4-0613","usage":{"input_tokens":10,"output_tokens":5,"cache_write_input_tokens":2}}`,
			`"session_id":"c","service_name":"svc","span_name":"chat gpt-4","span_kind":"client","scope":{"name":"lib"},"provider":"openai"`,
		},
		{
			"GenAI 1.36, content in events", "chat gpt-4", `{"gen_ai.operation.name":"chat","gen_ai.system":"openai","gen_ai.request.model":"gpt-4","gen_ai.usage.prompt_tokens":10,"gen_ai.usage.completion_tokens":5}`,
			`"events":[{"name":"gen_ai.user.message","attributes":[{"key":"content","value":{"stringValue":"hi"}}]},{"name":"gen_ai.choice","attributes":[{"key":"index","value":{"intValue":0}}]}]`,
			"LLM_CALL", "svc", "llm_call:gpt-4", `{"model":"gpt-4","messages":[{"role":"user","content":"hi"}]}`,
			`{"messages":[{"role":"assistant","index":0}],"usage":{"input_tokens":10,"output_tokens":5}}`, `"provider":"openai"}`,
		},
		{
			"older still", "chat", `{"gen_ai.system":"openai","gen_ai.request.model":"gpt-4","llm.request.type":"chat"}`,
			`"events":[{"name":"gen_ai.content.prompt","attributes":[{"key":"gen_ai.prompt","value":{"stringValue":"[{\"role\":\"user\"}]"}}]},{"name":"gen_ai.content.completion","attributes":[{"key":"gen_ai.completion","value":{"stringValue":"hello"}}]}]`,
			"LLM_CALL", "svc", "llm_call:gpt-4", `{"model":"gpt-4","input":[{"role":"user"}]}`, `{"output":"hello"}`, `"provider":"openai"}`,
		},
		{
			"OpenLLMetry", "openai.chat", `{"llm.request.type":"chat","gen_ai.system":"OpenAI","gen_ai.request.model":"gpt-4","gen_ai.prompt.0.role":"user","gen_ai.prompt.0.content":"hi",
				"gen_ai.prompt.10.role":"tool","gen_ai.prompt.2.role":"assistant","gen_ai.completion.0.role":"assistant","gen_ai.completion.0.finish_reason":"tool_calls",
				"gen_ai.completion.0.tool_calls.0.name":"f","gen_ai.completion.0.tool_calls.0.arguments":"{\"a\":1}","llm.request.functions.0.name":"f",
				"llm.usage.total_tokens":15,"gen_ai.usage.cache_read_input_tokens":3,"traceloop.association.properties.user_id":"u","traceloop.association.properties.session_id":"s","traceloop.workflow.name":"w"}`, "",
			"LLM_CALL", "w", "llm_call:gpt-4", `{"model":"gpt-4","messages":[{"content":"hi","role":"user"},{"role":"assistant"},{"role":"tool"}],"tools":[{"name":"f"}]}`,
			`{"messages":[{"finish_reason":"tool_calls","role":"assistant","tool_calls":[{"arguments":"{\"a\":1}","name":"f"}]}],"usage":{"total_tokens":15,"cache_read_input_tokens":3}}`,
			`"user_id":"u","session_id":"s"`,
		},
		{
			"OpenInference", "ChatCompletion", `{"openinference.span.kind":"LLM","llm.model_name":"gpt-4","llm.provider":"openai","llm.invocation_parameters":"{\"temperature\":0}",
				"llm.input_messages.0.message.role":"user","llm.input_messages.0.message.contents.0.message_content.type":"text","llm.input_messages.0.message.contents.0.message_content.text":"hi",
				"llm.output_messages.0.message.role":"assistant","llm.output_messages.0.message.tool_calls.0.tool_call.function.name":"f","llm.output_messages.0.message.tool_calls.0.tool_call.id":"1",
				"llm.tools.0.tool.json_schema":"{}","llm.token_count.prompt":10,"llm.token_count.completion":5,"llm.token_count.total":15,"session.id":"s","user.id":"u","llm.finish_reason":"stop"}`, "",
			"LLM_CALL", "svc", "llm_call:gpt-4", `{"model":"gpt-4","messages":[{"contents":[{"text":"hi","type":"text"}],"role":"user"}],"tools":[{"json_schema":"{}"}],"parameters":{"temperature":0}}`,
			`{"messages":[{"role":"assistant","tool_calls":[{"function":{"name":"f"},"id":"1"}]}],"finish_reasons":["stop"],"usage":{"input_tokens":10,"output_tokens":5,"total_tokens":15}}`,
			`"user_id":"u","session_id":"s"`,
		},
		{
			"AI SDK 6", "ai.streamText.doStream", `{"ai.operationId":"ai.streamText.doStream","ai.model.id":"gpt-4","ai.model.provider":"openai.chat","ai.prompt.messages":"[{\"role\":\"user\"}]",
				"ai.prompt.tools":["{\"name\":\"f\"}"],"ai.response.toolCalls":"[{\"toolName\":\"f\"}]","ai.response.finishReason":"tool-calls","ai.usage.inputTokens":10,"ai.telemetry.functionId":"fn","ai.telemetry.metadata.userId":"u"}`, "",
			"LLM_CALL", "fn", "llm_call:gpt-4", `{"model":"gpt-4","messages":[{"role":"user"}],"tools":[{"name":"f"}]}`,
			`{"tool_calls":[{"toolName":"f"}],"finish_reasons":["tool-calls"],"usage":{"input_tokens":10}}`, `"user_id":"u"`,
		},
		{
			"embeddings", "embeddings m", `{"gen_ai.operation.name":"embeddings","gen_ai.request.model":"m"}`, "",
			"LLM_CALL", "svc", "embedding:m", `{"model":"m"}`, `{}`, "",
		},
		{
			"tool", "execute_tool f", `{"gen_ai.operation.name":"execute_tool","gen_ai.tool.name":"f","gen_ai.tool.call.id":"1","gen_ai.tool.call.arguments":"{\"a\":1}","gen_ai.tool.call.result":{"b":[1,2]}}`, "",
			"TOOL_USE", "svc", "tool_use:f", `{"a":1}`, `{"b":[1,2]}`, `"tool_call_id":"1"}`,
		},
		{
			"tool of OpenInference", "f", `{"openinference.span.kind":"TOOL","tool.name":"f","input.value":"{\"a\":1}","input.mime_type":"application/json","output.value":"two"}`, "",
			"TOOL_USE", "svc", "tool_use:f", `{"a":1}`, `{"value":"two"}`, `"attributes":{"input.mime_type":"application/json"}`,
		},
		{
			"tool of OpenLLMetry", "f.tool", `{"traceloop.span.kind":"tool","traceloop.entity.name":"f","traceloop.entity.input":"{\"a\":1}","traceloop.entity.output":"[1]"}`, "",
			"TOOL_USE", "svc", "tool_use:f", `{"a":1}`, `{"value":[1]}`, "",
		},
		{
			"tool of the AI SDK", "ai.toolCall", `{"ai.operationId":"ai.toolCall","ai.toolCall.name":"f","ai.toolCall.id":"1","ai.toolCall.args":"{\"a\":1}","ai.toolCall.result":"{\"b\":2}"}`, "",
			"TOOL_USE", "svc", "tool_use:f", `{"a":1}`, `{"b":2}`, "",
		},
		{
			"tool over MCP", "tools/call f", `{"mcp.method.name":"tools/call","gen_ai.tool.name":"f","mcp.session.id":"s","error.type":"tool_error"}`, `"kind":2`,
			"TOOL_USE", "svc", "tool_use:f", `{}`, `{}`, `"session_id":"s"`,
		},
		{"other MCP", "tools/list", `{"mcp.method.name":"tools/list"}`, "", "MCP_REQUEST", "svc", "mcp:tools/list", `{}`, `{}`, ""},
		{"MCP resource", "resources/read", `{"mcp.method.name":"resources/read","mcp.resource.uri":"file:///a"}`, "", "DATA_ACCESS", "svc", "retriever", `{}`, `{}`, `"mcp.resource.uri":"file:///a"`},
		{
			"retrieval", "retrieval kb", `{"gen_ai.operation.name":"retrieval","gen_ai.data_source.id":"kb","gen_ai.retrieval.query.text":"q","gen_ai.retrieval.documents":"[{\"id\":1}]"}`, "",
			"DATA_ACCESS", "svc", "retriever:kb", `{"query":"q"}`, `{"documents":[{"id":1}]}`, "",
		},
		{
			"retriever", "Retriever", `{"openinference.span.kind":"RETRIEVER","input.value":"q","retrieval.documents.0.document.id":"d","retrieval.documents.0.document.score":0.5}`, "",
			"DATA_ACCESS", "svc", "retriever:Retriever", `{"input":"q"}`, `{"documents":[{"id":"d","score":0.5}]}`, "",
		},
		{"memory read", "search_memory", `{"gen_ai.operation.name":"search_memory","gen_ai.memory.store.id":"m"}`, "", "MEMORY_LOAD", "svc", "memory_load:m", `{}`, `{}`, `"gen_ai.operation.name":"search_memory"`},
		{"memory written", "upsert_memory", `{"gen_ai.operation.name":"upsert_memory"}`, "", "MEMORY_SAVE", "svc", "memory_save", `{}`, `{}`, ""},
		{"memory deleted", "delete_memory", `{"gen_ai.operation.name":"delete_memory","gen_ai.memory.record.id":"r"}`, "", "MEMORY_DELETE", "svc", "memory_delete", `{}`, `{}`, `"gen_ai.memory.record.id":"r"`},
		{"agent", "invoke_agent a", `{"gen_ai.operation.name":"invoke_agent","gen_ai.agent.id":"id","gen_ai.agent.name":"a"}`, `"kind":1,"parentSpanId":"0000000000000001"`, "AGENT_LOOP_END", "id", "agent_execution_end", `{}`, `{}`, `"gen_ai.agent.name":"a"`},
		{"agent elsewhere", "invoke_agent a", `{"gen_ai.operation.name":"invoke_agent","gen_ai.agent.name":"a"}`, `"kind":3,"parentSpanId":"0000000000000001"`, "SPECIALIST_INVOKE", "a", "specialist_invoke:a", `{}`, `{}`, ""},
		{"agent made", "create_agent a", `{"gen_ai.operation.name":"create_agent","gen_ai.agent.name":"a"}`, "", "CONFIG_CHANGE", "a", "create_agent:a", `{}`, `{}`, ""},
		{"workflow", "w.workflow", `{"traceloop.span.kind":"workflow","traceloop.workflow.name":"w","traceloop.entity.input":"{\"q\":1}"}`, "", "AGENT_LOOP_END", "w", "agent_execution_end", `{"input":{"q":1}}`, `{}`, ""},
		{"plan", "plan", `{"gen_ai.operation.name":"plan"}`, "", "PLAN_GENERATION", "svc", "plan_generation", `{}`, `{}`, ""},
		{"chain", "step", `{"openinference.span.kind":"CHAIN","input.value":"a","output.value":"b"}`, "", "CHAIN_RUN", "svc", "chain:step", `{"input":"a"}`, `{"output":"b"}`, ""},
		{"guardrail", "pii", `{"openinference.span.kind":"GUARDRAIL"}`, "", "PERMISSION_CHECK", "svc", "guardrail:pii", `{}`, `{}`, ""},
		{"unknown operation", "x", `{"gen_ai.operation.name":"dance","a":{"b":[true,null,1.5]}}`, "", "SPAN", "svc", "x", `{"a":{"b":[true,null,1.5]},"gen_ai.operation.name":"dance"}`, `{}`, ""},
		{"no name", "", `{}`, "", "SPAN", "svc", "unnamed", `{}`, `{}`, ""},
		{"the trail's own agent", "x", `{"gen_ai.agent.name":"kaizen-audit"}`, "", "SPAN", "otlp:kaizen-audit", "x", `{"gen_ai.agent.name":"kaizen-audit"}`, `{}`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := spanEntry(t, tt.span, tt.attributes, tt.more)
			if e.EventType != tt.eventType || e.AgentID != tt.agent || e.Action != tt.action {
				t.Errorf("%s %s %s", e.EventType, e.AgentID, e.Action)
			}
			if in, out := objectText(t, e.Inputs), objectText(t, e.Outputs); in != tt.inputs || out != tt.outputs {
				t.Errorf("inputs\n%s\noutputs\n%s", in, out)
			}
			if m := objectText(t, e.Metadata); !strings.Contains(m, tt.metadata) {
				t.Errorf("metadata\n%s", m)
			}
			if e.TraceID != traceID || e.SpanID != spanID || e.DurationMS != 250 {
				t.Errorf("%s %s %g", e.TraceID, e.SpanID, e.DurationMS)
			}
		})
	}
}

// TestFailuresSayWhy: status, exception, error.type.
func TestFailuresSayWhy(t *testing.T) {
	exception := `"events":[{"name":"exception","timeUnixNano":"1700000000100000000","attributes":[{"key":"exception.type","value":{"stringValue":"httpx.ReadTimeout"}},{"key":"exception.message","value":{"stringValue":"took too long"}}]}]`
	for _, tt := range []struct{ attributes, more, err, outcome string }{
		{`{}`, `"status":{"code":2,"message":"bad key"}`, "bad key", ""},
		{`{}`, `"status":{"code":2},` + exception, "took too long", "timeout"},
		{`{"error.type":"tool_error"}`, "", "tool_error", ""},
		{`{"error.type":"asyncio.CancelledError"}`, "", "asyncio.CancelledError", "cancelled"},
	} {
		e := spanEntry(t, "x", tt.attributes, tt.more)
		if e.Success || e.Error == nil || *e.Error != tt.err || e.Outcome != tt.outcome {
			t.Errorf("%s: %s", tt.more, e.Line())
		}
	}
	for _, more := range []string{"", `"status":{"code":1}`, exception} {
		if e := spanEntry(t, "x", `{}`, more); !e.Success || e.Error != nil {
			t.Errorf("%s", e.Line())
		}
	}
}

// TestLogRecords: events of the conventions are what they are about, in their
// span; every other record is kept.
func TestLogRecords(t *testing.T) {
	const in = `"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","timeUnixNano":"1700000000000000000",`
	details := `"eventName":"gen_ai.client.inference.operation.details","attributes":[{"key":"gen_ai.request.model","value":{"stringValue":"gpt-4"}},
		{"key":"gen_ai.input.messages","value":{"arrayValue":{"values":[{"kvlistValue":{"values":[{"key":"role","value":{"stringValue":"user"}}]}}]}}}]`
	for _, tt := range []struct{ record, eventType, action, inputs, outputs string }{
		{`{` + in + details + `}`, "LLM_CALL_DETAILS", "llm_call_details:gpt-4", `{"model":"gpt-4","messages":[{"role":"user"}]}`, `{}`},
		{`{` + details + `}`, "LLM_CALL", "llm_call:gpt-4", `{"model":"gpt-4","messages":[{"role":"user"}]}`, `{}`},
		{`{` + in + `"attributes":[{"key":"event.name","value":{"stringValue":"gen_ai.user.message"}},{"key":"gen_ai.system","value":{"stringValue":"openai"}}],"body":{"kvlistValue":{"values":[{"key":"content","value":{"stringValue":"hi"}}]}}}`,
			"LLM_MESSAGE", "llm_message:user", `{"message":{"content":"hi"}}`, `{}`},
		{`{` + in + `"eventName":"gen_ai.choice","body":{"kvlistValue":{"values":[{"key":"index","value":{"intValue":"0"}}]}}}`, "LLM_MESSAGE", "llm_message:choice", `{}`, `{"message":{"index":0}}`},
		{`{` + in + `"eventName":"gen_ai.evaluation.result","attributes":[{"key":"gen_ai.evaluation.name","value":{"stringValue":"relevance"}}]}`, "EVALUATION", "evaluation:relevance", `{}`, `{}`},
		{`{` + in + `"severityNumber":9,"body":{"stringValue":"started"}}`, "LOG", "log", `{"body":"started"}`, `{}`},
		{`{` + in + `"eventName":"app.started","attributes":[{"key":"user.id","value":{"stringValue":"u"}}]}`, "LOG", "app.started", `{"attributes":{"user.id":"u"}}`, `{}`},
	} {
		e := logEntry(t, tt.record)
		if e.EventType != tt.eventType || e.Action != tt.action || objectText(t, e.Inputs) != tt.inputs || objectText(t, e.Outputs) != tt.outputs || !e.Success {
			t.Errorf("%s", e.Line())
		}
		if strings.Contains(tt.record, "spanId") && (e.ParentSpanID != spanID || e.SpanID != "" || e.TraceID != traceID) {
			t.Errorf("not in its span: %s", e.Line())
		}
	}
	e := logEntry(t, `{`+in+`"eventName":"gen_ai.client.operation.exception","severityNumber":13,"attributes":[{"key":"exception.type","value":{"stringValue":"E"}},{"key":"exception.message","value":{"stringValue":"no"}}]}`)
	if e.EventType != "EXCEPTION" || e.Success || *e.Error != "no" || e.Action != "exception:gen_ai.client.operation.exception" {
		t.Errorf("%s", e.Line())
	}
}

// TestMissingContentIsSaid of calls, and of nothing else.
func TestMissingContentIsSaid(t *testing.T) {
	for _, tt := range []struct{ attributes, missing string }{
		{`{"gen_ai.operation.name":"chat","gen_ai.request.model":"m"}`, "inputs,outputs"},
		{`{"gen_ai.operation.name":"chat","gen_ai.output.messages":"[{}]"}`, "inputs"},
		{`{"gen_ai.operation.name":"chat","gen_ai.input.messages":"[{}]"}`, "outputs"},
		{`{"gen_ai.operation.name":"chat","gen_ai.input.messages":"[{}]","error.type":"timeout"}`, ""},
		{`{"openinference.span.kind":"LLM","input.value":"__REDACTED__","output.value":"__REDACTED__"}`, "inputs,outputs"},
		{`{"gen_ai.operation.name":"execute_tool"}`, "inputs,outputs"},
		{`{"gen_ai.operation.name":"execute_tool","gen_ai.tool.call.arguments":"{}","gen_ai.tool.call.result":"1"}`, ""},
		{`{"http.request.method":"GET"}`, ""},
	} {
		if e := spanEntry(t, "x", tt.attributes, ""); e.Metadata.Text("content_missing") != tt.missing {
			t.Errorf("%s: %s", tt.attributes, e.Line())
		}
	}
}

// TestNoCredentialOfAHeaderIsInAnEntry, wherever a sender puts headers.
func TestNoCredentialOfAHeaderIsInAnEntry(t *testing.T) {
	const secret = "sk-verysecretvalue"
	quoted, _ := json.Marshal(`{"config":{"http_options":{"headers":{"Authorization":"Bearer ` + secret + `","accept":"kept-value"}}}}`)
	for _, attributes := range []string{
		`{"http.request.header.authorization":["Bearer ` + secret + `"]}`,
		`{"http.request.header.x-api-key":["` + secret + `"]}`,
		`{"http.request.header.x-acme-token":["` + secret + `"]}`,
		`{"http.response.header.set_cookie":["a=` + secret + `"]}`,
		`{"ai.request.headers.Authorization":"` + secret + `"}`,
		`{"llm.headers":"{'x-acme-secret': '` + secret + `', 'Authorization': 'x'}"}`,
		`{"llm.headers":{"Api-Key":"` + secret + `"}}`,
		`{"rpc.request.metadata.authorization":["` + secret + `"]}`,
		`{"gcp.vertex.agent.llm_request":` + string(quoted) + `,"gen_ai.request.model":"m","gen_ai.system":"g"}`,
		`{"some.json":` + string(quoted) + `}`,
		`{"nested":{"headers":{"Cookie":"` + secret + `"}}}`,
		`{"url.full":"https://user:` + secret + `@host/p?q=1"}`,
		`{"url.full":"https://host/v1/models/m:generate?key=` + secret + `&alt=sse"}`,
		`{"url.query":"access_token=` + secret + `"}`,
		`{"gen_ai.prompt.0.headers.authorization":"` + secret + `","gen_ai.operation.name":"chat"}`,
	} {
		e := spanEntry(t, "x", attributes, "")
		if strings.Contains(string(e.Line()), secret) {
			t.Errorf("%s", e.Line())
		}
	}
	// What is not a credential stays.
	for _, attributes := range []string{
		`{"gen_ai.usage.input_tokens":7,"tokenizer":"kept-value"}`, `{"http.request.header.accept":["kept-value"]}`, `{"some.json":` + string(quoted) + `}`,
		`{"url.full":"https://host/p?q=kept-value"}`, `{"user.prompt":"what is an authorization header? kept-value"}`,
	} {
		if e := spanEntry(t, "x", attributes, ""); !strings.Contains(string(e.Line()), "kept-value") {
			t.Errorf("%s", e.Line())
		}
	}
}

// TestHostileValuesLoseNoSpan: each is an entry, whatever is in it.
func TestHostileValuesLoseNoSpan(t *testing.T) {
	deep := protoText("bottom")
	for range 5000 {
		deep = appendString(nil, 5, string(appendString(nil, 1, string(deep))))
	}
	many := make([][]byte, 0, 2000)
	for range 2000 {
		many = append(many, protoAttribute("same", protoText("v")))
	}
	nan := append([]byte{4<<3 | fixed64}, 0, 0, 0, 0, 0, 0, 0xf8, 0x7f)
	for name, s := range map[string][]byte{
		"deep":            protoSpan(someTrace, someSpan, "s", protoAttribute("a", deep)),
		"a name twice":    protoSpan(someTrace, someSpan, "s", many...),
		"no UTF-8":        protoSpan(someTrace, someSpan, "\xff\xfe", protoAttribute("\xff", protoText("\xff")), protoAttribute("\xfe", protoText("x")), protoAttribute("service.name", protoText("\xed\xa0\x80"))),
		"control":         protoSpan(someTrace, someSpan, "a\x00\n\x1b[31m\u202e", protoAttribute("a\nb", protoText("\x00"))),
		"NaN":             protoSpan(someTrace, someSpan, "s", protoAttribute("a", nan), protoAttribute("gen_ai.usage.input_tokens", nan), protoAttribute("gen_ai.request.model", protoText("m")), protoAttribute("gen_ai.system", protoText("g"))),
		"a broken prompt": protoSpan(someTrace, someSpan, "s", protoAttribute("gen_ai.operation.name", protoText("chat")), protoAttribute("gen_ai.input.messages", protoText(`[{"a":1,"a":2}`)), protoAttribute("gen_ai.output.messages", protoText(strings.Repeat("[", 4000)+strings.Repeat("]", 4000)))),
		"odd numbers":     protoSpan(someTrace, someSpan, "s", protoAttribute("gen_ai.prompt.999999999.role", protoText("a")), protoAttribute("gen_ai.prompt.00.role", protoText("b")), protoAttribute("gen_ai.prompt.0", protoText("c")), protoAttribute("gen_ai.prompt.0.x", protoText("d")), protoAttribute("gen_ai.prompt.0"+strings.Repeat(".0", 500), protoText("e")), protoAttribute("gen_ai.operation.name", protoText("chat"))),
	} {
		m := &memoryTrail{}
		w := post(memoryHandler(m, DefaultLimits), "/v1/traces", protobufType, protoSpans(s))
		if w.Code != 200 || w.Body.Len() > 0 || len(m.events) != 1 {
			t.Errorf("%s: %d %q, %d events", name, w.Code, w.Body, len(m.events))
			continue
		}
		l := line(t, &m.events[0])
		if _, err := entry.Parse([]byte(l)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if name == "deep" && !strings.Contains(l, `{"omitted":"nested deeper than 48 levels","bytes":`) {
			t.Errorf("%s", l)
		}
		if name == "a name twice" && strings.Count(l, `"same`) != 2000 {
			t.Errorf("%d attributes", strings.Count(l, `"same`))
		}
	}
}

// TestWhatBecomesWhatIsDocumented: every word that says what a span was stands in
// the table of docs/otlp.md, once, and a span that says it becomes what its row
// says; what a row names of ours there is.
func TestWhatBecomesWhatIsDocumented(t *testing.T) {
	b, err := os.ReadFile("../../docs/otlp.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(b), "| what it was | event_type | action |\n| --- | --- | --- |\n")
	if !ok {
		t.Fatal("there is no table")
	}
	table, _, _ := strings.Cut(rest, "\n\n")
	type row struct{ what, eventType, action string }
	var rows []row
	code := regexp.MustCompile("`([^`]+)`")
	types := map[string]bool{}
	for line := range strings.Lines(table) {
		cells := strings.Split(line, "|")
		r := row{what: cells[1], eventType: code.FindStringSubmatch(cells[2])[1]}
		if m := code.FindStringSubmatch(cells[3]); m != nil {
			r.action, _, _ = strings.Cut(m[1], ":")
		}
		rows = append(rows, r)
		types[r.eventType] = true
	}
	for k := genai.Span; k <= genai.Log; k++ {
		if !types[k.EventType()] {
			t.Errorf("%s has no row", k.EventType())
		}
	}
	has := func(what, word string) bool {
		for _, m := range code.FindAllStringSubmatch(what, -1) {
			if ok, _ := path.Match(m[1], word); ok {
				return true
			}
		}
		return false
	}
	try := func(attribute, word string) {
		var found []row
		for _, r := range rows {
			if has(r.what, word) {
				found = append(found, r)
			}
		}
		e := spanEntry(t, "x", `{"`+attribute+`":"`+word+`"}`, "")
		action, _, _ := strings.Cut(e.Action, ":")
		switch {
		case word == "invoke_agent" && len(found) == 2: // the other is of clients inside something
		case len(found) != 1:
			t.Errorf("%s stands in %d rows", word, len(found))
			return
		}
		if r := found[0]; e.EventType != r.eventType || action != r.action {
			t.Errorf("%s %s is %s %s, documented as %s %s", attribute, word, e.EventType, e.Action, r.eventType, r.action)
		}
	}
	for attribute, words := range map[string]map[string]genai.Kind{
		"gen_ai.operation.name": operations, "openinference.span.kind": openInferenceKinds, "traceloop.span.kind": traceloopKinds,
		"llm.request.type": requestTypes, "ai.operationId": aiOperations,
	} {
		for word := range words {
			try(attribute, word)
		}
	}
	try("mcp.method.name", "tools/call")
	try("mcp.method.name", "resources/read")
}

// TestTheTableIsInTheDocuments: every attribute that means something here stands
// in docs/otlp.md.
func TestTheTableIsInTheDocuments(t *testing.T) {
	b, err := os.ReadFile("../../docs/otlp.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, names := range table {
		for _, n := range names {
			if !strings.Contains(string(b), "`"+n+"`") {
				t.Errorf("%s is missing", n)
			}
		}
	}
	for _, f := range flattened {
		if !strings.Contains(string(b), "`"+f.prefix+"<i>") {
			t.Errorf("%s is missing", f.prefix)
		}
	}
}
