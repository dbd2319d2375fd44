package claudecode

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// hookTimeout is how many seconds the agent waits for a hook. It takes two at
// most; the agent gives all hooks of a session's end this time too.
const hookTimeout = 5

// ours tells whether a hook's command is one that Install wrote: it runs this
// program, or one of another name with the trail's path behind it. Other programs
// have hooks called like that.
var ours = regexp.MustCompile(`\bkaizen-audit'? hook claude-code( |$)| hook claude-code --log `).MatchString

// Install adds a hook for each of Events, which runs command, to the text of a
// settings file, empty for none. What was installed before is replaced, and
// everything else stays byte for byte.
func Install(settings []byte, command string) ([]byte, error) {
	if !ours(command) {
		return nil, errors.New("the command does not run hook claude-code")
	}
	settings, err := Uninstall(settings)
	if err != nil {
		return nil, err
	}
	if len(bytes.TrimSpace(settings)) == 0 {
		settings = []byte("{\n}\n")
	}
	handler := fmt.Appendf(nil, `{"hooks":[{"type":"command","command":%s,"timeout":%d}]}`, quote(command), hookTimeout)
	root, err := parseSettings(settings)
	if err != nil {
		return nil, err
	}
	style := styleOf(settings, root)
	hooks := root.get("hooks")
	if hooks == nil {
		// A shape that removal knows: white space before the first member, none
		// behind the last.
		var b bytes.Buffer
		b.WriteString(`"hooks": {`)
		for i, event := range Events {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, "%s%s%s: [%s]", style.newline, style.indent+style.indent, quote(event), handler)
		}
		b.WriteByte('}')
		return insert(settings, root, b.Bytes(), style.newline+style.indent), nil
	}
	if hooks.kind != '{' {
		return nil, errors.New("hooks is not an object")
	}
	for _, event := range Events {
		root, err := parseSettings(settings)
		if err != nil {
			return nil, err
		}
		hooks := root.get("hooks")
		switch list := hooks.get(event); {
		case list == nil:
			settings = insert(settings, hooks, fmt.Appendf(nil, "%s: [%s]", quote(event), handler), style.newline+style.indent+style.indent)
		case list.kind != '[':
			return nil, fmt.Errorf("hooks.%s is not an array", event)
		default:
			settings = insert(settings, list, handler, style.newline+strings.Repeat(style.indent, 3))
		}
	}
	return settings, nil
}

// Uninstall takes out what Install put in. Where nothing was changed in
// between, it gives the bytes that were there before.
func Uninstall(settings []byte) ([]byte, error) {
	if len(bytes.TrimSpace(settings)) == 0 {
		return settings, nil
	}
	for {
		root, err := parseSettings(settings)
		if err != nil {
			return nil, err
		}
		hooks := root.get("hooks")
		if hooks == nil || hooks.kind != '{' {
			return settings, nil
		}
		next := removeOne(settings, root, hooks)
		if next == nil {
			return settings, nil
		}
		settings = next
	}
}

// removeOne takes out one of our hooks, nil when there is none.
func removeOne(text []byte, root, hooks *node) []byte {
	for i, event := range hooks.children {
		for j, group := range event.children {
			handlers := group.get("hooks")
			if event.kind != '[' || handlers == nil {
				continue
			}
			for k, handler := range handlers.children {
				command := handler.get("command")
				if command == nil || !ours(textOf(text[command.start:command.end])) {
					continue
				}
				switch {
				case len(handlers.children) > 1:
					return remove(text, handlers, k)
				case len(event.children) > 1 || !event.made():
					return remove(text, event, j)
				case len(hooks.children) > 1 || !hooks.madeObject(text):
					return remove(text, hooks, i)
				}
				return remove(text, root, root.index("hooks"))
			}
		}
	}
	return nil
}

// node is a JSON value in a text.
type node struct {
	kind       byte // '{', '[', or 0 for anything else
	start, end int  // of the value
	from       int  // where it begins with its name
	name       string
	children   []*node
}

// get is a member's value, nil where there is none.
func (n *node) get(name string) *node {
	if i := n.index(name); i >= 0 {
		return n.children[i]
	}
	return nil
}

func (n *node) index(name string) int {
	if n == nil || n.kind != '{' {
		return -1
	}
	for i, c := range n.children {
		if c.name == name {
			return i
		}
	}
	return -1
}

