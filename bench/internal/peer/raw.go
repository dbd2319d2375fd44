package peer

import (
	"runtime"
	"sync"

	"github.com/kaizen-audit/kaizen-audit/bench/internal/measure"
	"github.com/kaizen-audit/kaizen-audit/bench/internal/workload"
)

// Raw writes ready-made lines, one write each: what the file system gives to
// one writer. It is for one writer.
func Raw(p *workload.Pool, mode Mode) measure.Contestant {
	return measure.Contestant{Name: "raw write", Open: func(dir string) (measure.Recorder, error) {
		f, err := create(dir, mode)
		return &raw{f, p}, err
	}}
}

type raw struct {
	file
	pool *workload.Pool
}

func (r *raw) Record(n int) error {
	if _, err := r.Write(r.pool.Line(n)); err != nil {
		return err
	}
	return r.settle()
}

// GroupCommit writes ready-made lines for many writers, one write and one
// fdatasync for all that wait: what the disk gives to many writers.
func GroupCommit(p *workload.Pool) measure.Contestant {
	return measure.Contestant{Name: "bare group commit", Open: func(dir string) (measure.Recorder, error) {
		f, err := create(dir, Durable)
		return &groupCommit{file: f, pool: p, next: newBatch()}, err
	}}
}

// groupCommit is led by the first writer of a batch: it waits for its turn,
// takes all lines that came meanwhile and commits them.
type groupCommit struct {
	file file
	pool *workload.Pool

	turn sync.Mutex // held by the leader that commits
	mu   sync.Mutex // guards next and its lines
	next *batch
	free []byte // lines of the batch before, to be used again; under turn
}

type batch struct {
	lines []byte
	n     int
	done  chan struct{} // closed when the lines are on disk
	err   error
}

func newBatch() *batch { return &batch{done: make(chan struct{})} }

func (g *groupCommit) Record(n int) error {
	line := g.pool.Line(n)
	g.mu.Lock()
	b := g.next
	b.lines = append(b.lines, line...)
	b.n++
	leads := b.n == 1
	g.mu.Unlock()
	if leads {
		g.lead(b)
	} else {
		<-b.done
	}
	return b.err
}

func (g *groupCommit) lead(b *batch) {
	g.turn.Lock()
	// Whoever was woken by the batch before is about to come: let them, as long
	// as they do. Without it batches are half as large, and the rate a fifth
	// less.
	g.mu.Lock()
	for n := 0; n < b.n; {
		n = b.n
		g.mu.Unlock()
		runtime.Gosched()
		g.mu.Lock()
	}
	g.next = newBatch()
	g.next.lines = g.free[:0]
	g.mu.Unlock()
	if _, b.err = g.file.Write(b.lines); b.err == nil {
		b.err = g.file.settle()
	}
	g.free = b.lines
	g.turn.Unlock()
	close(b.done)
}

func (g *groupCommit) Close() error { return g.file.Close() }
