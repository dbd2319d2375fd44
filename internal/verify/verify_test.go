package verify

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"pgregory.net/rapid"
)

func isIntact(t fataler, r *Report, w *trail) {
	t.Helper()
	uncovered := int64(len(w.lines())) - w.size
	if r.Status != Intact || r.Size != w.size || r.Uncovered != uncovered || r.Torn != int64(len(w.tail)) ||
		r.Problem != "" || r.FirstBad != nil || len(r.Also) > 0 {
		t.Fatal(show(r))
	}
	var covered int64
	for _, g := range r.Ranges {
		if g.First != covered || g.State != stateChecked {
			t.Fatal(show(r))
		}
		covered += g.Count
	}
	if covered != w.size {
		t.Fatal(show(r))
	}
}

func isDamaged(t fataler, r *Report, artefact, file, problem string, index int64, exact bool) {
	t.Helper()
	if r.Status != Damaged || r.Artefact != artefact || r.File != file || r.Problem != problem ||
		r.FirstBad == nil || *r.FirstBad != index || r.Exact != exact {
		t.Fatal(fmt.Sprintf("want %s %s of %s at %d, exact %v; got %s", problem, artefact, file, index, exact, show(r)))
	}
}

// isBad is isDamaged where there is no index.
func isBad(t fataler, r *Report, artefact, file, problem string) {
	t.Helper()
	if r.Status != Damaged || r.Artefact != artefact || r.File != file || r.Problem != problem || r.FirstBad != nil {
		t.Fatal(fmt.Sprintf("want %s %s of %s; got %s", problem, artefact, file, show(r)))
	}
}

func show(r *Report) string {
	b, err := json.Marshal(r)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// The vector that was made with other people's code comes out of ours.
func TestPublishedVector(t *testing.T) {
	const checkpoint = "example.com/trail\n3\nNL/bZVvIdHiZZ7wQXx/xgyW7fve51bC0BF2EMGZMopM=\n\n" +
		"\u2014 example.com/trail tqlzGu9nMpE1o87ZJQ70I38jlYwTr1ityUuD0dlZg8pWeMJi08NLAgEsKj+ZKmMU1dVb1msR2Gnn0DPOqAEMKJTt8wI=\n"
	digests := []string{
		"f3013f933b9fb80ab6d995e7ad9da36f683837ba1d81e950c943d40111eac2f0",
		"2bfd14f43d17fc7cea24e0917a8879b4b2f880b8baeec1b9d90fbaad655e71bd",
		"363379742f80b51bdb9206579af7754911543079b9399cb3fc315fb199f476e8",
	}
	roots := []string{
		"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
		"jCe12ndsgPHp+Y3Ff46Q32oJ29dtO/mYvJ9jupkXvTU=",
		"DKDun4n2rf96u63J7ER4KCZYpTpif600YWeN1n+xihg=",
		"NL/bZVvIdHiZZ7wQXx/xgyW7fve51bC0BF2EMGZMopM=",
	}
	w := newTrail(t, t.TempDir(), 0)
	w.segments = [][]string{{`{"n":0}`, `{"n":1}`, `{"n":2}`}}
	for size, root := range roots {
		w.size = int64(size)
		w.write()
		r := w.verify(Options{})
		isIntact(t, r, w)
		if r.Root != root || r.Origin != "example.com/trail" {
			t.Errorf("size %d: %s", size, show(r))
		}
	}
	w.put("checkpoint", []byte(checkpoint))
	isIntact(t, w.verify(Options{}), w)

	var leaves []hash
	s := newHasher()
	for i, l := range w.lines() {
		var digest, leaf hash
		s.sum(&digest, []byte(l))
		s.leaf(&leaf, &digest)
		leaves = append(leaves, leaf)
		if got := fmt.Sprintf("%x", digest); got != digests[i] {
			t.Errorf("digest %d is %s", i, got)
		}
	}
	for size, root := range roots {
		f := frontier{hasher: s}
		if got := f.root(leaves[:size]); base64.StdEncoding.EncodeToString(got[:]) != root {
			t.Errorf("root %d is %x", size, got)
		}
	}
}

// The tree is that of the definition in RFC 6962, at every size.
func TestRootIsByDefinition(t *testing.T) {
	w := newTrail(t, t.TempDir(), 1100)
	leaves := leavesOf(w.lines())
	f := frontier{hasher: newHasher()}
	for size := range len(leaves) + 1 {
		rest := size % tileWidth
		if rest == 0 && size > 0 {
			must(t, f.add(1, f.hasher.reduce(slices.Clone(leaves[size-tileWidth:size])), nil))
		}
		if got := f.root(leaves[size-rest : size]); got != mth(leaves[:size]) {
			t.Fatalf("size %d: %x", size, got)
		}
	}
}

// genTrail is any intact trail: segments, kept checkpoints, lines past the
// checkpoint, and a tail that is torn.
func genTrail(rt *rapid.T, t *testing.T) *trail {
	counts := rapid.SliceOfN(rapid.OneOf(rapid.IntRange(0, 20), rapid.IntRange(250, 260), rapid.IntRange(500, 520)), 1, 4).Draw(rt, "segments")
	for i := range counts[:len(counts)-1] {
		counts[i] = max(counts[i], 1) // an empty segment is not sealed
	}
	w := newTrail(rt, dirOfRound(t), counts...)
	total := len(w.lines())
	w.size -= int64(rapid.IntRange(0, min(3, total-int(w.first(len(counts)-1)))).Draw(rt, "uncovered"))
	for range rapid.IntRange(0, 3).Draw(rt, "kept") {
		w.kept = append(w.kept, int64(rapid.IntRange(0, int(w.size)).Draw(rt, "size")))
	}
	slices.Sort(w.kept)
	w.kept = slices.Compact(w.kept)
	w.tail = rapid.SampledFrom([]string{"", "{", `{"torn":true}`}).Draw(rt, "tail")
	if n := len(counts) - 2; n >= 0 {
		w.plain[n] = rapid.Bool().Draw(rt, "cut off")
	}
	return w
}

// dirOfRound is an empty directory for each round of a property.
func dirOfRound(t *testing.T) string {
	dir := filepath.Join(t.TempDir(), "round")
	must(t, os.RemoveAll(dir))
	must(t, os.Mkdir(dir, 0o700))
	return dir
}

// No intact trail is accused, whoever looks and however, and nothing is
// written.
func TestIntactIsNeverAccused(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := genTrail(rt, t)
		w.write()
		for _, name := range []string{"manifest", "checkpoints"} {
			if rapid.IntRange(0, 4).Draw(rt, name) == 0 {
				must(rt, os.RemoveAll(w.path(name)))
			}
		}
		before := state(rt, filepath.Dir(w.log))
		isIntact(rt, w.verify(Options{Workers: rapid.IntRange(0, 5).Draw(rt, "workers")}), w)
		old := w.sign(int64(rapid.IntRange(0, int(w.size)).Draw(rt, "old")))
		for _, c := range []struct {
			o      Options
			anchor string
		}{
			{Options{}, AnchorNone},
			{Options{PinnedKey: testVKey}, AnchorPinned},
			{Options{Key: testVKey, PinnedKey: otherVKey}, AnchorPinned},
			{Options{Checkpoint: old, RequireAnchor: true}, AnchorCheckpoint},
			{Options{Key: testVKey, Checkpoint: old, RequireAnchor: true}, AnchorCheckpoint},
		} {
			r := w.verify(c.o)
			isIntact(rt, r, w)
			if r.Anchor != c.anchor || len(r.Unproven) < 2 {
				rt.Fatal(show(r))
			}
		}
		for _, o := range []Options{{}, {Key: testVKey}, {PinnedKey: testVKey}} {
			o.RequireAnchor = true
			isBad(rt, w.verify(o), Checkpoint, "", NoAnchor)
		}
		if after := state(rt, filepath.Dir(w.log)); after != before {
			rt.Fatalf("something was written:\n%s\n%s", before, after)
		}
	})
}

