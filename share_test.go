package audit

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kaizen-audit/kaizen-audit/archive"
	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/socket"
)

// A second opening records through the first, in both directions of time: the
// entries are in one trail, and each says who handed it over.
func TestSecondOpeningRecordsThroughTheFirst(t *testing.T) {
	for _, d := range []Durability{Durable, Written, Queued} {
		t.Run(d.String(), func(t *testing.T) {
			first := openTemp(t, &Options{Durability: d})
			second, err := Open(first.Path(), nil)
			if err != nil {
				t.Fatal(err)
			}
			ctx := context.Background()
			r1, err := first.Record(ctx, event("a", "by the holder"))
			if err != nil {
				t.Fatal(err)
			}
			r2, err := second.Record(ctx, event("b", "through it"))
			if err != nil {
				t.Fatal(err)
			}
			if r2.Index <= r1.Index || !r2.Durable {
				t.Errorf("receipts %+v, %+v", r1, r2)
			}
			batch, err := second.RecordBatch(ctx, []Event{event("b", "1"), {AgentID: "no type"}, event("b", "3")})
			var failed *BatchError
			if !errors.As(err, &failed) || failed.Errs[0] != nil || !errors.Is(failed.Errs[1], ErrRefused) || failed.Errs[2] != nil {
				t.Errorf("batch: %v", err)
			}
			if batch[2].Index != batch[0].Index+1 {
				t.Errorf("batch: %+v", batch)
			}
			e, _, err := first.entryAt(ctx, r2.Index)
			if err != nil || e.EventID != r2.EventID || e.Digest() != r2.Digest ||
				e.RecordedBy.Text("principal") != fmt.Sprint("uid:", os.Getuid()) || e.RecordedBy.Text("via") != "socket" {
				t.Errorf("%s, %v", e.Line(), err)
			}
			// The same key again, through either, is the same entry.
			ev := event("b", "once")
			ev.IdempotencyKey = "k"
			k1, err := second.Record(ctx, ev)
			if err != nil {
				t.Fatal(err)
			}
			if k2, err := second.Record(ctx, ev); err != nil || k2 != k1 {
				t.Errorf("%+v, %+v, %v", k1, k2, err)
			}
			ev.Action = "another"
			if _, err := second.Record(ctx, ev); !errors.Is(err, ErrConflict) {
				t.Errorf("%v", err)
			}
			// What it reads is recorded by the holder.
			if _, err := collect(second.Query(ctx, Query{Agent: "b"})); err != nil {
				t.Fatal(err)
			}
			if err := first.journal.Flush(ctx); err != nil { // a queue may still have it
				t.Fatal(err)
			}
			n := 0
			for e, err := range first.Query(ctx, Query{EventTypes: []string{"AUDIT_QUERY"}}) {
				if err != nil {
					t.Fatal(err)
				}
				if e.RecordedBy.Text("via") == "socket" {
					n++
				}
			}
			if n != 1 {
				t.Errorf("%d readings through the socket", n)
			}
			if _, err := second.Rotate(ctx); err != nil {
				t.Errorf("rotate: %v", err)
			}
			if err := second.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := second.Record(ctx, event("b", "late")); !errors.Is(err, ErrClosed) {
				t.Errorf("%v", err)
			}
		})
	}
}

