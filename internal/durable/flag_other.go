//go:build !(linux && (386 || amd64 || arm || arm64 || loong64 || riscv64 || s390x))

package durable

import (
	"errors"
	"io/fs"
)

func (osFS) AppendOnly(string) (bool, error) { return false, nil }

func (osFS) SetAppendOnly(name string, _ bool) error {
	return &fs.PathError{Op: "append-only", Path: name, Err: errors.ErrUnsupported}
}
