package audit

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"sync"

	"golang.org/x/mod/sumdb/note"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/lifecycle"
)

// erasures are the subjects that the trail's own entries say are erased
// (docs/format-lifecycle.md §7.9). They are read from the lines when somebody asks of
// a handle that has no key, and then only what came since.
type erasures struct {
	mu      sync.Mutex
	stale   bool  // somebody looks anew
	next    int64 // lines before it were looked at
	adopted lifecycle.Adopted
	all     []erasedBy
	handles map[string]bool
}

// erasedBy is one valid AUDIT_ERASURE.
type erasedBy struct {
	index   int64
	eventID string
	handles []string
}

// isErased tells whether a valid entry says that the subject of a handle is erased.
// Where the lines can't be read nobody says so.
func (t *Trail) isErased(handle string) bool {
	t.erasures.mu.Lock()
	defer t.erasures.mu.Unlock()
	if t.erasures.handles[handle] {
		return true
	}
	if t.erasures.handles == nil || t.erasures.stale {
		if covered, err := t.covered(); err == nil {
			err = t.lookForErasures(context.Background(), covered)
			t.erasures.stale = err != nil
		}
	}
	return t.erasures.handles[handle]
}

// lookAnew has the next isErased see what was recorded meanwhile, and lets a reader
// have no key that its writer has destroyed.
func (t *Trail) lookAnew() {
	t.erasures.mu.Lock()
	t.erasures.stale = true
	t.erasures.mu.Unlock()
	if enc := t.enc.Load(); enc != nil && enc.store != nil && !t.holds() {
		if err := enc.store.Refresh(context.Background()); err != nil {
			t.warn(err)
		}
	}
}

// erasureOf gives the index of the valid AUDIT_ERASURE with an event id, as far as a
// checkpoint of that size covers it.
func (t *Trail) erasureOf(ctx context.Context, eventID string, covered int64) (index int64, found bool, err error) {
	t.erasures.mu.Lock()
	defer t.erasures.mu.Unlock()
	if err := t.lookForErasures(ctx, covered); err != nil {
		return 0, false, err
	}
	i := slices.IndexFunc(t.erasures.all, func(e erasedBy) bool { return e.eventID == eventID })
	if i < 0 {
		return 0, false, nil
	}
	return t.erasures.all[i].index, true, nil
}

// erasedHandles are the handles that the trail's entries say are erased, as far as a
// checkpoint of that size covers them.
func (t *Trail) erasedHandles(ctx context.Context, covered int64) ([]string, error) {
	t.erasures.mu.Lock()
	defer t.erasures.mu.Unlock()
	err := t.lookForErasures(ctx, covered)
	return slices.Sorted(maps.Keys(t.erasures.handles)), err
}

// lookForErasures reads the lines up to size that were not read yet; mu is held.
func (t *Trail) lookForErasures(ctx context.Context, size int64) error {
	e := &t.erasures
	if e.handles == nil {
		e.handles = map[string]bool{}
	}
	if size <= e.next {
		return nil
	}
	view, err := t.lines()
	if err != nil {
		return err
	}
	defer view.Close()
	next := e.next
	for _, part := range view.Parts() {
		if part.Count >= 0 && part.First+part.Count <= e.next || part.First >= size {
			continue
		}
		_, err := view.Part(ctx, part, func(index int64, line []byte) error {
			if index >= e.next && index < size {
				t.seeErasure(index, line)
				next = index + 1
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	e.next = next
	clear(e.handles)
	for _, by := range e.all {
		for _, h := range by.handles {
			e.handles[h] = true
		}
	}
	return nil
}

// seeErasure takes what a line says of erasures, if it is the trail's own word: none
// that an opening adopted is.
func (t *Trail) seeErasure(index int64, line []byte) {
	e := &t.erasures
	e.adopted.See(index, line)
	if e.adopted.Has(index) || !isOwn(line, "AUDIT_ERASURE") && !isOwn(line, "AUDIT_RECOVERY") {
		return
	}
	own, err := entry.Parse(line)
	if err != nil || !own.IsTrails() || own.TraceID != t.id.Origin {
		return
	}
	text, err := own.Outputs.AppendJSON(nil)
	if err != nil {
		return
	}
	switch own.EventType {
	case "AUDIT_ERASURE":
		var out struct{ Handles []string }
		known := slices.ContainsFunc(e.all, func(by erasedBy) bool { return by.eventID == own.EventID })
		if !known && signedBy(line, t.id.LifecycleVKey) && json.Unmarshal(text, &out) == nil {
			e.all = append(e.all, erasedBy{index, own.EventID, out.Handles})
		}
	case "AUDIT_RECOVERY":
		var out struct{ Adopted []adoptedRange }
		if !t.signedByWriter(line, index) || json.Unmarshal(text, &out) != nil {
			return
		}
		e.all = slices.DeleteFunc(e.all, func(by erasedBy) bool {
			return slices.ContainsFunc(out.Adopted, func(r adoptedRange) bool { return by.index >= r.First && by.index-r.First < r.Count })
		})
	}
}

// signedByWriter tells whether the line at index carries the signature of the key
// that was the writer's then.
func (t *Trail) signedByWriter(line []byte, index int64) bool {
	vkey := ""
	for _, k := range t.id.VKeys {
		if k.From <= index+1 {
			vkey = k.VKey
		}
	}
	return signedBy(line, vkey)
}

// signedBy tells whether a lifecycle entry carries a key's signature: over its line
// with metadata.signature empty (docs/format-lifecycle.md §7.1).
func signedBy(line []byte, vkey string) bool {
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return false
	}
	e, err := entry.Parse(line)
	if err != nil {
		return false
	}
	text := e.Metadata.Text("signature")
	sig, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(sig) == 0 {
		return false
	}
	at := bytes.LastIndex(line, []byte(`"signature":"`+text+`"`))
	if at < 0 {
		return false
	}
	at += len(`"signature":"`)
	signed := append(bytes.Clone(line[:at]), line[at+len(text):]...)
	return v.Verify(signed, sig)
}
