package policy

// profiles are the rules that a profile adds behind one's own.
var profiles = map[string]struct {
	fields       []Field
	cards, users bool
}{
	"":      {},
	"plain": {},
	// Cardholder data is masked wherever it stands, and every entry must name its
	// user (PCI DSS 3.4.1, 10.2.2).
	"pci":   {cards: true, users: true},
	"gdpr":  {fields: sealing},
	"hipaa": {fields: sealing, users: true},
}

// sealing is what the profiles with subject keys seal (docs/format-sealing.md):
// all but what makes an entry findable. In an access the actor is evidence.
var sealing = []Field{
	{Path: "/metadata/environment", Action: Keep},
	{Path: "/metadata/service_name", Action: Keep},
	{Path: "/metadata/imported_from", Action: Keep},
	{Path: "/metadata/user_id", Action: Keep, When: accesses},
	{Path: "/metadata/session_id", Action: Keep, When: accesses},
	{Path: "/metadata/ip_address", Action: Keep, When: accesses},
	{Path: "/metadata/user_agent", Action: Keep, When: accesses},
	{Path: "/inputs", Action: Seal},
	{Path: "/outputs", Action: Seal},
	{Path: "/error", Action: Seal},
	{Path: "/resource/id", Action: Seal},
	{Path: "/metadata/*", Action: Seal},
}

var accesses = When{EventTypes: []string{"PHI_ACCESS", "CHD_ACCESS", "DATA_ACCESS"}}
