package cli

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/entry"
)

// shape draws the forest as nested brackets of indexes.
func shape(nodes []*node) string {
	var parts []string
	for _, n := range nodes {
		s := fmt.Sprint(n.entry.Index)
		if len(n.children) > 0 {
			s += "(" + shape(n.children) + ")"
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, " ")
}

func TestTreeOfARun(t *testing.T) {
	const start, end = entry.AgentLoopStart, entry.AgentLoopEnd
	type e struct{ kind, agent, span, parent string }
	for _, tc := range []struct {
		name    string
		entries []e
		want    string
	}{
		{"flat without either", []e{{"T", "a", "", ""}, {"T", "a", "", ""}}, "0 1"},
		{"a loop", []e{{"T", "a", "", ""}, {start, "a", "", ""}, {"T", "a", "", ""}, {end, "a", "", ""}, {"T", "a", "", ""}}, "0 1(2 3) 4"},
		{"a loop in a loop", []e{{start, "a", "", ""}, {start, "b", "", ""}, {"T", "b", "", ""}, {end, "b", "", ""}, {"T", "a", "", ""}, {end, "a", "", ""}}, "0(1(2 3) 4 5)"},
		{"two agents at once", []e{{start, "a", "", ""}, {start, "b", "", ""}, {"T", "a", "", ""}, {"T", "b", "", ""}, {end, "a", "", ""}, {end, "b", "", ""}}, "0(1(3 5) 2 4)"},
		{"an end without a start", []e{{end, "a", "", ""}, {"T", "a", "", ""}}, "0 1"},
		{"a start without an end", []e{{start, "a", "", ""}, {"T", "a", "", ""}}, "0(1)"},
		{"somebody else inside", []e{{start, "a", "", ""}, {"T", "c", "", ""}, {end, "a", "", ""}}, "0(1 2)"},
		{"spans", []e{{"T", "a", "1", ""}, {"T", "a", "2", "1"}, {"T", "a", "3", "2"}, {"T", "a", "4", "1"}}, "0(1(2) 3)"},
		{"children before parents", []e{{"T", "a", "3", "2"}, {"T", "a", "2", "1"}, {"T", "a", "1", ""}}, "2(1(0))"},
		{"a span's end is in its start", []e{{start, "a", "1", ""}, {"T", "a", "2", "1"}, {end, "a", "1", ""}}, "0(1 2)"},
		{"an unknown parent", []e{{"T", "a", "1", "gone"}, {"T", "a", "2", "1"}}, "0(1)"},
		{"its own parent", []e{{"T", "a", "1", "1"}, {"T", "a", "2", "1"}}, "0(1)"},
		{"a circle", []e{{"T", "a", "1", "3"}, {"T", "a", "2", "1"}, {"T", "a", "3", "2"}}, "2(0(1))"},
	} {
		var entries []audit.Entry
		for i, e := range tc.entries {
			entries = append(entries, audit.Entry{Index: int64(i), EventType: e.kind, AgentID: e.agent, SpanID: e.span, ParentSpanID: e.parent, Success: true})
		}
		if got := shape(buildTree(entries)); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
}

// TestTreeHasEveryEntryOnce, whatever the spans claim.
func TestTreeHasEveryEntryOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		kinds := rapid.SampledFrom([]string{entry.AgentLoopStart, entry.AgentLoopEnd, "TOOL_USE"})
		names := rapid.SampledFrom([]string{"", "1", "2", "3", "4", "gone"})
		n := rapid.IntRange(1, 20).Draw(t, "n")
		var entries []audit.Entry
		for i := range n {
			entries = append(entries, audit.Entry{
				Index: int64(i), EventType: kinds.Draw(t, "kind"), AgentID: names.Draw(t, "agent"),
				SpanID: names.Draw(t, "span"), ParentSpanID: names.Draw(t, "parent"), Timestamp: time.Unix(int64(i), 0),
			})
		}
		seen := make([]int, n)
		walk(buildTree(entries), func(n *node, _ place) { seen[n.entry.Index]++ })
		for i, times := range seen {
			if times != 1 {
				t.Fatalf("entry %d is there %d times", i, times)
			}
		}
		var b bytes.Buffer
		writeTree(&b, &terminal{w: &b}, entries)
		if got := strings.Count(b.String(), "\n"); got != n+4 {
			t.Fatalf("%d lines for %d entries", got, n)
		}
	})
}

// TestDeepTreeIsDrawn: a chain of spans costs neither the stack nor a line
// that grows with it.
func TestDeepTreeIsDrawn(t *testing.T) {
	const n = 50_000
	for name, reversed := range map[string]bool{"parents first": false, "children first": true} {
		var entries []audit.Entry
		for i := range n {
			at := i
			if reversed {
				at = n - 1 - i
			}
			entries = append(entries, audit.Entry{Index: int64(i), Action: "x", SpanID: fmt.Sprint(at), ParentSpanID: fmt.Sprint(at - 1), Success: true})
		}
		var b bytes.Buffer
		writeTree(&b, &terminal{w: &b}, entries)
		if lines := strings.Count(b.String(), "\n"); lines != n+4 || b.Len() > n*(4*deepest+100) {
			t.Errorf("%s: %d lines, %d bytes", name, lines, b.Len())
		}
	}
}

func TestTreeIsPrintable(t *testing.T) {
	failure := "boom\x1b[31m\nnext"
	entries := []audit.Entry{{TraceID: "t\x1b]0;x\a", Action: "a\nb", AgentID: "\u202eagent", EventType: "T\x7f", Error: &failure, Outcome: "denied\r"}}
	var b bytes.Buffer
	writeTree(&b, &terminal{w: &b}, entries)
	for _, r := range b.String() {
		if r < 0x20 && r != '\n' || r == 0x7f || r == 0x202e {
			t.Errorf("holds %U:\n%q", r, b.String())
		}
	}
	if !strings.Contains(b.String(), `denied\r: boom\x1b[31m\nnext`) {
		t.Errorf("%q", b.String())
	}
}
