package durabletest_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	. "github.com/kaizen-audit/kaizen-audit/internal/durable/durabletest"
)

const page = 4096

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func ok(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func create(t testing.TB, fsys durable.FS, name string) durable.File {
	t.Helper()
	return must(fsys.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600))(t)
}

func write(t testing.TB, f durable.File, data string) {
	t.Helper()
	must(f.Write([]byte(data)))(t)
}

func seeded(seed int) *rand.Rand { return rand.New(rand.NewPCG(uint64(seed), 1)) }

// found gives what a file holds, or that it is not there.
func found(t testing.TB, fsys durable.FS, name string) string {
	t.Helper()
	b, err := durable.ReadFile(fsys, name, 1<<24)
	if errors.Is(err, fs.ErrNotExist) {
		return "not there"
	}
	ok(t, err)
	return string(b)
}

// outcomes collects what a crash can leave of a file over many seeds.
func outcomes(t testing.TB, m *Mem, name string) map[string]int {
	t.Helper()
	all := map[string]int{}
	for seed := range 400 {
		all[found(t, m.Crash(seeded(seed)), name)]++
	}
	return all
}

func wantOutcomes(t *testing.T, got map[string]int, want ...string) {
	t.Helper()
	slices.Sort(want)
	if keys := slices.Sorted(maps.Keys(got)); !slices.Equal(keys, want) {
		t.Errorf("a crash leaves %q, want each of %q", keys, want)
	}
}

func TestNameNeedsSyncOfItsDirectory(t *testing.T) {
	m := NewMem()
	f := create(t, m, "/a")
	write(t, f, "x")
	ok(t, f.Sync())
	wantOutcomes(t, outcomes(t, m, "/a"), "not there", "x")
	if got := found(t, m.Crash(nil), "/a"); got != "not there" {
		t.Errorf("with everything unsynced lost: %q", got)
	}
	ok(t, m.SyncDir("/"))
	wantOutcomes(t, outcomes(t, m, "/a"), "x")
}

func TestContentNeedsSyncOfTheFile(t *testing.T) {
	m := NewMem()
	f := create(t, m, "/a")
	ok(t, m.SyncDir("/"))
	write(t, f, "xy")
	// The size may get there before the bytes.
	wantOutcomes(t, outcomes(t, m, "/a"), "", "x", "\x00", "xy", "\x00\x00")
	other := must(m.OpenFile("/a", os.O_RDONLY, 0))(t)
	ok(t, other.Sync()) // any open file of it will do
	wantOutcomes(t, outcomes(t, m, "/a"), "xy")
}

func TestOverwriteMayTearAtSectors(t *testing.T) {
	m := NewMem()
	f := create(t, m, "/a")
	write(t, f, strings.Repeat("o", 2*page))
	ok(t, f.Sync(), m.SyncDir("/"))
	must(f.WriteAt(bytes.Repeat([]byte("n"), 2*page), 0))(t)
	var pages, sectors bool
	for got := range outcomes(t, m, "/a") {
		if len(got) != 2*page {
			t.Fatalf("%d bytes, but the size never changed", len(got))
		}
		whole := true
		for at := 0; at < len(got); at += 512 {
			if s := got[at : at+512]; strings.Trim(s, "o") != "" && strings.Trim(s, "n") != "" {
				t.Fatalf("sector at %d is torn", at)
			}
			whole = whole && got[at] == got[at/page*page]
		}
		pages = pages || whole && got[0] != got[page]
		sectors = sectors || !whole
	}
	if !pages || !sectors {
		t.Errorf("torn between pages: %v, inside one: %v; want both", pages, sectors)
	}
}

