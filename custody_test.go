package audit

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/durable/durabletest"
	"github.com/kaizen-audit/kaizen-audit/internal/signing"
	"github.com/kaizen-audit/kaizen-audit/internal/socket"
	"github.com/kaizen-audit/kaizen-audit/internal/tree"
)

// signerChild makes the test binary a signer: its directory and its socket.
const signerChild = "KAIZEN_TEST_SIGNER_CHILD"

func init() {
	if dir, path, ok := strings.Cut(os.Getenv(signerChild), "|"); ok {
		s, err := signing.NewServer(durable.OS, dir)
		if err == nil {
			l, listenErr := socket.ListenAt(path, "")
			if err = listenErr; err == nil {
				fmt.Println("ready")
				err = s.Serve(context.Background(), l)
			}
		}
		fmt.Println("error", err)
		os.Exit(1)
	}
}

// signerProcess is a signer in a process of its own.
type signerProcess struct {
	t         *testing.T
	dir, path string
	cmd       *exec.Cmd
}

func (p *signerProcess) url() string { return "unix:" + p.path }

func newSignerProcess(t *testing.T, origin string) *signerProcess {
	t.Helper()
	dir := t.TempDir()
	p := &signerProcess{t: t, dir: filepath.Join(dir, "signer"), path: filepath.Join(dir, "sock")}
	if err := errors.Join(os.Mkdir(p.dir, 0o700), signing.Create(durable.OS, p.dir, origin)); err != nil {
		t.Fatal(err)
	}
	p.start()
	t.Cleanup(p.kill)
	return p
}

func (p *signerProcess) start() {
	p.t.Helper()
	p.cmd = exec.Command(os.Args[0], "-test.run=^$")
	p.cmd.Env = append(os.Environ(), signerChild+"="+p.dir+"|"+p.path)
	out, err := p.cmd.StdoutPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		p.t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		p.t.Fatalf("the signer says %q, %v", line, err)
	}
}

func (p *signerProcess) kill() {
	if p.cmd != nil {
		_ = p.cmd.Process.Signal(syscall.SIGKILL)
		_ = p.cmd.Wait()
		p.cmd = nil
	}
}

