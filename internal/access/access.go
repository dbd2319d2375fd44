// Package access decides who may do what with a trail: which roles there are, what
// each may do, and whom a configuration gives them. Deny is the default of every
// question. It does no I/O and records nothing.
package access

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Permission is something that a role may do.
type Permission string

// The permissions.
const (
	Read   Permission = "read"        // read entries, reports and proofs
	Masked Permission = "read_masked" // read entries without what they hold of anybody
	Export Permission = "export"      // give out a person's data, or one field
	Erase  Permission = "erase"       // erase a person's data
	Reveal Permission = "reveal"      // turn a pseudonym back
	Keys   Permission = "manage_keys" // rotate, back up and restore keys
	Manage Permission = "manage"      // retention, holds, pruning, archive
	None   Permission = ""            // what needs no role
)

var permissions = []Permission{Read, Masked, Export, Erase, Reveal, Keys, Manage}

// Role is what a role may do, and with which entries.
type Role struct {
	Permissions []Permission `json:"permissions"`
	// Agents and EventTypes limit what is read: entries of these, a * standing for
	// any text. Empty is no limit.
	Agents     []string `json:"agents,omitempty"`
	EventTypes []string `json:"event_types,omitempty"`
	// OwnAgents limits it to the principal's own agents.
	OwnAgents bool `json:"own_agents,omitempty"`
	// Fields are shown although the rest is masked: /inputs, /outputs, /error,
	// /authority, /purpose, /resource/id, or a member of metadata.
	Fields []string `json:"fields,omitempty"`
}

func (r Role) may(p Permission) bool { return slices.Contains(r.Permissions, p) }

// BuiltIn are the roles that there always are.
var BuiltIn = map[string]Role{
	"auditor":            {Permissions: []Permission{Read}},
	"compliance_officer": {Permissions: []Permission{Read, Export, Manage}},
	"security_admin":     {Permissions: []Permission{Read, Keys, Manage}},
	"privacy_officer":    {Permissions: []Permission{Export, Erase, Reveal}},
	"agent_developer":    {Permissions: []Permission{Masked}, OwnAgents: true},
}

// DefaultAllowed are the roles that count where a configuration names none.
var DefaultAllowed = []string{"auditor", "compliance_officer", "security_admin"}

// Config is who may do what. Its JSON names are the keys of section access.
type Config struct {
	// Enabled says that reading needs a role; false records that it does not any
	// more.
	Enabled bool `json:"enabled"`
	// AllowedRoles are the roles that count; empty means DefaultAllowed.
	AllowedRoles []string `json:"allowed_roles,omitempty"`
	// Roles are one's own, by name.
	Roles map[string]Role `json:"roles,omitempty"`
	// Users and Groups give roles to users and groups of the operating system, by
	// name or as uid:1000 and gid:100.
	Users  map[string][]string `json:"users,omitempty"`
	Groups map[string][]string `json:"groups,omitempty"`
	// Agents are the own agents of a user, for roles with own_agents.
	Agents map[string][]string `json:"agents,omitempty"`
}

