package audit

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kaizen-audit/kaizen-audit/internal/witness/tsatest"
)

// timed is a trail whose clock a test sets.
type timed struct {
	t    *testing.T
	path string
	opts Options
	now  atomic.Int64 // nanoseconds
	*Trail
}

func (c *timed) at() time.Time   { return time.Unix(0, c.now.Load()).UTC() }
func (c *timed) set(t time.Time) { c.now.Store(t.UnixNano()) }

// inMemory is a directory where syncing costs nothing, if there is such.
func inMemory(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "audit")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func newTimed(t *testing.T, o Options) *timed {
	t.Helper()
	dir := inMemory(t)
	c := &timed{t: t, path: filepath.Join(dir, "audit.jsonl"), opts: o}
	c.set(time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC))
	c.opts.StateDir, c.opts.now, c.opts.Durability = filepath.Join(dir, "state"), c.at, Written
	c.open()
	t.Cleanup(func() { c.Trail.Close() })
	return c
}

func (c *timed) open() {
	c.t.Helper()
	var err error
	if c.Trail, err = Open(c.path, &c.opts); err != nil {
		c.t.Fatal(err)
	}
}

func (c *timed) reopen() {
	c.t.Helper()
	if err := c.Close(); err != nil {
		c.t.Fatal(err)
	}
	c.open()
}

// days lets time pass, with a segment of some events at the end of each day.
func (c *timed) days(n int, agent string) {
	c.t.Helper()
	for range n {
		for range 3 {
			if _, err := c.Record(context.Background(), event(agent, "x")); err != nil {
				c.t.Fatal(err)
			}
		}
		c.set(c.at().Add(24 * time.Hour))
		if _, err := c.Rotate(context.Background()); err != nil {
			c.t.Fatal(err)
		}
	}
}

func (c *timed) mustPrune(want int) *PruneReport {
	c.t.Helper()
	r, err := c.Prune(context.Background(), nil)
	if err != nil {
		c.t.Fatal(err)
	}
	if r.Pruned.Segments != want {
		c.t.Fatalf("%d segments were pruned, want %d: %+v", r.Pruned.Segments, want, r)
	}
	return r
}

// intact verifies the trail, and gives how many entries are pruned.
func (c *timed) intact() (pruned int64) {
	c.t.Helper()
	r, err := c.Verify(context.Background(), nil)
	if err != nil || r.Status != "intact" {
		c.t.Fatalf("%v, %+v", err, r)
	}
	next := int64(0)
	for _, x := range r.Ranges {
		if x.First != next {
			c.t.Fatalf("ranges do not join: %+v", r.Ranges)
		}
		if next = x.First + x.Count; x.State == "pruned" {
			pruned += x.Count
		}
	}
	return pruned
}

// What is past its period goes, and nothing else; what remains is proven, read and
// appended to, also after it was opened anew.
func TestPrune(t *testing.T) {
	c := newTimed(t, Options{RetentionDays: 5})
	c.days(8, "a")
	ctx := context.Background()
	dry, err := c.Prune(ctx, &PruneOptions{DryRun: true})
	if err != nil || dry.Pruned.Segments != 0 || !dry.Segments[2].Prune || dry.Segments[3].Prune || dry.Segments[3].Why != "not old enough" {
		t.Fatalf("%v %+v", err, dry)
	}
	before := c.intact()
	r := c.mustPrune(3)
	if before != 0 || r.Pruned.Entries == 0 || len(r.Pruned.Said) != 1 {
		t.Errorf("%d %+v", before, r.Pruned)
	}
	for again := range 2 {
		if got := c.intact(); got != r.Pruned.Entries {
			t.Errorf("%d entries are pruned, want %d", got, r.Pruned.Entries)
		}
		entries, err := collect(c.Query(ctx, Query{}))
		if err != nil || len(entries) != 5*3 {
			t.Errorf("%d entries, %v", len(entries), err)
		}
		info, err := c.Info(ctx)
		if err != nil || len(info.Missing) > 0 || info.RetentionDays != 5 || info.Pruned != r.Pruned.Entries {
			t.Errorf("%v %+v", err, info)
		}
		if _, err := c.Prove(ctx, entries[0].Index); err != nil {
			t.Error(err)
		}
		report, err := c.ComplianceReport(ctx)
		if err != nil || len(report.Missing) != 0 {
			t.Errorf("%v %+v", err, report)
		}
		reader, err := Open(c.path, &Options{ReadOnly: true, StateDir: c.opts.StateDir})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := collect(reader.Query(ctx, Query{})); err != nil || len(got) != len(entries) {
			t.Errorf("a reader gets %d entries, %v", len(got), err)
		}
		if err := reader.Close(); err != nil {
			t.Error(err)
		}
		if again == 0 {
			c.reopen()
		}
	}
	c.mustPrune(0)
	c.days(1, "a")
	c.mustPrune(1)
	c.intact()
	// One more file than was permitted is an alarm, and opening is refused.
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	names, _ := filepath.Glob(filepath.Join(c.Dir(), "segments", "*.zst"))
	slices.Sort(names)
	if err := os.Remove(names[0]); err != nil {
		t.Fatal(err)
	}
	v, err := VerifyPath(ctx, c.path, &VerifyOptions{StateDir: c.opts.StateDir})
	if err != nil || v.Status != "damaged" || v.Problem != "missing" {
		t.Errorf("%v %+v", err, v)
	}
	if _, err := Open(c.path, &c.opts); !errors.Is(err, ErrDamaged) {
		t.Errorf("%v", err)
	}
}

