package policy_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/policy"
)

func mustNew(t testing.TB, c policy.Config) *policy.Policy {
	t.Helper()
	p, err := policy.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestRules: what each kind of rule does to an event, and that a second run over
// that changes nothing.
func TestRules(t *testing.T) {
	fields := func(f ...policy.Field) policy.Config { return policy.Config{Fields: f} }
	fhir := policy.Tool{When: policy.When{Tools: []string{"fhir_*"}}, PHI: true, Resource: &policy.Resource{Type: "patient", ID: []string{"/inputs/patient_id", "/inputs/body/subject"}},
		Subjects: []string{"/inputs/guardian"}, Reason: "/inputs/why"}
	for _, c := range []struct {
		name string
		c    policy.Config
		in   string
		want []string
		not  string
	}{
		{"drop a field", fields(policy.Field{Path: "/inputs/ssn", Action: policy.Drop}), `"inputs":{"a":1,"ssn":"1"}`, []string{`"inputs":{"a":1}`, `"dropped":["/inputs/ssn"]`, `"rules":{"/inputs/ssn":["/inputs/ssn"]}`}, ""},
		{"drop a container", fields(policy.Field{Path: "/inputs/p", Action: policy.Drop}), `"inputs":{"p":{"name":"x"}}`, []string{`"inputs":{}`}, "name"},
		{"an earlier rule decides", fields(policy.Field{Path: "/inputs/p/id", Action: policy.Keep}, policy.Field{Path: "/inputs/**", Action: policy.Drop}), `"inputs":{"p":{"id":1,"name":"x"},"q":[1]}`, []string{`"inputs":{"p":{"id":1}}`}, `"x"`},
		{"mask everything below", fields(policy.Field{Path: "/outputs", Action: policy.Mask}), `"outputs":{"a":"x","b":[1,true,null,{"c":"y"}]}`, []string{`"outputs":{"a":"****","b":["****","****",null,{"c":"****"}]}`}, ""},
		{"drop an element", fields(policy.Field{Path: "/inputs/l/1", Action: policy.Drop}), `"inputs":{"l":[1,2,3]}`, []string{`"l":[1,null,3]`}, ""},
		{"wildcards", fields(policy.Field{Path: "/*/rows/*/na*e", Action: policy.Mask}), `"outputs":{"rows":[{"name":"x"},{"naive":"y","n":"z"}]}`, []string{`[{"name":"****"},{"naive":"****","n":"z"}]`}, ""},
		{"in JSON in a string", fields(policy.Field{Path: "/inputs/body/name", Action: policy.Drop}), `"inputs":{"body":"{\"name\":\"x\",\"b\":1}"}`, []string{`"body":"{\"b\":1}"`, `"dropped":["/inputs/body"]`}, ""},
		{"keep against a detector", fields(policy.Field{Path: "/inputs/order", Action: policy.Keep}), `"inputs":{"order":"4111111111111111"}`, []string{`"order":"4111111111111111"`}, "masked"},
		{"mark a field", fields(policy.Field{Path: "/inputs/name", Action: policy.Mark}), `"inputs":{"name":"4111111111111111"}`, []string{`"name":"****1111"`, `"marked":["/inputs/name"]`}, ""},
		{"refuse", fields(policy.Field{Path: "/inputs/x", Action: policy.Refuse}), `"inputs":{"x":1}`, []string{"inputs: refused by policy rule /inputs/x"}, ""},
		{"no key, no hash", fields(policy.Field{Path: "/inputs/x", Action: policy.Hash}), `"inputs":{"x":1}`, []string{`"x":"****"`, `"masked"`}, ""},
		{"an id, by a rule", fields(policy.Field{Path: "/agent_id", Action: policy.Mask}, policy.Field{Path: "/metadata/user_id", Action: policy.Mask}), `"metadata":{"user_id":"u"}`, []string{`"agent_id":"****"`, `"user_id":"****"`}, ""},
		{"for a tool only", fields(policy.Field{Path: "/inputs/x", Action: policy.Drop, When: policy.When{Tools: []string{"other"}}}), `"inputs":{"x":1}`, []string{`"x":1`}, "policy"},
		{"for a type and an agent", fields(policy.Field{Path: "/inputs/x", Action: policy.Drop, When: policy.When{EventTypes: []string{"TOOL_*"}, Agents: []string{"a"}}}), `"inputs":{"x":1}`, []string{`"inputs":{}`}, ""},
		{"for a server", fields(policy.Field{Path: "/inputs/x", Action: policy.Drop, When: policy.When{Servers: []string{"crm"}}}), `"inputs":{"x":1},"metadata":{"mcp_server":"crm"}`, []string{`"inputs":{}`}, ""},
		{"drop what must be there", fields(policy.Field{Path: "/action", Action: policy.Drop}, policy.Field{Path: "/error", Action: policy.Drop}, policy.Field{Path: "/inputs", Action: policy.Drop}, policy.Field{Path: "/purpose", Action: policy.Drop}), `"error":"e","inputs":{"a":1},"purpose":"p","outcome":"o"`, []string{`"action":"****"`, `"inputs":{}`, `"error":null`, `"outcome":"o"`}, `"purpose":"p"`},
		{"only", policy.Config{Only: []policy.Only{{Paths: []string{"/inputs/q", "/inputs/deep/**/id"}}}}, `"inputs":{"q":{"z":1},"w":2,"deep":{"x":{"id":1,"n":2},"y":"no","j":"{\"id\":5,\"n\":6}"}},"outputs":{"o":1}`, []string{`"inputs":{"q":{"z":1},"deep":{"x":{"id":1},"j":"{\"id\":5}"}},"outputs":{"o":1}`}, ""},
		{"actions", policy.Config{Actions: map[string]policy.Action{"email": policy.Mask, "ip": policy.Drop}}, `"inputs":{"m":"to a@example.com","ip":"192.0.2.1"}`, []string{`"inputs":{"m":"to ****"}`, `"dropped":["/inputs/ip"]`}, ""},
		{"a detector off", policy.Config{Actions: map[string]policy.Action{"email": policy.Keep}}, `"inputs":{"m":"a@example.com"}`, []string{`"m":"a@example.com"`}, "marked"},
		{"a detector of one's own", policy.Config{Detectors: []policy.Detector{{Name: "staff", Class: "secret", Pattern: `EMP-(\d{4})`, Names: []string{"badge"}}}}, `"inputs":{"m":"by EMP-1234","badge":"9"}`, []string{`"m":"by EMP-****","badge":"****"`}, ""},
		{"PHI", policy.Config{Tools: []policy.Tool{fhir}}, `"action":"tool_use:fhir_get","inputs":{"body":"{\"subject\":\"P1\"}","guardian":"G","why":"care"},"metadata":{"user_id":"u","host":"ward-3"}`,
			[]string{`"event_type":"PHI_ACCESS"`, `"resource":{"type":"patient","id":"P1"}`, `"access_reason":"care"`, `"subjects":["/inputs/guardian"]`, `"classified":["/event_type","/resource","/metadata/access_reason"]`}, "flagged"},
		{"a patient in a URL", policy.Config{Tools: []policy.Tool{{When: policy.When{Tools: []string{"fhir_*"}}, PHI: true, Resource: &policy.Resource{Type: "patient", ID: []string{"/inputs/none", "/inputs/url"}, Pattern: `[?&]patient=(\w+)`}}}},
			`"action":"tool_use:fhir_get","inputs":{"url":"http://h/fhir/Observation?code=A1C&patient=S6227720&_format=json"}`, []string{`"resource":{"type":"patient","id":"S6227720"}`}, ""},
		{"an access of which nobody knows how it ended", policy.Config{Tools: []policy.Tool{{When: policy.When{Tools: []string{"pay"}}, CHD: true}}}, `"resource":{"id":"1"},"outcome":"unknown","metadata":{"user_id":"u","host":"till-1"}`, []string{`"flagged":["/outcome"]`}, "/resource\""},
		{"what an access lacks", policy.Config{Tools: []policy.Tool{{When: policy.When{Tools: []string{"pay"}}, CHD: true}}}, `"inputs":{}`, []string{`"event_type":"CHD_ACCESS"`, `"flagged":["/metadata/user_id","/resource","/metadata/ip_address"]`}, ""},
		{"by a file", policy.Config{Tools: []policy.Tool{{Files: []string{"/srv/ehr/*"}, PHI: true}}}, `"inputs":{"file_path":"/srv/ehr/p1.json"}`, []string{"PHI_ACCESS"}, ""},
		{"by a field", policy.Config{Tools: []policy.Tool{{Has: []string{"/inputs/mrn"}, PHI: true, Resource: &policy.Resource{Type: "patient", ID: []string{"/inputs/mrn"}}}}}, `"inputs":{"mrn":77}`, []string{`"id":"77"`}, ""},
		{"not by a file elsewhere", policy.Config{Tools: []policy.Tool{{Files: []string{"/srv/ehr/*"}, PHI: true}}}, `"inputs":{"file_path":"/srv/x"}`, []string{"TOOL_USE"}, "policy"},
		{"a card as a resource is masked", policy.Config{Tools: []policy.Tool{{Has: []string{"/inputs/pan"}, CHD: true, Resource: &policy.Resource{Type: "card", ID: []string{"/inputs/pan"}}}}}, `"inputs":{"pan":"4111111111111111"}`, []string{`"id":"****1111"`}, ""},
		{"purpose missing", policy.Config{Purposes: &policy.Purposes{Declared: []string{"care"}}}, `"inputs":{}`, []string{`"flagged":["/purpose"]`}, ""},
		{"purpose undeclared", policy.Config{Purposes: &policy.Purposes{Declared: []string{"care"}, Otherwise: "refuse"}}, `"purpose":"ads"`, []string{"purpose: refused by policy rule purposes"}, ""},
		{"purpose declared", policy.Config{Purposes: &policy.Purposes{Declared: []string{"care"}, Otherwise: "refuse"}}, `"purpose":"care"`, []string{`"purpose":"care"`}, "policy"},
		{"pci: cards everywhere", policy.Config{Profile: "pci"}, `"metadata":{"user_id":"4111111111111111"},"resource":{"id":4111111111111111}`, []string{`"user_id":"****1111"`, `"id":"****1111"`}, ""},
		{"pci: who it was", policy.Config{Profile: "pci"}, `"inputs":{}`, []string{`"flagged":["/metadata/user_id"]`}, ""},
		{"gdpr seals, and masks cards first", policy.Config{Profile: "gdpr"}, `"inputs":{"a":"4111111111111111"},"metadata":{"environment":"e","user_id":"u"}`, []string{`"a":"****1111"`, `"sealed":["/inputs","/outputs","/metadata/user_id"]`}, ""},
		{"hipaa leaves the actor of an access", policy.Config{Profile: "hipaa", Tools: []policy.Tool{fhir}}, `"action":"tool_use:fhir_x","metadata":{"user_id":"u","x":1}`, []string{`"sealed":["/inputs","/outputs","/metadata/x"]`}, ""},
	} {
		in := c.in
		if !strings.Contains(in, `"action"`) {
			in = `"action":"tool_use:pay",` + in
		}
		got := line(t, mustNew(t, c.c), in)
		for _, want := range c.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s: %s gives\n%s, want\n%s", c.name, c.in, got, want)
			}
		}
		if c.not != "" && strings.Contains(got, c.not) {
			t.Errorf("%s: %s gives\n%s, with %s", c.name, c.in, got, c.not)
		}
	}
}

