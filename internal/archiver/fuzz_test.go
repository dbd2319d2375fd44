package archiver

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

func FuzzState(f *testing.F) {
	f.Add([]byte(`{"format":1,"to":"file:///a","sealed":3,"lines":5,"checkpoint":5,"at":"2026-01-02T03:04:05Z"}`))
	f.Add([]byte(`{"format":1,"to":"s3://b","error":"no","failing":"2026-01-02T03:04:05Z","holds":"a b to 3"}`))
	f.Add([]byte(`{"format":1,"lines":-1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := parseState(data)
		if err != nil {
			return
		}
		text, err := json.Marshal(s)
		if err != nil {
			return // a year that JSON has no form for
		}
		if again, err := parseState(text); err != nil || again.Lines != s.Lines || again.To != s.To {
			t.Errorf("%+v became %+v, %v", s, again, err)
		}
	})
}

func FuzzNames(f *testing.F) {
	f.Add("segments/00000000000000000000.jsonl.zst")
	f.Add("checkpoints/12")
	f.Add("tail/00000000000000000007.jsonl")
	f.Fuzz(func(t *testing.T, name string) {
		if first, ok := firstIn(name, segmentsDir, sealedSuffix); ok && segmentFile(first) != name {
			t.Errorf("%q is taken for segment %d", name, first)
		}
		if first, ok := firstIn(name, tailDir, plainSuffix); ok && tailFile(first) != name {
			t.Errorf("%q is taken for the tail at %d", name, first)
		}
		if size, ok := sizeIn(name); ok && size < 0 {
			t.Errorf("%q has size %d", name, size)
		}
	})
}

func FuzzReference(f *testing.F) {
	sum := strings.Repeat("0a", 32)
	f.Add([]byte(`{"format":1,"first":3,"count":2,"stored":9,"sha256":"` + sum + `","from":"file:///a","own":[{"index":4,"line":"{}"}]}`))
	f.Add([]byte(`{"format":1,"first":3,"count":2,"stored":9,"sha256":"` + sum + `","from":"file:///a","own":[{"index":5,"line":"{}"}]}`))
	f.Add([]byte(`{"format":2}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ParseReference(data)
		if err != nil {
			return
		}
		text, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseReference(text)
		if err != nil || !reflect.DeepEqual(again, r) {
			t.Errorf("%+v became %+v, %v", r, again, err)
		}
		for _, l := range r.Own {
			if l.Index < r.First || l.Index >= r.First+r.Count {
				t.Errorf("entry %d is not of the segment", l.Index)
			}
		}
	})
}

func FuzzIdentity(f *testing.F) {
	f.Add([]byte(`{"format":1,"origin":"example.com/agents"}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if id, err := parseIdentity(data); err == nil && id.Origin == "" {
			t.Error("an identity without an origin was taken")
		}
	})
}
