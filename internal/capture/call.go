package capture

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"mime"
	"mime/multipart"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/kaizen-audit/kaizen-audit/internal/genai"
)

// Call is a model call in neutral words. Absent values are zero.
type Call struct {
	// Provider and Operation have the values of gen_ai.provider.name and
	// gen_ai.operation.name where the conventions know them.
	Provider, Operation         string
	RequestModel, ResponseModel string
	ResponseID                  string
	FinishReasons               []string
	Usage                       Usage
	Streamed                    bool
	// Refused: the model, or what guards it, would not answer.
	Refused bool
	// Failure is the kind of error that the response tells of, which a stream does
	// with a status of 200.
	Failure string
}

// Usage counts tokens. Input includes cached ones, Output those of reasoning,
// whatever the provider's way of counting.
type Usage struct {
	Input, Output, CacheRead, CacheWrite, Reasoning int64
	Known                                           bool
}

// Model is the model's name: the one that was asked for, else the one that
// answered.
func (c *Call) Model() string {
	if c.RequestModel != "" {
		return c.RequestModel
	}
	return c.ResponseModel
}

// Metadata is what a call says, for an entry's metadata member gen_ai.
func (c *Call) Metadata() map[string]any {
	m := map[string]any{}
	text := func(name, value string) {
		if value != "" {
			m[name] = value
		}
	}
	text("provider_name", c.Provider)
	text("operation_name", c.Operation)
	text("request_model", c.RequestModel)
	text("response_model", c.ResponseModel)
	text("response_id", c.ResponseID)
	if len(c.FinishReasons) > 0 {
		m["finish_reasons"] = c.FinishReasons
	}
	if c.Streamed {
		m["stream"] = true
	}
	if c.Refused {
		m["refused"] = true
	}
	if u := c.Usage; u.Known {
		m["input_tokens"], m["output_tokens"] = u.Input, u.Output
		for name, n := range map[string]int64{"cache_read_input_tokens": u.CacheRead, "cache_write_input_tokens": u.CacheWrite, "reasoning_output_tokens": u.Reasoning} {
			if n > 0 {
				m[name] = n
			}
		}
	}
	return m
}

// hosts are the providers of known hosts, by the end of the name.
var hosts = []struct{ end, provider string }{
	{"api.openai.com", "openai"},
	{".openai.azure.com", "azure.ai.openai"},
	{".services.ai.azure.com", "azure.ai.inference"},
	{"api.anthropic.com", "anthropic"},
	{"generativelanguage.googleapis.com", "gcp.gemini"},
	{"aiplatform.googleapis.com", "gcp.vertex_ai"},
	{".amazonaws.com", "aws.bedrock"},
	{"api.groq.com", "groq"},
	{"api.mistral.ai", "mistral_ai"},
	{"api.deepseek.com", "deepseek"},
	{"api.x.ai", "x_ai"},
	{"api.perplexity.ai", "perplexity"},
	{"api.cohere.com", "cohere"},
	{"api.moonshot.ai", "moonshot_ai"},
}

// paths are the operations of known APIs by the end of the path, and whose API
// it is where the host does not say.
var paths = []struct{ end, operation, api string }{
	{"/chat/completions", "chat", "openai"},
	{"/responses", "chat", "openai"},
	{"/responses/compact", "compact", "openai"},
	{"/responses/input_tokens", "count_tokens", "openai"},
	{"/completions", "text_completion", "openai"},
	{"/embeddings", "embeddings", "openai"},
	{"/images/generations", "image_generation", "openai"},
	{"/images/edits", "image_generation", "openai"},
	{"/images/variations", "image_generation", "openai"},
	{"/audio/transcriptions", "transcription", "openai"},
	{"/audio/translations", "transcription", "openai"},
	{"/audio/speech", "speech", "openai"},
	{"/moderations", "moderation", "openai"},
	{"/v1/messages", "chat", "anthropic"},
	{"/v1/messages/batches", "batch", "anthropic"},
	{"/v1/messages/count_tokens", "count_tokens", "anthropic"},
	{"/v1/complete", "text_completion", "anthropic"},
	{":generateContent", "generate_content", "gcp.gemini"},
	{":streamGenerateContent", "generate_content", "gcp.gemini"},
	{":embedContent", "embeddings", "gcp.gemini"},
	{":batchEmbedContents", "embeddings", "gcp.gemini"},
	{":predict", "predict", "gcp.vertex_ai"},
	{"/api/chat", "chat", "ollama"},
	{"/api/generate", "text_completion", "ollama"},
	{":rawPredict", "chat", "gcp.vertex_ai"},
	{":streamRawPredict", "chat", "gcp.vertex_ai"},
	{"/converse", "chat", "aws.bedrock"},
	{"/converse-stream", "chat", "aws.bedrock"},
	{"/invoke", "invoke_model", "aws.bedrock"},
	{"/invoke-with-response-stream", "invoke_model", "aws.bedrock"},
}