// A trail whose key is in another process: it is recorded, sealed, rotated, retired
// and verified as any, and no file of it has a key that signs.
func TestSigningKeyInAnotherProcess(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.jsonl")
	p := newSignerProcess(t, "example.com/agents")
	o := &Options{StateDir: filepath.Join(dir, "state"), Command: "test", Signer: p.url()}
	info, err := Init(path, &InitOptions{Options: *o, Profile: "gdpr"})
	if err != nil {
		t.Fatal(err)
	}
	if info.Origin != "example.com/agents" || info.Signer == nil || info.Signer.URL != p.url() || !strings.Contains(info.KeyReadableBy, "with the signer at") {
		t.Errorf("%+v", info)
	}
	o.Signer = "" // it is remembered
	trail := openWith(t, path, o)
	was := trail.VKey()
	record := func() Receipt {
		t.Helper()
		r, err := trail.Record(ctx, event("a", "x"))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	first := record()
	if _, err := trail.Rotate(ctx); err != nil {
		t.Fatal(err)
	}
	if err := trail.RotateSigningKey(ctx, false); err != nil {
		t.Fatal(err)
	}
	now := trail.VKey()
	for _, key := range []string{was, now, ""} {
		intact(t, path, key, o)
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	trail = openWith(t, path, o)
	record()
	if err := trail.RetireSigningKey(ctx); err != nil {
		t.Fatal(err)
	}
	record()
	if _, err := trail.EraseUser(ctx, "user123", &EraseOptions{Reason: "asked for it"}); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{was, now, ""} {
		intact(t, path, key, o)
	}
	if n, ok := signedTimes(t, trail, now); n != 1 || !ok {
		t.Errorf("%d signatures, %v", n, ok)
	}
	proof, err := trail.Prove(ctx, first.Index)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := CheckProof(proof, first.Digest, now); err != nil {
		t.Error(err)
	}
	state, err := trail.says(ctx, trail.signer.latest.Load().Size)
	if err != nil || len(state.NotValid) > 0 {
		t.Errorf("%+v, %v", state, err)
	}
	i, err := trail.Info(ctx)
	if err != nil || i.Signer == nil || i.Signer.Size < i.Covered || i.Signer.UID != os.Getuid() || i.Signer.Problem != "" {
		t.Errorf("%+v, %v", i.Signer, err)
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	noPrivateKey(t, dir)
	// keys/ is lost and comes back from a backup, which has no signing key either.
	trail = openWith(t, path, o)
	backup := filepath.Join(dir, "keys.tar")
	if _, err := trail.BackupKeys(ctx, backup, time.Hour); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(trail.Close(), os.RemoveAll(filepath.Join(dir, "audit.trail", "keys"))); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, o); err == nil {
		t.Error("it opens without keys/")
	}
	if _, err := RestoreKeys(path, backup); err != nil {
		t.Fatal(err)
	}
	noPrivateKey(t, dir)
	trail = openWith(t, path, o)
	record()
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	intact(t, path, "", o)
	// Nobody takes the place of the key by a file, or of the signer by another.
	other := newSignerProcess(t, "example.com/agents")
	wrong := *o
	wrong.Signer = other.url()
	if _, err := Open(path, &wrong); !errors.Is(err, ErrDamaged) {
		t.Errorf("another signer: %v", err)
	}
	if _, err := Init(filepath.Join(dir, "second.jsonl"), &InitOptions{Options: Options{StateDir: o.StateDir, Signer: p.url()}}); err == nil || !strings.Contains(err.Error(), "has signed a trail already") {
		t.Errorf("a second trail of one signer: %v", err)
	}
	plain := openWith(t, filepath.Join(dir, "plain.jsonl"), &Options{StateDir: o.StateDir})
	plain.Close()
	if _, err := Open(filepath.Join(dir, "plain.jsonl"), &Options{StateDir: o.StateDir, Signer: p.url()}); !errors.Is(err, ErrOption) {
		t.Errorf("a signer for a trail that has its key: %v", err)
	}
}

// noPrivateKey searches every file below a directory for a key that signs.
func noPrivateKey(t *testing.T, dir string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		files++
		text, err := os.ReadFile(name)
		if strings.Contains(string(text), "PRIVATE+KEY+") {
			t.Errorf("%s has a key", name)
		}
		return err
	})
	if err != nil || files < 10 {
		t.Errorf("%d files, %v", files, err)
	}
}

