package export

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"crypto/sha256"
	"encoding/base64"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	python "github.com/kaizen-audit/kaizen-audit/clients/python"
	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/sealed"
	"github.com/kaizen-audit/kaizen-audit/internal/tree"
)

// archiveFormat names the format and its version.
const archiveFormat = "kaizen-audit/user-export/v1"

// Manifest says what an export has: manifest.json.
type Manifest struct {
	Format    string `json:"format"`
	Generated string `json:"generated"`
	User      string `json:"user"`
	Pseudonym string `json:"pseudonym,omitempty"`
	Origin    string `json:"origin"`
	VKey      string `json:"vkey"`
	// Size and Root are of the checkpoint under which all is proved; what was
	// recorded after it is not in the export.
	Size int64  `json:"size"`
	Root string `json:"root"` // base64
	// Entries are all; Proved and Masked are how many of them have a proof or have
	// none, Shared how many concern others too.
	Entries int `json:"entries"`
	Proved  int `json:"proved"`
	Masked  int `json:"masked"`
	Shared  int `json:"shared"`
	// Withheld, Erased and Unopened count fields that stay sealed: another
	// person's, of a key that was destroyed, and of which no key opens them.
	Withheld int `json:"withheld_fields"`
	Erased   int `json:"erased_fields"`
	Unopened int `json:"unopened_fields"`
	// Unrecorded says that no entry tells of the export: it is of a copy of the trail.
	Unrecorded bool `json:"unrecorded,omitempty"`
	// Incomplete names what the trail lacked: ranges of entries, broken lines.
	Incomplete []string `json:"incomplete"`
	// Files are the SHA-256 of the other files, in hex.
	Files map[string]string `json:"files"`
}

// Archive is an export that is being made. What it holds until Write is compressed.
type Archive struct {
	made    time.Time
	m       Manifest
	json    *member
	csv     *member
	csvOut  *csv.Writer
	proofs  *member
	html    *member
	summary summary
}

// member is a file of the zip, compressed as it grows: several grow at once, and a
// zip takes one after another.
type member struct {
	name   string
	packed bytes.Buffer
	out    *flate.Writer
	crc    hash.Hash32
	sum    hash.Hash
	size   uint64
}

func newMember(name string) *member {
	m := &member{name: name, crc: crc32.NewIEEE(), sum: sha256.New()}
	m.out, _ = flate.NewWriter(&m.packed, flate.DefaultCompression) // the level is a constant
	return m
}

// Write never fails: a buffer takes everything.
func (m *member) Write(p []byte) (int, error) {
	m.crc.Write(p)
	m.sum.Write(p)
	m.size += uint64(len(p))
	return m.out.Write(p)
}

func (m *member) text(s string) { m.Write([]byte(s)) }

// NewArchive begins an export of a person's data, proved under a checkpoint of the
// trail with the verifier key vkey.
func NewArchive(p Person, c tree.Checkpoint, vkey string, now time.Time) *Archive {
	a := &Archive{
		made: now,
		m: Manifest{
			Format: archiveFormat, Generated: string(entry.AppendTime(nil, now)), User: p.ID, Pseudonym: p.Pseudonym, Origin: c.Origin, VKey: vkey,
			Size: c.Size, Root: base64.StdEncoding.EncodeToString(c.Root[:]), Incomplete: []string{}, Files: map[string]string{},
		},
		json: newMember("entries.json"), csv: newMember("entries.csv"), proofs: newMember("disclosures.jsonl"), html: newMember("summary.html"),
		summary: newSummary(),
	}
	a.csvOut = csv.NewWriter(a.csv)
	_ = a.csvOut.Write(slices.Concat(CSVHeader, []string{"proof", "roles"}))
	return a
}

