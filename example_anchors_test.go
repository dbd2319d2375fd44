package audit_test

import (
	"context"
	"fmt"
	"time"

	audit "github.com/kaizen-audit/kaizen-audit"
)

// A witness is named by its key; what is wrong with an anchor is told before a trail
// is opened.
func ExampleCheckAnchor() {
	good := audit.Anchor{
		URL:   "https://witness.example.org/",
		VKey:  "example.com/trail+036c1098+BIqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c",
		Every: time.Minute,
	}
	fmt.Println(audit.CheckAnchor(good))
	fmt.Println(audit.CheckAnchor(audit.Anchor{URL: "https://witness.example.org/"}))
	// Output:
	// <nil>
	// needs the key of a witness, or the certificates of an authority for timestamps
}

// A verification for a timer: it is recorded, and the next one begins where it ended.
func ExampleTrail_VerifySinceLast() {
	path, opts, done := scratch()
	defer done()
	ctx := context.Background()
	trail := must(audit.Open(path, opts))
	defer trail.Close()
	must(trail.Record(ctx, toolUse("qa-agent-001", "calculator")))

	report := must(trail.VerifySinceLast(ctx, nil))
	fmt.Println(report.Status)
	for e, err := range trail.Query(ctx, audit.Query{EventTypes: []string{"AUDIT_VERIFY"}}) {
		fmt.Println(e.Outputs.Text("status"), err)
	}
	// Output:
	// intact
	// intact <nil>
}
