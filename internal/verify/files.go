package verify

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/mod/sumdb/note"
)

// maxSmall bounds what is read as trail.json or a checkpoint.
const maxSmall = 1 << 20

// maxManifest bounds what is read as a manifest.
const maxManifest = 256 << 20

// dirOf is the trail's directory, beside its log.
func dirOf(log string) string {
	if name, ok := strings.CutSuffix(log, ".jsonl"); ok && filepath.Base(log) != ".jsonl" {
		return name + ".trail"
	}
	return log + ".trail"
}

func readSmall(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSmall+1))
	if err == nil && len(data) > maxSmall {
		return nil, errUnparsable
	}
	return data, err
}

var errUnparsable = errors.New("it is not what belongs there")

// refused reports whether the operating system refused a file that is there.
func refused(err error) bool {
	return err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errUnparsable)
}

// identity is what is needed of trail.json.
type identity struct {
	Format int    `json:"format"`
	Origin string `json:"origin"`
	VKey   string `json:"vkey"`
}

func parseIdentity(data []byte) (identity, error) {
	var id identity
	if json.Unmarshal(data, &id) != nil || id.Format != 1 {
		return id, errUnparsable
	}
	v, err := note.NewVerifier(id.VKey)
	if err != nil || v.Name() != id.Origin {
		return id, errUnparsable
	}
	return id, nil
}

// head is a checkpoint (c2sp.org/tlog-checkpoint).
type head struct {
	size int64
	root hash
	file string
}

var errSignature = errors.New("it is not signed by the key")

func parseCheckpoint(signed []byte, key note.Verifier) (head, error) {
	n, err := note.Open(signed, note.VerifierList(key))
	if err != nil {
		var unknown *note.UnverifiedNoteError
		var invalid *note.InvalidSignatureError
		if errors.As(err, &unknown) || errors.As(err, &invalid) {
			return head{}, errSignature
		}
		return head{}, errUnparsable
	}
	// note passes over the bits of a base64 text that mean nothing. A file
	// that is not byte for byte what was written is told.
	_, sigs, _ := strings.Cut(string(signed)[len(n.Text):], "\n")
	for _, line := range strings.Split(strings.TrimSuffix(sigs, "\n"), "\n") {
		if _, err := base64.StdEncoding.Strict().DecodeString(line[strings.LastIndexByte(line, ' ')+1:]); err != nil {
			return head{}, errUnparsable
		}
	}
	lines := strings.Split(n.Text, "\n")
	if len(lines) < 4 || lines[0] != key.Name() {
		return head{}, errUnparsable
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	root, err2 := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || err2 != nil || size < 0 || strconv.FormatInt(size, 10) != lines[1] || len(root) != len(hash{}) {
		return head{}, errUnparsable
	}
	return head{size: size, root: hash(root)}, nil
}

// segment is a file of lines; the open one has the log's own name.
type segment struct {
	first int64
	name  string // full path
	short string // as reports name it
	bytes int64  // of its file
	open  *os.File
}

// listSegments lists the files of lines, ascending, the open one last. A seal
// may be going on: then it looks again.
func listSegments(log, dir string) ([]segment, error) {
	for range 100 {
		list, settled, err := trySegments(log, dir)
		if err != nil || settled {
			return list, err
		}
		if n := len(list); n > 0 && list[n-1].open != nil {
			list[n-1].open.Close()
		}
	}
	return nil, fmt.Errorf("%s: segments change faster than they can be listed", log)
}

func trySegments(log, dir string) (list []segment, settled bool, err error) {
	f, err := os.Open(log)
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		return nil, false, err
	}
	defer func() {
		if err != nil && f != nil {
			f.Close()
		}
	}()
	listed := manifestFiles(filepath.Join(dir, "manifest"))
	names, err := os.ReadDir(filepath.Join(dir, "segments"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, false, err
	}
	err = nil
	var mine os.FileInfo
	if f != nil {
		if mine, err = f.Stat(); err != nil {
			return nil, false, err
		}
	}
	openFirst := int64(-1) // not known until what is before it was counted
	found := map[int64]segment{}
	for _, d := range names {
		number, suffix, _ := strings.Cut(d.Name(), ".")
		first, err := strconv.ParseInt(number, 10, 64)
		if err != nil || len(number) != 20 || first < 0 || suffix != "jsonl" && suffix != "jsonl.zst" {
			continue
		}
		name := filepath.Join(dir, "segments", d.Name())
		fi, err := os.Stat(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, false, nil // compressed a moment ago
		}
		if err != nil {
			return nil, false, err
		}
		if mine != nil && os.SameFile(mine, fi) {
			openFirst = first // between the two steps of a seal
			continue
		}
		if had, ok := found[first]; ok {
			// Both are there: the manifest's counts, without it the plain one.
			if keep := listed[first]; keep == filepath.Base(had.name) || keep == "" && strings.HasSuffix(had.name, ".jsonl") {
				continue
			}
		}
		found[first] = segment{first: first, name: name, short: "segments/" + d.Name(), bytes: fi.Size()}
	}
	for _, s := range found {
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b segment) int { return cmp.Compare(a.first, b.first) })
	if f == nil {
		return list, true, nil
	}
	now, err := os.Stat(log)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, false, err
	}
	settled = err == nil && os.SameFile(mine, now)
	err = nil
	return append(list, segment{first: openFirst, name: log, short: filepath.Base(log), bytes: mine.Size(), open: f}), settled, nil
}

