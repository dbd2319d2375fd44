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
	"testing"
	"time"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/keys"
	"github.com/kaizen-audit/kaizen-audit/internal/lifecycle"
	"github.com/kaizen-audit/kaizen-audit/internal/seal"
	"github.com/kaizen-audit/kaizen-audit/policy"
)

// personalEvent is what an agent did for a user.
func personalEvent(user, trace string) Event {
	return Event{EventType: ToolUse, AgentID: "agent", Action: "tool_use:find", TraceID: trace,
		Inputs: Of(map[string]any{"about": "canary of " + user}), Metadata: Of(map[string]any{"user_id": user})}
}

func mustRecord(t *testing.T, trail *Trail, events ...Event) {
	t.Helper()
	for _, ev := range events {
		if _, err := trail.Record(context.Background(), ev); err != nil {
			t.Fatal(err)
		}
	}
}

func found(t *testing.T, trail *Trail, q Query) []Entry {
	t.Helper()
	entries, err := collect(trail.Query(context.Background(), q))
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

// An erasure covers what is the person's, names whom else it touches and what is
// kept, and leaves everything else as it was.
func TestEraseUser(t *testing.T) {
	ctx := context.Background()
	for _, encrypt := range []bool{false, true} {
		p := rules(t, policy.Config{Tools: []policy.Tool{{When: policy.When{Tools: []string{"book"}}, Subjects: []string{"/inputs/for"}}}})
		path, o := profileTrail(t, "gdpr", Options{Encrypt: encrypt, Policy: p})
		o.Encrypt = false
		trail := openWith(t, path, o)
		pseudonym, err := trail.Pseudonymize(ctx, "mia")
		if err != nil {
			t.Fatal(err)
		}
		book := personalEvent("noah", "t2")
		book.Action, book.Inputs = "tool_use:book", Of(map[string]any{"for": "mia"})
		hashed := personalEvent("", "t3")
		hashed.Metadata = Of(map[string]any{"user_id_hash": pseudonym})
		access := Event{EventType: PHIAccess, AgentID: "agent", Action: "patient_record_read", Inputs: Of(map[string]any{"patient_id": "P1"}),
			Metadata: Of(map[string]any{"user_id": "mia"}), Resource: Of(map[string]any{"type": "patient", "id": "P1"})}
		of := access
		of.Inputs, of.Resource, of.Metadata = Of(map[string]any{"patient_id": "mia"}), Of(map[string]any{"type": "patient", "id": "mia"}), Of(map[string]any{"user_id": "dr"})
		nobody := Event{EventType: LLMCall, AgentID: "agent", Action: "llm", TraceID: "t1", Inputs: Of(map[string]any{"prompt": "canary of the trace"})}
		mustRecord(t, trail, personalEvent("mia", "t1"), personalEvent("noah", "t2"), book, hashed, access, of, nobody)

		before := found(t, trail, Query{})
		dry, err := trail.EraseUser(ctx, "mia", &EraseOptions{DryRun: true})
		if err != nil || dry.Done {
			t.Fatalf("%+v, %v", dry, err)
		}
		if dry.Entries != 4 || dry.Fields != 2+2+2+2 || len(dry.Subjects) != 3 || len(dry.Others) != 1 || dry.Others[0].ID != "noah" || dry.Others[0].Fields != 2 {
			t.Errorf("dry run: %+v", dry)
		}
		if dry.Kept.Entries != 1 || dry.Kept.Ranges[0].First != before[4].Index {
			t.Errorf("kept: %+v", dry.Kept)
		}
		if len(dry.Traces) != 1 || dry.Traces[0].ID != "t1" || dry.Traces[0].Fields != 1 || dry.Traces[0].Erased {
			t.Errorf("traces: %+v", dry.Traces)
		}
		if len(found(t, trail, Query{User: "mia"})) != 3 {
			t.Error("a dry run erased something")
		}
		verifyIntact(t, path, o)
		certificate := filepath.Join(filepath.Dir(path), "certificate.json")
		done, err := trail.EraseUser(ctx, "mia", &EraseOptions{Reason: "canary of the reason", Certificate: certificate, BackupDays: 30})
		if err != nil || !done.Done {
			t.Fatalf("%+v, %v", done, err)
		}
		verifyIntact(t, path, o)

		// Queries find nothing of them but the access in which they were the actor.
		if left := found(t, trail, Query{User: "mia"}); len(left) != 1 || left[0].EventType != PHIAccess {
			t.Errorf("user: %v", left)
		}
		if left := found(t, trail, Query{Subject: "mia"}); len(left) != 0 {
			t.Errorf("subject: %v", left)
		}
		after := found(t, trail, Query{})
		if len(after) != len(before) {
			t.Fatalf("%d entries of %d", len(after), len(before))
		}
		for i, e := range after {
			if !bytes.Equal(e.Line(), before[i].Line()) {
				t.Errorf("entry %d has other bytes", e.Index)
			}
			erased := i == 0 || i == 2 || i == 3 || i == 5
			if got := e.Inputs.Text("sealed") == "erased"; got != erased {
				t.Errorf("entry %d: %s", i, e.View())
			}
			if i > 0 && i != 6 && erased && bytes.Contains(e.View(), []byte("mia")) {
				t.Errorf("entry %d: %s", i, e.View())
			}
		}
		if p, ok, err := trail.identities().Lookup("mia"); ok || err != nil {
			t.Errorf("the identity store knows %s, %v", p, err)
		}
		// It is an entry, signed and covered, that names nobody.
		own := found(t, trail, Query{EventTypes: []string{"AUDIT_ERASURE"}})
		if len(own) != 1 || own[0].Outputs.Text("reason") != "canary of the reason" || bytes.Contains(own[0].Line(), []byte("canary")) || bytes.Contains(own[0].Line(), []byte("mia")) {
			t.Fatalf("%s", own[0].View())
		}
		// The certificate is for them and nobody else.
		data, err := os.ReadFile(certificate)
		if err != nil || !bytes.Equal(bytes.TrimSpace(data), done.Certificate) || bytes.Contains(data, []byte("mia")) {
			t.Fatalf("%s, %v", data, err)
		}
		c, err := CheckCertificate(data, "mia", trail.VKey(), "")
		if err != nil || c.Fields < dry.Fields || c.Entries < dry.Entries || c.Kept.Entries != 1 || len(c.Keys) < 3 || c.CompleteAfter == nil || c.Size <= c.Index || c.SizeBefore > c.Index {
			t.Errorf("%+v, %v", c, err)
		}
		if _, err := CheckCertificate(data, "noah", trail.VKey(), ""); err == nil {
			t.Error("it is about noah too")
		}
		if _, err := CheckCertificate(bytes.Replace(data, []byte(`\"fields\":`), []byte(`\"fields\":1`), 1), "mia", trail.VKey(), ""); err == nil {
			t.Error("it can be changed")
		}
		// There is nothing left to erase, and who comes back has a new key.
		if _, err := trail.EraseUser(ctx, "stranger", &EraseOptions{Reason: "x"}); !errors.Is(err, ErrNotFound) {
			t.Error(err)
		}
		mustRecord(t, trail, personalEvent("mia", "t9"))
		if again := found(t, trail, Query{User: "mia"}); len(again) != 2 {
			t.Errorf("%v", again)
		}
		// Another opening, and a reader with the key, see the same.
		trail.Close()
		reader := *o
		reader.ReadOnly = true
		r := openWith(t, path, &reader)
		if e := found(t, r, Query{})[0]; e.Inputs.Text("sealed") != "erased" {
			t.Errorf("%s", e.View())
		}
		// Who has no key is told the same of what is not sealed whole.
		if !encrypt {
			reader.KEK = nil
			r := openWith(t, path, &reader)
			entries := found(t, r, Query{})
			if entries[0].Inputs.Text("sealed") != "erased" || entries[1].Inputs.Text("sealed") != "no key" {
				t.Errorf("%s\n%s", entries[0].View(), entries[1].View())
			}
		}
	}
}

// Text with no declared subject goes with its trace, where that is asked for.
func TestEraseTraces(t *testing.T) {
	ctx := context.Background()
	path, o := profileTrail(t, "gdpr", Options{})
	trail := openWith(t, path, o)
	llm := func(trace string) Event {
		return Event{EventType: LLMCall, AgentID: "agent", Action: "llm", TraceID: trace, Inputs: Of(map[string]any{"prompt": "p"})}
	}
	mustRecord(t, trail, llm("a"), personalEvent("mia", "a"), llm("b"), personalEvent("mia", "b"), llm("c"))
	if _, err := trail.EraseUser(ctx, "mia", &EraseOptions{Reason: "x", Traces: []string{"c"}}); !errors.Is(err, ErrNotFound) {
		t.Errorf("a trace of somebody else: %v", err)
	}
	if _, err := trail.EraseUser(ctx, "mia", &EraseOptions{Reason: "x", Traces: []string{"a"}}); err != nil {
		t.Fatal(err)
	}
	entries := found(t, trail, Query{})
	for i, want := range []bool{true, true, false, true, false} {
		if got := entries[i].Inputs.Text("sealed") == "erased"; got != want {
			t.Errorf("entry %d: %s", i, entries[i].View())
		}
	}
}

// A duty that the policy declares stands against an erasure until it ends.
func TestDutyStandsAgainstErasure(t *testing.T) {
	ctx := context.Background()
	now := time.Now()
	p := rules(t, policy.Config{Duties: []policy.Duty{{When: policy.When{EventTypes: []string{ToolUse}}, Days: 30, Basis: "some law"}}})
	path, o := profileTrail(t, "gdpr", Options{Policy: p})
	o.now = func() time.Time { return now }
	trail := openWith(t, path, o)
	mustRecord(t, trail, personalEvent("mia", "t"))
	e, err := trail.EraseUser(ctx, "mia", &EraseOptions{DryRun: true})
	if err != nil || len(e.Blocked) != 1 || e.Blocked[0].Name != "some law" || e.Blocked[0].Entries != 1 || e.Blocked[0].Until.Before(now.AddDate(0, 0, 29)) {
		t.Fatalf("%+v, %v", e, err)
	}
	if _, err := trail.EraseUser(ctx, "mia", &EraseOptions{Reason: "x"}); !errors.Is(err, ErrHeld) || !strings.Contains(err.Error(), "some law") {
		t.Fatal(err)
	}
	if got := found(t, trail, Query{EventTypes: []string{"AUDIT_QUERY"}, Action: "erase_refused"}); len(got) != 1 {
		t.Errorf("the refusal is not recorded: %v", got)
	}
	if len(found(t, trail, Query{User: "mia"})) != 1 {
		t.Error("it was erased")
	}
	trail.Close()
	now = now.AddDate(0, 0, 31)
	trail = openWith(t, path, o)
	if _, err := trail.EraseUser(ctx, "mia", &EraseOptions{Reason: "x"}); err != nil {
		t.Error(err)
	}
	verifyIntact(t, path, o)
}

func TestEraseRefuses(t *testing.T) {
	ctx := context.Background()
	for _, profile := range []string{"plain", "pci"} {
		path, o := profileTrail(t, profile, Options{})
		trail := openWith(t, path, o)
		mustRecord(t, trail, personalEvent("mia", "t"))
		if _, err := trail.EraseUser(ctx, "mia", &EraseOptions{Reason: "x"}); !errors.Is(err, ErrNotSealed) {
			t.Errorf("%s: %v", profile, err)
		}
	}
	path, o := profileTrail(t, "gdpr", Options{})
	trail := openWith(t, path, o)
	mustRecord(t, trail, personalEvent("mia", "t"))
	there := filepath.Join(t.TempDir(), "there")
	if err := os.WriteFile(there, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]EraseOptions{
		"no reason": {}, "blank": {Reason: " "}, "days": {Reason: "x", BackupDays: -1}, "file is there": {Reason: "x", Certificate: there},
		"no directory": {Reason: "x", Certificate: filepath.Join(there, "x")}, "not text": {Reason: "\xff"},
	} {
		if e, err := trail.EraseUser(ctx, "mia", &o); err == nil || e != nil && e.Done {
			t.Errorf("%s: %+v", name, e)
		}
	}
	if len(found(t, trail, Query{User: "mia"})) != 1 {
		t.Error("it was erased")
	}
	if _, some, err := trail.enc.Load().store.Pending(); some || err != nil {
		t.Errorf("something has begun: %v", err)
	}
}

// A record that is damaged keeps nobody else's data from being erased, and is told.
func TestADamagedKeyBlocksNobodyElse(t *testing.T) {
	ctx := context.Background()
	path, o := profileTrail(t, "gdpr", Options{})
	trail := openWith(t, path, o)
	mustRecord(t, trail, personalEvent("mia", "t"), personalEvent("noah", "u"), personalEvent("lena", "v"))
	noah := found(t, trail, Query{User: "noah"})
	known, err := trail.enc.Load().store.Find(func(k keys.Kind, id string) bool { return k == keys.Person && id == "noah" })
	if err != nil || len(known) != 1 || len(noah) != 1 {
		t.Fatal(known, err)
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	pages, err := filepath.Glob(filepath.Join(trail.dir, "keys", "subjects", "*.jsonl"))
	if err != nil || len(pages) != 1 {
		t.Fatal(pages, err)
	}
	text, err := os.ReadFile(pages[0])
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(text, []byte(known[0].Handle)) + len(known[0].Handle) + 60
	text[at] ^= 1 // of his record's data: A for @ and the like
	if !bytes.ContainsAny(text[at:at+1], "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") {
		text[at] ^= 1
		text[at+1] ^= 2
	}
	if err := os.WriteFile(pages[0], text, 0o600); err != nil {
		t.Fatal(err)
	}
	trail = openWith(t, path, o)
	dry, err := trail.EraseUser(ctx, "mia", &EraseOptions{DryRun: true})
	if err != nil || dry.Entries != 1 || len(dry.Unreadable) != 1 || dry.Unreadable[0] != known[0].Handle {
		t.Fatalf("%+v, %v", dry, err)
	}
	e, err := trail.EraseUser(ctx, "mia", &EraseOptions{Reason: "x"})
	if err != nil || !e.Done || e.Entries == 0 || len(e.Unreadable) != 1 {
		t.Fatalf("%+v, %v", e, err)
	}
	if len(found(t, trail, Query{User: "mia"})) != 0 || len(found(t, trail, Query{User: "lena"})) != 1 {
		t.Error("not what was to be erased")
	}
	// The page was written anew, without what could not be read.
	if e, err := trail.EraseUser(ctx, "lena", &EraseOptions{Reason: "x"}); err != nil || !e.Done || len(e.Unreadable) != 0 {
		t.Errorf("%+v, %v", e, err)
	}
	if r, err := trail.Verify(ctx, nil); err != nil || r.Status != "intact" {
		t.Errorf("%+v, %v", r, err)
	}
}

// Through the socket it is the holder that erases.
func TestEraseThroughTheHolder(t *testing.T) {
	ctx := context.Background()
	path, o := profileTrail(t, "gdpr", Options{})
	holder := openWith(t, path, o)
	mustRecord(t, holder, personalEvent("mia", "t"))
	second := *o
	client := openWith(t, path, &second)
	if client.holds() {
		t.Fatal("two holders")
	}
	if e, err := client.EraseUser(ctx, "mia", &EraseOptions{DryRun: true}); err != nil || e.Entries != 1 || e.Done {
		t.Fatalf("%+v, %v", e, err)
	}
	if _, err := client.EraseUser(ctx, "nobody", &EraseOptions{Reason: "x"}); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	certificate := filepath.Join(t.TempDir(), "c.json")
	e, err := client.EraseUser(ctx, "mia", &EraseOptions{Reason: "x", Certificate: certificate})
	if err != nil || !e.Done || e.Index == nil {
		t.Fatalf("%+v, %v", e, err)
	}
	if data, err := os.ReadFile(certificate); err != nil {
		t.Error(err)
	} else if _, err := CheckCertificate(data, "mia", holder.VKey(), ""); err != nil {
		t.Error(err)
	}
	// The client has its own view of the keys, and none of what was destroyed.
	for _, trail := range []*Trail{holder, client} {
		if len(found(t, trail, Query{User: "mia"})) != 0 || found(t, trail, Query{})[0].Inputs.Text("sealed") != "erased" {
			t.Error("it is read still")
		}
	}
}

// While others record, what is erased is exactly what was recorded before, and
// nothing that is acknowledged afterwards is lost.
func TestEraseWhileOthersRecord(t *testing.T) {
	ctx := context.Background()
	path, o := profileTrail(t, "gdpr", Options{Encrypt: true})
	o.Encrypt, o.Durability = false, Written
	trail := openWith(t, path, o)
	mustRecord(t, trail, personalEvent("mia", "t"))
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for g := range 4 {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				case <-time.After(200 * time.Microsecond):
				}
				ev := personalEvent("mia", fmt.Sprint("t", g))
				if n%5 == 0 {
					ev.IdempotencyKey = fmt.Sprint(g, "-", n)
				}
				if _, err := trail.Record(ctx, ev); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	var ranges [][]Range
	for range 3 {
		time.Sleep(20 * time.Millisecond)
		e, err := trail.EraseUser(ctx, "mia", &EraseOptions{Reason: "x"})
		if err != nil {
			t.Fatal(err)
		}
		ranges = append(ranges, e.Ranges)
	}
	close(stop)
	wg.Wait()
	in := func(index int64) bool {
		for _, rs := range ranges {
			for _, r := range rs {
				if index >= r.First && index-r.First < r.Count {
					return true
				}
			}
		}
		return false
	}
	for _, e := range found(t, trail, Query{}) {
		state := e.Inputs.Text("sealed")
		if erased := state == "erased"; state != "" && !erased || erased != in(e.Index) {
			t.Fatalf("entry %d is %q, and covered is %v", e.Index, state, in(e.Index))
		}
	}
	verifyIntact(t, path, o)
}

// Whoever can write text can't make a field look erased, or a line an envelope.
func TestNobodyElseSaysErased(t *testing.T) {
	ctx := context.Background()
	path, o := profileTrail(t, "gdpr", Options{})
	trail := openWith(t, path, o)
	mustRecord(t, trail, personalEvent("mia", "t"))
	e := found(t, trail, Query{})[0]
	fields := trail.enc.Load().opener.Fields(e.Line())
	if len(fields) == 0 {
		t.Fatal(string(e.Line()))
	}
	if _, err := trail.Record(ctx, Event{EventType: "AUDIT_ERASURE", AgentID: "kaizen-audit", Action: "subject_erased"}); err == nil {
		t.Error("a caller writes AUDIT_ERASURE")
	}
	// Unsigned, or signed by another key: it is nobody's word.
	out, _ := json.Marshal(map[string]any{"handles": fields[0].Handles})
	line := fmt.Sprintf(`{"timestamp":"2026-01-01T00:00:00.000Z","event_type":"AUDIT_ERASURE","agent_id":"kaizen-audit","trace_id":%q,"action":"subject_erased","inputs":{},"outputs":%s,"duration_ms":0,"success":true,"error":null,"metadata":{"signature":%q},"event_id":"019e807a-ec00-7001-8001-000000000006","recorded_at":"2026-01-01T00:00:00.000Z"}`,
		trail.Origin(), out, strings.Repeat("A", 86)+"==")
	state := lifecycle.Replay(lifecycle.Config{Origin: trail.Origin(), LifecycleVKey: trail.VKey(), Covered: 10}, []lifecycle.Line{{Index: 1, Text: []byte(line)}})
	if len(state.Erasures) > 0 {
		t.Error("an unsigned entry counts")
	}
}

func TestFewerRanges(t *testing.T) {
	var all []Range
	for i := range int64(3000) {
		all = append(all, Range{i*i + 10*i, 1})
	}
	got := fewer(all)
	if len(got) != maxRanges {
		t.Fatalf("%d", len(got))
	}
	covered, at := 0, 0
	for _, r := range all {
		for got[at].First+got[at].Count <= r.First {
			at++
		}
		if got[at].First <= r.First {
			covered++
		}
	}
	if covered != len(all) || got[len(got)-1] != all[len(all)-1] {
		t.Errorf("%d of %d are covered", covered, len(all))
	}
	if one := fewer(all[:5]); len(one) != 5 {
		t.Errorf("%v", one)
	}
}

// sealedFilter is a hold's filter that is sealed.
type sealedFilter map[string]string

// holdOn records a legal hold, as it is written by who may.
func holdOn(t *testing.T, trail *Trail, outputs map[string]any) (id string) {
	t.Helper()
	for name, v := range map[string]any{"filter": map[string]any{}, "handles": []string{}, "since": nil, "until": nil, "ranges": []Range{}, "open": true, "reason": "case 1"} {
		if _, ok := outputs[name]; !ok {
			outputs[name] = v
		}
	}
	o := ownEntry{eventType: "AUDIT_HOLD", action: "hold_added", signed: true, outputs: outputs, id: entry.NewEventID(time.Now())}
	if filter, ok := outputs["filter"].(sealedFilter); ok { // as in a trail that seals
		store := trail.enc.Load().store
		own, err := store.Subject(keys.Trace, trail.Origin())
		if err == nil {
			err = store.Sync()
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(filter)
		if err != nil {
			t.Fatal(err)
		}
		place := seal.Place{Origin: trail.Origin(), EventID: o.id, Pointer: "/outputs/filter"}
		if outputs["filter"], err = seal.SealField(place, []seal.Subject{own}, text); err != nil {
			t.Fatal(err)
		}
		o.policy = `{"sealed":["/outputs/filter"]}`
	}
	r, err := trail.recordOwnReceipt(context.Background(), o)
	if err == nil {
		err = trail.signer.sign()
	}
	if err != nil {
		t.Fatal(err)
	}
	return r.EventID
}

// Of a field of several subjects each erasure takes the whole, and a hold on any of
// them keeps it.
func TestErasureAndHoldsOfSeveralSubjects(t *testing.T) {
	ctx := context.Background()
	p := rules(t, policy.Config{Tools: []policy.Tool{{When: policy.When{Tools: []string{"book"}}, Subjects: []string{"/inputs/for"}}}})
	for _, tc := range []struct {
		name   string
		hold   func(handles map[string]string) map[string]any
		erase  string
		held   bool
		erased string // of mia's, noah's, the shared one, ada's
	}{
		{"no hold, mia", nil, "mia", false, "x.x."},
		{"no hold, noah", nil, "noah", false, ".xx."},
		{"no hold, ada", nil, "ada", false, "...x"},
		{"hold on mia, mia", func(h map[string]string) map[string]any { return map[string]any{"handles": []string{h["mia"]}} }, "mia", true, "...."},
		{"hold on noah, mia", func(h map[string]string) map[string]any { return map[string]any{"handles": []string{h["noah"]}} }, "mia", true, "...."},
		{"hold on ada, mia", func(h map[string]string) map[string]any { return map[string]any{"handles": []string{h["ada"]}} }, "mia", false, "x.x."},
		{"hold on the name, mia", func(map[string]string) map[string]any {
			return map[string]any{"filter": map[string]any{"user_id": "mia"}}
		}, "mia", true, "...."},
		{"hold on the agent's past, ada", func(map[string]string) map[string]any {
			return map[string]any{"filter": map[string]any{"agent_id": "agent"}, "ranges": []Range{{0, 100}}}
		}, "ada", true, "...."},
		{"hold on another agent, ada", func(map[string]string) map[string]any {
			return map[string]any{"filter": map[string]any{"agent_id": "other"}, "ranges": []Range{{0, 100}}}
		}, "ada", false, "...x"},
		{"hold on what comes, ada", func(map[string]string) map[string]any {
			return map[string]any{"filter": map[string]any{"agent_id": "agent"}}
		}, "ada", false, "...x"},
		{"hold on other times, ada", func(map[string]string) map[string]any {
			return map[string]any{"ranges": []Range{{0, 100}}, "until": "2020-01-01T00:00:00.000Z"}
		}, "ada", false, "...x"},
		{"sealed hold on the agent's past, ada", func(map[string]string) map[string]any {
			return map[string]any{"filter": sealedFilter{"agent_id": "agent"}, "ranges": []Range{{0, 100}}}
		}, "ada", true, "...."},
		{"sealed hold on another agent, ada", func(map[string]string) map[string]any {
			return map[string]any{"filter": sealedFilter{"agent_id": "other"}, "ranges": []Range{{0, 100}}}
		}, "ada", false, "...x"},
		{"hold whose filter nobody can read, ada", func(map[string]string) map[string]any {
			return map[string]any{"filter": "sealed:v1:", "ranges": []Range{{0, 100}}}
		}, "ada", true, "...."},
	} {
		path, o := profileTrail(t, "gdpr", Options{Policy: p})
		trail := openWith(t, path, o)
		book := personalEvent("noah", "t2")
		book.Action, book.Inputs = "tool_use:book", Of(map[string]any{"about": "a booking", "for": "mia"})
		mustRecord(t, trail, personalEvent("mia", "t1"), personalEvent("noah", "t2"), book, personalEvent("ada", "t3"))
		handles := map[string]string{}
		for i, name := range []string{"mia", "noah", "", "ada"} {
			fields := trail.enc.Load().opener.Fields(found(t, trail, Query{})[i].Line())
			handles[name] = fields[0].Handles[0]
		}
		id := ""
		if tc.hold != nil {
			id = holdOn(t, trail, tc.hold(handles))
		}
		dry, err := trail.EraseUser(ctx, tc.erase, &EraseOptions{DryRun: true})
		if err != nil || tc.held != (len(dry.Blocked) > 0) || tc.held && (dry.Blocked[0].Name != id || dry.Blocked[0].Kind != "hold") {
			t.Errorf("%s: %+v, %v", tc.name, dry, err)
			continue
		}
		_, err = trail.EraseUser(ctx, tc.erase, &EraseOptions{Reason: "x"})
		if tc.held != errors.Is(err, ErrHeld) || !tc.held && err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
		got := ""
		for _, e := range found(t, trail, Query{}) {
			if e.Inputs.Text("sealed") == "erased" {
				got += "x"
			} else {
				got += "."
			}
		}
		if got != tc.erased {
			t.Errorf("%s: erased %s, want %s", tc.name, got, tc.erased)
		}
		// A hold that is lifted keeps nothing.
		if tc.held {
			if err := trail.recordOwn(ctx, ownEntry{eventType: "AUDIT_HOLD", action: "hold_lifted", signed: true, outputs: map[string]any{"hold": id, "reason": "closed"}}); err != nil {
				t.Fatal(err)
			}
			if err := trail.signer.sign(); err != nil {
				t.Fatal(err)
			}
			if _, err := trail.EraseUser(ctx, tc.erase, &EraseOptions{Reason: "x"}); err != nil {
				t.Errorf("%s, lifted: %v", tc.name, err)
			}
		}
		verifyIntact(t, path, o)
	}
}

// A lifecycle key that is kept elsewhere is needed, and signs.
func TestEraseNeedsTheLifecycleKey(t *testing.T) {
	ctx := context.Background()
	file := filepath.Join(t.TempDir(), "lifecycle.key")
	path, o := profileTrail(t, "gdpr", Options{LifecycleKeyFile: file})
	without := *o
	without.LifecycleKeyFile = ""
	trail := openWith(t, path, &without)
	mustRecord(t, trail, personalEvent("mia", "t"))
	if _, err := trail.EraseUser(ctx, "mia", &EraseOptions{Reason: "x"}); !errors.Is(err, errNoLifecycleKey) {
		t.Error(err)
	}
	if _, some, err := trail.enc.Load().store.Pending(); some || err != nil {
		t.Errorf("it has begun: %v", err)
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	trail = openWith(t, path, o)
	e, err := trail.EraseUser(ctx, "mia", &EraseOptions{Reason: "x"})
	if err != nil || found(t, trail, Query{})[0].Inputs.Text("sealed") != "erased" {
		t.Fatal(err)
	}
	if _, err := CheckCertificate(e.Certificate, "mia", trail.VKey(), ""); err == nil {
		t.Error("the signing key has signed it")
	}
	if _, err := CheckCertificate(e.Certificate, "mia", trail.VKey(), trail.ids().LifecycleVKey); err != nil {
		t.Error(err)
	}
	verifyIntact(t, path, o)
}

// The lines of Python in docs/erasure.md tell whom a certificate is about.
func TestCertificateIsCheckedByPython(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("there is no python3 here")
	}
	doc, err := os.ReadFile("docs/erasure.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(doc), "```python\n")
	script, _, ok2 := strings.Cut(rest, "```")
	if !ok || !ok2 {
		t.Fatal("docs/erasure.md has no such lines")
	}
	path, o := profileTrail(t, "gdpr", Options{})
	trail := openWith(t, path, o)
	mustRecord(t, trail, personalEvent("jürgen", "t"))
	certificate := filepath.Join(t.TempDir(), "c.json")
	if _, err := trail.EraseUser(context.Background(), "jürgen", &EraseOptions{Reason: "x", Certificate: certificate}); err != nil {
		t.Fatal(err)
	}
	for user, want := range map[string]string{"jürgen": "True", "jurgen": "False"} {
		out, err := exec.Command(python, "-c", script, certificate, user).CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != "about this person: "+want {
			t.Errorf("%s: %s, %v", user, out, err)
		}
	}
}
