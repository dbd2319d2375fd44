package durable_test

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/durable/durabletest"
)

var (
	oldContent = []byte(strings.Repeat("old ", 2000))
	newContent = []byte(strings.Repeat("new! ", 3000))
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// replaced fails unless name holds the old content or the new, and says
// whether it is the new.
func replaced(t *testing.T, fsys durable.FS, name string) bool {
	t.Helper()
	b, err := durable.ReadFile(fsys, name, 1<<20)
	check(t, err)
	if string(b) != string(oldContent) && string(b) != string(newContent) {
		t.Fatalf("neither old nor new, but %d bytes", len(b))
	}
	return string(b) == string(newContent)
}

func TestOrderOfFileOperations(t *testing.T) {
	trace := &durabletest.Trace{Root: "/t"}
	fsys := durabletest.NewFaults(durabletest.NewMem(), func(op durabletest.Op) durabletest.Action {
		trace.Record(op)
		return durabletest.Pass
	})
	trace.Comment("MkdirAll")
	check(t, durable.MkdirAll(fsys, "/t/a/b", 0o700))
	trace.Comment("MkdirAll, there already")
	check(t, durable.MkdirAll(fsys, "/t/a/b", 0o700))
	trace.Comment("CreateFile")
	check(t, durable.CreateFile(fsys, "/t/c", newContent, 0o600))
	trace.Comment("WriteFile")
	check(t, durable.WriteFile(fsys, "/t/a/d", newContent, 0o600))
	const want = `# MkdirAll
syncdir ..
mkdir .
syncdir ..
mkdir a
syncdir .
mkdir a/b
syncdir a
# MkdirAll, there already
syncdir a
# CreateFile
create c
write c
sync c
close c
# WriteFile
create a/d.tmp
write a/d.tmp
sync a/d.tmp
close a/d.tmp
rename a/d.tmp -> a/d
syncdir a
`
	if got := trace.String(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestWriteFileLeavesOldOrNewAfterACrash(t *testing.T) {
	durabletest.EachCrash(t, 20, func(t *testing.T, r *durabletest.Run) {
		check(t, durable.WriteFile(r.FS, "/a", oldContent, 0o600))
		var err error
		r.Inject(func() { err = durable.WriteFile(r.FS, "/a", newContent, 0o600) })
		if isNew := replaced(t, r.Restart(), "/a"); err == nil && !isNew {
			t.Error("the new content was promised, and the old is there")
		}
	})
}

func TestFirstWriteFileLeavesNothingOrAllAfterACrash(t *testing.T) {
	durabletest.EachCrash(t, 20, func(t *testing.T, r *durabletest.Run) {
		var err error
		r.Inject(func() { err = durable.WriteFile(r.FS, "/a", newContent, 0o600) })
		if _, stat := r.Restart().Stat("/a"); err != nil && errors.Is(stat, fs.ErrNotExist) {
			return
		}
		if !replaced(t, r.Restart(), "/a") {
			t.Error("old content of a file that was not there")
		}
	})
}

func TestWriteFileTellsOfEveryFault(t *testing.T) {
	durabletest.EachOp(t, func(t *testing.T, r *durabletest.Run) {
		check(t, durable.WriteFile(r.FS, "/a", oldContent, 0o600))
		var err error
		r.Inject(func() { err = durable.WriteFile(r.FS, "/a", newContent, 0o600) })
		if r.Fired() != errors.Is(err, durabletest.ErrInjected) {
			t.Errorf("got %v", err)
		}
		replaced(t, r.Mem, "/a")
		for seed := range 10 {
			replaced(t, r.Mem.Crash(rand.New(rand.NewPCG(uint64(seed), 0))), "/a")
		}
		if entries, err := r.Mem.ReadDir("/"); err != nil || len(entries) != 1 {
			t.Errorf("%v is left behind: %v", entries, err)
		}
		// What went wrong does not stand in the way of the next time.
		check(t, durable.WriteFile(r.FS, "/a", newContent, 0o600))
		if !replaced(t, r.Mem.Crash(nil), "/a") {
			t.Error("the new content was promised, and the old is there")
		}
	})
}

func TestMkdirAllIsDurable(t *testing.T) {
	durabletest.EachCrash(t, 5, func(t *testing.T, r *durabletest.Run) {
		err := errors.New("not called")
		r.Inject(func() { err = durable.MkdirAll(r.FS, "/a/b/c", 0o700) })
		after := r.Restart()
		if err == nil {
			if fi, err := after.Stat("/a/b/c"); err != nil || !fi.IsDir() {
				t.Errorf("promised, and not there: %v", err)
			}
		}
		check(t, durable.MkdirAll(after, "/a/b/c", 0o700))
		_, err = after.Crash(nil).Stat("/a/b/c")
		check(t, err)
	})
}

// A process that is killed between mkdir and the sync leaves a directory that
// everybody sees and no disk has.
func TestMkdirAllMakesWhatOthersBeganDurable(t *testing.T) {
	durabletest.EachOp(t, func(t *testing.T, r *durabletest.Run) {
		r.Inject(func() { durable.MkdirAll(r.FS, "/a/b/c", 0o700) })
		check(t, durable.MkdirAll(r.FS, "/a/b/c", 0o700))
		_, err := r.Mem.Crash(nil).Stat("/a/b/c")
		check(t, err)
	})
}

func TestMkdirAllOnAFile(t *testing.T) {
	for _, fsys := range both(t) {
		check(t, durable.CreateFile(fsys, fsys.path("a"), nil, 0o600))
		if err := durable.MkdirAll(fsys, fsys.path("a"), 0o700); !errors.Is(err, syscall.ENOTDIR) {
			t.Errorf("%s: file: %v", fsys.name, err)
		}
		if err := durable.MkdirAll(fsys, fsys.path("a/b"), 0o700); !errors.Is(err, syscall.ENOTDIR) {
			t.Errorf("%s: below a file: %v", fsys.name, err)
		}
	}
}

// rootedFS is a file system and a directory in it.
type rootedFS struct {
	durable.FS
	name, root string
}

func (r rootedFS) path(name string) string { return filepath.Join(r.root, name) }

func both(t *testing.T) []rootedFS {
	return []rootedFS{
		{durable.OS, "OS", t.TempDir()},
		{durabletest.NewMem(), "Mem", "/"},
	}
}

func TestReadFileHasALimit(t *testing.T) {
	for _, fsys := range both(t) {
		name := fsys.path("a")
		check(t, durable.WriteFile(fsys, name, []byte("12345"), 0o600))
		b, err := durable.ReadFile(fsys, name, 5)
		if err != nil || string(b) != "12345" {
			t.Errorf("%s: %q, %v", fsys.name, b, err)
		}
		if _, err := durable.ReadFile(fsys, name, 4); err == nil {
			t.Errorf("%s: 5 bytes were read where 4 are allowed", fsys.name)
		}
	}
}

func TestReserveKeepsTheSize(t *testing.T) {
	for _, fsys := range both(t) {
		f, err := fsys.OpenFile(fsys.path("a"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		check(t, err)
		defer f.Close()
		if err := f.Reserve(1 << 16); errors.Is(err, errors.ErrUnsupported) {
			t.Logf("%s: this file system can't reserve", fsys.name)
		} else {
			check(t, err)
		}
		_, err = f.Write([]byte("abc"))
		check(t, err)
		fi, err := f.Stat()
		check(t, err)
		if fi.Size() != 3 {
			t.Errorf("%s: size %d, want 3", fsys.name, fi.Size())
		}
	}
}

func TestLockExcludesAndEndsWithTheFile(t *testing.T) {
	for _, fsys := range both(t) {
		open := func() durable.File {
			f, err := fsys.OpenFile(fsys.path("a"), os.O_RDWR|os.O_CREATE, 0o600)
			check(t, err)
			return f
		}
		first, second := open(), open()
		check(t, fsys.Lock(first))
		check(t, fsys.Lock(first))
		if err := fsys.Lock(second); !errors.Is(err, durable.ErrLocked) {
			t.Errorf("%s: second lock: %v", fsys.name, err)
		}
		check(t, first.Close())
		check(t, fsys.Lock(second))
		check(t, second.Close())
	}
	mem := durabletest.NewMem()
	f, err := mem.OpenFile("/a", os.O_RDWR|os.O_CREATE, 0o600)
	check(t, err)
	if err := durable.OS.Lock(f); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("lock of another file system's file: %v", err)
	}
}

func ExampleWriteFile() {
	fsys := durabletest.NewMem()
	if err := durable.WriteFile(fsys, "/checkpoint", []byte("size 42\n"), 0o600); err != nil {
		fmt.Println(err)
	}
	after := fsys.Crash(nil) // the power fails
	b, err := durable.ReadFile(after, "/checkpoint", 1024)
	fmt.Print(string(b), err, "\n")
	// Output:
	// size 42
	// <nil>
}