// made tells whether an array with one element was made for it: there is no
// white space inside.
func (n *node) made() bool {
	return len(n.children) == 1 && n.children[0].from == n.start+1 && n.children[0].end == n.end-1
}

// madeObject tells whether an object with one member left was made by Install:
// white space before it, none behind.
func (n *node) madeObject(text []byte) bool {
	return len(n.children) == 1 && n.children[0].from > n.start+1 && n.children[0].end == n.end-1
}

// insert adds a child behind the last one. Where there is none yet, what white
// space there was stays behind it; it is the first one's white space that
// tells what removal has to take out.
func insert(text []byte, in *node, child []byte, space string) []byte {
	at := in.start + 1
	var added []byte
	switch {
	case len(in.children) > 0:
		at = in.children[len(in.children)-1].end
		if in.children[0].from == in.start+1 {
			space = " " // all on one line
		}
		added = append(append(added, ','), space...)
	case in.kind == '[':
		added = append(added, ' ')
	case at < in.end-1:
		added = append(added, space...)
	}
	added = append(added, child...)
	out := make([]byte, 0, len(text)+len(added))
	out = append(out, text[:at]...)
	out = append(out, added...)
	return append(out, text[at:]...)
}

// remove takes a child out, with the comma before it, or behind it where it is
// the first of several.
func remove(text []byte, in *node, i int) []byte {
	from, to := in.start+1, in.children[i].end
	switch {
	case i > 0:
		from = in.children[i-1].end
	case len(in.children) > 1:
		from, to = in.children[0].from, in.children[1].from
	}
	return append(append(make([]byte, 0, len(text)), text[:from]...), text[to:]...)
}

// style is how a text is laid out.
type style struct{ newline, indent string }

func styleOf(text []byte, root *node) style {
	s := style{"\n", "  "}
	if bytes.Contains(text, []byte("\r\n")) {
		s.newline = "\r\n"
	}
	if len(root.children) > 0 {
		before := string(text[root.start+1 : root.children[0].from])
		if i := strings.LastIndexByte(before, '\n'); i >= 0 && i+1 < len(before) {
			s.indent = before[i+1:]
		}
	}
	return s
}

func quote(s string) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// maxSettingsDepth bounds what a file can do to the stack.
const maxSettingsDepth = 100

// parseSettings finds where everything is in a text that is one JSON object.
func parseSettings(text []byte) (*node, error) {
	p := &settingsParser{text: text, d: json.NewDecoder(bytes.NewReader(text))}
	root, err := p.value(0)
	if err == nil && root.kind != '{' {
		err = errors.New("not a JSON object")
	}
	if err == nil {
		if _, more := p.d.Token(); more != io.EOF {
			err = errors.New("more than one JSON object")
		}
	}
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		line := 1 + bytes.Count(text[:min(int(syntax.Offset), len(text))], []byte("\n"))
		err = fmt.Errorf("line %d: not JSON: %w", line, err)
	} else if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("not JSON: it ends too early")
	}
	return root, err
}

type settingsParser struct {
	text []byte
	d    *json.Decoder
}

// token reads a token and says where it is.
func (p *settingsParser) token() (t json.Token, start, end int, err error) {
	start = int(p.d.InputOffset())
	if t, err = p.d.Token(); err != nil {
		return nil, 0, 0, err
	}
	for start < len(p.text) && strings.IndexByte(" \t\r\n,:", p.text[start]) >= 0 {
		start++
	}
	return t, start, int(p.d.InputOffset()), nil
}

func (p *settingsParser) value(depth int) (*node, error) {
	t, start, end, err := p.token()
	if err != nil {
		return nil, err
	}
	n := &node{start: start, from: start, end: end}
	delim, ok := t.(json.Delim)
	if !ok {
		return n, nil
	}
	if depth >= maxSettingsDepth {
		return nil, errors.New("nested too deep")
	}
	n.kind = byte(delim)
	seen := map[string]bool{}
	for p.d.More() {
		name, from := "", -1
		if n.kind == '{' {
			key, start, _, err := p.token()
			if err != nil {
				return nil, err
			}
			name, from = key.(string), start // a decoder gives nothing else here
			if seen[name] {
				return nil, fmt.Errorf("%q stands there twice", name)
			}
			seen[name] = true
		}
		child, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		child.name = name
		if from >= 0 {
			child.from = from
		}
		n.children = append(n.children, child)
	}
	if _, _, n.end, err = p.token(); err != nil {
		return nil, err
	}
	return n, nil
}
