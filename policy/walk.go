package policy

import (
	"bytes"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
	"unsafe"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/detect"
)

// maxLevel is how many strings that hold JSON are opened inside each other. What
// goes deeper hides something or is none of ours to read; it is masked whole.
const maxLevel = 16

// walker goes over one JSON text and collects what has to change in it. It is
// pooled: nothing in it outlives a call.
type walker struct {
	p      *Policy
	run_   Run
	event  entry.Event // a copy, where the event becomes another one
	fields []*field    // for this event
	only   []path
	plain  bool // there is nothing in fields and only: detectors decide

	src       []byte
	places    []entry.Place // of the members in src
	pos       int
	level     int // strings around src
	hasPolicy bool
	frames    []frame // what is around pos
	edits     []edit  // in their order, of src from the level's first on
	was       []byte  // the text before its edits
	notes     []note
	prior     int    // so many of the notes are of an earlier run
	pointers  []byte // the text of their pointers
	lists     lists
	matches   []detect.Match
	clear     int    // in what is before, from the member's value on, detectors find nothing
	held      bool   // matches are those of the string at clear
	decoded   []byte // strings without their escapes, the inner one last
	err       error

	before [2]before // of the walk before, with and without KeepFact; it stays when the others go
}

// edit replaces src[start:end].
type edit struct {
	start, end int
	text       []byte
}

// frame is a value by its place in what is around it.
type frame struct {
	name   []byte // of a member, as it will stand there; nil for an element
	index  int    // of an element
	inside bool   // of JSON in a string
	field  int    // the first of walker.fields that decides, len(fields) if none
	kept   bool   // a path of only leads to it, or there is none for its member
	never  bool   // detectors leave it alone
	keyed  bool
	key    detect.Key // what its name says, or a name around it
}

// result is what becomes of a value.
type result uint8

const (
	stays result = iota
	goes         // it is dropped
	bad          // the text is no JSON
)

// run goes over the members of an event or a line.
func (w *walker) run(text []byte, places []entry.Place) error {
	w.src, w.places, w.hasPolicy, w.err = text, places, false, nil
	for i := range places {
		if !w.member(&places[i]) {
			return errText
		}
		if w.err != nil {
			return w.err
		}
	}
	return nil
}

// member goes over one of the event's own members.
func (w *walker) member(m *entry.Place) bool {
	never := false
	switch m.Member {
	case entry.MemberIdempotencyKey:
		return true
	case entry.MemberPolicy:
		w.hasPolicy = true
		return true
	case entry.MemberDuration:
		if n, ok := w.p.set.Number(w.src[m.Start:m.End]); ok {
			w.note(dropped, "/duration_ms", n.Rule)
			w.edits = append(w.edits, edit{m.Start, m.End, []byte("0")})
		}
		return true
	case entry.MemberAgentID, entry.MemberTraceID, entry.MemberSpanID, entry.MemberParentSpanID, entry.MemberResource:
		if never = true; w.plain && !w.p.cards {
			return true
		}
	}
	w.clear, w.held = 0, false
	edits, notes := len(w.edits), len(w.notes)
	var before *before
	if w.plain && !never {
		if m.Member == entry.MemberMetadata {
			before = &w.before[0]
			if w.run_.KeepFact {
				before = &w.before[1]
			}
			if before.is(w, m) {
				w.notes = append(w.notes, before.notes...)
				return true
			}
		}
		if w.clean(m) {
			if before != nil {
				before.remember(w, m, notes)
			}
			return true
		}
	}
	name := m.Member.String()
	f := frame{name: bytesOf(name), field: len(w.fields), kept: !w.listed(name), never: never}
	w.pos = m.Start
	w.frames = append(w.frames[:0], f)
	if r := w.value(); r != goes {
		if before != nil && r == stays && len(w.edits) == edits && w.err == nil {
			before.remember(w, m, notes)
		}
		return r == stays
	}
	w.edits = w.edits[:edits]
	switch m.Member {
	case entry.MemberInputs, entry.MemberOutputs, entry.MemberMetadata:
		w.edits = append(w.edits, edit{m.Start, m.End, []byte("{}")})
	case entry.MemberError:
		w.edits = append(w.edits, edit{m.Start, m.End, []byte("null")})
	case entry.MemberAgentID, entry.MemberTraceID, entry.MemberAction:
		w.edits = append(w.edits, edit{m.Start, m.End, []byte(`"****"`)})
	default:
		comma := m.Start - len(`,"":`) - len(name)
		w.edits = append(w.edits, edit{comma, m.End, nil})
	}
	return true
}

