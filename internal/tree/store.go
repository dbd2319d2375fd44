package tree

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
)

// Store keeps tiles, bundles and checkpoints below a trail's directory.
type Store struct {
	fs   durable.FS
	dir  string
	made map[string]bool // directories known to be there and durable
	// partial has the tiles that may have partial files on disk.
	partial map[tileID]bool
}

type tileID struct {
	level int
	n     int64
}

// NewStore is the store below dir, which must be there.
func NewStore(fsys durable.FS, dir string) *Store {
	return &Store{fs: fsys, dir: dir, made: map[string]bool{dir: true}, partial: map[tileID]bool{}}
}

func (s *Store) path(name string) string { return filepath.Join(s.dir, filepath.FromSlash(name)) }

// atOnce is how many files are open while a flush writes them: synced together
// they share the file system's commits.
const atOnce = 128

// Flush makes the tiles and bundles of a snapshot durable. It may be called
// again after an error: files are written anew.
func (s *Store) Flush(snap Snapshot) error {
	tiles := append(snap.full[:len(snap.full):len(snap.full)], snap.part...)
	dirs := map[string]bool{}
	for len(tiles) > 0 {
		group := tiles[:min(atOnce, len(tiles))]
		if err := s.write(group, dirs); err != nil {
			return fmt.Errorf("write tiles: %w", err)
		}
		tiles = tiles[len(group):]
	}
	for _, dir := range slices.Sorted(maps.Keys(dirs)) {
		if err := s.fs.SyncDir(dir); err != nil {
			return fmt.Errorf("write tiles: %w", err)
		}
	}
	return nil
}

func (t *fullTile) width() int {
	if t.level == Bundles {
		return len(t.data) / entryBytes
	}
	return len(t.data) / sha256.Size
}

func (s *Store) write(group []fullTile, dirs map[string]bool) (err error) {
	var open []durable.File
	defer func() {
		for _, f := range open {
			err = errors.Join(err, f.Close())
		}
	}()
	for i := range group {
		t := &group[i]
		width := t.width()
		if width < TileWidth {
			s.partial[tileID{t.level, t.n}] = true
		}
		name := s.path(Path(t.level, t.n, width))
		dir := filepath.Dir(name)
		if err := s.mkdir(dir); err != nil {
			return err
		}
		dirs[dir] = true
		f, err := s.fs.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, fs.ErrExist) {
			// A checkpoint may need the one that is there: it is replaced as
			// a whole, never written over.
			if err := durable.WriteFile(s.fs, name, t.data, 0o600); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		open = append(open, f)
		if _, err := f.Write(t.data); err != nil {
			return err
		}
	}
	return durable.SyncAll(open)
}

func (s *Store) mkdir(dir string) error {
	if s.made[dir] {
		return nil
	}
	if err := durable.MkdirAll(s.fs, dir, 0o700); err != nil {
		return err
	}
	s.made[dir] = true
	return nil
}

// Tidy removes partial files whose full tile is there, given that a durable
// checkpoint covers size entries. Nothing depends on it: an error means that
// a few small files stay until the next time.
func (s *Store) Tidy(size int64) error {
	var errs []error
	for id := range s.partial {
		above := tileHeight
		if id.level > 0 {
			above *= id.level + 1
		}
		if size>>above <= id.n {
			continue
		}
		if err := s.removePartial(filepath.Dir(s.path(Path(id.level, id.n, 1)))); err != nil {
			errs = append(errs, err)
			continue
		}
		delete(s.partial, id)
	}
	return errors.Join(errs...)
}

func (s *Store) removePartial(dir string) error {
	files, err := s.fs.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := s.fs.Remove(filepath.Join(dir, f.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	delete(s.made, dir)
	return s.fs.Remove(dir)
}

// FindPartial looks for partial files that a crash left behind, so that Tidy
// removes them. It lists every tile directory.
func (s *Store) FindPartial() error {
	levels, err := s.fs.ReadDir(s.path("tile"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, l := range levels {
		level := Bundles
		if l.Name() != "entries" {
			if level, err = strconv.Atoi(l.Name()); err != nil || level < 0 {
				continue
			}
		}
		if err := s.findPartial(s.path("tile/"+l.Name()), level, 0); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) findPartial(dir string, level int, prefix int64) error {
	files, err := s.fs.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		name, isPartial := strings.CutSuffix(f.Name(), ".p")
		name, isGroup := strings.CutPrefix(name, "x")
		n, err := strconv.ParseInt(name, 10, 64)
		if err != nil || n < 0 || n > 999 || !f.IsDir() {
			continue
		}
		switch n += prefix * 1000; {
		case isGroup:
			if err := s.findPartial(filepath.Join(dir, f.Name()), level, n); err != nil {
				return err
			}
		case isPartial:
			s.partial[tileID{level, n}] = true
		}
	}
	return nil
}

// Load gives the builder of the first size leaves from the tiles. That they
// are the right ones is for the caller to check: by the root.
func (s *Store) Load(size int64) (*Builder, error) {
	b := NewBuilder()
	b.size = size
	b.levels = b.levels[:0]
	for level := 0; level == 0 || size>>(tileHeight*level) > 0; level++ {
		in := size >> (tileHeight * level)
		width, n := int(in%TileWidth), in/TileWidth
		var hashes []Hash
		if width > 0 {
			data, err := s.Tile(level, n, width)
			if err != nil {
				return nil, err
			}
			for ; len(data) > 0; data = data[sha256.Size:] {
				hashes = append(hashes, Hash(data))
			}
			s.partial[tileID{level, n}] = true
			if level == 0 {
				if b.bundle, err = s.Tile(Bundles, n, width); err != nil {
					return nil, err
				}
				s.partial[tileID{Bundles, n}] = true
			}
		}
		b.levels = append(b.levels, hashes)
	}
	return b, nil
}

// Tile reads the first width hashes of a tile, or entries of a bundle, from
// its partial file or else from the full one, or from what that was packed into.
func (s *Store) Tile(level int, n int64, width int) ([]byte, error) {
	each := int64(sha256.Size)
	if level == Bundles {
		each = entryBytes
	}
	want := int64(width) * each
	data, err := durable.ReadFile(s.fs, s.path(Path(level, n, width)), TileWidth*each)
	if errors.Is(err, fs.ErrNotExist) && width < TileWidth {
		data, err = durable.ReadFile(s.fs, s.path(Path(level, n, TileWidth)), TileWidth*each)
		if err == nil && int64(len(data)) == TileWidth*each {
			data = data[:want]
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		if data, err = s.unpack(level, n); err == nil {
			data = data[:want]
		}
	}
	if err != nil {
		return nil, err
	}
	if int64(len(data)) != want {
		return nil, fmt.Errorf("%s: %d bytes, want %d", Path(level, n, width), len(data), want)
	}
	return data, nil
}
