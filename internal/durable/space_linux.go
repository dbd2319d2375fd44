package durable

import (
	"fmt"
	"io/fs"
	"syscall"
)

// magic are the f_type of statfs(2), from linux/magic.h and the file systems'
// own sources.
var magic = map[uint32]string{
	0xef53: "ext4", 0x58465342: "xfs", 0x9123683e: "btrfs", 0x2fc12fc1: "zfs", 0xf2f52010: "f2fs", 0xca451a4e: "bcachefs",
	0x3153464a: "jfs", 0x52654973: "reiserfs", 0x3434: "nilfs2", 0xf15f: "ecryptfs",
	0x01021994: "tmpfs", 0x858458f6: "ramfs", 0x794c7630: "overlay", 0x61756673: "aufs",
	0x6969: "nfs", 0xff534d42: "cifs", 0xfe534d42: "smb2", 0x517b: "smb", 0x5346414f: "afs", 0x6b414653: "afs", 0x73757245: "coda", 0x564c: "ncp",
	0x01021997: "9p", 0x786f4256: "vboxsf", 0xbacbacbc: "vmhgfs", 0x4d44: "vfat", 0x2011bab0: "exfat",
	0x65735546: "fuse", 0x00c36400: "ceph", 0x0bd00bd0: "lustre", 0x01161970: "gfs2", 0x7461636f: "ocfs2", 0x7366746e: "ntfs3",
}

// FileSystemOf tells what lies under a directory or file.
func FileSystemOf(name string) (FileSystem, error) {
	var st syscall.Statfs_t
	if err := ignoringEINTR(func() error { return syscall.Statfs(name, &st) }); err != nil {
		return FileSystem{}, &fs.PathError{Op: "statfs", Path: name, Err: err}
	}
	s := FileSystem{
		Name: magic[uint32(st.Type)], Free: st.Bavail * uint64(st.Bsize), Size: st.Blocks * uint64(st.Bsize), FreeFiles: int64(st.Ffree),
	}
	if st.Files == 0 {
		s.FreeFiles = -1 // btrfs makes inodes as it needs them
	}
	if s.Name == "" {
		s.Name = fmt.Sprintf("0x%x", uint32(st.Type))
	}
	return s, nil
}

func ignoringEINTR(do func() error) error {
	for {
		if err := do(); err != syscall.EINTR {
			return err
		}
	}
}
