package durabletest

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
)

// Mem is a durable.FS in memory. It behaves as a POSIX file system that a
// privileged user works on (permission bits are kept, not enforced), and it
// remembers which of its state is on the disk:
//
//   - the bytes and the size of a file, by Sync on any of its open files;
//   - the names in a directory, by SyncDir of that directory;
//   - the permission bits of a directory, by SyncDir of it. Those of a file
//     are durable as it was made; a later Chmod is never promised, because
//     fdatasync(2) does not promise it.
//
// A rename inside one directory is one change. A rename from one directory
// into another is a change of each, and a crash may keep either alone.
//
// A Sync that fails (see [Faults]) leaves pages as Linux does: still readable,
// clean, and not on the disk. A later Sync does not write them unless they
// were written to again.
//
// Names are absolute, or relative to the root. There are no symbolic links.
type Mem struct {
	mu       sync.Mutex
	root     *inode
	capacity int64 // pages; 0 is no limit
	used     int64 // pages charged to files
}

var _ durable.FS = (*Mem)(nil)

// NewMem returns a file system that holds an empty root directory.
func NewMem() *Mem { return &Mem{root: newDir(0o755)} }

// SetCapacity limits the disk to a number of bytes, in whole pages of 4,096;
// 0 is no limit. Only the contents of files take space. What is there stays
// when the limit is less.
func (m *Mem) SetCapacity(bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.capacity = bytes / pageSize
	if bytes > 0 && m.capacity == 0 {
		m.capacity = 1
	}
}

// Used returns the bytes that files and reservations take, in whole pages.
func (m *Mem) Used() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.used * pageSize
}

// inode is a file or a directory. All inodes are guarded by Mem.mu.
type inode struct {
	mode     fs.FileMode // as now
	diskMode fs.FileMode // as on the disk
	mtime    time.Time
	links    int      // names that lead here now
	opens    int      // open files
	holder   *memFile // who has the lock

	dir  *directory // nil for a file
	file *content   // nil for a directory
}

// directory is a directory's names. A name on the disk is a name whose change
// was followed by a SyncDir.
type directory struct {
	names   map[string]*inode
	disk    map[string]*inode
	pending []change // what was done to names since disk was true, in order
}

// change is one atomic step in a directory: a name goes, a name is set to a
// node, or both (a rename). Empty names mean that this half is not there.
type change struct {
	gone string
	set  string
	node *inode
}

func (c change) apply(names map[string]*inode) {
	if c.gone != "" {
		delete(names, c.gone)
	}
	if c.set != "" {
		names[c.set] = c.node
	}
}

func (d *directory) change(c change) {
	c.apply(d.names)
	d.pending = append(d.pending, c)
}

func (d *directory) sync() {
	for _, c := range d.pending {
		c.apply(d.disk)
	}
	clear(d.pending) // lets go of the nodes
	d.pending = d.pending[:0]
}

func newDir(perm fs.FileMode) *inode {
	mode := perm.Perm() | fs.ModeDir
	return &inode{mode: mode, diskMode: mode, mtime: time.Now(), dir: &directory{
		names: make(map[string]*inode), disk: make(map[string]*inode),
	}}
}

func newFile(perm fs.FileMode) *inode {
	return &inode{mode: perm.Perm(), diskMode: perm.Perm(), mtime: time.Now(), file: &content{}}
}

// release gives a file's space back once nothing leads to it any more.
func (m *Mem) release(n *inode) {
	if n.file != nil && n.links == 0 && n.opens == 0 {
		m.used -= n.file.charged()
	}
}

// walk finds a node. The error is a bare syscall.Errno.
func (m *Mem) walk(name string) (*inode, error) {
	if name == "" {
		return nil, syscall.ENOENT
	}
	n := m.root
	rest := strings.TrimPrefix(rooted(name), "/")
	for rest != "" {
		var base string
		base, rest, _ = strings.Cut(rest, "/")
		if n.dir == nil {
			return nil, syscall.ENOTDIR
		}
		next := n.dir.names[base]
		if next == nil {
			return nil, syscall.ENOENT
		}
		n = next
	}
	return n, nil
}