// When all that was sealed is gone, the open segment alone says where it begins.
func TestPruneOfAllThatIsSealed(t *testing.T) {
	c := newTimed(t, Options{RetentionDays: 2})
	c.days(3, "a")
	c.set(c.at().Add(72 * time.Hour))
	r := c.mustPrune(3)
	for range 2 {
		if got := c.intact(); got != r.Pruned.Entries {
			t.Errorf("%d entries are pruned, want %d", got, r.Pruned.Entries)
		}
		if _, err := c.Record(context.Background(), event("a", "x")); err != nil {
			t.Fatal(err)
		}
		if entries, err := collect(c.Query(context.Background(), Query{})); err != nil || len(entries) == 0 {
			t.Errorf("%d entries, %v", len(entries), err)
		}
		c.reopen()
	}
	c.days(1, "a")
	c.intact()
}

// No period, no pruning; and a shorter one never takes what was promised.
func TestRetentionOnlyPromisesMore(t *testing.T) {
	ctx := context.Background()
	c := newTimed(t, Options{})
	c.days(2, "a")
	if _, err := c.Prune(ctx, nil); err == nil || !strings.Contains(err.Error(), "no retention period") {
		t.Errorf("%v", err)
	}
	if err := c.SetRetention(ctx, 10, false); err != nil {
		t.Fatal(err)
	}
	c.days(3, "b")
	c.set(c.at().AddDate(0, 0, 20))
	// What was recorded without a period is owed 2555 days.
	c.reopenAt(20)
	r := c.mustPrune(2)
	if r.Segments[0].OwnDays != 2555 || r.Segments[2].OwnDays != 2555 || r.Segments[3].OwnDays != 10 {
		t.Errorf("%+v", r.Segments)
	}
	if err := c.SetRetention(ctx, 3, true); err != nil {
		t.Fatal(err)
	}
	if err := c.SetRetention(ctx, 2, false); err == nil {
		t.Error("a locked period was shortened")
	}
	if got, err := c.Retention(ctx); err != nil || got != (Retention{Days: 3, Set: true, Locked: true}) {
		t.Errorf("%+v %v", got, err)
	}
	// Opening with a longer one is recorded, with a shorter one refused.
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	o := c.opts
	o.RetentionDays = 2
	if _, err := Open(c.path, &o); err == nil || !strings.Contains(err.Error(), "RetentionDays") {
		t.Errorf("%v", err)
	}
	c.opts.RetentionDays = 30
	c.open()
	if got, _ := c.Retention(ctx); got.Days != 30 || !got.Locked {
		t.Errorf("%+v", got)
	}
	c.intact()
}

// reopenAt opens the trail again after a week without entries, twice: the first time
// says that the clock is right.
func (c *timed) reopenAt(int) {
	c.t.Helper()
	c.reopen()
	c.reopen()
}

