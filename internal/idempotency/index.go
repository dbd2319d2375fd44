// Package idempotency remembers which entry an idempotency key belongs to,
// exactly, for [Window], in bounded memory.
//
// The newest keys are in memory; older ones are in run files: sorted records
// of a keyed hash of the key (HMAC-SHA-256 under the trail's mac.key, cut to
// 16 bytes) and the entry's index. Runs are derived from the lines and can be
// rebuilt; a run that is broken is an error that says so. Covered says up to
// which index the runs know.
//
// An Index is safe for concurrent use.
package idempotency

import (
	"bytes"
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
)

// Window is how long a key is remembered at least.
const Window = 7 * 24 * time.Hour

const (
	// inMemory is how many keys are kept in memory: about 4 MB of map.
	inMemory = 1 << 16
	// fanout is how many runs of one size class are merged into one.
	fanout = 4

	magic      = "kaizen-audit idempotency 1\n"
	headBytes  = 56 // magic padded to 32, then from, to and newest time
	recordSize = 24
)

// Hash is the keyed hash of a key.
type Hash [16]byte

// Index is an open index.
type Index struct {
	fs     durable.FS
	dir    string
	key    []byte
	hashes sync.Pool // of *hasher

	mu     sync.Mutex
	recent map[Hash]int64
	newest time.Time // of recent
	from   int64     // the first index that recent is about
	runs   []*run    // ascending
}

type run struct {
	name     string
	from, to int64
	newest   time.Time
	n        int64
	file     durable.File
	filter   filter // nil: too many keys
}

// Open opens the runs in dir, which need not be there. Runs older than Window
// are Flush's to remove.
func Open(fsys durable.FS, dir string, key []byte) (*Index, error) {
	x := &Index{fs: fsys, dir: dir, key: key, recent: map[Hash]int64{}}
	files, err := fsys.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return x, nil
	}
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".keys") {
			continue
		}
		r, err := openRun(fsys, filepath.Join(dir, f.Name()))
		if err != nil {
			return nil, fmt.Errorf("idempotency keys %s: %w (remove the file: it is made again from the lines)", f.Name(), err)
		}
		x.runs = append(x.runs, r)
	}
	slices.SortFunc(x.runs, func(a, b *run) int {
		return cmp.Or(cmp.Compare(a.from, b.from), -cmp.Compare(a.to, b.to))
	})
	// A crash between a merge and the removal of its parts leaves both.
	kept := x.runs[:0]
	for _, r := range x.runs {
		if n := len(kept); n > 0 && r.to <= kept[n-1].to {
			r.file.Close()
			if err := fsys.Remove(r.name); err != nil {
				return nil, err
			}
			continue
		}
		kept = append(kept, r)
	}
	x.runs = kept
	x.boundFilters()
	x.from = x.Covered()
	return x, nil
}

// Close closes the runs.
func (x *Index) Close() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	var errs []error
	for _, r := range x.runs {
		errs = append(errs, r.file.Close())
	}
	x.runs = nil
	return errors.Join(errs...)
}

// Covered is the index up to which the runs know all keys.
func (x *Index) Covered() int64 {
	if len(x.runs) == 0 {
		return 0
	}
	return x.runs[len(x.runs)-1].to
}

// Hash is what the index knows a key by.
func (x *Index) Hash(key string) (m Hash) {
	h, _ := x.hashes.Get().(*hasher)
	if h == nil {
		h = &hasher{Hash: hmac.New(sha256.New, x.key)}
	}
	h.Reset()
	h.buf = append(append(h.buf[:0], "idempotency key\x00"...), key...)
	h.Write(h.buf)
	h.buf = h.Sum(h.buf[:0])
	copy(m[:], h.buf)
	x.hashes.Put(h)
	return m
}

// hasher is an HMAC that is used again: making one costs two hashes of the key.
type hasher struct {
	hash.Hash
	buf []byte
}

