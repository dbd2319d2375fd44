// Append measures how fast entries are recorded, here and elsewhere, and
// prints one table:
//
//	go run ./append [--json FILE] [--dir DIR] [--only TEXT] [--quick]
//
// The comparisons are: durable with one writer, against a plain write and
// fdatasync of ready-made lines; durable with 64 writers, against a bare group
// commit of ready-made lines; written (handed to the operating system, not
// synced) with one writer, against a plain write. The whole run takes less
// than three minutes.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/kaizen-audit/kaizen-audit/bench/internal/measure"
	"github.com/kaizen-audit/kaizen-audit/bench/internal/peer"
	"github.com/kaizen-audit/kaizen-audit/bench/internal/workload"
)

func main() {
	jsonFile := flag.String("json", "", "also write the results as JSON to this file")
	dir := flag.String("dir", ".", "measure below this directory; it says which disk")
	only := flag.String("only", "", "measure the comparisons alone whose name has this in it")
	quick := flag.Bool("quick", false, "a few entries each: shows that everything runs, measures nothing")
	flag.Parse()
	if flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(os.Stdout, *dir, *jsonFile, *only, *quick); err != nil {
		fmt.Fprintln(os.Stderr, "bench append:", err)
		os.Exit(1)
	}
}

// manyWriters is the number of goroutines of the group commit comparison.
const manyWriters = 64

// Names of the comparisons.
const (
	oneDurable  = "durable, 1 writer"
	manyDurable = "durable, 64 writers"
	oneWritten  = "written, 1 writer"
)

// comparisons are what is measured. The slices are longer than the interval
// between checkpoints, so that a slice of ours pays for some.
func comparisons() []measure.Comparison {
	p := workload.New(1)
	return []measure.Comparison{
		{
			Name: oneDurable, Writers: 1, Baseline: "raw write",
			Rounds: 6, Slice: 700 * time.Millisecond, WarmUp: 50,
			Contestants: []measure.Contestant{
				peer.Raw(p, peer.Durable),
				peer.Ours(p, peer.Durable),
				peer.JSON(p, peer.Durable),
				peer.Zerolog(p, peer.Durable),
				peer.SQLite(p),
				peer.Pebble(p),
				peer.Bolt(p),
				peer.Tessera(p),
			},
		},
		{
			Name: manyDurable, Writers: manyWriters, Baseline: "bare group commit", ByRate: true,
			Rounds: 5, Slice: time.Second, WarmUp: 50,
			Contestants: []measure.Contestant{
				peer.GroupCommit(p),
				peer.Ours(p, peer.Durable),
				peer.Pebble(p),
				peer.BoltBatched(p, manyWriters),
				peer.SQLiteBatched(p),
			},
		},
		{
			Name: oneWritten, Writers: 1, Baseline: "zerolog",
			Rounds: 5, Slice: 800 * time.Millisecond, WarmUp: 1000,
			Contestants: []measure.Contestant{
				peer.Raw(p, peer.Written),
				peer.Ours(p, peer.Written),
				peer.JSON(p, peer.Written),
				peer.Zerolog(p, peer.Written),
				peer.Slog(p, peer.Written),
			},
		},
	}
}

// targets are what the documentation promises, p95 in milliseconds.
var targets = []struct {
	comparison string
	p95        float64
}{
	{manyDurable, 10},
	{oneWritten, 0.57},
}

type results struct {
	Machine measure.Machine `json:"machine"`
	Seconds float64         `json:"seconds"`
	NewFile float64         `json:"new_file_cpu_us"`
	Rows    []measure.Row   `json:"rows"`
}

func run(out io.Writer, dir, jsonFile, only string, quick bool) error {
	start := time.Now()
	dir, err := os.MkdirTemp(dir, "bench-append-")
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
		if !strings.Contains(c.Name, only) {
			continue
		}
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
	fmt.Fprintf(out, "\n%s; %.0f s. Ratios are medians over rounds in turn, beside the lowest and highest.\n"+
		"Bytes, allocations and CPU are per entry; CPU is that of the whole process.\n", res.Machine, res.Seconds)
	fmt.Fprint(out, measure.NewFileText(newFile))
	for _, r := range res.Rows {
		for _, t := range targets {
			if r.Comparison == t.comparison && r.Name == "kaizen-audit" {
				fmt.Fprintf(out, "%s: p95 %.3f ms, documented target %g ms\n", r.Comparison, r.P95/1000, t.p95)
			}
		}
	}
	if jsonFile != "" {
		return measure.WriteJSON(jsonFile, res)
	}
	return nil
}