// Past 65,536 entries there are tiles on three levels.
func TestLargeTrail(t *testing.T) {
	w := newTrail(t, t.TempDir(), 40_000, 30_000, 1_000)
	w.kept = append(w.kept, 65_536, 65_537, 65_792)
	slices.Sort(w.kept)
	w.write()
	isIntact(t, w.verify(Options{}), w)
	for _, c := range []struct {
		file  string
		at    int
		index int64
	}{
		{"tile/0/256", 32 * 5, 65_541},
		{"tile/1/000", 32 * 7, 7 * 256},
		{"tile/1/001.p/21", 32 * 20, 65_536 + 20*256},
		{"tile/2/000.p/1", 0, 0},
		{"tile/entries/276", 34*3 + 2, 276*256 + 3},
	} {
		good := w.get(c.file)
		bad := bytes.Clone(good)
		bad[c.at] ^= 1
		w.put(c.file, bad)
		artefact := Tile
		if strings.HasPrefix(c.file, "tile/entries") {
			artefact = Bundle
		}
		r := w.verify(Options{})
		isDamaged(t, r, artefact, c.file, Changed, c.index, true)
		if len(r.Also) > 0 {
			t.Error(show(r))
		}
		w.put(c.file, good)
	}
	w.segments[0][39_000] = "{}"
	w.writeLines()
	isDamaged(t, w.verify(Options{}), Line, w.sealedName(0), Changed, 39_000, true)
}

// Lines of any length, around and far past the size of a block.
func TestLongLines(t *testing.T) {
	lengths := []int{0, 1, blockBytes - 2, blockBytes - 1, blockBytes, blockBytes + 1, 2*blockBytes - 1, 2 * blockBytes, 3*blockBytes + 7, 17 << 20}
	for _, sealed := range []bool{false, true} {
		for shift := range 3 {
			w := newTrail(t, t.TempDir(), 0)
			var lines []string
			lines = append(lines, strings.Repeat("a", shift))
			for i, n := range lengths {
				lines = append(lines, strings.Repeat(string(rune('a'+i)), n), line(i))
			}
			w.segments = [][]string{lines}
			if sealed {
				w.segments = append(w.segments, []string{line(100)})
			}
			w.size = int64(len(w.lines()))
			w.tail = strings.Repeat("t", shift*blockBytes)
			w.write()
			isIntact(t, w.verify(Options{}), w)
			w.segments[0][len(lines)-2] += "!"
			w.writeLines()
			if r := w.verify(Options{}); r.FirstBad == nil || *r.FirstBad != int64(len(lines)-2) || r.Problem != Changed {
				t.Fatal(show(r))
			}
			if testing.Short() || shift == 2 {
				break
			}
		}
	}
}

// One long torn line, as long as a disk, takes no memory.
func TestEndlessLine(t *testing.T) {
	w := newTrail(t, t.TempDir(), 10)
	w.write()
	const end = 256 << 20
	must(t, os.Truncate(w.log, end)) // zeros without a newline
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	r := w.verify(Options{})
	runtime.ReadMemStats(&after)
	if r.Status != Intact || r.Torn != end-int64(len(w.text(0))) {
		t.Error(show(r))
	}
	if got := after.TotalAlloc - before.TotalAlloc; got > end/2 { // a buffer that doubles would take twice its length
		t.Errorf("%d bytes were allocated", got)
	}
}

