package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/kaizen-audit/kaizen-audit/entry"
	"github.com/kaizen-audit/kaizen-audit/internal/detect"
)

// Policy is a policy in force. It is safe for concurrent use.
type Policy struct {
	config Config
	set    *detect.Set
	byRule map[string]Action
	class  [detect.Personal + 1]Action
	fields []field
	only   []only
	tools  []tool
	uses   *purposes
	duties []duty
	cards  bool // card numbers are masked also where detectors leave things alone
	users  bool // every event needs a user
	tokens bool

	names, actions known // in which there is nothing
}

type field struct {
	path   path
	action Action
	when   when
	name   string // as it is noted
	from   string // for Explain
}

type only struct {
	paths []path
	when  when
}

type tool struct {
	Tool
	when  when
	has   [][]string
	files []string
	id    [][]string
	part  *regexp.Regexp // of the identifier; nil: all of it
	about [][]string     // subjects
	name  string
}

type purposes struct {
	declared map[string]bool
	refuse   bool
	when     when
}

// Problem is what is wrong in a Config. It holds no value of it but the words
// that there are.
type Problem struct {
	// Path leads to it: "fields", "0", "action".
	Path []string
	Text string
}

func (p Problem) Error() string { return strings.Join(p.Path, ".") + ": " + p.Text }

// Problems is everything that is wrong in a Config, in its order.
type Problems []Problem

func (p Problems) Error() string {
	if len(p) == 1 {
		return p[0].Error()
	}
	return fmt.Sprintf("%s (and %d more)", p[0].Error(), len(p)-1)
}

// Unwrap gives the problems.
func (p Problems) Unwrap() []error {
	var errs []error
	for _, e := range p {
		errs = append(errs, e)
	}
	return errs
}

// Profiles are the names that Config.Profile may have.
var Profiles = []string{"plain", "pci", "gdpr", "hipaa"}

var classes = map[string]detect.Class{
	"card": detect.Card, "card_security": detect.CardSecurity, "secret": detect.Secret, "personal": detect.Personal,
}

// New makes a policy. The error is Problems.
func New(c Config) (*Policy, error) {
	m := maker{p: &Policy{config: c, byRule: map[string]Action{}}}
	p := m.p
	p.class[detect.Card], p.class[detect.CardSecurity], p.class[detect.Secret], p.class[detect.Personal] = Mask, Drop, Mask, Mark
	profile, known := profiles[c.Profile]
	if !known {
		m.fail("must be plain, pci, gdpr or hipaa", "profile")
	}
	p.cards, p.users = profile.cards, profile.users
	own := map[string]bool{}
	var custom []detect.Custom
	for i, d := range c.Detectors {
		at := []string{"detectors", strconv.Itoa(i)}
		class, ok := classes[d.Class]
		switch {
		case !validName(d.Name):
			m.fail("must be a short name of lower-case letters, digits, - and _", append(at, "name")...)
		case own[d.Name] || slices.ContainsFunc(detect.Rules(), func(r detect.Info) bool { return r.Rule == d.Name }):
			m.fail("is the name of another detector", append(at, "name")...)
		case !ok:
			m.fail("must be card, card_security, secret or personal", append(at, "class")...)
		case d.Pattern == "" && len(d.Names) == 0:
			m.fail("needs a pattern or names", at...)
		default:
			custom = append(custom, detect.Custom{Rule: d.Name, Class: class, Pattern: d.Pattern, Names: d.Names})
			if _, err := detect.New(detect.Options{Custom: custom[len(custom)-1:]}); err != nil {
				m.fail("is no regular expression of RE2, or one that finds what is empty", append(at, "pattern")...)
				custom = custom[:len(custom)-1]
			}
		}
		own[d.Name] = true
	}
	var off []string
	for _, name := range slices.Sorted(maps.Keys(c.Actions)) {
		action := c.Actions[name]
		at := []string{"actions", name}
		class, isClass := classes[name]
		if isClass && action == Keep {
			m.fail("a class can't be kept whole; name its detectors", at...)
			continue
		}
		if !m.action(action, at...) {
			continue
		}
		switch {
		case class == detect.CardSecurity && (action == Seal || action == Mark || action == Pseudonymise || action == Hash):
			m.fail("what belongs to a card is dropped, masked or refused (PCI DSS 3.3.1)", at...)
		case isClass:
			p.class[class] = action
		case own[name]:
			p.byRule[name] = action
		case !slices.ContainsFunc(detect.Rules(), func(r detect.Info) bool { return r.Rule == name }):
			m.fail("is no class and no detector", at...)
		case action == Keep:
			off = append(off, name)
		default:
			p.byRule[name] = action
		}
	}
	var err error
	if p.set, err = detect.New(detect.Options{Off: off, Custom: custom}); err != nil {
		m.fail(err.Error(), "detectors")
	}
	for i, f := range c.Fields {
		m.field(f, "policy", "fields", strconv.Itoa(i))
	}
	for _, f := range profile.fields {
		m.field(f, "profile "+c.Profile, "profile")
	}
	for i, o := range c.Only {
		m.only(o, "only", strconv.Itoa(i))
	}
	for i, t := range c.Tools {
		m.tool(t, "tools", strconv.Itoa(i))
	}
	m.purposes()
	for i, d := range c.Duties {
		m.duty(d, "duties", strconv.Itoa(i))
	}
	if len(m.problems) > 0 {
		return nil, m.problems
	}
	p.tokens = p.has(Hash) || p.has(Pseudonymise)
	return p, nil
}

