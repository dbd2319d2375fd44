package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/genai"
)

// Content counts the model and tool calls that came over OTLP, and those whose
// sender has kept inputs, outputs or both to itself: evidence that there was a
// call, not of what was said.
type Content struct {
	Calls, Without int64
	scopes         map[string]int64 // those without, by who has made the spans
}

// maxScopes bounds how many names of others are kept.
const maxScopes = 1000

// Add counts an entry, if it is such a call. Nothing of e is kept.
func (c *Content) Add(e *entry.Entry) {
	if e.EventType != entry.LLMCall && e.EventType != entry.ToolUse || e.RecordedBy.Text("via") != "otlp" {
		return
	}
	c.Calls++
	if e.Metadata.Text(genai.Missing) == "" {
		return
	}
	c.Without++
	scope := ""
	if v, ok := e.Metadata.Get("scope"); ok {
		if o, ok := v.Object(); ok {
			scope = o.Text("name")
		}
	}
	if c.scopes == nil {
		c.scopes = map[string]int64{}
	}
	if _, known := c.scopes[scope]; !known && len(c.scopes) >= maxScopes {
		scope = ""
	}
	c.scopes[strings.Clone(scope)]++
}

// Share is how many of the calls are without content.
func (c *Content) Share() string {
	return fmt.Sprintf("%s of %s that came over OTLP (%.1f%%)", count(c.Without), count(c.Calls), 100*float64(c.Without)/float64(max(c.Calls, 1)))
}

// Sender is whoever has sent calls without content.
type Sender struct {
	// Scope is the instrumentation scope of its spans, "" where none is named.
	Scope   string `json:"scope"`
	Without int64  `json:"calls_without_content"`
	// Switch turns content on there, "" where it is not known.
	Switch string `json:"switch,omitempty"`
}

// Senders are those of the calls without content, those with most of them first.
func (c *Content) Senders() []Sender {
	var all []Sender
	for scope, n := range c.scopes {
		all = append(all, Sender{scope, n, contentSwitch(scope)})
	}
	slices.SortFunc(all, func(a, b Sender) int { return cmp.Or(cmp.Compare(b.Without, a.Without), cmp.Compare(a.Scope, b.Scope)) })
	return all
}

// String says whose calls they are, and what turns content on there.
func (s Sender) String() string {
	name, how := Printable(s.Scope), "turned on by "+s.Switch
	if s.Scope == "" {
		name = "a sender without a name"
	}
	if s.Switch == "" {
		how = "its switch is not known here; docs/otlp.md names those of others"
	}
	return fmt.Sprintf("%s by %s: %s", count(s.Without), name, how)
}

// Switches are what turns content on, as each sender has it. docs/otlp.md names
// the same.
const (
	openTelemetrySwitch = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=SPAN_AND_EVENT with OTEL_SEMCONV_STABILITY_OPT_IN=gen_ai_latest_experimental"
	openLLMetrySwitch   = "TRACELOOP_TRACE_CONTENT=true"
	openInferenceSwitch = "OPENINFERENCE_HIDE_INPUTS=false and OPENINFERENCE_HIDE_OUTPUTS=false"
	aiSDKSwitch         = "recordInputs: true and recordOutputs: true in experimental_telemetry"
)

// contentSwitch is the switch of a sender, by the scope of its spans.
func contentSwitch(scope string) string {
	switch {
	case scope == "ai" || strings.HasPrefix(scope, "@ai-sdk/"):
		return aiSDKSwitch
	case strings.Contains(scope, "openinference"):
		return openInferenceSwitch
	case strings.HasPrefix(scope, "@traceloop/"):
		return openLLMetrySwitch
	case strings.HasPrefix(scope, "opentelemetry.util.genai"), strings.HasSuffix(scope, ".openai_v2"):
		return openTelemetrySwitch
	case strings.HasPrefix(scope, "opentelemetry.instrumentation."): // OpenLLMetry has the same names
		return openTelemetrySwitch + "; of OpenLLMetry " + openLLMetrySwitch
	}
	return ""
}