// value goes over the value at pos, whose frame is the last one.
func (w *walker) value() result {
	if w.pos >= len(w.src) {
		return bad
	}
	f := &w.frames[len(w.frames)-1]
	if len(w.fields) > 0 || len(w.only) > 0 {
		if r, done := w.ruled(f); done {
			return r
		}
	}
	switch c := w.src[w.pos]; c {
	case '{':
		return w.object()
	case '[':
		return w.array()
	case '"':
		return w.text()
	case 't', 'f', 'n':
		return w.word()
	default:
		if c == '-' || '0' <= c && c <= '9' {
			return w.number()
		}
		return bad
	}
}

// looked tells whether clean has found nothing in the name or scalar at start.
func (w *walker) looked(start int) bool { return w.level == 0 && start < w.clear }

// below makes the frame of a value in the one of f.
func (f *frame) below(name []byte, index int) frame {
	return frame{name: name, index: index, inside: f.inside, field: f.field, kept: f.kept, never: f.never, keyed: f.keyed, key: f.key}
}

func (w *walker) object() result {
	depth := len(w.frames)
	if depth > entry.MaxDepth+maxLevel {
		return bad
	}
	begin := w.pos
	w.pos++
	w.space()
	if w.pos < len(w.src) && w.src[w.pos] == '}' {
		w.pos++
		return stays
	}
	comma := -1 // the one before the member
	kept := 0
	for {
		w.space()
		start := w.pos
		name, escaped, ok := w.token()
		if !ok {
			return bad
		}
		nameEnd := w.pos
		base := len(w.decoded)
		if escaped {
			if w.decoded, ok = appendUnescaped(w.decoded, name); !ok {
				return bad
			}
			name = w.decoded[base:len(w.decoded):len(w.decoded)]
		}
		w.space()
		if w.pos >= len(w.src) || w.src[w.pos] != ':' {
			return bad
		}
		w.pos++
		w.space()
		edits, notes := len(w.edits), len(w.notes)
		looked := w.looked(start)
		f := w.frames[depth-1].below(name, 0)
		if depth == 1 && w.level == 0 && string(w.frames[0].name) == "metadata" {
			switch string(name) {
			case "user_id", "session_id":
				f.never = true
			}
		}
		if !f.never && !looked {
			if key, ok := w.p.set.Name(name); ok {
				f.key, f.keyed = key, true
			}
		}
		w.frames = append(w.frames, f)
		r := stays
		if !f.never && !looked && len(name) >= minName {
			r = w.name(begin, start, nameEnd)
		}
		if r == stays {
			r = w.value()
		} else if r == goes && !w.skip() {
			r = bad
		}
		w.frames, w.decoded = w.frames[:depth], w.decoded[:base]
		end := w.pos
		w.space()
		if r == bad || w.pos >= len(w.src) {
			return bad
		}
		more := w.src[w.pos] == ','
		if !more && w.src[w.pos] != '}' {
			return bad
		}
		switch {
		case r == stays:
			kept++
		case kept > 0:
			w.drop(edits, notes, comma, end)
		case more:
			w.drop(edits, notes, start, w.pos+1)
		default:
			w.drop(edits, notes, start, end)
		}
		comma = w.pos
		w.pos++
		if !more {
			return stays
		}
	}
}

