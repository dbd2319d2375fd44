package archiver

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/kaizen-audit/kaizen-audit/archive"
	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/journal"
)

// Reference stands in segments/ for a sealed file that is in the archive only
// (docs/format.md §9.1).
type Reference struct {
	Format int    `json:"format"`
	First  int64  `json:"first"`
	Count  int64  `json:"count"`
	Stored int64  `json:"stored"`
	SHA256 string `json:"sha256"` // of the sealed file
	From   string `json:"from"`   // the archive's URL
	// Own are the trail's own entries among the lines: what is in force is known
	// without asking the archive. Their digests are in the tree.
	Own []OwnLine `json:"own"`
}

// OwnLine is a line and its index.
type OwnLine struct {
	Index int64  `json:"index"`
	Line  string `json:"line"`
}

const referenceFormat = 1

// maxReference bounds a reference: as much as is read of a trail's other lists.
const maxReference = maxLoose

func referenceFile(first int64) string { return segmentFile(first) + journal.ArchivedSuffix }

// ParseReference reads a reference.
func ParseReference(data []byte) (Reference, error) {
	var r Reference
	if json.Unmarshal(data, &r) != nil {
		return r, errors.New("not the JSON that is expected")
	}
	if r.Format != referenceFormat {
		return r, fmt.Errorf("format %d, this program knows %d", r.Format, referenceFormat)
	}
	sum, err := hex.DecodeString(r.SHA256)
	if err != nil || len(sum) != sha256.Size || strings.ToLower(r.SHA256) != r.SHA256 || r.First < 0 || r.Count < 1 || r.Stored < 1 || r.From == "" {
		return r, errors.New("it is not possible")
	}
	for _, l := range r.Own {
		if l.Index < r.First || l.Index-r.First >= r.Count {
			return r, errors.New("it is not possible")
		}
	}
	return r, nil
}

// ReadReference reads the reference of a segment of the trail in dir; fs.ErrNotExist
// where there is none. One that can't be read is fs.ErrInvalid.
func ReadReference(dir string, first int64) (Reference, error) {
	name := referenceFile(first)
	data, err := durable.ReadFile(durable.OS, filepath.Join(dir, filepath.FromSlash(name)), maxReference)
	if err != nil {
		return Reference{}, err
	}
	r, err := ParseReference(data)
	if err == nil && r.First != first {
		err = errors.New("it is of another segment")
	}
	if err != nil {
		return r, fmt.Errorf("%s: %w: %w", name, fs.ErrInvalid, err)
	}
	return r, nil
}

// Refer writes the reference of a segment. It is durable on return.
func Refer(dir string, r Reference) error {
	r.Format = referenceFormat
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return durable.WriteFile(durable.OS, filepath.Join(dir, filepath.FromSlash(referenceFile(r.First))), append(data, '\n'), 0o600)
}

// ErrNotKept: the archive does not keep a segment as long as it is owed.
var ErrNotKept = errors.New("the archive does not keep it long enough")

// Confirm looks that the archive has a segment's sealed file of a size and digest, and
// keeps it until a date at least: the object is read whole, for no word of a store is
// enough to let go of the last copy.
func Confirm(ctx context.Context, store archive.Store, first, size int64, sum [sha256.Size]byte, until time.Time) error {
	name := segmentFile(first)
	i, err := store.Head(ctx, name)
	if err != nil {
		return err
	}
	if i.RetainUntil.Before(until) && !i.Held {
		if i.RetainUntil.IsZero() {
			return fmt.Errorf("%w: %s has no retention date there, and is owed until %s", ErrNotKept, name, until.Format(time.RFC3339))
		}
		return fmt.Errorf("%w: %s until %s, and it is owed until %s", ErrNotKept, name, i.RetainUntil.Format(time.RFC3339), until.Format(time.RFC3339))
	}
	h := sha256.New()
	if i.Size == size {
		_, err = io.Copy(h, &reader{ctx: ctx, store: store, name: name, size: size})
	}
	if err == nil && (i.Size != size || [sha256.Size]byte(h.Sum(nil)) != sum) {
		err = fmt.Errorf("%w: its %s is not the file that is here", ErrDamaged, name)
	}
	return err
}