// Add adds an entry. prove gives the proof of its line; it is asked for entries that
// go out with one.
func (a *Archive) Add(item Item, prove func(index int64) ([]byte, error)) error {
	if item.Proved {
		proof, err := prove(item.Index)
		if err != nil {
			return err
		}
		text, err := Disclosure{Origin: a.m.Origin, Index: item.Index, Line: item.View.Line(), LineKey: item.LineKey, Fields: item.Keys, Proof: proof}.Append(nil)
		if err != nil {
			return err
		}
		a.proofs.Write(append(text, '\n'))
	}
	if a.m.Entries++; a.m.Entries == 1 {
		a.json.text("[\n")
	} else {
		a.json.text(",\n")
	}
	a.json.Write(item.AppendJSON(nil))
	row := CSVRow(item.View)
	if !item.Proved {
		row[slices.Index(CSVHeader, "digest")] = ""
		row[slices.Index(CSVHeader, "event_id")] = ""
	}
	if err := a.csvOut.Write(append(row, item.proof(), strings.Join(item.Roles, " "))); err != nil {
		return err
	}
	a.count(item)
	a.summary.add(item)
	return nil
}

func (a *Archive) count(item Item) {
	if item.Proved {
		a.m.Proved++
	} else {
		a.m.Masked++
	}
	if item.Shared {
		a.m.Shared++
	}
	for _, state := range item.Hidden {
		switch state {
		case sealed.Withheld:
			a.m.Withheld++
		case sealed.Erased:
			a.m.Erased++
		default:
			a.m.Unopened++
		}
	}
}

func (i Item) proof() string {
	if i.Proved {
		return "proved"
	}
	return "masked"
}

// AppendJSON appends the item as it stands in entries.json.
func (i Item) AppendJSON(dst []byte) []byte {
	dst = strconv.AppendInt(append(dst, `{"index":`...), i.Index, 10)
	roles, _ := json.Marshal(i.Roles) // strings always can be
	dst = append(append(dst, `,"roles":`...), roles...)
	dst = append(append(append(dst, `,"proof":"`...), i.proof()...), '"')
	if i.Proved {
		digest := i.View.Digest()
		dst = append(hex.AppendEncode(append(dst, `,"digest":"`...), digest[:]), '"')
	}
	if i.Shared {
		dst = append(dst, `,"shared":true`...)
	}
	hidden, _ := entry.Of(i.Hidden).AppendJSON(nil)
	dst = append(append(dst, `,"hidden":`...), hidden...)
	return append(append(append(dst, `,"entry":`...), i.View.View()...), '}')
}

// SetUnrecorded notes that no entry tells of the export.
func (a *Archive) SetUnrecorded() { a.m.Unrecorded = true }

// AddIncomplete notes what the trail lacked, in words that name no one.
func (a *Archive) AddIncomplete(what string) { a.m.Incomplete = append(a.m.Incomplete, what) }

// Write ends the export and writes the zip.
func (a *Archive) Write(w io.Writer) (Manifest, error) {
	if a.m.Entries == 0 {
		a.json.text("[]\n")
	} else {
		a.json.text("\n]\n")
	}
	a.csvOut.Flush()
	a.summary.write(a.html, a.m)
	script := newMember("verify.py")
	script.Write(python.Checker)
	members := []*member{a.html, a.json, a.csv, a.proofs, script}
	for _, m := range members {
		a.m.Files[m.name] = hex.EncodeToString(m.sum.Sum(nil))
	}
	text, err := json.MarshalIndent(a.m, "", "  ")
	if err != nil {
		return a.m, err
	}
	manifest := newMember("manifest.json")
	manifest.Write(append(text, '\n'))
	z := zip.NewWriter(w)
	for _, m := range append(members, manifest) {
		if err := m.out.Close(); err != nil {
			return a.m, err
		}
		h := &zip.FileHeader{Name: m.name, Method: zip.Deflate, CRC32: m.crc.Sum32(), UncompressedSize64: m.size, CompressedSize64: uint64(m.packed.Len())}
		h.SetMode(0o600)
		// Of a file that is packed already CreateRaw writes what only this sets.
		h.SetModTime(a.made) //lint:ignore SA1019 its successor is for CreateHeader
		out, err := z.CreateRaw(h)
		if err == nil {
			_, err = out.Write(m.packed.Bytes())
		}
		if err != nil {
			return a.m, fmt.Errorf("write %s: %w", m.name, err)
		}
	}
	return a.m, z.Close()
}
