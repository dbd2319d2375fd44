package detect_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/kaizen-audit/kaizen-audit/internal/detect"
)

func Example() {
	text := []byte(`{"card_number":"4532-1234-5678-9012","note":"call +1 415 555 2671"}`)
	for _, m := range detect.Default().Text(nil, text) {
		fmt.Printf("%s (%s): %s\n", m.Rule, m.Class, detect.AppendMask(nil, m, text))
	}
	// Output:
	// card (card): ****9012
	// phone (personal): ****
}

func ExampleSet_Name() {
	k, ok := detect.Default().Name([]byte("STRIPE_API_KEY"))
	fmt.Println(ok, k.Rule, k.Class)
	// Output: true secret secret
}

func TestPersonalData(t *testing.T) {
	for text, want := range map[string]string{
		"ssn 536-22-8145": "us_ssn=536-22-8145", "536 22 8145": "us_ssn=536 22 8145", "SSN: 536228145": "us_ssn=536228145", "536228145": "", "000-22-8145": "", "666-22-8145": "", "900-22-8145": "", "536-00-8145": "", "536-22-0000": "", "078-05-1120": "", "123-45-6789": "",
		"DE89 3704 0044 0532 0130 00": "iban=DE89 3704 0044 0532 0130 00", "de89370400440532013000": "iban=de89370400440532013000", "GB82WEST12345698765433": "", "XX82WEST12345698765432": "",
		"943 476 5919": "nhs_number=943 476 5919", "943 476 5918": "phone=943 476 5918", "NHS number 9434765919": "nhs_number=9434765919",
		"a.b+c@sub.example.co.uk.": "email=a.b+c@sub.example.co.uk", "<bob@example.com>": "email=bob@example.com", "react@18.2.0": "", "user@host": "", "@scope/pkg": "", "müller@exämple.de": "email=müller@exämple.de",
		"(415) 555-2671": "phone=(415) 555-2671", "+44 20 7946 0958": "phone=+44 20 7946 0958", "415-555-2671": "phone=415-555-2671", "1-415-555-2671": "phone=1-415-555-2671", "phone: 78 651 450": "phone=78 651 450", "78 651 450": "", "115-555-2671": "",
		"10.1.2.3:80": "ip=10.1.2.3", "10.1.2.0/24": "ip=10.1.2.0", "10.1.2.256": "", "1.2.3": "", "Chrome/120.0.0.0": "", "2001:db8::1": "ip=2001:db8::1", "::ffff:10.1.2.3": "ip=::ffff:10.1.2.3", "[fe80::1]": "ip=fe80::1", "a[2::4]": "", "std::vector": "", "10:53:45": "",
		"born on 2/8/1935": "date_of_birth=2/8/1935", "born 12 March 1980": "date_of_birth=12 March 1980", "born March 3rd, 1980": "date_of_birth=March 3rd, 1980", "2/8/1935": "", "dob=1980-03-12": "date_of_birth=1980-03-12", "date of birth: 12.03.1980": "date_of_birth=12.03.1980", "born in 1980": "",
	} {
		if got := find(text); got != want {
			t.Errorf("%q: %q, not %q", text, got, want)
		}
	}
}

func TestStrongerFindingsWin(t *testing.T) {
	for text, want := range map[string]string{
		"postgres://u:pw@example.com/d":                   "url_password=pw",
		"password=4111111111111111":                       "password=4111111111111111",
		"%B4111111111111111^DOE/JANE^27121011234567890?":  "track=%B4111111111111111^DOE/JANE^27121011234567890?",
		"token: bob@example.com":                          "secret=bob@example.com",
		"api_key=\"sk-" + strings.Repeat("a1B2", 8) + `"`: "secret=sk-" + strings.Repeat("a1B2", 8),
	} {
		if got := find(text); got != want {
			t.Errorf("%q: %q, not %q", text, got, want)
		}
	}
}

func TestCustomDetectors(t *testing.T) {
	s, err := detect.New(detect.Options{
		Off: []string{"email"},
		Custom: []detect.Custom{
			{Rule: "employee", Class: detect.Personal, Pattern: `\bE-(\d{6})\b`, Names: []string{"staff_no", "2fa"}},
			{Rule: "project", Pattern: `(?i)project [a-z]+`},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	text := []byte("E-123456 of Project Blue, bob@example.com, password=Project Red, card 4111111111111111")
	var got []string
	for _, m := range s.Text(nil, text) {
		got = append(got, fmt.Sprintf("%s %s %s", m.Rule, m.Class, text[m.Start:m.End]))
	}
	want := []string{"employee personal 123456", "project secret Project Blue", "project secret Project Red", "card card 4111111111111111"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%q, not %q", got, want)
	}
	for _, name := range []string{"staffNo", "STAFF-NO", "2fa"} {
		k, ok := s.Name([]byte(name))
		if !ok || k.Rule != "employee" || len(s.Value(nil, k, []byte("x"))) != 1 {
			t.Errorf("%s: %v %v", name, k, ok)
		}
	}
	if _, ok := s.Name([]byte("password")); !ok {
		t.Error("built-in names are gone")
	}

	for name, o := range map[string]detect.Options{
		`detectors: off: no rule "e-mail"`:                                      {Off: []string{"e-mail"}},
		`detectors: custom[0]: rule "card": it needs a name of its own`:         {Custom: []detect.Custom{{Rule: "card", Pattern: "x"}}},
		`detectors: custom[0]: rule "": it needs a name of its own`:             {Custom: []detect.Custom{{Pattern: "x"}}},
		`detectors: custom[0]: a: neither pattern nor names`:                    {Custom: []detect.Custom{{Rule: "a"}}},
		`detectors: custom[0]: a: unknown class`:                                {Custom: []detect.Custom{{Rule: "a", Class: 9, Pattern: "x"}}},
		`detectors: custom[0]: a: name "--" has neither letter nor digit`:       {Custom: []detect.Custom{{Rule: "a", Names: []string{"--"}}}},
		"detectors: custom[0]: a: error parsing regexp: missing closing ): `(`": {Custom: []detect.Custom{{Rule: "a", Pattern: "("}}},
	} {
		if _, err := detect.New(o); err == nil || err.Error() != name {
			t.Errorf("%v, not %s", err, name)
		}
	}
}

// TestEveryRuleCanBeOff switches all rules off, and then nothing is found in
// what each finds.
func TestEveryRuleCanBeOff(t *testing.T) {
	var all []string
	for _, r := range detect.Rules() {
		all = append(all, r.Rule)
	}
	s, err := detect.New(detect.Options{Off: all})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range seedTexts {
		if found := s.Text(nil, []byte(text)); len(found) > 0 {
			t.Errorf("%q: %v", text, found)
		}
	}
	if _, ok := s.Name([]byte("password")); ok {
		t.Error("a name")
	}
	if _, ok := s.Number([]byte("4111111111111111")); ok {
		t.Error("a number")
	}
}

func TestASetIsSafeForConcurrentUse(t *testing.T) {
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for _, text := range seedTexts {
				find(text)
				detect.Default().Name([]byte(text))
			}
		})
	}
	wg.Wait()
}
