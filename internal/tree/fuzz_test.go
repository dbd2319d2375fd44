package tree

import (
	"crypto/sha256"
	"fmt"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/trust"
)

const (
	vectorSkey = "PRIVATE+KEY+example.com/trail+b6a9731a+AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB"
	vectorVkey = "example.com/trail+b6a9731a+AYqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c"
	vectorNote = "example.com/trail\n3\nNL/bZVvIdHiZZ7wQXx/xgyW7fve51bC0BF2EMGZMopM=\n\n" +
		"\u2014 example.com/trail tqlzGu9nMpE1o87ZJQ70I38jlYwTr1ityUuD0dlZg8pWeMJi08NLAgEsKj+ZKmMU1dVb1msR2Gnn0DPOqAEMKJTt8wI=\n"
)

func vectorKeys(t testing.TB) (note.Signer, note.Verifier) {
	t.Helper()
	s, err1 := note.NewSigner(vectorSkey)
	v, err2 := note.NewVerifier(vectorVkey)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	return s, v
}

// The published checkpoint comes out byte for byte.
func TestCheckpointVector(t *testing.T) {
	s, v := vectorKeys(t)
	b := NewBuilder()
	for i := range 3 {
		b.Append(sha256.Sum256(fmt.Appendf(nil, `{"n":%d}`, i)))
	}
	c, err := Sign(s, 3, b.Root())
	if err != nil || string(c.Signed) != vectorNote {
		t.Fatalf("%s, %v", c.Signed, err)
	}
	if c, err = ParseCheckpoint([]byte(vectorNote), trust.By(v)); err != nil || c.Size != 3 || c.Root != b.Root() {
		t.Fatalf("%+v, %v", c, err)
	}
}

// Every entry of trees of many sizes is proved and checked; a proof holds for
// no other line, and each checkpoint is proved to extend each older one.
func TestProofs(t *testing.T) {
	s, v := vectorKeys(t)
	digest := func(i int64) Hash { return sha256.Sum256(fmt.Append(nil, i)) }
	for _, size := range []int64{1, 2, 3, 7, 255, 256, 257, 700} {
		store := NewStore(durable.OS, t.TempDir())
		b := NewBuilder()
		var older []Checkpoint
		for i := range size {
			b.Append(digest(i))
			if b.Size() == 1 || b.Size() == size/2 || b.Size() == 256 {
				c, err := Sign(s, b.Size(), b.Root())
				if err != nil {
					t.Fatal(err)
				}
				older = append(older, c)
			}
		}
		if err := store.Flush(b.Snapshot()); err != nil {
			t.Fatal(err)
		}
		c, err := Sign(s, size, b.Root())
		if err != nil {
			t.Fatal(err)
		}
		for i := range size {
			p, err := store.Inclusion(c, i)
			if err != nil {
				t.Fatal(err)
			}
			if at, _, err := CheckInclusion(p, digest(i), trust.By(v)); err != nil || at != i {
				t.Fatalf("entry %d of %d: %d, %v", i, size, at, err)
			}
			if _, _, err := CheckInclusion(p, digest(i+1), trust.By(v)); err == nil {
				t.Fatalf("entry %d of %d: the proof holds for another line", i, size)
			}
		}
		for _, o := range older {
			p, err := store.Consistency(o, c)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := CheckConsistency(p, o, trust.By(v)); err != nil {
				t.Fatalf("%d to %d: %v", o.Size, size, err)
			}
			other := o
			other.Root[0] ^= 1
			if _, err := CheckConsistency(p, other, trust.By(v)); err == nil {
				t.Fatalf("%d to %d: another history passes", o.Size, size)
			}
		}
	}
}

func FuzzParseCheckpoint(f *testing.F) {
	_, v := vectorKeys(f)
	f.Add([]byte(vectorNote))
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, err := ParseCheckpoint(data, trust.By(v)); err == nil && (c.Size != 3 || c.Origin != "example.com/trail") {
			t.Fatalf("forged: %q", data)
		}
	})
}

func FuzzCheckInclusion(f *testing.F) {
	_, v := vectorKeys(f)
	d := sha256.Sum256([]byte(`{"n":2}`))
	good := proofHeader + "index 2\nDKDun4n2rf96u63J7ER4KCZYpTpif600YWeN1n+xihg=\n\n" + vectorNote
	if at, _, err := CheckInclusion([]byte(good), d, trust.By(v)); err != nil || at != 2 {
		f.Fatal(at, err)
	}
	f.Add([]byte(good))
	f.Fuzz(func(t *testing.T, data []byte) {
		if at, _, err := CheckInclusion(data, d, trust.By(v)); err == nil && at != 2 {
			t.Fatalf("forged: %q", data)
		}
	})
}

func FuzzCheckConsistency(f *testing.F) {
	_, v := vectorKeys(f)
	b := NewBuilder()
	b.Append(sha256.Sum256([]byte(`{"n":0}`)))
	old := Checkpoint{Origin: "example.com/trail", Size: 1, Root: b.Root()}
	good := "old 1\nbMafAv6FR3Q8ml16LnR+HrGd8R3ebIS817h0M4OcFpo=\n17KOQ55yFDKfPSxmQwPe8WoGx8sThnghrok9e5sloEQ=\n\n" + vectorNote
	if _, err := CheckConsistency([]byte(good), old, trust.By(v)); err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(good))
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, err := CheckConsistency(data, old, trust.By(v)); err == nil && c.Size != 3 {
			t.Fatalf("forged: %q", data)
		}
	})
}

// FuzzSigningRequest: what a writer asks to have signed is a tree that continues the
// signed one, or is refused; nothing else is taken for it.
func FuzzSigningRequest(f *testing.F) {
	_, v := vectorKeys(f)
	last, err := ParseCheckpoint([]byte(vectorNote), trust.By(v))
	if err != nil {
		f.Fatal(err)
	}
	store, b := NewStore(durable.OS, f.TempDir()), NewBuilder()
	for i := range 5 {
		b.Append(sha256.Sum256(fmt.Appendf(nil, `{"n":%d}`, i)))
	}
	snap := b.Snapshot()
	if err := store.Flush(snap); err != nil {
		f.Fatal(err)
	}
	c := Checkpoint{Origin: last.Origin, Size: snap.Size, Root: snap.Root}
	good, err := store.SigningRequest(last.Size, c, c)
	if err != nil {
		f.Fatal(err)
	}
	if err := CheckSigningRequest(good, last); err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)-3])
	f.Add([]byte("old 3\n\n" + last.Text()))
	f.Add([]byte("old 3\n\n" + vectorNote))
	f.Add([]byte("old 0\n\n"))
	f.Fuzz(func(t *testing.T, request []byte) {
		size, got, err := ParseSigningRequest(request)
		if err != nil {
			return
		}
		if got.Size < 0 || size < 0 || len(got.Signed) > 0 {
			t.Errorf("%+v of %q", got, request)
		}
		if CheckSigningRequest(request, last) == nil && got.Root != c.Root && got.Root != last.Root && got.Size >= last.Size {
			t.Errorf("another history passes: %q", request)
		}
	})
}
