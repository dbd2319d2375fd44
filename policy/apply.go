package policy

import (
	"errors"
	"slices"
	"sync"

	"github.com/kaizen-audit/kaizen-audit/entry"
)

// Tokens makes what stands for a value under a key of the trail.
type Tokens interface {
	// Token gives the keyed hash of a value; with remember the identity store
	// keeps what it stands for.
	Token(value string, remember bool) (string, error)
	// IsToken tells whether text was made by Token, so that it is not hashed
	// again.
	IsToken(text string) bool
}

// Run is how a policy is applied.
type Run struct {
	// Tokens is for Hash and Pseudonymise; where it is nil, or fails, they mask.
	Tokens Tokens
	// KeepFact is for automatic capture, which must not lose that something
	// happened: what Refuse is about is replaced then, and the event goes on.
	KeepFact bool
	// Sealing says that the trail seals by itself what the profiles that seal say:
	// their rules of that kind are passed over, since they would only say again what
	// happens anyway. One's own rules are noted, and the trail does what they say.
	Sealing bool
}

// RefusedError says that a rule refuses an event. It holds no value and no name
// out of the event.
type RefusedError struct {
	// Member is the event's member that it is about.
	Member string
	Rule   string
}

func (e *RefusedError) Error() string { return e.Member + ": refused by policy rule " + e.Rule }

// AppendLine is entry.AppendLine of what the policy leaves of the event, which
// itself stays as it is. Where it changes nothing it allocates nothing. Further
// errors: a *RefusedError.
func (p *Policy) AppendLine(dst []byte, ev *entry.Event, st *entry.Stamp, run Run) ([]byte, error) {
	begin := len(dst)
	w := walkers.Get().(*walker)
	defer w.release()
	seen, err := w.begin(p, ev, run)
	if err != nil {
		return dst, err
	}
	out, err := entry.AppendLine(dst, seen, st)
	if err != nil {
		return dst, err
	}
	if err := w.run(out[begin:]); err != nil {
		return dst[:begin], err
	}
	if out = w.finish(out, begin); len(w.edits) > 0 || len(w.notes) > 0 {
		limit := st.MaxLine
		if limit == 0 {
			limit = entry.DefaultMaxLine
		}
		if n := len(out) - begin; n > limit {
			return dst[:begin], &entry.LineTooLongError{Bytes: n, Max: limit}
		}
	}
	return out, nil
}

// AppendEvent is entry.AppendEvent of what the policy leaves of an event, for what
// waits in a file before it is recorded. notes are members of the entry's policy,
// nil where there are none: entry.Event.NotePolicy takes them when it is read again.
func (p *Policy) AppendEvent(dst []byte, ev *entry.Event, run Run) (out, notes []byte, err error) {
	begin := len(dst)
	w := walkers.Get().(*walker)
	defer w.release()
	seen, err := w.begin(p, ev, run)
	if err != nil {
		return dst, nil, err
	}
	if out, err = entry.AppendEvent(dst, seen); err != nil {
		return dst, nil, err
	}
	if err := w.run(out[begin:]); err != nil {
		return dst[:begin], nil, err
	}
	if len(w.edits) > 0 {
		text := slices.Clone(out[begin:])
		out = w.edit(out[:begin], text, 0)
	}
	return out, w.appendNotes(nil), nil
}

// Event gives what the policy leaves of an event. Its notes go with it
// (entry.Event.PolicyNotes).
func (p *Policy) Event(ev *entry.Event, run Run) (entry.Event, error) {
	text, notes, err := p.AppendEvent(nil, ev, run)
	if err != nil {
		return entry.Event{}, err
	}
	out, err := entry.ParseEvent(text)
	out.NoteOmitted(ev.Omitted()...)
	out.NotePolicy(notes)
	return out, err
}

