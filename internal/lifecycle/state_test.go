package lifecycle

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
)

type vector struct {
	Name   string `json:"name"`
	Signer string `json:"signer"`
	Line   string `json:"line"`
}

type vectors struct {
	Origin    string
	Writer    struct{ VKey string }
	Lifecycle struct{ VKey string }
	Lines     []vector
	Refused   []vector
}

func readVectors(t testing.TB) (v vectors) {
	t.Helper()
	data, err := os.ReadFile("../seal/testdata/vectors/lifecycle.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &v); err != nil || len(v.Lines) < 8 || len(v.Refused) < 2 {
		t.Fatal(err, len(v.Lines), len(v.Refused))
	}
	return v
}

// The vectors' signatures verify, under the key that is said, and those that must
// not do not.
func TestVectors(t *testing.T) {
	v := readVectors(t)
	key := map[string]string{"writer": v.Writer.VKey, "lifecycle": v.Lifecycle.VKey}
	for _, l := range v.Lines {
		s, err := read(Line{0, []byte(l.Line)})
		if err != nil || !Is([]byte(l.Line)) || !s.signedBy(key[l.Signer]) {
			t.Errorf("%s: %v", l.Name, err)
		}
	}
	for _, l := range v.Refused {
		if s, err := read(Line{0, []byte(l.Line)}); err == nil && s.signedBy(key[l.Signer]) && s.TraceID == v.Origin {
			t.Errorf("%s: it is taken", l.Name)
		}
	}
}

// book is a trail of lifecycle entries as a test writes it.
type book struct {
	t         *testing.T
	writer    note.Signer
	lifecycle note.Signer
	cfg       Config
	lines     []Line
	digests   map[int64][32]byte
	ids       int
}

const origin = "example.org/test"

func newBook(t *testing.T) *book {
	b := &book{t: t, digests: map[int64][32]byte{}}
	var keys [2]string
	for i := range keys {
		s, v, err := note.GenerateKey(rand.Reader, origin)
		if err != nil {
			t.Fatal(err)
		}
		signer, err := note.NewSigner(s)
		if err != nil {
			t.Fatal(err)
		}
		keys[i] = v
		if i == 0 {
			b.writer = signer
		} else {
			b.lifecycle = signer
		}
	}
	b.cfg = Config{Origin: origin, VKeys: []KeyFrom{{VKey: keys[0]}}, LifecycleVKey: keys[1], Profile: "plain", Covered: 1 << 40,
		Digest: func(i int64) ([32]byte, bool) { d, ok := b.digests[i]; return d, ok }}
	return b
}

func day(n int) time.Time { return time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC).AddDate(0, 0, n) }

func stamp(t time.Time) string { return t.Format("2006-01-02T15:04:05.000Z") }

// say adds an entry; by is "writer" or "lifecycle".
func (b *book) say(index int64, at time.Time, typ, action, by string, outputs map[string]any) string {
	b.t.Helper()
	b.ids++
	out, err := json.Marshal(outputs)
	if err != nil {
		b.t.Fatal(err)
	}
	id := fmt.Sprintf("id-%d", b.ids)
	line := fmt.Sprintf(`{"timestamp":%q,"event_type":%q,"agent_id":"kaizen-audit","trace_id":%q,"action":%q,"inputs":{},"outputs":%s,"duration_ms":0,"success":true,"error":null,"metadata":{"principal":"uid:0","signature":""},"event_id":%q,"recorded_at":%q}`,
		stamp(at), typ, origin, action, out, id, stamp(at))
	signer := b.writer
	if by == "lifecycle" {
		signer = b.lifecycle
	}
	sig, err := signer.Sign([]byte(line))
	if err != nil {
		b.t.Fatal(err)
	}
	line = strings.Replace(line, `"signature":""`, `"signature":"`+base64.StdEncoding.EncodeToString(sig)+`"`, 1)
	b.lines = append(b.lines, Line{index, []byte(line)})
	b.digests[index] = sha256.Sum256([]byte(line))
	return id
}