// Lookup gives the index of the entry that has a key.
func (x *Index) Lookup(m Hash) (index int64, ok bool, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if index, ok := x.recent[m]; ok {
		return index, true, nil
	}
	for i := len(x.runs) - 1; i >= 0; i-- {
		if !x.runs[i].filter.mayHave(m) {
			continue
		}
		if index, ok, err := x.runs[i].lookup(m); ok || err != nil {
			return index, ok, err
		}
	}
	return 0, false, nil
}

// Add notes that the entry at index has a key. Entries are added in the order
// of their indexes, but for those under way at once.
func (x *Index) Add(m Hash, index int64, at time.Time) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.recent[m] = index
	if at.After(x.newest) {
		x.newest = at
	}
	if len(x.recent) < 2*inMemory {
		return nil
	}
	// The newest half stays: entries under way may still add below them.
	indexes := make([]int64, 0, len(x.recent))
	for _, i := range x.recent {
		indexes = append(indexes, i)
	}
	slices.Sort(indexes)
	return x.spillLocked(indexes[len(indexes)/2])
}

// Flush makes the keys of all entries below size durable and forgets those
// older than Window.
func (x *Index) Flush(size int64) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if size <= x.from || len(x.recent) == 0 && len(x.runs) > 0 && size-x.from < inMemory {
		return nil
	}
	return x.spillLocked(size)
}

// spillLocked writes the keys of entries below to into a run.
func (x *Index) spillLocked(to int64) error {
	records := make([]record, 0, len(x.recent))
	rest := map[Hash]int64{}
	for m, index := range x.recent {
		if index >= to {
			rest[m] = index
			continue
		}
		var r record
		copy(r[:], m[:])
		binary.BigEndian.PutUint64(r[len(m):], uint64(index))
		records = append(records, r)
	}
	r, err := x.writeRun(x.from, to, x.newest, records)
	if err != nil {
		return err
	}
	x.runs = append(x.runs, r)
	x.recent, x.from = rest, to
	err = x.tidyLocked()
	x.boundFilters()
	return err
}

// boundFilters gives up the filters of the oldest runs where there are too
// many keys: theirs are asked for least.
func (x *Index) boundFilters() {
	left := int64(filterKeys)
	for i := len(x.runs) - 1; i >= 0; i-- {
		if left -= x.runs[i].n; left < 0 {
			x.runs[i].filter = nil
		}
	}
}

// tidyLocked merges runs of like size and removes the old ones.
func (x *Index) tidyLocked() error {
	for len(x.runs) > 1 && x.newest.Sub(x.runs[0].newest) > Window {
		if err := x.dropLocked(0); err != nil {
			return err
		}
	}
	for {
		n := len(x.runs)
		k := n - 1 // the last k.. runs are no larger than fanout times the newest
		size := x.runs[n-1].n + 1
		for k > 0 && x.runs[k-1].n <= size*fanout {
			k--
			size += x.runs[k].n
		}
		if n-k < fanout {
			return nil
		}
		var records []record
		var newest time.Time
		for _, r := range x.runs[k:] {
			b := make([]byte, r.n*recordSize)
			if _, err := r.file.ReadAt(b, headBytes); err != nil {
				return fmt.Errorf("idempotency keys: %w", err)
			}
			for ; len(b) > 0; b = b[recordSize:] {
				records = append(records, record(b[:recordSize]))
			}
			if r.newest.After(newest) {
				newest = r.newest
			}
		}
		merged, err := x.writeRun(x.runs[k].from, x.runs[n-1].to, newest, records)
		if err != nil {
			return err
		}
		for len(x.runs) > k {
			if err := x.dropLocked(k); err != nil {
				return err
			}
		}
		x.runs = append(x.runs, merged)
	}
}

func (x *Index) dropLocked(i int) error {
	r := x.runs[i]
	x.runs = slices.Delete(x.runs, i, i+1)
	return errors.Join(r.file.Close(), x.fs.Remove(r.name))
}

