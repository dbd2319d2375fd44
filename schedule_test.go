package audit

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kaizen-audit/kaizen-audit/internal/durable"
	"github.com/kaizen-audit/kaizen-audit/internal/durable/durabletest"
	"github.com/kaizen-audit/kaizen-audit/policy"
)

// dutied is a trail with an entry of canary-mia, which a duty of 30 days keeps.
func dutied(t *testing.T, now *time.Time) (string, *Options, *Trail) {
	t.Helper()
	p := rules(t, policy.Config{Duties: []policy.Duty{{When: policy.When{EventTypes: []string{ToolUse}}, Days: 30, Basis: "some law"}}})
	path, o := profileTrail(t, "gdpr", Options{Policy: p})
	o.now = func() time.Time { return *now }
	trail := openWith(t, path, o)
	mustRecord(t, trail, personalEvent("canary-mia", "t"), personalEvent("noah", "t2"))
	return path, o, trail
}

func scheduledAs(t *testing.T, trail *Trail, n int) []ScheduledErasure {
	t.Helper()
	all, err := trail.ScheduledErasures(context.Background())
	if err != nil || len(all) != n {
		t.Fatalf("%d erasures are scheduled, want %d, %v", len(all), n, err)
	}
	return all
}

// actions are those of the trail's entries about erasures.
func actions(t *testing.T, trail *Trail) (out []string) {
	t.Helper()
	for _, e := range found(t, trail, Query{EventTypes: []string{"AUDIT_ERASURE"}}) {
		out = append(out, e.Action)
	}
	return out
}

