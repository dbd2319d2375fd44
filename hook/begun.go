package hook

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
)

// slotBytes is the room of one action in a file of begun actions. A write within
// one page of the system's cache is whole when the process is killed.
const slotBytes = 4096

// maxBegun bounds how many actions a process notes at once: 40 MB. More are open
// only where an agent does not tell of ends.
const maxBegun = 10_000

const (
	begunSuffix  = ".begun"
	tmpSuffix    = ".tmp"
	begunHead    = `{"format":1}` // in the first slot
	leftByCrash  = time.Hour      // a file that is being made is renamed at once
	maxBegunFile = (maxBegun + 1) * slotBytes
)

// begunFile notes the actions of one process that have begun and not ended: one
// slot each, which holds the JSON text of the event that is recorded if the end
// never comes, and a newline; zeros where there is none. The process holds the
// file's lock (flock) as long as it lives, so that nobody else takes its actions
// for abandoned. It is not synced: it survives the end of the process, and not a
// power failure.
//
// A slot whose action has ended is wiped some milliseconds later, or overwritten
// before: the agent does not wait for it. After a crash in between the action's
// entry is found in the trail.
type begunFile struct {
	mu    sync.Mutex
	file  durable.File
	name  string
	slots int    // so many are or were in use, the first, which is the head, not counted
	free  []slot // those that are no longer; the bytes still have to be wiped
	dirty int    // so many of them
	wiper *time.Timer
}

// slot is one by its number, and how many bytes of it are in use.
type slot struct{ number, bytes int }

// wipeAfter is how long the text of an action stays in the file after its end.
const wipeAfter = 10 * time.Millisecond

func createBegun(dir string) (*begunFile, error) {
	if err := durable.MkdirAll(durable.OS, dir, 0o700); err != nil {
		return nil, err
	}
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails
	b := &begunFile{name: filepath.Join(dir, hex.EncodeToString(id[:])+begunSuffix)}
	// It has its name once it is locked.
	file, err := durable.OS.OpenFile(b.name+tmpSuffix, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	b.file = file
	b.wiper = time.AfterFunc(time.Hour, b.wipe)
	b.wiper.Stop()
	err = durable.OS.Lock(file)
	if err == nil {
		_, err = file.WriteAt([]byte(begunHead+"\n"), 0)
	}
	if err == nil {
		err = durable.OS.Rename(b.name+tmpSuffix, b.name)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close(), durable.OS.Remove(b.name+tmpSuffix))
	}
	return b, nil
}

var errManyBegun = errors.New("too many actions have begun and not ended")

// put notes an action. text ends in a newline and fits into a slot; it may be
// overwritten and made longer.
func (b *begunFile) put(text []byte) (slot, error) {
	b.mu.Lock()
	var s slot
	switch n := len(b.free); {
	case n > 0:
		s = b.free[n-1]
		b.free = b.free[:n-1]
		if s.bytes > 0 {
			b.dirty--
		}
	case b.slots >= maxBegun:
		b.mu.Unlock()
		return s, errManyBegun
	default:
		b.slots++
		s.number = b.slots
	}
	b.mu.Unlock()
	n := len(text)
	if n < s.bytes { // nothing is left of what was there
		text = append(text, zeros[:s.bytes-n]...)
	}
	s.bytes = len(text)
	if _, err := b.file.WriteAt(text, int64(s.number)*slotBytes); err != nil {
		b.take(s)
		return slot{}, err
	}
	s.bytes = n
	return s, nil
}

var zeros [slotBytes]byte

// take gives a slot back. What an action was given is in the trail, as its policy
// wants it, and soon nowhere else.
func (b *begunFile) take(s slot) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.free = append(b.free, s)
	if b.dirty++; b.dirty == 1 {
		b.wiper.Reset(wipeAfter)
	}
}

func (b *begunFile) wipe() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, s := range b.free {
		if s.bytes == 0 {
			continue
		}
		if _, err := b.file.WriteAt(zeros[:s.bytes], int64(s.number)*slotBytes); err != nil {
			b.wiper.Reset(time.Second) // the disk is in trouble; close ends it
			return
		}
		b.free[i].bytes = 0
		b.dirty--
	}
}

// close ends it; with keep what is in it is told by the next start.
func (b *begunFile) close(keep bool) error {
	b.wiper.Stop()
	var err error
	if keep {
		b.wipe()
		b.wiper.Stop()
	} else {
		err = durable.OS.Remove(b.name)
	}
	return errors.Join(err, b.file.Close())
}

// abandoned gives the files of processes that are gone: their slots' texts to do.
// A file for which do returns no error is removed.
func abandoned(dir string, do func(file string, texts [][]byte) error) error {
	files, err := durable.OS.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, f := range files {
		name := filepath.Join(dir, f.Name())
		if strings.HasSuffix(name, tmpSuffix) {
			if fi, err := f.Info(); err == nil && time.Since(fi.ModTime()) > leftByCrash {
				errs = append(errs, durable.OS.Remove(name))
			}
			continue
		}
		if strings.HasSuffix(name, begunSuffix) {
			errs = append(errs, takeAbandoned(name, do))
		}
	}
	return errors.Join(errs...)
}

func takeAbandoned(name string, do func(string, [][]byte) error) error {
	f, err := durable.OS.OpenFile(name, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := durable.OS.Lock(f); errors.Is(err, durable.ErrLocked) {
		return nil // its process lives, or another start is at it
	} else if err != nil {
		return err
	}
	// Another start may have removed it before the lock was this one's.
	mine, err := f.Stat()
	if err != nil {
		return err
	}
	if there, err := durable.OS.Stat(name); err != nil || !durable.OS.SameFile(mine, there) {
		return nil
	}
	data, err := io.ReadAll(io.LimitReader(f, maxBegunFile))
	if err != nil {
		return err
	}
	if err := do(filepath.Base(name), begunTexts(data)); err != nil {
		return err
	}
	return durable.OS.Remove(name)
}

// begunTexts reads the slots that are in use.
func begunTexts(data []byte) [][]byte {
	var texts [][]byte
	for at := slotBytes; at < len(data); at += slotBytes {
		text, _, _ := bytes.Cut(data[at:min(at+slotBytes, len(data))], []byte("\n"))
		if text = bytes.TrimRight(text, "\x00"); len(text) > 0 {
			texts = append(texts, text)
		}
	}
	return texts
}