func TestRenameIsAtomicAndInOrder(t *testing.T) {
	m := NewMem()
	ok(t, durable.WriteFile(m, "/a", []byte("old"), 0o600))
	ok(t, durable.CreateFile(m, "/tmp", []byte("new"), 0o600))
	ok(t, m.Rename("/tmp", "/a"))
	ok(t, durable.CreateFile(m, "/later", nil, 0o600))
	wantOutcomes(t, outcomes(t, m, "/a"), "old", "new")
	for seed := range 100 {
		after := m.Crash(seeded(seed))
		if found(t, after, "/later") == "" && found(t, after, "/a") != "new" {
			t.Fatal("a later change of the directory overtook an earlier one")
		}
		if found(t, after, "/a") == "new" && found(t, after, "/tmp") != "not there" {
			t.Fatal("half a rename")
		}
	}
}

func TestRenameBetweenDirectoriesIsTwoChanges(t *testing.T) {
	m := NewMem()
	ok(t, durable.MkdirAll(m, "/d", 0o700), durable.MkdirAll(m, "/e", 0o700))
	ok(t, durable.WriteFile(m, "/d/a", []byte("x"), 0o600))
	ok(t, m.Rename("/d/a", "/e/a"))
	got := map[string]int{}
	for seed := range 100 {
		after := m.Crash(seeded(seed))
		got[found(t, after, "/d/a")+", "+found(t, after, "/e/a")]++
	}
	wantOutcomes(t, got, "x, not there", "not there, x", "x, x", "not there, not there")
	ok(t, m.SyncDir("/d"), m.SyncDir("/e"))
	if got := found(t, m.Crash(nil), "/e/a"); got != "x" {
		t.Errorf("after both syncs: %q", got)
	}
}

func TestHardLinksStayOneFileAfterACrash(t *testing.T) {
	m := NewMem()
	ok(t, durable.WriteFile(m, "/a", []byte("x"), 0o600), m.Link("/a", "/b"), m.SyncDir("/"))
	after := m.Crash(nil)
	a, b := must(after.Stat("/a"))(t), must(after.Stat("/b"))(t)
	if !after.SameFile(a, b) {
		t.Error("two files where one was")
	}
	ok(t, after.Remove("/a"))
	if got := found(t, after, "/b"); got != "x" {
		t.Errorf("the other name holds %q", got)
	}
}

// fsync(2) reports a failed write-back once; the pages are clean afterwards
// and the next fsync has nothing to do.
func TestFailedSyncLosesPagesForGood(t *testing.T) {
	m := NewMem()
	failing := false
	f := NewFaults(NewFaults(m, nil), func(op Op) Action {
		if failing && op.Kind == "sync" {
			return FailBefore(syscall.EIO)
		}
		return Pass
	})
	file := create(t, f, "/a")
	write(t, file, strings.Repeat("1", page))
	ok(t, file.Sync(), f.SyncDir("/"))
	write(t, file, strings.Repeat("2", page))
	failing = true
	if err := file.Sync(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("sync: %v", err)
	}
	failing = false
	if got := found(t, f, "/a"); got != strings.Repeat("1", page)+strings.Repeat("2", page) {
		t.Error("what a failed sync left can't be read")
	}
	write(t, file, strings.Repeat("3", page))
	ok(t, file.Sync())
	want := strings.Repeat("1", page) + strings.Repeat("\x00", page) + strings.Repeat("3", page)
	if got := found(t, m.Crash(nil), "/a"); got != want {
		t.Error("a sync after a failed one wrote pages that count as clean")
	}
	must(file.WriteAt([]byte("4"), page))(t)
	ok(t, file.Sync())
	if got := found(t, m.Crash(nil), "/a"); got[page:2*page] != "4"+strings.Repeat("2", page-1) {
		t.Error("a page that was written again was not synced")
	}
}

func TestCrashFreesLocksAndReservations(t *testing.T) {
	m := NewMem()
	f := create(t, m, "/a")
	ok(t, m.SyncDir("/"), m.Lock(f), f.Reserve(10*page))
	after := m.Crash(nil)
	if used := after.Used(); used != 0 {
		t.Errorf("%d bytes are taken", used)
	}
	ok(t, after.Lock(create(t, after, "/a")))
	if err := m.Lock(create(t, m, "/a")); !errors.Is(err, durable.ErrLocked) {
		t.Errorf("in the old file system: %v", err)
	}
	if err := after.Lock(f); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("lock of a file of another file system: %v", err)
	}
}

