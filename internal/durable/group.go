package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os/user"
	"strconv"
	"syscall"
)

// LookupGroup gives the number of a group that is named, or numbered, by s.
func LookupGroup(s string) (gid int, err error) {
	if n, err := strconv.ParseUint(s, 10, 31); err == nil {
		return int(n), nil
	}
	g, err := user.LookupGroup(s)
	if _, unknown := errors.AsType[user.UnknownGroupError](err); unknown {
		return 0, fmt.Errorf("there is no group %q", s)
	}
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(g.Gid)
}

// GroupName is the name of a group, or its number where it has none.
func GroupName(gid int) string {
	s := strconv.Itoa(gid)
	if g, err := user.LookupGroupId(s); err == nil {
		return g.Name
	}
	return s
}

// OwnerOf is the user that a file belongs to, -1 where the file system has
// none.
func OwnerOf(fsys FS, name string) (int, error) {
	fi, err := fsys.Stat(name)
	if err != nil {
		return -1, err
	}
	return UserOf(fi), nil
}

// UserOf is OwnerOf for what Stat gave.
func UserOf(fi fs.FileInfo) int {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid)
	}
	return -1
}

// GroupOf is the group that a file belongs to, -1 where the file system has
// none.
func GroupOf(fi fs.FileInfo) int {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return int(st.Gid)
	}
	return -1
}
