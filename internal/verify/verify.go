package verify

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/kaizen-audit/kaizen-audit/internal/lifecycle"
	"github.com/kaizen-audit/kaizen-audit/internal/trust"
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
	// Checkpoint is an older signed checkpoint from outside, or several behind
	// each other, as a file has to which they are sent; nil for none. What is empty is an error, not none. Of several those of other
	// trails are passed over.
	Checkpoint []byte
	// Outside are checkpoints that somebody outside vouched for; that they did was
	// checked by who gives them.
	Outside []Outside
	// Broken says what was found of anchors that prove nothing, which is damage.
	Broken []string
	// Since is what an earlier verification found intact: of the segments that end
	// before it the lines are not read again, their bundles stand for them. Where
	// anything is not as it should be, all is read. The zero Since is none.
	Since Since
	// RequireAnchor makes a trail whose anchor is none or pinned damaged.
	RequireAnchor bool
	// Archive opens the sealed file of a segment that is in the archive only, by its
	// first index. fs.ErrNotExist and fs.ErrInvalid are damage; every other error says
	// that the archive can't be asked, and ends the verification. nil: there is no
	// archive to ask.
	Archive func(ctx context.Context, first int64) (*os.File, error)
	// Workers is how many goroutines hash; 0 means GOMAXPROCS.
	Workers int
	// Progress is told the bytes of lines done, of how many, from one
	// goroutine. The total is an estimate until the end where lines are
	// compressed and the manifest does not name their length.
	Progress func(done, total int64)
}

// Since is the size and root of a checkpoint that a trail was found intact under.
type Since struct {
	Size int64
	Root [32]byte
}

// Outside is a checkpoint that somebody outside vouched for.
type Outside struct {
	Kind       string // AnchorArchive, AnchorWitness, AnchorTimestamp; "": it is compared and vouches for nothing
	Name       string
	Time       time.Time
	Checkpoint []byte // signed
}

// tries is how often a trail that is changing is looked at before it is
// accused.
const tries = 3

// Verify checks a trail. Damage is in the report. The error is ctx's, or that
// an option's key or checkpoint is none (ErrNoCheckpoint) or another trail's
// (ErrOtherTrail), and then there is no report; or it says that the operating
// system refused a file, and the report calls that unreadable.
func Verify(ctx context.Context, opts Options) (*Report, error) {
	for _, key := range []string{opts.Key, opts.PinnedKey} {
		if key == "" {
			continue
		}
		if _, err := note.NewVerifier(key); err != nil {
			return nil, fmt.Errorf("verify: verifier key: %w", err)
		}
	}
	if opts.Checkpoint != nil {
		for _, signed := range CheckpointsIn(opts.Checkpoint) {
			if _, err := originOf(signed); err != nil {
				return nil, err
			}
		}
	}
	log := resolve(opts.LogPath)
	v := verification{opts: opts, log: log, dir: dirOf(log)}
	for try := 1; ; try++ {
		before := v.moment()
		r, err := v.verify(ctx)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if errors.Is(err, errMoved) && try < tries {
			continue
		}
		if errors.Is(err, ErrNoCheckpoint) || errors.Is(err, ErrOtherTrail) {
			return nil, err
		}
		if err != nil {
			r.Status, r.Detail = Unreadable, err.Error()
			return r, fmt.Errorf("verify: %w", err)
		}
		// The order of reading keeps an intact trail from being accused while
		// it is written. This is for what is no writing: a trail that is made,
		// or exchanged for its successor, meanwhile.
		if r.Status == Intact || try == tries || v.moment() == before {
			return r, nil
		}
	}
}

// errMoved says that a file is another one than a moment ago.
var errMoved = errors.New("it changes while it is read")

// moment tells one state of a trail's files from another.
func (v *verification) moment() string {
	identity, _ := readSmall(filepath.Join(v.dir, "trail.json"), maxSmall)
	checkpoint, _ := readSmall(filepath.Join(v.dir, "checkpoint"), maxSmall)
	names, _ := namesIn(filepath.Join(v.dir, "segments"))
	return fmt.Sprintf("%q %q %q", identity, checkpoint, names)
}

