// Command audit-trail shows a whole audit trail of AI agents in four parts: a
// complete setup, a person's rights under the GDPR, access to health data under
// HIPAA and its retention, and the compliance report.
//
//	go run ./examples/audit-trail [DIR]
//
// It works in a folder of its own, DIR or a temporary one, and needs nothing else.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	audit "github.com/kaizen-audit/kaizen-audit"
)

func main() {
	dir := ""
	if len(os.Args) > 1 {
		dir = os.Args[1]
	}
	if err := run(context.Background(), dir, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "audit-trail:", err)
		os.Exit(1)
	}
}

// run plays all four parts in a folder; a temporary one, removed at the end, where
// dir is empty.
func run(ctx context.Context, dir string, out io.Writer) (err error) {
	if dir == "" {
		if dir, err = os.MkdirTemp("", "audit-trail"); err != nil {
			return err
		}
		defer os.RemoveAll(dir)
	}
	e := example{dir: dir, out: out}
	for _, part := range []func(context.Context) error{e.setup, e.gdpr, e.hipaa, e.report} {
		if err := part(ctx); err != nil {
			return errors.Join(err, e.close())
		}
	}
	return e.close()
}

// example holds the two trails: one of an assistant, one of a hospital.
type example struct {
	dir                 string
	out                 io.Writer
	assistant, hospital *audit.AuditTrailManager
}

func (e *example) say(format string, args ...any) { fmt.Fprintf(e.out, format+"\n", args...) }

func (e *example) close() error {
	var errs []error
	for _, m := range []*audit.AuditTrailManager{e.assistant, e.hospital} {
		if m != nil {
			errs = append(errs, m.Close())
		}
	}
	return errors.Join(errs...)
}

// options are what both trails have. Keys and pins lie beside the logs here, since the
// example is all in one folder; elsewhere a key service or another disk has the key
// (docs/keys.md), and pins are in the user's home.
func (e *example) options(name string) audit.Options {
	return audit.Options{
		StateDir: filepath.Join(e.dir, "state"), KeyFile: filepath.Join(e.dir, name+".key"), Command: "audit-trail",
		// Every checkpoint goes where the trail's owner can't take it back; a file of
		// another machine or a witness, in earnest (docs/anchors.md).
		CheckpointTo: []string{filepath.Join(e.dir, name+".checkpoints")},
		// What was made or could not be done: where the new key is, first.
		Warn: func(err error) { fmt.Fprintln(os.Stderr, "audit-trail: warning:", err) },
	}
}

// setup is the complete setup: a trail in which a person's fields are sealed, each
// under that person's key, and whole lines too; two agents' work in it.
func (e *example) setup(ctx context.Context) error {
	e.say("== 1. Complete setup")
	path, opts := filepath.Join(e.dir, "assistant.jsonl"), e.options("assistant")
	made := opts
	made.Encrypt = true // it counts when a trail is made
	if _, err := audit.Init(path, &audit.InitOptions{Options: made, Profile: "gdpr"}); err != nil {
		return err
	}
	var err error
	e.assistant, err = audit.NewAuditTrailManager(audit.ManagerOptions{
		AuditLogPath:  path,
		RetentionDays: 2555, // seven years
		EncryptAtRest: true,
		Options:       opts,
	})
	if err != nil {
		return err
	}
	for _, user := range []string{"mia", "noah"} {
		for i, event := range []map[string]any{
			{"event_type": "AGENT_LOOP_START", "action": "agent_execution_start", "inputs": map[string]any{"task": "how much is it for " + user + "?"}},
			{"event_type": "TOOL_USE", "action": "tool_use:calculator", "inputs": map[string]any{"expression": "3*14"}, "outputs": map[string]any{"result": 42}, "duration_ms": 45.2},
			{"event_type": "AGENT_LOOP_END", "action": "agent_execution_end", "outputs": map[string]any{"answer": "42, " + user}, "duration_ms": 812.7},
		} {
			event["agent_id"], event["trace_id"] = "qa-agent-001", "run-of-"+user
			event["metadata"] = map[string]any{"user_id": user, "environment": "production"}
			event["purpose"] = "customer service"
			if _, err := e.assistant.RecordEvent(ctx, event); err != nil {
				return fmt.Errorf("event %d of %s: %w", i, user, err)
			}
		}
	}
	report, err := e.assistant.Verify(ctx, nil)
	if err != nil {
		return err
	}
	info, err := e.assistant.Info(ctx)
	if err != nil {
		return err
	}
	e.say("recorded 6 events; encryption %s; verified: %s", info.Encryption, report.Status)
	return nil
}

