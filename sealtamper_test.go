package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What a caller writes is never read as sealed, and never makes anything sealed or
// open.
func TestCallersCantSealOrOpen(t *testing.T) {
	ctx := context.Background()
	path, o := profileTrail(t, "gdpr", Options{})
	trail := openWith(t, path, o)
	mustRecord(t, trail, personalEvent("mia", "t"))
	stored := found(t, trail, Query{})[0]
	envelope := Raw(stored.Line()).Text("inputs")
	if !strings.HasPrefix(envelope, "sealed:v1:") {
		t.Fatal(envelope)
	}
	for _, text := range []string{
		`{"event_type":"X","agent_id":"a","action":"b","policy":{"sealed":["/inputs"]}}`,
		`{"event_type":"X","agent_id":"a","action":"b","nonce":"AAAA"}`,
	} {
		if ev, err := ParseEvent([]byte(text)); err == nil {
			t.Errorf("%s is taken as %+v", text, ev)
		}
	}
	ev := personalEvent("noah", "t")
	ev.Inputs, ev.Purpose = Of(map[string]any{"v": envelope, "policy": map[string]any{"sealed": []string{"/inputs"}}}), envelope
	ev.Metadata = Of(map[string]any{"user_id": "noah", "environment": envelope, "sealed": []string{"/purpose"}})
	mustRecord(t, trail, ev)
	e := found(t, trail, Query{User: "noah"})[0]
	if e.Inputs.Text("v") != envelope || e.Purpose != envelope || e.Metadata.Text("environment") != envelope {
		t.Errorf("%s", e.View())
	}
	if got := sealedPointers(t, e); slices.Contains(got, "/purpose") || slices.Contains(got, "/metadata/environment") {
		t.Errorf("sealed: %v", got)
	}
	// A line that looks sealed as a whole is no line of this trail's.
	if _, err := trail.Record(ctx, Event{EventType: "X", AgentID: "a", Action: "b", Inputs: Of(map[string]any{"sealed": "v1", "key": "k", "data": "d"})}); err != nil {
		t.Error(err)
	}
	verifyIntact(t, path, o)
}

// Whatever is changed in sealed lines is found, and shown to nobody as something else.
func TestChangedSealedLinesAreFound(t *testing.T) {
	for name, change := range map[string]func(a, b map[string]json.RawMessage){
		"fields of two entries": func(a, b map[string]json.RawMessage) { a["inputs"], b["inputs"] = b["inputs"], a["inputs"] },
		"fields of one entry":   func(a, _ map[string]json.RawMessage) { a["inputs"], a["outputs"] = a["outputs"], a["inputs"] },
		"a flipped bit": func(a, _ map[string]json.RawMessage) {
			text := bytes.Clone(a["inputs"])
			if at := len(text) - 10; text[at] == 'A' {
				text[at] = 'B'
			} else {
				text[at] = 'A'
			}
			a["inputs"] = text
		},
		"another version": func(a, _ map[string]json.RawMessage) {
			a["inputs"] = bytes.Replace(a["inputs"], []byte("sealed:v1:"), []byte("sealed:v0:"), 1)
		},
		"a list that is cut": func(a, _ map[string]json.RawMessage) { a["policy"] = json.RawMessage(`{"sealed":["/outputs"]}`) },
		"no list":            func(a, _ map[string]json.RawMessage) { delete(a, "policy") },
		"a plain value":      func(a, _ map[string]json.RawMessage) { a["inputs"] = json.RawMessage(`{"about":"something else"}`) },
	} {
		path, o := profileTrail(t, "gdpr", Options{})
		trail := openWith(t, path, o)
		for _, user := range []string{"mia", "noah"} {
			ev := personalEvent(user, "t")
			ev.Outputs = Of(map[string]any{"of": user})
			mustRecord(t, trail, ev)
		}
		if err := trail.Close(); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		lines := bytes.Split(text, []byte("\n"))
		var at []int
		for i, line := range lines {
			if bytes.Contains(line, []byte(`"event_type":"TOOL_USE"`)) {
				at = append(at, i)
			}
		}
		var a, b map[string]json.RawMessage
		if err := errors.Join(json.Unmarshal(lines[at[0]], &a), json.Unmarshal(lines[at[1]], &b)); err != nil {
			t.Fatal(err)
		}
		change(a, b)
		for i, m := range []map[string]json.RawMessage{a, b} {
			lines[at[i]] = inOrder(t, lines[at[i]], m)
		}
		if err := os.WriteFile(path, bytes.Join(lines, []byte("\n")), 0o600); err != nil {
			t.Fatal(err)
		}
		result, err := VerifyPath(context.Background(), path, &VerifyOptions{StateDir: o.StateDir})
		if err != nil || result.Status != "damaged" || result.FirstBad == nil || *result.FirstBad != int64(at[0]) {
			t.Errorf("%s: %+v, %v", name, result, err)
		}
		reader := *o
		reader.ReadOnly = true
		r := openWith(t, path, &reader)
		for e, err := range r.scan(context.Background(), Query{}) {
			if err != nil {
				continue // it is named as what it is
			}
			if got := e.Inputs.Text("about"); name != "a plain value" && got != "" && got != "canary of "+e.Metadata.Text("user_id") {
				t.Errorf("%s: entry %d shows %s", name, e.Index, e.View())
			}
		}
		if _, err := Open(path, o); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: it is written on: %v", name, err)
		}
	}
}

