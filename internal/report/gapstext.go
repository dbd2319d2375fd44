package report

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"github.com/kaizen-audit/kaizen-audit/entry"
)

// gapTexts say what a measure is, for people.
var gapTexts = map[string]string{
	complete: "All six fields of PCI DSS 10.2.2", uniqueUser: "Unique user", withPurpose: "Purpose", withContent: "Calls with content",
	noUser: "No user id", noEventType: "No type of event", noResult: "No success or failure, the end is not known", noOrigin: "No origination",
	noResource: "No identity or name of what was affected", sharedUser: "An id that is no one person's", weakOrigin: "Origination by the agent's name alone",
	notEnded: "Begun and never ended", denied: "Denied", late: "Late", backdated: "Backdated", ahead: "Ahead of the trail's clock", flagged: "Flagged by policy",
}

// WriteText writes the gap report as text. The error is w's.
func (r *Gaps) WriteText(w io.Writer) error {
	out := bufio.NewWriter(w)
	line := func(format string, args ...any) { fmt.Fprintf(out, format+"\n", args...) }
	line("%s\nAUDIT TRAIL GAP REPORT\n%s", rule, rule)
	line("Generated: %s", r.Generated.UTC().Format(entry.TimeLayout))
	if r.Unrecorded {
		line("Recorded: no, it is of a copy of the trail")
	}
	line("Entries judged: %s", count(r.TotalEntries))
	if r.From != nil {
		line("Period: %s to %s, indexes %d to %d", r.From.Format(entry.TimeLayout), r.To.Format(entry.TimeLayout), r.FirstIndex, r.LastIndex)
	}
	line("")
	for _, a := range r.Agents {
		a.writeText(line)
	}
	if r.ImportedEntries > 0 {
		line("Imported entries, not judged: %s", count(r.ImportedEntries))
	}
	if r.AdoptedLines > 0 {
		line("Adopted lines, not judged: %s", count(r.AdoptedLines))
	}
	if r.Unreadable > 0 {
		line("Entries that are encrypted, not judged: %s", count(r.Unreadable))
	}
	if r.Broken > 0 {
		line("Broken lines: %s (the first at index %d)", count(r.Broken), *r.BrokenFirst)
	}
	for _, g := range r.Missing {
		line("Incomplete: %s", Printable(g.Detail))
	}
	line("Audit trail's own entries: %s", count(r.OwnEntries))
	writeCheckpoint(line, r.Checkpoint)
	line("%s", rule)
	return out.Flush()
}

func (a *AgentGaps) writeText(line func(string, ...any)) {
	line("Agent: %s", Printable(a.AgentID))
	for i, m := range a.Measures {
		text := gapTexts[m.Name]
		switch {
		case i < shares:
			if m.Of > 0 {
				text += fmt.Sprintf(": %s/%s (%.1f%%)", count(m.Count), count(m.Of), 100*float64(m.Count)/float64(m.Of))
			} else {
				text += ": none"
			}
			if m.Name == uniqueUser {
				text += ", " + a.users()
			}
		case m.Count == 0:
			continue
		case m.Name == sharedUser:
			text += ": " + count(m.Count) + " (" + Printable(strings.Join(a.SharedIDs, ", ")) + ")"
		default:
			text += ": " + count(m.Count)
		}
		if m.First != nil {
			text += fmt.Sprintf("; the first at index %d", *m.First)
		}
		line("  %s", text)
		if m.Mend != "" {
			line("    mend: %s", Printable(m.Mend))
		}
	}
	line("")
}

func (a *AgentGaps) users() string {
	switch {
	case a.UsersMore:
		return count(a.Users) + " users or more"
	case a.Users == 1:
		return "1 user"
	}
	return count(a.Users) + " users"
}
