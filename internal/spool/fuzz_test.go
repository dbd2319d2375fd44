package spool

import "testing"

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"format":1,"id":"01a206d7-e571-79eb-a84a-6a407a3be418","at":"2026-01-02T03:04:05.678Z","event_type":"AUDIT_QUERY","action":"query","inputs":{},"outputs":{},"metadata":{}}`))
	f.Add([]byte(`{"format":1,"id":"../x"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if item, err := Parse(data); err == nil && (item.Format != Format || !validID.MatchString(item.ID)) {
			t.Fatalf("%+v", item)
		}
	})
}
