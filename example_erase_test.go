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

// An erasure that a legal hold stands against waits, and is carried out when it is
// lifted; or is taken back.
func ExampleTrail_EraseDue() {
	path, opts, done := scratch()
	defer done()
	ctx := context.Background()
	must(audit.Init(path, &audit.InitOptions{Options: *opts, Profile: "gdpr"}))
	trail := must(audit.Open(path, opts))
	defer trail.Close()
	event := audit.Event{EventType: audit.ToolUse, AgentID: "qa-agent-001", Action: "tool_use:calculator", Metadata: audit.Of(map[string]any{"user_id": "user123"})}
	must(trail.Record(ctx, event))
	must(trail.AddHold(ctx, audit.HoldRequest{User: "user123", Reason: "case 17"}))

	asked := &audit.EraseOptions{Reason: "their request of 2026-05-04", Schedule: true}
	erasure := must(trail.EraseUser(ctx, "user123", asked))
	fmt.Println("done:", erasure.Done, "waits for a", erasure.Scheduled.Blocked[0].Kind)
	for _, s := range must(trail.ScheduledErasures(ctx)) {
		fmt.Println(s.User, "ready:", s.Ready)
	}
	due := must(trail.EraseDue(ctx))
	fmt.Println("carried out:", len(due.Done), "waiting:", due.Waiting)
	fmt.Println("cancelled:", trail.CancelErasure(ctx, erasure.Scheduled.ID, "withdrawn"))
	fmt.Println("waiting:", len(must(trail.ScheduledErasures(ctx))))
	// Output:
	// done: false waits for a hold
	// user123 ready: false
	// carried out: 0 waiting: 1
	// cancelled: <nil>
	// waiting: 0
}

// Whose a pseudonym is can be asked with a reason, which is recorded.
func ExampleTrail_Reveal() {
	path, opts, done := scratch()
	defer done()
	ctx := context.Background()
	trail := must(audit.Open(path, opts))
	defer trail.Close()
	pseudonym := must(trail.Pseudonymize(ctx, "user123"))
	fmt.Println(trail.Reveal(ctx, pseudonym, "fraud case 17"))
	for e, err := range trail.Query(ctx, audit.Query{EventTypes: []string{"AUDIT_QUERY"}, Action: "pseudonym_revealed"}) {
		fmt.Println(e.Inputs.Text("user") == pseudonym, e.Inputs.Text("reason"), err)
	}
	// Output:
	// user123 <nil>
	// true fraud case 17 <nil>
}