// verification is one look at a trail.
type verification struct {
	opts Options
	log  string
	dir  string

	proofs    proofs
	r         *Report
	keys      trust.Set
	vkeys     []lifecycle.KeyFrom // the same
	lifecycle string              // the lifecycle key, as trail.json says
	latest    *head               // checkpoint, nil where it is no good
	given     []head              // those of Options.Checkpoint, likewise
	heads     []head              // all that are good, ascending by size
	findings  []Finding

	mu      sync.Mutex
	fetched []int64 // segments that were read from the archive; under mu
}

// fetch opens a segment that is in the archive only.
func (v *verification) fetch(ctx context.Context, first int64) (*os.File, error) {
	if v.opts.Archive == nil {
		return nil, fs.ErrNotExist
	}
	f, err := v.opts.Archive(ctx, first)
	if err == nil {
		v.mu.Lock()
		v.fetched = append(v.fetched, first)
		v.mu.Unlock()
	}
	return f, err
}

func (v *verification) find(artefact, file, problem, detail string) {
	v.findings = append(v.findings, Finding{Artefact: artefact, File: file, Problem: problem, Detail: detail})
}

func (v *verification) verify(ctx context.Context) (*Report, error) {
	v.proofs = newProofs(v.dir)
	v.r = &Report{Status: Intact, Anchor: AnchorNone, Ranges: []Range{}, Unproven: []string{}}
	v.keys, v.latest, v.given, v.heads, v.findings, v.fetched = trust.Set{}, nil, nil, nil, nil, nil
	err := v.check(ctx)
	if err == nil {
		v.say()
		v.r.conclude(v.findings)
	}
	return v.r, err
}

func (v *verification) check(ctx context.Context) error {
	if err := v.trust(); err != nil || v.keys.IsZero() {
		return err
	}
	v.r.Origin = v.keys.Name()
	// Kept checkpoints before the latest, and that before the lines: whatever
	// a writer does meanwhile, each is behind what is read after it.
	if err := v.readHeads(); err != nil || len(v.heads) == 0 {
		return err
	}
	top := v.heads[len(v.heads)-1]
	v.r.Size, v.r.Root = top.size, base64.StdEncoding.EncodeToString(top.root[:])
	if v.latest != nil {
		v.r.Size, v.r.Root = v.latest.size, base64.StdEncoding.EncodeToString(v.latest.root[:])
	}
	list, err := listSegments(v.log, v.dir, func(first int64) (*os.File, error) { return v.fetch(ctx, first) })
	if err != nil {
		return err
	}
	defer closeSegments(list)
	cpu := make(slots, cmp.Or(max(v.opts.Workers, 0), runtime.GOMAXPROCS(0)))
	s, from, err := v.scanSince(ctx, cpu, list)
	if err == nil && from == 0 {
		s, err = scan(ctx, cpu, list, 0, v.proofs, v.heads, v.opts.Progress)
	}
	if err != nil {
		return err
	}
	v.r.Since = from
	slices.Sort(v.fetched)
	v.r.FromArchive = slices.Compact(v.fetched)
	if !s.long && s.stop == nil {
		for _, first := range v.r.FromArchive {
			v.checkReference(first, s.said)
		}
	}
	v.r.Uncovered, v.r.Torn = max(s.lines-v.r.Size, 0), s.torn
	if len(v.given) > 0 && !slices.ContainsFunc(v.given, func(h head) bool { return !s.holds(h) }) {
		for _, h := range v.given {
			v.r.Anchor = Stronger(v.r.Anchor, h.kind)
		}
	}
	return v.judge(ctx, cpu, s, list)
}

// scanSince scans what came after the earlier verification; from is the index where
// it begins. It is 0 where there is nothing to leave out, or a doubt: then all is to
// be read.
func (v *verification) scanSince(ctx context.Context, cpu slots, list []segment) (s scanned, from int64, err error) {
	since := v.opts.Since
	first := 0
	for i, seg := range list {
		if seg.first >= 0 && seg.first <= since.Size {
			first = i
		}
	}
	for back := 1; first > 0; first, back = first-back, 2*back {
		from = list[first].first
		gaps, heads, sure := v.pruned(list, first)
		if !sure {
			return s, 0, nil
		}
		s, err = scan(ctx, cpu, list[first:], from, v.proofs, v.heads, v.opts.Progress)
		switch {
		case errors.Is(err, errNoBundle):
			return s, 0, nil
		case err != nil:
			return s, 0, err
		case s.stop != nil, len(s.gaps) > 0, len(s.faults) > 0, slices.ContainsFunc(v.heads, func(h head) bool { return !s.holds(h) }):
			return s, 0, nil
		}
		s.gaps, s.said, s.unread = gaps, append(heads, s.said...), lifecycle.Range{First: 0, Count: from}
		if lawful := v.lawful(s.walked); !slices.ContainsFunc(gaps, func(g lifecycle.Range) bool { return !lifecycle.Contains(lawful, g) }) {
			return s, from, nil
		}
		// What permits it may have been said before from: further back, then.
	}
	return s, 0, nil
}

