package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/pin"
	"github.com/kaizen-audit/kaizen-audit/internal/spool"
)

// captured gives the entries of agent "captured", after an opening that takes
// the spool in.
func captured(t *testing.T, path string) []Entry {
	t.Helper()
	trail, err := Open(path, &Options{quiet: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := trail.Close(); err != nil {
			t.Error(err)
		}
	}()
	// A quiet opening takes in for a moment only.
	if err := trail.drainSpool(func() bool { return false }); err != nil {
		t.Fatal(err)
	}
	got, err := collect(trail.scan(context.Background(), Query{Agent: "captured"}))
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func spooledFiles(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func capture1(t *testing.T, path string, opts *Options, action string) {
	t.Helper()
	if err := Capture(context.Background(), path, opts, event("captured", action)); err != nil {
		t.Fatal(err)
	}
}

func TestCaptureRecordsWhereNobodyHoldsTheTrail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.jsonl")
	for i := range 3 {
		capture1(t, path, nil, fmt.Sprint("step ", i))
	}
	lines := allLines(t, durable.OS, path)
	if len(lines) != 4 {
		t.Fatalf("%d lines, want the creation and three events:\n%s", len(lines), bytes.Join(lines, []byte("\n")))
	}
	if fi, err := os.Stat(filepath.Join(trailDir(path), "lock")); err != nil || fi.Size() != 0 {
		t.Errorf("the trail was not closed: %v", err)
	}
	for i, e := range captured(t, path) {
		if e.Action != fmt.Sprint("step ", i) || !e.RecordedBy.IsZero() || e.IdempotencyKey == "" || e.TraceID != "trace-1" {
			t.Errorf("%s", e.Line())
		}
	}
}

func TestCaptureWaitsInTheSpoolForAHolderThatDoesNotListen(t *testing.T) {
	trail := openTemp(t, &Options{NoSocket: true})
	begin := time.Now()
	for i := range 5 {
		capture1(t, trail.Path(), nil, fmt.Sprint("step ", i))
	}
	if d := time.Since(begin); d > 5*time.Second {
		t.Errorf("five events took %s", d)
	}
	// The holder takes them in while it goes on.
	var got []Entry
	for deadline := time.Now().Add(20 * time.Second); len(got) < 5 && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		var err error
		if got, err = collect(trail.scan(context.Background(), Query{Agent: "captured"})); err != nil {
			t.Fatal(err)
		}
	}
	if len(got) != 5 {
		t.Fatalf("%d of 5 events were taken in", len(got))
	}
	for i, e := range got {
		by, _ := e.RecordedBy.AppendJSON(nil)
		want := fmt.Sprintf(`{"pid":%d,"principal":"uid:%d","via":"spool"}`, os.Getpid(), os.Getuid())
		if e.Action != fmt.Sprint("step ", i) || string(by) != want {
			t.Errorf("entry %d: %s by %s, want %s", i, e.Action, by, want)
		}
	}
	for deadline := time.Now().Add(5 * time.Second); len(spooledFiles(t, filepath.Join(trail.Dir(), "spool"))) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the spool is not empty")
		}
	}
}

func TestCaptureGoesThroughTheHolder(t *testing.T) {
	trail := openTemp(t, nil)
	capture1(t, trail.Path(), nil, "through")
	// It was recorded before Capture returned.
	got, err := collect(trail.scan(context.Background(), Query{Agent: "captured"}))
	if err != nil || len(got) != 1 || got[0].RecordedBy.Text("via") != "socket" {
		t.Fatalf("%d entries, %v", len(got), err)
	}
	if files := spooledFiles(t, filepath.Join(trail.Dir(), "spool")); len(files) != 0 {
		t.Errorf("%v", files)
	}
}

