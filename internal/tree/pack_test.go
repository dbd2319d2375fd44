package tree

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
)

// stored is a store of size entries, and every full tile of level 0 and bundle as it
// was written.
func stored(t *testing.T, fsys durable.FS, size int64) (*Store, string, map[tileID][]byte) {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "tree") // where syncing costs nothing
	if err != nil {
		dir = t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s, b := NewStore(fsys, dir), NewBuilder()
	for i := range size {
		b.Append(sha256.Sum256(fmt.Appendf(nil, "line %d", i)))
	}
	if err := NewStore(durable.OS, dir).Flush(b.Snapshot()); err != nil {
		t.Fatal(err)
	}
	was := map[tileID][]byte{}
	for n := range size / TileWidth {
		for _, level := range []int{Bundles, 0} {
			data, err := s.Tile(level, n, TileWidth)
			if err != nil {
				t.Fatal(err)
			}
			was[tileID{level, n}] = data
		}
	}
	return s, dir, was
}

// same asserts that every tile is read as it was written, whole and in part.
func same(t *testing.T, s *Store, was map[tileID][]byte) {
	t.Helper()
	for id, want := range was {
		if len(was) > 100 && id.n > 4 && id.n%100 > 3 {
			continue // a sample of many
		}
		got, err := s.Tile(id.level, id.n, TileWidth)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("level %d, tile %d: %v", id.level, id.n, err)
		}
		each := len(want) / TileWidth
		if part, err := s.Tile(id.level, id.n, 7); err != nil || !bytes.Equal(part, want[:7*each]) {
			t.Fatalf("level %d, tile %d, a part: %v", id.level, id.n, err)
		}
	}
}

// files counts the full tiles of level 0 and the bundles that are files of their own.
func files(t *testing.T, dir string, tiles int64) (count int) {
	t.Helper()
	for n := range tiles {
		for _, level := range []int{Bundles, 0} {
			if _, err := os.Stat(filepath.Join(dir, Path(level, n, TileWidth))); err == nil {
				count++
			} else if !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
		}
	}
	return count
}

func TestPackedTilesAreReadAsTheyWere(t *testing.T) {
	const tiles = 1010
	s, dir, was := stored(t, durable.OS, tiles*TileWidth+5)
	for _, step := range []struct {
		first, end int64
		left       int
	}{
		{100, 255, 2 * tiles},                              // no tile lies in it as a whole
		{0, 700, 2*tiles - 4},                              // two do
		{0, 700, 2*tiles - 4},                              // and are packed
		{500 * TileWidth, 503*TileWidth + 9, 2*tiles - 10}, // a hold kept what is before
		{0, tiles * TileWidth, 0},
	} {
		if err := s.Pack(step.first, step.end); err != nil {
			t.Fatal(err)
		}
		if got := files(t, dir, tiles); got != step.left {
			t.Fatalf("after %+v %d files", step, got)
		}
		same(t, s, was)
	}
	packed, err := os.ReadDir(filepath.Join(dir, packedDir))
	if err != nil || len(packed) != 4 { // 0, 512, 128000, 128768
		t.Errorf("%d packed files, %v", len(packed), err)
	}
	// Groups that are past and empty are gone, the one that is written to stays.
	for group, want := range map[string]bool{"000": false, "001": true} {
		for _, level := range []string{"0", "entries"} {
			_, err := os.Stat(filepath.Join(dir, "tile", level, "x"+group))
			if (err == nil) != want {
				t.Errorf("tile/%s/x%s: %v", level, group, err)
			}
		}
	}
	if _, err := s.Tile(0, tiles, TileWidth); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a tile that never was: %v", err)
	}
	if _, err := s.Tile(1, 100, TileWidth); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a tile that never was: %v", err)
	}
}

// broken fails the nth change of a file, and each after it: the process was killed there.
type broken struct {
	durable.FS
	left int
}

var errBroken = errors.New("killed here")

func (b *broken) may() error {
	if b.left--; b.left < 0 {
		return errBroken
	}
	return nil
}

func (b *broken) OpenFile(name string, flag int, perm fs.FileMode) (durable.File, error) {
	if flag != os.O_RDONLY {
		if err := b.may(); err != nil {
			return nil, err
		}
	}
	f, err := b.FS.OpenFile(name, flag, perm)
	return brokenFile{f, b}, err
}

func (b *broken) Rename(from, to string) error {
	if err := b.may(); err != nil {
		return err
	}
	return b.FS.Rename(from, to)
}

func (b *broken) Remove(name string) error {
	if err := b.may(); err != nil {
		return err
	}
	return b.FS.Remove(name)
}

func (b *broken) SyncDir(name string) error {
	if err := b.may(); err != nil {
		return err
	}
	return b.FS.SyncDir(name)
}

type brokenFile struct {
	durable.File
	b *broken
}

