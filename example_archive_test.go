package audit_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/archive"
)

// A trail is archived on another disk, verified there, and comes back after its own
// was lost. Without its signing key it is read, and not written.
func ExampleRestore() {
	path, opts, done := scratch()
	defer done()

	ctx := context.Background()
	trail := must(audit.Open(path, opts))
	must(trail.Record(ctx, audit.Event{EventType: audit.ToolUse, AgentID: "qa-agent-001", Action: "tool_use:calculator"}))
	other := filepath.Join(filepath.Dir(path), "other")
	if err := os.Mkdir(other, 0o700); err != nil {
		log.Fatal(err)
	}
	store := must(archive.OpenDir("file://" + other))
	must(trail.Archive(ctx, store, nil))
	fmt.Println("on this disk only:", must(trail.ArchiveState(ctx)).Exposed)
	expired := must(trail.PruneArchive(ctx, store, true)) // true: only looks
	fmt.Println("pruned here, and still there:", len(expired.Segments))
	if err := trail.Close(); err != nil {
		log.Fatal(err)
	}
	must(audit.VerifyArchive(ctx, store, &audit.RestoreOptions{StateDir: opts.StateDir}))

	back := filepath.Join(filepath.Dir(path), "back.jsonl")
	restored := must(audit.Restore(ctx, back, store, &audit.RestoreOptions{StateDir: opts.StateDir}))
	fmt.Println("all of it:", restored.Missing == nil, "writable:", restored.Writable)
	read := *opts
	read.ReadOnly = true
	again := must(audit.Open(back, &read))
	for e, err := range again.Query(ctx, audit.Query{}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(e.Action)
	}
	fmt.Println(again.Close())
	// Output:
	// on this disk only: 0
	// pruned here, and still there: 0
	// all of it: true writable: false
	// tool_use:calculator
	// <nil>
}

// Who asks is in the context; nobody, and a role that may not, is refused.
func ExampleWithPrincipal() {
	path, opts, done := scratch()
	defer done()

	opts.Access = &audit.Access{Enabled: true, Users: map[string][]string{"alice": {"auditor"}}}
	trail := must(audit.Open(path, opts))
	defer trail.Close()
	ctx := context.Background()
	must(trail.Record(ctx, audit.Event{EventType: audit.ToolUse, AgentID: "qa-agent-001", Action: "tool_use:calculator"}))
	for _, err := range trail.Query(ctx, audit.Query{}) {
		fmt.Println("nobody is denied:", errors.Is(err, audit.ErrDenied))
	}
	for e, err := range trail.Query(audit.WithPrincipal(ctx, audit.Principal{ID: "alice"}), audit.Query{}) {
		fmt.Println("alice:", e.Action, err)
	}
	// A command line asks as the system's user; what records rightly reads as the
	// trail itself.
	for _, err := range trail.Query(audit.WithPrincipal(ctx, audit.OSPrincipal()), audit.Query{}) {
		fmt.Println("the system's user is denied:", errors.Is(err, audit.ErrDenied))
	}
	for e := range trail.Query(audit.WithTrailItself(ctx), audit.Query{}) {
		fmt.Println("a hook:", e.Action)
	}
	// Output:
	// nobody is denied: true
	// alice: tool_use:calculator <nil>
	// the system's user is denied: true
	// a hook: tool_use:calculator
}
