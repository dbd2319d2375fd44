// Package durable does files right: write, sync, rename, directory sync, lock.
// It is the one place that touches durability; every file of a trail is made,
// replaced and removed through it.
//
// [FS] is the narrow set of operations that a trail needs. [OS] is the real
// one. Package durabletest has two more: a file system in memory that forgets
// what was not synced, and one that fails a chosen operation.
//
// What survives a power failure, on every FS:
//
//   - the bytes of a file that were written before its last successful Sync;
//   - a name (made, renamed, linked or removed) once SyncDir of its directory
//     returned;
//   - nothing else is promised, in either direction.
//
// An FS is safe for concurrent use. A File is not, but for ReadAt, and for Sync and
// Reserve beside a Write.
package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// File is an open file.
type File interface {
	io.Reader
	io.ReaderAt
	io.Writer
	io.WriterAt
	io.Closer

	// Sync returns once the bytes and what is needed to read them back (the
	// size) are on the device: fdatasync(2). After an error the state of the
	// unsynced bytes is unknown, and a second Sync proves nothing.
	Sync() error

	// Truncate sets the size. It does not move the write position of a file
	// opened with O_APPEND.
	Truncate(size int64) error

	// Reserve asks for disk space up to size without changing the file's
	// size. It reports errors.ErrUnsupported where it can't be done.
	Reserve(size int64) error

	Stat() (fs.FileInfo, error)
	Name() string
}

// FS is a file system. Names are absolute or relative to the process.
type FS interface {
	// OpenFile is os.OpenFile for regular files: anything else is refused with
	// ErrNotRegular and never waited for. A new file is not durable until it
	// is synced and SyncDir of its directory returned.
	OpenFile(name string, flag int, perm fs.FileMode) (File, error)
	Rename(oldname, newname string) error
	Link(oldname, newname string) error
	Remove(name string) error
	Mkdir(name string, perm fs.FileMode) error
	ReadDir(name string) ([]fs.DirEntry, error)
	Stat(name string) (fs.FileInfo, error)
	Chmod(name string, perm fs.FileMode) error

	// Chgrp gives a file or directory to a group, by its number.
	Chgrp(name string, gid int) error

	// SetAppendOnly sets or lifts the system's append-only flag of a file:
	// with it nobody, root included, changes, cuts, renames, links or removes
	// the file, or opens it for writing but to append (chattr(1), a). It is
	// durable on return. errors.ErrUnsupported where there is no such flag,
	// fs.ErrPermission without CAP_LINUX_IMMUTABLE.
	SetAppendOnly(name string, on bool) error

	// AppendOnly reports the flag; false where there is no such flag.
	AppendOnly(name string) (bool, error)

	// SyncDir makes the names in a directory durable.
	SyncDir(name string) error

	// Lock takes an exclusive lock on an open file of this FS without waiting
	// for it. It is released when the file is closed. ErrLocked means that
	// another open file holds it.
	Lock(f File) error

	// SameFile reports whether two results of Stat are one file.
	SameFile(a, b fs.FileInfo) bool
}

// ErrLocked is returned by FS.Lock when somebody else holds the lock.
var ErrLocked = errors.New("locked by another process")

// ErrNotRegular is in the error about what stands where a file belongs and is
// none: a directory, pipe, socket or device.
var ErrNotRegular = errors.New("not a regular file")

// CheckRegular refuses what is no regular file.
func CheckRegular(name string, fi fs.FileInfo) error {
	kind := errors.New("of an unknown kind")
	switch mode := fi.Mode(); {
	case mode.IsRegular():
		return nil
	case mode.IsDir():
		kind = syscall.EISDIR
	case mode&fs.ModeNamedPipe != 0:
		kind = errors.New("a named pipe")
	case mode&fs.ModeSocket != 0:
		kind = errors.New("a socket")
	case mode&fs.ModeDevice != 0:
		kind = errors.New("a device")
	}
	return &fs.PathError{Op: "open", Path: name, Err: fmt.Errorf("%w: %w", ErrNotRegular, kind)}
}

// ReadFile reads a whole file of at most max bytes; a larger one is an error.
func ReadFile(fsys FS, name string, max int64) ([]byte, error) {
	f, err := fsys.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, max+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > max {
		return nil, fmt.Errorf("%s: larger than %d bytes", name, max)
	}
	return b, nil
}

// tempSuffix ends the name of a file that is being written and not yet in
// place. One that is left behind by a crash means nothing and can go.
const tempSuffix = ".tmp"

// WriteFile replaces name by data as a whole: after a crash at any point the
// name holds the old content or the new, never a mixture and never less.
//
// Operations: open(name.tmp, O_CREATE|O_TRUNC), write, fdatasync, close,
// rename(name.tmp, name), fsync(directory). It returns once all are done. After
// an error before the rename name.tmp is removed; after an error of the last
// step the new content is in place and may not be durable.
// Two writers of one name must exclude each other.
func WriteFile(fsys FS, name string, data []byte, perm fs.FileMode) error {
	tmp := name + tempSuffix
	err := CreateFile(fsys, tmp, data, perm)
	if err == nil {
		err = fsys.Rename(tmp, name)
	}
	if err != nil {
		// On a full disk the half file would keep the space that it got.
		if gone := fsys.Remove(tmp); !errors.Is(gone, fs.ErrNotExist) {
			err = errors.Join(err, gone)
		}
		return err
	}
	return fsys.SyncDir(filepath.Dir(name))
}

// CreateFile writes and syncs a file, replacing what it held. Its name is not
// durable until the caller syncs the directory: callers that make many files
// sync their directories once.
func CreateFile(fsys FS, name string, data []byte, perm fs.FileMode) error {
	f, err := fsys.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, perm)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// MkdirAll makes a directory and its missing parents durable: each new one is
// followed by a sync of its parent. So is the first that is there already,
// because whoever made it may have died before that sync.
func MkdirAll(fsys FS, name string, perm fs.FileMode) error {
	parent := filepath.Dir(name)
	fi, err := fsys.Stat(name)
	switch {
	case err == nil && !fi.IsDir():
		return &fs.PathError{Op: "mkdir", Path: name, Err: syscall.ENOTDIR}
	case err == nil:
		err := fsys.SyncDir(parent)
		if errors.Is(err, fs.ErrPermission) {
			return nil // nobody makes names durable in what they can't read
		}
		return err
	}
	if parent != name {
		if err := MkdirAll(fsys, parent, perm); err != nil {
			return err
		}
	}
	if err := fsys.Mkdir(name, perm); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return fsys.SyncDir(parent)
}

// StartSync begins to write out what a file has in the page cache, where the system
// can, and does not wait. It promises nothing: Sync does, and finds less to do.
func StartSync(f File) {
	if s, ok := f.(interface{ startSync() }); ok {
		s.startSync()
	}
}

// SyncAll is Sync of many files at once, where the system can: they share what the
// device does for one. Their writing is begun before the first is waited for. 500 new
// files of 8 KiB beside a busy writer took 10 ms instead of 160.
func SyncAll(files []File) error {
	if len(files) > 2 {
		for _, f := range files {
			StartSync(f)
		}
		for len(files) > 0 {
			n, err := syncTogether(files)
			if err != nil {
				return err
			}
			if n == 0 {
				break
			}
			files = files[n:]
		}
	}
	for _, f := range files {
		if err := f.Sync(); err != nil {
			return err
		}
	}
	return nil
}
