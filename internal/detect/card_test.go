package detect_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/kaizen-audit/kaizen-audit/internal/detect"
)

// find is what the default set finds, as rule=text.
func find(text string) string {
	var found []string
	for _, m := range detect.Default().Text(nil, []byte(text)) {
		found = append(found, m.Rule+"="+text[m.Start:m.End])
	}
	return strings.Join(found, " | ")
}

// masked is text with every finding but personal ones masked.
func masked(text string) string { return mask(text, detect.Default().Text(nil, []byte(text))) }

func mask(text string, found []detect.Match) string {
	var out []byte
	at := 0
	for _, m := range found {
		if m.Class == detect.Personal {
			continue
		}
		out = append(out, text[at:m.Start]...)
		out = detect.AppendMask(out, m, []byte(text))
		at = m.End
	}
	return string(out) + text[at:]
}

// issuers are the ranges of the card schemes as published, written down here
// apart from the code: first and last prefix, lengths.
var issuers = []struct {
	brand       string
	first, last int
	lengths     []int
}{
	{"visa", 4, 4, []int{13, 16, 18, 19}},
	{"mastercard", 51, 55, []int{16}}, {"mastercard", 2221, 2720, []int{16}},
	{"american express", 34, 34, []int{15}}, {"american express", 37, 37, []int{15}},
	{"diners club", 300, 305, []int{14, 16, 19}}, {"diners club", 36, 36, []int{14, 16, 19}}, {"diners club", 38, 39, []int{14, 16, 19}},
	{"discover", 6011, 6011, []int{16, 19}}, {"discover", 644, 649, []int{16, 19}}, {"discover", 65, 65, []int{16, 19}},
	{"jcb", 3528, 3589, []int{16, 17, 18, 19}}, {"jcb", 2131, 2131, []int{15, 16, 17, 18, 19}}, {"jcb", 1800, 1800, []int{15, 16, 17, 18, 19}},
	{"unionpay", 620, 629, []int{14, 15, 16, 17, 18, 19}}, {"unionpay", 810, 817, []int{14, 15, 16, 17, 18, 19}},
	{"maestro", 50, 50, []int{12, 13, 14, 15, 16, 17, 18, 19}}, {"maestro", 56, 59, []int{12, 13, 14, 15, 16, 17, 18, 19}}, {"maestro", 63, 63, []int{12, 13, 14, 15, 16, 17, 18, 19}}, {"maestro", 67, 67, []int{12, 13, 14, 15, 16, 17, 18, 19}}, {"maestro", 6, 6, []int{12, 13, 14, 15, 16, 17, 18, 19}}, {"maestro", 493698, 493698, []int{12, 13, 14, 15, 16, 17, 18, 19}},
	{"mir", 2200, 2204, []int{16, 17, 18, 19}},
	{"elo", 636368, 636368, []int{16}}, {"elo", 401178, 401179, []int{16}}, {"elo", 506699, 506778, []int{16}}, {"elo", 509000, 509999, []int{16}}, {"elo", 650031, 650033, []int{16}},
	{"troy", 9792, 9792, []int{16}}, {"verve", 506099, 506198, []int{16, 18, 19}}, {"verve", 650002, 650027, []int{16, 18, 19}}, {"hiper", 637095, 637095, []int{16}}, {"hipercard", 606282, 606282, []int{16}},
	{"rupay", 508500, 508999, []int{16}}, {"rupay", 606985, 607984, []int{16}}, {"rupay", 82, 82, []int{16}}, {"rupay", 353800, 353801, []int{16}},
	{"uzcard", 8600, 8600, []int{16}}, {"humo", 9860, 9860, []int{16}},
}

// checkDigit is Luhn's for digits, computed from the left, unlike the code's.
func checkDigit(digits string) byte {
	for c := byte('0'); c <= '9'; c++ {
		sum := 0
		for i, d := range digits + string(c) {
			v := int(d - '0')
			if (len(digits)+1-i)%2 == 0 {
				v = []int{0, 2, 4, 6, 8, 1, 3, 5, 7, 9}[v]
			}
			sum += v
		}
		if sum%10 == 0 {
			return c
		}
	}
	panic("no check digit")
}

