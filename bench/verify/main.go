// Verify measures how fast a trail is verified, beside the same two hashes
// (SHA-256 of the line, leaf hash of the digest) in the compact ranges of
// transparency-dev/merkle, over the same files with as many threads:
//
//	go run ./verify [--entries 1000000] [--rounds 5] [--json FILE] [--dir DIR]
//
// The first row is one open segment, the second sealed segments (zstd). The
// peer is given the places where its threads begin, and only computes the root,
// which must be that of the checkpoint; ours also checks tiles, bundles and
// signatures.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/internal/verify"

	"github.com/kaizen-audit/kaizen-audit/bench/internal/measure"
	"github.com/kaizen-audit/kaizen-audit/bench/internal/workload"
)

func main() {
	entries := flag.Int("entries", 1_000_000, "length of the trail")
	rounds := flag.Int("rounds", 5, "how often each verifies it, in turn")
	jsonFile := flag.String("json", "", "also write the results as JSON to this file")
	dir := flag.String("dir", ".", "keep the trails below this directory")
	flag.Parse()
	if flag.NArg() > 0 || *entries < 1 || *rounds < 1 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(os.Stdout, *entries, *rounds, *dir, *jsonFile); err != nil {
		fmt.Fprintln(os.Stderr, "bench verify:", err)
		os.Exit(1)
	}
}

type row struct {
	Files   string  `json:"files"`
	Entries int64   `json:"entries"`
	Bytes   int64   `json:"bytes"` // as stored
	Ours    float64 `json:"ours_entries_per_s"`
	Peer    float64 `json:"peer_entries_per_s"`
	// Ratio is the median over the rounds of ours through the peer's rate.
	Ratio     float64 `json:"ratio"`
	RatioLow  float64 `json:"ratio_low"`
	RatioHigh float64 `json:"ratio_high"`
}

type results struct {
	Machine measure.Machine `json:"machine"`
	Threads int             `json:"threads"`
	Rows    []row           `json:"rows"`
}

func run(out io.Writer, entries, rounds int, dir, jsonFile string) error {
	dir, err := os.MkdirTemp(dir, "bench-verify-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	res := results{Machine: measure.ThisMachine(), Threads: runtime.GOMAXPROCS(0)}
	for _, kind := range []struct {
		name         string
		segmentBytes int64
		seal         bool
	}{
		{"open segment", 1 << 40, false}, // never sealed
		{"sealed segments", 32 << 20, true},
	} {
		log := filepath.Join(dir, kind.name, "log.jsonl")
		if err := makeTrail(log, entries, kind.segmentBytes, kind.seal); err != nil {
			return fmt.Errorf("%s: make trail: %w", kind.name, err)
		}
		r, err := compare(log, rounds, res.Threads)
		if err != nil {
			return fmt.Errorf("%s: %w", kind.name, err)
		}
		r.Files = kind.name
		res.Rows = append(res.Rows, r)
	}
	cells := [][]string{{"", "entries", "stored MB", "ours entries/s", "merkle entries/s", "ratio", "(low to high)"}}
	for _, r := range res.Rows {
		cells = append(cells, []string{
			r.Files, measure.Thousands(float64(r.Entries)), measure.Thousands(float64(r.Bytes) / 1e6),
			measure.Thousands(r.Ours), measure.Thousands(r.Peer),
			fmt.Sprintf("%.2f", r.Ratio), fmt.Sprintf("(%.2f to %.2f)", r.RatioLow, r.RatioHigh),
		})
	}
	if err := measure.WriteCells(out, cells); err != nil {
		return err
	}
	fmt.Fprintf(out, "\n%s; %d threads each; medians of %d rounds in turn.\n", res.Machine, res.Threads, rounds)
	if jsonFile != "" {
		return measure.WriteJSON(jsonFile, res)
	}
	return nil
}

func makeTrail(log string, entries int, segmentBytes int64, seal bool) (err error) {
	if err := os.Mkdir(filepath.Dir(log), 0o700); err != nil {
		return err
	}
	ctx := context.Background()
	trail, err := audit.Open(log, &audit.Options{
		Durability:   audit.Written,
		SegmentBytes: segmentBytes,
		StateDir:     filepath.Join(filepath.Dir(log), "known"),
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, trail.Close()) }()
	pool := workload.New(1)
	batch := make([]audit.Event, 0, 1000)
	for n := 0; n < entries; {
		batch = batch[:0]
		for ; n < entries && len(batch) < cap(batch); n++ {
			batch = append(batch, pool.Event(n).Audit())
		}
		if _, err := trail.RecordBatch(ctx, batch); err != nil {
			return err
		}
	}
	if seal {
		_, err = trail.Rotate(ctx)
	}
	return err
}

// compare lets both verify the trail in turn.
func compare(log string, rounds, threads int) (row, error) {
	head, err := readHead(log)
	if err != nil {
		return row{}, err
	}
	parts, err := split(log, head.size, threads)
	if err != nil {
		return row{}, err
	}
	r := row{Entries: head.size}
	for _, p := range parts {
		for _, s := range p.spans {
			r.Bytes += s.bytes
		}
	}
	ours := func() error {
		report, err := verify.Verify(context.Background(), verify.Options{LogPath: log, Workers: threads})
		if err == nil && report.Size < head.size {
			err = fmt.Errorf("ours verified %d entries, the checkpoint has %d", report.Size, head.size)
		}
		if err == nil && report.Status != verify.Intact {
			err = fmt.Errorf("ours found %s in an intact trail: %s", report.Status, report.Detail)
		}
		return err
	}
	theirs := func() error {
		root, err := rootOf(parts)
		if err == nil && root != head.root {
			err = errors.New("the peer's root is not the checkpoint's")
		}
		return err
	}
	var oursRates, peerRates, ratios []float64
	for range rounds {
		a, err := rate(head.size, theirs)
		if err != nil {
			return row{}, err
		}
		b, err := rate(head.size, ours)
		if err != nil {
			return row{}, err
		}
		peerRates, oursRates, ratios = append(peerRates, a), append(oursRates, b), append(ratios, b/a)
	}
	slices.Sort(ratios)
	r.Ours, r.Peer, r.Ratio = median(oursRates), median(peerRates), median(ratios)
	r.RatioLow, r.RatioHigh = ratios[0], ratios[len(ratios)-1]
	return r, nil
}

func rate(entries int64, do func() error) (float64, error) {
	runtime.GC()
	start := time.Now()
	err := do()
	return float64(entries) / time.Since(start).Seconds(), err
}

func median(x []float64) float64 {
	x = slices.Sorted(slices.Values(x))
	return (x[(len(x)-1)/2] + x[len(x)/2]) / 2
}
