package signing

import (
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/durable/durabletest"
	"github.com/kaizen-audit/kaizen-audit/internal/socket"
	"github.com/kaizen-audit/kaizen-audit/internal/tree"
	"github.com/kaizen-audit/kaizen-audit/internal/trust"
	"github.com/kaizen-audit/kaizen-audit/internal/witness"
)

const origin = "example.com/trail"

func checkpointOf(origin string, size int64) tree.Checkpoint {
	c := tree.Checkpoint{Origin: origin, Size: size, Root: tree.EmptyRoot}
	return c
}

// serve runs the signer of a directory until the test or stop ends it.
func serve(t testing.TB, dir string) (r *Remote, stop func()) {
	t.Helper()
	s, err := NewServer(durable.OS, dir)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "sock")
	l, err := socket.ListenAt(path, "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l) }()
	r, err = NewRemote("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
	done := false
	stop = func() {
		if done {
			return
		}
		done = true
		r.Close()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return r, stop
}

// history is a tree on disk, of lines that a name tells apart.
type history struct {
	store *tree.Store
	b     *tree.Builder
}

func grow(t testing.TB, h *history, name string, n int) tree.Checkpoint {
	t.Helper()
	for i := range n {
		h.b.Append(sha256.Sum256([]byte(name + string(rune('a'+i)))))
	}
	s := h.b.Snapshot()
	if err := h.store.Flush(s); err != nil {
		t.Fatal(err)
	}
	h.b.Flushed(s)
	return tree.Checkpoint{Origin: origin, Size: s.Size, Root: s.Root}
}

func newHistory(t testing.TB) *history {
	return &history{tree.NewStore(durable.OS, t.TempDir()), tree.NewBuilder()}
}

func (h *history) prove(c tree.Checkpoint) Prove {
	return func(size int64) ([]byte, error) { return h.store.SigningRequest(size, c, c) }
}

func create(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := Create(durable.OS, dir, origin); err != nil {
		t.Fatal(err)
	}
	return dir
}

// A signer signs what continues what it has signed, and never a second history: not
// with another proof, not for another trail, and not after it was started anew.
func TestASignerSignsOneHistory(t *testing.T) {
	dir := create(t)
	r, stop := serve(t, dir)
	keys, err := r.Keys()
	if err != nil || len(keys) != 1 || keys[0].Name() != origin {
		t.Fatal(keys, err)
	}
	set, err := trust.One(keys[0].VKey)
	if err != nil {
		t.Fatal(err)
	}
	h := newHistory(t)
	first := grow(t, h, "line", 3)
	signed, err := r.Checkpoint(first, keys, h.prove(first))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := tree.ParseCheckpoint(signed.Signed, set); err != nil || got.Text() != first.Text() {
		t.Fatal(got, err)
	}
	if _, err := r.Checkpoint(first, keys, h.prove(first)); err != nil {
		t.Errorf("the same again: %v", err)
	}
	second := grow(t, h, "more", 300) // tiles are full meanwhile
	if _, err := r.Checkpoint(second, keys, h.prove(second)); err != nil {
		t.Fatal(err)
	}
	// The tree of before, which that one extends: kept at a seal.
	if _, err := r.Checkpoint(first, keys, func(size int64) ([]byte, error) { return h.store.SigningRequest(size, first, second) }); err != nil {
		t.Errorf("an older one: %v", err)
	}
	stop()
	r, _ = serve(t, dir)
	if st, last, err := r.State(); err != nil || last.Size != second.Size || last.Root != second.Root || st.Origin != origin {
		t.Fatalf("%+v, %v", last, err)
	}
	if keys, err = r.Keys(); err != nil {
		t.Fatal(err)
	}
	evil := newHistory(t)
	for name, c := range map[string]tree.Checkpoint{"smaller": grow(t, evil, "evil", 2), "as large": grow(t, evil, "evil", 301), "larger": grow(t, evil, "evil", 200)} {
		signed, err := r.Checkpoint(c, keys, func(size int64) ([]byte, error) {
			if size > c.Size { // no proof leads there
				return evil.store.SigningRequest(c.Size, c, c)
			}
			return evil.store.SigningRequest(size, c, c)
		})
		if err == nil || signed.Signed != nil {
			t.Errorf("%s: another history is signed", name)
		}
		if name != "smaller" && !errors.Is(err, witness.ErrForked) {
			t.Errorf("%s: %v", name, err)
		}
	}
	other := second
	other.Origin = "example.com/other"
	if _, err := r.Checkpoint(other, keys, h.prove(other)); !errors.Is(err, ErrRefused) {
		t.Errorf("another trail's: %v", err)
	}
	if _, last, err := r.State(); err != nil || last.Root != second.Root {
		t.Errorf("%+v, %v", last, err)
	}
}

// It signs lifecycle entries of its trail and rotations of its keys, and no text that
// is a checkpoint, or that somebody makes look like one of these.
func TestASignerSignsNothingElse(t *testing.T) {
	dir := create(t)
	r, _ := serve(t, dir)
	keys, err := r.Keys()
	if err != nil {
		t.Fatal(err)
	}
	line := `{"timestamp":"2026-01-02T03:04:05.678Z","event_type":"AUDIT_SEAL","agent_id":"kaizen-audit","trace_id":"` + origin +
		`","action":"segment_sealed","inputs":{},"outputs":{},"duration_ms":0,"success":true,"error":null,"metadata":{"principal":"uid:0","signature":""},"event_id":"01890a5d-ac96-774b-bcce-b302099a8057","recorded_at":"2026-01-02T03:04:05.678Z"}`
	sig, err := keys[0].Sign([]byte(line))
	if err != nil || len(sig) != 64 {
		t.Fatal(err)
	}
	forged := checkpointOf(origin, 7).Text()
	for name, text := range map[string]string{
		"checkpoint": forged, "entry and checkpoint": line + "\n" + forged, "nothing": "", "other trail": strings.ReplaceAll(line, origin, "example.com/other"),
		"tool use": strings.Replace(line, "AUDIT_SEAL", "TOOL_USE__", 1), "signed": strings.Replace(line, `"signature":""`, `"signature":"x"`, 1),
		"other agent": strings.Replace(line, `"agent_id":"kaizen-audit"`, `"agent_id":"somebody"`, 1), "spaces": strings.Replace(line, `{},`, `{ },`, 1),
		"two types":           strings.Replace(line, `"action"`, `"event_type":"TOOL_USE","action"`, 1),
		"rotation of nothing": "kaizen-audit/key-rotation/v1\n" + origin + "\n" + keys[0].VKey + "\n" + keys[0].VKey + "\n5\n",
	} {
		if _, err := keys[0].Sign([]byte(text)); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Keys come and go as a rotation needs them, and no signer is left whose own memory of
// what it signed nothing vouches for.
func TestASignersKeysRotate(t *testing.T) {
	dir := create(t)
	r, stop := serve(t, dir)
	keys, err := r.Keys()
	if err != nil {
		t.Fatal(err)
	}
	h := newHistory(t)
	c := grow(t, h, "line", 3)
	if _, err := r.Checkpoint(c, keys, h.prove(c)); err != nil {
		t.Fatal(err)
	}
	next, err := r.Make()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Make(); !errors.Is(err, ErrRefused) {
		t.Errorf("a third key: %v", err)
	}
	if _, err := trust.SignRotation(keys[0], next, keys[0].VKey, next.VKey, 3); !errors.Is(err, ErrRefused) {
		t.Errorf("a rotation before both have signed: %v", err)
	}
	if err := r.Keep(next.VKey); !errors.Is(err, ErrRefused) {
		t.Errorf("kept one that has signed nothing: %v", err)
	}
	c = grow(t, h, "more", 2)
	both := []Key{keys[0], next}
	if _, err := r.Checkpoint(c, both, h.prove(c)); err != nil {
		t.Fatal(err)
	}
	note, err := trust.SignRotation(keys[0], next, keys[0].VKey, next.VKey, c.Size)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := trust.Chain([]trust.Key{{VKey: keys[0].VKey}, {VKey: next.VKey, From: c.Size, Rotation: note}}, keys[0].VKey); err != nil {
		t.Error(err)
	}
	if _, err := trust.SignRotation(keys[0], next, keys[0].VKey, next.VKey, c.Size+1); !errors.Is(err, ErrRefused) {
		t.Errorf("a rotation of later: %v", err)
	}
	if err := r.Keep(next.VKey); err != nil {
		t.Fatal(err)
	}
	stop()
	r, _ = serve(t, dir)
	if now, err := r.Keys(); err != nil || len(now) != 1 || now[0].VKey != next.VKey {
		t.Errorf("%v, %v", now, err)
	}
	text, err := os.ReadFile(filepath.Join(dir, keyName))
	if err != nil || strings.Count(string(text), "\n") != 1 {
		t.Errorf("the former key is there: %v", err)
	}
	if _, err := keys[0].Sign(nil); err == nil {
		t.Error("the former key signs")
	}
}

// A signer that can't know what it has signed does not start.
func TestASignerThatForgetsDoesNotStart(t *testing.T) {
	dir := create(t)
	name := filepath.Join(dir, signedName)
	signed, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	other, err := os.ReadFile(filepath.Join(create(t), signedName))
	if err != nil {
		t.Fatal(err)
	}
	for what, text := range map[string][]byte{"another's": other, "empty": {}, "cut": signed[:len(signed)-5]} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := NewServer(durable.OS, dir); err == nil {
			t.Errorf("%s: it starts", what)
		}
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if _, err := NewServer(durable.OS, dir); err == nil || !strings.Contains(err.Error(), "is missing") {
		t.Error(err)
	}
	if err := os.WriteFile(name, signed, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, keyName), 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := NewServer(durable.OS, dir); err == nil {
		t.Error("a key that others can read")
	}
}

// Power failures at any step of a signer's own: what it had answered is known after
// it, and it starts.
func TestASignerRemembersThroughACrash(t *testing.T) {
	durabletest.EachCrash(t, 2, func(t *testing.T, r *durabletest.Run) {
		if err := durable.MkdirAll(r.FS, "/s", 0o700); err != nil {
			t.Fatal(err)
		}
		h := newHistory(t)
		answered := int64(0)
		r.Inject(func() {
			if Create(r.FS, "/s", origin) != nil {
				return
			}
			s, err := NewServer(r.FS, "/s")
			if err != nil {
				return
			}
			by := s.keys
			sign := func(n int) bool {
				c := grow(t, h, "line", n)
				request, err := h.store.SigningRequest(answered, c, c)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := s.checkpointOf(request, by); err != nil {
					return false
				}
				answered = c.Size
				return true
			}
			if !sign(2) || !sign(1) {
				return
			}
			if _, err := s.makeKey(nil, nil); err != nil {
				return
			}
			if by = s.keys; !sign(1) {
				return
			}
			_ = s.keep(by[1])
		})
		fsys := r.Restart()
		s, err := NewServer(fsys, "/s")
		if errors.Is(err, ErrNone) && answered == 0 {
			if err := Create(fsys, "/s", origin); err != nil {
				t.Fatal(err)
			}
			s, err = NewServer(fsys, "/s")
		}
		if err != nil {
			t.Fatal(err)
		}
		if s.last.Size < answered {
			t.Errorf("%d are known, and %d were answered", s.last.Size, answered)
		}
	})
}

// A checkpoint of a signer's, all of it: proof, socket, check, file, signature.
func BenchmarkCheckpoint(b *testing.B) {
	dir := b.TempDir()
	if err := Create(durable.OS, dir, origin); err != nil {
		b.Fatal(err)
	}
	r, _ := serve(b, dir)
	keys, err := r.Keys()
	if err != nil {
		b.Fatal(err)
	}
	h := newHistory(b)
	for b.Loop() {
		b.StopTimer()
		c := grow(b, h, "line", 100)
		b.StartTimer()
		if _, err := r.Checkpoint(c, keys, h.prove(c)); err != nil {
			b.Fatal(err)
		}
	}
}
