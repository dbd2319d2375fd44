package keys

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// DEK is the key for new lines, the newest.
func (s *Store) DEK(ctx context.Context) (id string, key []byte, created time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	newest := s.deks.DEKs[len(s.deks.DEKs)-1]
	key, err = s.dek(ctx, newest)
	created, _ = time.Parse(timeLayout, newest.Created) // it was parsed at the opening
	return newest.ID, key, created, err
}

// DEKOf is the key of lines that name id. The error is ErrNoDEK where there is
// none of that id, also after a look at what a writer has added meanwhile.
func (s *Store) DEKOf(ctx context.Context, id string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if key, ok := s.dekKey[id]; ok {
		return key, nil
	}
	i := s.dekAt(id)
	if i < 0 && s.readOnly {
		text, err := s.read(deksName)
		if err != nil {
			return nil, err
		}
		if s.deks, err = parseDEKs(text); err != nil {
			return nil, err
		}
		i = s.dekAt(id)
	}
	if i < 0 {
		return nil, fmt.Errorf("%s: %w", id, ErrNoDEK)
	}
	return s.dek(ctx, s.deks.DEKs[i])
}

func (s *Store) dekAt(id string) int {
	return slices.IndexFunc(s.deks.DEKs, func(d dekFile) bool { return d.ID == id })
}

// dek unwraps a DEK once.
func (s *Store) dek(ctx context.Context, d dekFile) ([]byte, error) {
	if key, ok := s.dekKey[d.ID]; ok {
		return key, nil
	}
	key, err := s.unwrap(ctx, "dek", d.ID, d.Wrap)
	if err != nil {
		return nil, err
	}
	s.dekKey[d.ID] = key
	return key, nil
}

// RotateDEK makes a new DEK, for new lines. It is durable on return.
func (s *Store) RotateDEK(ctx context.Context) (id string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.writable(); err != nil {
		return "", err
	}
	if id, err = s.addDEK(ctx); err != nil {
		return "", s.stop(fmt.Errorf("new key for lines: %w", err))
	}
	return id, nil
}

func (s *Store) addDEK(ctx context.Context) (id string, err error) {
	for id = newID(); s.dekAt(id) >= 0; {
		id = newID()
	}
	key := newKey()
	wrapped, err := s.wrap(ctx, "dek", id, key)
	if err != nil {
		return "", err
	}
	next := s.deks
	next.DEKs = append(slices.Clip(next.DEKs), dekFile{ID: id, Created: s.now().UTC().Format(timeLayout), Wrap: wrapped})
	if err := s.replace(deksName, next); err != nil {
		return "", err
	}
	s.deks, s.dekKey[id] = next, key
	return id, nil
}
