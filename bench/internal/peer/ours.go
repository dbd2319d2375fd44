package peer

import (
	"context"
	"path/filepath"

	audit "github.com/kaizen-audit/kaizen-audit"

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