// writeRun writes a run file: the head, the records sorted by hash, and the
// SHA-256 of both.
func (x *Index) writeRun(from, to int64, newest time.Time, records []record) (*run, error) {
	slices.SortFunc(records, record.compare)
	data := make([]byte, 32, headBytes+recordSize*len(records)+sha256.Size)
	copy(data, magic)
	data = binary.BigEndian.AppendUint64(data, uint64(from))
	data = binary.BigEndian.AppendUint64(data, uint64(to))
	data = binary.BigEndian.AppendUint64(data, uint64(max(newest.UnixMilli(), 0)))
	for i := range records {
		data = append(data, records[i][:]...)
	}
	sum := sha256.Sum256(data)
	data = append(data, sum[:]...)
	if err := durable.MkdirAll(x.fs, x.dir, 0o700); err != nil {
		return nil, err
	}
	name := filepath.Join(x.dir, fmt.Sprintf("%020d-%020d.keys", from, to))
	if err := durable.WriteFile(x.fs, name, data, 0o600); err != nil {
		return nil, err
	}
	return openRun(x.fs, name)
}

// record is a hash and, big-endian, an index.
type record [recordSize]byte

func (r record) compare(other record) int {
	// The hashes are even: the first bytes nearly always tell.
	return cmp.Or(cmp.Compare(binary.BigEndian.Uint64(r[:]), binary.BigEndian.Uint64(other[:])), bytes.Compare(r[8:], other[8:]))
}

// maxRun bounds what is read as a run: a week of 50,000 keys a second has
// 30 thousand million, which never fits one file of ours.
const maxRun = 1 << 31

func openRun(fsys durable.FS, name string) (_ *run, err error) {
	data, err := durable.ReadFile(fsys, name, maxRun)
	if err != nil {
		return nil, err
	}
	r, err := parseRun(data)
	if err != nil {
		return nil, err
	}
	r.name = name
	r.file, err = fsys.OpenFile(name, os.O_RDONLY, 0)
	return r, err
}

// parseRun checks a run file.
func parseRun(data []byte) (*run, error) {
	head := append([]byte(magic), make([]byte, 32-len(magic))...)
	n := len(data) - headBytes - sha256.Size
	if n < 0 || n%recordSize != 0 || !bytes.Equal(data[:32], head) {
		return nil, errors.New("not a file of idempotency keys, or of another version")
	}
	sum := sha256.Sum256(data[:headBytes+n])
	if !bytes.Equal(sum[:], data[headBytes+n:]) {
		return nil, errors.New("the checksum is wrong")
	}
	r := &run{
		from: int64(binary.BigEndian.Uint64(data[32:])), to: int64(binary.BigEndian.Uint64(data[40:])),
		newest: time.UnixMilli(int64(binary.BigEndian.Uint64(data[48:]))), n: int64(n / recordSize),
	}
	if r.from < 0 || r.to < r.from {
		return nil, errors.New("the range is not possible")
	}
	r.filter = newFilter(data[headBytes : headBytes+n])
	return r, nil
}

// guesses is how often a lookup guesses where a hash must be, before it halves
// what is left: hashes are even, so that four or five are enough in a run of a
// million, where halving needs twenty.
const guesses = 8

// lookup looks a hash up, in reads of the page cache.
func (r *run) lookup(m Hash) (int64, bool, error) {
	low, high := int64(0), r.n // it is in [low, high)
	want := binary.BigEndian.Uint64(m[:])
	least, most := uint64(0), uint64(math.MaxUint64) // of the first 8 bytes there
	var b [recordSize]byte
	for step := 0; low < high; step++ {
		mid := low + (high-low)/2
		if step < guesses && least < most {
			share := float64(want-least) / float64(most-least)
			mid = min(low+int64(share*float64(high-low)), high-1)
		}
		if _, err := r.file.ReadAt(b[:], headBytes+mid*recordSize); err != nil {
			return 0, false, fmt.Errorf("idempotency keys: %w", err)
		}
		switch c := bytes.Compare(m[:], b[:len(m)]); {
		case c == 0:
			return int64(binary.BigEndian.Uint64(b[len(m):])), true, nil
		case c < 0:
			high, most = mid, binary.BigEndian.Uint64(b[:])
		default:
			low, least = mid+1, binary.BigEndian.Uint64(b[:])
		}
	}
	return 0, false, nil
}
