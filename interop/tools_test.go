package interop

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/torchwood"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/api"
	"github.com/transparency-dev/tessera/client"
	"github.com/transparency-dev/tessera/fsck"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	audit "github.com/kaizen-audit/kaizen-audit"
)

// damages are what someone with write access to the proof side may do. The
// judges below look at nothing else: they need no line.
var damages = []struct {
	name string
	do   func(t *testing.T, c trail)
}{
	{"changed entry in the first bundle", func(t *testing.T, c trail) { c.change(t, "tile/entries/000", flip(100)) }},
	{"two entries of a bundle swapped", func(t *testing.T, c trail) {
		c.change(t, "tile/entries/100", func(b []byte) []byte {
			first := bytes.Clone(b[:34])
			copy(b, b[34:68])
			copy(b[34:68], first)
			return b
		})
	}},
	{"changed hash tile", func(t *testing.T, c trail) { c.change(t, "tile/0/007", flip(-1)) }},
	{"changed tile of level 1", func(t *testing.T, c trail) { c.change(t, "tile/1/000", flip(40)) }},
	{"missing bundle", func(t *testing.T, c trail) { remove(t, c, "tile/entries/200") }},
	{"changed entry in the last bundle", func(t *testing.T, c trail) { c.change(t, lastBundle(c), flip(-1)) }},
	{"changed root", func(t *testing.T, c trail) {
		c.change(t, "checkpoint", func(b []byte) []byte {
			lines := strings.Split(string(b), "\n")
			lines[2] = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
			return []byte(strings.Join(lines, "\n"))
		})
	}},
	{"smaller size", func(t *testing.T, c trail) {
		c.change(t, "checkpoint", func(b []byte) []byte {
			return bytes.Replace(b, fmt.Appendf(nil, "\n%d\n", c.size), fmt.Appendf(nil, "\n%d\n", c.size-1), 1)
		})
	}},
}

func remove(t *testing.T, c trail, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(c.dir, name)); err != nil {
		t.Fatal(err)
	}
}

func lastBundle(c trail) string { return bundlePath(c.size/256, int(c.size%256)) }

func bundlePath(n int64, width int) string {
	return torchwood.TilePath(tlog.Tile{H: torchwood.TileHeight, L: -1, N: n, W: width})
}

// judged has a judge accept the intact trail and refuse each damaged copy.
func judged(t *testing.T, judge func(t *testing.T, c trail) error) {
	if err := judge(t, intact); err != nil {
		t.Fatalf("the intact trail is refused: %v", err)
	}
	for _, d := range damages {
		t.Run(d.name, func(t *testing.T) {
			c := intact.copy(t)
			d.do(t, c)
			if err := judge(t, c); err == nil {
				t.Error("the damaged trail is accepted")
			} else {
				t.Logf("%.200s", err)
			}
		})
	}
	t.Run("another key", func(t *testing.T) {
		_, vkey, err := note.GenerateKey(nil, intact.origin)
		if err != nil {
			t.Fatal(err)
		}
		c := intact
		c.vkey = vkey
		if err := judge(t, c); err == nil {
			t.Error("a checkpoint of another key is accepted")
		}
	})
}

func TestTesseraFsckLibraryAcceptsTheTrail(t *testing.T) {
	judged(t, func(t *testing.T, c trail) error {
		// One worker would hang for ever on some damage: nobody drains its queue.
		check := fsck.New(c.origin, c.verifier(t), client.FileFetcher{Root: c.dir}, leafHashes, fsck.Opts{N: 16})
		return check.Check(bounded(t))
	})
}

// leafHashes is the bundle format of c2sp.org/tlog-tiles.
func leafHashes(bundle []byte) (out [][]byte, err error) {
	var b api.EntryBundle
	if err := b.UnmarshalText(bundle); err != nil {
		return nil, err
	}
	for _, e := range b.Entries {
		out = append(out, rfc6962.DefaultHasher.HashLeaf(e))
	}
	return out, nil
}

