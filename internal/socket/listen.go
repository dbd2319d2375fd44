package socket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
)

// makingSuffix ends the name of the directory where a socket is made, private, before
// it gets its name.
const makingSuffix = ".new"

// Listen makes the socket in a trail's directory, open to its owner alone, or
// to a group too (a name or a number; empty for none), and replaces one that
// is left from before: the caller holds the trail's lock. Closing the listener
// removes the file.
//
// The file is made in a directory that only the owner can enter, gets its mode
// and group there, and then its name. The umask, which is the whole process's,
// is not touched.
func Listen(dir, group string) (net.Listener, error) {
	return ListenAt(filepath.Join(dir, Name), group)
}

// ListenAt is Listen for a socket of any name, of whose place the caller is sure that
// no other process listens there.
func ListenAt(name, group string) (net.Listener, error) {
	l, err := listen(name, group)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", name, err)
	}
	return l, nil
}

func listen(name, group string) (net.Listener, error) {
	gid := -1
	if group != "" {
		var err error
		if gid, err = durable.LookupGroup(group); err != nil {
			return nil, err
		}
	}
	if fi, err := os.Lstat(name); err == nil && fi.Mode().Type() != fs.ModeSocket {
		return nil, errors.New("something that is no socket has this name; move it away")
	}
	making := name + makingSuffix
	if err := removeMaking(making); err != nil {
		return nil, err
	}
	if err := os.Mkdir(making, 0o700); err != nil {
		return nil, err
	}
	made := filepath.Join(making, Name)
	inner, err := listenUnix(made)
	if err != nil {
		return nil, errors.Join(err, removeMaking(making))
	}
	// Order counts: the group may only have what is meant for it.
	if err = os.Chmod(made, 0o600); err == nil && gid >= 0 {
		if err = os.Chown(made, -1, gid); err == nil {
			err = os.Chmod(made, 0o660)
		}
	}
	l := &listener{UnixListener: inner, path: name}
	if err == nil {
		l.file, err = os.Lstat(made)
	}
	if err == nil {
		err = os.Rename(made, l.path)
	}
	if err != nil {
		return nil, errors.Join(err, inner.Close(), removeMaking(making))
	}
	if err := os.Remove(making); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// removeMaking removes what a crash has left.
func removeMaking(making string) error {
	for _, name := range []string{filepath.Join(making, Name), making} {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// listenUnix binds through a short name where the path is too long for a
// socket's address.
func listenUnix(path string) (*net.UnixListener, error) {
	name, done, err := shortName(path)
	if err != nil {
		return nil, err
	}
	defer done()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
	if err != nil {
		return nil, cause(err)
	}
	l.SetUnlinkOnClose(false) // by that name there is nothing any more
	return l, nil
}

// listener removes its file when it is closed, unless another has taken the
// name.
type listener struct {
	*net.UnixListener
	path string
	file fs.FileInfo
}

func (l *listener) Close() error {
	err := l.UnixListener.Close()
	if fi, statErr := os.Lstat(l.path); statErr == nil && os.SameFile(fi, l.file) {
		err = errors.Join(err, os.Remove(l.path))
	}
	return err
}

// dial connects to the socket of a trail's directory.
func dial(ctx context.Context, dir string) (*net.UnixConn, error) {
	return DialAt(ctx, filepath.Join(dir, Name))
}

// DialAt connects to a socket and checks that who listens may: the owner of its
// directory, this user or root.
func DialAt(ctx context.Context, path string) (*net.UnixConn, error) {
	name, done, err := shortName(path)
	if err != nil {
		return nil, err
	}
	defer done()
	var d net.Dialer
	for wait := time.Millisecond; ; wait *= 2 {
		c, err := d.DialContext(ctx, "unix", name)
		if errors.Is(err, syscall.EAGAIN) && wait < time.Second {
			// The queue of connections is full (connect(2)).
			select {
			case <-time.After(wait):
				continue
			case <-ctx.Done():
			}
		}
		if err != nil {
			return nil, cause(err)
		}
		conn := c.(*net.UnixConn)
		if err := checkHolder(conn, filepath.Dir(path)); err != nil {
			conn.Close()
			return nil, err
		}
		return conn, nil
	}
}

// PeerOf asks the kernel who is at the other end.
func PeerOf(c *net.UnixConn) (Peer, error) { return peerOf(c) }

// checkHolder refuses a socket that somebody else has put there.
func checkHolder(conn *net.UnixConn, dir string) error {
	holder, err := peerOf(conn)
	if err != nil {
		return err
	}
	owner, err := ownerOf(dir)
	if err != nil {
		return err
	}
	if holder.UID != 0 && holder.UID != owner && holder.UID != os.Geteuid() {
		return fmt.Errorf("user %d listens there, and the directory belongs to user %d", holder.UID, owner)
	}
	return nil
}

func ownerOf(dir string) (int, error) {
	fi, err := os.Stat(dir)
	if err != nil {
		return 0, err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, errors.ErrUnsupported
	}
	return int(st.Uid), nil
}

// cause leaves out what net says about the name that it was given, which may
// be the short one.
func cause(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}
