package slogaudit

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/kaizen-audit/kaizen-audit/internal/genai"
)

// group are attributes in their order.
type group struct{ members []member }

// member is an attribute, or a group of them.
type member struct {
	name  string
	value slog.Value
	group *group
}

// open begins a group. It has no member in the end if it stays empty.
func (g *group) open(name string) *group {
	inner := &group{}
	g.members = append(g.members, member{name: name, group: inner})
	return inner
}

// add adds attributes by the rules of slog.Handler.
func (g *group) add(attrs []slog.Attr) {
	for _, a := range attrs {
		a.Value = a.Value.Resolve()
		switch {
		case a.Equal(slog.Attr{}):
		case a.Value.Kind() != slog.KindGroup:
			g.members = append(g.members, member{name: a.Key, value: a.Value})
		case a.Key == "":
			g.add(a.Value.Group())
		default:
			g.open(a.Key).add(a.Value.Group())
		}
	}
}

// json is the group as an object, absent where it has no attribute.
func (g *group) json() genai.JSON {
	out := &genai.Object{}
	used := map[string]bool{}
	for _, m := range g.members {
		var v genai.JSON
		if m.group != nil {
			if v = m.group.json(); v == nil {
				continue
			}
		} else {
			v = value(m.value)
		}
		said := strings.ToValidUTF8(m.name, "\ufffd")
		name := said
		for n := 2; used[name]; n++ {
			name = said + "#" + strconv.Itoa(n)
		}
		used[name] = true
		out.Add(name, v)
	}
	return out.JSON()
}

// err is the first attribute that is an error, nil where none is.
func (g *group) err() error {
	for _, m := range g.members {
		if m.group != nil {
			if err := m.group.err(); err != nil {
				return err
			}
		} else if m.value.Kind() == slog.KindAny {
			if err, ok := m.value.Any().(error); ok && speaks(err) {
				return err
			}
		}
	}
	return nil
}

// speaks tells whether an error has a text: a nil pointer may have none.
func speaks(err error) (ok bool) {
	defer func() { _ = recover() }()
	_ = err.Error()
	return true
}

// value is what an attribute says.
func value(v slog.Value) genai.JSON {
	switch v.Kind() {
	case slog.KindString:
		return genai.AppendText(nil, v.String())
	case slog.KindBool:
		return strconv.AppendBool(nil, v.Bool())
	case slog.KindInt64:
		return strconv.AppendInt(nil, v.Int64(), 10)
	case slog.KindUint64:
		return strconv.AppendUint(nil, v.Uint64(), 10)
	case slog.KindFloat64:
		if f := v.Float64(); math.IsNaN(f) || math.IsInf(f, 0) {
			return genai.AppendText(nil, v.String())
		}
		return encoded(v.Float64())
	case slog.KindTime:
		return genai.AppendText(nil, v.Time().Format(time.RFC3339Nano))
	case slog.KindDuration:
		return genai.AppendText(nil, v.Duration().String())
	}
	return encoded(v.Any())
}

// encoded is a value as encoding/json has it. The program goes on where its own
// code panics.
func encoded(v any) (out genai.JSON) {
	defer func() {
		if p := recover(); p != nil {
			out = omitted(fmt.Sprintf("panic (%T)", p))
		}
	}()
	if err, ok := v.(error); ok {
		if _, its := v.(json.Marshaler); !its {
			return genai.AppendText(nil, err.Error())
		}
	}
	text, err := json.Marshal(v)
	if err != nil {
		return omitted(fmt.Sprintf("%T has no JSON", v))
	}
	if out, ok := genai.Parse(text); ok {
		return out
	}
	return omitted(fmt.Sprintf("the JSON of %T is none that an entry takes", v))
}

func omitted(reason string) genai.JSON {
	out := &genai.Object{}
	out.AddText("omitted", reason)
	return out.JSON()
}
