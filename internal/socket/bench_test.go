package socket_test

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kaizen-audit/kaizen-audit/internal/socket"
)

// BenchmarkMemory is the transport alone: nothing is written. One operation is
// one event.
func BenchmarkMemory(b *testing.B) {
	h := newMemoryHolder()
	h.keep = false
	benchServed(b, serve(b, h))
}

func benchServed(b *testing.B, s served) {
	for _, clients := range []int{1, 64} {
		b.Run(fmt.Sprintf("single/clients=%d", clients), func(b *testing.B) { benchClients(b, s, clients, 1, 1) })
	}
	b.Run("single/clients=1/callers=64", func(b *testing.B) { benchClients(b, s, 1, 64, 1) })
	for _, clients := range []int{1, 4, 64} {
		b.Run(fmt.Sprintf("batch=500/clients=%d", clients), func(b *testing.B) { benchClients(b, s, clients, 1, 500) })
	}
}

// benchClients records b.N events from clients with a connection and some
// callers each.
func benchClients(b *testing.B, s served, clients, callers, batch int) {
	ctx := b.Context()
	all := make([]*socket.Client, clients)
	for i := range all {
		c, err := socket.Dial(ctx, s.dir, "")
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		all[i] = c
	}
	b.ReportAllocs()
	b.ResetTimer()
	rounds := b.N/(clients*callers*batch) + 1
	run := strconv.FormatInt(time.Now().UnixNano(), 36)
	start, used := time.Now(), cpuTime(b)
	var wg sync.WaitGroup
	for i, c := range all {
		for k := range callers {
			wg.Go(func() {
				lines := make([][]byte, batch)
				for round := range rounds {
					for n := range lines {
						lines[n] = appendEvent(lines[n][:0], run, i, k, round, n)
					}
					if batch == 1 {
						if _, err := c.Record(ctx, lines[0]); err != nil {
							b.Error(err)
							return
						}
						continue
					}
					for _, res := range c.RecordBatch(ctx, lines) {
						if res.Err != nil {
							b.Error(res.Err)
							return
						}
					}
				}
			})
		}
	}
	wg.Wait()
	n := float64(rounds * clients * callers * batch)
	b.ReportMetric(n/time.Since(start).Seconds(), "events/s")
	b.ReportMetric(float64(cpuTime(b)-used)/n, "cpu-ns/event")
}

// cpuTime is what the process has used of the cores, both ends of the socket
// and the system calls included: unlike events/s it hardly depends on what
// else the machine does.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

var eventHead, eventTail = func() (string, string) {
	e := string(event(""))
	return e[:len(e)-2], e[len(e)-2:]
}()

// noKeys makes appendEvent leave out the key; benchmarks do not run at once.
var noKeys bool

var eventWithoutKey = func() string {
	e, _, _ := strings.Cut(eventHead, `,"idempotency_key"`)
	return e + "}"
}()

// appendEvent is event with a key of its own, without allocation.
func appendEvent(dst []byte, run string, parts ...int) []byte {
	if noKeys {
		return append(dst, eventWithoutKey...)
	}
	dst = append(append(dst, eventHead...), run...)
	for _, p := range parts {
		dst = strconv.AppendInt(append(dst, '.'), int64(p), 10)
	}
	return append(dst, eventTail...)
}