func TestChmodOfAFileIsNeverPromised(t *testing.T) {
	m := NewMem()
	ok(t, durable.WriteFile(m, "/a", nil, 0o600), m.Mkdir("/d", 0o700), m.SyncDir("/"))
	ok(t, m.Chmod("/a", 0o400), m.Chmod("/d", 0o500))
	perm := func(m *Mem, name string) fs.FileMode { return must(m.Stat(name))(t).Mode().Perm() }
	if p := perm(m.Crash(nil), "/a"); p != 0o600 {
		t.Errorf("file: %v", p)
	}
	if p := perm(m.Crash(nil), "/d"); p != 0o700 {
		t.Errorf("directory: %v", p)
	}
	ok(t, m.SyncDir("/d"))
	if p := perm(m.Crash(nil), "/d"); p != 0o500 {
		t.Errorf("directory after its sync: %v", p)
	}
}

func TestFullDisk(t *testing.T) {
	full := func(err error) {
		t.Helper()
		var pathErr *fs.PathError
		if !errors.Is(err, syscall.ENOSPC) || !errors.As(err, &pathErr) {
			t.Fatalf("got %v, want a path error that is ENOSPC", err)
		}
	}
	m := NewMem()
	m.SetCapacity(3 * page)
	f := create(t, m, "/a")
	ok(t, f.Reserve(2*page))
	g := create(t, m, "/b")
	n, err := g.Write(make([]byte, page+100))
	if full(err); n != page {
		t.Errorf("%d bytes were written, want what there was room for", n)
	}
	full(f.Reserve(3 * page))
	write(t, f, strings.Repeat("x", 2*page)) // was reserved
	if _, err := f.Write([]byte("x")); true {
		full(err)
	}
	ok(t, f.Truncate(page))
	must(g.Write(make([]byte, 100)))(t)
	ok(t, f.Truncate(0), m.Remove("/b"))
	if used := m.Used(); used != 2*page {
		t.Errorf("%d bytes are taken while a removed file is open, want %d", used, 2*page)
	}
	ok(t, g.Close(), f.Reserve(3*page))
	ok(t, m.Remove("/a"), f.Close())
	if used := m.Used(); used != 0 {
		t.Errorf("%d bytes are taken by nothing", used)
	}
}

// plainFile is the promise for one file, computed the slow way.
type plainFile struct {
	now, disk []byte
	unsynced  map[int]string // by page: "written" or "cut"
	low, high int
	touched   bool // anything since the last good sync
}

func (p *plainFile) write(b []byte, off int) {
	if end := off + len(b); end > len(p.now) && len(b) > 0 {
		p.now = append(p.now, make([]byte, end-len(p.now))...)
	}
	copy(p.now[min(off, len(p.now)):], b)
	for at := off; at < off+len(b); at++ {
		p.unsynced[at/page] = "written"
	}
	p.size()
}

func (p *plainFile) truncate(n int) {
	for at := n; at < len(p.now); at++ {
		if at/page*page >= n {
			p.unsynced[at/page] = "cut"
		}
	}
	if n < len(p.now) {
		p.now = slices.Clone(p.now[:n])
	} else {
		p.now = append(p.now, make([]byte, n-len(p.now))...)
	}
	p.size()
}

func (p *plainFile) size() {
	p.low, p.high, p.touched = min(p.low, len(p.now)), max(p.high, len(p.now)), true
}

func (p *plainFile) sync() {
	disk := make([]byte, len(p.now))
	copy(disk, p.disk[:min(p.low, len(p.disk))])
	for i := range p.unsynced {
		if i*page < len(disk) {
			copy(disk[i*page:min(len(disk), (i+1)*page)], p.now[i*page:])
		}
	}
	p.disk, p.low, p.high, p.touched = disk, len(disk), len(disk), !bytes.Equal(disk, p.now)
	clear(p.unsynced)
}