// damageLines is one damage to the lines of a segment, by name. It gives the
// problems that it may be called.
var damageLines = map[string]func(rt *rapid.T, lines []string, at int) ([]string, []string){
	"edit": func(rt *rapid.T, lines []string, at int) ([]string, []string) {
		lines[at] += " "
		return lines, []string{Changed}
	},
	"bit": func(rt *rapid.T, lines []string, at int) ([]string, []string) {
		b := []byte(lines[at])
		if len(b) == 0 {
			rt.Skip("an empty line has no bit")
		}
		i := rapid.IntRange(0, len(b)-1).Draw(rt, "byte")
		if b[i] ^= 0x40; b[i] == '\n' {
			rt.Skip("two lines now, another damage")
		}
		lines[at] = string(b)
		return lines, []string{Changed}
	},
	"empty": func(rt *rapid.T, lines []string, at int) ([]string, []string) {
		lines[at] = ""
		return lines, []string{Changed}
	},
	"copy": func(rt *rapid.T, lines []string, at int) ([]string, []string) {
		lines[at] = lines[rapid.IntRange(0, len(lines)-1).Draw(rt, "of")]
		return lines, []string{Changed, Missing, Reordered}
	},
	"delete": func(rt *rapid.T, lines []string, at int) ([]string, []string) {
		to := rapid.IntRange(at+1, len(lines)).Draw(rt, "to")
		return slices.Delete(lines, at, to), []string{Missing}
	},
	"insert": func(rt *rapid.T, lines []string, at int) ([]string, []string) {
		forged := make([]string, rapid.IntRange(1, 300).Draw(rt, "lines"))
		for i := range forged {
			forged[i] = fmt.Sprintf(`{"forged":%d}`, i)
		}
		return slices.Insert(lines, at, forged...), []string{Inserted}
	},
	"duplicate": func(rt *rapid.T, lines []string, at int) ([]string, []string) {
		return slices.Insert(lines, at, lines[at]), []string{Inserted}
	},
	"swap": func(rt *rapid.T, lines []string, at int) ([]string, []string) {
		to := rapid.IntRange(0, len(lines)-1).Draw(rt, "with")
		lines[at], lines[to] = lines[to], lines[at]
		return lines, []string{Reordered}
	},
	"move": func(rt *rapid.T, lines []string, at int) ([]string, []string) {
		l := lines[at]
		lines = slices.Delete(lines, at, at+1)
		return slices.Insert(lines, rapid.IntRange(0, len(lines)).Draw(rt, "to"), l), []string{Reordered}
	},
	"split": func(rt *rapid.T, lines []string, at int) ([]string, []string) {
		l := lines[at]
		return slices.Replace(lines, at, at+1, l[:len(l)/2], l[len(l)/2:]), []string{Changed}
	},
	"join": func(rt *rapid.T, lines []string, at int) ([]string, []string) {
		if at+1 == len(lines) {
			rt.Skip()
		}
		return slices.Replace(lines, at, at+2, lines[at]+lines[at+1]), []string{Changed}
	},
	"truncate": func(rt *rapid.T, lines []string, at int) ([]string, []string) {
		return lines[:at], []string{Missing}
	},
}

// A line that is overwritten with a copy of a later one is changed: the lines
// between the two are not missing.
func TestCopiedLine(t *testing.T) {
	w := newTrail(t, t.TempDir(), 300, 20)
	w.write()
	w.segments[0][7] = line(250)
	w.writeLines()
	r := w.verify(Options{})
	isDamaged(t, r, Line, w0(0), Changed, 7, true)
	if want := []Range{{0, 7, stateChecked}, {7, 1, stateBad}, {8, 312, stateChecked}}; !slices.Equal(r.Ranges, want) {
		t.Error(show(r))
	}
}

// differ is the first index at which the lines on disk are not what was
// signed, -1 if there is none below size. Segments begin where their names
// say, whatever is before them.
func differ(was, is [][]string, size int64) int64 {
	first := int64(0)
	for i := range was {
		n := 0
		for n < min(len(was[i]), len(is[i])) && was[i][n] == is[i][n] {
			n++
		}
		at := first + int64(n)
		last := i == len(was)-1
		if (n < len(was[i]) || n < len(is[i]) && !last) && at < size {
			return at
		}
		first += int64(len(was[i]))
	}
	return -1
}

// rangesAreTrue checks what a report says about every entry.
func rangesAreTrue(t fataler, r *Report, was, is [][]string) {
	t.Helper()
	// An entry is as it was if its line stands at its place in its segment;
	// the open one may be found to begin further on.
	var right []bool
	for i := range was {
		for j, l := range was[i] {
			right = append(right, j < len(is[i]) && is[i][j] == l || i == len(was)-1 && slices.Contains(is[i], l))
		}
	}
	next := int64(0)
	for _, g := range r.Ranges {
		if g.First != next || g.Count <= 0 {
			t.Fatal("ranges with gaps: " + show(r))
		}
		next += g.Count
		bad := slices.Index(right[g.First:min(next, int64(len(right)))], false)
		if g.State == stateChecked && bad >= 0 {
			t.Fatal(fmt.Sprintf("entry %d is not as it was: %s", g.First+int64(bad), show(r)))
		}
	}
}

// Random damage to lines, in open and sealed segments: found, at the exact
// index, and called what it is. Damage past the checkpoint is none.
func TestTamperedLines(t *testing.T) {
	kinds := make([]string, 0, len(damageLines))
	for name := range damageLines {
		kinds = append(kinds, name)
	}
	slices.Sort(kinds)
	rapid.Check(t, func(rt *rapid.T) {
		w := genTrail(rt, t)
		w.write()
		was := make([][]string, len(w.segments))
		for i := range was {
			was[i] = slices.Clone(w.segments[i])
		}
		size := w.size
		files := make([]string, len(was))
		for i := range files {
			files[i] = w.sealedName(i)
			if w.plain[i] {
				files[i] = strings.TrimSuffix(files[i], ".zst")
			}
		}
		files[len(files)-1] = filepath.Base(w.log)

		rounds := rapid.IntRange(1, 3).Draw(rt, "rounds")
		var problems []string
		for range rounds {
			i := rapid.IntRange(0, len(was)-1).Draw(rt, "segment")
			if len(w.segments[i]) == 0 {
				continue
			}
			at := rapid.IntRange(0, len(w.segments[i])-1).Draw(rt, "line")
			kind := rapid.SampledFrom(kinds).Draw(rt, "damage")
			w.segments[i], problems = damageLines[kind](rt, w.segments[i], at)
			if kind == "delete" || kind == "truncate" {
				problems = append(problems, Truncated)
			}
		}
		// The files keep their names, though they have other lines.
		for i, name := range files {
			switch text := w.text(i); {
			case i == len(files)-1:
				putFile(rt, w.log, append(text, w.tail...))
			case w.plain[i]:
				w.put(name, text)
			default:
				w.put(name, compress(rt, text))
			}
		}
		r := w.verify(Options{})
		want := differ(was, w.segments, size)
		if want < 0 {
			if r.Status != Intact {
				rt.Fatal(show(r))
			}
			return
		}
		if r.Status != Damaged || r.FirstBad == nil || *r.FirstBad != want || !r.Exact || r.Artefact != Line && r.Artefact != Segment {
			rt.Fatalf("want %d: %s", want, show(r))
		}
		// A line that comes from past the checkpoint was never signed: what
		// happened there may look otherwise.
		if rounds == 1 && size == int64(len(slices.Concat(was...))) && !slices.Contains(problems, r.Problem) {
			rt.Fatalf("want %v: %s", problems, show(r))
		}
		if len(r.Also) > 0 {
			rt.Fatalf("only lines are bad: %s", show(r))
		}
		rangesAreTrue(rt, r, was, w.segments)
	})
}

