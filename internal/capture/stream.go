package capture

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"hash/crc32"
	"maps"
	"slices"
	"strings"
)

// serverSentEvents gives the data of the events of a stream (HTML Standard
// §9.2.6), those that are JSON. OpenAI's closing [DONE] is none.
func serverSentEvents(b []byte) (events []any) {
	b = bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n"))
	b = bytes.ReplaceAll(b, []byte("\r"), []byte("\n"))
	for block := range bytes.SplitSeq(b, []byte("\n\n")) {
		var data []byte
		for line := range bytes.SplitSeq(block, []byte("\n")) {
			value, ok := bytes.CutPrefix(line, []byte("data:"))
			if !ok {
				continue
			}
			if data != nil {
				data = append(data, '\n')
			}
			data = append(data, bytes.TrimPrefix(value, []byte(" "))...)
		}
		if json.Valid(data) {
			events = append(events, decode(data))
		}
	}
	return events
}

// amazonEvents gives the payloads of a stream of application/vnd.amazon.
// eventstream: of Converse {"<event type>":payload}, of InvokeModel the chunk
// itself. whole is false where the stream ends in the middle of a message or is
// damaged.
func amazonEvents(b []byte) (events []any, whole bool) {
	for len(b) > 0 {
		// Length, length of the headers and CRC-32 of both; headers; payload;
		// CRC-32 of all before.
		if len(b) < 16 {
			return events, false
		}
		total, headers := uint64(binary.BigEndian.Uint32(b)), uint64(binary.BigEndian.Uint32(b[4:]))
		if total < 16+headers || total > uint64(len(b)) ||
			crc32.ChecksumIEEE(b[:8]) != binary.BigEndian.Uint32(b[8:]) ||
			crc32.ChecksumIEEE(b[:total-4]) != binary.BigEndian.Uint32(b[total-4:]) {
			return events, false
		}
		payload := decode(b[12+headers : total-4])
		kind := amazonHeader(b[12:12+headers], ":event-type")
		if kind == "" {
			kind = amazonHeader(b[12:12+headers], ":exception-type")
		}
		if chunk, err := base64.StdEncoding.DecodeString(text(object(payload)["bytes"])); err == nil && len(chunk) > 0 && json.Valid(chunk) {
			events = append(events, decode(chunk))
		} else {
			events = append(events, map[string]any{kind: payload})
		}
		b = b[total:]
	}
	return events, true
}

// amazonHeader gives a header that is a string (type 7).
func amazonHeader(b []byte, name string) string {
	for len(b) > 0 {
		n := int(b[0])
		if len(b) < 1+n+3 || b[1+n] != 7 {
			return ""
		}
		size := int(binary.BigEndian.Uint16(b[2+n:]))
		if len(b) < 4+n+size {
			return ""
		}
		if string(b[1:1+n]) == name {
			return string(b[4+n : 4+n+size])
		}
		b = b[4+n+size:]
	}
	return ""
}

// assemble makes of a stream's events what the call would have answered
// without streaming.
func assemble(events []any) json.RawMessage {
	for _, one := range []func([]any) map[string]any{responsesStream, messagesStream, chatStream, contentStream, converseStream, titanStream} {
		if m := one(events); m != nil {
			return encode(m)
		}
	}
	if events == nil {
		events = []any{}
	}
	return encode(map[string]any{"events": events})
}

// responsesStream is OpenAI's Responses API: its last event has the whole. Of one
// that broke off there is what had come.
func responsesStream(events []any) map[string]any {
	for _, e := range slices.Backward(events) {
		switch text(object(e)["type"]) {
		case "response.completed", "response.incomplete", "response.failed":
			return object(object(e)["response"])
		}
	}
	var response map[string]any
	for _, e := range events {
		kind := text(object(e)["type"])
		switch kind {
		case "response.created", "response.queued", "response.in_progress":
			response = object(object(e)["response"])
		}
		if of, isDelta := strings.CutSuffix(kind, ".delta"); isDelta && responseTexts[of] == "" {
			return nil
		}
	}
	if response == nil {
		return nil
	}
	items := indexed{}
	for _, e := range events {
		m := object(e)
		item := items.at(m["output_index"])
		switch kind, _ := strings.CutPrefix(text(m["type"]), "response."); kind {
		case "output_item.added", "output_item.done":
			items.set(m["output_index"], object(m["item"]))
		case "content_part.added", "content_part.done":
			parts(item, "content").set(m["content_index"], object(m["part"]))
		case "reasoning_summary_part.added", "reasoning_summary_part.done":
			parts(item, "summary").set(m["summary_index"], object(m["part"]))
		case "output_text.annotation.added":
			part := parts(item, "content").at(m["content_index"])
			part["annotations"] = append(list(part["annotations"]), m["annotation"])
		default:
			of, isDelta := strings.CutSuffix(text(m["type"]), ".delta")
			if !isDelta {
				continue // it says once more what the deltas said, or how far a tool is
			}
			to, name := item, responseTexts[of]
			switch {
			case m["content_index"] != nil:
				to = parts(item, "content").at(m["content_index"])
			case m["summary_index"] != nil:
				to = parts(item, "summary").at(m["summary_index"])
			}
			to[name] = text(to[name]) + text(m["delta"])
		}
	}
	output := []any{}
	for _, item := range items.all() {
		for _, name := range []string{"content", "summary"} {
			if p, ok := item[name].(indexed); ok {
				list := []any{}
				for _, part := range p.all() {
					list = append(list, part)
				}
				item[name] = list
			}
		}
		output = append(output, item)
	}
	response["output"] = output
	return response
}