// An erasure that a duty stands against waits for its end: through seals, openings
// and prunes, listed, nobody named in any file; and is done then with all that came
// meanwhile.
func TestScheduledErasure(t *testing.T) {
	ctx := context.Background()
	now := time.Now()
	path, o, trail := dutied(t, &now)
	certificate := filepath.Join(t.TempDir(), "c.json")
	e, err := trail.EraseUser(ctx, "canary-mia", &EraseOptions{Reason: "canary of the reason", Schedule: true, Certificate: certificate, BackupDays: 3})
	if err != nil || e.Done || e.Scheduled == nil || e.Scheduled.Ready || e.Scheduled.Until == nil || e.Scheduled.Until.Before(now.AddDate(0, 0, 29)) {
		t.Fatalf("%+v, %v", e, err)
	}
	noCanary(t, filepath.Dir(path))
	if _, err := trail.EraseUser(ctx, "canary-mia", &EraseOptions{Reason: "x", Schedule: true}); !errors.Is(err, ErrOption) || !strings.Contains(err.Error(), e.Scheduled.ID) {
		t.Errorf("twice: %v", err)
	}
	dry, err := trail.EraseUser(ctx, "canary-mia", &EraseOptions{DryRun: true})
	if err != nil || dry.Scheduled == nil || dry.Scheduled.ID != e.Scheduled.ID || len(dry.Blocked) != 1 {
		t.Errorf("a dry run says %+v, %v", dry, err)
	}
	check := func(trail *Trail) {
		t.Helper()
		s := scheduledAs(t, trail, 1)[0]
		if s.ID != e.Scheduled.ID || s.User != "canary-mia" || s.Reason != "canary of the reason" || s.Certificate != certificate || s.BackupDays != 3 || s.By != principal() ||
			len(s.Blocked) != 1 || s.Blocked[0].Name != "some law" || s.Ready || s.Scheduled.IsZero() {
			t.Fatalf("%+v", s)
		}
	}
	check(trail)
	// Not due: it waits, and that is not an entry each time.
	for range 2 {
		if due, err := trail.EraseDue(ctx); err != nil || due.Waiting != 1 || len(due.Done)+len(due.Failed) != 0 {
			t.Fatalf("%+v, %v", due, err)
		}
	}
	if got := actions(t, trail); len(got) != 1 || got[0] != "erasure_scheduled" {
		t.Fatal(got)
	}
	// What is sealed says it again, and who opens the trail finds it there.
	for range 2 {
		if _, err := trail.Rotate(ctx); err != nil {
			t.Fatal(err)
		}
		check(trail)
		trail.Close()
		trail = openWith(t, path, o)
		check(trail)
	}
	reader := *o
	reader.ReadOnly = true
	check(openWith(t, path, &reader))
	if i, err := trail.Info(ctx); err != nil || i.ScheduledErasures != 1 {
		t.Errorf("%+v, %v", i, err)
	}
	mustRecord(t, trail, Event{EventType: LLMCall, AgentID: "agent", Action: "llm", Inputs: Of(map[string]any{"prompt": "canary"}), Metadata: Of(map[string]any{"user_id": "canary-mia"})})
	trail.Close()

	now = now.AddDate(0, 0, 31)
	trail = openWith(t, path, o)
	if !scheduledAs(t, trail, 1)[0].Ready {
		t.Error("it is not ready")
	}
	if i, err := trail.Info(ctx); err != nil || !strings.Contains(strings.Join(i.Warnings, " "), "1 are due") {
		t.Errorf("%q, %v", i.Warnings, err)
	}
	due, err := trail.EraseDue(ctx)
	if err != nil || len(due.Done) != 1 || due.Done[0].Schedule != e.Scheduled.ID || due.Done[0].Fields < 4 {
		t.Fatalf("%+v, %v", due, err)
	}
	scheduledAs(t, trail, 0)
	if got := found(t, trail, Query{User: "canary-mia"}); len(got) != 0 {
		t.Errorf("%s", got[0].View())
	}
	own := found(t, trail, Query{EventTypes: []string{"AUDIT_ERASURE"}})
	if len(own) != 2 || own[1].Outputs.Text("schedule") != e.Scheduled.ID || own[1].Outputs.Text("reason") != "canary of the reason" {
		t.Errorf("%s", own[len(own)-1].View())
	}
	if strings.Contains(string(own[0].View()), "canary") {
		t.Errorf("who it was about is readable: %s", own[0].View())
	}
	data, err := os.ReadFile(certificate)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := CheckCertificate(data, "canary-mia", trail.VKey(), ""); err != nil || c.CompleteAfter == nil {
		t.Errorf("%+v, %v", c, err)
	}
	if c, err := trail.ComplianceReport(ctx); err != nil || c.Erasures != 1 || c.ErasedEntries != due.Done[0].Entries {
		t.Errorf("the report counts %d erasures of %d entries, %v", c.Erasures, c.ErasedEntries, err)
	}
	verifyIntact(t, path, o)
	// A new opening finds nothing that waits, behind a seal too.
	if _, err := trail.Rotate(ctx); err != nil {
		t.Fatal(err)
	}
	trail.Close()
	trail = openWith(t, path, o)
	scheduledAs(t, trail, 0)
	verifyIntact(t, path, o)
}

