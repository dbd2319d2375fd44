package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The example does what it says, and leaves nothing of who was erased in clear.
func TestExample(t *testing.T) {
	dir := t.TempDir()
	var out bytes.Buffer
	if err := run(context.Background(), dir, &out); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	said := out.String()
	at := 0
	for _, want := range []string{
		"== 1. Complete setup", "recorded 6 events; encryption Enabled; verified: intact",
		"== 2. A person's rights (GDPR)", "mia: TOOL_USE tool_use:calculator for customer service", "exported 3 entries, 3 with a proof",
		"found for mia now: 0; the trail is intact",
		"== 3. Health data and its retention (HIPAA)", "an access without a reason is refused", "P12345: patient_record_read by dr-lee for treatment", "profile hipaa keeps entries 2555 days",
		"== 4. Compliance report", "AUDIT TRAIL COMPLIANCE REPORT", "Encryption: Enabled", "Agent: qa-agent-001",
		"assistant.jsonl: intact, anchored on a checkpoint from elsewhere", "hospital.jsonl: intact, anchored on a checkpoint from elsewhere",
	} {
		i := strings.Index(said[at:], want)
		if i < 0 {
			t.Fatalf("it does not say %q after the others:\n%s", want, said)
		}
		at += i
	}
	for _, name := range []string{"assistant.jsonl", "hospital.jsonl"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, canary := range []string{"how much is it for", "blood pressure", "P12345"} {
			if bytes.Contains(text, []byte(canary)) {
				t.Errorf("%s has %q in clear", name, canary)
			}
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "mia-erased.json")); err != nil {
		t.Error(err)
	}
}
