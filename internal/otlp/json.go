package otlp

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The members of OTLP's JSON that are kept (opentelemetry-proto,
// docs/specification.md, JSON Protobuf Encoding): unknown ones are passed over.

type jsonRequest struct {
	ResourceSpans []struct {
		Resource   jsonResource
		ScopeSpans []struct {
			Scope     jsonScope
			Spans     []json.RawMessage
			SchemaURL string `json:"schemaUrl"`
		}
		SchemaURL string `json:"schemaUrl"`
	}
	ResourceLogs []struct {
		Resource  jsonResource
		ScopeLogs []struct {
			Scope      jsonScope
			LogRecords []json.RawMessage
			SchemaURL  string `json:"schemaUrl"`
		}
		SchemaURL string `json:"schemaUrl"`
	}
}

type jsonResource struct {
	Attributes             []jsonAttribute
	DroppedAttributesCount number
	raw                    []byte
}

func (r *jsonResource) UnmarshalJSON(b []byte) error {
	type plain jsonResource
	err := json.Unmarshal(b, (*plain)(r))
	r.raw = b
	return err
}

type jsonScope struct {
	Name, Version string
	Attributes    []jsonAttribute
	raw           []byte
}

func (s *jsonScope) UnmarshalJSON(b []byte) error {
	type plain jsonScope
	err := json.Unmarshal(b, (*plain)(s))
	s.raw = b
	return err
}

type jsonSpan struct {
	TraceID                string `json:"traceId"`
	SpanID                 string `json:"spanId"`
	ParentSpanID           string `json:"parentSpanId"`
	TraceState             string
	Flags                  number
	Name                   string
	Kind                   enum
	StartTimeUnixNano      number
	EndTimeUnixNano        number
	Attributes             []jsonAttribute
	DroppedAttributesCount number
	Events                 []struct {
		TimeUnixNano           number
		Name                   string
		Attributes             []jsonAttribute
		DroppedAttributesCount number
	}
	DroppedEventsCount number
	Links              []struct {
		TraceID                string `json:"traceId"`
		SpanID                 string `json:"spanId"`
		TraceState             string
		Attributes             []jsonAttribute
		DroppedAttributesCount number
	}
	DroppedLinksCount number
	Status            struct {
		Code    enum
		Message string
	}
}

type jsonRecord struct {
	TimeUnixNano           number
	ObservedTimeUnixNano   number
	SeverityNumber         enum
	SeverityText           string
	Body                   jsonValue
	Attributes             []jsonAttribute
	DroppedAttributesCount number
	TraceID                string `json:"traceId"`
	SpanID                 string `json:"spanId"`
	EventName              string
}

type jsonAttribute struct {
	Key   string
	Value jsonValue
}

type jsonValue struct {
	StringValue *string
	BoolValue   *bool
	IntValue    *signed
	DoubleValue *float
	ArrayValue  *struct{ Values []jsonValue }
	KvlistValue *struct{ Values []jsonAttribute }
	BytesValue  *string
}

var errNumber = errors.New("a number is not one")

// number is a uint64 or uint32: its digits, as a string or not.
type number uint64

func (n *number) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	u, err := strconv.ParseUint(strings.Trim(string(b), `"`), 10, 64)
	*n = number(u)
	if err != nil {
		return errNumber
	}
	return nil
}

// signed is an int64.
type signed int64

func (n *signed) UnmarshalJSON(b []byte) error {
	i, err := strconv.ParseInt(strings.Trim(string(b), `"`), 10, 64)
	*n = signed(i)
	if err != nil {
		return errNumber
	}
	return nil
}

// float is a double: a number, or as protobuf's JSON has it "NaN", "Infinity"
// or "-Infinity" or any number as text.
type float float64

func (f *float) UnmarshalJSON(b []byte) error {
	text := strings.Trim(string(b), `"`)
	switch text {
	case "NaN":
		*f = float(math.NaN())
	case "Infinity":
		*f = float(math.Inf(1))
	case "-Infinity":
		*f = float(math.Inf(-1))
	default:
		v, err := strconv.ParseFloat(text, 64)
		*f = float(v)
		if err != nil && !errors.Is(err, strconv.ErrRange) {
			return errNumber
		}
	}
	return nil
}