// TestTesseraFsckCommandAcceptsTheTrail runs the stock command. Its exit
// status is 0 also when it fails, so the line that says it succeeded decides.
func TestTesseraFsckCommandAcceptsTheTrail(t *testing.T) {
	command := filepath.Join(t.TempDir(), "fsck")
	if out, err := exec.CommandContext(bounded(t), "go", "build", "-o", command,
		"github.com/transparency-dev/tessera/cmd/fsck").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	judged(t, func(t *testing.T, c trail) error {
		key := filepath.Join(t.TempDir(), "vkey")
		if err := os.WriteFile(key, []byte(c.vkey+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(bounded(t), 30*time.Second)
		defer cancel()
		out, err := exec.CommandContext(ctx, command,
			"--storage_url=file://"+c.dir+"/", "--public_key="+key, "--ui=false", "--N=16").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		if !strings.Contains(string(out), fmt.Sprintf("Successfully fsck'd log with size %d ", c.size)) {
			return fmt.Errorf("no line of success in %s", out)
		}
		return nil
	})
}

// strict asks for the trail's origin and its key.
func strict(t *testing.T, c trail) torchwood.Policy {
	return torchwood.ThresholdPolicy(2, torchwood.OriginPolicy(c.origin), torchwood.SingleVerifierPolicy(c.verifier(t)))
}

func TestTorchwoodClientAcceptsTheTrail(t *testing.T) {
	digests := intact.digests(t)
	judged(t, func(t *testing.T, c trail) error {
		checkpoint, _, err := torchwood.VerifyCheckpoint(c.checkpoint(t), strict(t, c))
		if err != nil {
			return err
		}
		tiles, err := torchwood.NewTileFS(os.DirFS(c.dir))
		if err != nil {
			t.Fatal(err)
		}
		tw, err := torchwood.NewClient(tiles)
		if err != nil {
			t.Fatal(err)
		}
		var n int64
		for i, entry := range tw.AllEntries(bounded(t), checkpoint.Tree, 0) {
			if i != n || !bytes.Equal(entry, digests[i][:]) {
				return fmt.Errorf("entry %d is not the digest of line %d", i, n)
			}
			n++
		}
		if err := tw.Err(); err != nil {
			return err
		}
		if n != c.size {
			return fmt.Errorf("%d entries, the checkpoint covers %d", n, c.size)
		}
		return nil
	})
}

// TestNoteOpensTheCheckpoint: a change of any byte of it is refused.
func TestNoteOpensTheCheckpoint(t *testing.T) {
	signed := intact.checkpoint(t)
	verifiers := note.VerifierList(intact.verifier(t))
	n, err := note.Open(signed, verifiers)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(n.Text, "\n")
	if len(n.Sigs) != 1 || n.Sigs[0].Name != intact.origin || len(lines) != 4 || lines[0] != intact.origin {
		t.Errorf("not the form of c2sp.org/tlog-checkpoint: %q", signed)
	}
	for i := range signed {
		changed := bytes.Clone(signed)
		changed[i] ^= 1
		// The last base64 digit of 68 bytes has two bits that mean nothing, and
		// note does not look at them: the same signature spelled otherwise.
		if _, err := note.Open(changed, verifiers); err == nil && !sameSignature(signed, changed) {
			t.Errorf("a checkpoint with byte %d changed is accepted", i)
		}
	}
	// The kept ones too.
	kept, err := fs.Glob(os.DirFS(intact.dir), "checkpoints/*")
	if err != nil || len(kept) < 3 {
		t.Errorf("%d checkpoints are kept, %v; each of the seals has one", len(kept), err)
	}
	for _, name := range kept {
		n, err := note.Open(intact.read(t, name), verifiers)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if size := strings.Split(n.Text, "\n")[1]; size != filepath.Base(name) {
			t.Errorf("%s is of size %s", name, size)
		}
	}
}

// sameSignature reports whether two notes differ only in how the base64 of
// their one signature is spelled.
func sameSignature(a, b []byte) bool {
	at := bytes.LastIndexByte(a, ' ') + 1
	if len(a) != len(b) || !bytes.Equal(a[:at], b[:at]) {
		return false
	}
	x, err1 := base64.StdEncoding.DecodeString(string(bytes.TrimSuffix(a[at:], []byte{'\n'})))
	y, err2 := base64.StdEncoding.DecodeString(string(bytes.TrimSuffix(b[at:], []byte{'\n'})))
	return err1 == nil && err2 == nil && bytes.Equal(x, y)
}

// TestTorchwoodAcceptsOurProofs and we accept torchwood's: the same file
// format, c2sp.org/tlog-proof.
func TestTorchwoodAcceptsOurProofs(t *testing.T) {
	policy := strict(t, intact)
	checkpoint, _, err := torchwood.VerifyCheckpoint(intact.checkpoint(t), policy)
	if err != nil {
		t.Fatal(err)
	}
	tiles, err := torchwood.NewTileFS(os.DirFS(intact.dir))
	if err != nil {
		t.Fatal(err)
	}
	tw, err := torchwood.NewClient(tiles)
	if err != nil {
		t.Fatal(err)
	}
	c := intact.copy(t)
	ours, err := audit.Open(c.log, &audit.Options{ReadOnly: true, StateDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	digests := intact.digests(t)
	for _, index := range []int64{0, 1, 255, 256, 65_535, 65_536, 100_000, intact.size - 1} {
		_, path, err := tw.Entry(t.Context(), checkpoint.Tree, index)
		if err != nil {
			t.Fatal(err)
		}
		theirs := torchwood.FormatProof(index, path, intact.checkpoint(t))
		if r, err := audit.CheckProof(theirs, digests[index], intact.vkey); err != nil || r.Index != index || r.Size != intact.size {
			t.Errorf("their proof of %d is refused here: %+v, %v", index, r, err)
		}
		proof, err := ours.Prove(t.Context(), index)
		if err != nil {
			t.Fatal(err)
		}
		if err := torchwood.VerifyProof(policy, tlog.RecordHash(digests[index][:]), proof); err != nil {
			t.Errorf("our proof of %d is refused there: %v", index, err)
		}
		other := digests[(index+1)%intact.size]
		if err := torchwood.VerifyProof(policy, tlog.RecordHash(other[:]), proof); err == nil {
			t.Errorf("our proof of %d holds for another line there", index)
		}
		if _, err := audit.CheckProof(theirs, other, intact.vkey); err == nil {
			t.Errorf("their proof of %d holds for another line here", index)
		}
	}
}