// drop takes a member out; the last of the notes since then is about that.
func (w *walker) drop(edits, notes, start, end int) {
	w.edits = append(w.edits[:edits], edit{start, end, nil})
	if last := len(w.notes) - 1; last > notes {
		w.notes[notes] = w.notes[last]
		w.notes = w.notes[:notes+1]
	}
}

func (w *walker) array() result {
	depth := len(w.frames)
	if depth > entry.MaxDepth+maxLevel {
		return bad
	}
	w.pos++
	w.space()
	if w.pos < len(w.src) && w.src[w.pos] == ']' {
		w.pos++
		return stays
	}
	for i := 0; ; i++ {
		w.space()
		start, edits, notes := w.pos, len(w.edits), len(w.notes)
		w.frames = append(w.frames, w.frames[depth-1].below(nil, i))
		r := w.value()
		w.frames = w.frames[:depth]
		if r == goes { // the places of the others stay what they are
			w.drop(edits, notes, start, w.pos)
			w.edits[len(w.edits)-1].text = []byte("null")
		}
		w.space()
		if r == bad || w.pos >= len(w.src) {
			return bad
		}
		switch w.src[w.pos] {
		case ',':
			w.pos++
		case ']':
			w.pos++
			return stays
		default:
			return bad
		}
	}
}

// minName is the length from which on a member's name can hold something: no
// e-mail address, phone number or secret is shorter.
const minName = 6

// name looks into a member's name.
func (w *walker) name(object, start, end int) result {
	f := &w.frames[len(w.frames)-1]
	w.matches = w.p.set.Text(w.matches[:0], f.name)
	if len(w.matches) == 0 {
		return stays
	}
	before := len(w.notes)
	out, changed, r := w.replace(nil, f.name, false)
	if changed && r == stays {
		// The value is dealt with as the next run sees it: under the new name.
		parent := &w.frames[len(w.frames)-2]
		f.name, f.key, f.keyed = w.unique(object, start, out), parent.key, parent.keyed
		if key, ok := w.p.set.Name(f.name); ok {
			f.key, f.keyed = key, true
		}
		quoted, ok := entry.AppendString(nil, string(f.name))
		if !ok {
			return bad
		}
		w.edits = append(w.edits, edit{start, end, quoted})
	}
	// The name is another one now, and pointers go by that.
	for i := before; i < len(w.notes); i++ {
		w.notes[i].pointer = w.pointer()
	}
	return r
}

// unique gives a member that gets another name one that its object does not have.
func (w *walker) unique(object, at int, name []byte) []byte {
	taken := map[string]bool{}
	pos := w.pos
	for w.pos = object + 1; w.pos < len(w.src); w.pos++ {
		w.space()
		start := w.pos
		other, escaped, ok := w.token()
		if !ok {
			break
		}
		if escaped {
			other, _ = appendUnescaped(nil, other)
		}
		if start != at {
			taken[string(other)] = true
		}
		w.space()
		w.pos++
		w.space()
		if !w.skip() {
			break
		}
		if w.space(); w.pos >= len(w.src) || w.src[w.pos] != ',' {
			break
		}
	}
	w.pos = pos
	for _, e := range w.edits { // names that were given here already
		if e.start > object && len(e.text) > 2 && e.text[0] == '"' {
			if s, ok := appendUnescaped(nil, e.text[1:len(e.text)-1]); ok {
				taken[string(s)] = true
			}
		}
	}
	out := string(name)
	for n := 2; taken[out]; n++ {
		out = string(name) + "#" + strconv.Itoa(n)
	}
	return []byte(out)
}

func (w *walker) word() result {
	for _, word := range [...]string{"true", "false", "null"} {
		if len(w.src)-w.pos >= len(word) && string(w.src[w.pos:w.pos+len(word)]) == word {
			w.pos += len(word)
			return stays
		}
	}
	return bad
}

