package audit_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"
	"time"

	audit "github.com/kaizen-audit/kaizen-audit"
)

// scratch is a folder for one example, and options that pin nothing outside
// it.
func scratch() (path string, opts *audit.Options, done func()) {
	dir, err := os.MkdirTemp("", "kaizen-audit-example")
	if err != nil {
		log.Fatal(err)
	}
	return filepath.Join(dir, "audit.jsonl"), &audit.Options{StateDir: filepath.Join(dir, "state")}, func() { os.RemoveAll(dir) }
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}

func toolUse(agent, tool string) audit.Event {
	return audit.Event{
		EventType: audit.ToolUse, AgentID: agent, TraceID: "run-1", Action: "tool_use:" + tool,
		Inputs:   audit.Raw([]byte(`{"expression":"2+2"}`)),
		Outputs:  audit.Of(map[string]any{"result": 4}),
		Metadata: audit.Of(map[string]any{"user_id": "user123"}),
	}
}

func ExampleOpen() {
	path, opts, done := scratch()
	defer done()

	trail, err := audit.Open(path, opts)
	if err != nil {
		log.Fatal(err)
	}
	receipt, err := trail.Record(context.Background(), toolUse("qa-agent-001", "calculator"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("entry", receipt.Index, "durable", receipt.Durable)
	if err := trail.Close(); err != nil {
		log.Fatal(err)
	}
	// Output: entry 1 durable true
}

func ExampleTrail_RecordBatch() {
	path, opts, done := scratch()
	defer done()
	trail := must(audit.Open(path, opts))
	defer trail.Close()

	receipts, err := trail.RecordBatch(context.Background(), []audit.Event{
		toolUse("a", "search"),
		{AgentID: "a"}, // refused; the others are recorded all the same
		toolUse("a", "browse"),
	})
	fmt.Println(receipts[0].Index, receipts[2].Index)
	fmt.Println(err)
	// Output:
	// 1 2
	// 1 of 3 events were not recorded; the first is event 1: event refused: event_type: is required
}

func ExampleTrail_Query() {
	path, opts, done := scratch()
	defer done()
	trail := must(audit.Open(path, opts))
	defer trail.Close()
	ctx := context.Background()
	must(trail.Record(ctx, toolUse("planner", "search")))
	must(trail.Record(ctx, toolUse("worker", "calculator")))

	for e, err := range trail.Query(ctx, audit.Query{Agent: "work*", User: "user123", Since: time.Now().Add(-time.Hour)}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(e.Index, e.Action, e.Inputs.Text("expression"))
	}
	// Output: 2 tool_use:calculator 2+2
}

func ExampleTrail_Trace() {
	path, opts, done := scratch()
	defer done()
	trail := must(audit.Open(path, opts))
	defer trail.Close()
	ctx := context.Background()
	must(trail.Record(ctx, toolUse("planner", "search")))
	must(trail.Record(ctx, toolUse("worker", "calculator")))

	for _, e := range must(trail.Trace(ctx, "run-1")) {
		fmt.Println(e.AgentID, e.Action)
	}
	// Output:
	// planner tool_use:search
	// worker tool_use:calculator
}

func ExampleTrail_Prove() {
	path, opts, done := scratch()
	defer done()
	trail := must(audit.Open(path, opts))
	ctx := context.Background()
	receipt := must(trail.Record(ctx, toolUse("a", "calculator")))
	if err := trail.Close(); err != nil { // signs a checkpoint over everything
		log.Fatal(err)
	}

	trail = must(audit.Open(path, opts))
	proof := must(trail.Prove(ctx, receipt.Index))
	vkey := trail.VKey()
	if err := trail.Close(); err != nil {
		log.Fatal(err)
	}

	// Somebody else, with the line's digest, the proof and the key only:
	p, err := audit.CheckProof(proof, receipt.Digest, vkey)
	fmt.Println("entry", p.Index, err)
	_, err = audit.CheckProof(proof, [32]byte{}, vkey)
	fmt.Println(err)
	// Output:
	// entry 1 <nil>
	// check proof: check inclusion: the proof does not lead from this line to the signed root
}

func ExampleTrail_ProveConsistency() {
	path, opts, done := scratch()
	defer done()
	trail := must(audit.Open(path, opts))
	old := must(os.ReadFile(filepath.Join(trail.Dir(), "checkpoint"))) // kept outside
	ctx := context.Background()
	must(trail.Record(ctx, toolUse("a", "calculator")))
	if err := trail.Close(); err != nil {
		log.Fatal(err)
	}

	trail = must(audit.Open(path, opts))
	defer trail.Close()
	proof := must(trail.ProveConsistency(ctx, old))
	_, err := audit.CheckConsistency(proof, old, trail.VKey())
	fmt.Println("the trail of now extends that of then:", err == nil)
	// Output: the trail of now extends that of then: true
}

func ExampleVerifyPath() {
	path, opts, done := scratch()
	defer done()
	trail := must(audit.Open(path, opts))
	must(trail.Record(context.Background(), toolUse("a", "calculator")))
	if err := trail.Close(); err != nil {
		log.Fatal(err)
	}

	verify := func() {
		r := must(audit.VerifyPath(context.Background(), path, &audit.VerifyOptions{StateDir: opts.StateDir}))
		fmt.Println(strings.TrimSpace(r.Status + " " + r.Problem))
	}
	verify()
	data := must(os.ReadFile(path))
	if err := os.WriteFile(path, []byte(strings.Replace(string(data), "2+2", "2+3", 1)), 0o600); err != nil {
		log.Fatal(err)
	}
	verify()
	// Output:
	// intact
	// damaged changed
}

func ExampleTrail_Rotate() {
	path, opts, done := scratch()
	defer done()
	trail := must(audit.Open(path, opts))
	defer trail.Close()
	ctx := context.Background()
	must(trail.Record(ctx, toolUse("a", "calculator")))

	sealed := must(trail.Rotate(ctx))
	fmt.Println(sealed.File, sealed.Count)
	// Output: segments/00000000000000000000.jsonl.zst 2
}

func ExampleTrail_Info() {
	path, opts, done := scratch()
	defer done()
	opts.Origin = "example.com/agents"
	trail := must(audit.Open(path, opts))
	defer trail.Close()

	info := must(trail.Info(context.Background()))
	fmt.Println(info.Origin, info.Profile, info.Entries, info.KeyReadableBy)
	// Output: example.com/agents plain 1 its owner and root
}

func ExampleInit() {
	path, opts, done := scratch()
	defer done()

	info := must(audit.Init(path, &audit.InitOptions{Options: *opts}))
	fmt.Println(info.Entries, "entry")
	_, err := audit.Init(path, &audit.InitOptions{Options: *opts})
	fmt.Println(err != nil)
	// Output:
	// 1 entry
	// true
}

func ExampleNewAuditTrailManager() {
	path, opts, done := scratch()
	defer done()
	ctx := context.Background()

	manager, err := audit.NewAuditTrailManager(audit.ManagerOptions{AuditLogPath: path, Options: *opts})
	if err != nil {
		log.Fatal(err)
	}
	defer manager.Close()
	must(manager.RecordEvent(ctx, map[string]any{
		"event_type": "TOOL_USE", "agent_id": "qa-agent-001", "action": "tool_use:calculator",
		"inputs": map[string]any{"expression": "2+2"}, "metadata": map[string]any{"user_id": "user123"},
	}))
	for _, e := range must(manager.QueryByUser(ctx, "user123")) {
		fmt.Println(e.AgentID, e.Action, e.Success)
	}
	report := must(manager.ExportComplianceReport(ctx))
	fmt.Println(strings.Contains(report, "Success rate: 1/1 (100.0%)"))
	// Output:
	// qa-agent-001 tool_use:calculator true
	// true
}

func ExampleParseEvent() {
	_, err := audit.ParseEvent([]byte(`{"event_type":"TOOL_USE","agent_id":"a","user_id":"u"}`))
	fmt.Println(err)
	// Output: "user_id": is not a member of an event; put it under metadata, inputs or outputs
}