// pruned are the gaps before the segment list[first], which nothing has shown to be
// lawful yet, and the lines that attest what was there, each the first of the segment
// behind a gap; sure is false where it is not as the trail's newest segment claims.
func (v *verification) pruned(list []segment, first int) (gaps []lifecycle.Range, heads []lifecycle.Line, sure bool) {
	var claimed []lifecycle.Range
	if list[0].first != 0 {
		claimed = claims(list)
		if !lifecycle.Contains(claimed, lifecycle.Range{First: 0, Count: list[0].first}) {
			return nil, nil, false
		}
	}
	for i := range list[:first+1] {
		before := lifecycle.Range{First: 0, Count: list[i].first}
		if i > 0 {
			before = lifecycle.Range{First: list[i-1].first, Count: list[i].first - list[i-1].first}
		}
		for _, c := range claimed {
			if c.End() != list[i].first || c.First < before.First {
				continue
			}
			line, ok := v.headOf(&list[i])
			if !ok {
				return nil, nil, false
			}
			gaps, heads = append(gaps, c), append(heads, line)
			break
		}
	}
	if list[0].first != 0 && (len(gaps) == 0 || gaps[0].First != 0) {
		return nil, nil, false
	}
	return gaps, heads, true
}

// headOf is the first line of a segment, if it is what the bundles say.
func (v *verification) headOf(s *segment) (lifecycle.Line, bool) {
	r, err := s.reader()
	if err != nil {
		return lifecycle.Line{}, false
	}
	defer r.Close()
	text, err := bufio.NewReaderSize(r, blockBytes).ReadBytes('\n')
	digest, ok := v.digest(s.first)
	if text = bytes.TrimSuffix(text, []byte{'\n'}); err != nil || !ok || sha256.Sum256(text) != digest {
		return lifecycle.Line{}, false
	}
	return lifecycle.Line{Index: s.first, Text: text}, true
}

// digest is that of an entry, as the bundles say.
func (v *verification) digest(index int64) (digest [sha256.Size]byte, ok bool) {
	var buf tileBuffer
	size, n := v.heads[len(v.heads)-1].size, index/tileWidth
	if index >= size {
		return digest, false
	}
	t, _, err := v.proofs.tile(bundles, n, int(min(tileWidth, size-n*tileWidth)), &buf)
	if err != nil {
		return digest, false
	}
	return *t.hash(int(index % tileWidth)), true
}

// trust chooses the key. It stays nil where there is none to be had.
func (v *verification) trust() error {
	data, err := readSmall(filepath.Join(v.dir, "trail.json"), maxSmall)
	var id identity
	if err == nil {
		id, err = parseIdentity(data)
	}
	if refused(err) {
		return err
	}
	if err != nil {
		v.find(TrailJSON, "trail.json", problemOf(err), "trail.json "+explain(err))
	}
	trusted, whose := id.VKey, ""
	switch {
	case v.opts.Key != "":
		trusted, whose = v.opts.Key, "the key that was given"
	case v.opts.PinnedKey != "":
		trusted, whose = v.opts.PinnedKey, "the pinned key, seen when the trail was first opened here"
	case err != nil:
		return nil
	}
	if whose != "" {
		v.r.Anchor = AnchorPinned
	}
	v.lifecycle, v.vkeys = id.LifecycleVKey, []lifecycle.KeyFrom{{VKey: trusted}}
	if err == nil {
		// Of several keys each was signed for by the one before and the one after.
		if v.keys, err = trust.Chain(id.keys(), trusted); err == nil {
			v.vkeys = nil
			for _, k := range id.keys() {
				v.vkeys = append(v.vkeys, lifecycle.KeyFrom{VKey: k.VKey, From: k.From, Replaces: k.Replacement != ""})
				if k.Replacement != "" {
					v.r.Replaced = append(v.r.Replaced, Replaced{k.VKey, k.From})
				}
			}
			return nil
		}
		detail := "trail.json lists keys that have not signed for each other"
		var replaced *trust.ReplacedError
		switch {
		case errors.As(err, &replaced):
			detail = whose + " was lost, trail.json says, and from " + fmt.Sprint(replaced.From) + " entries on another key signs, which it has not signed for: the entries before stand by it, those behind by nothing that is known here; ask who restored the trail for its key, and give that (--key)"
			v.find(TrailJSON, "trail.json", BadSignature, detail)
			v.keys = replaced.Before
			return nil
		case errors.Is(err, trust.ErrUnknown):
			detail = "trail.json names another key than " + whose + ": the trail may have been made anew"
		}
		v.find(TrailJSON, "trail.json", BadSignature, detail)
	}
	v.keys, err = trust.One(trusted)
	return err
}

