//go:build unix && !linux

package socket

import (
	"fmt"
	"syscall"
)

// maxName is the longest path in an address: sun_path less its final zero
// (unix(4)).
const maxName = len(syscall.RawSockaddrUnix{}.Path) - 1

// shortName refuses what does not fit an address: there is no short name for
// a path here.
func shortName(path string) (name string, done func(), err error) {
	if len(path) > maxName {
		return "", nil, fmt.Errorf("the path has %d bytes and a socket's may have %d; put the trail where its path is shorter", len(path), maxName)
	}
	return path, func() {}, nil
}
