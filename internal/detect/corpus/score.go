package corpus

import "strings"

// Score counts what was found of what is labelled.
type Score struct {
	Found  int // labelled, and found entirely
	Missed int // labelled, not found or not entirely
	Wrong  int // found, not labelled
}

// Recall is the share of the labelled that was found, 1 where nothing is.
func (s Score) Recall() float64 { return share(s.Found, s.Missed) }

// Precision is the share of what was found that is labelled.
func (s Score) Precision() float64 { return share(s.Found, s.Wrong) }

func share(a, b int) float64 {
	if a+b == 0 {
		return 1
	}
	return float64(a) / float64(a+b)
}

// Spans scores cases with labelled ranges, by rule. Rules that are labelled
// nowhere in them are left out.
func Spans(cases []Case, find func(text string) []Span) map[string]Score {
	scores := map[string]Score{}
	for _, c := range cases {
		for _, w := range c.Want {
			scores[w.Rule] = Score{}
		}
	}
	for _, c := range cases {
		found := find(c.Text)
		for _, w := range c.Want {
			s := scores[w.Rule]
			hit := false
			for _, f := range found {
				hit = hit || f.Rule == w.Rule && f.Start <= w.Start && f.End >= w.End
			}
			if hit {
				s.Found++
			} else {
				s.Missed++
			}
			scores[w.Rule] = s
		}
		for _, f := range found {
			s, ok := scores[f.Rule]
			if !ok {
				continue
			}
			hit := false
			for _, w := range c.Want {
				hit = hit || f.Rule == w.Rule && f.Start < w.End && f.End > w.Start
			}
			if !hit {
				s.Wrong++
				scores[f.Rule] = s
			}
		}
	}
	return scores
}

// Counts scores cases of which only the number of findings is known, by key.
func Counts(cases []Case, key func(Case) string, find func(c Case) int) map[string]Score {
	scores := map[string]Score{}
	for _, c := range cases {
		n := find(c)
		s := scores[key(c)]
		s.Found += min(n, c.Count)
		s.Missed += max(0, c.Count-n)
		s.Wrong += max(0, n-c.Count)
		scores[key(c)] = s
	}
	return scores
}

// families are gitleaks' rules by what they look for, first match first.
var families = []struct{ family, begins string }{
	{"private keys", "private-key"}, {"jwt", "jwt"}, {"cloud", "aws azure gcp alibaba databricks heroku flyio hashicorp openshift scalingo vault pulumi digitalocean planetscale yandex"},
	{"code hosts", "github gitlab bitbucket atlassian artifactory sourcegraph octopus prefect"}, {"chat", "slack discord telegram microsoft-teams"},
	{"model providers", "openai anthropic huggingface cohere perplexity privateai"}, {"payment", "stripe square easypost flutterwave"}, {"curl", "curl"},
}

// Family is what a gitleaks rule looks for, in the words of the table.
func Family(c Case) string {
	for _, f := range families {
		for b := range strings.FieldsSeq(f.begins) {
			if strings.HasPrefix(c.Name, b) {
				return f.family
			}
		}
	}
	return "others, by name"
}
