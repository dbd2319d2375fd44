package audit_test

import (
	"context"
	"fmt"

	audit "github.com/kaizen-audit/kaizen-audit"
)

// A person's data is made unreadable; the entries stay, and the person can check the
// certificate.
func ExampleTrail_EraseUser() {
	path, opts, done := scratch()
	defer done()
	ctx := context.Background()
	must(audit.Init(path, &audit.InitOptions{Options: *opts, Profile: "gdpr"}))
	trail := must(audit.Open(path, opts))
	defer trail.Close()
	must(trail.Record(ctx, audit.Event{
		EventType: audit.ToolUse, AgentID: "qa-agent-001", Action: "tool_use:calculator",
		Inputs: audit.Of(map[string]any{"expression": "2+2"}), Metadata: audit.Of(map[string]any{"user_id": "user123"}),
	}))

	plan := must(trail.EraseUser(ctx, "user123", &audit.EraseOptions{DryRun: true}))
	fmt.Println("covers", plan.Fields, "fields in", plan.Entries, "entry; keeps", plan.Kept.Entries)

	erased := must(trail.EraseUser(ctx, "user123", &audit.EraseOptions{Reason: "their request of 2026-05-04"}))
	for e, err := range trail.Query(ctx, audit.Query{Agent: "qa-agent-001"}) {
		fmt.Println(e.Action, e.Inputs.Text("sealed"), e.Metadata.Text("user_id"), err)
	}

	// Whoever got the certificate needs the trail's published key and a name.
	fmt.Println("a certificate:", audit.IsCertificate(erased.Certificate))
	certificate := must(audit.CheckCertificate(erased.Certificate, "user123", trail.VKey(), ""))
	fmt.Println("proved:", certificate.Index == *erased.Index)
	_, err := audit.CheckCertificate(erased.Certificate, "somebody else", trail.VKey(), "")
	fmt.Println(err)
	// Output:
	// covers 2 fields in 1 entry; keeps 0
	// tool_use:calculator erased [sealed: erased] <nil>
	// a certificate: true
	// proved: true
	// check certificate: it is about somebody else
}
