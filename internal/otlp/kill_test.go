package otlp

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	audit "github.com/kaizen-audit/kaizen-audit"
)

var crashRounds = flag.Int("crash.rounds", 25, "how often the intake is killed")

// killChild makes the test binary the intake that is killed; it is the log's
// path.
const killChild = "KAIZEN_TEST_OTLP_CHILD"

func TestMain(m *testing.M) {
	if path := os.Getenv(killChild); path != "" {
		if err := serveUntilKilled(path); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func serveUntilKilled(path string) error {
	trail, err := audit.Open(path, &audit.Options{SegmentBytes: 256 << 10, StateDir: filepath.Join(filepath.Dir(path), "state"), MustHold: true})
	if err != nil {
		return err
	}
	s, err := Listen("127.0.0.1:0", trail, nil)
	if err != nil {
		return err
	}
	fmt.Println("listening", s.Addr())
	return s.Serve(context.Background())
}

// TestCrashKilledIntakeLosesNothing: whatever was answered with success is there
// once, however often the intake is killed and everything is sent again.
func TestCrashKilledIntakeLosesNothing(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 0))
	rounds := *crashRounds
	if testing.Short() {
		rounds = min(rounds, 5)
	}
	t.Logf("seed %d, %d rounds", seed, rounds)
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	var mu sync.Mutex
	acknowledged := map[string]bool{}
	var waiting, done [][]byte // requests without an answer; some that have one
	next := 0
	for round := range rounds {
		cmd := exec.Command(os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), killChild+"="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		s := bufio.NewScanner(out)
		if !s.Scan() || !strings.HasPrefix(s.Text(), "listening ") {
			_ = cmd.Process.Kill()
			t.Fatalf("round %d: %q", round, s.Text())
		}
		url := "http://" + strings.TrimPrefix(s.Text(), "listening ") + "/v1/traces"
		kill := time.AfterFunc(time.Duration(5+rng.IntN(80))*time.Millisecond, func() { _ = cmd.Process.Signal(syscall.SIGKILL) })
		again := append(waiting, done...)
		waiting, done = nil, nil
		var senders sync.WaitGroup
		client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{}}
		for range 4 {
			senders.Go(func() {
				for {
					mu.Lock()
					var body []byte
					if len(again) > 0 {
						body, again = again[0], again[1:]
					} else {
						var spans []string
						for range 20 {
							next++
							spans = append(spans, jsonSpanText(next, ""))
						}
						body = jsonSpans(spans...)
					}
					mu.Unlock()
					r, err := client.Post(url, jsonType, bytes.NewReader(body))
					ok := err == nil && r.StatusCode == http.StatusOK
					if err == nil {
						_, readErr := io.Copy(io.Discard, r.Body)
						_ = r.Body.Close()
						ok = ok && readErr == nil
					}
					mu.Lock()
					if !ok {
						waiting = append(waiting, body)
						mu.Unlock()
						return
					}
					if len(done) < 20 {
						done = append(done, body)
					}
					for _, id := range spanIDs(body) {
						acknowledged[id] = true
					}
					mu.Unlock()
				}
			})
		}
		senders.Wait()
		waiting = append(waiting, again...)
		_ = cmd.Wait()
		kill.Stop()
		client.CloseIdleConnections()
	}
	if len(acknowledged) == 0 {
		t.Fatal("nothing was ever acknowledged")
	}
	trail, err := audit.Open(path, &audit.Options{StateDir: filepath.Join(filepath.Dir(path), "state")})
	if err != nil {
		t.Fatal(err)
	}
	times := map[string]int{}
	for e, err := range trail.Query(t.Context(), audit.Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		times[e.SpanID]++
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	for id := range acknowledged {
		if times[id] != 1 {
			t.Errorf("span %s was acknowledged and is there %d times", id, times[id])
		}
	}
	for id, n := range times {
		if n != 1 {
			t.Errorf("span %s is there %d times", id, n)
		}
	}
	t.Logf("%d spans acknowledged, %d there", len(acknowledged), len(times))
	report, err := audit.VerifyPath(context.Background(), path, nil)
	if err != nil || report.Status != "intact" {
		t.Errorf("verify: %+v, %v", report, err)
	}
}

func spanIDs(body []byte) (ids []string) {
	for _, part := range strings.Split(string(body), `"spanId":"`)[1:] {
		ids = append(ids, part[:16])
	}
	return ids
}