// A hold that comes meanwhile postpones it, once; when it is lifted, the holder
// carries it out by itself.
func TestHoldPostponesAScheduledErasure(t *testing.T) {
	ctx := context.Background()
	now := time.Now()
	path, o, trail := dutied(t, &now)
	e, err := trail.EraseUser(ctx, "canary-mia", &EraseOptions{Reason: "x", Schedule: true})
	if err != nil {
		t.Fatal(err)
	}
	h, err := trail.AddHold(ctx, HoldRequest{User: "canary-mia", Reason: "case"})
	if err != nil {
		t.Fatal(err)
	}
	trail.Close()
	now = now.AddDate(0, 0, 31)
	trail = openWith(t, path, o)
	for range 2 {
		if due, err := trail.EraseDue(ctx); err != nil || due.Waiting != 1 || len(due.Done) != 0 {
			t.Fatalf("%+v, %v", due, err)
		}
	}
	if got := actions(t, trail); len(got) != 2 || got[1] != "erasure_postponed" {
		t.Fatal(got)
	}
	if s := scheduledAs(t, trail, 1)[0]; s.Ready || s.Until != nil || len(s.Blocked) != 1 || s.Blocked[0].Name != h.ID {
		t.Errorf("%+v", s)
	}
	// A second opening: the clock agrees with the trail's own entries by then.
	trail.Close()
	trail = openWith(t, path, o)
	if err := trail.LiftHold(ctx, h.ID, "closed"); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		i, err := trail.Info(ctx)
		if err != nil || time.Now().After(end) {
			t.Fatalf("it is not carried out: %v", err)
		}
		if i.ScheduledErasures == 0 {
			break
		}
	}
	// Whoever asks is told of it.
	due, err := trail.EraseDue(ctx)
	if err != nil || len(due.Done) != 1 || due.Done[0].Schedule != e.Scheduled.ID {
		t.Errorf("%+v, %v", due, err)
	}
	if len(found(t, trail, Query{User: "canary-mia"})) != 0 {
		t.Error("it is readable")
	}
	verifyIntact(t, path, o)
}

