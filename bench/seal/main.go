// Seal measures what sealing a segment costs those who record meanwhile:
//
//	go run ./seal [--json FILE] [--dir DIR] [--quick] [--rounds N]
//
// One writer, and then eight, record durable entries one at a time. First nothing
// else happens, as long as a seal takes; then a segment of 256 MiB is sealed: cut off,
// compressed, synced, read back and compared. The bar is that of the product: the seal
// adds at most 5 ms to the p99.9 of a commit in the same run. The run takes about two
// minutes.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	audit "github.com/kaizen-audit/kaizen-audit"

	"github.com/kaizen-audit/kaizen-audit/bench/internal/measure"
	"github.com/kaizen-audit/kaizen-audit/bench/internal/workload"
)

// bar is how much a seal may add to the p99.9 of a commit.
const bar = 5 * time.Millisecond

func main() {
	jsonFile := flag.String("json", "", "also write the results as JSON to this file")
	dir := flag.String("dir", ".", "measure below this directory; it says which disk")
	quick := flag.Bool("quick", false, "a small segment, once: shows that everything runs, measures nothing")
	rounds := flag.Int("rounds", 3, "how often each number of writers meets a seal")
	flag.Parse()
	if flag.NArg() > 0 || *rounds < 1 {
		flag.Usage()
		os.Exit(2)
	}
	w := work{segment: 256 << 20, rounds: *rounds, settle: time.Second}
	if *quick {
		w = quickly
	}
	if err := run(os.Stdout, *dir, *jsonFile, w); err != nil {
		fmt.Fprintln(os.Stderr, "bench seal:", err)
		os.Exit(1)
	}
}

// work is what is measured.
type work struct {
	segment int64         // bytes of lines
	rounds  int           // how often each number of writers meets a seal
	settle  time.Duration // after a segment was filled, and half of the first phase without a seal
}

var quickly = work{segment: 1 << 20, rounds: 1, settle: 50 * time.Millisecond}

// figure is what one number of writers met. Times are in milliseconds.
type figure struct {
	Writers int     `json:"writers"`
	Without phase   `json:"without"`
	With    phase   `json:"with"`
	Added   float64 `json:"added_p999_ms"`
	// Rounds are what each round alone would give, and how long its seal took.
	Rounds []round `json:"rounds"`
}

type phase struct {
	Commits int     `json:"commits"`
	P50     float64 `json:"p50_ms"`
	P99     float64 `json:"p99_ms"`
	P999    float64 `json:"p999_ms"`
	Max     float64 `json:"max_ms"`
}

type round struct {
	Added   float64 `json:"added_p999_ms"`
	Seconds float64 `json:"seal_seconds"`
}

type results struct {
	Machine measure.Machine `json:"machine"`
	Seconds float64         `json:"seconds"`
	Segment int64           `json:"segment_bytes"`
	Figures []figure        `json:"figures"`
}

