package policy

import (
	"errors"
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
	out, places, err := entry.AppendLinePlaces(dst, w.places[:0], seen, st)
	if err != nil {
		return dst, err
	}
	if err := w.run(out[begin:], places); err != nil {
		return dst[:begin], err
	}
	if len(w.edits) == 0 && len(w.notes) == 0 {
		return out, nil
	}
	out = w.finish(out, begin)
	limit := st.MaxLine
	if limit == 0 {
		limit = entry.DefaultMaxLine
	}
	if n := len(out) - begin; n > limit {
		return dst[:begin], &entry.LineTooLongError{Bytes: n, Max: limit}
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
	out, places, err := entry.AppendEventPlaces(dst, w.places[:0], seen)
	if err != nil {
		return dst, nil, err
	}
	if err := w.run(out[begin:], places); err != nil {
		return dst[:begin], nil, err
	}
	if len(w.notes) > 0 {
		notes = w.appendNotes(make([]byte, 0, 256)) // a note or two
	}
	return w.edited(out, begin), notes, nil
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
	if w.plain = len(p.fields) == 0 && len(p.only) == 0; w.plain {
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
	w.plain = len(w.fields) == 0 && len(w.only) == 0
	return seen, nil
}

func (w *walker) release() {
	w.p, w.run_, w.src = nil, Run{}, nil
	if w.event.EventType != "" {
		w.event = entry.Event{}
	}
	w.fields, w.only = w.fields[:0], w.only[:0]
	clear(w.edits)
	clear(w.notes)
	clear(w.frames)
	w.edits, w.notes, w.frames, w.pointers, w.decoded, w.level, w.prior, w.err = w.edits[:0], w.notes[:0], w.frames[:0], w.pointers[:0], w.decoded[:0], 0, 0, nil
	if cap(w.decoded) <= maxKept && cap(w.was) <= maxKept { // a giant is left to the collector
		walkers.Put(w)
	}
}

// maxKept is the largest buffer that is kept.
const maxKept = 1 << 20

// finish replaces the text from begin on by what the policy leaves of it.
func (w *walker) finish(out []byte, begin int) []byte {
	out = w.edited(out, begin)
	if len(w.notes) == 0 {
		return out
	}
	// The member policy is the last one, and so are what ends it and the line.
	out = out[:len(out)-1]
	if !w.hasPolicy {
		return append(w.appendNotes(append(out, `,"policy":`...)), '}')
	}
	at := len(out) - 1 // the notes' brace becomes the comma
	out = w.appendNotes(out[:at])
	out[at] = ','
	return append(out, '}')
}

// edited makes the edits in the text from begin on.
func (w *walker) edited(out []byte, begin int) []byte {
	if len(w.edits) == 0 {
		return out
	}
	w.was = append(w.was[:0], out[begin:]...)
	return w.edit(out[:begin], w.was, 0)
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