// A bundle or tile that is changed, cut, longer, exchanged or gone is named
// with the exact index; the partial ones of kept checkpoints too.
func TestTamperedProofs(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newTrail(rt, dirOfRound(t), 300, 400, 150)
		w.kept = []int64{300, 700, 800}
		w.write()
		var names []string
		for _, size := range []int64{w.size, 800} {
			for name := range proofFiles(w.lines()[:size], bundles, 9) {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		names = slices.Compact(names)
		name := rapid.SampledFrom(names).Draw(rt, "file")
		good := w.get(name)
		bad := bytes.Clone(good)
		each, level := 32, int64(1)
		artefact := Tile
		if strings.HasPrefix(name, "tile/entries") {
			artefact, each = Bundle, 34
		}
		if strings.HasPrefix(name, "tile/1") {
			level = 256
		}
		var n int64
		_, err := fmt.Sscanf(name[strings.LastIndex(strings.Split(name, ".p/")[0], "/")+1:], "%d", &n)
		must(rt, err)
		index, problem := n*256*level, Unparsable
		switch damage := rapid.SampledFrom([]string{"bit", "cut", "longer", "empty", "exchanged", "missing"}).Draw(rt, "damage"); damage {
		case "bit":
			at := rapid.IntRange(0, len(bad)-1).Draw(rt, "byte")
			bad[at] ^= 1 << rapid.IntRange(0, 7).Draw(rt, "bit")
			if artefact == Tile || at%each >= 2 { // else in a length
				index, problem = index+int64(at/each)*level, Changed
			}
		case "cut":
			bad = bad[:rapid.IntRange(0, len(bad)-1).Draw(rt, "length")]
		case "longer":
			bad = append(bad, bad[:each]...)
		case "empty":
			bad = nil
		case "exchanged":
			bad = w.get(rapid.SampledFrom(names).Draw(rt, "with"))
			if bytes.Equal(bad, good) {
				rt.Skip()
			}
			if len(bad) == len(good) && (artefact == Tile || bad[1] == 32 && bad[0] == 0) {
				i := 0
				for bad[i] == good[i] {
					i++
				}
				index, problem = index+int64(i/each)*level, Changed
			}
		case "missing":
			w.remove(name)
			r := w.verify(Options{})
			if strings.HasSuffix(name, ".p/32") { // only an older checkpoint has it
				isIntact(rt, r, w)
				return
			}
			isDamaged(rt, r, artefact, name, Missing, index, true)
			return
		}
		w.put(name, bad)
		isDamaged(rt, w.verify(Options{}), artefact, name, problem, index, true)
	})
}

// A crash can leave a partial tile that no checkpoint ever had: it is nobody's.
func TestLeftOverTileIsNoDamage(t *testing.T) {
	w := newTrail(t, t.TempDir(), 300)
	w.write()
	w.put("tile/0/001.p/30", make([]byte, 17))
	w.put("tile/entries/001.p/60", nil)
	w.put("tile/0/002.p/7", nil)
	w.put("tile/1/000.p/1.tmp", []byte("x"))
	w.put("checkpoints/250.tmp", []byte("half a check"))
	w.put("segments/00000000000000000300.jsonl.zst.tmp", []byte("x"))
	putFile(t, w.log+".next", []byte("{}\n"))
	isIntact(t, w.verify(Options{}), w)
}

// Of the partial tiles only those of the latest checkpoint are needed, and
// the full one does instead.
func TestFullTileForPartial(t *testing.T) {
	w := newTrail(t, t.TempDir(), 600)
	w.size = 300
	w.write()
	must(t, os.RemoveAll(w.path("tile")))
	w.size = 600
	w.writeProofs(bundles, 9)
	w.size = 300
	must(t, os.RemoveAll(w.path("tile/1")))
	w.put("tile/1/000.p/1", proofFiles(w.lines()[:300], 0, 9)["tile/1/000.p/1"])
	isIntact(t, w.verify(Options{}), w)
	bad := w.get("tile/0/001")
	bad[32*43] ^= 1
	w.put("tile/0/001", bad)
	isDamaged(t, w.verify(Options{}), Tile, "tile/0/001", Changed, 256+43, true)
	bad[32*43] ^= 1
	bad[32*44] ^= 1 // past the checkpoint
	w.put("tile/0/001", bad)
	isIntact(t, w.verify(Options{}), w)
}

