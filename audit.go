package audit

import (
	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/query"
	"github.com/kaizen-audit/kaizen-audit/internal/verify"
)

// The nouns, at home in package entry.
type (
	// Event is what a caller hands over to be recorded.
	Event = entry.Event
	// Entry is an event as stored.
	Entry = entry.Entry
	// Object is a JSON object that keeps its order and digits.
	Object = entry.Object
	// Receipt is what Record returns.
	Receipt = entry.Receipt
	// Query says which entries are wanted.
	Query = query.Query
	// VerifyReport is what Verify found.
	VerifyReport = verify.Report
)

// Orders of a query.
const (
	Oldest = query.Oldest
	Newest = query.Newest
)

// Documented event types.
const (
	AgentLoopStart   = entry.AgentLoopStart
	AgentLoopEnd     = entry.AgentLoopEnd
	ToolUse          = entry.ToolUse
	LLMCall          = entry.LLMCall
	MemoryLoad       = entry.MemoryLoad
	MemorySave       = entry.MemorySave
	MemoryDelete     = entry.MemoryDelete
	PermissionCheck  = entry.PermissionCheck
	SpecialistInvoke = entry.SpecialistInvoke
	PlanGeneration   = entry.PlanGeneration
	CheckpointSave   = entry.CheckpointSave
	Interrupt        = entry.Interrupt
	PHIAccess        = entry.PHIAccess
	CHDAccess        = entry.CHDAccess
	DataAccess       = entry.DataAccess
	ConfigChange     = entry.ConfigChange
)

// Raw is an object from JSON text, without copying it.
func Raw(b []byte) Object { return entry.Raw(b) }

// Of is an object from a Go value: a map, or what encoding/json can marshal.
func Of(v any) Object { return entry.Of(v) }

// ParseEvent reads one event from JSON text; see entry.ParseEvent.
func ParseEvent(b []byte) (Event, error) { return entry.ParseEvent(b) }