func problemOf(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Missing
	case errors.Is(err, errSignature):
		return BadSignature
	}
	return Unparsable
}

func explain(err error) string {
	if errors.Is(err, fs.ErrNotExist) {
		return "is missing"
	}
	return "can't be used: " + err.Error()
}

// readHeads reads every checkpoint there is. The latest is last of those with
// its size.
func (v *verification) readHeads() error {
	names, err := namesIn(filepath.Join(v.dir, "checkpoints"))
	if err != nil {
		return err
	}
	for _, name := range names {
		size, err := strconv.ParseInt(name, 10, 64)
		if err != nil || size < 0 || strconv.FormatInt(size, 10) != name {
			continue // none of the format's; a writer's temporary file
		}
		h, err := v.readHead("checkpoints/" + name)
		if err != nil {
			return err
		}
		if h != nil && h.size != size {
			v.find(Checkpoint, h.file, Changed, fmt.Sprintf("%s is a checkpoint of size %d", h.file, h.size))
		}
		if h != nil {
			v.heads = append(v.heads, *h)
		}
	}
	if v.latest, err = v.readHead("checkpoint"); err != nil {
		return err
	}
	if v.opts.Checkpoint != nil {
		if err := v.readGiven(); err != nil {
			return err
		}
	}
	if since := v.opts.Since; since.Size > 0 {
		v.heads = append(v.heads, head{size: since.Size, root: since.Root, from: "an earlier verification"})
	}
	v.readOutside()
	slices.SortStableFunc(v.heads, func(a, b head) int { return cmp.Compare(a.size, b.size) })
	if v.latest != nil {
		if n := len(v.heads); n > 0 && v.heads[n-1].size > v.latest.size {
			newer := v.heads[n-1]
			v.findings = append(v.findings, Finding{Artefact: Checkpoint, File: "checkpoint", Problem: Truncated,
				Detail: fmt.Sprintf("%s covers %d entries and checkpoint only %d: the trail was rolled back", newer.name(), newer.size, v.latest.size)}.
				at(v.latest.size, true))
		}
		i, _ := slices.BinarySearchFunc(v.heads, v.latest.size+1, func(h head, size int64) int { return cmp.Compare(h.size, size) })
		v.heads = slices.Insert(v.heads, i, *v.latest)
	}
	return nil
}

// readOutside reads what was vouched for outside. It is the trail's, or the trail is
// not the one that was seen there.
func (v *verification) readOutside() {
	for _, broken := range v.opts.Broken {
		v.find(AnchorFile, "", BadSignature, broken)
	}
	for _, o := range v.opts.Outside {
		h, err := parseCheckpoint(o.Checkpoint, v.keys)
		if err != nil {
			v.find(AnchorFile, "", problemOf(err), fmt.Sprintf("the checkpoint that %s %s has vouched for is not signed by the trail's key: the trail may have been made anew", cmp.Or(o.Kind, AnchorArchive), o.Name))
			continue
		}
		h.kind, h.from = o.Kind, cmp.Or(o.Kind, AnchorArchive)+" "+o.Name
		v.given = append(v.given, h)
		v.heads = append(v.heads, h)
		if o.Kind == "" {
			continue
		}
		if said := (Anchored{Kind: o.Kind, Name: o.Name, Size: h.size, Time: o.Time}); !slices.Contains(v.r.Anchors, said) {
			v.r.Anchors = append(v.r.Anchors, said) // it is kept in several places
		}
	}
}