func (w *walker) number() result {
	start := w.pos
	if !w.skipNumber() {
		return bad
	}
	if w.looked(start) {
		return stays
	}
	literal := w.src[start:w.pos]
	f := &w.frames[len(w.frames)-1]
	w.matches = w.matches[:0]
	switch {
	case f.never:
		return w.cardsOnly(literal, start)
	case f.keyed:
		w.matches = w.p.set.Value(w.matches, f.key, literal)
	default:
		if m, ok := w.p.set.Number(literal); ok {
			w.matches = append(w.matches, m)
		}
	}
	return w.found(literal, start)
}

// found deals with what was found in a scalar, whose text is at start to pos.
func (w *walker) found(text []byte, start int) result {
	if len(w.matches) == 0 {
		return stays
	}
	out, changed, r := w.replace(nil, text, true)
	if r != stays || !changed {
		return r
	}
	quoted, ok := entry.AppendString(nil, string(out))
	if !ok {
		return bad
	}
	w.edits = append(w.edits, edit{start, w.pos, quoted})
	return stays
}

// cardsOnly is for what detectors leave alone but for card numbers, where the
// policy says so.
func (w *walker) cardsOnly(text []byte, start int) result {
	if !w.p.cards {
		return stays
	}
	w.matches = w.p.set.Text(w.matches[:0], text)
	n := 0
	for _, m := range w.matches {
		if m.Class == detect.Card {
			w.matches[n] = m
			n++
		}
	}
	w.matches = w.matches[:n]
	return w.found(text, start)
}

func (w *walker) text() result {
	start := w.pos
	text, escaped, ok := w.token()
	if !ok {
		return bad
	}
	if len(text) == 0 || w.looked(start) {
		return stays
	}
	base := len(w.decoded)
	if escaped {
		if w.decoded, ok = appendUnescaped(w.decoded, text); !ok {
			return bad
		}
		text = w.decoded[base:len(w.decoded):len(w.decoded)]
		defer func() { w.decoded = w.decoded[:base] }()
	}
	f := &w.frames[len(w.frames)-1]
	switch {
	case f.never:
		return w.cardsOnly(text, start)
	case w.held && w.level == 0 && start == w.clear:
		return w.found(text, start)
	}
	if !f.keyed || f.key.Class == detect.Card || f.key.Class == detect.Personal {
		if looksJSON(text) {
			if r, done := w.inner(text, start); done {
				return r
			}
			f = &w.frames[len(w.frames)-1]
		}
	}
	if !f.kept { // what is kept would stand in JSON in it
		w.note(dropped, w.pointer(), "only")
		return goes
	}
	switch {
	case f.keyed && f.key.Class == detect.Secret && string(text) == leftOut:
		return stays
	case f.keyed:
		w.matches = w.p.set.Value(w.matches[:0], f.key, text)
	default:
		w.matches = w.p.set.Text(w.matches[:0], text)
	}
	return w.found(text, start)
}

// leftOut is what capture puts in the place of a credential of a header:
// {"omitted":"credential"}. Nothing is left to mask there.
const leftOut = "credential"

// looksJSON tells whether text may be JSON that holds something.
func looksJSON(text []byte) bool {
	if len(text) < 2 {
		return false
	}
	switch text[0] {
	case '{', '[', '"', ' ', '\t', '\n', '\r':
	default:
		return false
	}
	text = bytes.Trim(text, " \t\r\n")
	if len(text) < 2 {
		return false
	}
	last := text[len(text)-1]
	switch text[0] {
	case '{':
		return last == '}'
	case '[':
		return last == ']'
	case '"':
		return last == '"'
	}
	return false
}

