package seal

import (
	"bytes"
	"compress/flate"
	"io"
	"math/rand/v2"
	"testing"
)

// FuzzDeflateShort: what is compressed here is what the standard library unpacks.
func FuzzDeflateShort(f *testing.F) {
	f.Add([]byte(`{"status":"ok","result":{"cabin":"economy","passengers":2}}`))
	f.Add(bytes.Repeat([]byte("a"), 2000))
	f.Add(dictionary1[len(dictionary1)-300:])
	f.Add([]byte{0xff, 0x80, 0x90, 0xff, 0x80, 0x90, 0xff, 0x80, 0x90})
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20 { // every length and distance code
		data := make([]byte, rng.IntN(deflateLimit))
		for i := range data {
			data[i] = byte('a' + rng.IntN(3))
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > deflateLimit {
			return
		}
		out, err := io.ReadAll(flate.NewReaderDict(bytes.NewReader(deflateShort(nil, data)), dictionary1))
		if err != nil || !bytes.Equal(out, data) {
			t.Fatalf("%v: %q became %q", err, data, out)
		}
	})
}

func BenchmarkPack(b *testing.B) {
	data := []byte(`{"status":"ok","result":{"cabin":"economy","passengers":2,"first_name":"Mia","last_name":"Li"}}`)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		out, _ := pack(nil, data)
		n = len(out)
	}
	b.ReportMetric(float64(n), "bytes")
}
