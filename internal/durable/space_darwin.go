package durable

import (
	"io/fs"
	"syscall"
)

// FileSystemOf tells what lies under a directory or file.
func FileSystemOf(name string) (FileSystem, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(name, &st); err != nil {
		return FileSystem{}, &fs.PathError{Op: "statfs", Path: name, Err: err}
	}
	var kind []byte
	for _, c := range st.Fstypename {
		if c == 0 {
			break
		}
		kind = append(kind, byte(c))
	}
	return FileSystem{
		Name: string(kind), Free: st.Bavail * uint64(st.Bsize), Size: st.Blocks * uint64(st.Bsize), FreeFiles: int64(st.Ffree),
	}, nil
}
