package otlp

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	audit "github.com/kaizen-audit/kaizen-audit"
)

const (
	traceID = "5b8efff798038103d269b633813fc60c"
	spanID  = "eee19b7ec3c1b174"
)

// jsonSpans is a request of spans, each given by its members.
func jsonSpans(spans ...string) []byte {
	return []byte(`{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"svc"}}]},"scopeSpans":[{"scope":{"name":"lib"},"spans":[` +
		strings.Join(spans, ",") + `]}]}]}`)
}

func jsonSpanText(id int, more string) string {
	return fmt.Sprintf(`{"traceId":%q,"spanId":"%016x","name":"s","startTimeUnixNano":"1700000000000000000","endTimeUnixNano":"1700000000250000000"%s}`, traceID, id, more)
}

// protoSpans is the same in protobuf.
func protoSpans(spans ...[]byte) []byte {
	var scope []byte
	for _, s := range spans {
		scope = appendString(scope, 2, string(s))
	}
	return appendString(nil, 1, string(appendString(nil, 2, string(scope))))
}

func protoSpan(trace, span []byte, name string, attributes ...[]byte) []byte {
	var b []byte
	b = appendString(b, 1, string(trace))
	b = appendString(b, 2, string(span))
	b = appendString(b, 5, name)
	b = binary.LittleEndian.AppendUint64(append(b, 7<<3|fixed64), 1_700_000_000_000_000_000)
	b = binary.LittleEndian.AppendUint64(append(b, 8<<3|fixed64), 1_700_000_000_250_000_000)
	for _, a := range attributes {
		b = appendString(b, 9, string(a))
	}
	return b
}

func protoAttribute(key string, v []byte) []byte {
	return appendString(appendString(nil, 1, key), 2, string(v))
}

func protoText(s string) []byte { return appendString(nil, 1, s) }

var someTrace, someSpan = bytes.Repeat([]byte{7}, 16), bytes.Repeat([]byte{9}, 8)

func zipped(b []byte) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, _ = z.Write(b)
	_ = z.Close()
	return out.Bytes()
}

func asGzip(r *http.Request) { r.Header.Set("Content-Encoding", "gzip") }

