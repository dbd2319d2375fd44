package lifecycle

import (
	"bytes"
	"math"
	"strings"
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

// FuzzToSign: what a signer signs as a lifecycle entry is one line of this trail's, with
// room for the signature, and with it is read as what it said.
func FuzzToSign(f *testing.F) {
	const origin = "example.com/log"
	good := `{"timestamp":"2026-01-02T03:04:05.678Z","event_type":"AUDIT_SEAL","agent_id":"kaizen-audit","trace_id":"` + origin +
		`","action":"segment_sealed","inputs":{},"outputs":{},"duration_ms":0,"success":true,"error":null,"metadata":{"principal":"uid:0","signature":""},"event_id":"01890a5d-ac96-774b-bcce-b302099a8057","recorded_at":"2026-01-02T03:04:05.678Z"}`
	if !ToSign([]byte(good), origin) {
		f.Fatal("it is not taken")
	}
	f.Add([]byte(good))
	f.Add([]byte(good + "\n"))
	f.Add([]byte(strings.Replace(good, "AUDIT_SEAL", "AUDIT_READ", 1)))
	f.Add([]byte(strings.Replace(good, `"inputs"`, `"trace_id":"other","inputs"`, 1)))
	f.Add([]byte("example.com/log\n3\nNL/bZVvIdHiZZ7wQXx/xgyW7fve51bC0BF2EMGZMopM=\n"))
	f.Fuzz(func(t *testing.T, line []byte) {
		if !ToSign(line, origin) {
			return
		}
		if bytes.ContainsRune(line, '\n') {
			t.Errorf("%q is more than a line", line)
		}
		at := bytes.LastIndex(line, []byte(`"signature":""`)) + len(`"signature":"`)
		signed := string(line[:at]) + strings.Repeat("A", signatureLength) + string(line[at:])
		if s, err := read(Line{Text: []byte(signed)}); err == nil && (s.TraceID != origin || s.AgentID != "kaizen-audit") {
			t.Errorf("%q is read as another trail's", line)
		}
	})
}
