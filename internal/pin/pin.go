// Package pin remembers, outside a trail's directory, which origin and key
// were first seen there, so that a trail that was made anew by somebody who
// can write the directory is not taken for the old one.
//
// A pin is one small file for each origin and one for each path. Pins are a
// convenience on the machine that has them: they anchor a verification as
// "pinned" and no higher.
package pin

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
)

// DefaultDir is where pins are kept: $KAIZEN_AUDIT_STATE, else
// $XDG_STATE_HOME/kaizen-audit/known, else ~/.local/state/kaizen-audit/known;
// "" where there is no home.
func DefaultDir() string {
	if dir := os.Getenv("KAIZEN_AUDIT_STATE"); dir != "" {
		return dir
	}
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "kaizen-audit", "known")
	}
	if home, err := os.UserHomeDir(); err == nil && filepath.IsAbs(home) {
		return filepath.Join(home, ".local", "state", "kaizen-audit", "known")
	}
	return ""
}

// Pin is what was seen.
type Pin struct {
	Format int    `json:"format"`
	Origin string `json:"origin"`
	VKey   string `json:"vkey,omitempty"` // in the pin of an origin
	Path   string `json:"path,omitempty"` // in the pin of a path
}

const format = 1

func originFile(dir, origin string) string {
	return filepath.Join(dir, fmt.Sprintf("origin-%x.json", sha256.Sum256([]byte(origin))))
}

func pathFile(dir, path string) string {
	return filepath.Join(dir, fmt.Sprintf("path-%x.json", sha256.Sum256([]byte(path))))
}

// Below is the directory for what else is kept in dir about a trail's path,
// which must be absolute: what it is, and a hash of the path.
func Below(dir, what, path string) string {
	return filepath.Join(dir, what, fmt.Sprintf("%x", sha256.Sum256([]byte(path)))[:32])
}

// Origin gives the pin of an origin, ok when there is one. Without a directory
// ("") there are no pins.
func Origin(dir, origin string) (p Pin, ok bool, err error) {
	return read(dir, originFile(dir, origin))
}

// Path gives the pin of a trail's path, which must be absolute.
func Path(dir, path string) (p Pin, ok bool, err error) { return read(dir, pathFile(dir, path)) }

func read(dir, name string) (Pin, bool, error) {
	if dir == "" {
		return Pin{}, false, nil
	}
	data, err := durable.ReadFile(durable.OS, name, 1<<16)
	if errors.Is(err, fs.ErrNotExist) {
		return Pin{}, false, nil
	}
	if err != nil {
		return Pin{}, false, err
	}
	p, err := Parse(data)
	return p, err == nil, err
}

// Parse reads a pin.
func Parse(data []byte) (Pin, error) {
	var p Pin
	if err := json.Unmarshal(data, &p); err != nil || p.Origin == "" {
		return Pin{}, errors.New("pin: not the JSON that is expected")
	}
	if p.Format != format {
		return Pin{}, fmt.Errorf("pin: format %d, this program knows %d", p.Format, format)
	}
	return p, nil
}

// Put pins an origin with its key, and a path with its origin.
func Put(dir, path, origin, vkey string) error {
	if err := durable.MkdirAll(durable.OS, dir, 0o700); err != nil {
		return err
	}
	return errors.Join(
		write(originFile(dir, origin), Pin{Format: format, Origin: origin, VKey: vkey}),
		write(pathFile(dir, path), Pin{Format: format, Origin: origin, Path: path}))
}

func write(name string, p Pin) error {
	data, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return durable.WriteFile(durable.OS, name, append(data, '\n'), 0o600)
}

// Forget removes the pin of a path.
func Forget(dir, path string) error {
	if dir == "" {
		return nil
	}
	err := os.Remove(pathFile(dir, path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Key gives the key that was seen for a path's trail before, "" if none was.
func Key(dir, path string) string {
	p, ok, err := Path(dir, path)
	if err != nil || !ok {
		return ""
	}
	if p, ok, err = Origin(dir, p.Origin); err != nil || !ok {
		return ""
	}
	return p.VKey
}