func TestWhatWasTakenInBeforeACrashIsRecordedOnce(t *testing.T) {
	trail := openTemp(t, &Options{NoSocket: true})
	dir := filepath.Join(trail.Dir(), "spool")
	trail.drainer.end() // as if it had crashed
	capture1(t, trail.Path(), nil, "once")
	files := spooledFiles(t, dir)
	if len(files) != 1 {
		t.Fatalf("%d files", len(files))
	}
	data, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if got := captured(t, trail.Path()); len(got) != 1 {
			t.Fatalf("%d entries", len(got))
		}
		if len(spooledFiles(t, dir)) != 0 {
			t.Fatal("the spool is not empty")
		}
		if err := os.WriteFile(files[0], data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCaptureGoesToTheStateDirectoryWhereThereIsNoTrail(t *testing.T) {
	dir, state := t.TempDir(), t.TempDir()
	blocked := filepath.Join(dir, "logs")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil { // a file where a directory should be
		t.Fatal(err)
	}
	path := filepath.Join(blocked, "a.jsonl")
	opts := &Options{StateDir: state}
	for i := range 3 {
		capture1(t, path, opts, fmt.Sprint("step ", i))
	}
	if err := os.Remove(blocked); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(blocked, 0o700); err != nil {
		t.Fatal(err)
	}
	capture1(t, path, opts, "step 3")
	trail, err := Open(path, opts)
	if err != nil {
		t.Fatal(err)
	}
	defer trail.Close()
	got, err := collect(trail.scan(context.Background(), Query{Agent: "captured"}))
	if err != nil || len(got) != 4 {
		t.Fatalf("%d entries, %v", len(got), err)
	}
	for i, e := range got {
		if e.Action != fmt.Sprint("step ", i) {
			t.Errorf("entry %d is %s", i, e.Action)
		}
	}
}

// TestASpoolThatCannotBeReadKeepsNobodyFromRecording: it is named, and the trail
// opens.
func TestASpoolThatCannotBeReadKeepsNobodyFromRecording(t *testing.T) {
	var warned []string
	opts := &Options{StateDir: t.TempDir(), Warn: func(err error) { warned = append(warned, err.Error()) }, quiet: true}
	path := filepath.Join(t.TempDir(), "a.jsonl")
	mustClose(t, path, opts)
	if err := os.WriteFile(filepath.Join(trailDir(path), "spool"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	trail, err := Open(path, opts)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := trail.Record(t.Context(), event("a", "x")); err != nil {
		t.Error(err)
	}
	if err := trail.Close(); err != nil {
		t.Error(err)
	}
	if len(warned) == 0 || !strings.Contains(strings.Join(warned, "\n"), "spool") {
		t.Errorf("warned: %q", warned)
	}
}

// captureChild makes the test binary a process that captures an event in the
// trail it names, and with it loses one.
const captureChild = "KAIZEN_TEST_CAPTURE_CHILD"

func init() {
	path := os.Getenv(captureChild)
	if path == "" {
		return
	}
	err := Capture(context.Background(), path, nil, event("captured", os.Getenv("KAIZEN_TEST_ACTION")))
	if os.Getenv("KAIZEN_TEST_ACTION") == "lose" {
		err = errors.Join(err, spool.Lose(durable.OS, pin.Below(pin.DefaultDir(), "spool", path)))
	}
	fmt.Print(err)
	os.Exit(0)
}

// TestWhatWaitsForAnotherUsersTrailIsDelivered: the holder does not look into the
// state directory of a member of its socket's group, so the member's next opening
// hands it over.
func TestWhatWaitsForAnotherUsersTrailIsDelivered(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can start a process of another user")
	}
	dir := openFolder(t)
	path, home := filepath.Join(dir, "a.jsonl"), filepath.Join(dir, "home")
	program, err := os.ReadFile(must(os.Executable()))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "member"), program, 0o755), os.Mkdir(home, 0o700), os.Chown(home, shipperUID, shipperGID)); err != nil {
		t.Fatal(err)
	}
	run := func(action string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "member"), "-test.run=^$")
		cmd.Env, cmd.Dir = []string{captureChild + "=" + path, "KAIZEN_TEST_ACTION=" + action, "HOME=" + home}, dir
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: shipperUID, Gid: shipperGID}}
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != "<nil>" {
			t.Fatalf("%v: %s", err, out)
		}
	}
	waiting := func() []string {
		return spooledFiles(t, pin.Below(filepath.Join(home, ".local", "state", "kaizen-audit", "known"), "spool", path))
	}
	opts := &Options{StateDir: t.TempDir(), SocketGroup: fmt.Sprint(shipperGID)}
	mustClose(t, path, opts)
	run("one")
	run("lose")
	if n := len(waiting()); n != 3 {
		t.Fatalf("%d files wait, want two events and what was lost", n)
	}
	trail, err := Open(path, opts)
	if err != nil {
		t.Fatal(err)
	}
	defer trail.Close()
	run("three")
	if left := waiting(); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
	got, err := collect(trail.scan(t.Context(), Query{}))
	if err != nil {
		t.Fatal(err)
	}
	var actions []string
	for _, e := range got {
		actions = append(actions, e.Action)
		if e.RecordedBy.Text("principal") != fmt.Sprint("uid:", shipperUID) || e.RecordedBy.Text("via") != "socket" {
			t.Errorf("%s", e.Line())
		}
	}
	if want := "one lose capture_lost three"; strings.Join(actions, " ") != want {
		t.Errorf("recorded: %q, want %s", actions, want)
	}
}