// When the holder closes, the next Record of the other opening makes that the
// holder, with the same checks as an opening.
func TestTakeOverAfterClose(t *testing.T) {
	first := openTemp(t, nil)
	second, err := Open(first.Path(), nil)
	if err != nil {
		t.Fatal(err)
	}
	third, err := Open(first.Path(), nil)
	if err != nil {
		t.Fatal(err)
	}
	h := &history{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, trail := range []*Trail{second, third} {
		for g := range 4 {
			wg.Go(func() {
				for i := range 50 {
					r, err := trail.Record(context.Background(), event(fmt.Sprint("g", g), fmt.Sprint(i)))
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					h.receipts = append(h.receipts, r)
					mu.Unlock()
				}
			})
		}
	}
	time.Sleep(5 * time.Millisecond)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if second.holds() == third.holds() {
		t.Errorf("holders: %v, %v", second.holds(), third.holds())
	}
	// The holder last: it signs what the other one recorded.
	last := second
	if third.holds() {
		last = third
	}
	other := third
	if last == third {
		other = second
	}
	if err := errors.Join(other.Close(), last.Close()); err != nil {
		t.Fatal(err)
	}
	checkWhole(t, durable.OS, first.path, h)
	unique(t, first.path, 400)
}

// unique counts the agents' entries.
func unique(t *testing.T, path string, want int) {
	t.Helper()
	keys := map[string]bool{}
	n := 0
	for _, l := range allLines(t, durable.OS, path) {
		e, err := entry.Parse(l)
		if err != nil {
			t.Fatal(err)
		}
		if e.IsTrails() {
			continue
		}
		n++
		id := e.AgentID + "/" + e.Action
		if e.IdempotencyKey != "" {
			id = e.IdempotencyKey
		}
		if keys[id] && e.IdempotencyKey != "" {
			t.Errorf("%s is there twice", id)
		}
		keys[id] = true
	}
	if want >= 0 && n != want {
		t.Errorf("%d entries, want %d", n, want)
	}
}

// What a process refuses that records through another becomes an entry there.
func TestRefusalsOfAnotherProcessAreTold(t *testing.T) {
	first := openTemp(t, nil)
	second, err := Open(first.Path(), nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	for range 3 {
		if _, err := second.Record(ctx, Event{AgentID: "no type"}); !errors.Is(err, ErrRefused) {
			t.Fatal(err)
		}
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	count := int64(0)
	for e, err := range first.Query(ctx, Query{EventTypes: []string{"AUDIT_REFUSED"}}) {
		if err != nil {
			t.Fatal(err)
		}
		var out struct{ Count int64 }
		if err := e.Outputs.Decode(&out); err != nil || e.Success || e.RecordedBy.Text("via") != "socket" {
			t.Errorf("%s, %v", e.Line(), err)
		}
		count += out.Count
	}
	if count != 3 {
		t.Errorf("%d refusals are told, want 3", count)
	}
}

// A holder that always says that it is busy is asked with pauses, and no longer
// than the caller waits; so is one that is being looked for.
func TestAHolderThatDoesNotTakeItIsGivenUp(t *testing.T) {
	first := openTemp(t, nil)
	second, err := Open(first.Path(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	r := second.remote.Load()
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	asked := 0
	holds, err := r.try(ctx, func(*socket.Client) error {
		asked++
		return &socket.Error{Code: socket.Busy, Message: "busy"}
	})
	if holds || err == nil || asked < 2 || asked > 300 {
		t.Errorf("asked %d times: %v, %v", asked, holds, err)
	}
	gone, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := r.try(gone, func(*socket.Client) error { return socket.ErrGone }); !errors.Is(err, ErrUnknown) {
		t.Errorf("sent, and no answer came: %v", err)
	}

	r.turn <- struct{}{} // somebody looks for a holder, and does not find one
	short, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if _, err := second.Record(short, event("a", "x")); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) > 5*time.Second {
		t.Errorf("after %v: %v", time.Since(begin), err)
	}
	<-r.turn
	if _, err := second.Record(context.Background(), event("a", "x")); err != nil {
		t.Error(err)
	}
}

// A query through the socket goes on after entries that are missing, and names
// them.
func TestQueryThroughTheSocketNamesWhatIsMissing(t *testing.T) {
	trail := openTemp(t, nil)
	ctx := context.Background()
	for i := range 3 {
		if _, err := trail.Record(ctx, event("a", fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
		if i < 2 {
			if _, err := trail.Rotate(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	gone := trail.journal.Segments()[1]
	file, away := filepath.Join(trail.Dir(), "segments", gone.File), filepath.Join(t.TempDir(), "away")
	if err := os.Rename(file, away); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Rename(away, file); err != nil { // the trail is whole again before it is checked
			t.Error(err)
		}
	})
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(trail.Dir(), "sock"))
	}}}
	defer client.CloseIdleConnections()
	resp, err := client.Get("http://localhost/v1/entries?agent=a")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(body)), "\n")
	if len(lines) != 4 || !strings.Contains(lines[0], `"action":"0"`) ||
		!strings.Contains(lines[1], `{"error":`) || !strings.Contains(lines[1], fmt.Sprint("entries ", gone.First, " to ")) ||
		!strings.Contains(lines[2], `"action":"2"`) || !strings.Contains(lines[3], `{"end":{"count":2`) {
		t.Errorf("%s", body)
	}
}

// Members of the socket's group record, whose files they can't read; others
// don't. The holder's --group changes nothing about that.
func TestSocketGroupRecordsAndNothingElse(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can start a process of another user")
	}
	for _, group := range []string{"", fmt.Sprint(shipperGID)} {
		t.Run("group "+group, func(t *testing.T) {
			dir := openFolder(t)
			path := filepath.Join(dir, "audit.jsonl")
			trail, err := Open(path, &Options{StateDir: t.TempDir(), Group: group, SocketGroup: fmt.Sprint(shipperGID)})
			if err != nil {
				t.Fatal(err)
			}
			defer trail.Close()
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			program, err := os.ReadFile(self)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "member"), program, 0o755); err != nil {
				t.Fatal(err)
			}
			run := func(gid uint32) string {
				t.Helper()
				cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "member"), "-test.run=^$")
				cmd.Env, cmd.Dir = []string{memberChild + "=" + path, "HOME=/nonexistent"}, dir
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: shipperUID, Gid: gid}}
				out, err := cmd.CombinedOutput()
				if err != nil {
					t.Fatalf("%v: %s", err, out)
				}
				return string(out)
			}
			if said := run(shipperGID); said != "recorded; query refused: true\n" {
				t.Errorf("a member: %s", said)
			}
			if said := run(shipperGID + 1); !strings.Contains(said, "permission denied") {
				t.Errorf("somebody else: %s", said)
			}
			n := 0
			for e, err := range trail.Query(t.Context(), Query{Agent: "member"}) {
				if err != nil {
					t.Fatal(err)
				}
				if e.RecordedBy.Text("principal") != fmt.Sprint("uid:", shipperUID) {
					t.Errorf("%s", e.Line())
				}
				n++
			}
			if n != 1 {
				t.Errorf("%d entries", n)
			}
		})
	}
	if _, err := Open(filepath.Join(t.TempDir(), "a.jsonl"), &Options{Group: "1", SocketGroup: "2"}); err == nil || !strings.Contains(err.Error(), "SocketGroup") {
		t.Errorf("two groups: %v", err)
	}
}

