package otlp

import (
	"slices"
	"strconv"
	"strings"

	"github.com/kaizen-audit/kaizen-audit/internal/genai"
)

// attributes are those of a span or record, looked up by what they mean.
type attributes struct {
	all  []attribute
	at   [fields]int32 // in all, from 1; 0: none
	used []bool        // what has found its place
	more []int32       // further names of fields that are there
	flat []int32       // of flattened names

	branches int // that were made of them
}

func newAttributes(all []attribute) *attributes {
	a := &attributes{all: all, used: make([]bool, len(all))}
	var rank [fields]uint8
	for i := range all {
		p, ok := places[all[i].key]
		switch {
		case !ok:
			if flattenedPrefix(all[i].key) >= 0 {
				a.flat = append(a.flat, int32(i))
			}
		case a.at[p.field] == 0:
			a.at[p.field], rank[p.field] = int32(i)+1, p.rank
		case p.rank < rank[p.field]:
			a.more = append(a.more, a.at[p.field]-1)
			a.at[p.field], rank[p.field] = int32(i)+1, p.rank
		default:
			a.more = append(a.more, int32(i))
		}
	}
	return a
}

// has tells whether there is one.
func (a *attributes) has(f field) bool { return a.at[f] > 0 }

// peek gives a field's value as text, "" where it is none, and leaves it among
// the rest.
func (a *attributes) peek(f field) string {
	if a.at[f] == 0 {
		return ""
	}
	v := &a.all[a.at[f]-1].value
	switch v.kind {
	case textual:
		return v.text
	case integer:
		return strconv.FormatInt(int64(v.n), 10)
	}
	return ""
}

// take gives a field's value as text; then it has its place, and so have others
// of the same meaning that say the same.
func (a *attributes) take(f field) string {
	s := a.peek(f)
	if s != "" {
		a.use(f)
	}
	return s
}

func (a *attributes) use(f field) {
	i := a.at[f] - 1
	a.used[i] = true
	for _, j := range a.more {
		if places[a.all[j].key].field == f && same(&a.all[i].value, &a.all[j].value) {
			a.used[j] = true
		}
	}
}

func same(a, b *value) bool {
	return a.kind == b.kind && a.n == b.n && a.text == b.text && len(a.members) == 0 && len(b.members) == 0
}

// json gives a field's value, what is JSON in it as that.
func (a *attributes) json(f field) genai.JSON {
	if a.at[f] == 0 {
		return nil
	}
	v := &a.all[a.at[f]-1].value
	if v.kind == empty || v.kind == textual && v.text == "" {
		return nil
	}
	a.use(f)
	return appendParsed(nil, v)
}

// list is json, as an array of one where it is none.
func (a *attributes) list(f field) genai.JSON {
	v := a.json(f)
	if len(v) > 0 && v[0] != '[' {
		v = append(append(genai.JSON{'['}, v...), ']')
	}
	return v
}

// count adds a number of tokens.
func (a *attributes) count(f field, name string, to *genai.Object) {
	if a.at[f] == 0 {
		return
	}
	switch v := &a.all[a.at[f]-1].value; v.kind {
	case integer, double:
		a.use(f)
		to.Set(appendValue(to.Name(name), v, false))
	}
}

// flattenedPrefix is which of the flattened names a key is one of, -1 if none.
func flattenedPrefix(key string) int {
	if len(key) < 10 || key[0] != 'g' && key[0] != 'l' && key[0] != 'r' && key[0] != 'e' {
		return -1
	}
	for i := range flattened {
		if p := flattened[i].prefix; len(key) > len(p) && key[len(p)] >= '0' && key[len(p)] <= '9' && strings.HasPrefix(key, p) {
			return i
		}
	}
	return -1
}

// unflatten puts together what was taken apart into attributes of numbered
// names.
func (a *attributes) unflatten(f field) genai.JSON {
	var root *branch
	for _, i := range a.flat {
		p := flattenedPrefix(a.all[i].key)
		if flattened[p].what != f || a.used[i] {
			continue
		}
		if root == nil {
			root = &branch{}
		}
		if a.branches < maxBranches && root.put(a.all[i].key[len(flattened[p].prefix):], &a.all[i].value, &a.branches) {
			a.used[i] = true
		}
	}
	if root == nil || len(root.children) == 0 {
		return nil
	}
	return root.append(nil)
}