// manifestFiles is which file of a segment counts; a manifest that is missing
// or broken chooses nothing.
func manifestFiles(name string) map[int64]string {
	f, err := os.Open(name)
	if err != nil {
		return nil
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxManifest))
	if err != nil {
		return nil
	}
	return parseManifest(data)
}

func parseManifest(data []byte) map[int64]string {
	var m struct {
		Format   int `json:"format"`
		Segments []struct {
			First int64  `json:"first"`
			File  string `json:"file"`
		} `json:"segments"`
	}
	if json.Unmarshal(data, &m) != nil || m.Format != 1 {
		return nil
	}
	files := map[int64]string{}
	for _, s := range m.Segments {
		files[s.First] = s.File
	}
	return files
}

// reader opens a segment's lines.
func (s *segment) reader() (io.ReadCloser, error) {
	if s.open != nil {
		if _, err := s.open.Seek(0, io.SeekStart); err != nil {
			return nil, err
		}
		return io.NopCloser(s.open), nil
	}
	f, err := os.Open(s.name)
	if errors.Is(err, fs.ErrNotExist) && strings.HasSuffix(s.name, ".jsonl") {
		s.name, s.short = s.name+".zst", s.short+".zst" // compressed since it was listed
		f, err = os.Open(s.name)
	}
	if err != nil {
		return nil, err
	}
	if !strings.HasSuffix(s.name, ".zst") {
		return f, nil
	}
	z, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1))
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

// proofs reads tiles and bundles.
type proofs struct{ dir string }

// bundles is the level of entry bundles, as a tile's.
const bundles = -1

func tilePath(level int, n int64, width int) string {
	s := fmt.Sprintf("%03d", n%1000)
	for n >= 1000 {
		n /= 1000
		s = fmt.Sprintf("x%03d/%s", n%1000, s)
	}
	where := "entries"
	if level != bundles {
		where = strconv.Itoa(level)
	}
	if width < tileWidth {
		return fmt.Sprintf("tile/%s/%s.p/%d", where, s, width)
	}
	return fmt.Sprintf("tile/%s/%s", where, s)
}

// tile gives the first width hashes of a tile; of a bundle, the digests.
func (p proofs) tile(level int, n int64, width int) (hashes []hash, file string, err error) {
	var raw []byte
	data, file, err := p.read(level, n, width, &raw)
	if err != nil {
		return nil, file, err
	}
	hashes = make([]hash, width)
	for i := range hashes {
		hashes[i] = tileHash(data, level, i)
	}
	return hashes, file, nil
}

// read reads the first width entries of a tile or bundle into raw, which it
// makes as large as it must be. A partial file goes when its full one is
// there: then that is read.
func (p proofs) read(level int, n int64, width int, raw *[]byte) (data []byte, file string, err error) {
	file = tilePath(level, n, width)
	for _, w := range [...]int{width, tileWidth, width} {
		name := tilePath(level, n, w)
		size := w * entrySize(level)
		if cap(*raw) <= size {
			*raw = make([]byte, tileWidth*(len(hash{})+2)+1)
		}
		var got int
		got, err = readInto(filepath.Join(p.dir, filepath.FromSlash(name)), (*raw)[:size+1])
		switch {
		case err == nil && got == size && validTile((*raw)[:size], level):
			return (*raw)[:width*entrySize(level)], name, nil
		case err == nil:
			return nil, name, errUnparsable
		case refused(err):
			return nil, name, err
		}
	}
	return nil, file, err
}

// readInto reads a file until its end or until buf is full.
func readInto(name string, buf []byte) (n int, err error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, err
	}
	n, err = io.ReadFull(f, buf)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = nil
	}
	return n, errors.Join(err, f.Close())
}

// entrySize is how many bytes an entry of a tile or bundle has.
func entrySize(level int) int {
	if level == bundles {
		return 2 + len(hash{}) // a uint16 length before it
	}
	return len(hash{})
}

// validTile checks the lengths in a bundle; a tile is any hashes.
func validTile(data []byte, level int) bool {
	if len(data)%entrySize(level) != 0 {
		return false
	}
	if level == bundles {
		for ; len(data) > 0; data = data[entrySize(level):] {
			if data[0] != 0 || int(data[1]) != len(hash{}) {
				return false
			}
		}
	}
	return true
}

// tileHash is the i-th hash of a valid tile or bundle.
func tileHash(data []byte, level, i int) hash {
	each := entrySize(level)
	return hash(data[(i+1)*each-len(hash{}) : (i+1)*each])
}
