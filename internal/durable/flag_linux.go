//go:build linux && (386 || amd64 || arm || arm64 || loong64 || riscv64 || s390x)

package durable

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
	"unsafe"
)

// FS_IOC_GETFLAGS and FS_IOC_SETFLAGS, ioctl_iflags(2): _IOR('f', 1, long) and
// _IOW('f', 2, long) by asm-generic/ioctl.h, which the architectures of this
// file share. The argument is an int all the same.
const (
	long     = unsafe.Sizeof(uintptr(0))
	getFlags = 2<<30 | long<<16 | 'f'<<8 | 1
	setFlags = 1<<30 | long<<16 | 'f'<<8 | 2

	appendFlag = 0x20 // FS_APPEND_FL, linux/fs.h
)

func (osFS) AppendOnly(name string) (bool, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe must hold nobody up
	if err != nil {
		return false, err
	}
	defer f.Close()
	flags, err := ioctlFlags(f, getFlags, 0)
	if errors.Is(err, errors.ErrUnsupported) {
		return false, nil
	}
	return flags&appendFlag != 0, err
}

func (osFS) SetAppendOnly(name string, on bool) error {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe must hold nobody up
	if err != nil {
		return err
	}
	defer f.Close()
	flags, err := ioctlFlags(f, getFlags, 0)
	if err != nil {
		return err
	}
	want := flags &^ appendFlag
	if on {
		want |= appendFlag
	}
	if want == flags {
		return nil
	}
	if _, err := ioctlFlags(f, setFlags, want); err != nil {
		return err
	}
	return f.Sync() // the flag is in the inode: fsync(2), not fdatasync(2)
}

func ioctlFlags(f *os.File, request uintptr, flags int32) (int32, error) {
	for {
		_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), request, uintptr(unsafe.Pointer(&flags)))
		switch errno {
		case 0:
			return flags, nil
		case syscall.EINTR:
		case syscall.ENOTTY, syscall.EOPNOTSUPP, syscall.ENOSYS, syscall.EINVAL:
			return 0, &fs.PathError{Op: "append-only", Path: f.Name(), Err: errors.ErrUnsupported}
		default:
			return 0, &fs.PathError{Op: "append-only", Path: f.Name(), Err: errno}
		}
	}
}
