package cli

import (
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"

	audit "github.com/kaizen-audit/kaizen-audit"
)

// readAccess reads section access: each key is a member of audit.Access by its JSON
// name. A section that does not say enabled: false turns it on.
func (s *configScan) readAccess(at, section *yaml.Node) {
	c := audit.Access{Enabled: true}
	p := &policyScan{s, map[string]*yaml.Node{"": at}}
	before := len(s.wrong)
	if section.Tag != "!!null" {
		p.value(section, reflect.ValueOf(&c).Elem(), "")
	}
	if len(s.wrong) > before {
		return
	}
	if err := c.Check(); err != nil {
		path, _, _ := strings.Cut(err.Error(), ": ")
		where := p.place(strings.Split(path, "."))
		s.wrong = append(s.wrong, configProblem{Line: where.Line, Column: where.Column, Problem: "access." + err.Error()})
		return
	}
	s.access = &c
}