func (b *book) created(retention any) {
	b.say(0, day(0), Created, "trail_created", "writer", map[string]any{"format": 1, "origin": origin, "profile": "plain", "lifecycle_vkey": b.cfg.LifecycleVKey,
		"policy": map[string]any{"profile": "plain", "retention_days": retention}})
}

func (b *book) seal(index int64, segment Range, newest time.Time, days any) {
	b.say(index, newest.Add(time.Second), Seal, "segment_sealed", "writer", map[string]any{"gaps": []Range{}, "policy": map[string]any{"profile": "plain", "retention_days": nil},
		"segment": map[string]any{"first": segment.First, "count": segment.Count, "max_recorded_at": stamp(newest), "retention_days": days}})
}

// pruneOf are the outputs of a prune where a policy of days is in force.
func (b *book) pruneOf(r Range, gaps []Range, days int, holds []restatedHold, carried ...int64) map[string]any {
	seals := []map[string]any{}
	for _, l := range b.lines {
		if slices.Contains(carried, l.Index) {
			seals = append(seals, map[string]any{"index": l.Index, "line": string(l.Text)})
		}
	}
	if holds == nil {
		holds = []restatedHold{}
	}
	return map[string]any{"range": r, "gaps": gaps, "rule": "retention", "seals": seals, "holds": holds, "erased": []any{}, "lifecycle_vkey": b.cfg.LifecycleVKey,
		"policy": map[string]any{"profile": "plain", "retention_days": days}}
}

// without leaves out the lines of a range, as a prune does.
func (b *book) without(r Range) []Line {
	return slices.DeleteFunc(slices.Clone(b.lines), func(l Line) bool { return l.Index >= r.First && l.Index < r.End() })
}

func lawful(t *testing.T, s *State, r Range, want bool) {
	t.Helper()
	if got := Contains(s.Lawful(), r); got != want {
		t.Errorf("entries %d to %d: lawful %v, want %v; prunes %+v, not valid %+v", r.First, r.End()-1, got, want, s.Prunes, s.NotValid)
	}
}

