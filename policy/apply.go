package policy

import "github.com/kaizen-audit/kaizen-audit/entry"

// Tokens makes what stands for a value under a key of the trail.
type Tokens interface {
	// Token gives the keyed hash of a value; with remember the identity store
	// keeps what it stands for.
	Token(value string, remember bool) (string, error)
	// IsToken tells whether text was made by Token, so that it is not hashed
	// again.
	IsToken(text string) bool
}

// Policy is a policy in force. It is safe for concurrent use.
type Policy struct {
	config Config
}

// New makes a policy. The error is Problems.
func New(c Config) (*Policy, error) { return &Policy{config: c}, nil }

var standard, _ = New(Config{})

// Default is the policy of the zero Config.
func Default() *Policy { return standard }

// Config is what the policy was made of.
func (p *Policy) Config() Config { return p.config }

// AppendLine is entry.AppendLine of what the policy leaves of the event, which
// stays as it is.
func (p *Policy) AppendLine(dst []byte, ev *entry.Event, st *entry.Stamp, tokens Tokens) ([]byte, error) {
	return entry.AppendLine(dst, ev, st)
}
