// Package measure times a recorder and lays the results out as one table and
// as JSON.
//
// A machine's disk and processor change from second to second, so contestants
// of one comparison take turns in short rounds, every other round in reverse
// order, and a ratio is the median over the rounds of the two values of one
// round, not the quotient of two values far apart in time.
package measure

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Recorder records events. Record(n) records event n of the workload, or batch
// n, and returns when it is recorded as the comparison asks. It is called by
// several goroutines at once if the comparison has several writers: each has
// the numbers that leave the same remainder by that of the writers.
type Recorder interface {
	Record(n int) error
	Close() error
}

// Contestant is one way to record. Open makes a recorder in an empty
// directory.
type Contestant struct {
	Name string
	Open func(dir string) (Recorder, error)
}

// Comparison is one row group of the table: contestants under the same terms.
type Comparison struct {
	Name        string
	Writers     int // goroutines that record at the same time
	Batch       int // entries of one Record; 0 means 1
	Contestants []Contestant
	// Baseline names the contestant that the ratios are to.
	Baseline string
	// ByRate says that the ratio is that of the rates; otherwise that of
	// the p95.
	ByRate bool
	Rounds int
	// Slice is how long one contestant records in one round.
	Slice time.Duration
	// MaxEntries ends a slice early; 0 means no limit.
	MaxEntries int
	// WarmUp is how many entries are recorded untimed after opening.
	WarmUp int
}

// Row is what one contestant did, over all its rounds.
type Row struct {
	Comparison string  `json:"comparison"`
	Name       string  `json:"name"`
	Writers    int     `json:"writers"`
	Rounds     int     `json:"rounds"`
	Entries    int     `json:"entries"`
	P50        float64 `json:"p50_us"`
	P95        float64 `json:"p95_us"`
	P99        float64 `json:"p99_us"`
	Rate       float64 `json:"entries_per_s"`
	// Bytes are those that lie on disk after Close, all files together.
	Bytes  float64 `json:"bytes_per_entry"`
	Allocs float64 `json:"allocs_per_entry"`
	// CPU is the time of all threads, user and system, up to the end of Close:
	// work put off counts, and so do processes that the recorder started.
	CPU      float64 `json:"cpu_us_per_entry"`
	Baseline string  `json:"baseline"`
	RatioOf  string  `json:"ratio_of"` // "rate" or "p95"
	// Ratio is the median over the rounds of this contestant's value through
	// the baseline's in the same round; RatioLow and RatioHigh are the
	// extremes.
	Ratio     float64 `json:"ratio"`
	RatioLow  float64 `json:"ratio_low"`
	RatioHigh float64 `json:"ratio_high"`
}

// slice is one contestant in one round.
type slice struct {
	latencies []time.Duration // sorted
	elapsed   time.Duration
	bytes     float64 // of the timed entries; those of warming up are alike
	allocs    uint64
	cpu       time.Duration
}

func (s slice) rate() float64 { return float64(len(s.latencies)) / s.elapsed.Seconds() }

// Run measures a comparison below dir. What contestants made stays there for
// the caller to remove at the end: on ext4 without a journal, making a file is
// many times as slow for five minutes after others near it were removed, and
// no trail removes its files.
func Run(c Comparison, dir string) ([]Row, error) {
	slices_ := make([][]slice, len(c.Contestants)) // by contestant, then round
	for round := range c.Rounds {
		for i := range c.Contestants {
			if round%2 == 1 {
				i = len(c.Contestants) - 1 - i
			}
			s, err := c.measure(c.Contestants[i], dir)
			if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", c.Name, c.Contestants[i].Name, err)
			}
			slices_[i] = append(slices_[i], s)
		}
	}
	base := slices.IndexFunc(c.Contestants, func(x Contestant) bool { return x.Name == c.Baseline })
	if base < 0 {
		return nil, fmt.Errorf("%s: baseline %s is no contestant", c.Name, c.Baseline)
	}
	rows := make([]Row, len(c.Contestants))
	for i, x := range c.Contestants {
		rows[i] = c.row(x.Name, slices_[i], slices_[base])
	}
	return rows, nil
}

