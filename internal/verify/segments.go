package verify

import (
	"cmp"
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

	"github.com/klauspost/compress/zstd"

	"github.com/kaizen-audit/kaizen-audit/internal/lifecycle"
)

// maxManifest bounds what is read as a manifest: a million segments.
const maxManifest = 256 << 20

// maxWindow is the largest zstd window that is decoded: what the zstd program
// takes without being asked (docs/format.md §5).
const maxWindow = 128 << 20

// segment is a file of lines. The open one has the log's own name.
type segment struct {
	first int64    // -1: not known until what is before it was counted
	name  string   // full path
	short string   // as reports name it
	bytes int64    // of its lines, as far as that is known; for progress only
	open  *os.File // the open segment's, held since it was listed
	away  fetch    // where its file is in the archive
}

// fetch opens a segment's sealed file from the archive.
type fetch func(first int64) (*os.File, error)

// archiveError says that the archive can't be asked.
type archiveError struct{ error }

func (e archiveError) Unwrap() error { return e.error }

// archivedSuffix ends the name of what stands for a sealed file in the archive.
const archivedSuffix = ".archived"

// listSegments lists the files of lines, ascending, the open one last. A seal
// may be going on: then it looks again. The caller closes the open one.
func listSegments(log, dir string, away fetch) ([]segment, error) {
	for range 100 {
		list, settled, err := trySegments(log, dir, away)
		if err == nil && settled {
			return list, nil
		}
		closeSegments(list)
		if err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%s: segments change faster than they can be listed", log)
}

func closeSegments(list []segment) {
	for _, s := range list {
		if s.open != nil {
			s.open.Close()
		}
	}
}

// trySegments follows docs/format.md §4, "Where the open segment begins". It
// is settled when the log is still the file that was opened, and a second look
// shows the same names: one look at a directory that is being changed can miss
// a file that is renamed meanwhile.
func trySegments(log, dir string, away fetch) (list []segment, settled bool, err error) {
	last := segment{first: -1, name: log, short: filepath.Base(log)}
	var mine fs.FileInfo
	last.open, err = open(log)
	noFile := errors.Is(err, errUnparsable)
	switch {
	case err == nil:
		defer func() {
			if err != nil {
				last.open.Close()
			}
		}()
		if mine, err = last.open.Stat(); err != nil {
			return nil, false, err
		}
		last.bytes = mine.Size()
	case refused(err):
		return nil, false, err
	}

	sealed := filepath.Join(dir, "segments")
	names, err := namesIn(sealed)
	if err != nil {
		return nil, false, err
	}
	listed := readManifest(filepath.Join(dir, "manifest"))
	settled = true
	for _, name := range names {
		file, archived := strings.CutSuffix(name, archivedSuffix)
		first, ok := firstOf(file)
		if !ok || archived && !strings.HasSuffix(file, ".zst") {
			continue
		}
		if archived {
			// By name it comes behind the files that it stands for, which count.
			if n := len(list); n == 0 || list[n-1].first != first {
				list = append(list, segment{first: first, name: filepath.Join(sealed, file), short: "segments/" + file, bytes: listed[first].Bytes, away: away})
			}
			continue
		}
		fi, err := os.Stat(filepath.Join(sealed, name))
		if errors.Is(err, fs.ErrNotExist) {
			settled = false // compressed a moment ago
			continue
		}
		if err != nil {
			return nil, false, err
		}
		if mine != nil && os.SameFile(mine, fi) {
			last.first = first // between the two steps of a seal
			continue
		}
		s := segment{first: first, name: filepath.Join(sealed, name), short: "segments/" + name, bytes: fi.Size(), away: away}
		chosen := listed[first]
		if chosen.File == name && strings.HasSuffix(name, ".zst") {
			s.bytes = max(s.bytes, chosen.Bytes)
		}
		// Plain before compressed, by name: the manifest's counts, without it
		// the plain one.
		if n := len(list); n > 0 && list[n-1].first == first {
			if chosen.File == name {
				list[n-1] = s
			}
			continue
		}
		list = append(list, s)
	}
	slices.SortStableFunc(list, func(a, b segment) int { return cmp.Compare(a.first, b.first) })
	again, err := namesIn(sealed)
	if err != nil {
		return nil, false, err
	}
	settled = settled && slices.Equal(names, again)
	now, err := os.Stat(log)
	if err = absent(err); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, false, err
	}
	gone := err != nil
	if mine == nil { // settled when it stays away
		return list, settled && (gone || noFile), nil
	}
	return append(list, last), settled && !gone && os.SameFile(mine, now), nil
}