// enum is a number. Names, which the protocol does not have, are taken from
// exports of trace stores.
type enum uint64

var enumNames = map[string]enum{
	"SPAN_KIND_INTERNAL": 1, "SPAN_KIND_SERVER": 2, "SPAN_KIND_CLIENT": 3, "SPAN_KIND_PRODUCER": 4, "SPAN_KIND_CONSUMER": 5,
	"STATUS_CODE_OK": statusOK, "STATUS_CODE_ERROR": statusError,
}

func (e *enum) UnmarshalJSON(b []byte) error {
	if len(b) > 2 && b[0] == '"' && b[1] >= 'A' {
		*e = enumNames[string(b[1:len(b)-1])]
		return nil
	}
	return (*number)(e).UnmarshalJSON(b)
}

// json reads a request in OTLP's JSON.
func (d *decoder) json(body []byte, logs bool) error {
	if !utf8.Valid(body) {
		return errors.New("the JSON is not valid UTF-8")
	}
	if err := d.measure(body); err != nil {
		return err
	}
	var request jsonRequest
	if err := json.Unmarshal(body, &request); err != nil {
		return jsonError(err)
	}
	room := func(n int) error {
		if len(d.spans)+len(d.records)+n > d.limits.Spans {
			return errTooMany
		}
		return nil
	}
	if logs {
		for i := range request.ResourceLogs {
			rl := &request.ResourceLogs[i]
			r := rl.Resource.resource(rl.SchemaURL)
			for j := range rl.ScopeLogs {
				sl := &rl.ScopeLogs[j]
				if err := room(len(sl.LogRecords)); err != nil {
					return err
				}
				s := sl.Scope.scope(sl.SchemaURL)
				sum := newDigester(rl.Resource.raw, []byte(r.schema), sl.Scope.raw, []byte(s.schema))
				for _, raw := range sl.LogRecords {
					var in jsonRecord
					if err := json.Unmarshal(raw, &in); err != nil {
						return jsonError(err)
					}
					out := in.record()
					out.resource, out.scope, out.digest = r, s, sum.of(raw)
					d.records = append(d.records, out)
				}
			}
		}
		return nil
	}
	for i := range request.ResourceSpans {
		rs := &request.ResourceSpans[i]
		r := rs.Resource.resource(rs.SchemaURL)
		for j := range rs.ScopeSpans {
			ss := &rs.ScopeSpans[j]
			if err := room(len(ss.Spans)); err != nil {
				return err
			}
			s := ss.Scope.scope(ss.SchemaURL)
			sum := newDigester(rs.Resource.raw, []byte(r.schema), ss.Scope.raw, []byte(s.schema))
			for _, raw := range ss.Spans {
				var in jsonSpan
				if err := json.Unmarshal(raw, &in); err != nil {
					return jsonError(err)
				}
				out := in.span()
				out.resource, out.scope, out.digest = r, s, sum.of(raw)
				d.spans = append(d.spans, out)
			}
		}
	}
	return nil
}

// jsonError says what is wrong and nothing of what was sent.
func jsonError(err error) error {
	var syntax *json.SyntaxError
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return errors.New("the body is not JSON")
	case errors.As(err, &wrong):
		return errors.New("a member of the JSON has another type than OTLP's")
	case errors.Is(err, errNumber):
		return errNumber
	}
	return errors.New("the body is not OTLP's JSON")
}

// measure counts the values of JSON text before any of them is made, and its
// nesting. The commas and brackets outside of strings bound the values.
func (d *decoder) measure(body []byte) error {
	depth, values := 0, 0
	for i := 0; i < len(body); i++ {
		switch body[i] {
		case '"':
			for i++; i < len(body) && body[i] != '"'; i++ {
				if body[i] == '\\' {
					i++
				}
			}
		case '{', '[':
			values++
			if depth++; depth > maxJSONDepth {
				return errTooDeep
			}
		case '}', ']':
			depth--
		case ',':
			values++
		}
	}
	return d.allow(values)
}

// maxJSONDepth: a value of OTLP's JSON takes four levels for each of its own
// (kvlistValue, values, the pair, value), and a request some ten around it.
const maxJSONDepth = 4*2*maxDepth + 16