// walkParent finds the directory that a name is in, and the last element of
// the name. The root has none and is busy.
func (m *Mem) walkParent(name string) (*inode, string, error) {
	if name == "" {
		return nil, "", syscall.ENOENT
	}
	full := rooted(name)
	if full == "/" {
		return nil, "", syscall.EBUSY
	}
	i := strings.LastIndexByte(full, '/')
	n, err := m.walk(full[:max(i, 1)])
	if err == nil && n.dir == nil {
		err = syscall.ENOTDIR
	}
	return n, full[i+1:], err
}

func rooted(name string) string {
	return filepath.ToSlash(filepath.Join(string(filepath.Separator), name))
}

// OpenFile is os.OpenFile. A directory can be opened for reading only, to ask
// for its Stat.
func (m *Mem) OpenFile(name string, flag int, perm fs.FileMode) (durable.File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.open(name, flag, perm)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	n.opens++
	return &memFile{mem: m, node: n, name: name, flag: flag}, nil
}

func (m *Mem) open(name string, flag int, perm fs.FileMode) (*inode, error) {
	if rooted(name) == "/" && name != "" {
		return nil, syscall.EISDIR
	}
	parent, base, err := m.walkParent(name)
	if err != nil {
		return nil, err
	}
	n := parent.dir.names[base]
	switch {
	case n == nil && flag&os.O_CREATE == 0:
		return nil, syscall.ENOENT
	case n == nil:
		n = newFile(perm)
		m.set(parent, change{set: base, node: n})
	case flag&os.O_CREATE != 0 && flag&os.O_EXCL != 0:
		return nil, syscall.EEXIST
	case n.dir != nil:
		return nil, syscall.EISDIR
	case n.file != nil && flag&os.O_TRUNC != 0:
		m.truncate(n, 0)
	}
	return n, nil
}

// set makes a change in a directory and keeps the count of links.
func (m *Mem) set(parent *inode, c change) {
	for _, name := range []string{c.gone, c.set} {
		if old := parent.dir.names[name]; old != nil && name != "" {
			old.links--
			defer m.release(old)
		}
	}
	if c.node != nil {
		c.node.links++
	}
	parent.dir.change(c)
	parent.mtime = time.Now()
}

// Rename is os.Rename.
func (m *Mem) Rename(oldname, newname string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.rename(oldname, newname); err != nil {
		return &os.LinkError{Op: "rename", Old: oldname, New: newname, Err: err}
	}
	return nil
}

func (m *Mem) rename(oldname, newname string) error {
	// os.Rename looks at the target first: a directory is never replaced.
	if target, err := m.walk(newname); err == nil && target.dir != nil {
		if _, err := m.walk(oldname); err != nil {
			return err
		}
		return syscall.EEXIST
	}
	from, oldbase, err := m.walkParent(oldname)
	if err != nil {
		return err
	}
	to, newbase, err := m.walkParent(newname)
	if err != nil {
		return err
	}
	n := from.dir.names[oldbase]
	if n == nil {
		return syscall.ENOENT
	}
	if n.dir != nil && strings.HasPrefix(rooted(newname), rooted(oldname)+"/") {
		return syscall.EINVAL
	}
	switch target := to.dir.names[newbase]; {
	case target == n:
		return nil // rename(2): two names of one file stay as they are
	case target != nil && n.dir != nil:
		return syscall.ENOTDIR
	case from == to:
		m.set(from, change{gone: oldbase, set: newbase, node: n})
	default:
		m.set(to, change{set: newbase, node: n})
		m.set(from, change{gone: oldbase})
	}
	return nil
}

// Link is os.Link.
func (m *Mem) Link(oldname, newname string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.link(oldname, newname); err != nil {
		return &os.LinkError{Op: "link", Old: oldname, New: newname, Err: err}
	}
	return nil
}

func (m *Mem) link(oldname, newname string) error {
	n, err := m.walk(oldname)
	if err != nil {
		return err
	}
	parent, base, err := m.walkParent(newname)
	switch {
	case errors.Is(err, syscall.EBUSY):
		return syscall.EEXIST
	case err != nil:
		return err
	case parent.dir.names[base] != nil:
		return syscall.EEXIST
	case n.dir != nil:
		return syscall.EPERM
	}
	m.set(parent, change{set: base, node: n})
	return nil
}

