// Package peer records the events of the workload in the ways that other
// programs would: plain files, loggers, embedded databases, another Merkle
// log, and the raw limits of the machine. Each peer encodes an event in its own
// natural way and keeps it as a record of its own, in the durability that the
// comparison asks.
package peer

import (
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/kaizen-audit/kaizen-audit/bench/internal/workload"
)

// Mode is how far an entry has come when Record returns.
type Mode int

const (
	// Durable: on disk.
	Durable Mode = iota
	// Written: handed to the operating system, so that the end of the process
	// does not lose it.
	Written
)

// file is an append-only file that syncs as the mode says.
type file struct {
	*os.File
	mode Mode
}

func create(dir string, mode Mode) (file, error) {
	f, err := os.OpenFile(filepath.Join(dir, "log.jsonl"), os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600)
	return file{f, mode}, err
}

// settle makes what was written as durable as the mode asks.
func (f file) settle() error {
	if f.mode == Written {
		return nil
	}
	return fdatasync(f.File)
}

// fdatasync is what a log needs: the bytes and the size, not the times.
func fdatasync(f *os.File) error {
	for {
		if err := syscall.Fdatasync(int(f.Fd())); err != syscall.EINTR {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}

// stamped is a copy of event n as if it happened now.
func stamped(p *workload.Pool, n int) workload.Event {
	e := *p.Event(n)
	e.Timestamp = time.Now().UTC()
	e.RecordedAt = e.Timestamp
	return e
}