// memberChild makes the test binary a member of the socket's group.
const memberChild = "KAIZEN_TEST_MEMBER_CHILD"

func init() {
	path := os.Getenv(memberChild)
	if path == "" {
		return
	}
	t, err := Open(path, nil)
	if err != nil {
		fmt.Println(err)
		os.Exit(0)
	}
	if _, err = t.Record(context.Background(), event("member", "x")); err != nil {
		fmt.Println(err)
		os.Exit(0)
	}
	_, read := collect(t.Query(context.Background(), Query{}))
	if err := t.Close(); err != nil {
		fmt.Println(err)
		os.Exit(0)
	}
	fmt.Println("recorded; query refused:", read != nil)
	os.Exit(0)
}

// shareChild makes the test binary one of the workers.
const shareChild = "KAIZEN_TEST_SHARE_CHILD"

func init() {
	if path := os.Getenv(shareChild); path != "" {
		work(path)
	}
}

// work records one entry after the other until it is told to stop on standard
// input. It prints each receipt with the time since the last one, and whether
// it is the holder.
func work(path string) {
	t, err := Open(path, &Options{SegmentBytes: 256 << 10})
	// On a busy machine a holder may be some seconds from being one.
	for until := time.Now().Add(30 * time.Second); errors.Is(err, ErrLocked) && time.Now().Before(until); {
		t, err = Open(path, &Options{SegmentBytes: 256 << 10})
	}
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	stop := make(chan struct{})
	go func() {
		_, _ = bufio.NewReader(os.Stdin).ReadByte()
		close(stop)
	}()
	fmt.Println("ready")
	for i := 0; ; i++ {
		select {
		case <-stop:
			if err := t.Close(); err != nil {
				fmt.Println("error", err)
				os.Exit(1)
			}
			os.Exit(0)
		default:
		}
		start := time.Now()
		r, err := t.Record(context.Background(), event(fmt.Sprint("worker-", os.Getpid()), fmt.Sprint(i)))
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Printf("ack %d %s %x %v %d\n", r.Index, r.EventID, r.Digest, t.holds(), time.Since(start).Microseconds())
		time.Sleep(time.Millisecond)
	}
}