// Check says what is wrong with a configuration, with the path to it.
func (c *Config) Check() error {
	known := func(path, name string) error {
		if _, ok := c.role(name); !ok {
			return fmt.Errorf("%s: there is no role %q; roles are %s, and those of roles", path, name, strings.Join(slices.Sorted(maps.Keys(BuiltIn)), ", "))
		}
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(c.Roles)) {
		r := c.Roles[name]
		path := "roles." + name
		if _, there := BuiltIn[name]; there || name == "" {
			return fmt.Errorf("%s: this name is taken", path)
		}
		if len(r.Permissions) == 0 {
			return fmt.Errorf("%s: it may do nothing: permissions are missing", path)
		}
		for _, p := range r.Permissions {
			if !slices.Contains(permissions, p) {
				return fmt.Errorf("%s.permissions: there is no permission %q", path, p)
			}
		}
		for _, f := range r.Fields {
			if !strings.HasPrefix(f, "/") {
				return fmt.Errorf("%s.fields: %q is no JSON pointer", path, f)
			}
		}
	}
	for i, name := range c.AllowedRoles {
		if err := known(fmt.Sprintf("allowed_roles.%d", i), name); err != nil {
			return err
		}
	}
	for _, of := range []struct {
		name string
		list map[string][]string
	}{{"users", c.Users}, {"groups", c.Groups}} {
		for _, who := range slices.Sorted(maps.Keys(of.list)) {
			for _, name := range of.list[who] {
				if err := known(of.name+"."+who, name); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (c *Config) role(name string) (Role, bool) {
	if r, ok := BuiltIn[name]; ok {
		return r, true
	}
	r, ok := c.Roles[name]
	return r, ok
}

// Allowed are the roles that count.
func (c *Config) Allowed() []string {
	if len(c.AllowedRoles) > 0 {
		return c.AllowedRoles
	}
	return DefaultAllowed
}

// Principal is who asks.
type Principal struct {
	// Names are what the configuration may call it: a user's name, uid:1000.
	Names []string
	// Groups likewise.
	Groups []string
	// Roles it has by whoever vouches for it, beside those of the configuration.
	Roles []string
	// Agents are its own, beside those of the configuration.
	Agents []string
}

// Grant is what a principal may see.
type Grant struct {
	// Full lists limits under which entries are shown whole, Masked those under which
	// they are shown masked. An entry is shown by the first that it fits, whole ones
	// first.
	Full, Masked []Limit
}

// Limit is which entries, and which fields of those that are masked.
type Limit struct {
	Agents, EventTypes []string // nil: all
	Own                []string // own agents; nil: all
	Fields             []string
}

// ErrDenied: the principal has no role that may do it.
var ErrDenied = errors.New("denied")

// rolesOf are the roles of a principal that count.
func (c *Config) rolesOf(p Principal) (names []string) {
	add := func(list []string) {
		for _, name := range list {
			if slices.Contains(c.Allowed(), name) && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	add(p.Roles)
	for _, n := range p.Names {
		add(c.Users[n])
	}
	for _, g := range p.Groups {
		add(c.Groups[g])
	}
	return names
}

// Decide says whether a principal may do something, and for Read what it sees.
func (c *Config) Decide(p Principal, want Permission) (Grant, error) {
	var g Grant
	own := slices.Clone(p.Agents)
	for _, n := range p.Names {
		own = append(own, c.Agents[n]...)
	}
	if own == nil {
		own = []string{}
	}
	ok := false
	for _, name := range c.rolesOf(p) {
		r, known := c.role(name)
		if !known {
			continue
		}
		l := Limit{Agents: r.Agents, EventTypes: r.EventTypes, Fields: r.Fields}
		if r.OwnAgents {
			l.Own = own
		}
		switch {
		case r.may(want):
			ok = true
			g.Full = append(g.Full, l)
		case want == Read && r.may(Masked):
			ok = true
			g.Masked = append(g.Masked, l)
		}
	}
	if !ok {
		return Grant{}, ErrDenied
	}
	return g, nil
}

// Unlimited tells whether the grant shows all entries whole.
func (g Grant) Unlimited() bool {
	return slices.ContainsFunc(g.Full, func(l Limit) bool {
		return len(l.Agents) == 0 && len(l.EventTypes) == 0 && l.Own == nil
	})
}

// Sees says whether an entry is shown, and if masked, which fields are.
func (g Grant) Sees(agent, eventType string) (shown, masked bool, fields []string) {
	for _, l := range g.Full {
		if l.fits(agent, eventType) {
			return true, false, nil
		}
	}
	for _, l := range g.Masked {
		if l.fits(agent, eventType) {
			shown, masked, fields = true, true, append(fields, l.Fields...)
		}
	}
	return shown, masked, fields
}

func (l Limit) fits(agent, eventType string) bool {
	return matches(l.Agents, agent) && matches(l.EventTypes, eventType) && (l.Own == nil || len(l.Own) > 0 && matches(l.Own, agent))
}

// matches tells whether text fits one of the patterns, or there are none.
func matches(patterns []string, text string) bool {
	return len(patterns) == 0 || slices.ContainsFunc(patterns, func(p string) bool { return glob(p, text) })
}

// glob matches a pattern in which * stands for any text.
func glob(pattern, text string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == text
	}
	if !strings.HasPrefix(text, parts[0]) {
		return false
	}
	text = text[len(parts[0]):]
	for _, p := range parts[1 : len(parts)-1] {
		i := strings.Index(text, p)
		if i < 0 {
			return false
		}
		text = text[i+len(p):]
	}
	return strings.HasSuffix(text, parts[len(parts)-1])
}
