// Package workload makes the events that every program of bench records: steps
// of a support agent, about 450 bytes as a line of a trail. They are the same
// on every machine and in every run.
package workload

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"time"

	audit "github.com/kaizen-audit/kaizen-audit"
)

// Event is one step of an agent, with the members of an entry in their order.
// Inputs, Outputs and Metadata are JSON text, as an agent has them: a model
// gives a tool's arguments as text.
type Event struct {
	Timestamp  time.Time       `json:"timestamp"`
	EventType  string          `json:"event_type"`
	AgentID    string          `json:"agent_id"`
	TraceID    string          `json:"trace_id"`
	Action     string          `json:"action"`
	Inputs     json.RawMessage `json:"inputs"`
	Outputs    json.RawMessage `json:"outputs"`
	DurationMS float64         `json:"duration_ms"`
	Success    bool            `json:"success"`
	Error      *string         `json:"error"`
	Metadata   json.RawMessage `json:"metadata"`
	EventID    string          `json:"event_id"`
	RecordedAt time.Time       `json:"recorded_at"`
}

// Audit is the event as a caller of the trail has it. The
// trail makes both times and the id.
func (e *Event) Audit() audit.Event {
	return audit.Event{
		EventType:  e.EventType,
		AgentID:    e.AgentID,
		TraceID:    e.TraceID,
		Action:     e.Action,
		Inputs:     audit.Raw(e.Inputs),
		Outputs:    audit.Raw(e.Outputs),
		DurationMS: e.DurationMS,
		Success:    &e.Success,
		Metadata:   audit.Raw(e.Metadata),
	}
}

// poolSize is large enough that a line is not in a processor's first cache
// each time it comes again: 4096 × 450 bytes are 1.8 MB.
const poolSize = 4096

// Pool is a fixed set of events that is gone through again and again. It is
// read-only, so that any number of goroutines can share it.
type Pool struct {
	events []Event
	lines  [][]byte
}

var (
	tools    = []string{"get_order_details", "get_user_details", "search_direct_flight", "calculate", "list_products", "update_reservation"}
	statuses = []string{"delivered", "pending", "processed", "cancelled", "not found"}
	people   = []string{"yusuf_rossi", "mei_kovacs", "fatima_johnson", "noah_brown", "emma_santos", "olivia_lopez"}
)

// New makes the pool: the same seed, the same events.
func New(seed uint64) *Pool {
	r := rand.New(rand.NewPCG(seed, seed))
	pick := func(from []string) string { return from[r.IntN(len(from))] }
	p := &Pool{events: make([]Event, poolSize), lines: make([][]byte, poolSize)}
	at := time.Date(2025, 10, 26, 10, 53, 45, 123e6, time.UTC)
	for i := range p.events {
		at = at.Add(time.Duration(r.IntN(900)+1) * time.Millisecond)
		tool, user := pick(tools), fmt.Sprintf("%s_%d", pick(people), 1000+r.IntN(9000))
		e := &p.events[i]
		*e = Event{
			Timestamp:  at,
			EventType:  "TOOL_USE",
			AgentID:    fmt.Sprintf("support-agent-%03d", r.IntN(20)),
			TraceID:    randomHex(r, 16),
			Action:     "tool_use:" + tool,
			Inputs:     fmt.Appendf(nil, `{"order_id":"#W%07d"}`, r.IntN(1e7)),
			Outputs:    fmt.Appendf(nil, `{"status":"%s","items":%d}`, pick(statuses), 1+r.IntN(9)),
			DurationMS: float64(r.IntN(5000)) / 10,
			Success:    true,
			Metadata:   fmt.Appendf(nil, `{"user_id":"%s","environment":"production"}`, user),
			EventID:    uuid(r),
			RecordedAt: at,
		}
		line, err := json.Marshal(e)
		if err != nil {
			panic(err) // the text above is JSON
		}
		p.lines[i] = append(line, '\n')
	}
	return p
}

// Event gives event n, n ≥ 0. It must not be changed.
func (p *Pool) Event(n int) *Event { return &p.events[n%poolSize] }

// Len is how many events differ.
func (p *Pool) Len() int { return len(p.events) }

// Line gives event n as a ready-made line with its newline. It must not be
// changed.
func (p *Pool) Line(n int) []byte { return p.lines[n%poolSize] }

func randomHex(r *rand.Rand, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return hex.EncodeToString(b)
}

// uuid has the shape of a UUIDv7. The peers get it ready-made.
func uuid(r *rand.Rand) string {
	h := randomHex(r, 16)
	return h[:8] + "-" + h[8:12] + "-7" + h[13:16] + "-8" + h[17:20] + "-" + h[20:]
}