// responseTexts are the members that deltas of the Responses API continue, by the
// event's type.
var responseTexts = map[string]string{
	"response.output_text": "text", "response.refusal": "refusal", "response.reasoning_text": "text", "response.reasoning_summary_text": "text",
	"response.function_call_arguments": "arguments", "response.mcp_call_arguments": "arguments", "response.custom_tool_call_input": "input",
	"response.code_interpreter_call_code": "code",
}

// indexed are the elements of a list by the indices that events give them.
type indexed map[int64]map[string]any

// at is the element of an index, made where there is none.
func (x indexed) at(index any) map[string]any {
	n, _ := number(index)
	if x[n] == nil {
		x[n] = map[string]any{}
	}
	return x[n]
}

// set replaces an element by what is known better.
func (x indexed) set(index any, to map[string]any) {
	if n, ok := number(index); ok && to != nil {
		x[n] = to
	}
}

// all are the elements that anything was said of, in their order.
func (x indexed) all() (all []map[string]any) {
	for _, n := range slices.Sorted(maps.Keys(x)) {
		if len(x[n]) > 0 {
			all = append(all, x[n])
		}
	}
	return all
}

func number(v any) (int64, bool) {
	n, _ := v.(json.Number)
	i, err := n.Int64()
	return i, err == nil
}

// parts are the elements of an item's list, which may have begun with some.
func parts(item map[string]any, name string) indexed {
	if p, ok := item[name].(indexed); ok {
		return p
	}
	p := indexed{}
	for i, v := range list(item[name]) {
		if m := object(v); m != nil {
			p[int64(i)] = m
		}
	}
	item[name] = p
	return p
}

// chatStream is OpenAI's chat completions, and completions.
func chatStream(events []any) map[string]any {
	out := map[string]any{}
	choices := map[string]map[string]any{}
	var order []string
	seen := false
	for _, e := range events {
		for name, v := range object(e) {
			switch name {
			case "choices":
				seen = true
				for _, c := range list(v) {
					part := object(c)
					index := string(encode(part["index"]))
					choice := choices[index]
					if choice == nil {
						choice = map[string]any{}
						choices[index] = choice
						order = append(order, index)
					}
					if delta, ok := part["delta"]; ok {
						part["message"] = delta
						delete(part, "delta")
					}
					merge(choice, part)
				}
			case "obfuscation": // padding of the stream, which differs each time
			default:
				if v != nil || out[name] == nil {
					out[name] = v
				}
			}
		}
	}
	if !seen {
		return nil
	}
	all := []any{}
	for _, index := range order {
		all = append(all, choices[index])
	}
	out["choices"] = all
	if object, ok := out["object"].(string); ok {
		out["object"] = strings.TrimSuffix(object, ".chunk")
	}
	return out
}

// saidOnce are members of a delta whose text is not continued by the next.
var saidOnce = map[string]bool{"role": true, "id": true, "type": true, "finish_reason": true, "name": true}

// merge adds a delta: texts go on, elements of lists are found by their index,
// anything else is said anew. What is said to be null is not unsaid.
func merge(to, delta map[string]any) {
	for name, v := range delta {
		switch v := v.(type) {
		case nil:
			if _, there := to[name]; !there {
				to[name] = nil
			}
		case string:
			if before := text(to[name]); before != "" && (saidOnce[name] && v == "" || !saidOnce[name]) {
				v = before + v
			}
			to[name] = v
		case map[string]any:
			before := object(to[name])
			if before == nil {
				before = map[string]any{}
				to[name] = before
			}
			merge(before, v)
		case []any:
			to[name] = mergeList(list(to[name]), v)
		default:
			to[name] = v
		}
	}
}

func mergeList(to, delta []any) []any {
	for _, v := range delta {
		index, ok := object(v)["index"].(json.Number)
		if !ok {
			to = append(to, v)
			continue
		}
		at := slices.IndexFunc(to, func(have any) bool { return object(have)["index"] == index })
		if at < 0 {
			at = len(to)
			to = append(to, map[string]any{})
		}
		merge(object(to[at]), object(v))
	}
	return to
}

