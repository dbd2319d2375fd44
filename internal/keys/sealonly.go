package keys

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"

	"github.com/kaizen-audit/kaizen-audit/internal/seal"
	"github.com/kaizen-audit/kaizen-audit/kms"
)

// A store whose KEK seals only (kms.SealsOnly) is written by a process that can't read
// it (docs/format-sealing.md §6.11). All its keys are of its own making, in memory
// alone, and on disk wrapped for who has the private key: a DEK, pages of subjects,
// whose keys are under the KEK since it can't open the epoch key, and a MAC key, which
// is derived from the DEK. What an earlier opening has left is foreign to it: its
// subjects get other handles.

// openSealing opens the store to seal: with a new DEK.
func (s *Store) openSealing(ctx context.Context) error {
	if s.readOnly {
		return kms.ErrSealsOnly
	}
	for _, name := range []string{erasingName, restoredName} {
		switch _, err := s.read(name); {
		case err == nil:
			return fmt.Errorf("%w: %w", kms.ErrSealsOnly, errUndone)
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
	}
	text, err := s.read(subjectsName)
	if err != nil {
		return err
	}
	if s.table, err = parseSubjects(text); err != nil {
		return err
	}
	if s.table.Wrap.KEK != s.kek.ID() {
		return fmt.Errorf("%w: this is %s, it was wrapped by %s", kms.ErrWrongKey, s.kek.ID(), s.table.Wrap.KEK)
	}
	if err := s.sweep(); err != nil {
		return err
	}
	s.ids = map[subjectID]string{}
	s.firstDEK, err = s.addDEK(ctx)
	return err
}

// SealsOnly tells whether this store opens nothing but what it has sealed itself.
func (s *Store) SealsOnly() bool { return s.sealsOnly }

// opens is nil unless the store seals only.
func (s *Store) opens() error {
	if s.sealsOnly {
		return kms.ErrSealsOnly
	}
	return nil
}

// foreign tells whether page n is one whose key this store can't have. mu is held.
func (s *Store) foreign(n int) bool { return s.sealsOnly && s.pages.pages[n] == nil }

// Opened are the ids of the DEK that this opening has made, and of the one before it;
// ok is false where an opening makes none.
func (s *Store) Opened() (was, id string, ok bool) {
	if !s.sealsOnly {
		return "", "", false
	}
	return s.deks.DEKs[s.dekAt(s.firstDEK)-1].ID, s.firstDEK, true
}

// ownMAC is the MAC key of this opening.
func (s *Store) ownMAC() ([]byte, error) {
	s.mu.Lock()
	dek := s.dekKey[s.firstDEK]
	s.mu.Unlock()
	return hkdf.Key(sha256.New, dek, nil, "kaizen-audit/mac/v1 "+s.firstDEK, seal.KeySize)
}
