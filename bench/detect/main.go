// Detect prints how much the detectors find of what is labelled in corpora that
// nobody here wrote, and how fast they are:
//
//	go run ./detect [--misses] [--runs 5]
//
// Beside the secrets stands gitleaks with its own rules, on its own cases.
// Presidio can't be run here: its published cases say what it expects, and the
// table how often that is what is found. Speeds are of one goroutine, by the
// process's own time, in turn; the clock of a shared machine says little.
package main

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/rs/zerolog"
	gitleaks "github.com/zricethezav/gitleaks/v8/detect"
	"github.com/zricethezav/gitleaks/v8/logging"

	"github.com/kaizen-audit/kaizen-audit/internal/detect"
	"github.com/kaizen-audit/kaizen-audit/internal/detect/corpus"
)

func main() {
	misses := flag.Bool("misses", false, "print each case that is missed or found wrongly")
	runs := flag.Int("runs", 5, "runs of each speed, of which the median counts")
	flag.Parse()
	if flag.NArg() > 0 || *runs < 1 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(*misses, *runs); err != nil {
		fmt.Fprintln(os.Stderr, "bench detect:", err)
		os.Exit(1)
	}
}

func run(misses bool, runs int) error {
	logging.Logger = logging.Logger.Level(zerolog.Disabled)
	leaks, err := gitleaks.NewDetectorDefaultConfig()
	if err != nil {
		return err
	}
	set := detect.Default()
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	defer w.Flush()

	spans := func(text string) (found []corpus.Span) {
		for _, m := range set.Text(nil, []byte(text)) {
			found = append(found, corpus.Span{Start: m.Start, End: m.End, Rule: m.Rule})
		}
		return found
	}
	ofRule := func(c corpus.Case) (n int) {
		for _, s := range spans(c.Text) {
			if s.Rule == c.Rule {
				n++
			}
		}
		return n
	}
	rule := func(c corpus.Case) string { return c.Rule }
	fmt.Fprintln(w, "CARDS AND PERSONAL DATA\tDETECTOR\tLABELLED\tRECALL\tPRECISION")
	for _, part := range []struct {
		name   string
		scores map[string]corpus.Score
	}{
		{"test card numbers", corpus.Counts(corpus.Cards(), rule, ofRule)},
		{"presidio-research, synthetic sentences", corpus.Spans(corpus.Synth(), spans)},
		{"Presidio's recognisers, their cases", corpus.Counts(corpus.Recognisers(), rule, ofRule)},
		{"PII-synthetic", corpus.Spans(corpus.Nano(), spans)},
	} {
		for _, key := range slices.Sorted(maps.Keys(part.scores)) {
			s := part.scores[key]
			fmt.Fprintf(w, "%s\t%s\t%d\t%.1f %%\t%.1f %%\n", part.name, key, s.Found+s.Missed, 100*s.Recall(), 100*s.Precision())
		}
	}

	ours := func(c corpus.Case) int {
		for _, m := range set.Text(nil, []byte(c.Text)) {
			if m.Class == detect.Secret {
				return 1
			}
		}
		return 0
	}
	theirs := func(c corpus.Case) int { return min(1, len(leaks.DetectString(c.Text))) }
	secrets := corpus.Secrets()
	a, b := corpus.Counts(secrets, corpus.Family, ours), corpus.Counts(secrets, corpus.Family, theirs)
	quiet := map[string]int{}
	for _, c := range secrets {
		if c.Count == 0 {
			quiet[corpus.Family(c)]++
		}
	}
	fmt.Fprintln(w, "\t\t\t\t\nSECRETS, GITLEAKS' CASES\tWITH\tRECALL\tGITLEAKS\tWITHOUT, FOUND ALL THE SAME\tGITLEAKS")
	for _, key := range slices.Sorted(maps.Keys(a)) {
		fmt.Fprintf(w, "%s\t%d\t%.1f %%\t%.1f %%\t%d of %d\t%d\n", key, a[key].Found+a[key].Missed, 100*a[key].Recall(), 100*b[key].Recall(), a[key].Wrong, quiet[key], b[key].Wrong)
	}
	if misses {
		for _, c := range secrets {
			if n := ours(c); n != c.Count {
				fmt.Fprintf(w, "%s\twant %d\t%.100q\n", c.Name, c.Count, c.Text)
			}
		}
	}

	prose := corpus.Prose(64 << 10)
	text := string(prose)
	dst := make([]detect.Match, 0, 1024)
	var mine, peer []float64
	for range runs {
		const rounds = 200
		mine = append(mine, perByte(len(prose)*rounds, func() {
			for range rounds {
				dst = set.Text(dst[:0], prose)
			}
		}))
		peer = append(peer, perByte(len(prose), func() { leaks.DetectString(text) }))
	}
	fmt.Fprintf(w, "\t\t\t\t\nSPEED, 64 KiB OF PROSE\tMB/s\n")
	fmt.Fprintf(w, "every detector\t%.0f\n", 1000/median(mine))
	fmt.Fprintf(w, "gitleaks, secrets only\t%.1f\n", 1000/median(peer))
	return nil
}

// perByte is the nanoseconds of processor time that f takes per byte.
func perByte(n int, f func()) float64 {
	before := processorTime()
	f()
	return float64(processorTime()-before) / float64(n)
}

func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func median[T cmp.Ordered](v []T) T {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}
