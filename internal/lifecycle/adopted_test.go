package lifecycle

import (
	"math"
	"testing"
)

const created = `{"event_type":"AUDIT_CREATED","agent_id":"kaizen-audit","outputs":{"adopted":{"first":1,"count":3,"bytes":9,"sha256":"00","file":"a.adopted.jsonl"}}}`

func TestOnlyEntryZeroNamesAdoptedLines(t *testing.T) {
	var a Adopted
	a.See(0, []byte(created))
	want := Adopted{1, 3, 9, "00", "a.adopted.jsonl"}
	if a != want {
		t.Fatalf("%+v", a)
	}
	a.See(2, []byte(`{"event_type":"AUDIT_CREATED","agent_id":"kaizen-audit","outputs":{"adopted":{"first":1,"count":1}}}`))
	if a != want {
		t.Fatalf("line 2 changes it to %+v", a)
	}
	for index, in := range []bool{false, true, true, true, false} {
		if a.Has(int64(index)) != in {
			t.Errorf("line %d", index)
		}
	}
	for _, line := range []string{
		"", "{", `{"adopted":{"first":1,"count":1}}`,
		`{"event_type":"AUDIT_CREATED","agent_id":"other","outputs":{"adopted":{"first":1,"count":1}}}`,
		`{"event_type":"AUDIT_SEAL","agent_id":"kaizen-audit","outputs":{"adopted":{"first":1,"count":1}}}`,
		`{"event_type":"AUDIT_CREATED","agent_id":"kaizen-audit","outputs":{"adopted":{"first":0,"count":1}}}`,
		`{"event_type":"AUDIT_CREATED","agent_id":"kaizen-audit","outputs":{"adopted":{"first":1,"count":-1}}}`,
		`{"event_type":"AUDIT_CREATED","agent_id":"kaizen-audit","outputs":{"adopted":[1]}}`,
	} {
		if a.See(0, []byte(line)); a != (Adopted{}) {
			t.Errorf("%s gives %+v", line, a)
		}
	}
}

func FuzzAdopted(f *testing.F) {
	f.Add([]byte(created))
	f.Add([]byte(`{"event_type":"AUDIT_CREATED","agent_id":"kaizen-audit","outputs":{"adopted":{"first":1,"count":9223372036854775807}}}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		var a Adopted
		a.See(0, line)
		if a.Has(0) || a.Has(-1) || a.Has(math.MaxInt64) || a.Count < 0 || a.Count > 0 && !a.Has(a.Count) {
			t.Fatalf("%s gives %+v", line, a)
		}
	})
}