func (f brokenFile) Write(p []byte) (int, error) {
	if err := f.b.may(); err != nil {
		n, _ := f.File.Write(p[:len(p)/2]) // torn
		return n, err
	}
	return f.File.Write(p)
}

// Wherever it is killed, every tile can be read, and what was begun can be completed.
func TestPackingIsKilledAnywhere(t *testing.T) {
	const tiles = 6
	for step := 0; ; step++ {
		b := &broken{durable.OS, step}
		s, dir, was := stored(t, b, tiles*TileWidth+1)
		err := s.Pack(TileWidth, 5*TileWidth)
		same(t, NewStore(durable.OS, dir), was)
		again := NewStore(durable.OS, dir)
		if err := errors.Join(again.Pack(TileWidth, 5*TileWidth), again.Sweep()); err != nil {
			t.Fatalf("killed at %d: %v", step, err)
		}
		same(t, again, was)
		if left := files(t, dir, tiles); left != 4 {
			t.Fatalf("killed at %d: %d files are left", step, left)
		}
		if err == nil {
			if step < 12 {
				t.Fatalf("only %d steps", step)
			}
			return
		}
		if !errors.Is(err, errBroken) {
			t.Fatalf("killed at %d: %v", step, err)
		}
	}
}

// What does not agree is neither packed nor removed.
func TestNothingWrongIsPacked(t *testing.T) {
	flip := func(t *testing.T, name string) {
		t.Helper()
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		data[40] ^= 1
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, damage := range map[string]func(t *testing.T, dir string){
		"a bundle": func(t *testing.T, dir string) { flip(t, filepath.Join(dir, Path(Bundles, 1, TileWidth))) },
		"a tile":   func(t *testing.T, dir string) { flip(t, filepath.Join(dir, Path(0, 1, TileWidth))) },
		"no tile": func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, Path(0, 1, TileWidth))); err != nil {
				t.Fatal(err)
			}
		},
	} {
		s, dir, _ := stored(t, durable.OS, 3*TileWidth)
		damage(t, dir)
		before := files(t, dir, 3)
		if err := s.Pack(0, 3*TileWidth); err == nil {
			t.Errorf("%s is packed", name)
		}
		if left := files(t, dir, 3); left != before {
			t.Errorf("%s: %d files are left of %d", name, left, before)
		}
		if list, err := s.packed(); err != nil || len(list) > 0 {
			t.Errorf("%s: %v, %v", name, list, err)
		}
	}
	// A packed file that was changed while tiles are there is found before they go.
	s, dir, was := stored(t, durable.OS, 3*TileWidth)
	if err := s.Pack(0, 3*TileWidth); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, Path(0, 1, TileWidth)), was[tileID{0, 1}], 0o600); err != nil {
		t.Fatal(err)
	}
	flip(t, filepath.Join(dir, packedDir, fmt.Sprintf(packedName, 0)))
	if err := s.Sweep(); err != nil { // the flipped digest is that of tile 0
		t.Errorf("%v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, Path(0, 0, TileWidth)), was[tileID{0, 0}], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Sweep(); err == nil || files(t, dir, 3) != 1 {
		t.Errorf("%v, %d files", err, files(t, dir, 3))
	}
}

func FuzzPacked(f *testing.F) {
	f.Add("00000000000000000000", []byte{}, int64(0))
	f.Add("00000000000000000512", bytes.Repeat([]byte{7}, TileWidth*sha256.Size), int64(2))
	f.Add("00000000000000000100", bytes.Repeat([]byte{7}, 3*TileWidth*sha256.Size+5), int64(1))
	f.Add("9223372036854775807", []byte("x"), int64(1)<<54)
	f.Add("00009223372036854775807.tmp", []byte("x"), int64(-1))
	f.Fuzz(func(t *testing.T, name string, data []byte, n int64) {
		first, ok := parsePackedName(name)
		if ok && fmt.Sprintf(packedName, first) != name {
			t.Fatalf("%q is read as %d", name, first)
		}
		if !ok || n < 0 || n > 1<<40 {
			return
		}
		dir := t.TempDir()
		if err := errors.Join(os.MkdirAll(filepath.Join(dir, packedDir), 0o700), os.WriteFile(filepath.Join(dir, packedDir, name), data, 0o600)); err != nil {
			t.Fatal(err)
		}
		s := NewStore(durable.OS, dir)
		bundle, err := s.Tile(Bundles, n, TileWidth)
		if at := (n*TileWidth - first) * sha256.Size; at >= 0 && at+TileWidth*sha256.Size <= int64(len(data)) {
			if err != nil || !bytes.Equal(bundle, unpacked(Bundles, data[at:at+TileWidth*sha256.Size])) {
				t.Fatalf("tile %d: %v", n, err)
			}
		} else if !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("tile %d: %v", n, err)
		}
	})
}
