package durable

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// OS is the operating system's file system.
var OS FS = osFS{}

type osFS struct{}

type osFile struct{ *os.File }

func (osFS) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	// A pipe in the place of a file is not waited for: O_NONBLOCK means nothing
	// to a regular one.
	f, err := os.OpenFile(name, flag|syscall.O_NONBLOCK, perm)
	if errors.Is(err, syscall.ENXIO) { // a socket, or a pipe without a reader
		if fi, gone := os.Stat(name); gone == nil {
			if irregular := CheckRegular(name, fi); irregular != nil {
				return nil, irregular
			}
		}
	}
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil {
		err = CheckRegular(name, fi)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return osFile{f}, nil
}

func (osFS) Rename(oldname, newname string) error       { return os.Rename(oldname, newname) }
func (osFS) Link(oldname, newname string) error         { return os.Link(oldname, newname) }
func (osFS) Remove(name string) error                   { return os.Remove(name) }
func (osFS) Mkdir(name string, perm fs.FileMode) error  { return os.Mkdir(name, perm) }
func (osFS) ReadDir(name string) ([]fs.DirEntry, error) { return os.ReadDir(name) }
func (osFS) Stat(name string) (fs.FileInfo, error)      { return os.Stat(name) }
func (osFS) Chmod(name string, perm fs.FileMode) error  { return os.Chmod(name, perm) }
func (osFS) Chgrp(name string, gid int) error           { return os.Chown(name, -1, gid) }
func (osFS) SameFile(a, b fs.FileInfo) bool             { return os.SameFile(a, b) }

func (osFS) SyncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Lock uses flock(2): it belongs to the open file, so it also excludes a
// second Open in this process, and it ends with the process.
func (osFS) Lock(f File) error {
	of, ok := f.(osFile)
	if !ok {
		return errors.ErrUnsupported
	}
	for {
		err := syscall.Flock(int(of.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EWOULDBLOCK):
			return ErrLocked
		default:
			return &fs.PathError{Op: "lock", Path: of.Name(), Err: err}
		}
	}
}
