package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/kaizen-audit/kaizen-audit/internal/export"
	"github.com/kaizen-audit/kaizen-audit/internal/seal"
)

// claim is a disclosure that is to be checked.
type claim struct {
	name  string
	good  bool
	text  []byte
	vkey  string
	taken map[string]bool // by who
}

// judge has each claim checked in Go and by the receiver's script.
func judge(t *testing.T, claims []claim) {
	t.Helper()
	var in []map[string]string
	for i, c := range claims {
		_, err := CheckDisclosure(c.text, c.vkey)
		claims[i].taken = map[string]bool{"go": err == nil}
		in = append(in, map[string]string{"text": string(c.text), "vkey": c.vkey})
	}
	if python, err := exec.LookPath("python3"); err != nil {
		t.Log("no python3 on this machine; the receiver's script was not run")
	} else {
		const driver = `import sys, json
sys.path.insert(0, "clients/python/kaizen_audit")
sys.dont_write_bytecode = True
import check
def taken(c):
    try:
        check.check_disclosure(c["text"], c["vkey"])
        return True
    except check.Failed:
        return False
print(json.dumps([taken(c) for c in json.load(sys.stdin)]))`
		cmd := exec.Command(python, "-c", driver)
		text, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stdin = bytes.NewReader(text)
		out, err := cmd.Output()
		var taken []bool
		if err != nil || json.Unmarshal(out, &taken) != nil || len(taken) != len(claims) {
			t.Fatalf("%v: %s", err, out)
		}
		for i, ok := range taken {
			claims[i].taken["python"] = ok
		}
	}
	for _, c := range claims {
		for who, ok := range c.taken {
			if ok != c.good {
				t.Errorf("%s: %s: taken %v, want %v", who, c.name, ok, c.good)
			}
		}
	}
}