// Somebody without the key rewrites lines, and bundles or tiles with them:
// what is left of the three tells exactly; if nothing is, the kept checkpoints
// tell the range.
func TestTamperedTogether(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newTrail(rt, dirOfRound(t), 300, 400, 150)
		w.kept = append(w.kept, int64(rapid.IntRange(1, 840).Draw(rt, "kept")))
		slices.Sort(w.kept)
		w.kept = slices.Compact(w.kept)
		w.write()
		heads := append(slices.Clone(w.kept), w.size)
		old := w.sign(500)
		i := rapid.IntRange(0, 2).Draw(rt, "segment")
		at := rapid.IntRange(0, len(w.segments[i])-1).Draw(rt, "line")
		bad := w.first(i) + int64(at)
		file := w.sealedName(i)
		if i == 2 {
			file = "log.jsonl"
		}
		w.segments[i][at] = `{"rewritten":true}`
		w.writeLines()
		isDamaged(rt, w.verify(Options{}), Line, file, Changed, bad, true)

		// With the bundles: the tiles tell, and that the bundle is not theirs.
		w.writeProofs(bundles, -1)
		r := w.verify(Options{})
		isDamaged(rt, r, Line, file, Changed, bad, true)
		if len(r.Also) == 0 || r.Also[0].Artefact != Bundle || *r.Also[0].FirstBad != bad {
			rt.Fatal(show(r))
		}

		// With the tiles in their stead: the bundles tell.
		w.writeProofs(0, 9)
		for name, data := range proofFiles(restore(w.lines(), bad), bundles, -1) {
			w.put(name, data)
		}
		r = w.verify(Options{})
		isDamaged(rt, r, Line, file, Changed, bad, true)
		if len(r.Also) == 0 || r.Also[0].Artefact != Tile {
			rt.Fatal(show(r))
		}

		// With both: the range.
		w.writeProofs(bundles, 9)
		from, to := int64(0), int64(0)
		for _, to = range heads {
			if bad < to {
				break
			}
			from = to
		}
		r = w.verify(Options{})
		isDamaged(rt, r, Line, "", Changed, from, false)
		if last := r.Ranges[len(r.Ranges)-1]; last != (Range{from, to - from, stateBad}) || from > 0 && r.Ranges[0] != (Range{0, from, stateChecked}) {
			rt.Fatalf("want %d to %d: %s", from, to, show(r))
		}
		// A checkpoint from outside makes it smaller.
		if r = w.verify(Options{Checkpoint: old}); bad >= 500 && *r.FirstBad != max(from, 500) || bad < 500 && r.Ranges[len(r.Ranges)-1].First+r.Ranges[len(r.Ranges)-1].Count != min(to, 500) {
			rt.Fatal(show(r))
		}
		if r.Anchor == AnchorCheckpoint != (bad >= 500) {
			rt.Fatal("anchored on what it contradicts: " + show(r))
		}

		// Everything, with a fresh key: it is consistent with itself only.
		w.skey, w.vkey = otherSKey, otherVKey
		w.writeCheckpoints()
		r = w.verify(Options{})
		if r.Status != Damaged || r.Artefact != Checkpoint || r.Problem != BadSignature {
			rt.Fatal(show(r)) // trail.json still has the old key
		}
		w.writeIdentity()
		isIntact(rt, w.verify(Options{}), w)
		for _, o := range []Options{{PinnedKey: testVKey}, {Key: testVKey}} {
			isBad(rt, w.verify(o), TrailJSON, "trail.json", BadSignature)
		}
		isBad(rt, w.verify(Options{Checkpoint: old}), Checkpoint, "", BadSignature)
		isBad(rt, w.verify(Options{RequireAnchor: true}), Checkpoint, "", NoAnchor)

		// With the old name in trail.json the checkpoint gives it away.
		w.vkey = testVKey
		w.writeIdentity()
		r = w.verify(Options{PinnedKey: testVKey})
		if r.Status != Damaged || r.Artefact != Checkpoint || r.Problem != BadSignature || !strings.Contains(r.Detail, "pinned") {
			rt.Fatal(show(r))
		}
	})
}

// restore is the lines with the one at index as newTrail made it.
func restore(lines []string, index int64) []string {
	lines = slices.Clone(lines)
	lines[index] = line(int(index))
	return lines
}

// The holder of the key rewrites and signs again: only a checkpoint from
// before tells, wherever it was kept.
func TestRewrittenWithTheKey(t *testing.T) {
	w := newTrail(t, t.TempDir(), 300, 400, 150)
	w.write()
	old, kept := w.sign(600), w.sign(700)
	w.segments[0][250] = "{}"
	w.write()
	isIntact(t, w.verify(Options{Key: testVKey}), w)
	r := w.verify(Options{Checkpoint: old})
	isDamaged(t, r, Checkpoint, "", NotPrefix, 300, false)
	if r.Anchor != AnchorNone {
		t.Error(show(r))
	}
	w.put("checkpoints/700", kept)
	r = w.verify(Options{})
	isDamaged(t, r, Checkpoint, "checkpoints/700", NotPrefix, 300, false)
	w.put("checkpoints/700", w.sign(700))
	// Empty is not none.
	if r, err := Verify(context.Background(), Options{LogPath: w.log, Checkpoint: []byte{}}); r != nil || !errors.Is(err, ErrNoCheckpoint) {
		t.Errorf("an empty checkpoint: %+v, %v", r, err)
	}
	// A fork: the same size, another root.
	fork := w.signRoot(w.size, [32]byte{1})
	isDamaged(t, w.verify(Options{Checkpoint: fork}), Checkpoint, "", NotPrefix, 700, false)
}

// The trail is rolled back to an older copy: a newer checkpoint tells.
func TestRolledBack(t *testing.T) {
	w := newTrail(t, t.TempDir(), 300, 400, 150)
	w.write()
	now := w.get("checkpoint")
	w.put("checkpoint", w.sign(600))
	isDamaged(t, w.verify(Options{}), Checkpoint, "checkpoint", Truncated, 600, true)
	must(t, os.RemoveAll(w.path("checkpoints")))
	w.size = 600
	isIntact(t, w.verify(Options{}), w)
	isDamaged(t, w.verify(Options{Checkpoint: now}), Checkpoint, "checkpoint", Truncated, 600, true)
	// And with lines, bundles and tiles.
	w = newTrail(t, t.TempDir(), 300, 300)
	w.write()
	r := w.verify(Options{Checkpoint: now})
	isDamaged(t, r, Line, "", Truncated, 600, true)
	if !slices.ContainsFunc(r.Also, func(f Finding) bool { return f.File == "checkpoint" && f.Problem == Truncated }) {
		t.Error(show(r))
	}
	if last := r.Ranges[len(r.Ranges)-1]; last != (Range{600, 250, stateMissing}) {
		t.Error(show(r))
	}
}

// Lines that are cut off below the checkpoint, with and without bundles and
// tiles to tell.
func TestTruncated(t *testing.T) {
	w := newTrail(t, t.TempDir(), 300, 400, 150)
	w.write()
	w.segments[2] = w.segments[2][:70]
	w.tail = "{"
	w.writeLines()
	r := w.verify(Options{})
	isDamaged(t, r, Line, "log.jsonl", Truncated, 770, true)
	if last := r.Ranges[len(r.Ranges)-1]; last != (Range{770, 80, stateMissing}) || r.Torn != 1 {
		t.Error(show(r))
	}
	must(t, os.RemoveAll(w.path("tile")))
	isDamaged(t, w.verify(Options{}), Line, "", Truncated, 700, false)
	w.put("checkpoints/770", w.sign(770))
	isDamaged(t, w.verify(Options{}), Line, "", Truncated, 770, true)
}

