package report

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/kaizen-audit/kaizen-audit/entry"
)

// rule is the documented line of 70 equals signs.
var rule = strings.Repeat("=", 70)

// operationTime is how the documented report spells an operation's time: UTC,
// to the second.
const operationTime = "2006-01-02T15:04:05"

// WriteText writes the documented report, to the character. The error is w's.
func (r *Report) WriteText(w io.Writer) error {
	out := bufio.NewWriter(w)
	line := func(format string, args ...any) { fmt.Fprintf(out, format+"\n", args...) }
	line("%s\nAUDIT TRAIL COMPLIANCE REPORT\n%s", rule, rule)
	line("Generated: %s", r.Generated.UTC().Format(entry.TimeLayout))
	if r.Unrecorded {
		line("Recorded: no, it is of a copy of the trail")
	}
	line("Total entries: %s", count(r.TotalEntries))
	line("Retention period: %s", retention(r.RetentionDays))
	line("Encryption: %s", r.encryption())
	line("Access control: %s", r.AccessControl)
	line("")
	for _, a := range r.Agents {
		line("Agent: %s", Printable(a.AgentID))
		line("  Total operations: %s", count(a.Operations))
		line("  Success rate: %s/%s (%.1f%%)", count(a.Successful), count(a.Operations), a.SuccessRate())
		if a.Imported > 0 {
			line("  Imported operations: %s", count(a.Imported))
		}
		line("  Recent operations:")
		for _, o := range a.Recent {
			line("    - %s: %s (%.1fms)", o.Timestamp.UTC().Format(operationTime), Printable(o.Action), o.DurationMS)
		}
		line("")
	}
	if r.PrunedEntries > 0 {
		line("Pruned entries: %s (their period was over)", count(r.PrunedEntries))
	}
	if r.ImportedEntries > 0 {
		line("Imported entries: %s (integrity only from their import on)", count(r.ImportedEntries))
	}
	if r.AdoptedLines > 0 {
		line("Adopted lines: %s, %s of them no entries (integrity only from their adoption on)", count(r.AdoptedLines), count(r.AdoptedBroken))
	}
	if r.WithoutContent > 0 {
		c := Content{Calls: r.Telemetry, Without: r.WithoutContent}
		line("Calls without content: %s", c.Share())
		for i, s := range r.Senders {
			if i == shownSenders {
				line("  and %s more senders", count(int64(len(r.Senders)-i)))
				break
			}
			line("  %s", s)
		}
	}
	for _, p := range r.Purposes {
		line("Purpose: %s: %s", Printable(p.Purpose), count(p.Entries))
	}
	if r.PurposesMore > 0 {
		line("Purpose: others: %s", count(r.PurposesMore))
	}
	if len(r.Purposes) > 0 {
		line("Purpose: none: %s", count(r.WithoutPurpose))
	}
	if r.Unattributed > 0 {
		line("Entries whose agent is encrypted: %s", count(r.Unattributed))
	}
	if r.Broken > 0 {
		line("Broken lines: %s (the first at index %d)", count(r.Broken), *r.BrokenFirst)
	}
	for _, g := range r.Missing {
		line("Incomplete: %s", Printable(g.Detail))
	}
	line("Audit trail's own entries: %s", count(r.OwnEntries))
	if r.Erasure != "" {
		line("Erasure: %s", r.Erasure)
	}
	if r.Erasures > 0 {
		line("Erasures: %s, of fields in %s entries", count(r.Erasures), count(r.ErasedEntries))
	}
	writeCheckpoint(line, r.Checkpoint)
	line("%s", rule)
	return out.Flush()
}

// shownSenders is how many senders the text names; the JSON has all.
const shownSenders = 10

func writeCheckpoint(line func(string, ...any), c *Checkpoint) {
	if c == nil {
		line("Checkpoint: none")
		return
	}
	line("Origin: %s", Printable(c.Origin))
	line("Checkpoint: covers %s entries, root %s (not verified here)", count(c.Size), Printable(c.Root))
	if c.AnchoredTo >= 0 {
		line("Anchored outside: %s entries", count(c.AnchoredTo))
	} else {
		line("Anchored outside: none known")
	}
}

// SuccessRate is in percent, 0 to 100.
func (a *Agent) SuccessRate() float64 {
	if a.Operations == 0 {
		return 0
	}
	return 100 * float64(a.Successful) / float64(a.Operations)
}

func (r *Report) encryption() string {
	switch {
	case r.EncryptedFrom != nil:
		return fmt.Sprintf("%s (from index %d)", r.Encryption, *r.EncryptedFrom)
	case r.EncryptedUntil != nil:
		return fmt.Sprintf("%s (until index %d)", r.Encryption, *r.EncryptedUntil)
	}
	return string(r.Encryption)
}

// count writes a number with thousands separators.
func count(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// retention writes days, and the years that they are: 365 days each, as the
// documented 2555 days are 7 years.
func retention(days int) string {
	years := strconv.FormatFloat(float64(days)/365, 'f', 1, 64)
	years = strings.TrimSuffix(years, ".0")
	unit := "years"
	if years == "1" {
		unit = "year"
	}
	return fmt.Sprintf("%d days (%s %s)", days, years, unit)
}
