// Package corpus holds the labelled texts against which the detectors are
// measured, and counts: found, missed, found wrongly. Nobody here wrote them;
// where each comes from, and its licence, is in testdata/README.md. It is for
// tests and benchmarks only.
package corpus

import (
	"bytes"
	"compress/gzip"
	"embed"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

//go:embed testdata
var files embed.FS

// Case is one text with what is in it.
type Case struct {
	Name string // of the rule, recogniser or brand that the source files it under
	Text string
	Want []Span
	// Count says that only the number of findings is known, for Want[0].Rule
	// or, where that is empty, for none.
	Count int
	Rule  string
}

// Span is a labelled range of bytes.
type Span struct {
	Start, End int
	Rule       string
}

func read(name string) []byte {
	raw, err := files.ReadFile("testdata/" + name)
	if err != nil {
		panic(err)
	}
	if !strings.HasSuffix(name, ".gz") {
		return raw
	}
	z, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		panic(err)
	}
	raw, err = io.ReadAll(z)
	if err != nil {
		panic(err)
	}
	return raw
}

// lines decodes each line of a file into a T.
func lines[T any](name string, each func(T)) {
	d := json.NewDecoder(bytes.NewReader(read(name)))
	for {
		var v T
		err := d.Decode(&v)
		if err == io.EOF {
			return
		}
		if err != nil {
			panic(fmt.Errorf("%s: %w", name, err))
		}
		each(v)
	}
}

// synthRules are the labels of presidio-research that have a rule here.
var synthRules = map[string]string{"CREDIT_CARD": "card", "EMAIL_ADDRESS": "email", "PHONE_NUMBER": "phone", "US_SSN": "us_ssn", "IBAN_CODE": "iban", "IP_ADDRESS": "ip"}

// Synth is presidio-research's 1,500 sentences.
func Synth() (cases []Case) {
	type line struct {
		Text  string
		Spans []struct {
			Type       string
			Start, End int // in characters
		}
	}
	lines("presidio-research-synth-v2.jsonl.gz", func(l line) {
		c := Case{Name: "synth", Text: l.Text}
		at := make([]int, 0, len(l.Text)+1)
		for i := range l.Text {
			at = append(at, i)
		}
		at = append(at, len(l.Text))
		for _, s := range l.Spans {
			if r := synthRules[s.Type]; r != "" {
				c.Want = append(c.Want, Span{at[s.Start], at[s.End], r})
			}
		}
		cases = append(cases, c)
	})
	return cases
}

// recognisers are Presidio's that have a rule here.
var recognisers = map[string]string{"credit_card_recognizer": "card", "email_recognizer": "email", "ip_recognizer": "ip", "phone_recognizer": "phone", "us_ssn_recognizer": "us_ssn", "uk_nhs_recognizer": "nhs_number"}

// Recognisers is the published cases of Presidio's recognisers: a text and how
// many findings it should have.
func Recognisers() (cases []Case) {
	type line struct {
		Recogniser, Text string
		Expected_len     int
	}
	lines("presidio-recogniser-cases.jsonl.gz", func(l line) {
		if r := recognisers[l.Recogniser]; r != "" {
			cases = append(cases, Case{Name: l.Recogniser, Text: l.Text, Count: l.Expected_len, Rule: r})
		}
	})
	return cases
}

// nanoRules are the labels of PII-synthetic that have a rule here.
var nanoRules = map[string]string{"CREDIT_CARD": "card", "EMAIL": "email", "PHONE": "phone", "SSN": "us_ssn", "IBAN": "iban"}

// Nano is PII-synthetic's 149 business sentences, made by a model; many of its
// values are no real ones (fails its check digits, half masked).
func Nano() (cases []Case) {
	type line struct {
		Text     string
		Entities []struct{ Type, Value string }
	}
	lines("pii-synthetic-nano.jsonl.gz", func(l line) {
		c := Case{Name: "nano", Text: l.Text}
		from := map[string]int{}
		for _, e := range l.Entities {
			r := nanoRules[e.Type]
			value := strings.Trim(e.Value, "*'")
			at := strings.Index(l.Text[from[value]:], value)
			if r == "" || value == "" || at < 0 {
				continue
			}
			at += from[value]
			from[value] = at + len(value)
			c.Want = append(c.Want, Span{at, at + len(value), r})
		}
		cases = append(cases, c)
	})
	return cases
}

// Secrets is the published cases of gitleaks' rules: Count is 1 where the text
// has a secret and 0 where it has none that the rule should find.
func Secrets() (cases []Case) {
	type line struct {
		Rule, Text string
		Secret     bool
	}
	lines("gitleaks-rule-cases.jsonl.gz", func(l line) {
		c := Case{Name: l.Rule, Text: l.Text}
		if l.Secret {
			c.Count = 1
		}
		cases = append(cases, c)
	})
	return cases
}

// Cards is test card numbers of three sources; Count is 1 where the source calls
// a number valid, or Luhn does.
func Cards() (cases []Case) {
	rows, err := csv.NewReader(bytes.NewReader(read("test-cards.csv"))).ReadAll()
	if err != nil {
		panic(err)
	}
	for _, r := range rows[1:] {
		c := Case{Name: r[1], Text: r[0], Rule: "card"}
		if valid, _ := strconv.ParseBool(r[2]); valid {
			c.Count = 1
		}
		cases = append(cases, c)
	}
	return cases
}

// AgentRuns calls each with every string and number of 7,410 steps of real
// agents, with the names of the members above it. They are of no persons and
// hold no cards; what is found there is looked at one by one in
// docs/detectors.md.
func AgentRuns(each func(step int, name, text string, number bool)) (steps int) {
	d := json.NewDecoder(bytes.NewReader(read("agent-runs.jsonl.gz")))
	d.UseNumber()
	for {
		var v any
		if err := d.Decode(&v); err == io.EOF {
			return steps
		} else if err != nil {
			panic(err)
		}
		walk(steps, "", v, each)
		steps++
	}
}

func walk(step int, name string, v any, each func(step int, name, text string, number bool)) {
	switch v := v.(type) {
	case map[string]any:
		for k, v := range v {
			walk(step, k, v, each)
		}
	case []any:
		for _, v := range v {
			walk(step, name, v, each)
		}
	case string:
		each(step, name, v, false)
	case json.Number:
		each(step, name, v.String(), true)
	}
}

// Prose is n bytes of dialogues between doctors and patients with their notes.
func Prose(n int) []byte {
	text := read("mts-dialog-validation.csv.gz")
	for len(text) < n {
		text = append(text, text...)
	}
	text = text[:n]
	for !utf8.Valid(text) {
		text = text[:len(text)-1]
	}
	return text
}
