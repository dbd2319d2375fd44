package durabletest

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// pageSize is the unit of the page cache, of a failed write-back and of space:
// Linux's page on every platform with 4 KiB pages, and ext4's and XFS's block.
const pageSize = 4096

// content is a file's bytes: an image that programs see and one on the disk,
// page by page. Bytes that no page holds are zero.
type content struct {
	size     int64
	diskSize int64
	// low and high bound every size since the last successful Sync, because
	// the disk may have seen any of them.
	low, high int64

	pages    map[int64]*page
	dirty    []int64 // pages that the next Sync writes
	reserved int64   // pages from 0 that take space with or without bytes
}

// page holds up to pageSize bytes of a file; bytes past a slice's end are zero.
//
// now and disk may share memory. Then now's bytes below len(disk) are not
// changed in place, and those above are nobody else's: that is what makes
// append, Sync, append cost the bytes appended and not the page.
type page struct {
	now, disk []byte
	shared    bool // now and disk begin in the same memory
	dirty     bool // in content.dirty
	lost      bool // clean after a failed Sync: now is not on the disk
}

func (p *page) write(off int, b []byte) {
	if p.shared && off < len(p.disk) {
		p.now, p.shared = slices.Clone(p.now), false
	}
	if len(p.now) < off {
		p.now = append(p.now, make([]byte, off-len(p.now))...)
	}
	n := copy(p.now[off:], b)
	p.now = append(p.now, b[n:]...)
}

// cut drops the bytes from n on. It gives up the room behind them, which a
// crashed copy may still be reading.
func (p *page) cut(n int) { p.now = p.now[:n:n] }

func (c *content) markDirty(i int64, p *page) {
	p.lost = false
	if !p.dirty {
		p.dirty = true
		c.dirty = append(c.dirty, i)
	}
}

func (c *content) setSize(n int64) {
	c.size = n
	c.low = min(c.low, n)
	c.high = max(c.high, n)
}

// charged counts the pages that take space.
func (c *content) charged() int64 {
	n := c.reserved
	for i, p := range c.pages {
		if i >= c.reserved && len(p.now) > 0 {
			n++
		}
	}
	return n
}

func (c *content) readAt(b []byte, off int64) int {
	if off >= c.size {
		return 0
	}
	b = b[:min(int64(len(b)), c.size-off)]
	for n := 0; n < len(b); {
		at := off + int64(n)
		in := int(at % pageSize)
		part := b[n:min(len(b), n+pageSize-in)]
		var k int
		if p := c.pages[at/pageSize]; p != nil && in < len(p.now) {
			k = copy(part, p.now[in:])
		}
		clear(part[k:])
		n += len(part)
	}
	return len(b)
}

// sync puts everything that is dirty on the disk. After a failed sync that is
// less than what can be read.
func (c *content) sync() {
	for _, i := range c.dirty {
		p := c.pages[i]
		p.dirty = false
		p.disk, p.shared = slices.Clip(p.now), true
		if len(p.now) == 0 {
			delete(c.pages, i)
		}
	}
	c.dirty = c.dirty[:0]
	if c.low < c.diskSize {
		c.cutDisk()
	}
	c.diskSize, c.low, c.high = c.size, c.size, c.size
}

// cutDisk drops what the disk has beyond the smallest size since the last
// Sync: of pages that are not dirty, nothing was written there since.
func (c *content) cutDisk() {
	for i, p := range c.pages {
		keep := int(min(max(0, c.low-i*pageSize), pageSize))
		if p.lost && keep < len(p.disk) {
			p.now, p.shared = slices.Clone(p.now), false
			p.disk = p.disk[:keep]
		}
	}
}

// failSync is a write-back that went wrong: the pages count as clean and are
// not on the disk. What was cut off is metadata and stays to be done.
func (c *content) failSync() {
	c.dirty = slices.DeleteFunc(c.dirty, func(i int64) bool {
		p := c.pages[i]
		if len(p.now) == 0 {
			return false
		}
		p.dirty, p.lost = false, true
		return true
	})
}

// take charges pages if there is room for all of them.
func (m *Mem) take(pages int64) bool {
	if m.capacity > 0 && m.used+pages > m.capacity {
		return false
	}
	m.used += pages
	return true
}

// writeAt writes page by page and stops where the disk is full.
func (m *Mem) writeAt(n *inode, b []byte, off int64) (int, error) {
	c := n.file
	done := 0
	for done < len(b) {
		at := off + int64(done)
		i, in := at/pageSize, int(at%pageSize)
		part := b[done:min(len(b), done+pageSize-in)]
		p := c.pages[i]
		if i >= c.reserved && (p == nil || len(p.now) == 0) && !m.take(1) {
			break
		}
		if p == nil {
			if c.pages == nil {
				c.pages = make(map[int64]*page)
			}
			p = &page{}
			c.pages[i] = p
		}
		p.write(in, part)
		c.markDirty(i, p)
		done += len(part)
		c.setSize(max(c.size, at+int64(len(part))))
	}
	n.mtime = time.Now()
	if done < len(b) {
		return done, syscall.ENOSPC
	}
	return done, nil
}

// truncate sets a file's size. Making it no larger also gives up what was
// reserved beyond, as ext4 and XFS do.
func (m *Mem) truncate(n *inode, size int64) {
	c := n.file
	n.mtime = time.Now()
	if size <= c.size {
		for i, p := range c.pages {
			switch start := i * pageSize; {
			case len(p.now) == 0 || start+int64(len(p.now)) <= size:
				continue
			case start < size:
				p.cut(int(size - start))
				if p.lost {
					continue // a cut is not a write
				}
			default:
				if i >= c.reserved {
					m.used--
				}
				p.now, p.shared = nil, false
			}
			c.markDirty(i, p)
		}
		if keep := pagesFor(size); keep < c.reserved {
			m.used -= c.reserved - keep
			c.reserved = keep
		}
	}
	c.setSize(size)
}

