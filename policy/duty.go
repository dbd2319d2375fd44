package policy

import (
	"strconv"

	"github.com/kaizen-audit/kaizen-audit/entry"
)

// maxDutyDays is a century: a slip must not keep somebody's data for ever.
const maxDutyDays = 36500

type duty struct {
	Duty
	when when
}

func (m *maker) duty(d Duty, at ...string) {
	if d.Days < 1 || d.Days > maxDutyDays {
		m.fail("must be 1 to "+strconv.Itoa(maxDutyDays)+" days", append(at, "days")...)
	}
	if d.Basis == "" {
		m.fail("is needed: the law that asks for it", append(at, "basis")...)
	}
	if len(d.EventTypes)+len(d.Agents)+len(d.Tools)+len(d.Servers) == 0 {
		m.fail("needs event_types, agents, tools or servers: a duty is declared for a class of entries", at...)
	}
	m.p.duties = append(m.p.duties, duty{d, m.when(d.When, at...)})
}

// Duties are the duties to keep what an entry with these members holds.
func (p *Policy) Duties(eventType, agent, action string, metadata entry.Object) []Duty {
	var out []Duty
	is := what{ev: &entry.Event{EventType: eventType, AgentID: agent, Action: action, Metadata: metadata}}
	for i := range p.duties {
		if p.duties[i].when.matches(&is) {
			out = append(out, p.duties[i].Duty)
		}
	}
	return out
}
