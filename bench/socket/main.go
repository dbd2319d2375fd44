// Socket measures how fast other processes record through the process that
// holds a trail, and prints one table:
//
//	go run ./socket [--json FILE] [--dir DIR] [--quick]
//
// The holder is a process of its own, the clients are in this one, and all share
// the machine's processors. Every event has an idempotency key and is
// acknowledged when it is on disk. Beside it stand the same events recorded by
// the library in one process, and the limit: their bytes going to a process that
// answers and records nothing. The whole run takes about a minute.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/kaizen-audit/kaizen-audit/bench/internal/measure"
	"github.com/kaizen-audit/kaizen-audit/bench/internal/peer"
	"github.com/kaizen-audit/kaizen-audit/bench/internal/workload"
)

func main() {
	peer.Serve()
	jsonFile := flag.String("json", "", "also write the results as JSON to this file")
	dir := flag.String("dir", ".", "measure below this directory; it says which disk")
	quick := flag.Bool("quick", false, "a few entries each: shows that everything runs, measures nothing")
	flag.Parse()
	if flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(os.Stdout, *dir, *jsonFile, *quick); err != nil {
		fmt.Fprintln(os.Stderr, "bench socket:", err)
		os.Exit(1)
	}
}

// comparisons are what is measured. The slices are longer than the interval
// between checkpoints, so that a slice of ours pays for some.
func comparisons() (all []measure.Comparison) {
	p := workload.New(1)
	for _, c := range []struct {
		name           string
		writers, batch int
	}{
		{"single, 64 connections", 64, 1},
		{"batches of 500, 4 connections", 4, 500},
		{"batches of 500, 64 connections", 64, 500},
	} {
		all = append(all, measure.Comparison{
			Name: c.name, Writers: c.writers, Batch: c.batch, Baseline: "library in this process", ByRate: true,
			Rounds: 5, Slice: time.Second, WarmUp: 50,
			Contestants: []measure.Contestant{
				peer.RoundTrips(p, c.writers, c.batch),
				peer.KeyedTrail(p, c.batch),
				peer.Socket(p, c.writers, c.batch),
			},
		})
	}
	return all
}

type results struct {
	Machine measure.Machine `json:"machine"`
	Seconds float64         `json:"seconds"`
	NewFile float64         `json:"new_file_cpu_us"`
	Rows    []measure.Row   `json:"rows"`
}

func run(out io.Writer, dir, jsonFile string, quick bool) error {
	start := time.Now()
	dir, err := os.MkdirTemp(dir, "bench-socket-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	newFile, err := measure.NewFile(dir)
	if err != nil {
		return err
	}
	res := results{Machine: measure.ThisMachine(), NewFile: float64(newFile.Microseconds())}
	for _, c := range comparisons() {
		if quick {
			c.Rounds, c.MaxEntries, c.WarmUp = 1, 128, 1
		}
		rows, err := measure.Run(c, dir)
		if err != nil {
			return err
		}
		res.Rows = append(res.Rows, rows...)
	}
	res.Seconds = time.Since(start).Seconds()
	if err := measure.WriteTable(out, res.Rows); err != nil {
		return err
	}
	fmt.Fprintf(out, "\n%s; %.0f s. Times are of a call, a batch where there are batches; bytes, allocations and CPU are per entry,\n"+
		"CPU that of both processes, allocations those of the clients. Ratios are medians over rounds in turn, beside the lowest and highest.\n", res.Machine, res.Seconds)
	fmt.Fprint(out, measure.NewFileText(newFile))
	if jsonFile != "" {
		return measure.WriteJSON(jsonFile, res)
	}
	return nil
}
