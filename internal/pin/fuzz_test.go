package pin

import "testing"

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"format":1,"origin":"o","vkey":"v"}`))
	f.Add([]byte(`{"format":2,"origin":"o"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if p, err := Parse(data); err == nil && (p.Format != format || p.Origin == "") {
			t.Fatalf("%+v", p)
		}
	})
}
