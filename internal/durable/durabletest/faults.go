package durabletest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
)

// Op is one operation on a file system, as a hook sees it before it is done.
type Op struct {
	// N numbers, from 1, the operations that change something: the ones that
	// a fault is worth injecting in. The others (open, read, readat, stat,
	// readdir, and close of a file that was only read) have 0.
	N int
	// Kind is create (an open with O_CREATE or O_TRUNC), open, read, readat,
	// write, writeat, sync, truncate, reserve, close, lock, rename, link,
	// remove, mkdir, chmod, syncdir, stat or readdir.
	Kind string
	Name string // as the caller spelled it
	New  string // the second name of rename and link
	Size int64  // bytes of a write, size of truncate and reserve
}

// Action is what is to become of an operation; the zero Action is [Pass].
type Action struct {
	err   error
	after bool
	short bool
	n     int
}

// Pass does the operation.
var Pass Action

// FailBefore reports err and does nothing. Of a sync that means that pages
// are clean and not on the disk (see [Mem]). A close is done all the same, as
// close(2) does it.
func FailBefore(err error) Action { return Action{err: err} }

// FailAfter does the operation and then reports err all the same.
func FailAfter(err error) Action { return Action{err: err, after: true} }

// ShortWrite writes the first n bytes of a write or writeat and reports err.
// Of any other operation it is FailBefore.
func ShortWrite(n int, err error) Action { return Action{err: err, short: true, n: n} }

// ErrInjected is the error of faults that don't name one of their own.
var ErrInjected = errors.New("injected fault")

// Faults is a file system whose operations a hook sees and may make fail.
// Errors come as fs.PathError or os.LinkError around the hook's error.
type Faults struct {
	fsys durable.FS

	mu   sync.Mutex
	hook func(Op) Action
	n    int
}

var _ durable.FS = (*Faults)(nil)

// NewFaults returns fsys with a hook in front. The hook is called before each
// operation, by one goroutine at a time; nil is none. It must not use the
// Faults itself.
func NewFaults(fsys durable.FS, hook func(Op) Action) *Faults {
	return &Faults{fsys: fsys, hook: hook}
}

// SetHook exchanges the hook and starts the numbers of operations from 1.
func (f *Faults) SetHook(hook func(Op) Action) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hook, f.n = hook, 0
}

// Count returns how many operations that change something there were.
func (f *Faults) Count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.n
}

// ask numbers an operation and asks the hook.
func (f *Faults) ask(op Op, changes bool) Action {
	f.mu.Lock()
	defer f.mu.Unlock()
	if changes {
		f.n++
		op.N = f.n
	}
	if f.hook == nil {
		return Pass
	}
	return f.hook(op)
}

// do is an operation that an Action decides on.
func (f *Faults) do(op Op, changes bool, work func() error) error {
	a := f.ask(op, changes)
	if a.err == nil {
		return work()
	}
	if a.after {
		if err := work(); err != nil {
			return err
		}
	}
	return op.fail(a.err)
}

func (op Op) fail(err error) error {
	if op.New != "" {
		return &os.LinkError{Op: op.Kind, Old: op.Name, New: op.New, Err: err}
	}
	return &fs.PathError{Op: op.Kind, Path: op.Name, Err: err}
}

// OpenFile is the operation create or open.
func (f *Faults) OpenFile(name string, flag int, perm fs.FileMode) (durable.File, error) {
	creates := flag&(os.O_CREATE|os.O_TRUNC) != 0
	kind := "open"
	if creates {
		kind = "create"
	}
	var file durable.File
	err := f.do(Op{Kind: kind, Name: name}, creates, func() (err error) {
		file, err = f.fsys.OpenFile(name, flag, perm)
		return err
	})
	if err != nil {
		if file != nil {
			err = errors.Join(err, file.Close()) // it happened, and nobody has it
		}
		return nil, err
	}
	return &faultFile{File: file, faults: f, writes: flag&accessMode != os.O_RDONLY}, nil
}

// Rename is the operation rename.
func (f *Faults) Rename(oldname, newname string) error {
	return f.do(Op{Kind: "rename", Name: oldname, New: newname}, true, func() error {
		return f.fsys.Rename(oldname, newname)
	})
}

// Link is the operation link.
func (f *Faults) Link(oldname, newname string) error {
	return f.do(Op{Kind: "link", Name: oldname, New: newname}, true, func() error {
		return f.fsys.Link(oldname, newname)
	})
}

// Remove is the operation remove.
func (f *Faults) Remove(name string) error {
	return f.do(Op{Kind: "remove", Name: name}, true, func() error { return f.fsys.Remove(name) })
}

// Mkdir is the operation mkdir.
func (f *Faults) Mkdir(name string, perm fs.FileMode) error {
	return f.do(Op{Kind: "mkdir", Name: name}, true, func() error { return f.fsys.Mkdir(name, perm) })
}

// Chmod is the operation chmod.
func (f *Faults) Chmod(name string, perm fs.FileMode) error {
	return f.do(Op{Kind: "chmod", Name: name}, true, func() error { return f.fsys.Chmod(name, perm) })
}

// Chgrp is the operation chgrp.
func (f *Faults) Chgrp(name string, gid int) error {
	return f.do(Op{Kind: "chgrp", Name: name}, true, func() error { return f.fsys.Chgrp(name, gid) })
}

// SetAppendOnly is the operation append-only.
func (f *Faults) SetAppendOnly(name string, on bool) error {
	return f.do(Op{Kind: "append-only", Name: name}, true, func() error { return f.fsys.SetAppendOnly(name, on) })
}

