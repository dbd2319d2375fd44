// Memory appends many entries to one trail and prints the most memory that the
// process ever had resident:
//
//	go run ./memory [--entries 10000000] [--mode written|queued] [--writers 4] [--limit 150] [--dir DIR]
//
// It exits 1 when that is more than the limit. The process does nothing else;
// its workload is a fixed pool of some 4 MB, which counts too. The trail, about
// 2 GB at ten million entries, is removed at the end.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	audit "github.com/kaizen-audit/kaizen-audit"

	"github.com/kaizen-audit/kaizen-audit/bench/internal/measure"
	"github.com/kaizen-audit/kaizen-audit/bench/internal/workload"
)

func main() {
	entries := flag.Int("entries", 10_000_000, "how many entries are appended")
	mode := flag.String("mode", "written", "written or queued")
	writers := flag.Int("writers", 4, "goroutines that append")
	limit := flag.Int("limit", 150, "fail above this many MB resident (10^6 bytes)")
	dir := flag.String("dir", ".", "keep the trail below this directory")
	flag.Parse()
	if flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(*entries, *writers, *limit, *mode, *dir); err != nil {
		fmt.Fprintln(os.Stderr, "bench memory:", err)
		os.Exit(1)
	}
}

func run(entries, writers, limit int, mode, dir string) error {
	durabilities := map[string]audit.Durability{"written": audit.Written, "queued": audit.Queued}
	durability, ok := durabilities[mode]
	if !ok || entries < 1 || writers < 1 {
		return errors.New("flags: --mode is written or queued, --entries and --writers at least 1")
	}
	dir, err := os.MkdirTemp(dir, "bench-memory-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	log := filepath.Join(dir, "log.jsonl")
	opts := audit.Options{Durability: durability, StateDir: filepath.Join(dir, "known")}
	trail, err := audit.Open(log, &opts)
	if err != nil {
		return err
	}
	start := time.Now()
	if err := appendAll(trail, entries, writers); err != nil {
		return errors.Join(err, trail.Close())
	}
	appended := time.Since(start)
	if err := trail.Close(); err != nil {
		return err
	}
	closed := time.Since(start)
	peak, err := peakResident()
	if err != nil {
		return err
	}
	// What was queued is there once the trail is closed: ask it afterwards.
	opts.ReadOnly = true
	if trail, err = audit.Open(log, &opts); err != nil {
		return err
	}
	info, err := trail.Info(context.Background())
	if err := errors.Join(err, trail.Close()); err != nil {
		return err
	}
	megabytes := float64(peak) / 1e6
	fmt.Printf("%s entries, %s, %d writers: %.0f MB resident at most (limit %d MB); %d sealed segments; %s entries/s; closed after %.0f s\n",
		measure.Thousands(float64(info.Entries)), mode, writers, megabytes, limit, len(info.Segments),
		measure.Thousands(float64(entries)/appended.Seconds()), closed.Seconds())
	if info.Entries < int64(entries) {
		return fmt.Errorf("the trail has %d entries, %d were appended", info.Entries, entries)
	}
	if megabytes > float64(limit) {
		return fmt.Errorf("%.0f MB are more than the limit of %d MB", megabytes, limit)
	}
	return nil
}

func appendAll(trail *audit.Trail, entries, writers int) error {
	pool := workload.New(1)
	var (
		wg   sync.WaitGroup
		next atomic.Int64
		errs = make([]error, writers)
	)
	for w := range writers {
		wg.Go(func() {
			for {
				n := int(next.Add(1)) - 1
				if n >= entries {
					return
				}
				if _, err := trail.Record(context.Background(), pool.Event(n).Audit()); err != nil {
					errs[w] = err
					next.Store(int64(entries))
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// peakResident is the most memory the process had resident, in bytes: VmHWM of
// proc_pid_status(5).
func peakResident() (int64, error) {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kB, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			return kB * 1024, err
		}
	}
	return 0, errors.New("/proc/self/status: no line VmHWM")
}