// TestAnswersAreTheProtocols: status, type and body, in both encodings.
func TestAnswersAreTheProtocols(t *testing.T) {
	good := jsonSpans(jsonSpanText(1, ""))
	small := DefaultLimits
	small.Body, small.Inflated, small.Spans, small.Values = 4096, 8192, 3, 200
	for _, tt := range []struct {
		name, path, kind string
		body             []byte
		change           func(*http.Request)
		status           int
		says             string
	}{
		{"JSON", "/v1/traces", jsonType, good, nil, 200, "{}"},
		{"JSON with a charset", "/v1/traces", jsonType + "; charset=utf-8", good, nil, 200, "{}"},
		{"JSON, zipped", "/v1/traces", jsonType, zipped(good), asGzip, 200, "{}"},
		{"protobuf", "/v1/traces", protobufType, protoSpans(protoSpan(someTrace, someSpan, "s")), nil, 200, ""},
		{"protobuf, zipped", "/v1/traces", protobufType, zipped(protoSpans(protoSpan(someTrace, someSpan, "s"))), asGzip, 200, ""},
		{"nothing", "/v1/traces", protobufType, nil, nil, 200, ""},
		{"nothing in JSON", "/v1/logs", jsonType, []byte(`{}`), nil, 200, "{}"},
		{"unknown members", "/v1/traces", jsonType, []byte(`{"resourceSpans":[],"later":{"a":[1]}}`), nil, 200, "{}"},
		{"GET", "/v1/traces", jsonType, nil, func(r *http.Request) { r.Method = "GET" }, 405, "only POST"},
		{"another path", "/v1/profiles", jsonType, good, nil, 404, "there is /v1/traces"},
		{"another type", "/v1/traces", "text/plain", good, nil, 415, "content type"},
		{"no type", "/v1/traces", "", good, nil, 415, "content type"},
		{"another encoding", "/v1/traces", jsonType, good, func(r *http.Request) { r.Header.Set("Content-Encoding", "br") }, 415, "gzip or none"},
		{"no gzip", "/v1/traces", jsonType, good, asGzip, 400, "can't be read"},
		{"half a gzip", "/v1/traces", jsonType, zipped(good)[:40], asGzip, 400, "can't be read"},
		{"no JSON", "/v1/traces", jsonType, []byte(`{"resourceSpans":[`), nil, 400, "not JSON"},
		{"another JSON", "/v1/traces", jsonType, []byte(`{"resourceSpans":7}`), nil, 400, "another type"},
		{"no UTF-8", "/v1/traces", jsonType, []byte("{\"a\":\"\xff\"}"), nil, 400, "UTF-8"},
		{"a number that is none", "/v1/traces", jsonType, jsonSpans(`{"startTimeUnixNano":"soon"}`), nil, 400, "number"},
		{"no protobuf", "/v1/traces", protobufType, []byte{0x0a, 0x05, 1}, nil, 400, "not a message"},
		{"protobuf cut off inside", "/v1/traces", protobufType, protoSpans([]byte{0x0a, 0x10, 1}), nil, 400, "not a message"},
		{"long", "/v1/traces", jsonType, bytes.Repeat([]byte(" "), 4097), nil, 413, "longer"},
		{"long, length not said", "/v1/traces", jsonType, bytes.Repeat([]byte(" "), 4097), func(r *http.Request) { r.ContentLength = -1 }, 413, "longer"},
		{"a bomb", "/v1/traces", jsonType, zipped(bytes.Repeat([]byte(" "), 1<<20)), asGzip, 413, "longer"},
		{"many spans", "/v1/traces", jsonType, jsonSpans(jsonSpanText(1, ""), jsonSpanText(2, ""), jsonSpanText(3, ""), jsonSpanText(4, "")), nil, 413, "more spans"},
		{"many spans in protobuf", "/v1/traces", protobufType, protoSpans(nil, nil, nil, nil), nil, 413, "more spans"},
		{"many values", "/v1/traces", jsonType, jsonSpans(`{"attributes":[` + strings.Repeat(`{},`, 300) + `{}]}`), nil, 413, "values"},
		{"many values in protobuf", "/v1/traces", protobufType, protoSpans(bytes.Repeat([]byte{0x4a, 0x00}, 300)), nil, 413, "values"},
		{"a page in a browser", "/v1/traces", jsonType, good, func(r *http.Request) { r.Header.Set("Origin", "http://localhost:4318") }, 403, "web pages"},
		{"DNS rebinding", "/v1/traces", jsonType, good, func(r *http.Request) { r.Host = "evil.example:4318" }, 403, "Host"},
		{"no host", "/v1/traces", jsonType, good, func(r *http.Request) { r.Host = "" }, 403, "Host"},
		{"localhost", "/v1/traces", jsonType, good, func(r *http.Request) { r.Host = "LOCALHOST:4318" }, 200, "{}"},
		{"IPv6", "/v1/traces", jsonType, good, func(r *http.Request) { r.Host = "[::1]:4318" }, 200, "{}"},
		{"preflight", "/v1/traces", "", nil, func(r *http.Request) { r.Method = "OPTIONS"; r.Header.Set("Origin", "http://x") }, 403, "web pages"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := &memoryTrail{}
			change := tt.change
			if change == nil {
				change = func(*http.Request) {}
			}
			w := post(memoryHandler(m, small), tt.path, tt.kind, tt.body, change)
			if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.says) || tt.says == "" && w.Body.Len() > 0 {
				t.Errorf("%d %q, want %d %q", w.Code, w.Body, tt.status, tt.says)
			}
			if w.Header().Get("Access-Control-Allow-Origin") != "" {
				t.Error("CORS")
			}
			if w.Code != 200 && len(m.events) > 0 {
				t.Errorf("refused, and %d events", len(m.events))
			}
			want := jsonType
			if tt.kind == protobufType {
				want = protobufType
			}
			if got := w.Header().Get("Content-Type"); got != want {
				t.Errorf("answered as %s", got)
			}
		})
	}
}

