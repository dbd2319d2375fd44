package access

import (
	"errors"
	"testing"
)

// Deny is the default; roles that nobody allowed do not count; limits do.
func TestDecide(t *testing.T) {
	c := &Config{Enabled: true, AllowedRoles: []string{"auditor", "desk", "agent_developer"},
		Roles:  map[string]Role{"desk": {Permissions: []Permission{Read}, Agents: []string{"claims-*"}, EventTypes: []string{"TOOL_USE"}}},
		Users:  map[string][]string{"alice": {"auditor"}, "bob": {"desk", "security_admin"}},
		Groups: map[string][]string{"gid:7": {"agent_developer"}}, Agents: map[string][]string{"dora": {"qa-*"}}}
	if err := c.Check(); err != nil {
		t.Fatal(err)
	}
	for name, x := range map[string]struct {
		p       Principal
		want    Permission
		ok, all bool
		agent   string
		shown   bool
		masked  bool
	}{
		"nobody":              {Principal{}, Read, false, false, "", false, false},
		"an auditor":          {Principal{Names: []string{"alice"}}, Read, true, true, "x", true, false},
		"who erases":          {Principal{Names: []string{"alice"}}, Erase, false, false, "", false, false},
		"a role not allowed":  {Principal{Names: []string{"bob"}}, Keys, false, false, "", false, false},
		"within the limit":    {Principal{Names: []string{"bob"}}, Read, true, false, "claims-1", true, false},
		"outside":             {Principal{Names: []string{"bob"}}, Read, true, false, "other", false, false},
		"by group, own agent": {Principal{Names: []string{"dora"}, Groups: []string{"gid:7"}}, Read, true, false, "qa-1", true, true},
		"another's agent":     {Principal{Names: []string{"dora"}, Groups: []string{"gid:7"}}, Read, true, false, "claims-1", false, false},
		"no own agents":       {Principal{Names: []string{"eve"}, Groups: []string{"gid:7"}}, Read, true, false, "qa-1", false, false},
		"vouched for":         {Principal{Names: []string{"z"}, Roles: []string{"auditor"}}, Read, true, true, "x", true, false},
	} {
		g, err := c.Decide(x.p, x.want)
		if (err == nil) != x.ok || err != nil && !errors.Is(err, ErrDenied) || g.Unlimited() != x.all {
			t.Errorf("%s: %v %+v", name, err, g)
			continue
		}
		if shown, masked, _ := g.Sees(x.agent, "TOOL_USE"); shown != x.shown || masked != x.masked {
			t.Errorf("%s: shown %v, masked %v", name, shown, masked)
		}
	}
	if shown, _, _ := (Grant{Full: []Limit{{EventTypes: []string{"TOOL_USE"}}}}).Sees("a", "LLM_CALL"); shown {
		t.Error("another type of event is shown")
	}
}

func TestCheck(t *testing.T) {
	for name, c := range map[string]Config{
		"unknown role":       {AllowedRoles: []string{"boss"}},
		"unknown of a user":  {Users: map[string][]string{"a": {"boss"}}},
		"unknown of a group": {Groups: map[string][]string{"a": {"boss"}}},
		"a name taken":       {Roles: map[string]Role{"auditor": {Permissions: []Permission{Erase}}}},
		"may do nothing":     {Roles: map[string]Role{"x": {}}},
		"no permission":      {Roles: map[string]Role{"x": {Permissions: []Permission{"all"}}}},
		"no pointer":         {Roles: map[string]Role{"x": {Permissions: []Permission{Masked}, Fields: []string{"inputs"}}}},
	} {
		if c.Check() == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// Patterns take any text in linear time, and match as a slow reading of them does.
func FuzzGlob(f *testing.F) {
	for _, s := range [][2]string{{"*", ""}, {"a*b", "ab"}, {"a*b*c", "axbxc"}, {"a", "a"}, {"**", "x"}, {"a*a", "a"}} {
		f.Add(s[0], s[1])
	}
	var slow func(p, s string) bool
	slow = func(p, s string) bool {
		switch {
		case p == "":
			return s == ""
		case p[0] == '*':
			return slow(p[1:], s) || s != "" && slow(p, s[1:])
		}
		return s != "" && p[0] == s[0] && slow(p[1:], s[1:])
	}
	f.Fuzz(func(t *testing.T, p, s string) {
		if len(p) > 12 || len(s) > 12 {
			return
		}
		if glob(p, s) != slow(p, s) {
			t.Errorf("%q, %q", p, s)
		}
	})
}
