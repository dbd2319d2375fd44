package detect_test

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/kaizen-audit/kaizen-audit/internal/detect"
	"github.com/kaizen-audit/kaizen-audit/internal/detect/corpus"
)

var update = flag.Bool("update", false, "write the golden files")

func spans(text string) (found []corpus.Span) {
	for _, m := range detect.Default().Text(nil, []byte(text)) {
		found = append(found, corpus.Span{Start: m.Start, End: m.End, Rule: m.Rule})
	}
	return found
}

func countRule(c corpus.Case) (n int) {
	for _, s := range spans(c.Text) {
		if s.Rule == c.Rule {
			n++
		}
	}
	return n
}

func countSecret(c corpus.Case) int {
	for _, m := range detect.Default().Text(nil, []byte(c.Text)) {
		if m.Class == detect.Secret {
			return 1
		}
	}
	return 0
}

// TestLabelledCorpora holds the counts of found, missed and wrongly found, which
// docs/detectors.md explains. A change of them is read, then written with
// -update.
func TestLabelledCorpora(t *testing.T) {
	var b strings.Builder
	table := func(name string, scores map[string]corpus.Score) {
		for _, key := range slices.Sorted(maps.Keys(scores)) {
			s := scores[key]
			fmt.Fprintf(&b, "%-12s %-18s found %3d missed %3d wrong %3d\n", name, key, s.Found, s.Missed, s.Wrong)
		}
	}
	rule := func(c corpus.Case) string { return c.Rule }
	table("cards", corpus.Counts(corpus.Cards(), rule, countRule))
	table("synth", corpus.Spans(corpus.Synth(), spans))
	table("recognisers", corpus.Counts(corpus.Recognisers(), rule, countRule))
	table("nano", corpus.Spans(corpus.Nano(), spans))
	table("gitleaks", corpus.Counts(corpus.Secrets(), corpus.Family, countSecret))
	golden(t, "testdata/corpora.golden", b.String())
}

// TestAgentRuns holds what is found in 7,410 steps of real agents: how often by
// rule, and the cards and secrets with where they stand. docs/detectors.md
// judges them.
func TestAgentRuns(t *testing.T) {
	if raceEnabled || testing.Short() {
		t.Skip("seconds, and nothing concurrent")
	}
	s := detect.Default()
	total := map[string]int{}
	distinct := map[string]map[string]bool{}
	steps := corpus.AgentRuns(func(step int, name, text string, number bool) {
		var found []detect.Match
		if k, ok := s.Name([]byte(name)); ok {
			found = s.Value(nil, k, []byte(text))
		} else if number {
			if m, ok := s.Number([]byte(text)); ok {
				found = append(found, m)
			}
		} else {
			found = s.Text(nil, []byte(text))
		}
		for _, m := range found {
			total[m.Rule]++
			if distinct[m.Rule] == nil {
				distinct[m.Rule] = map[string]bool{}
			}
			distinct[m.Rule][text[m.Start:m.End]] = true
		}
	})
	var b strings.Builder
	fmt.Fprintf(&b, "%d steps\n", steps)
	for _, rule := range slices.Sorted(maps.Keys(total)) {
		fmt.Fprintf(&b, "%-14s %4d times, %3d distinct\n", rule, total[rule], len(distinct[rule]))
		if c := ruleClasses[rule]; c != detect.Personal {
			for _, text := range slices.Sorted(maps.Keys(distinct[rule])) {
				fmt.Fprintf(&b, "    %q\n", text)
			}
		}
	}
	golden(t, "testdata/agent-runs.golden", b.String())
	// None of the long numbers in them is a card's.
	for _, n := range []string{"306181000000106", "192019947458769", "8000000000000000", "6252316768545", "4675545572335", "356834643335217"} {
		if distinct["card"][n] {
			t.Errorf("%s is taken for a card", n)
		}
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: not what it was:\n%s", name, got)
	}
}