// TestSpansWithoutIDsAreRefusedByName and the others of the request recorded.
func TestSpansWithoutIDsAreRefusedByName(t *testing.T) {
	bad := `{"traceId":"","spanId":"eee19b7ec3c1b174","name":"a"}`
	for kind, body := range map[string][]byte{
		jsonType:     jsonSpans(jsonSpanText(1, ""), bad, `{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"00zz","name":"b"}`),
		protobufType: protoSpans(protoSpan(someTrace, someSpan, "s"), protoSpan(nil, []byte("\xee\xe1\x9b\x7e\xc3\xc1\xb1\x74"), "a"), protoSpan(someTrace, make([]byte, 8), "b")),
	} {
		m := &memoryTrail{}
		h := memoryHandler(m, DefaultLimits)
		w := post(h, "/v1/traces", kind, body)
		if w.Code != 200 || len(m.events) != 1 || len(m.refused) != 2 {
			t.Fatalf("%d, %d recorded, %d refused", w.Code, len(m.events), len(m.refused))
		}
		count, message := uint64(0), ""
		if kind == jsonType {
			var a struct {
				PartialSuccess struct {
					RejectedSpans json.Number
					ErrorMessage  string
				}
			}
			if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil {
				t.Fatal(err)
			}
			n, _ := a.PartialSuccess.RejectedSpans.Int64()
			count, message = uint64(n), a.PartialSuccess.ErrorMessage
		} else {
			o := wire{b: w.Body.Bytes()}
			o.next()
			p := wire{b: o.s}
			p.next()
			count = p.n
			p.next()
			message = string(p.s)
		}
		if count != 2 || !strings.Contains(message, "trace_id must be 16 bytes, not all zero: span "+spanID) || !strings.Contains(message, "span_id must be") {
			t.Errorf("%s: %d %q", kind, count, message)
		}
		if c := h.Counts(); c != (Counts{Spans: 3, Kept: 1, Refused: 2}) {
			t.Errorf("%+v", c)
		}
	}
}

// TestEverySpanThatIsRefusedIsNamed in the answer, however many there are; the
// warning stays short.
func TestEverySpanThatIsRefusedIsNamed(t *testing.T) {
	const n = 500
	spans := make([]string, n)
	for i := range spans {
		spans[i] = fmt.Sprintf(`{"traceId":"","spanId":"%016x"}`, i+1)
	}
	warning := ""
	h := newHandler(&memoryTrail{}, address("127.0.0.1:4318"), nil, DefaultLimits, func(err error) { warning = err.Error() })
	w := post(h, "/v1/traces", jsonType, jsonSpans(spans...))
	for i := range n {
		if id := fmt.Sprintf("%016x", i+1); strings.Count(w.Body.String(), id) != 1 {
			t.Fatalf("%s is not named once", id)
		}
	}
	if !strings.Contains(warning, "500 refused") || !strings.HasSuffix(warning, "and 480 more") || len(warning) > 600 {
		t.Error(warning)
	}
}

// TestPassingFaultsAreRetried: never 200, never 500, never a part.
func TestPassingFaultsAreRetried(t *testing.T) {
	for _, err := range []error{audit.ErrFull, audit.ErrStopped, audit.ErrClosed, audit.ErrUnknown, errors.New("anything")} {
		h := memoryHandler(&memoryTrail{err: passing(err)}, DefaultLimits)
		w := post(h, "/v1/traces", jsonType, jsonSpans(jsonSpanText(1, "")))
		if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" || strings.Contains(w.Body.String(), "rejected") {
			t.Errorf("%v: %d %v %s", err, w.Code, w.Header(), w.Body)
		}
		if c := h.Counts(); c != (Counts{}) {
			t.Errorf("%+v", c)
		}
	}
}

// TestTooMuchAtOnceIsPutOff: the bodies that are worked on are bounded together.
func TestTooMuchAtOnceIsPutOff(t *testing.T) {
	limits := DefaultLimits
	limits.InFlight = 40 << 10
	m := &memoryTrail{block: make(chan struct{})}
	h := memoryHandler(m, limits)
	first := make(chan int)
	go func() { first <- post(h, "/v1/traces", jsonType, jsonSpans(jsonSpanText(1, ""))).Code }()
	for h.busy.Load() == 0 {
	}
	w := post(h, "/v1/traces", jsonType, bytes.Repeat([]byte(" "), 60<<10))
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Errorf("%d", w.Code)
	}
	close(m.block)
	if code := <-first; code != 200 || h.busy.Load() != 0 {
		t.Errorf("%d, %d bytes are still held", code, h.busy.Load())
	}
}