// reserve charges all pages below size.
func (m *Mem) reserve(c *content, size int64) error {
	want := pagesFor(size)
	if want <= c.reserved {
		return nil
	}
	need := want - c.reserved
	for i, p := range c.pages {
		if i >= c.reserved && i < want && len(p.now) > 0 {
			need--
		}
	}
	if !m.take(need) {
		return syscall.ENOSPC
	}
	c.reserved = want
	return nil
}

func pagesFor(size int64) int64 { return (size + pageSize - 1) / pageSize }

// memFile is an open file. Its fields are guarded by Mem.mu.
type memFile struct {
	mem    *Mem
	node   *inode
	name   string
	flag   int
	pos    int64
	closed bool
}

const accessMode = os.O_RDONLY | os.O_WRONLY | os.O_RDWR

func (f *memFile) fail(op string, err error) error {
	return &fs.PathError{Op: op, Path: f.name, Err: err}
}

// check reports why an operation can't be done on this open file.
func (f *memFile) check(write bool) error {
	mode := f.flag & accessMode
	switch {
	case f.closed:
		return fs.ErrClosed
	case write && mode == os.O_RDONLY, !write && mode == os.O_WRONLY:
		return syscall.EBADF
	case f.node.dir != nil:
		return syscall.EISDIR
	}
	return nil
}

func (f *memFile) Name() string { return f.name }

func (f *memFile) Read(b []byte) (int, error) {
	f.mem.mu.Lock()
	defer f.mem.mu.Unlock()
	if len(b) == 0 && !f.closed {
		return 0, nil
	}
	if err := f.check(false); err != nil {
		return 0, f.fail("read", err)
	}
	n := f.node.file.readAt(b, f.pos)
	f.pos += int64(n)
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (f *memFile) ReadAt(b []byte, off int64) (int, error) {
	f.mem.mu.Lock()
	defer f.mem.mu.Unlock()
	if off < 0 {
		return 0, f.fail("readat", errNegative)
	}
	if len(b) == 0 {
		return 0, nil
	}
	if err := f.check(false); err != nil {
		return 0, f.fail("read", err)
	}
	n := f.node.file.readAt(b, off)
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

var (
	errNegative = errors.New("negative offset")
	errAppendAt = errors.New("invalid use of WriteAt on file opened with O_APPEND")
)

func (f *memFile) Write(b []byte) (int, error) {
	f.mem.mu.Lock()
	defer f.mem.mu.Unlock()
	if err := f.check(true); err != nil {
		return 0, f.fail("write", err)
	}
	if f.flag&os.O_APPEND != 0 && len(b) > 0 {
		f.pos = f.node.file.size
	}
	n, err := f.mem.writeAt(f.node, b, f.pos)
	f.pos += int64(n)
	if err != nil {
		return n, f.fail("write", err)
	}
	return n, nil
}

func (f *memFile) WriteAt(b []byte, off int64) (int, error) {
	f.mem.mu.Lock()
	defer f.mem.mu.Unlock()
	switch {
	case f.flag&os.O_APPEND != 0:
		return 0, errAppendAt
	case off < 0:
		return 0, f.fail("writeat", errNegative)
	case len(b) == 0:
		return 0, nil
	}
	if err := f.check(true); err != nil {
		return 0, f.fail("write", err)
	}
	n, err := f.mem.writeAt(f.node, b, off)
	if err != nil {
		return n, f.fail("write", err)
	}
	return n, nil
}

func (f *memFile) Sync() error {
	f.mem.mu.Lock()
	defer f.mem.mu.Unlock()
	switch {
	case f.closed:
		return f.fail("sync", fs.ErrClosed)
	case f.node.dir != nil:
		f.node.syncDir()
	default:
		f.node.file.sync()
	}
	return nil
}

// failSync is what Faults calls in place of Sync.
func (f *memFile) failSync() {
	f.mem.mu.Lock()
	defer f.mem.mu.Unlock()
	if !f.closed && f.node.file != nil {
		f.node.file.failSync()
	}
}

func (f *memFile) Truncate(size int64) error {
	f.mem.mu.Lock()
	defer f.mem.mu.Unlock()
	switch err := f.check(true); {
	case f.closed:
		return f.fail("truncate", fs.ErrClosed)
	case err != nil, size < 0:
		return f.fail("truncate", syscall.EINVAL) // ftruncate(2)
	}
	f.mem.truncate(f.node, size)
	return nil
}

func (f *memFile) Reserve(size int64) error {
	f.mem.mu.Lock()
	defer f.mem.mu.Unlock()
	err := f.check(true)
	switch {
	case f.closed:
	case size <= 0:
		err = syscall.EINVAL // fallocate(2) looks at the length first
	case err == nil:
		err = f.mem.reserve(f.node.file, size)
	}
	if err != nil {
		return f.fail("reserve", err)
	}
	return nil
}

func (f *memFile) Stat() (fs.FileInfo, error) {
	f.mem.mu.Lock()
	defer f.mem.mu.Unlock()
	if f.closed {
		return nil, f.fail("stat", fs.ErrClosed)
	}
	return f.node.info(filepath.Base(f.name)), nil
}

func (f *memFile) Close() error {
	f.mem.mu.Lock()
	defer f.mem.mu.Unlock()
	if f.closed {
		return f.fail("close", fs.ErrClosed)
	}
	f.closed = true
	if f.node.holder == f {
		f.node.holder = nil
	}
	f.node.opens--
	f.mem.release(f.node)
	return nil
}