var standard = func() *Policy {
	p, err := New(Config{})
	if err != nil {
		panic(err) // a fault of ours, at the start
	}
	return p
}()

// Default is the policy of the zero Config.
func Default() *Policy { return standard }

// Config is what the policy was made of.
func (p *Policy) Config() Config { return p.config }

// Seals tells whether a rule seals, which a trail without keys for it can't.
func (p *Policy) Seals() bool { return p.has(Seal) }

// WithProfile is the policy with the rules of the profile of the trail that it is
// for. The error says that it has those of another one.
func (p *Policy) WithProfile(profile string) (*Policy, error) {
	was := p.config.Profile
	switch {
	case was == profile || profile == "" || profile == "plain":
		return p, nil
	case was != "" && was != "plain":
		return nil, fmt.Errorf("its profile is %s, and the trail's is %s", was, profile)
	}
	c := p.config
	c.Profile = profile
	return New(c)
}

// NeedsTokens tells whether a rule hashes or pseudonymises.
func (p *Policy) NeedsTokens() bool { return p.tokens }

func (p *Policy) has(action Action) bool {
	is := func(a Action) bool { return a == action }
	return slices.ContainsFunc(p.fields, func(f field) bool { return is(f.action) }) || slices.ContainsFunc(slices.Collect(maps.Values(p.config.Actions)), is)
}