func (r *jsonResource) resource(schema string) *resource {
	return &resource{attributes: attributesOf(r.Attributes, 1), dropped: uint32(r.DroppedAttributesCount), schema: schema}
}

func (s *jsonScope) scope(schema string) *scope {
	return &scope{name: s.Name, version: s.Version, attributes: attributesOf(s.Attributes, 1), schema: schema}
}

func (in *jsonSpan) span() span {
	out := span{
		traceID: hexID(in.TraceID, 16), spanID: hexID(in.SpanID, 8), parentID: hexID(in.ParentSpanID, 8), traceState: in.TraceState,
		flags: uint32(in.Flags), name: in.Name, kind: uint64(in.Kind), start: uint64(in.StartTimeUnixNano), end: uint64(in.EndTimeUnixNano),
		attributes: attributesOf(in.Attributes, 1), droppedAttributes: uint32(in.DroppedAttributesCount),
		droppedEvents: uint32(in.DroppedEventsCount), droppedLinks: uint32(in.DroppedLinksCount),
		status: uint64(in.Status.Code), statusMessage: in.Status.Message,
	}
	if out.spanID == "" {
		out.givenID = in.SpanID[:min(len(in.SpanID), 32)]
	}
	for _, e := range in.Events {
		out.events = append(out.events, event{
			time: uint64(e.TimeUnixNano), name: e.Name, attributes: attributesOf(e.Attributes, 1), dropped: uint32(e.DroppedAttributesCount),
		})
	}
	for _, l := range in.Links {
		out.links = append(out.links, link{
			traceID: hexID(l.TraceID, 16), spanID: hexID(l.SpanID, 8), traceState: l.TraceState,
			attributes: attributesOf(l.Attributes, 1), dropped: uint32(l.DroppedAttributesCount),
		})
	}
	return out
}

func (in *jsonRecord) record() record {
	return record{
		time: uint64(in.TimeUnixNano), observed: uint64(in.ObservedTimeUnixNano), severity: uint64(in.SeverityNumber), severityText: in.SeverityText,
		body: in.Body.value(1), attributes: attributesOf(in.Attributes, 1), droppedAttributes: uint32(in.DroppedAttributesCount),
		traceID: hexID(in.TraceID, 16), spanID: hexID(in.SpanID, 8), eventName: in.EventName,
	}
}

func attributesOf(in []jsonAttribute, depth int) []attribute {
	out := make([]attribute, len(in))
	for i := range in {
		out[i] = attribute{in[i].Key, in[i].Value.value(depth)}
	}
	return out
}

func (in *jsonValue) value(depth int) value {
	switch {
	case in.StringValue != nil:
		return value{kind: textual, text: *in.StringValue}
	case in.BoolValue != nil:
		v := value{kind: boolean}
		if *in.BoolValue {
			v.n = 1
		}
		return v
	case in.IntValue != nil:
		return value{kind: integer, n: uint64(*in.IntValue)}
	case in.DoubleValue != nil:
		return value{kind: double, n: math.Float64bits(float64(*in.DoubleValue))}
	case in.BytesValue != nil:
		b, err := base64.StdEncoding.DecodeString(*in.BytesValue)
		if err != nil {
			return value{kind: textual, text: *in.BytesValue}
		}
		return value{kind: binary64, text: text(b)}
	case (in.ArrayValue != nil || in.KvlistValue != nil) && depth >= maxDepth:
		return value{kind: tooDeep}
	case in.ArrayValue != nil:
		v := value{kind: list, members: make([]attribute, len(in.ArrayValue.Values))}
		for i := range in.ArrayValue.Values {
			v.members[i].value = in.ArrayValue.Values[i].value(depth + 1)
		}
		return v
	case in.KvlistValue != nil:
		return value{kind: mapping, members: attributesOf(in.KvlistValue.Values, depth+1)}
	}
	return value{}
}

// hexID is an id as OTLP's JSON has it, hex in either case.
func hexID(s string, size int) string {
	if len(s) != 2*size {
		return ""
	}
	b, err := hex.DecodeString(s)
	if err != nil {
		return ""
	}
	return id(b, size)
}
