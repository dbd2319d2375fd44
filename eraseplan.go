package audit

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/journal"
	"github.com/kaizen-audit/kaizen-audit/internal/keys"
	"github.com/kaizen-audit/kaizen-audit/internal/lifecycle"
	"github.com/kaizen-audit/kaizen-audit/internal/sealed"
)

// names are all names under which a trail may know a person.
type names struct {
	all   map[string]bool // as user_id or resource.id has them
	full  map[string]bool // as TYPE/ID
	files []string        // of the identity store
}

// namesOf finds the names of a user: the identifier, its pseudonym, its keyed hash.
func (t *Trail) namesOf(user string) (*names, error) {
	n := &names{all: map[string]bool{user: true}, full: map[string]bool{user: true}}
	key, err := t.tokenKey()
	if err != nil {
		return nil, err
	}
	add := func(id string, to func(name string)) error {
		p, ok, err := t.identities().Lookup(id)
		if err != nil {
			return err
		}
		if ok {
			to(p)
		}
		hash, err := (&tokens{key: key}).Token(id, false)
		if err != nil {
			return err
		}
		to(hash)
		file, err := t.identities().Name(id)
		if err == nil && file != "" {
			n.files = append(n.files, file)
		}
		return err
	}
	if err := add(user, func(name string) { n.all[name] = true }); err != nil {
		return nil, err
	}
	kind, id, ok := strings.Cut(user, "/")
	if !ok {
		return n, nil
	}
	return n, add(id, func(name string) { n.full[sealed.ResourceID(kind, name)] = true })
}

// is tells the subjects that are this person.
func (n *names) is(kind keys.Kind, id string) bool {
	switch kind {
	case keys.Person:
		hash, ok := strings.CutPrefix(id, "user_id_hash:")
		return n.all[id] || ok && n.all[hash]
	case keys.Resource:
		_, bare, _ := strings.Cut(id, "/")
		return n.full[id] || n.all[bare]
	}
	return false
}

// erasurePlan is what an erasure covers, as far as the lines were looked at.
type erasurePlan struct {
	who     *names
	targets map[string]keys.Known // whose keys go
	others  map[string]int64      // fields that are others' too, by handle
	fields  map[string]int64      // by handle of a target
	traces  map[string]bool       // of the person's entries
	byTrace map[string]int64      // fields of traces, by handle
	duties  map[string]*Blocked
	holds   []heldEntries
	held    []int64 // how many entries each of the holds keeps
	next    int64   // lines before it were looked at
	out     Erasure
}

// planErasure looks at all lines for what is a person's. later says that it was asked
// for some time ago: entries of the traces may have been pruned since.
func (t *Trail) planErasure(ctx context.Context, who *names, traces []string, later bool) (*erasurePlan, error) {
	store := t.enc.Load().store
	found, err := store.Find(who.is)
	unreadable, err := unreadableKeys(err)
	if err != nil {
		return nil, err
	}
	p := newErasurePlan(who, found)
	p.out.Unreadable = unreadable
	if err := p.look(ctx, t); err != nil {
		return nil, err
	}
	if len(p.traces) == 0 {
		return p, nil
	}
	// Text with no declared subject is its trace's. Whose entries lie in it is known
	// only now.
	ofTraces, err := store.Find(func(kind keys.Kind, id string) bool { return kind == keys.Trace && p.traces[id] })
	if _, err := unreadableKeys(err); err != nil {
		return nil, err
	}
	asked := func(id string) bool { return slices.Contains(traces, "*") || slices.Contains(traces, id) }
	for _, id := range traces {
		if id != "*" && !p.traces[id] && !later {
			return nil, fmt.Errorf("trace %w: none of the person's entries is of it", ErrNotFound)
		}
	}
	again := newErasurePlan(who, found)
	again.out.Unreadable = unreadable
	for _, tr := range ofTraces {
		if asked(tr.ID) {
			again.targets[tr.Handle] = tr
		} else {
			again.byTrace[tr.Handle] = 0
		}
	}
	if err := again.look(ctx, t); err != nil {
		return nil, err
	}
	for _, tr := range ofTraces {
		fields, erased := again.fields[tr.Handle], asked(tr.ID)
		again.out.Traces = append(again.out.Traces, ErasedTrace{tr.ID, cmp.Or(fields, again.byTrace[tr.Handle]), erased})
	}
	return again, nil
}

