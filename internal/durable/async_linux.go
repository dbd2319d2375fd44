//go:build amd64 || arm64 || loong64 || riscv64

package durable

import (
	"errors"
	"io/fs"
	"os"
	"runtime"
	"sync"
	"syscall"
	"unsafe"
)

// The structures of linux/aio_abi.h on a machine of 64 bits, little-endian.
type (
	iocb struct {
		data   uint64
		_      uint32
		flags  uint32 // RWF_*
		opcode uint16
		_      int16
		fd     uint32
		buf    uint64
		bytes  uint64
		offset int64
		_      uint64
		how    uint32 // IOCB_FLAG_*
		resfd  uint32
	}
	ioEvent struct {
		data, obj uint64
		res, res2 int64
	}
)

const (
	iocbCmdPwrite = 1 // linux/aio_abi.h
	iocbCmdFdsync = 3
	iocbFlagResfd = 1
	rwfDsync      = 2 // linux/fs.h
)

// aio writes with io_submit(2), and waits at an eventfd(2), which the runtime's poller
// looks after: a goroutine that waits there holds no thread, where one in a system
// call has its processor taken away and has to find another one afterwards.
type aio struct {
	*waiter
	file osFile
}

// waiter is what the kernel needs for one write at a time, of whatever file.
type waiter struct {
	ctx   uintptr
	done  *os.File // the eventfd
	fd    uint32   // its number
	pins  runtime.Pinner
	cb    iocb
	event ioEvent
	lost  bool // what became of a write is not known
}

// waiters are those that nobody uses now. They stay until the process ends: the kernel
// takes tens of milliseconds to give one back.
var waiters struct {
	sync.Mutex
	idle []*waiter
}

func newWaiter() (*waiter, error) {
	waiters.Lock()
	defer waiters.Unlock()
	if n := len(waiters.idle); n > 0 {
		w := waiters.idle[n-1]
		waiters.idle = waiters.idle[:n-1]
		return w, nil
	}
	fd, _, errno := syscall.Syscall(syscall.SYS_EVENTFD2, 0, syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if errno != 0 {
		return nil, errno
	}
	w := &waiter{fd: uint32(fd), done: os.NewFile(fd, "eventfd")}
	if _, _, errno := syscall.Syscall(syscall.SYS_IO_SETUP, 1, uintptr(unsafe.Pointer(&w.ctx)), 0); errno != 0 {
		return nil, errors.Join(errno, w.done.Close())
	}
	return w, nil
}

// syncsItself has the file systems of which is known that they sync such a write
// before they say that it is done. Others take the flag and do not: a server of FUSE,
// a kernel that is none.
var syncsItself = map[string]bool{"ext4": true, "xfs": true}

func (f osFile) newAsync() (writeSyncer, error) {
	if kind, err := FileSystemOf(f.Name()); err != nil || !syncsItself[kind.Name] {
		return nil, errors.ErrUnsupported
	}
	w, err := newWaiter()
	if err != nil {
		return nil, err
	}
	return &aio{w, f}, nil
}

// errNotSubmitted: the file system, or the system's limits, do not allow it now.
var errNotSubmitted = errors.New("not submitted")

func (a *aio) writeSync(p []byte, at int64) error {
	n, err := a.submit(p, at)
	if errors.Is(err, errNotSubmitted) {
		if _, err := a.file.WriteAt(p, at); err != nil {
			return err
		}
		return a.file.Sync()
	}
	if err == nil && n < len(p) {
		err = syscall.EIO // a short write of a file whose blocks are there
	}
	if err != nil {
		return &fs.PathError{Op: "write", Path: a.file.Name(), Err: err}
	}
	return nil
}

func (a *aio) submit(p []byte, at int64) (int, error) {
	a.pins.Pin(a.waiter)
	a.pins.Pin(unsafe.SliceData(p))
	defer a.pins.Unpin()
	a.cb = iocb{
		flags: rwfDsync, opcode: iocbCmdPwrite, fd: uint32(a.file.Fd()), how: iocbFlagResfd, resfd: a.fd,
		buf: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(p)))), bytes: uint64(len(p)), offset: at,
	}
	list := [1]*iocb{&a.cb}
	a.pins.Pin(&list)
	for {
		n, _, errno := syscall.Syscall(syscall.SYS_IO_SUBMIT, a.ctx, 1, uintptr(unsafe.Pointer(&list)))
		if errno == 0 && n == 1 {
			break
		}
		if errno != syscall.EINTR {
			return 0, errNotSubmitted
		}
	}
	// Where the poller does not look after it the call below waits.
	var count [8]byte
	_, _ = a.done.Read(count[:])
	for {
		n, _, errno := syscall.Syscall6(syscall.SYS_IO_GETEVENTS, a.ctx, 1, 1, uintptr(unsafe.Pointer(&a.event)), 0, 0)
		switch {
		case errno == 0 && n == 1 && a.event.res < 0:
			return 0, syscall.Errno(-a.event.res)
		case errno == 0 && n == 1:
			return int(a.event.res), nil
		case errno != syscall.EINTR:
			a.lost = true
			return 0, errno
		}
	}
}

