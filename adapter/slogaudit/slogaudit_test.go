package slogaudit_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/slogtest"
	"time"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/adapter/slogaudit"
	"github.com/kaizen-audit/kaizen-audit/hook"
)

// agent is a trail and hooks that record in it.
type agent struct {
	trail    *audit.Trail
	recorder *hook.AuditTrailHook
	hooks    *hook.Manager
}

func newAgent(t *testing.T, opts *hook.AuditOptions) *agent {
	t.Helper()
	a := &agent{hooks: &hook.Manager{AgentID: "a"}}
	var err error
	if a.trail, err = audit.Open(filepath.Join(t.TempDir(), "audit.jsonl"), &audit.Options{Durability: audit.Written, StateDir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	if a.recorder, err = hook.NewAuditTrailHook(a.trail, opts); err != nil {
		t.Fatal(err)
	}
	if err := a.hooks.RegisterHook(a.recorder, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(a.recorder.Close(), a.trail.Close()); err != nil {
			t.Error(err)
		}
	})
	return a
}

func (a *agent) entries(t *testing.T) (all []audit.Entry) {
	t.Helper()
	for e, err := range a.trail.Query(t.Context(), audit.Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

func inputs(t *testing.T, e audit.Entry) (v map[string]any) {
	t.Helper()
	if err := e.Inputs.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

// The standard library's own test of handlers, on what is in the trail.
func TestSlogtest(t *testing.T) {
	var a *agent
	slogtest.Run(t, func(t *testing.T) slog.Handler {
		a = newAgent(t, nil)
		return slogaudit.NewHandler(a.hooks, nil)
	}, func(t *testing.T) map[string]any {
		all := a.entries(t)
		if len(all) != 1 {
			t.Fatalf("%d entries", len(all))
		}
		in := inputs(t, all[0])
		record := map[string]any{slog.LevelKey: all[0].Metadata.Text("severity"), slog.MessageKey: in["body"]}
		if at, ok := in["time"]; ok {
			record[slog.TimeKey] = at
		}
		attributes, _ := in["attributes"].(map[string]any)
		for name, v := range attributes {
			if name == "attributes" {
				t.Errorf("%v", attributes)
			}
			record[name] = v
		}
		return record
	})
}

type panics struct{}

func (panics) MarshalJSON() ([]byte, error) { panic("secret") }

type nilError struct{ text string }

func (e *nilError) Error() string { return e.text }

type logValuer struct{}

func (logValuer) LogValue() slog.Value { return slog.GroupValue(slog.Int("n", 1)) }

// Every kind of value, hostile ones too, is in the entry, in its place and order.
func TestAttributesAreWhole(t *testing.T) {
	a := newAgent(t, nil)
	log := slog.New(slogaudit.NewHandler(a.hooks, nil)).With("who", "u-1").WithGroup("req").With("id", 7)
	at := time.Date(2026, 11, 27, 1, 2, 3, 4, time.FixedZone("", 3600))
	log.Info("done\n\x00\xff",
		"s", "a\xff\"\n", "b", true, "i", int64(math.MinInt64), "u", uint64(math.MaxUint64), "f", 1e21, "half", 0.5, "nan", math.NaN(), "inf", math.Inf(-1),
		"t", at, "d", 1500*time.Millisecond, "err", fs.ErrNotExist, "nothing", nil, "bytes", []byte{1, 2}, "lv", logValuer{},
		"id", "again", "id", "and again", "id#2", "taken",
		"bad\xff", 1, "bad\xfe", 2,
		slog.Group("g", "k", 1, slog.Group("empty"), slog.Group("", "inline", 2)), slog.Group("g", "k", 2),
		"chan", make(chan int), "panic", panics{}, "twice", json.RawMessage(`{"a":1,"a":2}`), "nilerr", (*nilError)(nil),
		"header", http.Header{"Authorization": {"Bearer secret"}, "Accept": {"*/*"}}, "cookie", "session=secret",
		slog.Attr{},
	)
	all := a.entries(t)
	if len(all) != 1 {
		t.Fatalf("%d entries", len(all))
	}
	e := all[0]
	attributes, _ := e.Inputs.Get("attributes")
	const want = `{"who":"u-1","req":{"id":7,"s":"a` + "\ufffd" + `\"\n","b":true,"i":-9223372036854775808,"u":18446744073709551615,"f":1e+21,"half":0.5,"nan":"NaN","inf":"-Inf",` +
		`"t":"2026-11-27T01:02:03.000000004+01:00","d":"1.5s","err":"file does not exist","nothing":null,"bytes":"AQI=","lv":{"n":1},` +
		`"id#2":"again","id#3":"and again","id#2#2":"taken","bad` + "\ufffd" + `":1,"bad` + "\ufffd" + `#2":2,` +
		`"g":{"k":1,"inline":2},"g#2":{"k":2},"chan":{"omitted":"chan int has no JSON"},"panic":{"omitted":"panic (string)"},` +
		`"twice":{"omitted":"the JSON of json.RawMessage is none that an entry takes"},"nilerr":{"omitted":"panic (runtime.errorString)"},` +
		`"header":{"Accept":["*/*"],"Authorization":{"omitted":"credential"}},"cookie":{"omitted":"credential"}}}`
	got := strings.ReplaceAll(string(attributes.JSON()), "runtime.errorAddressString", "runtime.errorString")
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if body := e.Inputs.Text("body"); body != "done\n\x00\ufffd" {
		t.Errorf("%q", body)
	}
	if e.EventType != "LOG" || e.Action != "log" || e.AgentID != "a" || !e.Success || e.DurationMS != 0 || strings.Contains(string(e.Line()), "secret") {
		t.Errorf("%s", e.Line())
	}
}

// What is below the level is not recorded; from ERROR on a record is a failure,
// whose error says why, and whose outcome follows from it.
func TestLevels(t *testing.T) {
	var level slog.LevelVar
	a := newAgent(t, nil)
	log := slog.New(slogaudit.NewHandler(a.hooks, &slogaudit.Options{Level: &level}))
	ctx := t.Context()
	log.Debug("not there")
	level.Set(slog.LevelDebug - 4)
	log.Debug("there")
	level.Set(slog.LevelInfo)
	log.Log(ctx, slog.LevelWarn+2, "careful", "err", errors.New("no failure"))
	log.Error("it broke")
	log.Error("it broke", slog.Group("g", "cause", fmt.Errorf("read: %w", fs.ErrPermission)), "err", errors.New("second"))
	log.Error("it broke", "err", fmt.Errorf("call: %w", context.DeadlineExceeded))
	log.Error("it broke", "err", (*nilError)(nil))
	log.Log(ctx, slog.Level(1000), "worst")
	level.Set(slog.LevelDebug - 1000)
	log.Log(ctx, slog.LevelDebug-100, "least")
	var got []string
	for _, e := range a.entries(t) {
		text := "-"
		if e.Error != nil {
			text = *e.Error
		}
		n, _ := e.Metadata.Get("severity_number")
		got = append(got, fmt.Sprintf("%s %s %s %v %s %s", e.Inputs.Text("body"), e.Metadata.Text("severity"), n.JSON(), e.Success, text, e.Outcome))
	}
	want := []string{
		"there DEBUG 5 true - ",
		"careful WARN+2 15 true - ",
		"it broke ERROR 17 false it broke ",
		"it broke ERROR 17 false read: permission denied denied",
		"it broke ERROR 17 false call: context deadline exceeded timeout",
		"it broke ERROR 17 false it broke ",
		"worst ERROR+992 24 false worst ",
		"least DEBUG-100 1 true - ",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// A record hangs below the action of its context, with the caller's metadata,
// also from many goroutines at once.
func TestRecordsAreInTheirTrace(t *testing.T) {
	a := newAgent(t, &hook.AuditOptions{Metadata: map[string]any{"service_name": "s"}})
	log := slog.New(slogaudit.NewHandler(a.hooks, nil))
	const runs, records = 8, 20
	var wg sync.WaitGroup
	for i := range runs {
		wg.Go(func() {
			user := fmt.Sprint("u-", i)
			ctx := hook.WithMetadata(t.Context(), map[string]any{"user_id": user})
			_, _ = a.hooks.Do(ctx, hook.ToolUse, hook.Data{Name: user, AgentID: "agent-" + user}, func(ctx context.Context) (any, error) {
				for range records {
					log.With("user", user).InfoContext(ctx, "step")
				}
				return nil, nil
			})
		})
	}
	wg.Wait()
	tools := map[string]audit.Entry{}
	all := a.entries(t)
	for _, e := range all {
		if e.EventType == audit.ToolUse {
			tools[e.SpanID] = e
		}
	}
	n := 0
	for _, e := range all {
		if e.EventType != "LOG" {
			continue
		}
		n++
		tool, ok := tools[e.ParentSpanID]
		user := e.Metadata.Text("user_id")
		attributes, _ := inputs(t, e)["attributes"].(map[string]any)
		if !ok || tool.TraceID != e.TraceID || tool.Action != "tool_use:"+user || e.AgentID != "agent-"+user || attributes["user"] != user || e.Metadata.Text("service_name") != "s" {
			t.Fatalf("%s", e.Line())
		}
	}
	if n != runs*records || len(tools) != runs {
		t.Errorf("%d records of %d tools", n, len(tools))
	}
}

// Whoever logs inside of what records, from its warnings or from another hook,
// makes no record of it, whichever goroutine it is on; the others are made still.
func TestLoggingInsideOfRecording(t *testing.T) {
	var warned, failed, seen atomic.Int64
	var log *slog.Logger
	for name, timeout := range map[string]time.Duration{"on the agent's goroutine": 0, "on another": time.Minute} {
		t.Run(name, func(t *testing.T) {
			warned.Store(0)
			failed.Store(0)
			seen.Store(0)
			a := newAgent(t, &hook.AuditOptions{Timeout: timeout, Warn: func(err error) {
				warned.Add(1)
				log.Warn("not recorded", "err", err)
			}})
			a.hooks.OnError = func(err *hook.Error) {
				failed.Add(1)
				log.Error("a hook failed", "err", err)
			}
			if err := a.hooks.Register(slogaudit.Event, func(_ context.Context, c *hook.Context) error {
				seen.Add(1)
				log.Info("another hook has seen it")
				return errors.New("and failed")
			}, nil); err != nil {
				t.Fatal(err)
			}
			log = slog.New(slogaudit.NewHandler(a.hooks, nil))
			log.Info("one")
			if all := a.entries(t); len(all) != 1 || seen.Load() != 1 || failed.Load() != 1 {
				t.Errorf("%d entries, %d seen, %d failed", len(all), seen.Load(), failed.Load())
			}
			if err := a.trail.Close(); err != nil { // it goes to the spool
				t.Fatal(err)
			}
			log.Info("two")
			if seen.Load() != 2 || warned.Load() != 1 || a.recorder.Stats().Spooled != 1 {
				t.Errorf("%d seen, %d warnings, %+v", seen.Load(), warned.Load(), a.recorder.Stats())
			}
		})
	}
}

// With FailClosed the logger is told that a record is not recorded.
func TestFailClosed(t *testing.T) {
	a := newAgent(t, &hook.AuditOptions{FailClosed: true})
	if err := a.trail.Close(); err != nil {
		t.Fatal(err)
	}
	h := slogaudit.NewHandler(a.hooks, nil)
	if err := h.Handle(t.Context(), slog.NewRecord(time.Now(), slog.LevelInfo, "m", 0)); !errors.Is(err, hook.ErrFailClosed) {
		t.Errorf("%v", err)
	}
}
