package audit

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kaizen-audit/kaizen-audit/internal/tree"
)

// bigDay records n entries in one batch and seals them a day later.
func (c *timed) bigDay(n int) {
	c.t.Helper()
	events := make([]Event, n)
	for i := range events {
		events[i] = event("a", "x")
	}
	if _, err := c.RecordBatch(context.Background(), events); err != nil {
		c.t.Fatal(err)
	}
	c.set(c.at().Add(24 * time.Hour))
	if _, err := c.Rotate(context.Background()); err != nil {
		c.t.Fatal(err)
	}
}

// tiles are the files of tiles and bundles of level 0 that lie wholly before end, and
// the packed files.
func (c *timed) tiles(end int64) (whole []string, packed []string) {
	c.t.Helper()
	for n := range end / tree.TileWidth {
		for _, level := range []int{tree.Bundles, 0} {
			if _, err := os.Stat(filepath.Join(c.Dir(), tree.Path(level, n, tree.TileWidth))); err == nil {
				whole = append(whole, tree.Path(level, n, tree.TileWidth))
			} else if !errors.Is(err, fs.ErrNotExist) {
				c.t.Fatal(err)
			}
		}
	}
	packed, err := filepath.Glob(filepath.Join(c.Dir(), "tile", "packed", "*"))
	if err != nil {
		c.t.Fatal(err)
	}
	return whole, packed
}

// The tiles of what is pruned are packed; everything that was proven is proven still,
// and what is changed in a packed file is found.
func TestTilesOfWhatIsPrunedArePacked(t *testing.T) {
	ctx := context.Background()
	c := newTimed(t, Options{RetentionDays: 2})
	c.bigDay(700)
	old, err := os.ReadFile(filepath.Join(c.Dir(), "checkpoint"))
	if err != nil {
		t.Fatal(err)
	}
	c.bigDay(300)
	c.bigDay(600)
	c.days(2, "a")
	before := map[string][]byte{}
	all, _ := c.tiles(1000)
	for _, name := range all {
		if before[name], err = os.ReadFile(filepath.Join(c.Dir(), name)); err != nil {
			t.Fatal(err)
		}
	}
	if len(all) != 6 {
		t.Fatalf("%v", all)
	}
	c.mustPrune(3)
	pruned := c.intact()
	for again := range 2 {
		if whole, packed := c.tiles(pruned); len(whole) > 0 || len(packed) != 1 {
			t.Fatalf("%v %v", whole, packed)
		}
		// Proofs: of what remains, and that it extends what was.
		if _, err := c.ProveConsistency(ctx, old); err != nil {
			t.Error(err)
		}
		for index := pruned; index < c.signer.latest.Load().Size; index += 2 {
			if _, err := c.Prove(ctx, index); err != nil {
				t.Fatal(err)
			}
		}
		if again == 0 {
			c.reopen()
		}
	}
	c.intact()
	c.bigDay(400) // the tile that the next prune completes
	c.days(2, "a")
	c.mustPrune(3)
	pruned = c.intact()
	whole, packed := c.tiles(pruned)
	if len(whole) > 0 || len(packed) != 2 {
		t.Fatalf("%v %v", whole, packed)
	}

	// As a crash leaves it between the packed file and the last deletion.
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for name, data := range before {
		if err := os.WriteFile(filepath.Join(c.Dir(), name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(c.Dir(), "pruning"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c.open()
	if whole, _ := c.tiles(pruned); len(whole) > 0 {
		t.Errorf("after a crash %v", whole)
	}
	c.intact()

	// Changed, cut short and lost.
	good, err := os.ReadFile(packed[0])
	if err != nil {
		t.Fatal(err)
	}
	bad := slices.Clone(good)
	bad[300*32] ^= 1
	for problem, x := range map[string]struct {
		data  []byte
		file  string
		first int64
	}{
		"changed": {bad, "tile/packed/" + filepath.Base(packed[0]), 256}, "missing": {good[:400*32], "tile/entries/001", 256},
	} {
		if err := os.WriteFile(packed[0], x.data, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := c.Verify(ctx, nil)
		if err != nil || r.Status != "damaged" || r.Artefact != "bundle" || r.Problem != problem || r.File != x.file || *r.FirstBad != x.first || r.Exact {
			t.Errorf("%v %+v", err, r)
		}
	}
	if err := os.Remove(packed[0]); err != nil {
		t.Fatal(err)
	}
	if r, err := c.Verify(ctx, nil); err != nil || r.Status != "damaged" || r.Problem != "missing" || r.File != "tile/entries/000" {
		t.Errorf("%v %+v", err, r)
	}
	if err := os.WriteFile(packed[0], good, 0o600); err != nil {
		t.Fatal(err)
	}
	c.intact()
}

// A tile that can't be packed stays, is told, and what is pruned is pruned.
func TestPackingThatFailsIsToldAndTriedAgain(t *testing.T) {
	var warned []string
	o := Options{RetentionDays: 2, Warn: func(err error) { warned = append(warned, err.Error()) }}
	c := newTimed(t, o)
	c.bigDay(600)
	c.days(3, "a")
	name := filepath.Join(c.Dir(), tree.Path(0, 1, tree.TileWidth))
	good, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	bad := bytes.Clone(good)
	bad[0] ^= 1
	if err := os.WriteFile(name, bad, 0o600); err != nil {
		t.Fatal(err)
	}
	c.mustPrune(2)
	if _, packed := c.tiles(600); len(packed) > 0 || !slices.ContainsFunc(warned, func(s string) bool {
		return strings.Contains(s, "pack tiles: tile/entries/001 and tile/0/001 are not of the same lines")
	}) {
		t.Errorf("%v; packed %v", warned, packed)
	}
	if err := os.WriteFile(name, good, 0o600); err != nil {
		t.Fatal(err)
	}
	c.reopen()
	if whole, packed := c.tiles(600); len(whole) > 0 || len(packed) != 1 {
		t.Errorf("%v %v", whole, packed)
	}
	c.intact()
}
