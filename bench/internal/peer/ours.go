package peer

import (
	"context"
	"crypto/rand"
	"path/filepath"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/kms"

	"github.com/kaizen-audit/kaizen-audit/bench/internal/measure"
	"github.com/kaizen-audit/kaizen-audit/bench/internal/workload"
)

// Ours is a trail: line, digest, tree, tiles and checkpoints.
func Ours(p *workload.Pool, mode Mode) measure.Contestant {
	durability := audit.Durable
	if mode == Written {
		durability = audit.Written
	}
	return measure.Contestant{Name: "kaizen-audit", Open: func(dir string) (measure.Recorder, error) {
		t, err := audit.Open(filepath.Join(dir, "log.jsonl"), &audit.Options{
			Durability: durability,
			StateDir:   filepath.Join(dir, "known"),
		})
		return &trail{t, p}, err
	}}
}

type trail struct {
	*audit.Trail
	pool *workload.Pool
}

func (r *trail) Record(n int) error {
	_, err := r.Trail.Record(context.Background(), r.pool.Event(n).Audit())
	return err
}

// Sealing is what a trail of ours seals.
type Sealing int

// Kinds of trails.
const (
	Plain     Sealing = iota // nothing
	Encrypted                // every line, and in it every field with a person's data
)

// Trail is Ours, durable, plain or encrypted, of runs of so many steps of one user
// each: a user who is new needs a key that is on disk before the line.
func Trail(name string, p *workload.Pool, what Sealing, steps int) measure.Contestant {
	return measure.Contestant{Name: name, Open: func(dir string) (measure.Recorder, error) {
		o := &audit.Options{StateDir: filepath.Join(dir, "known"), Encrypt: what == Encrypted}
		if o.Encrypt {
			key := make([]byte, 32)
			_, _ = rand.Read(key) // never fails
			k, err := kms.NewLocal(key)
			if err != nil {
				return nil, err
			}
			o.KEK = k
		}
		t, err := audit.Open(filepath.Join(dir, "log.jsonl"), o)
		return &runs{trail{t, p}, steps}, err
	}}
}

// runs records the pool's events as runs of one user each.
type runs struct {
	trail
	steps int
}

func (r *runs) Record(n int) error {
	ev := r.pool.Event(n).Audit()
	ev.Metadata = r.pool.Event(n / r.steps).Audit().Metadata
	_, err := r.Trail.Record(context.Background(), ev)
	return err
}
