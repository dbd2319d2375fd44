package socket

import (
	"net"
	"syscall"
)

// peerOf asks the kernel who connected, or who listens (SO_PEERCRED, unix(7)).
func peerOf(c *net.UnixConn) (p Peer, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return Peer{}, err
	}
	var sockErr error
	err = raw.Control(func(fd uintptr) {
		var cred *syscall.Ucred
		if cred, sockErr = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED); sockErr == nil {
			p = Peer{UID: int(cred.Uid), PID: int(cred.Pid)}
		}
	})
	if err == nil {
		err = sockErr
	}
	return p, err
}
