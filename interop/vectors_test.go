package interop

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"testing"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/kaizen-audit/kaizen-audit/internal/tree"
	"github.com/kaizen-audit/kaizen-audit/internal/trust"
)

// vector is a line of testdata/merkle-*.jsonl.
type vector struct {
	File    string
	WantErr bool
	Proof   [][]byte

	LeafIdx, TreeSize uint64 // inclusion
	Root, LeafHash    []byte

	Size1, Size2 uint64 // consistency
	Root1, Root2 []byte
}

func vectors(t *testing.T, name string) (out []vector) {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(b) {
		var v vector
		if err := json.Unmarshal(line, &v); err != nil {
			t.Fatal(err)
		}
		out = append(out, v)
	}
	if len(out) != 98 {
		t.Fatalf("%s has %d vectors, not 98", name, len(out))
	}
	return out
}

// asRoot lets vectors through that have words such as "don't care 1" for a
// root: equal words stay equal, others differ.
func asRoot(b []byte) tlog.Hash {
	if h, ok := asHash(b); ok {
		return h
	}
	return sha256.Sum256(b)
}

// asHash refuses what is no hash: a checker that takes fixed arrays has
// refused it by its type.
func asHash(b []byte) (h tlog.Hash, ok bool) {
	return h, len(b) == len(h) && copy(h[:], b) == len(h)
}

func asHashes(proof [][]byte) (out []tlog.Hash, ok bool) {
	for _, b := range proof {
		h, ok := asHash(b)
		if !ok {
			return nil, false
		}
		out = append(out, h)
	}
	return out, true
}

func TestInclusionVectors(t *testing.T) {
	for _, v := range vectors(t, "merkle-inclusion.jsonl") {
		leaf, ok1 := asHash(v.LeafHash)
		proof, ok2 := asHashes(v.Proof)
		accepted := ok1 && ok2 && v.LeafIdx < v.TreeSize && v.TreeSize < 1<<62 &&
			tlog.CheckRecord(proof, int64(v.TreeSize), asRoot(v.Root), int64(v.LeafIdx), leaf) == nil
		if accepted == v.WantErr {
			t.Errorf("%s: accepted %v", v.File, accepted)
		}
	}
}

// fromNothing is where we differ on purpose: transparency-dev/merkle refuses
// to check that a tree extends the empty one, as there is nothing to check. A
// request to a witness that saw nothing yet has just this form
// (c2sp.org/tlog-witness: old 0 and no hashes).
const fromNothing = "testdata/consistency/additional/size1-is-zero-and-size2-is-not-zero.json"

// TestConsistencyVectors: the same verdicts from x/mod and from our check of a
// proof file, which has signed checkpoints around the hashes.
func TestConsistencyVectors(t *testing.T) {
	signer, verifier := testKey(t)
	for _, v := range vectors(t, "merkle-consistency.jsonl") {
		root1, root2 := asRoot(v.Root1), asRoot(v.Root2)
		proof, ok := asHashes(v.Proof)
		if !ok || v.Size1 > 1<<62 || v.Size2 > 1<<62 {
			if !v.WantErr {
				t.Errorf("%s: sizes or hashes that no checker of ours can be given", v.File)
			}
			continue
		}
		if v.Size1 > 0 && v.Size1 < v.Size2 { // what x/mod's function is for
			if accepted := tlog.CheckTree(proof, int64(v.Size2), root2, int64(v.Size1), root1) == nil; accepted == v.WantErr {
				t.Errorf("%s: x/mod accepted %v", v.File, accepted)
			}
		}
		err := checkConsistency(signer, verifier, int64(v.Size1), root1, int64(v.Size2), root2, proof)
		want := !v.WantErr
		if v.File == fromNothing {
			want = true
		}
		if accepted := err == nil; accepted != want {
			t.Errorf("%s: ours accepted %v: %v", v.File, accepted, err)
		}
	}
}

func testKey(t *testing.T) (note.Signer, note.Verifier) {
	t.Helper()
	skey, vkey, err := note.GenerateKey(nil, "example.com/vectors")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	return signer, verifier
}

