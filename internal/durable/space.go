package durable

import (
	"slices"
	"strings"
)

// FileSystem is what lies under a directory.
type FileSystem struct {
	Name string // as mount(8) knows it; "0x…" where only its number is known
	// Free and Size are bytes: what a user may still write, and all there is.
	Free, Size uint64
	// FreeFiles is how many more files can be made; -1 where there is no bound.
	FreeFiles int64
}

// Fitness says whether a trail can lie on a file system.
type Fitness int

const (
	// Unknown: nobody here knows how it locks, renames and syncs.
	Unknown Fitness = iota
	// Fit: locks, renames and syncs are those of this machine's kernel.
	Fit
	// Passing is Fit until the machine or container ends.
	Passing
	// Unfit: a lock does not keep others out, or a rename is not whole.
	Unfit
)

// fitness is what is known of file systems; docs/decisions/0010 has the
// reasons.
var fitness = map[Fitness][]string{
	Fit:     {"ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "jfs", "reiserfs", "nilfs2", "ecryptfs", "apfs", "hfs"},
	Passing: {"tmpfs", "ramfs", "overlay", "aufs"},
	Unfit: {
		"nfs", "cifs", "smb", "smb2", "smbfs", "afpfs", "webdav", "afs", "coda", "ncp", // locks end at the network
		"9p", "vboxsf", "vmhgfs", // folders of a virtual machine's host
		"vfat", "msdos", "exfat", // no modes, no links, no atomic rename
	},
}

// Fitness judges a file system by its name alone.
func (s FileSystem) Fitness() Fitness {
	for f, names := range fitness {
		if slices.Contains(names, s.Name) {
			return f
		}
	}
	return Unknown
}

// Because is why a file system is not Fit, in a few words.
func (s FileSystem) Because() string {
	switch s.Fitness() {
	case Fit:
		return ""
	case Passing:
		if strings.HasSuffix(s.Name, "fs") && s.Name != "aufs" {
			return "it is memory, and gone when the machine stops"
		}
		return "it is a container's own layer, and gone with the container"
	case Unknown:
		return "how it locks and renames is not known here"
	}
	switch s.Name {
	case "vfat", "msdos", "exfat":
		return "it has no permissions and no atomic rename"
	case "9p", "vboxsf", "vmhgfs":
		return "its locks do not keep out the machine that shares it"
	}
	return "a lock can be lost over the network without notice, and two writers fork the trail"
}