// inner goes over JSON in a string. done is false where it is none.
func (w *walker) inner(text []byte, start int) (r result, done bool) {
	if w.level == maxLevel {
		w.edits = append(w.edits, edit{start, w.pos, []byte(`"****"`)})
		w.note(masked, w.pointer(), "nested-json")
		return stays, true
	}
	src, pos, edits, notes, depth := w.src, w.pos, len(w.edits), len(w.notes), len(w.frames)
	w.src, w.pos = text, 0
	w.level++
	inside := w.frames[depth-1].inside
	w.frames[depth-1].inside = true
	w.space()
	r = w.value()
	if r == stays {
		if w.space(); w.pos != len(w.src) {
			r = bad
		}
	}
	w.src, w.pos = src, pos
	w.level--
	w.frames = w.frames[:depth]
	w.frames[depth-1].inside = inside
	switch {
	case w.err != nil:
		return stays, true
	case r == bad:
		w.edits, w.notes = w.edits[:edits], w.notes[:notes]
		return stays, false
	case r == goes || len(w.edits) == edits:
		w.edits = w.edits[:edits]
		return r, true
	}
	quoted, ok := entry.AppendString(nil, string(w.edit(nil, text, edits)))
	w.edits = w.edits[:edits]
	if !ok {
		return bad, true
	}
	w.edits = append(w.edits, edit{start, pos, quoted})
	return stays, true
}

// replace appends text with what is done to the matches. whole says that text is
// a value that can be dropped.
func (w *walker) replace(dst, text []byte, whole bool) (out []byte, changed bool, r result) {
	at := 0
	pointer := ""
	for _, m := range w.matches {
		action := w.p.action(m)
		if action == Keep {
			continue
		}
		if pointer == "" && len(w.frames) > 0 {
			pointer = w.pointer()
		}
		if action == Refuse && !w.run_.KeepFact {
			w.err = &RefusedError{Member: string(w.frames[0].name), Rule: m.Rule}
			return dst, false, stays
		}
		if action == Seal && (len(w.frames) == 0 || !canSeal(string(w.frames[0].name), len(w.frames))) {
			action = Mask // it stands where nothing can be sealed
		}
		if action == Drop || action == Refuse {
			if whole && m.Start == 0 && m.End == len(text) && string(text) != mask {
				w.note(dropped, pointer, m.Rule)
				return dst, true, goes
			}
			action = Mask
		}
		if action == Mark || action == Seal {
			w.note(kindOf(action), pointer, m.Rule)
			continue
		}
		dst = append(dst, text[at:m.Start]...)
		found := text[m.Start:m.End]
		from := len(dst)
		kind := masked
		if action == Hash || action == Pseudonymise {
			dst, kind = w.token_(dst, found, action)
		} else {
			dst = detect.AppendMask(dst, m, text)
		}
		at = m.End
		if !bytes.Equal(dst[from:], found) {
			changed = true
			w.note(kind, pointer, m.Rule)
		}
	}
	if !changed && len(dst) == 0 {
		return text, false, stays // marked, say: there is nothing to copy
	}
	return append(dst, text[at:]...), changed, stays
}

const mask = "****"

// token_ appends the token of a value, or a mask where there can be none.
func (w *walker) token_(dst, value []byte, action Action) ([]byte, kind) {
	if t := w.run_.Tokens; t != nil {
		if t.IsToken(string(value)) || string(value) == mask {
			return append(dst, value...), kindOf(action)
		}
		if token, err := t.Token(string(value), action == Pseudonymise); err == nil {
			return append(dst, token...), kindOf(action)
		}
	}
	return append(dst, mask...), masked
}

// pointer is the JSON pointer to the value at hand, or to the string that it
// stands in. It shares the walker's memory.
func (w *walker) pointer() string {
	b := w.pointers
	for i := range w.frames {
		f := &w.frames[i]
		if i > 0 && w.frames[i-1].inside {
			break
		}
		b = append(b, '/')
		if f.name == nil {
			b = strconv.AppendInt(b, int64(f.index), 10)
			continue
		}
		for _, c := range f.name {
			switch c {
			case '~':
				b = append(b, '~', '0')
			case '/':
				b = append(b, '~', '1')
			default:
				b = append(b, c)
			}
		}
	}
	begin := len(w.pointers)
	w.pointers = b
	return stringOf(b[begin:])
}