func cardNumber(r *rand.Rand, prefix, length int) string {
	n := fmt.Sprint(prefix)
	for len(n) < length-1 {
		n += string(byte('0' + r.IntN(10)))
	}
	return n + string(checkDigit(n))
}

// group writes digits with sep behind each of the positions.
func group(digits, sep string, sizes ...int) string {
	var parts []string
	for i := 0; len(digits) > 0; i++ {
		n := min(sizes[i%len(sizes)], len(digits))
		parts = append(parts, digits[:n])
		digits = digits[n:]
	}
	return strings.Join(parts, sep)
}

// disguises are how a card number may stand in a text; %s is the number.
var disguises = []string{
	"%s", "pay with %s please", "(%s)", "Card: %s.", "card number is %s, expires 12/27", "\"%s\"", "[%s]", "%s\n", "\t%s,", "my card's %s; thanks", "<pan>%s</pan>",
	`{"card_number":"%s"}`, `{\"card_number\":\"%s\"}`, `{"note":"it is %s"}`, "pan=%s&exp=1227", "url?c=%s", "/%s/", "卡号%s。", "№%s", "2 cards: %s and more", "on 2026-11-23T10:00:00Z: %s", "#%s", "card_%s_x", "4x %s", "CARD%s", "%s|12|2027",
}

func TestEveryIssuersCardsAreFoundInEveryDisguise(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 2))
	n := 0
	for _, is := range issuers {
		for _, length := range is.lengths {
			// The ends of the range and two from inside it.
			prefixes := []int{is.first, is.last, is.first + r.IntN(is.last-is.first+1), is.first + r.IntN(is.last-is.first+1)}
			for _, prefix := range prefixes {
				number := cardNumber(r, prefix, length)
				groupings := []string{number,
					group(number, " ", 4), group(number, "-", 4), group(number, " ", 4, 6, 5), group(number, "-", 4, 6, 4), group(number, " ", 6, 13), group(number, "-", 1), group(number, " ", 2), group(number, " ", 3), group(number, "-", 5), group(number, "\u00a0", 4), group(number, "\u2011", 4), group(number, "%20", 4), group(number, "+", 4),
				}
				for _, g := range groupings {
					for _, d := range disguises {
						text := fmt.Sprintf(d, g)
						n++
						// The digits are gone but for the last four.
						got := masked(text)
						if !strings.Contains(got, "****"+number[length-4:]) || strings.Contains(strings.NewReplacer(" ", "", "-", "", "\u00a0", "", "\u2011", "").Replace(got), number[:6]) && !strings.Contains(d, number[:6]) {
							t.Fatalf("%s %d: %q became %q", is.brand, length, text, got)
						}
					}
				}
				for _, literal := range []string{number, number + ".0", number[:1] + "." + strings.TrimRight(number[1:], "0") + "e" + fmt.Sprint(length-1), number[:1] + "." + number[1:] + fmt.Sprintf("E+%d", length-1)} {
					if m, ok := detect.Default().Number([]byte(literal)); !ok || m.Class != detect.Card || m.End != len(literal) {
						t.Fatalf("%s %d: the JSON number %s is not found", is.brand, length, literal)
					}
				}
			}
		}
	}
	t.Logf("%d texts", n)
}