// namesIn lists a directory by name, one that is not there as empty.
func namesIn(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err = absent(err); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

// firstOf is the first index in a segment's file name.
func firstOf(name string) (first int64, ok bool) {
	number, suffix, _ := strings.Cut(name, ".")
	if suffix != "jsonl" && suffix != "jsonl.zst" || len(number) != 20 || strings.Trim(number, "0123456789") != "" {
		return 0, false
	}
	first, err := strconv.ParseInt(number, 10, 64)
	return first, err == nil
}

// listing is what is used of a manifest's entry.
type listing struct {
	First int64  `json:"first"`
	File  string `json:"file"`
	Bytes int64  `json:"bytes"`
}

// readManifest tells which file of a segment counts. It is not trusted with
// anything: one that is missing or broken chooses nothing.
func readManifest(name string) map[int64]listing {
	data, err := readSmall(name, maxManifest)
	if err != nil {
		return nil
	}
	return parseManifest(data)
}

func parseManifest(data []byte) map[int64]listing {
	var m struct {
		Format   int       `json:"format"`
		Segments []listing `json:"segments"`
	}
	if json.Unmarshal(data, &m) != nil || m.Format != knownFormat {
		return nil
	}
	files := make(map[int64]listing, len(m.Segments))
	for _, s := range m.Segments {
		files[s.First] = s
	}
	return files
}

// reader opens a segment's lines.
func (s *segment) reader() (io.ReadCloser, error) {
	if s.open != nil {
		return io.NopCloser(io.NewSectionReader(s.open, 0, math.MaxInt64)), nil
	}
	name := s.name
	f, err := open(name)
	if errors.Is(err, fs.ErrNotExist) && strings.HasSuffix(name, ".jsonl") {
		name += ".zst" // compressed since it was listed
		f, err = open(name)
	}
	if errors.Is(err, fs.ErrNotExist) && s.away != nil {
		switch f, err = s.away(s.first); {
		case errors.Is(err, fs.ErrInvalid):
			err = fmt.Errorf("%w: %w", errUnparsable, err)
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			err = archiveError{fmt.Errorf("%s: %w", s.short, err)}
		}
	}
	if err != nil {
		return nil, err
	}
	if !strings.HasSuffix(name, ".zst") {
		return f, nil
	}
	z, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		f.Close()
		return nil, err
	}
	return &zstdReader{z, f}, nil
}

type zstdReader struct {
	*zstd.Decoder
	file *os.File
}

func (z *zstdReader) Close() error {
	z.Decoder.Close()
	return z.file.Close()
}

// checkReference compares what stands for a segment with the lines that were read from
// the archive: the trail's own entries that it names are all of them, since others read
// it in their place.
func (v *verification) checkReference(first int64, said []lifecycle.Line) {
	file := fmt.Sprintf("segments/%020d.jsonl.zst%s", first, archivedSuffix)
	data, err := readSmall(filepath.Join(v.dir, filepath.FromSlash(file)), maxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return // pruned meanwhile
	}
	var r struct {
		Count int64
		Own   []struct {
			Index int64
			Line  string
		}
	}
	if err != nil || json.Unmarshal(data, &r) != nil {
		v.find(Segment, file, Unparsable, file+" can't be read")
		return
	}
	for _, l := range said {
		if l.Index < first || l.Index >= first+r.Count {
			continue
		}
		if len(r.Own) == 0 || r.Own[0].Index != l.Index || r.Own[0].Line != string(l.Text) {
			v.findings = append(v.findings, Finding{Artefact: Segment, File: file, Problem: Changed, Detail: fmt.Sprintf("%s does not name entry %d as it is in the archive", file, l.Index)}.at(l.Index, true))
			return
		}
		r.Own = r.Own[1:]
	}
	if len(r.Own) > 0 {
		v.find(Segment, file, Changed, file+" names entries that the segment does not have")
	}
}
