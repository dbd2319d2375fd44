package policy

import (
	"slices"
	"strconv"
	"strings"

	"github.com/kaizen-audit/kaizen-audit/internal/detect"
)

// Info is a rule in force, for people. Its JSON shape only grows.
type Info struct {
	// Step is the part of the pipeline: tools, purposes, only, fields, detectors; and
	// duties, which stand against erasures.
	Step string `json:"step"`
	// Rule is its name, as it is noted in entries.
	Rule string `json:"rule"`
	// Action is what it does.
	Action string `json:"action"`
	// About is what it does it to.
	About string `json:"about"`
	// From is where it comes from: config, profile NAME or default.
	From string `json:"from"`
	// Path leads to it in the Config, as in Problem; nil where it is not there.
	Path []string `json:"path,omitempty"`
}

// Rules are the rules in force, in the order in which they are applied.
func (p *Policy) Rules() []Info {
	var out []Info
	for i, t := range p.tools {
		var does []string
		switch {
		case t.PHI:
			does = append(does, "PHI_ACCESS")
		case t.CHD:
			does = append(does, "CHD_ACCESS")
		}
		if t.Resource != nil {
			does = append(does, "resource "+t.Resource.Type)
		}
		if len(t.Subjects) > 0 {
			does = append(does, "subjects")
		}
		if t.Reason != "" {
			does = append(does, "reason")
		}
		about := join(append(t.When.words(), labelled("has", t.Has), labelled("files", t.Files))...)
		out = append(out, Info{"tools", t.name, strings.Join(does, ", "), about, "config", []string{"tools", strconv.Itoa(i)}})
	}
	checks := "entries of PHI_ACCESS, CHD_ACCESS, DATA_ACCESS without a user, a resource, a result or an origination"
	from := "default"
	if p.users {
		checks, from = checks+", and others without a user", "profile "+p.config.Profile
	}
	out = append(out, Info{"tools", "pci-10.2.2", "flag", checks, from, nil})
	if c := p.config.Purposes; c != nil {
		action := "flag"
		if p.uses.refuse {
			action = "refuse"
		}
		out = append(out, Info{"purposes", "purposes", action, join(append(c.When.words(), "purpose is none of "+strings.Join(c.Declared, ", "))...), "config", []string{"purposes"}})
	}
	for i, o := range p.config.Only {
		out = append(out, Info{"only", "only", "drop", join(append(o.When.words(), "all but "+strings.Join(o.Paths, ", "))...), "config", []string{"only", strconv.Itoa(i)}})
	}
	for i, f := range p.fields {
		info := Info{Step: "fields", Rule: f.name, Action: string(f.action), From: "config", Path: []string{"fields", strconv.Itoa(i)}}
		w := When{f.when.types, f.when.agents, f.when.tools, f.when.servers}
		info.About = join(append(w.words(), f.name)...)
		if i >= len(p.config.Fields) {
			info.From, info.Path = "profile "+p.config.Profile, nil
		}
		out = append(out, info)
	}
	action := func(rule string, class detect.Class, info Info) Info {
		info.Action = string(p.action(detect.Match{Rule: rule, Class: class}))
		if a, ok := p.config.Actions[rule]; ok {
			info.Action, info.From, info.Path = string(a), "config", []string{"actions", rule}
		} else if _, ok := p.config.Actions[class.String()]; ok && info.Path == nil {
			info.From, info.Path = "config", []string{"actions", class.String()}
		}
		return info
	}
	for i, d := range p.config.Detectors {
		about := join(labelled("pattern", slices.DeleteFunc([]string{d.Pattern}, func(s string) bool { return s == "" })), labelled("names", d.Names))
		out = append(out, action(d.Name, classes[d.Class], Info{"detectors", d.Name, "", about, "config", []string{"detectors", strconv.Itoa(i)}}))
	}
	for _, r := range detect.Rules() {
		out = append(out, action(r.Rule, r.Class, Info{"detectors", r.Rule, "", r.Finds, "default", nil}))
	}
	for i, d := range p.config.Duties {
		about := join(append(d.When.words(), d.Basis)...)
		out = append(out, Info{"duties", "duty", "keep " + strconv.Itoa(d.Days) + " days", about, "config", []string{"duties", strconv.Itoa(i)}})
	}
	return out
}

func labelled(name string, list []string) string {
	if len(list) == 0 {
		return ""
	}
	return name + " " + strings.Join(list, ", ")
}

func (w When) words() []string {
	return []string{labelled("event types", w.EventTypes), labelled("agents", w.Agents), labelled("tools", w.Tools), labelled("servers", w.Servers)}
}

func join(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), "; ")
}