// branch is a node of the tree that flattened names describe.
type branch struct {
	name     string
	number   int // of a name that is one, else -1
	leaf     *value
	children []*branch
	byName   map[string]*branch // where there are many
}

// maxNames bounds how deep a flattened name is taken apart.
const maxNames = 12

// maxBranches bounds what is made of the flattened names of one span: a short
// name can stand for many branches. What is beyond stays as it came.
const maxBranches = 100_000

// put puts a value at its place, and counts the branches that it makes. It is
// false where another value is there.
func (b *branch) put(path string, v *value, made *int) bool {
	at, numbered := b, false
	for level := 0; ; level++ {
		name, rest, more := path, "", false
		if level < maxNames {
			name, rest, more = strings.Cut(path, ".")
		}
		number := numberOf(name)
		if numbered && more && wrappers[name] {
			path, numbered = rest, false
			continue
		}
		at, numbered = at.child(name, number, made), number >= 0
		if !more {
			break
		}
		path = rest
	}
	if at.leaf != nil {
		return false
	}
	at.leaf = v
	return true
}

func numberOf(name string) int {
	if name == "" || len(name) > 9 || name[0] == '0' && len(name) > 1 {
		return -1
	}
	for _, c := range []byte(name) {
		if c < '0' || c > '9' {
			return -1
		}
	}
	n, _ := strconv.Atoi(name)
	return n
}

func (b *branch) child(name string, number int, made *int) *branch {
	if b.byName != nil {
		if c := b.byName[name]; c != nil {
			return c
		}
	} else if i := slices.IndexFunc(b.children, func(c *branch) bool { return c.name == name }); i >= 0 {
		return b.children[i]
	}
	*made++
	c := &branch{name: name, number: number}
	b.children = append(b.children, c)
	if len(b.children) > 16 {
		if b.byName == nil {
			b.byName = map[string]*branch{}
			for _, c := range b.children {
				b.byName[c.name] = c
			}
		}
		b.byName[name] = c
	}
	return c
}

func (b *branch) append(dst []byte) []byte {
	switch {
	case len(b.children) == 0 && b.leaf != nil:
		return appendValue(dst, b.leaf, false)
	case !slices.ContainsFunc(b.children, func(c *branch) bool { return c.number < 0 }) && b.leaf == nil:
		slices.SortFunc(b.children, func(x, y *branch) int { return x.number - y.number })
		dst = append(dst, '[')
		for i, c := range b.children {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = c.append(dst)
		}
		return append(dst, ']')
	}
	var seen names
	dst = append(dst, '{')
	if b.leaf != nil {
		dst = append(genai.AppendText(dst, seen.unique("value")), ':')
		dst = appendValue(dst, b.leaf, false)
	}
	for i, c := range b.children {
		if i > 0 || b.leaf != nil {
			dst = append(dst, ',')
		}
		dst = append(genai.AppendText(dst, seen.unique(c.name)), ':')
		if c.leaf != nil && hidden(c.name, false) {
			dst = append(dst, omittedCredential...)
			continue
		}
		dst = c.append(dst)
	}
	return append(dst, '}')
}

// names are those of one object.
type names struct {
	list []string
	set  map[string]int
}

// few is up to how many names looking through them costs less than a map.
const few = 24

// unique gives a name that the object has not yet: name, or name#2 and so on.
// What is no UTF-8 in it is U+FFFD.
func (n *names) unique(name string) string {
	name = strings.ToValidUTF8(name, "\ufffd")
	if n.set == nil && len(n.list) < few {
		if !slices.Contains(n.list, name) {
			n.list = append(n.list, name)
			return name
		}
	}
	if n.set == nil {
		n.set = make(map[string]int, 2*few)
		for _, s := range n.list {
			n.set[s] = 1
		}
	}
	given := name
	for n.set[name] > 0 {
		n.set[given]++
		name = given + "#" + strconv.Itoa(n.set[given])
	}
	n.set[name] = 1
	return name
}

// appendMembers appends attributes as an object, those that used does not name.
func appendMembers(dst []byte, all []attribute, used []bool) []byte {
	var seen names
	dst = append(dst, '{')
	first := true
	for i := range all {
		if used != nil && used[i] {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(genai.AppendText(dst, seen.unique(all[i].key)), ':')
		dst = appendAttribute(dst, &all[i])
	}
	return append(dst, '}')
}
