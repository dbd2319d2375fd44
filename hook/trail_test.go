package hook

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/internal/pin"
)

// Every agent runs tools in parallel, some of which are tried twice, and
// specialists with tools of their own, three deep.
func TestOfManyAgentsAtOnceEveryTraceIsACompleteTree(t *testing.T) {
	const agents, deep, tools = 100, 3, 4
	trail := openTrail(t, audit.Written)
	m, h := recorder(t, trail, &AuditOptions{Metadata: map[string]any{"service_name": "test"}})

	// What was done is written down here, by the agents themselves.
	type done struct{ trace, span, parent, agent, action, user, path string }
	var mu sync.Mutex
	did := map[string]done{}
	note := func(ctx context.Context, parent context.Context, agent, action, user, path string) {
		trace, span := SpanOf(ctx)
		_, above := SpanOf(parent)
		mu.Lock()
		defer mu.Unlock()
		did[span] = done{trace, span, above, agent, action, user, path}
	}
	var run func(ctx context.Context, agent, user, path string, depth int)
	run = func(ctx context.Context, agent, user, path string, depth int) {
		_, err := m.Do(ctx, AgentLoop, Data{AgentID: agent, Inputs: object(path)}, func(loop context.Context) (any, error) {
			note(loop, ctx, agent, "agent_execution_end", user, path)
			var wg sync.WaitGroup
			for i := range tools {
				wg.Go(func() {
					for attempt := range 1 + i%2 {
						path := fmt.Sprintf("%s/%d.%d", path, i, attempt)
						_, err := m.Do(loop, ToolUse, Data{Name: "t", Inputs: object(path), Metadata: map[string]any{"path": path}}, func(ctx context.Context) (any, error) {
							note(ctx, loop, agent, "tool_use:t", user, path)
							runtime.Gosched()
							_, err := m.Do(ctx, MemoryLoad, Data{}, func(inner context.Context) (any, error) {
								note(inner, ctx, agent, "memory_load", user, "")
								return nil, nil
							})
							if attempt == 0 && i%2 == 1 {
								return nil, errors.New("once more")
							}
							return path, err
						})
						if want := attempt == 0 && i%2 == 1; (err != nil) != want {
							t.Error(err)
						}
					}
				})
			}
			if depth > 1 {
				sub := agent + "-sub"
				wg.Go(func() {
					_, err := m.Do(loop, SpecialistInvoke, Data{Name: sub}, func(ctx context.Context) (any, error) {
						note(ctx, loop, agent, "specialist_invoke:"+sub, user, "")
						run(ctx, sub, user, path+"/sub", depth-1)
						return nil, nil
					})
					if err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			return path, nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	var wg sync.WaitGroup
	for i := range agents {
		wg.Go(func() {
			user := fmt.Sprint("user-", i)
			ctx := WithMetadata(context.Background(), map[string]any{"user_id": user})
			run(WithMetadata(ctx, map[string]any{"session_id": "s-" + user}), fmt.Sprint("agent-", i), user, user, deep)
		})
	}
	wg.Wait()

	traces := map[string]string{} // user to trace
	roots, starts := 0, map[string]bool{}
	for _, e := range entries(t, trail) {
		want, ok := did[e.SpanID]
		if e.EventType == audit.AgentLoopStart {
			if starts[e.SpanID] = true; e.Action != "agent_execution_start" || e.TraceID != want.trace || e.ParentSpanID != want.parent || e.AgentID != want.agent || e.Inputs.Text("value") != want.path {
				t.Errorf("want %+v: %s", want, e.Line())
			}
			continue
		}
		delete(did, e.SpanID)
		got := done{e.TraceID, e.SpanID, e.ParentSpanID, e.AgentID, e.Action, e.Metadata.Text("user_id"), want.path}
		if !ok || got != want || e.Metadata.Text("session_id") != "s-"+want.user || e.Metadata.Text("service_name") != "test" {
			t.Fatalf("want %+v: %s", want, e.Line())
		}
		if e.Metadata.Text("path") != "" && (e.Metadata.Text("path") != want.path || e.Inputs.Text("value") != want.path) {
			t.Errorf("want %+v: %s", want, e.Line())
		}
		if e.ParentSpanID == "" {
			roots++
		}
		if trace, known := traces[want.user]; known && trace != e.TraceID {
			t.Errorf("%s has two traces", want.user)
		}
		traces[want.user] = e.TraceID
	}
	if len(did) != 0 || roots != agents || len(traces) != agents || len(starts) != agents*deep {
		t.Errorf("%d are missing; %d roots, %d traces, %d starts", len(did), roots, len(traces), len(starts))
	}
	// Of one agent: a loop's two entries, 6 tools with their memory, deep times,
	// and an invocation but for the deepest.
	if want := int64(agents * (deep*(2+2*6) + deep - 1)); h.Stats().Recorded != want {
		t.Errorf("%+v, want %d", h.Stats(), want)
	}
}

func TestWhatIsOpenWhenTheHookIsClosedIsUnknown(t *testing.T) {
	trail := openTrail(t, audit.Durable)
	m, h := recorder(t, trail, nil)
	loop := trigger(t, m, context.Background(), PreAgentLoop, Data{})
	trigger(t, m, loop, PreToolUse, Data{Name: "t", Inputs: object(map[string]any{"a": 1})})
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	got := entries(t, trail)
	if briefs(got) != "AGENT_LOOP_START agent_execution_start\nAGENT_LOOP_END agent_execution_end failed unknown\nTOOL_USE tool_use:t failed unknown\n" {
		t.Fatal(briefs(got))
	}
	if got[1].SpanID != got[0].SpanID || got[2].ParentSpanID != got[0].SpanID || string(text(got[2].Inputs)) != `{"a":1}` {
		t.Errorf("%s\n%s", got[1].Line(), got[2].Line())
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		stacks := make([]byte, 1<<20)
		if stacks = stacks[:runtime.Stack(stacks, true)]; !bytes.Contains(stacks, []byte("hook.(*writer).run")) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("a goroutine is left")
		}
	}
	if files, _ := os.ReadDir(begunDir(trail)); len(files) != 0 {
		t.Errorf("%d files are left", len(files))
	}
}

func begunDir(trail *audit.Trail) string { return pin.Below(trail.StateDir(), "begun", trail.Path()) }

func TestFilters(t *testing.T) {
	for _, c := range []struct {
		name string
		opts AuditOptions
		want string
	}{
		{"all", AuditOptions{}, "AGENT_LOOP_START TOOL_USE:search_web TOOL_USE:calc LLM_CALL:m AGENT_LOOP_END"},
		{"events", AuditOptions{Events: []Event{PostAgentLoop, PreLLMCall}}, "LLM_CALL:m AGENT_LOOP_END"},
		{"tools", AuditOptions{Tools: []string{"search_*"}}, "AGENT_LOOP_START TOOL_USE:search_web LLM_CALL:m AGENT_LOOP_END"},
		{"except", AuditOptions{ExceptTools: []string{"search_*"}}, "AGENT_LOOP_START TOOL_USE:calc LLM_CALL:m AGENT_LOOP_END"},
		{"before", AuditOptions{Before: true, Events: []Event{PostToolUse}, Tools: []string{"calc"}}, "TOOL_USE_START:calc TOOL_USE:calc"},
	} {
		t.Run(c.name, func(t *testing.T) {
			trail := openTrail(t, audit.Written)
			m, _ := recorder(t, trail, &c.opts)
			_, err := m.Do(context.Background(), AgentLoop, Data{}, func(ctx context.Context) (any, error) {
				for _, d := range []struct {
					kind Kind
					name string
				}{{ToolUse, "search_web"}, {ToolUse, "calc"}, {LLMCall, "m"}} {
					if _, err := m.Do(ctx, d.kind, Data{Name: d.name}, func(context.Context) (any, error) { return 1, nil }); err != nil {
						return nil, err
					}
				}
				return nil, nil
			})
			if err != nil {
				t.Error(err)
			}
			var got []string
			for _, e := range entries(t, trail) {
				s := e.EventType
				if _, name, ok := strings.Cut(e.Action, ":"); ok {
					s += ":" + name
				}
				got = append(got, s)
			}
			if s := strings.Join(got, " "); s != c.want {
				t.Errorf("got  %s\nwant %s", s, c.want)
			}
		})
	}
}

func TestWhatIsLeftOutHasItsSizeAndAKeyedMac(t *testing.T) {
	secret := strings.Repeat("secret ", 100)
	value := map[string]any{"text": secret}
	size := len(text(object(value)))
	for _, c := range []struct {
		name            string
		opts            AuditOptions
		inputs, outputs string
	}{
		{"limit", AuditOptions{MaxValue: 100}, "longer than 100 bytes", ""},
		{"no inputs", AuditOptions{OmitInputs: true}, "not recorded by choice", ""},
		{"no outputs", AuditOptions{OmitOutputs: true}, "", "not recorded by choice"},
	} {
		t.Run(c.name, func(t *testing.T) {
			trail := openTrail(t, audit.Written)
			c.opts.Before = true
			m, _ := recorder(t, trail, &c.opts)
			macs := map[string]bool{}
			for range 2 {
				ctx := trigger(t, m, context.Background(), PreToolUse, Data{Name: "t", Inputs: object(value)})
				if c.inputs != "" {
					data, err := filepath.Glob(filepath.Join(begunDir(trail), "*"))
					if err != nil || len(data) != 1 {
						t.Fatal(data, err)
					}
					if b, _ := os.ReadFile(data[0]); bytes.Contains(b, []byte("secret")) || !bytes.Contains(b, []byte("tool_use:t")) {
						t.Error("what is left out stands in the note")
					}
				}
				trigger(t, m, ctx, PostToolUse, Data{Outputs: object(map[string]any{"ok": true})})
			}
			for _, e := range entries(t, trail) {
				for member, want := range map[string]string{"inputs": c.inputs, "outputs": c.outputs} {
					o := e.Inputs
					if member == "outputs" {
						if o = e.Outputs; e.EventType != audit.ToolUse {
							continue
						}
					}
					var note struct {
						Omitted, MAC string
						Bytes        int
					}
					if err := o.Decode(&note); err != nil || note.Omitted != want {
						t.Errorf("%s: %s", member, e.Line())
					}
					if want == "" {
						continue
					}
					if member == "inputs" {
						macs[note.MAC] = true
						if note.Bytes != size {
							t.Errorf("%d bytes, want %d", note.Bytes, size)
						}
					}
					if policy := string(text(e.Policy)); len(note.MAC) != 64 || !strings.Contains(policy, "/"+member) {
						t.Errorf("%s", e.Line())
					}
				}
				if c.inputs != "" && bytes.Contains(e.Line(), []byte("secret")) {
					t.Error("it is there")
				}
			}
			if c.inputs != "" && len(macs) != 1 {
				t.Errorf("equal values have %d macs", len(macs))
			}
		})
	}
}

func TestAValueThatCannotBeKeptLosesNothingElse(t *testing.T) {
	trail := openTrail(t, audit.Written)
	m, h := recorder(t, trail, nil)
	ctx := WithMetadata(context.Background(), map[string]any{"user_id": "user123", "bad": func() {}})
	ctx = trigger(t, m, ctx, PreToolUse, Data{Name: "t\xff", Inputs: object(map[string]any{"f": func() {}})})
	trigger(t, m, ctx, PostToolUse, Data{Outputs: audit.Raw([]byte(`{"a":1,"a":2}`)), Err: errors.New("oh\xff")})
	got := entries(t, trail)
	if len(got) != 1 || got[0].Metadata.Text("user_id") != "user123" || *got[0].Error != "oh\ufffd" || got[0].Action != "tool_use:t\ufffd" {
		t.Fatalf("%d entries: %s", len(got), briefs(got))
	}
	for _, o := range []audit.Object{got[0].Inputs, got[0].Outputs} {
		if o.Text("omitted") == "" {
			t.Errorf("%s", got[0].Line())
		}
	}
	if h.Stats().Lost != 0 {
		t.Errorf("%+v", h.Stats())
	}
}

func TestWhatAnAgentDoesWithItsValuesAfterwardsChangesNoEntry(t *testing.T) {
	trail := openTrail(t, audit.Written)
	m, _ := recorder(t, trail, nil)
	args := map[string]any{"a": []any{1, 2}}
	who := map[string]any{"user_id": "user123", "roles": []string{"admin"}}
	ctx := WithMetadata(context.Background(), who)
	who["user_id"], who["roles"].([]string)[0] = "else", "else"
	own := map[string]any{"step": []int{1}}
	ctx = trigger(t, m, ctx, PreToolUse, Data{Name: "t", Inputs: object(args), Metadata: own})
	args["a"].([]any)[0] = "else"
	own["step"].([]int)[0] = 2
	trigger(t, m, ctx, PostToolUse, Data{Metadata: map[string]any{"end": 1}})
	got := entries(t, trail)
	if s := string(text(got[0].Inputs)) + string(text(got[0].Metadata)); s != `{"a":[1,2]}{"end":1,"roles":["admin"],"step":[1],"user_id":"user123"}` {
		t.Error(s)
	}
}

// full fills what is left of a file system, but for the last bytes.
func full(t *testing.T, dir string) (again func()) {
	t.Helper()
	name := filepath.Join(dir, "filler")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 4096)
	for {
		if _, err := f.Write(block); errors.Is(err, syscall.ENOSPC) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		if err := os.Remove(name); err != nil {
			t.Error(err)
		}
	}
}

// smallDisk is a file system of its own; the test is skipped where that is not
// allowed.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("a file system can't be mounted here: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if err := exec.Command("umount", dir).Run(); err != nil {
			t.Errorf("umount: %v", err)
		}
	})
	return dir
}

