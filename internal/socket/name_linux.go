package socket

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// maxName is the longest path in an address: sun_path less its final zero
// (unix(7)).
const maxName = len(syscall.RawSockaddrUnix{}.Path) - 1

// oPath is O_PATH of open(2): a handle that is good for a name only.
const oPath = 0x200000

// shortName gives a name for path that fits an address, good until done is
// called.
func shortName(path string) (name string, done func(), err error) {
	if len(path) <= maxName {
		return path, func() {}, nil
	}
	dir, err := os.OpenFile(filepath.Dir(path), oPath|syscall.O_DIRECTORY, 0)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)), func() { dir.Close() }, nil
}