// The signer is killed while the trail is written: what is recorded is acknowledged,
// the lag is told, a seal waits, and it is all covered once a signer is there again.
func TestAppendsGoOnWithoutTheSigner(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.jsonl")
	p := newSignerProcess(t, "example.com/agents")
	o := &Options{StateDir: filepath.Join(dir, "state"), Command: "test", Signer: p.url(), interval: time.Millisecond}
	trail := openWith(t, path, o)
	p.kill()
	for range 20 {
		if _, err := trail.Record(ctx, event("a", "x")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := trail.Rotate(ctx); !errors.Is(err, signing.ErrAway) {
		t.Errorf("rotate: %v", err)
	}
	i, err := trail.Info(ctx)
	if err != nil || i.Covered == i.Entries || i.Signer.Problem == "" {
		t.Errorf("%+v, %v", i, err)
	}
	trail.signer.pendingMu.Lock()
	if trail.signer.unsigned.IsZero() {
		t.Error("nothing waits for a checkpoint")
	}
	trail.signer.unsigned = time.Now().Add(-11 * time.Second)
	trail.signer.pendingMu.Unlock()
	if i, err = trail.Info(ctx); err != nil || !strings.Contains(strings.Join(i.Warnings, "\n"), "lags 11s behind: the signer does not answer") {
		t.Errorf("%q, %v", i.Warnings, err)
	}
	p.start()
	for end := time.Now().Add(10 * time.Second); ; {
		if i, err = trail.Info(ctx); err != nil {
			t.Fatal(err)
		}
		if i.Covered == i.Entries {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d of %d are covered", i.Covered, i.Entries)
		}
		time.Sleep(5 * time.Millisecond)
	}
	if _, err := trail.Rotate(ctx); err != nil {
		t.Error(err)
	}
	// It ends without: what is not covered is adopted by the next opening, which needs
	// the signer before it gives a receipt.
	p.kill()
	if _, err := trail.Record(ctx, event("a", "x")); err != nil {
		t.Fatal(err)
	}
	if err := trail.Close(); !errors.Is(err, signing.ErrAway) {
		t.Errorf("close: %v", err)
	}
	if _, err := Open(path, o); !errors.Is(err, signing.ErrAway) || !strings.Contains(err.Error(), "start it, as its user") {
		t.Errorf("open: %v", err)
	}
	intact(t, path, "", o) // needs nobody
	p.start()
	trail = openWith(t, path, o)
	if i, err = trail.Info(ctx); err != nil || i.Covered != i.Entries {
		t.Errorf("%+v, %v", i, err)
	}
}

// Whoever owns the writer can't have history rewritten: a trail that was rolled back
// is not opened, one that is rewritten in place gets no signature, and a second one
// that goes on from a copy stops.
func TestASignerRefusesAnotherHistory(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	path := filepath.Join(dir, "t", "audit.jsonl")
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	p := newSignerProcess(t, "example.com/agents")
	o := &Options{StateDir: filepath.Join(dir, "state"), Command: "test", Signer: p.url(), NoSocket: true}
	trail := openWith(t, path, o)
	add := func(n int) {
		t.Helper()
		for range n {
			if _, err := trail.Record(ctx, event("a", "x")); err != nil {
				t.Fatal(err)
			}
		}
	}
	add(5)
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(dir, "copy")
	if err := os.CopyFS(copied, os.DirFS(filepath.Dir(path))); err != nil {
		t.Fatal(err)
	}
	trail = openWith(t, path, o)
	add(5)
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	// Rolled back.
	if _, err := Open(filepath.Join(copied, "audit.jsonl"), o); !errors.Is(err, ErrForked) || !strings.Contains(err.Error(), "its signer has signed") {
		t.Errorf("rolled back: %v", err)
	}
	// Rolled back, as after a crash, with other lines up to the size that was signed.
	if err := os.WriteFile(filepath.Join(copied, "audit.trail", "lock"), []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	forged := strings.Replace(string(whole), `"result":4`, `"result":5`, -1)
	began, err := os.ReadFile(filepath.Join(copied, "audit.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(copied, "audit.jsonl"), []byte(string(began)+forged[len(began):]), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(filepath.Join(copied, "audit.jsonl"), o); !errors.Is(err, ErrForked) || !strings.Contains(err.Error(), "the lines here are others") {
		t.Errorf("other lines: %v", err)
	}
	// A signer of which an old copy was put back goes on, and that is told.
	signed := filepath.Join(p.dir, "signed")
	old, err := os.ReadFile(signed)
	if err != nil {
		t.Fatal(err)
	}
	trail = openWith(t, path, o)
	add(1)
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	p.kill()
	if err := os.WriteFile(signed, old, 0o600); err != nil {
		t.Fatal(err)
	}
	p.start()
	told := *o
	var warned error
	told.Warn = func(err error) { warned = errors.Join(warned, err) }
	trail = openWith(t, path, &told)
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	if warned == nil || !strings.Contains(warned.Error(), "an old copy of its directory was put back") {
		t.Errorf("warned of %v", warned)
	}
	// By hand, with all that the writer has: the tree of the forged lines.
	r, err := signing.NewRemote(p.url())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	keys, err := r.Keys()
	if err != nil {
		t.Fatal(err)
	}
	store, b := tree.NewStore(durable.OS, t.TempDir()), tree.NewBuilder()
	for line := range strings.Lines(forged) {
		b.Append(lineDigest([]byte(strings.TrimSuffix(line, "\n"))))
	}
	b.Append(lineDigest([]byte("one more")))
	snap := b.Snapshot()
	if err := store.Flush(snap); err != nil {
		t.Fatal(err)
	}
	c := tree.Checkpoint{Origin: "example.com/agents", Size: snap.Size, Root: snap.Root}
	got, err := r.Checkpoint(c, keys, func(size int64) ([]byte, error) { return store.SigningRequest(size, c, c) })
	if !errors.Is(err, ErrForked) || got.Signed != nil {
		t.Errorf("by hand: %v", err)
	}
	// A writer that runs, whose signer has meanwhile signed what a copy had it sign.
	trail = openWith(t, path, o)
	twin := filepath.Join(dir, "twin")
	if err := os.CopyFS(twin, os.DirFS(filepath.Dir(path))); err != nil {
		t.Fatal(err)
	}
	second := *o
	second.StateDir = filepath.Join(dir, "other-state")
	other := openWith(t, filepath.Join(twin, "audit.jsonl"), &second) // its first entries are others
	_, recordErr := trail.Record(ctx, event("a", "x"))
	for end := time.Now().Add(10 * time.Second); recordErr == nil && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		_, recordErr = trail.Record(ctx, event("a", "x"))
	}
	if !errors.Is(recordErr, ErrForked) {
		t.Errorf("it goes on: %v", recordErr)
	}
	if err := other.Close(); err != nil {
		t.Error(err)
	}
	intact(t, filepath.Join(twin, "audit.jsonl"), "", &second)
}

// Writer and signer are killed at any moment, again and again: nothing acknowledged is
// lost, and the trail goes on.
func TestCrashOfWriterAndSigner(t *testing.T) {
	rounds := min(*crashRounds/20, 200)
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d, %d rounds", seed, rounds)
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	p := newSignerProcess(t, "example.com/agents")
	if _, err := Init(path, &InitOptions{Options: Options{Signer: p.url()}}); err != nil {
		t.Fatal(err)
	}
	acked := int64(-1)
	for round := range rounds {
		cmd := exec.Command(os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), killChild+"="+path)
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		delay, killed := time.Duration(rng.Int64N(int64(60*time.Millisecond))), make(chan bool)
		begun := make(chan bool)
		if round%4 == 3 { // while it opens
			close(begun)
		}
		go func() {
			defer close(killed)
			select {
			case <-begun:
			case <-time.After(20 * time.Second):
			}
			time.Sleep(delay)
			if round%2 == 0 {
				p.kill()
				time.Sleep(10 * time.Millisecond)
			}
			_ = cmd.Process.Signal(syscall.SIGKILL)
		}()
		lines, told := bufio.NewReader(out), false
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				break
			}
			if round%4 != 3 && !told {
				told = true
				close(begun)
			}
			var index int64
			if n, _ := fmt.Sscanf(line, "ack %d", &index); n == 1 {
				acked = max(acked, index)
			} else if !strings.Contains(line, "the signer does not answer") {
				t.Errorf("round %d: %s", round, line)
			}
		}
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait()
		<-killed
		if round%2 == 0 {
			p.start()
		}
	}
	trail := openWith(t, path, nil)
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := VerifyPath(context.Background(), path, nil)
	if err != nil || r.Status != "intact" || r.Size <= acked {
		t.Errorf("%+v, %v; %d were acknowledged", r, err, acked+1)
	}
	if acked < 0 {
		t.Error("nothing was acknowledged")
	}
}

