package journal

import "testing"

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(`{"format":1,"segments":[{"first":0,"count":2,"file":"00000000000000000000.jsonl.zst","bytes":9,"stored":5,"root":"00"},{"first":2,"count":1,"file":"00000000000000000002.jsonl.zst","bytes":9}]}`))
	f.Add([]byte(`{"format":1,"segments":[{"first":9223372036854775807,"count":1,"file":"x"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := ParseManifest(data)
		if err != nil {
			return
		}
		end := int64(0)
		for _, s := range list {
			if s.First < end || s.Count < 0 || s.First+s.Count < s.First || !isSegmentName(s.File, s.First) {
				t.Fatalf("%q gives %+v", data, list)
			}
			end = s.First + s.Count
		}
	})
}