// Known tells whether a URL is that of a model call.
func Known(u *url.URL) bool {
	for _, p := range paths {
		if strings.HasSuffix(u.Path, p.end) {
			return true
		}
	}
	return false
}

// Request is what a request to a model says.
func Request(u *url.URL, contentType string, body []byte) *Call {
	c := &Call{}
	for _, p := range paths {
		if strings.HasSuffix(u.Path, p.end) {
			c.Operation, c.Provider = p.operation, p.api
			break
		}
	}
	for _, h := range hosts {
		if strings.HasSuffix(u.Hostname(), h.end) {
			c.Provider = h.provider
			break
		}
	}
	m, _ := decode(body).(map[string]any)
	c.RequestModel = first(text(m["model"]), formModel(contentType, body))
	c.Streamed, _ = m["stream"].(bool)
	// Some have the model in the path: …/models/NAME:operation,
	// /model/NAME/operation.
	if c.RequestModel == "" {
		for _, before := range []string{"/models/", "/model/", "/deployments/"} {
			if _, rest, ok := strings.Cut(u.EscapedPath(), before); ok {
				end := strings.IndexAny(rest, "/:")
				if before == "/model/" {
					end = strings.IndexByte(rest, '/') // a Bedrock model has colons
				}
				if end > 0 {
					rest = rest[:end]
				}
				c.RequestModel, _ = url.PathUnescape(rest)
				break
			}
		}
	}
	return c
}

// formModel is the model that a form names, as those do with which a file is sent.
func formModel(contentType string, body []byte) string {
	kind, params, _ := mime.ParseMediaType(contentType)
	if kind != "multipart/form-data" {
		return ""
	}
	parts := multipart.NewReader(bytes.NewReader(body), params["boundary"])
	for {
		part, err := parts.NextPart()
		if err != nil {
			return ""
		}
		if part.FormName() == "model" {
			model, err := io.ReadAll(io.LimitReader(part, maxName))
			if err != nil || !utf8.Valid(model) {
				return ""
			}
			return string(model)
		}
	}
}

// maxName is how long a model's name may be in a form, in bytes: an action has to
// hold it.
const maxName = 256

// Body is a body as a JSON value: as it is where it is JSON, but for the
// credentials of headers (genai.Clean), such as those with which a model may use
// an MCP server; else with its text or, in base64, its bytes. An empty one is nil.
func Body(contentType string, body []byte) json.RawMessage {
	if len(bytes.TrimSpace(body)) == 0 {
		return nil
	}
	if json.Valid(body) {
		return clean(body)
	}
	kind, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		kind = contentType
	}
	v := map[string]any{"content_type": kind}
	if utf8.Valid(body) {
		v["text"] = string(body)
	} else {
		v["base64"] = base64.StdEncoding.EncodeToString(body)
	}
	return encode(v)
}

// clean takes the credentials of headers out of JSON. What no entry can hold stays
// as it is: it is left out whole.
func clean(body []byte) json.RawMessage {
	if !genai.MentionsCredential(body) {
		return body
	}
	if v, ok := genai.Parse(body); ok {
		return json.RawMessage(v)
	}
	return body
}

// Response adds what a response says to the call, and gives it as a JSON value:
// a stream as the object that it builds up, or, where its format is not known or
// it broke off too early, as {"events":[…]}.
func (c *Call) Response(contentType string, body []byte) json.RawMessage {
	kind, _, _ := mime.ParseMediaType(contentType)
	var out json.RawMessage
	switch kind {
	case "text/event-stream":
		c.Streamed = true
		out = clean(assemble(serverSentEvents(body)))
	case "application/vnd.amazon.eventstream":
		c.Streamed = true
		events, whole := amazonEvents(body)
		if len(events) == 0 && !whole {
			out = Body(contentType, body)
			break
		}
		out = clean(assemble(events))
	default:
		out = Body(contentType, body)
	}
	if m, ok := decode(out).(map[string]any); ok {
		c.read(m)
	}
	return out
}