// What is wrong with Options.Checkpoint when that says nothing of the trail.
var (
	// ErrNoCheckpoint: it is not a signed checkpoint.
	ErrNoCheckpoint = errors.New("what was given is not a signed checkpoint")
	// ErrOtherTrail: it is one of another trail.
	ErrOtherTrail = errors.New("the checkpoint that was given is another trail's")
)

// readGiven reads the checkpoints from outside.
func (v *verification) readGiven() error {
	var other string
	ours := false
	for _, signed := range CheckpointsIn(v.opts.Checkpoint) {
		origin, err := originOf(signed)
		if err != nil {
			return err
		}
		if origin != v.keys.Name() {
			other = origin
			continue
		}
		ours = true
		if err := v.readGivenOne(signed); err != nil {
			return err
		}
	}
	if !ours {
		return fmt.Errorf("%w: it is of %q, and this trail is %s", ErrOtherTrail, other, v.keys.Name())
	}
	return nil
}

// readGivenOne reads a checkpoint from outside. One of the trail's origin that
// another key signed is damage: the trail may have been made anew.
func (v *verification) readGivenOne(signed []byte) error {
	h, err := parseCheckpoint(signed, v.keys)
	var invalid *note.InvalidSignatureError
	switch {
	case errors.As(err, &invalid):
		return fmt.Errorf("%w: its signature is not of its text, which was changed", ErrNoCheckpoint)
	case errors.Is(err, errSignature):
		v.find(Checkpoint, "", BadSignature, "the checkpoint that was given is of this origin and signed by another key: the trail may have been made anew")
	case err != nil:
		return fmt.Errorf("%w: %w", ErrNoCheckpoint, err)
	default:
		h.kind = AnchorCheckpoint
		v.given = append(v.given, h)
		v.heads = append(v.heads, h)
	}
	return nil
}

// readHead is nil for a checkpoint that is no good.
func (v *verification) readHead(file string) (*head, error) {
	data, err := readSmall(filepath.Join(v.dir, filepath.FromSlash(file)), maxSmall)
	var h head
	if err == nil {
		h, err = parseCheckpoint(data, v.keys)
	}
	if refused(err) {
		return nil, err
	}
	if err == nil {
		h.file = file
		return &h, nil
	}
	detail := file + " " + explain(err)
	if _, creating := readSmall(filepath.Join(v.dir, "creating"), maxSmall); errors.Is(err, fs.ErrNotExist) && creating == nil {
		detail += ": the trail was never finished, or is being made"
	}
	if errors.Is(err, errSignature) && v.r.Anchor == AnchorPinned && bytes.HasPrefix(data, []byte(v.keys.Name()+"\n")) {
		detail += " that was given or pinned"
	}
	v.find(Checkpoint, file, problemOf(err), detail)
	return nil, nil
}

// say fills in what this verification can't prove.
func (v *verification) say() {
	r := v.r
	r.Unproven = append(r.Unproven, "that each event was reported, and reported truly: what was never recorded leaves no gap")
	switch r.Anchor {
	case AnchorNone:
		r.Unproven = append(r.Unproven, "that this is the trail that was first made here: key and checkpoint come from the trail itself, and whoever has its key can make all of it anew")
	case AnchorPinned:
		r.Unproven = append(r.Unproven, "that nobody with the signing key wrote the trail anew, or cut off its newest entries: give an older checkpoint from outside (--checkpoint)")
	case AnchorCheckpoint:
		r.Unproven = append(r.Unproven, "what came after the checkpoint that was given, against somebody with the signing key")
	case AnchorArchive:
		r.Unproven = append(r.Unproven, "what came after the archived checkpoint, against somebody with the signing key")
	case AnchorWitness:
		r.Unproven = append(r.Unproven, "what came after what the witness has seen, against somebody with the signing key")
	case AnchorTimestamp:
		r.Unproven = append(r.Unproven, "what came after the timestamp, against somebody with the signing key")
	}
	for _, k := range r.Replaced {
		r.Unproven = append(r.Unproven, fmt.Sprintf("that who signs from %d entries on is who signed before: that key was lost, and the present one was put in its place by who restored the trail; what lies before is under a signature of the lost one", k.From))
	}
	if r.Since > 0 {
		r.Unproven = append(r.Unproven, fmt.Sprintf("that the lines of the first %d entries are still as the verification before has found them: they were not read again", r.Since))
	}
	if r.Uncovered > 0 {
		r.Unproven = append(r.Unproven, fmt.Sprintf("the newest %d lines: no checkpoint covers them yet", r.Uncovered))
	}
}

