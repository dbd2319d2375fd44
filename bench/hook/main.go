// Hook measures what the hook adds to a tool call, and prints one table:
//
//	go run ./hook [--json FILE] [--dir DIR] [--quick]
//
// The call is of a tool that reads its arguments and answers, inside an agent's
// loop with the caller's context. It stands without a hook, with it in written
// mode (handed to the operating system, not synced), and durable. The whole run
// takes less than half a minute.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	audit "github.com/kaizen-audit/kaizen-audit"

	"github.com/kaizen-audit/kaizen-audit/bench/internal/measure"
	"github.com/kaizen-audit/kaizen-audit/bench/internal/peer"
)

func main() {
	jsonFile := flag.String("json", "", "also write the results as JSON to this file")
	dir := flag.String("dir", ".", "measure below this directory; it says which disk")
	quick := flag.Bool("quick", false, "a few calls each: shows that everything runs, measures nothing")
	flag.Parse()
	if flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(os.Stdout, *dir, *jsonFile, *quick); err != nil {
		fmt.Fprintln(os.Stderr, "bench hook:", err)
		os.Exit(1)
	}
}

// Names of the contestants.
const (
	bare    = "without the hook"
	written = "with it, written"
)

// What is promised of a call in written mode, more than without the hook.
const (
	addedP95    = 15 // µs
	addedAllocs = 10
)

func comparison() measure.Comparison {
	return measure.Comparison{
		Name: "one tool call", Writers: 1, Baseline: bare,
		Rounds: 8, Slice: 800 * time.Millisecond, WarmUp: 1000,
		Contestants: []measure.Contestant{peer.ToolCall(), peer.HookedToolCall(written, audit.Written), peer.HookedToolCall("with it, durable", audit.Durable)},
	}
}

type results struct {
	Machine     measure.Machine `json:"machine"`
	Seconds     float64         `json:"seconds"`
	Rows        []measure.Row   `json:"rows"`
	AddedP95    float64         `json:"added_p95_us"`
	AddedAllocs float64         `json:"added_allocs"`
}

func run(out io.Writer, dir, jsonFile string, quick bool) error {
	start := time.Now()
	dir, err := os.MkdirTemp(dir, "bench-hook-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	c := comparison()
	if quick {
		c.Rounds, c.MaxEntries, c.WarmUp = 1, 128, 1
	}
	res := results{Machine: measure.ThisMachine()}
	if res.Rows, err = measure.Run(c, dir); err != nil {
		return err
	}
	res.Seconds = time.Since(start).Seconds()
	res.AddedP95, res.AddedAllocs = res.Rows[1].P95-res.Rows[0].P95, res.Rows[1].Allocs-res.Rows[0].Allocs
	if err := measure.WriteTable(out, res.Rows); err != nil {
		return err
	}
	fmt.Fprintf(out, "\n%s; %.0f s. Bytes, allocations and CPU are per call; CPU is that of the whole process, checkpoints and the end included.\n", res.Machine, res.Seconds)
	fmt.Fprintf(out, "%s: %.2f µs more at p95, documented target %d; %.1f allocations more, documented target %d\n", written, res.AddedP95, addedP95, res.AddedAllocs, addedAllocs)
	if jsonFile != "" {
		return measure.WriteJSON(jsonFile, res)
	}
	return nil
}
