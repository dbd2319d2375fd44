package verify

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// Options say what is verified, and against what.
type Options struct {
	// LogPath is the log; a link is resolved.
	LogPath string
	// Key is the verifier key to trust (vkey); empty means PinnedKey, and
	// where that is empty too the trail's own.
	Key string
	// PinnedKey was seen before and kept outside the trail.
	PinnedKey string
	// Checkpoint is an older signed checkpoint from outside; nil for none. One
	// that is empty is damage, not none.
	Checkpoint []byte
	// RequireAnchor makes a trail whose anchor is none or pinned damaged.
	RequireAnchor bool
	// Workers is how many goroutines hash; 0 means GOMAXPROCS.
	Workers int
	// Progress is told the bytes of lines done, of how many (compressed ones
	// are counted as stored until they are read), from one goroutine.
	Progress func(done, total int64)
}

// Verify checks a trail. Damage is in the report. The error is ctx's, or says
// that the operating system refused a file, which the report calls unreadable.
func Verify(ctx context.Context, opts Options) (*Report, error) {
	r, err := verify(ctx, opts)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		r.Status, r.Detail = Unreadable, err.Error()
		return r, fmt.Errorf("verify: %w", err)
	}
	return r, nil
}

func verify(ctx context.Context, opts Options) (*Report, error) {
	r := &Report{Status: Intact, Anchor: AnchorNone, Ranges: []Range{}, Unproven: []string{}}
	log := opts.LogPath
	if resolved, err := filepath.EvalSymlinks(log); err == nil {
		log = resolved
	}
	dir := dirOf(log)
	key, done, err := trustedKey(r, dir, opts)
	if done || err != nil {
		return r, err
	}
	r.Origin = key.Name()

	// Kept ones before the latest, and the latest before the lines: whatever
	// a writer does meanwhile, each is behind what is read after it.
	heads, done, err := readHeads(r, dir, key, opts)
	if done || err != nil {
		return r, err
	}
	latest := heads[len(heads)-1]
	r.Size, r.Root = latest.size, base64.StdEncoding.EncodeToString(latest.root[:])
	list, err := listSegments(log, dir)
	if err != nil {
		return r, err
	}
	defer func() {
		for _, s := range list {
			if s.open != nil {
				s.open.Close()
			}
		}
	}()
	p := proofs{dir}
	f, err := scan(ctx, list, p, latest.size, sizesOf(heads), opts)
	if err != nil {
		return r, err
	}
	r.Uncovered, r.Torn = max(f.lines-latest.size, 0), f.torn
	r.say(opts)
	return r, judge(ctx, r, f, heads, list, p, opts)
}

// trustedKey is the key that the trail is verified by; done says that the
// report is finished.
func trustedKey(r *Report, dir string, opts Options) (key note.Verifier, done bool, err error) {
	data, err := readSmall(filepath.Join(dir, "trail.json"))
	if refused(err) {
		return nil, false, err
	}
	var id identity
	if err == nil {
		id, err = parseIdentity(data)
	}
	if err != nil {
		problem := Unparsable
		if errors.Is(err, fs.ErrNotExist) {
			problem = Missing
		}
		r.damage(TrailJSON, "trail.json", problem, "trail.json "+explain(err))
		return nil, true, nil
	}
	trusted, whose := id.VKey, ""
	switch {
	case opts.Key != "":
		trusted, whose, r.Anchor = opts.Key, "the key that was given", AnchorPinned
	case opts.PinnedKey != "":
		trusted, whose, r.Anchor = opts.PinnedKey, "the key that was pinned when the trail was first seen", AnchorPinned
	}
	if key, err = note.NewVerifier(trusted); err != nil {
		return nil, false, fmt.Errorf("the verifier key is not one: %w", err)
	}
	if whose != "" && id.VKey != trusted {
		r.Origin = id.Origin
		r.damage(TrailJSON, "trail.json", BadSignature, "the trail names another key than "+whose+": it may have been made anew")
		return nil, true, nil
	}
	return key, false, nil
}

func explain(err error) string {
	if errors.Is(err, fs.ErrNotExist) {
		return "is missing"
	}
	return "can't be used: " + err.Error()
}

