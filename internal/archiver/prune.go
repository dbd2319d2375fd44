package archiver

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"time"

	"github.com/kaizen-audit/kaizen-audit/archive"
)

// Pruned is an archived segment that the trail has pruned.
type Pruned struct {
	First, Count, Stored int64
	Until                time.Time // its retention date; zero: none
	Held                 bool
}

// Prunable lists the archived segments of a trail that pruned says are, as far as their
// digests are archived too, without which the tree behind them could not be made. tails
// are the first indexes of the pieces of the tail that ever were.
func Prunable(ctx context.Context, store archive.Store, origin string, pruned func(first, count int64) bool) (list []Pruned, tails []int64, err error) {
	data, err := readObject(ctx, store, trailName, maxSmall)
	if err == nil {
		err = isOf(data, origin)
	}
	if err != nil {
		return nil, nil, err
	}
	counts := map[int64]int64{}
	err = store.List(ctx, packedDir, func(i archive.Info) error {
		if first, ok := firstIn(i.Name, packedDir, ""); ok && i.Size%sha256.Size == 0 {
			counts[first] = i.Size / sha256.Size
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	err = store.List(ctx, segmentsDir, func(i archive.Info) error {
		first, ok := firstIn(i.Name, segmentsDir, sealedSuffix)
		if ok && pruned(first, counts[first]) {
			list = append(list, Pruned{First: first, Count: counts[first], Stored: i.Size})
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	for n := range list {
		i, err := store.Head(ctx, segmentFile(list[n].First))
		if err != nil {
			return nil, nil, err
		}
		list[n].Until, list[n].Held = i.RetainUntil, i.Held
	}
	history, ok := store.(archive.History)
	if !ok || len(list) == 0 {
		return list, nil, nil // what was removed is gone
	}
	err = history.First(ctx, tailDir, func(i archive.Info, _ func(context.Context) (io.ReadCloser, error)) error {
		if first, ok := firstIn(i.Name, tailDir, plainSuffix); ok {
			tails = append(tails, first)
		}
		return nil
	})
	return list, tails, err
}

// RemovePruned removes the lines of a segment for good: the pieces of the tail that had
// them, then the segment itself, by which an interrupted removal is found again.
func RemovePruned(ctx context.Context, store archive.Store, first, count int64, tails []int64) error {
	i, err := store.Head(ctx, segmentFile(first))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if i.Held || time.Now().Before(i.RetainUntil) {
		return archive.ErrKept
	}
	for _, tail := range tails {
		if tail >= first && tail < first+count {
			if err := store.Expire(ctx, tailFile(tail)); err != nil {
				return err
			}
		}
	}
	return store.Expire(ctx, segmentFile(first))
}
