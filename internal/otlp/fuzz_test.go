package otlp

import (
	"net/http"
	"testing"

	"github.com/kaizen-audit/kaizen-audit/entry"
)

// checkBody: whatever a body is, the answer is one of the protocol's, and with
// success everything in it is an entry that can be read, or was refused.
func checkBody(t *testing.T, path, contentType string, body []byte) {
	m := &memoryTrail{}
	limits := DefaultLimits
	limits.Values = 20_000
	h := memoryHandler(m, limits)
	w := post(h, path, contentType, body)
	switch w.Code {
	case http.StatusOK:
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge:
		if len(m.events) > 0 {
			t.Errorf("%d, and %d events", w.Code, len(m.events))
		}
	default:
		t.Errorf("%d %s", w.Code, w.Body)
	}
	c := h.Counts()
	if c.Spans != c.Mapped+c.Kept+c.Refused || c.Mapped+c.Kept != int64(len(m.events)) {
		t.Errorf("%+v, %d events", c, len(m.events))
	}
	for i := range m.events {
		st := entry.Stamp{EventID: "-", TraceID: "new", MaxLine: 1 << 30}
		l, err := entry.AppendLine(nil, &m.events[i], &st)
		if err != nil {
			t.Fatalf("the fact is lost: %v", err)
		}
		if _, err := entry.Parse(l); err != nil {
			t.Fatal(err)
		}
	}
	again := &memoryTrail{}
	post(memoryHandler(again, limits), path, contentType, body)
	for i := range m.events {
		if m.events[i].IdempotencyKey != again.events[i].IdempotencyKey {
			t.Error("the same span has another key")
		}
	}
}

func FuzzProtobuf(f *testing.F) {
	f.Add(protoSpans(protoSpan(someTrace, someSpan, "chat m", protoAttribute("gen_ai.operation.name", protoText("chat")), protoAttribute("gen_ai.input.messages", protoText(`[{"role":"user"}]`)))), false)
	f.Add(protoSpans(protoSpan(someTrace, someSpan, "s", protoAttribute("llm.input_messages.0.message.role", protoText("user")))), false)
	f.Add(protoSpans(protoSpan(someTrace, someSpan, "s", protoAttribute("http.request.header.cookie", appendString(nil, 5, string(appendString(nil, 1, "\n\x01a")))))), true)
	f.Fuzz(func(t *testing.T, body []byte, logs bool) {
		path := "/v1/traces"
		if logs {
			path = "/v1/logs"
		}
		checkBody(t, path, protobufType, body)
	})
}

func FuzzJSON(f *testing.F) {
	for _, name := range []string{"proto-trace", "proto-logs", "proto-events"} {
		f.Add(readTestdata(f, "exports/"+name+".otlp.json"), name != "proto-trace")
	}
	f.Add(jsonSpans(jsonSpanText(1, `,"kind":3,"status":{"code":2},"events":[{"name":"exception"}],"links":[{"traceId":"00"}],"attributes":[{"key":"gen_ai.prompt.0.role","value":{"stringValue":"user"}},{"key":"a","value":{"bytesValue":"AA=="}}]`)), false)
	f.Fuzz(func(t *testing.T, body []byte, logs bool) {
		path := "/v1/traces"
		if logs {
			path = "/v1/logs"
		}
		checkBody(t, path, jsonType, body)
	})
}

// FuzzAttribute: one attribute of any name and text, in the entry of every kind.
func FuzzAttribute(f *testing.F) {
	for _, names := range table {
		for _, n := range names {
			f.Add(n, `{"a":[1,{"authorization":"x"}]}`, "chat")
		}
	}
	f.Add("url.full", "http://a:b@c/?key=d#e", "execute_tool")
	f.Fuzz(func(t *testing.T, key, value, operation string) {
		checkBody(t, "/v1/traces", protobufType, protoSpans(protoSpan(someTrace, someSpan, "s",
			protoAttribute("gen_ai.operation.name", protoText(operation)), protoAttribute(key, protoText(value)), protoAttribute(key+".0."+key, protoText(value)))))
	})
}
