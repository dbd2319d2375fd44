package sealed

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/keys"
	"github.com/kaizen-audit/kaizen-audit/internal/seal"
)

// Rules say what of a line is sealed: of its fields always those that §6.3 says, and
// those that the line's own policy.sealed asks for.
type Rules struct {
	// Lines seals whole lines too, all but lifecycle entries.
	Lines bool
	// Clear, if any, says what of a line the operator keeps in clear all the same.
	Clear func(eventType, agent, action string, metadata entry.Object) Clear
}

// Clear tells whether the value at a JSON pointer is kept in clear, or something
// below it.
type Clear interface {
	At(pointer string) (kept, below bool)
}

// When a DEK is replaced at the latest: by time well within what an operator
// rotates keys by, and by count far below the 2^32 of §6.5.
const (
	dekAge   = 24 * time.Hour
	dekLines = 1 << 28
)

// Sealer makes stored lines.
type Sealer struct {
	origin string
	rules  Rules
	store  *keys.Store
	now    func() time.Time
	added  func(was, id, reason string) // a DEK came; nil: nobody wants to know

	mu    sync.Mutex
	dekID string
	dek   []byte
	since time.Time
	lines int64
}

// NewSealer seals for the trail of an origin. added, if any, is told of each new
// DEK, from within the Seal that needed it.
func NewSealer(origin string, rules Rules, store *keys.Store, now func() time.Time, added func(was, id, reason string)) (*Sealer, error) {
	s := &Sealer{origin: origin, rules: rules, store: store, now: now, added: added}
	if !rules.Lines {
		return s, nil
	}
	var err error
	s.dekID, s.dek, s.since, err = store.DEK(context.Background())
	return s, err
}

// Sync returns once all keys that Seal has used are durable. A line must not be
// written before.
func (s *Sealer) Sync() error { return s.store.Sync() }

// maxMembers is how many members of an entry or its metadata fit without an
// allocation.
const maxMembers = 32

// Seal appends the stored line of a plain one, without newline.
func (s *Sealer) Seal(dst, plain []byte) ([]byte, error) {
	var room [maxMembers]member
	top := members(room[:0], plain)
	eventType := text(find(top, "event_type"))
	if text(find(top, "agent_id")) == entry.TrailAgent && lifecycle[eventType] {
		return append(dst, plain...), nil
	}
	begin := len(dst)
	dst, err := s.fields(dst, top, eventType)
	if err != nil || !s.rules.Lines {
		return dst, err
	}
	id, dek, err := s.lineKey()
	if err != nil {
		return dst[:begin], err
	}
	var salt [seal.SaltSize]byte
	_, _ = rand.Read(salt[:]) // never fails
	withFields := len(dst)
	dst, err = seal.AppendLine(dst, s.origin, id, dek, salt[:], dst[begin:])
	if err != nil {
		return dst[:begin], err
	}
	return append(dst[:begin], dst[withFields:]...), nil
}

// lifecycle are the types of entries that stay in clear (docs/format-lifecycle.md
// §7.1).
var lifecycle = map[string]bool{
	"AUDIT_CREATED": true, "AUDIT_RECOVERY": true, "AUDIT_SEAL": true, "AUDIT_CLOCK": true, "AUDIT_KEY": true,
	"AUDIT_POLICY": true, "AUDIT_HOLD": true, "AUDIT_ERASURE": true, "AUDIT_PRUNE": true,
}

// IsLifecycle tells whether entries of a type of the trail's own stay in clear.
func IsLifecycle(eventType string) bool { return lifecycle[eventType] }

// lineKey is the DEK of the next line.
func (s *Sealer) lineKey() (id string, dek []byte, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	reason := ""
	switch {
	case s.lines >= dekLines:
		reason = "count"
	case s.now().Sub(s.since) >= dekAge:
		reason = "scheduled"
	}
	if reason != "" {
		if err := s.rotateLocked(reason); err != nil {
			return "", nil, err
		}
	}
	s.lines++
	return s.dekID, s.dek, nil
}

// Rotate makes a new DEK, for lines from here on.
func (s *Sealer) Rotate() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rotateLocked("operator")
}

func (s *Sealer) rotateLocked(reason string) error {
	was := s.dekID
	if _, err := s.store.RotateDEK(context.Background()); err != nil {
		return err
	}
	var err error
	if s.dekID, s.dek, s.since, err = s.store.DEK(context.Background()); err != nil {
		return err
	}
	s.lines = 0
	if s.added != nil {
		s.added(was, s.dekID, reason)
	}
	return nil
}