// stringOf shares b, which must not change while the string is in use.
func stringOf(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// bytesOf shares s: its bytes must only be read.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// token reads the string at pos: what is between its quotes, and whether that has
// escapes.
func (w *walker) token() (body []byte, escaped, ok bool) {
	if w.pos >= len(w.src) || w.src[w.pos] != '"' {
		return nil, false, false
	}
	start := w.pos + 1
	at := start
	for {
		n := bytes.IndexByte(w.src[at:], '"')
		if n < 0 {
			return nil, false, false
		}
		at += n
		slashes := 0
		for i := at - 1; i >= start && w.src[i] == '\\'; i-- {
			slashes++
		}
		at++
		if slashes%2 == 0 {
			break
		}
	}
	body = w.src[start : at-1]
	w.pos = at
	return body, bytes.IndexByte(body, '\\') >= 0, true
}

func (w *walker) space() {
	for w.pos < len(w.src) {
		switch w.src[w.pos] {
		case ' ', '\t', '\n', '\r':
			w.pos++
		default:
			return
		}
	}
}

func (w *walker) skipNumber() bool {
	start := w.pos
	for w.pos < len(w.src) {
		switch c := w.src[w.pos]; {
		case '0' <= c && c <= '9', c == '.', c == '-', c == '+', c == 'e', c == 'E':
			w.pos++
		default:
			return w.pos > start
		}
	}
	return w.pos > start
}

// skip passes over a value without looking into it.
func (w *walker) skip() bool {
	if w.pos >= len(w.src) {
		return false
	}
	switch w.src[w.pos] {
	case '"':
		_, _, ok := w.token()
		return ok
	case '{', '[':
		for depth := 0; w.pos < len(w.src); {
			switch w.src[w.pos] {
			case '"':
				if _, _, ok := w.token(); !ok {
					return false
				}
				continue
			case '{', '[':
				depth++
			case '}', ']':
				depth--
			}
			w.pos++
			if depth == 0 {
				return true
			}
		}
		return false
	case 't', 'f', 'n':
		return w.word() == stays
	}
	return w.skipNumber()
}

// appendUnescaped appends the text of a string's body. ok is false where an
// escape is none. Half a surrogate pair becomes U+FFFD.
func appendUnescaped(dst, body []byte) (out []byte, ok bool) {
	for {
		n := bytes.IndexByte(body, '\\')
		if n < 0 {
			return append(dst, body...), true
		}
		dst = append(dst, body[:n]...)
		if body = body[n:]; len(body) < 2 {
			return dst, false
		}
		c := body[1]
		switch c {
		case '"', '\\', '/':
		case 'b':
			c = '\b'
		case 'f':
			c = '\f'
		case 'n':
			c = '\n'
		case 'r':
			c = '\r'
		case 't':
			c = '\t'
		case 'u':
			r, ok := hex4(body[2:])
			if !ok {
				return dst, false
			}
			body = body[6:]
			if utf16.IsSurrogate(r) {
				low := rune(-1)
				if len(body) >= 6 && body[0] == '\\' && body[1] == 'u' {
					low, _ = hex4(body[2:])
				}
				if r = utf16.DecodeRune(r, low); r != utf8.RuneError {
					body = body[6:]
				}
			}
			dst = utf8.AppendRune(dst, r)
			continue
		default:
			return dst, false
		}
		dst, body = append(dst, c), body[2:]
	}
}

func hex4(b []byte) (rune, bool) {
	if len(b) < 4 {
		return 0, false
	}
	n, err := strconv.ParseUint(string(b[:4]), 16, 32)
	return rune(n), err == nil
}
