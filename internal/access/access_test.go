package access

import (
	"encoding/json"
	"errors"
	"slices"
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

// Whatever a configuration says: one that passes the check gives nothing to whom it
// names nowhere, nothing by a role that it does not allow, and decides the same when it
// is read again.
func FuzzConfig(f *testing.F) {
	f.Add(`{"enabled":true}`, "alice")
	f.Add(`{"enabled":true,"allowed_roles":["desk"],"roles":{"desk":{"permissions":["read_masked"],"agents":["a*"],"fields":["/inputs"]}},"users":{"alice":["desk"]},"agents":{"alice":["qa-*"]}}`, "alice")
	f.Add(`{"enabled":true,"allowed_roles":["auditor"],"users":{"alice":["security_admin"]},"groups":{"dpo":["privacy_officer"]}}`, "alice")
	f.Add(`{"roles":{"":{}},"users":{"":["auditor"]}}`, "")
	f.Fuzz(func(t *testing.T, text, who string) {
		var c, again Config
		if json.Unmarshal([]byte(text), &c) != nil || c.Check() != nil {
			return
		}
		stored, err := json.Marshal(c)
		if err != nil || json.Unmarshal(stored, &again) != nil || again.Check() != nil {
			t.Fatalf("%s is not read again as %s: %v", text, stored, err)
		}
		for _, want := range permissions {
			if _, err := c.Decide(Principal{}, want); !errors.Is(err, ErrDenied) {
				t.Errorf("nobody may %s", want)
			}
			named := Principal{Names: []string{who}, Groups: []string{who}}
			g, err := c.Decide(named, want)
			h, errAgain := again.Decide(named, want)
			if (err == nil) != (errAgain == nil) || g.Unlimited() != h.Unlimited() {
				t.Errorf("%s decides otherwise when it is read again", text)
			}
			if err != nil {
				continue
			}
			if len(c.Users[who])+len(c.Groups[who]) == 0 {
				t.Errorf("%q has no role, and may %s", who, want)
			}
			allowed := false
			for _, name := range append(c.Users[who], c.Groups[who]...) {
				r, _ := c.role(name)
				allowed = allowed || slices.Contains(c.Allowed(), name) && (r.may(want) || want == Read && r.may(Masked))
			}
			if !allowed {
				t.Errorf("%q may %s by no role that is allowed", who, want)
			}
		}
	})
}