// readHeads reads every checkpoint there is, ascending, the latest last.
func readHeads(r *Report, dir string, key note.Verifier, opts Options) (heads []head, done bool, err error) {
	names, err := os.ReadDir(filepath.Join(dir, "checkpoints"))
	if refused(err) {
		return nil, false, err
	}
	for _, d := range names {
		size, err := strconv.ParseInt(d.Name(), 10, 64)
		if err != nil || size < 0 || strings.HasPrefix(d.Name(), "+") {
			continue // a temporary file of the writer's
		}
		h, done, err := readHead(r, dir, "checkpoints/"+d.Name(), key)
		if done || err != nil {
			return nil, done, err
		}
		if h.size != size {
			r.damage(Checkpoint, h.file, Changed, fmt.Sprintf("%s is a checkpoint of size %d", h.file, h.size)).at(min(h.size, size), false)
			return nil, true, nil
		}
		heads = append(heads, h)
	}
	latest, done, err := readHead(r, dir, "checkpoint", key)
	if done || err != nil {
		return nil, done, err
	}
	r.Size, r.Root = latest.size, base64.StdEncoding.EncodeToString(latest.root[:])
	if opts.Checkpoint != nil {
		h, err := parseCheckpoint(opts.Checkpoint, key)
		if err != nil {
			problem := BadSignature
			if !errors.Is(err, errSignature) {
				problem = Unparsable
			}
			r.damage(Checkpoint, "", problem, "the checkpoint that was given does not belong to this trail: "+err.Error())
			return nil, true, nil
		}
		h.file = "the checkpoint that was given"
		r.Anchor = AnchorCheckpoint
		heads = append(heads, h)
	}
	slices.SortFunc(heads, func(a, b head) int { return int(min(max(a.size-b.size, -1), 1)) })
	if n := len(heads); n > 0 && heads[n-1].size > latest.size {
		newer := heads[n-1]
		r.damage(Checkpoint, "checkpoint", Truncated,
			fmt.Sprintf("%s covers %d entries and checkpoint only %d: the trail was rolled back", newer.file, newer.size, latest.size)).
			at(latest.size, true).bad(latest.size, newer.size, "missing")
		return nil, true, nil
	}
	return append(heads, latest), false, nil
}

func readHead(r *Report, dir, file string, key note.Verifier) (h head, done bool, err error) {
	data, err := readSmall(filepath.Join(dir, filepath.FromSlash(file)))
	if refused(err) {
		return h, false, err
	}
	if err == nil {
		h, err = parseCheckpoint(data, key)
	}
	if err == nil {
		h.file = file
		return h, false, nil
	}
	problem := Unparsable
	switch {
	case errors.Is(err, fs.ErrNotExist):
		problem = Missing
	case errors.Is(err, errSignature):
		problem = BadSignature
	}
	r.damage(Checkpoint, file, problem, file+" "+explain(err))
	return h, true, nil
}

func sizesOf(heads []head) []int64 {
	sizes := make([]int64, len(heads))
	for i, h := range heads {
		sizes[i] = h.size
	}
	return slices.Compact(sizes)
}

// say fills in what this verification can't prove.
func (r *Report) say(opts Options) {
	r.Unproven = []string{
		"that each event was reported, and reported truly: what was never recorded leaves no gap",
	}
	switch r.Anchor {
	case AnchorNone:
		r.Unproven = append(r.Unproven, "that this is the trail that was first made here: key and checkpoint come from the trail itself, and whoever has its key can make all of it anew")
	case AnchorPinned:
		r.Unproven = append(r.Unproven, "that nobody with the signing key wrote the trail anew, or cut off its newest entries: give an older checkpoint from outside (--checkpoint)")
	case AnchorCheckpoint:
		r.Unproven = append(r.Unproven, "what came after the checkpoint that was given, against somebody with the signing key")
	}
	if r.Uncovered > 0 {
		r.Unproven = append(r.Unproven, fmt.Sprintf("the newest %d entries: no checkpoint covers them yet", r.Uncovered))
	}
}

