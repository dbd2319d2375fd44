package verify

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/mod/sumdb/note"

	"github.com/kaizen-audit/kaizen-audit/internal/trust"
)

// maxSmall bounds what is read as trail.json or a checkpoint.
const maxSmall = 1 << 20

// resolve follows a link at the log's path, also one whose target is gone.
func resolve(log string) string {
	if resolved, err := filepath.EvalSymlinks(log); err == nil {
		return resolved
	}
	if target, err := os.Readlink(log); err == nil {
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(log), target)
		}
		return target
	}
	return log
}

// dirOf is the trail's directory, beside its log.
func dirOf(log string) string {
	if name, ok := strings.CutSuffix(log, ".jsonl"); ok && filepath.Base(log) != ".jsonl" {
		return name + ".trail"
	}
	return log + ".trail"
}

var (
	errUnparsable = errors.New("it is not what belongs there")
	errSignature  = errors.New("it is not signed by the key")
)

// refused reports whether the operating system refused a file that is there.
func refused(err error) bool {
	return err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errUnparsable) && !errors.Is(err, errSignature)
}

// open opens a file for reading. What is no file is not waited for: a pipe or
// device in its place is damage. A directory is refused when it is read.
func open(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, absent(err)
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() && !fi.IsDir() {
		err = errUnparsable
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// absent makes a file below what is no directory one that is not there.
func absent(err error) error {
	if errors.Is(err, syscall.ENOTDIR) {
		return fs.ErrNotExist
	}
	return err
}

// readSmall reads a file of at most limit bytes.
func readSmall(name string, limit int64) ([]byte, error) {
	f, err := open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		return nil, errUnparsable
	}
	return data, err
}

// identity is what is needed of trail.json.
type identity struct {
	Format int         `json:"format"`
	Origin string      `json:"origin"`
	VKey   string      `json:"vkey"`
	VKeys  []trust.Key `json:"vkeys"`

	LifecycleVKey string `json:"lifecycle_vkey"`
}

// keys are all of the trail's; the last is the present one.
func (id identity) keys() []trust.Key {
	if len(id.VKeys) == 0 {
		return []trust.Key{{VKey: id.VKey}}
	}
	return id.VKeys
}

// knownFormat is the format that this package reads (docs/format.md).
const knownFormat = 1

func parseIdentity(data []byte) (identity, error) {
	var id identity
	if json.Unmarshal(data, &id) != nil {
		return identity{}, errUnparsable
	}
	if id.Format != knownFormat {
		return identity{}, fmt.Errorf("%w: format %d where this program knows %d", errUnparsable, id.Format, knownFormat)
	}
	v, err := note.NewVerifier(id.VKey)
	if err != nil || v.Name() != id.Origin {
		return identity{}, errUnparsable
	}
	if keys := id.keys(); keys[len(keys)-1].VKey != id.VKey {
		return identity{}, errUnparsable
	}
	return id, nil
}

// signatureError is errSignature and, for errors.As, what note says.
type signatureError struct{ cause error }

func (e signatureError) Error() string   { return errSignature.Error() }
func (e signatureError) Unwrap() []error { return []error{errSignature, e.cause} }

// head is a checkpoint (c2sp.org/tlog-checkpoint).
type head struct {
	size int64
	root hash
	file string // below the trail's directory; "" for one from outside
	kind string // the anchor that one from outside is
	from string // who vouched for it
}

// name is what reports call it.
func (h head) name() string {
	switch {
	case h.from != "":
		return "the checkpoint that " + h.from + " has vouched for"
	case h.file == "":
		return "the checkpoint that was given"
	}
	return h.file
}

// parseCheckpoint reads a checkpoint whose origin is the keys' name, and that one of
// them has signed which was in use for its size.
func parseCheckpoint(signed []byte, keys trust.Set) (head, error) {
	n, err := note.Open(signed, keys)
	if err != nil {
		var unknown *note.UnverifiedNoteError
		var invalid *note.InvalidSignatureError
		if errors.As(err, &unknown) || errors.As(err, &invalid) {
			return head{}, signatureError{err}
		}
		return head{}, errUnparsable
	}
	// note passes over the bits of a base64 text that mean nothing. A file
	// that is not byte for byte what was written is told.
	_, sigs, _ := strings.Cut(string(signed)[len(n.Text):], "\n")
	for line := range strings.Lines(sigs) {
		line = strings.TrimSuffix(line, "\n")
		if _, err := base64.StdEncoding.Strict().DecodeString(line[strings.LastIndexByte(line, ' ')+1:]); err != nil {
			return head{}, errUnparsable
		}
	}
	lines := strings.Split(n.Text, "\n")
	if len(lines) < 4 || lines[0] != keys.Name() {
		return head{}, errUnparsable
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 || strconv.FormatInt(size, 10) != lines[1] {
		return head{}, errUnparsable
	}
	root, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(root) != len(hash{}) {
		return head{}, errUnparsable
	}
	if !keys.Signed(n, size) {
		return head{}, errSignature
	}
	return head{size: size, root: hash(root)}, nil
}

// CheckpointsIn are the signed checkpoints in data: one, or several behind each
// other, with an empty line between them or without. What is no checkpoint is one
// of them too.
func CheckpointsIn(data []byte) [][]byte {
	var list [][]byte
	for {
		// C2SP signed-note: text, an empty line, signatures.
		_, rest, ok := bytes.Cut(data, []byte("\n\n"+signature))
		if !ok {
			break
		}
		_, rest, ok = bytes.Cut(rest, []byte("\n"))
		for ok && bytes.HasPrefix(rest, []byte(signature)) {
			_, rest, ok = bytes.Cut(rest, []byte("\n"))
		}
		if !ok || len(rest) == 0 {
			break
		}
		list = append(list, data[:len(data)-len(rest)])
		data = bytes.TrimPrefix(rest, []byte("\n"))
	}
	if len(data) > 0 || len(list) == 0 {
		list = append(list, data)
	}
	return list
}

// signature begins a line of a signed note that is one.
const signature = "— "

// originOf is the origin of what has the form of a signed checkpoint; its
// signature is not looked at.
func originOf(signed []byte) (string, error) {
	// note.Open tells the form of a note before it looks for a key.
	var unknown *note.UnverifiedNoteError
	if _, err := note.Open(signed, note.VerifierList()); !errors.As(err, &unknown) {
		return "", ErrNoCheckpoint
	}
	lines := strings.Split(unknown.Note.Text, "\n")
	if len(lines) < 4 || lines[0] == "" {
		return "", ErrNoCheckpoint
	}
	if _, err := strconv.ParseUint(lines[1], 10, 63); err != nil {
		return "", ErrNoCheckpoint
	}
	if root, err := base64.StdEncoding.DecodeString(lines[2]); err != nil || len(root) != len(hash{}) {
		return "", ErrNoCheckpoint
	}
	return lines[0], nil
}

// bundles is the level of entry bundles, as a tile's.
const bundles = -1

// tilePath is c2sp.org/tlog-tiles's, below the trail's directory.
func tilePath(level int, n int64, width int) string {
	b := make([]byte, 0, 64)
	b = append(b, "tile/"...)
	if level == bundles {
		b = append(b, "entries/"...)
	} else {
		b = append(strconv.AppendInt(b, int64(level), 10), '/')
	}
	groups := int64(1)
	for n/groups >= 1000 {
		groups *= 1000
	}
	for ; groups > 0; groups /= 1000 {
		if groups > 1 {
			b = append(b, 'x')
		}
		g := n / groups % 1000
		b = append(b, byte('0'+g/100), byte('0'+g/10%10), byte('0'+g%10), '/')
	}
	b = b[:len(b)-1]
	if width < tileWidth {
		b = strconv.AppendInt(append(b, ".p/"...), int64(width), 10)
	}
	return string(b)
}

// entrySize is how many bytes an entry of a tile or bundle has.
func entrySize(level int) int {
	if level == bundles {
		return 2 + len(hash{}) // a big-endian uint16 length before it
	}
	return len(hash{})
}

// tile is the content of a tile or bundle that has the right form.
type tile struct {
	level int
	data  []byte
}

// parseTile takes a tile or bundle of exactly width entries.
func parseTile(level, width int, data []byte) (tile, error) {
	if len(data) != width*entrySize(level) {
		return tile{}, errUnparsable
	}
	if level == bundles {
		for i := 0; i < len(data); i += entrySize(level) {
			if data[i] != 0 || int(data[i+1]) != len(hash{}) {
				return tile{}, errUnparsable
			}
		}
	}
	return tile{level, data}, nil
}

// hash is the i-th hash; of a bundle, the digest.
func (t tile) hash(i int) *hash {
	each := entrySize(t.level)
	return (*hash)(t.data[(i+1)*each-len(hash{}) : (i+1)*each])
}

// leaf is the i-th leaf hash of a bundle or level-0 tile.
func (t tile) leaf(s *hasher, i int) hash {
	h := *t.hash(i)
	if t.level == bundles {
		s.leaf(&h, &h)
	}
	return h
}

// tileBuffer holds any tile or bundle and one byte more, which a file that is
// too long fills.
type tileBuffer [tileWidth*(2+len(hash{})) + 1]byte

// proofs reads the tiles and bundles of the trail in dir.
type proofs struct {
	dir    string
	packed *packedFiles
}

func newProofs(dir string) proofs { return proofs{dir, &packedFiles{}} }

// tile reads the first width entries of a tile or bundle into buf, and says
// from which file. A partial file goes when its full one is durable: then that
// is read.
func (p proofs) tile(level int, n int64, width int, buf *tileBuffer) (t tile, file string, err error) {
	t, file, err = p.exactly(level, n, width, buf)
	if width == tileWidth || !errors.Is(err, fs.ErrNotExist) {
		return t, file, err
	}
	t, full, err := p.exactly(level, n, tileWidth, buf)
	if errors.Is(err, fs.ErrNotExist) {
		return t, file, err
	}
	if err == nil {
		t.data = t.data[:width*entrySize(level)]
	}
	return t, full, err
}

// exactly is tile for the file of this very width.
func (p proofs) exactly(level int, n int64, width int, buf *tileBuffer) (t tile, file string, err error) {
	file = tilePath(level, n, width)
	got, err := readInto(p.dir+"/"+file, 0, buf[:width*entrySize(level)+1])
	if errors.Is(err, fs.ErrNotExist) && level <= 0 && width == tileWidth {
		if t, packed, ok, err := p.unpack(level, n, buf); ok {
			return t, packed, err
		}
	}
	if err != nil {
		return tile{}, file, err
	}
	t, err = parseTile(level, width, buf[:got])
	return t, file, err
}

// readInto reads a file from an offset until its end or until buf is full. It is not an
// os.File, whose setting up and tearing down costs as much again as reading a
// tile does: there are two for 256 entries.
func readInto(name string, from int64, buf []byte) (n int, err error) {
	f, err := syscall.Open(name, syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	for err == syscall.EINTR {
		f, err = syscall.Open(name, syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	}
	if err != nil {
		return 0, absent(&fs.PathError{Op: "open", Path: name, Err: err})
	}
	defer syscall.Close(f)
	for n < len(buf) {
		got, err := syscall.Pread(f, buf[n:], from+int64(n))
		switch {
		case err == syscall.EINTR:
		case err == syscall.ESPIPE: // a pipe
			return n, errUnparsable
		case err != nil:
			return n, &fs.PathError{Op: "read", Path: name, Err: err}
		case got == 0:
			return n, nil
		}
		n += max(got, 0)
	}
	return n, nil
}
