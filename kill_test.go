package audit

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
)

var crashRounds = flag.Int("crash.rounds", 200, "how often the writer is killed")

// killChild makes the test binary the writer that is killed; it is the log's
// path. killMode is its durability.
const (
	killChild = "KAIZEN_TEST_KILL_CHILD"
	killMode  = "KAIZEN_TEST_KILL_MODE"
)

func init() {
	if path := os.Getenv(killChild); path != "" {
		mode := Durable
		if os.Getenv(killMode) == Written.String() {
			mode = Written
		}
		writeUntilKilled(path, mode)
	}
}

// writeUntilKilled records from so many goroutines that two batches are on their way
// to the ring at once, and prints each receipt once it has it.
func writeUntilKilled(path string, mode Durability) {
	t, err := Open(path, &Options{Durability: mode, SegmentBytes: 64 << 10, interval: 5 * time.Millisecond, ring: 64 << 10, ringAfter: 4})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for g := range 36 {
		wg.Go(func() {
			for i := 0; ; i++ {
				ev := event(fmt.Sprint("agent-", g), "step")
				r, err := t.Record(context.Background(), ev)
				mu.Lock()
				if err != nil {
					fmt.Println("error", err)
					os.Exit(1)
				}
				fmt.Printf("ack %d %s %x\n", r.Index, r.EventID, r.Digest)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
}

// A writer is killed again and again at random moments, seals included.
// Nothing that it acknowledged is lost or there twice.
func TestCrashKill(t *testing.T) {
	for mode, rounds := range map[Durability]int{Durable: *crashRounds, Written: *crashRounds / 8} {
		t.Run(mode.String(), func(t *testing.T) {
			if testing.Short() {
				rounds = min(rounds, 20)
			}
			killAgainAndAgain(t, mode, rounds)
		})
	}
}

func killAgainAndAgain(t *testing.T, mode Durability, rounds int) {
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d, %d rounds", seed, rounds)
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	h := &history{}
	window := 60 * time.Millisecond
	for round := range rounds {
		before := len(h.receipts)
		cmd := exec.Command(os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), killChild+"="+path, killMode+"="+mode.String())
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// From before it has opened the trail to well after, which is later on a
		// machine that is busy with other things.
		kill := time.AfterFunc(5*time.Millisecond+time.Duration(rng.Int64N(int64(window))), func() { _ = cmd.Process.Signal(syscall.SIGKILL) })
		s := bufio.NewScanner(out)
		for s.Scan() {
			line := s.Text()
			if strings.HasPrefix(line, "error") {
				t.Fatalf("round %d: %s", round, line)
			}
			var r Receipt
			var digest string
			if n, _ := fmt.Sscanf(line, "ack %d %s %s", &r.Index, &r.EventID, &digest); n != 3 || len(digest) != 64 {
				continue // torn by the kill
			}
			d, err := hex.DecodeString(digest)
			if err != nil {
				t.Fatal(err)
			}
			copy(r.Digest[:], d)
			h.receipts = append(h.receipts, r)
		}
		_ = cmd.Wait()
		kill.Stop()
		if len(h.receipts) == before {
			window = min(2*window, time.Second)
		} else {
			window = max(window/2, 60*time.Millisecond)
		}
	}
	trail, err := Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	h.saw(trail)
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	sealed := trail.journal.Segments()
	t.Logf("%d acknowledged, %d segments", len(h.receipts), len(sealed))
	if len(h.receipts) == 0 {
		t.Fatal("nothing was ever acknowledged")
	}
	checkWhole(t, durable.OS, trail.path, h)
	report, err := VerifyPath(context.Background(), path, nil)
	if err != nil || report.Status != "intact" {
		t.Fatalf("verify: %+v, %v", report, err)
	}
}

// tmpfs mounts a small file system; the test is skipped where that is not
// allowed.
func tmpfs(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size="+size, "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("a file system can't be mounted here: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if err := exec.Command("umount", dir).Run(); err != nil {
			t.Errorf("umount: %v", err)
		}
	})
	return dir
}

// A full disk is met before an acknowledgement, in every durability; when
// there is space again the trail goes on; nothing acknowledged is lost.
func TestFullDisk(t *testing.T) {
	for _, test := range []struct {
		name string
		o    Options
	}{
		{"durable", Options{Durability: Durable}},
		{"written", Options{Durability: Written}},
		{"queued", Options{Durability: Queued}},
		{"durable, ring", Options{Durability: Durable, ring: 64 << 10, ringAfter: 1}},
		{"written, ring", Options{Durability: Written, ring: 64 << 10, ringAfter: 1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := tmpfs(t, "2m")
			ballast := filepath.Join(dir, "ballast")
			if err := os.WriteFile(ballast, make([]byte, 512<<10), 0o600); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "audit.jsonl")
			o := test.o
			o.StateDir = t.TempDir()
			trail, err := Open(path, &o)
			if err != nil {
				t.Fatal(err)
			}
			h := &history{}
			if o.ring > 0 {
				if err := h.record(trail, 1); err != nil {
					t.Fatal(err)
				}
				if err := h.sign(trail); err != nil { // from here on there is a ring
					t.Fatal(err)
				}
				if _, err := os.Stat(filepath.Join(trail.dir, "ring")); err != nil {
					t.Fatal(err)
				}
			}
			for {
				if err = h.record(trail, 1); err != nil {
					break
				}
				if len(h.receipts) > 1e5 {
					t.Fatal("the disk never became full")
				}
			}
			if !errors.Is(err, ErrFull) {
				t.Fatalf("%d entries, then %v", len(h.receipts), err)
			}
			if err := os.Remove(ballast); err != nil {
				t.Fatal(err)
			}
			if err := h.record(trail, 10); err != nil {
				t.Fatalf("with space again: %v", err)
			}
			if err := trail.Close(); err != nil {
				t.Fatal(err)
			}
			checkWhole(t, durable.OS, trail.path, h)
			o = test.o
			o.StateDir = t.TempDir()
			trail, err = Open(path, &o)
			if err != nil {
				t.Fatal(err)
			}
			if err := trail.Close(); err != nil {
				t.Fatal(err)
			}
			checkWhole(t, durable.OS, trail.path, h)
		})
	}
}
