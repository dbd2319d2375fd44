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
	// Archived says that its file is in the archive only.
	Archived bool `json:"-"`
}

// Archive opens the sealed file of a segment that is in the archive only, by its first
// index. It is fs.ErrNotExist where the archive is not said to have it.
type Archive func(ctx context.Context, first int64) (*os.File, error)

// open asks a; there may be none.
func (a Archive) open(ctx context.Context, first int64) (*os.File, error) {
	if a == nil {
		return nil, fs.ErrNotExist
	}
	return a(ctx, first)
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

// FormatManifest is the manifest of segments, ascending.
func FormatManifest(list []Segment) ([]byte, error) {
	data, err := json.Marshal(manifest{Format: manifestFormat, Segments: list})
	return append(data, '\n'), err
}

func isSegmentName(name string, first int64) bool {
	return name == segmentName(first)+plainSuffix || name == segmentName(first)+sealedSuffix
}

func segmentName(first int64) string { return fmt.Sprintf("%020d", first) }

// readManifest gives what the manifest says: nothing where there is none or it
// is broken. It is a convenience that a writer makes again (docs/format.md §9).
func readManifest(fsys durable.FS, dir string) map[int64]Segment {
	data, err := durable.ReadFile(fsys, filepath.Join(dir, "manifest"), maxManifest)
	if err != nil {
		return nil
	}
	list, err := ParseManifest(data)
	if err != nil {
		return nil
	}
	known := make(map[int64]Segment, len(list))
	for _, s := range list {
		known[s.First] = s
	}
	return known
}

// listSegments lists the segments that are there, ascending. Of a plain and a
// compressed file the manifest says which counts, and without a word of it the
// plain one.
func listSegments(fsys durable.FS, dir string, known map[int64]Segment) ([]Segment, error) {
	files, err := fsys.ReadDir(filepath.Join(dir, segmentsDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	found, archived := map[int64]Segment{}, []int64{}
	for _, f := range files {
		number, suffix, _ := strings.Cut(f.Name(), ".")
		first, err := strconv.ParseInt(number, 10, 64)
		if err == nil && f.Name() == segmentName(first)+sealedSuffix+ArchivedSuffix {
			archived = append(archived, first)
		}
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
	for _, first := range archived {
		if _, here := found[first]; here {
			continue // it was to be removed, and is here
		}
		s, listed := known[first]
		if name := segmentName(first) + sealedSuffix; !listed || s.File != name {
			s = Segment{First: first, Count: -1, File: name}
		}
		s.Archived = true
		found[first] = s
	}
	list := make([]Segment, 0, len(found))
	for _, s := range found {
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b Segment) int { return cmp.Compare(a.First, b.First) })
	// Each but the last ends where the next begins; the last is counted by
	// endOfSegments. A manifest that says more than fits is not believed.
	for i := range list[:max(len(list)-1, 0)] {
		s, next := &list[i], list[i+1].First
		if s.Count < 0 || s.First+s.Count > next {
			*s = Segment{First: s.First, Count: next - s.First, File: s.File, Archived: s.Archived}
		}
	}
	return list, nil
}

// endOfSegments is the index after the last sealed or cut-off segment, whose
// lines it counts where they are not known.
func endOfSegments(fsys durable.FS, dir string, away Archive, list []Segment) (int64, error) {
	if len(list) == 0 {
		return 0, nil
	}
	last := &list[len(list)-1]
	if last.Count < 0 {
		end, bytes, err := countLines(fsys, dir, away, *last)
		if err != nil {
			return 0, err
		}
		last.Count, last.Bytes = end-last.First, bytes
	}
	return last.First + last.Count, nil
}

// countLines gives the index after the last line of a segment and the length of
// its lines.
func countLines(fsys durable.FS, dir string, away Archive, s Segment) (next, bytes int64, err error) {
	return eachLineOf(context.Background(), fsys, dir, away, s, func(int64, int64, []byte) error { return nil })
}

// eachLineOf is eachLine for a segment. What is wrong with its file is a
// SegmentError, apart from f's own errors.
func eachLineOf(ctx context.Context, fsys durable.FS, dir string, away Archive, s Segment, f func(index, offset int64, line []byte) error) (next, end int64, err error) {
	next = s.First
	r, err := openSegment(ctx, fsys, dir, away, s)
	if err == nil {
		var failed error
		next, end, err = eachLine(r, s.First, func(index, offset int64, line []byte) error {
			failed = f(index, offset, line)
			return failed
		})
		err = errors.Join(err, r.Close())
		if failed != nil {
			return next, end, failed
		}
	}
	if err != nil {
		return next, end, &SegmentError{File: segmentsDir + "/" + s.File, Next: next, Err: err}
	}
	return next, end, nil
}

// SegmentError says that a segment's lines can't be read further.
type SegmentError struct {
	File string // below the trail's directory
	Next int64  // the index that was due
	Err  error
}

func (e *SegmentError) Error() string {
	cause := e.Err
	var path *fs.PathError
	if errors.As(cause, &path) {
		cause = path.Err // the file is named already
	}
	return fmt.Sprintf("%s can't be read from entry %d on: %v", e.File, e.Next, cause)
}

func (e *SegmentError) Unwrap() error { return e.Err }

// errArchive is what went wrong with an archive, and not with a segment.
type errArchive struct{ error }

func (e errArchive) Unwrap() error { return e.error }

// Damaged tells a file that is not what it was from one that the system, or the
// archive, does not give out.
func (e *SegmentError) Damaged() bool {
	if errors.As(e.Err, new(errArchive)) {
		return errors.Is(e.Err, fs.ErrInvalid)
	}
	return errors.Is(e.Err, fs.ErrNotExist) || errors.Is(e.Err, durable.ErrNotRegular) || !errors.As(e.Err, new(*fs.PathError))
}

// sealedFile is a segment's file, here or fetched from the archive.
type sealedFile interface {
	io.ReadCloser
	Stat() (fs.FileInfo, error)
}

// openSegment opens a segment for reading its lines.
func openSegment(ctx context.Context, fsys durable.FS, dir string, away Archive, s Segment) (io.ReadCloser, error) {
	f, sealed, err := openFile(ctx, fsys, dir, away, s)
	if err != nil || !sealed {
		return f, err
	}
	z, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &zstdFile{z, f}, nil
}

// openFile opens a segment's file.
func openFile(ctx context.Context, fsys durable.FS, dir string, away Archive, s Segment) (f sealedFile, sealed bool, err error) {
	sealed = strings.HasSuffix(s.File, sealedSuffix)
	f, err = fsys.OpenFile(filepath.Join(dir, segmentsDir, s.File), os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) && !sealed {
		// It was compressed since it was listed.
		sealed = true
		f, err = fsys.OpenFile(filepath.Join(dir, segmentsDir, segmentName(s.First)+sealedSuffix), os.O_RDONLY, 0)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return f, sealed, err
	}
	got, archived := away.open(ctx, s.First)
	switch {
	case errors.Is(archived, fs.ErrNotExist):
		return nil, sealed, err // nor does anything say that it is in the archive
	case archived != nil:
		return nil, sealed, errArchive{archived}
	}
	return got, sealed, nil
}

// ReadSealed gives f every line of a sealed file, the first having index first. It
// returns the index after the last one and the length of the lines.
func ReadSealed(r io.Reader, first int64, f func(index int64, line []byte) error) (next, bytes int64, err error) {
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return first, 0, err
	}
	defer z.Close()
	return ReadPlain(z, first, f)
}

// ReadPlain is ReadSealed for lines as they are.
func ReadPlain(r io.Reader, first int64, f func(index int64, line []byte) error) (next, bytes int64, err error) {
	return eachLine(r, first, func(index, _ int64, line []byte) error { return f(index, line) })
}

type zstdFile struct {
	*zstd.Decoder
	file io.Closer
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
// It is safe for concurrent use but for Close and Expect.
type View struct {
	fs       durable.FS
	dir      string
	name     string       // of the open segment's file
	file     durable.File // nil where the open segment is gone
	segments []Segment
	first    int64
	bytes    int64 // of the open segment that may be read; -1: all there is
	next     int64 // index after the last line; -1: not known
	offsets  []int64

	away      Archive
	owed      int64 // lines that are acknowledged, where the open segment could not get them all
	covered   int64 // lines that there must be at least
	uncertain error // why covered is not known
	lawful    func(first, count int64) bool
}

// OpenView looks at a trail that another process may be writing. begins reads
// from the first line of the open segment where that segment begins, if the
// line says so: what the segments before it do not tell when the last of them
// is lost. A trail whose open segment is lost can be looked at too. away
// has the segments whose files are in the archive only; nil where there is none to ask.
func OpenView(fsys durable.FS, path, dir string, begins func(line []byte) (first int64, ok bool), away Archive) (*View, error) {
	for try := range 100 {
		v := &View{fs: fsys, dir: dir, name: filepath.Base(path), bytes: -1, next: -1, away: away}
		f, err := fsys.OpenFile(path, os.O_RDONLY, 0)
		switch {
		case err == nil:
			v.file = f
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		}
		settled, err := v.find(path, begins)
		// One look at a directory that is being changed can miss a file.
		if err == nil && settled && (try > 0 || len(v.Lacks()) == 0) {
			return v, nil
		}
		v.Close()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%s: segments change faster than they can be listed", path)
}

// Expect says how many lines the trail must have at least: those that a
// checkpoint covers, read before the view was opened. err says why that is not
// known, and a scan then says that it may lack something at the end.
func (v *View) Expect(covered int64, err error) { v.covered, v.uncertain = covered, err }

// Lacks is what no file has, as far as the segments' names and numbers tell: as
// [first, count]. Most trails lack nothing.
func (v *View) Lacks() (all [][2]int64) {
	next := int64(0)
	for _, p := range v.Parts() {
		if p.First > next {
			all = append(all, [2]int64{next, p.First - next})
		}
		next = max(next, p.First+max(p.Count, 0))
	}
	return all
}

// Only leaves of the view one sealed segment, by its first index; nothing else is
// missing then.
func (v *View) Only(first int64) {
	v.segments = slices.DeleteFunc(slices.Clone(v.segments), func(s Segment) bool { return s.First != first })
	_ = v.Close() // only read
	v.file, v.bytes, v.next, v.offsets = nil, -1, -1, nil
	v.Expect(0, nil)
	v.Excuse(func(int64, int64) bool { return true })
}

// Excuse says which lines may be gone: they are no gap then.
func (v *View) Excuse(lawful func(first, count int64) bool) { v.lawful = lawful }

// find lists the segments and tells where the open one begins (docs/format.md
// §4). It is settled when the path is still this file's afterwards.
func (v *View) find(path string, begins func(line []byte) (int64, bool)) (settled bool, err error) {
	if v.segments, err = listSegments(v.fs, v.dir, readManifest(v.fs, v.dir)); err != nil {
		return false, err
	}
	if v.file == nil {
		_, err := v.fs.Stat(path)
		v.first, _ = v.end()
		return errors.Is(err, fs.ErrNotExist), nil
	}
	mine, err := v.file.Stat()
	if err != nil {
		return false, err
	}
	if n := len(v.segments); n > 0 && !v.segments[n-1].Archived {
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
	said, ok := begins(firstLine(v.file))
	if n := len(v.segments); ok && n > 0 && said != v.segments[n-1].First+v.segments[n-1].Count {
		v.segments[n-1].Count = -1 // its lines tell, not the manifest
	}
	var broken bool
	v.first, broken = v.end()
	if ok && (said > v.first || broken && said > v.segments[len(v.segments)-1].First) {
		v.first = said // what lies between is lost
	}
	return v.unmoved(path, mine)
}

// end is endOfSegments, or as far as the last segment's lines can be read.
func (v *View) end() (first int64, broken bool) {
	first, err := endOfSegments(v.fs, v.dir, v.away, v.segments)
	if err == nil {
		return first, false
	}
	last := v.segments[len(v.segments)-1]
	var lost *SegmentError
	if errors.As(err, &lost) {
		return lost.Next, true
	}
	return last.First, true
}

// maxFirstLine bounds what is read of the open segment's first line: an entry
// of a seal is some hundred bytes and as much again for each change of keys.
const maxFirstLine = 64 << 10

// firstLine is nil where there is none of that length.
func firstLine(f io.ReaderAt) []byte {
	buf := make([]byte, maxFirstLine)
	n, _ := f.ReadAt(buf, 0)
	if n = lineEnd(buf[:n]); n == 0 || buf[n-1] != '\n' {
		return nil
	}
	return buf[:n-1]
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
	behind := j.CatchUp() != nil
	f, err := j.opts.FS.OpenFile(j.opts.Path, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	v := &View{
		fs: j.opts.FS, dir: j.opts.Dir, name: filepath.Base(j.opts.Path), file: f, segments: slices.Clone(j.segments),
		first: j.first, bytes: j.size.Load(), next: j.next, offsets: slices.Clone(j.offsets), away: j.opts.Archive,
	}
	if behind { // the rest is what this view lacks
		v.bytes, v.next, v.owed = -1, -1, j.next
	}
	return v, nil
}

// Close closes the view's file.
func (v *View) Close() error {
	if v.file == nil {
		return nil
	}
	return v.file.Close()
}

// Part is a segment of a view.
type Part struct {
	Segment       // Count is -1 where it is not known
	Open    bool  // the open segment, which has no File
	Until   int64 // where the next one begins, or what the trail must have; -1: not known
	why     error // why Until is not known
	lawful  func(first, count int64) bool
}

// Parts gives the view's segments, ascending; the last is the open one. The
// first has no lines and no File where the beginning of the trail is missing.
func (v *View) Parts() []Part {
	parts := make([]Part, 0, len(v.segments)+2)
	for _, s := range v.segments {
		parts = append(parts, Part{Segment: s})
	}
	open := Part{Segment: Segment{First: v.first, Count: -1}, Open: true, Until: max(v.covered, v.owed)}
	switch {
	case v.next >= 0:
		open.Count = v.next - v.first
	case v.file == nil:
		open.Count = 0
	}
	if v.uncertain != nil {
		open.Until, open.why = -1, v.uncertain
	}
	parts = append(parts, open)
	if parts[0].First > 0 {
		parts = slices.Insert(parts, 0, Part{})
	}
	for i := range parts {
		parts[i].lawful = v.lawful
		if i+1 < len(parts) {
			parts[i].Until = parts[i+1].First
		}
	}
	return parts
}

// GapError names entries that can't be read: an answer from the rest is not
// complete.
type GapError struct {
	First int64 `json:"first"` // the first index that is missing
	Count int64 `json:"count"` // how many; -1: not known
	Err   error `json:"-"`     // why, where more is known than that no file has them
}

func (e *GapError) Error() string {
	which := fmt.Sprintf("entry %d is missing", e.First)
	switch {
	case e.Count < 0:
		which = fmt.Sprintf("from entry %d on some may be missing", e.First)
	case e.Count > 1:
		which = fmt.Sprintf("entries %d to %d are missing", e.First, e.First+e.Count-1)
	}
	if e.Err == nil {
		return which
	}
	return which + ": " + e.Err.Error()
}

func (e *GapError) Unwrap() error { return e.Err }

// Gap is what is missing after a part whose last line has the index before
// next, err being why its lines ended; nil for nothing.
func (p Part) Gap(next int64, err error) *GapError {
	switch {
	case next < p.Until && err == nil && p.lawful != nil && p.lawful(next, p.Until-next):
		return nil
	case next < p.Until:
		return &GapError{next, p.Until - next, err}
	case err != nil:
		return &GapError{next, -1, err}
	case p.Until < 0:
		return &GapError{next, -1, p.why}
	}
	return nil
}

// Part gives f every complete line of one of Parts, with its index. line is
// valid during the call. It returns the index after the last one. The error is
// f's, ctx's, or a SegmentError.
func (v *View) Part(ctx context.Context, p Part, f func(index int64, line []byte) error) (next int64, err error) {
	return v.PartFrom(ctx, p, p.First, f)
}

// PartFrom is Part without the lines before the one at from. In the open segment
// of the journal's own view they are not read.
func (v *View) PartFrom(ctx context.Context, p Part, from int64, f func(index int64, line []byte) error) (next int64, err error) {
	each := func(index, _ int64, line []byte) error {
		if index%256 == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		if index < from {
			return nil
		}
		return f(index, line)
	}
	switch {
	case p.Open && v.file != nil:
		first, begin, end := p.First, int64(0), v.bytes
		if n := int64(len(v.offsets)); n > 0 && from > first {
			k := min((from-first)/offsetEvery, n-1)
			first, begin = first+k*offsetEvery, v.offsets[k]
		}
		if end < 0 {
			fi, err := v.file.Stat()
			if err != nil {
				return p.First, &SegmentError{v.name, p.First, err}
			}
			end = fi.Size()
		}
		var failed error
		next, _, err = eachLine(sectionOf(v.file, begin, end), first, func(index, offset int64, line []byte) error {
			failed = each(index, offset, line)
			return failed
		})
		if err != nil && failed == nil {
			err = &SegmentError{v.name, next, err}
		}
		return next, err
	case p.File == "":
		return p.First, nil
	}
	next, _, err = eachLineOf(ctx, v.fs, v.dir, v.away, p.Segment, each)
	return next, err
}

// Bytes is how many bytes of lines a part has, as far as that is known: what is
// stored, where the manifest does not say more.
func (v *View) Bytes(p Part) int64 {
	switch {
	case p.Open && v.bytes >= 0:
		return v.bytes
	case p.Open && v.file != nil:
		if fi, err := v.file.Stat(); err == nil {
			return fi.Size()
		}
	case p.Bytes > 0:
		return p.Bytes
	case p.File != "":
		if fi, err := v.fs.Stat(filepath.Join(v.dir, segmentsDir, p.File)); err == nil {
			return fi.Size()
		}
	}
	return 0
}

// Gaps is what is missing from the view, told from the names of its segments
// and the lines of those whose number is not listed.
func (v *View) Gaps(ctx context.Context) ([]*GapError, error) {
	var gaps []*GapError
	for _, p := range v.Parts() {
		next, err := p.First+p.Count, error(nil)
		if p.Count < 0 || p.File != "" && p.Stored == 0 {
			next, err = v.Part(ctx, p, func(int64, []byte) error { return nil })
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
		}
		if gap := p.Gap(next, err); gap != nil {
			gaps = append(gaps, gap)
		}
	}
	return gaps, nil
}

// Count is the number of complete lines up to the end of the view.
func (v *View) Count(ctx context.Context) (int64, error) {
	if v.next >= 0 {
		return v.next, nil
	}
	parts := v.Parts()
	next, err := v.Part(ctx, parts[len(parts)-1], func(int64, []byte) error { return nil })
	if errors.As(err, new(*SegmentError)) {
		err = nil // as far as it can be read
	}
	return next, err
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
	if k := (index - v.first) / offsetEvery; index >= v.first && v.file != nil && k < int64(len(v.offsets)) && v.bytes >= 0 {
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
