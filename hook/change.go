package hook

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	audit "github.com/kaizen-audit/kaizen-audit"
)

// ConfigChange is the kind of action that RecordChange tells of; it has no event
// before it.
const ConfigChange Kind = "config_change"

// Change is a modification of something: a setting, a prompt, a record.
type Change struct {
	// Name is what was modified; it follows the entry's action after a colon.
	Name string
	// Before and After are what it was and what it is. The zero Object is for what
	// was not there.
	Before, After audit.Object
	// Data is what else there is to say: who (AgentID, Metadata), by whose leave
	// (Authority), of what (Resource), whether it failed (Err). Inputs and Outputs
	// are made from the change.
	Data
}

// RecordChange tells the hooks of a modification: the entry is a CONFIG_CHANGE with
// inputs {"before":…} and outputs {"after":…,"diff":[…]}, the diff as Diff makes
// it. It is told also where nothing has changed: the diff is empty then. Values
// that have no JSON text, and what Trigger returns, are errors.
func (m *Manager) RecordChange(ctx context.Context, c Change) error {
	d, err := c.data()
	if err != nil {
		return fmt.Errorf("record change: %w", err)
	}
	_, err = m.Trigger(ctx, Event(ConfigChange), d)
	return err
}

func (c *Change) data() (Data, error) {
	diff, err := Diff(c.Before, c.After)
	if err != nil {
		return Data{}, err
	}
	d := c.Data
	if c.Name != "" {
		d.Name = c.Name
	}
	d.Inputs = audit.Of(map[string]any{"before": c.Before})
	d.Outputs = audit.Raw(slices.Concat([]byte(`{"after":`), text(c.After), []byte(`,"diff":`), diff, []byte(`}`)))
	return d, nil
}

// text is the JSON text of an object that is known to have one.
func text(o audit.Object) []byte {
	b, _ := o.AppendJSON(nil)
	return b
}

// Diff gives the operations that make after of before: a JSON Patch (RFC 6902) of
// add, remove and replace, in the order in which they are to be applied. A value
// that is no object counts as {"value":…}, the zero Object as {}. Of arrays, what
// they have in common at both ends is left alone. Numbers that are spelled
// differently differ.
func Diff(before, after audit.Object) (json.RawMessage, error) {
	a, err := decoded(before)
	if err != nil {
		return nil, fmt.Errorf("before: %w", err)
	}
	b, err := decoded(after)
	if err != nil {
		return nil, fmt.Errorf("after: %w", err)
	}
	patch := []operation{}
	diff(&patch, "", a, b)
	return json.Marshal(patch)
}

func decoded(o audit.Object) (v any, err error) {
	text, err := o.AppendJSON(nil)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	return v, d.Decode(&v)
}

// operation is one of a patch (RFC 6902 §4). A remove has no value; the value of
// another may be null.
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value *any   `json:"value,omitempty"`
}

// pointer escapes a member's name in a JSON pointer (RFC 6901 §3).
var pointer = strings.NewReplacer("~", "~0", "/", "~1")

func diff(patch *[]operation, path string, a, b any) {
	if reflect.DeepEqual(a, b) {
		return
	}
	switch x := a.(type) {
	case map[string]any:
		if y, ok := b.(map[string]any); ok {
			diffObjects(patch, path, x, y)
			return
		}
	case []any:
		if y, ok := b.([]any); ok {
			diffArrays(patch, path, x, y)
			return
		}
	}
	*patch = append(*patch, operation{"replace", path, &b})
}

func diffObjects(patch *[]operation, path string, a, b map[string]any) {
	for _, name := range slices.Sorted(maps.Keys(a)) {
		at := path + "/" + pointer.Replace(name)
		if v, ok := b[name]; ok {
			diff(patch, at, a[name], v)
		} else {
			*patch = append(*patch, operation{"remove", at, nil})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(b)) {
		if _, ok := a[name]; !ok {
			v := b[name]
			*patch = append(*patch, operation{"add", path + "/" + pointer.Replace(name), &v})
		}
	}
}

func diffArrays(patch *[]operation, path string, a, b []any) {
	first := 0
	for first < min(len(a), len(b)) && reflect.DeepEqual(a[first], b[first]) {
		first++
	}
	a, b = a[first:], b[first:]
	for len(a) > 0 && len(b) > 0 && reflect.DeepEqual(a[len(a)-1], b[len(b)-1]) {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	at := func(i int) string { return path + "/" + strconv.Itoa(first+i) }
	both := min(len(a), len(b))
	for i := range both {
		diff(patch, at(i), a[i], b[i])
	}
	for i := len(a) - 1; i >= both; i-- { // from the end: no index moves
		*patch = append(*patch, operation{"remove", at(i), nil})
	}
	for i := both; i < len(b); i++ {
		*patch = append(*patch, operation{"add", at(i), &b[i]})
	}
}
