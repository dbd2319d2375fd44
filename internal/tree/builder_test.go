package tree

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

// The three lines and roots of the published vector.
func TestVector(t *testing.T) {
	b := NewBuilder()
	want := []string{
		"jCe12ndsgPHp+Y3Ff46Q32oJ29dtO/mYvJ9jupkXvTU=",
		"DKDun4n2rf96u63J7ER4KCZYpTpif600YWeN1n+xihg=",
		"NL/bZVvIdHiZZ7wQXx/xgyW7fve51bC0BF2EMGZMopM=",
	}
	for i, w := range want {
		b.Append(sha256.Sum256(fmt.Appendf(nil, `{"n":%d}`, i)))
		root := b.Root()
		if got := base64.StdEncoding.EncodeToString(root[:]); got != w {
			t.Errorf("root of size %d = %s, want %s", i+1, got, w)
		}
	}
}

// Every size up to beyond two tile levels has the root that x/mod computes.
func TestRootAgreesWithTlog(t *testing.T) {
	b := NewBuilder().RootOnly()
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, x := range indexes {
			out[i] = stored[x]
		}
		return out, nil
	})
	if b.Root() != EmptyRoot {
		t.Fatal("empty root")
	}
	for i := range int64(66_000) {
		d := sha256.Sum256(fmt.Append(nil, i))
		hs, err := tlog.StoredHashes(i, d[:], reader)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, hs...)
		b.Append(d)
		if i > 600 && i < 65_000 && i%997 != 0 {
			continue
		}
		want, err := tlog.TreeHash(i+1, reader)
		if err != nil {
			t.Fatal(err)
		}
		if tlog.Hash(b.Root()) != want {
			t.Fatalf("root of size %d differs", i+1)
		}
	}
}

func TestPath(t *testing.T) {
	for _, c := range []struct {
		level int
		n     int64
		width int
		want  string
	}{
		{0, 5, 0, "tile/0/005"},
		{0, 273, 112, "tile/0/273.p/112"},
		{1, 1234067, 256, "tile/1/x001/x234/067"},
		{Bundles, 0, 1, "tile/entries/000.p/1"},
		{2, 1000, 0, "tile/2/x001/000"},
	} {
		if got := Path(c.level, c.n, c.width); got != c.want {
			t.Errorf("Path(%d, %d, %d) = %s, want %s", c.level, c.n, c.width, got, c.want)
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	t := NewBuilder().RootOnly()
	d := sha256.Sum256(nil)
	b.ReportAllocs()
	for b.Loop() {
		t.Append(d)
	}
}
