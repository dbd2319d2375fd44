package durable

import (
	"errors"
	"io/fs"
	"syscall"
)

// Direct is a flag of OpenFile for writes around the page cache, in whole blocks
// at whole blocks of memory. A file system that can't refuses it with EINVAL. They
// are as durable as others: after Sync.
const Direct = syscall.O_DIRECT

const fallocKeepSize = 0x01 // FALLOC_FL_KEEP_SIZE, linux/falloc.h

func (f osFile) Sync() error {
	for {
		err := syscall.Fdatasync(int(f.Fd()))
		if err == nil {
			return nil
		}
		if !errors.Is(err, syscall.EINTR) {
			return &fs.PathError{Op: "sync", Path: f.Name(), Err: err}
		}
	}
}

func (f osFile) Reserve(size int64) error {
	for {
		err := syscall.Fallocate(int(f.Fd()), fallocKeepSize, 0, size)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EOPNOTSUPP), errors.Is(err, syscall.ENOSYS):
			return errors.ErrUnsupported
		default:
			return &fs.PathError{Op: "reserve", Path: f.Name(), Err: err}
		}
	}
}

const syncFileRangeWrite = 2 // SYNC_FILE_RANGE_WRITE, linux/fs.h

func (f osFile) startSync() {
	// An error is the following Sync's to tell.
	_ = syscall.SyncFileRange(int(f.Fd()), 0, 0, syncFileRangeWrite)
}

func (f osFile) mapShared(size int) ([]byte, error) {
	return syscall.Mmap(int(f.Fd()), 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
}

func unmap(b []byte) error { return syscall.Munmap(b) }
