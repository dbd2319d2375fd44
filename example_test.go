package audit_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"
	"time"

	audit "github.com/kaizen-audit/kaizen-audit"
	"github.com/kaizen-audit/kaizen-audit/policy"
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

func ExampleTrail_Record() {
	path, opts, done := scratch()
	defer done()
	trail := must(audit.Open(path, opts))
	defer trail.Close()
	ctx := context.Background()

	ev := toolUse("qa-agent-001", "refund")
	ev.IdempotencyKey = "refund-4711" // a retry is recorded once
	first := must(trail.Record(ctx, ev))
	again := must(trail.Record(ctx, ev))
	fmt.Println(first.Index, again.Index, first.Digest == again.Digest)

	ev.Success = new(false)
	_, err := trail.Record(ctx, ev)
	fmt.Println(errors.Is(err, audit.ErrConflict))
	_, err = trail.Record(ctx, audit.Event{EventType: "AUDIT_SEAL", AgentID: "a", Action: "x"})
	fmt.Println(errors.Is(err, audit.ErrRefused), err)
	// Output:
	// 1 1 true
	// true
	// true event refused: event_type: names that begin with AUDIT_ are the trail's own
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
	fmt.Println("the trail of now extends that of then:", audit.IsConsistencyProof(proof) && err == nil)
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

func ExampleTrail_Verify() {
	path, opts, done := scratch()
	defer done()
	trail := must(audit.Open(path, opts))
	old := must(os.ReadFile(filepath.Join(trail.Dir(), "checkpoint"))) // kept outside
	vkey := trail.VKey()
	must(trail.Record(context.Background(), toolUse("a", "calculator")))
	if err := trail.Close(); err != nil {
		log.Fatal(err)
	}

	opts.ReadOnly = true // another process may write meanwhile
	trail = must(audit.Open(path, opts))
	defer trail.Close()
	r := must(trail.Verify(context.Background(), &audit.VerifyOptions{Key: vkey, Checkpoint: old, RequireAnchor: true}))
	fmt.Println(r.Status, r.Anchor, r.Size)
	// Output: intact checkpoint 3
}

func ExampleTrail_ComplianceReport() {
	path, opts, done := scratch()
	defer done()
	trail := must(audit.Open(path, opts))
	defer trail.Close()
	ctx := context.Background()
	ev := toolUse("qa-agent-001", "calculator")
	must(trail.Record(ctx, ev))
	ev.Success = new(false)
	must(trail.Record(ctx, ev))

	report := must(trail.ComplianceReport(ctx))
	for _, a := range report.Agents {
		fmt.Println(a.AgentID, a.Operations, a.Successful)
	}
	// Output: qa-agent-001 2 1
}

// What could not even be handed over to be recorded is counted too.
func ExampleTrail_NoteRefused() {
	path, opts, done := scratch()
	defer done()
	trail := must(audit.Open(path, opts))
	_, err := audit.ParseEvent([]byte(`{"event_type":"TOOL_USE","agent_id":7}`))
	trail.NoteRefused(err)
	if err := trail.Close(); err != nil {
		log.Fatal(err)
	}

	opts.ReadOnly = true
	trail = must(audit.Open(path, opts))
	defer trail.Close()
	for e, err := range trail.Query(context.Background(), audit.Query{EventTypes: []string{"AUDIT_REFUSED"}}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s %s\n", e.Action, must(e.Outputs.AppendJSON(nil)))
	}
	// Output: events_refused {"count":1,"reasons":{"agent_id: must be a string":1}}
}

func ExampleTrail_WriteComplianceReport() {
	path, opts, done := scratch()
	defer done()
	trail := must(audit.Open(path, opts))
	defer trail.Close()
	must(trail.Record(context.Background(), toolUse("qa-agent-001", "calculator")))

	var text strings.Builder
	if err := trail.WriteComplianceReport(context.Background(), &text); err != nil {
		log.Fatal(err)
	}
	fmt.Println(strings.Contains(text.String(), "Total entries: 1"), strings.Contains(text.String(), "Agent: qa-agent-001"))
	// Output: true true
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
	fmt.Println(info.Origin == trail.Origin(), info.VKey == trail.VKey(), info.Path == trail.Path(), info.Dir == trail.Dir())
	fmt.Println(info.Origin, info.Profile, info.Entries, info.KeyReadableBy)
	// Output:
	// true true true true
	// example.com/agents plain 1 its owner and root
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
	fmt.Println(len(must(manager.QueryByAgent(ctx, "qa-agent-001"))), len(must(manager.AuditEntries(ctx))))
	report := must(manager.ExportComplianceReport(ctx))
	fmt.Println(strings.Contains(report, "Success rate: 1/1 (100.0%)"))
	// Output:
	// qa-agent-001 tool_use:calculator true
	// 1 1
	// true
}

// The documented queries give slices, oldest first.
func ExampleAuditTrailManager() {
	path, opts, done := scratch()
	defer done()
	ctx := context.Background()
	manager := must(audit.NewAuditTrailManager(audit.ManagerOptions{AuditLogPath: path, Options: *opts}))
	defer manager.Close()
	begun := time.Now().Truncate(time.Millisecond)
	must(manager.RecordEvent(ctx, toolUse("planner", "search")))
	must(manager.RecordEvent(ctx, toolUse("worker", "calculator")))

	show := func(entries []audit.Entry) {
		var agents []string
		for _, e := range entries {
			agents = append(agents, e.AgentID)
		}
		fmt.Println(strings.Join(agents, " "))
	}
	show(must(manager.AuditEntries(ctx)))
	show(must(manager.QueryByAgent(ctx, "worker")))
	show(must(manager.QueryByTrace(ctx, "run-1")))
	show(must(manager.QueryByUser(ctx, "user123")))
	show(must(manager.QueryByTimeRange(ctx, begun, time.Now()))) // both ends included
	// Output:
	// planner worker
	// worker
	// planner worker
	// planner worker
	// planner worker
}

func ExampleAuditTrailManager_ExportComplianceReport() {
	path, opts, done := scratch()
	defer done()
	ctx := context.Background()
	manager := must(audit.NewAuditTrailManager(audit.ManagerOptions{AuditLogPath: path, Options: *opts}))
	defer manager.Close()
	ev := toolUse("qa-agent-001", "calculator")
	ev.Timestamp = time.Date(2025, 10, 26, 10, 45, 13, 0, time.UTC)
	ev.DurationMS = 45.2
	must(manager.RecordEvent(ctx, ev))

	report := must(manager.ExportComplianceReport(ctx))
	head, _, _ := strings.Cut(report, "\nAudit trail's own entries:") // and what the latest checkpoint covers
	for line := range strings.Lines(head) {
		if !strings.HasPrefix(line, "Generated:") { // is never the same
			fmt.Print(line)
		}
	}
	// Output:
	// ======================================================================
	// AUDIT TRAIL COMPLIANCE REPORT
	// ======================================================================
	// Total entries: 1
	// Retention period: 2555 days (7 years)
	// Encryption: Disabled
	// Access control: Disabled
	//
	// Agent: qa-agent-001
	//   Total operations: 1
	//   Success rate: 1/1 (100.0%)
	//   Recent operations:
	//     - 2025-10-26T10:45:13: tool_use:calculator (45.2ms)
}

// What the trail has of a user, as it was recorded, for the user.
func ExampleAuditTrailManager_ExportUserData() {
	path, opts, done := scratch()
	defer done()
	ctx := context.Background()
	manager := must(audit.NewAuditTrailManager(audit.ManagerOptions{AuditLogPath: path, Options: *opts}))
	defer manager.Close()
	must(manager.RecordEvent(ctx, toolUse("qa-agent-001", "calculator")))

	data := must(manager.ExportUserData(ctx, "user123"))
	var entries []struct {
		Action string         `json:"action"`
		Inputs map[string]any `json:"inputs"`
	}
	if err := json.Unmarshal([]byte(data), &entries); err != nil {
		log.Fatal(err)
	}
	fmt.Println(entries)
	// Output: [{tool_use:calculator map[expression:2+2]}]
}

// A map is as good as an Event; every documented default is applied.
func ExampleAuditTrailManager_RecordEvent() {
	path, opts, done := scratch()
	defer done()
	ctx := context.Background()
	manager := must(audit.NewAuditTrailManager(audit.ManagerOptions{AuditLogPath: path, Options: *opts}))
	defer manager.Close()

	must(manager.RecordEvent(ctx, toolUse("a", "calculator")))
	must(manager.RecordEvent(ctx, map[string]any{"event_type": "LLM_CALL", "agent_id": "a", "action": "llm_call"}))
	_, err := manager.RecordEvent(ctx, map[string]any{"event_type": "LLM_CALL", "agent_id": "a"})
	fmt.Println(err)
	for _, e := range must(manager.AuditEntries(ctx)) {
		fmt.Println(e.Index, e.EventType, e.Success, e.DurationMS, e.TraceID != "")
	}
	// Output:
	// event refused: action: is required
	// 1 TOOL_USE true 0 true
	// 2 LLM_CALL true 0 true
}

// What this version does not have is an error, never ignored.
func ExampleManagerOptions() {
	path, opts, done := scratch()
	defer done()

	manager := must(audit.NewAuditTrailManager(audit.ManagerOptions{AuditLogPath: path, RetentionDays: 3650, RotationInterval: "monthly", Options: *opts}))
	fmt.Println(must(manager.Retention(context.Background())).Days)
	fmt.Println(manager.Close())
	_, err := audit.NewAuditTrailManager(audit.ManagerOptions{AuditLogPath: path, RotationInterval: "hourly", Options: *opts})
	fmt.Println(strings.HasSuffix(err.Error(), `"hourly" is none of daily, weekly, monthly, never`))
	// Output:
	// 3650
	// <nil>
	// true
}

// A trail that keeps its entries for ten years, and a legal hold that keeps some for
// longer.
func ExampleTrail_AddHold() {
	path, opts, done := scratch()
	defer done()

	ctx := context.Background()
	trail := must(audit.Open(path, opts))
	if err := trail.SetRetention(ctx, 3650, true); err != nil {
		log.Fatal(err)
	}
	hold := must(trail.AddHold(ctx, audit.HoldRequest{User: "user123", Reason: "case 2026-17"}))
	for _, h := range must(trail.Holds(ctx)) {
		fmt.Println(h.User, h.Reason, h.Open)
	}
	due := must(trail.Prune(ctx, &audit.PruneOptions{DryRun: true}))
	fmt.Println(due.Retention.Days, due.Retention.Locked, len(due.Segments))
	fmt.Println(trail.LiftHold(ctx, hold.ID, "closed"), trail.Close())
	// Output:
	// user123 case 2026-17 true
	// 3650 true 0
	// <nil> <nil>
}

// Nobody reads the log without the key, which lies elsewhere; who has it reads it
// as any other.
func ExampleManagerOptions_encryptAtRest() {
	path, opts, done := scratch()
	defer done()

	ctx := context.Background()
	manager := must(audit.NewAuditTrailManager(audit.ManagerOptions{
		AuditLogPath: path, EncryptAtRest: true, EncryptionKey: strings.Repeat("0f", 32), Options: *opts,
	}))
	must(manager.RecordEvent(ctx, map[string]any{
		"event_type": "TOOL_USE", "agent_id": "qa-agent-001", "action": "tool_use:search", "inputs": map[string]any{"name": "Jane Doe"},
	}))
	text := must(os.ReadFile(path))
	fmt.Println(manager.Encrypts(), strings.Contains(string(text), "Jane Doe"))
	for _, e := range must(manager.QueryByAgent(ctx, "qa-agent-001")) {
		fmt.Println(e.Action, e.Inputs.Text("name"))
	}
	fmt.Println(manager.Close())
	// Output:
	// true false
	// tool_use:search Jane Doe
	// <nil>
}

// What another log had is marked as imported, and is recorded once however
// often it comes.
func ExampleTrail_Import() {
	path, opts, done := scratch()
	defer done()

	ctx := context.Background()
	trail := must(audit.Open(path, opts))
	defer trail.Close()
	old := []audit.Event{{
		Timestamp: time.Date(2025, 10, 26, 10, 53, 45, 0, time.UTC), EventType: "LOGIN", AgentID: "a", Action: "login",
		TraceID: "yesterday", IdempotencyKey: "import:old.log:1",
	}}
	for range 2 {
		fmt.Println(must(trail.Import(ctx, old))[0].Index)
	}
	for key, err := range trail.ImportedKeys(ctx, "import:old.log:") {
		fmt.Println(key, err)
	}
	for e, err := range trail.Query(ctx, audit.Query{Agent: "a"}) {
		fmt.Println(e.Timestamp.Format(time.DateOnly), e.IsImported(), err)
	}
	// Output:
	// 1
	// 1
	// import:old.log:1 <nil>
	// 2025-10-26 true <nil>
}

// The newest entries; with true it would go on with those that come, until ctx
// ends.
func ExampleTrail_Tail() {
	path, opts, done := scratch()
	defer done()

	ctx := context.Background()
	trail := must(audit.Open(path, opts))
	defer trail.Close()
	for _, tool := range []string{"search", "calculator", "copy"} {
		must(trail.Record(ctx, toolUse("qa-agent-001", tool)))
	}
	for e, err := range trail.Tail(ctx, audit.Query{}, 2, false) {
		fmt.Println(e.Index, e.Action, err)
	}
	// Output:
	// 2 tool_use:calculator <nil>
	// 3 tool_use:copy <nil>
}

func ExampleParseEvent() {
	_, err := audit.ParseEvent([]byte(`{"event_type":"TOOL_USE","agent_id":"a","user_id":"u"}`))
	fmt.Println(err)
	// Output: "user_id": is not a member of an event; put it under metadata, inputs or outputs
}

func ExampleRaw() {
	o := audit.Raw([]byte(`{"b": 1.50, "a": {"c": "d"}}`)) // order and digits stay
	fmt.Printf("%s\n", must(o.MarshalJSON()))
	// Output: {"b":1.50,"a":{"c":"d"}}
}

func ExampleOf() {
	o := audit.Of(map[string]any{"result": 4, "by": "calculator"}) // in the order of the names
	fmt.Printf("%s\n", must(o.MarshalJSON()))
	// Output: {"by":"calculator","result":4}
}

func ExampleTrail_Serve() {
	path, opts, done := scratch()
	defer done()
	trail, err := audit.Open(path, opts)
	if err != nil {
		log.Fatal(err)
	}
	defer trail.Close()

	// Another process that opens the trail records through this one.
	other, err := audit.Open(path, opts)
	if err != nil {
		log.Fatal(err)
	}
	receipt, err := other.Record(context.Background(), audit.Event{EventType: audit.ToolUse, AgentID: "worker-2", Action: "tool_use:calculator"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("entry", receipt.Index)
	if err := other.Close(); err != nil {
		log.Fatal(err)
	}

	// Until nobody has been connected for a while:
	if err := trail.Serve(context.Background(), 100*time.Millisecond); err != nil {
		log.Fatal(err)
	}
	// Output: entry 1
}

// An agent goes on whether or not its trail can be written: what is captured
// while a process holds the trail that does not listen waits in the spool.
func ExampleCapture() {
	path, opts, done := scratch()
	defer done()

	deaf := *opts
	deaf.NoSocket = true
	holder := must(audit.Open(path, &deaf))
	if err := audit.Capture(context.Background(), path, opts, toolUse("qa-agent-001", "calculator")); err != nil {
		log.Fatal(err)
	}
	if err := holder.Close(); err != nil {
		log.Fatal(err)
	}

	next := must(audit.Open(path, opts))
	defer next.Close()
	for e, err := range next.Query(context.Background(), audit.Query{Agent: "qa-agent-001"}) {
		fmt.Println(e.Action, err)
	}
	// Output: tool_use:calculator <nil>
}

func ExampleTrail_Capture() {
	path, opts, done := scratch()
	defer done()

	trail := must(audit.Open(path, opts))
	if err := trail.Close(); err != nil { // under the agent
		log.Fatal(err)
	}
	receipt, err := trail.Capture(context.Background(), toolUse("qa-agent-001", "calculator"))
	fmt.Println(receipt.EventID == "", err)

	next := must(audit.Open(path, opts))
	defer next.Close()
	for e, err := range next.Query(context.Background(), audit.Query{Agent: "qa-agent-001"}) {
		fmt.Println(e.Action, e.RecordedBy.Text("via"), err)
	}
	// Output:
	// true <nil>
	// tool_use:calculator spool <nil>
}

func ExampleTrail_RecordFact() {
	path, opts, done := scratch()
	defer done()

	trail := must(audit.Open(path, opts))
	defer trail.Close()
	ev := toolUse("qa-agent-001", "calculator")
	ev.Inputs = audit.Raw([]byte(`{"a":1,"a":2}`)) // a name twice
	if _, err := trail.RecordFact(context.Background(), ev); err != nil {
		log.Fatal(err)
	}
	for e, err := range trail.Query(context.Background(), audit.Query{Agent: "qa-agent-001"}) {
		fmt.Println(e.Action, e.Inputs.Text("omitted"), err)
	}
	// Output: tool_use:calculator this member name occurs twice in its object <nil>
}

func ExampleTrail_Omit() {
	path, opts, done := scratch()
	defer done()

	trail := must(audit.Open(path, opts))
	defer trail.Close()
	ev := audit.Event{EventType: audit.ToolUse, AgentID: "qa-agent-001", Action: "tool_use:login", Inputs: audit.Raw([]byte(`{"password":"x"}`))}
	trail.Omit(&ev, "not recorded by choice", "inputs")
	if _, err := trail.Record(context.Background(), ev); err != nil {
		log.Fatal(err)
	}
	for e, err := range trail.Query(context.Background(), audit.Query{Agent: "qa-agent-001"}) {
		size, _ := e.Inputs.Get("bytes")
		fmt.Println(e.Inputs.Text("omitted"), string(size.JSON()), len(e.Inputs.Text("mac")), err)
	}
	// Output: not recorded by choice 16 64 <nil>
}

func ExampleTrail_StateDir() {
	path, opts, done := scratch()
	defer done()

	opts.Durability = audit.Written
	trail := must(audit.Open(path, opts))
	defer trail.Close()
	fmt.Println(trail.StateDir() == opts.StateDir, trail.WritesAtOnce())
	// Output: true true
}

func ExampleTrail_Ingest() {
	path, opts, done := scratch()
	defer done()

	trail := must(audit.Open(path, opts))
	defer trail.Close()
	span := audit.Event{EventType: audit.ToolUse, AgentID: "qa-agent-001", Action: "tool_use:calculator", IdempotencyKey: "span 1"}
	for range 2 { // the sender has missed the answer, and sends it again
		receipts := must(trail.Ingest(context.Background(), "collector-eu", []audit.Event{span}))
		fmt.Println(len(receipts), receipts[0].Durable)
	}
	for e, err := range trail.Query(context.Background(), audit.Query{Agent: "qa-agent-001"}) {
		fmt.Println(e.Action, e.RecordedBy.Text("principal"), e.RecordedBy.Text("via"), err)
	}
	// Output:
	// 1 true
	// 1 true
	// tool_use:calculator collector-eu otlp <nil>
}

// A policy in code: what patients are called is dropped, whatever tool says it,
// and calls of the records' tool are accesses to health data.
func ExampleTrail_Policy() {
	dir, err := os.MkdirTemp("", "audit")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	rules, err := policy.New(policy.Config{
		Fields: []policy.Field{{Path: "/outputs/**/name", Action: policy.Drop}},
		Tools: []policy.Tool{{
			When: policy.When{Tools: []string{"get_patient"}}, PHI: true, Reason: "treatment",
			Resource: &policy.Resource{Type: "patient", ID: []string{"/inputs/patient_id"}},
		}},
	})
	if err != nil {
		log.Fatal(err)
	}
	path := filepath.Join(dir, "audit.jsonl")
	trail, err := audit.Open(path, &audit.Options{StateDir: filepath.Join(dir, "state"), Policy: rules})
	if err != nil {
		log.Fatal(err)
	}
	ev := audit.Event{
		EventType: audit.ToolUse, AgentID: "qa-agent-001", Action: "tool_use:get_patient", Timestamp: time.Unix(1800000000, 0), TraceID: "run-1",
		Inputs:   audit.Of(map[string]any{"patient_id": "P12345", "paid_with": "4111 1111 1111 1111"}),
		Outputs:  audit.Of(map[string]any{"patient": map[string]any{"name": "Jane", "ward": 7}}),
		Metadata: audit.Of(map[string]any{"user_id": "dr-lee", "host": "ward-3"}),
	}
	if _, err := trail.Record(context.Background(), ev); err != nil {
		log.Fatal(err)
	}
	for e, err := range trail.Query(context.Background(), audit.Query{Agent: "qa-agent-001"}) {
		if err != nil {
			log.Fatal(err)
		}
		inputs, _ := e.Inputs.AppendJSON(nil)
		outputs, _ := e.Outputs.AppendJSON(nil)
		resource, _ := e.Resource.AppendJSON(nil)
		done, _ := e.Policy.AppendJSON(nil)
		fmt.Printf("%s %s\n%s %s\n%s\n", e.EventType, resource, inputs, outputs, done)
	}

	// What a program would have to keep in a file of its own until it is recorded.
	text, notes, err := trail.AppendPending(nil, &ev)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(strings.Contains(string(text), "4111"), trail.Policy() == rules)
	waited, err := trail.ParsePending(text, notes)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(waited.Action)
	if err := trail.Close(); err != nil {
		log.Fatal(err)
	}
	// Whoever opens the trail without a policy has that one.
	stored, err := audit.StoredPolicy(path)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(stored.Digest() == rules.Digest())

	// Output:
	// PHI_ACCESS {"type":"patient","id":"P12345"}
	// {"paid_with":"****1111","patient_id":"P12345"} {"patient":{"ward":7}}
	// {"masked":["/inputs/paid_with"],"dropped":["/outputs/patient/name"],"classified":["/event_type","/resource","/metadata/access_reason"],"rules":{"/outputs/**/name":["/outputs/patient/name"],"card":["/inputs/paid_with"],"tools/0":["/event_type","/resource","/metadata/access_reason"]}}
	// false true
	// tool_use:get_patient
	// true
}

func ExampleTrail_Pseudonymize() {
	path, opts, done := scratch()
	defer done()
	trail := must(audit.Open(path, opts))
	defer trail.Close()
	ctx := context.Background()

	pseudonym := must(trail.Pseudonymize(ctx, "user123"))
	ev := toolUse("qa-agent-001", "calculator")
	ev.Metadata = audit.Of(map[string]any{"user_id_hash": pseudonym})
	must(trail.Record(ctx, ev))
	must(trail.Record(ctx, toolUse("qa-agent-001", "search"))) // with metadata.user_id

	for e, err := range trail.Query(ctx, audit.Query{User: "user123"}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(e.Action, e.Metadata.Text("user_id"), e.Metadata.Text("user_id_hash") == pseudonym)
	}
	// Output:
	// tool_use:calculator  true
	// tool_use:search user123 false
}

func ExampleTrail_RecordPHIAccess() {
	path, opts, done := scratch()
	defer done()
	trail := must(audit.Open(path, opts))
	defer trail.Close()
	ctx := context.Background()

	read := audit.Event{AgentID: "qa-agent-001", Action: "patient_record_read"}
	must(trail.RecordPHIAccess(ctx, read, audit.PHI{
		UserID: "doctor123", PatientID: "P12345", AccessReason: "treatment", PHIType: "medical_history",
	}))
	for e, err := range trail.Query(ctx, audit.Query{Resource: "patient/P12345"}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(e.EventType, e.Metadata.Text("user_id"), e.Metadata.Text("access_reason"))
	}
	_, err := trail.RecordPHIAccess(ctx, read, audit.PHI{UserID: "doctor123", PatientID: "P12345", PHIType: "medical_history"})
	fmt.Println(err)
	// Output:
	// PHI_ACCESS doctor123 treatment
	// event refused: metadata.access_reason: is missing, and an access must say it
}

func ExampleTrail_RecordCHDAccess() {
	path, opts, done := scratch()
	defer done()
	trail := must(audit.Open(path, opts))
	defer trail.Close()
	ctx := context.Background()

	pay := audit.Event{AgentID: "qa-agent-001", Action: "payment_processing"}
	chd := audit.CHD{UserID: "cashier456", Terminal: "POS-001", Location: "Store-NY-001", MaskedCard: "****1234"}
	must(trail.RecordCHDAccess(ctx, pay, chd))
	chd.MaskedCard = "4532-1234-5678-9012"
	_, err := trail.RecordCHDAccess(ctx, pay, chd)
	fmt.Println(err)
	// Output:
	// event refused: inputs.masked_card: shows the card's number: of a card eight digits at the front and four at the end may be stored
}

func ExampleTrail_GapReport() {
	path, opts, done := scratch()
	defer done()
	trail := must(audit.Open(path, opts))
	defer trail.Close()
	ctx := context.Background()

	must(trail.Record(ctx, toolUse("qa-agent-001", "calculator")))
	nobodys := toolUse("qa-agent-001", "search")
	nobodys.Metadata = audit.Object{}
	must(trail.Record(ctx, nobodys))

	gaps := must(trail.GapReport(ctx))
	for _, m := range gaps.Agents[0].Measures[:2] {
		fmt.Printf("%s: %d of %d\n", m.Name, m.Count, m.Of)
	}
	// Output:
	// complete: 1 of 2
	// unique_user: 1 of 2
}
