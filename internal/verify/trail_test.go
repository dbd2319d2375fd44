package verify

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/mod/sumdb/note"
)

// This file writes trails from docs/format.md alone: plainly, by the
// definitions, and with no code of the writer or of this package.

// The key of the published vector: Ed25519 seed of 32 bytes of 0x01.
const (
	testSKey = "PRIVATE+KEY+example.com/trail+b6a9731a+AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB"
	testVKey = "example.com/trail+b6a9731a+AYqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c"
	// Another key of that name: seed of 32 bytes of 0x02.
	otherSKey = "PRIVATE+KEY+example.com/trail+76e49b6b+AQICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIC"
	otherVKey = "example.com/trail+76e49b6b+AYE5dw6ofRdfVqNUZsNMfszLjYqRtO43ol32D1uPybOU"
)

type fataler interface {
	Helper()
	Fatal(...any)
}

// trail is what a trail is to be; write makes the files.
type trail struct {
	t    fataler
	log  string
	skey string
	vkey string
	// segments are lines without newlines, the last being the open segment.
	segments [][]string
	tail     string       // of the open segment, behind the last newline
	plain    map[int]bool // sealed segments that are not compressed yet
	size     int64        // that checkpoint covers
	kept     []int64
}

func (w *trail) dir() string               { return strings.TrimSuffix(w.log, ".jsonl") + ".trail" }
func (w *trail) path(name string) string   { return filepath.Join(w.dir(), filepath.FromSlash(name)) }
func (w *trail) first(segment int) int64   { return int64(len(slices.Concat(w.segments[:segment]...))) }
func (w *trail) lines() []string           { return slices.Concat(w.segments...) }
func (w *trail) sealedName(i int) string   { return fmt.Sprintf("segments/%020d.jsonl.zst", w.first(i)) }
func (w *trail) verify(o Options) *Report  { w.t.Helper(); return check(w.t, w.log, o) }
func (w *trail) remove(name string)        { w.t.Helper(); must(w.t, os.Remove(w.path(name))) }
func (w *trail) put(name string, b []byte) { w.t.Helper(); putFile(w.t, w.path(name), b) }
func (w *trail) get(name string) []byte {
	w.t.Helper()
	b, err := os.ReadFile(w.path(name))
	must(w.t, err)
	return b
}

func check(t fataler, log string, o Options) *Report {
	t.Helper()
	o.LogPath = log
	r, err := Verify(context.Background(), o)
	must(t, err)
	return r
}

