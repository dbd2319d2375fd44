package keys

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/seal"
)

// Names below keys/.
const (
	deksName     = "deks.json"
	subjectsName = "subjects.json"
	pagesName    = "subjects" // a directory
	erasingName  = "erasing.json"
	macName      = "mac.key"
)

// formatVersion is the version of every file here.
const formatVersion = 1

// maxTable bounds deks.json and subjects.json: a DEK a day is 60 KiB a year, and
// a page stands for 4,096 subjects.
const maxTable = 64 << 20

// pageSubjects is how many subjects a page holds at most: an erasure writes a
// page anew.
const pageSubjects = 4096

// maxPage bounds a page's file: identifiers are as long as callers make them,
// and a page with some giants is ended early.
const maxPage = 256 << 20

// wrap is WRAP of the format: what a KEK has wrapped.
type wrap struct {
	KEK  string `json:"kek"`
	By   string `json:"by"`
	Data string `json:"data"`
}

type deksFile struct {
	Format int       `json:"format"`
	DEKs   []dekFile `json:"deks"`
}

type dekFile struct {
	ID      string `json:"id"`
	Created string `json:"created"`
	Wrap    wrap   `json:"wrap"`
}

// wrappedFile is a file with one wrapped key.
type wrappedFile struct {
	Format int  `json:"format"`
	Wrap   wrap `json:"wrap"`
}

type subjectsFile struct {
	Format int        `json:"format"`
	Epoch  int64      `json:"epoch"`
	Wrap   wrap       `json:"wrap"`
	Pages  []pageFile `json:"pages"`
}

type pageFile struct {
	Page  int   `json:"page"`
	Epoch int64 `json:"epoch"`
	// Data is the page's key under the epoch key. Wrap is there instead where who made
	// the page could not open that: the key under the KEK.
	Data string `json:"data,omitempty"`
	Wrap *wrap  `json:"wrap,omitempty"`
}

// line is a record of a page.
type line struct {
	Handle string `json:"handle"`
	Data   string `json:"data"`
}

// record is what line.Data holds.
type record struct {
	Kind Kind   `json:"kind"`
	ID   string `json:"id"`
	Key  string `json:"key"`
}

// Erasing is an erasure that has begun: erasing.json.
type Erasing struct {
	Format  int      `json:"format"`
	EventID string   `json:"event_id"` // of its AUDIT_ERASURE
	Size    int64    `json:"size"`     // of the checkpoint before
	Epoch   int64    `json:"epoch"`    // whose key is destroyed
	Handles []string `json:"handles"`
	// What else has to go, or to be made, once the keys are gone.
	Identities  []string `json:"identities,omitempty"`  // files of the identity store
	Salt        string   `json:"salt,omitempty"`        // of the certificate's commitment
	Certificate string   `json:"certificate,omitempty"` // the path where it is to be
}

// name is the page's name among wrapped keys, and with .jsonl its file's.
func (p pageFile) name() string {
	return strconv.Itoa(p.Page) + "-" + strconv.FormatInt(p.Epoch, 10)
}

// parsePageName reads the name of a page's file.
func parsePageName(name string) (p pageFile, ok bool) {
	name, ok = strings.CutSuffix(name, ".jsonl")
	page, epoch, ok2 := strings.Cut(name, "-")
	if !ok || !ok2 {
		return p, false
	}
	var err, err2 error
	p.Page, err = strconv.Atoi(page)
	p.Epoch, err2 = strconv.ParseInt(epoch, 10, 64)
	return p, err == nil && err2 == nil && p.name() == name
}

func parseDEKs(data []byte) (f deksFile, err error) {
	if err := parseFile(deksName, data, &f, &f.Format); err != nil {
		return f, err
	}
	seen := map[string]bool{}
	for i, d := range f.DEKs {
		if _, err := time.Parse(timeLayout, d.Created); err != nil || !seal.ValidHandle(d.ID) || seen[d.ID] || !d.Wrap.valid() {
			return f, fmt.Errorf("%s: key %d: %w", deksName, i, ErrDamaged)
		}
		seen[d.ID] = true
	}
	if len(f.DEKs) == 0 {
		return f, fmt.Errorf("%s: no key: %w", deksName, ErrDamaged)
	}
	return f, nil
}

func parseSubjects(data []byte) (f subjectsFile, err error) {
	if err := parseFile(subjectsName, data, &f, &f.Format); err != nil {
		return f, err
	}
	if f.Epoch < 1 || !f.Wrap.valid() {
		return f, fmt.Errorf("%s: %w", subjectsName, ErrDamaged)
	}
	for i, p := range f.Pages {
		if p.Page != i || p.Epoch < 1 || p.Epoch > f.Epoch || (p.Data == "") == (p.Wrap == nil) || p.Wrap != nil && !p.Wrap.valid() {
			return f, fmt.Errorf("%s: page %d: %w", subjectsName, i, ErrDamaged)
		}
	}
	return f, nil
}

func parseWrapped(name string, data []byte) (f wrappedFile, err error) {
	err = parseFile(name, data, &f, &f.Format)
	if err == nil && !f.Wrap.valid() {
		err = fmt.Errorf("%s: %w", name, ErrDamaged)
	}
	return f, err
}

func parseErasing(data []byte) (e Erasing, err error) {
	if err := parseFile(erasingName, data, &e, &e.Format); err != nil {
		return e, err
	}
	if e.EventID == "" || e.Epoch < 1 || len(e.Handles) == 0 {
		return e, fmt.Errorf("%s: %w", erasingName, ErrDamaged)
	}
	for _, h := range e.Handles {
		if !seal.ValidHandle(h) {
			return e, fmt.Errorf("%s: %w", erasingName, ErrDamaged)
		}
	}
	return e, nil
}

func (w wrap) valid() bool { return w.KEK != "" && w.By != "" && w.Data != "" }

// parseFile reads a small file of this format. Errors of encoding/json are not
// passed on: they quote.
func parseFile(name string, data []byte, v any, format *int) error {
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%s: not the JSON that is expected: %w", name, ErrDamaged)
	}
	if *format != formatVersion {
		return fmt.Errorf("%s: format %d, this program knows %d", name, *format, formatVersion)
	}
	return nil
}

// read reads a file of the store.
func (s *Store) read(name string) ([]byte, error) {
	return durable.ReadFile(s.fs, filepath.Join(s.dir, name), maxTable)
}

// replace replaces a file of the store as a whole.
func (s *Store) replace(name string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return durable.WriteFile(s.fs, filepath.Join(s.dir, name), append(text, '\n'), 0o600)
}

// remove removes a file and makes that durable. It may be gone already.
func (s *Store) remove(name string) error {
	path := filepath.Join(s.dir, name)
	if err := s.fs.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return s.fs.SyncDir(filepath.Dir(path))
}

const timeLayout = "2006-01-02T15:04:05.000Z"