// Remove is os.Remove.
func (m *Mem) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	parent, base, err := m.walkParent(name)
	if err == nil {
		switch n := parent.dir.names[base]; {
		case n == nil:
			err = syscall.ENOENT
		case n.dir != nil && len(n.dir.names) > 0:
			err = syscall.ENOTEMPTY
		default:
			m.set(parent, change{gone: base})
		}
	}
	if err != nil {
		return &fs.PathError{Op: "remove", Path: name, Err: err}
	}
	return nil
}

// Mkdir is os.Mkdir.
func (m *Mem) Mkdir(name string, perm fs.FileMode) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	parent, base, err := m.walkParent(name)
	switch {
	case errors.Is(err, syscall.EBUSY):
		err = syscall.EEXIST
	case err != nil:
	case parent.dir.names[base] != nil:
		err = syscall.EEXIST
	default:
		m.set(parent, change{set: base, node: newDir(perm)})
	}
	if err != nil {
		return &fs.PathError{Op: "mkdir", Path: name, Err: err}
	}
	return nil
}

// ReadDir is os.ReadDir.
func (m *Mem) ReadDir(name string) ([]fs.DirEntry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.walk(name)
	if err == nil && n.dir == nil {
		err = syscall.ENOTDIR
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	entries := make([]fs.DirEntry, 0, len(n.dir.names))
	for _, base := range slices.Sorted(maps.Keys(n.dir.names)) {
		entries = append(entries, fs.FileInfoToDirEntry(n.dir.names[base].info(base)))
	}
	return entries, nil
}

// Stat is os.Stat.
func (m *Mem) Stat(name string) (fs.FileInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.walk(name)
	if err != nil {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	return n.info(filepath.Base(name)), nil
}

// Chmod is os.Chmod.
func (m *Mem) Chmod(name string, perm fs.FileMode) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.walk(name)
	if err != nil {
		return &fs.PathError{Op: "chmod", Path: name, Err: err}
	}
	n.mode = n.mode.Type() | perm.Perm()
	return nil
}

// Chgrp checks the name: no file here has a group.
func (m *Mem) Chgrp(name string, _ int) error {
	_, err := m.Stat(name)
	return err
}

// SetAppendOnly is not supported, as on file systems without flags.
func (m *Mem) SetAppendOnly(name string, _ bool) error {
	return &fs.PathError{Op: "append-only", Path: name, Err: errors.ErrUnsupported}
}

// AppendOnly is false.
func (m *Mem) AppendOnly(string) (bool, error) { return false, nil }

// SyncDir puts the names in a directory on the disk.
func (m *Mem) SyncDir(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.walk(name)
	if err == nil && n.dir == nil {
		err = syscall.ENOTDIR
	}
	if err != nil {
		return &fs.PathError{Op: "open", Path: name, Err: err}
	}
	n.syncDir()
	return nil
}

func (n *inode) syncDir() {
	n.dir.sync()
	n.diskMode = n.mode
}

// Lock takes the lock of the inode behind an open file of this Mem.
func (m *Mem) Lock(f durable.File) error {
	mf, ok := f.(*memFile)
	if !ok || mf.mem != m {
		return errors.ErrUnsupported
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case mf.closed:
		return mf.fail("lock", fs.ErrClosed)
	case mf.node.holder != nil && mf.node.holder != mf:
		return durable.ErrLocked
	}
	mf.node.holder = mf
	return nil
}

// SameFile reports whether two results of Stat are one inode.
func (m *Mem) SameFile(a, b fs.FileInfo) bool {
	x, ok := a.(*memInfo)
	y, ok2 := b.(*memInfo)
	return ok && ok2 && x.node == y.node
}

// memInfo is a node as it was when somebody asked.
type memInfo struct {
	node  *inode
	name  string
	size  int64
	mode  fs.FileMode
	mtime time.Time
}

func (n *inode) info(name string) *memInfo {
	fi := &memInfo{node: n, name: name, mode: n.mode, mtime: n.mtime}
	if n.file != nil {
		fi.size = n.file.size
	}
	return fi
}

func (fi *memInfo) Name() string       { return fi.name }
func (fi *memInfo) Size() int64        { return fi.size }
func (fi *memInfo) Mode() fs.FileMode  { return fi.mode }
func (fi *memInfo) ModTime() time.Time { return fi.mtime }
func (fi *memInfo) IsDir() bool        { return fi.mode.IsDir() }
func (fi *memInfo) Sys() any           { return nil }
