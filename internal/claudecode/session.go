package claudecode

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/kaizen-audit/kaizen-audit/entry"
)

// KeyPrefix begins the idempotency key of everything that is imported from
// session files.
const KeyPrefix = "import:claude-code:"

// maxSessionLine bounds a line of a session file: a longer one is passed over.
const maxSessionLine = 64 << 20

// Session is what a session file says.
type Session struct {
	// Events in the order of their beginning.
	Events []entry.Event
	// Passed are the numbers of lines that could not be read.
	Passed []int
	// Running are tool calls without a result in a session that still goes on.
	Running int
}

// sessionLine is a line of a session file, as far as it is used. Claude Code
// calls the format its own and changes it between releases: whatever is missing
// or of another type is passed over.
type sessionLine struct {
	Type             string          `json:"type"`
	UUID             string          `json:"uuid"`
	ParentUUID       string          `json:"parentUuid"`
	SessionID        string          `json:"sessionId"`
	Timestamp        time.Time       `json:"timestamp"`
	CWD              string          `json:"cwd"`
	Version          string          `json:"version"`
	GitBranch        string          `json:"gitBranch"`
	AgentID          string          `json:"agentId"`
	RequestID        string          `json:"requestId"`
	IsMeta           bool            `json:"isMeta"`
	IsCompactSummary bool            `json:"isCompactSummary"`
	ToolUseResult    json.RawMessage `json:"toolUseResult"`
	Message          struct {
		ID         string          `json:"id"`
		Model      string          `json:"model"`
		StopReason string          `json:"stop_reason"`
		Content    json.RawMessage `json:"content"`
		Usage      json.RawMessage `json:"usage"`
	} `json:"message"`
}

// block is a part of a message's content.
type block struct {
	Type      string          `json:"type"`
	ID        string          `json:"id"`
	Name      string          `json:"name"`
	Input     json.RawMessage `json:"input"`
	Text      string          `json:"text"`
	ToolUseID string          `json:"tool_use_id"`
	Content   json.RawMessage `json:"content"`
	IsError   bool            `json:"is_error"`

	raw json.RawMessage
}

// ReadSession reads a session file (JSON Lines) of a session whose id is name
// where the lines do not say it. Each tool call is one event with its result
// and the time between the two, each answer of the model is one, and each
// prompt. Every event is marked in its metadata: imported_from, imported_line
// and imported_digest, the SHA-256 of its first line; the same line always
// gives the same idempotency key. A call that was never answered is unknown if
// nothing has happened in the session for [Overdue] at now.
func ReadSession(r io.Reader, name string, now time.Time) (*Session, error) {
	s := &sessionReader{
		name: name, calls: map[string]*draft{}, messages: map[string]*draft{}, times: map[string]time.Time{},
	}
	in := bufio.NewReaderSize(r, 1<<16)
	for number := 1; ; number++ {
		line, long, err := readLine(in)
		if err != nil && err != io.EOF {
			return nil, err
		}
		if long || len(bytes.TrimSpace(line)) > 0 && !s.line(number, line) {
			s.out.Passed = append(s.out.Passed, number)
		}
		if err == io.EOF {
			return s.end(now), nil
		}
	}
}

// readLine reads a line of at most maxSessionLine bytes, without its newline.
func readLine(in *bufio.Reader) (line []byte, long bool, err error) {
	for {
		part, err := in.ReadSlice('\n')
		if len(line)+len(part) > maxSessionLine {
			line, long = nil, true
		}
		if !long {
			line = append(line, part...)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return bytes.TrimSuffix(line, []byte("\n")), long, err
		}
	}
}

// draft is an event that is being put together.
type draft struct {
	ev      entry.Event
	blocks  []json.RawMessage // of an answer
	usage   json.RawMessage
	stop    string
	running bool // a call without a result
}

type sessionReader struct {
	name     string
	out      Session
	drafts   []*draft
	calls    map[string]*draft    // by tool_use id
	messages map[string]*draft    // by message id
	times    map[string]time.Time // of lines, by uuid
	last     time.Time
}