// worker is a child and what it has said.
type worker struct {
	cmd   *exec.Cmd
	stdin interface{ Close() error }
	done  chan struct{}

	mu       sync.Mutex
	receipts []Receipt
	took     []time.Duration
	holds    bool
	failed   string
}

func startWorker(t *testing.T, path string) *worker {
	t.Helper()
	w := &worker{cmd: exec.Command(os.Args[0], "-test.run=^$"), done: make(chan struct{})}
	w.cmd.Env = append(os.Environ(), shareChild+"="+path)
	in, err := w.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	w.stdin = in
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	w.cmd.Stderr = os.Stderr
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(w.done)
		s := bufio.NewScanner(out)
		for s.Scan() {
			line := s.Text()
			var r Receipt
			var digest string
			var holds bool
			var us int64
			w.mu.Lock()
			if strings.HasPrefix(line, "error") {
				w.failed = line
			} else if n, _ := fmt.Sscanf(line, "ack %d %s %s %t %d", &r.Index, &r.EventID, &digest, &holds, &us); n == 5 && len(digest) == 64 {
				if d, err := hex.DecodeString(digest); err == nil {
					copy(r.Digest[:], d)
					w.receipts = append(w.receipts, r)
					w.took = append(w.took, time.Duration(us)*time.Microsecond)
					w.holds = holds
				}
			}
			w.mu.Unlock()
		}
		_ = w.cmd.Wait()
	}()
	return w
}

func (w *worker) said() (acks int, holds bool, failed string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.receipts), w.holds, w.failed
}

// Eight processes record into one trail and whoever holds it is killed, again
// and again: every acknowledged event is there once, and the trail is intact.
func TestCrashTakeOver(t *testing.T) {
	rounds := *crashRounds / 10
	if testing.Short() {
		rounds = 3
	}
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	const size = 8
	workers := make([]*worker, 0, size)
	all := &history{}
	collectFrom := func(w *worker) {
		w.mu.Lock()
		defer w.mu.Unlock()
		all.receipts = append(all.receipts, w.receipts...)
		if w.failed != "" {
			t.Errorf("a worker: %s", w.failed)
		}
	}
	t.Cleanup(func() {
		for _, w := range workers {
			_ = w.cmd.Process.Kill()
			<-w.done
		}
	})
	for range size {
		workers = append(workers, startWorker(t, path))
	}
	var gaps []time.Duration
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	for round := range rounds {
		var holder *worker
		within := time.Now().Add(20 * time.Second)
		for holder == nil {
			if time.Now().After(within) {
				t.Fatalf("round %d: nobody holds the trail", round)
			}
			time.Sleep(time.Duration(1+rng.IntN(10)) * time.Millisecond)
			for _, w := range workers {
				if n, holds, failed := w.said(); failed != "" {
					t.Fatalf("round %d: %s", round, failed)
				} else if holds && n > 0 {
					holder = w
				}
			}
		}
		before := map[*worker]int{}
		for _, w := range workers {
			before[w], _, _ = w.said()
		}
		start := time.Now()
		if err := holder.cmd.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		<-holder.done
		collectFrom(holder)
		i := slices.Index(workers, holder)
		workers = slices.Delete(workers, i, i+1)
		// Until another one has a receipt that it asked for after the kill.
		for taken := false; !taken; {
			if time.Since(start) > 20*time.Second {
				t.Fatalf("round %d: nobody took over", round)
			}
			time.Sleep(200 * time.Microsecond)
			for _, w := range workers {
				if _, holds, failed := w.said(); failed != "" {
					t.Fatalf("round %d: %s", round, failed)
				} else if holds {
					taken = true
				}
			}
		}
		gaps = append(gaps, time.Since(start))
		workers = append(workers, startWorker(t, path))
	}
	for _, w := range workers {
		_ = w.stdin.Close()
	}
	for _, w := range workers {
		select {
		case <-w.done:
		case <-time.After(30 * time.Second):
			t.Fatal("a worker does not end")
		}
		collectFrom(w)
	}
	workers = nil
	slices.Sort(gaps)
	t.Logf("%d rounds, %d acknowledged; take-over: median %v, longest %v", rounds, len(all.receipts), gaps[len(gaps)/2], gaps[len(gaps)-1])
	trail, err := Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	all.saw(trail)
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	checkWhole(t, durable.OS, trail.path, all)
	unique(t, trail.path, -1)
	report, err := VerifyPath(context.Background(), path, nil)
	if err != nil || report.Status != "intact" {
		t.Fatalf("verify: %+v, %v", report, err)
	}
}