// A profile has its period and a floor.
func TestRetentionOfProfiles(t *testing.T) {
	for profile, want := range map[string]Retention{"hipaa": {Days: 2555, Set: true, Floor: 2190}, "pci": {Days: 1095, Set: true, Floor: 365}, "gdpr": {Days: 2555}} {
		dir := t.TempDir()
		path := filepath.Join(dir, "audit.jsonl")
		o := Options{StateDir: filepath.Join(dir, "state"), KeyFile: filepath.Join(dir, "kek")}
		if _, err := Init(path, &InitOptions{Profile: profile, Options: o}); err != nil {
			t.Fatal(err)
		}
		trail, err := Open(path, &o)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := trail.Retention(context.Background()); err != nil || got != want {
			t.Errorf("%s: %+v %v", profile, got, err)
		}
		if want.Floor > 0 {
			if err := trail.SetRetention(context.Background(), want.Floor-1, false); err == nil {
				t.Errorf("%s: below the floor", profile)
			}
			if err := trail.SetRetention(context.Background(), want.Floor, false); err != nil {
				t.Errorf("%s: %v", profile, err)
			}
		}
		if err := trail.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A hold keeps what it covers, by user, agent, trace and time, also what comes later,
// until it is lifted.
func TestHold(t *testing.T) {
	ctx := context.Background()
	c := newTimed(t, Options{RetentionDays: 2})
	c.days(1, "a")
	c.days(1, "b")
	if _, err := c.AddHold(ctx, HoldRequest{Reason: "x"}); err == nil {
		t.Error("a hold on nothing")
	}
	if _, err := c.AddHold(ctx, HoldRequest{Agent: "a"}); err == nil {
		t.Error("a hold without a reason")
	}
	h, err := c.AddHold(ctx, HoldRequest{Agent: "a", Reason: "case 2026-17"})
	if err != nil || !h.Open || len(h.Ranges) != 1 {
		t.Fatalf("%v %+v", err, h)
	}
	c.days(1, "b") // here the hold was added
	c.days(1, "b")
	c.days(1, "a") // the hold looks into this one
	c.days(4, "b")
	for range 2 {
		holds, err := c.Holds(ctx)
		if err != nil || len(holds) != 1 || holds[0].ID != h.ID || holds[0].Agent != "a" || holds[0].Reason != "case 2026-17" {
			t.Fatalf("%v %+v", err, holds)
		}
		c.reopen()
	}
	r := c.mustPrune(5 - 1)
	var kept []string
	for _, s := range r.Segments {
		if strings.HasPrefix(s.Why, "hold ") {
			kept = append(kept, strings.TrimPrefix(s.Why, "hold "+h.ID))
		}
	}
	if !slices.Equal(kept, []string{"", " was added in it", ""}) {
		t.Errorf("%q", kept)
	}
	c.intact()
	if err := c.LiftHold(ctx, "no such", "x"); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}
	if err := c.LiftHold(ctx, h.ID, "closed"); err != nil {
		t.Fatal(err)
	}
	if err := c.LiftHold(ctx, h.ID, "closed"); !errors.Is(err, ErrNotFound) {
		t.Errorf("lifted twice: %v", err)
	}
	c.mustPrune(3)
	c.intact()
	c.reopen()
	c.intact()
}

// A clock that is far ahead of everything prunes nothing.
func TestPruneDistrustsTheClock(t *testing.T) {
	c := newTimed(t, Options{RetentionDays: 2})
	c.days(2, "a")
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c.set(time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC))
	c.open()
	if _, err := c.Prune(context.Background(), nil); !errors.Is(err, ErrClock) {
		t.Errorf("%v", err)
	}
	c.intact()
}

// An anchor's clock is as good as the trail's own entries, and is named; it does not
// agree with any.
func TestAnAnchorAgreesWithTheClock(t *testing.T) {
	tsa := tsatest.New(t, "ecdsa")
	at := func(now time.Time) *timed {
		c := newTimed(t, Options{RetentionDays: 2, Anchors: []Anchor{{URL: tsa.URL, CAFile: tsa.CAFile, Every: time.Nanosecond}}})
		c.days(2, "a")
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		c.set(now)
		c.open()
		return c
	}
	c := at(time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC))
	if _, err := c.Prune(context.Background(), nil); !errors.Is(err, ErrClock) {
		t.Errorf("%v", err)
	}
	c = at(time.Now().Add(time.Hour)) // long after the newest entry, and right
	r, err := c.Prune(context.Background(), nil)
	if err != nil || len(r.Pruned.Said) == 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	e, _, err := c.entryAt(context.Background(), r.Pruned.Said[0])
	if err != nil {
		t.Fatal(err)
	}
	if v, ok := e.Outputs.Get("clock"); !ok || !strings.Contains(string(v.JSON()), `"kind":"timestamp"`) {
		t.Errorf("%s", e.Line())
	}
	c.intact()
}

