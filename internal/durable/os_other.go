//go:build !linux

package durable

import "errors"

// Sync is os.File.Sync, which on macOS is F_FULLFSYNC: plain fsync(2) there
// stops at the drive's cache.
func (f osFile) Sync() error { return f.File.Sync() }

func (f osFile) Reserve(int64) error { return errors.ErrUnsupported }

// Direct is no flag here.
const Direct = 0

func unmap([]byte) error { return nil } // nothing is mapped here
