package sealed_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/durable/durabletest"
	"github.com/kaizen-audit/kaizen-audit/internal/keys"
	"github.com/kaizen-audit/kaizen-audit/internal/seal"
	"github.com/kaizen-audit/kaizen-audit/internal/sealed"
	"github.com/kaizen-audit/kaizen-audit/kms"
)

const (
	origin = "example.com/log"
	limit  = 1 << 20
)

func store(t testing.TB) *keys.Store {
	t.Helper()
	kek, err := kms.NewLocal(bytes.Repeat([]byte{1}, 32))
	if err != nil {
		t.Fatal(err)
	}
	fsys := durabletest.NewMem()
	if err := fsys.Mkdir("/keys", 0o700); err != nil {
		t.Fatal(err)
	}
	o := keys.Options{FS: fsys, Dir: "/keys", Origin: origin, KEK: kek}
	if err := keys.Create(context.Background(), o, bytes.Repeat([]byte{9}, 32)); err != nil {
		t.Fatal(err)
	}
	s, err := keys.Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func sealer(t testing.TB, s *keys.Store, r sealed.Rules) *sealed.Sealer {
	t.Helper()
	out, err := sealed.NewSealer(origin, r, s, time.Now, nil)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func plainLine(t testing.TB, ev entry.Event) []byte {
	t.Helper()
	now := time.Now()
	line, err := entry.AppendLine(nil, &ev, &entry.Stamp{EventID: entry.NewEventID(now), RecordedAt: now, MaxLine: limit, TraceID: "0af7651916cd43dd8448eb211c80319c"})
	if err != nil {
		t.Fatal(err)
	}
	return line
}

func toolUse() entry.Event {
	return entry.Event{
		EventType: entry.ToolUse, AgentID: "qa", Action: "tool_use:find",
		Inputs: entry.Raw([]byte(`{"name":"Mia Li","n":1e400}`)), Outputs: entry.Raw([]byte(`{"a/b":{"~":["x"]}}`)), Error: new("Mia is out"),
		Metadata: entry.Raw([]byte(`{"user_id":"mia","environment":"test","a/b~c":"Mia","nothing":""}`)),
		Resource: entry.Raw([]byte(`{"type":"reservation","id":"ZFA04Y"}`)), Purpose: "booking",
	}
}

func TestSealAndOpenGiveThePlainLine(t *testing.T) {
	omitted := toolUse()
	omitted.NoteOmitted("outputs")
	phi := toolUse()
	phi.EventType = entry.PHIAccess
	for name, ev := range map[string]entry.Event{"tool use": toolUse(), "policy before": omitted, "access": phi, "bare": {EventType: "X", AgentID: "a", Action: "b"}} {
		for _, rules := range []sealed.Rules{{}, {Lines: true}} {
			s := store(t)
			plain := plainLine(t, ev)
			stored, err := sealer(t, s, rules).Seal(nil, plain)
			if err != nil {
				t.Fatal(err)
			}
			if rules.Lines != seal.IsLine(stored) {
				t.Errorf("%s: %s", name, stored)
			}
			if rules.Lines && bytes.Contains(stored, []byte("tool")) || bytes.Contains(stored, []byte("Mia")) || bytes.Contains(stored, []byte("ZFA04Y")) {
				t.Errorf("%s: in clear: %s", name, stored)
			}
			v, err := sealed.NewOpener(origin, s, limit, nil).Open(stored)
			if err != nil {
				t.Fatal(err)
			}
			if got, ok := v.Plain(); !ok || string(got) != string(plain) {
				t.Errorf("%s:\n got %s\nwant %s\nhidden %v", name, got, plain, v.Hidden)
			}
		}
	}
}

// What is sealed is what the format says, for the subjects that it says.
func TestWhatIsSealed(t *testing.T) {
	s := store(t)
	line := func(ev entry.Event, rules sealed.Rules) (pointers []string, kinds map[string]bool, e entry.Entry) {
		t.Helper()
		stored, err := sealer(t, s, rules).Seal(nil, plainLine(t, ev))
		if err != nil {
			t.Fatal(err)
		}
		if e, err = entry.Parse(stored); err != nil {
			t.Fatal(err)
		}
		v, _ := e.Policy.Get("sealed")
		if err := json.Unmarshal(v.JSON(), &pointers); err != nil {
			t.Fatal(err)
		}
		return pointers, handlesIn(t, stored), e
	}
	one := func(kind keys.Kind, id string) string {
		t.Helper()
		sub, err := s.Subject(kind, id)
		if err != nil {
			t.Fatal(err)
		}
		return sub.Handle
	}
	pointers, subjects, e := line(toolUse(), sealed.Rules{})
	if want := []string{"/inputs", "/outputs", "/error", "/metadata/user_id", "/metadata/a~1b~0c", "/resource/id"}; !slices.Equal(pointers, want) {
		t.Errorf("%v, want %v", pointers, want)
	}
	if len(subjects) != 1 || !subjects[one(keys.Person, "mia")] {
		t.Errorf("tool use: %v", subjects)
	}
	if e.Purpose != "booking" || e.Metadata.Text("environment") != "test" || e.Resource.Text("type") != "reservation" {
		t.Error("what everybody must be able to read is sealed")
	}
	phi := toolUse()
	phi.EventType = entry.PHIAccess
	pointers, subjects, e = line(phi, sealed.Rules{})
	if slices.Contains(pointers, "/metadata/user_id") || e.Metadata.Text("user_id") != "mia" {
		t.Error("the actor of an access is evidence and stays")
	}
	if len(subjects) != 1 || !subjects[one(keys.Resource, "reservation/ZFA04Y")] {
		t.Errorf("access: %v", subjects)
	}
	subjects = handlesOf(t, s, bytes.Replace(plainLine(t, toolUse()), []byte(`"purpose":"booking"`),
		[]byte(`"purpose":"booking","policy":{"subjects":["/inputs/name","/outputs/none","/inputs/n"]}`), 1))
	if len(subjects) != 3 || !subjects[one(keys.Person, "mia")] || !subjects[one(keys.Person, "Mia Li")] || !subjects[one(keys.Person, "1e400")] {
		t.Errorf("noted pointers: %v", subjects)
	}
	nobody := toolUse()
	nobody.Metadata = entry.Object{}
	_, subjects, _ = line(nobody, sealed.Rules{})
	if len(subjects) != 1 || !subjects[one(keys.Trace, "0af7651916cd43dd8448eb211c80319c")] {
		t.Errorf("nobody: %v", subjects)
	}
	pseudonym := toolUse()
	pseudonym.Metadata = entry.Raw([]byte(`{"user_id_hash":"abc"}`))
	if _, subjects, _ = line(pseudonym, sealed.Rules{}); !subjects[one(keys.Person, "user_id_hash:abc")] {
		t.Errorf("pseudonym: %v", subjects)
	}
}

func handlesOf(t *testing.T, s *keys.Store, plain []byte) map[string]bool {
	t.Helper()
	stored, err := sealer(t, s, sealed.Rules{}).Seal(nil, plain)
	if err != nil {
		t.Fatal(err)
	}
	return handlesIn(t, stored)
}

// handlesIn are the subjects of a line's inputs.
func handlesIn(t *testing.T, stored []byte) map[string]bool {
	t.Helper()
	var members map[string]any
	if err := json.Unmarshal(stored, &members); err != nil {
		t.Fatal(err)
	}
	env, err := seal.ParseEnvelope(members["inputs"].(string))
	if err != nil {
		t.Fatal(err)
	}
	handles := map[string]bool{}
	for _, h := range env.Handles() {
		handles[h] = true
	}
	return handles
}

func TestLifecycleEntriesStayInClear(t *testing.T) {
	s := sealer(t, store(t), sealed.Rules{Lines: true})
	line := func(eventType string) []byte {
		now := time.Now()
		l, err := entry.AppendLine(nil, &entry.Event{EventType: eventType, AgentID: entry.TrailAgent, Action: "x", Inputs: entry.Raw([]byte(`{"user":"mia"}`))},
			&entry.Stamp{EventID: entry.NewEventID(now), RecordedAt: now, MaxLine: limit, TraceID: origin, Trails: true})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	for _, eventType := range []string{"AUDIT_CREATED", "AUDIT_SEAL", "AUDIT_PRUNE"} {
		if got, err := s.Seal(nil, line(eventType)); err != nil || !bytes.Equal(got, line(eventType)) && seal.IsLine(got) {
			t.Errorf("%s: %v", eventType, err)
		}
	}
	if got, err := s.Seal(nil, line("AUDIT_QUERY")); err != nil || !seal.IsLine(got) {
		t.Errorf("a query is in clear: %s, %v", got, err)
	}
}

// A reader without keys sees what is not sealed, and types stay.
func TestReaderWithoutKeys(t *testing.T) {
	s := store(t)
	plain := plainLine(t, toolUse())
	stored, err := sealer(t, s, sealed.Rules{}).Seal(nil, plain)
	if err != nil {
		t.Fatal(err)
	}
	v, err := sealed.NewOpener(origin, nil, limit, nil).Open(stored)
	if err != nil {
		t.Fatal(err)
	}
	e, err := entry.Parse(v.Line)
	if err != nil {
		t.Fatal(err)
	}
	if e.Action != "tool_use:find" || e.Inputs.Text("sealed") != "no key" || e.Metadata.Text("user_id") != "[sealed: no key]" || *e.Error != "[sealed: no key]" {
		t.Errorf("%s", v.Line)
	}
	if v.Hidden["/inputs"] != sealed.NoKey || len(v.Hidden) != 6 {
		t.Errorf("%v", v.Hidden)
	}
	whole, err := sealer(t, s, sealed.Rules{Lines: true}).Seal(nil, plain)
	if err != nil {
		t.Fatal(err)
	}
	if v, err := sealed.NewOpener(origin, nil, limit, nil).Open(whole); !errors.Is(err, sealed.ErrNoKey) || v.Line != nil {
		t.Errorf("%s, %v", v.Line, err)
	}
}

func TestErasedFieldsSaySo(t *testing.T) {
	s := store(t)
	stored, err := sealer(t, s, sealed.Rules{Lines: true}).Seal(nil, plainLine(t, toolUse()))
	if err != nil {
		t.Fatal(err)
	}
	mia, err := s.Subject(keys.Person, "mia")
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Begin(keys.Erasing{EventID: "e", Handles: []string{mia.Handle}}, nil)
	if err := errors.Join(err, s.Destroy(context.Background()), s.End()); err != nil {
		t.Fatal(err)
	}
	// That a key is gone does not say who has destroyed it.
	v, err := sealed.NewOpener(origin, s, limit, nil).Open(stored)
	if err != nil || v.Hidden["/inputs"] != sealed.NoKey {
		t.Fatalf("%v, %v", v.Hidden, err)
	}
	v, err = sealed.NewOpener(origin, s, limit, func(h string) bool { return h == mia.Handle }).Open(stored)
	if err != nil {
		t.Fatal(err)
	}
	if v.Hidden["/inputs"] != sealed.Erased || len(v.Hidden) != 6 || bytes.Contains(v.Line, []byte("Mia")) {
		t.Errorf("%v %s", v.Hidden, v.Line)
	}
	if e, err := entry.Parse(v.Line); err != nil || e.Action != "tool_use:find" {
		t.Errorf("the entry is gone with it: %v", err)
	}
}

// Text that looks like an envelope, or a list that is not in order, opens nothing.
func TestForgedEnvelopesAreInert(t *testing.T) {
	s := store(t)
	stored, err := sealer(t, s, sealed.Rules{}).Seal(nil, plainLine(t, toolUse()))
	if err != nil {
		t.Fatal(err)
	}
	e, _ := entry.Parse(stored)
	userID, other := e.Metadata.Text("user_id"), e.Metadata.Text("a/b~c")
	anotherID := e.EventID[:35] + "0"
	if anotherID == e.EventID {
		anotherID = e.EventID[:35] + "1"
	}
	open := sealed.NewOpener(origin, s, limit, nil).Open
	text := plainLine(t, entry.Event{EventType: "X", AgentID: "a", Action: "b", Inputs: entry.Of(map[string]any{"v": userID})})
	if v, err := open(text); err != nil || !bytes.Equal(v.Line, text) || v.Sealed {
		t.Errorf("a caller's text: %s, %v", v.Line, err)
	}
	for name, change := range map[string]func(string) string{
		"swapped fields": func(s string) string { return swap(s, userID, other) },
		"a pointer twice": func(s string) string {
			return strings.Replace(s, `"sealed":["/inputs"`, `"sealed":["/inputs","/inputs"`, 1)
		},
		"to no envelope": func(s string) string {
			return strings.Replace(s, `"sealed":["/inputs"`, `"sealed":["/purpose","/inputs"`, 1)
		},
		"a flipped bit":     func(s string) string { return strings.Replace(s, userID, flip(userID), 1) },
		"a later version":   func(s string) string { return strings.Replace(s, `"sealed:v1:`, `"sealed:v2:`, 1) },
		"another entry's":   func(s string) string { return strings.Replace(s, e.EventID, anotherID, 1) },
		"the list is a map": func(s string) string { return strings.Replace(s, `"sealed":["/inputs"`, `"sealed":[{},"/inputs"`, 1) },
	} {
		v, err := open([]byte(change(string(stored))))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		damaged := 0
		for _, state := range v.Hidden {
			if state == sealed.Damaged {
				damaged++
			}
		}
		if damaged == 0 && bytes.Contains(v.Line, []byte("Mia Li")) && name != "a flipped bit" {
			t.Errorf("%s: all is opened: %s", name, v.Line)
		}
		if _, err := entry.Parse(v.Line); err != nil {
			t.Errorf("%s: no line: %v", name, err)
		}
	}
}

func swap(s, a, b string) string {
	return strings.NewReplacer(a, b, b, a).Replace(s)
}

func flip(envelope string) string {
	b := []byte(envelope)
	if at := len(b) - 20; b[at] == 'A' {
		b[at] = 'B'
	} else {
		b[at] = 'A'
	}
	return string(b)
}

func TestDEKIsReplacedByTime(t *testing.T) {
	s := store(t)
	now := time.Now()
	var told []string
	sl, err := sealed.NewSealer(origin, sealed.Rules{Lines: true}, s, func() time.Time { return now }, func(was, id, reason string) {
		told = append(told, was, id, reason)
	})
	if err != nil {
		t.Fatal(err)
	}
	keyOf := func() string {
		stored, err := sl.Seal(nil, plainLine(t, toolUse()))
		if err != nil {
			t.Fatal(err)
		}
		l, err := seal.ParseLine(stored)
		if err != nil {
			t.Fatal(err)
		}
		return l.KeyID()
	}
	first := keyOf()
	if keyOf() != first {
		t.Error("a DEK for each line")
	}
	now = now.Add(25 * time.Hour)
	second := keyOf()
	if second == first || !slices.Equal(told, []string{first, second, "scheduled"}) {
		t.Errorf("after a day: %s, %s, %v", first, second, told)
	}
}

// The vectors of the format open here to their plain line.
func TestVectorsOpen(t *testing.T) {
	data, err := os.ReadFile("../seal/testdata/vectors/sealing.json")
	if err != nil {
		t.Fatal(err)
	}
	var v struct {
		Entry struct {
			Plain        string `json:"plain"`
			SealedFields string `json:"sealed_fields"`
		} `json:"entry"`
	}
	if err := json.Unmarshal(data, &v); err != nil || v.Entry.SealedFields == "" {
		t.Fatal("no vector", err)
	}
	view, err := sealed.NewOpener("kaizen-audit.invalid/0011223344556677", nil, limit, nil).Open([]byte(v.Entry.SealedFields))
	if err != nil {
		t.Fatal(err)
	}
	want, _ := entry.Parse([]byte(v.Entry.Plain))
	got, err := entry.Parse(view.Line)
	if err != nil || got.Action != want.Action || got.EventID != want.EventID || len(view.Hidden) != 5 {
		t.Errorf("%v, %s", err, view.Line)
	}
}

func FuzzOpen(f *testing.F) {
	s := store(f)
	for _, rules := range []sealed.Rules{{}, {Lines: true}} {
		stored, err := sealer(f, s, rules).Seal(nil, plainLine(f, toolUse()))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(stored)
	}
	f.Add([]byte(`{"policy":{"sealed":["/inputs","/inputs/a"]},"inputs":{"a":"sealed:v1:"}}`))
	o := sealed.NewOpener(origin, s, limit, nil)
	f.Fuzz(func(t *testing.T, stored []byte) {
		v, err := o.Open(stored)
		if err != nil {
			return
		}
		if _, err := entry.Parse(stored); err == nil {
			if _, err := entry.Parse(v.Line); err != nil {
				t.Fatalf("a line became none: %v", err)
			}
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	plain := plainLine(b, entry.Event{
		EventType: entry.ToolUse, AgentID: "qa-agent-001", Action: "tool_use:calculator",
		Inputs: entry.Raw([]byte(`{"reservation_id":"ZFA04Y"}`)), Outputs: entry.Raw([]byte(`{"status":"ok","cabin":"economy","passengers":2}`)),
		Metadata: entry.Raw([]byte(`{"user_id":"mia_li_3668","session_id":"session456","ip_address":"192.0.2.1"}`)),
	})
	for name, rules := range map[string]sealed.Rules{"fields": {}, "lines": {Lines: true}} {
		b.Run(name, func(b *testing.B) {
			sl := sealer(b, store(b), rules)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := sl.Seal(nil, plain); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
