package audit

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/mod/sumdb/note"
	"pgregory.net/rapid"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/tree"
	"github.com/kaizen-audit/kaizen-audit/internal/verify"
)

// sample is a closed trail of three segments, the first two sealed, with
// entries 0 to 1,5xx; tests damage copies of it.
type sample struct {
	dir   string // holds audit.jsonl and audit.trail
	vkey  string
	old   []byte // an older checkpoint, kept outside
	size  int64
	ends  []int64 // of the segments
	kept  []int64 // sizes of kept checkpoints
	state string  // where its key is pinned
}

var sampleOnce = sync.OnceValues(func() (*sample, error) {
	dir, err := os.MkdirTemp("", "kaizen-audit-sample")
	if err != nil {
		return nil, err
	}
	s := &sample{dir: dir, state: filepath.Join(dir, "state")}
	trail, err := Open(filepath.Join(dir, "audit.jsonl"), &Options{StateDir: s.state})
	if err != nil {
		return nil, err
	}
	for part, n := range []int{700, 500, 300} {
		for i := range n {
			if _, err := trail.Record(context.Background(), event(fmt.Sprint("agent-", i%3), fmt.Sprint("action ", part, " ", i))); err != nil {
				return nil, err
			}
		}
		if part == 0 {
			if err := trail.signer.sign(); err != nil {
				return nil, err
			}
			if s.old, err = os.ReadFile(filepath.Join(trail.Dir(), "checkpoint")); err != nil {
				return nil, err
			}
		}
		if part < 2 {
			info, err := trail.Rotate(context.Background())
			if err != nil {
				return nil, err
			}
			s.ends = append(s.ends, info.First+info.Count)
		}
	}
	s.vkey = trail.VKey()
	if err := trail.Close(); err != nil {
		return nil, err
	}
	s.size = trail.journal.Next()
	s.ends = append(s.ends, s.size)
	kept, err := os.ReadDir(filepath.Join(trail.Dir(), "checkpoints"))
	for _, k := range kept {
		var n int64
		fmt.Sscan(k.Name(), &n)
		s.kept = append(s.kept, n)
	}
	s.kept = append(s.kept, s.size)
	slices.Sort(s.kept)
	return s, err
})

func getSample(t testing.TB) *sample {
	t.Helper()
	s, err := sampleOnce()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// copyOf makes a copy that can be damaged.
func (s *sample) copyOf(t interface{ Fatal(...any) }, dir string) string {
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(dir, os.DirFS(s.dir)); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			err = os.Chmod(name, 0o600)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "audit.jsonl")
}

// file is where the lines of a segment are.
func (s *sample) file(log string, segment int) string {
	if segment == len(s.ends)-1 {
		return log
	}
	return filepath.Join(trailDir(log), "segments", fmt.Sprintf("%020d.jsonl.zst", s.first(segment)))
}

func (s *sample) first(segment int) int64 {
	if segment == 0 {
		return 0
	}
	return s.ends[segment-1]
}

func readLines(name string) ([][]byte, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	if strings.HasSuffix(name, ".zst") {
		d, err := zstd.NewReader(nil)
		if err != nil {
			return nil, err
		}
		defer d.Close()
		if data, err = d.DecodeAll(data, nil); err != nil {
			return nil, err
		}
	}
	lines := bytes.SplitAfter(data, []byte{'\n'})
	return lines[:len(lines)-1], nil
}

func writeLines(name string, lines [][]byte) error {
	data := bytes.Join(lines, nil)
	if strings.HasSuffix(name, ".zst") {
		e, err := zstd.NewWriter(nil)
		if err != nil {
			return err
		}
		defer e.Close()
		data = e.EncodeAll(data, nil)
	}
	return os.WriteFile(name, data, 0o600)
}