// TestValuesTakeRoomToo: a small body can hold many values. Alone it has room,
// beside another it is put off, in both encodings, and all room is given back.
func TestValuesTakeRoomToo(t *testing.T) {
	for kind, body := range map[string][]byte{
		jsonType:     jsonSpans(`{"traceId":"` + traceID + `","spanId":"` + spanID + `","attributes":[` + strings.Repeat(`{},`, 2000) + `{}]}`),
		protobufType: protoSpans(append(protoSpan(someTrace, someSpan, "s"), bytes.Repeat([]byte{0x4a, 0x00}, 2000)...)),
	} {
		limits := DefaultLimits
		limits.InFlight = 400 << 10
		if kind == jsonType {
			limits.InFlight *= 2 // brackets and commas are counted
		}
		m := &memoryTrail{block: make(chan struct{})}
		h := memoryHandler(m, limits)
		first := make(chan int)
		go func() { first <- post(h, "/v1/traces", kind, body).Code }()
		for deadline := time.Now().Add(10 * time.Second); h.busy.Load() < 2000*valueBytes; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %d bytes are held", kind, h.busy.Load())
			}
		}
		if w := post(h, "/v1/traces", kind, body); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
			t.Errorf("%s: %d", kind, w.Code)
		}
		close(m.block)
		if code := <-first; code != 200 || h.busy.Load() != 0 {
			t.Errorf("%s: %d, %d bytes are still held", kind, code, h.busy.Load())
		}
	}
}

// TestSmallRequestsThatCostMuch are refused, or bounded in what is made: empty
// resources and scopes, of which 64 KiB of gzip can hold 32 million; events that
// are each copied to the attributes; flattened names that are deep and all unlike.
func TestSmallRequestsThatCostMuch(t *testing.T) {
	events := protoSpan(someTrace, someSpan, "s", protoAttribute("gen_ai.operation.name", protoText("chat")))
	for range 20_000 {
		events = appendString(events, 11, string(appendString(appendString(nil, 2, "gen_ai.content.prompt"), 3, "")))
	}
	names := make([][]byte, 0, 40_001)
	for i := range 40_000 {
		names = append(names, protoAttribute(fmt.Sprintf("gen_ai.prompt.%d.a.b.c.d.e.f.g.h.i.j", i), protoText("v")))
	}
	names = append(names, protoAttribute("gen_ai.operation.name", protoText("chat")))
	for name, tt := range map[string]struct {
		body   []byte
		status int
	}{
		"scopes":    {appendString(nil, 1, string(bytes.Repeat([]byte{0x12, 0x00}, 300_000))), 413},
		"resources": {bytes.Repeat([]byte{0x0a, 0x00}, 300_000), 413},
		"events":    {protoSpans(events), 200},
		"names":     {protoSpans(protoSpan(someTrace, someSpan, "s", names...)), 200},
	} {
		m, limits := &memoryTrail{}, DefaultLimits
		limits.Values = 100_000
		if w := post(memoryHandler(m, limits), "/v1/traces", protobufType, zipped(tt.body), asGzip); w.Code != tt.status {
			t.Errorf("%s: %d", name, w.Code)
		}
		if name == "names" {
			if l := line(t, &m.events[0]); strings.Count(l, `"v"`) != 40_000 || !strings.Contains(l, `"attributes":{"gen_ai.prompt.`) {
				t.Errorf("%d values are there", strings.Count(l, `"v"`))
			}
		}
	}
}

