// Package archiver copies a trail to an archive, piece by piece, and brings it
// back. It knows which files those are and in which order they go
// (docs/format.md §9); where they go is a store's concern (package archive).
//
// What is always true:
//
//  1. Lines, then the digests of their tree, then the checkpoint: an archive can
//     be verified at every moment, whenever its writer dies.
//  2. What is archived for good is stored if its name is free, and never changed.
//     Who finds another object under a name stops (ErrConflict, ErrForked): two writers, or a
//     copy of the trail that went on, are told and not mixed.
//  3. What was stored is found by its name. Nothing that this process remembers,
//     and no file of the trail, is needed to go on after an interruption.
//  4. No key goes to an archive but DEKs that a KEK has wrapped. Subject keys and
//     epoch keys never do: an archive that nobody can delete from would keep
//     readable who was erased.
//
// Several processes of one machine take turns by a lock below the trail.
package archiver

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Names in an archive: those of the files below X.trail/, and tail/ for the lines
// that are not sealed yet.
const (
	trailName      = "trail.json"
	checkpointName = "checkpoint"
	manifestName   = "manifest"
	policyName     = "policy"
	deksName       = "keys/deks.json"
	keptDir        = "checkpoints/"
	segmentsDir    = "segments/"
	packedDir      = "tile/packed/"
	tailDir        = "tail/"
	sealedSuffix   = ".jsonl.zst"
	plainSuffix    = ".jsonl"
)

const (
	// Files below X.trail/ that are not archived.
	lockName  = "archive.lock"
	stateName = "archive.json"
)

// loose are the files that can change and stand beside the segments.
var loose = []string{policyName, deksName, manifestName}

var (
	// ErrForked: the archive has what this trail can't have come to.
	ErrForked = errors.New("the archive has another history of this trail")
	// ErrConflict: what is stored for good under a name is not what is here.
	ErrConflict = errors.New("the archive has it with other bytes")
	// ErrOther: another trail archives to the same place.
	ErrOther = errors.New("the archive is another trail's")
)

func segmentFile(first int64) string {
	return fmt.Sprintf("%s%020d%s", segmentsDir, first, sealedSuffix)
}

func packedFile(first int64) string { return fmt.Sprintf("%s%020d", packedDir, first) }

func tailFile(first int64) string { return fmt.Sprintf("%s%020d%s", tailDir, first, plainSuffix) }

// firstIn reads the index in a name that one of the functions above has made.
func firstIn(name, dir, suffix string) (int64, bool) {
	number, ok := strings.CutPrefix(name, dir)
	number, ok2 := strings.CutSuffix(number, suffix)
	first, err := strconv.ParseInt(number, 10, 64)
	return first, ok && ok2 && err == nil && first >= 0 && fmt.Sprintf("%020d", first) == number
}

// sizeIn reads the size in the name of a kept checkpoint.
func sizeIn(name string) (int64, bool) {
	number, ok := strings.CutPrefix(name, keptDir)
	size, err := strconv.ParseInt(number, 10, 64)
	return size, ok && err == nil && size >= 0 && strconv.FormatInt(size, 10) == number
}
