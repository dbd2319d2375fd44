package keys

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
)

// Backup is what a backup of keys says of itself: its first member (docs/keys.md).
type Backup struct {
	Format  int    `json:"format"`
	Origin  string `json:"origin"`
	Created string `json:"created"`
	// DeleteAfter is when its maximum age is over: until then an erasure is not
	// complete, since a backup of before still has the keys.
	DeleteAfter string `json:"delete_after"`
	// Files are the hex SHA-256 of the files by their names below X.trail/.
	Files map[string]string `json:"files"`
}

// ErrExpired means that a backup is older than it may be.
var ErrExpired = errors.New("the backup is past its maximum age")

// Names of what a backup has to do with.
const (
	backupMember = "backup.json" // in the archive
	untilName    = "backup.json" // in keys/: until when backups may be around
	restoredName = "restored.json"
)

// maxBackup bounds what is read of a backup.
const maxBackup = 4 << 30

// untilFile is keys/backup.json.
type untilFile struct {
	Format int    `json:"format"`
	Until  string `json:"until"`
}

// BackedUpUntil is the latest time at which a backup of keys/ may still be around,
// zero where none was made: an erasure of before then is complete after it
// (complete_after in docs/format-lifecycle.md §7.9).
func BackedUpUntil(fsys durable.FS, dir string) (time.Time, error) {
	text, err := durable.ReadFile(fsys, filepath.Join(dir, untilName), maxTable)
	if errors.Is(err, fs.ErrNotExist) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, err
	}
	var f untilFile
	if err := parseFile(untilName, text, &f, &f.Format); err != nil {
		return time.Time{}, err
	}
	until, err := time.Parse(timeLayout, f.Until)
	if err != nil {
		return time.Time{}, fmt.Errorf("%s: %w", untilName, ErrDamaged)
	}
	return until, nil
}

// Frozen calls f while nothing in the store changes: no subject comes, none is
// erased.
func (s *Store) Frozen(f func() error) error {
	s.syncing.Lock()
	defer s.syncing.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.writable(); err != nil {
		return err
	}
	if s.file != nil {
		if err := s.file.Sync(); err != nil {
			return s.stop(err)
		}
		s.synced = s.wrote
	}
	return f()
}

// WriteBackup writes a backup of the keys of the trail in dir (X.trail) to w: a tar
// archive of keys/ and trail.json. Wrapped keys stay wrapped; signing keys are as
// they lie in keys/. Before a byte goes out keys/ says, durably, until when this
// backup may be around. The caller has the trail's lock, and the store frozen where
// there is one. It is refused while an erasure is under way.
func WriteBackup(fsys durable.FS, dir, origin string, now, deleteAfter time.Time, w io.Writer) (Backup, error) {
	b := Backup{Format: formatVersion, Origin: origin, Created: now.UTC().Format(timeLayout), DeleteAfter: deleteAfter.UTC().Format(timeLayout), Files: map[string]string{}}
	names, err := backupFiles(fsys, dir)
	if err != nil {
		return b, err
	}
	if err := noteBackup(fsys, filepath.Join(dir, "keys"), deleteAfter); err != nil {
		return b, err
	}
	// The archive begins with what it holds, so files are read twice: they do not
	// change meanwhile.
	for _, name := range names {
		text, err := durable.ReadFile(fsys, filepath.Join(dir, filepath.FromSlash(name)), maxPage)
		if err != nil {
			return b, err
		}
		sum := sha256.Sum256(text)
		b.Files[name] = hex.EncodeToString(sum[:])
	}
	head, err := json.Marshal(b)
	if err != nil {
		return b, err
	}
	out := tar.NewWriter(w)
	put := func(name string, text []byte) error {
		err := out.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(text)), ModTime: now.UTC().Truncate(time.Second), Format: tar.FormatUSTAR})
		if err == nil {
			_, err = out.Write(text)
		}
		return err
	}
	if err := put(backupMember, append(head, '\n')); err != nil {
		return b, err
	}
	for _, name := range names {
		text, err := durable.ReadFile(fsys, filepath.Join(dir, filepath.FromSlash(name)), maxPage)
		if err == nil {
			err = put(name, text)
		}
		if err != nil {
			return b, err
		}
	}
	return b, out.Close()
}

// noteBackup makes keys/ say that a backup may be around until a time.
func noteBackup(fsys durable.FS, dir string, until time.Time) error {
	before, err := BackedUpUntil(fsys, dir)
	if err != nil || !before.Before(until.Truncate(time.Millisecond)) {
		return err
	}
	text, err := json.Marshal(untilFile{formatVersion, until.UTC().Format(timeLayout)})
	if err != nil {
		return err
	}
	return durable.WriteFile(fsys, filepath.Join(dir, untilName), append(text, '\n'), 0o600)
}

