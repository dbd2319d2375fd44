package durable

import (
	"errors"
	"io/fs"
	"runtime/debug"
	"syscall"
)

// Memory is the beginning of a file as memory that is shared with it. What is written
// there is the system's at once, as with File.WriteAt, and costs no call. It is for a
// file of fixed size that was written once in full.
type Memory struct {
	name  string
	bytes []byte
}

// Map gives the first size bytes of a file as memory. errors.ErrUnsupported where
// there is no such thing.
func Map(f File, size int64) (*Memory, error) {
	m, ok := f.(interface {
		mapShared(size int) ([]byte, error)
	})
	if !ok || int64(int(size)) != size {
		return nil, errors.ErrUnsupported
	}
	b, err := m.mapShared(int(size))
	if err != nil {
		return nil, &fs.PathError{Op: "map", Path: f.Name(), Err: err}
	}
	return &Memory{f.Name(), b}, nil
}

// WriteAt writes p at an offset, all of it or, on an error, perhaps a part. Where the
// file was cut short meanwhile, or its pages can't be read back, it is an error and
// does not end the process.
func (m *Memory) WriteAt(p []byte, at int64) (n int, err error) {
	if at < 0 || int64(len(m.bytes))-at < int64(len(p)) {
		return 0, &fs.PathError{Op: "write", Path: m.name, Err: syscall.EFBIG}
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if gone := recover(); gone != nil {
			if _, fault := gone.(interface{ Addr() uintptr }); !fault {
				panic(gone)
			}
			n, err = 0, &fs.PathError{Op: "write", Path: m.name, Err: syscall.EIO}
		}
	}()
	return copy(m.bytes[at:], p), nil
}

// Close gives the memory back. The file stays open.
func (m *Memory) Close() error {
	b := m.bytes
	m.bytes = nil
	return unmap(b)
}