func TestWhatIsNoCardNumber(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	visa := "4111111111111111"
	texts := []string{
		"4111111111111112", "0000000000000000", "1111111111111111", "a" + visa, visa + "a", "0x" + visa, "41111111111111111111", "411111111111",
		"0." + visa, "3." + visa[:15], visa + ".25", "1." + visa, "ab" + visa + "cd", visa + "f00",
		"4111  1111  1111  1111", "+41 11 111 11 11", "+62 812-3456-7890", "1700000000000", "1732617600123456", "1732617600123456789",
		"12345678-1234-4111-8111-111111111111", "2026-11-23 10:53:45.123456", "306181000000106", "192019947458769", "8000000000000000", "6252316768545", "4675545572335", "356834643335217",
		"W4111111111111111", "ord4111111111111111", "toolu_01" + visa + "abc", "sha256:" + visa + "deadbeef",
	}
	for _, text := range texts {
		if got := find(text); strings.Contains(got, "card=") {
			t.Errorf("%q: %s", text, got)
		}
	}
	// Hashes, UUIDs, fractions, identifiers by the thousand.
	hex := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = "0123456789abcdef"[r.IntN(16)]
		}
		return string(b)
	}
	for range 20000 {
		h := hex(32)
		for _, text := range []string{hex(40), hex(64), h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:], fmt.Sprint(r.Float64()), fmt.Sprintf("%.17g", r.Float64()*1000), fmt.Sprint(1600000000000 + r.Int64N(190000000000)), fmt.Sprint(1600000000000000 + r.Int64N(190000000000000)), "W" + fmt.Sprint(r.Int64N(1e16))} {
			if got := find(text); strings.Contains(got, "card=") && strings.Trim(text, "0123456789") != "" {
				t.Errorf("%q: %s", text, got)
			}
		}
		if m, ok := detect.Default().Number([]byte(fmt.Sprint(r.Float64()))); ok {
			t.Error(m)
		}
	}
	for _, literal := range []string{"-4111111111111111", "4111111111111111.5", "4111111111111112", "0.4111111111111111", "1732617600123456", "4.111111111111111e14", "4.111111111111111e-15", "1e999999999999999999", "4e15", "41111111111111110000"} {
		if _, ok := detect.Default().Number([]byte(literal)); ok {
			t.Errorf("number %s is taken for a card", literal)
		}
	}
}

func TestCardNumbersThatFailTheirCheckDigit(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		// The documented example, under a name, behind a word, and alone.
		{`{"card_number":"4532-1234-5678-9012"}`, `{"card_number":"****9012"}`},
		{"The customer's card 4532-1234-5678-9012 was declined", "The customer's card ****9012 was declined"},
		{"Visa 4532 1234 5678 9012", "Visa ****9012"},
		{"4532-1234-5678-9012", "4532-1234-5678-9012"},
		// UnionPay's need not have one.
		{"6221558812340000", "****0000"}, {"6221 5588 1234 0000", "****0000"},
		{"6200000000000000", "6200000000000000"},
	} {
		if got := masked(c.text); got != c.want {
			t.Errorf("%q became %q, not %q", c.text, got, c.want)
		}
	}
}

func TestWhatBelongsToACardIsDropped(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"4111111111111111 12/27 123", "****1111 12/27 ****"},
		{"4111111111111111|12|2027|123", "****1111|12|2027|****"},
		{"4111 1111 1111 1111, exp 12/27, CVV 123", "****1111, exp 12/27, CVV ****"},
		{"security code is 1234 for 378282246310005", "security code is **** for ****0005"},
		{"PIN 1234, card 4111111111111111", "PIN ****, card ****1111"},
		{"cvv: 123", "cvv: ****"}, {"CVC2=123", "CVC2=****"}, {"the cvv is 123", "the cvv is ****"}, {`{"cvc":"123"}`, `{"cvc":"****"}`}, {"pin=1234", "pin=****"},
		{"pin the tab 1234", "pin the tab 1234"}, {"code 123 in aisle 5", "code 123 in aisle 5"},
		{"%B4111111111111111^DOE/JANE^27121011234567890?", "****"},
		{";4111111111111111=27121011234567890?", "****"},
		{"57: 4111111111111111D27121011234567890F", "57: ****"},
		{";9999999999999999=27121011234567890?", "****"},
	} {
		if got := masked(c.text); got != c.want {
			t.Errorf("%q became %q, not %q", c.text, got, c.want)
		}
	}
}