// Each way in which a prune can fail to permit what is missing.
func TestLawful(t *testing.T) {
	first := Range{0, 100}
	// The seal of the first segment is entry 100, that of the second 200; each has
	// a year.
	build := func(b *book) {
		b.created(30)
		b.seal(100, first, day(1), 30)
		b.seal(200, Range{100, 100}, day(2), 30)
	}
	for name, c := range map[string]struct {
		write func(b *book)
		want  bool
	}{
		"old enough": {func(b *book) {
			build(b)
			b.say(250, day(31), Prune, "segments_pruned", "lifecycle", b.pruneOf(first, []Range{first}, 30, nil))
		}, true},
		"a second too early": {func(b *book) {
			build(b)
			b.say(250, day(31).Add(-time.Second), Prune, "segments_pruned", "lifecycle", b.pruneOf(first, []Range{first}, 30, nil))
		}, false},
		"by the writer's key alone": {func(b *book) {
			build(b)
			b.say(250, day(31), Prune, "segments_pruned", "writer", b.pruneOf(first, []Range{first}, 30, nil))
		}, false},
		"without a seal": {func(b *book) {
			b.created(30)
			b.say(250, day(31), Prune, "segments_pruned", "lifecycle", b.pruneOf(first, []Range{first}, 30, nil))
		}, false},
		"under a hold": {func(b *book) {
			build(b)
			id := b.say(210, day(20), Hold, "hold_added", "lifecycle", map[string]any{"filter": map[string]any{}, "handles": []string{}, "ranges": []Range{{50, 1}}, "open": false, "reason": "r"})
			b.say(250, day(31), Prune, "segments_pruned", "lifecycle", b.pruneOf(first, []Range{first}, 30, []restatedHold{{id, 210, []Range{{50, 1}}, false}}))
		}, false},
		"after the hold was lifted": {func(b *book) {
			build(b)
			id := b.say(210, day(20), Hold, "hold_added", "lifecycle", map[string]any{"filter": map[string]any{}, "handles": []string{}, "ranges": []Range{{50, 1}}, "open": false, "reason": "r"})
			b.say(220, day(21), Hold, "hold_lifted", "lifecycle", map[string]any{"hold": id, "reason": "r"})
			b.say(250, day(31), Prune, "segments_pruned", "lifecycle", b.pruneOf(first, []Range{first}, 30, nil))
		}, true},
		"a hold that is kept silent": {func(b *book) {
			build(b)
			b.say(210, day(20), Hold, "hold_added", "lifecycle", map[string]any{"filter": map[string]any{}, "handles": []string{}, "ranges": []Range{{50, 1}}, "open": false, "reason": "r"})
			b.say(250, day(31), Prune, "segments_pruned", "lifecycle", b.pruneOf(first, []Range{first}, 30, nil))
		}, false},
		"under a longer period of its time": {func(b *book) {
			b.created(30)
			b.seal(100, first, day(1), 60)
			b.say(250, day(40), Prune, "segments_pruned", "lifecycle", b.pruneOf(first, []Range{first}, 30, nil))
		}, false},
		"where no period was set": {func(b *book) {
			b.created(nil)
			b.seal(100, first, day(1), nil)
			o := b.pruneOf(first, []Range{first}, 30, nil)
			o["policy"] = map[string]any{"profile": "plain", "retention_days": nil}
			b.say(250, day(4000), Prune, "segments_pruned", "lifecycle", o)
		}, false},
		"a period of its own": {func(b *book) {
			build(b)
			b.say(250, day(31), Prune, "segments_pruned", "lifecycle", b.pruneOf(first, []Range{first}, 1, nil))
		}, false},
		"half a segment": {func(b *book) {
			build(b)
			b.say(250, day(31), Prune, "segments_pruned", "lifecycle", b.pruneOf(Range{0, 50}, []Range{{0, 100}}, 30, nil))
		}, false},
		"not covered": {func(b *book) {
			build(b)
			b.say(250, day(31), Prune, "segments_pruned", "lifecycle", b.pruneOf(first, []Range{first}, 30, nil))
			b.cfg.Covered = 250
		}, false},
		"among adopted lines": {func(b *book) {
			build(b)
			b.say(250, day(31), Prune, "segments_pruned", "lifecycle", b.pruneOf(first, []Range{first}, 30, nil))
			b.say(260, day(31), Recovery, "trail_recovered", "writer", map[string]any{"checkpoint": 245, "adopted": []map[string]any{{"first": 245, "count": 10, "signed": false}}})
		}, false},
		"of another origin": {func(b *book) {
			build(b)
			b.say(250, day(31), Prune, "segments_pruned", "lifecycle", b.pruneOf(first, []Range{first}, 30, nil))
			b.cfg.Origin = "example.org/other"
		}, false},
		"its seal carried along": {func(b *book) {
			b.created(30)
			b.seal(100, first, day(1), 30)
			b.seal(200, Range{100, 100}, day(2), 30)
			b.say(250, day(40), Prune, "segments_pruned", "lifecycle", b.pruneOf(Range{0, 200}, []Range{{0, 200}}, 30, nil, 100))
			b.lines = b.without(Range{1, 199}) // the entry 0 stays, so that all else is as it was
		}, true},
		"a seal that is not in the tree": {func(b *book) {
			build(b)
			o := b.pruneOf(Range{0, 200}, []Range{{0, 200}}, 30, nil, 100)
			b.say(250, day(40), Prune, "segments_pruned", "lifecycle", o)
			b.digests[100] = [32]byte{1}
			b.lines = b.without(Range{1, 199})
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBook(t)
			c.write(b)
			lawful(t, Replay(b.cfg, b.lines), first, c.want)
		})
	}
}

