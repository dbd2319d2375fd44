package durable

import (
	"os"
	"testing"
)

// TestFitness: what decision 10 says of each kind of file system, and nothing
// is two things at once.
func TestFitness(t *testing.T) {
	for name, want := range map[string]Fitness{
		"ext4": Fit, "xfs": Fit, "apfs": Fit, "zfs": Fit,
		"tmpfs": Passing, "overlay": Passing,
		"nfs": Unfit, "cifs": Unfit, "smb2": Unfit, "smbfs": Unfit, "9p": Unfit, "vfat": Unfit, "exfat": Unfit,
		"fuse": Unknown, "ceph": Unknown, "ntfs3": Unknown, "0x1234": Unknown, "": Unknown,
	} {
		s := FileSystem{Name: name}
		if got := s.Fitness(); got != want {
			t.Errorf("%s: %d, want %d", name, got, want)
		}
		if (s.Because() == "") != (want == Fit) {
			t.Errorf("%s: because %q", name, s.Because())
		}
	}
	seen := map[string]Fitness{}
	for f, names := range fitness {
		for _, name := range names {
			if was, twice := seen[name]; twice {
				t.Errorf("%s is %d and %d", name, was, f)
			}
			seen[name] = f
		}
	}
}

// TestFileSystemOf: the file system that this test runs on has a name and
// room, and what is not there is an error.
func TestFileSystemOf(t *testing.T) {
	dir := t.TempDir()
	s, err := FileSystemOf(dir)
	if err != nil {
		t.Fatal(err)
	}
	if s.Name == "" || s.Size == 0 || s.Free > s.Size || s.FreeFiles == 0 {
		t.Errorf("%+v", s)
	}
	if _, err := os.Stat("/dev/shm"); err == nil {
		if s, err := FileSystemOf("/dev/shm"); err != nil || s.Fitness() != Passing {
			t.Errorf("/dev/shm: %+v, %v", s, err)
		}
	}
	if _, err := FileSystemOf(dir + "/missing"); err == nil {
		t.Error("what is not there has a file system")
	}
}