func TestCaptureKeepsTheFactOfWhatIsRefused(t *testing.T) {
	p := mustNew(t, policy.Config{
		Fields:   []policy.Field{{Path: "/inputs/x", Action: policy.Refuse}, {Path: "/error", Action: policy.Refuse}},
		Purposes: &policy.Purposes{Declared: []string{"care"}, Otherwise: "refuse"}, Actions: map[string]policy.Action{"card": policy.Refuse},
	})
	ev := event(`"action":"tool_use:x","inputs":{"x":{"secret":1},"y":"4111111111111111"},"error":"e"`)
	out, err := p.AppendLine(nil, &ev, &stamp, policy.Run{KeepFact: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"inputs":{"x":{"omitted":"refused by policy","bytes":12}}`, `"error":"****"`, `"omitted":["/inputs/x"]`, `"flagged":["/purpose"]`, `"dropped":["/inputs/y"]`} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%s lacks %s", out, want)
		}
	}
	ev, err = p.Event(&ev, policy.Run{KeepFact: true})
	if err != nil {
		t.Fatal(err)
	}
	again, err := p.AppendLine(nil, &ev, &stamp, policy.Run{KeepFact: true})
	if err != nil || string(again) != string(out) {
		t.Errorf("a second time:\n%s\n%s\n%v", out, again, err)
	}
}

// tokens are recognised by their form.
type tokens struct{ remembered []string }

func (k *tokens) Token(value string, remember bool) (string, error) {
	if remember {
		k.remembered = append(k.remembered, value)
	}
	return fmt.Sprintf("stand(%d)", len(value)), nil
}
func (k *tokens) IsToken(s string) bool { return strings.HasPrefix(s, "stand(") }

func TestTokensStandForValues(t *testing.T) {
	p := mustNew(t, policy.Config{
		Fields:  []policy.Field{{Path: "/inputs/id", Action: policy.Hash}, {Path: "/metadata/user_id", Action: policy.Pseudonymise}},
		Actions: map[string]policy.Action{"email": policy.Pseudonymise},
	})
	k := &tokens{}
	ev := event(`"action":"tool_use:x","inputs":{"id":77,"to":"mail a@example.com"},"metadata":{"user_id":"jane"}`)
	first, err := p.Event(&ev, policy.Run{Tokens: k})
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.AppendLine(nil, &first, &stamp, policy.Run{Tokens: k})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"id":"stand(2)"`, `"to":"mail stand(13)"`, `"user_id":"stand(4)"`, `"hashed":["/inputs/id"],"pseudonymised":["/inputs/to","/metadata/user_id"]`} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%s lacks %s", out, want)
		}
	}
	if got := strings.Join(k.remembered, " "); got != "a@example.com jane" {
		t.Errorf("remembered: %s", got)
	}
	if !p.NeedsTokens() || policy.Default().NeedsTokens() {
		t.Error("who needs tokens")
	}
}

