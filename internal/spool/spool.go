// Package spool keeps on disk what can't be recorded now: one synced file for
// each item, taken in by the next writer of the trail.
//
// The directory belongs to those who may write the trail. What comes out of it
// is somebody's word: who that was is told by the file's owner, not by the
// item.
package spool

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
)

// Format is the version of an item's file.
const Format = 1

// maxItem bounds an item's file: a filter and two numbers.
const maxItem = 1 << 20

// Item is an entry that waits.
type Item struct {
	Format    int             `json:"format"`
	ID        string          `json:"id"` // a UUIDv7; also its file's name
	At        string          `json:"at"`
	EventType string          `json:"event_type"`
	Action    string          `json:"action"`
	Inputs    json.RawMessage `json:"inputs"`
	Outputs   json.RawMessage `json:"outputs"`
	Metadata  json.RawMessage `json:"metadata"`

	File  string `json:"-"` // where it is
	Owner string `json:"-"` // "uid:1000": who made the file
}

// Put makes an item durable.
func Put(fsys durable.FS, dir string, item Item) error {
	data, err := json.Marshal(item)
	if err != nil {
		return err
	}
	if err := durable.MkdirAll(fsys, dir, 0o700); err != nil {
		return err
	}
	return durable.WriteFile(fsys, filepath.Join(dir, item.ID+".json"), append(data, '\n'), 0o600)
}

// List gives the items, oldest first (a UUIDv7 begins with its time). Files
// that are no items are told in the error and left where they are.
func List(fsys durable.FS, dir string) ([]Item, error) {
	files, err := fsys.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var items []Item
	var errs []error
	for _, f := range files {
		if strings.HasSuffix(f.Name(), ".tmp") {
			continue // being written, or left by a crash before it counted
		}
		name := filepath.Join(dir, f.Name())
		data, err := durable.ReadFile(fsys, name, maxItem)
		if err == nil {
			var item Item
			if item, err = Parse(data); err == nil && item.ID+".json" != f.Name() {
				err = errors.New("its name is not its id")
			}
			if err == nil {
				item.File, item.Owner = name, owner(fsys, name)
				items = append(items, item)
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("spool/%s: %w", f.Name(), err))
		}
	}
	slices.SortFunc(items, func(a, b Item) int { return strings.Compare(a.ID, b.ID) })
	return items, errors.Join(errs...)
}

var validID = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// Parse reads an item.
func Parse(data []byte) (Item, error) {
	var item Item
	if err := json.Unmarshal(data, &item); err != nil {
		return Item{}, errors.New("not the JSON that is expected")
	}
	if item.Format != Format {
		return Item{}, fmt.Errorf("format %d, this program knows %d", item.Format, Format)
	}
	if !validID.MatchString(item.ID) {
		return Item{}, errors.New("its id is not a UUID")
	}
	return item, nil
}

func owner(fsys durable.FS, name string) string {
	if fi, err := fsys.Stat(name); err == nil {
		if st, ok := fi.Sys().(*syscall.Stat_t); ok {
			return fmt.Sprintf("uid:%d", st.Uid)
		}
	}
	return "unknown"
}