// signerHere serves a signer in this process, whose disk fails never.
func signerHere(t *testing.T) string {
	t.Helper()
	fsys := durabletest.NewMem()
	if err := signing.Create(fsys, "/", "example.com/agents"); err != nil {
		t.Fatal(err)
	}
	s, err := signing.NewServer(fsys, "/")
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
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return "unix:" + path
}

// stepOffset is which third of many steps this process tries.
var stepOffset = rand.IntN(3)

// tryStep skips two thirds of a test's crashes, others each time, where the race detector
// makes each of them slow; make simulate tries all.
func tryStep(t *testing.T) {
	t.Helper()
	step, _, _ := strings.Cut(t.Name()[strings.LastIndexByte(t.Name(), '/')+1:], "_")
	if n, err := strconv.Atoi(step); err == nil && raceEnabled && n%3 != stepOffset {
		t.SkipNow()
	}
}

// A power failure of the writer's machine at any step of a creation, a checkpoint and
// a rotation: the signer has signed what it has signed, and the trail goes on with it.
func TestASignersTrailSurvivesACrashAtEveryStep(t *testing.T) {
	ctx := context.Background()
	var again atomic.Int32
	durabletest.EachCrash(t, 1, func(t *testing.T, r *durabletest.Run) {
		tryStep(t)
		url := signerHere(t)
		if err := durable.MkdirAll(r.FS, "/log", 0o700); err != nil {
			t.Fatal(err)
		}
		o := Options{fs: r.FS, manual: true, quiet: true, ring: -1, Signer: url}
		acked := int64(-1)
		r.Inject(func() {
			trail, err := Open("/log/audit.jsonl", &o)
			if err != nil {
				return
			}
			defer trail.Close()
			if got, err := trail.Record(ctx, event("a", "x")); err == nil {
				acked = got.Index
			}
			if trail.signer.sign() == nil {
				_ = trail.RotateSigningKey(ctx, false)
			}
		})
		o.fs = r.Restart()
		if _, err := o.fs.Stat("/log/audit.trail/creating"); err == nil {
			again.Add(1)
		}
		trail, err := Open("/log/audit.jsonl", &o)
		if err != nil {
			t.Fatalf("after the crash: %v", err)
		}
		defer trail.Close()
		got, err := trail.Record(ctx, event("a", "y"))
		if err != nil || got.Index <= acked {
			t.Fatalf("%+v after %d, %v", got, acked, err)
		}
		if err := trail.signer.sign(); err != nil {
			t.Fatal(err)
		}
		if s := trail.keys.sign.Load(); s.former == nil {
			if err := trail.RotateSigningKey(ctx, false); err != nil {
				t.Fatal(err)
			}
		}
		if err := trail.RetireSigningKey(ctx); err != nil {
			t.Fatal(err)
		}
		state, err := trail.says(ctx, trail.signer.latest.Load().Size)
		if err != nil || state.LifecycleVKey != trail.VKey() {
			t.Errorf("%+v, %v", state, err)
		}
		for _, n := range state.NotValid { // a rotation of before the power failed
			if !strings.Contains(n.Why, "adopted") {
				t.Errorf("%+v", n)
			}
		}
		if err := trail.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err = Open("/log/audit.jsonl", &o); err != nil {
			t.Fatal(err)
		}
		if err := trail.Close(); err != nil {
			t.Fatal(err)
		}
	})
	if again.Load() == 0 {
		t.Error("no creation is cut off")
	}
}

// FuzzSignerFile: keys/signer.json names a signer, or is an error.
func FuzzSignerFile(f *testing.F) {
	f.Add([]byte(`{"format":1,"url":"unix:/run/signer/sock"}`))
	f.Add([]byte(`{"format":2,"url":"unix:/run/signer/sock"}`))
	f.Add([]byte(`{"format":1,"url":"unix:relative"}`))
	f.Add([]byte(`{`))
	f.Fuzz(func(t *testing.T, data []byte) {
		url, err := parseSignerFile(data)
		if err != nil {
			return
		}
		if path, err := signing.ParseURL(url); err != nil || !filepath.IsAbs(path) {
			t.Errorf("%q of %q", url, data)
		}
	})
}
