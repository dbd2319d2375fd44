package lifecycle

import (
	"encoding/json"
	"testing"
	"time"
)

// What is scheduled follows from its entries, and from what a seal or a prune says
// again where those are gone; only the lifecycle key schedules, postpones and cancels.
func TestScheduled(t *testing.T) {
	b := newBook(t)
	b.created(30)
	until := stamp(day(20))
	duty := []Blocking{{"duty", "law", 2, &until}}
	of := func(subject string) map[string]any {
		return map[string]any{"subject": subject, "handles": []string{subject}, "request": "sealed:v1:" + subject + ":AA", "blocked": duty}
	}
	mia := b.say(10, day(1), Erasure, "erasure_scheduled", "lifecycle", of("mia"))
	noah := b.say(11, day(1), Erasure, "erasure_scheduled", "lifecycle", of("noah"))
	ada := b.say(12, day(1), Erasure, "erasure_scheduled", "lifecycle", of("ada"))
	b.say(13, day(1), Erasure, "erasure_scheduled", "writer", of("forged"))
	b.say(14, day(1), Erasure, "erasure_cancelled", "writer", map[string]any{"schedule": mia, "reason": "r"})
	b.say(15, day(1), Erasure, "erasure_scheduled", "lifecycle", map[string]any{"subject": "x"})
	b.say(16, day(1), Erasure, "erasure_cancelled", "lifecycle", map[string]any{"schedule": "none", "reason": "r"})
	s := Replay(b.cfg, b.lines)
	if len(s.Scheduled) != 3 || len(s.NotValid) != 4 || s.Scheduled[0].ID != mia || s.Scheduled[0].At != stamp(day(1)) || s.Scheduled[0].By != "uid:0" || s.Scheduled[0].Index != 10 {
		t.Fatalf("%+v\n%+v", s.Scheduled, s.NotValid)
	}
	// A writer's seal says it again; it suffices for the writer when the entries are
	// out of sight.
	restated := s.Scheduled
	b.say(100, day(2), Seal, "segment_sealed", "writer", map[string]any{"gaps": []Range{}, "policy": map[string]any{"profile": "plain", "retention_days": 30},
		"segment": map[string]any{"first": 0, "count": 100, "max_recorded_at": stamp(day(1)), "retention_days": 30}, "scheduled": restated})
	c := b.cfg
	c.Restated = true
	late := b.lines[len(b.lines)-1:]
	if s := Replay(c, late); len(s.Scheduled) != 3 || s.Scheduled[2].Subject != "ada" || s.Scheduled[2].Request == "" {
		t.Fatalf("%+v", s.Scheduled)
	}
	hold := "hold"
	b.say(110, day(3), Erasure, "erasure_postponed", "lifecycle", map[string]any{"schedule": mia, "blocked": []Blocking{{"hold", hold, 1, nil}, duty[0]}})
	b.say(111, day(3), Erasure, "erasure_cancelled", "lifecycle", map[string]any{"schedule": noah, "reason": "r"})
	b.say(112, day(3), Erasure, "subject_erased", "lifecycle", map[string]any{"handles": []string{"ada", "other"}})
	for _, lines := range [][]Line{b.lines, b.lines[len(b.lines)-4:]} {
		s := Replay(c, lines)
		if len(s.Scheduled) != 1 || s.Scheduled[0].ID != mia || len(s.Scheduled[0].Blocked) != 2 {
			t.Fatalf("%s is not scheduled any more: %+v", ada, s.Scheduled)
		}
		e := s.Scheduled[0]
		for _, at := range []struct {
			time  time.Time
			holds []HeldBy
			want  bool
		}{{day(19), nil, false}, {day(20), nil, true}, {day(20), []HeldBy{{ID: hold}}, false}, {day(20), []HeldBy{{ID: "another"}}, true}} {
			if e.Ready(at.time, at.holds) != at.want {
				t.Errorf("ready at %v under %v: %v", at.time, at.holds, !at.want)
			}
		}
	}
	// A prune takes the first entries away, and says again what waits.
	first := Range{0, 100}
	out := b.pruneOf(first, []Range{first}, 30, nil, 100)
	out["scheduled"] = Replay(c, b.lines).Scheduled
	b.say(200, day(40), Prune, "segments_pruned", "lifecycle", out)
	gone := b.cfg
	gone.Missing = []Range{first}
	s = Replay(gone, b.without(first))
	if len(s.Scheduled) != 1 || s.Scheduled[0].ID != mia || len(s.Scheduled[0].Blocked) != 2 {
		t.Errorf("%+v, not valid: %+v", s.Scheduled, s.NotValid)
	}
	text, err := json.Marshal(s.Scheduled[0])
	var again Scheduled
	if err != nil || json.Unmarshal(text, &again) != nil || again.Blocked[1].Until == nil || *again.Blocked[1].Until != until {
		t.Errorf("%s, %v", text, err)
	}
}