// lawful are the ranges that the lines permit to be missing.
func (v *verification) lawful(w walked) []lifecycle.Range {
	if w.long {
		return nil // nobody can tell
	}
	missing := w.gaps
	if w.unread.Count > 0 {
		missing = append(slices.Clip(missing), w.unread)
	}
	return lifecycle.Replay(lifecycle.Config{
		Origin: v.keys.Name(), VKeys: v.vkeys, LifecycleVKey: v.lifecycle, Covered: v.heads[len(v.heads)-1].size, Missing: missing, Digest: v.digest,
	}, w.said).Lawful()
}

// judgeGaps tells lawful gaps from lines that are missing (docs/format-lifecycle.md
// §7.11), and puts both into the ranges.
func (v *verification) judgeGaps(w walked) (findings []Finding) {
	if len(w.gaps) == 0 {
		return nil
	}
	lawful := v.lawful(w)
	for _, g := range w.gaps {
		for at := g.First; at < g.End(); {
			r, state := lifecycle.Range{First: at, Count: g.End() - at}, stateMissing
			for _, l := range lawful {
				if !l.Meets(r) {
					continue
				}
				if l.First <= at {
					r.Count, state = min(r.End(), l.End())-at, statePruned
				} else {
					r.Count = l.First - at
				}
				break
			}
			v.r.Ranges = append(v.r.Ranges, Range{r.First, r.Count, state})
			if state == stateMissing {
				findings = append(findings, Finding{Artefact: Segment, Problem: Missing,
					Detail: fmt.Sprintf("from entry %d on: lines are missing, up to entry %d, and nothing in the trail permits it", r.First, r.End()-1)}.at(r.First, true))
			}
			at = r.End()
		}
	}
	slices.SortFunc(v.r.Ranges, func(a, b Range) int { return cmp.Compare(a.First, b.First) })
	return findings
}

// holds reports whether the lines give a head's root.
func (s *scanned) holds(h head) bool {
	root, ok := s.roots[h.size]
	return ok && root == h.root
}

// judge finds what is damaged, the lines first.
func (v *verification) judge(ctx context.Context, cpu slots, s scanned, list []segment) error {
	top := v.heads[len(v.heads)-1]
	if !s.holds(top) {
		found, err := v.judgeLines(ctx, cpu, s, list, top)
		if err != nil {
			return err
		}
		v.findings = slices.Insert(v.findings, 0, found...)
		return nil
	}
	// The lines are what was signed last. What was signed before must be a
	// prefix of it, and bundles and tiles must be theirs.
	at := int64(0)
	for _, g := range s.gaps {
		if g.First < v.r.Since {
			v.r.addRange(at, g.First-at, stateEarlier)
			at = g.End()
		}
	}
	v.r.addRange(at, v.r.Since-at, stateEarlier)
	for i, first := range s.starts {
		end := top.size
		if i+1 < len(s.starts) {
			end = min(end, s.starts[i+1])
		}
		for _, g := range s.gaps { // at the end of what is before the next
			if first < g.End() && g.First < end {
				end = g.First
			}
		}
		if first < end {
			v.r.Ranges = append(v.r.Ranges, Range{first, end - first, stateChecked})
		}
	}
	v.findings = slices.Insert(v.findings, 0, v.judgeGaps(s.walked)...)
	if s.stop != nil { // behind what is covered, or beside it
		v.findings = slices.Insert(v.findings, 0, stopped(s.stop))
	}
	good := int64(0)
	for _, h := range v.heads {
		if s.holds(h) {
			good = h.size
			continue
		}
		v.findings = append(v.findings, Finding{Artefact: Checkpoint, File: h.file, Problem: NotPrefix,
			Detail: fmt.Sprintf("%s, of size %d, is not a prefix of what %s covers: the history was exchanged", h.name(), h.size, top.name())}.
			at(good, false))
		v.r.Ranges = nil
		v.r.addRange(0, good, stateChecked)
		v.r.addRange(good, h.size-good, stateBad)
	}
	v.findings = append(v.findings, s.faults...)
	if v.opts.RequireAnchor && (v.r.Anchor == AnchorNone || v.r.Anchor == AnchorPinned) {
		v.find(Checkpoint, "", NoAnchor, "nothing from outside was given to hold the trail against (--require-anchor): its anchor is "+v.r.Anchor)
	}
	return nil
}