// What is its holder's to set is said to who sets it beside one.
func TestOptionsOfTheHolderAreNamed(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.jsonl")
	holder, err := Open(path, &Options{StateDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close()
	store, err := archive.OpenDir("file://" + t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var warned []string
	second, err := Open(path, &Options{StateDir: t.TempDir(), Signer: "unix:" + filepath.Join(dir, "signer"), ArchiveTo: store,
		Warn: func(err error) { warned = append(warned, err.Error()) }})
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	for _, name := range []string{"Signer", "ArchiveTo"} {
		if !slices.ContainsFunc(warned, func(w string) bool { return strings.HasPrefix(w, "option "+name+" is its holder's to set") }) {
			t.Errorf("%s: %q", name, warned)
		}
	}
}

// Who reads beside a busy writer finds all that it has acknowledged, also what the log
// does not have yet.
func TestReadersSeeWhatIsAcknowledged(t *testing.T) {
	ctx, path, state := context.Background(), filepath.Join(t.TempDir(), "audit.jsonl"), t.TempDir()
	for _, d := range []Durability{Durable, Written} {
		t.Run(d.String(), func(t *testing.T) {
			trail := must(Open(path, &Options{Durability: d, StateDir: state, ring: 1 << 20, ringAfter: 1, catchUp: time.Hour}))
			defer trail.Close()
			must(trail.Record(ctx, event("a", "x")))
			if err := trail.signer.sign(); err != nil { // from here on there is a ring
				t.Fatal(err)
			}
			count := func(reader *Trail) (n int) {
				for _, err := range reader.Query(ctx, Query{Agent: d.String()}) {
					if err != nil {
						t.Fatal(err)
					}
					n++
				}
				return n
			}
			reader := must(Open(path, &Options{ReadOnly: true, StateDir: state}))
			defer reader.Close()
			for n := 1; n < 40; n++ {
				r := must(trail.Record(ctx, event(d.String(), "x")))
				lines := bytes.Count(must(os.ReadFile(path)), []byte("\n"))
				if d == Durable && int64(lines) <= r.Index {
					t.Fatalf("the log has %d lines, and entry %d is acknowledged", lines, r.Index)
				}
				if d == Written && n == 1 && int64(lines) > r.Index {
					t.Fatal("the log has everything at once: this test shows nothing")
				}
				if n%2 == 0 {
					if got := count(trail); got != n {
						t.Fatalf("the holder sees %d of %d", got, n)
					}
				} else if got := count(reader); got != n {
					t.Fatalf("a reader sees %d of %d", got, n)
				}
			}
			// Both of what a reader asks its holder have the log catch up.
			for name, ask := range map[string]func() error{
				"its state": func() error { _, err := sharedTrail{trail}.Info(ctx); return err },
				"to note a reading": func() error {
					_, err := sharedTrail{trail}.NoteReading(ctx, socket.Peer{}, socket.Reading{EventType: "AUDIT_QUERY", Action: "query"})
					return err
				},
			} {
				r := must(trail.Record(ctx, event("b", "x")))
				if err := ask(); err != nil {
					t.Fatal(err)
				}
				if lines := bytes.Count(must(os.ReadFile(path)), []byte("\n")); int64(lines) <= r.Index {
					t.Errorf("the holder was asked %s, and the log has %d lines, not entry %d", name, lines, r.Index)
				}
			}
		})
	}
}
