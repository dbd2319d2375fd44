package policy

// Action is what is done with a value.
type Action string

// The actions. Mark and Keep change nothing.
const (
	// Keep leaves a value as it is, also where a detector finds something.
	Keep Action = "keep"
	// Mark leaves it and notes what it is.
	Mark Action = "mark"
	// Mask puts "****" in its place, of a card number followed by the last four
	// digits.
	Mask Action = "mask"
	// Drop removes the member; of an array's element null remains.
	Drop Action = "drop"
	// Hash puts a keyed hash in its place (Tokens).
	Hash Action = "hash"
	// Pseudonymise is Hash, and what it stands for is kept in the identity store.
	Pseudonymise Action = "pseudonymise"
	// Seal encrypts it for the entry's data subjects, where the trail seals
	// (profiles gdpr and hipaa, or --encrypt); elsewhere the policy is refused.
	Seal Action = "seal"
	// Refuse refuses the event. Automatic capture keeps the fact and drops the
	// value.
	Refuse Action = "refuse"
)

// Config is a policy as it is written down: the section policy of the
// configuration file has these members under their JSON names. The zero Config
// is the default policy.
type Config struct {
	// Profile adds the rules of gdpr, hipaa or pci behind one's own.
	Profile string `json:"profile,omitempty"`
	// Actions says what is done with what the detectors find: by class (card,
	// card_security, secret, personal) or by a detector's name, which wins.
	Actions map[string]Action `json:"actions,omitempty"`
	// Detectors are one's own.
	Detectors []Detector `json:"detectors,omitempty"`
	// Fields are rules by path. The first that matches a value decides, before
	// any detector.
	Fields []Field `json:"fields,omitempty"`
	// Only are lists of what is kept, everything else is dropped.
	Only []Only `json:"only,omitempty"`
	// Tools says which accesses are to health or card data, and of whom.
	Tools []Tool `json:"tools,omitempty"`
	// Purposes are what data may be processed for.
	Purposes *Purposes `json:"purposes,omitempty"`
	// Duties are legal duties to keep what entries hold: until one ends, a person's
	// fields in them are not erased.
	Duties []Duty `json:"duties,omitempty"`
}

// Duty is a legal duty to keep the content of the entries that it matches.
type Duty struct {
	When
	// Days after an entry was recorded in which it is not erased, at least 1.
	Days int `json:"days"`
	// Basis is the law, as people are told: "HGB §257".
	Basis string `json:"basis"`
}

// When says which events a rule is for: each list that is not empty must have a
// pattern that matches. A * in a pattern stands for any text.
type When struct {
	EventTypes []string `json:"event_types,omitempty"`
	Agents     []string `json:"agents,omitempty"`
	// Tools are names of tools: what follows "tool_use:" in the action.
	Tools []string `json:"tools,omitempty"`
	// Servers are MCP servers: metadata.mcp_server, or the second part of a
	// tool's name of the form mcp__SERVER__TOOL.
	Servers []string `json:"servers,omitempty"`
}

// Detector is one of one's own.
type Detector struct {
	Name string `json:"name"`
	// Class is card, card_security, secret or personal.
	Class string `json:"class"`
	// Pattern is a regular expression (RE2); its first group is what is found,
	// where it has one.
	Pattern string `json:"pattern,omitempty"`
	// Names are member names whose values are what is found.
	Names []string `json:"names,omitempty"`
}

// Field is a rule for the values at a path.
type Field struct {
	// Path is a JSON pointer (RFC 6901) into the entry. * stands for one name or
	// index, ** for any number of them.
	Path   string `json:"path"`
	Action Action `json:"action"`
	When
}

// Only lists what is kept of the members that its paths begin with, such as
// inputs in /inputs/query: everything else below them is dropped.
type Only struct {
	Paths []string `json:"paths"`
	When
}

// Tool makes the events that it matches accesses to health or card data.
type Tool struct {
	When
	// Has further asks that one of these pointers leads to a value.
	Has []string `json:"has,omitempty"`
	// Files further asks that a file which the event names (in /inputs/path,
	// file_path, file, filename or uri) matches one of these patterns.
	Files []string `json:"files,omitempty"`

	// PHI makes the entry a PHI_ACCESS, CHD a CHD_ACCESS.
	PHI bool `json:"phi,omitempty"`
	CHD bool `json:"chd,omitempty"`
	// Resource is what was acted on, where the event does not say it itself.
	Resource *Resource `json:"resource,omitempty"`
	// Subjects are pointers to who else the entry is about; policy.subjects names
	// those that lead to a value.
	Subjects []string `json:"subjects,omitempty"`
	// Reason is why the record is accessed, where metadata.access_reason does not
	// say it: a pointer if it begins with /, else text.
	Reason string `json:"reason,omitempty"`
}

// Resource is where an event says what was acted on.
type Resource struct {
	// Type is what it is, such as patient.
	Type string `json:"type"`
	// ID are pointers to its identifier; the first that leads to a string or
	// number counts.
	ID []string `json:"id"`
	// Pattern is a regular expression (RE2) for where the identifier is a part of
	// the value, as in a URL: its first group, else all that it matches. A value
	// that it does not match is none.
	Pattern string `json:"pattern,omitempty"`
}

// Purposes are what data may be processed for.
type Purposes struct {
	Declared []string `json:"declared"`
	// Otherwise is what becomes of an event without a declared purpose: refuse
	// or flag, which is what happens where it is empty.
	Otherwise string `json:"otherwise,omitempty"`
	When
}