// messagesStream is Anthropic's Messages API.
func messagesStream(events []any) map[string]any {
	var message map[string]any
	blocks := map[string]map[string]any{}
	var order []string
	inputs := map[string]*strings.Builder{}
	for _, e := range events {
		m := object(e)
		index := string(encode(m["index"]))
		switch text(m["type"]) {
		case "message_start":
			message = object(m["message"])
		case "content_block_start":
			blocks[index] = object(m["content_block"])
			order = append(order, index)
		case "content_block_delta":
			block, delta := blocks[index], object(m["delta"])
			if block == nil {
				continue
			}
			switch text(delta["type"]) {
			case "input_json_delta":
				if inputs[index] == nil {
					inputs[index] = &strings.Builder{}
				}
				inputs[index].WriteString(text(delta["partial_json"]))
			case "citations_delta":
				block["citations"] = append(list(block["citations"]), delta["citation"])
			default:
				delete(delta, "type")
				merge(block, delta)
			}
		case "message_delta":
			if message != nil {
				merge(message, object(m["delta"]))
				if u, ok := m["usage"].(map[string]any); ok {
					if object(message["usage"]) == nil {
						message["usage"] = map[string]any{}
					}
					merge(object(message["usage"]), u)
				}
			}
		case "error":
			if message == nil {
				message = map[string]any{}
			}
			message["error"] = m["error"]
		}
	}
	if message == nil || message["type"] != "message" && message["error"] == nil {
		return nil
	}
	content := []any{}
	for _, index := range order {
		block := blocks[index]
		if in := inputs[index]; in != nil {
			if json.Valid([]byte(in.String())) {
				block["input"] = decode([]byte(in.String()))
			} else { // it broke off
				block["input"] = in.String()
			}
		}
		content = append(content, block)
	}
	message["content"] = content
	return message
}

// contentStream is Gemini's: each event is a response with the next parts.
func contentStream(events []any) map[string]any {
	out := map[string]any{}
	var candidates []any
	seen := false
	for _, e := range events {
		for name, v := range object(e) {
			if name != "candidates" {
				out[name] = v
				continue
			}
			seen = true
			for i, c := range list(v) {
				part := object(c)
				if part == nil {
					continue
				}
				if _, ok := part["index"]; !ok && i > 0 {
					part["index"] = json.Number(string(encode(i)))
				}
				at := slices.IndexFunc(candidates, func(have any) bool { return object(have)["index"] == part["index"] })
				if at < 0 {
					candidates = append(candidates, part)
					continue
				}
				have := object(candidates[at])
				content, more := object(have["content"]), object(part["content"])
				parts := list(content["parts"])
				for _, p := range list(more["parts"]) {
					parts = appendPart(parts, p)
				}
				for name, v := range part {
					if name != "content" {
						have[name] = v
					}
				}
				if content != nil && parts != nil {
					content["parts"] = parts
				} else if more != nil {
					have["content"] = more
				}
			}
		}
	}
	if !seen {
		return nil
	}
	out["candidates"] = candidates
	return out
}

// appendPart lets a text go on that was cut for streaming.
func appendPart(parts []any, p any) []any {
	m := object(p)
	if len(parts) > 0 && len(m) == 1 {
		last := object(parts[len(parts)-1])
		if more, ok := m["text"].(string); ok && len(last) == 1 {
			if before, ok := last["text"].(string); ok {
				last["text"] = before + more
				return parts
			}
		}
	}
	return append(parts, p)
}

// converseStream is that of Bedrock's Converse.
func converseStream(events []any) map[string]any {
	out, message := map[string]any{}, map[string]any{}
	blocks := map[string]map[string]any{}
	var order []string
	seen := false
	block := func(v map[string]any) map[string]any {
		index := string(encode(v["contentBlockIndex"]))
		if blocks[index] == nil {
			blocks[index] = map[string]any{}
			order = append(order, index)
		}
		return blocks[index]
	}
	for _, e := range events {
		for kind, v := range object(e) {
			v := object(v)
			switch kind {
			case "messageStart":
				seen = true
				message["role"] = v["role"]
			case "contentBlockStart":
				merge(block(v), object(v["start"]))
			case "contentBlockDelta":
				merge(block(v), object(v["delta"]))
			case "messageStop":
				out["stopReason"] = v["stopReason"]
			case "metadata":
				for name, value := range v {
					if name != "p" { // padding
						out[name] = value
					}
				}
			}
		}
	}
	if !seen {
		return nil
	}
	content := []any{}
	for _, index := range order {
		b := blocks[index]
		if use := object(b["toolUse"]); use != nil {
			if in, ok := use["input"].(string); ok && json.Valid([]byte(in)) {
				use["input"] = decode([]byte(in))
			}
		}
		content = append(content, b)
	}
	message["content"] = content
	out["output"] = map[string]any{"message": message}
	return out
}

// titanStream is that of Amazon's Titan models on Bedrock.
func titanStream(events []any) map[string]any {
	var said strings.Builder
	result, out := map[string]any{}, map[string]any{}
	seen := false
	for _, e := range events {
		for name, v := range object(e) {
			switch name {
			case "outputText":
				seen = true
				said.WriteString(text(v))
			case "completionReason":
				if v != nil {
					result[name] = v
				}
			case "totalOutputTextTokenCount":
				if v != nil {
					result["tokenCount"] = v
				}
			case "index":
			default:
				if v != nil {
					out[name] = v
				}
			}
		}
	}
	if !seen {
		return nil
	}
	result["outputText"] = said.String()
	out["results"] = []any{result}
	return out
}
