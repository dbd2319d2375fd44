package journal

import (
	"errors"
	"os"
	"syscall"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
)

// lanes is how many batches can be on their way to the ring at once.
const lanes = 2

// manyWait is how many callers of a batch make it worth not to hold a thread while it
// is on its way: with 64, half of them in each of two batches, others have work
// meanwhile. With eight it takes a fifth longer.
const manyWait = 16

// lane is a way to the ring for one batch at a time. Each has an open file of its own:
// the kernel tells a failed sync once to each of them.
type lane struct {
	file durable.File
	sync bool
	// At most one of these, where the system has it.
	async  *durable.Async
	memory *durable.Memory
}

// openLane opens the ring's file: where it is synced for writes around the page cache,
// which save a copy and a part of the wait, and else as memory, which saves the call.
func openLane(fsys durable.FS, path string, kind *ringKind, size int64) (*lane, error) {
	flags := os.O_RDWR
	if kind.sync {
		flags |= durable.Direct
	}
	f, err := fsys.OpenFile(path, flags, 0)
	direct := err == nil && kind.sync
	if errors.Is(err, syscall.EINVAL) {
		f, err = fsys.OpenFile(path, os.O_RDWR, 0)
	}
	if err != nil {
		return nil, err
	}
	l := &lane{file: f, sync: kind.sync}
	switch { // where the system has neither, calls wait
	case direct:
		l.async, _ = durable.NewAsync(f)
	case !kind.sync:
		l.memory, _ = durable.Map(f, size)
	}
	return l, nil
}

// put writes a frame, for which so many wait, and syncs it in mode Durable.
func (l *lane) put(frame []byte, at int64, waiting int) error {
	switch {
	case l.memory != nil:
		_, err := l.memory.WriteAt(frame, at)
		return err
	case l.async != nil && waiting >= manyWait:
		return l.async.WriteSync(frame, at)
	}
	if _, err := l.file.WriteAt(frame, at); err != nil || !l.sync {
		return err
	}
	return l.file.Sync()
}

func (l *lane) close() error {
	var errs []error
	if l.async != nil {
		errs = append(errs, l.async.Close())
	}
	if l.memory != nil {
		errs = append(errs, l.memory.Close())
	}
	return errors.Join(append(errs, l.file.Close())...)
}
