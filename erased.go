package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"sync"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/lifecycle"
)

// said is what the trail's lifecycle entries say, as far as somebody had to know.
// Lines never change: only what came since is read again.
type said struct {
	mu    sync.Mutex
	stale bool  // somebody looks anew
	next  int64 // lines before it were looked at
	lines []lifecycle.Line
	state *lifecycle.State

	erased map[string]bool // handles
}

// says gives what the lifecycle entries say that a checkpoint of that size covers.
func (t *Trail) says(ctx context.Context, covered int64) (*lifecycle.State, error) {
	t.said.mu.Lock()
	defer t.said.mu.Unlock()
	return t.said.state, t.readSaid(ctx, covered)
}

// readSaid reads the lines up to size that were not read yet; mu is held.
func (t *Trail) readSaid(ctx context.Context, size int64) error {
	s := &t.said
	if s.state != nil && size <= s.next {
		return nil
	}
	view, err := t.lines()
	if err != nil {
		return err
	}
	defer view.Close()
	next, before := s.next, len(s.lines)
	for _, part := range view.Parts() {
		if part.Count >= 0 && part.First+part.Count <= s.next || part.First >= size {
			continue
		}
		if own, ok := t.ownOf(part.Segment); ok && part.First >= s.next && part.First+part.Count <= size {
			s.lines, next = append(s.lines, own...), part.First+part.Count
			continue
		}
		_, err := view.Part(ctx, part, func(index int64, line []byte) error {
			if index < s.next || index >= size {
				return nil
			}
			if next = index + 1; lifecycle.Is(line) {
				s.lines = append(s.lines, lifecycle.Line{Index: index, Text: bytes.Clone(line)})
			}
			return nil
		})
		if err != nil {
			s.lines = s.lines[:before]
			return err
		}
	}
	s.next = next
	if s.state != nil && len(s.lines) == before {
		return nil
	}
	id := t.ids()
	c := t.lifeConfig(next)
	c.Restated = true
	if len(s.lines) > 0 { // the first may be older than the present key
		c.LifecycleVKey = id.lifecycleAt(s.lines[0].Index)
	}
	s.state, s.erased = lifecycle.Replay(c, s.lines), map[string]bool{}
	for _, e := range s.state.Erasures {
		for _, h := range e.Handles {
			s.erased[h] = true
		}
	}
	for _, e := range s.state.ErasedBefore {
		s.erased[e.Handle] = true
	}
	return nil
}

// line is the lifecycle entry at an index, nil where it was not read; mu is held.
func (s *said) line(index int64) []byte {
	i := slices.IndexFunc(s.lines, func(l lifecycle.Line) bool { return l.Index == index })
	if i < 0 {
		return nil
	}
	return s.lines[i].Text
}

// isErased tells whether a valid entry says that the subject of a handle is erased.
// Where the lines can't be read nobody says so.
func (t *Trail) isErased(handle string) bool {
	t.said.mu.Lock()
	defer t.said.mu.Unlock()
	if !t.said.erased[handle] && (t.said.state == nil || t.said.stale) {
		if covered, err := t.covered(); err == nil {
			t.said.stale = t.readSaid(context.Background(), covered) != nil
		}
	}
	return t.said.erased[handle]
}

// lookAnew has the next isErased see what was recorded meanwhile, and lets a reader
// have no key that its writer has destroyed.
func (t *Trail) lookAnew() {
	t.said.mu.Lock()
	t.said.stale = true
	t.said.mu.Unlock()
	if enc := t.enc.Load(); enc != nil && enc.store != nil && !t.holds() {
		if err := enc.store.Refresh(context.Background()); err != nil {
			t.warn(err)
		}
	}
}

// erasureOf gives the index of the valid AUDIT_ERASURE with an event id, as far as a
// checkpoint of that size covers it.
func (t *Trail) erasureOf(ctx context.Context, eventID string, covered int64) (index int64, found bool, err error) {
	state, err := t.says(ctx, covered)
	if err != nil {
		return 0, false, err
	}
	t.said.mu.Lock()
	defer t.said.mu.Unlock()
	for _, by := range state.Erasures {
		if e, err := entry.Parse(t.said.line(by.Index)); err == nil && e.EventID == eventID {
			return by.Index, true, nil
		}
	}
	return 0, false, nil
}

// erasedHandles are the handles that the trail's entries say are erased, as far as a
// checkpoint of that size covers them.
func (t *Trail) erasedHandles(ctx context.Context, covered int64) ([]string, error) {
	state, err := t.says(ctx, covered)
	if err != nil {
		return nil, err
	}
	var handles []string
	for _, by := range state.Erasures {
		handles = append(handles, by.Handles...)
	}
	for _, by := range state.ErasedBefore {
		handles = append(handles, by.Handle)
	}
	return handles, nil
}

// heldEntries is a legal hold as far as it can be read here.
type heldEntries struct {
	lifecycle.HeldBy
	// read tells whether its filter could be read; else it covers all that it may.
	read               bool
	agent, trace, user string
}

// holdsInForce are the legal holds that are not lifted.
func (t *Trail) holdsInForce(ctx context.Context) ([]heldEntries, error) {
	state, err := t.says(ctx, t.signer.latest.Load().Size)
	if err != nil {
		return nil, err
	}
	t.said.mu.Lock()
	defer t.said.mu.Unlock()
	var out []heldEntries
	for _, by := range state.Holds {
		h := heldEntries{HeldBy: by}
		if line := t.said.line(by.Index); line != nil {
			h.readFilter(t, line)
		}
		out = append(out, h)
	}
	return out, nil
}

// readFilter reads what the hold of a line covers. It is sealed where the trail seals.
// mu is held: the trail's own trace, under which it is, is never erased.
func (h *heldEntries) readFilter(t *Trail, line []byte) {
	view, err := t.enc.Load().ownOpener.Open(line)
	if err != nil || len(view.Hidden) > 0 {
		return
	}
	e, err := entry.Parse(view.Line)
	if err != nil {
		return
	}
	v, _ := e.Outputs.Get("filter")
	var filter map[string]string
	if json.Unmarshal(v.JSON(), &filter) != nil {
		return
	}
	h.agent, h.trace, h.user = filter["agent_id"], filter["trace_id"], filter["user_id"]
	delete(filter, "agent_id")
	delete(filter, "trace_id")
	delete(filter, "user_id")
	h.read = len(filter) == 0 // what it has besides is not known here
}

// names tells whether a hold names one of the subjects.
func (h *heldEntries) names(handles []string) bool {
	return slices.ContainsFunc(handles, func(s string) bool { return slices.Contains(h.Handles, s) })
}

// covers tells whether a hold covers the entry at index, whose line is o.
func (h *heldEntries) covers(index int64, o Object) bool {
	there := h.Open && index > h.Index || slices.ContainsFunc(h.Ranges, func(r lifecycle.Range) bool { return r.First <= index && index < r.End() })
	if !there || !h.read {
		return there
	}
	if h.user != "" || h.agent != "" && h.agent != o.Text("agent_id") || h.trace != "" && h.trace != o.Text("trace_id") {
		return false // whose user is held is told by name and handle
	}
	at := o.Text("timestamp") // times are spelled alike, and so in order
	return (h.Since == "" || at >= h.Since) && (h.Until == "" || at <= h.Until)
}
