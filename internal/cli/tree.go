package cli

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/report"
)

// node is an entry of a run with what happened inside it.
type node struct {
	entry    *audit.Entry
	children []*node
	// endedBy is the AGENT_LOOP_END of an AGENT_LOOP_START, which is a child
	// too.
	endedBy *audit.Entry
}

// buildTree orders the entries of one run, oldest first, into a forest. Spans
// decide where an entry has them; the brackets of agents' loops decide for the
// others. Every entry is in it once, whatever the spans claim.
func buildTree(entries []audit.Entry) []*node {
	nodes := make([]*node, len(entries))
	spans := map[string]*node{} // the first entry of each span
	for i := range entries {
		e := &entries[i]
		nodes[i] = &node{entry: e}
		if e.SpanID != "" && spans[e.SpanID] == nil {
			spans[e.SpanID] = nodes[i]
		}
	}
	parents := make(map[*node]*node, len(nodes))
	hasChild := make(map[*node]bool)
	var open []*node // AGENT_LOOP_STARTs not ended yet, outermost first
	for _, n := range nodes {
		e := n.entry
		parent := bracket(open, e.AgentID)
		if e.SpanID != "" || e.ParentSpanID != "" {
			parent = spans[e.ParentSpanID]
			if first := spans[e.SpanID]; e.SpanID != "" && first != n {
				parent = first // a later entry of a span, such as its end
			}
		}
		// Only what others already hang from can close a circle.
		if parent != nil && parent != n && !(hasChild[n] && under(parent, n, parents)) {
			parents[n], hasChild[parent] = parent, true
		}
		switch e.EventType {
		case entry.AgentLoopStart:
			open = append(open, n)
		case entry.AgentLoopEnd:
			for i := len(open) - 1; i >= 0; i-- {
				if open[i].entry.AgentID == e.AgentID {
					open[i].endedBy = e
					open = append(open[:i], open[i+1:]...)
					break
				}
			}
		}
	}
	var roots []*node
	for _, n := range nodes {
		if p := parents[n]; p != nil {
			p.children = append(p.children, n)
		} else {
			roots = append(roots, n)
		}
	}
	return roots
}

// bracket is the innermost loop of the agent, else the innermost of all.
func bracket(open []*node, agent string) *node {
	for i := len(open) - 1; i >= 0; i-- {
		if open[i].entry.AgentID == agent {
			return open[i]
		}
	}
	if len(open) > 0 {
		return open[len(open)-1]
	}
	return nil
}

// farthest bounds what following the claims of spans can cost.
const farthest = 10_000

// under reports whether p lies in n's own subtree, or so deep that it may: a
// run whose spans name each other in a circle must not lose an entry.
func under(p, n *node, parents map[*node]*node) bool {
	for range farthest {
		if p == nil {
			return false
		}
		if p == n {
			return true
		}
		p = parents[p]
	}
	return true
}

// duration is how long an entry took, in milliseconds: its own duration_ms,
// else for a loop that of its end, else the time between the two.
func (n *node) duration() (ms float64, ok bool) {
	switch {
	case n.entry.DurationMS > 0:
		return n.entry.DurationMS, true
	case n.endedBy != nil && n.endedBy.DurationMS > 0:
		return n.endedBy.DurationMS, true
	case n.endedBy != nil && n.endedBy.Timestamp.After(n.entry.Timestamp):
		return float64(n.endedBy.Timestamp.Sub(n.entry.Timestamp).Microseconds()) / 1e3, true
	}
	return 0, false
}

