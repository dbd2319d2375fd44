// Package load makes requests of OTLP for measurements: runs of an agent as an
// OpenTelemetry SDK with content capture exports them, in protobuf.
package load

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"sync/atomic"
)

// Load is a request that can be made again and again, each time with other ids.
type Load struct {
	body []byte
	ids  []int // where the trace and span ids begin whose first half is counted on
	next *atomic.Uint64
}

// New is a load of that many spans, a multiple of eight: a run of an agent has
// eight, two calls of a model, two of tools, three requests over HTTP, and the
// run itself.
func New(spans int) *Load {
	l := &Load{next: &atomic.Uint64{}}
	var scoped []byte
	scope := field(field(nil, 1, "opentelemetry.instrumentation.openai_v2"), 2, "2.3b0")
	scoped = field(scoped, 1, string(scope))
	for run := range spans / 8 {
		for i := range 8 {
			scoped = field(scoped, 2, string(span(run, i)))
		}
	}
	var resource []byte
	for _, a := range []string{"service.name=billing-agent", "service.version=3.4.1", "deployment.environment.name=production",
		"telemetry.sdk.language=python", "telemetry.sdk.name=opentelemetry", "telemetry.sdk.version=1.40.0"} {
		key, value, _ := strings.Cut(a, "=")
		resource = field(resource, 1, attribute(key, value))
	}
	resourceSpans := field(field(nil, 1, string(resource)), 2, string(scoped))
	l.body = field(nil, 1, string(resourceSpans))
	for i := 0; i+len(mark) <= len(l.body); i++ {
		if string(l.body[i:i+len(mark)]) == mark {
			l.ids = append(l.ids, i)
			i += len(mark) - 1
		}
	}
	return l
}

// mark is the first half of each id of the load.
const mark = "\xf0kzid\xf1\xf2\xf3"

// Copy is the same load in memory of its own, for another sender. No two bodies
// of a load and its copies have a span in common.
func (l *Load) Copy() *Load {
	c := *l
	c.body = append([]byte(nil), l.body...)
	return &c
}

// Body is the next request. It is overwritten by the one after it.
func (l *Load) Body() []byte {
	n := l.next.Add(1)
	for _, at := range l.ids {
		binary.BigEndian.PutUint64(l.body[at:], n|1<<62)
	}
	return l.body
}

func span(run, i int) []byte {
	id := func(i int) string { return mark + string(binary.BigEndian.AppendUint64(nil, uint64(run*8+i+1))) }
	spanID := func(i int) string { return fmt.Sprintf("%04d%04d", run, i+1) }
	var b []byte
	b = field(b, 1, id(0))
	b = field(b, 2, spanID(i))
	if i > 0 {
		b = field(b, 4, spanID(0))
	}
	kind, name := uint64(3), ""
	var attributes []any
	switch i {
	case 0:
		kind, name = 1, "invoke_agent billing"
		attributes = []any{"gen_ai.operation.name", "invoke_agent", "gen_ai.agent.name", "billing", "gen_ai.conversation.id", "conv_5j66UpCpwteGg4YSxUnt7lPY"}
	case 1, 4:
		name = "chat gpt-4.1-mini"
		attributes = []any{
			"gen_ai.operation.name", "chat", "gen_ai.provider.name", "openai", "gen_ai.request.model", "gpt-4.1-mini",
			"gen_ai.response.model", "gpt-4.1-mini-2025-04-14", "gen_ai.response.id", "chatcmpl-DaLYlqJDD4djXUGg9TjyClK9BdeVV",
			"gen_ai.request.temperature", 0.2, "gen_ai.request.max_tokens", 1024, "gen_ai.agent.name", "billing",
			"gen_ai.usage.input_tokens", 2256, "gen_ai.usage.output_tokens", 113, "gen_ai.conversation.id", "conv_5j66UpCpwteGg4YSxUnt7lPY",
			"gen_ai.input.messages", `[{"role":"system","parts":[{"type":"text","content":"You are a billing agent. Answer in one sentence, and look the invoice up before you answer."}]},` +
				`{"role":"user","parts":[{"type":"text","content":"Why is my October invoice higher than the one before? I did not change anything in my plan."}]}]`,
			"gen_ai.output.messages", `[{"role":"assistant","parts":[{"type":"tool_call","id":"call_w0eKlvnaE7S9GQJeSSs0gn05","name":"get_invoice","arguments":{"customer":"C-20417","month":"2026-10"}}],"finish_reason":"tool_call"}]`,
			"server.address", "api.openai.com", "server.port", 443,
		}
	case 2, 5:
		kind, name = 1, "execute_tool get_invoice"
		attributes = []any{
			"gen_ai.operation.name", "execute_tool", "gen_ai.tool.name", "get_invoice", "gen_ai.tool.call.id", "call_w0eKlvnaE7S9GQJeSSs0gn05",
			"gen_ai.tool.type", "function", "gen_ai.agent.name", "billing", "gen_ai.tool.call.arguments", `{"customer":"C-20417","month":"2026-10"}`,
			"gen_ai.tool.call.result", `{"total":84.20,"lines":[{"item":"plan","amount":49.00},{"item":"extra seats","amount":35.20}]}`,
		}
	default:
		name = "POST"
		attributes = []any{
			"http.request.method", "POST", "url.full", "https://billing.internal.example/v2/invoices/query", "http.response.status_code", 200,
			"server.address", "billing.internal.example", "server.port", 443, "network.protocol.version", "1.1",
		}
	}
	b = field(b, 5, name)
	b = binary.AppendUvarint(append(b, 6<<3), kind)
	const start = 1_795_000_000_000_000_000
	b = binary.LittleEndian.AppendUint64(append(b, 7<<3|1), start+uint64(run*1000+i*100)*1e6)
	b = binary.LittleEndian.AppendUint64(append(b, 8<<3|1), start+uint64(run*1000+i*100+70)*1e6)
	for i := 0; i < len(attributes); i += 2 {
		b = field(b, 9, attribute(attributes[i].(string), attributes[i+1]))
	}
	return b
}

func attribute(key string, v any) string {
	var value []byte
	switch v := v.(type) {
	case string:
		value = field(nil, 1, v)
	case int:
		value = binary.AppendUvarint([]byte{3 << 3}, uint64(v))
	case float64:
		value = binary.LittleEndian.AppendUint64([]byte{4<<3 | 1}, math.Float64bits(v))
	}
	return string(field(field(nil, 1, key), 2, string(value)))
}

func field(dst []byte, number byte, s string) []byte {
	dst = binary.AppendUvarint(append(dst, number<<3|2), uint64(len(s)))
	return append(dst, s...)
}