func (a *aio) close() error {
	if !a.lost {
		waiters.Lock()
		defer waiters.Unlock()
		waiters.idle = append(waiters.idle, a.waiter)
	}
	return nil
}

// syncsAtOnce is how many files are given to the kernel at a time.
const syncsAtOnce = 128

// syncs is for one who syncs many files; another one beside it syncs them one by one.
// The kernel's part of it stays, as with waiters.
var syncs struct {
	sync.Mutex
	ctx   uintptr
	none  bool // the kernel has none
	cbs   [syncsAtOnce]iocb
	list  [syncsAtOnce]*iocb
	event [syncsAtOnce]ioEvent
}

// syncTogether syncs files at once, and tells how many of them it has dealt with.
func syncTogether(files []File) (n int, err error) {
	s := &syncs
	if !s.TryLock() {
		return 0, nil
	}
	defer s.Unlock()
	if s.none {
		return 0, nil
	}
	if s.ctx == 0 {
		if _, _, errno := syscall.Syscall(syscall.SYS_IO_SETUP, syncsAtOnce, uintptr(unsafe.Pointer(&s.ctx)), 0); errno != 0 {
			s.none = true
			return 0, nil
		}
	}
	files = files[:min(len(files), syncsAtOnce)]
	for i, f := range files {
		of, ok := f.(osFile)
		if !ok {
			return 0, nil
		}
		s.cbs[i] = iocb{data: uint64(i), opcode: iocbCmdFdsync, fd: uint32(of.Fd())}
		s.list[i] = &s.cbs[i]
	}
	for n < len(files) {
		got, _, errno := syscall.Syscall(syscall.SYS_IO_SUBMIT, s.ctx, uintptr(len(files)-n), uintptr(unsafe.Pointer(&s.list[n])))
		if errno == syscall.EINTR {
			continue
		}
		if errno != 0 { // those that were taken are waited for, and the others synced one by one
			s.none = errno == syscall.EINVAL || errno == syscall.ENOSYS || errno == syscall.EPERM // not by a file's fault
			break
		}
		n += int(got)
	}
	for left := n; left > 0; {
		got, _, errno := syscall.Syscall6(syscall.SYS_IO_GETEVENTS, s.ctx, uintptr(left), uintptr(left), uintptr(unsafe.Pointer(&s.event)), 0, 0)
		if errno == syscall.EINTR {
			continue
		}
		if errno != 0 {
			s.none = true // what is under way is not known
			return n, errno
		}
		for _, e := range s.event[:got] {
			if e.res < 0 && err == nil {
				err = &fs.PathError{Op: "sync", Path: files[e.data].Name(), Err: syscall.Errno(-e.res)}
			}
		}
		left -= int(got)
	}
	return n, err
}