// judge finds what is damaged first.
func judge(ctx context.Context, r *Report, f found, heads []head, list []segment, p proofs, opts Options) error {
	latest := heads[len(heads)-1]
	root, reached := f.roots[latest.size]
	if reached && root == latest.root && f.stop == nil {
		// The lines are what was signed last; what was signed before must be
		// a prefix, and bundles and tiles must be theirs.
		good := int64(0)
		for _, h := range heads {
			if f.roots[h.size] != h.root {
				r.damage(Checkpoint, h.file, NotPrefix, fmt.Sprintf("%s (size %d) is not a prefix of what checkpoint covers: the history was exchanged", h.file, h.size)).
					at(good, false).bad(good, h.size, "bad")
				return nil
			}
			good = h.size
		}
		if len(f.faults) > 0 {
			b := f.faults[0]
			r.damage(b.artefact, b.file, b.problem, fmt.Sprintf("%s is %s; the lines are what was signed", b.file, b.problem)).at(b.index, true)
			r.Ranges = []Range{{0, latest.size, "checked"}}
			return nil
		}
		for i := range list {
			from, to := list[i].first, latest.size
			if from < 0 {
				from = 0
				if i > 0 {
					from = -1 // told with the segment before
				}
			}
			if i+1 < len(list) && list[i+1].first >= 0 {
				to = list[i+1].first
			}
			if from >= 0 && from < to {
				r.Ranges = append(r.Ranges, Range{from, to - from, "checked"})
			}
		}
		if opts.RequireAnchor && r.Anchor != AnchorCheckpoint {
			r.damage(Checkpoint, "", NoAnchor, "nothing from outside was given to hold the trail against (--require-anchor): its anchor is "+r.Anchor)
		}
		return nil
	}

	// Something else than these lines was signed. Bundles or tiles may still
	// say what.
	for _, level := range []int{bundles, 0} {
		root, ok, err := proofRoot(ctx, p, level, latest.size)
		if err != nil {
			return err
		}
		if ok && root == latest.root {
			return r.locate(ctx, f, list, &truth{proofs: p, level: level, size: latest.size})
		}
	}
	if f.stop != nil {
		r.stopped(f.stop, latest.size)
		r.Exact = false
		return nil
	}
	// Only the kept checkpoints are left: the smallest range between one that
	// still holds and one that does not.
	good := int64(0)
	for _, h := range heads {
		if root, ok := f.roots[h.size]; ok && root == h.root {
			good = h.size
			continue
		}
		problem, what := Changed, "lines, bundles and tiles"
		if f.lines < h.size {
			problem = Truncated
		}
		r.damage(Line, "", problem, fmt.Sprintf("somewhere from entry %d to %d; %s give no signed root, so it can't be told closer", good, h.size-1, what)).
			at(good, false).bad(good, h.size, "bad")
		return nil
	}
	// Every kept checkpoint holds, the latest included: not possible here.
	return fmt.Errorf("entries 0 to %d give two roots", latest.size-1)
}

func (r *Report) stopped(s *stop, size int64) {
	to := s.to
	if to < 0 {
		to = max(size, s.at+1)
	}
	state := "missing"
	if s.problem != Missing && s.problem != Truncated {
		state = "bad"
	}
	what := "its lines can't be read further"
	switch s.problem {
	case Missing:
		what = "the lines before it are missing"
	case Inserted:
		what = "the segment before it has lines too many"
	case Truncated:
		what = "the open segment is gone"
	}
	r.damage(Segment, s.file, s.problem, fmt.Sprintf("from entry %d on: %s", s.at, what)).at(s.at, true).bad(s.at, to, state)
}

// window is how many lines behind the first bad one are looked at to tell a
// changed line from one that is missing, inserted or moved.
const window = 1024

// errFound ends a walk.
var errFound = errors.New("found")

// locate compares the lines with the leaves that were signed.
func (r *Report) locate(ctx context.Context, f found, list []segment, t *truth) error {
	bad := int64(-1)
	var have, want []hash
	add := func() error {
		h, ok, err := t.leaf()
		if ok {
			want = append(want, h)
		}
		return err
	}
	w, err := walk(ctx, list, func(index int64, line []byte) error {
		if bad < 0 && index >= t.size {
			return errFound
		}
		digest := digestOf(line)
		leaf := leafOf(&digest)
		if bad < 0 {
			h, _, err := t.leaf()
			if err != nil {
				return err
			}
			if h == leaf {
				return nil
			}
			bad, want = index, append(want, h)
		} else if err := add(); err != nil {
			return err
		}
		if have = append(have, leaf); len(have) == window {
			return errFound
		}
		return nil
	})
	if err != nil && !errors.Is(err, errFound) {
		return err
	}
	if bad < 0 {
		if f.stop != nil {
			r.stopped(f.stop, t.size)
			return nil
		}
		r.damage(Line, "", Truncated, fmt.Sprintf("there are %d lines where the checkpoint covers %d", w.lines, t.size)).
			at(w.lines, true).bad(w.lines, t.size, "missing")
		return nil
	}
	for len(want) < window && t.next < t.size {
		if err := add(); err != nil {
			return err
		}
	}
	problem := classify(have, want)
	r.damage(Line, "", problem, fmt.Sprintf("entry %d is not what was signed: %s", bad, problem)).at(bad, true).bad(bad, bad+1, "bad")
	return nil
}

// classify tells what happened where have[0] differs from want[0].
func classify(have, want []hash) string {
	inWant := slices.Index(want, have[0]) // the line comes later in truth: those before it are missing
	inHave := slices.Index(have, want[0]) // what is due comes later: something was put before it
	switch {
	case inWant > 0 && inHave > 0:
		return Reordered
	case inWant > 0:
		return Missing
	case inHave > 0:
		return Inserted
	}
	return Changed
}
