package tree

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"strconv"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
)

const (
	packedDir  = "tile/packed"
	packedName = "%020d" // of a packed file: the index of its first digest
	// packedTiles is how many tiles a packed file stands for at most: 32 MiB, 1,048,576
	// entries.
	packedTiles = 4096
	// packedStep is how many tiles are written between two syncs: a commit beside it
	// waits for no more than a megabyte, as with a seal.
	packedStep = 128
)

// packed is a packed file: the line digests of entries that adjoin, 32 bytes each, from
// which their tiles of level 0 and their bundles follow (docs/format.md §2.1).
type packed struct {
	name  string // below the trail's directory
	first int64  // index of its first entry
	count int64
}

// holds tells whether tile n is in it as a whole.
func (p packed) holds(n int64) bool {
	return p.first <= n*TileWidth && (n+1)*TileWidth <= p.first+p.count
}

// parsePackedName gives the first index that a packed file's name says.
func parsePackedName(name string) (first int64, ok bool) {
	first, err := strconv.ParseInt(name, 10, 64)
	return first, err == nil && first >= 0 && fmt.Sprintf(packedName, first) == name
}

// packed lists the packed files, ascending.
func (s *Store) packed() (list []packed, err error) {
	files, err := s.fs.ReadDir(s.path(packedDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, f := range files { // sorted by name, and so by first
		if first, ok := parsePackedName(f.Name()); ok {
			list = append(list, packed{name: packedDir + "/" + f.Name(), first: first})
		}
	}
	return list, nil
}

// measure finds how many digests a packed file has.
func (s *Store) measure(p *packed) error {
	fi, err := s.fs.Stat(s.path(p.name))
	if err == nil {
		p.count = fi.Size() / sha256.Size
	}
	return err
}

// unpack gives a full tile of level 0, or a bundle, from the packed file that holds it;
// fs.ErrNotExist where none does.
func (s *Store) unpack(level int, n int64) ([]byte, error) {
	missing := &fs.PathError{Op: "open", Path: s.path(Path(level, n, TileWidth)), Err: fs.ErrNotExist}
	if level > 0 {
		return nil, missing
	}
	list, err := s.packed()
	if err != nil {
		return nil, err
	}
	i := sort.Search(len(list), func(i int) bool { return list[i].first > n*TileWidth }) - 1
	if i < 0 {
		return nil, missing
	}
	p := list[i]
	if err := s.measure(&p); err != nil {
		return nil, err
	}
	if !p.holds(n) {
		return nil, missing
	}
	f, err := s.fs.OpenFile(s.path(p.name), os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return p.tile(f, level, n)
}

// tile reads a tile or bundle from the packed file, which is open.
func (p packed) tile(f io.ReaderAt, level int, n int64) ([]byte, error) {
	digests := make([]byte, TileWidth*sha256.Size)
	if _, err := f.ReadAt(digests, (n*TileWidth-p.first)*sha256.Size); err != nil {
		return nil, fmt.Errorf("%s: %w", p.name, err)
	}
	return unpacked(level, digests), nil
}

// unpacked makes a bundle or a tile of level 0 of the digests of its lines.
func unpacked(level int, digests []byte) []byte {
	var out []byte
	for d := range slices.Chunk(digests, sha256.Size) {
		if level == Bundles {
			out = append(append(out, 0, sha256.Size), d...)
		} else {
			leaf := LeafHash(Hash(d))
			out = append(out, leaf[:]...)
		}
	}
	return out
}

// Pack puts the line digests of the entries from first up to end, as far as their tiles
// are full, into packed files, and removes those tiles and bundles. What is packed
// already is left alone. It may run beside readers, and beside a writer of what comes
// after end.
func (s *Store) Pack(first, end int64) error {
	list, err := s.packed()
	if err != nil {
		return fmt.Errorf("pack tiles: %w", err)
	}
	for i := range list {
		if err := s.measure(&list[i]); err != nil {
			return fmt.Errorf("pack tiles: %w", err)
		}
	}
	for n := (first + TileWidth - 1) / TileWidth; n < end/TileWidth; {
		to := min(end/TileWidth, n+packedTiles)
		covered := false
		for _, p := range list {
			switch {
			case p.holds(n):
				covered, to = true, (p.first+p.count)/TileWidth
			case p.first > n*TileWidth:
				to = min(to, (p.first+TileWidth-1)/TileWidth)
			}
		}
		if !covered {
			if err := s.packTiles(n, to); err != nil {
				return fmt.Errorf("pack tiles: %w", err)
			}
		}
		n = to
	}
	return nil
}

// packTiles packs tiles n up to to.
func (s *Store) packTiles(n, to int64) error {
	if err := s.mkdir(s.path(packedDir)); err != nil {
		return err
	}
	p := packed{name: packedDir + "/" + fmt.Sprintf(packedName, n*TileWidth), first: n * TileWidth, count: (to - n) * TileWidth}
	name := s.path(p.name)
	tmp := name + ".tmp"
	err := s.writePacked(tmp, n, to)
	if err == nil {
		err = s.fs.Rename(tmp, name)
	}
	if err != nil {
		if gone := s.fs.Remove(tmp); !errors.Is(gone, fs.ErrNotExist) {
			err = errors.Join(err, gone)
		}
		return err
	}
	// Crash until here: every tile is there, and what is packed is packed again.
	if err := s.fs.SyncDir(s.path(packedDir)); err != nil {
		return err
	}
	// Crash from here on: the packed file is there, and some of the tiles; readers take
	// either, and Sweep removes the rest.
	return s.removePacked(p)
}

// writePacked writes and syncs the digests of tiles n up to to, which bundle and tile
// must both say.
func (s *Store) writePacked(name string, n, to int64) (err error) {
	f, err := s.fs.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	digests := make([]byte, 0, TileWidth*sha256.Size)
	for i := n; i < to; i++ {
		bundle, err := s.Tile(Bundles, i, TileWidth)
		if err != nil {
			return err
		}
		tile, err := s.Tile(0, i, TileWidth)
		if err != nil {
			return err
		}
		digests = digests[:0]
		for e := range slices.Chunk(bundle, entryBytes) {
			digests = append(digests, e[2:]...)
		}
		if !bytes.Equal(unpacked(Bundles, digests), bundle) || !bytes.Equal(unpacked(0, digests), tile) {
			return fmt.Errorf("%s and %s are not of the same lines", Path(Bundles, i, TileWidth), Path(0, i, TileWidth))
		}
		if _, err := f.Write(digests); err != nil {
			return err
		}
		if (i-n)%packedStep == packedStep-1 {
			if err := f.Sync(); err != nil {
				return err
			}
		}
		runtime.Gosched() // whoever records goes first
	}
	return f.Sync()
}

// Sweep removes the tiles and bundles that packed files stand for: a crash left them.
func (s *Store) Sweep() error {
	list, err := s.packed()
	if err == nil && len(list) > 0 {
		err = s.fs.SyncDir(s.path(packedDir)) // a packed file may be there without its directory saying so for good
	}
	for i := range list {
		if err == nil {
			err = s.measure(&list[i])
		}
		if err == nil {
			err = s.removePacked(list[i])
		}
	}
	if err != nil {
		return fmt.Errorf("pack tiles: %w", err)
	}
	return nil
}

// removePacked removes the tiles and bundles that a packed file stands for, each once it
// was compared.
func (s *Store) removePacked(p packed) error {
	f, err := s.fs.OpenFile(s.path(p.name), os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	dirs := map[string]bool{}
	for n := (p.first + TileWidth - 1) / TileWidth; p.holds(n); n++ {
		for _, level := range []int{Bundles, 0} {
			name := s.path(Path(level, n, TileWidth))
			had, err := durable.ReadFile(s.fs, name, TileWidth*entryBytes)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			var now []byte
			if err == nil {
				now, err = p.tile(f, level, n)
			}
			if err == nil && !bytes.Equal(had, now) {
				err = fmt.Errorf("%s is not what %s says", Path(level, n, TileWidth), p.name)
			}
			if err == nil {
				err = s.fs.Remove(name)
			}
			if err != nil {
				return err
			}
			dirs[filepath.Dir(name)] = true
		}
		runtime.Gosched()
	}
	for dir := range dirs {
		if err := s.fs.SyncDir(dir); err != nil {
			return err
		}
	}
	// A group of a thousand tiles that is past is never written to again.
	for n := p.first / TileWidth; n < (p.first+p.count)/TileWidth; n++ {
		if n%1000 == 999 {
			for _, level := range []int{Bundles, 0} {
				_ = s.fs.Remove(filepath.Dir(s.path(Path(level, n, TileWidth)))) // unless something is in it
			}
		}
	}
	return nil
}
