package peer

import (
	"context"
	"crypto/rand"
	"time"

	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/storage/posix"
	"golang.org/x/mod/sumdb/note"
	"k8s.io/klog/v2"

	"github.com/kaizen-audit/kaizen-audit/bench/internal/measure"
	"github.com/kaizen-audit/kaizen-audit/bench/internal/workload"
)

// Tessera is the POSIX driver of transparency-dev/tessera: the other Merkle
// log in files. An entry is recorded when it is integrated in the tree, as the
// driver does before it gives the index.
func Tessera(p *workload.Pool) measure.Contestant {
	return measure.Contestant{Name: "tessera (POSIX)", Open: func(dir string) (measure.Recorder, error) {
		klog.LogToStderr(false)
		key, _, err := note.GenerateKey(rand.Reader, "bench.invalid/tessera")
		if err != nil {
			return nil, err
		}
		signer, err := note.NewSigner(key)
		if err != nil {
			return nil, err
		}
		ctx, cancel := context.WithCancel(context.Background())
		driver, err := posix.New(ctx, posix.Config{Path: dir})
		if err != nil {
			cancel()
			return nil, err
		}
		opts := tessera.NewAppendOptions().
			WithCheckpointSigner(signer).
			WithCheckpointInterval(time.Second).
			WithBatching(1, time.Millisecond) // one writer waits for each entry: nobody else will come
		appender, shutdown, _, err := tessera.NewAppender(ctx, driver, opts)
		if err != nil {
			cancel()
			return nil, err
		}
		return &tesseraLog{appender, shutdown, ctx, cancel, p}, nil
	}}
}

type tesseraLog struct {
	appender *tessera.Appender
	shutdown func(context.Context) error
	ctx      context.Context
	cancel   context.CancelFunc
	pool     *workload.Pool
}

func (r *tesseraLog) Record(n int) error {
	value, err := marshal(r.pool, n)
	if err != nil {
		return err
	}
	_, err = r.appender.Add(r.ctx, tessera.NewEntry(value))()
	return err
}

func (r *tesseraLog) Close() error {
	defer r.cancel()
	ctx, cancel := context.WithTimeout(r.ctx, 10*time.Second)
	defer cancel()
	return r.shutdown(ctx)
}