func checkConsistency(signer note.Signer, verifier note.Verifier, size1 int64, root1 tlog.Hash, size2 int64, root2 tlog.Hash, proof []tlog.Hash) error {
	old, err := tree.Sign(signer, size1, tree.Hash(root1))
	if err != nil {
		return err
	}
	latest, err := tree.Sign(signer, size2, tree.Hash(root2))
	if err != nil {
		return err
	}
	_, err = tree.CheckConsistency(consistencyFile(size1, proof, latest.Signed), old, trust.By(verifier))
	return err
}

// consistencyFile is the body of a request to a witness (c2sp.org/tlog-witness).
func consistencyFile(size int64, proof []tlog.Hash, signed []byte) []byte {
	b := fmt.Appendf(nil, "old %d\n", size)
	for _, h := range proof {
		b = append(base64.StdEncoding.AppendEncode(b, h[:]), '\n')
	}
	return append(append(b, '\n'), signed...)
}

// TestLogOfAnotherImplementation: our reader accepts the checkpoints that
// tessera signed, and our check the proofs between any two of them.
func TestLogOfAnotherImplementation(t *testing.T) {
	verifier, err := note.NewVerifier("example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx")
	if err != nil {
		t.Fatal(err)
	}
	var hashes hashList
	bundle, err := os.ReadFile("testdata/tessera-log/tile/entries/000.p/15")
	if err != nil {
		t.Fatal(err)
	}
	var checkpoints []tree.Checkpoint
	for n := int64(0); ; n++ {
		signed, err := os.ReadFile(fmt.Sprintf("testdata/tessera-log/checkpoint.%d", n))
		if err != nil {
			t.Fatal(err)
		}
		c, err := tree.ParseCheckpoint(signed, trust.By(verifier))
		if err != nil {
			t.Fatalf("checkpoint of size %d: %v", n, err)
		}
		root, err := tlog.TreeHash(n, hashes)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			root = tlog.Hash(tree.EmptyRoot)
		}
		if c.Size != n || tlog.Hash(c.Root) != root {
			t.Fatalf("checkpoint of size %d has size %d and root %x, the entries have %s", n, c.Size, c.Root, root)
		}
		changed := bytes.Clone(signed)
		changed[len(changed)/2] ^= 1
		if _, err := tree.ParseCheckpoint(changed, trust.By(verifier)); err == nil {
			t.Errorf("checkpoint of size %d is accepted with a changed byte", n)
		}
		checkpoints = append(checkpoints, c)
		if n == 15 {
			break
		}
		entry, rest, err := torchwood.ReadTileEntry(bundle)
		if err != nil {
			t.Fatal(err)
		}
		bundle = rest
		stored, err := tlog.StoredHashes(n, entry, hashes)
		if err != nil {
			t.Fatal(err)
		}
		hashes = append(hashes, stored...)
	}
	for _, latest := range checkpoints {
		for _, old := range checkpoints[:latest.Size+1] {
			var proof tlog.TreeProof
			if old.Size > 0 && old.Size < latest.Size {
				if proof, err = tlog.ProveTree(latest.Size, old.Size, hashes); err != nil {
					t.Fatal(err)
				}
			}
			file := consistencyFile(old.Size, proof, latest.Signed)
			if _, err := tree.CheckConsistency(file, old, trust.By(verifier)); err != nil {
				t.Errorf("%d to %d: %v", old.Size, latest.Size, err)
			}
			if other := checkpoints[(old.Size+1)%16]; other.Size <= latest.Size {
				if _, err := tree.CheckConsistency(file, other, trust.By(verifier)); err == nil {
					t.Errorf("the proof from %d to %d is accepted for %d", old.Size, latest.Size, other.Size)
				}
			}
		}
	}
}

// hashList is the stored hashes of a tree in memory.
type hashList []tlog.Hash

func (l hashList) ReadHashes(indexes []int64) (out []tlog.Hash, err error) {
	for _, i := range indexes {
		out = append(out, l[i])
	}
	return out, nil
}
