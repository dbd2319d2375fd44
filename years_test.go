package audit

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// kept is a sealed segment as the rule sees it, computed without the trail.
type kept struct {
	first, count int64
	newest       time.Time // of the clock while it was open
	days         int       // the longest period in force meanwhile
	agents       map[string]bool
	pinned       map[string]bool // holds that were added in it
}

// model says which segments a trail must have.
type model struct {
	days     int // in force; 0 is none
	longest  int // since the open segment began
	newest   time.Time
	agents   map[string]bool
	added    map[string]bool
	segments []kept
	holds    map[string]heldAgent // by id
}

// heldAgent is a hold on an agent.
type heldAgent struct {
	agent string
	from  map[int64]bool // segments, by first index, that it was on when it was added; -1 is the open one
}

func (m *model) owed(days int) int {
	if days == 0 {
		return DefaultRetentionDays
	}
	return days
}

// stays says whether the rule keeps a segment.
func (m *model) stays(s *kept, now time.Time) bool {
	if m.days == 0 || now.Before(s.newest.Add(time.Duration(max(m.days, s.days))*24*time.Hour)) {
		return true
	}
	for id, h := range m.holds {
		if s.pinned[id] || h.from[s.first] || s.agents[h.agent] {
			return true
		}
	}
	return false
}

// Ten years of a trail: days with and without events, a leap day, clocks that go back
// and jump to 2099, periods that grow and shrink, holds that come and go, and prunes
// of prunes. After every step the trail has exactly the segments that the rule keeps,
// an honest trail never alarms, and one that was tampered with always does.
func TestTenYears(t *testing.T) {
	runs := 2
	if raceEnabled || testing.Short() {
		runs = 1
	}
	for range runs {
		seed := uint64(time.Now().UnixNano())
		t.Run(fmt.Sprint(seed), func(t *testing.T) { tenYears(t, seed) })
	}
}

func tenYears(t *testing.T, seed uint64) {
	ctx := context.Background()
	rng := rand.New(rand.NewPCG(seed, 0))
	c := newTimed(t, Options{RotationInterval: RotateNever})
	m := &model{agents: map[string]bool{}, added: map[string]bool{}, holds: map[string]heldAgent{}, longest: DefaultRetentionDays, newest: c.at()}
	agents := []string{"a", "b", "c", "d"}
	step := 25 // days between two seals, at most
	if raceEnabled {
		step = 80
	}
	seal := func() {
		before := c.journal.First()
		m.newest = later(m.newest, c.at())
		s, err := c.Rotate(ctx)
		if err != nil {
			t.Fatal(err)
		}
		m.segments = append(m.segments, kept{first: before, count: s.Count, newest: m.newest, days: m.longest, agents: m.agents, pinned: m.added})
		for _, h := range m.holds {
			if h.from[-1] {
				delete(h.from, -1)
				h.from[before] = true
			}
		}
		m.agents, m.added, m.longest, m.newest = map[string]bool{}, map[string]bool{}, m.owed(m.days), c.at()
	}
	check := func() {
		t.Helper()
		var want, got []string
		for _, s := range m.segments {
			want = append(want, fmt.Sprint(s.first, "+", s.count))
		}
		for _, s := range c.journal.Segments() {
			got = append(got, fmt.Sprint(s.First, "+", s.Count))
		}
		if !slices.Equal(want, got) {
			r, err := c.Prune(ctx, &PruneOptions{DryRun: true})
			t.Fatalf("segments %v, want %v; %v %+v; holds %+v", got, want, err, r.Segments[0], m.holds)
		}
	}
	prune := func() {
		if _, err := c.Prune(ctx, nil); err != nil && m.days > 0 {
			t.Fatal(err)
		}
		if m.days > 0 {
			m.segments = slices.DeleteFunc(m.segments, func(s kept) bool { return !m.stays(&s, c.at()) })
		}
		check()
	}
	for c.at().Before(time.Date(2033, 12, 1, 0, 0, 0, 0, time.UTC)) {
		for range rng.IntN(3) {
			agent := agents[rng.IntN(len(agents))]
			if _, err := c.Record(ctx, event(agent, "x")); err != nil {
				t.Fatal(err)
			}
			m.agents[agent] = true
		}
		m.newest = later(m.newest, c.at())
		switch rng.IntN(16) {
		case 0: // another period, a preset mostly
			days := []int{RetentionPresets["eu-ai-act"], RetentionPresets["pci"], RetentionPresets["hipaa"], 30, 400}[rng.IntN(5)]
			if err := c.SetRetention(ctx, days, false); err != nil {
				t.Fatal(err)
			}
			m.days = days
			m.longest = max(m.longest, days)
		case 1:
			agent := agents[rng.IntN(len(agents))]
			h, err := c.AddHold(ctx, HoldRequest{Agent: agent, Reason: "case"})
			if err != nil {
				t.Fatal(err)
			}
			from := map[int64]bool{}
			for _, s := range m.segments {
				if s.agents[agent] {
					from[s.first] = true
				}
			}
			if m.agents[agent] {
				from[-1] = true
			}
			m.holds[h.ID], m.added[h.ID] = heldAgent{agent, from}, true
		case 3, 4:
			for id := range m.holds {
				if err := c.LiftHold(ctx, id, "closed"); err != nil {
					t.Fatal(err)
				}
				delete(m.holds, id)
				break
			}
		case 6: // the clock goes back, for a while
			c.set(c.at().Add(-time.Duration(rng.IntN(48)) * time.Hour))
		case 7: // it jumps far ahead while the trail is open, and is set right
			was := c.at()
			c.set(time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC))
			if _, err := c.Record(ctx, event("a", "late")); err != nil {
				t.Fatal(err)
			}
			m.agents["a"], m.newest = true, c.at()
			c.set(was)
			if _, err := c.Record(ctx, event("a", "again")); err != nil {
				t.Fatal(err)
			}
		case 8:
			c.reopen()
			if v, err := c.Verify(ctx, nil); err != nil || v.Status != "intact" {
				t.Fatalf("%v %+v", err, v)
			}
		}
		c.set(c.at().Add(time.Duration(12+rng.IntN(24*step)) * time.Hour))
		seal()
		if rng.IntN(3) == 0 {
			prune()
		}
	}
	prune()
	c.intact()
	if rng.IntN(2) == 0 {
		c.reopen()
	}
	c.intact()
	tamperYears(t, rng, c)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// tamperYears removes what nobody permitted.
func tamperYears(t *testing.T, rng *rand.Rand, c *timed) {
	ctx := context.Background()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob(filepath.Join(c.Dir(), "segments", "*"))
	if err != nil || len(names) == 0 {
		t.Fatalf("%d segments, %v", len(names), err)
	}
	for range 3 {
		name := names[rng.IntN(len(names))]
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
		v, err := VerifyPath(ctx, c.path, &VerifyOptions{StateDir: c.opts.StateDir})
		if err != nil || v.Status != "damaged" || v.Problem != "missing" || !strings.Contains(fmt.Sprint(v.Ranges), "missing") {
			t.Errorf("without %s: %v %+v", filepath.Base(name), err, v)
		}
		if err := os.WriteFile(name, data, 0o400); err != nil {
			t.Fatal(err)
		}
	}
	c.open()
}
