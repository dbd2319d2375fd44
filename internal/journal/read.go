package journal

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
)

// Segment is a sealed or cut-off segment. Its JSON form is that of the
// manifest (docs/format.md §4).
type Segment struct {
	First  int64  `json:"first"`
	Count  int64  `json:"count"` // lines; -1 in a list where it is not known yet
	File   string `json:"file"`  // its name in segments/
	Bytes  int64  `json:"bytes"`
	Stored int64  `json:"stored"`
	Root   string `json:"root"`
	Bounds
}

// Bounds are the time bounds of a segment's lines. They are there when every
// line has both times.
type Bounds struct {
	MinTimestamp  *time.Time `json:"min_timestamp,omitempty"`
	MaxTimestamp  *time.Time `json:"max_timestamp,omitempty"`
	MinRecordedAt *time.Time `json:"min_recorded_at,omitempty"`
	MaxRecordedAt *time.Time `json:"max_recorded_at,omitempty"`
}

// manifestFormat is the version of the manifest that we write and read.
const manifestFormat = 1

type manifest struct {
	Format   int       `json:"format"`
	Segments []Segment `json:"segments"`
}

const maxManifest = 256 << 20

// ParseManifest reads a manifest.
func ParseManifest(data []byte) ([]Segment, error) {
	var m manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, errors.New("manifest: not the JSON that is expected")
	}
	if m.Format != manifestFormat {
		return nil, fmt.Errorf("manifest: format %d, this program knows %d", m.Format, manifestFormat)
	}
	for i, s := range m.Segments {
		if s.First < 0 || s.Count < 0 || s.Bytes < 0 || s.First > math.MaxInt64-s.Count ||
			i > 0 && s.First < m.Segments[i-1].First+m.Segments[i-1].Count || !isSegmentName(s.File, s.First) {
			return nil, fmt.Errorf("manifest: segment %d of the list is not possible", i)
		}
	}
	return m.Segments, nil
}

func isSegmentName(name string, first int64) bool {
	return name == segmentName(first)+plainSuffix || name == segmentName(first)+sealedSuffix
}

func segmentName(first int64) string { return fmt.Sprintf("%020d", first) }