// inOrder is an object with the members of m in the order of line.
func inOrder(t *testing.T, line []byte, m map[string]json.RawMessage) []byte {
	t.Helper()
	out := []byte{'{'}
	for name := range Raw(line).All() {
		value, ok := m[name]
		if !ok {
			continue
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		text, err := json.Marshal(name)
		if err != nil {
			t.Fatal(err)
		}
		out = append(append(append(out, text...), ':'), value...)
	}
	return append(out, '}')
}

// Wrapped keys open in their own place only.
func TestWrappedKeysCantBeExchanged(t *testing.T) {
	ctx := context.Background()
	for name, change := range map[string]func(t *testing.T, dir string){
		"records of two subjects": func(t *testing.T, dir string) {
			name := filepath.Join(dir, "subjects", "0-1.jsonl")
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			lines := bytes.SplitAfter(bytes.TrimSuffix(text, []byte("\n")), []byte("\n"))
			lines = lines[len(lines)-2:] // mia's and noah's
			var a, b struct{ Handle, Data string }
			if err := errors.Join(json.Unmarshal(lines[0], &a), json.Unmarshal(lines[1], &b)); err != nil {
				t.Fatal(err)
			}
			a.Data, b.Data = b.Data, a.Data
			for i, r := range []struct{ Handle, Data string }{a, b} {
				lines[i] = []byte(`{"handle":"` + r.Handle + `","data":"` + r.Data + "\"}\n")
			}
			if err := os.WriteFile(name, append(text[:len(text)-len(bytes.Join(lines, nil))], bytes.Join(lines, nil)...), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"MAC key and epoch key": func(t *testing.T, dir string) {
			var mac, subjects map[string]json.RawMessage
			for name, to := range map[string]*map[string]json.RawMessage{"mac.key": &mac, "subjects.json": &subjects} {
				text, err := os.ReadFile(filepath.Join(dir, name))
				if err != nil {
					t.Fatal(err)
				}
				if err := json.Unmarshal(text, to); err != nil {
					t.Fatal(err)
				}
			}
			subjects["wrap"] = mac["wrap"]
			text, err := json.Marshal(subjects)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "subjects.json"), text, 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		path, o := profileTrail(t, "gdpr", Options{})
		trail := openWith(t, path, o)
		mustRecord(t, trail, personalEvent("mia", "t"), personalEvent("noah", "t"))
		if err := trail.Close(); err != nil {
			t.Fatal(err)
		}
		change(t, filepath.Join(trailDir(path), "keys"))
		reader := *o
		reader.ReadOnly = true
		if r, err := Open(path, &reader); err == nil {
			for e, err := range r.scan(ctx, Query{}) {
				if err == nil && e.Inputs.Text("about") != "" {
					t.Errorf("%s: entry %d is opened: %s", name, e.Index, e.View())
				}
			}
			r.Close()
		}
		verifyIntact(t, path, o)
	}
}
