package verify

import (
	"slices"
	"time"
)

// Status of a trail.
const (
	Intact     = "intact"
	Damaged    = "damaged"
	Unreadable = "unreadable" // the operating system refused a file
)

// Anchors, from weak to strong: what the answer rests on.
const (
	AnchorNone       = "none"       // the key came from the trail: consistent with itself only
	AnchorPinned     = "pinned"     // the key was seen before, or given
	AnchorCheckpoint = "checkpoint" // an older checkpoint from outside is a prefix
	AnchorArchive    = "archive"    // likewise one that an archive keeps under lock
	AnchorWitness    = "witness"    // likewise one that a witness has cosigned
	AnchorTimestamp  = "timestamp"  // likewise one that an authority has put a time to
)

var anchorOrder = []string{AnchorNone, AnchorPinned, AnchorCheckpoint, AnchorArchive, AnchorWitness, AnchorTimestamp}

// Stronger is the stronger of two anchors.
func Stronger(a, b string) string {
	if slices.Index(anchorOrder, b) > slices.Index(anchorOrder, a) {
		return b
	}
	return a
}

// Artefacts that can be bad.
const (
	Line       = "line"
	Bundle     = "bundle"
	Tile       = "tile"
	Checkpoint = "checkpoint"
	Segment    = "segment"
	TrailJSON  = "trail.json"
	AnchorFile = "anchor" // what is kept of an anchor
)

// Problems.
const (
	Changed      = "changed"
	Missing      = "missing"
	Inserted     = "inserted"
	Reordered    = "reordered"
	Truncated    = "truncated"
	BadSignature = "bad signature"
	NotPrefix    = "not a prefix" // an older checkpoint is not one of these lines
	Unparsable   = "unparsable"
	NoAnchor     = "no anchor" // RequireAnchor, and there is none
)

// States of a range.
const (
	stateChecked = "checked"
	stateBad     = "bad"
	stateMissing = "missing"
	stateEarlier = "checked before" // by an earlier verification
	statePruned  = "pruned"
)

// Report says what was found. Its JSON form only grows.
type Report struct {
	Status string `json:"status"`
	Origin string `json:"origin"`
	// Size and Root (base64) are the latest checkpoint's. Where that is no
	// good they are those of the newest one that is.
	Size   int64  `json:"size"`
	Root   string `json:"root"`
	Anchor string `json:"anchor"`
	// Anchors are the outside parties that have vouched for a prefix, each with the
	// size and the time of it.
	Anchors []Anchored `json:"anchors,omitempty"`
	// Replaced are the signing keys that came in the place of one that was lost, which
	// did not sign for them; empty where each was signed for.
	Replaced []Replaced `json:"replaced,omitempty"`
	// Finding is the first damage. Its members stand in the report itself.
	Finding
	// Since is the index before which lines were not read again, since an earlier
	// verification has read them; 0 where all were read.
	Since int64 `json:"since,omitempty"`
	// FromArchive are the segments, by their first index, whose lines are in the
	// archive only and were read there or from what was fetched before.
	FromArchive []int64 `json:"from_archive,omitempty"`
	// Ranges are the parts of the trail and their state, ascending.
	Ranges []Range `json:"ranges"`
	// Uncovered is the number of complete lines past the checkpoint, Torn the
	// number of bytes after the last newline. Neither is a failure.
	Uncovered int64 `json:"uncovered"`
	Torn      int64 `json:"torn"`
	// Also is further damage, the first hundred findings of it.
	Also []Finding `json:"also,omitempty"`
	// Unproven is what this verification can't prove, in words.
	Unproven []string `json:"unproven"`
}

// Replaced is a signing key that came in the place of a lost one, and the first tree
// size that it signs.
type Replaced struct {
	VKey string `json:"vkey"`
	From int64  `json:"from"`
}

// Anchored is what an outside party has vouched for.
type Anchored struct {
	Kind string    `json:"kind"` // archive, witness, timestamp
	Name string    `json:"name"`
	Size int64     `json:"size"`
	Time time.Time `json:"time"`
}

// Finding is one damage.
type Finding struct {
	Artefact string `json:"artefact,omitempty"`
	// File is below the trail's directory, or the log.
	File string `json:"file,omitempty"`
	// FirstBad is nil where the damage has no index. If it is not Exact, it
	// is where the smallest range begins that the damage must lie in.
	FirstBad *int64 `json:"first_bad"`
	Exact    bool   `json:"exact"`
	Problem  string `json:"problem,omitempty"`
	Detail   string `json:"detail,omitempty"`
}

// Range is a part of the trail: entries First to First+Count-1.
type Range struct {
	First int64 `json:"first"`
	Count int64 `json:"count"`
	// State is "checked", "bad" (the damage lies in it), "missing", "checked before",
	// or "pruned": lawfully gone, its hashes still under the checkpoint.
	State string `json:"state"`
}

func (f Finding) at(index int64, exact bool) Finding {
	f.FirstBad, f.Exact = &index, exact
	return f
}

// maxFindings and maxRanges bound what a report of a thoroughly damaged trail
// takes: a hundred of a kind are read by nobody to the end.
const (
	maxFindings = 100
	maxRanges   = 1000
)

// conclude puts the findings, the first of which is the news, into the report.
func (r *Report) conclude(findings []Finding) {
	if len(findings) == 0 {
		return
	}
	r.Status = Damaged
	r.Finding = findings[0]
	if also := findings[1:]; len(also) > 0 {
		r.Also = also[:min(maxFindings, len(also))]
	}
}

// addRange adds the next part, joined to the one before if its state is the
// same. The last of too many takes in all the others as bad.
func (r *Report) addRange(first, count int64, state string) {
	if count <= 0 {
		return
	}
	if n := len(r.Ranges); n > 0 {
		last := &r.Ranges[n-1]
		if n == maxRanges {
			last.State, state = stateBad, stateBad
		}
		if last.State == state && last.First+last.Count == first {
			last.Count += count
			return
		}
	}
	r.Ranges = append(r.Ranges, Range{first, count, state})
}
