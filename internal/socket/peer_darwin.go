package socket

import (
	"errors"
	"net"
	"syscall"
	"unsafe"
)

// From <sys/un.h> and <sys/ucred.h>.
const (
	solLocal      = 0
	localPeerCred = 1
	localPeerPID  = 2
	xucredVersion = 0
)

// xucred is struct xucred of <sys/ucred.h>.
type xucred struct {
	Version uint32
	UID     uint32
	NGroups int16
	_       int16
	Groups  [16]uint32
}

// peerOf asks the kernel who connected, or who listens (LOCAL_PEERCRED,
// LOCAL_PEERPID, unix(4)).
func peerOf(c *net.UnixConn) (p Peer, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return Peer{}, err
	}
	var sockErr error
	err = raw.Control(func(fd uintptr) {
		var cred xucred
		if sockErr = getsockopt(fd, localPeerCred, unsafe.Pointer(&cred), unsafe.Sizeof(cred)); sockErr != nil {
			return
		}
		if cred.Version != xucredVersion {
			sockErr = errors.New("peer credentials: unknown version")
			return
		}
		p.UID = int(cred.UID)
		var pid int32
		if getsockopt(fd, localPeerPID, unsafe.Pointer(&pid), unsafe.Sizeof(pid)) == nil {
			p.PID = int(pid)
		}
	})
	if err == nil {
		err = sockErr
	}
	return p, err
}

func getsockopt(fd uintptr, option int, value unsafe.Pointer, size uintptr) error {
	n := uint32(size)
	_, _, errno := syscall.Syscall6(syscall.SYS_GETSOCKOPT, fd, solLocal, uintptr(option), uintptr(value), uintptr(unsafe.Pointer(&n)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}
