package durable

import "errors"

// Async writes to a file that is open with Direct, and syncs what it wrote, without a
// thread that waits meanwhile: for when many goroutines wait for one write, and others
// have work. One alone is faster with WriteAt and Sync. It is there on the file systems
// of which is known that they do it.
type Async struct{ w writeSyncer }

type writeSyncer interface {
	writeSync(p []byte, at int64) error
	close() error
}

// NewAsync is for one write at a time. errors.ErrUnsupported where there is no such
// thing; other errors are those of the system's limits.
func NewAsync(f File) (*Async, error) {
	of, ok := f.(interface{ newAsync() (writeSyncer, error) })
	if !ok {
		return nil, errors.ErrUnsupported
	}
	w, err := of.newAsync()
	if err != nil {
		return nil, err
	}
	return &Async{w}, nil
}

// WriteSync writes p at an offset and returns once it is on the device, as WriteAt and
// Sync do; what is said of an error of Sync holds for this one.
func (a *Async) WriteSync(p []byte, at int64) error { return a.w.writeSync(p, at) }

// Close ends it, no write being on its way. The file stays open.
func (a *Async) Close() error { return a.w.close() }