// inClear are members of metadata that are sealed in no entry, and evidence those
// of accesses, which are the actor's.
var (
	inClear = map[string]bool{"environment": true, "service_name": true, "imported_from": true}
	actors  = map[string]bool{"user_id": true, "session_id": true, "ip_address": true, "user_agent": true}
)

// isAccess tells the types whose subject is the resource.
func isAccess(eventType string) bool {
	return eventType == entry.PHIAccess || eventType == entry.CHDAccess || eventType == entry.DataAccess
}

// sealedLine is one line that is being made.
type sealedLine struct {
	s        *Sealer
	fields   *seal.Fields
	pointers []string
	clear    Clear    // nil: nothing is kept in clear
	asked    []string // pointers to what the policy wants sealed too
}

// fields appends the line with its fields sealed.
func (s *Sealer) fields(dst []byte, top []member, eventType string) ([]byte, error) {
	begin := len(dst)
	l := &sealedLine{s: s}
	own := text(find(top, "agent_id")) == entry.TrailAgent
	access := isAccess(eventType)
	subjects, err := s.subjects(top, own, access)
	if err != nil {
		return dst, err
	}
	if l.fields, err = seal.NewFields(s.origin, text(find(top, "event_id")), subjects); err != nil {
		return dst, err
	}
	if !own {
		l.asked = askedFor(top)
		if s.rules.Clear != nil {
			l.clear = s.rules.Clear(eventType, text(find(top, "agent_id")), text(find(top, "action")), entry.Raw(orEmpty(find(top, "metadata"))))
		}
	}
	var policy []byte
	dst = append(dst, '{')
	for _, m := range top {
		if m.name == "policy" { // the last, and longer now
			policy = m.value
			continue
		}
		dst = appendName(dst, len(dst) == begin+1, m.name)
		switch {
		case own && m.name == "inputs":
			dst, err = l.seal(dst, "/inputs", m.value)
		case !own && (m.name == "inputs" || m.name == "outputs" || m.name == "error"):
			dst, err = l.value(dst, "/"+m.name, m.value, true)
		case !own && m.name == "metadata":
			dst, err = l.members(dst, "/metadata", m.value, func(name string) bool {
				return !inClear[name] && !(access && actors[name])
			})
		case !own && m.name == "resource":
			dst, err = l.members(dst, "/resource", m.value, func(name string) bool { return name == "id" })
		case len(l.asked) > 0:
			dst, err = l.value(dst, "/"+m.name, m.value, false)
		default:
			dst = append(dst, m.value...)
		}
		if err != nil {
			return dst[:begin], err
		}
	}
	return l.end(dst, policy), nil
}

// end appends the policy with the list of what was sealed, in the place of that of
// what the policy asked for.
func (l *sealedLine) end(dst, policy []byte) []byte {
	was := withoutList(policy)
	if len(l.pointers) == 0 && was == nil {
		return append(dst, '}')
	}
	dst = append(dst, `,"policy":{`...)
	if was != nil {
		dst = append(dst, was[1:len(was)-1]...)
		if len(l.pointers) > 0 && len(was) > 2 {
			dst = append(dst, ',')
		}
	}
	for i, p := range l.pointers {
		if i == 0 {
			dst = append(dst, `"sealed":[`...)
		} else {
			dst = append(dst, ',')
		}
		dst, _ = entry.AppendString(dst, p) // its names were read from a line
	}
	if len(l.pointers) > 0 {
		dst = append(dst, ']')
	}
	return append(dst, '}', '}')
}

