//go:build !linux && !darwin

package durable

import "errors"

// FileSystemOf is not known on this system.
func FileSystemOf(string) (FileSystem, error) { return FileSystem{}, errors.ErrUnsupported }
