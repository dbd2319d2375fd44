// Package lifecycle reads what a trail's own entries say that readers of other
// entries have to know (docs/format-lifecycle.md): which policy, holds and keys are
// in force, what was pruned, and whether that was lawful.
//
// It is pure: lines and digests in, a State out. Every entry that State goes by is
// signed by the key that it needs and covered by the checkpoint; what is not, is in
// State.NotValid and says nothing. Adopted alone verifies nothing.
package lifecycle

import (
	"bytes"
	"math"

	"github.com/kaizen-audit/kaizen-audit/entry"
)

// Adopted are the lines that a trail begins with and that another log had
// first: entry 0 names them (docs/format-lifecycle.md §7.2). They keep their
// bytes, whatever those are, and none of them is the trail's own word.
type Adopted struct {
	// First is the index of the first of Count lines.
	First int64 `json:"first"`
	Count int64 `json:"count"`
	// Bytes is the length of the file that had them, SHA256 its hash as
	// lower-case hex, File its name beside the log from then on.
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
	File   string `json:"file"`
}

// Has reports whether the line at index is one of them.
func (a *Adopted) Has(index int64) bool { return index >= a.First && index-a.First < a.Count }

// See takes the range from entry 0; any other line changes nothing. Who reads
// lines in their order shows it each of them.
func (a *Adopted) See(index int64, line []byte) {
	if index != 0 {
		return
	}
	*a = Adopted{}
	if !bytes.Contains(line, []byte(`"adopted"`)) {
		return
	}
	e, err := entry.Parse(line)
	if err != nil || e.EventType != "AUDIT_CREATED" || !e.IsTrails() {
		return
	}
	v, ok := e.Outputs.Get("adopted")
	if !ok {
		return
	}
	o, _ := v.Object()
	var found Adopted
	if o.Decode(&found) != nil || found.First != 1 || found.Count < 1 || found.Count == math.MaxInt64 {
		return
	}
	*a = found
}
