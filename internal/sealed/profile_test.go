package sealed_test

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/sealed"
	"github.com/kaizen-audit/kaizen-audit/policy"
)

// What the policy's profiles say that is sealed is what is.
func TestProfilesOfThePolicySayWhatIsSealed(t *testing.T) {
	access := toolUse()
	access.EventType = entry.PHIAccess
	access.Metadata = entry.Raw([]byte(`{"user_id":"mia","session_id":"s","ip_address":"::1","user_agent":"x","service_name":"y","other":1}`))
	for _, profile := range []string{"gdpr", "hipaa"} {
		p, err := policy.New(policy.Config{Profile: profile})
		if err != nil {
			t.Fatal(err)
		}
		for _, ev := range []entry.Event{toolUse(), access} {
			_, notes, err := p.AppendEvent(nil, &ev, policy.Run{})
			if err != nil {
				t.Fatal(err)
			}
			var said struct{ Sealed []string }
			if err := json.Unmarshal(notes, &said); err != nil {
				t.Fatal(err)
			}
			stored, err := sealer(t, store(t), sealed.Rules{}).Seal(nil, plainLine(t, ev))
			if err != nil {
				t.Fatal(err)
			}
			e, err := entry.Parse(stored)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			v, _ := e.Policy.Get("sealed")
			if err := json.Unmarshal(v.JSON(), &got); err != nil {
				t.Fatal(err)
			}
			// "" and {} say nothing of anybody and are not sealed.
			said.Sealed = slices.DeleteFunc(said.Sealed, func(p string) bool { return p == "/metadata/nothing" })
			slices.Sort(got)
			if slices.Sort(said.Sealed); !slices.Equal(got, said.Sealed) {
				t.Errorf("%s, %s: sealed %v, the policy says %v", profile, ev.EventType, got, said.Sealed)
			}
		}
	}
}

// FuzzAskedFor: whatever the policy asks for, sealed and opened is the plain line.
func FuzzAskedFor(f *testing.F) {
	f.Add("/purpose", "/inputs/name")
	f.Add("/authority", "/authority/x")
	f.Add("/metadata/*/0", "/outputs/a~1b/~0/0")
	f.Add("/", "//")
	f.Fuzz(func(t *testing.T, a, b string) {
		ev := toolUse()
		notes, err := json.Marshal(map[string][]string{"sealed": {a, b}, "marked": {a}})
		if err != nil {
			t.Skip()
		}
		ev.NotePolicy(notes)
		s := store(t)
		plain := plainLine(t, ev)
		stored, err := sealer(t, s, sealed.Rules{}).Seal(nil, plain)
		if err != nil {
			t.Fatal(err)
		}
		v, err := sealed.NewOpener(origin, s, limit, nil).Open(stored)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := v.Plain(); !ok || string(got) != string(sealed.WithoutList(plain)) {
			t.Errorf("\n got %s\nwant %s\nhidden %v", got, sealed.WithoutList(plain), v.Hidden)
		}
	})
}