func must(t fataler, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func putFile(t fataler, name string, b []byte) {
	t.Helper()
	err := os.WriteFile(name, b, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		must(t, os.MkdirAll(filepath.Dir(name), 0o700))
		err = os.WriteFile(name, b, 0o600)
	}
	must(t, err)
}

// write makes all files of the trail anew.
func (w *trail) write() {
	w.t.Helper()
	must(w.t, os.RemoveAll(w.dir()))
	w.writeLines()
	w.writeProofs(bundles, math.MaxInt)
	w.writeIdentity()
	w.writeCheckpoints()
}

func (w *trail) writeIdentity() {
	w.t.Helper()
	name, _, _ := strings.Cut(w.vkey, "+")
	b, err := json.Marshal(map[string]any{"format": 1, "origin": name, "vkey": w.vkey, "created": "2026-01-02T03:04:05.678Z", "profile": "plain"})
	must(w.t, err)
	w.put("trail.json", append(b, '\n'))
}

// writeLines makes the log, the sealed segments and the manifest.
func (w *trail) writeLines() {
	w.t.Helper()
	type listed struct {
		First int64  `json:"first"`
		Count int64  `json:"count"`
		File  string `json:"file"`
		Bytes int64  `json:"bytes"`
	}
	var manifest []listed
	for i := range w.segments {
		text := w.text(i)
		switch {
		case i == len(w.segments)-1:
			putFile(w.t, w.log, append(text, w.tail...))
		case w.plain[i]:
			w.put(strings.TrimSuffix(w.sealedName(i), ".zst"), text)
		default:
			w.put(w.sealedName(i), compress(w.t, text))
			manifest = append(manifest, listed{w.first(i), int64(len(w.segments[i])), filepath.Base(w.sealedName(i)), int64(len(text))})
		}
	}
	b, err := json.Marshal(map[string]any{"format": 1, "segments": manifest})
	must(w.t, err)
	w.put("manifest", append(b, '\n'))
}

func (w *trail) text(segment int) []byte {
	var b []byte
	for _, l := range w.segments[segment] {
		b = append(append(b, l...), '\n')
	}
	return b
}

// compress makes frames of at most 1 MiB of whole lines, and a skippable frame
// where the seek table is.
func compress(t fataler, text []byte) []byte {
	t.Helper()
	e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	must(t, err)
	defer e.Close()
	var out []byte
	for len(text) > 0 {
		n := len(text)
		if n > 1<<20 {
			if n = bytes.LastIndexByte(text[:1<<20], '\n') + 1; n == 0 {
				n = bytes.IndexByte(text, '\n') + 1
			}
		}
		out = e.EncodeAll(text[:n], out)
		text = text[n:]
	}
	out = binary.LittleEndian.AppendUint32(out, 0x184D2A5E)
	out = binary.LittleEndian.AppendUint32(out, 9)
	return append(out, 0, 0, 0, 0, 0, 0xB1, 0xEA, 0x92, 0x8F)
}

// mth is MTH of RFC 6962 §2.1, over leaf hashes.
func mth(leaves [][32]byte) [32]byte {
	switch n := len(leaves); n {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return leaves[0]
	default:
		k := 1
		for 2*k < n {
			k *= 2
		}
		l, r := mth(leaves[:k]), mth(leaves[k:])
		return sha256.Sum256(slices.Concat([]byte{1}, l[:], r[:]))
	}
}

func leavesOf(lines []string) [][32]byte {
	leaves := make([][32]byte, len(lines))
	for i, l := range lines {
		d := sha256.Sum256([]byte(l))
		leaves[i] = sha256.Sum256(append([]byte{0}, d[:]...))
	}
	return leaves
}

// writeProofs makes bundles, and tiles, of the levels from to to, for size and
// the kept sizes.
func (w *trail) writeProofs(from, to int) {
	w.t.Helper()
	for _, size := range append(slices.Clone(w.kept), w.size) {
		for name, data := range proofFiles(w.lines()[:size], from, to) {
			partial, _, isPartial := strings.Cut(name, ".p/")
			if _, err := os.Stat(w.path(partial)); isPartial && err == nil {
				continue // a partial one goes when the full one is there
			}
			w.put(name, data)
			if !isPartial {
				must(w.t, os.RemoveAll(w.path(name+".p")))
			}
		}
	}
}

// proofFiles are the bundles and tiles of a tree, by name.
func proofFiles(lines []string, from, to int) map[string][]byte {
	files := map[string][]byte{}
	if from == bundles {
		for n := 0; n*256 < len(lines); n++ {
			part := lines[n*256 : min(len(lines), n*256+256)]
			var data []byte
			for _, l := range part {
				d := sha256.Sum256([]byte(l))
				data = append(append(data, 0, 32), d[:]...)
			}
			files[proofName("entries", n, len(part))] = data
		}
	}
	hashes := leavesOf(lines)
	for level := 0; len(hashes) > 0 && level <= to; level++ {
		var above [][32]byte
		for n := 0; n*256 < len(hashes); n++ {
			part := hashes[n*256 : min(len(hashes), n*256+256)]
			var data []byte
			for _, h := range part {
				data = append(data, h[:]...)
			}
			if level >= from {
				files[proofName(fmt.Sprint(level), n, len(part))] = data
			}
			if len(part) == 256 {
				above = append(above, mth(part))
			}
		}
		hashes = above
	}
	return files
}

func proofName(level string, n, width int) string {
	name := fmt.Sprintf("%03d", n%1000)
	for n /= 1000; n > 0; n /= 1000 {
		name = fmt.Sprintf("x%03d/%s", n%1000, name)
	}
	if name = "tile/" + level + "/" + name; width < 256 {
		name += fmt.Sprintf(".p/%d", width)
	}
	return name
}

func (w *trail) writeCheckpoints() {
	w.t.Helper()
	for _, size := range w.kept {
		w.put(fmt.Sprint("checkpoints/", size), w.sign(size))
	}
	w.put("checkpoint", w.sign(w.size))
}

// sign makes the checkpoint of a size.
func (w *trail) sign(size int64) []byte {
	w.t.Helper()
	return w.signRoot(size, mth(leavesOf(w.lines()[:size])))
}

func (w *trail) signRoot(size int64, root [32]byte) []byte {
	w.t.Helper()
	signer, err := note.NewSigner(w.skey)
	must(w.t, err)
	signed, err := note.Sign(&note.Note{Text: fmt.Sprintf("%s\n%d\n%s\n", signer.Name(), size, base64.StdEncoding.EncodeToString(root[:]))}, signer)
	must(w.t, err)
	return signed
}

// newTrail is a trail whose segments have these numbers of lines, with a
// checkpoint over all and kept ones at each seal. It is not written yet.
func newTrail(t fataler, dir string, counts ...int) *trail {
	w := &trail{t: t, log: filepath.Join(dir, "log.jsonl"), skey: testSKey, vkey: testVKey, plain: map[int]bool{}}
	n := 0
	for _, count := range counts {
		var lines []string
		for range count {
			lines = append(lines, line(n))
			n++
		}
		w.segments = append(w.segments, lines)
	}
	w.size = int64(n)
	for i := 1; i < len(counts); i++ {
		w.kept = append(w.kept, w.first(i))
	}
	return w
}

// line is a line like no other, of a length of its own.
func line(n int) string {
	return fmt.Sprintf(`{"n":%d,"v":"%s"}`, n, strings.Repeat("x", n*7%50))
}

// state is every file below a directory with its content and time.
func state(t fataler, dir string) string {
	t.Helper()
	var b strings.Builder
	must(t, filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		var data []byte
		if fi.Mode().IsRegular() {
			if data, err = os.ReadFile(name); err != nil {
				return err
			}
		}
		fmt.Fprintf(&b, "%s %v %v %x\n", name, fi.Mode(), fi.ModTime(), sha256.Sum256(data))
		return nil
	}))
	return b.String()
}
