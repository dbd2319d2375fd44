package audit_test

import (
	"archive/zip"
	"bytes"
	"context"
	"fmt"
	"os"

	audit "github.com/kaizen-audit/kaizen-audit"
)

// A person gets what is theirs, with proofs and the script that checks them.
func ExampleTrail_ExportUser() {
	path, opts, done := scratch()
	defer done()
	ctx := context.Background()
	trail := must(audit.Open(path, opts))
	defer trail.Close()
	must(trail.Record(ctx, toolUse("qa-agent-001", "calculator")))

	var file bytes.Buffer
	export := must(trail.ExportUser(ctx, "user123", &file))
	fmt.Println(export.Entries, "entry,", export.Proved, "proved,", export.Masked, "masked")
	for _, f := range must(zip.NewReader(bytes.NewReader(file.Bytes()), int64(file.Len()))).File {
		fmt.Println(f.Name)
	}
	// Output:
	// 1 entry, 1 proved, 0 masked
	// summary.html
	// entries.json
	// entries.csv
	// disclosures.jsonl
	// verify.py
	// manifest.json
}

// One field of one entry is shown to somebody who has the trail's key; the others
// stay sealed.
func ExampleTrail_Disclose() {
	path, opts, done := scratch()
	defer done()
	ctx := context.Background()
	opts.KeyFile = path + ".key"
	opts.Warn = func(error) {} // says where the key was made
	must(audit.Init(path, &audit.InitOptions{Options: *opts, Profile: "gdpr"}))
	trail := must(audit.Open(path, opts))
	receipt := must(trail.Record(ctx, toolUse("qa-agent-001", "calculator")))
	if err := trail.Close(); err != nil { // a checkpoint covers the entry then
		fmt.Fprintln(os.Stderr, err)
	}
	trail = must(audit.Open(path, opts))
	defer trail.Close()

	fmt.Println(must(trail.SealedFields(ctx, receipt.Index)))
	text := must(trail.Disclose(ctx, receipt.Index, "/inputs"))
	fmt.Println(audit.IsDisclosure(text))
	d := must(audit.CheckDisclosure(text, trail.VKey()))
	fmt.Println(d.Entry.Inputs.Text("expression"), d.Hidden)
	// Output:
	// [/inputs /outputs /metadata/user_id]
	// true
	// 2+2 [/metadata/user_id /outputs]
}
