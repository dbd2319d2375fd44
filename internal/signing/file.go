package signing

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/tree"
)

// Prove gives the proof that of the tree of size entries and that of the checkpoint
// that is to be signed the larger one extends the other, in the form of a request to a
// witness (c2sp.org/tlog-witness) with a checkpoint that is not signed yet.
type Prove func(size int64) ([]byte, error)

// File is a file of one key, or of two while they overlap. Whoever can read it can
// sign anything.
type File struct {
	fs   durable.FS
	name string
}

// NewFile is the file of that name.
func NewFile(fsys durable.FS, name string) *File { return &File{fsys, name} }

// Put makes the file, with one key.
func (f *File) Put(k Key) error { return durable.WriteFile(f.fs, f.name, Format(k), 0o600) }

// Keys reads them, in the order in which they were made.
func (f *File) Keys() ([]Key, error) {
	text, err := durable.ReadFile(f.fs, f.name, maxKeys)
	if err != nil {
		return nil, err
	}
	var keys []Key
	for line := range strings.Lines(string(text)) {
		k, err := parseKey(line)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.short(), err)
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%s: %w", f.short(), ErrNoKey)
	}
	return keys, nil
}

// short names the file for an error: by its folder, not the whole way to it.
func (f *File) short() string {
	return filepath.ToSlash(filepath.Join(filepath.Base(filepath.Dir(f.name)), filepath.Base(f.name)))
}

// Make makes another key beside the one that is there, durably.
func (f *File) Make() (Key, error) {
	keys, err := f.Keys()
	if err != nil {
		return Key{}, err
	}
	if len(keys) > 1 {
		return Key{}, ErrTwoKeys
	}
	next, err := NewKey(keys[0].Name())
	if err != nil {
		return Key{}, err
	}
	return next, durable.WriteFile(f.fs, f.name, Format(keys[0], next), 0o600)
}

// ErrTwoKeys means that there are two keys already.
var ErrTwoKeys = errors.New("there are two keys already")

// Keep deletes every key but one, durably.
func (f *File) Keep(vkey string) error {
	keys, err := f.Keys()
	if err != nil {
		return err
	}
	at := slices.IndexFunc(keys, func(k Key) bool { return k.VKey == vkey })
	if at < 0 {
		return errors.New("the key that is to be kept is not there")
	}
	return durable.WriteFile(f.fs, f.name, Format(keys[at]), 0o600)
}

// Checkpoint signs a tree head with the keys. It asks for no proof: who calls it
// could read the file.
func (f *File) Checkpoint(c tree.Checkpoint, by []Key, _ Prove) (tree.Checkpoint, error) {
	return sign(c, by)
}

func sign(c tree.Checkpoint, by []Key) (tree.Checkpoint, error) {
	if len(by) == 0 {
		return c, ErrNoKey
	}
	var others []note.Signer
	for _, k := range by[1:] {
		others = append(others, k)
	}
	return tree.Sign(by[0], c.Size, c.Root, others...)
}