// backupFiles are the names below X.trail/ of what belongs in a backup.
func backupFiles(fsys durable.FS, dir string) ([]string, error) {
	names := []string{"trail.json"}
	for _, sub := range []string{"keys", path.Join("keys", pagesName)} {
		files, err := fsys.ReadDir(filepath.Join(dir, filepath.FromSlash(sub)))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			name := f.Name()
			switch {
			case name == erasingName:
				return nil, errors.New("an erasure is under way: it ends first")
			case f.IsDir(), name == untilName, name == restoredName, strings.HasSuffix(name, ".tmp"), !restorable(path.Join(sub, name)):
				continue
			}
			names = append(names, path.Join(sub, name))
		}
	}
	slices.Sort(names)
	return names, nil
}

// restorable tells whether a name is of a file that a backup may hold: nothing else
// is ever written.
func restorable(name string) bool {
	if name == "trail.json" {
		return true
	}
	rest, ok := strings.CutPrefix(name, "keys/")
	if page, ok := strings.CutPrefix(rest, pagesName+"/"); ok {
		_, ok := parsePageName(page)
		return ok
	}
	return ok && slices.Contains([]string{"signing.key", "signer.json", "lifecycle.key", macName, "identity" + keySuffix, deksName, subjectsName}, rest)
}

// RestoreBackup puts what a backup holds into dir (X.trail), whose keys/ must not be
// there: all of it, or nothing. It leaves keys/restored.json, by which the next
// opening destroys what was erased since the backup was made. A trail.json that is
// there stays, and must have the backup's origin. Past the maximum age it is
// ErrExpired.
func RestoreBackup(fsys durable.FS, r io.Reader, dir, origin string, now time.Time) (Backup, error) {
	keysDir := filepath.Join(dir, "keys")
	// The DEKs of an archive stay: they are those of the newest line there, and a
	// backup is as old as it is.
	var deks []byte
	switch files, err := fsys.ReadDir(keysDir); {
	case err == nil && len(files) == 1 && files[0].Name() == deksName:
		if deks, err = durable.ReadFile(fsys, filepath.Join(keysDir, deksName), maxTable); err != nil {
			return Backup{}, fmt.Errorf("restore keys: %w", err)
		}
	case err == nil && len(files) > 0:
		return Backup{}, fmt.Errorf("restore keys: %s: %w", keysDir, fs.ErrExist)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return Backup{}, fmt.Errorf("restore keys: %w", err)
	}
	b, files, err := ReadBackup(r)
	if err != nil {
		return b, fmt.Errorf("restore keys: %w", err)
	}
	if origin != "" && b.Origin != origin {
		return b, fmt.Errorf("restore keys: the backup is of %s, and the trail is %s", b.Origin, origin)
	}
	if until, _ := time.Parse(timeLayout, b.DeleteAfter); now.After(until) {
		return b, fmt.Errorf("restore keys: %w: it was to be deleted after %s", ErrExpired, b.DeleteAfter)
	}
	// Beside keys/ first; a crash before the rename leaves what the next attempt
	// writes over.
	next := keysDir + ".restoring"
	if err := removeTree(fsys, next); err != nil {
		return b, fmt.Errorf("restore keys: %w", err)
	}
	mark, err := json.Marshal(restoredFile{formatVersion, b.Created})
	if err != nil {
		return b, err
	}
	files["keys/"+restoredName] = append(mark, '\n')
	if deks != nil {
		files["keys/"+deksName] = deks
	}
	err = durable.MkdirAll(fsys, filepath.Join(next, pagesName), 0o700)
	for name, text := range files {
		if rest, ok := strings.CutPrefix(name, "keys/"); ok && err == nil {
			err = durable.WriteFile(fsys, filepath.Join(next, filepath.FromSlash(rest)), text, 0o600)
		}
	}
	if err == nil && len(files["keys/"+subjectsName]) == 0 {
		err = fsys.Remove(filepath.Join(next, pagesName))
	}
	if _, there := fsys.Stat(filepath.Join(dir, "trail.json")); err == nil && errors.Is(there, fs.ErrNotExist) {
		err = durable.WriteFile(fsys, filepath.Join(dir, "trail.json"), files["trail.json"], 0o600)
	}
	if err == nil {
		// What was let pass is in the new one too.
		for _, name := range []string{filepath.Join(keysDir, deksName), keysDir} {
			if err = fsys.Remove(name); errors.Is(err, fs.ErrNotExist) {
				err = nil
			}
			if err != nil {
				break
			}
		}
	}
	if err == nil {
		err = fsys.Rename(next, keysDir)
	}
	if err == nil {
		err = fsys.SyncDir(dir)
	}
	if err != nil {
		return b, fmt.Errorf("restore keys: %w", err)
	}
	return b, nil
}