// askedFor are the pointers to what the policy wants sealed, each to a value that
// can be. One that leads into an array, or to something that was noted together with
// others, stands for the whole that it is in.
func askedFor(top []member) []string {
	var out []string
	for _, p := range pointersIn(top, "sealed") {
		for p != "" && (!sealable(p) || valueAt(top, p) == nil) {
			p = p[:strings.LastIndexByte(p, '/')]
		}
		if p != "" && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// value appends one value: sealed says what becomes of it and of what is in it
// unless something asks for the other.
func (l *sealedLine) value(dst []byte, pointer string, value []byte, sealed bool) ([]byte, error) {
	if sealed && l.clear == nil || slices.Contains(l.asked, pointer) {
		return l.seal(dst, pointer, value)
	}
	below := slices.ContainsFunc(l.asked, func(p string) bool { return strings.HasPrefix(p, pointer+"/") })
	if sealed {
		kept, some := l.clear.At(pointer)
		sealed = !kept
		if sealed && !(some && len(value) > 0 && value[0] == '{') {
			return l.seal(dst, pointer, value)
		}
		below = below || sealed
	}
	if !below || len(value) == 0 || value[0] != '{' {
		return append(dst, value...), nil
	}
	return l.members(dst, pointer, value, func(string) bool { return sealed })
}

// seal appends one value, sealed unless it is empty.
func (l *sealedLine) seal(dst []byte, pointer string, value []byte) ([]byte, error) {
	if empty(value) {
		return append(dst, value...), nil
	}
	dst, err := l.fields.Append(append(dst, '"'), pointer, value)
	if err != nil {
		return dst, err
	}
	l.pointers = append(l.pointers, pointer)
	return append(dst, '"'), nil
}

// members appends an object, some of whose members are sealed.
func (l *sealedLine) members(dst []byte, pointer string, object []byte, sealed func(name string) bool) ([]byte, error) {
	if len(object) == 0 || object[0] != '{' {
		return append(dst, object...), nil
	}
	dst = append(dst, '{')
	var room [maxMembers]member
	var err error
	for i, m := range members(room[:0], object) {
		dst = appendName(dst, i == 0, m.name)
		if dst, err = l.value(dst, pointer+"/"+escape(m.name), m.value, sealed(m.name)); err != nil {
			return dst, err
		}
	}
	return append(dst, '}'), nil
}

// subjects are the data subjects of an entry (§6.3, "Which subjects"): policy has
// noted in policy.subjects where further persons are named.
func (s *Sealer) subjects(top []member, own, access bool) ([]seal.Subject, error) {
	type subject struct {
		kind keys.Kind
		id   string
	}
	var found []subject
	add := func(kind keys.Kind, id string) {
		if sub := (subject{kind, id}); id != "" && !slices.Contains(found, sub) && len(found) < seal.MaxSubjects {
			found = append(found, sub)
		}
	}
	metadata := entry.Raw(orEmpty(find(top, "metadata")))
	switch {
	case own:
		// The filter of a query names a person, now and then.
		add(keys.Person, entry.Raw(orEmpty(find(top, "inputs"))).Text("user"))
	case access:
		resource := entry.Raw(orEmpty(find(top, "resource")))
		add(keys.Resource, ResourceID(resource.Text("type"), resource.Text("id")))
	default:
		add(keys.Person, PersonID(metadata))
	}
	if !own {
		for _, pointer := range pointersIn(top, "subjects") {
			add(keys.Person, identifierAt(top, pointer))
		}
	}
	if len(found) == 0 {
		add(keys.Trace, text(find(top, "trace_id")))
	}
	subjects := make([]seal.Subject, 0, len(found))
	for _, f := range found {
		sub, err := s.store.Subject(f.kind, f.id)
		if err != nil {
			return nil, fmt.Errorf("subject key: %w", err)
		}
		subjects = append(subjects, sub)
	}
	return subjects, nil
}

// PersonID is by what name the actor of an entry's metadata is a subject: the user
// id, else the pseudonym in its place, "" where there is neither.
func PersonID(metadata entry.Object) string {
	if id := metadata.Text("user_id"); id != "" {
		return id
	}
	if hash := metadata.Text("user_id_hash"); hash != "" {
		return "user_id_hash:" + hash
	}
	return ""
}

// ResourceID is by what name a resource is a subject, "" where it has no id.
func ResourceID(kind, id string) string {
	if id == "" {
		return ""
	}
	return kind + "/" + id
}

// identifierAt is the text, or the digits, at a JSON pointer; "" where there is
// neither.
func identifierAt(top []member, pointer string) string {
	value := valueAt(top, pointer)
	if len(value) > 0 && (value[0] == '-' || '0' <= value[0] && value[0] <= '9') {
		return string(value)
	}
	return text(value)
}

// textAt is the text at a JSON pointer.
func textAt(top []member, pointer string) string { return text(valueAt(top, pointer)) }

// valueAt follows a JSON pointer through objects, nil where it leads nowhere. No
// pointer of ours goes through an array.
func valueAt(top []member, pointer string) []byte {
	tokens := strings.Split(strings.TrimPrefix(pointer, "/"), "/")
	value := find(top, unescape(tokens[0]))
	for _, token := range tokens[1:] {
		if len(value) == 0 || value[0] != '{' {
			return nil
		}
		v, _ := entry.Raw(value).Get(unescape(token))
		value = v.JSON()
	}
	return value
}

func orEmpty(object []byte) []byte {
	if len(object) == 0 || object[0] != '{' {
		return []byte("{}")
	}
	return object
}
