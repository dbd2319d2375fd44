package audit_test

import (
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
