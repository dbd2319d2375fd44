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

// What a ring holds is what was written, wherever it ends; anything else is no
// frame.
func FuzzParseRing(f *testing.F) {
	for _, kind := range []*ringKind{durableRing, writtenRing} {
		data := filledRing(f, kind, 9)
		f.Add(data)
		f.Add(data[:2*ringBlock])
		f.Add([]byte(kind.magic))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		last := uint64(0)
		for _, fr := range parseRing(data) {
			if last != 0 && fr.seq != last+1 || fr.kind == nil || fr.first < 0 || fr.offset < 0 || len(fr.batch) == 0 || fr.batch[len(fr.batch)-1] != '\n' {
				t.Fatalf("%q gives %+v", data, fr)
			}
			last = fr.seq
		}
	})
}