// line takes a line, and reports whether it could be read.
func (s *sessionReader) line(number int, text []byte) bool {
	var l sessionLine
	if err := json.Unmarshal(text, &l); err != nil {
		if _, ok := errors.AsType[*json.UnmarshalTypeError](err); !ok {
			return false
		}
	}
	if l.Timestamp.IsZero() {
		l.Timestamp = s.last
	}
	if l.Timestamp.After(s.last) {
		s.last = l.Timestamp
	}
	if l.UUID != "" {
		s.times[l.UUID] = l.Timestamp
	}
	if l.SessionID == "" {
		l.SessionID = s.name
	}
	source := source{line: &l, number: number, digest: fmt.Sprintf("%x", sha256.Sum256(text))}
	switch l.Type {
	case "user":
		s.user(source)
	case "assistant":
		s.assistant(source)
	}
	return true
}

// source is where an event comes from.
type source struct {
	line   *sessionLine
	number int
	digest string
}

// draft begins an event; part tells those of one line apart.
func (s *sessionReader) draft(from source, eventType, action string, part int) *draft {
	l := from.line
	var metadata object
	metadata.addText("session_id", l.SessionID)
	metadata.addText("imported_from", Agent)
	metadata.add("imported_line", fmt.Append(nil, from.number))
	metadata.addText("imported_digest", from.digest)
	metadata.addText("cwd", l.CWD)
	metadata.addText("git_branch", l.GitBranch)
	metadata.addText("version", l.Version)
	metadata.addText("subagent_id", l.AgentID)
	metadata.addText("request_id", l.RequestID)
	d := &draft{ev: entry.Event{
		Timestamp: l.Timestamp, EventType: eventType, AgentID: Agent, TraceID: l.SessionID, Action: action,
		Metadata: metadata.object(), IdempotencyKey: fmt.Sprintf("%s%.32s:%d", KeyPrefix, from.digest, part),
	}}
	s.drafts = append(s.drafts, d)
	return d
}

// user takes a prompt, or the results of tool calls.
func (s *sessionReader) user(from source) {
	l := from.line
	blocks := blocksOf(l.Message.Content)
	var prompt []json.RawMessage
	results := 0
	for _, b := range blocks {
		if b.Type == "tool_result" {
			results++
		} else {
			prompt = append(prompt, b.raw)
		}
	}
	for i, b := range blocks {
		if b.Type != "tool_result" {
			continue
		}
		output := b.Content
		if results == 1 && len(l.ToolUseResult) > 0 && string(l.ToolUseResult) != "null" {
			output = l.ToolUseResult // the same with its structure, as a hook has it
		}
		s.result(from, i, b, output)
	}
	if l.IsMeta || results > 0 && len(prompt) == 0 {
		return
	}
	eventType, action := userPrompt, "user_prompt"
	if l.IsCompactSummary {
		eventType, action = contextCompact, "compact_summary"
	}
	var inputs object
	switch text := textOf(l.Message.Content); {
	case text != "":
		inputs.addText("prompt", text)
	case len(prompt) == 1 && blocks[0].Type == "text":
		inputs.addText("prompt", blocks[0].Text)
	case len(prompt) > 0:
		inputs.add("content", list(prompt))
	default:
		return
	}
	s.draft(from, eventType, action, len(blocks)).ev.Inputs = inputs.object()
}

// result ends a tool call.
func (s *sessionReader) result(from source, part int, b block, output json.RawMessage) {
	d := s.calls[b.ToolUseID]
	if d == nil { // its beginning is not in this file
		d = s.draft(from, entry.ToolUse, "tool_use:unknown", part)
		d.ev.SpanID = b.ToolUseID
	} else {
		d.ev.DurationMS = max(0, float64(from.line.Timestamp.Sub(d.ev.Timestamp).Microseconds())/1e3)
	}
	delete(s.calls, b.ToolUseID)
	d.running = false
	d.ev.Outputs = raw(output)
	if b.IsError {
		d.ev.Success, d.ev.Error = new(false), new(plain(b.Content))
	}
}