// read takes what a response says of itself, in any provider's words.
func (c *Call) read(m map[string]any) {
	c.ResponseModel = first(text(m["model"]), text(m["modelVersion"]))
	c.ResponseID = first(text(m["id"]), text(m["responseId"]))
	reason := func(v any) {
		if s := text(v); s != "" {
			c.FinishReasons = append(c.FinishReasons, s)
		}
	}
	for _, said := range append(list(m["events"]), m) {
		if e := object(object(said)["error"]); e != nil {
			c.Failure = first(first(text(e["type"]), text(e["code"])), "error")
		}
	}
	for _, choice := range list(m["choices"]) {
		reason(object(choice)["finish_reason"])
		c.Refused = c.Refused || text(object(object(choice)["message"])["refusal"]) != ""
	}
	for _, item := range list(m["output"]) { // OpenAI's Responses API
		for _, part := range list(object(item)["content"]) {
			c.Refused = c.Refused || text(object(part)["type"]) == "refusal"
		}
	}
	for _, candidate := range list(m["candidates"]) {
		reason(object(candidate)["finishReason"])
	}
	reason(m["stop_reason"])
	reason(m["stopReason"])
	if status := text(m["status"]); text(m["object"]) == "response" && !slices.Contains(underWay, status) {
		reason(first(text(object(m["incomplete_details"])["reason"]), status))
	}
	for _, result := range list(m["results"]) { // Amazon Titan on Bedrock
		reason(object(result)["completionReason"])
	}
	reason(object(m["promptFeedback"])["blockReason"]) // Gemini's, of a prompt
	c.Refused = c.Refused || slices.ContainsFunc(c.FinishReasons, func(r string) bool { return slices.Contains(refusals, r) })
	if metrics, ok := m["amazon-bedrock-invocationMetrics"].(map[string]any); ok {
		c.Usage = usage(metrics)
	}
	for _, name := range []string{"usage", "usageMetadata"} {
		if u, ok := m[name].(map[string]any); ok {
			c.Usage = usage(u)
		}
	}
}

// underWay are the states of a response of OpenAI's that is not finished: one that
// is made in the background, or whose stream broke off.
var underWay = []string{"queued", "in_progress"}

// refusals are the finish reasons of answers that were refused or withheld.
var refusals = []string{
	"refusal",                                                                         // Anthropic
	"content_filter",                                                                  // OpenAI, Azure
	"SAFETY", "PROHIBITED_CONTENT", "BLOCKLIST", "SPII", "RECITATION", "IMAGE_SAFETY", // Gemini
	"content_filtered", "guardrail_intervened", "CONTENT_FILTERED", // Bedrock: Converse, Titan
}

// usage reads token counts. Anthropic's and Bedrock's input does not include
// what came from the cache.
func usage(u map[string]any) Usage {
	count := func(names ...string) (sum int64, ok bool) {
		for _, name := range names {
			if n, isNumber := u[name].(json.Number); isNumber {
				v, _ := n.Int64()
				return v, true
			}
		}
		return 0, false
	}
	var out Usage
	var in, outKnown bool
	out.Input, in = count("prompt_tokens", "input_tokens", "promptTokenCount", "inputTokens", "inputTokenCount")
	out.Output, outKnown = count("completion_tokens", "output_tokens", "candidatesTokenCount", "outputTokens", "outputTokenCount")
	out.Known = in || outKnown
	out.CacheRead, _ = count("cache_read_input_tokens", "cacheReadInputTokens", "cachedContentTokenCount")
	out.CacheWrite, _ = count("cache_creation_input_tokens", "cacheWriteInputTokens")
	out.Reasoning, _ = count("thoughtsTokenCount")
	_, separate := u["cache_read_input_tokens"]
	_, bedrock := u["cacheReadInputTokens"]
	if separate || bedrock {
		out.Input += out.CacheRead + out.CacheWrite
	}
	out.Output += out.Reasoning // Gemini counts thoughts apart
	for _, name := range []string{"prompt_tokens_details", "input_tokens_details"} {
		if n, ok := object(u[name])["cached_tokens"].(json.Number); ok {
			out.CacheRead, _ = n.Int64()
		}
	}
	for _, name := range []string{"completion_tokens_details", "output_tokens_details"} {
		if n, ok := object(u[name])["reasoning_tokens"].(json.Number); ok {
			out.Reasoning, _ = n.Int64()
		}
	}
	return out
}

func decode(b []byte) (v any) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	_ = d.Decode(&v)
	return v
}

// encode is the JSON text of what decode gave, or was made of the same.
func encode(v any) json.RawMessage {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

func text(v any) string {
	s, _ := v.(string)
	return s
}

func object(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}

func list(v any) []any {
	l, _ := v.([]any)
	return l
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