func TestCaptureCountsWhatDoesNotFit(t *testing.T) {
	trail := openTemp(t, &Options{StateDir: t.TempDir(), NoSocket: true})
	dir := filepath.Join(trail.Dir(), "spool")
	trail.drainer.end()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range spool.MaxItems {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.tmp", i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	opts := &Options{StateDir: filepath.Join(dir, "0.tmp", "none")} // nor is there another place
	for range 3 {
		err := Capture(context.Background(), trail.Path(), opts, event("captured", "x"))
		if err == nil || !strings.Contains(err.Error(), "lost, and counted") || !errors.Is(err, spool.ErrFull) {
			t.Fatalf("%v", err)
		}
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got := captured(t, trail.Path()); len(got) != 0 {
			t.Errorf("%d entries", len(got))
		}
		n := 0
		for _, l := range allLines(t, durable.OS, trail.Path()) {
			if bytes.Contains(l, []byte("AUDIT_LOSS")) {
				if n++; !bytes.Contains(l, []byte(`"outputs":{"count":3,"reason":"spool_full"}`)) {
					t.Errorf("%s", l)
				}
			}
		}
		if n != 1 {
			t.Errorf("%d losses are told", n)
		}
	}
}

func TestCaptureKeepsTheFactOfAValueThatCannotBe(t *testing.T) {
	trail := openTemp(t, nil)
	ev := event("captured", "tool_use:x")
	ev.Inputs = Raw([]byte(`{"a":1,"a":2}`))
	if err := Capture(context.Background(), trail.Path(), nil, ev); err != nil { // through the spool
		t.Fatal(err)
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Capture(context.Background(), trail.Path(), nil, ev); err != nil {
		t.Fatal(err)
	}
	got := captured(t, trail.Path())
	if len(got) != 2 {
		t.Fatalf("%d entries", len(got))
	}
	for _, e := range got {
		var in struct {
			Omitted string
			Bytes   int
			MAC     string
		}
		policy, _ := e.Policy.AppendJSON(nil)
		if err := e.Inputs.Decode(&in); err != nil || in.Omitted == "" || in.Bytes != 13 || len(in.MAC) != 64 || string(policy) != `{"omitted":["/inputs"]}` {
			t.Errorf("%s: %v", e.Line(), err)
		}
	}
	if err := Capture(context.Background(), trail.Path(), nil, Event{EventType: "AUDIT_SEAL", AgentID: "a", Action: "x"}); !errors.Is(err, ErrRefused) {
		t.Errorf("%v", err)
	}
}

func TestNothingInTheSpoolForgesTheTrailsOwnEntries(t *testing.T) {
	trail := openTemp(t, nil)
	trail.drainer.end()
	dir := filepath.Join(trail.Dir(), "spool")
	for _, text := range []string{
		`{"event_type":"AUDIT_SEAL","agent_id":"captured","action":"x"}`,
		`{"event_type":"X","agent_id":"kaizen-audit","action":"x"}`,
		`{"event_type":"X","agent_id":"captured","action":"x","recorded_by":{}}`,
	} {
		item := spool.Item{Format: spool.Format, ID: spool.NewID(time.Now()), At: formatTime(time.Now()), Event: json.RawMessage(text)}
		if err := spool.Put(durable.OS, dir, item); err != nil {
			t.Fatal(err)
		}
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	if got := captured(t, trail.Path()); len(got) != 0 {
		t.Errorf("%d entries", len(got))
	}
	if len(spooledFiles(t, dir)) != 0 {
		t.Error("they wait on")
	}
	lines := bytes.Join(allLines(t, durable.OS, trail.Path()), []byte("\n"))
	if !bytes.Contains(lines, []byte(`"AUDIT_REFUSED"`)) || !bytes.Contains(lines, []byte(`"outputs":{"count":3`)) || bytes.Contains(lines, []byte("AUDIT_SEAL\"")) {
		t.Errorf("%s", lines)
	}
}

// hangingFS does not answer when trail.json is opened, until it does again.
type hangingFS struct {
	durable.FS
	again chan struct{}
}

func (h hangingFS) OpenFile(name string, flag int, perm os.FileMode) (durable.File, error) {
	if filepath.Base(name) == "trail.json" {
		<-h.again
	}
	return h.FS.OpenFile(name, flag, perm)
}

func TestCaptureReturnsInTimeWhateverTheDiskDoes(t *testing.T) {
	trail := openTemp(t, nil)
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	disk := hangingFS{durable.OS, make(chan struct{})}
	begin := time.Now()
	capture1(t, trail.Path(), &Options{fs: disk}, "x")
	if d := time.Since(begin); d > 3*time.Second { // one, and what a busy machine takes
		t.Errorf("it took %s", d)
	}
	if files := spooledFiles(t, filepath.Join(trail.Dir(), "spool")); len(files) != 1 {
		t.Fatalf("%d events wait", len(files))
	}
	// The disk answers again: what was left behind ends, and the event is there
	// once.
	close(disk.again)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		lock, err := os.Stat(filepath.Join(trail.Dir(), "lock"))
		if err == nil && lock.Size() == 0 && len(spooledFiles(t, filepath.Join(trail.Dir(), "spool"))) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("what was left behind does not end")
		}
	}
	if got := captured(t, trail.Path()); len(got) != 1 {
		t.Errorf("%d entries", len(got))
	}
}

func TestManyThatCaptureAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.jsonl")
	const n = 100
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			c, err := newCapture(path, nil)
			if err != nil {
				t.Error(err)
				return
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			if err := c.run(ctx, event("captured", fmt.Sprint("step ", i))); err != nil {
				t.Error(err)
			}
			<-c.left // not before the folder is removed
		})
	}
	wg.Wait()
	seen := map[string]int{}
	for _, e := range captured(t, path) {
		seen[e.Action]++
	}
	for i := range n {
		if seen[fmt.Sprint("step ", i)] != 1 {
			t.Errorf("step %d is there %d times", i, seen[fmt.Sprint("step ", i)])
		}
	}
}

