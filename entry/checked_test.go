package entry

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"time"
)

// A checked object is recorded as the object is that it was made of, as often as one
// likes, and does not change with it.
func TestCheckedObjectsAreRecordedAsTheirOriginals(t *testing.T) {
	raw := []byte(` { "b" : "\u0041\/", "a":[1.50, {"c":null}] } `)
	for _, o := range []Object{{}, Raw(raw), Of(map[string]any{"n": 1, "a": "x"}), Raw([]byte(`[1, 2]`)), Of("text"), Raw([]byte(`null`))} {
		want, err := o.AppendJSON(nil)
		if err != nil {
			t.Fatal(err)
		}
		c, n, err := o.Checked()
		if err != nil || c.IsZero() != o.IsZero() || !o.IsZero() && n != len(want) {
			t.Fatalf("%s: %d bytes, %v", want, n, err)
		}
		for i := range raw {
			raw[i] ^= 1
		}
		for range 2 {
			if got, err := c.AppendJSON(nil); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s became %s (%v)", want, got, err)
			}
			ev := Event{EventType: "X", AgentID: "a", Action: "b", Inputs: c, Outputs: Of(map[string]any{"in": c})}
			line, err := AppendLine(nil, &ev, &Stamp{RecordedAt: time.UnixMilli(0)})
			if err != nil || !bytes.Contains(line, append([]byte(`"inputs":`), want...)) {
				t.Errorf("%s is recorded as %s (%v)", want, line, err)
			}
			c, _, _ = c.Checked()
		}
		for i := range raw {
			raw[i] ^= 1
		}
	}
	for _, text := range []string{`{"a":1,"a":2}`, `{`, `{"a":"` + "\xff" + `"}`, strings.Repeat("[", 129) + strings.Repeat("]", 129)} {
		if c, n, err := Raw([]byte(text)).Checked(); err == nil || !c.IsZero() || n != 0 {
			t.Errorf("%.20s is checked", text)
		}
	}
	// It was checked as a member, and deeper it may be too deep.
	c, _, err := Raw([]byte(`{"a":` + strings.Repeat("[", 125) + strings.Repeat("]", 125) + `}`)).Checked()
	if err != nil {
		t.Fatal(err)
	}
	deep := Event{EventType: "X", AgentID: "a", Action: "b", Inputs: Of(map[string]any{"x": map[string]any{"y": c}})}
	if _, err := AppendLine(nil, &deep, &Stamp{RecordedAt: time.UnixMilli(0)}); err == nil {
		t.Error("an object that is too deep in another is recorded")
	}
}

// Each place is where its member's value is.
func TestPlacesAreWhereTheMembersAre(t *testing.T) {
	for _, text := range []string{
		`{"event_type":"X","agent_id":"a","action":"b"}`,
		`{"event_type":"X","agent_id":"a\"","action":"b","timestamp":"2026-01-02T03:04:05.678","trace_id":"t","inputs":{"n": 1.50},"outputs":[1],"duration_ms":1.50,"success":false,"error":"e","metadata":{"user_id":"u"},"idempotency_key":"k","span_id":"s","parent_span_id":"p","resource":{"id":"r"},"outcome":"denied","authority":{"rule":"x"},"purpose":"care"}`,
	} {
		ev, err := ParseEvent([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		st := Stamp{EventID: "01a207ae-7a4f-7bcd-81a2-b1039c325e2d", RecordedAt: time.UnixMilli(0), TraceID: "made", Policy: []byte(`{"marked":["/inputs/n"]}`)}
		prefix := []byte("before")
		line, places, err := AppendLinePlaces(prefix, nil, &ev, &st)
		plain, err2 := AppendLine(nil, &ev, &st)
		if err != nil || err2 != nil || !bytes.Equal(line[len(prefix):], plain) {
			t.Fatalf("%s\n%s\n%v", line, plain, err)
		}
		checkPlaces(t, plain, places, "timestamp", "event_type", "event_id", "recorded_at", "success")
		out, places, err := AppendEventPlaces(prefix, nil, &ev)
		plain, err2 = AppendEvent(nil, &ev)
		if err != nil || err2 != nil || !bytes.Equal(out[len(prefix):], plain) {
			t.Fatalf("%s\n%s\n%v", out, plain, err)
		}
		checkPlaces(t, plain, places, "timestamp", "event_type", "success")
	}
}

// checkPlaces checks that places are all members of an object but for some.
func checkPlaces(t *testing.T, text []byte, places []Place, but ...string) {
	t.Helper()
	i := 0
	for name, v := range Raw(text).All() {
		if i < len(places) && places[i].Member.String() == name {
			if p := places[i]; !bytes.Equal(text[p.Start:p.End], v.JSON()) {
				t.Errorf("%s is at %s, not %s", name, text[p.Start:p.End], v.JSON())
			}
			i++
		} else if !strings.Contains(strings.Join(but, " "), name) {
			t.Errorf("%s has no place", name)
		}
	}
	if i < len(places) {
		t.Errorf("%s has another place", places[i].Member)
	}
}

// Floats are written as encoding/json does, also those of few decimals.
func TestFloatsAreWrittenAsEncodingJSONDoes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 200_000 {
		f := float64(r.Int64N(1<<(1+r.IntN(52)))) / []float64{1, 10, 1000, 1e6}[i%4]
		want, err := json.Marshal(f)
		if got := appendFloat([]byte("10"), f); err != nil || string(got) != "10"+string(want) {
			t.Fatalf("%s, want %s (%v)", got[2:], want, err)
		}
	}
}

// The digits are those of encoding/hex.
func TestHexDigitsAreThoseOfTheNumber(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for i := range 100_000 {
		x := r.Uint32() >> (i % 32)
		if got, want := binary.BigEndian.AppendUint64(nil, hex8(x)), fmt.Sprintf("%08x", x); string(got) != want {
			t.Fatalf("%s, want %s", got, want)
		}
	}
	id := NewEventID(time.UnixMilli(0x0123456789ab))
	if !regexp.MustCompile(`^01234567-89ab-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(id) {
		t.Error(id)
	}
}