// Digest identifies the policy: SHA-256 over its Config as JSON, as lower-case
// hex.
func (p *Policy) Digest() string {
	text, err := json.Marshal(p.config)
	if err != nil {
		panic(err) // strings, lists and maps of them
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// action is what is done with a finding.
func (p *Policy) action(m detect.Match) Action {
	if len(p.byRule) > 0 {
		if a, ok := p.byRule[m.Rule]; ok {
			return a
		}
	}
	return p.class[m.Class]
}

// maker makes a policy of a Config.
type maker struct {
	p        *Policy
	problems Problems
}

func (m *maker) fail(text string, at ...string) {
	m.problems = append(m.problems, Problem{slices.Clone(at), text})
}

func (m *maker) action(a Action, at ...string) bool {
	switch a {
	case Keep, Mark, Mask, Drop, Hash, Pseudonymise, Seal, Refuse:
		return true
	}
	m.fail("must be keep, mark, mask, drop, hash, pseudonymise, seal or refuse", at...)
	return false
}

func validName(s string) bool {
	for _, c := range s {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return s != "" && len(s) <= 64
}

// changeable are the members that a rule may change.
var changeable = map[string]bool{
	"agent_id": true, "trace_id": true, "action": true, "inputs": true, "outputs": true, "error": true, "metadata": true,
	"span_id": true, "parent_span_id": true, "resource": true, "outcome": true, "authority": true, "purpose": true,
}

func (m *maker) field(f Field, from string, at ...string) {
	ok := m.action(f.Action, append(at, "action")...)
	pt, fine := m.path(f.Path, append(at, "path")...)
	if fine && f.Action == Seal && !strings.Contains(pt[0], "*") && !canSeal(pt[0], len(pt)) {
		m.fail("leads to what can't be sealed: order, search and verification need it", append(at, "path")...)
		fine = false
	}
	if ok && fine {
		m.p.fields = append(m.p.fields, field{pt, f.Action, m.when(f.When, at...), f.Path, from})
	}
}

func (m *maker) path(s string, at ...string) (path, bool) {
	pt, ok := parsePath(s)
	switch {
	case !ok:
		m.fail("must be a JSON pointer such as /inputs/ssn or /outputs/**/email", at...)
	case !strings.Contains(pt[0], "*") && !changeable[pt[0]]:
		m.fail("leads to what no rule can change", at...)
		ok = false
	}
	return pt, ok
}

func (m *maker) only(o Only, at ...string) {
	if len(o.Paths) == 0 {
		m.fail("needs paths", at...)
		return
	}
	rule := only{when: m.when(o.When, at...)}
	for i, s := range o.Paths {
		pt, ok := m.path(s, append(at, "paths", strconv.Itoa(i))...)
		if ok && (strings.Contains(pt[0], "*") || pt[0] == "agent_id" || pt[0] == "trace_id" || pt[0] == "action") {
			m.fail("must begin with a member whose rest can be dropped, such as /inputs", append(at, "paths", strconv.Itoa(i))...)
			continue
		}
		rule.paths = append(rule.paths, pt)
	}
	m.p.only = append(m.p.only, rule)
}

func (m *maker) pointers(list []string, at ...string) (out [][]string) {
	for i, s := range list {
		pt, ok := parsePath(s)
		if !ok || slices.ContainsFunc(pt, func(s string) bool { return strings.Contains(s, "*") }) {
			m.fail("must be a JSON pointer without *, such as /inputs/patient_id", append(at, strconv.Itoa(i))...)
			continue
		}
		out = append(out, pt)
	}
	return out
}

func (m *maker) tool(t Tool, at ...string) {
	rule := tool{Tool: t, when: m.when(t.When, at...), name: "tools/" + at[1], files: t.Files}
	rule.has = m.pointers(t.Has, append(at, "has")...)
	rule.about = m.pointers(t.Subjects, append(at, "subjects")...)
	if t.PHI && t.CHD {
		m.fail("phi or chd, not both", at...)
	}
	if len(t.EventTypes)+len(t.Agents)+len(t.Tools)+len(t.Servers)+len(t.Has)+len(t.Files) == 0 {
		m.fail("needs tools, servers, event_types, agents, has or files", at...)
	}
	if t.Resource != nil {
		if rule.id = m.pointers(t.Resource.ID, append(at, "resource", "id")...); len(t.Resource.ID) == 0 {
			m.fail("needs pointers", append(at, "resource", "id")...)
		}
		if t.Resource.Pattern != "" {
			var err error
			if rule.part, err = regexp.Compile(t.Resource.Pattern); err != nil {
				m.fail("is no regular expression of RE2", append(at, "resource", "pattern")...)
			}
		}
		if t.Resource.Type == "" {
			m.fail("is needed, such as patient", append(at, "resource", "type")...)
		}
	}
	if strings.HasPrefix(t.Reason, "/") {
		if _, ok := parsePath(t.Reason); !ok {
			m.fail("must be text or a JSON pointer", append(at, "reason")...)
		}
	}
	m.p.tools = append(m.p.tools, rule)
}

func (m *maker) purposes() {
	c := m.p.config.Purposes
	if c == nil {
		return
	}
	if len(c.Declared) == 0 {
		m.fail("needs at least one purpose", "purposes", "declared")
	}
	uses := &purposes{declared: map[string]bool{}, when: m.when(c.When, "purposes")}
	for _, s := range c.Declared {
		uses.declared[s] = true
	}
	switch c.Otherwise {
	case "", "flag":
	case "refuse":
		uses.refuse = true
	default:
		m.fail("must be flag or refuse", "purposes", "otherwise")
	}
	m.p.uses = uses
}

// path is a path's parts.
type path []string

func parsePath(s string) (path, bool) {
	if len(s) < 2 || s[0] != '/' || len(s) > 1024 {
		return nil, false
	}
	pt := path(strings.Split(s[1:], "/"))
	for i, part := range pt {
		for rest := part; ; {
			at := strings.IndexByte(rest, '~')
			if at < 0 {
				break
			}
			if rest = rest[at+1:]; rest == "" || rest[0] != '0' && rest[0] != '1' {
				return nil, false
			}
		}
		pt[i] = strings.ReplaceAll(strings.ReplaceAll(part, "~1", "/"), "~0", "~")
	}
	return pt, true
}

// matches tells whether the path leads to the value of these frames.
func (pt path) matches(frames []frame) bool { return pt.leads(frames, false) }

// reaches tells whether the path may lead to something below them.
func (pt path) reaches(frames []frame) bool { return pt.leads(frames, true) }

func (pt path) leads(frames []frame, below bool) bool {
	for {
		switch {
		case len(frames) == 0 && below:
			return len(pt) > 0
		case len(frames) == 0:
			for len(pt) > 0 && pt[0] == "**" {
				pt = pt[1:]
			}
			return len(pt) == 0
		case len(pt) == 0:
			return false
		case pt[0] == "**":
			if below {
				return true
			}
			for len(pt) > 1 && pt[1] == "**" {
				pt = pt[1:]
			}
			for i := range len(frames) + 1 {
				if pt[1:].leads(frames[i:], below) {
					return true
				}
			}
			return false
		}
		f := &frames[0]
		if f.name == nil {
			if pt[0] != "*" && pt[0] != strconv.Itoa(f.index) {
				return false
			}
		} else if !like(pt[0], f.name) {
			return false
		}
		pt, frames = pt[1:], frames[1:]
	}
}

// like tells whether a pattern, in which * stands for any text, matches. It takes
// len(pattern)·len(s) steps at most.
func like[T string | []byte](pattern string, s T) bool {
	p, i, star, from := 0, 0, -1, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, i
			p++
		case p < len(pattern) && pattern[p] == s[i]:
			p++
			i++
		case star >= 0:
			from++
			p, i = star+1, from
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// when says which events a rule is for.
type when struct{ types, agents, tools, servers []string }

func (m *maker) when(w When, at ...string) when {
	for name, list := range map[string][]string{"event_types": w.EventTypes, "agents": w.Agents, "tools": w.Tools, "servers": w.Servers} {
		for i, s := range list {
			if s == "" {
				m.fail("is empty", append(slices.Clone(at), name, strconv.Itoa(i))...)
			}
		}
	}
	return when{w.EventTypes, w.Agents, w.Tools, w.Servers}
}

// what is what rules ask of an event.
type what struct {
	ev            *entry.Event
	server        string
	serverIsKnown bool
}

// toolPrefix begins the action of an event of a tool.
const toolPrefix = "tool_use:"

func (is *what) tool() string {
	name, ok := strings.CutPrefix(is.ev.Action, toolPrefix)
	if !ok {
		return ""
	}
	return name
}

// mcpServer is the server of a tool, "" where there is none.
func (is *what) mcpServer() string {
	if !is.serverIsKnown {
		is.serverIsKnown = true
		if rest, ok := strings.CutPrefix(is.tool(), "mcp__"); ok {
			is.server, _, _ = strings.Cut(rest, "__")
		} else {
			is.server = is.ev.Metadata.Text("mcp_server")
		}
	}
	return is.server
}

func anyLike(patterns []string, s string) bool {
	for _, p := range patterns {
		if like(p, s) {
			return true
		}
	}
	return false
}

func (w *when) matches(is *what) bool {
	if len(w.types) > 0 && !anyLike(w.types, is.ev.EventType) || len(w.agents) > 0 && !anyLike(w.agents, is.ev.AgentID) {
		return false
	}
	if len(w.tools) > 0 && (is.tool() == "" || !anyLike(w.tools, is.tool())) {
		return false
	}
	return len(w.servers) == 0 || is.mcpServer() != "" && anyLike(w.servers, is.mcpServer())
}
