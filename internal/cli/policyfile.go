package cli

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/kaizen-audit/kaizen-audit/policy"
)

// policyScan reads section policy: each key of a mapping is a member of
// policy.Config or of what is in it, by its JSON name.
type policyScan struct {
	*configScan
	places map[string]*yaml.Node // by the path of policy.Problem, joined by slashes
}

// readPolicy reads section policy and makes the policy of it.
func (s *configScan) readPolicy(at, section *yaml.Node) {
	var c policy.Config
	p := &policyScan{s, map[string]*yaml.Node{"": at}}
	before := len(s.wrong)
	if section.Tag != "!!null" {
		p.value(section, reflect.ValueOf(&c).Elem(), "")
	}
	if len(s.wrong) > before {
		return
	}
	made, err := policy.New(c)
	if err == nil {
		s.policy, s.places = made, p
		return
	}
	problems, _ := err.(policy.Problems)
	for _, wrong := range problems {
		where := p.place(wrong.Path)
		s.wrong = append(s.wrong, configProblem{where.Line, where.Column, "policy." + strings.Join(wrong.Path, "."), wrong.Text})
	}
}

// place is where something stands, or what it would stand in.
func (p *policyScan) place(path []string) *yaml.Node {
	for ; len(path) > 0; path = path[:len(path)-1] {
		if n := p.places[strings.Join(path, "/")]; n != nil {
			return n
		}
	}
	return p.places[""]
}

func (p *policyScan) value(n *yaml.Node, to reflect.Value, path string) {
	if path != "" {
		p.places[path] = n
	}
	below := func(name string) string { return strings.TrimPrefix(path+"/"+name, "/") }
	if n.Kind == yaml.AliasNode {
		p.fail(n, "an alias (*%s) can't stand here", n.Value)
		return
	}
	switch to.Kind() {
	case reflect.Pointer:
		to.Set(reflect.New(to.Type().Elem()))
		p.value(n, to.Elem(), path)
	case reflect.Struct:
		p.members(n, func(key string, at, v *yaml.Node) {
			field, known := fieldOf(to, key)
			if !known {
				p.fail(at, "unknown key %q here", key)
				return
			}
			p.value(v, field, below(key))
		})
	case reflect.Map:
		made := reflect.MakeMap(to.Type())
		p.members(n, func(key string, _, v *yaml.Node) {
			item := reflect.New(to.Type().Elem()).Elem()
			p.value(v, item, below(key))
			made.SetMapIndex(reflect.ValueOf(key), item)
		})
		to.Set(made)
	case reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			p.fail(n, "a list is needed here")
			return
		}
		for i, v := range n.Content {
			item := reflect.New(to.Type().Elem()).Elem()
			p.value(v, item, below(strconv.Itoa(i)))
			to.Set(reflect.Append(to, item))
		}
	case reflect.Bool:
		if n.Kind != yaml.ScalarNode || n.Tag != "!!bool" {
			p.fail(n, "true or false is needed here")
			return
		}
		to.SetBool(strings.EqualFold(n.Value, "true"))
	case reflect.Int:
		i, err := strconv.ParseInt(n.Value, 10, 32)
		if n.Kind != yaml.ScalarNode || n.Tag != "!!int" || err != nil {
			p.fail(n, "a number is needed here")
			return
		}
		to.SetInt(i)
	case reflect.String:
		if n.Kind != yaml.ScalarNode || n.Tag != "!!str" {
			p.fail(n, "text is needed here; put it in quotes")
			return
		}
		to.SetString(n.Value)
	default:
		panic(fmt.Sprintf("policy.Config has a %s", to.Kind())) // a fault of ours
	}
}

// fieldOf is the field of a JSON name, also of what is embedded.
func fieldOf(v reflect.Value, name string) (reflect.Value, bool) {
	for _, f := range reflect.VisibleFields(v.Type()) {
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if tag == name {
			return v.FieldByIndex(f.Index), true
		}
	}
	return reflect.Value{}, false
}