// use runs tools one after the other until one of them is not as wanted.
func use(m *Manager, n int, f func(i int, ran bool, err error) bool) {
	for i := range n {
		ran := false
		_, err := m.Do(context.Background(), ToolUse, Data{Name: fmt.Sprint("tool-", i), Inputs: object(strings.Repeat("x", 2000))}, func(context.Context) (any, error) {
			ran = true
			return nil, nil
		})
		if !f(i, ran, err) {
			return
		}
	}
}

func TestADiskThatIsFull(t *testing.T) {
	for _, closed := range []bool{false, true} {
		t.Run(fmt.Sprintf("fail closed %v", closed), func(t *testing.T) {
			disk := smallDisk(t)
			trail, err := audit.Open(filepath.Join(disk, "audit.jsonl"), &audit.Options{Durability: audit.Written, StateDir: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			var warned atomic.Int64
			h, err := NewAuditTrailHook(trail, &AuditOptions{FailClosed: closed, Warn: func(err error) {
				if warned.Add(1); strings.Contains(err.Error(), "xxx") {
					t.Error(err)
				}
			}})
			if err != nil {
				t.Fatal(err)
			}
			m := &Manager{AgentID: "a"}
			if err := m.RegisterHook(h, nil); err != nil {
				t.Fatal(err)
			}
			again := full(t, disk)
			ran, failed, refused := 0, 0, 0
			use(m, 2000, func(i int, did bool, err error) bool {
				switch {
				case err == nil:
					ran++
				case !closed || !errors.Is(err, ErrFailClosed) || !errors.Is(err, audit.ErrFull):
					t.Errorf("tool %d: %v", i, err)
				case did:
					failed++
				default:
					refused++
				}
				return refused < 3 && h.Stats().Spooled < 3
			})
			s := h.Stats()
			if closed && (failed != 1 || refused != 3 || s.Spooled != 0) || !closed && (s.Spooled != 3 || failed+refused > 0) {
				t.Errorf("%d ran, %d failed, %d were not begun, %+v", ran, failed, refused, s)
			}
			if warned.Load() == 0 || m.Failures() == 0 == closed {
				t.Errorf("%d warnings, %d failures", warned.Load(), m.Failures())
			}
			again()
			// The trail takes entries again, and the agent is told nothing of it.
			for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
				before := h.Stats().Recorded
				_, err := m.Do(context.Background(), LLMCall, Data{}, func(context.Context) (any, error) { return nil, nil })
				if err == nil && h.Stats().Recorded > before {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("%v, %+v", err, h.Stats())
				}
			}
			if err := errors.Join(h.Close(), trail.Close()); err != nil {
				t.Fatal(err)
			}
			trail, err = audit.Open(trail.Path(), &audit.Options{StateDir: trail.StateDir()})
			if err != nil {
				t.Fatal(err)
			}
			defer trail.Close()
			there := map[string]int{}
			var lost int64
			for _, e := range entries(t, trail) {
				if there[e.EventType+e.Action]++; e.EventType == captureLost {
					var in struct{ Count int64 }
					if err := e.Inputs.Decode(&in); err != nil {
						t.Error(err)
					}
					lost += in.Count
				}
			}
			for i := range ran {
				if n := there[fmt.Sprint("TOOL_USEtool_use:tool-", i)]; n != 1 {
					t.Errorf("tool %d is there %d times", i, n)
				}
			}
			if want := h.Stats().Lost; lost != want || closed == (want == 0) {
				t.Errorf("%d losses are told of %d", lost, want)
			}
		})
	}
}

func TestATrailThatWasClosedUnderTheAgent(t *testing.T) {
	for _, closed := range []bool{false, true} {
		t.Run(fmt.Sprintf("fail closed %v", closed), func(t *testing.T) {
			trail := openTrail(t, audit.Durable)
			h, err := NewAuditTrailHook(trail, &AuditOptions{FailClosed: closed})
			if err != nil {
				t.Fatal(err)
			}
			m := &Manager{AgentID: "a"}
			if err := m.RegisterHook(h, nil); err != nil {
				t.Fatal(err)
			}
			if err := trail.Close(); err != nil {
				t.Fatal(err)
			}
			use(m, 5, func(i int, ran bool, err error) bool {
				if closed != errors.Is(err, ErrFailClosed) || closed != errors.Is(err, audit.ErrClosed) || ran != (!closed || i == 0) {
					t.Errorf("tool %d ran %v: %v", i, ran, err)
				}
				return true
			})
			err = h.Close()
			if s := h.Stats(); closed != (s.Lost > 0) || !closed && s.Spooled != 5 || closed != (err != nil) {
				t.Errorf("%+v, %v", s, err)
			}
			again, err := audit.Open(trail.Path(), &audit.Options{StateDir: trail.StateDir()})
			if err != nil {
				t.Fatal(err)
			}
			defer again.Close()
			// With fail closed the tool that ran is told by the next start; the others
			// did not.
			h, err = NewAuditTrailHook(again, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer h.Close()
			got := entries(t, again)
			if want := map[bool]int{false: 5, true: 1}[closed]; len(got) != want {
				t.Errorf("%d entries:\n%s", len(got), briefs(got))
			}
			for _, e := range got {
				if closed == e.Success {
					t.Errorf("%s", e.Line())
				}
			}
		})
	}
}

// What is written into a log that somebody has removed is nowhere: its holder finds
// that out within a second, and the rest is kept.
func TestATrailThatIsRemovedUnderTheAgent(t *testing.T) {
	for _, closed := range []bool{false, true} {
		t.Run(fmt.Sprintf("fail closed %v", closed), func(t *testing.T) {
			dir := t.TempDir()
			logs := filepath.Join(dir, "logs")
			if err := os.Mkdir(logs, 0o700); err != nil {
				t.Fatal(err)
			}
			trail, err := audit.Open(filepath.Join(logs, "audit.jsonl"), &audit.Options{StateDir: filepath.Join(dir, "state")})
			if err != nil {
				t.Fatal(err)
			}
			var warned atomic.Int64
			h, err := NewAuditTrailHook(trail, &AuditOptions{FailClosed: closed, Warn: func(error) { warned.Add(1) }})
			if err != nil {
				t.Fatal(err)
			}
			m := &Manager{AgentID: "a"}
			if err := m.RegisterHook(h, nil); err != nil {
				t.Fatal(err)
			}
			if err := os.RemoveAll(logs); err != nil {
				t.Fatal(err)
			}
			refused := 0
			deadline := time.Now().Add(10 * time.Second)
			for h.Stats().Spooled < 3 && refused < 3 && time.Now().Before(deadline) {
				use(m, 1, func(_ int, ran bool, err error) bool {
					if closed && errors.Is(err, ErrFailClosed) && errors.Is(err, audit.ErrStopped) && !ran {
						refused++
					} else if err != nil && !closed {
						t.Error(err)
					}
					return true
				})
				time.Sleep(5 * time.Millisecond)
			}
			s := h.Stats()
			if closed && (refused != 3 || s.Lost == 0) || !closed && (s.Spooled != 3 || s.Lost != 0) || warned.Load() == 0 {
				t.Errorf("%d refused, %+v, %d warnings", refused, s, warned.Load())
			}
			if err := h.Close(); closed == (err == nil) {
				t.Error(err)
			}
			if err := trail.Close(); !errors.Is(err, audit.ErrStopped) {
				t.Error(err)
			}
			waiting, err := filepath.Glob(filepath.Join(pin.Below(trail.StateDir(), "spool", trail.Path()), "*.json"))
			if err != nil || int64(len(waiting)) != s.Spooled {
				t.Errorf("%d wait, %v", len(waiting), err)
			}
		})
	}
}

// The file system is taken away under the agent, and another is there later: what
// could still be written into the open file is nowhere where anybody would look.
func TestADiskThatIsTakenAway(t *testing.T) {
	for _, closed := range []bool{false, true} {
		t.Run(fmt.Sprintf("fail closed %v", closed), func(t *testing.T) {
			disk := smallDisk(t)
			state := t.TempDir()
			trail, err := audit.Open(filepath.Join(disk, "audit.jsonl"), &audit.Options{Durability: audit.Written, StateDir: state})
			if err != nil {
				t.Fatal(err)
			}
			var warned atomic.Int64
			h, err := NewAuditTrailHook(trail, &AuditOptions{FailClosed: closed, Warn: func(error) { warned.Add(1) }})
			if err != nil {
				t.Fatal(err)
			}
			m := &Manager{AgentID: "a"}
			if err := m.RegisterHook(h, nil); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command("umount", "-l", disk).CombinedOutput(); err != nil {
				t.Fatalf("umount: %v: %s", err, out)
			}
			// The clean-up unmounts once more.
			defer func() {
				if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk).CombinedOutput(); err != nil {
					t.Errorf("mount: %v: %s", err, out)
				}
			}()
			ran, refused := 0, 0
			for deadline := time.Now().Add(10 * time.Second); h.Stats().Spooled < 3 && refused < 3 && time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
				use(m, 1, func(_ int, did bool, err error) bool {
					switch {
					case err == nil:
						ran++
					case closed && errors.Is(err, ErrFailClosed) && errors.Is(err, audit.ErrStopped):
						if !did {
							refused++
						}
					default:
						t.Error(err)
					}
					return true
				})
			}
			s := h.Stats()
			if closed && (refused != 3 || s.Spooled != 0 || s.Lost == 0) || !closed && (s.Spooled < 3 || s.Lost != 0 || int64(ran) != s.Recorded+s.Spooled) || warned.Load() == 0 {
				t.Errorf("%d ran, %d were not begun, %+v, %d warnings", ran, refused, s, warned.Load())
			}
			if err := h.Close(); closed == (err == nil) {
				t.Error(err)
			}
			if err := trail.Close(); !errors.Is(err, audit.ErrStopped) {
				t.Error(err)
			}
			// The spool is not on that disk.
			waiting, err := filepath.Glob(filepath.Join(pin.Below(state, "spool", trail.Path()), "*.json"))
			if err != nil || int64(len(waiting)) != s.Spooled {
				t.Errorf("%d wait, %v", len(waiting), err)
			}
		})
	}
}