// assistant takes a part of an answer: the parts of one have one message id.
func (s *sessionReader) assistant(from source) {
	l := from.line
	d := s.messages[l.Message.ID]
	if d == nil || l.Message.ID == "" {
		d = s.draft(from, entry.LLMCall, "llm_call", 0)
		d.ev.SpanID = l.Message.ID
		// It was asked for by the line before.
		if asked, ok := s.times[l.ParentUUID]; ok && asked.Before(d.ev.Timestamp) {
			d.ev.Timestamp = asked
		}
		var inputs object
		inputs.addText("model", l.Message.Model)
		d.ev.Inputs = inputs.object()
		s.messages[l.Message.ID] = d
	}
	d.ev.DurationMS = max(d.ev.DurationMS, float64(l.Timestamp.Sub(d.ev.Timestamp).Microseconds())/1e3)
	if len(l.Message.Usage) > 0 {
		d.usage = l.Message.Usage
	}
	if l.Message.StopReason != "" {
		d.stop = l.Message.StopReason
	}
	for i, b := range blocksOf(l.Message.Content) {
		if b.Type != "tool_use" {
			d.blocks = append(d.blocks, b.raw)
			continue
		}
		// Its input is in the entry of the call.
		var call object
		call.addText("type", b.Type)
		call.addText("id", b.ID)
		call.addText("name", b.Name)
		d.blocks = append(d.blocks, append(call.text, '}'))

		name := b.Name
		if name == "" {
			name = "unknown"
		}
		use := s.draft(from, entry.ToolUse, "tool_use:"+name, i+1)
		use.ev.Inputs, use.ev.SpanID, use.ev.ParentSpanID, use.running = raw(b.Input), b.ID, l.Message.ID, true
		s.calls[b.ID] = use
	}
	if text := textOf(l.Message.Content); text != "" {
		quoted, _ := entry.AppendString(nil, strings.ToValidUTF8(text, "\ufffd"))
		d.blocks = append(d.blocks, quoted)
	}
}

// end completes the events.
func (s *sessionReader) end(now time.Time) *Session {
	for _, d := range s.drafts {
		if d.running {
			if now.Sub(s.last) <= Overdue {
				s.out.Running++
				continue
			}
			d.ev.Success, d.ev.Outcome = new(false), "unknown"
		}
		if d.ev.EventType == entry.LLMCall {
			var outputs object
			outputs.add("content", list(d.blocks))
			outputs.addText("stop_reason", d.stop)
			if d.usage != nil {
				outputs.add("usage", d.usage)
			}
			d.ev.Outputs = outputs.object()
		}
		if d.ev.Timestamp.IsZero() {
			d.ev.Timestamp = now
		}
		s.out.Events = append(s.out.Events, d.ev)
	}
	slices.SortStableFunc(s.out.Events, func(a, b entry.Event) int { return a.Timestamp.Compare(b.Timestamp) })
	return &s.out
}

// blocksOf gives the parts of a message's content, none where it is text.
func blocksOf(content json.RawMessage) []block {
	var raws []json.RawMessage
	if json.Unmarshal(content, &raws) != nil {
		return nil
	}
	blocks := make([]block, len(raws))
	for i, r := range raws {
		_ = json.Unmarshal(r, &blocks[i]) // what is of another type is missing
		blocks[i].raw = r
	}
	return blocks
}

// plain is the text of a result: a string, or the text of its parts.
func plain(content json.RawMessage) string {
	if s := textOf(content); s != "" {
		return s
	}
	var texts []string
	for _, b := range blocksOf(content) {
		if b.Text != "" {
			texts = append(texts, b.Text)
		}
	}
	return strings.Join(texts, "\n")
}

func list(values []json.RawMessage) []byte {
	out := []byte{'['}
	for i, v := range values {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, v...)
	}
	return append(out, ']')
}
