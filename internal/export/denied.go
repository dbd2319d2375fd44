package export

import (
	"slices"

	"github.com/kaizen-audit/kaizen-audit/entry"
)

// What stands where a role does not let somebody look (docs/format-sealing.md §6.4).
const (
	deniedObject = `{"sealed":"denied"}`
	deniedText   = `"[sealed: denied]"`
)

// Denied is an entry's line as a role sees it that reads masked: what it did, when and
// by which agent, and of what it holds only the fields at these pointers.
func Denied(view []byte, fields []string) ([]byte, error) {
	shown := func(pointer string) bool { return slices.Contains(fields, pointer) }
	out := []byte{'{'}
	put := func(name string, value []byte) {
		if len(out) > 1 {
			out = append(out, ',')
		}
		out, _ = entry.AppendString(out, name)
		out = append(append(out, ':'), value...)
	}
	members := func(pointer string, o entry.Object, keep ...string) []byte {
		list := []byte{'{'}
		for name, v := range o.All() {
			if len(list) > 1 {
				list = append(list, ',')
			}
			list, _ = entry.AppendString(list, name)
			list = append(list, ':')
			if slices.Contains(keep, name) || shown(pointer+"/"+name) {
				list = append(list, v.JSON()...)
			} else {
				list = append(list, deniedText...)
			}
		}
		return append(list, '}')
	}
	e, err := entry.ParseView(view, view)
	if err != nil {
		return nil, err
	}
	for name, v := range entry.Raw(view).All() {
		value := v.JSON()
		switch name {
		case "inputs", "outputs", "authority":
			if string(value) != "{}" && !shown("/"+name) {
				value = []byte(deniedObject)
			}
		case "error", "purpose", "idempotency_key":
			if string(value) != "null" && !shown("/"+name) {
				value = []byte(deniedText)
			}
		case "metadata":
			value = members("/metadata", e.Metadata, "environment", "service_name", "imported_from")
		case "resource":
			value = members("/resource", e.Resource, "type")
		case "recorded_by":
			value = []byte(`{"via":` + string(viaOf(v)) + `}`)
		case "policy":
			continue // its pointers have names out of what is masked
		}
		put(name, value)
	}
	return append(out, '}'), nil
}

// viaOf is by which way an entry came, which says nothing of who.
func viaOf(v entry.Value) []byte {
	o, _ := v.Object()
	via, _ := o.Get("via")
	if b := via.JSON(); len(b) > 0 {
		return b
	}
	return []byte(`""`)
}