// Files that are gone, broken, or others than belong there.
func TestTamperedFiles(t *testing.T) {
	last := int64(850)
	for name, c := range map[string]struct {
		damage   func(w *trail)
		artefact string
		file     string
		problem  string
		index    int64 // -1: none
	}{
		"checkpoint missing": {func(w *trail) { w.remove("checkpoint") }, Checkpoint, "checkpoint", Missing, -1},
		"checkpoint empty":   {func(w *trail) { w.put("checkpoint", nil) }, Checkpoint, "checkpoint", Unparsable, -1},
		"checkpoint huge":    {func(w *trail) { w.put("checkpoint", make([]byte, maxSmall+1)) }, Checkpoint, "checkpoint", Unparsable, -1},
		"checkpoint a pipe":  {func(w *trail) { w.remove("checkpoint"); mkfifo(w, "checkpoint") }, Checkpoint, "checkpoint", Unparsable, -1},
		"checkpoint forged": {func(w *trail) {
			w.put("checkpoint", bytes.Replace(w.sign(850), []byte("\n850\n"), []byte("\n849\n"), 1))
		}, Checkpoint, "checkpoint", BadSignature, -1},
		"checkpoint of another": {func(w *trail) { w.skey = otherSKey; w.put("checkpoint", w.sign(850)) }, Checkpoint, "checkpoint", BadSignature, -1},
		"size spelled oddly":    {func(w *trail) { w.put("checkpoint", signText(w, "example.com/trail\n0850\n%s\n")) }, Checkpoint, "checkpoint", Unparsable, -1},
		"another origin":        {func(w *trail) { w.put("checkpoint", signText(w, "example.com/other\n850\n%s\n")) }, Checkpoint, "checkpoint", Unparsable, -1},
		"kept one broken":       {func(w *trail) { w.put("checkpoints/300", []byte("x")) }, Checkpoint, "checkpoints/300", Unparsable, -1},
		"kept one exchanged":    {func(w *trail) { w.put("checkpoints/300", w.sign(200)) }, Checkpoint, "checkpoints/300", Changed, -1},
		"trail.json missing":    {func(w *trail) { w.remove("trail.json") }, TrailJSON, "trail.json", Missing, -1},
		"trail.json broken":     {func(w *trail) { w.put("trail.json", []byte("{")) }, TrailJSON, "trail.json", Unparsable, -1},
		"trail.json of later": {func(w *trail) {
			w.put("trail.json", bytes.Replace(w.get("trail.json"), []byte(`"format":1`), []byte(`"format":2`), 1))
		}, TrailJSON, "trail.json", Unparsable, -1},
		"trail.json's origin": {func(w *trail) {
			w.put("trail.json", bytes.Replace(w.get("trail.json"), []byte(`trail",`), []byte(`trial",`), 1))
		}, TrailJSON, "trail.json", Unparsable, -1},
		"no trail at all":       {func(w *trail) { must(w.t, os.RemoveAll(w.dir())) }, TrailJSON, "trail.json", Missing, -1},
		"a tile's directory":    {func(w *trail) { must(w.t, os.RemoveAll(w.path("tile/1"))); w.put("tile/1", nil) }, Tile, "tile/1/000.p/3", Missing, 0},
		"a tile a pipe":         {func(w *trail) { w.remove("tile/0/001"); mkfifo(w, "tile/0/001") }, Tile, "tile/0/001", Unparsable, 256},
		"all tiles":             {func(w *trail) { must(w.t, os.RemoveAll(w.path("tile"))) }, Bundle, "tile/entries/000", Missing, 0},
		"open segment missing":  {func(w *trail) { must(w.t, os.Remove(w.log)) }, Segment, "", Truncated, 700},
		"open segment a pipe":   {func(w *trail) { must(w.t, os.Remove(w.log)); must(w.t, syscall.Mkfifo(w.log, 0o600)) }, Segment, "", Truncated, 700},
		"open segment empty":    {func(w *trail) { putFile(w.t, w.log, nil) }, Line, "log.jsonl", Truncated, 700},
		"first segment missing": {func(w *trail) { w.remove(w.sealedName(0)) }, Segment, w0(1), Missing, 0},
		"last sealed missing":   {func(w *trail) { w.remove(w.sealedName(1)) }, Line, "log.jsonl", Missing, 300},
		"all sealed missing":    {func(w *trail) { must(w.t, os.RemoveAll(w.path("segments"))) }, Line, "log.jsonl", Missing, 0},
		"segment a pipe":        {func(w *trail) { w.remove(w.sealedName(1)); mkfifo(w, w.sealedName(1)) }, Segment, w0(1), Changed, 300},
		"segment empty":         {func(w *trail) { w.put(w.sealedName(1), nil) }, Line, "log.jsonl", Missing, 300},
		"segment without seek":  {func(w *trail) { b := w.get(w.sealedName(1)); w.put(w.sealedName(1), b[:len(b)-8]) }, Segment, w0(1), Changed, last - 150},
		"segment with garbage":  {func(w *trail) { w.put(w.sealedName(1), append(w.get(w.sealedName(1)), "garbage"...)) }, Segment, w0(1), Changed, 700},
		"segment torn":          {func(w *trail) { w.put(w.sealedName(0), compress(w.t, w.text(0)[:len(w.text(0))-1])) }, Segment, w0(0), Changed, 299},
		"segment twice":         {func(w *trail) { w.put("segments/00000000000000000100.jsonl", w.text(0)) }, Segment, "segments/00000000000000000100.jsonl", Inserted, 100},
		"segments exchanged": {func(w *trail) {
			a, b := w.get(w.sealedName(0)), w.get(w.sealedName(1))
			w.put(w.sealedName(0), b)
			w.put(w.sealedName(1), a)
		}, Line, w0(0), Reordered, 0},
		"segment past the end": {func(w *trail) { w.put("segments/00000000000000009999.jsonl", []byte("{}\n")) }, Segment, "segments/00000000000000009999.jsonl", Missing, 700},
	} {
		t.Run(name, func(t *testing.T) {
			w := newTrail(t, t.TempDir(), 300, 400, 150)
			w.write()
			c.damage(w)
			r := w.verify(Options{})
			if c.index < 0 {
				isBad(t, r, c.artefact, c.file, c.problem)
			} else {
				isDamaged(t, r, c.artefact, c.file, c.problem, c.index, true)
			}
			if r.Detail == "" || len(r.Unproven) == 0 {
				t.Error(show(r))
			}
			// The lines are checked up to a good checkpoint all the same.
			if c.artefact == Checkpoint && (len(r.Ranges) == 0 || r.Ranges[0].State != stateChecked) {
				t.Error(show(r))
			}
		})
	}
}

// There is no bit of a checkpoint that could be another.
func TestEveryBitOfACheckpoint(t *testing.T) {
	w := newTrail(t, t.TempDir(), 3)
	w.write()
	good := w.get("checkpoint")
	for i := range 8 * len(good) {
		bad := bytes.Clone(good)
		bad[i/8] ^= 1 << (i % 8)
		w.put("checkpoint", bad)
		if r := w.verify(Options{}); r.Status != Damaged || r.File != "checkpoint" {
			t.Fatalf("bit %d: %s", i, show(r))
		}
	}
}