// A prune of the segment that had an earlier prune, with entry 0 gone: the newest
// suffices, and a gap that nobody permitted is still one.
func TestPrunesOfPrunes(t *testing.T) {
	b := newBook(t)
	b.created(30)
	b.seal(100, Range{0, 100}, day(1), 30)
	b.say(150, day(31), Prune, "segments_pruned", "lifecycle", b.pruneOf(Range{0, 100}, []Range{{0, 100}}, 30, nil))
	b.seal(200, Range{100, 100}, day(40), 30)
	b.say(250, day(70), Prune, "segments_pruned", "lifecycle", b.pruneOf(Range{100, 100}, []Range{{0, 200}}, 30, nil))
	lines := b.without(Range{0, 200})
	s := Replay(b.cfg, lines)
	lawful(t, s, Range{0, 200}, true)
	lawful(t, s, Range{0, 201}, false)
	lawful(t, Replay(b.cfg, lines[:1]), Range{0, 200}, false) // its own prune is gone too
	// The lifecycle key alone is not enough: it must be the right one.
	other := newBook(t)
	b.cfg.LifecycleVKey = other.cfg.LifecycleVKey
	lawful(t, Replay(b.cfg, lines), Range{0, 200}, false)
}

// What a policy may not become.
func TestTermsMay(t *testing.T) {
	days := func(n int64) *int64 { return &n }
	for name, c := range map[string]struct {
		was, next Terms
		ok        bool
	}{
		"first":         {Terms{Profile: "plain"}, Terms{Profile: "plain", RetentionDays: days(1), Version: 1}, true},
		"shorter":       {Terms{Profile: "plain", RetentionDays: days(9)}, Terms{Profile: "plain", RetentionDays: days(1), Version: 1}, true},
		"locked":        {Terms{Profile: "plain", RetentionDays: days(9), Locked: true}, Terms{Profile: "plain", RetentionDays: days(8), Locked: true, Version: 1}, false},
		"locked grows":  {Terms{Profile: "plain", RetentionDays: days(9), Locked: true}, Terms{Profile: "plain", RetentionDays: days(10), Locked: true, Version: 1}, true},
		"unlocked":      {Terms{Profile: "plain", RetentionDays: days(9), Locked: true}, Terms{Profile: "plain", RetentionDays: days(10), Version: 1}, false},
		"floor":         {Terms{Profile: "hipaa"}, Terms{Profile: "hipaa", RetentionDays: days(2189), Version: 1}, false},
		"at the floor":  {Terms{Profile: "hipaa"}, Terms{Profile: "hipaa", RetentionDays: days(2190), Version: 1}, true},
		"wrong version": {Terms{Profile: "plain"}, Terms{Profile: "plain", RetentionDays: days(1), Version: 2}, false},
		"unset":         {Terms{Profile: "plain", RetentionDays: days(1)}, Terms{Profile: "plain", Version: 1}, false},
		"profile":       {Terms{Profile: "plain"}, Terms{Profile: "pci", RetentionDays: days(400), Version: 1}, false},
		"too long":      {Terms{Profile: "plain"}, Terms{Profile: "plain", RetentionDays: days(1 << 40), Version: 1}, false},
	} {
		if err := c.was.May(c.next); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestJoin(t *testing.T) {
	var all []Range
	for _, r := range []Range{{10, 5}, {0, 5}, {20, 1}, {5, 5}, {16, 1}, {15, 1}} {
		all = Join(all, r)
	}
	if want := []Range{{0, 17}, {20, 1}}; !slices.Equal(all, want) {
		t.Errorf("%v", all)
	}
}

// Whatever lines say, Replay gives a state, and lets nothing be missing that no
// valid prune names.
func FuzzReplay(f *testing.F) {
	v := readVectors(f)
	for _, l := range v.Lines {
		f.Add([]byte(l.Line), int64(0))
		f.Add([]byte(l.Line), int64(4000))
	}
	for _, l := range v.Refused {
		f.Add([]byte(l.Line), int64(1))
	}
	f.Fuzz(func(t *testing.T, line []byte, index int64) {
		if !Is(line) {
			return
		}
		s := Replay(Config{Origin: v.Origin, VKeys: []KeyFrom{{VKey: v.Writer.VKey}}, LifecycleVKey: v.Lifecycle.VKey, Covered: 1 << 50, Restated: true,
			Digest: func(int64) ([32]byte, bool) { return [32]byte{}, false }}, []Line{{index, line}})
		if len(s.Lawful()) > 0 {
			t.Errorf("one line permits %v", s.Lawful())
		}
	})
}