func (p *plainFile) failSync() {
	maps.DeleteFunc(p.unsynced, func(_ int, how string) bool { return how == "written" })
}

func TestCrashKeepsWhatWasSyncedAndInventsNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := NewMem()
		failing := false
		fsys := NewFaults(m, func(op Op) Action {
			if failing && op.Kind == "sync" {
				return FailBefore(syscall.EIO)
			}
			return Pass
		})
		file, err := fsys.OpenFile("/a", os.O_RDWR|os.O_CREATE, 0o600)
		if err := errors.Join(err, m.SyncDir("/")); err != nil {
			t.Fatal(err)
		}
		p := &plainFile{unsynced: map[int]string{}}
		type snapshot struct {
			m    *Mem
			want string
		}
		var before []snapshot
		read := func(m *Mem) string {
			b, err := durable.ReadFile(m, "/a", 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			return string(b)
		}
		fill := byte(0)
		t.Repeat(map[string]func(*rapid.T){
			"write": func(t *rapid.T) {
				fill = fill%255 + 1
				b := bytes.Repeat([]byte{fill}, rapid.OneOf(rapid.IntRange(0, 700), rapid.IntRange(0, 9000)).Draw(t, "bytes"))
				off := len(p.now)
				if rapid.Bool().Draw(t, "inside") {
					off = rapid.IntRange(0, 20000).Draw(t, "off")
				}
				if _, err := file.WriteAt(b, int64(off)); err != nil {
					t.Fatal(err)
				}
				p.write(b, off)
			},
			"truncate": func(t *rapid.T) {
				n := rapid.IntRange(0, 20000).Draw(t, "size")
				if err := file.Truncate(int64(n)); err != nil {
					t.Fatal(err)
				}
				p.truncate(n)
			},
			"sync": func(t *rapid.T) {
				if err := file.Sync(); err != nil {
					t.Fatal(err)
				}
				p.sync()
			},
			"failing sync": func(t *rapid.T) {
				failing = true
				if err := file.Sync(); !errors.Is(err, syscall.EIO) {
					t.Fatalf("sync: %v", err)
				}
				failing = false
				p.failSync()
			},
			"crash": func(t *rapid.T) {
				after := m.Crash(seeded(rapid.Int().Draw(t, "seed")))
				got := read(after)
				before = append(before, snapshot{after, got})
				if !p.touched && got != string(p.now) {
					t.Fatal("everything was synced, and something else is there")
				}
				if len(got) < p.low || len(got) > p.high {
					t.Fatalf("%d bytes, want %d to %d", len(got), p.low, p.high)
				}
				at := func(b []byte, i int) byte {
					if i < len(b) {
						return b[i]
					}
					return 0
				}
				for i := range len(got) {
					if c := got[i]; c != at(p.disk, i) && c != at(p.now, i) && !(c == 0 && i/512*512 >= p.low) {
						t.Fatalf("byte %d is %d: neither %d on disk nor %d written", i, c, at(p.disk, i), at(p.now, i))
					}
				}
			},
			"go on after a crash": func(t *rapid.T) {
				if len(before) == 0 {
					t.Skip("none yet")
				}
				s := &before[rapid.IntRange(0, len(before)-1).Draw(t, "which")]
				g, err := s.m.OpenFile("/a", os.O_WRONLY, 0)
				if err != nil {
					t.Fatal(err)
				}
				off := rapid.IntRange(0, len(s.want)).Draw(t, "off")
				if _, err := g.WriteAt([]byte("after"), int64(off)); err != nil {
					t.Fatal(err)
				}
				s.want = s.want[:off] + "after" + s.want[min(len(s.want), off+len("after")):]
			},
			"": func(t *rapid.T) {
				if read(m) != string(p.now) {
					t.Fatal("a program does not read what it wrote")
				}
				if got := read(m.Crash(nil)); got != string(p.disk) {
					t.Fatalf("with everything unsynced lost: %d bytes, want the %d synced", len(got), len(p.disk))
				}
				for _, s := range before {
					if read(s.m) != s.want {
						t.Fatal("a file system from before a crash and one from after share bytes")
					}
				}
			},
		})
	})
}