// readManifest gives what the manifest says, nothing where there is none.
func readManifest(fsys durable.FS, dir string) (map[int64]Segment, error) {
	data, err := durable.ReadFile(fsys, filepath.Join(dir, "manifest"), maxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	list, err := ParseManifest(data)
	known := make(map[int64]Segment, len(list))
	for _, s := range list {
		known[s.First] = s
	}
	return known, err
}

// listSegments lists the segments that are there, ascending. Of a plain and a
// compressed file the manifest says which counts, and without a word of it the
// plain one.
func listSegments(fsys durable.FS, dir string) ([]Segment, error) {
	known, err := readManifest(fsys, dir)
	if err != nil {
		return nil, err
	}
	files, err := fsys.ReadDir(filepath.Join(dir, segmentsDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	found := map[int64]Segment{}
	for _, f := range files {
		number, suffix, _ := strings.Cut(f.Name(), ".")
		first, err := strconv.ParseInt(number, 10, 64)
		if err != nil || !isSegmentName(f.Name(), first) {
			continue
		}
		listed, ok := known[first]
		switch {
		case ok && listed.File == f.Name():
			found[first] = listed
		case "."+suffix == plainSuffix:
			if had, ok := found[first]; !ok || had.Count < 0 {
				found[first] = Segment{First: first, Count: -1, File: f.Name()}
			}
		default:
			if _, ok := found[first]; !ok {
				found[first] = Segment{First: first, Count: -1, File: f.Name()}
			}
		}
	}
	list := make([]Segment, 0, len(found))
	for _, s := range found {
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b Segment) int { return cmp.Compare(a.First, b.First) })
	// Each but the last ends where the next begins; the last is counted by
	// endOfSegments.
	for i := range list {
		if list[i].Count < 0 && i+1 < len(list) {
			list[i].Count = list[i+1].First - list[i].First
		}
	}
	return list, nil
}

// endOfSegments is the index after the last sealed or cut-off segment, whose
// lines it counts where they are not known.
func endOfSegments(fsys durable.FS, dir string, list []Segment) (int64, error) {
	if len(list) == 0 {
		return 0, nil
	}
	last := &list[len(list)-1]
	if last.Count < 0 {
		r, err := openSegment(fsys, dir, *last)
		if err != nil {
			return 0, err
		}
		end, bytes, err := eachLine(r, last.First, func(int64, int64, []byte) error { return nil })
		if err := errors.Join(err, r.Close()); err != nil {
			return 0, fmt.Errorf("segment %d: %w", last.First, err)
		}
		last.Count, last.Bytes = end-last.First, bytes
	}
	return last.First + last.Count, nil
}

// openSegment opens a segment for reading its lines.
func openSegment(fsys durable.FS, dir string, s Segment) (io.ReadCloser, error) {
	f, err := fsys.OpenFile(filepath.Join(dir, segmentsDir, s.File), os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) && strings.HasSuffix(s.File, plainSuffix) {
		// It was compressed since it was listed.
		s.File = segmentName(s.First) + sealedSuffix
		f, err = fsys.OpenFile(filepath.Join(dir, segmentsDir, s.File), os.O_RDONLY, 0)
	}
	if err != nil {
		return nil, err
	}
	if strings.HasSuffix(s.File, plainSuffix) {
		return f, nil
	}
	z, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &zstdFile{z, f}, nil
}

type zstdFile struct {
	*zstd.Decoder
	file durable.File
}

func (z *zstdFile) Close() error {
	z.Decoder.Close()
	return z.file.Close()
}

func sectionOf(r io.ReaderAt, from, to int64) io.Reader {
	return io.NewSectionReader(r, from, to-from)
}

// eachLine gives f every complete line of r, the first having index first,
// with its offset in r. line is valid during the call. It returns the index
// after the last complete line and the offset where that line ends.
func eachLine(r io.Reader, first int64, f func(index, offset int64, line []byte) error) (next, end int64, err error) {
	buf := make([]byte, 0, 256<<10)
	next = first
	for {
		if len(buf) == cap(buf) {
			buf = slices.Grow(buf, cap(buf))
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		fresh := len(buf)
		buf = buf[:fresh+n]
		rest := buf
		searched := fresh
		for {
			i := bytes.IndexByte(rest[searched:], '\n')
			if i < 0 {
				break
			}
			i += searched
			if err := f(next, end, rest[:i]); err != nil {
				return next, end, err
			}
			next++
			end += int64(i) + 1
			rest, searched = rest[i+1:], 0
		}
		buf = buf[:copy(buf[:cap(buf)], rest)]
		switch {
		case err == io.EOF:
			return next, end, nil
		case err != nil:
			return next, end, err
		}
	}
}

// View is what a trail had at one moment, for reading. It keeps the open
// segment's file, so that a seal or the end of the writer does not disturb it.
// It is safe for concurrent use but for Close.
type View struct {
	fs       durable.FS
	dir      string
	file     durable.File
	segments []Segment
	first    int64
	bytes    int64 // of the open segment that may be read; -1: all there is
	next     int64 // index after the last line; -1: not known
	offsets  []int64
}

// OpenView looks at a trail that another process may be writing.
func OpenView(fsys durable.FS, path, dir string) (*View, error) {
	for range 100 {
		f, err := fsys.OpenFile(path, os.O_RDONLY, 0)
		if err != nil {
			return nil, err
		}
		v := &View{fs: fsys, dir: dir, file: f, bytes: -1, next: -1}
		settled, err := v.find(path)
		if err == nil && settled {
			return v, nil
		}
		f.Close()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%s: segments change faster than they can be listed", path)
}

// find lists the segments and tells where the open one begins (docs/format.md
// §4). It is settled when the path is still this file's afterwards.
func (v *View) find(path string) (settled bool, err error) {
	if v.segments, err = listSegments(v.fs, v.dir); err != nil {
		return false, err
	}
	mine, err := v.file.Stat()
	if err != nil {
		return false, err
	}
	if n := len(v.segments); n > 0 {
		last := v.segments[n-1]
		fi, err := v.fs.Stat(filepath.Join(v.dir, segmentsDir, last.File))
		if err != nil {
			return false, err
		}
		if v.fs.SameFile(mine, fi) { // between the two steps of a seal
			v.segments = v.segments[:n-1]
			v.first = last.First
			return v.unmoved(path, mine)
		}
	}
	if v.first, err = endOfSegments(v.fs, v.dir, v.segments); err != nil {
		return false, err
	}
	return v.unmoved(path, mine)
}

func (v *View) unmoved(path string, mine fs.FileInfo) (bool, error) {
	now, err := v.fs.Stat(path)
	if err != nil {
		return false, err
	}
	return v.fs.SameFile(mine, now), nil
}

// View looks at the journal: at what was acknowledged.
func (j *Journal) View() (*View, error) {
	j.commit.Lock()
	defer j.commit.Unlock()
	f, err := j.opts.FS.OpenFile(j.opts.Path, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return &View{
		fs: j.opts.FS, dir: j.opts.Dir, file: f, segments: slices.Clone(j.segments),
		first: j.first, bytes: j.size, next: j.next, offsets: slices.Clone(j.offsets),
	}, nil
}

// Close closes the view's file.
func (v *View) Close() error { return v.file.Close() }

// Parts gives the view's segments, ascending; the last is the open one, which
// has no File, and a Count of -1 where it is not known.
func (v *View) Parts() []Segment {
	last := Segment{First: v.first, Count: -1}
	if v.next >= 0 {
		last.Count = v.next - v.first
	}
	return append(slices.Clone(v.segments), last)
}

// Part gives f every complete line of one of Parts, with its index. line is
// valid during the call. It returns the index after the last one.
func (v *View) Part(ctx context.Context, s Segment, f func(index int64, line []byte) error) (next int64, err error) {
	var r io.Reader
	if s.File == "" {
		end := v.bytes
		if end < 0 {
			fi, err := v.file.Stat()
			if err != nil {
				return 0, err
			}
			end = fi.Size()
		}
		r = sectionOf(v.file, 0, end)
	} else {
		c, err := openSegment(v.fs, v.dir, s)
		if err != nil {
			return 0, err
		}
		defer c.Close()
		r = c
	}
	next, _, err = eachLine(r, s.First, func(index, _ int64, line []byte) error {
		if index%256 == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		return f(index, line)
	})
	return next, err
}

// Count is the number of complete lines up to the end of the view.
func (v *View) Count(ctx context.Context) (int64, error) {
	if v.next >= 0 {
		return v.next, nil
	}
	parts := v.Parts()
	return v.Part(ctx, parts[len(parts)-1], func(int64, []byte) error { return nil })
}

// Line gives the line at index.
func (v *View) Line(ctx context.Context, index int64) ([]byte, error) {
	parts := v.Parts()
	i := len(parts) - 1
	for i > 0 && index < parts[i].First {
		i--
	}
	found := errors.New("found")
	var line []byte
	take := func(at int64, l []byte) error {
		if at != index {
			return nil
		}
		line = bytes.Clone(l)
		return found
	}
	var err error
	if k := (index - v.first) / offsetEvery; index >= v.first && k < int64(len(v.offsets)) && v.bytes >= 0 {
		_, _, err = eachLine(sectionOf(v.file, v.offsets[k], v.bytes), v.first+k*offsetEvery,
			func(at, _ int64, l []byte) error { return take(at, l) })
	} else {
		_, err = v.Part(ctx, parts[i], take)
	}
	switch {
	case err == found:
		return line, nil
	case err != nil:
		return nil, err
	}
	return nil, fmt.Errorf("line %d: %w", index, fs.ErrNotExist)
}