// One that is cancelled is not carried out; one whose certificate has no place waits
// and says so; an erasure of the person ends what was scheduled; the holder does it
// for others.
func TestScheduledErasureEnds(t *testing.T) {
	ctx := context.Background()
	now := time.Now()
	path, o, trail := dutied(t, &now)
	other := *o
	client := openWith(t, path, &other)
	if client.holds() {
		t.Fatal("two holders")
	}
	e, err := client.EraseUser(ctx, "canary-mia", &EraseOptions{Reason: "x", Schedule: true})
	if err != nil || e.Scheduled == nil {
		t.Fatalf("%+v, %v", e, err)
	}
	if err := client.CancelErasure(ctx, e.Scheduled.ID, ""); !errors.Is(err, ErrOption) {
		t.Errorf("without a reason: %v", err)
	}
	if err := client.CancelErasure(ctx, "none", "x"); !errors.Is(err, ErrNotFound) {
		t.Errorf("of none: %v", err)
	}
	if err := client.CancelErasure(ctx, e.Scheduled.ID, "canary: it was a mistake"); err != nil {
		t.Fatal(err)
	}
	noCanary(t, filepath.Dir(path))
	scheduledAs(t, trail, 0)
	if due, err := client.EraseDue(ctx); err != nil || len(due.Done)+due.Waiting+len(due.Failed) != 0 {
		t.Errorf("%+v, %v", due, err)
	}
	place := filepath.Join(t.TempDir(), "place")
	if err := os.Mkdir(place, 0o700); err != nil {
		t.Fatal(err)
	}
	if e, err = client.EraseUser(ctx, "canary-mia", &EraseOptions{Reason: "x", Schedule: true, Certificate: filepath.Join(place, "c.json")}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.EraseUser(ctx, "noah", &EraseOptions{Reason: "x", Schedule: true}); err != nil {
		t.Fatal(err)
	}
	scheduledAs(t, client, 2)
	client.Close()
	trail.Close()
	now = now.AddDate(0, 0, 31)
	if err := os.Remove(place); err != nil {
		t.Fatal(err)
	}
	trail = openWith(t, path, o)
	due, err := trail.EraseDue(ctx)
	if err != nil || len(due.Done) != 1 || len(due.Failed) != 1 || due.Failed[0].Schedule != e.Scheduled.ID || strings.Contains(due.Failed[0].Problem, "mia") {
		t.Fatalf("%+v, %v", due, err)
	}
	scheduledAs(t, trail, 1)
	// Nothing stands against it any more: --schedule erases at once, and what was
	// scheduled before has come to its end.
	if e, err = trail.EraseUser(ctx, "canary-mia", &EraseOptions{Reason: "y", Schedule: true}); err != nil || !e.Done || e.Scheduled != nil {
		t.Fatalf("%+v, %v", e, err)
	}
	scheduledAs(t, trail, 0)
	if got := strings.Join(actions(t, trail), " "); got != "erasure_scheduled erasure_cancelled erasure_scheduled erasure_scheduled subject_erased subject_erased" {
		t.Error(got)
	}
	verifyIntact(t, path, o)
}

// schedulesOrNot schedules an erasure, cancels it and schedules it again; what an
// opening finds after it was cut short is what was acknowledged, or one step more, and
// then it is carried out.
func schedulesOrNot(t *testing.T, r *durabletest.Run) {
	ctx := context.Background()
	if err := durable.MkdirAll(r.FS, "/log", 0o700); err != nil {
		t.Fatal(err)
	}
	o := memOptions(r.FS)
	o.KEK, o.profile = testKEK(t, 1), "gdpr"
	now := time.Now()
	o.now = func() time.Time { return now }
	o.Policy = rules(t, policy.Config{Duties: []policy.Duty{{When: policy.When{EventTypes: []string{ToolUse}}, Days: 30, Basis: "some law"}}})
	trail, err := Open(memLog, o)
	if err != nil {
		t.Fatal(err)
	}
	mustRecord(t, trail, personalEvent("canary-mia", "t1"), personalEvent("canary-noah", "t2"))
	acknowledged := 0
	r.Inject(func() {
		schedule := &EraseOptions{Reason: "canary", Schedule: true}
		e, err := trail.EraseUser(ctx, "canary-mia", schedule)
		if err != nil {
			return
		}
		acknowledged = 1
		if trail.CancelErasure(ctx, e.Scheduled.ID, "canary") != nil {
			return
		}
		acknowledged = 2
		if _, err := trail.EraseUser(ctx, "canary-noah", schedule); err == nil {
			acknowledged = 3
		}
	})
	next := openAfterCrash(t, r, trail, o)
	all, err := next.ScheduledErasures(ctx)
	if err != nil {
		t.Fatal(err)
	}
	step := 0
	said := found(t, next, Query{EventTypes: []string{"AUDIT_ERASURE"}, Action: "erasure_cancelled"})
	switch {
	case len(all) == 1 && all[0].User == "canary-mia":
		step = 1
	case len(all) == 1 && all[0].User == "canary-noah":
		step = 3
	case len(all) == 0 && len(said) > 0:
		step = 2
	}
	if step < acknowledged || step > acknowledged+1 || len(all) > 1 {
		t.Fatalf("%d steps were acknowledged, and %d are there: %+v", acknowledged, step, all)
	}
	now = now.AddDate(0, 0, 31)
	due, err := next.EraseDue(ctx)
	if err != nil || len(due.Done) != len(all) || len(due.Failed) > 0 {
		t.Fatalf("%+v, %v", due, err)
	}
	for _, user := range []string{"canary-mia", "canary-noah"} {
		want := 1
		if len(all) == 1 && all[0].User == user {
			want = 0
		}
		if got := found(t, next, Query{User: user}); len(got) != want {
			t.Errorf("%d entries, want %d", len(got), want)
		}
	}
}

func TestScheduleIsWholeAfterAPowerFailureAtEveryStep(t *testing.T) {
	durabletest.EachCrash(t, 1, schedulesOrNot)
}

// What a reader without the key is told of it: everything but whom and why.
func TestScheduledErasureWithoutTheKey(t *testing.T) {
	now := time.Now()
	path, o, trail := dutied(t, &now)
	if _, err := trail.EraseUser(context.Background(), "canary-mia", &EraseOptions{Reason: "x", Schedule: true}); err != nil {
		t.Fatal(err)
	}
	trail.Close()
	reader := *o
	reader.ReadOnly, reader.KEK = true, nil
	s := scheduledAs(t, openWith(t, path, &reader), 1)[0]
	if s.User != "" || s.Reason != "" || len(s.Handles) == 0 || s.Until == nil || bytes.Contains([]byte(s.ID), []byte("mia")) {
		t.Errorf("%+v", s)
	}
}

// A hold that is added while an erasure begins is not passed over: nothing is
// destroyed, and nothing has begun.
func TestAHoldThatComesInBetweenHolds(t *testing.T) {
	ctx := context.Background()
	path, o := profileTrail(t, "gdpr", Options{})
	trail := openWith(t, path, o)
	mustRecord(t, trail, personalEvent("mia", "t1"))
	who, err := trail.namesOf("mia")
	if err != nil {
		t.Fatal(err)
	}
	plan, err := trail.planErasure(ctx, who, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	h, err := trail.AddHold(ctx, HoldRequest{User: "mia", Reason: "case"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := trail.destroySubjects(ctx, plan, "mia", EraseOptions{Reason: "x"}, ""); !errors.Is(err, ErrHeld) {
		t.Fatal(err)
	}
	if _, some, err := trail.enc.Load().store.Pending(); some || err != nil {
		t.Errorf("it has begun: %v", err)
	}
	if len(found(t, trail, Query{User: "mia"})) != 1 || len(actions(t, trail)) != 0 {
		t.Error("it was done")
	}
	if err := trail.LiftHold(ctx, h.ID, "closed"); err != nil {
		t.Fatal(err)
	}
	if _, err := trail.EraseUser(ctx, "mia", &EraseOptions{Reason: "x"}); err != nil {
		t.Error(err)
	}
	if len(found(t, trail, Query{User: "mia"})) != 0 {
		t.Error("it is readable")
	}
}

// carriesOutOrNot carries out an erasure that waited; cut short, it waits still, or is
// done and waits no more, and its certificate is there.
func carriesOutOrNot(t *testing.T, r *durabletest.Run) {
	ctx := context.Background()
	if err := durable.MkdirAll(r.FS, "/log", 0o700); err != nil {
		t.Fatal(err)
	}
	o := memOptions(r.FS)
	o.KEK, o.profile = testKEK(t, 1), "gdpr"
	trail, err := Open(memLog, o)
	if err != nil {
		t.Fatal(err)
	}
	mustRecord(t, trail, personalEvent("canary-mia", "t1"))
	h, err := trail.AddHold(ctx, HoldRequest{User: "canary-mia", Reason: "x"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := trail.EraseUser(ctx, "canary-mia", &EraseOptions{Reason: "canary", Schedule: true, Certificate: "/log/c.json"}); err != nil {
		t.Fatal(err)
	}
	if err := trail.LiftHold(ctx, h.ID, "x"); err != nil {
		t.Fatal(err)
	}
	done := false
	r.Inject(func() {
		due, err := trail.EraseDue(ctx)
		done = err == nil && len(due.Done) == 1
	})
	next := openAfterCrash(t, r, trail, o)
	waiting, err := next.ScheduledErasures(ctx)
	if err != nil {
		t.Fatal(err)
	}
	erased := len(found(t, next, Query{User: "canary-mia"})) == 0
	if erased == (len(waiting) > 0) || done && !erased {
		t.Fatalf("done %v, erased %v, and %d wait", done, erased, len(waiting))
	}
	due, err := next.EraseDue(ctx)
	if err != nil || len(due.Failed) > 0 || len(due.Done) != len(waiting) || len(found(t, next, Query{User: "canary-mia"})) != 0 {
		t.Fatalf("%+v, %v", due, err)
	}
	data, err := durable.ReadFile(o.fs, "/log/c.json", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := CheckCertificate(data, "canary-mia", next.VKey(), ""); err != nil {
		t.Error(err)
	}
}

func TestCarryingOutIsWholeAfterAPowerFailureAtEveryStep(t *testing.T) {
	durabletest.EachCrash(t, 1, carriesOutOrNot)
}
