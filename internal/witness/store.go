package witness

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
)

// Store keeps statements: a folder for each anchor, in it SIZE.checkpoint and, of an
// authority, SIZE.tsr, as they came. openssl ts checks those two.
type Store struct {
	fs  durable.FS
	dir string
	// all keeps an authority's older statements too; a witness's newest covers all
	// before it.
	all bool
}

// NewStore is the store in dir, which is made when something is kept.
func NewStore(fsys durable.FS, dir string, all bool) *Store { return &Store{fsys, dir, all} }

const (
	checkpointSuffix = ".checkpoint"
	tokenSuffix      = ".tsr"
)

// Put keeps a statement about a checkpoint of size entries, and removes what it
// replaces. The checkpoint comes last: one without its token is never looked at.
func (s *Store) Put(a *Anchor, size int64, st Statement) error {
	dir := filepath.Join(s.dir, a.ID())
	name := filepath.Join(dir, strconv.FormatInt(size, 10))
	err := durable.MkdirAll(s.fs, dir, 0o700)
	if err == nil && st.Token != nil {
		err = durable.WriteFile(s.fs, name+tokenSuffix, st.Token, 0o600)
	}
	if err == nil {
		err = durable.WriteFile(s.fs, name+checkpointSuffix, st.Checkpoint, 0o600)
	}
	if err != nil {
		return fmt.Errorf("keep what %s said: %w", a.Name(), err)
	}
	if s.all && st.Token != nil {
		return nil
	}
	sizes, err := s.sizes(a)
	for _, n := range sizes {
		if n < size {
			for _, suffix := range []string{checkpointSuffix, tokenSuffix} {
				if gone := s.fs.Remove(filepath.Join(dir, strconv.FormatInt(n, 10)+suffix)); !errors.Is(gone, fs.ErrNotExist) {
					err = errors.Join(err, gone)
				}
			}
		}
	}
	return err
}

// sizes are those of the kept statements, ascending.
func (s *Store) sizes(a *Anchor) ([]int64, error) {
	files, err := s.fs.ReadDir(filepath.Join(s.dir, a.ID()))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var sizes []int64
	for _, f := range files {
		text, ok := strings.CutSuffix(f.Name(), checkpointSuffix)
		if n, err := strconv.ParseInt(text, 10, 64); ok && err == nil && n >= 0 && strconv.FormatInt(n, 10) == text {
			sizes = append(sizes, n)
		}
	}
	slices.Sort(sizes)
	return sizes, nil
}

// Latest is the newest kept statement of an anchor, checked; ok is false where there
// is none. One that does not check is an error that wraps ErrKept.
func (s *Store) Latest(a *Anchor) (st Statement, size int64, ok bool, err error) {
	sizes, err := s.sizes(a)
	if err != nil || len(sizes) == 0 {
		return st, 0, false, err
	}
	size = sizes[len(sizes)-1]
	name := filepath.Join(s.dir, a.ID(), strconv.FormatInt(size, 10))
	if st.Checkpoint, err = durable.ReadFile(s.fs, name+checkpointSuffix, maxAnswer); err != nil {
		return st, size, false, err
	}
	if a.Kind() == KindTimestamp {
		if st.Token, err = durable.ReadFile(s.fs, name+tokenSuffix, maxAnswer); errors.Is(err, fs.ErrNotExist) {
			return st, size, false, fmt.Errorf("%w: %s: its timestamp is missing", ErrKept, a.Name())
		} else if err != nil {
			return st, size, false, err
		}
	}
	if st, err = a.Check(st); err != nil {
		return st, size, false, fmt.Errorf("%w: %s: %w", ErrKept, a.Name(), err)
	}
	return st, size, true, nil
}

// ErrKept means that a kept statement is not what the party said.
var ErrKept = errors.New("what is kept of an anchor proves nothing")