// Environment of a test binary that is another process.
const (
	childTrail = "KAIZEN_TEST_HOOK_TRAIL"
	childState = "KAIZEN_TEST_HOOK_STATE"
	childDoes  = "KAIZEN_TEST_HOOK_DOES"
)

func TestMain(m *testing.M) {
	if does := os.Getenv(childDoes); does != "" {
		if err := child(does); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	flag.Parse()
	os.Exit(m.Run())
}

func child(does string) error {
	trail, err := audit.Open(os.Getenv(childTrail), &audit.Options{Durability: audit.Written, StateDir: os.Getenv(childState)})
	if err != nil {
		return err
	}
	if does == "hold" {
		fmt.Println("holds")
		_, err := io.Copy(io.Discard, os.Stdin)
		return errors.Join(err, trail.Close())
	}
	h, err := NewAuditTrailHook(trail, nil)
	if err != nil {
		return err
	}
	m := &Manager{AgentID: "child"}
	if err := m.RegisterHook(h, nil); err != nil {
		return err
	}
	fmt.Println("open")
	// Until it is killed: tools in parallel; each says that it begins after it has
	// begun and that it ends once its end was told.
	_, err = m.Do(context.Background(), AgentLoop, Data{}, func(ctx context.Context) (any, error) {
		_, span := SpanOf(ctx)
		say("begun", span)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for {
					var span string
					_, err := m.Do(ctx, ToolUse, Data{Name: "t", Inputs: audit.Of(map[string]any{"a": 1})}, func(ctx context.Context) (any, error) {
						_, span = SpanOf(ctx)
						say("begun", span)
						time.Sleep(time.Duration(rand.IntN(1000)) * time.Microsecond)
						return nil, nil
					})
					if err != nil {
						panic(err)
					}
					say("ended", span)
				}
			})
		}
		wg.Wait()
		return nil, nil
	})
	return err
}