// A crash after each step of a prune: it did not begin, or is completed.
func TestCrashPrune(t *testing.T) {
	c := newTimed(t, Options{RetentionDays: 2})
	c.days(5, "a")
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	segments := func() int {
		names, _ := filepath.Glob(filepath.Join(c.Dir(), "segments", "*"))
		return len(names)
	}
	files := map[string][]byte{}
	all, _ := filepath.Glob(filepath.Join(c.Dir(), "segments", "*"))
	for _, name := range all {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = data
	}
	c.open()
	r := c.mustPrune(3)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	left := segments()
	// As a crash leaves it between the entry and the last deletion.
	for name, data := range files {
		if _, err := os.Stat(name); err != nil {
			if err := os.WriteFile(name, data, 0o400); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.WriteFile(filepath.Join(c.Dir(), "pruning"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c.open()
	if segments() != left || c.intact() != r.Pruned.Entries {
		t.Errorf("%d files are left, want %d", segments(), left)
	}
	if _, err := os.Stat(filepath.Join(c.Dir(), "pruning")); err == nil {
		t.Error("the mark is there")
	}
	// The mark alone, before there was an entry.
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.Dir(), "pruning"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c.open()
	if segments() != left {
		t.Error("a mark without an entry deleted something")
	}
}

// When a period begins and ends, leap days and the turns of years included.
func TestPeriods(t *testing.T) {
	at := func(s string) time.Time {
		out, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for _, c := range []struct{ interval, at, begins, next string }{
		{RotateDaily, "2024-02-28T23:59:59Z", "2024-02-28T00:00:00Z", "2024-02-29T00:00:00Z"},
		{RotateDaily, "2024-03-01T01:30:00+02:00", "2024-02-29T00:00:00Z", "2024-03-01T00:00:00Z"},
		{RotateWeekly, "2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z", "2024-01-08T00:00:00Z"},
		{RotateWeekly, "2023-12-31T23:00:00Z", "2023-12-25T00:00:00Z", "2024-01-01T00:00:00Z"},
		{RotateMonthly, "2023-12-31T23:00:00Z", "2023-12-01T00:00:00Z", "2024-01-01T00:00:00Z"},
		{RotateMonthly, "2024-02-29T12:00:00Z", "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"},
	} {
		if b, n := periodOf(c.interval, at(c.at)), periodAfter(c.interval, at(c.at)); !b.Equal(at(c.begins)) || !n.Equal(at(c.next)) {
			t.Errorf("%s at %s: from %s to %s", c.interval, c.at, b, n)
		}
	}
}

// A segment ends with its period, whether anything is recorded or not; an empty one
// does not.
func TestRotatesOnTime(t *testing.T) {
	for interval, want := range map[string]int{RotateDaily: 4, RotateWeekly: 2, RotateMonthly: 1, RotateNever: 0} {
		t.Run(interval, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // begins at midnight UTC of Saturday, 2000-01-01
				trail, err := Open(memLog, &Options{fs: newMem(t), RotationInterval: interval, Command: "test"})
				if err != nil {
					t.Fatal(err)
				}
				defer trail.Close()
				for _, days := range []int{1, 1, 5, 30} {
					if _, err := trail.Record(context.Background(), event("a", "x")); err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Duration(days) * 24 * time.Hour)
					synctest.Wait()
				}
				if got := len(trail.journal.Segments()); got != want {
					t.Errorf("%d segments, want %d", got, want)
				}
			})
		})
	}
}

// A holder prunes by itself, where a period was set.
func TestPrunesByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		trail, err := Open(memLog, &Options{fs: newMem(t), RetentionDays: 3, Command: "test"})
		if err != nil {
			t.Fatal(err)
		}
		defer trail.Close()
		for range 8 {
			if _, err := trail.Record(context.Background(), event("a", "x")); err != nil {
				t.Fatal(err)
			}
			time.Sleep(24 * time.Hour)
			synctest.Wait()
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		entries, err := collect(trail.Query(context.Background(), Query{}))
		if err != nil || len(entries) != 3 && len(entries) != 4 {
			t.Errorf("%d entries are left, %v", len(entries), err)
		}
	})
}
