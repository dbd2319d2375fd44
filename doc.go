// Package audit is the audit trail of AI agents: an append-only JSONL file
// whose every line is a leaf of a signed Merkle tree.
//
//	trail, err := audit.Open("audit.jsonl", nil)
//	…
//	defer trail.Close()
//	receipt, err := trail.Record(ctx, audit.Event{
//		EventType: audit.ToolUse, AgentID: "qa-agent-001", Action: "tool_use:calculator",
//		Inputs:   audit.Of(map[string]any{"expression": "2+2"}),
//		Outputs:  audit.Raw([]byte(`{"result":4}`)),
//		Metadata: audit.Of(map[string]any{"user_id": "user123"}),
//	})
//	for e, err := range trail.Query(ctx, audit.Query{Agent: "qa-agent-001"}) {
//		…
//	}
//
// There is one way in: [Trail.Record] encodes and checks the event (package
// entry), the journal makes its line durable together with everyone else's
// who waits (internal/journal), and only then a receipt is given. Behind the
// acknowledgement the tree takes the line's digest and signs a checkpoint
// over what is on disk, within a second (internal/tree).
//
// There is one way out: [Trail.Query] streams entries; the compliance report
// and the views of the command line are made from it. Every reading is itself
// an entry. [Trail.Verify] and [Trail.Prove] work from public files alone.
//
// A Trail is safe for concurrent use. One process writes a trail at a time;
// any number reads it meanwhile (Options.ReadOnly).
package audit