// say writes a line as a whole.
func say(what, span string) { _, _ = os.Stdout.WriteString(what + " " + span + "\n") }

func startChild(t *testing.T, does string, trail, state string) (*exec.Cmd, io.ReadCloser, io.WriteCloser) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDoes+"="+does, childTrail+"="+trail, childState+"="+state)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, out, in
}

func TestWhatAKilledAgentHadBegunIsUnknownAtTheNextStart(t *testing.T) {
	rounds := 20
	if testing.Short() {
		rounds = 5
	}
	dir := t.TempDir()
	path, state := filepath.Join(dir, "audit.jsonl"), filepath.Join(dir, "state")
	begun, ended := map[string]bool{}, map[string]bool{}
	loops := 0 // none of them ends
	for round := range rounds {
		cmd, pipe, _ := startChild(t, "run", path, state)
		out := bufio.NewReader(pipe)
		if _, err := io.ReadFull(out, make([]byte, len("open\n"))); err != nil {
			t.Fatal(err)
		}
		if round%2 == 1 { // however slow the machine is, in these something has begun
			_, _ = out.Peek(1)
		}
		kill := time.AfterFunc(time.Duration(rand.IntN(120))*time.Millisecond, func() { _ = cmd.Process.Signal(syscall.SIGKILL) })
		said, err := io.ReadAll(out)
		if err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // it was killed
		kill.Stop()
		if bytes.Contains(said, []byte("begun ")) {
			loops++
		}
		for line := range bytes.Lines(said) {
			what, span, _ := strings.Cut(strings.TrimSuffix(string(line), "\n"), " ")
			switch {
			case what == "error":
				t.Fatalf("%s", line)
			case !bytes.HasSuffix(line, []byte("\n")):
			case what == "begun":
				begun[span] = true
			case what == "ended":
				ended[span] = true
			}
		}
	}
	trail, err := audit.Open(path, &audit.Options{StateDir: state})
	if err != nil {
		t.Fatal(err)
	}
	defer trail.Close()
	// Several start at once.
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			h, err := NewAuditTrailHook(trail, nil)
			if err != nil {
				t.Error(err)
				return
			}
			if err := h.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	got := map[string]audit.Entry{}
	unknowns := 0
	for _, e := range entries(t, trail) {
		if e.EventType == audit.AgentLoopStart {
			continue
		}
		if other, twice := got[e.SpanID]; twice {
			t.Errorf("twice:\n%s\n%s", other.Line(), e.Line())
		}
		got[e.SpanID] = e
		if e.Outcome != "unknown" {
			continue
		}
		unknowns++
		if ended[e.SpanID] {
			t.Errorf("its end was acknowledged: %s", e.Line())
		}
		if e.Success || e.AgentID != "child" || e.EventType == audit.ToolUse && string(text(e.Inputs)) != `{"a":1}` {
			t.Errorf("%s", e.Line())
		}
	}
	for span := range begun {
		if _, ok := got[span]; !ok {
			t.Errorf("%s was begun, and nothing is there", span)
		}
	}
	if unknowns < loops || loops == 0 || len(ended) == 0 {
		t.Errorf("%d are unknown of %d loops, %d have ended", unknowns, loops, len(ended))
	}
	if files, _ := os.ReadDir(begunDir(trail)); len(files) != 0 {
		t.Errorf("%d files are left", len(files))
	}
	t.Logf("%d begun, %d ended, %d unknown", len(begun), len(ended), unknowns)
}