// writeTree draws a run. Errors are the writer's to keep.
func writeTree(w io.Writer, out *terminal, entries []audit.Entry) {
	first := entries[0].Timestamp
	for _, e := range entries {
		if e.Timestamp.Before(first) {
			first = e.Timestamp
		}
	}
	fmt.Fprintf(w, "Trace %s\n", out.paint(bold, report.Printable(entries[0].TraceID)))
	fmt.Fprintf(w, "%s: %s\n\n", first.UTC().Format(entry.TimeLayout), summary(entries))

	t := &treeWriter{w: w, out: out, agents: agentsOf(entries), first: first}
	t.widths = [3]int{len("INDEX"), len("SECONDS"), len("MS")}
	walk(buildTree(entries), func(n *node, _ place) {
		for i, c := range t.cells(n) {
			t.widths[i] = max(t.widths[i], len(c))
		}
	})
	t.line([3]string{"INDEX", "SECONDS", "MS"}, bold, out.paint(bold, "WHAT"))
	walk(buildTree(entries), t.draw)
}

// place is where a node is drawn: behind branch, and what hangs from it behind
// below.
type place struct {
	branch, below string
	depth         int
}

// deepest is how deep a tree is drawn; what lies deeper is drawn at this depth.
const deepest = 64

// walk visits a forest, each node before its children. It does not recurse: a
// run may be a chain of as many spans as it has entries.
func walk(roots []*node, visit func(*node, place)) {
	type waiting struct {
		n *node
		p place
	}
	var stack []waiting
	for i := len(roots) - 1; i >= 0; i-- {
		stack = append(stack, waiting{roots[i], place{}})
	}
	for len(stack) > 0 {
		at := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		visit(at.n, at.p)
		for i := len(at.n.children) - 1; i >= 0; i-- {
			p := place{at.p.below + "├─ ", at.p.below + "│  ", at.p.depth + 1}
			if i == len(at.n.children)-1 {
				p.branch, p.below = at.p.below+"└─ ", at.p.below+"   "
			}
			if p.depth > deepest {
				p.branch, p.below = at.p.below+"… ", at.p.below
			}
			stack = append(stack, waiting{at.n.children[i], p})
		}
	}
}

// agentsOf counts the agents of a run: where there is one, it is named once.
func agentsOf(entries []audit.Entry) int {
	seen := map[string]bool{}
	for _, e := range entries {
		seen[e.AgentID] = true
	}
	return len(seen)
}

type treeWriter struct {
	w      io.Writer
	out    *terminal
	first  time.Time // of the run
	agents int
	widths [3]int
	named  bool // the one agent has been named
}

// cells are the index, the seconds since the run began, and the duration.
func (t *treeWriter) cells(n *node) [3]string {
	c := [3]string{strconv.FormatInt(n.entry.Index, 10), fmt.Sprintf("+%.3f", n.entry.Timestamp.Sub(t.first).Seconds()), ""}
	if ms, ok := n.duration(); ok {
		c[2] = strconv.FormatFloat(ms, 'f', 1, 64)
	}
	return c
}

func (t *treeWriter) line(c [3]string, style, what string) {
	for i, s := range c {
		fmt.Fprint(t.w, strings.Repeat(" ", t.widths[i]-len(s)), t.out.paint(style, s), "  ")
	}
	fmt.Fprintln(t.w, what)
}

func (t *treeWriter) draw(n *node, p place) {
	e := n.entry
	what := report.Printable(e.Action)
	if !e.Success {
		what = t.out.paint(red, what)
	}
	what += "  " + t.out.paint(faint, report.Printable(e.EventType))
	if t.agents > 1 || !t.named {
		t.named = true
		what += "  " + report.Printable(e.AgentID)
	}
	switch {
	case !e.Success:
		why := "failed"
		if e.Outcome != "" {
			why = report.Printable(e.Outcome)
		}
		if e.Error != nil && *e.Error != "" {
			why += ": " + truncate(report.Printable(*e.Error), longestError)
		}
		what += "  " + t.out.paint(red, why)
	case e.Outcome != "":
		what += "  " + report.Printable(e.Outcome)
	}
	t.line(t.cells(n), "", p.branch+what)
}

// longestError is how much of an error a tree shows.
const longestError = 100