// measure opens a contestant, records for one slice and closes it. Each slice
// has a recorder of its own, so that what one left for later does not burden
// the next.
func (c Comparison) measure(x Contestant, dir string) (s slice, err error) {
	dir, err = os.MkdirTemp(dir, "slice-")
	if err != nil {
		return s, err
	}
	r, err := x.Open(dir)
	if err != nil {
		return s, err
	}
	defer func() {
		if r != nil {
			r.Close()
		}
	}()
	sizeBefore, err := size(dir)
	if err != nil {
		return s, err
	}
	for n := range c.WarmUp {
		if err := r.Record(n); err != nil {
			return s, err
		}
	}
	byWriter := make([][]time.Duration, c.Writers)
	room := 1 << 21 / c.Writers // more than a writer records in a slice; beyond it grows
	if c.MaxEntries > 0 {
		room = c.MaxEntries/c.Writers + c.Writers
	}
	for i := range byWriter {
		byWriter[i] = make([]time.Duration, 0, room)
	}
	runtime.GC()

	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	ownBefore, othersBefore := cpuTime()
	start := time.Now()
	if err := c.record(r, byWriter, start.Add(c.Slice)); err != nil {
		return s, err
	}
	s.elapsed = time.Since(start)
	runtime.ReadMemStats(&after)
	s.allocs = after.Mallocs - before.Mallocs
	err = r.Close()
	r = nil
	if err != nil {
		return s, fmt.Errorf("close: %w", err)
	}
	own, others := cpuTime()
	sizeAfter, err := size(dir)
	if err != nil {
		return s, err
	}
	s.latencies = slices.Concat(byWriter...)
	slices.Sort(s.latencies)
	timed := float64(len(s.latencies)) / float64(len(s.latencies)+c.WarmUp)
	s.bytes = float64(sizeAfter-sizeBefore) * timed
	// The time of other processes is known at their end, warming up and all.
	s.cpu = own - ownBefore + time.Duration(float64(others-othersBefore)*timed)
	// What lies unsynced in the page cache would be written during the next
	// contestant's slice.
	return s, syncAll(dir)
}

// record lets all writers record until the deadline, each one entry after the
// other, and keeps how long each took.
func (c Comparison) record(r Recorder, latencies [][]time.Duration, deadline time.Time) error {
	if c.Writers == 1 {
		// No shared counter: it would cost a tenth of a fast peer's entry.
		return recordOne(r, c.WarmUp, 1, c.MaxEntries, deadline, nil, &latencies[0])
	}
	var (
		wg   sync.WaitGroup
		stop atomic.Bool
		errs = make([]error, c.Writers)
	)
	for w := range c.Writers {
		wg.Go(func() {
			errs[w] = recordOne(r, c.WarmUp+w, c.Writers, c.MaxEntries/c.Writers, deadline, &stop, &latencies[w])
			if errs[w] != nil {
				stop.Store(true)
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func recordOne(r Recorder, n, step, limit int, deadline time.Time, stop *atomic.Bool, latencies *[]time.Duration) error {
	for t := time.Now(); t.Before(deadline); n += step {
		if stop != nil && stop.Load() || limit > 0 && len(*latencies) == limit {
			return nil
		}
		if err := r.Record(n); err != nil {
			return err
		}
		now := time.Now()
		*latencies = append(*latencies, now.Sub(t))
		t = now
	}
	return nil
}

func (c Comparison) row(name string, own, base []slice) Row {
	row := Row{Comparison: c.Name, Name: name, Writers: c.Writers, Rounds: c.Rounds, Baseline: c.Baseline, RatioOf: "p95"}
	if c.ByRate {
		row.RatioOf = "rate"
	}
	var (
		all     []time.Duration
		elapsed time.Duration
		cpu     time.Duration
		bytes   float64
		allocs  uint64
		ratios  []float64
	)
	for i, s := range own {
		all = append(all, s.latencies...)
		elapsed += s.elapsed
		cpu += s.cpu
		bytes += s.bytes
		allocs += s.allocs
		if c.ByRate {
			ratios = append(ratios, s.rate()/base[i].rate())
		} else {
			ratios = append(ratios, percentile(s.latencies, 95)/percentile(base[i].latencies, 95))
		}
	}
	slices.Sort(all)
	slices.Sort(ratios)
	row.Entries = len(all) * max(1, c.Batch)
	n := float64(row.Entries)
	row.P50, row.P95, row.P99 = percentile(all, 50), percentile(all, 95), percentile(all, 99)
	row.Rate = n / elapsed.Seconds()
	row.Bytes = bytes / n
	row.Allocs = float64(allocs) / n
	row.CPU = micros(cpu) / n
	row.Ratio, row.RatioLow, row.RatioHigh = median(ratios), ratios[0], ratios[len(ratios)-1]
	return row
}

// percentile gives the p-th percentile of sorted latencies in µs (nearest
// rank).
func percentile(sorted []time.Duration, p int) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return micros(sorted[max(0, (len(sorted)*p+99)/100-1)])
}

func median(sorted []float64) float64 {
	n := len(sorted)
	if n%2 == 1 {
		return sorted[n/2]
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// cpuTime is user and system time so far, of the process and of those that it
// started and that have ended.
func cpuTime() (own, others time.Duration) {
	of := func(who int) time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(who, &u); err != nil {
			panic(err) // cannot fail with these arguments
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	return of(syscall.RUSAGE_SELF), of(syscall.RUSAGE_CHILDREN)
}

// size is that of all files below dir in bytes.
func size(dir string) (total int64, err error) {
	err = walkFiles(dir, func(path string, info os.FileInfo) error {
		total += info.Size()
		return nil
	})
	return total, err
}

func syncAll(dir string) error {
	return walkFiles(dir, func(path string, _ os.FileInfo) error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		return f.Sync()
	})
}

func walkFiles(dir string, do func(path string, info os.FileInfo) error) error {
	return filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil || !info.Mode().IsRegular() {
			return err
		}
		return do(path, info)
	})
}
