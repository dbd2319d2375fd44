// Policy measures what the default policy costs:
//
//	go run ./policy [--rounds 15] [--appends 400] [--dir DIR]
//
// An entry of about 500 bytes, and 64 KiB of prose, are encoded with and without
// it, in turn; the figures are medians of the processor's time for one, so that
// other work on the machine does not count. Then entries are recorded durably
// in two trails, in turn, one with the default policy and one whose policy passes
// over everything; the figure is the median of the rounds' ratios of p50.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/policy"

	"github.com/kaizen-audit/kaizen-audit/bench/internal/measure"
)

func main() {
	rounds := flag.Int("rounds", 15, "how often each is measured")
	appends := flag.Int("appends", 400, "entries that a round records durably")
	dir := flag.String("dir", ".", "keep the trails below this directory")
	flag.Parse()
	if flag.NArg() > 0 || *rounds < 1 || *appends < 1 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(*rounds, *appends, *dir); err != nil {
		fmt.Fprintln(os.Stderr, "bench policy:", err)
		os.Exit(1)
	}
}

// bare is a policy that passes over everything.
func bare() (*policy.Policy, error) {
	return policy.New(policy.Config{Fields: []policy.Field{{Path: "/**", Action: policy.Keep}}})
}

func run(rounds, appends int, dir string) error {
	off, err := bare()
	if err != nil {
		return err
	}
	small := audit.Event{
		EventType: audit.ToolUse, AgentID: "airline-agent", TraceID: "4bf92f3577b34da6a3ce929d0e0e4736", Action: "tool_use:get_reservation_details", DurationMS: 45.2,
		Inputs:   audit.Raw([]byte(`{"reservation_id":"ZFA04Y","include":["passengers","flights"]}`)),
		Outputs:  audit.Raw([]byte(`{"status":"confirmed","cabin":"economy","flights":[{"number":"HAT136","from":"JFK","to":"SEA"}],"note":"two bags"}`)),
		Metadata: audit.Raw([]byte(`{"user_id":"james_patel_9828","session_id":"5c4a1d2e","environment":"production"}`)),
	}
	large := small
	large.Outputs = audit.Of(map[string]any{"text": strings.Repeat("The passenger asked whether the second bag could be added to the booking, and the agent\nlooked it up: \"two bags are included in this fare\", it said. ", 64<<10/149+1)[:64<<10]})
	cells := [][]string{{"what", "without", "policy adds", "bar"}}
	for _, c := range []struct {
		name  string
		ev    *audit.Event
		times int
		text  func(ns float64) string
		bar   string
	}{
		{"an entry of 500 bytes", &small, 20000, func(ns float64) string { return strconv.FormatFloat(ns/1e3, 'f', 2, 64) + " µs" }, "3 µs"},
		{"64 KiB of prose", &large, 200, func(ns float64) string { return strconv.FormatFloat(64<<10/ns*1e3, 'f', 0, 64) + " MB/s" }, "300 MB/s"},
	} {
		var without, adds []float64
		for range rounds {
			plain, err := encode(c.ev, c.times, nil)
			if err != nil {
				return err
			}
			with, err := encode(c.ev, c.times, policy.Default())
			if err != nil {
				return err
			}
			without, adds = append(without, plain), append(adds, with-plain)
		}
		cells = append(cells, []string{c.name, c.text(median(without)), c.text(median(adds)), c.bar})
	}
	ratio, p50, err := durable(rounds, appends, dir, &small, off)
	if err != nil {
		return err
	}
	cells = append(cells, []string{"durable append, p50", fmt.Sprintf("%.0f µs", p50), fmt.Sprintf("%.2f ×", ratio), "1.1 ×"})
	fmt.Println(measure.ThisMachine())
	return measure.WriteCells(os.Stdout, cells)
}

// encode gives the processor's nanoseconds for a line.
func encode(ev *audit.Event, times int, p *policy.Policy) (float64, error) {
	st := entry.Stamp{EventID: "01a206d7-e571-79eb-a84a-6a407a3be418", RecordedAt: time.Unix(1800000000, 0)}
	var dst []byte
	begin := processorTime()
	for range times {
		var err error
		if p == nil {
			dst, err = entry.AppendLine(dst[:0], ev, &st)
		} else {
			dst, err = p.AppendLine(dst[:0], ev, &st, policy.Run{})
		}
		if err != nil {
			return 0, err
		}
	}
	return float64(processorTime()-begin) / float64(times), nil
}

// durable gives the ratio of a durable append with the default policy to one with
// off, and the p50 of the latter in microseconds.
func durable(rounds, appends int, dir string, ev *audit.Event, off *policy.Policy) (ratio, p50 float64, err error) {
	dir, err = os.MkdirTemp(dir, "bench-policy-")
	if err != nil {
		return 0, 0, err
	}
	defer os.RemoveAll(dir)
	var trails [2]*audit.Trail
	for i, p := range []*policy.Policy{off, policy.Default()} {
		trails[i], err = audit.Open(filepath.Join(dir, strconv.Itoa(i)+".jsonl"), &audit.Options{Policy: p, StateDir: filepath.Join(dir, "state")})
		if err != nil {
			return 0, 0, err
		}
		defer func() { err = errors.Join(err, trails[i].Close()) }()
	}
	var ratios, all []float64
	for range rounds {
		var took [2][]float64
		for range appends { // one here, one there: what the disk does in between hits both
			for i, t := range trails {
				begin := time.Now()
				if _, err := t.Record(context.Background(), *ev); err != nil {
					return 0, 0, err
				}
				took[i] = append(took[i], float64(time.Since(begin))/1e3)
			}
		}
		ratios, all = append(ratios, median(took[1])/median(took[0])), append(all, median(took[0]))
	}
	return median(ratios), median(all), nil
}

func median(list []float64) float64 {
	slices.Sort(list)
	return list[len(list)/2]
}

func processorTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // fails for wrong arguments only
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
