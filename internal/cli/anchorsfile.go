package cli

import (
	"time"

	"go.yaml.in/yaml/v3"

	audit "github.com/kaizen-audit/kaizen-audit"
)

// readAnchors reads section anchors: a list of witnesses and of authorities for
// timestamps (docs/anchors.md).
func (s *configScan) readAnchors(section *yaml.Node) {
	if section.Tag == "!!null" {
		return
	}
	if section.Kind != yaml.SequenceNode {
		s.fail(section, "a list (- …) is needed here")
		return
	}
	for _, item := range section.Content {
		before := len(s.wrong)
		var a audit.Anchor
		kinds := 0
		s.members(item, func(key string, at, v *yaml.Node) {
			if v.Kind != yaml.ScalarNode {
				s.fail(v, "a value is needed here")
				return
			}
			switch key {
			case "witness", "timestamp":
				kinds++
				a.URL = v.Value
			case "key":
				a.VKey = v.Value
			case "ca":
				a.CAFile = v.Value
			case "every":
				d, err := time.ParseDuration(v.Value)
				if err != nil || d <= 0 {
					s.fail(v, "must be a time such as 10s or 1h")
				}
				a.Every = d
			default:
				s.fail(at, "unknown key %q in section anchors", key)
			}
		})
		if kinds != 1 && len(s.wrong) == before {
			s.fail(item, "witness: or timestamp: is needed, and one of them only")
		}
		if len(s.wrong) > before {
			continue
		}
		if err := audit.CheckAnchor(a); err != nil {
			s.fail(item, "%v", err)
			continue
		}
		s.anchors = append(s.anchors, a)
	}
}