// unreadableKeys takes the handles out of an error that says that their records can't
// be read: what is known of the others goes on.
func unreadableKeys(err error) ([]string, error) {
	if broken, ok := errors.AsType[*keys.Unreadable](err); ok {
		return broken.Handles, nil
	}
	return nil, explainKey(err)
}

func newErasurePlan(who *names, targets []keys.Known) *erasurePlan {
	p := &erasurePlan{
		who: who, targets: map[string]keys.Known{}, others: map[string]int64{}, fields: map[string]int64{},
		traces: map[string]bool{}, byTrace: map[string]int64{}, duties: map[string]*Blocked{},
		out: Erasure{Ranges: []Range{}, Traces: []ErasedTrace{}, Kept: KeptEntries{Ranges: []Range{}}},
	}
	for _, k := range targets {
		p.targets[k.Handle] = k
	}
	return p
}

// target adds a subject whose key goes.
func (p *erasurePlan) target(handle string, store *keys.Store) {
	if _, known := p.targets[handle]; !known {
		p.targets[handle], _ = store.Who(handle)
	}
}

// look looks at the lines that were not looked at yet.
func (p *erasurePlan) look(ctx context.Context, t *Trail) error {
	view, err := t.lines()
	if err != nil {
		return err
	}
	defer view.Close()
	opener := t.enc.Load().opener
	from := p.next
	if p.holds == nil {
		if p.holds, err = t.holdsInForce(ctx); err != nil {
			return err
		}
		p.held = make([]int64, len(p.holds))
	}
	parts := slices.DeleteFunc(view.Parts(), func(part journal.Part) bool { return part.Count >= 0 && part.First+part.Count <= from })
	var done, total int64
	for _, part := range parts {
		total += view.Bytes(part)
	}
	for _, part := range parts {
		_, err := view.Part(ctx, part, func(index int64, stored []byte) error {
			before := done / lookBytes
			if done += int64(len(stored)) + 1; t.opts.Progress != nil && done/lookBytes != before {
				t.opts.Progress(done, max(done, total))
			}
			if index < from {
				return nil
			}
			p.next = index + 1
			// A line that does not open has nothing that a key of a subject opens.
			if line, err := opener.Whole(stored); err == nil && p.concerns(line) {
				p.see(t, index, line, opener.Fields(line))
			}
			return nil
		})
		if err != nil {
			return explainSegment(err)
		}
	}
	store := t.enc.Load().store
	p.out.Subjects, p.out.Others, p.out.Blocked = []ErasedSubject{}, []ErasedSubject{}, []Blocked{}
	for _, h := range slices.Sorted(maps.Keys(p.targets)) {
		k := p.targets[h]
		p.out.Subjects = append(p.out.Subjects, ErasedSubject{h, string(k.Kind), k.ID, p.fields[h]})
	}
	for _, h := range slices.Sorted(maps.Keys(p.others)) {
		k, _ := store.Who(h) // it may be erased already
		p.out.Others = append(p.out.Others, ErasedSubject{h, string(k.Kind), k.ID, p.others[h]})
	}
	for i, h := range p.holds {
		if p.held[i] > 0 || h.names(slices.Collect(maps.Keys(p.targets))) || h.user != "" && (p.who.all[h.user] || p.who.full[h.user]) {
			p.out.Blocked = append(p.out.Blocked, Blocked{Kind: "hold", Name: h.ID, Entries: p.held[i]})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.duties)) {
		p.out.Blocked = append(p.out.Blocked, *p.duties[name])
	}
	p.out.Ranges, p.out.Kept.Ranges = fewer(p.out.Ranges), fewer(p.out.Kept.Ranges)
	return nil
}

// lookBytes is how many bytes of lines lie between two calls of Options.Progress.
const lookBytes = 4 << 20

// concerns is a first look at a line: whether it may have a field under one of the
// keys, or a user in clear.
func (p *erasurePlan) concerns(line []byte) bool {
	const user = `"user_id":"`
	if at := bytes.Index(line, []byte(user)); at >= 0 && !bytes.HasPrefix(line[at+len(user):], []byte("sealed:")) {
		return true
	}
	return sealed.MayNeed(line, func(handle string) bool {
		_, target := p.targets[handle]
		_, ofTrace := p.byTrace[handle]
		return target || ofTrace
	})
}