func TestCrashKeepsAPrefixOfADirectorysChanges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := NewMem()
		list := func(m *Mem) string {
			s, err := tree(m, "/")
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		states := []string{list(m)} // since the last SyncDir
		n := 0
		name := func(t *rapid.T) string {
			return rapid.SampledFrom([]string{"/a", "/b", "/c"}).Draw(t, "name")
		}
		changed := func(error) { states = append(states, list(m)) } // or not: that is a state too
		t.Repeat(map[string]func(*rapid.T){
			"create": func(t *rapid.T) {
				n++
				changed(durable.CreateFile(m, fmt.Sprint("/", n), []byte(fmt.Sprint(n)), 0o600))
			},
			"rename in": func(t *rapid.T) { changed(m.Rename(fmt.Sprint("/", n), name(t))) },
			"rename":    func(t *rapid.T) { changed(m.Rename(name(t), name(t))) },
			"link":      func(t *rapid.T) { changed(m.Link(name(t), name(t))) },
			"remove":    func(t *rapid.T) { changed(m.Remove(name(t))) },
			"syncdir": func(t *rapid.T) {
				if err := m.SyncDir("/"); err != nil {
					t.Fatal(err)
				}
				states = []string{list(m)}
			},
			"": func(t *rapid.T) {
				if got := list(m.Crash(nil)); got != states[0] {
					t.Fatalf("with everything unsynced lost:\n%swant\n%s", got, states[0])
				}
				after := m.Crash(seeded(rapid.Int().Draw(t, "seed")))
				if got := list(after); !slices.Contains(states, got) {
					t.Fatalf("never was so:\n%s", got)
				}
			},
		})
	})
}

func TestOneSeedHasOneOutcome(t *testing.T) {
	m := NewMem()
	for i := range 30 {
		f := create(t, m, fmt.Sprintf("/%d", i))
		write(t, f, strings.Repeat("x", 300*i))
	}
	different := false
	for seed := range 10 {
		a := must(tree(m.Crash(seeded(seed)), "/"))(t)
		if b := must(tree(m.Crash(seeded(seed)), "/"))(t); a != b {
			t.Fatalf("seed %d:\n%s\n%s", seed, a, b)
		}
		different = different || a != must(tree(m.Crash(seeded(seed+1)), "/"))(t)
	}
	if !different {
		t.Error("every seed has the same outcome")
	}
}

// BenchmarkMemWriteFile is a checkpoint's work: written, synced, renamed.
func BenchmarkMemWriteFile(b *testing.B) {
	m, data := NewMem(), make([]byte, 180)
	b.ReportAllocs()
	for b.Loop() {
		if err := durable.WriteFile(m, "/checkpoint", data, 0o600); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkMemAppendSync must not depend on how long the file has become.
func BenchmarkMemAppendSync(b *testing.B) {
	m, data := NewMem(), make([]byte, 450)
	f := must(m.OpenFile("/log", os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600))(b)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := f.Write(data); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
	}
}

func TestManyCanUseOneMem(t *testing.T) {
	m := NewMem()
	f := NewFaults(m, nil)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			name := fmt.Sprintf("/%d", g)
			for i := range 50 {
				if err := durable.WriteFile(f, name, []byte(fmt.Sprint(i)), 0o600); err != nil {
					t.Error(err)
				}
				if got := found(t, m.Crash(seeded(i)), name); got != fmt.Sprint(i) {
					t.Errorf("%s holds %q, want %d", name, got, i)
				}
			}
		})
	}
	wg.Wait()
}