// gdpr is what a person may ask for: what there is (Art. 15), to take along (Art.
// 20), and to be forgotten (Art. 17).
func (e *example) gdpr(ctx context.Context) error {
	e.say("== 2. A person's rights (GDPR)")
	entries, err := e.assistant.QueryByUser(ctx, "mia")
	if err != nil {
		return err
	}
	for _, entry := range entries {
		e.say("mia: %s %s for %s", entry.EventType, entry.Action, entry.Purpose)
	}
	file, err := os.OpenFile(filepath.Join(e.dir, "mia.zip"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	export, err := e.assistant.ExportUser(ctx, "mia", file)
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	e.say("exported %d entries, %d with a proof that verify.py in the zip checks", export.Entries, export.Proved)
	erasure, err := e.assistant.EraseUser(ctx, "mia", &audit.EraseOptions{Reason: "asked for it by letter", Certificate: filepath.Join(e.dir, "mia-erased.json")})
	if err != nil {
		return err
	}
	left, err := e.assistant.QueryByUser(ctx, "mia")
	if err != nil {
		return err
	}
	report, err := e.assistant.Verify(ctx, nil)
	if err != nil {
		return err
	}
	e.say("erased %d fields in %d entries; found for mia now: %d; the trail is %s all the same", erasure.Fields, erasure.Entries, len(left), report.Status)
	return nil
}

// hipaa is a hospital's trail: each access to a patient's record says who, whose,
// why and what, in a trail that keeps it as long as the law wants.
func (e *example) hipaa(ctx context.Context) error {
	e.say("== 3. Health data and its retention (HIPAA)")
	path, opts := filepath.Join(e.dir, "hospital.jsonl"), e.options("hospital")
	if _, err := audit.Init(path, &audit.InitOptions{Options: opts, Profile: "hipaa"}); err != nil {
		return err
	}
	var err error
	e.hospital, err = audit.NewAuditTrailManager(audit.ManagerOptions{AuditLogPath: path, RetentionDays: 2555, Options: opts})
	if err != nil {
		return err
	}
	access := audit.Event{
		AgentID: "emr-agent", TraceID: "ward-3", Action: "patient_record_read", Purpose: "treatment",
		Outputs: audit.Of(map[string]any{"finding": "blood pressure 120/80"}),
	}
	if _, err := e.hospital.RecordPHIAccess(ctx, access, audit.PHI{UserID: "dr-lee", PatientID: "P12345", AccessReason: "treatment", PHIType: "vital_signs"}); err != nil {
		return err
	}
	// An access that does not say why is refused, and the refusal is in the trail.
	if _, err := e.hospital.RecordPHIAccess(ctx, access, audit.PHI{UserID: "dr-lee", PatientID: "P12345", PHIType: "vital_signs"}); !errors.Is(err, audit.ErrRefused) {
		return fmt.Errorf("an access without a reason was taken: %w", err)
	}
	e.say("an access without a reason is refused")
	for entry, err := range e.hospital.Query(ctx, audit.Query{Subject: "P12345", EventTypes: []string{audit.PHIAccess}}) {
		if err != nil {
			return err
		}
		e.say("P12345: %s by %s for %s", entry.Action, entry.Metadata.Text("user_id"), entry.Metadata.Text("access_reason"))
	}
	info, err := e.hospital.Info(ctx)
	if err != nil {
		return err
	}
	e.say("profile %s keeps entries %d days, to %s at least", info.Profile, info.RetentionDays, info.Created.Add(time.Duration(info.RetentionDays)*24*time.Hour).Format("2006"))
	return nil
}

// report is the documented compliance report, and the check of the whole from outside:
// against checkpoints that were sent elsewhere.
func (e *example) report(ctx context.Context) error {
	e.say("== 4. Compliance report")
	text, err := e.assistant.ExportComplianceReport(ctx)
	if err != nil {
		return err
	}
	e.say("%s", text)
	for _, m := range []*audit.AuditTrailManager{e.assistant, e.hospital} {
		path := m.Path()
		if err := m.Close(); err != nil { // the last checkpoint has arrived then
			return err
		}
		checkpoints, err := os.ReadFile(path[:len(path)-len(".jsonl")] + ".checkpoints")
		if err != nil {
			return err
		}
		report, err := audit.VerifyPath(ctx, path, &audit.VerifyOptions{Key: m.VKey(), Checkpoint: checkpoints, RequireAnchor: true, StateDir: filepath.Join(e.dir, "state")})
		if err != nil {
			return err
		}
		e.say("%s: %s, anchored on a %s from elsewhere", filepath.Base(path), report.Status, report.Anchor)
	}
	return nil
}
