package cli

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	audit "github.com/kaizen-audit/kaizen-audit"
)

// demoRuns are steps of real agent runs; demo/SOURCE.md says whose.
//
//go:embed demo/runs.jsonl
var demoRuns []byte

// step is one step of an agent's run, as the sample has it.
type step struct {
	Source     string          `json:"source"`
	RunID      string          `json:"run_id"`
	Agent      string          `json:"agent"`
	Model      string          `json:"model"`
	Domain     string          `json:"domain"`
	UserID     string          `json:"user_id"`
	SubjectID  string          `json:"subject_id"` // the patient
	Step       int             `json:"step"`       // from 0, within the run
	Kind       string          `json:"kind"`
	Action     string          `json:"action"`
	Input      json.RawMessage `json:"input"`
	Output     json.RawMessage `json:"output"`
	Error      json.RawMessage `json:"error"` // null, text or an object
	CallID     string          `json:"call_id"`
	Timestamp  *time.Time      `json:"timestamp"`
	DurationMS float64         `json:"duration_ms"`
	Usage      json.RawMessage `json:"usage"`
}

// replay maps the steps of runs, one JSON object a line, to events. A run is a
// trace; its steps are spans: a tool's call hangs from the model's answer that
// asked for it. Where a source has no time, the event has none either and is
// stamped when it is recorded.
func replay(steps []byte) ([]audit.Event, error) {
	var events []audit.Event
	asked := 0        // the step of the run at hand in which the model last answered
	var end time.Time // when the run's last step that has a time ended
	for line := range bytes.Lines(steps) {
		var s step
		if err := json.Unmarshal(line, &s); err != nil {
			return nil, fmt.Errorf("replay step %d: %w", len(events), err)
		}
		ev := audit.Event{
			AgentID: s.Agent + "/" + s.Domain, TraceID: s.Source + "/" + s.RunID,
			Inputs: value(s.Input), Outputs: value(s.Output), DurationMS: s.DurationMS, SpanID: span(s.Step),
		}
		switch s.Kind {
		case "run_start":
			ev.EventType, ev.Action = audit.AgentLoopStart, "agent_execution_start"
			asked, end = 0, time.Time{}
		case "llm_call":
			ev.EventType, ev.Action = audit.LLMCall, "llm_call"
			ev.ParentSpanID = span(0)
			asked = s.Step
		case "tool_call":
			ev.EventType, ev.Action = audit.ToolUse, "tool_use:"+s.Action
			ev.ParentSpanID = span(asked)
			if s.SubjectID != "" {
				ev.EventType = audit.PHIAccess
			}
		case "run_end":
			ev.EventType, ev.Action = audit.AgentLoopEnd, "agent_execution_end"
			ev.SpanID = span(0)
			ev.Timestamp = end // no source says when a run ended
		default:
			return nil, fmt.Errorf("replay step %d: there is no kind %q", len(events), s.Kind)
		}
		if s.Timestamp != nil {
			ev.Timestamp = *s.Timestamp
			end = s.Timestamp.Add(time.Duration(s.DurationMS * float64(time.Millisecond)))
		}
		if s.SubjectID != "" {
			ev.Resource = audit.Of(map[string]any{"type": "patient", "id": s.SubjectID})
		}
		if reason := failure(s.Error); reason != "" {
			ev.Success, ev.Error = new(false), &reason
		}
		ev.Metadata = audit.Of(metadata(&s))
		events = append(events, ev)
	}
	return events, nil
}

// value is JSON as an object of an event; null is absent.
func value(raw json.RawMessage) audit.Object {
	if len(raw) == 0 || string(raw) == "null" {
		return audit.Object{}
	}
	return audit.Raw(slices.Clone(raw))
}

// span is a span id in W3C form: 16 hex digits, not zero.
func span(step int) string { return fmt.Sprintf("%016x", step+1) }

// failure is what an error says: text as it is, anything else as JSON.
func failure(raw json.RawMessage) string {
	var s string
	switch {
	case len(raw) == 0 || string(raw) == "null":
		return ""
	case json.Unmarshal(raw, &s) == nil:
		return s
	}
	return string(raw)
}

func metadata(s *step) map[string]any {
	m := map[string]any{"environment": "demo", "source": s.Source, "domain": s.Domain}
	for name, v := range map[string]string{"user_id": s.UserID, "model": s.Model, "call_id": s.CallID} {
		if v != "" {
			m[name] = v
		}
	}
	if len(s.Usage) > 0 && string(s.Usage) != "null" {
		m["usage"] = s.Usage
	}
	return m
}
