package archive

import "testing"

func FuzzFacts(f *testing.F) {
	f.Add([]byte(`{"format":1,"sha256":"00","retain_until":"2033-01-02T03:04:05Z","held":true}`))
	f.Add([]byte(`{"format":2}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if known, err := parseFacts(data); err == nil && known.Format != factsFormat {
			t.Errorf("format %d was taken", known.Format)
		}
	})
}