// TestTokensAreAskedFor: with a token file nobody gets in without one, and the
// entry says whose it was.
func TestTokensAreAskedFor(t *testing.T) {
	trail := openTrail(t, nil)
	const token = "a-token-of-more-than-twenty-characters"
	h := newHandler(intake{trail}, address("192.0.2.1:4318"), map[[32]byte]string{sha256.Sum256([]byte(token)): "collector"}, DefaultLimits, func(error) {})
	body := jsonSpans(jsonSpanText(1, ""))
	for _, given := range []string{"", "Bearer", "Bearer x", "Basic " + token, token} {
		w := post(h, "/v1/traces", jsonType, body, func(r *http.Request) { r.Header.Set("Authorization", given) })
		if w.Code != http.StatusUnauthorized || w.Header().Get("WWW-Authenticate") != "Bearer" || w.Header().Get("Connection") != "close" {
			t.Errorf("%q: %d", given, w.Code)
		}
	}
	w := post(h, "/v1/traces", jsonType, body, func(r *http.Request) { r.Header.Set("Authorization", "bearer "+token); r.Host = "audit.example" })
	if w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	all := entriesOf(t, trail)
	if len(all) != 1 || all[0].RecordedBy.Text("principal") != "collector" || bytes.Contains(all[0].Line(), []byte(token)) {
		t.Errorf("%s", all[0].Line())
	}
}

// TestTheSameAgainIsThereOnce, in whatever request it comes; another span of the
// same id is another entry, and equal log records of one request are all there.
func TestTheSameAgainIsThereOnce(t *testing.T) {
	h, trail := newIntake(t, nil)
	a, b := jsonSpanText(1, ""), jsonSpanText(2, "")
	changed := jsonSpanText(1, `,"attributes":[{"key":"k","value":{"intValue":"1"}}]`)
	for _, body := range [][]byte{jsonSpans(a, b, a), jsonSpans(b), jsonSpans(changed, a)} {
		if w := post(h, "/v1/traces", jsonType, body); w.Code != 200 || w.Body.String() != "{}" {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	}
	record := `{"timeUnixNano":"1700000000000000000","body":{"stringValue":"again"}}`
	logs := []byte(`{"resourceLogs":[{"scopeLogs":[{"logRecords":[` + record + `,` + record + `]}]}]}`)
	for range 2 {
		if w := post(h, "/v1/logs", jsonType, logs); w.Code != 200 {
			t.Fatal(w.Code)
		}
	}
	if n := len(entriesOf(t, trail)); n != 3+2 {
		t.Errorf("%d entries", n)
	}
	for e, err := range trail.Query(t.Context(), audit.Query{Trails: true}) {
		if err != nil || e.EventType == "AUDIT_CONFLICT" {
			t.Errorf("%s, %v", e.EventType, err)
		}
	}
}

// TestWhatIsTooLongIsLeftOutAndSaid: the span is an entry all the same, and is
// the same entry when it comes again.
func TestWhatIsTooLongIsLeftOutAndSaid(t *testing.T) {
	trail := openTrail(t, &audit.Options{MaxLine: 4096})
	h := newHandler(intake{trail}, address("127.0.0.1:4318"), nil, DefaultLimits, func(error) {})
	long := strings.Repeat("x", 10_000)
	body := jsonSpans(jsonSpanText(1, `,"attributes":[{"key":"k","value":{"stringValue":"`+long+`"}}]`),
		fmt.Sprintf(`{"traceId":%q,"spanId":"%016x","name":%q}`, traceID, 2, long))
	for range 2 {
		if w := post(h, "/v1/traces", jsonType, body); w.Code != 200 || w.Body.String() != "{}" {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	}
	all := entriesOf(t, trail)
	if len(all) != 2 {
		t.Fatalf("%d entries", len(all))
	}
	if s := string(all[0].Line()); !strings.Contains(s, `"inputs":{"bytes":10008,"mac":"`) || !strings.Contains(s, `"policy":{"omitted":["/inputs"]}`) {
		t.Error(s)
	}
	if a := all[1].Action; len(a) > 2*longestName || !strings.HasPrefix(a, "xxx") {
		t.Errorf("an action of %d bytes", len(a))
	}
	for e, err := range trail.Query(t.Context(), audit.Query{Trails: true}) {
		if err != nil || e.EventType == "AUDIT_REFUSED" {
			t.Errorf("%s, %v", e.EventType, err)
		}
	}
}
