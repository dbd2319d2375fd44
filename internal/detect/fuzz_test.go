package detect_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/kaizen-audit/kaizen-audit/internal/detect"
	"github.com/kaizen-audit/kaizen-audit/internal/detect/corpus"
)

// ruleClasses is the class of each rule.
var ruleClasses = func() map[string]detect.Class {
	m := map[string]detect.Class{}
	for _, r := range detect.Rules() {
		m[r.Rule] = r.Class
	}
	return m
}()

// check holds what the package comment says of findings.
func check(t testing.TB, text []byte, found []detect.Match) {
	t.Helper()
	at := 0
	for _, m := range found {
		if m.Start < at || m.End <= m.Start || m.End > len(text) {
			t.Fatalf("%q: %+v behind %d", text, m, at)
		}
		if c, ok := ruleClasses[m.Rule]; !ok || c != m.Class {
			t.Fatalf("%q: %+v is of no rule", text, m)
		}
		if masked := detect.AppendMask(nil, m, text); m.Class == detect.Card && len(masked) > len("****")+4 || !bytes.Contains(masked, []byte("****")) {
			t.Fatalf("%q: %+v masked as %q", text, m, masked)
		}
		at = m.End
	}
}

func seeds(f *testing.F, add func(string)) {
	for _, s := range seedTexts {
		add(s)
	}
	// What one detector calls for, cut and glued.
	for _, a := range seedTexts {
		add(a[:len(a)/2])
		add(a + a)
	}
}

var seedTexts = []string{
	"", "4111 1111 1111 1111 12/27 123", "card 4532-1234-5678-9012, cvv 123, PIN 1234", "%B4111111111111111^DOE/JANE^27121011234567890?", ";4111111111111111=27121011234567890?", "+1 (415) 555-2671 ext. 12", "(415) 555-2671", "219-09-9998", "943 476 5919", "GB82 WEST 1234 5698 7654 32",
	"born 12 March 1980, dob: 03/12/1980", "10.1.2.3/24 2001:db8::1 ::ffff:1.2.3.4", "a@b.cc", "password=a; token => \"b\\\"c\"; secrets: ['x', \"y\"]; Authorization: Bearer abc", "Cookie: a=b", "curl -u \"a\":'b'", "postgres://u:p@h", "-----BEGIN RSA PRIVATE" + " KEY-----\\nMIIEpAIBAAKCAQEA1234567890abcdef\\n-----END RSA PRIVATE KEY-----", "LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0tCk1J", "12345:A", "hooks.slack.com/services/T/B/abcdefghijklmnopqrst", "api_key: [", "\\\\\"token\\\\\": \\\\\"x", "018f3c1e-7b2a-7c4d-9e8f-1a2b3c4d5e6f 2025-10-26T10:53:45.123Z", "1234567890123456|abcdefghijklmnopqrstuvwxyz0", "%20%2D%3D", "\u00a04\u20111\u2212", "Q~ sha256~ dapi00 .atlasv1. eyJ eyJ.eyJ. SK0 Bearer  Basic ", "\xff\xfe\x80",
}

func FuzzText(f *testing.F) {
	seeds(f, func(s string) { f.Add([]byte(s)) })
	s := detect.Default()
	f.Fuzz(func(t *testing.T, text []byte) {
		found := s.Text(nil, text)
		check(t, text, found)
		if again := s.Text(nil, text); !slices.Equal(found, again) {
			t.Fatal("another answer")
		}
	})
}

func FuzzValue(f *testing.F) {
	seeds(f, func(s string) {
		for _, name := range []string{"card_number", "cc", "cvv", "pin", "track1", "password", "authorization", "cookie", "pwd", "pass", "sig", "ssn", "dob", "nhs_number", "phone", "private_lines", "passphrase"} {
			f.Add(name, []byte(s))
		}
	})
	s := detect.Default()
	f.Fuzz(func(t *testing.T, name string, text []byte) {
		if k, ok := s.Name([]byte(name)); ok {
			check(t, text, s.Value(nil, k, text))
		}
	})
}

func FuzzNumber(f *testing.F) {
	for _, s := range []string{"4111111111111111", "4111111111111111.0", "4.111111111111111e15", "4111111111111111e0", "-1", "1e999999999999", "0.0000000000000000000000", "62212345678901230000e-4", "."} {
		f.Add([]byte(s))
	}
	s := detect.Default()
	f.Fuzz(func(t *testing.T, literal []byte) {
		if m, ok := s.Number(literal); ok {
			check(t, literal, []detect.Match{m})
		}
	})
}

// TestCutAndSplicedCorpora does what the fuzzer does, on texts of real form: cut
// anywhere, spliced anywhere.
func TestCutAndSplicedCorpora(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	var texts []string
	for _, c := range slices.Concat(corpus.Secrets(), corpus.Recognisers(), corpus.Nano()) {
		if len(c.Text) < 2000 {
			texts = append(texts, c.Text)
		}
	}
	texts = append(texts, seedTexts[1:]...)
	s := detect.Default()
	var found []detect.Match
	for range 50_000 {
		a, b := texts[r.IntN(len(texts))], texts[r.IntN(len(texts))]
		text := []byte(a[:r.IntN(len(a)+1)] + b[r.IntN(len(b)+1):])
		found = s.Text(found[:0], text)
		check(t, text, found)
	}
}