func w0(i int) string {
	return []string{"segments/00000000000000000000.jsonl.zst", "segments/00000000000000000300.jsonl.zst"}[i]
}

func mkfifo(w *trail, name string) {
	w.t.Helper()
	must(w.t, syscall.Mkfifo(w.path(name), 0o600))
}

// signText signs a checkpoint's text, %s being the root, as it should not be.
func signText(w *trail, format string) []byte {
	w.t.Helper()
	signer, err := note.NewSigner(w.skey)
	must(w.t, err)
	root := mth(leavesOf(w.lines()))
	b, err := note.Sign(&note.Note{Text: fmt.Sprintf(format, base64.StdEncoding.EncodeToString(root[:]))}, signer)
	must(w.t, err)
	return b
}

// Several damages: the lines' is the news, the others are told too.
func TestSeveralDamages(t *testing.T) {
	w := newTrail(t, t.TempDir(), 300, 400, 150)
	w.write()
	w.remove("checkpoint")
	w.put("checkpoints/300", []byte("x"))
	w.remove("tile/0/000")
	w.segments[0][7] = "{}"
	w.writeLines()
	r := w.verify(Options{})
	isDamaged(t, r, Line, w0(0), Changed, 7, true)
	var files []string
	for _, f := range r.Also {
		files = append(files, f.File)
	}
	if want := []string{"tile/0/000", "checkpoints/300", "checkpoint"}; !slices.Equal(files, want) {
		t.Errorf("%v, want %v", files, want)
	}
	if r.Size != 700 {
		t.Error(show(r))
	}
	// A thousand of them are not all listed.
	w = newTrail(t, t.TempDir(), 30_000)
	w.write()
	must(t, os.RemoveAll(w.path("tile")))
	if r = w.verify(Options{}); len(r.Also) != maxFindings || *r.FirstBad != 0 {
		t.Error(show(r))
	}
	for i := 0; i < len(w.segments[0]); i += 2 {
		w.segments[0][i] = "{}"
	}
	w.writeProofs(bundles, 9)
	w.segments[0] = newTrail(t, "", 30_000).segments[0]
	w.put("checkpoint", w.sign(w.size))
	must(t, os.RemoveAll(w.path("tile")))
	w.writeProofs(bundles, 9)
	for i := 0; i < len(w.segments[0]); i += 2 {
		w.segments[0][i] = "{}"
	}
	w.writeLines()
	r = w.verify(Options{})
	isDamaged(t, r, Line, "log.jsonl", Changed, 0, true)
	if n := len(r.Ranges); n != maxRanges || r.Ranges[n-1].First+r.Ranges[n-1].Count != w.size || r.Ranges[n-1].State != stateBad {
		t.Errorf("%d ranges to %+v", n, r.Ranges[n-1])
	}
}

// A zstd frame that lost bytes, or whose checksum is another, is named with
// the first entry that can't be read.
func TestBrokenCompression(t *testing.T) {
	w := newTrail(t, t.TempDir(), 0)
	w.segments = [][]string{nil, {line(0)}}
	for n := range 5_000 {
		w.segments[0] = append(w.segments[0], line(n)+strings.Repeat("y", 500)) // several frames
	}
	w.size = 5_001
	w.kept = []int64{5_000}
	w.write()
	good := w.get(w0(0))
	isIntact(t, w.verify(Options{}), w)
	damaged := 0
	rapid.Check(t, func(rt *rapid.T) {
		bad := bytes.Clone(good)
		at := rapid.IntRange(0, len(bad)-1-17).Draw(rt, "byte") // the frame behind the lines holds none
		if rapid.Bool().Draw(rt, "cut") {
			bad = bad[:at]
		} else {
			bad[at] ^= 1 << rapid.IntRange(0, 7).Draw(rt, "bit")
		}
		w.put(w0(0), bad)
		r := w.verify(Options{})
		if r.Status == Intact { // a bit without a meaning
			return
		}
		damaged++
		if r.Artefact != Segment && r.Artefact != Line || r.FirstBad == nil || !r.Exact || *r.FirstBad > 5_000 {
			rt.Fatal(show(r))
		}
		rangesEnd(rt, r, w.size)
	})
	if damaged < 50 {
		t.Errorf("only %d were damaged", damaged)
	}
}

func rangesEnd(t fataler, r *Report, size int64) {
	t.Helper()
	next := int64(0)
	for _, g := range r.Ranges {
		if g.First != next {
			t.Fatal(show(r))
		}
		next += g.Count
	}
	if next != size {
		t.Fatal(show(r))
	}
}

// A missing segment with nothing else to tell: the range between checkpoints,
// exactly where all before it is proved.
func TestMissingSegmentWithoutProofs(t *testing.T) {
	w := newTrail(t, t.TempDir(), 300, 400, 150)
	w.write()
	must(t, os.RemoveAll(w.path("tile")))
	w.remove(w0(0))
	isDamaged(t, w.verify(Options{}), Segment, w0(1), Missing, 0, true)
	w.writeLines()
	w.segments[0] = slices.Delete(w.segments[0], 5, 6)
	w.put(w0(0), compress(t, w.text(0)))
	// The gap is at 299, but what is missing may be any line before it.
	r := w.verify(Options{})
	isDamaged(t, r, Segment, w0(1), Missing, 0, false)
	if len(r.Ranges) != 1 || r.Ranges[0] != (Range{0, 300, stateBad}) {
		t.Error(show(r))
	}
}

// Plain and compressed file of one segment: the manifest's counts, without it
// the plain one; the other is not looked at.
func TestTwoFilesOfASegment(t *testing.T) {
	w := newTrail(t, t.TempDir(), 300, 400, 150)
	w.write()
	plain := strings.TrimSuffix(w0(1), ".zst")
	w.put(plain, []byte("half of it"))
	isIntact(t, w.verify(Options{}), w)
	w.put(plain, w.text(1))
	w.put(w0(1), []byte("half of it"))
	w.remove("manifest")
	isIntact(t, w.verify(Options{}), w)
	for _, manifest := range []string{"", "{", `{"format":1,"segments":[{"first":300,"file":"../../x"}]}`, `{"format":9,"segments":[{"first":300,"file":"00000000000000000300.jsonl.zst"}]}`} {
		w.put("manifest", []byte(manifest))
		isIntact(t, w.verify(Options{}), w)
	}
}