func run(out io.Writer, dir, jsonFile string, w work) error {
	start := time.Now()
	dir, err := os.MkdirTemp(dir, "bench-seal-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	res := results{Machine: measure.ThisMachine(), Segment: w.segment}
	for _, writers := range []int{1, 8} {
		f, err := meet(filepath.Join(dir, fmt.Sprint(writers)), writers, w)
		if err != nil {
			return fmt.Errorf("%d writers: %w", writers, err)
		}
		res.Figures = append(res.Figures, f)
	}
	res.Seconds = time.Since(start).Seconds()
	cells := [][]string{{"writers", "", "commits", "p50 ms", "p99 ms", "p99.9 ms", "max ms"}}
	for _, f := range res.Figures {
		for _, p := range []struct {
			name string
			phase
		}{{"without a seal", f.Without}, {"during a seal", f.With}} {
			cells = append(cells, []string{fmt.Sprint(f.Writers), p.name, fmt.Sprint(p.Commits), number(p.P50), number(p.P99), number(p.P999), number(p.Max)})
		}
	}
	if err := measure.WriteCells(out, cells); err != nil {
		return err
	}
	fmt.Fprintf(out, "\n%s; segments of %d bytes; %.0f s.\n\n", res.Machine, w.segment, res.Seconds)
	for _, f := range res.Figures {
		verdict := "kept"
		if f.Added > float64(bar.Milliseconds()) {
			verdict = "MISSED"
		}
		fmt.Fprintf(out, "%d writers: a seal adds %s ms to the p99.9 of a commit, bar %d ms  %s; by round", f.Writers, number(f.Added), bar.Milliseconds(), verdict)
		for _, r := range f.Rounds {
			fmt.Fprintf(out, " %s (%.1f s)", number(r.Added), r.Seconds)
		}
		fmt.Fprintln(out)
	}
	if jsonFile == "" {
		return nil
	}
	return measure.WriteJSON(jsonFile, res)
}

func number(ms float64) string { return fmt.Sprintf("%.2f", ms) }

// meet has writers meet a seal some times.
func meet(dir string, writers int, w work) (f figure, err error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return f, err
	}
	p := workload.New(1)
	t, err := audit.Open(filepath.Join(dir, "log.jsonl"), &audit.Options{
		StateDir: filepath.Join(dir, "known"), RotationInterval: audit.RotateNever, SegmentBytes: 1 << 40,
	})
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	var without, with []time.Duration
	length := 2 * w.settle // of the phase without, from then on as long as a seal took
	for range w.rounds {
		if err := fill(t, p, w.segment); err != nil {
			return f, err
		}
		time.Sleep(w.settle) // a checkpoint covers what was filled in, and its tiles are written
		base, err := recordWhile(t, p, writers, func() error { time.Sleep(length); return nil })
		if err != nil {
			return f, err
		}
		began := time.Now()
		sealed, err := recordWhile(t, p, writers, func() error {
			s, err := t.Rotate(context.Background())
			if err == nil && s.Bytes < w.segment {
				err = fmt.Errorf("a segment of %d bytes was sealed", s.Bytes)
			}
			return err
		})
		if err != nil {
			return f, err
		}
		length = time.Since(began)
		a, b := phaseOf(base), phaseOf(sealed)
		f.Rounds = append(f.Rounds, round{b.P999 - a.P999, length.Seconds()})
		without, with = append(without, base...), append(with, sealed...)
	}
	f.Writers, f.Without, f.With = writers, phaseOf(without), phaseOf(with)
	f.Added = f.With.P999 - f.Without.P999
	return f, nil
}

// fill records until the open segment has so many bytes.
func fill(t *audit.Trail, p *workload.Pool, bytes int64) error {
	const batch = 1000
	events := make([]audit.Event, batch)
	for n := 0; ; n += batch {
		if n%(10*batch) == 0 {
			i, err := t.Info(context.Background())
			if err != nil || i.OpenBytes >= bytes {
				return err
			}
		}
		for k := range events {
			events[k] = p.Event(n + k).Audit()
		}
		if _, err := t.RecordBatch(context.Background(), events); err != nil {
			return err
		}
	}
}

// recordWhile has writers record one entry after the other until do ends, and gives
// how long each took.
func recordWhile(t *audit.Trail, p *workload.Pool, writers int, do func() error) ([]time.Duration, error) {
	var stop atomic.Bool
	var wg sync.WaitGroup
	took, errs := make([][]time.Duration, writers), make([]error, writers)
	for w := range writers {
		took[w] = make([]time.Duration, 0, 1<<16)
		wg.Go(func() {
			for n := w; !stop.Load(); n += writers {
				ev := p.Event(n).Audit()
				began := time.Now()
				if _, errs[w] = t.Record(context.Background(), ev); errs[w] != nil {
					return
				}
				took[w] = append(took[w], time.Since(began))
			}
		})
	}
	err := do()
	stop.Store(true)
	wg.Wait()
	return slices.Concat(took...), errors.Join(append(errs, err)...)
}

// phaseOf sums up the times of commits.
func phaseOf(took []time.Duration) phase {
	sorted := slices.Sorted(slices.Values(took))
	n := len(sorted)
	if n == 0 {
		return phase{}
	}
	at := func(perMille int) float64 { // the nearest rank
		return sorted[max(0, (n*perMille+999)/1000-1)].Seconds() * 1000
	}
	return phase{n, at(500), at(990), at(999), at(1000)}
}