func check(t interface{ Fatal(...any) }, log string, opts VerifyOptions) *VerifyReport {
	if opts.StateDir == "" {
		opts.StateDir = filepath.Join(filepath.Dir(log), "no-pins")
	}
	r, err := VerifyPath(context.Background(), log, &opts)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (s *sample) lines(log string) ([][]byte, error) {
	var all [][]byte
	for i := range s.ends {
		l, err := readLines(s.file(log, i))
		if err != nil {
			return nil, err
		}
		all = append(all, l...)
	}
	return all, nil
}

// rebuild writes bundles and, if tiles, hash tiles anew for what the lines are
// now, as somebody without the key would.
func (s *sample) rebuild(t interface{ Fatal(...any) }, log string, tiles bool) {
	lines, err := s.lines(log)
	if err != nil {
		t.Fatal(err)
	}
	b := tree.NewBuilder()
	for _, l := range lines {
		b.Append(sha256.Sum256(bytes.TrimSuffix(l, []byte{'\n'})))
	}
	scratch := filepath.Join(filepath.Dir(log), "scratch")
	if err := os.MkdirAll(scratch, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := tree.NewStore(durable.OS, scratch).Flush(b.Snapshot()); err != nil {
		t.Fatal(err)
	}
	from := []string{"tile/entries"}
	if tiles {
		from = []string{"tile"}
	}
	for _, d := range from {
		if err := os.RemoveAll(filepath.Join(trailDir(log), d)); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(filepath.Join(trailDir(log), d), os.DirFS(filepath.Join(scratch, d))); err != nil {
			t.Fatal(err)
		}
	}
}

func TestVerifyIntact(t *testing.T) {
	s := getSample(t)
	log := filepath.Join(s.dir, "audit.jsonl")
	for name, c := range map[string]struct {
		opts   VerifyOptions
		anchor string
	}{
		"on its own":   {VerifyOptions{}, "none"},
		"pinned":       {VerifyOptions{StateDir: s.state}, "pinned"},
		"key given":    {VerifyOptions{Key: s.vkey}, "pinned"},
		"checkpoint":   {VerifyOptions{Checkpoint: s.old, RequireAnchor: true}, "checkpoint"},
		"key and both": {VerifyOptions{Key: s.vkey, Checkpoint: s.old, RequireAnchor: true}, "checkpoint"},
	} {
		r := check(t, log, c.opts)
		if r.Status != verify.Intact || r.Anchor != c.anchor || r.Size != s.size || r.Uncovered != 0 || r.Torn != 0 || len(r.Unproven) == 0 {
			t.Errorf("%s: %+v", name, r)
		}
	}
	for _, opts := range []VerifyOptions{{RequireAnchor: true}, {RequireAnchor: true, Key: s.vkey}, {RequireAnchor: true, StateDir: s.state}} {
		if r := check(t, log, opts); r.Status != verify.Damaged || r.Problem != verify.NoAnchor {
			t.Errorf("%+v: %+v", opts, r)
		}
	}
}

// Random damage to lines, in open and sealed segments: found, with the exact
// index and what was done, because bundles still tell.
func TestTamperLines(t *testing.T) {
	s := getSample(t)
	dir := filepath.Join(t.TempDir(), "copy")
	rapid.Check(t, func(rt *rapid.T) {
		log := s.copyOf(rt, dir)
		segment := rapid.IntRange(0, len(s.ends)-1).Draw(rt, "segment")
		file, base := s.file(log, segment), s.first(segment)
		lines, err := readLines(file)
		if err != nil {
			rt.Fatal(err)
		}
		n := len(lines)
		at := rapid.IntRange(0, n-1).Draw(rt, "line")
		want, problems := base+int64(at), []string{}
		switch rapid.SampledFrom([]string{"edit", "bit", "delete", "insert", "duplicate", "swap", "truncate"}).Draw(rt, "damage") {
		case "edit":
			lines[at] = bytes.Replace(lines[at], []byte(`"success":true`), []byte(`"success":false`), 1)
			problems = []string{verify.Changed}
		case "bit":
			l := bytes.Clone(lines[at])
			p := rapid.IntRange(0, len(l)-2).Draw(rt, "byte")
			if l[p]^1 == '\n' {
				rt.Skip()
			}
			l[p] ^= 1
			lines[at] = l
			problems = []string{verify.Changed}
		case "delete":
			lines = slices.Delete(lines, at, at+1)
			problems = []string{verify.Missing}
			if segment == len(s.ends)-1 && at == n-1 {
				problems = []string{verify.Truncated}
			}
		case "insert":
			lines = slices.Insert(lines, at, []byte("{\"forged\":true}\n"))
			problems = []string{verify.Inserted}
		case "duplicate":
			lines = slices.Insert(lines, at, lines[at])
			want++ // the second of the two is the one too many
			problems = []string{verify.Inserted}
		case "swap":
			to := rapid.IntRange(0, n-1).Draw(rt, "with")
			if to == at {
				rt.Skip()
			}
			lines[at], lines[to] = lines[to], lines[at]
			want = base + int64(min(at, to))
			problems = []string{verify.Reordered}
			if max(at, to)-min(at, to) >= 1000 {
				problems = append(problems, verify.Changed)
			}
		case "truncate":
			lines = lines[:at]
			problems = []string{verify.Missing}
			if segment == len(s.ends)-1 {
				problems = []string{verify.Truncated}
			}
		}
		if err := writeLines(file, lines); err != nil {
			rt.Fatal(err)
		}
		if all, err := s.lines(log); err == nil && int64(len(all)) > want && want == s.size {
			return // a line past the checkpoint is no damage
		}
		r := check(rt, log, VerifyOptions{})
		if r.Status != verify.Damaged || r.FirstBad == nil || *r.FirstBad != want || !r.Exact || !slices.Contains(problems, r.Problem) {
			got := int64(-1)
			if r.FirstBad != nil {
				got = *r.FirstBad
			}
			rt.Fatalf("want %v at %d, got index %d in %+v", problems, want, got, r)
		}
	})
}

// Bundles, tiles and checkpoints that are exchanged, changed or removed are
// named.
func TestTamperProofs(t *testing.T) {
	s := getSample(t)
	dir := filepath.Join(t.TempDir(), "copy")
	log := s.copyOf(t, dir)
	var files []string
	// What the latest checkpoint needs.
	for level, size := -1, s.size; ; level++ {
		if level > 0 {
			size /= tree.TileWidth
		}
		if size == 0 {
			break
		}
		for n := int64(0); n*tree.TileWidth < size; n++ {
			files = append(files, tree.Path(level, n, int(min(tree.TileWidth, size-n*tree.TileWidth))))
		}
	}
	files = append(files, "checkpoint", "trail.json")
	for _, k := range s.kept[:len(s.kept)-1] {
		files = append(files, fmt.Sprint("checkpoints/", k))
	}
	rapid.Check(t, func(rt *rapid.T) {
		log = s.copyOf(rt, dir)
		name := rapid.SampledFrom(files).Draw(rt, "file")
		path := filepath.Join(trailDir(log), name)
		data, err := os.ReadFile(path)
		if err != nil {
			rt.Fatal(err)
		}
		damage := rapid.SampledFrom([]string{"remove", "bit", "cut", "empty"}).Draw(rt, "damage")
		switch damage {
		case "remove":
			err = os.Remove(path)
		case "bit":
			data[rapid.IntRange(0, len(data)-1).Draw(rt, "byte")] ^= 1 << rapid.IntRange(0, 6).Draw(rt, "bit")
			err = os.WriteFile(path, data, 0o600)
		case "cut":
			err = os.WriteFile(path, data[:len(data)/2], 0o600)
		case "empty":
			err = os.WriteFile(path, nil, 0o600)
		}
		if err != nil {
			rt.Fatal(err)
		}
		if name == "trail.json" && damage == "bit" {
			return // most of it is the date and the like
		}
		if strings.HasPrefix(name, "checkpoints/") && damage == "remove" {
			return // a crash may come before one is kept: that it is not there says nothing
		}
		if r := check(rt, log, VerifyOptions{}); r.Status != verify.Damaged || r.File != name || r.Problem == "" {
			rt.Fatalf("%s, %s: %+v", name, damage, r)
		}
	})
}

// Lines and bundles rewritten together: tiles still tell exactly. With the
// tiles too: the range between kept checkpoints. All of it with a new key:
// only what is outside tells, and it does.
func TestTamperTogether(t *testing.T) {
	s := getSample(t)
	dir := filepath.Join(t.TempDir(), "copy")
	rapid.Check(t, func(rt *rapid.T) {
		log := s.copyOf(rt, dir)
		segment := rapid.IntRange(0, len(s.ends)-1).Draw(rt, "segment")
		file := s.file(log, segment)
		lines, err := readLines(file)
		if err != nil {
			rt.Fatal(err)
		}
		at := rapid.IntRange(0, len(lines)-1).Draw(rt, "line")
		lines[at] = append([]byte(`{"rewritten":true,`), lines[at][1:]...)
		if err := writeLines(file, lines); err != nil {
			rt.Fatal(err)
		}
		bad := s.first(segment) + int64(at)

		s.rebuild(rt, log, false)
		r := check(rt, log, VerifyOptions{})
		if r.Status != verify.Damaged || r.Artefact != verify.Line || r.FirstBad == nil || *r.FirstBad != bad || !r.Exact || r.Problem != verify.Changed {
			rt.Fatalf("lines and bundles, at %d: %+v", bad, r)
		}

		s.rebuild(rt, log, true)
		r = check(rt, log, VerifyOptions{})
		i, _ := slices.BinarySearch(s.kept, bad+1)
		to, from := s.kept[i], int64(0)
		if i > 0 {
			from = s.kept[i-1]
		}
		last := verify.Range{}
		if len(r.Ranges) > 0 {
			last = r.Ranges[len(r.Ranges)-1]
		}
		if r.Status != verify.Damaged || r.Exact || last != (verify.Range{First: from, Count: to - from, State: "bad"}) {
			rt.Fatalf("all together, at %d, want %d to %d: %+v", bad, from, to, r)
		}

		// Everything with a fresh key.
		skey, vkey, err := note.GenerateKey(rand.Reader, strings.Split(s.vkey, "+")[0])
		if err != nil {
			rt.Fatal(err)
		}
		signer, err := note.NewSigner(skey)
		if err != nil {
			rt.Fatal(err)
		}
		all, err := s.lines(log)
		if err != nil {
			rt.Fatal(err)
		}
		b := tree.NewBuilder().RootOnly()
		for i, l := range all {
			b.Append(sha256.Sum256(bytes.TrimSuffix(l, []byte{'\n'})))
			size := int64(i) + 1
			if !slices.Contains(s.kept, size) {
				continue
			}
			c, err := tree.Sign(signer, size, b.Root())
			if err != nil {
				rt.Fatal(err)
			}
			name := filepath.Join(trailDir(log), "checkpoints", fmt.Sprint(size))
			if size == s.size {
				name = filepath.Join(trailDir(log), "checkpoint")
			}
			if err := os.WriteFile(name, c.Signed, 0o600); err != nil {
				rt.Fatal(err)
			}
		}
		id := filepath.Join(trailDir(log), "trail.json")
		data, err := os.ReadFile(id)
		if err != nil {
			rt.Fatal(err)
		}
		if err := os.WriteFile(id, bytes.ReplaceAll(data, []byte(s.vkey), []byte(vkey)), 0o600); err != nil {
			rt.Fatal(err)
		}
		if r := check(rt, log, VerifyOptions{}); r.Status != verify.Intact || r.Anchor != verify.AnchorNone {
			rt.Fatalf("it is consistent with itself: %+v", r)
		}
		for name, o := range map[string]VerifyOptions{"key": {Key: s.vkey}, "checkpoint": {Checkpoint: s.old}, "anchor": {RequireAnchor: true}} {
			if r := check(rt, log, o); r.Status != verify.Damaged {
				rt.Fatalf("%s: %+v", name, r)
			}
		}
	})
}

// Rolled back trail and checkpoint: an older checkpoint from outside, or a
// kept one, tells.
func TestTamperRollback(t *testing.T) {
	s := getSample(t)
	now, err := os.ReadFile(filepath.Join(s.dir, "audit.trail", "checkpoint"))
	if err != nil {
		t.Fatal(err)
	}
	log := s.copyOf(t, filepath.Join(t.TempDir(), "copy"))
	if err := os.WriteFile(filepath.Join(trailDir(log), "checkpoint"), s.old, 0o600); err != nil {
		t.Fatal(err)
	}
	if r := check(t, log, VerifyOptions{}); r.Status != verify.Damaged || r.Problem != verify.Truncated {
		t.Errorf("kept checkpoints beyond the latest: %+v", r)
	}
	if err := os.RemoveAll(filepath.Join(trailDir(log), "checkpoints")); err != nil {
		t.Fatal(err)
	}
	if r := check(t, log, VerifyOptions{}); r.Status != verify.Intact || r.Uncovered == 0 {
		t.Errorf("with the kept ones gone nothing inside tells: %+v", r)
	}
	if r := check(t, log, VerifyOptions{Checkpoint: now}); r.Status != verify.Damaged || r.Problem != verify.Truncated {
		t.Errorf("a newer checkpoint from outside: %+v", r)
	}
}

// Whole files of lines that go.
func TestTamperSegments(t *testing.T) {
	s := getSample(t)
	for segment := range s.ends {
		log := s.copyOf(t, filepath.Join(t.TempDir(), "copy"))
		if err := os.Remove(s.file(log, segment)); err != nil {
			t.Fatal(err)
		}
		r := check(t, log, VerifyOptions{})
		if r.Status != verify.Damaged || r.FirstBad == nil || *r.FirstBad != s.first(segment) {
			t.Errorf("segment %d removed: %+v", segment, r)
		}
		if segment == len(s.ends)-1 {
			continue
		}
		log = s.copyOf(t, filepath.Join(t.TempDir(), "copy2"))
		data, err := os.ReadFile(s.file(log, segment))
		if err != nil {
			t.Fatal(err)
		}
		data[len(data)/2] ^= 0x10
		if err := os.WriteFile(s.file(log, segment), data, 0o600); err != nil {
			t.Fatal(err)
		}
		if r := check(t, log, VerifyOptions{}); r.Status != verify.Damaged {
			t.Errorf("segment %d with a flipped bit: %+v", segment, r)
		}
	}
}

// Lines past the checkpoint and a torn last line are told, and are no damage.
func TestVerifyTail(t *testing.T) {
	s := getSample(t)
	log := s.copyOf(t, filepath.Join(t.TempDir(), "copy"))
	f, err := os.OpenFile(log, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("{}\n{}\n{\"torn"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if r := check(t, log, VerifyOptions{}); r.Status != verify.Intact || r.Uncovered != 2 || r.Torn != 6 {
		t.Errorf("%+v", r)
	}
}

// A trail is verified again and again while it is written and sealed: it is
// never accused.
func TestVerifyWhileWritten(t *testing.T) {
	dir := t.TempDir()
	trail, err := Open(filepath.Join(dir, "audit.jsonl"), &Options{SegmentBytes: 64 << 10, interval: 3 * time.Millisecond, Durability: Written})
	if err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for i := 0; !stop.Load(); i++ {
				if _, err := trail.Record(context.Background(), event("a", fmt.Sprint(i))); err != nil {
					t.Error(err)
					return
				}
				if i%16 == 0 {
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	rounds, until := 0, time.Now().Add(4*time.Second)
	for time.Now().Before(until) {
		if r := check(t, trail.Path(), VerifyOptions{}); r.Status != verify.Intact {
			t.Errorf("round %d: %+v", rounds, r)
			break
		}
		reader, err := Open(trail.Path(), &Options{ReadOnly: true})
		if err != nil {
			t.Error(err)
			break
		}
		next := int64(0)
		for e, err := range reader.scan(context.Background(), Query{Trails: true}) {
			if err != nil || e.Index != next {
				t.Errorf("entry %d where %d is due: %v", e.Index, next, err)
				break
			}
			next++
		}
		if err := reader.Close(); err != nil {
			t.Error(err)
		}
		rounds++
	}
	stop.Store(true)
	wg.Wait()
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d rounds over %d entries, %d segments", rounds, trail.journal.Next(), len(trail.journal.Segments()))
	if rounds < 3 || len(trail.journal.Segments()) == 0 {
		t.Error("too little happened")
	}
}

// A file that the operating system refuses is no damage: that is told apart.
func TestVerifyUnreadable(t *testing.T) {
	s := getSample(t)
	log := s.copyOf(t, filepath.Join(t.TempDir(), "copy"))
	// A directory where a file is read is refused to everybody, root too.
	name := filepath.Join(trailDir(log), "checkpoint")
	if err := errors.Join(os.Remove(name), os.Mkdir(name, 0o700)); err != nil {
		t.Fatal(err)
	}
	r, err := VerifyPath(context.Background(), log, nil)
	if err == nil || r == nil || r.Status != verify.Unreadable {
		t.Errorf("%+v, %v", r, err)
	}
}

// Every bit of a checkpoint matters, also those of the last base64 digit that
// mean nothing to who decodes it.
func TestTamperEveryBitOfTheCheckpoint(t *testing.T) {
	s := getSample(t)
	log := s.copyOf(t, filepath.Join(t.TempDir(), "copy"))
	name := filepath.Join(trailDir(log), "checkpoint")
	good, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		for bit := range 8 {
			if raceEnabled && bit != i%8 { // make simulate runs all of them
				continue
			}
			data := bytes.Clone(good)
			data[i] ^= 1 << bit
			if err := os.WriteFile(name, data, 0o600); err != nil {
				t.Fatal(err)
			}
			if r := check(t, log, VerifyOptions{}); r.Status != verify.Damaged || r.File != "checkpoint" {
				t.Fatalf("byte %d, bit %d: %+v", i, bit, r)
			}
		}
	}
}

// A verification that is cancelled ends at once, wherever it is.
func TestVerifyCancelled(t *testing.T) {
	s := getSample(t)
	log := s.copyOf(t, filepath.Join(t.TempDir(), "copy"))
	f, err := os.OpenFile(log, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(append(bytes.Repeat([]byte("x"), 9<<20), '\n')); err != nil { // a line of many blocks
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(i)*100*time.Microsecond)
		if _, err := VerifyPath(ctx, log, &VerifyOptions{StateDir: t.TempDir()}); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		cancel()
	}
}

// An empty file given as the checkpoint from outside is no anchor: it must not
// pass for one that was never given.
func TestVerifyEmptyCheckpoint(t *testing.T) {
	s := getSample(t)
	r, err := VerifyPath(context.Background(), filepath.Join(s.dir, "audit.jsonl"), &VerifyOptions{Checkpoint: []byte{}, StateDir: t.TempDir()})
	if r != nil || !errors.Is(err, ErrNoCheckpoint) {
		t.Errorf("%+v, %v", r, err)
	}
}