func TestNotesAreBounded(t *testing.T) {
	var b strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&b, `,{"mail":"a%d@example.com","n%d":"b@example.com"}`, i, i)
	}
	got := line(t, policy.Default(), `"action":"x","outputs":{"rows":[`+b.String()[1:]+`]}`)
	e, err := entry.Parse([]byte(got))
	if err != nil {
		t.Fatal(err)
	}
	notes, _ := e.Policy.AppendJSON(nil)
	if string(notes) != `{"marked":["/outputs"],"rules":{"email":["/outputs"]}}` {
		t.Errorf("%.300s", notes)
	}
	b.Reset()
	for i := range 3000 {
		fmt.Fprintf(&b, `,{"mail":"a%d@example.com"}`, i)
	}
	got = line(t, policy.Default(), `"action":"x","outputs":{"rows":[`+b.String()[1:]+`]}`)
	if !strings.HasSuffix(got, `"policy":{"marked":["/outputs/rows/*/mail"],"rules":{"email":["/outputs/rows/*/mail"]}}}`) {
		t.Errorf("%s", got[len(got)-200:])
	}
}

func TestWhatIsWrongIsNamedWithItsPlace(t *testing.T) {
	for path, c := range map[string]policy.Config{
		"profile":               {Profile: "sox"},
		"actions.nope":          {Actions: map[string]policy.Action{"nope": policy.Mask}},
		"actions.card":          {Actions: map[string]policy.Action{"card": "zap"}},
		"actions.secret":        {Actions: map[string]policy.Action{"secret": policy.Keep}},
		"actions.card_security": {Actions: map[string]policy.Action{"card_security": policy.Mark}},
		"detectors.0.class":     {Detectors: []policy.Detector{{Name: "x", Class: "y", Pattern: "z"}}},
		"detectors.0.pattern":   {Detectors: []policy.Detector{{Name: "x", Class: "secret", Pattern: "("}}},
		"detectors.0.name":      {Detectors: []policy.Detector{{Name: "email", Class: "secret", Pattern: "z"}}},
		"detectors.0":           {Detectors: []policy.Detector{{Name: "x", Class: "secret"}}},
		"fields.0.path":         {Fields: []policy.Field{{Path: "inputs", Action: policy.Drop}}},
		"fields.0.action":       {Fields: []policy.Field{{Path: "/inputs/x"}}},
		"fields.0.agents.0":     {Fields: []policy.Field{{Path: "/inputs/x", Action: policy.Drop, When: policy.When{Agents: []string{""}}}}},
		"fields.1.path":         {Fields: []policy.Field{{Path: "/inputs/x", Action: policy.Drop}, {Path: "/event_id", Action: policy.Drop}}},
		"only.0":                {Only: []policy.Only{{}}},
		"only.0.paths.0":        {Only: []policy.Only{{Paths: []string{"/agent_id"}}}},
		"tools.0":               {Tools: []policy.Tool{{PHI: true}}},
		"tools.0.has.0":         {Tools: []policy.Tool{{Has: []string{"/inputs/*"}}}},
		"tools.0.resource.id":   {Tools: []policy.Tool{{When: policy.When{Tools: []string{"x"}}, Resource: &policy.Resource{Type: "x"}}}},
		"purposes.declared":     {Purposes: &policy.Purposes{}},
		"purposes.otherwise":    {Purposes: &policy.Purposes{Declared: []string{"x"}, Otherwise: "shout"}},
	} {
		_, err := policy.New(c)
		problems, ok := errors.AsType[policy.Problems](err)
		if !ok || len(problems) != 1 || strings.Join(problems[0].Path, ".") != path {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestEveryRuleIsExplained(t *testing.T) {
	p := mustNew(t, policy.Config{
		Profile: "pci", Actions: map[string]policy.Action{"email": policy.Mask, "secret": policy.Refuse},
		Detectors: []policy.Detector{{Name: "staff", Class: "personal", Names: []string{"badge"}}},
		Fields:    []policy.Field{{Path: "/inputs/x", Action: policy.Drop}}, Only: []policy.Only{{Paths: []string{"/outputs/y"}}},
		Tools: []policy.Tool{{When: policy.When{Tools: []string{"x"}}, PHI: true}}, Purposes: &policy.Purposes{Declared: []string{"care"}},
	})
	var got []string
	for _, r := range p.Rules() {
		if r.About == "" || r.Action == "" {
			t.Errorf("%+v", r)
		}
		got = append(got, fmt.Sprint(r.Step, " ", r.Rule, " ", r.Action, " ", r.From, " ", strings.Join(r.Path, ".")))
	}
	all := strings.Join(got, "\n")
	for _, want := range []string{
		"tools tools/0 PHI_ACCESS config tools.0\ntools pci-10.2.2 flag profile pci \npurposes purposes flag config purposes\nonly only drop config only.0\nfields /inputs/x drop config fields.0\ndetectors staff mark config detectors.0\ndetectors card mask default ",
		"detectors email mask config actions.email", "detectors jwt refuse config actions.secret",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("%s\nlacks\n%s", all, want)
		}
	}
}
