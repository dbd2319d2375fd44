// OTLP measures how many spans a second become durable entries, and prints one
// table:
//
//	go run ./otlp [--json FILE] [--dir DIR] [--quick]
//
// The spans are runs of an agent as an OpenTelemetry SDK exports them with
// content, in protobuf; serve --otlp is a process of its own, the senders are in
// this one, and both share the machine's processors. A request is answered when
// its spans are on disk. Beside it stands the limit: the same requests to a
// process that reads them and keeps nothing. The whole run takes about a minute.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/kaizen-audit/kaizen-audit/bench/internal/measure"
	"github.com/kaizen-audit/kaizen-audit/bench/internal/peer"
)

func main() {
	peer.Serve()
	jsonFile := flag.String("json", "", "also write the results as JSON to this file")
	dir := flag.String("dir", ".", "measure below this directory; it says which disk")
	quick := flag.Bool("quick", false, "a few requests each: shows that everything runs, measures nothing")
	flag.Parse()
	if flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(os.Stdout, *dir, *jsonFile, *quick); err != nil {
		fmt.Fprintln(os.Stderr, "bench otlp:", err)
		os.Exit(1)
	}
}

// target is how many spans a second are promised to be durable on two cores.
const target = 50_000

// comparisons are what is measured: the batch that SDKs send at most, and the
// collector's.
func comparisons() (all []measure.Comparison) {
	for _, c := range []struct {
		name           string
		writers, batch int
	}{{"requests of 512 spans, 8 senders", 8, 512}, {"requests of 8,192 spans, 4 senders", 4, 8192}} {
		all = append(all, measure.Comparison{
			Name: c.name, Writers: c.writers, Batch: c.batch, Baseline: "bare requests", ByRate: true,
			Rounds: 5, Slice: 2 * time.Second, WarmUp: c.writers,
			Contestants: []measure.Contestant{peer.HTTP(c.writers, c.batch), peer.OTLP(c.writers, c.batch)},
		})
	}
	return all
}

type results struct {
	Machine measure.Machine `json:"machine"`
	Seconds float64         `json:"seconds"`
	Rows    []measure.Row   `json:"rows"`
}

func run(out io.Writer, dir, jsonFile string, quick bool) error {
	start := time.Now()
	dir, err := os.MkdirTemp(dir, "bench-otlp-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	res := results{Machine: measure.ThisMachine()}
	for _, c := range comparisons() {
		if quick {
			c.Rounds, c.MaxEntries, c.WarmUp = 1, 8, 1
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
	fmt.Fprintf(out, "\n%s; %.0f s. An entry is a span; times are of a request. Bytes, allocations and CPU are per span,\n"+
		"CPU that of both processes up to the end of the trail, allocations those of the senders.\n", res.Machine, res.Seconds)
	for _, r := range res.Rows {
		if r.Name == "serve --otlp" {
			fmt.Fprintf(out, "%s: %s spans/s, documented target %s; %.1f µs of CPU a span let two cores make %s\n",
				r.Comparison, measure.Thousands(r.Rate), measure.Thousands(target), r.CPU, measure.Thousands(2e6/r.CPU))
		}
	}
	if jsonFile != "" {
		return measure.WriteJSON(jsonFile, res)
	}
	return nil
}