// removeTree removes what RestoreBackup had begun.
func removeTree(fsys durable.FS, dir string) error {
	for _, sub := range []string{filepath.Join(dir, pagesName), dir} {
		files, err := fsys.ReadDir(sub)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		for _, f := range files {
			if err := fsys.Remove(filepath.Join(sub, f.Name())); err != nil {
				return err
			}
		}
		if err := fsys.Remove(sub); err != nil {
			return err
		}
	}
	return nil
}

// ReadBackup reads a backup and compares each file with its hash.
func ReadBackup(r io.Reader) (Backup, map[string][]byte, error) {
	var b Backup
	in := tar.NewReader(io.LimitReader(r, maxBackup))
	files := map[string][]byte{}
	for {
		h, err := in.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return b, nil, fmt.Errorf("backup: not the archive that is expected: %w", ErrDamaged)
		}
		text, err := io.ReadAll(io.LimitReader(in, maxPage+1))
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded), err != nil:
			return b, nil, fmt.Errorf("backup: %w", err)
		case len(text) > maxPage, h.Typeflag != tar.TypeReg:
			return b, nil, fmt.Errorf("backup: %w", ErrDamaged)
		case b.Format == 0:
			if h.Name != backupMember {
				return b, nil, fmt.Errorf("backup: it does not begin with %s: %w", backupMember, ErrDamaged)
			}
			if b, err = parseBackup(text); err != nil {
				return b, nil, err
			}
			continue
		}
		sum := sha256.Sum256(text)
		if b.Files[h.Name] != hex.EncodeToString(sum[:]) || files[h.Name] != nil {
			return b, nil, fmt.Errorf("backup: a file is not what it was: %w", ErrDamaged)
		}
		files[h.Name] = append([]byte{}, text...)
	}
	if b.Format == 0 || len(files) != len(b.Files) {
		return b, nil, fmt.Errorf("backup: it is not whole: %w", ErrDamaged)
	}
	return b, files, nil
}

func parseBackup(text []byte) (Backup, error) {
	var b Backup
	if err := parseFile(backupMember, bytes.TrimSpace(text), &b, &b.Format); err != nil {
		return Backup{}, err
	}
	_, err := time.Parse(timeLayout, b.Created)
	_, err2 := time.Parse(timeLayout, b.DeleteAfter)
	if b.Origin == "" || err != nil || err2 != nil || b.Files["trail.json"] == "" {
		return Backup{}, fmt.Errorf("%s: %w", backupMember, ErrDamaged)
	}
	for name := range b.Files {
		if !restorable(name) {
			return Backup{}, fmt.Errorf("%s: it names a file that is none of keys: %w", backupMember, ErrDamaged)
		}
	}
	return b, nil
}

// restoredFile is keys/restored.json.
type restoredFile struct {
	Format  int    `json:"format"`
	Created string `json:"created"` // of the backup
}

// Restored tells whether keys/ came from a backup, and no opening has looked since
// for what was erased after that.
func Restored(fsys durable.FS, dir string) (bool, error) {
	_, err := fsys.Stat(filepath.Join(dir, restoredName))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// EndRestore says that this was done.
func EndRestore(fsys durable.FS, dir string) error {
	if err := fsys.Remove(filepath.Join(dir, restoredName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return fsys.SyncDir(dir)
}

// EraseAgain destroys, in keys that came from a backup, those of handles that were
// erased since it was made, as far as they are there.
func (s *Store) EraseAgain(ctx context.Context, handles []string) error {
	s.syncing.Lock()
	defer s.syncing.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.writable(); err != nil {
		return err
	}
	e := Erasing{Epoch: s.table.Epoch}
	for _, h := range handles {
		sub, err := s.lookLocked(h)
		if err != nil {
			return err
		}
		if sub != nil {
			e.Handles = append(e.Handles, h)
		}
	}
	if len(e.Handles) == 0 {
		return nil
	}
	slices.Sort(e.Handles)
	err := s.destroyLocked(ctx, e)
	if err == nil {
		err = destroyEpoch(ctx, s.kek, s.origin, e.Epoch)
	}
	if err == nil {
		err = s.sweep()
	}
	if err != nil {
		return s.stop(fmt.Errorf("erase again: %w", err))
	}
	return nil
}
