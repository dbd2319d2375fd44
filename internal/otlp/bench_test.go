package otlp

import (
	"bytes"
	"io"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/internal/otlp/load"
)

// batch is what SDKs send at once (max_export_batch_size of the batch processor).
const batch = 512

// BenchmarkIntake: spans over HTTP, each on disk before the answer; the senders
// are in this process too.
func BenchmarkIntake(b *testing.B) {
	const senders = 8
	trail, err := audit.Open(filepath.Join(b.TempDir(), "audit.jsonl"), &audit.Options{StateDir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer trail.Close()
	s, err := Listen("127.0.0.1:0", trail, nil)
	if err != nil {
		b.Fatal(err)
	}
	go func() { _ = s.Serve(b.Context()) }()
	url := "http://" + s.Addr().String() + "/v1/traces"
	first := load.New(batch)
	b.ReportAllocs()
	b.ResetTimer()
	var left atomic.Int64
	left.Store(int64((b.N + batch - 1) / batch))
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: senders}}
	var wg sync.WaitGroup
	for range senders {
		l := first.Copy()
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				r, err := client.Post(url, protobufType, bytes.NewReader(l.Body()))
				if err != nil {
					b.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, r.Body)
				_ = r.Body.Close()
				if r.StatusCode != http.StatusOK {
					b.Errorf("%d", r.StatusCode)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(s.Counts().Spans)/b.Elapsed().Seconds(), "spans/s")
	client.CloseIdleConnections()
}

// BenchmarkMapping: reading and mapping alone, per span.
func BenchmarkMapping(b *testing.B) {
	body := load.New(batch).Body()
	b.SetBytes(int64(len(body) / batch))
	b.ReportAllocs()
	for i := 0; i < b.N; i += batch {
		d := &decoder{limits: DefaultLimits}
		if err := d.protobuf(body, false); err != nil {
			b.Fatal(err)
		}
		for i := range d.spans {
			ev := d.spans[i].operation().Event()
			ev.IdempotencyKey = d.spans[i].key()
		}
	}
}