// Value is what the detectors leave of a value, as JSON text, for what is no
// event's.
func (p *Policy) Value(v any) ([]byte, error) {
	text, err := entry.Of(v).AppendJSON(nil)
	if err != nil {
		return nil, err
	}
	w := walkers.Get().(*walker)
	defer w.release()
	w.p, w.run_, w.src, w.pos = p, Run{KeepFact: true}, text, 0
	w.frames = append(w.frames[:0], frame{name: []byte("inputs"), kept: true})
	if w.value() == bad {
		return nil, errText
	}
	return w.edit(nil, text, 0), nil
}

// Key is what the policy leaves of an idempotency key. It is the event's key from
// then on.
func (p *Policy) Key(key string) string {
	if key == "" {
		return key
	}
	w := walkers.Get().(*walker)
	defer w.release()
	w.p, w.run_ = p, Run{KeepFact: true}
	w.matches = p.set.Text(w.matches[:0], append(w.decoded[:0], key...))
	if len(w.matches) == 0 {
		return key
	}
	if out, changed, _ := w.replace(nil, []byte(key), false); changed {
		return string(out)
	}
	return key
}

// Text is what the detectors leave of a text, for what is no event's.
func (p *Policy) Text(text string) string { return p.Key(text) }

// errText can't happen: what entry writes is JSON.
var errText = errors.New("policy: the event is no JSON text")

var walkers = sync.Pool{New: func() any { return new(walker) }}

// begin looks at the event as a whole: what it becomes, and which rules are for
// it.
func (w *walker) begin(p *Policy, ev *entry.Event, run Run) (*entry.Event, error) {
	w.p, w.run_ = p, run
	w.addNotes(ev.PolicyNotes())
	seen, err := w.access(ev)
	if err != nil {
		return nil, err
	}
	if key := p.Key(ev.IdempotencyKey); key != ev.IdempotencyKey {
		w.event = *seen
		w.event.IdempotencyKey = key
		seen = &w.event
		w.note(masked, "/idempotency_key", "detectors")
	}
	if len(p.fields) == 0 && len(p.only) == 0 {
		return seen, nil
	}
	is := what{ev: seen}
	for i := range p.fields {
		if run.Sealing && p.fields[i].action == Seal && i >= len(p.config.Fields) {
			continue
		}
		if p.fields[i].when.matches(&is) {
			w.fields = append(w.fields, &p.fields[i])
		}
	}
	for i := range p.only {
		if p.only[i].when.matches(&is) {
			w.only = append(w.only, p.only[i].paths...)
		}
	}
	return seen, nil
}

func (w *walker) release() {
	w.p, w.run_, w.src, w.event = nil, Run{}, nil, entry.Event{}
	w.fields, w.only = w.fields[:0], w.only[:0]
	clear(w.edits)
	clear(w.notes)
	clear(w.frames)
	w.edits, w.notes, w.frames, w.decoded, w.level, w.prior, w.err = w.edits[:0], w.notes[:0], w.frames[:0], w.decoded[:0], 0, 0, nil
	if cap(w.decoded) <= 1<<20 { // a giant is left to the collector
		walkers.Put(w)
	}
}

// finish replaces the text from begin on by what the policy leaves of it.
func (w *walker) finish(out []byte, begin int) []byte {
	if len(w.edits) == 0 && len(w.notes) == 0 {
		return out
	}
	text := slices.Clone(out[begin:])
	out = w.edit(out[:begin], text, 0)
	if len(w.notes) == 0 {
		return out
	}
	// The member policy is the last one, and so are what ends it and the line.
	out = out[:len(out)-1]
	if w.hasPolicy {
		out = append(out[:len(out)-1], ',')
	} else {
		out = append(out, `,"policy":{`...)
	}
	notes := w.appendNotes(nil)
	return append(append(out, notes[1:]...), '}')
}

// edit appends the text with the edits from the first one on.
func (w *walker) edit(dst, text []byte, first int) []byte {
	at := 0
	for _, e := range w.edits[first:] {
		dst = append(append(dst, text[at:e.start]...), e.text...)
		at = e.end
	}
	return append(dst, text[at:]...)
}
