package query

import (
	"regexp"
	"strings"
	"testing"
)

// A glob matches what the regular expression of it matches.
func FuzzGlob(f *testing.F) {
	f.Add("tool_use:*", "tool_use:calculator")
	f.Add("a*b*c", "aXbYbZc")
	f.Add(`a\*b`, "a*b")
	f.Add("**", "")
	f.Fuzz(func(t *testing.T, pattern, s string) {
		if pattern == "" || len(pattern) > 100 || len(s) > 1000 {
			return
		}
		var re strings.Builder
		re.WriteString(`(?s)\A`)
		for i := 0; i < len(pattern); i++ {
			switch {
			case pattern[i] == '\\' && i+1 < len(pattern) && pattern[i+1] == '*':
				re.WriteString(`\*`)
				i++
			case pattern[i] == '*':
				re.WriteString(`.*`)
			default:
				re.WriteString(regexp.QuoteMeta(pattern[i : i+1]))
			}
		}
		re.WriteString(`\z`)
		r, err := regexp.Compile(re.String())
		if err != nil {
			return // not valid UTF-8
		}
		if got, want := newGlob(pattern).match(s), r.MatchString(s); got != want {
			t.Fatalf("%q matches %q: %v, want %v", pattern, s, got, want)
		}
		if !newGlob(Literal(s)).match(s) {
			t.Fatalf("%q does not match itself", s)
		}
	})
}