// see takes one line in.
func (p *erasurePlan) see(t *Trail, index int64, line []byte, fields []sealed.Field) {
	o := entry.Raw(line)
	own := o.Text("agent_id") == entry.TrailAgent
	var metadata Object
	if v, ok := o.Get("metadata"); ok {
		metadata, _ = v.Object()
	}
	if !own && p.who.all[metadata.Text("user_id")] && !slices.ContainsFunc(fields, func(f sealed.Field) bool { return f.Pointer == "/metadata/user_id" }) {
		p.out.Kept.Entries++
		p.out.Kept.Ranges = extend(p.out.Kept.Ranges, index)
	}
	hit := false
	var touched []string // subjects of fields that go
	for _, f := range fields {
		mine := false
		for _, h := range f.Handles {
			if _, ok := p.targets[h]; ok {
				p.fields[h]++
				mine = true
			}
			if _, ok := p.byTrace[h]; ok {
				p.byTrace[h]++
			}
		}
		if !mine {
			continue
		}
		p.out.Fields++
		hit, touched = true, append(touched, f.Handles...)
		for _, h := range f.Handles {
			if _, ok := p.targets[h]; !ok {
				p.others[h]++
			}
		}
	}
	if !hit {
		return
	}
	p.out.Entries++
	p.out.Ranges = extend(p.out.Ranges, index)
	if own {
		return
	}
	for i := range p.holds {
		if h := &p.holds[i]; h.names(touched) || h.covers(index, o) {
			p.held[i]++
		}
	}
	p.traces[o.Text("trace_id")] = true
	recorded, _, err := entry.ParseTime(o.Text("recorded_at"))
	for _, d := range t.policy().Duties(o.Text("event_type"), o.Text("agent_id"), o.Text("action"), metadata) {
		if until := recorded.AddDate(0, 0, d.Days); err != nil || until.After(t.clock.now()) {
			p.owe(d.Basis, until)
		}
	}
}

// owe notes that an entry is under a declared duty until then.
func (p *erasurePlan) owe(basis string, until time.Time) {
	b := p.duties[basis]
	if b == nil {
		b = &Blocked{Kind: "duty", Name: basis, Until: &until}
		p.duties[basis] = b
	}
	b.Entries++
	if until.After(*b.Until) {
		b.Until = &until
	}
}

// knows tells whether the plan has looked at all of the holds.
func (p *erasurePlan) knows(holds []lifecycle.HeldBy) bool {
	return !slices.ContainsFunc(holds, func(h lifecycle.HeldBy) bool {
		return !slices.ContainsFunc(p.holds, func(k heldEntries) bool { return k.ID == h.ID })
	})
}

// refusal is the error that says what stands against the erasure.
func (p *erasurePlan) refusal() error {
	var why []string
	for _, b := range p.out.Blocked {
		entries := "entries"
		if b.Entries == 1 {
			entries = "entry"
		}
		text := fmt.Sprintf("%s %s, %d %s", b.Kind, b.Name, b.Entries, entries)
		if b.Until != nil {
			text += " until " + formatTime(*b.Until)
		}
		why = append(why, text)
	}
	return fmt.Errorf("%w: %s", ErrHeld, strings.Join(why, "; "))
}

// extend adds an index, greater than all before, to ascending ranges.
func extend(ranges []Range, index int64) []Range {
	if n := len(ranges); n > 0 && ranges[n-1].First+ranges[n-1].Count == index {
		ranges[n-1].Count++
		return ranges
	}
	return append(ranges, Range{index, 1})
}

// maxRanges bounds the ranges of an entry (docs/format-lifecycle.md §7.9).
const maxRanges = 1000

// fewer fills the smallest distances where there are too many ranges.
func fewer(ranges []Range) []Range {
	if len(ranges) <= maxRanges {
		return ranges
	}
	distances := make([]int64, 0, len(ranges)-1)
	for i := 1; i < len(ranges); i++ {
		distances = append(distances, ranges[i].First-ranges[i-1].First-ranges[i-1].Count)
	}
	sorted := slices.Sorted(slices.Values(distances))
	fill := len(ranges) - maxRanges // so many go
	limit := sorted[fill-1]
	below, _ := slices.BinarySearch(sorted, limit)
	equal := fill - below // of those at the limit, the first ones
	out := ranges[:1:1]
	for i, d := range distances {
		last := &out[len(out)-1]
		if d < limit || d == limit && equal > 0 {
			if d == limit {
				equal--
			}
			last.Count = ranges[i+1].First + ranges[i+1].Count - last.First
			continue
		}
		out = append(out, ranges[i+1])
	}
	return out
}