// A seal between its two steps: the log has a second name in segments/.
func TestBetweenTheStepsOfASeal(t *testing.T) {
	w := newTrail(t, t.TempDir(), 300, 400)
	w.write()
	must(t, os.Link(w.log, w.path("segments/00000000000000000300.jsonl")))
	isIntact(t, w.verify(Options{}), w)
	// The name tells where it begins, also when what is before it is gone.
	w.remove(w0(0))
	isDamaged(t, w.verify(Options{}), Segment, "log.jsonl", Missing, 0, true)
}

// The log's path may be a link: the directory is beside its target, also when
// that is gone.
func TestLinkedLog(t *testing.T) {
	w := newTrail(t, t.TempDir(), 30)
	w.write()
	link := filepath.Join(t.TempDir(), "audit.jsonl")
	must(t, os.Symlink(w.log, link))
	isIntact(t, check(t, link, Options{}), w)
	must(t, os.Remove(w.log))
	isDamaged(t, check(t, link, Options{}), Segment, "", Truncated, 0, true)
	for log, dir := range map[string]string{"/a/x.jsonl": "/a/x.trail", "/a/x.log": "/a/x.log.trail", "/a/.jsonl": "/a/.jsonl.trail", "/a/x": "/a/x.trail"} {
		if got := dirOf(log); got != dir {
			t.Errorf("%s is beside %s", got, log)
		}
	}
}

// What the operating system refuses is no damage, and is told apart.
func TestUnreadable(t *testing.T) {
	for _, name := range []string{"checkpoint", "trail.json", "checkpoints/300", "tile/0/000", w0(0)} {
		w := newTrail(t, t.TempDir(), 300, 10)
		w.write()
		// A directory where a file is read is refused to everybody.
		w.remove(name)
		must(t, os.Mkdir(w.path(name), 0o700))
		r, err := Verify(context.Background(), Options{LogPath: w.log})
		var refused *fs.PathError
		if r == nil || r.Status != Unreadable || r.Unproven == nil || r.Ranges == nil || !errors.As(err, &refused) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
	if r, err := Verify(context.Background(), Options{LogPath: "x", Key: "nonsense"}); r != nil || err == nil {
		t.Errorf("%+v, %v", r, err)
	}
}

// A context that ends ends it; no goroutine stays.
func TestCancelled(t *testing.T) {
	w := newTrail(t, t.TempDir(), 20_000, 20_000, 20_000)
	w.write()
	before := runtime.NumGoroutine()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if r, err := Verify(ctx, Options{LogPath: w.log}); r != nil || !errors.Is(err, context.Canceled) {
		t.Errorf("%+v, %v", r, err)
	}
	for range 50 {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Millisecond)
		if r, err := Verify(ctx, Options{LogPath: w.log}); err == nil && r.Status != Intact || err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%+v, %v", r, err)
		}
		cancel()
	}
	for range 100 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d goroutines, %d before", runtime.NumGoroutine(), before)
}

// Progress grows up to a total that it reaches and that stays.
func TestProgress(t *testing.T) {
	w := newTrail(t, t.TempDir(), 0)
	for i := range 3 {
		w.segments = append(w.segments, nil)
		for n := range 300 {
			w.segments[i] = append(w.segments[i], line(i*1000+n)+strings.Repeat("z", 50_000))
		}
	}
	w.segments = w.segments[1:]
	w.size = int64(len(w.lines()))
	w.write()
	var all int64
	for i := range w.segments {
		all += int64(len(w.text(i)))
	}
	var told []int64
	r := w.verify(Options{Progress: func(done, total int64) {
		if total != all || done > total || len(told) > 0 && done < told[len(told)-1] {
			t.Errorf("%d of %d after %v, want %d in all", done, total, told, all)
		}
		told = append(told, done)
	}})
	isIntact(t, r, w)
	if len(told) < 2 || told[len(told)-1] != all {
		t.Errorf("%v of %d", told, all)
	}
}

// A file has all checkpoints that were sent to it, an empty line behind each. The
// trail is held against every one of them: the newest alone, of a history that was
// made anew with the key, would tell nothing.
func TestEveryCheckpointOfAFileCounts(t *testing.T) {
	w := newTrail(t, t.TempDir(), 300, 400, 150)
	w.write()
	other := newTrail(t, t.TempDir(), 10)
	var err error
	other.skey, other.vkey, err = note.GenerateKey(rand.Reader, "example.com/other")
	must(t, err)
	foreign := other.sign(10)
	join := func(list ...[]byte) []byte { return append(bytes.Join(list, []byte("\n")), '\n') }
	all := join(w.sign(0), w.sign(1), foreign, w.sign(600), w.sign(850))
	r := w.verify(Options{Checkpoint: all, RequireAnchor: true})
	isIntact(t, r, w)
	if r.Anchor != AnchorCheckpoint {
		t.Error(show(r))
	}
	isIntact(t, w.verify(Options{Checkpoint: join(w.sign(600))}), w)                       // one alone
	isIntact(t, w.verify(Options{Checkpoint: slices.Concat(w.sign(600), w.sign(850))}), w) // as a command appends them
	fork := w.signRoot(700, [32]byte{1})
	for _, list := range [][]byte{slices.Concat(w.sign(600), fork, w.sign(850)), join(w.sign(600), fork, w.sign(850)), join(fork, w.sign(850)), join(w.sign(850), fork)} {
		r := w.verify(Options{Checkpoint: list})
		if isDamaged(t, r, Checkpoint, "", NotPrefix, *r.FirstBad, false); r.Anchor == AnchorCheckpoint {
			t.Error(show(r))
		}
	}
	for name, c := range map[string]struct {
		given []byte
		want  error
	}{
		"only another trail's":   {join(foreign, foreign), ErrOtherTrail},
		"one that is cut off":    {all[:len(all)-40], ErrNoCheckpoint},
		"something in between":   {join(w.sign(600), []byte("x\n"), w.sign(850)), ErrNoCheckpoint},
		"an empty line too many": {join(w.sign(600), nil, w.sign(850)), ErrNoCheckpoint},
	} {
		if r, err := Verify(context.Background(), Options{LogPath: w.log, Checkpoint: c.given}); r != nil || !errors.Is(err, c.want) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
}
