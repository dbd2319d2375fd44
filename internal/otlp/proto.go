package otlp

import "encoding/hex"

// decoder turns a request's body into spans and records, and counts what it
// makes: a few bytes can be a value.
type decoder struct {
	limits  Limits
	hold    func(bytes int64) bool // takes room for what is made; false where there is none now
	values  int
	spans   []span
	records []record
}

// valueBytes is about what a value costs, with its name and its place.
const valueBytes = 128

// allow counts values, and takes the room for them before they are made.
func (d *decoder) allow(n int) error {
	if d.values += n; d.values > d.limits.Values {
		return errTooMany
	}
	if d.hold != nil && n > 0 && !d.hold(int64(n)*valueBytes) {
		return errBusy
	}
	return nil
}

// protobuf reads an ExportTraceServiceRequest or ExportLogsServiceRequest: both
// have their ResourceSpans or ResourceLogs in field 1.
func (d *decoder) protobuf(body []byte, logs bool) error {
	w := wire{b: body}
	for w.next() {
		if w.is(1, delimited) {
			if err := d.resource(w.s, logs); err != nil {
				return err
			}
		}
	}
	return w.err
}

// resource reads ResourceSpans or ResourceLogs: resource 1, scopes 2, schema 3.
func (d *decoder) resource(message []byte, logs bool) error {
	if err := d.allow(1); err != nil { // two bytes can be one
		return err
	}
	r := &resource{}
	var text1 []byte
	w := wire{b: message}
	for w.next() {
		switch {
		case w.is(1, delimited):
			text1 = w.s
			if err := d.resourceAttributes(w.s, r); err != nil {
				return err
			}
		case w.is(3, delimited):
			r.schema = text(w.s)
		}
	}
	if w.err != nil {
		return w.err
	}
	for w = (wire{b: message}); w.next(); {
		if w.is(2, delimited) {
			if err := d.scope(w.s, r, text1, logs); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *decoder) resourceAttributes(message []byte, r *resource) error {
	attributes, err := d.attributes(message, 1)
	r.attributes = attributes
	for w := (wire{b: message}); w.next(); {
		if w.is(2, varint) {
			r.dropped = uint32(w.n)
		}
	}
	return err
}

// scope reads ScopeSpans or ScopeLogs: scope 1, spans or records 2, schema 3.
func (d *decoder) scope(message []byte, r *resource, ofResource []byte, logs bool) error {
	if err := d.allow(1); err != nil {
		return err
	}
	s := &scope{}
	var ofScope []byte
	n := 0
	w := wire{b: message}
	for w.next() {
		switch {
		case w.is(1, delimited):
			ofScope = w.s
			if err := d.scopeOf(w.s, s); err != nil {
				return err
			}
		case w.is(2, delimited):
			n++
		case w.is(3, delimited):
			s.schema = text(w.s)
		}
	}
	if w.err != nil {
		return w.err
	}
	if len(d.spans)+len(d.records)+n > d.limits.Spans {
		return errTooMany
	}
	sum := newDigester(ofResource, []byte(r.schema), ofScope, []byte(s.schema))
	if logs {
		d.records = grow(d.records, n)
	} else {
		d.spans = grow(d.spans, n)
	}
	for w = (wire{b: message}); w.next(); {
		if !w.is(2, delimited) {
			continue
		}
		if logs {
			d.records = append(d.records, record{resource: r, scope: s, digest: sum.of(w.s)})
			if err := d.record(w.s, &d.records[len(d.records)-1]); err != nil {
				return err
			}
		} else {
			d.spans = append(d.spans, span{resource: r, scope: s, digest: sum.of(w.s)})
			if err := d.span(w.s, &d.spans[len(d.spans)-1]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *decoder) scopeOf(message []byte, s *scope) (err error) {
	for w := (wire{b: message}); w.next(); {
		switch {
		case w.is(1, delimited):
			s.name = text(w.s)
		case w.is(2, delimited):
			s.version = text(w.s)
		}
	}
	s.attributes, err = d.attributes(message, 3)
	return err
}

// grow makes room for n more.
func grow[T any](s []T, n int) []T {
	if cap(s)-len(s) >= n {
		return s
	}
	return append(make([]T, 0, max(len(s)+n, 2*len(s))), s...)
}

func (d *decoder) span(message []byte, s *span) (err error) {
	events, links := 0, 0
	w := wire{b: message}
	for w.next() {
		switch {
		case w.is(1, delimited):
			s.traceID = id(w.s, 16)
		case w.is(2, delimited):
			s.spanID = id(w.s, 8)
			if s.spanID == "" {
				s.givenID = hex.EncodeToString(w.s[:min(len(w.s), 16)])
			}
		case w.is(3, delimited):
			s.traceState = text(w.s)
		case w.is(4, delimited):
			s.parentID = id(w.s, 8)
		case w.is(5, delimited):
			s.name = text(w.s)
		case w.is(6, varint):
			s.kind = w.n
		case w.is(7, fixed64):
			s.start = w.n
		case w.is(8, fixed64):
			s.end = w.n
		case w.is(10, varint):
			s.droppedAttributes = uint32(w.n)
		case w.is(11, delimited):
			events++
		case w.is(12, varint):
			s.droppedEvents = uint32(w.n)
		case w.is(13, delimited):
			links++
		case w.is(14, varint):
			s.droppedLinks = uint32(w.n)
		case w.is(15, delimited):
			if err := statusOf(w.s, s); err != nil {
				return err
			}
		case w.is(16, fixed32):
			s.flags = uint32(w.n)
		}
	}
	if w.err != nil {
		return w.err
	}
	if s.attributes, err = d.attributes(message, 9); err != nil || events+links == 0 {
		return err
	}
	if err := d.allow(events + links); err != nil {
		return err
	}
	s.events, s.links = make([]event, 0, events), make([]link, 0, links)
	for w = (wire{b: message}); w.next(); {
		switch {
		case w.is(11, delimited):
			s.events = append(s.events, event{})
			err = d.event(w.s, &s.events[len(s.events)-1])
		case w.is(13, delimited):
			s.links = append(s.links, link{})
			err = d.link(w.s, &s.links[len(s.links)-1])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func statusOf(message []byte, s *span) error {
	w := wire{b: message}
	for w.next() {
		switch {
		case w.is(2, delimited):
			s.statusMessage = text(w.s)
		case w.is(3, varint):
			s.status = w.n
		}
	}
	return w.err
}

func (d *decoder) event(message []byte, e *event) (err error) {
	w := wire{b: message}
	for w.next() {
		switch {
		case w.is(1, fixed64):
			e.time = w.n
		case w.is(2, delimited):
			e.name = text(w.s)
		case w.is(4, varint):
			e.dropped = uint32(w.n)
		}
	}
	if w.err != nil {
		return w.err
	}
	e.attributes, err = d.attributes(message, 3)
	return err
}

func (d *decoder) link(message []byte, l *link) (err error) {
	w := wire{b: message}
	for w.next() {
		switch {
		case w.is(1, delimited):
			l.traceID = id(w.s, 16)
		case w.is(2, delimited):
			l.spanID = id(w.s, 8)
		case w.is(3, delimited):
			l.traceState = text(w.s)
		case w.is(5, varint):
			l.dropped = uint32(w.n)
		}
	}
	if w.err != nil {
		return w.err
	}
	l.attributes, err = d.attributes(message, 4)
	return err
}

func (d *decoder) record(message []byte, r *record) (err error) {
	w := wire{b: message}
	for w.next() {
		switch {
		case w.is(1, fixed64):
			r.time = w.n
		case w.is(2, varint):
			r.severity = w.n
		case w.is(3, delimited):
			r.severityText = text(w.s)
		case w.is(5, delimited):
			if r.body, err = d.value(w.s, 1); err != nil {
				return err
			}
		case w.is(7, varint):
			r.droppedAttributes = uint32(w.n)
		case w.is(9, delimited):
			r.traceID = id(w.s, 16)
		case w.is(10, delimited):
			r.spanID = id(w.s, 8)
		case w.is(11, fixed64):
			r.observed = w.n
		case w.is(12, delimited):
			r.eventName = text(w.s)
		}
	}
	if w.err != nil {
		return w.err
	}
	r.attributes, err = d.attributes(message, 6)
	return err
}

// attributes reads the KeyValues that a message has in a field.
func (d *decoder) attributes(message []byte, field uint64) ([]attribute, error) {
	return d.members(message, field, 1, true)
}

// members reads KeyValues (keyed) or AnyValues, whose values are depth deep.
func (d *decoder) members(message []byte, field uint64, depth int, keyed bool) ([]attribute, error) {
	n := count(message, field)
	if err := d.allow(n); err != nil {
		return nil, err
	}
	out := make([]attribute, 0, n)
	w := wire{b: message}
	for w.next() {
		if !w.is(field, delimited) {
			continue
		}
		var a attribute
		var err error
		if keyed {
			a, err = d.keyValue(w.s, depth)
		} else {
			a.value, err = d.value(w.s, depth)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, w.err
}

// keyValue reads a KeyValue: key 1, value 2.
func (d *decoder) keyValue(message []byte, depth int) (a attribute, err error) {
	w := wire{b: message}
	for w.next() {
		switch {
		case w.is(1, delimited):
			a.key = text(w.s)
		case w.is(2, delimited):
			if a.value, err = d.value(w.s, depth); err != nil {
				return a, err
			}
		}
	}
	return a, w.err
}

// value reads an AnyValue. Of several members the last counts.
func (d *decoder) value(message []byte, depth int) (v value, err error) {
	w := wire{b: message}
	for w.next() {
		switch {
		case w.is(1, delimited):
			v = value{kind: textual, text: text(w.s)}
		case w.is(2, varint):
			v = value{kind: boolean, n: w.n}
		case w.is(3, varint):
			v = value{kind: integer, n: w.n}
		case w.is(4, fixed64):
			v = value{kind: double, n: w.n}
		case w.is(5, delimited), w.is(6, delimited):
			if depth >= maxDepth {
				v = value{kind: tooDeep, n: uint64(len(w.s))}
				continue
			}
			v = value{kind: list}
			if w.number == 6 {
				v.kind = mapping
			}
			if v.members, err = d.members(w.s, 1, depth+1, v.kind == mapping); err != nil {
				return v, err
			}
		case w.is(7, delimited):
			v = value{kind: binary64, text: text(w.s)}
		}
	}
	return v, w.err
}

// id is an id of that many bytes as hex, "" where it is none: of another length,
// or all zero (trace/v1, Span).
func id(b []byte, size int) string {
	if len(b) != size {
		return ""
	}
	zero := true
	for _, c := range b {
		zero = zero && c == 0
	}
	if zero {
		return ""
	}
	return hex.EncodeToString(b)
}