func TestATrailCapturesOnceWhatBecomesOfItsHolder(t *testing.T) {
	holder := openTemp(t, nil)
	other, err := Open(holder.Path(), nil) // through the holder
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if holder.WritesAtOnce() || other.WritesAtOnce() {
		t.Error("a durable trail, or one that another process holds, waits for more than a write")
	}
	ctx := context.Background()
	for i, tr := range []*Trail{holder, other} {
		if r, err := tr.Capture(ctx, event("captured", fmt.Sprint("step ", i))); err != nil || r.EventID == "" {
			t.Errorf("%+v, %v", r, err)
		}
	}
	bad := event("captured", "step 2")
	bad.Outputs = Raw([]byte(`{`))
	if r, err := other.Capture(ctx, bad); err != nil || r.EventID == "" {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := holder.Capture(ctx, Event{EventType: "AUDIT_SEAL", AgentID: "a", Action: "x"}); !errors.Is(err, ErrRefused) {
		t.Errorf("%v", err)
	}
	if err := errors.Join(other.Close(), holder.Close()); err != nil {
		t.Fatal(err)
	}
	for i, tr := range []*Trail{holder, other} {
		if r, err := tr.Capture(ctx, event("captured", fmt.Sprint("step ", 3+i))); err != nil || r.EventID != "" {
			t.Errorf("%+v, %v", r, err)
		}
		if _, err := tr.RecordFact(ctx, event("captured", "not there")); !errors.Is(err, ErrClosed) {
			t.Errorf("%v", err)
		}
	}
	for range 2 {
		got := captured(t, holder.Path())
		if len(got) != 5 {
			t.Fatalf("%d entries", len(got))
		}
		for i, e := range got {
			if e.Action != fmt.Sprint("step ", i) || (e.Outputs.Text("omitted") != "") != (i == 2) {
				t.Errorf("%s", e.Line())
			}
		}
	}
}

func TestALossThatTheSpoolCountsIsTold(t *testing.T) {
	trail := openTemp(t, &Options{StateDir: t.TempDir()})
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(trail.Dir(), "spool")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range spool.MaxItems {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.tmp", i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	trail.opts.StateDir = filepath.Join(dir, "0.tmp", "none") // nor is there another place
	if _, err := trail.Capture(context.Background(), event("captured", "x")); !errors.Is(err, ErrLossCounted) || !errors.Is(err, ErrClosed) {
		t.Errorf("%v", err)
	}
}

func TestWhatIsOmittedByChoiceHasTheMacOfWhatCannotBeKept(t *testing.T) {
	trail := openTemp(t, nil)
	ctx := context.Background()
	value := []byte(`{"a":1,"a":2}`)
	forced, chosen := event("captured", "forced"), event("captured", "chosen")
	forced.Inputs, chosen.Inputs = Raw(value), Raw(value)
	trail.Omit(&chosen, "by choice", "inputs", "resource", "no member")
	trail.Omit(&chosen, "again", "inputs")
	for _, ev := range []Event{forced, chosen} {
		if _, err := trail.RecordFact(ctx, ev); err != nil {
			t.Fatal(err)
		}
	}
	got, err := collect(trail.scan(ctx, Query{Agent: "captured"}))
	if err != nil || len(got) != 2 {
		t.Fatalf("%d entries, %v", len(got), err)
	}
	mac := got[0].Inputs.Text("mac")
	if len(mac) != 64 || got[1].Inputs.Text("mac") != mac || got[1].Inputs.Text("omitted") != "by choice" || !got[1].Resource.IsZero() {
		t.Errorf("%s\n%s", got[0].Line(), got[1].Line())
	}
	for _, e := range got {
		if policy, _ := e.Policy.AppendJSON(nil); string(policy) != `{"omitted":["/inputs"]}` {
			t.Errorf("%s", e.Line())
		}
	}
}