// One field is opened and proved, the others stay sealed; whatever else is made of
// it is refused, in Go and in Python.
func TestDisclose(t *testing.T) {
	ctx := context.Background()
	for _, encrypt := range []bool{false, true} {
		path, o := profileTrail(t, "gdpr", Options{Encrypt: encrypt})
		o.Encrypt = false
		trail := openWith(t, path, o)
		ev := personalEvent("mia", "t1")
		ev.Outputs = Of(map[string]any{"answer": "not for you"})
		mustRecord(t, trail, ev, ev)
		if err := trail.signer.sign(); err != nil {
			t.Fatal(err)
		}
		index := trail.journal.Next() - 1
		for trail.entryIsOwn(ctx, index) {
			index--
		}
		text, err := trail.Disclose(ctx, index, "/inputs")
		if err != nil {
			t.Fatal(err)
		}
		d, err := CheckDisclosure(text, trail.VKey())
		if err != nil || d.Index != index {
			t.Fatalf("%+v, %v", d, err)
		}
		view := string(d.Entry.View())
		if !strings.Contains(view, "canary of mia") || strings.Contains(view, "not for you") || strings.Join(d.Hidden, " ") != "/metadata/user_id /outputs" {
			t.Errorf("%s, hidden %q", view, d.Hidden)
		}
		both, err := trail.Disclose(ctx, index, "/inputs", "/outputs")
		if err != nil {
			t.Fatal(err)
		}
		elsewhere, err := trail.Disclose(ctx, index-1, "/inputs")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := trail.Disclose(ctx, index, "/inputs/about"); !errors.Is(err, ErrInClear) {
			t.Errorf("what is not sealed by itself: %v", err)
		}
		if _, err := trail.Disclose(ctx, 1<<40, "/inputs"); !errors.Is(err, ErrNotFound) {
			t.Errorf("what is not there: %v", err)
		}
		parsed := func(text []byte) export.Disclosure {
			d, err := export.ParseDisclosure(text)
			if err != nil {
				t.Fatal(err)
			}
			return d
		}
		forged := map[string]func(d *export.Disclosure){
			"second key":        func(d *export.Disclosure) { d.Fields[0].Key[5] ^= 1 },
			"other pointer":     func(d *export.Disclosure) { d.Fields[0].Pointer = "/outputs" },
			"pointer unsealed":  func(d *export.Disclosure) { d.Fields[0].Pointer = "/action" },
			"field twice":       func(d *export.Disclosure) { d.Fields = append(d.Fields, d.Fields[0]) },
			"other entry's key": func(d *export.Disclosure) { d.Fields[0].Key = parsed(elsewhere).Fields[0].Key },
			"other entry":       func(d *export.Disclosure) { d.Line = parsed(elsewhere).Line },
			"other proof":       func(d *export.Disclosure) { d.Proof = parsed(elsewhere).Proof },
			"other index":       func(d *export.Disclosure) { d.Index-- },
			"other origin":      func(d *export.Disclosure) { d.Origin += "x" },
			"keys exchanged": func(d *export.Disclosure) {
				b := parsed(both)
				d.Fields = []export.FieldKey{{Pointer: "/inputs", Key: b.Fields[1].Key}, {Pointer: "/outputs", Key: b.Fields[0].Key}}
			},
			"line key": func(d *export.Disclosure) {
				if d.LineKey == nil {
					d.LineKey = &seal.Key{}
				} else {
					d.LineKey[0] ^= 1
				}
			},
			"changed line": func(d *export.Disclosure) {
				d.Line = []byte(strings.Replace(string(d.Line), `"data":"`, `"data":"A`, 1) + " ")
			},
		}
		if encrypt {
			forged["no line key"] = func(d *export.Disclosure) { d.LineKey = nil }
		}
		key := trail.VKey()
		claims := []claim{
			{name: "one", good: true, text: text, vkey: key}, {name: "both", good: true, text: both, vkey: key},
			{name: "elsewhere", good: true, text: elsewhere, vkey: key}, {name: "another trail's key", text: text, vkey: openTemp(t, nil).VKey()},
		}
		for name, forge := range forged {
			d := parsed(text)
			forge(&d)
			bad, err := d.Append(nil)
			if err != nil {
				t.Fatal(err)
			}
			claims = append(claims, claim{name: name, text: bad, vkey: key})
		}
		for name, spelling := range map[string]string{
			"name twice":   strings.Replace(string(text), `{"format"`, `{"line":"","format"`, 1),
			"unknown name": strings.Replace(string(text), `"index"`, `"more":1,"index"`, 1),
			"white space":  strings.Replace(string(text), `,"index"`, `, "index"`, 1),
			"version":      strings.Replace(string(text), `disclosure/v1`, `disclosure/v2`, 1),
		} {
			claims = append(claims, claim{name: name, text: []byte(spelling), vkey: key})
		}
		judge(t, claims)
	}
}

// entryIsOwn tells whether the entry at index is the trail's own.
func (t *Trail) entryIsOwn(ctx context.Context, index int64) bool {
	e, _, err := t.entryAt(ctx, index)
	return err == nil && e.IsTrails()
}

// Of an entry with nothing sealed the whole line goes out, and that is all that can.
func TestDiscloseInClear(t *testing.T) {
	ctx := context.Background()
	trail := openTemp(t, nil)
	mustRecord(t, trail, personalEvent("mia", "t1"))
	if err := trail.signer.sign(); err != nil {
		t.Fatal(err)
	}
	index := found(t, trail, Query{})[0].Index
	if _, err := trail.Disclose(ctx, index, "/inputs"); !errors.Is(err, ErrInClear) {
		t.Errorf("a field alone: %v", err)
	}
	text, err := trail.Disclose(ctx, index)
	if err != nil {
		t.Fatal(err)
	}
	judge(t, []claim{{name: "whole line", good: true, text: text, vkey: trail.VKey()}})
	var asked []string
	for _, e := range found(t, trail, Query{EventTypes: []string{"AUDIT_EXPORT"}}) {
		b, err := json.Marshal(e.Inputs)
		if err != nil {
			t.Fatal(err)
		}
		asked = append(asked, string(b))
	}
	if len(asked) != 2 || !strings.Contains(asked[0], `"/inputs"`) {
		t.Errorf("recorded %q", asked)
	}
}