// AppendOnly is no operation: it only looks.
func (f *Faults) AppendOnly(name string) (bool, error) { return f.fsys.AppendOnly(name) }

// SyncDir is the operation syncdir.
func (f *Faults) SyncDir(name string) error {
	return f.do(Op{Kind: "syncdir", Name: name}, true, func() error { return f.fsys.SyncDir(name) })
}

// ReadDir is the operation readdir.
func (f *Faults) ReadDir(name string) (entries []fs.DirEntry, err error) {
	err = f.do(Op{Kind: "readdir", Name: name}, false, func() (err error) {
		entries, err = f.fsys.ReadDir(name)
		return err
	})
	return entries, err
}

// Stat is the operation stat.
func (f *Faults) Stat(name string) (fi fs.FileInfo, err error) {
	err = f.do(Op{Kind: "stat", Name: name}, false, func() (err error) {
		fi, err = f.fsys.Stat(name)
		return err
	})
	return fi, err
}

// Lock is the operation lock.
func (f *Faults) Lock(file durable.File) error {
	return f.do(Op{Kind: "lock", Name: file.Name()}, true, func() error {
		if ff, ok := file.(*faultFile); ok && ff.faults == f {
			file = ff.File
		}
		return f.fsys.Lock(file)
	})
}

// SameFile is no operation.
func (f *Faults) SameFile(a, b fs.FileInfo) bool { return f.fsys.SameFile(a, b) }

// faultFile is an open file of a Faults. Stat and Name pass.
type faultFile struct {
	durable.File
	faults *Faults
	writes bool
}

func (f *faultFile) do(kind string, changes bool, size int64, work func() error) error {
	return f.faults.do(Op{Kind: kind, Name: f.Name(), Size: size}, changes, work)
}

func (f *faultFile) Read(b []byte) (n int, err error) {
	err = f.do("read", false, 0, func() (err error) {
		n, err = f.File.Read(b)
		return err
	})
	return n, err
}

func (f *faultFile) ReadAt(b []byte, off int64) (n int, err error) {
	err = f.do("readat", false, 0, func() (err error) {
		n, err = f.File.ReadAt(b, off)
		return err
	})
	return n, err
}

func (f *faultFile) Write(b []byte) (int, error) {
	return f.write("write", b, f.File.Write)
}

func (f *faultFile) WriteAt(b []byte, off int64) (int, error) {
	return f.write("writeat", b, func(b []byte) (int, error) { return f.File.WriteAt(b, off) })
}

func (f *faultFile) write(kind string, b []byte, work func([]byte) (int, error)) (int, error) {
	op := Op{Kind: kind, Name: f.Name(), Size: int64(len(b))}
	a := f.faults.ask(op, true)
	switch {
	case a.err == nil:
		return work(b)
	case a.short:
		b = b[:min(max(a.n, 0), len(b))]
	case !a.after:
		return 0, op.fail(a.err)
	}
	n, err := work(b)
	if err == nil {
		err = op.fail(a.err)
	}
	return n, err
}

func (f *faultFile) Sync() error {
	op := Op{Kind: "sync", Name: f.Name()}
	a := f.faults.ask(op, true)
	if a.err != nil && !a.after {
		f.failSync()
		return op.fail(a.err)
	}
	err := f.File.Sync()
	if err == nil && a.err != nil {
		err = op.fail(a.err)
	}
	return err
}

// failSync lets the file system below know that a sync went wrong, if it
// wants to.
func (f *faultFile) failSync() {
	if below, ok := f.File.(interface{ failSync() }); ok {
		below.failSync()
	}
}

func (f *faultFile) Truncate(size int64) error {
	return f.do("truncate", true, size, func() error { return f.File.Truncate(size) })
}

func (f *faultFile) Reserve(size int64) error {
	return f.do("reserve", true, size, func() error { return f.File.Reserve(size) })
}

func (f *faultFile) Close() error {
	op := Op{Kind: "close", Name: f.Name()}
	a := f.faults.ask(op, f.writes)
	err := f.File.Close()
	if err == nil && a.err != nil {
		err = op.fail(a.err)
	}
	return err
}

// Trace writes down the operations that change something, one a line:
//
//	create X.trail/checkpoint.tmp
//	write X.trail/checkpoint.tmp 180
//	sync X.trail/checkpoint.tmp
//	close X.trail/checkpoint.tmp
//	rename X.trail/checkpoint.tmp -> X.trail/checkpoint
//	syncdir X.trail
//
// Call Record from a hook; operations that are of no interest are left out by
// not recording them.
type Trace struct {
	Root  string // names are written relative to it
	Sizes bool   // write the sizes of write, writeat, truncate and reserve

	mu    sync.Mutex
	lines strings.Builder
}

// Record adds an operation, unless it changes nothing.
func (t *Trace) Record(op Op) {
	if op.N == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(&t.lines, "%s %s", op.Kind, t.rel(op.Name))
	switch op.Kind {
	case "rename", "link":
		fmt.Fprintf(&t.lines, " -> %s", t.rel(op.New))
	case "write", "writeat", "truncate", "reserve":
		if t.Sizes {
			fmt.Fprintf(&t.lines, " %d", op.Size)
		}
	}
	t.lines.WriteByte('\n')
}

// Comment adds a line "# text", to say which part of the work comes next.
func (t *Trace) Comment(text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(&t.lines, "# %s\n", text)
}

// String returns all lines, each with its newline.
func (t *Trace) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lines.String()
}

func (t *Trace) rel(name string) string {
	if t.Root != "" {
		if rel, err := filepath.Rel(t.Root, name); err == nil {
			name = rel
		}
	}
	return filepath.ToSlash(name)
}
