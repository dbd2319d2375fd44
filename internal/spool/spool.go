// Package spool keeps on disk what can't be recorded now: one synced file for
// each item, taken in by the next writer of the trail, in the order of the
// files' names.
//
// A spool is bounded, in items and in bytes: what no longer fits is counted in
// one small file ([Lose]), and the count becomes an entry ([TakeLost]).
//
// The directory belongs to those who may write the trail. What comes out of it
// is somebody's word: who that was is told by the file's owner, not by the
// item.
//
// The functions are safe for concurrent use, also by several processes.
package spool

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
)

// Format is the version of an item's file.
const Format = 1

// What a spool holds at most. An agent at work makes some hundred events an
// hour: that is days without a trail.
const (
	MaxItems = 4096
	MaxBytes = 64 << 20
)

// Item is what waits: a reading (EventType and what follows it), or an event
// that was captured (Event).
type Item struct {
	Format int    `json:"format"`
	ID     string `json:"id"` // a UUID that begins with its time; also its file's name
	At     string `json:"at"`

	EventType string          `json:"event_type,omitempty"`
	Action    string          `json:"action,omitempty"`
	Inputs    json.RawMessage `json:"inputs,omitempty"`
	Outputs   json.RawMessage `json:"outputs,omitempty"`
	Metadata  json.RawMessage `json:"metadata,omitempty"`

	Event   json.RawMessage `json:"event,omitempty"`   // as ParseEvent reads it
	Omitted []string        `json:"omitted,omitempty"` // its members that were left out
	Policy  json.RawMessage `json:"policy,omitempty"`  // what a policy did to it
	PID     int             `json:"pid,omitempty"`     // who says to have made it

	File  string `json:"-"` // where it is
	Owner string `json:"-"` // "uid:1000": who made the file
}

// NewID makes the id of an item that begins to wait now: a UUIDv7 whose twelve
// bits after the version are the fraction of the millisecond (RFC 9562 §6.2,
// method 3), so that the items of one process stay in their order.
func NewID(now time.Time) string {
	var b [16]byte
	_, _ = rand.Read(b[8:]) // never fails
	binary.BigEndian.PutUint64(b[:8], uint64(now.UnixMilli())<<16)
	fraction := uint64(now.Nanosecond()%1e6) << 12 / 1e6
	binary.BigEndian.PutUint16(b[6:8], 0x7000|uint16(fraction))
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// ErrFull means that a spool holds as much as it may.
var ErrFull = errors.New("the spool is full")

// Put makes an item durable. With ErrFull nothing was put.
func Put(fsys durable.FS, dir string, item Item) error {
	data, err := json.Marshal(item)
	if err != nil {
		return err
	}
	if err := room(fsys, dir, int64(len(data))+1); err != nil {
		return err
	}
	if err := durable.MkdirAll(fsys, dir, 0o700); err != nil {
		return err
	}
	return durable.WriteFile(fsys, filepath.Join(dir, item.ID+".json"), append(data, '\n'), 0o600)
}

// room is ErrFull where there is none for so many bytes. Many that ask at once
// may all be told that there is: the bound is overstepped by what they write.
func room(fsys durable.FS, dir string, need int64) error {
	files, err := fsys.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		files = nil
	} else if err != nil {
		return err
	}
	if len(files) >= MaxItems {
		return ErrFull
	}
	for _, f := range files {
		if fi, err := f.Info(); err == nil {
			need += fi.Size()
		}
	}
	if need > MaxBytes {
		return ErrFull
	}
	return nil
}

// All gives the items, oldest first. A file that is no item is an error, which
// names it, and is left where it is. Files that go meanwhile are passed over.
func All(fsys durable.FS, dir string) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		files, err := fsys.ReadDir(dir) // sorted by name
		if errors.Is(err, fs.ErrNotExist) {
			return
		}
		if err != nil {
			yield(Item{}, err)
			return
		}
		for _, f := range files {
			if strings.HasSuffix(f.Name(), ".tmp") || f.Name() == lostName {
				continue // being written, or left by a crash before it counted
			}
			item, err := read(fsys, filepath.Join(dir, f.Name()))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				err = fmt.Errorf("spool/%s: %w", f.Name(), err)
			}
			if !yield(item, err) {
				return
			}
		}
	}
}