// awaitStopped returns once every thread of a process has stopped: the signal is on
// its way for a while on a busy machine.
func awaitStopped(t *testing.T, pid int) {
	t.Helper()
	stopped := func() bool {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		if err != nil || len(tasks) == 0 {
			return true // there is no such file system: nobody can tell
		}
		for _, name := range tasks {
			stat, err := os.ReadFile(name)
			if _, after, ok := strings.Cut(string(stat), ") "); err == nil && ok && after[0] != 'T' {
				return false
			}
		}
		return true
	}
	for until := time.Now().Add(10 * time.Second); !stopped(); time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("the holder does not stop")
		}
	}
}

// The holder of the trail is stopped, as a machine in trouble stops it: whoever
// records through it gets no answer.
func TestATrailThatDoesNotAnswer(t *testing.T) {
	for _, closed := range []bool{false, true} {
		t.Run(fmt.Sprintf("fail closed %v", closed), func(t *testing.T) {
			dir := t.TempDir()
			path, state := filepath.Join(dir, "audit.jsonl"), filepath.Join(dir, "state")
			cmd, out, in := startChild(t, "hold", path, state)
			ended := false
			defer func() {
				_ = in.Close()
				_ = cmd.Process.Signal(syscall.SIGCONT)
				if !ended {
					_ = cmd.Process.Kill()
				}
				_ = cmd.Wait()
			}()
			if _, err := io.ReadFull(out, make([]byte, len("holds\n"))); err != nil {
				t.Fatal(err)
			}
			trail, err := audit.Open(path, &audit.Options{StateDir: state})
			if err != nil {
				t.Fatal(err)
			}
			defer trail.Close()
			h, err := NewAuditTrailHook(trail, &AuditOptions{FailClosed: closed})
			if err != nil {
				t.Fatal(err)
			}
			m := &Manager{AgentID: "a"}
			if err := m.RegisterHook(h, nil); err != nil {
				t.Fatal(err)
			}
			use(m, 1, func(_ int, _ bool, err error) bool {
				if err != nil {
					t.Fatal(err)
				}
				return true
			})
			if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			awaitStopped(t, cmd.Process.Pid)
			begin := time.Now()
			use(m, 3, func(i int, ran bool, err error) bool {
				if closed != errors.Is(err, ErrFailClosed) || ran != (!closed || i == 0) {
					t.Errorf("tool %d ran %v: %v", i, ran, err)
				}
				return true
			})
			// Fail open waits once. Fail closed waits for the end of the first tool,
			// and before each of the others and to say that it came to nothing.
			limit := 2 * auditTimeout
			if closed {
				limit = 7 * auditTimeout
			}
			if took := time.Since(begin); took > limit {
				t.Errorf("the agent waited %s", took)
			}
			if s := h.Stats(); s.Late == 0 || s.Recorded != 1 {
				t.Errorf("%+v", s)
			}
			if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			if err := h.Close(); err != nil {
				t.Error(err)
			}
			if s := h.Stats(); s.Lost != 0 || s.Recorded+s.Spooled < 4 {
				t.Errorf("%+v", s)
			}
			there := map[string]int{}
			for _, e := range entries(t, trail) {
				there[e.EventType+" "+e.Action]++
			}
			for i := range 3 {
				if n := there[fmt.Sprint("TOOL_USE tool_use:tool-", i)]; n < 1 {
					t.Errorf("tool %d is there %d times", i, n)
				}
			}
			_ = in.Close()
			ended = true
		})
	}
}