// TestTimeGrowsWithTheText doubles texts that make detectors work, 1 MiB of the
// first, less of the others: what takes four times as long for twice the text is
// quadratic.
func TestTimeGrowsWithTheText(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector's time says nothing")
	}
	units := []string{
		"4", "-----BEGIN ", "password=\"", "@", "=", ".", // 1 MiB of these
		"41", "4 ", "4-", "4111 ", "4111-1111-", "1 22 333 ", "5555555555554444 ", "4111111111111111 cvv 123 ", "62", "1.", "1:", "::", ":", "a:b:", "=", "a=", "@", "a@", "a.", ".", "-", "_", "~", "A", "J", "B", "E", "v", "cvv", "cvv ", "+", "+1", "(1", "(123) ", "1/", "/",
		"-----BEGIN", "-----BEGIN ", "-----BEGIN PRIVATE" + " KEY-----", "-----BEGIN PRIVATE" + " KEY-----\n", "-----BEGIN PRIVATE" + " KEY-----\nMIIEpAIBAAKCAQEA1234567890abcdef\n", "-----END ", "LS0tLS1CRUdJTi", "LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0t ", "S0tL", "\"", "'", "\\\"", "password=\"", "password='", "card: \"", "card: \\\"", "card: '\"", "password: [", "password: ['", "password:", "password=", "password: $A", "cvv:", "cvv: ", "pin=x", "cookie:", "cookie: a=", "authorization: ", "authorization: bearer ", "passphrase: ", "passphrase:", "token ", "token:\\n", "dob: ", "phone ", "phone: 1 ",
		"://", "a://b:", "://:@", "curl -u ", "curl -u \"", "-u ", "--user ", "--password ", "--card \"", "--", "--a ", "sk-", "sk- ", "sk-a1", "\\nsk-", "%3Dsk-", "ghp_", "xoxb-", "AKIA", "AKIA" + "ABCDEFGHIJKLMNOP ", "AKIA" + "ABCDEFGHIJKLMNOP", "eyJ", "eyJ.", "eyJhbGciOiJIUzI1NiJ9.", "eyJ-", "a.eyJ", "Bearer ", "Bearer a", "Basic ", "Q~", "8Q~", "sha256~", "dapi0", "a0", "ab12", "GB82", "GB82 WEST 1234 ", "hooks.slack.com/services/", "discord.com/api/webhooks/", ".webhook.office.com/", "12345:A", "1234567890123456|", "%20", "4%20", "\u00a0", "4\u00a0", "\xe2", "\xff", "é@", " ", "\n", "a", "0123456789abcdef", "018f3c1e-7b2a-7c4d-9e8f-1a2b3c4d5e6f", "2025-10-26 ", "born 12 March 1980 ", "March 1980 ", "1980 ", ";4111111111111111=", "%B4111111111111111^", "4111111111111111^A", "4111111111111111D1", "[", "{", "{\"a\":", ",",
	}
	s := detect.Default()
	var dst []detect.Match
	for i, unit := range units {
		size := 192 << 10
		if i < 6 {
			size = 1 << 20
		}
		one := []byte(strings.Repeat(unit, size/len(unit)))
		two := append(slices.Clone(one), one...)
		took := func(text []byte) float64 {
			before := cpuTime()
			dst = s.Text(dst[:0], text)
			return (cpuTime() - before).Seconds()
		}
		var last string
		ok := false
		if a := took(one[:32<<10]); a > 0.2 {
			t.Errorf("%q: 32 KiB took %.3f s", unit, a)
			continue
		}
		for range 5 {
			a := took(one)
			if ok = a < 0.01; ok { // quadratic would be seconds
				last = fmt.Sprintf("%.3f s", a)
				break
			}
			b := took(two)
			last = fmt.Sprintf("%.3f s, twice of it %.3f s", a, b)
			if ok = b < 3.2*a && b < 2; ok {
				break
			}
		}
		if !ok {
			t.Errorf("%q: %s", unit, last)
		}
		if testing.Verbose() {
			t.Logf("%q: %s", unit, last)
		}
		check(t, one, s.Text(nil, one))
	}
}

func TestNothingIsAllocated(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	s := detect.Default()
	dst := make([]detect.Match, 0, 4096)
	prose := corpus.Prose(64 << 10)
	texts := [][]byte{prose}
	for _, c := range corpus.Secrets() {
		texts = append(texts, []byte(c.Text))
	}
	for _, c := range seedTexts {
		texts = append(texts, []byte(c))
	}
	if n := testing.AllocsPerRun(2, func() {
		for _, text := range texts {
			dst = s.Text(dst[:0], text)
			if k, ok := s.Name(text[:min(len(text), 40)]); ok {
				dst = s.Value(dst[:0], k, text)
			}
			s.Number(text)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