func read(fsys durable.FS, name string) (Item, error) {
	item := Item{File: name}
	data, err := durable.ReadFile(fsys, name, MaxBytes)
	if err != nil {
		return item, err
	}
	parsed, err := Parse(data)
	if err == nil && parsed.ID+".json" != filepath.Base(name) {
		err = errors.New("its name is not its id")
	}
	if err != nil {
		return item, err
	}
	parsed.File, parsed.Owner = name, owner(fsys, name)
	return parsed, nil
}

// Empty tells whether nothing waits in dir.
func Empty(fsys durable.FS, dir string) bool {
	files, err := fsys.ReadDir(dir)
	return err != nil || len(files) == 0
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

// lostName is the file that counts what did not fit.
const lostName = "lost"

// lost is that file.
type lost struct {
	Format int    `json:"format"`
	ID     string `json:"id"` // of this count: it becomes one entry
	Count  int64  `json:"count"`
}

// Lose counts an item that could not be put. It waits for the others that
// count.
func Lose(fsys durable.FS, dir string) error {
	if err := durable.MkdirAll(fsys, dir, 0o700); err != nil {
		return err
	}
	return withLost(fsys, dir, os.O_RDWR|os.O_CREATE, func(f durable.File, l lost) error {
		if l.Count == 0 {
			l = lost{Format: Format, ID: NewID(time.Now())}
		}
		l.Count++
		data, err := json.Marshal(l)
		if err != nil {
			return err
		}
		// A count never gets shorter, so there is nothing to cut off.
		if _, err := f.WriteAt(append(data, '\n'), 0); err != nil {
			return err
		}
		return errors.Join(f.Sync(), fsys.SyncDir(dir))
	})
}

// TakeLost hands over what was counted, if anything, and forgets it once take
// has returned without an error. The same id means the same count.
func TakeLost(fsys durable.FS, dir string, take func(id string, count int64) error) error {
	err := withLost(fsys, dir, os.O_RDWR, func(f durable.File, l lost) error {
		if l.Count > 0 {
			if err := take(l.ID, l.Count); err != nil {
				return err
			}
		}
		return fsys.Remove(f.Name())
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// withLost works on the count, which nobody else changes meanwhile.
func withLost(fsys durable.FS, dir string, flag int, do func(durable.File, lost) error) error {
	name := filepath.Join(dir, lostName)
	for {
		f, err := fsys.OpenFile(name, flag, 0o600)
		if err != nil {
			return err
		}
		err = fsys.Lock(f)
		if errors.Is(err, durable.ErrLocked) {
			f.Close()
			time.Sleep(time.Millisecond)
			continue
		}
		if err != nil {
			return errors.Join(err, f.Close())
		}
		mine, err1 := f.Stat()
		named, err2 := fsys.Stat(name)
		if err1 != nil || err2 != nil || !fsys.SameFile(mine, named) {
			f.Close() // it was taken meanwhile
			if err := errors.Join(err1, err2); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			continue
		}
		data, err := io.ReadAll(io.NewSectionReader(f, 0, 4096))
		if err != nil {
			return errors.Join(err, f.Close())
		}
		return errors.Join(do(f, parseLost(data)), f.Close())
	}
}

// parseLost reads a count. One that was cut short by a crash is of at least
// one.
func parseLost(data []byte) lost {
	var l lost
	if len(data) == 0 {
		return l
	}
	if json.Unmarshal(data, &l) != nil || l.Format != Format || l.Count < 1 || !validID.MatchString(l.ID) {
		return lost{Format: Format, ID: NewID(time.Now()), Count: 1}
	}
	return l
}
