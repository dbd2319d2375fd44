package policy

import (
	"strings"

	"github.com/kaizen-audit/kaizen-audit/entry"
)

// canSeal tells whether what stands so many names deep in a member can be sealed
// (docs/format-sealing.md §6.3): everything else must be readable for order, search
// and verification.
func canSeal(member string, depth int) bool {
	switch member {
	case "error", "purpose":
		return depth == 1
	case "inputs", "outputs", "authority":
		return true
	case "metadata", "resource":
		return depth > 1
	}
	return false
}

// Clear says what one's own rules of action Keep leave in clear of one entry of a
// trail that seals.
type Clear struct{ fields []*field }

// Clear gives the rules for an entry with these members.
func (p *Policy) Clear(eventType, agent, action string, metadata entry.Object) Clear {
	var c Clear
	is := what{ev: &entry.Event{EventType: eventType, AgentID: agent, Action: action, Metadata: metadata}}
	for i := range p.config.Fields {
		if f := &p.fields[i]; f.when.matches(&is) {
			c.fields = append(c.fields, f)
		}
	}
	return c
}

// KeepsClear tells whether a rule of one's own has action Keep.
func (p *Policy) KeepsClear() bool {
	for _, f := range p.config.Fields {
		if f.Action == Keep {
			return true
		}
	}
	return false
}

// At tells whether the value at a JSON pointer is kept in clear, or something below
// it. The first rule that leads to a value decides.
func (c Clear) At(pointer string) (kept, below bool) {
	var room [8]frame
	frames := room[:0]
	for token := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		frames = append(frames, frame{name: []byte(pointerNames.Replace(token))})
	}
	for _, f := range c.fields {
		switch {
		case f.action == Mark:
		case f.path.matches(frames):
			return f.action == Keep, below
		case f.action == Keep && f.path.reaches(frames):
			below = true
		}
	}
	return false, below
}

var pointerNames = strings.NewReplacer("~1", "/", "~0", "~")
