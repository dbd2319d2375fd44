package keys

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
)

// Listed is a key as its file names it: no key is needed to know that it is there.
type Listed struct {
	Kind    string    // "dek", "epoch", "mac", "identity"
	ID      string    // of a DEK; the epoch's number; else the kind
	Created time.Time // of a DEK
	KEK     string    // the id of the key that wrapped it
	By      string    // who holds that: "local" or a key service
}

// List is what lies wrapped in the keys/ of a trail: the DEKs, oldest first, the
// epoch key, and single keys. The error is fs.ErrNotExist where the trail seals
// nothing.
func List(fsys durable.FS, dir string) ([]Listed, error) {
	s := &Store{fs: fsys, dir: dir}
	text, err := s.read(deksName)
	if err != nil {
		return nil, err
	}
	deks, err := parseDEKs(text)
	if err != nil {
		return nil, err
	}
	var all []Listed
	for _, d := range deks.DEKs {
		created, _ := time.Parse(timeLayout, d.Created) // parseDEKs has looked
		all = append(all, Listed{Kind: "dek", ID: d.ID, Created: created, KEK: d.Wrap.KEK, By: d.Wrap.By})
	}
	if text, err = s.read(subjectsName); err != nil {
		return nil, err
	}
	table, err := parseSubjects(text)
	if err != nil {
		return nil, err
	}
	all = append(all, Listed{Kind: "epoch", ID: fmt.Sprint(table.Epoch), KEK: table.Wrap.KEK, By: table.Wrap.By})
	for _, file := range wrappedNames {
		text, err := durable.ReadFile(fsys, filepath.Join(dir, file), maxTable)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		f, err := parseWrapped(file, text)
		if err != nil {
			return nil, err
		}
		all = append(all, Listed{Kind: purposeOf(file), ID: purposeOf(file), KEK: f.Wrap.KEK, By: f.Wrap.By})
	}
	return all, nil
}
