package verify

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
)

// Artefacts that can be bad.
const (
	Line       = "line"
	Bundle     = "bundle"
	Tile       = "tile"
	Checkpoint = "checkpoint"
	Segment    = "segment"
	TrailJSON  = "trail.json"
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

// Report says what was found. Its JSON form only grows.
type Report struct {
	Status string `json:"status"`
	Origin string `json:"origin"`
	// Size and Root (base64) are the latest checkpoint's.
	Size   int64  `json:"size"`
	Root   string `json:"root"`
	Anchor string `json:"anchor"`
	// Artefact, File (below the trail's directory, or the log), FirstBad,
	// Exact, Problem and Detail tell the first damage; FirstBad is nil where
	// it has no index.
	Artefact string `json:"artefact,omitempty"`
	File     string `json:"file,omitempty"`
	FirstBad *int64 `json:"first_bad"`
	Exact    bool   `json:"exact"`
	Problem  string `json:"problem,omitempty"`
	Detail   string `json:"detail,omitempty"`
	// Ranges are the parts of the trail and their state.
	Ranges []Range `json:"ranges"`
	// Uncovered is the number of complete lines past the checkpoint, Torn the
	// number of bytes after the last newline. Neither is a failure.
	Uncovered int64 `json:"uncovered"`
	Torn      int64 `json:"torn"`
	// Unproven is what this verification can't prove, in words.
	Unproven []string `json:"unproven"`
}

// Range is a part of the trail: entries First to First+Count-1.
type Range struct {
	First int64 `json:"first"`
	Count int64 `json:"count"`
	// State is "checked", "bad" (the damage lies in it) or "missing".
	State string `json:"state"`
}

func (r *Report) damage(artefact, file, problem, detail string) *Report {
	r.Status, r.Artefact, r.File, r.Problem, r.Detail = Damaged, artefact, file, problem, detail
	return r
}

func (r *Report) at(index int64, exact bool) *Report {
	r.FirstBad, r.Exact = &index, exact
	return r
}

// bad makes the ranges of a damage: what is before it, the range itself, and
// what is behind.
func (r *Report) bad(from, to int64, state string) *Report {
	r.Ranges = nil
	if from > 0 {
		r.Ranges = append(r.Ranges, Range{0, from, "checked"})
	}
	r.Ranges = append(r.Ranges, Range{from, to - from, state})
	return r
}
